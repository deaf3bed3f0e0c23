//! An IAM policy document, parsed. What AWS would call malformed is refused here; what AWS knows and the
//! sandbox does not makes its statement fail closed: an allow never matches, a deny always does.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// Why a text is no policy document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(pub(crate) String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Effect {
    Allow,
    Deny,
}

/// What a statement covers: `Action` or `NotAction`, `Resource` or `NotResource`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selection {
    In(Vec<String>),
    NotIn(Vec<String>),
}

/// The condition operators that the sandbox decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    StringEquals,
    StringNotEquals,
    StringLike,
    DateLessThan,
    DateGreaterThan,
    Bool,
    Null,
    /// AWS knows it and the sandbox does not.
    Unsupported,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) operator: Operator,
    /// In lower case: AWS compares keys without regard to case.
    pub(crate) key: String,
    pub(crate) values: Vec<String>,
}

/// Whom a trust policy's statement names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Principals {
    /// ARNs, account ids or `*`.
    pub(crate) aws: Vec<String>,
    /// ARNs of OIDC providers.
    pub(crate) federated: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement {
    pub(crate) effect: Effect,
    pub(crate) principals: Option<Principals>,
    pub(crate) actions: Selection,
    /// None in a trust policy: the role itself.
    pub(crate) resources: Option<Selection>,
    pub(crate) conditions: Vec<Condition>,
    /// It uses a policy variable, which the sandbox does not fill in.
    pub(crate) has_variable: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Document {
    pub(crate) statements: Vec<Statement>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    fn into_vec(self) -> Vec<T> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct RawDocument {
    version: Option<String>,
    #[serde(rename = "Id")]
    _id: Option<String>,
    statement: OneOrMany<RawStatement>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct RawStatement {
    sid: Option<String>,
    effect: Effect,
    principal: Option<Value>,
    action: Option<OneOrMany<String>>,
    not_action: Option<OneOrMany<String>>,
    resource: Option<OneOrMany<String>>,
    not_resource: Option<OneOrMany<String>>,
    condition: Option<BTreeMap<String, BTreeMap<String, Value>>>,
}

/// The base names of the operators that AWS has; each may have the suffix `IfExists` and a set prefix.
const KNOWN_OPERATORS: &[&str] = &[
    "StringEquals",
    "StringNotEquals",
    "StringEqualsIgnoreCase",
    "StringNotEqualsIgnoreCase",
    "StringLike",
    "StringNotLike",
    "NumericEquals",
    "NumericNotEquals",
    "NumericLessThan",
    "NumericLessThanEquals",
    "NumericGreaterThan",
    "NumericGreaterThanEquals",
    "DateEquals",
    "DateNotEquals",
    "DateLessThan",
    "DateLessThanEquals",
    "DateGreaterThan",
    "DateGreaterThanEquals",
    "Bool",
    "BinaryEquals",
    "IpAddress",
    "NotIpAddress",
    "ArnEquals",
    "ArnLike",
    "ArnNotEquals",
    "ArnNotLike",
    "Null",
];

impl Document {
    /// Parses an identity or session policy: it names resources and no principals.
    pub(crate) fn permissions(text: &str) -> Result<Self, Malformed> {
        let document = Self::parse(text)?;
        for statement in &document.statements {
            if statement.principals.is_some() {
                return Err(Malformed("Policy document should not specify a principal.".to_owned()));
            }
            let Some(Selection::In(resources) | Selection::NotIn(resources)) = &statement.resources else {
                return Err(Malformed("Policy statement must contain resources.".to_owned()));
            };
            if let Some(bad) = resources.iter().find(|r| *r != "*" && !is_arn(r)) {
                return Err(Malformed(format!("Resource {bad} must be in ARN format or \"*\".")));
            }
        }
        Ok(document)
    }

    /// Parses a trust policy: it names principals and no resources.
    pub(crate) fn trust(text: &str) -> Result<Self, Malformed> {
        let document = Self::parse(text)?;
        for statement in &document.statements {
            if statement.principals.is_none() {
                return Err(Malformed("Missing required field Principal".to_owned()));
            }
            if statement.resources.is_some() {
                return Err(Malformed("Has prohibited field Resource".to_owned()));
            }
        }
        Ok(document)
    }

    fn parse(text: &str) -> Result<Self, Malformed> {
        // The untagged types hide why a statement does not read; one look at the JSON itself comes first.
        serde_json::from_str::<Value>(text).map_err(|_| Malformed("Policy is not valid JSON.".to_owned()))?;
        let raw: RawDocument =
            serde_json::from_str(text).map_err(|_| Malformed("Syntax errors in policy.".to_owned()))?;
        if !matches!(raw.version.as_deref(), None | Some("2012-10-17" | "2008-10-17")) {
            return Err(Malformed("The policy has an unknown version.".to_owned()));
        }
        let statements: Vec<_> =
            raw.statement.into_vec().into_iter().map(statement).collect::<Result<_, _>>()?;
        if statements.is_empty() {
            return Err(Malformed("The policy has no statement.".to_owned()));
        }
        Ok(Self { statements })
    }
}

fn statement(raw: RawStatement) -> Result<Statement, Malformed> {
    if let Some(sid) = raw.sid.filter(|sid| !sid.bytes().all(|b| b.is_ascii_alphanumeric())) {
        return Err(Malformed(format!("Statement IDs (SID) must be alpha-numeric: {sid}")));
    }
    let actions = selection(raw.action, raw.not_action)?
        .ok_or_else(|| Malformed("Policy statement must contain actions.".to_owned()))?;
    let (Selection::In(names) | Selection::NotIn(names)) = &actions;
    if let Some(bad) = names.iter().find(|name| *name != "*" && !is_action(name)) {
        return Err(Malformed(format!("Actions/Conditions must be prefaced by a vendor: {bad}")));
    }
    let resources = selection(raw.resource, raw.not_resource)?;
    let conditions = conditions(raw.condition.unwrap_or_default())?;
    let in_resources = resources.as_ref().is_some_and(|selection| {
        let (Selection::In(texts) | Selection::NotIn(texts)) = selection;
        texts.iter().any(|text| text.contains("${"))
    });
    let in_conditions = conditions.iter().any(|c| c.values.iter().any(|value| value.contains("${")));
    Ok(Statement {
        effect: raw.effect,
        principals: raw.principal.as_ref().map(principals).transpose()?,
        actions,
        resources,
        conditions,
        has_variable: in_resources || in_conditions,
    })
}

fn selection(
    included: Option<OneOrMany<String>>,
    excluded: Option<OneOrMany<String>>,
) -> Result<Option<Selection>, Malformed> {
    let selection = match (included, excluded) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => return Err(Malformed("Syntax errors in policy.".to_owned())),
        (Some(included), None) => Selection::In(included.into_vec()),
        (None, Some(excluded)) => Selection::NotIn(excluded.into_vec()),
    };
    let (Selection::In(texts) | Selection::NotIn(texts)) = &selection;
    if texts.is_empty() || texts.iter().any(String::is_empty) {
        return Err(Malformed("Policy statement must contain actions and resources.".to_owned()));
    }
    Ok(Some(selection))
}

fn principals(raw: &Value) -> Result<Principals, Malformed> {
    if raw == "*" {
        return Ok(Principals { aws: vec!["*".to_owned()], federated: Vec::new() });
    }
    let kinds = raw.as_object().filter(|kinds| !kinds.is_empty());
    let kinds = kinds.ok_or_else(|| Malformed("Invalid principal in policy".to_owned()))?;
    let mut principals = Principals::default();
    for (kind, names) in kinds {
        let names = match names {
            Value::String(name) => vec![name.clone()],
            Value::Array(names) => names.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect(),
            _ => return Err(Malformed("Invalid principal in policy".to_owned())),
        };
        match kind.as_str() {
            "AWS" => principals.aws = names,
            "Federated" => principals.federated = names,
            "Service" | "CanonicalUser" => {}
            _ => return Err(Malformed("Invalid principal in policy".to_owned())),
        }
    }
    Ok(principals)
}

fn conditions(raw: BTreeMap<String, BTreeMap<String, Value>>) -> Result<Vec<Condition>, Malformed> {
    let mut conditions = Vec::new();
    for (name, keys) in raw {
        let operator = operator(&name)?;
        for (key, values) in keys {
            let values = match values {
                Value::Array(values) => values.into_iter().map(scalar).collect::<Result<_, _>>()?,
                one => vec![scalar(one)?],
            };
            conditions.push(Condition { operator, key: key.to_ascii_lowercase(), values });
        }
    }
    Ok(conditions)
}

fn operator(name: &str) -> Result<Operator, Malformed> {
    let base = name.strip_prefix("ForAllValues:").or_else(|| name.strip_prefix("ForAnyValue:"));
    let base = base.unwrap_or(name);
    let base = base.strip_suffix("IfExists").unwrap_or(base);
    if !KNOWN_OPERATORS.contains(&base) {
        return Err(Malformed(format!("Invalid Condition type : {name}.")));
    }
    Ok(match name {
        "StringEquals" => Operator::StringEquals,
        "StringNotEquals" => Operator::StringNotEquals,
        "StringLike" => Operator::StringLike,
        "DateLessThan" => Operator::DateLessThan,
        "DateGreaterThan" => Operator::DateGreaterThan,
        "Bool" => Operator::Bool,
        "Null" => Operator::Null,
        _ => Operator::Unsupported,
    })
}

fn scalar(value: Value) -> Result<String, Malformed> {
    match value {
        Value::String(text) => Ok(text),
        Value::Bool(truth) => Ok(truth.to_string()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => {
            Err(Malformed("Syntax errors in policy.".to_owned()))
        }
    }
}

fn is_arn(text: &str) -> bool {
    text.starts_with("arn:") && text.splitn(6, ':').count() == 6
}

fn is_action(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"*?-".contains(&b);
    text.split_once(':').is_some_and(|(vendor, name)| {
        !vendor.is_empty() && !name.is_empty() && vendor.bytes().all(allowed) && name.bytes().all(allowed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_aws_calls_malformed_is_refused() {
        for text in [
            "",
            "not json",
            "[]",
            "{}",
            r#"{"Version":"2012-10-17","Statement":[]}"#,
            r#"{"Version":"2020-01-01","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}"#,
            r#"{"Statement":{"Effect":"allow","Action":"*","Resource":"*"}}"#,
            r#"{"Statement":{"Effect":"Allow","Action":"*"}}"#,
            r#"{"Statement":{"Effect":"Allow","Resource":"*"}}"#,
            r#"{"Statement":{"Effect":"Allow","Action":[],"Resource":"*"}}"#,
            r#"{"Statement":{"Effect":"Allow","Action":"PutObject","Resource":"*"}}"#,
            r#"{"Statement":{"Effect":"Allow","Action":"s3:PutObject","Resource":"bucket/*"}}"#,
            r#"{"Statement":{"Effect":"Allow","Action":"*","NotAction":"*","Resource":"*"}}"#,
            r#"{"Statement":{"Effect":"Allow","Action":"*","Resource":"*","Extra":1}}"#,
            r#"{"Statement":{"Sid":"a b","Effect":"Allow","Action":"*","Resource":"*"}}"#,
            r#"{"Statement":{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*"}}"#,
            r#"{"Statement":{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"Near":{"a":"b"}}}}"#,
            r#"{"Statement":{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"Bool":{"a":{}}}}}"#,
        ] {
            assert!(Document::permissions(text).is_err(), "{text}");
        }
    }

    #[test]
    fn one_statement_may_stand_without_a_list() {
        let text = r#"{"Statement":{"Effect":"Allow","Action":"s3:Get*","Resource":"arn:aws:s3:::b/*"}}"#;
        assert_eq!(Document::permissions(text).unwrap().statements.len(), 1);
    }

    #[test]
    fn a_trust_policy_names_principals_and_no_resources() {
        let good = r#"{"Statement":{"Effect":"Allow","Principal":{"AWS":"123456789012"},"Action":"sts:AssumeRole"}}"#;
        assert!(Document::trust(good).is_ok());
        for bad in [
            r#"{"Statement":{"Effect":"Allow","Action":"sts:AssumeRole"}}"#,
            r#"{"Statement":{"Effect":"Allow","Principal":"*","Action":"sts:AssumeRole","Resource":"*"}}"#,
            r#"{"Statement":{"Effect":"Allow","Principal":{},"Action":"sts:AssumeRole"}}"#,
            r#"{"Statement":{"Effect":"Allow","Principal":{"Human":"x"},"Action":"sts:AssumeRole"}}"#,
        ] {
            assert!(Document::trust(bad).is_err(), "{bad}");
        }
    }
}
