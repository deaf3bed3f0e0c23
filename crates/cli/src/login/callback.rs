//! The end of a sign-in in the browser: the identity provider sends it to a port of this machine, with a code.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::error::{Error, Exit};

/// How long a person may take to sign in.
const DEADLINE: Duration = Duration::from_mins(10);
/// How long the last page may take to arrive.
const PARTING: Duration = Duration::from_secs(2);

const PAGE: &str = "<!doctype html><meta charset=\"utf-8\"><title>Cortex</title><p>";

/// A port of this machine that waits for the browser (RFC 8252, section 7.3).
pub(crate) struct Callback {
    listener: TcpListener,
    uri: String,
}

/// What the identity provider has to send along, so that nobody else's answer is taken for its own.
#[derive(Clone)]
pub(super) struct Expected {
    /// What we sent.
    pub(super) state: String,
    /// Who we sent it to.
    pub(super) issuer: String,
    /// Whether it says who it is in each answer (RFC 9207): then one that does not is not its own.
    pub(super) says_issuer: bool,
}

/// What came: a code, or the provider's words why there is none.
type Outcome = Result<Zeroizing<String>, String>;

#[derive(Clone)]
struct Waiting {
    expected: Arc<Expected>,
    outcome: mpsc::Sender<Outcome>,
}

impl Callback {
    /// Listens on `port` of 127.0.0.1; 0 takes a free one.
    pub(crate) async fn listen(port: u16) -> Result<Self, Error> {
        let listener = TcpListener::bind(("127.0.0.1", port))
            .await
            .map_err(|error| Error::Said(format!("cannot listen on port {port} of 127.0.0.1: {error}")))?;
        let uri = format!("http://{}/callback", listener.local_addr()?);
        Ok(Self { listener, uri })
    }

    /// The redirect URI to register at the identity provider, with its port.
    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    /// Waits for the code.
    pub(super) async fn code(self, expected: Expected) -> Result<Zeroizing<String>, Error> {
        let (outcome, mut outcomes) = mpsc::channel(1);
        let waiting = Waiting { expected: Arc::new(expected), outcome };
        let router = Router::new().route("/callback", get(callback)).with_state(waiting);
        let enough = Arc::new(Notify::new());
        let until = Arc::clone(&enough);
        let server = axum::serve(self.listener, router);
        let server = server.with_graceful_shutdown(async move { until.notified().await });
        let serving = tokio::spawn(server.into_future());
        let came = timeout(DEADLINE, outcomes.recv()).await;
        enough.notify_one();
        // The page is still on its way to the browser.
        let _ = timeout(PARTING, serving).await;
        match came {
            Ok(Some(Ok(code))) => Ok(code),
            Ok(Some(Err(said))) => Err(Error::Of(Exit::Denied, format!("the identity provider says {said}"))),
            Ok(None) | Err(_) => Err(Error::Of(
                Exit::Waiting,
                "nobody signed in within 10 minutes; run `cortex login` again".to_owned(),
            )),
        }
    }
}

async fn callback(State(waiting): State<Waiting>, Query(fields): Query<HashMap<String, String>>) -> Response {
    match read(&waiting.expected, &fields) {
        // Not ours: the sign-in goes on waiting, so that no other page can break it off.
        None => {
            let page =
                format!("{PAGE}This is not the answer to the sign-in that waits here. Nothing was done.");
            (StatusCode::BAD_REQUEST, Html(page)).into_response()
        }
        Some(outcome) => {
            let said = if outcome.is_ok() {
                "You can close this page."
            } else {
                "This did not work. The terminal says why."
            };
            let page = Html(format!("{PAGE}{said}")).into_response();
            let _ = waiting.outcome.try_send(outcome);
            page
        }
    }
}

/// The outcome, if the answer is the one to our request.
fn read(expected: &Expected, fields: &HashMap<String, String>) -> Option<Outcome> {
    let field = |name: &str| fields.get(name).map(String::as_str);
    let issuer_fits = match field("iss") {
        Some(issuer) => issuer == expected.issuer,
        None => !expected.says_issuer,
    };
    if field("state") != Some(expected.state.as_str()) || !issuer_fits {
        return None;
    }
    if let Some(error) = field("error") {
        let said =
            field("error_description").map_or_else(|| error.to_owned(), |words| format!("{error}: {words}"));
        return Some(Err(said.chars().filter(|c| !c.is_control()).take(300).collect()));
    }
    field("code").map(|code| Ok(Zeroizing::new(code.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(says_issuer: bool, fields: &[(&str, &str)]) -> Option<Outcome> {
        let expected =
            Expected { state: "s".to_owned(), issuer: "https://idp.acme.example".to_owned(), says_issuer };
        read(
            &expected,
            &fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        )
    }

    #[test]
    fn only_the_answer_to_our_own_request_is_taken() {
        let iss = ("iss", "https://idp.acme.example");
        for says in [true, false] {
            assert!(outcome(says, &[("state", "s"), ("code", "c"), iss]).is_some_and(|code| code.is_ok()));
            assert!(
                outcome(says, &[("state", "s"), ("error", "access_denied"), iss])
                    .is_some_and(|code| code.is_err())
            );
            for other in [
                &[("state", "t"), ("code", "c"), iss][..],
                &[("code", "c"), iss],
                &[("state", "s"), iss],
                &[("state", "s"), ("code", "c"), ("iss", "https://evil.example")],
                &[("state", "t"), ("error", "access_denied"), iss],
            ] {
                assert!(outcome(says, other).is_none(), "{other:?}");
            }
        }
        assert!(outcome(false, &[("state", "s"), ("code", "c")]).is_some());
        assert!(outcome(true, &[("state", "s"), ("code", "c")]).is_none(), "it would have said who it is");
    }
}
