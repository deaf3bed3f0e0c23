//! The little of S3 that proves a scope: put, get, head, delete and list, path style, in memory.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Bytes;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::Aws;
use super::caller::{AuthFault, Caller};
use super::error::AwsError;
use super::s3_body;
use super::sigv4::sha256_hex;
use super::xml::{Xml, respond};
use crate::gate::Call;

const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";

/// What all objects may take together, in bytes.
const MAX_STORED: usize = 64 << 20;

/// The parameters that the sandbox understands; any other one asks for something that it does not have.
const KNOWN_PARAMS: &[&str] = &[
    "x-id",
    "list-type",
    "prefix",
    "delimiter",
    "max-keys",
    "continuation-token",
    "start-after",
    "encoding-type",
    "fetch-owner",
];

#[derive(Debug)]
struct Object {
    body: Bytes,
    etag: String,
    content_type: HeaderValue,
    metadata: Vec<(HeaderName, HeaderValue)>,
    modified: Timestamp,
}

/// Buckets and their objects, by name.
#[derive(Debug)]
pub(super) struct Buckets {
    buckets: BTreeMap<String, BTreeMap<String, Object>>,
    stored: usize,
}

impl Buckets {
    pub(super) fn new(names: Vec<String>) -> Self {
        Self { buckets: names.into_iter().map(|name| (name, BTreeMap::new())).collect(), stored: 0 }
    }

    fn bucket(&mut self, name: &str) -> Result<&mut BTreeMap<String, Object>, AwsError> {
        let missing = || AwsError::missing("NoSuchBucket", "The specified bucket does not exist");
        self.buckets.get_mut(name).ok_or_else(missing)
    }

    fn put(
        &mut self,
        bucket: &str,
        key: String,
        object: Object,
        condition: &Condition,
    ) -> Result<(), AwsError> {
        let there = self.bucket(bucket)?.get(&key);
        condition.check(there)?;
        let freed = there.map_or(0, |object| object.body.len());
        let stored = self.stored - freed + object.body.len();
        if stored > MAX_STORED {
            return Err(AwsError::bad("EntityTooLarge", "The sandbox holds 64 MiB."));
        }
        self.bucket(bucket)?.insert(key, object);
        self.stored = stored;
        Ok(())
    }

    fn delete(&mut self, bucket: &str, key: &str) -> Result<(), AwsError> {
        let freed = self.bucket(bucket)?.remove(key).map_or(0, |object| object.body.len());
        self.stored -= freed;
        Ok(())
    }
}

/// What has to be there for an object to be written (RFC 9110, section 13): compare and set.
#[derive(Debug)]
enum Condition {
    Any,
    /// `If-None-Match: *`
    Nothing,
    /// `If-Match` with an entity tag.
    Exactly(String),
}

impl Condition {
    fn read(call: &Call) -> Result<Self, AwsError> {
        match (call.header("if-match"), call.header("if-none-match")) {
            (None, None) => Ok(Self::Any),
            (None, Some("*")) => Ok(Self::Nothing),
            (Some(etag), None) if etag != "*" => Ok(Self::Exactly(etag.trim_matches('"').to_owned())),
            _ => Err(AwsError::not_in_sandbox("this condition")),
        }
    }

    fn check(&self, there: Option<&Object>) -> Result<(), AwsError> {
        let holds = match (self, there) {
            (Self::Any, _) | (Self::Nothing, None) => true,
            (Self::Nothing, Some(_)) => false,
            (Self::Exactly(etag), Some(object)) => object.etag.trim_matches('"') == etag,
            (Self::Exactly(_), None) => {
                return Err(AwsError::missing("NoSuchKey", "The specified key does not exist."));
            }
        };
        if holds { Ok(()) } else { Err(AwsError::precondition()) }
    }
}

/// The bucket and the key of a path; the key is empty for the bucket itself.
fn place(path: &str) -> (String, String) {
    let (bucket, key) =
        path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
    let decode = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
    (decode(bucket), decode(key))
}

/// Whether the operation changes what is stored.
pub(super) fn changes(operation: &str) -> bool {
    matches!(operation, "PutObject" | "DeleteObject")
}

