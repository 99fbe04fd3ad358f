//! What happens to a rollout, what may not, and what people are told.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Instances, Reason, Routes, Sides, Wait, Wave};
use crate::desired::Frozen;
use crate::judge::{Decision, Report};
use crate::model::{ReleaseId, Timestamp};

/// Who asked, by the name that they are known by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Person(pub String);

/// One thing that happens to a rollout.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Time passes.
    Tick,
    /// Instances that are ready, as they were seen.
    Ready(Sides<Instances>),
    /// What the route says is in force; nothing: nobody knows.
    Routes(Option<Routes>),
    /// What the environment says.
    Outside(Outside),
    /// How many instances there shall be all in all.
    Size(Instances),
    /// What Git asks for now.
    Desired(ReleaseId),
    /// The second set was looked at through its preview.
    Smoked(Smoked),
    /// A gate answered.
    Gate {
        /// Which.
        name: String,
        /// What.
        answer: Answer,
    },
    /// The judge decided.
    Judged(Box<Decision>),
    /// The experiment stands so.
    Experiment(Box<Report>),
    /// The candidate failed.
    Failed {
        /// What failed, in one sentence.
        why: String,
        /// The release itself is the cause, and not a quota, a registry or a node.
        by_release: bool,
    },
    /// A person asks for something.
    Person {
        /// Who.
        by: Person,
        /// For what.
        deed: Deed,
    },
}

/// What came of a look at the second set through its preview.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Smoked {
    /// It answered with success.
    Answers,
    /// It answered something else, or not in time: why it must go back.
    Fails(String),
    /// There is no way to it from here, which tells nothing of it: why.
    Unreached(String),
}

/// What a gate answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It may go on.
    Open,
    /// Not yet, or nobody knows.
    Closed(Closed),
    /// It must go back, and why.
    Refused(String),
}

/// Why a gate is closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Closed {
    /// It does not say that it is open: what it says, or why it says nothing.
    Because(String),
    /// The configuration of the daemon names no such gate: nobody is asked.
    Unnamed,
}

/// What a person asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// To go on: agrees, or ends what the rollout waits at.
    Promote,
    /// To go back.
    Abort {
        /// In their words.
        reason: String,
    },
    /// To wait.
    Pause,
    /// To wait no longer.
    Resume,
}

/// What the environment says about this rollout: always the whole of it, so that a lost message costs nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outside {
    /// A freeze holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freeze: Option<Frozen>,
    /// Its wave has no room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wave: Option<Wave>,
}

/// What may not happen now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Illegal {
    /// The rollout is over.
    #[error("cannot {0}: the rollout is over")]
    Over(&'static str),
    /// It is not there.
    #[error("cannot {deed}: the rollout is {phase}")]
    Phase {
        /// What was tried.
        deed: &'static str,
        /// Where it is.
        phase: &'static str,
    },
    /// It speaks of a step that is not the present one, or not in force.
    #[error("cannot go on: the verdict is about another step")]
    Late,
    /// A freeze holds.
    #[error("cannot promote: frozen until {}{}", .0.until, because(&.0.message))]
    Frozen(Frozen),
    /// Who approves is who wrote.
    #[error("cannot promote: {0} wrote the commit, and somebody else must agree")]
    OwnCommit(Person),
    /// It is held by somebody.
    #[error("cannot promote: {0} paused the rollout")]
    Paused(Person),
}

/// What people are told.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// It begins to move.
    Started,
    /// It waits for something else than before.
    Waits(Wait),
    /// A person agreed; so many are needed.
    Approved {
        /// Who.
        by: Person,
        /// Of those that are needed.
        missing: u32,
    },
    /// A part of the traffic reached the candidate.
    InForce {
        /// The step, from 0.
        step: usize,
        /// In percent.
        weight: u8,
    },
    /// A step is over.
    Passed {
        /// The step, from 0.
        step: usize,
        /// Why.
        why: String,
    },
    /// A person paused it.
    Paused(Person),
    /// A person lets it go on.
    Resumed(Person),
    /// A step is undecided at its deadline, or nothing was measured: it holds.
    Undecided(String),
    /// Something that the release did not cause keeps it from going on.
    Stuck(String),
    /// Stable has no ready instance; the candidate serves alone where it can.
    StableLost,
    /// Stable is back.
    StableBack,
    /// The candidate has no ready instance, and no traffic.
    CandidateLost,
    /// An experiment is decided, or its time is over.
    Decided(String),
    /// All traffic is on the candidate.
    Promoted,
    /// It ought to go back, and may not by itself.
    HeldBack {
        /// What is wrong.
        why: String,
        /// When it may.
        until: Timestamp,
    },
    /// It goes back.
    Aborting(Reason),
    /// The traffic is back.
    Aborted(Reason),
    /// It goes back, and stable has no ready instance to go to.
    NoWayBack,
    /// Git asks for a release that waits until this one has ended.
    Queued(ReleaseId),
    /// It is over, and went well.
    Done,
}

