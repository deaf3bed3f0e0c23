//! The world of the example policies: one account of each cloud.

use std::collections::BTreeMap;
use std::sync::Arc;

use cortex_core::Clock;
use serde_json::{Value, json};

use crate::{
    AwsConfig, Dataset, GoogleConfig, IssuerConfig, Member, Ports, Role, SandboxConfig, ServiceAccount,
    SnowflakeConfig, SnowflakeUser, User, WorkloadPool,
};

/// The AWS account of the example policies.
const ACCOUNT: &str = "123456789012";

/// The audience of Cortex's tokens for AWS.
const AUDIENCE: &str = "sts.amazonaws.com";

/// Cortex's tokens for AWS are about runs, in the long form or as a digest.
const SUBJECTS: &str = "run*:*";

/// The external id that the roles demand of the static user.
const EXTERNAL_ID: &str = "cortex-sandbox";

impl SandboxConfig {
    /// The world that the example policies are written for.
    ///
    /// AWS account 123456789012: the roles `finance-publish` (bucket `finance-mart`) and `customer-erasure`
    /// (bucket `customer-data`); the role `cortex-revoker`, as which Cortex writes their inline policies; the user `cortex-broker` with the key `AKIASANDBOXBROKER001` and the secret
    /// `sandbox/broker`, who may assume both (external id `cortex-sandbox`) and write their inline policies.
    ///
    /// Its KMS has the keys `11111111-1111-4111-8111-111111111111` and `22222222-2222-4222-8222-222222222222` in
    /// `eu-west-1`; the user `cortex-keeper` with the key `AKIASANDBOXKEEPER001` and the secret `sandbox/keeper` may use both.
    ///
    /// Google: the provider `cortex` of the pool `cortex` in the project with the number 1234567890. Project
    /// `acme-finance`: the dataset `mart` is bound to the grant `finance-publish`, `payroll` to nobody. Project
    /// `acme-marketing`: the dataset `attribution` is bound to the service account `attribution-loader`, which
    /// the grant `marketing-attribution` may act as. The subject `cortex-revoker` of the pool may write deny policies.
    /// The metadata server gives tokens of `cortex@acme-platform`, who may use the key `key-files` of the ring `cortex` in
    /// `europe-west1` of the project `acme-platform`.
    ///
    /// Snowflake account `acme-prod`: `FINANCE_SVC` with the role `FINANCE_PUBLISH`, `RISK_SVC` with the role
    /// `RISK_REFRESH`; both may log in with External OAuth, as a workload identity and with Cortex's keys.
    pub fn demo(cortex_issuer: String, clock: Arc<dyn Clock>) -> Self {
        let issuer = cortex_issuer.split_once("://").map_or(cortex_issuer.as_str(), |(_, rest)| rest);
        Self {
            aws: aws(issuer),
            cortex_issuer,
            clock,
            ports: Ports::default(),
            google: google(),
            snowflake: snowflake(),
            issuer: IssuerConfig::default(),
        }
    }
}

/// `issuer` is Cortex's URL without its scheme.
fn aws(issuer: &str) -> AwsConfig {
    let role = |name: &str, bucket: &str| {
        let (bucket, objects) = (format!("arn:aws:s3:::{bucket}"), format!("arn:aws:s3:::{bucket}/*"));
        Role::new(name)
            .trust_cortex(AUDIENCE, SUBJECTS)
            .trust_user("cortex-broker", EXTERNAL_ID)
            .allow(&["s3:*"], &[&bucket, &objects])
    };
    let roles = &["arn:aws:iam::123456789012:role/*"];
    let broker = User::new("cortex-broker", "AKIASANDBOXBROKER001", "sandbox/broker")
        .allow(&["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"], roles)
        .allow(&["iam:*RolePolicy", "iam:ListRolePolicies"], roles);
    let revoker = Role::new("cortex-revoker")
        .trust_policy(revoker_trust(issuer))
        .allow(&["iam:GetRolePolicy", "iam:PutRolePolicy", "iam:DeleteRolePolicy"], roles);
    let keeper = User::new("cortex-keeper", "AKIASANDBOXKEEPER001", "sandbox/keeper")
        .allow(&["kms:Encrypt", "kms:Decrypt"], &["arn:aws:kms:*:123456789012:key/*"]);
    AwsConfig::new(ACCOUNT)
        .user(keeper)
        .kms_key("eu-west-1", "11111111-1111-4111-8111-111111111111")
        .kms_key("eu-west-1", "22222222-2222-4222-8222-222222222222")
        .role(revoker)
        .role(role("finance-publish", "finance-mart"))
        .role(role("customer-erasure", "customer-data"))
        .user(broker)
        .bucket("finance-mart")
        .bucket("customer-data")
}

/// Trusts Cortex itself, not what it vouches for.
fn revoker_trust(issuer: &str) -> Value {
    let equals = [(format!("{issuer}:aud"), AUDIENCE), (format!("{issuer}:sub"), "cortex:revoker")];
    json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow",
        "Principal": {"Federated": format!("arn:aws:iam::{ACCOUNT}:oidc-provider/{issuer}")},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {
            "StringEquals": BTreeMap::from(equals),
            "Bool": {"sts:RoleAuthorizedByIdp": "true"},
        },
    }]})
}

fn google() -> GoogleConfig {
    let pool = WorkloadPool::new(1_234_567_890, "cortex", "cortex");
    let (finance, marketing) = (pool.grant("finance-publish"), pool.grant("marketing-attribution"));
    let publisher = "finance-publish@acme-finance.iam.gserviceaccount.com";
    let loader = "attribution-loader@acme-marketing.iam.gserviceaccount.com";
    let (as_publisher, as_loader) = (Member::service_account(publisher), Member::service_account(loader));
    let revoker = pool.subject("cortex-revoker");
    let keeper = "cortex@acme-platform.iam.gserviceaccount.com";
    let key = "projects/acme-platform/locations/europe-west1/keyRings/cortex/cryptoKeys/key-files";
    GoogleConfig::new(pool)
        .machine(keeper)
        .crypto_key(key, &[Member::service_account(keeper)])
        .deny_admin(revoker)
        .service_account(ServiceAccount::new(publisher).workload_identity_user(finance.clone()))
        .service_account(ServiceAccount::new(loader).workload_identity_user(marketing))
        .job_user("acme-finance", finance.clone())
        .job_user("acme-finance", as_publisher.clone())
        .job_user("acme-marketing", as_loader.clone())
        .dataset(Dataset::new("acme-finance", "mart").writer(finance).writer(as_publisher).table("daily"))
        .dataset(Dataset::new("acme-finance", "payroll").table("salaries"))
        .dataset(Dataset::new("acme-marketing", "attribution").writer(as_loader).table("touch_points"))
}

fn snowflake() -> SnowflakeConfig {
    let user = |name: &str, role: &str| {
        SnowflakeUser::new(name).role(role).workload_identity(&format!("cortex:{name}")).cortex_keys()
    };
    SnowflakeConfig::new("acme-prod")
        .user(user("FINANCE_SVC", "FINANCE_PUBLISH"))
        .user(user("RISK_SVC", "RISK_REFRESH"))
}
