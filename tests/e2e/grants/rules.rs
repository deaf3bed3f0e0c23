//! Who may decide, on what, and how they have to have signed in.

use cortex_tests::world::{TestWorld, answer};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{apply, by_hand, close_books, close_books_at, pending, person_with, say, show};

#[tokio::test]
async fn a_decision_says_what_it_was_made_on() {
    let world = TestWorld::start().await;
    let grant = pending(&world, &by_hand("m1"), "first-steps").await;
    let other = pending(&world, &by_hand("m2"), "first-steps").await;
    let seen = |shown: Value| shown["request_digest"].as_str().unwrap().to_owned();
    let (right, wrong) = (seen(show(&world, &grant).await), seen(show(&world, &other).await));
    let path = format!("/v1/grants/{grant}");
    let carol = world.person("carol", &["finance-admins"]);
    let shown = world.as_person(Method::GET, &path, &carol, None).await;
    assert_eq!(shown.headers["etag"], format!("\"{right}\""), "the ETag is what is approved");
    for (what, header, body, status) in [
        ("nothing", None, json!({}), 428),
        ("no body and nothing", None, Value::Null, 428),
        ("another grant's request", Some(format!("\"{wrong}\"")), json!({}), 412),
        ("another grant's request, in the body", None, json!({"request_digest": wrong}), 412),
        ("two things", Some(format!("\"{right}\"")), json!({"request_digest": wrong}), 400),
        ("whatever is there", Some("*".to_owned()), json!({}), 400),
        ("a weak tag", Some(format!("W/\"{right}\"")), json!({}), 400),
        ("no digest", None, json!({"request_digest": "sha256:12"}), 400),
        ("the request, whole", None, json!({"request": {}}), 400),
    ] {
        for verb in ["approve", "deny"] {
            let mut request = world.http.post(world.url(&format!("{path}/{verb}"))).bearer_auth(&carol);
            if let Some(tag) = &header {
                request = request.header("if-match", tag);
            }
            if !body.is_null() {
                request = request.json(&body);
            }
            let answer = answer(request).await;
            assert_eq!(answer.status.as_u16(), status, "A73 {what} {verb}: {answer:?}");
        }
    }
    assert_eq!(show(&world, &grant).await["status"], "requested");
    assert_eq!(world.record(&["grant.decided"]).await, Vec::<Value>::new());
    let request = world.http.post(world.url(&format!("{path}/approve"))).bearer_auth(&carol);
    let approved = answer(request.header("if-match", format!("\"{right}\""))).await;
    assert_eq!(approved.body["status"], "approved", "{approved:?}");
}

#[tokio::test]
async fn an_approver_sees_everything_that_the_approval_is_about() {
    let world = TestWorld::start().await;
    apply(&world, &close_books("  quorum: 2\n  uses: 3\n  valid_for: run\n")).await;
    let token = world.token(&by_hand("m1"));
    let ask = json!({"policy": "close-books", "reason": "month end", "ticket": "FIN-7", "ttl_seconds": 600});
    let waiting = world.ask(&token, ask).await;
    let grant = waiting.body["grant_id"].as_str().unwrap();
    let bob = world.person("bob", &["finance-admins"]);
    assert_eq!(say(&world, grant, "approve", &bob, "fine").await.status, StatusCode::OK);
    let shown = show(&world, grant).await;
    let expected = json!({
        "status": "requested", "kind": "run", "policy": "close-books", "policy_version": 1,
        "reason": "month end", "ticket": "FIN-7", "valid_for": "run", "max_uses": 3, "uses": 0, "uses_left": 3,
        "break_glass": false,
        "approvers": {"groups": ["staff/finance-admins"], "people": [], "quorum": 2, "mfa": false},
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&shown[name], value, "{name} in {shown}");
    }
    assert_eq!(shown["requester"]["task_id"], "publish_mart", "{shown}");
    assert_eq!(shown["request"]["run_id"], "m1", "{shown}");
    assert_eq!(shown["request"]["ttl_seconds"], 600, "{shown}");
    assert_eq!(shown["request"]["targets"]["api"]["scope"], "postings:read", "{shown}");
    assert_eq!(shown["approvals"][0]["person"], "person:staff:bob", "{shown}");
    assert_eq!(shown["warnings"], json!(["This approves every task of the DAG run."]), "{shown}");
    assert!(shown["approvals"][0].get("account").is_none(), "{shown}");
}

