//! A relay on loopback that remembers what passed: what a client really sent.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Uri};
use axum::response::Response;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Passes every request on, headers and all, until it is dropped.
pub(super) struct Relay {
    pub(super) url: String,
    seen: Arc<Mutex<Vec<Bytes>>>,
    _serving: JoinSet<()>,
}

#[derive(Clone)]
struct Way {
    target: String,
    http: reqwest::Client,
    seen: Arc<Mutex<Vec<Bytes>>>,
}

impl Relay {
    pub(super) async fn start(target: String) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let router = Router::new().fallback(pass).with_state(Way { target, http, seen: Arc::clone(&seen) });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, seen, _serving: serving }
    }

    /// The bodies of the requests, oldest first.
    pub(super) fn seen(&self) -> Vec<Bytes> {
        self.seen.lock().unwrap().clone()
    }
}

async fn pass(
    State(way): State<Way>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    way.seen.lock().unwrap().push(body.clone());
    // The Host header stays the relay's: it is what the client signed.
    let request = way.http.request(method, format!("{}{uri}", way.target)).headers(headers).body(body);
    let answer = request.send().await.unwrap();
    let (status, headers) = (answer.status(), answer.headers().clone());
    let mut response = Response::new(Body::from(answer.bytes().await.unwrap()));
    *response.status_mut() = status;
    for (name, value) in headers.iter().filter(|(name, _)| *name != "transfer-encoding") {
        response.headers_mut().append(name, value.clone());
    }
    response
}
