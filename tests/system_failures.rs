//! Failures of the process and the machine: exhausted descriptors, memory and disks, signals, and clock changes.
//!
//! Each row runs tests/c/system_failures.c, a C program that uses the shared library, in its own process with
//! one fault; the program's output becomes a row of docs/system-failures.md. This test compares the page, and
//! AMP_UPDATE_FAULTS=1 rewrites it. In every row the same cache must work again when the fault is over. A row that
//! cannot be set up on this machine (a mount namespace, IPv6) is reported in the test's output, and not compared.
//! AMP_ONLY_FAULT=storm runs the rows of one fault, and compares nothing.
#![cfg(target_os = "linux")]

mod support;

use amp_emulator::{CertificateKind, Emulator, Fault};
use std::any::Any;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use support::net::{ESTABLISHED, RawServer, connect_proxy, relay};
use support::{C_FLAGS, compile, normalize, require_tool, root, scratch};

/// Far more than any row needs, because the machine may be busy: a row that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(300);

type Answer = Box<dyn FnMut(&str)>;

/// The environment of the program in one row.
#[derive(Default)]
struct Environment {
    settings: Vec<(&'static str, String)>,
    arguments: Vec<String>,
    /// Does what the program requests.
    answer: Option<Answer>,
    /// What must exist until the row is over.
    kept: Vec<Box<dyn Any>>,
}

impl Environment {
    fn set(mut self, name: &'static str, value: impl ToString) -> Self {
        self.settings.retain(|(have, _)| *have != name);
        self.settings.push((name, value.to_string()));
        self
    }

    fn keep(mut self, thing: impl Any) -> Self {
        self.kept.push(Box::new(thing));
        self
    }

    fn argument(mut self, text: impl ToString) -> Self {
        self.arguments.push(text.to_string());
        self
    }

    fn answer(mut self, answer: impl FnMut(&str) + 'static) -> Self {
        self.answer = Some(Box::new(answer));
        self
    }

