//! What is wrong with a configuration, in sentences.

use jiff::SignedDuration;
use reqwest::Url;

use super::CallLimits;

/// What is wrong with a section, each in one sentence that names the option.
pub(crate) struct Faults {
    section: &'static str,
    said: Vec<String>,
}

impl Faults {
    pub(crate) fn of(section: &'static str) -> Self {
        Self { section, said: Vec::new() }
    }

    pub(crate) fn said(self) -> Vec<String> {
        self.said
    }

    pub(crate) fn unless(&mut self, ok: bool, option: &str, fault: &str) {
        if !ok {
            self.said.push(format!("{}.{option} {fault}", self.section));
        }
    }

    pub(crate) fn endpoint(&mut self, option: &str, url: Option<&String>) {
        let Some(url) = url else { return };
        let fault = endpoint_fault(url);
        self.unless(fault.is_none(), option, fault.unwrap_or_default());
    }

    pub(super) fn between(
        &mut self,
        option: &str,
        value: SignedDuration,
        least: SignedDuration,
        most: SignedDuration,
    ) {
        let fault = format!("is {value:#}: use a duration between {least:#} and {most:#}");
        self.unless((least..=most).contains(&value), option, &fault);
    }

    /// `option` is where they are, such as `aws.calls`.
    pub(crate) fn calls(&mut self, option: &str, calls: &CallLimits) {
        let least = SignedDuration::from_millis(10);
        let most = SignedDuration::from_mins(5);
        self.between(&format!("{option}.timeout"), calls.timeout, least, most);
        self.between(&format!("{option}.attempt_timeout"), calls.attempt_timeout, least, most);
        self.between(&format!("{option}.connect_timeout"), calls.connect_timeout, least, most);
        let option = format!("{option}.retries");
        self.unless(
            calls.retries <= 2,
            &option,
            "is more than 2: a cloud that is down is not helped by more",
        );
    }
}

/// Why `url` may not be called: secrets go there, so it is https, or http to this machine.
pub fn endpoint_fault(url: &str) -> Option<&'static str> {
    let Ok(url) = Url::parse(url) else {
        return Some("is not a URL: write https:// and a host");
    };
    let loopback = match url.host_str() {
        Some("localhost" | "[::1]") => true,
        Some(host) => host.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| ip.is_loopback()),
        None => return Some("has no host: write https:// and a host"),
    };
    match url.scheme() {
        "https" => {}
        "http" if loopback => {}
        _ => return Some("is not https: write https://, or http:// to a loopback address only"),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Some("has a user name or a password: remove it");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Some("has a query or a fragment: remove it");
    }
    None
}
