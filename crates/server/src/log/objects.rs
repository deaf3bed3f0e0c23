//! Objects outside the database: in S3, in Google Cloud Storage or below a folder. The anchor and archives are kept there.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ClientOptions, GetOptions, ObjectStore, PutMode, PutOptions, RetryConfig, UpdateVersion};
use reqwest::Url;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::notify::webhook::destination;

/// How often one call is tried again within its time.
const RETRIES: usize = 2;

/// How object stores are reached.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ObjectStoreConfig {
    /// The address of a store that speaks the protocol of S3, or of Google Cloud Storage: https, or http to loopback.
    /// Default: the cloud's own.
    pub endpoint: Option<String>,
    /// The region of an S3 bucket. Default: what `AWS_REGION` says, `us-east-1` otherwise.
    pub region: Option<String>,
    /// The id of an access key of S3, whose secret is in `secret_access_key_file`. Default none: the credentials of the
    /// environment, or of the instance, the task or the pod that this runs in.
    pub access_key_id: Option<String>,
    /// The file with the secret of `access_key_id`. Default none.
    pub secret_access_key_file: Option<PathBuf>,
    /// How long one call may take, with its repetitions, in seconds, 1 to 60. Default 5.
    pub timeout_s: u64,
}

impl Default for ObjectStoreConfig {
    fn default() -> Self {
        Self { endpoint: None, region: None, access_key_id: None, secret_access_key_file: None, timeout_s: 5 }
    }
}

impl ObjectStoreConfig {
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if let Some(endpoint) = &self.endpoint
            && let Err(what) = destination(endpoint)
        {
            faults.push(format!("log.object_store.endpoint: {endpoint:?} {what}"));
        }
        if self.access_key_id.is_some() != self.secret_access_key_file.is_some() {
            faults.push("log.object_store: access_key_id and secret_access_key_file go together".to_owned());
        }
        if !(1..=60).contains(&self.timeout_s) {
            faults.push(format!("log.object_store.timeout_s is {}: write 1 to 60", self.timeout_s));
        }
        faults
    }

    fn client(&self) -> ClientOptions {
        let timeout = Duration::from_secs(self.timeout_s);
        let client = ClientOptions::new().with_timeout(timeout).with_connect_timeout(timeout);
        // Which endpoints may be plain http was checked with the configuration.
        client.with_allow_http(self.endpoint.as_ref().is_some_and(|url| url.starts_with("http://")))
    }

    fn retry(&self) -> RetryConfig {
        let retry_timeout = Duration::from_secs(self.timeout_s);
        RetryConfig { max_retries: RETRIES, retry_timeout, ..RetryConfig::default() }
    }

    fn s3(&self, bucket: &str) -> Result<Arc<dyn ObjectStore>, String> {
        let mut builder = AmazonS3Builder::from_env()
            .with_client_options(self.client())
            .with_retry(self.retry())
            .with_bucket_name(bucket);
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(region) = &self.region {
            builder = builder.with_region(region);
        }
        if let (Some(id), Some(file)) = (&self.access_key_id, &self.secret_access_key_file) {
            let secret = std::fs::read_to_string(file).map(Zeroizing::new);
            let secret = secret.map_err(|e| format!("secret_access_key_file {}: {e}", file.display()))?;
            builder = builder.with_access_key_id(id).with_secret_access_key(secret.trim());
        }
        Ok(Arc::new(builder.build().map_err(|e| e.to_string())?))
    }

    fn gs(&self, bucket: &str) -> Result<Arc<dyn ObjectStore>, String> {
        let mut builder = GoogleCloudStorageBuilder::from_env()
            .with_client_options(self.client())
            .with_retry(self.retry())
            .with_bucket_name(bucket);
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_base_url(endpoint);
        }
        Ok(Arc::new(builder.build().map_err(|e| e.to_string())?))
    }
}

/// An object could not be read or written, or a place is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {why}")]
pub struct ObjectError {
    place: String,
    why: String,
}

impl ObjectError {
    pub(super) fn new(place: impl Into<String>, why: &(impl ToString + ?Sized)) -> Self {
        Self { place: place.into(), why: why.to_string() }
    }
}

/// An address as operators write it: `s3://bucket/prefix`, `gs://bucket/prefix` or `file:///folder`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    S3 { bucket: String, prefix: String },
    Gs { bucket: String, prefix: String },
    File(PathBuf),
}

impl Address {
    pub(super) fn parse(text: &str) -> Result<Self, ObjectError> {
        let wrong = || {
            ObjectError::new(text, "write s3://bucket/prefix, gs://bucket/prefix or file:///an/absolute/path")
        };
        let url = Url::parse(text).map_err(|_| wrong())?;
        if url.query().is_some()
            || url.fragment().is_some()
            || !url.username().is_empty()
            || url.port().is_some()
        {
            return Err(wrong());
        }
        let bucket = url.host_str().unwrap_or_default().to_owned();
        let prefix = url.path().trim_matches('/').to_owned();
        match url.scheme() {
            "s3" if !bucket.is_empty() => Ok(Self::S3 { bucket, prefix }),
            "gs" if !bucket.is_empty() => Ok(Self::Gs { bucket, prefix }),
            "file" if text.starts_with("file:///") => {
                url.to_file_path().map(Self::File).map_err(|()| wrong())
            }
            _ => Err(wrong()),
        }
    }
}

