//! The locks of the [cache](crate::token::cache).
//!
//! Under `--cfg shuttle` the locks are those of the shuttle model checker, which runs the same cache code
//! through thousands of interleavings. Under `--cfg simulator` they, threads and time are those of `tests/simulator`.

#[cfg(shuttle)]
pub use shuttle::sync::{Condvar, Mutex, MutexGuard};
#[cfg(shuttle)]
pub use shuttle::thread::ThreadId;
#[cfg(not(any(shuttle, simulator)))]
pub use std::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(any(shuttle, simulator)))]
pub use std::thread::ThreadId;

#[cfg(simulator)]
pub use crate::sys::simulation::{Condvar, Instant, JoinHandle, Mutex, MutexGuard, ThreadId, current_thread, mpsc};
#[cfg(not(simulator))]
pub use std::sync::mpsc;
#[cfg(not(simulator))]
pub use std::thread::JoinHandle;
#[cfg(not(simulator))]
pub use std::time::Instant;

/// The thread that calls this function.
#[cfg(not(simulator))]
pub fn current_thread() -> ThreadId {
    #[cfg(shuttle)]
    return shuttle::thread::current().id();
    #[cfg(not(shuttle))]
    return std::thread::current().id();
}
