//! Minting and release: the only place where a provider is called and where a secret is opened.
//!
//! The order is the product: the intent is durable before a cloud is called, the outcome is durable before the
//! first secret byte leaves. [`Ticket`] and [`Committed`] make the compiler hold to it.

use std::sync::Arc;

use cortex_core::record::{GrantUse, Opening, Outcome};
use cortex_core::{DecisionId, IssuanceId, Minted};
use cortex_providers::{Cause, Entered, LocalMint, Mint, MintError};
use futures_util::future::join_all;
use jiff::Timestamp;
use tracing::Instrument as _;

use crate::admission;
use crate::barrier::Bar;
use crate::broker::Broker;
use crate::denial::{self, Refused};
use crate::exchange::{Context, Item, Planned, pass};
use crate::leases::{AskKey, LiveLease, new_handle};
use crate::store::{Admission, Admitted, Committed, OpenIntent, RecordError, StoreError, Ticket};
use crate::telemetry::{Call, step};

/// What identifies one credential on its way.
struct Tag {
    provider: String,
    decision_id: DecisionId,
    ask: AskKey,
}

/// How often something is decided anew because a freeze or a revocation came in between.
const DECIDED_ANEW: usize = 8;

/// Spends a single-use token where nothing new is minted, and `again` is handed out.
pub(crate) async fn spend(
    broker: &Broker,
    context: &Context,
    again: &[Arc<LiveLease>],
) -> Result<(), Refused> {
    let live = issuances(again);
    for _ in 0..DECIDED_ANEW {
        let barrier = broker.barriers.asked_now(&broker.pool).await.map_err(|error| barrier_away(&error))?;
        pass(broker, context, &barrier, &live).await?;
        let Some(replay) = context.verified.replay() else { return Ok(()) };
        match broker.recorder.spend(replay, Some(barrier.epoch())).await {
            Ok(()) => return Ok(()),
            Err(RecordError::Overtaken) => look_again(broker).await?,
            Err(error) => return Err(denial::of_record(broker, context, error).await),
        }
    }
    Err(denial::of_record(broker, context, RecordError::Overtaken).await)
}

fn issuances(leases: &[Arc<LiveLease>]) -> Vec<IssuanceId> {
    leases.iter().map(|lease| lease.lease.issuance_id).collect()
}

async fn look_again(broker: &Broker) -> Result<(), Refused> {
    broker.barriers.refresh(&broker.pool).await.map_err(|error| barrier_away(&error))
}

pub(crate) fn barrier_away(error: &StoreError) -> Refused {
    tracing::warn!(%error, "refused because the freezes cannot be read");
    denial::unavailable("the freezes cannot be read at the moment, so nothing is handed out")
}

/// Commits `admission` under the barrier that it passes.
async fn admit(
    broker: &Broker,
    context: &Context,
    admission: Admission,
    again: &[Arc<LiveLease>],
) -> Result<Admitted, Refused> {
    let openings = admission.intents.iter().chain(admission.issued.iter().map(|(opening, _)| opening));
    let mut all = issuances(again);
    all.extend(openings.map(|opening| opening.issuance_id));
    for _ in 0..DECIDED_ANEW {
        let barrier = broker.barriers.known();
        pass(broker, context, &barrier, &all).await?;
        let admission = Admission { epoch: barrier.epoch(), ..admission.clone() };
        match broker.recorder.admit(admission).instrument(step!("commit")).await {
            Ok(admitted) => return Ok(admitted),
            Err(RecordError::Overtaken) => look_again(broker).await?,
            Err(error) => return Err(denial::of_record(broker, context, error).await),
        }
    }
    Err(denial::of_record(broker, context, RecordError::Overtaken).await)
}

