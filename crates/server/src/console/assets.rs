//! The style sheet and the scripts, each under a name that holds its digest, so that browsers keep them for good.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use cortex_core::Digest;

const STYLE: &str = include_str!("../../assets/console.css");
const SCRIPT: &str = include_str!("../../assets/console.js");
/// htmx; its licence is beside it.
const HTMX: &str = include_str!("../../assets/htmx-4.0.1.min.js");
const ICON: &str = include_str!("../../assets/icon.svg");

/// Where each asset is.
pub(super) static ASSETS: LazyLock<Assets> = LazyLock::new(|| Assets {
    style: Asset::new("console", "css", "text/css; charset=utf-8", STYLE),
    script: Asset::new("console", "js", "text/javascript; charset=utf-8", SCRIPT),
    htmx: Asset::new("htmx", "js", "text/javascript; charset=utf-8", HTMX),
    icon: Asset::new("icon", "svg", "image/svg+xml", ICON),
});

pub(super) struct Assets {
    pub(super) style: Asset,
    pub(super) script: Asset,
    pub(super) htmx: Asset,
    pub(super) icon: Asset,
}

pub(super) struct Asset {
    name: String,
    media_type: &'static str,
    text: &'static str,
}

impl Asset {
    fn new(name: &str, ending: &str, media_type: &'static str, text: &'static str) -> Self {
        let digest = hex::encode(Digest::of(text.as_bytes()).as_bytes());
        let short = digest.get(..16).unwrap_or_default();
        Self { name: format!("{name}.{short}.{ending}"), media_type, text }
    }

    /// Where it is.
    pub(super) fn path(&self) -> String {
        format!("/console/assets/{}", self.name)
    }
}

pub(super) async fn asset(Path(name): Path<String>) -> Response {
    let Assets { style, script, htmx, icon } = &*ASSETS;
    match [style, script, htmx, icon].into_iter().find(|asset| asset.name == name) {
        Some(asset) => {
            let headers = [
                (header::CONTENT_TYPE, asset.media_type),
                (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
            ];
            (headers, asset.text).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
