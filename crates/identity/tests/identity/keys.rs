//! How keys are fetched: once for all who wait, bounded in size and time, never from elsewhere, and kept for a
//! while when their issuer fails.

use std::sync::Arc;

use cortex_identity::{Algorithm, IssuerStatus, Reason};
use jiff::SignedDuration;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::forge::{self, ED25519, EVIL_RSA, NEXT_RSA, P256, RSA};
use crate::idp::Answer;
use crate::world::World;

fn status(world: &World, issuer: &str) -> IssuerStatus {
    world.identity.status().into_iter().find(|status| status.issuer.as_str() == issuer).unwrap()
}

fn main_key() -> Value {
    forge::jwks(&[RSA.jwk("main")])
}

#[tokio::test]
async fn five_hundred_who_wait_cause_one_request() {
    let world = World::with(|config| config.jwks_min_refresh = 1).await;
    let gate = Arc::new(Semaphore::new(0));
    world.idp.tenant("prod").answers(Answer::Gated(Arc::clone(&gate), main_key()));
    let mut callers = JoinSet::new();
    for caller in 0..500 {
        let token = world.prod(|claims| claims["jti"] = json!(format!("jti-{caller}")));
        let identity = Arc::clone(&world.identity);
        callers.spawn(async move { identity.verify(&token).await.is_ok() });
    }
    world.idp.tenant("prod").arrival().await;
    world.pass(2); // the attempt takes longer than the floor
    gate.add_permits(1000);
    assert!(callers.join_all().await.into_iter().all(|ok| ok));
    assert_eq!(world.idp.tenant("prod").asked(), 1);
}

#[tokio::test]
async fn a_new_key_is_found_and_made_up_ones_cost_the_issuer_nothing() {
    let world = World::new().await;
    let prod = world.idp.tenant("prod");
    world.verify(&world.good()).await.unwrap();
    assert_eq!(prod.asked(), 1);

    prod.answers(Answer::Keys(forge::jwks(&[RSA.jwk("main"), NEXT_RSA.jwk("next")])));
    for made_up in 0..200 {
        let rejection = world.verify(&world.signed(&format!("k{made_up}"), &EVIL_RSA)).await.unwrap_err();
        assert_eq!(rejection.reason, Reason::Kid);
    }
    assert_eq!(prod.asked(), 1, "within the floor");

    world.pass(30);
    assert!(world.verify(&world.signed("next", &NEXT_RSA)).await.is_ok());
    for made_up in 0..200 {
        assert!(world.verify(&world.signed(&format!("k{made_up}"), &EVIL_RSA)).await.is_err());
    }
    assert_eq!(prod.asked(), 2);
}

#[tokio::test]
async fn a_failed_attempt_counts() {
    let world = World::new().await;
    let prod = world.idp.tenant("prod");
    prod.answers(Answer::Status(500));
    for _ in 0..50 {
        let rejection = world.verify(&world.good()).await.unwrap_err();
        assert_eq!((rejection.reason, rejection.is_temporary()), (Reason::JwksUnavailable, true));
    }
    assert_eq!(prod.asked(), 1);
    prod.answers(Answer::Keys(main_key()));
    assert!(world.verify(&world.good()).await.is_err(), "within the floor");
    world.pass(30);
    assert!(world.verify(&world.good()).await.is_ok());
    assert_eq!(prod.asked(), 2);
}

#[tokio::test]
async fn who_asked_may_go_away() {
    let world = World::new().await;
    let gate = Arc::new(Semaphore::new(0));
    world.idp.tenant("prod").answers(Answer::Gated(Arc::clone(&gate), main_key()));
    let (identity, token) = (Arc::clone(&world.identity), world.good());
    let gone = tokio::spawn(async move { identity.verify(&token).await });
    world.idp.tenant("prod").arrival().await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    gate.add_permits(1);
    assert!(world.verify(&world.good()).await.is_ok());
    assert_eq!(world.idp.tenant("prod").asked(), 1);
}

#[tokio::test]
async fn a_slow_issuer_holds_up_nobody_else() {
    let world = World::new().await;
    let gate = Arc::new(Semaphore::new(0));
    world.idp.tenant("prod").answers(Answer::Gated(Arc::clone(&gate), main_key()));
    let (identity, token) = (Arc::clone(&world.identity), world.good());
    let slow = tokio::spawn(async move { identity.verify(&token).await });
    world.idp.tenant("prod").arrival().await;
    assert!(world.verify(&world.person(|_| ())).await.is_ok());
    assert!(!slow.is_finished());
    gate.add_permits(1);
    assert!(slow.await.unwrap().is_ok());
}

