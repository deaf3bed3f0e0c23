//! Two replicas on one database are one Cortex.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cortex_core::Clock;
use cortex_core::jwt::SigningAlgorithm;
use cortex_sandbox::{Cloud, Fault, FaultMode};
use cortex_server::random::SystemRandom;
use cortex_server::{Config, Environment, Running, keyring, supervisor};
use cortex_tests::forge::part;
use cortex_tests::promises::{kept, leaves};
use cortex_tests::world::{Answer, INSIDE, TestWorld, answer, first_run};
use jiff::SignedDuration;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::Instant;

/// A second replica of the world's Cortex, under the same public URL.
pub(crate) async fn second(world: &TestWorld) -> Running {
    second_with(world, |_| {}).await
}

/// The same with another configuration.
pub(crate) async fn second_with(world: &TestWorld, adjust: impl FnOnce(&mut Config)) -> Running {
    let mut config = world.world.config.clone();
    adjust(&mut config);
    config.server.public_url = Some(world.world.cortex.issuer_url.clone());
    config.server.replica = Some("second".to_owned());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let clock: Arc<dyn Clock> = Arc::new(world.clock.clone());
    cortex_server::start(config, listener, Environment { clock, random: Arc::new(SystemRandom) })
        .await
        .expect("a replica")
}

pub(crate) async fn ask_second(world: &TestWorld, second: &Running, token: &str, body: Value) -> Answer {
    let request = world.http.post(format!("http://{}/v1/credentials", second.address)).bearer_auth(token);
    answer(request.header("x-forwarded-for", INSIDE).json(&body)).await
}

#[tokio::test]
async fn a_single_use_token_is_for_one_exchange_at_whichever_replica() {
    let world = TestWorld::start().await;
    let second = second(&world).await;
    let body = || json!({"policy": "first-steps", "targets": ["api"]});
    for round in 0..8 {
        let token = world.token(&first_run(&format!("r{round}")));
        let (one, two) = tokio::join!(world.ask(&token, body()), ask_second(&world, &second, &token, body()));
        let mut statuses = [one.status, two.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [StatusCode::OK, StatusCode::BAD_REQUEST], "{one:?} {two:?}");
    }
    assert_eq!(leaves(world.pool(), "issuance.issued").await.len(), 8);
    assert_eq!(
        leaves(world.pool(), "denial").await.iter().filter(|leaf| leaf["code"] == "replay").count(),
        8
    );
    second.shut_down().await;
}

#[tokio::test]
async fn a_policy_applied_at_one_is_in_force_at_the_other_within_a_second() {
    let world = TestWorld::start().await;
    let second = second(&world).await;
    let admin = world.person("erin", &["cortex-admins"]);
    let source =
        include_str!("../../config/dev/first-steps.yaml").replace("name: first-steps", "name: second-steps");
    let body = json!({"policy": "second-steps", "targets": ["api"]});
    let before = ask_second(&world, &second, &world.token(&first_run("before")), body.clone()).await;
    assert_eq!(before.body["error"], "invalid_target");
    let applied =
        world.as_person(Method::POST, "/v1/policies", &admin, Some(json!({"documents": [source]}))).await;
    assert_eq!(applied.status, StatusCode::OK, "{applied:?}");
    let (since, mut tries) = (Instant::now(), 0);
    loop {
        tries += 1;
        let asked = Instant::now();
        let token = world.token(&first_run(&format!("r{tries}")));
        let answer = ask_second(&world, &second, &token, body.clone()).await;
        if answer.status == StatusCode::OK {
            break;
        }
        assert!(asked - since < Duration::from_secs(1), "not in force after {:?}: {answer:?}", asked - since);
    }
    let retired = world.as_person(Method::DELETE, "/v1/policies/second-steps", &admin, None).await;
    assert_eq!(retired.status, StatusCode::OK, "{retired:?}");
    let since = Instant::now();
    loop {
        tries += 1;
        let asked = Instant::now();
        let token = world.token(&first_run(&format!("r{tries}")));
        if ask_second(&world, &second, &token, body.clone()).await.status != StatusCode::OK {
            break;
        }
        assert!(asked - since < Duration::from_secs(1), "still in force after {:?}", asked - since);
    }
    second.shut_down().await;
}

