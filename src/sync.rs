//! The locks of the [cache](crate::cache), and the cell that holds its token.
//!
//! Under `--cfg amp_model` they come from a model checker, which runs the very same cache code
//! through thousands of interleavings.

use crate::token::Token;
use std::sync::Arc;

#[cfg(amp_model)]
pub use shuttle::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(amp_model))]
pub use std::sync::{Condvar, Mutex, MutexGuard};

/// The current token: swapped whole, read without a lock and without a write to shared memory.
#[derive(Default)]
pub struct Slot(#[cfg(not(amp_model))] arc_swap::ArcSwapOption<Token>, #[cfg(amp_model)] Mutex<Option<Arc<Token>>>);

#[cfg(not(amp_model))]
impl Slot {
    /// Runs `look` on the token without counting a reference to it.
    #[inline]
    pub fn with<R>(&self, look: impl FnOnce(Option<&Arc<Token>>) -> R) -> R {
        look(self.0.load().as_ref())
    }

    /// A counted reference to the token.
    pub fn load(&self) -> Option<Arc<Token>> {
        self.0.load_full()
    }

    /// Replaces the token.
    pub fn set(&self, token: Option<Arc<Token>>) {
        self.0.store(token);
    }
}

#[cfg(amp_model)]
impl Slot {
    /// Runs `look` on the token.
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