/// Mints what was planned: one commit for all intents and own signatures, then the clouds side by side.
pub(crate) async fn issue(
    broker: &Broker,
    context: &Context,
    grant: Option<GrantUse>,
    planned: Vec<Planned>,
    again: &[Arc<LiveLease>],
) -> Result<Vec<Item>, Refused> {
    let mut room = admission::of_leases(broker, context, planned.len())?;
    let (ready, mut items) = enter(broker, context, grant.as_ref(), planned).await?;
    if ready.is_empty() {
        // Nothing is minted: the token is spent for what is handed out again, or not at all.
        if !again.is_empty() {
            spend(broker, context, again).await?;
        }
        return Ok(items);
    }
    let mut admission = Admission {
        replay: context.verified.replay(),
        grant: grant.as_ref().map(|grant| grant.id),
        ..Admission::default()
    };
    let mut own = Vec::new();
    let mut clouds = Vec::new();
    let mut failed_to_sign = Vec::new();
    for Ready { tag, opening, way } in ready {
        match way {
            Way::Own(mint) => match signed(&tag, mint) {
                Ok(minted) => {
                    admission.issued.push((opening, minted.lease.clone()));
                    own.push((tag, minted));
                }
                Err(error) => failed_to_sign.push(failed(tag, &error)),
            },
            Way::Cloud(entered) => {
                admission.intents.push(opening);
                clouds.push((tag, entered));
            }
        }
    }
    let admitted = admit(broker, context, admission, again).await?;
    let signed_some = !own.is_empty();
    items.extend(failed_to_sign);
    for ((tag, minted), committed) in own.into_iter().zip(admitted.committed) {
        ended(context, &tag, minted.lease.issuance_id, "issued");
        items.push(release(broker, context, tag, minted, &committed));
    }
    let calls = clouds.into_iter().zip(admitted.tickets);
    let calls = calls.map(|((tag, entered), ticket)| mint_remote(broker, context, tag, entered, ticket));
    let answers = join_all(calls).await;
    if !signed_some && answers.iter().all(|(_, effect)| *effect == Effect::None) {
        give_token_back(broker, context).await;
    }
    items.extend(answers.into_iter().map(|(item, _)| item));
    for item in &items {
        if let Item::Issued(lease) = item {
            room.minted(lease.lease.expires_at);
        }
    }
    Ok(items)
}

/// One credential that nothing stands in the way of but its record.
struct Ready {
    tag: Tag,
    opening: Opening,
    way: Way,
}

/// How it is minted.
enum Way {
    Own(Box<dyn LocalMint<Committed>>),
    Cloud(Entered<Committed>),
}

/// Goes through the doors of the clouds' accounts, side by side, before anything is on record. An account whose quota is
/// used up turns the whole request away, which then costs nothing and is asked again; one that does not answer takes
/// nothing from the others.
async fn enter(
    broker: &Broker,
    context: &Context,
    grant: Option<&GrantUse>,
    planned: Vec<Planned>,
) -> Result<(Vec<Ready>, Vec<Item>), Refused> {
    let patience = broker.admission.quota_patience();
    let doors = planned.into_iter().map(async |one| {
        let opening = opening(context, &one, grant.cloned());
        let tag = Tag { provider: one.provider, decision_id: one.decision_id, ask: one.ask };
        match one.plan.mint {
            Mint::Local(mint) => Ok(Ready { tag, opening, way: Way::Own(mint) }),
            Mint::Remote(remote) => match remote.enter(patience).await {
                Ok(entered) => Ok(Ready { tag, opening, way: Way::Cloud(entered) }),
                Err(shut) => Err((tag.provider, shut)),
            },
        }
    });
    let (mut ready, mut items) = (Vec::new(), Vec::new());
    for door in join_all(doors).await {
        match door {
            Ok(one) => ready.push(one),
            Err((provider, shut)) => {
                let refused = admission::of_account(broker, context, &shut);
                match shut.cause {
                    Cause::Quota => return Err(refused),
                    Cause::Away => items.push(Item::Refused { provider, refused }),
                }
            }
        }
    }
    Ok((ready, items))
}

/// Whether a cloud may have made a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    None,
    Possible,
}

fn effect(result: &Result<Minted<Committed>, MintError>) -> Effect {
    match result {
        Err(MintError::Refused { .. } | MintError::Unavailable { .. }) => Effect::None,
        Ok(_) | Err(MintError::Indeterminate { .. } | MintError::Mismatch { .. }) => Effect::Possible,
    }
}

