//! The store of many machines. Needs `redis-server` and `redis-cli`, and listens on the loopback address only.
//!
//! The store gives up an exchange with the server after half a second. On a busy machine that happens to a healthy
//! server too; then the process requests a token itself, as it should, and the run shows nothing about the store.
//! A test that needs a healthy server repeats such a run, at most [`RUNS`] times.

use crate::support::*;
use amp_emulator::Emulator;
use amp_token::config::credentials::Credentials;
use amp_token::net::transport::{Request, Response};
use amp_token::store::LockResult;
use amp_token::sys::clock::{Clock, ManualClock};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

const PASSWORD: &str = "open sesame/@:%";
const PASSWORD_IN_URL: &str = "open%20sesame%2F%40%3a%25";

/// How often a test repeats a run that a busy machine disturbed.
const RUNS: usize = 20;

/// Whether this machine has a Redis server and its client.
pub fn has_redis() -> bool {
    require_tool("redis-server") && require_tool("redis-cli")
}

/// A server that is stopped at the end of the test.
pub struct Redis {
    server: Child,
    pub port: u16,
    arguments: Vec<String>,
    directory: TempDir,
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Redis {
    fn start(arguments: &[&str]) -> Self {
        let directory = temp_dir();
        // Another process may take the port before the server does: then with another port.
        for _ in 0..10 {
            let port = free_port();
            let arguments: Vec<_> = arguments
                .iter()
                .map(|word| {
                    word.replace("{port}", &port.to_string()).replace("{directory}", directory.path().to_str().unwrap())
                })
                .collect();
            if let Some(server) = Redis::launch(&arguments, port, &directory) {
                return Redis { server, port, arguments, directory };
            }
        }
        panic!("redis-server does not start");
    }

    pub fn plain() -> Self {
        Redis::start(&["--port", "{port}"])
    }

    fn launch(arguments: &[String], port: u16, directory: &TempDir) -> Option<Child> {
        let mut server = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--daemonize", "no", "--dir"])
            .arg(directory.path())
            .args(arguments)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server starts");
        loop {
            if server.try_wait().unwrap().is_some() {
                return None;
            }
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(server);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn stop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }

    fn restart(&mut self) {
        self.stop();
        self.server = Redis::launch(&self.arguments, self.port, &self.directory).expect("the same port");
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// What `redis-cli` answers to a command.
    pub fn command(&self, words: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args(words)
            .output()
            .expect("redis-cli starts");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub fn key(&self, pattern: &str) -> String {
        self.command(&["KEYS", pattern])
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.stop();
    }
}

fn emulator() -> Emulator {
    Emulator::builder().start().unwrap()
}

fn store(url: &str) -> (TestStore, Lines) {
    Settings::dummy().with("store", url).store()
}

/// Two stores of the same client.
fn pair(url: &str) -> (TestStore, TestStore) {
    let settings = Settings::dummy().with("store", url);
    (settings.store().0, settings.store().0)
}

/// A server, its URL, and perhaps the file of its authority's certificate.
type Started = (Redis, String, Option<String>);

/// Whether the store gave up an exchange with a server for lack of time.
fn is_late(warning: &str) -> bool {
    warning.contains("timed out") || warning.contains("within 500 ms")
}

/// The first warning of a process that gets a token is this one.
fn warns(settings: &Settings, expected: &str) {
    let mut warning = String::new();
    for _ in 0..RUNS {
        let (cache, lines) = settings.cache();
        cache.get().unwrap();
        warning = lines.warnings().remove(0);
        if warning.contains(expected) {
            return;
        }
        assert!(is_late(&warning), "{warning}");
    }
    panic!("{warning}");
}

/// Eight machines, which share nothing but a server, make one request. Returns the server.
fn eight_make_one_request(start: impl Fn() -> Started) -> Redis {
    let mut warnings = Vec::new();
    for _ in 0..RUNS {
        let (redis, url, ca_file) = start();
        let emulator = emulator();
        let mut settings = Settings::of(&emulator).with("store", &url);
        if let Some(file) = ca_file {
            settings = settings.with("ca_file", &file);
        }
        let pause = emulator.pause_token_requests();
        let mut processes: Vec<_> = (0..8).map(|_| Process::start("get", &settings)).collect();
        assert!(emulator.wait_for_token_requests(1, LONG));
        pause.release();
        let tokens: BTreeSet<_> = processes.iter_mut().map(|process| process.expect_line("token ")).collect();
        warnings = processes.iter().flat_map(|process| process.warnings().to_vec()).collect();
        if warnings.is_empty() {
            assert_eq!((emulator.stats().token_requests, tokens.len()), (1, 1));
            return redis;
        }
    }
    panic!("no run without warnings: {warnings:?}");
}

#[test]
fn eight_machines_make_one_request() {
    if !has_redis() {
        return;
    }
    eight_make_one_request(|| {
        let redis = Redis::plain();
        let url = redis.url();
        (redis, url, None)
    });
}

#[test]
fn eight_machines_make_one_request_with_a_password_and_a_database() {
    if !has_redis() {
        return;
    }
    let redis = eight_make_one_request(|| {
        let redis = Redis::start(&["--port", "{port}", "--requirepass", PASSWORD]);
        let url = format!("redis://:{PASSWORD_IN_URL}@127.0.0.1:{}/3", redis.port);
        (redis, url, None)
    });
    let entries = redis.command(&["-a", PASSWORD, "--no-auth-warning", "-n", "3", "KEYS", "amp-token:*"]);
    assert_eq!(entries.lines().count(), 1, "the lock was released: {entries}");
}

#[test]
fn eight_machines_make_one_request_over_tls() {
    if !has_redis() {
        return;
    }
    let files = temp_dir();
    eight_make_one_request(|| {
        let (ca, url, redis) = with_tls(&files, "no");
        (redis, url, Some(ca))
    });
}

/// A server that speaks TLS only, its CA's file, and its URL. `auth_clients` is its setting for certificates of
/// clients; the server's own, with its key, serves as one.
fn with_tls(files: &TempDir, auth_clients: &str) -> (String, String, Redis) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let file = |name: &str, content: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let mut authority = CertificateParams::new([]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let ca = file("ca.pem", &authority.self_signed(&authority_key).unwrap().pem());
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = certificate.signed_by(&key, &Issuer::new(authority, authority_key)).unwrap();
    let (certificate, key) = (file("server.pem", &certificate.pem()), file("key.pem", &key.serialize_pem()));
    let redis = Redis::start(&[
        "--port",
        "0",
        "--tls-port",
        "{port}",
        "--tls-auth-clients",
        auth_clients,
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
    ]);
    (ca, format!("rediss://localhost:{}", redis.port), redis)
}

#[test]
fn a_server_that_is_not_trusted_is_not_used() {
    if !has_redis() {
        return;
    }
    let files = temp_dir();
    let (_, url, _redis) = with_tls(&files, "no");
    // Not the server's authority.
    let emulator = Emulator::builder().tls(true).start().unwrap();
    let ca = emulator.ca_file().to_str().unwrap();
    let settings = Settings::of(&emulator).with("store", &url).with("ca_file", ca);
    warns(&settings, "certificate");
}

#[test]
fn a_client_certificate_is_not_sent_to_redis() {
    if !has_redis() {
        return;
    }
    let (emulator, files) = (emulator(), temp_dir());
    let (ca, url, _redis) = with_tls(&files, "yes");
    let file = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
    let settings = Settings::of(&emulator).with("store", &url).with("ca_file", &ca);
    let settings = settings.with("client_certificate", &file("server.pem")).with("client_key", &file("key.pem"));
    warns(&settings, "requires a client certificate, which is only sent to the servers");
}

#[test]
fn a_leader_that_is_killed_costs_one_more_request() {
    if !has_redis() {
        return;
    }
    let mut warnings = Vec::new();
    for _ in 0..RUNS {
        let (emulator, redis) = (emulator(), Redis::plain());
        let settings = Settings::of(&emulator).with("store", &redis.url());
        let pause = emulator.pause_token_requests();
        let mut leader = Process::start("get", &settings);
        assert!(emulator.wait_for_token_requests(1, LONG));
        let mut others: Vec<_> = (0..7).map(|_| Process::start("get", &settings)).collect();
        leader.signal(libc::SIGKILL);
        assert!(!leader.wait_success());
        pause.release();
        // Its lock expires.
        let tokens: BTreeSet<_> = others.iter_mut().map(|process| process.expect_line("token ")).collect();
        warnings = others.iter().flat_map(|process| process.warnings().to_vec()).collect();
        // The leader that could not use the server holds no lock there.
        if warnings.is_empty() {
            assert_eq!((emulator.stats().token_requests, tokens.len()), (2, 1));
            return;
        }
    }
    panic!("no run without warnings: {warnings:?}");
}

#[test]
fn an_entry_reveals_nothing_and_expires_in_time() {
    if !has_redis() {
        return;
    }
    let redis = Redis::plain();
    let (one, two) = pair(&redis.url());
    let saved = entry("the-token");
    one.save(&saved);
    let loaded = two.load().unwrap();
    assert_eq!(loaded.token, saved.token);
    assert!(loaded.lifetime <= saved.lifetime);
    let key = redis.key("*");
    assert!(key.starts_with("amp-token:") && !key.contains("somebody"), "{key}");
    assert!(!redis.command(&["GET", &key]).contains("the-token"));
    let left: u128 = redis.command(&["PTTL", &key]).parse().unwrap();
    assert!((1..=LONG.as_millis()).contains(&left), "{left}");
    // The server's idea of what is left counts if it is less.
    redis.command(&["PEXPIRE", &key, "30000"]);
    let shortened = two.load().unwrap();
    assert!(shortened.lifetime <= Duration::from_secs(31));
    redis.command(&["PERSIST", &key]);
    assert_eq!(two.load(), None, "not ours: ours has an end");
    redis.command(&["SET", &key, "garbage", "PX", "60000"]);
    assert_eq!(two.load(), None);
}

#[test]
fn only_that_token_is_removed() {
    if !has_redis() {
        return;
    }
    let redis = Redis::plain();
    let (one, two) = pair(&redis.url());
    one.remove("none");
    one.save(&entry("kept"));
    two.remove("another");
    assert!(one.load().is_some());
    two.remove("kept");
    assert_eq!(one.load(), None);
    assert_eq!(redis.key("*"), "");
}

#[test]
fn a_lock_is_released_by_its_owner_only() {
    if !has_redis() {
        return;
    }
    let redis = Redis::plain();
    let (one, two) = pair(&redis.url());
    let mine = one.lock(Duration::ZERO);
    assert!(is_held(&mine));
    assert!(matches!(two.lock(Duration::from_millis(20)), LockResult::Busy));
    let life: u64 = redis.command(&["PTTL", &redis.key("*:lock")]).parse().unwrap();
    assert!((1..=5000).contains(&life), "{life}");
    // It lasted too long, and the next one came.
    redis.command(&["DEL", &redis.key("*:lock")]);
    let theirs = two.lock(Duration::ZERO);
    assert!(is_held(&theirs));
    drop(mine);
    assert!(matches!(one.lock(Duration::ZERO), LockResult::Busy));
    drop(theirs);
    assert!(is_held(&one.lock(Duration::ZERO)));
    assert_eq!(redis.key("*"), "");
}

#[test]
fn a_forked_child_leaves_its_parents_connection_and_lock_alone() {
    if !has_redis() {
        return;
    }
    let redis = Redis::plain();
    let settings = Settings::dummy().with("store", &redis.url());
    let mut holder = Process::start("lock, fork and drop", &settings);
    holder.expect_line("child ");
    // The child dropped what it inherited.
    assert!(matches!(settings.store().0.lock(Duration::ZERO), LockResult::Busy));
}

#[test]
fn a_broken_connection_is_replaced() {
    if !has_redis() {
        return;
    }
    let mut warnings = Vec::new();
    for _ in 0..RUNS {
        let mut redis = Redis::plain();
        let (store, lines) = store(&redis.url());
        store.save(&entry("one"));
        redis.restart();
        store.save(&entry("two"));
        let loaded = store.load();
        warnings = lines.warnings();
        if warnings.is_empty() {
            assert_eq!(loaded.unwrap().token.expose(), "two");
            return;
        }
    }
    panic!("no run without warnings: {warnings:?}");
}

#[test]
fn a_server_that_failed_is_not_asked_during_the_cooldown() {
    let closing = RawServer::start(|_| Ok(()));
    let url = format!("redis://{}", closing.address);
    let clock = ManualClock::new(1);
    let (mut config, _) = Settings::default().with("store", &url).config();
    config.clock = Clock::Manual(clock.clone());
    let credentials = Credentials::Client { id: "id".into(), secret: "a secret of some length".into() };
    let store = TestStore::open(config.options().unwrap(), &credentials);
    for round in 1..=3 {
        for _ in 0..5 {
            assert_eq!(store.load(), None);
            assert!(matches!(store.lock(LONG), LockResult::Unavailable));
            store.save(&entry("token"));
            store.remove("token");
        }
        assert_eq!(closing.connections(), round);
        clock.advance(Duration::from_secs(10));
    }
}

/// A process gets a token although its store is broken, and reports the cause once.
fn works_without(url: &str, reported: &str) {
    let mut warnings = Vec::new();
    for _ in 0..RUNS {
        let emulator = emulator();
        let (cache, lines) = Settings::of(&emulator).with("store", url).cache();
        for _ in 0..2 {
            let token = cache.get().unwrap();
            cache.invalidate(&token);
        }
        warnings = lines.warnings();
        assert_eq!((warnings.len(), emulator.stats().token_requests), (1, 2), "{warnings:?}");
        assert!(!warnings[0].contains("sesame"), "{warnings:?}");
        if warnings[0].contains(reported) {
            return;
        }
        assert!(is_late(&warnings[0]), "{reported}: {warnings:?}");
    }
    panic!("{reported}: {warnings:?}");
}

#[test]
fn a_broken_server_costs_one_warning() {
    // A port that is bound and does not listen rejects every connection.
    let closed = ClosedPort::new();
    works_without(&format!("redis://{}", closed.address()), "cannot connect to");
    // One that accepts and never responds.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    works_without(&format!("redis://{}", silent.local_addr().unwrap()), "failed: timed out");
    works_without(&format!("rediss://localhost:{}", silent.local_addr().unwrap().port()), "TLS handshake");
    let emulator = emulator();
    let http = emulator.url().replace("http://", "redis://");
    works_without(&http, "is not valid in the protocol of Redis");
    works_without(&format!("redis://{UNKNOWN_HOST}"), &format!("cannot resolve {UNKNOWN_HOST}:6379"));
}

#[test]
fn a_redis_server_that_rejects_or_stalls_costs_one_warning() {
    if !has_redis() {
        return;
    }
    let redis = Redis::start(&["--port", "{port}", "--requirepass", PASSWORD]);
    works_without(&redis.url(), "NOAUTH");
    works_without(&format!("redis://:sesame@127.0.0.1:{}", redis.port), "rejected the credentials: WRONGPASS");
    let stopped = Redis::plain();
    let id = libc::pid_t::try_from(stopped.server.id()).unwrap();
    // SAFETY: it touches no memory, and the process is our child and not yet waited for.
    assert_eq!(unsafe { libc::kill(id, libc::SIGSTOP) }, 0);
    works_without(&stopped.url(), "failed: timed out");
}

#[test]
fn only_the_code_of_a_login_error_is_reported() {
    if !has_redis() {
        return;
    }
    let password = "sesame-".repeat(60);
    // Redis repeats the arguments of a command that it does not know.
    let redis = Redis::start(&["--port", "{port}", "--rename-command", "AUTH", ""]);
    works_without(&format!("redis://:{password}@127.0.0.1:{}", redis.port), "rejected the credentials: ERR; check");
    for (words, shown) in [
        ("WRONGPASS of sesame-sesame-sesame", "rejected the credentials: WRONGPASS; check the user name and password"),
        ("sesame-sesame-sesame is wrong", "rejected the credentials; check the user name and password"),
        ("SESAME-", "rejected the credentials; check the user name and password"),
        ("ERR\x1b[31m", "rejected the credentials; check the user name and password"),
        ("", "rejected the credentials; check the user name and password"),
    ] {
        let server = RawServer::start(move |mut stream| {
            let _ = stream.read(&mut [0; 1024])?;
            stream.write_all(format!("-{words}\r\n").as_bytes())
        });
        works_without(&format!("redis://:{password}@{}", server.address), shown);
    }
}

#[test]
fn a_rejected_database_is_named() {
    if !has_redis() {
        return;
    }
    let redis = Redis::plain();
    works_without(&format!("{}/99", redis.url()), "rejected database 99: ERR DB index is out of range");
}

/// An exchange may take an eighth of the time that the call has, so that enough is left for the request.
#[test]
fn a_silent_server_uses_an_eighth_of_the_time() {
    let silent = RawServer::start(|mut stream| read_until_eof(&mut stream));
    let settings = Settings::dummy().with("store", &format!("rediss://localhost:{}", silent.address.port()));
    let (mut config, lines) = settings.with("timeout_ms", "4000").config();
    // The deadline of the call does not move, whatever this machine does.
    config.clock = Clock::Manual(ManualClock::new(1));
    config.transport = Some(Arc::new(|_: &Request, _: Duration| {
        let headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
        let body = br#"{"access_token":"token","expires_in":300}"#.to_vec();
        Ok(Response { status: 200, headers, body: body.into() })
    }));
    amp_token::token::cache::TokenCache::new(&config).unwrap().get().unwrap();
    let warnings = lines.warnings();
    assert!(warnings.len() == 1 && warnings[0].contains("within 500 ms"), "{warnings:?}");
    assert_eq!(silent.connections(), 1, "the server is asked once");
}

#[test]
fn an_invalid_url_is_rejected_without_being_repeated() {
    let (config, _) = Settings::dummy().with("store", "redis://:sesame@cache/nonsense").config();
    let error = amp_token::token::cache::TokenCache::new(&config).err().unwrap();
    assert_eq!(error.kind(), amp_token::error::Kind::Config);
    assert!(!error.to_string().contains("sesame"), "{error}");
}
