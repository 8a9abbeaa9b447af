//! Shares a cache's token with other processes and machines.
//!
//! The store is best effort: on any error it logs one warning and returns within its own time limit, and the
//! caller requests a token from the service.
//!
//! A [`Store`] holds at most two records for one client: an entry, which is a token, and a [note] for the
//! other processes. It has a lock, which [`token::provider`](crate::token::provider) holds while it requests a token.
//! `docs/store-format.md` specifies the bytes, and who waits for whom.

#![cfg_attr(not(any(unix, windows, feature = "redis")), allow(dead_code, reason = "no store uses it"))]

#[cfg(any(unix, windows))]
#[cfg_attr(simulator, path = "../../tests/simulator/library/file_store.rs")]
mod file;
mod note;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "redis")]
mod resp;
mod seal;
#[cfg(simulator)]
#[path = "../../tests/simulator/library/stores.rs"]
pub mod simulated;
#[cfg(simulator)]
#[path = "../../tests/simulator/library/redis_server.rs"]
mod simulated_redis;

use crate::config::Options;
use crate::config::credentials::Credentials;
use crate::error::Result;
use crate::log::Log;
use crate::oauth::client_credentials::is_valid_bearer_token;
use crate::oauth::retry::Deadline;
use crate::sys::boot;
use crate::sys::clock::{Clock, Timestamps};
use crate::sys::secret::Secret;
use crate::sys::sync::Instant;
pub use note::{Failure, Note};
use seal::{Record, RecordCipher, RecordKind, Times};
use std::any::Any;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The longest lifetime of a token that is believed, from the service or from a store.
pub const MAX_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest time that one call spends on the I/O of a store; also never more than a quarter of `timeout_ms`. It
/// is long even for a busy disk. If it is exceeded, only the first caller has to wait.
const IO_TIMEOUT: Duration = Duration::from_secs(2);

/// A token in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The token itself.
    pub token: Secret,
    /// When the token was requested, by the clocks of this process.
    pub issued: Timestamps,
    /// How long it is valid from then on.
    pub lifetime: Duration,
}

/// What is in a store.
#[derive(Debug, Default)]
pub struct Contents {
    /// The token, if there is one that can be decrypted and has not expired.
    pub entry: Option<Entry>,
    /// The note, if another process has left one.
    pub note: Option<SeenNote>,
    /// Whether another process is known to hold the lock.
    pub is_locked: bool,
}

/// A note of another process.
#[derive(Debug)]
pub struct SeenNote {
    /// What it says.
    pub note: Note,
    /// How long ago it was written.
    pub age: Duration,
    /// For how long it is still to be believed.
    pub left: Duration,
}

/// The lock under which one process requests a token for all that share the store.
pub enum LockResult {
    /// This process holds the lock until the value is dropped or the process ends.
    Held(Lock),
    /// Another process or thread holds the lock.
    Busy,
    /// The store failed, or nothing can be written to it.
    Unavailable,
}

/// What became of a token that was to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It is removed.
    Removed,
    /// It was not in the store.
    NotStored,
    /// Another process is about to replace it, and it is still there.
    Busy,
    /// The store failed, with this message.
    Failed(String),
}

/// The lock, while it is held.
pub type Lock = Box<dyn Any + Send>;

/// What the token provider needs from a store. Any thread may call it.
///
/// Each method takes at most the time that the budget of the call has left.
pub trait Store: Send + Sync {
    /// What is in the store now. Takes no lock.
    fn read(&self, budget: &IoBudget) -> Contents;

    /// Takes the lock if it is free and the store can be written to.
    fn try_lock(&self, budget: &IoBudget) -> LockResult;

    /// Waits until the holder of the lock has released it, or it is time to read the store again; at most for
    /// `limit`. `waited` is how long the caller has waited before. Returns whether the lock may be free.
    fn wait(&self, waited: Duration, limit: Duration) -> bool;

    /// Replaces the entry, removes the note and releases the lock. If the budget ends before, this returns, and
    /// the rest is done in the background.
    fn save(&self, entry: &Entry, lock: Option<Lock>, budget: &IoBudget);

    /// Replaces the note. `left` is the time that the caller has left.
    fn leave_note(&self, note: &Note, left: Duration, budget: &IoBudget);

    /// Removes the entry if it has this token.
    fn remove(&self, token: &str, budget: &IoBudget) -> Removal;

