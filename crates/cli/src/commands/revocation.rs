//! `cortex revocation`: how far revocations have come.

use clap::Subcommand;
use serde_json::Value;

use super::issuance::show_revocation;
use super::scope::in_words;
use crate::api::Connection;
use crate::error::{EXITS, Error};
use crate::output::{self, field};

#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, after_help = format!("\
Examples:
  cortex revocation list
  cortex revocation show 0199c1de-0000-7000-8000-000000000000 --json

`cortex issuance revoke` makes one.

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
    /// Revocations, newest first.
    List {
        /// How many, 1 to 200.
        #[arg(long, default_value_t = 50)]
        limit: u16,
        /// Those older than this one: the `next` of the page before.
        #[arg(long, value_name = "ID")]
        before: Option<String>,
    },
    /// One revocation, with the state of each issuance that it hits.
    Show {
        /// The revocation.
        id: String,
        /// How many issuances, 1 to 200.
        #[arg(long, default_value_t = 50)]
        limit: u16,
        /// The issuances behind this one: the `next` of the page before.
        #[arg(long, value_name = "ID")]
        after: Option<String>,
    },
}

pub(crate) async fn run(args: Args) -> Result<(), Error> {
    let api = args.connection.open().await?;
    match args.command {
        Command::List { limit, before } => {
            let page = api.query("/v1/revocations", &page(limit, "before", before)).await?;
            output::either(args.json, &page, list)
        }
        Command::Show { id, limit, after } => {
            let id: cortex_core::RecordId = super::id(&id, "revocation list")?;
            let path = format!("/v1/revocations/{id}");
            let revocation = api.query(&path, &page(limit, "after", after)).await?;
            output::either(args.json, &revocation, show_revocation)
        }
    }
}

/// The parameters of one page.
fn page(limit: u16, cursor: &'static str, at: Option<String>) -> Vec<(&'static str, String)> {
    at.map(|at| (cursor, at)).into_iter().chain([("limit", limit.to_string())]).collect()
}

fn list(page: &Value) {
    let revocations =
        page.get("revocations").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if revocations.is_empty() {
        println!("nothing was revoked");
        return;
    }
    let row = |revocation: &Value| {
        let [id, by, at, reason] = ["id", "by", "at", "reason"].map(|name| field(revocation, name));
        let [pending, enforced, expiring] =
            ["pending", "enforced", "expires_at"].map(|name| field(revocation, name));
        let what = match revocation.get("scope").filter(|scope| !scope.is_null()) {
            Some(scope) => in_words(scope),
            None => format!("issuance {}", field(revocation, "issuance_id")),
        };
        vec![id, what, pending, enforced, expiring, reason, by, at]
    };
    output::table(
        &["REVOCATION", "WHAT", "PENDING", "ENFORCED", "BY EXPIRY", "REASON", "BY", "AT"],
        revocations.iter().map(row),
    );
    if let Some(next) = page.get("next").and_then(Value::as_str) {
        println!("more: --before {next}");
    }
}
