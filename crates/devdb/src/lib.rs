//! A private Postgres for `cortex dev`, for tests and for benchmarks.
//!
//! [`DevDb::start`] makes a cluster in a temporary folder of its own and runs the machine's Postgres on it, also
//! when we are root. It listens on a unix socket in that folder and on no port, so any number run side by side.
//! When the [`DevDb`] is dropped, or when this process ends in any way, the server stops and the folder goes.

mod account;
mod error;
mod installation;
mod janitor;

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::str::FromStr as _;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

pub use crate::error::DevDbError;

use crate::account::Account;
use crate::janitor::Janitor;

/// How long `initdb` may take; it takes about half a second on an idle machine.
const INITDB_DEADLINE: Duration = Duration::from_mins(2);
/// How long the server may take until it answers.
const READY_DEADLINE: Duration = Duration::from_mins(1);
/// How long one statement of ours may take.
const STATEMENT_DEADLINE: Duration = Duration::from_mins(1);
/// How long the server may take to stop before it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// How often we look whether a state that we wait for was reached.
const POLL: Duration = Duration::from_millis(20);
/// How much of a log an error carries, in bytes.
const LOG_TAIL: usize = 4096;

/// What kind of cluster to start.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Whether a commit reaches the disk before it is acknowledged. Benchmarks and `cortex dev` want that; tests
    /// give it up for speed, because their data is of no use after a power cut.
    pub durable: bool,
}

/// A running server and its folder; both go when this is dropped.
///
/// Dropping it blocks the thread until the server has stopped, mostly for less than 0.1 seconds.
pub struct DevDb {
    bin: PathBuf,
    server: Child,
    janitor: Janitor,
    dir: TempDir,
}

impl DevDb {
    /// Makes a cluster and starts its server; answers when the server takes connections, in about a second.
    pub async fn start(options: Options) -> Result<Self, DevDbError> {
        Self::start_from(installation::locate()?, options).await
    }

    async fn start_from(bin: PathBuf, options: Options) -> Result<Self, DevDbError> {
        let account = Account::choose()?;
        let dir = folder(&account)?;
        let janitor = Janitor::start(&account, dir.path())?;
        initdb(&bin, &account, dir.path()).await?;
        Self::serve(bin, &account, dir, janitor, options).await
    }

    async fn serve(
        bin: PathBuf,
        account: &Account,
        dir: TempDir,
        mut janitor: Janitor,
        options: Options,
    ) -> Result<Self, DevDbError> {
        let server = spawn_server(&bin, account, dir.path(), options)?;
        janitor.watch(&server)?;
        let mut db = Self { bin, server, janitor, dir };
        db.wait_until_ready().await?;
        Ok(db)
    }

    /// Makes a server that follows this one, and that this one's commits wait for from now on: what is acknowledged is on
    /// both. This one has to be durable.
    pub async fn synchronous_standby(&self) -> Result<Self, DevDbError> {
        let account = Account::choose()?;
        let dir = folder(&account)?;
        let janitor = Janitor::start(&account, dir.path())?;
        let mut copy = account.command(&self.bin.join("pg_basebackup"));
        copy.args(["--no-sync", "--checkpoint=fast", "--wal-method=stream", "--write-recovery-conf"]);
        copy.args(["--username=postgres", "--port=5432", "--host"]).arg(self.dir.path());
        copy.arg("--pgdata").arg(data_dir(dir.path()));
        run(copy, "pg_basebackup", STATEMENT_DEADLINE).await?;
        let standby =
            Self::serve(self.bin.clone(), &account, dir, janitor, Options { durable: true }).await?;
        self.execute("ALTER SYSTEM SET synchronous_standby_names = '*'".to_owned()).await?;
        self.execute("SELECT pg_reload_conf()".to_owned()).await?;
        Ok(standby)
    }

    /// Makes a standby a server of its own, which waits for nobody.
    pub async fn promote(&self) -> Result<(), DevDbError> {
        self.execute("SELECT pg_promote()".to_owned()).await?;
        self.execute("ALTER SYSTEM RESET synchronous_standby_names".to_owned()).await?;
        self.execute("SELECT pg_reload_conf()".to_owned()).await
    }

    /// Kills the server with everything that it has under way, as a machine does that loses its power.
    pub fn kill(mut self) {
        if let Ok(pid) = i32::try_from(self.server.id()) {
            // It cannot be gone: it is our child and we have not waited for it yet.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        // An error here is that there is nothing to wait for.
        let _ = self.server.wait();
        self.janitor.forget_server();
    }

    /// The URL of one of its databases, for sqlx and for every client made of libpq. A new cluster holds
    /// `postgres` and the superuser of that name.
    pub fn url(&self, database: &str) -> String {
        let host = percent_encoded(&self.dir.path().to_string_lossy());
        format!("postgres://postgres@localhost/{database}?host={host}&port=5432&sslmode=disable")
    }

    /// Where the server's programs are, and with most installations `psql` and `pg_dump` too.
    pub fn bin_dir(&self) -> &Path {
        &self.bin
    }

    /// Makes an empty database.
    pub async fn create_database(&self, name: &str) -> Result<(), DevDbError> {
        self.execute(format!("CREATE DATABASE {}", database_name(name)?)).await
    }

    /// Makes a database that is a copy of another, in a few hundredths of a second: tests migrate once and copy.
    /// Nobody may be connected to the template while it is copied.
    pub async fn create_database_from_template(&self, name: &str, template: &str) -> Result<(), DevDbError> {
        let (name, template) = (database_name(name)?, database_name(template)?);
        self.execute(format!("CREATE DATABASE {name} TEMPLATE {template}")).await
    }

    async fn execute(&self, statement: String) -> Result<(), DevDbError> {
        let run = async {
            let mut connection = self.connect().await?;
            connection.execute(AssertSqlSafe(statement)).await?;
            connection.close().await
        };
        match timeout(STATEMENT_DEADLINE, run).await {
            Ok(result) => result.map_err(|source| DevDbError::Refused { source, log: self.log_tail() }),
            Err(_) => Err(self.too_late("a statement", STATEMENT_DEADLINE)),
        }
    }

    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        PgConnection::connect_with(&PgConnectOptions::from_str(&self.url("postgres"))?).await
    }

