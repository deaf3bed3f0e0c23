//! The Snowflake account of the sandbox: its External OAuth integration and its users.

use std::collections::BTreeSet;

/// Roles that External OAuth never opens unless an account says so.
const BLOCKED_BY_DEFAULT: &[&str] = &["ACCOUNTADMIN", "ORGADMIN", "GLOBALORGADMIN", "SECURITYADMIN"];

/// One Snowflake account that trusts Cortex.
#[derive(Debug, Clone)]
pub struct SnowflakeConfig {
    pub(crate) account: String,
    pub(crate) audiences: BTreeSet<String>,
    pub(crate) blocked_roles: BTreeSet<String>,
    pub(crate) users: Vec<SnowflakeUser>,
}

impl SnowflakeConfig {
    /// An account without users, such as `acme-prod`; its own URL is an accepted audience.
    pub fn new(account: &str) -> Self {
        let host = account.to_ascii_lowercase().replace('_', "-");
        Self {
            account: account.to_owned(),
            audiences: BTreeSet::from([format!("https://{host}.snowflakecomputing.com")]),
            blocked_roles: BLOCKED_BY_DEFAULT.iter().map(|&role| role.to_owned()).collect(),
            users: Vec::new(),
        }
    }

    /// Accepts one more audience in External OAuth, as `EXTERNAL_OAUTH_AUDIENCE_LIST` does.
    pub fn audience(mut self, audience: &str) -> Self {
        self.audiences.insert(audience.to_owned());
        self
    }

    /// Blocks one more role, as `EXTERNAL_OAUTH_BLOCKED_ROLES_LIST` does.
    pub fn block_role(mut self, role: &str) -> Self {
        self.blocked_roles.insert(role.to_owned());
        self
    }

    /// Adds a user.
    pub fn user(mut self, user: SnowflakeUser) -> Self {
        self.users.push(user);
        self
    }
}

/// A user and how they may log in.
#[derive(Debug, Clone)]
pub struct SnowflakeUser {
    pub(crate) name: String,
    pub(crate) roles: Vec<String>,
    pub(crate) disabled: bool,
    /// Subjects of OIDC workload identities.
    pub(crate) subjects: Vec<String>,
    pub(crate) keys: Keys,
}

/// The public keys of a user's key-pair login.
#[derive(Debug, Clone, Default)]
pub(crate) struct Keys {
    /// `SubjectPublicKeyInfo`, DER.
    pub(crate) registered: Vec<Vec<u8>>,
    /// Those that Cortex publishes count as registered.
    pub(crate) cortex: bool,
}

impl SnowflakeUser {
    /// A user without roles, who can log in with nothing but an External OAuth token. The name is in upper
    /// case, as Snowflake keeps it.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            roles: Vec::new(),
            disabled: false,
            subjects: Vec::new(),
            keys: Keys::default(),
        }
    }

    /// Grants a role; the first one is the default.
    pub fn role(mut self, role: &str) -> Self {
        self.roles.push(role.to_owned());
        self
    }

    /// Adds a workload identity of Cortex with this exact `sub`; its audience is `snowflakecomputing.com`.
    pub fn workload_identity(mut self, subject: &str) -> Self {
        self.subjects.push(subject.to_owned());
        self
    }

    /// Registers a public key for key-pair login, as DER of its `SubjectPublicKeyInfo`.
    pub fn rsa_public_key(mut self, spki: Vec<u8>) -> Self {
        self.keys.registered.push(spki);
        self
    }

    /// Takes the keys that Cortex publishes as registered for key-pair login, as an operator would keep them.
    pub fn cortex_keys(mut self) -> Self {
        self.keys.cortex = true;
        self
    }

    /// Lets the user log in no more.
    pub fn disabled(mut self) -> Self {
        self.disabled = true;
        self
    }
}
