//! Each kind of change, over REST, with recorded runs that were permitted, approved and denied.

use std::time::Duration;

use cortex_core::policy::Policy;
use cortex_providers::{BuiltIns, ProvidersConfig};
use cortex_server::replay::{Bounds, Cut, Means, Question, Replay, planner};
use cortex_tests::world::{TestWorld, database, finance_run, first_run};
use jiff::SignedDuration;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

use super::{FIRST_STEPS, changed, counts, lines, permitted, replay, replay_as, result, story, stranger};
use crate::grants::{apply, by_hand};

#[tokio::test]
async fn each_kind_of_change_is_found_and_counted() {
    let world = TestWorld::start().await;
    story(&world).await;
    for (old, new, expected) in [
        ("dags: [hello_cortex]", "dags: [other]", json!({"permit_to_deny": 4, "approval_to_deny": 4})),
        ("required_for: {run_types: [manual]}", "required_for: always", json!({"permit_to_approval": 4})),
        // The guardrail on production roles still wants an approval for the one run by hand, and the policy no longer
        // has a way to give it.
        (
            "approval:\n  required_for: {run_types: [manual]}\n  approvers: {groups: [finance-admins]}\n",
            "",
            json!({"approval_to_deny": 1, "approval_to_permit": 3}),
        ),
        ("tasks: [\"publish_*\"]", "tasks: [\"publish_*\", other_task]", json!({"deny_to_permit": 1})),
        (
            "tasks: [\"publish_*\"]",
            "tasks: [\"publish_*\", other_task]\n  tags: [none]",
            json!({"permit_to_deny": 4, "approval_to_deny": 4}),
        ),
        ("max_ttl: 30m", "max_ttl: 20m", json!({"lifetime": 8})),
        ("max_ttl: 30m", "max_ttl: 45m", json!({"lifetime": 8})),
        // AWS makes no credential that lives less than 15 minutes.
        ("max_ttl: 30m", "max_ttl: 10m", json!({"permit_to_deny": 1, "approval_to_deny": 1, "lifetime": 6})),
        ("scopes: [postings:read]", "scopes: [postings:read, postings:write]", json!({"scope": 2})),
        (
            "max_ttl: 30m",
            "max_ttl: 30m\nwhere: {networks: [10.2.0.0/16]}",
            json!({"permit_to_deny": 4, "approval_to_deny": 4}),
        ),
        (
            "max_ttl: 30m",
            "max_ttl: 30m\n  hours: \"12:00-13:00\"",
            json!({"permit_to_deny": 4, "approval_to_deny": 4}),
        ),
        ("description: First steps", "description: Other steps", json!({})),
    ] {
        let document = changed(old, new);
        let result = result(&world, &[&document]).await;
        assert_eq!(counts(&result), expected, "{new}: {result:#}");
        assert_eq!(result["records"], 10, "{result:#}");
        let changed: u64 = expected.as_object().unwrap().values().filter_map(Value::as_u64).sum();
        assert_eq!(result["unchanged"], 9 - changed, "{new}: {result:#}");
        assert_eq!(result["not_decided"], json!([{"why": "waited_for_people", "count": 1}]), "{result:#}");
        assert_eq!((&result["cut"], &result["ungrouped"]), (&Value::Null, &json!(0)), "{result:#}");
    }
}

