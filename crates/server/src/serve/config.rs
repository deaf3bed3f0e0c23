//! `[server]`: how Cortex listens and what it is called.

use std::net::SocketAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How Cortex listens and what it is called.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// The address to listen on. Default 127.0.0.1:8080; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The URL that clouds and people reach Cortex under: the `iss` of what it signs. https, without a query
    /// or a trailing slash; http on loopback only. Default: http and the listening address.
    pub public_url: Option<String>,
    /// This replica's name on record. Default: the host's name.
    pub replica: Option<String>,
    /// Proxies whose X-Forwarded-For is believed, as networks. Default none: the peer's address counts.
    pub trusted_proxies: Vec<IpNet>,
    /// The largest request body, in bytes. Default 65,536.
    pub max_body_bytes: usize,
    /// How long a client may take to send its headers, in seconds. Default 10.
    pub header_timeout_s: u64,
    /// How long a client may take to send its body, in seconds. Default 10.
    pub body_timeout_s: u64,
    /// How long an answer may take once the request is there, in seconds. Default 30.
    pub request_timeout_s: u64,
    /// How many connections are open at once. Default 4,096; more wait to be accepted.
    pub max_connections: usize,
    /// How long a shutdown waits for what is under way, in seconds. Default 25.
    pub drain_timeout_s: u64,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            public_url: None,
            replica: None,
            trusted_proxies: Vec::new(),
            max_body_bytes: 65_536,
            header_timeout_s: 10,
            body_timeout_s: 10,
            request_timeout_s: 30,
            max_connections: 4_096,
            drain_timeout_s: 25,
        }
    }
}

impl ServerConfig {
    /// What cannot work, each in one sentence that names the option.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        faults.extend(self.public_url.as_deref().and_then(public_url_fault));
        if self.max_body_bytes > 1 << 20 {
            faults.push("server.max_body_bytes: at most 1,048,576".to_owned());
        }
        faults
    }
}

fn public_url_fault(url: &str) -> Option<String> {
    let fault = |why| Some(format!("server.public_url: {url:?} {why}"));
    let Ok(parsed) = reqwest::Url::parse(url) else {
        return fault("is not a URL");
    };
    let loopback = parsed.host_str().is_some_and(|host| matches!(host, "localhost" | "127.0.0.1" | "[::1]"));
    if parsed.scheme() != "https" && !(parsed.scheme() == "http" && loopback) {
        return fault("has to be https; http is for loopback only");
    }
    if url.ends_with('/') || parsed.query().is_some() || parsed.fragment().is_some() {
        return fault("may have no trailing slash, query or fragment: clouds compare it byte by byte");
    }
    None
}
