//! The little of KMS that wraps a key: `Encrypt` and `Decrypt` with symmetric keys. The encryption is real, with keys
//! that end with the sandbox.

use std::collections::BTreeMap;

use axum::Json;
use axum::http::Method;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::caller::{AuthFault, Caller};
use super::error::AwsError;
use super::sigv4::{Signature, sha256_hex};
use super::{Aws, request_id};
use crate::fault::Twist;
use crate::gate::Call;
use crate::vault::Vault;

const JSON: &str = "application/x-amz-json-1.1";
const SYMMETRIC: &str = "SYMMETRIC_DEFAULT";
/// The most that is encrypted and decrypted, in bytes.
const MAX_PLAINTEXT: usize = 4_096;
const MAX_CIPHERTEXT: usize = 6_144;

/// The members of both requests.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Request {
    key_id: Option<String>,
    #[serde(default)]
    encryption_context: BTreeMap<String, String>,
    encryption_algorithm: Option<String>,
    plaintext: Option<String>,
    ciphertext_blob: Option<String>,
}

impl Request {
    /// What is authenticated with a ciphertext.
    fn context(&self) -> Vec<u8> {
        serde_json::to_vec(&self.encryption_context).unwrap_or_default()
    }
}

/// A request, and who makes it.
struct Asking<'a> {
    caller: &'a Caller<'a>,
    call: &'a Call,
    request: &'a Request,
}

/// The operation of KMS that a call asks for, if it does.
pub(super) fn target(call: &Call) -> Option<&str> {
    let is_post = call.path == "/" && call.method == Method::POST;
    call.header("x-amz-target").filter(|_| is_post)?.strip_prefix("TrentService.")
}

impl Aws {
    pub(super) fn kms(&self, action: &str, call: &Call, twist: Option<Twist>) -> Response {
        let request_id = request_id();
        match self.kms_answer(action, call) {
            Ok(mut answer) => {
                match twist {
                    Some(Twist::OtherArn | Twist::OtherAccount) => {
                        answer["KeyId"] = json!("arn:aws:kms:eu-west-1:999999999999:key/other");
                    }
                    Some(Twist::MissingToken) => {
                        answer.as_object_mut().map(|answer| answer.remove("Plaintext"));
                    }
                    Some(Twist::LongerExpiry) | None => {}
                }
                ([("x-amzn-requestid", request_id)], Json(answer)).into_response()
            }
            Err(error) => error.json_response(&request_id),
        }
    }

    fn kms_answer(&self, action: &str, call: &Call) -> Result<Value, AwsError> {
        if call.header("content-type") != Some(JSON) {
            return Err(AwsError::bad("UnknownOperationException", ""));
        }
        let authenticated = self.authenticate(call, "kms", &sha256_hex(&call.body));
        let (caller, _) = authenticated.map_err(AuthFault::in_json)?;
        let request: Request = serde_json::from_slice(&call.body)
            .map_err(|error| AwsError::bad("SerializationException", error.to_string()))?;
        if request.encryption_algorithm.as_deref().is_some_and(|algorithm| algorithm != SYMMETRIC) {
            return Err(AwsError::bad("InvalidKeyUsageException", "The algorithm is not one of this key."));
        }
        let asking = Asking { caller: &caller, call, request: &request };
        match action {
            "Encrypt" => self.encrypt(&asking),
            "Decrypt" => self.decrypt(&asking),
            _ => Err(AwsError::bad("UnknownOperationException", "")),
        }
    }

    fn encrypt(&self, asking: &Asking<'_>) -> Result<Value, AwsError> {
        let request = asking.request;
        let arn = request.key_id.as_deref().ok_or_else(|| missing("keyId"))?;
        let plain = blob("plaintext", request.plaintext.as_deref(), MAX_PLAINTEXT)?;
        let key = self.key_for(asking, "kms:Encrypt", arn)?;
        let sealed = key.seal(&request.context(), &plain).ok_or_else(AwsError::kms_internal)?;
        // A blob says itself which key made it.
        let blob = STANDARD.encode([arn.as_bytes(), b"\n", &sealed].concat());
        Ok(json!({"CiphertextBlob": blob, "KeyId": arn, "EncryptionAlgorithm": SYMMETRIC}))
    }

    fn decrypt(&self, asking: &Asking<'_>) -> Result<Value, AwsError> {
        let request = asking.request;
        let wrapped = blob("ciphertextBlob", request.ciphertext_blob.as_deref(), MAX_CIPHERTEXT)?;
        let mut parts = wrapped.splitn(2, |byte| *byte == b'\n');
        let arn = parts.next().and_then(|arn| std::str::from_utf8(arn).ok()).ok_or_else(unreadable)?;
        let sealed = parts.next().filter(|_| arn.starts_with("arn:")).ok_or_else(unreadable)?;
        if request.key_id.as_deref().is_some_and(|wanted| wanted != arn) {
            let message =
                "The key ID in the request does not identify a CMK that can perform this operation.";
            return Err(AwsError::bad("IncorrectKeyException", message));
        }
        let key = self.key_for(asking, "kms:Decrypt", arn)?;
        let plain = key.open(&request.context(), sealed).ok_or_else(unreadable)?;
        Ok(json!({"Plaintext": STANDARD.encode(plain), "KeyId": arn, "EncryptionAlgorithm": SYMMETRIC}))
    }

    /// The key, if the caller may use it with this encryption context.
    fn key_for(&self, asking: &Asking<'_>, action: &str, arn: &str) -> Result<&Vault, AwsError> {
        let names = asking.request.encryption_context.iter();
        let keys: Vec<_> =
            names.map(|(name, value)| (format!("kms:EncryptionContext:{name}"), value.as_str())).collect();
        let keys: Vec<_> = keys.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        self.authorise(asking.caller, action, arn, &keys)
            .map_err(|denied| AwsError::bad("AccessDeniedException", denied.message))?;
        // A region's KMS knows the keys of that region.
        let region = Signature::read(asking.call).map(|signature| signature.region).unwrap_or_default();
        let key = self.keys.get(arn).filter(|_| arn.split(':').nth(3) == Some(&*region));
        key.ok_or_else(|| AwsError::bad("NotFoundException", format!("Key '{arn}' does not exist")))
    }
}

fn blob(name: &str, text: Option<&str>, most: usize) -> Result<Vec<u8>, AwsError> {
    let text = text.ok_or_else(|| missing(name))?;
    let bytes = STANDARD
        .decode(text)
        .map_err(|error| AwsError::bad("SerializationException", format!("{name}: {error}")))?;
    if (1..=most).contains(&bytes.len()) {
        return Ok(bytes);
    }
    Err(invalid(&format!("Value at '{name}' failed to satisfy constraint: length 1 to {most}")))
}

fn invalid(message: &str) -> AwsError {
    AwsError::bad("ValidationException", format!("1 validation error detected: {message}"))
}

fn missing(name: &str) -> AwsError {
    invalid(&format!("Value null at '{name}' failed to satisfy constraint: Member must not be null"))
}

fn unreadable() -> AwsError {
    AwsError::bad("InvalidCiphertextException", "")
}
