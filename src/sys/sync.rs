//! The locks of the [cache](crate::token::cache).
//!
//! Under `--cfg shuttle` the locks are those of the shuttle model checker, which runs the same cache code
//! through thousands of interleavings.

#[cfg(shuttle)]
pub use shuttle::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(shuttle))]
pub use std::sync::{Condvar, Mutex, MutexGuard};
