//! A wire to a server that a test can cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// A TCP connection to the API server that can fall silent, and be cut.
pub(crate) struct Wire {
    pub(crate) port: u16,
    shared: Arc<WireState>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct WireState {
    silent: AtomicBool,
    cut: Notify,
    opened: AtomicUsize,
}

// === impl Wire ===

impl Wire {
    /// A wire from a port of this machine to `server`.
    pub(crate) async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(WireState::default());
        let state = shared.clone();
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                state.opened.fetch_add(1, Ordering::SeqCst);
                let (state, server) = (state.clone(), server.clone());
                tokio::spawn(async move {
                    let Ok(far) = TcpStream::connect(server).await else { return };
                    let (near_in, near_out) = near.into_split();
                    let (far_in, far_out) = far.into_split();
                    tokio::select! {
                        () = carry(near_in, far_out, &state.silent) => {}
                        () = carry(far_in, near_out, &state.silent) => {}
                        () = state.cut.notified() => {}
                    }
                });
            }
        });
        Self { port, shared, task }
    }

    /// From now on nothing comes through, in either direction, and no connection ends.
    pub(crate) fn fall_silent(&self) {
        self.shared.silent.store(true, Ordering::SeqCst);
    }

    /// What is sent from now on comes through again; what was swallowed is lost, so those connections are dead.
    pub(crate) fn speak(&self) {
        self.shared.silent.store(false, Ordering::SeqCst);
    }

    /// Ends all connections.
    pub(crate) fn cut(&self) {
        self.shared.cut.notify_waiters();
    }

    /// Connections that were ever opened.
    pub(crate) fn opened(&self) -> usize {
        self.shared.opened.load(Ordering::SeqCst)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
        self.cut();
    }
}

/// Carries bytes one way; what comes while it is silent is swallowed, and the connection carries nothing any more.
async fn carry(mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf, silent: &AtomicBool) {
    let mut dead = false;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) | Err(_) if !dead && !silent.load(Ordering::SeqCst) => return,
            Ok(0) | Err(_) => std::future::pending().await,
            Ok(read) => {
                dead |= silent.load(Ordering::SeqCst);
                if !dead && to.write_all(&buffer[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}
