//! Short commands beside the agent, each with an end: probes, what runs before a stop, and questions to a new program.

use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::Keeper;
use crate::keeper::cage::{self, Born};
use crate::keeper::wire::{Answer, How, OUTPUT, Probe, Probed};
use crate::sys::{self, Word};

/// Commands that run at once at most.
const MOST: usize = 8;
/// The variable by which what a command leaves behind is known.
const MARK: &str = "BACKSTAY_JOB";
/// How long a new program has to say its version.
const VERSION_TIME: Duration = Duration::from_secs(5);

/// A command that runs, or has ended and is not told of yet.
pub(super) struct Job {
    pub(super) number: u64,
    pub(super) pid: u32,
    pub(super) until: Instant,
    purpose: Purpose,
    output: PipeReader,
    said: Vec<u8>,
    cut: bool,
    began: Instant,
    timed_out: bool,
    silent: bool,
    born: Option<Born>,
    ended: Option<How>,
}

/// What a command is for.
pub(super) enum Purpose {
    /// Somebody asked, over that connection.
    Probe(u64),
    /// It runs before the agent is stopped.
    PreStop,
    /// A program tells its version, before this process becomes it; asked for over that connection.
    Version { caller: u64, program: String },
}

// === impl Job ===

impl Job {
    /// Whether it runs in the agent's cage.
    pub(super) fn is_agents(&self) -> bool {
        !matches!(self.purpose, Purpose::Version { .. })
    }

    pub(super) fn output(&self) -> BorrowedFd<'_> {
        self.output.as_fd()
    }

    /// Whether nobody has its output open any more.
    pub(super) fn is_silent(&self) -> bool {
        self.silent
    }

    pub(super) fn has_ended(&mut self, how: How) {
        self.ended = Some(how);
    }

    /// Reads what it has written; keeps as much as is told, and forgets the rest so that it never waits.
    pub(super) fn read(&mut self) {
        let mut bytes = [0; 4096];
        // A command that writes without end is read on in the next round.
        for _ in 0..16 {
            let count = match self.output.read(&mut bytes) {
                Ok(0) => {
                    self.silent = true;
                    return;
                }
                Ok(count) => count,
                Err(_) => return,
            };
            let room = OUTPUT.saturating_sub(self.said.len());
            self.said.extend_from_slice(bytes.get(..count.min(room)).unwrap_or_default());
            self.cut |= count > room;
        }
    }

    fn mark(&self) -> String {
        format!("{MARK}={}", self.number)
    }

    fn probed(&mut self, how: How, now: Instant) -> Probed {
        let how = match self.born.as_mut().and_then(Born::why_not) {
            Some(why) => How::NotStarted(why),
            None => how,
        };
        let took = now.saturating_duration_since(self.began).as_millis();
        Probed {
            how,
            timed_out: self.timed_out,
            output: String::from_utf8_lossy(&self.said).into_owned(),
            cut: self.cut,
            took_ms: u64::try_from(took).unwrap_or(u64::MAX),
        }
    }
}

impl Keeper {
    /// Runs a probe for a caller, who is answered when it has ended.
    pub(super) fn probe(&mut self, probe: Probe, caller: u64, now: Instant) -> Result<(), String> {
        if self.agent.is_none() {
            return Err("the agent does not run".to_owned());
        }
        if probe.command.is_empty() || !(1..=600_000).contains(&probe.timeout_ms) {
            return Err("a probe has a command, and a time of 1 to 600,000 ms".to_owned());
        }
        let time = Duration::from_millis(probe.timeout_ms);
        self.begin_job(probe.command, Purpose::Probe(caller), time, now).map(|_| ())
    }

    /// Runs the command before a stop; none if it could not be started, which is no reason not to stop.
    pub(super) fn pre_stop(&mut self, command: Vec<String>, time: Duration, now: Instant) -> Option<u64> {
        let begun = self.begin_job(command, Purpose::PreStop, time, now);
        begun.inspect_err(|why| self.status.trouble = Some(format!("the command before a stop: {why}"))).ok()
    }

