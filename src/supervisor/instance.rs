//! One instance: its keeper is started or taken over, followed, probed, and stopped when that is asked for.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, ResourceExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::care::Stamp;
use super::launch::{self, Launch, Needs, Probes};
use super::launcher::launch_of;
use super::probe::Tally;
use super::run::Shared;
use super::view::RETIRED;
use crate::judge::HostReason;
use crate::keeper::client::{self, Client};
use crate::keeper::folder::told;
use crate::keeper::wire::{Phase, Status};
use crate::proxy::Address;
use crate::sys::Listening;

/// Between two tries to launch what could not be launched: doubled each time, up to the last.
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// Between two probes of an instance that was never ready: a release is waited for by people.
const EAGER: Duration = Duration::from_millis(50);
/// How long such eagerness lasts; then the declared period holds.
const EAGER_FOR: Duration = Duration::from_secs(30);
/// Between two looks at whether the release's folder is as it was made, where there are few instances.
const FOLDER: Duration = Duration::from_secs(5);
/// Looks a second, of all instances together: where there are many, each is looked at less often.
const LOOKS_A_SECOND: u64 = 10;
/// The longest time between two looks.
const FOLDER_AT_MOST: Duration = Duration::from_mins(1);
/// How long a keeper is asked for news before it is asked again.
const NEWS: Duration = Duration::from_mins(1);
/// How much longer than its grace an instance may take to stop.
const BEYOND_GRACE: Duration = Duration::from_secs(20);

/// What keeps an instance from running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) reason: HostReason,
    pub(super) message: String,
}

/// How an instance is.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Seen {
    pub(super) status: Option<Status>,
    pub(super) trouble: Option<Trouble>,
    pub(super) ready: bool,
    /// Whether `ready` is what a look said: who has just begun has not looked yet.
    pub(super) looked: bool,
    pub(super) address: Option<Address>,
}

/// What an instance's task says.
pub(super) struct Report {
    pub(super) pod: String,
    pub(super) uid: String,
    pub(super) said: Said,
}

pub(super) enum Said {
    Seen(Box<Seen>),
    /// Nothing of it is left.
    Ended,
}

/// A task that looks after one instance. Dropped, it leaves the keeper and its agent alone.
pub(super) struct Handle {
    pub(super) uid: String,
    pub(super) seen: Seen,
    /// Nothing of it is left. It is kept as long as its Pod is seen: what has ended does not begin again.
    pub(super) ended: bool,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

/// Why an instance is not followed any more.
enum Over {
    /// It was to be stopped.
    Stop,
    /// Its keeper is gone.
    Lost,
}

struct Instance {
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    /// Where its keeper is told what to run.
    folder: PathBuf,
    /// Where its keeper is reached.
    place: PathBuf,
    report: mpsc::UnboundedSender<Report>,
    seen: Seen,
}

// === impl Handle ===

impl Handle {
    /// Begins to look after an instance.
    pub(super) fn begin(shared: Arc<Shared>, pod: Arc<Pod>, report: mpsc::UnboundedSender<Report>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let uid = pod.uid().unwrap_or_default();
        let folder = launch::folder(&shared.settings, &pod.name_any());
        let place = shared.settings.launcher.place(&folder);
        let instance = Instance { shared, pod, folder, place, report, seen: Seen::default() };
        let task = tokio::spawn(instance.run(stopped));
        Self { uid, seen: Seen::default(), ended: false, stop: Some(stop), task }
    }

    /// Asks for its end. Once is enough.
    pub(super) fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stop.is_none()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// === impl Instance ===

impl Instance {
    async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        // It ended, and who ended it did not live to remove its Pod.
        if self.pod.annotations().contains_key(RETIRED) && !self.folder.exists() {
            return self.end().await;
        }
        let mut again = AGAIN.0;
        loop {
            let over = match self.begin().await {
                Ok(launch) => {
                    again = AGAIN.0;
                    self.follow(launch, &mut stop).await
                }
                Err(trouble) => {
                    tracing::warn!(pod = %self.pod.name_any(), reason = trouble.reason.word(), "cannot launch: {}", trouble.message);
                    self.say(|seen| (seen.trouble, seen.ready, seen.looked) = (Some(trouble), false, true));
                    tokio::select! {
                        _ = &mut stop => Over::Stop,
                        () = tokio::time::sleep(again) => {
                            again = (again * 2).min(AGAIN.1);
                            Over::Lost
                        }
                    }
                }
            };
            if matches!(over, Over::Stop) {
                return self.end().await;
            }
        }
    }

