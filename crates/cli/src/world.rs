//! A whole world on loopback: a private database, sandbox clouds, a development issuer and a Cortex that
//! trusts them. What `cortex dev`, `cortex demo` and the tests run in.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cortex_core::clock::SystemClock;
use cortex_core::{Clock, IssuerName};
use cortex_devdb::{DevDb, Options};
use cortex_identity::{AirflowConfig, Claimant, ClusterConfig, IssuerConfig, Kind};
use cortex_providers::config::AwsRevocationMethod;
use cortex_sandbox::{RunClaims, Sandbox, SandboxConfig};
use cortex_server::config::RolesConfig;
use cortex_server::random::{Random, SystemRandom};
use cortex_server::store::{self, documents};
use cortex_server::{Config, Environment, Running};
use ipnet::IpNet;
use tokio::net::TcpListener;

use crate::documents::Files;
use crate::error::Error;

/// The audience of the development issuer's tokens.
pub const AUDIENCE: &str = "cortex";
/// The name under which the development issuer vouches for runs: the one that the example policies use.
pub const RUNS: &str = "prod";
/// The name under which it vouches for people.
pub const PEOPLE: &str = "staff";
/// What the console is called at the development issuer.
pub const CONSOLE: &str = "cortex-console";
/// The name under which it vouches for services.
pub const SERVICES: &str = "services";
/// The service that may claim the runs of the sandbox's Airflow.
pub const CLAIMANT: &str = "airflow-workers";
/// The service account that tasks run as in the sandbox's cluster.
pub const WORKERS: &str = "airflow/airflow-worker";

/// What to build.
pub struct Plan {
    /// Where Cortex listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Whether the database survives a power cut: slower, and what a benchmark wants.
    pub durable: bool,
    /// Policies and guardrails to apply; none for the built-in examples.
    pub policies: Option<PathBuf>,
    /// Time, for Cortex and the clouds alike.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// An existing database instead of a private one; by default `DATABASE_URL`, if it is set.
    pub database_url: Option<String>,
    /// Proxies whose X-Forwarded-For is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// What to change in the configuration before Cortex starts.
    pub adjust: Box<dyn FnOnce(&mut Config) + Send>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            durable: false,
            policies: None,
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            database_url: std::env::var("DATABASE_URL").ok(),
            trusted_proxies: Vec::new(),
            adjust: Box::new(|_| {}),
        }
    }
}

/// The running world; everything ends when it is dropped.
pub struct World {
    /// The clouds and the development issuer.
    pub sandbox: Sandbox,
    /// Cortex.
    pub cortex: Running,
    /// Where the database is, for `DATABASE_URL`.
    pub database_url: String,
    /// The configuration that Cortex was started with, for a second replica.
    pub config: Config,
    _database: Option<DevDb>,
    _folder: tempfile::TempDir,
}

impl World {
    /// Builds it.
    pub async fn start(plan: Plan) -> Result<Self, Error> {
        let (database, database_url) = if let Some(url) = plan.database_url {
            (None, url)
        } else {
            let database = DevDb::start(Options { durable: plan.durable }).await?;
            database.create_database("cortex").await?;
            let url = database.url("cortex");
            (Some(database), url)
        };
        let folder = tempfile::Builder::new().prefix("cortex-dev-").tempdir()?;
        let listener = TcpListener::bind(plan.listen).await.map_err(|e| {
            Error::Said(format!(
                "cannot listen on {}: {e}; --listen 127.0.0.1:0 takes a free port",
                plan.listen
            ))
        })?;
        let url = format!("http://{}", listener.local_addr()?);
        let sandbox = Sandbox::start(SandboxConfig::demo(url, Arc::clone(&plan.clock))).await?;
        let mut config = configure(&sandbox, &database_url, folder.path())?;
        config.server.trusted_proxies = plan.trusted_proxies;
        (plan.adjust)(&mut config);
        store::migrate(&config.database).await?;
        let environment = Environment { clock: plan.clock, random: plan.random };
        apply(&config, plan.policies.as_deref(), &environment).await?;
        let cortex = cortex_server::start(config.clone(), listener, environment).await?;
        Ok(Self { sandbox, cortex, database_url, config, _database: database, _folder: folder })
    }

    /// Drains Cortex; then everything else ends.
    pub async fn shut_down(self) {
        self.cortex.shut_down().await;
    }

    /// A run's token, as an Airflow would sign it.
    pub fn run_token(&self, claims: &RunClaims) -> Result<String, Error> {
        self.sandbox.run_token(claims).map_err(|e| Error::Said(e.to_string()))
    }

