//! `cortex freeze`: the kill switch.

use clap::Subcommand;
use cortex_core::Clock as _;
use cortex_core::clock::SystemClock;
use serde_json::{Value, json};

use super::scope::{ScopeArgs, in_words};
use crate::api::Connection;
use crate::arguments;
use crate::error::{EXITS, Error};
use crate::output::{self, field};

#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, after_help = format!("\
Examples:
  cortex freeze set --everything --reason 'incident 42'
  cortex freeze set --dag finance_publish --for 2h --reason 'wrong data'
  cortex freeze list
  cortex freeze lift 0199c1de-0000-7000-8000-000000000000

A freeze stops issuing, handing out again and renewing, on every replica, from the moment that it is set. What was
issued before lives on: `cortex issuance revoke` ends it.

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
    /// Freeze.
    Set {
        #[command(flatten)]
        scope: ScopeArgs,
        /// Why: everybody who meets it reads this.
        #[arg(long)]
        reason: String,
        /// When it ends by itself (RFC 3339). Default: when it is lifted.
        #[arg(long, value_name = "TIME", conflicts_with = "for_")]
        until: Option<String>,
        /// How long it lasts, such as 2h.
        #[arg(long = "for", value_name = "DURATION", value_parser = arguments::duration)]
        for_: Option<std::time::Duration>,
    },
    /// The freezes in force.
    List {
        /// Those that are over as well, newest first.
        #[arg(long)]
        all: bool,
    },
    /// Lift a freeze.
    Lift {
        /// The freeze.
        id: String,
    },
}

pub(crate) async fn run(args: Args) -> Result<(), Error> {
    let api = args.connection.open().await?;
    match args.command {
        Command::Set { scope, reason, until, for_ } => {
            let mut body = json!({"scope": scope.needed()?, "reason": reason});
            let ends =
                for_.and_then(|long| SystemClock.now().checked_add(long).ok()).map(|at| at.to_string());
            if let (Some(fields), Some(until)) = (body.as_object_mut(), until.or(ends)) {
                fields.insert("until".to_owned(), until.into());
            }
            let freeze = api.post("/v1/freezes", &body).await?;
            output::either(args.json, &freeze, |freeze| {
                println!("{} is frozen; `cortex freeze lift {}` lifts it", of(freeze), field(freeze, "id"));
            })
        }
        Command::List { all } => {
            let query = [("in_force", (!all).to_string()), ("limit", "200".to_owned())];
            let freezes = api.query("/v1/freezes", &query).await?;
            output::either(args.json, &freezes, list)
        }
        Command::Lift { id } => {
            let id: cortex_core::RecordId = super::id(&id, "freeze list")?;
            let freeze = api.delete(&format!("/v1/freezes/{id}")).await?;
            output::either(args.json, &freeze, |_| println!("{id} is lifted"))
        }
    }
}

fn of(freeze: &Value) -> String {
    freeze.get("scope").map_or_else(|| "it".to_owned(), in_words)
}

fn list(freezes: &Value) {
    let freezes = freezes.get("freezes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if freezes.is_empty() {
        println!("nothing is frozen");
        return;
    }
    let row = |freeze: &Value| {
        let [id, reason, by, at] = ["id", "reason", "by", "at"].map(|name| field(freeze, name));
        let ends = ["lifted_at", "until"].iter().find_map(|name| freeze.get(name)).unwrap_or(&Value::Null);
        vec![id, of(freeze), reason, by, at, output::text(ends)]
    };
    output::table(&["FREEZE", "WHAT", "REASON", "BY", "SINCE", "UNTIL"], freezes.iter().map(row));
}
