//! What Cortex signs with: RS256 for everybody, ES256 where a policy's target asks for it.

use cortex_core::jwt::SigningAlgorithm;
use cortex_server::Config;
use cortex_tests::forge::part;
use cortex_tests::world::{Answer, TestWorld, first_run};
use jiff::SignedDuration;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::replicas::{ask_second, second_with};
use crate::revocation::selectors::introspect;

/// `first-steps`, each target of which wants this.
const FIRST_STEPS: &str = include_str!("../../config/dev/first-steps.yaml");

fn with_es256(config: &mut Config) {
    config.keys.algorithms = [SigningAlgorithm::ES256].into();
}

/// Every target of `first-steps` but Snowflake's, which has no choice, wants ES256 from now on.
async fn ask_for_es256(world: &TestWorld) {
    let text =
        ["  aws:\n", "  bigquery:\n", "  api:\n"].iter().fold(FIRST_STEPS.to_owned(), |text, target| {
            assert!(text.contains(target), "{target} in {text}");
            text.replace(target, &format!("{target}    alg: ES256\n"))
        });
    let admin = world.person("erin", &["cortex-admins"]);
    let body = json!({"documents": [text]});
    let answer = world.as_person(Method::POST, "/v1/policies", &admin, Some(body)).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    world.world.cortex.broker.library.refresh(world.pool()).await.expect("a refresh");
}

fn token<'a>(answer: &'a Answer, provider: &str) -> &'a str {
    answer.body["credentials"][provider]["credential"]["token"]
        .as_str()
        .unwrap_or_else(|| panic!("{answer:?}"))
}

async fn get(world: &TestWorld, path: &str) -> Value {
    cortex_tests::world::answer(world.http.get(world.url(path))).await.body
}

#[tokio::test]
async fn targets_that_take_es256_are_served_with_it() {
    let world = TestWorld::start_with(with_es256).await;
    ask_for_es256(&world).await;
    let answer = world.ask_for(&first_run("scheduled__1"), "first-steps").await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(world.minted_leases().len(), 2, "AWS and Google verified it");
    let header = part(token(&answer, "api"), 0);
    assert_eq!((&header["alg"], &header["typ"]), (&json!("ES256"), &json!("at+jwt")));
    let set: JwkSet = serde_json::from_value(get(&world, "/jwks").await).unwrap();
    let jwk = set.find(header["kid"].as_str().unwrap()).expect("its key");
    let mut validation = Validation::new(Algorithm::ES256);
    (validation.validate_exp, validation.validate_aud) = (false, false);
    let key = DecodingKey::from_jwk(jwk).unwrap();
    jsonwebtoken::decode::<Value>(token(&answer, "api"), &key, &validation).expect("a signature");
    assert_eq!(part(token(&answer, "snowflake"), 0)["alg"], "RS256", "Snowflake has no choice");
    let metadata = get(&world, "/.well-known/openid-configuration").await;
    assert_eq!(metadata["id_token_signing_alg_values_supported"], json!(["RS256", "ES256"]));
}

#[tokio::test]
async fn without_a_key_for_it_the_answer_says_what_an_admin_has_to_do() {
    let world = TestWorld::start().await;
    ask_for_es256(&world).await;
    let answer =
        world.ask(&world.token(&first_run("r1")), json!({"policy": "first-steps", "targets": ["api"]})).await;
    let text = answer.body.to_string();
    assert!(text.contains("keys.algorithms"), "{answer:?}");
    assert_eq!(world.record(&["issuance.issued", "issuance.intent"]).await.len(), 0);
    let metadata = get(&world, "/.well-known/openid-configuration").await;
    assert_eq!(metadata["id_token_signing_alg_values_supported"], json!(["RS256"]));
}

#[tokio::test]
async fn a_key_that_is_added_later_is_published_before_it_signs() {
    let world = TestWorld::start().await;
    ask_for_es256(&world).await;
    let second = second_with(&world, |config| {
        with_es256(config);
        config.keys.publish_ahead_s = 3_600;
    })
    .await;
    let first = &world.world.cortex.broker;
    first.keyring.refresh(&first.pool).await.unwrap();
    let set = get(&world, "/jwks").await;
    let mut published: Vec<_> = set["keys"].as_array().unwrap().iter().map(|key| &key["alg"]).collect();
    published.sort_by_key(ToString::to_string);
    assert_eq!(published, ["ES256", "RS256"], "every replica publishes it");
    let ask = json!({"policy": "first-steps", "targets": ["api"]});
    let early = ask_second(&world, &second, &world.token(&first_run("r1")), ask.clone()).await;
    assert!(early.body.to_string().contains("keys.publish_ahead_s"), "{early:?}");
    world.clock.advance(SignedDuration::from_hours(1));
    second.broker.keyring.refresh(&second.broker.pool).await.unwrap();
    let later = ask_second(&world, &second, &world.token(&first_run("r2")), ask).await;
    assert_eq!(part(token(&later, "api"), 0)["alg"], "ES256");
    second.shut_down().await;
}

#[tokio::test]
async fn introspection_reads_both() {
    let world = TestWorld::start_with(with_es256).await;
    let ask = json!({"policy": "first-steps", "targets": ["api"]});
    let plain = world.ask(&world.token(&first_run("r1")), ask.clone()).await;
    ask_for_es256(&world).await;
    let other = world.ask(&world.token(&first_run("r2")), ask).await;
    for (answer, alg) in [(&plain, "RS256"), (&other, "ES256")] {
        assert_eq!(part(token(answer, "api"), 0)["alg"], alg);
        assert_eq!(introspect(&world, token(answer, "api")).await["active"], true, "{alg}");
    }
}
