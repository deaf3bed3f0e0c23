//! A Kubernetes API server on loopback, as far as it reviews tokens and shows pods.
//!
//! A review checks what the real one checks: the token's signature, issuer, time and audience, and that the pod that
//! it is bound to is there under that uid. The real one remembers a review for some seconds; here, a pod that was
//! replaced is remembered until it ends.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::Json;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use cortex_core::jwt::{KeyError, SigningAlgorithm, SigningKey};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Value, json};

use crate::airflow::random_secret;
use crate::fault::Twist;
use crate::gate::{Answer, Call, Operation, Service, World};
use crate::jwks::{Claims, verify_with};
use crate::ledger::Cloud;

/// The issuer of the cluster's service accounts, as clusters name it by default. Nobody looks for it there.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// The most pods that are kept; the oldest go first.
const CAPACITY: usize = 1_000;

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid: another pod of the same name has another one.
    pub uid: String,
    /// Its service account.
    pub service_account: String,
    /// `Running`, `Succeeded` and so on.
    pub phase: String,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

/// The API server behind its listener.
pub(crate) struct Kubernetes {
    /// What Cortex has to show.
    token: String,
    key: SigningKey,
    decoding: DecodingKey,
    pods: Mutex<Vec<Pod>>,
    world: World,
}

impl Kubernetes {
    pub(crate) fn new(world: World) -> Result<Self, KeyError> {
        let key = SigningKey::generate(SigningAlgorithm::RS256)?;
        let jwk = serde_json::from_value(key.public_jwk().into()).map_err(|_| KeyError::Crypto)?;
        let decoding = DecodingKey::from_jwk(&jwk).map_err(|_| KeyError::Crypto)?;
        Ok(Self { token: random_secret(), key, decoding, pods: Mutex::default(), world })
    }

