//! People can be erased, and the log stays whole.

use cortex_log::checkpoint::Checkpoint;
use cortex_log::personal::{Opening, commitment, is_commitment};
use cortex_server::store::log::verify;
use cortex_server::store::sessions;
use cortex_tests::promises::dump;
use cortex_tests::world::{Answer, TestWorld};
use jiff::SignedDuration;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{finding, key, round};
use crate::grants::{by_hand, close_books, pending, person_with, say};

const SUBJECT: &str = "u-4711";
const PRINCIPAL: &str = "person:staff:u-4711";
const EMAIL: &str = "robert.smith@acme.example";
/// What must be nowhere once he is erased.
const HIS: [&str; 7] =
    [SUBJECT, EMAIL, "robert.smith", "rsmith", "Bobs own words", "198.51.100.77", "his second thought"];

fn robert(world: &TestWorld) -> String {
    let claims = json!({"email": EMAIL, "preferred_username": "rsmith"});
    person_with(world, SUBJECT, &["finance-admins", "cortex-admins"], &claims)
}

async fn as_robert(world: &TestWorld, method: Method, path: &str, body: Option<Value>) -> Answer {
    let answer = world.as_person(method, path, &robert(world), body).await;
    assert!(answer.status.is_success(), "{path}: {answer:?}");
    answer
}

async fn as_auditor(world: &TestWorld, path: &str) -> Answer {
    let dave = world.person("dave", &["auditors", "cortex-admins"]);
    world.as_person(Method::GET, path, &dave, None).await
}

async fn erase(world: &TestWorld, body: Value) -> Answer {
    let erin = world.person("erin", &["cortex-admins"]);
    world.as_person(Method::POST, "/v1/people/erase", &erin, Some(body)).await
}

fn him() -> Value {
    json!({"issuer": "staff", "subject": SUBJECT, "reason": "ticket 17"})
}

/// He does everything that a person can do, and starts a run.
async fn live(world: &TestWorld) -> String {
    let scope = json!({"kind": "dag", "dag_id": "another"});
    let freeze = json!({"scope": scope, "reason": "Bobs own words on a freeze"});
    let set = as_robert(world, Method::POST, "/v1/freezes", Some(freeze)).await;
    let id = set.body["id"].as_str().unwrap().to_owned();
    as_robert(world, Method::DELETE, &format!("/v1/freezes/{id}"), None).await;
    let stays =
        json!({"scope": {"kind": "dag", "dag_id": "third"}, "reason": "Bobs own words that stay in force"});
    as_robert(world, Method::POST, "/v1/freezes", Some(stays)).await;
    let revocation = json!({"scope": scope, "reason": "Bobs own words on a revocation"});
    as_robert(world, Method::POST, "/v1/revocations", Some(revocation)).await;
    let grant = pending(world, &by_hand("m1"), "first-steps").await;
    let approved = say(world, &grant, "approve", &robert(world), "Bobs own words on alice's run").await;
    assert_eq!(approved.status, StatusCode::OK, "{approved:?}");
    assert_eq!(world.ask_for(&by_hand("m1"), "first-steps").await.status, StatusCode::OK);
    let mut his = by_hand("m2");
    his.triggering_user_name = Some("rsmith".into());
    pending(world, &his, "first-steps").await;
    session(world).await;
    let denied = world.ask(&robert(world), json!({"policy": "first-steps"})).await;
    assert_eq!(denied.status, StatusCode::BAD_REQUEST, "{denied:?}");
    grant
}

/// He signs in at the console.
async fn session(world: &TestWorld) {
    let person = as_robert(world, Method::GET, "/v1/me", None).await.body["person"].clone();
    let mut connection = world.pool().acquire().await.unwrap();
    let stamp = world.world.cortex.broker.recorder.stamp();
    let hash = cortex_core::Digest::of(b"a cookie");
    let from = Some([198, 51, 100, 77].into());
    let person = serde_json::from_value(person).unwrap();
    sessions::start(&mut connection, hash, person, SignedDuration::from_hours(1), from, stamp).await.unwrap();
}

/// Everything that the database holds, as its administrator reads it.
async fn everything(world: &TestWorld) -> String {
    let pool = PgPool::connect(world.world.config.database.url.as_deref().unwrap()).await.unwrap();
    dump(&pool).await
}

/// What of his is in a text.
fn traces(text: &str) -> Vec<&'static str> {
    let text = text.to_lowercase();
    HIS.into_iter().filter(|his| text.contains(&his.to_lowercase())).collect()
}

