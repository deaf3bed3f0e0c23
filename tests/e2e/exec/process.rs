//! `cortex credential-process`, as boto3 calls it from `~/.aws/config`.

use cortex_tests::counterparts::python;
use cortex_tests::world::{TestWorld, first_run};
use serde_json::Value;

use super::{Desk, PROGRAM, text, token_command};

#[tokio::test]
async fn boto3_gets_its_keys_from_a_profile() {
    let world = TestWorld::start_live(|_| {}).await;
    let desk = Desk::new();
    // The profile's command is run without a shell.
    let script = desk.home.path().join("fresh-token");
    let fresh = token_command(&world, &first_run("scheduled__1")).await;
    std::fs::write(&script, format!("#!/bin/sh\nexec {fresh}\n")).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let config = desk.home.path().join("config");
    let profile = format!(
        "[profile finance]\nregion = eu-west-1\ncredential_process = {PROGRAM} credential-process --server {} --policy first-steps --token-command {}\n",
        world.url(""),
        script.display()
    );
    std::fs::write(&config, profile).unwrap();
    let aws = world.world.sandbox.aws_url();
    let inside = "hello_cortex/scheduled__1/out.csv";
    let args = [
        "--sts-endpoint",
        aws,
        "--s3-endpoint",
        aws,
        "--bucket",
        "finance-mart",
        "--key",
        inside,
        "--read-key",
        inside,
    ];
    let env = [("AWS_CONFIG_FILE", text(&config)), ("AWS_PROFILE", "finance")];
    let said = python("aws_container.py", &args, &env, "").await.succeeded();
    assert_eq!(said["method"], "custom-process", "{said}");
    assert_eq!(said["account"], "123456789012", "{said}");
    assert_eq!(world.minted_leases().len(), 1, "asked twice, the server gives the same session again");
}

#[tokio::test]
async fn what_is_printed_is_what_aws_reads_and_nothing_where_it_is_denied() {
    let world = TestWorld::start_live(|_| {}).await;
    let desk = Desk::new();
    let server = world.url("");
    let ask = async |command: &str| {
        let arguments = [
            "credential-process",
            "--server",
            &server,
            "--policy",
            "first-steps",
            "--token-command",
            command,
        ];
        desk.command(&arguments).output().await.unwrap()
    };
    let output = ask(&token_command(&world, &first_run("scheduled__1")).await).await;
    assert!(output.status.success(), "{output:?}");
    let keys: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(keys["Version"], 1);
    for field in ["AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration"] {
        assert!(keys[field].is_string(), "{field}");
    }

    let mut stranger = first_run("scheduled__1");
    stranger.dag_id = "payroll".to_owned();
    let output = ask(&token_command(&world, &stranger).await).await;
    assert_eq!(output.status.code(), Some(3));
    assert!(output.stdout.is_empty() && !output.stderr.is_empty());
}
