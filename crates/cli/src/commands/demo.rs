//! `cortex demo`: the whole story, told by real requests, each checked. It fails loudly where a step is not
//! what it says.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use aws_config::{BehaviorVersion, Region};
use aws_sdk_sts::config::Credentials;
use cortex_sandbox::{Cloud, Mint, RunClaims};
use cortex_server::store::log::verify;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use crate::error::Error;
use crate::output;
use crate::world::{Plan, World};

pub(crate) async fn run() -> Result<(), Error> {
    let started = Instant::now();
    let demo = Demo::start().await?;
    let bigquery = demo.four_credentials().await?;
    demo.denials().await?;
    demo.approval().await?;
    demo.revocation(&bigquery).await?;
    demo.record().await?;
    demo.log().await?;
    println!("\nEverything was what it said, in {:.1} s.", started.elapsed().as_secs_f64());
    demo.world.shut_down().await;
    Ok(())
}

struct Demo {
    world: World,
    http: Client,
}

fn heading(text: &str) {
    println!("\n── {text}");
}

/// A step that has to hold.
fn check(holds: bool, what: &str, seen: &Value) -> Result<(), Error> {
    if holds {
        println!("   ✓ {what}");
        Ok(())
    } else {
        Err(Error::Said(format!("the demo expected this and did not see it: {what}\n{seen:#}")))
    }
}

impl Demo {
    async fn start() -> Result<Self, Error> {
        heading("A world of its own: private Postgres, sandbox clouds, a development issuer, Cortex");
        let world = World::start(Plan::default()).await?;
        println!("   Cortex listens on {}", world.cortex.issuer_url);
        let http = Client::builder().timeout(Duration::from_secs(20)).build()?;
        Ok(Self { world, http })
    }

    async fn ask(&self, run: &RunClaims, policy: &str) -> Result<(StatusCode, Value), Error> {
        let token = self.world.run_token(run)?;
        let url = format!("{}/v1/credentials", self.world.cortex.issuer_url);
        let body = json!({"policy": policy, "reason": "cortex demo"});
        let response = self.http.post(url).bearer_auth(token).json(&body).send().await?;
        Ok((response.status(), response.json().await?))
    }

    /// What a person reads.
    async fn look(&self, path: &str, sub: &str, groups: &[&str]) -> Result<Value, Error> {
        let token = self.world.person_token(sub, groups)?;
        let url = format!("{}{path}", self.world.cortex.issuer_url);
        Ok(self.http.get(url).bearer_auth(token).send().await?.json().await?)
    }

    /// What a person does.
    async fn say(&self, path: &str, sub: &str, group: &str, body: &Value) -> Result<Value, Error> {
        let token = self.world.person_token(sub, &[group])?;
        let url = format!("{}{path}", self.world.cortex.issuer_url);
        Ok(self.http.post(url).bearer_auth(token).json(body).send().await?.json().await?)
    }

    /// Answers BigQuery's part, for what comes later.
    async fn four_credentials(&self) -> Result<Value, Error> {
        heading("A scheduled run shows who it is and asks under the policy first-steps");
        let run = RunClaims::scheduled("hello_cortex", "scheduled__2026-11-23", "publish_mart");
        println!("   run: dag {}, run {}, task {}", run.dag_id, run.run_id, run.task_id);
        let (status, answer) = self.ask(&run, "first-steps").await?;
        check(status == StatusCode::OK, "one call, one answer for all four targets", &answer)?;
        let credentials = &answer["credentials"];
        for provider in ["api", "aws", "bigquery", "snowflake"] {
            let one = &credentials[provider];
            let what = format!(
                "{provider}: issued, ends {}, on record as {}",
                one["expires_at"], one["issuance_id"]
            );
            check(one["status"] == "issued", &what, one)?;
        }
        heading("Each of them works, for this run only");
        self.use_aws(&credentials["aws"]["credential"]).await?;
        self.use_bigquery(&credentials["bigquery"]["credential"]).await?;
        self.use_snowflake(&credentials["snowflake"]["credential"]).await?;
        Ok(credentials["bigquery"].clone())
    }

