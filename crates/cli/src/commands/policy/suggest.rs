//! `cortex policy suggest`: a tighter policy to start from.

use cortex_core::clock::SystemClock;
use cortex_core::policy::Suggestion;
use cortex_core::{Clock as _, PolicyName};
use cortex_server::Config;
use cortex_server::replay::{Bounds, Survey};
use reqwest::Method;

use super::none;
use super::replay::{DEADLINE, bar, last_line, show, time};
use crate::api::{Api, with_query};
use crate::commands::database;
use crate::error::Error;
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The policy.
    name: PolicyName,
    /// What was not used for this long is left out: 90d, 26w, a date or a time.
    #[arg(long, default_value = "90d", value_name = "TIME")]
    unused_for: String,
    /// Print the evidence and the document as JSON.
    #[arg(long)]
    json: bool,
}

/// Looks straight at the database, without bounds.
pub(super) async fn here(config: &Config, args: &Args) -> Result<(), Error> {
    let now = SystemClock.now();
    let since = time("--unused-for", &args.unused_for)?;
    let pool = database(&config.database).await?;
    let survey = Survey::begin(pool, &args.name, (since, now), Bounds::none()).await?;
    let mut survey = survey.ok_or_else(|| none(args.name.as_str()))?;
    let bar = bar();
    while let Some(progress) = survey.step().await? {
        show(&bar, &progress);
    }
    bar.finish_and_clear();
    say(&survey.suggestion(), args.json)
}

/// Has a server look.
pub(super) async fn at(api: &Api, args: &Args) -> Result<(), Error> {
    time("--unused-for", &args.unused_for)?;
    let path = api.server().at(&format!("/v1/policies/{}/suggestion", args.name));
    let url = with_query(&path, &[("unused_for", args.unused_for.clone())])?;
    let mut lines = api.lines(api.request_to(Method::GET, url), DEADLINE).await?;
    say(&serde_json::from_value(last_line(&mut lines).await?)?, args.json)
}

fn say(suggestion: &Suggestion, as_json: bool) -> Result<(), Error> {
    if as_json {
        return output::json(suggestion);
    }
    print!("{}", suggestion.document);
    Ok(())
}
