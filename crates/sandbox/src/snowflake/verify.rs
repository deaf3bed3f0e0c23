//! What a token has to say before Snowflake opens a session for it: External OAuth, workload identity, key pair.

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rsa::PublicKeyComponents;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use cortex_core::Digest;
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

use super::Snowflake;
use super::config::SnowflakeUser;
use super::sql::Actor;
use crate::jwks::{Claims, TokenFault, verify_with};

const RSA: &[Algorithm] = &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512];
const WORKLOAD: &[Algorithm] = &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::ES256];

/// The audience of workload identities that name none.
const WORKLOAD_AUDIENCE: &str = "snowflakecomputing.com";

/// A key-pair token lives an hour at the most.
const MAX_KEY_PAIR: SignedDuration = SignedDuration::from_hours(1);

/// How far into the future a token may have been issued.
const SKEW: SignedDuration = SignedDuration::from_mins(1);

/// How a client logs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Authenticator {
    Oauth,
    WorkloadIdentity,
    KeyPair,
}

/// A login that fails, with Snowflake's code.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LoginFault {
    pub(super) code: &'static str,
    pub(super) message: String,
}

fn fault(code: &'static str, message: impl Into<String>) -> LoginFault {
    LoginFault { code, message: message.into() }
}

impl Authenticator {
    /// From the members of a login request.
    pub(super) fn of_login(authenticator: Option<&str>, provider: Option<&str>) -> Result<Self, LoginFault> {
        match (authenticator.map(str::to_ascii_uppercase).as_deref(), provider) {
            (Some("OAUTH"), _) => Ok(Self::Oauth),
            (Some("SNOWFLAKE_JWT"), _) => Ok(Self::KeyPair),
            (Some("WORKLOAD_IDENTITY"), Some("OIDC")) => Ok(Self::WorkloadIdentity),
            _ => Err(fault("390100", "Incorrect username or password was specified.")),
        }
    }

    /// From the headers of the SQL API, with the token. Without a type it is External OAuth's.
    pub(super) fn of_sql_api<'a>(
        kind: Option<&str>,
        token: Option<&'a str>,
    ) -> Result<(Self, &'a str), LoginFault> {
        let token = token.ok_or_else(|| fault("390101", "Authorization header not found in the request."))?;
        match kind {
            None | Some("OAUTH") => Ok((Self::Oauth, token)),
            Some("KEYPAIR_JWT") => Ok((Self::KeyPair, token)),
            Some("WORKLOAD_IDENTITY_FEDERATION") => {
                let token = token.strip_prefix("WIF.OIDC.");
                let token = token.ok_or_else(|| fault("390144", "JWT token is invalid."))?;
                Ok((Self::WorkloadIdentity, token))
            }
            Some(_) => Err(fault("390144", "The authorization token type is not supported.")),
        }
    }

    fn invalid(self, why: impl std::fmt::Display) -> LoginFault {
        match self {
            Self::Oauth => fault("390303", format!("Invalid OAuth access token. {why}")),
            Self::WorkloadIdentity => fault("390144", format!("JWT token is invalid. {why}")),
            Self::KeyPair => fault("394300", format!("JWT token is invalid. {why}")),
        }
    }

    fn expired(self) -> LoginFault {
        match self {
            Self::Oauth => fault("390318", "OAuth access token expired."),
            Self::WorkloadIdentity => fault("390144", "JWT token is invalid. It is expired."),
            // Since the behaviour change bundle 2026_07.
            Self::KeyPair => fault("390318", "JWT token expired."),
        }
    }
}

impl Snowflake {
    /// Whose token this is, and in which role they come.
    pub(super) async fn identify(
        &self,
        authenticator: Authenticator,
        token: &str,
        login_name: Option<&str>,
        wanted_role: Option<&str>,
    ) -> Result<Actor, LoginFault> {
        let (claims, user, roles) = match authenticator {
            Authenticator::Oauth => self.external_oauth(token, login_name).await?,
            Authenticator::WorkloadIdentity => self.workload_identity(token, login_name).await?,
            Authenticator::KeyPair => self.key_pair(token, login_name).await?,
        };
        if user.disabled {
            return Err(fault("390101", "User access disabled. Contact your local system administrator."));
        }
        let lease = claims.text("lease").or(claims.text("jti")).map(ToOwned::to_owned);
        let actor = Actor { user: user.name.clone(), role: None, usable_roles: Vec::new(), lease };
        match roles {
            Roles::OfToken(named) => self.in_role_of_token(actor, user, &named, wanted_role),
            Roles::OfUser => in_role_of_user(actor, user, wanted_role),
        }
    }

