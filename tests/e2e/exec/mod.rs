//! `cortex exec` and `cortex credential-process`: the real binary, with commands that know nothing of Cortex.

mod clients;
mod life;
mod process;

use std::ffi::OsString;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use cortex_core::Clock;
use cortex_sandbox::RunClaims;
use cortex_tests::counterparts::python_command;
use cortex_tests::world::TestWorld;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

const PROGRAM: &str = env!("CARGO_BIN_EXE_cortex-under-test");
/// How long anything here may take, on a machine that is busy with everything else.
const PATIENCE: Duration = Duration::from_mins(5);

/// The shell command that prints a fresh token of `run` each time.
async fn token_command<C: Clock + Clone>(world: &TestWorld<C>, run: &RunClaims) -> String {
    let [python, script] = python_command("run_token.py").await;
    let run = serde_json::to_string(run).unwrap();
    let issuer = world.world.sandbox.issuer_url();
    format!("{} {} --issuer {issuer} --run '{run}'", python.display(), script.display())
}

/// What the test and the program share: a home with nothing in it, and a place for what must not outlive it.
struct Desk {
    home: TempDir,
    runtime: TempDir,
}

impl Desk {
    fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap(), runtime: tempfile::tempdir().unwrap() }
    }

    /// The program with these arguments, in an environment with nothing but what it needs.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.home.path()).env("XDG_RUNTIME_DIR", self.runtime.path());
        command.env("PYTHONDONTWRITEBYTECODE", "1").current_dir(self.home.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// What lies where nothing may stay.
    fn left_behind(&self) -> Vec<OsString> {
        std::fs::read_dir(self.runtime.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    /// Waits until nothing lies there any more.
    async fn is_clean(&self) {
        let clean = async {
            while !self.left_behind().is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, clean).await.unwrap_or_else(|_| panic!("left behind: {:?}", self.left_behind()));
    }
}

/// A running program whose output is read line by line.
struct Session {
    process: Child,
    stdin: Option<ChildStdin>,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: Lines<BufReader<ChildStderr>>,
}

impl Session {
    fn start(mut command: Command) -> Self {
        let mut process = command.spawn().unwrap();
        let stdin = process.stdin.take();
        let stdout = BufReader::new(process.stdout.take().unwrap()).lines();
        let stderr = BufReader::new(process.stderr.take().unwrap()).lines();
        Self { process, stdin, stdout, stderr }
    }

    /// The next line that the command prints; none at its end.
    async fn line(&mut self) -> Option<String> {
        timeout(PATIENCE, self.stdout.next_line()).await.expect("a line in time").unwrap()
    }

    /// The next line of JSON that has `field`.
    async fn json(&mut self, field: &str) -> Value {
        let mut others = Vec::new();
        while let Some(line) = self.line().await {
            let json: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line}"));
            if let Some(value) = json.get(field) {
                return value.clone();
            }
            others.push(line);
        }
        panic!("no {field}: {others:#?}\n{}", self.complaints().await);
    }

    /// The next line on standard error that has `words` in it.
    async fn complains(&mut self, words: &str) -> String {
        let found = async {
            while let Some(line) = self.stderr.next_line().await.unwrap() {
                if line.contains(words) {
                    return line;
                }
            }
            panic!("nobody said {words:?}");
        };
        timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("nobody said {words:?} in time"))
    }

    /// Says a line to the command.
    async fn say(&mut self, line: &str) {
        self.stdin.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    /// Sends the program a signal.
    fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = i32::try_from(self.process.id().unwrap()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
    }

    /// Waits for its end.
    async fn end(&mut self) -> ExitStatus {
        drop(self.stdin.take());
        timeout(PATIENCE, self.process.wait()).await.expect("it ends in time").unwrap()
    }

    /// Everything on standard error that was not read yet.
    async fn complaints(&mut self) -> String {
        let mut text = String::new();
        while let Ok(Ok(Some(line))) = timeout(Duration::from_secs(5), self.stderr.next_line()).await {
            text.push_str(&line);
            text.push('\n');
        }
        text
    }
}

/// A path as an argument.
fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
