//! Streams: every record, in the order of the log, whatever dies meanwhile.

mod formats;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cortex_server::Config;
use cortex_server::streams::{Destination, StreamConfig, StreamFormat};
use cortex_tests::served::Served;
use cortex_tests::world::{TestWorld, finance_run, first_run};
use jiff::SignedDuration;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::notifications::{SECRET, kept, verify};
use crate::replicas::second;

/// Everything on record has been streamed.
const THROUGH: &str =
    "SELECT (SELECT count(*) FROM record) = (SELECT next FROM stream_cursor WHERE name = 'siem')";

/// The headers and the body of each POST.
type Posts = Vec<(HeaderMap, Vec<u8>)>;

/// What somebody's collector was sent.
#[derive(Clone, Default)]
struct Collector {
    arrived: Arc<Mutex<Posts>>,
    down: Arc<Mutex<bool>>,
}

async fn collect(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) -> StatusCode {
    if *collector.down.lock().unwrap() {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    collector.arrived.lock().unwrap().push((headers, body.to_vec()));
    StatusCode::OK
}

impl Collector {
    async fn start() -> (Self, Destination) {
        let collector = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/events", listener.local_addr().unwrap());
        let router = Router::new().fallback(collect).with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (collector, url.try_into().unwrap())
    }

    fn arrived(&self) -> Posts {
        self.arrived.lock().unwrap().clone()
    }

    /// Every event of every batch.
    fn events(&self) -> Vec<Value> {
        let batches = self.arrived();
        batches.iter().flat_map(|(_, body)| serde_json::from_slice::<Vec<Value>>(body).unwrap()).collect()
    }
}

fn siem(format: StreamFormat, to: Destination) -> StreamConfig {
    StreamConfig { secret_file: Some(kept("secret", SECRET)), ..StreamConfig::new("siem", format, to) }
}

async fn streamed(stream: StreamConfig) -> TestWorld {
    TestWorld::start_with(move |config: &mut Config| config.streams = vec![stream]).await
}

async fn until(world: &TestWorld, what: &str, query: &'static str) {
    let until = Instant::now() + Duration::from_mins(1);
    while !sqlx::query_scalar::<_, bool>(query).fetch_one(world.pool()).await.unwrap() {
        assert!(Instant::now() < until, "{what} never came");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// An issuance of four credentials and a denial.
async fn something_happens(world: &TestWorld, run: &str) {
    assert_eq!(world.ask_for(&first_run(run), "first-steps").await.status, StatusCode::OK);
    let stranger = cortex_sandbox::RunClaims::scheduled("stranger", run, "steal");
    assert_eq!(world.ask_for(&stranger, "first-steps").await.status, StatusCode::BAD_REQUEST);
}

fn lines(file: &Path) -> Vec<String> {
    std::fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect()
}

fn indices(events: &[Value], pointer: &str) -> Vec<u64> {
    let number = |value: &Value| match value {
        Value::String(text) => text.parse().unwrap(),
        other => other.as_u64().unwrap(),
    };
    events.iter().map(|event| number(event.pointer(pointer).unwrap())).collect()
}

fn file() -> (TempDir, PathBuf, Destination) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("issuance.jsonl");
    let to = Destination::File(file.clone());
    (folder, file, to)
}

#[tokio::test]
async fn a_file_has_every_record_in_the_log_s_order_and_each_line_proves_its_leaf() {
    let (_folder, file, to) = file();
    let world = streamed(siem(StreamFormat::Jsonl, to)).await;
    something_happens(&world, "r1").await;
    until(&world, "the end", THROUGH).await;
    let lines = lines(&file);
    let events: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(indices(&events, "/log/index"), (0..events.len() as u64).collect::<Vec<_>>());
    for (line, event) in lines.iter().zip(&events) {
        // The line holds the record's own bytes: with the seal, they are the leaf (RFC 6962, section 2.1).
        let record = line.split_once("\"record\":").unwrap().1.strip_suffix('}').unwrap();
        let leaf =
            [b"\0", record.as_bytes(), b"\n", event["log"]["seal"].as_str().unwrap().as_bytes()].concat();
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &leaf);
        assert_eq!(event["log"]["leaf_hash"], STANDARD.encode(hash), "{line}");
    }
    let kinds: BTreeSet<&str> = events.iter().filter_map(|event| event["record"]["kind"].as_str()).collect();
    for kind in ["issuance.intent", "issuance.outcome", "denial", "policy.applied", "log.shard_opened"] {
        assert!(kinds.contains(kind), "{kinds:?}");
    }
    let on_record: Vec<uuid::Uuid> =
        sqlx::query_scalar("SELECT id FROM record ORDER BY id").fetch_all(world.pool()).await.unwrap();
    let mut told: Vec<uuid::Uuid> =
        events.iter().map(|event| event["record"]["id"].as_str().unwrap().parse().unwrap()).collect();
    told.sort();
    assert_eq!(told, on_record);
}

#[tokio::test]
async fn a_collector_that_is_down_loses_nothing_and_what_arrives_is_signed_and_in_order() {
    let (collector, to) = Collector::start().await;
    *collector.down.lock().unwrap() = true;
    let world = streamed(siem(StreamFormat::CloudEvents, to)).await;
    something_happens(&world, "r1").await;
    let stuck = "SELECT EXISTS (SELECT FROM stream_cursor WHERE failures = 1 AND next = 0)";
    until(&world, "the failure", stuck).await;
    let dave = world.person("dave", &["auditors"]);
    let said = world.as_person(Method::GET, "/v1/streams", &dave, None).await;
    assert_eq!(said.body["streams"][0]["last_error"], "it answered HTTP 503", "{said:?}");
    assert!(said.body["streams"][0]["behind"].as_i64().unwrap() > 0, "{said:?}");
    let alice = world.person("alice", &["finance-admins"]);
    let refused = world.as_person(Method::GET, "/v1/streams", &alice, None).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);

    *collector.down.lock().unwrap() = false;
    something_happens(&world, "r2").await;
    world.clock.advance(SignedDuration::from_secs(6));
    until(&world, "the end", THROUGH).await;
    let events = collector.events();
    assert_eq!(indices(&events, "/logindex"), (0..events.len() as u64).collect::<Vec<_>>());
    for (headers, body) in collector.arrived() {
        assert_eq!(headers["content-type"], "application/cloudevents-batch+json");
        assert_eq!(headers["cortex-stream"], "siem");
        verify(headers["cortex-signature"].to_str().unwrap(), &body, world.now().as_second());
    }
    let said = world.as_person(Method::GET, "/v1/streams", &dave, None).await;
    assert_eq!(said.body["streams"][0]["behind"], json!(0), "{said:?}");
    assert_eq!(said.body["streams"][0]["last_error"], Value::Null, "{said:?}");
    let metrics = world.http.get(world.url("/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("cortex_stream_behind_records"), "{metrics}");
}

#[tokio::test]
async fn two_replicas_send_one_stream_in_order() {
    let (collector, to) = Collector::start().await;
    let world = streamed(siem(StreamFormat::CloudEvents, to)).await;
    let second = second(&world).await;
    for run in 0..10 {
        something_happens(&world, &format!("r{run}")).await;
    }
    until(&world, "the end", THROUGH).await;
    let events = collector.events();
    assert_eq!(indices(&events, "/logindex"), (0..events.len() as u64).collect::<Vec<_>>());
    second.shut_down().await;
}

#[tokio::test]
async fn only_the_kinds_that_are_wanted_go_and_the_stream_moves_past_the_rest() {
    let (collector, to) = Collector::start().await;
    let kinds = ["denial".to_owned()].into();
    let world = streamed(StreamConfig { kinds, ..siem(StreamFormat::CloudEvents, to) }).await;
    something_happens(&world, "r1").await;
    assert_eq!(world.ask_for(&finance_run("r1"), "finance-data-publish").await.status, StatusCode::OK);
    until(&world, "the end", THROUGH).await;
    let types: Vec<Value> = collector.events().into_iter().map(|event| event["type"].clone()).collect();
    assert_eq!(types, ["cortex.denial"]);
}

#[tokio::test]
async fn a_replica_that_is_killed_leaves_no_gap_and_no_broken_line() {
    let (_folder, file, to) = file();
    let mut served = Served::new(env!("CARGO_BIN_EXE_cortex-under-test"), |config| {
        config.streams = vec![StreamConfig { timeout_s: 1, ..siem(StreamFormat::Jsonl, to) }];
    })
    .await;
    for run in 0..3 {
        served.start().await;
        let token = served.sandbox.run_token(&first_run(&format!("r{run}"))).unwrap();
        assert_eq!(served.ask(&token, &["api", "aws"]).await.status, StatusCode::OK);
        served.until("something", "SELECT next > 0 FROM stream_cursor WHERE name = 'siem'").await;
        served.kill().await;
        // As if it had died in the middle of a write, and of its claim.
        let torn = [std::fs::read(&file).unwrap(), b"{\"log\":{\"origin\":\"torn".to_vec()].concat();
        std::fs::write(&file, torn).unwrap();
        sqlx::query("UPDATE stream_cursor SET due_at = now()").execute(&served.pool).await.unwrap();
    }
    served.start().await;
    served.until("the end", THROUGH).await;
    let events: Vec<Value> =
        lines(&file).iter().map(|line| serde_json::from_str(line).expect(line)).collect();
    let seen: BTreeSet<u64> = indices(&events, "/log/index").into_iter().collect();
    let total: i64 = sqlx::query_scalar("SELECT count(*) FROM record").fetch_one(&served.pool).await.unwrap();
    assert_eq!(seen.len(), usize::try_from(total).unwrap());
    assert_eq!(seen.last().copied(), u64::try_from(total - 1).ok(), "none is missing");
}

#[tokio::test]
async fn standard_output_has_the_events_and_nothing_else() {
    let mut served = Served::new(env!("CARGO_BIN_EXE_cortex-under-test"), |config| {
        config.streams = vec![siem(StreamFormat::Ocsf, Destination::Stdout)];
    })
    .await;
    served.start().await;
    served.until("the end", THROUGH).await;
    let log = served.log();
    let events: Vec<Value> = log
        .lines()
        .filter(|line| line.contains("\"class_uid\":"))
        .map(|line| serde_json::from_str(line).expect(line))
        .collect();
    assert!(
        !events.is_empty()
            && events.len() as u64 == 1 + indices(&events, "/metadata/sequence")[events.len() - 1]
    );
}

#[test]
fn a_stream_that_cannot_be_says_why() {
    let config = |stream: &str| {
        let text = format!("[[streams]]\n{stream}");
        Config::parse("cortex.toml", &text, std::iter::empty()).map(drop).map_err(|error| error.to_string())
    };
    for (stream, said) in [
        ("name = 'a'\nformat = 'cef'\nto = 'relative/file'", "is neither stdout, nor the absolute path"),
        ("name = 'a'\nformat = 'cef'\nto = 'http://siem.example/'", "http is for loopback only"),
        ("name = 'a'\nformat = 'leef'\nto = 'stdout'", "unknown variant"),
        ("name = 'A b'\nformat = 'cef'\nto = 'stdout'", "is no name"),
        ("name = 'a'\nformat = 'cef'\nto = 'https://siem.example/'", "has no secret_file"),
        ("name = 'a'\nformat = 'cef'\nto = 'stdout'\nkinds = ['dinner']", "wants \"dinner\""),
        ("name = 'a'\nformat = 'cef'\nto = 'stdout'\ntimeout_s = 61", "timeout_s"),
        (
            "name = 'a'\nformat = 'cef'\nto = 'stdout'\n[[streams]]\nname = 'a'\nformat = 'cef'\nto = 'stdout'",
            "is there twice",
        ),
    ] {
        let error = config(stream).expect_err(stream);
        assert!(error.contains(said), "{stream}: {error}");
    }
    config("name = 'a'\nformat = 'cloudevents'\nto = '/var/log/cortex.json'").unwrap();
}
