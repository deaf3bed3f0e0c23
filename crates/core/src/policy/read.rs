//! From the tree to the document: every value parsed, every fault collected.

use ipnet::IpNet;
use jiff::SignedDuration;
use serde_json::Value;

use super::Targets;
use super::document::{
    Approval, Approvers, BreakGlass, Demand, Document, NamedPerson, RequiredFor, RequiredRuns, Target,
    ValidFor, When, Where, Who, issuer_alone,
};
use super::fields::{Field, Fields, boolean, nearest, shortened};
use super::glob::Glob;
use super::problem::{Fault, Position, Problems};
use super::time::{Day, Hours, MaxTtl, Zone};
use super::yaml::{Kind, Node};
use crate::ids::{InvalidId, IssuerName, PolicyName};
use crate::principal::Attestation;

const MAX_DESCRIPTION: usize = 500;
const MAX_QUORUM: u8 = 5;
const MAX_USES: u16 = 1_000;
/// The longest group or subject, in bytes: the limit of `sub` in `OpenID` Connect Core 1.0, section 2.
const MAX_SUBJECT: usize = 255;

/// Reads a whole document. What could be read is worth nothing if there are problems.
pub(super) fn document(node: &Node, targets: &dyn Targets, problems: &mut Problems) -> Option<Document> {
    let mut fields = Fields::of(node, Position::START, "the policy", problems)?;
    let name = fields.require("name", problems).and_then(|f| f.parse(name::<PolicyName>, problems));
    let description = fields.get("description").map(|f| f.parse(description, problems));
    let who = fields.require("who", problems).and_then(|f| who(f, problems));
    let what = fields.require("what", problems).and_then(|f| what(f, targets, problems));
    let r#where = fields.get("where").map(|f| r#where(f, problems));
    let when = fields.get("when").map_or_else(|| Some(When::default()), |f| when(f, problems));
    let approval = fields.get("approval").map(|f| approval(f, problems));
    let break_glass = fields.get("break_glass").map(|f| break_glass(f, problems));
    fields.finish(problems);
    Some(Document {
        name: name?,
        description: written(description)?,
        who: who?,
        what: what?,
        r#where: written(r#where)?,
        when: when?,
        approval: written(approval)?,
        break_glass: written(break_glass)?,
    })
}

/// A field that may be left out: written and faulty is not the same as left out.
#[expect(
    clippy::option_option,
    reason = "left out, written and read, and written and faulty are three cases"
)]
fn written<T>(field: Option<Option<T>>) -> Option<Option<T>> {
    match field {
        Some(None) => None,
        Some(value) => Some(value),
        None => Some(None),
    }
}

fn who(field: Field<'_>, problems: &mut Problems) -> Option<Who> {
    let mut fields = Fields::of(field.node, field.at, "`who`", problems)?;
    let airflow = fields.require("airflow", problems).and_then(|f| f.parse(name::<IssuerName>, problems));
    let dags = fields.require("dags", problems).and_then(|f| f.list(Glob::parse_anchored, problems));
    let mut globs =
        |key, parse: fn(&str) -> Result<Glob, Fault>| optional_list(&mut fields, key, parse, problems);
    let tasks = globs("tasks", Glob::parse);
    let run_types = globs("run_types", Glob::parse_run_type);
    let teams = globs("teams", Glob::parse);
    let bundles = globs("bundles", Glob::parse);
    let tags = optional_list(&mut fields, "tags", tag, problems);
    let attestation =
        fields.get("attestation").map_or_else(|| Some(issuer_alone()), |f| f.list(attestation, problems));
    fields.finish(problems);
    Some(Who {
        airflow: airflow?,
        dags: dags?,
        tasks: tasks?,
        run_types: run_types?,
        teams: teams?,
        bundles: bundles?,
        tags: tags?,
        attestation: attestation?,
    })
}

fn what(field: Field<'_>, targets: &dyn Targets, problems: &mut Problems) -> Option<Vec<Target>> {
    // Opened for the faults of an empty or mistyped value only: the keys are the providers' names.
    Fields::of(field.node, field.at, "`what`", problems)?;
    let Kind::Map(entries) = &field.node.kind else {
        return None;
    };
    let known = targets.names();
    let mut out = Vec::with_capacity(entries.len());
    for entry in entries {
        if !known.contains(&entry.key.as_str()) {
            let message = format!("no provider is called {:?}", shortened(&entry.key));
            problems.add(entry.at, message, nearest(&entry.key, &known));
            continue;
        }
        let value = entry.value.to_json();
        match targets.check(&entry.key, &value) {
            Ok(resource) => {
                out.push(Target { provider: entry.key.as_str().into(), value, resource: resource.into() });
            }
            Err(faults) => faults.into_iter().for_each(|fault| {
                let at = entry.value.position(entry.at, &fault.pointer);
                problems.add(at, fault.message, fault.remedy);
            }),
        }
    }
    (out.len() == entries.len()).then_some(out)
}

