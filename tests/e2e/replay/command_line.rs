//! `cortex policy replay`, straight on the database and over REST: what it prints, and what a pipeline reads.

use std::process::Output;

use cortex_core::Clock;
use cortex_tests::world::{AheadClock, TestWorld, database};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use super::{FIRST_STEPS, changed, permitted};

const PROGRAM: &str = env!("CARGO_BIN_EXE_cortex-under-test");

/// A folder of policies and two ways to the record.
pub(super) struct Desk {
    folder: TempDir,
    database_url: String,
    server: String,
    token: String,
}

impl Desk {
    /// A world at the machine's time, in which a run got its four credentials.
    pub(super) async fn new() -> (TestWorld<AheadClock>, Self) {
        let database_url = database().await;
        let world = TestWorld::start_live_on(database_url.clone()).await;
        permitted(&world, "s1").await;
        let (server, token) = (world.url(""), world.person("erin", &["cortex-admins"]));
        (world, Self { folder: tempfile::tempdir().unwrap(), database_url, server, token })
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    pub(super) async fn run(&self, over_rest: bool, arguments: &[&str]) -> Output {
        let mut command = Command::new(PROGRAM);
        command.arg("policy").args(arguments).env_clear().current_dir(self.folder.path());
        command.env("HOME", self.folder.path());
        if over_rest {
            command.args(["--server", &self.server]).env("CORTEX_TOKEN", &self.token);
        } else {
            command.env("DATABASE_URL", &self.database_url);
        }
        command.output().await.unwrap()
    }
}

/// What it printed.
pub(super) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn a_pipeline_tells_a_change_that_denies_from_one_that_does_not() {
    let (_world, desk) = Desk::new().await;
    desk.write("same.yaml", FIRST_STEPS);
    desk.write("narrow.yaml", &changed("dags: [hello_cortex]", "dags: [other]"));
    desk.write("bad.yaml", "name: x");
    desk.write("lifetime.cedar", include_str!("../../../config/guardrails/lifetime.cedar"));
    for over_rest in [false, true] {
        let same = desk.run(over_rest, &["replay", "same.yaml"]).await;
        assert_eq!(same.status.code(), Some(0), "{same:?}");
        assert!(text(&same).contains("4  as they were"), "{same:?}");
        let narrow = desk.run(over_rest, &["replay", "narrow.yaml", "--since", "1d"]).await;
        assert_eq!(narrow.status.code(), Some(7), "{narrow:?}");
        for said in
            ["4  permitted, would be denied", "hello_cortex", "publish_mart", "first-steps#who", "snowflake"]
        {
            assert!(text(&narrow).contains(said), "{said}: {}", text(&narrow));
        }
        let errors = String::from_utf8_lossy(&narrow.stderr);
        assert!(errors.contains("4 requests that got a credential would be denied"), "{errors}");
        for (arguments, code) in [
            (["replay", "bad.yaml", "--since", "1d"], 1),
            (["replay", "none.yaml", "--since", "1d"], 1),
            (["replay", "same.yaml", "--since", "soon"], 2),
            (["replay", ".", "--since", "1d"], 1),
            (["replay", "lifetime.cedar", "--since", "1d"], 2),
        ] {
            let output = desk.run(over_rest, &arguments).await;
            assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        }
    }
}

#[tokio::test]
async fn a_tool_reads_the_same_from_the_database_and_over_rest() {
    let (_world, desk) = Desk::new().await;
    desk.write("narrow.yaml", &changed("scopes: [postings:read]", "scopes: [postings:write]"));
    let mut results = Vec::new();
    for over_rest in [false, true] {
        let output = desk.run(over_rest, &["replay", "narrow.yaml", "--json", "--since", "2026-01-01"]).await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        results.push(serde_json::from_str::<Value>(&text(&output)).unwrap());
    }
    assert_eq!(results[0], results[1]);
    assert_eq!(results[0]["changed"], json!([{"change": "scope", "count": 1, "in_force_too": 0}]));
}

#[tokio::test]
async fn nothing_found_is_no_all_clear_where_a_record_cannot_be_read() {
    let (world, desk) = Desk::new().await;
    sqlx::query(
        "INSERT INTO record (id, at, kind, issuance_id, policy, provider, expires_at, leaf)
         SELECT overlay(id::text placing 'aaaa' from 25)::uuid, at, kind, gen_random_uuid(), policy, provider, expires_at,
                '{\"v\":9}'
         FROM record WHERE kind = 'issuance.intent' LIMIT 1",
    )
    .execute(world.pool())
    .await
    .unwrap();
    desk.write("same.yaml", FIRST_STEPS);
    let output = desk.run(false, &["replay", "same.yaml"]).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        text(&output).contains("1  not decided again: this version cannot read the record"),
        "{output:?}"
    );
    assert!(world.clock.now() > jiff::Timestamp::UNIX_EPOCH);
}