/// The operation's name, as faults and policies know it.
pub(super) fn operation_name(call: &Call) -> &'static str {
    let (_, key) = place(&call.path);
    match (call.method.clone(), key.is_empty()) {
        (Method::PUT, false) => "PutObject",
        (Method::GET, false) => "GetObject",
        (Method::HEAD, false) => "HeadObject",
        (Method::DELETE, false) => "DeleteObject",
        (Method::GET, true) => "ListObjects",
        (Method::HEAD, true) => "HeadBucket",
        _ => "other",
    }
}

impl Aws {
    pub(super) fn s3(&self, call: &Call, request_id: &str) -> Result<Response, AwsError> {
        let payload = call.header("x-amz-content-sha256");
        if payload.is_none() && call.header("authorization").is_some() {
            return Err(AwsError::bad("InvalidRequest", "Missing required header: x-amz-content-sha256"));
        }
        let authenticated = self.authenticate(call, "s3", payload.unwrap_or_default());
        let (caller, seed) = authenticated.map_err(AuthFault::in_s3)?;
        refuse_what_is_missing(call)?;
        let (bucket, key) = place(&call.path);
        let object_arn = format!("arn:aws:s3:::{bucket}/{key}");
        match operation_name(call) {
            "PutObject" => {
                self.authorise(&caller, "s3:PutObject", &object_arn, &[])?;
                self.put_object(call, &bucket, key, s3_body::read(call, seed)?)
            }
            "GetObject" | "HeadObject" => {
                self.authorise(&caller, "s3:GetObject", &object_arn, &[])?;
                self.get_object(&caller, call, &bucket, &key)
            }
            "DeleteObject" => {
                self.authorise(&caller, "s3:DeleteObject", &object_arn, &[])?;
                self.state().buckets.delete(&bucket, &key)?;
                Ok(StatusCode::NO_CONTENT.into_response())
            }
            "ListObjects" => self.list_objects(&caller, call, &bucket, request_id),
            "HeadBucket" => {
                self.authorise(&caller, "s3:ListBucket", &format!("arn:aws:s3:::{bucket}"), &[])?;
                self.state().buckets.bucket(&bucket)?;
                Ok(StatusCode::OK.into_response())
            }
            _ => Err(AwsError::not_in_sandbox("this operation of S3")),
        }
    }

    fn put_object(&self, call: &Call, bucket: &str, key: String, body: Bytes) -> Result<Response, AwsError> {
        let is_metadata = |name: &HeaderName| name.as_str().starts_with("x-amz-meta-");
        let metadata = call.headers.iter().filter(|(name, _)| is_metadata(name));
        let octets = HeaderValue::from_static("binary/octet-stream");
        let object = Object {
            // AWS has the MD5 here; clients take it as it comes.
            etag: format!("\"{}\"", sha256_hex(&body).get(..32).unwrap_or_default()),
            content_type: call.headers.get("content-type").cloned().unwrap_or(octets),
            metadata: metadata.map(|(name, value)| (name.clone(), value.clone())).collect(),
            modified: self.world.now(),
            body,
        };
        let etag = object.etag.clone();
        self.state().buckets.put(bucket, key, object, &Condition::read(call)?)?;
        Ok((StatusCode::OK, [("etag", etag)]).into_response())
    }

    fn get_object(
        &self,
        caller: &Caller<'_>,
        call: &Call,
        bucket: &str,
        key: &str,
    ) -> Result<Response, AwsError> {
        // Whoever may not list learns nothing about what is not there.
        let may_list = self.authorise(caller, "s3:ListBucket", &format!("arn:aws:s3:::{bucket}"), &[]);
        let mut state = self.state();
        let Some(object) = state.buckets.bucket(bucket)?.get(key) else {
            may_list?;
            return Err(AwsError::missing("NoSuchKey", "The specified key does not exist."));
        };
        let modified = object.modified.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let mut response = object.body.clone().into_response();
        let headers = response.headers_mut();
        headers.insert("content-type", object.content_type.clone());
        headers.extend(object.metadata.iter().cloned());
        let mut texts = vec![("etag", object.etag.clone()), ("last-modified", modified)];
        if call.header("x-amz-checksum-mode").is_some() {
            texts.push(("x-amz-checksum-crc32", s3_body::crc32(&object.body)));
        }
        for (name, text) in texts {
            if let Ok(value) = HeaderValue::try_from(text) {
                headers.insert(name, value);
            }
        }
        Ok(response)
    }

