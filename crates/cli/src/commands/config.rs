//! `cortex config`: the configuration and the schemas that editors complete with.

use clap::Subcommand;
use cortex_core::policy::policy_schema;
use cortex_providers::BUILT_INS;
use cortex_server::Config;

use crate::error::Error;
use crate::output;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check the configuration and what it names; nothing is started.
    Check,
    /// Print the JSON Schema of the configuration, or of policy documents.
    Schema {
        /// The schema of policy documents instead.
        #[arg(long)]
        policy: bool,
    },
}

pub(crate) fn run(command: &Command, load: impl Fn() -> Result<Config, Error>) -> Result<(), Error> {
    match command {
        Command::Check => {
            let config = load()?;
            for warning in config.roles.warnings() {
                println!("warning: {warning}");
            }
            println!(
                "ok: {} issuers, listening on {}, database {}",
                config.issuers.len(),
                config.server.listen,
                if config.database.url.is_some() { "set" } else { "not set" }
            );
            Ok(())
        }
        Command::Schema { policy: true } => {
            let targets: Vec<_> =
                BUILT_INS.iter().map(|built_in| (built_in.name, (built_in.schema)())).collect();
            output::json(&policy_schema(&targets))
        }
        Command::Schema { policy: false } => output::json(&schemars::schema_for!(Config)),
    }
}