    /// The same store for a forked child, with locks and connections of its own.
    fn for_child(&self) -> Arc<dyn Store>;

    /// A description of where the store is, without the password that its URL may have.
    fn location(&self) -> String;
}

/// The time that one call may spend on the I/O of a store. Waiting for a lock is not I/O.
pub struct IoBudget {
    whole: Duration,
    left: Cell<Duration>,
    deadline: Option<(Clock, Deadline)>,
}

impl IoBudget {
    /// The budget of a call that must return by the deadline.
    pub fn new(options: &Options, deadline: Deadline) -> Self {
        IoBudget { deadline: Some((options.clock.clone(), deadline)), ..IoBudget::without_deadline(options) }
    }

    /// The budget of a call that has no deadline of its own.
    pub fn without_deadline(options: &Options) -> Self {
        let whole = IO_TIMEOUT.min(options.timeout / 4);
        IoBudget { whole, left: Cell::new(whole), deadline: None }
    }

    /// Restores the whole budget, after the call has waited for another process: it would have waited anyway.
    pub fn renew(&self) {
        self.left.set(self.whole);
    }

    /// Runs one operation with the time limit that it has, which is never more than `longest`.
    fn spend<T>(&self, longest: Duration, operation: impl FnOnce(Duration) -> T) -> T {
        let start = Instant::now();
        let remaining = self.deadline.as_ref().map_or(longest, |(clock, deadline)| deadline.remaining(clock));
        let result = operation(longest.min(self.left.get()).min(remaining));
        self.left.set(self.left.get().saturating_sub(start.elapsed()));
        result
    }
}

/// How long a caller waits for the release of a lock, which is then finished in the background.
const UNLOCK_TIMEOUT: Duration = Duration::from_millis(100);

/// The same, not beyond the deadline of the call that took the lock.
fn unlock_timeout(deadline: Option<&(Clock, Deadline)>) -> Duration {
    deadline.map_or(UNLOCK_TIMEOUT, |(clock, deadline)| deadline.remaining(clock).min(UNLOCK_TIMEOUT))
}

/// The store that the settings name, for these credentials. `None` for a personal access token, which is not
/// fetched.
pub fn open(options: &Options, credentials: &Credentials) -> Result<Option<Arc<dyn Store>>> {
    let Credentials::Client { id, secret } = credentials else { return Ok(None) };
    let wanted = options.store.expose();
    if wanted == "none" {
        return Ok(None);
    }
    let Some(cipher) = RecordCipher::new(secret, options.token_url.as_str(), id, &options.profile) else {
        options
            .log
            .warning(|| "store: the client secret is too short to derive a key from it, so tokens are not shared");
        return Ok(None);
    };
    match wanted {
        "file" => Ok(file(options, cipher)),
        url => redis(options, cipher, url),
    }
}

#[cfg(any(unix, windows))]
fn file(options: &Options, cipher: RecordCipher) -> Option<Arc<dyn Store>> {
    Some(Arc::new(file::FileStore::open(options, cipher)?))
}

#[cfg(not(any(unix, windows)))]
fn file(options: &Options, _: RecordCipher) -> Option<Arc<dyn Store>> {
    options.log.warning(|| "store: this platform has no file store, so tokens are not shared");
    None
}

#[cfg(feature = "redis")]
fn redis(options: &Options, cipher: RecordCipher, url: &str) -> Result<Option<Arc<dyn Store>>> {
    Ok(Some(Arc::new(redis::RedisStore::open(options, cipher, url)?)))
}

#[cfg(not(feature = "redis"))]
fn redis(_: &Options, _: RecordCipher, _: &str) -> Result<Option<Arc<dyn Store>>> {
    use crate::error::{Error, Kind};
    Err(Error::new(Kind::Config, "this build of the library has no Redis store")
        .with_hint("build it with cargo's --features redis, or set store to file or none"))
}

/// The replies in what a Redis server has sent, as text, up to the first that is invalid; for
/// the fuzzer.
#[cfg(all(fuzzing, feature = "redis"))]
pub fn read_redis_replies(mut sent: &[u8]) -> Vec<String> {
    let shown =
        |value: resp::Value| value.error().map_or_else(|| format!("{value:?}"), |text| format!("Error({text:?})"));
    std::iter::from_fn(|| resp::read_reply(&mut sent).ok().map(shown)).collect()
}

