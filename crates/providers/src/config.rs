//! What an operator configures for each provider. Everything has a default; [`ProvidersConfig::validate`] finds
//! what would only fail later.

mod breaker;
mod faults;
mod revocation;

use std::collections::BTreeMap;

use jiff::SignedDuration;
use jiff::fmt::serde::duration::friendly::compact::required as friendly;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use breaker::BreakerConfig;
pub(crate) use faults::Faults;
pub use faults::endpoint_fault;
pub use revocation::{AwsRevocationConfig, AwsRevocationMethod, BigQueryRevocationConfig};

/// The providers' section of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProvidersConfig {
    /// AWS and stores that speak its STS protocol.
    pub aws: AwsConfig,
    /// Google `BigQuery` through Workload Identity Federation.
    pub bigquery: BigQueryConfig,
    /// Snowflake.
    pub snowflake: SnowflakeConfig,
    /// Private HTTP APIs that take Cortex's own access tokens.
    pub api: ApiConfig,
}

/// How long a call to a cloud may take and how often it is tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CallLimits {
    /// The deadline of one mint, or of one question to a KMS, all tries together, such as `10s`. Default: 10 s. At most 5 minutes.
    #[serde(serialize_with = "friendly")]
    #[schemars(with = "String")]
    pub timeout: SignedDuration,
    /// The deadline of one try, such as `4s`. Default: 4 s.
    #[serde(serialize_with = "friendly")]
    #[schemars(with = "String")]
    pub attempt_timeout: SignedDuration,
    /// The deadline for reaching the cloud's address, such as `2s`. Default: 2 s.
    #[serde(serialize_with = "friendly")]
    #[schemars(with = "String")]
    pub connect_timeout: SignedDuration,
    /// How often a failed try is repeated, with a growing, jittered pause. Default and maximum: 2.
    pub retries: u8,
}

impl Default for CallLimits {
    fn default() -> Self {
        Self {
            timeout: SignedDuration::from_secs(10),
            attempt_timeout: SignedDuration::from_secs(4),
            connect_timeout: SignedDuration::from_secs(2),
            retries: 2,
        }
    }
}

impl CallLimits {
    /// The deadline of a revocation's calls together: signing in, reading, writing and looking whether it is done. Not
    /// more than 45 seconds, however patient mints are: another worker waits to take over.
    pub(crate) fn revocation(&self) -> SignedDuration {
        self.timeout.saturating_mul(3).min(SignedDuration::from_secs(45))
    }
}

/// AWS.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AwsConfig {
    /// The region whose STS is called for a target that names none. Default: `us-east-1`. It has to be of the
    /// partition of the target's role, so a target in `aws-cn` or `aws-us-gov` names its own.
    pub region: String,
    /// The STS endpoint for every region, such as a store's own STS. Default: AWS's regional endpoint.
    pub endpoint: Option<String>,
    /// STS endpoints for single regions, such as VPC endpoints; they go before `endpoint`.
    pub endpoints: BTreeMap<String, String>,
    /// Call the FIPS 140 endpoints of AWS. Default: false.
    pub fips: bool,
    /// The audience of the tokens that Cortex shows to STS: the client id of its OIDC provider in IAM.
    /// Default: `sts.amazonaws.com`.
    pub audience: String,
    /// The external id for targets with `method: assume-role` that name none: 2 to 1224 characters. Without
    /// one, neither here nor in the target, such a target is refused (the confused deputy).
    pub external_id: Option<String>,
    /// How long a token that Cortex shows to STS is valid, such as `5m`. It does not limit the session.
    /// Default: 5 minutes. Between 1 minute and 1 hour.
    #[serde(serialize_with = "friendly")]
    #[schemars(with = "String")]
    pub token_lifetime: SignedDuration,
    /// How sessions are ended before they expire.
    pub revocation: AwsRevocationConfig,
    /// How many calls to STS this replica makes in a second for one account and region. AWS allows about 600, from all
    /// who call there together, so let the replicas share them. Default 300.
    pub max_calls_per_second: u32,
    /// How many mints of one account and region are under way at once. Default 256.
    pub max_concurrent_calls: u32,
    /// When an account that does not answer is left alone.
    pub breaker: BreakerConfig,
    /// Deadlines and retries of calls to STS.
    pub calls: CallLimits,
}

