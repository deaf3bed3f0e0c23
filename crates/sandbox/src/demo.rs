//! The world of the example policies: one account of each cloud.

use std::sync::Arc;

use cortex_core::Clock;

use crate::{
    AwsConfig, Dataset, GoogleConfig, IssuerConfig, Ports, Role, SandboxConfig, ServiceAccount,
    SnowflakeConfig, SnowflakeUser, User, WorkloadPool,
};

/// The AWS account of the example policies.
const ACCOUNT: &str = "123456789012";

/// The audience of Cortex's tokens for AWS.
const AUDIENCE: &str = "sts.amazonaws.com";

impl SandboxConfig {
    /// The world that the example policies are written for.
    ///
    /// AWS account 123456789012: role `finance-publish`, bucket `finance-mart`; user `cortex-broker` with the
    /// key `AKIASANDBOXBROKER001` and the secret `sandbox/broker`, who may assume the role (external id
    /// `cortex-sandbox`) and write its inline policies. Google: pool `cortex` with provider `cortex` in project
    /// number 1234567890, project `acme-finance` with the dataset `mart`, bound to the grant
    /// `finance-publish`. Snowflake account `acme-prod`: user `FINANCE_SVC` with the role `FINANCE_PUBLISH`.
    pub fn demo(cortex_issuer: String, clock: Arc<dyn Clock>) -> Self {
        Self {
            cortex_issuer,
            clock,
            ports: Ports::default(),
            aws: aws(),
            google: google(),
            snowflake: snowflake(),
            issuer: IssuerConfig::default(),
        }
    }
}

fn aws() -> AwsConfig {
    let role = "arn:aws:iam::123456789012:role/finance-publish";
    AwsConfig::new(ACCOUNT)
        .role(
            Role::new("finance-publish")
                .trust_cortex(AUDIENCE, "run*:*")
                .trust_user("cortex-broker", "cortex-sandbox")
                .allow(
                    &["s3:*"],
                    &["arn:aws:s3:::finance-mart", "arn:aws:s3:::finance-mart/*"],
                ),
        )
        .user(
            User::new("cortex-broker", "AKIASANDBOXBROKER001", "sandbox/broker")
                .allow(
                    &["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"],
                    &[role],
                )
                .allow(&["iam:*RolePolicy", "iam:ListRolePolicies"], &[role]),
        )
        .bucket("finance-mart")
}

fn google() -> GoogleConfig {
    let pool = WorkloadPool::new(1_234_567_890, "cortex", "cortex");
    let finance = pool.grant("finance-publish");
    let email = "finance-publish@acme-finance.iam.gserviceaccount.com";
    let account = crate::Member::service_account(email);
    GoogleConfig::new(pool)
        .service_account(ServiceAccount::new(email).workload_identity_user(finance.clone()))
        .job_user("acme-finance", finance.clone())
        .job_user("acme-finance", account.clone())
        .dataset(
            Dataset::new("acme-finance", "mart")
                .writer(finance)
                .writer(account)
                .table("daily"),
        )
        .dataset(Dataset::new("acme-finance", "payroll").table("salaries"))
}

fn snowflake() -> SnowflakeConfig {
    SnowflakeConfig::new("acme-prod").user(
        SnowflakeUser::new("FINANCE_SVC")
            .role("FINANCE_PUBLISH")
            .workload_identity("cortex:FINANCE_SVC")
            .cortex_keys(),
    )
}
