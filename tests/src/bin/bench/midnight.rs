//! Midnight: every DAG starts in the same second, and each run asks for eight targets. Who is turned away comes back as
//! it is told, as the package for Airflow does. Afterwards the record, the clouds and the clients are compared.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cortex_sandbox::{Cloud, Sandbox};
use cortex_server::Config;
use cortex_server::config::AdmissionConfig;
use futures_util::future::join_all;
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::chart::{Axis, Chart};
use crate::ground::Ground;
use crate::load::{self, per_mille_of};
use crate::policies::MIDNIGHT;
use crate::report::{Goal, Report, thousands};
use crate::{Scale, asks, tell};

/// How many runs a DAG has.
const RUNS_OF_A_DAG: usize = 20;
/// In which time all ask first.
const SECOND: Duration = Duration::from_secs(1);
/// How long a client asks again.
const PATIENCE: Duration = Duration::from_mins(2);
/// The longest pause of a client that is not told when to come back.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// The clouds with a quota, and the providers that have it in the configuration.
const CLOUDS: [Cloud; 2] = [Cloud::Aws, Cloud::Google];

pub(crate) async fn measure(ground: &Ground, scale: Scale, report: &mut Report) {
    let server = ground.serve_trusted("midnight", 0, |config| configure(config, scale)).await;
    for (cloud, per_second) in CLOUDS.into_iter().zip(scale.midnight_quotas) {
        // Callers stay clear of what a cloud allows: others call there too.
        ground.sandbox.set_quota(cloud, usize::try_from(per_second).expect("a quota") * 2);
    }
    let asks = all_asks(ground, scale.midnight_runs);
    let before = ground.sandbox.mints().len();
    tell(&format!("midnight: {} runs begin", scale.midnight_runs));
    let night =
        Night { address: server.address(), sandbox: Arc::clone(&ground.sandbox), started: Instant::now() };
    let ended = load::on_one_thread(async move {
        let night = Arc::new(night);
        let clients = asks.into_iter().map(|ask| tokio::spawn(client(Arc::clone(&night), ask)));
        join_all(clients.collect::<Vec<_>>())
            .await
            .into_iter()
            .map(|done| done.expect("a client"))
            .collect::<Vec<_>>()
    })
    .await;
    tell("midnight: everyone has an answer");
    let differences = differences(ground, before, &ended).await;
    let beyond: u64 = CLOUDS.iter().map(|cloud| ground.sandbox.beyond_quota(*cloud)).sum();
    for cloud in CLOUDS {
        ground.sandbox.set_quota(cloud, usize::MAX);
    }
    let runs = thousands(scale.midnight_runs);
    report.goal(Goal::at_most("asks at midnight that nobody served", count(unserved(&ended)), 0.0));
    let agree = "credentials of which record, clouds and clients do not say the same";
    report.goal(Goal::at_most(agree, count(differences), 0.0));
    report.goal(Goal::at_most(
        "calls beyond the quota of a cloud",
        count(usize::try_from(beyond).expect("a count")),
        0.0,
    ));
    let last = ended.iter().map(|client| client.after).max().unwrap_or_default();
    let goal = format!("until {runs} runs that began in one second had eight credentials each, seconds");
    report.goal(Goal::below(&goal, last.as_secs_f64(), 60.0));
    report.memory("server at midnight, at its highest", server.resident_mb().1);
    tell_clients(&ended, &runs, report);
}

fn configure(config: &mut Config, scale: Scale) {
    let [aws, google] = scale.midnight_quotas;
    config.admission = AdmissionConfig::default();
    // All clients share one address here, which workers do not.
    config.server.max_connections_per_peer = config.server.max_connections;
    config.providers.aws.max_calls_per_second = aws;
    config.providers.bigquery.max_calls_per_second = google;
}

/// What one run asks of one policy.
struct Ask {
    dag: String,
    run: String,
    policy: &'static str,
    token: String,
    /// When, after midnight.
    due: Duration,
}

