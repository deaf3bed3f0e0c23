//! What a run does at Cortex: shows who it is, and gets its credentials.

mod exchange;
mod patience;
mod subject;

pub(crate) use exchange::{Ask, Bundle, Credential, Entry, Pending, Refusal, aws_keys};
pub(crate) use patience::settle;
pub(crate) use subject::{Subject, SubjectArgs};

use std::time::Duration;

use crate::api::{self, ServerUrl};
use crate::arguments;
use crate::error::Error;

/// What a run asks for, at the command line.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct AskArgs {
    /// The policy.
    #[arg(long, value_name = "NAME")]
    policy: String,
    /// The server. Default: the one that `cortex login` signed in to last.
    #[arg(long, env = "CORTEX_URL", value_name = "URL")]
    server: Option<ServerUrl>,
    #[command(flatten)]
    subject: SubjectArgs,
    /// Why, for those who approve and for the record.
    #[arg(long)]
    reason: Option<String>,
    /// The ticket that it belongs to, for those who approve and for the record.
    #[arg(long)]
    ticket: Option<String>,
    /// Ask to be let in although the policy is closed at this hour, where it allows that: two people have to approve,
    /// and everybody is told.
    #[arg(long, requires = "reason")]
    break_glass: bool,
    /// A shorter life than the policy's, such as 20m.
    #[arg(long, value_name = "DURATION", value_parser = arguments::duration)]
    ttl: Option<Duration>,
}

impl AskArgs {
    /// The question for these targets, none of them for all of the policy's, and who asks it.
    pub(crate) fn into_ask(self, targets: Vec<String>) -> Result<(Ask, Subject), Error> {
        let ask = Ask {
            server: api::named_or_last(self.server.as_ref())?,
            policy: self.policy,
            targets,
            ttl_seconds: self.ttl.and_then(|ttl| i64::try_from(ttl.as_secs()).ok()),
            reason: self.reason,
            ticket: self.ticket,
            break_glass: self.break_glass,
        };
        Ok((ask, Subject::new(self.subject)?))
    }
}
