//! What a policy says to one ask: permit, ask a human, or deny; always with the rules that decided.

use serde::{Deserialize, Serialize};

/// Which part of a policy, or what above it, decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clause {
    /// The policy does not name this principal.
    Who,
    /// The policy, or the provider's ceiling, does not offer what is asked.
    What,
    /// The caller's network.
    Where,
    /// The time of day, the day or the lifetime.
    When,
    /// The way in which the run's identity was proven.
    Attestation,
    /// A human has to approve.
    Approval,
    /// An organisation-wide forbid.
    Guardrail,
    /// An admin has stopped it for now.
    Freeze,
    /// A rule could not be evaluated: denied, because an unreadable forbid must not become a permit.
    Error,
}

/// One rule that decided, in words for the person who is denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// The rule's id: `finance-data-publish#when`, or a guardrail's `@id`.
    pub rule: String,
    /// The part of the policy that it stands for.
    pub clause: Clause,
    /// What is the case, in one sentence.
    pub message: String,
    /// What to do about it, in one sentence.
    pub remedy: String,
}

/// A policy's answer to one ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Decision {
    /// Go on and mint.
    Permit {
        /// The ids of the rules that permit it.
        rules: Vec<String>,
    },
    /// Everything fits but a human has to approve.
    NeedsGrant {
        /// The ids of the rules that want the approval.
        rules: Vec<String>,
    },
    /// No.
    Deny {
        /// Whether the policy's `who` names the principal: only then may the caller be told the reasons.
        named: bool,
        /// Every rule that denied, never empty.
        reasons: Vec<Reason>,
    },
}
