//! The store of many machines: encrypted entries in a Redis or Valkey server.
//!
//! - **Every exchange has a time limit.** It ends within half a second, or less if `timeout_ms` is short,
//!   including connecting and TLS. After a failure, the server is not used for some seconds, and all entries count
//!   as absent.
//! - **One machine requests a token for all.** The lock is a key with an owner and a short lifetime: that of a
//!   machine that crashed expires, and only its owner can delete it earlier. The owner prolongs it while it waits for
//!   the service.
//! - **The server's clock counts.** The age of an entry of another machine is measured by the clock of the server, so
//!   the clocks of the machines need not agree. The server also deletes the entry when its token expires, and the
//!   remaining time on the server counts even if the entry would be valid for longer.
//! - **Those that wait ask at growing intervals**, for the entry, the note and the lock in one exchange.
//! - A connection belongs to one process: a forked child does not use the store that it inherits.
//!
//! The protocol is in [`resp`](super::resp), with the reasons why no library is used.

use super::resp::{Command, Value, encode, read_reply};
use super::seal::RecordCipher;
use super::{
    Codec, Contents, Entry, IoBudget, Lock, LockResult, Note, Removal, Store, WarnOnce, jittered, unlock_timeout,
};
use crate::config::{NetworkOptions, Options};
use crate::error::{Error, Kind, Result};
use crate::net::connect::connect;
use crate::net::resolve::resolve;
use crate::net::tcp::{Peer, Stream};
use crate::net::tls::ClientCertificate;
use crate::net::tls_files::TlsFiles;
use crate::net::url::{host_and_port, percent_decode, split_authority};
use crate::oauth::retry::Deadline;
use crate::sanitize::sanitize;
use crate::sys::clock::Clock;
use crate::sys::deadline::IoDeadline;
use crate::sys::fork;
use crate::sys::secret::Secret;
use crate::sys::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use crate::sys::threads::HelperThreads;
use ring::rand::{SecureRandom, SystemRandom};
use std::io::{self, BufReader, Write};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The port of a URL that has none, for both schemes.
const DEFAULT_PORT: u16 = 6379;

/// The time limit of one exchange; also never more than an eighth of `timeout_ms`, because three of them may
/// precede the token request. They save one request, so they may not take longer than one.
const IO_TIMEOUT: Duration = Duration::from_millis(500);

/// How long a server is not used after a failure.
const FAILURE_COOLDOWN: Duration = Duration::from_secs(5);

/// How long an idle connection is kept: the exchanges of one refresh follow each other closely, and a connection
/// that was idle for longer may have been closed on the way.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// The lifetime of a lock that is not prolonged. After a holder has crashed, the others wait for at most this time.
const LOCK_TTL: Duration = Duration::from_secs(5);

/// The shortest and the longest time between two looks at a lock that another process or thread holds. In between, it
/// is a quarter of the time that the caller has waited, so that no process gets the token more than a quarter later.
const POLL_AFTER: [Duration; 2] = [Duration::from_millis(30), Duration::from_secs(1)];

/// The threads that prolong and release locks. A lock has one of each at most.
static LOCK_KEEPERS: HelperThreads = HelperThreads::new("amp-lock");

/// A Lua script that prolongs the lifetime of a key if it has a certain value.
const COMPARE_AND_PROLONG: &[u8] =
    b"if redis.call('get',KEYS[1])==ARGV[1] then return redis.call('pexpire',KEYS[1],ARGV[2]) end return 0";

/// A Lua script that deletes a key if it has a certain value.
const COMPARE_AND_DELETE: &[u8] =
    b"if redis.call('get',KEYS[1])==ARGV[1] then return redis.call('del',KEYS[1]) end return 0";

pub(super) struct RedisStore {
    codec: Codec,
    keys: Keys,
    server: Arc<RedisClient>,
}

/// The keys of one client. The braces put all of them on the same node of a cluster.
#[derive(Clone)]
struct Keys {
    entry: String,
    note: String,
    lock: String,
}

/// What the server has.
#[derive(Default)]
struct Fetched {
    /// The entry, and the time until the server deletes it.
    entry: Option<(Vec<u8>, Duration)>,
    note: Option<Vec<u8>>,
    is_locked: bool,
    /// The server's clock, if it may be read.
    time: Option<i64>,
}

