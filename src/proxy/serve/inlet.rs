//! One client's connection as hyper reads it: framed strictly, and never waited for without end.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::framing::{BAD, Framing, Refusal, Step};

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// From the first byte of a head to its last; for the first head, from the start of the connection.
    pub(crate) head: Duration,
    /// Between two requests.
    pub(crate) idle: Duration,
    /// Without a byte of a body that is waited for, or without taking a byte of an answer.
    pub(crate) stall: Duration,
}

/// What a connection and its requests tell each other.
#[derive(Debug, Default)]
pub(crate) struct Line {
    open: AtomicUsize,
    decided: AtomicU8,
    waker: Mutex<Option<Waker>>,
}

/// A stream that lets only well-framed requests through; for HTTP/2 it only watches the time.
pub(super) struct Inlet<S> {
    stream: S,
    framing: Option<Framing>,
    /// Came, and does not yet make a whole part.
    held: Vec<u8>,
    /// May be read.
    free: Vec<u8>,
    line: Arc<Line>,
    patience: Patience,
    max_headers: usize,
    /// Whether a request came at all.
    begun: bool,
    waits_since: Option<Instant>,
    writes_since: Option<Instant>,
    read_timer: Option<Pin<Box<Sleep>>>,
    write_timer: Option<Pin<Box<Sleep>>>,
}

const UNDECIDED: u8 = 0;
const CHANGED: u8 = 1;
const UNCHANGED: u8 = 2;

// === impl Line ===

impl Line {
    /// Says whether the protocol changed, after a request that asked for it.
    pub(crate) fn decide(&self, changed: bool) {
        self.decided.store(if changed { CHANGED } else { UNCHANGED }, Ordering::Release);
        if let Some(waker) = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waker.wake();
        }
    }

    /// A request ended, its answer included.
    pub(crate) fn ended(&self) {
        // A second end of the same request would be a bug of ours, and must not wrap.
        let _ = self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| open.checked_sub(1));
    }

    /// For HTTP/2, where requests are not counted by their heads.
    pub(crate) fn began(&self) {
        self.open.fetch_add(1, Ordering::AcqRel);
    }
}

// === impl Inlet ===

impl<S: AsyncRead + AsyncWrite + Unpin> Inlet<S> {
    /// Frames HTTP/1 strictly; `first` was read already.
    pub(super) fn http1(
        stream: S,
        first: &[u8],
        line: Arc<Line>,
        patience: Patience,
        head: usize,
        lines: usize,
    ) -> Self {
        let mut inlet = Self::new(stream, line, patience, lines);
        let mut framing = Framing::new(head, lines);
        inlet.held.extend_from_slice(first);
        // Whatever it is, it is found again when hyper reads.
        inlet.advance(&mut framing);
        inlet.framing = Some(framing);
        inlet
    }

    /// Only watches the time; `first` was read already.
    pub(super) fn http2(stream: S, first: &[u8], line: Arc<Line>, patience: Patience) -> Self {
        let mut inlet = Self::new(stream, line, patience, 0);
        inlet.free.extend_from_slice(first);
        inlet
    }

    fn new(stream: S, line: Arc<Line>, patience: Patience, max_headers: usize) -> Self {
        Self {
            stream,
            framing: None,
            held: Vec::new(),
            free: Vec::new(),
            line,
            patience,
            max_headers,
            begun: false,
            waits_since: None,
            writes_since: None,
            read_timer: None,
            write_timer: None,
        }
    }

    /// Moves what is whole from what is held to what may be read.
    fn advance(&mut self, framing: &mut Framing) {
        let mut at = 0;
        while at < self.held.len() {
            match framing.step(&self.held[at..]) {
                Step::Pass(count) => {
                    self.free.extend_from_slice(&self.held[at..at + count]);
                    at += count;
                }
                Step::PassHead(count) => {
                    self.begin();
                    self.free.extend_from_slice(&self.held[at..at + count]);
                    at += count;
                }
                Step::Skip(count) => at += count,
                Step::More | Step::Hold => break,
                Step::Refuse(refusal) => {
                    self.free.extend_from_slice(&self.refusal(refusal));
                    at = self.held.len();
                }
            }
        }
        self.held.drain(..at);
        if self.held.is_empty() && self.held.capacity() > 0 {
            self.held = Vec::new();
        }
    }

    /// What makes hyper answer as it shall.
    fn refusal(&self, refusal: Refusal) -> Vec<u8> {
        match refusal {
            Refusal::Bad => BAD.to_vec(),
            Refusal::TooLarge => {
                let mut many = b"GET / HTTP/1.1\r\n".to_vec();
                many.extend(b"a:b\r\n".repeat(self.max_headers + 1));
                many.extend_from_slice(b"\r\n");
                many
            }
        }
    }

    fn begin(&mut self) {
        self.begun = true;
        self.line.began();
    }

