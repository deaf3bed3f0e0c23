//! A Snowflake account on loopback: logins as its connectors make them, a handful of statements, and the SQL
//! API.

mod config;
mod session;
mod sql;
mod verify;

use std::io::Read as _;
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

pub use config::{SnowflakeConfig, SnowflakeUser};

use crate::fault::Twist;
use crate::gate::{Answer, Call, Noted, Operation, Service, World};
use crate::jwks::TrustedIssuer;
use crate::ledger::Cloud;
use session::{SessionFault, Sessions};
use sql::{Actor, SqlError};
use verify::{Authenticator, LoginFault};

/// The largest body after decompression, in bytes.
const MAX_JSON: u64 = 1 << 20;

pub(crate) struct Snowflake {
    config: SnowflakeConfig,
    sessions: Mutex<Sessions>,
    issuer: Arc<TrustedIssuer>,
    world: World,
}

/// What a path asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Login,
    Query,
    Renew,
    Session,
    Heartbeat,
    Statements,
    /// What clients tell and need no answer to.
    Telemetry,
    Unknown,
}

fn route(call: &Call) -> Route {
    if call.method != Method::POST {
        return Route::Unknown;
    }
    match call.path.as_str() {
        "/session/v1/login-request" => Route::Login,
        "/queries/v1/query-request" => Route::Query,
        "/session/token-request" => Route::Renew,
        "/session" => Route::Session,
        "/session/heartbeat" => Route::Heartbeat,
        "/api/v2/statements" => Route::Statements,
        "/telemetry/send" | "/telemetry/send/sessionless" => Route::Telemetry,
        _ => Route::Unknown,
    }
}

/// The JSON of a body, which older connectors compress.
fn body(call: &Call) -> Option<Value> {
    if call.header("content-encoding") != Some("gzip") {
        return call.json();
    }
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(call.body.as_ref()).take(MAX_JSON).read_to_end(&mut plain).ok()?;
    serde_json::from_slice(&plain).ok()
}

/// Snowflake's "no" to its connectors: status 200, and the code in the body.
fn failure(code: &str, message: &str) -> Response {
    Json(json!({"data": null, "code": code, "message": message, "success": false, "headers": null}))
        .into_response()
}

fn success(data: &Value) -> Response {
    Json(json!({"data": data, "code": null, "message": null, "success": true})).into_response()
}

impl Snowflake {
    pub(crate) fn new(config: SnowflakeConfig, issuer: Arc<TrustedIssuer>, world: World) -> Self {
        Self { config, sessions: Mutex::default(), issuer, world }
    }

    async fn login(&self, call: &Call, twist: Option<Twist>) -> Answer {
        let data = body(call).and_then(|mut body| body.get_mut("data").map(Value::take)).unwrap_or_default();
        let text = |name: &str| data.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let wanted_role = call.param("roleName").filter(|role| !role.is_empty());
        let login = match Authenticator::of_login(text("AUTHENTICATOR"), text("PROVIDER")) {
            Ok(authenticator) => {
                let token = text("TOKEN").unwrap_or_default();
                self.identify(authenticator, token, text("LOGIN_NAME"), wanted_role.as_deref()).await
            }
            Err(fault) => Err(fault),
        };
        match login {
            Ok(actor) => self.open(actor, twist),
            Err(LoginFault { code, message }) => failure(code, &message).into(),
        }
    }

    fn open(&self, actor: Actor, twist: Option<Twist>) -> Answer {
        let now = self.world.now();
        let (subject, lease) = (actor.user.clone(), actor.lease.clone());
        let role = match twist {
            Some(Twist::OtherArn | Twist::OtherAccount) => Some("OTHER_ROLE".to_owned()),
            _ => actor.role.clone(),
        };
        let Some(opened) = self.sessions().open(actor, now) else {
            return failure("390189", "The sandbox holds too many sessions.").into();
        };
        let mint = self.world.note(Noted {
            cloud: Cloud::Snowflake,
            operation: "login",
            subject: subject.clone(),
            lease,
            expires_at: opened.ends_at,
        });
        let factor = if twist == Some(Twist::LongerExpiry) { 2 } else { 1 };
        let info = json!({"databaseName": null, "schemaName": null, "warehouseName": null, "roleName": role});
        let mut data = json!({
            "token": opened.token,
            "masterToken": opened.master_token,
            "validityInSeconds": session::VALID_S * factor,
            "masterValidityInSeconds": session::MASTER_VALID_S * factor,
            "displayUserName": subject,
            "serverVersion": "sandbox",
            "firstLogin": false,
            "healthCheckInterval": 45,
            "sessionId": opened.id,
            "parameters": session::parameters(),
            "sessionInfo": info,
        });
        if let (Some(Twist::MissingToken), Some(data)) = (twist, data.as_object_mut()) {
            data.remove("token");
            data.remove("masterToken");
        }
        Answer { response: success(&data), mint: Some(mint) }
    }

