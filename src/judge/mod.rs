//! Live state becomes health, and a failure gets a cause: the release's own, or not. Measurements become a verdict.

mod agent;
mod endpoints;
mod evidence;
mod fault;
mod health;
mod host;
mod route;

pub use agent::{AgentHealth, agent_health};
pub use endpoints::{endpoint_slices, endpoints};
pub use evidence::{
    ArmFigures, Arms, Baseline, Common, Compare, Count, Counters, Decision, Difference, Direction, EFFECTS, Experiment,
    ExperimentSpec, Failure, Figures, Guard, HARM, HarmBank, Histogram, InvalidSpec, Judge, Kind, Latencies, Line,
    Means, Measured, Metric, MetricFigures, Mode, Moments, NO_HARM, Need, NoData, OneArm, Otherwise, Outcome, Reading,
    Recent, Report, SafetyBank, Sample, Side, Spec, Spread, Step, StepNeed, Totals, TwoArms, Verdict, Why, is_flat_out,
    nearest, needs, phi, quantile_interval, rate_interval, slower, within,
};
pub use fault::{Cause, Fault, Finding};
pub use health::{Health, health, is_ready};
pub use host::{HostReason, LAUNCH_ANNOTATION, PROXY_UNREACHABLE};
pub use route::route_is_in_force;
