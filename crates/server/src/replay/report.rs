//! What a replay comes to: how many requests would end differently, which, and what could not be decided again.

use std::collections::{BTreeMap, HashMap};

use cortex_core::{DecisionId, PolicyName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::sweep::{Cut, Swept};

/// The most groups that are told apart; what belongs to others is only counted.
const GROUPS_MAX: usize = 5_000;

/// How a request would end differently, what matters most first.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It was permitted and would be denied.
    PermitToDeny,
    /// It was approved by people and would be denied.
    ApprovalToDeny,
    /// It was permitted and would wait for people.
    PermitToApproval,
    /// It was denied and would be permitted.
    DenyToPermit,
    /// It was denied and would wait for people.
    DenyToApproval,
    /// It was approved by people and would need nobody.
    ApprovalToPermit,
    /// Its credential would be for something else.
    Scope,
    /// Its credential would be for something else and live longer or shorter.
    ScopeAndLifetime,
    /// Its credential would live longer or shorter.
    Lifetime,
}

impl Change {
    /// The change in words.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::PermitToDeny => "permitted, would be denied",
            Self::ApprovalToDeny => "approved, would be denied",
            Self::PermitToApproval => "permitted, would need an approval",
            Self::DenyToPermit => "denied, would be permitted",
            Self::DenyToApproval => "denied, would need an approval",
            Self::ApprovalToPermit => "approved, would need no approval",
            Self::Scope => "another scope",
            Self::ScopeAndLifetime => "another scope and lifetime",
            Self::Lifetime => "another lifetime",
        }
    }

    /// Whether somebody who got a credential would get none.
    pub fn denies(self) -> bool {
        matches!(self, Self::PermitToDeny | Self::ApprovalToDeny)
    }
}

/// Why a record is not decided again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// This version of Cortex cannot read it.
    Unreadable,
    /// A request for an approval, which does not hold the caller's address. If it was approved and used, its
    /// issuances are decided again.
    WaitedForPeople,
    /// A freeze stopped it.
    Frozen,
    /// No policy denied it: its token, the run that it claimed, or guardrails that could not be read.
    NotThePolicy,
    /// A denial that does not say which target was asked for: of a policy that did not exist, or without a reason or a
    /// ticket that its approval demands.
    TargetUnknown,
    /// A denial does not hold the lifetime that was asked for, and the answer hangs on it.
    LifetimeUnknown,
}

impl Why {
    /// The reason in words.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Unreadable => "this version cannot read the record",
            Self::WaitedForPeople => "a request for an approval, which does not hold the caller's address",
            Self::Frozen => "stopped by a freeze",
            Self::NotThePolicy => "not denied by a policy",
            Self::TargetUnknown => "the denial does not say which target was asked for",
            Self::LifetimeUnknown => "the answer hangs on a lifetime that a denial does not hold",
        }
    }
}

/// How often one kind of change would have been.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Changed {
    /// The change.
    pub change: Change,
    /// How many requests.
    pub count: u64,
    /// How many of them the version in force changes as well, so that this change is not why.
    pub in_force_too: u64,
}

/// How many records were not decided again, for one reason.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NotDecided {
    /// Why.
    pub why: Why,
    /// How many.
    pub count: u64,
}

/// Requests that would end differently in the same way.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Group {
    /// The policy.
    #[schema(value_type = String)]
    pub policy: PolicyName,
    /// How they would end differently.
    pub change: Change,
    /// The DAG; empty where no run asked.
    pub dag_id: String,
    /// The task.
    pub task_id: String,
    /// The provider.
    pub provider: String,
    /// The rules that say so: those that now deny or want people, or those that did and no longer do.
    pub rules: Vec<String>,
    /// How many.
    pub count: u64,
    /// How many of them the version in force changes as well.
    pub in_force_too: u64,
    /// When the first of them was decided.
    #[schema(value_type = String, format = DateTime)]
    pub first: Timestamp,
    /// When the last of them was decided.
    #[schema(value_type = String, format = DateTime)]
    pub last: Timestamp,
    /// The decision that the last of them is on record under.
    #[schema(value_type = String)]
    pub example: DecisionId,
    /// What the change says about the example, in words.
    pub said: String,
}

/// What a replay comes to.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Report {
    /// The policies that were replayed.
    #[schema(value_type = Vec<String>)]
    pub policies: Vec<PolicyName>,
    /// From when on requests were looked at.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// The oldest record that was looked at.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub oldest: Option<Timestamp>,
    /// Why not everything since then was looked at; none if it was.
    pub cut: Option<Cut>,
    /// How many records were looked at.
    pub records: u64,
    /// How many requests would end as they did.
    pub unchanged: u64,
    /// How many got a credential and would be denied, though not by the version in force.
    pub would_deny: u64,
    /// How many would end differently, by change.
    pub changed: Vec<Changed>,
    /// How many were not decided again, by reason.
    pub not_decided: Vec<NotDecided>,
    /// What would end differently, in groups: what matters most first, then the largest.
    pub groups: Vec<Group>,
    /// How many requests that would end differently belong to none of the groups, of which there are 5,000.
    pub ungrouped: u64,
}

