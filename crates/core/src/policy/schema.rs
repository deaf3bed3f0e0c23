//! The JSON Schema of the document, for editors and for CI.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::document::Document;

/// The JSON Schema (draft 2020-12) of a policy document; `targets` are the providers' names and the schemas of
/// their targets. An editor that knows it completes keys and shows faults while typing. It is less strict than
/// compiling: what only makes sense together is checked there.
pub fn policy_schema(targets: &[(&str, Schema)]) -> Value {
    let mut generator = SchemaGenerator::new(SchemaSettings::draft2020_12());
    let mut schema = Document::json_schema(&mut generator).to_value();
    let mut definitions: Map<String, Value> = generator.take_definitions(true);
    let mut what = Map::new();
    for (name, target) in targets {
        let mut target = target.clone().to_value();
        hoist(name, &mut target, &mut definitions);
        what.insert((*name).to_owned(), target);
    }
    let what = json!({
        "description": "The targets, by provider: what one run gets. At least one.",
        "type": "object",
        "properties": what,
        "additionalProperties": false,
        "minProperties": 1,
    });
    if let Some(object) = schema.as_object_mut() {
        object.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
        if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
            properties.insert("what".into(), what);
        }
        object.insert("$defs".into(), Value::Object(definitions));
    }
    drop_null_defaults(&mut schema);
    schema
}

/// A key that may be left out is not a key that may be null.
fn drop_null_defaults(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            object.retain(|key, value| key != "default" || !value.is_null());
            object.values_mut().for_each(drop_null_defaults);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_null_defaults),
        _ => {}
    }
}

/// Moves a target's own definitions to the root under its provider's name: `#/$defs/aws.Statement`.
fn hoist(provider: &str, target: &mut Value, definitions: &mut Map<String, Value>) {
    let Some(object) = target.as_object_mut() else {
        return;
    };
    object.remove("$schema");
    let own = object.remove("$defs");
    rename_references(provider, target);
    if let Some(Value::Object(own)) = own {
        for (name, mut definition) in own {
            rename_references(provider, &mut definition);
            definitions.insert(format!("{provider}.{name}"), definition);
        }
    }
}

fn rename_references(provider: &str, schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            for (key, value) in object.iter_mut() {
                let local = value.as_str().and_then(|text| text.strip_prefix("#/$defs/"));
                match local {
                    Some(name) if key == "$ref" => *value = format!("#/$defs/{provider}.{name}").into(),
                    _ => rename_references(provider, value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename_references(provider, item)),
        _ => {}
    }
}