async fn mint_remote(
    broker: &Broker,
    context: &Context,
    tag: Tag,
    entered: Entered<Committed>,
    ticket: Ticket,
) -> (Item, Effect) {
    let (ticket, open) = ticket.redeem();
    let call = Call::begin(&tag.provider);
    let step = step!(
        "provider",
        otel.name = format_args!("mint {}", tag.provider),
        otel.kind = "client",
        provider = tag.provider,
        issuance_id = %open.issuance_id(),
        decision_id = %tag.decision_id
    );
    let result = entered.mint(ticket).instrument(step).await;
    call.end(ending(&result));
    let effect = effect(&result);
    let (committed, barred) = match settle(broker, context, &tag, &open, &result).await {
        Ok(settled) => settled,
        Err(error) => {
            // The secret is dropped here, unopened: what cannot be recorded does not leave.
            tracing::error!(%error, provider = tag.provider, "an outcome could not be recorded; withheld");
            return (Item::Refused { provider: tag.provider, refused: withheld(&error) }, effect);
        }
    };
    let item = match (result, barred) {
        (Ok(_), Some(bar)) => {
            Item::Refused { refused: denial::of_bar(&bar, tag.decision_id), provider: tag.provider }
        }
        (Ok(minted), None) => release(broker, context, tag, minted, &committed),
        (Err(error), _) => failed(tag, &error),
    };
    (item, effect)
}

/// Writes down how the mint ended, and what bars its release: a freeze or a revocation that came while the cloud was
/// asked. The commit holds only while nothing new bars it.
async fn settle(
    broker: &Broker,
    context: &Context,
    tag: &Tag,
    open: &OpenIntent,
    result: &Result<Minted<Committed>, MintError>,
) -> Result<(Committed, Option<Bar>), RecordError> {
    let gone = context.request.gone.is_cancelled();
    for _ in 0..DECIDED_ANEW {
        let barrier = broker.barriers.known();
        let bar = barrier.bars(&context.holder(), open.issuance_id(), broker.clock.now());
        let (outcome, epoch) = match (result, &bar) {
            (Ok(minted), Some(bar)) => (barred(bar, minted.lease.expires_at), None),
            (Ok(_), None) => (outcome(result, open, gone), Some(barrier.epoch())),
            (Err(_), _) => (outcome(result, open, gone), None),
        };
        let name = outcome.name();
        match broker.recorder.finish(open, outcome, epoch).instrument(step!("commit")).await {
            Ok(committed) => {
                ended(context, tag, open.issuance_id(), name);
                return Ok((committed, bar));
            }
            Err(RecordError::Overtaken) => {
                let looked = broker.barriers.refresh(&broker.pool).await;
                looked.map_err(|error| RecordError::Unavailable(error.to_string()))?;
            }
            Err(error) => return Err(error),
        }
    }
    Err(RecordError::Overtaken)
}

/// Counts an issuance that ended on record, and says it in the log.
fn ended(context: &Context, tag: &Tag, issuance_id: IssuanceId, outcome: &'static str) {
    metrics::counter!("cortex_issuances_total", "provider" => tag.provider.clone(), "outcome" => outcome)
        .increment(1);
    tracing::info!(
        %issuance_id,
        decision_id = %tag.decision_id,
        request_id = context.request.request_id,
        policy = %context.policy.name(),
        provider = tag.provider,
        outcome,
        "an issuance ended"
    );
}

/// What Cortex signs itself. Signing has no effect outside: what is signed stays sealed until its record is committed.
fn signed(tag: &Tag, mint: Box<dyn LocalMint<Committed>>) -> Result<Minted<Committed>, MintError> {
    let call = Call::begin(&tag.provider);
    let result = step!("provider", provider = tag.provider).in_scope(|| mint.mint());
    call.end(ending(&result));
    result
}

/// How a mint ended, in a word.
fn ending(result: &Result<Minted<Committed>, MintError>) -> &'static str {
    match result {
        Ok(_) => "minted",
        Err(MintError::Refused { .. }) => "refused",
        Err(MintError::Unavailable { .. }) => "unavailable",
        Err(MintError::Mismatch { .. }) => "mismatch",
        Err(MintError::Indeterminate { .. }) => "indeterminate",
    }
}