fn r#where(field: Field<'_>, problems: &mut Problems) -> Option<Where> {
    let mut fields = Fields::of(field.node, field.at, "`where`", problems)?;
    let networks = fields.require("networks", problems).and_then(|f| f.list(network, problems));
    fields.finish(problems);
    Some(Where { networks: networks? })
}

fn when(field: Field<'_>, problems: &mut Problems) -> Option<When> {
    let mut fields = Fields::of(field.node, field.at, "`when`", problems)?;
    let hours = fields.get("hours").map(|f| f.parse(Hours::parse, problems));
    let zone_field = fields.get("timezone");
    let timezone = zone_field.map_or_else(|| Some(Zone::default()), |f| f.parse(Zone::parse, problems));
    let days = optional_list(&mut fields, "days", Day::parse, problems);
    let max_ttl =
        fields.get("max_ttl").map_or_else(|| Some(MaxTtl::default()), |f| f.parse(MaxTtl::parse, problems));
    fields.finish(problems);
    if let (Some(zone), None, true) = (zone_field, hours, days.as_ref().is_some_and(Vec::is_empty)) {
        problems.add(
            zone.at,
            "`timezone` without `hours` or `days` says nothing",
            "add `hours`, or remove it",
        );
    }
    Some(When { hours: written(hours)?, timezone: timezone?, days: days?, max_ttl: max_ttl? })
}

fn approval(field: Field<'_>, problems: &mut Problems) -> Option<Approval> {
    let mut fields = Fields::of(field.node, field.at, "`approval`", problems)?;
    let required_for = fields.require("required_for", problems).and_then(|f| required_for(f, problems));
    let approvers = fields.require("approvers", problems).and_then(|f| approvers(f, problems));
    let quorum_field = fields.get("quorum");
    let quorum = quorum_field.map_or(Some(1), |f| number(f, MAX_QUORUM, problems));
    let valid_for =
        fields.get("valid_for").map_or_else(|| Some(ValidFor::default()), |f| valid_for(f, problems));
    let uses = fields.get("uses").map(|f| number(f, MAX_USES, problems));
    let require = optional_list(&mut fields, "require", demand, problems);
    fields.finish(problems);
    let (approvers, quorum) = (approvers?, quorum?);
    if let Some(field) = quorum_field {
        enough(&approvers, quorum, field, problems);
    }
    Some(Approval {
        required_for: required_for?,
        approvers,
        quorum,
        valid_for: valid_for?,
        uses: written(uses)?,
        require: require?,
    })
}

fn break_glass(field: Field<'_>, problems: &mut Problems) -> Option<BreakGlass> {
    let mut fields = Fields::of(field.node, field.at, "`break_glass`", problems)?;
    let approvers_field = fields.require("approvers", problems)?;
    let approvers = approvers(approvers_field, problems);
    fields.finish(problems);
    let approvers = approvers?;
    enough(&approvers, BreakGlass::QUORUM, approvers_field, problems);
    Some(BreakGlass { approvers })
}

/// A quorum that the named people can never reach is a fault.
fn enough(approvers: &Approvers, quorum: u8, field: Field<'_>, problems: &mut Problems) {
    if approvers.groups.is_empty() && usize::from(quorum) > approvers.people.len() {
        let people = approvers.people.len();
        let message = match field.key {
            "quorum" => format!("`quorum` wants {quorum} approvers and {people} are named"),
            _ => format!("it takes {quorum} people and {people} are named"),
        };
        problems.add(field.at, message, "name more people, add a group, or lower the quorum");
    }
}

