//! Connections that are kept for another request.
//!
//! - A connection is kept for [`IDLE_TIMEOUT`] after a response that was read to its end. It is used again only if the
//!   server has neither closed it nor sent anything since.
//! - It belongs to one process: a forked child opens its own.
//! - No call waits for the lock, which a forked child could inherit locked. A call that finds it taken opens a connection.
//! - At most [`MAX_IDLE`] are kept.
//!
//! ureq's own pool is not used, because a forked child could wait for its lock for ever.

use crate::net::tcp::Stream;
use crate::net::url::Url;
use crate::sys::fork;
use std::sync::{Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// How long a connection is kept: less than the idle timeouts of common servers and load balancers (from 60 seconds).
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest number of connections that are kept.
const MAX_IDLE: usize = 4;

/// The connections of one transport that are idle.
pub(super) struct IdleConnections(Mutex<Vec<IdleConnection>>);

struct IdleConnection {
    /// The URL of a request that was sent over it. Its origin is what matters.
    url: Url,
    stream: Box<dyn Stream>,
    since: Instant,
    /// The fork generation of the process that opened it.
    generation: u64,
}

impl IdleConnections {
    pub(super) fn new() -> Self {
        fork::install_fork_hook();
        IdleConnections(Mutex::default())
    }

    /// A connection to the origin of this URL, if there is one.
    pub(super) fn take(&self, url: &Url) -> Option<Box<dyn Stream>> {
        loop {
            let mut idle = self.0.try_lock().ok()?;
            idle.retain(|kept| !kept.is_inherited() && kept.since.elapsed() < IDLE_TIMEOUT);
            // The one that was used last is the one that the server closes last.
            let index = idle.iter().rposition(|kept| kept.url.has_same_origin(url))?;
            let mut kept = idle.remove(index);
            drop(idle);
            if kept.stream.is_idle() {
                return Some(kept.stream);
            }
        }
    }

    /// Keeps a connection over which a request to this URL was sent.
    pub(super) fn put(&self, url: &Url, stream: Box<dyn Stream>) {
        let Ok(mut idle) = self.0.try_lock() else { return };
        let kept = IdleConnection { url: url.clone(), stream, since: Instant::now(), generation: fork::generation() };
        idle.push(kept);
        let oldest = (idle.len() > MAX_IDLE).then(|| idle.remove(0));
        // Closing it takes time.
        drop(idle);
        drop(oldest);
    }
}

impl Drop for IdleConnections {
    fn drop(&mut self) {
        let is_inherited_locked = matches!(self.0.try_lock(), Err(TryLockError::WouldBlock));
        if is_inherited_locked {
            // This is a forked child, and a thread of its parent was changing the list: it must not be read.
            std::mem::forget(std::mem::take(self.0.get_mut().unwrap_or_else(PoisonError::into_inner)));
        }
    }
}

impl IdleConnection {
    fn is_inherited(&self) -> bool {
        self.generation != fork::generation()
    }
}
