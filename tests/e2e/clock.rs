//! A replica whose clock is wrong says so before anybody relies on it.

use cortex_tests::world::{TestWorld, answer};
use jiff::SignedDuration;
use reqwest::StatusCode;

#[tokio::test]
async fn a_replica_whose_clock_is_off_is_not_ready() {
    let world = TestWorld::start_live(|config| config.database.max_clock_skew_s = 5).await;
    let ready = async || answer(world.http.get(world.url("/readyz"))).await;
    assert_eq!(ready().await.status, StatusCode::OK);
    for hours in [1, -2] {
        world.clock.advance(SignedDuration::from_hours(hours));
        let said = ready().await;
        assert_eq!(said.status, StatusCode::SERVICE_UNAVAILABLE);
        let problems = said.body["problems"].to_string();
        assert!(problems.contains("this replica's clock is 3"), "{problems}");
    }
    world.clock.advance(SignedDuration::from_hours(1));
    assert_eq!(ready().await.status, StatusCode::OK, "its clock was set right");
}
