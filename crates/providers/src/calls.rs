//! Calls to a cloud: one deadline, few and jittered retries, and an honest word on what may have happened.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use cortex_core::{Digest, IssuanceId};
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::MintError;
use crate::account::Pass;
use crate::config::CallLimits;

/// How far the cloud's clock may be from ours.
pub(crate) const SKEW: SignedDuration = SignedDuration::from_secs(60);

/// How long a plan may wait before it is minted; [`crate::Plan::worst_case_expiry`] allows for it.
pub(crate) const QUEUE: SignedDuration = SignedDuration::from_secs(60);

/// The pause before the first retry; it doubles with each.
const PAUSE: Duration = Duration::from_millis(200);

/// What became of one try.
pub(crate) enum Attempt<T> {
    /// It worked.
    Done(T),
    /// It failed, and would again.
    Failed(MintError),
    /// It failed, and another try may work.
    Again(MintError),
}

/// The instant of a plan, from which the mint tells the time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Planned {
    now: Timestamp,
    at: Instant,
}

impl Planned {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self { now, at: Instant::now() }
    }

    /// The time now: the plan's, and what has passed since on the monotonic clock.
    pub(crate) fn now(self) -> Timestamp {
        let elapsed = SignedDuration::try_from(self.at.elapsed()).unwrap_or(SignedDuration::MAX);
        add(self.now, elapsed)
    }

    /// Refuses a plan that waited so long that its worst-case expiry would not hold.
    pub(crate) fn fresh(self) -> Result<(), MintError> {
        if self.now().duration_since(self.now) <= QUEUE {
            return Ok(());
        }
        Err(MintError::Unavailable {
            message: "The request waited too long before it was minted.".into(),
            retry_after: None,
        })
    }

    /// The latest end of a credential that lives for `ttl` and is minted under `calls` calls of these limits.
    pub(crate) fn worst_case(self, ttl: SignedDuration, limits: &CallLimits, calls: i32) -> Timestamp {
        let slack = QUEUE.saturating_add(limits.timeout.saturating_mul(calls)).saturating_add(SKEW);
        add(self.now, ttl.saturating_add(slack))
    }
}

