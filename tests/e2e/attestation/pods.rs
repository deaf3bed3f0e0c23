//! A pod's projected token, and the cluster that vouches for it.

use cortex_sandbox::Pod;
use cortex_tests::attack::counted;
use cortex_tests::forge::{Attacker, part};
use cortex_tests::world::pod;

use super::*;

fn started(world: &TestWorld, pod: &Pod) -> String {
    world.world.sandbox.start_pod(pod.clone());
    world.world.sandbox.pod_token(pod, AUDIENCE, 3_600).unwrap()
}

async fn ask(world: &TestWorld, token: &str) -> Answer {
    world.ask(token, json!({"policy": "by-kubernetes"})).await
}

#[tokio::test]
async fn a_pod_gets_the_credentials_of_the_run_in_it() {
    let world = open().await;
    let mut mapped = pod("u1");
    mapped.annotations.insert("map_index".into(), "7".into());
    let token = started(&world, &mapped);
    let answer = ask(&world, &token).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let openings = world.record(&["issuance.intent", "issuance.issued"]).await;
    assert_eq!(openings.len(), 2);
    for opening in openings {
        let who = &opening["principal"];
        assert_eq!(who["attestation"], "kubernetes", "{opening}");
        assert_eq!(who["issuer"], "prod");
        assert_eq!(who["run_id"], "scheduled__2026-11-23T00:00:00+00:00");
        assert_eq!((&who["map_index"], &who["try_number"]), (&json!(7), &json!(2)));
        assert!(who.get("run_type").is_none() && opening["caller"].get("claimed_by").is_none(), "{opening}");
        let digest = cortex_core::Digest::of(token.as_bytes()).to_string();
        assert_eq!(opening["caller"]["token_digest"], digest);
    }
    let again = ask(&world, &token).await;
    assert_eq!(again.status, StatusCode::OK, "a projected token is shown again: {again:?}");
    assert_eq!(world.minted_leases().len(), 1);
}

#[tokio::test]
async fn the_clusters_word_is_taken_for_seconds_only() {
    let world = open().await;
    let pod = pod("u1");
    let token = started(&world, &pod);
    assert_eq!(ask(&world, &token).await.status, StatusCode::OK);
    world.world.sandbox.end_pod("u1");
    world.clock.advance(SignedDuration::from_secs(9));
    assert_eq!(ask(&world, &token).await.status, StatusCode::OK, "within `remember`");
    world.clock.advance(SignedDuration::from_secs(1));
    let after = ask(&world, &token).await;
    assert_eq!(after.status, StatusCode::BAD_REQUEST, "{after:?}");
    assert_eq!(counted(&world, "review").await, 1);
}

#[tokio::test]
async fn what_the_cluster_does_not_vouch_for_is_counted() {
    let world = open().await;
    let good = pod("u1");
    let token = started(&world, &good);
    let sandbox = &world.world.sandbox;
    let mut gone = pod("u2");
    gone.name = "gone".into();
    let forged = Attacker::default().sign(&part(&token, 0), &part(&token, 1).to_string());
    let mut claims = part(&token, 1);
    claims["sub"] = json!("system:serviceaccount:airflow:default");
    let two = {
        let mut claims = part(&token, 1);
        claims["aud"] = json!([AUDIENCE, "https://kubernetes.default.svc"]);
        sandbox.forge_pod_token(&claims).unwrap()
    };
    let long = sandbox.pod_token(&good, AUDIENCE, 3_601).unwrap();
    let short = sandbox.pod_token(&good, AUDIENCE, 600).unwrap();
    for (reason, what, token) in [
        ("review", "another key", forged),
        ("review", "a pod that is not there", sandbox.pod_token(&gone, AUDIENCE, 600).unwrap()),
        ("review", "a pod of another account", sandbox.forge_pod_token(&claims).unwrap()),
        ("aud", "another audience", sandbox.pod_token(&good, "https://vault.example", 600).unwrap()),
        ("aud", "two audiences", two),
        ("lifetime", "a long life", long),
    ] {
        let before = counted(&world, reason).await;
        let answer = ask(&world, &token).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{what}: {answer:?}");
        assert_eq!(answer.body["error_description"], "the subject token was not accepted", "{what}");
        assert_eq!(counted(&world, reason).await, before + 1, "{what}");
    }
    world.clock.advance(SignedDuration::from_secs(631));
    ask(&world, &short).await;
    assert_eq!(counted(&world, "exp").await, 1, "expired");
    assert!(denied(&world).await.is_empty());
    nothing_was_issued(&world).await;
}

