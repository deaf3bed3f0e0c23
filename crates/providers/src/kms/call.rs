//! One question to a KMS: bounded in time and size, no redirect, repeated where another try may work.

use std::fmt::Display;
use std::future::Future;

use reqwest::header::HeaderMap;
use reqwest::{Client, RequestBuilder, StatusCode};
use tokio::time::{Instant, sleep_until, timeout_at};
use zeroize::Zeroizing;

use super::KmsError;
use crate::body;
use crate::calls::pause;
use crate::config::CallLimits;

/// The largest answer that is read, in bytes: far more than a wrapped key takes.
const MAX_ANSWER: usize = 64 * 1024;

/// What became of one try. Neither wrapping nor unwrapping changes anything at a KMS, so each may be repeated.
pub(super) enum Attempt<T> {
    /// It worked.
    Done(T),
    /// It failed, and would again.
    Failed(KmsError),
    /// It failed, and another try may work.
    Again(KmsError),
}

/// Tries until it works, fails for good, or the deadline or the retries are used up.
pub(super) async fn with_retries<T, F>(
    limits: &CallLimits,
    seed: impl Display,
    mut attempt: impl FnMut() -> F,
) -> Result<T, KmsError>
where
    F: Future<Output = Attempt<T>>,
{
    let deadline = Instant::now() + limits.timeout.unsigned_abs();
    let mut retry = 0;
    loop {
        let until = deadline.min(Instant::now() + limits.attempt_timeout.unsigned_abs());
        let error = match timeout_at(until, attempt()).await {
            Ok(Attempt::Done(value)) => return Ok(value),
            Ok(Attempt::Failed(error)) => return Err(error),
            Ok(Attempt::Again(error)) => error,
            Err(_) => away("The KMS did not answer in time"),
        };
        let resume = Instant::now() + pause(&seed, retry);
        if retry >= limits.retries.min(2) || resume >= deadline {
            return Err(error);
        }
        sleep_until(resume).await;
        retry += 1;
    }
}

/// Nothing was learned, `what` being the case: the same start may work later.
pub(super) fn away(what: &str) -> KmsError {
    KmsError::Away(format!(
        "{what}: Cortex does not start without it. Look at the network, kms.endpoint and the KMS, and start again."
    ))
}

/// A client for what is called within `limits`.
pub(super) fn client(limits: &CallLimits) -> reqwest::ClientBuilder {
    Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(limits.connect_timeout.unsigned_abs())
}

/// An answer, read whole.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Zeroizing<Vec<u8>>,
}

/// Sends it to `service`, which an error names.
pub(super) async fn send(request: RequestBuilder, service: &str) -> Result<Answer, KmsError> {
    let response = request.send().await.map_err(|error| {
        let what = if error.is_connect() { "could not be reached" } else { "did not answer" };
        away(&format!("{service} {what}"))
    })?;
    let (status, headers) = (response.status(), response.headers().clone());
    let body = body::read(response, MAX_ANSWER).await;
    let body = body.map_err(|_| away(&format!("{service} gave an answer that is too large or broke off")))?;
    Ok(Answer { status, headers, body })
}

/// A word of a cloud that may be shown: a code, and nothing that quotes what was sent.
pub(super) fn plain(code: &str) -> Option<&str> {
    let known = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'.';
    (!code.is_empty() && code.len() <= 64 && code.bytes().all(known)).then_some(code)
}