    /// A person's token.
    pub fn person_token(&self, sub: &str, groups: &[&str]) -> Result<String, Error> {
        self.sandbox.person_token(sub, groups).map_err(|e| Error::Said(e.to_string()))
    }
}

/// The configuration of a Cortex that trusts `sandbox` and mints in its clouds. Its keys and credentials are kept in
/// files in `folder`.
pub fn configure(sandbox: &Sandbox, database_url: &str, folder: &Path) -> Result<Config, Error> {
    let mut config = Config::default();
    config.database.url = Some(database_url.to_owned());
    // What a world of its own holds need not outlive it.
    config.database.require_durable = false;
    config.keys.encryption_key_file = folder.join("cortex.key");
    config.log.key_file = folder.join("cortex-log.key");
    config.log.anchor_file = folder.join("cortex-log.anchor");
    trust(&mut config, sandbox, folder)?;
    let group = |name: &str| std::iter::once(format!("{PEOPLE}/{name}")).collect();
    config.roles = RolesConfig {
        admin: group("cortex-admins"),
        approver: ["finance-admins", "privacy-officers", "cortex-admins"]
            .iter()
            .map(|g| format!("{PEOPLE}/{g}"))
            .collect(),
        auditor: group("auditors"),
    };
    config.sign_in.issuer = Some(PEOPLE.parse().map_err(|_| Error::Said(format!("{PEOPLE} is no name")))?);
    config.sign_in.client_id = Some(CONSOLE.to_owned());
    let providers = &mut config.providers;
    providers.aws.endpoint = Some(sandbox.aws_url().to_owned());
    providers.aws.revocation.method = AwsRevocationMethod::WebIdentity;
    providers.aws.revocation.endpoint = Some(sandbox.aws_url().to_owned());
    providers.aws.external_id = Some("cortex-sandbox".to_owned());
    providers.bigquery.provider =
        Some("projects/1234567890/locations/global/workloadIdentityPools/cortex/providers/cortex".to_owned());
    providers.bigquery.token_endpoint = Some(format!("{}/v1/token", sandbox.google_url()));
    providers.bigquery.revocation.enabled = true;
    providers.bigquery.revocation.endpoint = Some(sandbox.google_url().to_owned());
    providers.bigquery.iam_credentials_endpoint = Some(sandbox.google_url().to_owned());
    Ok(config)
}

/// Trusts the development issuer, and the Airflow and the cluster of the sandbox. All three vouch for the runs of
/// the same Airflow, each in its own way.
fn trust(config: &mut Config, sandbox: &Sandbox, folder: &Path) -> Result<(), Error> {
    let name = |name: &str| name.parse::<IssuerName>().map_err(|e| Error::Said(e.to_string()));
    let (password_file, token_file) = (folder.join("airflow.password"), folder.join("kubernetes.token"));
    std::fs::write(&password_file, sandbox.airflow_credentials())?;
    std::fs::write(&token_file, sandbox.kubernetes_token())?;
    config.issuers = vec![
        IssuerConfig::new(name(RUNS)?, sandbox.issuer_url(), Kind::Run, AUDIENCE),
        IssuerConfig::new(name(PEOPLE)?, sandbox.people_url(), Kind::Person, AUDIENCE),
        IssuerConfig::new(name(SERVICES)?, sandbox.services_url(), Kind::Service, AUDIENCE),
    ];
    let claimant = Claimant { issuer: name(SERVICES)?, subject: CLAIMANT.to_owned() };
    config.airflows = vec![AirflowConfig {
        password_file: Some(password_file),
        ..AirflowConfig::new(name(RUNS)?, sandbox.airflow_url(), vec![claimant])
    }];
    let iss = sandbox.kubernetes_issuer();
    let cluster = ClusterConfig::new(name(RUNS)?, iss, AUDIENCE, sandbox.kubernetes_url(), token_file);
    config.clusters = vec![ClusterConfig { service_accounts: vec![WORKERS.to_owned()], ..cluster }];
    Ok(())
}

async fn apply(
    config: &Config,
    policies: Option<&std::path::Path>,
    environment: &Environment,
) -> Result<(), Error> {
    let files = match policies {
        Some(path) => Files::read(&[path.to_owned()])?,
        None => Files::examples()?,
    };
    let pool = store::connect(&config.database).await?;
    let mut connection = pool.acquire().await?;
    let stamp = cortex_server::stamp(config, &pool, "cli".to_owned(), environment).await?;
    documents::apply(&mut connection, &files.documents(), "operator:dev", &stamp).await?;
    Ok(())
}
