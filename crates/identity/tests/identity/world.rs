//! A verifier, its issuers and a clock that stands still.

use std::sync::Arc;

use cortex_core::clock::ManualClock;
use cortex_core::jwt::{SigningAlgorithm, SigningKey};
use cortex_core::{Clock as _, IssuerName};
use cortex_identity::{Algorithm, Identity, IssuerConfig, Kind, OwnIssuer, Rejection, Trust, Verified};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::forge::{self, ED25519, NEXT_RSA, P256, P384, RSA, Signer};
use crate::idp::{Answer, Idp};

pub(crate) const AUDIENCE: &str = "https://cortex.example";
pub(crate) const OWN_ISS: &str = "https://cortex.example/oidc";

pub(crate) struct World {
    pub(crate) idp: Idp,
    pub(crate) clock: ManualClock,
    pub(crate) identity: Arc<Identity>,
    pub(crate) own: Arc<SigningKey>,
}

pub(crate) fn name(text: &str) -> IssuerName {
    text.parse().unwrap()
}

/// The issuers: what they are called, what they prove, what they sign with. `prod` and `people` have different
/// keys of the same id.
fn tenants() -> [(&'static str, Kind, Algorithm, Value); 6] {
    [
        ("prod", Kind::Run, Algorithm::RS256, RSA.jwk("main")),
        ("pss", Kind::Run, Algorithm::PS256, RSA.jwk("pss")),
        ("es", Kind::Run, Algorithm::ES256, P256.jwk("es")),
        ("es384", Kind::Service, Algorithm::ES384, P384.jwk("es384")),
        ("ed", Kind::Run, Algorithm::EdDSA, ED25519.jwk("ed")),
        ("people", Kind::Person, Algorithm::RS256, NEXT_RSA.jwk("main")),
    ]
}

impl World {
    /// A world with the issuers as they come.
    pub(crate) async fn new() -> Self {
        Self::with(|_| ()).await
    }

    /// A world whose issuers are configured otherwise.
    pub(crate) async fn with(configure: impl Fn(&mut IssuerConfig)) -> Self {
        let answers = tenants().map(|(name, _, _, jwk)| (name, Answer::Keys(forge::jwks(&[jwk]))));
        let idp = Idp::start(answers).await;
        let clock = ManualClock::new("2026-03-01T00:00:00Z".parse().unwrap());
        let issuers = tenants().map(|(tenant, kind, algorithm, _)| {
            let mut config = IssuerConfig::new(name(tenant), idp.iss(tenant), kind, AUDIENCE);
            config.algorithms = vec![algorithm];
            configure(&mut config);
            config
        });
        let own = Arc::new(SigningKey::generate(SigningAlgorithm::RS256).unwrap());
        let signer = Arc::clone(&own);
        let jwks = move || forge::jwks(&[signer.public_jwk().into()]).to_string().into_bytes();
        let own_issuer = OwnIssuer { name: name("cortex"), iss: OWN_ISS.into(), jwks: Box::new(jwks) };
        let trust = Trust { issuers: &issuers, ..Trust::default() };
        let http = || reqwest::Client::builder().no_proxy();
        let identity = Identity::new(trust, Some(own_issuer), Arc::new(clock.clone()), http).unwrap();
        Self { idp, clock, identity: Arc::new(identity), own }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn pass(&self, seconds: i64) {
        self.clock.advance(SignedDuration::from_secs(seconds));
    }

    /// The claims of a task's token, five minutes long.
    pub(crate) fn run_claims(&self, tenant: &str) -> Value {
        let mut claims = self.person_claims(tenant);
        claims["sub"] = json!("01978f2e-6f0f-7d6a-9c58-0b8a3b9f6d11");
        claims["jti"] = json!("jti-canary-1");
        claims["airflow"] = json!({
            "dag_id": "finance_publish",
            "run_id": "scheduled__2026-03-01T00:00:00+00:00",
            "task_id": "publish.load",
            "map_index": -1,
            "try_number": 1,
            "run_type": "scheduled",
            "triggered_by": "timetable",
            "triggering_user_name": null,
            "team_name": "finance",
            "bundle_name": "dags-main",
            "tags": ["mart", "nightly"],
        });
        claims
    }

    /// The claims of a person's token, five minutes long.
    pub(crate) fn person_claims(&self, tenant: &str) -> Value {
        let now = self.now().as_second();
        json!({
            "iss": self.idp.iss(tenant),
            "sub": "auth0|ana",
            "aud": AUDIENCE,
            "iat": now,
            "nbf": now,
            "exp": now + 300,
        })
    }

    /// A good token of the issuer `prod`.
    pub(crate) fn good(&self) -> String {
        self.prod(|_| ())
    }

    /// A genuine token of the issuer `prod` with other claims.
    pub(crate) fn prod(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut claims = self.run_claims("prod");
        change(&mut claims);
        forge::token("RS256", "main", &claims, &RSA)
    }

    /// A genuine token of the issuer `people` with other claims.
    pub(crate) fn person(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut claims = self.person_claims("people");
        change(&mut claims);
        forge::token("RS256", "main", &claims, &NEXT_RSA)
    }

    /// A token with the claims of a good one of the issuer `prod`, with another key and id.
    pub(crate) fn signed(&self, kid: &str, signer: &Signer) -> String {
        forge::token("RS256", kid, &self.run_claims("prod"), signer)
    }

    pub(crate) async fn verify(&self, token: &str) -> Result<Arc<Verified>, Rejection> {
        self.identity.verify(token).await
    }
}
