//! The metadata server of Google Cloud: the token of the service account that this machine, pod or service runs as.

use reqwest::Client;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::KmsError;
use super::call::{Attempt, away, client, send};
use crate::config::CallLimits;

/// Its name, which Google's own clients take too; `GCE_METADATA_HOST` goes before it.
const HOST: &str = "metadata.google.internal";
const PATH: &str = "computeMetadata/v1/instance/service-accounts/default/token";
/// The header that a request has to have, and every true answer has.
const FLAVOR: (&str, &str) = ("metadata-flavor", "Google");

/// The metadata server.
pub(super) struct MetadataServer {
    url: String,
    http: Client,
}

#[derive(Deserialize)]
struct Token {
    access_token: String,
}

impl MetadataServer {
    /// The one that `GCE_METADATA_HOST` names, as `host` or `host:port`.
    pub(super) fn of_this_machine(limits: &CallLimits) -> Result<Self, KmsError> {
        Self::at(&std::env::var("GCE_METADATA_HOST").unwrap_or_else(|_| HOST.to_owned()), limits)
    }

    pub(super) fn at(host: &str, limits: &CallLimits) -> Result<Self, KmsError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b".-:[]".contains(&b);
        if host.is_empty() || !host.bytes().all(allowed) {
            return Err(KmsError::Refused("GCE_METADATA_HOST is not host or host:port: correct it.".into()));
        }
        // What is asked there never leaves the machine, so no proxy is asked to.
        let http = client(limits).no_proxy().build();
        let http = http.map_err(|_| away("Cortex could not set up its HTTP client"))?;
        Ok(Self { url: format!("http://{host}/{PATH}"), http })
    }

    pub(super) async fn token(&self) -> Attempt<Zeroizing<String>> {
        let answer =
            match send(self.http.get(&self.url).header(FLAVOR.0, FLAVOR.1), "The metadata server").await {
                Ok(answer) => answer,
                Err(error) => return Attempt::Again(error),
            };
        let status = answer.status.as_u16();
        if answer.status.is_server_error() {
            return Attempt::Again(away(&format!("The metadata server answered with HTTP {status}")));
        }
        let genuine = answer.headers.get(FLAVOR.0).is_some_and(|flavor| flavor == FLAVOR.1);
        if !answer.status.is_success() || !genuine {
            return Attempt::Failed(KmsError::Refused(format!(
                "The metadata server gives this Cortex no token for Google Cloud KMS (HTTP {status}): run it on Google \
                 Cloud as a service account."
            )));
        }
        match serde_json::from_slice::<Token>(&answer.body) {
            Ok(token) => Attempt::Done(Zeroizing::new(token.access_token)),
            Err(_) => {
                Attempt::Failed(KmsError::Mismatch("The metadata server's answer cannot be read.".into()))
            }
        }
    }
}
