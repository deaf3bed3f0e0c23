//! What a KMS answers, and what is made of it; what the sandbox says is tested where there is one.

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::SignedDuration;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::tests::fixtures::now;
use crate::tests::stub::{Reply, Stub};

const ARN: &str = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const NAME: &str = "projects/acme/locations/europe-west1/keyRings/cortex/cryptoKeys/key-files";
const BINDING: Binding<'static> =
    Binding { purpose: Purpose::SigningKeys, issuer: "https://cortex.acme.example" };
const GOOGLE: (&str, &str) = ("metadata-flavor", "Google");

fn limits() -> CallLimits {
    CallLimits { attempt_timeout: SignedDuration::from_millis(300), ..CallLimits::default() }
}

fn aws(stub: &Stub) -> Kms {
    let KmsKey::Aws(key) = ARN.parse().unwrap() else { panic!("{ARN}") };
    let credentials = Credentials::new("AKIATEST", "secret", None, None, "test");
    let kms = AwsKms::new(&key, Some(&stub.url), &limits()).unwrap();
    let kms = kms.with_credentials(SharedCredentialsProvider::new(credentials));
    Kms { key: KmsKey::Aws(key), limits: limits(), service: Service::Aws(kms) }
}

fn google(stub: &Stub) -> Kms {
    let KmsKey::Google(key) = NAME.parse().unwrap() else { panic!("{NAME}") };
    let metadata = MetadataServer::at(stub.url.trim_start_matches("http://"), &limits()).unwrap();
    let kms = GoogleKms::new(&key, Some(&stub.url), metadata, &limits()).unwrap();
    Kms { key: KmsKey::Google(key), limits: limits(), service: Service::Google(kms) }
}

fn token() -> Reply {
    Reply::Whole(200, vec![GOOGLE], json!({"access_token": "ya29.x", "expires_in": 3_599}).to_string())
}

async fn unwrap(kms: &Kms) -> Result<Vec<u8>, KmsError> {
    kms.unwrap(b"wrapped", &BINDING, now()).await.map(|plain| plain.to_vec())
}

#[test]
fn a_key_is_named_in_full() {
    for text in [
        ARN,
        "arn:aws-us-gov:kms:us-gov-west-1:123456789012:key/mrk-1234abcd12ab34cd56ef1234567890ab",
        "arn:aws-cn:kms:cn-north-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        NAME,
        "projects/example.com:acme/locations/global/keyRings/my_ring/cryptoKeys/my_key",
    ] {
        assert_eq!(text.parse::<KmsKey>().map(String::from), Ok(text.to_owned()), "{text}");
    }
    for text in [
        "",
        "alias/cortex",
        "1234abcd-12ab-34cd-56ef-1234567890ab",
        "arn:aws:kms:eu-west-1:123456789012:alias/cortex",
        "arn:aws:kms:eu-west-1:12345678901:key/x",
        "arn:aws:kms::123456789012:key/x",
        "arn:aws:kms:cn-north-1:123456789012:key/x",
        "arn:aws:kms:eu-west-1:123456789012:key/",
        "arn:aws:kms:eu-west-1:123456789012:key/x:y",
        "arn:aws:kms:evil.example/:123456789012:key/x",
        "arn:aws:iam:eu-west-1:123456789012:key/x",
        "projects/acme/locations/global/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1",
        "projects/acme/locations/global/keyRings/r/cryptoKeys/",
        "projects/../locations/global/keyRings/r/cryptoKeys/k",
        "projects/acme/locations/global/keyRings/r/cryptoKeys/k?x=1",
        "/projects/acme/locations/global/keyRings/r/cryptoKeys/k",
    ] {
        assert!(text.parse::<KmsKey>().is_err(), "{text}");
    }
}

#[test]
fn an_endpoint_is_https_and_of_use() {
    let faults = |key: Option<&str>, endpoint: Option<&str>| {
        let key = key.map(|key| key.parse().unwrap());
        KmsConfig { key, endpoint: endpoint.map(str::to_owned), calls: CallLimits::default() }.faults()
    };
    assert_eq!(faults(None, None), Vec::<String>::new());
    assert_eq!(faults(Some(ARN), Some("https://kms.example")), Vec::<String>::new());
    assert_eq!(faults(Some(ARN), Some("http://127.0.0.1:4566")), Vec::<String>::new());
    for (key, endpoint) in [(Some(ARN), "http://kms.example"), (None, "https://kms.example")] {
        let said = faults(key, Some(endpoint));
        assert!(matches!(said.as_slice(), [one] if one.starts_with("kms.endpoint ")), "{said:?}");
    }
    let isolated = "arn:aws-iso:kms:us-iso-east-1:123456789012:key/x".parse().unwrap();
    assert!(
        Kms::new(&isolated, None, &limits()).is_err_and(|error| error.to_string().contains("kms.endpoint"))
    );
}

