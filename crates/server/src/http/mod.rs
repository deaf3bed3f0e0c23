//! HTTP: each file owns the routes of one kind of user, and what they answer.

pub(crate) mod auth;
mod aws;
mod body;
mod credentials;
mod docs;
mod error;
pub(crate) mod freezes;
#[doc(hidden)]
pub mod fuzzing;
mod grant_status;
pub(crate) mod grants;
mod guardrails;
mod holds;
mod introspect;
pub(crate) mod issuances;
mod log;
pub(crate) mod notifications;
pub(crate) mod operations;
mod page;
pub(crate) mod people;
pub(crate) mod policies;
mod preapprovals;
pub(crate) mod replays;
pub(crate) mod reports;
pub(crate) mod revocations;
mod streams;
mod token;
mod well_known;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::{DefaultBodyLimit, FromRequestParts, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header, request::Parts};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use cortex_core::RecordId;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use ipnet::IpNet;
use jiff::SignedDuration;
use metrics::SharedString;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument as _;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::auth::BearerScheme;
use crate::admission;
use crate::broker::Broker;
use crate::console;
use crate::serve::{ClientCertificate, Tls};
use crate::telemetry::{self, UnderWay};

pub use error::{OAuthError, Problem};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What every handler has at hand; a clone is a reference, for each request makes several.
#[derive(Clone)]
pub struct App(Arc<Shared>);

impl From<Shared> for App {
    fn from(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }
}

impl std::ops::Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// What the handlers of a replica share.
pub struct Shared {
    /// The replica's parts.
    pub broker: Arc<Broker>,
    /// Cortex's own URL.
    pub issuer_url: String,
    /// Proxies whose X-Forwarded-For is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Exchanges under way: they go on when their caller is gone.
    pub mints: TaskTracker,
    /// TLS, where Cortex ends it itself.
    pub(crate) tls: Option<Arc<Tls>>,
    /// Cancelled when the replica is told to stop.
    pub stopping: CancellationToken,
    /// The turn to replay: one at a time, for it takes every core.
    pub replays: Arc<Semaphore>,
    /// The turns to make a report: some of them read a whole quarter.
    pub reports: Arc<Semaphore>,
    /// How far this replica's clock may be from the database's; none: nobody looks.
    pub max_clock_skew: Option<SignedDuration>,
    /// The longest body, in bytes.
    pub max_body_bytes: usize,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
    /// How long an answer may take from there.
    pub request_timeout: Duration,
}

/// The address at the other end of the connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// Who calls, as far as the network knows, and the request's id.
#[derive(Debug, Clone)]
pub struct Client {
    /// The caller's address.
    pub source: Option<IpAddr>,
    /// The request's id, made here; what a client sends is not believed.
    pub request_id: String,
}

impl FromRequestParts<App> for Client {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        let peer = parts.extensions.get::<Peer>().map(|peer| peer.0.to_canonical());
        let source = peer.map(|peer| forwarded_for(parts, peer, &app.trusted_proxies));
        let request_id = parts.extensions.get::<RequestId>().map_or_else(String::new, |id| id.0.clone());
        Ok(Self { source, request_id })
    }
}

/// The address that a chain of trusted proxies vouches for: from the right, the first that is none of them.
fn forwarded_for(parts: &Parts, peer: IpAddr, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
    if !is_trusted(&peer) {
        return peer;
    }
    // A value that is no text is no address either: to skip it would let a caller hide what a proxy wrote after it.
    let values = parts.headers.get_all("x-forwarded-for").iter();
    let listed: Vec<&str> =
        values.map(|v| v.to_str().unwrap_or_default()).flat_map(|v| v.split(',')).collect();
    for text in listed.iter().rev() {
        match text.trim().parse::<IpAddr>().map(|address| address.to_canonical()) {
            Ok(address) if is_trusted(&address) => {}
            Ok(address) => return address,
            Err(_) => return peer,
        }
    }
    peer
}

