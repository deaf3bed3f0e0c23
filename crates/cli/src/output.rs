//! What commands print: tables for people, JSON for tools.

use comfy_table::{Table, presets::NOTHING};
use serde::Serialize;

use crate::error::Error;

/// Prints JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Error> {
    println!("{}", serde_json::to_string_pretty(value)?);
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
