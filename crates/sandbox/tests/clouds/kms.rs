//! Both key management services: what is encrypted comes back for the same key and the same context, and in no other way.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::aws::Keys;
use crate::s3::Sent;
use crate::world::World;

const ARN: &str = "arn:aws:kms:eu-west-1:123456789012:key/11111111-1111-4111-8111-111111111111";
const OTHER: &str = "arn:aws:kms:eu-west-1:123456789012:key/22222222-2222-4222-8222-222222222222";
const KEY: &str = "/v1/projects/acme-platform/locations/europe-west1/keyRings/cortex/cryptoKeys/key-files";
const TOKEN: &str = "/computeMetadata/v1/instance/service-accounts/default/token";

fn keeper() -> Keys {
    Keys { id: "AKIASANDBOXKEEPER001".into(), secret: "sandbox/keeper".into(), token: None }
}

impl World {
    async fn kms(&self, keys: &Keys, action: &str, body: &Value) -> (StatusCode, Value) {
        let target = format!("TrentService.{action}");
        let headers = [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", &*target)];
        let body = body.to_string();
        let call = Sent { method: "POST", path: "/", headers: &headers, body: &body, payload: None };
        let (status, text) = self.signed(keys, "kms", call).await;
        (status, serde_json::from_str(&text).unwrap())
    }

    async fn refused(&self, keys: &Keys, action: &str, body: &Value) -> String {
        let (status, body) = self.kms(keys, action, body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        body["__type"].as_str().unwrap().to_owned()
    }

    /// A token of the machine's service account.
    async fn machine(&self) -> String {
        let request = self.http.get(format!("{}{TOKEN}", self.sandbox.google_url()));
        let answer = request.header("metadata-flavor", "Google").send().await.unwrap();
        assert_eq!(answer.headers()["metadata-flavor"], "Google");
        answer.json::<Value>().await.unwrap()["access_token"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn aws_decrypts_for_the_same_key_context_and_caller_only() {
    let (world, keeper) = (World::start().await, keeper());
    let context = json!({"cortex:purpose": "log"});
    let plain = STANDARD.encode(b"a key of its own");
    let encrypt = json!({"KeyId": ARN, "Plaintext": plain, "EncryptionContext": context});
    let (status, made) = world.kms(&keeper, "Encrypt", &encrypt).await;
    assert_eq!((status, &made["KeyId"]), (StatusCode::OK, &json!(ARN)), "{made}");
    let blob = STANDARD.decode(made["CiphertextBlob"].as_str().unwrap()).unwrap();
    assert!(!blob.windows(5).any(|window| window == b"a key"), "it is encrypted");
    let decrypt =
        json!({"KeyId": ARN, "CiphertextBlob": made["CiphertextBlob"], "EncryptionContext": context});
    let (_, opened) = world.kms(&keeper, "Decrypt", &decrypt).await;
    assert_eq!((&opened["Plaintext"], &opened["KeyId"]), (&json!(plain), &json!(ARN)));
    let with = |member: &str, value: Value| {
        let mut changed = decrypt.clone();
        changed[member] = value;
        changed
    };
    let mut bent = blob.clone();
    *bent.last_mut().unwrap() ^= 1;
    for (request, code) in [
        (with("EncryptionContext", json!({"cortex:purpose": "signing-keys"})), "InvalidCiphertextException"),
        (with("EncryptionContext", json!({})), "InvalidCiphertextException"),
        (with("CiphertextBlob", json!(STANDARD.encode(&bent))), "InvalidCiphertextException"),
        (with("CiphertextBlob", json!(STANDARD.encode(b"odd"))), "InvalidCiphertextException"),
        (with("CiphertextBlob", json!("")), "ValidationException"),
        (with("CiphertextBlob", json!(STANDARD.encode([0; 6_145]))), "ValidationException"),
        (with("KeyId", json!(OTHER)), "IncorrectKeyException"),
        (with("EncryptionAlgorithm", json!("RSAES_OAEP_SHA_1")), "InvalidKeyUsageException"),
        (with("More", json!(1)), "SerializationException"),
    ] {
        assert_eq!(world.refused(&keeper, "Decrypt", &request).await, code, "{request}");
    }
    let wrong = Keys { secret: "guess".into(), ..keeper.clone() };
    assert_eq!(world.refused(&wrong, "Decrypt", &decrypt).await, "InvalidSignatureException");
    assert_eq!(world.refused(&Keys::broker(), "Decrypt", &decrypt).await, "AccessDeniedException");
    assert_eq!(world.refused(&keeper, "Sign", &decrypt).await, "UnknownOperationException");
    let large = json!({"KeyId": ARN, "Plaintext": STANDARD.encode([0; 4_097])});
    assert_eq!(world.refused(&keeper, "Encrypt", &large).await, "ValidationException");
    let elsewhere = json!({"KeyId": ARN.replace("eu-west-1", "us-east-1"), "Plaintext": plain});
    assert_eq!(world.refused(&keeper, "Encrypt", &elsewhere).await, "NotFoundException");
}

#[tokio::test]
async fn google_decrypts_for_the_same_key_data_and_checksums_only() {
    let world = World::start().await;
    let (encrypt, decrypt) = (format!("{KEY}:encrypt"), format!("{KEY}:decrypt"));
    let token = world.machine().await;
    let (plain, bound) = (STANDARD.encode(b"a key of its own"), STANDARD.encode(b"log"));
    let body = json!({"plaintext": plain, "additionalAuthenticatedData": bound});
    let (status, made) = world.google(&token, "POST", &encrypt, &body).await;
    assert_eq!(status, StatusCode::OK, "{made}");
    assert!(made["name"].as_str().unwrap().ends_with("/key-files/cryptoKeyVersions/1"), "{made}");
    assert_eq!(made["verifiedPlaintextCrc32c"], Value::Null, "nothing was checked");
    let body = json!({"ciphertext": made["ciphertext"], "additionalAuthenticatedData": bound});
    let (_, opened) = world.google(&token, "POST", &decrypt, &body).await;
    assert_eq!(opened["plaintext"], json!(plain));
    for (member, value) in [
        ("additionalAuthenticatedData", json!(STANDARD.encode(b"signing-keys"))),
        ("additionalAuthenticatedDataCrc32c", json!("1")),
        ("ciphertextCrc32c", json!("1")),
        ("ciphertext", json!(STANDARD.encode([0; 40]))),
        ("ciphertext", json!("*")),
        ("more", json!(1)),
    ] {
        let mut changed = body.clone();
        changed[member] = value;
        let (status, said) = world.google(&token, "POST", &decrypt, &changed).await;
        assert_eq!((status, &said["error"]["status"]), (StatusCode::BAD_REQUEST, &json!("INVALID_ARGUMENT")));
    }
    let other = decrypt.replace("key-files", "another");
    assert_eq!(world.google(&token, "POST", &other, &body).await.0, StatusCode::FORBIDDEN);
    assert_eq!(world.google("ya29.made-up", "POST", &decrypt, &body).await.0, StatusCode::UNAUTHORIZED);
    let plain_get = world.http.get(format!("{}{TOKEN}", world.sandbox.google_url())).send().await.unwrap();
    assert_eq!(plain_get.status(), StatusCode::FORBIDDEN, "a page in a browser cannot send the header");
}
