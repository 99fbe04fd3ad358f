//! An agent for tests: a server with one thread per connection that does by path what a test needs.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// One request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

#[derive(Default)]
struct Shared {
    name: String,
    seen: Mutex<Vec<Seen>>,
    hits: AtomicUsize,
    connections: AtomicUsize,
    gate: Mutex<usize>,
    opened: Condvar,
    ends: AtomicBool,
    deaf: AtomicBool,
}

/// A server that is up as long as this lives.
#[derive(Clone)]
pub(crate) struct Agent {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

impl Agent {
    pub(crate) fn start(name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { name: name.to_owned(), ..Shared::default() });
        let own = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if own.ends.load(Ordering::Acquire) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                own.connections.fetch_add(1, Ordering::AcqRel);
                let own = own.clone();
                std::thread::Builder::new().stack_size(128 * 1024).spawn(move || drop(own.serve(stream))).unwrap();
            }
        });
        Self { address, shared }
    }

    pub(crate) fn hits(&self) -> usize {
        self.shared.hits.load(Ordering::Acquire)
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Acquire)
    }

    /// What came last.
    pub(crate) fn last(&self) -> Seen {
        self.shared.seen.lock().unwrap().last().unwrap().clone()
    }

    /// Everything that came.
    pub(crate) fn all(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Lets one wait of a handler end.
    pub(crate) fn open_gate(&self) {
        *self.shared.gate.lock().unwrap() += 1;
        self.shared.opened.notify_all();
    }

    /// Closes every kept connection at its next request, without an answer.
    pub(crate) fn deaf(&self, deaf: bool) {
        self.shared.deaf.store(deaf, Ordering::Release);
    }

    /// Accepts nothing any more.
    pub(crate) fn stop(&self) {
        self.shared.ends.store(true, Ordering::Release);
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn wait(&self) {
        let mut gate = self.gate.lock().unwrap();
        while *gate == 0 {
            let (next, timeout) = self.opened.wait_timeout(gate, Duration::from_secs(20)).unwrap();
            gate = next;
            assert!(!timeout.timed_out(), "no gate was opened");
        }
        *gate -= 1;
    }

    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut out = stream.try_clone()?;
        let mut input = BufReader::new(stream);
        let mut first = true;
        loop {
            let Some(seen) = read(&mut input)? else { return Ok(()) };
            if self.deaf.load(Ordering::Acquire) && !first {
                return Ok(());
            }
            first = false;
            self.hits.fetch_add(1, Ordering::AcqRel);
            let mut all = self.seen.lock().unwrap();
            if all.len() < 1000 {
                all.push(seen.clone());
            }
            drop(all);
            let path = seen.target.split('?').next().unwrap_or_default().to_owned();
            let known: BTreeSet<&str> = ["sse", "ticks", "ws", "hang", "close", "cut", "status", "bad"].into();
            let word = path.split('/').nth(1).filter(|word| known.contains(word)).unwrap_or_default();
            match word {
                "sse" => {
                    out.write_all(
                        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
                    )?;
                    chunk(&mut out, "data: 1\n\n")?;
                    self.wait();
                    chunk(&mut out, "data: 2\n\n")?;
                    out.write_all(b"0\r\n\r\n")?;
                }
                "ticks" => {
                    out.write_all(
                        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
                    )?;
                    let count: usize = path.rsplit('/').next().unwrap().parse().unwrap();
                    for tick in 0..count {
                        chunk(&mut out, &format!("data: {tick}\n\n"))?;
                        std::thread::sleep(Duration::from_millis(10));
                    }
                    out.write_all(b"0\r\n\r\n")?;
                }
                "ws" => {
                    out.write_all(
                        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
                    )?;
                    let mut buffer = [0; 1024];
                    loop {
                        let count = input.read(&mut buffer)?;
                        if count == 0 {
                            return Ok(());
                        }
                        out.write_all(&buffer[..count])?;
                    }
                }
                "hang" => self.wait(),
                "close" => {
                    out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")?;
                    return Ok(());
                }
                "cut" => {
                    out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")?;
                    return Ok(());
                }
                "bad" => {
                    out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab")?;
                    return Ok(());
                }
                "status" => {
                    let status = path.rsplit('/').next().unwrap();
                    out.write_all(format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n").as_bytes())?;
                }
                _ => {
                    let body = format!("{} {} {}", self.name, seen.method, seen.target);
                    let head = format!(
                        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nbackstay-release: a-lie\r\nkeep-alive: timeout=5\r\n\r\n",
                        body.len()
                    );
                    let body = if seen.method == "HEAD" { String::new() } else { body };
                    out.write_all(format!("{head}{body}").as_bytes())?;
                }
            }
        }
    }
}

fn chunk(out: &mut TcpStream, text: &str) -> std::io::Result<()> {
    out.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes())
}

/// Reads one request; none at the end of the connection.
fn read(input: &mut BufReader<TcpStream>) -> std::io::Result<Option<Seen>> {
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = vec![];
    loop {
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut seen = Seen { method, target, headers, body: vec![] };
    if let Some(length) = seen.header("content-length").and_then(|length| length.parse().ok()) {
        seen.body = vec![0; length];
        input.read_exact(&mut seen.body)?;
    } else if seen.header("transfer-encoding").is_some() {
        loop {
            let mut size = String::new();
            input.read_line(&mut size)?;
            let Ok(size) = usize::from_str_radix(size.trim(), 16) else { return Ok(None) };
            let mut part = vec![0; size + 2];
            input.read_exact(&mut part)?;
            if size == 0 {
                break;
            }
            seen.body.extend_from_slice(&part[..size]);
        }
    }
    Ok(Some(seen))
}
