//! Decides one recorded request again: as the path does, with the policy's word first and the rendering of its target
//! after it. It has no rules of its own.

use std::collections::HashMap;
use std::sync::Arc;

use cortex_core::policy::{self, BreakGlass, Guardrails, Held, Policy};
use cortex_core::{Decision, Digest, Reason};
use cortex_providers::{Refusal, Registry};
use jiff::SignedDuration;
use serde_json::Value;

use super::recorded::{self, Request, Was};
use super::report::{Change, Differs, Key, Tally, Why};
use super::sweep::Look;
use crate::store::Committed;

/// The shortest lifetime that a policy can allow: what a denied caller may have asked for instead of the longest.
const SHORTEST: SignedDuration = SignedDuration::from_secs(60);

/// A policy with its rules at hand.
pub(super) struct Kept {
    policy: Arc<Policy>,
    _held: Option<Held>,
}

impl Kept {
    pub(super) fn new(policy: Arc<Policy>) -> Self {
        let held = policy.hold();
        Self { policy, _held: held }
    }
}

/// One policy as it is proposed, as it is in force, and as it was while the requests were made.
pub(super) struct Candidate {
    pub(super) proposed: Kept,
    pub(super) in_force: Option<Kept>,
    pub(super) versions: HashMap<Digest, Policy>,
}

/// Decides under the proposed policies, by their numbers.
pub(super) struct Judge {
    pub(super) guardrails: Arc<Guardrails>,
    pub(super) registry: Registry<Committed>,
    pub(super) candidates: Vec<Candidate>,
}

/// What a version says of a request.
enum Answer {
    /// Yes, once people approve where there are rules that want them to.
    Permits {
        wants: Vec<String>,
        credential: Credential,
    },
    Denies {
        rules: Vec<String>,
        said: String,
    },
}

/// What a request would get.
enum Credential {
    /// What it got: its target and its ceiling are those under which it was planned, and a plan's scope and lifetime
    /// come of them and of the run alone.
    AsRecorded,
    Planned {
        scope: Value,
        ttl: SignedDuration,
    },
}

impl Look for Judge {
    type Seen = Tally;

    fn look(&self, policy: usize, leaves: &[Vec<u8>]) -> Tally {
        let mut tally = Tally::default();
        let Some(candidate) = self.candidates.get(policy) else { return tally };
        for leaf in leaves {
            tally.records += 1;
            match self.again(candidate, leaf) {
                Ok(None) => tally.unchanged += 1,
                Ok(Some((request, found))) => tally.differs(differs(policy, &request, found)),
                Err(why) => tally.not_decided(why),
            }
        }
        tally
    }

    fn add(seen: &mut Tally, more: Tally) {
        seen.add(more);
    }
}

/// A difference, and whether the version in force makes it as well.
struct Found {
    change: Change,
    rules: Vec<String>,
    said: String,
    in_force_too: bool,
}

fn differs(policy: usize, request: &Request, found: Found) -> Differs {
    let run = request.principal.as_run();
    Differs {
        key: Key {
            policy,
            change: found.change,
            dag_id: run.map(|run| run.dag_id.to_string()).unwrap_or_default(),
            task_id: run.map(|run| run.task_id.to_string()).unwrap_or_default(),
            provider: request.provider.clone(),
            rules: found.rules,
        },
        at: request.at,
        decision_id: request.decision_id,
        said: found.said,
        in_force_too: found.in_force_too,
    }
}

impl Judge {
    /// Decides a leaf again: none if it ends as it did.
    fn again(&self, candidate: &Candidate, leaf: &[u8]) -> Result<Option<(Request, Found)>, Why> {
        let request = recorded::read(leaf)?;
        let proposed = &candidate.proposed.policy;
        let Some((change, rules, said)) = self.change(candidate, proposed, &request, leaf)? else {
            return Ok(None);
        };
        let in_force_too = match &candidate.in_force {
            None => false,
            Some(now) if now.policy.digest() == proposed.digest() => true,
            Some(now) => self
                .change(candidate, &now.policy, &request, leaf)
                .is_ok_and(|found| found.is_some_and(|(other, _, _)| other == change)),
        };
        Ok(Some((request, Found { change, rules, said, in_force_too })))
    }

