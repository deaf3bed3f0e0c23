//! What commands print: tables for people, JSON for tools.

use comfy_table::{Table, presets::NOTHING};
use serde::Serialize;
use serde_json::Value;

use crate::error::Error;

/// Prints JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Error> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Prints the server's own JSON, or what people read.
pub(crate) fn either(as_json: bool, value: &Value, for_people: impl FnOnce(&Value)) -> Result<(), Error> {
    if as_json {
        return json(value);
    }
    for_people(value);
    Ok(())
}

/// Prints a table with a header.
pub(crate) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header.to_vec());
    for row in rows {
        table.add_row(row);
    }
    println!("{table}");
}

/// A value of the server's JSON as people read it. What a terminal would obey, or read in another order, is escaped:
/// names come from whoever names a DAG.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => printable(text),
        Value::Array(values) if values.is_empty() => "-".to_owned(),
        Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join(", "),
        Value::Object(_) => printable(&value.to_string()),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// The text at `path`, keys with dots between them; `-` where there is none.
pub(crate) fn field(value: &Value, path: &str) -> String {
    text(path.split('.').try_fold(value, |value, key| value.get(key)).unwrap_or(&Value::Null))
}

/// A document as indented text, one line for each value.
pub(crate) fn outline(value: &Value, indent: usize) {
    for (name, value) in value.as_object().into_iter().flatten() {
        let name = printable(name);
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                println!("{:indent$}{name}", "");
                outline(value, indent + 2);
            }
            Value::Array(items) if items.iter().any(Value::is_object) => {
                println!("{:indent$}{name}", "");
                for item in items {
                    println!("{:indent$}  -", "");
                    outline(item, indent + 4);
                }
            }
            _ => println!("{:indent$}{name:<18} {}", "", text(value)),
        }
    }
}

/// Text without control characters and without those that change the direction of text.
pub(crate) fn printable(text: &str) -> String {
    let obeyed = |c: char| {
        c.is_control()
            || matches!(c, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{2069}' | '\u{FEFF}')
    };
    text.chars().fold(String::with_capacity(text.len()), |mut printable, c| {
        if obeyed(c) {
            printable.extend(c.escape_unicode());
        } else {
            printable.push(c);
        }
        printable
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_cannot_move_the_cursor_or_turn_the_line_around() {
        assert_eq!(printable("a\u{1b}[2Jb\u{202e}c\n"), "a\\u{1b}[2Jb\\u{202e}c\\u{a}");
        assert_eq!(printable("Größe <img onerror> 数"), "Größe <img onerror> 数");
    }

    #[test]
    fn a_field_is_found_by_its_path() {
        let value = json!({"request": {"dag_id": "d", "tags": ["a", "b"]}});
        assert_eq!(field(&value, "request.dag_id"), "d");
        assert_eq!(field(&value, "request.tags"), "a, b");
        assert_eq!(field(&value, "request.none.deeper"), "-");
    }
}
