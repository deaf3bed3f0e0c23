//! People at the command line, over REST: tables to read, JSON to script with, and exit codes that tell apart.

use std::process::{Output, Stdio};
use std::time::Duration;

use cortex_core::Clock;
use cortex_sandbox::RunClaims;
use cortex_tests::world::{TestWorld, first_run};
use reqwest::StatusCode;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

const PROGRAM: &str = env!("CARGO_BIN_EXE_cortex-under-test");
const PATIENCE: Duration = Duration::from_mins(2);

/// One person's terminal.
struct Terminal {
    home: TempDir,
    url: String,
    token: String,
}

impl Terminal {
    fn of<C: Clock + Clone>(world: &TestWorld<C>, person: &str, groups: &[&str]) -> Self {
        Self { home: tempfile::tempdir().unwrap(), url: world.url(""), token: world.person(person, groups) }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).env_clear().env("HOME", self.home.path()).current_dir(self.home.path());
        command.env("CORTEX_URL", &self.url).env("CORTEX_TOKEN", &self.token);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        timeout(PATIENCE, self.command(arguments).output()).await.expect("it ends in time").unwrap()
    }

    async fn says(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.says(&[arguments, &["--json"]].concat()).await).unwrap()
    }

    /// The exit code and the words of a command that fails.
    async fn fails(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments).await;
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }
}

fn by_hand(run_id: &str) -> RunClaims {
    RunClaims {
        run_type: Some("manual".into()),
        triggered_by: Some("ui".into()),
        triggering_user_name: Some("alice".into()),
        ..first_run(run_id)
    }
}

async fn pending(world: &TestWorld, run: &RunClaims) -> String {
    let answer = world.ask_for(run, "first-steps").await;
    assert_eq!(answer.body["error"], "authorization_pending", "{answer:?}");
    answer.body["grant_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_approver_sees_the_whole_request_and_approves_exactly_that() {
    let world = TestWorld::start().await;
    let grant = pending(&world, &by_hand("m1")).await;
    let carol = Terminal::of(&world, "carol", &["finance-admins"]);
    let list = carol.says(&["grant", "list", "--status", "requested"]).await;
    assert!(list.contains(&grant) && list.contains("hello_cortex / m1"), "{list}");
    let shown = carol.says(&["grant", "show", &grant]).await;
    for whole in
        ["sha256:", "arn:aws:iam::123456789012:role/finance-publish", "finance-mart", "ttl_seconds", "alice"]
    {
        assert!(shown.contains(whole), "{whole}: {shown}");
    }
    let (code, said) = carol.fails(&["grant", "approve", &grant]).await;
    assert_eq!(code, 2, "nobody is there to be asked: {said}");
    let (code, said) = carol.fails(&["grant", "approve", &grant, "--yes", "--digest", "sha256:other"]).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("it changed"), "{said}");
    assert_eq!(carol.json(&["grant", "show", &grant]).await["status"], "requested");
    let approved = carol.says(&["grant", "approve", &grant, "--yes", "--comment", "go"]).await;
    assert!(approved.contains("approved") && approved.contains("sha256:"), "{approved}");
    assert_eq!(world.ask_for(&by_hand("m1"), "first-steps").await.status, StatusCode::OK);
}

#[tokio::test]
async fn who_may_not_decide_is_told_so_and_scripts_can_tell_why() {
    let world = TestWorld::start().await;
    let grant = pending(&world, &by_hand("m1")).await;
    let stranger = Terminal::of(&world, "dave", &["auditors"]);
    let (code, said) = stranger.fails(&["grant", "approve", &grant, "--yes"]).await;
    assert_eq!(code, 3, "{said}");
    let carol = Terminal::of(&world, "carol", &["finance-admins"]);
    let unknown = "0199c1de-0000-7000-8000-000000000000";
    assert_eq!(carol.fails(&["grant", "show", unknown]).await.0, 4);
    assert_eq!(carol.fails(&["grant", "show", "../policies"]).await.0, 2);
    assert_eq!(carol.fails(&["grant", "bless", &grant]).await.0, 2);
    carol.says(&["grant", "deny", &grant, "--yes", "--comment", "not today"]).await;
    assert_eq!(carol.fails(&["grant", "approve", &grant, "--yes"]).await.0, 1, "decided before");

    let nobody = Terminal { token: "not-a-token".to_owned(), ..Terminal::of(&world, "x", &[]) };
    let (code, said) = nobody.fails(&["grant", "list"]).await;
    assert_eq!(code, 3);
    assert!(said.contains("cortex login"), "{said}");
    let away = Terminal { url: "http://127.0.0.1:1".to_owned(), ..Terminal::of(&world, "x", &[]) };
    assert_eq!(away.fails(&["grant", "list"]).await.0, 6);
    let plain = Terminal { url: "http://cortex.acme.example".to_owned(), ..Terminal::of(&world, "x", &[]) };
    assert_eq!(plain.fails(&["grant", "list"]).await.0, 2, "a token is not sent over plain http");
}

