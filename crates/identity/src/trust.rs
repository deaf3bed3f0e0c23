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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::airflow::Claimant;

    struct Config {
        issuers: Vec<IssuerConfig>,
        airflows: Vec<AirflowConfig>,
        clusters: Vec<ClusterConfig>,
    }

    fn name(text: &str) -> cortex_core::IssuerName {
        text.parse().unwrap()
    }

    fn claimant(subject: &str) -> Claimant {
        Claimant { issuer: name("services"), subject: subject.into() }
    }

    fn airflow(called: &str, subject: &str) -> AirflowConfig {
        let config = AirflowConfig::new(name(called), "https://airflow.example", vec![claimant(subject)]);
        AirflowConfig { password_file: Some("password".into()), ..config }
    }

    fn sound() -> Config {
        let issuer =
            |called, iss: &str, kind| IssuerConfig::new(name(called), iss.to_owned(), kind, "cortex");
        let cluster = ClusterConfig::new(
            name("prod"),
            "https://cluster.example",
            "cortex",
            "https://10.0.0.1",
            "token",
        );
        Config {
            issuers: vec![
                issuer("prod", "https://airflow.example", Kind::Run),
                issuer("staff", "https://login.example", Kind::Person),
                issuer("services", "https://login.example/services", Kind::Service),
            ],
            airflows: vec![airflow("prod", "workers")],
            clusters: vec![ClusterConfig { service_accounts: vec!["airflow/worker".into()], ..cluster }],
        }
    }

    fn faults(config: &Config) -> Vec<(Section, &'static str)> {
        let Config { issuers, airflows, clusters } = config;
        let faults = Trust { issuers, airflows, clusters }.validate();
        faults.iter().map(|fault| (fault.section, fault.option)).collect()
    }

    #[test]
    fn one_airflow_may_be_proven_in_three_ways() {
        assert_eq!(faults(&sound()), []);
    }

    #[test]
    fn each_fault_names_its_section_and_its_option() {
        type Break = fn(&mut Config);
        let cases: [(Section, &str, Break); 25] = [
            (Section::Issuer, "name", |c| {
                let iss = "https://other.example".to_owned();
                c.issuers.push(IssuerConfig { iss, ..c.issuers[0].clone() });
            }),
            (Section::Issuer, "iss", |c| c.issuers[2].iss = c.issuers[1].iss.clone()),
            (Section::Airflow, "name", |c| c.airflows.push(airflow("prod", "others"))),
            (Section::Airflow, "name", |c| c.airflows[0].name = name("staff")),
            (Section::Airflow, "url", |c| c.airflows[0].url = "http://airflow.example".into()),
            (Section::Airflow, "url", |c| c.airflows[0].url = "https://u:p@airflow.example".into()),
            (Section::Airflow, "password_file", |c| c.airflows[0].password_file = None),
            (Section::Airflow, "password_file", |c| c.airflows[0].token_file = Some("token".into())),
            (Section::Airflow, "claimants", |c| c.airflows[0].claimants.clear()),
            (Section::Airflow, "claimants", |c| c.airflows[0].claimants[0].subject = String::new()),
            (Section::Airflow, "claimants", |c| c.airflows[0].claimants[0].issuer = name("staff")),
            (Section::Airflow, "claimants", |c| c.airflows[0].claimants[0].issuer = name("nobody")),
            (Section::Airflow, "claimants", |c| c.airflows.push(airflow("other", "workers"))),
            (Section::Airflow, "max_age", |c| c.airflows[0].max_age = 59),
            (Section::Airflow, "timeout", |c| c.airflows[0].timeout = 21),
            (Section::Cluster, "name", |c| c.clusters[0].name = name("services")),
            (Section::Cluster, "iss", |c| c.clusters[0].iss = c.issuers[0].iss.clone()),
            (Section::Cluster, "iss", |c| c.clusters.push(c.clusters[0].clone())),
            (Section::Cluster, "audience", |c| c.clusters[0].audience = "a b".into()),
            (Section::Cluster, "url", |c| c.clusters[0].url = "http://10.0.0.1".into()),
            (Section::Cluster, "service_accounts", |c| c.clusters[0].service_accounts.clear()),
            (Section::Cluster, "service_accounts", |c| c.clusters[0].service_accounts = vec!["*/*".into()]),
            (Section::Cluster, "max_token_lifetime", |c| c.clusters[0].max_token_lifetime = 86_401),
            (Section::Cluster, "leeway", |c| c.clusters[0].leeway = 121),
            (Section::Cluster, "remember", |c| c.clusters[0].remember = 61),
        ];
        for (section, option, spoil) in cases {
            let mut config = sound();
            spoil(&mut config);
            assert_eq!(faults(&config), [(section, option)]);
        }
    }

    #[test]
    fn every_option_is_documented() {
        let airflow = schemars::schema_for!(AirflowConfig).to_value();
        let cluster = schemars::schema_for!(ClusterConfig).to_value();
        let sections = [&airflow, &airflow["$defs"]["Claimant"], &cluster];
        for (name, option) in sections.into_iter().flat_map(|s| s["properties"].as_object().unwrap()) {
            assert!(option["description"].is_string(), "{name}");
        }
    }
}
