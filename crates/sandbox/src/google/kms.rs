//! The little of Cloud KMS that wraps a key: `encrypt` and `decrypt`. The encryption is real, with keys that end with the
//! sandbox.

use axum::Json;
use axum::http::Method;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crc::{CRC_32_ISCSI, Crc};
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use super::{CLOUD_PLATFORM, Google, Member};
use crate::fault::Twist;
use crate::gate::Call;
use crate::vault::Vault;

const KMS_SCOPE: &str = "https://www.googleapis.com/auth/cloudkms";
/// The most that is encrypted, and what may be bound to it, in bytes.
const MAX_BYTES: usize = 64 * 1024;
const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// One key and who may use it.
pub(super) struct CryptoKey {
    users: Vec<Member>,
    vault: Vault,
}

impl CryptoKey {
    pub(super) fn new(users: Vec<Member>) -> Self {
        Self { users, vault: Vault::default() }
    }
}

/// What is done with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Encrypt,
    Decrypt,
}

impl Action {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
        }
    }
}

/// The members of both requests.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Request {
    plaintext: Option<String>,
    plaintext_crc32c: Option<String>,
    ciphertext: Option<String>,
    ciphertext_crc32c: Option<String>,
    #[serde(default)]
    additional_authenticated_data: String,
    additional_authenticated_data_crc32c: Option<String>,
}

/// The key and the action that a path names.
pub(super) fn route(path: &str) -> Option<(String, Action)> {
    let (key, action) = path.strip_prefix("/v1/")?.rsplit_once(':')?;
    let action = [Action::Encrypt, Action::Decrypt].into_iter().find(|known| known.as_str() == action)?;
    key.contains("/cryptoKeys/").then(|| (key.to_owned(), action))
}

impl Google {
    pub(super) fn kms(
        &self,
        call: &Call,
        name: &str,
        action: Action,
        twist: Option<Twist>,
    ) -> Result<Response, ApiError> {
        if call.method != Method::POST {
            return Err(ApiError::missing(&call.path));
        }
        let holder = self.holder(call)?;
        if !holder.scopes.contains(CLOUD_PLATFORM) && !holder.scopes.contains(KMS_SCOPE) {
            return Err(ApiError::scope());
        }
        let key = self.keys.get(name).filter(|key| holder.is_one_of(&key.users)).ok_or_else(|| {
            let permission = match action {
                Action::Encrypt => "useToEncrypt",
                Action::Decrypt => "useToDecrypt",
            };
            let permission = format!("cloudkms.cryptoKeyVersions.{permission}");
            ApiError::denied(format!(
                "Permission '{permission}' denied on resource '{name}' (or it may not exist)."
            ))
        })?;
        let request: Request = serde_json::from_slice(&call.body)
            .map_err(|error| ApiError::invalid(format!("Invalid JSON payload received: {error}")))?;
        let checked = request.additional_authenticated_data_crc32c.as_ref();
        let bound = bytes("additional_authenticated_data", &request.additional_authenticated_data, checked)?;
        let mut answer = match action {
            Action::Encrypt => encrypt(key, name, &request, &bound)?,
            Action::Decrypt => decrypt(key, &request, &bound)?,
        };
        match twist {
            Some(Twist::OtherArn | Twist::OtherAccount) => {
                answer["name"] =
                    json!("projects/other/locations/global/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1");
                answer["plaintextCrc32c"] = json!("0");
            }
            Some(Twist::MissingToken) => {
                answer.as_object_mut().map(|answer| answer.remove("plaintext"));
            }
            Some(Twist::LongerExpiry) | None => {}
        }
        Ok(Json(answer).into_response())
    }
}

fn encrypt(key: &CryptoKey, name: &str, request: &Request, bound: &[u8]) -> Result<Value, ApiError> {
    let text = request.plaintext.as_deref().ok_or_else(|| ApiError::invalid("The plaintext is required."))?;
    let plain = bytes("plaintext", text, request.plaintext_crc32c.as_ref())?;
    let sealed = key.vault.seal(bound, &plain).ok_or_else(ApiError::exhausted)?;
    let mut answer = json!({
        "name": format!("{name}/cryptoKeyVersions/1"),
        "ciphertext": STANDARD.encode(&sealed),
        "ciphertextCrc32c": CRC32C.checksum(&sealed).to_string(),
        "protectionLevel": "SOFTWARE",
    });
    // What was not checked is left out.
    if request.plaintext_crc32c.is_some() {
        answer["verifiedPlaintextCrc32c"] = json!(true);
    }
    if request.additional_authenticated_data_crc32c.is_some() {
        answer["verifiedAdditionalAuthenticatedDataCrc32c"] = json!(true);
    }
    Ok(answer)
}

fn decrypt(key: &CryptoKey, request: &Request, bound: &[u8]) -> Result<Value, ApiError> {
    let text =
        request.ciphertext.as_deref().ok_or_else(|| ApiError::invalid("The ciphertext is required."))?;
    let sealed = bytes("ciphertext", text, request.ciphertext_crc32c.as_ref())?;
    let plain = key.vault.open(bound, &sealed);
    let plain = plain.ok_or_else(|| ApiError::invalid("Decryption failed: the ciphertext is invalid."))?;
    Ok(json!({
        "plaintext": STANDARD.encode(&plain),
        "plaintextCrc32c": CRC32C.checksum(&plain).to_string(),
        "usedPrimary": true,
        "protectionLevel": "SOFTWARE",
    }))
}

/// A field's bytes, if they fit their checksum where there is one.
fn bytes(field: &str, text: &str, checksum: Option<&String>) -> Result<Vec<u8>, ApiError> {
    let bytes = STANDARD.decode(text);
    let bytes = bytes.map_err(|_| ApiError::invalid(format!("Invalid value at '{field}' (TYPE_BYTES)")))?;
    if bytes.len() > MAX_BYTES {
        return Err(ApiError::invalid(format!("{field} must be at most {MAX_BYTES} bytes")));
    }
    if checksum.is_some_and(|checksum| *checksum != CRC32C.checksum(&bytes).to_string()) {
        return Err(ApiError::invalid(format!(
            "The checksum in field {field}_crc32c did not match the data."
        )));
    }
    Ok(bytes)
}
