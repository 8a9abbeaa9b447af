//! The table of machine faults: what happens when it is not the network that fails, but the process or
//! the machine has run out of something, is disturbed, or was set to another day.
//!
//! Each row is tests/c/system_failures.c, a C program over the shared library, in a process of its own with
//! one fault; what it tells is a row of docs/system-failures.md. This test compares, and AMP_UPDATE_FAULTS=1
//! rewrites it. In every row the same cache must work again when the fault is over. A row that cannot be
//! set up here (a mount namespace, IPv6) says so in the test's output, and is not compared.
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
use support::{C_FLAGS, compile, program, root, scratch};

/// Far more than any row needs, because the machine may be busy: who is not done by then hangs.
const PATIENCE: Duration = Duration::from_secs(300);

type Answer = Box<dyn FnMut(&str)>;

/// What is around the program in one row.
#[derive(Default)]
struct World {
    settings: Vec<(&'static str, String)>,
    arguments: Vec<String>,
    /// Does what the program asks for.
    answer: Option<Answer>,
    /// What must stay until the row is over.
    kept: Vec<Box<dyn Any>>,
}

impl World {
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

    /// With a file store in a folder of the row's own.
    fn store(self, name: &str) -> Self {
        let folder = own_folder(name);
        self.set("STORE", "file").set("STORE_DIR", folder.display())
    }
}

/// A new and empty folder that only its owner may use.
fn own_folder(name: &str) -> PathBuf {
    let folder = scratch("resources").join(name);
    let _ = std::fs::remove_dir_all(&folder);
    let _ = std::fs::remove_file(&folder);
    std::fs::DirBuilder::new().mode(0o700).create(&folder).unwrap();
    folder
}

/// The settings for an emulator. Nothing is tried again, so that nothing is hidden.
fn world(emulator: &Emulator) -> World {
    World::default()
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

fn http() -> (Emulator, World) {
    let emulator = Emulator::builder().start().unwrap();
    let world = world(&emulator);
    (emulator, world)
}

fn https() -> (Emulator, World) {
    let emulator = Emulator::builder().tls(true).start().unwrap();
    let world = world(&emulator).set("SSL_CERT_FILE", emulator.ca_file().display());
    (emulator, world)
}

/// The lifetime of tokens where they are to be renewed, in seconds.
const LIFETIME: u64 = 3;

fn renewing((emulator, world): (Emulator, World)) -> (Emulator, World) {
    emulator.set_expires_in(LIFETIME);
    (emulator, world)
}

/// Where there is nothing to do but be there.
fn merely((emulator, world): (Emulator, World)) -> World {
    world.keep(emulator)
}

/// A service that takes its time.
fn slow((emulator, world): (Emulator, World)) -> (Emulator, World) {
    emulator.fault(Fault::latency_ms(300).forever());
    (emulator, world)
}

fn port(emulator: &Emulator) -> SocketAddr {
    ([127, 0, 0, 1], emulator.port()).into()
}

/// Serves every connection to `listener` in a thread of its own.
fn serve(listener: TcpListener, connection: impl Fn(TcpStream) + Send + Sync + 'static) {
    let connection = Arc::new(connection);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = connection.clone();
            std::thread::spawn(move || connection(stream));
        }
    });
}

fn both_ways(a: &TcpStream, b: &TcpStream) {
    let copy = |from: &TcpStream, to: &TcpStream| {
        let (mut from, mut to) = (from, to);
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| copy(b, a));
        copy(a, b);
    });
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
    serve(listener, move |client| {
        let Ok(server) = TcpStream::connect(target) else { return };
        if flag.load(Ordering::SeqCst) {
            return both_ways(&client, &server);
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
    });
    (address, mended)
}

/// Has the connection end in a reset when it is closed.
fn reset(stream: &TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the descriptor is open for as long as `stream` is borrowed, and the option is read from
    // `linger`, whose size is told, during the call only.
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

/// A proxy that opens every tunnel, to this machine whatever is asked for.
fn proxy(listener: TcpListener) -> u16 {
    let port = listener.local_addr().unwrap().port();
    serve(listener, |stream| {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") && (&stream).read(&mut byte).is_ok_and(|read| read == 1) {
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head);
        let port = head.split([' ', ':']).nth(2).and_then(|port| port.parse::<u16>().ok());
        if let Some(server) = port.and_then(|port| TcpStream::connect(("127.0.0.1", port)).ok()) {
            let _ = (&stream).write_all(b"HTTP/1.1 200 Connection established\r\n\r\n");
            both_ways(&stream, &server);
        }
    });
    port
}

