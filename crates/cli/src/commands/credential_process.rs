//! `cortex credential-process`: AWS keys for `credential_process` of `~/.aws/config`.

use std::time::Duration;

use crate::arguments;
use crate::ask::{self, AskArgs, Entry, aws_keys};
use crate::error::Error;
use crate::output;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example, in ~/.aws/config:

  [profile finance]
  region = eu-west-1
  credential_process = cortex credential-process --server https://cortex.acme.example --policy finance-data-publish --token-file /run/airflow/token

Each call asks the server; it gives the same session again while enough of it is left. Nothing is kept here.
Exit codes: 0 the keys are printed; 1 failed; 2 wrong usage; 3 denied; 5 waits for approval; 6 the server cannot be
reached. What went wrong is on standard error, which AWS's clients show.")]
pub(crate) struct Args {
    #[command(flatten)]
    ask: AskArgs,
    /// How long to wait for an approval; AWS's clients do not wait long.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = arguments::duration)]
    wait: Duration,
}

pub(crate) async fn run(args: Args) -> Result<(), Error> {
    let (question, mut subject) = args.ask.into_ask(vec!["aws".to_owned()])?;
    let mut bundle = ask::settle(&question, &mut subject, args.wait).await?;
    match bundle.remove("aws") {
        Some(Entry::Issued(credential)) => {
            let mut keys = aws_keys(&credential, "SessionToken");
            if let Some(keys) = keys.as_object_mut() {
                keys.insert("Version".to_owned(), 1.into());
            }
            output::json(&keys)
        }
        Some(Entry::Refused(refusal)) => Err(refusal.into()),
        None => Err(Error::Said("the server's answer has nothing for aws in it".to_owned())),
    }
}
