//! What holds whatever happens: no mint without an intent, one outcome for each intent, the outcome before the
//! secret, every lifetime within its bound, and nothing at all when something that is needed is away.

use std::collections::BTreeSet;

use cortex_sandbox::{Cloud, Fault, FaultMode};
use cortex_server::supervisor;
use cortex_tests::promises::{kept, leaves, settle};
use cortex_tests::world::{Answer, OPEN, TestWorld, finance_run, first_run};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use reqwest::StatusCode;
use serde_json::{Value, json};

/// One step of a story.
#[derive(Debug, Clone)]
enum Step {
    /// A run asks for some targets, perhaps for a shorter life, perhaps with a token that it used before.
    Ask { run: u8, targets: u8, ttl: Option<u16>, replay: bool },
    /// A cloud goes wrong, so many times.
    Break { aws: bool, mode: FaultMode, times: u32 },
    /// Every cloud works again.
    Mend,
    /// Time passes, in seconds, and the supervisor looks.
    Wait(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let mode = prop_oneof![
        Just(FaultMode::Down),
        Just(FaultMode::Throttle),
        Just(FaultMode::Reset),
        Just(FaultMode::FailAfterMint),
        Just(FaultMode::HangAfterMint),
        Just(FaultMode::LongerExpiry),
        Just(FaultMode::OtherArn),
        Just(FaultMode::MissingToken),
        Just(FaultMode::Garbage),
    ];
    let ask = (0..4_u8, 1..16_u8, proptest::option::of(60..3_600_u16), any::<bool>());
    let step = prop_oneof![
        5 => ask.prop_map(|(run, targets, ttl, replay)| Step::Ask { run, targets, ttl, replay }),
        3 => (any::<bool>(), mode, 1..4_u32).prop_map(|(aws, mode, times)| Step::Break { aws, mode, times }),
        1 => Just(Step::Mend),
        1 => (1..2_000_u16).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 1..10)
}

async fn impatient() -> TestWorld {
    TestWorld::start_with(|config| {
        for calls in [&mut config.providers.aws.calls, &mut config.providers.bigquery.calls] {
            calls.attempt_timeout = SignedDuration::from_millis(300);
            calls.timeout = SignedDuration::from_millis(900);
        }
    })
    .await
}

/// What left, as it is in an answer: issuance and when it ends.
fn released(answer: &Answer) -> Vec<(String, Timestamp)> {
    let entries = answer.body["credentials"].as_object().into_iter().flatten();
    let issued = entries.filter(|(_, entry)| entry["status"] == "issued");
    issued
        .map(|(_, entry)| {
            let id = entry["issuance_id"].as_str().expect("an id").to_owned();
            (id, entry["expires_at"].as_str().expect("a time").parse().expect("a time"))
        })
        .collect()
}

async fn tell(steps: &[Step]) {
    let world = impatient().await;
    let mut last = world.token(&first_run("r0"));
    for step in steps {
        match step {
            Step::Ask { run, targets, ttl, replay } => {
                if !replay {
                    last = world.token(&first_run(&format!("r{run}")));
                }
                let all = ["aws", "bigquery", "snowflake", "api"];
                let targets: Vec<_> = all
                    .iter()
                    .enumerate()
                    .filter(|(bit, _)| targets & (1 << bit) != 0)
                    .map(|(_, name)| name)
                    .collect();
                let answer = world
                    .ask(&last, json!({"policy": "first-steps", "targets": targets, "ttl_seconds": ttl}))
                    .await;
                on_record_and_in_bounds(&world, &answer, *ttl).await;
            }
            Step::Break { aws, mode, times } => {
                let cloud = if *aws { Cloud::Aws } else { Cloud::Google };
                world
                    .world
                    .sandbox
                    .fault(cloud, Fault { operation: None, mode: *mode, remaining: Some(*times) });
            }
            Step::Mend => world.world.sandbox.clear_faults(),
            Step::Wait(seconds) => {
                world.clock.advance(SignedDuration::from_secs(i64::from(*seconds)));
                supervisor::sweep(&world.world.cortex.broker).await.expect("a sweep");
            }
        }
    }
    settle(&world).await;
    kept(&world).await;
}

/// What an answer holds was on record before it left, and ends in time.
async fn on_record_and_in_bounds(world: &TestWorld, answer: &Answer, ttl: Option<u16>) {
    let outcomes = leaves(world.pool(), "issuance.outcome").await;
    let signed = leaves(world.pool(), "issuance.issued").await;
    let issued: BTreeSet<&str> = outcomes
        .iter()
        .filter(|leaf| leaf["outcome"]["outcome"] == "issued")
        .chain(&signed)
        .filter_map(|leaf| leaf["issuance_id"].as_str())
        .collect();
    // AWS gives no session of less than a quarter of an hour, and clocks may differ by a minute.
    let bound = ttl.map_or(1_800, |ttl| i64::from(ttl).min(1_800)).max(900) + 60;
    for (id, expires_at) in released(answer) {
        assert!(issued.contains(id.as_str()), "{id} left without its outcome");
        let life = expires_at.duration_since(world.now()).as_secs();
        assert!(life <= bound, "{id} lives {life} s, {ttl:?} was asked");
    }
}

#[test]
fn whatever_is_asked_and_whatever_fails_the_record_and_the_clouds_agree() {
    let mut runner = TestRunner::new(Config {
        cases: 12,
        max_shrink_iters: 20,
        failure_persistence: None,
        ..Config::default()
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let told = runner.run(&steps(), |steps| {
        runtime.block_on(tell(&steps));
        Ok(())
    });
    told.unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test]
async fn the_intent_is_durable_while_the_cloud_is_still_being_asked() {
    let world = TestWorld::start().await;
    world
        .world
        .sandbox
        .fault(Cloud::Aws, Fault { operation: None, mode: FaultMode::Delay(1_500), remaining: Some(1) });
    let request = world.http.post(world.url("/v1/credentials")).bearer_auth(world.token(&first_run("r")));
    let request = request.json(&json!({"policy": "first-steps", "targets": ["aws"]}));
    let asking = tokio::spawn(cortex_tests::world::answer(request));
    let until = tokio::time::Instant::now() + std::time::Duration::from_mins(1);
    let intents = loop {
        let intents = leaves(world.pool(), "issuance.intent").await;
        if !intents.is_empty() {
            break intents;
        }
        assert!(tokio::time::Instant::now() < until, "the intent never came");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    assert_eq!((intents.len(), world.world.sandbox.mints()), (1, Vec::new()), "the intent came first");
    assert_eq!(asking.await.unwrap().status, StatusCode::OK);
    assert_eq!(kept(&world).await, ["issued"]);
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_nothing_open_and_its_credential_counts_as_undelivered() {
    let world = TestWorld::start().await;
    world
        .world
        .sandbox
        .fault(Cloud::Aws, Fault { operation: None, mode: FaultMode::Delay(800), remaining: Some(1) });
    let request = world.http.post(world.url("/v1/credentials")).bearer_auth(world.token(&first_run("r")));
    let request = request.json(&json!({"policy": "first-steps", "targets": ["aws"]}));
    let asking = tokio::spawn(cortex_tests::world::answer(request));
    let until = tokio::time::Instant::now() + std::time::Duration::from_mins(1);
    while leaves(world.pool(), "issuance.intent").await.is_empty() {
        assert!(tokio::time::Instant::now() < until, "the intent never came");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    asking.abort();
    while leaves(world.pool(), "issuance.outcome").await.is_empty() {
        assert!(tokio::time::Instant::now() < until, "the outcome never came");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(kept(&world).await, ["issued"]);
    let outcomes = leaves(world.pool(), "issuance.outcome").await;
    assert_eq!(outcomes[0]["outcome"]["undelivered"], true, "{outcomes:?}");
}

#[tokio::test]
async fn lifetimes_are_within_the_policys_the_callers_and_the_clouds_bounds() {
    let world = TestWorld::start().await;
    let policy = async |ttl: Value| {
        let run = first_run(&format!("r-{ttl}"));
        world.ask(&world.token(&run), json!({"policy": "first-steps", "ttl_seconds": ttl})).await
    };
    for (ttl, bound) in [
        (json!(null), 1_800),
        (json!(60), 960),
        (json!(900), 900),
        (json!(1_200), 1_200),
        (json!(43_200), 1_800),
    ] {
        let answer = policy(ttl.clone()).await;
        assert_eq!(answer.status, StatusCode::OK, "{ttl}: {answer:?}");
        let opened: Timestamp = OPEN.parse().unwrap();
        for (id, expires_at) in released(&answer) {
            let life = expires_at.duration_since(opened).as_secs();
            assert!(life > 0 && life <= bound, "{ttl}: {id} lives {life} s");
        }
    }
    kept(&world).await;
}

#[tokio::test]
async fn every_cloud_away_is_a_wait_and_never_a_credential() {
    let world = TestWorld::start().await;
    for cloud in [Cloud::Aws, Cloud::Google] {
        world.world.sandbox.fault(cloud, Fault { operation: None, mode: FaultMode::Down, remaining: None });
    }
    let token = world.token(&finance_run("r"));
    let away =
        world.ask(&token, json!({"policy": "finance-data-publish", "targets": ["aws", "bigquery"]})).await;
    assert_eq!(away.status, StatusCode::SERVICE_UNAVAILABLE, "{away:?}");
    assert_eq!(world.world.sandbox.mints(), []);
    world.world.sandbox.clear_faults();
    let back =
        world.ask(&token, json!({"policy": "finance-data-publish", "targets": ["aws", "bigquery"]})).await;
    assert_eq!(back.status, StatusCode::OK, "{back:?}");
    let mut ended = kept(&world).await;
    ended.sort_unstable();
    assert_eq!(ended, ["failed", "failed", "issued", "issued"]);
}

#[tokio::test]
async fn an_issuer_that_is_away_lets_nobody_in() {
    let world = TestWorld::start().await;
    world
        .world
        .sandbox
        .fault(Cloud::Issuer, Fault { operation: None, mode: FaultMode::Down, remaining: None });
    let answer = world.ask_for(&first_run("r"), "first-steps").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
    assert_eq!(answer.body["error"], "temporarily_unavailable", "{answer:?}");
    assert_eq!(world.world.sandbox.mints(), []);
}

/// A flood of made-up tokens grows memory and the record by a bounded number of rows.
#[tokio::test]
async fn a_flood_of_callers_that_prove_nothing_is_a_handful_of_rows() {
    let world = TestWorld::start().await;
    let ask = |index: usize| {
        let request = world.http.post(world.url("/v1/credentials")).bearer_auth(format!("a.{index}.b"));
        let request = request.header("x-forwarded-for", format!("192.0.{}.{}", index % 3, index % 250));
        cortex_tests::world::answer(request.json(&json!({"policy": "first-steps"})))
    };
    for index in 0..600 {
        assert_eq!(ask(index).await.status, StatusCode::BAD_REQUEST);
    }
    supervisor::flush(&world.world.cortex.broker).await;
    let rows = world.record(&["denials"]).await;
    let count: u64 = rows.iter().filter_map(|row| row["count"].as_u64()).sum();
    assert_eq!(count, 600);
    let networks: BTreeSet<_> = rows.iter().filter_map(|row| row["network"].as_str()).collect();
    assert_eq!(networks, BTreeSet::from(["192.0.0.0/24", "192.0.1.0/24", "192.0.2.0/24"]));
    assert!(rows.len() <= 3 * 10, "{} rows", rows.len());
    assert!(world.record(&["denial"]).await.is_empty());
}
