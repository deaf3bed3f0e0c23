//! The configuration: one struct for each section of `cortex.toml`, read whole or refused whole.
//!
//! An unknown key is refused with its line. An environment variable `CORTEX__SECTION__KEY` overrides the file;
//! `DATABASE_URL` overrides `database.url`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use cortex_identity::{AirflowConfig, ClusterConfig, IssuerConfig, Trust};
use cortex_providers::ProvidersConfig;
use cortex_providers::kms::KmsConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::admission::AdmissionConfig;
pub use crate::approval::GrantsConfig;
pub use crate::keyring::KeysConfig;
use crate::log::LogConfig;
use crate::notify::{self, NotificationConfig};
use crate::revoking::RevocationConfig;
pub use crate::serve::{ClientAuth, ServerConfig, TlsConfig};
use crate::sign_in::SignInConfig;
use crate::streams::{self, StreamConfig};
use crate::telemetry::TelemetryConfig;

/// The prefix of the environment variables that override the file.
pub const ENV_PREFIX: &str = "CORTEX__";

/// Everything that is configured.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How Cortex listens and what it is called.
    pub server: ServerConfig,
    /// Where the policies and the record are kept.
    pub database: DatabaseConfig,
    /// Cortex's own signing keys.
    pub keys: KeysConfig,
    /// The key management service that wraps the two key files.
    pub kms: KmsConfig,
    /// The tamper-evident log over the record.
    pub log: LogConfig,
    /// Which groups of people may do what.
    pub roles: RolesConfig,
    /// Where people sign in for the console and the command line.
    pub sign_in: SignInConfig,
    /// Approvals.
    pub grants: GrantsConfig,
    /// Credentials that are handed out again while they live.
    pub leases: LeasesConfig,
    /// How much is let in.
    pub admission: AdmissionConfig,
    /// Ending credentials before they expire.
    pub revocation: RevocationConfig,
    /// Whose tokens are believed. No other issuer is ever contacted.
    pub issuers: Vec<IssuerConfig>,
    /// The Airflows that are asked about the runs that services claim.
    pub airflows: Vec<AirflowConfig>,
    /// The Kubernetes clusters that are asked about the pods that tasks run in.
    pub clusters: Vec<ClusterConfig>,
    /// Who is told what happens. Default nobody.
    pub notifications: Vec<NotificationConfig>,
    /// Where every record goes besides. Default nowhere.
    pub streams: Vec<StreamConfig>,
    /// Traces of requests.
    pub telemetry: TelemetryConfig,
    /// The clouds and APIs.
    pub providers: ProvidersConfig,
}

/// Where the policies and the record are kept.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseConfig {
    /// The Postgres that holds everything, as `postgres://user@host/database`. `DATABASE_URL` overrides it.
    pub url: Option<String>,
    /// The role that the server takes on at each connection; it may append to the record and change nothing
    /// in it. Default `cortex_server`, which the migrations create.
    pub role: String,
    /// The most connections that one replica opens. Default 8.
    pub max_connections: u32,
    /// How long a request waits for a connection, in milliseconds. Default 250.
    pub acquire_timeout_ms: u64,
    /// How long a commit may take before its callers are told to come back, in milliseconds. Default 3,000.
    pub commit_timeout_ms: u64,
    /// How long after its intent a mint is given up and ended on record as indeterminate, in seconds: longer than
    /// a provider's deadline and an outcome's commit together. Default 40.
    pub intent_deadline_s: i64,
    /// How many records one commit takes at the most. Default 512.
    pub max_batch: usize,
    /// How often to look for changed policies and keys, should a notification be lost, in milliseconds.
    /// Default 500.
    pub poll_ms: u64,
    /// How far this replica's clock may be from the database's, in seconds, before it says that it is not ready. Default
    /// 5; 0 does not look.
    pub max_clock_skew_s: u32,
    /// Whether to refuse a Postgres that may lose what it has committed: `fsync`, `full_page_writes` or
    /// `synchronous_commit` off. Default true.
    pub require_durable: bool,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self {
            url: None,
            role: "cortex_server".to_owned(),
            max_connections: 8,
            acquire_timeout_ms: 250,
            commit_timeout_ms: 3_000,
            intent_deadline_s: 40,
            max_batch: 512,
            poll_ms: 500,
            max_clock_skew_s: 5,
            require_durable: true,
        }
    }
}

