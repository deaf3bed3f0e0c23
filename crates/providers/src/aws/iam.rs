//! The three calls to IAM that a revocation needs, signed with AWS's own signer.

use aws_credential_types::Credentials;
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use reqwest::Client;
use reqwest::header::CONTENT_TYPE;
use serde_json::Value;

use super::signature::Unsigned;
use crate::revocation::RevokeError;

/// The largest answer that is read, in bytes: a policy, encoded, and what surrounds it.
const MAX_ANSWER: usize = 128 * 1024;
const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";

/// Where IAM is and how calls to it are signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) url: String,
    pub(super) region: &'static str,
}

impl Endpoint {
    /// IAM of a partition; it is one service for all regions. `url` goes before AWS's own.
    pub(super) fn of(partition: &str, url: Option<&str>) -> Option<Self> {
        let (own, region) = match partition {
            "aws" => (Some("https://iam.amazonaws.com"), "us-east-1"),
            "aws-cn" => (Some("https://iam.cn-north-1.amazonaws.com.cn"), "cn-north-1"),
            "aws-us-gov" => (Some("https://iam.us-gov.amazonaws.com"), "us-gov-west-1"),
            "aws-iso" => (None, "us-iso-east-1"),
            "aws-iso-b" => (None, "us-isob-east-1"),
            "aws-iso-e" => (None, "eu-isoe-west-1"),
            "aws-iso-f" => (None, "us-isof-south-1"),
            _ => (None, "eusc-de-east-1"),
        };
        url.or(own).map(|url| Self { url: url.to_owned(), region })
    }
}

/// What IAM said no to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refused {
    /// There is no such policy, or no such role.
    NoSuchEntity,
    /// The role's inline policies would be too large.
    LimitExceeded,
    /// Anything else, in words.
    Other(RevokeError),
}

/// One role's inline policy of one name.
pub(super) struct InlinePolicy<'a> {
    pub(super) http: &'a Client,
    pub(super) endpoint: &'a Endpoint,
    pub(super) credentials: &'a Credentials,
    pub(super) role_name: &'a str,
    pub(super) policy_name: &'a str,
    pub(super) now: Timestamp,
}

impl InlinePolicy<'_> {
    /// The document as it is; none where there is no such policy.
    pub(super) async fn get(&self) -> Result<Option<Value>, Refused> {
        let body = match self.call("GetRolePolicy", None).await {
            Ok(body) => body,
            Err(Refused::NoSuchEntity) => return Ok(None),
            Err(refused) => return Err(refused),
        };
        let document = element(&body, "PolicyDocument").unwrap_or_default();
        // What cannot be read is not what it has to be, and is written anew.
        let text = percent_decode_str(document).decode_utf8_lossy();
        Ok(Some(serde_json::from_str(&text).unwrap_or_default()))
    }

    /// Writes the document. Answers IAM's id of the request.
    pub(super) async fn put(&self, document: &str) -> Result<String, Refused> {
        let body = self.call("PutRolePolicy", Some(document)).await?;
        Ok(element(&body, "RequestId").unwrap_or_default().to_owned())
    }

    /// Removes the policy, if it is there.
    pub(super) async fn delete(&self) -> Result<(), Refused> {
        match self.call("DeleteRolePolicy", None).await {
            Ok(_) | Err(Refused::NoSuchEntity) => Ok(()),
            Err(refused) => Err(refused),
        }
    }

    async fn call(&self, action: &str, document: Option<&str>) -> Result<String, Refused> {
        let mut form = vec![
            ("Action", action),
            ("Version", "2010-05-08"),
            ("RoleName", self.role_name),
            ("PolicyName", self.policy_name),
        ];
        form.extend(document.map(|document| ("PolicyDocument", document)));
        let request = self.http.post(&self.endpoint.url).form(&form).build();
        let body = request.ok().and_then(|request| Some(request.body()?.as_bytes()?.to_vec()));
        let body = body.ok_or_else(|| other("The request to IAM could not be made."))?;
        let mut request = self.http.post(&self.endpoint.url).header(CONTENT_TYPE, FORM);
        for (name, value) in self.signature(&body)? {
            request = request.header(name, value);
        }
        let response = request.body(body).send().await.map_err(|error| {
            let what = if error.is_connect() { "could not be reached" } else { "did not answer in time" };
            other(format!("IAM {what}."))
        })?;
        let status = response.status();
        let body = read(response).await?;
        if status.is_success() && body.contains(&format!("<{action}Response")) {
            return Ok(body);
        }
        Err(refused(action, status.as_u16(), element(&body, "Code").unwrap_or_default()))
    }

    fn signature(&self, body: &[u8]) -> Result<Vec<(String, String)>, Refused> {
        let unsigned = Unsigned {
            url: &self.endpoint.url,
            region: self.endpoint.region,
            service: "iam",
            headers: &[("content-type", FORM)],
            body,
        };
        let signed = unsigned.signed(self.credentials, self.now);
        signed.ok_or_else(|| other("The request to IAM could not be signed."))
    }
}

fn other(message: impl Into<String>) -> Refused {
    Refused::Other(RevokeError::new(message))
}

async fn read(mut response: reqwest::Response) -> Result<String, Refused> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|_| other("IAM gave only a part of an answer."))? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(other("IAM gave an answer that is too large."));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// What a failure means. IAM's own text is not passed on; its code is.
fn refused(action: &str, status: u16, code: &str) -> Refused {
    let known = code.len() <= 64 && code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.');
    match code {
        "NoSuchEntity" => Refused::NoSuchEntity,
        "LimitExceeded" => Refused::LimitExceeded,
        "AccessDenied" => other(format!(
            "IAM denies {action} to this Cortex: allow it iam:GetRolePolicy, iam:PutRolePolicy and \
             iam:DeleteRolePolicy on the role."
        )),
        code if known && !code.is_empty() => other(format!("IAM answered {action} with {code}.")),
        _ => other(format!("IAM answered {action} with status {status} and nothing that can be read.")),
    }
}

/// The text of the first element of this name: IAM's answers have no attributes, and what is read of them has no
/// entities.
fn element<'a>(body: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(text, _)| text)
}
