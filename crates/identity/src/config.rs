//! The issuers that Cortex trusts: an allow-list. Nothing about an issuer ever comes from a token.

use std::fmt;

use cortex_core::{Attestation, IssuerName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::claim_map::ClaimMap;
use crate::endpoint::Endpoint;

/// What the tokens of an issuer prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A try of an Airflow task.
    Run,
    /// A human.
    Person,
    /// Another workload.
    Service,
}

/// A signature algorithm (RFC 7518, section 3.1; `EdDSA`: RFC 8037) that an issuer may be pinned to.
/// There is no symmetric one and no `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RS256,
    /// RSASSA-PSS with SHA-256.
    PS256,
    /// ECDSA with P-256 and SHA-256.
    ES256,
    /// ECDSA with P-384 and SHA-384.
    ES384,
    /// Ed25519.
    EdDSA,
}

impl Algorithm {
    /// Reads the registered name, exactly as it is registered.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "RS256" => Some(Self::RS256),
            "PS256" => Some(Self::PS256),
            "ES256" => Some(Self::ES256),
            "ES384" => Some(Self::ES384),
            "EdDSA" => Some(Self::EdDSA),
            _ => None,
        }
    }
}

/// One issuer that Cortex trusts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// What policies and records call it: a-z, 0-9 and hyphens. Required.
    #[schemars(with = "String")]
    pub name: IssuerName,
    /// The exact `iss` of its tokens: an https URL with a host name, without query or fragment; http to
    /// localhost only. Compared byte for byte. Required.
    pub iss: String,
    /// What its tokens prove: `run`, `person` or `service`. Required.
    pub kind: Kind,
    /// The one `aud` that its tokens carry. Use a value that no other service accepts. Required.
    pub audience: String,
    /// The algorithms that it signs with. Default `["RS256"]`.
    #[serde(default = "default_algorithms")]
    pub algorithms: Vec<Algorithm>,
    /// Where its keys are, by the same rules as `iss` (a query is allowed). Default: as its discovery document says.
    #[serde(default)]
    pub jwks_uri: Option<String>,
    /// The values of the header `typ` that are accepted, in either case. Access tokens (RFC 9068) need `at+jwt`
    /// here. Default `["JWT"]`.
    #[serde(default = "default_types")]
    pub types: Vec<String>,
    /// Whether a token without `typ` is accepted. Default true: many issuers leave it out.
    #[serde(default = "default_true")]
    pub allow_missing_type: bool,
    /// The longest lifetime (`exp` less `iat`) of a token, in seconds, 1 to 86400. Default 3600; 600 is better for runs.
    #[serde(default = "default_max_token_lifetime")]
    pub max_token_lifetime: u32,
    /// How far the clocks may differ, in seconds, 0 to 120. Default 30.
    #[serde(default = "default_leeway")]
    pub leeway: u32,
    /// Whether a token is good for one exchange only; its `jti` is then required. Default true for runs, else false.
    #[serde(default)]
    pub single_use_jti: Option<bool>,
    /// Run: how the identity is proven: `issuer`, `kubernetes` or `verified-claim`. Default `issuer`.
    #[serde(default)]
    pub attestation: Option<Attestation>,
    /// Which claims say who it is.
    #[serde(default)]
    pub claims: ClaimMap,
    /// How old its keys may become before they are fetched again, in seconds, 30 to 86400. Default 600.
    /// A key that the issuer withdraws is trusted this long at most, while the issuer can be reached.
    #[serde(default = "default_jwks_max_age")]
    pub jwks_max_age: u32,
    /// How old its keys may become while it cannot be reached, in seconds, at least `jwks_max_age` and at most
    /// 86400; after that its tokens are refused. Default 3600.
    #[serde(default = "default_jwks_max_stale")]
    pub jwks_max_stale: u32,
    /// The least time between two attempts to fetch its keys, in seconds, 1 to `jwks_max_age`. Default 30.
    #[serde(default = "default_jwks_min_refresh")]
    pub jwks_min_refresh: u32,
}

