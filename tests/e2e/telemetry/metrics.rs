//! `/metrics` after a mint, a denial, an approval and a revocation.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cortex_sandbox::{Cloud, Fault, FaultMode};
use cortex_server::telemetry::{Kind, METRICS};
use cortex_tests::served::Served;
use cortex_tests::world::first_run;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{PROGRAM, approved, as_person, denied, issued};

/// Only where something is configured, or happens, that is not here.
const ELSEWHERE: [&str; 24] = [
    "cortex_admission_shed_total",
    "cortex_admission_waiting",
    "cortex_config_refused",
    "cortex_config_reloads_total",
    "cortex_connections_ended_total",
    "cortex_connections_refused_total",
    "cortex_provider_breaker_state",
    "cortex_provider_turned_away_total",
    "cortex_tls_certificate_ends_timestamp_seconds",
    "cortex_tls_files_refused",
    "cortex_tls_handshakes_failed_total",
    "cortex_tls_reloads_total",
    "cortex_break_glass_requests_total",
    "cortex_log_anchor_away",
    "cortex_log_witness_behind",
    "cortex_notifications_total",
    "cortex_notifications_dead_total",
    "cortex_notifications_waiting",
    "cortex_notifications_oldest_seconds",
    "cortex_record_commit_failures_total",
    "cortex_stream_batches_total",
    "cortex_stream_records_total",
    "cortex_stream_behind_records",
    "cortex_trace_spans_total",
];

/// What Prometheus reads.
struct Scrape {
    kinds: BTreeMap<String, String>,
    helps: BTreeMap<String, String>,
    /// By name and labels, as they are written.
    values: BTreeMap<String, f64>,
}

impl Scrape {
    async fn of(served: &Served) -> Self {
        let response = served.http().get(format!("{}/metrics", served.url)).send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4");
        let text = response.text().await.unwrap();
        let (mut kinds, mut helps, mut values) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for line in text.lines().filter(|line| !line.is_empty()) {
            let words = |rest: &str| {
                let (name, rest) = rest.split_once(' ').expect("a name and more");
                (name.to_owned(), rest.to_owned())
            };
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                kinds.extend([words(rest)]);
            } else if let Some(rest) = line.strip_prefix("# HELP ") {
                helps.extend([words(rest)]);
            } else {
                let (series, value) = line.rsplit_once(' ').expect("a value");
                assert!(
                    values.insert(series.to_owned(), value.parse().expect("a number")).is_none(),
                    "{series}"
                );
            }
        }
        Self { kinds, helps, values }
    }

    /// The value of a series: its name, and labels in any order.
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let wanted: BTreeSet<String> =
            labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
        self.values.iter().find_map(|(series, value)| {
            let (of, rest) = series.split_once('{').unwrap_or((series, "}"));
            let given = rest.trim_end_matches('}');
            let given: BTreeSet<String> =
                given.split(',').filter(|one| !one.is_empty()).map(str::to_owned).collect();
            (of == name && given == wanted).then_some(*value)
        })
    }
}

