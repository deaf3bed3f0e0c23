//! What a receiver reads. It is made of what is on record, which can hold no secret.

use cortex_core::Principal;
use serde_json::{Map, Value, json};

use super::config::Format;

/// The most of one value that a chat shows, in characters.
const SHOWN_MAX: usize = 300;

/// What everybody who is told of a record is told.
pub(super) struct Message<'a> {
    /// The notification's id.
    pub(super) id: String,
    /// The record's kind.
    pub(super) event: &'a str,
    /// The record.
    pub(super) leaf: Map<String, Value>,
    /// Where Cortex is.
    pub(super) public_url: &'a str,
}

impl Message<'_> {
    /// The body of the POST.
    pub(super) fn body(&self, format: Format) -> Vec<u8> {
        let body = match format {
            Format::Json => self.event(),
            Format::Slack => self.slack(),
            Format::Teams => self.teams(),
        };
        body.to_string().into_bytes()
    }

    /// The names of `CloudEvents` 1.0, section 3.
    fn event(&self) -> Value {
        let envelope = ["v", "id", "at", "replica", "build", "kind"];
        let data: Map<String, Value> = self
            .leaf
            .iter()
            .filter(|(key, _)| !envelope.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), plain(value)))
            .collect();
        json!({
            "specversion": "1.0",
            "id": self.id,
            "source": self.public_url,
            "type": format!("cortex.{}", self.event),
            "subject": self.text("grant_id"),
            "time": self.leaf.get("at"),
            "datacontenttype": "application/json",
            "link": self.link(),
            "data": data,
        })
    }

    fn slack(&self) -> Value {
        let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let field = |(name, value): (&str, String)| json!({"type": "mrkdwn", "text": format!("*{name}*\n{}", escape(&value))});
        let fields: Vec<Value> = self.facts().into_iter().take(10).map(field).collect();
        let mut blocks = vec![json!({
            "type": "header",
            "text": {"type": "plain_text", "text": shown(&self.title(), 140)},
        })];
        if !fields.is_empty() {
            blocks.push(json!({"type": "section", "fields": fields}));
        }
        let link = format!("<{}|Open in Cortex>", self.link());
        blocks.push(json!({"type": "section", "text": {"type": "mrkdwn", "text": link}}));
        json!({"text": escape(&self.title()), "blocks": blocks})
    }

    fn teams(&self) -> Value {
        let facts: Vec<Value> = self
            .facts()
            .into_iter()
            .map(|(name, value)| json!({"title": name, "value": literal(&value)}))
            .collect();
        let title = literal(&self.title());
        let card = json!({
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "type": "AdaptiveCard",
            "version": "1.4",
            "body": [
                {"type": "TextBlock", "text": title, "size": "Medium", "weight": "Bolder", "wrap": true},
                {"type": "FactSet", "facts": facts},
            ],
            "actions": [{"type": "Action.OpenUrl", "title": "Open in Cortex", "url": self.link()}],
        });
        let attachment = json!({
            "contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": null, "content": card,
        });
        json!({"type": "message", "attachments": [attachment]})
    }

    /// Where a person looks at it.
    fn link(&self) -> String {
        match self.text("grant_id") {
            Some(id) => format!("{}/console/grants/{id}", self.public_url),
            None if self.event.starts_with("revocation.") => {
                format!("{}/console/revocations", self.public_url)
            }
            None if self.event.starts_with("freeze.") => format!("{}/console/freezes", self.public_url),
            None => format!("{}/console", self.public_url),
        }
    }

    fn title(&self) -> String {
        let policy = self.text("policy").unwrap_or_default();
        let status = self.text("status").unwrap_or_default();
        let title = match self.event {
            "grant.requested" => format!("Approval wanted: {policy}"),
            "preapproval.made" => format!("Approval of scheduled runs wanted: {policy}"),
            "grant.decided" if status == "requested" => {
                format!("Approved, and more approvals wanted: {policy}")
            }
            "grant.decided" => format!("{}: {policy}", capital(&status)),
            "grant.expired" | "grant.withdrawn" | "grant.voided" => format!("Approval {status}: {policy}"),
            "preapproval.ended" => format!("Approval of scheduled runs {status}: {policy}"),
            "freeze.set" => "Frozen".to_owned(),
            "freeze.lifted" => "Freeze lifted".to_owned(),
            "revocation.requested" => "Revocation requested".to_owned(),
            "revocation.failing" => "A cloud does not confirm a revocation".to_owned(),
            "revocation.settled" if self.text("state").is_some_and(|state| state != "enforced") => {
                "Not revocable: only expiry ends it".to_owned()
            }
            "revocation.settled" => "Revoked".to_owned(),
            other => other.to_owned(),
        };
        if self.is_break_glass() { format!("BREAK GLASS. {title}") } else { title }
    }

    fn is_break_glass(&self) -> bool {
        self.leaf.get("break_glass").and_then(Value::as_bool).unwrap_or_default()
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let of = |name: &str| {
            self.text(name)
                .or_else(|| self.within("request", name))
                .or_else(|| self.within("principal", name))
        };
        [
            ("DAG", of("dag_id")),
            ("Run", of("run_id")),
            ("Task", of("task_id")),
            ("Started by", self.within("request", "triggering_user")),
            ("Reason", self.text("reason")),
            ("Ticket", self.text("ticket")),
            ("By", self.leaf.get("by").and_then(person)),
            ("Comment", self.text("comment")),
            ("Because", self.text("because").or_else(|| self.text("why"))),
            ("Until", self.within("request", "until")),
            ("What", self.leaf.get("scope").map(ToString::to_string)),
            ("Provider", self.text("provider")),
            ("Target", self.text("target")),
            ("Error", self.text("error")),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, shown(&value?, SHOWN_MAX))))
        .filter(|(_, value)| !value.is_empty())
        .collect()
    }

    fn text(&self, name: &str) -> Option<String> {
        self.leaf.get(name).and_then(Value::as_str).map(str::to_owned)
    }

    fn within(&self, outer: &str, name: &str) -> Option<String> {
        self.leaf.get(outer)?.get(name)?.as_str().map(str::to_owned)
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + chars.as_str())
}

