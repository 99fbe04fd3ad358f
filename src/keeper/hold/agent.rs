//! The agent's first process: started, taken over, noticed to have ended.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::{Course, Keeper, wall_ms};
use crate::keeper::cage::{self, Born};
use crate::keeper::spec::Policy;
use crate::keeper::wire::{End, How, Phase, Status};
use crate::sys::{self, Exited, Listen, ProcessId};

/// An agent that runs.
pub(super) struct Agent {
    pub(super) id: ProcessId,
    /// Readable when it has ended; where it is a child, its status tells more.
    pub(super) held: Option<OwnedFd>,
    /// How its start went; none where an earlier keeper or program started it.
    born: Option<Born>,
}

impl Keeper {
    /// Begins where an earlier keeper left off: with the agent that still runs, or with a new one.
    pub(super) fn take_over(&mut self, earlier: Option<&Status>, now: Instant) {
        let earlier = earlier.filter(|earlier| earlier.boot == self.identity.boot);
        let running = earlier.and_then(|earlier| Some((earlier.agent?, earlier.since_ms)));
        if let Some((id, since_ms)) = running
            && self.adopt(id)
        {
            (self.status.agent, self.status.since_ms, self.status.adopted) = (Some(id), since_ms, true);
            return;
        }
        if running.is_some() {
            self.status.last_end = Some(End { how: How::Unknown, at_ms: wall_ms(), ran_ms: 0 });
        }
        // What is left of it is ended before a new one starts; usually that is nothing.
        self.status.adopted = true;
        self.clear(true, now);
    }

    /// Starts the agent, or counts that it could not be started.
    pub(super) fn start(&mut self, now: Instant) {
        self.status.starts += 1;
        (self.status.next_ms, self.status.adopted) = (None, false);
        match self.launch() {
            Ok(agent) => {
                (self.status.agent, self.status.since_ms) = (Some(agent.id), Some(wall_ms()));
                (self.status.phase, self.course) = (Phase::Running, Course::Running);
                self.agent = Some(agent);
            }
            Err(error) => {
                let how = How::NotStarted(format!("cannot start a process: {error}"));
                self.ended(how, Duration::ZERO, now);
            }
        }
        self.save();
    }

    fn launch(&self) -> io::Result<Agent> {
        if let Some(Listen::Socket(path)) = &self.spec.listen
            && fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
        {
            fs::remove_file(path)?;
        }
        let pipe = sys::reopen_pipe(self.sink.pipe())?;
        let output = (Stdio::from(pipe.try_clone()?), Stdio::from(pipe));
        let mut command = vec![self.spec.command.to_string_lossy().into_owned()];
        command.extend(self.spec.args.iter().cloned());
        let born = cage::start(&self.spec, command, None, self.spec.dies_with_keeper, output)?;
        // It may have ended already, but is not reaped before this loop does it: the number is its own.
        let id = sys::process(born.pid)?.unwrap_or(ProcessId { pid: born.pid, start: 0 });
        Ok(Agent { id, held: None, born: Some(born) })
    }

    /// Hears that a child has ended.
    pub(super) fn reaped(&mut self, exited: Exited, now: Instant) {
        let how = how(exited);
        if self.agent.as_ref().is_some_and(|agent| agent.id.pid == exited.pid && agent.held.is_none()) {
            self.agent_ended(how, now);
        } else if let Some(job) = self.jobs.iter_mut().find(|job| job.pid == exited.pid) {
            job.has_ended(how);
        }
    }

    /// Hears that the agent's first process has ended, and ends what it left behind.
    pub(super) fn agent_ended(&mut self, how: How, now: Instant) {
        let Some(mut agent) = self.agent.take() else { return };
        let how = match agent.born.as_mut().and_then(Born::why_not) {
            Some(why) => How::NotStarted(why),
            None => how,
        };
        let ran = sys::age(agent.id).unwrap_or_default();
        (self.status.agent, self.status.since_ms) = (None, None);
        self.ended(how, if agent.id.start == 0 { Duration::ZERO } else { ran }, now);
        self.save();
    }

    fn ended(&mut self, how: How, ran: Duration, now: Instant) {
        let ran_ms = u64::try_from(ran.as_millis()).unwrap_or(u64::MAX);
        if ran_ms >= self.spec.restart.stable_ms {
            self.status.ends = 0;
        }
        self.status.ends = self.status.ends.saturating_add(1);
        self.status.last_end = Some(End { how, at_ms: wall_ms(), ran_ms });
        match &mut self.course {
            Course::Ending(ending) => ending.look_soon(now),
            Course::Running | Course::Waiting(_) | Course::Ended | Course::Over => self.clear(false, now),
        }
    }

    /// Decides what happens now that nothing of the agent is left.
    pub(super) fn after_end(&mut self, now: Instant) {
        let failed = self.status.last_end.as_ref().is_none_or(|end| end.how != How::Code(0));
        let again = match self.spec.restart.policy {
            Policy::Always => true,
            Policy::OnFailure => failed,
            Policy::Never => false,
        };
        if again {
            let wait = self.spec.restart.delay_ms(self.status.ends);
            self.wait(Duration::from_millis(wait), now);
        } else {
            (self.status.phase, self.course) = (Phase::Ended, Course::Ended);
        }
    }

    /// Waits before the next start.
    pub(super) fn wait(&mut self, wait: Duration, now: Instant) {
        let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.status.next_ms = Some(wall_ms().saturating_add(millis));
        (self.status.phase, self.course) = (Phase::Waiting, Course::Waiting(now + wait));
    }

    /// Goes on with an agent that this process started before it became this program.
    pub(super) fn keep_on(&mut self, id: ProcessId) {
        self.agent = Some(Agent { id, held: None, born: None });
        (self.status.phase, self.course) = (Phase::Running, Course::Running);
    }

    /// Goes on with an agent that another process started; false if it does not live.
    pub(super) fn adopt(&mut self, id: ProcessId) -> bool {
        let Ok(Some(held)) = sys::hold_process(id) else { return false };
        self.agent = Some(Agent { id, held: Some(held), born: None });
        (self.status.phase, self.course) = (Phase::Running, Course::Running);
        true
    }

    /// Looks whether an agent that is not a child has ended.
    pub(super) fn look_at_adopted(&mut self, now: Instant) {
        let adopted = self.agent.as_ref().filter(|agent| agent.held.is_some()).map(|agent| agent.id);
        if let Some(id) = adopted
            && sys::process(id.pid).is_ok_and(|found| found != Some(id))
        {
            self.agent_ended(How::Unknown, now);
        }
    }
}

fn how(exited: Exited) -> How {
    match (exited.code, exited.signal) {
        (Some(code), _) => How::Code(code),
        (None, Some(signal)) => How::Signal(signal),
        (None, None) => How::Unknown,
    }
}
