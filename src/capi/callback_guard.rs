//! The way into the application: open until the application closes it.
//!
//! An interpreter that shuts down, or a program that unloads the code of its callbacks, must know that
//! none of them is running or will run. No lock is used, because a forked child could inherit it locked.

use crate::sys::fork;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const CLOSED: u64 = 1 << 63;

/// Counts who is inside.
#[derive(Default)]
pub(super) struct CallbackGuard(AtomicU64);

/// Lets out whoever was inside, however the call ends.
struct Entered<'a>(&'a CallbackGuard);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Release);
    }
}

impl CallbackGuard {
    /// Makes a call into the application; `None`: the guard is closed.
    pub(super) fn enter<R>(&self, call: impl FnOnce() -> R) -> Option<R> {
        // Counted first and looked at second, as `seal` closes first and counts second: one of the
        // two always sees the other.
        let before = self.0.fetch_add(1, Ordering::SeqCst);
        let _inside = Entered(self);
        if before & CLOSED == 0 { Some(call()) } else { None }
    }

    /// Closes the guard, and waits until nobody is inside.
    pub(super) fn shut_down(&self) {
        self.0.fetch_or(CLOSED, Ordering::SeqCst);
        // Those who were inside when this process was forked are in its parent: no use to wait.
        while fork::generation() == 0 && self.0.load(Ordering::Acquire) & !CLOSED > 0 {
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
    fn closing_waits_for_those_inside_and_keeps_the_others_out() {
        let (guard, inside, done) = (CallbackGuard::default(), Barrier::new(2), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                guard.enter(|| {
                    inside.wait();
                    // The guard is closed while this call is inside.
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
