//! A command's life under `cortex exec`: what it gets, what it does not, and what is left when it ends.

use cortex_sandbox::RunClaims;
use cortex_tests::world::{AheadClock, TestWorld, first_run};
use nix::sys::signal::Signal;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Desk, Session, token_command};

/// `exec` of `command` for `first-steps`, with these options before it.
async fn exec(
    world: &TestWorld<AheadClock>,
    desk: &Desk,
    run: &RunClaims,
    options: &[&str],
    command: &[&str],
) -> Session {
    let (server, token_command) = (world.url(""), token_command(world, run).await);
    let mut arguments =
        vec!["exec", "--server", &server, "--policy", "first-steps", "--token-command", &token_command];
    arguments.extend(options);
    arguments.push("--");
    arguments.extend(command);
    let mut command = desk.command(&arguments);
    // What this machine has would be used instead.
    command
        .env("AWS_PROFILE", "production")
        .env("AWS_ACCESS_KEY_ID", "AKIAPRODUCTION")
        .env("AWS_REGION", "eu-west-3");
    command.env("SNOWFLAKE_PASSWORD", "hunter2").env("CORTEX_TOKEN", "a person's");
    Session::start(command)
}

/// Prints the environment, and waits.
const SHOW: [&str; 3] = ["/bin/sh", "-c", "env; echo; read -r line; exit 7"];

/// The environment that the command printed.
async fn environment(session: &mut Session) -> std::collections::BTreeMap<String, String> {
    let mut environment = std::collections::BTreeMap::new();
    while let Some(line) = session.line().await.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once('=').unwrap();
        environment.insert(name.to_owned(), value.to_owned());
    }
    environment
}

async fn status_of(
    world: &TestWorld<AheadClock>,
    url: &str,
    authorization: Option<&str>,
) -> (StatusCode, Value) {
    let mut request = world.http.get(url);
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    let answer = cortex_tests::world::answer(request).await;
    (answer.status, answer.body)
}

#[tokio::test]
async fn the_command_gets_its_credentials_and_nothing_of_this_machine_and_leaves_nothing() {
    let world = TestWorld::start_live(|_| {}).await;
    let desk = Desk::new();
    let mut session = exec(&world, &desk, &first_run("scheduled__1"), &[], &SHOW).await;
    let environment = environment(&mut session).await;
    for hidden in ["AWS_PROFILE", "AWS_ACCESS_KEY_ID", "SNOWFLAKE_PASSWORD", "CORTEX_TOKEN"] {
        assert!(!environment.contains_key(hidden), "{hidden}");
    }
    assert_eq!(environment["AWS_REGION"], "eu-west-3", "where to work is the caller's own choice");
    assert_eq!(environment["SNOWFLAKE_ROLE"], "FINANCE_PUBLISH");
    assert_eq!(environment["GOOGLE_CLOUD_PROJECT"], "acme-finance");

    let folder = desk.runtime.path().join(&desk.left_behind()[0]);
    let private = |path: &std::path::Path| {
        std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions()) & 0o077
    };
    assert_eq!(private(&folder), 0, "the folder is the user's alone");
    for name in ["GOOGLE_APPLICATION_CREDENTIALS", "CORTEX_API_TOKEN_FILE", "SNOWFLAKE_TOKEN_FILE_PATH"] {
        let file = std::path::Path::new(&environment[name]);
        assert!(file.starts_with(&folder), "{name}: {}", file.display());
        assert_eq!(private(file), 0, "{name}");
    }

    let (url, key) = (
        &environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"],
        &environment["AWS_CONTAINER_AUTHORIZATION_TOKEN"],
    );
    for wrong in [None, Some("Bearer x"), Some("cortex_exec_"), Some("")] {
        assert_eq!(status_of(&world, url, wrong).await.0, StatusCode::UNAUTHORIZED, "{wrong:?}");
    }
    let (status, keys) = status_of(&world, url, Some(key)).await;
    assert_eq!(status, StatusCode::OK);
    assert!(keys["AccessKeyId"].is_string() && keys["Token"].is_string() && keys["Expiration"].is_string());
    assert_eq!(world.minted_leases().len(), 2, "AWS's and Google's; the others are signed");

    session.say("end").await;
    assert_eq!(session.end().await.code(), Some(7), "the command's own exit code");
    assert_eq!(desk.left_behind(), Vec::<std::ffi::OsString>::new());
    assert!(world.http.get(url).send().await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn signals_are_passed_on_and_nothing_is_left() {
    let world = TestWorld::start_live(|_| {}).await;
    let trap = "trap 'echo told; exit 9' TERM INT; cat \"$CORTEX_API_TOKEN_FILE\" >/dev/null && echo ready; while :; do sleep 0.1; done";
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let desk = Desk::new();
        let command = ["/bin/sh", "-c", trap];
        let mut session =
            exec(&world, &desk, &first_run("scheduled__1"), &["--target", "api"], &command).await;
        assert_eq!(session.line().await.as_deref(), Some("ready"));
        session.signal(signal);
        assert_eq!(session.line().await.as_deref(), Some("told"), "{signal}");
        assert_eq!(session.end().await.code(), Some(9), "{signal}");
        assert_eq!(desk.left_behind(), Vec::<std::ffi::OsString>::new(), "{signal}");
    }
}

