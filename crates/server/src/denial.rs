//! Saying no: on record first, then in words that tell the caller no more than they may know.

use cortex_core::policy::Demand;
use cortex_core::principal::person_subject;
use cortex_core::record::{Denial, What};
use cortex_core::{Clause, DecisionId, Freeze, GrantId, PolicyName, Reason};
use cortex_identity::{ClaimReason, ClaimRefusal, IssuerStatus, Kind, Known, Rejection, Verified};
use cortex_providers::{MintError, Refusal};
use jiff::Timestamp;
use metrics::SharedString;

use crate::barrier::Bar;
use crate::broker::Broker;
use crate::exchange::{Context, Request};
use crate::store::RecordError;
use crate::telemetry;

/// How much of a name that a caller made up goes on record, in bytes.
const NAME_MAX: usize = 64;

/// Why a caller gets nothing. The HTTP layer gives each its code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The request or its token: `invalid_request`.
    Request {
        /// What to tell the caller.
        description: String,
        /// What they may quote, where the caller was verified.
        decision_id: Option<DecisionId>,
    },
    /// No policy of this name names the caller: `invalid_target`, whether there is such a policy or not.
    Unnamed {
        /// What they may quote.
        decision_id: DecisionId,
    },
    /// The policy or the target: `invalid_target`.
    Target {
        /// What to tell the caller.
        description: String,
        /// What they may quote.
        decision_id: DecisionId,
    },
    /// People have to approve first: `authorization_pending`.
    Pending {
        /// The grant to wait for.
        grant_id: GrantId,
        /// What its status can be asked with.
        handle: String,
        /// How long to wait before asking again, in seconds.
        interval_s: u32,
    },
    /// People said no: `access_denied`.
    GrantDenied {
        /// The grant.
        grant_id: GrantId,
        /// Who, when and why.
        description: String,
    },
    /// Come back later: `temporarily_unavailable`.
    Unavailable {
        /// What to tell the caller.
        description: String,
        /// When to come back, in seconds.
        retry_after_s: u32,
    },
    /// The caller asks for more than its share: `slow_down`.
    Limited {
        /// What to tell the caller.
        description: String,
        /// When to come back, in seconds.
        retry_after_s: u32,
    },
    /// A cloud failed in a way that coming back does not mend: `server_error`.
    Failed {
        /// What to tell the caller.
        description: String,
    },
}

/// What every caller is told whose token proved nothing.
const TOKEN_REFUSED: &str = "the subject token was not accepted";
/// What every caller is told whose issuer cannot be asked.
const ISSUER_AWAY: &str = "the token's issuer cannot be asked at the moment";
/// What a service is told that claims nothing.
const CLAIM_MISSING: &str = "a service gets credentials for a run only: send its token to /v1/credentials and name \
    the run in the member `run` of the body";
/// What every caller is told whom no policy names: the same for a policy that does not exist.
pub(crate) const NOT_FOR_YOU: &str =
    "no such policy for this caller; an admin finds the reason under the decision id";

/// The token was not accepted: an unverified caller is counted, a verified one is on record.
pub(crate) async fn of_token(broker: &Broker, request: &Request, rejection: &Rejection) -> Refused {
    let code = rejection.reason.code();
    tracing::info!(code, detail = %rejection.detail, request_id = request.request_id, "token not accepted");
    let Some(known) = &rejection.verified else {
        count(telemetry::NO_POLICY.into(), code.into());
        broker.noise.count(code, request.source, broker.clock.now());
        if rejection.is_temporary() {
            return unavailable(ISSUER_AWAY);
        }
        return Refused::Request { description: TOKEN_REFUSED.to_owned(), decision_id: None };
    };
    let mut denial = blank(broker, request, code, of_known(broker, known));
    denial.policy = Some(bounded(&request.policy));
    if rejection.is_temporary() {
        return note(broker, denial, |_| unavailable(ISSUER_AWAY)).await;
    }
    let description = format!("{TOKEN_REFUSED}: {}", rejection.reason);
    note(broker, denial, |id| Refused::Request { description, decision_id: Some(id) }).await
}

