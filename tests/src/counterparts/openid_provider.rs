//! A certified `OpenID` Provider, in place of an Airflow and of a company's identity provider.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Client;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::process::Command;

use super::{Places, Server, folder};

/// What can go wrong at a path of the provider.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// It answers with this HTTP status and nothing else.
    Status(u16),
    /// It answers well, but this much later.
    Delay(Duration),
    /// It closes the connection.
    Drop,
    /// It answers 200 with half a JSON document.
    Garbage,
    /// It never answers.
    Stall,
}

/// A provider of its own for one test; it ends when this is dropped.
pub struct OpenIdProvider {
    server: Server,
    http: Client,
}

impl OpenIdProvider {
    /// The audience that its tokens are for.
    pub const AUDIENCE: &str = "https://cortex.test";

    /// Starts one, with an RS256, an ES256 and an `EdDSA` key.
    pub async fn start() -> Self {
        let mut command = Command::new(Places::get().await.node());
        command.arg(folder().join("node/op.mjs")).args(["--audience", Self::AUDIENCE]);
        Self { server: Server::start(command).await, http: Client::new() }
    }

    /// Starts one that is called `localhost`, so that for a browser it is another site than what is called 127.0.0.1.
    pub async fn start_elsewhere() -> Self {
        let mut command = Command::new(Places::get().await.node());
        command.arg(folder().join("node/op.mjs")).args(["--audience", Self::AUDIENCE, "--host", "localhost"]);
        Self { server: Server::start(command).await, http: Client::new() }
    }

    /// People sign in here for a console, as its client `cortex-console`, which is called back at `redirect`.
    pub async fn serves_console_at(&self, redirect: &str) {
        self.control("console", &json!({"redirect": redirect})).await;
    }

    /// People sign in here for a command line, as a public client that is called [`Self::AUDIENCE`]. Its ID tokens
    /// live for `id_token_ttl` seconds.
    pub async fn serves_command_line(&self, id_token_ttl: u32) {
        self.control("command-line", &json!({"id_token_ttl": id_token_ttl})).await;
    }

    /// Every sign-in is over, and no token refreshes any more.
    pub async fn forget_sign_ins(&self) {
        self.control("forget", &json!({})).await;
    }

    /// The secret of its clients.
    pub fn secret(&self) -> &str {
        self.server.address("secret")
    }

    /// Its `iss`; discovery and keys are below it.
    pub fn issuer(&self) -> &str {
        self.server.address("issuer")
    }

    /// A token of an Airflow run. The fields are those of the claim `airflow` (`dag_id`, `run_id`, `task_id`,
    /// `map_index`, `try_number`, `run_type`, `triggering_user_name`, `team_name`, `tags` with commas, ...), and
    /// `alg`, `ttl` in seconds, `typ`, and the JSON objects `claims` and `header`, which overwrite what is signed.
    pub async fn run_token(&self, fields: &[(&str, &str)]) -> String {
        self.token("airflow", fields).await
    }

    /// A token of a person with their groups: `alice` (data-eng), `bob` (cortex-admins, data-eng), `carol`
    /// (finance-admins) or `dave` (auditors).
    pub async fn person_token(&self, user: &str) -> String {
        self.person_token_with(user, &[]).await
    }

    /// A person's token with more fields: `alg`, `ttl`, `typ`, `claims` and `header`, as for a run.
    pub async fn person_token_with(&self, user: &str, fields: &[(&str, &str)]) -> String {
        self.token("people", &[&[("user", user)], fields].concat()).await
    }

    /// New signing keys; `keep` says whether the JWKS still holds the old ones.
    pub async fn rotate(&self, keep: bool) {
        self.control("rotate", &json!({ "keep": keep })).await;
    }

    /// The next `times` requests of `path` (such as `/jwks`) go wrong.
    pub async fn fault(&self, path: &str, fault: Fault, times: u32) {
        let mut plan = match fault {
            Fault::Status(status) => json!({ "mode": "status", "status": status }),
            Fault::Delay(delay) => json!({ "mode": "delay", "milliseconds": delay.as_millis() }),
            Fault::Drop => json!({ "mode": "drop" }),
            Fault::Garbage => json!({ "mode": "garbage" }),
            Fault::Stall => json!({ "mode": "stall" }),
        };
        plan["path"] = path.into();
        plan["times"] = times.into();
        self.control("fault", &plan).await;
    }

    /// Nothing goes wrong any more.
    pub async fn clear_faults(&self) {
        self.control("fault", &json!({})).await;
    }

    /// How often each path was asked for: proof that keys were cached, or fetched again.
    pub async fn counts(&self) -> BTreeMap<String, u64> {
        self.read("counts").await
    }

    /// The private keys as JWKs, newest first, for a test that forges.
    pub async fn private_keys(&self) -> Vec<Value> {
        self.read("keys").await
    }

