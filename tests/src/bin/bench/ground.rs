//! What the servers under test stand on: a private Postgres with fsync on, the issuer and a cloud on loopback.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use cortex_cli::world::{PEOPLE, configure};
use cortex_core::clock::SystemClock;
use cortex_core::jwt::SigningAlgorithm;
use cortex_devdb::{DevDb, Options};
use cortex_identity::{IssuerConfig, Kind};
use cortex_sandbox::{Sandbox, SandboxConfig};
use cortex_server::Config;
use cortex_server::config::AdmissionConfig;
use tempfile::TempDir;

use crate::policies::{self, AGAIN};
use crate::server::Server;
use crate::tell;

pub(crate) use cortex_cli::world::AUDIENCE;

/// What every server under test shares.
pub(crate) struct Ground {
    pub(crate) sandbox: Arc<Sandbox>,
    database: DevDb,
    folder: TempDir,
    /// Where the server listens that the cloud trusts.
    trusted: SocketAddr,
}

impl Ground {
    pub(crate) async fn start() -> Self {
        let database = DevDb::start(Options { durable: true }).await.expect("a private Postgres");
        let trusted = free_address();
        let sandbox = SandboxConfig::demo(format!("http://{trusted}"), Arc::new(SystemClock));
        let sandbox = Arc::new(Sandbox::start(sandbox).await.expect("the sandbox"));
        let folder = tempfile::tempdir().expect("a folder");
        Self { sandbox, database, folder, trusted }
    }

    /// The issuer of the tokens that are good for one exchange.
    pub(crate) fn single_use_iss(&self) -> String {
        self.sandbox.issuer_url().to_owned()
    }

    /// The issuer of the tokens that are good until they expire.
    pub(crate) fn multi_use_iss(&self) -> String {
        self.sandbox.people_url()
    }

    /// The database of the server `name`, as its owner.
    pub(crate) fn database_url(&self, name: &str) -> String {
        self.database.url(name)
    }

    /// A server of the name `name` with `policies` policies and a database of its own.
    pub(crate) async fn serve(&self, name: &str, policies: usize) -> Server {
        let config = self.prepare(name, policies, free_address()).await;
        Server::start(&config, self.folder.path(), name).await
    }

    /// The same where the clouds believe it, with another configuration. There is one such server at a time.
    pub(crate) async fn serve_trusted(
        &self,
        name: &str,
        policies: usize,
        adjust: impl FnOnce(&mut Config),
    ) -> Server {
        let mut config = self.prepare(name, policies, self.trusted).await;
        adjust(&mut config);
        Server::start(&config, self.folder.path(), name).await
    }

    /// A database of the name `name` with `policies` policies, and the configuration of a server on it.
    pub(crate) async fn prepare(&self, name: &str, policies: usize, listen: SocketAddr) -> Config {
        self.database.create_database(name).await.expect("a database");
        let config = self.config(name, listen);
        tell(&format!("{name}: applying {policies} policies"));
        policies::apply(&config, policies).await;
        config
    }

    /// One more server with a configuration of [`Ground::prepare`], as the replica `replica`.
    pub(crate) async fn replica(&self, config: &Config, replica: &str) -> Server {
        let mut config = config.clone();
        config.server.listen = free_address();
        config.server.replica = Some(replica.to_owned());
        config.log.anchor_file = self.folder.path().join(format!("{replica}.anchor"));
        Server::start(&config, self.folder.path(), replica).await
    }

    fn config(&self, name: &str, listen: SocketAddr) -> Config {
        let mut config =
            configure(&self.sandbox, &self.database.url(name), self.folder.path()).expect("a configuration");
        config.server.listen = listen;
        // The same for all replicas, whose clouds and whose log know it.
        config.server.public_url = Some(format!("http://{listen}"));
        config.database.require_durable = true;
        // A machine that is busy with something else spoils the numbers; it need not end the run.
        (config.database.commit_timeout_ms, config.database.acquire_timeout_ms) = (30_000, 10_000);
        config.server.request_timeout_s = 60;
        config.keys.algorithms = [SigningAlgorithm::ES256].into();
        // What one run asks here in a second is a load, not a mistake.
        config.admission = AdmissionConfig::unmetered();
        config.keys.encryption_key_file = self.folder.path().join(format!("{name}.key"));
        config.log.key_file = self.folder.path().join(format!("{name}.log-key"));
        config.log.anchor_file = self.folder.path().join(format!("{name}.anchor"));
        config.roles = cortex_server::config::RolesConfig::default();
        config.issuers.retain(|issuer| issuer.name.as_str() != PEOPLE);
        (config.sign_in.issuer, config.sign_in.client_id) = (None, None);
        let again = AGAIN.parse().expect("a name");
        let mut again = IssuerConfig::new(again, self.multi_use_iss(), Kind::Run, AUDIENCE);
        again.single_use_jti = Some(false);
        config.issuers.push(again);
        config
    }
}

pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).expect("a free port")
}
