//! Issuances and denials over time, by policy and by provider.

use askama::Template;
use axum::extract::{Query, State};
use jiff::SignedDuration;
use serde::Deserialize;

use super::chart::{self, Bucket, Ranked};
use super::page::{Frame, Page, Section, render};
use super::session::Visitor;
use super::text::Html;
use crate::http::App;
use crate::http::auth::Role;
use crate::store::timeline::{self, Count};

/// What is told apart, from the bottom of a bar: the classes of the chart.
const KINDS: [&str; 3] = ["issued", "failed", "denied"];

/// The stretches of time that can be looked at: their word, their name, seconds altogether, seconds a bar.
const WINDOWS: [(&str, &str, i64, i64); 3] = [
    ("hour", "Last hour", 3_600, 120),
    ("day", "Last 24 hours", 86_400, 3_600),
    ("week", "Last 7 days", 604_800, 21_600),
];

#[derive(Deserialize)]
pub(super) struct Window {
    window: Option<String>,
}

struct Choice {
    word: &'static str,
    name: &'static str,
    here: bool,
}

struct Total {
    kind: &'static str,
    count: i64,
}

#[derive(Template)]
#[template(path = "console/activity.html")]
struct Activity {
    frame: Frame,
    choices: Vec<Choice>,
    totals: Vec<Total>,
    over_time: Html,
    by_policy: Html,
    by_provider: Html,
    empty: bool,
}

pub(super) async fn page(State(app): State<App>, visitor: Visitor, Query(query): Query<Window>) -> Page {
    visitor.caller.need(&[Role::Auditor, Role::Admin])?;
    let asked = query.window.as_deref().unwrap_or("day");
    let [_, day, _] = WINDOWS;
    let (word, name, length, bucket_s) = WINDOWS.into_iter().find(|(word, ..)| *word == asked).unwrap_or(day);
    let now = app.broker.clock.now();
    // Whole bars: the last one ends at the end of its stretch.
    let last = now.as_second().div_euclid(bucket_s) * bucket_s;
    let since = jiff::Timestamp::from_second(last + bucket_s - length).unwrap_or(now);
    let counts = timeline::activity(&app.broker.pool, since, bucket_s).await?;
    let frame = Frame::load(&app, &visitor, Some(Section::Activity), "Activity").await?;
    let totals = KINDS.into_iter().enumerate().map(|(index, kind)| Total {
        kind,
        count: counts.iter().filter(|count| place(count) == index).map(|count| count.count).sum(),
    });
    render(&Activity {
        frame,
        choices: WINDOWS
            .into_iter()
            .map(|(each, name, ..)| Choice { word: each, name, here: each == word })
            .collect(),
        totals: totals.collect(),
        over_time: over_time(name, &counts, since, bucket_s, length / bucket_s),
        by_policy: by(&counts, "By policy", |count| count.policy.as_deref()),
        by_provider: by(&counts, "By provider", |count| count.provider.as_deref()),
        empty: counts.is_empty(),
    })
}

/// Which of [`KINDS`] it is. What has no outcome yet, or none that is known, did not reach its task.
fn place(count: &Count) -> usize {
    match count.outcome.as_str() {
        "issued" => 0,
        "denied" => 2,
        _ => 1,
    }
}

fn add(counts: &mut Vec<i64>, count: &Count) {
    counts.resize(KINDS.len(), 0);
    if let Some(sum) = counts.get_mut(place(count)) {
        *sum += count.count;
    }
}

fn over_time(name: &str, counts: &[Count], since: jiff::Timestamp, stretch_s: i64, many: i64) -> Html {
    let buckets: Vec<_> = (0..many)
        .map(|index| {
            let from = since.saturating_add(SignedDuration::from_secs(index * stretch_s)).unwrap_or(since);
            let format = if stretch_s > 3_600 { "%b %d %H:%M" } else { "%H:%M" };
            let mut sums = vec![0; KINDS.len()];
            counts.iter().filter(|count| count.bucket == index).for_each(|count| add(&mut sums, count));
            Bucket { label: from.strftime(format).to_string(), counts: sums }
        })
        .collect();
    chart::bars(&format!("Issuances and denials, {name}"), &KINDS, &buckets)
}

fn by<'a>(counts: &'a [Count], title: &str, of: impl Fn(&'a Count) -> Option<&'a str>) -> Html {
    let mut ranked = Ranked::new();
    for count in counts {
        add(ranked.entry(of(count).unwrap_or("none").to_owned()).or_default(), count);
    }
    chart::ranking(title, &KINDS, &ranked, 12)
}