#[tokio::test]
async fn what_one_replica_left_open_is_ended_by_the_other_once() {
    let world = TestWorld::start().await;
    let second = second(&world).await;
    world
        .world
        .sandbox
        .fault(Cloud::Aws, Fault { operation: None, mode: FaultMode::HangAfterMint, remaining: None });
    let token = world.token(&first_run("r"));
    let request = world.http.post(format!("http://{}/v1/credentials", second.address)).bearer_auth(&token);
    let request = request.json(&json!({"policy": "first-steps", "targets": ["aws"]}));
    let asking = tokio::spawn(answer(request));
    let until = Instant::now() + Duration::from_mins(1);
    while world.world.sandbox.mints().is_empty() {
        assert!(Instant::now() < until, "nothing was minted");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    supervisor::sweep(&world.world.cortex.broker).await.unwrap();
    assert!(leaves(world.pool(), "issuance.outcome").await.is_empty(), "ended before its deadline");
    world.clock.advance(SignedDuration::from_secs(41));
    let (one, two) =
        tokio::join!(supervisor::sweep(&world.world.cortex.broker), supervisor::sweep(&second.broker));
    one.unwrap();
    two.unwrap();
    assert_eq!(kept(&world).await, ["indeterminate"]);
    // The one that was slow comes too late: what it has now is withheld, and the record stays as it is.
    let late = asking.await.unwrap();
    assert_eq!(late.status, StatusCode::SERVICE_UNAVAILABLE, "{late:?}");
    assert_eq!(kept(&world).await, ["indeterminate"]);
    second.shut_down().await;
}

/// A verifier that keeps the key set as long as Cortex publishes a key ahead of its use.
struct CachingVerifier {
    keys: JwkSet,
    fetched: jiff::Timestamp,
    max_age: SignedDuration,
}

impl CachingVerifier {
    async fn verify(&mut self, world: &TestWorld, jwks: &str, token: &str) -> Result<String, String> {
        if world.now().duration_since(self.fetched) >= self.max_age {
            let keys = answer(world.http.get(jwks)).await;
            *self = Self {
                keys: serde_json::from_value(keys.body).unwrap(),
                fetched: world.now(),
                max_age: self.max_age,
            };
        }
        let kid = part(token, 0)["kid"].as_str().unwrap().to_owned();
        let key = self.keys.find(&kid).ok_or_else(|| format!("unknown key {kid}"))?;
        let mut validation = Validation::new(Algorithm::RS256);
        validation.validate_exp = false;
        validation.validate_aud = false;
        let key = DecodingKey::from_jwk(key).map_err(|e| e.to_string())?;
        jsonwebtoken::decode::<BTreeMap<String, Value>>(token, &key, &validation)
            .map_err(|e| e.to_string())?;
        Ok(kid)
    }
}

#[tokio::test]
async fn a_verifier_that_caches_never_meets_an_unknown_key_while_keys_rotate() {
    let world = TestWorld::start_with(|config| {
        config.keys.publish_ahead_s = 3_600;
        config.keys.retire_after_s = 7_200;
    })
    .await;
    let second = second(&world).await;
    let jwks = [world.url("/jwks"), format!("http://{}/jwks", second.address)];
    let mut verifiers = jwks.clone().map(|_| CachingVerifier {
        keys: JwkSet { keys: Vec::new() },
        fetched: jiff::Timestamp::UNIX_EPOCH,
        max_age: SignedDuration::from_secs(3_600),
    });
    let brokers = [&world.world.cortex.broker, &second.broker];
    let mut kids = Vec::new();
    for step in 0..26 {
        if step % 8 == 3 {
            let mut connection = world.pool().acquire().await.unwrap();
            let stamp = brokers[0].recorder.stamp();
            keyring::rotate(
                &mut connection,
                &world.world.config,
                SigningAlgorithm::RS256,
                false,
                "operator:test",
                stamp,
            )
            .await
            .unwrap();
        }
        for (index, broker) in brokers.iter().enumerate() {
            broker.keyring.refresh(&broker.pool).await.unwrap();
            let token = world.token(&first_run(&format!("r{step}-{index}")));
            let body = json!({"policy": "first-steps", "targets": ["api"]});
            let answer = if index == 0 {
                world.ask(&token, body).await
            } else {
                ask_second(&world, &second, &token, body).await
            };
            let signed =
                answer.body["credentials"]["api"]["credential"]["token"].as_str().unwrap().to_owned();
            for (verifier, jwks) in verifiers.iter_mut().zip(&jwks) {
                let kid = verifier
                    .verify(&world, jwks, &signed)
                    .await
                    .unwrap_or_else(|why| panic!("step {step}: {why}"));
                if kids.last() != Some(&kid) {
                    kids.push(kid);
                }
            }
        }
        world.clock.advance(SignedDuration::from_mins(11));
    }
    assert_eq!(kids.len(), 4, "three rotations, and each key takes over for good: {kids:?}");
    second.shut_down().await;
}
