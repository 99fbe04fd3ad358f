//! What a demo shows, act by act. Everything that is told was read back from what runs.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::held::{self, Held};
use super::layout::Layout;
use super::load::{Answer, Asked, Load, Tally};
use super::repository::{Checkout, Edit};
use super::setup::Ports;
use crate::cli::client::{Place, of_host};
use crate::cli::{CliError, Exit, Out, view};
use crate::daemon::config::Launcher;
use crate::model::{AgentName, EnvironmentName};
use crate::record::{AgentRecord, ConditionKind, Truth};
use crate::sys::{self, Word};

/// Clients at a time while something is measured.
const CLIENTS: usize = 16;
/// Answers that must have come before something happens under load.
const WARM: u64 = 100;
/// Between two looks.
const PACE: Duration = Duration::from_millis(20);
/// Longest wait for what a push makes.
const PATIENCE: Duration = Duration::from_mins(2);
/// What is asked in the demo.
pub(super) const QUESTION: &str = "I want a refund";

pub(super) const PROMPT: &str = "agents/support/prompts/system.md";
/// What the demo alone changes in the example: nobody waits a minute for an agent that never gets ready.
pub(super) const IMPATIENT: Edit =
    Edit::new("environments/development/support.yaml", "progressDeadline: 60s", "progressDeadline: 8s");
pub(super) const GOOD: Edit = Edit::new(PROMPT, "three working days", "five working days");
pub(super) const UNREADY: [Edit; 2] = [
    Edit::new(PROMPT, "five working days", "no time at all"),
    Edit::new("agents/support/agent.yaml", "  config:", "  config:\n    demo: {notReady: true}"),
];
pub(super) const BAD: Edit = Edit::new(PROMPT, "five working days", "five working years");
pub(super) const LAST: Edit = Edit::new(PROMPT, "Greet with \"Hello!\"", "Greet with \"Welcome!\"");

/// For whoever plays on.
pub(super) const MERRY: Edit = Edit::new(PROMPT, "Greet with \"Welcome!\"", "Greet with \"Welcome, friend!\"");

/// All that is on the stage.
pub(super) struct Stage<'a> {
    pub(super) layout: &'a Layout,
    pub(super) daemon: Held,
    pub(super) checkout: Checkout,
    pub(super) asked: Asked,
    agent: AgentName,
    environment: EnvironmentName,
}

/// The first push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct First {
    pub(super) question: String,
    pub(super) answer: String,
    pub(super) release: String,
    pub(super) answers_after_ms: u128,
}

/// A push whose answers are others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Changed {
    pub(super) answer: String,
    pub(super) release: String,
    pub(super) answers_after_ms: u128,
    pub(super) traffic: Traffic,
}

/// A push whose agent never gets ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Unready {
    pub(super) release: String,
    pub(super) reason: String,
    pub(super) quarantined_after_ms: u128,
    pub(super) answer: String,
    pub(super) traffic: Traffic,
    /// Requests that the release was given.
    pub(super) given: u64,
}

/// A release that answers wrongly, taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Reverted {
    pub(super) bad: String,
    pub(super) bad_answer: String,
    pub(super) release: String,
    pub(super) answer: String,
    /// From the push of the revert to the last request that the bad release was given.
    pub(super) last_bad_ms: u128,
    pub(super) traffic: Traffic,
}

/// The daemon, killed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Killed {
    pub(super) pid: u32,
    pub(super) restarted_after_ms: u128,
    /// A push in the same moment.
    pub(super) answer: String,
    pub(super) answers_after_ms: u128,
    /// Processes of the agent before the kill, and how many of them were still the same after it.
    pub(super) processes: usize,
    pub(super) same: usize,
    pub(super) traffic: Traffic,
}

/// What clients saw meanwhile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Traffic {
    pub(super) requests: u64,
    pub(super) failed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) first_failure: Option<String>,
}

// === impl Stage ===

impl<'a> Stage<'a> {
    pub(super) fn new(layout: &'a Layout, ports: &Ports, daemon: Held, checkout: Checkout) -> Result<Self, CliError> {
        let name = |error: &dyn std::fmt::Display| CliError::new(Exit::Broken, format!("a name of the demo: {error}"));
        let agent: AgentName = "support".parse().map_err(|error| name(&error))?;
        let host = format!("{agent}.localhost");
        let address = (Ipv4Addr::LOCALHOST, ports.proxy).into();
        let asked = Asked { address, host, message: QUESTION.to_owned() };
        let environment = "development".parse().map_err(|error| name(&error))?;
        Ok(Self { layout, daemon, checkout, asked, agent, environment })
    }

