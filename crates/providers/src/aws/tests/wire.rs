//! What STS is shown, and what becomes of each of its answers.

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use cortex_core::Body;
use cortex_core::credential::Revocation;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{ROLE, target};
use crate::aws::{Aws, sts::Sts};
use crate::config::{AwsConfig, CallLimits};
use crate::tests::fixtures::{Key, issuance_id, issuer, mint, plan, verified};
use crate::tests::stub::{Reply, Stub};
use crate::{MintError, Minted};

const EXPIRATION: &str = "2026-11-22T00:30:00Z";

fn aws(endpoint: &str, calls: CallLimits) -> Aws {
    let config = AwsConfig {
        endpoint: Some(endpoint.to_owned()),
        external_id: Some("cortex-prod-7".into()),
        calls,
        ..AwsConfig::default()
    };
    let own = Credentials::new("AKIDEXAMPLE", "own-secret", None, None, "test");
    let sts = Sts::new(config, issuer()).with_credentials(SharedCredentialsProvider::new(own));
    Aws { shared: std::sync::Arc::new(sts) }
}

fn session_arn() -> String {
    let plan = plan(&aws("http://127.0.0.1:1", CallLimits::default()), &target()).unwrap();
    let name = plan.scope["session_name"].as_str().unwrap().to_owned();
    format!("arn:aws:sts::123456789012:assumed-role/finance-publish/{name}")
}

/// STS's answer to `action`, with `(from, to)` replaced in it.
fn answer(action: &str, changes: &[(&str, &str)]) -> String {
    let id = issuance_id();
    let mut text = format!(
        "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result>\
         <AssumedRoleUser><Arn>{}</Arn><AssumedRoleId>AROAEXAMPLE:x</AssumedRoleId></AssumedRoleUser>\
         <PackedPolicySize>12</PackedPolicySize><SourceIdentity>{id}</SourceIdentity>\
         <Credentials><AccessKeyId>ASIAIOSFODNN7EXAMPLE</AccessKeyId><SecretAccessKey>canary-secret</SecretAccessKey>\
         <SessionToken>canary-token</SessionToken><Expiration>{EXPIRATION}</Expiration></Credentials>\
         </{action}Result><ResponseMetadata><RequestId>req-1</RequestId></ResponseMetadata></{action}Response>",
        session_arn()
    );
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    text
}

fn success() -> Reply {
    let headers = vec![("x-amzn-requestid", "req-1")];
    Reply::Whole(200, headers, answer("AssumeRoleWithWebIdentity", &[]))
}

fn error(status: u16, code: &str) -> Reply {
    Reply::status(
        status,
        format!(
            "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
             <Code>{code}</Code><Message>canary-message eyJhbGciOi</Message></Error><RequestId>r</RequestId></ErrorResponse>"
        ),
    )
}

/// Mints against `replies`; answers the result and how many calls arrived.
async fn run(replies: Vec<Reply>, calls: CallLimits) -> (Result<Minted<Key>, MintError>, usize) {
    let stub = Stub::start(replies).await;
    let result = mint(plan(&aws(&stub.url, calls), &target()).unwrap()).await;
    (result, stub.seen().len())
}

fn impatient() -> CallLimits {
    CallLimits { attempt_timeout: SignedDuration::from_millis(300), ..CallLimits::default() }
}

#[tokio::test]
async fn a_web_identity_token_is_good_for_one_role_and_one_issuance() {
    let stub = Stub::start(vec![success()]).await;
    let minted = mint(plan(&aws(&stub.url, CallLimits::default()), &target()).unwrap()).await.unwrap();
    let seen = stub.seen();
    let form = seen[0].form();
    assert_eq!(seen[0].authorization, None, "the token is all the proof");
    assert_eq!(form["Action"], "AssumeRoleWithWebIdentity");
    assert_eq!(form["RoleArn"], ROLE);
    assert_eq!(form["DurationSeconds"], "1800");
    assert!(session_arn().ends_with(&form["RoleSessionName"]));
    let policy: Value = serde_json::from_str(&form["Policy"]).unwrap();
    let resource = "arn:aws:s3:::finance-mart/finance_publish/scheduled__2026-11-22T00:00:00+00:00/*";
    assert_eq!(policy["Statement"][0]["Resource"], json!([resource]));

    let (header, claims) = verified(&form["WebIdentityToken"]);
    assert_eq!(header["typ"], "JWT");
    let id = issuance_id().to_string();
    let iat = claims["iat"].as_i64().unwrap();
    assert_eq!(claims["exp"].as_i64().unwrap() - iat, 300);
    assert_eq!(
        claims,
        json!({
            "iss": "https://cortex.example",
            "sub": "run:prod:finance_publish:scheduled__2026-11-22T00%3A00%3A00+00%3A00:publish_mart:-:1",
            "aud": "sts.amazonaws.com",
            "iat": iat,
            "exp": iat + 300,
            "jti": id,
            "https://aws.amazon.com/source_identity": id,
            "https://aws.amazon.com/roles": [ROLE],
            "https://aws.amazon.com/tags": {
                "principal_tags": {
                    "lease": [id], "dag_id": ["finance_publish"], "policy": ["finance-data-publish"],
                },
                "transitive_tag_keys": ["lease"],
            },
        })
    );
    assert_eq!(minted.lease.credential_id, "ASIAIOSFODNN7EXAMPLE");
}

