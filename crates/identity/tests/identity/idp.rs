//! Issuers that answer over HTTP, as well or as badly as they are told to.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

/// What an issuer answers when it is asked for its keys.
#[derive(Clone)]
pub(crate) enum Answer {
    Keys(Value),
    /// The keys, once the gate has a permit.
    Gated(Arc<Semaphore>, Value),
    Status(u16),
    Redirect(String),
    Text(&'static str),
    /// Bytes without end.
    Endless,
    /// A document that says it is compressed.
    Gzip,
}

/// One issuer.
pub(crate) struct Tenant {
    answer: Mutex<Answer>,
    /// What its discovery document says instead of the truth.
    lie: Mutex<Option<Value>>,
    /// How often it was asked for its keys.
    asked: AtomicUsize,
    arrived: tokio::sync::Notify,
}

impl Tenant {
    pub(crate) fn answers(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    pub(crate) fn discovery_says(&self, document: Value) {
        *self.lie.lock().unwrap() = Some(document);
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Waits until it was asked for its keys.
    pub(crate) async fn arrival(&self) {
        self.arrived.notified().await;
    }
}

struct Shared {
    base: String,
    tenants: HashMap<String, Tenant>,
    requests: AtomicUsize,
}

/// A server with several issuers, each at its own path.
#[derive(Clone)]
pub(crate) struct Idp(Arc<Shared>);

impl Idp {
    /// Starts it on loopback, with these issuers and what they answer.
    pub(crate) async fn start(tenants: impl IntoIterator<Item = (&'static str, Answer)>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tenant = |(name, answer): (&str, Answer)| {
            let tenant = Tenant {
                answer: Mutex::new(answer),
                lie: Mutex::default(),
                asked: AtomicUsize::new(0),
                arrived: tokio::sync::Notify::new(),
            };
            (name.to_owned(), tenant)
        };
        let idp = Self(Arc::new(Shared {
            base: format!("http://{}", listener.local_addr().unwrap()),
            tenants: tenants.into_iter().map(tenant).collect(),
            requests: AtomicUsize::new(0),
        }));
        let app = Router::new()
            .route("/{tenant}/.well-known/openid-configuration", get(discovery))
            .route("/{tenant}/jwks", get(keys))
            .with_state(idp.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        idp
    }

    /// The `iss` of an issuer, whether there is one of this name or not.
    pub(crate) fn iss(&self, tenant: &str) -> String {
        format!("{}/{tenant}", self.0.base)
    }

    pub(crate) fn tenant(&self, name: &str) -> &Tenant {
        &self.0.tenants[name]
    }

    /// How many requests there were, for whatever.
    pub(crate) fn requests(&self) -> usize {
        self.0.requests.load(Ordering::SeqCst)
    }
}

async fn discovery(State(idp): State<Idp>, Path(name): Path<String>) -> Response {
    idp.0.requests.fetch_add(1, Ordering::SeqCst);
    let Some(tenant) = idp.0.tenants.get(&name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let truth = json!({"issuer": idp.iss(&name), "jwks_uri": format!("{}/jwks", idp.iss(&name))});
    let document = tenant.lie.lock().unwrap().clone().unwrap_or(truth);
    axum::Json(document).into_response()
}

async fn keys(State(idp): State<Idp>, Path(name): Path<String>) -> Response {
    idp.0.requests.fetch_add(1, Ordering::SeqCst);
    let Some(tenant) = idp.0.tenants.get(&name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    tenant.asked.fetch_add(1, Ordering::SeqCst);
    tenant.arrived.notify_one();
    let answer = tenant.answer.lock().unwrap().clone();
    match answer {
        Answer::Keys(keys) => axum::Json(keys).into_response(),
        Answer::Gated(gate, keys) => {
            let _permit = gate.acquire().await.unwrap();
            axum::Json(keys).into_response()
        }
        Answer::Status(code) => StatusCode::from_u16(code).unwrap().into_response(),
        Answer::Redirect(to) => (StatusCode::FOUND, [(header::LOCATION, to)]).into_response(),
        Answer::Text(text) => text.into_response(),
        Answer::Endless => {
            let chunk = || Ok::<_, Infallible>(Bytes::from_static(&[b' '; 8192]));
            Body::from_stream(futures_util::stream::repeat_with(chunk)).into_response()
        }
        Answer::Gzip => ([(header::CONTENT_ENCODING, "gzip")], "not even compressed").into_response(),
    }
}
