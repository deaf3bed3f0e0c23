//! schemathesis, which asks the API everything that its own description allows, and more.

use cortex_tests::counterparts::python;
use cortex_tests::world::TestWorld;

#[tokio::test]
async fn the_api_is_what_its_description_says_and_never_fails() {
    let world = TestWorld::start_live(|_| {}).await;
    let admin = world.person("bob", &["cortex-admins", "finance-admins", "auditors"]);
    let said = python("api_fuzz.py", &[&world.url("/openapi.json")], &[], &admin).await.succeeded();
    assert!(said["test_cases"]["generated"].as_u64().is_some_and(|cases| cases > 500), "{said}");
}
