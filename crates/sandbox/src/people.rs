//! Sign-in at the development issuer: authorization code with PKCE, and a page to pick who one wants to be. There is no
//! password, so it sends people back to loopback only.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cortex_core::Digest;
use serde_json::{Value, json};

use crate::gate::Call;

/// Whom one can be: the subject, what they may do in the development world, and their groups.
pub const PEOPLE: [(&str, &str, &[&str]); 4] = [
    ("admin", "writes policies, freezes, revokes, disables people", &["cortex-admins"]),
    (
        "approver",
        "approves what the example policies ask people for",
        &["finance-admins", "privacy-officers"],
    ),
    ("auditor", "reads everything on record", &["auditors"]),
    ("engineer", "has no role: sees what that looks like", &["data-eng"]),
];

/// How long a code is good, in seconds.
const CODE_TTL_S: i64 = 60;
/// How many codes are open at once; after that the oldest are forgotten.
const CODES_MAX: usize = 1_000;

/// A sign-in that has its code.
struct Coded {
    person: &'static str,
    groups: &'static [&'static str],
    client_id: String,
    redirect_uri: String,
    nonce: Option<String>,
    challenge: String,
    until: i64,
}

/// The codes that are out.
#[derive(Default)]
pub(crate) struct SignIns(Mutex<HashMap<String, Coded>>);

/// What an ID token is made of.
pub(crate) struct SignedIn {
    pub(crate) person: &'static str,
    pub(crate) groups: &'static [&'static str],
    pub(crate) client_id: String,
    pub(crate) nonce: Option<String>,
}

impl SignIns {
    /// The page to pick a person, or the way back with a code once one is picked.
    pub(crate) fn authorize(&self, call: &Call, iss: &str, now: i64) -> Response {
        let redirect_uri = call.param("redirect_uri").unwrap_or_default();
        if !is_loopback(&redirect_uri) {
            return (StatusCode::BAD_REQUEST, "redirect_uri is not on loopback").into_response();
        }
        let s256 = call.param("code_challenge_method").as_deref() == Some("S256");
        let challenge = call.param("code_challenge").filter(|_| s256);
        let (Some(challenge), Some(client_id)) = (challenge, call.param("client_id")) else {
            return (StatusCode::BAD_REQUEST, "client_id and a PKCE challenge (S256) are needed")
                .into_response();
        };
        let picked = call.param("as");
        let Some((person, _, groups)) = PEOPLE.iter().find(|(name, ..)| Some(*name) == picked.as_deref())
        else {
            return page(call);
        };
        let code = hex::encode(rand::random::<[u8; 16]>());
        let begun = Coded {
            person,
            groups,
            client_id,
            nonce: call.param("nonce"),
            challenge,
            until: now.saturating_add(CODE_TTL_S),
            redirect_uri: redirect_uri.clone(),
        };
        let mut codes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        codes.retain(|_, one| one.until > now);
        if codes.len() >= CODES_MAX {
            codes.clear();
        }
        codes.insert(code.clone(), begun);
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("code", &code).append_pair("iss", iss);
        if let Some(state) = call.param("state") {
            query.append_pair("state", &state);
        }
        let join = if redirect_uri.contains('?') { '&' } else { '?' };
        let location = format!("{redirect_uri}{join}{}", query.finish());
        (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response()
    }

    /// Who a code stands for; it is used up whatever comes of it. The error is what the client is told.
    pub(crate) fn redeem(&self, call: &Call, now: i64) -> Result<SignedIn, Box<Response>> {
        let form: HashMap<_, _> = form_urlencoded::parse(&call.body).into_owned().collect();
        let field = |name: &str| form.get(name).map_or("", String::as_str);
        let bad = |why: &str| {
            let body = json!({"error": "invalid_grant", "error_description": why});
            Box::new((StatusCode::BAD_REQUEST, Json(body)).into_response())
        };
        let coded = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(field("code"));
        let coded = coded.filter(|coded| coded.until > now).ok_or_else(|| bad("no such code"))?;
        let challenge = URL_SAFE_NO_PAD.encode(Digest::of(field("code_verifier").as_bytes()).as_bytes());
        if challenge != coded.challenge {
            return Err(bad("the code verifier is another one"));
        }
        if field("redirect_uri") != coded.redirect_uri {
            return Err(bad("redirect_uri is another one"));
        }
        let Coded { person, groups, client_id, nonce, .. } = coded;
        Ok(SignedIn { person, groups, client_id, nonce })
    }
}

/// What the token endpoint answers.
pub(crate) fn answer(id_token: &str, expires_in: i64) -> Value {
    json!({
        "access_token": hex::encode(rand::random::<[u8; 16]>()), "token_type": "Bearer",
        "expires_in": expires_in, "id_token": id_token,
    })
}

/// `http://`, a loopback host, and a port or a path.
fn is_loopback(uri: &str) -> bool {
    let rest = uri.strip_prefix("http://").unwrap_or_default();
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    matches!(host, "127.0.0.1" | "localhost" | "[::1]") && !uri.contains(['\r', '\n', '@', '\\'])
}

fn page(call: &Call) -> Response {
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    let query = escape(&call.query);
    let mut links = String::new();
    for (name, about, _) in PEOPLE {
        // Writing to a String cannot fail.
        let _ = write!(
            links,
            "<li><a href=\"/people/authorize?{query}&amp;as={name}\"><strong>{name}</strong><br>{about}</a></li>"
        );
    }
    Html(format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>Development issuer</title><style>body{{font:16px/1.5 system-ui;max-width:30rem;margin:4rem auto;\
         padding:0 1rem;color-scheme:light dark}}ul{{list-style:none;padding:0}}a{{display:block;padding:.7rem 1rem;\
         margin:.6rem 0;border:1px solid #8886;border-radius:8px;text-decoration:none;color:inherit}}</style>\
         <h1>Who do you want to be?</h1><p>The development issuer asks for no password. It is of use on this \
         machine only.</p><ul>{links}</ul>"
    ))
    .into_response()
}
