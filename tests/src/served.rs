//! `cortex serve` as a process of its own, which a test can kill at any moment, beside clouds that live on.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use cortex_cli::world::configure;
use cortex_core::clock::SystemClock;
use cortex_sandbox::{Sandbox, SandboxConfig};
use cortex_server::Config;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use reqwest::Client;
use serde_json::{Value, json};
use sqlx::PgPool;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::world::{Answer, INSIDE, answer, database};

/// How long anything here may take, on a machine that is busy with everything else.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// The group that a process of root runs in.
const OTHER_GROUP: u32 = 65_534;

/// Clouds, a database, and the files of a Cortex that is not running yet.
pub struct Served {
    /// The clouds and the development issuer.
    pub sandbox: Sandbox,
    /// Straight to the database, as its owner.
    pub pool: PgPool,
    /// Where Cortex listens.
    pub url: String,
    program: &'static str,
    database_url: String,
    environment: Vec<(&'static str, String)>,
    folder: TempDir,
    process: Option<Child>,
    http: Client,
}

impl Served {
    /// Everything but the process. `program` is the binary; `first-steps` is the policy in force.
    pub async fn new(program: &'static str, adjust: impl FnOnce(&mut Config)) -> Self {
        Self::with_environment(program, |_| Vec::new(), adjust).await
    }

    /// The same, with this environment for every process of the program.
    pub async fn with_environment(
        program: &'static str,
        environment: impl FnOnce(&Sandbox) -> Vec<(&'static str, String)>,
        adjust: impl FnOnce(&mut Config),
    ) -> Self {
        let address = free_address();
        let url = format!("http://{address}");
        let sandbox =
            Sandbox::start(SandboxConfig::demo(url.clone(), Arc::new(SystemClock))).await.expect("clouds");
        let database_url = database().await;
        let folder = tempfile::Builder::new().prefix("cortex-served-").tempdir().expect("a folder");
        let mut config = configure(&sandbox, &database_url, folder.path()).expect("a configuration");
        config.server.listen = address;
        config.server.trusted_proxies = vec!["127.0.0.1/32".parse().expect("a network")];
        // The database comes from the environment, as in production.
        config.database.url = None;
        adjust(&mut config);
        let text = toml::to_string(&config).expect("TOML");
        std::fs::write(folder.path().join("cortex.toml"), text).expect("a file");
        let pool = PgPool::connect(&database_url).await.expect("the database");
        let http = Client::builder().no_proxy().build().expect("a client");
        let environment = environment(&sandbox);
        let served =
            Self { sandbox, pool, url, program, database_url, environment, folder, process: None, http };
        served.apply(concat!(env!("CARGO_MANIFEST_DIR"), "/../config/dev/first-steps.yaml")).await;
        served
    }

    async fn apply(&self, policy: &str) {
        let output = self.command(&["policy", "apply", policy]).output().await.expect("the program");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program);
        command
            .args(arguments)
            .env("CORTEX_CONFIG", self.folder.path().join("cortex.toml"))
            .env("DATABASE_URL", &self.database_url)
            .env("RUST_LOG", "trace")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs another command of the program, which succeeds, and reads its JSON.
    pub async fn run(&self, arguments: &[&str]) -> Value {
        let output = self.command(arguments).output().await.expect("the program");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Another environment for the processes that start from now on.
    pub fn set_environment(&mut self, environment: Vec<(&'static str, String)>) {
        self.environment = environment;
    }

    /// A file beside the configuration.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs another command of the program; answers whether it succeeded, and what it said.
    pub async fn try_run(&self, arguments: &[&str]) -> (bool, String) {
        let output = self.command(arguments).env("RUST_LOG", "off").output().await.expect("the program");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    /// Starts the process and waits until it is ready.
    pub async fn start(&mut self) {
        let log = File::options().append(true).create(true).open(self.log_path()).expect("a log");
        let mut command = self.command(&["serve"]);
        command.stdout(log.try_clone().expect("a log")).stderr(log);
        if geteuid().is_root() {
            // Whose a process is shows whether it may be looked into, and what is root's always is.
            command.gid(OTHER_GROUP);
        }
        self.process = Some(command.spawn().expect("the program"));
        let ready = format!("{}/readyz", self.url);
        let until = Instant::now() + PATIENCE;
        while !self.http.get(&ready).send().await.is_ok_and(|response| response.status().is_success()) {
            assert!(Instant::now() < until, "not ready: {}", self.log());
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The process's number.
    pub fn process_id(&self) -> u32 {
        self.process.as_ref().and_then(Child::id).expect("a process")
    }

    /// kill -9.
    pub async fn kill(&mut self) {
        let mut process = self.process.take().expect("a process");
        process.kill().await.expect("a kill");
    }

    /// The configuration file, as it is.
    pub fn configuration(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("cortex.toml")).expect("a file")
    }

    /// Another one in its place.
    pub fn configure(&self, text: &str) {
        std::fs::write(self.folder.path().join("cortex.toml"), text).expect("a file");
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        let id = self.process.as_ref().and_then(Child::id).expect("a process");
        kill(Pid::from_raw(i32::try_from(id).expect("an id")), signal).expect("a signal");
    }

    fn log_path(&self) -> impl AsRef<Path> + use<> {
        self.folder.path().join("log")
    }

    /// Everything that the process has said so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    /// A request for `targets` of `first-steps`.
    pub fn request(&self, token: &str, targets: &[&str]) -> reqwest::RequestBuilder {
        let request = self.http.post(format!("{}/v1/credentials", self.url)).bearer_auth(token);
        request.header("x-forwarded-for", INSIDE).json(&json!({"policy": "first-steps", "targets": targets}))
    }

    /// Sends one and reads the answer.
    pub async fn ask(&self, token: &str, targets: &[&str]) -> Answer {
        answer(self.request(token, targets)).await
    }

    /// Any other request.
    pub fn http(&self) -> &Client {
        &self.http
    }

    /// Waits until a query that answers one boolean answers yes.
    pub async fn until(&self, what: &str, query: &'static str) {
        let until = Instant::now() + PATIENCE;
        while !sqlx::query_scalar::<_, bool>(query).fetch_one(&self.pool).await.expect("an answer") {
            assert!(Instant::now() < until, "{what} never came: {}", self.log());
            sleep(Duration::from_millis(20)).await;
        }
    }
}

pub(crate) fn free_address() -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}
