//! Pictures: SVG within the page, coloured by classes, so that they follow the page's light or dark.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;

use super::text::{Html, clock, plain};

/// How wide a picture is drawn, in its own units.
const WIDTH: f64 = 960.0;

/// One stretch of time in a bar chart: how many of each kind.
pub(super) struct Bucket {
    pub(super) label: String,
    pub(super) counts: Vec<i64>,
}

/// Stacked bars over time. `kinds` are the classes of the parts, from the bottom.
pub(super) fn bars(title: &str, kinds: &[&str], buckets: &[Bucket]) -> Html {
    const HEIGHT: f64 = 180.0;
    const LEFT: f64 = 44.0;
    const BOTTOM: f64 = 22.0;
    let top = buckets.iter().map(|bucket| bucket.counts.iter().sum::<i64>()).max().unwrap_or(0);
    let scale = nice(top);
    let mut svg = open(title, WIDTH, HEIGHT + BOTTOM + 8.0);
    for step in 0..=2 {
        let y = 8.0 + HEIGHT - HEIGHT * f64::from(step) / 2.0;
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"tick\" x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            y + 4.0,
            scale * i64::from(step) / 2
        );
    }
    let width = (WIDTH - LEFT) / float(buckets.len().max(1));
    for (index, bucket) in buckets.iter().enumerate() {
        let x = LEFT + width * float(index);
        let mut y = 8.0 + HEIGHT;
        for (kind, count) in kinds.iter().zip(&bucket.counts).filter(|(_, count)| **count > 0) {
            let height = HEIGHT * ratio(*count, scale);
            y -= height;
            let _ = write!(
                svg,
                "<rect class=\"c-{kind}\" x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height:.1}\" rx=\"1\">\
                 <title>{}: {count} {kind}</title></rect>",
                x + width * 0.12,
                (width * 0.76).max(1.0),
                plain(&bucket.label)
            );
        }
        if index % buckets.len().div_ceil(6).max(1) == 0 {
            let _ = write!(
                svg,
                "<text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>",
                HEIGHT + BOTTOM + 4.0,
                plain(&bucket.label)
            );
        }
    }
    svg.push_str("</svg>");
    Html::escaped(svg)
}

/// The smallest round number that is at least `top`.
fn nice(top: i64) -> i64 {
    let mut step = 1;
    loop {
        for factor in [2, 4, 10] {
            if step * factor >= top {
                return step * factor;
            }
        }
        step *= 10;
    }
}

/// One line of a ranking: a name and how many of each kind.
pub(super) type Ranked = BTreeMap<String, Vec<i64>>;

/// One bar for each name, the longest first; at most `limit` of them.
pub(super) fn ranking(title: &str, kinds: &[&str], ranked: &Ranked, limit: usize) -> Html {
    const WIDTH: f64 = 480.0;
    const ROW: f64 = 26.0;
    const NAMES: f64 = 170.0;
    const NUMBERS: f64 = 50.0;
    let mut rows: Vec<_> =
        ranked.iter().map(|(name, counts)| (counts.iter().sum::<i64>(), name, counts)).collect();
    rows.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
    rows.truncate(limit);
    let top = rows.first().map_or(1, |row| row.0).max(1);
    let mut svg = open(title, WIDTH, ROW * float(rows.len().max(1)) + 4.0);
    for (index, (sum, name, counts)) in rows.into_iter().enumerate() {
        let y = ROW * float(index);
        let short: String = name.chars().take(23).collect();
        let _ = write!(
            svg,
            "<text class=\"name\" x=\"0\" y=\"{:.1}\">{}<title>{}</title></text>",
            y + 17.0,
            plain(&short),
            plain(&name.chars().take(300).collect::<String>())
        );
        let mut x = NAMES;
        for (kind, count) in kinds.iter().zip(counts).filter(|(_, count)| **count > 0) {
            let width = (WIDTH - NAMES - NUMBERS) * ratio(*count, top);
            let _ = write!(
                svg,
                "<rect class=\"c-{kind}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"14\" rx=\"2\">\
                 <title>{count} {kind}</title></rect>",
                y + 6.0,
                width.max(1.5)
            );
            x += width;
        }
        let _ = write!(svg, "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\">{sum}</text>", x + 8.0, y + 17.0);
    }
    svg.push_str("</svg>");
    Html::escaped(svg)
}

/// One line of a timeline: a bar from when to when, or a mark.
pub(super) struct Span {
    pub(super) label: String,
    pub(super) kind: &'static str,
    pub(super) from: Timestamp,
    pub(super) to: Option<Timestamp>,
}

/// A timeline: a line for each span, in their order, from the first to the last of their times.
pub(super) fn timeline(title: &str, spans: &[Span], now: Timestamp) -> Html {
    const ROW: f64 = 28.0;
    const NAMES: f64 = 250.0;
    let from = spans.iter().map(|span| span.from).min().unwrap_or(now);
    let to = spans.iter().map(|span| span.to.unwrap_or(span.from)).max().unwrap_or(now);
    let length = to.duration_since(from).as_secs().max(60);
    let at = |time: Timestamp| {
        NAMES + (WIDTH - NAMES - 12.0) * ratio(time.duration_since(from).as_secs().clamp(0, length), length)
    };
    let height = ROW * float(spans.len());
    let mut svg = open(title, WIDTH, height + 26.0);
    if (from..=to).contains(&now) {
        let x = at(now);
        let _ = write!(svg, "<line class=\"now\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" y2=\"{height:.1}\"/>");
    }
    for (index, span) in spans.iter().enumerate() {
        let y = ROW * float(index);
        let short: String = span.label.chars().take(34).collect();
        let x = at(span.from);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{NAMES}\" x2=\"{WIDTH}\" y1=\"{0:.1}\" y2=\"{0:.1}\"/>\
             <text class=\"name\" x=\"0\" y=\"{1:.1}\">{2}</text>",
            y + ROW - 4.0,
            y + 17.0,
            plain(&short)
        );
        let until = span.to.map_or(String::new(), |to| format!(" to {}", clock(to)));
        let said = format!("{}: {}{until}", plain(&span.label), clock(span.from));
        let _ = match span.to {
            Some(to) => write!(
                svg,
                "<rect class=\"c-{}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"12\" rx=\"3\">\
                 <title>{said}</title></rect>",
                span.kind,
                y + 7.0,
                (at(to) - x).max(3.0)
            ),
            None => write!(
                svg,
                "<circle class=\"c-{}\" cx=\"{x:.1}\" cy=\"{:.1}\" r=\"6\"><title>{said}</title></circle>",
                span.kind,
                y + 13.0
            ),
        };
    }
    for (time, anchor, x) in [(from, "start", NAMES), (to, "end", WIDTH)] {
        let _ = write!(
            svg,
            "<text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            height + 16.0,
            clock(time)
        );
    }
    svg.push_str("</svg>");
    Html::escaped(svg)
}

fn open(title: &str, width: f64, height: f64) -> String {
    let title = plain(title);
    format!(
        "<svg class=\"chart\" viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-label=\"{title}\" \
         preserveAspectRatio=\"xMinYMin meet\">"
    )
}

#[expect(clippy::cast_precision_loss, reason = "positions on a picture need no more than a double has")]
fn ratio(part: i64, whole: i64) -> f64 {
    part as f64 / whole.max(1) as f64
}

#[expect(clippy::cast_precision_loss, reason = "positions on a picture need no more than a double has")]
fn float(count: usize) -> f64 {
    count as f64
}
