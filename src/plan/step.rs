//! A plan and its parts: immutable values that leave no choice to whoever carries them out.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Change, FieldChange, FieldView};
use crate::model::{GroupKind, LiveObject, Manifest, ObjectRef, ResourceVersion, Severity, Uid};

/// What will be done to one agent, in order, up to the first thing that must be waited for.
#[must_use = "a plan does nothing until it is carried out"]
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// To be done now, in this order.
    pub steps: Vec<Step>,
    /// Why the plan ends here; empty: it ends because all is done.
    pub waiting: Vec<WaitingOn>,
    /// What would follow if the wait ended well and nothing else changed: shown, never carried out.
    pub then: Vec<Step>,
    /// What a careful reader would point at.
    pub notes: Vec<Note>,
}

/// One effect on the target.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Makes an object that is not there.
    Create {
        /// What it shall be.
        manifest: Manifest,
    },
    /// Changes an object that is ours.
    Update {
        /// What it shall be.
        manifest: Manifest,
        /// Only this one.
        uid: Uid,
        /// Only as it was read.
        version: ResourceVersion,
        /// Fields that are not as rendered.
        changes: Vec<FieldChange>,
        /// Fields that were rendered before are no longer.
        drops_fields: bool,
    },
    /// Takes over an object that somebody else made.
    Adopt {
        /// What it shall be.
        manifest: Manifest,
        /// Only this one.
        uid: Uid,
        /// Only as it was read.
        version: ResourceVersion,
        /// Fields that are not as rendered.
        changes: Vec<FieldChange>,
    },
    /// Keeps the number of replicas alive while an autoscaler takes it over.
    Handover {
        /// The object, with its identity and `spec.replicas` alone.
        manifest: Manifest,
        /// Only this one.
        uid: Uid,
        /// Only as it was read.
        version: ResourceVersion,
    },
    /// Deletes an object that Git no longer asks for.
    Prune {
        /// What it is, as it was read.
        object: ObjectRef,
        /// Only this one.
        uid: Uid,
        /// Only as it was read.
        version: ResourceVersion,
        /// Why it goes.
        why: PruneReason,
    },
}

/// Why an object is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PruneReason {
    /// Git no longer asks for it.
    NotDesired,
    /// It belongs to a release older than the history keeps.
    Retention,
    /// A field of it cannot be changed in place, and a consent allows to make it anew.
    Replace,
}

/// What a plan waits for; reads after “waiting for ”.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitingOn {
    /// The pods of a release to become ready.
    Healthy(String),
    /// A kind to be listed whole.
    Sight {
        /// Which kind.
        kind: GroupKind,
        /// Why it is not.
        why: String,
    },
    /// An object to be gone, since its deletion has begun.
    Gone(ObjectRef),
    /// A consent file.
    Consent {
        /// `adopt`, `prune` or `replace`.
        allow: &'static str,
        /// Of which object.
        object: ObjectRef,
        /// Why it is needed.
        why: String,
    },
    /// A person to mend what the server or the policy refuses.
    Mended {
        /// Which object.
        object: ObjectRef,
        /// What was refused, and why.
        why: String,
    },
}

/// What the linter found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// How much it weighs: a plan with an error is not carried out.
    pub severity: Severity,
    /// What it is.
    pub kind: NoteKind,
}

/// What a linter can find in a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoteKind {
    /// A step deletes an object that the inventory does not list by this UID.
    UnownedPrune(ObjectRef),
    /// A step changes an object that is not ours, without consent.
    UnownedUpdate(ObjectRef),
    /// Two steps concern one object.
    Twice(ObjectRef),
    /// The policy gate forbids a step.
    Forbidden(String),
    /// What a step does cannot be undone.
    NoWayBack {
        /// The object.
        object: ObjectRef,
        /// Why not.
        why: &'static str,
    },
    /// Pods are restarted.
    Restarts(ObjectRef),
}

/// How a step is taken back.
#[derive(Debug, Clone, PartialEq)]
pub enum Inverse {
    /// By deleting what it made.
    Delete(ObjectRef),
    /// By writing what stood there before.
    Restore {
        /// Which object.
        object: ObjectRef,
        /// The fields that were changed, with their values before.
        changes: Vec<FieldChange>,
    },
    /// By making what it deleted, as it was last seen.
    Remake(Box<LiveObject>),
    /// Nothing is to be taken back.
    Nothing(ObjectRef),
}

