//! `[telemetry]`.

use std::path::PathBuf;

use reqwest::Url;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::notify::webhook;

/// Traces of requests: one span for each step, sent to a collector by OTLP over HTTP.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// Where spans are sent, whole: it mostly ends in `/v1/traces`. https, or http where nothing secret is sent along.
    /// Default none: there are no traces.
    pub endpoint: Option<String>,
    /// How many traces are sent, 0 to 1: of those that begin here. A trace that a caller has begun goes on as the caller
    /// decided. Default 0.1.
    pub sample_ratio: f64,
    /// A file with headers that are sent along, each as `name: value` in a line, for collectors that want a key. It is
    /// read each time. Default none.
    pub headers_file: Option<PathBuf>,
    /// How long the collector may take, in seconds, 1 to 60. Default 10.
    pub timeout_s: u32,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { endpoint: None, sample_ratio: 0.1, headers_file: None, timeout_s: 10 }
    }
}

impl TelemetryConfig {
    /// Where spans are sent.
    pub(super) fn destination(&self) -> Result<Option<Url>, &'static str> {
        let Some(endpoint) = &self.endpoint else { return Ok(None) };
        if self.headers_file.is_some() {
            return webhook::destination(endpoint).map(Some);
        }
        let url = Url::parse(endpoint).map_err(|_| "has a url that is none")?;
        match url.scheme() {
            "https" | "http" => Ok(Some(url)),
            _ => Err("has a url that is neither https nor http"),
        }
    }

    /// What is wrong with it, as sentences.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if let Err(why) = self.destination() {
            faults.push(format!("telemetry.endpoint: {why}"));
        }
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            faults.push(format!("telemetry.sample_ratio is {}: write 0 to 1", self.sample_ratio));
        }
        if !(1..=60).contains(&self.timeout_s) {
            faults.push(format!("telemetry.timeout_s is {}: write 1 to 60", self.timeout_s));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_not_sent_in_the_clear() {
        let config = |endpoint: &str, headers: Option<&str>| TelemetryConfig {
            endpoint: Some(endpoint.to_owned()),
            headers_file: headers.map(Into::into),
            ..TelemetryConfig::default()
        };
        assert!(config("http://collector:4318/v1/traces", None).faults().is_empty());
        assert!(config("https://collector.example/v1/traces", Some("key")).faults().is_empty());
        assert!(config("http://127.0.0.1:4318/v1/traces", Some("key")).faults().is_empty());
        assert_eq!(config("http://collector:4318/v1/traces", Some("key")).faults().len(), 1);
        assert_eq!(config("collector:4318", None).faults().len(), 1);
        assert_eq!(TelemetryConfig { sample_ratio: 1.5, ..Default::default() }.faults().len(), 1);
        assert_eq!(TelemetryConfig { timeout_s: 0, ..Default::default() }.faults().len(), 1);
    }
}
