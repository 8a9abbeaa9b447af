//! The background thread of a cache, which refreshes the token when it is due.
//!
//! It only refreshes a token that was used since it was fetched, so that an idle program sends no requests.

use super::state::{Inner, PerProcess, RefreshState, State, classify};
use crate::sys::panics;
use crate::sys::threads;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

impl Inner {
    /// Leaves the refresh to the background thread, if `background_refresh` is set and a thread can be started.
    pub(super) fn delegate_to_refresher(self: &Arc<Self>, process: &Arc<PerProcess>, state: &mut RefreshState) -> bool {
        let wanted = self.options().background_refresh;
        let running = wanted && (state.thread.is_some() || self.spawn_refresher(process, state));
        if running {
            process.wake.notify_all();
        }
        running
    }

    pub(super) fn spawn_refresher(self: &Arc<Self>, process: &Arc<PerProcess>, state: &mut RefreshState) -> bool {
        let (inner, process) = (Arc::downgrade(self), process.clone());
        let body = move || Inner::refresh_loop(&inner, &process);
        match threads::spawn("amp-token", body) {
            Ok(thread) => {
                state.thread = Some(thread);
                true
            }
            // Without the thread, callers refresh the token.
            Err(_) => false,
        }
    }

    pub(super) fn refresh_loop(inner: &Weak<Inner>, process: &Arc<PerProcess>) {
        let _inside = panics::enter();
        let mut state = process.lock();
        loop {
            if state.closed {
                return;
            }
            let Some(inner) = inner.upgrade() else { return };
            let now = inner.clock().now();
            let backoff_until = process.pauses.load().refresh_at();
            let token = inner.token.load();
            // How long there is nothing to do; `None` until the next call.
            let idle = match (classify(token.as_deref(), backoff_until, now, Duration::ZERO), &token) {
                (State::Fresh, Some(token)) => Some(now.remaining_until(token.refresh_at())),
                (State::Backoff, Some(token)) if token.was_used() => {
                    Some(Duration::from_nanos(u64::try_from(backoff_until - now.monotonic).unwrap_or(0)))
                }
                (State::Due, Some(token)) if token.was_used() && state.flight.is_none() => {
                    inner.run_flight(process, state, inner.refresh_attempt());
                    inner.options().log.deliver();
                    state = process.lock();
                    continue;
                }
                _ => None,
            };
            drop(token);
            drop(inner); // while this thread waits, it must not keep the cache alive
            state.refresher_is_idle = true;
            state = match idle {
                Some(idle) => process.wake.wait_timeout(state, idle).unwrap_or_else(PoisonError::into_inner).0,
                None => process.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
            state.refresher_is_idle = false;
        }
    }
}
