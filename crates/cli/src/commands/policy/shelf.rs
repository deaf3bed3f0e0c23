//! Where documents are in force: straight on the database, or over REST.

use cortex_core::PolicyName;
use cortex_server::store::Stamp;
use cortex_server::store::documents::{self, Applied, Document, Kind, Version};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::api::Api;
use crate::commands::operator;
use crate::error::{Error, Exit};

/// How many versions a page of the API has at the most.
const PAGE: usize = 200;

/// The documents in force, with their versions.
pub(super) enum Shelf {
    /// As an operator, who needs no role.
    Database(PgPool, Stamp),
    /// As the person who is signed in.
    Server(Api),
}

impl Shelf {
    /// The newest version of a document; over REST, none of one that is retired.
    pub(super) async fn head(&self, kind: Kind, name: &str) -> Result<Option<Version>, Error> {
        match self {
            Self::Database(pool, _) => Ok(documents::head(pool, kind, name).await?),
            Self::Server(api) => found(api.get(&path(kind, name)?).await),
        }
    }

    /// Documents by name, those behind `after`; an empty page is the end.
    pub(super) async fn page(&self, kind: Kind, after: &str) -> Result<Vec<Version>, Error> {
        match self {
            Self::Database(pool, _) => Ok(documents::list(pool, kind, after, 1_000).await?),
            Self::Server(api) => match kind {
                Kind::Policy => {
                    let query = [("after", after.to_owned()), ("limit", PAGE.to_string())];
                    read(api.query("/v1/policies", &query).await?)
                }
                Kind::Guardrail if after.is_empty() => read(api.get("/v1/guardrails").await?),
                Kind::Guardrail => Ok(Vec::new()),
            },
        }
    }

    /// Every version of a policy, the newest first.
    pub(super) async fn history(&self, name: &str) -> Result<Vec<Version>, Error> {
        match self {
            Self::Database(pool, _) => Ok(documents::history(pool, Kind::Policy, name).await?),
            Self::Server(api) => {
                let versions = api.get(&format!("{}/history", path(Kind::Policy, name)?)).await;
                Ok(found(versions)?.unwrap_or_default())
            }
        }
    }

    /// Puts documents in force. On the database all or none; over REST first the guardrails, then the policies.
    pub(super) async fn apply(&self, documents: Vec<Document>) -> Result<Vec<Applied>, Error> {
        match self {
            Self::Database(pool, stamp) => {
                let mut connection = pool.acquire().await?;
                Ok(documents::apply(&mut connection, &documents, &operator(), stamp).await?)
            }
            Self::Server(api) => send(api, documents).await,
        }
    }

    /// Takes a policy out of force.
    pub(super) async fn retire(&self, name: &str) -> Result<Option<Applied>, Error> {
        match self {
            Self::Database(pool, stamp) => {
                let mut connection = pool.acquire().await?;
                Ok(documents::retire(&mut connection, Kind::Policy, name, &operator(), stamp).await?)
            }
            Self::Server(api) => found(api.delete(&path(Kind::Policy, name)?).await),
        }
    }
}

async fn send(api: &Api, documents: Vec<Document>) -> Result<Vec<Applied>, Error> {
    let (policies, guardrails): (Vec<_>, Vec<_>) =
        documents.into_iter().partition(|document| document.kind == Kind::Policy);
    let mut applied: Vec<Applied> = Vec::new();
    if !guardrails.is_empty() {
        let body: Vec<Value> =
            guardrails.iter().map(|one| json!({"name": one.name, "source": one.source})).collect();
        applied.extend(read::<Vec<Applied>>(api.post("/v1/guardrails", &json!(body)).await?)?);
    }
    if !policies.is_empty() {
        let sources: Vec<&str> = policies.iter().map(|one| one.source.as_str()).collect();
        let mut answer = api.post("/v1/policies", &json!({"documents": sources})).await?;
        let changed = answer.get_mut("applied").map(Value::take).unwrap_or_default();
        applied.extend(read::<Vec<Applied>>(changed)?);
    }
    Ok(applied)
}

/// The path of a document. A name that is none could be another path.
fn path(kind: Kind, name: &str) -> Result<String, Error> {
    let name: PolicyName =
        name.parse().map_err(|error| Error::Of(Exit::Usage, format!("{name:?}: {error}")))?;
    Ok(match kind {
        Kind::Policy => format!("/v1/policies/{name}"),
        Kind::Guardrail => format!("/v1/guardrails/{name}"),
    })
}

fn found<T: DeserializeOwned>(answer: Result<Value, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(answer) => read(answer).map(Some),
        Err(error) if error.exit() == Exit::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn read<T: DeserializeOwned>(answer: Value) -> Result<T, Error> {
    serde_json::from_value(answer)
        .map_err(|error| Error::Said(format!("the server's answer is of another version: {error}")))
}
