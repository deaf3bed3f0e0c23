//! What the command finds: variables of its environment, and files in the private folder.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use serde_json::json;

use super::endpoint::Endpoint;
use super::folder::Folder;
use super::held::{Absent, Held};
use super::renewal::Teller;
use crate::ask::Credential;
use crate::error::Error;

/// The targets that a command can be given.
pub(super) const TARGETS: [&str; 4] = ["api", "aws", "bigquery", "snowflake"];

/// The targets whose users read a token from a file, and the file.
const TOKEN_FILES: [(&str, &str); 2] = [("api", "api.token"), ("snowflake", "snowflake.token")];

/// What AWS's clients would take before the container endpoint, or beside it.
const HIDDEN_AWS: [&str; 13] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_CREDENTIAL_EXPIRATION",
    "AWS_ACCOUNT_ID",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
];

/// What Snowflake's clients would take before the connection, or beside it.
const HIDDEN_SNOWFLAKE: [&str; 8] = [
    "SNOWFLAKE_PASSWORD",
    "SNOWFLAKE_TOKEN",
    "SNOWFLAKE_PRIVATE_KEY_PATH",
    "SNOWFLAKE_PRIVATE_KEY_FILE",
    "SNOWFLAKE_PRIVATE_KEY_RAW",
    "SNOWFLAKE_CONNECTIONS",
    "SNOWFLAKE_DEFAULT_CONNECTION_NAME",
    "SNOWFLAKE_OAUTH_CLIENT_SECRET",
];

/// The environment of the command, as changes to ours.
#[derive(Default)]
pub(super) struct Given {
    /// What is set.
    pub(super) set: BTreeMap<String, String>,
    /// What is taken away.
    pub(super) hidden: Vec<&'static str>,
}

impl Given {
    /// Writes the files and says what to set.
    pub(super) fn prepare(
        policy: &str,
        credentials: &BTreeMap<String, Credential>,
        endpoint: &Endpoint,
        folder: &Folder,
    ) -> Result<Self, Error> {
        // A person's token is not the run's to have.
        let mut given = Self { hidden: vec!["CORTEX_TOKEN", "CORTEX_TOKEN_FILE"], ..Self::default() };
        given.bypass_proxy();
        for (target, credential) in credentials {
            match target.as_str() {
                "aws" => given.aws(credential, endpoint, folder)?,
                "bigquery" => given.google(policy, credential, endpoint, folder)?,
                "snowflake" => given.snowflake(credential, folder)?,
                "api" => given.set("CORTEX_API_TOKEN_FILE", &text(&folder.file("api.token"))),
                _ => {}
            }
        }
        for (target, file) in TOKEN_FILES {
            if let Some(credential) = credentials.get(target) {
                folder.write(file, &credential.token()?)?;
            }
        }
        Ok(given)
    }

    fn set(&mut self, name: &str, value: &str) {
        self.set.insert(name.to_owned(), value.to_owned());
    }

    /// Clients take proxies from the environment, and a proxy must not see what goes to the endpoint.
    fn bypass_proxy(&mut self) {
        for name in ["no_proxy", "NO_PROXY"] {
            let hosts = std::env::var(name).unwrap_or_default();
            let others = hosts.split(',').filter(|host| !host.is_empty() && *host != "127.0.0.1");
            let hosts: Vec<&str> = others.chain(["127.0.0.1"]).collect();
            self.set(name, &hosts.join(","));
        }
    }

