//! What both ways of assuming a role have in common: the parameters and their limits, the trust policy, the
//! packed size, and the session that comes out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::caller::Session;
use super::document::Document;
use super::error::AwsError;
use super::evaluate::{Attempt, Context, Knocker, trusts};
use super::{Aws, Params, random_id};

/// The longest session policy, in characters.
const MAX_POLICY: usize = 2_048;

/// What a session policy and its tags may take together, in bytes. AWS compresses them and does not say how;
/// the sandbox counts them as they are, so that the answer can be foretold.
const PACKED_BUDGET: usize = 2_048;

/// The most session tags.
const MAX_TAGS: usize = 50;

/// The most sessions that are remembered after the expired ones were forgotten.
const MAX_SESSIONS: usize = 100_000;

/// A role that is asked for.
#[derive(Debug)]
pub(super) struct AssumeRequest {
    pub(super) role_arn: String,
    pub(super) role: String,
    pub(super) session_name: String,
    pub(super) duration: SignedDuration,
    pub(super) policy: Option<Document>,
    policy_text: String,
}

impl AssumeRequest {
    /// Reads the parameters that both operations have.
    pub(super) fn read(params: &Params, account: &str) -> Result<Self, AwsError> {
        let role_arn = params.required("RoleArn")?;
        let prefix = format!("arn:aws:iam::{account}:role/");
        // Paths are part of an ARN but not of a role's name.
        let role = role_arn.strip_prefix(&prefix).and_then(|path| path.rsplit('/').next());
        let session_name = params.required("RoleSessionName")?;
        if !is_name(session_name) {
            return Err(constraint(session_name, "roleSessionName", "[\\w+=,.@-]*, length 2 to 64"));
        }
        let duration = match params.get("DurationSeconds") {
            None => 3_600,
            Some(text) => text
                .parse()
                .ok()
                .filter(|n| (900..=43_200).contains(n))
                .ok_or_else(|| constraint(text, "durationSeconds", "value from 900 to 43200"))?,
        };
        let policy_text = params.get("Policy").unwrap_or_default();
        if policy_text.chars().count() > MAX_POLICY {
            return Err(constraint("(session policy)", "policy", "length less than or equal to 2048"));
        }
        if params.members("PolicyArns", ".arn").next().is_some() {
            return Err(AwsError::not_in_sandbox("managed policies"));
        }
        let policy = if policy_text.is_empty() {
            None
        } else {
            let read = Document::permissions(policy_text);
            Some(read.map_err(|bad| AwsError::bad("MalformedPolicyDocument", bad.to_string()))?)
        };
        Ok(Self {
            role_arn: role_arn.to_owned(),
            role: role.unwrap_or_default().to_owned(),
            session_name: session_name.to_owned(),
            duration: SignedDuration::from_secs(duration),
            policy,
            policy_text: policy_text.to_owned(),
        })
    }
}

/// What else a session carries, from parameters or from a token.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    pub(super) tags: BTreeMap<String, String>,
    pub(super) transitive: BTreeSet<String>,
    pub(super) source_identity: Option<String>,
}

impl Attributes {
    /// Checks the limits on tags and on the source identity.
    pub(super) fn check(&self) -> Result<(), AwsError> {
        let bad = |what: String| Err(AwsError::validation(format!("1 validation error detected: {what}")));
        if self.tags.len() > MAX_TAGS {
            return bad("the number of session tags must be at most 50".to_owned());
        }
        let mut seen = BTreeSet::new();
        for (key, value) in &self.tags {
            let lower = key.to_lowercase();
            if !(1..=128).contains(&key.chars().count()) || !key.chars().all(is_tag_char) {
                return bad(format!("the tag key {key:?} is malformed"));
            }
            if value.chars().count() > 256 || !value.chars().all(is_tag_char) {
                return bad(format!("the value of the tag {key:?} is malformed"));
            }
            if lower.starts_with("aws:") || !seen.insert(lower) {
                return bad(format!("the tag key {key:?} is reserved or given twice"));
            }
        }
        match &self.source_identity {
            Some(name) if !is_name(name) || name.starts_with("aws:") => {
                Err(constraint(name, "sourceIdentity", "[\\w+=,.@-]*, length 2 to 64"))
            }
            _ => Ok(()),
        }
    }

    fn packed_bytes(&self) -> usize {
        self.tags.iter().map(|(key, value)| key.len() + value.len() + 2).sum()
    }
}

/// A session that was just made, with the names that the answer says.
#[derive(Debug)]
pub(super) struct Issued {
    pub(super) access_key_id: String,
    pub(super) session: Arc<Session>,
    pub(super) packed_percent: usize,
}

