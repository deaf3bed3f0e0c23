//! `make bench-asking`: how fast the record answers auditors when it has ten million rows. Rows are made in SQL, as many
//! and as different as a year of a few hundred DAGs; their leaves are short. docs/benchmarks.md says how to read it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark that cannot go on has failed"
)]

use std::time::{Duration, Instant};

use clap::Parser;
use cortex_core::Digest;
use cortex_devdb::{DevDb, Options as Database};
use cortex_server::config::DatabaseConfig;
use cortex_server::store;
use cortex_server::store::issuances::{self, Filter, OfficeHours};
use jiff::{SignedDuration, Timestamp, civil};
use sqlx::{Connection as _, PgConnection, PgPool};

/// Measures what auditors ask of a record of many rows.
#[derive(Debug, Parser)]
struct Options {
    /// How many rows, about.
    #[arg(long, default_value_t = 10_000_000)]
    rows: i64,
    /// How often each question is asked, each time about somebody else.
    #[arg(long, default_value_t = 200)]
    times: i64,
}

/// The first record's time.
const BEGIN: &str = "2026-01-01T00:00:00Z";
/// How far requests are apart.
const STEP: SignedDuration = SignedDuration::from_millis(5_600);
/// The question's limit, in milliseconds.
const GOAL_MS: f64 = 200.0;

#[tokio::main]
async fn main() {
    let options = Options::parse();
    // Of ten requests, eight are an intent and an outcome: two rows.
    let requests = options.rows * 5 / 9;
    let server = DevDb::start(Database { durable: false }).await.expect("a private Postgres");
    server.create_database("asking").await.expect("a database");
    let config = DatabaseConfig { url: Some(server.url("asking")), ..DatabaseConfig::default() };
    store::migrate(&config).await.expect("the schema");
    let mut owner = PgConnection::connect(&server.url("asking")).await.expect("a connection");
    fill(&mut owner, requests).await;
    let size: String = text(&mut owner, "SELECT pg_size_pretty(pg_database_size('asking'))").await;
    let rows: String = text(&mut owner, "SELECT count(*)::text FROM record").await;
    println!(
        "{rows} rows on record, {size}\n\n| question | found | p50 ms | p99 ms | |\n|---|--:|--:|--:|---|"
    );
    let pool = store::connect(&config).await.expect("a pool");
    for (what, question) in questions(requests) {
        measure(&pool, what, options.times, &*question).await;
    }
    let indexes = "SELECT string_agg(indexrelname || ' ' || pg_size_pretty(pg_relation_size(indexrelid)), E'\\n' ORDER BY 1)
                   FROM pg_stat_user_indexes WHERE relname IN ('record', 'record_fact', 'record_rule')";
    println!("\n{}", text(&mut owner, indexes).await);
}

async fn text(owner: &mut PgConnection, query: &'static str) -> String {
    sqlx::query_scalar(query).fetch_one(owner).await.expect(query)
}

/// Somebody else each time: numbers that are spread, the same at every run.
fn spread(turn: i64, many: i64) -> i64 {
    (turn * 2_654_435_761 + 12_345).rem_euclid(many)
}

type Question = Box<dyn Fn(i64) -> Filter>;

/// The time of a request.
fn at(request: i64) -> Timestamp {
    let begin: Timestamp = BEGIN.parse().expect("a time");
    begin.checked_add(STEP * i32::try_from(request).expect("a number")).expect("a time")
}

fn target(number: i64) -> String {
    format!("arn:aws:iam::123456789012:role/role-{number}")
}

fn one(change: impl Fn(&mut Filter, i64) + 'static) -> Question {
    Box::new(move |turn| {
        let mut filter = Filter { limit: 50, ..Filter::default() };
        change(&mut filter, turn);
        filter
    })
}

fn kinds(kinds: &[&str]) -> Vec<String> {
    kinds.iter().map(ToString::to_string).collect()
}

