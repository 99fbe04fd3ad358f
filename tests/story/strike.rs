//! How a fault strikes an effect, and what lands late.

use std::collections::VecDeque;

use backstay::model::{AgentName, ObjectRef, Timestamp};
use backstay::reconcile::{Action, FailureKind, Observation};
use backstay::record::AgentRecord;
use backstay::rollout::{Answer, Closed, Smoked};
use jiff::SignedDuration;

use super::super::plane::{Class, RETRY_AFTER};
use super::{World, failed};

/// How long what is seen may be wrong.
const BLINDNESS: SignedDuration = SignedDuration::from_secs(25);

impl World {
    /// Carries out what the core asks for, or lets the fault strike that is due.
    pub(super) fn effect(&mut self, name: &AgentName, effect: Action, queue: &mut VecDeque<Observation>) {
        self.effects += 1;
        assert!(self.effects < 4000, "effects without end: {:?}", self.writes.iter().rev().take(9).collect::<Vec<_>>());
        self.oracle.asked(name, &effect, self.now);
        if let Some(log) = &mut self.log {
            log.push(effect.clone());
        }
        self.hear_late(name, queue);
        let fault = self.plane.strikes(self.effects, &effect);
        if let Some((Class::Timeout, at)) = self.plane.fault
            && self.effects > at
        {
            self.land();
        }
        let Some(class) = fault else {
            let answer = self.act(name, effect);
            return queue.push_back(answer);
        };
        self.plane.hit = !matches!(
            class,
            Class::StaleList | Class::OldList | Class::StaleRead | Class::Dropped | Class::Reordered | Class::Unseen(_)
        );
        let before = self.past();
        self.plane.until = self.now.checked_add(BLINDNESS).ok();
        if let Some(kind) = class.answer() {
            if let FailureKind::Unavailable { retry_after: Some(seconds) } = kind {
                let until = self.now + SignedDuration::from_secs(i64::try_from(seconds).expect("few"));
                let server = if matches!(effect, Action::TellGit(_)) { "git" } else { "api" };
                self.oracle.not_before.insert((name.clone(), server), until);
                assert_eq!(seconds, RETRY_AFTER);
            }
            self.plane.fenced |= kind == FailureKind::Fenced;
            return queue.push_back(failed(kind, "a fault of the plane"));
        }
        match class {
            Class::CrashBefore => self.restart(),
            Class::CrashAfter => {
                self.act(name, effect);
                self.restart();
            }
            Class::LostReply => {
                self.act(name, effect);
                queue.push_back(failed(FailureKind::Unavailable { retry_after: None }, "the answer was lost"));
            }
            Class::Timeout => {
                self.plane.held = Some((name.clone(), effect));
                queue.push_back(failed(FailureKind::Unavailable { retry_after: None }, "no answer came in time"));
            }
            Class::Late | Class::VeryLate => {
                self.plane.held = Some((name.clone(), effect));
                self.restart();
            }
            Class::Conflict | Class::Gone => {
                match &effect {
                    Action::Write(write) | Action::DryRun(write) => self.meddle(class, &write.manifest.object),
                    Action::Delete { object, .. } => self.meddle(class, object),
                    _ if class == Class::Gone => return queue.push_back(failed(FailureKind::Gone, "it is gone")),
                    _ => self.ledger.entry(name.clone()).or_default().version += 1,
                }
                let answer = self.act(name, effect);
                queue.push_back(answer);
            }
            Class::StaleList | Class::OldList | Class::StaleRead => {
                self.act(name, effect);
                let older = self.plane.before_the_word.clone().filter(|_| class != Class::StaleList);
                self.plane.stale = Some(older.unwrap_or(before));
                self.plane.stale_reads = if class == Class::StaleRead { 3 } else { 0 };
                self.restart();
            }
            _ => {
                match class {
                    Class::Duplicate => self.plane.twice = true,
                    Class::Dropped => self.plane.dropping = true,
                    Class::Unseen(kind) => self.plane.unseen = Some(kind),
                    Class::Reordered => self.plane.swap = Some(before),
                    _ => {}
                }
                let answer = self.act(name, effect);
                if class == Class::EventFirst {
                    self.cluster.controllers();
                    self.show(name);
                }
                queue.push_back(answer);
            }
        }
    }

