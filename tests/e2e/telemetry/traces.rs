//! Traces: one span for each step of the path, as a collector receives them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use cortex_tests::served::Served;
use cortex_tests::world::{answer, first_run};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use reqwest::StatusCode;
use tempfile::NamedTempFile;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use super::{ALL, PROGRAM, token};

const KEY: &str = "the-key-of-the-collector";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// A collector that keeps what it is sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

async fn take(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) -> StatusCode {
    if headers.get("x-api-key").is_none_or(|key| key != KEY)
        || headers["content-type"] != "application/x-protobuf"
    {
        return StatusCode::FORBIDDEN;
    }
    let request = ExportTraceServiceRequest::decode(body).expect("what OTLP sends");
    for resource in request.resource_spans {
        let of = resource.resource.expect("a resource").attributes;
        assert!(of.iter().any(|one| one.key == "service.name"), "{of:?}");
        collector.0.lock().unwrap().extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
    }
    StatusCode::OK
}

impl Collector {
    async fn start() -> (Self, String) {
        let collector = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        let router = Router::new().route("/v1/traces", post(take)).with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (collector, url)
    }

    fn of(&self, trace: &str) -> Vec<Span> {
        let spans = self.0.lock().unwrap();
        spans.iter().filter(|span| hex::encode(&span.trace_id) == trace).cloned().collect()
    }

    /// The trace, once the span of its request has come: that ends last.
    async fn whole(&self, trace: &str) -> Vec<Span> {
        let until = Instant::now() + Duration::from_mins(2);
        loop {
            let spans = self.of(trace);
            if spans.iter().any(|span| span.name.starts_with("POST")) {
                return spans;
            }
            assert!(Instant::now() < until, "no trace came: {spans:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The names of the spans below `parent`.
fn below(spans: &[Span], parent: &[u8]) -> Vec<String> {
    let mut names: Vec<_> =
        spans.iter().filter(|span| span.parent_span_id == parent).map(|span| span.name.clone()).collect();
    names.sort_unstable();
    names
}

fn only<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let mut named = spans.iter().filter(|span| span.name == name);
    let span = named.next().unwrap_or_else(|| panic!("no span {name} in {spans:?}"));
    assert!(named.next().is_none(), "two spans {name}");
    span
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|one| one.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Any::StringValue(text) => Some(text.clone()),
        other => Some(format!("{other:?}")),
    }
}

async fn served(endpoint: &str, headers: &NamedTempFile) -> Served {
    let (endpoint, headers_file) = (endpoint.to_owned(), headers.path().to_owned());
    let mut served = Served::new(PROGRAM, |config| {
        config.telemetry.endpoint = Some(endpoint);
        config.telemetry.headers_file = Some(headers_file);
    })
    .await;
    served.start().await;
    served
}

fn key() -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("x-api-key: {KEY}\n")).unwrap();
    file
}

#[tokio::test]
async fn a_mint_is_one_trace_with_a_span_for_each_step_and_no_secret() {
    let (collector, endpoint) = Collector::start().await;
    let headers = key();
    let served = served(&endpoint, &headers).await;
    let token = token(&served, &first_run("r1"));
    let ask = served.request(&token, &ALL).header("traceparent", format!("00-{TRACE}-{PARENT}-01"));
    let answer = answer(ask.header("tracestate", "vendor=words-of-another-system")).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let spans = collector.whole(TRACE).await;
    let request = only(&spans, "POST /v1/credentials");
    assert_eq!(hex::encode(&request.parent_span_id), PARENT, "the caller's trace goes on");
    assert_eq!(attribute(request, "request_id").unwrap(), answer.headers["x-request-id"].to_str().unwrap());
    assert_eq!(below(&spans, &request.span_id), ["grant", "identity", "mint", "policy", "recall"]);
    assert_eq!(attribute(only(&spans, "policy"), "policy").unwrap(), "first-steps");
    let mint = only(&spans, "mint");
    let steps = ["commit", "commit", "commit", "mint aws", "mint bigquery", "provider", "provider"];
    assert_eq!(below(&spans, &mint.span_id), steps, "one commit of intents, one of each outcome");
    for provider in ["aws", "bigquery"] {
        let issuance = attribute(only(&spans, &format!("mint {provider}")), "issuance_id");
        assert_eq!(issuance.as_deref(), answer.body["credentials"][provider]["issuance_id"].as_str());
    }
    for span in &spans {
        assert!(
            span.start_time_unix_nano <= span.end_time_unix_nano && span.trace_state.is_empty(),
            "{span:?}"
        );
        assert!(span.events.is_empty() && span.links.is_empty(), "{span:?}");
        let within = span.start_time_unix_nano >= request.start_time_unix_nano;
        assert!(within, "{} began before its request", span.name);
    }
    nothing_but_names_and_ids(&spans, &token, &answer.body);
}

