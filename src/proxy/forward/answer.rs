//! What the client gets: an instance's answer as it comes, or one of ours.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::body::BoxError;
use super::measure::{End, Measure};
use super::upstream::Connection;
use crate::proxy::serve::Line;
use crate::proxy::table::RETRY_AFTER;

/// The body of an answer.
pub(crate) struct Answer {
    inner: Inner,
    /// Told when the answer ended.
    line: Option<Arc<Line>>,
}

enum Inner {
    Own(Option<Bytes>),
    Theirs(Box<Theirs>),
}

/// An instance's answer, which drives the connection that it comes on.
struct Theirs {
    incoming: Incoming,
    connection: Option<Connection>,
    measure: Option<Measure>,
    silence: Duration,
    waits: Option<Waits>,
}

/// What ends an answer that says nothing.
struct Waits {
    timer: Pin<Box<Sleep>>,
    since: Instant,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

// === impl Answer ===

impl Answer {
    /// An instance's answer, passed on as it comes.
    pub(super) fn theirs(
        incoming: Incoming,
        connection: Option<Connection>,
        measure: Measure,
        silence: Duration,
    ) -> Self {
        let theirs = Theirs { incoming, connection, measure: Some(measure), silence, waits: None };
        let mut answer = Self { inner: Inner::Theirs(Box::new(theirs)), line: None };
        if let Inner::Theirs(theirs) = &mut answer.inner
            && theirs.incoming.is_end_stream()
        {
            theirs.end();
            answer.inner = Inner::Own(None);
        }
        answer
    }

    /// No bytes.
    pub(super) fn empty() -> Self {
        Self { inner: Inner::Own(None), line: None }
    }

    /// Tells the connection when it ended.
    pub(crate) fn on(mut self, line: Arc<Line>) -> Self {
        self.line = Some(line);
        self
    }
}

/// An answer of ours.
pub(super) fn own(status: StatusCode, why: &str) -> Response<Answer> {
    let text = Bytes::from(format!("{why}\n"));
    let mut response = Response::new(Answer { inner: Inner::Own(Some(text)), line: None });
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER.as_secs()));
    }
    response
}

// === impl Theirs ===

impl Theirs {
    /// It came whole: its connection can take the next request.
    fn end(&mut self) {
        let Some(measure) = self.measure.take() else { return };
        if let Some(connection) = self.connection.take() {
            measure.open().0.instance.pool.put(connection);
        }
        measure.ended(End::Whole);
    }

    fn broken(&mut self) {
        if let Some(measure) = self.measure.take() {
            measure.ended(End::Broken);
        }
        self.connection = None;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        // The first look says what is wanted, the connection brings it, the second finds it.
        let mut polled = Pin::new(&mut self.incoming).poll_frame(cx);
        if polled.is_pending()
            && let Some(connection) = &mut self.connection
        {
            connection.drive(cx);
            polled = Pin::new(&mut self.incoming).poll_frame(cx);
        }
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(waits) = &mut self.waits {
                    waits.since = Instant::now();
                }
                if self.incoming.is_end_stream() {
                    self.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.broken();
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                self.end();
                Poll::Ready(None)
            }
            Poll::Pending => self.wait(cx),
        }
    }

    /// Nothing comes: until it has been silent for too long, or is cut.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(measure) = &self.measure else { return Poll::Pending };
        let silence = self.silence;
        let waits = self.waits.get_or_insert_with(|| Waits {
            timer: Box::pin(tokio::time::sleep(silence)),
            since: Instant::now(),
            cut: Box::pin(measure.open().0.instance.cut.clone().cancelled_owned()),
        });
        let mut why = None;
        while waits.timer.as_mut().poll(cx).is_ready() {
            let deadline = waits.since + silence;
            if Instant::now() >= deadline {
                why = Some("the instance says nothing");
                break;
            }
            waits.timer.as_mut().reset(deadline);
        }
        if waits.cut.as_mut().poll(cx).is_ready() {
            why = Some("the instance was cut off");
        }
        let Some(why) = why else { return Poll::Pending };
        self.broken();
        Poll::Ready(Some(Err(why.into())))
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.inner {
            Inner::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Inner::Theirs(theirs) => theirs.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Own(bytes) => bytes.is_none(),
            Inner::Theirs(theirs) => theirs.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Inner::Theirs(theirs) => theirs.incoming.size_hint(),
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Inner::Theirs(theirs) = &mut self.inner
            && theirs.incoming.is_end_stream()
        {
            theirs.end();
        }
        if let Some(line) = &self.line {
            line.ended();
        }
    }
}
