//! The cell that holds the current token.

use super::Token;
#[cfg(shuttle)]
use crate::sys::sync::Mutex;
use std::sync::Arc;

/// The current token. It is replaced as a whole, and read without a lock and without a write to shared memory.
#[derive(Default)]
pub struct TokenCell(#[cfg(not(shuttle))] arc_swap::ArcSwapOption<Token>, #[cfg(shuttle)] Mutex<Option<Arc<Token>>>);

#[cfg(not(shuttle))]
impl TokenCell {
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

#[cfg(shuttle)]
impl TokenCell {
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