    async fn external_oauth(&self, token: &str, login_name: Option<&str>) -> Result<Found<'_>, LoginFault> {
        let invalid = |why: &str| Authenticator::Oauth.invalid(why);
        let claims = self.issuer.verify(token, RSA).await;
        let claims = claims.map_err(|why| Authenticator::Oauth.invalid(why))?;
        self.check(Authenticator::Oauth, &claims, |aud| self.config.audiences.contains(aud))?;
        let user = claims.text("sub").and_then(|sub| self.user(sub));
        let user = user.ok_or_else(|| invalid("No user has the login name of the token."))?;
        if login_name.is_some_and(|name| !name.eq_ignore_ascii_case(&user.name)) {
            return Err(fault(
                "390309",
                "The user you were trying to authenticate as differs from the user tied to the access token.",
            ));
        }
        let roles = scoped_roles(&claims);
        if roles.is_empty() {
            return Err(invalid("It has no scope session:role:<name>."));
        }
        Ok((claims, user, Roles::OfToken(roles)))
    }

    async fn workload_identity(
        &self,
        token: &str,
        login_name: Option<&str>,
    ) -> Result<Found<'_>, LoginFault> {
        let claims = self.issuer.verify(token, WORKLOAD).await;
        let claims = claims.map_err(|why| Authenticator::WorkloadIdentity.invalid(why))?;
        self.check(Authenticator::WorkloadIdentity, &claims, |aud| aud == WORKLOAD_AUDIENCE)?;
        let subject = claims.text("sub").unwrap_or_default();
        let user = self.config.users.iter().find(|user| user.subjects.iter().any(|known| known == subject));
        let user = user.filter(|user| login_name.is_none_or(|name| name.eq_ignore_ascii_case(&user.name)));
        let user =
            user.ok_or_else(|| fault("394729", "No user has a workload identity with the token's subject."))?;
        Ok((claims, user, Roles::OfUser))
    }

    async fn key_pair(&self, token: &str, login_name: Option<&str>) -> Result<Found<'_>, LoginFault> {
        let unread = jsonwebtoken::dangerous::insecure_decode_claims::<Value>(token);
        let unread = unread.map_err(|_| fault("394306", "JWT token has a bad format."))?;
        let issuer = unread.get("iss").and_then(Value::as_str).unwrap_or_default();
        let (subject, fingerprint) = issuer.split_once(".SHA256:").unwrap_or_default();
        let account = self.config.account.split('.').next().unwrap_or_default().to_ascii_uppercase();
        let name = subject.strip_prefix(&format!("{account}.")).unwrap_or_default();
        let user =
            self.user(name).filter(|user| login_name.is_none_or(|n| n.eq_ignore_ascii_case(&user.name)));
        let user = user.ok_or_else(|| Authenticator::KeyPair.invalid("No such user."))?;
        let key = self.key_of(user, fingerprint).await?;
        let claims = verify_with(token, &key, RSA).map_err(|why| match why {
            TokenFault::Algorithm(_) => fault("394305", "JWT token has an unsupported algorithm."),
            other => Authenticator::KeyPair.invalid(other),
        })?;
        if claims.text("sub") != Some(subject) {
            return Err(Authenticator::KeyPair.invalid("Its subject is not the one in its issuer."));
        }
        check_key_pair_times(&claims, self.world.now())?;
        Ok((claims, user, Roles::OfUser))
    }

    async fn key_of(&self, user: &SnowflakeUser, fingerprint: &str) -> Result<DecodingKey, LoginFault> {
        let mut keys = user.keys.registered.clone();
        if user.keys.cortex {
            let published = self.issuer.keys().await.map_err(|why| Authenticator::KeyPair.invalid(why))?;
            keys.extend(published.iter().filter_map(spki_of));
        }
        let fits = |spki: &&Vec<u8>| STANDARD.encode(Digest::of(spki).as_bytes()) == fingerprint;
        let spki = keys.iter().find(fits);
        let spki = spki
            .ok_or_else(|| fault("394304", "JWT token has a public key fingerprint that does not match."))?;
        let pem =
            format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(spki));
        DecodingKey::from_rsa_pem(pem.as_bytes()).map_err(|why| Authenticator::KeyPair.invalid(why))
    }

    fn user(&self, name: &str) -> Option<&SnowflakeUser> {
        self.config.users.iter().find(|user| user.name == name)
    }

    /// What External OAuth and workload identities have in common.
    fn check(
        &self,
        authenticator: Authenticator,
        claims: &Claims,
        accepts: impl Fn(&str) -> bool,
    ) -> Result<(), LoginFault> {
        let now = self.world.now();
        if claims.text("iss") != Some(self.issuer.url()) {
            return Err(authenticator.invalid("It is of another issuer."));
        }
        if !claims.audiences().into_iter().any(accepts) {
            return Err(authenticator.invalid("It is for another audience."));
        }
        let (Some(iat), Some(exp)) = (claims.instant("iat"), claims.instant("exp")) else {
            return Err(authenticator.invalid("It needs iat and exp."));
        };
        if exp <= now {
            return Err(authenticator.expired());
        }
        let latest = now.saturating_add(SKEW).unwrap_or(now);
        if iat > latest || claims.instant("nbf").is_some_and(|nbf| nbf > latest) {
            return Err(authenticator.invalid("It is not valid yet."));
        }
        Ok(())
    }

    /// The role is one that the token names, that the user has, and that is not blocked. Nothing else can be
    /// used in the session: the integration does not let any role in.
    fn in_role_of_token(
        &self,
        actor: Actor,
        user: &SnowflakeUser,
        named: &[String],
        wanted: Option<&str>,
    ) -> Result<Actor, LoginFault> {
        let not_listed = || {
            fault(
                "390317",
                "The role requested in the connection, or the default role, is not listed in the Access Token or was filtered.",
            )
        };
        let default = user.roles.first().filter(|role| named.contains(role)).or(named.first());
        let role = match wanted {
            Some(wanted) => named.iter().find(|role| *role == wanted),
            None => default,
        };
        let role = role.filter(|role| !self.config.blocked_roles.contains(*role)).ok_or_else(not_listed)?;
        in_role_of_user(actor, user, Some(role)).map(|actor| Actor { usable_roles: Vec::new(), ..actor })
    }
}

