//! `cortex login` with a certified `OpenID` Provider: in a browser and by a device code; kept, refreshed, forgotten.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use cortex_identity::{IssuerConfig, Kind};
use cortex_tests::counterparts::OpenIdProvider;
use cortex_tests::world::{AheadClock, TestWorld};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Response, Url};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

const PROGRAM: &str = env!("CARGO_BIN_EXE_cortex-under-test");
const PATIENCE: Duration = Duration::from_mins(2);

/// A company: its directory, and a Cortex where its people sign in.
struct Company {
    directory: OpenIdProvider,
    world: TestWorld<AheadClock>,
}

impl Company {
    /// ID tokens live for `id_token_ttl` seconds; less than half a minute is refreshed before each use.
    async fn start(id_token_ttl: u32) -> Self {
        let directory = OpenIdProvider::start().await;
        directory.serves_command_line(id_token_ttl).await;
        let name: cortex_core::IssuerName = "staff".parse().unwrap();
        let staff =
            IssuerConfig::new(name.clone(), directory.issuer(), Kind::Person, OpenIdProvider::AUDIENCE);
        let world = TestWorld::start_live(move |config| {
            config.issuers.retain(|issuer| issuer.kind != Kind::Person);
            config.issuers.push(staff);
            config.sign_in.issuer = Some(name);
            config.sign_in.client_id = Some("cortex-console".to_owned());
        })
        .await;
        Self { directory, world }
    }
}

/// One person's machine.
struct Machine {
    home: TempDir,
    url: String,
}

impl Machine {
    fn new(company: &Company) -> Self {
        Self { home: tempfile::tempdir().unwrap(), url: company.world.url("") }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).env_clear().env("HOME", self.home.path()).current_dir(self.home.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    async fn run(&self, arguments: &[&str]) -> std::process::Output {
        timeout(PATIENCE, self.command(arguments).output()).await.expect("it ends in time").unwrap()
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat()).await;
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn login(&self, more: &[&str]) -> SigningIn {
        let mut process = self.command(&[&["login", "--server", &self.url], more].concat()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        SigningIn { process, lines }
    }

    /// What is kept in files.
    fn kept(&self) -> Vec<PathBuf> {
        let folder = self.home.path().join(".local/state/cortex");
        let entries = std::fs::read_dir(folder).into_iter().flatten();
        entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == "json"))
            .collect()
    }
}

/// A `cortex login` that waits for the person.
struct SigningIn {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl SigningIn {
    /// The next line that begins with `prefix`, trimmed.
    async fn line(&mut self, prefix: &str) -> String {
        let found = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                if line.trim().starts_with(prefix) {
                    return line.trim().to_owned();
                }
            }
            panic!("no line with {prefix}");
        };
        timeout(PATIENCE, found).await.expect("a line in time")
    }

    async fn ends(self) -> (Option<i32>, String) {
        let output =
            timeout(PATIENCE, self.process.wait_with_output()).await.expect("it ends in time").unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }
}

/// The person's browser: it keeps cookies and says who they are when it is asked.
struct Browser {
    http: Client,
    cookies: BTreeMap<String, String>,
    person: &'static str,
}

impl Browser {
    fn of(person: &'static str) -> Self {
        let http = Client::builder().no_proxy().redirect(Policy::none()).build().unwrap();
        Self { http, cookies: BTreeMap::new(), person }
    }

    async fn send(&mut self, method: Method, url: &Url, form: &[(&str, &str)]) -> Response {
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut request = self.http.request(method.clone(), url.clone()).header("cookie", cookies.join("; "));
        if method == Method::POST {
            request = request.form(form);
        }
        let response = request.send().await.unwrap();
        for set in response.headers().get_all("set-cookie") {
            let (name, rest) = set.to_str().unwrap().split_once('=').unwrap();
            self.cookies.insert(name.to_owned(), rest.split(';').next().unwrap().to_owned());
        }
        response
    }

    /// Opens an address and goes where it is sent, signing in on the way. Gives the last page.
    async fn open(&mut self, url: &str) -> (Url, String) {
        let mut url: Url = url.parse().unwrap();
        let mut response = self.send(Method::GET, &url, &[]).await;
        for _ in 0..10 {
            if let Some(location) = response.headers().get("location") {
                url = url.join(location.to_str().unwrap()).unwrap();
                response = self.send(Method::GET, &url, &[]).await;
            } else if url.path().starts_with("/interaction/") {
                response = self.send(Method::POST, &url, &[("user", self.person)]).await;
            } else {
                return (url, response.text().await.unwrap());
            }
        }
        panic!("sent around in circles, at last to {url}");
    }

    /// Enters a device code, confirms it, and signs in.
    async fn enter(&mut self, page: &str, code: &str) -> String {
        let (url, form) = self.open(page).await;
        let xsrf = field(&form, "xsrf");
        let response = self.send(Method::POST, &url, &[("xsrf", &xsrf), ("user_code", code)]).await;
        let confirm = response.text().await.unwrap();
        let xsrf = field(&confirm, "xsrf");
        let fields = [("xsrf", xsrf.as_str()), ("user_code", code), ("confirm", "yes")];
        let response = self.send(Method::POST, &url, &fields).await;
        let next = url.join(response.headers()["location"].to_str().unwrap()).unwrap();
        self.open(next.as_str()).await.1
    }
}

/// The value of a hidden field of a page.
fn field(page: &str, name: &str) -> String {
    let (_, rest) =
        page.split_once(&format!("name=\"{name}\" value=\"")).unwrap_or_else(|| panic!("no {name}: {page}"));
    rest.split('"').next().unwrap().to_owned()
}

