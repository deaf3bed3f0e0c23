//! AWS Signature Version 4, verified: the signature is computed again from what arrived.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::{constant_time, hmac};
use jiff::{SignedDuration, Timestamp};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::gate::Call;

/// How far a request's time may be from the sandbox's.
const MAX_SKEW: SignedDuration = SignedDuration::from_mins(15);

/// RFC 3986's unreserved characters stay as they are.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Why a signature proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignatureFault {
    /// There is none.
    Missing,
    /// It does not read, or does not cover what it has to.
    Malformed,
    /// It is for another service than the one that was called.
    Scope,
    /// It was made too long ago, or in the future.
    Skewed,
    /// It does not fit.
    Mismatch,
    /// It does not fit the body.
    Body,
}

/// The `Authorization` header and what belongs to it, read but not believed.
#[derive(Debug, Clone)]
pub(crate) struct Signature {
    pub(crate) access_key_id: String,
    pub(crate) session_token: Option<String>,
    pub(crate) service: String,
    pub(crate) at: Timestamp,
    amz_date: String,
    scope: String,
    date: String,
    pub(crate) region: String,
    signed_headers: Vec<String>,
    hex: String,
}

/// What a verified signature leaves for the chunks of the body (`aws-chunked`).
#[derive(Debug, Clone)]
pub(crate) struct Seed {
    key: [u8; 32],
    amz_date: String,
    scope: String,
    signature: String,
}

impl Signature {
    /// Reads the signature of `call`.
    pub(crate) fn read(call: &Call) -> Result<Self, SignatureFault> {
        let header = call.header("authorization").ok_or(SignatureFault::Missing)?;
        let rest = header.strip_prefix("AWS4-HMAC-SHA256 ").ok_or(SignatureFault::Malformed)?;
        let part = |name: &str| {
            let mut parts = rest.split(',').map(str::trim);
            parts.find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
        };
        let credential = part("Credential").ok_or(SignatureFault::Malformed)?;
        let signed_headers = part("SignedHeaders").ok_or(SignatureFault::Malformed)?;
        let hex = part("Signature").ok_or(SignatureFault::Malformed)?;
        let [access_key_id, date, region, service, "aws4_request"] =
            credential.split('/').collect::<Vec<_>>()[..]
        else {
            return Err(SignatureFault::Malformed);
        };
        let amz_date = call.header("x-amz-date").ok_or(SignatureFault::Malformed)?;
        if !amz_date.starts_with(date) {
            return Err(SignatureFault::Malformed);
        }
        Ok(Self {
            access_key_id: access_key_id.to_owned(),
            session_token: call.header("x-amz-security-token").map(ToOwned::to_owned),
            service: service.to_owned(),
            at: parse_amz_date(amz_date).ok_or(SignatureFault::Malformed)?,
            amz_date: amz_date.to_owned(),
            scope: format!("{date}/{region}/{service}/aws4_request"),
            date: date.to_owned(),
            region: region.to_owned(),
            signed_headers: signed_headers.split(';').map(str::to_owned).collect(),
            hex: hex.to_owned(),
        })
    }

    /// Verifies it against `call` and the key's `secret`. `payload` is the last line of the canonical request:
    /// the body's digest, or what stands for it.
    pub(crate) fn verify(
        &self,
        call: &Call,
        secret: &str,
        service: &str,
        payload: &str,
        now: Timestamp,
    ) -> Result<Seed, SignatureFault> {
        if self.service != service {
            return Err(SignatureFault::Scope);
        }
        if now.duration_since(self.at).abs() > MAX_SKEW {
            return Err(SignatureFault::Skewed);
        }
        if !self.covers_what_it_must(call) {
            return Err(SignatureFault::Malformed);
        }
        let canonical = self.canonical_request(call, payload);
        let to_sign = format!(
            "AWS4-HMAC-SHA256\n{}\n{}\n{}",
            self.amz_date,
            self.scope,
            sha256_hex(canonical.as_bytes())
        );
        let key = self.signing_key(secret);
        let expected = hex::encode(mac(&key, to_sign.as_bytes()));
        constant_time::verify_slices_are_equal(expected.as_bytes(), self.hex.as_bytes())
            .map_err(|_| SignatureFault::Mismatch)?;
        Ok(Seed { key, amz_date: self.amz_date.clone(), scope: self.scope.clone(), signature: expected })
    }

