//! Where a cache shares its token with other processes and machines.
//!
//! A store is a favour, never a need: whatever goes wrong in one costs a log line and at most the
//! time that its own bound allows, and the caller asks the service itself.

#![cfg_attr(not(any(unix, feature = "redis")), allow(dead_code, reason = "there is no store to use it"))]

#[cfg(unix)]
mod file;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "redis")]
mod resp;
mod seal;

use crate::config::credentials::Credentials;
use crate::config::settings::Options;
use crate::error::Result;
use crate::log::Log;
use crate::sys::clock::Timestamps;
use crate::sys::secret::Secret;
use seal::{EntryCipher, OpenError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
pub enum LockResult {
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

    /// Waits at most `with_retry_after` for the right to renew.
    fn lock(&self, wait: Duration) -> LockResult;

    /// Puts an entry in place of whatever is there.
    fn save(&self, entry: &Entry);

    /// Takes the entry out if it holds that token.
    fn remove(&self, token: &str);

    /// Where it is, in words; without a password that its URL may hold.
    fn location(&self) -> String;
}

/// The store that the settings name, for these credentials; none for a personal access token, which
/// nobody needs to ask for.
pub fn open(options: &Options, credentials: &Credentials) -> Result<Option<Arc<dyn Store>>> {
    let Credentials::Client { id, secret } = credentials else { return Ok(None) };
    let wanted = options.store.expose();
    if wanted == "none" {
        return Ok(None);
    }
    let Some(seal) = EntryCipher::new(secret, &options.token_url, id) else {
        options.log.warning(|| "store: the client secret is too short to seal anything with, so nothing is shared");
        return Ok(None);
    };
    match wanted {
        "file" => Ok(file(options, seal)),
        url => redis(options, seal, url),
    }
}

#[cfg(unix)]
fn file(options: &Options, seal: EntryCipher) -> Option<Arc<dyn Store>> {
    Some(Arc::new(file::FileStore::open(options, seal)?))
}

#[cfg(not(unix))]
fn file(options: &Options, _: EntryCipher) -> Option<Arc<dyn Store>> {
    options.log.warning(|| "store: files are not shared on this platform yet, so nothing is");
    None
}

#[cfg(feature = "redis")]
fn redis(options: &Options, seal: EntryCipher, url: &str) -> Result<Option<Arc<dyn Store>>> {
    Ok(Some(Arc::new(redis::RedisStore::open(options, seal, url)?)))
}

#[cfg(not(feature = "redis"))]
fn redis(_: &Options, _: EntryCipher, _: &str) -> Result<Option<Arc<dyn Store>>> {
    use crate::error::{Error, Kind};
    Err(Error::new(Kind::Config, "this build of the library has no Redis store")
        .with_hint("build it with cargo's --features redis, or set store to file or none"))
}

/// Seals an entry and opens `change` of it; for the fuzzer.
#[cfg(fuzzing)]
pub fn reopen(entry: &Entry, now: Timestamps, change: impl FnOnce(&mut Vec<u8>)) -> Option<(bool, Option<Entry>)> {
    let seal = EntryCipher::new(&"a secret that is long enough".into(), "https://auth.example/oauth/token", "id")?;
    let sealed = seal.seal(entry)?;
    let mut changed = sealed.clone();
    change(&mut changed);
    Some((changed == sealed, seal.open(&changed, now).ok()))
}

/// Says that something is wrong with a store: once aloud, because it will be so at every call.
struct WarnOnce {
    log: Log,
    told: AtomicBool,
}

impl WarnOnce {
    fn new(log: &Log) -> Self {
        WarnOnce { log: log.clone(), told: AtomicBool::new(false) }
    }

    fn report(&self, what: &str) {
        if self.told.swap(true, Ordering::Relaxed) {
            self.log.debug(|| format!("store: {what}"));
        } else {
            self.log.warning(|| format!("store: {what}; going on without it (said once)"));
        }
    }

    /// Opens an entry; what has merely expired is no warnings.
    fn open(&self, seal: &EntryCipher, sealed: &[u8], now: Timestamps) -> Option<Entry> {
        match seal.open(sealed, now) {
            Ok(entry) => return Some(entry),
            Err(OpenError::Expired) => {}
            Err(OpenError::NotYetValid) => self.report("an entry was made later than this machine's clock shows"),
            Err(OpenError::Undecryptable) => {
                self.report("an entry is damaged, or was not made by this version for this client")
            }
        }
        None
    }
}
