//! The page of a policy says what a change of it would have changed, once somebody presses the button.

use cortex_tests::world::{TestWorld, first_run};
use reqwest::StatusCode;

use super::visit::Visit;

const FIRST_STEPS: &str = include_str!("../../../config/dev/first-steps.yaml");
const PAGE: &str = "/console/policies/first-steps";
const REPLAY: &str = "/console/policies/first-steps/replay";

async fn visit(world: &TestWorld, person: &str) -> Visit {
    let mut visit = Visit::new(world);
    visit.sign_in(person).await;
    visit
}

#[tokio::test]
async fn an_admin_sees_what_a_version_or_a_draft_would_have_changed() {
    let world = TestWorld::start().await;
    let issued = world.ask_for(&first_run("s1"), "first-steps").await;
    assert_eq!(issued.status, StatusCode::OK, "{issued:?}");
    let mut admin = visit(&world, "admin").await;
    let page = admin.get(PAGE).await.body.to_string();
    assert!(page.contains("What would version 1 have changed in the last 30 days?"), "{page}");
    assert!(!page.contains("as they were"), "opening a page replays nothing: {page}");
    let token = admin.token(PAGE).await;
    let version = admin.post(REPLAY, &[("token", &token), ("version", "1")]).await;
    assert_eq!(version.status, StatusCode::OK, "{version:?}");
    let text = version.body.to_string();
    for said in ["What version 1 would have changed", "changes nothing", "<dt>4</dt><dd>as they were</dd>"] {
        assert!(text.contains(said), "{said}: {text}");
    }
    let draft = FIRST_STEPS.replace("dags: [hello_cortex]", "dags: [other]");
    let narrow = admin.post(REPLAY, &[("token", &token), ("document", &draft)]).await.body.to_string();
    let said = [
        "would deny",
        "<dt>4</dt><dd>permitted, would be denied",
        "hello_cortex",
        "first-steps#who",
        "class=\\\"del\\\"",
    ];
    for said in said {
        assert!(narrow.contains(said), "{said}: {narrow}");
    }
    assert_eq!(world.record(&["policy.applied"]).await.len(), 6, "nothing was put in force");
}

#[tokio::test]
async fn only_an_admin_on_a_page_of_the_console_replays() {
    let world = TestWorld::start().await;
    for person in ["auditor", "approver"] {
        let mut visit = visit(&world, person).await;
        let page = visit.get(PAGE).await.body.to_string();
        assert!(!page.contains("/replay"), "{person}: {page}");
        let token = visit.token(PAGE).await;
        let answer = visit.post(REPLAY, &[("token", &token), ("version", "1")]).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{person}");
    }
    let mut admin = visit(&world, "admin").await;
    assert_eq!(admin.get(REPLAY).await.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(admin.post(REPLAY, &[("token", "x"), ("version", "1")]).await.status, StatusCode::FORBIDDEN);
    let token = admin.token(PAGE).await;
    let other = FIRST_STEPS.replace("name: first-steps", "name: other-steps");
    for (form, status) in [
        (vec![("version", "9")], 404),
        (vec![("version", "x")], 400),
        (vec![], 400),
        (vec![("version", "1"), ("document", FIRST_STEPS)], 400),
        (vec![("document", other.as_str())], 400),
        (vec![("document", "name: <img src=x>")], 422),
    ] {
        let form: Vec<_> = form.into_iter().chain([("token", token.as_str())]).collect();
        let answer = admin.post(REPLAY, &form).await;
        assert_eq!(answer.status.as_u16(), status, "{answer:?}");
        assert!(!answer.body.to_string().contains("<img"), "{answer:?}");
    }
    let nowhere = admin.post("/console/policies/none/replay", &[("token", &token), ("version", "1")]).await;
    assert_eq!(nowhere.status, StatusCode::NOT_FOUND);
}
