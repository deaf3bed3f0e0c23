//! The document that people write, as types: who, what, where, when and approval.
//!
//! These types are what [`super::schema`] describes and what [`super::rules`] turns into Cedar. Every value has
//! been checked: a `Document` that exists can be compiled.

use std::fmt;

use ipnet::IpNet;
use jiff::SignedDuration;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::glob::Glob;
use super::time::{DEFAULT_MAX_TTL, Day, Hours, MaxTtl, Zone};
use crate::ids::{IssuerName, PolicyName};
use crate::principal::Attestation;

/// A policy: who may have what, from where and when, and whether a human has to approve.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields, title = "Cortex policy")]
pub(super) struct Document {
    /// The business purpose in a few words: 1 to 64 of a-z, 0-9 and single hyphens.
    #[schemars(with = "String", regex(pattern = "^[a-z0-9]+(-[a-z0-9]+)*$"), length(max = 64))]
    #[schemars(example = &"finance-data-publish")]
    pub(super) name: PolicyName,
    /// One sentence for the people who approve and audit; at most 500 characters.
    #[schemars(with = "String", default, length(min = 1, max = 500))]
    pub(super) description: Option<String>,
    /// Which runs the policy names. Every key that is written has to match; within a list one entry is enough.
    /// A claim that a run does not carry never matches.
    pub(super) who: Who,
    /// The targets, by provider: what one run gets. At least one.
    #[schemars(with = "std::collections::BTreeMap<String, Value>")]
    pub(super) what: Vec<Target>,
    /// The networks that may ask. Left out: any.
    #[schemars(with = "Where", default)]
    pub(super) r#where: Option<Where>,
    /// When the policy is open, and for how long a credential lives.
    #[schemars(with = "When", default)]
    pub(super) when: When,
    /// Which runs a human has to approve. Left out: none.
    #[schemars(with = "Approval", default)]
    pub(super) approval: Option<Approval>,
    /// Who may let a run through that asks with `break_glass: true`, at an hour when the policy is closed. Left
    /// out: nobody.
    #[schemars(with = "BreakGlass", default)]
    pub(super) break_glass: Option<BreakGlass>,
}

/// The runs that a policy names.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Who {
    /// The name of the issuer in Cortex's configuration that vouches for the runs.
    #[schemars(with = "String", regex(pattern = "^[a-z0-9]+(-[a-z0-9]+)*$"), length(max = 32), example = &"prod")]
    pub(super) airflow: IssuerName,
    /// The DAGs, by `dag_id`. A pattern begins with a literal.
    #[schemars(length(min = 1, max = 128), extend("uniqueItems" = true))]
    pub(super) dags: Vec<Glob>,
    /// The tasks, by `task_id`. Left out: every task of the DAGs.
    #[schemars(length(min = 1, max = 128), default, extend("uniqueItems" = true))]
    pub(super) tasks: Vec<Glob>,
    /// The run types: `scheduled`, `manual`, `backfill`, `asset_triggered`, `asset_materialization`,
    /// `operator_triggered`, `dataset_triggered`. Left out: every type.
    #[schemars(length(min = 1, max = 128), default, extend("uniqueItems" = true))]
    pub(super) run_types: Vec<Glob>,
    /// The teams that the DAG's bundle belongs to. Left out: every team, and runs without one.
    #[schemars(length(min = 1, max = 128), default, extend("uniqueItems" = true))]
    pub(super) teams: Vec<Glob>,
    /// The bundles that the DAG came from. Left out: every bundle.
    #[schemars(length(min = 1, max = 128), default, extend("uniqueItems" = true))]
    pub(super) bundles: Vec<Glob>,
    /// Tags of the DAG, exactly; one of them is enough. Whoever writes the DAG writes its tags, so this
    /// narrows a policy and protects nothing.
    #[schemars(length(min = 1, max = 128), default, extend("uniqueItems" = true))]
    pub(super) tags: Vec<String>,
    /// How the run's identity may have been proven. Left out: only by the issuer itself.
    #[schemars(length(min = 1, max = 3), default = "issuer_alone", extend("uniqueItems" = true))]
    pub(super) attestation: Vec<Attestation>,
}

/// The attestations of a policy that says nothing about them: the strongest one.
pub(super) fn issuer_alone() -> Vec<Attestation> {
    vec![Attestation::Issuer]
}

