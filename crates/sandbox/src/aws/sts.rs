//! STS: `AssumeRoleWithWebIdentity`, `AssumeRole`, `GetCallerIdentity`.

use axum::http::StatusCode;
use axum::response::Response;
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::Algorithm;

use super::assume::{AssumeRequest, Attributes, Issued, assumed_arn, constraint};
use super::caller::Caller;
use super::error::AwsError;
use super::evaluate::{Context, Knocker};
use super::sigv4::sha256_hex;
use super::web_identity::{WebIdentity, signature_error};
use super::xml::{Xml, respond};
use super::{Aws, Params, STS};
use crate::fault::Twist;
use crate::gate::{Answer, Call, Noted};
use crate::ledger::Cloud;

/// The algorithms that STS takes; no `EdDSA`.
const ALGORITHMS: &[Algorithm] =
    &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::ES256, Algorithm::ES384];

/// A session of a session lives an hour at the most.
const MAX_CHAINED: SignedDuration = SignedDuration::from_hours(1);

impl Aws {
    pub(super) async fn sts(
        &self,
        action: &str,
        params: &Params,
        call: &Call,
        twist: Option<Twist>,
        request_id: &str,
    ) -> Result<Answer, AwsError> {
        match action {
            "AssumeRoleWithWebIdentity" => self.with_web_identity(params, twist, request_id).await,
            "AssumeRole" => self.assume_role(params, call, twist, request_id),
            "GetCallerIdentity" => Ok(self.caller_identity(call, request_id)?.into()),
            _ => Err(AwsError::bad("InvalidAction", format!("Could not find operation {action}"))),
        }
    }

    async fn with_web_identity(
        &self,
        params: &Params,
        twist: Option<Twist>,
        request_id: &str,
    ) -> Result<Answer, AwsError> {
        let request = AssumeRequest::read(params, &self.account)?;
        let token = params.required("WebIdentityToken")?;
        if !(4..=20_000).contains(&token.len()) {
            return Err(constraint("(token)", "webIdentityToken", "length 4 to 20000"));
        }
        let claims = self.issuer.verify(token, ALGORITHMS).await.map_err(|fault| signature_error(&fault))?;
        let now = self.world.now();
        let identity =
            WebIdentity::read(&claims, self.issuer.url(), &self.audiences, &request.role_arn, now)?;
        let mut context = Context::default();
        context.set(&format!("{}:aud", self.provider), &identity.audience);
        context.set(&format!("{}:sub", self.provider), &identity.subject);
        let authorised = identity.role_authorised.unwrap_or(false);
        context.set("sts:RoleAuthorizedByIdp", authorised.to_string());
        let attributes = Attributes {
            tags: identity.tags,
            transitive: identity.transitive,
            source_identity: identity.source_identity,
        };
        let provider = format!("arn:aws:iam::{}:oidc-provider/{}", self.account, self.provider);
        let operation = "AssumeRoleWithWebIdentity";
        let knocker = Knocker::Federated(&provider);
        let issued = self.assume(request, attributes, "sts:AssumeRoleWithWebIdentity", knocker, context)?;
        let result = self.result(&issued, twist);
        let result = result
            .text("SubjectFromWebIdentityToken", &identity.subject)
            .text("Audience", &identity.audience)
            .text("Provider", &provider);
        Ok(self.minted(operation, &issued, &result, request_id))
    }

    fn assume_role(
        &self,
        params: &Params,
        call: &Call,
        twist: Option<Twist>,
        request_id: &str,
    ) -> Result<Answer, AwsError> {
        let caller = self.signed_by(call, "sts")?;
        let request = AssumeRequest::read(params, &self.account)?;
        let mut attributes = attributes(params);
        if let Some(session) = caller.session() {
            if request.duration > MAX_CHAINED {
                return Err(AwsError::validation(
                    "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.",
                ));
            }
            for key in &session.transitive {
                let inherited = session.tags.get(key).cloned().unwrap_or_default();
                if attributes.tags.insert(key.clone(), inherited).is_some() {
                    return Err(AwsError::validation(format!(
                        "The tag {key} is inherited and cannot be set."
                    )));
                }
                attributes.transitive.insert(key.clone());
            }
        }
        self.may_ask_for(&caller, &request, &attributes)?;
        let mut context = Context::default();
        if let Some(external_id) = params.get("ExternalId") {
            context.set("sts:ExternalId", external_id);
        }
        let knocker = caller.knocker(&self.account);
        let issued = self.assume(request, attributes, "sts:AssumeRole", knocker, context)?;
        Ok(self.minted("AssumeRole", &issued, &self.result(&issued, twist), request_id))
    }

