//! The proxy's side of the control socket.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::RwLock;
use tokio_util::sync::CancellationToken;

use super::client::exchange;
use super::{Active, Ask, Question, Refused, Reply, VERSION, Why, answer};
use crate::proxy::live::{InstanceKey, Switch};
use crate::proxy::serve::Tasks;
use crate::proxy::store::{self, Loaded};

/// Bytes that a question may have.
const LONGEST: u64 = 64 * 1024;

/// Time that a caller may be silent.
const SILENCE: Duration = Duration::from_mins(5);

/// Time for a process that drains to answer.
const OTHERS: Duration = Duration::from_secs(2);

/// Callers at a time.
const CALLERS: usize = 64;

/// Answers whoever may ask.
pub(crate) struct Control {
    switch: Arc<Switch>,
    path: PathBuf,
    table: PathBuf,
    boot: String,
    uids: Vec<u32>,
    epoch: AtomicU64,
    fallback: Mutex<Option<String>>,
    /// Held by every question, and whole while this process is being replaced.
    still: RwLock<()>,
    replaced: AtomicBool,
}

/// Where a process that was replaced answers.
pub(crate) fn draining_path(control: &Path, pid: u32) -> PathBuf {
    let mut name = control.as_os_str().to_owned();
    name.push(format!(".{pid}"));
    name.into()
}

// === impl Control ===

impl Control {
    pub(crate) fn new(switch: Arc<Switch>, path: PathBuf, table: PathBuf, boot: String, uids: Vec<u32>) -> Self {
        let epoch = AtomicU64::new(switch.live().table.epoch);
        let (fallback, still, replaced) = (Mutex::default(), RwLock::new(()), AtomicBool::new(false));
        Self { switch, path, table, boot, uids, epoch, fallback, still, replaced }
    }

    /// Notes why the table in use is not the one in the file.
    pub(crate) fn fell_back(&self, why: Option<String>) {
        *self.fallback.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Answers nobody until what is given back is dropped; after [`Control::replaced`] nobody who waited.
    pub(crate) async fn hold_still(&self) -> tokio::sync::RwLockWriteGuard<'_, ()> {
        self.still.write().await
    }

    /// Another process answers from now on, and asks this one.
    pub(crate) fn replaced(&self) {
        self.replaced.store(true, Ordering::Release);
    }

    /// Instances that take no new requests.
    pub(crate) fn drained(&self) -> Vec<InstanceKey> {
        let drained = self.switch.instances().into_iter().filter(|instance| instance.is_drained());
        drained.map(|instance| instance.key.clone()).collect()
    }

    /// Drains these too.
    pub(crate) fn drain_all(&self, keys: &[InstanceKey]) {
        self.switch.instances().iter().filter(|known| keys.contains(&known.key)).for_each(|known| known.drain());
    }

    /// Reads the table again and uses it, unless it is older than the one in use.
    pub(crate) fn reload(&self) -> Result<Active, Refused> {
        self.load(None)
    }

