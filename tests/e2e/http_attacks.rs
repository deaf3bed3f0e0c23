//! Requests that are wrong before any policy is asked (the attack table, rows about HTTP and exchange).

use std::time::Duration;

use cortex_tests::attack::{counted, nothing_was_issued};
use cortex_tests::world::{INSIDE, TestWorld, answer, finance_run, first_run};
use reqwest::header::HeaderValue;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const TARGET: &str = "urn:cortex:first-steps:api";

#[tokio::test]
async fn the_token_endpoint_takes_a_form_of_one_shape() {
    let world = TestWorld::start().await;
    let token = world.token(&first_run("r"));
    let usual = [
        ("grant_type", GRANT_TYPE),
        ("subject_token", &token),
        ("subject_token_type", JWT),
        ("audience", TARGET),
    ];
    let with = |name, value| {
        usual.iter().copied().filter(|(key, _)| *key != name).chain([(name, value)]).collect::<Vec<_>>()
    };
    let without = |name| usual.iter().copied().filter(|(key, _)| *key != name).collect::<Vec<_>>();
    let more = |name, value| usual.iter().copied().chain([(name, value)]).collect::<Vec<_>>();
    let rows = [
        ("A52", with("grant_type", "client_credentials"), "unsupported_grant_type"),
        ("A52", with("grant_type", "password"), "unsupported_grant_type"),
        ("A52", without("grant_type"), "invalid_request"),
        ("A52", without("subject_token"), "invalid_request"),
        ("A52", with("subject_token", ""), "invalid_request"),
        ("A52", with("subject_token_type", "urn:ietf:params:oauth:token-type:saml2"), "invalid_request"),
        (
            "A52",
            with("subject_token_type", "urn:ietf:params:oauth:token-type:refresh_token"),
            "invalid_request",
        ),
        (
            "A52",
            more("requested_token_type", "urn:ietf:params:oauth:token-type:refresh_token"),
            "invalid_request",
        ),
        ("A53", more("actor_token", &token), "invalid_request"),
        ("A53", more("actor_token_type", JWT), "invalid_request"),
        ("A53", with("audience", "https://ledger.acme.example"), "invalid_target"),
        ("A53", with("audience", "urn:cortex:first-steps"), "invalid_target"),
        ("A53", with("audience", "urn:cortex:first-steps:api:aws"), "invalid_target"),
        ("A54", with("audience", "arn:aws:iam::999999999999:role/other-tenant"), "invalid_target"),
        ("A53", more("resource", "https://ledger.acme.example"), "invalid_target"),
        ("twice", more("audience", TARGET), "invalid_request"),
        ("twice", more("subject_token", "x"), "invalid_request"),
    ];
    for (index, (id, form, error)) in rows.into_iter().enumerate() {
        let answer = world.exchange(&form).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{id} {error}: {answer:?}");
        assert_eq!(answer.body["error"], error, "{id}: {answer:?}");
        assert!(!answer.body.to_string().contains(token.rsplit('.').next().unwrap()), "{id} shows the token");
        assert_eq!(counted(&world, "request").await, index as u64 + 1, "{id} {error}");
    }
    nothing_was_issued(&world).await;
    assert_eq!(world.exchange(&usual).await.status, StatusCode::OK, "the usual form does");
}

