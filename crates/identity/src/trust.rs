//! Everything that Cortex trusts, taken together.

use crate::airflow::AirflowConfig;
use crate::cluster::ClusterConfig;
use crate::config::{ConfigFault, IssuerConfig, Kind, Section};

/// Whose word is taken: issuers, Airflows that are asked about claims, clusters that are asked about pods.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trust<'a> {
    /// The issuers, whose signed tokens are believed.
    pub issuers: &'a [IssuerConfig],
    /// The Airflows that are asked about the runs that services claim.
    pub airflows: &'a [AirflowConfig],
    /// The clusters that are asked about their pods.
    pub clusters: &'a [ClusterConfig],
}

impl Trust<'_> {
    /// Everything that is wrong: with each by itself, and names and URLs that two share. With one key set or one
    /// cluster, and one audience, for each `iss`, a token has exactly one meaning; and no name means two Airflows.
    pub fn validate(&self) -> Vec<ConfigFault> {
        let mut faults: Vec<_> = self.issuers.iter().flat_map(IssuerConfig::validate).collect();
        faults.extend(self.airflows.iter().flat_map(AirflowConfig::validate));
        faults.extend(self.clusters.iter().flat_map(ClusterConfig::validate));
        self.check_issuers(&mut faults);
        self.check_airflows(&mut faults);
        self.check_clusters(&mut faults);
        faults
    }

    fn check_issuers(&self, faults: &mut Vec<ConfigFault>) {
        for (index, issuer) in self.issuers.iter().enumerate() {
            let earlier = self.issuers.get(..index).unwrap_or_default();
            let shared = [
                ("name", earlier.iter().any(|other| other.name == issuer.name)),
                ("iss", earlier.iter().any(|other| other.iss == issuer.iss)),
            ];
            for (option, _) in shared.into_iter().filter(|(_, shared)| *shared) {
                let message = "is that of another issuer too: each has its own".to_owned();
                let name = issuer.name.clone();
                faults.push(ConfigFault { section: Section::Issuer, name, option, message });
            }
        }
    }

    fn check_airflows(&self, faults: &mut Vec<ConfigFault>) {
        for (index, airflow) in self.airflows.iter().enumerate() {
            let earlier = self.airflows.get(..index).unwrap_or_default();
            let mut fault = |option, message: String| {
                let name = airflow.name.clone();
                faults.push(ConfigFault { section: Section::Airflow, name, option, message });
            };
            if earlier.iter().any(|other| other.name == airflow.name) {
                fault("name", "is that of another Airflow too: each has its own".into());
            }
            if self.is_no_airflow(&airflow.name) {
                fault("name", "is that of an issuer of people or services: choose another".into());
            }
            for claimant in &airflow.claimants {
                let who = format!("{} of {}", claimant.subject, claimant.issuer);
                let is_service = |issuer: &&IssuerConfig| issuer.name == claimant.issuer;
                if self.issuers.iter().find(is_service).is_none_or(|issuer| issuer.kind != Kind::Service) {
                    fault("claimants", format!("names {who}: there is no such issuer of services"));
                }
                if earlier.iter().any(|other| other.claimants.contains(claimant)) {
                    fault("claimants", format!("names {who}, which claims the runs of another Airflow"));
                }
            }
        }
    }

    fn check_clusters(&self, faults: &mut Vec<ConfigFault>) {
        for (index, cluster) in self.clusters.iter().enumerate() {
            let earlier = self.clusters.get(..index).unwrap_or_default();
            let mut fault = |option, message: &str| {
                let (name, message) = (cluster.name.clone(), message.to_owned());
                faults.push(ConfigFault { section: Section::Cluster, name, option, message });
            };
            if self.is_no_airflow(&cluster.name) {
                fault("name", "is that of an issuer of people or services: choose another");
            }
            let issued = self.issuers.iter().any(|issuer| issuer.iss == cluster.iss);
            if issued || earlier.iter().any(|other| other.iss == cluster.iss) {
                fault("iss", "is that of an issuer or of another cluster too: each has its own");
            }
        }
    }

    fn is_no_airflow(&self, name: &cortex_core::IssuerName) -> bool {
        self.issuers.iter().any(|issuer| issuer.name == *name && issuer.kind != Kind::Run)
    }
}
