//! `cortex log`: the issuance log, checked where it is, exported, proven, and recovered.

mod archive;
mod hold;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use cortex_log::checkpoint::Checkpoint;
use cortex_log::note::Verifier;
use cortex_log::receipt::{MAX_RECEIPT_BYTES, Receipt};
use cortex_log::seal::Seal;
use cortex_server::Config;
use cortex_server::log::{self, Recovered, export};
use cortex_server::store::log::{Finding, VerifyError, verify};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use sqlx::PgPool;

use super::{database, key_files, stamp};
use crate::api::Connection;
use crate::error::{EXITS, Error, Exit};
use crate::output;

#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, after_help = format!("\
Examples:
  cortex log key
  cortex log verify
  cortex log export ./log && cortex-verify log ./log --key \"$(cortex log key)\"
  cortex log prove receipt.json --server https://cortex.acme.example
  cortex log archive --before 2026-01 --to s3://acme-cortex-archive/prod
  cortex log hold set --dag finance_publish --until 2026-01-01T00:00:00Z --reason 'case 42'

All but `prove` and `hold` work straight on the database.

{EXITS}"))]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the log's public key, NAME+ID+BASE64: what whoever verifies the log needs, and has to trust.
    Key,
    /// Verify the log where it is: every leaf, chain, tile and checkpoint, and that each row's columns say what its leaf
    /// says.
    Verify {
        /// A file with a checkpoint that was kept: the log must have grown out of it. Repeatable.
        #[arg(long, value_name = "CHECKPOINT")]
        older: Vec<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write the log as files, for `cortex-verify` and for keeping. Again into the same folder, it writes what is new.
    Export {
        /// The folder.
        folder: PathBuf,
        /// With the names that the leaves commit to, of people who are not erased: personal.jsonl.
        #[arg(long)]
        names: bool,
    },
    /// Turn the receipt of an issuance into a proof that its record is in the log (C2SP tlog-proof), which `cortex-verify
    /// proof` checks. As an auditor or an admin.
    Prove {
        /// The receipt: the JSON that came with the credential.
        receipt: PathBuf,
        #[command(flatten)]
        connection: Connection,
    },
    /// Write whole old months to an archive, read them back there and verify them. The database keeps them.
    Archive(archive::Archive),
    /// Drop archived records from the database that are older than `log.retention_months`, but for what a hold covers. The tree
    /// keeps their hashes. DATABASE_URL has to be of the tables' owner: the server's role may not.
    Drop(archive::Drop),
    /// Legal holds: records that nothing drops. As an admin.
    Hold(hold::Args),
    /// After an older state of the database was restored: write down what is lost, for good, and begin a new tree. Stop every
    /// replica before, and take what can be had from a newer backup first.
    Recover {
        /// Who recovers it: two people.
        #[arg(long, value_name = "NAME", required = true)]
        by: Vec<String>,
        /// Why.
        #[arg(long)]
        reason: String,
    },
}

pub(crate) async fn run(args: Args, load: impl Fn() -> Result<Config, Error>) -> Result<(), Error> {
    match args.command {
        Command::Prove { receipt, connection } => prove(&receipt, connection).await,
        Command::Key => {
            let (_, key) = open(&load()?).await?;
            println!("{key}");
            Ok(())
        }
        Command::Verify { older, json } => {
            let (pool, key) = open(&load()?).await?;
            let older = older.iter().map(|file| kept(file, &key)).collect::<Result<_, _>>()?;
            verified(&pool, &key, older, json).await
        }
        Command::Export { folder, names } => {
            let (pool, _) = open(&load()?).await?;
            let bar = progress();
            let shards = export(&pool, &folder, names, |done, total| show(&bar, done, total)).await;
            bar.finish_and_clear();
            for shard in shards.map_err(|error| Error::Of(Exit::Failed, error.to_string()))? {
                println!("{}: {} leaves", shard.origin, shard.published);
            }
            Ok(())
        }
        Command::Archive(args) => archive::archive(args, &load()?).await,
        Command::Drop(args) => archive::drop(args, &load()?).await,
        Command::Hold(args) => hold::run(args).await,
        Command::Recover { by, reason } => recover(&load()?, by, reason).await,
    }
}

async fn open(config: &Config) -> Result<(PgPool, Verifier), Error> {
    let pool = database(&config.database).await?;
    let key = log::key(config, &key_files(config)?, &pool).await?.verifier();
    Ok((pool, key))
}