    async fn use_aws(&self, keys: &Value) -> Result<(), Error> {
        let text = |name: &str| keys[name].as_str().unwrap_or_default().to_owned();
        let credentials = Credentials::new(
            text("access_key_id"),
            text("secret_access_key"),
            Some(text("session_token")),
            None,
            "demo",
        );
        let config = aws_sdk_sts::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(self.world.sandbox.aws_url())
            .credentials_provider(credentials)
            .build();
        let identity = aws_sdk_sts::Client::from_conf(config).get_caller_identity().send().await;
        let arn = identity.ok().and_then(|identity| identity.arn).unwrap_or_default();
        check(
            arn.contains(":assumed-role/finance-publish/"),
            &format!("AWS says: you are {arn}"),
            &json!(arn),
        )
    }

    /// What BigQuery answers to a query.
    async fn query(&self, credential: &Value) -> Result<StatusCode, Error> {
        let token = credential["token"].as_str().unwrap_or_default();
        let queries =
            format!("{}/bigquery/v2/projects/acme-finance/queries", self.world.sandbox.google_url());
        let query = self.http.post(queries).bearer_auth(token).json(&json!({"query": "SELECT 1"}));
        Ok(query.send().await?.status())
    }

    async fn use_bigquery(&self, credential: &Value) -> Result<(), Error> {
        let token = credential["token"].as_str().unwrap_or_default();
        let google = self.world.sandbox.google_url();
        let mart = format!("{google}/bigquery/v2/projects/acme-finance/datasets/mart");
        let status = self.http.get(mart).bearer_auth(token).send().await?.status();
        check(status == StatusCode::OK, "BigQuery opens the dataset mart", &json!(status.as_u16()))?;
        let status = self.query(credential).await?;
        check(status == StatusCode::OK, "BigQuery runs a query", &json!(status.as_u16()))?;
        let payroll = format!("{google}/bigquery/v2/projects/acme-finance/datasets/payroll");
        let answer = self.http.get(payroll).bearer_auth(token).send().await?;
        let refused = answer.status() == StatusCode::FORBIDDEN;
        check(refused, "BigQuery refuses the dataset payroll", &json!(answer.status().as_u16()))
    }

    async fn use_snowflake(&self, credential: &Value) -> Result<(), Error> {
        let login = json!({"data": {
            "ACCOUNT_NAME": credential["account"], "LOGIN_NAME": credential["user"],
            "AUTHENTICATOR": "OAUTH", "TOKEN": credential["token"], "CLIENT_APP_ID": "demo",
        }});
        let role = credential["role"].as_str().unwrap_or_default();
        let url = format!("{}/session/v1/login-request?roleName={role}", self.world.sandbox.snowflake_url());
        let answer: Value = self.http.post(url).json(&login).send().await?.json().await?;
        check(answer["success"] == true, &format!("Snowflake logs in with the role {role}"), &answer)
    }

    async fn denials(&self) -> Result<(), Error> {
        heading("A DAG that no policy names asks for the same");
        let run = RunClaims::scheduled("somebody_else", "scheduled__2026-11-23", "publish_mart");
        let (status, answer) = self.ask(&run, "first-steps").await?;
        let (_, unknown) = self.ask(&run, "no-such-policy").await?;
        println!("   {}", answer["error_description"]);
        check(status == StatusCode::BAD_REQUEST && answer["error"] == "invalid_target", "denied", &answer)?;
        let same = answer["error_description"] == unknown["error_description"];
        check(same, "the answer does not tell whether the policy exists", &unknown)?;
        heading("A run that a policy names, from a network that the policy does not");
        let run = RunClaims::scheduled("finance_publish", "scheduled__2026-11-23", "publish_mart");
        let (status, answer) = self.ask(&run, "finance-data-publish").await?;
        println!("   {}", answer["error_description"]);
        let told = answer["error_description"].as_str().is_some_and(|text| text.contains("#where"));
        check(status == StatusCode::BAD_REQUEST && told, "denied, with the rule and what to do", &answer)
    }

