//! The files under `config/`: what they say is what the code does, and nothing is left unsaid.

#![expect(clippy::unwrap_used, reason = "a file that cannot be read has failed its test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use cortex_core::policy::{Guardrails, Policy, run_tests};
use cortex_identity::{AirflowConfig, ClusterConfig, IssuerConfig};
use cortex_providers::BuiltIns;
use cortex_server::Config;
use cortex_server::notify::NotificationConfig;
use cortex_server::streams::StreamConfig;
use serde_json::Value;

fn config_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config")
}

fn read(file: impl AsRef<Path>) -> String {
    let path = config_folder().join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files of a folder that end in `ending`, by name.
fn files(folder: &str, ending: &str) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(config_folder().join(folder)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let ours =
        names.filter(|name| name.ends_with(ending) && (ending != ".yaml" || !name.ends_with(".test.yaml")));
    ours.map(|name| (name.clone(), read(Path::new(folder).join(name)))).collect()
}

fn parse(text: &str) -> Config {
    Config::parse("cortex.toml", text, std::iter::empty()).unwrap()
}

/// One option of `cortex.toml`: the tables that it is in, its key, and its value as it is written.
struct Setting {
    tables: Vec<String>,
    key: String,
    value: String,
    /// Whether the line is there to show a value that is no default.
    is_example: bool,
}

/// A line of TOML, be it commented out or not; none for prose.
fn toml_line(line: &str) -> Option<&str> {
    let line = line.strip_prefix("# ").unwrap_or(line);
    let is_key =
        |key: &str| !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    let is_setting = line.split_once(" = ").is_some_and(|(key, _)| is_key(key));
    (line.starts_with('[') || is_setting).then_some(line)
}

fn settings(text: &str) -> Vec<Setting> {
    let mut tables = Vec::new();
    let mut found = Vec::new();
    for line in text.lines().filter_map(toml_line) {
        if line.starts_with('[') {
            tables = line.trim_matches(['[', ']']).split('.').map(str::to_owned).collect();
        } else if let Some((key, value)) = line.split_once(" = ") {
            let (value, is_example) = match value.split_once("  # ") {
                Some((value, "example")) => (value, true),
                _ => (value, false),
            };
            let (key, value) = (key.to_owned(), value.to_owned());
            found.push(Setting { tables: tables.clone(), key, value, is_example });
        }
    }
    found
}

/// Follows references, and items of a list.
fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let next = match schema["$ref"].as_str() {
        Some(reference) => root.pointer(reference.trim_start_matches('#')),
        None => schema.get("items"),
    };
    next.map_or(schema, |next| resolve(root, next))
}

/// The schema of `key`, and the key as the schema has it: `*` where people choose it.
fn step<'a, 'b>(schema: &'a Value, key: &'b str) -> Option<(&'b str, &'a Value)> {
    let named = schema["properties"].get(key).map(|next| (key, next));
    named.or_else(|| schema.get("additionalProperties").filter(|any| any.is_object()).map(|any| ("*", any)))
}

/// Every option that the schema has, each with its description.
fn options(root: &Value, schema: &Value, path: &str, into: &mut BTreeMap<String, String>) {
    let inner = resolve(root, schema);
    let named = inner["properties"].as_object().into_iter().flatten();
    let any = inner.get("additionalProperties").filter(|any| any.is_object()).map(|any| ("*", any));
    let mut is_table = false;
    for (key, next) in named.map(|(key, next)| (key.as_str(), next)).chain(any) {
        is_table = true;
        options(root, next, &format!("{path}.{key}"), into);
    }
    if !is_table {
        into.insert(path.trim_start_matches('.').to_owned(), schema["description"].to_string());
    }
}

/// Where the schema has this setting; none where it has none.
fn option_of(root: &Value, setting: &Setting) -> Option<String> {
    let mut schema = root;
    let mut path = Vec::new();
    for key in setting.tables.iter().chain([&setting.key]) {
        let (name, next) = step(resolve(root, schema), key)?;
        path.push(name);
        schema = next;
    }
    Some(path.join("."))
}

