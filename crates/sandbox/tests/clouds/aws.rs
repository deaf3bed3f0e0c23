//! STS: both ways of assuming a role, and what a session is good for.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sdk_sts::config::{BehaviorVersion, Region};
use aws_sdk_sts::error::ProvideErrorMetadata as _;
use aws_sdk_sts::types::Tag;
use cortex_sandbox::Cloud;
use jiff::SignedDuration;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::world::{LEASE, ROLE, World, element, tampered, without_kid};

/// A session, as a client holds it.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    pub(crate) id: String,
    pub(crate) secret: String,
    pub(crate) token: Option<String>,
}

impl Keys {
    pub(crate) fn read(xml: &str) -> Self {
        Self {
            id: element(xml, "AccessKeyId").to_owned(),
            secret: element(xml, "SecretAccessKey").to_owned(),
            token: Some(element(xml, "SessionToken").to_owned()),
        }
    }

    pub(crate) fn broker() -> Self {
        Self { id: "AKIASANDBOXBROKER001".into(), secret: "sandbox/broker".into(), token: None }
    }

    pub(crate) fn credentials(&self) -> Credentials {
        Credentials::new(&self.id, &self.secret, self.token.clone(), None, "test")
    }
}

impl World {
    pub(crate) async fn post_form(&self, url: &str, form: &[(&str, &str)]) -> (StatusCode, String) {
        let response = self.http.post(url).form(form).send().await.unwrap();
        (response.status(), response.text().await.unwrap())
    }

    /// `AssumeRoleWithWebIdentity` with good parameters, of which `params` replace some.
    pub(crate) async fn web_identity(&self, token: &str, params: &[(&str, &str)]) -> (StatusCode, String) {
        let mut form = vec![
            ("Action", "AssumeRoleWithWebIdentity"),
            ("Version", "2011-06-15"),
            ("RoleArn", ROLE),
            ("RoleSessionName", "finance_publish-r1"),
            ("WebIdentityToken", token),
        ];
        form.retain(|(name, _)| !params.iter().any(|(other, _)| other == name));
        form.extend(params);
        self.post_form(self.sandbox.aws_url(), &form).await
    }

    /// A session of the demo role with this session policy.
    pub(crate) async fn session(&self, claims: &Value, policy: Option<&Value>) -> Keys {
        let policy = policy.map(ToString::to_string).unwrap_or_default();
        let (status, body) = self.web_identity(&self.aws_token(claims), &[("Policy", &policy)]).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        Keys::read(&body)
    }

    fn sts(&self, keys: &Keys) -> aws_sdk_sts::Client {
        let clock = self.clock.clone();
        let config = aws_sdk_sts::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-west-1"))
            .endpoint_url(self.sandbox.aws_url())
            .credentials_provider(keys.credentials())
            .time_source(SdkClock(clock))
            .retry_config(aws_sdk_sts::config::retry::RetryConfig::disabled())
            .build();
        aws_sdk_sts::Client::from_conf(config)
    }
}

#[derive(Debug)]
struct SdkClock(cortex_core::clock::ManualClock);

impl aws_smithy_async::time::TimeSource for SdkClock {
    fn now(&self) -> SystemTime {
        cortex_core::Clock::now(&self.0).into()
    }
}

#[tokio::test]
async fn a_token_of_cortex_opens_a_session_of_the_role() {
    let world = World::start().await;
    let (status, body) =
        world.web_identity(&world.aws_token(&json!({})), &[("DurationSeconds", "900")]).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let arn = "arn:aws:sts::123456789012:assumed-role/finance-publish/finance_publish-r1";
    assert_eq!(element(&body, "Arn"), arn);
    assert_eq!(element(&body, "Expiration"), "2026-11-22T12:15:00Z");
    assert_eq!(element(&body, "SourceIdentity"), LEASE);
    assert!(element(&body, "PackedPolicySize").parse::<u32>().unwrap() > 0);

    let mints = world.sandbox.mints();
    assert_eq!(mints.len(), 1);
    assert_eq!((mints[0].cloud, mints[0].operation.as_str()), (Cloud::Aws, "AssumeRoleWithWebIdentity"));
    assert_eq!((mints[0].subject.as_str(), mints[0].lease.as_deref()), (arn, Some(LEASE)));
    assert_eq!(mints[0].expires_at, world.now() + SignedDuration::from_mins(15));
    assert!(mints[0].delivered);

    let me = world.sts(&Keys::read(&body)).get_caller_identity().send().await.unwrap();
    assert_eq!(me.arn(), Some(arn));
}

