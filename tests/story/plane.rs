//! The fault plane: which fault strikes at which effect of a scenario, and whether it did.

use std::collections::BTreeMap;
use std::sync::Arc;

use backstay::model::{AgentName, LiveObject, ObjectRef, Timestamp};
use backstay::reconcile::{Action, FailureKind, How, Observation, Write};

use super::world::{Entry, is_aside};

/// What can go wrong at one effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// The daemon dies before it happens.
    CrashBefore,
    /// The daemon dies when it has happened, before its answer.
    CrashAfter,
    /// It happened; the answer says `Unavailable`.
    LostReply,
    /// 500.
    Internal,
    /// 503.
    Unavailable,
    /// 429 with `Retry-After`.
    TooMany,
    /// Somebody wrote to the object just before.
    Conflict,
    /// 409 AlreadyExists though nothing does: an answer that was overtaken.
    Exists,
    /// Somebody deleted the object just before.
    Gone,
    /// 403.
    Forbidden,
    /// 422.
    Refused,
    /// 422 on an immutable field.
    Immutable,
    /// Silence, and it happens after the next effect.
    Timeout,
    /// Everything observed from here on is observed twice, answers included.
    Duplicate,
    /// The watch shows what it did before its answer comes.
    EventFirst,
    /// The daemon starts again and sees everything as it was just before it.
    StaleList,
    /// The daemon starts again and sees everything as it was before Git's last word.
    OldList,
    /// The same, and the first reads are as old.
    StaleRead,
    /// Watch events get lost from here on, until the next list.
    Dropped,
    /// The next watch event comes before the one before it.
    Reordered,
    /// One kind cannot be listed from here on, for a while.
    Unseen(&'static str),
    /// Another leader took over.
    Fenced,
    /// A leader that was paused does it once its successor is done.
    Late,
    /// The same, only after everything that comes later in the scenario.
    VeryLate,
    /// The figures that come are no numbers.
    Nonsense,
}

/// After so many commits whose ids follow each other, every class has struck at everything.
pub(crate) const TURNS: usize = 8;
/// Seconds that a busy server asks for.
pub(crate) const RETRY_AFTER: u64 = 45;

impl Class {
    pub(crate) const ALL: [Self; 29] = [
        Self::CrashBefore,
        Self::CrashAfter,
        Self::LostReply,
        Self::Internal,
        Self::Unavailable,
        Self::TooMany,
        Self::Conflict,
        Self::Exists,
        Self::Gone,
        Self::Forbidden,
        Self::Refused,
        Self::Immutable,
        Self::Timeout,
        Self::Duplicate,
        Self::EventFirst,
        Self::StaleList,
        Self::OldList,
        Self::StaleRead,
        Self::Dropped,
        Self::Reordered,
        Self::Unseen("ConfigMap"),
        Self::Unseen("Service"),
        Self::Unseen("Deployment"),
        Self::Unseen("ReplicaSet"),
        Self::Unseen("Pod"),
        Self::Fenced,
        Self::Late,
        Self::VeryLate,
        Self::Nonsense,
    ];

    /// The promises that a run with this fault is evidence for.
    pub(crate) fn promises(self) -> &'static [&'static str] {
        match self {
            Self::CrashBefore | Self::CrashAfter => &["K1", "R6"],
            Self::LostReply | Self::Timeout => &["K1", "K11"],
            Self::Internal | Self::Unavailable | Self::TooMany => &["K10"],
            Self::Conflict => &["K8"],
            Self::Exists => &["K9"],
            Self::Gone => &["K11"],
            Self::Forbidden | Self::Refused => &["K12", "K14"],
            Self::Immutable => &["K14"],
            Self::Duplicate | Self::EventFirst | Self::Dropped | Self::Reordered => &["K3"],
            Self::StaleList | Self::OldList | Self::StaleRead => &["K2"],
            Self::Unseen(_) => &["K4"],
            Self::Fenced | Self::Late | Self::VeryLate => &["F1"],
            Self::Nonsense => &["T2"],
        }
    }

    /// Whether it can strike at this effect.
    pub(crate) fn applies(self, effect: &Action) -> bool {
        if is_aside(effect) {
            return self.applies_aside(effect);
        }
        let creates = match effect {
            Action::Write(write) | Action::DryRun(write) => matches!(write.how, How::Create { .. }),
            Action::Record { expected, .. } => expected.is_none(),
            _ => false,
        };
        let reads = matches!(effect, Action::Read(_) | Action::ReadLedger);
        let git = matches!(effect, Action::TellGit(_));
        match self {
            Self::Exists => creates,
            // Adopted or made: what was somebody else's does not end alike.
            Self::Gone if matches!(effect, Action::Write(write) if matches!(write.how, How::Adopt { .. })) => false,
            Self::Conflict | Self::Gone => !creates && !reads && !git,
            Self::Refused => !reads,
            Self::Immutable => matches!(effect, Action::Write(_) | Action::DryRun(_)),
            Self::Forbidden | Self::Fenced => !git,
            Self::Late | Self::VeryLate => !reads && !git && !matches!(effect, Action::DryRun(_)),
            Self::Timeout => !git,
            Self::Nonsense => false,
            _ => true,
        }
    }

    /// Whether it can strike at what the core does not wait for.
    fn applies_aside(self, aside: &Action) -> bool {
        let (news, asks) =
            (matches!(aside, Action::Announce(_)), !matches!(aside, Action::Announce(_) | Action::Wake(_)));
        match self {
            Self::CrashBefore | Self::CrashAfter => true,
            // Whoever is asked to wake does it: late at worst.
            Self::LostReply => news || asks,
            Self::Duplicate | Self::Timeout => !news,
            Self::Unavailable => asks,
            Self::Nonsense => matches!(aside, Action::Measure(_)),
            _ => false,
        }
    }

    /// Whether it strikes there in an ordinary run: crashes do at every effect, all else in turns, of which the commit
    /// chooses one.
    pub(crate) fn has_turn(self, action: &Action, at: usize, turn: usize) -> bool {
        let every = match (self, action) {
            // Asked a few times in all.
            (_, Action::Smoke(_) | Action::Gate(_)) => 1,
            (_, Action::Announce(_) | Action::Measure(_) | Action::Wake(_)) => TURNS,
            (Self::CrashBefore | Self::CrashAfter, _) => 1,
            (Self::LostReply | Self::Late, _) => 2,
            _ => TURNS,
        };
        Self::ALL.iter().position(|class| *class == self).is_some_and(|n| (n + at + turn).is_multiple_of(every))
    }

    /// The answer that comes instead of the effect.
    pub(crate) fn answer(self) -> Option<FailureKind> {
        Some(match self {
            Self::Internal | Self::Unavailable => FailureKind::Unavailable { retry_after: None },
            Self::TooMany => FailureKind::Unavailable { retry_after: Some(RETRY_AFTER) },
            Self::Exists => FailureKind::Exists,
            Self::Forbidden => FailureKind::Forbidden,
            Self::Refused => FailureKind::Refused,
            Self::Immutable => FailureKind::Immutable,
            Self::Fenced => FailureKind::Fenced,
            _ => return None,
        })
    }
}

