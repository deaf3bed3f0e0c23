//! Asks that no policy may answer, and policies that may not be written (the attack table, rows about policy).

use std::collections::BTreeSet;

use cortex_sandbox::RunClaims;
use cortex_tests::attack::nothing_was_issued;
use cortex_tests::forge::{near_miss, part};
use cortex_tests::world::{Answer, TestWorld, finance_run, first_run};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

async fn apply(world: &TestWorld, source: &str) -> Answer {
    let admin = world.person("erin", &["cortex-admins"]);
    let answer =
        world.as_person(Method::POST, "/v1/policies", &admin, Some(json!({"documents": [source]}))).await;
    world.world.cortex.broker.library.refresh(world.pool()).await.expect("a refresh");
    answer
}

async fn in_force(world: &TestWorld, source: &str) {
    let answer = apply(world, source).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
}

/// A policy for the private API, open to these DAGs.
fn policy(name: &str, who: &str) -> String {
    format!(
        "name: {name}\ndescription: A policy of a test\nwho:\n  airflow: prod\n{who}what:\n  api:\n    audience: \
         https://ledger.acme.example\n    scopes: [postings:read]\nwhen:\n  max_ttl: 5m\n"
    )
}

#[tokio::test]
async fn a_policy_that_could_be_misread_is_refused_when_it_is_written() {
    let world = TestWorld::start().await;
    let before = world.record(&["policy.applied"]).await.len();
    for (id, source) in [
        ("A44", policy("\"ROOT \"", "  dags: [a]\n")),
        ("A44", policy("Admin", "  dags: [a]\n")),
        ("A44", policy("\u{430}dmin", "  dags: [a]\n")),
        ("A44", policy("finance--data", "  dags: [a]\n")),
        ("A46", policy("empty-who", "")),
        ("A46", policy("empty-who", "  dags: []\n")),
        ("A46", policy("empty-who", "  dags: [\"\"]\n")),
        ("A46", policy("empty-who", "  dags: [a]\n  run_types: []\n")),
        ("A35", policy("patterns", "  dags: [\"prod|stage.*\"]\n")),
        ("A35", policy("patterns", "  dags: [\"^prod$\"]\n")),
        ("A35", policy("patterns", "  dags: [\"prod?\"]\n")),
        ("typo", policy("typo", "  dags: [a]\n  dag: [b]\n")),
        ("twice", policy("twice", "  dags: [a]\n  dags: [b]\n")),
    ] {
        let answer = apply(&world, &source).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{id} {source}: {answer:?}");
        let faults = answer.body["problems"].as_array().unwrap();
        let says = |fault: &Value| {
            fault["line"].as_u64() > Some(0) && !fault["remedy"].as_str().unwrap_or("").is_empty()
        };
        assert!(!faults.is_empty() && faults.iter().all(says), "{id} {source}: {answer:?}");
    }
    assert_eq!(world.record(&["policy.applied"]).await.len(), before, "something came into force");
}

/// Asks that a policy in force does not answer: everything about them is the same as for a policy that does not
/// exist, but the code on record.
#[tokio::test]
async fn whom_no_policy_names_learns_nothing_not_even_that_it_exists() {
    let world = TestWorld::start().await;
    in_force(
        &world,
        &policy("finance-only", "  dags: [finance_publish]\n  run_types: [scheduled]\n  teams: [finance]\n"),
    )
    .await;
    let run = |dag: &str| RunClaims::scheduled(dag, "r", "publish_mart");
    let unknown = |dag: &str| (world.token(&run(dag)), "no-such-policy");
    let typeless = near_miss(&world, &finance_run("r"), |claims| {
        drop(claims["airflow"].as_object_mut().unwrap().remove("run_type"));
    });
    let staff = world.person("mallory", &["finance-admins"]);
    let rows = [
        ("A54", unknown("stranger"), "no_match"),
        ("A37", (world.token(&run("dag_attacker")), "finance-data-publish"), "no_match"),
        ("A37", (world.token(&run("inance_publish")), "finance-data-publish"), "no_match"),
        ("A35", (world.token(&run("finance_publish_evil")), "finance-data-publish"), "no_match"),
        ("A35", (world.token(&run("my_finance_mart_daily")), "finance-data-publish"), "no_match"),
        ("A35", (world.token(&run("FINANCE_PUBLISH")), "finance-data-publish"), "no_match"),
        ("A47", (typeless, "finance-data-publish"), "no_match"),
        ("A47", (world.token(&finance_run("r")), "finance-only"), "no_match"),
        ("A54", (world.token(&run("hello_cortex")), "customer-data-erasure"), "no_match"),
        ("A53", (staff, "finance-data-publish"), "no_match"),
        ("A44", (world.token(&run("hello_cortex")), "First-Steps"), "no_match"),
        ("A44", (world.token(&run("hello_cortex")), "first-steps "), "no_match"),
        ("A44", (world.token(&run("hello_cortex")), "first-steps/../first-steps"), "no_match"),
    ];
    let mut answers = BTreeSet::new();
    for (id, (token, policy), code) in rows {
        let denied = world.record(&["denial"]).await.len();
        for provider in ["aws", "api", "nonsense"] {
            let answer = world.ask(&token, json!({"policy": policy, "targets": [provider]})).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{id} {policy}: {answer:?}");
            assert_eq!(answer.body["error"], "invalid_target", "{id} {policy}: {answer:?}");
            answers.insert(without_ids(&answer));
        }
        let all = world.ask(&token, json!({"policy": policy, "targets": ["aws", "api", "nonsense"]})).await;
        answers.insert(without_ids(&all));
        let denials = world.record(&["denial"]).await;
        assert_eq!(denials.len(), denied + 4, "one denial for each ask: {id} {policy}");
        assert!(denials[denied..].iter().all(|denial| denial["code"] == code), "{id} {policy}: {denials:?}");
    }
    assert_eq!(answers.len(), 1, "answers that differ tell something: {answers:#?}");
    nothing_was_issued(&world).await;
}

