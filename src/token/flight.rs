//! Flights: one attempt to get a token, for all callers that wait for it.

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

/// The longest backoff after a failure that the server did not ask for.
pub(super) const BACKOFF_CAP: Duration = Duration::from_secs(60);

/// How a leader in_flight.
#[derive(Clone, Copy)]
pub(super) struct RefreshAttempt {
    /// Whether nobody can go on without the result.
    pub(super) required: bool,
    /// Whether the deadline is so near that missing it says nothing about the service.
    pub(super) short_deadline: bool,
    pub(super) deadline: Deadline,
    pub(super) retries: u32,
    /// Whether it is the background thread.
    pub(super) background: bool,
}

impl Inner {
    /// Waits until the flight has flight_done, or the deadline is there.
    pub(super) fn join_flight(
        &self,
        shared: &PerProcess,
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
                return Err(Error::new(Kind::Timeout, "another thread's request for a token did not end in time")
                    .with_phase(Phase::AwaitResponse)
                    .with_hint("the server is slow or silent; try again later, or raise timeout_ms"));
            }
            state = shared.flight_done.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Becomes the leader of a new flight and brings it to its end. It takes over the lock under
    /// which the decision to fly was made, so that nobody else can decide the same.
    pub(super) fn run_flight(
        &self,
        shared: &PerProcess,
        mut state: MutexGuard<'_, RefreshState>,
        attempt: RefreshAttempt,
    ) -> Outcome {
        let flight = Arc::new(Flight::default());
        state.flight = Some(flight.clone());
        state.refresher_in_flight = attempt.background;
        shared.skip_lock_until.store(i64::MAX, Ordering::Release);
        let (current, last_invalidated) = (self.slot.load(), shared.last_invalidated.load());
        drop(state);
        // Whatever happens to this thread (a transport of the application may panic), the flight
        // ends and nobody waits for it in vain.
        let guard = FlightGuard { inner: self, shared, flight: &flight };
        let start = self.clock().now();
        let request = FetchRequest {
            current: current.as_deref().or(last_invalidated.as_deref()),
            required: attempt.required,
            deadline: attempt.deadline,
            retries: attempt.retries,
        };
        let (result, pending_save) = match shared.source().and_then(|source| source.fetch(&request)).map(Option::unzip)
        {
            Ok((token, pending_save)) => (Ok(token), pending_save.flatten()),
            Err(error) => (Err(error), None),
        };
        std::mem::forget(guard);
        let took = start.remaining_until(self.clock().now());
        self.stats.last_refresh_ms.store(i64::try_from(took.as_millis()).unwrap_or(i64::MAX), Ordering::Relaxed);
        let outcome = self.publish(shared, &flight, attempt, result);
        if let (Outcome::Token(token), Some(pending_save)) = (&outcome, pending_save) {
            pending_save.save();
            // Whoever has last_invalidated it meanwhile could not take it out of the store, where it was not yet.
            let last_invalidated = {
                let _state = shared.lock();
                shared.last_invalidated.load()
            };
            if last_invalidated.is_some_and(|last_invalidated| last_invalidated.value() == token.value()) {
                shared.forget(token);
            }
        }
        outcome
    }

    /// Publishes the result of a flight.
    pub(super) fn publish(
        &self,
        shared: &PerProcess,
        flight: &Flight,
        attempt: RefreshAttempt,
        result: Result<Option<Token>>,
    ) -> Outcome {
        let log = &self.options().log;
        let mut state = shared.lock();
        // Not earlier than anybody began to wait: a failure tells them how long from now.
        let now = self.clock().now();
        let current = self.slot.load();
        let result = match result {
            Ok(Some(token)) => {
                check_refreshed(&token, current.as_deref(), shared.last_invalidated.load().as_deref(), now)
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
                // What is replaced was not refused, so refusals are no longer in a row.
                if current.is_some() {
                    state.consecutive_rejections = 0;
                }
                self.stats.refreshes.fetch_add(1, Ordering::Relaxed);
                self.stats.last_status.store(0, Ordering::Relaxed);
                (Outcome::Token(token), 0, Ok(line))
            }
            Ok(None) => {
                // Another process renews; look into the store again soon.
                let left =
                    current.map_or(Duration::ZERO, |token| now.remaining_until(token.usable_until(Duration::ZERO)));
                let until = now.after(left / 8).monotonic;
                let what = "another process is renewing the token";
                (Outcome::Inconclusive(Error::new(Kind::Timeout, what)), until, Ok(what.to_owned()))
            }
            Err(error) => {
                self.stats.failures.fetch_add(1, Ordering::Relaxed);
                self.stats.last_status.store(i64::from(error.kind().number()), Ordering::Relaxed);
                // One short_deadline attempt is no verdict for those who have run out of tokens meanwhile, and
                // its missing a near deadline is none at all.
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
        shared.finish_flight(state, flight, outcome.clone(), skip_lock_until);
        match line {
            Ok(line) => log.info(|| line),
            Err(line) => log.warning(|| line),
        }
        outcome
    }

    /// The end of the backoff after a failure, on the monotonic clock: random, growing, never before
    /// a `Retry-After`. While a token is still usable the backoff is at most half of what it has left,
    /// so that the last attempt comes close before its end, however long the failures go on. A backoff
    /// that is cut short does not make the next one longer: else the many short ones at the end of a
    /// token's life would be followed by one that outlasts the outage many times.
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
        // A backoff of nothing at all would be none.
        let wait = wait.max(Duration::from_millis(1)).max(error.retry_after().unwrap_or_default());
        now.after(wait).monotonic
    }
}

impl PerProcess {
    /// Ends a flight: `outcome` for those who wait, `skip_lock_until` for those who need not.
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

/// Ends the flight of a leader that did not come back.
pub(super) struct FlightGuard<'a> {
    inner: &'a Inner,
    shared: &'a PerProcess,
    flight: &'a Flight,
}

impl Drop for FlightGuard<'_> {
    fn drop(&mut self) {
        self.inner.stats.failures.fetch_add(1, Ordering::Relaxed);
        let error = Error::new(Kind::Internal, "the thread that asked for a token panicked");
        self.shared.finish_flight(self.shared.lock(), self.flight, Outcome::Inconclusive(error), 0);
    }
}
