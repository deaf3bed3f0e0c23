//! Witnesses (C2SP tlog-witness, tlog-cosignature): others who remember the log's head and sign that it only grew.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::signature::ParsedPublicKey;

use crate::Hash;
use crate::note::{self, KeyId, Note, NoteError, Signer, Verifier};
use crate::proof;
use crate::text::decimal;

/// C2SP tlog-cosignature's number for Ed25519 cosignatures.
const COSIGNATURE: u8 = 0x04;

/// Why a witness's request or answer is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WitnessError {
    /// The answer bears no valid cosignature by this witness.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The witness refused.
    #[error("the witness answered with status {0}{hint}", hint = hint(*.0))]
    Refused(u16),
    /// The bytes are not what the protocol says.
    #[error("not what the witness protocol says: {0}")]
    Malformed(&'static str),
}

/// What C2SP tlog-witness means by a status.
fn hint(status: u16) -> &'static str {
    match status {
        403 => ": it does not know the log's key",
        404 => ": it does not know the log",
        422 => ": the consistency proof is wrong",
        _ => "",
    }
}

/// The body of a request to `<witness>/add-checkpoint`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The size that the witness saw last; 0 to ask for it.
    pub old: u64,
    /// That the checkpoint grew out of it; empty if `old` is 0.
    pub proof: Vec<Hash>,
    /// The checkpoint's signed note.
    pub checkpoint: String,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old)?;
        for hash in &self.proof {
            writeln!(f, "{hash}")?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}

impl FromStr for Request {
    type Err = WitnessError;

    fn from_str(text: &str) -> Result<Self, WitnessError> {
        const WRONG: WitnessError =
            WitnessError::Malformed("a request has an old size, hashes and a checkpoint");
        let (head, checkpoint) = text.split_once("\n\n").ok_or(WRONG)?;
        let mut lines = head.split('\n');
        let old = lines.next().and_then(|line| line.strip_prefix("old ")).and_then(decimal).ok_or(WRONG)?;
        let proof = proof::read_hashes(lines).ok_or(WRONG)?;
        Ok(Self { old, proof, checkpoint: checkpoint.to_owned() })
    }
}

/// What a witness answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It cosigned: these lines, each with its newline, go beneath the checkpoint.
    Cosigned(String),
    /// It saw another size last: the proof must begin there.
    Conflict(u64),
}

impl Answer {
    /// Reads an answer to a request with this checkpoint. Lines of other keys than the witness's are left out.
    pub fn read(status: u16, body: &str, checkpoint: &str, witness: &Cosigner) -> Result<Self, WitnessError> {
        match status {
            200 => {
                let joined = format!("{checkpoint}{body}");
                witness.open(&joined)?;
                let lines = body.split_inclusive('\n').filter(|line| witness.wrote(line));
                Ok(Self::Cosigned(lines.collect()))
            }
            409 => body
                .strip_suffix('\n')
                .and_then(decimal)
                .map(Self::Conflict)
                .ok_or(WitnessError::Malformed("a conflict tells the size that the witness saw")),
            other => Err(WitnessError::Refused(other)),
        }
    }
}

/// A witness's public key, with its name. Its text is the *vkey* `name+id+base64(0x04 || public key)`.
#[derive(Clone)]
pub struct Cosigner {
    name: String,
    id: KeyId,
    public: [u8; 32],
    key: Arc<ParsedPublicKey>,
}

impl Cosigner {
    fn new(name: &str, public: [u8; 32]) -> Result<Self, NoteError> {
        let id = note::key_id(note::checked_name(name)?, COSIGNATURE, &public);
        Ok(Self { name: name.to_owned(), id, public, key: note::parse_public(&public)? })
    }

    /// The witness that cosigns with this key.
    pub fn of(key: &Verifier) -> Result<Self, NoteError> {
        Self::new(key.name(), *key.public_key())
    }

    /// The witness's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// When this witness cosigned the checkpoint, in unix seconds; the latest time, if it did more than once.
    pub fn open(&self, checkpoint: &str) -> Result<u64, NoteError> {
        let note = Note::parse(checkpoint)?;
        let mut latest = None;
        for line in note.signatures.iter().filter(|line| line.id == self.id && line.name == self.name) {
            latest = latest.max(Some(self.verify(note.text, &line.signature)?));
        }
        latest.ok_or_else(|| NoteError::Unsigned(self.name.clone()))
    }

    fn verify(&self, text: &str, signature: &[u8]) -> Result<u64, NoteError> {
        let forged = || NoteError::Forged(self.name.clone());
        let (time, signature) = signature.split_first_chunk().ok_or_else(forged)?;
        let time = u64::from_be_bytes(*time);
        self.key.verify_sig(message(time, text).as_bytes(), signature).map_err(|_| forged())?;
        Ok(time)
    }

    fn wrote(&self, line: &str) -> bool {
        let line = line.strip_suffix('\n').unwrap_or(line);
        note::SignatureLine::parse(line).is_ok_and(|line| line.id == self.id && line.name == self.name)
    }
}

impl fmt::Display for Cosigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&note::vkey(&self.name, COSIGNATURE, &self.public))
    }
}

impl fmt::Debug for Cosigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cosigner({self})")
    }
}

impl FromStr for Cosigner {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let (name, public) = note::parse_vkey(text, COSIGNATURE)?;
        Self::new(name, public)
    }
}

/// A cosignature of a checkpoint by a witness's key: the line to put beneath it. `time` is in unix seconds.
pub fn cosign(witness: &Signer, checkpoint: &str, time: u64) -> Result<String, NoteError> {
    let text = Note::parse(checkpoint)?.text;
    let signature = witness.signature(&message(time, text))?;
    let key = Cosigner::of(&witness.verifier())?;
    Ok(note::signature_line(&key.name, key.id, &[time.to_be_bytes().as_slice(), &signature].concat()))
}

fn message(time: u64, text: &str) -> String {
    format!("cosignature/v1\ntime {time}\n{text}")
}