impl RedisStore {
    /// Parses the URL; sends nothing.
    pub(super) fn open(options: &Options, cipher: RecordCipher, url: &str) -> Result<Self> {
        fork::install_fork_hook();
        let url = RedisUrl::parse(url).ok_or_else(|| {
            Error::new(Kind::Config, "store is not the URL of a Redis server")
                .with_hint("use redis://[user:password@]host[:port][/database], or rediss:// for TLS")
        })?;
        let name = cipher.name();
        let key = |suffix| format!("amp-token:{{{name}}}{suffix}");
        Ok(RedisStore {
            keys: Keys { entry: key(""), note: key(":note"), lock: key(":lock") },
            codec: Codec::new(cipher, &options.clock),
            server: Arc::new(RedisClient {
                url,
                io_timeout: IO_TIMEOUT.min(options.timeout / 8),
                network: options.network.clone(),
                clock: options.clock.clone(),
                warnings: WarnOnce::new(&options.log),
                generation: fork::generation(),
                unavailable_until: AtomicI64::new(i64::MIN),
                tls: TlsFiles::default(),
                link: Mutex::default(),
            }),
        })
    }

    /// Reads everything in one exchange.
    ///
    /// Another process may replace the entry between two commands. The remaining time is asked for twice, before and
    /// after the entry, so that the smaller one is not above that of the entry, whichever of the two was read.
    fn fetch(&self, budget: &IoBudget) -> Option<Fetched> {
        let Keys { entry, note, lock } = &self.keys;
        let (pttl, get, time): (&[u8], &[u8], Command) = (b"PTTL", b"GET", &[b"TIME"]);
        let [entry, note, lock] = [entry, note, lock].map(String::as_bytes);
        let commands: [Command; 6] = [&[pttl, entry], &[get, entry], &[pttl, entry], &[get, note], &[get, lock], time];
        let replies = self.server.pipeline(budget, &commands, &[b"TIME"])?;
        if replies.contains(&Value::TooLong) {
            return Some(Fetched::default()); // not of this library, and replaced by the next entry
        }
        let [before, entry, after, note, lock, time] = <[Value; 6]>::try_from(replies).ok()?;
        let entry = match (entry, before, after) {
            (Value::Bulk(sealed), Value::Integer(before), Value::Integer(after)) => {
                // Negative: the key did not exist, or never expires. Those of the store do.
                let left = u64::try_from(before.min(after)).ok();
                left.map(|left| (sealed, Duration::from_millis(left)))
            }
            _ => None,
        };
        let note = if let Value::Bulk(sealed) = note { Some(sealed) } else { None };
        let time = if let Value::Time(time) = time { Some(time) } else { None };
        Some(Fetched { entry, note, is_locked: lock != Value::Nil, time })
    }

    /// The server's clock, if it may be read.
    fn time(&self, budget: &IoBudget) -> Option<i64> {
        match self.server.pipeline(budget, &[&[b"TIME"]], &[b"TIME"])?.pop()? {
            Value::Time(time) => Some(time),
            _ => None,
        }
    }
}

impl Store for RedisStore {
    fn location(&self) -> String {
        let url = &self.server.url;
        format!("{}://{}", if url.tls { "rediss" } else { "redis" }, url.name())
    }

    fn read(&self, budget: &IoBudget) -> Contents {
        let Some(fetched) = self.fetch(budget) else { return Contents::default() };
        let now = self.codec.now(fetched.time);
        let entry = fetched.entry.and_then(|(sealed, left)| {
            let mut entry = self.server.warnings.open(&self.codec, &sealed, |_| now)?;
            let age = self.codec.age(&entry);
            entry.lifetime = entry.lifetime.min(age + left);
            (!left.is_zero()).then_some(entry)
        });
        let note = fetched.note.and_then(|sealed| self.codec.open_note(&sealed, |_| now));
        Contents { entry, note, is_locked: fetched.is_locked }
    }