#[tokio::test]
async fn the_lease_says_what_aws_said_and_no_secret() {
    let (minted, _) = run(vec![success()], CallLimits::default()).await;
    let minted = minted.unwrap();
    let lease = serde_json::to_value(&minted.lease).unwrap();
    assert_eq!(minted.lease.expires_at, EXPIRATION.parse().unwrap());
    assert_eq!(minted.lease.provider_request_id.as_deref(), Some("req-1"));
    assert_eq!(minted.lease.revocation, Revocation::AwsDeny { role_arn: ROLE.into() });
    assert_eq!(lease["facts"]["assumed_role_arn"], json!(session_arn()));
    assert_eq!(lease["facts"]["assumed_role_id"], "AROAEXAMPLE:x");
    assert_eq!(lease["facts"]["packed_policy_size"], 12);
    assert_eq!(minted.details["account"], "123456789012");
    assert_eq!(minted.details["region"], "eu-west-1");
    assert_eq!(minted.details["role_arn"], ROLE);
    assert!(!format!("{minted:?}").contains("canary"), "{minted:?}");
    let Body::AwsKeys { secret_access_key, session_token, .. } = minted.secret.open(&Key) else {
        panic!("not keys")
    };
    assert_eq!((secret_access_key.as_str(), session_token.as_str()), ("canary-secret", "canary-token"));
}

#[tokio::test]
async fn assume_role_sends_the_external_id_and_the_tags_and_is_signed() {
    let stub = Stub::start(vec![Reply::ok(answer("AssumeRole", &[]))]).await;
    let mut target = target();
    target["method"] = json!("assume-role");
    let minted = mint(plan(&aws(&stub.url, CallLimits::default()), &target).unwrap()).await.unwrap();
    let seen = stub.seen();
    let form = seen[0].form();
    assert!(seen[0].authorization.as_ref().unwrap().contains("AKIDEXAMPLE/"));
    assert!(seen[0].authorization.as_ref().unwrap().contains("/eu-west-1/sts/"));
    assert_eq!(form["Action"], "AssumeRole");
    assert_eq!(form["ExternalId"], "cortex-prod-7");
    assert_eq!(form["SourceIdentity"], issuance_id().to_string());
    assert_eq!(form["TransitiveTagKeys.member.1"], "lease");
    let tags: Vec<_> = (1..=3)
        .map(|n| {
            (form[&format!("Tags.member.{n}.Key")].as_str(), form[&format!("Tags.member.{n}.Value")].as_str())
        })
        .collect();
    let id = issuance_id().to_string();
    assert_eq!(
        tags,
        [("dag_id", "finance_publish"), ("policy", "finance-data-publish"), ("lease", id.as_str())]
    );
    assert_eq!(minted.lease.credential_id, "ASIAIOSFODNN7EXAMPLE");
}

#[tokio::test]
async fn every_refusal_is_final_and_says_what_to_do() {
    let codes = [
        (403, "AccessDenied"),
        (400, "MalformedPolicyDocument"),
        (400, "PackedPolicyTooLarge"),
        (403, "RegionDisabledException"),
        (400, "ExpiredTokenException"),
        (400, "InvalidIdentityToken"),
        (403, "IDPRejectedClaim"),
        (400, "ValidationError"),
        (403, "InvalidClientTokenId"),
        (400, "SomethingNew"),
    ];
    for (status, expected) in codes {
        let (result, calls) = run(vec![error(status, expected), success()], CallLimits::default()).await;
        let Err(MintError::Refused { code, message, remedy }) = result else {
            panic!("{expected}: {result:?}")
        };
        assert_eq!((code.as_str(), calls), (expected, 1));
        assert!(!message.contains("canary") && !remedy.contains("canary"), "AWS's text is not passed on");
        assert!(message.contains(ROLE) && !remedy.is_empty(), "{message}");
    }
}

#[tokio::test]
async fn an_error_without_a_code_is_refused_by_its_status() {
    let (result, calls) = run(vec![Reply::status(403, "<html>proxy</html>")], CallLimits::default()).await;
    assert!(matches!(result, Err(MintError::Refused { .. })), "{result:?}");
    assert_eq!(calls, 1);
}