    /// Asks a program for its version; this process becomes it if that is well.
    pub(super) fn ask_version(&mut self, program: String, caller: u64, now: Instant) -> Result<(), String> {
        if !program.starts_with('/') {
            return Err(format!("`{program}` is not an absolute path"));
        }
        let command = vec![program.clone(), "version".to_owned()];
        self.begin_job(command, Purpose::Version { caller, program }, VERSION_TIME, now).map(|_| ())
    }

    fn begin_job(
        &mut self,
        command: Vec<String>,
        purpose: Purpose,
        time: Duration,
        now: Instant,
    ) -> Result<u64, String> {
        if self.jobs.len() >= MOST && !matches!(purpose, Purpose::PreStop) {
            return Err(format!("{MOST} commands run already"));
        }
        let number = self.jobs_begun + 1;
        let begin = || -> io::Result<(u32, Option<Born>, PipeReader)> {
            let (output, write) = io::pipe()?;
            rustix::fs::fcntl_setfl(&output, rustix::fs::OFlags::NONBLOCK)?;
            if let Purpose::Version { program, .. } = &purpose {
                let mut asked = Command::new(program);
                asked
                    .arg("version")
                    .arg(self.here.path())
                    .env_clear()
                    .stdin(Stdio::null())
                    .stderr(Stdio::null())
                    .stdout(write);
                return Ok((asked.spawn()?.id(), None, output));
            }
            let both = (Stdio::from(write.try_clone()?), Stdio::from(write));
            // Nobody but this keeper ends such a command in time: it does not outlive it.
            let born = cage::start(&self.spec, command, Some((MARK, number.to_string())), true, both)?;
            Ok((born.pid, Some(born), output))
        };
        let (pid, born, output) = begin().map_err(|error| format!("cannot start a process: {error}"))?;
        self.jobs_begun = number;
        self.jobs.push(Job {
            number,
            pid,
            until: now + time,
            purpose,
            output,
            said: vec![],
            cut: false,
            began: now,
            timed_out: false,
            silent: false,
            born,
            ended: None,
        });
        Ok(number)
    }

    /// Kills commands whose time is over, and tells of those that have ended.
    pub(super) fn tend_jobs(&mut self, now: Instant) {
        for at in (0..self.jobs.len()).rev() {
            let Some(job) = self.jobs.get_mut(at) else { continue };
            if job.ended.is_none() && now >= job.until {
                (job.timed_out, job.until) = (true, now + Duration::from_millis(100));
                self.kill_job(at);
            } else if job.ended.is_some() {
                self.kill_job(at);
                let mut job = self.jobs.remove(at);
                job.read();
                let how = job.ended.clone().unwrap_or(How::Unknown);
                let probed = job.probed(how, now);
                match job.purpose {
                    Purpose::Probe(caller) => self.server.answer(caller, &Answer::Probed(probed)),
                    Purpose::Version { caller, program } => self.upgrade(&program, caller, &probed),
                    Purpose::PreStop => self.after_pre_stop(&probed, now),
                }
            }
        }
    }

    /// Kills a command and what it has left behind.
    fn kill_job(&mut self, at: usize) {
        let Some(job) = self.jobs.get(at) else { return };
        if job.born.is_none() && job.ended.is_none() {
            if let Ok(Some(process)) = sys::process(job.pid) {
                let _ = sys::signal(process, Word::Kill);
            }
            return;
        }
        let mark = job.mark();
        for process in sys::descendants(self.identity.process.pid).unwrap_or_default() {
            if sys::is_marked(process.pid, &mark) {
                let _ = sys::signal(process, Word::Kill);
            }
        }
    }

    /// Kills all commands: this process becomes another program.
    pub(super) fn drop_jobs(&mut self) {
        for at in 0..self.jobs.len() {
            self.kill_job(at);
        }
        self.jobs.clear();
    }

    fn after_pre_stop(&mut self, probed: &Probed, now: Instant) {
        if probed.how != How::Code(0) {
            let end = if probed.timed_out {
                "was killed after its time".to_owned()
            } else {
                format!("ended with {:?}", probed.how)
            };
            self.status.trouble = Some(format!("the command before a stop {end}"));
        }
        self.look(now);
    }
}
