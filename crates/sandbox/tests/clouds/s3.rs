//! S3 and IAM: a session policy cuts, a deny statement bites, and nothing else changes.

use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use jiff::SignedDuration;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::aws::Keys;
use crate::world::{LEASE, World, element};

const MART: &str = "finance-mart/finance_publish";

/// A call, before it is signed.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sent<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) body: &'a str,
    /// What the signature covers instead of the body.
    pub(crate) payload: Option<&'a str>,
}

impl World {
    /// A call signed by AWS's own signer.
    pub(crate) async fn signed(&self, keys: &Keys, service: &str, call: Sent<'_>) -> (StatusCode, String) {
        let Sent { method, path, headers, body, payload } = call;
        let url = format!("{}{path}", self.sandbox.aws_url());
        let mut settings = SigningSettings::default();
        if service == "s3" {
            settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
            settings.percent_encoding_mode = PercentEncodingMode::Single;
            settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        }
        let identity = keys.credentials().into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region("eu-west-1")
            .name(service)
            .time(self.now().into())
            .settings(settings)
            .build()
            .unwrap()
            .into();
        let signable = match payload {
            Some(stated) => SignableBody::Precomputed(stated.to_owned()),
            None => SignableBody::Bytes(body.as_bytes()),
        };
        let request = SignableRequest::new(method, &url, headers.iter().copied(), signable).unwrap();
        let (instructions, _) = sign(request, &params).unwrap().into_parts();
        let mut request = self.http.request(method.parse().unwrap(), &url).body(body.to_owned());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        for (name, value) in instructions.headers() {
            request = request.header(name, value);
        }
        let response = request.send().await.unwrap();
        (response.status(), response.text().await.unwrap())
    }

    async fn put(&self, keys: &Keys, path: &str) -> (StatusCode, String) {
        self.signed(keys, "s3", Sent { method: "PUT", path, body: "rows", ..Sent::default() }).await
    }

    async fn get(&self, keys: &Keys, path: &str) -> (StatusCode, String) {
        self.signed(keys, "s3", Sent { method: "GET", path, ..Sent::default() }).await
    }

    async fn iam(&self, keys: &Keys, params: &[(&str, &str)]) -> (StatusCode, String) {
        let common = [("Version", "2010-05-08"), ("RoleName", "finance-publish")];
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(common.iter().chain(params))
            .finish();
        let kind = [("content-type", "application/x-www-form-urlencoded")];
        let call = Sent { method: "POST", path: "/", headers: &kind, body: &form, payload: None };
        self.signed(keys, "iam", call).await
    }
}

fn only(actions: &[&str], path: &str) -> Value {
    let resource = format!("arn:aws:s3:::{path}");
    json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": resource}]})
}

fn lease(id: &str) -> Value {
    json!({"https://aws.amazon.com/tags": {"principal_tags": {"lease": [id]}}})
}

#[tokio::test]
async fn a_session_policy_cuts_what_the_role_may_do() {
    let world = World::start().await;
    let policy = only(&["s3:PutObject", "s3:GetObject"], &format!("{MART}/r1/*"));
    let keys = world.session(&json!({}), Some(&policy)).await;
    let inside = format!("/{MART}/r1/day%201/a%2Bb.csv");
    assert_eq!(world.put(&keys, &inside).await.0, StatusCode::OK);
    assert_eq!(world.get(&keys, &inside).await, (StatusCode::OK, "rows".to_owned()));

    let whole_role = world.session(&json!({}), None).await;
    assert_eq!(world.put(&whole_role, &format!("/{MART}/r2/x")).await.0, StatusCode::OK);
    for (method, path) in [
        ("PUT", format!("/{MART}/r2/x")),
        ("GET", format!("/{MART}/r2/x")),
        ("DELETE", inside),
        ("GET", "/finance-mart?list-type=2".to_owned()),
        ("PUT", "/another-bucket/x".to_owned()),
    ] {
        let (status, body) = world.signed(&keys, "s3", Sent { method, path: &path, ..Sent::default() }).await;
        assert_eq!(
            (status, element(&body, "Code")),
            (StatusCode::FORBIDDEN, "AccessDenied"),
            "{method} {path}"
        );
    }
    let wide = world.session(&json!({}), Some(&only(&["s3:*"], "*"))).await;
    assert_eq!(
        world.put(&wide, "/another-bucket/x").await.0,
        StatusCode::FORBIDDEN,
        "the role sets the limit"
    );
}

