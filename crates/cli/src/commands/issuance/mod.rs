//! `cortex issuance`: who got what, and ending it.

mod revoke;
mod tail;

use clap::Subcommand;
use serde_json::Value;

use crate::api::Connection;
use crate::error::{EXITS, Error};
use crate::output::{self, field};

pub(crate) use revoke::show_revocation;

#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, after_help = format!("\
Examples:
  cortex issuance list --dag finance_publish --since 2026-11-23T00:00:00Z
  cortex issuance tail --outcome denied
  cortex issuance revoke --issuance 0199c1de-0000-7000-8000-000000000000 --reason 'laptop lost'
  cortex issuance revoke --dag finance_publish --freeze --reason 'wrong data' --dry-run
  cortex issuance list --json | jq -r '.issuances[].issuance_id'

{EXITS}"))]
pub(crate) struct Args {
    #[command(flatten)]
    connection: Connection,
    /// Print the server's JSON; `tail` prints one document a line.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Issuances and denials, newest first.
    List {
        #[command(flatten)]
        filter: Filter,
        /// Before this time (RFC 3339).
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        /// How many, 1 to 200.
        #[arg(long, default_value_t = 50)]
        limit: u16,
        /// Those older than this row: the `next` of the page before.
        #[arg(long, value_name = "ID")]
        before: Option<String>,
    },
    /// Everything on record about one issuance, by its id; or about one denial, by its decision id.
    Show {
        /// The issuance or the decision.
        id: String,
    },
    /// Follow the record: new issuances and denials, as they come. Ctrl-C ends it.
    Tail {
        #[command(flatten)]
        filter: Filter,
    },
    /// End credentials before they expire, as far as their clouds allow, and say how far that is.
    Revoke(revoke::Args),
}

/// Every filter that is given has to fit.
#[derive(Debug, clap::Args)]
struct Filter {
    /// From this time on (RFC 3339).
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// The DAG.
    #[arg(long)]
    dag: Option<String>,
    /// The DAG run.
    #[arg(long)]
    run: Option<String>,
    /// The task.
    #[arg(long)]
    task: Option<String>,
    /// The principal, as the record shows it.
    #[arg(long)]
    principal: Option<String>,
    /// The policy.
    #[arg(long)]
    policy: Option<String>,
    /// The provider, such as aws.
    #[arg(long)]
    provider: Option<String>,
    /// issued, failed, indeterminate, open or denied.
    #[arg(long)]
    outcome: Option<String>,
    /// Somebody who approved, as principal.
    #[arg(long)]
    approver: Option<String>,
    /// What was accessed: a role's ARN, a project, ACCOUNT/ROLE of Snowflake or an audience.
    #[arg(long)]
    target: Option<String>,
    /// A rule that denied, such as finance-data-publish#when.
    #[arg(long)]
    rule: Option<String>,
    /// The version of the policy: sha256: and 64 hexadecimal digits.
    #[arg(long, value_name = "DIGEST")]
    policy_digest: Option<String>,
    /// Who started the run by hand, as its Airflow calls them.
    #[arg(long, value_name = "USER")]
    triggering_user: Option<String>,
    /// Only what let a run in although the policy was closed, or asked to.
    #[arg(long)]
    break_glass: bool,
    /// The kinds of records, with commas between them; issuances and denials by default.
    #[arg(long)]
    kinds: Option<String>,
    /// Only what was outside of these hours or on a weekend: 09:00-18:00.
    #[arg(long, value_name = "HOURS")]
    outside_hours: Option<String>,
    /// The time zone of --outside-hours; UTC by default.
    #[arg(long, value_name = "ZONE")]
    timezone: Option<String>,
}

impl Filter {
    fn query(&self) -> Vec<(&'static str, String)> {
        let break_glass = self.break_glass.then(|| "true".to_owned());
        let wanted = [
            ("target", &self.target),
            ("rule", &self.rule),
            ("policy_digest", &self.policy_digest),
            ("triggering_user", &self.triggering_user),
            ("break_glass", &break_glass),
            ("kinds", &self.kinds),
            ("outside_hours", &self.outside_hours),
            ("timezone", &self.timezone),
            ("since", &self.since),
            ("dag_id", &self.dag),
            ("run_id", &self.run),
            ("task_id", &self.task),
            ("principal", &self.principal),
            ("policy", &self.policy),
            ("provider", &self.provider),
            ("outcome", &self.outcome),
            ("approver", &self.approver),
        ];
        wanted.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect()
    }
}

pub(crate) async fn run(args: Args) -> Result<(), Error> {
    let api = args.connection.open().await?;
    match args.command {
        Command::List { filter, until, limit, before } => {
            let mut query = filter.query();
            let more = [("until", until), ("before", before), ("limit", Some(limit.to_string()))];
            query.extend(more.into_iter().filter_map(|(name, value)| Some((name, value?))));
            let page = api.query("/v1/issuances", &query).await?;
            output::either(args.json, &page, list)
        }
        Command::Show { id } => {
            let found = api.get(&format!("/v1/issuances/{}", uuid(&id)?)).await?;
            output::either(args.json, &found, |found| output::outline(found, 0))
        }
        Command::Tail { filter } => tail::follow(&api, &filter, args.json).await,
        Command::Revoke(what) => revoke::run(&api, &what, args.json).await,
    }
}

/// An issuance's id as it stands in a path.
fn uuid(id: &str) -> Result<cortex_core::RecordId, Error> {
    super::id(id, "issuance list")
}

const HEADER: [&str; 8] =
    ["AT", "OUTCOME", "POLICY", "PROVIDER", "DAG / RUN / TASK", "EXPIRES", "REASON", "ID"];

fn row(issuance: &Value) -> Vec<String> {
    let run = ["dag_id", "run_id", "task_id"].map(|name| field(issuance, name)).join(" / ");
    let wanted =
        ["at", "outcome", "policy", "provider", "expires_at", "reason"].map(|name| field(issuance, name));
    let [at, outcome, policy, provider, expires_at, reason] = wanted;
    let outcome = if outcome.is_empty() { field(issuance, "kind") } else { outcome };
    let id = issuance.get("issuance_id").filter(|id| !id.is_null()).or(issuance.get("id"));
    vec![at, outcome, policy, provider, run, expires_at, reason, output::text(id.unwrap_or(&Value::Null))]
}

fn list(page: &Value) {
    let issuances = page.get("issuances").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if issuances.is_empty() {
        println!("nothing on record fits");
        return;
    }
    output::table(&HEADER, issuances.iter().map(row));
    if let Some(next) = page.get("next").and_then(Value::as_str) {
        println!("more: --before {next}");
    }
}
