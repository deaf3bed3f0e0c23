//! Personal values in records: what stands in a leaf in their place, and what shows that it stands for them.
//!
//! A leaf is for ever, a person may want to be forgotten. So a leaf has no name of a person, but a *commitment*: `~` and
//! the base64url of SHA-256 over a random salt and the value. Salt and value are kept beside the log, once for each
//! value, as its *opening*. Who has the opening can check that the value is the one that was recorded. Once it is
//! deleted, nothing leads back to the value, not even the right guess: the salt has 256 bits.
//!
//! One value has one commitment as long as its opening is kept. So a leaf shows which records are of the same person,
//! which is what auditors ask by, and no more than that.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::Hash;

/// The length of a salt, in bytes.
pub const SALT_BYTES: usize = 32;

/// What a commitment begins with. No principal, user name or address begins so and goes on as one.
const MARK: char = '~';

/// What stands in a leaf in the place of `value`.
pub fn commitment(salt: &[u8; SALT_BYTES], value: &str) -> String {
    let bytes = [salt.as_slice(), value.as_bytes()].concat();
    format!("{MARK}{}", URL_SAFE_NO_PAD.encode(Hash::of(&bytes).0))
}

/// Whether a text has the form of a commitment.
pub fn is_commitment(text: &str) -> bool {
    let bytes = text.strip_prefix(MARK).map(|rest| URL_SAFE_NO_PAD.decode(rest));
    bytes.is_some_and(|bytes| bytes.is_ok_and(|bytes| bytes.len() == Hash::ZERO.0.len()))
}

/// What shows which value a commitment stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opening {
    /// The commitment, as it is in leaves.
    pub commitment: String,
    /// The salt, base64url without padding.
    pub salt: String,
    /// The value: a principal, a user name, an address, or what a person wrote.
    pub value: String,
}

impl Opening {
    /// The opening of a commitment to `value`.
    pub fn new(salt: &[u8; SALT_BYTES], value: String) -> Self {
        Self { commitment: commitment(salt, &value), salt: URL_SAFE_NO_PAD.encode(salt), value }
    }

    /// Whether the commitment is to this value.
    pub fn fits(&self) -> bool {
        let salt = URL_SAFE_NO_PAD.decode(&self.salt).ok().and_then(|salt| salt.try_into().ok());
        salt.is_some_and(|salt| commitment(&salt, &self.value) == self.commitment)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_opening_fits_its_commitment_and_no_other_value_or_salt(
            salt: [u8; SALT_BYTES], other_salt: [u8; SALT_BYTES], value: String, other: String,
        ) {
            prop_assume!(salt != other_salt && value != other);
            let opening = Opening::new(&salt, value.clone());
            prop_assert!(opening.fits());
            prop_assert!(is_commitment(&opening.commitment));
            let swapped = Opening { value: other, ..opening.clone() };
            prop_assert!(!swapped.fits());
            let salted = Opening { salt: URL_SAFE_NO_PAD.encode(other_salt), ..opening };
            prop_assert!(!salted.fits());
        }

        #[test]
        fn a_salt_does_not_run_into_its_value(salt: [u8; SALT_BYTES], value in "[a-z]{2,9}") {
            // The salt's length is fixed, so that no byte of it can be taken for one of the value.
            let mut shifted = Opening::new(&salt, value.clone());
            shifted.salt = URL_SAFE_NO_PAD.encode([salt.as_slice(), &value.as_bytes()[..1]].concat());
            shifted.value = value[1..].to_owned();
            prop_assert!(!shifted.fits());
        }
    }

    #[test]
    fn nothing_else_is_taken_for_a_commitment() {
        for text in ["", "~", "~bob", "person:staff:bob", &format!("~{}", "a".repeat(42)), &"a".repeat(44)] {
            assert!(!is_commitment(text), "{text}");
        }
    }
}
