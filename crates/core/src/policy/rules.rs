//! From the document to Cedar: one permit for `who`, and one forbid for each thing that can still deny.

use cedar_policy::pst::error_body::ContainsSlotError;
use cedar_policy::pst::{
    BinaryOp, Clause as Condition, Effect, Policy as CedarPolicy, PstConstructionError, Template,
};
use cedar_policy::{Policy, PolicySet};

use super::document::{Document, RequiredFor, RequiredRuns, When, Where, Who};
use super::engine::{Engine, RuleSet, engine};
use super::glob::Glob;
use super::time::Hours;
use super::tree::{
    Scope, Tree, and, binary, boolean, context, context_has, if_else, ip, like, long, or, principal,
    principal_has, set, text,
};
use crate::decision::Clause;

/// One rule of a compiled policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rule {
    /// Permits: the run is one that the policy names.
    Who,
    /// Forbids: the identity was not proven in a way that the policy accepts.
    Attestation,
    /// Forbids: the caller is in none of the networks.
    Where,
    /// Forbids: the hours or the day.
    When,
    /// Forbids: the lifetime.
    MaxTtl,
    /// Forbids: an approval is needed and there is none.
    Approval,
    /// Forbids: the glass is to be broken and nobody approved it.
    BreakGlass,
}

