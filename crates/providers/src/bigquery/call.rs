//! One POST to a Google service: bounded in time and size, no redirect, retried where that is safe.

use cortex_core::IssuanceId;
use reqwest::{Client, RequestBuilder};
use serde::de::DeserializeOwned;
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use super::errors::{Step, answered};
use crate::MintError;
use crate::account::Pass;
use crate::body::{self, Unread};
use crate::calls::{Attempt, with_retries};
use crate::config::CallLimits;

/// The largest answer that is read, in bytes: a token of 12 KiB and what surrounds it.
const MAX_ANSWER: usize = 64 * 1024;

/// The HTTP client for Google, made at its first use.
pub(super) struct Google {
    limits: CallLimits,
    client: OnceCell<Client>,
}

impl Google {
    pub(super) fn new(limits: CallLimits) -> Self {
        Self { limits, client: OnceCell::new() }
    }

    async fn client(&self) -> Result<&Client, MintError> {
        let build = || async {
            let builder = Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(self.limits.connect_timeout.unsigned_abs());
            builder.build().map_err(|_| MintError::Unavailable {
                message: "Cortex could not set up its HTTPS client.".into(),
                retry_after: None,
            })
        };
        self.client.get_or_try_init(build).await
    }

    /// Sends what `request` makes, until one answer is read or the limits are reached.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        pass: &Pass,
        issuance: IssuanceId,
        step: Step,
        request: impl Fn(&Client) -> RequestBuilder,
    ) -> Result<T, MintError> {
        let client = self.client().await?;
        let body = with_retries(&self.limits, pass, issuance, || send(request(client), step)).await?;
        // Serde would take an array for a struct.
        let object = body.trim_ascii_start().starts_with(b"{");
        let answer = serde_json::from_slice(&body).ok().filter(|_| object);
        answer.ok_or_else(|| step.unknown("gave an answer that cannot be read"))
    }
}

async fn send(request: RequestBuilder, step: Step) -> Attempt<Zeroizing<Vec<u8>>> {
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) if error.is_connect() => {
            return Attempt::Again(step.unavailable("could not be reached", None));
        }
        Err(error) if error.is_builder() => {
            return Attempt::Failed(step.unavailable("could not be asked", None));
        }
        Err(_) => return Attempt::Again(step.unknown("did not answer")),
    };
    let status = response.status();
    let retry_after =
        response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
    let body = body::read(response, MAX_ANSWER).await;
    if !status.is_success() {
        return answered(step, status.as_u16(), retry_after, &body.unwrap_or_default());
    }
    match body {
        Ok(body) => Attempt::Done(body),
        Err(Unread::TooLarge) => Attempt::Failed(step.unknown("gave an answer that is too large")),
        Err(Unread::Cut) => Attempt::Again(step.unknown("gave only a part of an answer")),
    }
}