    fn list_objects(
        &self,
        caller: &Caller<'_>,
        call: &Call,
        bucket: &str,
        request_id: &str,
    ) -> Result<Response, AwsError> {
        if bucket.is_empty() {
            return Err(AwsError::not_in_sandbox("a list of buckets"));
        }
        let prefix = call.param("prefix").unwrap_or_default();
        self.authorise(
            caller,
            "s3:ListBucket",
            &format!("arn:aws:s3:::{bucket}"),
            &[("s3:prefix", &prefix)],
        )?;
        let listing = Listing::read(call, prefix);
        let mut state = self.state();
        let body = listing.render(bucket, state.buckets.bucket(bucket)?);
        Ok(respond(StatusCode::OK, request_id, body.document("ListBucketResult", NAMESPACE)))
    }
}

/// Parameters and headers that would change what the call means.
fn refuse_what_is_missing(call: &Call) -> Result<(), AwsError> {
    let mut params = form_urlencoded::parse(call.query.as_bytes());
    if let Some((name, _)) = params.find(|(name, _)| !KNOWN_PARAMS.contains(&name.as_ref())) {
        return Err(AwsError::not_in_sandbox(&format!("the parameter {name}")));
    }
    let conditions: &[&str] = if call.method == Method::PUT { &[] } else { &["if-match", "if-none-match"] };
    for name in conditions.iter().chain(&["range", "if-modified-since", "x-amz-copy-source"]) {
        if call.headers.contains_key(*name) {
            return Err(AwsError::not_in_sandbox(&format!("the header {name}")));
        }
    }
    Ok(())
}

struct Listing {
    prefix: String,
    delimiter: Option<String>,
    after: String,
    max_keys: usize,
    url_encoded: bool,
}

impl Listing {
    fn read(call: &Call, prefix: String) -> Self {
        let token = call.param("continuation-token").and_then(|token| hex::decode(token).ok());
        let token = token.and_then(|bytes| String::from_utf8(bytes).ok());
        let max_keys = call.param("max-keys").and_then(|text| text.parse().ok());
        Self {
            prefix,
            delimiter: call.param("delimiter").filter(|delimiter| !delimiter.is_empty()),
            after: token.or_else(|| call.param("start-after")).unwrap_or_default(),
            max_keys: max_keys.unwrap_or(1_000).min(1_000),
            url_encoded: call.param("encoding-type").as_deref() == Some("url"),
        }
    }

    fn shown(&self, text: &str) -> String {
        if self.url_encoded {
            utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
        } else {
            text.to_owned()
        }
    }

    /// The common prefix that `key` is rolled up into, if it is.
    fn rolled_up(&self, key: &str) -> Option<String> {
        let delimiter = self.delimiter.as_deref()?;
        let rest = key.strip_prefix(&self.prefix)?;
        let end = rest.find(delimiter)? + delimiter.len();
        Some(format!("{}{}", self.prefix, rest.get(..end)?))
    }

    fn render(&self, bucket: &str, objects: &BTreeMap<String, Object>) -> Xml {
        let mut fitting = objects
            .iter()
            .filter(|(key, _)| key.starts_with(&self.prefix) && key.as_str() > self.after.as_str());
        let mut contents = Xml::default();
        let mut prefixes = BTreeSet::new();
        let (mut count, mut last) = (0, None);
        for (key, object) in fitting.by_ref().take(self.max_keys) {
            last = Some(key);
            count += 1;
            if let Some(prefix) = self.rolled_up(key) {
                prefixes.insert(prefix);
                continue;
            }
            let content = Xml::default()
                .text("Key", self.shown(key))
                .text("LastModified", object.modified.strftime("%Y-%m-%dT%H:%M:%S.000Z"))
                .text("ETag", &object.etag)
                .text("Size", object.body.len())
                .text("StorageClass", "STANDARD");
            contents = contents.element("Contents", &content);
        }
        let more = fitting.next().is_some();
        let mut xml = Xml::default()
            .text("Name", bucket)
            .text("Prefix", self.shown(&self.prefix))
            .text("KeyCount", count)
            .text("MaxKeys", self.max_keys)
            .text("IsTruncated", more);
        if self.url_encoded {
            xml = xml.text("EncodingType", "url");
        }
        if let Some(last) = last.filter(|_| more) {
            xml = xml.text("NextContinuationToken", hex::encode(last));
        }
        xml = xml.append(&contents);
        prefixes.iter().fold(xml, |xml, prefix| {
            xml.element("CommonPrefixes", &Xml::default().text("Prefix", self.shown(prefix)))
        })
    }
}
