//! `cortex keys`: list, rotate and retire Cortex's own signing keys, straight on the database; wrap the files of keys.

use clap::{Args, Subcommand};
use cortex_core::Clock as _;
use cortex_core::clock::SystemClock;
use cortex_core::jwt::SigningAlgorithm;
use cortex_providers::config::endpoint_fault;
use cortex_providers::kms::{KmsKey, Purpose};
use cortex_server::key_file::{Before, Outcome, Wrapping};
use cortex_server::keyring;
use cortex_server::store::keys::{self, KeyRow};
use cortex_server::{Config, Environment};
use jiff::Timestamp;

use super::{database, environment, operator, stamp};
use crate::error::Error;
use crate::output;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Database(Stored),
    /// Wrap the two key files with kms.key, each in its place: plain ones, and those that are wrapped in another way. A file
    /// is replaced whole, and once the KMS has given back the same key.
    Wrap(Wrap),
}

/// What works on the signing keys in the database.
#[derive(Debug, Subcommand)]
pub(crate) enum Stored {
    /// Every key, newest first: which one signs, which are published, which are retired.
    List,
    /// Make a new key. It is published at once and signs after `keys.publish_ahead_s`, so that verifiers that
    /// cache the key set know it by then.
    Rotate {
        /// What it signs with: RS256, or ES256 where keys.algorithms has it.
        #[arg(long, value_name = "ALG", default_value = "RS256", value_parser = algorithm)]
        alg: SigningAlgorithm,
        /// Sign with it at once: for an emergency, or where no verifier caches.
        #[arg(long)]
        now: bool,
    },
    /// Take keys out of the published set: those whose last token expired long ago, or one by its id.
    Retire {
        /// The key; without it, every key that is old enough.
        // A thumbprint is base64url: one in 64 begins with a hyphen.
        #[arg(allow_hyphen_values = true)]
        kid: Option<String>,
    },
}

/// How the key files were wrapped until now.
#[derive(Debug, Args)]
pub(crate) struct Wrap {
    /// The key of a KMS that they are wrapped with, where it is not kms.key: an ARN, or projects/….
    #[arg(long, value_name = "KEY")]
    from: Option<KmsKey>,
    /// Where the KMS of that key is. Without it, kms.endpoint for the same key, and the cloud's own address for another.
    #[arg(long, value_name = "URL", value_parser = endpoint)]
    from_endpoint: Option<String>,
    /// The `server.public_url` that they are wrapped for, where it is another one now.
    #[arg(long, value_name = "URL")]
    from_issuer: Option<String>,
    /// Make the keys of files that are missing, wrapped: for a Cortex that has not started yet.
    #[arg(long)]
    make: bool,
}

pub(crate) async fn run(command: Command, config: Config) -> Result<(), Error> {
    // It needs no database, and that of a Cortex that does not start yet may not be there.
    let command = match command {
        Command::Wrap(args) => return wrap(&args, &config).await,
        Command::Database(command) => command,
    };
    let pool = database(&config.database).await?;
    let now = SystemClock.now();
    let stamp = stamp(&config, &pool).await?;
    let rows = keys::all(&pool).await?;
    let mut connection = pool.acquire().await?;
    match command {
        Stored::List => list(&rows, now),
        Stored::Rotate { alg, now: at_once } => {
            let key = keyring::rotate(&mut connection, &config, alg, at_once, &operator(), &stamp).await?;
            println!("{} is published and signs from {}", key.kid, key.active_from);
        }
        Stored::Retire { kid } => {
            let old = match kid {
                Some(kid) => vec![one(&rows, &kid, now)?],
                None => keyring::retirable(&rows, &config.keys, now),
            };
            if old.is_empty() {
                println!("no key is old enough: an old key is kept while what it signed may be in use");
            }
            for key in old {
                if keys::retire(&mut connection, &key, &operator(), &stamp).await? {
                    println!("{} is no longer published", key.kid);
                }
            }
        }
    }
    Ok(())
}

async fn wrap(args: &Wrap, config: &Config) -> Result<(), Error> {
    let Environment { clock, random } = environment();
    let before = Before {
        key: args.from.as_ref(),
        endpoint: args.from_endpoint.as_deref(),
        issuer: args.from_issuer.as_deref(),
    };
    let wrapping = Wrapping::new(config, &before, &clock, &random)?;
    let files = [
        (&config.keys.encryption_key_file, Purpose::SigningKeys, "keys.encryption_key_file"),
        (&config.log.key_file, Purpose::Log, "log.key_file"),
    ];
    for (path, purpose, option) in files {
        let path_shown = path.display();
        let outcome = wrapping.wrap(path, purpose, args.make).await;
        let outcome = outcome.map_err(|why| Error::Said(format!("{option} {path_shown}: {why}")))?;
        let what = match outcome {
            Outcome::Already => "is wrapped already, and opens",
            Outcome::Wrapped => "is wrapped now",
            Outcome::Again => "is wrapped again",
            Outcome::Made => "is made, wrapped: back it up",
        };
        println!("{option} {path_shown}: {what}");
    }
    Ok(())
}

fn endpoint(url: &str) -> Result<String, String> {
    endpoint_fault(url).map_or_else(|| Ok(url.to_owned()), |fault| Err(fault.to_owned()))
}

fn algorithm(name: &str) -> Result<SigningAlgorithm, String> {
    SigningAlgorithm::from_name(name).ok_or_else(|| "write RS256 or ES256".to_owned())
}

fn one(rows: &[KeyRow], kid: &str, now: Timestamp) -> Result<KeyRow, Error> {
    let Some(row) = rows.iter().find(|row| row.kid == kid) else {
        return Err(Error::Said(format!("there is no key {kid}; `cortex keys list` shows them")));
    };
    if keyring::signs(rows, row, now) {
        return Err(Error::Said(format!("{kid} is the key that signs: rotate first")));
    }
    Ok(row.clone())
}

fn list(rows: &[KeyRow], now: Timestamp) {
    let state = |row: &KeyRow| match row {
        KeyRow { retired_at: Some(at), .. } => format!("retired {at}"),
        row if keyring::signs(rows, row, now) => "signs".to_owned(),
        row if row.active_from > now => format!("signs from {}", row.active_from),
        _ => "published".to_owned(),
    };
    let rows = rows
        .iter()
        .map(|row| vec![row.kid.clone(), row.algorithm.to_string(), state(row), row.created_at.to_string()]);
    output::table(&["KEY", "ALG", "STATE", "MADE"], rows);
}
