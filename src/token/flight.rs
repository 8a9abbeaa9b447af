//! Single flight: one attempt to get a token serves all callers that wait for it.
//!
//! The leader of a flight sends the request; the others wait. The outcome is published to all of them: the new
//! token, or the failure and the backoff that follows it.

use super::Token;
use super::provider::{FetchRequest, check_refreshed};
use super::state::{Backoff, Flight, Inner, Outcome, PerProcess, RefreshState};
use crate::error::{Error, Kind, Phase, Result};
use crate::oauth::retry::{Deadline, backoff};
use crate::sys::clock::Timestamps;
use crate::sys::sync::MutexGuard;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// The limit of the first backoff after a failure; each further one is twice as long.
pub(super) const BACKOFF_BASE: Duration = Duration::from_millis(500);

/// The longest backoff, unless the server requires a longer one (`Retry-After`).
pub(super) const BACKOFF_CAP: Duration = Duration::from_secs(60);

/// How a leader makes its attempt.
#[derive(Clone, Copy)]
pub(super) struct RefreshAttempt {
    /// Whether the caller cannot continue without a new token.
    pub(super) required: bool,
    /// Whether the deadline is so short that missing it does not prove a failure of the service.
    pub(super) short_deadline: bool,
    pub(super) deadline: Deadline,
    pub(super) retries: u32,
    /// Whether the leader is the background thread.
    pub(super) background: bool,
}

