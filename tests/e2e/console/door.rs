//! Who comes in: sign-in with every part of it meddled with, sessions and how they end, people who are disabled.

use std::sync::Arc;

use cortex_server::random::SystemRandom;
use cortex_server::sign_in::SignInConfig;
use cortex_server::{Environment, supervisor};
use cortex_tests::attack::counted;
use cortex_tests::world::TestWorld;
use jiff::SignedDuration;
use reqwest::{Method, StatusCode, Url};
use serde_json::json;
use tokio::net::TcpListener;

use super::visit::{Visit, with};

async fn sessions(world: &TestWorld) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM session").fetch_one(world.pool()).await.unwrap()
}

#[tokio::test]
async fn a_person_signs_in_and_out_and_the_cookie_is_worth_nothing_afterwards() {
    let world = TestWorld::start().await;
    let mut visit = Visit::new(&world);
    let first = visit.get("/console/grants?x=1").await;
    assert_eq!(first.headers["location"], "/console/sign-in?return_to=%2Fconsole%2Fgrants%3Fx%3D1");

    let entered = visit.sign_in("approver").await;
    assert_eq!(entered.status, StatusCode::OK, "{entered:?}");
    assert!(entered.body.as_str().unwrap().contains("url=/console\""), "{entered:?}");
    let cookie = entered
        .headers
        .get_all("set-cookie")
        .iter()
        .find(|c| !c.to_str().unwrap().contains("cortex-sign-in"));
    let cookie = cookie.unwrap().to_str().unwrap();
    for part in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains("Secure") && !cookie.contains("Domain"), "plain http on loopback: {cookie}");
    assert!(!visit.cookies.contains_key("cortex-sign-in"), "what the sign-in remembered is used up");

    let home = visit.get("/console").await;
    assert_eq!(home.status, StatusCode::OK, "{home:?}");
    let page = home.body.as_str().unwrap();
    assert!(page.contains("approver@acme.example") && page.contains("Nothing waits for you"), "{page}");
    let started = world.record(&["session.started"]).await;
    assert_eq!(started[0]["by"]["subject"], "approver");
    let secret = visit.cookies["cortex"].clone();
    assert!(!started[0].to_string().contains(&secret), "the record holds no secret");
    let stored: String =
        sqlx::query_scalar("SELECT s::text FROM session s").fetch_one(world.pool()).await.unwrap();
    assert!(!stored.contains(&secret), "nor does the database");

    let token = visit.token("/console").await;
    let out = visit.post("/console/sign-out", &[("token", &token)]).await;
    assert_eq!(out.status, StatusCode::OK, "{out:?}");
    visit.cookies.insert("cortex".into(), secret);
    assert_eq!(visit.get("/console").await.status, StatusCode::SEE_OTHER, "the kept cookie opens nothing");
    assert_eq!(world.record(&["session.ended"]).await[0]["why"], "signed_out");
}

