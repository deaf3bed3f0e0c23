//! The decision of IAM, in the little that the sandbox needs: an explicit deny wins, and a session may do what
//! both its role's policies and its session policy allow.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::document::{Condition, Document, Effect, Operator, Principals, Selection, Statement};

/// The condition keys of one request, by name in lower case.
#[derive(Debug, Clone, Default)]
pub(crate) struct Context(BTreeMap<String, String>);

impl Context {
    pub(crate) fn set(&mut self, key: &str, value: impl Into<String>) {
        self.0.insert(key.to_ascii_lowercase(), value.into());
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }
}

/// One action on one resource.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt<'a> {
    pub(crate) action: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) context: &'a Context,
}

/// Who knocks at a trust policy.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Knocker<'a> {
    /// A token of this OIDC provider.
    Federated(&'a str),
    /// A user or session, by ARN; a session counts as its role as well.
    Aws { arn: &'a str, role_arn: Option<&'a str>, account: &'a str },
}

/// What documents say to an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allow,
    /// Nothing allows it.
    Implicit,
    /// A statement forbids it.
    Explicit,
}

/// Identity policies, cut by the session policy where there is one.
pub(crate) fn permit<'a>(
    identity: impl IntoIterator<Item = &'a Document>,
    session: Option<&Document>,
    attempt: Attempt<'_>,
) -> Verdict {
    let identity = verdict(identity, attempt, None);
    let session = session.map_or(Verdict::Allow, |session| verdict([session], attempt, None));
    match (identity, session) {
        (Verdict::Explicit, _) | (_, Verdict::Explicit) => Verdict::Explicit,
        (Verdict::Allow, Verdict::Allow) => Verdict::Allow,
        _ => Verdict::Implicit,
    }
}

/// Whether a role's trust policy lets `knocker` do this.
pub(crate) fn trusts(trust: &Document, knocker: Knocker<'_>, attempt: Attempt<'_>) -> bool {
    verdict([trust], attempt, Some(knocker)) == Verdict::Allow
}

fn verdict<'a>(
    documents: impl IntoIterator<Item = &'a Document>,
    attempt: Attempt<'_>,
    knocker: Option<Knocker<'_>>,
) -> Verdict {
    let mut verdict = Verdict::Implicit;
    for statement in documents.into_iter().flat_map(|document| &document.statements) {
        if !covers(statement, attempt, knocker) {
            continue;
        }
        match (statement.effect, conditions_hold(statement, attempt.context)) {
            // What cannot be decided forbids, and never allows.
            (Effect::Deny, Some(true) | None) => return Verdict::Explicit,
            (Effect::Allow, Some(true)) => verdict = Verdict::Allow,
            (Effect::Deny, Some(false)) | (Effect::Allow, Some(false) | None) => {}
        }
    }
    verdict
}

fn covers(statement: &Statement, attempt: Attempt<'_>, knocker: Option<Knocker<'_>>) -> bool {
    let named = match (&statement.principals, knocker) {
        (Some(principals), Some(knocker)) => names(principals, knocker),
        (None, None) => true,
        _ => false,
    };
    let undecided_resource = statement.has_variable && statement.effect == Effect::Deny;
    let resource = statement.resources.as_ref().is_none_or(|resources| {
        undecided_resource || selects(resources, |pattern| glob(pattern, attempt.resource))
    });
    let action = attempt.action.to_ascii_lowercase();
    named && resource && selects(&statement.actions, |pattern| glob(&pattern.to_ascii_lowercase(), &action))
}

fn selects(selection: &Selection, fits: impl Fn(&str) -> bool) -> bool {
    match selection {
        Selection::In(patterns) => patterns.iter().any(|pattern| fits(pattern)),
        Selection::NotIn(patterns) => !patterns.iter().any(|pattern| fits(pattern)),
    }
}

fn names(principals: &Principals, knocker: Knocker<'_>) -> bool {
    match knocker {
        Knocker::Federated(provider) => principals.federated.iter().any(|name| name == provider),
        Knocker::Aws { arn, role_arn, account } => principals.aws.iter().any(|name| {
            name == "*"
                || name == arn
                || Some(name.as_str()) == role_arn
                || name == account
                || *name == format!("arn:aws:iam::{account}:root")
        }),
    }
}

