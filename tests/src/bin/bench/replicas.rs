//! One to four replicas on one Postgres and the same cores: whether they stand in each other's way.

use cortex_server::Config;

use crate::chart::{Axis, Chart};
use crate::ground::{Ground, free_address};
use crate::load::Measured;
use crate::policies::policy_name;
use crate::report::Report;
use crate::server::Server;
use crate::{Scale, asks, tell};

/// How many replicas there are at the most.
const MOST: usize = 4;
/// The connections of all replicas together.
const CONNECTIONS: usize = 128;
/// How many policies they have.
const POLICIES: usize = 10;

pub(crate) async fn measure(ground: &Ground, scale: Scale, report: &mut Report) {
    let config = ground.prepare("replicas", POLICIES, free_address()).await;
    let mut measured: [Measured; MOST] = Default::default();
    for round in 1..=scale.rounds {
        tell(&format!("replicas: turn {round} of {}", scale.rounds));
        let mut servers = Vec::new();
        for measured in &mut measured {
            servers.push(one_more(ground, &config, servers.len() + 1).await);
            measured.add(at_once(ground, &servers, scale.mints[1].1).await);
        }
    }
    let name = |count: usize| format!("{count} replica{}", if count == 1 { "" } else { "s" });
    for (count, measured) in (1..).zip(&measured) {
        report.measured(&format!("fresh mint, {}", name(count)), CONNECTIONS, measured);
    }
    let [one, .., four] = &measured;
    report.figure("mints of four replicas on the same cores, of those of one", four.rate() / one.rate());
    report.chart(Chart {
        title: "Fresh mints a second, replicas on the same two cores and Postgres".to_owned(),
        x: Axis::Names((1..=MOST).map(name).collect()),
        y: "mints a second".to_owned(),
        bars: vec![measured.iter().map(Measured::rate).collect()],
        lines: Vec::new(),
    });
}

/// A replica that has its issuer's keys and its policies at hand.
async fn one_more(ground: &Ground, config: &Config, number: usize) -> Server {
    let server = ground.replica(config, &format!("replica-{number}")).await;
    let iss = ground.single_use_iss();
    server
        .load(4, asks::exchanges(&ground.sandbox, &iss, "api", POLICIES * 2, |n| policy_name(n % POLICIES)))
        .await;
    server
}

/// `total` mints, as many of each server.
async fn at_once(ground: &Ground, servers: &[Server], total: usize) -> Measured {
    let (each, connections) = (total / servers.len(), CONNECTIONS / servers.len());
    let iss = ground.single_use_iss();
    let requests: Vec<_> = servers
        .iter()
        .map(|_| asks::exchanges(&ground.sandbox, &iss, "api", each, |n| policy_name(n % POLICIES)))
        .collect();
    let loads = servers.iter().zip(requests).map(|(server, requests)| server.load(connections, requests));
    Measured::together(futures_util::future::join_all(loads).await)
}
