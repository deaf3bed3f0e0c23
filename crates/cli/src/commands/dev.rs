//! `cortex dev`.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use cortex_identity::{IssuerConfig, Kind};
use cortex_sandbox::RunClaims;
use cortex_server::Config;
use tracing_subscriber::EnvFilter;

use super::serve::told_to_stop;
use crate::error::Error;
use crate::world::{AUDIENCE, Plan, World};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Policies and guardrails to apply instead of the examples: a file or a folder.
    #[arg(long)]
    policies: Option<PathBuf>,
    /// An Airflow on this machine whose runs are believed as well, by the URL of its API server; policies call it
    /// `airflow`. It needs the package airflow-provider-cortex.
    #[arg(long, value_name = "URL")]
    airflow: Option<String>,
}

/// What policies call the Airflow of `--airflow`.
const AIRFLOW: &str = "airflow";

pub(crate) async fn run(args: Args) -> Result<(), Error> {
    if !args.listen.ip().is_loopback() {
        return Err(Error::Said(
            "`cortex dev` listens on loopback only; `cortex serve` is for the rest".into(),
        ));
    }
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,cortex_server=info"));
    let colour = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().compact().with_ansi(colour).with_env_filter(filter);
    log.with_writer(std::io::stderr).init();
    let _ = cortex_server::telemetry::recorder();
    println!("starting a private database, sandbox clouds and a development issuer …");
    let airflow = args.airflow.map(|url| trusted(&url)).transpose()?;
    let adjust = Box::new(|config: &mut Config| config.issuers.extend(airflow));
    let plan = Plan { listen: args.listen, policies: args.policies, adjust, ..Plan::default() };
    let world = World::start(plan).await?;
    introduce(&world)?;
    told_to_stop().await?;
    world.shut_down().await;
    Ok(())
}

fn trusted(url: &str) -> Result<IssuerConfig, Error> {
    let iss = format!("{}/cortex-oidc", url.trim_end_matches('/'));
    let name = AIRFLOW.parse().map_err(|_| Error::Said(format!("{AIRFLOW} is no name")))?;
    let issuer = IssuerConfig::new(name, iss, Kind::Run, AUDIENCE);
    match issuer.validate().first() {
        None => Ok(issuer),
        Some(fault) => Err(Error::Said(format!("--airflow: {fault}"))),
    }
}

fn introduce(world: &World) -> Result<(), Error> {
    let url = &world.cortex.issuer_url;
    let issuer = world.sandbox.issuer_url();
    let example =
        serde_json::to_string(&RunClaims::scheduled("hello_cortex", "scheduled__1", "publish_mart"))?;
    println!(
        "
Cortex           {url}   (API: {url}/docs)
console          {url}/console   (sign in as admin, approver, auditor or engineer: no password)
runs' issuer     {issuer}
sandbox clouds   AWS {aws}, Google {google}, Snowflake {snowflake}
database         DATABASE_URL='{database}'

A first credential, in another shell:

  TOKEN=$(curl -s {issuer}/token -H 'content-type: application/json' \\
    -d '{{\"run\": {example}}}' | python3 -c 'import json,sys; print(json.load(sys.stdin)[\"token\"])')
  curl -s {url}/v1/credentials -H \"Authorization: Bearer $TOKEN\" \\
    -H 'content-type: application/json' -d '{{\"policy\": \"first-steps\"}}'

Ctrl-C stops everything and removes it.
",
        aws = world.sandbox.aws_url(),
        google = world.sandbox.google_url(),
        snowflake = world.sandbox.snowflake_url(),
        database = world.database_url,
    );
    Ok(())
}