#[tokio::test]
async fn each_flaw_of_a_token_is_refused() {
    let world = World::start().await;
    let now = world.now().as_second();
    let tags = "https://aws.amazon.com/tags";
    let roles = "https://aws.amazon.com/roles";
    let good = world.aws_token(&json!({}));
    let stranger = world.sandbox.forge(&json!({"iss": world.cortex.issuer_url()})).unwrap();
    let claims = |claims: Value| world.aws_token(&claims);
    for (flaw, token, code) in [
        ("another issuer", claims(json!({"iss": "http://127.0.0.1:1"})), "InvalidIdentityToken"),
        ("another audience", claims(json!({"aud": "cortex"})), "InvalidIdentityToken"),
        ("expired", claims(json!({"exp": now - 301})), "ExpiredTokenException"),
        ("not yet valid", claims(json!({"nbf": now + 301})), "InvalidIdentityToken"),
        ("no iat", claims(json!({"iat": null})), "InvalidIdentityToken"),
        ("no key id", without_kid(&good), "InvalidIdentityToken"),
        ("a key of somebody else", stranger, "InvalidIdentityToken"),
        ("a broken signature", tampered(&good), "InvalidIdentityToken"),
        ("no JWT", "not-a-jwt".to_owned(), "InvalidIdentityToken"),
        ("pinned to another role", claims(json!({(roles): [format!("{ROLE}2")]})), "InvalidIdentityToken"),
        ("pinned to no role", claims(json!({(roles): null})), "AccessDenied"),
        ("no tags", claims(json!({(tags): null})), "AccessDenied"),
        ("no lease", claims(json!({(tags): {"principal_tags": {"dag_id": ["x"]}}})), "AccessDenied"),
        ("an empty lease", claims(json!({(tags): {"principal_tags": {"lease": [""]}}})), "AccessDenied"),
        ("plain tags", claims(json!({(tags): {"principal_tags": {"lease": "x"}}})), "InvalidIdentityToken"),
        ("another subject", claims(json!({"sub": "service:prod:x"})), "AccessDenied"),
        (
            "a bad source identity",
            claims(json!({"https://aws.amazon.com/source_identity": "a b"})),
            "ValidationError",
        ),
    ] {
        let (status, body) = world.web_identity(&token, &[]).await;
        assert_eq!(element(&body, "Code"), code, "{flaw}: {body}");
        let expected = if code == "AccessDenied" { StatusCode::FORBIDDEN } else { StatusCode::BAD_REQUEST };
        assert_eq!(status, expected, "{flaw}");
    }
    assert_eq!(world.sandbox.mints(), []);
}

#[tokio::test]
async fn each_flaw_of_a_request_is_refused() {
    let world = World::start().await;
    let token = world.aws_token(&json!({}));
    let policy = |resource: &str| {
        json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:PutObject", "Resource": resource}]})
            .to_string()
    };
    let long = policy(&format!("arn:aws:s3:::{}", "x".repeat(2_000)));
    let packed = policy(&format!("arn:aws:s3:::{}", "x".repeat(1_900)));
    for (name, value, code) in [
        ("RoleArn", "arn:aws:iam::123456789012:role/unknown", "InvalidIdentityToken"),
        ("RoleSessionName", "a:b", "ValidationError"),
        ("RoleSessionName", "a", "ValidationError"),
        ("DurationSeconds", "899", "ValidationError"),
        ("DurationSeconds", "3601", "ValidationError"),
        ("DurationSeconds", "43201", "ValidationError"),
        ("DurationSeconds", "soon", "ValidationError"),
        ("Policy", "{", "MalformedPolicyDocument"),
        ("Policy", &policy("finance-mart/*"), "MalformedPolicyDocument"),
        ("Policy", &long, "ValidationError"),
        ("Policy", &packed, "PackedPolicyTooLarge"),
        ("PolicyArns.member.1.arn", "arn:aws:iam::aws:policy/ReadOnlyAccess", "NotImplemented"),
        ("WebIdentityToken", "x", "ValidationError"),
        ("Action", "AssumeRoleWithSAML", "InvalidAction"),
    ] {
        let (_, body) = world.web_identity(&token, &[(name, value)]).await;
        assert_eq!(element(&body, "Code"), code, "{name}={value}: {body}");
    }
    assert_eq!(world.sandbox.mints(), []);
}

#[tokio::test]
async fn a_role_that_trusts_nobody_and_a_role_that_is_not_there_look_alike() {
    let world = World::start_with(|mut config| {
        config.aws = config.aws.role(cortex_sandbox::Role::new("closed"));
        config
    })
    .await;
    let mut messages = Vec::new();
    for role in ["arn:aws:iam::123456789012:role/closed", "arn:aws:iam::123456789012:role/absent"] {
        let token = world.aws_token(&json!({"https://aws.amazon.com/roles": [role]}));
        let (status, body) = world.web_identity(&token, &[("RoleArn", role)]).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        messages.push(element(&body, "Message").to_owned());
    }
    assert_eq!(messages[0], messages[1]);
}

#[tokio::test]
async fn an_issuer_that_cannot_be_asked_is_an_error_of_communication() {
    let world = World::start_with(|config| cortex_sandbox::SandboxConfig {
        cortex_issuer: "http://127.0.0.1:9".to_owned(),
        ..config
    })
    .await;
    let (_, body) = world.web_identity(&world.aws_token(&json!({})), &[]).await;
    assert_eq!(element(&body, "Code"), "IDPCommunicationError");
}

