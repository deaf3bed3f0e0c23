//! `cortex doctor oidc` against a certified `OpenID` Provider, and against doubles with one fault each.

use std::process::Stdio;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use cortex_tests::counterparts::{Fault, OpenIdProvider};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::net::TcpListener;
use tokio::process::Command;

const PROGRAM: &str = env!("CARGO_BIN_EXE_cortex-under-test");

/// What the doctor says, and whether it found no fault.
async fn doctor(arguments: &[&str]) -> (bool, String) {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(["doctor", "oidc"]).args(arguments).env_clear().env("HOME", home.path());
    command.current_dir(home.path()).stdin(Stdio::null());
    let output = command.output().await.unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

fn file(token: &str) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), token).unwrap();
    file
}

#[tokio::test]
async fn a_provider_that_is_as_it_should_be_has_no_fault_and_its_token_neither() {
    let provider = OpenIdProvider::start().await;
    let token = provider.person_token_with("bob", &[("claims", r#"{"nonce": "n"}"#)]).await;
    let token = file(&token);
    let arguments = ["--issuer", provider.issuer(), "--token-file", token.path().to_str().unwrap()];
    let (sound, said) = doctor(&[&arguments[..], &["--client-id", OpenIdProvider::AUDIENCE]].concat()).await;
    // This provider knows no such client, which is the one thing to say.
    assert!(!sound && said.contains("1 of") || said.matches("FAULT").count() == 1, "{said}");
    assert!(said.contains("does not know the client"), "{said}");
    for good in [
        "discovery document is reachable",
        "clocks agree",
        "PKCE with S256",
        "can verify",
        "person:doctor:bob",
    ] {
        assert!(said.contains(good), "{good}: {said}");
    }
}

#[tokio::test]
async fn a_providers_faults_are_named_with_a_remedy_each() {
    let provider = OpenIdProvider::start().await;
    let slash = format!("{}/", provider.issuer());
    let said = doctor(&["--issuer", &slash]).await.1;
    assert!(said.contains("issuer mismatch"), "{said}");
    provider.fault("/jwks", Fault::Status(503), 9).await;
    let said = doctor(&["--issuer", provider.issuer()]).await.1;
    assert!(said.contains("HTTP 503") && said.contains("keys cannot be had"), "{said}");
    provider.clear_faults().await;
    provider.fault("/.well-known/openid-configuration", Fault::Garbage, 1).await;
    let said = doctor(&["--issuer", provider.issuer()]).await.1;
    assert!(said.contains("no JSON document"), "{said}");
    let said = doctor(&["--issuer", "http://idp.acme.example"]).await.1;
    assert!(said.contains("https"), "{said}");
    let said = doctor(&["--issuer", "http://127.0.0.1:1"]).await.1;
    assert!(said.contains("cannot be reached"), "{said}");
}

#[tokio::test]
async fn a_tokens_faults_are_named() {
    let provider = OpenIdProvider::start().await;
    for (claims, named) in [
        (r#"{"nonce": "n", "groups": null}"#, "missing groups claim"),
        (r#"{"nonce": "n", "aud": "https://else.where"}"#, "wrong audience"),
        (r#"{"nonce": "n", "iat": 4000000000, "exp": 4000000300}"#, "clock skew"),
        (r#"{"nonce": "n", "iss": "https://else.where"}"#, "issuer mismatch"),
        ("{}", "missing nonce"),
    ] {
        let token = file(&provider.person_token_with("bob", &[("claims", claims)]).await);
        let token = token.path().to_str().unwrap();
        let arguments =
            ["--issuer", provider.issuer(), "--client-id", OpenIdProvider::AUDIENCE, "--token-file", token];
        let (sound, said) = doctor(&arguments).await;
        assert!(!sound && said.contains(named), "{named}: {said}");
    }
    let token = file("opaque");
    let (_, said) =
        doctor(&["--issuer", provider.issuer(), "--token-file", token.path().to_str().unwrap()]).await;
    assert!(said.contains("no JWT"), "{said}");
}

/// What a double is asked for.
type Answerer = fn(&str, &str) -> Response;

/// A provider that is as it should be but for what `answer` says of a path. Gives its address.
async fn double(answer: Answerer) -> String {
    async fn handle(State((url, answer)): State<(Arc<str>, Answerer)>, uri: Uri) -> Response {
        answer(&url, uri.path())
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: Arc<str> = format!("http://{}", listener.local_addr().unwrap()).into();
    let router = Router::new().fallback(handle).with_state((Arc::clone(&url), answer));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url.to_string()
}

/// Discovery with `changes`, an empty page to sign in on, and no keys.
fn good(url: &str, path: &str, changes: &Value) -> Response {
    if path != "/.well-known/openid-configuration" {
        return (StatusCode::OK, axum::Json(json!({"keys": []}))).into_response();
    }
    let mut document = json!({
        "issuer": url,
        "authorization_endpoint": format!("{url}/auth"),
        "token_endpoint": format!("{url}/token"),
        "jwks_uri": format!("{url}/jwks"),
        "response_types_supported": ["code"],
        "code_challenge_methods_supported": ["S256"],
    });
    for (name, value) in changes.as_object().unwrap() {
        document[name] = value.clone();
    }
    axum::Json(document).into_response()
}

fn redirect_to(url: String) -> Response {
    (StatusCode::FOUND, [(header::LOCATION, url)]).into_response()
}

#[tokio::test]
async fn each_fault_that_a_double_has_is_the_one_that_is_named() {
    let weak = |url: &str, path: &str| match path {
        "/jwks" => {
            axum::Json(json!({"keys": [{"kty": "RSA", "kid": "old", "n": "x".repeat(171), "e": "AQAB"}]}))
                .into_response()
        }
        _ => good(url, path, &json!({})),
    };
    let mismatch = |url: &str, path: &str| match path {
        "/auth" => (StatusCode::BAD_REQUEST, "invalid redirect_uri").into_response(),
        _ => good(url, path, &json!({})),
    };
    let refusing = |url: &str, path: &str| match path {
        "/auth" => redirect_to("http://127.0.0.1:8400/callback?error=unauthorized_client".to_owned()),
        _ => good(url, path, &json!({})),
    };
    let moved = |url: &str, _: &str| redirect_to(format!("{url}/elsewhere"));
    let cases: [(Answerer, &str); 8] = [
        (weak, "weak key: old"),
        (mismatch, "redirect mismatch"),
        (refusing, "unauthorized_client"),
        (moved, "redirects to"),
        (
            |url, path| good(url, path, &json!({"code_challenge_methods_supported": ["plain"]})),
            "without S256",
        ),
        (
            |url, path| good(url, path, &json!({"response_types_supported": ["id_token"]})),
            "authorization code flow",
        ),
        (|url, path| good(url, path, &json!({"jwks_uri": null})), "no jwks_uri"),
        (|url, path| good(url, path, &json!({})), "key set is empty"),
    ];
    for (answer, named) in cases {
        let url = double(answer).await;
        let (sound, said) = doctor(&["--issuer", &url, "--client-id", "cortex"]).await;
        assert!(!sound && said.contains(named), "{named}: {said}");
    }
}