/// Whose token it was that proved no principal: of a person as principal, of others issuer and `sub`.
pub(crate) fn of_known(broker: &Broker, known: &Known) -> String {
    let Known { issuer, subject, .. } = known;
    let is_person = |status: &IssuerStatus| status.issuer == *issuer && status.kind == Kind::Person;
    match subject {
        Some(subject) if broker.live().identity.status().iter().any(is_person) => {
            person_subject(issuer, subject)
        }
        _ => format!("{issuer}:{}", subject.as_deref().unwrap_or("-")),
    }
}

/// A service's token without a run.
pub(crate) async fn of_missing_claim(broker: &Broker, request: &Request, verified: &Verified) -> Refused {
    let denial = of_caller(broker, request, verified, "claim_missing");
    let refused = |id| Refused::Request { description: CLAIM_MISSING.to_owned(), decision_id: Some(id) };
    note(broker, denial, refused).await
}

/// The run that was claimed is not confirmed.
pub(crate) async fn of_claim(
    broker: &Broker,
    request: &Request,
    verified: &Verified,
    refusal: ClaimRefusal,
) -> Refused {
    let ClaimRefusal { reason, message, detail } = refusal;
    tracing::info!(code = reason.code(), detail, request_id = request.request_id, "claim not confirmed");
    let denial = of_caller(broker, request, verified, reason.code());
    let refused = |id| match reason {
        ClaimReason::Unavailable => Refused::Unavailable { description: message, retry_after_s: 5 },
        _ => Refused::Request { description: message, decision_id: Some(id) },
    };
    note(broker, denial, refused).await
}

/// The request's own shape is at fault; it names nobody, so it is counted.
pub(crate) fn of_shape(broker: &Broker, request: &Request, description: &str) -> Refused {
    broker.noise.count("request", request.source, broker.clock.now());
    Refused::Request { description: description.to_owned(), decision_id: None }
}

pub(crate) async fn of_unknown_policy(broker: &Broker, request: &Request, verified: &Verified) -> Refused {
    let denial = of_caller(broker, request, verified, "no_match");
    note(broker, denial, |decision_id| Refused::Unnamed { decision_id }).await
}

/// The policy said no. Whom it names is told which clause, and what to do; nobody else learns anything.
pub(crate) async fn of_decision(
    broker: &Broker,
    context: &Context,
    id: DecisionId,
    provider: &str,
    named: bool,
    reasons: Vec<Reason>,
) -> Refused {
    let code = reasons.first().map_or("no_match", |reason| code(reason.clause));
    let told: Vec<_> = reasons.iter().map(|r| format!("{} {} ({})", r.message, r.remedy, r.rule)).collect();
    let mut denial = within(context, id, provider, code);
    denial.reasons = reasons;
    let refused = move |id| {
        if named {
            Refused::Target { description: told.join(" "), decision_id: id }
        } else {
            Refused::Unnamed { decision_id: id }
        }
    };
    note(broker, denial, refused).await
}

fn code(clause: Clause) -> &'static str {
    match clause {
        Clause::Who => "no_match",
        Clause::What => "target",
        Clause::Where => "where",
        Clause::When => "when",
        Clause::Attestation => "attestation",
        Clause::Approval => "approval",
        Clause::Guardrail => "guardrail",
        Clause::Freeze => "freeze",
        Clause::Error => "error",
    }
}

/// An admin has stopped it.
pub(crate) async fn of_freeze(broker: &Broker, context: &Context, freeze: &Freeze) -> Refused {
    let id = DecisionId::new(context.now, broker.random.id_bits());
    let (reason, description) = frozen(freeze);
    // Who set it and why is in the freeze's own record, where they can be erased.
    let message = format!("A freeze that was set at {} stops this.", shown(freeze.at));
    let reasons = vec![Reason { message, ..reason }];
    let denial = Denial { provider: None, reasons, ..within(context, id, "", "freeze") };
    note(broker, denial, |id| Refused::Target { description, decision_id: id }).await
}

