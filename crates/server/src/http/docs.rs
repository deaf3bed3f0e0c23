//! A readable page of the API, made from its description: no script, no asset from elsewhere.

use std::fmt::Write as _;

use axum::http::header;
use axum::response::{Html, IntoResponse};
use serde_json::Value;

const STYLE: &str = "body{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem;\
    color-scheme:light dark}code{font-size:.95em}h2{margin-top:2.5rem}section{border-top:1px solid #8884;\
    padding:.5rem 0}table{border-collapse:collapse}td{padding:.1rem 1rem .1rem 0;vertical-align:top}";

/// The page.
pub(super) fn page(api: &utoipa::openapi::OpenApi) -> impl IntoResponse + use<> {
    let api = serde_json::to_value(api).unwrap_or_default();
    let policy = "default-src 'none'; style-src 'unsafe-inline'";
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(render(&api)))
}

fn render(api: &Value) -> String {
    let mut html = String::new();
    let title = text(&api["info"]["title"]);
    // Writing to a String cannot fail.
    let _ = write!(
        html,
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>{title} API</title><style>{STYLE}</style><h1>{title} API</h1><p>{}</p>\
         <p>The same for tools: <a href=/openapi.json>/openapi.json</a>.</p>",
        text(&api["info"]["description"])
    );
    for tag in api["tags"].as_array().into_iter().flatten() {
        let _ = write!(html, "<h2>{}</h2><p>{}</p>", text(&tag["name"]), text(&tag["description"]));
        for (path, operations) in api["paths"].as_object().into_iter().flatten() {
            for (method, operation) in operations.as_object().into_iter().flatten() {
                if operation["tags"].as_array().is_some_and(|tags| tags.contains(&tag["name"])) {
                    section(&mut html, method, path, operation);
                }
            }
        }
    }
    html
}

fn section(html: &mut String, method: &str, path: &str, operation: &Value) {
    let _ = write!(
        html,
        "<section><h3><code>{} {}</code></h3><p>{}</p><table>",
        escape(&method.to_uppercase()),
        escape(path),
        text(&operation["summary"])
    );
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let (name, about) = (text(&parameter["name"]), text(&parameter["description"]));
        let _ = write!(html, "<tr><td><code>{name}</code><td>{about}");
    }
    for (status, response) in operation["responses"].as_object().into_iter().flatten() {
        let _ = write!(html, "<tr><td>{}<td>{}", escape(status), text(&response["description"]));
    }
    html.push_str("</table></section>");
}

fn text(value: &Value) -> String {
    escape(value.as_str().unwrap_or_default())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