    async fn approval(&self) -> Result<(), Error> {
        heading("A run started by hand needs an approval");
        let run = RunClaims {
            run_type: Some("manual".to_owned()),
            triggering_user_name: Some("alice".to_owned()),
            ..RunClaims::scheduled("hello_cortex", "manual__2026-11-23", "publish_mart")
        };
        let (_, answer) = self.ask(&run, "first-steps").await?;
        check(answer["error"] == "authorization_pending", "it waits", &answer)?;
        let grant = answer["grant_id"].as_str().unwrap_or_default();
        let path = format!("/v1/grants/{grant}/approve");
        let shown = self.look(&format!("/v1/grants/{grant}"), "carol", &["finance-admins"]).await?;
        let seen = json!({"request_digest": shown["request_digest"]});
        let own = self.say(&path, "alice", "finance-admins", &seen).await?;
        println!("   {}", own["detail"]);
        check(own["status"] == 403, "alice, who started it, may not approve it", &own)?;
        let approved = self.say(&path, "carol", "finance-admins", &seen).await?;
        check(approved["status"] == "approved", "carol approves", &approved)?;
        let (status, answer) = self.ask(&run, "first-steps").await?;
        check(status == StatusCode::OK, "the run's next ask is issued under the approval", &answer)
    }

    async fn revocation(&self, bigquery: &Value) -> Result<(), Error> {
        heading("A token has leaked: an admin revokes it");
        let id = &bigquery["issuance_id"];
        let leaked = json!({"issuance_id": id, "reason": "it was printed into a log"});
        let begun = self.say("/v1/revocations", "erin", "cortex-admins", &leaked).await?;
        let path = format!("/v1/revocations/{}", begun["id"].as_str().unwrap_or_default());
        let mut seen = begun;
        let until = Instant::now() + Duration::from_secs(20);
        while seen["issuances"][0]["state"] == "pending" && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(200)).await;
            seen = self.look(&path, "erin", &["cortex-admins"]).await?;
        }
        let one = &seen["issuances"][0];
        check(one["state"] == "enforced", "enforced: Google has confirmed that it denies the token", &seen)?;
        let status = self.query(&bigquery["credential"]).await?;
        check(
            status == StatusCode::FORBIDDEN,
            "BigQuery runs no query with it any more",
            &json!(status.as_u16()),
        )
    }

    async fn log(&self) -> Result<(), Error> {
        heading("The log: every record sealed, in one tree, under one signed checkpoint");
        let broker = &self.world.cortex.broker;
        broker.log.round(&broker.pool).await.map_err(|error| Error::Said(error.to_string()))?;
        let key = broker.recorder.stamp().chains.verifier();
        let summary = verify(&broker.pool, &key, Vec::new(), |_, _| {}).await;
        let summary = summary.map_err(|error| Error::Said(format!("the log is not whole: {error}")))?;
        println!("   {key}");
        let what =
            format!("{} leaves of {} chains: each seal, each hash, the root", summary.leaves, summary.chains);
        check(summary.leaves > 0 && summary.recoveries.is_empty(), &what, &json!(summary.leaves))
    }

    async fn record(&self) -> Result<(), Error> {
        heading("What an auditor sees: GET /v1/issuances");
        let page = self.look("/v1/issuances?limit=50", "dave", &["auditors"]).await?;
        let rows = page["issuances"].as_array().cloned().unwrap_or_default();
        let text = |row: &Value, name: &str| row[name].as_str().unwrap_or("-").to_owned();
        let columns = ["at", "dag_id", "run_id", "policy", "provider", "outcome", "reason"];
        output::table(
            &["AT", "DAG", "RUN", "POLICY", "PROVIDER", "OUTCOME", "REASON"],
            rows.iter().rev().map(|row| columns.iter().map(|column| text(row, column)).collect()),
        );
        let remote = |row: &&Value| {
            row["outcome"] == "issued" && (row["provider"] == "aws" || row["provider"] == "bigquery")
        };
        let recorded: BTreeSet<String> =
            rows.iter().filter(remote).map(|row| text(row, "issuance_id")).collect();
        // A Snowflake session is opened by the client, not by Cortex: only the clouds that Cortex asks count.
        // And what Cortex itself signs in with to revoke leaves for nobody.
        let asked = |mint: &Mint| {
            matches!(mint.cloud, Cloud::Aws | Cloud::Google) && !mint.subject.ends_with("/cortex-revoker")
        };
        let mints = self.world.sandbox.mints().into_iter().filter(asked);
        let minted: BTreeSet<String> = mints.filter_map(|mint| mint.lease).collect();
        let what = format!(
            "the clouds minted for {} leases, the record has the same {}",
            minted.len(),
            recorded.len()
        );
        check(
            minted == recorded && !minted.is_empty(),
            &what,
            &json!({"minted": minted, "recorded": recorded}),
        )
    }
}
