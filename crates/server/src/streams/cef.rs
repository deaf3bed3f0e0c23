//! `ArcSight` Common Event Format, version 0 (CEF Implementation Standard, version 26): a header of seven parts between
//! pipes, and an extension of `key=value`. Lengths are bounded as its dictionary says.

use super::event::{Event, Severity, Status};

/// The longest of a dictionary's short texts, in characters: `suser`, `reason`, `msg`, `externalId` and their like.
const SHORT: usize = 1_023;
/// The longest custom text, in characters.
const LONG: usize = 4_000;

/// One event, without a syslog header, as the standard says for files.
pub(super) fn event(event: &Event<'_>) -> String {
    let severity = match event.severity() {
        Severity::Informational => "1",
        Severity::Low => "4",
        Severity::Medium => "6",
        Severity::High => "9",
    };
    let version = event.text(&["/build"]).unwrap_or("unknown");
    let header = ["Cortex", "Cortex", version, &event.kind, event.title(), severity];
    let header: Vec<String> = header.iter().map(|part| in_header(part)).collect();
    format!("CEF:0|{}|{}", header.join("|"), extension(event))
}

fn extension(event: &Event<'_>) -> String {
    let outcome = match event.status() {
        Status::Success => "success",
        Status::Failure => "failure",
        Status::Unknown => "unknown",
    };
    let owned = |text: &str| Some(text.to_owned());
    let address = event.source().and_then(|source| source.parse().ok());
    let (v4, v6) = match address {
        Some(std::net::IpAddr::V4(v4)) => (Some(v4.to_string()), None),
        Some(std::net::IpAddr::V6(v6)) => (None, Some(v6.to_string())),
        None => (None, None),
    };
    let fields = [
        ("rt", Some(event.at.as_millisecond().to_string()), SHORT),
        ("externalId", owned(event.id()), SHORT),
        ("deviceExternalId", event.text(&["/replica"]).and_then(owned), SHORT),
        ("outcome", owned(outcome), SHORT),
        ("reason", event.reason().and_then(owned), SHORT),
        ("suser", event.who(), SHORT),
        ("src", v4, SHORT),
        ("msg", event.text(&["/outcome/message", "/reasons/0/message"]).and_then(owned), SHORT),
    ];
    let labelled = [
        ("cs1", "logOrigin", owned(&event.leaf.origin)),
        ("cs2", "leafHash", owned(&event.leaf.hash.to_string())),
        ("cn1", "logIndex", Some(event.leaf.index.to_string())),
        ("cs3", "policy", event.text(&["/policy", "/name"]).and_then(owned)),
        ("cs4", "run", event.run()),
        ("cs5", "target", event.target().or_else(|| event.text(&["/provider"]).and_then(owned))),
        ("cs6", "about", event.about().and_then(owned)),
        ("c6a2", "sourceIpv6Address", v6),
    ];
    let plain = fields.into_iter().filter_map(|(key, value, most)| Some(pair(key, &value?, most)));
    let labelled = labelled
        .into_iter()
        .filter_map(|(key, label, value)| Some(format!("{} {key}Label={label}", pair(key, &value?, LONG))));
    plain.chain(labelled).collect::<Vec<_>>().join(" ")
}

fn pair(key: &str, value: &str, most: usize) -> String {
    format!("{key}={}", in_extension(value, most))
}

/// A header's part: backslash and pipe are escaped, and it has no line ends.
fn in_header(text: &str) -> String {
    let one_line = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    one_line.fold(String::with_capacity(text.len()), |mut out, c| {
        if matches!(c, '\\' | '|') {
            out.push('\\');
        }
        out.push(c);
        out
    })
}

/// A value: backslash, equals sign and line ends are escaped. Other control characters become spaces.
fn in_extension(text: &str, most: usize) -> String {
    text.chars().take(most).fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            '\\' => out.push_str("\\\\"),
            '=' => out.push_str("\\="),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_wrote_ends_no_field_and_no_line() {
        let hostile = "x suser=admin|9\\ \n CEF:0|";
        assert_eq!(in_extension(hostile, SHORT), "x suser\\=admin|9\\\\ \\n CEF:0|");
        assert_eq!(in_header("a|b\\c\nd"), "a\\|b\\\\c d");
        assert_eq!(in_extension("\u{7}\r", SHORT), " \\r");
        assert_eq!(in_extension("====", 2), "\\=\\=", "a bound never cuts an escape in two");
    }
}