fn default_algorithms() -> Vec<Algorithm> {
    vec![Algorithm::RS256]
}

fn default_types() -> Vec<String> {
    vec!["JWT".into()]
}

fn default_true() -> bool {
    true
}

pub(crate) fn default_max_token_lifetime() -> u32 {
    3600
}

pub(crate) fn default_leeway() -> u32 {
    30
}

fn default_jwks_max_age() -> u32 {
    600
}

fn default_jwks_max_stale() -> u32 {
    3600
}

fn default_jwks_min_refresh() -> u32 {
    30
}

/// The longest period that any option of an issuer may name, in seconds: a day.
pub(crate) const DAY: u32 = 86_400;

/// A section of the configuration that says whose word is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// An issuer.
    Issuer,
    /// An Airflow that is asked about claims.
    Airflow,
    /// A cluster that is asked about pods.
    Cluster,
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Issuer => "issuer",
            Self::Airflow => "airflow",
            Self::Cluster => "cluster",
        })
    }
}

/// One thing that is wrong with the configuration of those whose word is taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{section} {name}: {option} {message}")]
pub struct ConfigFault {
    /// What it is.
    pub section: Section,
    /// Its name.
    pub name: IssuerName,
    /// The option.
    pub option: &'static str,
    /// What is wrong with it and what to write instead.
    pub message: String,
}

impl IssuerConfig {
    /// An issuer with every option at its default.
    pub fn new(name: IssuerName, iss: impl Into<String>, kind: Kind, audience: impl Into<String>) -> Self {
        Self {
            name,
            iss: iss.into(),
            kind,
            audience: audience.into(),
            algorithms: default_algorithms(),
            jwks_uri: None,
            types: default_types(),
            allow_missing_type: default_true(),
            max_token_lifetime: default_max_token_lifetime(),
            leeway: default_leeway(),
            single_use_jti: None,
            attestation: None,
            claims: ClaimMap::default(),
            jwks_max_age: default_jwks_max_age(),
            jwks_max_stale: default_jwks_max_stale(),
            jwks_min_refresh: default_jwks_min_refresh(),
        }
    }

    /// Whether a token of this issuer is good for one exchange only.
    pub fn is_single_use(&self) -> bool {
        self.single_use_jti.unwrap_or(self.kind == Kind::Run)
    }

    /// Everything that is wrong with it; empty if nothing is.
    pub fn validate(&self) -> Vec<ConfigFault> {
        let mut faults = Vec::new();
        let mut fault = |option, message: String| {
            faults.push(ConfigFault { section: Section::Issuer, name: self.name.clone(), option, message });
        };
        if let Err(why) = Endpoint::issuer(&self.iss) {
            fault("iss", format!("{:?} {why}", self.iss));
        }
        if let Some(uri) = &self.jwks_uri
            && let Err(why) = Endpoint::parse(uri)
        {
            fault("jwks_uri", format!("{uri:?} {why}"));
        }
        if !printable(&self.audience) {
            fault("audience", "is empty, too long or has spaces: write one exact value".into());
        }
        if self.algorithms.is_empty() {
            fault("algorithms", "is empty: pin at least one, such as RS256".into());
        }
        if !self.types.iter().all(|typ| printable(typ)) || (self.types.is_empty() && !self.allow_missing_type)
        {
            fault("types", "accepts nothing, or has an empty value: write values such as JWT".into());
        }
        for (option, value, min, max) in self.ranges() {
            if value < min || value > max {
                fault(option, format!("is {value}: write {min} to {max} seconds"));
            }
        }
        if self.attestation.is_some() && self.kind != Kind::Run {
            fault("attestation", "is for issuers of runs: remove it".into());
        }
        for name in self.claims.misplaced(self.kind) {
            fault("claims", format!("names {name}, which this kind of issuer has no use for: remove it"));
        }
        faults
    }

