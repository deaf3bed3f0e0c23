//! TLS and client certificates, with real clients; files that change while connections live.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cortex_core::clock::SystemClock;
use cortex_server::config::{ClientAuth, ServerConfig};
use cortex_server::random::SystemRandom;
use cortex_server::{Environment, StartError};
use cortex_tests::pki::{Authority, Certified};
use cortex_tests::world::{AheadClock, INSIDE, TestWorld, answer, first_run};
use reqwest::{Client, ClientBuilder, StatusCode, Version};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use super::{until, until_closed};

/// A Cortex that ends TLS itself, and its files.
struct Secured {
    world: TestWorld<AheadClock>,
    folder: TempDir,
}

fn use_files(server: &mut ServerConfig, folder: &Path) {
    let tls = &mut server.tls;
    (tls.cert_file, tls.key_file) = (Some(folder.join("tls.crt")), Some(folder.join("tls.key")));
    tls.watch_ms = 50;
}

impl Secured {
    async fn start(certified: &Certified, clients: Option<(&Authority, ClientAuth)>) -> Self {
        let folder = TempDir::new().unwrap();
        certified.write(folder.path());
        let path = folder.path().to_owned();
        let client_auth = clients.map(|(authority, client_auth)| {
            std::fs::write(folder.path().join("clients.crt"), authority.pem()).unwrap();
            client_auth
        });
        let world = TestWorld::start_live(move |config| {
            use_files(&mut config.server, &path);
            if let Some(client_auth) = client_auth {
                config.server.tls.client_ca_file = Some(path.join("clients.crt"));
                config.server.tls.client_auth = client_auth;
            }
        })
        .await;
        Self { world, folder }
    }

    async fn ready(&self, client: &Client) -> Value {
        answer(client.get(self.world.url("/readyz"))).await.body
    }
}

fn trusting(authority: &Authority) -> ClientBuilder {
    Client::builder().no_proxy().tls_certs_only([authority.root()])
}

#[tokio::test]
async fn credentials_are_handed_out_over_tls() {
    let authority = Authority::new("servers");
    let secured = Secured::start(&authority.server(2099), None).await;
    let client = trusting(&authority).build().unwrap();
    let token = secured.world.token(&first_run("r"));
    let ask = client.post(secured.world.url("/v1/credentials")).bearer_auth(token);
    let body = json!({"policy": "first-steps", "targets": ["api"]});
    let found = answer(ask.header("x-forwarded-for", INSIDE).json(&body)).await;
    assert_eq!(found.status, StatusCode::OK, "{found:?}");
    let health = client.get(secured.world.url("/healthz")).send().await.unwrap();
    assert_eq!(health.version(), Version::HTTP_2, "it is agreed on in the handshake");
    let older = trusting(&authority).http1_only().tls_version_max(reqwest::tls::Version::TLS_1_2).build();
    let health = older.unwrap().get(secured.world.url("/healthz")).send().await.unwrap();
    assert_eq!((health.status(), health.version()), (StatusCode::OK, Version::HTTP_11));
    let stranger = trusting(&Authority::new("others")).build().unwrap();
    assert!(stranger.get(secured.world.url("/healthz")).send().await.is_err());
}

#[tokio::test]
async fn older_versions_and_plain_http_are_refused() {
    let secured = Secured::start(&Authority::new("servers").server(2099), None).await;
    let address = secured.world.world.cortex.address;
    // A ClientHello of TLS 1.1 with TLS_RSA_WITH_AES_128_CBC_SHA.
    let hello = [&[3, 2][..], &[7; 32], &[0], &[0, 2, 0, 0x2f], &[1, 0]].concat();
    let length = u8::try_from(hello.len()).unwrap();
    let record = [&[0x16, 3, 1, 0, length + 4, 1, 0, 0, length][..], &hello].concat();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&record).await.unwrap();
    let found = until_closed(&mut stream).await;
    assert!(
        matches!(found[..], [0x15, 3, _, 0, 2, 2, 40 | 70]),
        "a fatal alert about the version: {found:?}"
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(!String::from_utf8_lossy(&until_closed(&mut stream).await).contains("200 OK"));
}

#[tokio::test]
async fn a_handshake_that_does_not_come_ends_its_connection() {
    let authority = Authority::new("servers");
    let folder = TempDir::new().unwrap();
    authority.server(2099).write(folder.path());
    let path = folder.path().to_owned();
    let world = TestWorld::start_live(move |config| {
        use_files(&mut config.server, &path);
        config.server.tls.handshake_timeout_s = 1;
    })
    .await;
    let mut stream = TcpStream::connect(world.world.cortex.address).await.unwrap();
    assert_eq!(until_closed(&mut stream).await, b"");
}

