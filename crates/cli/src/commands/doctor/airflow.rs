//! `cortex doctor airflow`: tries each link between an Airflow and Cortex.

use std::net::IpAddr;

use clap::Args;
use cortex_core::clock::SystemClock;
use cortex_core::policy::Ask;
use cortex_core::principal::Ident;
use cortex_core::{Attestation, Clock as _, Decision, IssuerName, PolicyName, Principal, Run};
use cortex_identity::{IssuerConfig, Kind};
use cortex_server::Config;
use cortex_server::library::Library;
use serde_json::Value;

use super::{DEADLINE, Finding, clocks_agree, fault, keys, report, verdict};
use crate::commands::database;
use crate::error::Error;

#[derive(Debug, Args)]
pub(crate) struct AirflowArgs {
    /// The Airflow, by its name in the configuration. Default: each issuer of runs.
    #[arg(long, value_name = "NAME")]
    issuer: Option<IssuerName>,
    /// A policy to ask. Needs the database.
    #[arg(long, requires = "dag", requires = "task")]
    policy: Option<PolicyName>,
    /// The DAG that asks it.
    #[arg(long, requires = "policy")]
    dag: Option<Ident>,
    /// The task that asks it.
    #[arg(long, requires = "policy")]
    task: Option<Ident>,
    /// The type of its run.
    #[arg(long, default_value = "scheduled")]
    run_type: Ident,
    /// The address that the worker calls from, where the policy has networks.
    #[arg(long, value_name = "ADDRESS")]
    source: Option<IpAddr>,
}

pub(super) async fn run(args: AirflowArgs, config: Config) -> Result<(), Error> {
    let mut findings = Vec::new();
    let airflows = airflows(&config, args.issuer.as_ref())?;
    for issuer in &airflows {
        println!("{} ({})", issuer.name, issuer.iss);
        findings.extend(report(published(issuer).await?));
        findings.extend(report(keys(issuer).await?));
    }
    if let (Some(policy), Some(dag), Some(task)) = (&args.policy, &args.dag, &args.task) {
        println!("{policy}, asked by task {task} of DAG {dag}");
        let Some(issuer) = airflows.first() else { return Ok(()) };
        let run = example(issuer, dag, task, &args.run_type);
        findings.extend(report(decisions(&config, policy, run, args.source).await?));
    }
    verdict(&findings)
}

fn airflows(config: &Config, name: Option<&IssuerName>) -> Result<Vec<IssuerConfig>, Error> {
    let wanted =
        |issuer: &&IssuerConfig| issuer.kind == Kind::Run && name.is_none_or(|name| *name == issuer.name);
    let found: Vec<_> = config.issuers.iter().filter(wanted).cloned().collect();
    if found.is_empty() {
        let what = name
            .map_or_else(|| "no issuer of runs".to_owned(), |name| format!("no issuer of runs named {name}"));
        return Err(Error::Said(format!(
            "the configuration has {what}: add [[issuers]] with kind = \"run\""
        )));
    }
    Ok(found)
}

/// The issuer's discovery document: who it says it is, whom it signs for, and what time it thinks it is.
async fn published(issuer: &IssuerConfig) -> Result<Vec<Finding>, Error> {
    let url = format!("{}/.well-known/openid-configuration", issuer.iss.trim_end_matches('/'));
    let http =
        reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(DEADLINE).build()?;
    let answer = match http.get(&url).send().await {
        Ok(answer) => answer,
        Err(error) => {
            let remedy = "Start the API server, and let [api] base_url be an address that Cortex reaches.";
            return Ok(vec![fault(format!("{url} cannot be reached: {}", error.without_url()), remedy)]);
        }
    };
    let status = answer.status().as_u16();
    let date = answer.headers().get("date").and_then(|date| date.to_str().ok()).map(str::to_owned);
    let document: Option<Value> = answer.json().await.ok().filter(|_| status == 200);
    let Some(document) = document else {
        let remedy = match status {
            404 => {
                "Install airflow-provider-cortex[issuer] beside the API server; `airflow plugins` has to list it."
            }
            503 => "The API server's log says what the issuer lacks.",
            _ => {
                "What answers there is not Airflow's issuer: is `iss` [api] base_url followed by /cortex-oidc?"
            }
        };
        return Ok(vec![fault(format!("{url} answers HTTP {status} and no discovery document"), remedy)]);
    };
    let mut findings = vec![issuer_matches(issuer, &document)];
    findings.extend(audience_matches(issuer, &document));
    findings.extend(date.and_then(|date| clocks_agree(issuer.leeway, &date, SystemClock.now())));
    Ok(findings)
}

