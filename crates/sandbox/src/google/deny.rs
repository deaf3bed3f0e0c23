//! IAM deny policies (v2) of projects: the one kind of attachment point that the sandbox has.

use std::collections::BTreeMap;

use axum::Json;
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use super::{Access, CLOUD_PLATFORM, Google};
use crate::gate::Call;

/// How many principals all deny policies of a project may name together.
const MAX_PRINCIPALS: usize = 2_500;

/// The deny policies, by project and policy id, and the operations that are done.
#[derive(Debug, Default)]
pub(super) struct Denials {
    policies: BTreeMap<(String, String), Stored>,
    written: u64,
}

#[derive(Debug, Clone)]
struct Stored {
    etag: String,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Body {
    #[serde(default, rename = "displayName")]
    _display_name: String,
    #[serde(default)]
    etag: Option<String>,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    #[serde(default)]
    description: String,
    deny_rule: DenyRule,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DenyRule {
    denied_principals: Vec<String>,
    denied_permissions: Vec<String>,
}

impl Rule {
    fn body(&self) -> Value {
        json!({"description": self.description, "denyRule": {
            "deniedPrincipals": self.deny_rule.denied_principals,
            "deniedPermissions": self.deny_rule.denied_permissions,
        }})
    }
}

/// The project and, where there is one, the policy of a path after `/v2/`.
fn place(path: &str) -> Option<(String, Option<String>)> {
    let rest = path.strip_prefix("policies/cloudresourcemanager.googleapis.com/projects/")?;
    let (project, rest) = rest.split_once("/denypolicies")?;
    match rest.strip_prefix('/') {
        None if rest.is_empty() => Some((project.to_owned(), None)),
        Some(id) if !id.is_empty() && !id.contains('/') => Some((project.to_owned(), Some(id.to_owned()))),
        _ => None,
    }
}

impl Google {
    /// `rest` is the path after `/v2/`, decoded.
    pub(super) fn deny_policies(&self, call: &Call, rest: &str) -> Result<Response, ApiError> {
        let holder = self.holder(call)?;
        let may = holder.is_one_of(&self.deny_admins) && holder.scopes.contains(CLOUD_PLATFORM);
        if !may {
            return Err(ApiError::denied("Permission 'iam.denypolicies.update' denied on resource."));
        }
        if call.method == Method::GET && rest.starts_with("operations/") {
            return Ok(Json(json!({"name": rest, "done": true})).into_response());
        }
        let (project, id) = place(rest).ok_or_else(|| ApiError::missing(rest))?;
        let mut denials = self.denials();
        let body = match (&call.method, id) {
            (&Method::GET, Some(id)) => denials.get(&project, &id)?,
            (&Method::POST, None) => {
                let id = call.param("policyId").ok_or_else(|| ApiError::invalid("policyId is required."))?;
                if denials.policies.contains_key(&(project.clone(), id.clone())) {
                    return Err(ApiError::conflict("The policy exists."));
                }
                denials.put(project, id, read(call)?)?
            }
            (&Method::PUT, Some(id)) => {
                let body = read(call)?;
                denials.check(&project, &id, body.etag.as_deref())?;
                denials.put(project, id, body)?
            }
            (&Method::DELETE, Some(id)) => {
                denials.check(&project, &id, call.param("etag").as_deref())?;
                denials.policies.remove(&(project, id));
                denials.operation()
            }
            _ => return Err(ApiError::missing(rest)),
        };
        Ok(Json(body).into_response())
    }

    /// Refuses what a deny policy of the project forbids the holder; it goes before every binding.
    pub(super) fn refuse_denied(
        &self,
        access: &Access,
        project: &str,
        permission: &str,
    ) -> Result<(), ApiError> {
        let permission = format!("bigquery.googleapis.com/{permission}");
        let is_holder = |principal: &String| access.members.iter().any(|member| member.as_str() == principal);
        let denied = self.denials().policies.iter().any(|((of, _), policy)| {
            of == project
                && policy.rules.iter().any(|rule| {
                    rule.deny_rule.denied_permissions.contains(&permission)
                        && rule.deny_rule.denied_principals.iter().any(is_holder)
                })
        });
        if denied {
            return Err(ApiError::denied(format!("Access Denied: {permission} is denied by a deny policy.")));
        }
        Ok(())
    }
}

fn read(call: &Call) -> Result<Body, ApiError> {
    serde_json::from_slice(&call.body)
        .map_err(|error| ApiError::invalid(format!("Invalid JSON payload received: {error}")))
}

impl Denials {
    fn get(&self, project: &str, id: &str) -> Result<Value, ApiError> {
        let stored = self.policies.get(&(project.to_owned(), id.to_owned()));
        let stored = stored.ok_or_else(|| ApiError::missing(id))?;
        let rules: Vec<Value> = stored.rules.iter().map(Rule::body).collect();
        Ok(json!({"kind": "DenyPolicy", "etag": stored.etag, "rules": rules}))
    }

    fn check(&self, project: &str, id: &str, etag: Option<&str>) -> Result<(), ApiError> {
        let stored = self.policies.get(&(project.to_owned(), id.to_owned()));
        match stored.ok_or_else(|| ApiError::missing(id))? {
            stored if Some(stored.etag.as_str()) == etag => Ok(()),
            _ => Err(ApiError::conflict("The etag is stale.")),
        }
    }

    fn put(&mut self, project: String, id: String, body: Body) -> Result<Value, ApiError> {
        let principals =
            |rules: &[Rule]| rules.iter().map(|rule| rule.deny_rule.denied_principals.len()).sum::<usize>();
        let others = self.policies.iter().filter(|((of, other), _)| *of == project && *other != id);
        let named =
            others.map(|(_, policy)| principals(&policy.rules)).sum::<usize>() + principals(&body.rules);
        if named > MAX_PRINCIPALS {
            return Err(ApiError::invalid("Too many principals in the deny policies of the project."));
        }
        self.written += 1;
        let etag = format!("sandbox-{}", self.written);
        self.policies.insert((project, id), Stored { etag, rules: body.rules });
        Ok(self.operation())
    }

    /// What a change answers: an operation, to be asked for until it is done.
    fn operation(&self) -> Value {
        json!({"name": format!("operations/sandbox-{}", self.written), "done": false})
    }
}