/// HTTPS through a proxy whose name must be looked up.
fn behind_a_name((emulator, world): (Emulator, World)) -> World {
    let port = proxy(TcpListener::bind("127.0.0.1:0").unwrap());
    merely((emulator, world.set("PROXY", format!("http://proxy.test:{port}"))))
}

/// What hangs up must be asked to stop.
fn until_mended(world: World, mended: Arc<AtomicBool>) -> World {
    world.answer(move |_| mended.store(true, Ordering::SeqCst))
}

/// Takes connections at this address's backlog, and then leaves them unanswered, as a host does that is
/// not there: the queue is full.
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
        loop {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut server = Command::new("redis-server")
                .args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string()])
                .stdout(Stdio::null())
                .spawn()
                .expect("this test needs redis-server: apt-get install redis-server");
            // Until it listens, or has ended because somebody else took the port.
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

type Setup = fn() -> Result<World, &'static str>;

/// The name of a row, the fault of the program, and what is around it, or why that cannot be had here.
const ROWS: &[(&str, &str, Setup)] = &[
    ("no descriptor is left at the first get", "no-descriptors", || Ok(merely(http()))),
    ("0, 1, 2, … descriptors are left: a secret in a file, a file store, HTTPS", "few-descriptors", || {
        let (emulator, world) = https();
        let secret = scratch("resources").join("secret");
        std::fs::write(&secret, emulator.client_secret()).unwrap();
        let world = world.set("CLIENT_SECRET", "").set("CLIENT_SECRET_FILE", secret.display());
        Ok(merely((emulator, world.store("few"))))
    }),
    ("0, 1, 2, … descriptors are left: a proxy's name must be looked up, `ca_file`", "few-descriptors", || {
        let (emulator, world) = https();
        let world = world.set("CA_FILE", emulator.ca_file().display()).store("few-lookup");
        Ok(behind_a_name((emulator, world)))
    }),
    ("0, 1, 2, … descriptors are left: Redis, HTTPS", "few-descriptors", || {
        let redis = Redis::start()?;
        Ok(merely(https()).set("STORE", format!("redis://127.0.0.1:{}", redis.1)).keep(redis))
    }),
    ("no descriptor is left for a renewal", "no-descriptor-for-a-renewal", || Ok(merely(renewing(https())))),
    ("file store on a full disk", "full-disk", || stored("full")),
    ("file store, and files may not grow (RLIMIT_FSIZE)", "file-size", || stored("size")),
    ("file store becomes read-only", "read-only", || stored("read-only")),
    ("file store's folder is replaced by a file", "file-in-place", || stored("file")),
    ("file store's folder is deleted", "folder-deleted", || stored("deleted")),
    ("file store on a disk that stands still: written to", "disk-stands-still-for-writers", || stored("writers")),
    ("file store on a disk that stands still: read, too", "disk-stands-still", || stored("still")),
    ("0, 8, 16, … KiB of memory are left (RLIMIT_AS)", "little-memory", || Ok(merely(https()))),
    ("no thread can be started: look-up of a name", "no-thread-for-a-lookup", || Ok(behind_a_name(https()))),
    ("no thread can be started: file store", "no-thread-for-a-store", || stored("no-thread")),
    ("no thread can be started: `background_refresh`", "no-thread-for-renewals", || Ok(merely(renewing(http())))),
    ("1,000 signals a second at every thread: HTTP", "storm", || Ok(merely(slow(http())))),
    ("1,000 signals a second at every thread: HTTPS", "storm", || Ok(merely(slow(https())))),
    ("1,000 signals a second at every thread: look-up of a name, and a proxy", "storm", || {
        Ok(behind_a_name(slow(https())))
    }),
    ("1,000 signals a second at every thread: waiting for the lock of a file store", "storm", || {
        let folder = own_folder("storm");
        Ok(merely(slow(http())).set("STORE", "file").argument(folder.display()))
    }),
    ("1,000 signals a second at every thread: waiting for the lock in Redis", "storm", || {
        let redis = Redis::start()?;
        let place = format!("redis://127.0.0.1:{}", redis.1);
        Ok(merely(slow(http())).argument(place).keep(redis))
    }),
    ("the server hangs up, SIGPIPE not ignored: HTTP", "hung-up-on", || {
        Ok(cut_off(http(), Cut::Request(|number| number * 61 % 200)))
    }),
    ("the server hangs up, SIGPIPE not ignored: HTTPS", "hung-up-on", || {
        Ok(cut_off(https(), Cut::Request(|number| number * 61 % 500)))
    }),
    ("the server hangs up, SIGPIPE not ignored: a proxy", "hung-up-on", || {
        let (emulator, world) = https();
        let proxy = proxy(TcpListener::bind("127.0.0.1:0").unwrap());
        let (address, mended) = hanging_up(([127, 0, 0, 1], proxy).into(), Cut::Request(|number| number * 61 % 500));
        Ok(until_mended(merely((emulator, world.set("PROXY", format!("http://{address}")))), mended))
    }),
    ("the server hangs up, SIGPIPE not ignored: Redis", "hung-up-on", || {
        let redis = Redis::start()?;
        let (address, mended) = hanging_up(([127, 0, 0, 1], redis.1).into(), Cut::Reply(|number| number % 8 * 5));
        let world = merely(http()).set("STORE", format!("redis://{address}")).keep(redis);
        Ok(until_mended(world, mended))
    }),
    ("the server hangs up amid a large upload, SIGPIPE not ignored: HTTP", "hung-up-on-while-sending", || {
        Ok(cut_upload(http()))
    }),
    ("the server hangs up amid a large upload, SIGPIPE not ignored: HTTPS", "hung-up-on-while-sending", || {
        Ok(cut_upload(https()))
    }),
    ("the wall clock is set a day ahead, and back", "a-day-ahead", || Ok(merely(renewing(http())))),
    ("the wall clock is set a day back, and ahead", "a-day-back", || Ok(merely(renewing(http())))),
    ("a file store, shared with a process a day ahead", "one-a-day-ahead", || stored("ahead")),
    ("a file store, shared with a process a day behind", "one-a-day-back", || stored("behind")),
    ("the look-up of a name hangs, for 200 caches", "hanging-lookups", || {
        Ok(behind_a_name(https()).set("CONNECT_TIMEOUT_MS", 1000))
    }),
    ("the first address of a name does not answer", "look-up", || {
        let proxy = proxy(TcpListener::bind("127.0.0.1:0").unwrap());
        let hole = black_hole(&format!("127.0.0.2:{proxy}"));
        let world = merely(https()).set("PROXY", format!("http://proxy.test:{proxy}"));
        Ok(world.set("CONNECT_TIMEOUT_MS", 6000).argument("127.0.0.2 127.0.0.1").keep(hole))
    }),
    ("a name has IPv6 addresses only", "look-up", || {
        let proxy = proxy(on_ipv6()?);
        Ok(merely(https()).set("PROXY", format!("http://proxy.test:{proxy}")).argument("::1"))
    }),
    ("localhost listens on ::1 only", "look-up", || {
        let (emulator, world) = http();
        let listener = on_ipv6()?;
        let (here, there) = (listener.local_addr().unwrap().port(), port(&emulator));
        serve(listener, move |stream| both_ways(&stream, &TcpStream::connect(there).unwrap()));
        Ok(merely((emulator, world.set("AUTH_URL", format!("http://localhost:{here}")))))
    }),
    ("localhost listens on 127.0.0.1 only", "look-up", || {
        let (emulator, world) = http();
        let url = emulator.url().replace("127.0.0.1", "localhost");
        Ok(merely((emulator, world.set("AUTH_URL", url))))
    }),
    ("the server's certificate is renewed, then another authority's, then good again", "other-certificates", || {
        let (emulator, world) = renewing(https());
        Ok(world.answer(move |what| {
            let other = what == "another authority";
            let kind = if other { CertificateKind::UnknownAuthority } else { CertificateKind::Valid };
            emulator.set_certificate(kind).unwrap();
        }))
    }),
    ("10,000 caches in one process", "many-caches", || {
        let (emulator, world) = http();
        // (Signing ten thousand tokens is not what this is about.)
        let reply = serde_json::json!({"access_token": "t".repeat(1000), "session_expires_in": 0, "expires_in": 300});
        emulator.fault(Fault::response(reply).forever());
        Ok(merely((emulator, world)))
    }),
];

