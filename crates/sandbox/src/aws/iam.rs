//! The little of IAM that a revocation needs: the inline policies of a role.

use axum::http::StatusCode;
use axum::response::Response;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::document::Document;
use super::error::AwsError;
use super::sts::envelope;
use super::xml::{Xml, respond};
use super::{Aws, IAM, LiveRole, Params};
use crate::gate::Call;

/// What all inline policies of a role may have together, in characters without whitespace.
const MAX_INLINE: usize = 10_240;

impl Aws {
    pub(super) fn iam(
        &self,
        action: &str,
        params: &Params,
        call: &Call,
        request_id: &str,
    ) -> Result<Response, AwsError> {
        let caller = self.signed_by(call, "iam")?;
        let role_name = params.required("RoleName")?;
        let role_arn = format!("arn:aws:iam::{}:role/{role_name}", self.account);
        self.authorise(&caller, &format!("iam:{action}"), &role_arn, &[])?;
        let mut state = self.state();
        let role = state.roles.get_mut(role_name).ok_or_else(|| {
            AwsError::missing("NoSuchEntity", format!("The role with name {role_name} cannot be found."))
        })?;
        let result = match action {
            "PutRolePolicy" => put(role, role_name, params)?,
            "GetRolePolicy" => get(role, role_name, params)?,
            "DeleteRolePolicy" => delete(role, params)?,
            "ListRolePolicies" => list(role),
            _ => {
                return Err(AwsError::bad("InvalidAction", format!("Could not find operation {action}")));
            }
        };
        Ok(respond(StatusCode::OK, request_id, envelope(action, IAM, &result, request_id)))
    }
}

fn put(role: &mut LiveRole, role_name: &str, params: &Params) -> Result<Xml, AwsError> {
    let name = params.required("PolicyName")?;
    if !is_policy_name(name) {
        return Err(AwsError::validation(format!("The policy name {name:?} is malformed.")));
    }
    let text = params.required("PolicyDocument")?;
    let document = Document::permissions(text)
        .map_err(|bad| AwsError::bad("MalformedPolicyDocument", bad.to_string()))?;
    let others = role.policies.iter().filter(|(other, _)| other.as_str() != name);
    let size = others.map(|(_, (text, _))| counted(text)).sum::<usize>() + counted(text);
    if size > MAX_INLINE {
        let message = format!("Maximum policy size of {MAX_INLINE} bytes exceeded for role {role_name}");
        return Err(AwsError::conflict("LimitExceeded", message));
    }
    role.policies.insert(name.to_owned(), (text.to_owned(), document));
    Ok(Xml::default())
}

fn get(role: &LiveRole, role_name: &str, params: &Params) -> Result<Xml, AwsError> {
    let name = params.required("PolicyName")?;
    let (text, _) = role.policies.get(name).ok_or_else(|| no_policy(name))?;
    Ok(Xml::default()
        .text("RoleName", role_name)
        .text("PolicyName", name)
        .text("PolicyDocument", utf8_percent_encode(text, NON_ALPHANUMERIC)))
}

fn delete(role: &mut LiveRole, params: &Params) -> Result<Xml, AwsError> {
    let name = params.required("PolicyName")?;
    role.policies.remove(name).map(|_| Xml::default()).ok_or_else(|| no_policy(name))
}

fn list(role: &LiveRole) -> Xml {
    let names = role.policies.keys().fold(Xml::default(), |names, name| names.text("member", name));
    Xml::default().element("PolicyNames", &names).text("IsTruncated", false)
}

fn no_policy(name: &str) -> AwsError {
    AwsError::missing("NoSuchEntity", format!("The role policy with name {name} cannot be found."))
}

/// IAM does not count whitespace.
fn counted(text: &str) -> usize {
    text.chars().filter(|c| !c.is_whitespace()).count()
}

/// `[\w+=,.@-]{1,128}`.
fn is_policy_name(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b))
}
