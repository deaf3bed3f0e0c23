//! Several `cortex serve` on one Postgres, each behind a network of its own, to be killed, stopped and cut off.

use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use cortex_cli::world::configure;
use cortex_core::clock::SystemClock;
use cortex_sandbox::{Sandbox, SandboxConfig};
use cortex_server::Config;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Client;
use serde_json::{Value, json};
use sqlx::PgPool;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Duration, Instant, sleep};

use crate::pg_proxy::PgProxy;
use crate::served::{PATIENCE, free_address};
use crate::world::{INSIDE, database};

/// How long a caller waits for an answer.
const CALLER: Duration = Duration::from_secs(5);

/// One of them.
struct Replica {
    name: String,
    url: String,
    proxy: PgProxy,
    process: Option<Child>,
}

/// The replicas, their database and their clouds.
pub struct Cluster {
    /// The clouds and the development issuer.
    pub sandbox: Arc<Sandbox>,
    /// Straight to the database, as its owner.
    pub pool: PgPool,
    program: &'static str,
    database_url: String,
    folder: TempDir,
    replicas: Vec<Replica>,
    http: Client,
    /// The library that shows a process another time of day.
    faketime: Option<PathBuf>,
}

/// What can be done to a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// kill -9; healing starts it again.
    Kill,
    /// SIGSTOP; healing continues it.
    Stop,
    /// Its connections to the database are cut, and no new one is made.
    Cut,
    /// Its connections to the database stay, and carry nothing.
    Stall,
    /// Its clock is wrong by so many seconds. Only where the cluster has [`Cluster::movable_clocks`].
    Misdate(i32),
}

impl Cluster {
    /// Starts `count` replicas of `program` with `first-steps` in force.
    pub async fn start(program: &'static str, count: usize) -> Self {
        Self::start_on(program, count, database().await).await
    }

    /// The same on a database that is there already.
    pub async fn start_on(program: &'static str, count: usize, database_url: String) -> Self {
        Self::start_with(program, count, database_url, |_| {}).await
    }

    /// The same with another configuration.
    pub async fn start_with(
        program: &'static str,
        count: usize,
        database_url: String,
        adjust: impl Fn(&mut Config),
    ) -> Self {
        let folder = tempfile::Builder::new().prefix("cortex-cluster-").tempdir().expect("a folder");
        let public = free_address();
        let public_url = format!("http://{public}");
        let sandbox = Sandbox::start(SandboxConfig::demo(public_url.clone(), Arc::new(SystemClock)))
            .await
            .expect("clouds");
        let sandbox = Arc::new(sandbox);
        let mut replicas = Vec::new();
        for n in 0..count {
            let name = format!("replica{n}");
            let mut config = configure(&sandbox, &database_url, folder.path()).expect("a configuration");
            config.server.listen = if n == 0 { public } else { free_address() };
            config.server.public_url = Some(public_url.clone());
            config.server.replica = Some(name.clone());
            config.server.trusted_proxies = vec!["127.0.0.1/32".parse().expect("a network")];
            config.log.anchor_file = folder.path().join(format!("{name}.anchor"));
            config.database.url = None;
            config.database.commit_timeout_ms = 1_000;
            // So short that a replica that is stopped comes too late.
            config.database.intent_deadline_s = 3;
            adjust(&mut config);
            let url = format!("http://{}", config.server.listen);
            let text = toml::to_string(&config).expect("TOML");
            std::fs::write(folder.path().join(format!("{name}.toml")), text).expect("a file");
            replicas.push(Replica { name, url, proxy: PgProxy::start(&database_url), process: None });
        }
        let pool = PgPool::connect(&database_url).await.expect("the database");
        let http = Client::builder().no_proxy().timeout(CALLER).build().expect("a client");
        let mut cluster =
            Self { sandbox, pool, program, database_url, folder, replicas, http, faketime: None };
        let policy = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/dev/first-steps.yaml");
        cluster.run(&["policy", "apply", policy]).await;
        for n in 0..count {
            cluster.spawn(n);
            cluster.ready(n).await;
        }
        cluster
    }

