//! What a row says of its records.

use cortex_core::IssuanceId;
use cortex_core::record::target;
use jiff::Timestamp;
use serde_json::Value;
use sqlx::PgPool;

use super::{Report, Row};
use crate::notify::person;
use crate::store::StoreError;
use crate::store::log::corrupt;
use crate::store::reports::{self, Access, Published};

/// The cells of a record's row.
pub(super) async fn of_record(pool: &PgPool, report: Report, leaf: &[u8]) -> Result<Vec<String>, StoreError> {
    let leaf: Value = serde_json::from_slice(leaf).map_err(corrupt)?;
    let delay = match report {
        Report::Revocations => delay(pool, &leaf).await?,
        _ => None,
    };
    let cell = |name: &&str| match *name {
        "longest_delay_s" => delay.map(|seconds| seconds.to_string()).unwrap_or_default(),
        name => of_leaf(&leaf, name),
    };
    Ok(report.columns().iter().map(cell).collect())
}

/// One cell of what a leaf says; empty where it says nothing of the kind.
fn of_leaf(leaf: &Value, name: &str) -> String {
    let first =
        |pointers: &[&str]| pointers.iter().find_map(|p| leaf.pointer(p).filter(|v| !v.is_null())).map(text);
    let found = match name {
        "event" => first(&["/kind"]),
        "who" => ["/by", "/subject", "/principal"]
            .iter()
            .find_map(|pointer| leaf.pointer(pointer).filter(|value| !value.is_null()).and_then(person)),
        "grant" => first(&["/grant_id", "/grant/id"]),
        "revocation" => first(&["/revocation_id"]),
        "dag" => first(&["/dag_id", "/principal/dag_id", "/request/dag_id"]),
        "run" => first(&["/run_id", "/principal/run_id", "/request/run_id"]),
        "task" => first(&["/task_id", "/principal/task_id"]),
        "decision" => leaf.get("approve").and_then(Value::as_bool).map_or_else(
            || first(&["/status"]),
            |approve| Some(if approve { "approve" } else { "deny" }.to_owned()),
        ),
        "reason" => first(&["/reason", "/comment", "/because", "/why", "/error"]),
        "target" => first(&["/target"]).or_else(|| leaf.get("scope").and_then(target)),
        "break_glass" => first(&["/break_glass"]).or_else(|| Some("false".to_owned())),
        "issuances" => leaf.get("issuances").and_then(Value::as_array).map(|all| all.len().to_string()),
        "scope" => first(&["/scope", "/issuance_id"]),
        other => first(&[&format!("/{other}")]),
    };
    found.unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// How many seconds there were between the first revocation of what a record settles and the record.
async fn delay(pool: &PgPool, leaf: &Value) -> Result<Option<i64>, StoreError> {
    let pairs = leaf.get("issuances").and_then(Value::as_array).into_iter().flatten();
    let issuances: Vec<IssuanceId> = pairs.filter_map(|pair| pair.get(0)?.as_str()?.parse().ok()).collect();
    let at = leaf.get("at").and_then(Value::as_str).and_then(|at| at.parse::<Timestamp>().ok());
    let (Some(at), false) = (at, issuances.is_empty()) else { return Ok(None) };
    let first = reports::revoked_at(pool, &issuances).await?;
    Ok(first.map(|first| at.duration_since(first).as_secs().max(0)))
}

/// An access's row: its evidence are its first and its last record.
pub(super) fn of_access(access: &Access, records: &[Published]) -> Result<Row, StoreError> {
    let evidence = |id| records.iter().find(|record| record.id == id);
    let missing = || corrupt("a record of an access review is in no tree");
    let (first, last) =
        (evidence(access.first).ok_or_else(missing)?, evidence(access.last).ok_or_else(missing)?);
    let at = |record: &Published| -> Result<String, StoreError> {
        Ok(of_leaf(&serde_json::from_slice(&record.leaf).map_err(corrupt)?, "at"))
    };
    let some = |text: &Option<String>| text.clone().unwrap_or_default();
    let cells = vec![
        some(&access.issuer),
        some(&access.dag_id),
        some(&access.task_id),
        some(&access.policy),
        some(&access.provider),
        some(&access.target),
        access.asked.to_string(),
        access.issued.to_string(),
        at(first)?,
        at(last)?,
    ];
    let mut records = vec![first.clone()];
    records.extend((access.first != access.last).then(|| last.clone()));
    Ok(Row { cells, evidence: records })
}