/// A place below which objects are kept by name.
#[derive(Debug, Clone)]
pub struct Place {
    address: String,
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    timeout: Duration,
}

/// An object as it was read.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) bytes: Vec<u8>,
    /// Which version it is, for whoever replaces exactly that.
    pub(super) version: UpdateVersion,
}

/// What has to be there for an object to be written.
#[derive(Debug)]
pub(super) enum Condition {
    /// Whatever is there.
    Any,
    /// Nothing.
    Nothing,
    /// Exactly this version.
    Exactly(UpdateVersion),
}

/// What became of a write that had a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    Done,
    /// The condition did not hold.
    Refused,
}

impl Place {
    /// Opens the place that `address` names; no call is made yet. A folder is made where it is missing.
    pub fn open(address: &str, config: &ObjectStoreConfig) -> Result<Self, ObjectError> {
        let wrong = |why: String| ObjectError::new(address, &why);
        let (store, prefix): (Arc<dyn ObjectStore>, _) = match Address::parse(address)? {
            Address::S3 { bucket, prefix } => (config.s3(&bucket).map_err(wrong)?, prefix),
            Address::Gs { bucket, prefix } => (config.gs(&bucket).map_err(wrong)?, prefix),
            Address::File(folder) => {
                std::fs::create_dir_all(&folder).map_err(|e| wrong(e.to_string()))?;
                let local = LocalFileSystem::new_with_prefix(folder).map_err(|e| wrong(e.to_string()))?;
                (Arc::new(local.with_fsync(true)), String::new())
            }
        };
        let prefix = Path::parse(prefix).map_err(|e| wrong(e.to_string()))?;
        let (address, timeout) = (address.trim_end_matches('/'), Duration::from_secs(config.timeout_s));
        Ok(Self { address: address.to_owned(), store, prefix, timeout })
    }

    /// Where it is, as it was named.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// An object of `limit` bytes at most; none if it is not there.
    pub(super) async fn get(&self, name: &str, limit: u64) -> Result<Option<Found>, ObjectError> {
        let at = self.at(name)?;
        let read = async {
            let found = match self.store.get_opts(&at, GetOptions::default()).await {
                Ok(found) => found,
                Err(object_store::Error::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(error.to_string()),
            };
            if found.meta.size > limit {
                return Err(format!("{} bytes, where at most {limit} can be", found.meta.size));
            }
            let version =
                UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
            let bytes = found.bytes().await.map_err(|error| error.to_string())?.to_vec();
            Ok(Some(Found { bytes, version }))
        };
        self.in_time(name, read).await
    }

    /// Writes an object whole, if the condition holds. On an error it may have happened all the same.
    pub(super) async fn put(
        &self,
        name: &str,
        bytes: Vec<u8>,
        condition: Condition,
    ) -> Result<Written, ObjectError> {
        let at = self.at(name)?;
        let mode = match condition {
            Condition::Any => PutMode::Overwrite,
            Condition::Nothing => PutMode::Create,
            Condition::Exactly(version) => PutMode::Update(version),
        };
        let write = async {
            let options = PutOptions { mode, ..PutOptions::default() };
            match self.store.put_opts(&at, bytes.into(), options).await {
                Ok(_) => Ok(Written::Done),
                Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                    Ok(Written::Refused)
                }
                Err(error) => Err(error.to_string()),
            }
        };
        self.in_time(name, write).await
    }

    async fn in_time<T>(
        &self,
        name: &str,
        call: impl Future<Output = Result<T, String>>,
    ) -> Result<T, ObjectError> {
        let place = || format!("{}/{name}", self.address);
        match tokio::time::timeout(self.timeout, call).await {
            Ok(done) => done.map_err(|why| ObjectError::new(place(), &why)),
            Err(_) => Err(ObjectError::new(place(), &format!("no answer in {} s", self.timeout.as_secs()))),
        }
    }

    fn at(&self, name: &str) -> Result<Path, ObjectError> {
        let name = Path::parse(name).map_err(|error| ObjectError::new(&self.address, &error))?;
        Ok(self.prefix.parts().chain(name.parts()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_bucket_or_a_folder() {
        let s3 = Address::S3 { bucket: "acme-log".into(), prefix: "cortex/prod".into() };
        assert_eq!(Address::parse("s3://acme-log/cortex/prod/"), Ok(s3));
        let gs = Address::Gs { bucket: "acme-log".into(), prefix: String::new() };
        assert_eq!(Address::parse("gs://acme-log"), Ok(gs));
        assert_eq!(Address::parse("file:///var/lib/cortex"), Ok(Address::File("/var/lib/cortex".into())));
        for text in [
            "",
            "acme-log",
            "/var/lib",
            "s3://",
            "s3:///prefix",
            "https://bucket/x",
            "s3://key@bucket/x",
            "s3://bucket:9000/x",
            "gs://bucket?x=1",
            "gs://bucket#x",
            "file:relative",
            "file://host/path",
        ] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }
}
