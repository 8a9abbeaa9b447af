//! The simulated stores, as the simulator changes and damages them.

pub use super::file::{Damage as DiskDamage, Disk, make_disks, with_disk};
pub use super::simulated_redis::{Damage as RedisDamage, Server, make_server, with_server};
use crate::sys::simulation::ProcessId;

/// A process has ended.
pub fn process_end(process: ProcessId) {
    super::file::process_end(process);
}

/// A process was forked.
pub fn process_fork(parent: ProcessId, child: ProcessId) {
    super::file::process_fork(parent, child);
}