/// Whether all conditions hold; none where that cannot be decided.
fn conditions_hold(statement: &Statement, context: &Context) -> Option<bool> {
    let mut decided = !statement.has_variable;
    for condition in &statement.conditions {
        match holds(condition, context) {
            Some(true) => {}
            Some(false) => return Some(false),
            None => decided = false,
        }
    }
    decided.then_some(true)
}

fn holds(condition: &Condition, context: &Context) -> Option<bool> {
    let value = context.get(&condition.key);
    let any = |fits: &dyn Fn(&str, &str) -> bool| {
        value.is_some_and(|value| condition.values.iter().any(|wanted| fits(wanted, value)))
    };
    match condition.operator {
        Operator::StringEquals => Some(any(&|wanted, value| wanted == value)),
        Operator::StringNotEquals => Some(!any(&|wanted, value| wanted == value)),
        Operator::StringLike => Some(any(&glob)),
        Operator::Bool => Some(any(&|wanted, value| wanted.eq_ignore_ascii_case(value))),
        Operator::Null => {
            let wanted = condition.values.first()?;
            Some(wanted.eq_ignore_ascii_case("true") == value.is_none())
        }
        Operator::DateLessThan => compare_dates(condition, value, |value, wanted| value < wanted),
        Operator::DateGreaterThan => compare_dates(condition, value, |value, wanted| value > wanted),
        Operator::Unsupported => None,
    }
}

fn compare_dates(
    condition: &Condition,
    value: Option<&str>,
    fits: fn(Timestamp, Timestamp) -> bool,
) -> Option<bool> {
    let Some(value) = value else {
        return Some(false);
    };
    let value = date(value)?;
    let wanted: Vec<_> = condition.values.iter().map(|text| date(text)).collect::<Option<_>>()?;
    Some(wanted.into_iter().any(|wanted| fits(value, wanted)))
}

/// A date as ISO 8601 or as seconds since 1970.
fn date(text: &str) -> Option<Timestamp> {
    text.parse().ok().or_else(|| Timestamp::from_second(text.parse().ok()?).ok())
}

