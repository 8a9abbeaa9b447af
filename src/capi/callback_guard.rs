//! Guards calls into application callbacks so that they can be shut down for good.
//!
//! An interpreter that shuts down, or a program that unloads the code of its callbacks, must know that
//! none of them is running or will run. No lock is used, because a forked child could inherit it locked.

use crate::sys::fork::ForkCounter;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Counts the calls that are running in this process.
#[derive(Default)]
pub(super) struct CallbackGuard {
    is_closed: AtomicBool,
    running: ForkCounter,
}

/// Ends a call on drop, even if it panics.
struct Entered<'a>(&'a CallbackGuard);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.running.remove();
    }
}

impl CallbackGuard {
    /// Makes a call into the application. `None` if the guard is closed.
    pub(super) fn enter<R>(&self, call: impl FnOnce() -> R) -> Option<R> {
        // `enter` counts first and checks second; `shut_down` closes first and checks second. So at least one of the
        // two sees the other.
        self.running.add(u64::MAX);
        let _inside = Entered(self);
        (!self.is_closed.load(Ordering::SeqCst)).then(call)
    }

    /// Closes the guard, and waits until no call is running in this process.
    pub(super) fn shut_down(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        while self.running.get() > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn shut_down_waits_for_running_calls_and_rejects_new_ones() {
        let (guard, inside, done) = (CallbackGuard::default(), Barrier::new(2), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                guard.enter(|| {
                    inside.wait();
                    // Until the guard is closed while this call is running.
                    while guard.enter(|| ()).is_some() {
                        std::thread::yield_now();
                    }
                    done.store(true, Ordering::SeqCst);
                })
            });
            inside.wait();
            guard.shut_down();
            assert!(done.load(Ordering::SeqCst));
        });
        assert_eq!(guard.enter(|| 1), None);
        guard.shut_down();
    }
}
