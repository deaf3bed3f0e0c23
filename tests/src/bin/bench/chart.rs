//! Charts as Mermaid blocks, which code hosts draw from the text.

use std::fmt;

/// What the horizontal axis shows.
#[derive(Debug)]
pub(crate) enum Axis {
    /// One name for each number.
    Names(Vec<String>),
    /// The numbers are evenly spread from 0 to `end`.
    Range { what: String, end: u32 },
}

/// A chart; its vertical axis begins at 0.
#[derive(Debug)]
pub(crate) struct Chart {
    /// What it shows, and what bars and lines stand for: there is no legend.
    pub(crate) title: String,
    pub(crate) x: Axis,
    /// The unit of the numbers.
    pub(crate) y: String,
    pub(crate) bars: Vec<Vec<f64>>,
    pub(crate) lines: Vec<Vec<f64>>,
}

impl Chart {
    /// Where the vertical axis ends: a round number that nothing is above.
    fn top(&self) -> f64 {
        let most = self.bars.iter().chain(&self.lines).flatten().copied().fold(0.0, f64::max);
        let step = 10_f64.powf(most.max(1e-3).log10().floor()) / 2.0;
        (most / step).ceil().max(1.0) * step
    }
}

impl fmt::Display for Chart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "```mermaid\nxychart-beta\n    title {:?}", self.title)?;
        match &self.x {
            Axis::Names(names) => writeln!(f, "    x-axis {names:?}")?,
            Axis::Range { what, end } => writeln!(f, "    x-axis {what:?} 0 --> {end}")?,
        }
        writeln!(f, "    y-axis {:?} 0 --> {}", self.y, self.top())?;
        for (kind, all) in [("bar", &self.bars), ("line", &self.lines)] {
            for numbers in all {
                let numbers: Vec<_> = numbers.iter().map(|number| format!("{number:.2}")).collect();
                writeln!(f, "    {kind} [{}]", numbers.join(", "))?;
            }
        }
        writeln!(f, "```")
    }
}