fn printed(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_cortex")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn uncommented(text: &str) -> String {
    text.lines().map(|line| toml_line(line).unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_configuration_as_it_lies_there_is_the_default() {
    let config = parse(&read("cortex.toml"));
    assert_eq!(serde_json::to_value(config).unwrap(), serde_json::to_value(Config::default()).unwrap());
}

#[test]
fn every_option_is_in_the_file_and_nothing_else_is() {
    let schema = printed(&["config", "schema"]);
    let mut known = BTreeMap::new();
    options(&schema, &schema, "", &mut known);
    let settings = settings(&read("cortex.toml"));
    let written: BTreeSet<_> = settings
        .iter()
        .map(|setting| {
            option_of(&schema, setting).unwrap_or_else(|| panic!("there is no option {}", setting.key))
        })
        .collect();
    assert_eq!(written, known.into_keys().collect());
}

#[test]
fn what_stands_there_as_a_default_is_the_default() {
    let text = read("cortex.toml");
    let config = parse(&uncommented(&text));
    let written = serde_json::to_value(&config).unwrap();
    let mut default = serde_json::to_value(Config::default()).unwrap();
    let issuers = config.issuers.into_iter();
    let plain =
        issuers.map(|issuer| IssuerConfig::new(issuer.name, issuer.iss, issuer.kind, issuer.audience));
    default["issuers"] = serde_json::to_value(plain.collect::<Vec<_>>()).unwrap();
    let airflows = config.airflows.into_iter();
    let plain = airflows.map(|airflow| AirflowConfig::new(airflow.name, airflow.url, airflow.claimants));
    default["airflows"] = serde_json::to_value(plain.collect::<Vec<_>>()).unwrap();
    let clusters = config.clusters.into_iter();
    let plain =
        clusters.map(|one| ClusterConfig::new(one.name, one.iss, one.audience, one.url, one.token_file));
    default["clusters"] = serde_json::to_value(plain.collect::<Vec<_>>()).unwrap();

    let notifications = config.notifications.into_iter();
    let plain = notifications.map(|one| NotificationConfig {
        url: one.url,
        url_file: one.url_file,
        ..NotificationConfig::new(one.name, String::new())
    });
    default["notifications"] = serde_json::to_value(plain.collect::<Vec<_>>()).unwrap();

    let streams = config.streams.into_iter();
    let plain = streams.map(|one| StreamConfig::new(one.name, one.format, one.to));
    default["streams"] = serde_json::to_value(plain.collect::<Vec<_>>()).unwrap();

    let schema = printed(&["config", "schema"]);
    let mut descriptions = BTreeMap::new();
    options(&schema, &schema, "", &mut descriptions);
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let settings = settings(&text);
    for setting in settings.iter().filter(|setting| !setting.is_example || setting.key == "name") {
        if setting.key == "name" {
            *seen.entry(&setting.tables[0]).or_default() += 1;
            continue;
        }
        let path = setting.tables.iter().chain([&setting.key]).fold(String::new(), |path, key| {
            let index = seen.get(key.as_str()).map_or_else(String::new, |seen| format!("/{}", seen - 1));
            format!("{path}/{key}{index}")
        });
        match default.pointer(&path) {
            // What is left out means something all the same: the schema says what.
            None | Some(Value::Null) => {
                let description = &descriptions[&option_of(&schema, setting).unwrap()];
                let value = setting.value.trim_matches('"');
                let said = [format!("Default `{value}`"), format!("Default {value}")];
                assert!(said.iter().any(|said| description.contains(said)), "{path}: {value}; {description}");
            }
            default => assert_eq!(written.pointer(&path), default, "{path}"),
        }
    }
    let expected = [("airflows", 2), ("clusters", 1), ("issuers", 3), ("notifications", 2), ("streams", 1)];
    assert_eq!(seen, expected.into(), "one issuer of each kind, one Airflow for each credential");
}

#[test]
fn the_schemas_are_those_of_this_version() {
    for (file, arguments) in [
        ("cortex.schema.json", &["config", "schema"][..]),
        ("policy.schema.json", &["config", "schema", "--policy"]),
    ] {
        let kept: Value = serde_json::from_str(&read(Path::new("schema").join(file))).unwrap();
        let renew = format!("cortex {} > config/schema/{file}", arguments.join(" "));
        assert!(kept == printed(arguments), "config/schema/{file} is out of date; renew it: {renew}");
    }
}

/// Every key that `value` has and the schema does not.
fn unknown_keys(root: &Value, schema: &Value, value: &Value, path: &str, unknown: &mut Vec<String>) {
    let schema = match schema["$ref"].as_str() {
        Some(reference) => root.pointer(reference.trim_start_matches('#')).unwrap(),
        None => schema,
    };
    let alternatives = ["anyOf", "oneOf"].iter().filter_map(|word| schema[word].as_array()).flatten();
    let mut misses: Vec<_> = alternatives
        .map(|one| {
            let mut misses = Vec::new();
            unknown_keys(root, one, value, path, &mut misses);
            misses
        })
        .collect();
    misses.sort_by_key(Vec::len);
    if let Some(best) = misses.into_iter().next() {
        return unknown.extend(best);
    }
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                match step(schema, key) {
                    Some((_, next)) => unknown_keys(root, next, value, &format!("{path}/{key}"), unknown),
                    None => unknown.push(format!("{path}/{key}")),
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                unknown_keys(root, &schema["items"], item, path, unknown);
            }
        }
        _ => {}
    }
}

