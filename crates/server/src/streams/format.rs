//! How a record is written: one line for each, or one body for all of them.

use serde_json::{Map, Value, json};

use super::config::StreamFormat;
use super::event::Event;
use super::{cef, ocsf};

/// What a format knows of the Cortex that writes.
#[derive(Debug, Clone, Copy)]
pub(super) struct From<'a> {
    /// Where people reach it.
    pub(super) public_url: &'a str,
}

impl From<'_> {
    /// One event in one line, without its end.
    fn line(self, format: StreamFormat, event: &Event<'_>) -> String {
        match format {
            StreamFormat::Jsonl => jsonl(event),
            StreamFormat::Cef => cef::event(event),
            StreamFormat::Ocsf => ocsf::event(event, self.public_url).to_string(),
            StreamFormat::CloudEvents => self.cloud_event(event).to_string(),
        }
    }

    /// All of them, each in a line of its own.
    pub(super) fn lines(self, format: StreamFormat, events: &[Event<'_>]) -> Vec<u8> {
        events
            .iter()
            .flat_map(|event| [self.line(format, event), "\n".to_owned()])
            .collect::<String>()
            .into_bytes()
    }

    /// All of them as the body of a POST, and what it is.
    pub(super) fn body(self, format: StreamFormat, events: &[Event<'_>]) -> (Vec<u8>, &'static str) {
        match format {
            StreamFormat::CloudEvents => {
                let batch: Vec<Value> = events.iter().map(|event| self.cloud_event(event)).collect();
                (Value::Array(batch).to_string().into_bytes(), "application/cloudevents-batch+json")
            }
            StreamFormat::Jsonl | StreamFormat::Ocsf => (self.lines(format, events), "application/jsonl"),
            StreamFormat::Cef => (self.lines(format, events), "text/plain; charset=utf-8"),
        }
    }

    /// `CloudEvents` 1.0, JSON format. `sequence` is its Sequence extension: the index, as text that sorts.
    fn cloud_event(self, event: &Event<'_>) -> Value {
        let mut out = json!({
            "specversion": "1.0",
            "id": event.id(),
            "source": self.public_url,
            "type": format!("cortex.{}", event.kind),
            "time": event.at.to_string(),
            "datacontenttype": "application/json",
            "logorigin": event.leaf.origin,
            "logindex": event.leaf.index.to_string(),
            "leafhash": event.leaf.hash.to_string(),
            "sequence": format!("{:020}", event.leaf.index),
            "data": event.record(),
        });
        // An attribute that is there has a text.
        if let (Value::Object(fields), Some(about)) = (&mut out, event.about()) {
            fields.insert("subject".to_owned(), json!(about));
        }
        out
    }
}

/// Where an event is in the log, for whoever wants to check it there.
pub(super) fn place(event: &Event<'_>) -> Map<String, Value> {
    let leaf = event.leaf;
    let facts = [
        ("origin", json!(leaf.origin)),
        ("shard", json!(leaf.shard)),
        ("index", json!(leaf.index)),
        ("leaf_hash", json!(leaf.hash.to_string())),
    ];
    facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The record's own bytes, beside the seal and the place: who has the line can compute the leaf's hash. Where it has
/// commitments, the record with names in their place is before it.
fn jsonl(event: &Event<'_>) -> String {
    let mut log = place(event);
    log.insert("seal".to_owned(), json!(event.leaf.seal));
    let record = String::from_utf8_lossy(&event.leaf.record);
    let log = Value::Object(log);
    if event.shown == event.leaf.record {
        return format!("{{\"log\":{log},\"record\":{record}}}");
    }
    let shown = String::from_utf8_lossy(event.shown);
    format!("{{\"log\":{log},\"shown\":{shown},\"record\":{record}}}")
}
