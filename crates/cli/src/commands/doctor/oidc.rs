//! `cortex doctor oidc`: tries what signing in needs of an identity provider.

use std::path::PathBuf;

use clap::Args;
use cortex_core::clock::SystemClock;
use cortex_core::{Clock as _, IssuerName};
use cortex_identity::{IssuerConfig, Kind};
use cortex_server::Config;
use reqwest::{Client, Response, StatusCode, Url, header};
use serde_json::Value;

use super::{DEADLINE, Finding, clocks_agree, fault, keys, report, token, verdict};
use crate::api;
use crate::error::{Error, Exit};

/// The largest document that is read, in bytes.
const MAX_BYTES: usize = 1 << 20;
/// RSA keys below this are weak, in bits.
const RSA_BITS: usize = 2_048;
/// A redirect URI as the command line has it; the port differs each time (RFC 8252, section 7.3).
const LOOPBACK: &str = "http://127.0.0.1:8400/callback";

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cortex doctor oidc --issuer https://login.acme.example --client-id cortex
  cortex doctor oidc --name staff --client-id cortex-console --redirect https://cortex.acme.example/console/callback
  cortex doctor oidc --name staff --token-file id-token.jwt")]
pub(crate) struct OidcArgs {
    /// The identity provider, by its exact `iss`.
    #[arg(long, value_name = "URL", required_unless_present = "name", conflicts_with = "name")]
    issuer: Option<String>,
    /// The identity provider, by its name in the configuration.
    #[arg(long, value_name = "NAME")]
    name: Option<IssuerName>,
    /// What Cortex is called there. Default: the audience in the configuration.
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// A redirect URI to try, exactly as it is registered. Default: that of `cortex login`.
    #[arg(long, value_name = "URI", default_value = LOOPBACK)]
    redirect: Url,
    /// A file with an ID token to read. Its signature is checked as Cortex checks it; it is shown nowhere.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

pub(super) async fn run(args: OidcArgs, load: impl Fn() -> Result<Config, Error>) -> Result<(), Error> {
    let issuer = match (&args.issuer, &args.name) {
        (Some(url), _) => unconfigured(url, args.client_id.as_deref())?,
        (None, Some(name)) => configured(&load()?, name)?,
        (None, None) => return Err(Error::Of(Exit::Usage, "name the issuer with --issuer or --name".into())),
    };
    println!("{}", issuer.iss);
    let http = Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(DEADLINE).build()?;
    let mut findings = Vec::new();
    let (found, document) = discovered(&http, &issuer).await;
    findings.extend(report(found));
    if let Some(document) = document {
        findings.extend(report(metadata(&document)));
        findings.extend(report(published_keys(&http, &document).await));
        findings.extend(report(keys(&issuer).await?));
        if let Some(client_id) =
            args.client_id.as_deref().or(args.name.as_ref().map(|_| issuer.audience.as_str()))
        {
            findings.extend(report(vec![redirect(&http, &document, client_id, &args.redirect).await]));
        }
    }
    if let Some(file) = &args.token_file {
        println!("{}", file.display());
        findings.extend(report(token::read(&api::token_in(file)?, &issuer).await?));
    }
    verdict(&findings)
}

fn unconfigured(url: &str, client_id: Option<&str>) -> Result<IssuerConfig, Error> {
    let name = "doctor".parse().map_err(|_| Error::Said("doctor is no name".to_owned()))?;
    Ok(IssuerConfig::new(name, url, Kind::Person, client_id.unwrap_or("cortex")))
}

fn configured(config: &Config, name: &IssuerName) -> Result<IssuerConfig, Error> {
    let found = config.issuers.iter().find(|issuer| issuer.kind == Kind::Person && issuer.name == *name);
    found.cloned().ok_or_else(|| {
        let text = format!(
            "the configuration has no issuer of people named {name}: add [[issuers]] with kind = \"person\""
        );
        Error::Of(Exit::NotFound, text)
    })
}

/// The discovery document, where it is one, and what its address says.
async fn discovered(http: &Client, issuer: &IssuerConfig) -> (Vec<Finding>, Option<Value>) {
    if let Err(why) = issuer.iss.parse::<api::ServerUrl>() {
        let remedy = "Take the issuer exactly as the provider's own documents write it, with https.";
        return (vec![fault(format!("{} is no issuer: {why}", issuer.iss), remedy)], None);
    }
    let url = format!("{}/.well-known/openid-configuration", issuer.iss.trim_end_matches('/'));
    let answer = match http.get(&url).send().await {
        Ok(answer) => answer,
        Err(error) => {
            let what = format!("{url} cannot be reached: {}", api::causes(&error.without_url()));
            return (vec![fault(what, "Let this machine reach it: name, route, proxy, certificate.")], None);
        }
    };
    let date = answer.headers().get(header::DATE).and_then(|date| date.to_str().ok()).map(str::to_owned);
    let document = match read_document(answer).await {
        Ok(document) => document,
        Err((what, remedy)) => return (vec![fault(format!("{url} {what}"), remedy)], None),
    };
    let mut findings = vec![same_issuer(&issuer.iss, &document)];
    findings.extend(date.and_then(|date| clocks_agree(issuer.leeway, &date, SystemClock.now())));
    (findings, Some(document))
}

async fn read_document(answer: Response) -> Result<Value, (String, &'static str)> {
    let status = answer.status();
    if status.is_redirection() {
        let to = location(&answer).map_or_else(|| "nowhere".to_owned(), |to| to.to_string());
        return Err((
            format!("redirects to {to:.300}"),
            "Cortex follows no redirects: write the issuer that answers itself.",
        ));
    }
    if status != StatusCode::OK {
        let remedy = "Is this the issuer, with its tenant or realm and without anything behind it?";
        return Err((format!("answers HTTP {}", status.as_u16()), remedy));
    }
    let body = api::body_within(answer, MAX_BYTES).await.ok();
    let document: Option<Value> = body.and_then(|body| serde_json::from_slice(&body).ok());
    document
        .filter(Value::is_object)
        .ok_or_else(|| ("answers no JSON document".to_owned(), "What answers there is no OpenID Provider."))
}

fn location(answer: &Response) -> Option<Url> {
    let text = answer.headers().get(header::LOCATION)?.to_str().ok()?;
    answer.url().join(text).ok()
}

fn same_issuer(iss: &str, document: &Value) -> Finding {
    let said = document.get("issuer").and_then(Value::as_str).unwrap_or("nothing");
    if said == iss {
        return Finding::Sound("its discovery document is reachable, and its own".into());
    }
    let what = format!("issuer mismatch: it calls itself {said:.300}, and Cortex is told {iss}");
    fault(what, "Write its own words as `iss`, to the last slash.")
}

/// What the discovery document says that it can do.
fn metadata(document: &Value) -> Vec<Finding> {
    let list = |name: &str| -> Option<Vec<&str>> {
        Some(document.get(name)?.as_array()?.iter().filter_map(Value::as_str).collect())
    };
    let mut findings: Vec<Finding> = ["authorization_endpoint", "token_endpoint", "jwks_uri"]
        .iter()
        .filter_map(|name| endpoint(document, name))
        .collect();
    let types = list("response_types_supported").unwrap_or_default();
    let grants = list("grant_types_supported").unwrap_or_else(|| vec!["authorization_code"]);
    findings.push(if types.contains(&"code") && grants.contains(&"authorization_code") {
        Finding::Sound("it has the authorization code flow".into())
    } else {
        fault(
            "it does not offer the authorization code flow",
            "Allow response type `code` for this application.",
        )
    });
    findings.push(match list("code_challenge_methods_supported") {
        Some(methods) if methods.contains(&"S256") => Finding::Sound("it has PKCE with S256".into()),
        Some(methods) => fault(
            format!("it offers PKCE with {methods:?}, without S256"),
            "Allow S256: Cortex signs nobody in without it.",
        ),
        None => {
            Finding::Note("it does not say whether it has PKCE with S256, which Cortex always uses".into())
        }
    });
    let algorithms = list("id_token_signing_alg_values_supported").unwrap_or_default();
    findings.extend(algorithms.contains(&"none").then(|| {
        Finding::Note("it offers ID tokens without a signature (`none`); Cortex takes none of them".into())
    }));
    if !document.get("device_authorization_endpoint").is_some_and(Value::is_string) {
        let note = "it has no device flow: `cortex login --device` will not work, a browser or a forwarded port does";
        findings.push(Finding::Note(note.into()));
    }
    if let Some(claims) = list("claims_supported").filter(|claims| !claims.contains(&"groups")) {
        let note =
            format!("it lists {} claims and no `groups`: a token shows whether it sends them", claims.len());
        findings.push(Finding::Note(note));
    }
    findings
}

/// None where the endpoint is as it has to be.
fn endpoint(document: &Value, name: &str) -> Option<Finding> {
    let Some(url) = document.get(name).and_then(Value::as_str) else {
        let remedy = "What answers there is no OpenID Provider that signs people in.";
        return Some(fault(format!("its discovery document has no {name}"), remedy));
    };
    let plain = url.split(['?', '#']).next().unwrap_or_default();
    let why = plain.parse::<api::ServerUrl>().err()?;
    Some(fault(
        format!("its {name} {url:.300} cannot be used: {why}"),
        "Let the provider publish https endpoints.",
    ))
}

/// The key set as it is published: Cortex drops weak keys without a word, and then lacks them.
async fn published_keys(http: &Client, document: &Value) -> Vec<Finding> {
    let Some(url) = document.get("jwks_uri").and_then(Value::as_str) else { return Vec::new() };
    let answer = match http.get(url).send().await {
        Ok(answer) => answer,
        Err(error) => {
            let what =
                format!("its keys at {url:.300} cannot be reached: {}", api::causes(&error.without_url()));
            return vec![fault(what, "Let this machine reach its `jwks_uri` too.")];
        }
    };
    match read_document(answer).await {
        Ok(set) => weak_keys(&set),
        Err((what, remedy)) => vec![fault(format!("its keys: {url:.300} {what}"), remedy)],
    }
}

fn weak_keys(set: &Value) -> Vec<Finding> {
    let text = |key: &Value, name: &str| key.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let keys = set.get("keys").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let describe = |key: &Value| {
        let kid = text(key, "kid");
        match text(key, "kty").as_str() {
            // Six bits in each character of base64url.
            "RSA" if text(key, "n").len() * 6 < RSA_BITS => Some(fault(
                format!("weak key: {kid:.100} is an RSA key of about {} bits", text(key, "n").len() * 6),
                "Let the provider sign with RSA of 2048 bits or more, or with ES256.",
            )),
            "oct" => Some(fault(
                format!("its key set holds a symmetric key: {kid:.100}"),
                "Take it out at once and replace it: whoever reads the key set can sign.",
            )),
            _ if key.get("d").is_some() => Some(fault(
                format!("its key set holds a private key: {kid:.100}"),
                "Replace it at once: whoever reads the key set can sign.",
            )),
            _ => None,
        }
    };
    if keys.is_empty() {
        return vec![fault("its key set is empty", "Without keys nobody's token can be verified.")];
    }
    keys.iter().filter_map(describe).collect()
}

/// Asks the authorization endpoint, as a browser would, whether it knows the client and the redirect URI.
async fn redirect(http: &Client, document: &Value, client_id: &str, uri: &Url) -> Finding {
    let endpoint = document.get("authorization_endpoint").and_then(Value::as_str).unwrap_or_default();
    let query = [
        ("response_type", "code"),
        ("client_id", client_id),
        ("redirect_uri", uri.as_str()),
        ("scope", "openid"),
        ("state", "cortex-doctor"),
        ("nonce", "cortex-doctor"),
        // The challenge of RFC 7636, appendix B: nobody is signed in here.
        ("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"),
        ("code_challenge_method", "S256"),
    ];
    let query = query.map(|(name, value)| (name, value.to_owned()));
    let Ok(url) = api::with_query(endpoint, &query) else {
        return fault(
            format!("its authorization endpoint {endpoint:.300} is no URL"),
            "Let the provider correct it.",
        );
    };
    let answer = match http.get(url).send().await {
        Ok(answer) => answer,
        Err(error) => {
            let what = format!(
                "its authorization endpoint cannot be reached: {}",
                api::causes(&error.without_url())
            );
            return fault(what, "Browsers have to reach it, and this check as well.");
        }
    };
    let status = answer.status();
    if let Some(to) = location(&answer) {
        return redirected(&to, client_id, uri);
    }
    let body = api::body_within(answer, MAX_BYTES).await.unwrap_or_default();
    shown(status, &String::from_utf8_lossy(&body), client_id, uri)
}

/// To our own redirect URI with an error, or to its own page to sign in.
fn redirected(to: &Url, client_id: &str, uri: &Url) -> Finding {
    let field =
        |wanted: &str| to.query_pairs().find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned());
    match field("error") {
        Some(error)
            if matches!(error.as_str(), "login_required" | "interaction_required" | "consent_required") =>
        {
            known(client_id, uri)
        }
        Some(error) => {
            let words = field("error_description").unwrap_or_default();
            let what = format!("it refuses the sign-in of {client_id}: {error:.100} {words:.300}");
            fault(what, "Correct the application's registration at the provider.")
        }
        None => known(client_id, uri),
    }
}