    fn aws(&mut self, credential: &Credential, endpoint: &Endpoint, folder: &Folder) -> Result<(), Error> {
        self.hidden.extend(HIDDEN_AWS);
        self.set("AWS_CONTAINER_CREDENTIALS_FULL_URI", &endpoint.url("/aws"));
        self.set("AWS_CONTAINER_AUTHORIZATION_TOKEN", endpoint.key());
        // A profile of this machine would win; and where ours is over, no other identity may take its place.
        folder.write("aws-config", "")?;
        self.set("AWS_CONFIG_FILE", &text(&folder.file("aws-config")));
        self.set("AWS_SHARED_CREDENTIALS_FILE", &text(&folder.file("aws-config")));
        self.set("AWS_EC2_METADATA_DISABLED", "true");
        let region = ["AWS_REGION", "AWS_DEFAULT_REGION"].iter().find_map(|name| std::env::var(name).ok());
        if let Some(region) = region.as_deref().or(credential.field("region")) {
            self.set("AWS_REGION", region);
            self.set("AWS_DEFAULT_REGION", region);
        }
        Ok(())
    }

    fn google(
        &mut self,
        policy: &str,
        credential: &Credential,
        endpoint: &Endpoint,
        folder: &Folder,
    ) -> Result<(), Error> {
        let account = json!({
            "type": "external_account",
            "audience": format!("urn:cortex:{policy}:bigquery"),
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": endpoint.url("/google/token"),
            "credential_source": {
                "url": endpoint.url("/google/subject"),
                "headers": {"Authorization": format!("Bearer {}", endpoint.key())},
            },
        });
        folder.write("google.json", &account.to_string())?;
        self.set("GOOGLE_APPLICATION_CREDENTIALS", &text(&folder.file("google.json")));
        if let Some(project) = credential.field("project") {
            self.set("GOOGLE_CLOUD_PROJECT", project);
        }
        Ok(())
    }

    fn snowflake(&mut self, credential: &Credential, folder: &Folder) -> Result<(), Error> {
        self.hidden.extend(HIDDEN_SNOWFLAKE);
        let token_file = text(&folder.file("snowflake.token"));
        let field = |name: &str| credential.field(name).unwrap_or_default().to_owned();
        let authenticator = field("authenticator");
        let connection = Connection {
            account: field("account"),
            user: field("user"),
            role: field("role"),
            host: field("host"),
            workload_identity_provider: (authenticator == "WORKLOAD_IDENTITY").then_some("OIDC"),
            authenticator,
            token_file_path: token_file,
        };
        for (name, value) in [
            ("SNOWFLAKE_ACCOUNT", &connection.account),
            ("SNOWFLAKE_USER", &connection.user),
            ("SNOWFLAKE_ROLE", &connection.role),
            ("SNOWFLAKE_HOST", &connection.host),
            ("SNOWFLAKE_AUTHENTICATOR", &connection.authenticator),
            ("SNOWFLAKE_TOKEN_FILE_PATH", &connection.token_file_path),
        ] {
            self.set(name, value);
        }
        let connections = BTreeMap::from([("default", connection)]);
        let toml = toml::to_string(&connections).map_err(|error| Error::Said(error.to_string()))?;
        folder.write("connections.toml", &toml)?;
        self.set("SNOWFLAKE_HOME", &text(folder.path()));
        Ok(())
    }
}

/// A connection of Snowflake's clients, in their words.
#[derive(Serialize)]
struct Connection {
    account: String,
    user: String,
    role: String,
    host: String,
    authenticator: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    workload_identity_provider: Option<&'static str>,
    token_file_path: String,
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Brings the token files up to date with what is held.
pub(super) fn refresh(folder: &Folder, held: &Held, teller: &mut Teller) {
    for (target, file) in TOKEN_FILES {
        match held.credential(target) {
            Ok(credential) => {
                let written = credential.token().and_then(|token| folder.write(file, &token));
                if let Err(error) = written {
                    teller.tell(&format!("{target}: the token file was not renewed: {error}"));
                }
            }
            Err(Absent::Over(_) | Absent::Ended) => folder.take_back(file),
        }
    }
}

/// Takes back the token files whose token has ended.
pub(super) fn remove_ended(folder: &Folder, held: &Held) {
    for (target, file) in TOKEN_FILES {
        if held.credential(target).is_err() {
            folder.take_back(file);
        }
    }
}