#[tokio::test]
async fn every_page_forbids_what_it_does_not_need_and_assets_are_kept_for_good() {
    let world = TestWorld::start().await;
    let mut visit = Visit::new(&world);
    visit.sign_in("admin").await;
    let home = visit.get("/console").await;
    let policy = home.headers["content-security-policy"].to_str().unwrap();
    for part in [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(home.headers["cache-control"], "no-store");
    let page = home.body.as_str().unwrap();
    for (before, kind) in [("stylesheet\" href=\"", "text/css"), ("<script src=\"", "text/javascript")] {
        let path = page.split_once(before).unwrap().1.split('"').next().unwrap();
        let asset = visit.get(path).await;
        assert_eq!(asset.status, StatusCode::OK, "{path}");
        assert!(asset.headers["content-type"].to_str().unwrap().starts_with(kind));
        assert_eq!(asset.headers["cache-control"], "public, max-age=31536000, immutable");
    }
    assert!(
        !page.contains("style=") && !page.contains("onclick") && !page.contains("<style"),
        "nothing is inline"
    );
}

/// What is done to the address that the browser comes back with.
type Meddle = fn(&Url) -> Url;

#[tokio::test]
async fn a_sign_in_that_was_meddled_with_brings_no_session() {
    let world = TestWorld::start().await;
    let cases: [(&str, &str, Meddle); 6] = [
        ("another state", "state", |url| with(url, "state", Some("x"))),
        ("no state", "state", |url| with(url, "state", None)),
        ("another issuer", "iss", |url| with(url, "iss", Some("https://evil.example"))),
        ("no issuer, though it promised one", "iss", |url| with(url, "iss", None)),
        ("another code", "provider_refused", |url| with(url, "code", Some("x"))),
        ("no code", "code", |url| with(url, "code", None)),
    ];
    for (what, reason, meddle) in cases {
        let before = counted(&world, reason).await;
        let mut visit = Visit::new(&world);
        let authorize = visit.begin().await;
        let callback = visit.pick(&authorize, "admin").await;
        let refused = visit.get(meddle(&callback.url).as_str()).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{what}: {refused:?}");
        assert!(!visit.cookies.contains_key("cortex"), "{what}");
        assert_eq!(counted(&world, reason).await, before + 1, "{what}: counted");
    }
    assert_eq!(sessions(&world).await, 0);
}

#[tokio::test]
async fn a_sign_in_belongs_to_the_browser_that_began_it_and_is_good_once() {
    let world = TestWorld::start().await;
    let (mut victim, mut attacker) = (Visit::new(&world), Visit::new(&world));
    let authorize = attacker.begin().await;
    let callback = attacker.pick(&authorize, "engineer").await;
    let planted = victim.get(callback.url.as_str()).await;
    assert_eq!(planted.status, StatusCode::BAD_REQUEST, "a victim is not signed in as somebody else");
    victim.begin().await;
    let planted = victim.get(callback.url.as_str()).await;
    assert_eq!(planted.status, StatusCode::BAD_REQUEST, "nor in the middle of a sign-in of their own");

    let kept = attacker.cookies.clone();
    assert_eq!(attacker.get(callback.url.as_str()).await.status, StatusCode::OK);
    attacker.cookies = kept;
    let again = attacker.get(callback.url.as_str()).await;
    assert_eq!(again.status, StatusCode::BAD_REQUEST, "the code was used: {again:?}");
    assert_eq!(sessions(&world).await, 1);
}

#[tokio::test]
async fn pkce_nonce_and_time_hold() {
    let world = TestWorld::start().await;
    let mut visit = Visit::new(&world);
    let authorize = visit.begin().await;
    let asked: std::collections::BTreeMap<_, _> = authorize.query_pairs().into_owned().collect();
    assert_eq!(asked["code_challenge_method"], "S256");
    assert_eq!(asked["redirect_uri"], world.url("/console/callback"));
    assert!(asked["state"].len() >= 43 && asked["nonce"].len() >= 43 && asked["state"] != asked["nonce"]);

    let stripped = with(&with(&authorize, "code_challenge", None), "as", Some("admin"));
    assert_eq!(visit.get(stripped.as_str()).await.status, StatusCode::BAD_REQUEST, "the provider wants PKCE");
    let other = visit
        .pick(
            &with(&authorize, "code_challenge", Some("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM")),
            "admin",
        )
        .await;
    let refused = visit.get(other.url.as_str()).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "a code for another verifier: {refused:?}");

    let authorize = visit.begin().await;
    let injected = visit.pick(&with(&authorize, "nonce", Some("injected")), "admin").await;
    let refused = visit.get(injected.url.as_str()).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "an ID token of another sign-in: {refused:?}");
    let on_record = world.record(&["session.refused"]).await;
    assert_eq!(on_record[0]["reason"], "nonce");
    assert_eq!(on_record[0]["person"], "person:staff:admin");

    let authorize = visit.begin().await;
    world.clock.advance(SignedDuration::from_mins(11));
    let late = visit.pick(&authorize, "admin").await;
    assert_eq!(visit.get(late.url.as_str()).await.status, StatusCode::BAD_REQUEST, "too late");
    assert_eq!(sessions(&world).await, 0);
}

