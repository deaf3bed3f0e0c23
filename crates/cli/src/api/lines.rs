//! An answer that comes in lines, each a JSON document, while the server works.

use reqwest::Response;
use serde_json::Value;

use crate::error::Error;

/// The longest line that is read, in bytes.
const MAX_BYTES: usize = 16 << 20;

/// The lines of an answer.
pub(crate) struct Lines {
    response: Response,
    read: Vec<u8>,
}

impl Lines {
    pub(super) fn new(response: Response) -> Self {
        Self { response, read: Vec::new() }
    }

    /// The next line; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Value>, Error> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let rest = self.read.split_off(end + 1);
                let line = std::mem::replace(&mut self.read, rest);
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            match self.response.chunk().await? {
                Some(chunk) if self.read.len() + chunk.len() <= MAX_BYTES => {
                    self.read.extend_from_slice(&chunk);
                }
                Some(_) => return Err(Error::Said(format!("a line has more than {MAX_BYTES} bytes"))),
                None => return Ok(None),
            }
        }
    }
}
