//! One world for each test: its own database (cloned from a migrated template on one private server), its own
//! sandbox clouds, its own Cortex, and one clock for all of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use cortex_cli::world::{Plan, World};
use cortex_core::Clock;
use cortex_core::clock::{ManualClock, SystemClock};
use cortex_devdb::{DevDb, Options};
use cortex_sandbox::{Pod, RunClaims};
use cortex_server::config::DatabaseConfig;
use cortex_server::store::personal::open_leaves;
use cortex_server::{Config, store};
use jiff::{SignedDuration, Timestamp};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::sync::OnceCell;
use uuid::Uuid;

/// Monday, 03:00 in Paris: when the example policies are open.
pub const OPEN: &str = "2026-11-23T02:00:00Z";
/// An address in the example policies' networks.
pub const INSIDE: &str = "10.1.2.3";

static SERVER: OnceCell<DevDb> = OnceCell::const_new();

/// A new, migrated, empty database.
pub async fn database() -> String {
    let server = SERVER
        .get_or_init(|| async {
            let server = DevDb::start(Options::default()).await.expect("a private Postgres");
            server.create_database("template").await.expect("the template");
            let config = DatabaseConfig { url: Some(server.url("template")), ..DatabaseConfig::default() };
            store::migrate(&config).await.expect("the schema");
            server
        })
        .await;
    let name = format!("t{}", Uuid::from_u128(rand::random()).simple());
    server.create_database_from_template(&name, "template").await.expect("a database");
    server.url(&name)
}

/// The machine's clock, a little ahead when a test says so: for clients that read the machine's clock themselves.
#[derive(Clone)]
pub struct AheadClock(ManualClock);

impl AheadClock {
    /// Moves it further ahead by `by`, or back where that is negative; clones move along.
    pub fn advance(&self, by: SignedDuration) {
        self.0.advance(by);
    }
}

impl Default for AheadClock {
    fn default() -> Self {
        Self(ManualClock::new(Timestamp::UNIX_EPOCH))
    }
}

impl Clock for AheadClock {
    fn now(&self) -> Timestamp {
        let ahead = self.0.now().duration_since(Timestamp::UNIX_EPOCH);
        SystemClock.now().saturating_add(ahead).unwrap_or(Timestamp::MAX)
    }
}

/// A test's world.
pub struct TestWorld<C = ManualClock> {
    /// Clouds, issuer and Cortex.
    pub world: World,
    /// The clock of all of them.
    pub clock: C,
    /// A client with no habits.
    pub http: Client,
}

/// A parsed answer.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers.
    pub headers: reqwest::header::HeaderMap,
    /// The body, as JSON where it is.
    pub body: Value,
}

impl TestWorld {
    /// The example policies at [`OPEN`], behind a proxy on loopback that says where callers come from.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// The same with another configuration.
    pub async fn start_with(adjust: impl FnOnce(&mut Config) + Send + 'static) -> Self {
        Self::start_on(database().await, adjust).await
    }

    /// The same on a database that is there already.
    pub async fn start_on(database_url: String, adjust: impl FnOnce(&mut Config) + Send + 'static) -> Self {
        let clock = ManualClock::new(OPEN.parse().expect("a time"));
        Self::build(clock, database_url, adjust).await
    }
}

impl TestWorld<AheadClock> {
    /// The example policies at the machine's time, for clients that nobody here wrote. Only `first-steps` is open
    /// at every hour.
    pub async fn start_live(adjust: impl FnOnce(&mut Config) + Send + 'static) -> Self {
        Self::start_live_at(AheadClock::default(), adjust).await
    }

    /// The same on a database that is there already.
    pub async fn start_live_on(database_url: String) -> Self {
        Self::build(AheadClock::default(), database_url, |_| {}).await
    }

    /// The same by a clock that is ahead of the machine's already, or behind it.
    pub async fn start_live_at(clock: AheadClock, adjust: impl FnOnce(&mut Config) + Send + 'static) -> Self {
        Self::build(clock, database().await, adjust).await
    }
}

