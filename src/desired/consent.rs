//! `consent/*.yaml`: deeds that somebody allowed.

use super::agent::sorted;
use super::layer::{refused, source};
use super::read::{check, one_document};
use super::written::{self, Deed};
use super::{Allow, Consent, ReleaseRef};
use crate::model::{Diagnostic, Diagnostics, Origin};
use crate::source::{EntryKind, Tree};

/// Files of consents that are read.
const MAX_CONSENTS: usize = 1000;
/// Errors of all of them that are listed.
const MAX_ERRORS: usize = 200;
/// Bytes that one may have.
const MAX_CONSENT: usize = 64 << 10;

/// All consents of a tree, in the order of their files, and what is wrong with those that could not be read.
///
/// Those that have expired are among them: who uses one compares `expires` with the time.
pub fn consents(tree: &dyn Tree) -> (Vec<Consent>, Diagnostics) {
    let (mut read, mut found) = (vec![], vec![]);
    let entries = match tree.list("consent") {
        Ok(entries) => entries,
        Err(error) => return (read, refused("consent", &error)),
    };
    if entries.len() > MAX_CONSENTS {
        let message = format!("the folder has more than {MAX_CONSENTS} files: none of its consents counts");
        let error = Diagnostic::error(Origin::file("consent"), message).hint("take those away that have expired");
        return (read, error.into());
    }
    for entry in entries.iter().filter(|entry| !entry.name.starts_with('.') && &*entry.name != "README.md") {
        let path = format!("consent/{}", entry.name);
        if entry.kind == EntryKind::Folder || !entry.name.ends_with(".yaml") {
            let error = Diagnostic::error(Origin::file(path), "this is no file of a consent");
            found.push(error.hint("`consent/` holds `.yaml` files, each with one consent"));
            continue;
        }
        match consent(tree, &path) {
            Ok(Some(consent)) => read.push(consent),
            Ok(None) => {}
            Err(errors) => found.extend(errors.0.into_iter().take(MAX_ERRORS.saturating_sub(found.len()))),
        }
    }
    (read, sorted(found))
}

fn consent(tree: &dyn Tree, path: &str) -> Result<Option<Consent>, Diagnostics> {
    let Some(source) = source(tree, path, MAX_CONSENT)? else { return Ok(None) };
    let node = one_document(&source)?;
    let found = check(written::consent(), &node);
    if found.has_errors() {
        return Err(found);
    }
    let declared: written::Consent = serde_json::from_value(node.to_value())
        .map_err(|error| node.spot.error(format!("the consent cannot be read: {error}")))?;
    let word = node.nearest(["allow"]);
    let needs = |field: &str| word.error(format!("`{field}` is missing: it says what is allowed"));
    let extra = |field: &str| {
        let spot = node.field(field).map_or(word, |field| &field.spot);
        spot.error(format!("`{field}` does not go with this deed"))
    };
    let allow = match (declared.allow, declared.object, declared.release) {
        (Deed::Retry, None, Some(release)) => Allow::Retry(ReleaseRef(release.0)),
        (Deed::LossyDown, None, Some(release)) => Allow::LossyDown(ReleaseRef(release.0)),
        (Deed::Adopt, Some(object), None) => Allow::Adopt(object.0),
        (Deed::Prune, Some(object), None) => Allow::Prune(object.0),
        (Deed::Replace, Some(object), None) => Allow::Replace(object.0),
        (Deed::Retry | Deed::LossyDown, Some(_), _) => return Err(extra("object").into()),
        (Deed::Adopt | Deed::Prune | Deed::Replace, _, Some(_)) => return Err(extra("release").into()),
        (Deed::Retry | Deed::LossyDown, None, None) => return Err(needs("release").into()),
        (Deed::Adopt | Deed::Prune | Deed::Replace, None, None) => return Err(needs("object").into()),
    };
    let Some(expires) = declared.expires.end() else {
        return Err(node.nearest(["expires"]).error("this is no time").into());
    };
    let (agent, environment, origin) = (declared.agent, declared.environment, Origin::file(path));
    Ok(Some(Consent { agent, environment, allow, expires, origin }))
}
