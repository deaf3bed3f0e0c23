//! Sign-in of people at their identity provider: authorization code with PKCE, for the console.
//!
//! What a sign-in has to remember until the browser comes back lies in the browser itself, sealed: so that nobody
//! can make Cortex keep anything by beginning sign-ins. Of the answer nothing is believed before it was checked:
//! that this browser began it (`state`), at this provider (`iss`, RFC 9207), lately, and that the ID token is the
//! one for it (`nonce`). The code can be used once, by whoever knows the PKCE verifier.

mod config;
mod provider;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cortex_core::{Person, Principal};
use cortex_identity::{IssuerConfig, Rejection, SignInClaims};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::broker::Broker;
use crate::random::Random;

pub use config::SignInConfig;
use provider::Provider;

/// How long a person may take at the provider, in seconds.
pub(crate) const PATIENCE_S: i64 = 600;
/// The longest path to return to, in bytes.
const RETURN_MAX: usize = 1_000;

/// Why nobody signed in; each text is for the person.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignInError {
    /// The provider or its keys cannot be had just now.
    #[error("the identity provider cannot be reached at the moment; try again")]
    Unavailable(String),
    /// The provider said no, such as when the person has no access or went back.
    #[error("the identity provider did not sign you in: {0}")]
    Provider(String),
    /// What came back does not belong to a sign-in that this browser began, or is too late.
    #[error("this sign-in cannot be completed; begin again")]
    Stale(&'static str),
    /// The ID token was refused.
    #[error("the identity provider's answer was not accepted; an admin finds the reason on record")]
    Token(Rejection),
}

impl SignInError {
    /// The short code for counts and the record.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "provider_unavailable",
            Self::Provider(_) => "provider_refused",
            Self::Stale(code) => code,
            Self::Token(rejection) => rejection.reason.code(),
        }
    }
}

/// What the browser keeps, sealed, until it comes back.
#[derive(Serialize, Deserialize)]
struct Pending {
    state: String,
    nonce: String,
    verifier: String,
    return_to: String,
    until: Timestamp,
}

/// The beginning of a sign-in.
pub(crate) struct Begun {
    /// Where the browser goes.
    pub(crate) url: String,
    /// What it keeps.
    pub(crate) sealed: String,
}

/// What the browser comes back with (RFC 6749, section 4.1.2; RFC 9207).
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Callback {
    code: Option<String>,
    state: Option<String>,
    iss: Option<String>,
    error: Option<String>,
}

/// Sign-in at the configured issuer.
pub struct SignIn {
    config: SignInConfig,
    issuer: IssuerConfig,
    provider: Provider,
}

impl SignIn {
    /// Sign-in for the console at `public_url`; none where it is not configured.
    pub(crate) fn new(
        config: &SignInConfig,
        issuers: &[IssuerConfig],
        public_url: &str,
    ) -> Result<Option<Self>, reqwest::Error> {
        let (Some(issuer), Some(client_id)) = (config.issuer_among(issuers), &config.client_id) else {
            return Ok(None);
        };
        let redirect = format!("{public_url}/console/callback");
        let provider = Provider::new(&issuer.iss, client_id, redirect, config)?;
        Ok(Some(Self { config: config.clone(), issuer: issuer.clone(), provider }))
    }

    /// The issuer that people sign in at.
    pub(crate) fn issuer(&self) -> &IssuerConfig {
        &self.issuer
    }

    /// The scopes that are asked for.
    pub(crate) fn scopes(&self) -> &[String] {
        &self.config.scopes
    }

    /// How long a session lasts at the most.
    pub(crate) fn session_ttl(&self) -> SignedDuration {
        SignedDuration::from_secs(self.config.session_ttl_s)
    }

    /// How long a session lasts that is not used.
    pub(crate) fn idle_ttl(&self) -> SignedDuration {
        SignedDuration::from_secs(self.config.idle_ttl_s)
    }

    /// Begins a sign-in that ends at `return_to`. `again`: the person shows who they are even if the provider
    /// remembers them.
    pub(crate) async fn begin(
        &self,
        broker: &Broker,
        return_to: &str,
        again: bool,
    ) -> Result<Begun, SignInError> {
        let secret = || secret(&*broker.random);
        let now = broker.clock.now();
        let until = now.saturating_add(SignedDuration::from_secs(PATIENCE_S)).unwrap_or(Timestamp::MAX);
        let pending = Pending {
            state: secret(),
            nonce: secret(),
            verifier: secret(),
            return_to: return_to.to_owned(),
            until,
        };
        let url =
            self.provider.authorize(&pending.state, &pending.nonce, &pending.verifier, again, now).await?;
        let plain = serde_json::to_vec(&pending).map_err(|_| SignInError::Stale("sign_in"))?;
        let sealed = broker.keyring.seal_sign_in(&plain).map_err(|_| SignInError::Stale("sign_in"))?;
        Ok(Begun { url, sealed })
    }

