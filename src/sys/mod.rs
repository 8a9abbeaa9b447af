//! What the library needs from the operating system: clocks, threads, locks, forks, and memory for secrets.

pub mod allocator;
pub(crate) mod at_once;
pub(crate) mod boot;
pub mod callback_scope;
pub mod clock;
pub(crate) mod deadline;
pub mod fork;
pub mod panics;
pub mod program;
pub(crate) mod read_file;
pub mod secret;
pub(crate) mod secret_memory;
#[cfg(simulator)]
#[path = "../../tests/simulator/library/simulation.rs"]
pub mod simulation;
pub mod sync;
pub mod threads;
