//! One request from its assignment to the end of its answer: counted, timed, told to the log.

use std::sync::Arc;
use std::time::Instant;

use crate::proxy::figures::{self, Counts, Shared};
use crate::proxy::live::{Open, Went};
use crate::proxy::serve::access::{Entry, Log};

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Whole.
    Whole,
    /// The instance broke off in its middle.
    Broken,
}

/// Counts one request; dropped before its end, the client left.
pub(super) struct Measure {
    figures: Arc<Shared>,
    open: Open,
    began: Instant,
    ended: bool,
    log: Option<Box<(Log, Entry)>>,
}

// === impl Measure ===

impl Measure {
    pub(super) fn begin(figures: Arc<Shared>, open: Open, log: Option<(Log, Entry)>) -> Self {
        let measure = Self { figures, open, began: Instant::now(), ended: false, log: log.map(Box::new) };
        measure.count(|counts| counts.requests += 1);
        measure
    }

    pub(super) fn open(&self) -> &Open {
        &self.open
    }

    /// It goes to another instance of the same release.
    pub(super) fn moved(&mut self, open: Open) {
        self.open = open;
    }

    pub(super) fn count(&self, what: impl Fn(&mut Counts)) {
        self.figures.read().count(figures::second(), what);
    }

    /// The head of the answer came.
    pub(super) fn answered(&mut self, status: u16) {
        let micros = micros(self.began);
        let second = figures::second();
        let mut figures = self.figures.read();
        figures.count(second, |counts| counts.answer(status));
        figures.first_byte(second, micros);
        drop(figures);
        self.open.0.instance.saw(if status >= 500 { Went::Badly } else { Went::Well });
        if let Some(log) = &mut self.log {
            (log.1.status, log.1.first_byte) = (status, Some(micros));
        }
    }

    /// There was no answer, and the client gets this one of ours.
    pub(super) fn failed(mut self, status: u16, why: &'static str) {
        let (second, micros) = (figures::second(), micros(self.began));
        let mut figures = self.figures.read();
        figures.count(second, |counts| {
            counts.answer(status);
            counts.failed += u64::from(status >= 500);
        });
        figures.latency(second, micros);
        drop(figures);
        self.finish(why, status);
    }

    /// The answer ended.
    pub(super) fn ended(mut self, end: End) {
        let micros = micros(self.began);
        let second = figures::second();
        match end {
            End::Whole => self.figures.read().latency(second, micros),
            End::Broken => {
                self.figures.read().count(second, |counts| counts.broken += 1);
                self.open.0.instance.saw(Went::Badly);
            }
        }
        self.finish(if end == End::Whole { "" } else { "broken off" }, 0);
    }

    fn finish(&mut self, why: &'static str, status: u16) {
        self.ended = true;
        if let Some(mut log) = self.log.take() {
            log.1.why = why;
            log.1.status = if status == 0 { log.1.status } else { status };
            log.1.micros = micros(self.began);
            log.1.instance.clone_from(&self.open.0.instance.key.0);
            log.0.write(log.1);
        }
    }
}

impl Drop for Measure {
    fn drop(&mut self) {
        if !self.ended {
            self.count(|counts| counts.cancelled += 1);
            self.finish("the client left", 0);
        }
    }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
