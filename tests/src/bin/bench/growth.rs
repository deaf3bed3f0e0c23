//! Few and many: whether latency depends on the number of policies or on the length of the record. Each size has its
//! turns beside the smallest one, so that a slow minute is everybody's.

use std::time::Instant;

use cortex_server::Config;

use crate::chart::{Axis, Chart};
use crate::ground::{Ground, free_address};
use crate::load::Measured;
use crate::policies::policy_name;
use crate::report::{Goal, Report, thousands};
use crate::rows;
use crate::server::Server;
use crate::{Scale, asks, starts, tell};

/// How many policies are few.
const FEW: usize = 10;
/// How many different policies are asked of many.
const ASKED: usize = 10_000;
/// The connections: latency is what counts here.
const CONNECTIONS: usize = 4;
/// How much more latency than the smallest size's is flat.
const FLAT: f64 = 1.1;

/// One side of a comparison.
struct Side {
    server: Server,
    policies: usize,
    /// The next policy's number.
    next: usize,
}

impl Side {
    /// Its record is as long as the shortest one that is measured.
    async fn start(ground: &Ground, name: &str, policies: usize, rows: i64) -> (Self, Config) {
        let config = ground.prepare(name, policies, free_address()).await;
        let server = ground.replica(&config, name).await;
        let mut side = Self { server, policies, next: 0 };
        side.turn(ground, FEW * 5).await;
        rows::settled(&ground.database_url(name)).await;
        rows::lengthen(&ground.database_url(name), 0, rows).await;
        (side, config)
    }

    /// Asks of one policy after the other.
    async fn turn(&mut self, ground: &Ground, count: usize) -> Measured {
        let first = self.next;
        self.next += count;
        // A stride that shares no factor with the number of policies: neighbours in time are no neighbours by name.
        let policy = |n: usize| policy_name((first + n) % ASKED * 7_919 % self.policies);
        let requests = asks::exchanges(&ground.sandbox, &ground.single_use_iss(), "api", count, policy);
        self.server.load(CONNECTIONS, requests).await
    }
}

/// Latency at one size, and that of the smallest in the same turns.
struct Compared {
    size: u64,
    smallest: Measured,
    this: Measured,
}

impl Compared {
    async fn run(ground: &Ground, scale: Scale, smallest: &mut Side, this: &mut Side, size: u64) -> Self {
        let mut compared = Self { size, smallest: Measured::default(), this: Measured::default() };
        for _ in 0..scale.rounds * 2 {
            compared.smallest.add(smallest.turn(ground, scale.growth_asks).await);
            compared.this.add(this.turn(ground, scale.growth_asks).await);
        }
        compared
    }

    /// This size's latency, of the smallest one's.
    fn ratio(&self, percent: usize) -> f64 {
        self.this.percentile(percent) / self.smallest.percentile(percent)
    }
}

/// From the shortest record to the longest.
pub(crate) async fn by_rows(ground: &Ground, scale: Scale, report: &mut Report) {
    let (shortest, longer) = scale.rows.split_first().expect("a length");
    let (mut few, _) = Side::start(ground, "short_record", FEW, *shortest).await;
    let (mut many, _) = Side::start(ground, "long_record", FEW, *shortest).await;
    let mut before = *shortest;
    let mut compared = Vec::new();
    for rows in longer {
        let begun = Instant::now();
        rows::lengthen(&ground.database_url("long_record"), before, *rows).await;
        tell(&format!("{} rows on record after {:.0} s", thousands(rows), begun.elapsed().as_secs_f64()));
        before = *rows;
        compared.push(Compared::run(ground, scale, &mut few, &mut many, rows.unsigned_abs()).await);
    }
    show(report, "rows on record", shortest.unsigned_abs(), &compared);
}

/// From few policies to many, and how long a server takes to start with the most.
pub(crate) async fn by_policies(ground: &Ground, scale: Scale, report: &mut Report) {
    let shortest = scale.rows.first().copied().expect("a length");
    let (mut few, _) = Side::start(ground, "few_policies", FEW, shortest).await;
    let mut compared = Vec::new();
    let mut most = None;
    for count in scale.policies.iter().copied() {
        let name = format!("policies_{count}");
        let (mut many, config) = Side::start(ground, &name, count, shortest).await;
        let (before, _) = many.server.resident_mb();
        let first = many.turn(ground, ASKED.min(count)).await;
        tell(&format!("growth: {count} policies"));
        let size = u64::try_from(count).expect("a count");
        compared.push(Compared::run(ground, scale, &mut few, &mut many, size).await);
        let what = format!("first asks, which compile their policies, of {} policies", thousands(count));
        report.measured(&what, CONNECTIONS, &first);
        memory(report, &many.server, count, before);
        most = Some((name, config, count));
    }
    show(report, "policies", u64::try_from(FEW).expect("a count"), &compared);
    if let Some((name, config, count)) = most {
        starts::measure(ground, &name, &config, count, scale, report).await;
    }
}

fn memory(report: &mut Report, server: &Server, policies: usize, before: f64) {
    let (after, peak) = server.resident_mb();
    let (policies, asked) = (thousands(policies), thousands(policies.min(ASKED)));
    report.memory(&format!("server with {policies} policies, after a few asks"), before);
    report.memory(&format!("the same after an ask of {asked}"), after);
    if policies == asked {
        let goal = format!("resident memory with {policies} policies, at its highest, MB");
        report.goal(Goal::below(&goal, peak, 150.0));
    } else {
        report.memory("the same at its highest", peak);
    }
}

/// The sizes as loads, as a chart and as verdicts.
fn show(report: &mut Report, what: &str, smallest: u64, compared: &[Compared]) {
    let Some(first) = compared.first() else { return };
    report.measured(&format!("fresh mint, {} {what}", thousands(smallest)), CONNECTIONS, &first.smallest);
    for one in compared {
        report.measured(&format!("fresh mint, {} {what}", thousands(one.size)), CONNECTIONS, &one.this);
    }
    let largest = thousands(compared.iter().map(|one| one.size).max().unwrap_or_default());
    for percent in [50, 99] {
        let worst = compared.iter().map(|one| one.ratio(percent)).fold(0.0, f64::max);
        let smallest = thousands(smallest);
        let goal = format!("p{percent} with up to {largest} {what}, the worst, of that with {smallest}");
        report.goal(Goal::at_most(&goal, worst, FLAT));
    }
    let sizes = std::iter::once(smallest).chain(compared.iter().map(|one| one.size));
    let all = || std::iter::once(&first.smallest).chain(compared.iter().map(|one| &one.this));
    report.chart(Chart {
        title: format!("A fresh mint by {what}: p99 as bars, p50 as a line"),
        x: Axis::Names(sizes.map(thousands).collect()),
        y: "ms".to_owned(),
        bars: vec![all().map(|measured| measured.percentile(99)).collect()],
        lines: vec![all().map(|measured| measured.percentile(50)).collect()],
    });
}
