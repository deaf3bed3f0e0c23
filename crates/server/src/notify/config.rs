//! Who is told of what, and how.

use std::collections::BTreeSet;
use std::path::PathBuf;

use reqwest::Url;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::webhook::destination;

/// The kinds of records that can be told of. A break of the glass is told to everybody.
pub const EVENTS: [&str; 12] = [
    "grant.requested",
    "grant.decided",
    "grant.expired",
    "grant.withdrawn",
    "grant.voided",
    "preapproval.made",
    "preapproval.ended",
    "freeze.set",
    "freeze.lifted",
    "revocation.requested",
    "revocation.failing",
    "revocation.settled",
];

/// An endpoint that is told what happens, by a signed POST.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NotificationConfig {
    /// What the record and the list of dead notifications call it: a-z, 0-9 and hyphens. Required.
    pub name: String,
    /// Where to POST: https, or http to loopback. Either this or `url_file`.
    #[serde(default)]
    pub url: Option<String>,
    /// A file with that URL in one line, for the URL of a chat's webhook is a secret; it is read each time.
    #[serde(default)]
    pub url_file: Option<PathBuf>,
    /// What the body is: `json`, `slack` or `teams`. Default `json`.
    #[serde(default)]
    pub format: Format,
    /// A file with the secret that the body is signed with, 32 characters or more; it is read each time. Required
    /// for `json`. Default: nothing is signed, for the others do not check it.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
    /// The kinds of records that it is told of. Default `[]`: all of them.
    #[serde(default)]
    pub events: BTreeSet<String>,
    /// How long one try may take, in seconds, 1 to 60. Default 10.
    #[serde(default = "default_timeout_s")]
    pub timeout_s: u32,
    /// How often it is tried, with growing pauses, before it is given up, 1 to 20. Default 10: over an hour.
    #[serde(default = "default_max_attempts")]
    pub max_attempts: u32,
}

/// What the body of a notification is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The event whole, as `CloudEvents` names its parts.
    #[default]
    Json,
    /// What a Slack incoming webhook shows.
    Slack,
    /// What a Teams incoming webhook shows: an adaptive card.
    Teams,
}

fn default_timeout_s() -> u32 {
    10
}

fn default_max_attempts() -> u32 {
    10
}

impl NotificationConfig {
    /// An endpoint with the defaults.
    pub fn new(name: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            url: Some(url.into()),
            url_file: None,
            format: Format::default(),
            secret_file: None,
            events: BTreeSet::new(),
            timeout_s: default_timeout_s(),
            max_attempts: default_max_attempts(),
        }
    }

    /// Whether it is told of a record of this kind.
    pub(super) fn wants(&self, event: &str) -> bool {
        self.events.is_empty() || self.events.contains(event)
    }

    /// Where to POST, as of now. The error says what is wrong, without the URL.
    pub(super) async fn destination(&self) -> Result<Url, String> {
        let Some(file) = &self.url_file else {
            return destination(self.url.as_deref().unwrap_or_default()).map_err(str::to_owned);
        };
        let text = tokio::fs::read_to_string(file).await;
        let text = text.map_err(|_| "its url_file cannot be read".to_owned())?;
        destination(text.trim()).map_err(str::to_owned)
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut fault = |what: &str| faults.push(format!("notifications: {:?} {what}", self.name));
        let named = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if self.name.is_empty() || self.name.len() > 64 || !self.name.bytes().all(named) {
            fault("is no name: use 1 to 64 of a-z, 0-9 and hyphens");
        }
        match (&self.url, &self.url_file) {
            (Some(url), None) => {
                if let Err(what) = destination(url) {
                    fault(what);
                }
            }
            (None, Some(_)) => {}
            _ => fault("needs either url or url_file"),
        }
        if self.format == Format::Json && self.secret_file.is_none() {
            fault("has no secret_file, and who receives `json` has to know that it is from here");
        }
        if let Some(unknown) = self.events.iter().find(|event| !EVENTS.contains(&event.as_str())) {
            fault(&format!("wants {unknown:?}: write some of {}", EVENTS.join(", ")));
        }
        if !(1..=60).contains(&self.timeout_s) {
            fault("has a timeout_s that is not 1 to 60");
        }
        if !(1..=20).contains(&self.max_attempts) {
            fault("has a max_attempts that is not 1 to 20");
        }
        faults
    }
}

/// What is wrong with all of them, each in one sentence.
pub(crate) fn faults(all: &[NotificationConfig]) -> Vec<String> {
    let mut faults: Vec<String> = all.iter().flat_map(NotificationConfig::faults).collect();
    let mut seen = BTreeSet::new();
    let twice = all.iter().filter(|one| !seen.insert(&one.name));
    faults.extend(twice.map(|one| format!("notifications: {:?} is there twice", one.name)));
    faults
}