    /// With a file store in the row's own directory.
    fn store(self, name: &str) -> Self {
        let directory = own_directory(name);
        self.set("STORE", "file").set("STORE_DIR", directory.display())
    }
}

/// A new and empty directory that only its owner may use.
fn own_directory(name: &str) -> PathBuf {
    let directory = scratch("resources").join(name);
    let _ = std::fs::remove_dir_all(&directory);
    let _ = std::fs::remove_file(&directory);
    std::fs::DirBuilder::new().mode(0o700).create(&directory).unwrap();
    directory
}

/// The settings for an emulator. Nothing is tried again, so that nothing is hidden.
fn environment(emulator: &Emulator) -> Environment {
    Environment::default()
        .set("CLIENT_ID", emulator.client_id())
        .set("CLIENT_SECRET", emulator.client_secret())
        .set("AUTH_URL", emulator.url())
        .set("API_URL", emulator.url())
        .set("RETRIES", 0)
        .set("PROXY", "none")
        // What machines trust is in one file, or in many, which take more descriptors. Here it is nothing.
        .set("SSL_CERT_FILE", "/nonexistent")
        .set("SSL_CERT_DIR", "")
}

fn http() -> (Emulator, Environment) {
    let emulator = Emulator::builder().start().unwrap();
    let environment = environment(&emulator);
    (emulator, environment)
}

fn https() -> (Emulator, Environment) {
    let emulator = Emulator::builder().tls(true).start().unwrap();
    let environment = environment(&emulator).set("SSL_CERT_FILE", emulator.ca_file().display());
    (emulator, environment)
}

/// The lifetime of tokens in rows that refresh them, in seconds. A busy machine that took as long for a request would
/// get tokens that have already expired.
const LIFETIME: u64 = 8;

fn with_short_lifetime((emulator, environment): (Emulator, Environment)) -> (Emulator, Environment) {
    emulator.set_expires_in(LIFETIME);
    (emulator, environment)
}

/// A service that only has to run.
fn setup_only((emulator, environment): (Emulator, Environment)) -> Environment {
    environment.keep(emulator)
}

/// A service that responds slowly.
fn slow((emulator, environment): (Emulator, Environment)) -> (Emulator, Environment) {
    emulator.fault(Fault::latency_ms(300).forever());
    (emulator, environment)
}

fn port(emulator: &Emulator) -> SocketAddr {
    ([127, 0, 0, 1], emulator.port()).into()
}

/// When to hang up on a connection: after so many bytes of the client's, or of the server's. The number
/// is that of the connection, which is different each time.
enum Cut {
    Request(fn(u64) -> u64),
    Reply(fn(u64) -> u64),
}

/// Passes connections on, but hangs up in the middle of each. A polite end comes first and a reset after
/// it, so that the next byte that is sent meets EPIPE, and raises SIGPIPE unless that is prevented.
/// Healthy once the flag is set.
fn hanging_up(target: SocketAddr, cut: Cut) -> (SocketAddr, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (mended, count) = (Arc::new(AtomicBool::new(false)), AtomicU64::new(0));
    let flag = mended.clone();
    RawServer::serve(listener, move |client| {
        let server = TcpStream::connect(target)?;
        if flag.load(Ordering::SeqCst) {
            relay(&client, &server);
            return Ok(());
        }
        let number = count.fetch_add(1, Ordering::SeqCst);
        let (mut from, mut to, allowed) = match cut {
            Cut::Request(allowed) => (&client, &server, allowed(number)),
            Cut::Reply(allowed) => (&server, &client, allowed(number)),
        };
        std::thread::scope(|scope| {
            scope.spawn(move || std::io::copy(&mut to, &mut from));
            let _ = std::io::copy(&mut from.take(allowed), &mut to);
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        });
        reset(&client);
        Ok(())
    });
    (address, mended)
}

/// Has the connection end in a reset when it is closed.
fn reset(stream: &TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the descriptor is open for as long as `stream` is borrowed, and the option is read from
    // `linger`, whose size is given, during the call only.
    let failure = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
    assert_eq!(failure, 0);
}

/// A proxy that opens every tunnel, to the requested port of this machine. Returns its own port.
fn proxy(listener: TcpListener) -> u16 {
    connect_proxy(listener, None, |_| ESTABLISHED).address.port()
}

/// HTTPS through a proxy whose name must be resolved.
fn via_named_proxy((emulator, environment): (Emulator, Environment)) -> Environment {
    let port = proxy(TcpListener::bind("127.0.0.1:0").unwrap());
    setup_only((emulator, environment.set("PROXY", format!("http://proxy.test:{port}"))))
}

/// Stops closing connections when the program requests it.
fn until_mended(environment: Environment, mended: Arc<AtomicBool>) -> Environment {
    environment.answer(move |_| mended.store(true, Ordering::SeqCst))
}

/// A listener whose queue of connections is full: it leaves a SYN unanswered, like a host that does not exist.
fn black_hole(address: &str) -> (TcpListener, Vec<TcpStream>) {
    let listener = TcpListener::bind(address).unwrap();
    // SAFETY: the descriptor is open, and listening once more only sets the length of the queue.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let mut queue = Vec::new();
    let there = listener.local_addr().unwrap();
    while let Ok(stream) = TcpStream::connect_timeout(&there, Duration::from_millis(200)) {
        queue.push(stream);
    }
    (listener, queue)
}

fn on_ipv6() -> Result<TcpListener, &'static str> {
    TcpListener::bind("[::1]:0").map_err(|_| "this machine has no IPv6")
}

/// A Redis server that ends with the row.
struct Redis(Child, u16);

