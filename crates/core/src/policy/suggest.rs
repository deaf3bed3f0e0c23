//! A tighter policy out of what was used of one: what nobody used is left out, and a pattern becomes the names that
//! used it where that is safe to say.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use super::glob::Glob;
use super::problem::Problems;
use super::{Policy, Targets, yaml};
use crate::principal::Run;

/// The most names of one kind that are told apart.
const NAMES_MAX: usize = 10_000;
/// The most names that a pattern is narrowed to: a longer list would be no easier to read than the pattern.
const NARROW_MAX: usize = 20;
/// The keys of a document, in the order in which people write them.
const KEYS: [&str; 8] = ["name", "description", "who", "what", "where", "when", "approval", "break_glass"];

/// What a policy names that can be used or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// DAGs, under `who`.
    Dags,
    /// Tasks, under `who`.
    Tasks,
    /// Run types, under `who`.
    RunTypes,
    /// Targets, under `what`.
    Targets,
}

impl Part {
    const ALL: [Self; 4] = [Self::Dags, Self::Tasks, Self::RunTypes, Self::Targets];

    fn as_str(self) -> &'static str {
        match self {
            Self::Dags => "dags",
            Self::Tasks => "tasks",
            Self::RunTypes => "run_types",
            Self::Targets => "targets",
        }
    }
}

/// How often something was used, and when first and last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Use {
    /// How many credentials.
    pub count: u64,
    /// The first, within the time that was looked at.
    pub first: Timestamp,
    /// The last.
    pub last: Timestamp,
}

impl Use {
    fn add(&mut self, more: Self) {
        self.count += more.count;
        self.first = self.first.min(more.first);
        self.last = self.last.max(more.last);
    }
}

/// What was used of a policy: each name by itself, at most 10,000 of a kind.
#[derive(Debug, Default)]
pub struct Used {
    names: BTreeMap<Part, BTreeMap<String, Use>>,
    /// The parts of which there were more names.
    crowded: BTreeSet<Part>,
    credentials: u64,
}

impl Used {
    /// Counts one credential of `run` at `provider`.
    pub fn note(&mut self, run: &Run, provider: &str, at: Timestamp) {
        self.credentials += 1;
        let once = Use { count: 1, first: at, last: at };
        self.count(Part::Dags, run.dag_id.as_str(), once);
        self.count(Part::Tasks, run.task_id.as_str(), once);
        if let Some(run_type) = &run.run_type {
            self.count(Part::RunTypes, run_type.as_str(), once);
        }
        self.count(Part::Targets, provider, once);
    }

    /// Adds what was used besides.
    pub fn add(&mut self, more: Self) {
        self.credentials += more.credentials;
        self.crowded.extend(more.crowded);
        for (part, names) in more.names {
            for (name, uses) in names {
                self.count(part, &name, uses);
            }
        }
    }

    fn count(&mut self, part: Part, name: &str, uses: Use) {
        let names = self.names.entry(part).or_default();
        if let Some(known) = names.get_mut(name) {
            known.add(uses);
        } else if names.len() < NAMES_MAX {
            names.insert(name.to_owned(), uses);
        } else {
            self.crowded.insert(part);
        }
    }

    fn of(&self, part: Part) -> impl Iterator<Item = (&str, Use)> {
        self.names.get(&part).into_iter().flatten().map(|(name, uses)| (name.as_str(), *uses))
    }
}

/// What is known about the time that was looked at.
#[derive(Debug)]
pub struct Window<'a> {
    /// From when on.
    pub since: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// Every version that was in force within it. What one of them did not name may be too new to have been used.
    pub versions: &'a [Policy],
    /// Whether the policy was in force all the time and every record of it was read. If not, nothing is left out.
    pub whole: bool,
}

/// What becomes of one entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fate", rename_all = "snake_case")]
pub enum Fate {
    /// It stays.
    Kept,
    /// Nobody used it.
    LeftOut,
    /// A pattern: these names used it, and no new one came in the later half of the time.
    Narrowed {
        /// The names.
        to: Vec<String>,
    },
}

