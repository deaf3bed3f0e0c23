//! An answer of the API, and what it means to a script.

use std::fmt::Write as _;

use reqwest::{Response, StatusCode};
use serde_json::Value;

use crate::error::{Error, Exit};

/// The largest answer that is read, in bytes: pages are far smaller.
const MAX_BYTES: usize = 8 << 20;

/// A status and a document.
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) status: StatusCode,
    /// The document; a string where it is a text, null where there is none.
    pub(crate) body: Value,
}

impl Answer {
    pub(super) async fn read(response: Response) -> Result<Self, Error> {
        let status = response.status();
        let bytes = body_within(response, MAX_BYTES).await?;
        let text = |bytes| String::from_utf8(bytes).map_or(Value::Null, Value::String);
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| text(bytes));
        Ok(Self { status, body })
    }

    /// The document of an answer that says yes; else its own sentence as an error.
    pub(crate) fn accepted(self) -> Result<Value, Error> {
        if self.status.is_success() {
            return Ok(self.body);
        }
        Err(Error::Of(self.exit(), self.sentence()))
    }

    fn exit(&self) -> Exit {
        match self.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Exit::Denied,
            StatusCode::NOT_FOUND => Exit::NotFound,
            StatusCode::TOO_MANY_REQUESTS => Exit::Unavailable,
            status if status.is_server_error() => Exit::Unavailable,
            _ => Exit::Failed,
        }
    }

    /// What the server said, in one sentence, and each fault of a document on a line of its own.
    fn sentence(&self) -> String {
        let text = |name: &str| self.body.get(name).and_then(Value::as_str);
        let said = text("detail").or(text("error_description")).map_or_else(
            || format!("it answered HTTP {}: is this a Cortex?", self.status.as_u16()),
            str::to_owned,
        );
        let mut sentence = match self.status {
            StatusCode::UNAUTHORIZED => format!("{said}; `cortex login` signs you in"),
            _ => said,
        };
        for fault in self.body.get("problems").and_then(Value::as_array).into_iter().flatten() {
            let part = |name: &str| fault.get(name).and_then(Value::as_str).unwrap_or_default();
            let line = fault.get("line").and_then(Value::as_u64).unwrap_or_default();
            let _ = write!(sentence, "\n  line {line}: {}; {}", part("message"), part("remedy"));
        }
        sentence
    }
}

/// The body of an answer, refused where it is larger than `max_bytes`.
pub(crate) async fn body_within(mut response: Response, max_bytes: usize) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > max_bytes {
            return Err(Error::Said(format!("the answer has more than {max_bytes} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_problem_becomes_one_sentence_and_an_exit_code() {
        let cases = [
            (403, json!({"detail": "this needs a role"}), Exit::Denied, "this needs a role"),
            (401, json!({"detail": "no"}), Exit::Denied, "cortex login"),
            (404, json!({"detail": "there is no such grant"}), Exit::NotFound, "no such grant"),
            (412, json!({"detail": "it changed"}), Exit::Failed, "it changed"),
            (503, json!({"error_description": "come back"}), Exit::Unavailable, "come back"),
            (502, Value::Null, Exit::Unavailable, "HTTP 502"),
            (
                422,
                json!({"detail": "d", "problems": [{"line": 3, "message": "m", "remedy": "r"}]}),
                Exit::Failed,
                "line 3: m; r",
            ),
        ];
        for (status, body, exit, said) in cases {
            let answer = Answer { status: StatusCode::from_u16(status).unwrap(), body };
            let error = answer.accepted().unwrap_err();
            assert_eq!(error.exit(), exit, "{status}");
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}
