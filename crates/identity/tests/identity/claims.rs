//! What a good token proves.

use std::collections::BTreeSet;

use cortex_core::{Attestation, Digest, Principal};
use cortex_identity::{ClaimMap, Kind};
use jiff::SignedDuration;
use serde_json::json;

use crate::forge::{self, ED25519, P256, P384, RSA, token};
use crate::world::{World, name};

#[tokio::test]
async fn a_tasks_token_proves_a_run() {
    let world = World::new().await;
    let token = world.good();
    let verified = world.verify(&token).await.unwrap();
    let run = verified.principal().as_run().unwrap();
    assert_eq!(run.issuer, name("prod"));
    assert_eq!(run.dag_id.as_str(), "finance_publish");
    assert_eq!(run.run_id.as_str(), "scheduled__2026-03-01T00:00:00+00:00");
    assert_eq!(run.task_id.as_str(), "publish.load");
    assert_eq!((run.map_index, run.try_number), (None, 1));
    assert_eq!(run.run_type.as_ref().unwrap().as_str(), "scheduled");
    assert_eq!(run.triggering_user, None, "null is absent");
    assert_eq!(run.tags, BTreeSet::from(["mart".to_owned(), "nightly".to_owned()]));
    assert_eq!(run.attestation, Attestation::Issuer);
    assert_eq!(verified.kind(), Kind::Run);
    assert_eq!(verified.subject(), "01978f2e-6f0f-7d6a-9c58-0b8a3b9f6d11");
    assert_eq!(verified.expires_at(), world.now() + SignedDuration::from_secs(300));
    assert_eq!(*verified.token_digest(), Digest::of(token.as_bytes()));
}

#[tokio::test]
async fn a_runs_token_is_good_once_and_a_persons_more_often() {
    let world = World::new().await;
    let verified = world.verify(&world.good()).await.unwrap();
    let replay = verified.replay().unwrap();
    assert_eq!(replay.issuer, name("prod"));
    assert_eq!(replay.jti_hash, Digest::of(b"jti-canary-1"));
    assert!(
        replay.expires_at >= verified.expires_at() + SignedDuration::from_secs(30),
        "the leeway is covered"
    );
    let person = world.verify(&world.person(|_| ())).await.unwrap();
    assert_eq!(person.replay(), None);
}

#[tokio::test]
async fn a_mapped_task_says_which() {
    let world = World::new().await;
    for (value, expected) in
        [(json!(-1), None), (json!(null), None), (json!(0), Some(0)), (json!(41), Some(41))]
    {
        let token = world.prod(|claims| claims["airflow"]["map_index"] = value);
        let verified = world.verify(&token).await.unwrap();
        assert_eq!(verified.principal().as_run().unwrap().map_index, expected);
    }
}

#[tokio::test]
async fn every_algorithm_verifies() {
    let world = World::new().await;
    let mut service = world.person_claims("es384");
    service["groups"] = json!(["ci"]);
    for token in [
        token("PS256", "pss", &world.run_claims("pss"), &RSA),
        token("ES256", "es", &world.run_claims("es"), &P256),
        token("ES384", "es384", &service, &P384),
        token("EdDSA", "ed", &world.run_claims("ed"), &ED25519),
    ] {
        world.verify(&token).await.unwrap();
    }
}

#[tokio::test]
async fn a_person_has_groups_and_an_address() {
    let world = World::new().await;
    let token = world.person(|claims| {
        claims["groups"] = json!(["finance-admins", "staff"]);
        claims["email"] = json!("ana@example.com");
    });
    let verified = world.verify(&token).await.unwrap();
    let Principal::Person(person) = verified.principal() else { panic!("not a person") };
    assert_eq!((person.issuer.as_str(), person.subject.as_str()), ("people", "auth0|ana"));
    assert_eq!(person.email.as_deref(), Some("ana@example.com"));
    assert_eq!(person.groups, BTreeSet::from(["finance-admins".to_owned(), "staff".to_owned()]));
}

#[tokio::test]
async fn claims_are_read_from_where_the_configuration_says() {
    let world = World::with(|config| {
        if config.kind == Kind::Run {
            let paths =
                r#"{"dag_id": ["https://acme.example/run", "dag"], "task_id": "task", "tags": "labels"}"#;
            config.claims = serde_json::from_str::<ClaimMap>(paths).unwrap();
            config.attestation = Some(Attestation::VerifiedClaim);
            config.single_use_jti = Some(false);
        }
    })
    .await;
    let mut claims = world.run_claims("prod");
    claims.as_object_mut().unwrap().remove("jti");
    claims["https://acme.example/run"] = json!({"dag": "mapped"});
    claims["task"] = json!("other");
    let verified = world.verify(&forge::token("RS256", "main", &claims, &RSA)).await.unwrap();
    let run = verified.principal().as_run().unwrap();
    assert_eq!((run.dag_id.as_str(), run.task_id.as_str()), ("mapped", "other"));
    assert_eq!(run.run_id.as_str(), "scheduled__2026-03-01T00:00:00+00:00", "the default path");
    assert!(run.tags.is_empty(), "absent where it is looked for");
    assert_eq!(run.attestation, Attestation::VerifiedClaim);
    assert_eq!(verified.replay(), None);
}
