//! `cortex exec`: a command with credentials that renew themselves.

mod child;
mod endpoint;
mod folder;
mod given;
mod held;
mod renewal;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use crate::arguments;
use crate::ask::{self, AskArgs, Bundle, Credential, Entry};
use crate::error::{Error, Exit};
use endpoint::Endpoint;
use folder::Folder;
use given::Given;
use held::Held;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cortex exec --policy finance-data-publish --token-file /run/airflow/token -- python publish.py
  cortex exec --policy first-steps --target aws --token-command ./fresh-token -- aws s3 ls s3://finance-mart
  cortex exec --policy customer-data-erasure --wait 2h --reason 'ticket PRIV-1' --token-file t -- ./erase

What the command finds in its environment:
  aws        AWS_CONTAINER_CREDENTIALS_FULL_URI, which every AWS SDK reads, on 127.0.0.1. Keys, profiles and roles of
             this machine are hidden from it.
  bigquery   GOOGLE_APPLICATION_CREDENTIALS, an external account of a token endpoint on 127.0.0.1
  snowflake  SNOWFLAKE_HOME with a default connection, and SNOWFLAKE_ACCOUNT, _USER, _ROLE, _AUTHENTICATOR and
             _TOKEN_FILE_PATH, a file that is kept fresh
  api        CORTEX_API_TOKEN_FILE, a file that is kept fresh

Credentials renew while the run's token does, and stop when the policy says no. What is on disk lies in a folder of its
own in XDG_RUNTIME_DIR, /dev/shm or the temporary folder, and is gone when the command ends, also when cortex is killed.
Signals are passed on. The exit code is the command's own, 128 and the signal's number where a signal ended it, 126 or
127 where it cannot be started; before it starts: 1 failed, 3 denied, 5 not approved in time, 6 the server cannot be
reached.")]
pub(crate) struct Args {
    #[command(flatten)]
    ask: AskArgs,
    /// The targets, with commas. Default: all of the policy's.
    #[arg(long, value_name = "TARGET", value_delimiter = ',')]
    target: Vec<String>,
    /// How long to wait for an approval; 0 does not wait.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = arguments::duration)]
    wait: Duration,
    /// Renew a credential when it has less than this left. Default: three tenths of its life.
    #[arg(long, value_name = "DURATION", value_parser = arguments::duration)]
    renew_before: Option<Duration>,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, Error> {
    let (question, mut subject) = args.ask.into_ask(args.target)?;
    let bundle = ask::settle(&question, &mut subject, args.wait).await?;
    let credentials = all_issued(bundle)?;
    // From here on a signal has to leave nothing behind.
    let signals = child::Signals::listen()?;
    let folder = Folder::make()?;
    let held = Arc::new(Held::new(&credentials, args.renew_before));
    let endpoint = Endpoint::start(Arc::clone(&held)).await?;
    let given = Given::prepare(&question.policy, &credentials, &endpoint, &folder)?;
    let child = child::Running::start(&args.command, &given)?;
    drop(credentials);
    let renewing = renewal::renew(&question, &mut subject, &held, &folder);
    let code = tokio::select! {
        code = child.wait(signals) => code?,
        never = renewing => match never {},
    };
    folder.remove();
    Ok(code)
}

/// A command that lacks one of its credentials fails halfway: it is not started.
fn all_issued(bundle: Bundle) -> Result<BTreeMap<String, Credential>, Error> {
    let issued = bundle.into_iter().map(|(target, entry)| match entry {
        Entry::Issued(credential) => Ok((target, credential)),
        Entry::Refused(refusal) => {
            let error = Error::from(refusal);
            Err(Error::Of(error.exit(), format!("{target}: {error}")))
        }
    });
    let issued: BTreeMap<_, _> = issued.collect::<Result<_, _>>()?;
    if let Some(unknown) = issued.keys().find(|target| !given::TARGETS.contains(&target.as_str())) {
        let text = format!("cortex exec cannot give {unknown} to a command; name others with --target");
        return Err(Error::Of(Exit::Usage, text));
    }
    Ok(issued)
}
