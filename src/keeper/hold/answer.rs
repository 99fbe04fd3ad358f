//! What callers ask for, and whether they may.

use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::ending::Goal;
use super::serve::Greeted;
use super::{Course, Keeper};
use crate::keeper::wire::{Answer, Hello, LogStatus, Phase, REQUEST, Request, Status, VERSION};
use crate::sys::{self, Peer, ProcessId};

impl Keeper {
    /// Takes new callers.
    pub(super) fn accept(&mut self, now: Instant) {
        let trusted = |uid: u32| uid == 0 || uid == sys::own_uid() || self.spec.trusted_uids.contains(&uid);
        let (own, agent, mark) =
            (self.identity.process.pid, self.agent.as_ref().map(|agent| agent.id.pid), self.spec.mark());
        let refuse = |peer: Peer| {
            if !trusted(peer.uid) {
                return Some(format!("user {} may not command this keeper", peer.uid));
            }
            // Where an agent has the account of its keeper this is no wall, but nothing does it by mistake.
            let beneath = |ancestor: u32| peer.pid == ancestor || sys::descends_from(peer.pid, ancestor);
            let is_agents = beneath(own) || agent.is_some_and(beneath) || sys::is_marked(peer.pid, &mark);
            is_agents.then(|| "an agent may not command its own keeper".to_owned())
        };
        self.server.accept(now, refuse);
    }

    /// Reads what a caller says, and does it.
    pub(super) fn hear(&mut self, number: u64, now: Instant) {
        let Some(caller) = self.server.caller(number) else { return };
        if !caller.read(now) {
            caller.leaves = true;
        }
    }

    /// Does what stands in the next line that has come.
    pub(super) fn obey(&mut self, number: u64, now: Instant) {
        if let Some(line) = self.server.caller(number).and_then(|caller| caller.line(now)) {
            let greeted = self.server.caller(number).and_then(|caller| caller.greeted);
            let done = match greeted {
                _ if line.len() >= REQUEST => Err((format!("a request has at most {REQUEST} bytes"), None)),
                None => self.greet(&line, number),
                Some(Greeted(epoch)) => parse(&line).and_then(|request| self.carry_out(request, epoch, number, now)),
            };
            if let Err((why, epoch)) = done {
                self.server.refuse(number, why, epoch);
            }
        }
    }

    fn greet(&mut self, line: &[u8], number: u64) -> Result<(), (String, Option<u64>)> {
        let hello: Hello = parse(line)?;
        if hello.version != VERSION {
            return Err((format!("this keeper speaks version {VERSION}, not {}", hello.version), None));
        }
        self.allow(hello.epoch)?;
        if let Some(caller) = self.server.caller(number) {
            caller.greeted = Some(Greeted(hello.epoch));
        }
        let answer = Answer::Hello(self.identity.clone());
        self.server.answer(number, &answer);
        Ok(())
    }