impl<C: Clock + Clone> TestWorld<C> {
    async fn build(
        clock: C,
        database_url: String,
        adjust: impl FnOnce(&mut Config) + Send + 'static,
    ) -> Self {
        let plan = Plan {
            clock: Arc::new(clock.clone()) as Arc<dyn Clock>,
            database_url: Some(database_url),
            adjust: Box::new(|config: &mut Config| {
                // A test's time is its own.
                config.database.max_clock_skew_s = 0;
                adjust(config);
            }),
            trusted_proxies: vec!["127.0.0.1/32".parse().expect("a network")],
            ..Plan::default()
        };
        // Boxed, so that a test's own future stays small.
        let world = Box::pin(World::start(plan)).await.expect("the world");
        let http = Client::builder().no_proxy().build().expect("a client");
        Self { world, clock, http }
    }

    /// Where Cortex is.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.world.cortex.issuer_url)
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A run's token.
    pub fn token(&self, run: &RunClaims) -> String {
        self.world.run_token(run).expect("a token")
    }

    /// A person's token.
    pub fn person(&self, sub: &str, groups: &[&str]) -> String {
        self.world.person_token(sub, groups).expect("a token")
    }

    /// `POST /v1/credentials` with a token, from inside the policies' networks.
    pub async fn ask(&self, token: &str, body: Value) -> Answer {
        let request = self.http.post(self.url("/v1/credentials")).bearer_auth(token);
        answer(request.header("x-forwarded-for", INSIDE).json(&body)).await
    }

    /// `POST /v1/credentials` of a fresh token of `run` for all of a policy's targets.
    pub async fn ask_for(&self, run: &RunClaims, policy: &str) -> Answer {
        self.ask(&self.token(run), json!({"policy": policy})).await
    }

    /// `POST /v1/token` with a form.
    pub async fn exchange(&self, form: &[(&str, &str)]) -> Answer {
        answer(self.http.post(self.url("/v1/token")).header("x-forwarded-for", INSIDE).form(form)).await
    }

    /// The usual form of an exchange.
    pub async fn exchange_token(&self, token: &str, audience: &str) -> Answer {
        self.exchange(&[
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("subject_token", token),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
            ("audience", audience),
        ])
        .await
    }

    /// A request of a person.
    pub async fn as_person(&self, method: Method, path: &str, token: &str, body: Option<Value>) -> Answer {
        let mut request = self.http.request(method, self.url(path)).bearer_auth(token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        answer(request).await
    }

    /// The record as readers are shown it: every entry of these kinds, oldest first.
    pub async fn record(&self, kinds: &[&str]) -> Vec<Value> {
        let leaves: Vec<Vec<u8>> =
            sqlx::query_scalar("SELECT leaf FROM record WHERE kind = ANY($1) ORDER BY id")
                .bind(kinds.iter().map(ToString::to_string).collect::<Vec<_>>())
                .fetch_all(self.pool())
                .await
                .expect("the record");
        let leaves = leaves.iter().map(Vec::as_slice);
        let shown = open_leaves(self.pool(), leaves).await.expect("the names");
        shown.iter().map(|leaf| serde_json::from_slice(leaf).expect("JSON")).collect()
    }

    /// Cortex's own pool, in its own role.
    pub fn pool(&self) -> &PgPool {
        &self.world.cortex.broker.pool
    }

    /// The leases that the clouds have made credentials for, as they count them: issuance ids.
    pub fn minted_leases(&self) -> BTreeSet<String> {
        self.world.sandbox.mints().into_iter().filter_map(|mint| mint.lease).collect()
    }
}

/// Sends a request and reads the answer.
pub async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.expect("an answer");
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await.expect("a body");
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Answer { status, headers, body }
}

/// The scheduled run that `finance-data-publish` names.
pub fn finance_run(run_id: &str) -> RunClaims {
    RunClaims::scheduled("finance_publish", run_id, "publish_mart")
}

/// The scheduled run that `first-steps` names: four targets.
pub fn first_run(run_id: &str) -> RunClaims {
    RunClaims::scheduled("hello_cortex", run_id, "publish_mart")
}

/// The pod in which the executor runs a try, as it annotates it.
pub fn pod(uid: &str) -> Pod {
    let annotations = [
        ("dag_id", "hello_cortex"),
        ("run_id", "scheduled__2026-11-23T00:00:00+00:00"),
        ("task_id", "publish_mart"),
        ("try_number", "2"),
    ];
    Pod {
        namespace: "airflow".into(),
        name: "hello-cortex-publish-mart-x1".into(),
        uid: uid.into(),
        service_account: "airflow-worker".into(),
        phase: "Running".into(),
        deleting: false,
        annotations: annotations.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
    }
}