impl Redis {
    fn start() -> Result<Redis, &'static str> {
        if !cfg!(feature = "redis") {
            return Err("the library was built without the feature redis");
        }
        if !require_tool("redis-server") {
            return Err("redis-server is missing");
        }
        loop {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut server = Command::new("redis-server")
                .args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string()])
                .stdout(Stdio::null())
                .spawn()
                .expect("redis-server starts");
            // Until it listens, or has ended because another process took the port.
            while server.try_wait().unwrap().is_none() {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Ok(Redis(server, port));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

type Setup = fn() -> Result<Environment, &'static str>;

/// The name of a row, the fault of the program, and what is around it, or why that cannot be had here.
const ROWS: &[(&str, &str, Setup)] = &[
    ("no descriptor is left at the first get", "no-descriptors", || Ok(setup_only(http()))),
    ("0, 1, 2, … descriptors are left: a secret in a file, a file store, HTTPS", "few-descriptors", || {
        let (emulator, environment) = https();
        let secret = scratch("resources").join("secret");
        std::fs::write(&secret, emulator.client_secret()).unwrap();
        let environment = environment.set("CLIENT_SECRET", "").set("CLIENT_SECRET_FILE", secret.display());
        Ok(setup_only((emulator, environment.store("few"))))
    }),
    ("0, 1, 2, … descriptors are left: a proxy's name must be resolved, `ca_file`", "few-descriptors", || {
        let (emulator, environment) = https();
        let environment = environment.set("CA_FILE", emulator.ca_file().display()).store("few-lookup");
        Ok(via_named_proxy((emulator, environment)))
    }),
    ("0, 1, 2, … descriptors are left: Redis, HTTPS", "few-descriptors", || {
        let redis = Redis::start()?;
        Ok(setup_only(https()).set("STORE", format!("redis://127.0.0.1:{}", redis.1)).keep(redis))
    }),
    ("no descriptor is left for a refresh", "no-descriptor-for-a-renewal", || {
        Ok(setup_only(with_short_lifetime(https())))
    }),
    ("file store on a full disk", "full-disk", || stored("full")),
    ("file store, and files may not grow (RLIMIT_FSIZE)", "file-size", || stored("size")),
    ("file store becomes read-only", "read-only", || stored("read-only")),
    ("file store's directory is replaced by a file", "file-in-place", || stored("file")),
    ("file store's directory is deleted", "folder-deleted", || stored("deleted")),
    ("file store on a disk that stands still: written to", "disk-stands-still-for-writers", || stored("writers")),
    ("file store on a disk that stands still: read, too", "disk-stands-still", || stored("still")),
    ("0, 8, 16, … KiB of memory are left (RLIMIT_AS)", "little-memory", || Ok(setup_only(https()))),
    ("no thread can be started: name resolution", "no-thread-for-a-lookup", || Ok(via_named_proxy(https()))),
    ("no thread can be started: file store", "no-thread-for-a-store", || stored("no-thread")),
    ("no thread can be started: `background_refresh`", "no-thread-for-renewals", || {
        Ok(setup_only(with_short_lifetime(http())))
    }),
    ("1,000 signals a second at every thread: HTTP", "storm", || Ok(setup_only(slow(http())))),
    ("1,000 signals a second at every thread: HTTPS", "storm", || Ok(setup_only(slow(https())))),
    ("1,000 signals a second at every thread: name resolution, and a proxy", "storm", || {
        Ok(via_named_proxy(slow(https())))
    }),
    ("1,000 signals a second at every thread: waiting for the lock of a file store", "storm", || {
        let directory = own_directory("storm");
        Ok(setup_only(slow(http())).set("STORE", "file").argument(directory.display()))
    }),
    ("1,000 signals a second at every thread: waiting for the lock in Redis", "storm", || {
        let redis = Redis::start()?;
        let place = format!("redis://127.0.0.1:{}", redis.1);
        Ok(setup_only(slow(http())).argument(place).keep(redis))
    }),
    ("the server hangs up, SIGPIPE not ignored: HTTP", "hung-up-on", || {
        Ok(cut_off(http(), Cut::Request(|number| number * 61 % 200)))
    }),
    ("the server hangs up, SIGPIPE not ignored: HTTPS", "hung-up-on", || {
        Ok(cut_off(https(), Cut::Request(|number| number * 61 % 500)))
    }),
    ("the server hangs up, SIGPIPE not ignored: a proxy", "hung-up-on", || {
        let (emulator, environment) = https();
        let proxy = proxy(TcpListener::bind("127.0.0.1:0").unwrap());
        let (address, mended) = hanging_up(([127, 0, 0, 1], proxy).into(), Cut::Request(|number| number * 61 % 500));
        Ok(until_mended(setup_only((emulator, environment.set("PROXY", format!("http://{address}")))), mended))
    }),
    ("the server hangs up, SIGPIPE not ignored: Redis", "hung-up-on", || {
        let redis = Redis::start()?;
        let (address, mended) = hanging_up(([127, 0, 0, 1], redis.1).into(), Cut::Reply(|number| number % 8 * 5));
        let environment = setup_only(http()).set("STORE", format!("redis://{address}")).keep(redis);
        Ok(until_mended(environment, mended))
    }),
    ("the server hangs up amid a large upload, SIGPIPE not ignored: HTTP", "hung-up-on-while-sending", || {
        Ok(cut_upload(http()))
    }),
    ("the server hangs up amid a large upload, SIGPIPE not ignored: HTTPS", "hung-up-on-while-sending", || {
        Ok(cut_upload(https()))
    }),
    ("the wall clock is set a day ahead, and back", "a-day-ahead", || Ok(setup_only(with_short_lifetime(http())))),
    ("the wall clock is set a day back, and ahead", "a-day-back", || Ok(setup_only(with_short_lifetime(http())))),
    ("a file store, shared with a process a day ahead", "one-a-day-ahead", || stored("ahead")),
    ("a file store, shared with a process a day behind", "one-a-day-back", || stored("behind")),
    ("name resolution hangs, for 200 caches", "hanging-lookups", || {
        Ok(via_named_proxy(https()).set("TIMEOUT_MS", 4000))
    }),
    ("the first address of a name does not answer", "look-up", || {
        let proxy = proxy(TcpListener::bind("127.0.0.1:0").unwrap());
        let hole = black_hole(&format!("127.0.0.2:{proxy}"));
        let environment = setup_only(https()).set("PROXY", format!("http://proxy.test:{proxy}"));
        Ok(environment.set("CONNECT_TIMEOUT_MS", 6000).argument("127.0.0.2 127.0.0.1").keep(hole))
    }),
    ("a name has IPv6 addresses only", "look-up", || {
        let proxy = proxy(on_ipv6()?);
        Ok(setup_only(https()).set("PROXY", format!("http://proxy.test:{proxy}")).argument("::1"))
    }),
    ("localhost listens on ::1 only", "look-up", || {
        let (emulator, environment) = http();
        let listener = on_ipv6()?;
        let (here, there) = (listener.local_addr().unwrap().port(), port(&emulator));
        RawServer::serve(listener, move |stream| {
            relay(&stream, &TcpStream::connect(there)?);
            Ok(())
        });
        Ok(setup_only((emulator, environment.set("AUTH_URL", format!("http://localhost:{here}")))))
    }),
    ("localhost listens on 127.0.0.1 only", "look-up", || {
        let (emulator, environment) = http();
        let url = emulator.url().replace("127.0.0.1", "localhost");
        Ok(setup_only((emulator, environment.set("AUTH_URL", url))))
    }),
    ("the server's certificate is renewed, then another authority's, then good again", "other-certificates", || {
        let (emulator, environment) = with_short_lifetime(https());
        Ok(environment.answer(move |what| {
            let other = what == "another authority";
            let kind = if other { CertificateKind::UnknownAuthority } else { CertificateKind::Valid };
            emulator.set_certificate(kind).unwrap();
        }))
    }),
    ("10,000 caches in one process", "many-caches", || {
        let (emulator, environment) = http();
        // (Signing ten thousand tokens is not what this is about.)
        let reply = serde_json::json!({"access_token": "t".repeat(1000), "session_expires_in": 0, "expires_in": 300});
        emulator.fault(Fault::response(reply).forever());
        Ok(setup_only((emulator, environment)))
    }),
];

/// A file store, and tokens that expire soon.
fn stored(name: &str) -> Result<Environment, &'static str> {
    Ok(setup_only(with_short_lifetime(http())).store(name))
}

