//! People at work, in a real Chromium, signed in at a real identity provider.

use cortex_identity::{Algorithm, IssuerConfig, Kind};
use cortex_sandbox::RunClaims;
use cortex_tests::counterparts::{Browser, OpenIdProvider, Window};
use cortex_tests::world::{AheadClock, TestWorld, first_run};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::counterparts::apply;

/// A Cortex whose people sign in at npm's oidc-provider, which is another site for their browsers.
struct Office {
    world: TestWorld<AheadClock>,
    directory: OpenIdProvider,
    browser: Browser,
    _secret: TempDir,
}

impl Office {
    async fn open() -> Self {
        let (directory, browser) = tokio::join!(OpenIdProvider::start_elsewhere(), Browser::start());
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        std::fs::write(&secret, directory.secret()).unwrap();
        let staff = IssuerConfig {
            algorithms: vec![Algorithm::RS256],
            ..IssuerConfig::new(
                "staff".parse().unwrap(),
                directory.issuer(),
                Kind::Person,
                OpenIdProvider::AUDIENCE,
            )
        };
        let world = Box::pin(TestWorld::start_live(move |config| {
            config.issuers.retain(|issuer| issuer.name.as_str() != "staff");
            config.issuers.push(staff);
            config.sign_in.client_secret_file = Some(secret);
            config.roles.auditor.insert("staff/cortex-admins".to_owned());
        }))
        .await;
        directory.serves_console_at(&world.url("/console/callback")).await;
        Self { world, directory, browser, _secret: folder }
    }

    /// Signs a person in at their window and goes to a page of the console.
    async fn sign_in(&self, window: &Window<'_>, user: &str, page: &str) {
        window.goto(&self.world.url(page)).await;
        window.wait("input[name=user]").await;
        window.fill("input[name=user]", user).await;
        window.click("button").await;
        window.wait_url(&self.world.url(page)).await;
        window.wait("main h1").await;
    }

    async fn ask(&self, run: &RunClaims, policy: &str, reason: &str) -> Value {
        let body = json!({"policy": policy, "reason": reason});
        self.world.ask(&self.world.token(run), body).await.body
    }