    fn say(&mut self, change: impl FnOnce(&mut Seen)) {
        let before = self.seen.clone();
        change(&mut self.seen);
        if self.seen != before {
            self.tell(Said::Seen(Box::new(self.seen.clone())));
        }
    }

    fn tell(&self, said: Said) {
        let report = Report { pod: self.pod.name_any(), uid: self.pod.uid().unwrap_or_default(), said };
        let _ = self.report.send(report);
    }

    /// Takes over the keeper that runs, or starts one.
    async fn begin(&self) -> Result<Launch, Trouble> {
        let needs = self.needs().await?;
        let (shared, pod, folder) = (Arc::clone(&self.shared), Arc::clone(&self.pod), self.folder.clone());
        let begun = tokio::task::spawn_blocking(move || {
            let launch = launch::prepare(&shared.settings, &pod, &needs)?;
            let launcher = &shared.settings.launcher;
            launcher.start(&folder, &launch.spec)?;
            // The keeper of before holds the agent as well.
            if let Err(error) = launcher.renew(&folder, &launch.spec) {
                tracing::warn!(folder = %folder.display(), error = %told(&error), "its keeper is not upgraded");
            }
            Ok(launch)
        });
        begun.await.unwrap_or_else(|error| Err(Trouble::machine(format!("the launch was given up: {error}"))))
    }

    async fn needs(&self) -> Result<Needs, Trouble> {
        let api: Api<ConfigMap> = Api::namespaced(self.shared.client.clone(), &self.shared.namespace);
        let mut config_maps = std::collections::BTreeMap::new();
        for name in launch::config_maps(&self.pod) {
            let found = api.get_opt(&name).await;
            let found =
                found.map_err(|error| Trouble::machine(format!("cannot read the ConfigMap `{name}`: {error}")))?;
            config_maps.extend(found.map(|map| (name, map)));
        }
        let code = self.shared.code(&self.pod).await?;
        Ok(Needs { config_maps, code, epoch: self.shared.epoch })
    }

    /// Looks after a keeper until it is gone, or the instance is to be stopped.
    async fn follow(&mut self, mut launch: Launch, stop: &mut oneshot::Receiver<()>) -> Over {
        let who = launch_of(&launch.spec);
        let mut news = news(self.place.clone(), who.clone());
        let mut health = Health::new(who.clone(), std::mem::take(&mut launch.probes));
        health.starts = self.seen.status.as_ref().map_or(0, |status| status.starts);
        self.say(|seen| (seen.trouble, seen.address) = (None, launch.address.clone()));
        let mut probed = Instant::now();
        let mut looked = Instant::now();
        loop {
            let due = probed + health.pause(self.seen.ready);
            let look = looked + self.folder_pause();
            tokio::select! {
                biased;
                _ = &mut *stop => return Over::Stop,
                status = news.recv() => match status {
                    Some(status) => {
                        let (runs, is_first) = (status.phase == Phase::Running, self.seen.status.is_none());
                        if health.is_another(&status) || !runs {
                            self.say(|seen| {
                                seen.ready = false;
                                seen.looked |= !runs || !is_first;
                            });
                        }
                        self.say(|seen| seen.status = Some(status));
                    }
                    // Its agent may well run on: whether it does is known when another keeper holds it.
                    None => return Over::Lost,
                },
                () = tokio::time::sleep_until(look.into()) => {
                    self.mend(&mut launch).await;
                    looked = Instant::now();
                }
                () = tokio::time::sleep_until(due.into()), if self.runs() => {
                    probed = Instant::now();
                    let judged = health.look(&self.place, launch.address.as_ref(), self.seen.ready, self.shared.epoch).await;
                    self.say(|seen| {
                        (seen.ready, seen.looked) = (judged.ready, true);
                        seen.trouble = judged.trouble;
                    });
                    if judged.restart {
                        tracing::warn!(pod = %self.pod.name_any(), "it does not live by its probe, and is restarted");
                        self.restart(&who).await;
                        self.say(|seen| seen.ready = false);
                    }
                }
            }
        }
    }

