//! `cortex policy`: policies and guardrails as files, and in force.

mod replay;
mod shelf;
mod suggest;

use std::path::PathBuf;

use clap::Subcommand;
use cortex_core::policy::{self, Policy};
use cortex_providers::BuiltIns;
use cortex_server::Config;
use cortex_server::store::documents::{Applied, Kind, Version};

use self::shelf::Shelf;
use super::{database, stamp};
use crate::api::{Connection, ServerUrl};
use crate::documents::Files;
use crate::error::{Error, Exit};
use crate::output;

#[derive(Debug, clap::Args)]
#[command(
    arg_required_else_help = true,
    after_help = "\
Examples:
  cortex policy check policies/
  cortex policy apply policies/ guardrails/                       straight on the database, as an operator
  cortex policy apply policies/ --server https://cortex.acme.example    over REST, as whoever is signed in
  cortex policy diff sales-report.yaml
  cortex policy replay sales-report.yaml --since 30d    exits with 7 where it would have denied what was issued"
)]
pub(crate) struct Args {
    /// Work over REST at this server, as the person who is signed in there, instead of straight on the database.
    #[arg(long, global = true, value_name = "URL")]
    server: Option<ServerUrl>,
    /// With --server: a file with a person's token.
    #[arg(long, global = true, value_name = "FILE", requires = "server")]
    token_file: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check files: every fault with its line and what to write instead. Needs no database.
    Check {
        /// Files or folders: policies (*.yaml) and guardrails (*.cedar).
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Run the table tests (*.test.yaml) that lie beside policies. Needs no database.
    Test {
        /// Files or folders: policies, guardrails and their tests.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Put files in force on every replica, on record: straight on the database all or none, over REST first the
    /// guardrails and then the policies. Shows what changes first.
    Apply {
        /// Files or folders: policies (*.yaml) and guardrails (*.cedar).
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Only show what would change.
        #[arg(long)]
        dry_run: bool,
    },
    /// The policies in force.
    List,
    /// A policy as it is in force.
    Show {
        /// The policy.
        name: String,
    },
    /// Every version of a policy: who applied it, and when.
    History {
        /// The policy.
        name: String,
    },
    /// What changed: a file against what is in force, or a policy's newest version against the one before.
    Diff {
        /// A file, or the name of a policy.
        what: String,
    },
    /// The Cedar rules that a policy compiles to.
    Explain {
        /// A file, or the name of a policy.
        what: String,
    },
    /// What would a change have done? Decides the requests on record again under policies that are not in force
    /// yet, and lists what would end differently.
    Replay(replay::Args),
    /// A tighter policy to start from, without what was never used, with the evidence in comments. Nothing is applied.
    Suggest(suggest::Args),
    /// Take a policy out of force. Its versions stay on record.
    Retire {
        /// The policy.
        name: String,
    },
}

pub(crate) async fn run(args: Args, load: impl Fn() -> Result<Config, Error>) -> Result<(), Error> {
    let open = async || -> Result<Shelf, Error> {
        if let Some(server) = args.server.clone() {
            return Ok(Shelf::Server(Connection::to(server, args.token_file.clone()).open().await?));
        }
        let config = load()?;
        let pool = database(&config.database).await?;
        let stamp = stamp(&config, &pool).await?;
        Ok(Shelf::Database(pool, stamp))
    };
    match args.command {
        Command::Check { files } => check(&files),
        Command::Test { files } => test(&files),
        Command::Apply { files, dry_run } => apply(&open().await?, &files, dry_run).await,
        Command::List => list(&open().await?).await,
        Command::Show { name } => {
            print!("{}", head(&open().await?, &name).await?.source);
            Ok(())
        }
        Command::History { name } => history(&open().await?, &name).await,
        Command::Diff { what } => diff(&open().await?, &what).await,
        Command::Explain { what } => {
            let source = match file(&what)? {
                Some(text) => text,
                None => head(&open().await?, &what).await?.source,
            };
            print!("{}", compile(&what, &source)?.cedar());
            Ok(())
        }
        Command::Replay(asked) => match args.server {
            Some(server) => replay::at(&Connection::to(server, args.token_file).open().await?, &asked).await,
            None => replay::here(&load()?, &asked).await,
        },
        Command::Suggest(asked) => match args.server {
            Some(server) => suggest::at(&Connection::to(server, args.token_file).open().await?, &asked).await,
            None => suggest::here(&load()?, &asked).await,
        },
        Command::Retire { name } => retire(&open().await?, &name).await,
    }
}

fn check(files: &[PathBuf]) -> Result<(), Error> {
    let files = Files::read(files)?;
    files.guardrails()?;
    println!("ok: {} policies, {} guardrails", files.policies.len(), files.guardrails.len());
    Ok(())
}

fn test(paths: &[PathBuf]) -> Result<(), Error> {
    let files = Files::read(paths)?;
    let guardrails = files.guardrails()?;
    let (mut passed, mut failed) = (0_u32, 0_u32);
    for test in &files.tests {
        let outcomes = policy::run_tests(&test.text, &files.policies, &guardrails).map_err(|problems| {
            for problem in &problems {
                println!("{}:{problem}", test.path.display());
            }
            Error::Documents(format!("{} faults", problems.len()))
        })?;
        for outcome in outcomes {
            match outcome.failure {
                None => passed += 1,
                Some(why) => {
                    failed += 1;
                    println!("{}:{}: {}: {why}", test.path.display(), outcome.line, outcome.name);
                }
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    match (passed, failed) {
        (_, 1..) => Err(Error::Documents("some policy does not decide as its tests say".into())),
        (0, 0) => Err(Error::Said("no tests (*.test.yaml) found there".into())),
        (_, 0) => Ok(()),
    }
}

async fn apply(shelf: &Shelf, paths: &[PathBuf], dry_run: bool) -> Result<(), Error> {
    let files = Files::read(paths)?;
    files.guardrails()?;
    let documents = files.documents();
    for document in &documents {
        let old = shelf.head(document.kind, &document.name).await?;
        let old = old.filter(|old| !old.retired).map_or_else(String::new, |old| old.source);
        if old != document.source && document.kind == Kind::Policy {
            println!("--- {} ---\n{}", document.name, policy::diff(&old, &document.source));
        }
    }
    if dry_run {
        println!("nothing was changed: this was a dry run");
        return Ok(());
    }
    for applied in shelf.apply(documents).await? {
        println!("{}", in_words(&applied));
    }
    Ok(())
}

fn in_words(applied: &Applied) -> String {
    match applied {
        Applied::Unchanged { name, version } => format!("{name}: unchanged, version {version}"),
        Applied::Changed { name, version } => format!("{name}: version {version} is in force"),
        Applied::Retired { name } => format!("{name}: no longer in force"),
    }
}

async fn list(shelf: &Shelf) -> Result<(), Error> {
    let mut rows = Vec::new();
    for (kind, label) in [(Kind::Policy, "policy"), (Kind::Guardrail, "guardrail")] {
        let mut after = String::new();
        loop {
            let page = shelf.page(kind, &after).await?;
            let Some(last) = page.last() else { break };
            after.clone_from(&last.name);
            rows.extend(page.into_iter().map(|v| {
                vec![label.to_owned(), v.name, v.version.to_string(), v.applied_by, v.applied_at.to_string()]
            }));
        }
    }
    output::table(&["KIND", "NAME", "VERSION", "APPLIED BY", "APPLIED AT"], rows);
    Ok(())
}

async fn history(shelf: &Shelf, name: &str) -> Result<(), Error> {
    let versions = shelf.history(name).await?;
    if versions.is_empty() {
        return Err(none(name));
    }
    let rows = versions.into_iter().map(|v| {
        let state = if v.retired { "" } else { "in force" };
        vec![
            v.version.to_string(),
            v.applied_at.to_string(),
            v.applied_by,
            v.digest.to_string(),
            state.to_owned(),
        ]
    });
    output::table(&["VERSION", "APPLIED AT", "APPLIED BY", "DIGEST", ""], rows);
    Ok(())
}

async fn diff(shelf: &Shelf, what: &str) -> Result<(), Error> {
    let (old, new) = if let Some(text) = file(what)? {
        let name = compile(what, &text)?.name().to_string();
        let head = shelf.head(Kind::Policy, &name).await?;
        (head.map_or_else(String::new, |head| head.source), text)
    } else {
        let mut versions = shelf.history(what).await?.into_iter();
        let new = versions.next().ok_or_else(|| none(what))?.source;
        (versions.next().map_or_else(String::new, |version| version.source), new)
    };
    print!("{}", policy::diff(&old, &new));
    Ok(())
}

async fn retire(shelf: &Shelf, name: &str) -> Result<(), Error> {
    println!("{}", in_words(&shelf.retire(name).await?.ok_or_else(|| none(name))?));
    Ok(())
}

async fn head(shelf: &Shelf, name: &str) -> Result<Version, Error> {
    shelf.head(Kind::Policy, name).await?.ok_or_else(|| none(name))
}

fn none(name: &str) -> Error {
    Error::Of(Exit::NotFound, format!("there is no policy {name:?}; `cortex policy list` shows them"))
}

/// The text of a file; none where `what` reads as a policy's name.
fn file(what: &str) -> Result<Option<String>, Error> {
    if what.parse::<cortex_core::PolicyName>().is_ok() {
        return Ok(None);
    }
    std::fs::read_to_string(what).map(Some).map_err(|e| Error::Said(format!("{what}: cannot be read: {e}")))
}

fn compile(what: &str, source: &str) -> Result<Policy, Error> {
    Policy::compile(source, &BuiltIns).map_err(|problems| {
        for problem in &problems {
            println!("{what}:{problem}");
        }
        Error::Documents(format!("{} faults", problems.len()))
    })
}