impl Default for AwsConfig {
    fn default() -> Self {
        Self {
            region: "us-east-1".into(),
            endpoint: None,
            endpoints: BTreeMap::new(),
            fips: false,
            audience: "sts.amazonaws.com".into(),
            external_id: None,
            token_lifetime: SignedDuration::from_mins(5),
            revocation: AwsRevocationConfig::default(),
            max_calls_per_second: 300,
            max_concurrent_calls: 256,
            breaker: BreakerConfig::default(),
            calls: CallLimits::default(),
        }
    }
}

impl AwsConfig {
    /// The STS endpoint for `region`, if it is not AWS's own.
    pub(crate) fn endpoint_for(&self, region: &str) -> Option<&str> {
        self.endpoints.get(region).or(self.endpoint.as_ref()).map(String::as_str)
    }
}

/// Google `BigQuery`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BigQueryConfig {
    /// The workload identity pool's provider for targets that name none:
    /// `projects/<number>/locations/global/workloadIdentityPools/<pool>/providers/<provider>`.
    pub provider: Option<String>,
    /// The domain that the default endpoints are in: another one for Google's sovereign clouds.
    /// Default: `googleapis.com`.
    pub universe_domain: String,
    /// The token endpoint of Google's STS. Default: `https://sts.<universe_domain>/v1/token`.
    pub token_endpoint: Option<String>,
    /// The IAM Service Account Credentials API. Default: `https://iamcredentials.<universe_domain>`.
    pub iam_credentials_endpoint: Option<String>,
    /// The longest lifetime of a service account's token, such as `1h`. More than one hour works only for
    /// service accounts that the constraint `iam.allowServiceAccountCredentialLifetimeExtension` lists.
    /// Default: 1 hour. At most 12 hours.
    #[serde(serialize_with = "friendly")]
    #[schemars(with = "String")]
    pub max_service_account_lifetime: SignedDuration,
    /// How federated tokens are ended before they expire.
    pub revocation: BigQueryRevocationConfig,
    /// How many calls this replica makes in a second to Google's STS and to IAM credentials, for the pools of one
    /// project. Google counts them by project and minute; let the replicas share them. Default 100.
    pub max_calls_per_second: u32,
    /// How many mints of one project's pools are under way at once. Default 128.
    pub max_concurrent_calls: u32,
    /// When a project that does not answer is left alone.
    pub breaker: BreakerConfig,
    /// Deadlines and retries of calls to Google. One mint through a service account makes two calls; each has
    /// these limits to itself.
    pub calls: CallLimits,
}

impl Default for BigQueryConfig {
    fn default() -> Self {
        Self {
            provider: None,
            universe_domain: "googleapis.com".into(),
            token_endpoint: None,
            iam_credentials_endpoint: None,
            max_service_account_lifetime: SignedDuration::from_hours(1),
            revocation: BigQueryRevocationConfig::default(),
            max_calls_per_second: 100,
            max_concurrent_calls: 128,
            breaker: BreakerConfig::default(),
            calls: CallLimits::default(),
        }
    }
}

impl BigQueryConfig {
    /// The token endpoint of Google's STS.
    pub(crate) fn token_url(&self) -> String {
        let default = || format!("https://sts.{}/v1/token", self.universe_domain);
        self.token_endpoint.clone().unwrap_or_else(default)
    }

    /// The IAM API, without a slash at its end.
    pub(crate) fn iam_url(&self) -> String {
        let default = || format!("https://iam.{}", self.universe_domain);
        let url = self.revocation.endpoint.clone().unwrap_or_else(default);
        url.trim_end_matches('/').to_owned()
    }

    /// The IAM Service Account Credentials API, without a slash at its end.
    pub(crate) fn iam_credentials_url(&self) -> String {
        let default = || format!("https://iamcredentials.{}", self.universe_domain);
        let url = self.iam_credentials_endpoint.clone().unwrap_or_else(default);
        url.trim_end_matches('/').to_owned()
    }
}

