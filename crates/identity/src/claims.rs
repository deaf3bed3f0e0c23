//! From the claims of a verified token to what they say. Values are refused, never normalised: what is not of the
//! right type and form is not a claim.

use std::collections::BTreeSet;

use cortex_core::principal::Ident;
use cortex_core::record::personal::is_mistakable;
use cortex_core::{Attestation, IssuerName, Person, Principal, Run, Service, SignIn};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use crate::claim_map::{ClaimMap, ClaimPath};
use crate::config::{IssuerConfig, Kind};
use crate::rejection::{Reason, Refused};

/// The most elements of an array of strings: groups or tags.
const MAX_ITEMS: usize = 500;

/// The longest text that is not an identifier, in bytes: a group, a tag, a user's name, an address.
const MAX_TEXT: usize = 512;

/// The longest `sub`, in bytes (`OpenID` Connect Core 1.0, section 2).
const MAX_SUBJECT: usize = 255;

/// The longest `jti`, in bytes.
const MAX_JTI: usize = 256;

/// The last second that is taken for a time: the end of the year 9999.
const LAST_SECOND: i64 = 253_402_207_200;

/// A payload.
type Payload = Map<String, Value>;

/// When a token is valid.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lifetime {
    max: SignedDuration,
    leeway: SignedDuration,
}

impl Lifetime {
    /// The configured bounds, in seconds.
    pub(crate) fn new(max: u32, leeway: u32) -> Self {
        Self { max: SignedDuration::from_secs(max.into()), leeway: SignedDuration::from_secs(leeway.into()) }
    }

    /// How far the clocks may differ.
    pub(crate) fn leeway(&self) -> SignedDuration {
        self.leeway
    }

    /// Checks `exp`, `iat` and `nbf` (RFC 7519, section 4.1) and gives back `exp`.
    pub(crate) fn check(&self, claims: &Payload, now: Timestamp) -> Result<Timestamp, Refused> {
        let missing = |what: &'static str| Refused::new(Reason::Lifetime, what);
        let exp = seconds(claims, "exp", Reason::Exp)?.ok_or_else(|| missing("exp is missing"))?;
        let iat = seconds(claims, "iat", Reason::Lifetime)?.ok_or_else(|| missing("iat is missing"))?;
        let nbf = seconds(claims, "nbf", Reason::Nbf)?;
        if exp <= iat {
            return Err(missing("exp is not after iat"));
        }
        if exp.duration_since(iat) > self.max {
            return Err(missing("it lives longer than max_token_lifetime"));
        }
        if now.duration_since(exp) >= self.leeway {
            return Err(Refused::new(Reason::Exp, "expired"));
        }
        if iat.max(nbf.unwrap_or(iat)).duration_since(now) > self.leeway {
            return Err(Refused::new(Reason::Nbf, "iat or nbf is in the future"));
        }
        Ok(exp)
    }
}

/// A time in whole seconds since 1970. RFC 7519 allows fractions; no issuer on the list needs them.
fn seconds(claims: &Payload, name: &str, not_a_number: Reason) -> Result<Option<Timestamp>, Refused> {
    let number = match claims.get(name) {
        None => return Ok(None),
        Some(Value::Number(number)) => number,
        Some(_) => return Err(Refused::new(not_a_number, format!("{name} is not a number"))),
    };
    let second = number.as_i64().filter(|second| (0..=LAST_SECOND).contains(second));
    let time = second.and_then(|second| Timestamp::from_second(second).ok());
    let bad = || Refused::new(Reason::Lifetime, format!("{name} is not a plain number of seconds"));
    time.map(Some).ok_or_else(bad)
}

/// Whether the token has exactly one audience, and it is `audience`.
pub(crate) fn check_audience(claims: &Payload, audience: &str) -> Result<(), Refused> {
    let only = match claims.get("aud") {
        Some(Value::String(aud)) => Some(aud.as_str()),
        Some(Value::Array(all)) => match all.as_slice() {
            [Value::String(aud)] => Some(aud.as_str()),
            _ => None,
        },
        _ => None,
    };
    if only == Some(audience) {
        Ok(())
    } else {
        Err(Refused::new(Reason::Aud, "aud is not the configured audience alone"))
    }
}

/// Whether an ID token belongs to this sign-in: it carries the `nonce` that was asked for, and where it names the
/// client that it was given to, that is the one that asked (`OpenID` Connect Core 1.0, section 3.1.3.7).
pub(crate) fn check_sign_in(claims: &Payload, client_id: &str, nonce: &str) -> Result<(), Refused> {
    let is = |name: &str, expected: &str| claims.get(name).and_then(Value::as_str) == Some(expected);
    if !is("nonce", nonce) {
        return Err(Refused::new(Reason::Nonce, "nonce is not that of this sign-in"));
    }
    if claims.contains_key("azp") && !is("azp", client_id) {
        return Err(Refused::new(Reason::Nonce, "azp is another client"));
    }
    Ok(())
}

