//! What the agent tells Prometheus: the OpenTelemetry conventions for generative AI and HTTP servers, and Backstay's
//! own three. Every series carries `service_version`, the release.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::rules::{Answer, Outcome};

type Labels = Vec<(&'static str, String)>;
type Durations = Family<Labels, Histogram, fn() -> Histogram>;

/// All series, and the registry that writes them out.
pub(super) struct Metrics {
    registry: Registry,
    model: String,
    requests: Family<Labels, Counter>,
    request_durations: Durations,
    in_flight: Gauge,
    operations: Durations,
    first_tokens: Durations,
    per_token: Durations,
    tokens: Durations,
    tools: Durations,
    injections: Counter,
    goals: Family<Labels, Counter>,
}

// === impl Metrics ===

impl Metrics {
    /// Registers every series for one release and its model.
    pub(super) fn new(release: &str, model: &str) -> Self {
        // The boundaries that the conventions give.
        fn seconds() -> Histogram {
            Histogram::new([0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0])
        }
        fn operation_seconds() -> Histogram {
            Histogram::new((0..14).map(|n| 0.01 * f64::from(1 << n)))
        }
        fn token_count() -> Histogram {
            Histogram::new((0..14).map(|n| f64::from(1 << (2 * n))))
        }
        let family = |histogram: fn() -> Histogram| Durations::new_with_constructor(histogram);
        let version = ("service_version".into(), release.to_owned().into());
        let mut metrics = Self {
            registry: Registry::with_labels([version].into_iter()),
            model: model.to_owned(),
            requests: Family::default(),
            request_durations: family(seconds),
            in_flight: Gauge::default(),
            operations: family(operation_seconds),
            first_tokens: family(operation_seconds),
            per_token: family(operation_seconds),
            tokens: family(token_count),
            tools: family(operation_seconds),
            injections: Counter::default(),
            goals: Family::default(),
        };
        metrics.register();
        // A series that is there from the start: none seen is then 0 and not unknown.
        for outcome in [Outcome::Completed, Outcome::Failed, Outcome::Refused] {
            drop(metrics.goals.get_or_create(&vec![("outcome", outcome.as_str().to_owned())]));
        }
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("http_requests", "HTTP requests answered", self.requests.clone());
        registry.register("http_requests_in_flight", "HTTP requests being answered", self.in_flight.clone());
        registry.register("backstay_agent_injections", "Prompt injections detected", self.injections.clone());
        registry.register("backstay_agent_goals", "Conversations by how they ended", self.goals.clone());
        registry.register("gen_ai_client_token_usage", "Tokens used by an operation", self.tokens.clone());
        for (name, help, durations) in [
            ("http_server_request_duration", "Duration of HTTP requests", &self.request_durations),
            ("gen_ai_client_operation_duration", "Duration of an operation of the model", &self.operations),
            ("gen_ai_server_time_to_first_token", "Time to the first token", &self.first_tokens),
            ("gen_ai_server_time_per_output_token", "Time for each token after the first", &self.per_token),
            ("gen_ai_execute_tool_duration", "Duration of a call of a tool", &self.tools),
        ] {
            registry.register_with_unit(name, help, Unit::Seconds, durations.clone());
        }
    }

    /// Counts a request that begins.
    pub(super) fn begin(&self) {
        self.in_flight.inc();
    }

    /// Counts a request that ended.
    pub(super) fn end(&self, method: &str, route: &str, status: u16, took: Duration) {
        self.in_flight.dec();
        let labels = vec![
            ("http_request_method", method.to_owned()),
            ("http_route", route.to_owned()),
            ("http_response_status_code", status.to_string()),
        ];
        self.requests.get_or_create(&labels).inc();
        self.request_durations.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Counts an answer: how long the model took, its tokens, its tool and how the conversation ended.
    pub(super) fn answered(&self, message: &str, answer: &Answer, took: Duration) {
        self.operations.get_or_create(&self.operation("chat")).observe(took.as_secs_f64());
        for (kind, text) in [("input", message), ("output", &answer.text)] {
            let mut labels = self.operation("chat");
            labels.push(("gen_ai_token_type", kind.to_owned()));
            self.tokens.get_or_create(&labels).observe(f64::from(count(text)));
        }
        if let Some(call) = &answer.tool {
            let mut labels =
                vec![("gen_ai_operation_name", "execute_tool".to_owned()), ("gen_ai_tool_name", call.tool.clone())];
            if !call.declared {
                labels.push(("error_type", "undeclared_tool".to_owned()));
            }
            self.tools.get_or_create(&labels).observe(took.as_secs_f64());
        }
        if answer.injection {
            self.injections.inc();
        }
        self.goals.get_or_create(&vec![("outcome", answer.outcome.as_str().to_owned())]).inc();
    }

    /// Counts the pace of a streamed reply.
    pub(super) fn streamed(&self, text: &str, first: Duration, whole: Duration) {
        let labels = self.operation("chat");
        self.first_tokens.get_or_create(&labels).observe(first.as_secs_f64());
        let after = whole.saturating_sub(first).as_secs_f64();
        self.per_token.get_or_create(&labels).observe(after / f64::from(count(text).saturating_sub(1).max(1)));
    }

    fn operation(&self, name: &str) -> Labels {
        vec![("gen_ai_operation_name", name.to_owned()), ("gen_ai_request_model", self.model.clone())]
    }

    /// Everything in the text format of `OpenMetrics`.
    pub(super) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// The rule model's tokens are words.
fn count(text: &str) -> u32 {
    u32::try_from(text.split_whitespace().count()).unwrap_or(u32::MAX)
}