/// Which groups of people may do what. A group is named as `issuer/group`, by the issuer's configured name.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RolesConfig {
    /// May write policies and guardrails. Default none.
    pub admin: BTreeSet<String>,
    /// May see and decide on grants, where a policy names them too. Default none.
    pub approver: BTreeSet<String>,
    /// May read everything on record. Default none.
    pub auditor: BTreeSet<String>,
}

/// Credentials that are handed out again while they live, from this replica's memory.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LeasesConfig {
    /// How much memory they take at the most, in bytes. Default 33,554,432. What does not fit is forgotten,
    /// oldest use first: its handle then answers `invalid_grant`, and a fresh subject token mints anew.
    pub max_bytes: u64,
    /// A run that asks again gets the same credential while at least this part of its life is left, in
    /// percent. Default 33. A lease handle gets it until it expires.
    pub renew_below_percent: i64,
}

impl Default for LeasesConfig {
    fn default() -> Self {
        Self { max_bytes: 32 << 20, renew_below_percent: 33 }
    }
}

/// A configuration that cannot be used; each fault is a sentence that says where and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

impl Config {
    /// Reads `file` (none: defaults alone), applies the overrides of `env`, and checks the whole.
    pub fn load(
        file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let text = match file {
            None => String::new(),
            Some(path) => std::fs::read_to_string(path)
                .map_err(|e| ConfigError(vec![format!("{}: cannot be read: {e}", path.display())]))?,
        };
        let name = file.map_or_else(|| "cortex.toml".to_owned(), |path| path.display().to_string());
        Self::parse(&name, &text, env)
    }

    /// Parses `text`, which is called `name` in faults.
    pub fn parse(
        name: &str,
        text: &str,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        // First the file alone: its faults have a line, those of an override do not.
        toml::from_str::<Self>(text).map_err(|e| ConfigError(vec![format!("{name}: {e}")]))?;
        let mut table: toml::Table =
            toml::from_str(text).map_err(|e| ConfigError(vec![format!("{name}: {e}")]))?;
        for (key, value) in env {
            override_with(&mut table, &key, value)?;
        }
        let config: Self = table.try_into().map_err(|e| ConfigError(vec![format!("environment: {e}")]))?;
        config.validate()?;
        Ok(config)
    }

    /// The URL that Cortex signs under, once it knows where it listens.
    pub fn issuer_url(&self, listening: SocketAddr) -> String {
        let scheme = if self.server.tls.files().is_some() { "https" } else { "http" };
        self.server.public_url.clone().unwrap_or_else(|| format!("{scheme}://{listening}"))
    }