/// The `sub`: printable ASCII, without spaces at its ends.
pub(crate) fn subject(claims: &Payload) -> Result<&str, Refused> {
    let sub = string(claims.get("sub"), "sub")?.ok_or_else(|| missing("sub"))?;
    let printable = sub.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
    if sub.is_empty() || sub.len() > MAX_SUBJECT || !printable || sub.trim() != sub {
        return Err(Refused::new(Reason::Claim, "sub is not 1 to 255 printable ASCII characters"));
    }
    if is_mistakable(sub) {
        return Err(Refused::new(Reason::Claim, "sub looks like what the log has in the place of names"));
    }
    Ok(sub)
}

/// The `jti` of a token that is good for one exchange only.
pub(crate) fn jti(claims: &Payload) -> Result<&str, Refused> {
    let jti = claims.get("jti").and_then(Value::as_str);
    let good = |jti: &&str| (1..=MAX_JTI).contains(&jti.len()) && jti.bytes().all(|b| b.is_ascii_graphic());
    jti.filter(good).ok_or_else(|| Refused::new(Reason::Jti, "jti is missing or malformed"))
}

/// How an issuer's claims become principals.
#[derive(Debug)]
pub(crate) enum Mapping {
    Run(Box<RunMapping>),
    Person(Box<PersonMapping>),
    Service { groups: ClaimPath },
}

#[derive(Debug)]
pub(crate) struct PersonMapping {
    groups: ClaimPath,
    email: ClaimPath,
    username: ClaimPath,
    auth_time: ClaimPath,
    acr: ClaimPath,
    amr: ClaimPath,
}

#[derive(Debug)]
pub(crate) struct RunMapping {
    dag_id: ClaimPath,
    run_id: ClaimPath,
    task_id: ClaimPath,
    map_index: ClaimPath,
    try_number: ClaimPath,
    run_type: ClaimPath,
    triggered_by: ClaimPath,
    triggering_user: ClaimPath,
    team: ClaimPath,
    bundle: ClaimPath,
    tags: ClaimPath,
    attestation: Attestation,
}

impl Mapping {
    /// The configured paths, and the defaults for the others.
    pub(crate) fn new(config: &IssuerConfig) -> Self {
        let path = |configured: &Option<ClaimPath>, default: &str| {
            configured.clone().unwrap_or_else(|| ClaimPath::dotted(default))
        };
        let claims = &config.claims;
        let groups = path(&claims.groups, "groups");
        match config.kind {
            Kind::Run => {
                let attestation = config.attestation.unwrap_or(Attestation::Issuer);
                Self::Run(Box::new(RunMapping::new(claims, attestation)))
            }
            Kind::Person => Self::Person(Box::new(PersonMapping {
                groups,
                email: path(&claims.email, "email"),
                username: path(&claims.username, "preferred_username"),
                auth_time: path(&claims.auth_time, "auth_time"),
                acr: path(&claims.acr, "acr"),
                amr: path(&claims.amr, "amr"),
            })),
            Kind::Service => Self::Service { groups },
        }
    }

    /// The principal that `claims` say, as `issuer` says it.
    pub(crate) fn principal(
        &self,
        issuer: &IssuerName,
        subject: &str,
        claims: &Payload,
    ) -> Result<Principal, Refused> {
        let (issuer, subject) = (issuer.clone(), subject.to_owned());
        Ok(match self {
            Self::Run(mapping) => Principal::Run(mapping.run(issuer, claims)?),
            Self::Person(mapping) => Principal::Person(mapping.person(issuer, subject, claims)?),
            Self::Service { groups } => {
                Principal::Service(Service { issuer, subject, groups: texts(claims, groups)? })
            }
        })
    }
}

impl PersonMapping {
    fn person(&self, issuer: IssuerName, subject: String, claims: &Payload) -> Result<Person, Refused> {
        Ok(Person {
            issuer,
            subject,
            email: text(claims, &self.email)?,
            username: text(claims, &self.username)?,
            groups: texts(claims, &self.groups)?,
            sign_in: SignIn {
                auth_time: time(claims, &self.auth_time)?,
                acr: text(claims, &self.acr)?,
                amr: texts(claims, &self.amr)?,
            },
        })
    }
}

impl RunMapping {
    fn new(claims: &ClaimMap, attestation: Attestation) -> Self {
        let path = |configured: &Option<ClaimPath>, name: &str| {
            configured.clone().unwrap_or_else(|| ClaimPath::dotted(&format!("airflow.{name}")))
        };
        Self {
            dag_id: path(&claims.dag_id, "dag_id"),
            run_id: path(&claims.run_id, "run_id"),
            task_id: path(&claims.task_id, "task_id"),
            map_index: path(&claims.map_index, "map_index"),
            try_number: path(&claims.try_number, "try_number"),
            run_type: path(&claims.run_type, "run_type"),
            triggered_by: path(&claims.triggered_by, "triggered_by"),
            triggering_user: path(&claims.triggering_user, "triggering_user_name"),
            team: path(&claims.team, "team_name"),
            bundle: path(&claims.bundle, "bundle_name"),
            tags: path(&claims.tags, "tags"),
            attestation,
        }
    }

