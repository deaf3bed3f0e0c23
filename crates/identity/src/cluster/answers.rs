//! What a cluster answers, as far as it matters.

use cortex_core::principal::Ident;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{is_name, unavailable};
use crate::rejection::{Reason, Refused};

/// The prefix of a service account's user name.
const ACCOUNT_PREFIX: &str = "system:serviceaccount:";
/// Where the review says which pod the token is bound to.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// A service account that the cluster vouches for.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) namespace: String,
    pub(super) name: String,
    /// Name and uid of the pod that the token is bound to.
    pub(super) pod: Option<(String, String)>,
}

#[derive(Deserialize)]
struct Review {
    #[serde(default)]
    status: ReviewStatus,
}

#[derive(Default, Deserialize)]
struct ReviewStatus {
    #[serde(default)]
    authenticated: bool,
    #[serde(default)]
    user: User,
    #[serde(default)]
    audiences: Vec<String>,
}

#[derive(Default, Deserialize)]
struct User {
    #[serde(default)]
    username: String,
    #[serde(default)]
    extra: std::collections::BTreeMap<String, Vec<String>>,
}

impl Account {
    /// Reads a finished `TokenReview`. One without `audiences` comes from an authenticator that does not know of
    /// audiences: then the token was made for the cluster itself, and proves nothing to others.
    pub(super) fn read(answer: &Map<String, Value>, audience: &str) -> Result<Self, Refused> {
        let review = Review::deserialize(answer).map_err(|_| unavailable("its review cannot be read"))?;
        let ReviewStatus { authenticated, user, audiences } = review.status;
        if !authenticated {
            return Err(Refused::new(Reason::Review, "the cluster does not vouch for the token"));
        }
        if !audiences.iter().any(|known| known == audience) {
            return Err(Refused::new(Reason::Review, "the cluster vouches for it for another audience"));
        }
        let account = user.username.strip_prefix(ACCOUNT_PREFIX).and_then(|rest| rest.split_once(':'));
        let Some((namespace, name)) = account.filter(|(namespace, name)| is_name(namespace) && is_name(name))
        else {
            return Err(Refused::new(Reason::Review, "the token is not a service account's"));
        };
        let pod = only(&user, POD_NAME).filter(|pod| is_name(pod)).zip(only(&user, POD_UID));
        Ok(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            pod: pod.map(|(pod, uid)| (pod.to_owned(), uid.to_owned())),
        })
    }

    /// Its user name, which is the `sub` of its tokens.
    pub(super) fn username(&self) -> String {
        format!("{ACCOUNT_PREFIX}{}:{}", self.namespace, self.name)
    }
}

fn only<'a>(user: &'a User, key: &str) -> Option<&'a str> {
    match user.extra.get(key).map(Vec::as_slice) {
        Some([only]) if !only.is_empty() => Some(only),
        _ => None,
    }
}

/// The run that a pod's annotations name.
#[derive(Debug)]
pub(super) struct Pod {
    pub(super) dag_id: Ident,
    pub(super) run_id: Ident,
    pub(super) task_id: Ident,
    pub(super) map_index: Option<u32>,
    pub(super) try_number: u32,
}

impl Pod {
    /// Reads a pod that has to be this one, running, and not about to end.
    pub(super) fn read(
        answer: &Map<String, Value>,
        account: &Account,
        name: &str,
        uid: &str,
    ) -> Result<Self, Refused> {
        let at = |section: &str, key: &str| answer.get(section).and_then(|section| section.get(key));
        let text = |section: &str, key: &str| at(section, key).and_then(Value::as_str);
        if text("metadata", "uid") != Some(uid)
            || text("metadata", "name") != Some(name)
            || text("metadata", "namespace") != Some(account.namespace.as_str())
            || text("spec", "serviceAccountName") != Some(account.name.as_str())
        {
            return Err(Refused::new(Reason::Pod, "the pod of this name is another one"));
        }
        let ending = at("metadata", "deletionTimestamp").is_some_and(|at| !at.is_null());
        if text("status", "phase") != Some("Running") || ending {
            return Err(Refused::new(Reason::Pod, "the pod is not running, or is being deleted"));
        }
        Self::annotated(at("metadata", "annotations").and_then(Value::as_object))
    }

