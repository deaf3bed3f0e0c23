//! What STS's failures mean: refused, later, or unknown. AWS's own text is never passed on, since it may quote
//! what was sent.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sts::config::http::HttpResponse;
use aws_sdk_sts::error::{ProvideErrorMetadata, SdkError};

use super::arn::RoleArn;
use crate::MintError;
use crate::calls::Attempt;

/// Sorts one failed call.
pub(super) fn classify<T, E>(error: &SdkError<E, HttpResponse>, role: &RoleArn) -> Attempt<T>
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    match error {
        SdkError::ServiceError(service) => {
            let status = service.raw().status().as_u16();
            let retry_after = service.raw().headers().get("retry-after").and_then(|text| text.parse().ok());
            answered(service.err().code(), status, retry_after, role)
        }
        SdkError::ResponseError(response) if response.raw().status().is_client_error() => {
            Attempt::Failed(refused(None, role))
        }
        SdkError::ResponseError(_) => {
            Attempt::Failed(indeterminate("AWS gave an answer that cannot be read"))
        }
        SdkError::ConstructionFailure(_) => {
            Attempt::Failed(unavailable("The request to AWS could not be made", None))
        }
        error => not_answered(error),
    }
}

fn not_answered<T>(error: &(dyn Error + 'static)) -> Attempt<T> {
    if chain(error).any(<dyn Error>::is::<CredentialsError>) {
        let message = "Cortex could not get AWS credentials of its own to assume the role with";
        return Attempt::Again(unavailable(message, None));
    }
    let connect = |cause: &(dyn Error + 'static)| {
        cause
            .downcast_ref::<hyper_util::client::legacy::Error>()
            .is_some_and(hyper_util::client::legacy::Error::is_connect)
    };
    if chain(error).any(connect) {
        return Attempt::Again(unavailable("AWS STS could not be reached", None));
    }
    Attempt::Again(indeterminate("AWS STS did not answer in full"))
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| Error::source(error))
}

fn answered<T>(code: Option<&str>, status: u16, retry_after: Option<u32>, role: &RoleArn) -> Attempt<T> {
    match (code, status) {
        (
            Some(
                "Throttling"
                | "ThrottlingException"
                | "ThrottledException"
                | "RequestLimitExceeded"
                | "RequestThrottled"
                | "TooManyRequestsException"
                | "SlowDown",
            ),
            _,
        )
        | (_, 429) => Attempt::Again(unavailable("AWS STS is throttling this account", retry_after)),
        (Some("ServiceUnavailable" | "ServiceUnavailableException"), _) | (_, 503) => {
            Attempt::Again(unavailable("AWS STS is unavailable", retry_after))
        }
        (Some("IDPCommunicationError"), _) => Attempt::Again(unavailable(
            "AWS could not read the keys of this Cortex; its discovery document and its JWKS have to answer AWS within 5 seconds",
            retry_after,
        )),
        (code, 400..=499) => Attempt::Failed(refused(code, role)),
        (_, 200..=299) => Attempt::Failed(indeterminate("AWS gave an answer that cannot be read")),
        _ => Attempt::Again(indeterminate("AWS STS failed inside")),
    }
}

fn unavailable(what: &str, retry_after: Option<u32>) -> MintError {
    MintError::Unavailable {
        message: format!("{what}."),
        retry_after: retry_after.map(|seconds| seconds.min(3600)),
    }
}

fn indeterminate(what: &str) -> MintError {
    MintError::Indeterminate {
        message: format!("{what}; it may have made a session, which nobody received."),
    }
}

fn refused(code: Option<&str>, role: &RoleArn) -> MintError {
    let known =
        code.filter(|code| code.len() <= 64 && code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.'));
    let (what, remedy) = explain(known.unwrap_or_default());
    MintError::Refused {
        code: known.unwrap_or("Unknown").to_owned(),
        message: format!("AWS refused a session of {role}: {what}."),
        remedy: remedy.to_owned(),
    }
}

/// What is the case and what to do, for each code of STS.
fn explain(code: &str) -> (&'static str, &'static str) {
    match code {
        "AccessDenied" | "AccessDeniedException" => (
            "its trust policy does not let Cortex assume it",
            "Let the role's trust policy name this Cortex and allow the assume call, sts:TagSession and sts:SetSourceIdentity; for assume-role it also has to expect the external id that is sent.",
        ),
        "MalformedPolicyDocument" | "MalformedPolicyDocumentException" => (
            "the session policy is not valid to it",
            "Check the actions, resources and conditions of the policy's target.",
        ),
        "PackedPolicyTooLarge" | "PackedPolicyTooLargeException" => (
            "the session policy and the tags are too large when packed",
            "Name fewer actions and resources and use fewer tags, or move what does not depend on the run into the role's own policy.",
        ),
        "RegionDisabledException" => (
            "STS is not active in this region for the account",
            "Activate STS in the region, or write another region into the policy's target.",
        ),
        "ExpiredTokenException" | "ExpiredToken" => (
            "it takes what Cortex showed for expired",
            "Check the clock of this Cortex; AWS tolerates five minutes.",
        ),
        "InvalidIdentityToken" | "InvalidIdentityTokenException" => (
            "it does not accept Cortex's token",
            "Check that the account has an OIDC provider with exactly this Cortex's issuer URL and the configured audience, and that the published keys are current.",
        ),
        "IDPRejectedClaim" | "IDPRejectedClaimException" => (
            "a claim of Cortex's token was rejected",
            "Check the conditions on the token's claims in the role's trust policy.",
        ),
        "ValidationError" | "ValidationException" => (
            "a parameter is outside of what it allows, most often the lifetime",
            "Raise the role's MaxSessionDuration or lower the policy's max_ttl; a Cortex that itself runs on a role gets at most one hour with assume-role.",
        ),
        "InvalidClientTokenId"
        | "SignatureDoesNotMatch"
        | "UnrecognizedClientException"
        | "InvalidClientToken" => (
            "it does not accept Cortex's own credentials",
            "Check the AWS credentials that this Cortex runs with.",
        ),
        _ => ("it gave no reason that Cortex knows", "Look for the request in CloudTrail."),
    }
}