proptest! {
    #[test]
    fn no_two_bindings_are_the_same_to_a_kms(one in "[ -~]{0,40}", other in "[ -~]{0,40}") {
        let purposes = [Purpose::SigningKeys, Purpose::Log];
        let bindings: Vec<_> = purposes
            .into_iter()
            .flat_map(|purpose| [&one, &other].map(|issuer| Binding { purpose, issuer }))
            .collect();
        for a in &bindings {
            for b in &bindings {
                prop_assert_eq!(a == b, a.bytes() == b.bytes());
                prop_assert_eq!(a == b, a.context() == b.context());
            }
        }
    }
}

#[tokio::test]
async fn aws_is_asked_with_the_key_and_the_context_and_answers_for_both() {
    let right = json!({"KeyId": ARN, "Plaintext": STANDARD.encode(b"plain")});
    let stub = Stub::start(vec![Reply::ok(right.to_string())]).await;
    assert_eq!(unwrap(&aws(&stub)).await, Ok(b"plain".to_vec()));
    let seen = stub.seen();
    let asked: serde_json::Value = serde_json::from_str(&seen[0].body).unwrap();
    let expected = json!({
        "KeyId": ARN,
        "CiphertextBlob": STANDARD.encode(b"wrapped"),
        "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
        "EncryptionContext": {
            "cortex:issuer": "https://cortex.acme.example", "cortex:purpose": "signing-keys",
        },
    });
    assert_eq!(asked, expected);
    let signed = seen[0].authorization.as_ref().unwrap();
    assert!(signed.contains("/eu-west-1/kms/aws4_request") && signed.contains("x-amz-target"), "{signed}");
    for (answer, said) in [
        (
            json!({"KeyId": "arn:aws:kms:eu-west-1:123456789012:key/other", "Plaintext": "cGxhaW4="}),
            "another key",
        ),
        (json!({"KeyId": ARN, "Plaintext": "*"}), "cannot be read"),
        (json!({"KeyId": ARN}), "cannot be read"),
        (json!([]), "cannot be read"),
    ] {
        let stub = Stub::start(vec![Reply::ok(answer.to_string())]).await;
        let error = unwrap(&aws(&stub)).await.unwrap_err();
        assert!(matches!(&error, KmsError::Mismatch(text) if text.contains(said)), "{answer}: {error}");
        assert!(!error.to_string().contains("cGxhaW4"), "{error}");
    }
}

#[tokio::test]
async fn what_aws_refuses_is_said_with_what_to_do_and_not_tried_again() {
    for (code, said) in [
        ("AccessDeniedException", "kms:Decrypt"),
        ("com.amazonaws.kms#AccessDeniedException", "kms:Decrypt"),
        ("InvalidCiphertextException", "backup"),
        ("IncorrectKeyException", "another key"),
        ("NotFoundException", "region"),
        ("DisabledException", "enable it"),
        ("KMSInvalidStateException", "enable it"),
        ("UnrecognizedClientException", "credentials"),
        ("<b>odd</b>", "HTTP 400"),
    ] {
        let body = json!({"__type": code, "message": "secret words"}).to_string();
        let stub = Stub::start(vec![Reply::status(400, body)]).await;
        let error = unwrap(&aws(&stub)).await.unwrap_err();
        assert!(matches!(&error, KmsError::Refused(text) if text.contains(said)), "{code}: {error}");
        assert!(!error.to_string().contains("secret words") && !error.to_string().contains('<'), "{error}");
        assert_eq!(stub.seen().len(), 1, "{code}");
    }
}

#[tokio::test]
async fn a_kms_that_is_away_is_tried_again_a_few_times() {
    let busy = || Reply::status(400, json!({"__type": "ThrottlingException"}).to_string());
    let right = json!({"KeyId": ARN, "Plaintext": STANDARD.encode(b"plain")}).to_string();
    let stub = Stub::start(vec![busy(), Reply::Silence, Reply::ok(right)]).await;
    assert_eq!(unwrap(&aws(&stub)).await, Ok(b"plain".to_vec()));
    let stub = Stub::start((0..4).map(|_| Reply::status(503, "")).collect()).await;
    let error = unwrap(&aws(&stub)).await.unwrap_err();
    assert!(matches!(&error, KmsError::Away(text) if text.contains("HTTP 503")), "{error}");
    assert_eq!(stub.seen().len(), 3);
    let huge = Stub::start(vec![Reply::ok(" ".repeat(1 << 20)), Reply::Cut, Reply::Cut]).await;
    assert!(matches!(unwrap(&aws(&huge)).await, Err(KmsError::Away(_))));
}

