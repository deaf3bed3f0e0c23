//! Telling people: signed, at least once, tried again with pauses, and given up in the open.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::hmac;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use cortex_server::Config;
use cortex_server::notify::{Format, NotificationConfig};
use cortex_tests::served::Served;
use cortex_tests::world::TestWorld;
use jiff::SignedDuration;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::grants::{bob_approves, by_hand, pending};
use crate::replicas::second;

pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef-the-secret";

/// One POST that arrived.
#[derive(Debug, Clone)]
struct Arrived {
    id: String,
    event: String,
    signature: Option<String>,
    body: Vec<u8>,
}

impl Arrived {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Somebody's endpoint: answers as it is told, and 200 otherwise.
#[derive(Clone, Default)]
struct Receiver {
    arrived: Arc<Mutex<Vec<Arrived>>>,
    answers: Arc<Mutex<Vec<StatusCode>>>,
    silent: Arc<Mutex<bool>>,
}

async fn receive(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let arrived = Arrived {
        id: text("cortex-notification-id").unwrap(),
        event: text("cortex-event").unwrap(),
        signature: text("cortex-signature"),
        body: body.to_vec(),
    };
    receiver.arrived.lock().unwrap().push(arrived);
    if *receiver.silent.lock().unwrap() {
        std::future::pending::<()>().await;
    }
    receiver.answers.lock().unwrap().pop().unwrap_or(StatusCode::OK)
}

impl Receiver {
    async fn start() -> (Self, String) {
        let receiver = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?token=webhook-secret", listener.local_addr().unwrap());
        let router = Router::new().fallback(receive).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (receiver, url)
    }

    fn arrived(&self) -> Vec<Arrived> {
        self.arrived.lock().unwrap().clone()
    }

