//! The store of many machines: sealed entries in a Redis or Valkey server.
//!
//! - **It is not waited for.** Every exchange, connecting and TLS included, ends within half a second,
//!   or less for callers with little time; after one that failed, the server is left alone for some
//!   seconds, and all that is asked of the store meanwhile is answered by "not there".
//! - **One machine asks for all.** The lock is a key with an owner and a short life: that of a machine
//!   that died ends by itself, and only its owner can end it earlier.
//! - **No clock is trusted for long.** An entry is removed by the server when its time is over, and the
//!   time that the server leaves it counts even where this machine's clock would give it more.
//! - A connection belongs to one process: a store that a forked child inherits is of no use to it.
//!
//! The protocol is RESP 2. Of it, six commands are needed, and a client library would bring more than
//! forty crates, wait for name look-ups without a bound, and trust other certificates than the rest.

use super::resp::{Command, Value, encode, read_reply};
use super::seal::EntryCipher;
use super::{Entry, LockResult, Store, WarnOnce};
use crate::config::settings::{NetworkOptions, Options};
use crate::error::{Error, Kind, Result};
use crate::net::tcp::{Peer, Stream, connect, resolve};
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

/// The longest that one exchange may take; and never more than an eighth of `timeout_ms`, because
/// three of them may come before the request. What they save is one request, so they may not cost more.
const IO_TIMEOUT: Duration = Duration::from_millis(500);

/// How long a server that failed is left alone.
const FAILURE_COOLDOWN: Duration = Duration::from_secs(5);

/// How long a connection is kept for the next exchange: the few of one renewal follow each other
/// closely, and what has been idle for longer may have been cut off on the way.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// The life of a lock. A holder who takes longer loses it, which costs a second request; a holder who
/// died keeps the others waiting for no longer than this.
const LOCK_TTL: Duration = Duration::from_secs(5);

/// The longest pause between two looks at a lock that somebody else holds.
const LOCK_POLL_MAX: Duration = Duration::from_millis(100);

