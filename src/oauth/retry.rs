//! The retry policy: exponential backoff with full jitter, within a deadline.
//!
//! A request is retried if the failure may be temporary (no connection, 408, 429, 5xx but 501 and 505). The delay
//! is random between zero and a limit that doubles with each failure ("full jitter"), so that clients that failed
//! together do not retry together. A retry is never sent before the `Retry-After` of the response. Nothing
//! exceeds the caller's deadline: if the next attempt could only start after it, the error is returned at once,
//! with the time to wait.

use crate::error::{Error, Result};
use crate::sys::clock::Clock;
use std::time::Duration;

/// The limit of the first delay; each further limit is twice as long.
const BACKOFF_BASE: Duration = Duration::from_millis(250);

/// The maximum delay between two attempts of one call.
const BACKOFF_CAP: Duration = Duration::from_secs(8);

/// The time on the monotonic clock by which a call must return.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(i64);

impl Deadline {
    /// The deadline that is `timeout` from now.
    pub fn after(clock: &Clock, timeout: Duration) -> Self {
        Deadline(clock.now().after(timeout).monotonic)
    }

    /// The earlier of two deadlines.
    #[must_use]
    pub fn min(self, other: Deadline) -> Self {
        Deadline(self.0.min(other.0))
    }

    /// The time that is left; zero after the deadline.
    pub fn remaining(self, clock: &Clock) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(clock.now().monotonic)).unwrap_or(0))
    }
}

/// A random delay before attempt `failures + 1`: less than `first`, doubled for each failure after the first, and
/// less than `longest`.
pub fn backoff(clock: &Clock, failures: u32, first: Duration, longest: Duration) -> Duration {
    let doubled = first.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
    clock.random_below(doubled.min(longest))
}

/// Calls `attempt` with the time that is left, until it succeeds, fails permanently, or the deadline or the number
/// of `retries` does not allow another one. The error contains the number of attempts.
pub fn with_retries<T>(
    clock: &Clock,
    deadline: Deadline,
    retries: u32,
    attempt: impl FnMut(Duration) -> Result<T>,
) -> Result<T> {
    with_reported_retries(clock, deadline, retries, attempt, |_| ())
}

/// [`with_retries`], which calls `before_wait` with each error after which it waits to try again.
pub fn with_reported_retries<T>(
    clock: &Clock,
    deadline: Deadline,
    retries: u32,
    mut attempt: impl FnMut(Duration) -> Result<T>,
    before_wait: impl Fn(&Error),
) -> Result<T> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let error = match attempt(deadline.remaining(clock)) {
            Ok(value) => return Ok(value),
            Err(error) => error.with_attempts(attempts),
        };
        if !error.is_retryable() || attempts > retries {
            return Err(error);
        }
        let pause = backoff(clock, attempts, BACKOFF_BASE, BACKOFF_CAP);
        let asked = error.retry_after().unwrap_or_default();
        let left = deadline.remaining(clock);
        if asked > left {
            return Err(retry_after_exceeds_deadline(error, left));
        }
        if asked + pause >= left {
            return Err(error);
        }
        before_wait(&error);
        clock.sleep(asked + pause);
        // On a busy machine, the sleep may end after the deadline.
        if deadline.remaining(clock).is_zero() {
            return Err(error);
        }
    }
}

/// The error for a server that asks for a longer delay than the caller has time for.
fn retry_after_exceeds_deadline(error: Error, left: Duration) -> Error {
    let left = left.as_millis().div_ceil(1000);
    error.with_hint(format!(
        "the server asks for a longer delay than the {left} s that are left of timeout_ms; try again later"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::sys::clock::ManualClock;

    /// Runs an attempt that always fails, in virtual time; returns the number of attempts and the time they took.
    fn run_with(error: &Error, retries: u32, timeout: Duration) -> (Error, u32, Duration) {
        let clock = Clock::Manual(ManualClock::new(3));
        let start = clock.now();
        let mut calls = 0;
        let failure = with_retries(&clock, Deadline::after(&clock, timeout), retries, |_| {
            calls += 1;
            Err::<(), _>(error.clone())
        })
        .unwrap_err();
        (failure, calls, start.remaining_until(clock.now()))
    }

    #[test]
    fn temporary_failures_are_retried_and_permanent_ones_are_not() {
        let passing = Error::new(Kind::Server, "x");
        let (error, calls, took) = run_with(&passing, 3, Duration::from_secs(30));
        assert_eq!((calls, error.attempts()), (4, 4));
        assert!(took > Duration::ZERO && took < BACKOFF_BASE * 7);
        assert_eq!(run_with(&passing, 0, Duration::from_secs(30)).1, 1);
        assert_eq!(run_with(&Error::new(Kind::CredentialsRejected, "x"), 3, Duration::from_secs(30)).1, 1);
    }

    #[test]
    fn a_retry_after_is_waited_for_or_fails_at_once() {
        let asking = Error::new(Kind::RateLimited, "x").with_retry_after(Some(Duration::from_secs(10)));
        let (_, calls, took) = run_with(&asking, 1, Duration::from_secs(30));
        assert_eq!(calls, 2);
        assert!(took >= Duration::from_secs(10));
        let (error, calls, took) = run_with(&asking, 3, Duration::from_secs(5));
        assert_eq!((calls, took), (1, Duration::ZERO));
        assert_eq!(error.retry_after(), Some(Duration::from_secs(10)));
        assert!(error.to_string().contains("longer delay than the 5 s"), "{error}");
    }

    #[test]
    fn nothing_outlasts_the_deadline() {
        let (error, calls, took) = run_with(&Error::new(Kind::Connect, "x"), 100, Duration::from_secs(20));
        assert!(calls > 3 && took < Duration::from_secs(20), "{calls} {took:?}");
        assert_eq!(error.kind(), Kind::Connect);
    }

    #[test]
    fn nothing_is_tried_when_the_time_was_slept_away() {
        let manual = ManualClock::new(3);
        let clock = Clock::Manual(manual.clone());
        manual.set_oversleep(Duration::from_secs(40));
        let mut given = Vec::new();
        let error = with_retries(&clock, Deadline::after(&clock, Duration::from_secs(30)), 3, |left| {
            given.push(left);
            Err::<(), _>(Error::new(Kind::Connect, "x"))
        })
        .unwrap_err();
        assert_eq!((given, error.attempts()), (vec![Duration::from_secs(30)], 1));
    }

    #[test]
    fn delays_double_up_to_their_limit() {
        let clock = Clock::Manual(ManualClock::new(9));
        let longest = |failures| (0..2000).map(|_| backoff(&clock, failures, BACKOFF_BASE, BACKOFF_CAP)).max().unwrap();
        assert!(longest(1) < BACKOFF_BASE);
        assert!(longest(3) > BACKOFF_BASE * 3 && longest(3) < BACKOFF_BASE * 4);
        assert!(longest(99) > BACKOFF_CAP / 2 && longest(99) < BACKOFF_CAP);
    }
}
