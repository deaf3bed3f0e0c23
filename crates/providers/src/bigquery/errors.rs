//! What Google's failures mean: refused, later, or unknown. Google's own text is never passed on, since it may
//! quote what was sent.

use serde::Deserialize;

use crate::MintError;
use crate::calls::Attempt;

/// Which of the two calls failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Cortex's token for a federated one (RFC 8693).
    Exchange,
    /// The federated token for a service account's.
    Impersonate,
}

impl Step {
    fn service(self) -> &'static str {
        match self {
            Self::Exchange => "Google's STS",
            Self::Impersonate => "Google's IAM Credentials API",
        }
    }

    pub(super) fn unavailable(self, what: &str, retry_after: Option<u32>) -> MintError {
        MintError::Unavailable {
            message: format!("{} {what}.", self.service()),
            retry_after: retry_after.map(|seconds| seconds.min(3600)),
        }
    }

    pub(super) fn unknown(self, what: &str) -> MintError {
        MintError::Indeterminate {
            message: format!("{} {what}; it may have made a token, which nobody received.", self.service()),
        }
    }
}

/// The two shapes of Google's errors: `{"error": "invalid_grant"}` and `{"error": {"status": "…"}}`.
#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorCode,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ErrorCode {
    OAuth(String),
    Google { status: String },
}

/// Sorts one answer that is no success.
pub(super) fn answered<T>(step: Step, status: u16, retry_after: Option<u32>, body: &[u8]) -> Attempt<T> {
    let code = match serde_json::from_slice(body) {
        Ok(ErrorBody { error: ErrorCode::OAuth(code) | ErrorCode::Google { status: code } }) => code,
        Err(_) => String::new(),
    };
    match (code.as_str(), status) {
        ("RESOURCE_EXHAUSTED" | "slow_down", _) | (_, 429) => {
            Attempt::Again(step.unavailable("is throttling this project", retry_after))
        }
        ("UNAVAILABLE" | "temporarily_unavailable", _) | (_, 503) => {
            Attempt::Again(step.unavailable("is unavailable", retry_after))
        }
        (_, 500..) => Attempt::Again(step.unknown("failed inside")),
        (code, _) => Attempt::Failed(refused(step, code, status)),
    }
}

fn refused(step: Step, code: &str, status: u16) -> MintError {
    let known =
        (1..=64).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let (what, remedy) = explain(step, code, status);
    MintError::Refused {
        code: if known { code.to_owned() } else { format!("HTTP {status}") },
        message: format!("{} refused the token: {what}.", step.service()),
        remedy: remedy.to_owned(),
    }
}

/// What is the case and what to do, for each code of the two services.
fn explain(step: Step, code: &str, status: u16) -> (&'static str, &'static str) {
    match (step, code, status) {
        (Step::Exchange, "invalid_grant", _) => (
            "it does not accept Cortex's token",
            "Check that the pool's provider has exactly this Cortex's issuer URL, that its keys are current, and this machine's clock.",
        ),
        (Step::Exchange, "invalid_target", _) => (
            "it does not know the pool's provider, or the provider is disabled",
            "Check provider in the policy's target or in providers.bigquery, and that pool and provider are enabled.",
        ),
        (Step::Exchange, "unauthorized_client" | "access_denied", _) => (
            "the pool's attribute condition rejects it",
            "Check the attribute condition and the attribute mapping of the pool's provider; google.subject has to be assertion.sub and attribute.grant assertion.grant.",
        ),
        (Step::Exchange, "invalid_scope", _) | (Step::Impersonate, "INVALID_ARGUMENT", _) => (
            "a scope or the lifetime is not valid to it",
            "Check scopes in the policy's target; more than one hour needs the constraint iam.allowServiceAccountCredentialLifetimeExtension.",
        ),
        (Step::Impersonate, "PERMISSION_DENIED", _) | (Step::Impersonate, _, 403) => (
            "the federated principal may not act as the service account",
            "Grant roles/iam.workloadIdentityUser on the service account to principalSet://…/attribute.grant/<grant>, and enable the IAM Service Account Credentials API.",
        ),
        (Step::Impersonate, "NOT_FOUND", _) | (Step::Impersonate, _, 404) => {
            ("the service account does not exist", "Check service_account in the policy's target.")
        }
        (_, "PERMISSION_DENIED", _) | (_, _, 403) => (
            "the project does not allow it",
            "Enable the Security Token Service API and check the organisation's policies.",
        ),
        (_, _, 300..=399) => (
            "it answered with a redirect, which Cortex does not follow",
            "Write the final address into providers.bigquery.",
        ),
        _ => ("it gave no reason that Cortex knows", "Look for the request in Google's audit logs."),
    }
}
