//! The configuration, read again while requests are served: whole, or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cortex_server::Config;
use cortex_tests::served::Served;
use cortex_tests::world::{Answer, TestWorld, answer, first_run};
use nix::sys::signal::Signal;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::time::{Instant, sleep};

async fn ask(world: &TestWorld, run: &str) -> Answer {
    let token = world.token(&first_run(run));
    world.ask(&token, json!({"policy": "first-steps", "targets": ["api"]})).await
}

/// What `/readyz` wants an operator to look at. The replica is ready all the same.
async fn warnings(world: &TestWorld) -> String {
    let ready = answer(world.http.get(world.url("/readyz"))).await;
    assert_eq!((ready.status, &ready.body["ready"]), (StatusCode::OK, &json!(true)), "{ready:?}");
    ready.body["warnings"].to_string()
}

async fn reload(world: &TestWorld, change: impl FnOnce(&mut Config)) {
    let mut config = world.world.config.clone();
    change(&mut config);
    world.world.cortex.reload(Ok(config)).await;
}

#[tokio::test]
async fn what_may_change_is_in_force_at_once() {
    let world = TestWorld::start().await;
    let dave = world.person("dave", &["data-platform"]);
    let policies = async || world.as_person(Method::GET, "/v1/policies", &dave, None).await.status;
    assert_eq!(policies().await, StatusCode::FORBIDDEN);
    reload(&world, |config| {
        config.roles.admin.insert("staff/data-platform".to_owned());
        (config.admission.run_per_second, config.admission.run_burst) = (1, 1);
    })
    .await;
    assert_eq!(policies().await, StatusCode::OK, "roles");
    assert_eq!(ask(&world, "r").await.status, StatusCode::OK);
    assert_eq!(ask(&world, "r").await.status, StatusCode::TOO_MANY_REQUESTS, "admission");
    reload(&world, |config| config.issuers.retain(|issuer| issuer.name.as_str() != "prod")).await;
    let unknown = ask(&world, "other").await;
    assert_eq!(unknown.body["error"], "invalid_request", "issuers: {unknown:?}");
    reload(&world, |config| config.providers.bigquery.provider = None).await;
    assert_eq!(ask(&world, "other").await.status, StatusCode::OK, "the issuer is back");
    let token = world.token(&first_run("big"));
    let planned = world.ask(&token, json!({"policy": "first-steps", "targets": ["bigquery"]})).await;
    assert_eq!(planned.body["error"], "invalid_target", "providers: {planned:?}");
    assert_eq!(warnings(&world).await, "[]");
    assert_eq!(policies().await, StatusCode::FORBIDDEN, "what is no longer said no longer holds");
}

#[tokio::test]
async fn what_cannot_be_taken_over_changes_nothing_and_is_said() {
    let world = TestWorld::start().await;
    let said = "roles: \"nobody/x\" is not issuer/group with a configured issuer's name";
    world.world.cortex.reload(Err(said.to_owned())).await;
    assert!(warnings(&world).await.contains("nobody/x"), "{}", warnings(&world).await);
    assert_eq!(ask(&world, "r").await.status, StatusCode::OK, "the one before is in force");
    reload(&world, |_| {}).await;
    assert_eq!(warnings(&world).await, "[]", "a good one ends it");
}

#[tokio::test]
async fn what_is_read_at_a_start_only_is_named() {
    let world = TestWorld::start().await;
    reload(&world, |config| {
        config.server.max_body_bytes = 100;
        config.leases.max_bytes = 1;
        config.admission.run_per_second = 7;
    })
    .await;
    let said = warnings(&world).await;
    assert!(said.contains("read at a start only: server, leases"), "{said}");
    assert_eq!(ask(&world, "r").await.status, StatusCode::OK, "a body of more than 100 bytes is still read");
}

#[tokio::test]
async fn nobody_notices_a_reload() {
    let world = Arc::new(TestWorld::start().await);
    let (done, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load = (0..4).map(|worker| {
        let (world, done, served) = (Arc::clone(&world), Arc::clone(&done), Arc::clone(&served));
        tokio::spawn(async move {
            let mut round = 0;
            while !done.load(Ordering::Relaxed) {
                round += 1;
                let answer = ask(&world, &format!("r{worker}-{round}")).await;
                assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
                served.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let load: Vec<_> = load.collect();
    for round in 1..=8_u32 {
        let before = served.load(Ordering::Relaxed);
        reload(&world, |config| {
            config.issuers[0].max_token_lifetime += round;
            config.providers.aws.max_calls_per_second += round;
            config.admission.max_exchanges += 1;
        })
        .await;
        crate::transport::until("load", || async { served.load(Ordering::Relaxed) > before + 4 }).await;
    }
    done.store(true, Ordering::Relaxed);
    for worker in load {
        worker.await.expect("no request failed");
    }
}

#[tokio::test]
async fn a_hangup_reads_the_file_again() {
    let mut served = Served::new(env!("CARGO_BIN_EXE_cortex-under-test"), |_| {}).await;
    served.start().await;
    let ready = async || {
        let found = answer(served.http().get(format!("{}/readyz", served.url))).await;
        (found.status, found.body["warnings"].to_string())
    };
    assert_eq!(ready().await, (StatusCode::OK, "[]".to_owned()));
    let until = async |what: &str, said: &str| {
        let deadline = Instant::now() + crate::transport::PATIENCE;
        while !ready().await.1.contains(said) {
            assert!(Instant::now() < deadline, "{what}: {:?}", ready().await);
            sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let good = served.configuration();
    served.configure(&good.replace("run_per_second = 20", "run_per_sekond = 1"));
    served.signal(Signal::SIGHUP);
    until("a fault", "run_per_sekond").await;
    assert_eq!(ready().await.0, StatusCode::OK, "the process goes on, and is ready");
    served.configure(&good.replace("drain_timeout_s = 25", "drain_timeout_s = 26"));
    served.signal(Signal::SIGHUP);
    until("what waits", "read at a start only: server").await;
    served.configure(
        &good
            .replace("run_burst = 200", "run_burst = 1")
            .replace("run_per_second = 20", "run_per_second = 1"),
    );
    served.signal(Signal::SIGHUP);
    until("nothing", "[]").await;
    let answers = [
        served.ask(&served.sandbox.run_token(&first_run("r")).unwrap(), &["api"]).await,
        served.ask(&served.sandbox.run_token(&first_run("r")).unwrap(), &["api"]).await,
    ];
    assert_eq!(answers.map(|answer| answer.status), [StatusCode::OK, StatusCode::TOO_MANY_REQUESTS]);
}
