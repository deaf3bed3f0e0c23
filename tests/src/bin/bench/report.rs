//! The results, as tables.

use std::fmt;

use crate::load::Measured;

/// Everything that was measured.
#[derive(Debug, Default)]
pub(crate) struct Report {
    loads: Vec<String>,
    paced: Vec<String>,
    figures: Vec<String>,
    goals: Vec<Goal>,
}

impl Report {
    /// A load's throughput and latency.
    pub(crate) fn measured(&mut self, what: &str, connections: usize, measured: &Measured) {
        let (rate, p50, p99) = (measured.rate(), measured.percentile(50), measured.percentile(99));
        self.loads.push(format!("| {what} | {connections} | {rate:.0} | {p50:.2} | {p99:.2} |"));
    }

    /// Latency at a fixed rate.
    pub(crate) fn paced(&mut self, what: &str, measured: &Measured) {
        let [p50, p99, p999] = [500, 990, 999].map(|per_mille| measured.per_mille(per_mille));
        let reached = measured.rate();
        self.paced.push(format!("| {what} | {reached:.0} | {p50:.2} | {p99:.2} | {p999:.2} |"));
    }

    /// A throughput without connections.
    pub(crate) fn rate(&mut self, what: &str, rate: f64) {
        self.loads.push(format!("| {what} | | {rate:.0} | | |"));
    }

    /// Memory, in MB.
    pub(crate) fn memory(&mut self, what: &str, mb: f64) {
        self.figure(&format!("resident, {what}, MB"), mb);
    }

    /// What the most crowded load cost, for each answer.
    pub(crate) fn cpu(&mut self, what: &str, [server, postgres, client]: [f64; 3]) {
        for (who, us) in [("server", server), ("Postgres", postgres), ("client", client)] {
            self.figure(&format!("processor time of {what}, {who}, µs"), us);
        }
    }

    /// One number.
    pub(crate) fn figure(&mut self, what: &str, number: f64) {
        self.figures.push(format!("| {what} | {number:.1} |"));
    }

    /// What has to be reached.
    pub(crate) fn goal(&mut self, goal: Goal) {
        self.goals.push(goal);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", machine())?;
        writeln!(f, "| load | connections | per second | p50 ms | p99 ms |\n|---|--:|--:|--:|--:|")?;
        for line in &self.loads {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "\n| at a fixed rate | reached | p50 ms | p99 ms | p99.9 ms |\n|---|--:|--:|--:|--:|")?;
        for line in &self.paced {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "\n| figure | |\n|---|--:|")?;
        for line in &self.figures {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "\n| goal | wanted | measured | |\n|---|--:|--:|---|")?;
        for Goal { what, wanted, measured, reached } in &self.goals {
            let verdict = if *reached { "reached" } else { "not reached" };
            writeln!(f, "| {what} | {wanted} | {measured:.2} | {verdict} |")?;
        }
        Ok(())
    }
}

/// A number to be reached.
#[derive(Debug)]
pub(crate) struct Goal {
    what: String,
    wanted: String,
    measured: f64,
    reached: bool,
}

impl Goal {
    /// The more, the better.
    pub(crate) fn at_least(what: &str, measured: f64, wanted: f64) -> Self {
        Self { what: what.to_owned(), wanted: format!(">= {wanted}"), measured, reached: measured >= wanted }
    }

    /// The less, the better.
    pub(crate) fn at_most(what: &str, measured: f64, wanted: f64) -> Self {
        Self { what: what.to_owned(), wanted: format!("<= {wanted}"), measured, reached: measured <= wanted }
    }

    /// The less, the better, and the bound itself is too much.
    pub(crate) fn below(what: &str, measured: f64, wanted: f64) -> Self {
        Self { what: what.to_owned(), wanted: format!("< {wanted}"), measured, reached: measured < wanted }
    }
}

/// What it was measured on.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown", |(_, model)| model);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default().to_owned();
    let build =
        if cfg!(debug_assertions) { "a debug build, whose numbers mean little" } else { "a release build" };
    format!(
        "{build} on {cores} cores ({model}), which the server, its Postgres and the client share; load average \
         at the end {load}."
    )
}
