//! Signed notes (C2SP signed-note): a text that people can read, with Ed25519 signatures beneath it.
//!
//! ```text
//! the text, one line or more
//!
//! — key.name base64(key id || signature)
//! ```

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::Hash;

/// A note's length in bytes, at most: text and signatures together.
pub const MAX_NOTE_BYTES: usize = 64 * 1024;
/// How many signatures a note bears at most.
pub const MAX_SIGNATURES: usize = 16;
/// A key name's length in bytes, at most.
pub const MAX_NAME_BYTES: usize = 256;

/// C2SP signed-note's number for plain Ed25519.
const ED25519_NOTE: u8 = 0x01;
const SIGNATURE_PREFIX: &str = "\u{2014} ";

/// Why a note or a key is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// The bytes are not a note.
    #[error("not a signed note: {0}")]
    Malformed(&'static str),
    /// The text is no verifier key.
    #[error("not a verifier key: {0}")]
    Key(&'static str),
    /// The note bears no signature by this key.
    #[error("no signature by the key {0}")]
    Unsigned(String),
    /// The note bears a line of this key, and the signature in it is wrong.
    #[error("the signature by the key {0} is wrong: the text was altered, or the signature was forged")]
    Forged(String),
    /// The cryptographic library failed.
    #[error("the cryptographic library refused to work")]
    Crypto,
}

/// An Ed25519 key with the name that it signs under.
#[derive(Clone)]
pub struct Signer {
    pair: Arc<Ed25519KeyPair>,
    verifier: Verifier,
}

impl Signer {
    /// Makes a new key; its seed never leaves this process.
    pub fn generate(name: &str) -> Result<Self, NoteError> {
        Self::new(name, Ed25519KeyPair::generate().map_err(|_| NoteError::Crypto)?)
    }

    /// The key of a seed (RFC 8032, section 5.1.5).
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<Self, NoteError> {
        Self::new(name, Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| NoteError::Crypto)?)
    }

    fn new(name: &str, pair: Ed25519KeyPair) -> Result<Self, NoteError> {
        let public = pair.public_key().as_ref().try_into().map_err(|_| NoteError::Crypto)?;
        Ok(Self { pair: Arc::new(pair), verifier: Verifier::new(name, public)? })
    }

    /// The same key under another name.
    pub fn named(&self, name: &str) -> Result<Self, NoteError> {
        Ok(Self { pair: self.pair.clone(), verifier: self.verifier.named(name)? })
    }

    /// What verifies this key's signatures.
    pub fn verifier(&self) -> Verifier {
        self.verifier.clone()
    }

    /// The name that the key signs under.
    pub fn name(&self) -> &str {
        &self.verifier.name
    }

    /// The text as a note with this key's signature. Signing is deterministic.
    pub fn sign(&self, text: &str) -> Result<String, NoteError> {
        check_text(text)?;
        let line = signature_line(self.name(), self.verifier.id, &self.signature(text)?);
        let note = format!("{text}\n{line}");
        if note.len() > MAX_NOTE_BYTES {
            return Err(NoteError::Malformed("it is longer than 64 KiB"));
        }
        Ok(note)
    }

    /// The bare Ed25519 signature of a message.
    pub(crate) fn signature(&self, message: &str) -> Result<Vec<u8>, NoteError> {
        let signature = self.pair.try_sign(message.as_bytes()).map_err(|_| NoteError::Crypto)?;
        Ok(signature.as_ref().to_vec())
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({}, ..)", self.verifier)
    }
}

/// The public half of a key, with its name. Its text is the *vkey* `name+id+base64(0x01 || public key)`.
#[derive(Clone)]
pub struct Verifier {
    name: String,
    id: KeyId,
    public: [u8; 32],
    key: Arc<ParsedPublicKey>,
}

impl Verifier {
    fn new(name: &str, public: [u8; 32]) -> Result<Self, NoteError> {
        let key = parse_public(&public)?;
        Ok(Self {
            name: checked_name(name)?.to_owned(),
            id: key_id(name, ED25519_NOTE, &public),
            public,
            key,
        })
    }

    /// The name that the key signs under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The bare Ed25519 public key.
    pub fn public_key(&self) -> &[u8; 32] {
        &self.public
    }

    /// The same key under another name.
    pub fn named(&self, name: &str) -> Result<Self, NoteError> {
        let id = key_id(checked_name(name)?, ED25519_NOTE, &self.public);
        Ok(Self { name: name.to_owned(), id, public: self.public, key: self.key.clone() })
    }

    /// The note's text, if this key signed it. Lines of other keys are ignored.
    pub fn open<'a>(&self, note: &'a str) -> Result<&'a str, NoteError> {
        let note = Note::parse(note)?;
        let mut signed = false;
        for line in note.signatures.iter().filter(|line| line.id == self.id && line.name == self.name) {
            self.verify(note.text, &line.signature)?;
            signed = true;
        }
        if signed { Ok(note.text) } else { Err(NoteError::Unsigned(self.name.clone())) }
    }

    fn verify(&self, message: &str, signature: &[u8]) -> Result<(), NoteError> {
        self.key.verify_sig(message.as_bytes(), signature).map_err(|_| NoteError::Forged(self.name.clone()))
    }
}

impl PartialEq for Verifier {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.public == other.public
    }
}

impl Eq for Verifier {}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&vkey(&self.name, ED25519_NOTE, &self.public))
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({self})")
    }
}

