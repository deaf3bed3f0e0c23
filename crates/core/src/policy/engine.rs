//! The one place that talks to Cedar: the schema, typed requests and answers.
//!
//! Requests are made of Cedar's own values, and a rule's condition is built when the rule is compiled: Cedar's
//! front door evaluates every attribute as an expression, parses its constructors' names and puts each
//! condition together anew, for every question.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwapOption;
use cedar_policy::ffi::DetailedError;
use cedar_policy::{Policy, PolicySet, Schema, ValidationMode, Validator};
use cedar_policy_core::ast::{
    Context, Eid, Entity, EntityType, EntityUID, Expr, Literal, Name, PartialValue, Request,
    RequestSchemaAllPass, RestrictedExpr, SlotEnv, Value, ValueKind,
};
use cedar_policy_core::entities::{Entities, NoEntitiesSchema, TCComputation};
use cedar_policy_core::evaluator::{Evaluator, RestrictedEvaluator};
use cedar_policy_core::extensions::Extensions;
use jiff::{SignedDuration, Timestamp};

use super::time::Wall;
use super::tree::Scope;
use crate::principal::{Principal, Run};

/// The words that policies and guardrails are written in. A claim that a run may lack is optional here, so that
/// Cedar's validator refuses a rule that reads it without asking whether it is there. `local_minute`, `weekday` and
/// `yesterday` are on the clock of the asked policy's time zone; `now` is the instant.
pub(super) const SCHEMA: &str = r"
entity Run = {
  issuer: String, dag_id: String, run_id: String, task_id: String, map_index?: Long, try_number: Long,
  run_type?: String, triggered_by?: String, triggering_user?: String, team?: String, bundle?: String,
  tags: Set<String>, attestation: String,
};
entity Policy;
action issue appliesTo {
  principal: [Run],
  resource: [Policy],
  context: {
    now: datetime, local_minute: Long, weekday: String, yesterday: String, source_ip?: ipaddr,
    provider: String, resource: String, approved: Bool, break_glass: Bool, ttl_seconds: Long,
  },
};
";

pub(super) const RUN: &str = "Run";
pub(super) const POLICY: &str = "Policy";
pub(super) const ACTION: &str = "Action";
pub(super) const ISSUE: &str = "issue";

/// What is parsed once and shared by every policy.
pub(super) struct Engine {
    /// What rules are about, for compiling them.
    pub(super) scope: Scope,
    validator: Validator,
    run: EntityType,
    policy: EntityType,
    action: EntityUID,
    datetime: Name,
    ip: Name,
    /// The last instant that was asked about, in milliseconds, and what Cedar makes of it.
    now: ArcSwapOption<(i64, Value)>,
}

/// The shared engine. Its schema is fixed, so an error is a fault of this program: nothing compiles then.
pub(super) fn engine() -> Result<&'static Engine, &'static str> {
    static ENGINE: LazyLock<Result<Engine, String>> = LazyLock::new(Engine::new);
    ENGINE.as_ref().map_err(String::as_str)
}

/// Rules, ready to be asked: the id of each, and its condition.
#[derive(Debug, Default)]
pub(super) struct RuleSet(Vec<(Box<str>, Expr)>);

impl RuleSet {
    /// Adds a rule with its scope.
    pub(super) fn push(&mut self, id: &str, rule: &Policy) {
        self.0.push((id.into(), rule.as_ref().condition()));
    }

    /// Adds a rule whose scope is the very question that it is asked, as that of every policy's own rules is:
    /// a run asks for this policy. So it need be neither kept nor evaluated.
    pub(super) fn push_in_scope(&mut self, rule: &Policy) {
        let condition = rule.as_ref().non_scope_constraints().cloned();
        self.0.push((AsRef::<str>::as_ref(rule.id()).into(), condition.unwrap_or_else(|| Expr::val(true))));
    }
}

/// What one request says beside the principal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Circumstances<'a> {
    pub(super) policy: &'a str,
    pub(super) provider: &'a str,
    pub(super) resource: &'a str,
    pub(super) source_ip: Option<IpAddr>,
    pub(super) now: Timestamp,
    pub(super) wall: Wall,
    pub(super) ttl: SignedDuration,
    pub(super) approved: bool,
    pub(super) break_glass: bool,
}

/// A request and the run's attributes, ready to be asked of several sets.
pub(super) struct Question {
    request: Request,
    entities: Entities,
}

