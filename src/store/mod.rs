//! Shares a cache's token with other processes and machines.
//!
//! The store is best effort: on any error it logs one warning and returns within its own time limit, and the
//! caller requests a token from the service.

#![cfg_attr(not(any(unix, feature = "redis")), allow(dead_code, reason = "no store uses it"))]

#[cfg(unix)]
mod file;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "redis")]
mod resp;
mod seal;

use crate::config::Options;
use crate::config::credentials::Credentials;
use crate::error::Result;
use crate::log::Log;
use crate::sys::clock::Timestamps;
use crate::sys::secret::Secret;
use seal::{EntryCipher, OpenError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A token in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The token itself.
    pub token: Secret,
    /// When the token was requested, in nanoseconds since 1970.
    pub issued: i64,
    /// When the token expires, in nanoseconds since 1970.
    pub expires: i64,
}

/// The lock under which one process requests a token for all that share the store.
pub enum LockResult {
    /// This process holds the lock until the value is dropped or the process ends.
    Held(Box<dyn std::any::Any>),
    /// Another process or thread held the lock for the whole wait.
    Busy,
    /// The store failed.
    Unavailable,
}

/// What the token provider needs from a store. Any thread may call it.
pub trait Store: Send + Sync {
    /// The entry, if there is one that can be decrypted and is valid.
    fn load(&self) -> Option<Entry>;

    /// Waits at most `wait` for the lock.
    fn lock(&self, wait: Duration) -> LockResult;

    /// Replaces the entry.
    fn save(&self, entry: &Entry);

    /// Removes the entry if it has this token.
    fn remove(&self, token: &str);

    /// A description of where the store is, without the password that its URL may have.
    fn location(&self) -> String;
}

/// The store that the settings name, for these credentials. `None` for a personal access token, which is not
/// fetched.
pub fn open(options: &Options, credentials: &Credentials) -> Result<Option<Arc<dyn Store>>> {
    let Credentials::Client { id, secret } = credentials else { return Ok(None) };
    let wanted = options.store.expose();
    if wanted == "none" {
        return Ok(None);
    }
    let Some(seal) = EntryCipher::new(secret, options.token_url.as_str(), id) else {
        options
            .log
            .warning(|| "store: the client secret is too short to derive a key from it, so tokens are not shared");
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
    options.log.warning(|| "store: this platform has no file store, so tokens are not shared");
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

/// Encrypts an entry, changes it with `change` and decrypts it; for the fuzzer.
#[cfg(fuzzing)]
pub fn reopen(entry: &Entry, now: Timestamps, change: impl FnOnce(&mut Vec<u8>)) -> Option<(bool, Option<Entry>)> {
    let seal = EntryCipher::new(&"a secret that is long enough".into(), "https://auth.example/oauth/token", "id")?;
    let sealed = seal.seal(entry)?;
    let mut changed = sealed.clone();
    change(&mut changed);
    Some((changed == sealed, seal.open(&changed, now).ok()))
}

/// Reports failures of a store: the first as a warning, the others for debugging, because every call would repeat
/// them.
struct WarnOnce {
    log: Log,
    reported: AtomicBool,
}

impl WarnOnce {
    fn new(log: &Log) -> Self {
        WarnOnce { log: log.clone(), reported: AtomicBool::new(false) }
    }

    fn report(&self, what: &str) {
        if self.reported.swap(true, Ordering::Relaxed) {
            self.log.debug(|| format!("store: {what}"));
        } else {
            self.log.warning(|| format!("store: {what}; continuing without it (logged once)"));
        }
    }

    /// Decrypts an entry. One that has only expired is not reported.
    fn open(&self, seal: &EntryCipher, sealed: &[u8], now: Timestamps) -> Option<Entry> {
        match seal.open(sealed, now) {
            Ok(entry) => return Some(entry),
            Err(OpenError::Expired) => {}
            Err(OpenError::NotYetValid) => {
                self.report("an entry was created later than the time of this machine's clock")
            }
            Err(OpenError::Undecryptable) => {
                self.report("an entry is damaged, or was written by another version or for another client")
            }
        }
        None
    }
}
