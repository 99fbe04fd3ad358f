//! Where pull requests are opened.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Secret, Source};
use crate::daemon::write_back::{Forge, Host};
use crate::source;

/// Where a pull request is opened, for environments with `writeBack: pullRequest`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct PullRequest {
    /// Whose API it is.
    pub forge: ForgeKind,
    /// Address of the API; absent: `https://api.github.com`, or `/api/v3` (GitHub), `/api/v4` (GitLab), `/api/v1` (Gitea
    /// and Forgejo) of the host in `source.url`.
    #[serde(default)]
    pub api: Option<String>,
    /// The repository there, as `owner/name`; absent: the path of `source.url`.
    #[serde(default)]
    pub repository: Option<String>,
    /// File that holds a token that may open pull requests.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// A token that may open pull requests.
    #[serde(default)]
    #[schemars(extend("writeOnly" = true))]
    pub token: Option<Secret>,
    /// Certificates that are trusted in place of the system's (PEM); absent: `source.ca_file`.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

/// Whose API it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum ForgeKind {
    /// GitHub.
    Github,
    /// GitLab.
    Gitlab,
    /// Gitea and Forgejo.
    Gitea,
}

// === impl Source ===

impl Source {
    /// Where pull requests are opened, if anywhere.
    ///
    /// # Errors
    ///
    /// The key that does not fit, what is wrong with it, and the way out.
    pub fn forge(&self) -> Result<Option<Forge>, (&'static str, String, &'static str)> {
        let Some(asked) = &self.pull_request else { return Ok(None) };
        let url = self.url.0.to_string();
        let (host, path) = match place(&url) {
            Some((host, path)) => (Some(host), Some(path)),
            None => (None, None),
        };
        let api = match (&asked.api, host) {
            (Some(api), _) => api.trim_end_matches('/').to_owned(),
            (None, Some(host)) => default_api(asked.forge, &host),
            (None, None) => {
                let why = "`source.url` names no host, so the address of the API is not known".to_owned();
                return Err(("api", why, "add `api = \"https://…\"`"));
            }
        };
        if !is_address(&api) {
            let why = "`source.pull_request.api` is no address of an API".to_owned();
            return Err((
                "api",
                why,
                "write it without a password, a query or a fragment: `https://git.example.com/api/v4`",
            ));
        }
        let Some(repository) = asked.repository.clone().or(path) else {
            let why = "`source.url` names no host, so the repository there is not known".to_owned();
            return Err(("repository", why, "add `repository = \"owner/name\"`"));
        };
        if !is_repository(&repository, asked.forge) {
            let why = format!("`{}` is no repository there", repository.escape_debug());
            return Err(("repository", why, "write it as `repository = \"owner/name\"`"));
        }
        let token = match (&asked.token, &asked.token_file) {
            (Some(token), _) => source::Secret::Value(token.expose().to_owned()),
            (None, Some(file)) => source::Secret::File(file.clone()),
            (None, None) => {
                let why = "`source.pull_request` has no token".to_owned();
                return Err(("token_file", why, "add `token_file`, with a token that may open pull requests"));
            }
        };
        let host = match asked.forge {
            ForgeKind::Github => Host::GitHub,
            ForgeKind::Gitlab => Host::GitLab,
            ForgeKind::Gitea => Host::Gitea,
        };
        let ca_file = asked.ca_file.clone().or_else(|| self.ca_file.clone());
        Ok(Some(Forge { host, api, repository, token, ca_file }))
    }
}

/// Host, with a port where HTTP is spoken there, and path of a repository's address.
fn place(url: &str) -> Option<(String, String)> {
    let (authority, path) = match url.split_once("://") {
        Some((scheme @ ("https" | "http" | "ssh"), rest)) => {
            let (authority, path) = rest.split_once('/')?;
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            // The port of SSH is not the API's.
            let bare = || host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map(|(bare, _)| bare);
            let host = if scheme == "ssh" { bare().unwrap_or(host) } else { host };
            (host.to_owned(), path)
        }
        Some(_) => return None,
        None => {
            let (before, path) = url.split_once(':').filter(|(before, _)| !before.contains('/'))?;
            (before.rsplit_once('@').map_or(before, |(_, host)| host).to_owned(), path)
        }
    };
    let path = path.trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    Some((authority, path.to_owned()))
}

fn default_api(forge: ForgeKind, host: &str) -> String {
    match forge {
        ForgeKind::Github if host.eq_ignore_ascii_case("github.com") => "https://api.github.com".to_owned(),
        ForgeKind::Github => format!("https://{host}/api/v3"),
        ForgeKind::Gitlab => format!("https://{host}/api/v4"),
        ForgeKind::Gitea => format!("https://{host}/api/v1"),
    }
}

fn is_address(api: &str) -> bool {
    let rest = api.strip_prefix("https://").or_else(|| api.strip_prefix("http://"));
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '@' | '?' | '#' | '"' | '\\' | '<' | '>');
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', ':']) && rest.chars().all(plain))
}

/// `owner/name`; at GitLab groups may lie in groups.
fn is_repository(text: &str, forge: ForgeKind) -> bool {
    let parts: Vec<_> = text.split('/').collect();
    let few = if forge == ForgeKind::Gitlab { parts.len() >= 2 } else { parts.len() == 2 };
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let good = |part: &&str| !part.is_empty() && !matches!(*part, "." | "..") && part.chars().all(legal);
    few && parts.len() <= 20 && parts.iter().all(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repositorys_address_names_the_api() {
        let at = |url: &str| place(url).map(|(host, path)| format!("{host} {path}"));
        assert_eq!(
            at("ssh://git@git.example.com:2222/acme/agents.git").as_deref(),
            Some("git.example.com acme/agents")
        );
        assert_eq!(at("git@github.com:acme/agents.git").as_deref(), Some("github.com acme/agents"));
        assert_eq!(at("https://git.example.com:8443/a/b/c").as_deref(), Some("git.example.com:8443 a/b/c"));
        assert_eq!(at("/srv/agents.git"), None);
        assert_eq!(at("file:///srv/agents.git"), None);
        assert_eq!(default_api(ForgeKind::Github, "github.com"), "https://api.github.com");
        assert_eq!(default_api(ForgeKind::Gitea, "git.example.com"), "https://git.example.com/api/v1");
    }

    #[test]
    fn only_plain_addresses_and_names_are_taken() {
        assert!(is_address("https://git.example.com/api/v4") && is_address("http://127.0.0.1:3000/api/v1"));
        for bad in ["ftp://x", "https://", "https:///x", "https://u:p@x", "https://x?y", "https://x y", "x"] {
            assert!(!is_address(bad), "{bad}");
        }
        assert!(is_repository("acme/agents", ForgeKind::Gitea) && is_repository("a/b/c", ForgeKind::Gitlab));
        for bad in ["agents", "a/b/c", "a/", "/a", "a/..", "a/b?x", "a/b c", ""] {
            assert!(!is_repository(bad, ForgeKind::Github), "{bad}");
        }
    }
}