/// The outcome of a mint that is withheld because of `bar`.
fn barred(bar: &Bar, expires_at: Timestamp) -> Outcome {
    let (code, message) = match bar {
        Bar::Frozen(freeze) => ("frozen", format!("the freeze {} came while it was minted", freeze.id)),
        Bar::Revoked(id) => ("revoked", format!("the revocation {id} came while it was minted")),
    };
    Outcome::Failed { code: code.to_owned(), message, withheld_until: Some(expires_at) }
}

fn withheld(error: &RecordError) -> Refused {
    match error {
        RecordError::Superseded => {
            denial::unavailable("the answer came too late and was withheld; ask again")
        }
        _ => denial::unavailable("the outcome could not be recorded, so the credential was withheld"),
    }
}

fn outcome(result: &Result<Minted<Committed>, MintError>, open: &OpenIntent, gone: bool) -> Outcome {
    let failed = |code: &str, message: &String, withheld_until| Outcome::Failed {
        code: code.to_owned(),
        message: message.clone(),
        withheld_until,
    };
    match result {
        Ok(minted) => Outcome::Issued { lease: minted.lease.clone(), undelivered: gone },
        Err(MintError::Refused { code, message, .. }) => failed(code, message, None),
        Err(MintError::Unavailable { message, .. }) => failed("unavailable", message, None),
        Err(MintError::Mismatch { message, expires_at }) => {
            failed("mismatch", message, Some(expires_at.unwrap_or(open.worst_case_expiry())))
        }
        Err(MintError::Indeterminate { message }) => {
            Outcome::Indeterminate { message: message.clone(), worst_case_expiry: open.worst_case_expiry() }
        }
    }
}

/// Opens the secret, with the proof that its record is committed in hand, and remembers it while it lives.
fn release(
    broker: &Broker,
    context: &Context,
    tag: Tag,
    minted: Minted<Committed>,
    committed: &Committed,
) -> Item {
    let Minted { secret, lease, details } = minted;
    if committed.issuance_id() != lease.issuance_id {
        tracing::error!(issuance = %lease.issuance_id, "a record and a credential do not belong together");
        let description = "the credential does not belong to its record".to_owned();
        return Item::Refused { provider: tag.provider, refused: Refused::Failed { description } };
    }
    let ttl = lease.expires_at.duration_since(context.now);
    let lease = Arc::new(LiveLease {
        verified: Arc::clone(&context.verified),
        policy: context.policy.name().clone(),
        policy_digest: context.policy.digest(),
        provider: tag.provider,
        lease,
        body: secret.open(committed),
        details,
        handle: new_handle(&*broker.random),
        receipt: committed.sealed().receipt(broker.recorder.stamp().chains.base()),
        break_glass: context.request.break_glass,
        ttl,
    });
    broker.leases.remember(tag.ask, &lease, context.now);
    Item::Issued(lease)
}

fn failed(tag: Tag, error: &MintError) -> Item {
    Item::Refused { provider: tag.provider, refused: denial::of_mint(error, tag.decision_id) }
}

fn opening(context: &Context, planned: &Planned, grant: Option<GrantUse>) -> Opening {
    Opening {
        issuance_id: planned.issuance_id,
        decision_id: planned.decision_id,
        principal: context.principal().clone(),
        subject: context.subject.clone(),
        caller: context.caller(),
        policy: context.policy.name().clone(),
        policy_digest: context.policy.digest(),
        guardrails_digest: context.catalogue.guardrails_digest(),
        rules: planned.rules.clone(),
        grant,
        provider: planned.provider.clone(),
        scope: planned.plan.scope.clone(),
        ttl_seconds: planned.plan.ttl.as_secs(),
        worst_case_expiry: planned.plan.worst_case_expiry,
        revocation: planned.plan.revocation.clone(),
        reason: context.request.reason.clone(),
        ticket: context.request.ticket.clone(),
    }
}

/// A single-use token that no cloud minted anything for may be tried again.
async fn give_token_back(broker: &Broker, context: &Context) {
    let Some(replay) = context.verified.replay() else { return };
    if let Err(error) = broker.recorder.unspend(replay).await {
        tracing::warn!(%error, "a token stays spent though nothing was minted with it");
    }
}
