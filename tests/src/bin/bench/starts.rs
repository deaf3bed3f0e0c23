//! How long a server takes from its start until it is ready, with much in its database.

use std::time::Instant;

use sqlx::{Connection as _, PgConnection};

use crate::ground::{Ground, free_address};
use crate::report::{Goal, Report};
use crate::rows::live_leases;
use crate::{Scale, tell};

pub(crate) async fn measure(ground: &Ground, scale: Scale, report: &mut Report) {
    let config = ground.prepare("starts", scale.start_policies, free_address()).await;
    // The first start makes the keys and opens the log.
    drop(ground.replica(&config, "first-start").await);
    let mut owner = PgConnection::connect(&ground.database_url("starts")).await.expect("a connection");
    live_leases(&mut owner, scale.start_leases).await;
    let mut slowest: f64 = 0.0;
    for turn in 1..=scale.rounds.min(3) {
        tell(&format!("starts: turn {turn}"));
        let started = Instant::now();
        let server = ground.replica(&config, "start").await;
        server.is_ready().await;
        slowest = slowest.max(started.elapsed().as_secs_f64());
        drop(server);
    }
    let (policies, leases) = (scale.start_policies, scale.start_leases);
    report.goal(Goal::below(
        &format!("until ready with {policies} policies and {leases} live leases, seconds"),
        slowest,
        1.0,
    ));
}
