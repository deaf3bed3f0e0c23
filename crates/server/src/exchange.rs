//! The path of Cortex, top to bottom: identity → policy → grant → mint → issuance.
//!
//! Everything that is refused on the way is on record before the caller is told, and nothing secret leaves
//! before its own record is committed.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use cortex_core::policy::{self, BreakGlass, Policy};
use cortex_core::record::Caller;
use cortex_core::{ClaimedRun, Decision, DecisionId, Digest, Holder, IssuanceId, PolicyName, Principal, Run};
use cortex_identity::Verified;
use cortex_providers::Plan;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use zeroize::Zeroizing;

use crate::admission::{self, Turn};
use crate::barrier::Barrier;
use crate::broker::Broker;
use crate::denial::{self, Refused};
use crate::leases::{AskKey, LiveLease};
use crate::library::Catalogue;
use crate::store::Committed;
use crate::telemetry::{self, step};
use crate::{approval, mint};

/// How long an ask waits for an identical one: longer than a provider takes.
const TURN: Duration = Duration::from_secs(15);

/// What a run asks for.
pub struct Request {
    /// The token that says who asks.
    pub token: Zeroizing<String>,
    /// The run that a service says it acts for.
    pub claim: Option<ClaimedRun>,
    /// The policy, by name, as the caller wrote it.
    pub policy: String,
    /// The providers, out of the policy's; none for all of them.
    pub providers: Option<Vec<String>>,
    /// A shorter lifetime than the policy's.
    pub ttl: Option<SignedDuration>,
    /// Why, in the caller's words.
    pub reason: Option<String>,
    /// The ticket that it belongs to, in the caller's words.
    pub ticket: Option<String>,
    /// Whether to be let in although the policy is closed, with two people's approval.
    pub break_glass: bool,
    /// The request's id.
    pub request_id: String,
    /// The caller's address.
    pub source: Option<IpAddr>,
    /// Cancelled when the caller is gone.
    pub gone: CancellationToken,
}

/// The answer: something for each provider that was asked for.
pub struct Bundle {
    /// Who asked, as one string.
    pub subject: String,
    /// The policy.
    pub policy: PolicyName,
    /// The policy's version.
    pub policy_digest: Digest,
    /// In the order of the providers' names.
    pub items: Vec<Item>,
}

/// What became of one provider.
pub enum Item {
    /// A credential, on record.
    Issued(Arc<LiveLease>),
    /// None; the sentence says why, and the id is on record.
    Refused {
        /// The provider.
        provider: String,
        /// Why.
        refused: Refused,
    },
}

/// One provider's credential, decided and planned but not minted.
pub(crate) struct Planned {
    pub(crate) provider: String,
    pub(crate) issuance_id: IssuanceId,
    pub(crate) decision_id: DecisionId,
    pub(crate) rules: Vec<String>,
    pub(crate) needs_grant: bool,
    pub(crate) plan: Plan<Committed>,
    pub(crate) ask: AskKey,
}

/// Who asks, what for and when: what every step needs to know.
pub(crate) struct Context {
    pub(crate) request: Request,
    pub(crate) verified: Arc<Verified>,
    pub(crate) subject: String,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) now: Timestamp,
}

impl Context {
    pub(crate) fn principal(&self) -> &Principal {
        self.verified.principal()
    }

    pub(crate) fn caller(&self) -> Caller {
        Caller {
            request_id: self.request.request_id.clone(),
            source: self.request.source,
            token_digest: *self.verified.token_digest(),
            jti_digest: self.verified.replay().map(|replay| replay.jti_hash),
            claimed_by: self.verified.claimed_by().map(str::to_owned),
        }
    }

    /// Who asks, as far as a freeze or a revocation can tell.
    pub(crate) fn holder(&self) -> Holder<'_> {
        Holder {
            principal: self.principal(),
            claimed_by: self.verified.claimed_by(),
            policy: self.policy.name(),
        }
    }

    /// The longest life that the policy and the caller allow.
    pub(crate) fn max_ttl(&self) -> SignedDuration {
        let ceiling = self.policy.max_ttl();
        self.requested_ttl().map_or(ceiling, |asked| asked.min(ceiling))
    }

    /// What the caller asks for. Who breaks the glass asks for an hour at most.
    fn requested_ttl(&self) -> Option<SignedDuration> {
        let most = self.request.break_glass.then_some(BreakGlass::LONGEST);
        [self.request.ttl, most].into_iter().flatten().min()
    }

    /// The number of the policy's version.
    pub(crate) fn policy_version(&self) -> i32 {
        self.catalogue.policy(self.policy.name()).map_or(1, |shelved| shelved.version())
    }
}

