//! Rollouts on Kubernetes, with everything real: API server, pods, Contour and Envoy, the daemon, and Git.
#![expect(clippy::disallowed_methods, reason = "tests have clocks and tasks of their own")]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/lab.rs"]
mod lab;
#[path = "support/prometheus.rs"]
mod prometheus;
#[path = "support/rollouts.rs"]
mod rollouts;
#[path = "support/users.rs"]
mod users;

#[path = "gateway/number.rs"]
mod number;
#[path = "gateway/routed.rs"]
mod routed;
#[path = "gateway/scraped.rs"]
mod scraped;
