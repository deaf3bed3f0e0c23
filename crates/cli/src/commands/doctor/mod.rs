//! `cortex doctor`: tries each link between Cortex and what it works with, and names the fault and the remedy.

mod airflow;
mod oidc;
mod token;

use std::sync::Arc;
use std::time::Duration;

use clap::Subcommand;
use cortex_core::clock::SystemClock;
use cortex_identity::{Identity, IssuerConfig, Trust};
use cortex_server::Config;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

use crate::error::Error;

/// How long one answer may take.
const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// From an Airflow to Cortex: is its issuer reachable and the one that is configured, do audiences and clocks
    /// agree, are its keys known; and, with --policy, --dag and --task, what the policy would say to such a task.
    /// Nothing is issued and nothing is written down.
    Airflow(airflow::AirflowArgs),
    /// From an identity provider to Cortex: is its metadata what sign-in needs, are its keys good, does it know the
    /// redirect URI; and, with --token-file, is a token what Cortex takes. Nobody is signed in.
    Oidc(oidc::OidcArgs),
}

/// What one check found: one line each.
#[derive(Debug)]
enum Finding {
    Sound(String),
    /// Not a fault, and good to know.
    Note(String),
    Fault {
        what: String,
        remedy: String,
    },
}

fn fault(what: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding::Fault { what: what.into(), remedy: remedy.into() }
}

pub(crate) async fn run(command: Command, load: impl Fn() -> Result<Config, Error>) -> Result<(), Error> {
    match command {
        Command::Airflow(args) => airflow::run(args, load()?).await,
        Command::Oidc(args) => oidc::run(args, load).await,
    }
}

fn report(findings: Vec<Finding>) -> Vec<Finding> {
    for finding in &findings {
        match finding {
            Finding::Sound(what) => println!("  ok     {what}"),
            Finding::Note(what) => println!("  note   {what}"),
            Finding::Fault { what, remedy } => println!("  FAULT  {what}\n         {remedy}"),
        }
    }
    findings
}

/// An error if a fault was found.
fn verdict(findings: &[Finding]) -> Result<(), Error> {
    let faults = findings.iter().filter(|finding| matches!(finding, Finding::Fault { .. })).count();
    if faults == 0 {
        return Ok(());
    }
    Err(Error::Said(format!("{faults} of {} checks found a fault", findings.len())))
}

fn clocks_agree(leeway: u32, date: &str, now: Timestamp) -> Option<Finding> {
    let theirs = DateTimeParser::new().parse_timestamp(date).ok()?;
    let apart = now.duration_since(theirs).abs().as_secs();
    // The header has whole seconds, and the answer was on its way for a moment.
    if apart <= i64::from(leeway).max(2) {
        return Some(Finding::Sound(format!("the clocks agree within {apart} s")));
    }
    let what = format!("its clock and this one differ by {apart} s, and `leeway` is {leeway} s");
    Some(fault(what, "Set both clocks by NTP."))
}

/// Its keys, fetched as a replica fetches them.
async fn keys(issuer: &IssuerConfig) -> Result<Vec<Finding>, Error> {
    let trust = Trust { issuers: std::slice::from_ref(issuer), airflows: &[], clusters: &[] };
    let identity = Identity::new(trust, None, Arc::new(SystemClock), reqwest::Client::builder)
        .map_err(|error| Error::Said(error.to_string()))?;
    identity.refresh_due().await;
    let found =
        identity.status().into_iter().map(|status| match (status.keys.keys, status.keys.last_error) {
            (0, Some(error)) => {
                fault(format!("its keys cannot be had: {error}"), "Mend what is wrong above. If nothing is, its `jwks_uri` has to be reachable from here, and quick.")
            }
            (0, None) => fault(
                "none of its keys can verify a token",
                format!("Let `algorithms` ({:?}) name what it signs with.", issuer.algorithms),
            ),
            (keys, _) => Finding::Sound(format!("{keys} of its keys can verify tokens")),
        });
    Ok(found.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_sound(finding: &Finding) -> bool {
        matches!(finding, Finding::Sound(_))
    }

    #[test]
    fn clocks_may_differ_by_the_leeway() {
        let now = "2026-11-23T02:00:30Z".parse().unwrap();
        let at = |date| clocks_agree(30, date, now);
        assert!(is_sound(&at("Mon, 23 Nov 2026 02:00:00 GMT").unwrap()));
        assert!(!is_sound(&at("Mon, 23 Nov 2026 01:59:59 GMT").unwrap()));
        assert!(!is_sound(&at("Mon, 23 Nov 2026 02:01:01 GMT").unwrap()));
        assert!(at("yesterday").is_none());
    }
}
