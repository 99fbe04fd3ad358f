//! A server that answers what it is told to, over HTTP or with bare bytes.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What one request is answered.
#[derive(Clone)]
pub(super) enum Says {
    /// A status and a body.
    Body(u16, Vec<u8>),
    /// These bytes and nothing else, and the end of the connection.
    Bare(Vec<u8>),
}

/// A server on the loopback, for as long as the process lives.
pub(super) struct Stand {
    pub(super) address: SocketAddr,
    turn: Mutex<()>,
    says: Arc<Mutex<VecDeque<Says>>>,
}

impl Stand {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let says = Arc::<Mutex<VecDeque<Says>>>::default();
        let own = Arc::clone(&says);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let own = Arc::clone(&own);
                std::thread::spawn(move || serve(stream, &own));
            }
        });
        Self { address, turn: Mutex::default(), says }
    }

    /// Answers these, the last one again and again; nobody else is answered while what is given back lives.
    pub(super) fn says(&self, says: impl IntoIterator<Item = Says>) -> MutexGuard<'_, ()> {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        *self.says.lock().unwrap_or_else(PoisonError::into_inner) = says.into_iter().collect();
        turn
    }
}

/// Answers on one connection until it ends, by whichever side.
fn serve(stream: TcpStream, says: &Mutex<VecDeque<Says>>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut out = stream.try_clone().ok()?;
    let mut input = BufReader::new(stream);
    loop {
        let mut length = 0;
        for number in 0.. {
            let mut line = String::new();
            if input.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().ok()?;
            }
            if number > 0 && line.trim_end().is_empty() {
                break;
            }
        }
        std::io::copy(&mut input.by_ref().take(length), &mut std::io::sink()).ok()?;
        let answer = {
            let mut says = says.lock().unwrap_or_else(PoisonError::into_inner);
            if says.len() > 1 { says.pop_front() } else { says.front().cloned() }
        };
        match answer? {
            Says::Body(status, body) => {
                let head = format!(
                    "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                out.write_all(head.as_bytes()).ok()?;
                out.write_all(&body).ok()?;
            }
            Says::Bare(bytes) => {
                out.write_all(&bytes).ok()?;
                return None;
            }
        }
    }
}