#[tokio::test]
async fn what_a_signal_ends_counts_as_in_a_shell_and_what_cannot_start_too() {
    let world = TestWorld::start_live(|_| {}).await;
    for (command, code) in [
        (&["/bin/sh", "-c", "kill -KILL $$"][..], 137),
        (&["/no/such/program"], 127),
        (&["/etc/passwd"], 126),
        (&["/bin/true"], 0),
    ] {
        let desk = Desk::new();
        let mut session =
            exec(&world, &desk, &first_run("scheduled__1"), &["--target", "api"], command).await;
        assert_eq!(session.end().await.code(), Some(code), "{command:?}: {}", session.complaints().await);
        desk.is_clean().await;
    }
}

#[tokio::test]
async fn the_files_are_gone_even_when_cortex_is_killed() {
    let world = TestWorld::start_live(|_| {}).await;
    let desk = Desk::new();
    let mut session =
        exec(&world, &desk, &first_run("scheduled__1"), &["--target", "api,snowflake"], &SHOW).await;
    environment(&mut session).await;
    assert_eq!(desk.left_behind().len(), 1);
    session.signal(Signal::SIGKILL);
    desk.is_clean().await;
}

#[tokio::test]
async fn when_the_policy_says_no_what_was_given_is_taken_back() {
    let world = TestWorld::start_live(|config| config.leases.renew_below_percent = 100).await;
    let desk = Desk::new();
    let options = ["--target", "api,aws", "--ttl", "15m", "--renew-before", "2h"];
    let wait =
        "env; echo; while [ -e \"$CORTEX_API_TOKEN_FILE\" ]; do sleep 0.1; done; echo gone; read -r line";
    let mut session =
        exec(&world, &desk, &first_run("scheduled__1"), &options, &["/bin/sh", "-c", wait]).await;
    let environment = environment(&mut session).await;
    let admin = world.person("bob", &["cortex-admins"]);
    let retired = world.as_person(Method::DELETE, "/v1/policies/first-steps", &admin, None).await;
    assert!(retired.status.is_success(), "{retired:?}");
    assert_eq!(session.line().await.as_deref(), Some("gone"));
    let (url, key) = (
        &environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"],
        &environment["AWS_CONTAINER_AUTHORIZATION_TOKEN"],
    );
    let (status, said) = status_of(&world, url, Some(key)).await;
    assert_eq!((status, &said["Code"]), (StatusCode::FORBIDDEN, &json!("AccessDenied")));
    session.complains("no longer renewed").await;
    session.say("end").await;
    assert!(session.end().await.success());
}

