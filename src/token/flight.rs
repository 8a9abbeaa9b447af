//! Single flight: one attempt to get a token serves all callers that wait for it.
//!
//! The leader of a flight sends the request; the others wait. The outcome is published to all of them: the new
//! token, or the failure and the backoff that follows it. A flight always ends, and each outcome has a pause.
//!
//! A caller that has a usable token leads in a thread of the library, and waits for that thread for a limited time:
//! a request that takes longer is not lost, its token arrives later. With a transport of the application there is
//! no such thread, because the application may not expect calls from foreign threads.

use super::Token;
use super::provider::{FetchRequest, check_refreshed};
use super::state::{Backoff, Flight, Inner, Outcome, PerProcess, RefreshState};
use crate::error::{Error, Kind, Phase, Result};
use crate::log::Event;
use crate::oauth::retry::{Deadline, backoff};
use crate::sys::clock::Timestamps;
use crate::sys::panics;
use crate::sys::sync::MutexGuard;
use crate::sys::threads;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// The limit of the first backoff after a failure; each further one is twice as long.
pub(super) const BACKOFF_BASE: Duration = Duration::from_millis(500);

/// The longest backoff, unless the server requires a longer one (`Retry-After`).
pub(super) const BACKOFF_CAP: Duration = Duration::from_secs(60);

/// The shortest pause: the random backoff could be zero.
pub(super) const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