#[tokio::test]
async fn a_grant_is_withdrawn_before_anybody_uses_it() {
    let world = TestWorld::start().await;
    let grant = pending(&world, &by_hand("m1")).await;
    let carol = Terminal::of(&world, "carol", &["finance-admins"]);
    carol.says(&["grant", "approve", &grant, "--yes"]).await;
    let admin = Terminal::of(&world, "bob", &["cortex-admins"]);
    assert!(admin.says(&["grant", "withdraw", &grant, "--comment", "wrong run"]).await.contains("withdrawn"));
    assert_ne!(world.ask_for(&by_hand("m1"), "first-steps").await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_record_is_read_in_tables_in_json_and_as_it_grows() {
    let world = TestWorld::start().await;
    let dave = Terminal::of(&world, "dave", &["auditors"]);
    assert!(dave.says(&["issuance", "list"]).await.contains("nothing on record"));
    let since = world.now().to_string();
    let mut tail = dave.command(&["issuance", "tail", "--json", "--since", &since]).spawn().unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    assert_eq!(world.ask_for(&first_run("scheduled__1"), "first-steps").await.status, StatusCode::OK);
    let mut seen = std::collections::BTreeMap::new();
    while seen.len() < 4 || seen.values().any(|outcome| outcome != "issued") {
        let line = timeout(PATIENCE, lines.next_line()).await.expect("news").unwrap().unwrap();
        let row: Value = serde_json::from_str(&line).unwrap();
        seen.insert(
            row["provider"].as_str().unwrap().to_owned(),
            row["outcome"].as_str().unwrap().to_owned(),
        );
    }
    let list = dave.says(&["issuance", "list", "--provider", "aws"]).await;
    assert!(
        list.contains("hello_cortex / scheduled__1 / publish_mart") && !list.contains("snowflake"),
        "{list}"
    );
    let page = dave.json(&["issuance", "list", "--outcome", "issued", "--limit", "2"]).await;
    assert_eq!(page["issuances"].as_array().unwrap().len(), 2);
    let next = page["next"].as_str().unwrap();
    let rest = dave.json(&["issuance", "list", "--before", next]).await;
    assert_eq!(rest["issuances"].as_array().unwrap().len(), 2);
    let id = page["issuances"][0]["issuance_id"].as_str().unwrap();
    assert!(dave.says(&["issuance", "show", id]).await.contains("hello_cortex"));
    assert_eq!(dave.fails(&["issuance", "show", "0199c1de-0000-7000-8000-000000000000"]).await.0, 4);
    let approver = Terminal::of(&world, "carol", &["finance-admins"]);
    assert_eq!(approver.fails(&["issuance", "list"]).await.0, 3);
}

#[tokio::test]
async fn policies_are_applied_over_rest_by_whoever_may() {
    let world = TestWorld::start().await;
    let admin = Terminal::of(&world, "bob", &["cortex-admins"]);
    let server = world.url("");
    let file = admin.home.path().join("hello.yaml");
    let policy = "name: hello\nwho: {airflow: prod, dags: [hello]}\nwhat:\n  api: \
                  {audience: \"https://ledger.acme.example\", scopes: [read]}\n";
    std::fs::write(&file, policy).unwrap();
    let path = file.to_str().unwrap();
    let says = async |terminal: &Terminal, words: &[&str]| {
        terminal.says(&[&["policy"], words, &["--server", &server]].concat()).await
    };
    assert!(says(&admin, &["apply", path, "--dry-run"]).await.contains("dry run"));
    assert!(!says(&admin, &["list"]).await.contains("hello"));
    assert!(says(&admin, &["apply", path]).await.contains("hello: version 1 is in force"));
    assert!(says(&admin, &["apply", path]).await.contains("unchanged"));
    let list = says(&admin, &["list"]).await;
    assert!(list.contains("person:staff:bob") && list.contains("guardrail"), "{list}");
    assert_eq!(says(&admin, &["show", "hello"]).await, policy);
    assert!(says(&admin, &["explain", "hello"]).await.contains("permit"));
    std::fs::write(&file, policy.replace("[hello]", "[hello, goodbye]")).unwrap();
    assert!(says(&admin, &["diff", path]).await.contains("goodbye"));
    let auditor = Terminal::of(&world, "dave", &["auditors"]);
    assert!(says(&auditor, &["history", "hello"]).await.contains("in force"));
    let refused = auditor.fails(&["policy", "apply", path, "--server", &server]).await;
    assert_eq!(refused.0, 3, "{refused:?}");
    assert!(says(&admin, &["retire", "hello"]).await.contains("no longer in force"));
}

#[tokio::test]
async fn every_shell_completes_and_help_says_how_to_get_on() {
    let world = TestWorld::start().await;
    let terminal = Terminal::of(&world, "x", &[]);
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let script = terminal.says(&["completions", shell]).await;
        assert!(script.contains("credential-process") && script.contains("withdraw"), "{shell}");
    }
    for command in ["login", "grant", "issuance", "revocation", "freeze", "exec", "credential-process"] {
        let help = terminal.says(&[command, "--help"]).await;
        assert!(help.contains("Example") && help.contains("cortex "), "{command}: {help}");
    }
}

#[tokio::test]
async fn a_freeze_is_set_seen_and_lifted() {
    // By the machine's time, which the terminal counts two hours from.
    let world = TestWorld::start_live(|_| {}).await;
    let admin = Terminal::of(&world, "bob", &["cortex-admins"]);
    assert!(admin.says(&["freeze", "list"]).await.contains("nothing is frozen"));
    let arguments = ["freeze", "set", "--dag", "hello_cortex", "--reason", "wrong data", "--for", "2h"];
    assert!(admin.says(&arguments).await.contains("DAG hello_cortex is frozen"));
    let refused = world.ask_for(&first_run("scheduled__1"), "first-steps").await;
    assert!(refused.body["error_description"].as_str().unwrap().contains("wrong data"), "{refused:?}");
    let list = admin.says(&["freeze", "list"]).await;
    assert!(list.contains("wrong data") && list.contains("person:staff:bob"), "{list}");
    let freezes = admin.json(&["freeze", "list"]).await;
    let id = freezes["freezes"][0]["id"].as_str().unwrap();
    assert!(admin.says(&["freeze", "lift", id]).await.contains("is lifted"));
    assert_eq!(world.ask_for(&first_run("scheduled__1"), "first-steps").await.status, StatusCode::OK);
    assert!(admin.says(&["freeze", "list"]).await.contains("nothing is frozen"));
    assert!(admin.says(&["freeze", "list", "--all"]).await.contains(id));
    assert_eq!(admin.fails(&["freeze", "lift", id]).await.0, 1, "lifted before");
    assert_eq!(admin.fails(&["freeze", "set", "--reason", "of what?"]).await.0, 2);
    let carol = Terminal::of(&world, "carol", &["finance-admins"]);
    assert_eq!(carol.fails(&["freeze", "set", "--everything", "--reason", "x"]).await.0, 3);
}

#[tokio::test]
async fn a_revocation_says_how_far_it_has_come_for_each_credential() {
    let world = TestWorld::start().await;
    let issued = world.ask_for(&first_run("scheduled__1"), "first-steps").await;
    assert_eq!(issued.status, StatusCode::OK, "{issued:?}");
    let admin = Terminal::of(&world, "bob", &["cortex-admins"]);
    let what = ["issuance", "revoke", "--dag", "hello_cortex", "--reason", "wrong data"];
    let preview = admin.says(&[&what[..], &["--dry-run"]].concat()).await;
    assert!(preview.contains("nothing was revoked") && preview.contains("snowflake"), "{preview}");
    assert!(admin.says(&["revocation", "list"]).await.contains("nothing was revoked"));
    let said = admin.says(&[&what[..], &["--wait", "1m"]].concat()).await;
    for provider in ["api", "aws", "bigquery", "snowflake"] {
        let id = issued.body["credentials"][provider]["issuance_id"].as_str().unwrap();
        assert!(said.contains(id), "{provider}: {said}");
    }
    assert!(said.contains("enforced") && said.contains("expires_at"), "the truth about each: {said}");
    let list = admin.json(&["revocation", "list"]).await;
    let id = list["revocations"][0]["id"].as_str().unwrap();
    assert_eq!(admin.json(&["revocation", "show", id]).await["pending"], 0);
    assert!(admin.says(&["revocation", "list"]).await.contains("DAG hello_cortex"));

    let one = issued.body["credentials"]["api"]["issuance_id"].as_str().unwrap();
    assert!(admin.says(&["issuance", "revoke", "--issuance", one, "--reason", "again"]).await.contains(one));
    assert_eq!(admin.fails(&["issuance", "revoke", "--reason", "of what?"]).await.0, 2);
    assert_eq!(admin.fails(&["revocation", "show", "0199c1de-0000-7000-8000-000000000000"]).await.0, 4);
    let dave = Terminal::of(&world, "dave", &["auditors"]);
    assert_eq!(dave.fails(&what).await.0, 3);
}