    /// `Host` and every `x-amz-` header have to be signed, or whoever sits between could change them.
    fn covers_what_it_must(&self, call: &Call) -> bool {
        let signed = |name: &str| self.signed_headers.iter().any(|signed| signed == name);
        signed("host")
            && call
                .headers
                .keys()
                .map(axum::http::HeaderName::as_str)
                .all(|n| !n.starts_with("x-amz-") || signed(n))
    }

    fn canonical_request(&self, call: &Call, payload: &str) -> String {
        let headers = self.signed_headers.iter().fold(String::new(), |out, name| {
            let values: Vec<_> = call.headers.get_all(name.as_str()).iter().map(header_text).collect();
            format!("{out}{name}:{}\n", values.join(","))
        });
        format!(
            "{}\n{}\n{}\n{headers}\n{}\n{payload}",
            call.method,
            canonical_path(&call.path),
            canonical_query(&call.query),
            self.signed_headers.join(";"),
        )
    }

    fn signing_key(&self, secret: &str) -> [u8; 32] {
        let key = mac(format!("AWS4{secret}").as_bytes(), self.date.as_bytes());
        let key = mac(&key, self.region.as_bytes());
        let key = mac(&key, self.service.as_bytes());
        mac(&key, b"aws4_request")
    }
}

impl Seed {
    /// Checks the signature of the next chunk, and moves on to it.
    pub(crate) fn chunk(&mut self, data: &[u8], signature: &str) -> Result<(), SignatureFault> {
        let empty = sha256_hex(b"");
        self.next("AWS4-HMAC-SHA256-PAYLOAD", &format!("{empty}\n{}", sha256_hex(data)), signature)
    }

    /// Checks the signature of the trailing headers, given as `name:value\n` lines.
    pub(crate) fn trailer(&mut self, lines: &str, signature: &str) -> Result<(), SignatureFault> {
        self.next("AWS4-HMAC-SHA256-TRAILER", &sha256_hex(lines.as_bytes()), signature)
    }

    fn next(&mut self, kind: &str, digests: &str, signature: &str) -> Result<(), SignatureFault> {
        let to_sign = format!("{kind}\n{}\n{}\n{}\n{digests}", self.amz_date, self.scope, self.signature);
        let expected = hex::encode(mac(&self.key, to_sign.as_bytes()));
        constant_time::verify_slices_are_equal(expected.as_bytes(), signature.as_bytes())
            .map_err(|_| SignatureFault::Body)?;
        self.signature = expected;
        Ok(())
    }
}

fn header_text(value: &axum::http::HeaderValue) -> String {
    let text = String::from_utf8_lossy(value.as_bytes());
    text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

/// The path, encoded once as S3 wants it; the query APIs only ever have `/`.
fn canonical_path(path: &str) -> String {
    path.split('/').map(encode_again).collect::<Vec<_>>().join("/")
}

fn canonical_query(query: &str) -> String {
    let mut pairs: Vec<_> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (encode_again(name), encode_again(value)))
        .collect();
    pairs.sort();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

fn encode_again(text: &str) -> String {
    let decoded = percent_decode_str(text).decode_utf8_lossy();
    utf8_percent_encode(&decoded, ENCODED).to_string()
}

fn parse_amz_date(text: &str) -> Option<Timestamp> {
    let text = text.strip_suffix('Z').filter(|text| text.len() == 15)?;
    jiff::civil::DateTime::strptime("%Y%m%dT%H%M%S", text)
        .ok()?
        .to_zoned(jiff::tz::TimeZone::UTC)
        .ok()
        .map(|z| z.timestamp())
}

fn mac(key: &[u8], data: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data);
    let mut out = [0; 32];
    out.copy_from_slice(tag.as_ref());
    out
}

