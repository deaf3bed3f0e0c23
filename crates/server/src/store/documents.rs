//! Policies and guardrails: every version, and which one is in force.

use cortex_core::Digest;
use cortex_core::policy::Guardrails;
use cortex_core::record::{Change, What};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::{Connection as _, PgConnection, PgExecutor};

use super::grants::{self, Void};
use super::row::{Stamp, insert};
use super::{StoreError, announce, micros, personal, timestamp};

/// The two kinds of documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A policy, in YAML.
    Policy,
    /// A guardrail, in Cedar.
    Guardrail,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Guardrail => "guardrail",
        }
    }
}

/// One version of a document.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Version {
    /// The document's name.
    pub name: String,
    /// Its version, from 1.
    pub version: i32,
    /// The version's digest, `sha256:…`.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// The document as it was written.
    pub source: String,
    /// Who applied it.
    pub applied_by: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub applied_at: Timestamp,
    /// Whether it is out of force altogether.
    pub retired: bool,
}

#[derive(sqlx::FromRow)]
struct VersionRow {
    name: String,
    version: i32,
    digest: Vec<u8>,
    source: String,
    applied_by: String,
    applied_at: i64,
    retired: bool,
}

impl TryFrom<VersionRow> for Version {
    type Error = StoreError;

    fn try_from(row: VersionRow) -> Result<Self, StoreError> {
        let VersionRow { name, version, digest, source, applied_by, applied_at, retired } = row;
        let digest =
            digest.as_slice().try_into().map_err(|_| StoreError::Corrupt(format!("digest of {name}")))?;
        let applied_at = timestamp(applied_at)?;
        Ok(Self { name, version, digest, source, applied_by, applied_at, retired })
    }
}

/// What an application changes: a checked document, or its retirement.
#[derive(Debug, Clone)]
pub struct Document {
    /// Which kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Its digest.
    pub digest: Digest,
    /// Its text.
    pub source: String,
}

/// What an application did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Applied {
    /// The same version was in force already.
    Unchanged {
        /// The document.
        name: String,
        /// Its version.
        version: i32,
    },
    /// A new version is in force.
    Changed {
        /// The document.
        name: String,
        /// Its version.
        version: i32,
    },
    /// The document is out of force.
    Retired {
        /// The document.
        name: String,
    },
}

// One lock for all changes, so that revisions become visible in their order.
const CHANGE_LOCK: i64 = 0x636f_7274_6578_0001;

/// Puts documents in force, all or none, with a record of each.
pub async fn apply(
    connection: &mut PgConnection,
    documents: &[Document],
    by: &str,
    stamp: &Stamp,
) -> Result<Vec<Applied>, StoreError> {
    let mut tx = connection.begin().await?;
    lock(&mut tx).await?;
    // Versions are for ever, like the log: they name their author as it does.
    let by = personal::principal(&mut tx, by, &*stamp.random).await?;
    let mut applied = Vec::with_capacity(documents.len());
    for document in documents {
        applied.push(apply_one(&mut tx, document, &by, stamp).await?);
    }
    if documents.iter().any(|document| document.kind == Kind::Guardrail) {
        compile_together(&mut tx).await?;
    }
    announce(&mut tx, "documents").await?;
    tx.commit().await?;
    Ok(applied)
}

/// Guardrails are compiled as one set: what each of them passes alone, all of them have to pass together.
async fn compile_together(tx: &mut PgConnection) -> Result<(), StoreError> {
    let all = list(tx, Kind::Guardrail, "", i64::MAX).await?;
    let sources: Vec<_> =
        all.iter().map(|version| (version.name.as_str(), version.source.as_str())).collect();
    Guardrails::compile(&sources).map(drop).map_err(StoreError::Guardrails)
}

async fn lock(tx: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(CHANGE_LOCK).execute(tx).await.map(drop)
}

async fn apply_one(
    tx: &mut PgConnection,
    document: &Document,
    by: &str,
    stamp: &Stamp,
) -> Result<Applied, StoreError> {
    let name = document.name.clone();
    let head = head(&mut *tx, document.kind, &name).await?;
    if let Some(head) = &head
        && head.digest == document.digest
        && head.source == document.source
        && !head.retired
    {
        return Ok(Applied::Unchanged { name, version: head.version });
    }
    let version: i32 = sqlx::query_scalar(
        "INSERT INTO document (kind, name, version, digest, source, applied_by, applied_at)
         SELECT $1, $2, COALESCE(max(version), 0) + 1, $3, $4, $5,
                timestamptz 'epoch' + $6 * interval '1 microsecond'
         FROM document WHERE kind = $1 AND name = $2 RETURNING version",
    )
    .bind(document.kind.as_str())
    .bind(&name)
    .bind(document.digest.as_bytes().as_slice())
    .bind(&document.source)
    .bind(by)
    .bind(micros(stamp.clock.now()))
    .fetch_one(&mut *tx)
    .await?;
    sqlx::query(
        "INSERT INTO document_head (kind, name, version, revision)
         VALUES ($1, $2, $3, nextval('document_revision'))
         ON CONFLICT (kind, name) DO UPDATE
             SET version = excluded.version, revision = excluded.revision, retired = false",
    )
    .bind(document.kind.as_str())
    .bind(&name)
    .bind(version)
    .execute(&mut *tx)
    .await?;
    let change = Change {
        name: name.clone(),
        version: Some(version),
        digest: Some(document.digest),
        by: by.to_owned(),
    };
    note(tx, document.kind, change, stamp).await?;
    if document.kind == Kind::Policy {
        let because = format!("version {version} of {name} is in force now");
        grants::void(tx, Void { policy: &name, keep: Some(document.digest), because: &because }, stamp)
            .await?;
    }
    Ok(Applied::Changed { name, version })
}