#[tokio::test]
async fn a_request_comes_with_what_the_policy_wants_of_it() {
    let world = TestWorld::start().await;
    apply(&world, &close_books("  require: [reason, ticket]\n")).await;
    for (ask, missing) in [
        (json!({"policy": "close-books"}), "reason"),
        (json!({"policy": "close-books", "reason": " ", "ticket": "FIN-7"}), "reason"),
        (json!({"policy": "close-books", "reason": "month end"}), "ticket"),
    ] {
        let refused = world.ask(&world.token(&by_hand("m1")), ask).await;
        assert_eq!(refused.body["error"], "invalid_request", "{refused:?}");
        let said = refused.body["error_description"].as_str().unwrap();
        assert!(said.contains(&format!("wants a {missing}")), "{said}");
        assert!(refused.body["decision_id"].is_string(), "it is on record: {refused:?}");
    }
    let ask = json!({"policy": "close-books", "reason": "month end", "ticket": "FIN-7"});
    let waiting = world.ask(&world.token(&by_hand("m1")), ask).await;
    let grant = waiting.body["grant_id"].as_str().unwrap();
    super::bob_approves(&world, grant).await;
    let plain = world.ask_for(&by_hand("m1"), "close-books").await;
    assert_eq!(plain.status, StatusCode::OK, "who approved has seen them: {plain:?}");
    let long = json!({"policy": "close-books", "ticket": "x".repeat(201)});
    assert_eq!(world.ask(&world.token(&by_hand("m1")), long).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn who_put_the_policy_in_force_does_not_approve_alone_what_it_asks_for() {
    for (quorum, allowed, status) in [(1, false, 403), (1, true, 200), (2, false, 200)] {
        let world = TestWorld::start_with(move |config| config.grants.author_may_approve = allowed).await;
        apply(&world, &close_books(&format!("  quorum: {quorum}\n"))).await;
        let grant = pending(&world, &by_hand("m1"), "close-books").await;
        let erin = world.person("erin", &["finance-admins"]);
        let said = say(&world, &grant, "approve", &erin, "").await;
        assert_eq!(said.status.as_u16(), status, "quorum {quorum}, allowed {allowed}: {said:?}");
        if status == 403 {
            assert_eq!(said.body["type"], "urn:cortex:problem:own-policy");
            let second =
                person_with(&world, "u-9", &["finance-admins"], &json!({"email": "erin@acme.example"}));
            let said = say(&world, &grant, "approve", &second, "").await;
            assert_eq!(said.body["type"], "urn:cortex:problem:own-policy", "her second account: {said:?}");
        }
    }
}

#[tokio::test]
async fn approvers_have_signed_in_with_mfa_and_recently_where_that_is_demanded() {
    let world = TestWorld::start_with(|config| config.grants.max_auth_age_s = 600).await;
    let mfa = close_books("").replace("[staff/finance-admins]}", "[staff/finance-admins], mfa: true}");
    apply(&world, &mfa).await;
    let grant = pending(&world, &by_hand("m1"), "close-books").await;
    let now = world.now().as_second();
    for (what, claims, problem) in [
        ("nothing said", json!({}), "mfa-required"),
        ("a password", json!({"amr": ["pwd"], "auth_time": now}), "mfa-required"),
        ("a class that nobody named", json!({"acr": "mfa", "auth_time": now}), "mfa-required"),
        ("MFA, some time", json!({"amr": ["pwd", "mfa"]}), "sign-in-too-old"),
        ("MFA, too long ago", json!({"amr": ["mfa"], "auth_time": now - 601}), "sign-in-too-old"),
    ] {
        let bob = person_with(&world, "bob", &["finance-admins"], &claims);
        let refused = say(&world, &grant, "approve", &bob, "").await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{what}: {refused:?}");
        assert_eq!(refused.body["type"], format!("urn:cortex:problem:{problem}"), "{what}");
        assert!(refused.body["detail"].as_str().unwrap().contains("sign in again"), "{what}: {refused:?}");
    }
    let claims = json!({"amr": ["pwd", "mfa"], "auth_time": now - 599});
    let bob = person_with(&world, "bob", &["finance-admins"], &claims);
    assert_eq!(say(&world, &grant, "approve", &bob, "").await.body["status"], "approved");
    let decided = world.record(&["grant.decided"]).await;
    assert_eq!(
        decided[0]["by"]["amr"],
        json!(["mfa", "pwd"]),
        "how they signed in is on record: {decided:?}"
    );
}

#[tokio::test]
async fn the_configuration_says_what_proves_mfa_and_may_demand_it_of_everybody() {
    let world = TestWorld::start_with(|config| {
        config.grants.require_amr = ["hwk".to_owned()].into();
        config.grants.require_acr = ["phr".to_owned()].into();
    })
    .await;
    for (index, (claims, allowed)) in [
        (json!({"amr": ["mfa"]}), false),
        (json!({"acr": "pwd"}), false),
        (json!({"amr": ["hwk"]}), true),
        (json!({"acr": "phr"}), true),
    ]
    .into_iter()
    .enumerate()
    {
        let grant = pending(&world, &by_hand(&format!("m{index}")), "first-steps").await;
        let bob = person_with(&world, "bob", &["finance-admins"], &claims);
        let said = say(&world, &grant, "deny", &bob, "").await;
        assert_eq!(said.status == StatusCode::OK, allowed, "{claims}: {said:?}");
    }
}

#[tokio::test]
async fn a_group_is_one_issuers_and_a_bare_name_does_where_there_is_one_only() {
    let world = TestWorld::start().await;
    let groups = |names: &str| close_books("").replace("staff/finance-admins", names);
    let bob = || world.person("bob", &["finance-admins"]);
    for (names, allowed) in [
        ("staff/finance-admins", true),
        ("finance-admins", true),
        ("contractors/finance-admins", false),
        ("staff/finance", false),
    ] {
        apply(&world, &groups(names)).await;
        let grant = pending(&world, &by_hand("m1"), "close-books").await;
        let said = say(&world, &grant, "approve", &bob(), "").await;
        assert_eq!(said.status == StatusCode::OK, allowed, "{names}: {said:?}");
    }
    let two = TestWorld::start_with(|config| {
        let mut other = config.issuers[1].clone();
        other.name = "contractors".parse().unwrap();
        other.iss.push_str("/contractors");
        config.issuers.push(other);
    })
    .await;
    for (names, allowed) in [("finance-admins", false), ("staff/finance-admins", true)] {
        apply(&two, &groups(names)).await;
        let grant = pending(&two, &by_hand("m1"), "close-books").await;
        let token = two.person("bob", &["finance-admins"]);
        let said = say(&two, &grant, "approve", &token, "").await;
        assert_eq!(said.status == StatusCode::OK, allowed, "two issuers, {names}: {said:?}");
    }
}

#[tokio::test]
async fn two_people_let_a_run_in_at_a_closed_hour_for_an_hour_and_loudly() {
    let world = TestWorld::start().await;
    let closed = "when: {hours: '10:00-11:00', max_ttl: 2h}\nbreak_glass:\n  approvers: {groups: [staff/finance-admins]}";
    apply(&world, &close_books_at(closed, "")).await;
    let run = || by_hand("m1");
    let ask = |body: Value| {
        let mut ask = json!({"policy": "close-books"});
        ask.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        ask
    };
    let shut = world.ask(&world.token(&run()), ask(json!({}))).await;
    assert_eq!(shut.body["error"], "invalid_target", "{shut:?}");
    let silent = world.ask(&world.token(&run()), ask(json!({"break_glass": true}))).await;
    assert_eq!(silent.body["error"], "invalid_request", "it wants a reason: {silent:?}");
    let loud = ask(json!({"break_glass": true, "reason": "the ledger is down"}));
    let waiting = world.ask(&world.token(&run()), loud.clone()).await;
    let grant = waiting.body["grant_id"].as_str().unwrap().to_owned();
    let shown = show(&world, &grant).await;
    assert_eq!((&shown["break_glass"], &shown["approvers"]["quorum"]), (&json!(true), &json!(2)));
    assert_eq!(shown["request"]["ttl_seconds"], 3_600, "an hour at most: {shown}");
    assert!(shown["warnings"][0].as_str().unwrap().contains("breaks the glass"), "{shown}");
    super::bob_approves(&world, &grant).await;
    let still = world.ask(&world.token(&run()), loud.clone()).await;
    assert_eq!(still.body["error"], "authorization_pending", "one is not two: {still:?}");
    let carol = world.person("carol", &["finance-admins"]);
    assert_eq!(say(&world, &grant, "approve", &carol, "").await.body["status"], "approved");
    let issued = world.ask(&world.token(&run()), loud.clone()).await;
    assert_eq!(issued.status, StatusCode::OK, "{issued:?}");
    let record = world.record(&["issuance.issued"]).await;
    assert_eq!(record[0]["grant"]["break_glass"], true, "{record:?}");
    assert_eq!(world.record(&["grant.requested"]).await[0]["break_glass"], true);
    world.clock.advance(jiff::SignedDuration::from_hours(1));
    let late = world.ask(&world.token(&cortex_sandbox::RunClaims { try_number: 2, ..run() }), loud).await;
    assert_eq!(late.body["error"], "authorization_pending", "the hour is over: {late:?}");
}

#[tokio::test]
async fn no_glass_is_broken_where_there_is_none_nor_a_guardrail_with_it() {
    let world = TestWorld::start().await;
    let ask = json!({"policy": "close-books", "break_glass": true, "reason": "now"});
    apply(&world, &close_books("")).await;
    let none = world.ask(&world.token(&by_hand("m1")), ask.clone()).await;
    assert_eq!(none.body["error"], "invalid_target", "{none:?}");
    assert!(none.body["error_description"].as_str().unwrap().contains("no `break_glass`"), "{none:?}");
    let glass = "when: {max_ttl: 30m}\nbreak_glass: {approvers: {groups: [staff/finance-admins]}}";
    apply(&world, &close_books_at(glass, "")).await;
    let stranger = cortex_sandbox::RunClaims { dag_id: "somebody_else".into(), ..by_hand("m1") };
    let stranger = world.ask(&world.token(&stranger), ask.clone()).await;
    let unknown =
        world.ask(&world.token(&by_hand("m1")), json!({"policy": "nothing", "break_glass": true})).await;
    assert_eq!(
        stranger.body["error_description"], unknown.body["error_description"],
        "who is who: {stranger:?}"
    );
    let scheduled = cortex_tests::world::first_run("s1");
    let scheduled = world.ask(&world.token(&scheduled), ask.clone()).await;
    assert_eq!(scheduled.body["error"], "authorization_pending", "never without people: {scheduled:?}");
    let guardrail = "@id(\"no-glass\")\n@reason(\"No glass is broken here.\")\n@remedy(\"Wait.\")\nforbid (principal, action, resource) when { context.break_glass };";
    let admin = world.person("erin", &["cortex-admins"]);
    let body = json!([{"name": "no-glass", "source": guardrail}]);
    let applied = world.as_person(Method::POST, "/v1/guardrails", &admin, Some(body)).await;
    assert_eq!(applied.status, StatusCode::OK, "{applied:?}");
    world.world.cortex.broker.library.refresh(world.pool()).await.unwrap();
    let forbidden = world.ask(&world.token(&by_hand("m9")), ask).await;
    assert!(forbidden.body["error_description"].as_str().unwrap().contains("no-glass"), "{forbidden:?}");
}
