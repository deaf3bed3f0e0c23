//! Typed holes: `{dag_id}` and its like in a policy's targets.
//!
//! A template is parsed once, when the policy is written. Filling it puts checked values into holes; nothing
//! that came from outside is ever parsed again.

use std::fmt;

use crate::principal::Run;

/// What a hole stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hole {
    /// The run's `dag_id`.
    DagId,
    /// The run's `run_id`.
    RunId,
    /// The run's `task_id`.
    TaskId,
    /// The run's try number.
    TryNumber,
    /// The team that the DAG's bundle belongs to; absent for a run without one.
    Team,
}

impl Hole {
    /// Every hole, with the name that policies use.
    pub const ALL: [(&'static str, Self); 5] = [
        ("dag_id", Self::DagId),
        ("run_id", Self::RunId),
        ("task_id", Self::TaskId),
        ("try_number", Self::TryNumber),
        ("team", Self::Team),
    ];

    /// The hole's name in a policy.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, hole)| *hole == self).map_or("", |(name, _)| name)
    }

    fn value(self, run: &Run) -> Option<String> {
        match self {
            Self::DagId => Some(run.dag_id.to_string()),
            Self::RunId => Some(run.run_id.to_string()),
            Self::TaskId => Some(run.task_id.to_string()),
            Self::TryNumber => Some(run.try_number.to_string()),
            Self::Team => run.team.as_ref().map(ToString::to_string),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Hole(Hole),
}

/// Text with typed holes, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

/// Why a text is not a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {remedy}")]
pub struct InvalidTemplate {
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub remedy: String,
}

/// A run's value that may not stand in a hole: refused, never escaped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the run's {hole} may not be used here: {why}")]
pub struct BadValue {
    /// The hole's name.
    pub hole: &'static str,
    /// Why it may not.
    pub why: &'static str,
}

impl Template {
    /// Parses `text`; `{` and `}` only ever mark holes.
    pub fn parse(text: &str) -> Result<Self, InvalidTemplate> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find(['{', '}']) {
            let (literal, tail) = rest.split_at(start);
            if literal.ends_with('$') {
                return Err(invalid(text, "has `${`, which AWS would read as a policy variable"));
            }
            let end = tail.strip_prefix('{').and_then(|inner| inner.find('}'));
            let Some(end) = end else {
                return Err(invalid(text, "has a brace that belongs to no hole"));
            };
            let (name, after) = (&tail[1..=end], &tail[end + 2..]);
            let Some((_, hole)) = Hole::ALL.iter().find(|(known, _)| *known == name) else {
                return Err(invalid(text, "has an unknown hole"));
            };
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.to_owned()));
            }
            parts.push(Part::Hole(*hole));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        Ok(Self(parts))
    }

    /// Fills the holes from `run`. Each value is checked by `allowed` (a target's own rule) and by the rule
    /// for all targets: no `..`, which a path would follow upwards.
    pub fn fill(&self, run: &Run, allowed: fn(u8) -> bool) -> Result<String, BadValue> {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Literal(text) => out.push_str(text),
                Part::Hole(hole) => out.push_str(&checked(*hole, run, allowed)?),
            }
        }
        Ok(out)
    }

    /// The text without its holes, for checks at the time of writing.
    pub fn literals(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Literal(text) => Some(text.as_str()),
            Part::Hole(_) => None,
        })
    }

    /// The holes, in order.
    pub fn holes(&self) -> impl Iterator<Item = Hole> {
        self.0.iter().filter_map(|part| match part {
            Part::Hole(hole) => Some(*hole),
            Part::Literal(_) => None,
        })
    }
}

fn checked(hole: Hole, run: &Run, allowed: fn(u8) -> bool) -> Result<String, BadValue> {
    let refuse = |why| BadValue { hole: hole.name(), why };
    let value = hole.value(run).ok_or_else(|| refuse("this run has none"))?;
    if value.contains("..") {
        return Err(refuse("it contains `..`"));
    }
    if !value.bytes().all(allowed) {
        return Err(refuse("it contains a character that means something to the target"));
    }
    Ok(value)
}

fn invalid(text: &str, what: &str) -> InvalidTemplate {
    let names: Vec<_> = Hole::ALL.iter().map(|(name, _)| format!("{{{name}}}")).collect();
    InvalidTemplate {
        message: format!("{text:?} {what}"),
        remedy: format!("write one of {}", names.join(", ")),
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Literal(text) => f.write_str(text),
            Part::Hole(hole) => write!(f, "{{{}}}", hole.name()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_typed() {
        let template = Template::parse("arn:aws:s3:::mart/{dag_id}/{run_id}/*").unwrap();
        assert_eq!(template.holes().collect::<Vec<_>>(), [Hole::DagId, Hole::RunId]);
        assert_eq!(template.to_string(), "arn:aws:s3:::mart/{dag_id}/{run_id}/*");
    }

    #[test]
    fn braces_that_are_no_hole_are_refused() {
        for text in ["{", "}", "a{b", "{dag}", "{{dag_id}}", "${dag_id}", "{dag_id", "${aws:username}"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }
}
