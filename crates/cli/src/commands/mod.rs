//! One file for each command.

pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod credential_process;
pub(crate) mod demo;
pub(crate) mod dev;
pub(crate) mod doctor;
pub(crate) mod exec;
pub(crate) mod freeze;
pub(crate) mod grant;
pub(crate) mod health;
pub(crate) mod issuance;
pub(crate) mod keys;
pub(crate) mod log;
pub(crate) mod login;
pub(crate) mod migrate;
pub(crate) mod person;
pub(crate) mod policy;
pub(crate) mod report;
pub(crate) mod revocation;
mod scope;
pub(crate) mod serve;

use std::str::FromStr;
use std::sync::Arc;

use cortex_core::clock::SystemClock;
use cortex_server::config::DatabaseConfig;
use cortex_server::key_file::KeyFiles;
use cortex_server::random::SystemRandom;
use cortex_server::store::{self, Stamp};
use cortex_server::{Config, Environment};
use sqlx::PgPool;

use crate::error::{Error, Exit};

/// Who acts at the command line, straight on the database, as the record names them.
fn operator() -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
    format!("operator:{}", user.unwrap_or_else(|_| "unknown".to_owned()))
}

/// The machine's time and randomness.
fn environment() -> Environment {
    Environment { clock: Arc::new(SystemClock), random: Arc::new(SystemRandom) }
}

/// Writes in the name of the command line; whoever is configured is told of it by whichever replica runs.
pub(crate) async fn stamp(config: &Config, pool: &PgPool) -> Result<Stamp, Error> {
    Ok(cortex_server::stamp(config, pool, "cli".to_owned(), &environment()).await?)
}

/// The key files, as configured.
fn key_files(config: &Config) -> Result<KeyFiles, Error> {
    let Environment { clock, random } = environment();
    Ok(KeyFiles::new(config, &clock, &random)?)
}

/// Opens the database in the server's own role: the command line can append to the record, and change it as
/// little as the server can.
async fn database(config: &DatabaseConfig) -> Result<PgPool, Error> {
    store::migrate(config).await?;
    Ok(store::connect(config).await?)
}

/// An id as it stands in a path, where anything else could be another path. `list` is the command that shows those
/// that there are.
fn id<Id: FromStr>(text: &str, list: &str) -> Result<Id, Error> {
    text.parse().map_err(|_| Error::Of(Exit::Usage, format!("`{text}` is no id; `cortex {list}` shows them")))
}
