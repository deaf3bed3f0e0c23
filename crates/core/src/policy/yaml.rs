//! YAML to a tree in which every node knows its place, so that faults far behind the parser still name a line.

use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};
use serde_saphyr::{DuplicateKeyPolicy, Location, MergeKeyPolicy, Options, Spanned};

use super::problem::{Position, Problems};

/// The longest document, in bytes.
pub(super) const MAX_BYTES: usize = 64 * 1024;
/// The deepest nesting of lists and mappings.
const MAX_DEPTH: usize = 16;
/// The most lists, mappings and scalars in one document.
const MAX_NODES: usize = 8192;
/// The largest integer that the canonical form (RFC 8785, section 3.2.2.3) tells from its neighbours.
const MAX_INTEGER: u64 = (1 << 53) - 1;

/// One node and its place.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) kind: Kind,
}

/// What a node is; exactly what JSON knows.
#[derive(Debug)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One key of a mapping and what it holds.
#[derive(Debug)]
pub(super) struct Entry {
    /// The place of the key: where a fault of the whole entry is shown.
    pub(super) at: Position,
    pub(super) key: String,
    pub(super) value: Node,
}

/// Parses one document. Duplicate keys are all reported; other faults of the syntax end the parse.
pub(super) fn parse(source: &str, problems: &mut Problems) -> Option<Node> {
    if source.len() > MAX_BYTES {
        let message = format!("the document has {} bytes; {MAX_BYTES} are allowed", source.len());
        problems.add(Position::START, message, "split it into several documents");
        return None;
    }
    match serde_saphyr::from_str_with_options::<Node>(source, options()) {
        Ok(node) => {
            duplicates(&node, problems);
            Some(node)
        }
        Err(error) => {
            let at = error.location().map_or(Position::START, Position::from);
            let remedy = format!(
                "write plain YAML: one document of at most {MAX_DEPTH} levels, without anchors, aliases, merge keys or tags"
            );
            problems.add(
                at,
                format!("this is not a document that can be read: {}", error.without_snippet()),
                remedy,
            );
            None
        }
    }
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 4 * MAX_NODES,
            max_anchors: 0,
            max_aliases: 0,
            max_merge_keys: 0,
            max_documents: 1,
            max_total_scalar_bytes: MAX_BYTES,
            max_total_comment_bytes: MAX_BYTES,
        },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        reject_unsupported_tags: true,
        strict_indentation: true,
        with_snippet: false,
    }
}

fn duplicates(node: &Node, problems: &mut Problems) {
    match &node.kind {
        Kind::Map(entries) => {
            let mut seen = HashMap::new();
            for entry in entries {
                if let Some(first) = seen.insert(entry.key.as_str(), entry.at) {
                    let message = format!("`{}` is written twice, first in line {}", entry.key, first.line);
                    problems.add(entry.at, message, "keep one of them");
                }
                duplicates(&entry.value, problems);
            }
        }
        Kind::List(items) => items.iter().for_each(|item| duplicates(item, problems)),
        Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) => {}
    }
}

impl Node {
    /// The same as JSON, without places.
    pub(super) fn to_json(&self) -> Value {
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Number(value) => Value::Number(value.clone()),
            Kind::Text(value) => Value::String(value.clone()),
            Kind::List(items) => items.iter().map(Self::to_json).collect(),
            Kind::Map(entries) => entries.iter().map(|e| (e.key.clone(), e.value.to_json())).collect(),
        }
    }

    /// What the node is, for a fault that expected something else.
    pub(super) fn noun(&self) -> &'static str {
        match self.kind {
            Kind::Null => "empty",
            Kind::Bool(_) => "a boolean",
            Kind::Number(_) => "a number",
            Kind::Text(_) => "text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
        }
    }

    /// The place that a JSON pointer (RFC 6901) into this node leads to, or of the last part of it that exists.
    pub(super) fn position(&self, start: Position, pointer: &str) -> Position {
        let (mut node, mut at) = (self, start);
        for token in pointer.split('/').skip(1) {
            let token = token.replace("~1", "/").replace("~0", "~");
            let next = match &node.kind {
                Kind::List(items) => {
                    token.parse().ok().and_then(|i: usize| items.get(i)).map(|item| (item, item.at))
                }
                Kind::Map(entries) => entries.iter().find(|e| e.key == token).map(|e| (&e.value, e.at)),
                _ => None,
            };
            let Some((found, place)) = next else { break };
            (node, at) = (found, place);
        }
        at
    }
}

impl From<Location> for Position {
    fn from(location: Location) -> Self {
        let place = |n: u64| usize::try_from(n).unwrap_or(1).max(1);
        Self { line: place(location.line()), column: place(location.column()) }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Kind>::deserialize(deserializer)?;
        Ok(Self { at: spanned.referenced.into(), kind: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KindVisitor)
    }
}

struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, a number, a boolean, a list or a mapping")
    }

    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_none<E>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Kind, E> {
        Ok(Kind::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Kind, E> {
        if value.unsigned_abs() > MAX_INTEGER {
            return Err(E::custom("the number is larger than 2^53 - 1, so it has to be text in quotes"));
        }
        Ok(Kind::Number(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Kind, E> {
        self.visit_i64(i64::try_from(value).unwrap_or(i64::MAX))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Kind, E> {
        Number::from_f64(value).map(Kind::Number).ok_or_else(|| E::custom("the number is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Kind, E> {
        Ok(Kind::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Kind, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Kind::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Kind, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = access.next_entry::<Spanned<String>, Node>()? {
            entries.push(Entry { at: key.referenced.into(), key: key.value, value });
        }
        Ok(Kind::Map(entries))
    }
}
