//! Which key of a KMS wraps the key files.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::KmsKey;
use crate::config::{CallLimits, Faults};

/// The KMS that wraps the two key files.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KmsConfig {
    /// The key that wraps `keys.encryption_key_file` and `log.key_file`: the ARN of a symmetric key of AWS KMS
    /// (`arn:aws:kms:<region>:<account>:key/<id>`), or the name of one of Google Cloud KMS
    /// (`projects/<project>/locations/<location>/keyRings/<ring>/cryptoKeys/<key>`). Default none: the files hold their
    /// keys as they are. With one, a file that does is refused; `cortex keys wrap` wraps it.
    pub key: Option<KmsKey>,
    /// Where the KMS is, such as a VPC endpoint: https, or http to loopback. Default: the cloud's own address, for AWS that
    /// of the key's region.
    pub endpoint: Option<String>,
    /// Deadlines and retries of calls to the KMS. It is asked at a start, once for each file.
    pub calls: CallLimits,
}

impl KmsConfig {
    /// What cannot work, each in one sentence that names the option.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Faults::of("kms");
        faults.endpoint("endpoint", self.endpoint.as_ref());
        let used = self.key.is_some() || self.endpoint.is_none();
        faults.unless(used, "endpoint", "is of no use without kms.key: name the key, or remove it");
        faults.calls("calls", &self.calls);
        faults.said()
    }
}
