//! Guardrails: forbids of the whole organisation, in Cedar, that no policy overrides.

use std::collections::BTreeMap;

use cedar_policy::ffi::DetailedError;
use cedar_policy::{Effect, Policy as CedarPolicy, PolicySet};

use super::engine::{Answer, Engine, Question, RuleSet, SCHEMA, engine};
use super::problem::{Position, Problem, Problems};
use super::yaml::MAX_BYTES;
use crate::decision::{Clause, Reason};

/// The most guardrails: every one of them is evaluated for every request.
const MAX_GUARDRAILS: usize = 64;
/// The longest `@id`, `@reason` or `@remedy`, in bytes.
const MAX_TEXT: usize = 500;

/// Compiled guardrails. They apply to every policy.
#[derive(Debug, Default)]
pub struct Guardrails {
    rules: RuleSet,
    texts: BTreeMap<String, Text>,
}

/// What a denied caller reads.
#[derive(Debug)]
struct Text {
    reason: String,
    remedy: String,
}

impl Guardrails {
    /// The Cedar schema that guardrails are validated against: every attribute they can read. `local_minute`
    /// (since midnight), `weekday` and `yesterday` (`mon` to `sun`) are on the clock of the asked policy's time
    /// zone, `now` is the instant; `resource` is the target's, such as
    /// `aws:arn:aws:iam::123456789012:role/finance-publish`.
    pub const SCHEMA: &str = SCHEMA;

    /// No guardrails.
    pub fn none() -> Self {
        Self::default()
    }

    /// Compiles Cedar sources, each with the name that problems show. Only `forbid` rules are taken; each has an
    /// `@id` of a-z, 0-9 and hyphens that no other has, and may have a `@reason` and a `@remedy` for the people
    /// it denies. Every rule passes Cedar's strict validation.
    pub fn compile(sources: &[(impl AsRef<str>, impl AsRef<str>)]) -> Result<Self, Vec<Problem>> {
        let mut problems = Problems::default();
        let mut guardrails = Self::none();
        match engine() {
            Ok(engine) => {
                for (name, text) in sources {
                    guardrails.read(
                        engine,
                        &Source { name: name.as_ref(), text: text.as_ref() },
                        &mut problems,
                    );
                }
            }
            Err(fault) => {
                problems.add(Position::START, format!("Cedar does not start: {fault}"), "report this");
            }
        }
        problems.or(Some(guardrails))
    }

    /// The ids of the guardrails.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.texts.keys().map(String::as_str)
    }

    pub(super) fn ask(&self, question: &Question) -> Answer {
        question.ask(&self.rules)
    }

    pub(super) fn reason(&self, id: &str) -> Reason {
        let text = self.texts.get(id);
        Reason {
            rule: id.to_owned(),
            clause: Clause::Guardrail,
            message: text.map_or_else(String::new, |text| text.reason.clone()),
            remedy: text.map_or_else(String::new, |text| text.remedy.clone()),
        }
    }

    fn read(&mut self, engine: &Engine, source: &Source<'_>, problems: &mut Problems) {
        if source.text.len() > MAX_BYTES {
            return source.fault(
                Position::START,
                &format!("has more than {MAX_BYTES} bytes"),
                "split it",
                problems,
            );
        }
        let set: PolicySet = match source.text.parse() {
            Ok(set) => set,
            Err(error) => return source.cedar(&DetailedError::from(&error), problems),
        };
        if set.is_empty() || source.text.contains('\0') {
            let what = "has no rule, or a NUL in a comment";
            return source.fault(Position::START, what, "write Cedar `forbid` rules, or remove it", problems);
        }
        for fault in engine.faults(&set) {
            source.cedar(&fault, problems);
        }
        if set.num_of_templates() > 0 {
            source.fault(
                Position::START,
                "has a template",
                "write rules without ?principal and ?resource",
                problems,
            );
        }
        let mut from = 0;
        for rule in set.policies() {
            let at = source.find(rule, &mut from);
            self.add(rule, source, at, problems);
        }
    }

    fn add(&mut self, rule: &CedarPolicy, source: &Source<'_>, at: Position, problems: &mut Problems) {
        if rule.effect() == Effect::Permit {
            let remedy = "write `forbid`, or make it a policy: a guardrail only ever takes away";
            return source.fault(at, "has a `permit`", remedy, problems);
        }
        let known = |(key, _): &(&str, &str)| ["id", "reason", "remedy"].contains(key);
        if let Some((key, _)) = rule.annotations().find(|annotation| !known(annotation)) {
            let what = format!("has the annotation @{key}");
            source.fault(at, &what, "use @id, @reason and @remedy alone", problems);
        }
        let Some(id) = rule.annotation("id").filter(|id| is_id(id)) else {
            let remedy = "write @id(\"...\") of 1 to 64 of a-z, 0-9 and hyphens before the rule";
            return source.fault(at, "has a rule without a well-formed @id", remedy, problems);
        };
        if self.texts.contains_key(id) {
            return source.fault(
                at,
                &format!("has the @id {id:?}, which is taken"),
                "choose another",
                problems,
            );
        }
        if self.texts.len() >= MAX_GUARDRAILS {
            let what = format!("brings the guardrails to more than {MAX_GUARDRAILS}");
            return source.fault(at, &what, "join rules that belong together", problems);
        }
        let text = |key: &str, default: &str| rule.annotation(key).unwrap_or(default).to_owned();
        let text = Text {
            reason: text("reason", &format!("The guardrail {id} forbids it.")),
            remedy: text("remedy", "Ask a platform admin."),
        };
        if text.reason.len() > MAX_TEXT || text.remedy.len() > MAX_TEXT {
            source.fault(
                at,
                "has a @reason or @remedy that is too long",
                "write at most 500 bytes",
                problems,
            );
        }
        self.rules.push(id, rule);
        self.texts.insert(id.to_owned(), text);
    }
}

/// One text and its name.
struct Source<'a> {
    name: &'a str,
    text: &'a str,
}

impl Source<'_> {
    fn fault(&self, at: Position, what: &str, remedy: &str, problems: &mut Problems) {
        problems.add(at, format!("{} {what}", self.name), remedy);
    }

    /// A fault that Cedar found.
    fn cedar(&self, error: &DetailedError, problems: &mut Problems) {
        let offset = error.source_locations.first().map_or(0, |label| label.loc.start);
        let remedy =
            error.help.as_deref().unwrap_or("correct the rule; the guardrail schema names every attribute");
        problems.add(
            Position::of_offset(self.text, offset),
            format!("{}: {}", self.name, error.message),
            remedy,
        );
        for related in &error.related {
            self.cedar(related, problems);
        }
    }

    /// Where `rule` stands, searching on from `from`: a set keeps the order of its text.
    fn find(&self, rule: &CedarPolicy, from: &mut usize) -> Position {
        let text = rule.to_cedar().unwrap_or_default();
        let found = self.text.get(*from..).and_then(|rest| rest.find(&text)).map_or(*from, |at| *from + at);
        *from = found + text.len();
        Position::of_offset(self.text, found)
    }
}

fn is_id(id: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=64).contains(&id.len()) && id.bytes().all(inner)
}
