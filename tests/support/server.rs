//! A server on the loopback that answers well, badly, or never.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

/// What is answered.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// A status, a type and a body.
    Says(u16, &'static str, String),
    /// Elsewhere.
    Sends(String),
    /// Nothing, ever.
    Silent,
    /// A body that does not end.
    Endless(&'static str),
    /// A head that does not end.
    Head,
    /// A body that is said to be of this length, and is not there.
    Claims(u64),
    /// A body of this length, whole.
    Whole(&'static str, u64),
    /// A body of which a byte comes now and then, for ever.
    Drips(&'static str),
    /// A head of which a byte comes now and then, for ever.
    DripsHead,
}

/// Up as long as the process.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    sent: Arc<AtomicU64>,
}

impl Server {
    pub(crate) fn start(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (answer, seen) = (Arc::new(answer), Arc::new(Mutex::new(vec![])));
        let sent = Arc::new(AtomicU64::new(0));
        let (own, counted) = (Arc::clone(&seen), Arc::clone(&sent));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, seen, sent) = (Arc::clone(&answer), Arc::clone(&own), Arc::clone(&counted));
                std::thread::spawn(move || serve(stream, &*answer, &seen, &sent));
            }
        });
        Self { address, seen, sent }
    }

    /// Bytes of whole bodies that were taken, as far as the system knows.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no panic before").clone()
    }
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value)
    }
}

/// Sends a byte now and then, until nobody takes it any more.
fn drip(out: &mut TcpStream, byte: u8) {
    while out.write_all(&[byte]).is_ok() {
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn serve(stream: TcpStream, answer: &dyn Fn(&Seen) -> Reply, seen: &Mutex<Vec<Seen>>, sent: &AtomicU64) -> Option<()> {
    let mut out = stream.try_clone().ok()?;
    let mut input = BufReader::new(stream);
    loop {
        let request = read(&mut input)?;
        seen.lock().expect("no panic before").push(request.clone());
        match answer(&request) {
            Reply::Says(status, kind, body) => {
                let head =
                    format!("HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n", body.len());
                out.write_all(head.as_bytes()).and_then(|()| out.write_all(body.as_bytes())).ok()?;
            }
            Reply::Sends(to) => {
                let head = format!("HTTP/1.1 307 X\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
                out.write_all(head.as_bytes()).ok()?;
            }
            Reply::Silent => {
                // Until the client leaves.
                let _ = input.read(&mut [0]);
                return None;
            }
            Reply::Endless(kind) => {
                out.write_all(
                    format!("HTTP/1.1 200 X\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n").as_bytes(),
                )
                .ok()?;
                let part = "a 1\n".repeat(4096);
                while out.write_all(part.as_bytes()).is_ok() {}
                return None;
            }
            Reply::Head => {
                out.write_all(b"HTTP/1.1 200 X\r\n").ok()?;
                let line = format!("x: {}\r\n", "y".repeat(1000));
                while out.write_all(line.as_bytes()).is_ok() {}
                return None;
            }
            Reply::Whole(kind, length) => {
                let head = format!("HTTP/1.1 200 X\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n");
                out.write_all(head.as_bytes()).ok()?;
                let part = "a 1\n".repeat(16 * 1024);
                for _ in 0..length / part.len() as u64 {
                    out.write_all(part.as_bytes()).ok()?;
                    sent.fetch_add(part.len() as u64, Ordering::AcqRel);
                }
            }
            Reply::Drips(kind) => {
                let head = format!("HTTP/1.1 200 X\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n");
                out.write_all(head.as_bytes()).ok()?;
                drip(&mut out, b' ');
                return None;
            }
            Reply::DripsHead => {
                out.write_all(b"HTTP/1.1 200 X\r\nx: ").ok()?;
                drip(&mut out, b'y');
                return None;
            }
            Reply::Claims(length) => {
                out.write_all(format!("HTTP/1.1 200 X\r\ncontent-length: {length}\r\n\r\n{{").as_bytes()).ok()?;
                let _ = input.read(&mut [0]);
                return None;
            }
        }
    }
}

fn read(input: &mut BufReader<TcpStream>) -> Option<Seen> {
    let mut line = String::new();
    input.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) = (words.next()?, words.next()?);
    let mut headers = vec![];
    loop {
        let mut line = String::new();
        input.read_line(&mut line).ok().filter(|count| *count > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut seen = Seen { method, target, headers, body: String::new() };
    if let Ok(length) = seen.header("content-length").parse::<usize>() {
        let mut body = vec![0; length];
        input.read_exact(&mut body).ok()?;
        seen.body = String::from_utf8(body).ok()?;
    }
    Some(seen)
}