impl Rule {
    const ALL: [(Self, &'static str, Clause); 7] = [
        (Self::Who, "who", Clause::Who),
        (Self::Attestation, "attestation", Clause::Attestation),
        (Self::Where, "where", Clause::Where),
        (Self::When, "when", Clause::When),
        (Self::MaxTtl, "max_ttl", Clause::When),
        (Self::Approval, "approval", Clause::Approval),
        (Self::BreakGlass, "break_glass", Clause::Approval),
    ];

    /// The rule's id in the policy `name`: `finance-data-publish#when`.
    pub(super) fn id(self, name: &str) -> String {
        let word = Self::ALL.iter().find(|(rule, _, _)| *rule == self).map_or("", |(_, word, _)| word);
        format!("{name}#{word}")
    }

    /// The rule that an id names.
    pub(super) fn of_id(id: &str) -> Option<Self> {
        let (_, word) = id.split_once('#')?;
        Self::ALL.iter().find(|(_, known, _)| *known == word).map(|(rule, _, _)| *rule)
    }

    /// The part of the policy that it stands for.
    pub(super) fn clause(self) -> Clause {
        Self::ALL.iter().find(|(rule, _, _)| *rule == self).map_or(Clause::Error, |(_, _, clause)| *clause)
    }
}

/// A document's rules. The permit and the forbids are kept apart, so that it is known whether `who` names a run
/// that a forbid denies.
#[derive(Debug)]
pub(super) struct Rules {
    /// The one permit.
    pub(super) who: RuleSet,
    /// Every forbid.
    pub(super) forbids: RuleSet,
}

/// Compiles a document.
pub(super) fn compile(document: &Document) -> Result<Rules, String> {
    let mut rules = Rules { who: RuleSet::default(), forbids: RuleSet::default() };
    for rule in policies(document)? {
        let set =
            if rule.effect() == cedar_policy::Effect::Permit { &mut rules.who } else { &mut rules.forbids };
        set.push_in_scope(&rule);
    }
    Ok(rules)
}

/// The rules as Cedar's policies, the permit first.
pub(super) fn policies(document: &Document) -> Result<Vec<Policy>, String> {
    let scope = &engine()?.scope;
    let templates = templates(document, scope).map_err(|e| e.to_string())?;
    templates.into_iter().map(to_policy).collect()
}

fn to_policy(template: Template) -> Result<Policy, String> {
    let rule = template.try_into().map_err(|e: ContainsSlotError| e.to_string())?;
    Policy::from_pst(CedarPolicy::Static(rule)).map_err(|e| e.to_string())
}

/// The rules as syntax trees, the permit first.
fn templates(document: &Document, scope: &Scope) -> Result<Vec<Template>, PstConstructionError> {
    let name = document.name.as_str();
    let permit = scope.rule(&Rule::Who.id(name), Effect::Permit, name);
    let mut rules = vec![permit.try_with_clauses([Condition::When(who(&document.who))])?];
    let mut forbid = |rule: Rule, condition| {
        let forbid = scope.rule(&rule.id(name), Effect::Forbid, name);
        forbid.try_with_clauses([condition]).map(|rule| rules.push(rule))
    };
    forbid(Rule::Attestation, Condition::Unless(attestation(&document.who)))?;
    if let Some(r#where) = &document.r#where {
        forbid(Rule::Where, Condition::Unless(networks(r#where)))?;
    }
    if let Some(open) = open(&document.when) {
        let open = match document.break_glass {
            Some(_) => or(vec![open, is_true("break_glass")]),
            None => open,
        };
        forbid(Rule::When, Condition::Unless(open))?;
    }
    forbid(Rule::MaxTtl, Condition::Unless(lifetime(&document.when)))?;
    if let Some(approval) = &document.approval {
        let mut needed = required(&approval.required_for);
        needed.push(is_false("approved"));
        forbid(Rule::Approval, Condition::When(and(needed)))?;
    }
    if document.break_glass.is_some() {
        let alone = and(vec![is_true("break_glass"), is_false("approved")]);
        forbid(Rule::BreakGlass, Condition::When(alone))?;
    }
    Ok(rules)
}

fn is_true(fact: &str) -> Tree {
    binary(context(fact), BinaryOp::Eq, boolean(true))
}

fn is_false(fact: &str) -> Tree {
    binary(context(fact), BinaryOp::Eq, boolean(false))
}

fn who(who: &Who) -> Tree {
    let Who { airflow, dags, tasks, run_types, teams, bundles, tags, attestation: _ } = who;
    let mut all =
        vec![binary(principal("issuer"), BinaryOp::Eq, text(airflow.as_str())), one_of("dag_id", dags)];
    if !tasks.is_empty() {
        all.push(one_of("task_id", tasks));
    }
    for (claim, globs) in [("run_type", run_types), ("team", teams), ("bundle", bundles)] {
        if !globs.is_empty() {
            // Cedar only lets a claim that may be absent be read behind its own `has`.
            all.push(binary(principal_has(claim), BinaryOp::And, one_of(claim, globs)));
        }
    }
    if !tags.is_empty() {
        let tags: Vec<_> = tags.iter().map(String::as_str).collect();
        all.push(binary(principal("tags"), BinaryOp::ContainsAny, set(&tags)));
    }
    and(all)
}

fn attestation(who: &Who) -> Tree {
    exactly(principal("attestation"), &who.attestation.iter().map(|way| way.as_str()).collect::<Vec<_>>())
}

fn networks(r#where: &Where) -> Tree {
    let within = r#where
        .networks
        .iter()
        .map(|net| binary(context("source_ip"), BinaryOp::IsInRange, ip(&net.to_string())));
    binary(context_has("source_ip"), BinaryOp::And, or(within.collect()))
}

/// When the policy is open; none if it always is.
fn open(when: &When) -> Option<Tree> {
    let on = |day: &str| {
        let days: Vec<_> = when.days.iter().map(|day| day.as_str()).collect();
        (!days.is_empty()).then(|| exactly(context(day), &days))
    };
    let with = |hours: Tree, day: Option<Tree>| and(std::iter::once(hours).chain(day).collect());
    match when.hours {
        None => on("weekday"),
        Some(hours) if hours.wraps() => {
            Some(or(vec![with(since(hours), on("weekday")), with(until(hours), on("yesterday"))]))
        }
        Some(hours) => Some(with(and(vec![since(hours), until(hours)]), on("weekday"))),
    }
}

fn since(hours: Hours) -> Tree {
    binary(context("local_minute"), BinaryOp::GreaterEq, long(hours.open.into()))
}

fn until(hours: Hours) -> Tree {
    binary(context("local_minute"), BinaryOp::Less, long(hours.close.into()))
}

fn lifetime(when: &When) -> Tree {
    let ttl = || context("ttl_seconds");
    and(vec![
        binary(long(1), BinaryOp::LessEq, ttl()),
        binary(ttl(), BinaryOp::LessEq, long(when.longest().as_secs())),
    ])
}

/// The conditions under which an approval is needed. A run that does not say its type needs it.
fn required(required_for: &RequiredFor) -> Vec<Tree> {
    let RequiredFor::Runs(RequiredRuns { run_types, dags, tasks }) = required_for else {
        return Vec::new();
    };
    let mut all = Vec::new();
    if !run_types.is_empty() {
        all.push(if_else(principal_has("run_type"), one_of("run_type", run_types), boolean(true)));
    }
    if !dags.is_empty() {
        all.push(one_of("dag_id", dags));
    }
    if !tasks.is_empty() {
        all.push(one_of("task_id", tasks));
    }
    all
}

/// Whether the claim is one of the exact names or matches one of the patterns.
fn one_of(claim: &str, globs: &[Glob]) -> Tree {
    let (exact, patterns): (Vec<_>, Vec<_>) = globs.iter().partition(|glob| glob.is_exact());
    let mut any = Vec::new();
    if !exact.is_empty() {
        let names: Vec<_> = exact.into_iter().map(Glob::as_str).collect();
        any.push(exactly(principal(claim), &names));
    }
    any.extend(patterns.into_iter().map(|glob| like(principal(claim), glob.as_str())));
    or(any)
}

/// Whether `value` is one of `texts`; a set is a third of the nodes of a chain of comparisons.
fn exactly(value: Tree, texts: &[&str]) -> Tree {
    match texts {
        [one] => binary(value, BinaryOp::Eq, text(one)),
        many => binary(set(many), BinaryOp::Contains, value),
    }
}

/// What Cedar's strict validation says against a document's rules.
pub(super) fn faults(document: &Document, engine: &Engine) -> Result<Vec<String>, String> {
    let set = PolicySet::from_policies(policies(document)?).map_err(|e| e.to_string())?;
    Ok(engine.faults(&set).into_iter().map(|fault| fault.message).collect())
}

/// A document's rules as Cedar text.
pub(super) fn to_text(document: &Document) -> Result<String, String> {
    let rules = policies(document)?;
    let texts = rules.iter().map(|rule| format!("// {}\n{}", rule.id(), rule.to_cedar().unwrap_or_default()));
    let text = texts.collect::<Vec<_>>().join("\n");
    let config = cedar_policy_formatter::Config { line_width: 100, indent_width: 2 };
    Ok(cedar_policy_formatter::policies_str_to_pretty(&text, &config).unwrap_or(text))
}