/// What tells one group from another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) policy: usize,
    pub(super) change: Change,
    pub(super) dag_id: String,
    pub(super) task_id: String,
    pub(super) provider: String,
    pub(super) rules: Vec<String>,
}

/// One request that would end differently.
pub(super) struct Differs {
    pub(super) key: Key,
    pub(super) at: Timestamp,
    pub(super) decision_id: DecisionId,
    pub(super) said: String,
    pub(super) in_force_too: bool,
}

struct Many {
    count: u64,
    in_force_too: u64,
    first: Timestamp,
    last: Timestamp,
    example: DecisionId,
    said: String,
}

/// What some records come to.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) records: u64,
    pub(super) unchanged: u64,
    not_decided: BTreeMap<Why, u64>,
    changed: BTreeMap<Change, (u64, u64)>,
    groups: HashMap<Key, Many>,
    ungrouped: u64,
}

impl Tally {
    pub(super) fn not_decided(&mut self, why: Why) {
        *self.not_decided.entry(why).or_default() += 1;
    }

    pub(super) fn differs(&mut self, one: Differs) {
        let Differs { key, at, decision_id, said, in_force_too } = one;
        let too = u64::from(in_force_too);
        let changed = self.changed.entry(key.change).or_default();
        changed.0 += 1;
        changed.1 += too;
        self.group(
            key,
            Many { count: 1, in_force_too: too, first: at, last: at, example: decision_id, said },
        );
    }

    fn group(&mut self, key: Key, many: Many) {
        let full = self.groups.len() >= GROUPS_MAX;
        match self.groups.get_mut(&key) {
            Some(known) => known.add(many),
            None if full => self.ungrouped += many.count,
            None => {
                self.groups.insert(key, many);
            }
        }
    }

    pub(super) fn add(&mut self, more: Self) {
        self.records += more.records;
        self.unchanged += more.unchanged;
        self.ungrouped += more.ungrouped;
        for (why, count) in more.not_decided {
            *self.not_decided.entry(why).or_default() += count;
        }
        for (change, (count, too)) in more.changed {
            let changed = self.changed.entry(change).or_default();
            changed.0 += count;
            changed.1 += too;
        }
        for (key, many) in more.groups {
            self.group(key, many);
        }
    }
}

impl Many {
    fn add(&mut self, more: Self) {
        self.count += more.count;
        self.in_force_too += more.in_force_too;
        self.first = self.first.min(more.first);
        // Of two at the same time the later id, so that the example does not hang on which thread was quicker.
        if (more.last, more.example) > (self.last, self.example) {
            (self.last, self.example, self.said) = (more.last, more.example, more.said);
        }
    }
}

/// Puts the report together.
pub(super) fn report(policies: Vec<PolicyName>, since: Timestamp, swept: Swept<Tally>) -> Report {
    let Swept { seen, cut, oldest } = swept;
    let mut groups: Vec<_> =
        seen.groups.into_iter().filter_map(|(key, many)| group(&policies, key, many)).collect();
    groups.sort_by(|a, b| {
        let order = |group: &Group| (group.change, std::cmp::Reverse(group.count));
        let name = |group: &Group| {
            (group.policy.clone(), group.dag_id.clone(), group.task_id.clone(), group.provider.clone())
        };
        order(a).cmp(&order(b)).then_with(|| name(a).cmp(&name(b)))
    });
    let denies = seen.changed.iter().filter(|(change, _)| change.denies());
    let changed = seen.changed.iter();
    Report {
        since,
        oldest,
        cut,
        records: seen.records,
        unchanged: seen.unchanged,
        would_deny: denies.map(|(_, (count, too))| count - too).sum(),
        changed: changed
            .map(|(change, (count, too))| Changed { change: *change, count: *count, in_force_too: *too })
            .collect(),
        not_decided: seen.not_decided.into_iter().map(|(why, count)| NotDecided { why, count }).collect(),
        groups,
        ungrouped: seen.ungrouped,
        policies,
    }
}

fn group(policies: &[PolicyName], key: Key, many: Many) -> Option<Group> {
    let Key { policy, change, dag_id, task_id, provider, rules } = key;
    let Many { count, in_force_too, first, last, example, said } = many;
    let policy = policies.get(policy)?.clone();
    Some(Group {
        policy,
        change,
        dag_id,
        task_id,
        provider,
        rules,
        count,
        in_force_too,
        first,
        last,
        example,
        said,
    })
}