/// Whether `text` fits `pattern`, in which `*` stands for any text and `?` for one character.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where the last star was, and how much of the text it has taken so far.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match (pattern.get(p), star) {
            (Some('*'), _) => {
                star = Some((p, t));
                p += 1;
            }
            (Some(c), _) if *c == '?' || Some(c) == text.get(t) => {
                p += 1;
                t += 1;
            }
            (_, Some((at, taken))) => {
                star = Some((at, taken + 1));
                p = at + 1;
                t = taken + 1;
            }
            (_, None) => return false,
        }
    }
    pattern.iter().skip(p).all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn document(statements: &str) -> Document {
        Document::permissions(&format!(r#"{{"Version":"2012-10-17","Statement":[{statements}]}}"#)).unwrap()
    }

    fn decide(identity: &Document, session: Option<&Document>, context: &Context) -> Verdict {
        let attempt = Attempt { action: "s3:PutObject", resource: "arn:aws:s3:::mart/finance/r1/x", context };
        permit([identity], session, attempt)
    }

    const ALL: &str = r#"{"Effect":"Allow","Action":"*","Resource":"*"}"#;

    #[test]
    fn a_session_may_do_what_both_policies_allow() {
        let put = |resource: &str| {
            document(&format!(r#"{{"Effect":"Allow","Action":"s3:Put*","Resource":"{resource}"}}"#))
        };
        let (inside, outside) = (put("arn:aws:s3:::mart/finance/*"), put("arn:aws:s3:::mart/sales/*"));
        let context = Context::default();
        for (identity, session, verdict) in [
            (&inside, Some(&inside), Verdict::Allow),
            (&inside, None, Verdict::Allow),
            (&inside, Some(&outside), Verdict::Implicit),
            (&outside, Some(&inside), Verdict::Implicit),
            (&document(ALL), Some(&outside), Verdict::Implicit),
        ] {
            assert_eq!(decide(identity, session, &context), verdict);
        }
    }

    #[test]
    fn a_deny_bites_the_leases_that_it_names_and_no_others() {
        let deny = document(&format!(
            r#"{ALL},{{"Effect":"Deny","Action":"*","Resource":"*",
            "Condition":{{"StringEquals":{{"aws:PrincipalTag/lease":["L1","L2"]}}}}}}"#
        ));
        for (lease, verdict) in
            [(Some("L1"), Verdict::Explicit), (Some("L3"), Verdict::Allow), (None, Verdict::Allow)]
        {
            let mut context = Context::default();
            if let Some(lease) = lease {
                context.set("aws:PrincipalTag/lease", lease);
            }
            assert_eq!(decide(&deny, None, &context), verdict, "{lease:?}");
        }
    }

    #[test]
    fn a_deny_on_older_sessions_spares_newer_ones() {
        let deny = document(&format!(
            r#"{ALL},{{"Effect":"Deny","Action":"*","Resource":"*",
            "Condition":{{"DateLessThan":{{"aws:TokenIssueTime":"2026-11-22T12:00:00Z"}}}}}}"#
        ));
        for (issued, verdict) in [
            ("2026-11-22T11:59:59Z", Verdict::Explicit),
            ("2026-11-22T12:00:00Z", Verdict::Allow),
            ("nonsense", Verdict::Explicit),
        ] {
            let mut context = Context::default();
            context.set("aws:TokenIssueTime", issued);
            assert_eq!(decide(&deny, None, &context), verdict, "{issued}");
        }
    }

    #[test]
    fn what_cannot_be_decided_forbids_and_never_allows() {
        for condition in [
            r#""IpAddress":{"aws:SourceIp":"10.0.0.0/8"}"#,
            r#""StringEqualsIfExists":{"aws:userid":"x"}"#,
            r#""StringLike":{"aws:userid":"${aws:username}"}"#,
        ] {
            let mut context = Context::default();
            context.set("aws:userid", "${aws:username}");
            let allow =
                format!(r#"{{"Effect":"Allow","Action":"*","Resource":"*","Condition":{{{condition}}}}}"#);
            assert_eq!(decide(&document(&allow), None, &context), Verdict::Implicit, "{condition}");
            let deny = format!("{ALL},{}", allow.replace("Allow", "Deny"));
            assert_eq!(decide(&document(&deny), None, &context), Verdict::Explicit, "{condition}");
        }
        let variable = r#"{"Effect":"Deny","Action":"*","Resource":"arn:aws:s3:::${aws:username}/*"}"#;
        let deny = document(&format!("{ALL},{variable}"));
        assert_eq!(decide(&deny, None, &Context::default()), Verdict::Explicit);
    }

    proptest! {
        #[test]
        fn a_text_fits_itself_and_what_its_stars_cover(head in "[a-z/]{0,8}", middle in ".{0,8}", tail in "[a-z/]{0,8}") {
            let text = format!("{head}{middle}{tail}");
            let starred = format!("{head}*{tail}");
            prop_assert!(glob("*", &text));
            prop_assert!(glob(&starred, &text));
            let other = format!("{text}!");
            prop_assert_eq!(glob(&starred, &other), tail.is_empty());
        }

        #[test]
        fn a_session_policy_never_widens(action in "s3:[A-Z][a-z]{1,6}", resource in "[a-z*]{1,6}") {
            let session = document(&format!(
                r#"{{"Effect":"Allow","Action":"*","Resource":"arn:aws:s3:::{resource}"}}"#
            ));
            let identity = document(&format!(r#"{{"Effect":"Allow","Action":"{action}","Resource":"*"}}"#));
            let context = Context::default();
            let attempt = Attempt { action: "s3:PutObject", resource: "arn:aws:s3:::mart", context: &context };
            let without = permit([&identity], None, attempt);
            let with = permit([&identity], Some(&session), attempt);
            prop_assert!(with != Verdict::Allow || without == Verdict::Allow);
        }
    }
}
