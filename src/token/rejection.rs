//! What happens when a server rejects the current token.
//!
//! A rejection may mean that the token was revoked, that the caller lacks a permission, or that the server belongs
//! to another account. The status does not tell which. So:
//!
//! - **The others keep the token.** A rejected token stays in use until another one replaces it, and also if none
//!   can be had. Nobody fails or waits because of somebody else's rejection.
//! - **The one who reports it gets another token**, if there may be one: [`TokenCache::report`] requests it, or joins
//!   the flight that does.
//! - **Replacements are paced.** The first is requested at once, so that a revoked token is replaced at once. If that
//!   one is rejected too, the next may follow 1 second later, then 2, 4, … and at most [`LONGEST_PAUSE`], so that a
//!   call that always lacks a permission costs one request a minute.
//!
//! [`TokenCache::report`]: super::cache::TokenCache::report

use super::Token;
use super::state::{Backoff, Inner, PerProcess, RefreshState};
use crate::log::Event;
use crate::oauth::retry::Deadline;
use crate::sys::clock::Timestamps;
use crate::sys::sync::{MutexGuard, current_thread};
use serde::Deserialize;
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The pause between the first two replacements of a series; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause between two replacements of a series.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A rejection that is this long after the last replacement begins a new series. It is longer than
/// [`LONGEST_PAUSE`], and independent of the lifetime of tokens, which a server chooses.
const SERIES_END: Duration = Duration::from_secs(120);

/// How many threads are remembered that need another token; more than that get the current one.
const MAX_REJECTERS: usize = 256;

/// The replacements of rejected tokens, in one series.
#[derive(Clone, Copy, Default)]
pub(super) struct Rejections {
    count: u32,
    last: i64,
    /// No replacement is requested before this monotonic time.
    next: i64,
}

impl Rejections {
    /// Whether another replacement may be requested.
    fn allow(&self, now: Timestamps) -> bool {
        now.monotonic >= self.next
    }

    /// Records that a replacement is requested now.
    fn record(&mut self, now: Timestamps) {
        let ended = self.count == 0 || now.monotonic.saturating_sub(self.last) > nanoseconds(SERIES_END);
        self.count = if ended { 1 } else { self.count.saturating_add(1) };
        self.last = now.monotonic;
        let pause = FIRST_PAUSE.saturating_mul(1_u32.checked_shl(self.count - 1).unwrap_or(u32::MAX));
        self.next = now.after(pause.min(LONGEST_PAUSE)).monotonic;
    }
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// Whether a response says that the server rejected the token: a 401, or the 403 by which Amplience reports an
/// expired token (dc-cli issue 94). Other responses with 403 are about a permission.
pub fn is_about_token(status: u16, body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow)]
        errors: Vec<Problem<'a>>,
    }
    #[derive(Deserialize)]
    struct Problem<'a> {
        #[serde(borrow)]
        code: Cow<'a, str>,
        #[serde(borrow)]
        message: Cow<'a, str>,
    }
    let says_so = |problem: &Problem| problem.code == "FORBIDDEN" && problem.message == "Authorization required.";
    match status {
        401 => true,
        403 => serde_json::from_slice(body).is_ok_and(|body: Body| body.errors.iter().any(says_so)),
        _ => false,
    }
}

impl Inner {
    /// Another token than the rejected one, if there is one or one can be had before the deadline.
    pub(super) fn replace_rejected(self: &Arc<Self>, rejected: &Token, deadline: Deadline) -> Option<Arc<Token>> {
        let another = || {
            let now = self.clock().now();
            self.token.load().filter(|current| {
                current.value() != rejected.value() && current.is_usable(now, self.options().min_validity)
            })
        };
        let process = self.per_process().ok()?;
        let state = process.lock();
        if let Some(current) = another() {
            return Some(current);
        }
        // A callback must not wait for the call that made it.
        if self.options().scope.is_entered() {
            return None;
        }
        if let Some(flight) = state.flight.clone() {
            let _ = self.join_flight(&process, state, &flight, deadline);
            return another();
        }
        let state = self.begin_replacement(&process, state, rejected)?;
        self.run_flight(&process, state, self.required_attempt(deadline, self.options().min_validity));
        another()
    }

