//! `cortex login`, `cortex logout`, `cortex whoami`.

use std::env;
use std::process::{Command, Stdio};

use crate::api::{Api, Connection, ServerUrl, named_or_last};
use crate::error::{Error, Exit};
use crate::login::{self, Callback, Login, Provider, SignIn, Tokens};
use crate::output;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cortex login --server https://cortex.acme.example     in the browser of this machine
  cortex login --device                                 with a code, from a machine without a browser
  cortex login --no-browser --port 8400                 through ssh -L 8400:127.0.0.1:8400

Tokens are kept in the kernel's keyring where there is one, else in a file that only you can read. They refresh
themselves. `cortex logout` forgets them.")]
pub(crate) struct Args {
    /// The server. Default: the one that was signed in to last.
    #[arg(long, env = "CORTEX_URL", value_name = "URL")]
    server: Option<ServerUrl>,
    /// Sign in with a code that is entered on any device (RFC 8628). Default where this machine has no screen.
    #[arg(long, conflicts_with_all = ["no_browser", "port"])]
    device: bool,
    /// Print the address and open no browser.
    #[arg(long)]
    no_browser: bool,
    /// The port of 127.0.0.1 that the browser is sent back to; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Keep the tokens in a file, also where there is a keyring.
    #[arg(long)]
    no_keyring: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct LogoutArgs {
    /// The server. Default: the one that was signed in to last.
    #[arg(long, env = "CORTEX_URL", value_name = "URL")]
    server: Option<ServerUrl>,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  cortex whoami\n  cortex whoami --json | jq -r .roles[]")]
pub(crate) struct WhoamiArgs {
    #[command(flatten)]
    connection: Connection,
    /// Print the server's JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> Result<(), Error> {
    let server = named_or_last(args.server.as_ref())?;
    let api = Api::anonymous(server.clone())?;
    let sign_in: SignIn = serde_json::from_value(api.get("/v1/sign-in").await?).map_err(|_| {
        Error::Said(format!(
            "{server} does not say who signs people in: is it a Cortex, and is [sign_in] set there?"
        ))
    })?;
    let provider = Provider::discover(&sign_in).await?;
    let no_screen = !args.no_browser && args.port == 0 && !has_screen();
    let tokens = if args.device || no_screen {
        by_device(&provider).await?
    } else {
        by_browser(&provider, &args).await?
    };
    let login = Login::new(server, sign_in, tokens);
    let place = login.keep(!args.no_keyring)?;
    println!("Signed in to {}. The tokens are kept in {place}.", login.server);
    if !login.refreshes() {
        println!("They end at {}: the identity provider gave no refresh token.", login.expires_at);
    }
    Ok(())
}

async fn by_browser(provider: &Provider, args: &Args) -> Result<Tokens, Error> {
    let callback = Callback::listen(args.port).await?;
    let show = |url: &str| {
        println!("Sign in at\n\n  {url}\n");
        if !args.no_browser {
            open(url);
        }
    };
    provider.by_browser(callback, show).await
}

async fn by_device(provider: &Provider) -> Result<Tokens, Error> {
    let code = provider.device_code().await?;
    println!("Open this page on any device and enter the code:\n\n  {}\n  {}\n", code.uri(), code.code());
    provider.by_device(&code).await
}

/// Whether a browser that is started here is seen by whoever started this.
fn has_screen() -> bool {
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    let remote = is_set("SSH_CONNECTION") || is_set("SSH_TTY");
    !remote && (cfg!(target_os = "macos") || is_set("DISPLAY") || is_set("WAYLAND_DISPLAY"))
}

/// Opens the browser. Where that fails, the address stands in the terminal.
fn open(url: &str) {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let mut command = Command::new(program);
    let _ = command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
}

pub(crate) fn logout(args: &LogoutArgs) -> Result<(), Error> {
    let server = named_or_last(args.server.as_ref())?;
    if !login::forget(&server)? {
        return Err(Error::Of(Exit::NotFound, format!("not signed in to {server}")));
    }
    println!("Signed out of {server}.");
    Ok(())
}

pub(crate) async fn whoami(args: &WhoamiArgs) -> Result<(), Error> {
    let api = args.connection.open().await?;
    let me = api.get("/v1/me").await?;
    output::either(args.json, &me, |me| {
        println!("{:<18} {}", "server", api.server());
        output::outline(me, 0);
    })
}