/// Claims, whose they are, and where the roles come from.
type Found<'a> = (Claims, &'a SnowflakeUser, Roles);

/// Which roles a login may use.
enum Roles {
    /// Those that the token names.
    OfToken(Vec<String>),
    /// All that the user has.
    OfUser,
}

fn in_role_of_user(actor: Actor, user: &SnowflakeUser, wanted: Option<&str>) -> Result<Actor, LoginFault> {
    let role = match wanted {
        None => user.roles.first().cloned(),
        Some(wanted) => Some(user.roles.iter().find(|role| *role == wanted).cloned().ok_or_else(|| {
            let message =
                format!("Role '{wanted}' specified in the connect string does not exist or not authorized.");
            fault("390189", message)
        })?),
    };
    Ok(Actor { role, usable_roles: user.roles.clone(), ..actor })
}

/// The roles of `scp`, which is a list or one text.
fn scoped_roles(claims: &Claims) -> Vec<String> {
    let scopes: Vec<&str> = match claims.get("scp") {
        Some(Value::String(text)) => text.split(',').collect(),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    scopes
        .iter()
        .filter_map(|scope| scope.trim().strip_prefix("session:role:"))
        .map(ToOwned::to_owned)
        .collect()
}

fn check_key_pair_times(claims: &Claims, now: Timestamp) -> Result<(), LoginFault> {
    let (Some(iat), Some(exp)) = (claims.instant("iat"), claims.instant("exp")) else {
        return Err(fault("394303", "JWT token has an invalid expiration time."));
    };
    if iat.duration_since(now) > SKEW {
        return Err(fault("394302", "JWT token is not yet valid."));
    }
    // Snowflake ends it an hour after it was issued, whatever it says.
    if exp <= now || now.duration_since(iat) >= MAX_KEY_PAIR {
        return Err(Authenticator::KeyPair.expired());
    }
    Ok(())
}

/// A JWK as `SubjectPublicKeyInfo`.
fn spki_of(jwk: &Value) -> Option<Vec<u8>> {
    let part = |name: &str| URL_SAFE_NO_PAD.decode(jwk.get(name)?.as_str()?).ok();
    let components = PublicKeyComponents { n: part("n")?, e: part("e")? };
    let der: PublicKeyX509Der<'_> = components.as_der().ok()?;
    Some(der.as_ref().to_vec())
}
