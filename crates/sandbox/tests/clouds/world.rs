//! The sandbox with a stand-in for Cortex: the development issuer of a second one, which signs anything.

use std::sync::Arc;

use cortex_core::clock::ManualClock;
use cortex_sandbox::{Sandbox, SandboxConfig};
use jiff::Timestamp;
use serde_json::{Value, json};

pub(crate) const LEASE: &str = "01991f00-0000-7000-8000-000000000001";
pub(crate) const ROLE: &str = "arn:aws:iam::123456789012:role/finance-publish";

pub(crate) struct World {
    pub(crate) cortex: Sandbox,
    pub(crate) sandbox: Sandbox,
    pub(crate) clock: ManualClock,
    pub(crate) http: reqwest::Client,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with(|config| config).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(SandboxConfig) -> SandboxConfig) -> Self {
        let clock = ManualClock::new("2026-11-22T12:00:00Z".parse().unwrap());
        let shared = || Arc::new(clock.clone());
        let nobody = "http://127.0.0.1:1".to_owned();
        let cortex = Sandbox::start(SandboxConfig::demo(nobody, shared())).await.unwrap();
        let config = change(SandboxConfig::demo(cortex.issuer_url().to_owned(), shared()));
        let sandbox = Sandbox::start(config).await.unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { cortex, sandbox, clock, http }
    }

    pub(crate) fn now(&self) -> Timestamp {
        cortex_core::Clock::now(&self.clock)
    }

    /// The registered claims of one of Cortex's tokens, and `more`, of which null removes.
    fn token(&self, aud: &str, sub: &str, more: &Value) -> String {
        let now = self.now().as_second();
        let mut claims = json!({
            "iss": self.cortex.issuer_url(), "aud": aud, "sub": sub, "jti": LEASE,
            "iat": now, "exp": now + 300,
        });
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        self.cortex.forge(&claims).unwrap()
    }

    pub(crate) fn aws_token(&self, more: &Value) -> String {
        let mut claims = json!({
            "https://aws.amazon.com/tags": {
                "principal_tags": {"lease": [LEASE], "dag_id": ["finance_publish"]},
                "transitive_tag_keys": ["lease"],
            },
            "https://aws.amazon.com/source_identity": LEASE,
            "https://aws.amazon.com/roles": [ROLE],
        });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.token("sts.amazonaws.com", "run:prod:finance_publish:r1:publish:-:1", &claims)
    }

    pub(crate) fn google_token(&self, more: &Value) -> String {
        let mut claims = json!({"grant": "finance-publish"});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let pool = "//iam.googleapis.com/projects/1234567890/locations/global/workloadIdentityPools/cortex";
        self.token(&format!("{pool}/providers/cortex"), LEASE, &claims)
    }

    pub(crate) fn oauth_token(&self, more: &Value) -> String {
        let mut claims = json!({"scp": ["session:role:FINANCE_PUBLISH"]});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.token("https://acme-prod.snowflakecomputing.com", "FINANCE_SVC", &claims)
    }

    pub(crate) fn workload_token(&self, more: &Value) -> String {
        self.token("snowflakecomputing.com", "cortex:FINANCE_SVC", more)
    }
}

/// The text of the first element of this name.
pub(crate) fn element<'a>(xml: &'a str, name: &str) -> &'a str {
    let start = xml.split_once(&format!("<{name}>")).map_or("", |(_, rest)| rest);
    start.split_once(&format!("</{name}>")).map_or("", |(text, _)| text)
}

/// `token` without its key id.
pub(crate) fn without_kid(token: &str) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let (_, rest) = token.split_once('.').unwrap();
    format!("{}.{rest}", URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","typ":"JWT"}"#))
}

/// `token` with another payload under the same signature.
pub(crate) fn tampered(token: &str) -> String {
    let mut parts: Vec<_> = token.split('.').map(ToOwned::to_owned).collect();
    parts[2] = parts[2].chars().rev().collect();
    parts.join(".")
}
