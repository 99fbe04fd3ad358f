//! What a rollout waits for.

use std::fmt;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::state::{Alarm, Phase, Rollout, Way};
use super::{Closed, Person, Wave};
use crate::desired::Frozen;
use crate::desired::rollout::Step;
use crate::model::Timestamp;

/// What a rollout waits for: reads after "waiting for ".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Wait {
    /// People who agree.
    Approval {
        /// How many more.
        missing: u32,
    },
    /// The end of a freeze.
    Freeze(Frozen),
    /// Room in its wave.
    Wave(Wave),
    /// Some quiet after one that went back.
    Cooldown {
        /// Until when.
        until: Timestamp,
    },
    /// Too many went back: a person, or the end of the hour.
    TooMany {
        /// Until when.
        until: Timestamp,
    },
    /// A person: the promoted release fails, and others went back too lately for it to go back by itself.
    HeldBack {
        /// Until when.
        until: Timestamp,
    },
    /// A person who paused it.
    Paused(Person),
    /// Instances that are ready.
    Ready,
    /// The route.
    Route,
    /// The preview of the second set.
    Smoke {
        /// Why it cannot be looked at.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unreached: Option<String>,
    },
    /// A person.
    Promotion,
    /// A time.
    Time {
        /// When it has come.
        until: Timestamp,
    },
    /// A gate.
    Gate {
        /// Its name.
        name: String,
        /// Why it is closed; nothing: it has not answered yet.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        closed: Option<Closed>,
    },
    /// The judge.
    Verdict,
}

// === impl Wait ===

impl Wait {
    /// Whether a person must do something, else it never goes on, or not for long.
    pub fn is_stalled(&self) -> bool {
        match self {
            Self::TooMany { .. } | Self::HeldBack { .. } => true,
            Self::Gate { closed, .. } => *closed == Some(Closed::Unnamed),
            Self::Smoke { unreached } => unreached.is_some(),
            Self::Wave(wave) => *wave == Wave::Stopped,
            Self::Approval { .. }
            | Self::Freeze(_)
            | Self::Cooldown { .. }
            | Self::Paused(_)
            | Self::Ready
            | Self::Route
            | Self::Promotion
            | Self::Time { .. }
            | Self::Verdict => false,
        }
    }

    /// What people are told of once, while it lasts: a gate's reason may change all the time.
    pub(super) fn in_short(mut self) -> Self {
        if let Self::Gate { closed, .. } = &mut self {
            closed.take_if(|closed| matches!(closed, Closed::Because(_)));
        }
        self
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Approval { missing: 1 } => f.write_str("somebody else than the author to agree: `backstay promote`"),
            Self::Approval { missing } => write!(f, "{missing} others than the author to agree: `backstay promote`"),
            Self::Freeze(frozen) if frozen.message.is_empty() => write!(f, "the end of a freeze at {}", frozen.until),
            Self::Freeze(frozen) => write!(f, "the end of a freeze at {} ({})", frozen.until, frozen.message),
            Self::Wave(Wave::Full) => f.write_str("other agents, which roll out now"),
            Self::Wave(Wave::Stopped) => f.write_str(
                "a person: other agents went back while it waited (`backstay promote` starts it all the same)",
            ),
            Self::Cooldown { until } => write!(f, "some quiet after a release that went back, until {until}"),
            Self::TooMany { until } => {
                write!(f, "a person: too many releases went back within the hour; until {until}, or `backstay promote`")
            }
            Self::HeldBack { until } => write!(
                f,
                "a person: it fails, and goes back by itself only from {until} on, since others went back lately; \
                 `backstay rollback` takes it back now"
            ),
            Self::Paused(by) => write!(f, "{by}, who paused it: `backstay promote` lets it go on"),
            Self::Ready => f.write_str("instances that are ready"),
            Self::Route => f.write_str("the route to say that the weights are in force"),
            Self::Smoke { unreached: None } => f.write_str("the second set to answer through its preview"),
            Self::Smoke { unreached: Some(why) } => write!(
                f,
                "the preview of the second set, which cannot be reached from here: {why}; `backstay promote` passes it"
            ),
            Self::Promotion => f.write_str("a person: `backstay promote` or `backstay abort`"),
            Self::Time { until } => write!(f, "{until}"),
            Self::Gate { name, closed: None } => write!(f, "the gate `{name}`"),
            Self::Gate { name, closed: Some(Closed::Because(why)) } => write!(f, "the gate `{name}`: {why}"),
            Self::Gate { name, closed: Some(Closed::Unnamed) } => write!(
                f,
                "the gate `{name}`, which nobody can ask: add `[gates.{name}]` to backstay.toml, or `backstay promote` \
                 passes it"
            ),
            Self::Verdict => f.write_str("the judge"),
        }
    }
}

// === what a rollout waits for ===

impl Rollout {
    /// What keeps it from starting.
    pub(super) fn start_wait(&self, now: Timestamp) -> Option<Wait> {
        if self.way == Way::Back {
            return None;
        }
        if !self.waived {
            if let Some(until) = self.too_many(now) {
                return Some(Wait::TooMany { until });
            }
            if let Some(until) = self.cooldown(now) {
                return Some(Wait::Cooldown { until });
            }
        }
        let missing = self.missing_approvals();
        if missing > 0 {
            return Some(Wait::Approval { missing });
        }
        if let Some(by) = &self.paused {
            return Some(Wait::Paused(by.clone()));
        }
        if let Some(frozen) = self.frozen(now) {
            return Some(Wait::Freeze(frozen.clone()));
        }
        self.outside.wave.filter(|wave| !(self.waived && *wave == Wave::Stopped)).map(Wait::Wave)
    }