    fn try_lock(&self, budget: &IoBudget) -> LockResult {
        let mut random = [0; 16];
        if SystemRandom::new().fill(&mut random).is_err() {
            return LockResult::Unavailable;
        }
        let owner = format!("{:032x}", u128::from_ne_bytes(random));
        let life = LOCK_TTL.as_millis().to_string();
        let take: Command = &[b"SET", self.keys.lock.as_bytes(), owner.as_bytes(), b"NX", b"PX", life.as_bytes()];
        match self.server.command(budget, take) {
            Some(Value::Bulk(_)) => {
                LockResult::Held(Box::new(LockGuard::new(&self.server, &self.keys.lock, owner, budget)))
            }
            Some(Value::Nil) => LockResult::Busy,
            _ => LockResult::Unavailable,
        }
    }

    fn wait(&self, waited: Duration, limit: Duration) -> bool {
        let [least, most] = POLL_AFTER;
        self.codec.clock.sleep(jittered((waited / 4).clamp(least, most), &self.codec.clock).min(limit));
        true
    }

    fn save(&self, entry: &Entry, lock: Option<Lock>, budget: &IoBudget) {
        let left = entry.lifetime.saturating_sub(self.codec.age(entry)).as_millis();
        let sealed = self.codec.seal_entry(entry, self.time(budget));
        let Some(sealed) = sealed.filter(|_| left > 0) else { return };
        let life = left.to_string();
        let (entry, note) = (self.keys.entry.as_bytes(), self.keys.note.as_bytes());
        // A note that expires at once is removed, with the permission to use SET alone.
        self.server.pipeline(
            budget,
            &[&[b"SET", entry, &sealed, b"PX", life.as_bytes()], &[b"SET", note, b"", b"PX", b"1"]],
            &[],
        );
        drop(lock);
    }

    fn leave_note(&self, note: &Note, left: Duration, budget: &IoBudget) {
        let life = note.lifetime(left).as_millis().max(1).to_string();
        if let Some(sealed) = self.codec.seal_note(note, left, self.time(budget)) {
            self.server.command(budget, &[b"SET", self.keys.note.as_bytes(), &sealed, b"PX", life.as_bytes()]);
        }
    }

    fn remove(&self, token: &str, budget: &IoBudget) -> Removal {
        let failed = || Removal::Failed(format!("the exchange with {} failed", self.server.url.name()));
        let Some(fetched) = self.fetch(budget) else { return failed() };
        let Some((sealed, _)) = fetched.entry else { return Removal::NotStored };
        let entry = self.codec.open_entry(&sealed, |_| self.codec.now(fetched.time));
        if !entry.is_ok_and(|entry| entry.token.expose() == token) {
            return Removal::NotStored;
        }
        let delete: Command = &[b"EVAL", COMPARE_AND_DELETE, b"1", self.keys.entry.as_bytes(), &sealed];
        match self.server.command(budget, delete) {
            Some(Value::Integer(1)) => Removal::Removed,
            Some(_) => Removal::NotStored,
            None => failed(),
        }
    }

    fn for_child(&self) -> Arc<dyn Store> {
        let parent = &self.server;
        Arc::new(RedisStore {
            codec: self.codec.for_child(),
            keys: self.keys.clone(),
            server: Arc::new(RedisClient {
                url: parent.url.clone(),
                io_timeout: parent.io_timeout,
                network: parent.network.clone(),
                clock: parent.clock.clone(),
                warnings: WarnOnce::new(&parent.warnings.log),
                generation: fork::generation(),
                unavailable_until: AtomicI64::new(i64::MIN),
                tls: parent.tls.clone(),
                link: Mutex::default(),
            }),
        })
    }
}

/// The lock, while it is held.
struct LockGuard {
    server: Arc<RedisClient>,
    lock: String,
    owner: String,
    /// The deadline of the call that took it.
    deadline: Option<(Clock, Deadline)>,
    /// Ends the thread that prolongs the lock.
    _keep: Option<SyncSender<()>>,
}

