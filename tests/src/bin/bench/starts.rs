//! How long a server takes from its start until it is ready, with much in its database.

use std::time::Instant;

use cortex_server::Config;
use sqlx::{Connection as _, PgConnection};

use crate::ground::Ground;
use crate::report::{Goal, Report, thousands};
use crate::rows::live_leases;
use crate::{Scale, tell};

/// How often it is started.
const STARTS: usize = 3;

/// On the database `name`, which has `policies` policies and whose server of `config` is gone.
pub(crate) async fn measure(
    ground: &Ground,
    name: &str,
    config: &Config,
    policies: usize,
    scale: Scale,
    report: &mut Report,
) {
    let mut owner = PgConnection::connect(&ground.database_url(name)).await.expect("a connection");
    live_leases(&mut owner, scale.live_leases).await;
    sqlx::query("VACUUM (ANALYZE) record").execute(&mut owner).await.expect("to vacuum");
    let mut slowest: f64 = 0.0;
    for turn in 1..=STARTS {
        let started = Instant::now();
        let server = ground.replica(config, name).await;
        let took = started.elapsed().as_secs_f64();
        tell(&format!("starts: turn {turn}: {took:.2} s"));
        slowest = slowest.max(took);
        drop(server);
    }
    let (policies, leases) = (thousands(policies), thousands(scale.live_leases));
    let goal = format!("until ready with {policies} policies and {leases} live leases, seconds");
    report.goal(Goal::below(&goal, slowest, 1.0));
}
