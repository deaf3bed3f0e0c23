//! What a denied caller reads: what is the case, and what to do about it.

use jiff::SignedDuration;

use super::fields::shortened;
use super::rules::Rule;
use super::time::show;
use super::{Ask, Policy};
use crate::decision::{Clause, Reason};
use crate::principal::{Principal, Run};

impl Policy {
    /// Why `rule` denies this ask.
    pub(super) fn reason(&self, rule: Rule, run: &Run, ask: &Ask<'_>) -> Reason {
        let (message, remedy) = match rule {
            Rule::Who => self.who_words(run),
            Rule::Attestation => self.attestation_words(run),
            Rule::Where => self.where_words(ask),
            Rule::When => self.when_words(ask),
            Rule::MaxTtl => self.max_ttl_words(ask.ttl),
            Rule::Approval => self.approval_words(),
            Rule::BreakGlass => self.break_glass_words(),
        };
        Reason { rule: rule.id(self.name().as_str()), clause: rule.clause(), message, remedy }
    }

    fn who_words(&self, run: &Run) -> (String, String) {
        (
            format!(
                "{} does not name task {} of DAG {} on {}.",
                self.name(),
                run.task_id,
                run.dag_id,
                run.issuer
            ),
            "Ask the policy's owner to name the run under `who`.".into(),
        )
    }

    fn attestation_words(&self, run: &Run) -> (String, String) {
        let accepted: Vec<_> = self.document.who.attestation.iter().map(|a| a.as_str()).collect();
        (
            format!(
                "The run was proven by {}; {} accepts {}.",
                run.attestation.as_str(),
                self.name(),
                accepted.join(", ")
            ),
            "Show a token that is proven in an accepted way, or have the way added to `who.attestation`."
                .into(),
        )
    }

    fn where_words(&self, ask: &Ask<'_>) -> (String, String) {
        let networks = self.document.r#where.iter().flat_map(|w| &w.networks).map(ToString::to_string);
        let from = ask.source_ip.map_or_else(
            || "The caller's address is not known".to_owned(),
            |ip| format!("The request came from {}", ip.to_canonical()),
        );
        (
            format!("{from}; {} is open to {}.", self.name(), networks.collect::<Vec<_>>().join(", ")),
            "Run the task in one of these networks, or have its network added to `where.networks`.".into(),
        )
    }

    fn when_words(&self, ask: &Ask<'_>) -> (String, String) {
        let when = &self.document.when;
        (
            format!(
                "It is {} in {}; {} is open {when}.",
                when.timezone.wall(ask.now),
                when.timezone,
                self.name()
            ),
            "Wait until it is open, or have `when` widened.".into(),
        )
    }

    fn max_ttl_words(&self, ttl: SignedDuration) -> (String, String) {
        let longest = show(self.max_ttl());
        (
            format!("A lifetime of {} was asked for; {} allows {longest}.", show(ttl), self.name()),
            format!("Ask for at least 1s and at most {longest}."),
        )
    }

    fn approval_words(&self) -> (String, String) {
        let approvers = self.approval().map(|approval| approval.approvers().to_string());
        (
            format!("{} wants an approval for this run.", self.name()),
            format!("Ask {} to approve it.", approvers.unwrap_or_default()),
        )
    }

    fn break_glass_words(&self) -> (String, String) {
        let approvers = self.break_glass().map(|way| way.approvers().to_string());
        (
            format!("{} lets nobody break the glass alone.", self.name()),
            format!("Ask two of {} to approve it.", approvers.unwrap_or_default()),
        )
    }

    /// Why a run that wants to break the glass is denied where there is none.
    pub(super) fn no_break_glass(&self) -> Reason {
        Reason {
            rule: Rule::BreakGlass.id(self.name().as_str()),
            clause: Clause::Approval,
            message: format!("{} has no `break_glass`.", self.name()),
            remedy: "Ask without it, or have the policy's owner name who may let a run through.".into(),
        }
    }

    /// Why a person or a service is denied.
    pub(super) fn not_a_run(&self, principal: &Principal) -> Reason {
        let kind = if matches!(principal, Principal::Person(_)) { "a person" } else { "a service" };
        Reason {
            rule: Rule::Who.id(self.name().as_str()),
            clause: Clause::Who,
            message: format!("{} names runs of Airflow, and this is {kind}.", self.name()),
            remedy: "Ask from a running task.".into(),
        }
    }

    /// Why a provider that the policy does not name is denied.
    pub(super) fn not_offered(&self, provider: &str) -> Reason {
        let offered: Vec<_> = self.targets().map(|(provider, _)| provider).collect();
        Reason {
            rule: format!("{}#what", self.name()),
            clause: Clause::What,
            message: format!("{} does not offer {:?}.", self.name(), shortened(provider)),
            remedy: format!("Ask for {}.", offered.join(" or ")),
        }
    }

    /// Why a request that cannot be put to Cedar is denied.
    pub(super) fn unreadable(&self, error: &str) -> Reason {
        Reason {
            rule: self.name().to_string(),
            clause: Clause::Error,
            message: format!("The request could not be put to the policy: {error}."),
            remedy: "Report this to a platform admin.".into(),
        }
    }
}
