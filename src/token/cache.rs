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

use crate::config::settings::{Config, Options};
use crate::error::{Error, Kind, Result, Stage};
use crate::net::transport::Transport;
use crate::oauth::retry::{Deadline, backoff};
use crate::sys::clock::{Clock, Timestamps};
use crate::sys::fork;
use crate::sys::sync::{Condvar, Mutex, MutexGuard, TokenCell};
use crate::sys::threads;
use crate::token::Token;
use crate::token::provider::{
    FetchRequest, ProviderConfig, REFRESH_TIMEOUT, TokenProvider, check_refreshed, min_validity_error,
};
use arc_swap::{ArcSwap, ArcSwapOption};
use std::cell::Cell;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

/// The limit of the first backoff after a failure; each further one is twice as long.
const BACKOFF_BASE: Duration = Duration::from_millis(500);

/// The longest backoff after a failure that the server did not ask for.
const BACKOFF_CAP: Duration = Duration::from_secs(60);

/// What the cached token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// There is none.
    Empty,
    /// It is handed out.
    Fresh,
    /// It is handed out, and somebody should renew it.
    Due,
    /// It is handed out; its renewal failed a short while ago and must wait.
    Backoff,
    /// It is not handed out.
    Expired,
}

/// Tells the state, from the token, the end of the backoff after the last failure (a monotonic
/// time; the past if there is none), the clocks, and how long the token must last.
pub fn classify(token: Option<&Token>, backoff_until: i64, now: Timestamps, min_validity: Duration) -> State {
    match token {
        None => State::Empty,
        Some(token) if !token.is_usable(now, min_validity) => State::Expired,
        Some(token) if token.is_fresh(now) => State::Fresh,
        Some(_) if now.monotonic < backoff_until => State::Backoff,
        Some(_) => State::Due,
    }
}

/// The current token of one set of credentials. Share it between threads by reference; dropping it
/// ends its thread, if it has one. Tokens outlive it.
pub struct TokenCache(Arc<Inner>);

struct Inner {
    slot: TokenCell,
    /// Changes whenever the token does. Others may watch it through a pointer.
    epoch: AtomicU64,
    shared: ArcSwap<PerProcess>,
    config: Arc<ProviderConfig>,
    stats: Stats,
}

/// What the slow path works with; one per process.
struct PerProcess {
    generation: u64,
    /// `None`: a forked child has freed it.
    source: ArcSwapOption<TokenProvider>,
    /// The last token that was invalidated: getting it again is no news. Changed under the lock of `state`.
    last_invalidated: TokenCell,
    state: Mutex<RefreshState>,
    /// A flight has flight_done.
    flight_done: Condvar,
    /// The background thread has something to do.
    wake: Condvar,
    /// Until this monotonic time, nobody with a usable token need look at `state`.
    skip_lock_until: AtomicI64,
}

/// What is going on; under the lock.
#[derive(Default)]
struct RefreshState {
    flight: Option<Arc<Flight>>,
    backoff: Option<Backoff>,
    /// Failed flights since the last success, but for those whose backoff was cut short.
    failures: u32,
    /// Invalidations in a row, of tokens that had hardly been used.
    consecutive_rejections: u32,
    thread: Option<JoinHandle<()>>,
    /// Whether the thread is in a flight, and must not be waited for.
    refresher_in_flight: bool,
    closed: bool,
}

/// After a failure.
struct Backoff {
    until: i64,
    error: Error,
    /// A short_deadline attempt failed: who has no token tries all the same.
    advisory: bool,
}

#[derive(Default)]
struct Flight(OnceLock<Outcome>);

/// How a flight ended.
#[derive(Clone)]
enum Outcome {
    Token(Arc<Token>),
    Failed(Error),
    /// The leader gave up for reasons of its own, which are no verdict on the service.
    Inconclusive(Error),
}

