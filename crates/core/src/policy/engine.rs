//! The one place that talks to Cedar: the schema, typed requests and answers.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use cedar_policy::ffi::DetailedError;
use cedar_policy::{
    AuthorizationError, Authorizer, Context, Entities, Entity, EntityId, EntityTypeName, EntityUid,
    PolicySet, Request, RestrictedExpression as Value, Schema, ValidationMode, Validator, pst,
};
use cedar_policy_core::ast::{Name, RestrictedExpr};
use jiff::{SignedDuration, Timestamp};

use super::time::Wall;
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
    provider: String, resource: String, approved: Bool, ttl_seconds: Long,
  },
};
";

pub(super) const RUN: &str = "Run";
pub(super) const POLICY: &str = "Policy";
pub(super) const ACTION: &str = "Action";
pub(super) const ISSUE: &str = "issue";

/// What is parsed once and shared by every policy.
pub(super) struct Engine {
    authorizer: Authorizer,
    validator: Validator,
    run: EntityTypeName,
    policy: EntityTypeName,
    action: EntityUid,
    constructors: Constructors,
}

/// The names of Cedar's constructors, parsed once: `RestrictedExpression::new_ip` and its like parse them at
/// every call, which is a quarter of the time of a decision.
struct Constructors {
    datetime: Name,
    ip: Name,
}

impl Constructors {
    fn new() -> Result<Self, String> {
        let name = |text: &str| Name::parse_unqualified_name(text).map_err(|e| e.to_string());
        Ok(Self { datetime: name("datetime")?, ip: name("ip")? })
    }

    fn datetime(&self, at: Timestamp) -> Value {
        call(&self.datetime, &at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string())
    }

    fn ip(&self, address: IpAddr) -> Value {
        call(&self.ip, &address.to_string())
    }
}

fn call(constructor: &Name, text: &str) -> Value {
    RestrictedExpr::call_extension_fn(constructor.clone(), [RestrictedExpr::val(text)]).into()
}