#[tokio::test]
async fn nobody_is_sent_anywhere_but_to_the_console() {
    let world = TestWorld::start().await;
    let mut visit = Visit::new(&world);
    for target in [
        "//evil",
        "%2F%2Fevil.example",
        "https://evil.example",
        "/\\evil",
        "/v1/grants",
        "/console/../v1",
        "/console//evil",
    ] {
        let answer = visit.get(&format!("/console/sign-in?return_to={target}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{target}: {answer:?}");
        assert!(!answer.headers.contains_key("set-cookie"), "{target}");
    }
    let begun = visit.get("/console/sign-in?return_to=/console/policies").await;
    let callback = visit.pick(&super::visit::location(&begun), "auditor").await;
    let entered = visit.get(callback.url.as_str()).await;
    assert!(entered.body.as_str().unwrap().contains("url=/console/policies\""), "{entered:?}");
}

#[tokio::test]
async fn a_session_ends_when_it_is_not_used_and_when_its_time_is_over() {
    let world = TestWorld::start_with(|config| {
        config.sign_in.idle_ttl_s = 600;
        config.sign_in.session_ttl_s = 3_600;
    })
    .await;
    let (mut idle, mut busy) = (Visit::new(&world), Visit::new(&world));
    idle.sign_in("auditor").await;
    busy.sign_in("admin").await;
    for _ in 0..6 {
        assert_eq!(busy.get("/console").await.status, StatusCode::OK);
        // A page that keeps itself fresh does not keep its session alive.
        idle.get("/console/waiting").await;
        world.clock.advance(SignedDuration::from_secs(590));
    }
    assert_eq!(idle.get("/console").await.status, StatusCode::SEE_OTHER, "not used for ten minutes");
    assert_eq!(busy.get("/console").await.status, StatusCode::OK, "used all the time");
    world.clock.advance(SignedDuration::from_secs(120));
    assert_eq!(busy.get("/console").await.status, StatusCode::SEE_OTHER, "an hour is over");
    supervisor::sweep(&world.world.cortex.broker).await.unwrap();
    assert_eq!(sessions(&world).await, 0);
    let ended = world.record(&["session.ended"]).await;
    assert_eq!(ended.iter().filter(|end| end["why"] == "expired").count(), 2);
}

#[tokio::test]
async fn a_disabled_person_is_out_everywhere_at_once() {
    let world = TestWorld::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = world.world.config.clone();
    config.server.public_url = Some(world.url(""));
    let environment = Environment { clock: Arc::new(world.clock.clone()), random: Arc::new(SystemRandom) };
    let second = cortex_server::start(config, listener, environment).await.unwrap();
    let mut visit = Visit::new(&world);
    visit.sign_in("approver").await;
    let bearer = world.person("approver", &["finance-admins"]);
    let at_second = format!("http://{}/v1/me", second.address);
    let me = world.http.get(&at_second).bearer_auth(&bearer).send().await.unwrap();
    assert_eq!(me.status(), StatusCode::OK);

    let admin = world.person("ada", &["cortex-admins"]);
    let name = json!({"issuer": "staff", "subject": "approver"});
    let done = world.as_person(Method::POST, "/v1/people/disable", &admin, Some(name.clone())).await;
    assert_eq!((done.status, &done.body["changed"]), (StatusCode::OK, &json!(true)), "{done:?}");
    assert_eq!(visit.get("/console").await.status, StatusCode::SEE_OTHER, "the session is over");
    let me = world.http.get(&at_second).bearer_auth(&bearer).send().await.unwrap();
    assert_eq!(me.status(), StatusCode::UNAUTHORIZED, "the token is refused at the other replica");
    let again = visit.sign_in("approver").await;
    assert_eq!(again.status, StatusCode::FORBIDDEN, "{again:?}");
    assert_eq!(world.record(&["session.refused"]).await[0]["reason"], "disabled");
    assert_eq!(world.record(&["session.ended"]).await[0]["why"], "disabled");
    assert_eq!(world.record(&["person.disabled"]).await[0]["subject"], "approver");

    let myself = json!({"issuer": "staff", "subject": "ada"});
    let own = world.as_person(Method::POST, "/v1/people/disable", &admin, Some(myself)).await;
    assert_eq!(own.status, StatusCode::CONFLICT, "nobody locks themselves out");
    let unknown = json!({"issuer": "prod", "subject": "x"});
    let refused = world.as_person(Method::POST, "/v1/people/disable", &admin, Some(unknown)).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    let auditor = world.person("dave", &["auditors"]);
    let refused = world.as_person(Method::POST, "/v1/people/disable", &auditor, Some(name.clone())).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);

    let back = world.as_person(Method::POST, "/v1/people/enable", &admin, Some(name)).await;
    assert_eq!(back.status, StatusCode::OK);
    assert_eq!(visit.sign_in("approver").await.status, StatusCode::OK);
    second.shut_down().await;
}