#[derive(Debug, Clone)]
struct RequestId(String);

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Cortex",
        description = "A short-lived credential broker for Apache Airflow: a run's identity in, scoped \
                       credentials out, every issuance on record."
    ),
    tags(
        (name = "runs", description = "What tasks and their client libraries call."),
        (name = "policies", description = "What admins write, and who may read."),
        (name = "grants", description = "Approvals by people."),
        (name = "freezes", description = "The kill switch."),
        (name = "revocations", description = "Ending credentials before they expire."),
        (name = "introspection", description = "What APIs ask about the tokens that they are shown."),
        (name = "people", description = "Who signs in, and who no longer may."),
        (name = "record", description = "What auditors ask."),
        (name = "log", description = "The issuance log, for whoever wants to check it."),
        (name = "issuer", description = "Cortex as an OIDC issuer, for the clouds."),
        (name = "operations", description = "What operators watch.")
    ),
    modifiers(&BearerScheme)
)]
struct ApiDoc;

/// The OpenAPI description, derived from the handlers.
pub fn openapi() -> utoipa::openapi::OpenApi {
    described().1
}

fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(ApiDoc::openapi())
        .routes(routes!(token::token))
        .routes(routes!(credentials::credentials))
        .routes(routes!(aws::container_credentials))
        .routes(routes!(policies::list, policies::apply))
        .routes(routes!(replays::replay))
        .routes(routes!(replays::suggest))
        .routes(routes!(policies::show, policies::retire))
        .routes(routes!(policies::history))
        .routes(routes!(policies::diff))
        .routes(routes!(policies::explain))
        .routes(routes!(policies::dry_run))
        .routes(routes!(guardrails::list, guardrails::apply))
        .routes(routes!(guardrails::show, guardrails::retire))
        .routes(routes!(grants::list))
        .routes(routes!(grants::show))
        .routes(routes!(grants::approve))
        .routes(routes!(grants::deny))
        .routes(routes!(grants::withdraw))
        .routes(routes!(preapprovals::make))
        .routes(routes!(notifications::list))
        .routes(routes!(notifications::retry))
        .routes(routes!(grant_status::status))
        .routes(routes!(freezes::list, freezes::set))
        .routes(routes!(freezes::show, freezes::lift))
        .routes(routes!(revocations::list, revocations::request))
        .routes(routes!(revocations::show))
        .routes(routes!(introspect::introspect))
        .routes(routes!(issuances::list))
        .routes(routes!(issuances::show))
        .routes(routes!(reports::list))
        .routes(routes!(reports::report))
        .routes(routes!(log::shards))
        .routes(routes!(log::checkpoint))
        .routes(routes!(log::proof))
        .routes(routes!(holds::list, holds::set))
        .routes(routes!(holds::show, holds::lift))
        .routes(routes!(streams::list))
        .routes(routes!(people::sign_in))
        .routes(routes!(people::me))
        .routes(routes!(people::sessions))
        .routes(routes!(people::end_session))
        .routes(routes!(people::disabled))
        .routes(routes!(people::disable))
        .routes(routes!(people::enable))
        .routes(routes!(people::erase))
        .routes(routes!(well_known::openid_configuration))
        .routes(routes!(well_known::authorization_server))
        .routes(routes!(well_known::jwks))
        .routes(routes!(operations::healthz))
        .routes(routes!(operations::readyz))
        .routes(routes!(operations::metrics))
}

fn described() -> (Router<App>, utoipa::openapi::OpenApi) {
    let (router, mut api) = routes().split_for_parts();
    error::describe(&mut api);
    (router, api)
}

