//! A tighter policy out of what was used, straight from the database and over REST.

use cortex_core::PolicyName;
use cortex_tests::world::{TestWorld, first_run};
use jiff::SignedDuration;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::command_line::{Desk, text};
use super::{FIRST_STEPS, lines, permitted};
use crate::grants::apply;

/// What is suggested for `first-steps`.
async fn suggestion(world: &TestWorld, unused_for: &str) -> Value {
    let admin = world.person("erin", &["cortex-admins"]);
    let path = format!("/v1/policies/first-steps/suggestion?unused_for={unused_for}");
    let answer = world.as_person(Method::GET, &path, &admin, None).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    lines(&answer).last().unwrap()["result"].clone()
}

#[tokio::test]
async fn what_nobody_used_for_long_enough_is_left_out() {
    let world = TestWorld::start().await;
    world.clock.advance(SignedDuration::from_hours(24));
    let asked =
        world.ask(&world.token(&first_run("s1")), json!({"policy": "first-steps", "targets": ["api"]})).await;
    assert_eq!(asked.status, StatusCode::OK, "{asked:?}");
    // The policy is as old as the world: what was in force for ninety days only can be called unused.
    assert_eq!(suggestion(&world, "90d").await["tighter"], false);
    world.clock.advance(SignedDuration::from_hours(24 * 89));
    let found = suggestion(&world, "90d").await;
    assert_eq!((&found["tighter"], &found["credentials"]), (&json!(true), &json!(1)), "{found:#}");
    let fates: Vec<_> =
        found["evidence"].as_array().unwrap().iter().map(|one| (&one["entry"], &one["fate"])).collect();
    for (entry, fate) in
        [("manual", "left_out"), ("aws", "left_out"), ("api", "kept"), ("publish_*", "narrowed")]
    {
        assert!(fates.contains(&(&json!(entry), &json!(fate))), "{entry}: {fates:?}");
    }
    let document = found["document"].as_str().unwrap();
    apply(&world, document).await;
    let name: PolicyName = "first-steps".parse().unwrap();
    let policy =
        world.world.cortex.broker.library.catalogue().policy(&name).unwrap().policy().cloned().unwrap();
    assert_eq!(policy.targets().map(|(target, _)| target).collect::<Vec<_>>(), ["api"]);
    // What the suggestion did not name a day ago is too new to be called unused.
    apply(&world, FIRST_STEPS).await;
    assert_eq!(suggestion(&world, "30d").await["tighter"], false);
}

#[tokio::test]
async fn a_suggestion_is_for_admins_and_of_a_policy_in_force() {
    let world = TestWorld::start().await;
    for (group, path, status) in [
        ("cortex-auditors", "/v1/policies/first-steps/suggestion", 403),
        ("cortex-admins", "/v1/policies/none/suggestion", 404),
        ("cortex-admins", "/v1/policies/NONE/suggestion", 404),
        ("cortex-admins", "/v1/policies/first-steps/suggestion?unused_for=x", 400),
        ("cortex-admins", "/v1/policies/first-steps/suggestion?since=1d", 400),
    ] {
        let person = world.person("erin", &[group]);
        let answer = world.as_person(Method::GET, path, &person, None).await;
        assert_eq!(answer.status.as_u16(), status, "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn the_command_line_prints_a_document_that_passes_its_own_check() {
    let (world, desk) = Desk::new().await;
    permitted(&world, "s2").await;
    for over_rest in [false, true] {
        let output = desk.run(over_rest, &["suggest", "first-steps", "--unused-for", "1d"]).await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let document = text(&output);
        assert!(
            document.contains("8 credentials under first-steps") && document.contains("never used"),
            "{document}"
        );
        desk.write("suggested.yaml", &document);
        let checked = desk.run(false, &["check", "suggested.yaml"]).await;
        assert_eq!(checked.status.code(), Some(0), "{checked:?}");
        let json = desk.run(over_rest, &["suggest", "first-steps", "--json"]).await;
        assert_eq!(serde_json::from_str::<Value>(&text(&json)).unwrap()["credentials"], 8);
        let none = desk.run(over_rest, &["suggest", "none"]).await;
        assert_eq!(none.status.code(), Some(4), "{none:?}");
    }
}
