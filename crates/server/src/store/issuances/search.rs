//! The search as SQL: only what is asked for is in it, so that Postgres sees which index serves.

use cortex_core::RecordId;
use jiff::{SignedDuration, Timestamp};
use sqlx::{PgPool, Postgres, QueryBuilder};

use super::{DECISIONS, Filter, OfficeHours};
use crate::store::{StoreError, micros, personal};

const SELECT: &str = "SELECT o.id, o.kind, o.issuance_id, (extract(epoch FROM o.at) * 1000000)::int8 AS at, opened_principal(o.principal) AS principal,
            o.dag_id, o.run_id, o.task_id, o.policy, o.provider,
            CASE WHEN o.kind = 'denial' THEN 'denied'
                 WHEN o.kind IN ('issuance.intent', 'issuance.issued') THEN COALESCE(e.outcome, o.outcome, 'open')
                 ELSE o.outcome END AS outcome,
            COALESCE(e.reason, o.reason) AS reason, o.grant_id,
            (extract(epoch FROM COALESCE(e.expires_at, o.expires_at)) * 1000000)::int8 AS expires_at
     FROM record o";

/// The kinds that are issuances: the predicate of `record_by_kind`, as it is written there.
const NO_ISSUANCE: &str = " AND o.kind NOT IN ('issuance.intent', 'issuance.issued', 'issuance.outcome')";

/// Every way in which records name the people whom a search is about.
#[derive(Debug, Default)]
pub(super) struct Names {
    principal: Vec<String>,
    approver: Vec<String>,
    user: Vec<String>,
}

impl Names {
    pub(super) async fn of(pool: &PgPool, filter: &Filter) -> Result<Self, StoreError> {
        let mut names = Self::default();
        if let Some(principal) = &filter.principal {
            let all = personal::spellings(pool, principal).await?;
            names.principal = used(pool, BY_PRINCIPAL, all).await?;
        }
        if let Some(approver) = &filter.approver {
            names.approver = personal::spellings(pool, approver).await?;
        }
        if let Some(user) = &filter.triggering_user {
            names.user = used(pool, BY_USER, personal::user_spellings(pool, user).await?).await?;
        }
        Ok(names)
    }
}

/// Whether any record is found under a name, by the index that the search uses.
const BY_PRINCIPAL: &str =
    "SELECT EXISTS (SELECT FROM record WHERE principal = $1 AND principal NOT LIKE 'run:%')";
const BY_USER: &str = "SELECT EXISTS (SELECT FROM record_fact WHERE triggering_user = $1)";

/// Those of these names that records use: one alone is searched for in the order of its index.
async fn used(pool: &PgPool, by: &'static str, names: Vec<String>) -> Result<Vec<String>, StoreError> {
    let [_, _, ..] = names.as_slice() else { return Ok(names) };
    let mut used = Vec::with_capacity(names.len());
    for name in &names {
        if sqlx::query_scalar(by).bind(name).fetch_one(pool).await? {
            used.push(name.clone());
        }
    }
    Ok(if used.is_empty() { names } else { used })
}

/// That a column has one of these values.
fn one_of(query: &mut QueryBuilder<Postgres>, column: &str, values: &[String]) {
    query.push(format!(" AND {column} = "));
    match values {
        [value] => query.push_bind(value.clone()),
        values => query.push("ANY(").push_bind(values.to_vec()).push(")"),
    };
}

pub(super) fn query(filter: &Filter, names: &Names) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new(SELECT);
    // What drives the search has the bounds in time, which are bounds of its index.
    let (by_rule, by_fact) = (filter.rule.is_some(), filter.asks_record_facts());
    let driver = match (by_rule, by_fact) {
        (true, _) => "d",
        (false, true) => "f",
        (false, false) => "o",
    };
    if by_rule {
        query.push(" JOIN record_rule d ON d.id = o.id");
    }
    if by_fact {
        query.push(" JOIN record_fact f ON f.id = o.id");
    }
    query.push(" LEFT JOIN record e ON e.kind = 'issuance.outcome' AND e.issuance_id = o.issuance_id AND o.kind = 'issuance.intent'");
    query.push(" WHERE true");
    kinds(&mut query, filter);
    times(&mut query, filter, driver);
    columns(&mut query, filter, names);
    facts(&mut query, filter, names);
    outcome(&mut query, filter.outcome.as_deref());
    if let Some(hours) = &filter.outside {
        outside(&mut query, hours);
    }
    query.push(format!(" ORDER BY {driver}.id DESC LIMIT ")).push_bind(filter.limit);
    query
}

fn kinds(query: &mut QueryBuilder<Postgres>, filter: &Filter) {
    let only = |kind: &str| vec![kind.to_owned()];
    let kinds = match filter.outcome.as_deref() {
        Some("denied") => only("denial"),
        Some("open") => only("issuance.intent"),
        Some(_) => DECISIONS[..2].iter().map(ToString::to_string).collect(),
        None if filter.kinds.is_empty() => DECISIONS.iter().map(ToString::to_string).collect(),
        None => filter.kinds.clone(),
    };
    if !kinds.iter().any(|kind| kind.starts_with("issuance.")) {
        query.push(NO_ISSUANCE);
    }
    match <[String; 1]>::try_from(kinds) {
        Ok([kind]) => query.push(" AND o.kind = ").push_bind(kind),
        Err(kinds) => query.push(" AND o.kind = ANY(").push_bind(kinds).push(")"),
    };
}