/// Scrapes until `seen` is; what is in the database is measured every ten seconds.
async fn until(served: &Served, what: &str, seen: impl Fn(&Scrape) -> bool) -> Scrape {
    let deadline = Instant::now() + Duration::from_mins(2);
    loop {
        let scrape = Scrape::of(served).await;
        if seen(&scrape) {
            return scrape;
        }
        assert!(Instant::now() < deadline, "{what} was never measured: {:?}", scrape.values);
        sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn each_step_is_measured_under_the_names_that_are_listed() {
    let mut served = Served::new(PROGRAM, |_| {}).await;
    served.start().await;
    let entry = issued(&served, "r1").await.body["credentials"]["aws"].clone();
    issued(&served, "r1").await;
    denied(&served).await;
    let nobody = served.ask("not.a.token", &["api"]).await;
    assert_eq!(nobody.status, StatusCode::BAD_REQUEST, "{nobody:?}");
    approved(&served, "r2").await;
    let down = Fault { operation: Some("PutRolePolicy".to_owned()), mode: FaultMode::Down, remaining: None };
    served.sandbox.fault(Cloud::Aws, down);
    let revocation = json!({"issuance_id": entry["issuance_id"], "reason": "it leaked"});
    let revoked = as_person(&served, &["cortex-admins"], Method::POST, "/v1/revocations", revocation).await;
    assert_eq!(revoked.status, StatusCode::ACCEPTED, "{revoked:?}");
    let owed = [("provider", "aws")];
    let scrape = until(&served, "what is owed", |scrape| {
        scrape.value("cortex_revocations_pending", &owed) == Some(1.0)
            && scrape.value("cortex_revocations_oldest_seconds", &owed).is_some_and(|age| age > 0.0)
            && scrape.value("cortex_log_size", &[]).is_some_and(|size| size > 0.0)
    })
    .await;
    every_name_is_as_listed(&scrape);
    what_happened_is_counted(&scrape);
}

fn every_name_is_as_listed(scrape: &Scrape) {
    for metric in METRICS {
        if ELSEWHERE.contains(&metric.name) {
            continue;
        }
        let kind = scrape.kinds.get(metric.name).map(String::as_str);
        assert_eq!(kind, Some(metric.kind.as_str()), "{}", metric.name);
        assert_eq!(scrape.helps.get(metric.name).map(String::as_str), Some(metric.help), "{}", metric.name);
    }
    for name in scrape.kinds.keys() {
        assert!(METRICS.iter().any(|metric| metric.name == name), "{name} is not listed");
    }
    for series in scrape.values.keys() {
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let metric = METRICS.iter().find(|metric| name.starts_with(metric.name)).expect("a listed name");
        for label in labels.trim_end_matches('}').split("\",").filter(|label| !label.is_empty()) {
            let key = label.split('=').next().unwrap_or_default();
            let bound = key == "le" && matches!(metric.kind, Kind::Histogram(_));
            assert!(bound || metric.labels.contains(&key), "{series}");
        }
    }
}

fn what_happened_is_counted(scrape: &Scrape) {
    let first_steps = ("policy", "first-steps");
    let decisions = |decision, reason| {
        scrape.value("cortex_decisions_total", &[first_steps, ("decision", decision), ("reason", reason)])
    };
    // Twice four targets, and the approved one is decided on once more after it was asked for.
    assert_eq!(decisions("permit", ""), Some(8.0));
    assert_eq!(decisions("needs_grant", ""), Some(2.0));
    assert_eq!(decisions("deny", "no_match"), Some(1.0));
    let unproven = [("policy", "(none)"), ("decision", "deny"), ("reason", "shape")];
    assert_eq!(scrape.value("cortex_decisions_total", &unproven), Some(1.0), "{:?}", scrape.values);
    for (provider, count) in [("api", 2.0), ("aws", 1.0), ("bigquery", 1.0), ("snowflake", 1.0)] {
        let of = ("provider", provider);
        assert_eq!(scrape.value("cortex_issuances_total", &[of, ("outcome", "issued")]), Some(count));
        assert_eq!(scrape.value("cortex_leases_again_total", &[of]), Some(1.0));
        let calls = scrape.value("cortex_provider_call_seconds_count", &[of, ("outcome", "minted")]);
        assert_eq!(calls, Some(count), "{provider}");
        assert_eq!(scrape.value("cortex_provider_calls_in_flight", &[of]), Some(0.0));
    }
    assert_eq!(scrape.value("cortex_grant_wait_seconds_count", &[("decision", "approved")]), Some(1.0));
    assert_eq!(scrape.value("cortex_grants_waiting", &[]), Some(0.0));
    let asked = [("method", "POST"), ("route", "/v1/credentials"), ("status", "200")];
    assert_eq!(scrape.value("cortex_http_request_seconds_count", &asked), Some(3.0));
    assert_eq!(scrape.value("cortex_http_requests_in_flight", &[]), Some(1.0), "this one");
    let failed = [("provider", "aws"), ("outcome", "failed")];
    assert!(scrape.value("cortex_revocation_writes_total", &failed).is_some_and(|count| count >= 1.0));
    assert!(
        scrape.value("cortex_log_rounds_total", &[("outcome", "done")]).is_some_and(|count| count >= 1.0)
    );
    assert_eq!(scrape.value("cortex_database_up", &[]), Some(1.0));
    assert_eq!(scrape.value("cortex_signing_keys", &[]), Some(1.0));
    assert!(scrape.value("cortex_clock_ahead_seconds", &[]).is_some_and(|ahead| ahead.abs() < 5.0));
    assert!(scrape.value("process_open_fds", &[]) < scrape.value("process_max_fds", &[]));
}

#[tokio::test]
async fn names_that_callers_make_up_are_no_labels() {
    let mut served = Served::new(PROGRAM, |_| {}).await;
    served.start().await;
    let token = served.sandbox.run_token(&first_run("r1")).unwrap();
    let body = json!({"policy": "made-up-by-a-caller", "targets": ["made-up-target"]});
    let ask = served.http().post(format!("{}/v1/credentials", served.url)).bearer_auth(token).json(&body);
    assert_eq!(ask.send().await.unwrap().status(), StatusCode::BAD_REQUEST);
    served.ask(&served.sandbox.run_token(&first_run("r2")).unwrap(), &["made-up-target"]).await;
    let brewed = Method::from_bytes(b"BREW").unwrap();
    served.http().request(brewed, format!("{}/made-up/path", served.url)).send().await.unwrap();
    let scrape = Scrape::of(&served).await;
    let unmatched = [("method", "other"), ("route", "unmatched"), ("status", "404")];
    assert_eq!(scrape.value("cortex_http_request_seconds_count", &unmatched), Some(1.0));
    let made_up: Vec<_> =
        scrape.values.keys().filter(|series| series.contains("made-up") || series.contains("BREW")).collect();
    assert_eq!(made_up, Vec::<&String>::new());
}
