//! The clouds' own clients, run as an Airflow task would run them.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::timeout;

use super::{Places, folder};

/// How long a client may take. Some retry by themselves: boto3 asks a container endpoint three times.
const DEADLINE: Duration = Duration::from_mins(5);

/// What a client said when it ended.
#[derive(Debug)]
pub struct Answer {
    /// Whether everything that the script does went as it should.
    pub success: bool,
    /// What it printed: its results, or `error` (the type) and `message`.
    pub json: Value,
    /// What it logged; for the reader of a failed test.
    pub stderr: String,
}

impl Answer {
    /// The results. Panics with the client's own words if it failed.
    pub fn succeeded(self) -> Value {
        assert!(self.success, "the client failed: {}\n{}", self.json, self.stderr);
        self.json
    }

    /// The error and its message. Panics if the client succeeded.
    pub fn failed(self) -> Value {
        assert!(!self.success, "the client succeeded: {}", self.json);
        self.json
    }
}

/// The command line that runs a script of `counterparts/python`, with the newest of every client.
pub async fn python_command(script: &str) -> [PathBuf; 2] {
    [Places::get().await.venv.join("bin/python"), folder().join("python").join(script)]
}

/// The same with version 4 of the Snowflake connector.
pub async fn python_sf4_command(script: &str) -> [PathBuf; 2] {
    [Places::get().await.venv_sf4.join("bin/python"), folder().join("python").join(script)]
}

/// The command line that runs a script of `counterparts/node`.
pub async fn node_command(script: &str) -> [PathBuf; 2] {
    [Places::get().await.node(), folder().join("node").join(script)]
}

/// Node, and the folder of the packages that programs for it use.
pub async fn node_packages() -> [PathBuf; 2] {
    let places = Places::get().await;
    [places.node(), places.node_modules.clone()]
}

/// Runs a script of `counterparts/python`, with the newest of every client.
pub async fn python(script: &str, args: &[&str], env: &[(&str, &str)], stdin: &str) -> Answer {
    run(&python_command(script).await, args, env, stdin).await
}

/// Runs a script of `counterparts/python` with version 4 of the Snowflake connector.
pub async fn python_sf4(script: &str, args: &[&str], env: &[(&str, &str)], stdin: &str) -> Answer {
    run(&python_sf4_command(script).await, args, env, stdin).await
}

/// Has events read by parsers of the formats that SIEMs take.
pub async fn siem(args: &[&str], events: &str) -> Answer {
    let script = folder().join("python").join("siem_reader.py");
    run(&[Places::get().await.venv_siem.join("bin/python"), script], args, &[], events).await
}

/// Runs a script of `counterparts/node`.
pub async fn node(script: &str, args: &[&str], env: &[(&str, &str)], stdin: &str) -> Answer {
    run(&node_command(script).await, args, env, stdin).await
}

/// Verifies a published issuance log, in a folder or at an address, with Go's `x/mod` and the log's verifier key: how
/// much was checked, or what is wrong.
pub async fn logcheck(place: &str, key: &str) -> Result<Value, String> {
    let mut command = Command::new(&Places::get().await.logcheck);
    command.args([place, key]).env_clear().stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(DEADLINE, command.output()).await.expect("the program ends in time");
    let output = output.expect("the program runs");
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(serde_json::from_slice(&output.stdout).expect("the program says how much it checked"))
}

/// Only `env` is in the environment, and the home is empty: no client finds this machine's own credentials.
async fn run(command: &[PathBuf; 2], args: &[&str], env: &[(&str, &str)], stdin: &str) -> Answer {
    let [program, script] = command;
    let home = tempfile::tempdir().expect("there is room for a home");
    let mut command = Command::new(program);
    command.arg(script).args(args).env_clear().env("HOME", home.path());
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("AWS_EC2_METADATA_DISABLED", "true");
    command.envs(env.iter().copied()).current_dir(home.path()).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().expect("the client starts");
    let mut input = process.stdin.take().expect("its input is a pipe");
    // A client that reads nothing may be gone before we have written.
    let _ = input.write_all(stdin.as_bytes()).await;
    drop(input);
    let output = timeout(DEADLINE, process.wait_with_output()).await.expect("the client ends in time");
    let output = output.expect("the client's output is read");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let json = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{} printed no JSON ({error}): {stderr}", script.display()));
    Answer { success: output.status.success(), json, stderr }
}

#[cfg(test)]
mod tests {
    use crate::counterparts::MotoServer;

    use super::*;

    #[tokio::test]
    async fn a_client_that_gets_no_credentials_fails_and_says_so() {
        let moto = MotoServer::start().await;
        for answer in [
            python("aws_container.py", &["--sts-endpoint", moto.endpoint()], &[], "").await,
            node("aws_container.mjs", &["--sts-endpoint", moto.endpoint()], &[], "").await,
        ] {
            let said = answer.failed();
            assert!(
                said["message"].as_str().unwrap().to_lowercase().contains("credential")
                    || said["error"] == "CredentialsProviderError",
                "{said}"
            );
        }
    }

    #[tokio::test]
    async fn a_log_that_is_not_there_is_not_verified() {
        let home = tempfile::tempdir().unwrap();
        let said = logcheck(home.path().to_str().unwrap(), "x").await.unwrap_err();
        assert!(said.starts_with("logcheck: open "), "{said}");
    }

    #[tokio::test]
    async fn both_generations_of_the_snowflake_connector_read_the_token() {
        let args = ["--method", "workload-identity", "--account", "a", "--host", "localhost"];
        let env = [("SNOWFLAKE_WIF_ALLOWED_HOST_SUFFIXES", "localhost")];
        let (five, four) = tokio::join!(
            python("snowflake_login.py", &args, &env, "not-a-token"),
            python_sf4("snowflake_login.py", &args, &env, "not-a-token")
        );
        for said in [five.failed(), four.failed()] {
            assert!(said["message"].as_str().unwrap().contains("JWT"), "{said}");
        }
    }
}