    /// Does what the core does not wait for, or lets the fault strike that is due; says whether the daemon lives on.
    pub(super) fn aside(&mut self, name: &AgentName, aside: Action, queue: &mut VecDeque<Observation>) -> bool {
        self.asides += 1;
        assert!(self.asides < 40_000, "news and questions without end: {:?}", self.told.iter().rev().take(9));
        let suspended = self.ledger.get(name).is_some_and(|entry| {
            let told = |record: &AgentRecord| record.conditions.iter().any(|told| told.reason == "Suspended");
            entry.requests.suspended().is_some() && entry.record.as_ref().is_some_and(told)
        });
        self.oracle.asides(name, &aside, self.now, suspended);
        if let Some(log) = &mut self.aside_log {
            log.push(aside.clone());
        }
        self.hear_late(name, queue);
        let due = self.plane.aside.is_some_and(|(class, at)| at == self.asides && class.applies(&aside));
        let Some((class, _)) = self.plane.aside.filter(|_| due) else {
            queue.extend(self.say(name, aside));
            return true;
        };
        self.plane.hit = true;
        match class {
            Class::CrashBefore | Class::CrashAfter => {
                if class == Class::CrashAfter {
                    self.say(name, aside);
                }
                self.restart();
                return false;
            }
            Class::LostReply => {
                // Of news it is the news that get lost.
                if !matches!(aside, Action::Announce(_)) {
                    self.say(name, aside);
                }
            }
            Class::Duplicate => {
                if matches!(aside, Action::Wake(_)) {
                    self.plane.wakes_twice = Some(name.clone());
                }
                let answer = self.say(name, aside);
                queue.extend(answer.clone().into_iter().chain(answer));
            }
            Class::Timeout => match aside {
                Action::Wake(at) => self.wake_later(name, at + BLINDNESS),
                aside => self.plane.late = self.say(name, aside).map(|answer| (name.clone(), answer)),
            },
            Class::Unavailable => queue.extend(unanswered(&aside, self.now)),
            Class::Nonsense => {
                if let Action::Measure(question) = &aside {
                    queue.push_back(Observation::Measured(Box::new(super::Traffic::nonsense(question, self.now))));
                }
            }
            other => unreachable!("{other:?} applies to no aside"),
        }
        true
    }

    /// An answer that was late comes now.
    fn hear_late(&mut self, name: &AgentName, queue: &mut VecDeque<Observation>) {
        let late = self.plane.late.take_if(|(of, _)| of == name);
        queue.extend(late.map(|(_, answer)| answer));
    }

    /// It comes though nothing else happens any more; says whether there was one.
    pub(crate) fn arrive_late(&mut self) -> bool {
        let Some((name, answer)) = self.plane.late.take() else { return false };
        self.observe(&name, answer);
        true
    }

    /// Somebody is at the object just before us.
    fn meddle(&mut self, class: Class, object: &ObjectRef) {
        if !self.cluster.objects.contains_key(object) {
            return;
        }
        if class == Class::Gone { self.cluster.remove(object) } else { self.cluster.touch(object) }
    }

    /// What was held happens now, and nobody hears its answer.
    pub(crate) fn land(&mut self) -> bool {
        let Some((name, effect)) = self.plane.held.take() else { return false };
        if matches!(self.plane.fault, Some((Class::Timeout, _))) {
            self.act(&name, effect);
            return true;
        }
        self.oracle.arrives_late(&effect, &self.cluster);
        let made = match &effect {
            Action::Write(write) if !self.cluster.objects.contains_key(&write.manifest.object) => {
                Some(write.manifest.object.clone())
            }
            _ => None,
        };
        self.carry_out(&name, effect);
        self.late.extend(made);
        true
    }

    /// What was made late and nobody asks for is nobody's: it stays for a person, and does not count at the end.
    pub(crate) fn sweep(&mut self) {
        for object in std::mem::take(&mut self.late) {
            let mut records = self.ledger.values().filter_map(|entry| entry.record.as_ref());
            if !records.any(|record| record.inventory.0.contains_key(&object))
                && self.cluster.objects.contains_key(&object)
            {
                self.cluster.remove(&object);
                self.cluster.controllers();
            }
        }
    }
}

/// What is said of a question that nobody could answer.
fn unanswered(aside: &Action, now: Timestamp) -> Option<Observation> {
    let why = "503 Service Unavailable".to_owned();
    match aside {
        Action::Measure(question) => Some(Observation::Measured(Box::new(super::Traffic::unavailable(question, now)))),
        Action::Smoke(look) => Some(Observation::Smoked(look.release, Smoked::Unreached(why))),
        Action::Gate(question) => Some(Observation::Gate(question.clone(), Answer::Closed(Closed::Because(why)))),
        _ => None,
    }
}