#[tokio::test]
async fn other_methods_and_other_bodies_are_refused() {
    let world = TestWorld::start().await;
    let token = world.token(&first_run("r"));
    let form =
        format!("grant_type={GRANT_TYPE}&subject_token={token}&subject_token_type={JWT}&audience={TARGET}");
    let many: Vec<_> = (0..17).map(|index| format!("target-{index}")).collect();
    let post = |path: &str| world.http.post(world.url(path)).bearer_auth(&token);
    let rows = [
        ("A52", post("/v1/token").json(&json!({"grant_type": GRANT_TYPE, "subject_token": token})), 415),
        ("A52", post("/v1/token").header("content-type", "text/plain").body(form.clone()), 415),
        ("A52", post("/v1/token").body(form.clone()), 415),
        ("A52", post("/v1/credentials").form(&[("policy", "first-steps")]), 415),
        ("A52", world.http.get(world.url(&format!("/v1/token?subject_token={token}"))), 405),
        ("A52", world.http.put(world.url("/v1/token")).body(form.clone()), 405),
        ("A52", world.http.get(world.url("/v1/credentials")).bearer_auth(&token), 405),
        ("A59", post("/v1/token").header("content-encoding", "gzip").body(form.clone()), 415),
        (
            "A59",
            post("/v1/credentials").header("content-encoding", "br").json(&json!({"policy": "first-steps"})),
            415,
        ),
        (
            "A13",
            post("/v1/token")
                .header("content-type", "application/x-www-form-urlencoded")
                .body(vec![b'a'; 1 << 20]),
            413,
        ),
        (
            "A62",
            post("/v1/credentials").header("content-type", "application/json").body(vec![b'['; 1 << 20]),
            413,
        ),
        (
            "A14",
            post("/v1/credentials").header("content-type", "application/json").body(vec![b'['; 60_000]),
            400,
        ),
        ("A52", post("/v1/credentials").json(&json!({"policy": "first-steps", "dag_id": "other"})), 400),
        ("A52", post("/v1/credentials").json(&json!({"policy": "first-steps", "ttl_seconds": -1})), 400),
        ("A52", post("/v1/credentials").json(&json!({"policy": "first-steps", "ttl_seconds": 1e300})), 400),
        (
            "A52",
            post("/v1/credentials").json(&json!({"policy": "first-steps", "reason": "x".repeat(501)})),
            400,
        ),
        ("A52", post("/v1/credentials").json(&json!({"policy": "first-steps", "targets": []})), 400),
        ("A52", post("/v1/credentials").json(&json!({"policy": "first-steps", "targets": many})), 400),
    ];
    for (index, (id, request, status)) in rows.into_iter().enumerate() {
        let answer = answer(request).await;
        assert_eq!(answer.status.as_u16(), status, "{id} row {index}: {answer:?}");
        assert!(!answer.body.to_string().contains(&token), "{id} row {index} shows the token");
    }
    nothing_was_issued(&world).await;
}

#[tokio::test]
async fn a_path_is_what_it_says_and_nothing_is_open_beside_it() {
    let world = TestWorld::start().await;
    for (method, path, status) in [
        (Method::POST, "//v1/token", 404),
        (Method::POST, "/v1//token", 404),
        (Method::POST, "/v1/token/", 404),
        (Method::POST, "/V1/TOKEN", 404),
        (Method::GET, "/healthz/../v1/policies", 401),
        (Method::GET, "/healthz/%2e%2e/v1/policies", 404),
        (Method::GET, "/healthz%2f..%2fv1%2fpolicies", 404),
        (Method::GET, "/v1/policies?x=/healthz", 401),
        (Method::GET, "/v1/policies;/healthz", 404),
        (Method::GET, "/v1/policies/%2e%2e%2fgrants", 401),
        (Method::GET, "/admin", 404),
        (Method::GET, "/v1/issuances", 401),
        (Method::GET, "/v1/grants", 401),
        (Method::GET, "/v1/aws/first-steps", 401),
        (Method::GET, "/_sandbox/mints", 404),
    ] {
        let found = raw(
            &world,
            &format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"),
        )
        .await;
        // A raw request: a client of ours would tidy the path first.
        let wanted = if path == "/healthz/../v1/policies" { 404 } else { status };
        assert!(found.starts_with(&format!("HTTP/1.1 {wanted}")), "A57 {method} {path}: {found}");
    }
    nothing_was_issued(&world).await;
}

async fn raw(world: &TestWorld, request: &str) -> String {
    let mut stream = TcpStream::connect(world.world.cortex.address).await.expect("a connection");
    stream.write_all(request.as_bytes()).await.expect("a request");
    let mut found = String::new();
    stream.read_to_string(&mut found).await.expect("an answer");
    found
}

