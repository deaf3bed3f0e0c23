//! Could this task get this now, and if not, which clause says no? Nothing is issued, nothing is recorded.

use askama::Template;
use axum::extract::{Query, State};
use cortex_core::{Clause, Decision};
use serde::Deserialize;
use serde_json::json;

use super::page::{Frame, Page, Section, render};
use super::session::Visitor;
use super::text::{self, Html};
use crate::http::policies::{Question, READERS, ask, in_force};
use crate::http::{App, Problem};
use crate::store::documents::{self, Kind};

/// The question as the address carries it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Form {
    policy: String,
    provider: String,
    dag_id: String,
    task_id: String,
    run_id: String,
    run_type: String,
    source: String,
    at: String,
    approved: String,
}

struct Reason {
    clause: &'static str,
    rule: Html,
    message: Html,
    remedy: Html,
}

/// What the policy says of one of its targets.
struct Answer {
    provider: Html,
    tone: &'static str,
    verdict: &'static str,
    reasons: Vec<Reason>,
    rules: Html,
}

#[derive(Template)]
#[template(path = "console/dry_run.html")]
struct DryRun {
    frame: Frame,
    form: Form,
    policies: Vec<String>,
    answers: Vec<Answer>,
    fault: Option<Html>,
}

pub(super) async fn page(State(app): State<App>, visitor: Visitor, Query(form): Query<Form>) -> Page {
    visitor.caller.need(&READERS)?;
    let known = documents::list(&app.broker.pool, Kind::Policy, "", 200).await?;
    let asked = !form.policy.is_empty() && !form.dag_id.is_empty() && !form.task_id.is_empty();
    let (answers, fault) = match if asked { answers(&app, &form) } else { Ok(Vec::new()) } {
        Ok(answers) => (answers, None),
        Err(problem) => (Vec::new(), Some(text::value(&problem.detail))),
    };
    let frame = Frame::load(&app, &visitor, Some(Section::DryRun), "Dry run").await?;
    let policies = known.into_iter().map(|version| version.name).collect();
    render(&DryRun { frame, form, policies, answers, fault })
}

fn answers(app: &App, form: &Form) -> Result<Vec<Answer>, Problem> {
    let catalogue = app.broker.library.catalogue();
    let policy = in_force(&catalogue, form.policy.trim())?;
    let all = policy.targets().map(|(provider, _)| provider.to_owned());
    let one = form.provider.trim();
    let providers: Vec<_> = if one.is_empty() { all.collect() } else { vec![one.to_owned()] };
    let run_id = if form.run_id.trim().is_empty() { "dry_run" } else { form.run_id.trim() };
    let mut run = json!({
        "issuer": policy.issuer(), "dag_id": form.dag_id.trim(), "task_id": form.task_id.trim(),
        "run_id": run_id, "map_index": null, "try_number": 1, "attestation": "issuer",
    });
    if let (false, Some(run)) = (form.run_type.trim().is_empty(), run.as_object_mut()) {
        run.insert("run_type".to_owned(), form.run_type.trim().into());
    }
    let source = match form.source.trim() {
        "" => None,
        text => Some(text.parse().map_err(|_| Problem::bad_request("the address is written as 10.1.2.3"))?),
    };
    let at = Some(form.at.trim().to_owned()).filter(|at| !at.is_empty());
    let ask = |provider: String| {
        let approved = !form.approved.is_empty();
        let question = Question {
            run: run.clone(),
            provider: provider.clone(),
            source,
            at: at.clone(),
            approved,
            break_glass: false,
        };
        ask(app, form.policy.trim(), question).map(|decision| answer(&provider, decision))
    };
    providers.into_iter().map(ask).collect()
}

fn answer(provider: &str, decision: Decision) -> Answer {
    let (tone, verdict, rules, reasons) = match decision {
        Decision::Permit { rules } => ("ok", "Yes, it would get this.", rules, Vec::new()),
        Decision::NeedsGrant { rules } => ("warn", "Yes, once people have approved it.", rules, Vec::new()),
        Decision::Deny { reasons, .. } => ("bad", "No.", Vec::new(), reasons),
    };
    let reasons = reasons.into_iter().map(|reason| Reason {
        clause: clause(reason.clause),
        rule: text::value(&reason.rule),
        message: text::value(&reason.message),
        remedy: text::value(&reason.remedy),
    });
    Answer {
        provider: text::value(provider),
        tone,
        verdict,
        reasons: reasons.collect(),
        rules: text::value(&rules.join(", ")),
    }
}

fn clause(clause: Clause) -> &'static str {
    match clause {
        Clause::Who => "who",
        Clause::What => "what",
        Clause::Where => "where",
        Clause::When => "when",
        Clause::Attestation => "attestation",
        Clause::Approval => "approval",
        Clause::Guardrail => "guardrail",
        Clause::Freeze => "freeze",
        Clause::Error => "error",
    }
}
