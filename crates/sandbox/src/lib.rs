//! Clouds on loopback, for `cortex dev` and for tests: an AWS account, a Google project, a Snowflake account, a
//! development issuer, and the APIs of an Airflow and of a Kubernetes cluster that vouch for runs.
//!
//! They speak the wire protocols and check what they are shown the way the real ones do; where they are
//! stricter, or do not know, they refuse. They hold nothing that anybody would want: what they mint says
//! `sandbox`, works nowhere else, and ends with the process.
//!
//! Each listener also answers `GET /_sandbox/mints` (what was minted), `POST /_sandbox/fault` (a [`Fault`] as
//! JSON) and `DELETE /_sandbox/fault`.

mod airflow;
mod aws;
mod demo;
mod fault;
mod gate;
mod google;
mod issuer;
mod jwks;
mod kubernetes;
mod ledger;
pub mod people;
mod quota;
mod serve;
mod snowflake;
mod vault;

use std::sync::Arc;

use axum::Router;
use cortex_core::Clock;
use cortex_core::jwt::KeyError;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub use airflow::TaskInstance;
pub use aws::{AwsConfig, Role, User};
pub use fault::{Fault, FaultMode};
pub use google::{Dataset, GoogleConfig, Member, ServiceAccount, WorkloadPool};
pub use issuer::{IssuerConfig, RunClaims};
pub use kubernetes::Pod;
pub use ledger::{Cloud, Mint};
pub use snowflake::{SnowflakeConfig, SnowflakeUser};

use fault::Faults;
use gate::{Service, World, router};
use issuer::DevIssuer;
use jwks::TrustedIssuer;
use ledger::Ledger;

/// The ports to listen on, on loopback; 0 takes a free one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ports {
    /// AWS.
    pub aws: u16,
    /// Google.
    pub google: u16,
    /// Snowflake.
    pub snowflake: u16,
    /// The development issuer.
    pub issuer: u16,
    /// The REST API of an Airflow.
    pub airflow: u16,
    /// The API server of a Kubernetes cluster.
    pub kubernetes: u16,
}

/// Everything that the sandbox is told.
#[derive(Clone)]
pub struct SandboxConfig {
    /// The exact `iss` of Cortex's tokens: http on loopback. Its keys are fetched when the first token
    /// arrives, so Cortex may start later.
    pub cortex_issuer: String,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where to listen.
    pub ports: Ports,
    /// The AWS account.
    pub aws: AwsConfig,
    /// Google.
    pub google: GoogleConfig,
    /// The Snowflake account.
    pub snowflake: SnowflakeConfig,
    /// The development issuer.
    pub issuer: IssuerConfig,
}

