//! The background thread of a cache.

use super::flight::RefreshAttempt;
use super::state::{Inner, PerProcess, RefreshState, State, classify};
use crate::oauth::retry::Deadline;
use crate::sys::threads;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

impl Inner {
    /// Leaves a renewal to the background thread, if there is to be one.
    pub(super) fn delegate_to_refresher(self: &Arc<Self>, shared: &Arc<PerProcess>, state: &mut RefreshState) -> bool {
        let wanted = self.options().background_refresh;
        let there = wanted && (state.thread.is_some() || self.spawn_refresher(shared, state));
        if there {
            shared.wake.notify_all();
        }
        there
    }

    pub(super) fn spawn_refresher(self: &Arc<Self>, shared: &Arc<PerProcess>, state: &mut RefreshState) -> bool {
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

    pub(super) fn refresh_loop(inner: &Weak<Inner>, shared: &Arc<PerProcess>) {
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