/// Everything that Cortex tells an auditor about the past, in one text.
async fn told(world: &TestWorld) -> String {
    let kinds = cortex_core::record::What::KINDS.join(",");
    let mut paths: Vec<String> = vec![format!("/v1/issuances?limit=200&kinds={kinds}")];
    let rows = as_auditor(world, &paths[0]).await.body["issuances"].as_array().unwrap().clone();
    paths.extend(rows.iter().map(|row| format!("/v1/issuances/{}", row["id"].as_str().unwrap())));
    let more = [
        "/v1/grants",
        "/v1/freezes",
        "/v1/revocations",
        "/v1/policies",
        "/v1/sessions",
        "/v1/notifications",
        "/v1/policies/close-books/history",
        "/v1/people/disabled",
    ];
    paths.extend(more.map(str::to_owned));
    for report in ["approvals", "policy-changes", "revocations", "break-glass"] {
        paths.push(format!("/v1/reports/{report}?quarter=2026Q4&format=jsonl"));
    }
    let mut told = Vec::new();
    for path in paths {
        told.push(format!("{path} {:?}", as_auditor(world, &path).await.body));
    }
    told.join("\n")
}

#[tokio::test]
async fn an_erased_person_is_nowhere_and_the_log_is_as_whole_as_before() {
    let world = TestWorld::start().await;
    live(&world).await;
    let policy = json!({"documents": [close_books("")]});
    as_robert(&world, Method::POST, "/v1/policies", Some(policy)).await;
    round(&world).await;
    let before = told(&world).await;
    for his in [PRINCIPAL, EMAIL, "Bobs own words on a freeze", "rsmith", "198.51.100.77"] {
        assert!(before.contains(his), "{his} is not told before");
    }
    let kept: String =
        sqlx::query_scalar("SELECT checkpoint FROM log_shard").fetch_one(world.pool()).await.unwrap();
    let leaves: String = sqlx::query_scalar("SELECT string_agg(convert_from(leaf, 'UTF8'), '') FROM record")
        .fetch_one(world.pool())
        .await
        .unwrap();
    assert_eq!(traces(&leaves), Vec::<&str>::new(), "no leaf ever has anything of his");

    let erased = erase(&world, him()).await;
    assert_eq!(erased.status, StatusCode::OK, "{erased:?}");
    assert_eq!(erased.body["withdrawn"], 1, "what waits and he started: {erased:?}");
    assert_eq!(traces(&everything(&world).await), Vec::<&str>::new(), "something of his is in the database");
    let after = told(&world).await;
    assert_eq!(traces(&after), Vec::<&str>::new(), "something of his is told");
    assert!(after.contains(&erased.body["person"].as_str().unwrap().replace(":~", ":erased~")), "{after}");
    round(&world).await;
    assert_eq!(finding(&world).await, None);
    let older = vec![Checkpoint::open_under(&kept, &key(&world)).unwrap()];
    verify(world.pool(), &key(&world), older, |_, _| {}).await.unwrap();
    let record = world.record(&["person.erased"]).await;
    assert_eq!(
        (&record[0]["person"], &record[0]["by"]),
        (&erased.body["person"], &json!("person:staff:erin"))
    );
}

#[tokio::test]
async fn who_comes_back_is_somebody_else_to_the_log() {
    let world = TestWorld::start().await;
    live(&world).await;
    let of = |world: &TestWorld| {
        let pool = world.pool().clone();
        async move {
            let query = "SELECT principal FROM record WHERE kind = 'session.started' ORDER BY id";
            sqlx::query_scalar::<_, String>(query).fetch_all(&pool).await.unwrap()
        }
    };
    session_again(&world).await;
    let sessions = of(&world).await;
    assert_eq!(sessions[0], sessions[1], "one person is one, for whoever asks what they did");
    assert!(is_commitment(sessions[0].strip_prefix("person:staff:").unwrap()), "{sessions:?}");
    assert_eq!(erase(&world, him()).await.status, StatusCode::OK);
    assert_eq!(of(&world).await.len(), 2);
    session(&world).await;
    let again = of(&world).await;
    assert_eq!(again.iter().filter(|principal| **principal != sessions[0]).count(), 1, "{again:?}");
    // What he did before is still found, by what readers were told.
    let asked = sessions[0].replace(":~", ":erased~");
    let path = format!("/v1/issuances?kinds=session.started&principal={asked}");
    assert_eq!(as_auditor(&world, &path).await.body["issuances"].as_array().unwrap().len(), 2);
    let path = format!("/v1/issuances?kinds=session.started&principal={PRINCIPAL}");
    assert_eq!(as_auditor(&world, &path).await.body["issuances"].as_array().unwrap().len(), 1);
    // A second erasure is one more.
    assert_eq!(erase(&world, him()).await.status, StatusCode::OK);
    round(&world).await;
    assert_eq!(finding(&world).await, None);
}