impl LockGuard {
    fn new(server: &Arc<RedisClient>, lock: &str, owner: String, budget: &IoBudget) -> Self {
        let (keep, dropped) = sync_channel::<()>(0);
        let (client, key, name) = (server.clone(), lock.to_owned(), owner.clone());
        let prolong = move || {
            while dropped.recv_timeout(LOCK_TTL / 3) == Err(RecvTimeoutError::Timeout) {
                let life = LOCK_TTL.as_millis().to_string();
                let prolong: Command =
                    &[b"EVAL", COMPARE_AND_PROLONG, b"1", key.as_bytes(), name.as_bytes(), life.as_bytes()];
                // Where that is not permitted, the lock expires, and a second request may be sent.
                if !matches!(client.exchange(&[prolong], client.io_timeout).as_deref(), Ok([Value::Integer(1)])) {
                    break;
                }
            }
        };
        let started = LOCK_KEEPERS.try_start(prolong).is_some();
        LockGuard {
            server: server.clone(),
            lock: lock.to_owned(),
            owner,
            deadline: budget.deadline.clone(),
            _keep: started.then_some(keep),
        }
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        // In a forked child the lock stays the parent's.
        if self.server.generation != fork::generation() {
            return;
        }
        let (server, key, owner) = (self.server.clone(), self.lock.clone(), self.owner.clone());
        let release = move |limit| {
            let delete: Command = &[b"EVAL", COMPARE_AND_DELETE, b"1", key.as_bytes(), owner.as_bytes()];
            server.within(limit, &[delete], &[]);
        };
        let (timeout, longest) = (unlock_timeout(self.deadline.as_ref()), self.server.io_timeout);
        // The server may be slow, and the call may have no time left. (If no thread can be started, the lock expires.)
        let inline = release.clone();
        match LOCK_KEEPERS.try_start(move || release(longest)) {
            Some(done) => drop(done.recv_timeout(timeout)),
            None => inline(timeout.min(longest)),
        }
    }
}

/// A client for one server, with at most one connection.
struct RedisClient {
    url: RedisUrl,
    io_timeout: Duration,
    network: NetworkOptions,
    clock: Clock,
    warnings: WarnOnce,
    /// The fork generation of the process that owns the connection.
    generation: u64,
    /// Until this monotonic time the server is not used.
    unavailable_until: AtomicI64,
    tls: TlsFiles,
    link: Mutex<PooledConnection>,
}

#[derive(Default)]
struct PooledConnection {
    /// The connection, and until when it may be used for another exchange.
    open: Option<(Connection, i64)>,
}

impl RedisClient {
    /// Exchanges one command. `None` if the exchange failed or the reply is an error.
    fn command(&self, budget: &IoBudget, command: Command) -> Option<Value> {
        self.pipeline(budget, &[command], &[])?.pop()
    }

    /// Sends commands together and reads a reply to each, until one is too long. `None` if the exchange failed or a reply is an error, unless
    /// the reply is to one of the `optional` commands.
    fn pipeline(&self, budget: &IoBudget, commands: &[Command], optional: &[&[u8]]) -> Option<Vec<Value>> {
        budget.spend(self.io_timeout, |limit| self.within(limit, commands, optional))
    }

    /// The same, within `limit`.
    fn within(&self, limit: Duration, commands: &[Command], optional: &[&[u8]]) -> Option<Vec<Value>> {
        if self.generation != fork::generation()
            || limit.is_zero()
            || self.clock.now().monotonic < self.unavailable_until.load(Ordering::Relaxed)
        {
            return None;
        }
        let problem = match self.exchange(commands, limit) {
            Ok(replies) => {
                let required = commands.iter().zip(&replies).filter(|(command, _)| !optional.contains(&command[0]));
                match required.map(|(_, reply)| reply).find_map(Value::error) {
                    None => return Some(replies),
                    // The server works, but rejects a command: its user may lack a permission, for example.
                    Some(message) => format!("{} returned an error: {}", self.url.name(), self.url.sanitize(message)),
                }
            }
            // That a call had hardly any time left proves no failure of the server.
            Err(error) if limit < self.io_timeout / 2 => error.to_string(),
            Err(error) => {
                self.unavailable_until.store(self.clock.now().after(FAILURE_COOLDOWN).monotonic, Ordering::Relaxed);
                error.to_string()
            }
        };
        self.warnings.report(&problem);
        None
    }

    #[cfg(simulator)]
    fn exchange(&self, commands: &[Command], limit: Duration) -> Result<Vec<Value>> {
        super::simulated_redis::exchange(commands, limit).map_err(|error| self.io_error(&error))
    }

