//! One file for each verb.

pub(super) mod completions;
pub(super) mod demo;
pub(super) mod diff;
pub(super) mod healthcheck;
pub(super) mod history;
pub(super) mod host;
pub(super) mod init;
pub(super) mod logs;
pub(super) mod man;
pub(super) mod plan;
pub(super) mod proxy;
pub(super) mod retry;
pub(super) mod revert;
pub(super) mod rollback;
pub(super) mod rollout;
pub(super) mod run;
pub(super) mod schema;
pub(super) mod status;
pub(super) mod suspend;
pub(super) mod sync;
pub(super) mod validate;

use std::collections::BTreeSet;

/// Names that there are, to find the one that was meant.
pub(super) struct Known<'a>(pub(super) BTreeSet<&'a str>);

impl<'a> FromIterator<&'a str> for Known<'a> {
    fn from_iter<T: IntoIterator<Item = &'a str>>(names: T) -> Self {
        Self(names.into_iter().collect())
    }
}