    async fn wait_until_ready(&mut self) -> Result<(), DevDbError> {
        let answers = async {
            loop {
                if let Ok(Some(_)) = self.server.try_wait() {
                    self.janitor.forget_server();
                    return Err(DevDbError::ServerEnded { log: self.log_tail() });
                }
                if let Ok(connection) = self.connect().await {
                    // An error here is of the farewell, not of the server.
                    let _ = connection.close().await;
                    return Ok(());
                }
                sleep(POLL).await;
            }
        };
        match timeout(READY_DEADLINE, answers).await {
            Ok(result) => result,
            Err(_) => Err(self.too_late("the start of the PostgreSQL server", READY_DEADLINE)),
        }
    }

    fn too_late(&self, step: &'static str, deadline: Duration) -> DevDbError {
        DevDbError::Deadline { step, seconds: deadline.as_secs(), log: self.log_tail() }
    }

    fn log_tail(&self) -> String {
        tail(&std::fs::read(log_file(self.dir.path())).unwrap_or_default())
    }

    /// Asks for a fast shutdown, which ends the sessions, and kills what does not stop.
    fn stop(&mut self) {
        let Ok(pid) = i32::try_from(self.server.id()).map(Pid::from_raw) else {
            return;
        };
        let mut polls = STOP_DEADLINE.as_millis() / POLL.as_millis();
        while let Ok(None) = self.server.try_wait() {
            let signal = if polls == 0 { Signal::SIGKILL } else { Signal::SIGINT };
            // It cannot be gone: it is our child and we have not waited for it yet.
            let _ = kill(pid, signal);
            polls = polls.saturating_sub(1);
            std::thread::sleep(POLL);
        }
        self.janitor.forget_server();
    }
}

impl Drop for DevDb {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A folder for a cluster. Who reaches the socket in it is the superuser, so nobody else may.
fn folder(account: &Account) -> Result<TempDir, DevDbError> {
    let dir = tempfile::Builder::new()
        .prefix("cortex-pg-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(account.temp_dir())
        .map_err(DevDbError::io("making a folder for the database"))?;
    account.take(dir.path()).map_err(DevDbError::io("giving the database's folder away"))?;
    Ok(dir)
}

async fn initdb(bin: &Path, account: &Account, dir: &Path) -> Result<(), DevDbError> {
    let mut command = account.command(&bin.join("initdb"));
    // Trusting every local user is safe here: only the cluster's owner (and root) can enter the folder with the socket.
    command.args([
        "--no-sync",
        "--auth=trust",
        "--username=postgres",
        "--no-locale",
        "--encoding=UTF8",
        "--pgdata",
    ]);
    command.arg(data_dir(dir));
    run(command, "initdb", INITDB_DEADLINE).await
}

/// Runs a program of Postgres to its end.
async fn run(
    command: std::process::Command,
    step: &'static str,
    deadline: Duration,
) -> Result<(), DevDbError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = tokio::process::Command::from(command).kill_on_drop(true).output();
    let output = timeout(deadline, output).await.map_err(|_| DevDbError::Deadline {
        step,
        seconds: deadline.as_secs(),
        log: String::new(),
    })?;
    let output = output.map_err(DevDbError::io(format!("running {program}")))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(DevDbError::Failed { step, output: tail(&output.stderr) })
    }
}

fn spawn_server(bin: &Path, account: &Account, dir: &Path, options: Options) -> Result<Child, DevDbError> {
    let log = File::create(log_file(dir)).map_err(DevDbError::io("making the database's log file"))?;
    let commit = if options.durable { "on" } else { "off" };
    let mut command = account.command(&bin.join("postgres"));
    command.arg("-D").arg(data_dir(dir)).arg("-k").arg(dir).args(["-p", "5432"]);
    for setting in [
        "listen_addresses=",
        "max_connections=200",
        "shared_buffers=64MB",
        &format!("fsync={commit}"),
        &format!("synchronous_commit={commit}"),
        &format!("full_page_writes={commit}"),
    ] {
        command.args(["-c", setting]);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        // Ctrl-C in a terminal goes to the whole group; we stop the server ourselves, after its users.
        .process_group(0)
        .spawn()
        .map_err(DevDbError::io(format!("running {}", bin.join("postgres").display())))
}

fn data_dir(dir: &Path) -> PathBuf {
    dir.join("data")
}

fn log_file(dir: &Path) -> PathBuf {
    dir.join("log")
}

fn tail(log: &[u8]) -> String {
    let from = log.len().saturating_sub(LOG_TAIL);
    String::from_utf8_lossy(log.get(from..).unwrap_or_default()).trim().to_owned()
}

/// A name that needs no quotes, so that it can stand in a statement: names cannot be bound as parameters.
fn database_name(name: &str) -> Result<&str, DevDbError> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    let starts_well = name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    if starts_well && name.len() <= 63 && name.bytes().all(plain) {
        Ok(name)
    } else {
        Err(DevDbError::DatabaseName(name.to_owned()))
    }
}

/// Everything but RFC 3986's unreserved characters and the slash is escaped.
fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                char::from(b).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests;