/// How a leader makes its attempt.
#[derive(Clone, Copy)]
pub(super) struct RefreshAttempt {
    /// Whether the caller cannot continue without a new token.
    pub(super) required: bool,
    /// Whether the deadline is so short that missing it does not prove a failure of the service.
    pub(super) short_deadline: bool,
    pub(super) deadline: Deadline,
    pub(super) retries: u32,
    /// How long the token must be valid.
    pub(super) min_validity: Duration,
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
        state: MutexGuard<'_, RefreshState>,
        attempt: RefreshAttempt,
    ) -> Outcome {
        let flight = begin_flight(process, state);
        self.complete_flight(process, &flight, attempt)
    }

    /// Has a thread of its own complete a new flight; the caller may [join](Inner::join_flight) it. If no thread can
    /// be started, `otherwise` must end it, in the time that the caller has.
    pub(super) fn start_flight(
        self: &Arc<Self>,
        process: &Arc<PerProcess>,
        state: MutexGuard<'_, RefreshState>,
        attempt: RefreshAttempt,
        otherwise: impl FnOnce(&Flight, io::Error),
    ) -> Arc<Flight> {
        let flight = begin_flight(process, state);
        let (inner, its_process, its_flight) = (self.clone(), process.clone(), flight.clone());
        let work = move || {
            let _inside = panics::enter();
            drop(inner.complete_flight(&its_process, &its_flight, attempt));
        };
        if let Err(error) = threads::spawn("amp-token", work) {
            otherwise(&flight, error);
        }
        flight
    }

    /// Ends a flight that was not made. It says nothing about the service, but may be as useless the next time, so it
    /// has a pause, too.
    pub(super) fn abandon_flight(&self, process: &PerProcess, flight: &Flight, error: Error) {
        self.stats.failures.fetch_add(1, Ordering::Relaxed);
        let until = self.clock().now().after(BACKOFF_BASE).monotonic;
        let state = process.lock();
        process.change_pauses(|pauses| pauses.deferred_until = until);
        process.finish_flight(state, flight, Outcome::Inconclusive(error), until);
    }

    pub(super) fn complete_flight(&self, process: &PerProcess, flight: &Flight, attempt: RefreshAttempt) -> Outcome {
        // If this thread panics, in the application's transport or here, the guard ends the flight, so that no
        // thread waits forever.
        let _guard = FlightGuard { inner: self, process, flight };
        let (current, last_rejected) = (self.token.load(), process.last_rejected.load());
        let start = self.clock().now();
        let request = FetchRequest {
            replacing: current.as_deref().or(last_rejected.as_deref()),
            required: attempt.required,
            deadline: attempt.deadline,
            max_retries: attempt.retries,
            min_validity: attempt.min_validity,
        };
        let (result, pending_save) =
            match process.provider().and_then(|provider| provider.fetch(&request)).map(Option::unzip) {
                Ok((token, pending_save)) => (Ok(token), pending_save.flatten()),
                Err(error) => (Err(error), None),
            };
        let took = start.remaining_until(self.clock().now());
        self.stats.last_refresh_ms.store(i64::try_from(took.as_millis()).unwrap_or(i64::MAX), Ordering::Relaxed);
        let outcome = self.publish(process, flight, attempt, result);
        if let (Outcome::Token(token), Some(pending_save)) = (&outcome, pending_save) {
            pending_save.save();
            // A thread that reported the token in the meantime could not remove it from the store yet.
            let last_rejected = {
                let _state = process.lock();
                process.last_rejected.load()
            };
            if last_rejected.is_some_and(|last_rejected| last_rejected.value() == token.value()) {
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
                let last_rejected = process.last_rejected.load();
                let min_validity = self.options().min_validity;
                check_refreshed(&token, current.as_deref(), last_rejected.as_deref(), now, min_validity)
                    .map(|()| Some(token))
            }
            other => other,
        };
        let (outcome, skip_lock_until) = match result {
            Ok(Some(token)) => {
                let line = format!("got token {}, which expires in {} s", token.fingerprint(), token.expires_in(now));
                let token = Arc::new(token);
                self.set_token(Some(token.clone()));
                state.rejecters.clear();
                process.has_rejecters.store(false, Ordering::Release);
                process.change_pauses(|pauses| {
                    pauses.backoff = None;
                    pauses.failures = 0;
                    pauses.deferred_until = i64::MIN;
                });
                self.stats.refreshes.fetch_add(1, Ordering::Relaxed);
                self.stats.last_status.store(0, Ordering::Relaxed);
                log.info(|| line);
                log.event(|| Event::Refreshed);
                (Outcome::Token(token), 0)
            }
            Ok(None) => {
                // Another process refreshes the token; read the store again soon.
                let left =
                    current.map_or(Duration::ZERO, |token| now.remaining_until(token.usable_until(Duration::ZERO)));
                let until = now.after((left / 8).max(SHORTEST_PAUSE)).monotonic;
                process.change_pauses(|pauses| pauses.deferred_until = until);
                let what = "another process is refreshing the token";
                log.info(|| what);
                (Outcome::Inconclusive(Error::new(Kind::Timeout, what)), until)
            }
            Err(error) => {
                self.stats.failures.fetch_add(1, Ordering::Relaxed);
                self.stats.last_status.store(i64::from(error.kind().number()), Ordering::Relaxed);
                // One attempt without retries proves no failure to callers whose token has expired in the
                // meantime, and a short deadline proves none at all. What the server asked for always counts.
                let usable = current.as_deref().is_some_and(|token| token.is_usable(now, Duration::ZERO));
                let is_order = error.kind() == Kind::RateLimited || error.retry_after().is_some();
                let timed_out = attempt.short_deadline && error.kind() == Kind::Timeout;
                let advisory = !is_order && (timed_out || (!attempt.required && error.is_retryable() && !usable));
                let mut failures = process.pauses.load().failures;
                let until = self.backoff_until(&error, &mut failures, current.as_deref(), now);
                let error = error
                    .with_retry_after(Some(Duration::from_nanos(u64::try_from(until - now.monotonic).unwrap_or(0))));
                process.change_pauses(|pauses| {
                    pauses.failures = failures;
                    pauses.backoff = Some(Backoff { until, error: error.clone(), advisory });
                });
                log.warning(|| format!("no token: {error}"));
                log.event(|| Event::RefreshFailed(error.clone()));
                (if advisory { Outcome::Inconclusive(error) } else { Outcome::Failed(error) }, until)
            }
        };
        process.finish_flight(state, flight, outcome.clone(), skip_lock_until);
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
        let wait = wait.max(SHORTEST_PAUSE).max(error.retry_after().unwrap_or_default());
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
        self.skip_lock_until.store(skip_lock_until, Ordering::Release);
        drop(state);
        self.flight_done.notify_all();
        self.wake.notify_all();
    }
}

/// Registers a new flight.
fn begin_flight(process: &PerProcess, mut state: MutexGuard<'_, RefreshState>) -> Arc<Flight> {
    let flight = Arc::new(Flight::default());
    state.flight = Some(flight.clone());
    process.skip_lock_until.store(i64::MAX, Ordering::Release);
    flight
}

/// Ends the flight if its leader panics.
struct FlightGuard<'a> {
    inner: &'a Inner,
    process: &'a PerProcess,
    flight: &'a Flight,
}

impl Drop for FlightGuard<'_> {
    fn drop(&mut self) {
        if self.flight.0.get().is_some() {
            return;
        }
        let error = Error::new(Kind::Internal, "the thread that requested a token panicked");
        self.inner.abandon_flight(self.process, self.flight, error);
    }
}
