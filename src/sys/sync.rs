//! The locks of the [cache](crate::token::cache).
//!
//! Under `--cfg shuttle` the locks are those of the shuttle model checker, which runs the same cache code
//! through thousands of interleavings.

#[cfg(shuttle)]
pub use shuttle::sync::{Condvar, Mutex, MutexGuard};
#[cfg(shuttle)]
pub use shuttle::thread::ThreadId;
#[cfg(not(shuttle))]
pub use std::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(shuttle))]
pub use std::thread::ThreadId;

/// The thread that calls this function.
pub fn current_thread() -> ThreadId {
    #[cfg(shuttle)]
    return shuttle::thread::current().id();
    #[cfg(not(shuttle))]
    return std::thread::current().id();
}
