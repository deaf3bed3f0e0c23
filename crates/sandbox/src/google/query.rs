//! The three selects that the sandbox's `BigQuery` answers.

/// A table that a query reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) dataset: String,
    pub(super) table: String,
}

/// A query, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query {
    expressions: Vec<Expression>,
    pub(super) table: Option<Table>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Expression {
    Number(i64),
    SessionUser,
    CountAll,
}

/// One column of the one row that comes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) value: String,
}

impl Query {
    /// The row: `user` asks, and the table has `count` rows.
    pub(super) fn answer(&self, user: &str, count: usize) -> Vec<Column> {
        let column = |(index, expression): (usize, &Expression)| {
            let (kind, value) = match expression {
                Expression::Number(number) => ("INTEGER", number.to_string()),
                Expression::SessionUser => ("STRING", user.to_owned()),
                Expression::CountAll => ("INTEGER", count.to_string()),
            };
            Column { name: format!("f{index}_"), kind, value }
        };
        self.expressions.iter().enumerate().map(column).collect()
    }
}

/// Reads `SELECT <expressions> [FROM dataset.table]`.
pub(super) fn parse(text: &str) -> Option<Query> {
    let text = text.trim().trim_end_matches(';').trim();
    let lower = text.to_ascii_lowercase();
    let (expressions, table) = match lower.split_once(" from ") {
        None => (lower.as_str(), None),
        Some((expressions, _)) => {
            let table = text.get(expressions.len() + " from ".len()..)?.trim().replace('`', "");
            let mut parts = table.rsplitn(3, '.');
            let (table, dataset) = (parts.next()?.to_owned(), parts.next()?.to_owned());
            (expressions, Some(Table { dataset, table }))
        }
    };
    let expressions =
        expressions.strip_prefix("select ")?.split(',').map(|expression| match expression.trim() {
            "session_user()" => Some(Expression::SessionUser),
            "count(*)" if table.is_some() => Some(Expression::CountAll),
            number => number.parse().ok().map(Expression::Number),
        });
    Some(Query { expressions: expressions.collect::<Option<_>>()?, table })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_selects_are_read_and_nothing_else() {
        let values = |text: &str| {
            let columns = parse(text)?.answer("L1", 7);
            Some(columns.into_iter().map(|column| column.value).collect::<Vec<_>>().join(","))
        };
        assert_eq!(values("SELECT 1").as_deref(), Some("1"));
        assert_eq!(values("select 1, SESSION_USER();").as_deref(), Some("1,L1"));
        assert_eq!(values("SELECT COUNT(*) FROM `acme.mart.Daily`").as_deref(), Some("7"));
        let table = parse("SELECT COUNT(*) FROM `acme.mart.Daily`").and_then(|query| query.table);
        assert_eq!(table, Some(Table { dataset: "mart".into(), table: "Daily".into() }));
        for text in ["", "select", "select *", "select count(*)", "drop table x", "select 1 from x"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
