//! One decision: ask Cedar, then say in words what it answered.

use std::collections::BTreeSet;

use super::engine::Circumstances;
use super::guardrail::Guardrails;
use super::rules::Rule;
use super::{Ask, Policy};
use crate::decision::{Clause, Decision, Reason};
use crate::principal::Run;

/// What Cedar says about one question.
struct Findings {
    named: bool,
    forbids: Vec<Rule>,
    guardrails: Vec<String>,
    errors: Vec<String>,
}

impl Findings {
    fn permit(&self) -> bool {
        self.named && self.forbids.is_empty() && self.guardrails.is_empty() && self.errors.is_empty()
    }
}

impl Policy {
    /// Decides one ask. A rule that cannot be evaluated denies.
    ///
    /// A human is asked when an approval is needed and would turn the denial into a permit: a guardrail that
    /// wants approved runs does not stand in the way of the approval it wants.
    pub fn decide(&self, guardrails: &Guardrails, ask: &Ask<'_>) -> Decision {
        let Some(run) = ask.principal.as_run() else {
            return deny(false, vec![self.not_a_run(ask.principal)]);
        };
        let findings = match self.findings(guardrails, run, ask) {
            Ok(findings) => findings,
            Err(error) => return deny(false, vec![self.unreadable(&error)]),
        };
        if self.target(ask.provider).is_none() {
            let unnamed = (!findings.named).then(|| self.reason(Rule::Who, run, ask));
            return deny(
                findings.named,
                unnamed.into_iter().chain([self.not_offered(ask.provider)]).collect(),
            );
        }
        if ask.break_glass && self.break_glass().is_none() {
            let unnamed = (!findings.named).then(|| self.reason(Rule::Who, run, ask));
            return deny(findings.named, unnamed.into_iter().chain([self.no_break_glass()]).collect());
        }
        if findings.permit() {
            return Decision::Permit { rules: vec![Rule::Who.id(self.name().as_str())] };
        }
        let wants_people = |rule: &&Rule| matches!(rule, Rule::Approval | Rule::BreakGlass);
        let wants: Vec<_> = findings.forbids.iter().filter(wants_people).copied().collect();
        if !wants.is_empty() && self.curable(guardrails, run, ask) {
            let rules = wants.into_iter().map(|rule| rule.id(self.name().as_str()));
            return Decision::NeedsGrant { rules: rules.chain(findings.guardrails).collect() };
        }
        deny(findings.named, self.reasons(&findings, guardrails, run, ask))
    }

    /// Whether an approval would turn the answer into a permit.
    fn curable(&self, guardrails: &Guardrails, run: &Run, ask: &Ask<'_>) -> bool {
        let approved = Ask { approved: true, ..*ask };
        self.findings(guardrails, run, &approved).is_ok_and(|findings| findings.permit())
    }

    fn findings(&self, guardrails: &Guardrails, run: &Run, ask: &Ask<'_>) -> Result<Findings, String> {
        let target = self.document.what.iter().find(|target| *target.provider == *ask.provider);
        let circumstances = Circumstances {
            policy: self.name().as_str(),
            provider: ask.provider,
            resource: target.map_or("", |target| &target.resource),
            source_ip: ask.source_ip,
            now: ask.now,
            wall: self.document.when.timezone.wall(ask.now),
            ttl: ask.ttl,
            approved: ask.approved,
            break_glass: ask.break_glass,
        };
        let question = self.engine.question(ask.principal, run, &circumstances)?;
        let rules = self.rules()?;
        let who = question.ask(&rules.who);
        let forbids = question.ask(&rules.forbids);
        let above = guardrails.ask(&question);
        // A rule that fired and that nobody knows must not be forgotten: that would be a permit.
        let (known, unknown): (Vec<_>, Vec<_>) =
            forbids.rules.into_iter().partition(|id| Rule::of_id(id).is_some());
        let fired: BTreeSet<Rule> = known.iter().filter_map(|id| Rule::of_id(id)).collect();
        let mut guardrails = above.rules;
        guardrails.sort_unstable();
        Ok(Findings {
            named: !who.rules.is_empty(),
            forbids: fired.into_iter().collect(),
            guardrails,
            errors: [who.errors, forbids.errors, above.errors, unknown].concat(),
        })
    }

    fn reasons(&self, found: &Findings, guardrails: &Guardrails, run: &Run, ask: &Ask<'_>) -> Vec<Reason> {
        let unnamed = (!found.named).then_some(Rule::Who);
        let rules = unnamed.into_iter().chain(found.forbids.iter().copied());
        let errors = found.errors.iter().map(|rule| Reason {
            rule: rule.clone(),
            clause: Clause::Error,
            message: format!("The rule {rule} could not be evaluated."),
            remedy: "Ask a platform admin to correct the rule.".into(),
        });
        rules
            .map(|rule| self.reason(rule, run, ask))
            .chain(found.guardrails.iter().map(|id| guardrails.reason(id)))
            .chain(errors)
            .collect()
    }
}

fn deny(named: bool, reasons: Vec<Reason>) -> Decision {
    Decision::Deny { named, reasons }
}
