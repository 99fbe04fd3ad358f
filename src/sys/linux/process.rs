//! One process: its name for all time, signals to it, its end.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, wait};

use crate::sys::{Exited, ProcessId, Word};

/// Milliseconds of a tick, in which the kernel tells times to programs on every machine.
const TICK: u64 = 10;

/// What `/proc/<pid>/stat` says of a process.
pub(super) struct Stat {
    pub(super) state: char,
    pub(super) parent: u32,
    pub(super) start: u64,
}

/// The id of this boot: another one after every start of the machine.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// The process that asks.
pub fn own_process() -> io::Result<ProcessId> {
    let pid = std::process::id();
    process(pid)?.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "this process is not in /proc"))
}

/// The effective user of the process that asks.
pub fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The process of that number, if one lives. One that has ended and only waits to be reaped does not live.
pub fn process(pid: u32) -> io::Result<Option<ProcessId>> {
    Ok(stat(pid)?.filter(Stat::lives).map(|stat| ProcessId { pid, start: stat.start }))
}

/// How long ago a process of this boot began, by the clock that nobody sets; steps of 10 ms.
pub fn age(id: ProcessId) -> io::Result<Duration> {
    let text = fs::read_to_string("/proc/uptime")?;
    let seconds =
        text.split(' ').next().and_then(|seconds| seconds.parse::<f64>().ok()).filter(|seconds| *seconds >= 0.0);
    let up = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let up = up.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/uptime"))?;
    Ok(up.saturating_sub(Duration::from_millis(id.start.saturating_mul(TICK))))
}

/// Opens a process, to wait for its end with `poll` (readable: ended); none if it does not live.
///
/// # Guarantees
///
/// The descriptor means that very process, also when its number is given to another one.
pub fn hold_process(id: ProcessId) -> io::Result<Option<OwnedFd>> {
    let Some(pid) = raw(id.pid) else { return Ok(None) };
    let held = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(held) => held,
        Err(Errno::SRCH) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(if process(id.pid)? == Some(id) { Some(held) } else { None })
}

/// Sends a signal to that very process; false if it does not live.
pub fn signal(id: ProcessId, word: Word) -> io::Result<bool> {
    let Some(held) = hold_process(id)? else { return Ok(false) };
    match pidfd_send_signal(held, named(word)) {
        Ok(()) => Ok(true),
        Err(Errno::SRCH) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Takes the status of one child that has ended, without waiting; none if none has.
pub fn reap() -> io::Result<Option<Exited>> {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                let pid = pid.as_raw_nonzero().get().unsigned_abs();
                return Ok(Some(Exited { pid, code: status.exit_status(), signal: status.terminating_signal() }));
            }
            Ok(None) | Err(Errno::CHILD) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

pub(super) fn raw(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

pub(super) fn named(word: Word) -> Signal {
    match word {
        Word::Hup => Signal::HUP,
        Word::Int => Signal::INT,
        Word::Quit => Signal::QUIT,
        Word::Term => Signal::TERM,
        Word::Kill => Signal::KILL,
        Word::Usr1 => Signal::USR1,
        Word::Usr2 => Signal::USR2,
        Word::Stop => Signal::STOP,
        Word::Cont => Signal::CONT,
    }
}

/// Reads `/proc/<pid>/stat`; none if there is no such process.
pub(super) fn stat(pid: u32) -> io::Result<Option<Stat>> {
    match fs::read(format!("/proc/{pid}/stat")) {
        Ok(text) => {
            parse(&text).map(Some).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/<pid>/stat"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound || is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether an error of reading `/proc/<pid>` means that the process ended meanwhile.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

/// The name of the program stands in parentheses and may hold any byte: fields are counted from the last one.
fn parse(text: &[u8]) -> Option<Stat> {
    let after = text.iter().rposition(|byte| *byte == b')')? + 1;
    let mut fields = std::str::from_utf8(text.get(after..)?).ok()?.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let start = fields.nth(17)?.parse().ok()?;
    Some(Stat { state, parent, start })
}

// === impl Stat ===

impl Stat {
    pub(super) fn lives(&self) -> bool {
        !matches!(self.state, 'Z' | 'X' | 'x')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_be_named_like_fields() {
        let text = b"7 (a) S 1 (b) R 3 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 1 0 4711 5 6\n";
        let stat = parse(text).unwrap();
        assert_eq!((stat.state, stat.parent, stat.start), ('R', 3, 4711));
    }

    #[test]
    fn a_number_with_another_start_is_another_process() {
        let own = own_process().unwrap();
        assert!(hold_process(own).unwrap().is_some());
        assert!(hold_process(ProcessId { start: own.start + 1, ..own }).unwrap().is_none());
    }
}
