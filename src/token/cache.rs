//! The cached-token handle: always a valid token, for every thread, at the cost of a few loads.
//!
//! What it promises is written in the README (and DESIGN): never a dead token, one request at a
//! time, nobody waits while a token is usable, windows that scale with the lifetime, no hammering,
//! and survival of forks, sleeps and jumping clocks.
//!
//! How it is made:
//!
//! - **The hot path** ([`TokenCache::get`], [`TokenCache::with_token`]) loads a pointer, reads two coarse
//!   clocks and compares. No lock, no write that another thread sees.
//! - **The slow path** looks at the same token under the state lock, decides by [`classify`], a pure
//!   function, and then returns, waits for the flight that is under way, or becomes its leader. The
//!   lock is never held over I/O, a callback or a log line.
//! - **A flight** is one attempt to get a token. Its leader runs it and [settles](Inner::publish) it:
//!   the new token, or the failure and the backoff after it, is published to all who wait.
//! - **A forked child** finds the [generation](crate::sys::fork) changed and makes a new [`PerProcess`]
//!   (lock, transport, flight) from the config; the token itself it keeps.

use super::Token;
use super::cell::TokenCell;
use super::flight::{BACKOFF_BASE, BACKOFF_CAP, RefreshAttempt};
use super::provider::{ProviderConfig, REFRESH_TIMEOUT, TokenProvider, min_validity_error};
use super::state::{Backoff, Inner, Outcome, PerProcess, State, classify};
use super::stats::Stats;
use crate::config::{Config, Options};
use crate::error::{Error, Kind, Phase, Result};
use crate::net::transport::Transport;
use crate::oauth::retry::{Deadline, backoff};
use crate::sys::fork;
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use super::stats::STATISTICS;

/// The current token of one set of credentials. Share it between threads by reference; dropping it
/// ends its thread, if it has one. Tokens outlive it.
pub struct TokenCache(Arc<Inner>);

impl TokenCache {
    /// Finds the credentials and makes a cache; sends nothing.
    pub fn new(config: &Config) -> Result<Self> {
        fork::install_fork_hook();
        let config = Arc::new(ProviderConfig::new(config)?);
        Ok(TokenCache(Arc::new(Inner {
            slot: TokenCell::default(),
            epoch: AtomicU64::new(1),
            shared: ArcSwap::from_pointee(PerProcess::new(TokenProvider::new(config.clone())?)),
            config,
            stats: Stats::default(),
        })))
    }

    /// A valid token. Blocks when there is none, while one is fetched, for `timeout_ms` at most.
    #[inline]
    pub fn get(&self) -> Result<Arc<Token>> {
        self.with_token(Arc::clone)
    }

    /// Runs `as_ref` on a valid token, without counting a reference to it: the path that scales.
    #[inline]
    pub fn with_token<R>(&self, look: impl Fn(&Arc<Token>) -> R) -> Result<R> {
        let inner = &self.0;
        let now = inner.clock().now();
        let seen = inner.slot.with(|token| {
            let token = token.filter(|token| token.is_fresh(now))?;
            token.mark_used();
            Some(look(token))
        });
        match seen {
            Some(seen) => {
                inner.stats.record_hit();
                Ok(seen)
            }
            None => inner.get_slow(inner.options().min_validity, inner.deadline()).map(|token| look(&token)),
        }
    }

    /// A token that is good for at least `min_validity` more.
    pub fn get_for(&self, min_validity: Duration) -> Result<Arc<Token>> {
        let inner = &self.0;
        inner.get_or_fetch(min_validity.max(inner.options().min_validity), inner.deadline())
    }

    /// As [`TokenCache::get`], by a deadline of the caller's.
    pub fn get_before(&self, deadline: Deadline) -> Result<Arc<Token>> {
        self.0.get_or_fetch(self.0.options().min_validity, deadline)
    }

    /// What carries requests, in this process.
    pub fn transport(&self) -> Result<Arc<dyn Transport>> {
        Ok(self.0.shared()?.source()?.transport())
    }

    /// Says that a server refused `get_token`: if it is the current one, the next call gets another.
    /// A backoff after a failure stays in force, and a cache whose tokens are refused as soon as they
    /// come makes longer and longer ones.
    pub fn invalidate(&self, token: &Token) {
        self.0.invalidate(token);
    }

