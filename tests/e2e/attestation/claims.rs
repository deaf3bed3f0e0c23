//! A service claims a run, and the Airflow is asked.

use cortex_cli::world::RUNS;
use cortex_identity::ApiVersion;

use super::*;

#[tokio::test]
async fn a_service_gets_the_credentials_of_the_run_that_it_claims() {
    for api in [ApiVersion::V1, ApiVersion::V2] {
        let world = open_with(move |config| config.airflows[0].api = api).await;
        let run = RunClaims {
            map_index: 3,
            try_number: 2,
            run_type: Some("manual".into()),
            triggered_by: Some("ui".into()),
            triggering_user_name: Some("alice".into()),
            bundle_name: Some("dags-main".into()),
            tags: ["nightly".to_owned()].into(),
            ..first_run("manual__2026-11-23T01:00:00+00:00")
        };
        running(&world, &run);
        let answer = claim(&world, &words(&run)).await;
        assert_eq!(answer.status, StatusCode::OK, "{api:?}: {answer:?}");
        for target in ["api", "bigquery"] {
            assert_eq!(answer.body["credentials"][target]["status"], "issued", "{api:?}: {answer:?}");
        }
        for opening in world.record(&["issuance.intent", "issuance.issued"]).await {
            let who = &opening["principal"];
            assert_eq!(who["attestation"], "verified-claim", "{opening}");
            assert_eq!(
                (&who["issuer"], &who["map_index"], &who["try_number"]),
                (&json!(RUNS), &json!(3), &json!(2))
            );
            assert_eq!((&who["run_type"], &who["tags"]), (&json!("manual"), &json!(["nightly"])));
            let known = api == ApiVersion::V2;
            assert_eq!(who["triggering_user"] == "alice", known, "{who}");
            assert_eq!(who["bundle"] == "dags-main", known, "{who}");
            assert_eq!(opening["caller"]["claimed_by"], format!("service:services:{CLAIMANT}"), "{opening}");
        }
    }
}

#[tokio::test]
async fn a_bearer_token_from_a_file_is_read_anew_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "not yet").unwrap();
    let theirs = file.clone();
    let world = open_with(move |config| {
        config.airflows[0].password_file = None;
        config.airflows[0].token_file = Some(theirs);
    })
    .await;
    let run = first_run("r");
    running(&world, &run);
    come_back(&claim(&world, &words(&run)).await, "a token that the Airflow does not know");
    let credentials = world.world.sandbox.airflow_credentials();
    let (username, password) = credentials.split_once(':').unwrap();
    let login = world.http.post(format!("{}/auth/token", world.world.sandbox.airflow_url()));
    let login = login.json(&json!({"username": username, "password": password}));
    let token = cortex_tests::world::answer(login).await.body["access_token"].as_str().unwrap().to_owned();
    std::fs::write(&file, token).unwrap();
    let answer = claim(&world, &words(&run)).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
}

#[tokio::test]
async fn a_login_that_ended_is_made_again() {
    let world = open().await;
    for run in ["r1", "r2"].map(first_run) {
        running(&world, &run);
        let answer = claim(&world, &words(&run)).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        world.world.sandbox.end_airflow_logins();
    }
}

#[tokio::test]
async fn a_try_has_one_lease_however_often_it_is_claimed() {
    let world = open().await;
    let run = first_run("r");
    running(&world, &run);
    for _ in 0..3 {
        assert_eq!(claim(&world, &words(&run)).await.status, StatusCode::OK);
    }
    assert_eq!(world.minted_leases().len(), 1);
    in_state(&world, &run, "success");
    refused_with(&claim(&world, &words(&run)).await, "is success, not running", "after its end");
}

