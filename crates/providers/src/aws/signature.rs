//! AWS's own signer, for the calls that no SDK makes here.

use aws_config::BehaviorVersion;
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use jiff::Timestamp;

/// Cortex's own credentials, from AWS's default chain: the environment, or the instance, the task or the pod that this
/// runs in. None where there are none.
pub(crate) async fn own_credentials() -> Option<SharedCredentialsProvider> {
    aws_config::defaults(BehaviorVersion::latest()).load().await.credentials_provider()
}

/// A POST that is to be signed.
pub(crate) struct Unsigned<'a> {
    pub(crate) url: &'a str,
    pub(crate) region: &'a str,
    /// The service as a signature names it, such as `iam`.
    pub(crate) service: &'a str,
    /// Headers that are signed besides those that the signer adds.
    pub(crate) headers: &'a [(&'static str, &'a str)],
    pub(crate) body: &'a [u8],
}

impl Unsigned<'_> {
    /// The headers that sign it (Signature Version 4). None where it cannot be signed, such as a URL without a host.
    pub(crate) fn signed(&self, credentials: &Credentials, now: Timestamp) -> Option<Vec<(String, String)>> {
        let identity = credentials.clone().into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(self.region)
            .name(self.service)
            .time(std::time::SystemTime::from(now))
            .settings(SigningSettings::default())
            .build()
            .ok()?
            .into();
        let headers = self.headers.iter().copied();
        let request = SignableRequest::new("POST", self.url, headers, SignableBody::Bytes(self.body)).ok()?;
        let (instructions, _) = sign(request, &params).ok()?.into_parts();
        Some(instructions.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}
