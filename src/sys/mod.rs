//! What the library needs of the machine: clocks, threads, locks, forks, and memory for secrets.

pub mod allocator;
pub mod clock;
pub(crate) mod deadline;
pub mod fork;
pub mod secret;
pub mod sync;
pub(crate) mod threads;
pub(crate) mod vault;