#[tokio::test]
async fn what_the_airflow_does_not_confirm_brings_nothing_and_is_on_record() {
    let world = open().await;
    let run = first_run("r");
    running(&world, &run);
    let ended = first_run("ended");
    in_state(&world, &ended, "success");
    let old = RunClaims { run_id: "old".into(), ..run.clone() };
    let long_ago = Some(world.now() - SignedDuration::from_hours(25));
    let states = [
        (old.clone(), long_ago),
        (first_run("future"), Some(world.now() + SignedDuration::from_mins(5))),
        (first_run("undated"), None),
    ];
    for (run, start_date) in states {
        let state = Some("running".to_owned());
        world.world.sandbox.put_task(TaskInstance { run, state, start_date });
    }
    let hidden =
        RunClaims { tags: ["night\u{202e}ly".to_owned()].into(), dag_id: "hidden".into(), ..run.clone() };
    running(&world, &hidden);
    let rows = [
        ("claim_wrong_try", "try 1 of this task instance", RunClaims { try_number: 2, ..run.clone() }),
        ("claim_not_running", "is success, not running", ended),
        ("claim_unknown", "no such task instance", first_run("nowhere")),
        ("claim_unknown", "no such task instance", RunClaims { map_index: 0, ..run.clone() }),
        ("claim_not_recent", "86400 seconds", old),
        ("claim_not_recent", "86400 seconds", first_run("future")),
        ("claim_not_recent", "86400 seconds", first_run("undated")),
        ("claim_value", "does not take", hidden),
    ];
    for (code, sentence, run) in rows {
        let answer = claim(&world, &words(&run)).await;
        refused_with(&answer, sentence, code);
        let denial = denial_of(&world, &answer).await;
        assert_eq!(denial["code"], code);
        assert_eq!(denial["subject"], format!("service:services:{CLAIMANT}"));
        assert_eq!(denial["claimed_run"]["run_id"], *run.run_id);
        assert_eq!(denial["claimed_run"]["try_number"], run.try_number);
        assert_eq!(denial["policy"], "by-verified-claim");
    }
    nothing_was_issued(&world).await;
}

#[tokio::test]
async fn only_the_services_on_the_list_claim() {
    let world = open().await;
    let run = first_run("r");
    running(&world, &run);
    let others = [
        (service(&world, "somebody-else"), "may not claim runs"),
        (service(&world, "Airflow-Workers"), "may not claim runs"),
        (world.person(CLAIMANT, &["cortex-admins"]), "says by itself who it is"),
        (world.token(&run), "says by itself who it is"),
    ];
    for (token, sentence) in others {
        let answer = world.ask(&token, json!({"policy": "by-verified-claim", "run": words(&run)})).await;
        refused_with(&answer, sentence, sentence);
    }
    assert_eq!(denied(&world).await, ["claim_not_allowed"; 4]);
    nothing_was_issued(&world).await;
}

#[tokio::test]
async fn a_service_without_a_run_is_told_where_to_name_one() {
    let world = open().await;
    let token = service(&world, CLAIMANT);
    let aws = world.http.get(world.url("/v1/aws/first-steps")).header("authorization", &token);
    let answers = [
        world.exchange_token(&token, "urn:cortex:by-verified-claim:api").await,
        world.ask(&token, json!({"policy": "by-verified-claim"})).await,
        world.ask(&token, json!({"policy": "no-such-policy"})).await,
    ];
    for answer in &answers {
        refused_with(answer, "/v1/credentials and name the run in the member `run`", "no run");
    }
    let told = cortex_tests::world::answer(aws).await;
    assert_eq!(told.status, StatusCode::BAD_REQUEST, "{told:?}");
    assert!(told.body["message"].as_str().unwrap().contains("/v1/credentials"), "{told:?}");
    assert_eq!(denied(&world).await, ["claim_missing"; 4]);
    nothing_was_issued(&world).await;
}

#[tokio::test]
async fn an_airflow_that_cannot_be_asked_confirms_nothing() {
    let world = open().await;
    let run = first_run("r");
    running(&world, &run);
    for mode in AWAY {
        break_down(&world, Cloud::Airflow, mode);
        come_back(&claim(&world, &words(&run)).await, &format!("{mode:?}"));
        world.world.sandbox.clear_faults();
    }
    assert_eq!(denied(&world).await, [const { "claim_unavailable" }; AWAY.len()]);
    nothing_was_issued(&world).await;
    let answer = claim(&world, &words(&run)).await;
    assert_eq!(answer.status, StatusCode::OK, "it recovers: {answer:?}");
}