fn all_asks(ground: &Ground, runs: usize) -> Vec<Ask> {
    let iss = ground.single_use_iss();
    let each = SECOND / u32::try_from(runs).expect("a count");
    asks::on_all_cores(runs * MIDNIGHT.len(), |n| {
        let number = n / MIDNIGHT.len();
        let dag = format!("bench_mart_{}", number / RUNS_OF_A_DAG);
        let run = format!("scheduled__{number}");
        let token = asks::token(&ground.sandbox, &iss, &dag, &run);
        let due = each * u32::try_from(number).expect("a count");
        Ask { dag, run, policy: MIDNIGHT[n % MIDNIGHT.len()], token, due }
    })
}

/// What all clients know.
struct Night {
    address: SocketAddr,
    sandbox: Arc<Sandbox>,
    started: Instant,
}

/// What became of an ask.
#[derive(Debug, Default)]
struct Ended {
    /// How long after it was due.
    after: Duration,
    tries: usize,
    served: bool,
    /// Issuances; what a later answer replaces is in it too.
    held: BTreeSet<String>,
}

/// What an answer says.
enum Said {
    /// The issuances, and whether each target has one.
    Issued(BTreeSet<String>, bool),
    /// To come back.
    Later(Duration),
    /// That the token cannot be used any more.
    Spent,
}

async fn client(night: Arc<Night>, mut ask: Ask) -> Ended {
    sleep_until(night.started + ask.due).await;
    let begun = Instant::now();
    let mut ended = Ended::default();
    // Who has no answer by then goes without.
    let _ = timeout(PATIENCE, ask_patiently(&night, &mut ask, &mut ended)).await;
    ended.after = begun.elapsed();
    ended
}

async fn ask_patiently(night: &Night, ask: &mut Ask, ended: &mut Ended) {
    let mut pause = Duration::from_millis(500);
    loop {
        ended.tries += 1;
        let answer = load::ask(night.address, &asks::bundle(&ask.token, ask.policy)).await;
        pause = (pause * 2).min(PAUSE_MAX);
        let mut wait = pause.mul_f64(0.5 + rand::random::<f64>() / 2.0);
        let said = answer.map(|answer| read(&answer, ended.tries));
        match said {
            Ok(Said::Issued(held, whole)) => {
                ended.held.extend(held);
                ended.served = whole;
                if whole {
                    return;
                }
                fresh(night, ask);
            }
            Ok(Said::Later(told)) => wait = wait.max(told),
            Ok(Said::Spent) => fresh(night, ask),
            // A connection that is lost says nothing of the token: the next answer does.
            Err(_) => {}
        }
        sleep(wait).await;
    }
}

fn fresh(night: &Night, ask: &mut Ask) {
    ask.token = asks::token(&night.sandbox, night.sandbox.issuer_url(), &ask.dag, &ask.run);
}

fn read(answer: &[u8], tries: usize) -> Said {
    let status = answer.get(9..12).unwrap_or_default();
    match status {
        b"200" => issued(&serde_json::from_slice(load::body(answer)).expect("JSON")),
        b"429" | b"503" => {
            let seconds = load::header(answer, "retry-after:").and_then(|seconds| seconds.parse().ok());
            Said::Later(Duration::from_secs(seconds.unwrap_or_default()))
        }
        b"400" if tries > 1 => Said::Spent,
        _ => {
            let text = String::from_utf8_lossy(answer);
            assert!(status.starts_with(b"5"), "{text}");
            tell(&format!("midnight: {text}"));
            Said::Later(Duration::ZERO)
        }
    }
}

fn issued(body: &Value) -> Said {
    let entries = body["credentials"].as_object().expect("credentials");
    let held = entries.values().filter(|entry| entry["status"] == "issued");
    let held: BTreeSet<_> =
        held.map(|entry| entry["issuance_id"].as_str().expect("an id").to_owned()).collect();
    let whole = held.len() == entries.len();
    Said::Issued(held, whole)
}

