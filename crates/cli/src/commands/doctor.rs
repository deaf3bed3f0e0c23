//! `cortex doctor`: tries each link between an Airflow and Cortex, and names the fault and the remedy.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use cortex_core::clock::SystemClock;
use cortex_core::policy::Ask;
use cortex_core::principal::Ident;
use cortex_core::{Attestation, Clock, Decision, IssuerName, PolicyName, Principal, Run};
use cortex_identity::{Identity, IssuerConfig, Kind, Trust};
use cortex_server::Config;
use cortex_server::library::Library;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use serde_json::Value;

use super::database;
use crate::error::Error;

/// How long an Airflow may take to answer.
const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// From an Airflow to Cortex: is its issuer reachable and the one that is configured, do audiences and clocks
    /// agree, are its keys known; and, with --policy, --dag and --task, what the policy would say to such a task.
    /// Nothing is issued and nothing is written down.
    Airflow(AirflowArgs),
}

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

/// What one check found: one line each.
enum Finding {
    Sound(String),
    Fault { what: String, remedy: String },
}

fn fault(what: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding::Fault { what: what.into(), remedy: remedy.into() }
}

pub(crate) async fn run(command: Command, config: Config) -> Result<(), Error> {
    let Command::Airflow(args) = command;
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
    let faults = findings.iter().filter(|finding| matches!(finding, Finding::Fault { .. })).count();
    if faults == 0 {
        Ok(())
    } else {
        Err(Error::Said(format!("{faults} of {} checks found a fault", findings.len())))
    }
}

fn report(findings: Vec<Finding>) -> Vec<Finding> {
    for finding in &findings {
        match finding {
            Finding::Sound(what) => println!("  ok     {what}"),
            Finding::Fault { what, remedy } => println!("  FAULT  {what}\n         {remedy}"),
        }
    }
    findings
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
    findings.extend(date.and_then(|date| clocks_agree(issuer, &date, SystemClock.now())));
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

fn clocks_agree(issuer: &IssuerConfig, date: &str, now: Timestamp) -> Option<Finding> {
    let theirs = DateTimeParser::new().parse_timestamp(date).ok()?;
    let apart = now.duration_since(theirs).abs().as_secs();
    // The header has whole seconds, and the answer was on its way for a moment.
    if apart <= i64::from(issuer.leeway).max(2) {
        return Some(Finding::Sound(format!("the clocks agree within {apart} s")));
    }
    let what = format!("its clock and this one differ by {apart} s, and `leeway` is {} s", issuer.leeway);
    Some(fault(what, "Set both clocks by NTP."))
}

/// Its keys, fetched as a replica fetches them.
async fn keys(issuer: &IssuerConfig) -> Result<Vec<Finding>, Error> {
    let trust = Trust { issuers: std::slice::from_ref(issuer), airflows: &[], clusters: &[] };
    let identity = Identity::new(trust, None, Arc::new(SystemClock), reqwest::Client::builder)
        .map_err(|error| Error::Said(error.to_string()))?;
    identity.refresh_due().await;
    let found =
        identity.status().into_iter().map(|status| match (status.keys.keys, status.keys.last_error) {
            (0, Some(error)) => {
                fault(format!("its keys cannot be had: {error}"), "Mend what is wrong above. If nothing is, its `jwks_uri` has to be reachable from here, and quick.")
            }
            (0, None) => fault(
                "none of its keys can verify a token",
                format!("Let `algorithms` ({:?}) name what it signs with.", issuer.algorithms),
            ),
            (keys, _) => Finding::Sound(format!("{keys} of its keys can verify tokens")),
        });
    Ok(found.collect())
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

    #[test]
    fn clocks_may_differ_by_the_leeway() {
        let now = "2026-11-23T02:00:30Z".parse().unwrap();
        let at = |date| clocks_agree(&issuer(), date, now);
        assert!(is_sound(&at("Mon, 23 Nov 2026 02:00:00 GMT").unwrap()));
        assert!(!is_sound(&at("Mon, 23 Nov 2026 01:59:59 GMT").unwrap()));
        assert!(!is_sound(&at("Mon, 23 Nov 2026 02:01:01 GMT").unwrap()));
        assert!(at("yesterday").is_none());
    }
}
