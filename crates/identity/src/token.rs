//! From a token string to its parts. Pure: nothing here is trusted until the signature is verified, and nothing
//! here leads anywhere else.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::config::Algorithm;
use crate::json::{self, Limits};
use crate::rejection::{Reason, Refused};

/// The longest token that is looked at, in bytes.
pub const MAX_TOKEN: usize = 16 * 1024;

/// Refuses a token that is too long to be looked at.
pub(crate) fn check_size(token: &str) -> Result<(), Refused> {
    if token.len() > MAX_TOKEN {
        return Err(Refused::new(Reason::Size, format!("more than {MAX_TOKEN} bytes")));
    }
    Ok(())
}

/// A payload with a few hundred groups still fits.
const PAYLOAD: Limits = Limits { depth: 8, values: 1_000 };

/// A header has a handful of members.
const HEADER: Limits = Limits { depth: 8, values: 100 };

/// The longest key id, in bytes.
const MAX_KID: usize = 256;

/// Header members that bring a key, its address or another processing (RFC 7515, section 4.1; RFC 7516; RFC 7797).
/// Ignoring them would do; but who sends one is not an issuer that belongs on the list.
const FORBIDDEN: [&str; 7] = ["jku", "jwk", "x5u", "x5c", "b64", "enc", "zip"];

/// A token taken apart, of which nothing is proven.
pub(crate) struct Unverified<'a> {
    /// The algorithm that it names.
    pub(crate) algorithm: Algorithm,
    /// The key that it names.
    pub(crate) kid: Option<String>,
    /// Its type.
    pub(crate) typ: Option<String>,
    /// Its payload.
    pub(crate) claims: Map<String, Value>,
    /// What is signed.
    pub(crate) message: &'a [u8],
    /// The signature.
    pub(crate) signature: Vec<u8>,
}

impl<'a> Unverified<'a> {
    /// Takes `token` apart, a compact JWS (RFC 7515, section 7.1) that [`check_size`] let pass.
    pub(crate) fn parse(token: &'a str) -> Result<Self, Refused> {
        let shape = || Refused::new(Reason::Shape, "not three parts");
        let (message, signature) = token.rsplit_once('.').ok_or_else(shape)?;
        let (header, payload) = message.split_once('.').ok_or_else(shape)?;
        if payload.contains('.') {
            return Err(shape());
        }
        let mut header = Header::parse(&decode(header)?)?;
        Ok(Self {
            algorithm: header.algorithm()?,
            kid: header.kid()?,
            typ: header.typ()?,
            claims: object(&decode(payload)?, PAYLOAD)?,
            message: message.as_bytes(),
            signature: decode(signature)?,
        })
    }

    /// The issuer that it names: one string, exactly.
    pub(crate) fn iss(&self) -> Result<&str, Refused> {
        let iss = self.claims.get("iss").and_then(Value::as_str);
        iss.ok_or_else(|| Refused::new(Reason::Iss, "iss is missing or not a string"))
    }
}

struct Header(Map<String, Value>);

impl Header {
    fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        let header = object(bytes, HEADER)?;
        if header.contains_key("crit") {
            return Err(Refused::new(Reason::Crit, "the header has crit"));
        }
        match FORBIDDEN.iter().find(|name| header.contains_key(**name)) {
            Some(name) => Err(Refused::new(Reason::Header, format!("the header has {name}"))),
            None => Ok(Self(header)),
        }
    }

    fn algorithm(&self) -> Result<Algorithm, Refused> {
        let name = self.0.get("alg").and_then(Value::as_str);
        let algorithm = name.and_then(Algorithm::from_name);
        algorithm.ok_or_else(|| Refused::new(Reason::Alg, "alg is missing or not supported"))
    }

    fn kid(&mut self) -> Result<Option<String>, Refused> {
        match self.0.remove("kid") {
            None => Ok(None),
            Some(Value::String(kid)) if well_formed_kid(&kid) => Ok(Some(kid)),
            Some(_) => Err(Refused::new(Reason::Kid, "kid is malformed")),
        }
    }

    fn typ(&mut self) -> Result<Option<String>, Refused> {
        match self.0.remove("typ") {
            None => Ok(None),
            Some(Value::String(typ)) => Ok(Some(typ)),
            Some(_) => Err(Refused::new(Reason::Json, "typ is not a string")),
        }
    }
}

/// Whether `kid` is one that issuers use: base64, hexadecimal, names, ARNs and URLs, but no path upwards.
pub(crate) fn well_formed_kid(kid: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.~=+/:@".contains(&b);
    (1..=MAX_KID).contains(&kid.len()) && kid.bytes().all(allowed) && !kid.contains("..")
}

/// Base64url without padding, and with the spare bits zero: one spelling for each sequence of bytes.
fn decode(part: &str) -> Result<Vec<u8>, Refused> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Refused::new(Reason::Shape, "a part is not base64url"))
}

fn object(bytes: &[u8], limits: Limits) -> Result<Map<String, Value>, Refused> {
    // The parser's message may quote the token, so it is left out.
    json::object(bytes, limits).map_err(|error| {
        Refused::new(Reason::Json, format!("not a plain JSON object, at column {}", error.column()))
    })
}
