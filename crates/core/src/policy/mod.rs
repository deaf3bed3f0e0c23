//! Being written.

/// One fault in a policy's target, found when the policy is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetProblem {
    /// Where, as a JSON pointer (RFC 6901) within the target: `/allow/0/resources/1`; empty for the target.
    pub pointer: String,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to write instead, in one sentence.
    pub remedy: String,
}