async fn session_again(world: &TestWorld) {
    sqlx::query("DELETE FROM session").execute(world.pool()).await.unwrap();
    session(world).await;
}

#[tokio::test]
async fn a_guess_is_confirmed_while_the_salt_is_kept_and_not_afterwards() {
    let world = TestWorld::start().await;
    live(&world).await;
    let committed: String = sqlx::query_scalar("SELECT principal FROM record WHERE kind = 'session.started'")
        .fetch_one(world.pool())
        .await
        .unwrap();
    let committed = committed.strip_prefix("person:staff:").unwrap().to_owned();
    let salts = async || -> Vec<Vec<u8>> {
        sqlx::query_scalar("SELECT salt FROM personal").fetch_all(world.pool()).await.unwrap()
    };
    let confirmed = |salts: &[Vec<u8>]| {
        let fits = |salt: &Vec<u8>| commitment(salt.as_slice().try_into().unwrap(), PRINCIPAL) == committed;
        salts.iter().any(fits)
    };
    assert!(confirmed(&salts().await), "the auditor can check that it was he");
    assert_eq!(erase(&world, him()).await.status, StatusCode::OK);
    assert!(!confirmed(&salts().await), "nothing that is left confirms the right guess");
}

#[tokio::test]
async fn an_export_has_names_where_they_are_wanted_and_never_of_whom_is_erased() {
    let world = TestWorld::start().await;
    live(&world).await;
    round(&world).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("personal.jsonl");
    let export = async |names: bool| {
        cortex_server::log::export(world.pool(), folder.path(), names, |_, _| {}).await.unwrap();
        std::fs::read_to_string(&file).ok()
    };
    let named = export(true).await.unwrap();
    assert!(named.contains(PRINCIPAL) && named.contains(EMAIL), "{named}");
    let openings: Vec<Opening> = named.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(openings.iter().all(Opening::fits), "{named}");
    assert_eq!(erase(&world, him()).await.status, StatusCode::OK);
    assert_eq!(traces(&export(true).await.unwrap()), Vec::<&str>::new());
    assert_eq!(export(false).await, None, "an earlier export's names go");
}

#[tokio::test]
async fn nobody_is_erased_whom_cortex_has_to_remember_or_whom_the_reason_names() {
    let world = TestWorld::start().await;
    live(&world).await;
    let erin = world.person("erin", &["cortex-admins"]);
    let name = json!({"issuer": "staff", "subject": SUBJECT});
    let post = async |path: &str, body: &Value| {
        let answer = world.as_person(Method::POST, path, &erin, Some(body.clone())).await;
        assert!(answer.status.is_success(), "{answer:?}");
        answer
    };
    for reason in ["Robert.Smith has left", "rsmith", "u-4711 wants it"] {
        let refused = erase(&world, json!({"issuer": "staff", "subject": SUBJECT, "reason": reason})).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{reason}: {refused:?}");
    }
    post("/v1/people/disable", &name).await;
    assert_eq!(erase(&world, him()).await.status, StatusCode::CONFLICT, "he would be let in again");
    post("/v1/people/enable", &name).await;
    let freeze = json!({"scope": {"kind": "principal", "principal": PRINCIPAL}, "reason": "incident 3"});
    let freeze = post("/v1/freezes", &freeze).await;
    assert_eq!(erase(&world, him()).await.status, StatusCode::CONFLICT, "the freeze would hold nobody");
    let path = format!("/v1/freezes/{}", freeze.body["id"].as_str().unwrap());
    assert_eq!(world.as_person(Method::DELETE, &path, &erin, None).await.status, StatusCode::OK);
    let myself = erase(&world, json!({"issuer": "staff", "subject": "erin", "reason": "ticket 1"})).await;
    assert_eq!(myself.status, StatusCode::CONFLICT);
    let dave = world.person("dave", &["auditors"]);
    let refused = world.as_person(Method::POST, "/v1/people/erase", &dave, Some(him())).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(world.record(&["person.erased"]).await.is_empty());
    assert_eq!(erase(&world, him()).await.status, StatusCode::OK);
    assert_eq!(traces(&everything(&world).await), Vec::<&str>::new());
}
