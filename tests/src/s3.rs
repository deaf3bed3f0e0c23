//! A bucket of the sandbox, used with the keys of one AWS session, signed by AWS's own signer.

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use cortex_sandbox::Sandbox;
use jiff::Timestamp;
use reqwest::{Client, StatusCode};
use serde_json::Value;

/// Writes an object where a run of `first-steps` may, with the keys in `entry`, the run's answer for `aws`.
pub async fn put(
    http: &Client,
    sandbox: &Sandbox,
    now: Timestamp,
    run_id: &str,
    entry: &Value,
) -> (StatusCode, String) {
    let text = |name: &str| entry["credential"][name].as_str().expect(name).to_owned();
    let (id, secret) = (text("access_key_id"), text("secret_access_key"));
    let keys = Credentials::new(id, secret, Some(text("session_token")), None, "test");
    let url = format!("{}/finance-mart/hello_cortex/{run_id}/rows.csv", sandbox.aws_url());
    let mut settings = SigningSettings::default();
    settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    settings.percent_encoding_mode = PercentEncodingMode::Single;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    let identity = keys.into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region("us-east-1")
        .name("s3")
        .time(now.into())
        .settings(settings)
        .build()
        .expect("parameters")
        .into();
    let signable = SignableRequest::new("PUT", &url, std::iter::empty(), SignableBody::Bytes(b"rows"))
        .expect("a request");
    let (instructions, _) = sign(signable, &params).expect("a signature").into_parts();
    let mut request = http.put(&url).body("rows");
    for (name, value) in instructions.headers() {
        request = request.header(name, value);
    }
    let response = request.send().await.expect("an answer");
    (response.status(), response.text().await.expect("a body"))
}