    fn run(&self, issuer: IssuerName, claims: &Payload) -> Result<Run, Refused> {
        let required = |path: &ClaimPath| ident(claims, path)?.ok_or_else(|| missing(path));
        Ok(Run {
            issuer,
            dag_id: required(&self.dag_id)?,
            run_id: required(&self.run_id)?,
            task_id: required(&self.task_id)?,
            map_index: map_index(claims, &self.map_index)?,
            try_number: try_number(claims, &self.try_number)?,
            run_type: ident(claims, &self.run_type)?,
            triggered_by: ident(claims, &self.triggered_by)?,
            triggering_user: text(claims, &self.triggering_user)?,
            team: ident(claims, &self.team)?,
            bundle: ident(claims, &self.bundle)?,
            tags: texts(claims, &self.tags)?,
            attestation: self.attestation,
        })
    }
}

fn missing(path: &(impl ToString + ?Sized)) -> Refused {
    Refused::new(Reason::Claim, format!("{} is missing", path.to_string()))
}

fn wrong_type(path: &(impl ToString + ?Sized), expected: &str) -> Refused {
    Refused::new(Reason::ClaimType, format!("{} is not {expected}", path.to_string()))
}

fn bad_value(path: &ClaimPath, why: &str) -> Refused {
    Refused::new(Reason::Claim, format!("{path} is refused: {why}"))
}

/// The value at `path`. A claim that is null is absent: it says nothing.
fn at<'a>(claims: &'a Payload, path: &ClaimPath) -> Result<Option<&'a Value>, Refused> {
    let mut names = path.names().iter();
    let mut value = names.next().and_then(|name| claims.get(name));
    for name in names {
        value = match value {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Object(inner)) => inner.get(name),
            Some(_) => return Err(wrong_type(path, "within objects")),
        };
    }
    Ok(value.filter(|value| !value.is_null()))
}

fn string<'a>(value: Option<&'a Value>, path: &(impl ToString + ?Sized)) -> Result<Option<&'a str>, Refused> {
    match value {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(wrong_type(path, "a string")),
    }
}

pub(crate) fn ident(claims: &Payload, path: &ClaimPath) -> Result<Option<Ident>, Refused> {
    let text = string(at(claims, path)?, path)?;
    text.map(|text| text.parse().map_err(|why: cortex_core::ids::InvalidId| bad_value(path, &why.0)))
        .transpose()
}

fn integer(claims: &Payload, path: &ClaimPath) -> Result<Option<i64>, Refused> {
    match at(claims, path)? {
        None => Ok(None),
        Some(value) => value.as_i64().map(Some).ok_or_else(|| wrong_type(path, "an integer")),
    }
}

fn time(claims: &Payload, path: &ClaimPath) -> Result<Option<Timestamp>, Refused> {
    let Some(second) = integer(claims, path)? else { return Ok(None) };
    let time = (0..=LAST_SECOND).contains(&second).then(|| Timestamp::from_second(second).ok()).flatten();
    time.map(Some).ok_or_else(|| bad_value(path, "it is no time in seconds since 1970"))
}

fn map_index(claims: &Payload, path: &ClaimPath) -> Result<Option<u32>, Refused> {
    match integer(claims, path)? {
        None | Some(-1) => Ok(None),
        Some(index) => u32::try_from(index).map(Some).map_err(|_| bad_value(path, "it is out of range")),
    }
}

fn try_number(claims: &Payload, path: &ClaimPath) -> Result<u32, Refused> {
    let number = integer(claims, path)?.ok_or_else(|| missing(path))?;
    let number = u32::try_from(number).ok().filter(|number| *number > 0);
    number.ok_or_else(|| bad_value(path, "tries are counted from 1"))
}

pub(crate) fn text(claims: &Payload, path: &ClaimPath) -> Result<Option<String>, Refused> {
    string(at(claims, path)?, path)?.map(|text| checked_text(text, path)).transpose()
}

/// A string is never taken for a list of one, nor split: `"a,admins"` is no membership.
pub(crate) fn texts(claims: &Payload, path: &ClaimPath) -> Result<BTreeSet<String>, Refused> {
    let items = match at(claims, path)? {
        None => return Ok(BTreeSet::new()),
        Some(Value::Array(items)) => items,
        Some(_) => return Err(wrong_type(path, "an array of strings")),
    };
    if items.len() > MAX_ITEMS {
        return Err(bad_value(path, "it has too many elements"));
    }
    let item = |value: &Value| match value {
        Value::String(text) => checked_text(text, path),
        _ => Err(wrong_type(path, "an array of strings")),
    };
    items.iter().map(item).collect()
}

/// Text that people read: it must not be able to hide, or to turn the text around it.
fn checked_text(text: &str, path: &ClaimPath) -> Result<String, Refused> {
    let hides = |c: char| {
        c.is_control()
            || matches!(c, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}')
    };
    if text.is_empty() || text.len() > MAX_TEXT || text.chars().any(hides) {
        return Err(bad_value(path, "it is empty, too long or has invisible characters"));
    }
    if is_mistakable(text) {
        return Err(bad_value(path, "it looks like what the log has in the place of names"));
    }
    Ok(text.to_owned())
}
