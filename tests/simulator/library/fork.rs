//! What the simulator does to a cache that no program can do.

use super::TokenCache;
use crate::sys::simulation::{ProcessId, planted};
use crate::sys::sync::{Condvar, Mutex};
use crate::token::Token;
use crate::token::cell::TokenCell;
use crate::token::state::{Inner, Pauses, PerProcess, RefreshState};
use crate::token::stats::Stats;
use arc_swap::{ArcSwap, ArcSwapOption};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

impl TokenCache {
    /// The cache as the forked `child` finds it in its memory. Threads of the parent may be anywhere in it, and do not exist
    /// in the child: a lock that one of them holds stays locked, and a flight that one of them leads never ends.
    pub fn forked(&self, child: ProcessId) -> TokenCache {
        let inner = &self.0;
        let token = TokenCell::default();
        token.set(inner.token.load().map(|token| Arc::new(token.with_refresh_at(token.refresh_at()))));
        let process = inner.per_process.load_full();
        let last_rejected = TokenCell::default();
        last_rejected.set(process.last_rejected.load());
        let mut state = RefreshState::default();
        let locked = match process.state.try_lock() {
            Some(inherited) => {
                state.flight = inherited.flight.clone();
                state.rejecters.clone_from(&inherited.rejecters);
                state.closed = inherited.closed;
                false
            }
            None => true,
        };
        let state = Mutex::new(state);
        if locked {
            std::mem::forget(state.try_lock());
        }
        let (mut pauses, mut provider) = (process.pauses.load_full(), process.provider.load_full());
        if planted("forgetful-child") {
            (pauses, provider) = (Arc::new(Pauses::default()), None);
        }
        let generation = if planted("fork-not-noticed") { child } else { process.generation };
        let copy = PerProcess {
            generation,
            provider: ArcSwapOption::new(provider),
            last_rejected,
            pauses: ArcSwap::new(pauses),
            state,
            flight_done: Condvar::new(),
            wake: Condvar::new(),
            skip_lock_until: AtomicI64::new(process.skip_lock_until.load(Ordering::SeqCst)),
            has_rejecters: AtomicBool::new(process.has_rejecters.load(Ordering::SeqCst)),
        };
        TokenCache(Arc::new(Inner {
            token,
            epoch: AtomicU64::new(inner.epoch.load(Ordering::SeqCst)),
            per_process: ArcSwap::from_pointee(copy),
            config: inner.config.clone(),
            stats: Stats::default(),
        }))
    }

    /// The current token, whatever its state.
    pub fn peek(&self) -> Option<Arc<Token>> {
        self.0.token.load()
    }

    /// Forgets the token, as a cache that discards a rejected token at once would; for a planted fault.
    pub fn discard_token(&self) {
        self.0.set_token(None);
    }

    /// Forgets all pauses, as a cache without a backoff would; for a planted fault.
    pub fn discard_pauses(&self) {
        if let Ok(process) = self.0.per_process() {
            process.pauses.store(Arc::new(Pauses::default()));
        }
    }
}
