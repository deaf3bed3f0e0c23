//! What comes from outside, as HTML that shows it and is not moved by it.
//!
//! Names of DAGs, reasons, claims: any of them may be written to mislead. Markup is escaped; characters that cannot
//! be seen or that turn the text around them are shown by their code; long values are clipped, with the whole one
//! click away.

use std::fmt::{self, Write as _};

use askama::filters::HtmlSafe;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// The longest value that is shown without a click, in characters.
const SHOWN: usize = 96;

/// Finished HTML. Only this module and the charts make it, out of escaped parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Html(String);

impl Html {
    /// HTML whose parts were escaped by the caller.
    pub(super) fn escaped(html: String) -> Self {
        Self(html)
    }

    /// Whether there is nothing to show.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Html {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl HtmlSafe for Html {}

/// One value in one line: where it is too long, its beginning, with the whole in a box that opens.
pub(super) fn value(text: &str) -> Html {
    if text.chars().nth(SHOWN).is_none() {
        return Html(format!("<bdi>{}</bdi>", visible(text, false)));
    }
    let short: String = text.chars().take(SHOWN - 16).collect();
    Html(format!(
        "<details class=\"clip\"><summary><bdi>{}…</bdi> <span class=\"more\">{} characters</span></summary>\
         <bdi class=\"whole\" tabindex=\"0\">{}</bdi></details>",
        visible(&short, false),
        text.chars().count(),
        visible(text, true)
    ))
}

/// One value within a link or a cell that cannot open: clipped for good.
pub(super) fn line(text: &str) -> Html {
    line_of(text, SHOWN)
}

/// The same of at most `limit` characters.
pub(super) fn line_of(text: &str, limit: usize) -> Html {
    let mut short: String = text.chars().take(limit).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    Html(format!("<bdi>{}</bdi>", visible(&short, false)))
}

/// Text of many lines, as it is: a document, a diff.
pub(super) fn block(text: &str) -> Html {
    Html(visible(text, true))
}

/// A JSON value, indented.
pub(super) fn json(value: &Value) -> Html {
    block(&serde_json::to_string_pretty(value).unwrap_or_default())
}

/// A unified diff, each line marked as what it is.
pub(super) fn diff(text: &str) -> Html {
    let mut html = String::new();
    for line in text.lines() {
        let class = match line.as_bytes().first() {
            Some(b'+') if !line.starts_with("+++") => "ins",
            Some(b'-') if !line.starts_with("---") => "del",
            Some(b'@') => "hunk",
            _ => "same",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(html, "<span class=\"{class}\">{}</span>", visible(line, true));
    }
    Html(html)
}

/// Text as it may stand in an attribute or an SVG label.
pub(super) fn plain(text: &str) -> String {
    visible(text, false)
}

/// Escapes markup, and shows by its code whatever cannot be seen or turns the text around it. `lines`: line breaks
/// and tabs stay.
fn visible(text: &str, lines: bool) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' if lines => out.push(c),
            c if hides(c) => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// Controls, directional marks, zero-width characters, variation selectors and tags.
fn hides(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}'
            | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}' | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFA0}'
            | '\u{FFF9}'..='\u{FFFB}' | '\u{E0000}'..='\u{E0FFF}')
}

/// A time: its distance from now, with the exact one beside it.
pub(super) fn time(at: Timestamp, now: Timestamp) -> Html {
    Html(format!(
        "<time datetime=\"{at}\" title=\"{}\">{}</time>",
        clock(at),
        distance(at.duration_since(now))
    ))
}

/// A word and a time: "closes in 5 min".
pub(super) fn told(word: &str, at: Timestamp, now: Timestamp) -> Html {
    Html(format!("{} {}", plain(word), time(at, now)))
}

/// A time, exactly.
pub(super) fn exact(at: Timestamp) -> Html {
    Html(format!("<time datetime=\"{at}\">{}</time>", clock(at)))
}

/// A time as people write it, to the second.
pub(super) fn clock(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

fn distance(away: SignedDuration) -> String {
    let seconds = away.as_secs();
    let amount = span(seconds.saturating_abs());
    match seconds {
        0 => "now".to_owned(),
        1.. => format!("in {amount}"),
        _ => format!("{amount} ago"),
    }
}

/// A length of time in its largest two units.
pub(super) fn span(seconds: i64) -> String {
    match seconds {
        ..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 if seconds % 3_600 < 60 => format!("{} h", seconds / 3_600),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ if seconds % 86_400 < 3_600 => format!("{} d", seconds / 86_400),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// A path or query component of a link.
pub(super) fn component(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hostile_names_are_shown_and_do_nothing() {
        let shown = value("<img src=x onerror=alert(1)>\u{202E}gnp.exe").to_string();
        assert_eq!(shown, "<bdi>&lt;img src=x onerror=alert(1)&gt;\\u{202e}gnp.exe</bdi>");
        assert_eq!(line("a\nb\0").to_string(), "<bdi>a\\u{a}b\\u{0}</bdi>");
        let long = value(&"x".repeat(4_096)).to_string();
        assert!(long.contains("4096 characters") && long.contains(&"x".repeat(4_096)));
        assert!(line(&"x".repeat(4_096)).to_string().chars().count() < SHOWN + 20);
    }

    #[test]
    fn spans_are_in_two_units() {
        for (seconds, expected) in
            [(5, "5 s"), (3_599, "59 min"), (3_600, "1 h"), (5_400, "1 h 30 min"), (90_000, "1 d 1 h")]
        {
            assert_eq!(span(seconds), expected);
        }
    }

    proptest! {
        #[test]
        fn no_text_brings_markup_or_turns_what_is_around_it(text in ".*") {
            for html in [value(&text), line(&text), block(&text), diff(&text)] {
                let html = html.to_string();
                let tags = html.replace("<bdi>", "").replace("</bdi>", "").replace("</span>", "");
                let ours = ["<span class=\"ins\">", "<span class=\"del\">", "<span class=\"hunk\">",
                    "<span class=\"same\">", "<details class=\"clip\">", "<summary>", "</summary>",
                    "<span class=\"more\">", "<bdi class=\"whole\" tabindex=\"0\">", "</details>"];
                let rest = ours.iter().fold(tags, |rest, tag| rest.replace(tag, ""));
                prop_assert!(!rest.contains(['<', '>']), "{rest}");
                prop_assert!(!rest.chars().any(|c| hides(c) && !matches!(c, '\n' | '\t')), "{rest:?}");
            }
        }

        #[test]
        fn a_component_is_one_component(text in ".*") {
            let url = format!("https://h.example/a/{}/b", component(&text));
            let parsed = reqwest::Url::parse(&url).unwrap();
            if text != "." && text != ".." {
                prop_assert_eq!(parsed.path_segments().unwrap().count(), 3);
            }
        }
    }
}
