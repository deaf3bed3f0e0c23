//! Snowflake: three ways to log in, what each refuses, and what a session is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cortex_core::jwt::{SigningAlgorithm, SigningKey};
use cortex_sandbox::SnowflakeUser;
use jiff::SignedDuration;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::world::{LEASE, World, tampered, without_kid};

impl World {
    async fn snowflake(&self, path: &str, session: Option<&str>, body: &Value) -> Value {
        let mut request = self.http.post(format!("{}{path}", self.sandbox.snowflake_url())).json(body);
        if let Some(token) = session {
            request = request.header("authorization", format!("Snowflake Token=\"{token}\""));
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response.json().await.unwrap()
    }

    async fn login(&self, authenticator: &str, token: &str, user: &str, role: &str) -> Value {
        let body = json!({"data": {
            "AUTHENTICATOR": authenticator, "PROVIDER": "OIDC", "TOKEN": token, "LOGIN_NAME": user,
        }});
        self.snowflake(&format!("/session/v1/login-request?roleName={role}"), None, &body).await
    }

    async fn sql(&self, session: &Value, text: &str) -> Value {
        let token = session["data"]["token"].as_str().unwrap();
        self.snowflake("/queries/v1/query-request", Some(token), &json!({"sqlText": text})).await
    }

    async fn statement(&self, kind: &str, token: &str, body: &Value) -> (StatusCode, Value) {
        let response = self
            .http
            .post(format!("{}/api/v2/statements", self.sandbox.snowflake_url()))
            .bearer_auth(token)
            .header("x-snowflake-authorization-token-type", kind)
            .json(body)
            .send()
            .await
            .unwrap();
        (response.status(), response.json().await.unwrap())
    }
}

#[tokio::test]
async fn an_oauth_token_opens_a_session_in_its_role() {
    let world = World::start().await;
    let session = world.login("OAUTH", &world.oauth_token(&json!({})), "", "").await;
    assert_eq!(session["success"], true, "{session}");
    assert_eq!(session["data"]["sessionInfo"]["roleName"], "FINANCE_PUBLISH");
    let answer = world.sql(&session, "select current_role(), current_user()").await;
    assert_eq!(answer["data"]["rowset"], json!([["FINANCE_PUBLISH", "FINANCE_SVC"]]), "{answer}");
    assert!(answer["data"]["sendResultTime"].is_i64(), "the Python connector computes with it");
    assert_eq!(world.sql(&session, "use role accountadmin").await["code"], "003013");
    let mint = world.sandbox.mints().remove(0);
    assert_eq!(
        (mint.subject.as_str(), mint.lease.as_deref(), mint.delivered),
        ("FINANCE_SVC", Some(LEASE), true)
    );
}

#[tokio::test]
async fn each_flaw_of_an_oauth_token_has_its_code() {
    let world = World::start_with(|mut config| {
        let user = SnowflakeUser::new("GONE").role("FINANCE_PUBLISH").disabled();
        let admin = SnowflakeUser::new("ADMIN_SVC").role("ACCOUNTADMIN");
        config.snowflake = config.snowflake.user(user).user(admin);
        config
    })
    .await;
    let now = world.now().as_second();
    let good = world.oauth_token(&json!({}));
    let claims = |claims: Value| world.oauth_token(&claims);
    let admin = claims(json!({"sub": "ADMIN_SVC", "scp": ["session:role:ACCOUNTADMIN"]}));
    let ungranted = claims(json!({"scp": ["session:role:SYSADMIN"]}));
    for (flaw, token, user, role, code) in [
        ("another issuer", claims(json!({"iss": "http://127.0.0.1:1"})), "", "", "390303"),
        ("another audience", claims(json!({"aud": "sts.amazonaws.com"})), "", "", "390303"),
        ("no iat", claims(json!({"iat": null})), "", "", "390303"),
        ("expired", claims(json!({"exp": now})), "", "", "390318"),
        ("not yet valid", claims(json!({"nbf": now + 61})), "", "", "390303"),
        ("no scope", claims(json!({"scp": null})), "", "", "390303"),
        ("no role in its scope", claims(json!({"scp": ["openid"]})), "", "", "390303"),
        ("no key id", without_kid(&good), "", "", "390303"),
        ("a broken signature", tampered(&good), "", "", "390303"),
        ("an unknown user", claims(json!({"sub": "NOBODY"})), "", "", "390303"),
        ("another user", good.clone(), "ADMIN_SVC", "", "390309"),
        ("another role", good.clone(), "", "SYSADMIN", "390317"),
        ("a role that the user has not", ungranted, "", "", "390189"),
        ("a blocked role", admin, "", "", "390317"),
        ("a disabled user", claims(json!({"sub": "GONE"})), "", "", "390101"),
        ("nothing", String::new(), "", "", "390303"),
    ] {
        let answer = world.login("OAUTH", &token, user, role).await;
        assert_eq!((&answer["success"], &answer["code"]), (&json!(false), &json!(code)), "{flaw}: {answer}");
    }
    assert_eq!(world.login("SNOWFLAKE", &good, "", "").await["success"], false);
    assert_eq!(world.sandbox.mints(), []);
}

#[tokio::test]
async fn a_workload_identity_may_use_every_role_of_its_user() {
    let world = World::start_with(|mut config| {
        let user = SnowflakeUser::new("ETL").role("A").role("B").workload_identity("cortex:ETL");
        config.snowflake = config.snowflake.user(user);
        config
    })
    .await;
    let token = world.workload_token(&json!({"sub": "cortex:ETL"}));
    let session = world.login("WORKLOAD_IDENTITY", &token, "", "").await;
    assert_eq!(session["data"]["sessionInfo"]["roleName"], "A", "{session}");
    assert_eq!(world.sql(&session, "use role b").await["success"], true);
    assert_eq!(world.sql(&session, "select current_role()").await["data"]["rowset"], json!([["B"]]));
    let now = world.now().as_second();
    for (claims, user, code) in [
        (json!({"sub": "cortex:OTHER"}), "", "394729"),
        (json!({"sub": "cortex:ETL"}), "FINANCE_SVC", "394729"),
        (json!({"sub": "cortex:ETL", "aud": "https://acme-prod.snowflakecomputing.com"}), "", "390144"),
        (json!({"sub": "cortex:ETL", "exp": now}), "", "390144"),
    ] {
        let answer = world.login("WORKLOAD_IDENTITY", &world.workload_token(&claims), user, "").await;
        assert_eq!(answer["code"], code, "{claims}: {answer}");
    }
}

/// A key, its fingerprint and its DER, as `rsa_public_key` registers it.
fn key() -> (SigningKey, String, Vec<u8>) {
    let key = SigningKey::generate(SigningAlgorithm::RS256).unwrap();
    let spki = key.public_der().unwrap();
    (key, STANDARD.encode(cortex_core::Digest::of(&spki).as_bytes()), spki)
}

#[tokio::test]
async fn a_key_pair_token_is_signed_by_a_registered_key() {
    let (own, fingerprint, spki) = key();
    let (other, other_fingerprint, _) = key();
    let world = World::start_with(|mut config| {
        config.snowflake = config.snowflake.user(SnowflakeUser::new("ETL").role("A").rsa_public_key(spki));
        config
    })
    .await;
    let now = world.now().as_second();
    let token = |key: &SigningKey, change: Value| {
        let mut claims = json!({
            "iss": format!("ACME-PROD.ETL.SHA256:{fingerprint}"), "sub": "ACME-PROD.ETL",
            "iat": now, "exp": now + 300,
        });
        claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        key.sign("JWT", &claims).unwrap().to_string()
    };
    let session = world.login("SNOWFLAKE_JWT", &token(&own, json!({})), "etl", "").await;
    assert_eq!(session["data"]["sessionInfo"]["roleName"], "A", "{session}");
    let of_other = format!("ACME-PROD.ETL.SHA256:{other_fingerprint}");
    for (token, code) in [
        (token(&other, json!({})), "394300"),
        (token(&other, json!({"iss": of_other})), "394304"),
        (token(&own, json!({"sub": "ACME-PROD.OTHER"})), "394300"),
        (token(&own, json!({"iss": format!("ELSE.ETL.SHA256:{fingerprint}")})), "394300"),
        (token(&own, json!({"exp": now})), "390318"),
        (token(&own, json!({"iat": now - 3_600})), "390318"),
        (token(&own, json!({"iat": now + 61})), "394302"),
        (token(&own, json!({"exp": "soon"})), "394303"),
        ("nonsense".to_owned(), "394306"),
    ] {
        let answer = world.login("SNOWFLAKE_JWT", &token, "", "").await;
        assert_eq!(answer["code"], code, "{answer}");
    }
}

#[tokio::test]
async fn a_session_outlives_its_token_and_ends_when_it_is_closed() {
    let world = World::start().await;
    let mut session = world.login("OAUTH", &world.oauth_token(&json!({})), "", "").await;
    world.clock.advance(SignedDuration::from_mins(10));
    assert_eq!(world.sql(&session, "select 1").await["data"]["rowset"], json!([["1"]]));
    world.clock.advance(SignedDuration::from_hours(1));
    assert_eq!(world.sql(&session, "select 1").await["code"], "390112");
    let master = session["data"]["masterToken"].as_str().unwrap().to_owned();
    let renewed = world.snowflake("/session/token-request", Some(&master), &json!({})).await;
    session["data"]["token"] = renewed["data"]["sessionToken"].clone();
    assert_eq!(world.sql(&session, "select 1").await["success"], true);
    let token = session["data"]["token"].as_str().unwrap();
    assert_eq!(world.snowflake("/session?delete=true", Some(token), &json!({})).await["success"], true);
    assert_eq!(world.sql(&session, "select 1").await["code"], "390104");
}

#[tokio::test]
async fn the_sql_api_takes_the_three_kinds_of_tokens() {
    let world = World::start().await;
    let body = json!({"statement": "select current_role()", "role": "FINANCE_PUBLISH"});
    let (oauth, workload) = (world.oauth_token(&json!({})), world.workload_token(&json!({})));
    for (kind, token, status) in [
        ("OAUTH", oauth.clone(), 200),
        ("WORKLOAD_IDENTITY_FEDERATION", format!("WIF.OIDC.{workload}"), 200),
        ("WORKLOAD_IDENTITY_FEDERATION", workload.clone(), 401),
        ("WORKLOAD_IDENTITY_FEDERATION", format!("WIF.AWS.{workload}"), 401),
        ("OAUTH", workload, 401),
        ("KEYPAIR_JWT", oauth.clone(), 401),
        ("PROGRAMMATIC_ACCESS_TOKEN", oauth.clone(), 401),
    ] {
        let (answered, answer) = world.statement(kind, &token, &body).await;
        assert_eq!(answered.as_u16(), status, "{kind}: {answer}");
        if status == 200 {
            assert_eq!((&answer["code"], &answer["data"]), (&json!("090001"), &json!([["FINANCE_PUBLISH"]])));
        }
    }
    let (status, answer) = world.statement("OAUTH", &oauth, &json!({"statement": "drop table x"})).await;
    assert_eq!((status, &answer["code"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("001003")));
    let (status, _) = world.statement("OAUTH", &oauth, &json!({"statement": "select 1", "role": "X"})).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}