/// A page: to sign in, or an error that only its words tell apart.
fn shown(status: StatusCode, page: &str, client_id: &str, uri: &Url) -> Finding {
    let page = page.to_ascii_lowercase();
    let about_redirect =
        ["redirect_uri", "redirect uri", "redirecturi"].iter().any(|words| page.contains(words));
    if status.is_success() && !(about_redirect && page.contains("mismatch")) {
        return known(client_id, uri);
    }
    if about_redirect {
        let what = format!("redirect mismatch: it does not know {uri} as a redirect URI of {client_id}");
        return fault(
            what,
            "Register exactly this URI, to the last character, or give the registered one with --redirect.",
        );
    }
    let what = format!("it does not know the client {client_id}, or refuses it: HTTP {}", status.as_u16());
    fault(what, "Register the application, or correct the client id.")
}

fn known(client_id: &str, uri: &Url) -> Finding {
    Finding::Sound(format!("it knows {client_id} and would send it back to {uri}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(findings: &[Finding]) -> Vec<&str> {
        let what = |finding: &'_ Finding| match finding {
            Finding::Fault { what, .. } => Some(what.clone()),
            _ => None,
        };
        findings.iter().filter_map(what).map(|what| &*what.leak()).collect()
    }

    fn document() -> Value {
        json!({
            "issuer": "https://idp.acme.example",
            "authorization_endpoint": "https://idp.acme.example/auth",
            "token_endpoint": "https://idp.acme.example/token",
            "jwks_uri": "https://idp.acme.example/jwks",
            "device_authorization_endpoint": "https://idp.acme.example/device",
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
            "claims_supported": ["sub", "groups"],
        })
    }

    #[test]
    fn each_fault_of_the_metadata_is_named() {
        assert!(metadata(&document()).iter().all(|finding| matches!(finding, Finding::Sound(_))));
        for (field, value, named) in [
            ("response_types_supported", json!(["id_token"]), "authorization code flow"),
            ("grant_types_supported", json!(["implicit"]), "authorization code flow"),
            ("code_challenge_methods_supported", json!(["plain"]), "without S256"),
            ("jwks_uri", Value::Null, "no jwks_uri"),
            ("token_endpoint", json!("http://idp.acme.example/token"), "token_endpoint"),
        ] {
            let mut document = document();
            document[field] = value;
            let findings = metadata(&document);
            let found = faults(&findings);
            assert!(found.len() == 1 && found[0].contains(named), "{field}: {found:?}");
        }
        let mut silent = document();
        for field in ["device_authorization_endpoint", "code_challenge_methods_supported"] {
            silent[field] = Value::Null;
        }
        silent["claims_supported"] = json!(["sub"]);
        let notes = metadata(&silent);
        assert!(
            faults(&notes).is_empty() && notes.iter().filter(|f| matches!(f, Finding::Note(_))).count() == 3
        );
    }

    #[test]
    fn another_spelling_of_the_issuer_is_a_mismatch() {
        for (said, sound) in [("https://idp.acme.example", true), ("https://idp.acme.example/", false)] {
            let finding = same_issuer("https://idp.acme.example", &json!({"issuer": said}));
            assert_eq!(matches!(finding, Finding::Sound(_)), sound, "{said}");
        }
    }

    #[test]
    fn weak_and_leaked_keys_are_named() {
        for (key, named) in [
            (json!({"kty": "RSA", "kid": "old", "n": "x".repeat(171), "e": "AQAB"}), Some("weak key: old")),
            (json!({"kty": "RSA", "kid": "good", "n": "x".repeat(342), "e": "AQAB"}), None),
            (json!({"kty": "oct", "kid": "shared", "k": "x"}), Some("symmetric")),
            (json!({"kty": "EC", "kid": "leaked", "d": "x"}), Some("private key: leaked")),
        ] {
            let findings = weak_keys(&json!({"keys": [key]}));
            let found = faults(&findings);
            assert_eq!(found.len(), usize::from(named.is_some()), "{found:?}");
            assert!(named.is_none_or(|named| found[0].contains(named)), "{found:?}");
        }
        assert_eq!(faults(&weak_keys(&json!({"keys": []}))), ["its key set is empty"]);
    }

    #[test]
    fn a_redirect_to_sign_in_is_good_and_one_with_an_error_is_not() {
        let uri: Url = LOOPBACK.parse().unwrap();
        for (to, sound) in [
            ("https://idp.acme.example/login?x=1", true),
            ("http://127.0.0.1:8400/callback?error=login_required", true),
            ("http://127.0.0.1:8400/callback?error=unauthorized_client", false),
        ] {
            let finding = redirected(&to.parse().unwrap(), "cortex", &uri);
            assert_eq!(matches!(finding, Finding::Sound(_)), sound, "{to}");
        }
        let mismatch = shown(StatusCode::BAD_REQUEST, "<h1>invalid redirect_uri</h1>", "cortex", &uri);
        assert!(matches!(mismatch, Finding::Fault { what, .. } if what.contains("redirect mismatch")));
        let unknown = shown(StatusCode::BAD_REQUEST, "<h1>invalid_client</h1>", "cortex", &uri);
        assert!(matches!(unknown, Finding::Fault { what, .. } if what.contains("client cortex")));
    }
}