/// A file store, and tokens that die soon.
fn stored(name: &str) -> Result<World, &'static str> {
    Ok(merely(renewing(http())).store(name))
}

/// The service behind what hangs up on token requests.
fn cut_off((emulator, world): (Emulator, World), cut: Cut) -> World {
    let (address, mended) = hanging_up(port(&emulator), cut);
    let url = emulator.url().replace(&emulator.port().to_string(), &address.port().to_string());
    until_mended(merely((emulator, world.set("AUTH_URL", url))), mended)
}

/// The service behind what hangs up on requests to the API.
fn cut_upload((emulator, world): (Emulator, World)) -> World {
    let (address, mended) = hanging_up(port(&emulator), Cut::Request(|number| number * 61_000 % 500_000));
    let url = emulator.url().replace(&emulator.port().to_string(), &address.port().to_string());
    until_mended(merely((emulator, world.set("API_URL", url))), mended)
}

/// What came of a row: the rest of its line, or why there is none.
fn outcome(name: &str, fault: &str, setup: Setup, victim: &Path) -> Result<String, String> {
    let start = Instant::now();
    let mut world = setup()?;
    let mut command = program(victim);
    command.arg(fault).args(&world.arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    for (setting, value) in &world.settings {
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
            ["outcome", status, again, says] => line = Some(format!("{status} | {again} | {}", general(says))),
            ["ask", what] => {
                world.answer.as_mut().expect("somebody who answers")(what);
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

/// A text without what differs from run to run: folders, ports, times and the names of entries.
fn general(text: &str) -> String {
    let text = text.replace(&scratch("resources").display().to_string(), "…").replace('|', "/");
    let mut parts = text.split(" (next attempt in ");
    let first = parts.next().unwrap_or_default().to_owned();
    let text = parts.fold(first, |text, part| text + part.split_once(')').map_or("", |(_, after)| after));
    let is_name = |word: &&str| word.len() == 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_port = |word: &str| word.len() >= 4 && word.bytes().all(|byte| byte.is_ascii_digit());
    let pieces = text.split_inclusive([' ', ':', '/', '.', '<']).map(|piece| {
        let word = piece.trim_end_matches([' ', ':', '/', '.', '<']);
        let name = if is_name(&word) {
            "NAME"
        } else if is_port(word) {
            "N"
        } else {
            word
        };
        name.to_owned() + &piece[word.len()..]
    });
    pieces.collect()
}

const HEAD: &str = "# Faults of the machine

What happens when a process has run out of something, is disturbed, or finds itself in another day. Made by
tests/system_failures.rs: each row is a C program over the shared library in a process of its own, with a real fault,
without retries; ports and paths in messages are left out. In every row the same cache hands out tokens again when
the fault is over, and no thread, descriptor or unfinished file is left behind. What the library makes of faults of
the network and the service is in [failure-modes.md](failure-modes.md).

| fault | status | retryable | what is said |
| --- | --- | --- | --- |
";

#[test]
fn the_table_of_machine_faults() {
    let victim = scratch("resources").join("victim");
    let lifetime = format!("-DLIFETIME={LIFETIME}");
    compile("cc", &[C_FLAGS, &[&lifetime]].concat(), &root().join("tests/c/system_failures.c"), &victim, &["-ldl"]);
    let path = root().join("docs/system-failures.md");
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let only = std::env::var("AMP_ONLY_FAULT").ok();
    let rows: Vec<_> = ROWS.iter().filter(|(_, fault, _)| only.as_ref().is_none_or(|only| fault == only)).collect();
    // The rows are independent of each other, and most of their time is waiting.
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            rows.iter().map(|(name, fault, setup)| scope.spawn(|| outcome(name, fault, *setup, &victim))).collect();
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
