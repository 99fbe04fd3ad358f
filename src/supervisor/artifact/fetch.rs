//! An artifact from elsewhere, over HTTPS.

use std::io::Read;
use std::time::Duration;

use reqwest::blocking::Client;
use reqwest::redirect::Policy;

use crate::desired::artifact::MAX_ARTIFACT;
use crate::desired::is_safe_address;

/// How long a server may take to be there.
const CONNECT: Duration = Duration::from_secs(10);
/// How long all of it may take.
const WHOLE: Duration = Duration::from_mins(10);
/// Times that a server may send elsewhere.
const HOPS: usize = 5;

/// Asks for an address, and gives its body.
///
/// Whom to trust is the system's word; an authority of one's own is named to the daemon as `SSL_CERT_FILE`.
///
/// # Errors
///
/// In one sentence; the address itself is not in it.
pub(super) fn open(url: &str) -> Result<impl Read + use<>, String> {
    if !is_safe_address(url) {
        return Err("it is neither HTTPS nor this machine's".to_owned());
    }
    // The proxies of the environment are the operator's; a redirect is somebody else's.
    let policy = Policy::custom(|hop| {
        if hop.previous().len() > HOPS {
            hop.error("the server sends from one place to another")
        } else if hop.url().scheme() == "https"
            || hop.previous().iter().all(|url| url.scheme() == "http") && is_safe_address(hop.url().as_str())
        {
            hop.follow()
        } else {
            hop.error("the server sends to an address that is not HTTPS")
        }
    });
    let client = Client::builder()
        .user_agent(concat!("backstay/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
        .timeout(WHOLE)
        .redirect(policy)
        .build()
        .map_err(plain)?;
    let answer = client.get(url).send().map_err(plain)?;
    let status = answer.status();
    if !status.is_success() {
        return Err(format!("the server answers {status}"));
    }
    if answer.content_length().is_some_and(|length| length > MAX_ARTIFACT) {
        return Err(format!("it has more than {} MiB", MAX_ARTIFACT >> 20));
    }
    Ok(answer)
}

/// What went wrong, down to its cause.
fn plain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