/// The service behind what hangs up on token requests.
fn cut_off((emulator, environment): (Emulator, Environment), cut: Cut) -> Environment {
    let (address, mended) = hanging_up(port(&emulator), cut);
    let url = emulator.url().replace(&emulator.port().to_string(), &address.port().to_string());
    until_mended(setup_only((emulator, environment.set("AUTH_URL", url))), mended)
}

/// The service behind what hangs up on requests to the API.
fn cut_upload((emulator, environment): (Emulator, Environment)) -> Environment {
    let (address, mended) = hanging_up(port(&emulator), Cut::Request(|number| number * 61_000 % 500_000));
    let url = emulator.url().replace(&emulator.port().to_string(), &address.port().to_string());
    until_mended(setup_only((emulator, environment.set("API_URL", url))), mended)
}

/// What came of a row: the rest of its line, or why there is none.
fn outcome(name: &str, fault: &str, setup: Setup, program: &Path) -> Result<String, String> {
    let start = Instant::now();
    let mut environment = setup()?;
    let mut command = support::program(program);
    command.arg(fault).args(&environment.arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    for (setting, value) in &environment.settings {
        let prefix = if setting.starts_with("SSL_") { "" } else { "AMPLIENCE_" };
        command.env(format!("{prefix}{setting}"), value);
    }
    let mut child = command.process_group(0).spawn().unwrap();
    let (mut input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    let (over, patience) = channel::<()>();
    let group = -libc::pid_t::try_from(child.id()).unwrap();
    let watch = std::thread::spawn(move || {
        let hangs = patience.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout);
        if hangs {
            // SAFETY: it touches no memory, and the group is that of a child that was not waited for yet.
            unsafe { libc::kill(group, libc::SIGKILL) };
        }
        hangs
    });
    let (mut line, mut left_out, mut done) = (None, None, false);
    for told in output.lines().map_while(Result::ok) {
        let words: Vec<_> = told.split('\t').collect();
        match words.as_slice() {
            ["outcome", status, again, says] => {
                line = Some(format!("{status} | {again} | {}", normalize(says, &scratch("resources"))))
            }
            ["ask", what] => {
                environment.answer.as_mut().expect("a function for requests of the program")(what);
                input.write_all(b"\n").unwrap();
            }
            ["measured", what] => println!("measured: {name}: {what}"),
            ["left out", why] => left_out = Some((*why).to_owned()),
            ["done"] => done = true,
            _ => panic!("{name}: {told}"),
        }
    }
    println!("measured: {name}: {:.1} s in all", start.elapsed().as_secs_f64());
    drop(over);
    assert!(!watch.join().unwrap(), "{name}: hangs, after {line:?}");
    let status = child.wait().unwrap();
    assert!(status.success(), "{name}: the program ended with {status}, after {line:?}");
    match (line, left_out) {
        (_, Some(why)) => Err(why),
        (Some(line), None) if done => Ok(line),
        (line, None) => panic!("{name}: the program did not get to its end, after {line:?}"),
    }
}

const HEAD: &str = "# Faults of the machine

Exhausted descriptors, memory and disks, signals, and clock changes, and how the library reports each. Written by
tests/system_failures.rs: each row is a C program that uses the shared library, in its own process, with a real fault
and without retries; ports, times and paths in messages are left out. In every row the same cache returns tokens again
when the fault is over, and no thread, descriptor or unfinished file is left behind. Faults of the network and the
service are in [failure-modes.md](failure-modes.md).

| fault | status | retryable | message |
| --- | --- | --- | --- |
";

#[test]
fn the_table_of_machine_faults() {
    if !require_tool("cc") {
        return;
    }
    let program = scratch("resources").join("program");
    let lifetime = format!("-DLIFETIME={LIFETIME}");
    compile("cc", &[C_FLAGS, &[&lifetime]].concat(), &root().join("tests/c/system_failures.c"), &program, &["-ldl"]);
    let path = root().join("docs/system-failures.md");
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let only = std::env::var("AMP_ONLY_FAULT").ok();
    let rows: Vec<_> = ROWS.iter().filter(|(_, fault, _)| only.as_ref().is_none_or(|only| fault == only)).collect();
    // The rows are independent of each other, and most of their time is waiting.
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            rows.iter().map(|(name, fault, setup)| scope.spawn(|| outcome(name, fault, *setup, &program))).collect();
        threads.into_iter().map(|thread| thread.join()).collect()
    });
    let (mut made, mut failures) = (HEAD.to_owned(), Vec::new());
    for ((name, _, _), result) in rows.into_iter().zip(results) {
        let start = format!("| {name} | ");
        let line = match result {
            Ok(Ok(line)) => format!("{start}{line} |"),
            // What was seen elsewhere stays as it is.
            Ok(Err(why)) => {
                println!("LEFT OUT: {name}: {why}");
                kept.lines().find(|line| line.starts_with(&start)).unwrap_or_default().to_owned()
            }
            Err(panic) => {
                failures.push(panic.downcast_ref::<String>().cloned().unwrap_or_default());
                continue;
            }
        };
        writeln!(made, "{line}").unwrap();
    }
    println!("{made}");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    if only.is_some() {
        return;
    }
    if std::env::var_os("AMP_UPDATE_FAULTS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    for (made, kept) in made.lines().zip(kept.lines()) {
        assert_eq!(
            made, kept,
            "docs/system-failures.md is out of date: AMP_UPDATE_FAULTS=1 cargo test --test system_failures"
        );
    }
    assert_eq!(made.lines().count(), kept.lines().count());
}
