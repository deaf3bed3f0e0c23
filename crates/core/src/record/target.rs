//! What an issuance gives access to, as auditors name it.

use serde_json::Value;

/// The target of a rendered scope: an AWS role's ARN, a Google project, a Snowflake account and role with a slash
/// between them, or an API's audience. None where a scope is of none of these shapes.
pub fn target(scope: &Value) -> Option<String> {
    let text = |name: &str| scope.get(name).and_then(Value::as_str);
    match (text("account"), text("role")) {
        (Some(account), Some(role)) => Some(format!("{account}/{role}")),
        (None, Some(role)) => Some(role.to_owned()),
        _ => text("project").or_else(|| text("audience")).map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_provider_s_scope_has_one() {
        let aws =
            json!({"role": "arn:aws:iam::123456789012:role/finance", "region": "eu-west-1", "tags": {}});
        assert_eq!(target(&aws).as_deref(), Some("arn:aws:iam::123456789012:role/finance"));
        let google = json!({"project": "acme-finance", "grant": "finance", "service_account": null});
        assert_eq!(target(&google).as_deref(), Some("acme-finance"));
        let snowflake = json!({"account": "acme-prod", "user": "FINANCE_SVC", "role": "FINANCE"});
        assert_eq!(target(&snowflake).as_deref(), Some("acme-prod/FINANCE"));
        let api = json!({"audience": "https://ledger.acme.example", "scope": null});
        assert_eq!(target(&api).as_deref(), Some("https://ledger.acme.example"));
        assert_eq!(target(&json!({"something": "else"})), None);
    }
}
