//! What was verified before is not verified again, and yet never outlives the token, its key or its key set.

use std::sync::Arc;

use cortex_identity::Reason;
use serde_json::json;

use crate::forge::{self, NEXT_RSA, RSA};
use crate::idp::Answer;
use crate::world::World;

/// A world whose tokens are good for more than one exchange.
async fn lasting() -> World {
    World::with(|config| config.single_use_jti = Some(false)).await
}

#[tokio::test]
async fn a_token_is_verified_once() {
    let world = lasting().await;
    let token = world.good();
    let first = world.verify(&token).await.unwrap();
    let second = world.verify(&token).await.unwrap();
    assert!(Arc::ptr_eq(&first, &second));
}

#[tokio::test]
async fn a_token_for_one_exchange_is_not_remembered() {
    let world = World::new().await;
    let token = world.good();
    let first = world.verify(&token).await.unwrap();
    let second = world.verify(&token).await.unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
}

#[tokio::test]
async fn a_remembered_token_expires() {
    let world = lasting().await;
    let token = world.good();
    world.verify(&token).await.unwrap();
    world.pass(329);
    assert!(world.verify(&token).await.is_ok(), "within the leeway");
    world.pass(1);
    let rejection = world.verify(&token).await.unwrap_err();
    assert_eq!(rejection.reason, Reason::Exp);
    assert!(rejection.verified.is_some());
}

#[tokio::test]
async fn a_remembered_token_dies_with_its_key() {
    let world = lasting().await;
    let token = world.prod(|claims| claims["exp"] = json!(claims["iat"].as_i64().unwrap() + 3600));
    let first = world.verify(&token).await.unwrap();

    world.pass(601);
    world.identity.refresh_due().await;
    assert_eq!(world.idp.tenant("prod").asked(), 2);
    let second = world.verify(&token).await.unwrap();
    assert!(Arc::ptr_eq(&first, &second), "the same key set changes nothing");

    world.idp.tenant("prod").answers(Answer::Keys(forge::jwks(&[RSA.jwk("main"), NEXT_RSA.jwk("next")])));
    world.pass(601);
    world.identity.refresh_due().await;
    let third = world.verify(&token).await.unwrap();
    assert!(!Arc::ptr_eq(&first, &third), "another key set: verified again");

    world.idp.tenant("prod").answers(Answer::Keys(forge::jwks(&[NEXT_RSA.jwk("next")])));
    world.pass(601);
    world.identity.refresh_due().await;
    assert_eq!(world.verify(&token).await.unwrap_err().reason, Reason::Kid);
}

#[tokio::test]
async fn a_remembered_token_needs_keys_that_are_not_too_old() {
    let world = World::with(|config| {
        config.max_token_lifetime = 7200;
        config.single_use_jti = Some(false);
    })
    .await;
    let token = world.prod(|claims| claims["exp"] = json!(claims["iat"].as_i64().unwrap() + 7200));
    world.verify(&token).await.unwrap();
    world.idp.tenant("prod").answers(Answer::Status(503));
    world.pass(3600);
    assert!(world.verify(&token).await.is_ok(), "the last good keys are kept for an hour");
    world.pass(1);
    let rejection = world.verify(&token).await.unwrap_err();
    assert_eq!(rejection.reason, Reason::JwksUnavailable);
    assert!(rejection.is_temporary() && rejection.verified.is_none());
}
