//! The Google side of the sandbox: a workload identity pool, service accounts, projects and datasets.

use std::collections::BTreeMap;

/// Everything that Google is configured with.
#[derive(Debug, Clone)]
pub struct GoogleConfig {
    pub(crate) pools: Vec<WorkloadPool>,
    pub(crate) service_accounts: Vec<ServiceAccount>,
    pub(crate) job_users: Vec<(String, Member)>,
    pub(crate) datasets: Vec<Dataset>,
    pub(crate) deny_admins: Vec<Member>,
    pub(crate) crypto_keys: Vec<(String, Vec<Member>)>,
    pub(crate) machine: Option<String>,
}

impl GoogleConfig {
    /// A Google that trusts one pool and holds nothing.
    pub fn new(pool: WorkloadPool) -> Self {
        Self {
            pools: vec![pool],
            service_accounts: Vec::new(),
            job_users: Vec::new(),
            datasets: Vec::new(),
            deny_admins: Vec::new(),
            crypto_keys: Vec::new(),
            machine: None,
        }
    }

    /// Adds a pool.
    pub fn pool(mut self, pool: WorkloadPool) -> Self {
        self.pools.push(pool);
        self
    }

    /// Adds a service account.
    pub fn service_account(mut self, account: ServiceAccount) -> Self {
        self.service_accounts.push(account);
        self
    }

    /// Lets `member` run queries in `project`, as `roles/bigquery.jobUser` does.
    pub fn job_user(mut self, project: &str, member: Member) -> Self {
        self.job_users.push((project.to_owned(), member));
        self
    }

    /// Lets `member` write the deny policies of every project, as `roles/iam.denyAdmin` does.
    pub fn deny_admin(mut self, member: Member) -> Self {
        self.deny_admins.push(member);
        self
    }

    /// Adds a key to Cloud KMS, by its resource name, that `users` may encrypt and decrypt with.
    pub fn crypto_key(mut self, name: &str, users: &[Member]) -> Self {
        self.crypto_keys.push((name.to_owned(), users.to_vec()));
        self
    }

    /// Lets the metadata server give tokens of this service account to whoever asks it.
    pub fn machine(mut self, email: &str) -> Self {
        self.machine = Some(email.to_owned());
        self
    }

    /// Adds a dataset.
    pub fn dataset(mut self, dataset: Dataset) -> Self {
        self.datasets.push(dataset);
        self
    }
}

/// A workload identity pool with its one OIDC provider, which trusts Cortex.
#[derive(Debug, Clone)]
pub struct WorkloadPool {
    pub(crate) project_number: u64,
    pub(crate) pool: String,
    pub(crate) provider: String,
    pub(crate) allowed_audiences: Vec<String>,
    /// From `google.subject` or `attribute.x` to the claim: `assertion.sub`.
    pub(crate) mapping: BTreeMap<String, String>,
}

impl WorkloadPool {
    /// A pool whose provider maps `google.subject` from `sub` and `attribute.grant` from `grant`, and takes its
    /// own resource name as the audience.
    pub fn new(project_number: u64, pool: &str, provider: &str) -> Self {
        let mapping = [("google.subject", "assertion.sub"), ("attribute.grant", "assertion.grant")];
        Self {
            project_number,
            pool: pool.to_owned(),
            provider: provider.to_owned(),
            allowed_audiences: Vec::new(),
            mapping: mapping.map(|(to, from)| (to.to_owned(), from.to_owned())).into(),
        }
    }

    /// Accepts this audience instead of its own resource name.
    pub fn allow_audience(mut self, audience: &str) -> Self {
        self.allowed_audiences.push(audience.to_owned());
        self
    }

    /// Maps a claim, given as `assertion.name`, to `google.subject` or `attribute.x`.
    pub fn map(mut self, to: &str, from: &str) -> Self {
        self.mapping.insert(to.to_owned(), from.to_owned());
        self
    }

    /// The `audience` of the token exchange: `//iam.googleapis.com/projects/…/providers/…`.
    pub fn audience(&self) -> String {
        format!("{}/providers/{}", self.resource(), self.provider)
    }

    /// Everybody in this pool with this value of `attribute.grant`.
    pub fn grant(&self, value: &str) -> Member {
        let pool = self.resource();
        Member(format!("principalSet:{pool}/attribute.grant/{value}"))
    }

    /// One subject of this pool.
    pub fn subject(&self, subject: &str) -> Member {
        Member(self.subject_name(subject))
    }

    pub(crate) fn subject_name(&self, subject: &str) -> String {
        format!("principal:{}/subject/{subject}", self.resource())
    }

    pub(crate) fn attribute_name(&self, name: &str, value: &str) -> String {
        format!("principalSet:{}/attribute.{name}/{value}", self.resource())
    }

    fn resource(&self) -> String {
        let (number, pool) = (self.project_number, &self.pool);
        format!("//iam.googleapis.com/projects/{number}/locations/global/workloadIdentityPools/{pool}")
    }
}

/// A member of an IAM binding, as Google writes it: `principalSet://…`, `principal://…`, `serviceAccount:…`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member(pub(crate) String);

impl Member {
    /// A service account.
    pub fn service_account(email: &str) -> Self {
        Self(format!("serviceAccount:{email}"))
    }

    /// The member as Google writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A service account and who may act as it.
#[derive(Debug, Clone)]
pub struct ServiceAccount {
    pub(crate) email: String,
    pub(crate) users: Vec<Member>,
}

impl ServiceAccount {
    /// A service account that nobody may act as.
    pub fn new(email: &str) -> Self {
        Self { email: email.to_owned(), users: Vec::new() }
    }

    /// Binds `member` with `roles/iam.workloadIdentityUser`.
    pub fn workload_identity_user(mut self, member: Member) -> Self {
        self.users.push(member);
        self
    }
}

/// A dataset and who may read and write it.
#[derive(Debug, Clone)]
pub struct Dataset {
    pub(crate) project: String,
    pub(crate) id: String,
    pub(crate) readers: Vec<Member>,
    pub(crate) writers: Vec<Member>,
    pub(crate) tables: Vec<String>,
}

impl Dataset {
    /// A dataset that nobody may use.
    pub fn new(project: &str, id: &str) -> Self {
        Self {
            project: project.to_owned(),
            id: id.to_owned(),
            readers: Vec::new(),
            writers: Vec::new(),
            tables: Vec::new(),
        }
    }

    /// Binds `member` as `READER`.
    pub fn reader(mut self, member: Member) -> Self {
        self.readers.push(member);
        self
    }

    /// Binds `member` as `WRITER`, who may read as well.
    pub fn writer(mut self, member: Member) -> Self {
        self.writers.push(member);
        self
    }

    /// Adds an empty table.
    pub fn table(mut self, id: &str) -> Self {
        self.tables.push(id.to_owned());
        self
    }
}