/// Exchanges a run's identity for credentials.
pub async fn exchange(broker: &Broker, request: Request) -> Result<Bundle, Refused> {
    let _place = admission::at_the_door(broker, request.source, Some(&request.gone)).await?;
    let verified = identify(broker, &request).instrument(step!("identity")).await?;
    let _caller = admission::of_caller(broker, &request, &verified)?;
    let decision = step!("policy", policy = tracing::field::Empty);
    let context = find_policy(broker, request, verified).instrument(decision.clone()).await?;
    decision.record("policy", context.policy.name().as_str());
    let (planned, mut items) = decide_and_plan(broker, &context).instrument(decision.clone()).await?;
    pass(broker, &context, &broker.barriers.known(), &[]).instrument(decision).await?;
    let _policy = admission::of_policy(broker, &context)?;
    let grant = approval::settle(broker, &context, &planned).instrument(step!("grant")).await?;
    let _turns = turns(broker, &context, &planned).await?;
    let (again, fresh) = step!("recall").in_scope(|| recall(broker, &context, planned));
    let issued = if fresh.is_empty() {
        mint::spend(broker, &context, &again).instrument(step!("commit")).await?;
        Vec::new()
    } else {
        mint::issue(broker, &context, grant, fresh, &again).instrument(step!("mint")).await?
    };
    items.extend(again.into_iter().map(Item::Issued));
    items.extend(issued);
    items.sort_by(|a, b| a.provider().cmp(b.provider()));
    let policy_digest = context.policy.digest();
    Ok(Bundle { subject: context.subject, policy: context.policy.name().clone(), policy_digest, items })
}

async fn identify(broker: &Broker, request: &Request) -> Result<Arc<Verified>, Refused> {
    match broker.live().identity.verify(&request.token).await {
        Ok(verified) => settle_claim(broker, request, verified).await,
        Err(rejection) => Err(denial::of_token(broker, request, &rejection).await),
    }
}

/// A service acts for a run or for nobody: the run that it claims is who asks, once an Airflow has confirmed it.
async fn settle_claim(
    broker: &Broker,
    request: &Request,
    verified: Arc<Verified>,
) -> Result<Arc<Verified>, Refused> {
    match (&request.claim, verified.principal()) {
        (None, Principal::Service(_)) => Err(denial::of_missing_claim(broker, request, &verified).await),
        (None, Principal::Run(_) | Principal::Person(_)) => Ok(verified),
        (Some(claim), _) => match broker.live().identity.verify_claim(&verified, claim).await {
            Ok(run) => Ok(run),
            Err(refusal) => Err(denial::of_claim(broker, request, &verified, refusal).await),
        },
    }
}

/// Finds the policy. One that does not exist and one that does not name the caller answer alike.
async fn find_policy(broker: &Broker, request: Request, verified: Arc<Verified>) -> Result<Context, Refused> {
    let catalogue = broker.library.catalogue();
    let name = request.policy.parse::<PolicyName>().ok();
    let policy = name.and_then(|name| catalogue.policy(&name).and_then(|shelved| shelved.policy().cloned()));
    match policy {
        Some(policy) => {
            let subject = verified.principal().subject();
            broker.library.keep_at_hand(&policy);
            let now = broker.clock.now();
            Ok(Context { request, verified, subject, catalogue, policy, now })
        }
        None => Err(denial::of_unknown_policy(broker, &request, &verified).await),
    }
}

/// Decides on each provider and plans what is permitted. Where nothing is, the whole request is refused;
/// otherwise each refusal stands beside what was granted.
async fn decide_and_plan(broker: &Broker, context: &Context) -> Result<(Vec<Planned>, Vec<Item>), Refused> {
    let mut planned = Vec::new();
    let mut items = Vec::new();
    let mut refusal = None;
    for provider in asked_providers(broker, context)? {
        match decide_one(broker, context, &provider).await {
            Ok(one) => planned.push(one),
            // Whom the policy does not name it names for no target: one denial says so.
            Err(unnamed @ Refused::Unnamed { .. }) => return Err(unnamed),
            Err(refused) => {
                refusal.get_or_insert_with(|| refused.clone());
                items.push(Item::Refused { provider, refused });
            }
        }
    }
    match refusal {
        Some(refused) if planned.is_empty() => Err(refused),
        _ => Ok((planned, items)),
    }
}

fn asked_providers(broker: &Broker, context: &Context) -> Result<Vec<String>, Refused> {
    let Some(asked) = &context.request.providers else {
        return Ok(context.policy.targets().map(|(provider, _)| provider.to_owned()).collect());
    };
    let mut asked = asked.clone();
    asked.sort_unstable();
    asked.dedup();
    if asked.is_empty() || asked.len() > 16 {
        return Err(denial::of_shape(
            broker,
            &context.request,
            "name one to sixteen targets, or none for all",
        ));
    }
    Ok(asked)
}

