//! Reports for auditors: complete as of a checkpoint, harmless in a spreadsheet and in a browser, each row with its proof.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cortex_tests::world::{TestWorld, first_run};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::process::Command;
use uuid::Uuid;

use super::questions::known;
use crate::grants::{bob_approves, by_hand, pending};

const PROGRAM: &str = env!("CARGO_BIN_EXE_cortex-under-test");
const REPORTS: [&str; 5] = ["access-review", "approvals", "policy-changes", "revocations", "break-glass"];
/// What somebody writes who wants an auditor's spreadsheet, or browser, to do something.
const HOSTILE: &str = "=HYPERLINK(\"http://evil.example\";\"<script>alert(1)</script>\")";

/// A quarter in which everything happened.
async fn eventful() -> TestWorld {
    let world = TestWorld::start().await;
    assert_eq!(world.ask_for(&first_run("r1"), "first-steps").await.status, StatusCode::OK);
    let grant = pending(&world, &by_hand("m1"), "first-steps").await;
    bob_approves(&world, &grant).await;
    assert_eq!(world.ask_for(&by_hand("m1"), "first-steps").await.status, StatusCode::OK);
    let glass = "when: {max_ttl: 30m}\nbreak_glass: {approvers: {groups: [staff/finance-admins]}}";
    crate::grants::apply(&world, &crate::grants::close_books_at(glass, "")).await;
    let ask = json!({"policy": "close-books", "break_glass": true, "reason": HOSTILE});
    let waiting = world.ask(&world.token(&by_hand("m2")), ask).await;
    assert_eq!(waiting.body["error"], "authorization_pending", "{waiting:?}");
    let erin = world.person("erin", &["cortex-admins"]);
    let issuance = &world.record(&["issuance.issued"]).await[0]["issuance_id"];
    let body = json!({"issuance_id": issuance, "reason": HOSTILE});
    let revoked = world.as_person(Method::POST, "/v1/revocations", &erin, Some(body)).await;
    assert!(revoked.status.is_success(), "{revoked:?}");
    let settled = "SELECT EXISTS (SELECT FROM record WHERE kind = 'revocation.settled')";
    let until = tokio::time::Instant::now() + std::time::Duration::from_mins(1);
    while !sqlx::query_scalar::<_, bool>(settled).fetch_one(world.pool()).await.unwrap() {
        assert!(tokio::time::Instant::now() < until, "it is never settled");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    known(&world).await;
    world
}

async fn report(world: &TestWorld, name: &str, format: &str) -> String {
    let url = world.url(&format!("/v1/reports/{name}?quarter=2026Q4&format={format}"));
    let token = world.person("dave", &["auditors"]);
    let response = world.http.get(url).bearer_auth(token).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "{name}");
    assert!(response.headers().contains_key("cortex-checkpoint"), "{name}");
    response.text().await.unwrap()
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// The rows between what a report says of itself and its end, which counts them.
fn rows(lines: &[Value]) -> &[Value] {
    let rows = &lines[1..lines.len() - 1];
    assert_eq!(lines[lines.len() - 1]["rows"], rows.len(), "the end counts the rows");
    rows
}

#[tokio::test]
async fn each_report_has_every_record_of_its_period_and_names_its_controls_and_its_checkpoint() {
    let world = eventful().await;
    for (name, kinds) in [
        ("approvals", &["grant.requested", "grant.decided"][..]),
        ("policy-changes", &["policy.applied", "policy.retired", "guardrails.applied"]),
        ("revocations", &["revocation.requested", "revocation.settled", "revocation.failing"]),
    ] {
        let lines = json_lines(&report(&world, name, "jsonl").await);
        let controls = lines[0]["controls"].to_string();
        assert!(
            controls.contains("SOC 2: CC6.") && controls.contains("ISO/IEC 27001:2022: A.5.1"),
            "{controls}"
        );
        assert!(lines[0]["checkpoint"].as_str().unwrap().contains("\n— "), "{}", lines[0]);
        let mut ids: Vec<Value> =
            rows(&lines).iter().map(|row| row["records"][0]["record"].clone()).collect();
        ids.sort_by_key(Value::to_string);
        let on_record = world.record(kinds).await;
        let mut expected: Vec<Value> = on_record.iter().map(|leaf| leaf["id"].clone()).collect();
        expected.sort_by_key(Value::to_string);
        assert_eq!(ids, expected, "{name}");
    }
    let review = json_lines(&report(&world, "access-review", "jsonl").await);
    let review = rows(&review);
    assert_eq!(review.len(), 4, "one task, four targets: {review:?}");
    assert!(review.iter().all(|row| row["asked"] == "2" && row["issued"] == "2"), "{review:?}");
    assert!(
        review
            .iter()
            .all(|row| row["dag"] == "hello_cortex" && row["records"].as_array().unwrap().len() == 2)
    );
    let glass = json_lines(&report(&world, "break-glass", "jsonl").await);
    let glass = rows(&glass);
    assert_eq!((glass.len(), &glass[0]["run"]), (1, &json!("m2")), "{glass:?}");
    let approvals = json_lines(&report(&world, "approvals", "jsonl").await);
    let decided = rows(&approvals).iter().find(|row| row["event"] == "grant.decided").unwrap();
    assert_eq!((&decided["who"], &decided["decision"]), (&json!("person:staff:bob"), &json!("approve")));
    let settled = json_lines(&report(&world, "revocations", "jsonl").await);
    let settled = rows(&settled).iter().find(|row| row["event"] == "revocation.settled").unwrap();
    assert!(settled["longest_delay_s"].as_str().unwrap().parse::<u64>().is_ok(), "{settled}");
}

#[tokio::test]
async fn each_row_s_proof_is_the_receipt_of_its_record_s_leaf() {
    let world = eventful().await;
    for name in REPORTS {
        let report_rows = json_lines(&report(&world, name, "jsonl").await);
        let proofs = json_lines(&report(&world, name, "proof").await);
        assert_eq!(rows(&report_rows).len(), rows(&proofs).len(), "{name}");
        for (row, proof) in rows(&report_rows).iter().zip(rows(&proofs)) {
            for (place, proof) in
                row["records"].as_array().unwrap().iter().zip(proof["records"].as_array().unwrap())
            {
                assert_eq!((&place["record"], &place["index"]), (&proof["record"], &proof["index"]));
                let id: Uuid = proof["record"].as_str().unwrap().parse().unwrap();
                let (leaf, seal): (Vec<u8>, String) =
                    sqlx::query_as("SELECT leaf, seal FROM record WHERE id = $1")
                        .bind(id)
                        .fetch_one(world.pool())
                        .await
                        .unwrap();
                let hash = digest(&SHA256, &[b"\0", &leaf[..], b"\n", seal.as_bytes()].concat());
                assert_eq!(proof["leaf_hash"], STANDARD.encode(hash), "{proof}");
                assert_eq!(proof["receipt"]["leaf_hash"], proof["leaf_hash"], "{proof}");
                assert_eq!(proof["receipt"]["seal"], json!(seal), "{proof}");
            }
        }
    }
}

#[tokio::test]
async fn what_a_requester_wrote_is_text_in_a_spreadsheet_and_in_a_browser() {
    let world = eventful().await;
    let csv = report(&world, "approvals", "csv").await;
    assert!(csv.contains("\"'=HYPERLINK(\"\"http://evil.example\"\""), "{csv}");
    assert!(csv.lines().all(|line| !line.contains(",=") && !line.contains(",\"=")), "{csv}");
    let html = report(&world, "approvals", "html").await;
    assert!(!html.contains("<script") && html.contains("&lt;script&gt;"), "{html}");
    assert!(html.trim_end().ends_with("</html>") && html.contains("End of the report."), "{html}");
}

#[tokio::test]
async fn who_may_not_and_what_cannot_be_is_said() {
    let world = TestWorld::start().await;
    let (dave, alice) = (world.person("dave", &["auditors"]), world.person("alice", &["finance-admins"]));
    for (path, token, status) in [
        ("/v1/reports", &dave, StatusCode::OK),
        ("/v1/reports", &alice, StatusCode::FORBIDDEN),
        ("/v1/reports/approvals?quarter=2026Q4", &alice, StatusCode::FORBIDDEN),
        ("/v1/reports/dinner?quarter=2026Q4", &dave, StatusCode::NOT_FOUND),
        ("/v1/reports/approvals", &dave, StatusCode::BAD_REQUEST),
        ("/v1/reports/approvals?quarter=2026Q5", &dave, StatusCode::BAD_REQUEST),
        ("/v1/reports/approvals?quarter=2026Q4&from=2026-10-01T00:00:00Z", &dave, StatusCode::BAD_REQUEST),
        (
            "/v1/reports/approvals?from=2026-10-02T00:00:00Z&to=2026-10-01T00:00:00Z",
            &dave,
            StatusCode::BAD_REQUEST,
        ),
        ("/v1/reports/approvals?quarter=2026Q4&format=parquet", &dave, StatusCode::BAD_REQUEST),
    ] {
        let answer = world.as_person(Method::GET, path, token, None).await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn the_command_line_writes_a_report_with_its_proof_and_its_checkpoint_beside_it() {
    let world = eventful().await;
    let folder = tempfile::tempdir().unwrap();
    for format in ["html", "csv", "jsonl"] {
        let mut command = Command::new(PROGRAM);
        command.args(["report", "approvals", "--quarter", "2026Q4", "--format", format, "--out", "audit"]);
        command.args(["--server", &world.url("")]).env_clear().current_dir(folder.path());
        command.env("HOME", folder.path()).env("CORTEX_TOKEN", world.person("dave", &["auditors"]));
        let output = command.output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let read = |ending: &str| {
            std::fs::read_to_string(folder.path().join(format!("audit/approvals.{ending}"))).unwrap()
        };
        assert!(!read(format).is_empty());
        assert!(!rows(&json_lines(&read("proof.jsonl"))).is_empty());
        assert!(read("checkpoint").contains("\n— "), "{}", read("checkpoint"));
    }
}