#[tokio::test]
async fn known_keys_serve_while_new_ones_are_looked_for() {
    let world = World::new().await;
    world.verify(&world.good()).await.unwrap();
    let gate = Arc::new(Semaphore::new(0));
    world.idp.tenant("prod").arrival().await;
    world.idp.tenant("prod").answers(Answer::Gated(Arc::clone(&gate), main_key()));
    world.pass(30);
    let (identity, token) = (Arc::clone(&world.identity), world.signed("unknown", &EVIL_RSA));
    let waits = tokio::spawn(async move { identity.verify(&token).await });
    world.idp.tenant("prod").arrival().await;
    let other = world.prod(|claims| claims["jti"] = json!("another"));
    assert!(world.verify(&other).await.is_ok());
    assert!(!waits.is_finished());
    gate.add_permits(1);
    assert_eq!(waits.await.unwrap().unwrap_err().reason, Reason::Kid);
}

/// This one takes the five seconds.
#[tokio::test]
async fn an_issuer_that_never_answers_is_given_five_seconds() {
    let world = World::new().await;
    world.idp.tenant("prod").answers(Answer::Gated(Arc::new(Semaphore::new(0)), main_key()));
    assert_eq!(world.verify(&world.good()).await.unwrap_err().reason, Reason::JwksUnavailable);
    assert_eq!(status(&world, "prod").keys.last_error.as_deref(), Some("no answer within 5 seconds"));
}

#[tokio::test]
async fn an_outage_is_survived_for_an_hour_and_no_longer() {
    let world = World::new().await;
    world.verify(&world.good()).await.unwrap();
    world.idp.tenant("prod").answers(Answer::Status(503));
    for _ in 0..6 {
        world.pass(600);
        world.identity.refresh_due().await;
        assert!(world.verify(&world.good()).await.is_ok());
    }
    let during = status(&world, "prod").keys;
    assert_eq!((during.keys, during.age), (1, Some(SignedDuration::from_secs(3600))));
    assert_eq!(during.last_error.as_deref(), Some("answered HTTP 503"));
    world.pass(1);
    assert_eq!(world.verify(&world.good()).await.unwrap_err().reason, Reason::JwksUnavailable);
    assert_eq!(status(&world, "prod").keys.keys, 0);

    world.idp.tenant("prod").answers(Answer::Keys(main_key()));
    world.pass(30);
    assert!(world.verify(&world.good()).await.is_ok(), "and then it is over");
    assert_eq!(status(&world, "prod").keys.last_error, None);
}

