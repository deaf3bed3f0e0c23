//! One to four replicas on one Postgres and the same cores: whether they stand in each other's way.

use crate::ground::{Ground, free_address, policy_name};
use crate::load::Measured;
use crate::report::Report;
use crate::server::Server;
use crate::{Scale, asks, tell};

/// The connections of all replicas together.
const CONNECTIONS: usize = 128;

pub(crate) async fn measure(ground: &Ground, scale: Scale, report: &mut Report) {
    let config = ground.prepare("replicas", 10, free_address()).await;
    let mut servers = Vec::new();
    for n in 1..=4 {
        servers.push(ground.replica(&config, &format!("replica-{n}")).await);
    }
    let mut measured: [Measured; 4] = Default::default();
    for round in 1..=scale.rounds {
        tell(&format!("replicas: turn {round} of {}", scale.rounds));
        for (count, measured) in (1..).zip(&mut measured) {
            measured.add(at_once(ground, &servers[..count], scale.mints[1].1).await);
        }
    }
    for (count, measured) in (1..).zip(&measured) {
        report.measured(&format!("fresh mint, {count} of 4 replicas asked"), CONNECTIONS, measured);
    }
    let [one, .., four] = &measured;
    report.figure("mints of four replicas, of those of one", four.rate() / one.rate());
}

/// `total` mints, as many of each server.
async fn at_once(ground: &Ground, servers: &[Server], total: usize) -> Measured {
    let (each, connections) = (total / servers.len(), CONNECTIONS / servers.len());
    let loads = servers.iter().map(|server| {
        let iss = ground.single_use_iss();
        let requests = asks::exchanges(&ground.sandbox, &iss, "api", each, |n| policy_name(n % 10));
        server.load(connections, requests)
    });
    Measured::together(futures_util::future::join_all(loads).await)
}
