//! The real things that Cortex is tested against: an `OpenID` Provider, and the clouds' own clients.
//!
//! They are programs of Node, Python and Go under `tests/counterparts`, with their packages in the user's cache; `make
//! test` installs those first, and a plain `cargo test` does it at the first use. Everything here panics when a
//! counterpart fails in a way that no test is about, because nothing can be tested then.
#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a test without its counterpart has failed, and says why"
)]

mod browser;
mod client;
mod openid_provider;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;
use tokio::time::timeout;

pub use browser::{Browser, Window};
pub use client::{
    Answer, logcheck, node, node_command, node_packages, python, python_command, python_sf4,
    python_sf4_command, siem,
};
pub use openid_provider::{Fault, OpenIdProvider};

/// How long a counterpart may take to start, on a machine that is busy with everything else.
const START_DEADLINE: Duration = Duration::from_mins(1);

/// How long an Airflow may take to start, which is four programs and a migration.
const AIRFLOW_DEADLINE: Duration = Duration::from_mins(5);

/// Where the set-up put the packages.
#[derive(Deserialize)]
struct Places {
    #[serde(rename = "CORTEX_TEST_VENV")]
    venv: PathBuf,
    #[serde(rename = "CORTEX_TEST_VENV_SF4")]
    venv_sf4: PathBuf,
    #[serde(rename = "CORTEX_AIRFLOW3_VENV")]
    airflow: PathBuf,
    #[serde(rename = "CORTEX_TEST_NODE_MODULES")]
    node_modules: PathBuf,
    #[serde(rename = "CORTEX_TEST_LOGCHECK")]
    logcheck: PathBuf,
    #[serde(rename = "CORTEX_TEST_VENV_SIEM")]
    venv_siem: PathBuf,
}

impl Places {
    /// From the environment that `make test` gives us, else from the set-up itself.
    async fn get() -> &'static Self {
        static PLACES: OnceCell<Places> = OnceCell::const_new();
        PLACES
            .get_or_init(|| async {
                match Self::from_environment() {
                    Some(places) => places,
                    None => Self::from_set_up().await,
                }
            })
            .await
    }

    fn from_environment() -> Option<Self> {
        let var = |name| std::env::var_os(name).map(PathBuf::from);
        Some(Self {
            venv: var("CORTEX_TEST_VENV")?,
            venv_sf4: var("CORTEX_TEST_VENV_SF4")?,
            airflow: var("CORTEX_AIRFLOW3_VENV")?,
            node_modules: var("CORTEX_TEST_NODE_MODULES")?,
            logcheck: var("CORTEX_TEST_LOGCHECK")?,
            venv_siem: var("CORTEX_TEST_VENV_SIEM")?,
        })
    }

    async fn from_set_up() -> Self {
        let mut command = Command::new("python3");
        command.arg(folder().join("setup.py")).stdin(Stdio::null()).stderr(Stdio::inherit());
        let output = command.output().await.expect("python3 runs the set-up of the counterparts");
        assert!(output.status.success(), "the set-up of the counterparts failed");
        serde_json::from_slice(&output.stdout).expect("the set-up answers where things are")
    }

    /// The Node that the packages bring along, else the machine's: there is none for every platform.
    fn node(&self) -> PathBuf {
        let brought = self.node_modules.join(".bin/node");
        if brought.exists() { brought } else { "node".into() }
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("counterparts")
}

/// A process that says in its first line, as JSON, where it listens. It ends when the pipe to its standard input
/// closes: when this is dropped, and also when we are killed.
struct Server {
    _process: Child,
    address: Value,
}

impl Server {
    async fn start(command: Command) -> Self {
        Self::start_within(START_DEADLINE, command).await
    }

    async fn start_within(deadline: Duration, mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().expect("the counterpart starts");
        let stdout = process.stdout.take().expect("its output is a pipe");
        let mut lines = BufReader::new(stdout).lines();
        let line = timeout(deadline, lines.next_line()).await.expect("the counterpart starts in time");
        let line = line.expect("its output is text").expect("the counterpart says where it listens");
        let address = serde_json::from_str(&line).expect("the address is JSON");
        Self { _process: process, address }
    }

    fn address(&self, name: &str) -> &str {
        self.address.get(name).and_then(Value::as_str).expect("the counterpart says where it listens")
    }
}

/// moto, which answers like AWS and checks signatures. It does not enforce session policies.
pub struct MotoServer(Server);

impl MotoServer {
    /// Starts one with nothing in it.
    pub async fn start() -> Self {
        let places = Places::get().await;
        let mut command = Command::new(places.venv.join("bin/python"));
        command.arg(folder().join("python/moto_server.py"));
        Self(Server::start(command).await)
    }

    /// The endpoint of every service.
    pub fn endpoint(&self) -> &str {
        self.0.address("endpoint")
    }
}

/// A running Airflow. It ends when this is dropped.
pub(crate) struct AirflowServer(Server);

impl AirflowServer {
    /// Where its API server is.
    pub(crate) fn base_url(&self) -> &str {
        self.0.address("base_url")
    }

    /// Everything that its scheduler has printed.
    pub(crate) fn scheduler_log(&self) -> String {
        let log = Path::new(self.0.address("home")).join("scheduler.log");
        String::from_utf8_lossy(&std::fs::read(log).expect("the scheduler's log")).into_owned()
    }
}

/// Starts an Airflow with the provider package; the arguments are those of `airflow/standalone.py`.
pub(crate) async fn airflow_server(args: &[String], environment: &[(&str, &str)]) -> AirflowServer {
    let places = Places::get().await;
    let mut command = Command::new(places.airflow.join("bin/python"));
    command.arg(folder().join("airflow/standalone.py")).args(args).envs(environment.iter().copied());
    AirflowServer(Server::start_within(AIRFLOW_DEADLINE, command).await)
}