#[tokio::test]
async fn a_person_signs_in_by_browser_and_is_known_until_they_sign_out() {
    let company = Company::start(600).await;
    let machine = Machine::new(&company);
    let mut login = machine.login(&["--no-browser", "--no-keyring"]);
    let url = login.line("http").await;
    let (at, page) = Browser::of("bob").open(&url).await;
    assert_eq!(at.path(), "/callback");
    assert!(page.contains("close this page"), "{page}");
    let (code, said) = login.ends().await;
    assert_eq!(code, Some(0), "{said}");

    let kept = machine.kept();
    let mode = |path: &std::path::Path| {
        std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions())
    };
    assert_eq!(kept.len(), 1);
    assert_eq!((mode(&kept[0]) & 0o077, mode(kept[0].parent().unwrap()) & 0o077), (0, 0));

    let me = machine.json(&["whoami"]).await;
    assert_eq!(me["principal"], "person:staff:bob", "{me}");
    assert!(me["roles"].as_array().unwrap().iter().any(|role| role == "admin"), "{me}");
    assert!(machine.json(&["grant", "list"]).await["grants"].is_array(), "the server is remembered");

    assert!(machine.run(&["logout"]).await.status.success());
    assert!(machine.kept().is_empty());
    assert_eq!(machine.run(&["whoami"]).await.status.code(), Some(3));
    assert_eq!(machine.run(&["logout"]).await.status.code(), Some(4));
}

#[tokio::test]
async fn without_a_screen_a_code_signs_in() {
    let company = Company::start(600).await;
    let machine = Machine::new(&company);
    // No DISPLAY is set: nobody asked for a device code.
    let mut login = machine.login(&["--no-keyring"]);
    let page = login.line("http").await;
    let code = login.line("").await;
    let done = Browser::of("carol").enter(&page, &code).await;
    assert!(done.contains("close this page"), "{done}");
    let (code, said) = login.ends().await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(machine.json(&["whoami"]).await["principal"], "person:staff:carol");
}

#[tokio::test]
async fn tokens_refresh_themselves_for_as_long_as_the_provider_allows() {
    let company = Company::start(20).await;
    let machine = Machine::new(&company);
    let mut login = machine.login(&["--no-browser", "--no-keyring"]);
    let url = login.line("http").await;
    Browser::of("dave").open(&url).await;
    assert_eq!(login.ends().await.0, Some(0));
    let before = std::fs::read(&machine.kept()[0]).unwrap();
    // A provider takes a refresh token once: at the same time, one process refreshes and the others wait for it.
    let (one, two, three) =
        tokio::join!(machine.json(&["whoami"]), machine.json(&["whoami"]), machine.json(&["whoami"]));
    for me in [one, two, three] {
        assert_eq!(me["principal"], "person:staff:dave");
    }
    assert_ne!(std::fs::read(&machine.kept()[0]).unwrap(), before, "what was fetched is kept");
    company.directory.forget_sign_ins().await;
    let output = machine.run(&["whoami"]).await;
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cortex login"), "{output:?}");
}

#[tokio::test]
async fn somebody_elses_answer_at_the_port_is_not_taken() {
    let company = Company::start(600).await;
    let machine = Machine::new(&company);
    let mut login = machine.login(&["--no-browser", "--no-keyring"]);
    let url: Url = login.line("http").await.parse().unwrap();
    let parameter = |wanted: &str| url.query_pairs().find(|(name, _)| name == wanted).unwrap().1.into_owned();
    assert_eq!(parameter("code_challenge_method"), "S256");
    let (redirect, state) = (parameter("redirect_uri"), parameter("state"));
    let mut browser = Browser::of("eve");
    for (iss, state) in [(company.directory.issuer(), "guessed"), ("https://evil.example", state.as_str())] {
        let forged =
            Url::parse_with_params(&redirect, [("code", "stolen"), ("state", state), ("iss", iss)]).unwrap();
        let answer = browser.send(Method::GET, &forged, &[]).await;
        assert_eq!(answer.status().as_u16(), 400, "{forged}");
    }
    Browser::of("bob").open(url.as_str()).await;
    assert_eq!(login.ends().await.0, Some(0), "the sign-in went on");
}

/// A login session has a keyring of its own, and so has what runs here.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn where_there_is_a_keyring_nothing_secret_is_in_a_file() {
    use std::fmt::Write as _;

    let company = Company::start(20).await;
    let machine = Machine::new(&company);
    let [python, script] = cortex_tests::counterparts::python_command("in_keyring.py").await;
    let mut session = String::from("set -e\n");
    for (arguments, after) in [
        (format!("login --server {} --no-browser", machine.url), ""),
        ("whoami".to_owned(), "find .local/state/cortex -name '*.json'\n"),
        ("logout".to_owned(), "! "),
        ("whoami".to_owned(), ""),
    ] {
        let _ = write!(session, "{PROGRAM} {arguments}\n{after}");
    }
    let mut command = Command::new(python);
    command.arg(script).args(["/bin/sh", "-c", &session]).env_clear().env("HOME", machine.home.path());
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).current_dir(machine.home.path());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut process = command.spawn().unwrap();
    let lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let mut login = SigningIn { process, lines };
    let url = login.line("http").await;
    Browser::of("bob").open(&url).await;
    assert!(login.line("Signed in").await.contains("keyring"));
    assert!(login.line("principal").await.ends_with("person:staff:bob"));
    let mut rest = Vec::new();
    while let Some(line) = login.lines.next_line().await.unwrap() {
        rest.push(line);
    }
    assert!(rest.iter().all(|line| !line.contains(".json")), "{rest:?}");
    let (code, said) = login.ends().await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("not signed in"), "{said}");
}