impl FromStr for Verifier {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let (name, public) = parse_vkey(text, ED25519_NOTE)?;
        Self::new(name, public)
    }
}

/// The first four bytes of a hash over name, algorithm and key: a hint at which key to try, no proof.
pub(crate) type KeyId = [u8; 4];

/// A note taken apart; nothing in it is verified yet.
pub(crate) struct Note<'a> {
    pub(crate) text: &'a str,
    pub(crate) signatures: Vec<SignatureLine<'a>>,
}

/// One line beneath a note's text.
pub(crate) struct SignatureLine<'a> {
    pub(crate) name: &'a str,
    pub(crate) id: KeyId,
    pub(crate) signature: Vec<u8>,
}

impl<'a> Note<'a> {
    pub(crate) fn parse(note: &'a str) -> Result<Self, NoteError> {
        if note.len() > MAX_NOTE_BYTES {
            return Err(NoteError::Malformed("it is longer than 64 KiB"));
        }
        let (text, lines) = note
            .rfind("\n\n")
            .and_then(|end| note.split_at_checked(end + 1))
            .ok_or(NoteError::Malformed("no blank line stands between text and signatures"))?;
        check_text(text)?;
        let lines = lines
            .strip_prefix('\n')
            .and_then(|lines| lines.strip_suffix('\n'))
            .ok_or(NoteError::Malformed("its last line does not end"))?;
        let signatures = lines.split('\n').take(MAX_SIGNATURES + 1).map(SignatureLine::parse);
        let signatures = signatures.collect::<Result<Vec<_>, _>>()?;
        if signatures.len() > MAX_SIGNATURES {
            return Err(NoteError::Malformed("it bears more than 16 signatures"));
        }
        Ok(Self { text, signatures })
    }
}

impl<'a> SignatureLine<'a> {
    pub(crate) fn parse(line: &'a str) -> Result<Self, NoteError> {
        const WRONG: NoteError = NoteError::Malformed("a signature line is not \"\u{2014} name base64\"");
        let (name, encoded) =
            line.strip_prefix(SIGNATURE_PREFIX).and_then(|rest| rest.split_once(' ')).ok_or(WRONG)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| WRONG)?;
        let (id, signature) = bytes.split_first_chunk().ok_or(WRONG)?;
        if signature.is_empty() {
            return Err(WRONG);
        }
        Ok(Self { name: checked_name(name)?, id: *id, signature: signature.to_vec() })
    }
}

/// The line of a signature, with its newline.
pub(crate) fn signature_line(name: &str, id: KeyId, signature: &[u8]) -> String {
    let bytes = [id.as_slice(), signature].concat();
    format!("{SIGNATURE_PREFIX}{name} {}\n", STANDARD.encode(bytes))
}

pub(crate) fn key_id(name: &str, algorithm: u8, public: &[u8; 32]) -> KeyId {
    let Hash([a, b, c, d, ..]) = Hash::sum(&[name.as_bytes(), b"\n", &[algorithm], public]);
    [a, b, c, d]
}

pub(crate) fn vkey(name: &str, algorithm: u8, public: &[u8; 32]) -> String {
    let key = [&[algorithm], public.as_slice()].concat();
    format!("{name}+{}+{}", hex::encode(key_id(name, algorithm, public)), STANDARD.encode(key))
}

/// Name and public key of a vkey of one algorithm.
pub(crate) fn parse_vkey(text: &str, algorithm: u8) -> Result<(&str, [u8; 32]), NoteError> {
    const FORM: NoteError = NoteError::Key("it is not name+id+base64");
    let (name, rest) = text.split_once('+').ok_or(FORM)?;
    let (id, key) = rest.split_once('+').ok_or(FORM)?;
    let key = STANDARD.decode(key).map_err(|_| FORM)?;
    let (first, public) = key.split_first().ok_or(FORM)?;
    if *first != algorithm {
        return Err(NoteError::Key("it is for another algorithm"));
    }
    let public = public.try_into().map_err(|_| NoteError::Key("an Ed25519 key has 32 bytes"))?;
    if hex::encode(key_id(checked_name(name)?, algorithm, &public)) != id {
        return Err(NoteError::Key("its id is not that of its name and key: a part of it was altered"));
    }
    Ok((name, public))
}

pub(crate) fn parse_public(public: &[u8; 32]) -> Result<Arc<ParsedPublicKey>, NoteError> {
    let key = ParsedPublicKey::new(&ED25519, public).map_err(|_| NoteError::Key("no such Ed25519 key"))?;
    Ok(Arc::new(key))
}

pub(crate) fn checked_name(name: &str) -> Result<&str, NoteError> {
    let length = 1..=MAX_NAME_BYTES;
    let refused = |char: char| char.is_whitespace() || char.is_control() || char == '+';
    if !length.contains(&name.len()) || name.contains(refused) {
        return Err(NoteError::Key("a name has 1 to 256 bytes, and no space and no plus in it"));
    }
    Ok(name)
}

fn check_text(text: &str) -> Result<(), NoteError> {
    if !text.ends_with('\n') {
        return Err(NoteError::Malformed("its text does not end with a newline"));
    }
    if text.bytes().any(|byte| byte < 0x20 && byte != b'\n') {
        return Err(NoteError::Malformed("its text has control characters"));
    }
    Ok(())
}
