//! What is in `deploy/`, as the program itself takes it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use cortex_tests::counterparts::node_packages;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

const PROGRAM: &str = env!("CARGO_BIN_EXE_cortex-under-test");
const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");

/// Runs the program in a folder of its own, without an environment.
async fn cortex(arguments: &[&str]) -> (bool, String) {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(arguments).env_clear().env("HOME", home.path()).current_dir(home.path());
    let output = command.stdin(Stdio::null()).output().await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

async fn check(config: &Path) {
    let (sound, said) = cortex(&["config", "check", "--config", config.to_str().unwrap()]).await;
    assert!(sound && said.starts_with("ok: "), "{}: {said}", config.display());
}

/// The value of `config` in a chart's values: a block of text, two spaces in.
fn config_in(values: &str) -> String {
    let block = values.split("\nconfig: |\n").nth(1).expect("a configuration");
    let lines = block.lines().take_while(|line| line.is_empty() || line.starts_with("  "));
    lines.map(|line| line.trim_start_matches("  ")).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn each_configuration_is_one_that_cortex_takes() {
    check(&Path::new(DEPLOY).join("compose/cortex.toml")).await;
    for sample in ["least", "all"] {
        let values = std::fs::read_to_string(format!("{DEPLOY}/helm/cortex/ci/{sample}.yaml")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cortex.toml");
        std::fs::write(&file, config_in(&values)).unwrap();
        check(&file).await;
    }
}

#[tokio::test]
async fn the_policies_to_try_are_sound() {
    let (sound, said) = cortex(&["policy", "check", &format!("{DEPLOY}/compose/policies")]).await;
    assert!(sound, "{said}");
}

/// The files of the identity provider beside the packages that it needs.
async fn idp() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let [node, modules] = node_packages().await;
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(modules, folder.path().join("node_modules")).unwrap();
    let program = folder.path().join("idp.mjs");
    std::fs::copy(format!("{DEPLOY}/compose/idp/idp.mjs"), &program).unwrap();
    (folder, node, program)
}

#[tokio::test]
async fn people_can_sign_in_at_the_identity_provider_to_try() {
    let (_folder, node, program) = idp().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    drop(listener);
    let mut command = Command::new(node);
    let running = command.arg(program).args(["--port", &port]).stdout(Stdio::null()).kill_on_drop(true);
    let _running = running.spawn().unwrap();
    let (issuer, console) = (format!("http://localhost:{port}"), "http://localhost:8080/console/callback");
    let until = Instant::now() + Duration::from_mins(1);
    let clients = [("cortex-console", console), ("cortex-cli", "http://127.0.0.1/callback")];
    for (client, redirect) in clients {
        let arguments =
            ["doctor", "oidc", "--issuer", &issuer, "--client-id", client, "--redirect", redirect];
        let said = loop {
            let (sound, said) = cortex(&arguments).await;
            if sound {
                break said;
            }
            assert!(said.contains("refused") && Instant::now() < until, "{client}: {said}");
            sleep(Duration::from_millis(100)).await;
        };
        assert!(said.contains("PKCE with S256") && said.contains("can verify"), "{said}");
    }
}
