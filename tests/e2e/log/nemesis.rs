//! Three replicas on one Postgres under load, and somebody who kills, stops, cuts off and misdates them, one after the other and two
//! at a time: what the model in `tests/model` goes through, against the real thing.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cortex_devdb::{DevDb, Options};
use cortex_server::config::DatabaseConfig;
use cortex_server::store;
use cortex_tests::cluster::{Caller, Cluster, Harm};
use cortex_tests::promises;
use cortex_tests::world::first_run;
use futures_util::future::join_all;
use jiff::SignedDuration;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng as _, SeedableRng as _};
use sqlx::PgPool;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// How many ask each replica at once.
const CALLERS: usize = 2;
/// How many answers are seen between one harm and the next.
const BETWEEN: usize = 10;

/// What was seen from outside.
#[derive(Default)]
struct Seen {
    over: AtomicBool,
    answers: AtomicUsize,
    /// The leaf hashes of every receipt that a caller got.
    receipts: Mutex<Vec<String>>,
    checkpoints: Mutex<BTreeSet<String>>,
}

/// Asks one replica for one run after the other, until it is over.
async fn ask(caller: Caller, tokens: impl Iterator<Item = String>, seen: Arc<Seen>) {
    for token in tokens {
        if seen.over.load(Ordering::SeqCst) {
            return;
        }
        let Some(answer) = caller.ask(&token, &["api", "aws"]).await else {
            // A replica that is away says so at once: the others' callers want the processor too.
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let all = answer["credentials"].as_object().into_iter().flat_map(|all| all.values());
        let given = all.filter(|one| one["status"] == "issued");
        let hashes: Vec<_> =
            given.map(|one| one["receipt"]["leaf_hash"].as_str().expect("a receipt").to_owned()).collect();
        if !hashes.is_empty() {
            seen.answers.fetch_add(1, Ordering::SeqCst);
        }
        seen.receipts.lock().unwrap().extend(hashes);
    }
}

/// Keeps every checkpoint that is published.
async fn watch(pool: PgPool, seen: Arc<Seen>) {
    while !seen.over.load(Ordering::SeqCst) {
        let published =
            sqlx::query_scalar::<_, String>("SELECT checkpoint FROM log_shard WHERE checkpoint IS NOT NULL")
                .fetch_all(&pool)
                .await;
        // A database that was killed has nothing to say.
        seen.checkpoints.lock().unwrap().extend(published.into_iter().flatten());
        sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until somebody was given something so many times more.
async fn progress(seen: &Seen, cluster: &Cluster) {
    let enough = seen.answers.load(Ordering::SeqCst) + BETWEEN;
    let until = Instant::now() + Duration::from_mins(1);
    while seen.answers.load(Ordering::SeqCst) < enough {
        let logs: Vec<_> = (0..cluster.len()).map(|n| cluster.log(n)).collect();
        assert!(Instant::now() < until, "nobody is given anything: {}", logs.join("\n"));
        sleep(Duration::from_millis(20)).await;
    }
}

/// Does each of `harms` `times` times, in an order and to replicas that `random` decides, two of them harmed at once.
async fn harm(cluster: &mut Cluster, seen: &Seen, mut random: StdRng, harms: &[Harm], times: usize) {
    let mut harms = harms.repeat(times);
    harms.shuffle(&mut random);
    let mut before: Option<(usize, Harm)> = None;
    for harm in harms {
        let healthy: Vec<usize> =
            (0..cluster.len()).filter(|n| before.is_none_or(|(b, _)| b != *n)).collect();
        let n = healthy[random.random_range(0..healthy.len())];
        println!("{harm:?} replica {n}");
        cluster.harm(n, harm).await;
        progress(seen, cluster).await;
        if let Some((n, harm)) = before.replace((n, harm)) {
            println!("heal replica {n} of {harm:?}");
            cluster.heal(n, harm);
        }
    }
    if let Some((n, harm)) = before {
        cluster.heal(n, harm);
    }
    for n in 0..cluster.len() {
        cluster.ready(n).await;
    }
}

/// The seed of this run, printed so that it can be repeated.
fn random() -> StdRng {
    let given = std::env::var("CORTEX_TEST_SEED").ok();
    let chosen: u64 = given.map_or_else(rand::random, |text| text.parse().expect("a number"));
    println!("CORTEX_TEST_SEED={chosen}");
    StdRng::seed_from_u64(chosen)
}

/// Callers of every replica, and somebody who keeps every checkpoint.
fn load(cluster: &Cluster, seen: &Arc<Seen>) -> Vec<JoinHandle<()>> {
    let mut load = vec![tokio::spawn(watch(cluster.pool.clone(), Arc::clone(seen)))];
    for (n, c) in (0..cluster.len()).flat_map(|n| (0..CALLERS).map(move |c| (n, c))) {
        let sandbox = Arc::clone(&cluster.sandbox);
        let tokens = (0..).map(move |i| sandbox.run_token(&first_run(&format!("n{n}-{c}-{i}"))).unwrap());
        load.push(tokio::spawn(ask(cluster.caller(n), tokens, Arc::clone(seen))));
    }
    load
}

async fn finish(cluster: &Cluster, seen: &Seen, load: Vec<JoinHandle<()>>, off: SignedDuration) {
    progress(seen, cluster).await;
    seen.over.store(true, Ordering::SeqCst);
    for done in join_all(load).await {
        done.unwrap();
    }
    check(cluster, seen, off).await;
}

async fn storm(times: usize) {
    let random = random();
    let mut cluster = Cluster::start(env!("CARGO_BIN_EXE_cortex-under-test"), 3).await;
    let seen = Arc::new(Seen::default());
    let load = load(&cluster, &seen);
    progress(&seen, &cluster).await;
    harm(&mut cluster, &seen, random, &[Harm::Kill, Harm::Stop, Harm::Cut, Harm::Stall], times).await;
    finish(&cluster, &seen, load, SignedDuration::ZERO).await;
}

/// Clocks go wrong while everybody works, forwards and back, by little and by much: what is given is still true, and on
/// record in an order that holds.
async fn wrong_clocks(times: usize) {
    // Within what a cloud tolerates, and beyond.
    const LITTLE: i32 = 20;
    let random = random();
    let mut cluster = Cluster::start(env!("CARGO_BIN_EXE_cortex-under-test"), 3).await;
    cluster.movable_clocks().await;
    let seen = Arc::new(Seen::default());
    let load = load(&cluster, &seen);
    progress(&seen, &cluster).await;
    let harms = [LITTLE, -LITTLE, 3_600, -3_600].map(Harm::Misdate);
    harm(&mut cluster, &seen, random, &harms, times).await;
    // Where a clock is off by much no token is good: nothing is minted at that time of day.
    finish(&cluster, &seen, load, SignedDuration::from_secs(LITTLE.into())).await;
}

/// The primary is killed and its synchronous standby promoted, `times` times, a replica being harmed each time.
async fn failovers(times: usize) {
    let mut random = random();
    let mut primary = primary().await;
    let mut standby = primary.synchronous_standby().await.expect("a standby");
    let mut cluster =
        Cluster::start_on(env!("CARGO_BIN_EXE_cortex-under-test"), 3, primary.url("cortex")).await;
    let seen = Arc::new(Seen::default());
    let mut load = load(&cluster, &seen);
    for turn in 1..=times {
        progress(&seen, &cluster).await;
        let harm = *[Harm::Kill, Harm::Stop, Harm::Cut].choose(&mut random).expect("a harm");
        let n = random.random_range(0..cluster.len());
        println!("{harm:?} replica {n}; failover {turn}");
        cluster.harm(n, harm).await;
        primary.kill();
        standby.promote().await.expect("a promotion");
        primary = standby;
        cluster.move_to(&primary.url("cortex")).await;
        load.push(tokio::spawn(watch(cluster.pool.clone(), Arc::clone(&seen))));
        progress(&seen, &cluster).await;
        cluster.heal(n, harm);
        standby = primary.synchronous_standby().await.expect("another standby");
    }
    for n in 0..cluster.len() {
        cluster.ready(n).await;
    }
    finish(&cluster, &seen, load, SignedDuration::ZERO).await;
}

/// The disk is full for a while: nobody is given anything, everybody is told so, and what is on record can be read.
async fn full_disk() {
    let cluster = Cluster::start(env!("CARGO_BIN_EXE_cortex-under-test"), 3).await;
    let seen = Arc::new(Seen::default());
    let load = load(&cluster, &seen);
    progress(&seen, &cluster).await;
    cluster.disk_full(true).await;
    for n in 0..cluster.len() {
        let token = cluster.sandbox.run_token(&first_run(&format!("full-{n}"))).unwrap();
        let answer = cluster.caller(n).ask(&token, &["api", "aws"]).await.expect("an answer");
        assert!(answer.to_string().contains("the record cannot be written"), "{answer}");
    }
    assert!(cluster.run(&["log", "verify"]).await.contains("whole"));
    cluster.disk_full(false).await;
    finish(&cluster, &seen, load, SignedDuration::ZERO).await;
}

/// A Postgres that keeps what it acknowledges, with an empty Cortex in it.
async fn primary() -> DevDb {
    let primary = DevDb::start(Options { durable: true }).await.expect("a primary");
    primary.create_database("cortex").await.expect("a database");
    let config = DatabaseConfig { url: Some(primary.url("cortex")), ..DatabaseConfig::default() };
    store::migrate(&config).await.expect("the schema");
    primary
}

/// Nothing that anybody was given is missing, and nothing has happened that is not on record.
async fn check(cluster: &Cluster, seen: &Seen, off: SignedDuration) {
    cluster.until("the end of every intent", "SELECT NOT EXISTS (SELECT FROM open_intent)").await;
    let sequenced = "SELECT NOT EXISTS (SELECT FROM log_chain WHERE sequenced < head) AND
                            (SELECT size = published FROM log_shard)";
    cluster.until("everything in a checkpoint", sequenced).await;
    // One intent, one outcome; and no cloud made anything without an intent.
    let ended = promises::check_by_clocks(&cluster.pool, &cluster.sandbox.mints(), off).await;
    let count = |outcome: &str| ended.iter().filter(|ended| *ended == outcome).count();
    let (issued, failed, open) = (count("issued"), count("failed"), count("indeterminate"));

    let checkpoints = seen.checkpoints.lock().unwrap().clone();
    let mut verify = vec!["log".to_owned(), "verify".to_owned(), "--json".to_owned()];
    for (n, checkpoint) in checkpoints.iter().enumerate() {
        verify.extend(["--older".to_owned(), cluster.file(&format!("checkpoint{n}"), checkpoint)]);
    }
    let verify: Vec<&str> = verify.iter().map(String::as_str).collect();
    let verified: serde_json::Value = serde_json::from_str(&cluster.run(&verify).await).unwrap();
    assert_eq!(verified["whole"], true, "{verified}");
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM record").fetch_one(&cluster.pool).await.unwrap();
    assert_eq!(verified["leaves"], rows, "something is on record and not in the log");

    let tiles: Vec<Vec<u8>> = sqlx::query_scalar("SELECT hashes FROM log_tile WHERE level = 0")
        .fetch_all(&cluster.pool)
        .await
        .unwrap();
    let leaves: BTreeSet<String> =
        tiles.iter().flat_map(|tile| tile.chunks(32)).map(|hash| STANDARD.encode(hash)).collect();
    let receipts = seen.receipts.lock().unwrap();
    let missing: Vec<_> = receipts.iter().filter(|receipt| !leaves.contains(*receipt)).collect();
    assert!(missing.is_empty(), "acknowledged and not in the log: {missing:?} of {}", receipts.len());
    println!(
        "{} receipts, {rows} records, {} checkpoints; the clouds' ended as {issued} issued, {failed} failed, \
         {open} indeterminate",
        receipts.len(),
        checkpoints.len(),
    );
    assert!(issued > 0, "no cloud's credential left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_killed_stopped_and_cut_off_under_load_keep_every_promise() {
    storm(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_synchronous_standby_takes_over_under_load_nothing_acknowledged_is_lost() {
    failovers(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_disk_is_full_nothing_leaves_and_everything_is_read() {
    full_disk().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_whose_clocks_go_wrong_under_load_keep_every_promise() {
    wrong_clocks(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make test-faults"]
async fn clocks_wrong_for_minutes() {
    wrong_clocks(4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make test-faults"]
async fn replicas_harmed_for_minutes() {
    storm(8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make test-faults"]
async fn failovers_for_minutes() {
    failovers(6).await;
}