    /// The bearer token that may create reviews and get pods.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    pub(crate) fn start(&self, pod: Pod) {
        let mut pods = self.pods();
        pods.retain(|known| known.uid != pod.uid);
        if pods.len() == CAPACITY {
            pods.remove(0);
        }
        pods.push(pod);
    }

    pub(crate) fn end(&self, uid: &str) {
        self.pods().retain(|known| known.uid != uid);
    }

    /// A projected token of `pod`.
    pub(crate) fn pod_token(&self, pod: &Pod, audience: &str, ttl_s: i64) -> Result<String, KeyError> {
        let now = self.world.now().as_second();
        let claims = json!({
            "iss": ISSUER,
            "aud": [audience],
            "sub": username(pod),
            "iat": now,
            "nbf": now,
            "exp": now.saturating_add(ttl_s),
            "jti": random_secret(),
            "kubernetes.io": {
                "namespace": pod.namespace,
                "pod": {"name": pod.name, "uid": pod.uid},
                "serviceaccount": {"name": pod.service_account, "uid": "1"},
            },
        });
        self.sign(&claims)
    }

    /// Signs `claims` as they are, for tokens that are wrong on purpose.
    pub(crate) fn sign(&self, claims: &Value) -> Result<String, KeyError> {
        self.key.sign("JWT", claims).map(|token| token.as_str().to_owned())
    }

    fn pods(&self) -> MutexGuard<'_, Vec<Pod>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn review(&self, call: &Call) -> Response {
        let mut review = call.json().unwrap_or_default();
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        if text(review.get("kind")).as_deref() != Some("TokenReview") {
            return status(StatusCode::BAD_REQUEST, "this is no TokenReview");
        }
        let token = text(review.pointer("/spec/token")).unwrap_or_default();
        let audiences = review.pointer("/spec/audiences").and_then(Value::as_array);
        let audiences: Vec<String> = audiences.into_iter().flatten().filter_map(|a| text(Some(a))).collect();
        review["status"] = match self.authenticate(&token, &audiences) {
            Ok(status) => status,
            Err(why) => json!({"user": {}, "error": format!("invalid bearer token, {why}")}),
        };
        (StatusCode::CREATED, Json(review)).into_response()
    }

    fn authenticate(&self, token: &str, wanted: &[String]) -> Result<Value, &'static str> {
        let claims =
            verify_with(token, &self.decoding, &[Algorithm::RS256]).map_err(|_| "it is not signed")?;
        let now = self.world.now();
        if claims.text("iss") != Some(ISSUER) {
            return Err("of another issuer");
        }
        let valid = |name: &str| claims.instant(name);
        if valid("exp").is_none_or(|exp| exp <= now) || valid("nbf").is_none_or(|nbf| nbf > now) {
            return Err("service account token has expired");
        }
        let audiences: Vec<&String> =
            wanted.iter().filter(|wanted| claims.audiences().contains(&wanted.as_str())).collect();
        if audiences.is_empty() {
            return Err("token audiences are invalid for the target audiences");
        }
        let extra = self.pod_of(&claims)?;
        let user = json!({
            "username": claims.text("sub"),
            "uid": "1",
            "groups": ["system:serviceaccounts", "system:authenticated"],
            "extra": extra,
        });
        Ok(json!({"authenticated": true, "user": user, "audiences": audiences}))
    }

    /// The pod that the token is bound to, as a review says it.
    fn pod_of(&self, claims: &Claims) -> Result<Value, &'static str> {
        let Some(bound) = claims.get("kubernetes.io").and_then(|bound| bound.get("pod")) else {
            return Ok(json!({}));
        };
        let pods = self.pods();
        let is_bound = |pod: &&Pod| {
            bound["name"] == *pod.name
                && bound["uid"] == *pod.uid
                && claims.text("sub") == Some(&username(pod))
        };
        let pod = pods.iter().find(is_bound).ok_or("pod not found, or another one")?;
        Ok(json!({
            "authentication.kubernetes.io/pod-name": [pod.name],
            "authentication.kubernetes.io/pod-uid": [pod.uid],
        }))
    }

    /// The newest pod of this name.
    fn pod(&self, namespace: &str, name: &str) -> Response {
        let pods = self.pods();
        let found = pods.iter().rev().find(|pod| pod.namespace == namespace && pod.name == name);
        let Some(pod) = found else {
            return status(StatusCode::NOT_FOUND, "pods not found");
        };
        let mut metadata = json!({
            "name": pod.name, "namespace": pod.namespace, "uid": pod.uid, "annotations": pod.annotations,
        });
        if pod.deleting {
            metadata["deletionTimestamp"] = json!(self.world.now());
        }
        Json(json!({
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": metadata,
            "spec": {"serviceAccountName": pod.service_account},
            "status": {"phase": pod.phase},
        }))
        .into_response()
    }
}

fn username(pod: &Pod) -> String {
    format!("system:serviceaccount:{}:{}", pod.namespace, pod.service_account)
}

fn status(code: StatusCode, message: &str) -> Response {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code.as_u16(),
    });
    (code, Json(body)).into_response()
}

impl Service for Kubernetes {
    const CLOUD: Cloud = Cloud::Kubernetes;

    fn operation(&self, call: &Call) -> Operation {
        let name = if call.method == Method::POST { "tokenreviews" } else { "pods" };
        Operation { name: name.to_owned(), mints: false }
    }

    async fn answer(&self, call: &Call, _twist: Option<Twist>) -> Answer {
        if call.bearer() != Some(&self.token) {
            return status(StatusCode::UNAUTHORIZED, "Unauthorized").into();
        }
        let path: Vec<&str> = call.path.split('/').skip(1).collect();
        let response = match (&call.method, path.as_slice()) {
            (&Method::POST, ["apis", "authentication.k8s.io", "v1", "tokenreviews"]) => self.review(call),
            (&Method::GET, ["api", "v1", "namespaces", namespace, "pods", name]) => self.pod(namespace, name),
            _ => status(StatusCode::NOT_FOUND, "the server could not find the requested resource"),
        };
        response.into()
    }

    fn throttled(&self, _call: &Call) -> Response {
        status(StatusCode::TOO_MANY_REQUESTS, "too many requests")
    }
}