    #[cfg(not(simulator))]
    fn exchange(&self, commands: &[Command], limit: Duration) -> Result<Vec<Value>> {
        let deadline = IoDeadline::after(limit);
        // No thread holds the lock for longer than one exchange.
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = link.open.take().filter(|(_, until)| self.clock.now().monotonic < *until);
        let (connection, replies) = match kept.and_then(|(mut connection, _)| {
            let replies = connection.pipeline(commands, deadline).ok()?;
            Some((connection, replies))
        }) {
            Some(done) => done,
            // There was no idle connection, or it was closed in the meantime.
            None => {
                let mut connection = self.connect(deadline)?;
                let replies = connection.pipeline(commands, deadline).map_err(|error| self.io_error(&error))?;
                (connection, replies)
            }
        };
        // Too long a reply was not read to its end.
        if !replies.contains(&Value::TooLong) {
            link.open = Some((connection, self.clock.now().after(IDLE_TIMEOUT).monotonic));
        }
        Ok(replies)
    }

    fn connect(&self, deadline: IoDeadline) -> Result<Connection> {
        let RedisUrl { tls, host, port, user, password, database } = &self.url;
        let peer = Peer::server(host, *port);
        let found = resolve(host, *port, &peer, deadline)?;
        let (wire, _) = connect(&found, &peer, deadline)?;
        let mut stream: Box<dyn Stream> = Box::new(wire);
        if *tls {
            let connector = self.tls.connector(&self.network, deadline)?;
            stream = Box::new(connector.handshake(stream, host, &peer, ClientCertificate::Withheld, deadline)?.0);
        }
        // A reply to AUTH may repeat the password, and the buffer is not wiped, so it holds one byte.
        let mut connection = Connection(BufReader::with_capacity(1, stream));
        let mut hello: Vec<Command> = Vec::new();
        let (user, password) = (user.as_ref().map(secret_bytes), password.as_ref().map(secret_bytes));
        let authenticate: Vec<&[u8]> = [Some(&b"AUTH"[..]), user, password].into_iter().flatten().collect();
        if password.is_some() {
            hello.push(&authenticate);
        }
        let select: [&[u8]; 2] = [b"SELECT", database.as_bytes()];
        if !database.is_empty() {
            hello.push(&select);
        }
        let replies = connection.pipeline(&hello, deadline).map_err(|error| self.io_error(&error))?;
        let rejected = hello.iter().zip(&replies).find_map(|(command, reply)| Some((command[0], reply.error()?)));
        match rejected {
            Some((b"AUTH", message)) => {
                let code = self.url.sanitize(error_code(message));
                let code = if code.is_empty() { code } else { format!(": {code}") };
                Err(Error::new(Kind::Config, format!("{} rejected the credentials{code}", self.url.name()))
                    .with_hint("check the user name and password in store"))
            }
            Some((_, message)) => {
                let message = self.url.sanitize(message);
                Err(Error::new(Kind::Config, format!("{} rejected database {database}: {message}", self.url.name())))
            }
            None => Ok(Connection(BufReader::new(connection.0.into_inner()))),
        }
    }

    fn io_error(&self, error: &io::Error) -> Error {
        let reason = sanitize(&error.to_string(), &[]);
        Error::new(Kind::Connect, format!("the exchange with {} failed: {reason}", self.url.name()))
    }
}

/// The first word of an error message of the server, if it is a code such as `WRONGPASS`. Redis repeats the
/// arguments of unknown commands, so the rest may be a part of the password.
fn error_code(message: &str) -> &str {
    let code = message.split([' ', '\r', '\n']).next().unwrap_or_default();
    let is_code = code.len() <= 32 && code.bytes().all(|byte| byte.is_ascii_uppercase());
    if is_code { code } else { "" }
}

fn secret_bytes(secret: &Secret) -> &[u8] {
    secret.expose().as_bytes()
}

/// A connection to the server. After an error, it must be dropped.
struct Connection(BufReader<Box<dyn Stream>>);

impl Connection {
    fn pipeline(&mut self, commands: &[Command], deadline: IoDeadline) -> io::Result<Vec<Value>> {
        let stream = self.0.get_mut();
        stream.set_deadline(deadline);
        stream.write_all(&encode(commands))?;
        stream.flush()?;
        let mut replies = Vec::with_capacity(commands.len());
        while replies.len() < commands.len() && !replies.contains(&Value::TooLong) {
            replies.push(read_reply(&mut self.0)?);
        }
        Ok(replies)
    }
}

