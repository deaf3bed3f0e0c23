//! Who signed a request, and what they may do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::document::Document;
use super::error::AwsError;
use super::evaluate::{Attempt, Context, Knocker, Verdict, permit};
use super::sigv4::{Seed, Signature, SignatureFault};
use super::{Aws, LiveUser};
use crate::gate::Call;

/// A session of a role.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) secret_access_key: String,
    pub(crate) token: String,
    pub(crate) role: String,
    pub(crate) role_arn: String,
    pub(crate) arn: String,
    /// `AROA…:session-name`.
    pub(crate) user_id: String,
    pub(crate) issued_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) transitive: BTreeSet<String>,
    pub(crate) source_identity: Option<String>,
    pub(crate) policy: Option<Document>,
}

/// Whoever's signature was verified.
pub(crate) enum Caller<'a> {
    User { user: &'a LiveUser, arn: String },
    Session(Arc<Session>),
}

impl Caller<'_> {
    pub(crate) fn arn(&self) -> &str {
        match self {
            Self::User { arn, .. } => arn,
            Self::Session(session) => &session.arn,
        }
    }

    pub(crate) fn user_id(&self) -> &str {
        match self {
            Self::User { user, .. } => &user.name,
            Self::Session(session) => &session.user_id,
        }
    }

    pub(crate) fn session(&self) -> Option<&Session> {
        match self {
            Self::User { .. } => None,
            Self::Session(session) => Some(session),
        }
    }

    pub(crate) fn knocker<'a>(&'a self, account: &'a str) -> Knocker<'a> {
        let role_arn = self.session().map(|session| session.role_arn.as_str());
        Knocker::Aws { arn: self.arn(), role_arn, account }
    }

    /// The condition keys that AWS knows of the caller.
    fn context(&self) -> Context {
        let mut context = Context::default();
        context.set("aws:PrincipalArn", self.arn());
        context.set("aws:userid", self.user_id());
        if let Self::Session(session) = self {
            context.set("aws:PrincipalArn", &session.role_arn);
            context.set("aws:TokenIssueTime", session.issued_at.to_string());
            for (key, value) in &session.tags {
                context.set(&format!("aws:PrincipalTag/{key}"), value);
            }
            if let Some(source_identity) = &session.source_identity {
                context.set("aws:SourceIdentity", source_identity);
            }
        }
        context
    }
}

/// Why a caller is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuthFault {
    Signature(SignatureFault),
    UnknownKey,
    WrongToken,
    Expired,
}

impl From<SignatureFault> for AuthFault {
    fn from(fault: SignatureFault) -> Self {
        Self::Signature(fault)
    }
}

impl AuthFault {
    /// As STS and IAM say it.
    pub(crate) fn in_query_api(self) -> AwsError {
        match self {
            Self::Signature(SignatureFault::Missing) => {
                AwsError::forbidden("MissingAuthenticationToken", "Request is missing Authentication Token")
            }
            Self::Signature(SignatureFault::Malformed | SignatureFault::Scope) => AwsError::bad(
                "IncompleteSignature",
                "The request signature does not conform to AWS standards.",
            ),
            Self::Signature(SignatureFault::Skewed) => AwsError::forbidden(
                "SignatureDoesNotMatch",
                "Signature expired or not yet current: the request's time is more than 15 minutes off.",
            ),
            Self::Signature(SignatureFault::Mismatch | SignatureFault::Body) => AwsError::forbidden(
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided.",
            ),
            Self::UnknownKey | Self::WrongToken => AwsError::forbidden(
                "InvalidClientTokenId",
                "The security token included in the request is invalid.",
            ),
            Self::Expired => {
                AwsError::forbidden("ExpiredToken", "The security token included in the request is expired")
            }
        }
    }

    /// As the APIs that speak JSON say it.
    pub(crate) fn in_json(self) -> AwsError {
        let (code, message) = match self {
            Self::Signature(SignatureFault::Missing) => {
                ("MissingAuthenticationTokenException", "Missing Authentication Token")
            }
            Self::Signature(SignatureFault::Malformed | SignatureFault::Scope) => {
                ("IncompleteSignatureException", "The request signature does not conform to AWS standards.")
            }
            Self::Signature(_) => (
                "InvalidSignatureException",
                "The request signature we calculated does not match the signature you provided.",
            ),
            Self::UnknownKey | Self::WrongToken => {
                ("UnrecognizedClientException", "The security token included in the request is invalid.")
            }
            Self::Expired => {
                ("ExpiredTokenException", "The security token included in the request is expired")
            }
        };
        AwsError::bad(code, message)
    }

