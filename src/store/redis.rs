//! The store of many machines: encrypted entries in a Redis or Valkey server.
//!
//! - **Every exchange has a time limit.** It ends within half a second, or less if `timeout_ms` is short,
//!   including connecting and TLS. After a failure, the server is not used for some seconds, and all entries count
//!   as absent.
//! - **One machine requests a token for all.** The lock is a key with an owner and a short lifetime: that of a
//!   machine that crashed expires, and only its owner can delete it earlier.
//! - **An entry has two expiry times.** The server deletes it when its token expires. The remaining time on the
//!   server counts even if the entry is valid for longer by this machine's clock.
//! - A connection belongs to one process: a forked child does not use the store that it inherits.
//!
//! The protocol is in [`resp`](super::resp), with the reasons why no library is used.

use super::resp::{Command, Value, encode, read_reply};
use super::seal::EntryCipher;
use super::{Entry, LockResult, Store, WarnOnce};
use crate::config::{NetworkOptions, Options};
use crate::error::{Error, Kind, Result};
use crate::net::connect::connect;
use crate::net::resolve::resolve;
use crate::net::tcp::{Peer, Stream};
use crate::net::tls::{ClientCertificate, TlsConnector};
use crate::net::url::{host_and_port, percent_decode, split_authority};
use crate::sanitize::sanitize;
use crate::sys::clock::Clock;
use crate::sys::deadline::IoDeadline;
use crate::sys::fork;
use crate::sys::secret::Secret;
use once_cell::race::OnceBox;
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

/// The lifetime of a lock. A holder that takes longer loses it, which costs a second request. After a holder has
/// crashed, the others wait for at most this time.
const LOCK_TTL: Duration = Duration::from_secs(5);

/// The longest time between two attempts to take a lock that another process or thread holds.
const LOCK_POLL_MAX: Duration = Duration::from_millis(100);

/// A Lua script that deletes a key if it has a certain value.
const COMPARE_AND_DELETE: &[u8] =
    b"if redis.call('get',KEYS[1])==ARGV[1] then return redis.call('del',KEYS[1]) end return 0";

pub(super) struct RedisStore {
    seal: EntryCipher,
    entry: String,
    lock: String,
    clock: Clock,
    server: Arc<RedisClient>,
}

impl RedisStore {
    /// Parses the URL; sends nothing.
    pub(super) fn open(options: &Options, seal: EntryCipher, url: &str) -> Result<Self> {
        fork::install_fork_hook();
        let url = RedisUrl::parse(url).ok_or_else(|| {
            Error::new(Kind::Config, "store is not the URL of a Redis server")
                .with_hint("use redis://[user:password@]host[:port][/database], or rediss:// for TLS")
        })?;
        let name = seal.name();
        Ok(RedisStore {
            seal,
            entry: format!("amp-token:{name}"),
            lock: format!("amp-token:{name}:lock"),
            clock: options.clock.clone(),
            server: Arc::new(RedisClient {
                url,
                io_timeout: IO_TIMEOUT.min(options.timeout / 8),
                network: options.network.clone(),
                clock: options.clock.clone(),
                warnings: WarnOnce::new(&options.log),
                generation: fork::generation(),
                unavailable_until: AtomicI64::new(i64::MIN),
                tls: OnceBox::new(),
                link: Mutex::default(),
            }),
        })
    }

    /// The stored bytes, and the time until the server deletes them.
    fn fetch(&self) -> Option<(Vec<u8>, Duration)> {
        let key = self.entry.as_bytes();
        match <[Value; 2]>::try_from(self.server.pipeline(&[&[b"GET", key], &[b"PTTL", key]])?).ok()? {
            [Value::Bulk(sealed), Value::Integer(left)] => {
                Some((sealed, Duration::from_millis(u64::try_from(left).ok()?)))
            }
            _ => None,
        }
    }
}

impl Store for RedisStore {
    fn location(&self) -> String {
        let url = &self.server.url;
        format!("{}://{}", if url.tls { "rediss" } else { "redis" }, url.name())
    }

    fn load(&self) -> Option<Entry> {
        // Read before the exchange, because the server's reply is true at some time after that.
        let now = self.clock.now();
        let (sealed, left) = self.fetch()?;
        let mut entry = self.server.warnings.open(&self.seal, &sealed, now)?;
        entry.expires = entry.expires.min(now.after(left).wall);
        (entry.expires > entry.issued).then_some(entry)
    }

