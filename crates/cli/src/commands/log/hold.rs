//! `cortex log hold`: records that nothing drops from the database.

use clap::Subcommand;
use serde_json::{Value, json};

use super::super::scope::{ScopeArgs, in_words};
use crate::api::Connection;
use crate::error::Error;
use crate::output::{self, field};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
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
    /// Hold records.
    Set {
        #[command(flatten)]
        scope: ScopeArgs,
        /// Of what happened from then on (RFC 3339). Default: from the beginning.
        #[arg(long, value_name = "TIME")]
        from: Option<String>,
        /// Of what happened before then (RFC 3339). Default: whenever.
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        /// Why.
        #[arg(long)]
        reason: String,
    },
    /// The holds in force.
    List {
        /// Those that were lifted as well, newest first.
        #[arg(long)]
        all: bool,
    },
    /// Lift a hold that another admin has set.
    Lift {
        /// The hold.
        id: String,
    },
}

pub(super) async fn run(args: Args) -> Result<(), Error> {
    let api = args.connection.open().await?;
    match args.command {
        Command::Set { scope, from, until, reason } => {
            let mut body = json!({"scope": scope.needed()?, "reason": reason});
            if let Some(fields) = body.as_object_mut() {
                fields.extend(from.map(|from| ("from".to_owned(), from.into())));
                fields.extend(until.map(|until| ("until".to_owned(), until.into())));
            }
            let hold = api.post("/v1/log/holds", &body).await?;
            output::either(args.json, &hold, |hold| {
                println!(
                    "{} is held; another admin lifts it: cortex log hold lift {}",
                    of(hold),
                    field(hold, "id")
                );
            })
        }
        Command::List { all } => {
            let query = [("in_force", (!all).to_string()), ("limit", "200".to_owned())];
            let holds = api.query("/v1/log/holds", &query).await?;
            output::either(args.json, &holds, list)
        }
        Command::Lift { id } => {
            let id: cortex_core::HoldId = crate::commands::id(&id, "log hold list")?;
            let hold = api.delete(&format!("/v1/log/holds/{id}")).await?;
            output::either(args.json, &hold, |_| println!("{id} is lifted"))
        }
    }
}

fn of(hold: &Value) -> String {
    hold.get("scope").map_or_else(|| "it".to_owned(), in_words)
}

fn list(holds: &Value) {
    let holds = holds.get("holds").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if holds.is_empty() {
        println!("nothing is held");
        return;
    }
    let row = |hold: &Value| {
        let [id, reason, by, at, from, until, lifted] =
            ["id", "reason", "by", "at", "from", "until", "lifted_at"].map(|name| field(hold, name));
        vec![id, of(hold), from, until, reason, by, at, lifted]
    };
    let titles = ["HOLD", "WHAT", "FROM", "UNTIL", "REASON", "BY", "SINCE", "LIFTED"];
    output::table(&titles, holds.iter().map(row));
}
