//! Reading a policy's targets: every fault is found at once, each with its place and what to write instead.

use cortex_core::policy::TargetProblem;
use cortex_core::template::{BadValue, InvalidTemplate, Template};
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

use crate::Refusal;

/// What is wrong with one value and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    message: String,
    remedy: String,
}

impl Fault {
    pub(crate) fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: remedy.into() }
    }
}

impl From<InvalidTemplate> for Fault {
    fn from(error: InvalidTemplate) -> Self {
        Self { message: error.message, remedy: error.remedy }
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self { message: sentence(&fault.message), remedy: sentence(&fault.remedy) }
    }
}

/// A target that was accepted by an older version of its check may be refused by this one.
impl From<Vec<TargetProblem>> for Refusal {
    fn from(problems: Vec<TargetProblem>) -> Self {
        let first = problems.into_iter().next();
        let (message, remedy) = first.map_or_else(Default::default, |first| (first.message, first.remedy));
        Self {
            message: format!("The policy's target is not valid: {message}."),
            remedy: format!("An admin has to correct the policy: {remedy}."),
        }
    }
}

impl From<BadValue> for Refusal {
    fn from(error: BadValue) -> Self {
        Self {
            message: sentence(&error.to_string()),
            remedy: format!(
                "Rename what {} is made of, or take {{{}}} out of the policy.",
                error.hole, error.hole
            ),
        }
    }
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| format!("{}{}.", first.to_uppercase(), letters.as_str()))
}

/// The faults of one target, collected.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<TargetProblem>);

impl Problems {
    /// Notes `fault` at `pointer`.
    pub(crate) fn add(&mut self, pointer: impl Into<String>, fault: Fault) {
        let Fault { message, remedy } = fault;
        self.0.push(TargetProblem { pointer: pointer.into(), message, remedy });
    }

    /// The value of `result`, or nothing and its fault noted at `pointer`.
    pub(crate) fn take<T>(&mut self, pointer: &str, result: Result<T, Fault>) -> Option<T> {
        result.map_err(|fault| self.add(pointer, fault)).ok()
    }

    /// Notes a fault if a list has no entry, or more than `max`.
    pub(crate) fn count(&mut self, pointer: &str, len: usize, max: usize) {
        if !(1..=max).contains(&len) {
            let message = format!("there are {len} entries");
            self.add(pointer, Fault::new(message, format!("write 1 to {max}")));
        }
    }

    /// `value`, if nothing was noted.
    pub(crate) fn finish<T>(self, value: Option<T>) -> Result<T, Vec<TargetProblem>> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(self.0),
        }
    }
}

/// Reads the shape of a target. Unknown keys, missing ones and wrong types are the one problem that it answers.
pub(crate) fn read<T: DeserializeOwned>(value: &Value) -> Result<T, Vec<TargetProblem>> {
    if let Some(pointer) = list_of_lists(value) {
        // Serde would take an array for a struct, its members by position.
        let (message, remedy) =
            ("a list stands where named members belong".into(), "write key: value pairs".into());
        return Err(vec![TargetProblem { pointer, message, remedy }]);
    }
    serde_path_to_error::deserialize(value).map_err(|error| {
        let pointer = error.path().iter().filter_map(segment).collect();
        let text = error.inner().to_string();
        let (message, remedy) = match text.split_once(", expected ") {
            Some((message, expected)) => (message.to_owned(), format!("write {expected}")),
            None => (text, "write what the target's schema says".to_owned()),
        };
        vec![TargetProblem { pointer, message, remedy }]
    })
}

/// The place of a target that is a list, or of a list directly in one of its lists: no target has either.
fn list_of_lists(value: &Value) -> Option<String> {
    let Value::Object(members) = value else {
        return value.is_array().then(String::new);
    };
    members.iter().find_map(|(key, member)| {
        let at = member.as_array()?.iter().position(Value::is_array)?;
        Some(format!("/{}/{at}", escape(key)))
    })
}

fn segment(segment: &Segment) -> Option<String> {
    match segment {
        Segment::Seq { index } => Some(format!("/{index}")),
        Segment::Map { key } => Some(format!("/{}", escape(key))),
        Segment::Enum { .. } | Segment::Unknown => None,
    }
}

/// A key as one part of a JSON pointer (RFC 6901, section 3).
pub(crate) fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// Parses a template whose holes cannot run into their neighbours.
///
/// A hole beside a wildcard would let `a` reach what is `ab`'s, and two holes with nothing between them that
/// an identifier cannot contain would let (`a`, `b-c`) reach what is (`a-b`, `c`)'s.
pub(crate) fn bounded_template(text: &str) -> Result<Template, Fault> {
    let template = Template::parse(text)?;
    let mut before: Option<&str> = None;
    for (at, piece) in text.split('{').enumerate() {
        let literal = if at == 0 { piece } else { piece.split_once('}').map_or("", |(_, literal)| literal) };
        if let Some(previous) = before {
            if previous.ends_with(['*', '?']) || literal.starts_with(['*', '?']) {
                return Err(Fault::new(
                    format!("{text:?} has a wildcard beside a hole, which would match other runs' names too"),
                    "put a / between the hole and the wildcard",
                ));
            }
            if at > 1 && !previous.bytes().any(separates) {
                return Err(Fault::new(
                    format!("{text:?} has two holes that a name could run across"),
                    "put a / between the holes",
                ));
            }
        }
        before = Some(literal);
    }
    Ok(template)
}

/// No identifier contains it (see [`cortex_core::principal::Ident`]).
fn separates(byte: u8) -> bool {
    !(byte.is_ascii_alphanumeric() || b"_.~:+-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_that_could_reach_another_runs_names_are_refused() {
        let fine = ["", "a", "{dag_id}", "mart/{dag_id}/{run_id}/*", "*/{dag_id}", "{dag_id}=x={run_id}"];
        for text in fine {
            assert!(bounded_template(text).is_ok(), "{text}");
        }
        let refused = [
            "{dag_id}*",
            "{dag_id}?",
            "*{dag_id}",
            "?{dag_id}/x",
            "{dag_id}{run_id}",
            "{dag_id}-{run_id}",
            "x/{dag_id}:{run_id}/*",
            "a/{dag_id}/{run_id}*",
        ];
        for text in refused {
            assert!(bounded_template(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_pointer_escapes_slashes() {
        assert_eq!(escape("aws:PrincipalTag/a~b"), "aws:PrincipalTag~1a~0b");
    }
}
