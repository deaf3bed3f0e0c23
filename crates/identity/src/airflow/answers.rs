//! What an Airflow answers, as far as it matters. Each answer says what it is about, and that has to be what was
//! asked.

use std::collections::BTreeSet;

use cortex_core::ClaimedRun;
use cortex_core::principal::Ident;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::AskError;
use crate::claim_map::ClaimPath;
use crate::claims;

type Answer = Map<String, Value>;

/// A task instance.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) state: Option<String>,
    pub(super) try_number: i64,
    pub(super) start_date: Option<Timestamp>,
}

impl Instance {
    pub(super) fn read(answer: &Answer, claim: &ClaimedRun) -> Result<Self, AskError> {
        same(answer, "dag_id", claim.dag_id.as_str())?;
        same(answer, "dag_run_id", claim.run_id.as_str())?;
        same(answer, "task_id", claim.task_id.as_str())?;
        // Airflow says -1 of a task that is not mapped.
        if answer.get("map_index").and_then(Value::as_i64) != Some(claim.map_index.map_or(-1, i64::from)) {
            return Err(AskError::Other("map_index"));
        }
        let try_number = answer.get("try_number").and_then(Value::as_i64);
        let start_date = text(answer, "start_date")?.map(str::parse).transpose();
        Ok(Self {
            state: text(answer, "state")?.map(str::to_owned),
            try_number: try_number.ok_or(AskError::Answer("try_number"))?,
            start_date: start_date.map_err(|_| AskError::Answer("start_date"))?,
        })
    }
}

/// A DAG run. Version 1 of the API says only its type.
#[derive(Debug)]
pub(super) struct DagRun {
    pub(super) run_type: Option<Ident>,
    pub(super) triggered_by: Option<Ident>,
    pub(super) triggering_user: Option<String>,
}

impl DagRun {
    pub(super) fn read(answer: &Answer, claim: &ClaimedRun) -> Result<Self, AskError> {
        same(answer, "dag_id", claim.dag_id.as_str())?;
        same(answer, "dag_run_id", claim.run_id.as_str())?;
        Ok(Self {
            run_type: ident(answer, "run_type")?,
            triggered_by: ident(answer, "triggered_by")?,
            triggering_user: claims::text(answer, &ClaimPath::dotted("triggering_user_name"))
                .map_err(AskError::Value)?,
        })
    }
}

/// A DAG. Version 1 of the API does not say its bundle.
#[derive(Debug)]
pub(super) struct Dag {
    pub(super) bundle: Option<Ident>,
    pub(super) tags: BTreeSet<String>,
}

impl Dag {
    pub(super) fn read(answer: &Answer, claim: &ClaimedRun) -> Result<Self, AskError> {
        same(answer, "dag_id", claim.dag_id.as_str())?;
        let tags = match answer.get("tags") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(tags)) => {
                let name = |tag: &Value| tag.get("name").cloned().ok_or(AskError::Answer("tags"));
                tags.iter().map(name).collect::<Result<Vec<_>, _>>()?
            }
            Some(_) => return Err(AskError::Answer("tags")),
        };
        let tags = Map::from_iter([("tags".to_owned(), Value::Array(tags))]);
        Ok(Self {
            bundle: ident(answer, "bundle_name")?,
            tags: claims::texts(&tags, &ClaimPath::dotted("tags")).map_err(AskError::Value)?,
        })
    }
}

fn same(answer: &Answer, name: &'static str, asked: &str) -> Result<(), AskError> {
    if answer.get(name).and_then(Value::as_str) == Some(asked) { Ok(()) } else { Err(AskError::Other(name)) }
}

fn text<'a>(answer: &'a Answer, name: &'static str) -> Result<Option<&'a str>, AskError> {
    match answer.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(AskError::Answer(name)),
    }
}

fn ident(answer: &Answer, name: &str) -> Result<Option<Ident>, AskError> {
    claims::ident(answer, &ClaimPath::dotted(name)).map_err(AskError::Value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn claim() -> ClaimedRun {
        let claim = json!({"dag_id": "d", "run_id": "r", "task_id": "t", "try_number": 1});
        serde_json::from_value(claim).unwrap()
    }

    fn instance(member: &str, value: Value) -> Result<Instance, AskError> {
        let mut answer = json!({
            "dag_id": "d", "dag_run_id": "r", "task_id": "t", "map_index": -1, "try_number": 1,
            "state": "running", "start_date": "2026-11-23T02:00:00.123456+01:00",
        });
        answer[member] = value;
        Instance::read(answer.as_object().unwrap(), &claim())
    }

    #[test]
    fn a_task_instance_is_read_as_airflow_writes_it() {
        let read = instance("state", json!(null)).unwrap();
        assert_eq!((read.state, read.try_number), (None, 1));
        assert_eq!(read.start_date, Some("2026-11-23T01:00:00.123456Z".parse().unwrap()));
    }

    #[test]
    fn an_answer_about_another_run_is_no_answer() {
        for (member, value) in [
            ("dag_id", json!("other")),
            ("dag_id", json!(null)),
            ("dag_run_id", json!("R")),
            ("task_id", json!("t ")),
            ("map_index", json!(0)),
            ("map_index", json!(null)),
        ] {
            let read = instance(member, value.clone());
            assert!(
                matches!(read, Err(AskError::Other(name)) if name == member),
                "{member} {value}: {read:?}"
            );
        }
        for (member, value) in [
            ("try_number", json!("1")),
            ("try_number", json!(1.5)),
            ("state", json!(["running"])),
            ("start_date", json!("yesterday")),
            ("start_date", json!("2026-11-23T02:00:00")),
        ] {
            let read = instance(member, value.clone());
            assert!(
                matches!(read, Err(AskError::Answer(name)) if name == member),
                "{member} {value}: {read:?}"
            );
        }
        let other = json!({"dag_id": "d", "dag_run_id": "other", "run_type": "manual"});
        assert!(DagRun::read(other.as_object().unwrap(), &claim()).is_err());
        let other = json!({"dag_id": "other", "tags": []});
        assert!(Dag::read(other.as_object().unwrap(), &claim()).is_err());
    }

    #[test]
    fn what_a_principal_cannot_have_is_refused() {
        for run_type in [json!("manual run"), json!(7), json!("")] {
            let answer = json!({"dag_id": "d", "dag_run_id": "r", "run_type": run_type});
            let read = DagRun::read(answer.as_object().unwrap(), &claim());
            assert!(matches!(read, Err(AskError::Value(_))), "{run_type}: {read:?}");
        }
        for tags in [json!([{"name": 7}]), json!([{"name": ""}])] {
            let read = Dag::read(json!({"dag_id": "d", "tags": tags}).as_object().unwrap(), &claim());
            assert!(matches!(read, Err(AskError::Value(_))), "{tags}: {read:?}");
        }
        for tags in [json!("nightly"), json!(["nightly"]), json!([{"label": "nightly"}])] {
            let read = Dag::read(json!({"dag_id": "d", "tags": tags}).as_object().unwrap(), &claim());
            assert!(matches!(read, Err(AskError::Answer("tags"))), "{tags}: {read:?}");
        }
    }
}
