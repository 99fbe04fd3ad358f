//! Reaching an API server: from within the cluster, or by a kubeconfig.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};

/// How an API server is reached, and as whom.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cluster {
    /// A kubeconfig; absent: the pod's own account within a cluster, else `KUBECONFIG` and `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig; absent: its current one.
    pub context: Option<String>,
    /// The kubeconfig is the daemon's own, or the person's who runs the command: it may name programs to run.
    pub own: bool,
}

/// The `ServiceAccount` that writes to a target: impersonated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// The API server cannot be reached as configured.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig cannot be used.
    #[error("cannot use {what}")]
    Kubeconfig {
        /// Which file, with its context.
        what: String,
        /// Why.
        #[source]
        source: kube::config::KubeconfigError,
    },
    /// The pod's own account cannot be used.
    #[error("cannot use the pod's own account to reach the API server")]
    InCluster(#[source] kube::config::InClusterError),
    /// A kubeconfig that is not the daemon's own wants a program to be run.
    #[error("{what} gets its credentials by `{field}`, which runs a program: only the daemon's own kubeconfig may")]
    RunsProgram {
        /// Which file, with its context.
        what: String,
        /// `exec` or `auth-provider`.
        field: &'static str,
    },
    /// No client can be made of it.
    #[error("cannot make a client for the API server")]
    Client(#[source] kube::Error),
}

/// Makes a client that does not retry by itself; as `account` where one is given, else as itself.
///
/// # Errors
///
/// When there is no usable configuration, or a kubeconfig that is not the daemon's own names a program to run.
pub async fn connect(cluster: &Cluster, account: Option<&Account>) -> Result<kube::Client, ConnectError> {
    let mut config = match &cluster.kubeconfig {
        Some(path) => from_file(cluster, path).await?,
        None if cluster.context.is_none() && std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() => {
            kube::Config::incluster().map_err(ConnectError::InCluster)?
        }
        None => from_environment(cluster).await?,
    };
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(10));
    if let Some(account) = account {
        // The server adds the groups of a service account by itself when none are named.
        config.auth_info.impersonate = Some(format!("system:serviceaccount:{}:{}", account.namespace, account.name));
        config.auth_info.impersonate_groups = None;
    }
    kube::Client::try_from(config).map_err(ConnectError::Client)
}

async fn from_file(cluster: &Cluster, path: &Path) -> Result<kube::Config, ConnectError> {
    let what = named(&format!("kubeconfig {}", path.display()), cluster);
    match Kubeconfig::read_from(path) {
        Ok(kubeconfig) => chosen(cluster, kubeconfig, what).await,
        Err(source) => Err(ConnectError::Kubeconfig { what, source }),
    }
}

async fn from_environment(cluster: &Cluster) -> Result<kube::Config, ConnectError> {
    let what = named("the kubeconfig", cluster);
    match Kubeconfig::read() {
        Ok(kubeconfig) => chosen(cluster, kubeconfig, what).await,
        Err(source) => Err(ConnectError::Kubeconfig { what, source }),
    }
}

fn named(what: &str, cluster: &Cluster) -> String {
    cluster.context.as_ref().map_or_else(|| what.to_owned(), |context| format!("{what}, context `{context}`"))
}

async fn chosen(cluster: &Cluster, kubeconfig: Kubeconfig, what: String) -> Result<kube::Config, ConnectError> {
    let context = cluster.context.as_ref().or(kubeconfig.current_context.as_ref()).cloned();
    let entry = kubeconfig.contexts.iter().find(|entry| Some(&entry.name) == context.as_ref());
    let user = entry.and_then(|entry| entry.context.as_ref()?.user.clone());
    let account = kubeconfig.auth_infos.iter().find(|entry| Some(&entry.name) == user.as_ref());
    if let Some(account) = account.and_then(|entry| entry.auth_info.as_ref())
        && !cluster.own
    {
        let field = match (&account.exec, &account.auth_provider) {
            (Some(_), _) => Some("exec"),
            (None, Some(_)) => Some("auth-provider"),
            (None, None) => None,
        };
        if let Some(field) = field {
            return Err(ConnectError::RunsProgram { what, field });
        }
    }
    let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
    kube::Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(|source| ConnectError::Kubeconfig { what, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubeconfig(user: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: here\nclusters: [{{name: c, cluster: {{server: \
             'http://127.0.0.1:1'}}}}]\ncontexts: [{{name: here, context: {{cluster: c, user: u}}}}]\nusers: [{{name: u, \
             user: {user}}}]\n"
        );
        std::fs::write(&path, text).expect("written");
        (folder, path)
    }

    #[tokio::test]
    async fn a_kubeconfig_runs_programs_only_where_it_is_our_own() {
        for (user, field) in [
            ("{exec: {apiVersion: client.authentication.k8s.io/v1, command: touch, args: [evil]}}", "exec"),
            ("{auth-provider: {name: gcp, config: {cmd-path: touch}}}", "auth-provider"),
        ] {
            let (_folder, path) = kubeconfig(user);
            let cluster = Cluster { kubeconfig: Some(path), context: None, own: false };
            match connect(&cluster, None).await.err() {
                Some(ConnectError::RunsProgram { field: found, .. }) => assert_eq!(found, field),
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn what_is_missing_is_named() {
        let (_folder, path) = kubeconfig("{token: t}");
        let there = Cluster { kubeconfig: Some(path), context: None, own: false };
        connect(&there, None).await.expect("a client");
        let elsewhere = Cluster { context: Some("far".to_owned()), ..there.clone() };
        let error = connect(&elsewhere, None).await.err().expect("an error").to_string();
        assert!(error.contains("`far`"), "{error}");
        let gone = Cluster { kubeconfig: Some("/nowhere/config".into()), ..there };
        let error = connect(&gone, None).await.err().expect("an error").to_string();
        assert_eq!(error, "cannot use kubeconfig /nowhere/config");
    }
}
