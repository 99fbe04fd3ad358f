//! Ends an agent whole: asks, waits, kills, and looks until nothing is left.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use super::{Course, Keeper};
use crate::keeper::wire::Phase;
use crate::sys::{self, ProcessId, Word};

/// How long SIGTERM has at least, where a command before it took the grace.
const LEAST: Duration = Duration::from_secs(2);
/// How often is looked whether something is left, beside each time that a child ends.
const LOOK: Duration = Duration::from_millis(100);
/// The same, while things are being killed; doubled each time up to [`LOOK`].
const FIRST_LOOK: Duration = Duration::from_millis(2);

/// An end that is under way.
pub(super) struct Ending {
    goal: Goal,
    step: Step,
    /// When SIGKILL comes.
    kill_at: Instant,
    look_at: Instant,
    /// Who was asked.
    told: BTreeSet<ProcessId>,
}

/// What comes after.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// What the spec says of an agent that ended.
    Clear,
    /// A first start.
    Begin,
    /// A new start at once.
    Restart,
    /// The keeper's own end.
    End,
}

enum Step {
    /// A command runs before the agent is asked.
    PreStop(u64),
    /// SIGTERM was sent.
    Asked,
    /// SIGKILL is sent to whatever is found.
    Killing(Duration),
}

// === impl Ending ===

impl Ending {
    pub(super) fn look_at(&self) -> Instant {
        self.look_at
    }

    pub(super) fn look_soon(&mut self, now: Instant) {
        self.look_at = now;
    }

    pub(super) fn goal(&self) -> Goal {
        self.goal
    }
}

impl Keeper {
    /// Ends what an agent left behind that has ended by itself, or that an earlier keeper had.
    pub(super) fn clear(&mut self, begin: bool, now: Instant) {
        let goal = if begin { Goal::Begin } else { Goal::Clear };
        self.end_whole(goal, None, false, now);
    }

    /// Ends the agent whole, for good. Where that is under way already, the grace can only become shorter.
    pub(super) fn stop(&mut self, grace: Option<Duration>, pre_stop: bool, now: Instant) {
        self.end_whole(Goal::End, grace, pre_stop, now);
    }

    /// Ends the agent whole, and starts it again.
    pub(super) fn restart(&mut self, now: Instant) {
        self.end_whole(Goal::Restart, None, true, now);
    }

    fn end_whole(&mut self, goal: Goal, grace: Option<Duration>, pre_stop: bool, now: Instant) {
        let grace = grace.unwrap_or(Duration::from_millis(self.spec.stop.grace_ms));
        self.status.phase = match goal {
            Goal::Clear | Goal::Begin => Phase::Clearing,
            Goal::Restart | Goal::End => Phase::Stopping,
        };
        self.status.next_ms = None;
        if let Course::Ending(ending) = &mut self.course {
            (ending.goal, ending.kill_at, ending.look_at) = (goal, ending.kill_at.min(now + grace), now);
            self.save();
            return;
        }
        let command = self.spec.stop.pre_stop.clone().filter(|_| pre_stop && self.agent.is_some());
        let step = match command.and_then(|command| self.pre_stop(command, grace, now)) {
            Some(job) => Step::PreStop(job),
            None => Step::Asked,
        };
        let ending = Ending { goal, step, kill_at: now + grace, look_at: now, told: BTreeSet::new() };
        self.course = Course::Ending(ending);
        self.save();
        self.look(now);
    }

    /// Looks what is left, and takes the next step.
    pub(super) fn look(&mut self, now: Instant) {
        // Each step leads to a later one, so this ends.
        loop {
            let (left, populated) = match self.left() {
                Ok(left) => left,
                Err(error) => {
                    // Unknown is not empty.
                    self.status.trouble = Some(format!("cannot see which processes are the agent's: {error}"));
                    if let Course::Ending(ending) = &mut self.course {
                        ending.look_at = now + LOOK;
                    }
                    return;
                }
            };
            let agent = self.agent.as_ref().map(|agent| agent.id);
            let jobs = self.jobs.iter().map(|job| job.number).collect::<BTreeSet<_>>();
            let Course::Ending(ending) = &mut self.course else { return };
            match &mut ending.step {
                Step::PreStop(job) => {
                    if agent.is_some() && jobs.contains(job) && now < ending.kill_at {
                        ending.look_at = ending.kill_at;
                        return;
                    }
                    ending.kill_at = ending.kill_at.max(now + LEAST);
                    ending.step = Step::Asked;
                }
                _ if left.is_empty() && agent.is_none() && !populated => return self.is_ended(now),
                Step::Asked => {
                    if now >= ending.kill_at {
                        ending.step = Step::Killing(FIRST_LOOK);
                        continue;
                    }
                    // The first process knows how its others are stopped. Those that are left after it are asked themselves.
                    for process in left {
                        if agent.is_none_or(|agent| agent == process) && ending.told.insert(process) {
                            let _ = sys::signal(process, Word::Term);
                            // Who is paused hears it only when it goes on.
                            let _ = sys::signal(process, Word::Cont);
                        }
                    }
                    ending.look_at = (now + LOOK).min(ending.kill_at);
                    return;
                }
                Step::Killing(pause) => {
                    if let Some(cgroup) = &self.spec.cgroup {
                        let _ = sys::cgroup_kill(cgroup);
                    }
                    let refused = left.into_iter().filter(|process| sys::signal(*process, Word::Kill).is_err()).count();
                    if refused > 0 {
                        self.status.trouble = Some(format!("{refused} processes of the agent could not be killed"));
                    }
                    ending.look_at = now + *pause;
                    *pause = (*pause * 2).min(LOOK);
                    return;
                }
            }
        }
    }

    fn is_ended(&mut self, now: Instant) {
        let Course::Ending(ending) = &self.course else { return };
        let goal = ending.goal;
        self.course = Course::Ended;
        match goal {
            Goal::Clear => self.after_end(now),
            Goal::Begin => self.start(now),
            Goal::Restart => {
                self.status.ends = 0;
                self.start(now);
            }
            Goal::End => {
                (self.status.phase, self.course) = (Phase::Stopped, Course::Over);
            }
        }
        self.save();
        self.answer_ended(goal);
    }

    /// The living processes of the agent, and whether its cgroup has some. Programs that are asked for their version are none.
    fn left(&self) -> io::Result<(Vec<ProcessId>, bool)> {
        if self.spec.alone {
            return Ok((self.agent.iter().map(|agent| agent.id).collect(), false));
        }
        let mut left: BTreeSet<ProcessId> = sys::descendants(self.identity.process.pid)?.into_iter().collect();
        if let Some(agent) = &self.agent {
            left.insert(agent.id);
            left.extend(sys::descendants(agent.id.pid)?);
        }
        // What an earlier keeper's death has scattered is known by its environment alone.
        left.extend(sys::marked(&self.spec.mark())?);
        let others = self.jobs.iter().filter(|job| !job.is_agents()).map(|job| job.pid).collect::<BTreeSet<_>>();
        let left = left.into_iter().filter(|process| !others.contains(&process.pid)).collect();
        let populated = self.spec.cgroup.as_deref().map_or(Ok(false), sys::cgroup_is_populated)?;
        Ok((left, populated))
    }
}
