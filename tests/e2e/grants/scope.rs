//! What an approval holds for, and how often.

use cortex_sandbox::RunClaims;
use cortex_tests::pg_proxy::{Loss, PgProxy};
use cortex_tests::world::{Answer, INSIDE, TestWorld, answer, database, first_run};
use jiff::SignedDuration;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{apply, bob_approves, by_hand, close_books, pending, say, show};
use crate::replicas::second;

fn task(run_id: &str, task_id: &str) -> RunClaims {
    RunClaims { task_id: task_id.into(), ..by_hand(run_id) }
}

#[tokio::test]
async fn for_a_run_it_holds_for_every_task_of_that_run_and_for_no_other() {
    let world = TestWorld::start().await;
    apply(&world, &close_books("  valid_for: run\n")).await;
    let grant = pending(&world, &task("m1", "load"), "close-books").await;
    assert_eq!(pending(&world, &task("m1", "write"), "close-books").await, grant, "it is one request");
    bob_approves(&world, &grant).await;
    for run in [task("m1", "load"), task("m1", "write"), RunClaims { map_index: 3, ..task("m1", "write") }] {
        let issued = world.ask_for(&run, "close-books").await;
        assert_eq!(issued.status, StatusCode::OK, "{run:?}: {issued:?}");
    }
    for other in
        [task("m2", "load"), RunClaims { triggering_user_name: Some("mallory".into()), ..task("m1", "load") }]
    {
        assert_ne!(pending(&world, &other, "close-books").await, grant, "{other:?}");
    }
    let shorter = json!({"policy": "close-books", "ttl_seconds": 600});
    let shorter = world.ask(&world.token(&task("m1", "load")), shorter).await;
    assert_ne!(shorter.body["grant_id"], json!(grant), "another lifetime is another request: {shorter:?}");
}

#[tokio::test]
async fn a_task_whose_scope_is_another_asks_for_itself_even_where_the_run_is_approved() {
    let world = TestWorld::start().await;
    let s3 = |resource: &str| {
        close_books("  valid_for: run\n").replace(
            "  api: {audience: 'https://ledger.acme.example', scopes: [postings:read]}\n",
            &format!(
                "  aws:\n    role: arn:aws:iam::123456789012:role/finance-publish\n    allow:\n      \
                 - {{actions: [s3:PutObject], resources: ['arn:aws:s3:::finance-mart/{resource}/*']}}\n"
            ),
        )
    };
    apply(&world, &s3("{run_id}")).await;
    let grant = pending(&world, &task("m1", "load"), "close-books").await;
    bob_approves(&world, &grant).await;
    let issued = world.ask_for(&task("m1", "write"), "close-books").await;
    assert_eq!(
        issued.status,
        StatusCode::OK,
        "only the session's name tells the two tasks apart: {issued:?}"
    );
    apply(&world, &s3("{run_id}/{task_id}")).await;
    let grant = pending(&world, &task("m1", "load"), "close-books").await;
    bob_approves(&world, &grant).await;
    assert_ne!(pending(&world, &task("m1", "write"), "close-books").await, grant, "it does not widen");
}

#[tokio::test]
async fn for_a_window_it_holds_for_every_run_of_the_dag_until_it_is_over() {
    let world = TestWorld::start().await;
    apply(&world, &close_books("  valid_for: {window: 4h}\n")).await;
    let grant = pending(&world, &by_hand("m1"), "close-books").await;
    bob_approves(&world, &grant).await;
    world.clock.advance(SignedDuration::from_secs(4 * 3_600 - 1));
    assert_eq!(world.ask_for(&by_hand("m2"), "close-books").await.status, StatusCode::OK);
    world.clock.advance(SignedDuration::from_secs(1));
    let next = pending(&world, &by_hand("m3"), "close-books").await;
    assert_ne!(next, grant, "the window is over");
    let carol = world.person("carol", &["finance-admins"]);
    assert_eq!(say(&world, &next, "deny", &carol, "not today").await.status, StatusCode::OK);
    let denied = world.ask_for(&by_hand("m4"), "close-books").await;
    assert_eq!(denied.body["error"], "access_denied", "{denied:?}");
    world.clock.advance(SignedDuration::from_hours(4));
    pending(&world, &by_hand("m4"), "close-books").await;
}

