//! The development issuer: tokens for runs and people, over the wire and in process.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cortex_sandbox::RunClaims;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::world::World;

fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

impl World {
    async fn ask_token(&self, body: &Value) -> (StatusCode, Value) {
        let url = format!("{}/token", self.sandbox.issuer_url());
        let response = self.http.post(url).json(body).send().await.unwrap();
        (response.status(), response.json().await.unwrap())
    }

    async fn read(&self, url: &str) -> Value {
        self.http.get(url).send().await.unwrap().json().await.unwrap()
    }
}

#[tokio::test]
async fn runs_and_people_have_issuers_of_their_own_with_the_same_keys() {
    let world = World::start().await;
    let (runs, people) = (world.sandbox.issuer_url().to_owned(), world.sandbox.people_url());
    for iss in [&runs, &people] {
        let discovery = world.read(&format!("{iss}/.well-known/openid-configuration")).await;
        assert_eq!(&discovery["issuer"], iss);
        assert!(discovery["service_documentation"].as_str().unwrap().contains("development-only"));
        let jwks = world.read(discovery["jwks_uri"].as_str().unwrap()).await;
        assert_eq!((&jwks["keys"][0]["alg"], &jwks["keys"][0]["use"]), (&json!("RS256"), &json!("sig")));
    }
    let run = RunClaims::scheduled("finance_publish", "r1", "publish");
    let token = claims(&world.sandbox.run_token(&run).unwrap());
    assert_eq!((&token["iss"], &token["aud"]), (&json!(runs), &json!("cortex")));
    assert_eq!(token["airflow"]["dag_id"], "finance_publish");
    assert_eq!(token["exp"].as_i64().unwrap() - token["iat"].as_i64().unwrap(), 300);
    let token = claims(&world.sandbox.person_token("alice", &["finance-admins"]).unwrap());
    assert_eq!((&token["iss"], &token["sub"]), (&json!(people), &json!("alice")));
    assert_eq!(token["groups"], json!(["finance-admins"]));
}

#[tokio::test]
async fn tokens_are_signed_for_whoever_asks_and_no_two_are_the_same() {
    let world = World::start().await;
    let body =
        json!({"run": {"dag_id": "d", "run_id": "r", "task_id": "t"}, "ttl_s": 60, "audience": "other"});
    let mut ids = BTreeSet::new();
    for _ in 0..3 {
        let (status, answer) = world.ask_token(&body).await;
        assert_eq!((status, &answer["expires_in"]), (StatusCode::OK, &json!(60)), "{answer}");
        let token = claims(answer["token"].as_str().unwrap());
        assert_eq!((&token["aud"], &token["airflow"]["map_index"]), (&json!("other"), &json!(-1)));
        ids.insert(token["jti"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids.len(), 3);
    let overlay =
        json!({"person": {"sub": "bob", "groups": ["x"], "email": "b@x.test"}, "claims": {"iss": "wrong"}});
    let (_, answer) = world.ask_token(&overlay).await;
    let token = claims(answer["token"].as_str().unwrap());
    assert_eq!((&token["iss"], &token["email"]), (&json!("wrong"), &json!("b@x.test")));
    for body in [json!({}), json!({"run": {"dag_id": "d"}}), json!({"person": {"sub": "a"}, "runn": 1})] {
        assert_eq!(world.ask_token(&body).await.0, StatusCode::BAD_REQUEST, "{body}");
    }
}
