//! Short constructors for Cedar's typed syntax tree. Text only ever becomes a literal, never syntax.

use std::sync::Arc;

use cedar_policy::pst::{self, BinaryOp, Expr, Literal, PatternElem, PstConstructionError, UnaryOp, Var};

use super::engine::{ACTION, ISSUE, POLICY, RUN};

pub(super) type Tree = Arc<Expr>;

pub(super) fn principal(attr: &str) -> Tree {
    get(Var::Principal, attr)
}

pub(super) fn context(attr: &str) -> Tree {
    get(Var::Context, attr)
}

fn get(var: Var, attr: &str) -> Tree {
    Arc::new(Expr::GetAttr { expr: Arc::new(Expr::Var(var)), attr: attr.into() })
}

pub(super) fn principal_has(attr: &str) -> Tree {
    has(Var::Principal, attr)
}

pub(super) fn context_has(attr: &str) -> Tree {
    has(Var::Context, attr)
}

fn has(var: Var, attr: &str) -> Tree {
    Arc::new(Expr::HasAttr { expr: Arc::new(Expr::Var(var)), attrs: pst::NonEmpty::new(attr.into()) })
}

pub(super) fn text(text: &str) -> Tree {
    Arc::new(Expr::Literal(Literal::String(text.into())))
}

pub(super) fn set(texts: &[&str]) -> Tree {
    Arc::new(Expr::Set(texts.iter().map(|member| text(member)).collect()))
}

pub(super) fn long(number: i64) -> Tree {
    Arc::new(Expr::Literal(Literal::Long(number)))
}

pub(super) fn boolean(value: bool) -> Tree {
    Arc::new(Expr::Literal(Literal::Bool(value)))
}

pub(super) fn ip(network: &str) -> Tree {
    Arc::new(Expr::UnaryOp { op: UnaryOp::Ip, expr: text(network) })
}

pub(super) fn binary(left: Tree, op: BinaryOp, right: Tree) -> Tree {
    Arc::new(Expr::BinaryOp { op, left, right })
}

/// `value like pattern`, where `*` is the wildcard and everything else is itself.
pub(super) fn like(value: Tree, pattern: &str) -> Tree {
    let elem = |c| {
        if c == '*' { PatternElem::Wildcard } else { PatternElem::Char(c) }
    };
    Arc::new(Expr::Like { expr: value, pattern: pattern.chars().map(elem).collect() })
}

pub(super) fn if_else(cond: Tree, then: Tree, other: Tree) -> Tree {
    Arc::new(Expr::IfThenElse { cond, then_expr: then, else_expr: other })
}

pub(super) fn and(all: Vec<Tree>) -> Tree {
    fold(all, BinaryOp::And, true)
}

pub(super) fn or(any: Vec<Tree>) -> Tree {
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

/// The scope of a rule: which kind of principal, which action, which policy. Its names are parsed once, which
/// is most of the time of compiling a rule.
pub(super) struct Scope {
    run: pst::EntityType,
    issue: pst::EntityUID,
    policy: pst::EntityType,
}

impl Scope {
    pub(super) fn new() -> Result<Self, PstConstructionError> {
        let kind = |name: &str| pst::Name::unqualified(name).map(pst::EntityType::from_name);
        let issue = pst::EntityUID { ty: kind(ACTION)?, eid: ISSUE.into() };
        Ok(Self { run: kind(RUN)?, issue, policy: kind(POLICY)? })
    }

    /// A rule that applies to runs that ask for the policy `policy`.
    pub(super) fn rule(&self, id: &str, effect: pst::Effect, policy: &str) -> pst::Template {
        let policy = pst::EntityUID { ty: self.policy.clone(), eid: policy.into() };
        pst::Template::new(
            id,
            effect,
            pst::PrincipalConstraint::Is(self.run.clone()),
            pst::ActionConstraint::Eq(self.issue.clone()),
            pst::ResourceConstraint::Eq(pst::EntityOrSlot::Entity(policy)),
        )
    }
}
