//! The URLs that Cortex may fetch keys from. They come from the configuration, or from the discovery document of
//! a configured issuer, never from a token.

use std::net::IpAddr;

use reqwest::Url;

/// A checked URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    url: Url,
    loopback: bool,
}

impl Endpoint {
    /// Reads the exact `iss` of an issuer: one spelling only, because it is compared byte for byte.
    pub(crate) fn issuer(text: &str) -> Result<Self, &'static str> {
        let endpoint = Self::parse(text)?;
        if endpoint.url.query().is_some() {
            return Err("has a query: an issuer is a URL without one");
        }
        let canonical = endpoint.url.as_str();
        if canonical != text && canonical.strip_suffix('/') != Some(text) {
            return Err(
                "is not in its canonical spelling: write a lower-case ASCII host, no default port and no dot segments",
            );
        }
        Ok(endpoint)
    }

    /// Reads the URL of an API that the configuration names together with a credential for it. It may be an
    /// address: that of a cluster often is, and its certificate says so.
    pub(crate) fn api(text: &str) -> Result<Self, &'static str> {
        let endpoint = Self::read(text, true)?;
        if endpoint.url.query().is_some() {
            return Err("has a query: write the URL without one");
        }
        Ok(endpoint)
    }

    /// Reads the URL of a key set.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        Self::read(text, false)
    }

    fn read(text: &str, addresses: bool) -> Result<Self, &'static str> {
        let url = Url::parse(text).map_err(|_| "is not an absolute URL")?;
        if !url.username().is_empty() || url.password().is_some() || text.contains('@') {
            return Err("has user information: credentials do not belong in a URL");
        }
        if url.fragment().is_some() {
            return Err("has a fragment: remove it");
        }
        let loopback = loopback(url.host_str().ok_or("has no host")?, addresses)?;
        match url.scheme() {
            "https" => {}
            "http" if loopback => {}
            "http" => return Err("uses http: write https (http is for localhost only)"),
            _ => return Err("uses a scheme other than https"),
        }
        Ok(Self { url, loopback })
    }

    /// Whether the host is this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        self.loopback
    }

    /// The URL.
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// A URL under this one, each segment encoded.
    pub(crate) fn below<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Option<Url> {
        let mut url = self.url.clone();
        url.path_segments_mut().ok()?.pop_if_empty().extend(segments);
        Some(url)
    }

    /// Where an issuer publishes its metadata (`OpenID` Connect Discovery 1.0, section 4): the well-known path is
    /// appended to the issuer without its trailing slash.
    pub(crate) fn discovery(&self) -> Url {
        let mut url = self.url.clone();
        let path = format!("{}/.well-known/openid-configuration", url.path().trim_end_matches('/'));
        url.set_path(&path);
        url
    }
}

fn loopback(host: &str, addresses: bool) -> Result<bool, &'static str> {
    if host.ends_with('.') {
        return Err("has a host that ends with a dot");
    }
    if let Ok(ip) = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        return match ip.is_loopback() {
            true => Ok(true),
            false if addresses => Ok(false),
            false => Err("has an IP address as its host: write a name"),
        };
    }
    Ok(host == "localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_has_one_spelling_and_a_safe_scheme() {
        for good in [
            "https://idp.example.com",
            "https://idp.example.com/",
            "https://idp.example.com/realms/prod",
            "https://idp.example.com:8443/x",
            "http://localhost:8080",
            "http://127.0.0.1:9000/issuer",
            "http://[::1]:9000",
            "https://xn--bcher-kva.example",
        ] {
            assert!(Endpoint::issuer(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "idp.example.com",
            "http://idp.example.com",
            "ftp://localhost/",
            "https://10.0.0.1",
            "https://169.254.169.254",
            "https://[fe80::1]",
            "https://0x7f.1",
            "https://2130706433",
            "https://user:pw@idp.example.com",
            "https://@idp.example.com",
            "https://idp.example.com?x=1",
            "https://idp.example.com?",
            "https://idp.example.com#f",
            "https://idp.example.com/#",
            "https://IDP.example.com",
            "HTTPS://idp.example.com",
            "https://idp.example.com.",
            "https://idp.example.com:443",
            "https://idp.example.com/a/../b",
            "https://idp.example.com\\evil",
            " https://idp.example.com",
            "https://bücher.example",
            "http://localhost.evil.example",
        ] {
            assert!(Endpoint::issuer(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_api_may_have_an_address_but_no_query_and_no_plain_http() {
        for good in ["https://10.96.0.1", "https://airflow.example.com/prod/", "http://127.0.0.1:8080"] {
            assert!(Endpoint::api(good).is_ok(), "{good}");
        }
        for bad in ["http://10.96.0.1", "https://a.example?x", "https://a:b@a.example", "http://a.example"] {
            assert!(Endpoint::api(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_segment_stays_one_segment() {
        for (base, expected) in [
            ("https://a.example", "https://a.example/api/a%2Fb%3Fc"),
            ("https://a.example/x/", "https://a.example/x/api/a%2Fb%3Fc"),
        ] {
            let url = Endpoint::api(base).unwrap().below(["api", "a/b?c"]).unwrap();
            assert_eq!(url.as_str(), expected);
        }
    }

    #[test]
    fn discovery_appends_to_the_path() {
        for (iss, expected) in [
            ("https://a.example", "https://a.example/.well-known/openid-configuration"),
            ("https://a.example/", "https://a.example/.well-known/openid-configuration"),
            ("https://a.example/t/v2.0", "https://a.example/t/v2.0/.well-known/openid-configuration"),
        ] {
            assert_eq!(Endpoint::issuer(iss).unwrap().discovery().as_str(), expected);
        }
    }
}