    /// As S3 says it.
    pub(crate) fn in_s3(self) -> AwsError {
        match self {
            Self::Signature(SignatureFault::Missing) => AwsError::forbidden("AccessDenied", "Access Denied"),
            Self::Signature(SignatureFault::Malformed | SignatureFault::Scope) => AwsError::bad(
                "AuthorizationHeaderMalformed",
                "The authorization header you provided is invalid.",
            ),
            Self::Signature(SignatureFault::Skewed) => AwsError::forbidden(
                "RequestTimeTooSkewed",
                "The difference between the request time and the current time is too large.",
            ),
            Self::Signature(SignatureFault::Mismatch) => AwsError::forbidden(
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided.",
            ),
            Self::Signature(SignatureFault::Body) => AwsError::bad(
                "XAmzContentSHA256Mismatch",
                "The provided 'x-amz-content-sha256' header does not match what was computed.",
            ),
            Self::UnknownKey => AwsError::forbidden(
                "InvalidAccessKeyId",
                "The AWS Access Key Id you provided does not exist in our records.",
            ),
            Self::WrongToken => {
                AwsError::bad("InvalidToken", "The provided token is malformed or otherwise invalid.")
            }
            Self::Expired => AwsError::bad("ExpiredToken", "The provided token has expired."),
        }
    }
}

impl Aws {
    /// Verifies the signature of `call` for `service`; `payload` is the last line of the canonical request.
    pub(crate) fn authenticate(
        &self,
        call: &Call,
        service: &str,
        payload: &str,
    ) -> Result<(Caller<'_>, Seed), AuthFault> {
        let signature = Signature::read(call)?;
        let now = self.world.now();
        let caller = self.key_holder(&signature)?;
        let secret = match &caller {
            Caller::User { user, .. } => &user.secret_access_key,
            Caller::Session(session) => &session.secret_access_key,
        };
        let seed = signature.verify(call, secret, service, payload, now)?;
        if caller.session().is_some_and(|session| session.expires_at <= now) {
            return Err(AuthFault::Expired);
        }
        Ok((caller, seed))
    }

    fn key_holder(&self, signature: &Signature) -> Result<Caller<'_>, AuthFault> {
        if let Some(user) = self.users.get(&signature.access_key_id) {
            if signature.session_token.is_some() {
                return Err(AuthFault::WrongToken);
            }
            let arn = format!("arn:aws:iam::{}:user/{}", self.account, user.name);
            return Ok(Caller::User { user, arn });
        }
        let session = self.state().sessions.get(&signature.access_key_id).cloned();
        let session = session.ok_or(AuthFault::UnknownKey)?;
        if signature.session_token.as_deref() != Some(&session.token) {
            return Err(AuthFault::WrongToken);
        }
        Ok(Caller::Session(session))
    }

    /// Whether `caller` may do `action` on `resource`; `more` are condition keys of the request itself.
    pub(crate) fn authorise(
        &self,
        caller: &Caller<'_>,
        action: &str,
        resource: &str,
        more: &[(&str, &str)],
    ) -> Result<(), AwsError> {
        let mut context = caller.context();
        for (key, value) in more {
            context.set(key, *value);
        }
        let attempt = Attempt { action, resource, context: &context };
        let verdict = match caller {
            Caller::User { user, .. } => permit(&user.policies, None, attempt),
            Caller::Session(session) => {
                let state = self.state();
                // A role that is gone allows nothing.
                let policies =
                    state.roles.get(&session.role).into_iter().flat_map(|role| role.policies.values());
                permit(policies.map(|(_, document)| document), session.policy.as_ref(), attempt)
            }
        };
        let why = match verdict {
            Verdict::Allow => return Ok(()),
            Verdict::Explicit => "with an explicit deny in a policy",
            Verdict::Implicit => "because no identity-based and session policy together allow it",
        };
        let arn = caller.arn();
        let message =
            format!("User: {arn} is not authorized to perform: {action} on resource: {resource} {why}");
        Err(AwsError::forbidden("AccessDenied", message))
    }
}
