//! Small files: read with a bound, replaced whole. The folders may be an agent's to write, so nothing in them is trusted to be a file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use super::wire::Program;

/// Opens a file for reading; a link is not followed, and a pipe is not waited for.
pub(super) fn open(path: &Path) -> io::Result<File> {
    only_files(OpenOptions::new().read(true).custom_flags(PLAIN).open(path)?)
}

/// Opens a file for writing that is there already, in the same way.
pub(super) fn open_to_write(path: &Path) -> io::Result<File> {
    only_files(OpenOptions::new().write(true).custom_flags(PLAIN).open(path)?)
}

/// Makes a file that must not be there yet, mode 0600.
pub(super) fn make(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Reads a file of at most `most` bytes.
pub(super) fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut text = vec![];
    open(path)?.take(most + 1).read_to_end(&mut text)?;
    if text.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it is longer than {most} bytes")));
    }
    Ok(text)
}

/// Replaces a file, mode 0600: who reads it sees the old or the new one, whole.
///
/// What it holds means something for this boot only, so it is not forced to the disk.
pub(super) fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    // What an interrupted write has left, or somebody has put there: not to be written through.
    let _ = fs::remove_file(&beside);
    let written = make(&beside).and_then(|mut file| file.write_all(text)).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

/// Which file a program is.
pub(super) fn program(path: &Path) -> io::Result<Program> {
    let about = fs::metadata(path)?;
    Ok(Program { bytes: about.len(), modified: about.mtime(), nanos: about.mtime_nsec() })
}

#[expect(clippy::cast_possible_wrap, reason = "flags, not numbers")]
const PLAIN: i32 = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits() as i32;

fn only_files(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a file"))
    }
}
