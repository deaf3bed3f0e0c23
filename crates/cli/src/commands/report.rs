//! `cortex report`: what auditors hand in, with what proves it beside it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use reqwest::Method;
use tokio::io::AsyncWriteExt as _;

use crate::api::{Api, Connection, with_query};
use crate::error::{EXITS, Error, Exit};

/// How long a report may take: it comes while it is made.
const DEADLINE: Duration = Duration::from_mins(30);

#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, after_help = format!("\
Examples:
  cortex report access-review --quarter 2026Q4 --out audit/
  cortex report approvals --from 2026-10-01T00:00:00Z --to 2027-01-01T00:00:00Z --format csv --out audit/

Beside the report lie NAME.proof.jsonl, which has in each line the receipts of a row's records, and NAME.checkpoint,
which is signed; `cortex log prove` and cortex-verify check them.

{EXITS}"))]
pub(crate) struct Args {
    #[command(flatten)]
    connection: Connection,
    /// What it is about.
    report: Name,
    /// From this time on (RFC 3339).
    #[arg(long, value_name = "TIME", required_unless_present = "quarter", requires = "to")]
    from: Option<String>,
    /// Before this time (RFC 3339).
    #[arg(long, value_name = "TIME", requires = "from")]
    to: Option<String>,
    /// A quarter instead, in UTC, such as 2026Q4.
    #[arg(long, conflicts_with_all = ["from", "to"])]
    quarter: Option<String>,
    /// How it is written.
    #[arg(long, default_value = "html")]
    format: Format,
    /// The folder to write to; it is made where it is missing. What is there under the same names is replaced.
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Name {
    /// Which tasks have used which access.
    AccessReview,
    /// Approvals, and who gave them.
    Approvals,
    /// Changes of policies and guardrails, and who made them.
    PolicyChanges,
    /// Revocations, and how long they took.
    Revocations,
    /// Every use of break glass.
    BreakGlass,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// A page to read and to print.
    Html,
    /// For a spreadsheet: no cell is a formula.
    Csv,
    /// A JSON object in each line.
    Jsonl,
}

/// A value's name on the command line, which is the server's too.
fn named(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

pub(crate) async fn run(args: Args) -> Result<(), Error> {
    let api = args.connection.open().await?;
    let (name, format) = (named(&args.report), named(&args.format));
    let period = [("from", &args.from), ("to", &args.to), ("quarter", &args.quarter)];
    let period: Vec<_> = period.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))).collect();
    let file = |ending: &str| args.out.join(format!("{name}.{ending}"));
    let unwritable = |error: std::io::Error| Error::Said(format!("{}: {error}", args.out.display()));
    tokio::fs::create_dir_all(&args.out).await.map_err(unwritable)?;

    let path = format!("/v1/reports/{name}");
    let asked = [period.clone(), vec![("format", format.clone())]].concat();
    let made_from = fetch(&api, &path, &asked, &file(&format)).await?;
    let (shard, size) = made_from
        .split_once(' ')
        .ok_or_else(|| Error::Said("the server's answer is of another version".to_owned()))?;
    let asked = [period, vec![("format", "proof".to_owned()), ("size", size.to_owned())]].concat();
    fetch(&api, &path, &asked, &file("proof.jsonl")).await?;
    fetch(&api, &format!("/v1/log/{shard}/checkpoint"), &[], &file("checkpoint")).await?;
    println!("{}: from the checkpoint of {shard} at {size} records", file(&format).display());
    println!("{}, {}: what proves it", file("proof.jsonl").display(), file("checkpoint").display());
    Ok(())
}

/// Writes what is at this path to a file, whole or not at all, and answers which checkpoint it was made from.
async fn fetch(api: &Api, path: &str, query: &[(&str, String)], to: &Path) -> Result<String, Error> {
    let url = with_query(&api.server().at(path), query)?;
    let mut response = api.flow(api.request_to(Method::GET, url), DEADLINE).await?;
    let made_from = response.headers().get("cortex-checkpoint").and_then(|value| value.to_str().ok());
    let made_from = made_from.unwrap_or_default().to_owned();
    let unwritable = |error: std::io::Error| Error::Said(format!("{}: {error}", to.display()));
    let new = PathBuf::from(format!("{}.new", to.display()));
    let mut file = tokio::fs::File::create(&new).await.map_err(unwritable)?;
    let broken = |_| Error::Of(Exit::Unavailable, "the report was broken off: ask for it again".to_owned());
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        file.write_all(&chunk).await.map_err(unwritable)?;
    }
    file.sync_all().await.map_err(unwritable)?;
    tokio::fs::rename(&new, to).await.map_err(unwritable)?;
    Ok(made_from)
}