/// Who it is, without their address and groups: those are nobody's business outside.
pub(crate) fn person(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        _ => serde_json::from_value::<Principal>(value.clone()).ok().map(|principal| principal.subject()),
    }
}

fn plain(value: &Value) -> Value {
    let is_principal = value.get("kind").is_some() && value.get("issuer").is_some();
    is_principal.then(|| person(value)).flatten().map_or_else(|| value.clone(), Value::String)
}

/// At most `most` characters, and none that hides text or turns it around.
fn shown(text: &str, most: usize) -> String {
    let hides = |c: char| {
        c.is_control()
            || matches!(c, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}')
    };
    let text: String = text.chars().map(|c| if hides(c) { ' ' } else { c }).collect();
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// Text that an adaptive card's Markdown shows as it is.
fn literal(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if r"\`*_{}[]()<>#+-!|~".contains(c) {
            out.push('\\');
        }
        out.push(c);
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(leaf: &Value) -> Message<'static> {
        Message {
            id: "n1".into(),
            event: "grant.requested",
            leaf: leaf.as_object().unwrap().clone(),
            public_url: "https://cortex.example",
        }
    }

    fn hostile() -> Value {
        json!({
            "id": "r1", "at": "2026-11-23T02:00:00Z", "replica": "c1", "kind": "grant.requested",
            "grant_id": "g1", "policy": "first-steps", "break_glass": true,
            "reason": "<!channel> <https://evil.example|click> [click](https://evil.example) \u{202e}txt & more",
            "principal": {"kind": "run", "issuer": "prod", "dag_id": "d", "run_id": "r", "task_id": "t",
                          "map_index": null, "try_number": 1, "attestation": "issuer"},
            "request": {"dag_id": "d", "run_id": "r", "triggering_user": "alice"},
        })
    }

    #[test]
    fn an_event_names_its_record_and_its_grant_and_no_envelope() {
        let event: Value = serde_json::from_slice(&message(&hostile()).body(Format::Json)).unwrap();
        assert_eq!(event["type"], "cortex.grant.requested");
        assert_eq!(event["link"], "https://cortex.example/console/grants/g1");
        assert_eq!(event["data"]["principal"], "run:prod:d:r:t:-:1");
        assert!(event["data"].get("replica").is_none(), "{event}");
    }

    #[test]
    fn what_a_requester_wrote_is_text_in_slack_and_in_teams() {
        let slack = String::from_utf8(message(&hostile()).body(Format::Slack)).unwrap();
        assert!(slack.contains("BREAK GLASS. Approval wanted: first-steps"), "{slack}");
        assert!(!slack.contains("<!channel>") && !slack.contains("<https://evil"), "{slack}");
        assert!(slack.contains("&lt;!channel&gt;") && slack.contains("&amp; more"), "{slack}");
        assert!(slack.contains("<https://cortex.example/console/grants/g1|Open in Cortex>"), "{slack}");
        let teams: Value = serde_json::from_slice(&message(&hostile()).body(Format::Teams)).unwrap();
        let card = &teams["attachments"][0]["content"];
        let facts = card["body"][1]["facts"].to_string();
        assert!(facts.contains(r"\\[click\\]\\(https"), "{facts}");
        assert!(!slack.contains('\u{202e}') && !facts.contains('\u{202e}'));
        assert_eq!(card["actions"][0]["url"], "https://cortex.example/console/grants/g1");
    }
}
