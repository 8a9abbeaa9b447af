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
//! - **A [rejection](super::rejection)** by a server makes only the caller that reports it get another token.
//! - **Log lines and events** are delivered at the end of the slow path, after the flight. A call from within a
//!   callback of the same configuration never waits: it returns the cached token, or fails at once.
//! - **A forked child** finds that the [generation](crate::sys::fork) has changed and creates a new [`PerProcess`]
//!   (lock, transport, flight) from the configuration. It keeps the token.

use super::Token;
use super::cell::TokenCell;
use super::flight::{BACKOFF_BASE, BACKOFF_CAP, RefreshAttempt, SHORTEST_PAUSE};
use super::provider::{ProviderConfig, REFRESH_TIMEOUT, TokenProvider, min_validity_error};
use super::rejection::is_about_token;
use super::state::{Backoff, Inner, Outcome, PerProcess, RefreshState, State, classify};
use super::stats::Stats;
use crate::config::{Config, Options};
use crate::error::{Error, Kind, Phase, Result, resource_limit};
use crate::net::transport::Transport;
use crate::oauth::retry::{Deadline, backoff};
use crate::sys::fork;
use crate::sys::panics;
use crate::sys::sync::{MutexGuard, current_thread};
use arc_swap::ArcSwap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use super::stats::STATISTICS;

#[cfg(simulator)]
#[path = "../../tests/simulator/library/fork.rs"]
mod simulated;

/// A cache for the token of one set of credentials. Threads share it by reference. Dropping it ends its
/// background thread, if it has one. Tokens that it returned stay valid.
pub struct TokenCache(Arc<Inner>);

