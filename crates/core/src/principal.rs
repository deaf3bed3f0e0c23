//! Who asks: a run of an Airflow task, a person or a service.
//!
//! These are plain facts. That they were *proven* is said by another type, `Verified` of the crate `cortex-identity`,
//! which only the verifier can make.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{Digest, InvalidId, IssuerName};

/// Google's limit on a mapped subject, in bytes; the shortest of the clouds'.
pub const SUBJECT_MAX: usize = 127;

/// An identifier that came from outside: 1 to 250 ASCII characters of `A-Z a-z 0-9 _ . ~ : + -`, not made of
/// dots alone. Anything else is refused, never normalised: two spellings never become one name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ident(String);

impl Ident {
    /// The longest identifier, in bytes: Airflow's own limit on dag, task and run ids.
    pub const MAX: usize = 250;

    /// The identifier as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Ident {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.~:+-".contains(&b);
        if text.is_empty() || text.len() > Self::MAX || !text.bytes().all(allowed) {
            return Err(InvalidId(format!(
                "an identifier has 1 to {} of A-Z a-z 0-9 _ . ~ : + -",
                Self::MAX
            )));
        }
        if text.bytes().all(|b| b == b'.') {
            return Err(InvalidId("an identifier is not made of dots alone".into()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Ident {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<Ident> for String {
    fn from(ident: Ident) -> String {
        ident.0
    }
}

impl fmt::Display for Ident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a run's identity was proven, strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Attestation {
    /// Airflow itself signed it for a task that was running.
    Issuer,
    /// Kubernetes vouches for the pod that the task runs in.
    Kubernetes,
    /// A service claimed the run and the claim was checked against Airflow's REST API.
    VerifiedClaim,
}

impl Attestation {
    /// The word used in policies, in Cedar and on record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Issuer => "issuer",
            Self::Kubernetes => "kubernetes",
            Self::VerifiedClaim => "verified-claim",
        }
    }
}

/// One try of one task instance of one DAG run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Run {
    /// The name of the issuer that vouched for it.
    pub issuer: IssuerName,
    /// The DAG.
    pub dag_id: Ident,
    /// The DAG run.
    pub run_id: Ident,
    /// The task, with its task groups.
    pub task_id: Ident,
    /// The index of a mapped task instance; none for an unmapped one.
    pub map_index: Option<u32>,
    /// Which attempt, from 1.
    pub try_number: u32,
    /// `scheduled`, `manual`, `backfill`, `asset_triggered` and so on, as Airflow says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_type: Option<Ident>,
    /// What started the run: `cli`, `ui`, `rest_api`, `timetable` and so on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub triggered_by: Option<Ident>,
    /// Who started the run by hand; child runs inherit it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub triggering_user: Option<String>,
    /// The team that the DAG's bundle belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub team: Option<Ident>,
    /// The bundle that the DAG came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bundle: Option<Ident>,
    /// The DAG's tags. Whoever writes the DAG writes these.
    #[serde(skip_serializing_if = "BTreeSet::is_empty", default)]
    pub tags: BTreeSet<String>,
    /// How the identity was proven.
    pub attestation: Attestation,
}

/// The try of a task that a service says it acts for. It is a claim and proves nothing until an Airflow was asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimedRun {
    /// The DAG.
    pub dag_id: Ident,
    /// The DAG run.
    pub run_id: Ident,
    /// The task, with its task groups.
    pub task_id: Ident,
    /// The index of a mapped task instance; none for an unmapped one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub map_index: Option<u32>,
    /// Which attempt, from 1.
    pub try_number: NonZeroU32,
}

/// A person, known by issuer and subject. The e-mail address and the user name give nobody anything: they keep
/// somebody from approving what they asked for under another name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Person {
    /// The name of the issuer that vouched for them.
    pub issuer: IssuerName,
    /// The `sub` that the issuer knows them by: 1 to 255 printable ASCII characters.
    pub subject: String,
    /// Their e-mail address, as the issuer says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// The name that they sign in with, as the issuer says it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub username: Option<String>,
    /// The groups that the issuer puts them in.
    #[serde(skip_serializing_if = "BTreeSet::is_empty", default)]
    pub groups: BTreeSet<String>,
    /// How they signed in.
    #[serde(flatten)]
    pub sign_in: SignIn,
}

/// How a person signed in, as their issuer says it (`OpenID` Connect Core 1.0, section 2). What it does not say is
/// absent, and no requirement is met by it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SignIn {
    /// When they last showed their credentials: `auth_time`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub auth_time: Option<Timestamp>,
    /// The context class that it satisfied: `acr`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub acr: Option<String>,
    /// The methods that they used, such as `mfa` and `hwk` (RFC 8176): `amr`.
    #[serde(skip_serializing_if = "BTreeSet::is_empty", default)]
    pub amr: BTreeSet<String>,
}