/// Which rules hold, and which could not be evaluated.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) rules: Vec<String>,
    pub(super) errors: Vec<String>,
}

impl Question {
    /// The rules of `set` that hold.
    pub(super) fn ask(&self, set: &RuleSet) -> Answer {
        let evaluator = Evaluator::new(self.request.clone(), &self.entities, Extensions::all_available());
        let mut answer = Answer::default();
        for (id, condition) in &set.0 {
            let held = evaluator.interpret(condition, &SlotEnv::new());
            match held.as_ref().map(Value::value_kind) {
                Ok(ValueKind::Lit(Literal::Bool(true))) => answer.rules.push(id.to_string()),
                Ok(ValueKind::Lit(Literal::Bool(false))) => {}
                Ok(_) | Err(_) => answer.errors.push(id.to_string()),
            }
        }
        answer
    }
}

impl Engine {
    fn new() -> Result<Self, String> {
        let (schema, _warnings) = Schema::from_cedarschema_str(SCHEMA).map_err(|e| e.to_string())?;
        let name = |text: &str| Name::parse_unqualified_name(text).map_err(|e| e.to_string());
        let kind = |text: &str| name(text).map(EntityType::from);
        Ok(Self {
            scope: Scope::new().map_err(|e| e.to_string())?,
            validator: Validator::new(schema),
            run: kind(RUN)?,
            policy: kind(POLICY)?,
            action: EntityUID::from_components(kind(ACTION)?, Eid::new(ISSUE), None),
            datetime: name("datetime")?,
            ip: name("ip")?,
            now: ArcSwapOption::empty(),
        })
    }

    /// What strict validation says against `rules`; a warning (a rule that can never hold, text that looks like
    /// other text) counts.
    pub(super) fn faults(&self, rules: &PolicySet) -> Vec<DetailedError> {
        let result = self.validator.validate(rules, ValidationMode::Strict);
        let errors = result.validation_errors().map(DetailedError::from);
        errors.chain(result.validation_warnings().map(DetailedError::from)).collect()
    }

    /// Builds a request. The error is Cedar's; a request that cannot be built is denied.
    pub(super) fn question(
        &self,
        principal: &Principal,
        run: &Run,
        circumstances: &Circumstances<'_>,
    ) -> Result<Question, String> {
        let uid = EntityUID::from_components(self.run.clone(), Eid::new(principal.subject()), None);
        let policy = EntityUID::from_components(self.policy.clone(), Eid::new(circumstances.policy), None);
        let request = Request::new(
            (uid.clone(), None),
            (self.action.clone(), None),
            (policy, None),
            self.context(circumstances)?,
            None::<&RequestSchemaAllPass>,
            Extensions::all_available(),
        )
        .map_err(|e| e.to_string())?;
        let entities = Entities::from_entities(
            [entity(uid, run)],
            None::<&NoEntitiesSchema>,
            // A run has no parents, so there is no hierarchy to compute.
            TCComputation::AssumeAlreadyComputed,
            Extensions::all_available(),
        )
        .map_err(|e| e.to_string())?;
        Ok(Question { request, entities })
    }

    /// An instant, as Cedar reads it from its text, which takes a while: many ask at the same one.
    fn now(&self, at: Timestamp) -> Result<Value, String> {
        if let Some(last) = self.now.load().as_ref().filter(|last| last.0 == at.as_millisecond()) {
            return Ok(last.1.clone());
        }
        let now = call(&self.datetime, &at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string())?;
        self.now.store(Some(Arc::new((at.as_millisecond(), now.clone()))));
        Ok(now)
    }

    fn context(&self, c: &Circumstances<'_>) -> Result<Context, String> {
        let now = self.now(c.now)?;
        // A mapped address (RFC 4291, section 2.5.5.2) is the IPv4 address that it carries.
        let source = c.source_ip.map(|ip| call(&self.ip, &ip.to_canonical().to_string())).transpose()?;
        let pairs = [
            ("now", now),
            ("local_minute", c.wall.minute.into()),
            ("weekday", c.wall.weekday.as_str().into()),
            ("yesterday", c.wall.yesterday.as_str().into()),
            ("provider", c.provider.into()),
            ("resource", c.resource.into()),
            ("approved", c.approved.into()),
            ("break_glass", c.break_glass.into()),
            ("ttl_seconds", seconds_up(c.ttl).into()),
        ];
        let source = source.map(|ip| ("source_ip", ip));
        let pairs = pairs.into_iter().chain(source).map(|(name, value)| (name.into(), value));
        Ok(Context::Value(Arc::new(pairs.collect())))
    }
}

