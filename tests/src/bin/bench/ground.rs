//! What the servers under test stand on: a private Postgres with fsync on, the issuer and a cloud on loopback.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use cortex_cli::world::{PEOPLE, RUNS, configure};
use cortex_core::clock::SystemClock;
use cortex_core::jwt::SigningAlgorithm;
use cortex_core::policy::Policy;
use cortex_devdb::{DevDb, Options};
use cortex_identity::{IssuerConfig, Kind};
use cortex_providers::BuiltIns;
use cortex_sandbox::{Sandbox, SandboxConfig};
use cortex_server::config::AdmissionConfig;
use cortex_server::random::SystemRandom;
use cortex_server::store::{self, documents};
use cortex_server::{Config, Environment};
use tempfile::TempDir;

use crate::server::Server;
use crate::tell;

pub(crate) use cortex_cli::world::AUDIENCE;

/// The policy whose target is a cloud.
pub(crate) const CLOUD_POLICY: &str = "bench-cloud";
/// The policy for runs whose tokens are good for more than one exchange.
pub(crate) const AGAIN_POLICY: &str = "bench-again";
/// The policy whose token is signed with ES256.
pub(crate) const ES256_POLICY: &str = "bench-es256";
/// The name of the issuer of such tokens.
const AGAIN: &str = "again";

const GUARDRAILS: [(&str, &str); 2] = [
    ("lifetime", include_str!("../../../../config/guardrails/lifetime.cedar")),
    ("production", include_str!("../../../../config/guardrails/production.cedar")),
];

/// The name of the nth policy.
pub(crate) fn policy_name(n: usize) -> String {
    format!("bench-{n}")
}

/// What every server under test shares.
pub(crate) struct Ground {
    pub(crate) sandbox: Sandbox,
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
        let sandbox = Sandbox::start(sandbox).await.expect("the sandbox");
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

    /// A server of the name `name` with `policies` policies and a database of its own; the cloud believes the
    /// first one alone.
    pub(crate) async fn serve(&self, name: &str, policies: usize, trusted: bool) -> Server {
        let listen = if trusted { self.trusted } else { free_address() };
        let config = self.prepare(name, policies, listen).await;
        Server::start(&config, self.folder.path(), name).await
    }

    /// A database of the name `name` with `policies` policies, and the configuration of a server on it.
    async fn prepare(&self, name: &str, policies: usize, listen: SocketAddr) -> Config {
        self.database.create_database(name).await.expect("a database");
        let config = self.config(name, listen);
        tell(&format!("{name}: applying {policies} policies"));
        apply(&config, policies).await;
        config
    }

    fn config(&self, name: &str, listen: SocketAddr) -> Config {
        let mut config =
            configure(&self.sandbox, &self.database.url(name), self.folder.path()).expect("a configuration");
        config.server.listen = listen;
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

fn free_address() -> SocketAddr {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).expect("a free port")
}

async fn apply(config: &Config, policies: usize) {
    store::migrate(&config.database).await.expect("the schema");
    let texts = (0..policies).map(|n| api_policy(&policy_name(n), RUNS));
    let mut documents: Vec<_> = texts
        .chain([api_policy(AGAIN_POLICY, AGAIN), es256_policy(), cloud_policy()])
        .map(document)
        .collect();
    documents.extend(GUARDRAILS.map(|(name, text)| documents::Document {
        kind: documents::Kind::Guardrail,
        name: name.to_owned(),
        digest: cortex_core::Digest::of(text.as_bytes()),
        source: text.to_owned(),
    }));
    let pool = store::connect(&config.database).await.expect("a pool");
    let environment = Environment { clock: Arc::new(SystemClock), random: Arc::new(SystemRandom) };
    let stamp =
        cortex_server::stamp(config, &pool, "bench".to_owned(), &environment).await.expect("the log's key");
    let mut connection = pool.acquire().await.expect("a connection");
    for some in documents.chunks(1_000) {
        documents::apply(&mut connection, some, "operator:bench", &stamp).await.expect("to apply");
    }
}

fn document(text: String) -> documents::Document {
    let policy = Policy::compile(&text, &BuiltIns).expect("a policy");
    documents::Document {
        kind: documents::Kind::Policy,
        name: policy.name().to_string(),
        digest: policy.digest(),
        source: text,
    }
}

fn policy(name: &str, issuer: &str, what: &str) -> String {
    format!(
        "name: {name}
description: Publishes a mart, for the benchmark
who:
  airflow: {issuer}
  dags: [bench_dag, \"bench_mart_*\"]
  tasks: [\"publish_*\"]
  run_types: [scheduled, backfill]
what:
{what}
where:
  networks: [10.0.0.0/8, 127.0.0.0/8]
when:
  max_ttl: 30m
approval:
  required_for: {{run_types: [manual]}}
  approvers: {{groups: [finance-admins]}}
  quorum: 1
  valid_for: run
"
    )
}

fn api_policy(name: &str, issuer: &str) -> String {
    policy(name, issuer, "  api:\n    audience: https://ledger.acme.example\n    scopes: [postings:read]")
}

fn es256_policy() -> String {
    let what =
        "  api:\n    audience: https://ledger.acme.example\n    scopes: [postings:read]\n    alg: ES256";
    policy(ES256_POLICY, RUNS, what)
}

fn cloud_policy() -> String {
    let what = "  aws:
    role: arn:aws:iam::123456789012:role/finance-publish
    allow:
      - actions: [s3:PutObject]
        resources: [\"arn:aws:s3:::finance-mart/{dag_id}/{run_id}/*\"]";
    policy(CLOUD_POLICY, RUNS, what)
}
