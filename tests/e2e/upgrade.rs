//! Replicas are replaced one after the other under load, and nobody who asks a ready one is failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use cortex_tests::cluster::{Caller, Cluster};
use cortex_tests::promises;
use cortex_tests::world::{database, first_run};
use futures_util::future::join_all;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

const REPLICAS: usize = 3;
const CALLERS: usize = 4;

/// What a load balancer does: asks each replica whether it is ready, and sends callers to those that said so last.
struct Balancer {
    callers: Vec<Caller>,
    ready: Vec<AtomicBool>,
    turn: AtomicUsize,
    served: AtomicUsize,
    over: AtomicBool,
}

impl Balancer {
    fn new(cluster: &Cluster) -> Arc<Self> {
        let callers: Vec<_> = (0..REPLICAS).map(|n| cluster.caller(n)).collect();
        let ready = callers.iter().map(|_| AtomicBool::new(true)).collect();
        let (turn, served, over) = <(AtomicUsize, AtomicUsize, AtomicBool)>::default();
        Arc::new(Self { callers, ready, turn, served, over })
    }

    async fn look(self: Arc<Self>, n: usize) {
        while !self.over.load(Ordering::SeqCst) {
            let ready = self.callers[n].is_ready().await;
            self.ready[n].store(ready, Ordering::SeqCst);
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn next(&self) -> &Caller {
        loop {
            let n = self.turn.fetch_add(1, Ordering::SeqCst) % REPLICAS;
            if self.ready[n].load(Ordering::SeqCst) {
                return &self.callers[n];
            }
        }
    }

    async fn ask(self: Arc<Self>, tokens: Vec<String>) {
        for token in tokens {
            if self.over.load(Ordering::SeqCst) {
                return;
            }
            let answer = self.next().ask(&token, &["api", "aws"]).await.expect("an answer");
            for provider in ["api", "aws"] {
                assert_eq!(answer["credentials"][provider]["status"], "issued", "{answer}");
            }
            self.served.fetch_add(1, Ordering::SeqCst);
        }
        panic!("the callers ran out of runs");
    }

    /// Waits until so many more were served.
    async fn served(&self, more: usize) {
        let enough = self.served.load(Ordering::SeqCst) + more;
        let until = Instant::now() + Duration::from_mins(1);
        while self.served.load(Ordering::SeqCst) < enough {
            assert!(Instant::now() < until, "nobody is served");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

fn load(cluster: &Cluster, balancer: &Arc<Balancer>) -> Vec<JoinHandle<()>> {
    let looks = (0..REPLICAS).map(|n| tokio::spawn(Arc::clone(balancer).look(n)));
    let mut tasks: Vec<_> = looks.collect();
    for c in 0..CALLERS {
        let token = |i| cluster.sandbox.run_token(&first_run(&format!("u{c}-{i}"))).unwrap();
        tasks.push(tokio::spawn(Arc::clone(balancer).ask((0..3_000).map(token).collect())));
    }
    tasks
}

async fn finish(cluster: &Cluster, balancer: &Balancer, tasks: Vec<JoinHandle<()>>) {
    balancer.over.store(true, Ordering::SeqCst);
    for task in join_all(tasks).await {
        task.expect("no caller was failed");
    }
    cluster.until("the end of every intent", "SELECT NOT EXISTS (SELECT FROM open_intent)").await;
    let ended = promises::check(&cluster.pool, &cluster.sandbox.mints()).await;
    assert!(ended.iter().all(|outcome| outcome == "issued"), "{ended:?}");
    cluster.run(&["log", "verify"]).await;
}

async fn three() -> Cluster {
    let patient = |config: &mut cortex_server::Config| config.server.shutdown_delay_s = 1;
    Cluster::start_with(env!("CARGO_BIN_EXE_cortex-under-test"), REPLICAS, database().await, patient).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_are_replaced_under_load_and_no_request_fails() {
    let mut cluster = three().await;
    let balancer = Balancer::new(&cluster);
    let tasks = load(&cluster, &balancer);
    balancer.served(10).await;
    for n in 0..REPLICAS {
        cluster.replace(n).await;
        balancer.served(10).await;
    }
    finish(&cluster, &balancer, tasks).await;
}

/// The next version's migration adds columns, indexes and tables, as every one does; the old version serves on meanwhile,
/// and is told apart when it is started on what is newer than itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_schema_comes_under_load_while_the_old_version_serves() {
    let cluster = three().await;
    let balancer = Balancer::new(&cluster);
    let tasks = load(&cluster, &balancer);
    balancer.served(10).await;
    for statement in [
        "SET lock_timeout = '2s'",
        "ALTER TABLE record ADD COLUMN of_the_next_version text",
        "ALTER TABLE grant_request ADD COLUMN of_the_next_version text",
        "CREATE TABLE of_the_next_version (id uuid PRIMARY KEY)",
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'the next version', true, '\\x00', 0)",
    ] {
        sqlx::raw_sql(statement).execute(&cluster.pool).await.expect(statement);
        balancer.served(5).await;
    }
    let said = cluster.fails(&["migrate"]).await;
    assert!(said.contains("newer than this cortex"), "{said}");
    // What follows is asked of the version that is here.
    sqlx::raw_sql("DELETE FROM _sqlx_migrations WHERE version = 9999").execute(&cluster.pool).await.unwrap();
    finish(&cluster, &balancer, tasks).await;
}
