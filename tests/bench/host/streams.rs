//! Clients that read a streamed reply to its end, again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::load::Asked;

/// Streams until they are stopped.
pub(crate) struct Streams {
    readers: JoinSet<()>,
    stop: CancellationToken,
    whole: Arc<AtomicU64>,
    cut: Arc<AtomicU64>,
}

// === impl Streams ===

impl Streams {
    /// Keeps that many streams open.
    pub(crate) fn start(asked: &Asked, count: usize) -> Self {
        let all = Self {
            readers: JoinSet::new(),
            stop: CancellationToken::new(),
            whole: Arc::default(),
            cut: Arc::default(),
        };
        let mut readers = JoinSet::new();
        for _ in 0..count {
            let (asked, stop) = (asked.clone(), all.stop.clone());
            let (whole, cut) = (Arc::clone(&all.whole), Arc::clone(&all.cut));
            readers.spawn(async move {
                let http = reqwest::Client::builder().no_proxy().build().expect("a client");
                while !stop.is_cancelled() {
                    let counter = if read(&http, &asked).await { &whole } else { &cut };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Self { readers, ..all }
    }

    /// Lets the open ones end; gives how many were whole and how many were cut.
    pub(crate) async fn stop(mut self) -> (u64, u64) {
        self.stop.cancel();
        while self.readers.join_next().await.is_some() {}
        (self.whole.load(Ordering::Relaxed), self.cut.load(Ordering::Relaxed))
    }
}

/// Whether a stream came to its own end.
async fn read(http: &reqwest::Client, asked: &Asked) -> bool {
    let request = http.post(format!("http://{}/chat?stream=true", asked.address));
    let request = request.header("host", &asked.host).json(&json!({"message": asked.message}));
    let Ok(answer) = request.send().await else { return false };
    answer.status().is_success() && answer.text().await.is_ok_and(|text| text.contains("event: done"))
}