    async fn token(&self, client: &str, fields: &[(&str, &str)]) -> String {
        let form = [&[("grant_type", "client_credentials")], fields].concat();
        let request = self.http.post(format!("{}/token", self.issuer()));
        let request = request.basic_auth(client, Some(self.server.address("secret"))).form(&form);
        let answer: Value =
            request.send().await.expect("the provider answers").json().await.expect("in JSON");
        let token = answer.get("access_token").and_then(Value::as_str);
        token.unwrap_or_else(|| panic!("the provider gave no token: {answer}")).to_owned()
    }

    async fn control(&self, what: &str, body: &Value) {
        let request = self.http.post(self.control_url(what)).json(body).send();
        request.await.and_then(reqwest::Response::error_for_status).expect("the provider obeys");
    }

    async fn read<T: DeserializeOwned>(&self, what: &str) -> T {
        let answer = self.http.get(self.control_url(what)).send().await.expect("the provider answers");
        answer.json().await.expect("in JSON")
    }

    fn control_url(&self, what: &str) -> String {
        format!("{}/{what}", self.server.address("control"))
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::jwk::JwkSet;
    use jsonwebtoken::{Algorithm, DecodingKey, TokenData, Validation, decode, decode_header};

    use super::*;

    async fn jwks(provider: &OpenIdProvider) -> reqwest::Result<JwkSet> {
        let answer = reqwest::get(format!("{}/jwks", provider.issuer())).await?;
        answer.error_for_status()?.json().await
    }

    /// The claims, if a key in the JWKS verifies the token.
    async fn verified(provider: &OpenIdProvider, token: &str) -> Option<TokenData<Value>> {
        let header = decode_header(token).unwrap();
        let keys = jwks(provider).await.unwrap();
        let key = keys.find(&header.kid?)?;
        let mut validation = Validation::new(header.alg);
        validation.set_audience(&[OpenIdProvider::AUDIENCE]);
        validation.set_issuer(&[provider.issuer()]);
        decode(token, &DecodingKey::from_jwk(key).unwrap(), &validation).ok()
    }

    #[tokio::test]
    async fn a_run_token_says_which_run_and_verifies_with_each_algorithm() {
        let provider = OpenIdProvider::start().await;
        for (alg, expected) in
            [("RS256", Algorithm::RS256), ("ES256", Algorithm::ES256), ("EdDSA", Algorithm::EdDSA)]
        {
            let fields =
                [("dag_id", "d"), ("run_id", "r"), ("task_id", "t"), ("map_index", "3"), ("tags", "a,b")];
            let token = provider.run_token(&[&fields[..], &[("alg", alg), ("ttl", "60")]].concat()).await;
            let TokenData { header, claims, .. } = verified(&provider, &token).await.unwrap();
            assert_eq!(header.alg, expected);
            let run =
                json!({"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": 3, "tags": ["a", "b"]});
            assert_eq!(claims["airflow"], run);
            assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 60);
        }
    }

    #[tokio::test]
    async fn a_person_token_says_the_groups_and_can_be_overwritten() {
        let provider = OpenIdProvider::start().await;
        let token = provider.person_token("bob").await;
        let claims = verified(&provider, &token).await.unwrap().claims;
        assert_eq!(
            (&claims["sub"], &claims["groups"]),
            (&json!("bob"), &json!(["cortex-admins", "data-eng"]))
        );

        let token =
            provider.person_token_with("bob", &[("claims", r#"{"aud": "https://else.where"}"#)]).await;
        assert!(verified(&provider, &token).await.is_none(), "signed, but for another audience");
    }

    #[tokio::test]
    async fn rotation_keeps_the_old_keys_or_drops_them() {
        let provider = OpenIdProvider::start().await;
        let token = provider.person_token("alice").await;
        provider.rotate(true).await;
        assert!(verified(&provider, &token).await.is_some());
        provider.rotate(false).await;
        assert!(verified(&provider, &token).await.is_none());
        assert_eq!(provider.private_keys().await.len(), jwks(&provider).await.unwrap().keys.len());
    }

    #[tokio::test]
    async fn faults_come_as_often_as_planned_and_requests_are_counted() {
        let provider = OpenIdProvider::start().await;
        provider.fault("/jwks", Fault::Status(503), 2).await;
        for expected in [false, false, true] {
            assert_eq!(jwks(&provider).await.is_ok(), expected);
        }
        for fault in [Fault::Drop, Fault::Garbage] {
            provider.fault("/jwks", fault, 1).await;
            assert!(jwks(&provider).await.is_err(), "{fault:?}");
        }
        provider.fault("/jwks", Fault::Stall, 9).await;
        provider.clear_faults().await;
        assert!(jwks(&provider).await.is_ok());
        assert_eq!(provider.counts().await["/jwks"], 6);
    }

    #[tokio::test]
    async fn it_ends_with_its_owner() {
        let provider = OpenIdProvider::start().await;
        let url = format!("{}/jwks", provider.issuer());
        drop(provider);
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        let refused = async {
            while reqwest::get(&url).await.is_ok() {
                tick.tick().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), refused).await.expect("it still answers");
    }
}
