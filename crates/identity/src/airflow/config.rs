//! An Airflow whose word is taken for the claims of services.

use std::path::PathBuf;

use cortex_core::IssuerName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{ConfigFault, DAY, Section, printable};
use crate::endpoint::Endpoint;

/// The version of an Airflow's REST API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ApiVersion {
    /// `/api/v1`, of Airflow 2.
    V1,
    /// `/api/v2`, of Airflow 3.
    V2,
}

/// A service that may claim runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Claimant {
    /// The name of its issuer, one of kind `service`. Required.
    #[schemars(with = "String")]
    pub issuer: IssuerName,
    /// The exact `sub` of its tokens. Required.
    pub subject: String,
}

/// An Airflow that is asked whether a run that a service claims is there and running.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AirflowConfig {
    /// What policies and records call it. It may be the name of an issuer of runs, where both are the
    /// same Airflow: policies then tell them apart by `attestation`. Required.
    #[schemars(with = "String")]
    pub name: IssuerName,
    /// Where it is, without `/api`: https with a host name; http to localhost only. Required.
    pub url: String,
    /// The version of its REST API: `v2` (Airflow 3) or `v1` (Airflow 2). Default `v2`.
    #[serde(default = "default_api")]
    pub api: ApiVersion,
    /// A file with `user:password` in one line: shown to `/auth/token` with v2, as HTTP Basic with v1. A user who
    /// may read DAGs, runs and task instances is enough. Either this or `token_file`.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// A file with a bearer token for the API. It is read each time, so that it can be rotated.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// A file with the certificate authorities that its certificate may come from, PEM. Default: the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// The services that may claim its runs. Each may claim the runs of one Airflow only. Required.
    pub claimants: Vec<Claimant>,
    /// How long ago a try may have started that is claimed, in seconds, 60 to 604800. Default 86400.
    #[serde(default = "default_max_age")]
    pub max_age: u32,
    /// How long all requests for one claim may take together, in seconds, 1 to 20. Default 5.
    #[serde(default = "default_timeout")]
    pub timeout: u32,
}

fn default_api() -> ApiVersion {
    ApiVersion::V2
}

fn default_max_age() -> u32 {
    DAY
}

pub(crate) fn default_timeout() -> u32 {
    5
}

impl AirflowConfig {
    /// An Airflow with every option at its default, and no credential yet.
    pub fn new(name: IssuerName, url: impl Into<String>, claimants: Vec<Claimant>) -> Self {
        Self {
            name,
            url: url.into(),
            api: default_api(),
            password_file: None,
            token_file: None,
            ca_file: None,
            claimants,
            max_age: default_max_age(),
            timeout: default_timeout(),
        }
    }

    /// Everything that is wrong with it by itself; empty if nothing is.
    pub(crate) fn validate(&self) -> Vec<ConfigFault> {
        let mut faults = Vec::new();
        let mut fault = |option, message: String| {
            faults.push(ConfigFault { section: Section::Airflow, name: self.name.clone(), option, message });
        };
        if let Err(why) = Endpoint::api(&self.url) {
            fault("url", format!("{:?} {why}", self.url));
        }
        if self.password_file.is_some() == self.token_file.is_some() {
            fault("password_file", "or token_file, one of the two: write how Cortex proves who it is".into());
        }
        if self.claimants.is_empty() {
            fault("claimants", "is empty: write the services that may claim its runs".into());
        }
        if self.claimants.iter().any(|claimant| !printable(&claimant.subject)) {
            fault("claimants", "has a subject that is empty, too long or has spaces".into());
        }
        if !(60..=7 * DAY).contains(&self.max_age) {
            fault("max_age", format!("is {}: write 60 to {} seconds", self.max_age, 7 * DAY));
        }
        if !(1..=20).contains(&self.timeout) {
            fault("timeout", format!("is {}: write 1 to 20 seconds", self.timeout));
        }
        faults
    }
}