    /// Whose word is taken.
    pub fn trust(&self) -> Trust<'_> {
        Trust { issuers: &self.issuers, airflows: &self.airflows, clusters: &self.clusters }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let mut faults = Vec::new();
        faults.extend(self.server.faults());
        faults.extend(self.admission.faults());
        for (what, value) in [
            ("keys.publish_ahead_s", self.keys.publish_ahead_s),
            ("keys.retire_after_s", self.keys.retire_after_s),
        ] {
            if !(0..=31_536_000).contains(&value) {
                faults.push(format!("{what} is {value}: write 0 to 31,536,000 seconds"));
            }
        }
        faults.extend(self.kms.faults());
        if self.kms.key.is_some() && self.server.public_url.is_none() {
            faults.push(
                "kms.key: needs server.public_url, which wrapped keys are bound to: configure it".to_owned(),
            );
        }
        faults.extend(self.log.faults());
        faults.extend(self.grants.faults());
        faults.extend(notify::faults(&self.notifications));
        faults.extend(streams::faults(&self.streams));
        faults.extend(self.telemetry.faults());
        if !(1..=4_096).contains(&self.database.max_batch) {
            faults.push(format!("database.max_batch is {}: write 1 to 4,096", self.database.max_batch));
        }
        if !(1..=3_600).contains(&self.database.intent_deadline_s) {
            let value = self.database.intent_deadline_s;
            faults.push(format!("database.intent_deadline_s is {value}: write 1 to 3,600 seconds"));
        }
        if self.database.max_connections < 3 {
            faults.push("database.max_connections: a replica needs 3 or more".to_owned());
        }
        if !(0..=90).contains(&self.leases.renew_below_percent) {
            faults.push("leases.renew_below_percent: write 0 to 90".to_owned());
        }
        faults.extend(self.revocation.faults(self.providers.slowest_revocation()));
        faults.extend(self.trust().validate().iter().map(ToString::to_string));
        faults.extend(self.role_faults());
        faults.extend(self.sign_in.faults(&self.issuers));
        if let Err(provider_faults) = self.providers.validate() {
            faults.extend(provider_faults);
        }
        if faults.is_empty() { Ok(()) } else { Err(ConfigError(faults)) }
    }

    fn role_faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for group in self.roles.admin.iter().chain(&self.roles.approver).chain(&self.roles.auditor) {
            let known = group.split_once('/').is_some_and(|(issuer, group)| {
                !group.is_empty() && self.issuers.iter().any(|known| known.name.as_str() == issuer)
            });
            if !known {
                faults.push(format!("roles: {group:?} is not issuer/group with a configured issuer's name"));
            }
        }
        faults
    }
}

/// Names that directories give to a group of everyone, in the form that [`plain`] makes.
const EVERYONE: [&str; 22] = [
    "*",
    "all",
    "allcompany",
    "allemployees",
    "allstaff",
    "allusers",
    "anyone",
    "authenticatedusers",
    "company",
    "default",
    "domainusers",
    "employee",
    "employees",
    "everybody",
    "everyone",
    "guests",
    "members",
    "public",
    "staff",
    "user",
    "users",
    "workforce",
];

/// A group's name without case, separators and the path before it, as Keycloak and LDAP write one.
fn plain(group: &str) -> String {
    let last = group.rsplit('/').next().unwrap_or(group);
    let last = last.split(',').next().unwrap_or(last);
    let last = last.split_once('=').map_or(last, |(_, value)| value);
    let kept = |c: &char| c.is_alphanumeric() || *c == '*';
    last.chars().filter(kept).flat_map(char::to_lowercase).collect()
}

impl RolesConfig {
    /// What looks as if it gave a role to far more people than anybody meant, as sentences. A group is only known by
    /// its name here, so this warns and refuses nothing.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for (role, groups) in
            [("admin", &self.admin), ("approver", &self.approver), ("auditor", &self.auditor)]
        {
            for group in groups {
                let name = group.split_once('/').map_or(group.as_str(), |(_, name)| name);
                if EVERYONE.contains(&plain(name).as_str()) || name.contains('*') {
                    warnings.push(format!(
                        "roles.{role}: {group:?} reads like a group of everyone, each of whom is an {role} then: \
                         name a group of the people who are meant"
                    ));
                }
            }
        }
        warnings
    }
}

fn override_with(table: &mut toml::Table, key: &str, value: String) -> Result<(), ConfigError> {
    if key == "DATABASE_URL" {
        let database = table.entry("database").or_insert_with(|| toml::Table::new().into());
        if let Some(database) = database.as_table_mut() {
            database.insert("url".to_owned(), value.into());
        }
        return Ok(());
    }
    let Some(path) = key.strip_prefix(ENV_PREFIX) else {
        return Ok(());
    };
    let bad = |why: &str| ConfigError(vec![format!("{key}: {why}")]);
    let mut here = table;
    let mut steps = path.split("__").map(str::to_ascii_lowercase).peekable();
    while let Some(step) = steps.next() {
        if step.is_empty() {
            return Err(bad("name a section and a key, as in CORTEX__SERVER__LISTEN"));
        }
        if steps.peek().is_none() {
            here.insert(step, scalar(&value));
            return Ok(());
        }
        let next = here.entry(step).or_insert_with(|| toml::Table::new().into());
        here = next.as_table_mut().ok_or_else(|| bad("goes through a value that is no section"))?;
    }
    Ok(())
}