/// The SHA-256 digest in hexadecimal.
pub(crate) fn sha256_hex(data: &[u8]) -> String {
    hex::encode(digest(&SHA256, data))
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};

    use super::*;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    const PAYLOAD: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";

    /// The upload in chunks that AWS's documentation of Signature Version 4 for S3 works out.
    fn documented() -> Call {
        let authorization = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
            SignedHeaders=content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;\
            x-amz-decoded-content-length;x-amz-storage-class,\
            Signature=4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9";
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("host", "s3.amazonaws.com"),
            ("x-amz-date", "20130524T000000Z"),
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
            ("authorization", authorization),
            ("x-amz-content-sha256", PAYLOAD),
            ("content-encoding", "aws-chunked"),
            ("x-amz-decoded-content-length", "66560"),
            ("content-length", "66824"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        Call {
            method: Method::PUT,
            path: "/examplebucket/chunkObject.txt".to_owned(),
            query: String::new(),
            headers,
            body: Bytes::new(),
        }
    }

    fn verify(call: &Call, secret: &str, service: &str, seconds_later: i64) -> Result<Seed, SignatureFault> {
        let signature = Signature::read(call)?;
        let now = signature.at + SignedDuration::from_secs(seconds_later);
        signature.verify(call, secret, service, PAYLOAD, now)
    }

    #[test]
    fn the_documented_signatures_fit_in_their_order() {
        let mut seed = verify(&documented(), SECRET, "s3", 0).unwrap();
        let (first, second, last) = (
            "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
            "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
            "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
        );
        assert_eq!(seed.clone().chunk(&[b'a'; 1_024], second), Err(SignatureFault::Body), "out of order");
        seed.chunk(&vec![b'a'; 65_536], first).unwrap();
        assert_eq!(seed.clone().chunk(&[b'b'; 1_024], second), Err(SignatureFault::Body), "another body");
        seed.chunk(&[b'a'; 1_024], second).unwrap();
        seed.chunk(&[], last).unwrap();
    }

    #[test]
    fn a_signature_covers_the_request_the_service_and_the_time() {
        let changed = |change: fn(&mut Call)| {
            let mut call = documented();
            change(&mut call);
            verify(&call, SECRET, "s3", 0).err()
        };
        assert_eq!(verify(&documented(), "guess", "s3", 0).err(), Some(SignatureFault::Mismatch));
        assert_eq!(verify(&documented(), SECRET, "sts", 0).err(), Some(SignatureFault::Scope));
        assert_eq!(verify(&documented(), SECRET, "s3", 900).err(), None);
        assert_eq!(verify(&documented(), SECRET, "s3", 901).err(), Some(SignatureFault::Skewed));
        assert_eq!(verify(&documented(), SECRET, "s3", -901).err(), Some(SignatureFault::Skewed));
        assert_eq!(changed(|call| call.method = Method::GET), Some(SignatureFault::Mismatch));
        assert_eq!(changed(|call| call.path.push('x')), Some(SignatureFault::Mismatch));
        assert_eq!(changed(|call| call.query.push_str("acl")), Some(SignatureFault::Mismatch));
        let unsigned = |call: &mut Call| {
            call.headers.insert("x-amz-acl", HeaderValue::from_static("public-read"));
        };
        assert_eq!(changed(unsigned), Some(SignatureFault::Malformed), "every x-amz- header is signed");
        let none = |call: &mut Call| {
            call.headers.remove("authorization");
        };
        assert_eq!(changed(none), Some(SignatureFault::Missing));
    }
}
