//! Who may decide on a grant, and what their decision makes of it.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::{Approval, Asked, Grant, State};
use crate::principal::{Person, Principal, SignIn};

/// The authentication method that says "more than one factor" (RFC 8176, section 2).
const MFA: &str = "mfa";

/// What holds for every approver.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// Whether a group may be named without its issuer: there is one issuer of people only.
    pub bare_groups: bool,
    /// How they have to have signed in.
    pub sign_in: &'a SignInRules,
    /// Who put the policy's version in force, as principal.
    pub author: &'a str,
    /// Whether that person may be the only approver.
    pub author_may_approve: bool,
}

/// How approvers have to have signed in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SignInRules {
    /// What proves that they used more than one factor, wherever that is demanded.
    pub proof: MfaProof,
    /// How long ago they may have shown their credentials; none: any time.
    pub max_age: Option<SignedDuration>,
}

/// What proves a sign-in with more than one factor: one of the methods, or one of the context classes. With neither,
/// nothing is demanded of everybody, and the method `mfa` is what a policy's `mfa: true` demands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MfaProof {
    /// Methods (`amr`), one of which is enough.
    pub amr: BTreeSet<String>,
    /// Context classes (`acr`), one of which is enough.
    pub acr: BTreeSet<String>,
}

impl MfaProof {
    /// Whether every approver needs it, whatever the policy says.
    fn is_demanded(&self) -> bool {
        !self.amr.is_empty() || !self.acr.is_empty()
    }

    fn is_met(&self, sign_in: &SignIn) -> bool {
        if !self.is_demanded() {
            return sign_in.amr.contains(MFA);
        }
        !self.amr.is_disjoint(&sign_in.amr) || sign_in.acr.as_ref().is_some_and(|acr| self.acr.contains(acr))
    }
}

/// Why a person may not decide on a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAllowed {
    /// The policy names others.
    #[error("the policy names other approvers")]
    NotAnApprover,
    /// They started the run, or made the request, themselves.
    #[error("nobody approves a run that they started or a request that they made themselves")]
    OwnRequest,
    /// They wrote the policy.
    #[error("you put this version of the policy in force, so somebody else has to approve what it asks for")]
    OwnPolicy,
    /// They decided before, perhaps with another account.
    #[error("you have decided on this grant before; two accounts of one person are one approver")]
    Again,
    /// They signed in with one factor.
    #[error("this approval needs a sign-in with more than one factor: sign in again with MFA")]
    NeedsMfa,
    /// They signed in too long ago.
    #[error("this approval needs a recent sign-in: sign in again")]
    SignInTooOld,
}

impl NotAllowed {
    /// A name for programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::NotAnApprover => "not-an-approver",
            Self::OwnRequest => "own-request",
            Self::OwnPolicy => "own-policy",
            Self::Again => "decided-before",
            Self::NeedsMfa => "mfa-required",
            Self::SignInTooOld => "sign-in-too-old",
        }
    }
}

impl Grant {
    /// Whether `person` may approve or deny this at `now`, and has not yet.
    pub fn may_decide(&self, person: &Person, rules: &Rules<'_>, now: Timestamp) -> Result<(), NotAllowed> {
        if !self.is_named(person, rules.bare_groups) {
            return Err(NotAllowed::NotAnApprover);
        }
        if self.is_own(person) {
            return Err(NotAllowed::OwnRequest);
        }
        if self.approvers.quorum == 1 && !rules.author_may_approve && person.may_be_principal(rules.author) {
            return Err(NotAllowed::OwnPolicy);
        }
        if self.approvals().iter().any(|word| word.is_by(person)) {
            return Err(NotAllowed::Again);
        }
        self.check_sign_in(&person.sign_in, rules.sign_in, now)
    }

    /// What the status becomes with `person`'s word; none if it stays `requested`, for want of further approvals.
    pub fn after(&self, approve: bool) -> &'static str {
        let count = u32::try_from(self.approvals().len()).unwrap_or(u32::MAX);
        match approve {
            false => "denied",
            true if count.saturating_add(1) >= self.approvers.quorum => "approved",
            true => "requested",
        }
    }

    /// Whether the policy names this person among the approvers. A group is one issuer's: another's of the same
    /// name is another group.
    pub fn is_named(&self, person: &Person, bare_groups: bool) -> bool {
        let in_group = |named: &String| {
            let of_issuer = named.split_once('/').filter(|(issuer, _)| *issuer == person.issuer.as_str());
            of_issuer.is_some_and(|(_, group)| person.groups.contains(group))
                || (bare_groups && person.groups.contains(named))
        };
        self.approvers.groups.iter().any(in_group)
            || self.approvers.people.contains(&format!("{}/{}", person.issuer, person.subject))
    }

    /// Who approved so far.
    pub fn approvals(&self) -> &[Approval] {
        match &self.state {
            State::Requested { approvals, .. }
            | State::Approved { approvals, .. }
            | State::Expired { approvals, .. }
            | State::Spent { approvals, .. } => approvals,
            State::Denied { .. } | State::Withdrawn { .. } | State::Voided { .. } => &[],
        }
    }

    fn is_own(&self, person: &Person) -> bool {
        match &self.asked {
            Asked::Run { requester, .. } => {
                requester.triggering_user.as_deref().is_some_and(|user| person.is_called(user))
            }
            Asked::Standing { requester, .. } => person.may_be(requester),
        }
    }

    fn check_sign_in(&self, sign_in: &SignIn, rules: &SignInRules, now: Timestamp) -> Result<(), NotAllowed> {
        if (self.approvers.mfa || rules.proof.is_demanded()) && !rules.proof.is_met(sign_in) {
            return Err(NotAllowed::NeedsMfa);
        }
        let Some(max_age) = rules.max_age else { return Ok(()) };
        let recent = sign_in.auth_time.is_some_and(|at| now.duration_since(at) <= max_age);
        if recent { Ok(()) } else { Err(NotAllowed::SignInTooOld) }
    }
}

impl Approval {
    fn is_by(&self, person: &Person) -> bool {
        let same = Principal::Person(person.clone()).subject() == self.person;
        same || self.account.as_ref().is_some_and(|account| account.may_be(person))
    }
}