    /// Starts every replica again, with a clock that can be moved while it runs.
    pub async fn movable_clocks(&mut self) {
        let found = concat!(env!("CARGO_MANIFEST_DIR"), "/../.ci/faketime");
        let found = Command::new(found).stderr(Stdio::inherit()).output().await.expect("libfaketime");
        let path = String::from_utf8(found.stdout).expect("a path");
        assert!(found.status.success() && !path.trim().is_empty(), "there is no libfaketime");
        self.faketime = Some(path.trim().into());
        for n in 0..self.len() {
            self.replace(n).await;
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.replicas.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.replicas.is_empty()
    }

    fn command(&self, n: usize, database_url: &str, arguments: &[&str]) -> Command {
        let config = self.folder.path().join(format!("{}.toml", self.replicas[n].name));
        let mut command = Command::new(self.program);
        command
            .args(arguments)
            .env("CORTEX_CONFIG", config)
            .env("DATABASE_URL", database_url)
            .env("RUST_LOG", "info")
            .stdin(Stdio::null());
        command
    }

    /// Runs another command of the program, straight at the database, and answers what it prints.
    pub async fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(0, &self.database_url, arguments).output().await.expect("the program");
        let (out, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {out} {said}");
        out.into_owned()
    }

    /// Runs a command of the program that has to fail, and answers what it says about that.
    pub async fn fails(&self, arguments: &[&str]) -> String {
        let output = self.command(0, &self.database_url, arguments).output().await.expect("the program");
        assert!(!output.status.success(), "{arguments:?} succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Puts a file beside the configurations, and answers its path.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.to_str().expect("a path of text").to_owned()
    }

    fn spawn(&mut self, n: usize) {
        let replica = &self.replicas[n];
        let path = self.folder.path().join(format!("{}.log", replica.name));
        let log = File::options().append(true).create(true).open(path).expect("a log");
        let mut command = self.command(n, &replica.proxy.url, &["serve"]);
        if let Some(library) = &self.faketime {
            // What is waited for goes on as it is: only the time of day is wrong. It is read anew each second.
            command.env("LD_PRELOAD", library).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
            command.env("FAKETIME_CACHE_DURATION", "1").env("FAKETIME_TIMESTAMP_FILE", self.date(n, 0));
        }
        command.stdout(log.try_clone().expect("a log")).stderr(log).kill_on_drop(true);
        self.replicas[n].process = Some(command.spawn().expect("the program"));
    }

    /// Asks a replica to end, waits until it has, and starts it again.
    pub async fn replace(&mut self, n: usize) {
        self.signal(n, Signal::SIGTERM);
        let mut process = self.replicas[n].process.take().expect("a process");
        let ended = tokio::time::timeout(PATIENCE, process.wait()).await.expect("it ends");
        assert!(ended.expect("its end").success(), "{}", self.log(n));
        self.spawn(n);
        self.ready(n).await;
    }

    /// Waits until a replica says that it is ready; one that has given up is started again.
    pub async fn ready(&mut self, n: usize) {
        let ready = format!("{}/readyz", self.replicas[n].url);
        let until = Instant::now() + PATIENCE;
        while !self.http.get(&ready).send().await.is_ok_and(|response| response.status().is_success()) {
            assert!(Instant::now() < until, "not ready: {}", self.log(n));
            let ended =
                self.replicas[n].process.as_mut().and_then(|process| process.try_wait().ok().flatten());
            if ended.is_some() {
                self.spawn(n);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Everything that a replica has said.
    pub fn log(&self, n: usize) -> String {
        let path = self.folder.path().join(format!("{}.log", self.replicas[n].name));
        String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
    }

    fn signal(&self, n: usize, signal: Signal) {
        let process = self.replicas[n].process.as_ref().and_then(Child::id).expect("a process");
        kill(Pid::from_raw(i32::try_from(process).expect("a process id")), signal).expect("a signal");
    }

    /// Sets a replica's clock so many seconds off, and answers the file that says so.
    fn date(&self, n: usize, seconds: i32) -> String {
        self.file(&format!("{}.date", self.replicas[n].name), &format!("{seconds:+}s\n"))
    }

    /// Does `harm` to a replica.
    pub async fn harm(&mut self, n: usize, harm: Harm) {
        match harm {
            Harm::Kill => {
                let mut process = self.replicas[n].process.take().expect("a process");
                process.kill().await.expect("a kill");
            }
            Harm::Stop => self.signal(n, Signal::SIGSTOP),
            Harm::Cut => self.replicas[n].proxy.down(),
            Harm::Stall => self.replicas[n].proxy.stall(),
            Harm::Misdate(seconds) => {
                assert!(self.faketime.is_some(), "clocks cannot be moved here");
                self.date(n, seconds);
                let until = Instant::now() + PATIENCE;
                while self.caller(n).is_ready().await {
                    assert!(Instant::now() < until, "its clock is wrong and it does not know");
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// Undoes it.
    pub fn heal(&mut self, n: usize, harm: Harm) {
        match harm {
            Harm::Kill => self.spawn(n),
            Harm::Stop => self.signal(n, Signal::SIGCONT),
            Harm::Cut | Harm::Stall => self.replicas[n].proxy.up(),
            Harm::Misdate(_) => drop(self.date(n, 0)),
        }
    }

    /// The database is at `url` from now on, for everybody.
    pub async fn move_to(&mut self, url: &str) {
        url.clone_into(&mut self.database_url);
        let moved = PgPool::connect(url).await.expect("the database");
        // Whoever still asks the other one is told at once.
        std::mem::replace(&mut self.pool, moved).close().await;
        for replica in &self.replicas {
            replica.proxy.point_at(url);
        }
    }

    /// Postgres says of each new record that its disk is full, or no longer.
    pub async fn disk_full(&self, full: bool) {
        let statement = if full {
            "CREATE FUNCTION disk_full() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$;
             CREATE TRIGGER disk_full BEFORE INSERT ON record EXECUTE FUNCTION disk_full()"
        } else {
            "DROP FUNCTION disk_full CASCADE"
        };
        sqlx::raw_sql(statement).execute(&self.pool).await.expect("a trigger");
    }

    /// Whoever asks replica `n` for targets of `first-steps`, without this cluster.
    pub fn caller(&self, n: usize) -> Caller {
        Caller { url: self.replicas[n].url.clone(), http: self.http.clone() }
    }

    /// Waits until a query that answers one boolean answers yes.
    pub async fn until(&self, what: &str, query: &'static str) {
        let until = Instant::now() + PATIENCE;
        while !sqlx::query_scalar::<_, bool>(query).fetch_one(&self.pool).await.expect("an answer") {
            let logs: Vec<_> = (0..self.len()).map(|n| self.log(n)).collect();
            assert!(Instant::now() < until, "{what} never came: {}", logs.join("\n"));
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A caller of one replica.
#[derive(Clone)]
pub struct Caller {
    url: String,
    http: Client,
}

impl Caller {
    /// Whether it says that it is ready.
    pub async fn is_ready(&self) -> bool {
        let asked = self.http.get(format!("{}/readyz", self.url)).send().await;
        asked.is_ok_and(|answer| answer.status().is_success())
    }

    /// Asks; none where no whole answer came.
    pub async fn ask(&self, token: &str, targets: &[&str]) -> Option<Value> {
        let url = format!("{}/v1/credentials", self.url);
        let request = self.http.post(url).bearer_auth(token).header("x-forwarded-for", INSIDE);
        let response =
            request.json(&json!({"policy": "first-steps", "targets": targets})).send().await.ok()?;
        response.json().await.ok()
    }
}