    /// The first push: from nothing to answers.
    pub(super) async fn first(&self, out: &Out) -> Result<First, CliError> {
        let (pushed, answer) = self.push_until(out, "the first answer", |answer| !answer.reply.is_empty()).await?;
        let release = self.settled(out, &answer).await?;
        Ok(First { question: QUESTION.to_owned(), answer: answer.reply, release, answers_after_ms: pushed.as_millis() })
    }

    /// A good prompt: the answers are others, and nobody noticed.
    pub(super) async fn good(&self, out: &Out) -> Result<Changed, CliError> {
        let load = self.load(out).await?;
        self.checkout.change(&[GOOD], "refunds take five days")?;
        let (pushed, answer) = self.push_until(out, "the new answer", |answer| answer.reply.contains(GOOD.to)).await?;
        let release = self.settled(out, &answer).await?;
        let traffic = Traffic::of(&load.stop().await);
        Ok(Changed { answer: answer.reply, release, answers_after_ms: pushed.as_millis(), traffic })
    }

    /// A prompt whose agent never gets ready: it is given nothing, and not tried again.
    pub(super) async fn unready(&self, out: &Out) -> Result<Unready, CliError> {
        let load = self.load(out).await?;
        self.checkout.change(&UNREADY, "refunds take no time")?;
        let begun = Instant::now();
        self.checkout.push()?;
        let what = "the end of a release that never gets ready";
        let bad = self
            .until(out, what, async || {
                let record = self.record().await?;
                record.quarantine.first().map(|bad| (bad.release.short(), bad.reason.clone()))
            })
            .await?;
        let quarantined = begun.elapsed();
        let answer = self.ask().await?;
        let tally = load.stop().await;
        let given = tally.by_release.get(&bad.0).copied().unwrap_or(0);
        Ok(Unready {
            release: bad.0,
            reason: bad.1,
            quarantined_after_ms: quarantined.as_millis(),
            answer: answer.reply,
            traffic: Traffic::of(&tally),
            given,
        })
    }

    /// A release that gets ready and answers wrongly, and the revert that takes it back.
    pub(super) async fn reverted(&self, out: &Out) -> Result<Reverted, CliError> {
        self.checkout.revert()?;
        self.checkout.change(&[BAD], "refunds take five years")?;
        let (_, bad) = self.push_until(out, "the wrong answer", |answer| answer.reply.contains(BAD.to)).await?;
        let bad_release = self.settled(out, &bad).await?;
        let load = self.load(out).await?;
        self.checkout.revert()?;
        let begun = Instant::now();
        let (_, answer) = self.push_until(out, "the old answer", |answer| answer.reply.contains(GOOD.to)).await?;
        let release = self.settled(out, &answer).await?;
        let tally = load.stop().await;
        Ok(Reverted {
            bad_answer: bad.reply,
            release,
            answer: answer.reply,
            last_bad_ms: tally.last_after(&bad_release, begun).as_millis(),
            bad: bad_release,
            traffic: Traffic::of(&tally),
        })
    }

    /// `kill -9` of the daemon under load, and a push in the same moment.
    pub(super) async fn killed(&self, out: &Out, release: &str) -> Result<Killed, CliError> {
        let before = held::agents(self.layout, &self.whole(release).await?);
        let load = self.load(out).await?;
        let process = self.daemon.process()?;
        let process = process.ok_or_else(|| CliError::new(Exit::Broken, "the daemon is not running"))?;
        let starts = self.daemon.starts()?;
        sys::signal(process, Word::Kill)
            .map_err(|error| CliError::new(Exit::Broken, "cannot kill the daemon").because(error))?;
        let begun = Instant::now();
        self.checkout.change(&[LAST], "a warmer greeting")?;
        self.checkout.push()?;
        let pushed = Instant::now();
        self.until(out, "the daemon's next start", async || {
            let again = self.daemon.starts().is_ok_and(|now| now > starts);
            let answers = again && of_host(&self.layout.socket()).await.is_ok();
            answers.then_some(())
        })
        .await?;
        let restarted = begun.elapsed();
        // What ran before is looked at while it still serves.
        let after = held::agents(self.layout, &self.whole(release).await.unwrap_or_default());
        let same = before.iter().filter(|(name, process)| after.get(*name) == Some(process)).count();
        let greeted = |answer: &Answer| answer.reply.starts_with("Welcome!");
        let answer = self.until(out, "the warmer greeting", async || self.ask().await.ok().filter(greeted)).await?;
        let answers_after = pushed.elapsed();
        self.settled(out, &answer).await?;
        let traffic = Traffic::of(&load.stop().await);
        Ok(Killed {
            pid: process.pid,
            restarted_after_ms: restarted.as_millis(),
            answer: answer.reply,
            answers_after_ms: answers_after.as_millis(),
            processes: before.len(),
            same,
            traffic,
        })
    }

