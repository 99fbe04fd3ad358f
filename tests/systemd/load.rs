//! Clients of an agent, in the network of a machine.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::machine::Machine;

/// How many ask at the same time.
const CLIENTS: usize = 4;
/// Between two requests of one.
const PAUSE: Duration = Duration::from_millis(5);

/// Clients that ask until they are stopped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Told>>,
}

/// What was answered.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) answered: u64,
    /// What went wrong, each time.
    pub(crate) failed: Vec<String>,
}

// === impl Load ===

impl Load {
    /// Asks `path` of the agent `support` again and again, over connections that are kept.
    pub(crate) fn begin(machine: &Machine, path: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (0..CLIENTS).map(|_| {
            let (network, stop) = (machine.network(), Arc::clone(&stop));
            std::thread::spawn(move || {
                // The thread's own: the rest of the test stays where it is.
                move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                let (mut told, mut kept) = (Told::default(), None);
                while !stop.load(Ordering::Relaxed) {
                    match ask(&mut kept, path) {
                        Ok(()) => told.answered += 1,
                        Err(why) => {
                            kept = None;
                            told.failed.push(why);
                        }
                    }
                    std::thread::sleep(PAUSE);
                }
                told
            })
        });
        Self { clients: clients.collect(), stop }
    }

    /// Stops them; what they were answered all together.
    pub(crate) fn end(self) -> Told {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Told::default();
        for client in self.clients {
            let told = client.join().unwrap();
            all.answered += told.answered;
            all.failed.extend(told.failed);
        }
        all
    }
}

/// One request on the connection that is kept, or on a new one.
fn ask(kept: &mut Option<BufReader<TcpStream>>, path: &str) -> Result<(), String> {
    let told = |what: &str, error: std::io::Error| format!("{what}: {error}");
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => BufReader::new(TcpStream::connect("127.0.0.1:80").map_err(|error| told("connect", error))?),
    };
    stream.get_ref().set_read_timeout(Some(Duration::from_secs(20))).map_err(|error| told("set up", error))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: support.localhost\r\n\r\n");
    stream.get_mut().write_all(request.as_bytes()).map_err(|error| told("ask", error))?;
    let (mut line, mut status, mut length, mut closes) = (String::new(), String::new(), 0, false);
    loop {
        line.clear();
        stream.read_line(&mut line).map_err(|error| told("read", error))?;
        let lower = line.trim_end().to_ascii_lowercase();
        if status.is_empty() {
            if lower.is_empty() {
                return Err("closed without an answer".to_owned());
            }
            status = lower;
        } else if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(|error| format!("{line}: {error}"))?;
        } else if lower.starts_with("connection:") {
            closes = lower.contains("close");
        } else if lower.is_empty() {
            break;
        }
    }
    std::io::copy(&mut stream.by_ref().take(length), &mut std::io::sink()).map_err(|error| told("read", error))?;
    if !status.starts_with("http/1.1 200") {
        return Err(status);
    }
    *kept = (!closes).then_some(stream);
    Ok(())
}