#[test]
fn an_editor_knows_every_key_of_the_example_policies() {
    let schema: Value = serde_json::from_str(&read("schema/policy.schema.json")).unwrap();
    for folder in ["policies", "dev"] {
        for (name, text) in files(folder, ".yaml") {
            let first = text.lines().next().unwrap();
            assert_eq!(first, "# yaml-language-server: $schema=../schema/policy.schema.json", "{name}");
            let policy: Value = serde_saphyr::from_str(&text).unwrap();
            let mut unknown = Vec::new();
            unknown_keys(&schema, &schema, &policy, "", &mut unknown);
            assert!(unknown.is_empty(), "{name}: {unknown:?}");
            let typo = serde_json::json!({"who": {"dag": []}, "what": policy["what"].clone()});
            unknown_keys(&schema, &schema, &typo, "", &mut unknown);
            assert_eq!(unknown, ["/who/dag"], "{name}");
        }
    }
}

#[test]
fn the_example_policies_decide_as_their_tests_say() {
    let compile =
        |text: &str| Policy::compile(text, &BuiltIns).unwrap_or_else(|problems| panic!("{problems:?}"));
    let policies: BTreeMap<_, _> = files("policies", ".yaml")
        .values()
        .map(|text| compile(text))
        .map(|policy| (policy.name().clone(), policy))
        .collect();
    let guardrails = files("guardrails", ".cedar");
    let sources: Vec<_> =
        guardrails.iter().map(|(name, text)| (name.trim_end_matches(".cedar"), text.as_str())).collect();
    let guardrails = Guardrails::compile(&sources).unwrap();
    let tests = files("policies", ".test.yaml");
    assert_eq!(tests.len(), policies.len(), "each policy has its tests");
    for (name, text) in tests {
        let outcomes =
            run_tests(&text, &policies, &guardrails).unwrap_or_else(|problems| panic!("{problems:?}"));
        assert!(!outcomes.is_empty(), "{name}");
        for outcome in outcomes {
            assert_eq!(outcome.failure, None, "{name}:{}: {}", outcome.line, outcome.name);
        }
    }
}

#[test]
fn the_recipes_for_identity_providers_are_configurations() {
    let page = read("../docs/sign-in.md");
    let blocks: Vec<_> =
        page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 5, "one for each provider");
    for block in blocks {
        let config = parse(block);
        let issuer = config.sign_in.issuer.clone().unwrap();
        assert!(config.issuers.iter().any(|known| known.name == issuer), "{block}");
        assert_eq!(config.roles.warnings(), Vec::<String>::new(), "{block}");
        assert!(
            config.sign_in.client_id.as_deref() != Some(&config.issuers[0].audience),
            "two clients: {block}"
        );
    }
}
