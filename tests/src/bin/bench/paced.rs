//! Latency at a fixed rate, whether answers come or not: what callers see who do not wait for each other.

use std::sync::Arc;

use crate::chart::{Axis, Chart};
use crate::ground::Ground;
use crate::load::{Measured, Pace};
use crate::policies::policy_name;
use crate::report::{Goal, Report, thousands};
use crate::server::Server;
use crate::{Scale, asks, tell};

/// The connections: enough that a request hardly ever waits for one.
const CONNECTIONS: usize = 128;
/// How many turns each rate has.
const TURNS: usize = 3;

/// At the fixed rates of `scale`, and at half of `peak` mints each second.
pub(crate) async fn measure(ground: &Ground, server: &Server, peak: f64, scale: Scale, report: &mut Report) {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate is small and positive"
    )]
    let half = (peak / 2.0) as u32;
    // A short run knows its peak badly, and a rate that is too high ends it.
    let rates = [scale.rates[0], scale.rates[1], half.clamp(1, scale.rates[1] * 2)];
    let mut measured = rates.map(|_| Measured::default());
    for turn in 1..=TURNS {
        tell(&format!("at fixed rates: turn {turn} of {TURNS}"));
        for (per_second, measured) in rates.into_iter().zip(&mut measured) {
            let count = usize::try_from(per_second).expect("a rate") * scale.paced_s;
            let iss = ground.single_use_iss();
            let requests = asks::exchanges(&ground.sandbox, &iss, "api", count, |n| policy_name(n % 10));
            let pace = Pace::Open { per_second };
            measured.add(server.paced(CONNECTIONS, pace, &Arc::new(requests), count).await);
        }
    }
    for (per_second, measured) in rates.iter().zip(&measured) {
        report.paced(&format!("fresh mint, {per_second} each second"), measured);
    }
    let names = rates.map(|per_second| format!("{} a second", thousands(per_second)));
    let of = |per_mille| measured.iter().map(|measured| measured.per_mille(per_mille)).collect();
    report.chart(Chart {
        title: "Fresh mints at a fixed rate, the last at half the peak: p99 as bars, p50 as a line"
            .to_owned(),
        x: Axis::Names(names.into()),
        y: "ms".to_owned(),
        bars: vec![of(990)],
        lines: vec![of(500)],
    });
    let [.., half] = &measured;
    report.goal(Goal::below("p99 at half the peak rate, ms", half.percentile(99), 10.0));
}
