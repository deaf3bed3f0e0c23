//! A body as S3 takes it: plain, or in signed or unsigned chunks (`aws-chunked`), with its checksums.

use aws_lc_rs::digest::{SHA256, digest};
use axum::body::Bytes;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::caller::AuthFault;
use super::error::AwsError;
use super::sigv4::{Seed, SignatureFault, sha256_hex};
use crate::gate::Call;

/// How the body is covered by the signature: the header `x-amz-content-sha256`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cover {
    Digest,
    Unsigned,
    UnsignedChunks,
    SignedChunks,
}

fn cover(value: &str) -> Result<Cover, AwsError> {
    match value {
        "UNSIGNED-PAYLOAD" => Ok(Cover::Unsigned),
        "STREAMING-UNSIGNED-PAYLOAD-TRAILER" => Ok(Cover::UnsignedChunks),
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" | "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER" => {
            Ok(Cover::SignedChunks)
        }
        digest if digest.len() == 64 => Ok(Cover::Digest),
        _ => Err(AwsError::bad("InvalidArgument", "x-amz-content-sha256 is not valid.")),
    }
}

/// The body of `call`, unwrapped and compared with every digest and checksum that came with it.
pub(super) fn read(call: &Call, seed: Seed) -> Result<Bytes, AwsError> {
    let value = call.header("x-amz-content-sha256").unwrap_or_default();
    let mut trailers = Vec::new();
    let body = match cover(value)? {
        Cover::Unsigned => call.body.clone(),
        Cover::Digest if sha256_hex(&call.body) == value => call.body.clone(),
        Cover::Digest => return Err(AuthFault::Signature(SignatureFault::Body).in_s3()),
        Cover::UnsignedChunks => unwrap_chunks(&call.body, None, &mut trailers)?,
        Cover::SignedChunks => unwrap_chunks(&call.body, Some(seed), &mut trailers)?,
    };
    if let Some(length) = call.header("x-amz-decoded-content-length")
        && length.parse() != Ok(body.len())
    {
        return Err(AwsError::bad("IncompleteBody", "The body is not as long as it says."));
    }
    if let Some(announced) = call.header("x-amz-trailer")
        && !trailers.iter().any(|(name, _)| name == announced)
    {
        return Err(AwsError::bad("MalformedTrailerError", "The announced trailer is missing."));
    }
    let headers = call.headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    let trailers = trailers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, expected) in headers.chain(trailers) {
        check(name, expected, &body)?;
    }
    Ok(body)
}

fn check(name: &str, expected: &str, body: &[u8]) -> Result<(), AwsError> {
    let actual = match name.strip_prefix("x-amz-checksum-") {
        None | Some("algorithm" | "type" | "mode") => return Ok(()),
        Some("crc32") => crc32(body),
        Some("sha256") => STANDARD.encode(digest(&SHA256, body)),
        Some(other) => return Err(AwsError::not_in_sandbox(&format!("the checksum {other}"))),
    };
    if actual == expected {
        return Ok(());
    }
    Err(AwsError::bad("BadDigest", format!("The {name} you specified did not match what we received.")))
}

/// CRC-32 as S3 writes it: big-endian, in base64.
pub(super) fn crc32(body: &[u8]) -> String {
    let mut crc = flate2::Crc::new();
    crc.update(body);
    STANDARD.encode(crc.sum().to_be_bytes())
}

fn malformed() -> AwsError {
    AwsError::bad("IncompleteBody", "The chunks of the body do not read.")
}

/// Takes the chunks apart: `<size in hex>[;chunk-signature=…]\r\n<data>\r\n`, the last one empty and followed by
/// trailers, one a line.
fn unwrap_chunks(
    body: &[u8],
    mut seed: Option<Seed>,
    trailers: &mut Vec<(String, String)>,
) -> Result<Bytes, AwsError> {
    let mut rest = body;
    let mut out = Vec::with_capacity(body.len());
    loop {
        let head = line(&mut rest)?;
        let (size, extension) = head.split_once(';').unwrap_or((head, ""));
        let size = usize::from_str_radix(size.trim(), 16).map_err(|_| malformed())?;
        let data = rest.get(..size).ok_or_else(malformed)?;
        if let Some(seed) = &mut seed {
            let signature = extension.strip_prefix("chunk-signature=").ok_or_else(malformed)?;
            seed.chunk(data, signature).map_err(|fault| AuthFault::from(fault).in_s3())?;
        }
        rest = rest.get(size..).unwrap_or_default();
        if size == 0 {
            break;
        }
        out.extend_from_slice(data);
        rest = rest.strip_prefix(b"\r\n").ok_or_else(malformed)?;
    }
    read_trailers(rest, seed, trailers)?;
    Ok(out.into())
}

fn read_trailers(
    mut rest: &[u8],
    seed: Option<Seed>,
    trailers: &mut Vec<(String, String)>,
) -> Result<(), AwsError> {
    let mut signed = String::new();
    let mut signature = None;
    while !rest.is_empty() {
        let line = line(&mut rest)?;
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim().to_owned());
        if name == "x-amz-trailer-signature" {
            signature = Some(value);
        } else {
            signed = format!("{signed}{name}:{value}\n");
            trailers.push((name, value));
        }
    }
    match seed {
        Some(mut seed) if !trailers.is_empty() => {
            let signature = signature.ok_or_else(malformed)?;
            seed.trailer(&signed, &signature).map_err(|fault| AuthFault::from(fault).in_s3())
        }
        _ => Ok(()),
    }
}

/// The next line, without its end; the last one may have none.
fn line<'a>(rest: &mut &'a [u8]) -> Result<&'a str, AwsError> {
    let end = rest.windows(2).position(|pair| pair == b"\r\n");
    let (line, after) = match end {
        Some(end) => rest.split_at(end),
        None => (*rest, &[][..]),
    };
    *rest = after.strip_prefix(b"\r\n").unwrap_or(after);
    std::str::from_utf8(line).map_err(|_| malformed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsigned_chunks_come_apart() {
        let body = b"3\r\nabc\r\n4\r\ndefg\r\n0\r\nx-amz-checksum-crc32:MSpqpg==\r\n\r\n";
        let mut trailers = Vec::new();
        assert_eq!(unwrap_chunks(body, None, &mut trailers).unwrap().as_ref(), b"abcdefg");
        assert_eq!(trailers, [("x-amz-checksum-crc32".to_owned(), "MSpqpg==".to_owned())]);
        assert!(check("x-amz-checksum-crc32", "MSpqpg==", b"abcdefg").is_ok());
        assert!(check("x-amz-checksum-crc32", "MSpqpg==", b"abcdefG").is_err());
        assert!(check("x-amz-checksum-crc64nvme", "x", b"abcdefg").is_err());
    }

    #[test]
    fn broken_chunks_are_refused() {
        for body in
            [&b"zz\r\nabc\r\n0\r\n\r\n"[..], b"9\r\nabc\r\n0\r\n\r\n", b"3\r\nabc0\r\n\r\n", b"3\r\nabc\r\n"]
        {
            assert!(unwrap_chunks(body, None, &mut Vec::new()).is_err(), "{body:?}");
        }
    }
}