/// `at` plus `by`; at the end of time, the end of time.
pub(crate) fn add(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

/// Compares the end that the cloud names with what was asked: not past, and not later than `ttl` from now.
pub(crate) fn check_expiry(
    expires_at: Timestamp,
    now: Timestamp,
    ttl: SignedDuration,
) -> Result<(), MintError> {
    let fault = if expires_at <= now {
        "is over already"
    } else if expires_at > add(now, ttl.saturating_add(SKEW)) {
        "lives longer than was asked"
    } else {
        return Ok(());
    };
    Err(MintError::Mismatch {
        message: format!("The credential that came back {fault}; it was withheld."),
        expires_at: Some(expires_at),
    })
}

/// Tries until it works, fails for good, or the deadline or the retries are used up.
///
/// A try whose answer was lost may have minted. So once one was lost, no later failure is reported as "nothing
/// was minted": the result is [`MintError::Indeterminate`]. A later success carries the same lease, which
/// covers whatever the lost try made.
///
/// Each try takes a token of the account's quota, and the account's breaker hears how it ended.
pub(crate) async fn with_retries<T, F>(
    limits: &CallLimits,
    pass: &Pass,
    issuance: IssuanceId,
    attempt: impl FnMut() -> F,
) -> Result<T, MintError>
where
    F: Future<Output = Attempt<T>>,
{
    let deadline = Instant::now() + limits.timeout.unsigned_abs();
    pass.call(deadline).await?;
    let result = until(deadline, limits, pass, issuance, attempt).await;
    let answered = !matches!(result, Err(MintError::Unavailable { .. } | MintError::Indeterminate { .. }));
    pass.tell(answered, issuance);
    result
}

async fn until<T, F>(
    deadline: Instant,
    limits: &CallLimits,
    pass: &Pass,
    issuance: IssuanceId,
    mut attempt: impl FnMut() -> F,
) -> Result<T, MintError>
where
    F: Future<Output = Attempt<T>>,
{
    let mut lost = None;
    let mut retry = 0;
    loop {
        let until = deadline.min(Instant::now() + limits.attempt_timeout.unsigned_abs());
        let outcome = tokio::time::timeout_at(until, attempt()).await.unwrap_or_else(|_| no_answer());
        let error = match outcome {
            Attempt::Done(value) => return Ok(value),
            Attempt::Failed(error) => return Err(lost.unwrap_or(error)),
            Attempt::Again(error) => error,
        };
        if matches!(error, MintError::Indeterminate { .. }) {
            lost = Some(error.clone());
        }
        let resume = resume(&error, pause(issuance, retry));
        if retry >= limits.retries.min(2) || resume >= deadline {
            return Err(lost.unwrap_or(error));
        }
        tokio::time::sleep_until(resume).await;
        if pass.call(deadline).await.is_err() {
            return Err(lost.unwrap_or(error));
        }
        retry += 1;
    }
}

fn no_answer<T>() -> Attempt<T> {
    Attempt::Again(MintError::Indeterminate {
        message: "The cloud gave no answer in time; it may have made a credential, which nobody received."
            .into(),
    })
}

/// When to try again: after the pause, and not before the cloud said.
fn resume(error: &MintError, pause: Duration) -> Instant {
    let asked = match error {
        MintError::Unavailable { retry_after: Some(seconds), .. } => Duration::from_secs((*seconds).into()),
        _ => Duration::ZERO,
    };
    Instant::now() + pause.max(asked)
}

/// The pause before a retry: between half of it and all of it. The jitter is drawn from `seed`, such as an issuance's id,
/// so that those who failed together do not return together, and a test can repeat it.
pub(crate) fn pause(seed: impl Display, retry: u8) -> Duration {
    let full = PAUSE * 2_u32.pow(u32::from(retry));
    let digest = Digest::of(format!("{seed}/{retry}").as_bytes());
    let share = digest.as_bytes().first().copied().unwrap_or_default();
    full / 2 + full / 2 * u32::from(share) / 255
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::tests::fixtures::{issuance_id, pass};

    fn limits() -> CallLimits {
        CallLimits::default()
    }

    fn unavailable(retry_after: Option<u32>) -> MintError {
        MintError::Unavailable { message: "later".into(), retry_after }
    }

    fn lost() -> MintError {
        MintError::Indeterminate { message: "lost".into() }
    }

    fn refused() -> MintError {
        MintError::Refused { code: "No".into(), message: "no".into(), remedy: "none".into() }
    }

    /// Plays the tries in order; answers the result and how many were made.
    async fn play(tries: Vec<Attempt<u8>>) -> (Result<u8, MintError>, usize) {
        let total = tries.len();
        let script = RefCell::new(tries.into_iter());
        let result = with_retries(&limits(), &pass().await, issuance_id(), || {
            let next = script.borrow_mut().next();
            async { next.unwrap() }
        })
        .await;
        (result, total - script.borrow().len())
    }

    #[tokio::test(start_paused = true)]
    async fn at_most_two_retries() {
        let tries = (0..5).map(|_| Attempt::Again(unavailable(None))).collect();
        assert_eq!(play(tries).await, (Err(unavailable(None)), 3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_final() {
        assert_eq!(play(vec![Attempt::Failed(refused()), Attempt::Done(1)]).await, (Err(refused()), 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_answer_is_never_reported_as_nothing_minted() {
        let tries = vec![Attempt::Again(lost()), Attempt::Failed(refused())];
        assert_eq!(play(tries).await, (Err(lost()), 2));
        let tries = vec![
            Attempt::Again(lost()),
            Attempt::Again(unavailable(None)),
            Attempt::Again(unavailable(None)),
        ];
        assert_eq!(play(tries).await, (Err(lost()), 3));
        let tries = vec![Attempt::Again(lost()), Attempt::Done(7)];
        assert_eq!(play(tries).await, (Ok(7), 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_cloud_that_says_later_is_not_asked_sooner() {
        let tries = vec![Attempt::Again(unavailable(Some(60))), Attempt::Done(1)];
        assert_eq!(play(tries).await, (Err(unavailable(Some(60))), 1));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_at_the_deadline_and_is_indeterminate() {
        let begun = Instant::now();
        let result: Result<u8, _> =
            with_retries(&limits(), &pass().await, issuance_id(), std::future::pending).await;
        assert!(matches!(result, Err(MintError::Indeterminate { .. })));
        assert!(begun.elapsed() <= Duration::from_secs(10), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_plan_that_waited_too_long_is_not_minted() {
        let planned = Planned::new(crate::tests::fixtures::now());
        assert_eq!(planned.fresh(), Ok(()));
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(planned.fresh().is_err());
    }

    #[test]
    fn the_pause_is_jittered_within_bounds() {
        let full = [PAUSE, PAUSE * 2];
        for (retry, full) in (0_u8..).zip(full) {
            let pause = pause(issuance_id(), retry);
            assert!(pause >= full / 2 && pause <= full, "{pause:?}");
        }
    }
}