#[tokio::test]
async fn a_genuine_token_of_the_wrong_pod_is_on_record() {
    let world = open().await;
    let change = |uid: &str, change: fn(&mut Pod)| {
        let mut pod = Pod { name: format!("pod-{uid}"), ..pod(uid) };
        change(&mut pod);
        started(&world, &pod)
    };
    let replaced = change("u1", |_| ());
    // The review is of the old pod; the one that is there now has its name.
    world.world.sandbox.start_pod(Pod { name: "pod-u1".into(), ..pod("u1b") });
    let unbound = {
        let mut claims = part(&replaced, 1);
        claims["kubernetes.io"].as_object_mut().unwrap().remove("pod");
        world.world.sandbox.forge_pod_token(&claims).unwrap()
    };
    let annotate = |uid: &str, name: &'static str, value: &'static str| {
        let mut pod = Pod { name: format!("pod-{uid}"), ..pod(uid) };
        pod.annotations.insert(name.into(), value.into());
        started(&world, &pod)
    };
    let rows = [
        ("pod", "another uid", replaced),
        ("pod", "bound to no pod", unbound),
        ("pod", "ended", change("u2", |pod| pod.phase = "Succeeded".into())),
        ("pod", "being deleted", change("u3", |pod| pod.deleting = true)),
        ("workload", "another namespace", change("u4", |pod| pod.namespace = "default".into())),
        ("workload", "another account", change("u5", |pod| pod.service_account = "default".into())),
        ("claim", "not annotated", change("u6", |pod| pod.annotations.clear())),
        ("claim", "no try", change("u7", |pod| drop(pod.annotations.remove("try_number")))),
        ("claim", "try 0", annotate("u8", "try_number", "0")),
        ("claim", "try +1", annotate("u9", "try_number", "+1")),
        ("claim", "try 01", annotate("ua", "try_number", "01")),
        ("claim", "a map index", annotate("ub", "map_index", "-2")),
        ("claim", "a DAG id", annotate("uc", "dag_id", "../x")),
    ];
    for (code, what, token) in rows {
        let answer = ask(&world, &token).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{what}: {answer:?}");
        assert!(answer.body["decision_id"].is_string(), "{what}: {answer:?}");
        let denial = denial_of(&world, &answer).await;
        assert_eq!(denial["code"], code, "{what}: {denial}");
        assert!(denial["subject"].as_str().unwrap().starts_with("prod:system:serviceaccount:"), "{denial}");
    }
    nothing_was_issued(&world).await;
}

#[tokio::test]
async fn a_cluster_that_cannot_be_asked_vouches_for_nobody() {
    let world = open().await;
    let pod = pod("u1");
    let token = started(&world, &pod);
    for mode in AWAY {
        break_down(&world, Cloud::Kubernetes, mode);
        come_back(&ask(&world, &token).await, &format!("{mode:?}"));
        world.world.sandbox.clear_faults();
    }
    assert_eq!(counted(&world, "cluster_unavailable").await, AWAY.len() as u64);
    let fault = Fault { operation: Some("pods".into()), mode: FaultMode::Down, remaining: Some(1) };
    world.world.sandbox.fault(Cloud::Kubernetes, fault);
    come_back(&ask(&world, &token).await, "reviewed, but the pod cannot be had");
    assert_eq!(denied(&world).await, ["cluster_unavailable"], "then it is known whose token it is");
    nothing_was_issued(&world).await;
    assert_eq!(ask(&world, &token).await.status, StatusCode::OK, "it recovers");
}

#[tokio::test]
async fn policies_tell_a_pod_from_what_airflow_signed() {
    let world = open().await;
    let token = started(&world, &pod("u1"));
    for policy in ["by-issuer", "by-verified-claim"] {
        let answer = world.ask(&token, json!({"policy": policy, "targets": ["api"]})).await;
        assert_eq!(answer.body["error"], "invalid_target", "{policy}: {answer:?}");
        let told = answer.body["error_description"].as_str().unwrap();
        assert!(told.contains(&format!("{policy}#attestation")), "{told}");
    }
    assert_eq!(denied(&world).await, ["attestation"; 2]);
    let signed = world.ask(&world.token(&first_run("r")), json!({"policy": "by-kubernetes"})).await;
    assert_eq!(signed.body["error"], "invalid_target", "{signed:?}");
    nothing_was_issued(&world).await;
}
