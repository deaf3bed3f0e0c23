//! The anchor in an object store: the second fence between two histories, replaced by compare-and-set.

use cortex_log::Hash;
use cortex_log::checkpoint::Checkpoint;
use cortex_sandbox::FaultMode;
use cortex_server::log::sequencer::RoundError;
use cortex_server::log::{Anchor, LogConfig};
use cortex_tests::objects::Objects;
use cortex_tests::world::TestWorld;
use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::Value;

use super::{finding, issue, round};

async fn world(objects: &Objects) -> TestWorld {
    let mut log = LogConfig::default();
    objects.anchor(&mut log);
    TestWorld::start_with(move |config| {
        config.log.anchor_url = log.anchor_url;
        config.log.object_store = log.object_store;
        // Rounds are the test's own.
        config.log.interval_ms = 1_000;
    })
    .await
}

fn anchor(objects: &Objects) -> Anchor {
    let mut config = LogConfig::default();
    objects.anchor(&mut config);
    Anchor::open(&config).unwrap()
}

/// A state that follows from none but itself.
fn state(size: u64, history: u8) -> Checkpoint {
    Checkpoint { origin: "localhost/log/2026".to_owned(), size, root: Hash([history; 32]), time_ms: 1 }
}

async fn published(world: &TestWorld) -> i64 {
    sqlx::query_scalar("SELECT published FROM log_shard ORDER BY number DESC LIMIT 1")
        .fetch_one(world.pool())
        .await
        .unwrap()
}

async fn readiness(world: &TestWorld) -> (StatusCode, Value) {
    let answer = world.http.get(world.url("/readyz")).send().await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

#[tokio::test]
async fn replicas_share_one_anchor_in_a_bucket() {
    let objects = Objects::start().await;
    let world = world(&objects).await;
    let second = crate::replicas::second(&world).await;
    for n in 0..3 {
        issue(&world, &format!("r{n}")).await;
        round(&world).await;
        second.broker.log.round(&second.broker.pool).await.unwrap();
    }
    let held = anchor(&objects).read().await.unwrap().expect("an anchor");
    assert_eq!(held.size, published(&world).await.unsigned_abs());
    assert_eq!(finding(&world).await, None);
    second.shut_down().await;
}

#[tokio::test]
async fn of_two_histories_one_is_anchored() {
    let objects = Objects::start().await;
    let first = state(1, 0);
    assert!(anchor(&objects).replace(None, &first).await.unwrap());
    let mut seen = first;
    for size in 2..6 {
        // Each has seen the same, and each goes on in its own way.
        let anchors: Vec<_> = (1..=4_u8).map(|history| (anchor(&objects), state(size, history))).collect();
        let tries = anchors.iter().map(|(anchor, next)| anchor.replace(Some(&seen), next));
        let done = join_all(tries).await;
        let won: Vec<usize> =
            (0..).zip(&done).filter(|(_, won)| *won.as_ref().unwrap()).map(|(n, _)| n).collect();
        assert_eq!(won.len(), 1, "{done:?}");
        let held = anchor(&objects).read().await.unwrap();
        assert_eq!(held.as_ref(), Some(&anchors[won[0]].1));
        seen = held.unwrap();
    }
    // Neither can whoever remembers less, or nothing, put the first state back.
    assert!(!anchor(&objects).replace(None, &state(1, 0)).await.unwrap());
    assert!(!anchor(&objects).replace(Some(&state(1, 0)), &state(2, 9)).await.unwrap());
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_recognised() {
    let objects = Objects::start().await;
    for (mode, size) in [(FaultMode::FailAfterMint, 1), (FaultMode::HangAfterMint, 2)] {
        let seen = anchor(&objects).read().await.unwrap();
        objects.fault("PutObject", mode, Some(1));
        assert!(anchor(&objects).replace(seen.as_ref(), &state(size, 1)).await.unwrap(), "{mode:?}");
    }
    // One that did not happen is none.
    let seen = anchor(&objects).read().await.unwrap();
    objects.fault("PutObject", FaultMode::Reset, None);
    assert!(anchor(&objects).replace(seen.as_ref(), &state(3, 1)).await.is_err());
    objects.clear_faults();
    assert_eq!(anchor(&objects).read().await.unwrap(), seen);
}

#[tokio::test]
async fn while_the_anchor_is_away_credentials_leave_and_nothing_new_is_signed() {
    let objects = Objects::start().await;
    let world = world(&objects).await;
    issue(&world, "before").await;
    round(&world).await;
    let before = published(&world).await;

    for operation in ["GetObject", "PutObject"] {
        objects.clear_faults();
        objects.fault(operation, FaultMode::Down, None);
        issue(&world, operation).await;
        let broker = &world.world.cortex.broker;
        let error = broker.log.round(&broker.pool).await.unwrap_err();
        assert!(matches!(error, RoundError::Anchor(_)), "{error}");
        let (status, ready) = readiness(&world).await;
        assert_eq!(
            (status, ready["warnings"].as_array().map(Vec::len)),
            (StatusCode::OK, Some(1)),
            "{ready}"
        );
    }
    assert_eq!(published(&world).await, before);

    objects.clear_faults();
    round(&world).await;
    assert!(published(&world).await > before);
    assert_eq!(readiness(&world).await.1["warnings"], Value::Array(Vec::new()));
    assert_eq!(finding(&world).await, None);
}

#[tokio::test]
async fn a_round_whose_anchoring_was_not_answered_publishes_what_it_anchored() {
    let objects = Objects::start().await;
    let world = world(&objects).await;
    issue(&world, "r1").await;
    round(&world).await;
    let before = published(&world).await;
    objects.fault("PutObject", FaultMode::FailAfterMint, Some(1));
    issue(&world, "r2").await;
    round(&world).await;
    assert!(published(&world).await > before);
    let held = anchor(&objects).read().await.unwrap().unwrap();
    assert_eq!(held.size, published(&world).await.unsigned_abs());
}

#[tokio::test]
async fn a_replica_does_not_start_without_its_anchor() {
    let objects = Objects::start().await;
    let world = world(&objects).await;
    objects.fault("GetObject", FaultMode::Down, None);
    let mut config = world.world.config.clone();
    config.server.replica = Some("second".to_owned());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let environment = cortex_server::Environment {
        clock: std::sync::Arc::new(world.clock.clone()),
        random: std::sync::Arc::new(cortex_server::random::SystemRandom),
    };
    let error = cortex_server::start(config, listener, environment).await.err().expect("no start");
    assert!(error.to_string().contains("s3://cortex-log/prod/anchor"), "{error}");
}
