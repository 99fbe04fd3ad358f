//! What the daemon is told: its configuration, webhooks, and what the API of a Git host answers.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use backstay::daemon::config::{Config, HookSecrets, Secret};
use backstay::daemon::write_back::{Forge, Host, Opened, Proposal};
use backstay::source;

use super::stand::{Says, Stand};
use super::{assert_plain, parts};

pub(super) fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Config::parse("backstay.toml", Some(text), &BTreeMap::new()) {
        Ok(config) => {
            for target in &config.target {
                drop((target.gate(), target.prune.limits()));
            }
            drop(config.source.remote());
        }
        Err(found) => found.0.iter().for_each(|one| drop(format!("{one} {:?}", one.snippet))),
    }
}

/// A variable of the environment, `NAME=value` in each line.
pub(super) fn variable(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let variables = text.lines().filter_map(|line| line.split_once('='));
    let variables = variables.map(|(name, value)| (format!("BACKSTAY_{name}"), value.to_owned())).collect();
    let base = "[source]\nurl = \"/a\"\n[[target]]\nenvironment = \"prod\"\nkubernetes = { namespace = \"a\" }\n";
    if let Err(found) = Config::parse("backstay.toml", Some(base), &variables) {
        found.0.iter().for_each(|one| drop(one.to_string()));
    }
}

/// Headers in lines, an empty line, a body; to each door.
pub(super) fn hook(data: &[u8]) {
    use hyper::service::Service as _;
    let end = data.windows(2).position(|two| two == b"\n\n").unwrap_or(data.len());
    let (head, body) = (&data[..end], data.get(end + 2..).unwrap_or_default());
    let secret = || Some(Secret::new("hunter2"));
    let app = backstay::web::App {
        status: backstay::daemon::Status::serving([]),
        metrics: std::sync::Arc::new(backstay::daemon::Metrics::new()),
        secrets: HookSecrets { github: secret(), gitlab: secret(), gitea: secret(), generic: secret() },
        hint: std::sync::Arc::new(|| panic!("nobody signed this")),
    };
    let service =
        hyper_util::service::TowerToHyperService::new(backstay::web::router(&app, &backstay::web::Limits::default()));
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else { return };
    for door in ["github", "gitlab", "gitea", "generic"] {
        let mut request = http::Request::post(format!("/hooks/{door}"));
        for line in head.split(|byte| *byte == b'\n') {
            let at = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
            request = request.header(&line[..at], line.get(at + 1..).unwrap_or_default());
        }
        let Ok(request) = request.body(axum::body::Body::from(body.to_vec())) else { continue };
        let answer = runtime.block_on(service.call(request));
        assert!(answer.is_ok_and(|answer| answer.status().is_client_error()), "{door}");
    }
}

/// A letter that chooses whose API it is, and answers that are ended by a zero: a digit for the status and a body, or bytes
/// that begin with `HTTP/`.
pub(super) fn forge(data: &[u8]) {
    static STAND: OnceLock<Stand> = OnceLock::new();
    let Some((which, rest)) = data.split_first() else { return };
    let answer = |part: &[u8]| {
        let (first, body) = part.split_first()?;
        let status = [200, 201, 401, 403, 404, 409, 422, 429, 500, 302][usize::from(first.wrapping_sub(b'0') % 10)];
        Some(if part.starts_with(b"HTTP/") { Says::Bare(part.to_vec()) } else { Says::Body(status, body.to_vec()) })
    };
    let stand = STAND.get_or_init(Stand::start);
    let forge = Forge {
        host: [Host::GitHub, Host::GitLab, Host::Gitea][usize::from(which % 3)],
        api: format!("http://{}/api", stand.address),
        repository: "acme/agents".to_owned(),
        token: source::Secret::Value("hush".to_owned()),
        ca_file: None,
    };
    let proposal = Proposal { title: "t", body: "b", head: "backstay/revert-a", base: "main" };
    for opens in [false, true] {
        let _turn = stand.says(parts(rest).filter_map(answer).take(6));
        let told = if opens { forge.open(&proposal).map(Some) } else { forge.find(proposal.head, proposal.base) };
        match told {
            Ok(None) => assert!(!opens, "what was opened has an address"),
            Ok(Some(Opened { address, .. })) => {
                assert_plain(&address);
                assert!(address.len() <= 500 && (address.starts_with("http://") || address.starts_with("https://")));
            }
            Err(error) => {
                assert_plain(&error.to_string());
                assert!(error.to_string().len() < 4096 && !error.to_string().contains("hush"));
                drop((error.hint(), error.kind()));
            }
        }
    }
}
