//! TLS, ended here: from files that may change while connections live.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use cortex_core::{Clock, Digest};
use jiff::{SignedDuration, Timestamp};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::time_provider::TimeProvider;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificate::Certificate;
use super::config::{ClientAuth, TlsConfig, TlsFiles};

/// How long before its end a certificate is warned about.
const SOON: SignedDuration = SignedDuration::from_hours(7 * 24);
/// The largest file that is read, in bytes.
const FILE_MAX: usize = 1 << 20;

/// Files that TLS cannot be served with; the sentence says which and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("server.tls: {0}")]
pub struct TlsError(String);

/// Who is at the other end, by a certificate that was verified.
#[derive(Debug, Clone)]
pub(crate) struct ClientCertificate(Arc<str>);

impl fmt::Display for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What new connections are served with.
struct Serving {
    config: Arc<rustls::ServerConfig>,
    ends: Timestamp,
    /// Of the files that it was made of.
    digest: Digest,
}

/// What was found in the files at the last look.
enum Found {
    /// What is served with.
    Served,
    /// Something that cannot be served with. It may be half written: the next look decides.
    Suspect(Digest),
    /// Something that cannot be served with, and that stayed so.
    Broken(Digest, TlsError),
}

/// TLS of one listener.
pub(crate) struct Tls {
    files: TlsFiles,
    client_auth: ClientAuth,
    handshake_timeout: Duration,
    clock: Arc<dyn Clock>,
    serving: ArcSwap<Serving>,
    found: Mutex<Found>,
    /// Held while the files are looked at.
    looking: tokio::sync::Mutex<()>,
}

impl Tls {
    /// TLS as it is configured; none where it is not.
    pub(crate) async fn open(
        config: &TlsConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<Option<Arc<Self>>, TlsError> {
        let Some(files) = config.files() else { return Ok(None) };
        let serving = build(&read(&files).await?, config.client_auth, &clock)?;
        let tls = Self {
            files,
            client_auth: config.client_auth,
            handshake_timeout: Duration::from_secs(config.handshake_timeout_s),
            clock,
            serving: ArcSwap::from_pointee(serving),
            found: Mutex::new(Found::Served),
            looking: tokio::sync::Mutex::default(),
        };
        tls.measure();
        Ok(Some(Arc::new(tls)))
    }

    /// Looks at the files every so often.
    pub(crate) async fn watch(&self, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            self.look().await;
        }
    }

    /// Takes over what the files hold now, whole. Where that cannot be served with, what is served with stays.
    pub(crate) async fn look(&self) {
        let _one_at_a_time = self.looking.lock().await;
        let read = read(&self.files).await;
        let digest = read.as_ref().map_or_else(|error| Digest::of(error.0.as_bytes()), Material::digest);
        let found = if digest == self.serving.load().digest {
            Found::Served
        } else {
            match read.and_then(|material| build(&material, self.client_auth, &self.clock)) {
                Ok(serving) => {
                    tracing::info!(ends = %serving.ends, "new TLS files are in use");
                    metrics::counter!("cortex_tls_reloads_total", "outcome" => "taken").increment(1);
                    self.serving.store(Arc::new(serving));
                    Found::Served
                }
                Err(error) => self.judged(digest, error),
            }
        };
        *self.found() = found;
        self.measure();
    }

    /// What cannot be served with is said once, and only once it lies there for two looks.
    fn judged(&self, digest: Digest, error: TlsError) -> Found {
        match &*self.found() {
            Found::Suspect(before) if *before == digest => {
                tracing::error!(%error, "the TLS files cannot be used; what was in use before stays in use");
                metrics::counter!("cortex_tls_reloads_total", "outcome" => "refused").increment(1);
                Found::Broken(digest, error)
            }
            Found::Broken(before, _) if *before == digest => Found::Broken(digest, error),
            Found::Served | Found::Suspect(_) | Found::Broken(..) => Found::Suspect(digest),
        }
    }

