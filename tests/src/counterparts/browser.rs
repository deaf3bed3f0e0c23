//! A real Chromium. Debian's package brings it; `.ci/chromium` installs that or says how.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::{Places, folder};

/// How long one command may take, on a machine that is busy with everything else.
const DEADLINE: Duration = Duration::from_secs(90);

/// A browser; it ends when this is dropped.
pub struct Browser {
    _process: Child,
    pipes: Mutex<(ChildStdin, Lines<BufReader<ChildStdout>>)>,
}

/// One person's window, with cookies of its own.
pub struct Window<'a> {
    browser: &'a Browser,
    name: &'static str,
}

impl Browser {
    /// Starts one.
    pub async fn start() -> Self {
        let mut command = Command::new(Places::get().await.node());
        command.arg(folder().join("node/browser.mjs")).arg(chromium()).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("the browser's driver starts");
        let input = process.stdin.take().expect("its input is a pipe");
        let output = process.stdout.take().expect("its output is a pipe");
        Self { _process: process, pipes: Mutex::new((input, BufReader::new(output).lines())) }
    }

    /// A window on a screen of usual size, in light colours.
    pub async fn window(&self, name: &'static str) -> Window<'_> {
        self.window_with(name, json!({})).await
    }

    /// The same with `dark`, `width`, `height` or without `scripts`.
    pub async fn window_with(&self, name: &'static str, options: Value) -> Window<'_> {
        let mut command = options;
        command["name"] = name.into();
        self.send("open", name, command).await;
        Window { browser: self, name }
    }

    async fn send(&self, what: &str, page: &str, mut command: Value) -> Value {
        command["do"] = what.into();
        command["page"] = page.into();
        let mut pipes = self.pipes.lock().await;
        let (input, output) = &mut *pipes;
        input.write_all(format!("{command}\n").as_bytes()).await.expect("the driver reads");
        let line = timeout(DEADLINE, output.next_line()).await.expect("the browser answers in time");
        let line = line.expect("the answer is text").expect("the browser is still there");
        let mut answer: Value = serde_json::from_str(&line).expect("the answer is JSON");
        assert!(answer.get("error").is_none(), "{page}: {command}: {}", answer["error"]);
        answer["value"].take()
    }
}

impl Window<'_> {
    async fn send(&self, what: &str, command: Value) -> Value {
        self.browser.send(what, self.name, command).await
    }

    async fn text_of(&self, what: &str, command: Value) -> String {
        self.send(what, command).await.as_str().expect("text").to_owned()
    }

    /// Goes to an address; answers the HTTP status.
    pub async fn goto(&self, url: &str) -> u64 {
        self.send("goto", json!({"url": url})).await.as_u64().expect("a status")
    }

    /// Presses what a selector finds.
    pub async fn click(&self, selector: &str) {
        self.send("click", json!({"selector": selector})).await;
    }

    /// Writes into a field.
    pub async fn fill(&self, selector: &str, text: &str) {
        self.send("fill", json!({"selector": selector, "text": text})).await;
    }

    /// Presses a key.
    pub async fn press(&self, key: &str) {
        self.send("press", json!({"key": key})).await;
    }

    /// Waits until a selector finds something.
    pub async fn wait(&self, selector: &str) {
        self.send("wait", json!({"selector": selector})).await;
    }

    /// Waits until the address is this, with `*` and `**`.
    pub async fn wait_url(&self, url: &str) {
        self.send("wait_url", json!({"url": url})).await;
    }

    /// The address.
    pub async fn url(&self) -> String {
        self.text_of("url", json!({})).await
    }

    /// The title.
    pub async fn title(&self) -> String {
        self.text_of("title", json!({})).await
    }

    /// The text of the first that a selector finds, as it is shown.
    pub async fn text(&self, selector: &str) -> String {
        self.text_of("text", json!({"selector": selector})).await
    }

    /// How many a selector finds.
    pub async fn count(&self, selector: &str) -> u64 {
        self.send("count", json!({"selector": selector})).await.as_u64().expect("a number")
    }

    /// The id or the class of what has the focus.
    pub async fn focused(&self) -> String {
        self.text_of("focused", json!({})).await
    }

    /// Changes an attribute in the page, as its reader may.
    pub async fn set(&self, selector: &str, attribute: &str, value: &str) {
        self.send("set", json!({"selector": selector, "attribute": attribute, "value": value})).await;
    }

    /// By how much the page is wider than the window, in pixels.
    pub async fn too_wide(&self) -> i64 {
        self.send("wide", json!({})).await.as_i64().expect("a number")
    }

    /// The cookies that the browser keeps.
    pub async fn cookies(&self) -> Vec<Value> {
        self.send("cookies", json!({})).await.as_array().expect("a list").clone()
    }

    /// What is wrong for people who do not see or use a mouse, and what went wrong by itself: nothing.
    pub async fn is_sound(&self) {
        let url = self.url().await;
        let violations = self.send("check", json!({})).await;
        assert_eq!(violations, json!([]), "{url} is not accessible");
        self.is_calm().await;
    }

    /// Nothing went wrong by itself: no script failed, nothing was stopped by the content security policy, nothing
    /// popped up.
    pub async fn is_calm(&self) {
        let url = self.url().await;
        assert_eq!(self.send("incidents", json!({})).await, json!([]), "{url}");
    }

    /// Takes a picture of the page for the documentation, where `CORTEX_SCREENSHOTS` names a folder.
    pub async fn picture(&self, name: &str) {
        if let Some(folder) = std::env::var_os("CORTEX_SCREENSHOTS") {
            let path = PathBuf::from(folder).join(format!("{name}.png"));
            self.send("picture", json!({"path": path})).await;
        }
    }
}

/// The browser's program.
fn chromium() -> PathBuf {
    let named = std::env::var_os("CORTEX_CHROMIUM").map(PathBuf::from);
    let known =
        ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].map(PathBuf::from);
    let found = named.into_iter().chain(known).find(|path| Path::new(path).exists());
    found.expect("there is a Chromium: run .ci/chromium, or name one in CORTEX_CHROMIUM")
}
