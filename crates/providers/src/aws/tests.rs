//! What the AWS provider promises.

mod check;
mod plan;
mod wire;

use serde_json::{Value, json};

const ROLE: &str = "arn:aws:iam::123456789012:role/finance-publish";

fn target() -> Value {
    json!({
        "role": ROLE,
        "allow": [{
            "actions": ["s3:PutObject"],
            "resources": ["arn:aws:s3:::finance-mart/{dag_id}/{run_id}/*"],
        }],
        "region": "eu-west-1",
    })
}