    /// How a request ends differently under `version`, which rules say so, and what that means for it in words.
    fn change(
        &self,
        candidate: &Candidate,
        version: &Policy,
        request: &Request,
        leaf: &[u8],
    ) -> Result<Option<(Change, Vec<String>, String)>, Why> {
        let planned_under = request.policy_digest.and_then(|digest| candidate.versions.get(&digest));
        match &request.was {
            Was::Denied { rules } => Ok(match self.answer_to_denied(version, request)? {
                Answer::Denies { .. } => None,
                Answer::Permits { wants, .. } if wants.is_empty() => {
                    Some((Change::DenyToPermit, rules.clone(), no_longer(rules)))
                }
                Answer::Permits { wants, .. } => {
                    let said = wanted(&wants);
                    Some((Change::DenyToApproval, wants, said))
                }
            }),
            Was::Issued { ttl, wanted: before, approved, .. } => {
                let answer =
                    self.answer(version, request, asked_for(request, *ttl, planned_under), planned_under);
                Ok(match answer {
                    Answer::Denies { rules, said } if before.is_empty() => {
                        Some((Change::PermitToDeny, rules, said))
                    }
                    Answer::Denies { rules, said } => Some((Change::ApprovalToDeny, rules, said)),
                    Answer::Permits { wants, .. } if !wants.is_empty() && !approved => {
                        let said = wanted(&wants);
                        Some((Change::PermitToApproval, wants, said))
                    }
                    Answer::Permits { wants, .. } if wants.is_empty() && !before.is_empty() => {
                        Some((Change::ApprovalToPermit, before.clone(), no_longer(before)))
                    }
                    Answer::Permits { credential, .. } => compare(version, &credential, *ttl, leaf)?,
                })
            }
        }
    }

    /// A denial does not hold the lifetime that was asked for. Where the longest and the shortest are answered alike,
    /// it does not matter.
    fn answer_to_denied(&self, version: &Policy, request: &Request) -> Result<Answer, Why> {
        let longest = self.answer(version, request, None, None);
        let shortest = self.answer(version, request, Some(SHORTEST), None);
        let alike = match (&longest, &shortest) {
            (Answer::Denies { .. }, Answer::Denies { .. }) => true,
            (Answer::Permits { wants: a, .. }, Answer::Permits { wants: b, .. }) => {
                a.is_empty() == b.is_empty()
            }
            _ => false,
        };
        if alike { Ok(longest) } else { Err(Why::LifetimeUnknown) }
    }

    /// What `version` says to a request for a lifetime of `asked`, or of its longest.
    fn answer(
        &self,
        version: &Policy,
        request: &Request,
        asked: Option<SignedDuration>,
        planned_under: Option<&Policy>,
    ) -> Answer {
        let glass = request.break_glass.then_some(BreakGlass::LONGEST);
        let asked = [asked, glass].into_iter().flatten().min();
        let ask = policy::Ask {
            principal: &request.principal,
            provider: &request.provider,
            source_ip: request.source,
            now: request.at,
            ttl: asked.map_or(version.max_ttl(), |asked| asked.min(version.max_ttl())),
            approved: false,
            break_glass: request.break_glass,
        };
        let wants = match version.decide(&self.guardrails, &ask) {
            Decision::Permit { .. } => Vec::new(),
            Decision::NeedsGrant { rules } => rules,
            Decision::Deny { reasons, .. } => return denies(&reasons),
        };
        match self.plan(version, request, asked, planned_under) {
            Ok(credential) => Answer::Permits { wants, credential },
            Err(refusal) => Answer::Denies {
                rules: vec![format!("{}#what", version.name())],
                said: format!("{} {}", refusal.message, refusal.remedy),
            },
        }
    }