#[expect(clippy::too_many_lines, reason = "a list, one entry for each question")]
fn questions(requests: i64) -> Vec<(&'static str, Question)> {
    let week = move |filter: &mut Filter, turn| {
        let first = spread(turn, requests - 110_000);
        (filter.since, filter.until) = (Some(at(first)), Some(at(first + 107_000)));
    };
    vec![
        ("the newest", one(|_, _| {})),
        ("who got access to a role", one(|f, t| f.target = Some(target(spread(t, 300))))),
        (
            "… within a week",
            one(move |f, t| {
                f.target = Some(target(spread(t, 300)));
                week(f, t);
            }),
        ),
        ("… that nobody got", one(|f, t| f.target = Some(target(1_000 + t)))),
        ("everything of a DAG", one(|f, t| f.dag_id = Some(format!("dag_{}", spread(t, 500))))),
        ("… that has a tenth of all records", one(|f, _| f.dag_id = Some("dag_hot".to_owned()))),
        (
            "… within a week",
            one(move |f, t| {
                f.dag_id = Some(format!("dag_{}", spread(t, 500)));
                week(f, t);
            }),
        ),
        (
            "everything of a run",
            one(move |f, t| {
                let n = spread(t, requests);
                f.dag_id = Some(if n % 10 == 0 { "dag_hot".to_owned() } else { format!("dag_{}", n % 500) });
                f.run_id = Some(format!("scheduled__{}", n / 5_000));
            }),
        ),
        (
            "everything of a task's try, by its principal",
            one(move |f, t| {
                let n = spread(t, requests) / 10 * 10 + 1;
                f.principal = Some(format!("run:prod:dag_{}:scheduled__{}:task:-:{n}", n % 500, n / 5_000));
            }),
        ),
        (
            "runs that a person started",
            one(|f, t| f.triggering_user = Some(format!("user{}", spread(t, 50)))),
        ),
        (
            "what a person decided",
            one(|f, t| {
                f.principal = Some(format!("person:staff:approver{}", spread(t, 40)));
                f.kinds = kinds(&["grant.decided"]);
            }),
        ),
        (
            "issued with an approver's approval",
            one(|f, t| f.approver = Some(format!("person:staff:approver{}", spread(t, 40)))),
        ),
        ("denials", one(|f, _| f.outcome = Some("denied".to_owned()))),
        (
            "denials by a rule of a policy",
            one(|f, t| f.rule = Some(format!("policy_{}#when", spread(t, 200)))),
        ),
        ("denials by a guardrail", one(|f, _| f.rule = Some("no-production-by-hand".to_owned()))),
        (
            "access under a version of a policy",
            one(|f, t| {
                f.policy_digest = Some(Digest::of(format!("policy_{}.{}", spread(t, 200), t % 3).as_bytes()));
            }),
        ),
        ("everything under a policy", one(|f, t| f.policy = Some(format!("policy_{}", spread(t, 200))))),
        (
            "approvals outside of office hours",
            one(|f, _| {
                f.kinds = kinds(&["grant.decided"]);
                f.outside = Some(OfficeHours {
                    open: civil::time(9, 0, 0, 0),
                    close: civil::time(18, 0, 0, 0),
                    timezone: "Europe/Paris".to_owned(),
                });
            }),
        ),
        ("every use of break glass", one(|f, _| f.break_glass = true)),
        ("issuances that failed", one(|f, _| f.outcome = Some("failed".to_owned()))),
        ("changes of policies", one(|f, _| f.kinds = kinds(&["policy.applied", "policy.retired"]))),
        ("a page in the middle of a year", one(move |f, t| f.until = Some(at(spread(t, requests))))),
    ]
}

async fn measure(pool: &PgPool, what: &str, times: i64, question: &dyn Fn(i64) -> Filter) {
    let mut took = Vec::new();
    let mut found = 0;
    for turn in 0..times {
        let filter = question(turn);
        let started = Instant::now();
        found += issuances::list(pool, &filter).await.expect(what).len();
        took.push(started.elapsed());
    }
    took.sort();
    let at = |percent: usize| took[(took.len() * percent).div_ceil(100).saturating_sub(1)];
    let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
    let verdict = if ms(at(99)) < GOAL_MS { "reached" } else { "not reached" };
    let found = found / usize::try_from(times).expect("a number");
    println!("| {what} | {found} | {:.1} | {:.1} | {verdict} |", ms(at(50)), ms(at(99)));
}

/// Every row, then every index, as a restore would.
async fn fill(owner: &mut PgConnection, requests: i64) {
    let indexes: Vec<(String, String)> = sqlx::query_as(
        "SELECT indexname::text, indexdef FROM pg_indexes
         WHERE tablename IN ('record', 'record_fact', 'record_rule') AND indexname NOT LIKE '%_pkey'",
    )
    .fetch_all(&mut *owner)
    .await
    .expect("indexes");
    for (name, _) in &indexes {
        run(owner, format!("DROP INDEX {name}")).await;
    }
    tell("rows");
    for statement in ROWS {
        run(owner, statement.replace("$requests", &requests.to_string())).await;
    }
    tell("indexes");
    for (_, definition) in indexes {
        run(owner, definition).await;
    }
    tell("vacuum");
    run(owner, "VACUUM (ANALYZE)".to_owned()).await;
    run(owner, "CHECKPOINT".to_owned()).await;
}

async fn run(owner: &mut PgConnection, statement: String) {
    let started = Instant::now();
    let what: String = statement.chars().take(60).collect();
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(owner).await.expect(&what);
    if started.elapsed() > Duration::from_secs(5) {
        tell(&format!("{:.0} s: {what}", started.elapsed().as_secs_f64()));
    }
}

fn tell(what: &str) {
    eprintln!("bench: {what}");
}