/// The URL of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RedisUrl {
    tls: bool,
    host: String,
    port: u16,
    user: Option<Secret>,
    password: Option<Secret>,
    /// The number of the database, in digits; empty for the first one.
    database: String,
}

impl RedisUrl {
    fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let (userinfo, rest) = match rest.rsplit_once('@') {
            Some((userinfo, rest)) => (Some(userinfo), rest),
            None => (None, rest),
        };
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, password) = match userinfo.map(|userinfo| userinfo.split_once(':').unwrap_or((userinfo, ""))) {
            Some((user, password)) => (Some(percent_decode_strict(user)?), Some(percent_decode_strict(password)?)),
            None => (None, None),
        };
        let (host, port) = split_authority(authority)?;
        let (user, password) = (user.filter(|user| !user.is_empty()), password.filter(|password| !password.is_empty()));
        let credentials_are_valid = user.is_none() || password.is_some();
        let valid = credentials_are_valid && database.bytes().all(|byte| byte.is_ascii_digit());
        valid.then(|| RedisUrl {
            tls: scheme == "rediss",
            host: host.to_owned(),
            port: port.unwrap_or(DEFAULT_PORT),
            user,
            password,
            database: database.to_owned(),
        })
    }

    fn name(&self) -> String {
        host_and_port(&self.host, self.port)
    }

    /// A message of the server, without the user name and password.
    fn sanitize(&self, message: &str) -> String {
        let secrets: Vec<_> = [&self.user, &self.password].into_iter().flatten().map(Secret::expose).collect();
        sanitize(message, &secrets)
    }
}

/// Decodes percent-encoding; `None` for an invalid code, or for text that is not UTF-8.
fn percent_decode_strict(text: &str) -> Option<Secret> {
    let is_code = |code: &[u8]| code.iter().all(u8::is_ascii_hexdigit);
    if !text.split('%').skip(1).all(|rest| rest.as_bytes().get(..2).is_some_and(is_code)) {
        return None;
    }
    Some(Secret::from(std::str::from_utf8(&percent_decode(text.as_bytes())).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_the_server_and_the_credentials() {
        for (url, tls, name, user, password, database) in [
            ("redis://cache", false, "cache:6379", None, None, ""),
            ("rediss://cache:7/2", true, "cache:7", None, None, "2"),
            ("redis://[::1]", false, "[::1]:6379", None, None, ""),
            ("redis://[::1]:9/", false, "[::1]:9", None, None, ""),
            // An empty port, as in "$HOST:$PORT" with PORT unset, is the default.
            ("redis://cache:", false, "cache:6379", None, None, ""),
            ("redis://cache:/0", false, "cache:6379", None, None, "0"),
            ("rediss://[::1]:/1", true, "[::1]:6379", None, None, "1"),
            ("redis://:p@cache:/0", false, "cache:6379", None, Some("p"), "0"),
            ("redis://cache:06380", false, "cache:6380", None, None, ""),
            ("redis://:p%40ss@cache", false, "cache:6379", None, Some("p@ss"), ""),
            ("redis://me:a/b@cache", false, "cache:6379", Some("me"), Some("a/b"), ""),
        ] {
            let parsed = RedisUrl::parse(url).unwrap();
            assert_eq!((parsed.tls, parsed.name().as_str(), parsed.database.as_str()), (tls, name, database), "{url}");
            assert_eq!((parsed.user, parsed.password), (user.map(Secret::from), password.map(Secret::from)), "{url}");
        }
        for bad in [
            "redis://",
            "redis://a b",
            "redis://a:b:c",
            "redis://a:0",
            "redis://a:+6379",
            "redis://a:-1",
            "redis://a:65536",
            "redis://a:6379:",
            "redis://a: 6379",
            "redis://[::1]6379",
            "redis://[::1]:+6379",
            "redis://:p@",
            "redis://:p@:6379",
            "redis://a?b",
            "redis://a#b",
            "redis://a/x",
            "redis://a/1?b",
            "redis://:%zz@a",
            "redis://:%4@a",
            "redis://:%ff@a",
            "redis://me@a",
        ] {
            assert_eq!(RedisUrl::parse(bad), None, "{bad}");
        }
        assert!(!format!("{:?}", RedisUrl::parse("redis://me:hush@cache")).contains("hush"));
    }
}
