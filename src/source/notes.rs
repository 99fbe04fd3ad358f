//! Git notes: lines that stand beside commits without changing them.

use std::collections::BTreeMap;

use git2::{Oid, Repository};

use super::store::oid;
use super::{Mirror, Person, PushError, SourceError, remote};
use crate::model::{CommitId, Timestamp};

/// Where the notes are: `git log --notes=backstay` shows them.
pub(super) const NOTES: &str = "refs/notes/backstay";
/// Looks at the remote before it gives up on notes that keep moving.
const ROUNDS: usize = 5;
/// Bytes of the note of one commit; beyond it nothing more is written there.
const NOTE: usize = 256 * 1024;

// === impl Mirror ===

impl Mirror {
    /// Adds lines to the notes of commits, in `refs/notes/backstay`, and pushes them; gives how many were new.
    ///
    /// # Guarantees
    ///
    /// Lines of others stay, and so does what others push at the same time: it is fetched, and the lines are added to
    /// that, at most five times. A line that is there already is not added again, so that whoever lost an answer may
    /// simply call again. Never forced.
    ///
    /// # Errors
    ///
    /// As those of [`push`](Mirror::push); [`PushError::Moved`] when the notes kept moving.
    pub fn add_notes(&self, lines: &[(CommitId, String)], by: &Person, at: Timestamp) -> Result<usize, PushError> {
        let mut last = None;
        for _ in 0..ROUNDS {
            let base = self.fetch_notes()?;
            let (tip, added) = self.store().with(|repository| self.noted(repository, base, lines, by, at))?;
            let Some(tip) = tip.filter(|_| added > 0) else { return Ok(0) };
            match self.push_reference(tip, NOTES, base.map(super::store::commit_id).as_ref()) {
                Ok(()) => return Ok(added),
                Err(error @ PushError::Moved { .. }) => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or(PushError::Moved { reference: NOTES.to_owned(), at: None }))
    }

    /// Brings the notes of the remote; gives where they are.
    fn fetch_notes(&self) -> Result<Option<Oid>, SourceError> {
        let _exclusive = self.exclusive();
        self.store().with(|repository| {
            let listing = remote::fetch(repository, self.config(), self.folder(), |listing| {
                let missing = listing.notes.is_some_and(|notes| repository.find_commit(notes).is_err());
                Ok(if missing { vec![format!("+{NOTES}:{NOTES}")] } else { vec![] })
            })?;
            let failed = |error: git2::Error| self.store().failed("read the notes", &error);
            match listing.notes {
                Some(notes) => {
                    repository.odb().and_then(|odb| odb.refresh()).map_err(failed)?;
                    repository.reference(NOTES, notes, true, "fetched").map_err(failed)?;
                }
                // What was made here and did not arrive is made again.
                None => {
                    if let Ok(mut old) = repository.find_reference(NOTES) {
                        old.delete().map_err(failed)?;
                    }
                }
            }
            Ok(listing.notes)
        })
    }

    /// Adds lines on top of `base`, in the mirror only.
    fn noted(
        &self,
        repository: &Repository,
        base: Option<Oid>,
        lines: &[(CommitId, String)],
        by: &Person,
        at: Timestamp,
    ) -> Result<(Option<Oid>, usize), SourceError> {
        let failed = |error: git2::Error| self.store().failed("write a note", &error);
        let who = git2::Signature::new(&by.name, &by.email, &git2::Time::new(at.as_second(), 0)).map_err(failed)?;
        let mut of: BTreeMap<&CommitId, Vec<&str>> = BTreeMap::new();
        for (commit, line) in lines {
            of.entry(commit).or_default().push(line);
        }
        let mut added = 0;
        for (commit, lines) in of {
            let Some(id) = oid(commit) else { continue };
            let known = match base.map(|_| repository.find_note(Some(NOTES), id)) {
                Some(Ok(note)) => String::from_utf8_lossy(note.message_bytes()).into_owned(),
                Some(Err(error)) if error.code() != git2::ErrorCode::NotFound => return Err(failed(error)),
                Some(Err(_)) | None => String::new(),
            };
            let mut text = known.clone();
            for line in lines {
                if text.lines().any(|known| known == line) || text.len() + line.len() > NOTE {
                    continue;
                }
                if !text.is_empty() && !text.ends_with('\n') {
                    text.push('\n');
                }
                text.push_str(line);
                text.push('\n');
                added += 1;
            }
            if text != known {
                repository.note(&who, &who, Some(NOTES), id, &text, true).map_err(failed)?;
            }
        }
        Ok((repository.refname_to_id(NOTES).ok(), added))
    }
}
