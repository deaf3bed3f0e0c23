//! TLS in front of a plain listener on loopback, for clients that speak nothing else.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tempfile::NamedTempFile;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// A listener with a certificate of its own for `localhost`; it ends when this is dropped.
pub struct TlsFront {
    /// Its port.
    pub port: u16,
    certificate: NamedTempFile,
    _serving: JoinSet<()>,
}

impl TlsFront {
    /// Passes on to the plain listener at `url`, `http://127.0.0.1:<port>`.
    pub async fn start(url: &str) -> Self {
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let certificate = NamedTempFile::new().expect("a file");
        std::fs::write(certificate.path(), certified.cert.pem()).expect("a file");
        let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).expect("a key");
        let config =
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("protocol versions")
                .with_no_client_auth()
                .with_single_cert(vec![certified.cert.der().clone()], key)
                .expect("a configuration");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let target = url.strip_prefix("http://").expect("a plain address").to_owned();
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), target));
        Self { port, certificate, _serving: serving }
    }

    /// The certificate, PEM.
    pub fn certificate(&self) -> &Path {
        self.certificate.path()
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, target: String) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, target) = (acceptor.clone(), target.clone());
        connections.spawn(async move {
            // A client that hangs up is the client's affair.
            let Ok(mut outside) = acceptor.accept(stream).await else { return };
            let Ok(mut inside) = TcpStream::connect(target).await else { return };
            let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
        });
    }
}