/// An answer, whole, without what is random in every answer.
fn without_ids(answer: &Answer) -> String {
    let mut body = answer.body.clone();
    let id = body["decision_id"].as_str().expect("a decision").to_owned();
    body["decision_id"] = json!("-".repeat(id.len()));
    let mut headers: Vec<_> =
        answer.headers.iter().filter(|(name, _)| *name != "date" && *name != "x-request-id").collect();
    headers.sort_by_key(|(name, _)| name.as_str());
    format!("{} {headers:?} {body}", answer.status)
}

#[tokio::test]
async fn whom_a_policy_names_learns_which_clause_denied_and_what_to_do() {
    let world = TestWorld::start().await;
    let request = |token: String, from: &str| {
        let request = world.http.post(world.url("/v1/credentials")).bearer_auth(token);
        request.header("x-forwarded-for", from.to_owned()).json(&json!({"policy": "finance-data-publish"}))
    };
    let outside = cortex_tests::world::answer(request(world.token(&finance_run("r")), "192.0.2.1")).await;
    assert_eq!(outside.body["error"], "invalid_target", "{outside:?}");
    assert!(
        outside.body["error_description"].as_str().unwrap().contains("finance-data-publish#where"),
        "{outside:?}"
    );
    world.clock.advance(jiff::SignedDuration::from_hours(6));
    let late = world.ask_for(&finance_run("r"), "finance-data-publish").await;
    assert!(
        late.body["error_description"].as_str().unwrap().contains("finance-data-publish#when"),
        "{late:?}"
    );
    let auditor = world.person("dave", &["auditors"]);
    for answer in [outside, late] {
        let id = answer.body["decision_id"].as_str().unwrap();
        let opened = world.as_person(Method::GET, &format!("/v1/issuances/{id}"), &auditor, None).await;
        assert_eq!(opened.status, StatusCode::OK, "{opened:?}");
        assert_eq!(opened.body["entries"][0]["kind"], "denial", "{opened:?}");
    }
    nothing_was_issued(&world).await;
}

#[tokio::test]
async fn a_guardrail_overrides_every_permit() {
    let world = TestWorld::start().await;
    let admin = world.person("erin", &["cortex-admins"]);
    let source = "@id(\"stop-hello\")\n@reason(\"This DAG is stopped.\")\n@remedy(\"Ask the platform team.\")\n\
                  forbid (principal is Run, action == Action::\"issue\", resource)\n\
                  when { principal.dag_id == \"hello_cortex\" };\n";
    let body = json!([{"name": "stop-hello", "source": source}]);
    let applied = world.as_person(Method::POST, "/v1/guardrails", &admin, Some(body)).await;
    assert_eq!(applied.status, StatusCode::OK, "{applied:?}");
    world.world.cortex.broker.library.refresh(world.pool()).await.unwrap();
    let denied = world.ask_for(&first_run("r"), "first-steps").await;
    assert_eq!(
        (denied.status, denied.body["error"].as_str()),
        (StatusCode::BAD_REQUEST, Some("invalid_target"))
    );
    assert!(denied.body["error_description"].as_str().unwrap().contains("stop-hello"), "A45 {denied:?}");
    let denials = world.record(&["denial"]).await;
    assert_eq!(denials[0]["code"], "guardrail", "A45 {denials:?}");
    nothing_was_issued(&world).await;
}

