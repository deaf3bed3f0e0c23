//! How often something may happen: a bucket of tokens that fills at a steady rate, and appointments for those who come
//! when it is empty.

use std::time::{Duration, Instant};

/// The furthest appointment. Who would get a later one comes back at that time and asks anew.
pub const FURTHEST: Duration = Duration::from_secs(30);

/// So many in a second, and so many at once after a rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// The time between two.
    interval: Duration,
    /// How many at once, 1 or more.
    burst: u32,
}

impl Rate {
    /// `per_second` in a second, 1 or more, and `burst` at once, 1 or more; a 0 counts as 1.
    pub fn new(per_second: u32, burst: u32) -> Self {
        Self { interval: Duration::from_secs(1) / per_second.max(1), burst: burst.max(1) }
    }

    /// How far ahead of a steady pace a burst may run.
    fn ahead(&self) -> Duration {
        self.interval.saturating_mul(self.burst - 1)
    }
}

/// A bucket. It remembers two instants, whatever happens (the generic cell rate algorithm).
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    /// When the next one would come at a steady pace.
    next: Instant,
    /// Up to when appointments were given.
    booked: Instant,
}

impl Bucket {
    /// A full bucket.
    pub fn new(now: Instant) -> Self {
        Self { next: now, booked: now }
    }

    /// Takes a token. The answer is how long to wait until it may be used, at most `patience`; or, where that would be
    /// longer and none was taken, when to come back: each who asks is told another time, so that they do not come
    /// together again.
    pub fn take(&mut self, rate: Rate, now: Instant, patience: Duration) -> Result<Duration, Duration> {
        let next = self.next.max(now);
        let wait = next.saturating_duration_since(now + rate.ahead());
        if wait <= patience {
            self.next = next + rate.interval;
            return Ok(wait);
        }
        let free = now + wait.saturating_sub(patience);
        let appointment = self.booked.max(free);
        let ahead = appointment.saturating_duration_since(now);
        if ahead < FURTHEST {
            self.booked = appointment + rate.interval;
        }
        Err(ahead.min(FURTHEST))
    }

    /// Puts back a token that was not used.
    pub fn give_back(&mut self, rate: Rate) {
        self.next = self.next.checked_sub(rate.interval).unwrap_or(self.next);
    }

    /// Whether nothing is owed any more: a new bucket would do the same.
    pub fn is_full(&self, now: Instant) -> bool {
        self.next <= now && self.booked <= now
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NONE: Duration = Duration::ZERO;

    fn milliseconds(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_burst_is_let_in_and_then_one_after_the_other() {
        let (rate, start) = (Rate::new(10, 3), Instant::now());
        let mut bucket = Bucket::new(start);
        for _ in 0..3 {
            assert_eq!(bucket.take(rate, start, NONE), Ok(NONE));
        }
        assert!(bucket.take(rate, start, NONE).is_err());
        assert!(bucket.take(rate, start + milliseconds(99), NONE).is_err());
        assert_eq!(bucket.take(rate, start + milliseconds(100), NONE), Ok(NONE));
        assert!(bucket.is_full(start + Duration::from_secs(5)));
    }

    #[test]
    fn who_is_patient_waits_and_who_is_not_gets_an_appointment_of_their_own() {
        let (rate, start) = (Rate::new(10, 1), Instant::now());
        let mut bucket = Bucket::new(start);
        let waits: Vec<_> = (0..4).map(|_| bucket.take(rate, start, milliseconds(250))).collect();
        assert_eq!(waits[..3], [0, 100, 200].map(|wait| Ok(milliseconds(wait))));
        let appointments: Vec<_> =
            (0..3).map(|_| bucket.take(rate, start, milliseconds(250)).unwrap_err()).collect();
        assert_eq!(appointments, [150, 250, 350].map(milliseconds));
        assert_eq!(waits[3], Err(milliseconds(50)));
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let (rate, start) = (Rate::new(1, 1), Instant::now());
        let mut bucket = Bucket::new(start);
        assert!(bucket.take(rate, start, NONE).is_ok());
        assert!(bucket.take(rate, start, NONE).is_err());
        bucket.give_back(rate);
        assert!(bucket.take(rate, start, NONE).is_ok());
    }

    proptest! {
        /// However often it is asked, no window of time holds more than the rate and one burst allow.
        #[test]
        fn no_window_holds_more_than_it_may(
            per_second in 1_u32..50, burst in 1_u32..20, patience in 0_u64..500,
            gaps in proptest::collection::vec(0_u64..300, 1..200),
        ) {
            let (rate, start) = (Rate::new(per_second, burst), Instant::now());
            let mut bucket = Bucket::new(start);
            let (mut now, mut used) = (start, Vec::new());
            for gap in gaps {
                now += milliseconds(gap);
                match bucket.take(rate, now, milliseconds(patience)) {
                    Ok(wait) => used.push(now + wait),
                    Err(later) => prop_assert!(later <= FURTHEST),
                }
            }
            used.sort_unstable();
            for (at, from) in used.iter().enumerate() {
                for (count, to) in (0_u32..).zip(&used[at..]) {
                    let allowed = (*to - *from).as_secs_f64() * f64::from(per_second) + f64::from(burst) + 0.001;
                    prop_assert!(f64::from(count) <= allowed, "{count} within {:?}", *to - *from);
                }
            }
        }
    }
}