fn issuer_matches(issuer: &IssuerConfig, document: &Value) -> Finding {
    let said = document.get("issuer").and_then(Value::as_str).unwrap_or("nothing");
    if said == issuer.iss {
        return Finding::Sound("its discovery document is reachable, and its own".into());
    }
    let what = format!("it calls itself {said:.300}, and the configuration says {}", issuer.iss);
    fault(what, "Write its own words as `iss`, or correct Airflow's [api] base_url.")
}

/// None where the issuer does not say whom it signs for, as issuers other than ours.
fn audience_matches(issuer: &IssuerConfig, document: &Value) -> Option<Finding> {
    let audiences: Vec<&str> =
        document.get("cortex_audiences")?.as_array()?.iter().filter_map(Value::as_str).collect();
    let audience = &issuer.audience;
    if audiences.contains(&audience.as_str()) {
        return Some(Finding::Sound(format!("it signs for the audience {audience}")));
    }
    let what = format!("it signs for the audiences {audiences:?}, and the configuration expects {audience}");
    Some(fault(what, "Add it to Airflow's [cortex] issuer_audiences, or correct `audience`."))
}

/// A task that such a policy may meet; what the command line does not say is left out.
fn example(issuer: &IssuerConfig, dag: &Ident, task: &Ident, run_type: &Ident) -> Run {
    Run {
        issuer: issuer.name.clone(),
        dag_id: dag.clone(),
        run_id: run_type.clone(),
        task_id: task.clone(),
        map_index: None,
        try_number: 1,
        run_type: Some(run_type.clone()),
        triggered_by: None,
        triggering_user: None,
        team: None,
        bundle: None,
        tags: std::collections::BTreeSet::new(),
        attestation: Attestation::Issuer,
    }
}

/// What the policy in force says to the run, for each of its targets.
async fn decisions(
    config: &Config,
    name: &PolicyName,
    run: Run,
    source: Option<IpAddr>,
) -> Result<Vec<Finding>, Error> {
    let library = Library::open(&database(&config.database).await?).await?;
    let catalogue = library.catalogue();
    let Some(policy) = catalogue.policy(name).and_then(|shelved| shelved.policy()) else {
        return Ok(vec![fault(
            format!("there is no policy {name}"),
            "`cortex policy list` shows those in force.",
        )]);
    };
    let Some(guardrails) = catalogue.guardrails() else {
        return Ok(vec![fault(
            "the guardrails cannot be read",
            "Apply them again with this version of Cortex.",
        )]);
    };
    let principal = Principal::Run(run);
    let decide = |provider: &str| {
        let now = SystemClock.now();
        let ask = Ask {
            principal: &principal,
            provider,
            source_ip: source,
            now,
            ttl: policy.max_ttl(),
            approved: false,
            break_glass: false,
        };
        policy.decide(guardrails, &ask)
    };
    Ok(policy.targets().map(|(provider, _)| in_words(provider, decide(provider))).collect())
}

fn in_words(provider: &str, decision: Decision) -> Finding {
    match decision {
        Decision::Permit { .. } => Finding::Sound(format!("{provider}: permitted now")),
        Decision::NeedsGrant { .. } => {
            Finding::Sound(format!("{provider}: permitted once people have approved"))
        }
        Decision::Deny { reasons, .. } => {
            let said = |part: fn(&cortex_core::Reason) -> &str| {
                reasons.iter().map(part).collect::<Vec<_>>().join(" ")
            };
            fault(format!("{provider}: denied. {}", said(|r| &r.message)), said(|r| &r.remedy))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn issuer() -> IssuerConfig {
        let iss = "https://airflow.acme.example/cortex-oidc";
        IssuerConfig::new("prod".parse().unwrap(), iss, Kind::Run, "cortex")
    }

    fn is_sound(finding: &Finding) -> bool {
        matches!(finding, Finding::Sound(_))
    }

    #[test]
    fn another_spelling_of_the_issuer_is_a_fault() {
        for (said, sound) in [
            ("https://airflow.acme.example/cortex-oidc", true),
            ("https://airflow.acme.example/cortex-oidc/", false),
            ("http://airflow.acme.example/cortex-oidc", false),
        ] {
            assert_eq!(is_sound(&issuer_matches(&issuer(), &json!({"issuer": said}))), sound, "{said}");
        }
        assert!(!is_sound(&issuer_matches(&issuer(), &json!({}))));
    }

    #[test]
    fn an_audience_that_it_does_not_sign_for_is_a_fault() {
        let with = |audiences: Value| audience_matches(&issuer(), &json!({"cortex_audiences": audiences}));
        assert!(is_sound(&with(json!(["other", "cortex"])).unwrap()));
        assert!(!is_sound(&with(json!(["other"])).unwrap()));
        assert!(audience_matches(&issuer(), &json!({})).is_none(), "another issuer does not say");
    }
}