/// A workload that is not an Airflow run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Service {
    /// The name of the issuer that vouched for it.
    pub issuer: IssuerName,
    /// The `sub` that the issuer knows it by: 1 to 255 printable ASCII characters.
    pub subject: String,
    /// The groups that the issuer puts it in.
    #[serde(skip_serializing_if = "BTreeSet::is_empty", default)]
    pub groups: BTreeSet<String>,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Principal {
    /// A task of an Airflow DAG run.
    Run(Run),
    /// A human.
    Person(Person),
    /// Another workload.
    Service(Service),
}

impl Principal {
    /// The name of the issuer that vouched for it.
    pub fn issuer(&self) -> &IssuerName {
        match self {
            Self::Run(run) => &run.issuer,
            Self::Person(person) => &person.issuer,
            Self::Service(service) => &service.issuer,
        }
    }

    /// The run, if it is one.
    pub fn as_run(&self) -> Option<&Run> {
        match self {
            Self::Run(run) => Some(run),
            Self::Person(_) | Self::Service(_) => None,
        }
    }

    /// The principal as one string: injective (different principals, different strings) and at most
    /// [`SUBJECT_MAX`] bytes.
    ///
    /// A run is `run:<issuer>:<dag>:<run>:<task>:<map index or ->:<try>`, a person `person:<issuer>:<sub>`, a
    /// service `service:<issuer>:<sub>`; within a part, every byte outside `A-Z a-z 0-9 _ . ~ + -` is `%XX`.
    /// Where that is longer than the limit, it is `<kind>-sha256:<issuer>:<base64url of the long form's
    /// SHA-256>`.
    pub fn subject(&self) -> String {
        let (kind, long) = match self {
            Self::Run(run) => ("run", run.long_subject()),
            Self::Person(p) => return person_subject(&p.issuer, &p.subject),
            Self::Service(s) => ("service", format!("service:{}:{}", s.issuer, escape(&s.subject))),
        };
        bounded(kind, self.issuer(), long)
    }
}

/// A person as one string: see [`Principal::subject`].
pub fn person_subject(issuer: &IssuerName, subject: &str) -> String {
    bounded("person", issuer, format!("person:{issuer}:{}", escape(subject)))
}

fn bounded(kind: &str, issuer: &IssuerName, long: String) -> String {
    if long.len() <= SUBJECT_MAX {
        return long;
    }
    let hash = URL_SAFE_NO_PAD.encode(Digest::of(long.as_bytes()).as_bytes());
    format!("{kind}-sha256:{issuer}:{hash}")
}

impl Person {
    /// Whether a user name may be this person's: their subject, their user name, their address, or the part of it
    /// before the `@`. Loose on purpose: a false match costs one approver, a miss lets one approve their own.
    pub fn is_called(&self, user: &str) -> bool {
        self.names().any(|name| name.eq_ignore_ascii_case(user))
    }

    /// Whether two accounts may be one human's: one account, one address, or one user name at one issuer.
    pub fn may_be(&self, other: &Self) -> bool {
        let same = |a: &Option<String>, b: &Option<String>| match (a, b) {
            (Some(a), Some(b)) => a.eq_ignore_ascii_case(b),
            _ => false,
        };
        let at_one_issuer = self.issuer == other.issuer
            && (self.subject == other.subject || same(&self.username, &other.username));
        at_one_issuer || same(&self.email, &other.email)
    }

    /// Whether `principal`, as the record writes it, may be this person under any of their names.
    pub fn may_be_principal(&self, principal: &str) -> bool {
        self.names().any(|name| {
            let named = Self { subject: name.to_owned(), ..self.clone() };
            Principal::Person(named).subject().eq_ignore_ascii_case(principal)
        })
    }

    /// Everything that they may be called: their subject, their user name, their address, the part of it before the `@`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let email = self.email.as_deref();
        let local = email.and_then(|email| email.split_once('@')).map(|(local, _)| local);
        [Some(self.subject.as_str()), self.username.as_deref(), email, local].into_iter().flatten()
    }
}

impl Run {
    fn long_subject(&self) -> String {
        let map_index = self.map_index.map_or_else(|| "-".to_owned(), |index| index.to_string());
        format!(
            "run:{}:{}:{}:{}:{map_index}:{}",
            self.issuer,
            escape(self.dag_id.as_str()),
            escape(self.run_id.as_str()),
            escape(self.task_id.as_str()),
            self.try_number
        )
    }
}

pub(crate) fn escape(part: &str) -> String {
    use fmt::Write as _;
    part.bytes().fold(String::with_capacity(part.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"_.~+-".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

/// What [`escape`] made this of; none if it made it of nothing.
pub(crate) fn unescape(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        out.push(digit(bytes.next()?)? * 16 + digit(bytes.next()?)?);
    }
    String::from_utf8(out).ok()
}