fn required_for(field: Field<'_>, problems: &mut Problems) -> Option<RequiredFor> {
    if matches!(&field.node.kind, Kind::Text(text) if text == "always") {
        return Some(RequiredFor::Always);
    }
    if !matches!(field.node.kind, Kind::Map(_)) {
        let message = format!("`required_for` is {}, which names no runs", field.node.noun());
        problems.add(field.at, message, "write `always`, or a mapping such as {run_types: [manual]}");
        return None;
    }
    let mut fields = Fields::of(field.node, field.at, "`required_for`", problems)?;
    let run_types = optional_list(&mut fields, "run_types", Glob::parse_run_type, problems);
    let dags = optional_list(&mut fields, "dags", Glob::parse, problems);
    let tasks = optional_list(&mut fields, "tasks", Glob::parse, problems);
    fields.finish(problems);
    let runs = RequiredRuns { run_types: run_types?, dags: dags?, tasks: tasks? };
    // A mapping of unknown keys alone must not become a condition that every run meets, or none.
    (runs != RequiredRuns::default()).then_some(RequiredFor::Runs(runs))
}

fn approvers(field: Field<'_>, problems: &mut Problems) -> Option<Approvers> {
    let mut fields = Fields::of(field.node, field.at, "`approvers`", problems)?;
    let groups = optional_list(&mut fields, "groups", group, problems);
    let people = optional_list(&mut fields, "people", person, problems);
    let mfa_field = fields.get("mfa");
    let mfa = mfa_field.map_or(Some(false), |f| boolean(f, problems));
    fields.finish(problems);
    let (groups, people, mfa) = (groups?, people?, mfa?);
    if groups.is_empty() && people.is_empty() {
        if mfa_field.is_some() {
            problems.add(field.at, "`approvers` names nobody", "add `groups` or `people`");
        }
        return None;
    }
    Some(Approvers { groups, people, mfa })
}

/// A list that may be left out, and then is empty.
fn optional_list<T>(
    fields: &mut Fields<'_>,
    key: &'static str,
    parse: impl Fn(&str) -> Result<T, Fault>,
    problems: &mut Problems,
) -> Option<Vec<T>> {
    fields.get(key).map_or_else(|| Some(Vec::new()), |field| field.list(parse, problems))
}

/// A name of this product. The shortened form of a text that is too long is no name either.
fn name<T: std::str::FromStr<Err = InvalidId>>(text: &str) -> Result<T, Fault> {
    shortened(text).parse().map_err(|InvalidId(why)| {
        let (message, remedy) = why.rsplit_once(": ").unwrap_or((&why, "write another"));
        Fault::new(message, remedy)
    })
}

fn description(text: &str) -> Result<String, Fault> {
    let text = text.trim_end_matches('\n');
    // Bidirectional controls can make a sentence read as its opposite.
    let deceiving = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if text.is_empty() || text.chars().count() > MAX_DESCRIPTION {
        return Err(Fault::new(
            format!("`description` has {} characters", text.chars().count()),
            format!("write 1 to {MAX_DESCRIPTION}"),
        ));
    }
    if text.chars().any(|c| (c.is_control() && c != '\n') || deceiving(c)) {
        return Err(Fault::new("`description` has control characters", "remove them"));
    }
    Ok(text.to_owned())
}

fn tag(text: &str) -> Result<String, Fault> {
    if text.contains('*') {
        return Err(Fault::new(
            format!("{:?} is a pattern, and tags are matched exactly", shortened(text)),
            "write each tag",
        ));
    }
    printable(text, "a tag")
}

fn group(text: &str) -> Result<String, Fault> {
    if text.contains('*') {
        return Err(Fault::new(
            format!("{:?} is a pattern, and groups are matched exactly", shortened(text)),
            "write each group",
        ));
    }
    printable(text, "a group")
}

fn person(text: &str) -> Result<NamedPerson, Fault> {
    let (issuer, subject) = text.split_once('/').ok_or_else(|| {
        Fault::new(
            format!("{:?} names nobody for certain", shortened(text)),
            "write the issuer's name, a slash and the person's `sub`, such as staff/00u1abcd",
        )
    })?;
    Ok(NamedPerson { issuer: name(issuer)?, subject: printable(subject, "a subject")? })
}

/// 1 to 255 printable ASCII characters, without a space at either end.
fn printable(text: &str, what: &str) -> Result<String, Fault> {
    let ok = !text.is_empty()
        && text.len() <= MAX_SUBJECT
        && text.bytes().all(|b| b == b' ' || b.is_ascii_graphic())
        && text.trim() == text;
    if ok {
        return Ok(text.to_owned());
    }
    Err(Fault::new(
        format!("{:?} is not {what}", shortened(text)),
        format!("write 1 to {MAX_SUBJECT} printable ASCII characters without a space at either end"),
    ))
}

