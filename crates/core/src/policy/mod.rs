//! Policies: who may have what, from where and when, and whether a human has to approve.
//!
//! A policy is written as a YAML document. [`Policy::compile`] refuses whatever is unclear in it, all faults at
//! once, and turns the rest into Cedar: one permit for `who`, and a forbid for each thing that can still deny.
//! [`Policy::decide`] asks Cedar; no evaluator of our own decides anything. [`Guardrails`] are forbids that
//! apply to every policy.
//!
//! ```text
//! text --yaml--> tree with places --read--> Document --rules--> Cedar --engine--> Decision
//! ```

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::ids::{Digest, IssuerName, PolicyName};
use crate::principal::Principal;

mod cases;
mod decide;
mod diff;
mod document;
mod engine;
mod fields;
mod glob;
mod guardrail;
mod problem;
mod read;
mod rules;
mod schema;
mod suggest;
mod summary;
mod time;
mod tree;
mod words;
mod yaml;

#[cfg(test)]
mod tests;

pub use cases::{CaseOutcome, Expected, run_tests};
pub use diff::diff;
pub use document::{Approval, Approvers, BreakGlass, Demand, ValidFor};
pub use guardrail::Guardrails;
pub use problem::Problem;
pub use schema::policy_schema;
pub use suggest::{Evidence, Fate, Part, Suggestion, Use, Used, Window};
pub use summary::Sentence;

use document::Document;
use problem::{Position, Problems};
use rules::Rules;

/// One fault in a policy's target, found when the policy is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetProblem {
    /// Where, as a JSON pointer (RFC 6901) within the target: `/allow/0/resources/1`; empty for the target.
    pub pointer: String,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to write instead, in one sentence.
    pub remedy: String,
}

/// The providers that a policy can name, as far as writing policies needs them.
pub trait Targets {
    /// The providers' names, the keys under `what`.
    fn names(&self) -> Vec<&str>;

    /// Checks a target. On success, the resource that it names, for guardrails and for reading:
    /// `aws:arn:aws:iam::123456789012:role/finance-publish`.
    fn check(&self, provider: &str, target: &Value) -> Result<String, Vec<TargetProblem>>;
}

/// What one run asks of one policy.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Who asks.
    pub principal: &'a Principal,
    /// The provider whose target is asked for.
    pub provider: &'a str,
    /// The caller's address, if it is known. An unknown one is in no network.
    pub source_ip: Option<IpAddr>,
    /// Now.
    pub now: Timestamp,
    /// The lifetime that is asked for.
    pub ttl: SignedDuration,
    /// Whether an approval for this run, under this version of the policy, is active.
    pub approved: bool,
    /// Whether it asks to be let in although the policy is closed, with two people's approval.
    pub break_glass: bool,
}

/// A compiled policy. It never changes: a new text is a new policy with another digest.
///
/// Its Cedar rules take ten times the memory of its document. They are kept while somebody holds them
/// ([`Policy::hold`]) and built again from the document, in a tenth of a millisecond, when they are needed.
pub struct Policy {
    engine: &'static engine::Engine,
    document: Document,
    rules: Mutex<Weak<Rules>>,
    digest: Digest,
    source: Box<str>,
}

/// Keeps a policy's rules in memory while it is held.
#[derive(Debug, Clone)]
pub struct Held {
    _rules: Arc<Rules>,
}

impl Policy {
    /// The longest document, in bytes.
    pub const MAX_BYTES: usize = yaml::MAX_BYTES;

    /// Compiles a document, checking its targets with `targets`. The error is every fault that was found, in
    /// the order of the text, at most 100.
    pub fn compile(source: &str, targets: &dyn Targets) -> Result<Self, Vec<Problem>> {
        let mut problems = Problems::default();
        let policy = Self::read(source, targets, &mut problems);
        problems.or(policy)
    }

    fn read(source: &str, targets: &dyn Targets, problems: &mut Problems) -> Option<Self> {
        let node = yaml::parse(source, problems)?;
        let document = read::document(&node, targets, problems)?;
        let canonical = problems.keep(node.at, read::canonical(&node))?;
        match Self::build(source, document, Digest::of(&canonical)) {
            Ok(policy) => Some(policy),
            Err(faults) => {
                for fault in faults {
                    problems.add(
                        Position::START,
                        format!("Cedar refuses the policy: {fault}"),
                        "report this",
                    );
                }
                None
            }
        }
    }

    /// The policy, or what Cedar and its strict validation say against it.
    fn build(source: &str, document: Document, digest: Digest) -> Result<Self, Vec<String>> {
        let engine = engine::engine().map_err(|fault| vec![fault.to_owned()])?;
        let faults = rules::faults(&document, engine).unwrap_or_else(|fault| vec![fault]);
        if faults.is_empty() {
            Ok(Self { engine, document, rules: Mutex::default(), digest, source: source.into() })
        } else {
            Err(faults)
        }
    }

    /// The policy's name.
    pub fn name(&self) -> &PolicyName {
        &self.document.name
    }

    /// What it is for, in the author's words.
    pub fn description(&self) -> Option<&str> {
        self.document.description.as_deref()
    }

    /// The SHA-256 of the document's canonical form (RFC 8785): comments, white space and the order of keys do
    /// not change it.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The text that was compiled.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The issuer that vouches for the runs it names.
    pub fn issuer(&self) -> &IssuerName {
        &self.document.who.airflow
    }

    /// Its targets, by provider, in the order of the document.
    pub fn targets(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.document.what.iter().map(|target| (&*target.provider, &target.value))
    }

    /// Its target for `provider`.
    pub fn target(&self, provider: &str) -> Option<&Value> {
        self.targets().find(|(name, _)| *name == provider).map(|(_, value)| value)
    }

    /// The longest lifetime of a credential, 60 seconds to 12 hours.
    pub fn max_ttl(&self) -> SignedDuration {
        self.document.when.longest()
    }

    /// Which runs a human has to approve, and who may; none if none.
    pub fn approval(&self) -> Option<&Approval> {
        self.document.approval.as_ref()
    }

    /// Who may let a run through when the policy is closed; none if nobody.
    pub fn break_glass(&self) -> Option<&BreakGlass> {
        self.document.break_glass.as_ref()
    }

    /// The rules as Cedar text, each under a comment with its id. For reading: what decides is the tree that
    /// this text is printed from.
    pub fn cedar(&self) -> String {
        rules::to_text(&self.document).unwrap_or_else(|fault| format!("// {fault}\n"))
    }

    /// Keeps the rules in memory for as long as the answer is held; none if Cedar refuses them.
    pub fn hold(&self) -> Option<Held> {
        self.rules().ok().map(|rules| Held { _rules: rules })
    }

    fn rules(&self) -> Result<Arc<Rules>, String> {
        let mut kept = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rules) = kept.upgrade() {
            return Ok(rules);
        }
        let rules = Arc::new(rules::compile(&self.document)?);
        *kept = Arc::downgrade(&rules);
        Ok(rules)
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("name", self.name())
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}
