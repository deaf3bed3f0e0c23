//! XML as the query API and S3 answer it: elements and text, escaped.

use std::fmt::Write as _;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

/// An element under construction.
#[derive(Debug, Default)]
pub(crate) struct Xml(String);

impl Xml {
    /// Adds `<name>text</name>`.
    pub(crate) fn text(mut self, name: &str, text: impl std::fmt::Display) -> Self {
        // Writing to a String cannot fail.
        let _ = write!(self.0, "<{name}>{}</{name}>", escape(&text.to_string()));
        self
    }

    /// Adds `<name>` with what `inner` builds.
    pub(crate) fn element(mut self, name: &str, inner: &Self) -> Self {
        let _ = write!(self.0, "<{name}>{}</{name}>", inner.0);
        self
    }

    /// Adds what `other` built.
    pub(crate) fn append(mut self, other: &Self) -> Self {
        self.0.push_str(&other.0);
        self
    }

    /// The document with `root` of this namespace; empty for none.
    pub(crate) fn document(self, root: &str, namespace: &str) -> String {
        let xmlns = if namespace.is_empty() { String::new() } else { format!(" xmlns=\"{namespace}\"") };
        format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{root}{xmlns}>{}</{root}>", self.0)
    }
}

fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            // XML 1.0 has no way to write the other control characters.
            c if c.is_control() && !"\t\n\r".contains(c) => out.push('\u{fffd}'),
            c => out.push(c),
        }
        out
    })
}

/// An answer of `text/xml` with its request id.
pub(crate) fn respond(status: StatusCode, request_id: &str, body: String) -> Response {
    let headers = [(header::CONTENT_TYPE, "text/xml"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, [("x-amzn-requestid", request_id), ("x-amz-request-id", request_id)], body)
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        let xml = Xml::default().element("a", &Xml::default().text("b", "<&\">'\u{1}"));
        assert!(
            xml.document("r", "n")
                .ends_with("<r xmlns=\"n\"><a><b>&lt;&amp;&quot;&gt;&apos;\u{fffd}</b></a></r>")
        );
    }
}