/// The shared engine. Its schema is fixed, so an error is a fault of this program: nothing compiles then.
pub(super) fn engine() -> Result<&'static Engine, &'static str> {
    static ENGINE: LazyLock<Result<Engine, String>> = LazyLock::new(Engine::new);
    ENGINE.as_ref().map_err(String::as_str)
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

impl Engine {
    fn new() -> Result<Self, String> {
        let (schema, _warnings) = Schema::from_cedarschema_str(SCHEMA).map_err(|e| e.to_string())?;
        let name = |text: &str| text.parse::<EntityTypeName>().map_err(|e| e.to_string());
        Ok(Self {
            authorizer: Authorizer::new(),
            validator: Validator::new(schema),
            run: name(RUN)?,
            policy: name(POLICY)?,
            action: EntityUid::from_type_name_and_id(name(ACTION)?, EntityId::new(ISSUE)),
            constructors: Constructors::new()?,
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
        let uid = EntityUid::from_type_name_and_id(self.run.clone(), EntityId::new(principal.subject()));
        let policy =
            EntityUid::from_type_name_and_id(self.policy.clone(), EntityId::new(circumstances.policy));
        let entity = Entity::new(uid.clone(), attributes(run), HashSet::new()).map_err(|e| e.to_string())?;
        let context =
            Context::from_pairs(context(&self.constructors, circumstances)).map_err(|e| e.to_string())?;
        let request =
            Request::new(uid, self.action.clone(), policy, context, None).map_err(|e| e.to_string())?;
        let entities = Entities::from_entities([entity], None).map_err(|e| e.to_string())?;
        Ok(Question { request, entities })
    }

    /// The rules of `set` that hold. In a set of forbids alone, or of permits alone, these are all of them.
    pub(super) fn ask(&self, set: &PolicySet, question: &Question) -> Answer {
        let response = self.authorizer.is_authorized(&question.request, set, &question.entities);
        let diagnostics = response.diagnostics();
        Answer {
            rules: diagnostics.reason().map(|id| AsRef::<str>::as_ref(id).to_owned()).collect(),
            errors: diagnostics
                .errors()
                .map(|AuthorizationError::PolicyEvaluationError(error)| error.policy_id().to_string())
                .collect(),
        }
    }
}

fn attributes(run: &Run) -> HashMap<String, Value> {
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
    let text = |text: &str| Value::new_string(text.to_owned());
    let optional = [
        ("run_type", run_type.as_ref().map(|v| text(v.as_str()))),
        ("triggered_by", triggered_by.as_ref().map(|v| text(v.as_str()))),
        ("triggering_user", triggering_user.as_deref().map(text)),
        ("team", team.as_ref().map(|v| text(v.as_str()))),
        ("bundle", bundle.as_ref().map(|v| text(v.as_str()))),
        ("map_index", map_index.map(|v| Value::new_long(v.into()))),
    ];
    let required = [
        ("issuer", text(issuer.as_str())),
        ("dag_id", text(dag_id.as_str())),
        ("run_id", text(run_id.as_str())),
        ("task_id", text(task_id.as_str())),
        ("try_number", Value::new_long((*try_number).into())),
        ("tags", Value::new_set(tags.iter().map(|tag| text(tag)))),
        ("attestation", text(attestation.as_str())),
    ];
    let present = optional.into_iter().filter_map(|(name, value)| Some((name, value?)));
    required.into_iter().chain(present).map(|(name, value)| (name.to_owned(), value)).collect()
}

fn context(constructors: &Constructors, c: &Circumstances<'_>) -> Vec<(String, Value)> {
    let text = |text: &str| Value::new_string(text.to_owned());
    let pair = |name: &str, value| (name.to_owned(), value);
    let mut pairs = vec![
        pair("now", constructors.datetime(c.now)),
        pair("local_minute", Value::new_long(c.wall.minute)),
        pair("weekday", text(c.wall.weekday.as_str())),
        pair("yesterday", text(c.wall.yesterday.as_str())),
        pair("provider", text(c.provider)),
        pair("resource", text(c.resource)),
        pair("approved", Value::new_bool(c.approved)),
        pair("ttl_seconds", Value::new_long(seconds_up(c.ttl))),
    ];
    // A mapped address (RFC 4291, section 2.5.5.2) is the IPv4 address that it carries.
    pairs.extend(c.source_ip.map(|ip| pair("source_ip", constructors.ip(ip.to_canonical()))));
    pairs
}

/// Whole seconds, rounded up: a ceiling must not be passed by a fraction.
fn seconds_up(ttl: SignedDuration) -> i64 {
    ttl.as_secs().saturating_add(i64::from(ttl.subsec_nanos() > 0))
}

/// Short constructors for Cedar's typed syntax tree. Text only ever becomes a literal, never syntax.
pub(super) mod tree {
    use super::{Arc, pst};
    use pst::{BinaryOp, Expr, Literal, PatternElem, PstConstructionError, UnaryOp, Var};

    pub(in crate::policy) type Tree = Arc<Expr>;

    pub(in crate::policy) fn principal(attr: &str) -> Tree {
        get(Var::Principal, attr)
    }

    pub(in crate::policy) fn context(attr: &str) -> Tree {
        get(Var::Context, attr)
    }

    fn get(var: Var, attr: &str) -> Tree {
        Arc::new(Expr::GetAttr { expr: Arc::new(Expr::Var(var)), attr: attr.into() })
    }

    pub(in crate::policy) fn principal_has(attr: &str) -> Tree {
        has(Var::Principal, attr)
    }

    pub(in crate::policy) fn context_has(attr: &str) -> Tree {
        has(Var::Context, attr)
    }

    fn has(var: Var, attr: &str) -> Tree {
        Arc::new(Expr::HasAttr { expr: Arc::new(Expr::Var(var)), attrs: pst::NonEmpty::new(attr.into()) })
    }

    pub(in crate::policy) fn text(text: &str) -> Tree {
        Arc::new(Expr::Literal(Literal::String(text.into())))
    }

    pub(in crate::policy) fn set(texts: &[&str]) -> Tree {
        Arc::new(Expr::Set(texts.iter().map(|member| text(member)).collect()))
    }

    pub(in crate::policy) fn long(number: i64) -> Tree {
        Arc::new(Expr::Literal(Literal::Long(number)))
    }

    pub(in crate::policy) fn boolean(value: bool) -> Tree {
        Arc::new(Expr::Literal(Literal::Bool(value)))
    }

    pub(in crate::policy) fn ip(network: &str) -> Tree {
        Arc::new(Expr::UnaryOp { op: UnaryOp::Ip, expr: text(network) })
    }

    pub(in crate::policy) fn binary(left: Tree, op: BinaryOp, right: Tree) -> Tree {
        Arc::new(Expr::BinaryOp { op, left, right })
    }

    /// `value like pattern`, where `*` is the wildcard and everything else is itself.
    pub(in crate::policy) fn like(value: Tree, pattern: &str) -> Tree {
        let elem = |c| {
            if c == '*' { PatternElem::Wildcard } else { PatternElem::Char(c) }
        };
        Arc::new(Expr::Like { expr: value, pattern: pattern.chars().map(elem).collect() })
    }

    pub(in crate::policy) fn if_else(cond: Tree, then: Tree, other: Tree) -> Tree {
        Arc::new(Expr::IfThenElse { cond, then_expr: then, else_expr: other })
    }

    pub(in crate::policy) fn and(all: Vec<Tree>) -> Tree {
        fold(all, BinaryOp::And, true)
    }

    pub(in crate::policy) fn or(any: Vec<Tree>) -> Tree {
        fold(any, BinaryOp::Or, false)
    }

    /// A balanced tree, so that a long list does not become a deep one.
    fn fold(mut terms: Vec<Tree>, op: BinaryOp, empty: bool) -> Tree {
        if terms.len() <= 1 {
            return terms.pop().unwrap_or_else(|| boolean(empty));
        }
        let right = terms.split_off(terms.len() / 2);
        binary(fold(terms, op, empty), op, fold(right, op, empty))
    }

    /// An entity, for the scope of a rule.
    pub(in crate::policy) fn entity(ty: &str, id: &str) -> Result<pst::EntityUID, PstConstructionError> {
        Ok(pst::EntityUID { ty: entity_type(ty)?, eid: id.into() })
    }

    /// An entity type, for the scope of a rule.
    pub(in crate::policy) fn entity_type(name: &str) -> Result<pst::EntityType, PstConstructionError> {
        Ok(pst::EntityType::from_name(pst::Name::unqualified(name)?))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::policy::{Ask, Policy};

    /// That the request which `policy` puts to Cedar for `ask` is one that `schema` describes.
    pub(in crate::policy) fn conforms(policy: &Policy, ask: &Ask<'_>, schema: &Schema) {
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
        };
        let run = ask.principal.as_run().unwrap();
        let uid =
            EntityUid::from_type_name_and_id(engine.run.clone(), EntityId::new(ask.principal.subject()));
        let resource = EntityUid::from_type_name_and_id(engine.policy.clone(), EntityId::new("p"));
        let context = Context::from_pairs(context(&engine.constructors, &circumstances)).unwrap();
        Request::new(uid.clone(), engine.action.clone(), resource, context, Some(schema)).unwrap();
        let entity = Entity::new(uid, attributes(run), HashSet::new()).unwrap();
        Entities::from_entities([entity], Some(schema)).unwrap();
    }
}
