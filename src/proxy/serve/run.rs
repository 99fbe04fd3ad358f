//! From the settings to the end of the process.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::handover::{self, Go, Next, Part};
use super::lanes::Lanes;
use super::listen::{self, Listener, Purpose};
use super::notify::notify;
use super::tls::Certificate;
use super::{Proxy, ServeError, Tasks, connection};
use crate::proxy::control::{Control, draining_path};
use crate::proxy::forward::Client;
use crate::proxy::live::Switch;
use crate::proxy::settings::Settings;
use crate::proxy::store::{self, Loaded};
use crate::proxy::table::Table;
use crate::sys;

/// Time between two looks for what is over.
const SWEEP: Duration = Duration::from_millis(250);

/// How long what was measured last stays to be asked for.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// All parts of a process that serves.
struct Parts {
    settings: Settings,
    program: PathBuf,
    proxy: Arc<Proxy>,
    control: Arc<Control>,
    listeners: Vec<Listener>,
    lanes: Arc<Lanes>,
    /// Tasks that are no client's.
    own: Tasks,
    /// No new connection, no question on the main socket, no sign of life.
    retired: CancellationToken,
    /// Everything.
    stop: CancellationToken,
}

/// Serves until a signal ends it: SIGTERM and SIGINT let open requests end, SIGHUP has the program on disk take over.
///
/// To be called before the process has threads; it has its own runtime.
///
/// # Guarantees
///
/// Without the daemon the last table stays in use, also after a start: it is read from its file, or from the one before
/// where that is damaged. A take-over loses no connection.
pub fn run(settings: &Settings) -> Result<(), ServeError> {
    settings.check()?;
    let program = std::env::current_exe().map_err(ServeError::Start)?;
    let next = match handover::part().map_err(ServeError::Handover)? {
        Part::Helper => return handover::help().map_err(ServeError::Handover),
        Part::Next(next) => Some(next),
        Part::First => None,
    };
    // Clients have threads of their own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServeError::Start)?;
    let served = runtime.block_on(serve(settings.clone(), program, next));
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

async fn serve(settings: Settings, program: PathBuf, mut next: Option<Next>) -> Result<(), ServeError> {
    let cannot = ServeError::Start;
    let (mut hangup, mut terminate, mut interrupt) = (
        signal(SignalKind::hangup()).map_err(cannot)?,
        signal(SignalKind::terminate()).map_err(cannot)?,
        signal(SignalKind::interrupt()).map_err(cannot)?,
    );
    let certificate = settings.tls.as_ref().map(Certificate::read).transpose()?.map(Arc::new);
    let listeners = match &mut next {
        Some(next) => std::mem::take(&mut next.listeners),
        None => listen::all(&settings)?,
    };
    let (table, digest, fallback) = first_table(&settings);
    let boot = sys::boot_id().unwrap_or_default();
    let switch = Arc::new(Switch::new(table, digest, &boot));
    let uids = [vec![0, rustix::process::geteuid().as_raw()], settings.control_uids.clone()].concat();
    let control = Control::new(switch.clone(), settings.control.clone(), settings.table.clone(), boot, uids);
    control.fell_back(fallback);
    let parts = Parts {
        proxy: Arc::new(Proxy::new(switch, &settings)?),
        control: Arc::new(control),
        program,
        listeners,
        lanes: Arc::new(Lanes::begin().map_err(ServeError::Start)?),
        own: Tasks::default(),
        retired: CancellationToken::new(),
        stop: CancellationToken::new(),
        settings,
    };
    let next = parts.take_over(next).await?;
    parts.begin(certificate)?;
    notify(&format!("MAINPID={}\nREADY=1", std::process::id()));
    if let Some(mut next) = next {
        let served = tokio::task::spawn_blocking(move || next.serving()).await;
        served.map_err(std::io::Error::other).and_then(|said| said).map_err(ServeError::Handover)?;
    }
    let live = parts.proxy.switch.live();
    tracing::info!(generation = live.table.generation, stale = live.stale, "the proxy serves");
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => match parts.hand_over().await {
                Ok(()) => return parts.drain_behind(terminate, interrupt).await,
                Err(error) => {
                    tracing::error!(%error, "the program on disk could not take over; this one goes on");
                }
            }
        }
    }
    notify("STOPPING=1");
    parts.retired.cancel();
    parts.proxy.draining.cancel();
    let ended = tokio::select! {
        ended = tokio::time::timeout(parts.settings.limits.drain.0, parts.proxy.tasks.ended()) => ended.is_ok(),
        _ = terminate.recv() => false,
        _ = interrupt.recv() => false,
    };
    tracing::info!(ended, "the proxy stops");
    let _ = std::fs::remove_file(&parts.settings.control);
    parts.end().await;
    Ok(())
}

