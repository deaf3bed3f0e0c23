//! An Airflow as a witness: a service says which try of which task it acts for, and the Airflow's own REST API says
//! whether that try is running now.
//!
//! This proves that the run is there, and that some service on the list asked. It does not prove that the asker is
//! the task: whatever shares the service's credential can claim any run that is running.

mod answers;
mod api;
mod config;

use std::time::Duration;

use cortex_core::{Attestation, ClaimedRun, Clock, IssuerName, Run, Service};
use jiff::SignedDuration;
use tokio::sync::Semaphore;

pub(crate) use config::default_timeout;
pub use config::{AirflowConfig, ApiVersion, Claimant};

use crate::fetch::FetchError;
use crate::rejection::Refused;
use answers::{DagRun, Instance};
use api::Api;

/// How many claims one Airflow is asked about at once; more wait, within their deadline.
const AT_ONCE: usize = 16;

/// How far the clocks may differ.
const LEEWAY: SignedDuration = SignedDuration::from_secs(60);

/// Why a claim was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClaimReason {
    /// The caller is no service, or none that may claim runs.
    NotAllowed,
    /// The Airflow has no such task instance.
    Unknown,
    /// It is not running.
    NotRunning,
    /// It is running another try.
    WrongTry,
    /// It started too long ago, or does not say when.
    NotRecent,
    /// The Airflow says something of it that a principal cannot have.
    Value,
    /// The Airflow cannot be asked, or answers nonsense: the only reason that passes by itself.
    Unavailable,
}

impl ClaimReason {
    /// The code used on record and in metrics; it never changes.
    pub fn code(self) -> &'static str {
        match self {
            Self::NotAllowed => "claim_not_allowed",
            Self::Unknown => "claim_unknown",
            Self::NotRunning => "claim_not_running",
            Self::WrongTry => "claim_wrong_try",
            Self::NotRecent => "claim_not_recent",
            Self::Value => "claim_value",
            Self::Unavailable => "claim_unavailable",
        }
    }
}

/// A claim that proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ClaimRefusal {
    /// Why, for the record.
    pub reason: ClaimReason,
    /// What the service is told, which is verified: one or two sentences.
    pub message: String,
    /// What exactly is wrong, for the log alone. It holds no secret.
    pub detail: Option<String>,
}

impl ClaimRefusal {
    pub(crate) fn new(reason: ClaimReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), detail: None }
    }
}

/// Why an Airflow's answer is of no use.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("no answer within {0} seconds")]
    Deadline(u64),
    #[error("the credential for it cannot be read: {0}")]
    Credential(String),
    #[error("it {0}")]
    Fetch(#[from] FetchError),
    #[error("its answer has no good {0}")]
    Answer(&'static str),
    #[error("its answer is about another {0}")]
    Other(&'static str),
    #[error("a value that it says is refused: {0:?}")]
    Value(Refused),
}

/// One Airflow.
pub(crate) struct Airflow {
    name: IssuerName,
    api: Api,
    claimants: Vec<Claimant>,
    max_age: SignedDuration,
    timeout: Duration,
    places: Semaphore,
}

impl Airflow {
    /// An Airflow whose configuration was found without fault.
    pub(crate) fn new(config: &AirflowConfig, http: reqwest::Client) -> Result<Self, &'static str> {
        Ok(Self {
            name: config.name.clone(),
            api: Api::new(config, http)?,
            claimants: config.claimants.clone(),
            max_age: SignedDuration::from_secs(config.max_age.into()),
            timeout: Duration::from_secs(config.timeout.into()),
            places: Semaphore::new(AT_ONCE),
        })
    }

    /// Whether `service` may claim its runs.
    pub(crate) fn trusts(&self, service: &Service) -> bool {
        let is =
            |claimant: &Claimant| claimant.issuer == service.issuer && claimant.subject == service.subject;
        self.claimants.iter().any(is)
    }

    /// The run that `claim` names, if it is running now.
    pub(crate) async fn check(&self, claim: &ClaimedRun, clock: &dyn Clock) -> Result<Run, ClaimRefusal> {
        let asked = async {
            // The semaphore is never closed.
            let _place = self.places.acquire().await;
            self.ask(claim, clock).await
        };
        let late = || Err(self.unusable(&AskError::Deadline(self.timeout.as_secs())));
        tokio::time::timeout(self.timeout, asked).await.unwrap_or_else(|_| late())
    }

    async fn ask(&self, claim: &ClaimedRun, clock: &dyn Clock) -> Result<Run, ClaimRefusal> {
        let useless = |error: AskError| self.unusable(&error);
        let Some(instance) = self.api.instance(claim).await.map_err(useless)? else {
            return Err(self.refuse(ClaimReason::Unknown, "has no such task instance"));
        };
        self.is_running(&instance, claim, clock)?;
        let both = tokio::try_join!(self.api.dag_run(claim), self.api.dag(claim));
        let (DagRun { run_type, triggered_by, triggering_user }, dag) = both.map_err(useless)?;
        Ok(Run {
            issuer: self.name.clone(),
            dag_id: claim.dag_id.clone(),
            run_id: claim.run_id.clone(),
            task_id: claim.task_id.clone(),
            map_index: claim.map_index,
            try_number: claim.try_number.get(),
            run_type,
            triggered_by,
            triggering_user,
            // No version of the API says it.
            team: None,
            bundle: dag.bundle,
            tags: dag.tags,
            attestation: Attestation::VerifiedClaim,
        })
    }

    fn is_running(
        &self,
        instance: &Instance,
        claim: &ClaimedRun,
        clock: &dyn Clock,
    ) -> Result<(), ClaimRefusal> {
        if instance.state.as_deref() != Some("running") {
            return Err(self.refuse(
                ClaimReason::NotRunning,
                &format!("says that this task instance is {}, not running", shown(instance.state.as_deref())),
            ));
        }
        if instance.try_number != i64::from(claim.try_number.get()) {
            let told = format!("says that try {} of this task instance is running", instance.try_number);
            return Err(self.refuse(ClaimReason::WrongTry, &told));
        }
        let age = instance.start_date.map(|started| clock.now().duration_since(started));
        if !age.is_some_and(|age| age >= -LEEWAY && age <= self.max_age) {
            let told = format!(
                "does not say that this try started within the last {} seconds",
                self.max_age.as_secs()
            );
            return Err(self.refuse(ClaimReason::NotRecent, &told));
        }
        Ok(())
    }

    fn refuse(&self, reason: ClaimReason, told: &str) -> ClaimRefusal {
        ClaimRefusal::new(reason, format!("The Airflow {} {told}.", self.name))
    }

    fn unusable(&self, error: &AskError) -> ClaimRefusal {
        let (reason, told) = match error {
            AskError::Value(_) => {
                (ClaimReason::Value, "says something of this run that Cortex does not take")
            }
            _ => (ClaimReason::Unavailable, "cannot be asked about this run at the moment; ask again"),
        };
        ClaimRefusal { detail: Some(error.to_string()), ..self.refuse(reason, told) }
    }
}

/// A state, if it looks like one.
fn shown(state: Option<&str>) -> &str {
    let looks =
        |state: &&str| state.len() <= 30 && state.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    match state {
        None => "not scheduled yet",
        Some(state) => Some(state).filter(looks).unwrap_or("in a state that Cortex does not know"),
    }
}