#[tokio::test]
async fn what_may_pass_is_tried_three_times_at_most() {
    for (status, code) in [(400, "Throttling"), (503, "ServiceUnavailable"), (400, "IDPCommunicationError")] {
        let (result, calls) = run(vec![error(status, code); 9], CallLimits::default()).await;
        assert!(matches!(result, Err(MintError::Unavailable { .. })), "{code}: {result:?}");
        assert_eq!(calls, 3, "{code}");
        let (result, calls) = run(vec![error(status, code), success()], CallLimits::default()).await;
        assert!(result.is_ok(), "{code}: {result:?}");
        assert_eq!(calls, 2, "{code}");
    }
}

#[tokio::test]
async fn aws_may_say_when_to_come_back() {
    let Reply::Whole(status, _, body) = error(503, "ServiceUnavailable") else { unreachable!() };
    let later = Reply::Whole(status, vec![("retry-after", "120")], body);
    let (result, calls) = run(vec![later, success()], CallLimits::default()).await;
    assert!(matches!(result, Err(MintError::Unavailable { retry_after: Some(120), .. })), "{result:?}");
    assert_eq!(calls, 1);
}

#[tokio::test]
async fn a_lost_answer_is_indeterminate_whatever_follows() {
    for lost in [Reply::Silence, Reply::Cut, error(500, "InternalFailure"), Reply::status(502, "bad gateway")]
    {
        let (result, calls) = run(vec![lost.clone(), error(403, "AccessDenied")], impatient()).await;
        assert!(matches!(result, Err(MintError::Indeterminate { .. })), "{lost:?}: {result:?}");
        assert_eq!(calls, 2, "{lost:?}");
        let (result, calls) = run(vec![lost.clone(), success()], impatient()).await;
        assert!(result.is_ok(), "{lost:?}: {result:?}");
        assert_eq!(calls, 2, "{lost:?}");
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_may_have_minted() {
    for garbage in ["", "{}", "<html/>", "<AssumeRoleWithWebIdentityResponse>"] {
        let (result, calls) = run(vec![Reply::ok(garbage), success()], CallLimits::default()).await;
        assert!(matches!(result, Err(MintError::Indeterminate { .. })), "{garbage:?}: {result:?}");
        assert_eq!(calls, 1, "{garbage:?}");
    }
}

#[tokio::test]
async fn a_refused_connection_minted_nothing() {
    let stub = Stub::start(Vec::new()).await;
    let url = stub.url.clone();
    drop(stub);
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = format!("http://{}", unused.local_addr().unwrap());
    drop(unused);
    for url in [url, closed] {
        let calls = CallLimits { retries: 0, ..CallLimits::default() };
        let result = mint(plan(&aws(&url, calls), &target()).unwrap()).await;
        assert!(matches!(result, Err(MintError::Unavailable { .. })), "{result:?}");
    }
}

#[tokio::test]
async fn what_is_not_what_was_asked_is_withheld() {
    let name = session_arn();
    let cases = [
        ("longer", (EXPIRATION, "2026-11-22T00:35:00Z")),
        ("over", (EXPIRATION, "2026-11-21T23:59:59Z")),
        ("role", ("assumed-role/finance-publish/", "assumed-role/admin/")),
        ("account", ("123456789012", "210987654321")),
        ("session", (name.as_str(), "arn:aws:sts::123456789012:assumed-role/finance-publish/other")),
        ("partition", ("arn:aws:sts", "arn:aws-cn:sts")),
        ("token", ("<SessionToken>canary-token</SessionToken>", "")),
        ("secret", ("<SecretAccessKey>canary-secret</SecretAccessKey>", "")),
        ("key", ("ASIAIOSFODNN7EXAMPLE", "short")),
        ("expiry", ("<Expiration>2026-11-22T00:30:00Z</Expiration>", "")),
        ("identity", ("<SourceIdentity>", "<SourceIdentity>x")),
        ("user", ("AssumedRoleUser", "Nobody")),
    ];
    for (what, change) in cases {
        let body = answer("AssumeRoleWithWebIdentity", &[change]);
        let (result, calls) = run(vec![Reply::ok(body), success()], CallLimits::default()).await;
        let Err(MintError::Mismatch { message, expires_at }) = result else { panic!("{what}: {result:?}") };
        assert!(!message.contains("canary"), "{message}");
        assert_eq!(calls, 1, "{what}");
        assert_eq!(expires_at.is_some(), what != "expiry", "{what}");
    }
    let body = answer("AssumeRoleWithWebIdentity", &[("Credentials>", "Nothing>")]);
    let (result, _) = run(vec![Reply::ok(body)], CallLimits::default()).await;
    assert!(matches!(result, Err(MintError::Mismatch { expires_at: None, .. })), "{result:?}");
}

#[tokio::test]
async fn the_cloud_may_be_a_minute_ahead() {
    let body = answer("AssumeRoleWithWebIdentity", &[(EXPIRATION, "2026-11-22T00:30:59Z")]);
    let (result, _) = run(vec![Reply::ok(body)], CallLimits::default()).await;
    assert!(result.is_ok(), "{result:?}");
}