    /// What an operator should look at; nothing of it stands in the way of serving.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let ends = self.serving.load().ends;
        let mut warnings = Vec::new();
        if let Found::Broken(_, error) = &*self.found() {
            warnings.push(format!("{error}; the certificate in use ends at {ends}"));
        }
        if ends.duration_since(self.clock.now()) < SOON {
            warnings.push(format!("server.tls: the certificate in use ends at {ends}"));
        }
        warnings
    }

    /// Shakes hands with a client, and says who it is.
    pub(super) async fn accept<S>(&self, stream: S) -> io::Result<(TlsStream<S>, Option<ClientCertificate>)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = Arc::clone(&self.serving.load().config);
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let client = shown.map(|der| {
            let subject = Certificate::read(der).map_or_else(String::new, |certificate| certificate.subject);
            ClientCertificate(format!("{subject} ({})", Digest::of(der)).into())
        });
        Ok((stream, client))
    }

    pub(super) fn handshake_timeout(&self) -> Duration {
        self.handshake_timeout
    }

    #[expect(clippy::cast_precision_loss, reason = "seconds of this era are exact in a double")]
    fn measure(&self) {
        let ends = self.serving.load().ends.as_second();
        metrics::gauge!("cortex_tls_certificate_ends_timestamp_seconds").set(ends as f64);
        let refused = matches!(&*self.found(), Found::Broken(..));
        metrics::gauge!("cortex_tls_files_refused").set(if refused { 1.0 } else { 0.0 });
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The files, as bytes.
struct Material {
    cert: Vec<u8>,
    key: zeroize::Zeroizing<Vec<u8>>,
    client_ca: Option<Vec<u8>>,
}

impl Material {
    fn digest(&self) -> Digest {
        let parts = [self.cert.as_slice(), &self.key, self.client_ca.as_deref().unwrap_or_default()];
        let digests: Vec<_> = parts.map(|part| Digest::of(part).to_string()).into();
        Digest::of(digests.join(" ").as_bytes())
    }
}

async fn read(files: &TlsFiles) -> Result<Material, TlsError> {
    Ok(Material {
        cert: read_file(&files.cert).await?,
        key: read_file(&files.key).await?.into(),
        client_ca: match &files.client_ca {
            Some(path) => Some(read_file(path).await?),
            None => None,
        },
    })
}

async fn read_file(path: &Path) -> Result<Vec<u8>, TlsError> {
    let bytes = tokio::fs::read(path).await;
    let bytes = bytes.map_err(|error| TlsError(format!("{} cannot be read: {error}", path.display())))?;
    if bytes.len() > FILE_MAX {
        return Err(TlsError(format!("{} has more than {FILE_MAX} bytes", path.display())));
    }
    Ok(bytes)
}

fn build(material: &Material, client_auth: ClientAuth, clock: &Arc<dyn Clock>) -> Result<Serving, TlsError> {
    let fault = |what: &str, error: &dyn fmt::Display| TlsError(format!("{what}: {error}"));
    let chain = certificates(&material.cert, "cert_file")?;
    let ends = ends(&chain, clock.now())?;
    let key = PrivateKeyDer::from_pem_slice(&material.key)
        .map_err(|error| fault("key_file holds no private key in PEM", &error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let time = Arc::new(TimeOf(Arc::clone(clock)));
    let builder = rustls::ServerConfig::builder_with_details(Arc::clone(&provider), time)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| fault("this build has no TLS", &error))?;
    let builder = match &material.client_ca {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(pem, "client_ca_file")? {
                roots.add(authority).map_err(|error| fault("client_ca_file", &error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = match client_auth {
                ClientAuth::Required => verifier,
                ClientAuth::Optional => verifier.allow_unauthenticated(),
            };
            builder
                .with_client_cert_verifier(verifier.build().map_err(|error| fault("client_ca_file", &error))?)
        }
    };
    let mut config =
        builder.with_single_cert(chain, key).map_err(|error| fault("cert_file and key_file", &error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Serving { config: Arc::new(config), ends, digest: material.digest() })
}

fn certificates(pem: &[u8], file: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(TlsError(format!("{file} holds no certificate in PEM"))),
        Err(error) => Err(TlsError(format!("{file} cannot be read as PEM: {error}"))),
    }
}

/// When the first certificate of the chain ends. One that nobody would believe is not served with.
fn ends(chain: &[CertificateDer<'_>], now: Timestamp) -> Result<Timestamp, TlsError> {
    let own = chain.first().and_then(|der| Certificate::read(der));
    let own = own.ok_or_else(|| TlsError("cert_file: the first certificate cannot be read".to_owned()))?;
    if own.not_after <= now {
        return Err(TlsError(format!("cert_file: the certificate ended at {}", own.not_after)));
    }
    Ok(own.not_after)
}

/// Cortex's clock, as rustls asks for the time.
struct TimeOf(Arc<dyn Clock>);

impl fmt::Debug for TimeOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TimeOf")
    }
}

impl TimeProvider for TimeOf {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}