/// One entry of a policy, and what speaks for what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// What it names.
    pub part: Part,
    /// The entry as it is written.
    pub entry: String,
    /// How it was used; none if it was not.
    pub used: Option<Use>,
    /// What becomes of it.
    #[serde(flatten)]
    pub fate: Fate,
}

/// A tighter policy to start from. Nothing applies it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suggestion {
    /// How many credentials were issued under the policy.
    pub credentials: u64,
    /// Whether the document is tighter than the policy.
    pub tighter: bool,
    /// Every entry.
    pub evidence: Vec<Evidence>,
    /// The document, in YAML, with the evidence in comments.
    pub document: String,
}

impl Policy {
    /// A tighter policy by what was used of this one.
    pub fn tighten(&self, used: &Used, window: &Window<'_>, targets: &dyn Targets) -> Suggestion {
        let mut document = self.to_json();
        let mut evidence = Vec::new();
        for part in Part::ALL {
            let mut found = self.evidence(part, used, window);
            let tried = applied(&document, part, &found);
            if tried == document {
                evidence.append(&mut found);
            } else if Self::compile(&to_yaml(&tried), targets).is_ok() {
                document = tried;
                evidence.append(&mut found);
            } else {
                // Another part of the policy needs what would be left out.
                evidence.extend(found.into_iter().map(|one| Evidence { fate: Fate::Kept, ..one }));
            }
        }
        let tighter = evidence.iter().any(|one| one.fate != Fate::Kept);
        let text = format!("{}{}", self.comments(used, window, &evidence), to_yaml(&document));
        Suggestion { credentials: used.credentials, tighter, evidence, document: text }
    }

    /// The document as JSON.
    pub(super) fn to_json(&self) -> Value {
        yaml::parse(&self.source, &mut Problems::default()).map(|node| node.to_json()).unwrap_or_default()
    }

    fn evidence(&self, part: Part, used: &Used, window: &Window<'_>) -> Vec<Evidence> {
        let entries = self.entries(part);
        let mut found: Vec<_> = entries
            .iter()
            .map(|entry| {
                let users: Vec<_> = used.of(part).filter(|(name, _)| entry.covers(name)).collect();
                let fate = fate(part, entry, &users, used, window);
                let sum = users.into_iter().map(|(_, uses)| uses).reduce(|mut sum, uses| {
                    sum.add(uses);
                    sum
                });
                Evidence { part, entry: entry.text().to_owned(), used: sum, fate }
            })
            .collect();
        // A list of which nothing is left would match everything, or nothing at all.
        if found.iter().all(|one| one.fate == Fate::LeftOut) {
            for one in &mut found {
                one.fate = Fate::Kept;
            }
        }
        found
    }

    fn entries(&self, part: Part) -> Vec<Entry<'_>> {
        let who = &self.document.who;
        match part {
            Part::Dags => who.dags.iter().map(Entry::Pattern).collect(),
            Part::Tasks => who.tasks.iter().map(Entry::Pattern).collect(),
            Part::RunTypes => who.run_types.iter().map(Entry::Pattern).collect(),
            Part::Targets => self.targets().map(|(provider, _)| Entry::Target(provider)).collect(),
        }
    }

    fn comments(&self, used: &Used, window: &Window<'_>, evidence: &[Evidence]) -> String {
        let mut text = format!(
            "# Suggested from the record since {}: {} credentials under {}.\n\
             # Nothing has been applied. Look at it, then `cortex policy replay` and `cortex policy apply`.\n",
            day(window.since),
            used.credentials,
            self.name()
        );
        // Writing to a String cannot fail.
        if !window.whole {
            let _ = writeln!(
                text,
                "# Nothing is left out: the policy is newer than that, or not every record was read."
            );
        } else if used.credentials == 0 {
            let _ = writeln!(
                text,
                "# Nobody used it: `cortex policy retire {}` takes it out of force.",
                self.name()
            );
        }
        for part in Part::ALL {
            let of_part: Vec<_> = evidence.iter().filter(|one| one.part == part).collect();
            if of_part.is_empty() {
                continue;
            }
            let _ = writeln!(text, "# {}:", part.as_str());
            for one in of_part {
                let _ = writeln!(text, "#   {}", one.in_words());
            }
        }
        text
    }
}

