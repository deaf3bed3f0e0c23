//! No JSON makes the check of a policy's target panic, and whatever is refused says what to write instead.
#![no_main]

use cortex_fuzz::text;
use cortex_providers::BUILT_INS;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const SEEDS: [&str; 4] = [
    r#"{"role": "arn:aws:iam::123456789012:role/r", "method": "assume-role", "external_id": "acme", "region": "eu-west-1",
        "tags": {"team": "{team}"}, "allow": [{"actions": ["s3:PutObject"], "resources": ["arn:aws:s3:::b/{dag_id}/*"]}]}"#,
    r#"{"project": "acme-finance", "grant": "finance", "scopes": ["bigquery"],
        "service_account": "a@acme-finance.iam.gserviceaccount.com",
        "provider": "projects/1/locations/global/workloadIdentityPools/pool/providers/prov"}"#,
    r#"{"account": "acme-prod", "user": "SVC", "role": "PUBLISH", "method": "key-pair"}"#,
    r#"{"audience": "https://ledger.acme.example", "scopes": ["postings:read"]}"#,
];

fuzz_target!(|data: &[u8]| {
    let Ok(value) = serde_json::from_str::<Value>(&text(data, &SEEDS)) else { return };
    for built_in in BUILT_INS {
        match (built_in.check)(&value) {
            Ok(resource) => assert!(resource.starts_with(&format!("{}:", built_in.name)), "{resource}"),
            Err(problems) => {
                assert!(!problems.is_empty(), "{} refuses without a reason", built_in.name);
                assert!(problems.iter().all(|problem| !problem.remedy.is_empty()), "{problems:?}");
            }
        }
    }
});