/// Snowflake.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SnowflakeConfig {
    /// The domain of account URLs. Default: `snowflakecomputing.com`.
    pub domain: String,
    /// What differs for single accounts, by the account name that policies write.
    pub accounts: BTreeMap<String, SnowflakeAccount>,
    /// The audience of tokens for `method: workload-identity`. Default: `snowflakecomputing.com`.
    pub workload_identity_audience: String,
    /// The subject of tokens for `method: workload-identity`; `{user}` stands for the target's user and has to
    /// occur once. It has to equal the user's `WORKLOAD_IDENTITY` subject. Default: `cortex:{user}`.
    pub workload_identity_subject: String,
}

impl Default for SnowflakeConfig {
    fn default() -> Self {
        Self {
            domain: "snowflakecomputing.com".into(),
            accounts: BTreeMap::new(),
            workload_identity_audience: "snowflakecomputing.com".into(),
            workload_identity_subject: "cortex:{user}".into(),
        }
    }
}

/// One Snowflake account's own settings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SnowflakeAccount {
    /// The host that clients connect to, such as a private link's. Default: `<account>.<domain>`.
    pub host: Option<String>,
    /// The audience of tokens for `method: oauth`, as in the integration's `EXTERNAL_OAUTH_AUDIENCE_LIST`.
    /// Default: the account's URL.
    pub oauth_audience: Option<String>,
}

/// Private HTTP APIs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ApiConfig {
    /// Audiences that no policy may ask a token for, beside those of the clouds and of Cortex itself: each
    /// URI and everything below it.
    pub reserved_audiences: Vec<String>,
}

impl ProvidersConfig {
    /// Every audience under which a token of Cortex opens something else than a private API.
    pub(crate) fn reserved_audiences(&self) -> Vec<String> {
        let mut reserved = self.api.reserved_audiences.clone();
        reserved.push(self.aws.audience.clone());
        reserved.push(self.snowflake.workload_identity_audience.clone());
        let accounts = self.snowflake.accounts.values();
        reserved.extend(accounts.filter_map(|account| account.oauth_audience.clone()));
        reserved
    }

    /// The longest that any provider takes to change what one of its targets denies.
    pub fn slowest_revocation(&self) -> SignedDuration {
        self.aws.calls.revocation().max(self.bigquery.calls.revocation())
    }

    /// Finds what cannot work, each in one sentence that names the option.
    pub fn validate(&self) -> Result<(), Vec<String>> {
        let mut faults = Faults::of("providers");
        self.aws.validate(&mut faults);
        self.bigquery.validate(&mut faults);
        self.snowflake.validate(&mut faults);
        for audience in &self.api.reserved_audiences {
            faults.unless(!audience.is_empty(), "api.reserved_audiences", "has an empty entry: remove it");
        }
        let said = faults.said();
        if said.is_empty() { Ok(()) } else { Err(said) }
    }
}

impl AwsConfig {
    fn validate(&self, faults: &mut Faults) {
        faults.unless(
            crate::aws::is_region(&self.region),
            "aws.region",
            "is not a region: write one such as eu-west-1",
        );
        faults.endpoint("aws.endpoint", self.endpoint.as_ref());
        for (region, url) in &self.endpoints {
            faults.unless(
                crate::aws::is_region(region),
                &format!("aws.endpoints.{region}"),
                "is not for a region: write one such as eu-west-1",
            );
            faults.endpoint(&format!("aws.endpoints.{region}"), Some(url));
        }
        let audience = (1..=255).contains(&self.audience.len());
        faults.unless(audience, "aws.audience", "has to have 1 to 255 characters");
        let external_id = self.external_id.as_deref().is_none_or(crate::aws::is_external_id);
        faults.unless(
            external_id,
            "aws.external_id",
            "has to have 2 to 1224 of A-Z a-z 0-9 _ + = , . @ : / -",
        );
        let (minute, hour) = (SignedDuration::from_mins(1), SignedDuration::from_hours(1));
        faults.between("aws.token_lifetime", self.token_lifetime, minute, hour);
        self.revocation.validate(faults);
        faults.account("aws", self.max_calls_per_second, self.max_concurrent_calls, &self.breaker);
        faults.calls("aws.calls", &self.calls);
    }
}

