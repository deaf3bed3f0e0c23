//! The results, as tables and charts.

use std::fmt;
use std::path::Path;

use crate::chart::Chart;
use crate::load::Measured;

/// Between which lines of a page the results are.
const MARKS: [&str; 2] = ["<!-- bench: results -->", "<!-- bench: end -->"];

/// Everything that was measured.
#[derive(Debug, Default)]
pub(crate) struct Report {
    loads: Vec<String>,
    paced: Vec<String>,
    figures: Vec<String>,
    goals: Vec<Goal>,
    charts: Vec<Chart>,
}

impl Report {
    /// Puts the results where those of an earlier run are in `page`.
    pub(crate) fn write_into(&self, page: &Path) -> Result<(), String> {
        let text = std::fs::read_to_string(page).map_err(|error| error.to_string())?;
        let [begin, end] = MARKS;
        let (before, rest) = text.split_once(begin).ok_or_else(|| format!("it has no line {begin}"))?;
        let (_, after) = rest.split_once(end).ok_or_else(|| format!("it has no line {end}"))?;
        let text = format!("{before}{begin}\n{self}\n{end}{after}");
        std::fs::write(page, text).map_err(|error| error.to_string())
    }

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

    /// A picture of some of the numbers.
    pub(crate) fn chart(&mut self, chart: Chart) {
        self.charts.push(chart);
    }

    /// What has to be reached.
    pub(crate) fn goal(&mut self, goal: Goal) {
        self.goals.push(goal);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", machine())?;
        table(
            f,
            "| load | connections | per second | p50 ms | p99 ms |\n|---|--:|--:|--:|--:|",
            &self.loads,
        )?;
        table(
            f,
            "| at a fixed rate | reached | p50 ms | p99 ms | p99.9 ms |\n|---|--:|--:|--:|--:|",
            &self.paced,
        )?;
        table(f, "| figure | |\n|---|--:|", &self.figures)?;
        let goals: Vec<_> = self.goals.iter().map(Goal::to_string).collect();
        table(f, "| goal | wanted | measured | |\n|---|--:|--:|---|", &goals)?;
        for chart in &self.charts {
            write!(f, "\n{chart}")?;
        }
        Ok(())
    }
}

/// A table, if there is anything in it.
fn table(f: &mut fmt::Formatter<'_>, head: &str, lines: &[String]) -> fmt::Result {
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(f, "\n{head}")?;
    lines.iter().try_for_each(|line| writeln!(f, "{line}"))
}

/// A whole number with a comma before each three of its digits.
pub(crate) fn thousands(number: impl fmt::Display) -> String {
    let digits = number.to_string();
    let places = (1..=digits.len()).rev();
    digits.chars().zip(places).fold(String::new(), |mut text, (digit, place)| {
        text.push(digit);
        if place > 1 && place % 3 == 1 {
            text.push(',');
        }
        text
    })
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

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, wanted, measured, reached } = self;
        let verdict = if *reached { "reached" } else { "not reached" };
        write!(f, "| {what} | {wanted} | {measured:.2} | {verdict} |")
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chart::Axis;

    #[test]
    fn digits_go_in_threes() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (10_000_000, "10,000,000")] {
            assert_eq!(thousands(number), text);
        }
    }

    #[test]
    fn results_take_the_place_of_those_of_an_earlier_run() {
        let folder = tempfile::tempdir().expect("a folder");
        let page = folder.path().join("page.md");
        let [begin, end] = MARKS;
        std::fs::write(&page, format!("Before\n{begin}\nold\n{end}\nAfter\n")).expect("a page");
        let mut report = Report::default();
        report.figure("one", 1.0);
        report.goal(Goal::at_least("enough", 2.0, 1.0));
        let x = Axis::Range { what: "s".to_owned(), end: 2 };
        let lines = vec![vec![0.0, 7.0, 12.0]];
        report.chart(Chart { title: "A chart".to_owned(), x, y: "ms".to_owned(), bars: Vec::new(), lines });
        for _ in 0..2 {
            report.write_into(&page).expect("to write");
        }
        let text = std::fs::read_to_string(&page).expect("the page");
        let (head, tail) = text.split_once("\n\n| figure").expect("a table");
        assert!(head.starts_with(&format!("Before\n{begin}\n")) && !text.contains("old"), "{text}");
        let rest = format!(
            " | |\n|---|--:|\n| one | 1.0 |\n\n| goal | wanted | measured | |\n|---|--:|--:|---|\n\
             | enough | >= 1 | 2.00 | reached |\n\n```mermaid\nxychart-beta\n    title \"A chart\"\n    \
             x-axis \"s\" 0 --> 2\n    y-axis \"ms\" 0 --> 15\n    line [0.00, 7.00, 12.00]\n```\n\n{end}\nAfter\n"
        );
        assert_eq!(tail, rest);
        assert!(report.write_into(&folder.path().join("none.md")).is_err());
    }
}
