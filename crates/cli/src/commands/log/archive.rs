//! `cortex log archive` and `cortex log drop`: old records leave the database.

use cortex_server::Config;
use cortex_server::log::Place;
use cortex_server::log::archive::{self, ArchiveError};
use cortex_server::store::{self, Stamp};
use jiff::Timestamp;
use serde_json::json;
use sqlx::PgPool;

use super::super::{database, operator, stamp};
use super::{progress, show};
use crate::error::{Error, Exit};
use crate::output;

/// What is archived and where.
#[derive(Debug, clap::Args)]
pub(super) struct Archive {
    /// Everything that was published before this month, such as 2026-01.
    #[arg(long, value_name = "MONTH")]
    before: String,
    /// The archive: `s3://bucket/prefix`, `gs://bucket/prefix` or `file:///folder`. One that is there already goes on.
    #[arg(long, value_name = "PLACE")]
    to: String,
    /// Drop what is archived from the database as well, as `cortex log drop` does.
    #[arg(long)]
    drop: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What is dropped.
#[derive(Debug, clap::Args)]
pub(super) struct Drop {
    /// Everything that was published before this month, such as 2026-01.
    #[arg(long, value_name = "MONTH")]
    before: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn archive(args: Archive, config: &Config) -> Result<(), Error> {
    let (pool, stamp) = open(config).await?;
    let before = archive::month(&args.before, stamp.clock.now()).map_err(|e| failed(&e))?;
    let place = Place::open(&args.to, &config.log.object_store)
        .map_err(|error| Error::Of(Exit::Usage, error.to_string()))?;
    let key = stamp.chains.verifier();
    let bar = progress();
    let shown = |done, total| show(&bar, done, total);
    let archived = archive::archive(&pool, &key, &place, (before, operator()), &stamp, shown).await;
    bar.finish_and_clear();
    let archived = archived.map_err(|e| failed(&e))?;
    output::either(args.json, &json!(archived), |_| {
        for tree in &archived.trees {
            println!("{}: {} leaves are in {}, and whole", tree.origin, tree.size, archived.place);
        }
    })?;
    if args.drop { dropped(config, (&pool, &stamp), before, args.json).await } else { Ok(()) }
}

pub(super) async fn drop(args: Drop, config: &Config) -> Result<(), Error> {
    let (pool, stamp) = open(config).await?;
    let before = archive::month(&args.before, stamp.clock.now()).map_err(|e| failed(&e))?;
    dropped(config, (&pool, &stamp), before, args.json).await
}

async fn dropped(
    config: &Config,
    (pool, stamp): (&PgPool, &Stamp),
    before: Timestamp,
    json: bool,
) -> Result<(), Error> {
    let mut owner = store::connect_as_owner(&config.database).await?;
    let streams: Vec<&str> = config.streams.iter().map(|stream| stream.name.as_str()).collect();
    let bar = progress();
    let shown = |done, total| show(&bar, done, total);
    let what = (before, operator());
    let done = archive::drop_before(pool, &mut owner, &config.log, &streams, what, stamp, shown).await;
    bar.finish_and_clear();
    let (dropped, deleted) = done.map_err(|e| failed(&e))?;
    let answer = json!({"dropped": deleted.dropped, "kept": deleted.kept, "archive": dropped.archive,
                        "trees": dropped.trees});
    output::either(json, &answer, |_| {
        println!(
            "{} records are dropped; they are in {}. {} stay: a hold covers them, or the log goes on from them.",
            deleted.dropped, dropped.archive, deleted.kept
        );
    })
}

async fn open(config: &Config) -> Result<(PgPool, Stamp), Error> {
    let pool = database(&config.database).await?;
    let stamp = stamp(config, &pool).await?;
    Ok((pool, stamp))
}

fn failed(error: &ArchiveError) -> Error {
    let exit = if matches!(error, ArchiveError::Future(_)) { Exit::Usage } else { Exit::Failed };
    Error::Of(exit, error.to_string())
}