#[tokio::test]
async fn a_hole_without_a_value_is_refused_and_not_left_empty() {
    let world = TestWorld::start().await;
    let source = policy("team-files", "  dags: [hello_cortex]\n").replace(
        "  api:\n    audience: https://ledger.acme.example\n    scopes: [postings:read]\n",
        "  aws:\n    role: arn:aws:iam::123456789012:role/finance-publish\n    allow:\n      - actions: [s3:GetObject]\n        \
         resources: [\"arn:aws:s3:::finance-mart/{team}/*\"]\n",
    ).replace("5m", "30m");
    in_force(&world, &source).await;
    let denied = world.ask_for(&first_run("r"), "team-files").await;
    assert_eq!(denied.body["error"], "invalid_target", "A38 {denied:?}");
    assert_eq!(world.record(&["denial"]).await[0]["code"], "bad_value", "A38");
    nothing_was_issued(&world).await;
}

#[tokio::test]
async fn two_runs_never_share_a_subject() {
    let world = TestWorld::start().await;
    in_force(&world, &policy("subjects", "  dags: [\"a*\"]\n")).await;
    let run = |dag: &str, run: &str, task: &str, map_index: i64, try_number: u32| RunClaims {
        map_index,
        try_number,
        ..RunClaims::scheduled(dag, run, task)
    };
    let long = "r".repeat(250);
    let runs = [
        run("a:b", "c", "t", -1, 1),
        run("a", "b:c", "t", -1, 1),
        run("a", "b", "c:t", -1, 1),
        run("a", "b", "c", -1, 1),
        run("a", "b", "c", 0, 1),
        run("a", "b", "c", 1, 1),
        run("a", "b", "c", -1, 11),
        run("a", "b:-:1", "c", -1, 1),
        run("a.b", "c", "t", -1, 1),
        run("a", &long, "t", -1, 1),
        run("a", &long, "t", -1, 2),
    ];
    let mut subjects = BTreeSet::new();
    for run in &runs {
        let answer = world.exchange_token(&world.token(run), "urn:cortex:subjects:api").await;
        assert_eq!(answer.status, StatusCode::OK, "A41 {answer:?}");
        let sub = part(answer.body["access_token"].as_str().unwrap(), 1)["sub"].as_str().unwrap().to_owned();
        assert!(sub.len() <= 127, "A41 {sub}");
        assert!(subjects.insert(sub.clone()), "A41 {run:?} shares {sub}");
    }
}

#[tokio::test]
async fn a_live_lease_is_handed_out_again_to_the_same_ask_alone() {
    let world = TestWorld::start().await;
    let again =
        include_str!("../../config/dev/first-steps.yaml").replace("name: first-steps", "name: second-steps");
    in_force(&world, &again).await;
    let key = async |run: &RunClaims, policy: &str, ttl: i64| {
        let body = json!({"policy": policy, "targets": ["aws"], "ttl_seconds": ttl});
        let answer = world.ask(&world.token(run), body).await;
        assert_eq!(answer.status, StatusCode::OK, "A50 {answer:?}");
        let entry = &answer.body["credentials"]["aws"];
        (
            entry["credential"]["access_key_id"].as_str().unwrap().to_owned(),
            entry["lease_handle"].as_str().unwrap().to_owned(),
        )
    };
    let (first, handle) = key(&first_run("r1"), "first-steps", 1_800).await;
    assert_eq!(
        key(&first_run("r1"), "first-steps", 1_800).await.0,
        first,
        "the same ask gets the same session"
    );
    let retry = RunClaims { try_number: 2, ..first_run("r1") };
    let mapped = RunClaims { map_index: 3, ..first_run("r1") };
    let mut keys = BTreeSet::from([first]);
    for (run, policy, ttl) in [
        (first_run("r1"), "second-steps", 1_800),
        (first_run("r1"), "first-steps", 900),
        (first_run("r2"), "first-steps", 1_800),
        (retry, "first-steps", 1_800),
        (mapped, "first-steps", 1_800),
    ] {
        assert!(
            keys.insert(key(&run, policy, ttl).await.0),
            "A50 {run:?} {policy} {ttl} got another ask's session"
        );
    }
    let stolen = world.http.get(world.url("/v1/aws/second-steps")).header("authorization", &handle);
    let stolen = cortex_tests::world::answer(stolen).await;
    assert_eq!(stolen.status, StatusCode::BAD_REQUEST, "A50 a handle is bound to its policy: {stolen:?}");
}

#[tokio::test]
async fn groups_that_are_not_a_list_carry_no_role() {
    let world = TestWorld::start().await;
    let person = world.person("erin", &["cortex-admins"]);
    for groups in [
        json!("cortex-admins"),
        json!("a,cortex-admins"),
        json!({"0": "cortex-admins"}),
        json!(["Cortex-Admins"]),
        json!([["cortex-admins"]]),
    ] {
        let mut claims = part(&person, 1);
        claims["groups"] = groups.clone();
        let token = world.world.sandbox.forge(&claims).unwrap();
        let answer = world.as_person(Method::GET, "/v1/policies", &token, None).await;
        let refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&answer.status);
        assert!(refused, "A34 {groups}: {answer:?}");
    }
}