impl Inner {
    /// Waits until the flight has ended, or until the deadline.
    pub(super) fn join_flight(
        &self,
        process: &PerProcess,
        mut state: MutexGuard<'_, RefreshState>,
        flight: &Flight,
        deadline: Deadline,
    ) -> Result<Outcome> {
        self.stats.waits.fetch_add(1, Ordering::Relaxed);
        loop {
            if let Some(outcome) = flight.0.get() {
                return Ok(outcome.clone());
            }
            let left = deadline.remaining(self.clock());
            if left.is_zero() {
                return Err(Error::new(Kind::Timeout, "timed out waiting for the token request of another thread")
                    .with_phase(Phase::AwaitResponse)
                    .with_hint("the server is slow or does not respond; try again later, or raise timeout_ms"));
            }
            state = process.flight_done.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Becomes the leader of a new flight and completes it. The caller passes the lock under which it decided to
    /// start one, so that no other thread can decide the same.
    pub(super) fn run_flight(
        &self,
        process: &PerProcess,
        mut state: MutexGuard<'_, RefreshState>,
        attempt: RefreshAttempt,
    ) -> Outcome {
        let flight = Arc::new(Flight::default());
        state.flight = Some(flight.clone());
        state.refresher_in_flight = attempt.background;
        process.skip_lock_until.store(i64::MAX, Ordering::Release);
        let (current, last_invalidated) = (self.token.load(), process.last_invalidated.load());
        drop(state);
        // If this thread panics (in a transport of the application), the guard ends the flight, so that no
        // thread waits forever.
        let guard = FlightGuard { inner: self, process, flight: &flight };
        let start = self.clock().now();
        let request = FetchRequest {
            replacing: current.as_deref().or(last_invalidated.as_deref()),
            required: attempt.required,
            deadline: attempt.deadline,
            max_retries: attempt.retries,
        };
        let (result, pending_save) =
            match process.provider().and_then(|provider| provider.fetch(&request)).map(Option::unzip) {
                Ok((token, pending_save)) => (Ok(token), pending_save.flatten()),
                Err(error) => (Err(error), None),
            };
        std::mem::forget(guard);
        let took = start.remaining_until(self.clock().now());
        self.stats.last_refresh_ms.store(i64::try_from(took.as_millis()).unwrap_or(i64::MAX), Ordering::Relaxed);
        let outcome = self.publish(process, &flight, attempt, result);
        if let (Outcome::Token(token), Some(pending_save)) = (&outcome, pending_save) {
            pending_save.save();
            // A thread that invalidated the token in the meantime could not remove it from the store yet.
            let last_invalidated = {
                let _state = process.lock();
                process.last_invalidated.load()
            };
            if last_invalidated.is_some_and(|last_invalidated| last_invalidated.value() == token.value()) {
                process.forget(token);
            }
        }
        outcome
    }

    /// Publishes the result of a flight.
    pub(super) fn publish(
        &self,
        process: &PerProcess,
        flight: &Flight,
        attempt: RefreshAttempt,
        result: Result<Option<Token>>,
    ) -> Outcome {
        let log = &self.options().log;
        let mut state = process.lock();
        // Read after all waiting callers began to wait, because a failure reports a time relative to now.
        let now = self.clock().now();
        let current = self.token.load();
        let result = match result {
            Ok(Some(token)) => {
                check_refreshed(&token, current.as_deref(), process.last_invalidated.load().as_deref(), now)
                    .map(|()| Some(token))
            }
            other => other,
        };
        let (outcome, skip_lock_until, line) = match result {
            Ok(Some(token)) => {
                let line = format!("got token {}, which expires in {} s", token.fingerprint(), token.expires_in(now));
                let token = Arc::new(token);
                self.set_token(Some(token.clone()));
                state.backoff = None;
                state.failures = 0;
                // The replaced token was not rejected, so rejections are not consecutive any more.
                if current.is_some() {
                    state.consecutive_rejections = 0;
                }
                self.stats.refreshes.fetch_add(1, Ordering::Relaxed);
                self.stats.last_status.store(0, Ordering::Relaxed);
                (Outcome::Token(token), 0, Ok(line))
            }
            Ok(None) => {
                // Another process refreshes the token; read the store again soon.
                let left =
                    current.map_or(Duration::ZERO, |token| now.remaining_until(token.usable_until(Duration::ZERO)));
                let until = now.after(left / 8).monotonic;
                let what = "another process is refreshing the token";
                (Outcome::Inconclusive(Error::new(Kind::Timeout, what)), until, Ok(what.to_owned()))
            }
            Err(error) => {
                self.stats.failures.fetch_add(1, Ordering::Relaxed);
                self.stats.last_status.store(i64::from(error.kind().number()), Ordering::Relaxed);
                // One attempt with a short deadline proves no failure to callers whose token has expired in the
                // meantime, and a timeout of it proves none at all.
                let usable = current.as_deref().is_some_and(|token| token.is_usable(now, Duration::ZERO));
                let advisory = attempt.short_deadline && (error.kind() == Kind::Timeout || !usable);
                let until = self.backoff_until(&error, &mut state.failures, current.as_deref(), now);
                let error = error
                    .with_retry_after(Some(Duration::from_nanos(u64::try_from(until - now.monotonic).unwrap_or(0))));
                state.backoff = Some(Backoff { until, error: error.clone(), advisory });
                let line = format!("no token: {error}");
                (if advisory { Outcome::Inconclusive(error) } else { Outcome::Failed(error) }, until, Err(line))
            }
        };
        process.finish_flight(state, flight, outcome.clone(), skip_lock_until);
        match line {
            Ok(line) => log.info(|| line),
            Err(line) => log.warning(|| line),
        }
        outcome
    }

    /// The end of the backoff after a failure, on the monotonic clock: random, growing, never before
    /// `Retry-After`. While a token is usable, the backoff is at most half of its remaining time, so that the
    /// last attempt is shortly before its end, however long the outage is. A backoff that is shortened in this
    /// way does not make the next one longer: otherwise the many short ones at the end of a token's lifetime
    /// would be followed by one that is many times longer than the outage.
    pub(super) fn backoff_until(
        &self,
        error: &Error,
        failures: &mut u32,
        current: Option<&Token>,
        now: Timestamps,
    ) -> i64 {
        let mut wait = backoff(self.clock(), failures.saturating_add(1), BACKOFF_BASE, BACKOFF_CAP);
        let longest = current
            .filter(|token| token.is_usable(now, Duration::ZERO))
            .map(|token| (now.remaining_until(token.usable_until(Duration::ZERO)) / 2).max(token.lifetime() / 2000));
        match longest {
            Some(longest) if longest < wait => wait = longest,
            _ => *failures = failures.saturating_add(1),
        }
        // Without a minimum, the random backoff could be zero.
        let wait = wait.max(Duration::from_millis(1)).max(error.retry_after().unwrap_or_default());
        now.after(wait).monotonic
    }
}

impl PerProcess {
    /// Ends a flight. Waiting callers get `outcome`; callers with a usable token skip the lock until
    /// `skip_lock_until`.
    pub(super) fn finish_flight(
        &self,
        mut state: MutexGuard<'_, RefreshState>,
        flight: &Flight,
        outcome: Outcome,
        skip_lock_until: i64,
    ) {
        let _ = flight.0.set(outcome);
        state.flight = None;
        state.refresher_in_flight = false;
        self.skip_lock_until.store(skip_lock_until, Ordering::Release);
        drop(state);
        self.flight_done.notify_all();
        self.wake.notify_all();
    }
}

/// Ends the flight if its leader panics.
pub(super) struct FlightGuard<'a> {
    inner: &'a Inner,
    process: &'a PerProcess,
    flight: &'a Flight,
}

impl Drop for FlightGuard<'_> {
    fn drop(&mut self) {
        self.inner.stats.failures.fetch_add(1, Ordering::Relaxed);
        let error = Error::new(Kind::Internal, "the thread that requested a token panicked");
        self.process.finish_flight(self.process.lock(), self.flight, Outcome::Inconclusive(error), 0);
    }
}