    /// Makes the release's folder anew where somebody changed it. What runs goes on: it is compared, and not launched.
    async fn mend(&self, launch: &mut Launch) {
        let (folder, stamp) = &launch.components;
        if Stamp::of(folder) == *stamp {
            return;
        }
        match self.begin().await {
            Ok(compared) => launch.components = compared.components,
            Err(trouble) => {
                tracing::warn!(folder = %folder.display(), "a release's folder was changed, and cannot be made anew: {}", trouble.message);
            }
        }
    }

    /// Until the next look at the release's folder.
    fn folder_pause(&self) -> Duration {
        let all = self.shared.followed.load(Ordering::Relaxed);
        Duration::from_secs(all / LOOKS_A_SECOND).clamp(FOLDER, FOLDER_AT_MOST)
    }

    fn runs(&self) -> bool {
        self.seen.status.as_ref().is_some_and(|status| status.phase == Phase::Running)
    }

    async fn restart(&self, who: &client::Launch) {
        let (place, who, epoch) = (self.place.clone(), who.clone(), self.shared.epoch);
        let patience = self.grace() + BEYOND_GRACE;
        let restarted =
            tokio::task::spawn_blocking(move || Client::connect_to(&place, Some(epoch), &who)?.restart(patience));
        if let Ok(Err(error)) = restarted.await {
            tracing::warn!(pod = %self.pod.name_any(), error = %told(&error), "cannot restart it");
        }
    }

    fn grace(&self) -> Duration {
        let seconds = self.pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(30))
    }

    /// Ends everything of the instance and then its Pod, however often that takes.
    async fn end(&mut self) {
        self.say(|seen| seen.ready = false);
        let mut again = AGAIN.0;
        while let Err(why) = self.ended().await {
            tracing::warn!(pod = %self.pod.name_any(), "it does not end yet: {why}");
            tokio::time::sleep(again).await;
            again = (again * 2).min(AGAIN.1);
        }
        self.tell(Said::Ended);
    }

    async fn ended(&self) -> Result<(), String> {
        let (folder, epoch, patience) = (self.folder.clone(), self.shared.epoch, self.grace() + BEYOND_GRACE);
        let launcher = self.shared.settings.launcher.clone();
        let ended = tokio::task::spawn_blocking(move || launcher.end(&folder, epoch, patience)).await;
        ended.unwrap_or_else(|error| Err(format!("its end was given up: {error}")))?;
        let api: Api<Pod> = Api::namespaced(self.shared.client.clone(), &self.shared.namespace);
        let same = Preconditions { uid: self.pod.uid(), resource_version: None };
        let parameters = DeleteParams { preconditions: Some(same), ..DeleteParams::default() };
        match api.delete(&self.pod.name_any(), &parameters).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            // Where it is another one of its name, whoever looks after that one ends this task.
            Err(error) => Err(format!("its Pod cannot be removed: {}", told(&error))),
        }
    }
}

/// News of a keeper, from a thread of their own; they end when the keeper cannot be reached any more, or is another one.
fn news(folder: PathBuf, who: client::Launch) -> mpsc::Receiver<Status> {
    let (tell, told) = mpsc::channel(4);
    let listen = move || {
        let mut turn = None;
        let mut lost = 0;
        while lost < 2 && !tell.is_closed() {
            let Ok(mut keeper) = Client::connect_to(&folder, None, &who) else {
                lost += 1;
                continue;
            };
            lost = 0;
            loop {
                let status = match turn {
                    None => keeper.status(),
                    Some(turn) => keeper.next(turn, NEWS),
                };
                match status {
                    Ok(status) if (&status.instance, &status.nonce) == (&who.instance, &who.nonce) => {
                        turn = Some(status.turn);
                        if tell.blocking_send(status).is_err() {
                            return;
                        }
                    }
                    Ok(status) => {
                        tracing::warn!(folder = %folder.display(), instance = status.instance, "a keeper tells of another instance: it is not believed");
                        return;
                    }
                    // Silent for a while, or gone: to be seen by connecting again.
                    Err(_) => break,
                }
            }
        }
    };
    let named = std::thread::Builder::new().name("keeper-news".to_owned()).stack_size(128 << 10);
    if let Err(error) = named.spawn(listen) {
        tracing::warn!(%error, "cannot listen to a keeper");
    }
    told
}

