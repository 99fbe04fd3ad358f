//! TLS by files, read again when they change.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::proxy::settings::Tls;

/// Time between two looks at the files.
const LOOK: Duration = Duration::from_secs(1);

/// A certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate cannot be read.
    #[error("cannot read the certificate `{0}`")]
    Certificate(String, #[source] rustls::pki_types::pem::Error),
    /// The key cannot be read.
    #[error("cannot read the key of the certificate in `{0}`")]
    Key(String, #[source] rustls::pki_types::pem::Error),
    /// They do not fit, or are not understood.
    #[error("the certificate `{0}` and its key cannot be used")]
    Pair(String, #[source] rustls::Error),
}

/// The certificate in use.
pub(super) struct Certificate {
    files: Tls,
    current: RwLock<Arc<ServerConfig>>,
}

/// What changes when a file does.
type Mark = [Option<(u64, u64, u64, Option<SystemTime>)>; 2];

// === impl Certificate ===

impl Certificate {
    pub(super) fn read(files: &Tls) -> Result<Self, TlsError> {
        Ok(Self { files: files.clone(), current: RwLock::new(Arc::new(config(files)?)) })
    }

    /// With the certificate that is in use now.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone().into()
    }

    /// Reads the files again whenever they change, until `stop`; a pair that cannot be used changes nothing.
    pub(super) async fn watch(&self, stop: CancellationToken) {
        let mut known = self.mark();
        let mut look = tokio::time::interval(LOOK);
        while stop.run_until_cancelled(look.tick()).await.is_some() {
            let mark = self.mark();
            if mark == known {
                continue;
            }
            match config(&self.files) {
                Ok(config) => {
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
                    tracing::info!(certificate = %self.files.certificate.display(), "the certificate was read again");
                }
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    tracing::warn!(%error, cause, "the certificate that is in use stays");
                }
            }
            known = mark;
        }
    }

    fn mark(&self) -> Mark {
        [&self.files.certificate, &self.files.key].map(|path| {
            let file = path.metadata().ok()?;
            Some((file.dev(), file.ino(), file.len(), file.modified().ok()))
        })
    }
}

fn config(files: &Tls) -> Result<ServerConfig, TlsError> {
    let name = |path: &Path| path.display().to_string();
    let certificate = || name(&files.certificate);
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&files.certificate).and_then(Iterator::collect);
    let chain = chain.map_err(|error| TlsError::Certificate(certificate(), error))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| TlsError::Key(name(&files.key), error))?;
    let pair = |error| TlsError::Pair(certificate(), error);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(pair)?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).map_err(pair)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// For errors that come as one of the system's.
impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> Self {
        Self::other(error)
    }
}
