//! What is done at the console, by hand: forms from elsewhere, old pages, roles.

use cortex_sandbox::RunClaims;
use cortex_tests::world::{TestWorld, first_run};
use reqwest::{Method, StatusCode};

use super::visit::{Visit, field};

/// A run that mallory started by hand, with a hostile name and reason.
fn by_hand(run_id: &str) -> RunClaims {
    RunClaims {
        run_type: Some("manual".into()),
        triggering_user_name: Some("mallory".into()),
        ..first_run(run_id)
    }
}

/// Headers, or the fields of a form.
type Pairs<'a> = &'a [(&'a str, &'a str)];

async fn pending(world: &TestWorld, run: &RunClaims) -> String {
    let answer = world.ask_for(run, "first-steps").await;
    answer.body["grant_id"].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned()
}

async fn status(world: &TestWorld, grant: &str) -> String {
    let token = world.person("dave", &["auditors"]);
    let shown = world.as_person(Method::GET, &format!("/v1/grants/{grant}"), &token, None).await;
    shown.body["status"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_approval_needs_a_page_of_the_console_in_the_same_session() {
    let world = TestWorld::start().await;
    let grant = pending(&world, &by_hand("m1")).await;
    let (mut visit, mut other) = (Visit::new(&world), Visit::new(&world));
    visit.sign_in("approver").await;
    other.sign_in("approver").await;
    let page = visit.get(&format!("/console/grants/{grant}")).await;
    let (page, own) = (page.body.as_str().unwrap().to_owned(), world.url(""));
    let (token, digest) = (field(&page, "token"), field(&page, "digest"));
    let others = other.token("/console").await;
    let approve = format!("/console/grants/{grant}/approve");
    let good = [("token", token.as_str()), ("digest", digest.as_str())];
    let theirs = [("token", others.as_str()), ("digest", digest.as_str())];
    let none = [("digest", digest.as_str())];
    let evil = "https://evil.example";
    let cases: [(&str, Pairs<'_>, Pairs<'_>); 9] = [
        ("another origin", &[("origin", evil)], &good),
        ("another port", &[("origin", "http://127.0.0.1:1")], &good),
        ("no origin at all", &[], &good),
        ("an opaque origin", &[("origin", "null")], &good),
        ("another site", &[("origin", &own), ("sec-fetch-site", "cross-site")], &good),
        ("a page beside it", &[("origin", &own), ("sec-fetch-site", "same-site")], &good),
        ("no token", &[("origin", &own)], &none),
        ("the token of another session", &[("origin", &own)], &theirs),
        ("two origins", &[("origin", &own), ("origin", evil)], &good),
    ];
    for (count, (what, headers, form)) in (1..).zip(cases) {
        let refused = visit.send(Method::POST, &approve, headers, Some(form)).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{what}: {refused:?}");
        let on_record = world.record(&["session.refused"]).await;
        assert_eq!(on_record.len(), count, "{what}: on record");
        assert_eq!(on_record[count - 1]["person"], "person:staff:approver", "{what}");
    }
    assert_eq!(status(&world, &grant).await, "requested", "nothing came of any of them");
    let done = visit.send(Method::POST, &approve, &[("sec-fetch-site", "same-origin")], Some(&good)).await;
    assert_eq!(done.status, StatusCode::SEE_OTHER, "{done:?}");
    assert_eq!(status(&world, &grant).await, "approved");
}

#[tokio::test]
async fn what_is_decided_is_what_was_seen() {
    let world = TestWorld::start().await;
    let (grant, other) = (pending(&world, &by_hand("m1")).await, pending(&world, &by_hand("m2")).await);
    let mut visit = Visit::new(&world);
    visit.sign_in("approver").await;
    let page = visit.get(&format!("/console/grants/{other}")).await;
    let page = page.body.as_str().unwrap();
    let (token, digest) = (field(page, "token"), field(page, "digest"));
    for (what, digest) in [("another request's", digest.as_str()), ("none", ""), ("nonsense", "sha256:00")] {
        for verb in ["approve", "deny"] {
            let path = format!("/console/grants/{grant}/{verb}");
            let refused = visit.post(&path, &[("token", &token), ("digest", digest)]).await;
            assert_eq!(refused.status, StatusCode::PRECONDITION_FAILED, "{what}: {refused:?}");
            assert!(refused.body.as_str().unwrap().contains(" again"), "{what}");
        }
    }
    assert_eq!(status(&world, &grant).await, "requested");
}

#[tokio::test]
async fn each_role_sees_its_pages_and_no_others() {
    let world = TestWorld::start().await;
    let grant = pending(&world, &by_hand("m1")).await;
    let pages = [
        ("/console", [true, true, true, true]),
        ("/console/policies", [true, true, true, false]),
        ("/console/policies/first-steps", [true, true, true, false]),
        ("/console/dry-run", [true, true, true, false]),
        ("/console/issuances", [true, false, true, false]),
        ("/console/activity", [true, false, true, false]),
        ("/console/health", [true, false, true, false]),
        ("/console/freezes", [true, true, true, false]),
        ("/console/revocations", [true, false, true, false]),
        ("/console/notifications", [true, false, true, false]),
        ("/console/grants", [true, true, true, false]),
        ("/console/people", [true, false, false, false]),
        ("/console/runs/prod/hello_cortex/m1", [true, true, true, false]),
    ];
    for (index, person) in ["admin", "approver", "auditor", "engineer"].into_iter().enumerate() {
        let mut visit = Visit::new(&world);
        visit.sign_in(person).await;
        for (page, allowed) in pages {
            let expected = if allowed[index] { StatusCode::OK } else { StatusCode::FORBIDDEN };
            let answer = visit.get(page).await;
            assert_eq!(answer.status, expected, "{person} at {page}: {}", answer.body);
        }
        let shown = visit.get(&format!("/console/grants/{grant}")).await;
        assert_eq!(shown.status, if index < 3 { StatusCode::OK } else { StatusCode::FORBIDDEN }, "{person}");
        let offered = shown.body.as_str().unwrap().contains("id=\"approve\"");
        assert_eq!(offered, person == "approver", "{person}");
        let token = visit.token("/console").await;
        let form = [("token", token.as_str()), ("issuer", "staff"), ("subject", "mallory")];
        let disabled = visit.post("/console/people/disable", &form).await;
        assert_eq!(disabled.status == StatusCode::SEE_OTHER, person == "admin", "{person}: {disabled:?}");
    }
}

#[tokio::test]
async fn no_address_makes_a_page_fail() {
    let world = TestWorld::start().await;
    let mut visit = Visit::new(&world);
    visit.sign_in("admin").await;
    for path in [
        "/console/grants/x",
        "/console/grants/00000000-0000-0000-0000-000000000000",
        "/console/issuances/x",
        "/console/issuances?since=yesterday",
        "/console/issuances?outcome=%00",
        "/console/issuances?dag_id=%00",
        "/console/issuances?before=1",
        "/console/issuances?since=-009999-01-01T00:00:00Z",
        "/console/policies/..%2F..%2Fetc",
        "/console/policies/UPPER",
        "/console/policies?after=%00",
        "/console/runs/a/b/%00",
        "/console/runs/%3Cimg%3E/%E2%80%AE/x",
        "/console/activity?window=%3Cx%3E",
        "/console/dry-run?policy=first-steps&dag_id=%3Cimg%3E&task_id=t",
        "/console/dry-run?policy=nope&dag_id=d&task_id=t",
        "/console/dry-run?policy=first-steps&dag_id=d&task_id=t&source=x&at=y",
        "/console/sign-in?return_to=%00",
        "/console/callback",
        "/console/callback?code=x&state=y&iss=z",
        "/console/nothing/here",
        "/console/assets/../console.css",
    ] {
        let answer = visit.get(path).await;
        assert!(!answer.status.is_server_error(), "{path}: {answer:?}");
        let page = answer.body.to_string();
        assert!(!page.contains("<img>"), "{path}: {page}");
    }
}