/// Every route, with the limits that hold for all of them.
pub fn router(app: App) -> Router {
    let (router, api) = described();
    let api = Arc::new(api);
    let page = Arc::clone(&api);
    router
        .merge(console::router(&app))
        .route("/v1/log/{shard}/tile/{*path}", axum::routing::get(log::tile))
        .route("/openapi.json", axum::routing::get(move || async move { axum::Json((*api).clone()) }))
        .route("/docs", axum::routing::get(move || async move { docs::page(&page) }))
        .fallback(|| async { Problem::not_found("there is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path takes another method")
        })
        // Every body is read and bounded before its handler is called.
        .layer(DefaultBodyLimit::disable())
        .layer(CatchPanicLayer::custom(|_| Problem::internal().into_response()))
        .layer(middleware::from_fn_with_state(app.clone(), every_request))
        .with_state(app)
}

/// What holds for every request: an id, a bounded body, a deadline, no caching, a line in the log, a measurement.
async fn every_request(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let started = tokio::time::Instant::now();
    let id = RecordId::new(app.broker.clock.now(), app.broker.random.id_bits()).to_string();
    request.extensions_mut().insert(RequestId(id.clone()));
    let method = request.method().clone();
    let route = request
        .extensions()
        .get::<axum::extract::MatchedPath>()
        .map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    let client = request.extensions().get::<ClientCertificate>().cloned();
    let span = telemetry::request(&method, &route, &id, request.headers());
    let under_way = UnderWay::new(metrics::gauge!("cortex_http_requests_in_flight"));
    let mut response = answer(&app, request, next).instrument(span.clone()).await;
    drop(under_way);
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, value);
    }
    let status = response.status().as_u16();
    telemetry::answered(&span, status);
    let labels = [
        ("method", SharedString::const_str(telemetry::method(&method))),
        ("route", SharedString::from(route.clone())),
        ("status", SharedString::from(status.to_string())),
    ];
    metrics::histogram!("cortex_http_request_seconds", &labels).record(started.elapsed().as_secs_f64());
    let client_certificate = client.map(tracing::field::display);
    tracing::debug!(%method, route, status, request_id = id, client_certificate, "request");
    response
}

async fn answer(app: &App, request: Request, next: Next) -> Response {
    let place = app.broker.admission.request();
    if place.is_none() && !always_answered(request.uri().path()) {
        metrics::counter!("cortex_admission_shed_total", "reason" => "overload").increment(1);
        return crowded(app);
    }
    let request = match read_body(app, request).await {
        Ok(request) => request,
        Err(problem) => return problem.into_response(),
    };
    match tokio::time::timeout(app.request_timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "this took too long; ask again").into_response()
        }
    }
}

/// Whether a request is answered when everything else has to wait: what tells how Cortex is, and its keys, which clouds
/// read while a mint is under way.
fn always_answered(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz" | "/metrics" | "/jwks") || path.starts_with("/.well-known/")
}

/// Too much is under way: nothing of the request is read.
fn crowded(app: &App) -> Response {
    let detail = "more is asked at the moment than this replica can answer; ask again";
    let mut response = Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).into_response();
    let seconds = admission::seconds(Duration::from_secs(1), &*app.broker.random);
    response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    response
}

/// Reads the body, all of it: at most so many bytes, within so many seconds, and as it is.
async fn read_body(app: &App, request: Request) -> Result<Request, Problem> {
    if request.headers().get(header::CONTENT_ENCODING).is_some_and(|value| value != "identity") {
        let refused = "send the body without a content encoding";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, refused));
    }
    if request.body().is_end_stream() {
        return Ok(request);
    }
    let too_large = || {
        let detail = format!("a body has at most {} bytes", app.max_body_bytes);
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    };
    // Says so before the body is sent, where its length is announced.
    if request.body().size_hint().lower() > app.max_body_bytes as u64 {
        return Err(too_large());
    }
    let (parts, body) = request.into_parts();
    match tokio::time::timeout(app.body_timeout, Limited::new(body, app.max_body_bytes).collect()).await {
        Ok(Ok(body)) => Ok(Request::from_parts(parts, Body::from(body.to_bytes()))),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::bad_request("the body could not be read to its end")),
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the body took too long to arrive")),
    }
}