impl BigQueryConfig {
    fn validate(&self, faults: &mut Faults) {
        let provider =
            self.provider.as_deref().is_none_or(|name| crate::bigquery::parse_provider(name).is_ok());
        faults.unless(
            provider,
            "bigquery.provider",
            "is not projects/<number>/locations/global/workloadIdentityPools/<pool>/providers/<provider>",
        );
        faults.unless(is_host(&self.universe_domain), "bigquery.universe_domain", "is not a domain name");
        faults.endpoint("bigquery.token_endpoint", self.token_endpoint.as_ref());
        faults.endpoint("bigquery.iam_credentials_endpoint", self.iam_credentials_endpoint.as_ref());
        let (least, most) = (SignedDuration::from_mins(1), SignedDuration::from_hours(12));
        let lifetime = self.max_service_account_lifetime;
        faults.between("bigquery.max_service_account_lifetime", lifetime, least, most);
        self.revocation.validate(self.provider.is_some(), faults);
        faults.account("bigquery", self.max_calls_per_second, self.max_concurrent_calls, &self.breaker);
        faults.calls("bigquery.calls", &self.calls);
    }
}

impl SnowflakeConfig {
    fn validate(&self, faults: &mut Faults) {
        faults.unless(is_host(&self.domain), "snowflake.domain", "is not a domain name");
        for (account, own) in &self.accounts {
            let host = own.host.as_deref().is_none_or(is_host);
            faults.unless(host, &format!("snowflake.accounts.{account}.host"), "is not a host name");
        }
        let audience = !self.workload_identity_audience.is_empty();
        faults.unless(audience, "snowflake.workload_identity_audience", "is empty: write an audience");
        let once = self.workload_identity_subject.matches("{user}").count() == 1;
        faults.unless(once, "snowflake.workload_identity_subject", "has to have {user} once");
    }
}

fn is_host(host: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    host.len() <= 253 && host.split('.').all(|label| !label.is_empty() && label.bytes().all(inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid() {
        assert_eq!(ProvidersConfig::default().validate(), Ok(()));
    }

    #[test]
    fn an_endpoint_is_https_or_on_this_machine() {
        for url in
            ["https://sts.example.com", "http://127.0.0.1:8080/sts", "http://localhost:1", "http://[::1]:9"]
        {
            assert_eq!(endpoint_fault(url), None, "{url}");
        }
        let refused = [
            "http://sts.example.com",
            "http://10.0.0.1",
            "http://127.0.0.1.example.com",
            "http://localhost.example.com",
            "ftp://127.0.0.1",
            "https://user:pw@sts.example.com",
            "https://sts.example.com/?a=b",
            "https://sts.example.com/#f",
            "sts.example.com",
            "",
        ];
        for url in refused {
            assert!(endpoint_fault(url).is_some(), "{url}");
        }
    }

    #[test]
    fn every_fault_names_its_option() {
        let config = ProvidersConfig {
            aws: AwsConfig {
                region: "Paris".into(),
                endpoint: Some("http://sts.example.com".into()),
                external_id: Some("x".into()),
                token_lifetime: SignedDuration::from_hours(2),
                calls: CallLimits { retries: 9, ..CallLimits::default() },
                ..AwsConfig::default()
            },
            bigquery: BigQueryConfig { provider: Some("my-pool".into()), ..BigQueryConfig::default() },
            snowflake: SnowflakeConfig {
                workload_identity_subject: "cortex".into(),
                ..SnowflakeConfig::default()
            },
            api: ApiConfig { reserved_audiences: vec![String::new()] },
        };
        let faults = config.validate().unwrap_err();
        let options: Vec<_> = faults.iter().filter_map(|fault| fault.split(' ').next()).collect();
        assert_eq!(
            options,
            [
                "providers.aws.region",
                "providers.aws.endpoint",
                "providers.aws.external_id",
                "providers.aws.token_lifetime",
                "providers.aws.calls.retries",
                "providers.bigquery.provider",
                "providers.snowflake.workload_identity_subject",
                "providers.api.reserved_audiences",
            ]
        );
    }

    #[test]
    fn an_unknown_option_is_refused_and_durations_are_written_for_people() {
        assert!(serde_json::from_str::<ProvidersConfig>(r#"{"aws": {"regoin": "eu-west-1"}}"#).is_err());
        let config: ProvidersConfig =
            serde_json::from_str(r#"{"aws": {"calls": {"timeout": "1m 30s"}}}"#).unwrap();
        assert_eq!(config.aws.calls.timeout, SignedDuration::from_secs(90));
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<ProvidersConfig>(&text).unwrap(), config);
    }
}