#[tokio::test]
async fn a_denied_run_starts_nothing() {
    let world = TestWorld::start_live(|_| {}).await;
    let desk = Desk::new();
    let mut stranger = first_run("scheduled__1");
    stranger.dag_id = "payroll".to_owned();
    let mut session = exec(&world, &desk, &stranger, &[], &["/bin/echo", "started"]).await;
    assert_eq!(session.line().await, None);
    assert_eq!(session.end().await.code(), Some(3));
    assert!(session.complaints().await.contains("decision"), "what to quote to an admin");
    assert_eq!(desk.left_behind(), Vec::<std::ffi::OsString>::new());
}

/// A run that alice started by hand: `first-steps` wants an approval for it.
fn by_hand(run_id: &str) -> RunClaims {
    RunClaims {
        run_type: Some("manual".into()),
        triggered_by: Some("ui".into()),
        triggering_user_name: Some("alice".into()),
        ..first_run(run_id)
    }
}

#[tokio::test]
async fn a_run_that_people_have_to_approve_waits_for_them() {
    let world = TestWorld::start_live(|_| {}).await;
    let desk = Desk::new();
    let (run, api) = (by_hand("manual__1"), ["--target", "api", "--wait", "5m"]);
    let mut session = exec(&world, &desk, &run, &api, &["/bin/echo", "started"]).await;
    let said = session.complains("cortex grant approve ").await;
    let grant = said.rsplit(' ').next().unwrap().to_owned();
    let carol = world.person("carol", &["finance-admins"]);
    let path = format!("/v1/grants/{grant}");
    let shown = world.as_person(Method::GET, &path, &carol, None).await;
    let approve = world.http.post(world.url(&format!("{path}/approve"))).bearer_auth(&carol);
    let digest = shown.body["request_digest"].as_str().unwrap();
    let approved = cortex_tests::world::answer(approve.header("if-match", format!("\"{digest}\""))).await;
    assert_eq!(approved.status, StatusCode::OK, "{approved:?}");
    assert_eq!(session.line().await.as_deref(), Some("started"));
    assert!(session.end().await.success());
}

#[tokio::test]
async fn a_run_that_nobody_approves_in_time_says_so_to_scripts() {
    let world = TestWorld::start_live(|_| {}).await;
    let desk = Desk::new();
    let options = ["--target", "api", "--wait", "0s"];
    let mut session = exec(&world, &desk, &by_hand("manual__2"), &options, &["/bin/echo", "started"]).await;
    assert_eq!(session.end().await.code(), Some(5), "{}", session.complaints().await);
}

#[tokio::test]
async fn a_token_in_a_file_is_read_anew_at_each_renewal() {
    let world = TestWorld::start_live(|config| config.leases.renew_below_percent = 100).await;
    let desk = Desk::new();
    let file = desk.home.path().join("token");
    let run = first_run("scheduled__1");
    std::fs::write(&file, world.token(&run)).unwrap();
    let server = world.url("");
    let show = "while :; do cat \"$CORTEX_API_TOKEN_FILE\" && echo; sleep 0.1; done";
    let arguments = [
        "exec",
        "--server",
        &server,
        "--policy",
        "first-steps",
        "--target",
        "api",
        "--ttl",
        "1m",
        "--renew-before",
        "2h",
        "--token-file",
        super::text(&file),
        "--",
        "/bin/sh",
        "-c",
        show,
    ];
    let mut session = Session::start(desk.command(&arguments));
    let first = session.line().await.unwrap();
    session.complains("not renewed, trying again").await;
    std::fs::write(&file, world.token(&run)).unwrap();
    session.complains("renewed again").await;
    while session.line().await.unwrap() == first {}
    let spent = world.record(&["denial"]).await;
    assert_eq!(spent.len(), 1, "the spent token was shown once more and not again: {spent:?}");
}