#[tokio::test]
async fn a_key_is_not_relied_on_that_the_kms_does_not_give_back() {
    let wrapped = json!({"KeyId": ARN, "CiphertextBlob": STANDARD.encode(b"wrapped")}).to_string();
    let denied = Reply::status(400, json!({"__type": "AccessDeniedException"}).to_string());
    let stub = Stub::start(vec![Reply::ok(wrapped.clone()), denied]).await;
    let error = aws(&stub).wrap(b"plain", &BINDING, now()).await.unwrap_err();
    assert!(error.to_string().contains("kms:Decrypt"), "{error}");
    let other = json!({"KeyId": ARN, "Plaintext": STANDARD.encode(b"other")}).to_string();
    let stub = Stub::start(vec![Reply::ok(wrapped), Reply::ok(other)]).await;
    let error = aws(&stub).wrap(b"plain", &BINDING, now()).await.unwrap_err();
    assert!(matches!(&error, KmsError::Mismatch(text) if text.contains("another key back")), "{error}");
}

#[tokio::test]
async fn google_is_asked_with_checksums_and_what_it_answers_is_checked_against_its_own() {
    let crc = |bytes: &[u8]| crc::Crc::<u32>::new(&crc::CRC_32_ISCSI).checksum(bytes).to_string();
    let right = json!({"plaintext": STANDARD.encode(b"plain"), "plaintextCrc32c": crc(b"plain")});
    let stub = Stub::start(vec![token(), Reply::ok(right.to_string())]).await;
    assert_eq!(unwrap(&google(&stub)).await, Ok(b"plain".to_vec()));
    let seen = stub.seen();
    assert_eq!(seen[0].path, "/computeMetadata/v1/instance/service-accounts/default/token");
    assert_eq!(seen[1].path, format!("/v1/{NAME}:decrypt"));
    assert_eq!(seen[1].authorization.as_deref(), Some("Bearer ya29.x"));
    let asked: serde_json::Value = serde_json::from_str(&seen[1].body).unwrap();
    let bound = br#"{"cortex:issuer":"https://cortex.acme.example","cortex:purpose":"signing-keys"}"#;
    let expected = json!({
        "ciphertext": STANDARD.encode(b"wrapped"),
        "ciphertextCrc32c": crc(b"wrapped"),
        "additionalAuthenticatedData": STANDARD.encode(bound),
        "additionalAuthenticatedDataCrc32c": crc(bound),
    });
    assert_eq!(asked, expected);
    let wrong = json!({"plaintext": STANDARD.encode(b"plain"), "plaintextCrc32c": "0"}).to_string();
    let stub = Stub::start(vec![token(), Reply::ok(wrong)]).await;
    assert!(
        matches!(unwrap(&google(&stub)).await, Err(KmsError::Mismatch(text)) if text.contains("checksums"))
    );
    let encrypted = |name: &str, verified: bool, checksum: String| {
        json!({
            "name": name,
            "ciphertext": STANDARD.encode(b"wrapped"),
            "ciphertextCrc32c": checksum,
            "verifiedPlaintextCrc32c": verified,
            "verifiedAdditionalAuthenticatedDataCrc32c": true,
        })
    };
    let version = format!("{NAME}/cryptoKeyVersions/1");
    for answer in [
        encrypted(NAME, true, crc(b"wrapped")),
        encrypted(&format!("{NAME}2/cryptoKeyVersions/1"), true, crc(b"wrapped")),
        encrypted(&version, false, crc(b"wrapped")),
        encrypted(&version, true, crc(b"other")),
    ] {
        let stub = Stub::start(vec![token(), Reply::ok(answer.to_string())]).await;
        let wrapped = google(&stub).wrap(b"plain", &BINDING, now()).await;
        assert!(matches!(wrapped, Err(KmsError::Mismatch(_))), "{answer}");
        assert_eq!(stub.seen().len(), 2, "{answer}");
    }
}

#[tokio::test]
async fn what_google_refuses_is_said_with_what_to_do() {
    for (http, status, said) in [
        (403, "PERMISSION_DENIED", "cryptoKeyEncrypterDecrypter"),
        (400, "INVALID_ARGUMENT", "backup"),
        (404, "NOT_FOUND", "kms.key"),
        (400, "FAILED_PRECONDITION", "enable it"),
        (401, "UNAUTHENTICATED", "scopes"),
        (409, "ABORTED", "ABORTED"),
    ] {
        let body = json!({"error": {"code": http, "status": status, "message": "secret words"}}).to_string();
        let stub = Stub::start(vec![token(), Reply::status(http, body)]).await;
        let error = unwrap(&google(&stub)).await.unwrap_err();
        assert!(matches!(&error, KmsError::Refused(text) if text.contains(said)), "{status}: {error}");
        assert!(!error.to_string().contains("secret words"), "{error}");
    }
    for reply in [Reply::Whole(404, vec![GOOGLE], String::new()), Reply::ok(r#"{"access_token":"x"}"#)] {
        let stub = Stub::start(vec![reply]).await;
        let error = unwrap(&google(&stub)).await.unwrap_err();
        assert!(matches!(&error, KmsError::Refused(text) if text.contains("metadata server")), "{error}");
        assert_eq!(stub.seen().len(), 1, "nothing is told to a KMS");
    }
}
