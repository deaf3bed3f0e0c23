//! The session policy: a typed tree, never text. Serde writes it; nothing that a run brings is ever parsed.

use std::collections::BTreeMap;

use cortex_core::Run;
use cortex_core::template::{BadValue, Template};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::arn::is_word;
use crate::target::{Fault, Problems, bounded_template, escape};

/// AWS's limit on a session policy's plain text, in characters (`AssumeRole`, `Policy`).
pub(crate) const MAX_PLAIN: usize = 2048;

/// How many entries a list may have; [`MAX_PLAIN`] is reached sooner.
const MAX_ENTRIES: usize = 64;

/// One statement of what a run may do.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Allow {
    /// The actions, such as `s3:PutObject` or `s3:Get*`.
    actions: Vec<String>,
    /// The resources' ARNs. `{dag_id}`, `{run_id}`, `{task_id}`, `{try_number}` and `{team}` stand for the
    /// run's own.
    resources: Vec<String>,
    /// Conditions that have to hold too: operator, condition key, values.
    #[serde(default)]
    conditions: BTreeMap<Operator, BTreeMap<String, Vec<String>>>,
}

/// The condition operators that a policy may use. Those that also hold where the key is absent (`…IfExists`,
/// `Null`, negations) are left out: a condition narrows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
pub(crate) enum Operator {
    /// Equal, letter by letter.
    StringEquals,
    /// Equal, where `*` and `?` are wildcards.
    StringLike,
    /// An equal ARN, where each part may have wildcards.
    ArnLike,
    /// An address in a network.
    IpAddress,
    /// `true` or `false`.
    Bool,
    /// An equal number.
    NumericEquals,
    /// A number that is not larger.
    NumericLessThanEquals,
    /// A number that is not smaller.
    NumericGreaterThanEquals,
    /// An earlier time.
    DateLessThan,
    /// A later time.
    DateGreaterThan,
}

/// The rules of a target, parsed: what [`SessionPolicy`] is rendered from.
#[derive(Debug, Clone)]
pub(crate) struct Rules(Vec<Rule>);

#[derive(Debug, Clone)]
struct Rule {
    actions: Vec<String>,
    resources: Vec<Resource>,
    conditions: BTreeMap<Operator, BTreeMap<String, Vec<Template>>>,
}

#[derive(Debug, Clone)]
struct Resource {
    template: Template,
    allowed: fn(u8) -> bool,
}

/// A rendered session policy.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SessionPolicy {
    version: &'static str,
    statement: Vec<Statement>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Statement {
    effect: &'static str,
    action: Vec<String>,
    resource: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    condition: BTreeMap<Operator, BTreeMap<String, Vec<String>>>,
}

impl SessionPolicy {
    fn of(statement: Vec<Statement>) -> Self {
        Self { version: "2012-10-17", statement }
    }