    /// Hands out what was freed before.
    fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        if self.free.is_empty() {
            return false;
        }
        let count = self.free.len().min(buf.remaining());
        buf.put_slice(&self.free[..count]);
        self.free.drain(..count);
        if self.free.is_empty() {
            self.free = Vec::new();
        }
        true
    }

    /// Takes in what was just read into `buf` from `before` on.
    fn take_in(&mut self, framing: &mut Framing, buf: &mut ReadBuf<'_>, before: usize) {
        if !self.held.is_empty() {
            self.held.extend_from_slice(&buf.filled()[before..]);
            buf.set_filled(before);
            return self.advance(framing);
        }
        let mut at = before;
        while at < buf.filled().len() {
            match framing.step(&buf.filled()[at..]) {
                Step::Pass(count) => at += count,
                Step::PassHead(count) => {
                    self.begin();
                    at += count;
                }
                Step::Skip(_) | Step::More | Step::Hold => {
                    // Rare: a part that is not whole. It goes the long way; a skip is taken again there.
                    self.hold(framing, &buf.filled()[at..]);
                    break;
                }
                Step::Refuse(refusal) => {
                    self.free.extend_from_slice(&self.refusal(refusal));
                    break;
                }
            }
        }
        buf.set_filled(at);
    }

    fn hold(&mut self, framing: &mut Framing, rest: &[u8]) {
        // An empty line that was skipped is skipped again.
        let rest = if framing.in_head() { rest.strip_prefix(b"\r\n").unwrap_or(rest) } else { rest };
        self.held.extend_from_slice(rest);
        self.advance(framing);
    }

    /// Until when the client may be silent; none while it waits for us.
    fn deadline(&mut self) -> Option<Instant> {
        let in_body = self.framing.as_ref().is_some_and(Framing::in_body);
        let patience = if in_body {
            self.patience.stall
        } else if self.line.open.load(Ordering::Acquire) > 0 {
            self.waits_since = None;
            return None;
        } else if self.held.is_empty() && (self.begun || self.framing.is_none()) {
            self.patience.idle
        } else {
            self.patience.head
        };
        let now = || Instant::now();
        // A head that began while nobody waited counts from its first byte, which is when its rest is waited for.
        Some(*self.waits_since.get_or_insert_with(now) + patience)
    }
}

/// Whether `deadline` has passed; else the task is woken then.
fn passed(timer: &mut Option<Pin<Box<Sleep>>>, deadline: Instant, cx: &mut Context<'_>) -> bool {
    let sleep = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
    if sleep.deadline() > deadline {
        sleep.as_mut().reset(deadline);
    }
    // A timer that is early is only moved when it fires, so that a request costs none.
    while sleep.as_mut().poll(cx).is_ready() {
        if Instant::now() >= deadline {
            return true;
        }
        sleep.as_mut().reset(deadline);
    }
    false
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Inlet<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let inlet = &mut *self;
        loop {
            if inlet.give(buf) {
                inlet.waits_since = None;
                return Poll::Ready(Ok(()));
            }
            if let Some(mut framing) = inlet.framing.take() {
                let open = inlet.ask(&mut framing, cx);
                let refused = framing.refused();
                inlet.framing = Some(framing);
                if refused {
                    return Poll::Ready(Ok(()));
                }
                if !open {
                    return Poll::Pending;
                }
                if !inlet.free.is_empty() {
                    continue;
                }
            }
            let before = buf.filled().len();
            if Pin::new(&mut inlet.stream).poll_read(cx, buf)?.is_pending() {
                let late = inlet.deadline().is_some_and(|deadline| passed(&mut inlet.read_timer, deadline, cx));
                return if late { Poll::Ready(Err(io::ErrorKind::TimedOut.into())) } else { Poll::Pending };
            }
            if buf.filled().len() == before {
                return Poll::Ready(Ok(()));
            }
            let Some(mut framing) = inlet.framing.take() else {
                inlet.waits_since = None;
                return Poll::Ready(Ok(()));
            };
            let (was_held, in_body) = (!inlet.held.is_empty(), framing.in_body());
            inlet.take_in(&mut framing, buf, before);
            inlet.framing = Some(framing);
            // Drops of a head do not buy it more time.
            if !was_held || in_body {
                inlet.waits_since = None;
            }
            if buf.filled().len() > before {
                inlet.waits_since = None;
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S> Inlet<S> {
    /// Whether reading may go on: not while it is open whether the protocol changes.
    fn ask(&mut self, framing: &mut Framing, cx: &mut Context<'_>) -> bool
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if !framing.asked() {
            return true;
        }
        let mut waker = self.line.waker.lock().unwrap_or_else(PoisonError::into_inner);
        match self.line.decided.swap(UNDECIDED, Ordering::AcqRel) {
            UNDECIDED => {
                *waker = Some(cx.waker().clone());
                return false;
            }
            decided => framing.decide(decided == CHANGED),
        }
        drop(waker);
        self.advance(framing);
        true
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Inlet<S> {
    fn written<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.writes_since = None;
            return written;
        }
        let deadline = *self.writes_since.get_or_insert_with(Instant::now) + self.patience.stall;
        if passed(&mut self.write_timer, deadline, cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Inlet<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.written(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.written(flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        Poll::Ready(Ok(()))
    }
}