/// Where a request comes from, as the record says it.
async fn source_on_record(world: &TestWorld, headers: &[(&str, &str)]) -> (Value, bool) {
    let token = world.token(&finance_run("r"));
    let mut request = world.http.post(world.url("/v1/credentials")).bearer_auth(token);
    for (name, value) in headers {
        request = request.header(*name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
    }
    let answer =
        answer(request.json(&json!({"policy": "finance-data-publish", "targets": ["snowflake"]}))).await;
    let rows = world.record(&["issuance.issued", "denial"]).await;
    let last = rows.last().expect("something on record");
    let source = if last["kind"] == "denial" { &last["source"] } else { &last["caller"]["source"] };
    (source.clone(), answer.status == StatusCode::OK)
}

#[tokio::test]
async fn only_a_trusted_proxy_says_where_a_caller_is() {
    let direct = TestWorld::start_with(|config| config.server.trusted_proxies.clear()).await;
    for headers in [
        &[("x-forwarded-for", INSIDE)][..],
        &[("x-forwarded-for", INSIDE), ("x-real-ip", INSIDE), ("forwarded", "for=10.1.2.3")],
        &[("x-remote-user", "erin"), ("x-forwarded-user", "erin"), ("true-client-ip", INSIDE)],
    ] {
        assert_eq!(source_on_record(&direct, headers).await, (json!("127.0.0.1"), false), "A56 {headers:?}");
        direct.clock.advance(jiff::SignedDuration::from_secs(1));
    }
    let proxied = TestWorld::start().await;
    for (headers, source) in [
        (&[("x-forwarded-for", "10.1.2.3, 192.0.2.7")][..], "192.0.2.7"),
        (&[("x-forwarded-for", "10.1.2.3"), ("x-forwarded-for", "192.0.2.8")], "192.0.2.8"),
        (&[("x-forwarded-for", "10.1.2.3, what")], "127.0.0.1"),
        (&[("x-forwarded-for", "10.1.2.3, 127.0.0.1:80")], "127.0.0.1"),
        (&[("x-real-ip", "10.1.2.3")], "127.0.0.1"),
        // What is no text hides nothing that a proxy wrote after it, and nothing before it is believed instead.
        (&[("x-forwarded-for", "10.1.2.3"), ("x-forwarded-for", "\u{e9}, 192.0.2.10")], "127.0.0.1"),
        (&[("x-forwarded-for", "\u{e9}"), ("x-forwarded-for", "192.0.2.11")], "192.0.2.11"),
        (&[("x-forwarded-for", "10.1.2.3, ::ffff:192.0.2.12")], "192.0.2.12"),
        (&[("x-forwarded-for", "10.1.2.3,")], "127.0.0.1"),
    ] {
        assert_eq!(source_on_record(&proxied, headers).await, (json!(source), false), "A56 {headers:?}");
        proxied.clock.advance(jiff::SignedDuration::from_secs(1));
    }
    let inside = [("x-forwarded-for", "192.0.2.9, 10.1.2.3, 127.0.0.1")];
    assert_eq!(source_on_record(&proxied, &inside).await, (json!(INSIDE), true));
}

#[tokio::test]
async fn two_authorizations_are_none() {
    let world = TestWorld::start().await;
    let token = world.token(&first_run("r"));
    let other = world.token(&first_run("other"));
    for (method, path, status) in [
        (Method::POST, "/v1/credentials", 401),
        (Method::GET, "/v1/aws/first-steps", 401),
        (Method::GET, "/v1/grants", 401),
    ] {
        let request = world.http.request(method, world.url(path)).bearer_auth(&token).bearer_auth(&other);
        let answer = answer(request.json(&json!({"policy": "first-steps"}))).await;
        assert_eq!(answer.status.as_u16(), status, "A56 {path}: {answer:?}");
    }
    nothing_was_issued(&world).await;
}

#[tokio::test]
async fn a_body_that_is_announced_too_large_is_refused_before_it_is_sent() {
    let world = TestWorld::start().await;
    let head = "POST /v1/token HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\n\
                content-length: 1000000000\r\nconnection: close\r\n\r\n";
    let found = raw(&world, head).await;
    assert!(found.starts_with("HTTP/1.1 413"), "A59 {found}");
}

#[tokio::test]
async fn a_body_that_trickles_is_given_up_and_others_are_served() {
    let world = TestWorld::start_with(|config| config.server.body_timeout_s = 1).await;
    let mut stream = TcpStream::connect(world.world.cortex.address).await.unwrap();
    let head = "POST /v1/token HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\n\
                transfer-encoding: chunked\r\nconnection: close\r\n\r\n1\r\na\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut found = String::new();
    let given_up = tokio::time::timeout(Duration::from_secs(30), stream.read_to_string(&mut found)).await;
    assert!(given_up.is_ok(), "A59: still waiting");
    assert!(found.starts_with("HTTP/1.1 408"), "A59 {found}");
    assert_eq!(world.http.get(world.url("/healthz")).send().await.unwrap().status(), StatusCode::OK);
    nothing_was_issued(&world).await;
}

#[tokio::test]
async fn an_auditor_reads_and_changes_nothing() {
    let world = TestWorld::start().await;
    let before = world
        .record(&["policy.applied", "policy.retired", "guardrails.applied", "grant.decided"])
        .await
        .len();
    let grant = uuid::Uuid::nil();
    let mutations = [
        (Method::POST, "/v1/policies".to_owned(), json!({"documents": []})),
        (Method::DELETE, "/v1/policies/first-steps".to_owned(), json!({})),
        (Method::POST, "/v1/guardrails".to_owned(), json!([])),
        (Method::DELETE, "/v1/guardrails/lifetime".to_owned(), json!({})),
        (Method::POST, format!("/v1/grants/{grant}/approve"), json!({})),
        (Method::POST, format!("/v1/grants/{grant}/deny"), json!({})),
        (Method::POST, "/v1/preapprovals".to_owned(), json!({})),
    ];
    for (groups, reads) in [(&["auditors"][..], 200), (&["nobody"], 403), (&["Auditors"], 403), (&[], 403)] {
        let token = world.person("dave", groups);
        for (method, path, body) in &mutations {
            let answer = world.as_person(method.clone(), path, &token, Some(body.clone())).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "A80 {groups:?} {method} {path}: {answer:?}");
        }
        let read = world.as_person(Method::GET, "/v1/issuances", &token, None).await;
        assert_eq!(read.status.as_u16(), reads, "A80 {groups:?}");
    }
    let admin = world.person("erin", &["cortex-admins", "auditors", "finance-admins"]);
    for (method, path) in [
        (Method::DELETE, "/v1/issuances"),
        (Method::PUT, "/v1/issuances"),
        (Method::POST, "/v1/issuances"),
        (Method::DELETE, "/v1/issuances/00000000-0000-0000-0000-000000000000"),
        (Method::PATCH, "/v1/issuances/00000000-0000-0000-0000-000000000000"),
    ] {
        let answer = world.as_person(method.clone(), path, &admin, None).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "A80 {method} {path}: {answer:?}");
    }
    let after = world
        .record(&["policy.applied", "policy.retired", "guardrails.applied", "grant.decided"])
        .await
        .len();
    assert_eq!(after, before, "A80: something changed");
}

