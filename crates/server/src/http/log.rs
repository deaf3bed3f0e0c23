//! `/v1/log`: the issuance log as C2SP tlog-tiles, and proofs from it. What is here can be checked by whoever has the log's
//! key; nothing of it has to be believed.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use cortex_log::Hash;
use cortex_log::tile::TilePath;
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::App;
use super::auth::{Caller, Role};
use super::error::Problem;
use crate::store::log::read::{self, LeafAt, Shard};
use crate::store::log::tiles;

/// Who may read the log.
const READERS: &[Role] = &[Role::Admin, Role::Auditor];

/// The trees of the log, oldest first: one name on each line.
#[utoipa::path(
    get, path = "/v1/log/shards", tag = "log", security(("bearer" = [])),
    responses((status = 200, description = "The names, such as 2026.", body = String, content_type = "text/plain"))
)]
pub(super) async fn shards(State(app): State<App>, caller: Caller) -> Result<Response, Problem> {
    caller.need(READERS)?;
    let shards = read::shards(&app.broker.pool).await?;
    Ok(text(read::names(&shards)))
}

/// The newest checkpoint of a tree: a signed note (C2SP tlog-checkpoint). Its tiles are at `/v1/log/{shard}/tile/…`, as C2SP
/// tlog-tiles says, the leaves themselves among them.
#[utoipa::path(
    get, path = "/v1/log/{shard}/checkpoint", tag = "log", security(("bearer" = [])),
    params(("shard" = String, Path, description = "The tree's name.")),
    responses(
        (status = 200, description = "The checkpoint.", body = String, content_type = "text/plain"),
        (status = 404, description = "No such tree, or none of it is published yet.", body = Problem),
    )
)]
pub(super) async fn checkpoint(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    caller.need(READERS)?;
    let shard = shard(&app, &name).await?;
    let checkpoint = shard.checkpoint.ok_or_else(|| Problem::not_found("nothing of it is published yet"))?;
    Ok(text(checkpoint))
}

/// `/v1/log/{shard}/tile/…`: a tile of a tree's hashes, or a bundle of its leaves (C2SP tlog-tiles). Its paths have any
/// number of parts, which OpenAPI cannot say.
pub(super) async fn tile(
    State(app): State<App>,
    caller: Caller,
    Path((name, path)): Path<(String, String)>,
) -> Result<Response, Problem> {
    caller.need(READERS)?;
    let nothing = || Problem::not_found("there is nothing at this path");
    let path: TilePath = format!("tile/{path}").parse().map_err(|_| nothing())?;
    let shard = shard(&app, &name).await?;
    let pool = &app.broker.pool;
    let bytes = match path {
        TilePath::Hashes { level, index, width } => tiles::hashes(pool, &shard, level, index, width).await?,
        TilePath::Entries { index, width } => tiles::entries(pool, &shard, index, width).await?,
    };
    let bytes = bytes.ok_or_else(nothing)?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response())
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ProofQuery {
    /// The chain that sealed the record, as its receipt's seal says.
    chain: Uuid,
    /// The batch in that chain.
    #[param(minimum = 1)]
    batch: i64,
    /// The place in that batch.
    #[param(minimum = 1)]
    place: i32,
    /// The leaf's hash, as the receipt says it: needed where the record is in an archive and no longer here.
    leaf_hash: Option<String>,
}

/// The proof that a record is in the log (C2SP tlog-proof): what its receipt promised. It leads to the newest checkpoint.
#[utoipa::path(
    get, path = "/v1/log/proof", tag = "log", security(("bearer" = [])), params(ProofQuery),
    responses(
        (status = 200, description = "The proof.", body = String, content_type = "text/plain"),
        (status = 400, description = "Not a place in the log.", body = Problem),
        (status = 404, description = "No such record, or it is not in a checkpoint yet.", body = Problem),
    )
)]
pub(super) async fn proof(
    State(app): State<App>,
    caller: Caller,
    query: Result<Query<ProofQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    caller.need(READERS)?;
    let Query(ProofQuery { chain, batch, place, leaf_hash }) =
        query.map_err(|e| Problem::bad_request(e.body_text()))?;
    let leaf = leaf_hash.map(|hash| hash.parse::<Hash>()).transpose();
    let leaf = leaf.map_err(|error| Problem::bad_request(format!("leaf_hash: {error}")))?;
    let missing = || {
        Problem::not_found("no such record is in a checkpoint; a new one is after its merge_by at the latest")
    };
    let pool = &app.broker.pool;
    let Some(LeafAt { shard, index }) = read::find(pool, (chain, batch, place), leaf).await? else {
        return Err(missing());
    };
    let proof = tiles::proof(pool, &shard, index).await?.ok_or_else(missing)?;
    Ok(text(proof.to_string()))
}

async fn shard(app: &App, name: &str) -> Result<Shard, Problem> {
    let shards = read::shards(&app.broker.pool).await?;
    let shard = shards.into_iter().find(|shard| shard.name == name);
    shard.ok_or_else(|| Problem::not_found("the log has no tree of this name"))
}

fn text(text: String) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}