/// The table to begin with, and why it is not the one in the file.
fn first_table(settings: &Settings) -> (Table, crate::model::Digest, Option<String>) {
    let none = || Table::empty(0, 0, "");
    match store::load_table(&settings.table) {
        Ok(Loaded { table, digest, fallback }) => {
            if let Some(why) = &fallback {
                tracing::error!(error = %why, "the routing table before it is used");
            }
            (table, digest, fallback.map(|why| why.to_string()))
        }
        Err(error) if error.is_missing() => (none(), none().digest(), None),
        Err(error) => {
            tracing::error!(%error, "there is no routing table, and nothing is ready");
            (none(), none().digest(), Some(error.to_string()))
        }
    }
}

// === impl Parts ===

impl Parts {
    /// Waits until the process before lets go, and has its latest table.
    async fn take_over(&self, next: Option<Next>) -> Result<Option<Next>, ServeError> {
        let Some(mut next) = next else { return Ok(None) };
        let asked = tokio::task::spawn_blocking(move || next.prepared().map(|go| (next, go))).await;
        let (next, go) = asked.map_err(std::io::Error::other).and_then(|asked| asked).map_err(ServeError::Handover)?;
        let loaded = self.control.reload();
        let live = self.proxy.switch.live();
        if live.table.order() < go.order {
            let why = loaded.err().map_or_else(|| "the file is older".to_owned(), |refused| refused.message);
            return Err(ServeError::Handover(std::io::Error::other(format!("the table in use cannot be read: {why}"))));
        }
        self.control.drain_all(&go.drained);
        Ok(Some(next))
    }

    /// Begins to accept.
    fn begin(&self, certificate: Option<Arc<Certificate>>) -> Result<(), ServeError> {
        let slots = Arc::new(Semaphore::new(usize::try_from(self.settings.limits.connections).unwrap_or(usize::MAX)));
        for listener in &self.listeners {
            match listener.try_clone().map_err(ServeError::Start)? {
                Listener::Control(listener) => {
                    let listener = unix(listener).map_err(ServeError::Start)?;
                    let serving = self.control.clone().serve(listener, self.own.clone(), self.retired.clone());
                    self.own.spawn(serving);
                }
                Listener::Tcp(Purpose::Metrics, listener) => {
                    let listener = tcp(listener).map_err(ServeError::Start)?;
                    self.own.spawn(metrics(self.proxy.clone(), listener, self.retired.clone()));
                }
                Listener::Tcp(purpose, listener) => {
                    let certificate = certificate.clone().filter(|_| purpose == Purpose::Tls);
                    if purpose == Purpose::Tls && certificate.is_none() {
                        return Err(ServeError::Handover(std::io::Error::other("a socket for TLS has no certificate")));
                    }
                    let listener = tcp(listener).map_err(ServeError::Start)?;
                    let (proxy, lanes, retired) = (self.proxy.clone(), self.lanes.clone(), self.retired.clone());
                    self.own.spawn(accept((proxy, lanes), listener, certificate, slots.clone(), retired));
                }
            }
        }
        if let Some(certificate) = certificate {
            let stop = self.retired.clone();
            self.own.spawn(async move { certificate.watch(stop).await });
        }
        if let Some(every) = sys::watchdog() {
            let retired = self.retired.clone();
            self.own.spawn(async move {
                let mut every = tokio::time::interval(every);
                while retired.run_until_cancelled(every.tick()).await.is_some() {
                    notify("WATCHDOG=1");
                }
            });
        }
        let (switch, stop) = (self.proxy.switch.clone(), self.stop.clone());
        self.own.spawn(async move {
            let mut every = tokio::time::interval(SWEEP);
            while stop.run_until_cancelled(every.tick()).await.is_some() {
                switch.sweep();
            }
        });
        Ok(())
    }

    /// Has the program on disk take over; after an error all is as before.
    async fn hand_over(&self) -> std::io::Result<()> {
        let path = draining_path(&self.settings.control, std::process::id());
        let listener = listen::bind_control(&path).map_err(std::io::Error::other)?;
        let done = self.hand_over_to_next().await.and_then(|()| unix(listener));
        match done {
            Ok(listener) => {
                let (control, own, stop) = (self.control.clone(), self.own.clone(), self.stop.clone());
                self.own.spawn(control.serve(listener, own, stop));
                Ok(())
            }
            Err(error) => {
                let _ = std::fs::remove_file(&path);
                Err(error)
            }
        }
    }