    fn lock(&self, wait: Duration) -> LockResult {
        let mut random = [0; 16];
        if SystemRandom::new().fill(&mut random).is_err() {
            return LockResult::Unavailable;
        }
        let owner = format!("{:032x}", u128::from_ne_bytes(random));
        let life = LOCK_TTL.as_millis().to_string();
        let end = self.clock.now().after(wait).monotonic;
        for turn in 1_u32.. {
            let take: Command = &[b"SET", self.lock.as_bytes(), owner.as_bytes(), b"NX", b"PX", life.as_bytes()];
            match self.server.command(take) {
                Some(Value::Bulk(_)) => break,
                Some(Value::Nil) => {}
                _ => return LockResult::Unavailable,
            }
            let left = Duration::from_nanos(u64::try_from(end - self.clock.now().monotonic).unwrap_or(0));
            if left.is_zero() {
                return LockResult::Busy;
            }
            let pause = LOCK_POLL_MAX.min(Duration::from_millis(5 << turn.min(8)));
            self.clock.sleep((Duration::from_millis(5) + self.clock.random_below(pause)).min(left));
        }
        LockResult::Held(Box::new(LockGuard { server: self.server.clone(), lock: self.lock.clone(), owner }))
    }

    fn save(&self, entry: &Entry) {
        let left = entry.expires.saturating_sub(self.clock.now().wall) / 1_000_000;
        if let Some(sealed) = self.seal.seal(entry).filter(|_| left > 0) {
            self.server.command(&[b"SET", self.entry.as_bytes(), &sealed, b"PX", left.to_string().as_bytes()]);
        }
    }

    fn remove(&self, token: &str) {
        let Some((sealed, _)) = self.fetch() else { return };
        if self.seal.open(&sealed, self.clock.now()).is_ok_and(|entry| entry.token.expose() == token) {
            self.server.command(&[b"EVAL", COMPARE_AND_DELETE, b"1", self.entry.as_bytes(), &sealed]);
        }
    }
}

/// The lock, while it is held.
struct LockGuard {
    server: Arc<RedisClient>,
    lock: String,
    owner: String,
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        // In a forked child this does nothing, and the lock stays the parent's.
        self.server.command(&[b"EVAL", COMPARE_AND_DELETE, b"1", self.lock.as_bytes(), self.owner.as_bytes()]);
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
    tls: OnceBox<TlsConnector>,
    link: Mutex<PooledConnection>,
}

#[derive(Default)]
struct PooledConnection {
    /// The connection, and until when it may be used for another exchange.
    open: Option<(Connection, i64)>,
}

impl RedisClient {
    /// Exchanges one command. `None` if the exchange failed or the reply is an error.
    fn command(&self, command: Command) -> Option<Value> {
        self.pipeline(&[command])?.pop()
    }

    /// Sends commands together and reads a reply to each. `None` if the exchange failed or a reply is an error.
    fn pipeline(&self, commands: &[Command]) -> Option<Vec<Value>> {
        if self.generation != fork::generation()
            || self.clock.now().monotonic < self.unavailable_until.load(Ordering::Relaxed)
        {
            return None;
        }
        let problem = match self.exchange(commands) {
            Ok(replies) => match replies.iter().find_map(Value::error) {
                None => return Some(replies),
                // The server works, but rejects a command: its user may lack a permission, for example.
                Some(message) => format!("{} returned an error: {}", self.url.name(), self.url.sanitize(message)),
            },
            Err(error) => {
                self.unavailable_until.store(self.clock.now().after(FAILURE_COOLDOWN).monotonic, Ordering::Relaxed);
                error.to_string()
            }
        };
        self.warnings.report(&problem);
        None
    }

    fn exchange(&self, commands: &[Command]) -> Result<Vec<Value>> {
        let deadline = IoDeadline::after(self.io_timeout);
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
        link.open = Some((connection, self.clock.now().after(IDLE_TIMEOUT).monotonic));
        Ok(replies)
    }

    fn connect(&self, deadline: IoDeadline) -> Result<Connection> {
        let RedisUrl { tls, host, port, user, password, database } = &self.url;
        let peer = Peer::server(host, *port);
        let found = resolve(host, *port, &peer, deadline)?;
        let (wire, _) = connect(&found, &peer, deadline)?;
        let mut stream: Box<dyn Stream> = Box::new(wire);
        if *tls {
            let connector = self.tls.get_or_try_init(|| TlsConnector::load(&self.network).map(Box::new))?;
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
        commands.iter().map(|_| read_reply(&mut self.0)).collect()
    }
}

/// The URL of a server.
#[derive(Debug, PartialEq, Eq)]
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
