//! Approvals: what people say about exactly one run, through REST.

mod ends;
mod machine;
mod rules;
mod scope;

use cortex_sandbox::RunClaims;
use cortex_tests::forge::part;
use cortex_tests::world::{Answer, TestWorld, first_run};
use jiff::SignedDuration;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// A run that alice started by hand: `first-steps` wants an approval for it.
pub(crate) fn by_hand(run_id: &str) -> RunClaims {
    RunClaims {
        run_type: Some("manual".into()),
        triggered_by: Some("ui".into()),
        triggering_user_name: Some("alice".into()),
        ..first_run(run_id)
    }
}

pub(crate) async fn pending(world: &TestWorld, run: &RunClaims, policy: &str) -> String {
    let answer = world.ask_for(run, policy).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{answer:?}");
    assert_eq!(answer.body["error"], "authorization_pending", "{answer:?}");
    assert!(answer.body["interval"].as_u64() > Some(0), "{answer:?}");
    answer.body["grant_id"].as_str().expect("a grant").to_owned()
}

/// A person's word on the grant as carol sees it.
pub(crate) async fn say(world: &TestWorld, grant: &str, verb: &str, token: &str, comment: &str) -> Answer {
    let seen = show(world, grant).await["request_digest"].clone();
    let body = json!({"comment": comment, "request_digest": seen});
    world.as_person(Method::POST, &format!("/v1/grants/{grant}/{verb}"), token, Some(body)).await
}

/// `close-books`: runs by hand of `hello_cortex` wait for a finance admin; `approval` is what it says beside that.
pub(crate) fn close_books(approval: &str) -> String {
    close_books_at("when: {max_ttl: 30m}", approval)
}

/// The same, open when `when` says. The policy mints at no cloud.
pub(crate) fn close_books_at(when: &str, approval: &str) -> String {
    format!(
        "name: close-books
who: {{airflow: prod, dags: [hello_cortex]}}
what:
  api: {{audience: 'https://ledger.acme.example', scopes: [postings:read]}}
{when}
approval:
  required_for: {{run_types: [manual]}}
  approvers: {{groups: [staff/finance-admins]}}
{approval}"
    )
}

/// Puts a policy in force, as erin.
pub(crate) async fn apply(world: &TestWorld, source: &str) {
    let admin = world.person("erin", &["cortex-admins"]);
    let body = json!({"documents": [source]});
    let applied = world.as_person(Method::POST, "/v1/policies", &admin, Some(body)).await;
    assert_eq!(applied.status, StatusCode::OK, "{applied:?}");
    world.world.cortex.broker.library.refresh(world.pool()).await.unwrap();
}

/// bob, a finance admin, approves.
pub(crate) async fn bob_approves(world: &TestWorld, grant: &str) {
    let bob = world.person("bob", &["finance-admins"]);
    let approved = say(world, grant, "approve", &bob, "").await;
    assert_eq!(approved.status, StatusCode::OK, "{approved:?}");
}

/// A person's token with other claims.
pub(crate) fn person_with(world: &TestWorld, sub: &str, groups: &[&str], claims: &Value) -> String {
    let mut payload = part(&world.person(sub, groups), 1);
    for (name, value) in claims.as_object().unwrap() {
        payload[name] = value.clone();
    }
    world.world.sandbox.forge(&payload).unwrap()
}

pub(crate) async fn show(world: &TestWorld, grant: &str) -> Value {
    let approver = world.person("carol", &["finance-admins"]);
    let answer = world.as_person(Method::GET, &format!("/v1/grants/{grant}"), &approver, None).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.body
}

#[tokio::test]
async fn a_run_by_hand_waits_and_is_issued_once_a_named_person_approves() {
    let world = TestWorld::start().await;
    let grant = pending(&world, &by_hand("m1"), "first-steps").await;
    assert_eq!(world.world.sandbox.mints(), [], "nothing is minted while it waits");
    assert_eq!(pending(&world, &by_hand("m1"), "first-steps").await, grant, "asking twice makes one grant");
    let bob = world.person("bob", &["finance-admins"]);
    let approved = say(&world, &grant, "approve", &bob, "month end").await;
    assert_eq!(approved.status, StatusCode::OK, "{approved:?}");
    let issued = world.ask_for(&by_hand("m1"), "first-steps").await;
    assert_eq!(issued.status, StatusCode::OK, "{issued:?}");
    let openings = world.record(&["issuance.intent", "issuance.issued"]).await;
    assert_eq!(openings.len(), 4);
    for opening in openings {
        assert_eq!(opening["grant"]["id"], json!(grant), "{opening}");
        assert_eq!(opening["grant"]["approvers"], json!(["person:staff:bob"]), "{opening}");
    }
    assert_eq!(world.record(&["grant.requested"]).await.len(), 1);
    assert_eq!(world.record(&["grant.decided"]).await.len(), 1);
}

