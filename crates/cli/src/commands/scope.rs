//! What is stopped or revoked, at the command line.

use serde_json::{Value, json};

use crate::error::{Error, Exit};

/// A scope, in words of its own for each kind.
#[derive(Debug, clap::Args)]
pub(crate) struct ScopeArgs {
    /// Everything.
    #[arg(long, conflicts_with_all = ["issuer", "policy", "dag", "run", "principal"])]
    everything: bool,
    /// Whoever this issuer vouches for; with --dag: the Airflow of the DAG.
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// What this policy permits.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["issuer", "dag", "principal"])]
    policy: Option<String>,
    /// Every run of this DAG.
    #[arg(long, value_name = "DAG", conflicts_with = "principal")]
    dag: Option<String>,
    /// One run of the DAG.
    #[arg(long, value_name = "RUN", requires = "dag")]
    run: Option<String>,
    /// One principal, as the record shows it.
    #[arg(long, conflicts_with = "issuer")]
    principal: Option<String>,
}

impl ScopeArgs {
    /// The scope as the API writes it; none where none was named.
    pub(crate) fn scope(&self) -> Option<Value> {
        let Self { everything, issuer, policy, dag, run, principal } = self;
        let scope = match (everything, policy, principal, dag, run, issuer) {
            (true, ..) => json!({"kind": "everything"}),
            (_, Some(policy), ..) => json!({"kind": "policy", "policy": policy}),
            (_, _, Some(principal), ..) => json!({"kind": "principal", "principal": principal}),
            (_, _, _, Some(dag), Some(run), issuer) => {
                with_issuer(json!({"kind": "run", "dag_id": dag, "run_id": run}), issuer.as_deref())
            }
            (_, _, _, Some(dag), None, issuer) => {
                with_issuer(json!({"kind": "dag", "dag_id": dag}), issuer.as_deref())
            }
            (_, _, _, None, _, Some(issuer)) => json!({"kind": "issuer", "issuer": issuer}),
            (false, None, None, None, _, None) => return None,
        };
        Some(scope)
    }

    /// The same, where one is needed.
    pub(crate) fn needed(&self) -> Result<Value, Error> {
        self.scope().ok_or_else(|| {
            let text = "name what: --everything, --issuer, --policy, --dag (and --run) or --principal";
            Error::Of(Exit::Usage, text.to_owned())
        })
    }
}

fn with_issuer(mut scope: Value, issuer: Option<&str>) -> Value {
    if let (Some(fields), Some(issuer)) = (scope.as_object_mut(), issuer) {
        fields.insert("issuer".to_owned(), issuer.into());
    }
    scope
}

/// A scope of the API in words.
pub(crate) fn in_words(scope: &Value) -> String {
    use crate::output::field;

    let of = |name: &str| field(scope, name);
    let issuer = scope.get("issuer").map_or_else(String::new, |_| format!(" of {}", of("issuer")));
    match of("kind").as_str() {
        "everything" => "everything".to_owned(),
        "issuer" => format!("issuer {}", of("issuer")),
        "policy" => format!("policy {}", of("policy")),
        "dag" => format!("DAG {}{issuer}", of("dag_id")),
        "run" => format!("run {} of DAG {}{issuer}", of("run_id"), of("dag_id")),
        "principal" => of("principal"),
        _ => crate::output::text(scope),
    }
}