    /// Checks an epoch, and remembers a higher one.
    fn allow(&mut self, epoch: Option<u64>) -> Result<(), (String, Option<u64>)> {
        let highest = self.status.epoch;
        match epoch {
            Some(epoch) if epoch < highest => {
                Err((format!("epoch {epoch} is over: {highest} was heard"), Some(highest)))
            }
            Some(epoch) if epoch > highest => {
                (self.status.epoch, self.identity.epoch) = (epoch, epoch);
                self.save();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn carry_out(
        &mut self,
        request: Request,
        epoch: Option<u64>,
        number: u64,
        now: Instant,
    ) -> Result<(), (String, Option<u64>)> {
        if epoch.is_none() && !matches!(request, Request::Status | Request::Next { .. } | Request::Listening) {
            return Err(("who names no epoch may only ask".to_owned(), None));
        }
        self.allow(epoch)?;
        // What is not done for a reason of the agent's is no reason to send the caller away.
        let refused = |why: String| Answer::Refused { why, epoch: None };
        let answer = match request {
            Request::Status => Answer::Status(Box::new(self.now())),
            Request::Listening => self.listening().unwrap_or_else(refused),
            Request::Next { turn } => {
                self.watching.push((number, turn));
                return self.later(number);
            }
            Request::Signal(word) => match self.agent.as_ref().map(|agent| sys::signal(agent.id, word)) {
                None => Answer::Signalled(false),
                Some(Ok(sent)) => Answer::Signalled(sent),
                Some(Err(error)) => refused(format!("cannot send a signal to the agent: {error}")),
            },
            Request::Stop { grace_ms } => {
                self.wait_for_answer(number);
                self.stop(grace_ms.map(Duration::from_millis), true, now);
                return Ok(());
            }
            Request::Restart if self.ends_for_good() => refused("the agent is being stopped".to_owned()),
            Request::Restart => {
                self.wait_for_answer(number);
                self.restart(now);
                return Ok(());
            }
            Request::Probe(probe) => match self.probe(probe, number, now) {
                Ok(()) => return self.later(number),
                Err(why) => refused(why),
            },
            Request::Upgrade { .. } if matches!(self.course, Course::Ending(_) | Course::Over) => {
                refused("the agent is being stopped".to_owned())
            }
            Request::Upgrade { program } => match self.ask_version(program, number, now) {
                Ok(()) => return self.later(number),
                Err(why) => refused(why),
            },
        };
        self.server.answer(number, &answer);
        Ok(())
    }

    /// Tells those who asked for an end that it is reached, and those who asked for another one what came instead.
    pub(super) fn answer_ended(&mut self, goal: Goal) {
        let status = Box::new(self.now());
        let answer = match goal {
            Goal::Clear | Goal::Begin => return,
            Goal::Restart => Answer::Restarted(status),
            Goal::End => Answer::Stopped(status),
        };
        let waiting = self.waiting.drain(..).collect::<Vec<_>>();
        for number in waiting {
            self.server.answer(number, &answer);
        }
    }

    /// Answers those who wait for a turn that has come, and forgets those who have gone.
    pub(super) fn tell_watchers(&mut self) {
        for (number, turn) in std::mem::take(&mut self.watching) {
            if turn != self.status.turn {
                let status = Answer::Status(Box::new(self.now()));
                self.server.answer(number, &status);
            } else if self.server.caller(number).is_some() {
                self.watching.push((number, turn));
            }
        }
    }

    fn wait_for_answer(&mut self, number: u64) {
        self.waiting.push(number);
        let _ = self.later(number);
    }

    #[expect(clippy::unnecessary_wraps, reason = "every arm of a request ends so")]
    fn later(&mut self, number: u64) -> Result<(), (String, Option<u64>)> {
        if let Some(caller) = self.server.caller(number) {
            caller.pending = true;
        }
        Ok(())
    }

    fn ends_for_good(&self) -> bool {
        match &self.course {
            Course::Ending(ending) => ending.goal() == Goal::End,
            Course::Over => true,
            Course::Running | Course::Waiting(_) | Course::Ended => false,
        }
    }

    fn listening(&self) -> Result<Answer, String> {
        let Some(listen) = &self.spec.listen else { return Ok(Answer::Listening(None)) };
        let mut processes: Vec<ProcessId> = self.agent.iter().map(|agent| agent.id).collect();
        for root in
            [Some(self.identity.process.pid), self.agent.as_ref().map(|agent| agent.id.pid)].into_iter().flatten()
        {
            processes
                .extend(sys::descendants(root).map_err(|error| format!("cannot see the agent's processes: {error}"))?);
        }
        let found = sys::listening(listen, &processes);
        found.map(|found| Answer::Listening(Some(found))).map_err(|error| format!("cannot see who listens: {error}"))
    }

    /// Where the agent stands, with the counts of this moment.
    pub(super) fn now(&self) -> Status {
        let log: LogStatus = self.sink.status().clone();
        debug_assert!(self.status.phase != Phase::Running || self.status.agent.is_some());
        Status { log, ..self.status.clone() }
    }
}

fn parse<T: DeserializeOwned>(line: &[u8]) -> Result<T, (String, Option<u64>)> {
    serde_json::from_slice(line).map_err(|error| (format!("this is no request: {error}"), None))
}
