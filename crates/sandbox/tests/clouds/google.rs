//! Google: a token of Cortex for a federated one, a service account, and datasets that are bound to the grant.

use jiff::SignedDuration;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::world::{LEASE, World, tampered, without_kid};

const POOL: &str = "//iam.googleapis.com/projects/1234567890/locations/global/workloadIdentityPools/cortex";
const PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";
const ACCOUNT: &str = "finance-publish@acme-finance.iam.gserviceaccount.com";

impl World {
    /// The token exchange with good parameters, of which `params` replace some.
    async fn exchange(&self, token: &str, params: &[(&str, &str)]) -> (StatusCode, Value) {
        let audience = format!("{POOL}/providers/cortex");
        let mut form = vec![
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("audience", audience.as_str()),
            ("scope", PLATFORM),
            ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("subject_token", token),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        ];
        form.retain(|(name, _)| !params.iter().any(|(other, _)| other == name));
        form.extend(params);
        let (status, body) = self.post_form(&format!("{}/v1/token", self.sandbox.google_url()), &form).await;
        (status, serde_json::from_str(&body).unwrap())
    }

    async fn federated(&self, claims: &Value, scope: &str) -> String {
        let (status, body) = self.exchange(&self.google_token(claims), &[("scope", scope)]).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body["access_token"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn google(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: &Value,
    ) -> (StatusCode, Value) {
        let url = format!("{}{path}", self.sandbox.google_url());
        let request = self.http.request(method.parse().unwrap(), url).bearer_auth(token).json(body);
        let response = request.send().await.unwrap();
        (response.status(), response.json().await.unwrap())
    }

    async fn act_as(&self, token: &str, email: &str, body: &Value) -> (StatusCode, Value) {
        let path = format!("/v1/projects/-/serviceAccounts/{email}:generateAccessToken");
        self.google(token, "POST", &path, body).await
    }
}

const QUERY: &str = "/bigquery/v2/projects/acme-finance/queries";
const INSERT: &str = "/bigquery/v2/projects/acme-finance/datasets/mart/tables/daily/insertAll";

#[tokio::test]
async fn a_token_of_cortex_becomes_a_federated_token_known_by_lease_and_grant() {
    let world = World::start().await;
    let (status, body) = world.exchange(&world.google_token(&json!({})), &[]).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!((&body["token_type"], &body["expires_in"]), (&json!("Bearer"), &json!(300)));
    let mint = world.sandbox.mints().remove(0);
    assert_eq!(
        (mint.operation.as_str(), mint.lease.as_deref(), mint.delivered),
        ("token", Some(LEASE), true)
    );
    assert_eq!(mint.subject, format!("principal:{POOL}/subject/{LEASE}"));
}

#[tokio::test]
async fn each_flaw_of_an_exchange_is_refused() {
    let world = World::start().await;
    let now = world.now().as_second();
    let good = world.google_token(&json!({}));
    let claims = |claims: Value| world.google_token(&claims);
    for (token, name, value, error) in [
        (&good, "audience", "//iam.googleapis.com/other", "invalid_target"),
        (&good, "grant_type", "client_credentials", "unsupported_grant_type"),
        (&good, "scope", "", "invalid_request"),
        (&good, "subject_token_type", "urn:ietf:params:oauth:token-type:saml2", "invalid_request"),
        (&good, "requested_token_type", "urn:ietf:params:oauth:token-type:jwt", "invalid_request"),
        (&claims(json!({"iss": "http://127.0.0.1:1"})), "x", "", "invalid_grant"),
        (&claims(json!({"aud": "sts.amazonaws.com"})), "x", "", "invalid_grant"),
        (&claims(json!({"exp": now})), "x", "", "invalid_grant"),
        (&claims(json!({"iat": now - 86_401})), "x", "", "invalid_grant"),
        (&claims(json!({"sub": null})), "x", "", "invalid_grant"),
        (&without_kid(&good), "x", "", "invalid_grant"),
        (&tampered(&good), "x", "", "invalid_grant"),
    ] {
        let (status, body) = world.exchange(token, &[(name, value)]).await;
        assert_eq!(
            (status, &body["error"]),
            (StatusCode::BAD_REQUEST, &json!(error)),
            "{name}={value}: {body}"
        );
    }
    let url = format!("{}/v1/token", world.sandbox.google_url());
    let authorised = world.http.post(url).bearer_auth("x").send().await.unwrap();
    assert_eq!(authorised.status(), StatusCode::BAD_REQUEST);
    assert_eq!(world.sandbox.mints(), []);
}

#[tokio::test]
async fn an_exchange_may_come_as_json() {
    let world = World::start().await;
    let body = json!({
        "grantType": "urn:ietf:params:oauth:grant-type:token-exchange",
        "audience": format!("{POOL}/providers/cortex"), "scope": PLATFORM,
        "requestedTokenType": "urn:ietf:params:oauth:token-type:access_token",
        "subjectToken": world.google_token(&json!({})),
        "subjectTokenType": "urn:ietf:params:oauth:token-type:id_token",
    });
    let url = format!("{}/v1/token", world.sandbox.google_url());
    let response = world.http.post(url).json(&body).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn datasets_are_open_to_the_grant_that_they_are_bound_to() {
    let world = World::start().await;
    let bound = world.federated(&json!({}), PLATFORM).await;
    let stranger = world.federated(&json!({"grant": "sales"}), PLATFORM).await;
    let row = json!({"rows": [{"json": {"day": "2026-11-22"}}]});
    let select = json!({"query": "SELECT COUNT(*) FROM mart.daily", "useLegacySql": false});
    let secret = json!({"query": "SELECT COUNT(*) FROM payroll.salaries"});
    assert_eq!(world.google(&bound, "POST", INSERT, &row).await.0, StatusCode::OK);
    let (status, body) = world.google(&bound, "POST", QUERY, &select).await;
    assert_eq!((status, &body["rows"][0]["f"][0]["v"]), (StatusCode::OK, &json!("1")), "{body}");
    let datasets = "/bigquery/v2/projects/acme-finance/datasets";
    let (_, body) = world.google(&bound, "GET", datasets, &json!({})).await;
    assert_eq!(body["datasets"].as_array().unwrap().len(), 1, "{body}");
    for (token, method, path, body) in [
        (&stranger, "POST", INSERT, &row),
        (&stranger, "POST", QUERY, &select),
        (&stranger, "GET", &format!("{datasets}/mart"), &row),
        (&bound, "GET", &format!("{datasets}/payroll"), &row),
        (&bound, "POST", QUERY, &secret),
    ] {
        let (status, answer) = world.google(token, method, path, body).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{method} {path}: {answer}");
        assert_eq!(answer["error"]["errors"][0]["reason"], "accessDenied");
    }
}

#[tokio::test]
async fn a_token_has_a_scope_and_an_end() {
    let world = World::start().await;
    let insert_only =
        world.federated(&json!({}), "https://www.googleapis.com/auth/bigquery.insertdata").await;
    let row = json!({"rows": [{"json": {}}]});
    assert_eq!(world.google(&insert_only, "POST", INSERT, &row).await.0, StatusCode::OK);
    let select = json!({"query": "SELECT 1"});
    let (status, body) = world.google(&insert_only, "POST", QUERY, &select).await;
    assert_eq!((status, &body["error"]["status"]), (StatusCode::FORBIDDEN, &json!("PERMISSION_DENIED")));
    let read_only =
        world.federated(&json!({}), "https://www.googleapis.com/auth/cloud-platform.read-only").await;
    assert_eq!(world.google(&read_only, "POST", QUERY, &select).await.0, StatusCode::OK);
    let job = json!({"configuration": {"query": {"query": "SELECT 1"}}});
    let jobs = "/bigquery/v2/projects/acme-finance/jobs";
    assert_eq!(world.google(&read_only, "POST", jobs, &job).await.0, StatusCode::FORBIDDEN);
    assert_eq!(world.google("guess", "POST", QUERY, &select).await.0, StatusCode::UNAUTHORIZED);
    world.clock.advance(SignedDuration::from_secs(299));
    assert_eq!(world.google(&read_only, "POST", QUERY, &select).await.0, StatusCode::OK);
    world.clock.advance(SignedDuration::from_secs(1));
    assert_eq!(world.google(&read_only, "POST", QUERY, &select).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_grant_acts_as_its_service_account_and_as_no_other() {
    let world = World::start().await;
    let bound = world.federated(&json!({}), PLATFORM).await;
    let stranger = world.federated(&json!({"grant": "sales"}), PLATFORM).await;
    let narrow = world.federated(&json!({}), "https://www.googleapis.com/auth/bigquery").await;
    let good = json!({"scope": [PLATFORM], "lifetime": "600s"});
    let nulls = json!({"scope": [PLATFORM], "lifetime": null, "delegates": null});
    assert_eq!(world.act_as(&bound, ACCOUNT, &nulls).await.0, StatusCode::OK, "as Python's client writes it");
    let (status, body) = world.act_as(&bound, ACCOUNT, &good).await;
    assert_eq!((status, &body["expireTime"]), (StatusCode::OK, &json!("2026-11-22T12:10:00Z")), "{body}");
    let mint = world.sandbox.mints().pop().unwrap();
    assert_eq!((mint.subject.as_str(), mint.lease.as_deref()), (ACCOUNT, Some(LEASE)));
    let token = body["accessToken"].as_str().unwrap();
    let me = json!({"query": "SELECT SESSION_USER()"});
    let (_, body) = world.google(token, "POST", QUERY, &me).await;
    assert_eq!(body["rows"][0]["f"][0]["v"], ACCOUNT);

    for (token, email, body, expected) in [
        (&stranger, ACCOUNT, good.clone(), 403),
        (&narrow, ACCOUNT, good.clone(), 403),
        (&bound, "other@acme-finance.iam.gserviceaccount.com", good.clone(), 403),
        (&bound, ACCOUNT, json!({"scope": [PLATFORM], "lifetime": "3601s"}), 400),
        (&bound, ACCOUNT, json!({"scope": [PLATFORM], "lifetime": "0s"}), 400),
        (&bound, ACCOUNT, json!({"scope": [PLATFORM], "lifetime": "600"}), 400),
        (&bound, ACCOUNT, json!({"scope": []}), 400),
        (&bound, ACCOUNT, json!({"scope": [PLATFORM], "delegates": ["x"]}), 400),
        (&"guess".to_owned(), ACCOUNT, good.clone(), 401),
    ] {
        let (status, answer) = world.act_as(token, email, &body).await;
        assert_eq!(status.as_u16(), expected, "{email} {body}: {answer}");
    }
    world.clock.advance(SignedDuration::from_mins(10));
    assert_eq!(world.google(token, "POST", QUERY, &me).await.0, StatusCode::UNAUTHORIZED);
}