    fn annotated(annotations: Option<&Map<String, Value>>) -> Result<Self, Refused> {
        let text = |name: &str| annotations.and_then(|all| all.get(name)).and_then(Value::as_str);
        let bad =
            |name: &str| Refused::new(Reason::Claim, format!("the annotation {name} is missing or refused"));
        let ident = |name: &str| text(name).and_then(|text| text.parse().ok()).ok_or_else(|| bad(name));
        let map_index = match text("map_index") {
            None | Some("-1") => None,
            Some(index) => Some(number(index).ok_or_else(|| bad("map_index"))?),
        };
        let try_number = text("try_number").and_then(number).filter(|number| *number > 0);
        Ok(Self {
            dag_id: ident("dag_id")?,
            run_id: ident("run_id")?,
            task_id: ident("task_id")?,
            map_index,
            try_number: try_number.ok_or_else(|| bad("try_number"))?,
        })
    }
}

/// A number in its one spelling.
fn number(text: &str) -> Option<u32> {
    text.parse::<u32>().ok().filter(|number| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn review(change: impl FnOnce(&mut Value)) -> Result<Account, Refused> {
        let mut answer = json!({"kind": "TokenReview", "status": {
            "authenticated": true,
            "user": {
                "username": "system:serviceaccount:airflow:worker",
                "groups": ["system:authenticated"],
                "extra": {POD_NAME: ["p1"], POD_UID: ["u1"]},
            },
            "audiences": ["cortex"],
        }});
        change(&mut answer["status"]);
        Account::read(answer.as_object().unwrap(), "cortex")
    }

    #[test]
    fn a_review_names_the_account_and_its_pod() {
        let account = review(|_| ()).unwrap();
        assert_eq!(account.username(), "system:serviceaccount:airflow:worker");
        assert_eq!(account.pod, Some(("p1".to_owned(), "u1".to_owned())));
    }

    #[test]
    fn a_review_that_does_not_say_all_of_it_vouches_for_nobody() {
        type Break = fn(&mut Value);
        let cases: [(&str, Break); 9] = [
            ("not authenticated", |s| s["authenticated"] = json!(false)),
            ("does not say", |s| drop(s.as_object_mut().unwrap().remove("authenticated"))),
            ("knows of no audiences", |s| drop(s.as_object_mut().unwrap().remove("audiences"))),
            ("another audience", |s| s["audiences"] = json!(["https://kubernetes.default.svc"])),
            ("a person", |s| s["user"]["username"] = json!("alice")),
            ("a node", |s| s["user"]["username"] = json!("system:node:n1")),
            ("a path", |s| s["user"]["username"] = json!("system:serviceaccount:..:worker")),
            ("three parts", |s| s["user"]["username"] = json!("system:serviceaccount:a:b:c")),
            ("no text", |s| s["audiences"] = json!("cortex")),
        ];
        for (what, spoil) in cases {
            assert!(review(spoil).is_err(), "{what}");
        }
        let cases: [(&str, Break); 4] = [
            ("no uid", |s| drop(s["user"]["extra"].as_object_mut().unwrap().remove(POD_UID))),
            ("two pods", |s| s["user"]["extra"][POD_NAME] = json!(["p1", "p2"])),
            ("a path", |s| s["user"]["extra"][POD_NAME] = json!(["../secrets"])),
            ("no extra", |s| drop(s["user"].as_object_mut().unwrap().remove("extra"))),
        ];
        for (what, spoil) in cases {
            assert_eq!(review(spoil).unwrap().pod, None, "{what}");
        }
    }
}
