//! `cortex person`: people, as far as Cortex knows them.

use clap::Subcommand;
use serde_json::json;

use crate::api::Connection;
use crate::error::{EXITS, Error, Exit};
use crate::output::{self, field};

#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, after_help = format!("\
Examples:
  cortex person erase --issuer staff --subject 00u1a2b3c4 --reason 'ticket 4711' --yes

Erasing a person deletes what leads from the log to them; the log stays whole and verifies as before. Their identity
provider has to keep them out first: whoever signs in again is a new person to Cortex. It cannot be undone.

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
    /// Erase a person.
    Erase {
        /// The name of the issuer that vouches for them.
        #[arg(long)]
        issuer: String,
        /// The `sub` that it knows them by, as the record shows it.
        #[arg(long)]
        subject: String,
        /// What an Airflow or an operating system calls them, where that is none of the names that their issuer says.
        /// Repeatable.
        #[arg(long = "user", value_name = "NAME")]
        users: Vec<String>,
        /// Why: a ticket, say. It stays on record, so it must not name them.
        #[arg(long)]
        reason: String,
        /// Do it: it cannot be undone.
        #[arg(long)]
        yes: bool,
    },
}

pub(crate) async fn run(args: Args) -> Result<(), Error> {
    let Command::Erase { issuer, subject, users, reason, yes } = args.command;
    if !yes {
        return Err(Error::Of(Exit::Usage, "erasing cannot be undone: say --yes".to_owned()));
    }
    let api = args.connection.open().await?;
    let body = json!({"issuer": issuer, "subject": subject, "users": users, "reason": reason});
    let erased = api.post("/v1/people/erase", &body).await?;
    output::either(args.json, &erased, |erased| {
        println!(
            "{} names nobody any more: {} values are gone",
            field(erased, "person"),
            field(erased, "values")
        );
        println!("{} requests for an approval were withdrawn", field(erased, "withdrawn"));
    })
}
