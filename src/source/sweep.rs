//! What a process that was killed leaves in a mirror, and packs that have become too many.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use git2::{Oid, Repository};

use super::SourceError;

/// Folders within folders that are looked into.
const DEEP: usize = 24;
/// Small packs until they are made one.
const PACKS: usize = 40;
/// Bytes above which a pack is left as it is.
const LARGE: u64 = 256 << 20;

/// Removes lock files and half-written files. Only for a folder that no other process keeps.
pub(super) fn leftovers(git_dir: &Path) -> Result<usize, SourceError> {
    let mut removed = 0;
    let mut folders: Vec<(PathBuf, usize)> = vec![(git_dir.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let failed = |error: std::io::Error, path: &Path| SourceError::File {
            deed: "sweep",
            path: path.to_owned(),
            why: error.to_string(),
        };
        for entry in fs::read_dir(&folder).map_err(|error| failed(error, &folder))? {
            let entry = entry.map_err(|error| failed(error, &folder))?;
            let path = entry.path();
            let kind = entry.file_type().map_err(|error| failed(error, &path))?;
            if kind.is_dir() {
                if depth < DEEP {
                    folders.push((path, depth + 1));
                }
            } else if is_leftover(&entry.file_name().to_string_lossy(), path.starts_with(git_dir.join("objects"))) {
                fs::remove_file(&path).map_err(|error| failed(error, &path))?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}

/// Lock files, and among the objects the temporary files of Git (`tmp_…`) and libgit2 (`…_git2_` and 16 hex digits).
fn is_leftover(name: &str, among_objects: bool) -> bool {
    let lock = Path::new(name).extension().is_some_and(|extension| extension == "lock");
    let half = name
        .rsplit_once("_git2_")
        .is_some_and(|(_, digits)| digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    lock || among_objects && (half || name.starts_with("tmp_"))
}

/// Makes one pack of many small ones: every fetch brings one, and each costs a descriptor and time in every look-up.
///
/// The old ones are removed once the new one is written. Gives how many there were.
pub(super) fn packs(repository: &Repository) -> Result<usize, git2::Error> {
    let folder = repository.path().join("objects/pack");
    let Ok(entries) = fs::read_dir(&folder) else { return Ok(0) };
    let small: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "idx"))
        .filter(|path| fs::metadata(path.with_extension("pack")).is_ok_and(|meta| meta.len() <= LARGE))
        .take(10 * PACKS)
        .collect();
    if small.len() <= PACKS {
        return Ok(0);
    }
    let mut objects = BTreeSet::new();
    for path in &small {
        let bytes = fs::read(path).map_err(|error| git2::Error::from_str(&error.to_string()))?;
        objects.extend(listed(&bytes).ok_or_else(|| git2::Error::from_str("an index of objects is malformed"))?);
    }
    let mut builder = repository.packbuilder()?;
    for &object in &objects {
        builder.insert_object(object, None)?;
    }
    builder.write(&folder, 0)?;
    let made = builder.name()?.unwrap_or_default().to_owned();
    for path in &small {
        if !made.is_empty() && !path.to_string_lossy().contains(&made) {
            // What cannot be removed now is found again by the next round.
            let _ = fs::remove_file(path);
            let _ = fs::remove_file(path.with_extension("pack"));
        }
    }
    Ok(small.len())
}

/// The objects that an index (version 2) lists.
fn listed(index: &[u8]) -> Option<Vec<Oid>> {
    if index.get(..8)? != b"\xfftOc\0\0\0\x02" {
        return None;
    }
    let total = index.get(8 + 255 * 4..8 + 256 * 4)?;
    let total = usize::try_from(u32::from_be_bytes(total.try_into().ok()?)).ok()?;
    let names = index.get(8 + 256 * 4..)?.get(..total.checked_mul(20)?)?;
    names.chunks_exact(20).map(|id| Oid::from_bytes(id).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::is_leftover;

    #[test]
    fn leftovers_are_known_by_name() {
        for left in ["main.lock", "packed-refs.lock", "tmp_pack_x7", "pack_git2_0123456789abcdef", "tmp_obj_a"] {
            assert!(is_leftover(left, true), "{left}");
        }
        for kept in ["main", "packed-refs", "pack-1.pack", "my_git2_branch", "config", "a.locked"] {
            assert!(!is_leftover(kept, true), "{kept}");
        }
        assert!(!is_leftover("tmp_work", false), "a branch may have that name");
    }
}