/// Encrypts an entry, changes it with `change` and decrypts it `later`, on the same boot or not; for the fuzzer.
#[cfg(fuzzing)]
pub fn reopen(
    entry: &Entry,
    later: i64,
    same_boot: bool,
    change: impl FnOnce(&mut Vec<u8>),
) -> Option<(bool, Option<Entry>)> {
    let secret = "a secret that is long enough".into();
    let codec = Codec::new(RecordCipher::new(&secret, "https://auth.example/oauth/token", "id", "")?, &Clock::System);
    let sealed = codec.seal_entry(entry, None)?;
    let mut changed = sealed.clone();
    change(&mut changed);
    let mut now = codec.now(None);
    now.wall = now.wall.saturating_add(later);
    now.boot_time = now.boot_time.saturating_add(later);
    if !same_boot {
        now.boot = boot::UNKNOWN;
    }
    Some((changed == sealed, codec.open_entry(&changed, |_| now).ok()))
}

/// Why an entry cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OpenError {
    /// The entry is authentic, but its token has expired.
    Expired,
    /// The entry is authentic, but was made later than now.
    NotYetValid,
    /// The entry is of another client, version or token endpoint, or it is damaged.
    Undecryptable,
}

/// Turns entries and notes into records and back.
#[derive(Clone)]
struct Codec {
    cipher: RecordCipher,
    clock: Clock,
    /// A random name of this store in this process: it does not believe its own notes.
    writer: u64,
}

impl Codec {
    fn new(cipher: RecordCipher, clock: &Clock) -> Self {
        // Below 2⁶⁴, and random enough: the kernel is asked.
        let writer = Clock::System.random_below(Duration::from_nanos(u64::MAX)).as_nanos() as u64;
        Codec { cipher, clock: clock.clone(), writer }
    }

    /// The same for a forked child, which believes the notes of its parent.
    fn for_child(&self) -> Self {
        Codec::new(self.cipher.clone(), &self.clock)
    }

    /// The time by all clocks. `store` is that of the store's clock, if it is known.
    fn now(&self, store: Option<i64>) -> Times {
        Times { wall: self.clock.now().wall, boot: boot::identity(), boot_time: self.clock.boot_time(), store }
    }

    /// How long ago an entry's token was requested, by the clock that has gone further.
    fn age(&self, entry: &Entry) -> Duration {
        let (now, issued) = (self.clock.now(), entry.issued);
        let passed = now.monotonic.saturating_sub(issued.monotonic).max(now.wall.saturating_sub(issued.wall));
        Duration::from_nanos(u64::try_from(passed).unwrap_or(0))
    }

    /// The sealed entry. `None` if the system's random number generator fails.
    fn seal_entry(&self, entry: &Entry, store_time: Option<i64>) -> Option<Vec<u8>> {
        let made = self.now(store_time).before(self.age(entry));
        self.cipher.seal(RecordKind::Entry, &made, entry.lifetime, entry.token.expose().as_bytes())
    }

    /// Opens an entry. `now` tells the time, by the clock of the store too if the record was made in another boot.
    fn open_entry(&self, sealed: &[u8], now: impl FnOnce(&Record) -> Times) -> std::result::Result<Entry, OpenError> {
        let record = self.cipher.open(RecordKind::Entry, sealed).ok_or(OpenError::Undecryptable)?;
        // Anyone with the secret can encrypt anything, but only a token may be put into a header.
        let token = std::str::from_utf8(record.payload()).ok().filter(|token| is_valid_bearer_token(token));
        let token = Secret::from(token.ok_or(OpenError::Undecryptable)?);
        let lifetime = record.lifetime.min(MAX_LIFETIME);
        let clocks = self.clock.now();
        let age = now(&record).age(&record.made, lifetime).ok_or(OpenError::NotYetValid)?;
        if age >= lifetime {
            return Err(OpenError::Expired);
        }
        Ok(Entry { token, issued: clocks.before(age), lifetime })
    }

    fn seal_note(&self, note: &Note, left: Duration, store_time: Option<i64>) -> Option<Vec<u8>> {
        let bytes = note.encode(self.writer);
        self.cipher.seal(RecordKind::Note, &self.now(store_time), note.lifetime(left), &bytes)
    }