/// Deletes a key if it has a certain value.
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
    /// Understands the URL; sends nothing.
    pub(super) fn open(options: &Options, seal: EntryCipher, url: &str) -> Result<Self> {
        fork::install_fork_hook();
        let place = RedisUrl::parse(url).ok_or_else(|| {
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
                place,
                patience: IO_TIMEOUT.min(options.timeout / 8),
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

    /// The stored bytes, and how long the server will keep them.
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
        let place = &self.server.place;
        format!("{}://{}", if place.tls { "rediss" } else { "redis" }, place.name())
    }

    fn load(&self) -> Option<Entry> {
        // Before asking: the answer was true at some time after.
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

/// A server, and at most one connection to it.
struct RedisClient {
    place: RedisUrl,
    patience: Duration,
    network: NetworkOptions,
    clock: Clock,
    warnings: WarnOnce,
    /// The process whose connection it is.
    generation: u64,
    /// Until this monotonic time nothing is asked of it.
    unavailable_until: AtomicI64,
    tls: OnceBox<TlsConnector>,
    link: Mutex<PooledConnection>,
}

#[derive(Default)]
struct PooledConnection {
    /// The connection, and until when it is good for another exchange.
    open: Option<(Connection, i64)>,
}

impl RedisClient {
    /// One exchange with one command. A refusal is no answer.
    fn command(&self, command: Command) -> Option<Value> {
        self.pipeline(&[command])?.pop()
    }

    /// Sends commands together and reads their replies, as many. `None`: it failed, or one of them
    /// was refused.
    fn pipeline(&self, commands: &[Command]) -> Option<Vec<Value>> {
        if self.generation != fork::generation()
            || self.clock.now().monotonic < self.unavailable_until.load(Ordering::Relaxed)
        {
            return None;
        }
        let problem = match self.exchange(commands) {
            Ok(replies) => match replies.iter().find_map(Value::error) {
                None => return Some(replies),
                // It works, if not as it should: a user without the right to delete, for example.
                Some(words) => format!("{} answered: {}", self.place.name(), self.place.sanitize(words)),
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
        let deadline = IoDeadline::after(self.patience);
        // Nobody holds it for longer than one exchange.
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = link.open.take().filter(|(_, until)| self.clock.now().monotonic < *until);
        let (connection, replies) = match kept.and_then(|(mut connection, _)| {
            let replies = connection.pipeline(commands, deadline).ok()?;
            Some((connection, replies))
        }) {
            Some(done) => done,
            // None was kept, or it was cut off meanwhile.
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
        let RedisUrl { tls, host, port, user, password, database } = &self.place;
        let peer = Peer::server(host, *port);
        let found = resolve(host, *port, &peer, deadline)?;
        let (wire, _) = connect(&found, &peer, deadline)?;
        let mut stream: Box<dyn Stream> = Box::new(wire);
        if *tls {
            let connector = self.tls.get_or_try_init(|| TlsConnector::load(&self.network).map(Box::new))?;
            stream = Box::new(connector.handshake(stream, host, &peer, ClientCertificate::Withheld, deadline)?.0);
        }
        // A reply to AUTH may repeat the password. A buffer that held it would not be wiped: so it holds one byte.
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
        let refused = hello.iter().zip(&replies).find_map(|(command, reply)| Some((command[0], reply.error()?)));
        match refused {
            Some((b"AUTH", words)) => {
                let code = self.place.sanitize(error_code(words));
                let code = if code.is_empty() { code } else { format!(": {code}") };
                Err(Error::new(Kind::Config, format!("{} refused the login{code}", self.place.name()))
                    .with_hint("check the user name and password in store"))
            }
            Some((_, words)) => {
                let words = self.place.sanitize(words);
                Err(Error::new(Kind::Config, format!("{} refused database {database}: {words}", self.place.name())))
            }
            None => Ok(Connection(BufReader::new(connection.0.into_inner()))),
        }
    }

    fn io_error(&self, error: &io::Error) -> Error {
        let words = format!("the exchange with {} failed: {}", self.place.name(), sanitize(&error.to_string(), &[]));
        Error::new(Kind::Connect, words)
    }
}

/// The first word of a server's refusal, if it is a code such as `WRONGPASS`. Redis repeats the arguments of
/// commands that it does not know, so what follows may be a part of the password.
fn error_code(words: &str) -> &str {
    let code = words.split([' ', '\r', '\n']).next().unwrap_or_default();
    let is_code = code.len() <= 32 && code.bytes().all(|byte| byte.is_ascii_uppercase());
    if is_code { code } else { "" }
}

fn secret_bytes(secret: &Secret) -> &[u8] {
    secret.expose().as_bytes()
}

/// A connection that is between two exchanges, or broken and to be dropped.
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

/// What a URL says about a server.
#[derive(Debug, PartialEq, Eq)]
struct RedisUrl {
    tls: bool,
    host: String,
    port: u16,
    user: Option<Secret>,
    password: Option<Secret>,
    /// Its number in digits; empty for the first.
    database: String,
}

impl RedisUrl {
    fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let (login, rest) = match rest.rsplit_once('@') {
            Some((login, rest)) => (Some(login), rest),
            None => (None, rest),
        };
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, ""))) {
            Some((user, password)) => (Some(percent_decode_strict(user)?), Some(percent_decode_strict(password)?)),
            None => (None, None),
        };
        let (host, port) = split_authority(authority)?;
        let (user, password) = (user.filter(|user| !user.is_empty()), password.filter(|password| !password.is_empty()));
        let login_makes_sense = user.is_none() || password.is_some();
        let sensible = login_makes_sense && database.bytes().all(|byte| byte.is_ascii_digit());
        sensible.then(|| RedisUrl {
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

    /// A server's words, without the secrets of the login.
    fn sanitize(&self, words: &str) -> String {
        let secrets: Vec<_> = [&self.user, &self.password].into_iter().flatten().map(Secret::expose).collect();
        sanitize(words, &secrets)
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
    fn a_url_says_where_and_who() {
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
            let place = RedisUrl::parse(url).unwrap();
            assert_eq!((place.tls, place.name().as_str(), place.database.as_str()), (tls, name, database), "{url}");
            assert_eq!((place.user, place.password), (user.map(Secret::from), password.map(Secret::from)), "{url}");
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
