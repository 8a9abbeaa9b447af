//! Guards calls into application callbacks so that they can be shut down for good.
//!
//! An interpreter that shuts down, or a program that unloads the code of its callbacks, must know that
//! none of them is running or will run. No lock is used, because a forked child could inherit it locked.

use crate::sys::fork;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const CLOSED: u64 = 1 << 63;

/// The bits of the count. Above them, below [`CLOSED`], is the fork generation to which the count belongs: calls
/// that were running in the parent do not run in the child.
const COUNT_BITS: u32 = 32;
const COUNT: u64 = (1 << COUNT_BITS) - 1;

/// Counts the calls that are running in this process. The highest bit means closed.
#[derive(Default)]
pub(super) struct CallbackGuard(AtomicU64);

/// Ends a call on drop, even if it panics.
struct Entered<'a>(&'a CallbackGuard, u64);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        // A callback that forks returns in the child, too, which begins with a count of its own.
        if self.1 == generation() {
            self.0.0.fetch_sub(1, Ordering::Release);
        }
    }
}

/// The fork generation, as far as it fits.
fn generation() -> u64 {
    (fork::generation() & (COUNT >> 1)) << COUNT_BITS
}

/// The same state, with the count of this process.
fn of_this_process(state: u64) -> u64 {
    let counted = state & !CLOSED & !COUNT == generation();
    if counted { state } else { state & CLOSED | generation() }
}

impl CallbackGuard {
    /// Makes a call into the application. `None` if the guard is closed.
    pub(super) fn enter<R>(&self, call: impl FnOnce() -> R) -> Option<R> {
        fork::install_fork_hook();
        // One atomic operation counts the call and finds out whether the guard is closed, and `shut_down` closes it
        // before it reads the count. So a call either is not made, or is waited for.
        let add = |state| (state & CLOSED == 0).then(|| of_this_process(state) + 1);
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, add).ok()?;
        let _inside = Entered(self, generation());
        Some(call())
    }

    /// Closes the guard, and waits until no call is running in this process.
    pub(super) fn shut_down(&self) {
        self.0.fetch_or(CLOSED, Ordering::SeqCst);
        while of_this_process(self.0.load(Ordering::Acquire)) & COUNT > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::AtomicBool;

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