/// A value as TOML where it reads as such (numbers, booleans, lists), as text otherwise.
fn scalar(text: &str) -> toml::Value {
    let read = toml::from_str::<toml::Table>(&format!("v = {text}")).ok();
    read.and_then(|mut table| table.remove("v")).unwrap_or_else(|| toml::Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env<'a>(pairs: &'a [(&str, &str)]) -> impl Iterator<Item = (String, String)> + use<'a> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let error = Config::parse("cortex.toml", "[server]\nlisten = \"127.0.0.1:1\"\nlisen = 3\n", env(&[]));
        let text = error.unwrap_err().to_string();
        assert!(text.contains("line 3") && text.contains("lisen"), "{text}");
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let text = "[server]\nmax_body_bytes = 10\n";
        let pairs =
            [("CORTEX__SERVER__MAX_BODY_BYTES", "20"), ("DATABASE_URL", "postgres://x/y"), ("HOME", "/")];
        let config = Config::parse("cortex.toml", text, env(&pairs)).unwrap();
        assert_eq!(config.server.max_body_bytes, 20);
        assert_eq!(config.database.url.as_deref(), Some("postgres://x/y"));
    }

    #[test]
    fn a_mistyped_override_is_refused() {
        for (key, value) in [("CORTEX__SERVER__LISEN", "x"), ("CORTEX__SERVER", "x"), ("CORTEX____", "x")] {
            assert!(Config::parse("cortex.toml", "", env(&[(key, value)])).is_err(), "{key}");
        }
    }

    #[test]
    fn a_group_of_everyone_is_warned_about() {
        let roles =
            |group: &str| RolesConfig { admin: [format!("staff/{group}")].into(), ..Default::default() };
        for group in [
            "everyone",
            "Domain Users",
            "domain-users",
            "/Everyone",
            "all_users",
            "*",
            "cortex-*",
            "Users",
            "CN=Domain Users,OU=x,DC=acme",
            "employees",
        ] {
            assert_eq!(roles(group).warnings().len(), 1, "{group}");
        }
        for group in ["cortex-admins", "data-platform", "allstars", "/platform/cortex"] {
            assert_eq!(roles(group).warnings(), Vec::<String>::new(), "{group}");
        }
    }

    #[test]
    fn sign_in_names_an_issuer_of_people_and_a_client() {
        let issuers = "[[issuers]]\nname = \"staff\"\niss = \"https://login.example\"\nkind = \"person\"\n\
                       audience = \"cortex\"\n[[issuers]]\nname = \"prod\"\niss = \"https://airflow.example\"\n\
                       kind = \"run\"\naudience = \"cortex\"\n";
        let parse = |section: &str| Config::parse("c", &format!("[sign_in]\n{section}\n{issuers}"), env(&[]));
        assert!(parse("issuer = \"staff\"\nclient_id = \"console\"").is_ok());
        for section in [
            "issuer = \"staff\"",
            "client_id = \"console\"",
            "issuer = \"prod\"\nclient_id = \"console\"",
            "issuer = \"nobody\"\nclient_id = \"console\"",
            "issuer = \"staff\"\nclient_id = \"a b\"",
            "scopes = [\"email\"]",
            "session_ttl_s = 1",
            "idle_ttl_s = 86401",
            "client_secret_file = \"x\"",
        ] {
            assert!(parse(section).is_err(), "{section}");
        }
    }

    #[test]
    fn a_public_url_is_exact() {
        for url in ["http://cortex.example", "https://cortex.example/", "https://c.example?x=1", "cortex"] {
            let text = format!("[server]\npublic_url = {url:?}\n");
            assert!(Config::parse("cortex.toml", &text, env(&[])).is_err(), "{url}");
        }
        let text = "[server]\npublic_url = \"https://cortex.example/sts\"\n";
        assert!(Config::parse("cortex.toml", text, env(&[])).is_ok());
    }
}
