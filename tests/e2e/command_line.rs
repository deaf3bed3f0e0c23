//! The command line as an operator and a policy author use it.

use std::path::Path;
use std::process::Output;

use cortex_tests::world::database;
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;
use tokio::process::Command;

const PROGRAM: &str = env!("CARGO_BIN_EXE_cortex-under-test");

/// A folder of files, a database, and the program.
struct Desk {
    folder: TempDir,
    database_url: String,
}

const POLICY: &str = "name: hello\nwho: {airflow: prod, dags: [hello]}\nwhat:\n  api: \
                      {audience: \"https://ledger.acme.example\", scopes: [read]}\n";

impl Desk {
    async fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), database_url: database().await }
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        Command::new(PROGRAM)
            .args(arguments)
            .current_dir(self.folder.path())
            .env("DATABASE_URL", &self.database_url)
            .env("USER", "olga")
            .env_remove("CORTEX_CONFIG")
            .output()
            .await
            .unwrap()
    }

    async fn says(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

#[tokio::test]
async fn a_bad_document_gets_the_line_the_reason_and_the_remedy_and_changes_nothing() {
    let desk = Desk::new().await;
    let file = desk.write("bad.yaml", &POLICY.replace("dags: [hello]", "dags: [\"*\"], dag: [x]"));
    for command in [["policy", "check"], ["policy", "apply"]] {
        let output = desk.run(&[command[0], command[1], &file]).await;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!output.status.success());
        assert!(text.contains("bad.yaml:2:"), "{text}");
        assert!(text.lines().count() >= 2, "every fault is told at once: {text}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("nothing was changed"));
    }
    assert!(!desk.says(&["policy", "list"]).await.contains("hello"));
}

#[tokio::test]
async fn the_first_policies_go_straight_onto_the_database_on_record_as_such() {
    let desk = Desk::new().await;
    let file = desk.write("hello.yaml", POLICY);
    assert!(desk.says(&["policy", "apply", &file]).await.contains("hello: version 1 is in force"));
    assert!(desk.says(&["policy", "apply", &file]).await.contains("hello: unchanged"));
    desk.write("hello.yaml", &POLICY.replace("[hello]", "[hello, goodbye]"));
    assert!(desk.says(&["policy", "diff", &file]).await.contains("goodbye"));
    assert!(desk.says(&["policy", "apply", &file]).await.contains("version 2"));
    assert!(desk.says(&["policy", "show", "hello"]).await.contains("goodbye"));
    assert!(desk.says(&["policy", "explain", "hello"]).await.contains("permit"));
    let history = desk.says(&["policy", "history", "hello"]).await;
    assert!(history.contains("operator:olga") && history.lines().count() >= 3, "{history}");
    assert!(desk.says(&["policy", "retire", "hello"]).await.contains("no longer in force"));
    let mut connection = PgConnection::connect(&desk.database_url).await.unwrap();
    let kinds: Vec<(String, String)> = sqlx::query_as(
        "SELECT kind, opened_principal(principal) FROM record WHERE principal IS NOT NULL ORDER BY id",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    let by = || "operator:olga".to_owned();
    let expected = [("policy.applied", by()), ("policy.applied", by()), ("policy.retired", by())];
    assert_eq!(kinds, expected.map(|(kind, by)| (kind.to_owned(), by)));
}

#[tokio::test]
async fn a_policys_tests_fail_with_the_line_of_the_case() {
    let desk = Desk::new().await;
    desk.write("hello.yaml", POLICY);
    let case = "policy: hello\ntarget: api\ntime: 2026-11-23T12:00:00Z\n\
                run: {issuer: prod, dag_id: other, task_id: t}\ncases:\n  - name: anybody may\n    expect: permit\n";
    desk.write("hello.test.yaml", case);
    let output = desk.run(&["policy", "test", "."]).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!output.status.success());
    assert!(text.contains("hello.test.yaml:6") && text.contains("0 passed, 1 failed"), "{text}");
}

#[tokio::test]
async fn keys_rotate_with_overlap_and_the_one_that_signs_is_not_retired() {
    let desk = Desk::new().await;
    desk.says(&["keys", "rotate", "--now"]).await;
    assert!(Path::new(&desk.folder.path().join("cortex.key")).is_file());
    let rotated = desk.says(&["keys", "rotate"]).await;
    let next = rotated.split_whitespace().next().unwrap().to_owned();
    let list = desk.says(&["keys", "list"]).await;
    assert!(list.contains("signs from") && list.matches("signs").count() == 2, "{list}");
    let signs = list.lines().find(|line| line.contains("signs ") && !line.contains("from")).unwrap();
    let current = signs.split_whitespace().next().unwrap();
    assert!(!desk.run(&["keys", "retire", current]).await.status.success());
    assert!(desk.says(&["keys", "retire", &next]).await.contains("no longer published"));
    let unknown = desk.run(&["keys", "retire", "-begins-like-an-option"]).await;
    assert!(!unknown.status.success());
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(said.contains("-begins-like-an-option") && !said.contains("Usage"), "{said}");
}

#[tokio::test]
async fn a_configuration_with_an_unknown_key_is_refused_with_its_line() {
    let desk = Desk::new().await;
    desk.write("cortex.toml", "[server]\nlisten = \"127.0.0.1:0\"\nlisen = 1\n");
    let output = desk.run(&["config", "check"]).await;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(text.contains("line 3") && text.contains("lisen"), "{text}");
}

#[tokio::test]
async fn without_issuers_or_a_database_serve_says_what_to_do() {
    let desk = Desk::new().await;
    let output = desk.run(&["serve"]).await;
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("[[issuers]]"));
}

#[tokio::test]
async fn guardrails_that_do_not_go_together_change_nothing() {
    let desk = Desk::new().await;
    let rule = "@id(\"no-long-lives\")\nforbid (principal is Run, action == Action::\"issue\", resource)\nwhen { \
                context.ttl_seconds > 7200 };\n";
    let (one, two) = (desk.write("one.cedar", rule), desk.write("two.cedar", rule));
    desk.says(&["policy", "apply", &one]).await;
    let output = desk.run(&["policy", "apply", &two]).await;
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("nothing was changed"), "{output:?}");
    let list = desk.says(&["policy", "list"]).await;
    assert!(list.contains("one") && !list.contains("two"), "{list}");
    let empty = desk.write("empty.cedar", "// no rule\n");
    assert!(!desk.run(&["policy", "apply", &empty]).await.status.success());
}

#[tokio::test]
async fn the_demo_is_what_it_says() {
    let output = Command::new(PROGRAM).arg("demo").env_remove("DATABASE_URL").output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("Everything was what it said"), "{text}");
}
