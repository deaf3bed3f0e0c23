//! What a key of the sandbox's key management services does: AES-256-GCM under a key that nobody sees.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};

/// One key.
pub(crate) struct Vault {
    key: [u8; 32],
}

impl Default for Vault {
    fn default() -> Self {
        Self { key: rand::random() }
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault(redacted)")
    }
}

impl Vault {
    /// The ciphertext, bound to `bound`.
    pub(crate) fn seal(&self, bound: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
        let key = RandomizedNonceKey::new(&AES_256_GCM, &self.key).ok()?;
        let mut body = plain.to_vec();
        let nonce = key.seal_in_place_append_tag(Aad::from(bound), &mut body).ok()?;
        let mut sealed = nonce.as_ref().to_vec();
        sealed.extend_from_slice(&body);
        Some(sealed)
    }

    /// What was sealed for the same `bound`; none for anything else.
    pub(crate) fn open(&self, bound: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, body) = sealed.split_at_checked(NONCE_LEN)?;
        let key = RandomizedNonceKey::new(&AES_256_GCM, &self.key).ok()?;
        let mut body = body.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let length = key.open_in_place(nonce, Aad::from(bound), &mut body).ok()?.len();
        body.truncate(length);
        Some(body)
    }
}
