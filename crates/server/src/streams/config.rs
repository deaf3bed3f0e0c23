//! Where records go, and how they are written there.

use std::collections::BTreeSet;
use std::path::PathBuf;

use cortex_core::record::What;
use reqwest::Url;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::notify::webhook;

/// A stream: every published record goes to one place, in the order of the log.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamConfig {
    /// What its place in the log is kept under: a-z, 0-9 and hyphens. Another name begins again. Required.
    pub name: String,
    /// How a record is written: `jsonl`, `cef`, `ocsf` or `cloudevents`. Required.
    pub format: StreamFormat,
    /// Where it goes: `stdout`, the absolute path of a file, or a URL to POST to, https or http to loopback. Required.
    #[schemars(with = "String")]
    pub to: Destination,
    /// A file with the secret that a POST is signed with, 32 characters or more; it is read each time. Required for a
    /// URL.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
    /// The kinds of records that go there. Default `[]`: all of them.
    #[serde(default)]
    pub kinds: BTreeSet<String>,
    /// How long one try may take, in seconds, 1 to 60. Default 10.
    #[serde(default = "default_timeout_s")]
    pub timeout_s: u32,
}

/// How a record is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StreamFormat {
    /// One JSON object in a line: the record whole, and where it is in the log.
    Jsonl,
    /// `ArcSight`'s Common Event Format, version 0, one event in a line.
    Cef,
    /// The Open Cybersecurity Schema Framework, one event in a line.
    Ocsf,
    /// `CloudEvents` 1.0 in JSON: a batch in a POST, one event in a line elsewhere.
    CloudEvents,
}

/// Where records go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Destination {
    /// Standard output: nothing else is written there.
    Stdout,
    /// The end of a file.
    File(PathBuf),
    /// A POST.
    Url(Url),
}

impl TryFrom<String> for Destination {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "stdout" {
            return Ok(Self::Stdout);
        }
        if text.starts_with('/') {
            return Ok(Self::File(text.into()));
        }
        let url = webhook::destination(&text);
        url.map(Self::Url).map_err(|_| {
            "is neither stdout, nor the absolute path of a file, nor an https URL; http is for loopback only".to_owned()
        })
    }
}

impl From<Destination> for String {
    fn from(to: Destination) -> Self {
        match to {
            Destination::Stdout => "stdout".to_owned(),
            Destination::File(path) => path.display().to_string(),
            Destination::Url(url) => url.to_string(),
        }
    }
}

fn default_timeout_s() -> u32 {
    10
}

impl StreamConfig {
    /// A stream with the defaults.
    pub fn new(name: impl Into<String>, format: StreamFormat, to: Destination) -> Self {
        Self {
            name: name.into(),
            format,
            to,
            secret_file: None,
            kinds: BTreeSet::new(),
            timeout_s: default_timeout_s(),
        }
    }

    /// Whether records of this kind go there.
    pub(super) fn wants(&self, kind: &str) -> bool {
        self.kinds.is_empty() || self.kinds.contains(kind)
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut fault = |what: &str| faults.push(format!("streams: {:?} {what}", self.name));
        let named = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if self.name.is_empty() || self.name.len() > 64 || !self.name.bytes().all(named) {
            fault("is no name: use 1 to 64 of a-z, 0-9 and hyphens");
        }
        if matches!(self.to, Destination::Url(_)) && self.secret_file.is_none() {
            fault("has no secret_file, and who receives it has to know that it is from here");
        }
        if let Some(unknown) = self.kinds.iter().find(|kind| !What::KINDS.contains(&kind.as_str())) {
            fault(&format!("wants {unknown:?}: write some of {}", What::KINDS.join(", ")));
        }
        if !(1..=60).contains(&self.timeout_s) {
            fault("has a timeout_s that is not 1 to 60");
        }
        faults
    }
}

/// What is wrong with all of them, each in one sentence.
pub(crate) fn faults(all: &[StreamConfig]) -> Vec<String> {
    let mut faults: Vec<String> = all.iter().flat_map(StreamConfig::faults).collect();
    let mut seen = BTreeSet::new();
    let twice = all.iter().filter(|one| !seen.insert(&one.name));
    faults.extend(twice.map(|one| format!("streams: {:?} is there twice", one.name)));
    faults
}
