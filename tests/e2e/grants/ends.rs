//! How an approval ends: taken back, over, and on record.

use cortex_sandbox::RunClaims;
use cortex_server::supervisor;
use cortex_tests::world::{Answer, TestWorld};
use jiff::SignedDuration;
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::{bob_approves, by_hand, pending, say, show};

async fn withdraw(world: &TestWorld, grant: &str, token: &str) -> Answer {
    let body = json!({"comment": "a mistake"});
    world.as_person(Method::POST, &format!("/v1/grants/{grant}/withdraw"), token, Some(body)).await
}

#[tokio::test]
async fn the_run_an_admin_and_an_approver_take_it_back_and_nobody_else_does() {
    let world = TestWorld::start().await;
    let grant = pending(&world, &by_hand("m1"), "first-steps").await;
    for (what, token, status) in [
        ("another run", world.token(&by_hand("m2")), 404),
        ("another task", world.token(&RunClaims { task_id: "publish_x".into(), ..by_hand("m1") }), 404),
        ("an auditor", world.person("dave", &["auditors"]), 403),
        ("another approver", world.person("frank", &["privacy-officers"]), 403),
        ("nobody", world.person("nobody", &[]), 403),
        ("a service", world.world.sandbox.service_token("airflow-workers").unwrap(), 404),
    ] {
        let answer = withdraw(&world, &grant, &token).await;
        assert_eq!(answer.status.as_u16(), status, "{what}: {answer:?}");
    }
    let token = world.token(&by_hand("m1"));
    let withdrawn = withdraw(&world, &grant, &token).await;
    assert_eq!(withdrawn.body["status"], "withdrawn", "{withdrawn:?}");
    assert_eq!(
        withdraw(&world, &grant, &token).await.status,
        StatusCode::UNAUTHORIZED,
        "a token is for one use"
    );
    let bob = world.person("bob", &["finance-admins"]);
    assert_eq!(say(&world, &grant, "approve", &bob, "").await.status, StatusCode::CONFLICT);
    for who in ["cortex-admins", "finance-admins"] {
        let grant = pending(&world, &by_hand("m1"), "first-steps").await;
        bob_approves(&world, &grant).await;
        let withdrawn = withdraw(&world, &grant, &world.person("erin", &[who])).await;
        assert_eq!(withdrawn.body["status"], "withdrawn", "{who}: {withdrawn:?}");
        assert_eq!(withdrawn.body["by"]["comment"], "a mistake");
        assert_eq!(
            withdraw(&world, &grant, &world.person("erin", &[who])).await.status,
            StatusCode::CONFLICT
        );
        assert_ne!(pending(&world, &by_hand("m1"), "first-steps").await, grant, "it holds no more");
    }
    let record = world.record(&["grant.withdrawn"]).await;
    assert_eq!(record.len(), 3);
    let by = |who: &str| record.iter().find(|leaf| leaf["by"] == who).unwrap();
    assert_eq!(by("run:prod:hello_cortex:m1:publish_mart:-:1")["was"], "requested", "{record:?}");
    let erins = by("person:staff:erin");
    assert_eq!((&erins["was"], &erins["run_id"]), (&json!("approved"), &json!("m1")), "{record:?}");
    assert_eq!(world.world.sandbox.mints(), []);
}

#[tokio::test]
async fn once_it_is_taken_back_nothing_more_is_released_whoever_was_asking() {
    let world = TestWorld::start().await;
    for round in 0..8 {
        let run = by_hand(&format!("m{round}"));
        let grant = pending(&world, &run, "first-steps").await;
        bob_approves(&world, &grant).await;
        let (asking, admin) = (world.token(&run), world.person("erin", &["cortex-admins"]));
        let ask = json!({"policy": "first-steps"});
        let (asked, withdrawn) = tokio::join!(world.ask(&asking, ask), withdraw(&world, &grant, &admin));
        assert_eq!(withdrawn.body["status"], "withdrawn", "{withdrawn:?}");
        let openings = world.record(&["issuance.intent", "issuance.issued"]).await;
        let under = openings.iter().filter(|leaf| leaf["grant"]["id"] == json!(grant)).count();
        assert_eq!(under, if asked.status == StatusCode::OK { 4 } else { 0 }, "{asked:?}");
        let again = RunClaims { try_number: 2, ..run };
        assert_ne!(pending(&world, &again, "first-steps").await, grant);
    }
}

#[tokio::test]
async fn what_waits_is_told_in_the_words_that_it_knows() {
    let world = TestWorld::start().await;
    let first = world.ask_for(&by_hand("m1"), "first-steps").await.body;
    let [grant, handle] = ["grant_id", "grant_handle"].map(|key| first[key].as_str().unwrap());
    let withdrawn = withdraw(&world, grant, &world.person("erin", &["cortex-admins"])).await;
    assert_eq!(withdrawn.status, StatusCode::OK, "{withdrawn:?}");
    let told = world.as_person(Method::GET, &format!("/v1/grants/{grant}/status"), handle, None).await;
    assert_eq!(told.body["status"], "denied", "{told:?}");
    assert_eq!(told.body["decided_by"], json!(["person:staff:erin"]), "{told:?}");
}

#[tokio::test]
async fn an_end_that_nobody_brought_about_is_on_record_once() {
    let world = TestWorld::start_with(|config| {
        config.grants.request_ttl_s = 600;
        config.grants.approved_ttl_s = 600;
    })
    .await;
    let waiting = pending(&world, &by_hand("m1"), "first-steps").await;
    let approved = pending(&world, &by_hand("m2"), "first-steps").await;
    bob_approves(&world, &approved).await;
    world.clock.advance(SignedDuration::from_secs(600));
    for grant in [&waiting, &approved] {
        assert_eq!(show(&world, grant).await["status"], "expired", "before anybody has marked it");
    }
    let next = pending(&world, &by_hand("m1"), "first-steps").await;
    assert_ne!(next, waiting);
    for _ in 0..2 {
        supervisor::sweep(&world.world.cortex.broker).await.unwrap();
    }
    let mut ended: Vec<_> = world
        .record(&["grant.expired"])
        .await
        .into_iter()
        .map(|leaf| (leaf["grant_id"].as_str().unwrap().to_owned(), leaf["was"].clone()))
        .collect();
    ended.sort_by(|a, b| a.0.cmp(&b.0));
    let mut expected = vec![(waiting, json!("requested")), (approved, json!("approved"))];
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(ended, expected);
}
