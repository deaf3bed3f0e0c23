//! Whether a cloud account answers: a circuit breaker. Pure; time and chance are arguments.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::BreakerConfig;

/// How many of the last calls are remembered.
const REMEMBERED: u32 = 32;
/// How many of them have to be known before a rate of failures says something.
const ENOUGH: u32 = 20;
/// When to come back while one probe is on its way.
const PROBING: Duration = Duration::from_secs(1);

/// The breaker's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Breaker {
    /// Calls are made.
    Closed {
        /// How the last ones ended: a bit for each, 1 for a failure, the newest lowest.
        failed: u32,
        /// How many of the bits count.
        seen: u32,
    },
    /// No call is made until then.
    Open {
        /// When one may try.
        until: Instant,
        /// How often it opened in a row.
        times: u32,
    },
    /// One call is on its way, and decides for all.
    HalfOpen {
        /// How often it opened in a row.
        times: u32,
    },
}

/// What a call is told that wants in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Go on.
    Pass,
    /// Go on; everything hangs on you.
    Probe,
    /// Come back after this time.
    Shut(Duration),
}

impl Breaker {
    pub(crate) const CLOSED: Self = Self::Closed { failed: 0, seen: 0 };

    /// Asks to make a call.
    pub(crate) fn ask(&mut self, now: Instant) -> Answer {
        match *self {
            Self::Closed { .. } => Answer::Pass,
            Self::Open { until, times } if until <= now => {
                *self = Self::HalfOpen { times };
                Answer::Probe
            }
            Self::Open { until, .. } => Answer::Shut(until - now),
            Self::HalfOpen { .. } => Answer::Shut(PROBING),
        }
    }

    /// How a call ended. `chance` is of 256: what makes replicas that failed together probe one after the other.
    pub(crate) fn tell(&mut self, well: bool, now: Instant, config: &BreakerConfig, chance: u8) {
        match *self {
            Self::Closed { failed, seen } => {
                let failed = failed << 1 | u32::from(!well);
                let seen = (seen + 1).min(REMEMBERED);
                let in_a_row = failed.trailing_ones();
                let too_many = seen >= ENOUGH && failed.count_ones() * 2 >= seen;
                *self = if !well && (in_a_row >= config.failures || too_many) {
                    open(1, now, config, chance)
                } else {
                    Self::Closed { failed, seen }
                };
            }
            Self::HalfOpen { .. } if well => *self = Self::CLOSED,
            Self::HalfOpen { times } => *self = open(times.saturating_add(1), now, config, chance),
            // A call that began before it opened.
            Self::Open { .. } => {}
        }
    }

    /// The probe came to nothing, so nothing was learned: the next one probes.
    pub(crate) fn abandon(&mut self, now: Instant) {
        if let Self::HalfOpen { times } = *self {
            *self = Self::Open { until: now, times };
        }
    }

    /// Its state in measurements: 0 closed, 1 half open, 2 open.
    pub(crate) fn as_number(&self) -> f64 {
        match self {
            Self::Closed { .. } => 0.0,
            Self::HalfOpen { .. } => 1.0,
            Self::Open { .. } => 2.0,
        }
    }
}

/// Open: twice as long each time, between half of that and all of it.
fn open(times: u32, now: Instant, config: &BreakerConfig, chance: u8) -> Breaker {
    let full = config.open_for.unsigned_abs() * 2_u32.saturating_pow(times.saturating_sub(1).min(16));
    let full = full.min(config.open_at_most.unsigned_abs());
    Breaker::Open { until: now + full / 2 + full / 2 * u32::from(chance) / 255, times }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> BreakerConfig {
        BreakerConfig::default()
    }

    fn told(breaker: &mut Breaker, results: &[bool], now: Instant) {
        for well in results {
            breaker.tell(*well, now, &config(), 255);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_after_failures_in_a_row_and_one_probe_decides() {
        let (mut breaker, now) = (Breaker::CLOSED, Instant::now());
        told(&mut breaker, &[false, false, false, false, true, false, false, false, false], now);
        assert_eq!(breaker.ask(now), Answer::Pass, "a success begins the count anew");
        told(&mut breaker, &[false], now);
        assert_eq!(breaker.ask(now), Answer::Shut(Duration::from_secs(5)));
        let later = now + Duration::from_secs(5);
        assert_eq!(breaker.ask(later), Answer::Probe);
        assert_eq!(breaker.ask(later), Answer::Shut(PROBING), "one probe at a time");
        told(&mut breaker, &[false], later);
        assert_eq!(breaker.ask(later), Answer::Shut(Duration::from_secs(10)), "longer each time");
        let later = later + Duration::from_secs(10);
        assert_eq!(breaker.ask(later), Answer::Probe);
        told(&mut breaker, &[true], later);
        assert_eq!(breaker, Breaker::CLOSED);
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_where_half_of_many_fail() {
        let (mut breaker, now) = (Breaker::CLOSED, Instant::now());
        for _ in 0..ENOUGH / 2 {
            assert_eq!(breaker.ask(now), Answer::Pass);
            told(&mut breaker, &[true, false], now);
        }
        assert!(matches!(breaker.ask(now), Answer::Shut(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_comes_to_nothing_leaves_the_next_one_to_probe() {
        let (mut breaker, now) = (Breaker::Open { until: Instant::now(), times: 3 }, Instant::now());
        assert_eq!(breaker.ask(now), Answer::Probe);
        breaker.abandon(now);
        assert_eq!(breaker.ask(now), Answer::Probe);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_never_open_for_longer_than_it_may_and_chance_spreads_it() {
        let now = Instant::now();
        for times in [1, 2, 5, 40, u32::MAX] {
            let spread = [0, 100, 255].map(|chance| match open(times, now, &config(), chance) {
                Breaker::Open { until, .. } => until - now,
                other => panic!("{other:?}"),
            });
            assert!(spread[0] < spread[1] && spread[1] < spread[2], "{spread:?}");
            assert!(spread[2] <= Duration::from_mins(1) && spread[0] * 2 == spread[2], "{spread:?}");
        }
    }
}
