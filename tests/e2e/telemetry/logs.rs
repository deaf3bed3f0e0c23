//! The log of a process: JSON lines that carry the ids by which a request, a decision and an issuance are found.

use cortex_tests::served::Served;
use serde_json::Value;

use super::{PROGRAM, denied, issued};

/// The lines that say `message`.
fn lines(served: &Served, message: &str) -> Vec<Value> {
    let log = served.log();
    let lines = log.lines().filter(|line| line.starts_with('{'));
    let lines = lines.map(|line| serde_json::from_str::<Value>(line).expect("each line is JSON"));
    lines.filter(|line| line["fields"]["message"] == message).collect()
}

#[tokio::test]
async fn each_line_of_a_request_carries_its_id_and_those_of_what_it_decided_and_issued() {
    let mut served = Served::new(PROGRAM, |_| {}).await;
    served.start().await;
    let answer = issued(&served, "r1").await;
    let request_id = answer.headers["x-request-id"].to_str().unwrap();
    let ended = lines(&served, "an issuance ended");
    assert_eq!(ended.len(), 4, "one for each credential");
    for line in &ended {
        let fields = &line["fields"];
        let entry = &answer.body["credentials"][fields["provider"].as_str().unwrap()];
        assert_eq!(fields["issuance_id"], entry["issuance_id"], "{line}");
        assert!(fields["decision_id"].as_str().is_some_and(|id| !id.is_empty()), "{line}");
        assert_eq!((&fields["outcome"], &fields["policy"]), (&"issued".into(), &"first-steps".into()));
        assert_eq!(fields["request_id"], request_id, "{line}");
        let spans = line["spans"].as_array().expect("spans");
        let request = spans.iter().find(|span| span["name"] == "request").expect("the request's span");
        assert_eq!(
            (&request["request_id"], &request["route"]),
            (&request_id.into(), &"/v1/credentials".into())
        );
    }
    let answer = denied(&served).await;
    let line = lines(&served, "denied").pop().expect("a line");
    assert_eq!(line["fields"]["decision_id"], answer.body["decision_id"], "{line}");
    assert_eq!(line["fields"]["request_id"], answer.headers["x-request-id"].to_str().unwrap());
    assert_eq!(line["fields"]["code"], "no_match");
}
