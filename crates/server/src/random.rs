//! Randomness as an argument.

use rand::RngCore as _;

/// A source of random bytes, fit for secrets.
pub trait Random: Send + Sync + 'static {
    /// Fills `out`.
    fn fill(&self, out: &mut [u8]);
}

/// The bits of a UUID version 7 that time does not fill.
impl dyn Random {
    /// Ten random bytes for an id.
    pub fn id_bits(&self) -> [u8; 10] {
        let mut bits = [0; 10];
        self.fill(&mut bits);
        bits
    }
}

/// The operating system's source, through a fast generator that it seeds.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, out: &mut [u8]) {
        rand::rng().fill_bytes(out);
    }
}