async fn decide_one(broker: &Broker, context: &Context, provider: &str) -> Result<Planned, Refused> {
    let decision_id = DecisionId::new(context.now, broker.random.id_bits());
    let (rules, needs_grant) = match decide(context, provider, false) {
        Some(Decision::Permit { rules }) => (rules, false),
        Some(Decision::NeedsGrant { rules }) => (rules, true),
        Some(Decision::Deny { named, reasons }) => {
            return Err(denial::of_decision(broker, context, decision_id, provider, named, reasons).await);
        }
        None => return Err(denial::of_unreadable_guardrails(broker, context, decision_id, provider).await),
    };
    // Only runs are ever named by a policy, so a permit without a run cannot be.
    let (Some(run), Some(target)) = (context.principal().as_run(), context.policy.target(provider)) else {
        return Err(denial::of_unknown_target(broker, context, decision_id, provider).await);
    };
    let issuance_id = IssuanceId::new(context.now, broker.random.id_bits());
    match broker.plan(provider, &ask(context, issuance_id, run, target)) {
        Ok(plan) => {
            permitted(context, needs_grant);
            let ask = AskKey::new(run, context.policy.digest(), provider, &plan.scope, plan.ttl);
            Ok(Planned {
                provider: provider.to_owned(),
                issuance_id,
                decision_id,
                rules,
                needs_grant,
                plan,
                ask,
            })
        }
        Err(refusal) => Err(denial::of_plan(broker, context, decision_id, provider, refusal).await),
    }
}

fn permitted(context: &Context, needs_grant: bool) {
    let decision = if needs_grant { "needs_grant" } else { "permit" };
    let policy = telemetry::policy(context.policy.name());
    metrics::counter!("cortex_decisions_total", "policy" => policy, "decision" => decision, "reason" => "")
        .increment(1);
}

/// The policy's word, or none where the guardrails cannot be read.
pub(crate) fn decide(context: &Context, provider: &str, approved: bool) -> Option<Decision> {
    let guardrails = context.catalogue.guardrails()?;
    let ask = policy::Ask {
        principal: context.principal(),
        provider,
        source_ip: context.request.source,
        now: context.now,
        ttl: context.max_ttl(),
        approved,
        break_glass: context.request.break_glass,
    };
    Some(context.policy.decide(guardrails, &ask))
}

fn ask<'a>(
    context: &'a Context,
    issuance_id: IssuanceId,
    run: &'a Run,
    target: &'a serde_json::Value,
) -> cortex_providers::Ask<'a> {
    cortex_providers::Ask {
        issuance_id,
        run,
        policy: context.policy.name(),
        target,
        max_ttl: context.policy.max_ttl(),
        requested_ttl: context.requested_ttl(),
        now: context.now,
    }
}

/// Lets pass what no freeze stops, and what of `issuances`, new and live, no revocation means. Only whom the policy
/// names gets here.
pub(crate) async fn pass(
    broker: &Broker,
    context: &Context,
    barrier: &Barrier,
    issuances: &[IssuanceId],
) -> Result<(), Refused> {
    let (holder, now) = (context.holder(), broker.clock.now());
    if let Some(freeze) = barrier.bars_new(&holder, now) {
        return Err(denial::of_freeze(broker, context, freeze).await);
    }
    if issuances.iter().any(|id| barrier.bars(&holder, *id, now).is_some()) {
        return Err(denial::unavailable("a revocation came while this was decided; ask again"));
    }
    Ok(())
}

/// Waits until nobody else is minting for the same asks: what that brings is found by [`recall`].
async fn turns(broker: &Broker, context: &Context, planned: &[Planned]) -> Result<Vec<Turn>, Refused> {
    let missing = planned.iter().filter(|one| broker.leases.again(one.ask, context.now).is_none());
    let turns = broker.turns.take(missing.map(|one| one.ask).collect(), Instant::now() + TURN).await;
    turns.ok_or_else(|| denial::unavailable("the same is being asked for already and takes long; ask again"))
}

/// Finds what this run already holds: the same ask of the same policy version gets the same credential, unless that
/// was revoked.
fn recall(broker: &Broker, context: &Context, planned: Vec<Planned>) -> (Vec<Arc<LiveLease>>, Vec<Planned>) {
    let mut again = Vec::new();
    let mut fresh = Vec::new();
    let (barrier, holder) = (broker.barriers.known(), context.holder());
    for one in planned {
        let lease = broker.leases.again(one.ask, context.now);
        match lease.filter(|lease| barrier.bars(&holder, lease.lease.issuance_id, context.now).is_none()) {
            Some(lease) => {
                metrics::counter!("cortex_leases_again_total", "provider" => one.provider.clone())
                    .increment(1);
                again.push(lease);
            }
            None => fresh.push(one),
        }
    }
    (again, fresh)
}

impl Item {
    /// The provider that this is about.
    pub fn provider(&self) -> &str {
        match self {
            Self::Issued(lease) => &lease.provider,
            Self::Refused { provider, .. } => provider,
        }
    }
}
