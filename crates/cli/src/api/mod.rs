//! Cortex's REST API, as the command line calls it.

mod answer;
mod connection;
mod lines;
mod server;

pub(crate) use answer::{Answer, body_within};
pub(crate) use connection::{Connection, named_or_last, token_in};
pub(crate) use lines::Lines;
pub(crate) use server::ServerUrl;

use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response, Url, redirect};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::error::{Error, Exit};

/// How long a connection may take to be made.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// How long one answer may take: longer than any that the server lets itself take.
const DEADLINE: Duration = Duration::from_mins(1);

/// A client that goes where it is told and nowhere else: no redirects, a deadline for everything.
pub(crate) fn http() -> Result<Client, Error> {
    let builder = Client::builder().redirect(redirect::Policy::none()).referer(false);
    Ok(builder.connect_timeout(CONNECT_DEADLINE).timeout(DEADLINE).build()?)
}

/// One server, and who we are to it.
pub(crate) struct Api {
    http: Client,
    server: ServerUrl,
    bearer: Option<Zeroizing<String>>,
}

impl Api {
    /// A server that is told nothing about us.
    pub(crate) fn anonymous(server: ServerUrl) -> Result<Self, Error> {
        Ok(Self { http: http()?, server, bearer: None })
    }

    /// A server that is shown `bearer` with each request.
    pub(crate) fn bearing(server: ServerUrl, bearer: Zeroizing<String>) -> Result<Self, Error> {
        Ok(Self { bearer: Some(bearer), ..Self::anonymous(server)? })
    }

    /// The server.
    pub(crate) fn server(&self) -> &ServerUrl {
        &self.server
    }

    /// A document.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, Error> {
        self.send(self.request(Method::GET, path)).await?.accepted()
    }

    /// A document, with parameters in the query.
    pub(crate) async fn query(&self, path: &str, query: &[(&str, String)]) -> Result<Value, Error> {
        let url = with_query(&self.server.at(path), query)?;
        self.send(self.request_to(Method::GET, url)).await?.accepted()
    }

    /// What the server makes of `body`.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, Error> {
        self.send(self.request(Method::POST, path).json(body)).await?.accepted()
    }

    /// The same on the condition that what was seen is still so (RFC 9110, section 13.1.1).
    pub(crate) async fn post_if(&self, path: &str, seen: &str, body: &Value) -> Result<Value, Error> {
        let request = self.request(Method::POST, path).header("if-match", format!("\"{seen}\""));
        self.send(request.json(body)).await?.accepted()
    }

    /// Ends something.
    pub(crate) async fn delete(&self, path: &str) -> Result<Value, Error> {
        self.send(self.request(Method::DELETE, path)).await?.accepted()
    }

    /// A request that is sent with [`Self::send`]. `path` begins with a slash.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.bear(self.http.request(method, self.server.at(path)))
    }

    /// The same for an address that was put together already.
    pub(crate) fn request_to(&self, method: Method, url: Url) -> RequestBuilder {
        self.bear(self.http.request(method, url))
    }

    fn bear(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.bearer {
            Some(bearer) => request.bearer_auth(bearer.as_str()),
            None => request,
        }
    }

    /// Sends a request and reads the answer, whatever it is.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Answer, Error> {
        Answer::read(self.answer_to(request).await?).await
    }

    /// Sends a request that is answered in lines, which come for up to `deadline`.
    pub(crate) async fn lines(&self, request: RequestBuilder, deadline: Duration) -> Result<Lines, Error> {
        Ok(Lines::new(self.flow(request, deadline).await?))
    }

    /// Sends a request whose answer is read as it comes, for up to `deadline`.
    pub(crate) async fn flow(&self, request: RequestBuilder, deadline: Duration) -> Result<Response, Error> {
        let response = self.answer_to(request.timeout(deadline)).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        Answer::read(response).await?.accepted()?;
        Err(Error::Said("the server's answer is of another version".to_owned()))
    }

    async fn answer_to(&self, request: RequestBuilder) -> Result<Response, Error> {
        let unreachable = |error: reqwest::Error| {
            let text = format!("{} cannot be reached: {}", self.server, causes(&error.without_url()));
            Error::Of(Exit::Unavailable, text)
        };
        request.send().await.map_err(unreachable)
    }
}

/// An address with parameters behind it.
pub(crate) fn with_query(url: &str, query: &[(&str, String)]) -> Result<Url, Error> {
    let mut url: Url = url.parse().map_err(|error| Error::Said(format!("{url}: {error}")))?;
    url.query_pairs_mut().extend_pairs(query);
    Ok(url)
}

/// An error with what caused it: a name that does not resolve, a certificate that is not trusted.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text.truncate(text.floor_char_boundary(400));
    text
}