#[tokio::test]
async fn a_client_without_a_good_certificate_does_not_get_in() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    for (client_auth, without) in [(ClientAuth::Required, false), (ClientAuth::Optional, true)] {
        let secured = Secured::start(&servers.server(2099), Some((&clients, client_auth))).await;
        let shown = |certified: &Certified| Some(certified.identity());
        for (what, identity, gets_in) in [
            ("a good one", shown(&clients.client("worker-1", 2099)), true),
            ("none", None, without),
            ("another authority's", shown(&Authority::new("clients").client("worker-1", 2099)), false),
            ("one that has ended", shown(&clients.client("worker-1", 2021)), false),
            ("a server's", shown(&clients.server(2099)), false),
        ] {
            let client = trusting(&servers);
            let client = match identity {
                Some(identity) => client.identity(identity),
                None => client,
            };
            let health = client.build().unwrap().get(secured.world.url("/healthz")).send().await;
            assert_eq!(health.is_ok(), gets_in, "{client_auth:?} with {what}: {health:?}");
        }
    }
}

#[tokio::test]
async fn new_files_are_taken_over_and_no_request_fails() {
    let authority = Authority::new("servers");
    let secured = Arc::new(Secured::start(&authority.server(2098), None).await);
    let (done, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let client = trusting(&authority).pool_max_idle_per_host(0).build().unwrap();
    let load = (0..8).map(|_| {
        let (client, url) = (client.clone(), secured.world.url("/healthz"));
        let (done, served) = (Arc::clone(&done), Arc::clone(&served));
        tokio::spawn(async move {
            while !done.load(Ordering::Relaxed) {
                assert_eq!(client.get(&url).send().await.unwrap().status(), StatusCode::OK);
                served.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let load: Vec<_> = load.collect();
    for until_year in [2097, 2096, 2095] {
        let next = authority.server(until_year);
        next.write(secured.folder.path());
        let der = reqwest_der(&next);
        until("the new certificate", || async { shown_certificate(&secured, &authority).await == der }).await;
    }
    done.store(true, Ordering::Relaxed);
    for worker in load {
        worker.await.expect("no request failed");
    }
    assert!(served.load(Ordering::Relaxed) > 8, "there was load");
}

/// The certificate's bytes.
fn reqwest_der(certified: &Certified) -> Vec<u8> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    CertificateDer::from_pem_slice(certified.certificate.as_bytes()).unwrap().to_vec()
}

/// The certificate that the server shows to a new connection.
async fn shown_certificate(secured: &Secured, authority: &Authority) -> Vec<u8> {
    let client = trusting(authority).tls_info(true).pool_max_idle_per_host(0).build().unwrap();
    let answer = client.get(secured.world.url("/healthz")).send().await.unwrap();
    let info = answer.extensions().get::<reqwest::tls::TlsInfo>().expect("TLS");
    info.peer_certificate().expect("a certificate").to_vec()
}

#[tokio::test]
async fn files_that_cannot_be_used_are_said_and_change_nothing() {
    let authority = Authority::new("servers");
    let good = authority.server(2099);
    let secured = Secured::start(&good, None).await;
    let client = trusting(&authority).pool_max_idle_per_host(0).build().unwrap();
    let warned = |text: &'static str| {
        let (client, secured) = (client.clone(), &secured);
        async move { secured.ready(&client).await["warnings"].to_string().contains(text) }
    };
    assert_eq!(secured.ready(&client).await["warnings"], json!([]));
    let garbage =
        |certificate: &str, key: &str| Certified { certificate: certificate.into(), key: key.into() };
    for (files, said) in [
        (garbage("not PEM", &good.key), "holds no certificate"),
        (garbage(&good.certificate, "not PEM"), "private key"),
        (garbage(&good.certificate, &authority.server(2099).key), "cert_file and key_file"),
        (authority.server(2021), "ended at 2021-12-31"),
    ] {
        files.write(secured.folder.path());
        until(said, || warned(said)).await;
        assert_eq!(shown_certificate(&secured, &authority).await, reqwest_der(&good), "{said}");
        assert_eq!(secured.ready(&client).await["ready"], true, "{said}");
    }
    std::fs::remove_file(secured.folder.path().join("tls.key")).unwrap();
    until("the missing file", || warned("cannot be read")).await;
    good.write(secured.folder.path());
    until("no warning", || async { secured.ready(&client).await["warnings"] == json!([]) }).await;
}

#[tokio::test]
async fn a_replica_does_not_start_with_files_that_cannot_be_used() {
    let world = TestWorld::start().await;
    let authority = Authority::new("servers");
    let folder = TempDir::new().unwrap();
    let garbage = Certified { certificate: "x".into(), key: "y".into() };
    for (files, said) in [(garbage, "holds no certificate"), (authority.server(2021), "ended at")] {
        files.write(folder.path());
        let mut config = world.world.config.clone();
        use_files(&mut config.server, folder.path());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let environment = Environment { clock: Arc::new(SystemClock), random: Arc::new(SystemRandom) };
        let started = cortex_server::start(config, listener, environment).await;
        let error = started.err().expect("it does not start");
        assert!(matches!(error, StartError::Tls(_)) && error.to_string().contains(said), "{error}");
    }
}
