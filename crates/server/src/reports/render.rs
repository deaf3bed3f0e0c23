//! A report's rows as HTML, CSV, JSON lines, or as what proves them.

use std::fmt::Write as _;

use cortex_log::receipt::Receipt;
use cortex_log::{Hash, seal};
use serde_json::{Map, Value, json};

use super::{Head, Report, Row};
use crate::store::StoreError;
use crate::store::log::corrupt;
use crate::store::reports::Published;

/// How a report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// A page to read and to print.
    Html,
    /// RFC 4180, for a spreadsheet: no cell is a formula.
    Csv,
    /// A JSON object in each line.
    Jsonl,
    /// In each line what proves a row: its records' places in the log, their hashes and receipts.
    Proof,
}

impl Format {
    /// The content type.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Html => "text/html; charset=utf-8",
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Jsonl | Self::Proof => "application/jsonl",
        }
    }

    /// The end of a file's name.
    pub(crate) fn ending(self) -> &'static str {
        match self {
            Self::Html => "html",
            Self::Csv => "csv",
            Self::Jsonl => "jsonl",
            Self::Proof => "proof.jsonl",
        }
    }

    /// What comes before the rows.
    pub(super) fn begin(self, head: &Head) -> String {
        match self {
            Self::Html => html_head(head),
            Self::Csv => csv_line(columns(head.report).map(str::to_owned)),
            Self::Jsonl | Self::Proof => format!("{}\n", head_json(head)),
        }
    }

    /// A row.
    pub(super) fn row(self, head: &Head, number: u64, row: &Row) -> Result<String, StoreError> {
        Ok(match self {
            Self::Html => html_row(row),
            Self::Csv => csv_line(row.cells.iter().cloned().chain(places(row))),
            Self::Jsonl => {
                let cells = head.report.columns().iter().zip(&row.cells);
                let mut line: Map<String, Value> =
                    cells.map(|(name, cell)| ((*name).to_owned(), json!(cell))).collect();
                line.insert("records".to_owned(), row.evidence.iter().map(place).collect());
                format!("{}\n", Value::Object(line))
            }
            Self::Proof => {
                let proofs = row.evidence.iter().map(proof).collect::<Result<Vec<_>, _>>()?;
                format!("{}\n", json!({ "row": number, "records": proofs }))
            }
        })
    }

    /// What comes behind the rows: who has it has all of them.
    pub(super) fn end(self, rows: u64) -> String {
        match self {
            Self::Html => {
                format!("</tbody></table>\n<p>{rows} rows. End of the report.</p>\n</body></html>\n")
            }
            Self::Csv => String::new(),
            Self::Jsonl | Self::Proof => format!("{}\n", json!({ "rows": rows })),
        }
    }
}

/// The columns of a table: the report's own, and where its records are in the log.
fn columns(report: Report) -> impl Iterator<Item = &'static str> {
    report.columns().iter().copied().chain(["record", "log", "index"])
}

/// The last of a row's records: its id, its tree and its index there.
fn places(row: &Row) -> impl Iterator<Item = String> {
    let last = row.evidence.last();
    let last = last.map(|one| [one.id.to_string(), one.origin.clone(), one.index.to_string()]);
    last.unwrap_or_default().into_iter()
}

fn place(one: &Published) -> Value {
    json!({ "record": one.id, "shard": one.shard, "index": one.index })
}

fn proof(one: &Published) -> Result<Value, StoreError> {
    let leaf = seal::join(&one.leaf, &one.seal);
    let receipt = Receipt::new(&one.origin, &leaf).map_err(corrupt)?;
    Ok(json!({
        "record": one.id, "shard": one.shard, "index": one.index, "leaf_hash": Hash::leaf(&leaf), "receipt": receipt,
    }))
}

fn head_json(head: &Head) -> Value {
    json!({
        "report": head.report.name(),
        "title": head.report.title(),
        "from": head.period.from,
        "to": head.period.to,
        "controls": head.report.controls().iter().map(|(of, which)| format!("{of}: {which}")).collect::<Vec<_>>(),
        "made_at": head.made_at,
        "shard": head.shard.name,
        "size": head.shard.published,
        "checkpoint": head.shard.checkpoint,
    })
}

/// One line of RFC 4180.
fn csv_line(cells: impl Iterator<Item = String>) -> String {
    let cells: Vec<String> = cells.map(|cell| csv_cell(&cell)).collect();
    format!("{}\r\n", cells.join(","))
}

