//! No body makes the readers of `/v1/token` and `/v1/credentials` panic.
#![no_main]

use cortex_fuzz::text;
use cortex_server::http::fuzzing;
use libfuzzer_sys::fuzz_target;

const FORM: &str = "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token=a.b.c\
                    &subject_token_type=urn:ietf:params:oauth:token-type:jwt&audience=urn:cortex:first-steps:aws\
                    &requested_token_type=urn:ietf:params:oauth:token-type:access_token&scope=a%20b";
const ASK: &str =
    r#"{"policy": "first-steps", "targets": ["aws", "api"], "reason": "late", "ttl_seconds": 900}"#;

fuzz_target!(|data: &[u8]| {
    let text = text(data, &[FORM, ASK]);
    for body in [data, text.as_bytes()] {
        if let Some((policy, provider)) = fuzzing::token_form(body) {
            assert!(!provider.contains(':'), "{policy} {provider}");
        }
        if let Some(ttl) = fuzzing::credentials_body(body) {
            assert!((60..=43_200).contains(&ttl), "{ttl}");
        }
    }
});
