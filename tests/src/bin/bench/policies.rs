//! The policies of the servers under test: many of one kind, and one for each thing that is measured.

use std::sync::Arc;

use cortex_cli::world::RUNS;
use cortex_core::clock::SystemClock;
use cortex_core::policy::Policy;
use cortex_providers::BuiltIns;
use cortex_server::random::SystemRandom;
use cortex_server::store::{self, documents};
use cortex_server::{Config, Environment};

use crate::asks::on_all_cores;
use crate::tell;

/// The policy whose target is a cloud.
pub(crate) const CLOUD: &str = "bench-cloud";
/// The policy for runs whose tokens are good for more than one exchange.
pub(crate) const FOR_AGAIN: &str = "bench-again";
/// The policy whose token is signed with ES256.
pub(crate) const ES256: &str = "bench-es256";
/// The policy whose credentials soon end.
pub(crate) const SOAK: &str = "bench-soak";
/// The two policies that each run asks at midnight; each has a target of every kind.
pub(crate) const MIDNIGHT: [&str; 2] = ["bench-midnight-finance", "bench-midnight-risk"];
/// The name of the issuer of tokens that are good for more than one exchange.
pub(crate) const AGAIN: &str = "again";

const GUARDRAILS: [(&str, &str); 2] = [
    ("lifetime", include_str!("../../../../config/guardrails/lifetime.cedar")),
    ("production", include_str!("../../../../config/guardrails/production.cedar")),
];

/// The target that Cortex signs for itself.
const API: &str = "  api:\n    audience: https://ledger.acme.example\n    scopes: [postings:read]";
/// How many policies are applied at once.
const PAGE: usize = 1_000;

/// The name of the nth policy.
pub(crate) fn policy_name(n: usize) -> String {
    format!("bench-{n}")
}

/// Applies the policies that have a name of their own, and `count` others.
pub(crate) async fn apply(config: &Config, count: usize) {
    store::migrate(&config.database).await.expect("the schema");
    let pool = store::connect(&config.database).await.expect("a pool");
    let environment = Environment { clock: Arc::new(SystemClock), random: Arc::new(SystemRandom) };
    let stamp =
        cortex_server::stamp(config, &pool, "bench".to_owned(), &environment).await.expect("the log's key");
    let mut connection = pool.acquire().await.expect("a connection");
    let mut some = named();
    let mut applied = 0;
    loop {
        documents::apply(&mut connection, &some, "operator:bench", &stamp).await.expect("to apply");
        if applied == count {
            break;
        }
        let page = PAGE.min(count - applied);
        some = on_all_cores(page, |n| document(api_policy(&policy_name(applied + n), RUNS)));
        applied += page;
        if applied.is_multiple_of(PAGE * 10) {
            tell(&format!("{applied} of {count} policies"));
        }
    }
}

fn named() -> Vec<documents::Document> {
    let guardrails = GUARDRAILS.map(|(name, text)| documents::Document {
        kind: documents::Kind::Guardrail,
        name: name.to_owned(),
        digest: cortex_core::Digest::of(text.as_bytes()),
        source: text.to_owned(),
    });
    let [finance, risk] = midnight_policies();
    let policies =
        [api_policy(FOR_AGAIN, AGAIN), es256_policy(), soak_policy(), cloud_policy(), finance, risk];
    policies.map(document).into_iter().chain(guardrails).collect()
}

fn document(text: String) -> documents::Document {
    let policy = Policy::compile(&text, &BuiltIns).expect("a policy");
    documents::Document {
        kind: documents::Kind::Policy,
        name: policy.name().to_string(),
        digest: policy.digest(),
        source: text,
    }
}

fn policy(name: &str, issuer: &str, what: &str) -> String {
    format!(
        "name: {name}
description: Publishes a mart, for the benchmark
who:
  airflow: {issuer}
  dags: [bench_dag, \"bench_mart_*\"]
  tasks: [\"publish_*\"]
  run_types: [scheduled, backfill]
what:
{what}
where:
  networks: [10.0.0.0/8, 127.0.0.0/8]
when:
  max_ttl: 30m
approval:
  required_for: {{run_types: [manual]}}
  approvers: {{groups: [finance-admins]}}
  quorum: 1
  valid_for: run
"
    )
}

fn api_policy(name: &str, issuer: &str) -> String {
    policy(name, issuer, API)
}

fn es256_policy() -> String {
    policy(ES256, RUNS, &format!("{API}\n    alg: ES256"))
}

fn soak_policy() -> String {
    api_policy(SOAK, RUNS).replace("max_ttl: 30m", "max_ttl: 2m")
}

fn cloud_policy() -> String {
    policy(CLOUD, RUNS, &aws_target("finance-publish", "finance-mart"))
}

fn aws_target(role: &str, bucket: &str) -> String {
    format!(
        "  aws:
    role: arn:aws:iam::123456789012:role/{role}
    allow:
      - actions: [s3:PutObject]
        resources: [\"arn:aws:s3:::{bucket}/{{dag_id}}/{{run_id}}/*\"]"
    )
}

fn midnight_policies() -> [String; 2] {
    let [finance, risk] = MIDNIGHT;
    let aws = aws_target("finance-publish", "finance-mart");
    let clouds = "  bigquery: {project: acme-finance, grant: finance-publish}
  snowflake: {account: acme-prod, user: FINANCE_SVC, role: FINANCE_PUBLISH}";
    let finance = policy(finance, RUNS, &format!("{aws}\n{clouds}\n{API}"));
    let aws = aws_target("customer-erasure", "customer-data");
    let clouds = "  bigquery: {project: acme-marketing, grant: marketing-attribution}
  snowflake: {account: acme-prod, user: RISK_SVC, role: RISK_REFRESH}";
    [finance, policy(risk, RUNS, &format!("{aws}\n{clouds}\n{API}"))]
}
