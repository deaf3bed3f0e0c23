//! The kill switch: what is frozen stops at once, at every replica, and says so to whom it may concern.

use cortex_sandbox::RunClaims;
use cortex_tests::world::{Answer, TestWorld, first_run};
use jiff::SignedDuration;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

pub(crate) async fn freeze(world: &TestWorld, scope: Value) -> Answer {
    let admin = world.person("erin", &["cortex-admins"]);
    let body = json!({"scope": scope, "reason": "the mart is being restored"});
    let answer = world.as_person(Method::POST, "/v1/freezes", &admin, Some(body)).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    answer
}

pub(crate) async fn lift(world: &TestWorld, id: &Value) -> Answer {
    let admin = world.person("erin", &["cortex-admins"]);
    let path = format!("/v1/freezes/{}", id.as_str().expect("an id"));
    world.as_person(Method::DELETE, &path, &admin, None).await
}

#[tokio::test]
async fn each_scope_stops_what_is_within_it_and_nothing_else() {
    let world = TestWorld::start().await;
    let run = first_run("r1");
    let principal = "run:prod:hello_cortex:r1:publish_mart:-:1";
    let within = [
        json!({"kind": "everything"}),
        json!({"kind": "issuer", "issuer": "prod"}),
        json!({"kind": "policy", "policy": "first-steps"}),
        json!({"kind": "dag", "dag_id": "hello_cortex"}),
        json!({"kind": "dag", "dag_id": "hello_cortex", "issuer": "prod"}),
        json!({"kind": "run", "dag_id": "hello_cortex", "run_id": "r1"}),
        json!({"kind": "principal", "principal": principal}),
    ];
    for scope in within {
        let set = freeze(&world, scope.clone()).await;
        let answer = world.ask_for(&run, "first-steps").await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{scope}: {answer:?}");
        assert_eq!(answer.body["error"], "invalid_target", "{scope}: {answer:?}");
        let told = answer.body["error_description"].as_str().unwrap();
        for part in ["person:staff:erin", "the mart is being restored", "2026-11-23T02:00:00Z", "freeze#"] {
            assert!(told.contains(part), "{scope}: {told}");
        }
        let denials = world.record(&["denial"]).await;
        let denial =
            denials.iter().find(|denial| denial["decision_id"] == answer.body["decision_id"]).unwrap();
        assert_eq!(denial["code"], "freeze", "{denial}");
        assert_eq!(denial["reasons"][0]["clause"], "freeze", "{denial}");
        assert_eq!(lift(&world, &set.body["id"]).await.status, StatusCode::OK);
        let answer = world.ask_for(&run, "first-steps").await;
        assert_eq!(answer.status, StatusCode::OK, "{scope} was lifted: {answer:?}");
    }
    let beside = [
        json!({"kind": "issuer", "issuer": "staff"}),
        json!({"kind": "policy", "policy": "finance-data-publish"}),
        json!({"kind": "dag", "dag_id": "hello_cortex", "issuer": "other"}),
        json!({"kind": "dag", "dag_id": "hello_corte"}),
        json!({"kind": "run", "dag_id": "hello_cortex", "run_id": "r2"}),
        json!({"kind": "principal", "principal": "run:prod:hello_cortex:r1:publish_mart:-:2"}),
    ];
    for scope in beside {
        freeze(&world, scope.clone()).await;
        let answer = world.ask_for(&run, "first-steps").await;
        assert_eq!(answer.status, StatusCode::OK, "{scope}: {answer:?}");
    }
    assert_eq!(world.record(&["freeze.set"]).await.len(), 13);
    assert_eq!(world.record(&["freeze.lifted"]).await.len(), 7);
}

#[tokio::test]
async fn whom_no_policy_names_learns_nothing_of_a_freeze() {
    let world = TestWorld::start().await;
    let stranger = RunClaims::scheduled("somebody_elses", "r1", "publish_mart");
    let before = world.ask_for(&stranger, "first-steps").await;
    freeze(&world, json!({"kind": "everything"})).await;
    let after = world.ask_for(&stranger, "first-steps").await;
    assert_eq!(after.status, before.status);
    assert_eq!(after.body["error_description"], before.body["error_description"]);
}