/// Names what each action is, and lists all that there are: a new one does not compile until it has a line here.
macro_rules! sorts {
    ($($name:literal: $pattern:pat),+ $(,)?) => {
        /// All sorts of actions.
        pub(crate) const SORTS: &[&str] = &[$($name),+];

        /// Which sort of action it is.
        pub(crate) fn sort(action: &Action) -> &'static str {
            match action {
                $($pattern => $name),+
            }
        }
    };
}

sorts! {
    "record": Action::Record { .. },
    "create": Action::Write(Write { how: How::Create { .. }, .. }),
    "apply": Action::Write(Write { how: How::Apply { .. }, .. }),
    "adopt": Action::Write(Write { how: How::Adopt { .. }, .. }),
    "hand over": Action::Write(Write { how: How::Handover { .. }, .. }),
    "dry run": Action::DryRun(_),
    "delete": Action::Delete { .. },
    "read": Action::Read(_),
    "read the ledger": Action::ReadLedger,
    "tell Git": Action::TellGit(_),
    "announce": Action::Announce(_),
    "measure": Action::Measure(_),
    "smoke": Action::Smoke(_),
    "gate": Action::Gate(_),
    "wake": Action::Wake(_),
}

/// Everything that can be listed, as it was at one time.
#[derive(Clone)]
pub(crate) struct Past {
    pub(crate) objects: BTreeMap<ObjectRef, Arc<LiveObject>>,
    pub(crate) ledger: BTreeMap<AgentName, Entry>,
}

/// One fault that is to strike, and what it does to what is seen from then on.
#[derive(Clone, Default)]
pub(crate) struct Plane {
    /// The fault, and the number of the effect it strikes at.
    pub(crate) fault: Option<(Class, usize)>,
    /// The same for what the core does not wait for.
    pub(crate) aside: Option<(Class, usize)>,
    /// It had an effect of its own.
    pub(crate) hit: bool,
    /// How things were before Git's last word.
    pub(crate) before_the_word: Option<Past>,
    /// What lists show instead of what is.
    pub(crate) stale: Option<Past>,
    /// How many reads of single objects are as old.
    pub(crate) stale_reads: usize,
    /// Everything is observed twice.
    pub(crate) twice: bool,
    /// Events are lost.
    pub(crate) dropping: bool,
    /// The next event comes before this one.
    pub(crate) swap: Option<Past>,
    /// This kind cannot be listed.
    pub(crate) unseen: Option<&'static str>,
    /// An effect that happens after the next one, or once a successor is done.
    pub(crate) held: Option<(AgentName, Action)>,
    /// An answer to a question that comes after whatever comes next.
    pub(crate) late: Option<(AgentName, Observation)>,
    /// Who is woken twice at the time that it asked for.
    pub(crate) wakes_twice: Option<AgentName>,
    /// What is seen is right again by then.
    pub(crate) until: Option<Timestamp>,
    /// A leader was told that it is none any more.
    pub(crate) fenced: bool,
}

impl Plane {
    /// The fault that strikes at effect number `at`.
    pub(crate) fn strikes(&self, at: usize, effect: &Action) -> Option<Class> {
        let (class, _) = self.fault.filter(|(_, when)| *when == at)?;
        class.applies(effect).then_some(class)
    }

    /// What is seen is right again: says whether it was not.
    pub(crate) fn clear_up(&mut self) -> bool {
        self.until = None;
        let dropped = std::mem::take(&mut self.dropping);
        self.stale_reads = 0;
        self.twice = false;
        let stale = self.stale.take().is_some();
        let swapped = self.swap.take().is_some();
        let unseen = self.unseen.take().is_some();
        dropped || stale || swapped || unseen
    }
}
