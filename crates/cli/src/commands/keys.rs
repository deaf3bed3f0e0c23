//! `cortex keys`: list, rotate and retire Cortex's own signing keys, straight on the database.

use clap::Subcommand;
use cortex_core::Clock as _;
use cortex_core::clock::SystemClock;
use cortex_core::jwt::SigningAlgorithm;
use cortex_server::Config;
use cortex_server::keyring;
use cortex_server::store::keys::{self, KeyRow};
use jiff::Timestamp;

use super::{database, operator, stamp};
use crate::error::Error;
use crate::output;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
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

pub(crate) async fn run(command: Command, config: Config) -> Result<(), Error> {
    let pool = database(&config.database).await?;
    let now = SystemClock.now();
    let stamp = stamp(&config, &pool).await?;
    let rows = keys::all(&pool).await?;
    let mut connection = pool.acquire().await?;
    match command {
        Command::List => list(&rows, now),
        Command::Rotate { alg, now: at_once } => {
            let key =
                keyring::rotate(&mut connection, &config.keys, alg, at_once, &operator(), &stamp).await?;
            println!("{} is published and signs from {}", key.kid, key.active_from);
        }
        Command::Retire { kid } => {
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