#[tokio::test]
async fn a_freeze_with_an_end_ends_by_itself() {
    let world = TestWorld::start().await;
    let admin = world.person("erin", &["cortex-admins"]);
    let until = world.now() + SignedDuration::from_mins(10);
    let body = json!({"scope": {"kind": "everything"}, "reason": "a drill", "until": until});
    let set = world.as_person(Method::POST, "/v1/freezes", &admin, Some(body)).await;
    assert_eq!(set.status, StatusCode::CREATED, "{set:?}");
    let answer = world.ask_for(&first_run("r1"), "first-steps").await;
    assert!(answer.body["error_description"].as_str().unwrap().contains("It ends at 2026-11-23T02:10:00Z"));
    world.clock.advance(SignedDuration::from_mins(10));
    let answer = world.ask_for(&first_run("r1"), "first-steps").await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let admin = world.person("erin", &["cortex-admins"]);
    let listed = world.as_person(Method::GET, "/v1/freezes?in_force=true", &admin, None).await;
    assert_eq!(listed.body["freezes"], json!([]), "{listed:?}");
    let listed = world.as_person(Method::GET, "/v1/freezes", &admin, None).await;
    assert_eq!(listed.body["freezes"][0]["in_force"], false, "{listed:?}");
}

#[tokio::test]
async fn a_lease_handle_stops_with_a_freeze_and_works_again_when_it_is_lifted() {
    let world = TestWorld::start().await;
    let issued = world.ask_for(&first_run("r1"), "first-steps").await;
    let handle = issued.body["credentials"]["aws"]["lease_handle"].as_str().unwrap().to_owned();
    let fetch = || {
        let request = world.http.get(world.url("/v1/aws/first-steps")).header("authorization", &handle);
        cortex_tests::world::answer(request.header("x-forwarded-for", cortex_tests::world::INSIDE))
    };
    assert_eq!(fetch().await.status, StatusCode::OK);
    let set = freeze(&world, json!({"kind": "dag", "dag_id": "hello_cortex"})).await;
    let frozen = fetch().await;
    assert_eq!(frozen.status, StatusCode::BAD_REQUEST, "{frozen:?}");
    assert!(frozen.body["message"].as_str().unwrap().contains("restored"), "{frozen:?}");
    let denial = world.record(&["denial"]).await.pop().unwrap();
    assert_eq!(denial["code"], "freeze", "{denial}");
    lift(&world, &set.body["id"]).await;
    assert_eq!(fetch().await.status, StatusCode::OK);
}

#[tokio::test]
async fn only_admins_freeze_and_lift_and_what_they_write_is_checked() {
    let world = TestWorld::start().await;
    let admin = world.person("erin", &["cortex-admins"]);
    let good = json!({"scope": {"kind": "everything"}, "reason": "a drill"});
    let set = world.as_person(Method::POST, "/v1/freezes", &admin, Some(good.clone())).await;
    let path = format!("/v1/freezes/{}", set.body["id"].as_str().unwrap());
    for (person, groups) in [("ann", &["auditors"][..]), ("bob", &["finance-admins"]), ("eve", &[])] {
        let token = world.person(person, groups);
        let refused = world.as_person(Method::POST, "/v1/freezes", &token, Some(good.clone())).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "A80 {person}: {refused:?}");
        let refused = world.as_person(Method::DELETE, &path, &token, None).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "A80 {person}: {refused:?}");
    }
    let past = world.now() - SignedDuration::from_secs(1);
    for (body, status) in [
        (json!({"scope": {"kind": "everything"}, "reason": " "}), 422),
        (json!({"scope": {"kind": "everything"}, "reason": "a\u{7}b"}), 422),
        (json!({"scope": {"kind": "everything"}, "reason": "x".repeat(2_001)}), 422),
        (json!({"scope": {"kind": "everything"}, "reason": "x", "until": past}), 422),
        (json!({"scope": {"kind": "galaxy"}, "reason": "x"}), 400),
        (json!({"scope": {"kind": "dag", "dag_id": "../x"}, "reason": "x"}), 400),
        (json!({"scope": {"kind": "principal", "principal": "bob"}, "reason": "x"}), 400),
        (json!({"reason": "x"}), 400),
    ] {
        let answer = world.as_person(Method::POST, "/v1/freezes", &admin, Some(body.clone())).await;
        assert_eq!(answer.status.as_u16(), status, "{body}: {answer:?}");
    }
    assert_eq!(world.as_person(Method::DELETE, &path, &admin, None).await.status, StatusCode::OK);
    assert_eq!(world.as_person(Method::DELETE, &path, &admin, None).await.status, StatusCode::CONFLICT);
    let unknown = "/v1/freezes/00000000-0000-7000-8000-000000000000";
    assert_eq!(world.as_person(Method::DELETE, unknown, &admin, None).await.status, StatusCode::NOT_FOUND);
}