fn nothing_but_names_and_ids(spans: &[Span], token: &str, body: &serde_json::Value) {
    let keys: BTreeSet<_> =
        spans.iter().flat_map(|span| &span.attributes).map(|one| one.key.as_str()).collect();
    let allowed =
        ["decision_id", "issuance_id", "method", "policy", "provider", "request_id", "route", "status"];
    assert_eq!(keys, allowed.into());
    let sent = format!("{spans:?}");
    let mut secrets = vec![token, KEY];
    for entry in body["credentials"].as_object().unwrap().values() {
        secrets.extend(entry["lease_handle"].as_str());
        let credential = entry["credential"].as_object().unwrap();
        let long = credential.values().filter_map(serde_json::Value::as_str).filter(|text| text.len() > 30);
        secrets.extend(long.filter(|text| !text.starts_with("http")));
    }
    assert!(secrets.len() > 8, "{secrets:?}");
    for secret in secrets {
        assert!(!sent.contains(secret), "a span says {secret}");
    }
}

#[tokio::test]
async fn a_trace_that_its_caller_does_not_sample_is_not_sent() {
    let (collector, endpoint) = Collector::start().await;
    let headers = key();
    let served = served(&endpoint, &headers).await;
    let other = "5bf92f3577b34da6a3ce929d0e0e4736";
    for (trace, sampled) in [(other, "00"), (TRACE, "01")] {
        let run = token(&served, &first_run(trace));
        let ask =
            served.request(&run, &["api"]).header("traceparent", format!("00-{trace}-{PARENT}-{sampled}"));
        assert_eq!(answer(ask).await.status, StatusCode::OK);
    }
    collector.whole(TRACE).await;
    assert!(collector.of(other).is_empty());
}

#[tokio::test]
async fn a_collector_that_is_away_or_never_answers_holds_nobody_up() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/v1/traces", silent.local_addr().unwrap());
    let headers = key();
    let served = served(&endpoint, &headers).await;
    for number in 0..5 {
        let run = token(&served, &first_run(&format!("r{number}")));
        let ask = served.request(&run, &["api"]).header("traceparent", format!("00-{TRACE}-{PARENT}-01"));
        assert_eq!(answer(ask).await.status, StatusCode::OK);
    }
    // Now it is away for good: what was sent to it is lost, and that is counted.
    drop(silent);
    let until = Instant::now() + Duration::from_mins(2);
    for number in 5.. {
        let run = token(&served, &first_run(&format!("r{number}")));
        let ask = served.request(&run, &["api"]).header("traceparent", format!("00-{TRACE}-{PARENT}-01"));
        assert_eq!(answer(ask).await.status, StatusCode::OK);
        let scrape = served.http().get(format!("{}/metrics", served.url)).send().await.unwrap();
        let scrape = scrape.text().await.unwrap();
        if scrape.contains("cortex_trace_spans_total{outcome=\"failed\"}") {
            break;
        }
        assert!(Instant::now() < until, "{scrape}");
        sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(served.log().matches("the collector does not take spans").count(), 1, "said once");
}
