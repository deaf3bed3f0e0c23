//! `cortex issuance revoke`: ends credentials, and follows how far that has come.

use std::io::IsTerminal as _;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::uuid;
use crate::api::Api;
use crate::arguments;
use crate::commands::scope::ScopeArgs;
use crate::error::{Error, Exit};
use crate::output::{self, field};

/// How often the server is asked how far it is.
const EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// One issuance.
    #[arg(long, value_name = "ID", conflicts_with_all = ["everything", "issuer", "policy", "dag", "run", "principal", "since", "freeze"])]
    issuance: Option<String>,
    #[command(flatten)]
    scope: ScopeArgs,
    /// Only what was issued at this time or later (RFC 3339).
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Why, for the record.
    #[arg(long)]
    reason: String,
    /// Only say what it would hit.
    #[arg(long)]
    dry_run: bool,
    /// Freeze the same scope too, so that nothing new is issued within it.
    #[arg(long, conflicts_with = "dry_run")]
    freeze: bool,
    /// Wait this long until nothing is pending any more; without it, the answer is printed as it is now.
    #[arg(long, value_name = "DURATION", value_parser = arguments::duration, conflicts_with = "dry_run")]
    wait: Option<Duration>,
}

pub(super) async fn run(api: &Api, args: &Args, json: bool) -> Result<(), Error> {
    let mut answer = api.post("/v1/revocations", &body(args)?).await?;
    if let Some(patience) = args.wait {
        let id = uuid(&field(&answer, "id"))?;
        answer = settled(api, &format!("/v1/revocations/{id}"), patience).await?;
    }
    output::either(json, &answer, if args.dry_run { show_preview } else { show_revocation })?;
    let pending = count(&answer, "pending");
    if args.wait.is_some() && pending > 0 {
        let text = format!(
            "{pending} are still pending: their clouds have not confirmed yet; Cortex goes on trying"
        );
        return Err(Error::Of(Exit::Waiting, text));
    }
    Ok(())
}

fn body(args: &Args) -> Result<Value, Error> {
    let mut body = json!({"reason": args.reason});
    let Some(fields) = body.as_object_mut() else { return Ok(body) };
    let mut set = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    match &args.issuance {
        Some(id) => set("issuance_id", json!(uuid(id)?)),
        None => set("scope", args.scope.needed()?),
    };
    if let Some(since) = &args.since {
        set("since", json!(since));
    }
    if args.dry_run {
        set("dry_run", json!(true));
    }
    if args.freeze {
        set("freeze", json!(true));
    }
    Ok(body)
}

/// Asks until nothing is pending, or the patience is over.
async fn settled(api: &Api, path: &str, patience: Duration) -> Result<Value, Error> {
    let give_up = Instant::now() + patience;
    let at_terminal = std::io::stderr().is_terminal();
    loop {
        let revocation = api.get(path).await?;
        let [pending, enforced, expiring] = COUNTS.map(|name| count(&revocation, name));
        if at_terminal {
            eprint!("\r{pending} pending, {enforced} enforced, {expiring} end by expiry ");
        }
        let complete = revocation.get("complete").and_then(Value::as_bool).unwrap_or(false);
        if (complete && pending == 0) || Instant::now() >= give_up {
            if at_terminal {
                eprintln!();
            }
            return Ok(revocation);
        }
        sleep(EVERY).await;
    }
}

/// The states that an issuance can be in, as a revocation counts them.
const COUNTS: [&str; 3] = ["pending", "enforced", "expires_at"];

fn count(revocation: &Value, name: &str) -> u64 {
    revocation.get(name).and_then(Value::as_u64).unwrap_or_default()
}

/// A revocation as people read it: the truth about each issuance, and no more than that.
pub(crate) fn show_revocation(revocation: &Value) {
    for name in ["id", "reason", "by", "at", "pending", "enforced", "expires_at", "complete"] {
        println!("{name:<12} {}", field(revocation, name));
    }
    issuances(revocation);
    if let Some(next) = revocation.get("next").and_then(Value::as_str) {
        println!("more: --after {next}");
    }
}

fn show_preview(preview: &Value) {
    println!("nothing was revoked: this was a dry run");
    issuances(preview);
    if preview.get("more").and_then(Value::as_bool).unwrap_or(false) {
        println!("and more than these");
    }
}

fn issuances(revocation: &Value) {
    let hits = revocation.get("issuances").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if hits.is_empty() {
        return println!("it hits nothing");
    }
    let row = |hit: &Value| {
        let detail =
            ["why", "last_error", "evidence"].iter().find_map(|name| hit.get(name)).unwrap_or(&Value::Null);
        let [id, provider, state, ends] =
            ["issuance_id", "provider", "state", "credential_expires_at"].map(|name| field(hit, name));
        vec![id, provider, state, ends, output::text(detail)]
    };
    output::table(&["ISSUANCE", "PROVIDER", "STATE", "EXPIRES", ""], hits.iter().map(row));
}
