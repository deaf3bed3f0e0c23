//! Which claims say who it is.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Kind;

/// The way to a claim: its names from the outermost object inwards.
///
/// Written as text with dots (`airflow.dag_id`), or as a list where a name has a dot of its own
/// (`["https://example.com/groups"]`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "PathText", into = "PathText")]
#[schemars(with = "PathText")]
pub struct ClaimPath(Vec<String>);

/// A claim path as it is written.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum PathText {
    /// Names with dots between them.
    Dotted(String),
    /// The names, one by one.
    Names(Vec<String>),
}

impl ClaimPath {
    /// The deepest path: payloads nest no deeper.
    const MAX_NAMES: usize = 7;

    pub(crate) fn names(&self) -> &[String] {
        &self.0
    }

    pub(crate) fn dotted(text: &str) -> Self {
        Self(text.split('.').map(str::to_owned).collect())
    }
}

impl TryFrom<PathText> for ClaimPath {
    type Error = String;

    fn try_from(text: PathText) -> Result<Self, String> {
        let path = match text {
            PathText::Dotted(text) if text.contains("://") => {
                return Err(format!("{text:?} has dots of its own: write it as a list, [{text:?}]"));
            }
            PathText::Dotted(text) => Self::dotted(&text),
            PathText::Names(names) => Self(names),
        };
        if path.0.is_empty() || path.0.len() > Self::MAX_NAMES || path.0.iter().any(String::is_empty) {
            return Err(format!("a claim path has 1 to {} names, none of them empty", Self::MAX_NAMES));
        }
        Ok(path)
    }
}

impl From<ClaimPath> for PathText {
    fn from(path: ClaimPath) -> Self {
        Self::Names(path.0)
    }
}

impl fmt::Display for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}

/// Which claim each field of a principal is read from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClaimMap {
    /// Run: the DAG. Required in the token. Default `airflow.dag_id`.
    pub dag_id: Option<ClaimPath>,
    /// Run: the DAG run. Required in the token. Default `airflow.run_id`.
    pub run_id: Option<ClaimPath>,
    /// Run: the task. Required in the token. Default `airflow.task_id`.
    pub task_id: Option<ClaimPath>,
    /// Run: the index of a mapped task, an integer; -1 or absent for an unmapped one. Default `airflow.map_index`.
    pub map_index: Option<ClaimPath>,
    /// Run: the attempt, an integer from 1. Required in the token. Default `airflow.try_number`.
    pub try_number: Option<ClaimPath>,
    /// Run: the run's type, such as `scheduled`. Default `airflow.run_type`.
    pub run_type: Option<ClaimPath>,
    /// Run: what started the run, such as `timetable`. Default `airflow.triggered_by`.
    pub triggered_by: Option<ClaimPath>,
    /// Run: who started the run by hand. Default `airflow.triggering_user_name`.
    pub triggering_user: Option<ClaimPath>,
    /// Run: the team that the DAG's bundle belongs to. Default `airflow.team_name`.
    pub team: Option<ClaimPath>,
    /// Run: the bundle that the DAG came from. Default `airflow.bundle_name`.
    pub bundle: Option<ClaimPath>,
    /// Run: the DAG's tags, an array of strings. Default `airflow.tags`.
    pub tags: Option<ClaimPath>,
    /// Person and service: the groups, an array of strings. Default `groups`.
    pub groups: Option<ClaimPath>,
    /// Person: the e-mail address, for reading and for telling accounts of one person. Default `email`.
    pub email: Option<ClaimPath>,
    /// Person: the name that they sign in with, compared with who started a run. Default `preferred_username`.
    pub username: Option<ClaimPath>,
    /// Person: when they last showed their credentials, in seconds since 1970. Default `auth_time`.
    pub auth_time: Option<ClaimPath>,
    /// Person: the authentication context class. Default `acr`.
    pub acr: Option<ClaimPath>,
    /// Person: the authentication methods, an array of strings. Default `amr`.
    pub amr: Option<ClaimPath>,
}

impl ClaimMap {
    /// The fields that are written although `kind` has no use for them.
    pub(crate) fn misplaced(&self, kind: Kind) -> Vec<&'static str> {
        let run = kind == Kind::Run;
        let person = kind == Kind::Person;
        [
            ("dag_id", &self.dag_id, run),
            ("run_id", &self.run_id, run),
            ("task_id", &self.task_id, run),
            ("map_index", &self.map_index, run),
            ("try_number", &self.try_number, run),
            ("run_type", &self.run_type, run),
            ("triggered_by", &self.triggered_by, run),
            ("triggering_user", &self.triggering_user, run),
            ("team", &self.team, run),
            ("bundle", &self.bundle, run),
            ("tags", &self.tags, run),
            ("groups", &self.groups, !run),
            ("email", &self.email, person),
            ("username", &self.username, person),
            ("auth_time", &self.auth_time, person),
            ("acr", &self.acr, person),
            ("amr", &self.amr, person),
        ]
        .into_iter()
        .filter(|(_, path, fits)| path.is_some() && !fits)
        .map(|(name, ..)| name)
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claim_paths_are_dotted_or_listed() {
        let map: ClaimMap =
            serde_json::from_str(r#"{"dag_id": "a.b", "tags": ["https://x.example/t", "u"]}"#).unwrap();
        assert_eq!(map.dag_id.unwrap().names(), ["a", "b"]);
        assert_eq!(map.tags.unwrap().names(), ["https://x.example/t", "u"]);
    }
}
