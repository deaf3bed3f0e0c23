//! `[server]`: how Cortex listens and what it is called.

use std::net::SocketAddr;
use std::path::PathBuf;

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
    /// or a trailing slash; http on loopback only. Default: http, or https with `tls`, and the
    /// listening address.
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
    /// How long a connection may stay open without a request, in seconds. Default 75: longer than the load
    /// balancers in front of it keep theirs, so that none of them sends a request into a connection that closes.
    pub idle_timeout_s: u64,
    /// In how many seconds a client has to take 16 KiB of an answer, or what is left of it. Default 20.
    pub send_timeout_s: u64,
    /// How many connections are open at once. Default 4,096; more wait to be accepted.
    pub max_connections: usize,
    /// How many of them one address may hold; an IPv6 network of 64 bits counts as one, a trusted proxy not at all.
    /// Default 1,024.
    pub max_connections_per_peer: usize,
    /// How many requests one HTTP/2 connection may have under way. Default 128.
    pub max_streams: u32,
    /// How long a replica that is told to stop says that it is not ready before it accepts no more, in seconds: at
    /// least as long as the load balancer needs to notice. Default 0.
    pub shutdown_delay_s: u64,
    /// How long a shutdown waits for what is under way, in seconds. Default 25.
    pub drain_timeout_s: u64,
    /// TLS, ended by Cortex itself.
    pub tls: TlsConfig,
}

/// TLS 1.2 and 1.3, ended by Cortex itself. Without a certificate Cortex speaks HTTP, for a proxy in front of it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// The certificate, its issuers after it, as PEM. Default none: HTTP.
    pub cert_file: Option<PathBuf>,
    /// The certificate's private key, as PEM. Default none.
    pub key_file: Option<PathBuf>,
    /// The authorities whose client certificates are taken, as PEM. Default none: no client is asked for one.
    pub client_ca_file: Option<PathBuf>,
    /// Whether a client has to have a certificate, where `client_ca_file` is set: `required` or `optional`. One that is
    /// shown has to be good either way. Default `required`.
    pub client_auth: ClientAuth,
    /// How long a handshake may take, in seconds. Default 10.
    pub handshake_timeout_s: u64,
    /// How often to look whether the files have changed, in milliseconds; they are taken over while connections live.
    /// Default 5,000.
    pub watch_ms: u64,
}

/// Whether a client has to have a certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// Without one there is no connection.
    #[default]
    Required,
    /// Without one there is.
    Optional,
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self {
            cert_file: None,
            key_file: None,
            client_ca_file: None,
            client_auth: ClientAuth::default(),
            handshake_timeout_s: 10,
            watch_ms: 5_000,
        }
    }
}

/// The files of TLS, where it is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) client_ca: Option<PathBuf>,
}

impl TlsConfig {
    /// The files, if TLS is on.
    pub(crate) fn files(&self) -> Option<TlsFiles> {
        let (cert, key) = (self.cert_file.clone()?, self.key_file.clone()?);
        Some(TlsFiles { cert, key, client_ca: self.client_ca_file.clone() })
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.cert_file.is_some() != self.key_file.is_some() {
            faults.push("server.tls: cert_file and key_file belong together: set both, or none".to_owned());
        }
        if self.client_ca_file.is_some() && self.cert_file.is_none() {
            faults.push("server.tls.client_ca_file: clients are asked for a certificate over TLS only: set cert_file and key_file".to_owned());
        }
        within(&mut faults, "server.tls.handshake_timeout_s", self.handshake_timeout_s, 1, 60, "seconds");
        within(&mut faults, "server.tls.watch_ms", self.watch_ms, 50, 3_600_000, "milliseconds");
        faults
    }
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
            idle_timeout_s: 75,
            send_timeout_s: 20,
            max_connections: 4_096,
            max_connections_per_peer: 1_024,
            max_streams: 128,
            shutdown_delay_s: 0,
            drain_timeout_s: 25,
            tls: TlsConfig::default(),
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
        for (option, seconds) in [
            ("server.header_timeout_s", self.header_timeout_s),
            ("server.body_timeout_s", self.body_timeout_s),
            ("server.request_timeout_s", self.request_timeout_s),
            ("server.idle_timeout_s", self.idle_timeout_s),
            ("server.send_timeout_s", self.send_timeout_s),
        ] {
            within(&mut faults, option, seconds, 1, 3_600, "seconds");
        }
        within(&mut faults, "server.shutdown_delay_s", self.shutdown_delay_s, 0, 600, "seconds");
        within(&mut faults, "server.drain_timeout_s", self.drain_timeout_s, 0, 3_600, "seconds");
        within(&mut faults, "server.max_streams", self.max_streams.into(), 1, 1_024, "requests");
        if self.max_connections == 0 || self.max_connections_per_peer == 0 {
            faults.push("server.max_connections and max_connections_per_peer: write 1 or more".to_owned());
        }
        faults.extend(self.tls.faults());
        faults
    }
}

fn within(faults: &mut Vec<String>, option: &str, value: u64, least: u64, most: u64, unit: &str) {
    if !(least..=most).contains(&value) {
        faults.push(format!("{option} is {value}: write {least} to {most} {unit}"));
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