    pub(super) async fn ask(&self) -> Result<Answer, CliError> {
        let asked = self.asked.once().await;
        asked.map_err(|error| CliError::new(Exit::Broken, "the proxy does not answer").because(error))
    }

    /// Pushes, and asks until an answer is as it should be; gives how long that took from the push on.
    async fn push_until(
        &self,
        out: &Out,
        what: &str,
        is_it: impl Fn(&Answer) -> bool,
    ) -> Result<(Duration, Answer), CliError> {
        let begun = Instant::now();
        self.checkout.push()?;
        let answer = self.until(out, what, async || self.ask().await.ok().filter(|answer| is_it(answer))).await?;
        Ok((begun.elapsed(), answer))
    }

    /// Waits until the record says that what answered is stable and Ready; gives its short id.
    pub(super) async fn settled(&self, out: &Out, answer: &Answer) -> Result<String, CliError> {
        let release = answer.release.clone().unwrap_or_default();
        self.until(out, "the record to say that it is stable", async || {
            let record = self.record().await?;
            let stable = record.stable.as_ref().map(|stable| stable.release.short());
            (view::is_ready(&record) && stable.as_ref() == Some(&release)).then_some(())
        })
        .await?;
        Ok(release)
    }

    /// The whole digest of the stable release, which has that short id.
    async fn whole(&self, release: &str) -> Result<String, CliError> {
        let record = self.record().await;
        let all = record.iter().flat_map(|record| record.stable.iter().chain(&record.history));
        let found = all.map(|standing| standing.release).find(|id| id.short() == release);
        found
            .map(|id| id.digest().to_string())
            .ok_or_else(|| CliError::new(Exit::Broken, format!("the record does not know the release `{release}`")))
    }

    /// Many clients, once they are at work.
    pub(super) async fn load(&self, out: &Out) -> Result<Load, CliError> {
        self.load_of(out, std::slice::from_ref(&self.asked)).await
    }

    /// Many clients with several questions, once they are at work.
    pub(super) async fn load_of(&self, out: &Out, asked: &[Asked]) -> Result<Load, CliError> {
        let load = Load::start(asked, CLIENTS);
        self.until(out, "clients to be at work", async || (load.tally().requests() >= WARM).then_some(())).await?;
        Ok(load)
    }

    /// The agent's record, as the daemon tells it to anybody on this machine; none while it does not.
    pub(super) async fn record(&self) -> Option<AgentRecord> {
        let api = of_host(&self.layout.socket()).await.ok()?;
        let environment = self.environment.clone();
        let place = Place { namespace: environment.to_string(), environment, api, host: Some(Launcher::Fork) };
        Some(place.agent(&self.agent).await.ok()?.record)
    }

    /// Looks again and again until something is there.
    pub(super) async fn until<T>(
        &self,
        out: &Out,
        what: &str,
        look: impl AsyncFn() -> Option<T>,
    ) -> Result<T, CliError> {
        let begun = Instant::now();
        let mut progress = out.progress(format!("waiting for {what}"));
        loop {
            if let Some(found) = look().await {
                return Ok(found);
            }
            if begun.elapsed() > PATIENCE {
                drop(progress);
                return Err(self.in_vain(what).await);
            }
            progress.tick(&format!("waiting for {what}"));
            tokio::time::sleep(PACE).await;
        }
    }

    /// What is known of why something did not come.
    async fn in_vain(&self, what: &str) -> CliError {
        let record = self.record().await;
        let says = |kind| {
            let condition = record.as_ref()?.condition(kind).filter(|condition| condition.status == Truth::True)?;
            (!condition.message.is_empty()).then(|| condition.message.clone())
        };
        let kinds = [ConditionKind::Stalled, ConditionKind::Degraded, ConditionKind::Progressing];
        let why = match kinds.into_iter().find_map(says) {
            Some(why) => format!(": {why}"),
            None if record.is_none() => ": the daemon does not tell of the agent".to_owned(),
            None => String::new(),
        };
        CliError::new(Exit::Waiting, format!("waited {} s in vain for {what}{why}", PATIENCE.as_secs()))
            .hint(format!("what the daemon wrote lies in `{}`", self.daemon.log().display()))
    }
}

// === impl Traffic ===

impl Traffic {
    pub(super) fn of(tally: &Tally) -> Self {
        Self { requests: tally.requests(), failed: tally.failed, first_failure: tally.first_failure.clone() }
    }
}
