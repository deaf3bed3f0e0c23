//! Reading an answer: bounded, and wiped from memory after use.

use reqwest::Response;
use zeroize::Zeroizing;

/// Why an answer was not read.
pub(crate) enum Unread {
    /// It is larger than it may be.
    TooLarge,
    /// It broke off.
    Cut,
}

/// The body of `response`, of `most` bytes at the most.
pub(crate) async fn read(mut response: Response, most: usize) -> Result<Zeroizing<Vec<u8>>, Unread> {
    // All at once: a vector that grows would leave copies behind.
    let mut body = Zeroizing::new(Vec::with_capacity(most));
    while let Some(chunk) = response.chunk().await.map_err(|_| Unread::Cut)? {
        if body.len() + chunk.len() > most {
            return Err(Unread::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