/// A freeze as the rule that denied, and in words: by whom, since when, why, until when.
pub(crate) fn frozen(freeze: &Freeze) -> (Reason, String) {
    let message =
        format!("{} froze {} at {}: {}", freeze.by, freeze.scope.in_words(), shown(freeze.at), freeze.reason);
    let remedy = match freeze.until {
        Some(until) => {
            format!("It ends at {}; an admin can lift it before.", shown(until))
        }
        None => "It lasts until an admin lifts it.".to_owned(),
    };
    let rule = format!("freeze#{}", freeze.id);
    let description = format!("{message}. {remedy} ({rule})");
    (Reason { rule, clause: Clause::Freeze, message, remedy }, description)
}

fn shown(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

pub(crate) async fn of_unreadable_guardrails(
    broker: &Broker,
    context: &Context,
    id: DecisionId,
    provider: &str,
) -> Refused {
    let denial = within(context, id, provider, "guardrails_unreadable");
    note(broker, denial, |_| unavailable("the guardrails cannot be read; an operator has to look")).await
}

pub(crate) async fn of_unknown_target(
    broker: &Broker,
    context: &Context,
    id: DecisionId,
    provider: &str,
) -> Refused {
    let refused = |id| Refused::Target { description: NOT_FOR_YOU.to_owned(), decision_id: id };
    note(broker, within(context, id, provider, "target"), refused).await
}

/// The policy wants a request to come with something that this one does not have.
pub(crate) async fn of_missing(broker: &Broker, context: &Context, demand: Demand) -> Refused {
    let id = DecisionId::new(context.now, broker.random.id_bits());
    let mut denial = Denial { provider: None, ..within(context, id, "", code(Clause::Approval)) };
    let (policy, word) = (context.policy.name(), demand.as_str());
    let reason = Reason {
        rule: format!("{policy}#approval"),
        clause: Clause::Approval,
        message: format!("{policy} wants a {word} with each request for an approval."),
        remedy: format!("Send `{word}` in the body of POST /v1/credentials."),
    };
    let description = format!("{} {} ({})", reason.message, reason.remedy, reason.rule);
    denial.reasons = vec![reason];
    note(broker, denial, |id| Refused::Request { description, decision_id: Some(id) }).await
}

/// The target cannot be rendered for this run: a value that may not stand in it, or a limit of the provider.
pub(crate) async fn of_plan(
    broker: &Broker,
    context: &Context,
    id: DecisionId,
    provider: &str,
    refusal: Refusal,
) -> Refused {
    let mut denial = within(context, id, provider, "bad_value");
    denial.reasons = vec![Reason {
        rule: format!("{}#what", context.policy.name()),
        clause: Clause::What,
        message: refusal.message.clone(),
        remedy: refusal.remedy.clone(),
    }];
    let description = format!("{} {}", refusal.message, refusal.remedy);
    note(broker, denial, |id| Refused::Target { description, decision_id: id }).await
}

/// The record did not take the request: a token used twice is on record, a database that is away is not.
pub(crate) async fn of_record(broker: &Broker, context: &Context, error: RecordError) -> Refused {
    let id = DecisionId::new(context.now, broker.random.id_bits());
    match error {
        RecordError::Replayed => {
            let denial = Denial { provider: None, ..within(context, id, "", "replay") };
            let description =
                format!("{TOKEN_REFUSED}: it was used before, and its issuer's tokens are for one use");
            note(broker, denial, |id| Refused::Request { description, decision_id: Some(id) }).await
        }
        RecordError::GrantGone => unavailable("the approval changed while this was decided; ask again"),
        RecordError::Overtaken => unavailable("freezes are being set at the moment; ask again"),
        RecordError::Superseded => unavailable("the answer came too late; ask again"),
        RecordError::Unavailable(detail) => {
            tracing::warn!(detail, "refused because the record cannot be written");
            unavailable("the record cannot be written at the moment, so nothing is issued")
        }
        RecordError::Leaf(error) => {
            tracing::error!(%error, "refused because its record is too large");
            Refused::Request {
                description: "the request is too large to be recorded".into(),
                decision_id: None,
            }
        }
    }
}

/// What a caller is told of a mint that brought nothing. Its outcome is on record already.
pub(crate) fn of_mint(error: &MintError, decision_id: DecisionId) -> Refused {
    match error {
        MintError::Refused { code, message, remedy } => {
            Refused::Target { description: format!("{message} {remedy} ({code})"), decision_id }
        }
        MintError::Unavailable { message, retry_after } => {
            Refused::Unavailable { description: message.clone(), retry_after_s: retry_after.unwrap_or(5) }
        }
        MintError::Indeterminate { message } => {
            Refused::Unavailable { description: message.clone(), retry_after_s: 5 }
        }
        MintError::Mismatch { message, .. } => Refused::Failed { description: message.clone() },
    }
}

/// What a caller is told of a credential that is barred. That it is, is on record already.
pub(crate) fn of_bar(bar: &Bar, decision_id: DecisionId) -> Refused {
    let description = match bar {
        Bar::Frozen(freeze) => frozen(freeze).1,
        Bar::Revoked(id) => {
            format!("the credential was revoked ({id}); send a fresh subject token for a new one")
        }
    };
    Refused::Target { description, decision_id }
}

/// A refusal that asks the caller to come back.
pub(crate) fn unavailable(description: &str) -> Refused {
    Refused::Unavailable { description: description.to_owned(), retry_after_s: 2 }
}

fn within(context: &Context, decision_id: DecisionId, provider: &str, code: &str) -> Denial {
    Denial {
        decision_id,
        code: code.to_owned(),
        reasons: Vec::new(),
        principal: Some(context.principal().clone()),
        subject: context.subject.clone(),
        request_id: context.request.request_id.clone(),
        source: context.request.source.map(Into::into),
        policy: Some(context.policy.name().to_string()),
        policy_digest: Some(context.policy.digest()),
        provider: Some(bounded(provider)),
        claimed_run: context.request.claim.clone(),
        claimed_by: context.verified.claimed_by().map(str::to_owned),
    }
}

/// What is on record of a verified caller before there is a policy.
fn of_caller(broker: &Broker, request: &Request, verified: &Verified, code: &str) -> Denial {
    Denial {
        principal: Some(verified.principal().clone()),
        policy: Some(bounded(&request.policy)),
        claimed_by: verified.claimed_by().map(str::to_owned),
        ..blank(broker, request, code, verified.principal().subject())
    }
}

fn blank(broker: &Broker, request: &Request, code: &str, subject: String) -> Denial {
    Denial {
        decision_id: DecisionId::new(broker.clock.now(), broker.random.id_bits()),
        code: code.to_owned(),
        reasons: Vec::new(),
        principal: None,
        subject,
        request_id: request.request_id.clone(),
        source: request.source.map(Into::into),
        policy: None,
        policy_digest: None,
        provider: None,
        claimed_run: request.claim.clone(),
        claimed_by: None,
    }
}

fn bounded(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(NAME_MAX).collect()
}

/// Counts a denial and says it in the log. A policy's name is a label only where the policy exists: its version is known.
pub(crate) fn announce(denial: &Denial) {
    let policy = denial.policy.as_deref().filter(|_| denial.policy_digest.is_some());
    let policy = policy.and_then(|name| name.parse::<PolicyName>().ok());
    let label = policy.map_or(telemetry::NO_POLICY.into(), |name| telemetry::policy(&name));
    count(label, SharedString::from(denial.code.clone()));
    tracing::info!(
        decision_id = %denial.decision_id,
        request_id = denial.request_id,
        code = denial.code,
        policy = denial.policy,
        provider = denial.provider,
        "denied"
    );
}

fn count(policy: SharedString, reason: SharedString) {
    let labels = [("policy", policy), ("decision", "deny".into()), ("reason", reason)];
    metrics::counter!("cortex_decisions_total", &labels).increment(1);
}

/// Writes the denial down, and only then says no.
async fn note(broker: &Broker, denial: Denial, refused: impl FnOnce(DecisionId) -> Refused) -> Refused {
    let id = denial.decision_id;
    announce(&denial);
    match broker.recorder.note(What::Denial(Box::new(denial))).await {
        Ok(()) => refused(id),
        Err(error) => {
            tracing::warn!(%error, "a denial could not be recorded");
            unavailable("the record cannot be written at the moment")
        }
    }
}
