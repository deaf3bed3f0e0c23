//! The statements that the sandbox's Snowflake understands: who am I, and another role please.

use jiff::Timestamp;
use serde_json::{Value, json};

/// Whoever runs a statement.
#[derive(Debug, Clone, Default)]
pub(super) struct Actor {
    pub(super) user: String,
    pub(super) role: Option<String>,
    /// The roles that `USE ROLE` may change to.
    pub(super) usable_roles: Vec<String>,
    pub(super) lease: Option<String>,
}

/// A statement that fails.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SqlError {
    pub(super) code: &'static str,
    /// The SQLSTATE.
    pub(super) state: &'static str,
    pub(super) message: String,
}

/// A column of a result.
#[derive(Debug, PartialEq, Eq)]
struct Column {
    name: String,
    is_number: bool,
    value: Option<String>,
}

/// A result of one row.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rows(Vec<Column>);

/// Runs a statement.
pub(super) fn execute(
    text: &str,
    actor: &mut Actor,
    account: &str,
    session_id: u64,
) -> Result<Rows, SqlError> {
    let text = text.trim().trim_end_matches(';').trim();
    let lower = text.to_ascii_lowercase();
    if let Some(name) = lower.strip_prefix("use role ") {
        let role = text.get(text.len() - name.len()..).unwrap_or_default();
        return use_role(role, actor);
    }
    // There are no transactions here: every statement is one of its own.
    if lower.starts_with("alter session set ") || ["begin", "commit", "rollback"].contains(&&*lower) {
        return Ok(done());
    }
    let syntax_error = || SqlError {
        code: "001003",
        state: "42000",
        message: format!("SQL compilation error: the sandbox does not understand {text:?}."),
    };
    let list = lower.strip_prefix("select ").ok_or_else(syntax_error)?;
    let columns = list.split(',').map(|part| column(part.trim(), actor, account, session_id));
    columns.collect::<Option<_>>().map(Rows).ok_or_else(syntax_error)
}

fn column(part: &str, actor: &Actor, account: &str, session_id: u64) -> Option<Column> {
    let (expression, alias) = part.split_once(" as ").unwrap_or((part, part));
    let value = match expression.trim() {
        "current_role()" => actor.role.clone(),
        "current_user()" => Some(actor.user.clone()),
        "current_account()" => Some(account.to_ascii_uppercase()),
        "current_session()" => Some(session_id.to_string()),
        number => Some(number.parse::<i64>().ok()?.to_string()),
    };
    let is_number = expression.trim().parse::<i64>().is_ok();
    Some(Column { name: alias.trim().to_ascii_uppercase(), is_number, value })
}

fn use_role(role: &str, actor: &mut Actor) -> Result<Rows, SqlError> {
    let role = match role.strip_prefix('"').and_then(|role| role.strip_suffix('"')) {
        Some(quoted) => quoted.to_owned(),
        None => role.to_ascii_uppercase(),
    };
    if !actor.usable_roles.contains(&role) {
        let message = format!(
            "SQL access control error: Requested role '{role}' is not assigned to the executing user."
        );
        return Err(SqlError { code: "003013", state: "42501", message });
    }
    actor.role = Some(role);
    Ok(done())
}

fn done() -> Rows {
    let value = Some("Statement executed successfully.".to_owned());
    Rows(vec![Column { name: "status".to_owned(), is_number: false, value }])
}

/// A query's id, or a statement's handle.
pub(super) fn query_id() -> String {
    uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string()
}

impl Rows {
    fn types(&self) -> Vec<Value> {
        let column = |column: &Column| {
            let (kind, length) = if column.is_number { ("fixed", None) } else { ("text", Some(16_777_216)) };
            json!({
                "name": column.name, "database": "", "schema": "", "table": "", "nullable": true,
                "type": kind, "length": length, "byteLength": length, "collation": null,
                "precision": column.is_number.then_some(38), "scale": column.is_number.then_some(0),
            })
        };
        self.0.iter().map(column).collect()
    }

    fn values(&self) -> Vec<&Option<String>> {
        self.0.iter().map(|column| &column.value).collect()
    }

    /// The `data` of a connector's answer.
    pub(super) fn for_connector(&self, actor: &Actor, now: Timestamp) -> Value {
        json!({
            "parameters": [], "rowtype": self.types(), "rowset": [self.values()], "total": 1, "returned": 1,
            "queryId": query_id(), "queryResultFormat": "json", "statementTypeId": 4096, "version": 1,
            "finalDatabaseName": null, "finalSchemaName": null, "finalWarehouseName": null,
            "finalRoleName": actor.role, "numberOfBinds": 0, "arrayBindSupported": false,
            "sqlState": null, "databaseProvider": null, "sendResultTime": now.as_millisecond(),
        })
    }

    /// The answer of the SQL API.
    pub(super) fn for_sql_api(&self, now: Timestamp) -> Value {
        let handle = query_id();
        json!({
            "code": "090001", "sqlState": "00000", "message": "Statement executed successfully.",
            "statementHandle": handle, "statementStatusUrl": format!("/api/v2/statements/{handle}"),
            "createdOn": now.as_millisecond(),
            "resultSetMetaData": {
                "numRows": 1, "format": "jsonv2", "rowType": self.types(), "partitionInfo": [{"rowCount": 1}],
            },
            "data": [self.values()],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actor() -> Actor {
        Actor {
            user: "FINANCE_SVC".into(),
            role: Some("FINANCE_PUBLISH".into()),
            usable_roles: vec!["FINANCE_READ".into()],
            lease: None,
        }
    }

    #[test]
    fn a_session_says_who_it_is() {
        let rows =
            execute("SELECT CURRENT_ROLE(), current_user() AS me, 7;", &mut actor(), "acme", 1).unwrap();
        let values: Vec<_> = rows.values().into_iter().flatten().cloned().collect();
        assert_eq!(values, ["FINANCE_PUBLISH", "FINANCE_SVC", "7"]);
        for text in ["", "select", "select *", "drop table x", "select current_role() from x"] {
            assert_eq!(execute(text, &mut actor(), "acme", 1).unwrap_err().code, "001003", "{text}");
        }
    }

    #[test]
    fn another_role_has_to_be_usable() {
        let mut actor = actor();
        assert_eq!(execute("use role accountadmin", &mut actor, "acme", 1).unwrap_err().code, "003013");
        assert_eq!(actor.role.as_deref(), Some("FINANCE_PUBLISH"));
        execute("USE ROLE finance_read", &mut actor, "acme", 1).unwrap();
        assert_eq!(actor.role.as_deref(), Some("FINANCE_READ"));
    }
}
