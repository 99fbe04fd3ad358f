//! What surrounds a process: limits, session, its parent's death, its cgroup.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::path::Path;

use rustix::io::{Errno, FdFlags};
use rustix::process::{
    Resource, Rlimit, Signal, getpid, getppid, getrlimit, set_child_subreaper, set_parent_process_death_signal,
    setrlimit, setsid,
};

use super::process::raw;
use crate::sys::Limit;

/// Makes this process the one that orphans beneath it come to. It holds across `execve`.
pub fn subreaper() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// Has this process killed when the thread that started it ends.
///
/// Fails if `parent` is no longer the parent: then it has ended before this was asked for. It holds across `execve`, but
/// not for children. Who starts such a process does so from a thread that lives as long as it should.
pub fn die_with_parent(parent: u32) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() == raw(parent) { Ok(()) } else { Err(io::Error::other("the process that started this one has ended")) }
}

/// Begins a session, and with it a process group; nothing happens where this process leads one already.
pub fn new_session() -> io::Result<()> {
    match setsid() {
        Ok(_) | Err(Errno::PERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Limits this process and what it will start: the soft and the hard limit become `most`, never more than the hard one is now.
pub fn set_limit(limit: Limit, most: u64) -> io::Result<()> {
    let resource = match limit {
        Limit::OpenFiles => Resource::Nofile,
        Limit::Processes => Resource::Nproc,
        Limit::AddressSpace => Resource::As,
        Limit::Data => Resource::Data,
        Limit::Stack => Resource::Stack,
        Limit::FileSize => Resource::Fsize,
        Limit::Core => Resource::Core,
        Limit::CpuSeconds => Resource::Cpu,
        Limit::LockedMemory => Resource::Memlock,
    };
    let most = getrlimit(resource).maximum.map_or(most, |hard| hard.min(most));
    Ok(setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?)
}

/// Sets which permissions new files do not get.
pub fn set_mask(mask: u32) {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask & 0o777));
}

/// Makes an open file the standard input.
pub fn replace_stdin(file: impl AsFd) -> io::Result<()> {
    Ok(rustix::stdio::dup2_stdin(file)?)
}

/// Makes an open file the standard output.
pub fn replace_stdout(file: impl AsFd) -> io::Result<()> {
    Ok(rustix::stdio::dup2_stdout(file)?)
}

/// Makes an open file the standard error.
pub fn replace_stderr(file: impl AsFd) -> io::Result<()> {
    Ok(rustix::stdio::dup2_stderr(file)?)
}

/// Keeps every descriptor but the first three from programs that this process will start or become, whoever opened it.
///
/// What a terminal, a test or a service manager has left open would otherwise be held by agents for as long as they run: locks, too.
pub fn keep_descriptors() -> io::Result<()> {
    let mut open: Vec<RawFd> = vec![];
    for entry in fs::read_dir("/proc/self/fd")? {
        open.extend(entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()).filter(|fd| *fd > 2));
    }
    for fd in open {
        #[expect(unsafe_code, reason = "there is no other way to name a descriptor that nobody here owns")]
        // SAFETY: nothing is closed by this, and where the number means no open file any more, the call says so and does nothing.
        let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
        match rustix::io::fcntl_setfd(borrowed, FdFlags::CLOEXEC) {
            Ok(()) | Err(Errno::BADF) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Moves this process into a cgroup (version 2) that this account owns.
pub fn cgroup_enter(cgroup: &Path) -> io::Result<()> {
    fs::write(cgroup.join("cgroup.procs"), "0")
}

/// Kills every process of a cgroup and of those beneath it, at once (kernel 5.14 or newer).
pub fn cgroup_kill(cgroup: &Path) -> io::Result<()> {
    fs::write(cgroup.join("cgroup.kill"), "1")
}

/// Whether a process lives in a cgroup or beneath it. A cgroup that is gone has none.
pub fn cgroup_is_populated(cgroup: &Path) -> io::Result<bool> {
    match fs::read_to_string(cgroup.join("cgroup.events")) {
        Ok(events) => Ok(events.lines().any(|line| line.trim() == "populated 1")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