impl Evidence {
    fn in_words(&self) -> String {
        let used = match self.used {
            None => "never used".to_owned(),
            Some(uses) => format!("used {} times, last on {}", uses.count, day(uses.last)),
        };
        match &self.fate {
            Fate::Kept if self.used.is_none() => format!("{}: {used}; kept", self.entry),
            Fate::Kept => format!("{}: {used}", self.entry),
            Fate::LeftOut => format!("{}: {used}; left out", self.entry),
            Fate::Narrowed { to } => format!("{}: {used}; narrowed to {}", self.entry, to.join(", ")),
        }
    }
}

/// What becomes of an entry that `users` used.
fn fate(part: Part, entry: &Entry, users: &[(&str, Use)], used: &Used, window: &Window<'_>) -> Fate {
    let text = entry.text();
    let known = |version: &Policy| version.entries(part).iter().any(|other| other.text() == text);
    if !window.whole
        || used.credentials == 0
        || used.crowded.contains(&part)
        || !window.versions.iter().all(known)
    {
        return Fate::Kept;
    }
    if users.is_empty() {
        return Fate::LeftOut;
    }
    if entry.is_exact() || users.len() > NARROW_MAX {
        return Fate::Kept;
    }
    let half = SignedDuration::from_secs(window.until.duration_since(window.since).as_secs() / 2);
    let settled = window.since.checked_add(half).unwrap_or(window.until);
    if users.iter().any(|(_, uses)| uses.first > settled) {
        return Fate::Kept;
    }
    Fate::Narrowed { to: users.iter().map(|(name, _)| (*name).to_owned()).collect() }
}

/// One thing that a policy names.
enum Entry<'a> {
    Pattern(&'a Glob),
    Target(&'a str),
}

impl Entry<'_> {
    fn text(&self) -> &str {
        match self {
            Self::Pattern(glob) => glob.as_str(),
            Self::Target(provider) => provider,
        }
    }

    fn is_exact(&self) -> bool {
        match self {
            Self::Pattern(glob) => glob.is_exact(),
            Self::Target(_) => true,
        }
    }

    fn covers(&self, name: &str) -> bool {
        match self {
            Self::Pattern(glob) => glob.matches(name),
            Self::Target(provider) => *provider == name,
        }
    }
}

/// `document` with what is left out of one part, and what is narrowed.
fn applied(document: &Value, part: Part, evidence: &[Evidence]) -> Value {
    let mut document = document.clone();
    match part {
        Part::Targets => {
            if let Some(what) = document.get_mut("what").and_then(Value::as_object_mut) {
                what.retain(|name, _| {
                    !evidence.iter().any(|one| one.entry == *name && one.fate == Fate::LeftOut)
                });
            }
        }
        Part::Dags | Part::Tasks | Part::RunTypes => {
            if let Some(list) = document.get_mut("who").and_then(|who| who.get_mut(part.as_str())) {
                *list = entries_left(evidence).into_iter().map(Value::String).collect();
            }
        }
    }
    document
}

/// The entries that remain, each once, in their order.
fn entries_left(evidence: &[Evidence]) -> Vec<String> {
    let mut left = Vec::new();
    for one in evidence {
        let names = match &one.fate {
            Fate::Kept => std::slice::from_ref(&one.entry),
            Fate::Narrowed { to } => to.as_slice(),
            Fate::LeftOut => &[],
        };
        for name in names {
            if !left.contains(name) {
                left.push(name.clone());
            }
        }
    }
    left
}

/// A document as YAML, its keys in the order in which people write them.
fn to_yaml(document: &Value) -> String {
    struct Document<'a>(&'a Map<String, Value>);

    impl Serialize for Document<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut map = serializer.serialize_map(None)?;
            for (key, value) in KEYS.iter().filter_map(|key| self.0.get_key_value(*key)) {
                map.serialize_entry(key, value)?;
            }
            map.end()
        }
    }

    let empty = Map::new();
    serde_saphyr::to_string(&Document(document.as_object().unwrap_or(&empty))).unwrap_or_default()
}

fn day(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}
