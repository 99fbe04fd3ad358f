//! Evidence becomes a verdict: advance, promote, hold or abort.
//!
//! Each test is a bank of bets against the claim that the candidate is no worse. While the claim is true no bet gains on
//! average, so the chance that the evidence ever reaches 1/α is at most α (Ville's inequality): it may be looked at every
//! second, stopped at any time, and the weights may change on the way. Evidence of harm adds up over all metrics by their
//! average, which is again such evidence however the metrics depend on each other. No harm is shown by each metric for
//! itself, within a margin of what the whole traffic may lose.
//!
//! # Assumptions
//!
//! For events, harm against stable needs one of two things. Either requests go to an arm by chance: then nothing is
//! assumed about the requests, and bursts, outages and waves that both arms share are harmless. Or, within a block of a
//! few requests, outcomes are independent; the rates may differ from block to block in any way. All else (limits,
//! margins, no harm, latency, common events) needs the second; means need a finite variance, which is learned from the
//! past.
//!
//! What breaks them, and what to do about it:
//!
//! - Both arms drift together: nothing, it cancels.
//! - Users are kept with an arm, and whole bursts of failures with them: count users, not requests.
//! - Instances differ, and the candidate has few of them: the [guard](phi) lowers evidence by how much stable's own
//!   instances disagree. It helps much, not all.
//! - Retries go to the same arm: count either tries or requests, the same in both arms. It makes false alarms rarer.
//! - Outcomes come late: wait as long in both arms. What is not known yet is no miss.
//! - New instances are slow or wrong while they warm up: leave the young out of both arms; the hard rules see them still.

mod bank;
mod binary;
mod counters;
mod experiment;
mod figures;
mod flat_out;
mod guard;
mod interval;
mod latency;
mod limit;
mod mean;
mod measure;
mod need;
mod spec;
mod track;
mod verdict;
mod window;
mod words;

pub use bank::{EFFECTS, HARM, HarmBank, NO_HARM, SafetyBank};
pub use binary::{Common, Line, OneArm, TwoArms};
pub use counters::{Counters, Reading, Totals};
pub use experiment::{Experiment, ExperimentSpec, Outcome, Report};
pub use figures::{ArmFigures, Figures, MetricFigures};
pub use flat_out::{Recent, is_flat_out};
pub use guard::{Guard, phi};
pub use interval::{quantile as quantile_interval, rate as rate_interval};
pub use latency::{Latencies, nearest, slower, within};
pub use mean::{Difference, Means, Side as Direction, Spread};
pub use measure::{Arms, Count, Histogram, Measured, Moments, NoData, Sample, Side};
pub use need::{Baseline, Need, StepNeed, needs};
pub use spec::{Compare, InvalidSpec, Kind, Metric, Mode, Otherwise, Spec, Step};
pub use verdict::{Decision, Failure, Judge, Verdict, Why};