// === impl Step ===

impl Step {
    /// The object that it concerns.
    pub fn object(&self) -> &ObjectRef {
        match self {
            Self::Create { manifest }
            | Self::Update { manifest, .. }
            | Self::Adopt { manifest, .. }
            | Self::Handover { manifest, .. } => &manifest.object,
            Self::Prune { object, .. } => object,
        }
    }

    /// The mark that `plan` prints before it.
    pub fn mark(&self) -> char {
        match self {
            Self::Create { .. } => '+',
            Self::Update { .. } | Self::Handover { .. } => '~',
            Self::Adopt { .. } | Self::Prune { why: PruneReason::Replace, .. } => '±',
            Self::Prune { .. } => '-',
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.mark(), self.object())?;
        match self {
            Self::Adopt { .. } => f.write_str(" adopted"),
            Self::Handover { .. } => f.write_str(" replicas kept for the autoscaler"),
            Self::Prune { why: PruneReason::Retention, .. } => f.write_str(" older than the history keeps"),
            Self::Prune { why: PruneReason::Replace, .. } => f.write_str(" made anew"),
            Self::Create { .. } | Self::Update { .. } | Self::Prune { why: PruneReason::NotDesired, .. } => Ok(()),
        }
    }
}

// === impl WaitingOn ===

impl WaitingOn {
    /// Whether it keeps something from being deleted.
    pub fn holds_a_prune(&self) -> bool {
        match self {
            Self::Consent { allow, .. } => *allow == "prune",
            Self::Sight { .. } => true,
            Self::Healthy(_) | Self::Gone(_) | Self::Mended { .. } => false,
        }
    }

    /// Whether it goes on only when a person does something.
    pub fn needs_a_person(&self) -> bool {
        match self {
            Self::Consent { .. } | Self::Mended { .. } => true,
            Self::Healthy(_) | Self::Sight { .. } | Self::Gone(_) => false,
        }
    }
}

impl fmt::Display for WaitingOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Healthy(what) => write!(f, "{what}"),
            Self::Sight { kind, why } => write!(f, "{kind} to be listed: {why}"),
            Self::Gone(object) => write!(f, "{object} to be gone"),
            Self::Consent { allow, object, why } => write!(f, "a consent that allows `{allow}` of {object}: {why}"),
            Self::Mended { object, why } => write!(f, "somebody to mend {object}: {why}"),
        }
    }
}

impl fmt::Display for NoteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnownedPrune(object) => write!(f, "{object} would be deleted, but is not in the inventory"),
            Self::UnownedUpdate(object) => write!(f, "{object} would be changed, but is not in the inventory"),
            Self::Twice(object) => write!(f, "{object} has two steps"),
            Self::Forbidden(why) => f.write_str(why),
            Self::NoWayBack { object, why } => write!(f, "{object}: {why}"),
            Self::Restarts(object) => write!(f, "the pods of {object} are replaced"),
        }
    }
}

// A plan orders by object only where its order says nothing.
impl Serialize for Step {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        StepView::from(self).serialize(serializer)
    }
}

/// A step as `plan -o json` prints it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepView {
    /// `create`, `update`, `adopt`, `handover` or `prune`.
    pub action: String,
    /// `Kind/namespace/name`.
    pub object: String,
    /// Where it was declared: `file:line:column`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// The fields that change, or that an object is made with; values that are or look like secrets are masked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldView>,
}

impl From<&Step> for StepView {
    fn from(step: &Step) -> Self {
        let of = |manifest: &Manifest, changes: &[FieldChange]| {
            let changes: Vec<_> = changes.iter().cloned().map(Change::from).collect();
            FieldView::of(&manifest.object.kind, &changes)
        };
        let (action, manifest, fields) = match step {
            Step::Create { manifest } => {
                ("create", Some(manifest), FieldView::of_created(&manifest.object.kind, &manifest.body))
            }
            Step::Update { manifest, changes, .. } => ("update", Some(manifest), of(manifest, changes)),
            Step::Adopt { manifest, changes, .. } => ("adopt", Some(manifest), of(manifest, changes)),
            Step::Handover { manifest, .. } => ("handover", Some(manifest), vec![]),
            Step::Prune { .. } => ("prune", None, vec![]),
        };
        Self {
            action: action.to_owned(),
            object: step.object().to_string(),
            origin: manifest.map(|manifest| manifest.origin.to_string()),
            fields,
        }
    }
}