pub(super) fn attestation(text: &str) -> Result<Attestation, Fault> {
    let known = [Attestation::Issuer, Attestation::Kubernetes, Attestation::VerifiedClaim];
    known.into_iter().find(|attestation| attestation.as_str() == text).ok_or_else(|| {
        let words = known.map(Attestation::as_str);
        Fault::new(format!("{:?} is no attestation", shortened(text)), nearest(text, &words))
    })
}

fn network(text: &str) -> Result<IpNet, Fault> {
    let shown = shortened(text);
    let net: IpNet = text.parse().map_err(|_| {
        let remedy = match text.parse::<std::net::IpAddr>() {
            Ok(address) => format!("write {}", IpNet::from(address)),
            Err(_) => "write an address and a prefix length, such as 10.0.0.0/8".to_owned(),
        };
        Fault::new(format!("{shown:?} is no network"), remedy)
    })?;
    if net.trunc() != net {
        return Err(Fault::new(
            format!("{shown:?} has bits set behind its prefix"),
            format!("write {}", net.trunc()),
        ));
    }
    // A leading zero is decimal to some programs and octal to others.
    if net.to_string() != text {
        return Err(Fault::new(
            format!("{shown:?} is not how the network is spelled"),
            format!("write {net}"),
        ));
    }
    if net.prefix_len() == 0 {
        return Err(Fault::new(
            format!("{shown:?} is every address"),
            "leave `where` out, or name your networks",
        ));
    }
    if matches!(net, IpNet::V6(v6) if v6.addr().to_ipv4_mapped().is_some()) {
        return Err(Fault::new(
            format!("{shown:?} never matches: a mapped address is compared as IPv4"),
            "write the IPv4 network",
        ));
    }
    Ok(net)
}

/// A whole number from 1 to `most`.
fn number<T: Copy + TryFrom<u64> + PartialOrd + From<u8> + std::fmt::Display>(
    field: Field<'_>,
    most: T,
    problems: &mut Problems,
) -> Option<T> {
    let number = match &field.node.kind {
        Kind::Number(number) => number.as_u64().and_then(|n| T::try_from(n).ok()),
        _ => None,
    };
    let number = number.filter(|n| *n >= T::from(1) && *n <= most);
    if number.is_none() {
        let what = if field.key == "quorum" { "a number of approvers" } else { "a number of exchanges" };
        problems.add(field.at, format!("`{}` is not {what}", field.key), format!("write 1 to {most}"));
    }
    number
}

fn valid_for(field: Field<'_>, problems: &mut Problems) -> Option<ValidFor> {
    if matches!(field.node.kind, Kind::Map(_)) {
        let mut fields = Fields::of(field.node, field.at, "`valid_for`", problems)?;
        let window = fields.require("window", problems).and_then(|f| f.parse(window, problems));
        fields.finish(problems);
        return window;
    }
    field.parse(
        |text| match text {
            "task" => Ok(ValidFor::Task),
            "run" => Ok(ValidFor::Run),
            _ => Err(Fault::new(
                format!("`valid_for` does not know {:?}", shortened(text)),
                "write task, run or {window: 4h}",
            )),
        },
        problems,
    )
}

fn window(text: &str) -> Result<ValidFor, Fault> {
    let window = super::time::duration(text)?;
    if window < SignedDuration::from_mins(1) || window > ValidFor::LONGEST {
        return Err(Fault::new(format!("{text:?} is out of bounds"), "write a window from 60s to 168h"));
    }
    Ok(ValidFor::Window { seconds: window.as_secs() })
}

fn demand(text: &str) -> Result<Demand, Fault> {
    Demand::ALL.into_iter().find(|demand| demand.as_str() == text).ok_or_else(|| {
        let words = Demand::ALL.map(Demand::as_str);
        Fault::new(format!("{:?} cannot be required", shortened(text)), nearest(text, &words))
    })
}

/// The canonical bytes of a document (RFC 8785), which its digest is taken of: comments, white space and the
/// order of keys do not matter.
pub(super) fn canonical(node: &Node) -> Result<Vec<u8>, Fault> {
    let value: Value = node.to_json();
    serde_json_canonicalizer::to_vec(&value).map_err(|error| {
        Fault::new(
            format!("the document has no canonical form: {error}"),
            "use text, whole numbers and booleans",
        )
    })
}
