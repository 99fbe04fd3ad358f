//! TLS by files, read again when they change.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::TlsConnector;

use crate::support::agent;
use crate::support::process::{Proxy, to_one};

/// A key for tests alone: it guards nothing.
const ONE: [&str; 2] = [include_str!("keys/one.pem"), include_str!("keys/one.key")];
const TWO: [&str; 2] = [include_str!("keys/two.pem"), include_str!("keys/two.key")];

fn write(folder: &std::path::Path, [certificate, key]: [&str; 2]) {
    for (name, text) in [("tls.pem", certificate), ("tls.key", key)] {
        std::fs::write(folder.join("new"), text).unwrap();
        std::fs::rename(folder.join("new"), folder.join(name)).unwrap();
    }
}

/// Asks as a client that trusts `certificate` for `name`; over HTTP/2 where `h2`.
async fn ask(address: std::net::SocketAddr, certificate: &str, name: &'static str, h2: bool) -> Result<String, String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![if h2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(name).unwrap(), stream).await;
    let io = TokioIo::new(stream.map_err(|error| error.to_string())?);
    let request =
        http::Request::get("https://a.example/t").header("host", "a.example").body(Empty::<Bytes>::new()).unwrap();
    let answer = if h2 {
        let (mut send, drive) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(drive);
        send.send_request(request).await.unwrap()
    } else {
        let (mut send, drive) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(drive);
        send.send_request(request).await.unwrap()
    };
    Ok(String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

#[test]
fn a_new_certificate_is_used_without_a_restart_and_a_bad_one_is_not() {
    let agent = agent::Agent::start("one");
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), ONE);
    let at = folder.path().display();
    // The port of the plain listener and one more.
    let more = format!("listen_tls = ['127.0.0.1:0']\ntls = {{certificate = '{at}/tls.pem', key = '{at}/tls.key'}}");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let more = more.replace("127.0.0.1:0", &format!("127.0.0.1:{port}"));
    let proxy = Proxy::with(Some(&to_one(1, "s", &[&agent])), &more);
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    for h2 in [false, true] {
        assert_eq!(proxy.block(ask(address, ONE[0], "one.example", h2)), Ok("one GET /t".into()));
    }
    assert_eq!(agent.last().header("x-forwarded-proto"), Some("https"));
    assert!(proxy.block(ask(address, TWO[0], "two.example", false)).is_err());
    // A pair that does not fit changes nothing.
    std::fs::write(folder.path().join("tls.key"), TWO[1]).unwrap();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2500) {
        assert_eq!(proxy.block(ask(address, ONE[0], "one.example", false)), Ok("one GET /t".into()));
        std::thread::sleep(Duration::from_millis(50));
    }
    write(folder.path(), TWO);
    while proxy.block(ask(address, TWO[0], "two.example", true)).is_err() {
        assert!(start.elapsed() < Duration::from_secs(20), "the new certificate is not used");
        std::thread::sleep(Duration::from_millis(50));
    }
}
