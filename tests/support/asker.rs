//! Somebody who uses an agent all the while, and notes each answer that was none.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(40);

/// A user; gone with its value.
pub(crate) struct User {
    got: Arc<Mutex<Got>>,
    task: tokio::task::JoinHandle<()>,
}

/// What a user got.
#[derive(Debug, Default, Clone)]
pub(crate) struct Got {
    pub(crate) answers: usize,
    /// Answers that were none, by whom.
    pub(crate) failed: Vec<(Option<String>, String)>,
}

// === impl User ===

impl User {
    /// Begins to ask `support` behind the proxy at `front`.
    pub(crate) fn start(front: &str) -> Self {
        let got = Arc::<Mutex<Got>>::default();
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let (url, noted) = (format!("http://{front}/chat"), Arc::clone(&got));
        let task = tokio::spawn(async move {
            loop {
                let (release, why) = ask(&client, &url).await;
                {
                    let mut got = noted.lock().expect("no panic before");
                    match why {
                        None => got.answers += 1,
                        Some(why) => got.failed.push((release, why)),
                    }
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
        Self { got, task }
    }

    /// Asks no more; gives what it got.
    pub(crate) fn end(self) -> Got {
        self.task.abort();
        self.so_far()
    }

    /// What it got so far.
    pub(crate) fn so_far(&self) -> Got {
        self.got.lock().expect("no panic before").clone()
    }

    /// Begins to count anew.
    pub(crate) fn forget(&self) {
        *self.got.lock().expect("no panic before") = Got::default();
    }
}

impl Drop for User {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One question: who answered, where that is said, and what was wrong with it.
async fn ask(client: &reqwest::Client, url: &str) -> (Option<String>, Option<String>) {
    let asked = client.post(url).header("host", "support.localhost").header("backstay-release", "?");
    let answer = match asked.json(&json!({"message": "refund"})).send().await {
        Ok(answer) => answer,
        Err(error) => return (None, Some(format!("{error:?}"))),
    };
    let named = answer.headers().get("backstay-release").and_then(|name| name.to_str().ok()).map(str::to_owned);
    let status = answer.status();
    match answer.json::<Value>().await {
        Ok(body) if status.is_success() && body["reply"].is_string() => (named, None),
        Ok(body) => (named, Some(format!("{status}: {body}"))),
        Err(error) => (named, Some(format!("{status}: {error}"))),
    }
}