/// What probes say of one process.
struct Health {
    who: client::Launch,
    probes: Probes,
    starts: u64,
    since: Instant,
    started: bool,
    was_ready: bool,
    startup: Tally,
    ready: Tally,
    live: Tally,
    live_at: Instant,
}

struct Judged {
    ready: bool,
    restart: bool,
    trouble: Option<Trouble>,
}

impl Health {
    fn new(who: client::Launch, probes: Probes) -> Self {
        let now = Instant::now();
        Self {
            who,
            started: probes.startup.is_none(),
            probes,
            starts: 0,
            since: now,
            was_ready: false,
            startup: Tally::default(),
            ready: Tally::default(),
            live: Tally::default(),
            live_at: now,
        }
    }

    /// Begins anew with another process.
    fn is_another(&mut self, status: &Status) -> bool {
        if status.starts == self.starts {
            return false;
        }
        *self = Self { starts: status.starts, ..Self::new(self.who.clone(), std::mem::take(&mut self.probes)) };
        true
    }

    /// Until the next look.
    fn pause(&self, ready: bool) -> Duration {
        let declared = self
            .probes
            .ready
            .as_ref()
            .or(self.probes.live.as_ref())
            .map_or(Duration::from_secs(10), |check| check.period);
        let eager = !ready && !self.was_ready && self.since.elapsed() < EAGER_FOR;
        if eager { EAGER } else { declared }
    }

    async fn look(&mut self, folder: &Path, address: Option<&Address>, was_ready: bool, epoch: u64) -> Judged {
        let mut judged = Judged { ready: was_ready, restart: false, trouble: None };
        let ran = self.since.elapsed();
        if let (Some(check), false) = (&self.probes.startup, self.started) {
            let passed = ran >= check.delay && check.passes(address, folder, epoch).await;
            match self.startup.count(check, passed) {
                Some(true) => self.started = true,
                Some(false) if ran >= check.delay + check.period * check.failures => judged.restart = true,
                Some(false) | None => {}
            }
            if !self.started {
                return Judged { ready: false, ..judged };
            }
        }
        judged.ready = match &self.probes.ready {
            None => true,
            Some(check) if ran < check.delay => false,
            Some(check) => {
                let passed = check.passes(address, folder, epoch).await;
                self.ready.count(check, passed).unwrap_or(was_ready)
            }
        };
        // Whoever answers there must be this instance, or the traffic goes to a stranger.
        if judged.ready && !was_ready && address.is_some() {
            match listening(folder.to_owned(), self.who.clone()).await {
                Some(Listening::Ours) => {}
                Some(Listening::Another) => {
                    judged.ready = false;
                    judged.trouble = Some(Trouble::stranger(address));
                }
                Some(Listening::Nobody) | None => judged.ready = false,
            }
        }
        self.was_ready |= judged.ready;
        if let Some(check) = &self.probes.live
            && ran >= check.delay
            && self.live_at.elapsed() >= check.period
        {
            self.live_at = Instant::now();
            let passed = check.passes(address, folder, epoch).await;
            judged.restart |= self.live.count(check, passed) == Some(false);
        }
        judged
    }
}

async fn listening(folder: PathBuf, who: client::Launch) -> Option<Listening> {
    let asked = tokio::task::spawn_blocking(move || Client::connect_to(&folder, None, &who).ok()?.listening().ok()?);
    asked.await.ok().flatten()
}
