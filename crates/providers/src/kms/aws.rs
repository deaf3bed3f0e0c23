//! AWS KMS: `Encrypt` and `Decrypt` (JSON 1.1), signed with AWS's own signer.

use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use reqwest::Client;
use reqwest::header::CONTENT_TYPE;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use super::call::{Answer, Attempt, away, client, plain, send};
use super::key::AwsKey;
use super::{Binding, KmsError};
use crate::aws::{Unsigned, own_credentials, partition_of};
use crate::config::CallLimits;

const JSON: &str = "application/x-amz-json-1.1";
/// What a symmetric key encrypts with; the answer has to say the same.
const ALGORITHM: &str = "SYMMETRIC_DEFAULT";

/// One key of AWS KMS.
pub(super) struct AwsKms {
    key: AwsKey,
    url: String,
    http: Client,
    credentials: OnceCell<SharedCredentialsProvider>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    key_id: &'a str,
    encryption_context: std::collections::BTreeMap<&'static str, &'a str>,
    encryption_algorithm: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    plaintext: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ciphertext_blob: Option<&'a str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Encrypted {
    key_id: String,
    ciphertext_blob: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Decrypted {
    key_id: String,
    plaintext: String,
}

/// KMS of a region. The addresses of the isolated partitions are known to their customers only.
fn own_url(region: &str) -> Option<String> {
    let suffix = match partition_of(region) {
        "aws" | "aws-us-gov" => "amazonaws.com",
        "aws-cn" => "amazonaws.com.cn",
        "aws-eusc" => "amazonaws.eu",
        _ => return None,
    };
    Some(format!("https://kms.{region}.{suffix}"))
}

impl AwsKms {
    pub(super) fn new(key: &AwsKey, endpoint: Option<&str>, limits: &CallLimits) -> Result<Self, KmsError> {
        let url = endpoint.map(str::to_owned).or_else(|| own_url(key.region())).ok_or_else(|| {
            KmsError::Refused(format!(
                "configure kms.endpoint: the KMS of {} has no public address",
                key.region()
            ))
        })?;
        let http = client(limits).build().map_err(|_| away("Cortex could not set up its HTTPS client"))?;
        Ok(Self { key: key.clone(), url, http, credentials: OnceCell::new() })
    }

    /// The same with these credentials in place of the ambient ones.
    #[cfg(test)]
    pub(super) fn with_credentials(mut self, credentials: SharedCredentialsProvider) -> Self {
        self.credentials = OnceCell::new_with(Some(credentials));
        self
    }

    pub(super) async fn encrypt(
        &self,
        plain: &[u8],
        binding: &Binding<'_>,
        now: Timestamp,
    ) -> Attempt<Vec<u8>> {
        let plain = Zeroizing::new(STANDARD.encode(plain));
        let request = Request { plaintext: Some(&plain), ..self.request(binding) };
        self.ask("Encrypt", &request, now, |answer: Encrypted| {
            let wrapped = STANDARD.decode(answer.ciphertext_blob).map_err(|_| unreadable("Encrypt"))?;
            self.same_key(&answer.key_id).map(|()| wrapped)
        })
        .await
    }

    pub(super) async fn decrypt(
        &self,
        wrapped: &[u8],
        binding: &Binding<'_>,
        now: Timestamp,
    ) -> Attempt<Zeroizing<Vec<u8>>> {
        let wrapped = STANDARD.encode(wrapped);
        let request = Request { ciphertext_blob: Some(&wrapped), ..self.request(binding) };
        self.ask("Decrypt", &request, now, |answer: Decrypted| {
            let text = Zeroizing::new(answer.plaintext);
            let plain = STANDARD.decode(text.as_bytes()).map_err(|_| unreadable("Decrypt"))?;
            let plain = Zeroizing::new(plain);
            self.same_key(&answer.key_id).map(|()| plain)
        })
        .await
    }