    /// The options that are periods, with their bounds in seconds.
    fn ranges(&self) -> [(&'static str, u32, u32, u32); 5] {
        [
            ("max_token_lifetime", self.max_token_lifetime, 1, DAY),
            ("leeway", self.leeway, 0, 120),
            ("jwks_max_age", self.jwks_max_age, 30, DAY),
            ("jwks_max_stale", self.jwks_max_stale, self.jwks_max_age, DAY),
            ("jwks_min_refresh", self.jwks_min_refresh, 1, self.jwks_max_age),
        ]
    }
}

pub(crate) fn printable(text: &str) -> bool {
    (1..=500).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claim_map::ClaimPath;

    fn issuer() -> IssuerConfig {
        IssuerConfig::new("prod".parse().unwrap(), "https://airflow.example.com", Kind::Run, "cortex")
    }

    #[test]
    fn defaults_are_sound_and_are_what_a_short_document_means() {
        let short =
            r#"{"name": "prod", "iss": "https://airflow.example.com", "kind": "run", "audience": "cortex"}"#;
        let read: IssuerConfig = serde_json::from_str(short).unwrap();
        assert_eq!(read, issuer());
        assert_eq!(read.validate(), []);
        assert!(read.is_single_use());
        assert!(!IssuerConfig { kind: Kind::Person, ..read }.is_single_use());
    }

    #[test]
    fn unknown_options_and_weak_algorithms_do_not_parse() {
        for extra in [
            r#""issuer_url": "x""#,
            r#""algorithms": ["HS256"]"#,
            r#""algorithms": ["none"]"#,
            r#""claims": {"dagid": "x"}"#,
            r#""claims": {"dag_id": ""}"#,
            r#""claims": {"dag_id": "a..b"}"#,
            r#""claims": {"dag_id": []}"#,
            r#""claims": {"dag_id": "https://example.com/dag"}"#,
        ] {
            let text = format!(
                r#"{{"name": "p", "iss": "https://a.example", "kind": "run", "audience": "c", {extra}}}"#
            );
            assert!(serde_json::from_str::<IssuerConfig>(&text).is_err(), "{extra}");
        }
    }

    #[test]
    fn each_fault_names_its_option() {
        type Break = fn(&mut IssuerConfig);
        let cases: [(&str, Break); 12] = [
            ("iss", |c| c.iss = "http://airflow.example.com".into()),
            ("iss", |c| c.iss = "https://10.1.2.3".into()),
            ("jwks_uri", |c| {
                c.jwks_uri = Some("http://keys.example.com".into());
            }),
            ("audience", |c| c.audience = String::new()),
            ("algorithms", |c| c.algorithms.clear()),
            ("types", |c| {
                c.types.clear();
                c.allow_missing_type = false;
            }),
            ("max_token_lifetime", |c| c.max_token_lifetime = 0),
            ("leeway", |c| c.leeway = 121),
            ("jwks_max_stale", |c| c.jwks_max_stale = c.jwks_max_age - 1),
            ("jwks_min_refresh", |c| c.jwks_min_refresh = 0),
            ("attestation", |c| {
                c.kind = Kind::Person;
                c.attestation = Some(Attestation::Kubernetes);
            }),
            ("claims", |c| c.claims.groups = Some(ClaimPath::dotted("groups"))),
        ];
        for (option, spoil) in cases {
            let mut config = issuer();
            spoil(&mut config);
            let faults = config.validate();
            assert_eq!(faults.iter().map(|f| f.option).collect::<Vec<_>>(), [option], "{faults:?}");
        }
    }

    #[test]
    fn every_option_is_documented() {
        let schema = schemars::schema_for!(IssuerConfig).to_value();
        let claims = &schema["$defs"]["ClaimMap"]["properties"];
        let options = [&schema["properties"], claims].map(|options| options.as_object().unwrap());
        assert_eq!(options.map(serde_json::Map::len), [16, 17]);
        for (name, option) in options.into_iter().flatten() {
            assert!(option["description"].is_string(), "{name}");
        }
    }
}