    /// Marks the current token as rejected by this thread, which gets another one from its next call. Sends nothing.
    pub(super) fn mark_rejected(&self, rejected: &Token) {
        let Ok(process) = self.per_process() else { return };
        let state = process.lock();
        let is_current = self.token.load().is_some_and(|current| current.value() == rejected.value());
        // The flight in progress may be the one that replaces it.
        let in_flight = state.flight.is_some();
        if !is_current {
            return;
        }
        let state = if in_flight { Some(state) } else { self.begin_replacement(&process, state, rejected) };
        let Some(mut state) = state else { return };
        if state.rejecters.len() < MAX_REJECTERS {
            state.rejecters.push(current_thread());
        }
        process.has_rejecters.store(true, Ordering::Release);
        // The token is not fresh any more, so that the next call of this thread takes the slow path.
        self.set_token(self.token.load().map(|current| Arc::new(current.with_refresh_at(self.clock().now()))));
        drop(state);
        process.forget(rejected);
    }

    /// Records that the current token was rejected, and passes the lock on if a replacement may be requested now: a new
    /// one if the pause is over, or one that was begun before.
    fn begin_replacement<'a>(
        &self,
        process: &PerProcess,
        state: MutexGuard<'a, RefreshState>,
        rejected: &Token,
    ) -> Option<MutexGuard<'a, RefreshState>> {
        let now = self.clock().now();
        let log = &self.options().log;
        let pauses = process.pauses.load();
        log.event(|| Event::TokenRejected);
        // A thread that reported the token before has not asked for another one yet, or its request failed.
        let is_pending = !state.rejecters.is_empty();
        if is_pending && Backoff::error(pauses.backoff.as_ref(), now).is_none() {
            return Some(state);
        }
        // Reading a personal access token again costs no request.
        let is_paced = !rejected.is_permanent();
        if is_paced && (!pauses.rejections.allow(now) || Backoff::error(pauses.backoff.as_ref(), now).is_some()) {
            log.debug(|| format!("token {} was rejected again; it stays in use", rejected.fingerprint()));
            return None;
        }
        if is_paced {
            process.change_pauses(|pauses| pauses.rejections.record(now));
        }
        let count = process.pauses.load().rejections.count;
        process.last_rejected.set(self.token.load());
        self.stats.invalidations.fetch_add(1, Ordering::Relaxed);
        log.info(|| format!("token {} was rejected by a server and is being replaced", rejected.fingerprint()));
        if count > 1 {
            log.warning(|| {
                format!(
                    "servers rejected {count} tokens in a row; check that api_url and auth_url belong together, and the permissions of the API key"
                )
            });
        }
        Some(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock::ManualClock;

    #[test]
    fn a_call_that_is_always_rejected_costs_a_request_a_minute() {
        let clock = ManualClock::new(1);
        let mut rejections = Rejections::default();
        let mut at = Vec::new();
        for second in 0..600 {
            if rejections.allow(clock.now()) {
                rejections.record(clock.now());
                at.push(second);
            }
            clock.advance(Duration::from_secs(1));
        }
        assert_eq!(at, [0, 1, 3, 7, 15, 31, 63, 123, 183, 243, 303, 363, 423, 483, 543]);
        clock.advance(SERIES_END);
        rejections.record(clock.now());
        assert_eq!(rejections.count, 1, "a rejection after a long time begins a new series");
    }

    #[test]
    fn only_the_right_403_is_about_the_token() {
        let expired = r#"{"errors":[{"level":"ERROR","code":"FORBIDDEN","message":"Authorization required."}]}"#;
        for (status, body, about) in [
            (401, "", true),
            (403, expired, true),
            (403, "", false),
            (403, r#"{"errors":[{"code":"FORBIDDEN","message":"Insufficient permissions"}]}"#, false),
            (403, "<html>", false),
            (200, expired, false),
            (404, expired, false),
        ] {
            assert_eq!(is_about_token(status, body.as_bytes()), about, "{status} {body}");
        }
    }
}