/// How a leader in_flight.
#[derive(Clone, Copy)]
struct RefreshAttempt {
    /// Whether nobody can go on without the result.
    required: bool,
    /// Whether the deadline is so near that missing it says nothing about the service.
    short_deadline: bool,
    deadline: Deadline,
    retries: u32,
    /// Whether it is the background thread.
    background: bool,
}

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

/// The names that [`TokenCache::statistic`] knows, and what they mean.
pub const STATISTICS: &[(&str, &str)] = &[
    ("hits", "calls that were answered with a fresh token, at once"),
    ("waits", "calls that waited for another thread's request"),
    ("refreshes", "tokens that were obtained"),
    ("failures", "attempts to obtain one that failed"),
    ("requests", "requests that were sent for tokens, repeated ones included"),
    ("invalidations", "tokens that were last_invalidated because a server refused them"),
    ("last_refresh_ms", "how long the last attempt took, in milliseconds; -1: there was none"),
    ("last_status", "the status of the last attempt; -1: there was none"),
    ("age", "seconds since the current token was asked for; -1: there is none"),
    ("expires_in", "seconds that the current token has left; -1: there is none"),
];

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

impl PerProcess {
    fn new(source: TokenProvider) -> Self {
        PerProcess {
            generation: fork::generation(),
            source: ArcSwapOption::from_pointee(source),
            last_invalidated: TokenCell::default(),
            state: Mutex::default(),
            flight_done: Condvar::new(),
            wake: Condvar::new(),
            skip_lock_until: AtomicI64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, RefreshState> {
        // A panic while the lock was held cannot have left the state half-changed: it is set field
        // by field to values that are each valid.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn source(&self) -> Result<Arc<TokenProvider>> {
        let freed = || Error::new(Kind::Internal, "a call that began before a fork goes on in the child");
        self.source.load_full().ok_or_else(freed)
    }

    /// Takes a token out of the store that others share.
    fn forget(&self, token: &Token) {
        if let Ok(source) = self.source() {
            source.remove_from_store(token);
        }
    }

    /// Frees what a forked child inherited, as far as that is safe. Another thread of the parent may have held
    /// the lock, and the handle of the parent's background thread must not be last_invalidated in the child: both are
    /// forgotten. What has secrets in it is not under the lock, and is freed; except what another thread was
    /// using at the moment of the fork, because that thread still counts as an owner.
    fn free_in_child(self: Arc<Self>) {
        self.source.store(None);
        self.last_invalidated.set(None);
        std::mem::forget(self);
    }
}

impl Inner {
    fn options(&self) -> &Options {
        &self.config.options
    }

    fn clock(&self) -> &Clock {
        &self.config.options.clock
    }

    /// When a call that begins now must be over.
    fn deadline(&self) -> Deadline {
        Deadline::after(self.clock(), self.options().timeout)
    }

    /// The shared part of this process: a new one after a fork.
    fn shared(&self) -> Result<Arc<PerProcess>> {
        let shared = self.shared.load_full();
        if shared.generation == fork::generation() {
            return Ok(shared);
        }
        let new = Arc::new(PerProcess::new(TokenProvider::new(self.config.clone())?));
        let previous = self.shared.compare_and_swap(&shared, new.clone());
        if !Arc::ptr_eq(&previous, &shared) {
            return Ok(previous.clone()); // another thread of the child was first
        }
        shared.free_in_child();
        let now = self.clock().now();
        let child = self.slot.load().filter(|token| !token.is_permanent() && token.is_usable(now, Duration::ZERO));
        if let Some(token) = child {
            self.set_token(Some(Arc::new(token.with_new_refresh_time(now, self.clock()))));
        }
        Ok(new)
    }

    fn set_token(&self, token: Option<Arc<Token>>) {
        self.slot.set(token);
        // After the token: who sees the new count finds the new token.
        self.epoch.fetch_add(1, Ordering::Release);
    }

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
                            .with_phase(Stage::Receive)
                            .with_hint("the server is too slow for the lifetime of its tokens; try again later"));
                        }
                        Outcome::Token(_) | Outcome::Inconclusive(_) => tried = true,
                    }
                }
            }
        }
    }

    /// Waits until the flight has flight_done, or the deadline is there.
    fn join_flight(
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
                    .with_phase(Stage::Receive)
                    .with_hint("the server is slow or silent; try again later, or raise timeout_ms"));
            }
            state = shared.flight_done.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Becomes the leader of a new flight and brings it to its end. It takes over the lock under
    /// which the decision to fly was made, so that nobody else can decide the same.
    fn run_flight(
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
    fn publish(
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
    fn backoff_until(&self, error: &Error, failures: &mut u32, current: Option<&Token>, now: Timestamps) -> i64 {
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
                    .with_phase(Stage::Reply)
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

impl PerProcess {
    /// Ends a flight: `outcome` for those who wait, `skip_lock_until` for those who need not.
    fn finish_flight(
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
struct FlightGuard<'a> {
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

impl Backoff {
    /// The failure, with the time that is left.
    fn error_with_remaining(&self, now: Timestamps) -> Error {
        let left = u64::try_from(self.until - now.monotonic).unwrap_or(0);
        self.error.clone().with_retry_after(Some(Duration::from_nanos(left)))
    }
}

/// The background thread.
impl Inner {
    /// Leaves a renewal to the background thread, if there is to be one.
    fn delegate_to_refresher(self: &Arc<Self>, shared: &Arc<PerProcess>, state: &mut RefreshState) -> bool {
        let wanted = self.options().background_refresh;
        let there = wanted && (state.thread.is_some() || self.spawn_refresher(shared, state));
        if there {
            shared.wake.notify_all();
        }
        there
    }

    fn spawn_refresher(self: &Arc<Self>, shared: &Arc<PerProcess>, state: &mut RefreshState) -> bool {
        let (inner, shared) = (Arc::downgrade(self), shared.clone());
        let body = move || Inner::refresh_loop(&inner, &shared);
        match threads::spawn("amp-token", body) {
            Ok(thread) => {
                state.thread = Some(thread);
                true
            }
            // Without a thread, callers renew by themselves.
            Err(_) => false,
        }
    }

    fn refresh_loop(inner: &Weak<Inner>, shared: &Arc<PerProcess>) {
        let mut state = shared.lock();
        loop {
            if state.closed {
                return;
            }
            let Some(inner) = inner.upgrade() else { return };
            let now = inner.clock().now();
            let paused = state.backoff.as_ref().map_or(i64::MIN, |backoff| backoff.until);
            let token = inner.slot.load();
            // How long there is nothing to do; `None`: until somebody asks again.
            let rest = match (classify(token.as_deref(), paused, now, Duration::ZERO), &token) {
                (State::Fresh, Some(token)) => Some(now.remaining_until(token.refresh_at())),
                (State::Backoff, Some(token)) if token.was_used() => {
                    Some(Duration::from_nanos(u64::try_from(paused - now.monotonic).unwrap_or(0)))
                }
                (State::Due, Some(token)) if token.was_used() && state.flight.is_none() => {
                    let left = now.remaining_until(token.usable_until(Duration::ZERO));
                    let deadline = Deadline::after(inner.clock(), left.min(inner.options().timeout));
                    inner.run_flight(
                        shared,
                        state,
                        RefreshAttempt {
                            required: false,
                            short_deadline: true,
                            deadline,
                            retries: 0,
                            background: true,
                        },
                    );
                    state = shared.lock();
                    continue;
                }
                _ => None,
            };
            drop(token);
            drop(inner); // the cache must be free to go while this thread rests
            state = match rest {
                Some(rest) => shared.wake.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0,
                None => shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

/// Figures. Hits are counted by the hot path, in stripes of their own cache line, so that threads
/// that count do not slow each other down.
struct Stats {
    hits: [StripedCounter; STRIPES],
    waits: AtomicU64,
    refreshes: AtomicU64,
    failures: AtomicU64,
    invalidations: AtomicU64,
    last_refresh_ms: AtomicI64,
    last_status: AtomicI64,
}

const STRIPES: usize = 16;

#[derive(Default)]
#[repr(align(64))]
struct StripedCounter(AtomicU64);

impl Default for Stats {
    fn default() -> Self {
        Stats {
            hits: Default::default(),
            waits: AtomicU64::new(0),
            refreshes: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            invalidations: AtomicU64::new(0),
            last_refresh_ms: AtomicI64::new(-1),
            last_status: AtomicI64::new(-1),
        }
    }
}

impl Stats {
    #[inline]
    fn record_hit(&self) {
        thread_local! {
            static STRIPE: Cell<usize> = const { Cell::new(usize::MAX) };
        }
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let stripe = STRIPE.with(|stripe| {
            if stripe.get() == usize::MAX {
                stripe.set(NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES);
            }
            stripe.get()
        });
        self.hits[stripe].0.fetch_add(1, Ordering::Relaxed);
    }

    fn hits(&self) -> i64 {
        let sum: u64 = self.hits.iter().map(|stripe| stripe.0.load(Ordering::Relaxed)).sum();
        i64::try_from(sum).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock::ManualClock;

    /// Every state, at every kind of moment.
    #[test]
    fn the_state_is_a_function_of_token_pause_and_clocks() {
        let clock = Clock::Manual(ManualClock::new(11));
        let start = clock.now();
        let token = Token::new(&"t".into(), start, Duration::from_secs(300), Duration::ZERO, &clock);
        let permanent = Token::permanent(&"p".into(), start);
        let at = |seconds: u64| start.after(Duration::from_secs(seconds));
        let slept = |seconds: u64| Timestamps { wall: at(seconds).wall, ..start };
        let set_back =
            |seconds: u64| Timestamps { monotonic: at(seconds).monotonic, wall: start.wall - 1_000_000_000_000 };
        let (none, zero) = (i64::MIN, Duration::ZERO);
        #[rustfmt::skip]
        let table = [
            // token            backoff until          now              must last              state
            (None,              none,                at(0),           zero,                    State::Empty),
            (None,              at(9).monotonic,     at(0),           zero,                    State::Empty),
            (Some(&token),      none,                at(0),           zero,                    State::Fresh),
            (Some(&token),      none,                at(220),         zero,                    State::Fresh),
            (Some(&token),      at(230).monotonic,   at(220),         zero,                    State::Fresh),
            (Some(&token),      none,                at(241),         zero,                    State::Due),
            (Some(&token),      at(245).monotonic,   at(241),         zero,                    State::Backoff),
            (Some(&token),      at(245).monotonic,   at(245),         zero,                    State::Due),
            (Some(&token),      none,                at(289),         zero,                    State::Due),
            (Some(&token),      none,                at(290),         zero,                    State::Expired),
            (Some(&token),      at(295).monotonic,   at(290),         zero,                    State::Expired),
            (Some(&token),      none,                at(9999),        zero,                    State::Expired),
            (Some(&token),      none,                slept(241),      zero,                    State::Due),
            (Some(&token),      none,                slept(290),      zero,                    State::Expired),
            (Some(&token),      none,                set_back(241),   zero,                    State::Due),
            (Some(&token),      none,                set_back(290),   zero,                    State::Expired),
            (Some(&token),      none,                at(100),         Duration::from_secs(199), State::Fresh),
            (Some(&token),      none,                at(100),         Duration::from_secs(200), State::Expired),
            (Some(&permanent),  none,                at(1 << 30),     Duration::from_secs(9),  State::Fresh),
        ];
        for (row, (token, backoff_until, now, min_validity, state)) in table.into_iter().enumerate() {
            assert_eq!(classify(token, backoff_until, now, min_validity), state, "row {row}");
        }
    }

    #[test]
    fn hits_are_counted_by_any_number_of_threads() {
        let stats = Stats::default();
        std::thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| (0..100).for_each(|_| stats.record_hit()));
            }
        });
        assert_eq!(stats.hits(), 4000);
    }
}