    /// The caller's own policies have to allow each of the actions as well.
    fn may_ask_for(
        &self,
        caller: &Caller<'_>,
        request: &AssumeRequest,
        attributes: &Attributes,
    ) -> Result<(), AwsError> {
        self.authorise(caller, "sts:AssumeRole", &request.role_arn, &[])?;
        if !attributes.tags.is_empty() {
            self.authorise(caller, "sts:TagSession", &request.role_arn, &[])?;
        }
        if attributes.source_identity.is_some() {
            self.authorise(caller, "sts:SetSourceIdentity", &request.role_arn, &[])?;
        }
        Ok(())
    }

    fn caller_identity(&self, call: &Call, request_id: &str) -> Result<Response, AwsError> {
        let caller = self.signed_by(call, "sts")?;
        let result = Xml::default()
            .text("Arn", caller.arn())
            .text("UserId", caller.user_id())
            .text("Account", &self.account);
        Ok(respond(StatusCode::OK, request_id, envelope("GetCallerIdentity", STS, &result, request_id)))
    }

    /// Who signed a call of a query API.
    pub(super) fn signed_by(&self, call: &Call, service: &str) -> Result<Caller<'_>, AwsError> {
        let payload = sha256_hex(&call.body);
        let authenticated = self.authenticate(call, service, &payload);
        authenticated.map(|(caller, _)| caller).map_err(super::caller::AuthFault::in_query_api)
    }

    fn minted(&self, operation: &'static str, issued: &Issued, result: &Xml, request_id: &str) -> Answer {
        let session = &issued.session;
        let mint = self.world.note(Noted {
            cloud: Cloud::Aws,
            operation,
            subject: session.arn.clone(),
            lease: session.tags.get("lease").or(session.source_identity.as_ref()).cloned(),
            expires_at: session.expires_at,
        });
        let body = envelope(operation, STS, result, request_id);
        Answer { response: respond(StatusCode::OK, request_id, body), mint: Some(mint) }
    }

    /// The part of the answer that both operations have.
    fn result(&self, issued: &Issued, twist: Option<Twist>) -> Xml {
        let session = &issued.session;
        let name = session.user_id.split_once(':').map_or("", |(_, name)| name);
        let arn = match twist {
            Some(Twist::OtherArn) => assumed_arn(&self.account, "other-role", name),
            Some(Twist::OtherAccount) => assumed_arn("999999999999", &session.role, name),
            _ => session.arn.clone(),
        };
        let mut expires_at = session.expires_at;
        if twist == Some(Twist::LongerExpiry) {
            expires_at = doubled(session.issued_at, expires_at);
        }
        let mut credentials = Xml::default()
            .text("AccessKeyId", &issued.access_key_id)
            .text("SecretAccessKey", &session.secret_access_key);
        if twist != Some(Twist::MissingToken) {
            credentials = credentials.text("SessionToken", &session.token);
        }
        let user = Xml::default().text("AssumedRoleId", &session.user_id).text("Arn", arn);
        let result = Xml::default()
            .element("Credentials", &credentials.text("Expiration", expires_at))
            .element("AssumedRoleUser", &user)
            .text("PackedPolicySize", issued.packed_percent);
        match &session.source_identity {
            Some(source_identity) => result.text("SourceIdentity", source_identity),
            None => result,
        }
    }
}

/// An expiry that is twice as far away.
fn doubled(from: Timestamp, to: Timestamp) -> Timestamp {
    to.saturating_add(to.duration_since(from)).unwrap_or(to)
}

fn attributes(params: &Params) -> Attributes {
    let keys = params.members("Tags", ".Key").map(ToOwned::to_owned);
    let values = params.members("Tags", ".Value").map(ToOwned::to_owned);
    Attributes {
        tags: keys.zip(values).collect(),
        transitive: params.members("TransitiveTagKeys", "").map(ToOwned::to_owned).collect(),
        source_identity: params.get("SourceIdentity").map(ToOwned::to_owned),
    }
}

/// The frame of every answer of a query API.
pub(super) fn envelope(operation: &str, namespace: &str, result: &Xml, request_id: &str) -> String {
    Xml::default()
        .element(&format!("{operation}Result"), result)
        .element("ResponseMetadata", &Xml::default().text("RequestId", request_id))
        .document(&format!("{operation}Response"), namespace)
}
