//! The AWS account of the sandbox: its roles, users and buckets.

use serde_json::{Value, json};

/// One AWS account.
#[derive(Debug, Clone)]
pub struct AwsConfig {
    pub(crate) account: String,
    pub(crate) audiences: Vec<String>,
    pub(crate) roles: Vec<Role>,
    pub(crate) users: Vec<User>,
    pub(crate) buckets: Vec<String>,
    /// Region and id.
    pub(crate) kms_keys: Vec<(String, String)>,
}

impl AwsConfig {
    /// An empty account. Cortex is registered in it as an OIDC provider with the audience
    /// `sts.amazonaws.com`.
    pub fn new(account: &str) -> Self {
        Self {
            account: account.to_owned(),
            audiences: vec!["sts.amazonaws.com".to_owned()],
            roles: Vec::new(),
            users: Vec::new(),
            buckets: Vec::new(),
            kms_keys: Vec::new(),
        }
    }

    /// The audiences that the OIDC provider accepts, instead of `sts.amazonaws.com`.
    pub fn audiences(mut self, audiences: &[&str]) -> Self {
        self.audiences = audiences.iter().map(|&text| text.to_owned()).collect();
        self
    }

    /// Adds a role.
    pub fn role(mut self, role: Role) -> Self {
        self.roles.push(role);
        self
    }

    /// Adds a user with a static key.
    pub fn user(mut self, user: User) -> Self {
        self.users.push(user);
        self
    }

    /// Adds a symmetric key to the KMS of a region: `arn:aws:kms:<region>:<account>:key/<id>`.
    pub fn kms_key(mut self, region: &str, id: &str) -> Self {
        self.kms_keys.push((region.to_owned(), id.to_owned()));
        self
    }

    /// Adds an empty bucket.
    pub fn bucket(mut self, name: &str) -> Self {
        self.buckets.push(name.to_owned());
        self
    }
}

/// Whom a role's trust policy lets in.
#[derive(Debug, Clone)]
pub(crate) enum Trust {
    /// Cortex's tokens, with the conditions that a careful installation has.
    Cortex { audience: String, subjects: String },
    /// A user, with an external id.
    User { name: String, external_id: String },
    /// A trust policy as it is.
    Document(Value),
}

impl Trust {
    /// The trust policy as a document, for the issuer without its scheme.
    pub(crate) fn document(&self, account: &str, issuer: &str) -> Value {
        match self {
            Self::Cortex { audience, subjects } => {
                let mut equals = serde_json::Map::new();
                equals.insert(format!("{issuer}:aud"), audience.clone().into());
                let mut like = serde_json::Map::new();
                like.insert(format!("{issuer}:sub"), subjects.clone().into());
                like.insert("aws:RequestTag/lease".to_owned(), "?*".into());
                json!({"Version": "2012-10-17", "Statement": [{
                    "Effect": "Allow",
                    "Principal": {"Federated": format!("arn:aws:iam::{account}:oidc-provider/{issuer}")},
                    "Action": ["sts:AssumeRoleWithWebIdentity", "sts:TagSession", "sts:SetSourceIdentity"],
                    "Condition": {
                        "StringEquals": equals,
                        "StringLike": like,
                        "Bool": {"sts:RoleAuthorizedByIdp": "true"},
                    },
                }]})
            }
            Self::User { name, external_id } => json!({"Version": "2012-10-17", "Statement": [{
                "Effect": "Allow",
                "Principal": {"AWS": format!("arn:aws:iam::{account}:user/{name}")},
                "Action": ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"],
                "Condition": {
                    "StringEquals": {"sts:ExternalId": external_id},
                    "StringLike": {"aws:RequestTag/lease": "?*"},
                },
            }]}),
            Self::Document(document) => document.clone(),
        }
    }
}

/// A role that can be assumed.
#[derive(Debug, Clone)]
pub struct Role {
    pub(crate) name: String,
    pub(crate) trust: Vec<Trust>,
    pub(crate) policies: Vec<(String, Value)>,
    pub(crate) max_session_s: u32,
}

impl Role {
    /// A role that trusts nobody and may do nothing; sessions of at most 3,600 seconds, as AWS has it.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), trust: Vec::new(), policies: Vec::new(), max_session_s: 3_600 }
    }

    /// Trusts Cortex's tokens of this audience whose `sub` fits the glob `subjects`, if they carry the
    /// session tag `lease` and are pinned to this role.
    pub fn trust_cortex(mut self, audience: &str, subjects: &str) -> Self {
        self.trust.push(Trust::Cortex { audience: audience.to_owned(), subjects: subjects.to_owned() });
        self
    }

    /// Trusts a user of the account who knows the external id and tags the session with `lease`.
    pub fn trust_user(mut self, name: &str, external_id: &str) -> Self {
        self.trust.push(Trust::User { name: name.to_owned(), external_id: external_id.to_owned() });
        self
    }

    /// Trusts whom this trust policy names.
    pub fn trust_policy(mut self, document: Value) -> Self {
        self.trust.push(Trust::Document(document));
        self
    }

    /// Adds an inline policy.
    pub fn policy(mut self, name: &str, document: Value) -> Self {
        self.policies.push((name.to_owned(), document));
        self
    }

    /// Adds an inline policy that allows `actions` on `resources`.
    pub fn allow(self, actions: &[&str], resources: &[&str]) -> Self {
        let name = format!("allow-{}", self.policies.len() + 1);
        let statement = json!([{"Effect": "Allow", "Action": actions, "Resource": resources}]);
        self.policy(&name, json!({"Version": "2012-10-17", "Statement": statement}))
    }

    /// The longest session, in seconds: 3,600 to 43,200.
    pub fn max_session_s(mut self, seconds: u32) -> Self {
        self.max_session_s = seconds.clamp(3_600, 43_200);
        self
    }
}

/// A user with a static key.
#[derive(Debug, Clone)]
pub struct User {
    pub(crate) name: String,
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
    pub(crate) policies: Vec<Value>,
}

impl User {
    /// A user who may do nothing. The key is for the sandbox alone: anybody may read it in its source.
    pub fn new(name: &str, access_key_id: &str, secret_access_key: &str) -> Self {
        Self {
            name: name.to_owned(),
            access_key_id: access_key_id.to_owned(),
            secret_access_key: secret_access_key.to_owned(),
            policies: Vec::new(),
        }
    }

    /// Adds a policy that allows `actions` on `resources`.
    pub fn allow(mut self, actions: &[&str], resources: &[&str]) -> Self {
        let statement = json!([{"Effect": "Allow", "Action": actions, "Resource": resources}]);
        self.policies.push(json!({"Version": "2012-10-17", "Statement": statement}));
        self
    }
}