#[tokio::test]
async fn one_answer_of_three_that_is_nonsense_confirms_nothing() {
    let world = open().await;
    let run = first_run("r");
    running(&world, &run);
    for operation in ["taskInstance", "dagRun", "dag"] {
        let operation = Some(operation.to_owned());
        let fault = Fault { operation, mode: FaultMode::Garbage, remaining: None };
        world.world.sandbox.fault(Cloud::Airflow, fault);
        come_back(&claim(&world, &words(&run)).await, "one answer of three");
        world.world.sandbox.clear_faults();
    }
    nothing_was_issued(&world).await;
}

#[tokio::test]
async fn a_claim_is_as_strict_as_a_token() {
    let world = open().await;
    let run = words(&first_run("r"));
    let mut rows = Vec::new();
    for (member, value) in [
        ("dag_id", json!("../../api/v2/connections")),
        ("dag_id", json!("..")),
        ("dag_id", json!("")),
        ("run_id", json!("r?x=1")),
        ("task_id", json!("a/b")),
        ("task_id", json!("t".repeat(251))),
        ("map_index", json!(-2)),
        ("map_index", json!(4_294_967_296_u64)),
        ("try_number", json!(0)),
        ("try_number", json!("1")),
        ("team", json!("finance")),
    ] {
        let mut run = run.clone();
        run[member] = value;
        rows.push(run);
    }
    for run in rows {
        let answer = claim(&world, &run).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{run}: {answer:?}");
        assert_eq!(answer.body["error"], "invalid_request", "{run}: {answer:?}");
    }
    assert!(denied(&world).await.is_empty(), "what has no form is counted");
    nothing_was_issued(&world).await;
}

#[tokio::test]
async fn policies_tell_a_claim_from_what_airflow_signed() {
    let world = open().await;
    let run = first_run("r");
    running(&world, &run);
    let token = service(&world, CLAIMANT);
    for (policy, rule) in [
        ("first-steps", "first-steps#attestation"),
        ("by-issuer", "by-issuer#attestation"),
        ("by-kubernetes", "by-kubernetes#attestation"),
    ] {
        let answer = world.ask(&token, json!({"policy": policy, "run": words(&run)})).await;
        assert_eq!(answer.body["error"], "invalid_target", "{policy}: {answer:?}");
        assert!(answer.body["error_description"].as_str().unwrap().contains(rule), "{policy}: {answer:?}");
    }
    let denials = world.record(&["denial"]).await;
    for denial in &denials {
        assert_eq!(denial["code"], "attestation");
        assert_eq!(denial["principal"]["attestation"], "verified-claim");
        assert_eq!(denial["claimed_by"], format!("service:services:{CLAIMANT}"));
    }
    let signed = world.ask(&world.token(&run), json!({"policy": "by-verified-claim"})).await;
    assert_eq!(signed.body["error"], "invalid_target", "{signed:?}");
    nothing_was_issued(&world).await;
}

#[tokio::test]
async fn a_single_use_token_of_a_service_claims_once() {
    let world = open_with(|config| config.issuers[2].single_use_jti = Some(true)).await;
    let run = first_run("r");
    running(&world, &run);
    let token = service(&world, CLAIMANT);
    let body = json!({"policy": "by-verified-claim", "run": words(&run)});
    assert_eq!(world.ask(&token, body.clone()).await.status, StatusCode::OK);
    let again = world.ask(&token, body).await;
    refused_with(&again, "used before", "twice");
    assert_eq!(denied(&world).await, ["replay"]);
}

#[tokio::test]
async fn a_handle_has_its_run() {
    let world = open().await;
    let run = first_run("r");
    running(&world, &run);
    let first = claim(&world, &words(&run)).await;
    let handle = first.body["credentials"]["api"]["lease_handle"].as_str().unwrap();
    let again = world.ask(handle, json!({"policy": "by-verified-claim"})).await;
    assert_eq!(
        again.body["credentials"]["api"]["credential"],
        first.body["credentials"]["api"]["credential"]
    );
    let other = world.ask(handle, json!({"policy": "by-verified-claim", "run": words(&run)})).await;
    assert_eq!(other.status, StatusCode::BAD_REQUEST, "{other:?}");
}