    async fn until(&self, count: usize) -> Vec<Arrived> {
        let until = Instant::now() + Duration::from_mins(1);
        while self.arrived().len() < count {
            assert!(Instant::now() < until, "{count} never came: {:?}", self.arrived());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.arrived()
    }
}

fn endpoint(name: &str, url: &str) -> NotificationConfig {
    NotificationConfig { secret_file: Some(kept("secret", SECRET)), ..NotificationConfig::new(name, url) }
}

/// A file with one line.
pub(crate) fn kept(kind: &str, line: &str) -> PathBuf {
    let file = std::env::temp_dir().join(format!("cortex-{}.{kind}", uuid::Uuid::from_u128(rand::random())));
    std::fs::write(&file, format!("{line}\n")).unwrap();
    file
}

async fn told(url: &str, adjust: impl FnOnce(&mut NotificationConfig)) -> TestWorld {
    let mut one = endpoint("chatops", url);
    adjust(&mut one);
    TestWorld::start_with(move |config: &mut Config| config.notifications = vec![one]).await
}

async fn until_the_outbox(world: &TestWorld, what: &str, query: &'static str) {
    let until = Instant::now() + Duration::from_mins(1);
    while !sqlx::query_scalar::<_, bool>(query).fetch_one(world.pool()).await.unwrap() {
        assert!(Instant::now() < until, "{what} never came");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

const EMPTY: &str = "SELECT NOT EXISTS (SELECT FROM notification)";

/// Whether a body was signed with [`SECRET`] at this time, in seconds since 1970.
pub(crate) fn verify(signature: &str, body: &[u8], now: i64) {
    let (time, mac) = signature.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
    assert_eq!(time, now.to_string());
    let signed = [time.as_bytes(), b".", body].concat();
    let key = |secret: &str| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mac = hex::decode(mac).unwrap();
    hmac::verify(&key(SECRET), &signed, &mac).expect("signed with the secret");
    assert!(hmac::verify(&key("another"), &signed, &mac).is_err());
    let changed = [time.as_bytes(), b".", b"{}"].concat();
    assert!(hmac::verify(&key(SECRET), &changed, &mac).is_err(), "it is the body that is signed");
}

#[tokio::test]
async fn a_request_and_its_decision_are_told_signed_and_with_a_link_to_the_grant() {
    let (receiver, url) = Receiver::start().await;
    let world = told(&url, |_| {}).await;
    let grant = pending(&world, &by_hand("m1"), "first-steps").await;
    bob_approves(&world, &grant).await;
    let mut arrived = receiver.until(2).await;
    arrived.sort_by(|a, b| b.event.cmp(&a.event));
    for one in &arrived {
        verify(one.signature.as_deref().expect("a signature"), &one.body, world.now().as_second());
        let text = String::from_utf8(one.body.clone()).unwrap();
        assert!(!text.contains("groups") && !text.contains("eyJ"), "{text}");
        assert_eq!(one.json()["link"], world.url(&format!("/console/grants/{grant}")));
    }
    let events: Vec<_> = arrived.iter().map(|one| one.event.as_str()).collect();
    assert_eq!(events, ["grant.requested", "grant.decided"]);
    let decided = arrived[1].json();
    assert_eq!(decided["type"], "cortex.grant.decided");
    assert_eq!(decided["data"]["by"], "person:staff:bob", "{decided}");
    assert_eq!(decided["data"]["status"], "approved", "{decided}");
    until_the_outbox(&world, "the end", EMPTY).await;
    assert_eq!(world.ask_for(&by_hand("m1"), "first-steps").await.status, StatusCode::OK);
    assert_eq!(receiver.arrived().len(), 2, "an issuance is told to nobody");
}

#[tokio::test]
async fn only_what_is_wanted_is_told_but_a_broken_glass_in_any_case() {
    let (receiver, url) = Receiver::start().await;
    let world = told(&url, |one| {
        one.events = ["grant.expired".to_owned()].into();
        one.format = Format::Slack;
        // The URL of a chat's webhook is a secret.
        one.url_file = one.url.take().map(|url| kept("url", &url));
    })
    .await;
    pending(&world, &by_hand("m1"), "first-steps").await;
    let glass = "when: {max_ttl: 30m}\nbreak_glass: {approvers: {groups: [staff/finance-admins]}}";
    crate::grants::apply(&world, &crate::grants::close_books_at(glass, "")).await;
    let ask = json!({"policy": "close-books", "break_glass": true, "reason": "<!here> now"});
    let waiting = world.ask(&world.token(&by_hand("m1")), ask).await;
    assert_eq!(waiting.body["error"], "authorization_pending", "{waiting:?}");
    let arrived = receiver.until(1).await;
    let body = arrived[0].json();
    assert_eq!(arrived[0].event, "grant.requested");
    assert!(body["text"].as_str().unwrap().starts_with("BREAK GLASS"), "{body}");
    assert!(body["blocks"].to_string().contains("&lt;!here&gt; now"), "{body}");
    until_the_outbox(&world, "the end", EMPTY).await;
    assert_eq!(receiver.arrived().len(), 1);
}

#[tokio::test]
async fn what_fails_is_tried_again_after_a_pause_under_the_same_id() {
    let (receiver, url) = Receiver::start().await;
    receiver.answers.lock().unwrap().push(StatusCode::INTERNAL_SERVER_ERROR);
    let world = told(&url, |_| {}).await;
    pending(&world, &by_hand("m1"), "first-steps").await;
    receiver.until(1).await;
    let waits =
        "SELECT EXISTS (SELECT FROM notification WHERE attempts = 1 AND last_error LIKE '%HTTP 500%')";
    until_the_outbox(&world, "the failure", waits).await;
    world.clock.advance(SignedDuration::from_secs(2));
    world.world.cortex.broker.notifier.deliver_due(&world.world.cortex.broker).await.unwrap();
    assert_eq!(receiver.arrived().len(), 1, "not before its pause is over");
    world.clock.advance(SignedDuration::from_secs(4));
    let arrived = receiver.until(2).await;
    assert_eq!((&arrived[0].id, &arrived[0].body), (&arrived[1].id, &arrived[1].body));
    until_the_outbox(&world, "the end", EMPTY).await;
}

#[tokio::test]
async fn what_never_arrives_is_given_up_on_record_and_an_admin_tries_it_again() {
    let (receiver, url) = Receiver::start().await;
    let answers = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::BAD_GATEWAY, StatusCode::NOT_FOUND];
    receiver.answers.lock().unwrap().extend(answers);
    let world = told(&url, |one| one.max_attempts = 3).await;
    let grant = pending(&world, &by_hand("m1"), "first-steps").await;
    for failed in [
        "SELECT EXISTS (SELECT FROM notification WHERE last_error LIKE '%404' AND status = 'pending')",
        "SELECT EXISTS (SELECT FROM notification WHERE last_error LIKE '%502' AND status = 'pending')",
        "SELECT EXISTS (SELECT FROM notification WHERE last_error LIKE '%503' AND status = 'dead')",
    ] {
        until_the_outbox(&world, failed, failed).await;
        world.clock.advance(SignedDuration::from_secs(60));
    }
    let dead = world.record(&["notification.dead"]).await;
    assert_eq!((dead.len(), &dead[0]["attempts"]), (1, &json!(3)), "{dead:?}");
    assert!(!dead[0].to_string().contains("webhook-secret"), "{dead:?}");
    let erin = world.person("erin", &["cortex-admins"]);
    let listed = world.as_person(Method::GET, "/v1/notifications?status=dead", &erin, None).await;
    let one = listed.body["notifications"][0].clone();
    assert_eq!(one["grant_id"], json!(grant), "{listed:?}");
    assert_eq!(one["last_error"], "it answered HTTP 503", "{listed:?}");
    let path = format!("/v1/notifications/{}/retry", one["id"].as_str().unwrap());
    let dave = world.person("dave", &["auditors"]);
    assert_eq!(world.as_person(Method::POST, &path, &dave, None).await.status, StatusCode::FORBIDDEN);
    assert_eq!(world.as_person(Method::POST, &path, &erin, None).await.status, StatusCode::ACCEPTED);
    receiver.until(4).await;
    until_the_outbox(&world, "the end", EMPTY).await;
    assert_eq!(world.as_person(Method::POST, &path, &erin, None).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn two_replicas_tell_each_thing_once() {
    let (receiver, url) = Receiver::start().await;
    let world = told(&url, |_| {}).await;
    let second = second(&world).await;
    for run in 0..20 {
        pending(&world, &by_hand(&format!("m{run}")), "first-steps").await;
    }
    receiver.until(20).await;
    until_the_outbox(&world, "the end", EMPTY).await;
    let mut ids: Vec<_> = receiver.arrived().into_iter().map(|one| one.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!((ids.len(), receiver.arrived().len()), (20, 20));
    second.shut_down().await;
}

#[tokio::test]
async fn a_replica_that_dies_while_it_tells_leaves_it_to_the_next() {
    let (receiver, url) = Receiver::start().await;
    *receiver.silent.lock().unwrap() = true;
    let mut served = Served::new(env!("CARGO_BIN_EXE_cortex-under-test"), |config| {
        config.notifications = vec![NotificationConfig { timeout_s: 60, ..endpoint("chatops", &url) }];
    })
    .await;
    served.start().await;
    let token = served.sandbox.run_token(&by_hand("m1")).unwrap();
    let waiting = served.ask(&token, &["api"]).await;
    assert_eq!(waiting.body["error"], "authorization_pending", "{waiting:?}");
    receiver.until(1).await;
    served.kill().await;
    *receiver.silent.lock().unwrap() = false;
    // Its time to say how it went is over sooner than the test's.
    sqlx::query("UPDATE notification SET due_at = now()").execute(&served.pool).await.unwrap();
    served.start().await;
    let arrived = receiver.until(2).await;
    assert_eq!(arrived[0].id, arrived[1].id, "a receiver tells that it is the same");
    served.until("the end", EMPTY).await;
    assert!(!served.log().contains("webhook-secret") && !served.log().contains(SECRET));
}
