//! What every POST to somebody else has in common: where it may go, its signature, and the pauses between tries.

use std::path::Path;

use aws_lc_rs::hmac;
use jiff::{SignedDuration, Timestamp};
use reqwest::Url;
use reqwest::header::HeaderValue;
use zeroize::Zeroizing;

use crate::random::Random;

/// The first pause after a failure, in seconds; it doubles each time.
const FIRST_PAUSE_S: i64 = 5;
/// The longest pause, in seconds.
const LONGEST_PAUSE_S: i64 = 3_600;
/// The shortest secret, in bytes.
const SECRET_MIN: usize = 32;
/// How much of an error is kept, in characters.
const ERROR_MAX: usize = 300;

/// The header that says that a body is from here, and recent.
pub(crate) const SIGNATURE: &str = "cortex-signature";

/// A client that goes nowhere but where it is sent.
pub(crate) fn client() -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("cortex/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// A URL that may be posted to. It may be a secret itself, so the error does not repeat it.
pub(crate) fn destination(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "has a url that is none")?;
    let loopback = || url.host_str().is_some_and(|h| matches!(h, "localhost" | "127.0.0.1" | "[::1]"));
    match url.scheme() {
        "https" => Ok(url),
        "http" if loopback() => Ok(url),
        _ => Err("has a url that is not https; http is for loopback only"),
    }
}

/// Sends it. The error says what was the case, without the URL: that of a chat's webhook is a secret.
pub(crate) async fn send(request: reqwest::RequestBuilder) -> Result<(), String> {
    match request.send().await {
        Ok(response) if response.status().is_success() => Ok(()),
        Ok(response) => Err(format!("it answered HTTP {}", response.status().as_u16())),
        Err(error) => Err(cause(error)),
    }
}

fn cause(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut next = std::error::Error::source(&error);
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text.chars().take(ERROR_MAX).collect()
}

/// The value of [`SIGNATURE`], with the secret in this file: `t=<seconds since 1970>,v1=<hex>`, HMAC-SHA256 over the
/// time, a dot and the body.
pub(crate) async fn signature(file: &Path, now: Timestamp, body: &[u8]) -> Result<HeaderValue, String> {
    let secret = tokio::fs::read(file).await.map_err(|_| "its secret_file cannot be read".to_owned())?;
    let secret = Zeroizing::new(secret);
    let secret = secret.trim_ascii();
    if secret.len() < SECRET_MIN {
        return Err(format!("its secret_file has fewer than {SECRET_MIN} characters"));
    }
    let time = now.as_second().to_string();
    let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
    mac.update(time.as_bytes());
    mac.update(b".");
    mac.update(body);
    header(&format!("t={time},v1={}", hex::encode(mac.sign())))
}

/// A header's value.
pub(crate) fn header(text: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(text).map_err(|_| "a header cannot be written".to_owned())
}

/// The pause after the try of this number, from 1: doubling, bounded, and anywhere in its upper half, so that what
/// failed together is not tried together.
pub(crate) fn pause(attempts: i32, random: &dyn Random) -> SignedDuration {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or_default().min(16);
    let whole = FIRST_PAUSE_S.saturating_mul(1 << doublings).min(LONGEST_PAUSE_S);
    let mut byte = [0];
    random.fill(&mut byte);
    SignedDuration::from_millis(whole * 500 + whole * 500 * i64::from(byte[0]) / 255)
}
