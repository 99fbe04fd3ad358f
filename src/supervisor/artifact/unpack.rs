//! A `tar.gz`, unpacked: files, folders and links that stay within, and nothing else.

use std::fs;
use std::io::{self, Read};

use flate2::read::MultiGzDecoder;
use tar::{Archive, EntryType};

use super::Flaw;
use super::build::{Build, refuse_mode, refused};
use crate::desired::artifact::{MAX_ARTIFACT, MAX_ENTRIES};
use crate::model::one_line;

/// Bytes of an archive beside the content of its files: a header, padding and long names for each entry.
const AROUND: u64 = 4096;

/// Unpacks an archive whose digest was checked.
///
/// Hard links become copies: what is read-only may be shared, but the digest is of files.
#[expect(clippy::wildcard_enum_match_arm, reason = "what is not named may not be in it")]
pub(super) fn unpack(packed: impl Read, build: &mut Build) -> Result<(), Flaw> {
    // Whatever it claims, no more than this comes out of it.
    let most = MAX_ARTIFACT + MAX_ENTRIES as u64 * AROUND;
    let mut archive = Archive::new(MultiGzDecoder::new(packed).take(most));
    let mut any = false;
    for (number, entry) in archive.entries().map_err(broken)?.enumerate() {
        // Headers without a path of their own are no entries of the folder, and cost as much.
        if number > 2 * MAX_ENTRIES {
            return Err(Flaw::Refused(format!("it has more than {MAX_ENTRIES} entries")));
        }
        let mut entry = entry.map_err(broken)?;
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            continue;
        }
        let raw = entry.path_bytes().into_owned();
        let Some(path) = path_of(&raw)? else { continue };
        any = true;
        let mode = entry.header().mode().map_err(broken)?;
        match kind {
            EntryType::Regular | EntryType::Continuous => {
                refuse_mode(&path, mode)?;
                let read = build.file(&path, mode & 0o100 != 0, io::Read::by_ref(&mut entry));
                read.map_err(|flaw| match flaw {
                    Flaw::File { deed: "read", source, .. } => broken(source),
                    flaw @ (Flaw::Refused(_) | Flaw::File { .. }) => flaw,
                })?;
            }
            EntryType::Directory => build.folder(&path)?,
            EntryType::Symlink => {
                let target = entry.link_name_bytes().ok_or_else(|| refused(&path, "is a link that leads nowhere"))?;
                let target = std::str::from_utf8(&target).map_err(|_| refused(&path, "leads to what is not UTF-8"))?;
                build.link(&path, target)?;
            }
            EntryType::Link => {
                let target = entry.link_name_bytes().ok_or_else(|| refused(&path, "is a link that leads nowhere"))?;
                let target = path_of(&target)?.unwrap_or_default();
                let first = build.made(&target).ok_or_else(|| refused(&path, "is a hard link to no file before it"))?;
                let failed = |source| Flaw::File { deed: "read", path: first.clone(), source };
                let executable = {
                    use std::os::unix::fs::PermissionsExt as _;
                    fs::metadata(&first).map_err(failed)?.permissions().mode() & 0o100 != 0
                };
                build.file(&path, executable, fs::File::open(&first).map_err(failed)?)?;
            }
            _ => return Err(refused(&path, "is a device, a pipe, or something else that no artifact may have")),
        }
    }
    if any { Ok(()) } else { Err(Flaw::Refused("the archive has no files".to_owned())) }
}

/// A path of an archive without `./` and a trailing `/`; nothing for the root itself.
fn path_of(raw: &[u8]) -> Result<Option<String>, Flaw> {
    let text = std::str::from_utf8(raw).map_err(|_| {
        Flaw::Refused(format!("the name `{}` is not UTF-8", String::from_utf8_lossy(raw).escape_debug()))
    })?;
    if text.starts_with('/') {
        return Err(refused(text, "is an absolute path"));
    }
    let names: Vec<&str> = text.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
    if names.contains(&"..") {
        return Err(refused(text, "leads out of it"));
    }
    Ok(Some(names.join("/")).filter(|path| !path.is_empty()))
}

#[expect(clippy::needless_pass_by_value, reason = "stands where an error is mapped")]
fn broken(error: io::Error) -> Flaw {
    // It quotes names of the archive.
    Flaw::Refused(format!("it is no whole `tar.gz`: {}", one_line(&error.to_string(), 500, ' ')))
}
