//! The state of a cache, and the pure function that decides what to do with the cached token.

use super::Token;
use super::cell::TokenCell;
use super::provider::{ProviderConfig, TokenProvider};
use super::rejection::Rejections;
use super::stats::Stats;
use crate::config::Options;
use crate::error::{Error, Kind, Result};
use crate::oauth::retry::Deadline;
use crate::sys::clock::{Clock, Timestamps};
use crate::sys::fork;
use crate::sys::sync::{Condvar, JoinHandle, Mutex, MutexGuard, ThreadId};
use arc_swap::{ArcSwap, ArcSwapOption};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

/// The state of the cached token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// There is no token.
    Empty,
    /// The token is returned.
    Fresh,
    /// The token is returned, and is due for refresh.
    Due,
    /// The token is returned and due for refresh, but refreshing it failed and is not retried yet.
    Backoff,
    /// The token is not returned.
    Expired,
}

/// The state for a token, the end of the backoff after the last failure (a monotonic time; in the past if there
/// is no backoff), the clocks, and how long the token must still be valid.
pub(super) fn classify(token: Option<&Token>, backoff_until: i64, now: Timestamps, min_validity: Duration) -> State {
    match token {
        None => State::Empty,
        Some(token) if !token.is_usable(now, min_validity) => State::Expired,
        Some(token) if token.is_fresh(now) => State::Fresh,
        Some(_) if now.monotonic < backoff_until => State::Backoff,
        Some(_) => State::Due,
    }
}

/// What a cache consists of. The background thread has a weak reference to it.
pub(super) struct Inner {
    pub(super) token: TokenCell,
    /// Changes whenever the token does. The application may read it through a pointer.
    pub(super) epoch: AtomicU64,
    pub(super) per_process: ArcSwap<PerProcess>,
    pub(super) config: Arc<ProviderConfig>,
    pub(super) stats: Stats,
}

/// The state that a forked child cannot share with its parent.
pub(super) struct PerProcess {
    pub(super) generation: u64,
    /// `None` if a forked child has freed it.
    pub(super) provider: ArcSwapOption<TokenProvider>,
    /// The token that was rejected last; receiving it again is an error. Changed under the lock of `state`.
    pub(super) last_rejected: TokenCell,
    /// When which attempt may follow. Changed under the lock of `state`; read without it by a forked child, which
    /// inherits it.
    pub(super) pauses: ArcSwap<Pauses>,
    pub(super) state: Mutex<RefreshState>,
    /// Signals that a flight has ended.
    pub(super) flight_done: Condvar,
    /// Signals that the background thread has something to do.
    pub(super) wake: Condvar,
    /// Until this monotonic time, a caller with a usable token need not lock `state`.
    pub(super) skip_lock_until: AtomicI64,
    /// Whether a thread reported the current token as rejected and has not got another one yet.
    pub(super) has_rejecters: AtomicBool,
}

/// What is in progress; under the lock.
#[derive(Default)]
pub(super) struct RefreshState {
    pub(super) flight: Option<Arc<Flight>>,
    /// The threads that reported the current token as rejected: they need another one, all others do not.
    pub(super) rejecters: Vec<ThreadId>,
    pub(super) thread: Option<JoinHandle<()>>,
    /// Whether the background thread waits for something to do. Only then does closing the cache wait for it,
    /// because at any other time it may be in a request or in code of the application.
    pub(super) refresher_is_idle: bool,
    pub(super) closed: bool,
}

/// The pause that follows each outcome, on the monotonic clock. An attempt that had none could be repeated in a loop.
#[derive(Clone, Default)]
pub(super) struct Pauses {
    /// After a failure.
    pub(super) backoff: Option<Backoff>,
    /// Failed flights since the last success, except those whose backoff was shortened.
    pub(super) failures: u32,
    /// Another process refreshes the token: until then, nobody here tries to.
    pub(super) deferred_until: i64,
    /// Tokens arrived too late for the `min_validity` of a call.
    pub(super) too_short: Option<Backoff>,
    /// How often that happened since such a call succeeded.
    pub(super) too_short_count: u32,
    pub(super) rejections: Rejections,
}

/// The time after a failure in which no token is requested.
#[derive(Clone)]
pub(super) struct Backoff {
    pub(super) until: i64,
    pub(super) error: Error,
    /// Whether the attempt proved no failure of the service. Then a caller without a token tries all the same.
    pub(super) advisory: bool,
}

/// One attempt to get a token, and its outcome when it has ended.
#[derive(Default)]
pub(super) struct Flight(pub(super) OnceLock<Outcome>);

/// How a flight ended.
#[derive(Clone)]
pub(super) enum Outcome {
    Token(Arc<Token>),
    Failed(Error),
    /// The leader stopped for its own reasons, which prove no failure of the service.
    Inconclusive(Error),
}

