//! Reading a mapping key by key: what is missing, what is unknown and what has the wrong type is collected,
//! and reading goes on.

use std::collections::HashMap;

use super::problem::{Fault, Position, Problems};
use super::yaml::{Entry, Kind, Node};

/// The most entries of one list.
pub(super) const MAX_ITEMS: usize = 128;

/// A mapping that is being read.
pub(super) struct Fields<'n> {
    at: Position,
    path: &'static str,
    entries: &'n [Entry],
    asked: Vec<&'static str>,
}

/// One field: its key's place and its value.
#[derive(Clone, Copy)]
pub(super) struct Field<'n> {
    pub(super) at: Position,
    pub(super) key: &'static str,
    pub(super) node: &'n Node,
}

impl<'n> Fields<'n> {
    /// Opens `node`, which `path` names in faults; `at` is where a missing key is shown.
    pub(super) fn of(
        node: &'n Node,
        at: Position,
        path: &'static str,
        problems: &mut Problems,
    ) -> Option<Self> {
        match &node.kind {
            Kind::Map(entries) if !entries.is_empty() => Some(Self { at, path, entries, asked: Vec::new() }),
            Kind::Map(_) | Kind::Null => {
                problems.add(at, format!("{path} is empty"), format!("fill {path} in, or leave it out"));
                None
            }
            _ => {
                let message = format!("{path} is {}, and it has to be a mapping", node.noun());
                problems.add(at, message, format!("write `key: value` lines under {path}"));
                None
            }
        }
    }

    /// The field `key`, if it is written.
    pub(super) fn get(&mut self, key: &'static str) -> Option<Field<'n>> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        Some(Field { at: entry.at, key, node: &entry.value })
    }

    /// The field `key`, whose absence is a fault.
    pub(super) fn require(&mut self, key: &'static str, problems: &mut Problems) -> Option<Field<'n>> {
        let field = self.get(key);
        if field.is_none() {
            problems.add(self.at, format!("{} has no `{key}`", self.path), format!("add `{key}:`"));
        }
        field
    }

    /// Ends the reading: a key that was never asked for is unknown.
    pub(super) fn finish(self, problems: &mut Problems) {
        for entry in self.entries.iter().filter(|entry| !self.asked.contains(&entry.key.as_str())) {
            let message = format!("{} has no key `{}`", self.path, shortened(&entry.key));
            problems.add(entry.at, message, nearest(&entry.key, &self.asked));
        }
    }
}

impl<'n> Field<'n> {
    /// The field's text.
    pub(super) fn text(self, problems: &mut Problems) -> Option<&'n str> {
        self.item(self.node, problems)
    }

    /// The field's text, parsed.
    pub(super) fn parse<T>(
        self,
        parse: impl FnOnce(&str) -> Result<T, Fault>,
        problems: &mut Problems,
    ) -> Option<T> {
        let text = self.text(problems)?;
        problems.keep(self.at, parse(text))
    }

    /// The field's list of texts, each parsed. A list is never empty and has no entry twice.
    pub(super) fn list<T>(
        self,
        parse: impl Fn(&str) -> Result<T, Fault>,
        problems: &mut Problems,
    ) -> Option<Vec<T>> {
        let key = self.key;
        let Kind::List(items) = &self.node.kind else {
            let message = format!("`{key}` is {}, and it has to be a list", self.node.noun());
            problems.add(self.at, message, format!("write a list: `{key}: [first, second]`"));
            return None;
        };
        if items.is_empty() {
            problems.add(
                self.at,
                format!("`{key}` is an empty list"),
                format!("fill it in, or leave `{key}` out"),
            );
        }
        if items.len() > MAX_ITEMS {
            let message = format!("`{key}` has {} entries; {MAX_ITEMS} are allowed", items.len());
            problems.add(self.at, message, "use a `*` pattern, or split the document into several");
            return None;
        }
        let mut seen = HashMap::new();
        let mut out = Vec::with_capacity(items.len());
        for item in items {
            let Some(text) = self.item(item, problems) else {
                continue;
            };
            if let Some(first) = seen.insert(text, item.at) {
                let message = format!("{text:?} is twice in `{key}`, first in line {}", first.line);
                problems.add(item.at, message, "keep one of them");
                continue;
            }
            out.extend(problems.keep(item.at, parse(text)));
        }
        (out.len() == items.len() && !out.is_empty()).then_some(out)
    }

    fn item(self, node: &'n Node, problems: &mut Problems) -> Option<&'n str> {
        if let Kind::Text(text) = &node.kind {
            return Some(text);
        }
        let (message, remedy) = match node.kind {
            Kind::Null => (format!("`{}` is empty", self.key), "write a value, or leave the key out"),
            Kind::Bool(_) | Kind::Number(_) => {
                (format!("`{}` is {}, and it has to be text", self.key, node.noun()), "put it in quotes")
            }
            _ => {
                (format!("`{}` is {}, and it has to be text", self.key, node.noun()), "write one value here")
            }
        };
        problems.add(if node.at == self.node.at { self.at } else { node.at }, message, remedy);
        None
    }
}

/// A field that is true or false.
pub(super) fn boolean(field: Field<'_>, problems: &mut Problems) -> Option<bool> {
    if let Kind::Bool(value) = field.node.kind {
        return Some(value);
    }
    problems.add(field.at, format!("`{}` is {}", field.key, field.node.noun()), "write true or false");
    None
}

/// What to write instead of `word`: the nearest of `known`, or all of them.
pub(super) fn nearest(word: &str, known: &[&str]) -> String {
    // A ratio is quadratic in the length; nobody misspells a key by hundreds of characters.
    let close = if word.len() <= 64 { similar::get_close_matches(word, known, 1, 0.6) } else { Vec::new() };
    match close.first() {
        Some(close) => format!("did you mean `{close}`?"),
        None if known.is_empty() => "leave it out".to_owned(),
        None => format!("write one of {}", known.join(", ")),
    }
}

/// At most 64 characters of a text that an author wrote, for a message.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(64) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
