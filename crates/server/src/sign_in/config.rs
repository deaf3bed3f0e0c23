//! `[sign_in]`: where people sign in for the console and the command line.

use std::path::PathBuf;

use cortex_core::IssuerName;
use cortex_identity::{IssuerConfig, Kind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where people sign in for the console and the command line.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SignInConfig {
    /// The name of the issuer of people that they sign in at. Default none: there is no console.
    #[schemars(with = "Option<String>")]
    pub issuer: Option<IssuerName>,
    /// What the console is called there: its client id. Its redirect URI is `server.public_url` and
    /// `/console/callback`. Default none.
    pub client_id: Option<String>,
    /// The file with the console's client secret, one line. Default none: a public client, which PKCE protects.
    pub client_secret_file: Option<PathBuf>,
    /// The scopes that are asked for; `openid` has to be among them. Default `["openid", "profile", "email"]`.
    pub scopes: Vec<String>,
    /// How long a session at the console lasts at the most, in seconds, 300 to 86,400. Default 28,800.
    pub session_ttl_s: i64,
    /// How long a session lasts that is not used, in seconds, 60 to 86,400. Default 1,800.
    pub idle_ttl_s: i64,
}

impl Default for SignInConfig {
    fn default() -> Self {
        Self {
            issuer: None,
            client_id: None,
            client_secret_file: None,
            scopes: ["openid", "profile", "email"].map(str::to_owned).into(),
            session_ttl_s: 28_800,
            idle_ttl_s: 1_800,
        }
    }
}

impl SignInConfig {
    /// The issuer that people sign in at, if there is one.
    pub(crate) fn issuer_among<'a>(&self, issuers: &'a [IssuerConfig]) -> Option<&'a IssuerConfig> {
        issuers.iter().find(|issuer| Some(&issuer.name) == self.issuer.as_ref())
    }

    /// Everything that is wrong with it, beside the issuers that are configured.
    pub(crate) fn faults(&self, issuers: &[IssuerConfig]) -> Vec<String> {
        let mut faults = Vec::new();
        match (&self.issuer, self.issuer_among(issuers)) {
            (None, _) => {}
            (Some(_), Some(issuer)) if issuer.kind == Kind::Person => {}
            (Some(name), _) => {
                faults.push(format!("sign_in.issuer: {name} is no configured issuer of people"));
            }
        }
        if self.issuer.is_some() != self.client_id.is_some() {
            faults.push("sign_in: issuer and client_id go together: write both or none".to_owned());
        }
        if self.client_secret_file.is_some() && self.client_id.is_none() {
            faults.push("sign_in.client_secret_file: is of no use without client_id".to_owned());
        }
        let printable = |text: &String| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        if self.client_id.iter().any(|id| !printable(id) || id.len() > 500) {
            faults.push("sign_in.client_id: write 1 to 500 printable characters without spaces".to_owned());
        }
        if !self.scopes.iter().any(|scope| scope == "openid") || !self.scopes.iter().all(printable) {
            faults
                .push("sign_in.scopes: write openid and what else the issuer needs, each a word".to_owned());
        }
        for (option, value, min) in
            [("session_ttl_s", self.session_ttl_s, 300), ("idle_ttl_s", self.idle_ttl_s, 60)]
        {
            if !(min..=86_400).contains(&value) {
                faults.push(format!("sign_in.{option} is {value}: write {min} to 86,400 seconds"));
            }
        }
        faults
    }
}
