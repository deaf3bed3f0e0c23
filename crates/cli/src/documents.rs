//! Policies, guardrails and their tests as files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cortex_core::policy::{Guardrails, Policy, Problem};
use cortex_core::{Digest, PolicyName};
use cortex_providers::BuiltIns;
use cortex_server::store::documents::{Document, Kind};

use crate::error::Error;

/// How deep folders are followed.
const DEPTH_MAX: usize = 4;

/// The example policies and guardrails, and one policy for first steps in the sandbox.
const EXAMPLES: &[(&str, &str)] = &[
    ("customer-data-erasure.yaml", include_str!("../../../config/policies/customer-data-erasure.yaml")),
    ("finance-data-publish.yaml", include_str!("../../../config/policies/finance-data-publish.yaml")),
    ("ledger-api-read.yaml", include_str!("../../../config/policies/ledger-api-read.yaml")),
    (
        "marketing-attribution-load.yaml",
        include_str!("../../../config/policies/marketing-attribution-load.yaml"),
    ),
    ("risk-scores-refresh.yaml", include_str!("../../../config/policies/risk-scores-refresh.yaml")),
    ("first-steps.yaml", include_str!("../../../config/dev/first-steps.yaml")),
    ("lifetime.cedar", include_str!("../../../config/guardrails/lifetime.cedar")),
    ("production.cedar", include_str!("../../../config/guardrails/production.cedar")),
];

/// A file with its text.
pub(crate) struct File {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// What a set of files holds, checked.
#[derive(Default)]
pub(crate) struct Files {
    pub(crate) policies: BTreeMap<PolicyName, Policy>,
    pub(crate) guardrails: Vec<(String, String)>,
    pub(crate) tests: Vec<File>,
}

impl Files {
    /// Reads files and folders: `*.yaml` are policies, `*.test.yaml` their tests, `*.cedar` guardrails. Every
    /// fault is printed with its file and line before this fails.
    pub(crate) fn read(paths: &[PathBuf]) -> Result<Self, Error> {
        let mut found = Vec::new();
        for path in paths {
            find(path, 0, &mut found)?;
        }
        found.sort();
        let mut files = Self::default();
        let mut faults = 0;
        for path in found {
            let text = std::fs::read_to_string(&path)
                .map_err(|e| Error::Said(format!("{}: cannot be read: {e}", path.display())))?;
            faults += files.take(File { path, text });
        }
        if files.policies.is_empty() && files.guardrails.is_empty() && files.tests.is_empty() && faults == 0 {
            return Err(Error::Said("no policies (*.yaml) or guardrails (*.cedar) found there".into()));
        }
        if faults > 0 { Err(Error::Documents(format!("{faults} faults"))) } else { Ok(files) }
    }

    /// The example policies and guardrails, which the binary carries.
    pub(crate) fn examples() -> Result<Self, Error> {
        let mut files = Self::default();
        let file = |(name, text): &(&str, &str)| File { path: PathBuf::from(name), text: (*text).to_owned() };
        let faults: usize = EXAMPLES.iter().map(|example| files.take(file(example))).sum();
        if faults > 0 { Err(Error::Documents(format!("{faults} faults in the examples"))) } else { Ok(files) }
    }

    fn take(&mut self, file: File) -> usize {
        let name = file.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.ends_with(".test.yaml") {
            self.tests.push(file);
            return 0;
        }
        if let Some(stem) = name.strip_suffix(".cedar") {
            return self.take_guardrail(stem.to_owned(), file);
        }
        match Policy::compile(&file.text, &BuiltIns) {
            Ok(policy) => {
                let name = policy.name().clone();
                if self.policies.insert(name.clone(), policy).is_none() {
                    return 0;
                }
                println!(
                    "{}: the policy {name} is in another file too; keep one of them",
                    file.path.display()
                );
                1
            }
            Err(problems) => print(&file.path, &problems),
        }
    }

    fn take_guardrail(&mut self, name: String, file: File) -> usize {
        let checked = Guardrails::compile(&[(name.as_str(), file.text.as_str())]);
        let faults = match (name.parse::<PolicyName>(), checked) {
            (Err(error), _) => {
                println!("{}: the file's name: {error}", file.path.display());
                1
            }
            (Ok(_), Err(problems)) => print(&file.path, &problems),
            (Ok(_), Ok(_)) => 0,
        };
        self.guardrails.push((name, file.text));
        faults
    }

    /// The guardrails, compiled together.
    pub(crate) fn guardrails(&self) -> Result<Guardrails, Error> {
        let sources: Vec<_> =
            self.guardrails.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        Guardrails::compile(&sources).map_err(|problems| {
            Error::Documents(format!("{} faults", print(Path::new("guardrails"), &problems)))
        })
    }

    /// What is applied: every policy and guardrail.
    pub(crate) fn documents(&self) -> Vec<Document> {
        let policies = self.policies.values().map(|policy| Document {
            kind: Kind::Policy,
            name: policy.name().to_string(),
            digest: policy.digest(),
            source: policy.source().to_owned(),
        });
        let guardrails = self.guardrails.iter().map(|(name, text)| Document {
            kind: Kind::Guardrail,
            name: name.clone(),
            digest: Digest::of(text.as_bytes()),
            source: text.clone(),
        });
        policies.chain(guardrails).collect()
    }
}

fn find(path: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), Error> {
    let wrong = |e: std::io::Error| Error::Said(format!("{}: {e}", path.display()));
    if !std::fs::metadata(path).map_err(wrong)?.is_dir() {
        found.push(path.to_owned());
        return Ok(());
    }
    if depth > DEPTH_MAX {
        return Ok(());
    }
    for entry in std::fs::read_dir(path).map_err(wrong)? {
        let entry = entry.map_err(wrong)?.path();
        let ours = entry.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "cedar");
        if entry.is_dir() || ours {
            find(&entry, depth + 1, found)?;
        }
    }
    Ok(())
}

fn print(path: &Path, problems: &[Problem]) -> usize {
    for problem in problems {
        println!("{}:{problem}", path.display());
    }
    problems.len()
}
