//! `cortex grant`: what waits for people, and their word on it.

use std::io::{IsTerminal as _, Write as _};

use clap::Subcommand;
use serde_json::{Value, json};

use crate::api::{Api, Connection};
use crate::error::{EXITS, Error, Exit};
use crate::output::{self, field};

#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, after_help = format!("\
Examples:
  cortex grant list --status requested
  cortex grant approve 0199c1de-0000-7000-8000-000000000000 --comment 'see PRIV-1'
  cortex grant approve 0199c1de-0000-7000-8000-000000000000 --yes --digest sha256:…    in a script
  cortex grant list --json | jq -r '.grants[].id'

{EXITS}"))]
pub(crate) struct Args {
    #[command(flatten)]
    connection: Connection,
    /// Print the server's JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Grants, newest first.
    List {
        /// requested, approved, denied, expired, spent, withdrawn or voided.
        #[arg(long)]
        status: Option<String>,
        /// How many, 1 to 200.
        #[arg(long, default_value_t = 50)]
        limit: u16,
        /// Those older than this one: the `next` of the page before.
        #[arg(long, value_name = "ID")]
        before: Option<String>,
    },
    /// One grant, whole: what is asked, by whom, and where it stands.
    Show {
        /// The grant.
        id: String,
    },
    /// Approve a grant. Shows the whole request first, and asks.
    Approve(Word),
    /// Deny a grant. Shows the whole request first, and asks.
    Deny(Word),
    /// Take a grant back, before or after it was approved.
    Withdraw {
        /// The grant.
        id: String,
        /// Why, for the record.
        #[arg(long)]
        comment: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
struct Word {
    /// The grant.
    id: String,
    /// Why, for the requester and the record.
    #[arg(long)]
    comment: Option<String>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// The request's digest that was looked at before: anything else is refused.
    #[arg(long, value_name = "DIGEST")]
    digest: Option<String>,
}

pub(crate) async fn run(args: Args) -> Result<(), Error> {
    let api = args.connection.open().await?;
    match args.command {
        Command::List { status, limit, before } => {
            let wanted = [("status", status), ("before", before), ("limit", Some(limit.to_string()))];
            let query: Vec<_> = wanted.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
            let page = api.query("/v1/grants", &query).await?;
            output::either(args.json, &page, list)
        }
        Command::Show { id } => {
            let grant = api.get(&at(&id)?).await?;
            output::either(args.json, &grant, |grant| output::outline(grant, 0))
        }
        Command::Approve(word) => decide(&api, &word, "approve", args.json).await,
        Command::Deny(word) => decide(&api, &word, "deny", args.json).await,
        Command::Withdraw { id, comment } => {
            let path = format!("{}/withdraw", at(&id)?);
            let grant = api.post(&path, &json!({"comment": comment})).await?;
            told(&grant, args.json)
        }
    }
}

/// The path of a grant.
fn at(id: &str) -> Result<String, Error> {
    Ok(format!("/v1/grants/{}", super::id::<cortex_core::GrantId>(id, "grant list")?))
}

fn list(page: &Value) {
    let grants = page.get("grants").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if grants.is_empty() {
        println!("no grants");
        return;
    }
    let row = |grant: &Value| {
        let run =
            ["dag_id", "run_id", "task_id"].map(|name| field(grant, &format!("request.{name}"))).join(" / ");
        let wanted =
            ["id", "status", "policy", "requested_at", "expires_at", "reason"].map(|name| field(grant, name));
        let [id, status, policy, requested_at, expires_at, reason] = wanted;
        vec![id, status, policy, run, requested_at, expires_at, reason]
    };
    output::table(
        &["GRANT", "STATUS", "POLICY", "RUN", "REQUESTED", "UNTIL", "REASON"],
        grants.iter().map(row),
    );
    if let Some(next) = page.get("next").and_then(Value::as_str) {
        println!("more: --before {next}");
    }
}

/// What is decided on is what was shown: the server compares the digest.
async fn decide(api: &Api, word: &Word, verb: &str, json: bool) -> Result<(), Error> {
    let path = at(&word.id)?;
    let grant = api.get(&path).await?;
    let shown = grant.get("request_digest").and_then(Value::as_str).unwrap_or_default();
    if let Some(expected) = word.digest.as_deref().filter(|expected| *expected != shown) {
        let text =
            format!("the request has the digest {shown}, and not {expected}: it changed; look at it again");
        return Err(Error::Said(text));
    }
    if !json {
        output::outline(&grant, 0);
    }
    if !word.yes && !confirmed(verb)? {
        return Err(Error::Said("nothing was decided".to_owned()));
    }
    let body = json!({"comment": word.comment});
    told(&api.post_if(&format!("{path}/{verb}"), shown, &body).await?, json)
}

fn confirmed(verb: &str) -> Result<bool, Error> {
    if !std::io::stdin().is_terminal() {
        let text = format!("there is nobody to ask: --yes lets `{verb}` go on without");
        return Err(Error::Of(Exit::Usage, text));
    }
    eprint!("\n{verb} exactly this? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn told(grant: &Value, json: bool) -> Result<(), Error> {
    if json {
        return output::json(grant);
    }
    println!("{}: {}", field(grant, "id"), field(grant, "status"));
    let given = grant.get("approvals").and_then(Value::as_array).map_or(0, Vec::len);
    if field(grant, "status") == "requested" && given > 0 {
        println!("{given} of {} approvals", field(grant, "approvers.quorum"));
    }
    Ok(())
}