    /// Has a task ask that needs people; the grant.
    async fn pending(&self, run: &RunClaims, policy: &str, reason: &str) -> String {
        let answer = self.ask(run, policy, reason).await;
        answer["grant_id"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }
}

fn by_hand(run_id: &str, user: &str) -> RunClaims {
    RunClaims {
        run_type: Some("manual".into()),
        triggered_by: Some("ui".into()),
        triggering_user_name: Some(user.into()),
        ..first_run(run_id)
    }
}

const TWO: &str = "
name: two-people
description: Needs two people, whoever starts it
who:
  airflow: prod
  dags: [hello_cortex]
what:
  api:
    audience: https://ledger.acme.example
    scopes: [postings:read]
approval:
  required_for: always
  approvers: {groups: [finance-admins]}
  quorum: 2
";

#[tokio::test]
async fn an_approver_sees_what_waits_approves_it_by_keys_and_the_task_goes_on() {
    let office = Office::open().await;
    let run = by_hand("manual__2026-11-23T09:00:00+00:00", "mallory");
    office.pending(&run, "first-steps", "Month end close: republish the mart").await;
    let carol = office.browser.window("carol").await;
    office.sign_in(&carol, "carol", "/console").await;
    assert!(carol.title().await.starts_with("(1) What waits for you"), "{}", carol.title().await);
    carol.is_sound().await;
    carol.picture("waiting").await;

    carol.press("?").await;
    carol.wait("dialog[open]").await;
    carol.press("Escape").await;
    carol.press("j").await;
    assert_eq!(carol.focused().await, "row");
    carol.press("Enter").await;
    carol.wait("#approve").await;
    carol.is_sound().await;
    carol.picture("grant").await;
    assert!(carol.text("main").await.contains("Month end close"), "the reason is shown");
    assert!(carol.text("main").await.contains("postings:read"), "the rendered scope is shown");
    carol.fill("#comment", "go on").await;
    carol.press("Escape").await;
    carol.click("main h1").await;
    carol.press("a").await;
    assert_eq!(carol.focused().await, "approve");
    carol.press("Enter").await;
    carol.wait(".notice").await;
    assert!(carol.text(".notice").await.starts_with("Approved"));
    assert!(carol.url().await.ends_with("?done=approved"));

    let issued = office.ask(&run, "first-steps", "").await;
    assert_eq!(issued["credentials"]["api"]["status"], "issued", "{issued}");
    carol.click("text=Everything this run asked for").await;
    carol.wait("svg.chart").await;
    carol.is_sound().await;
    carol.picture("run").await;
    assert!(carol.text(".events").await.contains("approved"));
    carol.goto(&office.world.url("/console")).await;
    assert_eq!(carol.title().await, "What waits for you · Cortex");
    let decided = office.world.record(&["grant.decided"]).await;
    assert_eq!(decided[0]["comment"], "go on");
}

#[tokio::test]
async fn a_list_that_is_open_grows_by_itself_and_pages_work_without_scripts() {
    let office = Office::open().await;
    let carol = office.browser.window("carol").await;
    office.sign_in(&carol, "carol", "/console").await;
    assert!(carol.text("main").await.contains("Nothing waits for you"));
    let grant = office.pending(&by_hand("m1", "mallory"), "first-steps", "").await;
    carol.wait("#waiting .row").await;
    assert!(carol.title().await.starts_with("(1)"), "{}", carol.title().await);
    carol.is_calm().await;

    let plain = office.browser.window_with("plain", json!({"scripts": false})).await;
    plain.goto(&office.world.url(&format!("/console/grants/{grant}"))).await;
    plain.fill("input[name=user]", "erin").await;
    plain.click("button").await;
    plain.wait("#deny").await;
    plain.fill("#comment", "not today").await;
    plain.click("#deny").await;
    plain.wait(".notice").await;
    let told = office.ask(&by_hand("m1", "mallory"), "first-steps", "").await;
    assert_eq!(told["error"], "access_denied", "{told}");
    assert!(told["error_description"].as_str().unwrap().contains("not today"), "{told}");
}

#[tokio::test]
async fn nobody_approves_their_own_and_a_quorum_is_two_people() {
    let office = Office::open().await;
    let bob = office.directory.person_token("bob").await;
    let applied = apply(&office.world, &bob, "two-people", TWO).await;
    assert_eq!(applied.status, StatusCode::OK, "{applied:?}");
    let run = by_hand("m1", "mallory");
    let own = office.pending(&by_hand("m2", "carol"), "first-steps", "").await;
    let grant = office.pending(&run, "two-people", "Two pairs of eyes").await;
    let (carol, erin) = (office.browser.window("carol").await, office.browser.window("erin").await);

    office.sign_in(&carol, "carol", &format!("/console/grants/{own}")).await;
    assert_eq!(carol.count("#approve").await, 0, "her own run");
    assert!(
        carol.text("main").await.contains("nobody approves a run that they started"),
        "and the page says why"
    );

    carol.goto(&office.world.url(&format!("/console/grants/{grant}"))).await;
    carol.click("#approve").await;
    carol.wait(".notice").await;
    assert!(carol.text("main").await.contains("1 of 2 approved"), "{}", carol.text("main").await);
    assert_eq!(carol.count("#approve").await, 0, "one person is one approver");
    let still = office.ask(&run, "two-people", "").await;
    assert_eq!(still["error"], "authorization_pending", "{still}");

    office.sign_in(&erin, "erin", &format!("/console/grants/{grant}")).await;
    erin.click("#approve").await;
    erin.wait(".notice").await;
    assert!(erin.text("main").await.contains("2 of 2 approved"));
    let issued = office.ask(&run, "two-people", "").await;
    assert_eq!(issued["credentials"]["api"]["status"], "issued", "{issued}");
}

#[tokio::test]
async fn a_tampered_or_stale_page_decides_nothing() {
    let office = Office::open().await;
    let grant = office.pending(&by_hand("m1", "mallory"), "first-steps", "").await;
    let page = office.world.url(&format!("/console/grants/{grant}"));
    let (carol, erin) = (office.browser.window("carol").await, office.browser.window("erin").await);
    office.sign_in(&carol, "carol", &format!("/console/grants/{grant}")).await;
    let other = format!("sha256:{}", "0".repeat(64));
    carol.set("input[name=digest]", "value", &other).await;
    carol.click("#approve").await;
    carol.wait("text=HTTP 412").await;

    carol.goto(&page).await;
    office.sign_in(&erin, "erin", &format!("/console/grants/{grant}")).await;
    erin.click("#deny").await;
    erin.wait(".notice").await;
    carol.click("#approve").await;
    carol.wait("text=HTTP 409").await;
    let told = office.ask(&by_hand("m1", "mallory"), "first-steps", "").await;
    assert_eq!(told["error"], "access_denied", "the first word holds: {told}");
}

/// A page on another origin that sends a form to Cortex as soon as it is opened.
async fn trap(action: &str, digest: &str) -> String {
    let page = format!(
        "<!doctype html><form method=post action=\"{action}\"><input name=digest value=\"{digest}\">\
         <input name=token value=guess></form><script>document.forms[0].submit()</script>"
    );
    let router = axum::Router::new().route("/", axum::routing::get(|| async { axum::response::Html(page) }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, router).await });
    port.to_string()
}

