//! Where a cache shares its token with other processes and machines.
//!
//! A store is a favour, never a need: whatever goes wrong in one costs a log line and at most the
//! time that its own bound allows, and the caller asks the service itself.

use crate::credentials::Credentials;
use crate::error::Result;
use crate::secret::Secret;
use crate::settings::Options;
use std::sync::Arc;
use std::time::Duration;

/// A token as it lies in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The token itself.
    pub token: Secret,
    /// When it was asked for, in nanoseconds since 1970.
    pub issued: i64,
    /// When it dies, in nanoseconds since 1970.
    pub expires: i64,
}

/// Whether one may ask the service on behalf of all.
pub enum Lock {
    /// Yes, until the value is dropped, or its process dies.
    Held(Box<dyn std::any::Any>),
    /// Somebody else does, and the wait was over first.
    Busy,
    /// The store cannot tell.
    Unavailable,
}

/// What the cache needs of a store. Every call may come from any thread.
pub trait Store: Send + Sync {
    /// The entry, if there is one that opens and can be believed.
    fn load(&self) -> Option<Entry>;

    /// Waits at most `wait` for the right to renew.
    fn lock(&self, wait: Duration) -> Lock;

    /// Puts an entry in place of whatever is there.
    fn save(&self, entry: &Entry);

    /// Takes the entry out if it holds that token.
    fn remove(&self, token: &str);
}

/// The store that the settings name, for these credentials; none for a personal access token, which
/// nobody needs to ask for.
pub fn open(options: &Options, credentials: &Credentials) -> Result<Option<Arc<dyn Store>>> {
    let _ = (options, credentials);
    Ok(None)
}