#[tokio::test]
async fn admins_end_sessions_and_the_api_takes_no_cookie() {
    let world = TestWorld::start().await;
    let mut visit = Visit::new(&world);
    visit.sign_in("admin").await;
    assert_eq!(visit.get("/v1/me").await.status, StatusCode::UNAUTHORIZED, "bearer tokens alone");
    let admin = world.person("ada", &["cortex-admins"]);
    let listed = world.as_person(Method::GET, "/v1/sessions", &admin, None).await;
    let id = listed.body[0]["id"].as_str().unwrap();
    assert_eq!(listed.body[0]["person"], "person:staff:admin");
    let approver = world.person("carol", &["finance-admins"]);
    let path = format!("/v1/sessions/{id}");
    assert_eq!(world.as_person(Method::DELETE, &path, &approver, None).await.status, StatusCode::FORBIDDEN);
    assert_eq!(world.as_person(Method::DELETE, &path, &admin, None).await.status, StatusCode::NO_CONTENT);
    assert_eq!(world.as_person(Method::DELETE, &path, &admin, None).await.status, StatusCode::NOT_FOUND);
    assert_eq!(visit.get("/console").await.status, StatusCode::SEE_OTHER);
    assert_eq!(world.record(&["session.ended"]).await[0]["by"], "person:staff:ada");
}

#[tokio::test]
async fn the_command_line_learns_where_to_sign_in_and_who_it_is() {
    let world = TestWorld::start().await;
    let help = cortex_tests::world::answer(world.http.get(world.url("/v1/sign-in"))).await;
    assert_eq!(help.body["issuer"], json!(world.world.sandbox.people_url()));
    assert_eq!(help.body["client_id"], "cortex");
    assert!(help.body["scopes"].as_array().unwrap().contains(&json!("openid")));
    let carol = world.person("carol", &["finance-admins", "cortex-admins"]);
    let me = world.as_person(Method::GET, "/v1/me", &carol, None).await;
    assert_eq!(me.body["principal"], "person:staff:carol");
    assert_eq!(me.body["roles"], json!(["admin", "approver"]));
}

#[tokio::test]
async fn without_a_sign_in_there_is_a_page_that_says_what_to_configure() {
    let world = TestWorld::start_with(|config| config.sign_in = SignInConfig::default()).await;
    let mut visit = Visit::new(&world);
    for path in ["/console", "/console/grants/1", "/console/sign-in"] {
        let page = visit.get(path).await;
        assert_eq!(page.status, StatusCode::NOT_FOUND, "{path}");
        assert!(page.body.as_str().unwrap().contains("[sign_in]"), "{page:?}");
    }
    let help = cortex_tests::world::answer(world.http.get(world.url("/v1/sign-in"))).await;
    assert_eq!(help.status, StatusCode::NOT_FOUND);
}