#[tokio::test]
async fn nobody_approves_what_they_started_and_nobody_whom_the_policy_does_not_name() {
    let world = TestWorld::start().await;
    let grant = pending(&world, &by_hand("m1"), "first-steps").await;
    let second_account =
        person_with(&world, "u-17", &["finance-admins"], &json!({"email": "alice@acme.example"}));
    let third_account =
        person_with(&world, "u-18", &["finance-admins"], &json!({"preferred_username": "ALICE"}));
    for (what, token) in [
        ("alice herself", world.person("alice", &["finance-admins"])),
        ("alice in other letters", world.person("Alice", &["finance-admins"])),
        ("alice's second account", second_account),
        ("alice's third account", third_account),
        ("another group's approver", world.person("frank", &["privacy-officers"])),
        ("an admin whom the policy does not name", world.person("erin", &["cortex-admins"])),
        ("an auditor", world.person("dave", &["auditors"])),
        ("nobody", world.person("nobody", &[])),
    ] {
        for word in ["approve", "deny"] {
            let answer = say(&world, &grant, word, &token, "").await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "A74 {what} {word}: {answer:?}");
        }
    }
    let run = world.token(&by_hand("m1"));
    assert_eq!(
        say(&world, &grant, "approve", &run, "").await.status,
        StatusCode::FORBIDDEN,
        "the run itself"
    );
    assert_eq!(show(&world, &grant).await["status"], "requested");
    assert_eq!(world.record(&["grant.decided"]).await, Vec::<Value>::new());
    assert_eq!(pending(&world, &by_hand("m1"), "first-steps").await, grant);
}

#[tokio::test]
async fn a_denial_is_told_to_the_run_with_its_reason_and_is_the_last_word() {
    let world = TestWorld::start().await;
    let grant = pending(&world, &by_hand("m1"), "first-steps").await;
    let bob = world.person("bob", &["finance-admins"]);
    assert_eq!(say(&world, &grant, "deny", &bob, "not before the audit").await.status, StatusCode::OK);
    let denied = world.ask_for(&by_hand("m1"), "first-steps").await;
    assert_eq!(denied.body["error"], "access_denied", "{denied:?}");
    assert!(
        denied.body["error_description"].as_str().unwrap().contains("not before the audit"),
        "{denied:?}"
    );
    let carol = world.person("carol", &["finance-admins"]);
    assert_eq!(say(&world, &grant, "approve", &carol, "").await.status, StatusCode::CONFLICT);
    assert_eq!(world.world.sandbox.mints(), []);
}

#[tokio::test]
async fn a_grant_is_bound_to_its_run_its_task_and_what_was_asked() {
    let world = TestWorld::start().await;
    let grant = pending(&world, &by_hand("m1"), "first-steps").await;
    let bob = world.person("bob", &["finance-admins"]);
    assert_eq!(say(&world, &grant, "approve", &bob, "").await.status, StatusCode::OK);
    for other in [
        by_hand("m2"),
        RunClaims { task_id: "publish_other".into(), ..by_hand("m1") },
        RunClaims { map_index: 1, ..by_hand("m1") },
        RunClaims { triggering_user_name: Some("mallory".into()), ..by_hand("m1") },
    ] {
        assert_ne!(
            pending(&world, &other, "first-steps").await,
            grant,
            "{other:?} uses another run's approval"
        );
    }
    let narrower = json!({"policy": "first-steps", "targets": ["aws"]});
    let narrower = world.ask(&world.token(&by_hand("m1")), narrower).await;
    assert_ne!(narrower.body["grant_id"], json!(grant), "another request is another grant: {narrower:?}");
    let retry = RunClaims { try_number: 2, ..by_hand("m1") };
    assert_eq!(
        world.ask_for(&retry, "first-steps").await.status,
        StatusCode::OK,
        "a retry of the same run may use it"
    );
}