    /// What keeps a rollout that has started from going on, whatever its step says.
    pub(super) fn held(&self, now: Timestamp) -> Option<Wait> {
        if self.way == Way::Back {
            return None;
        }
        if let Some(by) = &self.paused {
            return Some(Wait::Paused(by.clone()));
        }
        self.frozen(now).cloned().map(Wait::Freeze)
    }

    /// A freeze ends by the clock, too: whoever said so need not be there to say that it is over.
    pub(super) fn frozen(&self, now: Timestamp) -> Option<&Frozen> {
        self.outside.freeze.as_ref().filter(|frozen| frozen.until > now)
    }

    pub(super) fn missing_approvals(&self) -> u32 {
        self.approvals.saturating_sub(u32::try_from(self.approved.len()).unwrap_or(u32::MAX))
    }

    /// Until when it is quiet after the last one that went back.
    pub(super) fn cooldown(&self, now: Timestamp) -> Option<Timestamp> {
        let last = self.rollbacks.iter().max()?;
        last.checked_add(self.spec.rollback.cooldown).ok().filter(|until| *until > now)
    }

    /// Until when no further one may go back by itself, if too many did within the hour.
    pub(super) fn too_many(&self, now: Timestamp) -> Option<Timestamp> {
        let hour = SignedDuration::from_hours(1);
        let mut within: Vec<_> =
            self.rollbacks.iter().filter_map(|at| at.checked_add(hour).ok()).filter(|end| *end > now).collect();
        within.sort();
        let most = usize::try_from(self.spec.rollback.max_per_hour.max(1)).unwrap_or(1);
        // The one whose end leaves fewer than that many.
        within.len().checked_sub(most).and_then(|n| within.get(n).copied())
    }

    /// What it waits for now; nothing: it is over.
    pub fn wait(&self, now: Timestamp) -> Option<Wait> {
        let at_route = |this: &Self| {
            if this.routes_are_in_force() { Wait::Verdict } else { Wait::Route }
        };
        match &self.phase {
            Phase::Waiting => Some(self.start_wait(now).unwrap_or(Wait::Ready)),
            Phase::Starting => Some(if self.is_sized() { self.held(now).unwrap_or(Wait::Route) } else { Wait::Ready }),
            Phase::Smoke { passed, unreached } => {
                let look = Wait::Smoke { unreached: unreached.clone() };
                Some(if *passed { self.held(now).unwrap_or(look) } else { look })
            }
            Phase::Mirror { since } => Some(self.held(now).unwrap_or_else(|| {
                let end = since.zip(self.mirror_for()).and_then(|(since, lasts)| since.checked_add(lasts).ok());
                end.map_or(Wait::Route, |until| Wait::Time { until })
            })),
            Phase::Step { at, since } => Some(self.held(now).unwrap_or_else(|| match self.steps().get(*at) {
                Some(Step::Pause { lasts: None }) => Wait::Promotion,
                Some(Step::Pause { lasts: Some(lasts) }) => {
                    let end = since.and_then(|since| since.checked_add(*lasts).ok());
                    end.map_or(Wait::Promotion, |until| Wait::Time { until })
                }
                Some(Step::Gate { name }) => {
                    Wait::Gate { name: name.clone(), closed: self.gate.as_ref().map(|gate| gate.closed.clone()) }
                }
                Some(Step::Weight { .. }) if self.is_sized() => at_route(self),
                Some(Step::Weight { .. } | Step::Replicas { .. }) | None => Wait::Ready,
            })),
            Phase::Experiment { decided: true, .. } => Some(Wait::Promotion),
            Phase::Experiment { .. } => Some(self.held(now).unwrap_or_else(|| at_route(self))),
            Phase::Promoting => Some(match self.is_sized() {
                false => Wait::Ready,
                true if self.granted.weight() < 100 => self.held(now).unwrap_or(Wait::Route),
                true => Wait::Route,
            }),
            Phase::Baking { since } => {
                let held_back = self.may_go_back_from(now).filter(|_| self.told.contains(&Alarm::HeldBack));
                let bake = || since.checked_add(self.spec.rollback.bake).ok().map(|until| Wait::Time { until });
                held_back.map(|until| Wait::HeldBack { until }).or_else(bake)
            }
            Phase::Keeping { since } => since.checked_add(self.keep_old()).ok().map(|until| Wait::Time { until }),
            Phase::Aborting { .. } => Some(if self.ready.stable.agent == 0 { Wait::Ready } else { Wait::Route }),
            Phase::Done { .. } | Phase::Aborted { .. } => None,
        }
    }

    /// When a tick would change something; nothing: only an event does.
    pub fn next_look(&self, now: Timestamp) -> Option<Timestamp> {
        let of = |wait: Option<Wait>| match wait? {
            Wait::Time { until } | Wait::Cooldown { until } | Wait::TooMany { until } | Wait::HeldBack { until } => {
                Some(until)
            }
            Wait::Freeze(frozen) => Some(frozen.until),
            Wait::Approval { .. }
            | Wait::Wave(_)
            | Wait::Paused(_)
            | Wait::Ready
            | Wait::Route
            | Wait::Smoke { .. }
            | Wait::Promotion
            | Wait::Gate { .. }
            | Wait::Verdict => None,
        };
        of(self.wait(now)).filter(|at| *at > now)
    }
}
