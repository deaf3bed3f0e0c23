//! Where a server is.

use std::fmt;
use std::str::FromStr;

use reqwest::Url;
use serde::{Deserialize, Serialize};

/// A server's address, without a slash at its end. Tokens are sent there, so it is https, or http to this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct ServerUrl(String);

impl ServerUrl {
    /// The address of `path`, which begins with a slash.
    pub(crate) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }
}

/// Whether nobody but this machine can be at the other end.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback()),
        None => false,
    }
}

impl FromStr for ServerUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url: Url = text.parse().map_err(|error| format!("{error}; write https://cortex.acme.example"))?;
        let plain = url.query().is_none() && url.fragment().is_none();
        if !plain || !url.username().is_empty() || url.password().is_some() {
            return Err("leave out user, password, query and fragment".to_owned());
        }
        match url.scheme() {
            "https" => {}
            "http" if is_loopback(&url) => {}
            _ => return Err("write https://: plain http is for this machine only".to_owned()),
        }
        Ok(Self(url.as_str().trim_end_matches('/').to_owned()))
    }
}

impl TryFrom<String> for ServerUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ServerUrl> for String {
    fn from(server: ServerUrl) -> Self {
        server.0
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_sent_over_tls_or_stays_on_this_machine() {
        for good in
            ["https://cortex.acme.example", "http://127.0.0.1:8080/", "http://[::1]:1", "http://localhost:1"]
        {
            assert!(good.parse::<ServerUrl>().is_ok(), "{good}");
        }
        for bad in [
            "http://cortex.acme.example",
            "http://127.0.0.1.acme.example",
            "http://10.0.0.1",
            "ftp://localhost",
            "https://user:password@cortex.acme.example",
            "https://cortex.acme.example?x=1",
            "cortex.acme.example",
            "",
        ] {
            assert!(bad.parse::<ServerUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_are_appended_to_the_servers_own() {
        let server: ServerUrl = "https://acme.example/cortex/".parse().unwrap();
        assert_eq!(server.at("/v1/me"), "https://acme.example/cortex/v1/me");
    }
}