    /// A counter that changes whenever the current token does. It lives as long as the cache.
    pub fn epoch(&self) -> &AtomicU64 {
        &self.0.epoch
    }

    /// A figure about the cache's past or present, by name; see [`STATISTICS`].
    pub fn statistic(&self, name: &str) -> Option<i64> {
        let inner = &self.0;
        let stats = &inner.stats;
        let now = inner.clock().now();
        let count = |counter: &AtomicU64| i64::try_from(counter.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        let seconds = |token: Option<i64>| token.unwrap_or(-1);
        let token = inner.slot.load();
        Some(match name {
            "hits" => stats.hits(),
            "waits" => count(&stats.waits),
            "refreshes" => count(&stats.refreshes),
            "failures" => count(&stats.failures),
            "requests" => count(&inner.config.requests),
            "invalidations" => count(&stats.invalidations),
            "last_refresh_ms" => stats.last_refresh_ms.load(Ordering::Relaxed),
            "last_status" => stats.last_status.load(Ordering::Relaxed),
            "age" => seconds(
                token.map(|token| i64::try_from(token.issued().remaining_until(now).as_secs()).unwrap_or(i64::MAX)),
            ),
            "expires_in" => seconds(token.map(|token| token.expires_in(now))),
            _ => return None,
        })
    }

    /// The settings in force.
    pub fn options(&self) -> &Options {
        self.0.options()
    }

    /// Makes the background thread look at the clock again; for tests that move it.
    #[doc(hidden)]
    pub fn wake(&self) {
        self.0.shared.load().wake.notify_all();
    }
}

impl Drop for TokenCache {
    fn drop(&mut self) {
        let shared = self.0.shared.load_full();
        if shared.generation != fork::generation() {
            shared.free_in_child();
            return;
        }
        let mut state = shared.lock();
        state.closed = true;
        let in_flight = state.refresher_in_flight;
        // (Nor can a thread wait for itself: a log function may free the cache after all.)
        let thread =
            state.thread.take().filter(|thread| !in_flight && thread.thread().id() != std::thread::current().id());
        drop(state);
        shared.wake.notify_all();
        // A thread that is in a request ends by itself when that is over: freeing must not block.
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl Inner {
    /// The token in hand if it is fresh and lasts, else the slow path.
    fn get_or_fetch(self: &Arc<Self>, min_validity: Duration, deadline: Deadline) -> Result<Arc<Token>> {
        let now = self.clock().now();
        match self.slot.load().filter(|token| token.is_fresh(now) && token.is_usable(now, min_validity)) {
            Some(token) => {
                token.mark_used();
                self.stats.record_hit();
                Ok(token)
            }
            None => self.get_slow(min_validity, deadline),
        }
    }

    /// The slow path: a token that is not fresh, or not there.
    #[cold]
    fn get_slow(self: &Arc<Self>, min_validity: Duration, deadline: Deadline) -> Result<Arc<Token>> {
        let clock = self.clock();
        let mut tried = false;
        loop {
            let shared = self.shared();
            let now = clock.now();
            // While somebody renews, or during a backoff, a usable token needs no lock; and one that a
            // forked child inherited is good even if the child cannot ask for another.
            if let Some(token) = self.slot.load().filter(|token| token.is_usable(now, min_validity))
                && shared.as_ref().map_or(true, |shared| now.monotonic < shared.skip_lock_until.load(Ordering::Acquire))
            {
                token.mark_used();
                return Ok(token);
            }
            let shared = shared?;
            let mut state = shared.lock();
            let token = self.slot.load();
            let paused = state.backoff.as_ref().map_or(i64::MIN, |backoff| backoff.until);
            match (classify(token.as_deref(), paused, now, min_validity), token) {
                (State::Fresh | State::Backoff, Some(token)) => {
                    token.mark_used();
                    return Ok(token);
                }
                (State::Due, Some(token)) => {
                    token.mark_used();
                    if state.flight.is_some() || self.delegate_to_refresher(&shared, &mut state) {
                        return Ok(token);
                    }
                    let left = now.remaining_until(token.usable_until(min_validity));
                    let budget = Deadline::after(clock, REFRESH_TIMEOUT.min(left)).min(deadline);
                    let attempt = RefreshAttempt {
                        required: false,
                        short_deadline: true,
                        deadline: budget,
                        retries: 0,
                        background: false,
                    };
                    match self.run_flight(&shared, state, attempt) {
                        Outcome::Token(token) => return Ok(token),
                        _ if token.is_usable(clock.now(), min_validity) => return Ok(token),
                        // The old one has died meanwhile: look again, with all the time there is.
                        Outcome::Failed(_) | Outcome::Inconclusive(_) => {}
                    }
                }
                (_, token) => {
                    if let Some(token) = &token
                        && !token.issued().is_before_both(token.usable_until(min_validity))
                    {
                        return Err(min_validity_error(token, min_validity));
                    }
                    if let Some(backoff) = &state.backoff
                        && !backoff.advisory
                        && now.monotonic < backoff.until
                    {
                        return Err(backoff.error_with_remaining(now));
                    }
                    let outcome = match state.flight.clone() {
                        Some(flight) => self.join_flight(&shared, state, &flight, deadline)?,
                        None => {
                            let retries = self.options().retries;
                            let short_deadline = deadline.remaining(clock) < self.options().timeout / 2;
                            self.run_flight(
                                &shared,
                                state,
                                RefreshAttempt { required: true, short_deadline, deadline, retries, background: false },
                            )
                        }
                    };
                    match outcome {
                        Outcome::Token(token) if token.is_usable(clock.now(), min_validity) => {
                            token.mark_used();
                            return Ok(token);
                        }
                        Outcome::Token(token) if !token.issued().is_before_both(token.usable_until(min_validity)) => {
                            return Err(min_validity_error(&token, min_validity));
                        }
                        Outcome::Failed(error) => return Err(error),
                        Outcome::Inconclusive(error) if tried || deadline.remaining(clock).is_zero() => {
                            return Err(error);
                        }
                        Outcome::Token(_) if tried => {
                            return Err(Error::new(
                                Kind::Timeout,
                                "no token could be had that was still valid when it came",
                            )
                            .with_phase(Phase::AwaitResponse)
                            .with_hint("the server is too slow for the lifetime of its tokens; try again later"));
                        }
                        Outcome::Token(_) | Outcome::Inconclusive(_) => tried = true,
                    }
                }
            }
        }
    }

    fn invalidate(&self, token: &Token) {
        let Ok(shared) = self.shared() else { return };
        let now = self.clock().now();
        {
            let mut state = shared.lock();
            let Some(current) = self.slot.load().filter(|current| current.value() == token.value()) else { return };
            self.set_token(None);
            // A token that did its work for a while and was then revoked is one thing; tokens that
            // are refused as soon as they come would have every call ask for the next.
            state.consecutive_rejections =
                if current.was_just_issued(now) { state.consecutive_rejections.saturating_add(1) } else { 1 };
            // (What a flight that is under way brings is not known yet: its token may be a good one.)
            if state.consecutive_rejections > 1 && state.flight.is_none() && !current.is_permanent() {
                let wait = backoff(self.clock(), state.consecutive_rejections - 1, BACKOFF_BASE * 2, BACKOFF_CAP);
                let until = now.after(wait.max(Duration::from_millis(1))).monotonic;
                if state.backoff.as_ref().is_none_or(|backoff| backoff.until < until) {
                    let error = Error::new(
                        Kind::CredentialsRejected,
                        format!(
                            "{} tokens in a row were refused as soon as they were used",
                            state.consecutive_rejections
                        ),
                    )
                    .with_phase(Phase::Parse)
                    .with_retryable(true)
                    .with_hint("check that api_url and auth_url belong together, and what the API key may do");
                    state.backoff = Some(Backoff { until, error, advisory: false });
                }
            }
            shared.last_invalidated.set(Some(current));
        }
        self.stats.invalidations.fetch_add(1, Ordering::Relaxed);
        self.options().log.info(|| format!("token {} was refused and is last_invalidated", token.fingerprint()));
        shared.forget(token);
    }
}