#[tokio::test]
async fn a_group_names_the_runs_the_clause_and_a_decision_that_can_be_opened() {
    let world = TestWorld::start().await;
    story(&world).await;
    world.clock.advance(SignedDuration::from_mins(90));
    permitted(&world, "s3").await;
    let lines = replay(&world, &[&changed("dags: [hello_cortex]", "dags: [other]")]).await;
    assert!(lines.len() > 1 && lines[0]["progress"]["records"].as_u64() > Some(0), "{lines:?}");
    let result = &lines.last().unwrap()["result"];
    assert_eq!(result["would_deny"], 12, "{result:#}");
    let groups = result["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 8, "{result:#}");
    let aws = groups.iter().find(|group| group["provider"] == "aws").unwrap();
    assert_eq!(aws["change"], "permit_to_deny", "what matters most comes first: {result:#}");
    assert_eq!((&aws["dag_id"], &aws["task_id"]), (&json!("hello_cortex"), &json!("publish_mart")));
    assert_eq!((&aws["rules"], &aws["count"]), (&json!(["first-steps#who"]), &json!(2)));
    let times = [&aws["first"], &aws["last"]].map(|at| at.as_str().unwrap().get(..16).unwrap().to_owned());
    assert_eq!(times, ["2026-11-23T02:00", "2026-11-23T03:30"]);
    assert!(aws["said"].as_str().unwrap().contains("first-steps"), "{aws:#}");
    let openings = world.record(&["issuance.intent"]).await;
    let last = openings.iter().rfind(|opening| opening["provider"] == "aws").unwrap();
    assert_eq!(aws["example"], last["decision_id"], "the example is the last of them");
}

#[tokio::test]
async fn what_the_version_in_force_denies_as_well_is_not_the_changes_doing() {
    let world = TestWorld::start().await;
    story(&world).await;
    let narrow = changed("dags: [hello_cortex]", "dags: [other]");
    apply(&world, &narrow).await;
    let same = result(&world, &[&narrow]).await;
    assert_eq!(same["would_deny"], 0, "{same:#}");
    assert_eq!(same["changed"][0], json!({"change": "permit_to_deny", "count": 4, "in_force_too": 4}));
    assert_eq!(counts(&result(&world, &[FIRST_STEPS]).await), json!({}), "the way back changes nothing");
}

#[tokio::test]
async fn only_the_requests_of_the_time_and_of_the_policies_are_looked_at() {
    let world = TestWorld::start().await;
    story(&world).await;
    let finance = world.ask_for(&finance_run("f1"), "finance-data-publish").await;
    assert_eq!(finance.status, StatusCode::OK, "{finance:?}");
    let other = include_str!("../../../config/policies/finance-data-publish.yaml");
    let narrower = other.replace("10.0.0.0/8", "10.9.0.0/16");
    let both = result(&world, &[&changed("dags: [hello_cortex]", "dags: [other]"), &narrower]).await;
    assert_eq!(both["policies"], json!(["first-steps", "finance-data-publish"]));
    assert_eq!((&both["records"], &both["would_deny"]), (&json!(13), &json!(11)), "{both:#}");
    let rules: Vec<_> = both["groups"].as_array().unwrap().iter().map(|group| &group["rules"][0]).collect();
    assert!(rules.contains(&&json!("finance-data-publish#where")), "{rules:?}");
    world.clock.advance(SignedDuration::from_hours(48));
    permitted(&world, "s9").await;
    let body = json!({"documents": [FIRST_STEPS], "since": "1d"});
    let recent = lines(&replay_as(&world, "cortex-admins", body).await);
    assert_eq!(recent.last().unwrap()["result"]["records"], 4, "{recent:?}");
}

#[tokio::test]
async fn what_cannot_be_decided_again_is_counted_and_said() {
    let world = TestWorld::start().await;
    let admin = world.person("erin", &["cortex-admins"]);
    let freeze = json!({"scope": {"kind": "policy", "policy": "first-steps"}, "reason": "drill"});
    let frozen = world.as_person(Method::POST, "/v1/freezes", &admin, Some(freeze)).await;
    assert!(frozen.status.is_success(), "{frozen:?}");
    world.ask_for(&first_run("s1"), "first-steps").await;
    world.ask_for(&by_hand("m1"), "new-policy").await;
    let new = changed("name: first-steps", "name: new-policy");
    let result = result(&world, &[FIRST_STEPS, &new]).await;
    let expected = json!([{"why": "frozen", "count": 1}, {"why": "target_unknown", "count": 1}]);
    assert_eq!((&result["not_decided"], &result["unchanged"]), (&expected, &json!(0)), "{result:#}");
}

#[tokio::test]
async fn an_unreadable_leaf_is_counted_and_the_others_are_decided() {
    let world = TestWorld::start().await;
    permitted(&world, "s1").await;
    sqlx::query(
        "INSERT INTO record (id, at, kind, issuance_id, policy, provider, expires_at, leaf)
         SELECT overlay(id::text placing 'aaaa' from 25)::uuid, at, kind, gen_random_uuid(), policy, provider, expires_at, '{\"v\":9}'
         FROM record WHERE kind = 'issuance.intent' LIMIT 1",
    )
    .execute(world.pool())
    .await
    .unwrap();
    let result = result(&world, &[FIRST_STEPS]).await;
    assert_eq!(result["unchanged"], 4, "{result:#}");
    assert_eq!(result["not_decided"], json!([{"why": "unreadable", "count": 1}]), "{result:#}");
}

#[tokio::test]
async fn a_denial_that_hangs_on_a_lifetime_that_is_not_on_record_is_not_guessed() {
    let world = TestWorld::start().await;
    let denied = world.ask_for(&stranger("s1"), "first-steps").await;
    assert_eq!(denied.body["error"], "invalid_target", "{denied:?}");
    // The guardrail forbids more than two hours: three are denied, a shorter wish would not have been.
    let open = changed("tasks: [\"publish_*\"]", "tasks: [\"publish_*\", other_task]").replace("30m", "3h");
    let result = result(&world, &[&open]).await;
    assert_eq!(result["not_decided"], json!([{"why": "lifetime_unknown", "count": 1}]), "{result:#}");
    assert_eq!(result["changed"], json!([]), "{result:#}");
}

#[tokio::test]
async fn a_replay_is_for_admins_and_refuses_what_it_cannot_read() {
    let world = TestWorld::start().await;
    let good = json!({"documents": [FIRST_STEPS]});
    for group in ["cortex-auditors", "finance-admins", "nobody"] {
        assert_eq!(replay_as(&world, group, good.clone()).await.status, StatusCode::FORBIDDEN, "{group}");
    }
    for (body, status) in [
        (json!({"documents": []}), 400),
        (json!({"documents": vec!["name: x"; 101]}), 400),
        (json!({"documents": [FIRST_STEPS, FIRST_STEPS]}), 400),
        (json!({"documents": ["name: x"]}), 422),
        (json!({"documents": [FIRST_STEPS], "since": "soon"}), 400),
        (json!({"documents": [FIRST_STEPS], "since": "4000d"}), 400),
        (json!({"documents": [FIRST_STEPS], "since": "99999999999d"}), 400),
        (json!({"documents": [FIRST_STEPS], "since": "2030-01-01"}), 400),
        (json!({"documents": [FIRST_STEPS], "until": "now"}), 400),
    ] {
        let answer = replay_as(&world, "cortex-admins", body.clone()).await;
        assert_eq!(answer.status.as_u16(), status, "{answer:?}");
    }
    assert_eq!(world.record(&["policy.applied"]).await.len(), 6, "nothing was put in force");
}

#[tokio::test]
async fn what_a_bound_kept_out_is_said() {
    let world = TestWorld::start().await;
    story(&world).await;
    let (records, time) = (u64::MAX, Duration::MAX);
    for (bounds, cut, looked_at) in [
        (Bounds { records: 3, time, workers: 1 }, Some(Cut::Records), 3),
        (Bounds { records: 10, time, workers: 4 }, None, 10),
        (Bounds { records: 9, time, workers: 4 }, Some(Cut::Records), 9),
        (Bounds { records, time: Duration::ZERO, workers: 1 }, Some(Cut::Time), 0),
    ] {
        let means = Means {
            pool: world.pool().clone(),
            catalogue: world.world.cortex.broker.library.catalogue(),
            registry: planner(&ProvidersConfig::default(), world.url("")).unwrap(),
        };
        let now = world.now();
        let since = now.checked_sub(SignedDuration::from_hours(1)).unwrap();
        let policies = vec![Policy::compile(FIRST_STEPS, &BuiltIns).unwrap()];
        let mut replay = Replay::begin(means, Question { policies, since, now }, bounds).await.unwrap();
        while replay.step().await.unwrap().is_some() {}
        let report = replay.report();
        assert_eq!((report.cut, report.records), (cut, looked_at), "{bounds:?}: {report:?}");
        assert!(report.changed.is_empty(), "{report:?}");
    }
}

#[tokio::test]
async fn one_replay_at_a_time_and_a_caller_who_goes_away_ends_it() {
    let database_url = database().await;
    let world = TestWorld::start_on(database_url.clone(), |_| {}).await;
    story(&world).await;
    // While somebody else holds the record, a replay waits for its first page.
    let mut owner = PgConnection::connect(&database_url).await.unwrap();
    let mut held = owner.begin().await.unwrap();
    sqlx::query("LOCK TABLE record IN ACCESS EXCLUSIVE MODE").execute(&mut *held).await.unwrap();
    let admin = world.person("erin", &["cortex-admins"]);
    let begin = async || {
        let request = world.http.post(world.url("/v1/replays")).bearer_auth(&admin);
        request.json(&json!({"documents": [FIRST_STEPS]})).send().await.unwrap()
    };
    let listening = begin().await;
    assert_eq!(listening.status(), StatusCode::OK);
    assert_eq!(begin().await.status(), StatusCode::TOO_MANY_REQUESTS);
    drop(listening);
    let free = async { while begin().await.status() != StatusCode::OK {} };
    tokio::time::timeout(Duration::from_secs(20), free)
        .await
        .expect("the turn comes back with the caller gone");
    held.rollback().await.unwrap();
}