    fn plan(
        &self,
        version: &Policy,
        request: &Request,
        asked: Option<SignedDuration>,
        planned_under: Option<&Policy>,
    ) -> Result<Credential, Refusal> {
        let target = version.target(&request.provider);
        let same =
            |old: &Policy| old.target(&request.provider) == target && old.max_ttl() == version.max_ttl();
        if planned_under.is_some_and(same) {
            return Ok(Credential::AsRecorded);
        }
        let missing = || Refusal {
            message: format!("There is no provider {} here.", request.provider),
            remedy: "Ask an admin to upgrade Cortex or to change the policy.".to_owned(),
        };
        let known = self.registry.get(request.provider.as_str());
        let (Some(known), Some(target), Some(run)) = (known, target, request.principal.as_run()) else {
            return Err(missing());
        };
        let issuance_id = match &request.was {
            Was::Issued { issuance_id, .. } => *issuance_id,
            Was::Denied { .. } => request.decision_id.uuid().into(),
        };
        let plan = known.plan(&cortex_providers::Ask {
            issuance_id,
            run,
            policy: version.name(),
            target,
            max_ttl: version.max_ttl(),
            requested_ttl: asked,
            now: request.at,
        })?;
        Ok(Credential::Planned { scope: plan.scope, ttl: plan.ttl })
    }
}

/// The lifetime that the caller asked for: what was planned, unless that was all that the policy allowed.
fn asked_for(
    request: &Request,
    ttl: SignedDuration,
    planned_under: Option<&Policy>,
) -> Option<SignedDuration> {
    let glass = request.break_glass.then_some(BreakGlass::LONGEST);
    let ceiling =
        planned_under.map(Policy::max_ttl).map(|ceiling| glass.map_or(ceiling, |glass| glass.min(ceiling)));
    ceiling.is_none_or(|ceiling| ttl < ceiling).then_some(ttl)
}

fn denies(reasons: &[Reason]) -> Answer {
    let said = reasons.first().map(|reason| format!("{} {}", reason.message, reason.remedy));
    Answer::Denies {
        rules: reasons.iter().map(|reason| reason.rule.clone()).collect(),
        said: said.unwrap_or_default(),
    }
}

fn wanted(rules: &[String]) -> String {
    format!("People would have to approve it first: {}.", rules.join(", "))
}

fn no_longer(rules: &[String]) -> String {
    if rules.is_empty() {
        "It would be permitted.".to_owned()
    } else {
        format!("It was held up by {}.", rules.join(", "))
    }
}

/// Compares what would be issued with what is on record as issued.
fn compare(
    version: &Policy,
    credential: &Credential,
    before: SignedDuration,
    leaf: &[u8],
) -> Result<Option<(Change, Vec<String>, String)>, Why> {
    let Credential::Planned { scope, ttl } = credential else { return Ok(None) };
    let recorded = recorded::scope(leaf).ok_or(Why::Unreadable)?;
    let (what, max_ttl) = (format!("{}#what", version.name()), format!("{}#max_ttl", version.name()));
    let lives = format!("{} s instead of {} s", ttl.as_secs(), before.as_secs());
    Ok(match (without_lifetime(scope) != without_lifetime(&recorded), ttl.as_secs() != before.as_secs()) {
        (false, false) => None,
        (true, false) => {
            Some((Change::Scope, vec![what], "Its credential would be for something else.".to_owned()))
        }
        (false, true) => {
            Some((Change::Lifetime, vec![max_ttl], format!("Its credential would live {lives}.")))
        }
        (true, true) => Some((
            Change::ScopeAndLifetime,
            vec![what, max_ttl],
            format!("Its credential would be for something else and live {lives}."),
        )),
    })
}

/// A scope without the lifetime that some providers write into it; that is compared by itself.
fn without_lifetime(scope: &Value) -> Value {
    let mut scope = scope.clone();
    if let Some(members) = scope.as_object_mut() {
        members.remove("ttl_seconds");
    }
    scope
}
