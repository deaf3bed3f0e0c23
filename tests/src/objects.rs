//! A bucket for the log: the sandbox's S3, which checks signatures and conditions. It lives by the machine's clock, as
//! whoever signs requests to it does.

use std::sync::Arc;

use cortex_core::clock::SystemClock;
use cortex_sandbox::{Cloud, Fault, FaultMode, Sandbox, SandboxConfig, User};
use cortex_server::log::{LogConfig, ObjectStoreConfig};
use tempfile::TempDir;

const KEY: &str = "AKIASANDBOXLOG000001";
const SECRET: &str = "sandbox/log";

/// The bucket `cortex-log`, and the key of its one user.
pub struct Objects {
    sandbox: Sandbox,
    folder: TempDir,
}

impl Objects {
    /// An empty bucket.
    pub async fn start() -> Self {
        let mut config = SandboxConfig::demo("http://127.0.0.1:1".to_owned(), Arc::new(SystemClock));
        let all = ["arn:aws:s3:::cortex-log", "arn:aws:s3:::cortex-log/*"];
        config.aws =
            config.aws.bucket("cortex-log").user(User::new("cortex-log", KEY, SECRET).allow(&["s3:*"], &all));
        let sandbox = Sandbox::start(config).await.expect("a store");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("secret"), format!("{SECRET}\n")).expect("a file");
        Self { sandbox, folder }
    }

    /// How it is reached.
    pub fn config(&self) -> ObjectStoreConfig {
        ObjectStoreConfig {
            endpoint: Some(self.sandbox.aws_url().to_owned()),
            region: Some("eu-west-3".to_owned()),
            access_key_id: Some(KEY.to_owned()),
            secret_access_key_file: Some(self.folder.path().join("secret")),
            timeout_s: 2,
        }
    }

    /// The log's anchor is kept here.
    pub fn anchor(&self, config: &mut LogConfig) {
        config.object_store = self.config();
        config.anchor_url = Some("s3://cortex-log/prod".to_owned());
    }

    /// From now on, an operation goes wrong like this, so many times.
    pub fn fault(&self, operation: &str, mode: FaultMode, remaining: Option<u32>) {
        let operation = Some(operation.to_owned());
        self.sandbox.fault(Cloud::Aws, Fault { operation, mode, remaining });
    }

    /// All is well again.
    pub fn clear_faults(&self) {
        self.sandbox.clear_faults();
    }
}
