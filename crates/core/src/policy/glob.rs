//! The two ways of naming something in a policy: exactly, or by a `*` pattern. No regular expressions.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::fields::shortened;
use super::problem::Fault;
use crate::principal::Ident;

/// The most `*` in one pattern, so that matching stays linear in practice.
const MAX_STARS: usize = 4;

/// An exact identifier, or a pattern in which `*` stands for any run of characters, also none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Glob(Box<str>);

impl Glob {
    /// Parses a pattern.
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        let shown = shortened(text);
        let fault = |what: &str, remedy: &str| Err(Fault::new(format!("{shown:?} {what}"), remedy));
        if text.is_empty() {
            return fault("matches nothing", "write a name, or remove the entry");
        }
        if text.len() > Ident::MAX {
            return fault("is longer than any identifier", "write at most 250 characters");
        }
        if let Some(c) = text.chars().find(|c| !c.is_ascii()) {
            let what = format!("has the character {c:?}, which is not ASCII and may look like another");
            return fault(&what, "write the identifier in ASCII");
        }
        if text.chars().any(|c| c.is_ascii_whitespace() || c.is_ascii_control()) {
            return fault("has white space", "remove it: identifiers have none");
        }
        if let Some(c) = text.chars().find(|c| "|^$()[]\\?{}".contains(*c)) {
            let what =
                format!("has {c:?}, which is no part of an identifier; patterns are not regular expressions");
            return fault(&what, "write exact names, one list entry each, or use `*`");
        }
        if let Some(c) = text.chars().find(|c| !c.is_ascii_alphanumeric() && !"_.~:+-*".contains(*c)) {
            let what = format!("has {c:?}, which is no part of an identifier");
            return fault(&what, "use A-Z a-z 0-9 _ . ~ : + - and `*`");
        }
        if text == "*" {
            return fault(
                "matches everything",
                "leave the key out to match everything, or name what you mean",
            );
        }
        if text.contains("**") {
            return fault("has `**`", "write a single `*`: it also matches dots");
        }
        if text.matches('*').count() > MAX_STARS {
            return fault("has too many `*`", "write at most 4");
        }
        if text.bytes().all(|b| b == b'.') {
            return fault("is made of dots alone", "write the identifier");
        }
        Ok(Self(text.into()))
    }

    /// Parses a pattern that has to begin with a literal: what it can match has to be readable from the left.
    pub(super) fn parse_anchored(text: &str) -> Result<Self, Fault> {
        if text.starts_with('*') {
            return Err(Fault::new(
                format!("{:?} begins with `*`, so any DAG could be named to match it", shortened(text)),
                "begin with the part of the name that your team owns, such as `finance_*`",
            ));
        }
        Self::parse(text)
    }

    /// Parses a pattern of run types; one that no run type of Airflow matches is a misspelling, which in an
    /// approval would let runs through.
    pub(super) fn parse_run_type(text: &str) -> Result<Self, Fault> {
        let glob = Self::parse(text)?;
        if RUN_TYPES.iter().any(|run_type| glob.matches(run_type)) {
            return Ok(glob);
        }
        Err(Fault::new(
            format!("{:?} is no run type of Airflow", shortened(text)),
            super::fields::nearest(text, &RUN_TYPES),
        ))
    }

    /// The pattern as it was written.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is an exact name.
    pub(super) fn is_exact(&self) -> bool {
        !self.0.contains('*')
    }

    /// Whether it stands for `text`.
    pub(super) fn matches(&self, text: &str) -> bool {
        let mut parts = self.0.split('*');
        let Some(mut rest) = parts.next().and_then(|head| text.strip_prefix(head)) else {
            return false;
        };
        if self.is_exact() {
            return rest.is_empty();
        }
        let mut parts: Vec<_> = parts.collect();
        let tail = parts.pop().unwrap_or_default();
        for part in parts {
            let Some(at) = rest.find(part) else { return false };
            rest = rest.get(at + part.len()..).unwrap_or_default();
        }
        rest.ends_with(tail)
    }
}

/// The run types of Airflow 2.9 to 3.x, as its `DagRunType` spells them.
const RUN_TYPES: [&str; 7] = [
    "scheduled",
    "manual",
    "backfill",
    "asset_triggered",
    "asset_materialization",
    "operator_triggered",
    "dataset_triggered",
];

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl JsonSchema for Glob {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Pattern".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "An exact identifier, or a pattern in which `*` stands for any run of characters. \
                            No regular expressions; `*` alone and `**` are refused.",
            "pattern": r"^(?!\*$)(?!.*\*\*)[A-Za-z0-9_.~:+*-]{1,250}$",
            "examples": ["finance_publish", "finance_mart_*"],
        })
    }
}
