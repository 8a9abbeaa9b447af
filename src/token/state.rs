//! The state of a cache, and the pure function that decides what to do with the cached token.

use super::Token;
use super::cell::TokenCell;
use super::provider::{ProviderConfig, TokenProvider};
use super::stats::Stats;
use crate::config::Options;
use crate::error::{Error, Kind, Result};
use crate::oauth::retry::Deadline;
use crate::sys::clock::{Clock, Timestamps};
use crate::sys::fork;
use crate::sys::sync::{Condvar, Mutex, MutexGuard};
use arc_swap::{ArcSwap, ArcSwapOption};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// What the cached token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
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
pub(super) fn classify(token: Option<&Token>, backoff_until: i64, now: Timestamps, min_validity: Duration) -> State {
    match token {
        None => State::Empty,
        Some(token) if !token.is_usable(now, min_validity) => State::Expired,
        Some(token) if token.is_fresh(now) => State::Fresh,
        Some(_) if now.monotonic < backoff_until => State::Backoff,
        Some(_) => State::Due,
    }
}

pub(super) struct Inner {
    pub(super) slot: TokenCell,
    /// Changes whenever the token does. Others may watch it through a pointer.
    pub(super) epoch: AtomicU64,
    pub(super) shared: ArcSwap<PerProcess>,
    pub(super) config: Arc<ProviderConfig>,
    pub(super) stats: Stats,
}

/// What the slow path works with; one per process.
pub(super) struct PerProcess {
    pub(super) generation: u64,
    /// `None`: a forked child has freed it.
    pub(super) source: ArcSwapOption<TokenProvider>,
    /// The last token that was invalidated: getting it again is no news. Changed under the lock of `state`.
    pub(super) last_invalidated: TokenCell,
    pub(super) state: Mutex<RefreshState>,
    /// A flight has flight_done.
    pub(super) flight_done: Condvar,
    /// The background thread has something to do.
    pub(super) wake: Condvar,
    /// Until this monotonic time, nobody with a usable token need look at `state`.
    pub(super) skip_lock_until: AtomicI64,
}

/// What is going on; under the lock.
#[derive(Default)]
pub(super) struct RefreshState {
    pub(super) flight: Option<Arc<Flight>>,
    pub(super) backoff: Option<Backoff>,
    /// Failed flights since the last success, but for those whose backoff was cut short.
    pub(super) failures: u32,
    /// Invalidations in a row, of tokens that had hardly been used.
    pub(super) consecutive_rejections: u32,
    pub(super) thread: Option<JoinHandle<()>>,
    /// Whether the thread is in a flight, and must not be waited for.
    pub(super) refresher_in_flight: bool,
    pub(super) closed: bool,
}

/// After a failure.
pub(super) struct Backoff {
    pub(super) until: i64,
    pub(super) error: Error,
    /// A short_deadline attempt failed: who has no token tries all the same.
    pub(super) advisory: bool,
}

#[derive(Default)]
pub(super) struct Flight(pub(super) OnceLock<Outcome>);

/// How a flight ended.
#[derive(Clone)]
pub(super) enum Outcome {
    Token(Arc<Token>),
    Failed(Error),
    /// The leader gave up for reasons of its own, which are no verdict on the service.
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

    /// The shared part of this process: a new one after a fork.
    pub(super) fn shared(&self) -> Result<Arc<PerProcess>> {
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

    pub(super) fn set_token(&self, token: Option<Arc<Token>>) {
        self.slot.set(token);
        // After the token: who sees the new count finds the new token.
        self.epoch.fetch_add(1, Ordering::Release);
    }
}

impl PerProcess {
    pub(super) fn new(source: TokenProvider) -> Self {
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

    pub(super) fn lock(&self) -> MutexGuard<'_, RefreshState> {
        // A panic while the lock was held cannot have left the state half-changed: it is set field
        // by field to values that are each valid.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn source(&self) -> Result<Arc<TokenProvider>> {
        let freed = || Error::new(Kind::Internal, "a call that began before a fork goes on in the child");
        self.source.load_full().ok_or_else(freed)
    }

    /// Takes a token out of the store that others share.
    pub(super) fn forget(&self, token: &Token) {
        if let Ok(source) = self.source() {
            source.remove_from_store(token);
        }
    }

    /// Frees what a forked child inherited, as far as that is safe. Another thread of the parent may have held
    /// the lock, and the handle of the parent's background thread must not be last_invalidated in the child: both are
    /// forgotten. What has secrets in it is not under the lock, and is freed; except what another thread was
    /// using at the moment of the fork, because that thread still counts as an owner.
    pub(super) fn free_in_child(self: Arc<Self>) {
        self.source.store(None);
        self.last_invalidated.set(None);
        std::mem::forget(self);
    }
}

impl Backoff {
    /// The failure, with the time that is left.
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
