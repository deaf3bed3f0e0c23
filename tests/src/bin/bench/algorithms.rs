//! What the signature costs: fresh mints with RS256 and with ES256, in turns.

use crate::ground::Ground;
use crate::load::Measured;
use crate::policies::{self, policy_name};
use crate::report::Report;
use crate::server::Server;
use crate::{Scale, asks, tell};

const CONNECTIONS: usize = 256;

pub(crate) async fn measure(ground: &Ground, server: &Server, scale: Scale, report: &mut Report) {
    let (mut rs256, mut es256) = (Measured::default(), Measured::default());
    let count = scale.mints[2].1;
    for round in 1..=scale.rounds {
        tell(&format!("algorithms: turn {round} of {}", scale.rounds));
        for (policy, measured) in [(policy_name(0), &mut rs256), (policies::ES256.to_owned(), &mut es256)] {
            let iss = ground.single_use_iss();
            let requests = asks::exchanges(&ground.sandbox, &iss, "api", count, |_| policy.clone());
            measured.add(server.load(CONNECTIONS, requests).await);
        }
    }
    report.measured("fresh mint, RS256", CONNECTIONS, &rs256);
    report.measured("fresh mint, ES256", CONNECTIONS, &es256);
    report.figure("fresh mints with ES256, of those with RS256", es256.rate() / rs256.rate());
}