#[tokio::test]
async fn a_new_key_of_cortex_is_found_at_once() {
    let world = World::start().await;
    world.session(&json!({}), None).await;
    let old = world.aws_token(&json!({}));
    world.cortex.rotate_issuer_key(false).unwrap();
    world.session(&json!({}), None).await;
    // The withdrawn key is gone as soon as the set was fetched again.
    let (_, body) = world.web_identity(&old, &[]).await;
    assert_eq!(element(&body, "Code"), "InvalidIdentityToken");
}

/// `AssumeRole` by the SDK, with what `change` leaves of a good request.
async fn assume(
    world: &World,
    keys: &Keys,
    tags: &[(&str, &str)],
    external_id: Option<&str>,
    seconds: i32,
) -> Result<aws_sdk_sts::types::Credentials, String> {
    let tags = tags.iter().map(|(key, value)| Tag::builder().key(*key).value(*value).build().unwrap());
    let call = world
        .sts(keys)
        .assume_role()
        .role_arn(ROLE)
        .role_session_name("finance_publish-r1")
        .set_external_id(external_id.map(ToOwned::to_owned))
        .set_tags(Some(tags.collect()))
        .transitive_tag_keys("lease")
        .source_identity(LEASE)
        .duration_seconds(seconds);
    match call.send().await {
        Ok(output) => Ok(output.credentials.unwrap()),
        Err(error) => Err(error.code().unwrap_or("none").to_owned()),
    }
}

#[tokio::test]
async fn a_known_user_assumes_the_role_with_the_external_id_and_a_lease() {
    let world = World::start().await;
    let (broker, lease) = (Keys::broker(), ("lease", LEASE));
    let good = assume(&world, &broker, &[lease], Some("cortex-sandbox"), 900).await.unwrap();
    assert!(good.access_key_id.starts_with("ASIASANDBOX"));
    assert_eq!(world.sandbox.mints()[0].lease.as_deref(), Some(LEASE));

    let wrong_secret = Keys { secret: "guess".into(), ..Keys::broker() };
    let unknown = Keys { id: "AKIASANDBOXUNKNOWN00".into(), ..Keys::broker() };
    let with_token = Keys { token: Some("x".into()), ..Keys::broker() };
    let id = Some("cortex-sandbox");
    let fifty_one: Vec<_> = (0..51).map(|n| (format!("k{n}"), "v")).collect();
    let fifty_one: Vec<_> = fifty_one.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    for (keys, tags, external_id, seconds, code) in [
        (&broker, vec![lease], None, 900, "AccessDenied"),
        (&broker, vec![lease], Some("other"), 900, "AccessDenied"),
        (&broker, vec![], id, 900, "AccessDenied"),
        (&broker, vec![("Lease", "x"), lease], id, 900, "ValidationError"),
        (&broker, vec![lease, ("aws:x", "y")], id, 900, "ValidationError"),
        (&broker, vec![lease, ("a", "<b>")], id, 900, "ValidationError"),
        (&broker, fifty_one, id, 900, "ValidationError"),
        (&broker, vec![lease], id, 3_601, "ValidationError"),
        (&wrong_secret, vec![lease], id, 900, "SignatureDoesNotMatch"),
        (&unknown, vec![lease], id, 900, "InvalidClientTokenId"),
        (&with_token, vec![lease], id, 900, "InvalidClientTokenId"),
    ] {
        let refused = assume(&world, keys, &tags, external_id, seconds).await;
        assert_eq!(refused.unwrap_err(), code, "{tags:?} {external_id:?} {seconds}");
    }
    assert_eq!(world.sandbox.mints().len(), 1);
}

#[tokio::test]
async fn a_session_may_not_assume_a_role_that_its_policies_do_not_name() {
    let world = World::start().await;
    let session = world.session(&json!({}), None).await;
    let refused = assume(&world, &session, &[], Some("cortex-sandbox"), 900).await;
    assert_eq!(refused.unwrap_err(), "AccessDenied");
}

#[tokio::test]
async fn a_signature_is_good_for_fifteen_minutes() {
    let world = World::start().await;
    let client = world.sts(&Keys::broker());
    client.get_caller_identity().send().await.unwrap();
    let slow = World { clock: cortex_core::clock::ManualClock::new(world.now()), ..world };
    let late = slow.sts(&Keys::broker());
    slow.clock.advance(SignedDuration::from_secs(901));
    let refused = late.get_caller_identity().send().await.unwrap_err();
    assert_eq!(refused.code(), Some("SignatureDoesNotMatch"));
}

#[tokio::test]
async fn a_session_ends_when_it_said_and_needs_its_token() {
    let world = World::start().await;
    let keys = world.session(&json!({}), None).await;
    let other = Keys { token: Some("sandbox//other".into()), ..keys.clone() };
    let refused = world.sts(&other).get_caller_identity().send().await.unwrap_err();
    assert_eq!(refused.code(), Some("InvalidClientTokenId"));
    world.clock.advance(SignedDuration::from_secs(3_599));
    world.sts(&keys).get_caller_identity().send().await.unwrap();
    world.clock.advance(SignedDuration::from_secs(1));
    let refused = world.sts(&keys).get_caller_identity().send().await.unwrap_err();
    assert_eq!(refused.code(), Some("ExpiredToken"));
}
