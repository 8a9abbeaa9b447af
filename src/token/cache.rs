//! The token cache: a valid token for every thread, at the cost of a few loads.
//!
//! It guarantees: it never returns an expired token; it sends one request at a time; a caller waits only when no
//! token is usable, or up to 2 seconds when it refreshes one; all times scale with the lifetime of the token; it
//! backs off after failures; and it works across forks, suspends and clock changes.
//!
//! How it works:
//!
//! - **The hot path** ([`TokenCache::get`], [`TokenCache::with_token`]) loads a pointer, reads two coarse clocks
//!   and compares. It takes no lock. It writes one counter, which few threads share.
//! - **The slow path** reads the same token under the state lock, decides by [`classify`], a pure function, and
//!   then returns, waits for the flight that is in progress, or becomes the leader of a new one. The lock is never
//!   held during I/O, a callback or a log line.
//! - **A flight** is one attempt to get a token. Its leader runs it and [publishes](Inner::publish) the outcome to
//!   all callers that wait: the new token, or the failure and the backoff after it.
//! - **A forked child** finds that the [generation](crate::sys::fork) has changed and creates a new [`PerProcess`]
//!   (lock, transport, flight) from the configuration. It keeps the token.

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

/// A cache for the token of one set of credentials. Threads share it by reference. Dropping it ends its
/// background thread, if it has one. Tokens that it returned stay valid.
pub struct TokenCache(Arc<Inner>);

impl TokenCache {
    /// Finds the credentials and creates a cache; sends nothing.
    pub fn new(config: &Config) -> Result<Self> {
        fork::install_fork_hook();
        let config = Arc::new(ProviderConfig::new(config)?);
        Ok(TokenCache(Arc::new(Inner {
            token: TokenCell::default(),
            epoch: AtomicU64::new(1),
            per_process: ArcSwap::from_pointee(PerProcess::new(TokenProvider::new(config.clone())?)),
            config,
            stats: Stats::default(),
        })))
    }

    /// A valid token. If there is none, blocks while one is fetched, for at most `timeout_ms`.
    #[inline]
    pub fn get(&self) -> Result<Arc<Token>> {
        self.with_token(Arc::clone)
    }

