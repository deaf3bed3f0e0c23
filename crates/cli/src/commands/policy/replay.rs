//! `cortex policy replay`: what would a change have done?

use std::path::PathBuf;
use std::time::Duration;

use cortex_core::Clock as _;
use cortex_core::clock::SystemClock;
use cortex_core::policy::Policy;
use cortex_server::Config;
use cortex_server::library::Library;
use cortex_server::replay::{self, Bounds, Cut, Group, Means, Progress, Question, Replay, Report};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};

use crate::api::{Api, Lines};
use crate::commands::database;
use crate::documents::Files;
use crate::error::{Error, Exit};
use crate::output;

/// How long a server's answer may take: longer than any server lets a replay take.
pub(super) const DEADLINE: Duration = Duration::from_mins(10);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Files or folders: policies (*.yaml) as they are proposed. Guardrails stay those in force.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// From when on requests are decided again: 30d, 12h, 2w, a date or a time.
    #[arg(long, default_value = "30d", value_name = "WHEN")]
    since: String,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Replays straight on the database, without bounds.
pub(super) async fn here(config: &Config, args: &Args) -> Result<(), Error> {
    let policies = proposed(&args.files)?;
    let now = SystemClock.now();
    let since = time("--since", &args.since)?;
    let pool = database(&config.database).await?;
    let catalogue = Library::open(&pool).await?.catalogue();
    let issuer_url = config.server.public_url.clone().unwrap_or_default();
    let registry = replay::planner(&config.providers, issuer_url).map_err(|e| Error::Said(e.to_string()))?;
    let means = Means { pool, catalogue, registry };
    let mut replay = Replay::begin(means, Question { policies, since, now }, Bounds::none()).await?;
    let bar = bar();
    while let Some(progress) = replay.step().await? {
        show(&bar, &progress);
    }
    bar.finish_and_clear();
    say(&replay.report(), args.json)
}

/// Has a server replay.
pub(super) async fn at(api: &Api, args: &Args) -> Result<(), Error> {
    let sources: Vec<_> = proposed(&args.files)?.iter().map(|policy| policy.source().to_owned()).collect();
    time("--since", &args.since)?;
    let body = json!({"documents": sources, "since": args.since});
    let mut lines = api.lines(api.request(Method::POST, "/v1/replays").json(&body), DEADLINE).await?;
    say(&serde_json::from_value(last_line(&mut lines).await?)?, args.json)
}

/// The result that a server ends its lines with; shows its progress meanwhile.
pub(super) async fn last_line(lines: &mut Lines) -> Result<Value, Error> {
    let bar = bar();
    while let Some(mut line) = lines.next().await? {
        let mut part = |name: &str| line.get_mut(name).map(Value::take);
        if let Some(progress) = part("progress") {
            show(&bar, &serde_json::from_value(progress)?);
        } else if let Some(problem) = part("problem") {
            bar.finish_and_clear();
            return Err(Error::Of(Exit::Unavailable, output::field(&problem, "detail")));
        } else if let Some(result) = part("result") {
            bar.finish_and_clear();
            return Ok(result);
        }
    }
    Err(Error::Of(Exit::Unavailable, "the server's answer ended before the result; ask again".to_owned()))
}

/// The time that an option says. A server reads it once more, by its own clock.
pub(super) fn time(option: &str, text: &str) -> Result<Timestamp, Error> {
    replay::since(text, SystemClock.now())
        .map_err(|fault| Error::Of(Exit::Usage, format!("{option} {fault}")))
}

fn proposed(paths: &[PathBuf]) -> Result<Vec<Policy>, Error> {
    let files = Files::read(paths)?;
    if !files.guardrails.is_empty() {
        let text = "a replay decides under the guardrails in force: leave out the *.cedar files";
        return Err(Error::Of(Exit::Usage, text.to_owned()));
    }
    if files.policies.is_empty() {
        return Err(Error::Of(Exit::Usage, "no policies (*.yaml) found there".to_owned()));
    }
    Ok(files.policies.into_values().collect())
}

/// What a terminal shows meanwhile, on stderr; nothing elsewhere.
pub(super) fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}  {elapsed}");
    ProgressBar::new(100).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

pub(super) fn show(bar: &ProgressBar, progress: &Progress) {
    bar.set_position(progress.percent.into());
    bar.set_message(format!("{} records, back to {:.0}", progress.records, progress.reached));
}

/// Prints the result; what it means to a script is the exit code.
fn say(report: &Report, as_json: bool) -> Result<(), Error> {
    if as_json {
        output::json(report)?;
    } else {
        tell(report);
    }
    if report.would_deny > 0 {
        let text = format!("{} requests that got a credential would be denied", report.would_deny);
        return Err(Error::Of(Exit::WouldDeny, text));
    }
    match unknown(report) {
        Some(text) => Err(Error::Said(text)),
        None => Ok(()),
    }
}

/// Why it is not known that nothing would have been denied.
fn unknown(report: &Report) -> Option<String> {
    let unreadable = report.not_decided.iter().find(|one| one.why == replay::Why::Unreadable);
    match (report.cut, unreadable) {
        (Some(cut), _) => {
            Some(format!("nothing was found, but not everything was looked at: {}", in_words(cut)))
        }
        (None, Some(one)) => Some(format!("nothing was found, but {} records cannot be read", one.count)),
        (None, None) => None,
    }
}

fn in_words(cut: Cut) -> &'static str {
    match cut {
        Cut::Records => {
            "there are more records than a server replays; ask for a shorter time, or straight on the database"
        }
        Cut::Time => "it took too long; ask for a shorter time, or straight on the database",
    }
}

fn tell(report: &Report) {
    println!("{} records since {:.0}", report.records, report.since);
    println!("{:>10}  as they were", report.unchanged);
    for one in &report.changed {
        let too = match one.in_force_too {
            0 => String::new(),
            count => format!(" ({count} of them under the version in force too)"),
        };
        println!("{:>10}  {}{too}", one.count, one.change.in_words());
    }
    for one in &report.not_decided {
        println!("{:>10}  not decided again: {}", one.count, one.why.in_words());
    }
    if let (Some(cut), Some(oldest)) = (report.cut, report.oldest) {
        println!("only what is newer than {oldest:.0} was looked at: {}", in_words(cut));
    }
    if !report.groups.is_empty() {
        println!();
        let header =
            ["CHANGE", "POLICY", "DAG", "TASK", "TARGET", "RULES", "COUNT", "FIRST", "LAST", "EXAMPLE"];
        output::table(&header, report.groups.iter().map(row));
    }
    if report.ungrouped > 0 {
        println!("and {} more, in groups that are not listed", report.ungrouped);
    }
}

fn row(group: &Group) -> Vec<String> {
    vec![
        group.change.in_words().to_owned(),
        group.policy.to_string(),
        output::printable(&group.dag_id),
        output::printable(&group.task_id),
        output::printable(&group.provider),
        output::printable(&group.rules.join(", ")),
        group.count.to_string(),
        format!("{:.0}", group.first),
        format!("{:.0}", group.last),
        group.example.to_string(),
    ]
}