#[tokio::test]
async fn a_request_expires_and_so_does_an_approval() {
    let world = TestWorld::start_with(|config| {
        config.grants.request_ttl_s = 600;
        config.grants.approved_ttl_s = 900;
    })
    .await;
    let bob = async |world: &TestWorld| world.person("bob", &["finance-admins"]);
    let late = pending(&world, &by_hand("m1"), "first-steps").await;
    world.clock.advance(SignedDuration::from_secs(600));
    assert_eq!(say(&world, &late, "approve", &bob(&world).await, "").await.status, StatusCode::CONFLICT);
    assert_eq!(show(&world, &late).await["status"], "expired");
    let second = pending(&world, &by_hand("m1"), "first-steps").await;
    assert_ne!(second, late, "what expired can be requested anew");
    assert_eq!(say(&world, &second, "approve", &bob(&world).await, "").await.status, StatusCode::OK);
    world.clock.advance(SignedDuration::from_secs(899));
    assert_eq!(world.ask_for(&by_hand("m1"), "first-steps").await.status, StatusCode::OK);
    world.clock.advance(SignedDuration::from_secs(1));
    let retry = RunClaims { try_number: 2, ..by_hand("m1") };
    assert_ne!(pending(&world, &retry, "first-steps").await, second, "an approval is over after its time");
}

#[tokio::test]
async fn a_change_of_the_policy_voids_what_was_approved_under_the_old_one() {
    let world = TestWorld::start().await;
    let grant = pending(&world, &by_hand("m1"), "first-steps").await;
    let bob = world.person("bob", &["finance-admins"]);
    assert_eq!(say(&world, &grant, "approve", &bob, "").await.status, StatusCode::OK);
    let waiting = pending(&world, &by_hand("m2"), "first-steps").await;
    let source = include_str!("../../../config/dev/first-steps.yaml").replace("max_ttl: 30m", "max_ttl: 29m");
    assert!(source.contains("29m"));
    apply(&world, &source).await;
    for void in [&grant, &waiting] {
        let shown = show(&world, void).await;
        assert_eq!(shown["status"], "voided", "{shown}");
        assert!(shown["because"].as_str().unwrap().contains("version 2 of first-steps"), "{shown}");
        let refused = say(&world, void, "approve", &bob, "").await;
        assert_eq!(refused.status, StatusCode::PRECONDITION_FAILED, "A75 {refused:?}");
        assert_eq!(refused.body["type"], "urn:cortex:problem:voided");
    }
    assert_eq!(world.record(&["grant.voided"]).await.len(), 2);
    assert_ne!(pending(&world, &by_hand("m1"), "first-steps").await, grant);
    assert_eq!(world.world.sandbox.mints(), []);
    apply(&world, include_str!("../../../config/dev/first-steps.yaml")).await;
    let again = pending(&world, &by_hand("m1"), "first-steps").await;
    assert_ne!(again, grant, "what is void stays void, should the old text come back");
}

/// Sends both decisions while the grant is locked, so that neither is done before the other has begun.
async fn at_once(world: &TestWorld, grant: &str, people: [(&str, &str); 2]) -> Vec<StatusCode> {
    let seen = show(world, grant).await["request_digest"].as_str().unwrap().to_owned();
    let owner = sqlx::PgPool::connect(&world.world.database_url).await.unwrap();
    let mut lock = owner.begin().await.unwrap();
    let id: uuid::Uuid = grant.parse().unwrap();
    sqlx::query("SELECT 1 FROM grant_request WHERE id = $1 FOR UPDATE")
        .bind(id)
        .execute(&mut *lock)
        .await
        .unwrap();
    let words = people.map(|(person, word)| {
        let token = world.person(person, &["finance-admins", "privacy-officers"]);
        let request = world.http.post(world.url(&format!("/v1/grants/{grant}/{word}"))).bearer_auth(token);
        let request = request.header("if-match", format!("\"{seen}\""));
        tokio::spawn(async move { cortex_tests::world::answer(request).await.status })
    });
    let until = tokio::time::Instant::now() + std::time::Duration::from_mins(1);
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&owner).await.unwrap() < 2 {
        assert!(tokio::time::Instant::now() < until, "both never waited");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    lock.commit().await.unwrap();
    let mut statuses = Vec::new();
    for word in words {
        statuses.push(word.await.unwrap());
    }
    statuses.sort_unstable();
    statuses
}

#[tokio::test]
async fn of_two_at_once_one_suffices_where_one_is_wanted() {
    let world = TestWorld::start().await;
    for (run, words) in
        [("m1", ["approve", "approve"]), ("m2", ["approve", "deny"]), ("m3", ["deny", "deny"])]
    {
        let grant = pending(&world, &by_hand(run), "first-steps").await;
        let statuses = at_once(&world, &grant, [("bob", words[0]), ("carol", words[1])]).await;
        assert_eq!(statuses, [StatusCode::OK, StatusCode::CONFLICT], "{words:?}");
        let decided = world.record(&["grant.decided"]).await;
        assert_eq!(decided.iter().filter(|leaf| leaf["grant_id"] == json!(grant)).count(), 1, "{words:?}");
    }
}

