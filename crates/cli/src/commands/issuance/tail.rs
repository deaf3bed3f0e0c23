//! `cortex issuance tail`: the record as it grows.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use cortex_core::Clock as _;
use cortex_core::clock::SystemClock;
use serde_json::Value;
use tokio::time::sleep;

use super::{Filter, row};
use crate::api::Api;
use crate::error::{Error, Exit};
use crate::output::field;

/// How often the server is asked.
const EVERY: Duration = Duration::from_secs(2);
/// The largest page.
const PAGE: &str = "200";
/// How many rows are remembered, to tell what changed: the oldest are forgotten first.
const REMEMBERED: usize = 10_000;

/// Prints what is new, and what became of what was open, until somebody stops it. A server that is away is asked again.
pub(super) async fn follow(api: &Api, filter: &Filter, json: bool) -> Result<(), Error> {
    let mut query = filter.query();
    if filter.since.is_none() {
        query.push(("since", SystemClock.now().to_string()));
    }
    query.push(("limit", PAGE.to_owned()));
    let mut seen = Seen::default();
    let mut away = false;
    loop {
        match news(api, &query, &mut seen).await {
            Ok(rows) => {
                if std::mem::take(&mut away) {
                    eprintln!("cortex: the server is back");
                }
                print(&rows, json)?;
            }
            Err(error) if error.exit() == Exit::Unavailable && seen.answered => {
                if !std::mem::replace(&mut away, true) {
                    eprintln!("cortex: {error}; asking again");
                }
            }
            Err(error) => return Err(error),
        }
        sleep(EVERY).await;
    }
}

/// Rows and their last known outcome, by the row's id: ids grow with time.
#[derive(Default)]
struct Seen {
    outcomes: BTreeMap<String, String>,
    answered: bool,
}

impl Seen {
    /// Whether this row is new, or its outcome is.
    fn is_news(&mut self, row: &Value) -> bool {
        let (id, outcome) = (field(row, "id"), field(row, "outcome"));
        let news = self.outcomes.get(&id) != Some(&outcome);
        self.outcomes.insert(id, outcome);
        while self.outcomes.len() > REMEMBERED {
            self.outcomes.pop_first();
        }
        news
    }

    /// Whether what is older than this page may have changed: something that was open when it was seen.
    fn settled_before(&self, id: &str) -> bool {
        !self.outcomes.range(..id.to_owned()).any(|(_, outcome)| outcome == "open")
    }
}

/// What is new, oldest first: pages are read until one brings nothing new and nothing before it is open.
async fn news(api: &Api, query: &[(&'static str, String)], seen: &mut Seen) -> Result<Vec<Value>, Error> {
    let mut found = Vec::new();
    let mut before: Option<String> = None;
    loop {
        let mut query = query.to_vec();
        query.extend(before.map(|before| ("before", before)));
        let mut page = api.query("/v1/issuances", &query).await?;
        seen.answered = true;
        let next = page.get("next").and_then(Value::as_str).map(str::to_owned);
        let rows =
            page.get_mut("issuances").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
        let total = rows.len();
        let new: Vec<Value> = rows.into_iter().filter(|row| seen.is_news(row)).collect();
        let done = new.len() < total && next.as_deref().is_none_or(|next| seen.settled_before(next));
        found.extend(new);
        match next {
            Some(next) if !done => before = Some(next),
            _ => break,
        }
    }
    found.reverse();
    Ok(found)
}

fn print(rows: &[Value], json: bool) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    for one in rows {
        if json {
            writeln!(out, "{one}")?;
        } else {
            writeln!(out, "{}", row(one).join("  "))?;
        }
    }
    out.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_is_news_once_and_again_when_its_outcome_changes() {
        let mut seen = Seen::default();
        let row = |outcome: &str| json!({"id": "1", "outcome": outcome});
        assert!(seen.is_news(&row("open")));
        assert!(!seen.is_news(&row("open")));
        assert!(!seen.settled_before("2"));
        assert!(seen.is_news(&row("issued")));
        assert!(!seen.is_news(&row("issued")));
        assert!(seen.settled_before("2"));
    }
}
