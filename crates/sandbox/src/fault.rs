//! Faults on demand: how clouds fail, at the moment at which it hurts.

use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::ledger::Cloud;

/// How an operation goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultMode {
    /// Answers, but only after so many milliseconds.
    Delay(u64),
    /// Refuses as the cloud does when it is called too often.
    Throttle,
    /// Answers 503.
    Down,
    /// Closes the connection without an answer, before anything is done.
    Reset,
    /// Mints, or changes what was asked, then closes the connection without an answer.
    FailAfterMint,
    /// Mints, or changes what was asked, then never answers.
    HangAfterMint,
    /// Says an expiry that is twice as far away as it should be.
    LongerExpiry,
    /// Names another role or principal than the one that was asked for.
    OtherArn,
    /// Names another account than the one that was asked for.
    OtherAccount,
    /// Answers as if all were well but leaves the secret out.
    MissingToken,
    /// Answers 200 and bytes that mean nothing.
    Garbage,
    /// Answers 200 and two mebibytes.
    Huge,
    /// Sends the caller elsewhere, where an answer waits.
    Redirect,
}

/// One fault, armed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The operation that it strikes, such as `AssumeRoleWithWebIdentity`; none: every operation, or for a
    /// mode about minting every operation that mints.
    #[serde(default)]
    pub operation: Option<String>,
    /// How it goes wrong.
    pub mode: FaultMode,
    /// How many times it strikes; none: until it is cleared.
    #[serde(default)]
    pub remaining: Option<u32>,
}

/// What an operation does to the answer itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Twist {
    LongerExpiry,
    OtherArn,
    OtherAccount,
    MissingToken,
}

impl FaultMode {
    /// The part of the fault that the cloud itself has to act.
    pub(crate) fn twist(self) -> Option<Twist> {
        match self {
            Self::LongerExpiry => Some(Twist::LongerExpiry),
            Self::OtherArn => Some(Twist::OtherArn),
            Self::OtherAccount => Some(Twist::OtherAccount),
            Self::MissingToken => Some(Twist::MissingToken),
            Self::Delay(_)
            | Self::Throttle
            | Self::Down
            | Self::Reset
            | Self::FailAfterMint
            | Self::HangAfterMint
            | Self::Garbage
            | Self::Huge
            | Self::Redirect => None,
        }
    }

    /// Whether it strikes once the cloud has done what was asked.
    pub(crate) fn is_after(self) -> bool {
        matches!(self, Self::FailAfterMint | Self::HangAfterMint)
    }

    fn is_about_minting(self) -> bool {
        self.twist().is_some() || self.is_after()
    }
}

/// The most faults that can be armed at once; further ones replace the oldest.
const CAPACITY: usize = 100;

/// The armed faults of every cloud; the first that fits strikes.
#[derive(Debug, Default)]
pub(crate) struct Faults(Mutex<Vec<(Cloud, Fault)>>);

impl Faults {
    pub(crate) fn arm(&self, cloud: Cloud, fault: Fault) {
        let mut armed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if armed.len() == CAPACITY {
            armed.remove(0);
        }
        armed.push((cloud, fault));
    }

    /// Disarms the faults of `cloud`; none: all of them.
    pub(crate) fn clear(&self, cloud: Option<Cloud>) {
        let mut armed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        armed.retain(|(of, _)| cloud.is_some_and(|cloud| cloud != *of));
    }

    /// The fault that strikes this call, if one does; it is used up by that.
    pub(crate) fn take(&self, cloud: Cloud, operation: &str, mints: bool) -> Option<FaultMode> {
        let mut armed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |(of, fault): &(Cloud, Fault)| {
            *of == cloud
                && fault.operation.as_deref().is_none_or(|wanted| wanted == operation)
                && (mints || !fault.mode.is_about_minting())
                && fault.remaining != Some(0)
        };
        let index = armed.iter().position(fits)?;
        let (_, fault) = armed.get_mut(index)?;
        let mode = fault.mode;
        if let Some(remaining) = &mut fault.remaining {
            *remaining -= 1;
            if *remaining == 0 {
                armed.remove(index);
            }
        }
        Some(mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(operation: Option<&str>, mode: FaultMode, remaining: Option<u32>) -> Fault {
        Fault { operation: operation.map(ToOwned::to_owned), mode, remaining }
    }

    #[test]
    fn a_fault_strikes_its_operation_as_often_as_it_says() {
        let faults = Faults::default();
        faults.arm(Cloud::Aws, fault(Some("AssumeRole"), FaultMode::Throttle, Some(2)));
        assert_eq!(faults.take(Cloud::Google, "AssumeRole", true), None);
        assert_eq!(faults.take(Cloud::Aws, "PutObject", false), None);
        assert_eq!(faults.take(Cloud::Aws, "AssumeRole", true), Some(FaultMode::Throttle));
        assert_eq!(faults.take(Cloud::Aws, "AssumeRole", true), Some(FaultMode::Throttle));
        assert_eq!(faults.take(Cloud::Aws, "AssumeRole", true), None);
    }

    #[test]
    fn a_fault_about_minting_waits_for_a_mint() {
        let faults = Faults::default();
        faults.arm(Cloud::Aws, fault(None, FaultMode::FailAfterMint, Some(1)));
        assert_eq!(faults.take(Cloud::Aws, "GetCallerIdentity", false), None);
        assert_eq!(faults.take(Cloud::Aws, "AssumeRole", true), Some(FaultMode::FailAfterMint));
    }

    #[test]
    fn clearing_one_cloud_leaves_the_others() {
        let faults = Faults::default();
        faults.arm(Cloud::Aws, fault(None, FaultMode::Down, None));
        faults.arm(Cloud::Google, fault(None, FaultMode::Down, None));
        faults.clear(Some(Cloud::Aws));
        assert_eq!(faults.take(Cloud::Aws, "x", true), None);
        assert_eq!(faults.take(Cloud::Google, "x", true), Some(FaultMode::Down));
    }

    #[test]
    fn a_fault_reads_as_json() {
        let read: Fault = serde_json::from_str(r#"{"mode":{"delay":20},"remaining":1}"#).unwrap();
        assert_eq!(read, fault(None, FaultMode::Delay(20), Some(1)));
        let read: Fault = serde_json::from_str(r#"{"operation":"token","mode":"hang_after_mint"}"#).unwrap();
        assert_eq!(read, fault(Some("token"), FaultMode::HangAfterMint, None));
        assert!(serde_json::from_str::<Fault>(r#"{"mode":"down","remainig":1}"#).is_err());
    }
}
