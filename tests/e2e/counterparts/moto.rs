//! moto in place of AWS, for `AssumeRole` from the credentials that Cortex itself runs with: moto checks the
//! signature, the caller and the external id.
//!
//! Those credentials come from the environment, which a process cannot change for one of its threads: each test
//! runs itself again in a process of its own.

use std::collections::BTreeMap;
use std::process::Stdio;

use cortex_tests::counterparts::{MotoServer, python};
use cortex_tests::served::Served;
use cortex_tests::world::{AheadClock, Answer, TestWorld, first_run};
use reqwest::{Client, StatusCode, Url};
use serde_json::{Value, json};
use tokio::process::Command;

use super::apply;
use super::relay::Relay;
use crate::kms::{environment, under};

const PROGRAM: &str = env!("CARGO_BIN_EXE_cortex-under-test");
/// Where the test's second process finds moto.
const ENDPOINT: &str = "CORTEX_TEST_MOTO";
const USER: &str = "arn:aws:iam::123456789012:user/cortex";
const EXTERNAL_ID: &str = "cortex/acme-prod";

/// A key of its KMS, and a user who may use that key and nothing else; everything is checked from here on.
async fn keeper(moto: &MotoServer) -> (String, String, String) {
    let scope = "AWS4-HMAC-SHA256 Credential=none/20260101/eu-west-1/kms/aws4_request, SignedHeaders=host, Signature=0";
    let request = Client::new().post(moto.endpoint()).header("authorization", scope);
    let request = request.header("x-amz-target", "TrentService.CreateKey");
    let request = request.header("content-type", "application/x-amz-json-1.1").body("{}");
    let made: Value = request.send().await.unwrap().json().await.unwrap();
    let key = made["KeyMetadata"]["Arn"].as_str().unwrap().to_owned();
    // moto asks for leave on every key, whichever is named.
    let policy = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": ["kms:Encrypt", "kms:Decrypt"], "Resource": "*"},
    ]});
    let policy = policy.to_string();
    let user = ("UserName", "keeper");
    iam(moto, &[("Action", "CreateUser"), user]).await;
    iam(moto, &[("Action", "PutUserPolicy"), user, ("PolicyName", "p"), ("PolicyDocument", &policy)]).await;
    let (key_id, secret) = access_key(moto, user).await;
    check_everything(moto).await;
    (key, key_id, secret)
}

async fn access_key(moto: &MotoServer, user: (&str, &str)) -> (String, String) {
    let key = iam(moto, &[("Action", "CreateAccessKey"), user]).await;
    let member = |name: &str| {
        let (_, rest) = key.split_once(&format!("<{name}>")).unwrap();
        rest.split_once('<').unwrap().0.to_owned()
    };
    (member("AccessKeyId"), member("SecretAccessKey"))
}

/// From now on moto checks signatures and what callers may do.
async fn check_everything(moto: &MotoServer) {
    let reset = Client::new().post(format!("{}/moto-api/reset-auth", moto.endpoint()));
    let reset = reset.header("content-type", "text/plain").body("0").send().await.unwrap();
    assert_eq!(reset.status(), StatusCode::OK);
}

/// An account with a role that one user may assume, with the right external id; everything is checked.
async fn account(moto: &MotoServer) -> (String, String) {
    let trust = json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow",
        "Principal": {"AWS": USER},
        "Action": ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"],
        "Condition": {"StringEquals": {"sts:ExternalId": EXTERNAL_ID}},
    }]});
    let trust = trust.to_string();
    let allow = |action: &str| {
        json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": action, "Resource": "*"}]})
            .to_string()
    };
    let (assume, identify) = (allow("sts:AssumeRole"), allow("sts:GetCallerIdentity"));
    let role = ("RoleName", "finance-publish");
    let user = ("UserName", "cortex");
    iam(moto, &[("Action", "CreateRole"), role, ("AssumeRolePolicyDocument", &trust)]).await;
    iam(moto, &[("Action", "PutRolePolicy"), role, ("PolicyName", "p"), ("PolicyDocument", &identify)]).await;
    iam(moto, &[("Action", "CreateUser"), user]).await;
    iam(moto, &[("Action", "PutUserPolicy"), user, ("PolicyName", "p"), ("PolicyDocument", &assume)]).await;
    let keys = access_key(moto, user).await;
    check_everything(moto).await;
    keys
}