/// How many credentials are not the same for the record, the clouds and the clients.
async fn differences(ground: &Ground, before: usize, ended: &[Ended]) -> usize {
    let mut owner = PgConnection::connect(&ground.database_url("midnight")).await.expect("a connection");
    let recorded = on_record(&mut owner, "outcome = 'issued'").await;
    let intents = on_record(&mut owner, "kind = 'issuance.intent'").await;
    let by_clouds = on_record(&mut owner, "kind = 'issuance.outcome' AND outcome = 'issued'").await;
    let open: i64 =
        sqlx::query_scalar("SELECT count(*) FROM open_intent").fetch_one(&mut owner).await.expect("a count");
    let held: BTreeSet<String> = ended.iter().flat_map(|ended| ended.held.iter().cloned()).collect();
    let minted = ground.sandbox.mints().into_iter().skip(before).filter(|mint| CLOUDS.contains(&mint.cloud));
    let minted: BTreeSet<String> = minted.filter_map(|mint| mint.lease).collect();
    let differences = [
        ("held by nobody", recorded.difference(&held).count()),
        ("held and not on record", held.difference(&recorded).count()),
        ("minted without an intent", minted.difference(&intents).count()),
        ("issued and not minted", by_clouds.difference(&minted).count()),
        ("not ended on record", usize::try_from(open).expect("a count")),
    ];
    for (what, count) in differences.iter().filter(|(_, count)| *count > 0) {
        tell(&format!("midnight: {count} credentials {what}"));
    }
    differences.into_iter().map(|(_, count)| count).sum()
}

/// The issuances of the rows that fulfil `condition`.
async fn on_record(owner: &mut PgConnection, condition: &str) -> BTreeSet<String> {
    let ids =
        format!("SELECT convert_from(leaf, 'UTF8')::jsonb ->> 'issuance_id' FROM record WHERE {condition}");
    let ids: Vec<String> =
        sqlx::query_scalar(sqlx::AssertSqlSafe(ids)).fetch_all(owner).await.expect("the record");
    ids.into_iter().collect()
}

fn unserved(ended: &[Ended]) -> usize {
    ended.iter().filter(|client| !client.served).count()
}

fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).expect("a count"))
}

/// What clients saw.
fn tell_clients(ended: &[Ended], runs: &str, report: &mut Report) {
    let after: Vec<Duration> = ended.iter().map(|client| client.after).collect();
    let again = ended.iter().filter(|client| client.tries > 1).count();
    let most = ended.iter().map(|client| client.tries).max().unwrap_or_default();
    let held = ended.iter().map(|client| client.held.len()).sum::<usize>();
    report.figure(&format!("midnight: credentials of {runs} runs"), count(held));
    report.figure("midnight: asks that were told to come back, %", 100.0 * count(again) / count(ended.len()));
    report.figure("midnight: tries of an ask, at the most", count(most));
    report.figure("midnight: until an ask was served, p50, s", per_mille_of(&after, 500).as_secs_f64());
    report.figure("midnight: until an ask was served, p99, s", per_mille_of(&after, 990).as_secs_f64());
    let last = after.iter().max().copied().unwrap_or_default().as_secs() + 2;
    let served = |second: u64| {
        let served =
            ended.iter().filter(|client| client.served && client.after <= Duration::from_secs(second));
        100.0 * count(served.count()) / count(ended.len())
    };
    report.chart(Chart {
        title: format!("Midnight: {runs} runs begin in one second and ask for eight credentials each"),
        x: Axis::Range { what: "seconds".to_owned(), end: u32::try_from(last).expect("seconds") },
        y: "asks that were served, %".to_owned(),
        bars: Vec::new(),
        lines: vec![(0..=last).map(served).collect()],
    });
}