#[tokio::test]
async fn a_page_of_another_origin_approves_nothing_with_the_cookie_of_its_reader() {
    let office = Office::open().await;
    let grant = office.pending(&by_hand("m1", "mallory"), "first-steps", "").await;
    let carol = office.browser.window("carol").await;
    office.sign_in(&carol, "carol", &format!("/console/grants/{grant}")).await;
    for cookie in carol.cookies().await {
        if cookie["name"] == "cortex" {
            assert_eq!(
                (&cookie["httpOnly"], &cookie["sameSite"]),
                (&json!(true), &json!("Strict")),
                "{cookie}"
            );
        }
    }
    let action = office.world.url(&format!("/console/grants/{grant}/approve"));
    let port = trap(&action, "sha256:00").await;
    // Another port is another origin, and for cookies the same site: this is the nearest that a trap can come.
    carol.goto(&format!("http://127.0.0.1:{port}/")).await;
    carol.wait("text=HTTP 403").await;
    let refused = office.world.record(&["session.refused"]).await;
    assert_eq!(
        (&refused[0]["reason"], &refused[0]["person"]),
        (&json!("cross_site"), &json!("person:staff:carol"))
    );
    // And from another site no cookie comes along.
    carol.goto(&format!("http://localhost:{port}/")).await;
    carol.wait("text=HTTP 401").await;
    let status = office.ask(&by_hand("m1", "mallory"), "first-steps", "").await;
    assert_eq!(status["error"], "authorization_pending", "{status}");

    // A link from elsewhere, as in a chat, shows the page all the same.
    carol
        .goto(&format!(
            "data:text/html,<a href=\"{}\">see</a>",
            office.world.url(&format!("/console/grants/{grant}"))
        ))
        .await;
    carol.click("a").await;
    carol.wait("#approve").await;
}

#[tokio::test]
async fn hostile_names_are_shown_and_do_nothing() {
    let office = Office::open().await;
    let hostile = format!("<img src=x onerror=alert(1)>\u{202e}gnp.\u{200b}{}", "A".repeat(430));
    let run = by_hand("m1", "mallory");
    let grant = office.pending(&run, "first-steps", &hostile).await;
    let carol = office.browser.window_with("carol", json!({"width": 390, "height": 800})).await;
    for page in [format!("/console/grants/{grant}"), "/console".to_owned()] {
        if page == "/console" {
            carol.goto(&office.world.url(&page)).await;
        } else {
            office.sign_in(&carol, "carol", &page).await;
        }
        let text = carol.text("main").await;
        assert!(text.contains("<img src=x onerror=alert(1)>\\u{202e}gnp."), "{text}");
        assert!(!text.contains('\u{202e}') && !text.contains('\u{200b}'), "{text}");
        assert_eq!(carol.count("main img").await, 0);
        assert!(carol.too_wide().await <= 0, "{page} fits a phone");
        carol.is_calm().await;
    }
    carol.goto(&office.world.url(&format!("/console/grants/{grant}"))).await;
    carol.click("details.clip summary").await;
    assert!(carol.text("details.clip .whole").await.ends_with("AAAA"), "the whole of it is one click away");
    carol.is_sound().await;

    let long = format!("%3Cimg%20src=x%20onerror=alert(1)%3E%E2%80%AE{}", "A".repeat(4_096));
    carol
        .goto(&office.world.url(&format!("/console/dry-run?policy=first-steps&task_id=t&dag_id={long}")))
        .await;
    assert_eq!(carol.count("main img").await, 0);
    assert!(carol.too_wide().await <= 0, "4 KB fit a phone");
    carol.is_calm().await;
}

#[tokio::test]
async fn a_session_ends_while_its_person_is_at_work() {
    let office = Office::open().await;
    let grant = office.pending(&by_hand("m1", "mallory"), "first-steps", "").await;
    let carol = office.browser.window("carol").await;
    office.sign_in(&carol, "carol", &format!("/console/grants/{grant}")).await;
    let admin = office.browser.window("admin").await;
    office.sign_in(&admin, "bob", "/console/people").await;
    admin.fill("#p-subject", "carol").await;
    admin.click("button:text-is('Disable')").await;
    admin.wait(".notice").await;
    admin.is_sound().await;
    carol.click("#approve").await;
    carol.wait("text=HTTP 401").await;
    carol.click("a.button").await;
    carol.wait("text=disabled your access").await;
    let status = office.ask(&by_hand("m1", "mallory"), "first-steps", "").await;
    assert_eq!(status["error"], "authorization_pending", "nothing was approved: {status}");
}