    fn request<'a>(&'a self, binding: &'a Binding<'_>) -> Request<'a> {
        Request {
            key_id: self.key.arn(),
            encryption_context: binding.context(),
            encryption_algorithm: ALGORITHM,
            plaintext: None,
            ciphertext_blob: None,
        }
    }

    /// AWS answers with the key that it used.
    fn same_key(&self, answered: &str) -> Result<(), KmsError> {
        if answered == self.key.arn() {
            return Ok(());
        }
        let arn = self.key.arn();
        Err(KmsError::Mismatch(format!(
            "AWS KMS answered for another key than {arn}: look at what is at kms.endpoint."
        )))
    }

    async fn ask<T, A: serde::de::DeserializeOwned>(
        &self,
        action: &'static str,
        request: &Request<'_>,
        now: Timestamp,
        read: impl FnOnce(A) -> Result<T, KmsError>,
    ) -> Attempt<T> {
        let answer = match self.call(action, request, now).await {
            Ok(answer) => answer,
            Err(error @ KmsError::Away(_)) => return Attempt::Again(error),
            Err(error) => return Attempt::Failed(error),
        };
        if !answer.status.is_success() {
            return self.refused(action, &answer);
        }
        let read = serde_json::from_slice(&answer.body).map_err(|_| unreadable(action)).and_then(read);
        read.map_or_else(Attempt::Failed, Attempt::Done)
    }

    async fn call(&self, action: &str, request: &Request<'_>, now: Timestamp) -> Result<Answer, KmsError> {
        let body = serde_json::to_vec(request).map_err(|_| unreadable(action))?;
        let target = format!("TrentService.{action}");
        let unsigned = Unsigned {
            url: &self.url,
            region: self.key.region(),
            service: "kms",
            headers: &[("content-type", JSON), ("x-amz-target", &target)],
            body: &body,
        };
        let credentials = self.credentials().await?;
        let credentials = credentials
            .provide_credentials()
            .await
            .map_err(|_| away("Cortex could not get AWS credentials of its own to call AWS KMS with"))?;
        let signed = unsigned.signed(&credentials, now);
        let signed = signed.ok_or_else(|| away("The request to AWS KMS could not be signed"))?;
        let mut request =
            self.http.post(&self.url).header(CONTENT_TYPE, JSON).header("x-amz-target", &target);
        for (name, value) in signed {
            request = request.header(name, value);
        }
        send(request.body(body), "AWS KMS").await
    }

    async fn credentials(&self) -> Result<&SharedCredentialsProvider, KmsError> {
        let load = || async {
            own_credentials().await.ok_or_else(|| {
                KmsError::Refused(
                    "Cortex has no AWS credentials of its own to call AWS KMS with: give it a role or a key."
                        .into(),
                )
            })
        };
        self.credentials.get_or_try_init(load).await
    }

    /// What a failure means. AWS's own text is not passed on; its code is.
    fn refused<T>(&self, action: &str, answer: &Answer) -> Attempt<T> {
        let said = serde_json::from_slice::<Value>(&answer.body).unwrap_or_default();
        let code = said["__type"].as_str().unwrap_or_default();
        let code = code.rsplit('#').next().and_then(|code| plain(code.split(':').next()?));
        let how = match (code, answer.status.as_u16()) {
            (Some(code), _) => code.to_owned(),
            (None, status) => format!("HTTP {status}"),
        };
        let busy = matches!(code, Some("ThrottlingException" | "LimitExceededException"));
        if busy || answer.status.is_server_error() {
            return Attempt::Again(away(&format!("AWS KMS answered {action} with {how}")));
        }
        let why = self.meaning(action, code);
        Attempt::Failed(KmsError::Refused(why.unwrap_or_else(|| {
            format!(
                "AWS KMS answered {action} with {how}: look at Cortex's credentials, its clock, kms.key and what is at \
                 kms.endpoint."
            )
        })))
    }

    fn meaning(&self, action: &str, code: Option<&str>) -> Option<String> {
        let arn = self.key.arn();
        Some(match code? {
            "AccessDeniedException" => format!(
                "AWS KMS denies kms:{action} on {arn} to this Cortex: allow it in the key's policy, for the role or user \
                 that Cortex runs as."
            ),
            "InvalidCiphertextException" => format!(
                "AWS KMS cannot decrypt it with {arn} for this purpose and issuer: it was changed, or wrapped for \
                 something else. Put the right file back from its backup."
            ),
            "IncorrectKeyException" => {
                format!("It was wrapped with another key than {arn}: configure that one, or wrap it again.")
            }
            "NotFoundException" => format!("AWS KMS has no key {arn}: look at kms.key and its region."),
            "DisabledException" | "KMSInvalidStateException" => {
                format!("The key {arn} is disabled or waits for its deletion: enable it.")
            }
            "InvalidKeyUsageException" => {
                format!("{arn} is not a symmetric key for encryption: make one and configure it.")
            }
            _ => return None,
        })
    }
}

fn unreadable(action: &str) -> KmsError {
    KmsError::Mismatch(format!(
        "AWS KMS answered {action} with what cannot be read: look at what is at kms.endpoint."
    ))
}