impl Inner {
    pub(super) fn options(&self) -> &Options {
        &self.config.options
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.config.options.clock
    }

    /// When a call that begins now must be over.
    pub(super) fn deadline(&self) -> Deadline {
        Deadline::after(self.clock(), self.options().timeout)
    }

    /// The state of this process; after a fork it is created again.
    pub(super) fn per_process(&self) -> Result<Arc<PerProcess>> {
        let process = self.per_process.load_full();
        if process.generation == fork::generation() {
            return Ok(process);
        }
        let provider = match process.provider.load_full() {
            Some(parent) => TokenProvider::for_child(&parent),
            // Another thread of the child, or of its parent, has freed it.
            None => TokenProvider::new(self.config.clone())?,
        };
        let new = Arc::new(PerProcess::new(provider));
        // A child that forgot the pauses of its parent would send a request that the server asked not to get.
        new.pauses.store(process.pauses.load_full());
        if let Some(asked) = new.provider()?.asked() {
            new.change_pauses(|pauses| {
                if pauses.backoff.as_ref().is_none_or(|backoff| backoff.until < asked.0) {
                    pauses.backoff = Some(Backoff { until: asked.0, error: asked.1.clone(), advisory: false });
                }
            });
        }
        let previous = self.per_process.compare_and_swap(&process, new.clone());
        if !Arc::ptr_eq(&previous, &process) {
            return Ok(previous.clone()); // another thread of the child was faster
        }
        process.free_in_child();
        let now = self.clock().now();
        let child = self.token.load().filter(|token| !token.is_permanent() && token.is_usable(now, Duration::ZERO));
        if let Some(token) = child {
            let min_validity = self.options().min_validity;
            self.set_token(Some(Arc::new(token.with_new_refresh_time(now, min_validity, self.clock()))));
        }
        Ok(new)
    }

    /// Replaces the token.
    pub(super) fn set_token(&self, token: Option<Arc<Token>>) {
        self.token.set(token);
        // After the token, so that a reader of the new value also finds the new token.
        self.epoch.fetch_add(1, Ordering::Release);
    }
}

impl PerProcess {
    pub(super) fn new(provider: TokenProvider) -> Self {
        PerProcess {
            generation: fork::generation(),
            provider: ArcSwapOption::from_pointee(provider),
            last_rejected: TokenCell::default(),
            pauses: ArcSwap::default(),
            state: Mutex::default(),
            flight_done: Condvar::new(),
            wake: Condvar::new(),
            skip_lock_until: AtomicI64::new(0),
            has_rejecters: AtomicBool::new(false),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, RefreshState> {
        // A panic under the lock cannot leave an invalid state, because each field is set to a valid value on its
        // own.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the pauses; under the lock of `state`.
    pub(super) fn change_pauses(&self, change: impl FnOnce(&mut Pauses)) {
        let mut pauses = Pauses::clone(&self.pauses.load());
        change(&mut pauses);
        self.pauses.store(Arc::new(pauses));
    }

    pub(super) fn provider(&self) -> Result<Arc<TokenProvider>> {
        let freed = || Error::new(Kind::Internal, "a call that began before a fork continues in the child process");
        self.provider.load_full().ok_or_else(freed)
    }

    /// Removes a token from the store.
    pub(super) fn forget(&self, token: &Token) {
        if let Ok(provider) = self.provider() {
            provider.remove_from_store(token);
        }
    }

    /// Frees what a forked child inherited, as far as that is safe. Another thread of the parent may have held
    /// the lock, and the handle of the parent's background thread must not be dropped in the child: both are
    /// leaked. Objects with secrets are not under the lock and are freed, except those that another thread was
    /// using at the time of the fork, because the reference of that thread remains.
    pub(super) fn free_in_child(self: Arc<Self>) {
        self.provider.store(None);
        self.last_rejected.set(None);
        std::mem::forget(self);
    }
}

impl Pauses {
    /// Until when a token that is due is not refreshed.
    pub(super) fn refresh_at(&self) -> i64 {
        self.backoff.as_ref().map_or(i64::MIN, |backoff| backoff.until).max(self.deferred_until)
    }
}

impl Backoff {
    /// The failure, if the pause is not over and applies to callers without a token, too.
    pub(super) fn error(this: Option<&Backoff>, now: Timestamps) -> Option<Error> {
        let active = this.filter(|backoff| !backoff.advisory && now.monotonic < backoff.until)?;
        Some(active.error_with_remaining(now))
    }

    /// The failure, with the remaining time of the backoff.
    pub(super) fn error_with_remaining(&self, now: Timestamps) -> Error {
        let left = u64::try_from(self.until - now.monotonic).unwrap_or(0);
        self.error.clone().with_retry_after(Some(Duration::from_nanos(left)))
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
}
