//! People at the API: a bearer token of a `person` issuer, and the roles that its groups carry.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::{StatusCode, header, request::Parts};
use cortex_core::{Person, Principal};
use cortex_identity::Verified;
use serde::Serialize;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};

use super::error::Problem;
use super::{App, Client};
use crate::config::RolesConfig;
use crate::store::people;

/// What a person may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Write policies and guardrails.
    Admin,
    /// See and decide on grants.
    Approver,
    /// Read everything on record.
    Auditor,
}

impl Role {
    /// Every role.
    pub(crate) const ALL: [Self; 3] = [Self::Admin, Self::Approver, Self::Auditor];

    /// The role's name, as the configuration writes it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Approver => "approver",
            Self::Auditor => "auditor",
        }
    }
}

/// A person who proved who they are.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) person: Person,
    roles: Vec<Role>,
}

impl Caller {
    /// A person who is let in, and the roles that their groups carry.
    pub(crate) fn new(person: Person, config: &RolesConfig) -> Self {
        let roles = roles(&person, config);
        Self { person, roles }
    }

    /// What they may do.
    pub(crate) fn roles(&self) -> &[Role] {
        &self.roles
    }

    /// Whether they have one of `roles`.
    pub(crate) fn has(&self, roles: &[Role]) -> bool {
        roles.iter().any(|role| self.roles.contains(role))
    }

    /// Who they are, for the record.
    pub(crate) fn subject(&self) -> String {
        Principal::Person(self.person.clone()).subject()
    }

    /// Refuses whoever has none of `roles`.
    pub(crate) fn need(&self, roles: &[Role]) -> Result<(), Problem> {
        if self.has(roles) {
            return Ok(());
        }
        tracing::info!(person = self.subject(), ?roles, "refused for want of a role");
        let detail = format!("this needs one of the roles {roles:?}; your groups carry {:?}", self.roles);
        Err(Problem::new(StatusCode::FORBIDDEN, detail.to_lowercase()))
    }
}

/// The bearer token of a request; a scheme other than Bearer, or two headers, is none.
pub(super) fn bearer(parts: &Parts) -> Option<&str> {
    let mut values = parts.headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// Somebody who proved who they are: a person, a run or a service.
pub(super) struct Bearer {
    pub(super) verified: Arc<Verified>,
}

impl Bearer {
    /// What they may do, where they are a person.
    pub(super) fn roles(&self, app: &App) -> Vec<Role> {
        match self.verified.principal() {
            Principal::Person(person) => roles(person, &app.broker.live().roles),
            Principal::Run(_) | Principal::Service(_) => Vec::new(),
        }
    }
}

impl FromRequestParts<App> for Bearer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let unauthorized = |why: &str| Problem::new(StatusCode::UNAUTHORIZED, why);
        let Ok(client) = Client::from_request_parts(parts, app).await;
        let token =
            bearer(parts).ok_or_else(|| unauthorized("send Authorization: Bearer and a person's token"))?;
        let verified = match app.broker.live().identity.verify(token).await {
            Ok(verified) => verified,
            Err(rejection) if rejection.is_temporary() => {
                return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the issuer's keys cannot be had"));
            }
            Err(rejection) => {
                tracing::info!(reason = rejection.reason.code(), detail = %rejection.detail, "token not accepted");
                app.broker.noise.count(rejection.reason.code(), client.source, app.broker.clock.now());
                return Err(unauthorized("the token was not accepted"));
            }
        };
        if let Principal::Person(person) = verified.principal()
            && people::is_disabled(&app.broker.pool, &person.issuer, &person.subject).await?
        {
            tracing::info!(person = verified.principal().subject(), "a disabled person's token was shown");
            return Err(unauthorized("the token was not accepted"));
        }
        Ok(Self { verified })
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let bearer = Bearer::from_request_parts(parts, app).await?;
        let roles = bearer.roles(app);
        match bearer.verified.principal() {
            Principal::Person(person) => Ok(Self { person: person.clone(), roles }),
            Principal::Run(_) | Principal::Service(_) => Err(Problem::new(
                StatusCode::FORBIDDEN,
                "this is for people; a run's or a service's token does not do",
            )),
        }
    }
}

fn roles(person: &Person, config: &RolesConfig) -> Vec<Role> {
    let carried = |groups: &std::collections::BTreeSet<String>| {
        groups.iter().any(|group| {
            group.split_once('/').is_some_and(|(issuer, group)| {
                issuer == person.issuer.as_str() && person.groups.contains(group)
            })
        })
    };
    [(Role::Admin, &config.admin), (Role::Approver, &config.approver), (Role::Auditor, &config.auditor)]
        .into_iter()
        .filter(|(_, groups)| carried(groups))
        .map(|(role, _)| role)
        .collect()
}

/// Names the bearer scheme in the OpenAPI description.
pub(super) struct BearerScheme;

impl utoipa::Modify for BearerScheme {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        openapi.components.get_or_insert_default().add_security_scheme("bearer", scheme);
    }
}
