//! A server that answers with bytes of a test's choice, and a way between that changes what a real one says.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// One request: its first line, all headers, and its body.
pub(crate) struct Asked {
    pub(crate) line: String,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// How a test answers; what it writes is counted.
pub(crate) struct Out<'a> {
    stream: TcpStream,
    server: &'a Shared,
}

#[derive(Default)]
struct Shared {
    sent: AtomicU64,
    asked: AtomicU64,
    ended: AtomicBool,
}

/// A listener of one's own; ends with the value.
pub(crate) struct Raw {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

// === impl Out ===

impl Out<'_> {
    /// Sends bytes; whether somebody still takes them.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let bytes = bytes.as_ref();
        let sent = !self.server.ended.load(Ordering::Acquire) && self.stream.write_all(bytes).is_ok();
        if sent {
            self.server.sent.fetch_add(bytes.len() as u64, Ordering::AcqRel);
        }
        sent
    }

    /// Sends a byte now and then, for ever: until nobody takes it any more.
    pub(crate) fn drip(&mut self, byte: u8) {
        while self.send([byte]) {
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Sends the same bytes again and again: until nobody takes them any more.
    pub(crate) fn flood(&mut self, bytes: impl AsRef<[u8]>) {
        let many = bytes.as_ref().repeat(1 + (256 << 10) / bytes.as_ref().len().max(1));
        while self.send(&many) {}
    }
}

// === impl Raw ===

impl Raw {
    /// Answers each connection's first HTTP request by `answer`.
    pub(crate) fn http(answer: impl Fn(&Asked, &mut Out<'_>) + Send + Sync + 'static) -> Self {
        Self::tcp(move |out| {
            if let Some(asked) = ask(&out.stream) {
                answer(&asked, out);
            }
        })
    }

    /// Answers each connection by `answer`, before anything was said.
    pub(crate) fn tcp(answer: impl Fn(&mut Out<'_>) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (shared, answer) = (Arc::new(Shared::default()), Arc::new(answer));
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if serving.ended.load(Ordering::Acquire) {
                    return;
                }
                let (shared, answer) = (Arc::clone(&serving), Arc::clone(&answer));
                let Ok(stream) = stream else { continue };
                shared.asked.fetch_add(1, Ordering::AcqRel);
                std::thread::spawn(move || answer(&mut Out { stream, server: &shared }));
            }
        });
        Self { address, shared }
    }

    /// Passes every request on to `to`, and its answer back as `change` makes it.
    pub(crate) fn between(to: SocketAddr, change: impl Fn(&Asked, Vec<u8>) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::http(move |asked, out| {
            let Ok(mut far) = TcpStream::connect(to) else { return };
            let request = [asked.head.as_bytes(), &asked.body].concat();
            let mut answer = Vec::new();
            if far.write_all(&request).and_then(|()| far.read_to_end(&mut answer)).is_ok() {
                out.send(change(asked, answer));
            }
        })
    }

    /// Bytes that were sent and taken, as far as the system knows.
    pub(crate) fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Acquire)
    }

    /// Connections that came.
    pub(crate) fn asked(&self) -> u64 {
        self.shared.asked.load(Ordering::Acquire)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        drop(TcpStream::connect(self.address));
    }
}

/// Reads one request.
fn ask(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok()?;
        }
        head += &line;
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { line: head.lines().next().unwrap_or_default().to_owned(), head, body })
}
