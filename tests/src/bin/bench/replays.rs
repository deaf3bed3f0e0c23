//! A replay: how long a million recorded requests take to be decided again.

use std::time::Instant;

use cortex_core::Clock as _;
use cortex_core::clock::SystemClock;
use cortex_core::policy::Policy;
use cortex_providers::{BuiltIns, ProvidersConfig};
use cortex_server::config::DatabaseConfig;
use cortex_server::library::Library;
use cortex_server::replay::{self, Bounds, Means, Question, Replay, Report as Replayed};
use cortex_server::store;
use cortex_server::store::documents::{self, Kind};
use jiff::SignedDuration;
use sqlx::{Connection as _, PgConnection};

use crate::ground::Ground;
use crate::policies::policy_name;
use crate::report::{Goal, Report};
use crate::{Scale, asks, tell};

/// What a million may take, in seconds.
const MINUTE: f64 = 60.0;

pub(crate) async fn measure(ground: &Ground, scale: Scale, report: &mut Report) {
    let server = ground.serve("replays", 1).await;
    let mint = asks::exchanges(&ground.sandbox, &ground.single_use_iss(), "api", 1, |_| policy_name(0));
    server.load(1, mint).await;
    drop(server);
    tell(&format!("replay: {} requests on record", scale.replayed));
    let url = ground.database_url("replays");
    fill(&url, scale.replayed).await;
    let config = DatabaseConfig { url: Some(url), ..DatabaseConfig::default() };
    let pool = store::connect(&config).await.expect("a pool");
    let head = documents::head(&pool, Kind::Policy, &policy_name(0)).await.expect("a policy").expect("one");
    let changed =
        head.source.replace("bench_mart_*", "bench_mart_1*").replace("postings:read", "postings:list");
    let mut slowest: f64 = 0.0;
    for (what, document) in
        [("the document in force", &head.source), ("a change of DAGs and scope", &changed)]
    {
        tell(&format!("replay: {what}"));
        let started = Instant::now();
        let replayed = run(pool.clone(), document).await;
        let seconds = started.elapsed().as_secs_f64();
        assert!(
            replayed.records > scale.replayed.unsigned_abs(),
            "every request is read: {}",
            replayed.records
        );
        assert_eq!(replayed.changed.is_empty(), document == &head.source, "{:?}", replayed.changed);
        report.figure(&format!("replay of {} requests under {what}, seconds", scale.replayed), seconds);
        slowest = slowest.max(seconds);
    }
    let million = slowest * 1e6 / f64::from(u32::try_from(scale.replayed).expect("a number of rows"));
    report.goal(Goal::below("replay of a million requests, seconds", million, MINUTE));
}

async fn run(pool: sqlx::PgPool, document: &str) -> Replayed {
    let catalogue = Library::open(&pool).await.expect("the library").catalogue();
    let registry = replay::planner(&ProvidersConfig::default(), "https://cortex.acme.example".to_owned())
        .expect("a key");
    let policies = vec![Policy::compile(document, &BuiltIns).expect("a policy")];
    let now = SystemClock.now();
    let since = now.checked_sub(SignedDuration::from_hours(24 * 30)).expect("a time");
    let question = Question { policies, since, now };
    let mut replay =
        Replay::begin(Means { pool, catalogue, registry }, question, Bounds::none()).await.expect("to begin");
    while replay.step().await.expect("a step").is_some() {}
    replay.report()
}

/// Copies the mint `rows` times over the last weeks: ids, times, runs and DAGs differ as they would.
async fn fill(database_url: &str, rows: i64) {
    let mut owner = PgConnection::connect(database_url).await.expect("a connection");
    sqlx::query(
        "WITH one AS (SELECT * FROM record WHERE kind = 'issuance.issued' ORDER BY id DESC LIMIT 1),
              stamped AS (
                  SELECT i, one.*, convert_from(leaf, 'UTF8')::jsonb AS entry,
                         at - (($1 - i + 1) * interval '2 seconds') AS past,
                         lpad(to_hex((extract(epoch FROM at - (($1 - i + 1) * interval '2 seconds')) * 1000)::int8), 12,
                              '0') AS ms,
                         md5(i::text) AS noise
                  FROM one, generate_series(1, $1) AS i),
              named AS (
                  SELECT *, (ms || '7' || substr(noise, 1, 3) || '8' || substr(noise, 4, 15))::uuid AS own,
                         'bench_mart_' || i % 500 AS dag, 'scheduled__' || i / 20 AS run
                  FROM stamped)
         INSERT INTO record (id, at, kind, issuance_id, principal, issuer, dag_id, run_id, task_id, policy,
                             policy_digest, provider, outcome, expires_at, leaf)
         SELECT own, past, kind, own, principal || i, issuer, dag, run, task_id, policy, policy_digest, provider,
                outcome, expires_at,
                convert_to((entry || jsonb_build_object(
                    'id', own, 'issuance_id', own, 'decision_id', own,
                    'principal', entry -> 'principal' || jsonb_build_object('dag_id', dag, 'run_id', run)))::text, 'UTF8')
         FROM named",
    )
    .bind(rows)
    .execute(&mut owner)
    .await
    .expect("rows");
    for statement in ["VACUUM (ANALYZE) record", "CHECKPOINT"] {
        sqlx::query(statement).execute(&mut owner).await.expect(statement);
    }
    owner.close().await.expect("to close");
}