// === impl News ===

impl News {
    /// Whether somebody should look.
    pub fn is_warning(&self) -> bool {
        match self {
            Self::Undecided(_)
            | Self::Stuck(_)
            | Self::StableLost
            | Self::CandidateLost
            | Self::HeldBack { .. }
            | Self::NoWayBack => true,
            Self::Waits(wait) => wait.is_stalled(),
            Self::Aborting(reason) | Self::Aborted(reason) => {
                !matches!(reason, Reason::Reverted | Reason::Superseded { .. })
            }
            Self::Started
            | Self::Approved { .. }
            | Self::InForce { .. }
            | Self::Passed { .. }
            | Self::Paused(_)
            | Self::Resumed(_)
            | Self::StableBack
            | Self::Decided(_)
            | Self::Promoted
            | Self::Queued(_)
            | Self::Done => false,
        }
    }

    /// One word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Started => "RolloutStarted",
            Self::Waits(_) => "RolloutWaits",
            Self::Approved { .. } => "RolloutApproved",
            Self::InForce { .. } => "TrafficShifted",
            Self::Passed { .. } => "StepPassed",
            Self::Paused(_) => "RolloutPaused",
            Self::Resumed(_) => "RolloutResumed",
            Self::Undecided(_) => "Undecided",
            Self::Stuck(_) => "RolloutStuck",
            Self::StableLost => "StableLost",
            Self::StableBack => "StableBack",
            Self::CandidateLost => "CandidateLost",
            Self::Decided(_) => "ExperimentDecided",
            Self::Promoted => "Promoted",
            Self::HeldBack { .. } => "RollbackHeld",
            Self::Aborting(_) => "Aborting",
            Self::Aborted(_) => "Aborted",
            Self::NoWayBack => "NoWayBack",
            Self::Queued(_) => "CommitQueued",
            Self::Done => "RolloutDone",
        }
    }
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started => f.write_str("the rollout begins"),
            Self::Waits(wait) => write!(f, "waiting for {wait}"),
            Self::Approved { by, missing: 0 } => write!(f, "{by} agrees"),
            Self::Approved { by, missing } => write!(f, "{by} agrees, {missing} more must"),
            Self::InForce { step, weight } => {
                write!(f, "step {}: {weight} % of the traffic is on the candidate", step + 1)
            }
            Self::Passed { step, why } => write!(f, "step {} is over: {why}", step + 1),
            Self::Paused(by) => write!(f, "{by} paused the rollout"),
            Self::Resumed(by) => write!(f, "{by} lets the rollout go on"),
            Self::Undecided(why) | Self::Stuck(why) | Self::Decided(why) => f.write_str(why),
            Self::StableLost => f.write_str("no instance of the stable release is ready"),
            Self::StableBack => f.write_str("the stable release is ready again"),
            Self::CandidateLost => f.write_str("no instance of the candidate is ready: it gets no traffic"),
            Self::Promoted => f.write_str("all traffic is on the candidate"),
            Self::HeldBack { why, until } => {
                write!(f, "it ought to go back ({why}), and has done so too often: not by itself before {until}")
            }
            Self::Aborting(reason) => write!(f, "the candidate goes back: {reason}"),
            Self::Aborted(reason) => write!(f, "the traffic is back on stable: {reason}"),
            Self::NoWayBack => {
                f.write_str("the candidate goes back as soon as an instance of stable is ready: none is")
            }
            Self::Queued(id) => write!(f, "{id} waits until this rollout has ended"),
            Self::Done => f.write_str("the rollout is done"),
        }
    }
}

// === impl Person ===

impl fmt::Display for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Deed ===

impl Deed {
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Abort { .. } => "abort",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }
}

fn because(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({message})") }
}