    async fn hand_over_to_next(&self) -> std::io::Result<()> {
        let listeners: Result<Vec<Listener>, _> = self.listeners.iter().map(Listener::try_clone).collect();
        let (listeners, program) = (listeners?, self.program.clone());
        let begun = tokio::task::spawn_blocking(move || handover::begin(&program, &listeners)).await;
        let mut before = begun.map_err(std::io::Error::other)??;
        let still = self.control.hold_still().await;
        let go = Go { order: self.proxy.switch.live().table.order(), drained: self.control.drained() };
        let gone = tokio::task::spawn_blocking(move || before.go(&go)).await;
        gone.map_err(std::io::Error::other)??;
        self.control.replaced();
        // Nothing is accepted here any more; what waits in the queue is the next one's.
        self.retired.cancel();
        drop(still);
        self.proxy.draining.cancel();
        tracing::info!("the next proxy serves; this one ends its open requests");
        Ok(())
    }

    /// Ends what is open, answers the next one's questions until then, and is gone.
    async fn drain_behind(
        self,
        mut terminate: tokio::signal::unix::Signal,
        mut interrupt: tokio::signal::unix::Signal,
    ) -> Result<(), ServeError> {
        let ended = async {
            let drained = tokio::time::timeout(self.settings.limits.drain.0, self.proxy.tasks.ended()).await;
            tokio::time::sleep(LAST_WORDS).await;
            drained.is_ok()
        };
        let ended = tokio::select! {
            ended = ended => ended,
            _ = terminate.recv() => false,
            _ = interrupt.recv() => false,
        };
        tracing::info!(ended, "the replaced proxy ends");
        let _ = std::fs::remove_file(draining_path(&self.settings.control, std::process::id()));
        self.end().await;
        Ok(())
    }

    async fn end(&self) {
        self.stop.cancel();
        self.retired.cancel();
        let _ = tokio::time::timeout(Duration::from_secs(1), self.own.ended()).await;
    }
}

fn tcp(listener: std::net::TcpListener) -> std::io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

fn unix(listener: std::os::unix::net::UnixListener) -> std::io::Result<UnixListener> {
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Accepts clients until `retired`; beyond the limit they wait in the queue.
async fn accept(
    (proxy, lanes): (Arc<Proxy>, Arc<Lanes>),
    listener: TcpListener,
    certificate: Option<Arc<Certificate>>,
    slots: Arc<Semaphore>,
    retired: CancellationToken,
) {
    loop {
        let Some(Ok(slot)) = retired.run_until_cancelled(slots.clone().acquire_owned()).await else { return };
        let Some(accepted) = retired.run_until_cancelled(listener.accept()).await else { return };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let Ok(stream) = stream.into_std() else { continue };
        let (proxy, certificate) = (proxy.clone(), certificate.clone());
        lanes.spawn(&proxy.tasks.clone(), async move {
            let _slot = slot;
            // It is woken where it is served.
            let Ok(stream) = TcpStream::from_std(stream) else { return };
            let scheme = if certificate.is_some() { "https" } else { "http" };
            let client = Client { peer: Some(peer.ip()), scheme };
            let Some(certificate) = certificate else {
                return Box::pin(connection::serve(proxy, stream, client)).await;
            };
            let shaken = certificate.acceptor().accept(stream);
            if let Ok(Ok(stream)) = tokio::time::timeout(proxy.limits.patience.head, shaken).await {
                Box::pin(connection::serve(proxy, stream, client)).await;
            }
        });
    }
}

/// `/metrics` for Prometheus, `/healthz` for whoever looks after the process.
async fn metrics(proxy: Arc<Proxy>, listener: TcpListener, stop: CancellationToken) {
    let slots = Arc::new(Semaphore::new(16));
    while let Ok(slot) = slots.clone().acquire_owned().await {
        let Some(accepted) = stop.run_until_cancelled(listener.accept()).await else { return };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let proxy = proxy.clone();
        let tasks = proxy.tasks.clone();
        tasks.spawn(async move {
            let _slot = slot;
            let service = service_fn(move |request: Request<Incoming>| {
                let response = tell(&proxy, request.uri().path());
                std::future::ready(Ok::<_, std::convert::Infallible>(response))
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(5)).keep_alive(false);
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn tell(proxy: &Proxy, path: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::new()));
    match path {
        "/metrics" => *response.body_mut() = Full::from(proxy.switch.figures.text()),
        "/healthz" => *response.body_mut() = Full::from("ok\n"),
        _ => *response.status_mut() = StatusCode::NOT_FOUND,
    }
    let kind = http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}