#[tokio::test]
async fn a_deny_on_a_lease_ends_that_lease_and_no_other() {
    let world = World::start().await;
    let (revoked, other) = (world.session(&lease("L1"), None).await, world.session(&lease("L2"), None).await);
    let path = format!("/{MART}/r1/x");
    assert_eq!(world.put(&revoked, &path).await.0, StatusCode::OK);
    let deny = json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Deny", "Action": "*", "Resource": "*",
        "Condition": {"StringEquals": {"aws:PrincipalTag/lease": ["L1"]}},
    }]})
    .to_string();
    let put = [("Action", "PutRolePolicy"), ("PolicyName", "cortex-revoked"), ("PolicyDocument", &deny)];
    assert_eq!(world.iam(&Keys::broker(), &put).await.0, StatusCode::OK);

    let (status, body) = world.put(&revoked, &path).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(element(&body, "Message").contains("explicit deny"), "{body}");
    assert_eq!(world.put(&other, &path).await.0, StatusCode::OK);

    let named = [("Action", "GetRolePolicy"), ("PolicyName", "cortex-revoked")];
    let (_, body) = world.iam(&Keys::broker(), &named).await;
    assert!(element(&body, "PolicyDocument").starts_with("%7B%22"), "{body}");
    let (_, body) = world.iam(&Keys::broker(), &[("Action", "ListRolePolicies")]).await;
    assert!(body.contains("<member>cortex-revoked</member>"), "{body}");
    let delete = [("Action", "DeleteRolePolicy"), ("PolicyName", "cortex-revoked")];
    assert_eq!(world.iam(&Keys::broker(), &delete).await.0, StatusCode::OK);
    assert_eq!(world.put(&revoked, &path).await.0, StatusCode::OK);
    assert_eq!(world.iam(&Keys::broker(), &named).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_deny_on_older_sessions_spares_those_that_come_after() {
    let world = World::start().await;
    let old = world.session(&json!({}), None).await;
    world.clock.advance(SignedDuration::from_secs(1));
    let deny = json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Deny", "Action": "*", "Resource": "*",
        "Condition": {"DateLessThan": {"aws:TokenIssueTime": world.now().to_string()}},
    }]})
    .to_string();
    let put = [("Action", "PutRolePolicy"), ("PolicyName", "older"), ("PolicyDocument", &deny)];
    assert_eq!(world.iam(&Keys::broker(), &put).await.0, StatusCode::OK);
    let new = world.session(&json!({}), None).await;
    let path = format!("/{MART}/x");
    assert_eq!(world.put(&old, &path).await.0, StatusCode::FORBIDDEN);
    assert_eq!(world.put(&new, &path).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_role_has_room_for_10240_characters_of_policies() {
    let world = World::start().await;
    let deny = |ids: usize| {
        let ids: Vec<_> = (0..ids).map(|n| format!("{n:026}")).collect();
        serde_json::to_string_pretty(&json!({"Version": "2012-10-17", "Statement": [{
            "Effect": "Deny", "Action": "*", "Resource": "*",
            "Condition": {"StringEquals": {"aws:PrincipalTag/lease": ids}},
        }]}))
        .unwrap()
    };
    // The role's own policy takes some of the room as well.
    for (ids, code) in [(330, ""), (360, "LimitExceeded")] {
        let document = deny(ids);
        let put = [("Action", "PutRolePolicy"), ("PolicyName", "deny"), ("PolicyDocument", &document)];
        let (_, body) = world.iam(&Keys::broker(), &put).await;
        assert_eq!(element(&body, "Code"), code, "{ids}");
    }
    let malformed = [("Action", "PutRolePolicy"), ("PolicyName", "deny"), ("PolicyDocument", "{}")];
    let (_, body) = world.iam(&Keys::broker(), &malformed).await;
    assert_eq!(element(&body, "Code"), "MalformedPolicyDocument");
}

#[tokio::test]
async fn only_an_admin_writes_policies() {
    let world = World::start().await;
    let keys = world.session(&json!({}), None).await;
    let list = [("Action", "ListRolePolicies")];
    assert_eq!(element(&world.iam(&keys, &list).await.1, "Code"), "AccessDenied");
    let (status, body) =
        world.post_form(world.sandbox.aws_url(), &[("Version", "2010-05-08"), list[0]]).await;
    assert_eq!((status, element(&body, "Code")), (StatusCode::FORBIDDEN, "MissingAuthenticationToken"));
}

#[tokio::test]
async fn a_body_has_to_be_the_one_that_was_signed() {
    let world = World::start().await;
    let keys = world.session(&json!({}), None).await;
    let path = format!("/{MART}/x");
    let other = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    for (payload, headers, body, code) in [
        ("UNSIGNED-PAYLOAD", vec![], "rows", ""),
        ("UNSIGNED-PAYLOAD", vec![("x-amz-checksum-crc32", "MSpqpg==")], "abcdefg", ""),
        ("UNSIGNED-PAYLOAD", vec![("x-amz-checksum-crc32", "MSpqpg==")], "abcdefG", "BadDigest"),
        (other, vec![], "rows", "XAmzContentSHA256Mismatch"),
        ("nonsense", vec![], "rows", "InvalidArgument"),
        (
            "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
            vec![("x-amz-trailer", "x-amz-checksum-crc32"), ("x-amz-decoded-content-length", "7")],
            "7\r\nabcdefg\r\n0\r\nx-amz-checksum-crc32:MSpqpg==\r\n\r\n",
            "",
        ),
        (
            "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
            vec![("x-amz-decoded-content-length", "8")],
            "7\r\nabcdefg\r\n0\r\n\r\n",
            "IncompleteBody",
        ),
        (
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
            vec![],
            "4;chunk-signature=00\r\nrows\r\n0;chunk-signature=00\r\n\r\n",
            "XAmzContentSHA256Mismatch",
        ),
    ] {
        let answer = world
            .signed(
                &keys,
                "s3",
                Sent { method: "PUT", path: &path, headers: &headers, body, payload: Some(payload) },
            )
            .await;
        assert_eq!(element(&answer.1, "Code"), code, "{payload} {body}");
    }
    assert_eq!(world.get(&keys, &path).await.1, "abcdefg");
}

#[tokio::test]
async fn s3_refuses_keys_that_it_does_not_know() {
    let world = World::start().await;
    let keys = world.session(&json!({}), None).await;
    let path = format!("/{MART}/x");
    let plain = world.http.get(format!("{}{path}", world.sandbox.aws_url())).send().await.unwrap();
    assert_eq!(plain.status(), StatusCode::FORBIDDEN);
    for (keys, code) in [
        (Keys { id: "ASIASANDBOXUNKNOWN00".into(), ..keys.clone() }, "InvalidAccessKeyId"),
        (Keys { secret: "guess".into(), ..keys.clone() }, "SignatureDoesNotMatch"),
        (Keys { token: Some("other".into()), ..keys.clone() }, "InvalidToken"),
        (Keys { token: None, ..keys.clone() }, "InvalidToken"),
    ] {
        assert_eq!(element(&world.put(&keys, &path).await.1, "Code"), code);
    }
    world.clock.advance(SignedDuration::from_hours(1));
    assert_eq!(element(&world.put(&keys, &path).await.1, "Code"), "ExpiredToken");
}

#[tokio::test]
async fn listing_rolls_up_and_goes_on() {
    let world = World::start().await;
    let keys = world.session(&json!({}), None).await;
    for key in ["a/1", "a/2", "b", "c"] {
        assert_eq!(world.put(&keys, &format!("/finance-mart/{key}")).await.0, StatusCode::OK);
    }
    let (_, body) = world.get(&keys, "/finance-mart?list-type=2&delimiter=%2F").await;
    assert!(body.contains("<CommonPrefixes><Prefix>a/</Prefix></CommonPrefixes>"), "{body}");
    assert_eq!(body.matches("<Contents>").count(), 2);
    let (_, first) = world.get(&keys, "/finance-mart?list-type=2&max-keys=3").await;
    assert_eq!(element(&first, "IsTruncated"), "true");
    let token = element(&first, "NextContinuationToken");
    let (_, rest) = world.get(&keys, &format!("/finance-mart?list-type=2&continuation-token={token}")).await;
    assert_eq!((element(&rest, "Key"), element(&rest, "IsTruncated")), ("c", "false"));
    let (status, _) = world
        .signed(&keys, "s3", Sent { method: "DELETE", path: "/finance-mart/b", ..Sent::default() })
        .await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(element(&world.get(&keys, "/finance-mart/b").await.1, "Code"), "NoSuchKey");
    assert_eq!(element(&world.get(&keys, "/finance-mart?acl").await.1, "Code"), "NotImplemented");
}

#[tokio::test]
async fn a_lease_is_what_the_ledger_knows_a_session_by() {
    let world = World::start().await;
    world.session(&json!({}), None).await;
    assert_eq!(world.sandbox.mints()[0].lease.as_deref(), Some(LEASE));
}