#[tokio::test]
async fn its_uses_are_counted_and_the_last_one_spends_it() {
    let world = TestWorld::start().await;
    apply(&world, &close_books("  uses: 2\n  valid_for: run\n")).await;
    let grant = pending(&world, &task("m1", "a"), "close-books").await;
    bob_approves(&world, &grant).await;
    let first = world.ask_for(&task("m1", "a"), "close-books").await;
    let again = world.ask_for(&task("m1", "a"), "close-books").await;
    let issuance = |answer: &Answer| answer.body["credentials"]["api"]["issuance_id"].clone();
    assert_eq!(issuance(&first), issuance(&again), "the same credential again is no use: {again:?}");
    assert_eq!(show(&world, &grant).await["uses_left"], 1);
    assert_eq!(world.ask_for(&task("m1", "b"), "close-books").await.status, StatusCode::OK);
    let shown = show(&world, &grant).await;
    assert_eq!((&shown["status"], &shown["uses_left"]), (&json!("spent"), &json!(0)), "{shown}");
    let held = world.ask_for(&task("m1", "b"), "close-books").await;
    assert_eq!(held.status, StatusCode::OK, "what a task has, it is given again: {held:?}");
    assert_ne!(pending(&world, &task("m1", "c"), "close-books").await, grant);
}

#[tokio::test]
async fn two_replicas_at_once_never_use_it_more_often_than_it_says() {
    let world = TestWorld::start().await;
    let second = second(&world).await;
    apply(&world, &close_books("  uses: 3\n  valid_for: run\n")).await;
    second.broker.library.refresh(world.pool()).await.unwrap();
    let grant = pending(&world, &task("m1", "t0"), "close-books").await;
    bob_approves(&world, &grant).await;
    let asks: Vec<_> = (0..12)
        .map(|n| {
            let token = world.token(&task("m1", &format!("t{n}")));
            let at = if n % 2 == 0 { world.world.cortex.address } else { second.address };
            let request = world.http.post(format!("http://{at}/v1/credentials")).bearer_auth(token);
            let request = request.header("x-forwarded-for", INSIDE).json(&json!({"policy": "close-books"}));
            tokio::spawn(answer(request))
        })
        .collect();
    let mut answers = Vec::new();
    for ask in asks {
        answers.push(ask.await.unwrap());
    }
    let issued = answers.iter().filter(|answer| answer.status == StatusCode::OK).count();
    assert_eq!(issued, 3, "{answers:?}");
    let record = world.record(&["issuance.issued"]).await;
    assert_eq!(record.iter().filter(|leaf| leaf["grant"]["id"] == json!(grant)).count(), 3);
    assert_eq!(show(&world, &grant).await["status"], "spent");
    second.shut_down().await;
}

#[tokio::test]
async fn a_commit_that_is_lost_counts_no_use_and_one_whose_answer_is_lost_counts_one() {
    let url = database().await;
    let proxy = PgProxy::start(&url);
    let world =
        TestWorld::start_on(proxy.url.clone(), |config| config.database.commit_timeout_ms = 2_000).await;
    apply(&world, &close_books("  uses: 3\n  valid_for: run\n")).await;
    let grant = pending(&world, &task("m1", "t"), "close-books").await;
    bob_approves(&world, &grant).await;
    for (loss, status, used) in [(Loss::Commit, 503, 0), (Loss::Answer, 200, 1)] {
        proxy.lose(loss, "issuance.issued", 1);
        let answer = world.ask_for(&task("m1", &format!("t{status}")), "close-books").await;
        assert_eq!(answer.status.as_u16(), status, "{loss:?}: {answer:?}");
        assert_eq!(show(&world, &grant).await["uses"], used, "{loss:?}");
        assert_eq!(world.record(&["issuance.issued"]).await.len(), used, "{loss:?}");
    }
}

/// What a person asks for the scheduled runs of `hello_cortex`.
async fn preapprove(world: &TestWorld, who: &str, body: Value) -> Answer {
    let token = world.person(who, &["finance-admins"]);
    let mut whole = json!({"policy": "nightly", "dag_id": "hello_cortex", "until": "2026-12-23T00:00:00Z"});
    whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    world.as_person(Method::POST, "/v1/preapprovals", &token, Some(whole)).await
}

fn nightly(approval: &str) -> String {
    close_books(approval)
        .replace("name: close-books", "name: nightly")
        .replace("required_for: {run_types: [manual]}", "required_for: always")
}