impl TokenCache {
    /// Finds the credentials and creates a cache; sends nothing.
    pub fn new(config: &Config) -> Result<Self> {
        fork::install_fork_hook();
        let config = Arc::new(ProviderConfig::new(config)?);
        let log = config.options.log.clone();
        let _deliver = log.deliver_at_end();
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

    /// A valid token if one is cached, without waiting. Otherwise fails at once, with [`Kind::Pending`] while one is
    /// being requested by a thread of the library, or with the failure of the last attempt during the pause after it.
    pub fn try_get(&self) -> Result<Arc<Token>> {
        let inner = &self.0;
        let Some(token) = inner.fresh_token(inner.options().min_validity) else { return inner.try_get_slow() };
        // A program that only calls this function gets here what a thread of the library has left.
        inner.options().log.deliver();
        Ok(token)
    }

    /// Reports a response to a request that carried `token`. True if the server rejected the token and there is
    /// another one now, with which the request may be sent again. Blocks until `timeout_ms` while that token is
    /// requested. Others keep the rejected token until it is replaced; see [`super::rejection`].
    pub fn report(&self, token: &Token, status: u16, body: &[u8]) -> bool {
        is_about_token(status, body) && self.replace(token, self.0.deadline()).is_some()
    }

    /// The provider of this process; for tests that replace its store.
    #[cfg(test)]
    pub(super) fn provider(&self) -> Result<Arc<TokenProvider>> {
        self.0.per_process()?.provider()
    }

    /// Another token than `rejected`, which a server rejected, if there may be one before the deadline.
    pub fn replace(&self, rejected: &Token, deadline: Deadline) -> Option<Arc<Token>> {
        let _inside = panics::enter();
        let _deliver = self.0.options().log.deliver_at_end();
        self.0.replace_rejected(rejected, deadline)
    }

    /// Reports that a server rejected `token`. If it is the current token, the next call of this thread gets another
    /// one. Others keep it until it is replaced. Replacements are paced, and a backoff after a failure stays in
    /// force; until they are over, the token stays in use.
    pub fn invalidate(&self, token: &Token) {
        let _inside = panics::enter();
        let _deliver = self.0.options().log.deliver_at_end();
        self.0.mark_rejected(token);
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
        // At any other time the thread may be in a request, or in a callback that waits for the caller.
        let is_idle = state.refresher_is_idle;
        let thread = state.thread.take().filter(|_| is_idle);
        drop(state);
        process.wake.notify_all();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl Inner {
    /// The cached token if it is fresh and valid for long enough, else the slow path.
    fn get_or_fetch(self: &Arc<Self>, min_validity: Duration, deadline: Deadline) -> Result<Arc<Token>> {
        match self.fresh_token(min_validity) {
            Some(token) => Ok(token),
            None => self.get_slow(min_validity, deadline),
        }
    }

    /// The cached token if it is fresh and valid for long enough.
    fn fresh_token(&self, min_validity: Duration) -> Option<Arc<Token>> {
        let now = self.clock().now();
        let token = self.token.load().filter(|token| token.is_fresh(now) && token.is_usable(now, min_validity))?;
        token.mark_used();
        self.stats.record_hit();
        Some(token)
    }

    /// The slow path: there is no token, or it is not fresh.
    #[cold]
    fn get_slow(self: &Arc<Self>, min_validity: Duration, deadline: Deadline) -> Result<Arc<Token>> {
        let _inside = panics::enter();
        let _deliver = self.options().log.deliver_at_end();
        let clock = self.clock();
        let in_callback = self.options().scope.is_entered();
        let mut tried = false;
        loop {
            let process = self.per_process();
            let now = clock.now();
            // During a refresh or a backoff, a usable token is returned without the lock. A token that a forked
            // child inherited is returned even if the child cannot request another.
            if let Some(token) = self.token.load().filter(|token| token.is_usable(now, min_validity))
                && process.as_ref().map_or(true, |process| {
                    now.monotonic < process.skip_lock_until.load(Ordering::Acquire)
                        && !process.has_rejecters.load(Ordering::Acquire)
                })
            {
                token.mark_used();
                return Ok(token);
            }
            let process = process?;
            let state = process.lock();
            let token = self.token.load();
            let pauses = process.pauses.load_full();
            let is_rejecter = !state.rejecters.is_empty() && state.rejecters.contains(&current_thread());
            let step = match (classify(token.as_deref(), pauses.refresh_at(), now, min_validity), &token) {
                (State::Fresh | State::Backoff, Some(token)) if !is_rejecter => {
                    token.mark_used();
                    return Ok(token.clone());
                }
                (State::Due, Some(token)) if !is_rejecter || in_callback => {
                    token.mark_used();
                    if in_callback {
                        return Ok(token.clone());
                    }
                    self.refresh_due(&process, state, token, min_validity, deadline)
                }
                _ => self.fetch_required(&process, state, token.as_deref(), min_validity, deadline, is_rejecter)?,
            };
            match step {
                Step::Return(token) => {
                    token.mark_used();
                    return Ok(token);
                }
                Step::Retry(error) if tried || deadline.remaining(clock).is_zero() => {
                    return Err(error);
                }
                Step::Retry(_) => tried = true,
                Step::Reconsider => {}
            }
        }
    }

    /// Refreshes a token that is due but still usable: one caller at a time, and for a limited time.
    fn refresh_due(
        self: &Arc<Self>,
        process: &Arc<PerProcess>,
        mut state: MutexGuard<'_, RefreshState>,
        token: &Arc<Token>,
        min_validity: Duration,
        deadline: Deadline,
    ) -> Step {
        let clock = self.clock();
        if state.flight.is_some() || self.delegate_to_refresher(process, &mut state) {
            return Step::Return(token.clone());
        }
        let left = clock.now().remaining_until(token.usable_until(min_validity));
        let budget = Deadline::after(clock, REFRESH_TIMEOUT.min(left)).min(deadline);
        let here = RefreshAttempt { required: false, short_deadline: true, deadline: budget, retries: 0, min_validity };
        if self.config.has_own_transport() {
            self.run_flight(process, state, here);
        } else {
            let flight = self.start_flight(process, state, self.refresh_attempt(), |flight, _| {
                self.complete_flight(process, flight, here);
            });
            // The flight goes on if it takes longer.
            let _ = self.join_flight(process, process.lock(), &flight, budget);
        }
        let now = clock.now();
        let newest = self.token.load().filter(|token| token.is_usable(now, min_validity));
        let usable = newest.or_else(|| token.is_usable(now, min_validity).then(|| token.clone()));
        usable.map_or(Step::Reconsider, Step::Return)
    }

    /// The attempt of a caller that cannot continue without a new token.
    pub(super) fn required_attempt(&self, deadline: Deadline, min_validity: Duration) -> RefreshAttempt {
        let Options { retries, timeout, .. } = *self.options();
        let short_deadline = deadline.remaining(self.clock()) < timeout / 2;
        RefreshAttempt { required: true, short_deadline, deadline, retries, min_validity }
    }

    /// The attempt to refresh a token that is still usable, by a thread of the library, which has its own time.
    pub(super) fn refresh_attempt(&self) -> RefreshAttempt {
        let (deadline, min_validity) = (self.deadline(), self.options().min_validity);
        RefreshAttempt { required: false, short_deadline: false, deadline, retries: 0, min_validity }
    }

    /// Gets a token for a caller that has none that it can use: joins the flight in progress, or leads one.
    fn fetch_required(
        self: &Arc<Self>,
        process: &Arc<PerProcess>,
        state: MutexGuard<'_, RefreshState>,
        token: Option<&Token>,
        min_validity: Duration,
        deadline: Deadline,
        is_rejecter: bool,
    ) -> Result<Step> {
        let clock = self.clock();
        let now = clock.now();
        if let Some(token) = token.filter(|token| !token.can_last(min_validity)) {
            return Err(min_validity_error(token, min_validity));
        }
        let pauses = process.pauses.load();
        if let Some(error) = Backoff::error(pauses.backoff.as_ref(), now) {
            return Err(error);
        }
        let others_can_use_it = token.is_some_and(|token| token.is_usable(now, self.options().min_validity));
        if others_can_use_it
            && !is_rejecter
            && let Some(error) = Backoff::error(pauses.too_short.as_ref(), now)
        {
            return Err(error);
        }
        if self.options().scope.is_entered() {
            return Err(Error::invalid("cannot wait for a token in a callback: no token is cached")
                .with_hint("return from the callback first; a callback of a cache gets only a token that is cached"));
        }
        let (outcome, led) = match state.flight.clone() {
            Some(flight) => (self.join_flight(process, state, &flight, deadline)?, false),
            None => (self.run_flight(process, state, self.required_attempt(deadline, min_validity)), true),
        };
        Ok(match outcome {
            Outcome::Token(token) if token.is_usable(clock.now(), min_validity) => {
                if min_validity > self.options().min_validity && pauses.too_short_count > 0 {
                    let _state = process.lock();
                    process.change_pauses(|pauses| (pauses.too_short, pauses.too_short_count) = (None, 0));
                }
                Step::Return(token)
            }
            Outcome::Token(token) if !token.can_last(min_validity) => {
                return Err(min_validity_error(&token, min_validity));
            }
            Outcome::Token(token) if !token.is_usable(clock.now(), self.options().min_validity) => Step::Retry(
                Error::new(Kind::Timeout, "every token had expired by the time it arrived")
                    .with_phase(Phase::AwaitResponse)
                    .with_hint("the server is too slow for the lifetime of its tokens; try again later"),
            ),
            Outcome::Token(token) => {
                let error = self.too_short_error(process, &token, min_validity);
                // Another caller's token may have been good enough for that caller.
                if led { return Err(error) } else { Step::Retry(error) }
            }
            Outcome::Failed(error) => return Err(error),
            Outcome::Inconclusive(error) => Step::Retry(error),
        })
    }

    /// A token arrived too late for the `min_validity` of a call. Callers that need as much pause now, because the
    /// next token would probably arrive as late; others use the token.
    fn too_short_error(&self, process: &PerProcess, token: &Token, min_validity: Duration) -> Error {
        let now = self.clock().now();
        let left = now.remaining_until(token.usable_until(Duration::ZERO));
        let error = Error::new(
            Kind::Timeout,
            format!(
                "a new token is valid for {:.1} s, and the call needs {:.1} s",
                left.as_secs_f64(),
                min_validity.as_secs_f64()
            ),
        )
        .with_phase(Phase::AwaitResponse)
        .with_hint("the server is slow, or min_validity is close to the lifetime of its tokens; try again later");
        let _state = process.lock();
        let count = process.pauses.load().too_short_count.saturating_add(1);
        let wait = backoff(self.clock(), count, BACKOFF_BASE, BACKOFF_CAP).max(SHORTEST_PAUSE);
        let error = error.with_retry_after(Some(wait));
        let until = now.after(wait).monotonic;
        process.change_pauses(|pauses| {
            pauses.too_short = Some(Backoff { until, error: error.clone(), advisory: false });
            pauses.too_short_count = count;
        });
        error
    }

    /// [`TokenCache::try_get`] if the token is not fresh.
    #[cold]
    fn try_get_slow(self: &Arc<Self>) -> Result<Arc<Token>> {
        let _inside = panics::enter();
        let _deliver = self.options().log.deliver_at_end();
        let process = self.per_process()?;
        let now = self.clock().now();
        let min_validity = self.options().min_validity;
        let mut state = process.lock();
        let token = self.token.load().filter(|token| token.is_usable(now, min_validity));
        let pauses = process.pauses.load();
        let is_idle = state.flight.is_none();
        match token {
            Some(token) if !state.rejecters.contains(&current_thread()) => {
                token.mark_used();
                let is_due = !token.is_fresh(now) && pauses.refresh_at() <= now.monotonic;
                if is_due && is_idle && !self.delegate_to_refresher(&process, &mut state) {
                    self.start_flight(&process, state, self.refresh_attempt(), |flight, error| {
                        self.abandon_flight(&process, flight, no_thread_error(&error));
                    });
                }
                Ok(token)
            }
            _ => {
                if let Some(error) = Backoff::error(pauses.backoff.as_ref(), now) {
                    return Err(error);
                }
                if is_idle {
                    let attempt = self.required_attempt(self.deadline(), min_validity);
                    let flight = self.start_flight(&process, state, attempt, |flight, error| {
                        self.abandon_flight(&process, flight, no_thread_error(&error));
                    });
                    if let Some(Outcome::Inconclusive(error)) = flight.0.get() {
                        return Err(error.clone());
                    }
                }
                Err(Error::new(Kind::Pending, "no token is available yet; one is being requested")
                    .with_retry_after(Some(POLL_INTERVAL))
                    .with_hint("call again soon"))
            }
        }
    }
}

/// What [`Kind::Pending`] says as the time after which the caller may ask again.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The error of a call that must not wait, if no thread can be started that would.
fn no_thread_error(error: &io::Error) -> Error {
    let hint = resource_limit(error).map_or("raise the limits of threads and memory", |(_, hint)| hint);
    Error::new(Kind::Io, format!("cannot start a thread that requests a token: {error}"))
        .with_retryable(true)
        .with_retry_after(Some(BACKOFF_BASE))
        .with_hint(hint)
}

/// What a caller in the slow path does next.
enum Step {
    Return(Arc<Token>),
    /// Try once more; the error counts if that fails, too.
    Retry(Error),
    /// Decide anew: the token has expired in the meantime.
    Reconsider,
}