#[cfg(test)]
impl RuleSet {
    pub(super) fn conditions(&self) -> impl Iterator<Item = &Expr> {
        self.0.iter().map(|(_, condition)| condition)
    }
}

/// The value that one of Cedar's constructors makes of `text`.
fn call(constructor: &Name, text: &str) -> Result<Value, String> {
    let call = RestrictedExpr::call_extension_fn(constructor.clone(), [RestrictedExpr::val(text)]);
    let evaluator = RestrictedEvaluator::new(Extensions::all_available());
    evaluator.interpret(call.as_borrowed()).map_err(|e| e.to_string())
}

fn entity(uid: EntityUID, run: &Run) -> Entity {
    let Run {
        issuer,
        dag_id,
        run_id,
        task_id,
        map_index,
        try_number,
        run_type,
        triggered_by,
        triggering_user,
        team,
        bundle,
        tags,
        attestation,
    } = run;
    let required = [
        ("issuer", issuer.as_str().into()),
        ("dag_id", dag_id.as_str().into()),
        ("run_id", run_id.as_str().into()),
        ("task_id", task_id.as_str().into()),
        ("try_number", i64::from(*try_number).into()),
        ("tags", Value::set(tags.iter().map(|tag| Value::from(tag.as_str())), None)),
        ("attestation", attestation.as_str().into()),
    ];
    let optional = [
        ("run_type", run_type.as_ref().map(|v| v.as_str().into())),
        ("triggered_by", triggered_by.as_ref().map(|v| v.as_str().into())),
        ("triggering_user", triggering_user.as_deref().map(Value::from)),
        ("team", team.as_ref().map(|v| v.as_str().into())),
        ("bundle", bundle.as_ref().map(|v| v.as_str().into())),
        ("map_index", map_index.map(|v| i64::from(v).into())),
    ];
    let present = optional.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let attributes = required.into_iter().chain(present);
    let attributes = attributes.map(|(name, value)| (name.into(), PartialValue::Value(value)));
    Entity::new_with_attr_partial_value(uid, attributes, HashSet::new(), HashSet::new(), [])
}

/// Whole seconds, rounded up: a ceiling must not be passed by a fraction.
fn seconds_up(ttl: SignedDuration) -> i64 {
    ttl.as_secs().saturating_add(i64::from(ttl.subsec_nanos() > 0))
}

#[cfg(test)]
pub(super) mod tests {
    use cedar_policy_core::validator::{CoreSchema, ValidatorSchema};

    use super::*;
    use crate::policy::{Ask, Policy};

    /// The schema, as Cedar checks requests and entities against it.
    pub(in crate::policy) fn schema() -> ValidatorSchema {
        ValidatorSchema::from_cedarschema_str(SCHEMA, Extensions::all_available()).unwrap().0
    }

    /// That the request which `policy` puts to Cedar for `ask` is one that `schema` describes.
    pub(in crate::policy) fn conforms(policy: &Policy, ask: &Ask<'_>, schema: &ValidatorSchema) {
        let engine = policy.engine;
        let circumstances = Circumstances {
            policy: policy.name().as_str(),
            provider: ask.provider,
            resource: "aws:r",
            source_ip: ask.source_ip,
            now: ask.now,
            wall: crate::policy::time::Zone::default().wall(ask.now),
            ttl: ask.ttl,
            approved: ask.approved,
            break_glass: ask.break_glass,
        };
        let run = ask.principal.as_run().unwrap();
        let Question { request, entities } = engine.question(ask.principal, run, &circumstances).unwrap();
        let uid = |entry: &cedar_policy_core::ast::EntityUIDEntry| (entry.uid().unwrap().clone(), None);
        Request::new(
            uid(request.principal()),
            uid(request.action()),
            uid(request.resource()),
            request.context().unwrap().clone(),
            Some(schema),
            Extensions::all_available(),
        )
        .unwrap();
        Entities::from_entities(
            entities.iter().cloned(),
            Some(&CoreSchema::new(schema)),
            TCComputation::ComputeNow,
            Extensions::all_available(),
        )
        .unwrap();
    }
}