/// Takes a document out of force, with a record of it; its versions stay.
pub async fn retire(
    connection: &mut PgConnection,
    kind: Kind,
    name: &str,
    by: &str,
    stamp: &Stamp,
) -> Result<Option<Applied>, StoreError> {
    let mut tx = connection.begin().await?;
    lock(&mut tx).await?;
    let retired = sqlx::query(
        "UPDATE document_head SET retired = true, revision = nextval('document_revision')
         WHERE kind = $1 AND name = $2 AND NOT retired",
    )
    .bind(kind.as_str())
    .bind(name)
    .execute(&mut *tx)
    .await?
    .rows_affected();
    if retired == 0 {
        return Ok(None);
    }
    let change = Change { name: name.to_owned(), version: None, digest: None, by: by.to_owned() };
    note(&mut tx, kind, change, stamp).await?;
    if kind == Kind::Policy {
        let because = format!("{name} is out of force");
        grants::void(&mut tx, Void { policy: name, keep: None, because: &because }, stamp).await?;
    }
    announce(&mut tx, "documents").await?;
    tx.commit().await?;
    Ok(Some(Applied::Retired { name: name.to_owned() }))
}

async fn note(tx: &mut PgConnection, kind: Kind, change: Change, stamp: &Stamp) -> Result<(), StoreError> {
    let what = match kind {
        Kind::Guardrail => What::GuardrailsApplied(change),
        Kind::Policy if change.version.is_none() => What::PolicyRetired(change),
        Kind::Policy => What::PolicyApplied(change),
    };
    let row = stamp.draft(what).map_err(|e| StoreError::Corrupt(e.to_string()))?;
    insert(tx, &[row], stamp).await?;
    Ok(())
}

/// The version that is in force, or was when the document was retired.
pub async fn head(
    executor: impl PgExecutor<'_>,
    kind: Kind,
    name: &str,
) -> Result<Option<Version>, StoreError> {
    let row: Option<VersionRow> = sqlx::query_as(
        "SELECT d.name, d.version, d.digest, d.source, opened_principal(d.applied_by) AS applied_by,
                (extract(epoch FROM d.applied_at) * 1000000)::int8 AS applied_at, h.retired
         FROM document_head h JOIN document d USING (kind, name, version)
         WHERE h.kind = $1 AND h.name = $2",
    )
    .bind(kind.as_str())
    .bind(name)
    .fetch_optional(executor)
    .await?;
    row.map(Version::try_from).transpose()
}

/// Every version of one document, newest first; 1,000 at the most.
pub async fn history(
    executor: impl PgExecutor<'_>,
    kind: Kind,
    name: &str,
) -> Result<Vec<Version>, StoreError> {
    let rows: Vec<VersionRow> = sqlx::query_as(
        "SELECT d.name, d.version, d.digest, d.source, opened_principal(d.applied_by) AS applied_by,
                (extract(epoch FROM d.applied_at) * 1000000)::int8 AS applied_at,
                (h.retired OR h.version <> d.version) AS retired
         FROM document d JOIN document_head h USING (kind, name)
         WHERE d.kind = $1 AND d.name = $2 ORDER BY d.version DESC LIMIT 1000",
    )
    .bind(kind.as_str())
    .bind(name)
    .fetch_all(executor)
    .await?;
    rows.into_iter().map(Version::try_from).collect()
}

/// Every document of one kind that is in force, by name, after `after`; `limit` at the most.
pub async fn list(
    executor: impl PgExecutor<'_>,
    kind: Kind,
    after: &str,
    limit: i64,
) -> Result<Vec<Version>, StoreError> {
    let rows: Vec<VersionRow> = sqlx::query_as(
        "SELECT d.name, d.version, d.digest, d.source, opened_principal(d.applied_by) AS applied_by,
                (extract(epoch FROM d.applied_at) * 1000000)::int8 AS applied_at, h.retired
         FROM document_head h JOIN document d USING (kind, name, version)
         WHERE h.kind = $1 AND NOT h.retired AND h.name > $2 ORDER BY h.name LIMIT $3",
    )
    .bind(kind.as_str())
    .bind(after)
    .bind(limit)
    .fetch_all(executor)
    .await?;
    rows.into_iter().map(Version::try_from).collect()
}

/// A document whose head changed: what a replica takes over.
#[derive(Debug, sqlx::FromRow)]
pub struct Changed {
    /// `policy` or `guardrail`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The version that is in force.
    pub version: i32,
    /// That version's text.
    pub source: String,
    /// The change's place in the order of all changes.
    pub revision: i64,
    /// Whether it is out of force.
    pub retired: bool,
}

/// What changed after `revision`, in order; `limit` at the most.
pub async fn changed_since(
    executor: impl PgExecutor<'_>,
    revision: i64,
    limit: i64,
) -> Result<Vec<Changed>, StoreError> {
    Ok(sqlx::query_as(
        "SELECT h.kind, h.name, h.version, d.source, h.revision, h.retired
         FROM document_head h JOIN document d USING (kind, name, version)
         WHERE h.revision > $1 ORDER BY h.revision LIMIT $2",
    )
    .bind(revision)
    .bind(limit)
    .fetch_all(executor)
    .await?)
}