fn kept(file: &Path, key: &Verifier) -> Result<Checkpoint, Error> {
    let wrong = |why: String| Error::Of(Exit::Usage, format!("{}: {why}", file.display()));
    let note = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    Checkpoint::open_under(&note, key).map_err(|error| wrong(error.to_string()))
}

async fn verified(pool: &PgPool, key: &Verifier, older: Vec<Checkpoint>, json: bool) -> Result<(), Error> {
    let bar = progress();
    let found = verify(pool, key, older, |done, total| show(&bar, done, total)).await;
    bar.finish_and_clear();
    match found {
        Ok(summary) => {
            let recoveries: Vec<_> = summary
                .recoveries
                .iter()
                .map(|recovery| json!({"origin": recovery.origin, "record": recovery.record}))
                .collect();
            let answer = json!({"whole": true, "leaves": summary.leaves, "by_hash": summary.skipped,
                                "chains": summary.chains, "recoveries": recoveries});
            output::either(json, &answer, |_| {
                println!("The log is whole: {} leaves of {} chains.", summary.leaves, summary.chains);
                if summary.skipped > 0 {
                    println!(
                        "{} more are verified by their hashes: they are archived, and what is dropped of them here is in \
                         the archive.",
                        summary.skipped
                    );
                }
                for recovery in &summary.recoveries {
                    println!("{} was opened by a recovery: {}", recovery.origin, recovery.record);
                }
            })
        }
        Err(VerifyError::Store(error)) => Err(error.into()),
        Err(VerifyError::Found(finding)) => {
            if json {
                output::json(&json!({"whole": false, "finding": finding.to_string()}))?;
            }
            Err(Error::Of(Exit::Failed, format!("the log is not whole: {finding}{}", meaning(&finding))))
        }
    }
}

fn meaning(finding: &Finding) -> String {
    match finding {
        Finding::Log(fault) => format!("\n{}", fault.what.meaning()),
        Finding::Column { .. } => {
            "\nThe leaf is what was signed; the column was changed afterwards.".to_owned()
        }
        _ => String::new(),
    }
}

fn progress() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len} leaves, {per_sec}, {eta} left");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn show(bar: &ProgressBar, done: u64, total: u64) {
    bar.set_length(total);
    bar.set_position(done);
}

async fn prove(file: &Path, connection: Connection) -> Result<(), Error> {
    let wrong = |why: String| Error::Of(Exit::Usage, format!("{}: {why}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    if text.len() > MAX_RECEIPT_BYTES {
        return Err(wrong("too large for a receipt".to_owned()));
    }
    let receipt: Receipt =
        serde_json::from_str(&text).map_err(|error| wrong(format!("not a receipt: {error}")))?;
    let seal = Seal::parse(&receipt.seal).map_err(|error| wrong(error.to_string()))?;
    let query = [
        ("chain", seal.chain.to_string()),
        ("batch", seal.batch.to_string()),
        ("place", seal.place.to_string()),
        ("leaf_hash", receipt.leaf_hash.to_string()),
    ];
    let proof = connection.open().await?.query("/v1/log/proof", &query).await?;
    std::io::stdout().write_all(proof.as_str().unwrap_or_default().as_bytes())?;
    Ok(())
}

async fn recover(config: &Config, by: Vec<String>, reason: String) -> Result<(), Error> {
    let two = || Error::Of(Exit::Usage, "name two different people: --by ann --by bob".to_owned());
    let by: [String; 2] = by.try_into().map_err(|_| two())?;
    if by[0].trim().eq_ignore_ascii_case(by[1].trim()) || by.iter().any(|name| name.trim().is_empty()) {
        return Err(two());
    }
    let pool = database(&config.database).await?;
    let stamp = stamp(config, &pool).await?;
    let recovered = log::recover(&pool, &config.log, &stamp, by, reason).await;
    let (Recovered { published, .. }, shard) =
        recovered.map_err(|error| Error::Of(Exit::Failed, error.to_string()))?;
    println!(
        "{} had {} leaves published; what is missing of them is written off.",
        published.origin, published.size
    );
    println!(
        "{} begins. Start the replicas again, and keep what auditors have: it shows what is lost.",
        shard.origin
    );
    Ok(())
}