    /// Opens a note. One that this process wrote, or that cannot be read, counts as absent.
    fn open_note(&self, sealed: &[u8], now: impl FnOnce(&Record) -> Times) -> Option<SeenNote> {
        let record = self.cipher.open(RecordKind::Note, sealed)?;
        let (note, _) = Note::decode(record.payload()).filter(|(_, writer)| *writer != self.writer)?;
        let age = now(&record).age(&record.made, record.lifetime)?;
        Some(SeenNote { note, age, left: record.lifetime.saturating_sub(age) })
    }
}

/// A random time from one half of `pause` up to all of it, so that many processes get out of step.
fn jittered(pause: Duration, clock: &Clock) -> Duration {
    pause / 2 + clock.random_below(pause / 2)
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

    /// Opens an entry. One that has only expired is not reported.
    fn open(&self, codec: &Codec, sealed: &[u8], now: impl FnOnce(&Record) -> Times) -> Option<Entry> {
        match codec.open_entry(sealed, now) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock::ManualClock;

    fn codec(clock: &Arc<ManualClock>) -> Codec {
        let secret = "00112233445566778899aabbccddeeff".into();
        let cipher = RecordCipher::new(&secret, "https://auth.example/oauth/token", "id", "").unwrap();
        Codec::new(cipher, &Clock::Manual(clock.clone()))
    }

    fn entry(clock: &ManualClock, lifetime: u64) -> Entry {
        Entry { token: "token".into(), issued: clock.now(), lifetime: Duration::from_secs(lifetime) }
    }

    #[test]
    fn an_entry_is_as_old_as_the_clocks_say() {
        let clock = ManualClock::new(1);
        let codec = codec(&clock);
        let saved = entry(&clock, 300);
        clock.advance(Duration::from_secs(10));
        let sealed = codec.seal_entry(&saved, None).unwrap();
        clock.advance(Duration::from_secs(20));
        let open = || codec.open_entry(&sealed, |_| codec.now(None));
        assert_eq!(open(), Ok(saved.clone()));
        // Set back: the token is not younger for that. (Where boots have no identity, it is not used any more.)
        clock.set_wall_by(-3600);
        if boot::identity() == boot::UNKNOWN {
            assert_eq!(open(), Err(OpenError::NotYetValid));
            return;
        }
        assert_eq!(open().unwrap().issued, clock.now().before(Duration::from_secs(30)));
        clock.advance(Duration::from_secs(270));
        assert_eq!(open(), Err(OpenError::Expired));
    }

    #[test]
    fn nothing_is_believed_for_longer_than_a_day() {
        let clock = ManualClock::new(1);
        let codec = codec(&clock);
        let sealed = codec.seal_entry(&entry(&clock, 1 << 30), None).unwrap();
        let open = || codec.open_entry(&sealed, |_| codec.now(None));
        assert_eq!(open().unwrap().lifetime, MAX_LIFETIME);
        clock.advance(MAX_LIFETIME);
        assert_eq!(open(), Err(OpenError::Expired));
    }

    #[test]
    fn authentic_entries_with_invalid_content_are_rejected() {
        let clock = ManualClock::new(1);
        let codec = codec(&clock);
        let open = |entry: &Entry| codec.open_entry(&codec.seal_entry(entry, None).unwrap(), |_| codec.now(None));
        for token in ["", "two words", "line\r\nbreak", "ümlaut"] {
            let invalid = Entry { token: token.into(), ..entry(&clock, 300) };
            assert_eq!(open(&invalid), Err(OpenError::Undecryptable), "{token}");
        }
        assert_eq!(open(&entry(&clock, 0)), Err(OpenError::Expired));
    }

    #[test]
    fn a_note_is_for_the_others() {
        let clock = ManualClock::new(1);
        let (mine, theirs) = (codec(&clock), codec(&clock));
        let sealed = mine.seal_note(&Note::Requesting, Duration::from_secs(9), None).unwrap();
        assert!(mine.open_note(&sealed, |_| mine.now(None)).is_none());
        clock.advance(Duration::from_secs(4));
        let seen = theirs.open_note(&sealed, |_| theirs.now(None)).unwrap();
        assert_eq!((seen.age.as_secs(), seen.left.as_secs()), (4, 5));
        // A note cannot be made without the secret, nor from an entry.
        let entry = mine.seal_entry(&entry(&clock, 300), None).unwrap();
        assert!(theirs.open_note(&entry, |_| theirs.now(None)).is_none());
        assert!(theirs.open_entry(&sealed, |_| theirs.now(None)).is_err());
    }
}
