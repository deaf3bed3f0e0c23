//! A cloud that answers what it is told to and remembers what it was shown.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use reqwest::Url;
use tokio::task::JoinHandle;

/// One answer.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// A whole one: status, headers, body.
    Whole(u16, Vec<(&'static str, &'static str)>, String),
    /// A success that breaks off.
    Cut,
    /// None.
    Silence,
}

impl Reply {
    pub(crate) fn ok(body: impl Into<String>) -> Self {
        Self::Whole(200, Vec::new(), body.into())
    }

    pub(crate) fn status(status: u16, body: impl Into<String>) -> Self {
        Self::Whole(status, Vec::new(), body.into())
    }
}

/// One request, as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) authorization: Option<String>,
    pub(crate) body: String,
}

impl Seen {
    /// The body as a form.
    pub(crate) fn form(&self) -> BTreeMap<String, String> {
        let url = Url::parse(&format!("http://localhost/?{}", self.body)).unwrap();
        url.query_pairs().into_owned().collect()
    }
}

#[derive(Default)]
struct Script {
    replies: Mutex<VecDeque<Reply>>,
    seen: Mutex<Vec<Seen>>,
}

/// The stub; it ends when it is dropped.
pub(crate) struct Stub {
    pub(crate) url: String,
    script: Arc<Script>,
    task: JoinHandle<()>,
}

impl Stub {
    /// Starts one that gives `replies` in order; past their end it fails the call for good.
    pub(crate) async fn start(replies: Vec<Reply>) -> Self {
        let script = Arc::new(Script { replies: Mutex::new(replies.into()), seen: Mutex::default() });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(answer).with_state(Arc::clone(&script));
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, script, task }
    }

    /// What arrived so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.script.seen.lock().unwrap().clone()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(script): State<Arc<Script>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let authorization = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    let body = String::from_utf8(body.to_vec()).unwrap();
    script.seen.lock().unwrap().push(Seen { path: uri.path().to_owned(), authorization, body });
    let reply = script.replies.lock().unwrap().pop_front();
    match reply {
        Some(Reply::Whole(status, headers, body)) => {
            let mut response = (StatusCode::from_u16(status).unwrap(), body).into_response();
            for (name, value) in headers {
                response.headers_mut().insert(name, value.parse().unwrap());
            }
            response
        }
        Some(Reply::Cut) => {
            let broken = futures_util::stream::iter([Ok("<Assume".to_owned()), Err("the line is cut")]);
            Body::from_stream(broken).into_response()
        }
        Some(Reply::Silence) => std::future::pending().await,
        None => (StatusCode::IM_A_TEAPOT, "there is no reply left").into_response(),
    }
}
