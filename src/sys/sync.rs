//! The locks of the [cache](crate::token::cache), and the cell that holds its token.
//!
//! Under `--cfg shuttle` they come from a model checker, which runs the very same cache code
//! through thousands of interleavings. Under `--cfg amp_watched` they tell helgrind what they put in
//! order.

use crate::token::Token;
use std::sync::Arc;

#[cfg(amp_watched)]
mod watched;

#[cfg(shuttle)]
pub use shuttle::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(any(shuttle, amp_watched)))]
pub use std::sync::{Condvar, Mutex, MutexGuard};
#[cfg(amp_watched)]
pub use watched::{Condvar, Mutex, MutexGuard};

/// The current token: swapped whole, read without a lock and without a write to shared memory.
#[derive(Default)]
pub struct TokenCell(#[cfg(not(shuttle))] arc_swap::ArcSwapOption<Token>, #[cfg(shuttle)] Mutex<Option<Arc<Token>>>);

#[cfg(not(shuttle))]
impl TokenCell {
    /// Runs `as_ref` on the token without counting a reference to it.
    #[inline]
    pub fn with<R>(&self, look: impl FnOnce(Option<&Arc<Token>>) -> R) -> R {
        let token = self.0.load();
        #[cfg(amp_watched)]
        watched::after(self);
        look(token.as_ref())
    }

    /// A counted reference to the token.
    pub fn load(&self) -> Option<Arc<Token>> {
        let token = self.0.load_full();
        #[cfg(amp_watched)]
        watched::after(self);
        token
    }

    /// Replaces the token.
    pub fn set(&self, token: Option<Arc<Token>>) {
        #[cfg(amp_watched)]
        watched::before(self);
        self.0.store(token);
    }
}

#[cfg(shuttle)]
impl TokenCell {
    /// Runs `as_ref` on the token.
    pub fn with<R>(&self, look: impl FnOnce(Option<&Arc<Token>>) -> R) -> R {
        look(self.load().as_ref())
    }

    /// A counted reference to the token.
    pub fn load(&self) -> Option<Arc<Token>> {
        self.0.lock().unwrap().clone()
    }

    /// Replaces the token.
    pub fn set(&self, token: Option<Arc<Token>>) {
        *self.0.lock().unwrap() = token;
    }
}
