//! A request's body on its way to an instance: bounded, copied where it may have to be sent again, told to a mirror.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::oneshot;

/// Bytes of a body that are kept for a second try.
const KEPT: usize = 64 * 1024;

/// Bytes of a body that a mirror gets at most; a longer one is not mirrored.
const MIRRORED: usize = 1024 * 1024;

/// Whatever ends a body early.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a request's body did not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyFailure {
    /// It is longer than the limit.
    TooLarge,
    /// The client broke off, or sent what is no body.
    Client,
}

/// The body of one request, for all tries.
#[derive(Clone, Debug)]
pub(super) struct Source(Option<Arc<Mutex<Reading>>>);

/// The body as one try reads it.
#[derive(Debug)]
pub(super) struct Sending {
    source: Source,
    at: usize,
    hint: SizeHint,
}

#[derive(Debug)]
struct Reading {
    incoming: Incoming,
    sent: Vec<Bytes>,
    sent_bytes: usize,
    /// Whether `sent` is all that was read.
    whole: bool,
    keep: bool,
    total: u64,
    limit: u64,
    failure: Option<BodyFailure>,
    copy: Option<Copy>,
}

/// What a mirror is to get.
#[derive(Debug)]
struct Copy {
    chunks: Vec<Bytes>,
    bytes: usize,
    whole: oneshot::Sender<Vec<Bytes>>,
}

// === impl Source ===

impl Source {
    /// A body without bytes.
    pub(super) fn empty() -> Self {
        Self(None)
    }

    /// Reads `incoming`, `limit` bytes at most.
    pub(super) fn new(incoming: Incoming, limit: u64) -> Self {
        if incoming.is_end_stream() {
            return Self(None);
        }
        Self(Some(Arc::new(Mutex::new(Reading {
            incoming,
            sent: Vec::new(),
            sent_bytes: 0,
            whole: true,
            keep: true,
            total: 0,
            limit,
            failure: None,
            copy: None,
        }))))
    }

    /// The body from its start, for one try.
    pub(super) fn send(&self) -> Sending {
        let hint = self.read().map_or_else(|| SizeHint::with_exact(0), |reading| reading.incoming.size_hint());
        Sending { source: self.clone(), at: 0, hint }
    }

    /// Whether it can be sent from its start once more.
    pub(super) fn again(&self) -> bool {
        self.read().is_none_or(|reading| reading.whole && reading.failure.is_none())
    }

    /// There will be no other try: what was sent is forgotten.
    pub(super) fn settle(&self) {
        if let Some(mut reading) = self.read() {
            (reading.keep, reading.whole) = (false, false);
            reading.sent = Vec::new();
        }
    }

    /// Why it did not come to its end.
    pub(super) fn failure(&self) -> Option<BodyFailure> {
        self.read().and_then(|reading| reading.failure)
    }

    /// All of it once it was read, unless it is too long or never ends.
    pub(super) fn copy(&self) -> oneshot::Receiver<Vec<Bytes>> {
        let (whole, copied) = oneshot::channel();
        match self.read() {
            Some(mut reading) => reading.copy = Some(Copy { chunks: Vec::new(), bytes: 0, whole }),
            None => drop(whole.send(Vec::new())),
        }
        copied
    }

    fn read(&self) -> Option<MutexGuard<'_, Reading>> {
        self.0.as_ref().map(|reading| reading.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

// === impl Reading ===

impl Reading {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                self.failure = Some(BodyFailure::Client);
                return Poll::Ready(Some(Err(error.into())));
            }
            None => {
                self.end();
                return Poll::Ready(None);
            }
        };
        if let Some(data) = frame.data_ref() {
            self.total = self.total.saturating_add(data.len() as u64);
            if self.total > self.limit {
                self.failure = Some(BodyFailure::TooLarge);
                return Poll::Ready(Some(Err("the body is too long".into())));
            }
            if self.keep && self.sent_bytes + data.len() <= KEPT {
                self.sent_bytes += data.len();
                self.sent.push(data.clone());
            } else {
                (self.keep, self.whole) = (false, false);
                self.sent = Vec::new();
            }
            if let Some(copy) = &mut self.copy {
                copy.bytes += data.len();
                copy.chunks.push(data.clone());
            }
            self.copy.take_if(|copy| copy.bytes > MIRRORED);
        }
        if self.incoming.is_end_stream() {
            self.end();
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn end(&mut self) {
        if let Some(Copy { chunks, whole, .. }) = self.copy.take() {
            // A mirror that is gone does not want it.
            let _ = whole.send(chunks);
        }
    }
}

// === impl Sending ===

impl Body for Sending {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let own = &mut *self;
        let Some(mut reading) = own.source.read() else { return Poll::Ready(None) };
        if let Some(again) = reading.sent.get(own.at) {
            own.at += 1;
            return Poll::Ready(Some(Ok(Frame::data(again.clone()))));
        }
        let polled = reading.poll(cx);
        if polled.is_ready() {
            own.at = reading.sent.len();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.source.read().is_none_or(|reading| self.at >= reading.sent.len() && reading.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}