/// Why the sandbox does not start.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Cortex is not on this machine.
    #[error("the sandbox only trusts an issuer on loopback, such as http://127.0.0.1:8080, not {0:?}")]
    NotLoopback(String),
    /// A port is taken, or there is no network.
    #[error("cannot listen on loopback: {0}")]
    Listen(#[from] std::io::Error),
    /// No HTTP client.
    #[error("cannot make an HTTP client: {0}")]
    Client(#[from] reqwest::Error),
    /// No signing key.
    #[error("cannot make a signing key: {0}")]
    Key(#[from] KeyError),
    /// A policy of a role or user is malformed.
    #[error("a policy of the AWS account is malformed: {0}")]
    Policy(String),
}

/// The running clouds; they stop when this is dropped.
pub struct Sandbox {
    aws_url: String,
    google_url: String,
    snowflake_url: String,
    airflow_url: String,
    airflow: Arc<airflow::Airflow>,
    kubernetes_url: String,
    kubernetes: Arc<kubernetes::Kubernetes>,
    issuer: Arc<DevIssuer>,
    world: World,
    _listeners: JoinSet<()>,
}

impl Sandbox {
    /// Starts the clouds, each on its own listener.
    pub async fn start(config: SandboxConfig) -> Result<Self, SandboxError> {
        if !jwks::is_loopback(&config.cortex_issuer) {
            return Err(SandboxError::NotLoopback(config.cortex_issuer));
        }
        let world = World {
            clock: Arc::clone(&config.clock),
            ledger: Arc::new(Ledger::default()),
            faults: Arc::new(Faults::default()),
            quotas: Arc::default(),
        };
        let cortex = Arc::new(TrustedIssuer::new(config.cortex_issuer, config.clock)?);
        let aws = aws::Aws::new(config.aws, Arc::clone(&cortex), world.clone());
        let aws = aws.map_err(|malformed| SandboxError::Policy(malformed.to_string()))?;
        let google = google::Google::new(config.google, Arc::clone(&cortex), world.clone());
        let snowflake = snowflake::Snowflake::new(config.snowflake, cortex, world.clone());

        let mut listeners = Listeners { world: world.clone(), tasks: JoinSet::new() };
        let aws_url = listeners.open(config.ports.aws, Arc::new(aws)).await?;
        let google_url = listeners.open(config.ports.google, Arc::new(google)).await?;
        let snowflake_url = listeners.open(config.ports.snowflake, Arc::new(snowflake)).await?;
        let airflow = Arc::new(airflow::Airflow::new());
        let airflow_url = listeners.open(config.ports.airflow, Arc::clone(&airflow)).await?;
        let kubernetes = Arc::new(kubernetes::Kubernetes::new(world.clone())?);
        let kubernetes_url = listeners.open(config.ports.kubernetes, Arc::clone(&kubernetes)).await?;
        // The issuer has to know its port before it can say its own name.
        let (listener, issuer_address) = serve::bind(config.ports.issuer).await?;
        let issuer = DevIssuer::new(format!("http://{issuer_address}"), config.issuer, world.clone())?;
        let issuer = Arc::new(issuer);
        listeners.serve(listener, router(Arc::clone(&issuer), world.clone()));
        Ok(Self {
            aws_url,
            google_url,
            snowflake_url,
            airflow_url,
            airflow,
            kubernetes_url,
            kubernetes,
            issuer,
            world,
            _listeners: listeners.tasks,
        })
    }

    /// The endpoint of STS, IAM, KMS and S3 (path style).
    pub fn aws_url(&self) -> &str {
        &self.aws_url
    }

    /// The endpoint of the token service (`/v1/token`), IAM credentials, Cloud KMS, the metadata server and `BigQuery`.
    pub fn google_url(&self) -> &str {
        &self.google_url
    }

    /// The endpoint that Snowflake's connectors and the SQL API take.
    pub fn snowflake_url(&self) -> &str {
        &self.snowflake_url
    }

    /// The `iss` of the development issuer's tokens for runs.
    pub fn issuer_url(&self) -> &str {
        self.issuer.url()
    }

    /// The `iss` of the development issuer's tokens for people: Cortex trusts an `iss` for one kind only.
    pub fn people_url(&self) -> String {
        self.issuer.people_url()
    }

    /// The `iss` of the development issuer's tokens for services.
    pub fn services_url(&self) -> String {
        self.issuer.services_url()
    }

    /// Where the Airflow is, without `/api`.
    pub fn airflow_url(&self) -> &str {
        &self.airflow_url
    }

    /// What opens the Airflow's API: `user:password`.
    pub fn airflow_credentials(&self) -> String {
        self.airflow.credentials()
    }

    /// Puts a task instance into the Airflow's database, in the place of an earlier state of it.
    pub fn put_task(&self, instance: TaskInstance) {
        self.airflow.put(instance);
    }

    /// Ends every token that the Airflow gave for a password so far.
    pub fn end_airflow_logins(&self) {
        self.airflow.end_logins();
    }

    /// Where the cluster's API server is.
    pub fn kubernetes_url(&self) -> &str {
        &self.kubernetes_url
    }

    /// The `iss` of the cluster's service accounts.
    pub fn kubernetes_issuer(&self) -> &'static str {
        kubernetes::ISSUER
    }

    /// The bearer token that may ask the cluster for reviews and pods.
    pub fn kubernetes_token(&self) -> &str {
        self.kubernetes.token()
    }

    /// Starts a pod, or changes the one of its uid.
    pub fn start_pod(&self, pod: Pod) {
        self.kubernetes.start(pod);
    }

    /// Removes a pod.
    pub fn end_pod(&self, uid: &str) {
        self.kubernetes.end(uid);
    }

    /// A projected token of `pod`, for `ttl_s` seconds.
    pub fn pod_token(&self, pod: &Pod, audience: &str, ttl_s: i64) -> Result<String, KeyError> {
        self.kubernetes.pod_token(pod, audience, ttl_s)
    }

    /// A token with exactly these claims, signed by the cluster: for near misses.
    pub fn forge_pod_token(&self, claims: &serde_json::Value) -> Result<String, KeyError> {
        self.kubernetes.sign(claims)
    }

    /// A service's token.
    pub fn service_token(&self, sub: &str) -> Result<String, KeyError> {
        self.issuer.service_token(sub)
    }

    /// A run's token, as an Airflow would sign it.
    pub fn run_token(&self, run: &RunClaims) -> Result<String, KeyError> {
        self.issuer.run_token(run)
    }

    /// A person's token.
    pub fn person_token(&self, sub: &str, groups: &[&str]) -> Result<String, KeyError> {
        self.issuer.person_token(sub, groups)
    }

    /// A token with exactly these claims, signed by the development issuer: for near misses.
    pub fn forge(&self, claims: &serde_json::Value) -> Result<String, KeyError> {
        self.issuer.sign(claims)
    }

    /// Lets the development issuer sign with a new key; `keep_old`: the earlier keys stay published.
    pub fn rotate_issuer_key(&self, keep_old: bool) -> Result<(), KeyError> {
        self.issuer.rotate(keep_old)
    }

    /// What the clouds minted so far, in order, also when the answer was lost.
    pub fn mints(&self) -> Vec<Mint> {
        self.world.ledger.all()
    }

    /// Makes `cloud` fail.
    pub fn fault(&self, cloud: Cloud, fault: Fault) {
        self.world.faults.arm(cloud, fault);
    }

    /// Lets `cloud` make so many credentials in any second, and refuse more as it does when it is called too often.
    pub fn set_quota(&self, cloud: Cloud, per_second: usize) {
        self.world.quotas.set(cloud, per_second);
    }

    /// How many calls `cloud` refused because they exceeded its quota.
    pub fn beyond_quota(&self, cloud: Cloud) -> u64 {
        self.world.quotas.refused(cloud)
    }

    /// Makes every cloud work again.
    pub fn clear_faults(&self) {
        self.world.faults.clear(None);
    }
}

struct Listeners {
    world: World,
    tasks: JoinSet<()>,
}

impl Listeners {
    async fn open<S: Service>(&mut self, port: u16, service: Arc<S>) -> std::io::Result<String> {
        let (listener, address) = serve::bind(port).await?;
        self.serve(listener, router(service, self.world.clone()));
        Ok(format!("http://{address}"))
    }

    fn serve(&mut self, listener: TcpListener, router: Router) {
        self.tasks.spawn(serve::serve(listener, router, Arc::clone(&self.world.ledger)));
    }
}
