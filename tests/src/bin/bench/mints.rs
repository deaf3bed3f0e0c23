//! Fresh mints and repeated asks beside their floors, and what Cortex adds to a cloud's own time.

use std::sync::Arc;
use std::time::Duration;

use cortex_core::jwt::{SigningAlgorithm, SigningKey};
use cortex_sandbox::{Cloud, Fault, FaultMode};

use crate::chart::{Axis, Chart};
use crate::ground::Ground;
use crate::load::{Measured, per_mille_of};
use crate::policies::{self, policy_name};
use crate::report::{Goal, Report};
use crate::server::Server;
use crate::{Scale, algorithms, asks, floors, paced, tell};

/// How many policies the server has.
const POLICIES: usize = 10;
/// How long the cloud takes for an answer, in milliseconds.
const CLOUD_MS: u32 = 50;
/// How many runs ask again and again.
const HOLDERS: usize = 256;

pub(crate) async fn measure(ground: &Ground, scale: Scale, report: &mut Report) {
    let server = ground.serve_trusted("mints", POLICIES, |_| {}).await;
    let (idle, _) = server.resident_mb();
    let peak = in_turns(ground, &server, scale, report).await;
    paced::measure(ground, &server, peak, scale, report).await;
    algorithms::measure(ground, &server, scale, report).await;
    cloud(ground, &server, scale, report).await;
    let (after, peak) = server.resident_mb();
    report.memory("server at rest, before the first ask", idle);
    report.memory("server after these mints", after);
    report.memory("server at its highest", peak);
    report.goal(Goal::below("resident memory, at its highest, MB", peak, 150.0));
}

/// Floors and measurements in turns, so that a slow minute is everybody's. Answers the rate of the most crowded load.
async fn in_turns(ground: &Ground, server: &Server, scale: Scale, report: &mut Report) -> f64 {
    let key = SigningKey::generate(SigningAlgorithm::RS256).expect("a key");
    let fresh = |count| {
        let iss = ground.single_use_iss();
        asks::exchanges(&ground.sandbox, &iss, "api", count, |n| policy_name(n % POLICIES))
    };
    let holders = asks::exchanges(&ground.sandbox, &ground.multi_use_iss(), "api", HOLDERS, |_| {
        policies::FOR_AGAIN.to_owned()
    });
    let holders = Arc::new(holders);
    server.load(4, fresh(50)).await;
    server.load_around(4, &holders, HOLDERS).await;
    let healthz = Arc::new(asks::healthz());
    let mut signing = Vec::new();
    let mut http = scale.mints.map(|_| Measured::default());
    let mut mints = scale.mints.map(|_| Measured::default());
    let mut again = scale.again.map(|_| Measured::default());
    for round in 1..=scale.rounds {
        tell(&format!("mints: turn {round} of {}", scale.rounds));
        let requests = scale.mints.map(|(_, count)| fresh(count));
        signing.push(floors::signing_rate(&key, Duration::from_millis(scale.signing_ms)));
        for (((connections, count), requests), (mints, http)) in
            scale.mints.into_iter().zip(requests).zip(mints.iter_mut().zip(&mut http))
        {
            mints.add(server.load(connections, requests).await);
            http.add(server.load_around(connections, &healthz, count * 4).await);
        }
        signing.push(floors::signing_rate(&key, Duration::from_millis(scale.signing_ms)));
        for ((connections, count), again) in scale.again.into_iter().zip(&mut again) {
            again.add(server.load_around(connections, &holders, count).await);
        }
    }
    let turns = f64::from(u32::try_from(signing.len()).expect("a count"));
    let results = Results { floor: signing.iter().sum::<f64>() / turns, http, mints, again };
    results.tell(scale, report);
    results.mints.last().map_or(0.0, Measured::rate)
}

/// What was measured in turns.
struct Results {
    /// Signatures each second.
    floor: f64,
    http: [Measured; 3],
    mints: [Measured; 3],
    again: [Measured; 2],
}

impl Results {
    fn tell(&self, scale: Scale, report: &mut Report) {
        report.rate("floor: bare RS256 signing, all cores", self.floor);
        for ((connections, _), measured) in scale.mints.iter().zip(&self.http) {
            report.measured("floor: bare HTTP, /healthz", *connections, measured);
        }
        for ((connections, _), measured) in scale.mints.iter().zip(&self.mints) {
            report.measured("fresh mint, record committed", *connections, measured);
        }
        for ((connections, _), measured) in scale.again.iter().zip(&self.again) {
            report.measured("repeated ask for a live lease", *connections, measured);
        }
        report.chart(Chart {
            title: "Fresh mints by connections as bars, the signing floor as a line".to_owned(),
            x: Axis::Names(scale.mints.iter().map(|(connections, _)| connections.to_string()).collect()),
            y: "a second".to_owned(),
            bars: vec![self.mints.iter().map(Measured::rate).collect()],
            lines: vec![vec![self.floor; self.mints.len()]],
        });
        let ([.., http], [.., mints], [.., again]) = (&self.http, &self.mints, &self.again);
        for (what, most) in [("/healthz", http), ("a fresh mint", mints), ("a repeated ask", again)] {
            report.cpu(what, most.cpu_us());
        }
        let share = mints.rate() / self.floor;
        report.goal(Goal::at_least("fresh mints over 256 connections, of the signing floor", share, 0.8));
        let share = again.rate() / http.rate();
        report.goal(Goal::at_least("repeated asks over 256 connections, of bare HTTP", share, 0.4));
    }
}

/// What Cortex adds to a cloud that takes its time.
async fn cloud(ground: &Ground, server: &Server, scale: Scale, report: &mut Report) {
    let fresh = |count| {
        asks::exchanges(&ground.sandbox, &ground.single_use_iss(), "aws", count, |_| {
            policies::CLOUD.to_owned()
        })
    };
    server.load(4, fresh(8)).await;
    let requests = fresh(scale.cloud_asks);
    let before = ground.sandbox.mints().len();
    let operation = Some("AssumeRoleWithWebIdentity".to_owned());
    let mode = FaultMode::Delay(CLOUD_MS.into());
    ground.sandbox.fault(Cloud::Aws, Fault { operation, mode, remaining: None });
    let measured = server.load(4, requests).await;
    ground.sandbox.clear_faults();
    let mints = ground.sandbox.mints();
    let took: Vec<_> = mints.iter().skip(before).map(|mint| Duration::from_micros(mint.took_us)).collect();
    let took = per_mille_of(&took, 500).as_secs_f64() * 1_000.0;
    report.measured("fresh mint at a cloud that takes 50 ms", 4, &measured);
    report.figure("the cloud's own time, p50, ms", took);
    report.goal(Goal::below("added to the cloud's own time, p50, ms", measured.percentile(50) - took, 2.0));
}