/// moto checks nothing yet, and reads the service from the signature's scope.
async fn iam(moto: &MotoServer, form: &[(&str, &str)]) -> String {
    let scope = "AWS4-HMAC-SHA256 Credential=none/20260101/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=0";
    let form = [form, &[("Version", "2010-05-08")]].concat();
    let request = Client::new().post(moto.endpoint()).header("authorization", scope).form(&form);
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{form:?}");
    answer.text().await.unwrap()
}

/// In the test's first process: starts moto, and runs the test again with the user's credentials. None then; in
/// the second process, moto's endpoint.
async fn in_its_own_process(test: &str) -> Option<String> {
    if let Ok(endpoint) = std::env::var(ENDPOINT) {
        return Some(endpoint);
    }
    let moto = MotoServer::start().await;
    let (key_id, secret) = account(&moto).await;
    let mut again = Command::new(std::env::current_exe().unwrap());
    again
        .args([&format!("counterparts::moto::{test}"), "--exact", "--nocapture"])
        .envs([
            (ENDPOINT, moto.endpoint()),
            ("AWS_ACCESS_KEY_ID", &key_id),
            ("AWS_SECRET_ACCESS_KEY", &secret),
        ])
        .envs([("AWS_CONFIG_FILE", "/dev/null"), ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")])
        .env_remove("AWS_SESSION_TOKEN")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = again.output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "{said}");
    None
}

async fn world(relay: &Relay) -> TestWorld<AheadClock> {
    let endpoint = relay.url.clone();
    TestWorld::start_live(|config| config.providers.aws.endpoint = Some(endpoint)).await
}

/// What a run gets of a policy that assumes the role with `external_id`.
async fn ask(world: &TestWorld<AheadClock>, external_id: &str) -> Answer {
    let policy = format!(
        "
name: assumed
description: A role that Cortex assumes with credentials of its own
who:
  airflow: prod
  dags: [hello_cortex]
  tasks: [publish_mart]
what:
  aws:
    role: arn:aws:iam::123456789012:role/finance-publish
    method: assume-role
    external_id: {external_id}
    tags:
      cost-centre: finance
    allow:
      - actions: [s3:PutObject]
        resources: [\"arn:aws:s3:::finance-mart/{{dag_id}}/{{run_id}}/*\"]
when:
  max_ttl: 30m
"
    );
    let admin = world.person("bob", &["cortex-admins"]);
    let applied = apply(world, &admin, "assumed", &policy).await;
    assert_eq!(applied.status, StatusCode::OK, "{applied:?}");
    world.ask(&world.token(&first_run("scheduled__1")), json!({"policy": "assumed"})).await
}

/// The one form that went to STS.
fn form(relay: &Relay) -> BTreeMap<String, String> {
    let seen = relay.seen();
    assert_eq!(seen.len(), 1, "one call, and no retry");
    let text = std::str::from_utf8(&seen[0]).unwrap();
    Url::parse(&format!("http://form/?{text}")).unwrap().query_pairs().into_owned().collect()
}

#[tokio::test]
async fn assume_role_carries_the_runs_scope_and_its_name() {
    let Some(moto) = in_its_own_process("assume_role_carries_the_runs_scope_and_its_name").await else {
        return;
    };
    let relay = Relay::start(moto.clone()).await;
    let world = world(&relay).await;
    let answer = ask(&world, EXTERNAL_ID).await;
    let entry = &answer.body["credentials"]["aws"];
    assert_eq!(entry["status"], "issued", "{answer:?}");
    let issuance = entry["issuance_id"].as_str().unwrap();

    let form = form(&relay);
    assert_eq!(form["Action"], "AssumeRole");
    assert_eq!(form["SourceIdentity"], issuance);
    assert_eq!(form["TransitiveTagKeys.member.1"], "lease");
    let tags: BTreeMap<_, _> = (1..=4)
        .map(|i| (&*form[&format!("Tags.member.{i}.Key")], &*form[&format!("Tags.member.{i}.Value")]))
        .collect();
    let expected =
        [("cost-centre", "finance"), ("dag_id", "hello_cortex"), ("lease", issuance), ("policy", "assumed")];
    assert_eq!(tags, BTreeMap::from(expected));

    let session = session(&moto).await;
    assert_eq!(session["external_id"], EXTERNAL_ID);
    assert_eq!(session["role_arn"], "arn:aws:iam::123456789012:role/finance-publish");
    assert!(session["session_name"].as_str().unwrap().starts_with("hello_cortex."), "{session}");
    let policy: Value = serde_json::from_str(session["policy"].as_str().unwrap()).unwrap();
    let statement = json!([{
        "Effect": "Allow",
        "Action": ["s3:PutObject"],
        "Resource": ["arn:aws:s3:::finance-mart/hello_cortex/scheduled__1/*"],
    }]);
    assert_eq!(policy["Statement"], statement, "{policy}");
    assert_eq!(session["secret_access_key"], entry["credential"]["secret_access_key"]);

    let url = world.url("/v1/aws/assumed");
    let handle = entry["lease_handle"].as_str().unwrap();
    let env = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", &*url), ("AWS_CONTAINER_AUTHORIZATION_TOKEN", handle)];
    let said = python("aws_container.py", &["--sts-endpoint", &moto], &env, "").await.succeeded();
    let arn = format!(
        "arn:aws:sts::123456789012:assumed-role/finance-publish/{}",
        session["session_name"].as_str().unwrap()
    );
    assert_eq!(said["arn"], *arn, "moto knows the session by its keys");
}

/// The one session that moto made.
async fn session(moto: &str) -> Value {
    let data = Client::new().get(format!("{moto}/moto-api/data.json")).send().await.unwrap();
    let data: Value = data.json().await.unwrap();
    let sessions = data["sts"]["AssumedRole"].as_array().unwrap();
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    sessions[0].clone()
}

#[tokio::test]
async fn a_role_that_demands_another_external_id_is_not_assumed() {
    let Some(moto) = in_its_own_process("a_role_that_demands_another_external_id_is_not_assumed").await
    else {
        return;
    };
    let relay = Relay::start(moto).await;
    let world = world(&relay).await;
    let answer = ask(&world, "cortex/somebody-else").await;
    assert_eq!(answer.body["error"], "invalid_target", "{answer:?}");
    assert_eq!(form(&relay)["ExternalId"], "cortex/somebody-else");
    let outcomes = world.record(&["issuance.outcome"]).await;
    assert_eq!(outcomes.len(), 1);
    assert_eq!(outcomes[0]["outcome"]["outcome"], "failed", "{outcomes:?}");
}

#[tokio::test]
async fn its_kms_wraps_the_key_files_and_unwraps_them_at_a_restart() {
    let moto = MotoServer::start().await;
    let (key, key_id, secret) = keeper(&moto).await;
    let endpoint = moto.endpoint().to_owned();
    let own = environment("http://127.0.0.1:1", &key_id, &secret);
    let mut served =
        Served::with_environment(PROGRAM, |_| own, |config| under(config, &key, Some(endpoint))).await;
    served.start().await;
    let text = std::fs::read_to_string(served.file("cortex.key")).unwrap();
    assert!(text.contains(&key) && text.contains("signing-keys"), "{text}");
    served.kill().await;
    served.start().await;
    served.kill().await;
    // The log's key in the place of the other one, with the other's word: moto compares the encryption context.
    let log = std::fs::read_to_string(served.file("cortex-log.key")).unwrap();
    std::fs::write(served.file("cortex.key"), log.replace("\"log\"", "\"signing-keys\"")).unwrap();
    let (started, said) = served.try_run(&["serve"]).await;
    assert!(!started && said.contains("it was changed, or wrapped for something else"), "{said}");
}