#[tokio::test]
async fn what_is_no_key_set_leaves_the_last_good_one() {
    let world = World::new().await;
    let prod = world.idp.tenant("prod");
    world.verify(&world.good()).await.unwrap();
    let symmetric = json!({"kty": "oct", "kid": "main", "k": "c2VjcmV0"});
    for (answer, error) in [
        (Answer::Text("<html>Sign in</html>"), "the key set is not a plain JSON object"),
        (Answer::Text("[]"), "the key set is not a plain JSON object"),
        (Answer::Text(r#"{"keys": {}}"#), "the key set is not a plain JSON object"),
        (Answer::Text(r#"{"keys": [], "keys": []}"#), "the key set is not a plain JSON object"),
        (Answer::Keys(json!({"keys": []})), "no key that can be used"),
        (Answer::Keys(forge::jwks(&[symmetric])), "no key that can be used"),
        (Answer::Keys(forge::jwks(&vec![RSA.jwk("main"); 101])), "more than 100 keys"),
        (Answer::Endless, "more than 1048576 bytes"),
        (Answer::Gzip, "compressed"),
        (Answer::Status(204), "HTTP 204"),
        (Answer::Status(404), "HTTP 404"),
    ] {
        prod.answers(answer);
        let asked = prod.asked();
        world.pass(600);
        world.identity.refresh_due().await;
        assert_eq!(prod.asked(), asked + 1);
        let last_error = status(&world, "prod").keys.last_error.unwrap();
        assert!(last_error.contains(error), "{last_error}");
        assert!(world.verify(&world.good()).await.is_ok(), "{error}");
        prod.answers(Answer::Keys(main_key()));
        world.pass(30);
        world.identity.refresh_due().await;
        assert_eq!(status(&world, "prod").keys.last_error, None);
    }
}

#[tokio::test]
async fn an_issuer_that_cannot_be_reached_is_said_why() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}/jwks", listener.local_addr().unwrap());
    drop(listener);
    let world = World::with(|config| config.jwks_uri = Some(nobody.clone())).await;
    assert_eq!(world.verify(&world.good()).await.unwrap_err().reason, Reason::JwksUnavailable);
    let last_error = status(&world, "prod").keys.last_error.unwrap();
    assert!(last_error.to_lowercase().contains("connection refused"), "{last_error}");
    assert!(!last_error.contains("/jwks"), "the URL is in the configuration: {last_error}");
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let world = World::new().await;
    let elsewhere = format!("{}/jwks", world.idp.iss("people"));
    world.idp.tenant("prod").answers(Answer::Redirect(elsewhere));
    assert_eq!(world.verify(&world.good()).await.unwrap_err().reason, Reason::JwksUnavailable);
    assert_eq!(status(&world, "prod").keys.last_error.as_deref(), Some("answered HTTP 302"));
    assert_eq!(world.idp.tenant("people").asked(), 0);
}

#[tokio::test]
async fn a_discovery_document_speaks_for_its_own_issuer_only() {
    let world = World::new().await;
    let prod = world.idp.tenant("prod");
    let jwks_uri = format!("{}/jwks", world.idp.iss("prod"));
    let iss = world.idp.iss("prod");
    for (document, error) in [
        (json!({"issuer": world.idp.iss("people"), "jwks_uri": jwks_uri}), "of another issuer"),
        (json!({"issuer": format!("{iss}/"), "jwks_uri": jwks_uri}), "of another issuer"),
        (json!({"jwks_uri": jwks_uri}), "malformed"),
        (json!({"issuer": iss}), "malformed"),
        (json!({"issuer": [iss], "jwks_uri": jwks_uri}), "malformed"),
        (json!({"issuer": iss, "jwks_uri": "http://keys.example/jwks"}), "may not be fetched"),
        (json!({"issuer": iss, "jwks_uri": "https://169.254.169.254/"}), "may not be fetched"),
    ] {
        prod.discovery_says(document.clone());
        assert_eq!(world.verify(&world.good()).await.unwrap_err().reason, Reason::JwksUnavailable);
        let last_error = status(&world, "prod").keys.last_error.unwrap();
        assert!(last_error.contains(error), "{document}: {last_error}");
        world.pass(30);
    }
    assert_eq!(prod.asked(), 0, "its keys were never fetched");
}

#[tokio::test]
async fn a_configured_key_set_needs_no_discovery() {
    let other = World::new().await;
    let jwks_uri = format!("{}/jwks", other.idp.iss("prod"));
    let world = World::with(|config| config.jwks_uri = Some(jwks_uri.clone())).await;
    assert!(world.verify(&world.good()).await.is_ok());
    assert_eq!((world.idp.requests(), other.idp.requests()), (0, 1));
}

/// Keys that are not used, and why.
fn untrusted() -> Vec<(&'static str, Vec<Value>)> {
    let next = || NEXT_RSA.jwk("next");
    let next_with = |members: Value| {
        let mut jwk = next();
        jwk.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        vec![jwk]
    };
    let weak = forge::b64([&[0xc1][..], &[0x55; 127]].concat());
    let padded = forge::b64([&[0; 128][..], &[0xc1], &[0x55; 127]].concat());
    vec![
        ("use=enc", next_with(json!({"use": "enc"}))),
        ("key_ops without verify", next_with(json!({"key_ops": ["sign"]}))),
        ("another alg", next_with(json!({"alg": "RS512"}))),
        ("an alg that is not pinned", next_with(json!({"alg": "PS256"}))),
        ("HS256 on RSA", next_with(json!({"alg": "HS256"}))),
        ("symmetric", vec![json!({"kty": "oct", "kid": "next", "k": "c2VjcmV0"})]),
        ("a curve that is not pinned", vec![P256.jwk("next")]),
        ("1024 bits", next_with(json!({"n": weak}))),
        ("1024 bits behind zeros", next_with(json!({"n": padded}))),
        ("a modulus of zero", next_with(json!({"n": forge::b64([0; 256])}))),
        ("exponent 1", next_with(json!({"e": "AQ"}))),
        ("exponent 3", next_with(json!({"e": "Aw"}))),
        ("an even exponent", next_with(json!({"e": "AQAC"}))),
        ("no modulus", vec![json!({"kty": "RSA", "kid": "next", "e": "AQAB"})]),
        ("a private part", next_with(json!({"d": "AQAB"}))),
        ("an id with a path", vec![NEXT_RSA.jwk("../next")]),
        ("an unknown type", vec![json!({"kty": "AKP", "kid": "next", "alg": "ML-DSA-65"})]),
        ("no object", vec![json!("next")]),
        ("the same id twice", vec![next(), EVIL_RSA.jwk("next")]),
        ("the same key twice", vec![next(), next()]),
    ]
}

/// Each key beside a good one: the good one serves, the other is not used.
#[tokio::test]
async fn keys_that_cannot_be_trusted_are_dropped() {
    for (what, keys) in untrusted() {
        let world = World::new().await;
        let dropped = keys.len();
        let keys = [vec![RSA.jwk("main")], keys].concat();
        world.idp.tenant("prod").answers(Answer::Keys(forge::jwks(&keys)));
        assert!(world.verify(&world.good()).await.is_ok(), "{what}");
        let rejection = world.verify(&world.signed("next", &NEXT_RSA)).await.unwrap_err();
        assert_eq!(rejection.reason, Reason::Kid, "{what}");
        let found = status(&world, "prod").keys;
        assert_eq!((found.keys, found.dropped), (1, dropped), "{what}");
    }
}

#[tokio::test]
async fn a_point_that_is_not_on_its_curve_is_dropped() {
    let world = World::new().await;
    let odd = forge::b64([7; 32]);
    let off_curve = json!({"kty": "EC", "crv": "P-256", "kid": "bad", "x": odd, "y": odd});
    world.idp.tenant("es").answers(Answer::Keys(forge::jwks(&[P256.jwk("es"), off_curve])));
    let token = forge::token("ES256", "es", &world.run_claims("es"), &P256);
    assert!(world.verify(&token).await.is_ok());
    assert_eq!(status(&world, "es").keys.dropped, 1);
}

/// A key serves the algorithms of its type that its issuer is pinned to, or the one that it names.
#[tokio::test]
async fn a_key_is_bound_to_its_algorithms() {
    let world = World::with(|config| {
        config.algorithms = vec![Algorithm::RS256, Algorithm::PS256, Algorithm::ES256];
    })
    .await;
    let mut named = NEXT_RSA.jwk("named");
    named["alg"] = json!("RS256");
    let keys = forge::jwks(&[RSA.jwk("main"), named]);
    world.idp.tenant("prod").answers(Answer::Keys(keys));
    let claims = world.run_claims("prod");
    for (alg, kid, signer, expected) in [
        ("RS256", "main", &*RSA, None),
        ("PS256", "main", &*RSA, None),
        ("RS256", "named", &*NEXT_RSA, None),
        ("PS256", "named", &*NEXT_RSA, Some(Reason::Alg)),
        ("ES256", "main", &*P256, Some(Reason::Alg)),
        ("EdDSA", "main", &*ED25519, Some(Reason::Alg)),
    ] {
        let token = forge::token(alg, kid, &claims, signer);
        let reason = world.verify(&token).await.err().map(|rejection| rejection.reason);
        assert_eq!(reason, expected, "{alg} with {kid}");
    }
}

#[tokio::test]
async fn a_token_may_leave_out_the_key_id_where_there_is_one_key() {
    let world = World::new().await;
    let unnamed = |world: &World| {
        let payload = world.run_claims("prod").to_string();
        forge::token_of(r#"{"alg":"RS256","typ":"JWT"}"#, &payload, &RSA)
    };
    assert!(world.verify(&unnamed(&world)).await.is_ok());

    let world = World::new().await;
    let keys = forge::jwks(&[RSA.jwk("main"), NEXT_RSA.jwk("next")]);
    world.idp.tenant("prod").answers(Answer::Keys(keys));
    assert_eq!(world.verify(&unnamed(&world)).await.unwrap_err().reason, Reason::Kid);
    world.pass(31);
    assert_eq!(world.verify(&unnamed(&world)).await.unwrap_err().reason, Reason::Kid);
    assert_eq!(world.idp.tenant("prod").asked(), 1, "fetching again would not help");
}

#[tokio::test]
async fn the_loop_fetches_every_issuers_keys_before_a_token_needs_them() {
    let world = World::new().await;
    let identity = Arc::clone(&world.identity);
    let refresh = tokio::spawn(async move { identity.refresh_loop().await });
    for tenant in ["prod", "people", "es", "ed"] {
        world.idp.tenant(tenant).arrival().await;
    }
    assert!(world.verify(&world.good()).await.is_ok());
    assert_eq!(world.idp.tenant("prod").asked(), 1);
    assert!(!refresh.is_finished());
    refresh.abort();
}

#[tokio::test]
async fn a_clock_that_goes_back_holds_up_no_refresh() {
    let world = World::new().await;
    world.verify(&world.good()).await.unwrap();
    world.pass(-3600);
    world.identity.refresh_due().await;
    assert_eq!(world.idp.tenant("prod").asked(), 2);
}
