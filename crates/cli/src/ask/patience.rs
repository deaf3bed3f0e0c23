//! Waiting for people: a run whose policy wants an approval asks again when it is there.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{Ask, Bundle, Pending, Refusal, Subject};
use crate::api::Api;
use crate::error::{Error, Exit};
use crate::output;

/// How long the server holds a question on to a grant's status, in seconds; the longest that it allows.
const HOLD_S: u64 = 20;

/// The credentials, after people have approved them if that is what it takes, or after `patience` an error.
pub(crate) async fn settle(ask: &Ask, subject: &mut Subject, patience: Duration) -> Result<Bundle, Error> {
    let give_up = Instant::now() + patience;
    loop {
        let pending = match ask.send(subject).await? {
            Ok(bundle) => return Ok(bundle),
            Err(Refusal::Pending(pending)) => pending,
            Err(refusal) => return Err(refusal.into()),
        };
        wait(ask, &pending, give_up).await?;
    }
}

/// Waits until the grant is decided.
async fn wait(ask: &Ask, pending: &Pending, give_up: Instant) -> Result<(), Error> {
    let api = Api::bearing(ask.server.clone(), pending.handle.clone())?;
    let path = format!("/v1/grants/{}/status", pending.grant_id);
    let mut told = false;
    loop {
        let left = give_up.saturating_duration_since(Instant::now());
        let hold = left.as_secs().min(HOLD_S).to_string();
        let status = api.query(&path, &[("wait", hold)]).await?;
        if !std::mem::replace(&mut told, true) {
            say(ask, pending, &status, left);
        }
        if status.get("status").and_then(Value::as_str) != Some("requested") {
            return Ok(());
        }
        if Instant::now() >= give_up {
            let text = format!("grant {} still waits for approval; ask again later", pending.grant_id);
            return Err(Error::Of(Exit::Waiting, text));
        }
        // The server holds the question; where it does not, we do not hurry it either.
        tokio::time::sleep(left.min(Duration::from_secs(1))).await;
    }
}

fn say(ask: &Ask, pending: &Pending, status: &Value, left: Duration) {
    let list = |name: &str| {
        status.pointer(&format!("/approvers/{name}")).map(output::text).filter(|text| text != "-")
    };
    let groups = list("groups").map(|groups| format!("members of {groups}"));
    let who: Vec<String> = groups.into_iter().chain(list("people")).collect();
    let who = if who.is_empty() { "an approver of the policy".to_owned() } else { who.join(" or ") };
    eprintln!(
        "cortex: policy {} wants an approval by {who}; waiting up to {} s for grant {}\n        cortex grant approve {}",
        ask.policy,
        left.as_secs(),
        pending.grant_id,
        pending.grant_id,
    );
}
