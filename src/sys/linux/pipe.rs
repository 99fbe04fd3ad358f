//! Named pipes, and moving bytes from them without holding any.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, mkfifoat, openat};
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, splice};

/// Opens a named pipe for reading and writing, and makes it where it is missing (mode 0600). Nothing done with it waits.
///
/// # Guarantees
///
/// As both ends are open, a reader sees no end while nobody writes, and a writer outlives every reader. What is in the pipe lasts as
/// long as anybody has it open.
pub fn open_pipe(path: &Path) -> io::Result<File> {
    match mkfifoat(CWD, path, Mode::from_raw_mode(0o600)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::from(openat(CWD, path, flags, Mode::empty())?);
    if file.metadata()?.file_type().is_fifo() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, format!("`{}` is not a named pipe", path.display())))
    }
}

/// Opens a pipe once more, so that whoever gets it waits where there is no room; also where its name is gone.
pub fn reopen_pipe(pipe: impl AsFd) -> io::Result<File> {
    let name = format!("/proc/self/fd/{}", pipe.as_fd().as_raw_fd());
    Ok(File::from(openat(CWD, name, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?))
}

/// Moves at most `most` bytes from a pipe to a place in a file, within the kernel; returns how many were moved.
///
/// # Guarantees
///
/// A byte is in the pipe until it is in the file: who is killed meanwhile loses and doubles nothing. On an error nothing was moved.
///
/// # Errors
///
/// `WouldBlock` where the pipe is empty. The file must not be open for appending.
pub fn pour(pipe: impl AsFd, file: &File, at: u64, most: usize) -> io::Result<usize> {
    let mut offset = at;
    Ok(splice(pipe, None, file, Some(&mut offset), most, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)?)
}

/// Moves at most `most` bytes from a pipe to `/dev/null`; returns how many.
pub fn spill(pipe: impl AsFd, null: &File, most: usize) -> io::Result<usize> {
    Ok(splice(pipe, None, null, None, most, SpliceFlags::NONBLOCK)?)
}
