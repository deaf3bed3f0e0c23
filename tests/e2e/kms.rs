//! Key files under a key management service: wrapped from their first day or later, unwrapped at each start, and of no use
//! to whoever has the file and no leave to use the key.

use std::fs::{read, read_to_string, write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cortex_providers::kms::KmsConfig;
use cortex_sandbox::{Cloud, Fault, FaultMode, Sandbox};
use cortex_server::Config;
use cortex_tests::served::Served;
use cortex_tests::world::first_run;
use jiff::SignedDuration;
use reqwest::StatusCode;
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_cortex-under-test");
const FILES: [&str; 2] = ["cortex.key", "cortex-log.key"];
pub(crate) const AWS_KEY: &str =
    "arn:aws:kms:eu-west-1:123456789012:key/11111111-1111-4111-8111-111111111111";
const OTHER_AWS_KEY: &str = "arn:aws:kms:eu-west-1:123456789012:key/22222222-2222-4222-8222-222222222222";
const GOOGLE_KEY: &str = "projects/acme-platform/locations/europe-west1/keyRings/cortex/cryptoKeys/key-files";

/// What a process is that has these AWS keys, and the sandbox's metadata server.
pub(crate) fn environment(google: &str, key_id: &str, secret: &str) -> Vec<(&'static str, String)> {
    let own = [
        ("AWS_ACCESS_KEY_ID", key_id),
        ("AWS_SECRET_ACCESS_KEY", secret),
        ("AWS_CONFIG_FILE", "/dev/null"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
        ("GCE_METADATA_HOST", google.trim_start_matches("http://")),
    ];
    own.map(|(name, value)| (name, value.to_owned())).into()
}

/// Who may use the keys.
fn keeper(sandbox: &Sandbox) -> Vec<(&'static str, String)> {
    environment(sandbox.google_url(), "AKIASANDBOXKEEPER001", "sandbox/keeper")
}

/// Wraps with `key`, whose KMS is at `endpoint`.
pub(crate) fn under(config: &mut Config, key: &str, endpoint: Option<String>) {
    config.server.public_url = Some(format!("http://{}", config.server.listen));
    config.kms.key = Some(key.parse().unwrap());
    config.kms.endpoint = endpoint;
    config.kms.calls.attempt_timeout = SignedDuration::from_secs(2);
}

async fn served_under(key: &'static str) -> Served {
    Served::with_environment(PROGRAM, keeper, |config| {
        let endpoint = match key {
            GOOGLE_KEY => config.providers.bigquery.revocation.endpoint.clone(),
            _ => config.providers.aws.endpoint.clone(),
        };
        under(config, key, endpoint);
    })
    .await
}

/// The configuration with another `[kms]`.
fn reconfigured(served: &Served, change: impl FnOnce(&mut Config)) {
    let mut config: Config = toml::from_str(&served.configuration()).unwrap();
    change(&mut config);
    served.configure(&toml::to_string(&config).unwrap());
}

/// What signs: the ids of the published keys, and the log's public key.
async fn identity(served: &Served) -> (Value, String) {
    let jwks: Value =
        served.http().get(format!("{}/jwks", served.url)).send().await.unwrap().json().await.unwrap();
    let (known, log) = served.try_run(&["log", "key"]).await;
    assert!(known, "{log}");
    (json!(jwks["keys"].as_array().unwrap().iter().map(|key| &key["kid"]).collect::<Vec<_>>()), log)
}

/// That nothing starts, and what is said.
async fn refused(served: &Served) -> String {
    let ended = tokio::time::timeout(Duration::from_mins(2), served.try_run(&["serve"])).await;
    let (started, said) = ended.expect("a start that is refused ends");
    assert!(!started, "{said}");
    said
}

fn is_wrapped(served: &Served, key: &str) {
    for name in FILES {
        let path = served.file(name);
        let document: Value = serde_json::from_str(&read_to_string(&path).unwrap()).unwrap();
        assert_eq!((&document["version"], &document["kms"]), (&json!(1), &json!(key)), "{name}");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
}

fn issued(answer: &cortex_tests::world::Answer) {
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
}

/// From the first start on, and over a restart.
async fn wraps_from_the_first_start(key: &'static str) {
    let mut served = served_under(key).await;
    served.start().await;
    is_wrapped(&served, key);
    let before = identity(&served).await;
    let kept = FILES.map(|name| read(served.file(name)).unwrap());
    served.kill().await;
    served.start().await;
    assert_eq!(identity(&served).await, before);
    assert_eq!(FILES.map(|name| read(served.file(name)).unwrap()), kept, "a restart writes nothing");
    issued(&served.ask(&served.sandbox.run_token(&first_run("r1")).unwrap(), &["api"]).await);
    let (whole, said) = served.try_run(&["log", "verify"]).await;
    assert!(whole, "{said}");
    let log = served.log();
    assert!(log.contains("the KMS unwrapped a key") && !log.contains("AKIASANDBOXKEEPER001/"), "no request");
}

#[tokio::test]
async fn under_aws_the_first_start_writes_wrapped_keys_and_a_restart_signs_with_the_same() {
    wraps_from_the_first_start(AWS_KEY).await;
}

#[tokio::test]
async fn under_google_the_first_start_writes_wrapped_keys_and_a_restart_signs_with_the_same() {
    wraps_from_the_first_start(GOOGLE_KEY).await;
}

/// The first file with `change` made to its document, while it is tried.
async fn with_document(served: &Served, change: impl FnOnce(&mut Value)) -> String {
    let path = served.file(FILES[0]);
    let right = read_to_string(&path).unwrap();
    let mut document = serde_json::from_str(&right).unwrap();
    change(&mut document);
    write(&path, document.to_string()).unwrap();
    let said = refused(served).await;
    write(&path, right).unwrap();
    said
}

/// The same for all of the file.
async fn with_text(served: &Served, text: &str) -> String {
    let path = served.file(FILES[0]);
    let right = read(&path).unwrap();
    write(&path, text).unwrap();
    let said = refused(served).await;
    write(&path, right).unwrap();
    said
}

/// `wrapped` with one bit changed, in the middle of what was encrypted.
fn bend(document: &mut Value) {
    let mut bytes = STANDARD.decode(document["wrapped"].as_str().unwrap()).unwrap();
    let last = bytes.len() - 20;
    bytes[last] ^= 1;
    document["wrapped"] = json!(STANDARD.encode(bytes));
}

async fn what_stands_in_a_file(key: &'static str) {
    let mut served = served_under(key).await;
    served.start().await;
    let before = identity(&served).await;
    served.kill().await;
    let [one, other] = FILES.map(|name| served.file(name));
    let texts = [&one, &other].map(|path| read_to_string(path).unwrap());
    let said = with_text(&served, &texts[1]).await;
    assert!(said.contains("is wrapped as the key for log, and this one is for signing-keys"), "{said}");
    // Its word does not make it the other key: the KMS has the last one.
    let log: Value = serde_json::from_str(&texts[1]).unwrap();
    let said = with_document(&served, |document| document["wrapped"] = log["wrapped"].clone()).await;
    assert!(said.contains("for this purpose and issuer: it was changed"), "{said}");
    let said = with_document(&served, bend).await;
    assert!(said.contains("it was changed, or wrapped for something else"), "{said}");
    let said = with_document(&served, |document| document["kms"] = json!(OTHER_AWS_KEY)).await;
    assert!(said.contains("is wrapped by") && said.contains("cortex keys wrap --from"), "{said}");
    let said = with_document(&served, |document| document["issuer"] = json!("https://other.example")).await;
    assert!(said.contains("belongs to another Cortex"), "{said}");
    let said = with_document(&served, |document| document["more"] = json!(1)).await;
    assert!(said.contains("is not a wrapped key"), "{said}");
    let said = with_document(&served, |document| document["version"] = json!(2)).await;
    assert!(said.contains("it is of version 2"), "{said}");
    let said = with_text(&served, &"0".repeat(20_000)).await;
    assert!(said.contains("more than 16384 bytes"), "{said}");
    let said = with_text(&served, &"0f".repeat(32)).await;
    assert!(said.contains("wrap it with `cortex keys wrap`"), "{said}");
    std::fs::remove_file(&one).unwrap();
    let said = refused(&served).await;
    assert!(said.contains("is missing, and the database holds keys that were sealed under it"), "{said}");
    write(&one, &texts[0]).unwrap();
    served.start().await;
    assert_eq!(identity(&served).await, before);
}

#[tokio::test]
async fn under_aws_no_file_stands_in_for_another_and_none_that_was_edited_is_taken() {
    what_stands_in_a_file(AWS_KEY).await;
}

#[tokio::test]
async fn under_google_no_file_stands_in_for_another_and_none_that_was_edited_is_taken() {
    what_stands_in_a_file(GOOGLE_KEY).await;
}

/// What is said while `mode` is what `cloud` does to every question.
async fn while_it(served: &Served, cloud: Cloud, mode: FaultMode) -> String {
    let operation = match cloud {
        Cloud::Google => "decrypt",
        _ => "Decrypt",
    };
    served.sandbox.fault(cloud, Fault { operation: Some(operation.to_owned()), mode, remaining: None });
    let said = refused(served).await;
    served.sandbox.clear_faults();
    said
}

#[tokio::test]
async fn without_the_kms_nothing_starts_and_what_to_do_is_said() {
    for (key, cloud) in [(AWS_KEY, Cloud::Aws), (GOOGLE_KEY, Cloud::Google)] {
        let mut served = served_under(key).await;
        served.start().await;
        let before = identity(&served).await;
        served.kill().await;
        for (mode, sentence) in [
            (FaultMode::Down, "HTTP 503: Cortex does not start without it"),
            (FaultMode::Delay(5_000), "did not answer in time: Cortex does not start without it"),
            (FaultMode::Reset, "did not answer: Cortex does not start without it"),
            (FaultMode::Throttle, "Cortex does not start without it"),
            (FaultMode::Garbage, "what cannot be read"),
            (FaultMode::MissingToken, "what cannot be read"),
            (FaultMode::Huge, "too large"),
        ] {
            let said = while_it(&served, cloud, mode).await;
            assert!(said.contains(sentence), "{key} {mode:?}: {said}");
        }
        let said = while_it(&served, cloud, FaultMode::OtherArn).await;
        let sentence =
            if cloud == Cloud::Aws { "answered for another key" } else { "do not agree on the checksums" };
        assert!(said.contains(sentence), "{said}");
        // One answer that is lost is not the end.
        let once = Fault { operation: None, mode: FaultMode::Reset, remaining: Some(1) };
        served.sandbox.fault(cloud, once);
        served.start().await;
        assert_eq!(identity(&served).await, before);
    }
}

#[tokio::test]
async fn who_has_the_files_and_no_leave_to_use_the_key_starts_nothing() {
    let mut served = served_under(AWS_KEY).await;
    served.start().await;
    served.kill().await;
    let google = served.sandbox.google_url().to_owned();
    for (key_id, secret, sentence) in [
        ("AKIASANDBOXBROKER001", "sandbox/broker", "denies kms:Decrypt"),
        ("AKIASANDBOXKEEPER001", "guess", "InvalidSignatureException"),
        ("AKIANOBODY", "guess", "UnrecognizedClientException"),
    ] {
        served.set_environment(environment(&google, key_id, secret));
        let said = refused(&served).await;
        assert!(said.contains(sentence) && !said.contains(secret), "{said}");
    }
    // An endpoint where another service listens.
    let issuer = served.sandbox.issuer_url().to_owned();
    served.set_environment(keeper(&served.sandbox));
    reconfigured(&served, |config| config.kms.endpoint = Some(issuer));
    let said = refused(&served).await;
    assert!(said.contains("what is at kms.endpoint"), "{said}");
}

/// No file below `folder` has any of these keys, as they are or in hexadecimal digits.
fn nowhere_below(folder: &Path, keys: &[String]) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = read(&path).unwrap();
        for key in keys {
            let raw = hex::decode(key).unwrap();
            let has = |what: &[u8]| bytes.windows(what.len()).any(|window| window == what);
            let base64 = STANDARD.encode(&raw);
            let none = !has(key.as_bytes()) && !has(&raw) && !has(base64.as_bytes());
            assert!(none, "{} has a key", path.display());
        }
    }
}

#[tokio::test]
async fn plain_files_are_wrapped_in_their_place_and_again_under_another_key() {
    let mut served = Served::with_environment(PROGRAM, keeper, |_| {}).await;
    served.start().await;
    let before = identity(&served).await;
    served.kill().await;
    let plain = FILES.map(|name| read_to_string(served.file(name)).unwrap().trim().to_owned());
    let (wrapped, said) = served.try_run(&["keys", "wrap"]).await;
    assert!(!wrapped && said.contains("kms.key is not configured"), "{said}");
    let aws = served.sandbox.aws_url().to_owned();
    reconfigured(&served, |config| under(config, AWS_KEY, Some(aws.clone())));
    assert!(refused(&served).await.contains("wrap it with `cortex keys wrap`"));
    assert_eq!(FILES.map(|name| read_to_string(served.file(name)).unwrap()), plain, "nothing was changed");
    let (wrapped, said) = served.try_run(&["keys", "wrap"]).await;
    assert!(wrapped && said.matches("is wrapped now").count() == 2, "{said}");
    is_wrapped(&served, AWS_KEY);
    nowhere_below(served.file("").as_path(), &plain);
    let (wrapped, said) = served.try_run(&["keys", "wrap"]).await;
    assert!(wrapped && said.matches("is wrapped already, and opens").count() == 2, "{said}");
    served.start().await;
    assert_eq!(identity(&served).await, before);
    served.kill().await;
    // To another key of the same KMS, and from there to the other cloud's.
    reconfigured(&served, |config| under(config, OTHER_AWS_KEY, Some(aws.clone())));
    let (wrapped, said) = served.try_run(&["keys", "wrap"]).await;
    assert!(!wrapped && said.contains(&format!("cortex keys wrap --from {AWS_KEY}")), "{said}");
    is_wrapped(&served, AWS_KEY);
    let from = ["keys", "wrap", "--from", AWS_KEY, "--from-endpoint", &aws];
    let (wrapped, said) = served.try_run(&from).await;
    assert!(wrapped && said.matches("is wrapped again").count() == 2, "{said}");
    is_wrapped(&served, OTHER_AWS_KEY);
    let google = served.sandbox.google_url().to_owned();
    reconfigured(&served, |config| under(config, GOOGLE_KEY, Some(google)));
    let from = ["keys", "wrap", "--from", OTHER_AWS_KEY, "--from-endpoint", &aws];
    let (wrapped, said) = served.try_run(&from).await;
    assert!(wrapped, "{said}");
    is_wrapped(&served, GOOGLE_KEY);
    nowhere_below(served.file("").as_path(), &plain);
    served.start().await;
    assert_eq!(identity(&served).await, before);
    issued(&served.ask(&served.sandbox.run_token(&first_run("r1")).unwrap(), &["api"]).await);
}

#[tokio::test]
async fn a_new_url_of_cortex_needs_its_keys_wrapped_again() {
    let served = served_under(AWS_KEY).await;
    let before = served.url.clone();
    // Loading the policies has made the log's key; the other one is made here.
    let (_, said) = served.try_run(&["keys", "wrap"]).await;
    assert!(said.contains("cortex.key: is missing: there is nothing to wrap"), "{said}");
    let (made, said) = served.try_run(&["keys", "wrap", "--make"]).await;
    assert!(made && said.contains("is made, wrapped") && said.contains("is wrapped already"), "{said}");
    is_wrapped(&served, AWS_KEY);
    let moved = before.replace("127.0.0.1", "localhost");
    reconfigured(&served, |config| config.server.public_url = Some(moved));
    let (wrapped, said) = served.try_run(&["keys", "wrap"]).await;
    assert!(!wrapped && said.contains(&format!("--from-issuer {before}")), "{said}");
    let (wrapped, said) = served.try_run(&["keys", "wrap", "--from-issuer", &before]).await;
    assert!(wrapped && said.matches("is wrapped again").count() == 2, "{said}");
    let (known, log) = served.try_run(&["log", "key"]).await;
    assert!(known, "{log}");
}

#[tokio::test]
async fn keys_that_were_wrapped_need_a_kms_that_is_configured() {
    let served = served_under(AWS_KEY).await;
    reconfigured(&served, |config| config.kms = KmsConfig::default());
    let (known, said) = served.try_run(&["log", "key"]).await;
    assert!(
        !known && said.contains(&format!("is wrapped by {AWS_KEY}: configure that as kms.key")),
        "{said}"
    );
    reconfigured(&served, |config| {
        config.kms.key = Some(AWS_KEY.parse().unwrap());
        config.server.public_url = None;
    });
    let (known, said) = served.try_run(&["config", "check"]).await;
    assert!(!known && said.contains("kms.key: needs server.public_url"), "{said}");
}
