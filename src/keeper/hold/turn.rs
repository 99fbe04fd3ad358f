//! The loop: waits for whatever comes first, and does what it asks for.

use std::fs;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::serve::Server;
use super::{Course, Keeper, TICK};
use crate::keeper::wire::SOCKET;
use crate::sys;

/// How long callers have to take their last answer.
const FAREWELL: Duration = Duration::from_secs(1);

/// What can be ready.
#[derive(Clone, Copy)]
enum Ready {
    Signal,
    Listener,
    Log,
    Adopted,
    Job(u64),
    Caller(u64, PollFlags),
}

impl Keeper {
    /// Holds the agent until it and this keeper are over.
    pub(super) fn run(&mut self) {
        // A child may have ended before this program could hear of it.
        let mut ready = vec![Ready::Signal, Ready::Log];
        loop {
            let now = Instant::now();
            for what in ready {
                self.attend(what, now);
            }
            self.attend_times(now);
            if matches!(self.course, Course::Over) {
                return self.farewell();
            }
            ready = self.next(now);
        }
    }

    fn attend(&mut self, what: Ready, now: Instant) {
        match what {
            Ready::Signal => {
                if self.signals.take() {
                    self.stop(None, true, now);
                }
                let mut one_ended = false;
                while let Ok(Some(exited)) = sys::reap() {
                    one_ended = true;
                    self.reaped(exited, now);
                }
                if one_ended && let Course::Ending(ending) = &mut self.course {
                    ending.look_soon(now);
                }
            }
            Ready::Listener => self.accept(now),
            Ready::Log => drop(self.sink.drain(now)),
            Ready::Adopted => self.look_at_adopted(now),
            Ready::Job(number) => {
                if let Some(job) = self.jobs.iter_mut().find(|job| job.number == number) {
                    job.read();
                }
            }
            Ready::Caller(number, events) => match self.server.caller(number) {
                Some(caller) if events.contains(PollFlags::OUT) => caller.write(),
                _ => self.hear(number, now),
            },
        }
    }

    /// Does what is due.
    fn attend_times(&mut self, now: Instant) {
        self.tend_jobs(now);
        match &self.course {
            Course::Waiting(until) if *until <= now => self.start(now),
            Course::Ending(ending) if ending.look_at() <= now => self.look(now),
            Course::Running | Course::Waiting(_) | Course::Ended | Course::Ending(_) | Course::Over => {}
        }
        if self.tick <= now {
            self.tick = now + TICK;
            self.look_at_the_folder(now);
            self.save();
        }
        self.tell_watchers();
        // What was said while an earlier request was carried out; one request of each a round.
        for number in self.server.with_lines() {
            self.obey(number, now);
        }
        self.server.tidy(now);
    }

    /// Ends everything if the folder is gone at two looks: once could be the middle of a move.
    fn look_at_the_folder(&mut self, now: Instant) {
        let missing = self.here.has_vanished();
        if missing && self.missing && !matches!(self.course, Course::Ending(_) | Course::Over) {
            self.status.trouble = Some("the folder of the instance has vanished".to_owned());
            self.stop(None, false, now);
        }
        self.missing = missing;
        // A keeper that nobody can reach could not be stopped: a socket that was removed is made again.
        if !missing
            && !fs::exists(self.here.at(SOCKET)).unwrap_or(true)
            && let Ok(server) = Server::bind(&self.here, &self.spec)
        {
            self.server = server;
        }
    }

    /// Waits until something is ready or due.
    fn next(&mut self, now: Instant) -> Vec<Ready> {
        let due = [
            Some(self.tick),
            self.server.until(),
            self.jobs.iter().map(|job| job.until).min(),
            match &self.course {
                Course::Waiting(until) => Some(*until),
                Course::Ending(ending) => Some(ending.look_at()),
                Course::Running | Course::Ended | Course::Over => None,
            },
        ];
        let wait = if self.server.with_lines().is_empty() { due } else { [Some(now); 4] };
        let wait = wait.into_iter().flatten().min().unwrap_or(now + TICK).saturating_duration_since(now);
        let wait = Timespec::try_from(wait).unwrap_or_default();
        let adopted = self.agent.as_ref().and_then(|agent| agent.held.as_ref());
        let mut what = vec![Ready::Signal, Ready::Listener, Ready::Log];
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.signals.wake(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.server.listener(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.sink.pipe(), PollFlags::IN),
        ];
        if let Some(held) = adopted {
            what.push(Ready::Adopted);
            fds.push(PollFd::from_borrowed_fd(held.as_fd(), PollFlags::IN));
        }
        // A command that has closed its output is told of by its end alone.
        for job in self.jobs.iter().filter(|job| !job.is_silent()) {
            what.push(Ready::Job(job.number));
            fds.push(PollFd::from_borrowed_fd(job.output(), PollFlags::IN));
        }
        for caller in self.server.callers() {
            what.push(Ready::Caller(caller.number, PollFlags::empty()));
            fds.push(PollFd::from_borrowed_fd(caller.stream(), caller.events()));
        }
        if poll(&mut fds, Some(&wait)).is_err() {
            return vec![Ready::Signal];
        }
        let ready = what.into_iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
        let ready = ready.map(|(what, fd)| {
            let Ready::Caller(number, _) = what else { return what };
            Ready::Caller(number, fd.revents())
        });
        ready.collect()
    }

    /// Writes the last of the log, lets callers take their last answer, and leaves a folder that shows that nobody is there.
    fn farewell(&mut self) {
        let until = Instant::now() + FAREWELL;
        while !self.sink.drain(Instant::now()) && Instant::now() < until {}
        self.save();
        let numbers = self.server.callers().map(|caller| caller.number).collect::<Vec<_>>();
        while self.server.has_unsaid() && Instant::now() < until {
            for number in &numbers {
                if let Some(caller) = self.server.caller(*number) {
                    caller.write();
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = fs::remove_file(self.here.at(SOCKET));
    }
}