/// One provider's target.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// The provider's name.
    pub(super) provider: Box<str>,
    /// The target, as the provider accepted it.
    pub(super) value: Value,
    /// The resources that it names, for guardrails.
    pub(super) resource: Box<str>,
}

/// Where the caller has to be.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Where {
    /// Networks in CIDR form, IPv4 or IPv6; the caller's address is in one of them.
    #[schemars(with = "Vec<String>", length(min = 1, max = 128), extend("uniqueItems" = true))]
    #[schemars(example = ["10.0.0.0/8", "fd00::/8"])]
    pub(super) networks: Vec<IpNet>,
}

/// When the policy is open.
#[derive(Debug, Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct When {
    /// Hours of the day on the clock of `timezone`, HH:MM-HH:MM: the first minute belongs to them, the last
    /// does not. They may pass midnight; `days` then names the day on which they begin. Where the clock is put
    /// forward the skipped minutes do not exist, where it is put back they come twice. Left out: all day.
    #[schemars(with = "Hours", default)]
    pub(super) hours: Option<Hours>,
    /// The time zone of `hours` and `days`.
    #[schemars(default)]
    pub(super) timezone: Zone,
    /// Days of the week. Left out: every day.
    #[schemars(length(min = 1, max = 7), default, extend("uniqueItems" = true))]
    pub(super) days: Vec<Day>,
    /// The longest lifetime of a credential, from 60s to 12h.
    #[schemars(default)]
    pub(super) max_ttl: MaxTtl,
}

impl Default for MaxTtl {
    fn default() -> Self {
        Self(DEFAULT_MAX_TTL)
    }
}

impl When {
    /// The longest lifetime.
    pub(super) fn longest(&self) -> SignedDuration {
        self.max_ttl.0
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.hours {
            Some(hours) => write!(f, "{hours}")?,
            None => f.write_str("all day")?,
        }
        if !self.days.is_empty() {
            write!(f, " on {}", self.days.iter().map(|day| day.as_str()).collect::<Vec<_>>().join(", "))?;
        }
        Ok(())
    }
}

/// Which runs a human has to approve, and who may do so.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Approval {
    pub(super) required_for: RequiredFor,
    /// Who may approve: members of one of the groups, and the people.
    pub(super) approvers: Approvers,
    /// How many of them have to, 1 to 5.
    #[schemars(range(min = 1, max = 5), default = "one")]
    pub(super) quorum: u8,
    /// What an approval holds for.
    #[schemars(default)]
    pub(super) valid_for: ValidFor,
    /// How many exchanges may use one approval, 1 to 1000. Left out: any number while it holds.
    #[schemars(with = "u16", range(min = 1, max = 1000), default)]
    pub(super) uses: Option<u16>,
    /// What a request has to come with.
    #[schemars(length(min = 1, max = 2), default, extend("uniqueItems" = true))]
    pub(super) require: Vec<Demand>,
}

fn one() -> u8 {
    1
}

/// What a request for an approval has to come with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum Demand {
    /// Why it is made, in words.
    Reason,
    /// The ticket that it belongs to.
    Ticket,
}

impl Demand {
    /// Every demand.
    pub(super) const ALL: [Self; 2] = [Self::Reason, Self::Ticket];

    /// The word in policies, and the member of the request that it wants.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reason => "reason",
            Self::Ticket => "ticket",
        }
    }
}

/// The way in when the policy is closed: two different people let one request through, for an hour at most. Who,
/// what and where, the lifetime and the guardrails hold as ever.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct BreakGlass {
    /// Who may approve: two of them have to.
    pub(super) approvers: Approvers,
}

impl BreakGlass {
    /// How many different people it takes.
    pub const QUORUM: u8 = 2;
    /// How long such an approval holds at the most, and how long a credential under it lives.
    pub const LONGEST: SignedDuration = SignedDuration::from_hours(1);

    /// Who may approve.
    pub fn approvers(&self) -> &Approvers {
        &self.approvers
    }
}

impl Approval {
    /// How many approvers have to approve, 1 to 5.
    pub fn quorum(&self) -> u8 {
        self.quorum
    }

    /// Who may approve.
    pub fn approvers(&self) -> &Approvers {
        &self.approvers
    }

    /// What an approval holds for.
    pub fn valid_for(&self) -> ValidFor {
        self.valid_for
    }