    /// A statement in the session whose token came with `Authorization: Snowflake Token="…"`.
    fn query(&self, call: &Call) -> Response {
        let now = self.world.now();
        let mut sessions = self.sessions();
        let session = match sessions.current(session_token(call), now) {
            Ok(session) => session,
            Err(fault) => return session_failure(fault),
        };
        let text = body(call).and_then(|body| body.get("sqlText")?.as_str().map(ToOwned::to_owned));
        let id = session.id;
        match sql::execute(text.as_deref().unwrap_or_default(), &mut session.actor, &self.config.account, id)
        {
            Ok(rows) => success(&rows.for_connector(&session.actor, now)),
            Err(SqlError { code, state, message }) => {
                let data = json!({"sqlState": state, "queryId": sql::query_id(), "errorCode": code});
                Json(json!({"data": data, "code": code, "message": message, "success": false}))
                    .into_response()
            }
        }
    }

    fn renew(&self, call: &Call) -> Response {
        let now = self.world.now();
        match self.sessions().renew(session_token(call), now) {
            Ok(renewed) => success(&json!({
                "sessionToken": renewed.token,
                "validityInSecondsST": session::VALID_S,
                "masterToken": renewed.master_token,
                "validityInSecondsMT": renewed.ends_at.duration_since(now).as_secs(),
                "sessionId": renewed.id,
            })),
            Err(fault) => session_failure(fault),
        }
    }

    fn end(&self, call: &Call) -> Response {
        if call.param("delete").as_deref() != Some("true") {
            return StatusCode::NOT_FOUND.into_response();
        }
        match self.sessions().close(session_token(call)) {
            Ok(()) => success(&Value::Null),
            Err(fault) => session_failure(fault),
        }
    }

    fn heartbeat(&self, call: &Call) -> Response {
        match self.sessions().current(session_token(call), self.world.now()) {
            Ok(_) => success(&Value::Null),
            Err(fault) => session_failure(fault),
        }
    }

    /// The SQL API: one statement, one token, no session.
    async fn statement(&self, call: &Call) -> Response {
        let refuse = |code: &str, message: &str| {
            (StatusCode::UNAUTHORIZED, Json(json!({"code": code, "message": message}))).into_response()
        };
        let body = body(call).unwrap_or_default();
        let text = |name: &str| body.get(name).and_then(Value::as_str);
        let kind = call.header("x-snowflake-authorization-token-type");
        let authenticated = match Authenticator::of_sql_api(kind, call.bearer()) {
            Ok((authenticator, token)) => self.identify(authenticator, token, None, text("role")).await,
            Err(fault) => Err(fault),
        };
        let mut actor = match authenticated {
            Ok(actor) => actor,
            Err(LoginFault { code, message }) => return refuse(code, &message),
        };
        let statement = text("statement").unwrap_or_default();
        match sql::execute(statement, &mut actor, &self.config.account, 0) {
            Ok(rows) => Json(rows.for_sql_api(self.world.now())).into_response(),
            Err(SqlError { code, state, message }) => {
                let body = json!({
                    "code": code, "sqlState": state, "message": message, "statementHandle": sql::query_id(),
                });
                (StatusCode::UNPROCESSABLE_ENTITY, Json(body)).into_response()
            }
        }
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn session_token(call: &Call) -> Option<&str> {
    let header = call.header("authorization")?;
    header.strip_prefix("Snowflake Token=\"")?.strip_suffix('"')
}

fn session_failure(fault: SessionFault) -> Response {
    match fault {
        SessionFault::Gone => {
            failure("390104", "Session no longer exists. New login required to access the service.")
        }
        SessionFault::Expired => failure("390112", "Your session has expired."),
        SessionFault::MasterExpired => {
            failure("390114", "Authentication token has expired. The user must authenticate again.")
        }
    }
}

impl Service for Snowflake {
    const CLOUD: Cloud = Cloud::Snowflake;

    fn operation(&self, call: &Call) -> Operation {
        let (name, mints) = match route(call) {
            Route::Login => ("login", true),
            Route::Query => ("query", false),
            Route::Renew => ("renew", false),
            Route::Session | Route::Heartbeat => ("session", false),
            Route::Statements => ("statements", false),
            Route::Telemetry => ("telemetry", false),
            Route::Unknown => ("other", false),
        };
        Operation { name: name.to_owned(), mints }
    }

    async fn answer(&self, call: &Call, twist: Option<Twist>) -> Answer {
        let response = match route(call) {
            Route::Login => return self.login(call, twist).await,
            Route::Query => self.query(call),
            Route::Renew => self.renew(call),
            Route::Session => self.end(call),
            Route::Heartbeat => self.heartbeat(call),
            Route::Statements => self.statement(call).await,
            Route::Telemetry => success(&json!("Log Received")),
            Route::Unknown => StatusCode::NOT_FOUND.into_response(),
        };
        response.into()
    }

    fn throttled(&self, _call: &Call) -> Response {
        (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "1")]).into_response()
    }
}