/// A cell that no spreadsheet takes for a formula: what would begin one gets an apostrophe before it.
fn csv_cell(text: &str) -> String {
    let begins =
        |c: char| matches!(c, '=' | '+' | '-' | '@' | '\t' | '\r' | '\n' | '＝' | '＋' | '－' | '＠');
    let text = if text.starts_with(begins) { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\r', '\n', ';', '\t']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}

fn html_head(head: &Head) -> String {
    let mut out = String::from(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><style>\
         body{font:14px/1.4 system-ui,sans-serif;margin:2em}table{border-collapse:collapse;width:100%}\
         th,td{border:1px solid #bbb;padding:.3em .5em;text-align:left;vertical-align:top;overflow-wrap:anywhere}\
         th{background:#eee}pre{background:#f6f6f6;padding:.7em;overflow-x:auto}</style>",
    );
    let title = escape(head.report.title());
    let controls =
        head.report.controls().map(|(of, which)| format!("<li>{}: {}</li>", escape(of), escape(which)));
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "<title>{title}</title></head><body>\n<h1>{title}</h1>\n<p>From {} to {} (UTC), made at {}.</p>\n\
         <ul>{}</ul>\n<p>Every record of the period that the log had published by this checkpoint ({} records in {}):</p>\n\
         <pre>{}</pre>\n<table><thead><tr>",
        head.period.from,
        head.period.to,
        head.made_at,
        controls.concat(),
        head.shard.published,
        escape(&head.shard.origin),
        escape(head.shard.checkpoint.as_deref().unwrap_or_default()),
    );
    for column in columns(head.report) {
        let _ = write!(out, "<th scope=\"col\">{}</th>", escape(&column.replace('_', " ")));
    }
    out.push_str("</tr></thead><tbody>\n");
    out
}

fn html_row(row: &Row) -> String {
    let cells = row.cells.iter().cloned().chain(places(row));
    let cells: Vec<String> = cells.map(|cell| format!("<td><bdi>{}</bdi></td>", escape(&cell))).collect();
    format!("<tr>{}</tr>\n", cells.concat())
}

/// Text as it is: no markup, and nothing that cannot be seen or turns the text around it.
fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' => out.push('\n'),
            c if c.is_control()
                || matches!(c, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}') =>
            {
                let _ = write!(out, "⟨U+{:04X}⟩", u32::from(c));
            }
            c => out.push(c),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::store::log::read::Shard;
    use crate::store::reports::Period;

    fn head() -> Head {
        let shard = Shard {
            number: 1,
            name: "2026".to_owned(),
            origin: "cortex.example/log/2026".to_owned(),
            size: 9,
            root: Hash::ZERO,
            time_ms: 0,
            checkpoint: Some("cortex.example/log/2026\n9\n".to_owned()),
            published: 9,
        };
        let time = |text: &str| text.parse().unwrap();
        let period = Period { from: time("2026-10-01T00:00:00Z"), to: time("2027-01-01T00:00:00Z") };
        Head { report: Report::PolicyChanges, period, made_at: time("2026-11-23T02:00:00Z"), shard }
    }

    fn row() -> Row {
        let cells =
            ["2026-11-23T01:00:00Z", "policy.applied", "=x<b>", "2", "sha256:ab", "person:staff:erin"];
        let one = Published {
            id: Uuid::from_u128(7),
            leaf: Vec::new(),
            seal: String::new(),
            shard: "2026".to_owned(),
            origin: "cortex.example/log/2026".to_owned(),
            index: 8,
        };
        Row { cells: cells.map(str::to_owned).to_vec(), evidence: vec![one] }
    }

    fn whole(format: Format) -> String {
        format.begin(&head()) + &format.row(&head(), 1, &row()).unwrap() + &format.end(1)
    }

    #[test]
    fn a_report_as_csv() {
        insta::assert_snapshot!(whole(Format::Csv));
    }

    #[test]
    fn a_report_as_json_lines() {
        insta::assert_snapshot!(whole(Format::Jsonl));
    }

    #[test]
    fn a_report_as_html() {
        insta::assert_snapshot!(whole(Format::Html));
    }

    #[test]
    fn no_cell_is_a_formula_and_none_leaves_its_cell() {
        for (text, cell) in [
            ("=1+1", "'=1+1"),
            ("+49", "'+49"),
            ("-2", "'-2"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "\"'\t=1\""),
            ("\r=1", "\"'\r=1\""),
            ("a,\"b\"\r\nc", "\"a,\"\"b\"\"\r\nc\""),
            ("plain", "plain"),
            ("", ""),
        ] {
            assert_eq!(csv_cell(text), cell);
        }
    }

    proptest! {
        #[test]
        fn a_cell_is_one_field_that_begins_no_formula(text in any::<String>()) {
            let cell = csv_cell(&text);
            let quoted = cell.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            prop_assert!(quoted.is_some() || !cell.contains([',', '"', '\r', '\n']));
            let inner = quoted.map_or_else(|| cell.clone(), |quoted| quoted.replace("\"\"", "\""));
            prop_assert!(!inner.starts_with(['=', '+', '-', '@', '\t', '\r']));
            let defused = format!("'{text}");
            prop_assert!(inner == text || inner == defused);
        }

        #[test]
        fn markup_stays_text(text in any::<String>()) {
            prop_assert!(!escape(&text).contains(['<', '>', '"', '\'']));
        }
    }
}