/// The record of a year. `request` is what every request is made of; a leaf has what its columns have.
const ROWS: [&str; 8] = [
    "CREATE TEMPORARY VIEW request AS
     SELECT n, at, (lpad(to_hex((extract(epoch FROM at) * 1000)::int8), 12, '0') || '7000' || '8000'
                    || lpad(to_hex(n), 12, '0'))::uuid AS id,
            CASE WHEN n % 10 = 0 THEN 'dag_hot' ELSE 'dag_' || n % 500 END AS dag, 'scheduled__' || n / 5000 AS run,
            'policy_' || n % 200 AS policy,
            sha256(('policy_' || n % 200 || '.' || n * 3 / $requests)::bytea) AS digest,
            CASE WHEN n % 100 = 7 THEN ('00000000-0000-7000-8000-' || lpad(to_hex(n / 100 % 20000), 12, '0'))::uuid END AS grant_id,
            CASE WHEN n % 20 = 3 THEN 'denial' WHEN n % 20 IN (5, 11, 17) THEN 'issuance.issued'
                 ELSE 'issuance.intent' END AS kind
     FROM (SELECT n, timestamptz '2026-01-01T00:00:00Z' + n * interval '5.6 seconds' AS at
           FROM generate_series(0, $requests - 1) AS n) AS t",
    "INSERT INTO record (id, at, kind, issuance_id, decision_id, principal, issuer, dag_id, run_id, task_id, policy,
                         policy_digest, provider, outcome, reason, grant_id, expires_at, leaf)
     SELECT id, at, kind, CASE WHEN kind <> 'denial' THEN id END, CASE WHEN kind = 'denial' THEN id END,
            'run:prod:' || dag || ':' || run || ':task:-:' || n, 'prod', dag, run, 'task', policy, digest, 'aws',
            CASE WHEN kind = 'issuance.issued' THEN 'issued' END, CASE WHEN kind = 'denial' THEN 'when' END,
            CASE WHEN kind <> 'denial' THEN grant_id END,
            CASE WHEN kind <> 'denial' THEN at + interval '15 minutes' END,
            convert_to(format('{\"at\":\"%s\",\"dag_id\":\"%s\",\"id\":\"%s\",\"kind\":\"%s\",\"policy\":\"%s\",\"run_id\":\"%s\"}%s',
                              at, dag, id, kind, policy, run, repeat(' ', 240)), 'UTF8')
     FROM request",
    "INSERT INTO record (id, at, kind, issuance_id, outcome, reason, expires_at, leaf)
     SELECT (left(id::text, 14) || '7001' || right(id::text, 18))::uuid, at, 'issuance.outcome', id,
            CASE WHEN n % 500 = 1 THEN 'failed' ELSE 'issued' END, CASE WHEN n % 500 = 1 THEN 'AccessDenied' END,
            at + interval '15 minutes',
            convert_to(format('{\"at\":\"%s\",\"issuance_id\":\"%s\",\"kind\":\"issuance.outcome\"}%s', at, id, repeat(' ', 180)), 'UTF8')
     FROM request WHERE kind = 'issuance.intent'",
    "INSERT INTO record_fact (id, policy_digest, target, triggering_user, break_glass)
     SELECT id, digest, CASE WHEN kind <> 'denial' THEN 'arn:aws:iam::123456789012:role/role-' || n % 300 END,
            CASE WHEN n % 50 = 9 THEN 'user' || n / 50 % 50 END, n % 200000 = 7
     FROM request",
    "INSERT INTO record_rule (rule, id)
     SELECT CASE WHEN n % 2000 = 3 THEN 'no-production-by-hand' ELSE policy || '#when' END, id
     FROM request WHERE kind = 'denial'",
    "INSERT INTO grant_request (id, request_digest, request, policy, policy_digest, dag_id, run_id, approvers, requested_at,
                                status, expires_at, decided_at, requester, issuer, policy_version)
     SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(g), 12, '0'))::uuid, sha256(g::text::bytea), '{}', 'policy_1', sha256('p'),
            'dag_1', 'r' || g, '{}', at, 'expired', at, at, '{}', 'prod', 1
     FROM (SELECT g, timestamptz '2026-01-01T00:00:00Z' + g * interval '26 minutes' AS at FROM generate_series(0, 19999) AS g) t",
    "INSERT INTO grant_decision (grant_id, person, approve, decided_at)
     SELECT id, 'person:staff:approver' || (row_number() OVER (ORDER BY id)) % 40, true, requested_at FROM grant_request",
    "INSERT INTO record (id, at, kind, principal, issuer, policy, grant_id, leaf)
     SELECT (lpad(to_hex((extract(epoch FROM requested_at) * 1000)::int8), 12, '0') || '7002' || right(id::text, 18))::uuid,
            requested_at, 'grant.decided', person, 'staff', policy, id, convert_to('{\"kind\":\"grant.decided\"}', 'UTF8')
     FROM grant_request JOIN grant_decision ON grant_id = id",
];
