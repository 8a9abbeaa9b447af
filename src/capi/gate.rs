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
pub(super) struct Gate(AtomicU64);

/// Lets out whoever was inside, however the call ends.
struct Inside<'a>(&'a Gate);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Release);
    }
}

impl Gate {
    /// Makes a call into the application; `None`: the gate is closed.
    pub(super) fn pass<R>(&self, call: impl FnOnce() -> R) -> Option<R> {
        // Counted first and looked at second, as `seal` closes first and counts second: one of the
        // two always sees the other.
        let before = self.0.fetch_add(1, Ordering::SeqCst);
        let _inside = Inside(self);
        if before & CLOSED == 0 { Some(call()) } else { None }
    }

    /// Closes the gate, and waits until nobody is inside.
    pub(super) fn close(&self) {
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
        let (gate, inside, done) = (Gate::default(), Barrier::new(2), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                gate.pass(|| {
                    inside.wait();
                    // The gate is closed while this call is inside.
                    while gate.pass(|| ()).is_some() {
                        std::thread::yield_now();
                    }
                    done.store(true, Ordering::SeqCst);
                })
            });
            inside.wait();
            gate.close();
            assert!(done.load(Ordering::SeqCst));
        });
        assert_eq!(gate.pass(|| 1), None);
        gate.close();
    }
}
