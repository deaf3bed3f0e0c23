//! Requests to what the configuration names, and to nothing else: an issuer's keys, an Airflow, a cluster. No
//! redirects, no compression, a bounded answer; the deadline is the caller's.

use std::error::Error as _;
use std::path::Path;
use std::time::Duration;

use reqwest::{Certificate, Client, ClientBuilder, RequestBuilder, StatusCode, header};
use serde_json::{Map, Value};
use tokio::io::AsyncReadExt as _;
use zeroize::Zeroizing;

use crate::json::{self, Limits};

/// The largest document that is read, in bytes.
const MAX_DOCUMENT: usize = 1 << 20;

/// How large an answer of an API may be inside: task instances and pods carry much that nobody asks for.
const ANSWER: Limits = Limits { depth: 64, values: 50_000 };

/// How much of a network error is kept, in bytes.
const MAX_CAUSE: usize = 300;

/// The longest credential that a file may hold, in bytes.
const MAX_CREDENTIAL: u64 = 16 * 1024;

/// How long a connection may take to be made.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);

/// Why there is no answer. No part of what was sent or fetched is in it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    #[error("answered HTTP {0}")]
    Status(u16),
    #[error("answered with a compressed document")]
    Compressed,
    #[error("answered with more than {MAX_DOCUMENT} bytes")]
    TooLarge,
    #[error("answered with something other than a plain JSON object")]
    Json,
}

impl From<reqwest::Error> for FetchError {
    /// The causes are what an operator needs: a name that does not resolve, a certificate that is not trusted.
    fn from(error: reqwest::Error) -> Self {
        let error = error.without_url();
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text.truncate(text.floor_char_boundary(MAX_CAUSE));
        Self::Unreachable(text)
    }
}

/// A client that goes where it is told and nowhere else. `builder` brings proxies.
pub(crate) fn client(builder: ClientBuilder) -> reqwest::Result<Client> {
    builder
        .redirect(reqwest::redirect::Policy::none())
        .no_gzip()
        .no_brotli()
        .no_deflate()
        .no_zstd()
        .referer(false)
        .connect_timeout(CONNECT_DEADLINE)
        .build()
}

/// The same, which trusts the certificate authorities in `ca_file` (PEM) alone; without a file, those of the system.
pub(crate) fn client_trusting(builder: ClientBuilder, ca_file: Option<&Path>) -> Result<Client, String> {
    let Some(path) = ca_file else {
        return client(builder).map_err(|error| error.to_string());
    };
    let pem = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let authorities = Certificate::from_pem_bundle(&pem).map_err(|error| error.to_string())?;
    if authorities.is_empty() {
        return Err(format!("{} has no certificate in it", path.display()));
    }
    client(builder.tls_certs_only(authorities)).map_err(|error| error.to_string())
}

/// Sends a request and reads the answer, which has to have the status `expected`.
pub(crate) async fn fetch(request: RequestBuilder, expected: StatusCode) -> Result<Vec<u8>, FetchError> {
    let mut response = request.header(header::ACCEPT, "application/json").send().await?;
    if response.status() != expected {
        return Err(FetchError::Status(response.status().as_u16()));
    }
    if response.headers().contains_key(header::CONTENT_ENCODING) {
        return Err(FetchError::Compressed);
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > MAX_DOCUMENT {
            return Err(FetchError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The same where the answer is one JSON object.
pub(crate) async fn fetch_object(
    request: RequestBuilder,
    expected: StatusCode,
) -> Result<Map<String, Value>, FetchError> {
    json::object(&fetch(request, expected).await?, ANSWER).map_err(|_| FetchError::Json)
}

/// Reads a credential from its file, each time anew: whoever rotates it writes another one there.
pub(crate) async fn credential(path: &Path) -> Result<Zeroizing<String>, String> {
    let fault = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let file = tokio::fs::File::open(path).await.map_err(|error| fault(&error))?;
    let mut text = Zeroizing::new(String::new());
    let read = file.take(MAX_CREDENTIAL + 1).read_to_string(&mut text).await;
    if read.map_err(|error| fault(&error))? as u64 > MAX_CREDENTIAL {
        return Err(fault(&"is too long for a credential"));
    }
    let text = Zeroizing::new(text.trim().to_owned());
    if text.is_empty() || !text.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
        return Err(fault(&"does not hold one line of printable ASCII"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificate_authorities_that_cannot_be_read_are_not_left_out() {
        let missing = Path::new("/nonexistent/ca.pem");
        let nothing_in_it = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
        for file in [missing, nothing_in_it] {
            let made = client_trusting(Client::builder(), Some(file));
            assert!(made.is_err_and(|why| why.contains(&file.display().to_string())), "{}", file.display());
        }
    }

    #[tokio::test]
    async fn a_credential_is_one_line_of_printable_ascii() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        for file in ["Cargo.toml", "src", "missing"] {
            assert!(credential(&here.join(file)).await.is_err(), "{file}");
        }
    }
}
