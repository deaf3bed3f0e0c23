//! How a replica leaves: it says so first, still answers meanwhile, and what was under way is terminal on record.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cortex_sandbox::{Cloud, Fault, FaultMode};
use cortex_server::Running;
use cortex_server::random::SystemRandom;
use cortex_tests::promises::kept;
use cortex_tests::world::{INSIDE, TestWorld, answer, first_run};
use reqwest::{Client, StatusCode};
use serde_json::json;
use tokio::net::TcpListener;

use super::until;

/// A replica beside the world's, which says for a second that it is not ready before it closes its door.
async fn leaving(world: &TestWorld) -> Running {
    let mut config = world.world.config.clone();
    config.server.public_url = Some(world.world.cortex.issuer_url.clone());
    config.server.replica = Some("second".to_owned());
    config.server.shutdown_delay_s = 1;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let environment =
        cortex_server::Environment { clock: Arc::new(world.clock.clone()), random: Arc::new(SystemRandom) };
    cortex_server::start(config, listener, environment).await.unwrap()
}

#[tokio::test]
async fn it_is_not_ready_before_its_door_closes_and_ends_what_is_under_way() {
    let world = TestWorld::start().await;
    let second = leaving(&world).await;
    let url = format!("http://{}", second.address);
    let fresh = Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
    let ask = |run: &str, targets: &[&str]| {
        let request = fresh.post(format!("{url}/v1/credentials")).bearer_auth(world.token(&first_run(run)));
        let request = request.header("x-forwarded-for", INSIDE);
        answer(request.json(&json!({"policy": "first-steps", "targets": targets})))
    };
    let slow = Fault { operation: None, mode: FaultMode::Delay(2_500), remaining: Some(1) };
    world.world.sandbox.fault(Cloud::Aws, slow);
    let underway = tokio::spawn(ask("underway", &["aws"]));
    until("the intent", || async { !world.record(&["issuance.intent"]).await.is_empty() }).await;

    let stopped = tokio::spawn(second.shut_down());
    let readyz = || fresh.get(format!("{url}/readyz")).send();
    until("not ready", || async { readyz().await.unwrap().status() == StatusCode::SERVICE_UNAVAILABLE })
        .await;
    let late = ask("late", &["api"]).await;
    assert_eq!(late.status, StatusCode::OK, "it still answers: {late:?}");
    until("a closed door", || async { readyz().await.is_err() }).await;
    let underway = underway.await.unwrap();
    assert_eq!(underway.status, StatusCode::OK, "what was under way is answered: {underway:?}");
    stopped.await.unwrap();
    assert_eq!(kept(&world).await, ["issued"]);
}

#[tokio::test]
async fn replicas_are_exchanged_under_load_and_no_request_fails() {
    let world = TestWorld::start().await;
    let first = leaving(&world).await;
    let (done, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    // A load balancer: it asks who is ready, and sends a request there.
    let balancer = Client::builder().no_proxy().build().unwrap();
    let mut urls = vec![format!("http://{}", first.address)];
    let second = leaving(&world).await;
    urls.push(format!("http://{}", second.address));
    let load = (0..4).map(|worker| {
        let (client, urls) = (balancer.clone(), urls.clone());
        let (done, served) = (Arc::clone(&done), Arc::clone(&served));
        let tokens: Vec<_> =
            (0..400).map(|n| world.token(&first_run(&format!("load-{worker}-{n}")))).collect();
        tokio::spawn(async move {
            for token in tokens {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let mut ready = None;
                for url in &urls {
                    let readyz = client.get(format!("{url}/readyz")).send().await;
                    if readyz.is_ok_and(|answer| answer.status() == StatusCode::OK) {
                        ready = Some(url);
                        break;
                    }
                }
                let url = ready.expect("one is always ready");
                let request = client.post(format!("{url}/v1/credentials")).bearer_auth(token);
                let request = request.header("x-forwarded-for", INSIDE);
                let found = answer(request.json(&json!({"policy": "first-steps", "targets": ["api"]}))).await;
                assert_eq!(found.status, StatusCode::OK, "{found:?}");
                served.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let load: Vec<_> = load.collect();
    until("load", || async { served.load(Ordering::Relaxed) > 8 }).await;
    first.shut_down().await;
    let before = served.load(Ordering::Relaxed);
    until("load at the other", || async { served.load(Ordering::Relaxed) > before + 8 }).await;
    done.store(true, Ordering::Relaxed);
    for worker in load {
        worker.await.expect("no request failed");
    }
    second.shut_down().await;
}