    /// How many exchanges may use one approval; none: any number.
    pub fn uses(&self) -> Option<u16> {
        self.uses
    }

    /// What a request has to come with.
    pub fn require(&self) -> &[Demand] {
        &self.require
    }
}

/// The runs that need an approval: `always`, or those that match every key that is written. Unlike in `who`, a
/// run that does not say its type needs the approval: what is unknown is not let through.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(untagged)]
pub(super) enum RequiredFor {
    /// Every run.
    #[schemars(with = "AlwaysWord")]
    Always,
    /// The runs that match.
    Runs(RequiredRuns),
}

/// Runs that need an approval: those that match every key that is written.
#[derive(Debug, Clone, PartialEq, Eq, Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct RequiredRuns {
    /// Run types, such as manual.
    #[schemars(length(min = 1, max = 128), default, extend("uniqueItems" = true))]
    pub(super) run_types: Vec<Glob>,
    /// DAGs, by `dag_id`.
    #[schemars(length(min = 1, max = 128), default, extend("uniqueItems" = true))]
    pub(super) dags: Vec<Glob>,
    /// Tasks, by `task_id`.
    #[schemars(length(min = 1, max = 128), default, extend("uniqueItems" = true))]
    pub(super) tasks: Vec<Glob>,
}

/// The word `always`, for the schema.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[expect(dead_code, reason = "schemars describes the word through this type; no value of it exists")]
enum AlwaysWord {
    Always,
}

/// The people who may approve.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Approvers {
    /// Groups, each as `issuer/group`. The group's name alone does where Cortex has one issuer of people.
    #[schemars(length(min = 1, max = 128), default, extend("uniqueItems" = true))]
    #[schemars(example = ["staff/finance-admins"])]
    pub(super) groups: Vec<String>,
    /// Named people: the issuer's name, a slash and the `sub` that the issuer knows them by.
    #[schemars(with = "Vec<String>", length(min = 1, max = 128), default, extend("uniqueItems" = true))]
    #[schemars(example = ["staff/00u1abcd"])]
    pub(super) people: Vec<NamedPerson>,
    /// Whether they have to have signed in with more than one factor.
    #[schemars(default)]
    pub(super) mfa: bool,
}

impl Approvers {
    /// The groups whose members may approve.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().map(String::as_str)
    }

    /// The people who may approve by name, each as `issuer/subject`.
    pub fn people(&self) -> impl Iterator<Item = String> {
        self.people.iter().map(ToString::to_string)
    }

    /// Whether they have to have signed in with more than one factor.
    pub fn mfa(&self) -> bool {
        self.mfa
    }
}

impl fmt::Display for Approvers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups = self.groups().map(|group| format!("a member of {group}"));
        f.write_str(&groups.chain(self.people()).collect::<Vec<_>>().join(" or "))
    }
}

/// One person, by issuer and subject: an e-mail address would name nobody for certain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamedPerson {
    pub(super) issuer: IssuerName,
    pub(super) subject: String,
}

impl fmt::Display for NamedPerson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.issuer, self.subject)
    }
}

/// What an approval holds for. It never reaches further than the request that people saw: where the scope of
/// another task or run would be rendered differently, that is another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ValidFor {
    /// The task that asked, and its retries.
    #[default]
    Task,
    /// Every task of the DAG run that asked.
    Run,
    /// Every run of the DAG for a time after the approval.
    Window {
        /// How long, in seconds: 60 to 604,800.
        seconds: i64,
    },
}

impl ValidFor {
    /// The longest window.
    pub(super) const LONGEST: SignedDuration = SignedDuration::from_hours(7 * 24);
}

impl JsonSchema for ValidFor {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ValidFor".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "What an approval holds for: `task`, the task that asked and its retries; `run`, every \
                            task of the DAG run that asked; or a window, every run of the DAG for that long. Where \
                            the scope of another task or run is rendered differently, that is another request.",
            "default": "task",
            "anyOf": [
                { "type": "string", "enum": ["task", "run"] },
                {
                    "type": "object",
                    "properties": {
                        "window": {
                            "type": "string",
                            "description": "A number and a unit: s, m or h. From 60s to 168h.",
                            "pattern": "^[0-9]{1,5}[smh]$",
                            "examples": ["4h"],
                        },
                    },
                    "required": ["window"],
                    "additionalProperties": false,
                },
            ],
        })
    }
}
