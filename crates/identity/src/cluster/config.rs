//! A Kubernetes cluster whose word is taken for the pods that tasks run in.

use std::path::PathBuf;

use cortex_core::IssuerName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::airflow::default_timeout;
use crate::config::{ConfigFault, DAY, Section, default_leeway, default_max_token_lifetime, printable};
use crate::endpoint::Endpoint;

/// A cluster that is asked who shows a service account's token, and what the token's pod is running.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterConfig {
    /// What policies and records call the Airflow whose tasks run there. It may be the name of an issuer of runs,
    /// where both are the same Airflow: policies then tell them apart by `attestation`. Required.
    #[schemars(with = "String")]
    pub name: IssuerName,
    /// The exact `iss` of its service accounts' tokens, compared byte for byte. Required.
    pub iss: String,
    /// The one `aud` of the projected tokens. Use a value that no other service accepts. Required.
    pub audience: String,
    /// Its API server: https with a name or an address; http to localhost only. Required.
    pub url: String,
    /// A file with the certificate authorities that its certificate may come from, PEM. Default: the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// A file with a bearer token for it, of an account that may create token reviews and get pods. It is read
    /// each time, so that it can be rotated. Required.
    pub token_file: PathBuf,
    /// The service accounts that tasks run as, each written `namespace/name`. Required.
    pub service_accounts: Vec<String>,
    /// The longest lifetime (`exp` less `iat`) of a token, in seconds, 600 to 86400. Default 3600.
    #[serde(default = "default_max_token_lifetime")]
    pub max_token_lifetime: u32,
    /// How far the clocks may differ, in seconds, 0 to 120. Default 30.
    #[serde(default = "default_leeway")]
    pub leeway: u32,
    /// How long all requests for one token may take together, in seconds, 1 to 20. Default 5.
    #[serde(default = "default_timeout")]
    pub timeout: u32,
    /// How long the cluster's word is taken without asking again, in seconds, 0 to 60. Default 10. A pod that ended
    /// is believed this long at most.
    #[serde(default = "default_remember")]
    pub remember: u32,
}

fn default_remember() -> u32 {
    10
}

impl ClusterConfig {
    /// A cluster with every option at its default.
    pub fn new(
        name: IssuerName,
        iss: impl Into<String>,
        audience: impl Into<String>,
        url: impl Into<String>,
        token_file: impl Into<PathBuf>,
    ) -> Self {
        Self {
            name,
            iss: iss.into(),
            audience: audience.into(),
            url: url.into(),
            ca_file: None,
            token_file: token_file.into(),
            service_accounts: Vec::new(),
            max_token_lifetime: default_max_token_lifetime(),
            leeway: default_leeway(),
            timeout: default_timeout(),
            remember: default_remember(),
        }
    }

    /// Everything that is wrong with it by itself; empty if nothing is.
    pub(crate) fn validate(&self) -> Vec<ConfigFault> {
        let mut faults = Vec::new();
        let mut fault = |option, message: String| {
            faults.push(ConfigFault { section: Section::Cluster, name: self.name.clone(), option, message });
        };
        if !printable(&self.iss) {
            fault("iss", "is empty, too long or has spaces: write the iss of its tokens".into());
        }
        if !printable(&self.audience) {
            fault("audience", "is empty, too long or has spaces: write one exact value".into());
        }
        if let Err(why) = Endpoint::api(&self.url) {
            fault("url", format!("{:?} {why}", self.url));
        }
        if self.service_accounts.is_empty() || !self.service_accounts.iter().all(|name| is_account(name)) {
            fault("service_accounts", "is empty, or has one that is not written namespace/name".into());
        }
        for (option, value, min, max) in self.ranges() {
            if value < min || value > max {
                fault(option, format!("is {value}: write {min} to {max} seconds"));
            }
        }
        faults
    }

    /// The options that are periods, with their bounds in seconds.
    fn ranges(&self) -> [(&'static str, u32, u32, u32); 4] {
        [
            ("max_token_lifetime", self.max_token_lifetime, 600, DAY),
            ("leeway", self.leeway, 0, 120),
            ("timeout", self.timeout, 1, 20),
            ("remember", self.remember, 0, 60),
        ]
    }
}

/// Whether `text` is a namespace and a name.
fn is_account(text: &str) -> bool {
    text.split_once('/').is_some_and(|(namespace, name)| super::is_name(namespace) && super::is_name(name))
}
