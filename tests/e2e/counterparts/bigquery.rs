//! google-auth and google-cloud-bigquery, with Cortex as the token endpoint of an `external_account`.

use std::io::Write as _;

use cortex_tests::counterparts::{Answer, python};
use cortex_tests::world::{AheadClock, TestWorld, first_run};
use tempfile::NamedTempFile;

const BOUND: &str = "SELECT COUNT(*) FROM `acme-finance.mart.daily`";
const NOT_BOUND: &str = "SELECT COUNT(*) FROM `acme-finance.payroll.salaries`";

async fn query(world: &TestWorld<AheadClock>, token: &str, more: &[&str]) -> Answer {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(token.as_bytes()).unwrap();
    let token_url = world.url("/v1/token");
    let args = [
        ["--token-url", &token_url],
        ["--audience", "urn:cortex:first-steps:bigquery"],
        ["--subject-token-file", file.path().to_str().unwrap()],
        ["--api-endpoint", world.world.sandbox.google_url()],
        ["--project", "acme-finance"],
        ["--query", BOUND],
        ["--refused-query", NOT_BOUND],
    ]
    .concat();
    python("bigquery_external_account.py", &[&args, more].concat(), &[], "").await
}

#[tokio::test]
async fn a_query_of_the_bound_dataset_is_answered_and_of_another_one_refused() {
    let world = TestWorld::start_live(|_| {}).await;
    for (run, how) in [("scheduled__1", &[][..]), ("scheduled__2", &["--job"][..])] {
        let token = world.token(&first_run(run));
        let said = query(&world, &token, how).await.succeeded();
        assert_eq!(said["rows"][0]["f0_"], 0, "{said}");
        let refused = said["refused"].as_str().unwrap();
        assert!(refused.contains("Access Denied") && refused.contains("payroll"), "{refused}");
    }
    assert_eq!(world.minted_leases().len(), 2);
}

#[tokio::test]
async fn what_cortex_refuses_reaches_the_librarys_user() {
    let world = TestWorld::start_live(|_| {}).await;
    let mut stranger = first_run("scheduled__1");
    stranger.dag_id = "payroll".to_owned();
    let said = query(&world, &world.token(&stranger), &[]).await.failed();
    assert_eq!(said["error"], "OAuthError", "{said}");
    assert!(said["message"].as_str().unwrap().contains("invalid_target"), "{said}");
    assert!(world.minted_leases().is_empty());
}