impl Aws {
    /// Asks the role's trust policy, then makes the session. `more` are condition keys of the request, `chained`
    /// says that the caller is a session itself.
    pub(super) fn assume(
        &self,
        request: AssumeRequest,
        attributes: Attributes,
        operation: &str,
        knocker: Knocker<'_>,
        mut context: Context,
    ) -> Result<Issued, AwsError> {
        attributes.check()?;
        context.set("sts:RoleSessionName", &request.session_name);
        for (key, value) in &attributes.tags {
            context.set(&format!("aws:RequestTag/{key}"), value);
        }
        if let Some(source_identity) = &attributes.source_identity {
            context.set("sts:SourceIdentity", source_identity);
        }
        let (role_id, max_session_s) =
            self.trusting_role(&request, &attributes, operation, knocker, &context)?;
        if request.duration.as_secs() > i64::from(max_session_s) {
            return Err(AwsError::validation(
                "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
            ));
        }
        let packed_percent = packed_percent(request.policy_text.len() + attributes.packed_bytes())?;
        let (access_key_id, session) = self.open_session(request, attributes, &role_id)?;
        Ok(Issued { access_key_id, session, packed_percent })
    }

    /// The id and the longest session of the role, if it trusts the knocker with all that is asked. Whether the
    /// role exists stays untold.
    fn trusting_role(
        &self,
        request: &AssumeRequest,
        attributes: &Attributes,
        operation: &str,
        knocker: Knocker<'_>,
        context: &Context,
    ) -> Result<(String, u32), AwsError> {
        let mut actions = vec![operation];
        if !attributes.tags.is_empty() {
            actions.push("sts:TagSession");
        }
        if attributes.source_identity.is_some() {
            actions.push("sts:SetSourceIdentity");
        }
        let state = self.state();
        let role = state.roles.get(&request.role).filter(|role| {
            actions.iter().all(|action| {
                trusts(&role.trust, knocker, Attempt { action, resource: &request.role_arn, context })
            })
        });
        let role = role.ok_or_else(|| {
            AwsError::forbidden("AccessDenied", format!("Not authorized to perform {operation}"))
        })?;
        Ok((role.id.clone(), role.max_session_s))
    }

    fn open_session(
        &self,
        request: AssumeRequest,
        attributes: Attributes,
        role_id: &str,
    ) -> Result<(String, Arc<Session>), AwsError> {
        let now = whole_second(self.world.now());
        let session = Arc::new(Session {
            secret_access_key: format!("sandbox/{}", random_id(32)),
            token: format!("sandbox//{}{}{}", random_id(32), random_id(32), random_id(32)),
            arn: assumed_arn(&self.account, &request.role, &request.session_name),
            user_id: format!("{role_id}:{}", request.session_name),
            role: request.role,
            role_arn: request.role_arn,
            issued_at: now,
            expires_at: now.saturating_add(request.duration).unwrap_or(now),
            tags: attributes.tags,
            transitive: attributes.transitive,
            source_identity: attributes.source_identity,
            policy: request.policy,
        });
        let access_key_id = format!("ASIASANDBOX{}", random_id(9));
        let mut state = self.state();
        if state.sessions.len() >= MAX_SESSIONS {
            state.sessions.retain(|_, session| session.expires_at > now);
        }
        if state.sessions.len() >= MAX_SESSIONS {
            return Err(AwsError::bad("Throttling", "Rate exceeded"));
        }
        state.sessions.insert(access_key_id.clone(), Arc::clone(&session));
        Ok((access_key_id, session))
    }
}

/// The ARN of a session.
pub(super) fn assumed_arn(account: &str, role: &str, session_name: &str) -> String {
    format!("arn:aws:sts::{account}:assumed-role/{role}/{session_name}")
}

/// STS says expiries to the second.
fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn packed_percent(bytes: usize) -> Result<usize, AwsError> {
    let percent = (bytes * 100).div_ceil(PACKED_BUDGET);
    if percent <= 100 {
        return Ok(percent);
    }
    let message = format!("Packed policy consumes {percent}% of allotted space, please use smaller policy.");
    Err(AwsError::bad("PackedPolicyTooLarge", message))
}

/// `[\w+=,.@-]{2,64}`: session names and source identities.
fn is_name(text: &str) -> bool {
    (2..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b))
}

/// `[\p{L}\p{Z}\p{N}_.:/=+\-@]`: letters, numbers, separators and a few signs.
fn is_tag_char(c: char) -> bool {
    c.is_alphanumeric() || (c.is_whitespace() && !c.is_control()) || "_.:/=+-@".contains(c)
}

pub(super) fn constraint(value: &str, field: &str, rule: &str) -> AwsError {
    AwsError::validation(format!(
        "1 validation error detected: Value '{value}' at '{field}' failed to satisfy constraint: Member must satisfy: {rule}"
    ))
}