    /// Completes a sign-in: who it is, and where they wanted to go.
    pub(crate) async fn complete(
        &self,
        broker: &Broker,
        callback: Callback,
        sealed: Option<&str>,
    ) -> Result<(Person, String), SignInError> {
        let now = broker.clock.now();
        let opened = sealed.and_then(|sealed| broker.keyring.open_sign_in(sealed));
        let pending: Option<Pending> = opened.and_then(|plain| serde_json::from_slice(&plain).ok());
        let pending = pending.ok_or(SignInError::Stale("state"))?;
        let state = callback.state.unwrap_or_default();
        if aws_lc_rs::constant_time::verify_slices_are_equal(state.as_bytes(), pending.state.as_bytes())
            .is_err()
        {
            return Err(SignInError::Stale("state"));
        }
        if now >= pending.until {
            return Err(SignInError::Stale("late"));
        }
        self.provider.check_iss(callback.iss.as_deref(), now).await?;
        if let Some(error) = callback.error {
            let known = error.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') && error.len() <= 60;
            return Err(SignInError::Provider(if known { error } else { "it says no".to_owned() }));
        }
        let code = callback.code.filter(|code| code.len() <= 4_096).ok_or(SignInError::Stale("code"))?;
        let token = self.provider.redeem(code, &pending.verifier, now).await?;
        let person = self.verify(broker, &token, &pending.nonce).await?;
        Ok((person, pending.return_to))
    }

    async fn verify(&self, broker: &Broker, token: &str, nonce: &str) -> Result<Person, SignInError> {
        let claims = SignInClaims { issuer: &self.issuer.name, client_id: self.provider.client_id(), nonce };
        match broker.live().identity.verify_sign_in(token, &claims).await {
            Ok(verified) => match verified.principal() {
                Principal::Person(person) => Ok(person.clone()),
                Principal::Run(_) | Principal::Service(_) => Err(SignInError::Stale("kind")),
            },
            Err(rejection) if rejection.is_temporary() => {
                Err(SignInError::Unavailable(rejection.detail.into_owned()))
            }
            Err(rejection) => Err(SignInError::Token(rejection)),
        }
    }
}

/// 256 random bits that only their holder knows.
pub(crate) fn secret(random: &dyn Random) -> String {
    let mut bytes = Zeroizing::new([0_u8; 32]);
    random.fill(bytes.as_mut_slice());
    URL_SAFE_NO_PAD.encode(bytes.as_slice())
}

/// Whether a path is one of the console's own. Browsers read `//host`, `/\host` and control characters as
/// something else than a path, so that anything but plain path and query is refused.
pub(crate) fn is_own_path(path: &str) -> bool {
    let plain = path.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'\\' | b'#' | b'"' | b'<' | b'>'));
    let below = path == "/console" || path.starts_with("/console/") || path.starts_with("/console?");
    plain && below && path.len() <= RETURN_MAX && !path.contains("//") && !path.contains("/.")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::is_own_path;

    #[test]
    fn only_the_consoles_own_paths_are_returned_to() {
        for path in ["/console", "/console/", "/console/grants/1?x=y&z", "/console?x=%2F%2Fevil"] {
            assert!(is_own_path(path), "{path}");
        }
        for path in [
            "",
            "/",
            "//evil",
            "//evil/console",
            "/\\evil",
            "https://evil/console",
            "/consoles",
            "/v1/grants",
            "/console//evil",
            "/console/../v1",
            "/console/./x",
            "/console\\evil",
            "/console/\t/evil",
            "/console/ä",
            "/console#x",
            "console",
            "/console/%0d%0a\r\n",
            "javascript:alert(1)",
        ] {
            assert!(!is_own_path(path), "{path}");
        }
        assert!(!is_own_path(&format!("/console/{}", "x".repeat(1_000))));
    }

    proptest! {
        #[test]
        fn whatever_is_returned_to_stays_on_this_host(path in "\\PC{0,40}|/console[/?]\\PC{0,40}|/{1,3}[a-z.\\\\@:/]{0,20}") {
            if is_own_path(&path) {
                let base = reqwest::Url::parse("https://cortex.example/x").unwrap();
                let url = base.join(&path).unwrap();
                prop_assert_eq!(url.host_str(), Some("cortex.example"));
                prop_assert!(url.path().starts_with("/console"));
            }
        }
    }
}