#[tokio::test]
async fn scheduled_runs_are_approved_before_they_run_until_an_end_date() {
    let world = TestWorld::start().await;
    apply(&world, &nightly("")).await;
    pending(&world, &first_run("s0"), "nightly").await;
    let made = preapprove(&world, "carol", json!({"reason": "every night", "tasks": ["publish_mart"]})).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let grant = made.body["id"].as_str().unwrap().to_owned();
    assert_eq!((&made.body["kind"], &made.body["status"]), (&json!("standing"), &json!("requested")));
    pending(&world, &first_run("s1"), "nightly").await;
    let own = say(&world, &grant, "approve", &world.person("carol", &["finance-admins"]), "").await;
    assert_eq!(own.body["type"], "urn:cortex:problem:own-request", "who asks does not approve: {own:?}");
    bob_approves(&world, &grant).await;
    let issued = world.ask_for(&first_run("s1"), "nightly").await;
    assert_eq!(issued.status, StatusCode::OK, "{issued:?}");
    let record = world.record(&["issuance.issued"]).await;
    let used = json!({"id": grant, "approvers": ["person:staff:bob"], "standing": true});
    assert_eq!(record[0]["grant"], used, "the issuance names it");
    for other in [
        by_hand("m1"),
        RunClaims { run_type: None, ..first_run("s2") },
        RunClaims { task_id: "other".into(), ..first_run("s2") },
    ] {
        pending(&world, &other, "nightly").await;
    }
    let dave = world.person("dave", &["auditors"]);
    let path = "/v1/grants?kind=standing&status=approved&dag_id=hello_cortex";
    let listed = world.as_person(Method::GET, path, &dave, None).await;
    assert_eq!(listed.body["grants"][0]["id"], json!(grant), "{listed:?}");
    world.clock.set("2026-12-23T00:00:00Z".parse().unwrap());
    pending(&world, &first_run("s3"), "nightly").await;
    cortex_server::supervisor::sweep(&world.world.cortex.broker).await.unwrap();
    let ended = world.record(&["preapproval.ended"]).await;
    assert_eq!((ended.len(), &ended[0]["status"]), (1, &json!("expired")), "{ended:?}");
}

#[tokio::test]
async fn a_new_version_or_a_withdrawal_ends_what_was_approved_beforehand() {
    let world = TestWorld::start().await;
    for (round, by_policy) in [("a", true), ("b", false)] {
        apply(&world, &nightly("")).await;
        let made = preapprove(&world, "carol", json!({})).await;
        let grant = made.body["id"].as_str().unwrap().to_owned();
        bob_approves(&world, &grant).await;
        assert_eq!(world.ask_for(&first_run(round), "nightly").await.status, StatusCode::OK);
        if by_policy {
            apply(&world, &nightly("  quorum: 2\n")).await;
        } else {
            let bob = world.person("bob", &["finance-admins"]);
            let path = format!("/v1/grants/{grant}/withdraw");
            let body = json!({"comment": "the quarter is over"});
            let withdrawn = world.as_person(Method::POST, &path, &bob, Some(body)).await;
            assert_eq!(withdrawn.body["status"], "withdrawn", "{withdrawn:?}");
        }
        pending(&world, &RunClaims { try_number: 2, ..first_run(round) }, "nightly").await;
        let ended = world.record(&["preapproval.ended"]).await;
        let one = ended.iter().find(|leaf| leaf["grant_id"] == json!(grant)).unwrap();
        assert_eq!(one["status"], if by_policy { "voided" } else { "withdrawn" }, "{ended:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_approved_beforehand_is_refused_with_a_reason() {
    let world = TestWorld::start().await;
    apply(&world, &nightly("  require: [ticket]\n")).await;
    for (body, status) in [
        (json!({"ticket": "F-1", "until": "2026-11-23T01:00:00Z"}), 400),
        (json!({"ticket": "F-1", "until": "2027-11-23T01:00:00Z"}), 400),
        (json!({"ticket": "F-1", "until": "soon"}), 400),
        (json!({"ticket": "F-1", "tasks": []}), 400),
        (json!({"ticket": "F-1", "dag_id": "*"}), 400),
        (json!({"ticket": "F-1", "policy": "none"}), 404),
        (json!({}), 422),
        (json!({"ticket": "F-1"}), 201),
    ] {
        let answer = preapprove(&world, "carol", body.clone()).await;
        assert_eq!(answer.status.as_u16(), status, "{body}: {answer:?}");
    }
    apply(&world, &nightly("  uses: 2\n")).await;
    let counted = preapprove(&world, "carol", json!({})).await;
    assert_eq!(counted.status, StatusCode::UNPROCESSABLE_ENTITY, "{counted:?}");
}
