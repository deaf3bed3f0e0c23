//! How credentials are ended before they expire.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Faults;

/// How AWS sessions are ended before they expire: by an inline policy on their role.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AwsRevocationConfig {
    /// Who Cortex is to IAM: `off`, `web-identity` or `ambient`. Default: `off`, and only their expiry ends sessions.
    pub method: AwsRevocationMethod,
    /// For `web-identity`: the role that Cortex assumes in the account of the role that it changes, by its name. It
    /// trusts the `sub` `cortex:revoker`, and may get, put and delete inline policies of roles.
    /// Default: `cortex-revoker`.
    pub role: String,
    /// The name of the inline policy, of which Cortex is the only writer. Default: `cortex-revocations`.
    pub policy_name: String,
    /// The IAM endpoint. Default: that of the role's partition.
    pub endpoint: Option<String>,
}

impl Default for AwsRevocationConfig {
    fn default() -> Self {
        Self {
            method: AwsRevocationMethod::Off,
            role: "cortex-revoker".into(),
            policy_name: "cortex-revocations".into(),
            endpoint: None,
        }
    }
}

/// Who Cortex is to IAM.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AwsRevocationMethod {
    /// Nobody: sessions are not ended before they expire.
    #[default]
    Off,
    /// A role in each account, which Cortex assumes with a token that it signs.
    WebIdentity,
    /// Whoever the credentials are that Cortex itself runs with.
    Ambient,
}

impl AwsRevocationConfig {
    pub(super) fn validate(&self, faults: &mut Faults) {
        let named = |name: &str, most: usize| {
            (1..=most).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-/".contains(&b))
        };
        faults.unless(named(&self.role, 512), "aws.revocation.role", "is not a role's name");
        let policy = named(&self.policy_name, 128) && !self.policy_name.contains('/');
        faults.unless(policy, "aws.revocation.policy_name", "is not a policy's name");
        faults.endpoint("aws.revocation.endpoint", self.endpoint.as_ref());
    }
}

/// How federated tokens are ended before they expire: by an IAM deny policy on the project.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BigQueryRevocationConfig {
    /// Whether Cortex writes deny policies. It does so as the subject `cortex-revoker` of the pool of
    /// `providers.bigquery.provider`, which needs `roles/iam.denyAdmin`. Default: false, and only their expiry ends
    /// tokens.
    pub enabled: bool,
    /// What a revoked subject is denied, as IAM v2 writes permissions. Default: running jobs, and reading and writing
    /// tables' data.
    pub denied_permissions: Vec<String>,
    /// The IAM API. Default: `https://iam.<universe_domain>`.
    pub endpoint: Option<String>,
}

impl Default for BigQueryRevocationConfig {
    fn default() -> Self {
        let permission = |name: &str| format!("bigquery.googleapis.com/{name}");
        let denied_permissions =
            ["jobs.create", "tables.getData", "tables.updateData"].map(permission).into();
        Self { enabled: false, denied_permissions, endpoint: None }
    }
}

impl BigQueryRevocationConfig {
    pub(super) fn validate(&self, has_provider: bool, faults: &mut Faults) {
        let option = "bigquery.revocation.enabled";
        faults.unless(
            has_provider || !self.enabled,
            option,
            "needs providers.bigquery.provider: configure it",
        );
        let permission = |name: &String| {
            name.split_once(".googleapis.com/").is_some_and(|(_, rest)| rest.contains('.'))
                && name.len() <= 200
        };
        let some = (1..=50).contains(&self.denied_permissions.len());
        faults.unless(
            some && self.denied_permissions.iter().all(permission),
            "bigquery.revocation.denied_permissions",
            "is not 1 to 50 permissions such as bigquery.googleapis.com/jobs.create",
        );
        faults.endpoint("bigquery.revocation.endpoint", self.endpoint.as_ref());
    }
}