#[tokio::test]
async fn filters_are_values_and_nothing_else() {
    let world = TestWorld::start().await;
    world.ask_for(&first_run("r"), "first-steps").await;
    let auditor = world.person("dave", &["auditors"]);
    let all = world.as_person(Method::GET, "/v1/issuances", &auditor, None).await;
    assert_eq!(all.body["issuances"].as_array().map(Vec::len), Some(4), "{all:?}");
    for (query, status) in [
        ("dag_id=' OR '1'='1", 200),
        ("dag_id=hello_cortex'; DROP TABLE record; --", 200),
        ("principal=%25", 200),
        ("policy=first-steps' UNION SELECT source FROM document --", 200),
        ("outcome=issued' OR 1=1", 400),
        ("sort=at; DROP TABLE record", 400),
        ("order_by=leaf", 400),
        ("before=' OR 1=1", 400),
        ("limit=1 OR 1=1", 400),
        ("limit=100000", 400),
        ("since=now()", 400),
        ("dag_id=a%00b", 400),
        ("dag_id=hello_cortex&dag_id=other", 400),
    ] {
        let path = format!("/v1/issuances?{}", query.replace(' ', "%20"));
        let answer = world.as_person(Method::GET, &path, &auditor, None).await;
        assert_eq!(answer.status.as_u16(), status, "A81 {query}: {answer:?}");
        if status == 200 {
            assert_eq!(answer.body["issuances"].as_array().map(Vec::len), Some(0), "A81 {query}: {answer:?}");
        }
    }
    let again = world.as_person(Method::GET, "/v1/issuances", &auditor, None).await;
    assert_eq!(again.body, all.body, "A81: the record is as it was");
}
