//! Google Cloud KMS: `encrypt` and `decrypt` of its REST API, each with the checksums that it offers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crc::{CRC_32_ISCSI, Crc};
use reqwest::{Client, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use super::call::{Answer, Attempt, away, client, plain, send};
use super::key::GoogleKey;
use super::metadata::MetadataServer;
use super::{Binding, KmsError};
use crate::config::CallLimits;

const URL: &str = "https://cloudkms.googleapis.com";
/// CRC32C, as Google calls it.
const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// One key of Google Cloud KMS.
pub(super) struct GoogleKms {
    key: GoogleKey,
    url: String,
    http: Client,
    metadata: MetadataServer,
}

/// A 64-bit number, which Google writes as text.
#[derive(Serialize, Deserialize, PartialEq, Eq)]
struct Checksum(String);

impl Checksum {
    fn of(bytes: &[u8]) -> Self {
        Self(CRC32C.checksum(bytes).to_string())
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EncryptRequest<'a> {
    plaintext: &'a str,
    plaintext_crc32c: Checksum,
    additional_authenticated_data: String,
    additional_authenticated_data_crc32c: Checksum,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Encrypted {
    /// The version of the key that was used.
    name: String,
    ciphertext: String,
    ciphertext_crc32c: Checksum,
    #[serde(default)]
    verified_plaintext_crc32c: bool,
    #[serde(default)]
    verified_additional_authenticated_data_crc32c: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DecryptRequest {
    ciphertext: String,
    ciphertext_crc32c: Checksum,
    additional_authenticated_data: String,
    additional_authenticated_data_crc32c: Checksum,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Decrypted {
    plaintext: String,
    plaintext_crc32c: Checksum,
}

impl GoogleKms {
    pub(super) fn new(
        key: &GoogleKey,
        endpoint: Option<&str>,
        metadata: MetadataServer,
        limits: &CallLimits,
    ) -> Result<Self, KmsError> {
        let url = endpoint.unwrap_or(URL).trim_end_matches('/').to_owned();
        let http = client(limits).build().map_err(|_| away("Cortex could not set up its HTTPS client"))?;
        Ok(Self { key: key.clone(), url, http, metadata })
    }

    pub(super) async fn encrypt(&self, plain: &[u8], binding: &Binding<'_>) -> Attempt<Vec<u8>> {
        let (text, bound) = (Zeroizing::new(STANDARD.encode(plain)), binding.bytes());
        let request = EncryptRequest {
            plaintext: &text,
            plaintext_crc32c: Checksum::of(plain),
            additional_authenticated_data_crc32c: Checksum::of(&bound),
            additional_authenticated_data: STANDARD.encode(&bound),
        };
        self.ask("encrypt", &request, |answer: Encrypted| {
            let version = answer.name.strip_prefix(self.key.name());
            if !version.is_some_and(|version| version.starts_with("/cryptoKeyVersions/")) {
                return Err(self.other_key());
            }
            let wrapped = STANDARD.decode(answer.ciphertext).map_err(|_| unreadable("encrypt"))?;
            let received =
                answer.verified_plaintext_crc32c && answer.verified_additional_authenticated_data_crc32c;
            if received && answer.ciphertext_crc32c == Checksum::of(&wrapped) {
                Ok(wrapped)
            } else {
                Err(damaged("encrypt"))
            }
        })
        .await
    }

    pub(super) async fn decrypt(&self, wrapped: &[u8], binding: &Binding<'_>) -> Attempt<Zeroizing<Vec<u8>>> {
        let bound = binding.bytes();
        let request = DecryptRequest {
            ciphertext: STANDARD.encode(wrapped),
            ciphertext_crc32c: Checksum::of(wrapped),
            additional_authenticated_data_crc32c: Checksum::of(&bound),
            additional_authenticated_data: STANDARD.encode(&bound),
        };
        self.ask("decrypt", &request, |answer: Decrypted| {
            let text = Zeroizing::new(answer.plaintext);
            let plain = STANDARD.decode(text.as_bytes()).map_err(|_| unreadable("decrypt"))?;
            let plain = Zeroizing::new(plain);
            if answer.plaintext_crc32c == Checksum::of(&plain) { Ok(plain) } else { Err(damaged("decrypt")) }
        })
        .await
    }

    fn other_key(&self) -> KmsError {
        let name = self.key.name();
        KmsError::Mismatch(format!(
            "Google Cloud KMS answered for another key than {name}: look at what is at kms.endpoint."
        ))
    }

    async fn ask<T, A: serde::de::DeserializeOwned>(
        &self,
        action: &'static str,
        request: &impl Serialize,
        read: impl FnOnce(A) -> Result<T, KmsError>,
    ) -> Attempt<T> {
        let token = match self.metadata.token().await {
            Attempt::Done(token) => token,
            Attempt::Failed(error) => return Attempt::Failed(error),
            Attempt::Again(error) => return Attempt::Again(error),
        };
        let url = format!("{}/v1/{}:{action}", self.url, self.key.name());
        let request = self.http.post(url).bearer_auth(token.as_str()).json(request);
        let answer = match send(request, "Google Cloud KMS").await {
            Ok(answer) => answer,
            Err(error) => return Attempt::Again(error),
        };
        if !answer.status.is_success() {
            return self.refused(action, &answer);
        }
        let read = serde_json::from_slice(&answer.body).map_err(|_| unreadable(action)).and_then(read);
        read.map_or_else(Attempt::Failed, Attempt::Done)
    }

    /// What a failure means. Google's own text is not passed on; its status is.
    fn refused<T>(&self, action: &str, answer: &Answer) -> Attempt<T> {
        let said = serde_json::from_slice::<Value>(&answer.body).unwrap_or_default();
        let code = said["error"]["status"].as_str().and_then(plain);
        let how = match (code, answer.status.as_u16()) {
            (Some(code), _) => code.to_owned(),
            (None, status) => format!("HTTP {status}"),
        };
        if answer.status == StatusCode::TOO_MANY_REQUESTS || answer.status.is_server_error() {
            return Attempt::Again(away(&format!("Google Cloud KMS answered {action} with {how}")));
        }
        let why = self.meaning(action, code);
        Attempt::Failed(KmsError::Refused(why.unwrap_or_else(|| {
            format!(
                "Google Cloud KMS answered {action} with {how}: look at kms.key and what is at kms.endpoint."
            )
        })))
    }

    fn meaning(&self, action: &str, code: Option<&str>) -> Option<String> {
        let name = self.key.name();
        Some(match code? {
            "PERMISSION_DENIED" => format!(
                "Google Cloud KMS denies {action} with {name} to this Cortex: grant \
                 roles/cloudkms.cryptoKeyEncrypterDecrypter on the key to the service account that Cortex runs as."
            ),
            "INVALID_ARGUMENT" if action == "decrypt" => format!(
                "Google Cloud KMS cannot decrypt it with {name} for this purpose and issuer: it was changed, or wrapped \
                 for something else. Put the right file back from its backup."
            ),
            "NOT_FOUND" => format!("Google Cloud KMS has no key {name}: look at kms.key."),
            "FAILED_PRECONDITION" => {
                format!("The version of {name} that it needs is disabled or destroyed: enable it, or restore it.")
            }
            "UNAUTHENTICATED" => {
                "Google Cloud KMS does not take the token of the metadata server: look at the service account and its \
                 scopes, which need cloud-platform or cloudkms."
                    .to_owned()
            }
            _ => return None,
        })
    }
}

fn unreadable(action: &str) -> KmsError {
    KmsError::Mismatch(format!(
        "Google Cloud KMS answered {action} with what cannot be read: look at what is at kms.endpoint."
    ))
}

fn damaged(action: &str) -> KmsError {
    KmsError::Mismatch(format!(
        "Google Cloud KMS and Cortex do not agree on the checksums of {action}: something on the way changes bytes. Try \
         again."
    ))
}