    /// Accepts callers until `stop`.
    pub(crate) async fn serve(self: Arc<Self>, listener: UnixListener, tasks: Tasks, stop: CancellationToken) {
        let slots = Arc::new(tokio::sync::Semaphore::new(CALLERS));
        loop {
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            let Some(accepted) = stop.run_until_cancelled(listener.accept()).await else { return };
            let Ok((stream, _)) = accepted else {
                // Out of descriptors: others end.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let (control, stop) = (self.clone(), stop.clone());
            tasks.spawn(async move {
                let _slot = slot;
                // A caller that breaks off is its own affair.
                let _ = stop.run_until_cancelled(control.talk(stream)).await;
            });
        }
    }

    async fn talk(&self, stream: UnixStream) -> io::Result<()> {
        let uid = stream.peer_cred()?.uid();
        let (read, mut write) = stream.into_split();
        let mut read = BufReader::new(read);
        if !self.uids.contains(&uid) {
            let refused = Refused::new(Why::Forbidden, format!("the account {uid} may not speak to the proxy"));
            return say(&mut write, &Reply::Refused(refused)).await;
        }
        loop {
            let mut line = Vec::new();
            let mut bounded = (&mut read).take(LONGEST);
            let reading = bounded.read_until(b'\n', &mut line);
            let Ok(read) = tokio::time::timeout(SILENCE, reading).await else { return Ok(()) };
            if read? == 0 {
                return Ok(());
            }
            let reply = {
                let _held = self.still.read().await;
                let question = serde_json::from_slice::<Question>(&line);
                let alone = question.as_ref().is_ok_and(|question| question.alone);
                // Whoever waited meant the process that answers now; it is asked again.
                if self.replaced.load(Ordering::Acquire) && !alone {
                    return Ok(());
                }
                match question {
                    Ok(question) => self.reply(question).await.unwrap_or_else(Reply::Refused),
                    Err(error) => Reply::Refused(Refused::new(Why::Protocol, format!("not understood: {error}"))),
                }
            };
            say(&mut write, &reply).await?;
        }
    }

    async fn reply(&self, question: Question) -> Result<Reply, Refused> {
        if question.version != VERSION {
            let message = format!("version {} was asked, and this proxy speaks {VERSION}", question.version);
            return Err(Refused::new(Why::Protocol, message));
        }
        let own = match &question.ask {
            Ask::Load { generation } => {
                self.fence(question.epoch)?;
                Reply::Active(self.load(Some((question.epoch, *generation)))?)
            }
            Ask::State => {
                let fallback = self.fallback.lock().unwrap_or_else(PoisonError::into_inner).clone();
                Reply::State(answer::state(&self.switch, fallback))
            }
            Ask::Metrics { since } => Reply::Metrics(answer::metrics(&self.switch, *since)),
            Ask::Drain { instance, generation, cut } => {
                self.fence(question.epoch)?;
                self.drain(&(instance.clone(), *generation), *cut, question.alone)?
            }
        };
        if question.alone { Ok(own) } else { self.with_others(question, own).await }
    }

    fn fence(&self, epoch: u64) -> Result<(), Refused> {
        let seen = self.epoch.fetch_max(epoch, Ordering::AcqRel);
        if epoch < seen {
            return Err(Refused::new(Why::Fenced, format!("epoch {epoch} is over: {seen} has spoken")));
        }
        Ok(())
    }

    fn load(&self, wanted: Option<(u64, u64)>) -> Result<Active, Refused> {
        let no = |message: String| Refused::new(Why::Table, message);
        let live = self.switch.live();
        let Loaded { table, digest, fallback } = store::load_table(&self.table).map_err(|error| no(whole(&error)))?;
        if let Some(why) = fallback {
            return Err(no(whole(&why)));
        }
        if let Some((_, generation)) = wanted
            && table.generation != generation
        {
            return Err(no(format!("generation {generation} was asked for, and the file has {}", table.generation)));
        }
        if table.order() < live.table.order() {
            let message =
                format!("the file has epoch {}, generation {}, and a later one is used", table.epoch, table.generation);
            return Err(Refused::new(if table.epoch < live.table.epoch { Why::Fenced } else { Why::Table }, message));
        }
        if digest == live.digest {
            self.fell_back(None);
            return Ok(answer::active(&live));
        }
        if table.order() == live.table.order() {
            return Err(no("another table with the same epoch and generation is used".to_owned()));
        }
        if let Some((id, generation)) = self.switch.clash(&table) {
            return Err(no(format!("instance `{id}` of generation {generation} is another than before")));
        }
        self.epoch.fetch_max(table.epoch, Ordering::AcqRel);
        self.switch.load(table, digest, &self.boot);
        self.fell_back(None);
        let active = answer::active(&self.switch.live());
        tracing::info!(epoch = active.epoch, generation = active.generation, "the routing table is active");
        Ok(active)
    }

    fn drain(&self, key: &InstanceKey, cut: bool, alone: bool) -> Result<Reply, Refused> {
        let instance = self.switch.instances().into_iter().find(|instance| instance.key == *key);
        let Some(instance) = instance else {
            // A process that drains may never have known it.
            let unknown =
                || Refused::new(Why::Unknown, format!("there is no instance `{}` of generation {}", key.0, key.1));
            return if alone { Ok(Reply::Drained { in_flight: 0 }) } else { Err(unknown()) };
        };
        instance.drain();
        if cut {
            instance.cut.cancel();
        }
        Ok(Reply::Drained { in_flight: instance.open().values().sum::<usize>() as u64 })
    }

    /// The same question to every process that drains beside this one, and all answers as one.
    async fn with_others(&self, question: Question, mut own: Reply) -> Result<Reply, Refused> {
        let question = Question { alone: true, ..question };
        for (pid, path) in self.others() {
            let theirs = match exchange(&path, &question, OTHERS).await {
                Ok(reply) => Some(reply),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    // It died without a word, and its requests with it.
                    let _ = std::fs::remove_file(&path);
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(_) => None,
            };
            match (&mut own, theirs) {
                (Reply::State(own), Some(Reply::State(theirs))) => own.add(theirs),
                (Reply::State(own), _) => own.silent.push(pid),
                (Reply::Metrics(own), Some(Reply::Metrics(theirs))) => own.add(theirs),
                (Reply::Metrics(_), _) | (Reply::Active(_), Some(Reply::Active(_))) => {}
                (Reply::Drained { in_flight }, Some(Reply::Drained { in_flight: theirs })) => *in_flight += theirs,
                (Reply::Active(_) | Reply::Drained { .. } | Reply::Refused(_), _) => {
                    return Err(Refused::new(Why::Partial, format!("process {pid}, which drains, did not do it")));
                }
            }
        }
        Ok(own)
    }

    /// Processes that were replaced and have not ended, with their sockets.
    fn others(&self) -> Vec<(u32, PathBuf)> {
        let (Some(folder), Some(name)) = (self.path.parent(), self.path.file_name().and_then(|name| name.to_str()))
        else {
            return Vec::new();
        };
        let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        let others = entries.filter_map(|entry| {
            let pid = entry.file_name().to_str()?.strip_prefix(name)?.strip_prefix('.')?.parse().ok()?;
            (pid != std::process::id()).then(|| (pid, entry.path()))
        });
        let mut others: Vec<(u32, PathBuf)> = others.collect();
        others.sort();
        others
    }
}

async fn say(write: &mut (impl AsyncWriteExt + Unpin), reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    write.write_all(&line).await
}

/// An error with its causes, in one line.
fn whole(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text += &format!(": {cause}");
        next = cause.source();
    }
    text
}
