//! Which callbacks of the application the current thread is in.
//!
//! A callback may call the library again. A call that would wait for the call that made the callback would wait for
//! itself, until its deadline. So each configuration has an identity, its callbacks run inside a scope of that
//! identity, and a call that would have to wait asks first whether its thread is in such a scope.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

/// The identity of a configuration and everything that is created from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScopeId(u64);

thread_local! {
    /// The scopes that this thread is in, the innermost last.
    static ENTERED: RefCell<Vec<ScopeId>> = const { RefCell::new(Vec::new()) };
}

impl ScopeId {
    /// An identity that no other configuration of this process has.
    pub fn unique() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        ScopeId(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether the current thread is in a callback of this configuration.
    pub fn is_entered(self) -> bool {
        // At the end of a thread the list may already be gone; then the thread is in no callback.
        ENTERED.try_with(|entered| entered.borrow().contains(&self)).unwrap_or(false)
    }
}

/// Until the returned value is dropped, the current thread is in a callback of `scope`.
#[must_use]
pub fn enter(scope: ScopeId) -> Entered {
    Entered(ENTERED.try_with(|entered| entered.borrow_mut().push(scope)).is_ok())
}

/// See [`enter`].
pub struct Entered(bool);

impl Drop for Entered {
    fn drop(&mut self) {
        if self.0 {
            let _ = ENTERED.try_with(|entered| entered.borrow_mut().pop());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_in_the_scopes_that_it_entered() {
        let (outer, inner) = (ScopeId::unique(), ScopeId::unique());
        let first = enter(outer);
        {
            let _second = enter(inner);
            assert!(outer.is_entered() && inner.is_entered());
            assert!(!std::thread::spawn(move || outer.is_entered()).join().unwrap());
        }
        assert!(outer.is_entered() && !inner.is_entered());
        drop(first);
        assert!(!outer.is_entered());
    }
}