/// Ids begin with their time, so that times and the cursor are bounds of an index alike.
fn times(query: &mut QueryBuilder<Postgres>, filter: &Filter, driver: &str) {
    let id = |at: Timestamp| RecordId::new(at, [0; 10]).uuid();
    let at = |query: &mut QueryBuilder<Postgres>, compare: &str, at: Timestamp| {
        query.push(format!(" AND o.at {compare} timestamptz 'epoch' + ")).push_bind(micros(at));
        query.push("::int8 * interval '1 microsecond'");
    };
    if let Some(since) = filter.since {
        query.push(format!(" AND {driver}.id >= ")).push_bind(id(since));
        at(query, ">=", since);
    }
    if let Some(until) = filter.until {
        let next = until.saturating_add(SignedDuration::from_millis(1)).unwrap_or(Timestamp::MAX);
        query.push(format!(" AND {driver}.id < ")).push_bind(id(next));
        at(query, "<", until);
    }
    if let Some(before) = filter.before {
        query.push(format!(" AND {driver}.id < ")).push_bind(before);
    }
}

fn columns(query: &mut QueryBuilder<Postgres>, filter: &Filter, names: &Names) {
    let columns = [
        ("dag_id", &filter.dag_id),
        ("run_id", &filter.run_id),
        ("task_id", &filter.task_id),
        ("policy", &filter.policy),
        ("provider", &filter.provider),
    ];
    for (column, value) in columns {
        if let Some(value) = value {
            query.push(format!(" AND o.{column} = ")).push_bind(value.clone());
        }
    }
    if let Some(principal) = &filter.principal {
        one_of(query, "o.principal", &names.principal);
        match run(principal) {
            // Runs are found by their DAG and their run.
            Some((dag_id, run_id)) => {
                query.push(" AND o.dag_id = ").push_bind(dag_id).push(" AND o.run_id = ").push_bind(run_id);
            }
            None => {
                query.push(" AND o.principal NOT LIKE 'run:%'");
            }
        }
    }
    if filter.approver.is_some() {
        query.push(" AND o.issuance_id IS NOT NULL AND o.grant_id = ANY(ARRAY(SELECT grant_id FROM grant_decision WHERE approve");
        one_of(query, "person", &names.approver);
        query.push("))");
    }
}

/// The DAG and the run of a principal that is one, as `Principal::subject` writes it.
fn run(principal: &str) -> Option<(String, String)> {
    let mut parts = principal.strip_prefix("run:")?.split(':');
    let (_issuer, dag_id, run_id) = (parts.next()?, parts.next()?, parts.next()?);
    let plain = |part: &str| {
        let bytes: Vec<u8> =
            form_urlencoded::parse(part.replace('+', "%2B").as_bytes()).next()?.0.bytes().collect();
        String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
    };
    Some((plain(dag_id).unwrap_or_default(), plain(run_id).unwrap_or_default()))
}

fn facts(query: &mut QueryBuilder<Postgres>, filter: &Filter, names: &Names) {
    if let Some(target) = &filter.target {
        query.push(" AND f.target = ").push_bind(target.clone());
    }
    if let Some(rule) = &filter.rule {
        query.push(" AND d.rule = ").push_bind(rule.clone());
    }
    if let Some(digest) = &filter.policy_digest {
        query.push(" AND f.policy_digest = ").push_bind(digest.as_bytes().to_vec());
    }
    if filter.triggering_user.is_some() {
        one_of(query, "f.triggering_user", &names.user);
    }
    if filter.break_glass {
        query.push(" AND f.break_glass");
    }
}

fn outcome(query: &mut QueryBuilder<Postgres>, outcome: Option<&str>) {
    match outcome {
        None | Some("denied") => {}
        Some("open") => {
            query.push(" AND o.issuance_id IN (SELECT issuance_id FROM open_intent) AND e.id IS NULL");
        }
        Some("issued") => {
            query.push(" AND COALESCE(e.outcome, o.outcome) = 'issued'");
        }
        Some(other) => {
            query.push(" AND e.outcome <> 'issued' AND e.outcome = ").push_bind(other.to_owned());
        }
    }
}

fn outside(query: &mut QueryBuilder<Postgres>, hours: &OfficeHours) {
    let there = |query: &mut QueryBuilder<Postgres>| {
        query.push("(o.at AT TIME ZONE ").push_bind(hours.timezone.clone()).push(")");
    };
    query.push(" AND (extract(isodow FROM ");
    there(query);
    query.push(") > 5 OR ");
    there(query);
    query.push("::time < ").push_bind(hours.open.to_string()).push("::time OR ");
    there(query);
    query.push("::time >= ").push_bind(hours.close.to_string()).push("::time)");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_s_principal_is_its_dag_and_its_run() {
        let found = run("run:prod:daily:scheduled__2026-11-23T00%3A00%3A00+00%3A00:publish:-:1");
        assert_eq!(found, Some(("daily".to_owned(), "scheduled__2026-11-23T00:00:00+00:00".to_owned())));
        assert_eq!(run("person:staff:bob"), None);
        assert_eq!(run("run-sha256:prod:abc"), None);
    }
}
