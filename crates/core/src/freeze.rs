//! The kill switch: what a freeze stops, and for how long.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{FreezeId, InvalidId, IssuerName, PolicyName};
use crate::principal::{Ident, Principal, SUBJECT_MAX};

/// A principal as one string, as [`Principal::subject`] writes it: 1 to [`SUBJECT_MAX`] printable ASCII characters
/// that begin with the kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subject(String);

impl Subject {
    /// The principal as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn text_mut(&mut self) -> &mut String {
        &mut self.0
    }
}

impl TryFrom<String> for Subject {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        let kind = text.split(':').next().unwrap_or_default();
        let kind = kind.strip_suffix("-sha256").unwrap_or(kind);
        let known = matches!(kind, "run" | "person" | "service") && text.contains(':');
        if known && text.len() <= SUBJECT_MAX && text.bytes().all(|b| b.is_ascii_graphic()) {
            return Ok(Self(text));
        }
        Err(InvalidId(format!(
            "a principal is written as on record: run:, person: or service:, the issuer's name and the rest, at \
             most {SUBJECT_MAX} printable ASCII characters"
        )))
    }
}

impl From<Subject> for String {
    fn from(subject: Subject) -> String {
        subject.0
    }
}

/// What is stopped or revoked. Where an Airflow is not named, every Airflow is meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Scope {
    /// Everything.
    Everything {},
    /// Whoever this issuer vouches for.
    Issuer {
        /// The issuer's configured name.
        issuer: IssuerName,
    },
    /// What this policy permits.
    Policy {
        /// The policy.
        policy: PolicyName,
    },
    /// Every run of a DAG.
    Dag {
        /// The Airflow, by its issuer's name.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        issuer: Option<IssuerName>,
        /// The DAG.
        dag_id: Ident,
    },
    /// One DAG run: all of its tasks and their tries.
    Run {
        /// The Airflow, by its issuer's name.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        issuer: Option<IssuerName>,
        /// The DAG.
        dag_id: Ident,
        /// The DAG run.
        run_id: Ident,
    },
    /// One principal: a try of a task, a person, or a service and every run that it claims.
    Principal {
        /// The principal as one string, as it is on record.
        principal: Subject,
    },
}

impl Scope {
    /// Every scope that holds what `holder` asks for.
    pub fn holding(holder: &Holder<'_>) -> Vec<Self> {
        let issuer = holder.principal.issuer();
        let mut scopes = vec![
            Self::Everything {},
            Self::Issuer { issuer: issuer.clone() },
            Self::Policy { policy: holder.policy.clone() },
            Self::Principal { principal: Subject(holder.principal.subject()) },
        ];
        if let Some(service) = holder.claimed_by {
            scopes.push(Self::Principal { principal: Subject(service.to_owned()) });
        }
        if let Some(run) = holder.principal.as_run() {
            for issuer in [None, Some(issuer.clone())] {
                let (dag_id, run_id) = (run.dag_id.clone(), run.run_id.clone());
                scopes.push(Self::Dag { issuer: issuer.clone(), dag_id: dag_id.clone() });
                scopes.push(Self::Run { issuer, dag_id, run_id });
            }
        }
        scopes
    }

    /// The scope in words, for the person who meets it: `the DAG finance_publish`.
    pub fn in_words(&self) -> String {
        let of = |issuer: &Option<IssuerName>| {
            issuer.as_ref().map_or_else(String::new, |issuer| format!(" of {issuer}"))
        };
        match self {
            Self::Everything {} => "everything".to_owned(),
            Self::Issuer { issuer } => format!("the issuer {issuer}"),
            Self::Policy { policy } => format!("the policy {policy}"),
            Self::Dag { issuer, dag_id } => format!("the DAG {dag_id}{}", of(issuer)),
            Self::Run { issuer, dag_id, run_id } => {
                format!("the run {run_id} of the DAG {dag_id}{}", of(issuer))
            }
            Self::Principal { principal } => format!("the principal {}", principal.as_str()),
        }
    }
}

/// Who holds, or asks for, a credential, as far as a scope can tell.
#[derive(Debug, Clone, Copy)]
pub struct Holder<'a> {
    /// Who.
    pub principal: &'a Principal,
    /// The service that claimed the run, as a principal.
    pub claimed_by: Option<&'a str>,
    /// The policy that it is asked under.
    pub policy: &'a PolicyName,
}

/// A freeze: nothing within its scope is issued, handed out again or renewed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freeze {
    /// Its id.
    pub id: FreezeId,
    /// What is frozen.
    pub scope: Scope,
    /// Why, in the words of whoever set it.
    pub reason: String,
    /// Who set it, as a principal.
    pub by: String,
    /// When it was set.
    pub at: Timestamp,
    /// When it ends by itself; none: when it is lifted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl Freeze {
    /// Whether its time is not over.
    pub fn holds_at(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_is_written_as_on_record() {
        for text in ["run:prod:a:b:c:-:1", "person:staff:bob", "service-sha256:services:abc"] {
            assert!(Subject::try_from(text.to_owned()).is_ok(), "{text}");
        }
        let long = format!("person:staff:{}", "x".repeat(SUBJECT_MAX));
        for text in ["", "bob", "person", "group:x", "person:staff:b ob", "person:staff:\u{202e}x", &long] {
            assert!(Subject::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_scope_refuses_what_it_does_not_know() {
        for text in [
            r#"{"kind":"dag"}"#,
            r#"{"kind":"dag","dag_id":"a","run":"b"}"#,
            r#"{"kind":"everything","but":"this"}"#,
            r#"{"kind":"galaxy"}"#,
            r#"{"kind":"policy","policy":"Finance"}"#,
        ] {
            assert!(serde_json::from_str::<Scope>(text).is_err(), "{text}");
        }
        for text in [r#"{"kind":"everything"}"#, r#"{"kind":"run","dag_id":"a","run_id":"b"}"#] {
            let scope: Scope = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&scope).unwrap(), text);
        }
    }
}
