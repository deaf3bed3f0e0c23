//! What is streamed, read by programs that nobody here wrote.

use cortex_server::streams::StreamFormat;
use cortex_tests::counterparts::{Answer, siem as reader};
use serde_json::{Value, json};

use super::{THROUGH, file, siem, something_happens, streamed, until};
use crate::grants::by_hand;

/// What a person writes into a request to mislead whoever reads the event.
const HOSTILE: &str = "late\nCEF:0|Evil|x| suser=admin|\\ = \u{202e}";

/// The lines of a stream of an issuance, a denial and a request with hostile words, and what the reader made of them.
async fn read_by(format: StreamFormat, mode: &str) -> (Vec<String>, Vec<Value>) {
    let (_folder, file, to) = file();
    let world = streamed(siem(format, to)).await;
    something_happens(&world, "r1").await;
    let ask = json!({"policy": "first-steps", "reason": HOSTILE});
    let waiting = world.ask(&world.token(&by_hand("m1")), ask).await;
    assert_eq!(waiting.body["error"], "authorization_pending", "{waiting:?}");
    until(&world, "the end", THROUGH).await;
    let text = std::fs::read_to_string(&file).unwrap();
    let answer: Answer = reader(&["--format", mode], &text).await;
    let events = answer.succeeded()["events"].as_array().unwrap().clone();
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    assert_eq!(events.len(), lines.len());
    (lines, events)
}

fn of_kind<'a>(events: &'a [Value], pointer: &str, kind: &str) -> &'a Value {
    let mut fits = events.iter().filter(|event| event.pointer(pointer).and_then(Value::as_str) == Some(kind));
    fits.next().unwrap_or_else(|| panic!("no {kind} among {events:?}"))
}

#[tokio::test]
async fn a_cef_parser_reads_every_event_and_is_not_misled() {
    let (lines, events) = read_by(StreamFormat::Cef, "cef").await;
    let denial = of_kind(&events, "/DeviceEventClassID", "denial");
    assert_eq!(denial["outcome"], "failure", "{denial}");
    assert!(denial["suser"].as_str().unwrap().starts_with("run:prod:stranger:"), "{denial}");
    assert_eq!(denial["policy"], "first-steps", "{denial}");
    assert_eq!(denial["DeviceSeverity"], "4", "{denial}");
    let asked = of_kind(&events, "/DeviceEventClassID", "grant.requested");
    assert_eq!(
        asked["reason"].as_str().unwrap(),
        "late\\nCEF:0|Evil|x| suser\\=admin|\\\\ \\= \u{202e}",
        "{asked}"
    );
    assert!(asked["suser"].as_str().unwrap().starts_with("run:prod:hello_cortex:"), "{asked}");
    let intent = of_kind(&events, "/DeviceEventClassID", "issuance.intent");
    assert!(intent["target"].is_string() && intent["run"] == "hello_cortex/r1/publish_mart", "{intent}");
    for (index, (line, event)) in lines.iter().zip(&events).enumerate() {
        assert!(line.starts_with("CEF:0|Cortex|Cortex|"), "{line}");
        assert_eq!(event["logIndex"], index.to_string(), "{line}");
        assert!(event["leafHash"].is_string(), "{line}");
    }
}

#[tokio::test]
async fn the_ocsf_models_take_every_event() {
    let (lines, _) = read_by(StreamFormat::Ocsf, "ocsf").await;
    let events: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    for event in &events {
        let (class, activity) =
            (event["class_uid"].as_u64().unwrap(), event["activity_id"].as_u64().unwrap());
        assert_eq!(event["type_uid"].as_u64(), Some(class * 100 + activity), "{event}");
        assert_eq!(event["category_uid"].as_u64(), Some(class / 1_000), "{event}");
        // What the classes require beside the base event, by the schema's own files for 1.3.0.
        let required: &[&str] = match class {
            3_002 => &["user", "service"],
            3_003 => &["user", "session", "privileges"],
            3_004 => &["entity"],
            0 => &[],
            other => panic!("{other} is no class of ours"),
        };
        assert!(required.iter().all(|name| !event[name].is_null()), "{event}");
        assert!(event["unmapped"]["log"]["leaf_hash"].is_string(), "{event}");
    }
    let code = "/metadata/event_code";
    let denial = of_kind(&events, code, "denial");
    assert_eq!((&denial["class_uid"], &denial["status_id"]), (&json!(3_003), &json!(2)), "{denial}");
    assert!(denial["user"]["uid"].as_str().unwrap().starts_with("run:prod:stranger:"), "{denial}");
    assert_eq!(of_kind(&events, code, "policy.applied")["entity"]["type"], "policy");
}

#[tokio::test]
async fn the_cloudevents_sdk_reads_every_event() {
    let (_, events) = read_by(StreamFormat::CloudEvents, "cloudevents").await;
    let denial = of_kind(&events, "/type", "cortex.denial");
    assert_eq!(denial["data"]["kind"], "denial", "{denial}");
    assert!(denial["leafhash"].is_string() && denial["logindex"].is_string(), "{denial}");
    let asked = of_kind(&events, "/type", "cortex.grant.requested");
    assert_eq!(asked["data"]["reason"], HOSTILE, "{asked}");
    assert_eq!(asked["subject"], asked["data"]["grant_id"], "{asked}");
}