#[tokio::test]
async fn of_two_at_once_both_count_where_two_are_wanted() {
    let world = TestWorld::start().await;
    let run = RunClaims {
        triggering_user_name: Some("alice".into()),
        ..RunClaims::scheduled("customer_erasure", "r1", "erase")
    };
    let grant = pending(&world, &run, "customer-data-erasure").await;
    let statuses = at_once(&world, &grant, [("bob", "approve"), ("carol", "approve")]).await;
    assert_eq!(statuses, [StatusCode::OK, StatusCode::OK]);
    let shown = show(&world, &grant).await;
    assert_eq!(shown["status"], "approved", "two approvals are two: {shown}");
}

#[tokio::test]
async fn one_person_is_one_approval_however_often_they_say_so() {
    let world = TestWorld::start().await;
    let run = RunClaims::scheduled("customer_erasure", "r1", "erase");
    let grant = pending(&world, &run, "customer-data-erasure").await;
    let bob = world.person("bob", &["privacy-officers"]);
    assert_eq!(say(&world, &grant, "approve", &bob, "").await.status, StatusCode::OK);
    assert_eq!(say(&world, &grant, "approve", &bob, "").await.status, StatusCode::CONFLICT);
    assert_eq!(show(&world, &grant).await["status"], "requested");
    // A second account with bob's address is bob.
    let second = person_with(&world, "u-17", &["privacy-officers"], &json!({"email": "bob@acme.example"}));
    let first = person_with(&world, "bob", &["privacy-officers"], &json!({"email": "Bob@acme.example"}));
    let other = pending(&world, &RunClaims { run_id: "r2".into(), ..run }, "customer-data-erasure").await;
    assert_eq!(say(&world, &other, "approve", &first, "").await.status, StatusCode::OK);
    let again = say(&world, &other, "approve", &second, "").await;
    assert_eq!(again.status, StatusCode::CONFLICT, "A49 {again:?}");
    assert_eq!(again.body["type"], "urn:cortex:problem:decided-before", "A49 {again:?}");
    let carol = world.person("carol", &["privacy-officers"]);
    assert_eq!(say(&world, &other, "approve", &carol, "").await.body["status"], "approved", "A49");
}

#[tokio::test]
async fn what_waits_for_a_grant_asks_with_its_handle_and_hears_of_the_decision() {
    let world = TestWorld::start().await;
    let first = world.ask_for(&by_hand("m1"), "first-steps").await.body;
    let other = world.ask_for(&by_hand("m2"), "first-steps").await.body;
    let [grant, handle] = ["grant_id", "grant_handle"].map(|key| first[key].as_str().expect(key));
    assert!(handle.starts_with("cortex_grant_"), "{handle}");
    let path = format!("/v1/grants/{grant}/status");
    let waiting = world.as_person(Method::GET, &path, handle, None).await;
    assert_eq!((waiting.status, &waiting.body["status"]), (StatusCode::OK, &json!("requested")));
    assert_eq!(waiting.body["policy"], "first-steps");

    let bob = world.person("bob", &["finance-admins"]);
    let path_waiting = format!("{path}?wait=20");
    let (told, denied) = tokio::join!(
        world.as_person(Method::GET, &path_waiting, handle, None),
        say(&world, grant, "deny", &bob, "not today"),
    );
    assert_eq!(denied.status, StatusCode::OK, "{denied:?}");
    assert_eq!(told.status, StatusCode::OK, "{told:?}");
    assert_eq!(told.body["status"], "denied", "{told:?}");
    assert_eq!(told.body["decided_by"], json!(["person:staff:bob"]));
    assert_eq!(told.body["comment"], "not today");

    let carol = world.person("carol", &["finance-admins"]);
    for (what, token) in [
        ("another grant's handle", other["grant_handle"].as_str().expect("a handle")),
        ("a changed handle", &format!("{}A", &handle[..handle.len() - 1])),
        ("no handle", "cortex_grant_"),
        ("an approver's own token", &carol),
    ] {
        let answer = world.as_person(Method::GET, &path, token, None).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{what}: {answer:?}");
    }
    let answer = world.as_person(Method::GET, &format!("{path}?wait=21"), handle, None).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{answer:?}");
    for path in [format!("/v1/grants/{grant}"), "/v1/issuances".to_owned()] {
        let answer = world.as_person(Method::GET, &path, handle, None).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "a handle opens nothing else: {answer:?}");
    }
}