#[tokio::test]
async fn an_admin_stops_a_run_and_ends_what_it_got_and_sees_what_is_confirmed() {
    let office = Office::open().await;
    let run = first_run("scheduled__1");
    let issued = office.ask(&run, "first-steps", "").await;
    assert_eq!(issued["credentials"]["api"]["status"], "issued", "{issued}");
    let bob = office.browser.window("bob").await;
    office.sign_in(&bob, "bob", "/console/runs/prod/hello_cortex/scheduled__1").await;
    bob.click("text=Revoke what it got").await;
    bob.wait("#s-kind").await;
    bob.fill("#r-reason", "a leaked log").await;
    bob.click("text=Show what it hits").await;
    bob.wait("text=Revoke these?").await;
    assert_eq!(bob.count("tbody tr").await, 4, "each credential of the run, and what becomes of it");
    bob.is_sound().await;
    bob.click("button.danger").await;
    bob.wait(".notice").await;
    assert!(bob.text("main").await.contains("enforced"), "{}", bob.text("main").await);
    bob.is_sound().await;
    bob.picture("revocation").await;
    let requested = office.world.record(&["revocation.requested"]).await;
    assert_eq!(
        (&requested[0]["reason"], &requested[0]["by"]),
        (&json!("a leaked log"), &json!("person:staff:bob"))
    );

    bob.goto(&office.world.url("/console/freezes?kind=dag&dag_id=hello_cortex")).await;
    bob.fill("#z-reason", "until we know more").await;
    bob.click("button:text-is('Freeze')").await;
    bob.wait(".notice").await;
    bob.is_sound().await;
    bob.picture("freezes").await;
    let stopped = office.ask(&first_run("scheduled__2"), "first-steps", "").await;
    assert!(stopped["error_description"].as_str().unwrap().contains("until we know more"), "{stopped}");
    bob.goto(&office.world.url("/console/freezes")).await;
    bob.click("tr:has-text('the DAG hello_cortex') button").await;
    bob.wait(".notice").await;
    let goes_on = office.ask(&first_run("scheduled__3"), "first-steps", "").await;
    assert_eq!(goes_on["credentials"]["api"]["status"], "issued", "{goes_on}");
}

/// The pages that `docs/console.md` shows, beside those of people at work.
const PICTURES: [&str; 6] = ["issuances", "activity-dark", "policy", "dry-run", "health", "home-phone"];

#[tokio::test]
async fn the_main_pages_are_sound_in_light_and_dark_and_on_a_phone() {
    let office = Office::open().await;
    let bob = office.directory.person_token("bob").await;
    apply(&office.world, &bob, "two-people", TWO).await;
    let changed = TWO.replace("quorum: 2", "quorum: 2\nwhen:\n  max_ttl: 20m");
    office.world.as_person(Method::POST, "/v1/policies", &bob, Some(json!({"documents": [changed]}))).await;
    for (run, policy) in
        [("scheduled__1", "first-steps"), ("scheduled__2", "first-steps"), ("x", "finance-data-publish")]
    {
        office.ask(&first_run(run), policy, "").await;
    }
    let stranger = RunClaims::scheduled("hello_cortex", "scheduled__3", "drop_tables");
    office.ask(&stranger, "first-steps", "").await;
    office
        .pending(&by_hand("manual__2026-11-23T09:00:00+00:00", "mallory"), "two-people", "Look twice")
        .await;
    let light = office.browser.window("light").await;
    let dark = office.browser.window_with("dark", json!({"dark": true})).await;
    let phone = office.browser.window_with("phone", json!({"width": 390, "height": 844})).await;
    for window in [&light, &dark, &phone] {
        office.sign_in(window, "bob", "/console").await;
    }
    let dry_run =
        "/console/dry-run?policy=first-steps&dag_id=hello_cortex&task_id=drop_tables&run_type=manual";
    for (name, page) in [
        ("home", "/console"),
        ("issuances", "/console/issuances"),
        ("activity", "/console/activity?window=hour"),
        ("policies", "/console/policies"),
        ("policy", "/console/policies/two-people"),
        ("dry-run", dry_run),
        ("grants", "/console/grants"),
        ("freezes-none", "/console/freezes"),
        ("revocations", "/console/revocations"),
        ("notifications", "/console/notifications"),
        ("people", "/console/people"),
        ("health", "/console/health"),
        ("timeline", "/console/runs/prod/hello_cortex/scheduled__1"),
    ] {
        for (window, suffix) in [(&light, ""), (&dark, "-dark"), (&phone, "-phone")] {
            assert_eq!(window.goto(&office.world.url(page)).await, 200, "{page}");
            window.is_sound().await;
            assert!(window.too_wide().await <= 0, "{page} is wider than the window");
            let name = format!("{name}{suffix}");
            if PICTURES.contains(&name.as_str()) {
                window.picture(&name).await;
            }
        }
    }
}
