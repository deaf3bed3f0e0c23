//! schemathesis, which asks the API everything that its own description allows, and more.

use cortex_tests::counterparts::python;
use cortex_tests::world::TestWorld;

#[tokio::test]
async fn the_api_is_what_its_description_says_and_never_fails() {
    let world = TestWorld::start_live(|_| {}).await;
    let everybody = world.person("bob", &["cortex-admins", "finance-admins", "auditors"]);
    let url = world.url("/openapi.json");
    // A run's request that cannot be granted answers 400 (RFC 6749, section 5.2), and a document that does not
    // compile 422: no schema says which requests and documents those are.
    let args = [&*url, "--exclude-check", "positive_data_acceptance"];
    let said = python("api_fuzz.py", &args, &[], &everybody).await.succeeded();
    assert!(said["test_cases"]["generated"].as_u64().is_some_and(|cases| cases > 500), "{said}");
}
