//! The command line `cortex`: serve, try out, write policies, keep keys; sign in, approve, revoke, freeze; and run
//! commands with credentials.

mod api;
mod arguments;
mod ask;
mod commands;
mod documents;
mod error;
mod hardening;
mod login;
mod output;
pub mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use cortex_server::Config;

pub use error::{Error, Exit};

/// A short-lived credential broker for Apache Airflow: a run's identity in, scoped credentials out, every
/// issuance on record.
#[derive(Debug, Parser)]
#[command(name = "cortex", version, about, arg_required_else_help = true)]
pub struct Cli {
    /// The configuration. Without it, config/cortex.toml or cortex.toml of this folder, where there is one.
    #[arg(long, global = true, env = "CORTEX_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve. Needs a database: set DATABASE_URL or database.url.
    Serve,
    /// Serve on this machine alone, with a private database, sandbox clouds, a development issuer and the
    /// example policies. Nothing it makes is of any use elsewhere.
    Dev(commands::dev::Args),
    /// Tell the whole story in a world of its own and exit: credentials of each kind, a denial, an approval,
    /// the record.
    Demo,
    /// Bring the database's schema up to this version's, under a lock.
    Migrate,
    /// Whether the server on this machine is ready: for the health check of a container.
    Health(commands::health::Args),
    /// The configuration.
    #[command(subcommand)]
    Config(commands::config::Command),
    /// Policies and guardrails: check, test and explain files; apply them straight on the database or over REST.
    Policy(commands::policy::Args),
    /// Try the links to what Cortex works with, and name each fault with its remedy.
    #[command(subcommand)]
    Doctor(commands::doctor::Command),
    /// Cortex's own signing keys.
    #[command(subcommand)]
    Keys(commands::keys::Command),
    /// Print the OpenAPI description.
    Openapi,
    /// Sign in to a server as a person.
    Login(commands::login::Args),
    /// Forget a sign-in.
    Logout(commands::login::LogoutArgs),
    /// Who am I to the server, and what may I do?
    Whoami(commands::login::WhoamiArgs),
    /// Grants: what waits for approval; approve, deny, withdraw.
    Grant(commands::grant::Args),
    /// Issuances: who got what; follow them; revoke.
    Issuance(Box<commands::issuance::Args>),
    /// Revocations: how far they have come.
    Revocation(commands::revocation::Args),
    /// Reports for auditors, with what proves them.
    Report(commands::report::Args),
    /// Freezes: stop issuing, for everything or a part of it.
    Freeze(commands::freeze::Args),
    /// People: erase one from everything but the log's proofs.
    Person(commands::person::Args),
    /// The issuance log: verify, export, prove, recover.
    Log(commands::log::Args),
    /// Run a command with a run's credentials, which renew themselves.
    Exec(commands::exec::Args),
    /// Print AWS keys for `credential_process` of ~/.aws/config.
    CredentialProcess(commands::credential_process::Args),
    /// Print what a shell completes with.
    Completions(commands::completions::Args),
}

/// Runs one command, and says what the process ends with.
pub async fn run(cli: Cli) -> Result<ExitCode, Error> {
    let load = || load(cli.config.clone());
    let done = match cli.command {
        Command::Serve => commands::serve::run(load).await,
        Command::Dev(args) => Box::pin(commands::dev::run(args)).await,
        Command::Demo => commands::demo::run().await,
        Command::Migrate => commands::migrate::run(load()?).await,
        Command::Health(args) => commands::health::run(args, load).await,
        Command::Config(command) => commands::config::run(&command, load),
        Command::Policy(args) => commands::policy::run(args, load).await,
        Command::Doctor(command) => commands::doctor::run(command, load).await,
        Command::Keys(command) => commands::keys::run(command, load()?).await,
        Command::Openapi => output::json(&cortex_server::http::openapi()),
        Command::Login(args) => commands::login::run(args).await,
        Command::Logout(args) => commands::login::logout(&args),
        Command::Whoami(args) => commands::login::whoami(&args).await,
        Command::Grant(args) => commands::grant::run(args).await,
        Command::Issuance(args) => commands::issuance::run(*args).await,
        Command::Revocation(args) => commands::revocation::run(args).await,
        Command::Report(args) => commands::report::run(args).await,
        Command::Freeze(args) => commands::freeze::run(args).await,
        Command::Person(args) => commands::person::run(args).await,
        Command::Log(args) => commands::log::run(args, load).await,
        Command::Exec(args) => {
            hardening::holder();
            return commands::exec::run(args).await;
        }
        Command::CredentialProcess(args) => {
            hardening::holder();
            commands::credential_process::run(args).await
        }
        Command::Completions(args) => {
            commands::completions::run(&args);
            Ok(())
        }
    };
    done.map(|()| ExitCode::SUCCESS)
}

fn load(file: Option<PathBuf>) -> Result<Config, Error> {
    let usual =
        || ["config/cortex.toml", "cortex.toml"].map(PathBuf::from).into_iter().find(|path| path.is_file());
    let file = file.or_else(usual);
    Ok(Config::load(file.as_deref(), std::env::vars())?)
}
