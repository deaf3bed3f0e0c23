//! What a revocation means, and what it does not.

use cortex_tests::world::{TestWorld, answer};
use jiff::SignedDuration;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{issued, revoke, revoke_issuance, run, state, work};

fn hits(answer: &Value) -> Vec<&str> {
    let issuances = answer["issuances"].as_array().unwrap();
    issuances.iter().map(|hit| hit["issuance_id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn each_selector_hits_what_is_within_it_and_a_dry_run_says_so_and_changes_nothing() {
    let world = TestWorld::start().await;
    let first = issued(&world, &run("r1"), "api").await;
    world.clock.advance(SignedDuration::from_mins(1));
    let between = world.now();
    world.clock.advance(SignedDuration::from_mins(1));
    let second = issued(&world, &run("r2"), "api").await;
    let (one, two) = (first["issuance_id"].as_str().unwrap(), second["issuance_id"].as_str().unwrap());
    let within = |scope: Value| json!({"scope": scope, "reason": "x", "dry_run": true});
    let principal = |run: &str| format!("run:prod:hello_cortex:{run}:publish_mart:-:1");
    let table = [
        (json!({"issuance_id": one, "reason": "x", "dry_run": true}), vec![one]),
        (within(json!({"kind": "everything"})), vec![one, two]),
        (within(json!({"kind": "issuer", "issuer": "prod"})), vec![one, two]),
        (within(json!({"kind": "policy", "policy": "first-steps"})), vec![one, two]),
        (within(json!({"kind": "dag", "dag_id": "hello_cortex"})), vec![one, two]),
        (within(json!({"kind": "run", "dag_id": "hello_cortex", "run_id": "r2"})), vec![two]),
        (within(json!({"kind": "principal", "principal": principal("r1")})), vec![one]),
        (
            json!({"scope": {"kind": "everything"}, "since": between, "reason": "x", "dry_run": true}),
            vec![two],
        ),
        (within(json!({"kind": "dag", "dag_id": "hello_cortex", "issuer": "other"})), vec![]),
        (within(json!({"kind": "dag", "dag_id": "hello"})), vec![]),
        (within(json!({"kind": "policy", "policy": "finance-data-publish"})), vec![]),
    ];
    for (body, expected) in table {
        let dry = revoke(&world, body.clone()).await;
        assert_eq!(dry.status, StatusCode::OK, "{body}: {dry:?}");
        assert_eq!(hits(&dry.body), expected, "{body}: {dry:?}");
        assert_eq!(dry.body["more"], false);
    }
    assert!(world.record(&["revocation.requested"]).await.is_empty(), "a dry run was put on record");
    assert_eq!(state(&world, &first["issuance_id"]).await, Value::Null);
}

#[tokio::test]
async fn a_revoked_run_gets_nothing_new_and_another_scope_only_with_a_freeze() {
    let world = TestWorld::start().await;
    issued(&world, &run("r1"), "api").await;
    let scope = json!({"kind": "run", "dag_id": "hello_cortex", "run_id": "r1"});
    let answer = revoke(&world, json!({"scope": scope, "reason": "it was tampered with"})).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    let refused = world.ask_for(&run("r1"), "first-steps").await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
    assert!(refused.body["error_description"].as_str().unwrap().contains("tampered"), "{refused:?}");
    issued(&world, &run("r2"), "api").await;

    let scope = json!({"kind": "dag", "dag_id": "hello_cortex"});
    let body = json!({"scope": scope, "reason": "x"});
    assert_eq!(hits(&revoke(&world, body).await.body).len(), 2);
    world.clock.advance(SignedDuration::from_millis(2));
    issued(&world, &run("r2"), "api").await;
    let body = json!({"scope": scope, "reason": "for good now", "freeze": true});
    assert_eq!(hits(&revoke(&world, body).await.body).len(), 3);
    assert_eq!(world.ask_for(&run("r2"), "first-steps").await.status, StatusCode::BAD_REQUEST);
    let admin = world.person("erin", &["cortex-admins"]);
    let freezes = world.as_person(Method::GET, "/v1/freezes?in_force=true", &admin, None).await;
    assert_eq!(freezes.body["freezes"].as_array().unwrap().len(), 2, "{freezes:?}");
}

#[tokio::test]
async fn only_admins_revoke_and_what_they_write_is_checked() {
    let world = TestWorld::start().await;
    let leaked = issued(&world, &run("r1"), "api").await;
    let good = json!({"issuance_id": leaked["issuance_id"], "reason": "x"});
    for (person, groups) in [("ann", &["auditors"][..]), ("bob", &["finance-admins"]), ("eve", &[])] {
        let token = world.person(person, groups);
        let refused = world.as_person(Method::POST, "/v1/revocations", &token, Some(good.clone())).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "A65 A80 {person}: {refused:?}");
    }
    let everything = json!({"kind": "everything"});
    let future = world.now() + SignedDuration::from_secs(1);
    for (body, status) in [
        (json!({"reason": "x"}), 422),
        (json!({"issuance_id": leaked["issuance_id"], "scope": everything, "reason": "x"}), 422),
        (json!({"issuance_id": leaked["issuance_id"], "since": world.now(), "reason": "x"}), 422),
        (json!({"issuance_id": leaked["issuance_id"], "reason": "x", "freeze": true}), 422),
        (json!({"scope": everything, "since": future, "reason": "x"}), 422),
        (json!({"scope": everything, "reason": ""}), 422),
        (json!({"issuance_id": "x", "reason": "x"}), 400),
        (json!({"issuance_id": "00000000-0000-7000-8000-000000000000", "reason": "x"}), 404),
    ] {
        let answer = revoke(&world, body.clone()).await;
        assert_eq!(answer.status.as_u16(), status, "{body}: {answer:?}");
    }
}

/// What introspection says, asked by a service.
pub(crate) async fn introspect(world: &TestWorld, token: &str) -> Value {
    let service = world.world.sandbox.service_token("payments-api").unwrap();
    let request = world.http.post(world.url("/v1/introspect")).bearer_auth(service);
    let said = answer(request.form(&[("token", token)])).await;
    assert_eq!(said.status, StatusCode::OK, "{said:?}");
    said.body
}

#[tokio::test]
async fn introspection_knows_an_apis_token_until_it_is_revoked_or_over() {
    let world = TestWorld::start().await;
    let (leaked, other) = (issued(&world, &run("r1"), "api").await, issued(&world, &run("r2"), "api").await);
    let token = |entry: &Value| entry["credential"]["token"].as_str().unwrap().to_owned();
    let active = introspect(&world, &token(&leaked)).await;
    assert_eq!(active["active"], true, "{active}");
    assert_eq!(active["aud"], "https://ledger.acme.example");
    assert_eq!(active["scope"], "postings:read");
    assert_eq!(active["jti"], leaked["issuance_id"]);
    let begun = revoke_issuance(&world, &leaked["issuance_id"]).await;
    assert_eq!(begun["issuances"][0]["state"], "enforced", "{begun}");
    assert_eq!(introspect(&world, &token(&leaked)).await, json!({"active": false}));
    assert_eq!(introspect(&world, &token(&other)).await["active"], true);
    for nobodys in ["", "x", "a.b.c", &world.token(&run("r1")), &format!("{}x", token(&other))] {
        assert_eq!(introspect(&world, nobodys).await, json!({"active": false}), "{nobodys}");
    }
    let snowflake = issued(&world, &run("r2"), "snowflake").await;
    assert_eq!(introspect(&world, &token(&snowflake)).await, json!({"active": false}), "no access token");
    world.clock.advance(SignedDuration::from_mins(31));
    assert_eq!(introspect(&world, &token(&other)).await, json!({"active": false}), "it is over");
}

#[tokio::test]
async fn introspection_is_for_services_and_is_announced() {
    let world = TestWorld::start().await;
    let metadata = answer(world.http.get(world.url("/.well-known/oauth-authorization-server"))).await;
    assert_eq!(metadata.body["introspection_endpoint"], world.url("/v1/introspect"));
    for (bearer, status) in [
        (world.person("erin", &["cortex-admins"]), StatusCode::FORBIDDEN),
        (world.token(&run("r1")), StatusCode::FORBIDDEN),
        ("x".to_owned(), StatusCode::UNAUTHORIZED),
    ] {
        let request = world.http.post(world.url("/v1/introspect")).bearer_auth(bearer);
        let refused = answer(request.form(&[("token", "x")])).await;
        assert_eq!(refused.status, status, "{refused:?}");
    }
}

#[tokio::test]
async fn a_snowflake_token_is_said_not_to_be_revocable_and_why() {
    let world = TestWorld::start().await;
    let leaked = issued(&world, &run("r1"), "snowflake").await;
    let begun = revoke_issuance(&world, &leaked["issuance_id"]).await;
    let seen = &begun["issuances"][0];
    assert_eq!(seen["state"], "expires_at", "{seen}");
    assert_eq!(seen["time"], seen["credential_expires_at"], "{seen}");
    assert!(seen["why"].as_str().unwrap().contains("lives on by Snowflake's own rules"), "{seen}");
    work(&world).await;
    assert_eq!(state(&world, &leaked["issuance_id"]).await["state"], "expires_at");
    let statements = format!("{}/api/v2/statements", world.world.sandbox.snowflake_url());
    let used = world.http.post(statements).bearer_auth(leaked["credential"]["token"].as_str().unwrap());
    let used = used.header("x-snowflake-authorization-token-type", "OAUTH");
    let used = answer(used.json(&json!({"statement": "SELECT 1"}))).await;
    assert_eq!(used.status, StatusCode::OK, "Cortex said that it works on, and it does: {used:?}");
}