    /// The text that STS is given: no white space.
    pub(crate) fn text(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

impl Rules {
    /// Parses a target's `allow`; every fault is noted in `problems`. ARNs have to be of `partition`.
    pub(crate) fn parse(allow: &[Allow], partition: Option<&str>, problems: &mut Problems) -> Self {
        problems.count("/allow", allow.len(), MAX_ENTRIES);
        let rules = allow.iter().take(MAX_ENTRIES).enumerate();
        let rules = Self(rules.map(|(at, allow)| Rule::parse(allow, partition, at, problems)).collect());
        let static_size = rules.without_values().text().map_or(usize::MAX, |text| text.len());
        if static_size > MAX_PLAIN {
            problems.add("/allow", too_large(static_size));
        }
        rules
    }

    /// The policy for one run.
    pub(crate) fn render(&self, run: &Run) -> Result<SessionPolicy, BadValue> {
        Ok(SessionPolicy::of(self.0.iter().map(|rule| rule.render(run)).collect::<Result<_, _>>()?))
    }

    /// The policy with every hole empty: the least that it can be.
    fn without_values(&self) -> SessionPolicy {
        let bare = |template: &Template| template.literals().collect::<String>();
        let statement = |rule: &Rule| Statement {
            effect: "Allow",
            action: rule.actions.clone(),
            resource: rule.resources.iter().map(|resource| bare(&resource.template)).collect(),
            condition: map_values(&rule.conditions, |template| Ok::<_, BadValue>(bare(template)))
                .unwrap_or_default(),
        };
        SessionPolicy::of(self.0.iter().map(statement).collect())
    }
}

/// The fault of a policy of `size` characters.
pub(crate) fn too_large(size: usize) -> Fault {
    Fault::new(
        format!("the session policy has {size} characters; AWS takes at most {MAX_PLAIN}"),
        "name fewer actions and resources, use a trailing * in actions, or move what does not depend on the run into the role's own policy",
    )
}

impl Rule {
    fn parse(allow: &Allow, partition: Option<&str>, at: usize, problems: &mut Problems) -> Self {
        let pointer = format!("/allow/{at}");
        problems.count(&format!("{pointer}/actions"), allow.actions.len(), MAX_ENTRIES);
        problems.count(&format!("{pointer}/resources"), allow.resources.len(), MAX_ENTRIES);
        let actions = allow.actions.iter().take(MAX_ENTRIES).enumerate().filter_map(|(n, action)| {
            problems.take(&format!("{pointer}/actions/{n}"), check_action(action).map(|()| action.clone()))
        });
        let actions = actions.collect();
        let resources = allow.resources.iter().take(MAX_ENTRIES).enumerate().filter_map(|(n, resource)| {
            problems.take(&format!("{pointer}/resources/{n}"), Resource::parse(resource, partition))
        });
        let resources = resources.collect();
        let conditions = parse_conditions(&allow.conditions, &format!("{pointer}/conditions"), problems);
        Self { actions, resources, conditions }
    }

    fn render(&self, run: &Run) -> Result<Statement, BadValue> {
        let resource = self.resources.iter().map(|r| r.template.fill(run, r.allowed));
        Ok(Statement {
            effect: "Allow",
            action: self.actions.clone(),
            resource: resource.collect::<Result<_, _>>()?,
            condition: map_values(&self.conditions, |template| template.fill(run, plain))?,
        })
    }
}

fn map_values<T, U, E>(
    conditions: &BTreeMap<Operator, BTreeMap<String, Vec<T>>>,
    map: impl Fn(&T) -> Result<U, E>,
) -> Result<BTreeMap<Operator, BTreeMap<String, Vec<U>>>, E> {
    let values = |values: &Vec<T>| values.iter().map(&map).collect::<Result<Vec<_>, _>>();
    let keys = |keys: &BTreeMap<String, Vec<T>>| {
        keys.iter().map(|(key, all)| Ok((key.clone(), values(all)?))).collect::<Result<_, _>>()
    };
    conditions.iter().map(|(operator, all)| Ok((*operator, keys(all)?))).collect()
}

fn parse_conditions(
    conditions: &BTreeMap<Operator, BTreeMap<String, Vec<String>>>,
    pointer: &str,
    problems: &mut Problems,
) -> BTreeMap<Operator, BTreeMap<String, Vec<Template>>> {
    let mut parsed = BTreeMap::new();
    for (operator, keys) in conditions {
        let pointer = format!("{pointer}/{operator:?}");
        problems.count(&pointer, keys.len(), MAX_ENTRIES);
        let mut parsed_keys = BTreeMap::new();
        for (key, values) in keys.iter().take(MAX_ENTRIES) {
            let pointer = format!("{pointer}/{}", escape(key));
            problems.take(&pointer, check_condition_key(key));
            problems.count(&pointer, values.len(), MAX_ENTRIES);
            let values = values.iter().take(MAX_ENTRIES).enumerate().filter_map(|(n, value)| {
                let template = check_text(value).and_then(|()| bounded_template(value));
                problems.take(&format!("{pointer}/{n}"), template)
            });
            let values: Vec<_> = values.collect();
            parsed_keys.insert(key.clone(), values);
        }
        parsed.insert(*operator, parsed_keys);
    }
    parsed
}

/// `service:Action`, with at most a `*` at its end.
fn check_action(action: &str) -> Result<(), Fault> {
    let bad = |why: &str, remedy: &str| Err(Fault::new(format!("{action:?} {why}"), remedy));
    let example = "write a service and an action, such as s3:PutObject or s3:Get*";
    let Some((service, name)) = action.split_once(':') else {
        return bad("is not service:Action", example);
    };
    let service_ok = !service.is_empty()
        && service.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let stem = name.strip_suffix('*').unwrap_or(name);
    if !service_ok
        || name.is_empty()
        || !stem.bytes().all(|b| b.is_ascii_alphanumeric())
        || action.len() > 128
    {
        return bad("is not service:Action with at most a * at its end", example);
    }
    if matches!(service, "iam" | "sts") && name.ends_with('*') {
        return bad(
            "would let a run change or change into identities",
            "name each action of this service in full",
        );
    }
    Ok(())
}

/// `service:Key`, such as `s3:prefix` or `aws:PrincipalTag/team`.
fn check_condition_key(key: &str) -> Result<(), Fault> {
    let service = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    let name = |b: u8| is_word(b) || b"-./:=@".contains(&b);
    let ok = key.len() <= 256
        && key.split_once(':').is_some_and(|(left, right)| {
            !left.is_empty() && left.bytes().all(service) && !right.is_empty() && right.bytes().all(name)
        });
    if ok {
        return Ok(());
    }
    Err(Fault::new(
        format!("{key:?} is not a condition key"),
        "write one such as s3:prefix or aws:SourceVpce",
    ))
}

impl Resource {
    fn parse(text: &str, partition: Option<&str>) -> Result<Self, Fault> {
        let bad = |why: &str, remedy: &str| Fault::new(format!("{text:?} {why}"), remedy);
        let example = "write an ARN, such as arn:aws:s3:::finance-mart/{dag_id}/{run_id}/*";
        if text == "*" {
            return Err(bad("is every resource that the role reaches", example));
        }
        check_text(text)?;
        let template = bounded_template(text)?;
        let parts: Vec<_> = text.splitn(6, ':').collect();
        let ["arn", arn_partition, service, region, account, resource] = parts.as_slice() else {
            return Err(bad("is not an ARN", example));
        };
        if partition.is_some_and(|partition| partition != *arn_partition) {
            return Err(bad("is not in the role's partition", "write the partition of the role"));
        }
        let service_ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if service.is_empty() || !service.bytes().all(service_ok) || resource.is_empty() {
            return Err(bad("does not name a service and a resource of it", example));
        }
        if [*region, *account].iter().any(|part| part.contains(['{', '}'])) {
            return Err(bad(
                "has a hole before the resource's own name",
                "write the region and the account out",
            ));
        }
        let allowed = if *service == "s3" { plain as fn(u8) -> bool } else { no_colon };
        Ok(Self { template, allowed })
    }
}

/// What the author of a policy may write: printable ASCII without what would need escaping somewhere.
fn check_text(text: &str) -> Result<(), Fault> {
    let allowed = |b: u8| b.is_ascii_graphic() && !b"\"'\\$<>".contains(&b);
    if !text.is_empty() && text.len() <= MAX_PLAIN && text.bytes().all(allowed) {
        return Ok(());
    }
    Err(Fault::new(
        format!(
            "{text:?} is empty, too long, or has white space, quotes, `$`, `\\` or characters outside ASCII"
        ),
        "write plain ASCII",
    ))
}

/// What a run's value may have in any part of a session policy: no wildcard, no policy variable, no quote, no
/// separator.
pub(crate) fn plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"*?${}\"'`/,\\<>".contains(&byte)
}

/// The same where a colon separates the parts of a resource's name; only the keys of S3 have it as a letter.
fn no_colon(byte: u8) -> bool {
    plain(byte) && byte != b':'
}