    /// Runs `look` on a valid token without counting a reference to it, which scales with the number of threads.
    #[inline]
    pub fn with_token<R>(&self, look: impl Fn(&Arc<Token>) -> R) -> Result<R> {
        let inner = &self.0;
        let now = inner.clock().now();
        let seen = inner.token.with(|token| {
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

    /// A token that is valid for at least `min_validity`.
    pub fn get_for(&self, min_validity: Duration) -> Result<Arc<Token>> {
        let inner = &self.0;
        inner.get_or_fetch(min_validity.max(inner.options().min_validity), inner.deadline())
    }

    /// Like [`TokenCache::get`], but with a deadline of the caller.
    pub fn get_before(&self, deadline: Deadline) -> Result<Arc<Token>> {
        self.0.get_or_fetch(self.0.options().min_validity, deadline)
    }

    /// The transport of this process.
    pub fn transport(&self) -> Result<Arc<dyn Transport>> {
        Ok(self.0.per_process()?.provider()?.transport())
    }

    /// Reports that a server rejected `token`. If it is the current token, it is discarded, and the next call
    /// fetches another. A backoff after a failure stays in force. If new tokens are rejected again and again, the
    /// cache backs off for longer each time.
    pub fn invalidate(&self, token: &Token) {
        self.0.invalidate(token);
    }

    /// A counter that changes whenever the current token does. It exists as long as the cache.
    pub fn epoch(&self) -> &AtomicU64 {
        &self.0.epoch
    }

    /// A statistic by name; see [`STATISTICS`].
    pub fn statistic(&self, name: &str) -> Option<i64> {
        let inner = &self.0;
        let stats = &inner.stats;
        let now = inner.clock().now();
        let count = |counter: &AtomicU64| i64::try_from(counter.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        let seconds = |token: Option<i64>| token.unwrap_or(-1);
        let token = inner.token.load();
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

    /// Makes the background thread read the clock again; for tests that move it.
    #[doc(hidden)]
    pub fn wake(&self) {
        self.0.per_process.load().wake.notify_all();
    }
}

impl Drop for TokenCache {
    fn drop(&mut self) {
        let process = self.0.per_process.load_full();
        if process.generation != fork::generation() {
            process.free_in_child();
            return;
        }
        let mut state = process.lock();
        state.closed = true;
        let in_flight = state.refresher_in_flight;
        // A thread cannot wait for itself either: the logger, called by it, may free the cache.
        let thread =
            state.thread.take().filter(|thread| !in_flight && thread.thread().id() != std::thread::current().id());
        drop(state);
        process.wake.notify_all();
        // A thread that is sending a request ends after it: freeing must not block.
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl Inner {
    /// The cached token if it is fresh and valid for long enough, else the slow path.
    fn get_or_fetch(self: &Arc<Self>, min_validity: Duration, deadline: Deadline) -> Result<Arc<Token>> {
        let now = self.clock().now();
        match self.token.load().filter(|token| token.is_fresh(now) && token.is_usable(now, min_validity)) {
            Some(token) => {
                token.mark_used();
                self.stats.record_hit();
                Ok(token)
            }
            None => self.get_slow(min_validity, deadline),
        }
    }

    /// The slow path: there is no token, or it is not fresh.
    #[cold]
    fn get_slow(self: &Arc<Self>, min_validity: Duration, deadline: Deadline) -> Result<Arc<Token>> {
        let clock = self.clock();
        let mut tried = false;
        loop {
            let process = self.per_process();
            let now = clock.now();
            // During a refresh or a backoff, a usable token is returned without the lock. A token that a forked
            // child inherited is returned even if the child cannot request another.
            if let Some(token) = self.token.load().filter(|token| token.is_usable(now, min_validity))
                && process
                    .as_ref()
                    .map_or(true, |process| now.monotonic < process.skip_lock_until.load(Ordering::Acquire))
            {
                token.mark_used();
                return Ok(token);
            }
            let process = process?;
            let mut state = process.lock();
            let token = self.token.load();
            let backoff_until = state.backoff.as_ref().map_or(i64::MIN, |backoff| backoff.until);
            match (classify(token.as_deref(), backoff_until, now, min_validity), token) {
                (State::Fresh | State::Backoff, Some(token)) => {
                    token.mark_used();
                    return Ok(token);
                }
                (State::Due, Some(token)) => {
                    token.mark_used();
                    if state.flight.is_some() || self.delegate_to_refresher(&process, &mut state) {
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
                    match self.run_flight(&process, state, attempt) {
                        Outcome::Token(token) => return Ok(token),
                        _ if token.is_usable(clock.now(), min_validity) => return Ok(token),
                        // The old token has expired in the meantime: try again, until the deadline of the call.
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
                        Some(flight) => self.join_flight(&process, state, &flight, deadline)?,
                        None => {
                            let retries = self.options().retries;
                            let short_deadline = deadline.remaining(clock) < self.options().timeout / 2;
                            self.run_flight(
                                &process,
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
                            return Err(Error::new(Kind::Timeout, "every token had expired by the time it arrived")
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
        let Ok(process) = self.per_process() else { return };
        let now = self.clock().now();
        {
            let mut state = process.lock();
            let Some(current) = self.token.load().filter(|current| current.value() == token.value()) else { return };
            self.set_token(None);
            // One token that was used for a while and then revoked is no reason to back off. If new tokens are
            // rejected, every call would request another.
            state.consecutive_rejections =
                if current.was_just_issued(now) { state.consecutive_rejections.saturating_add(1) } else { 1 };
            // (The token of a flight that is in progress may be accepted.)
            if state.consecutive_rejections > 1 && state.flight.is_none() && !current.is_permanent() {
                let wait = backoff(self.clock(), state.consecutive_rejections - 1, BACKOFF_BASE * 2, BACKOFF_CAP);
                let until = now.after(wait.max(Duration::from_millis(1))).monotonic;
                if state.backoff.as_ref().is_none_or(|backoff| backoff.until < until) {
                    let error = Error::new(
                        Kind::CredentialsRejected,
                        format!(
                            "servers rejected {} tokens in a row right after they were issued",
                            state.consecutive_rejections
                        ),
                    )
                    .with_phase(Phase::Parse)
                    .with_retryable(true)
                    .with_hint("check that api_url and auth_url belong together, and the permissions of the API key");
                    state.backoff = Some(Backoff { until, error, advisory: false });
                }
            }
            process.last_invalidated.set(Some(current));
        }
        self.stats.invalidations.fetch_add(1, Ordering::Relaxed);
        self.options().log.info(|| format!("token {} was rejected by a server and is discarded", token.fingerprint()));
        process.forget(token);
    }
}
