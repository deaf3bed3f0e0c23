//! Half the peak rate for a long time: whether memory, descriptors or connections grow.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::PgPool;

use crate::chart::{Axis, Chart};
use crate::ground::Ground;
use crate::load::{Measured, Pace};
use crate::policies::SOAK;
use crate::report::{Goal, Report};
use crate::server::Server;
use crate::{Scale, asks, tell};

/// The connections of the load, anew for each stretch.
const CONNECTIONS: usize = 128;
/// How long a stretch is, in seconds; after each is looked.
const STRETCH_S: usize = 10;
/// How many mints show the peak.
const AT_PEAK: usize = 5_120;

/// What the server holds between two stretches, when no client is connected.
struct Held {
    resident_mb: f64,
    descriptors: usize,
    connections: i64,
}

pub(crate) async fn measure(ground: &Ground, scale: Scale, report: &mut Report) {
    let server = ground.serve("soak", 10).await;
    let database = PgPool::connect(&ground.database_url("soak")).await.expect("its database");
    let count = if scale.rounds == 1 { AT_PEAK / 10 } else { AT_PEAK };
    server.load(256, asks::brief(&ground.sandbox, SOAK, count)).await;
    let peak = server.load(256, asks::brief(&ground.sandbox, SOAK, count)).await;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate is small and positive"
    )]
    let half = (peak.rate() / 2.0) as u32;
    let until = Instant::now() + Duration::from_mins(scale.soak_minutes.into());
    tell(&format!("soak: {half} mints a second for {} minutes", scale.soak_minutes));
    let mut measured = Measured::default();
    let mut held = vec![look(&server, &database).await];
    let mut requests = stretch(ground, half).await;
    while held.len() < 4 || Instant::now() < until {
        // The next stretch's tokens are signed meanwhile, so that the load has no gaps.
        let count = requests.len();
        let all = Arc::new(requests);
        let loaded = server.paced(CONNECTIONS, Pace::Open { per_second: half }, &all, count);
        let (loaded, next) = tokio::join!(loaded, stretch(ground, half));
        measured.add(loaded);
        requests = next;
        let now = look(&server, &database).await;
        if held.len().is_multiple_of(6) {
            tell(&format!(
                "soak: {:.0} MB, {} descriptors, {} connections",
                now.resident_mb, now.descriptors, now.connections
            ));
        }
        held.push(now);
    }
    report.paced(&format!("soak, fresh mint, {half} each second"), &measured);
    judge(&held, report);
}

async fn stretch(ground: &Ground, per_second: u32) -> Vec<Vec<u8>> {
    let (sandbox, count) = (Arc::clone(&ground.sandbox), per_second as usize * STRETCH_S);
    tokio::task::spawn_blocking(move || asks::brief(&sandbox, SOAK, count)).await.expect("requests")
}

async fn look(server: &Server, database: &PgPool) -> Held {
    let connections = sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
    );
    let connections = connections.fetch_one(database).await.expect("a count");
    Held { resident_mb: server.resident_mb().0, descriptors: server.descriptors(), connections }
}

/// Compares the last third with the one before: in the first what lives for minutes has not yet ended.
fn judge(held: &[Held], report: &mut Report) {
    let third = held.len() / 3;
    let (earlier, last) = (&held[third..held.len() - third], &held[held.len() - third..]);
    let grown = |of: fn(&Held) -> f64| {
        let most = |some: &[Held]| some.iter().map(of).fold(0.0, f64::max);
        most(last) / most(earlier)
    };
    for (what, of) in [
        ("memory", (|held| held.resident_mb) as fn(&Held) -> f64),
        ("descriptors", |held| f64::from(u32::try_from(held.descriptors).expect("a count"))),
        ("connections to Postgres", |held| f64::from(u32::try_from(held.connections).expect("a count"))),
    ] {
        report.goal(Goal::at_most(&format!("soak: {what}, last third of the third before"), grown(of), 1.1));
    }
    let end = u32::try_from(held.len() * STRETCH_S / 60).expect("minutes");
    report.chart(Chart {
        title: "Resident memory in a soak at half the peak rate".to_owned(),
        x: Axis::Range { what: "minutes".to_owned(), end: end.max(1) },
        y: "MB".to_owned(),
        bars: Vec::new(),
        lines: vec![held.iter().step_by((held.len() / 60).max(1)).map(|held| held.resident_mb).collect()],
    });
}
