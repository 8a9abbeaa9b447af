//! The fault table: what users meet, and what the library makes of it.
//!
//! Each row sets up one fault on a real socket, asks for a token at the most talkative log level, and
//! notes the status, whether it may be tried again, and the number of requests that the service saw.
//! The table is docs/failure-modes.md; this test compares, and AMP_UPDATE_FAULTS=1 rewrites it. Every row
//! uses a secret with a random mark in it, and none of the texts that come out may hold that mark.

use amp_emulator::{CertificateKind, Emulator, Fault};
use amp_token::config::settings::Config;
use amp_token::error::{Error, Kind};
use amp_token::log::Log;
use amp_token::token::provider;
use serde_json::json;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// What a row prepares: the settings, and how many requests the service has seen.
struct Row {
    settings: Vec<(&'static str, String)>,
    requests: Box<dyn Fn() -> u64>,
}

impl Row {
    fn set(mut self, name: &'static str, value: impl ToString) -> Self {
        self.settings.retain(|(have, _)| *have != name);
        self.settings.push((name, value.to_string()));
        self
    }
}

/// The random mark of this run; it looks like nothing that is scrubbed by its looks.
fn mark() -> &'static str {
    static MARK: OnceLock<String> = OnceLock::new();
    MARK.get_or_init(|| {
        use std::hash::BuildHasher;
        format!("mk{:016x}", std::hash::RandomState::new().hash_one(Instant::now()))
    })
}

/// The secret: with the mark, and with every kind of character that an encoding could get wrong.
fn secret() -> String {
    format!("{} a+/=&%~é", mark())
}

fn service(prepare: impl FnOnce(amp_emulator::Builder) -> amp_emulator::Builder, faults: Vec<Fault>) -> Row {
    let emulator = prepare(Emulator::builder().client("fault-table", secret())).start().unwrap();
    emulator.faults(faults);
    let emulator = Arc::new(emulator);
    let counted = emulator.clone();
    Row {
        settings: vec![("auth_url", emulator.url()), ("client_id", "fault-table".into()), ("client_secret", secret())],
        requests: Box::new(move || counted.stats().token_requests),
    }
}

/// A service on plain HTTP with one fault.
fn plain(fault: Fault) -> Row {
    service(|builder| builder, vec![fault])
}

/// A service on HTTPS, with its authority's certificate in ca_file.
fn tls(certificate: CertificateKind) -> Row {
    let path = OnceLock::new();
    let row = service(
        |builder| {
            // Rows run side by side, each with an authority of its own.
            static NEXT: AtomicU64 = AtomicU64::new(1000);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let file = folder().join(format!("{number}.pem"));
            path.set(file.clone()).unwrap();
            builder.tls(true).certificate(certificate).ca_file(file)
        },
        vec![],
    );
    row.set("ca_file", path.get().unwrap().display())
}

/// A server of the test's own, which does with each connection what HTTP servers will not.
fn raw(connection: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> Row {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, seen) = (listener.local_addr().unwrap(), Arc::new(AtomicU64::new(0)));
    let (count, connection) = (seen.clone(), Arc::new(connection));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            count.fetch_add(1, Ordering::SeqCst);
            let (mut stream, connection) = (stream, connection.clone());
            std::thread::spawn(move || connection(&mut stream));
        }
    });
    Row {
        settings: vec![
            ("auth_url", format!("http://{address}")),
            ("client_id", "fault-table".into()),
            ("client_secret", secret()),
        ],
        requests: Box::new(move || seen.load(Ordering::SeqCst)),
    }
}

/// Reads up to the end of the headers.
fn head(stream: &mut TcpStream) -> String {
    let (mut text, mut byte) = (Vec::new(), [0]);
    while !text.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
        text.push(byte[0]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Holds the connection until the other side lets go of it.
fn hold(stream: &mut TcpStream) {
    let _ = stream.read_to_end(&mut Vec::new());
}

fn reply(text: &'static str) -> Row {
    raw(move |stream| {
        head(stream);
        let _ = stream.write_all(text.as_bytes());
    })
}

fn both_ways(a: &TcpStream, b: &TcpStream) {
    let (mut from, mut to) = (a.try_clone().unwrap(), b.try_clone().unwrap());
    let back = std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    let (mut from, mut to) = (b.try_clone().unwrap(), a.try_clone().unwrap());
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(std::net::Shutdown::Write);
    let _ = back.join();
}

/// A proxy in front of a healthy HTTPS service. `check_api` sees the head of a CONNECT request and
/// answers; 200 opens the tunnel.
fn proxied(url: impl Fn(&str) -> String, judge: impl Fn(&str) -> &'static str + Send + Sync + 'static) -> Row {
    let row = tls(CertificateKind::Valid);
    let proxy = raw(move |stream| {
        let asked = head(stream);
        let answer = judge(&asked);
        let _ = stream.write_all(answer.as_bytes());
        if answer.contains(" 200 ") {
            let target = asked.split(' ').nth(1).unwrap_or_default().replace("localhost", "127.0.0.1");
            both_ways(stream, &TcpStream::connect(target).unwrap());
        }
    });
    let address = proxy.settings[0].1.trim_start_matches("http://").to_owned();
    row.set("proxy", url(&address))
}

const TUNNEL: &str = "HTTP/1.1 200 Connection established\r\n\r\n";

/// A SOCKS5 proxy that answers with this code; 0 opens the tunnel.
fn socks(code: u8) -> Row {
    let row = tls(CertificateKind::Valid);
    let proxy = raw(move |stream| {
        let mut take = |length: usize| {
            let mut bytes = vec![0; length];
            stream.read_exact(&mut bytes).map(|()| bytes).unwrap_or_else(|_| vec![0; length])
        };
        let methods = take(2)[1];
        take(methods.into());
        stream.write_all(&[5, 0]).unwrap();
        let mut take = |length: usize| {
            let mut bytes = vec![0; length];
            stream.read_exact(&mut bytes).map(|()| bytes).unwrap_or_else(|_| vec![0; length])
        };
        match take(4)[3] {
            1 => drop(take(4)),
            3 => {
                let length = take(1)[0];
                take(length.into());
            }
            _ => drop(take(16)),
        }
        let port = take(2);
        let _ = stream.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]);
        if code == 0 {
            let port = u16::from_be_bytes([port[0], port[1]]);
            both_ways(stream, &TcpStream::connect(("127.0.0.1", port)).unwrap());
        }
    });
    let address = proxy.settings[0].1.trim_start_matches("http://").to_owned();
    row.set("proxy", format!("socks5h://{address}"))
}

/// Where rows put their files.
fn folder() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// A port on which nobody listens.
fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A file with this content.
fn file(name: &str, content: &str) -> String {
    let path = folder().join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

type Setup = Box<dyn Fn() -> Row + Send + Sync>;

fn row(name: &'static str, setup: impl Fn() -> Row + Send + Sync + 'static) -> (&'static str, Setup) {
    (name, Box::new(setup))
}

/// A success reply with a member changed.
fn changed(name: &'static str, value: serde_json::Value) -> Row {
    let mut body = json!({"access_token": "{access_token}", "session_expires_in": 0, "expires_in": 300});
    body[name] = value;
    plain(Fault::response(body).forever())
}

fn rows() -> Vec<(&'static str, Setup)> {
    let rejected = || json!({"error": "invalid_client", "error_description": "no such client"});
    vec![
        row("a healthy service", || service(|builder| builder, vec![])),
        row("a late reply", || plain(Fault::latency_ms(50))),
        row("a wrong secret (400)", || service(|b| b, vec![]).set("client_secret", format!("{} wrong", mark()))),
        row("400 without a body", || plain(Fault::status(400))),
        row("400 invalid_client", move || plain(Fault::status(400).body(rejected()))),
        row("401 invalid_client", move || plain(Fault::status(401).body(rejected()))),
        row("400 unsupported_grant_type", || {
            plain(Fault::status(400).body(json!({"error": "unsupported_grant_type"})))
        }),
        row("400 that echoes the secret", || {
            let text = "no: {client_secret} in {request_body}";
            plain(Fault::status(400).body(json!({"error": "invalid_client", "error_description": text})))
        }),
        row("403 with a page of HTML", || plain(Fault::status(403).body("<html>blocked</html>"))),
        row("404", || plain(Fault::status(404).forever())),
        row("408 once", || plain(Fault::status(408))),
        row("429 once", || plain(Fault::status(429))),
        row("429 for ever", || plain(Fault::status(429).forever())),
        row("429 with Retry-After: 0, once", || plain(Fault::status(429).retry_after(0))),
        row("429 with Retry-After: 120", || plain(Fault::status(429).retry_after(120).forever())),
        row("429 with Retry-After as a date far away", || {
            plain(Fault::status(429).retry_after("Fri, 01 Jan 2100 00:00:00 GMT").forever())
        }),
        row("500 once", || plain(Fault::status(500))),
        row("502 with a page of HTML, for ever", || plain(Fault::status(502).body("<html>").forever())),
        row("503 twice", || plain(Fault::status(503).times(2))),
        row("503 for ever", || plain(Fault::status(503).forever())),
        row("503 for ever, retries = 0", || plain(Fault::status(503).forever()).set("retries", 0)),
        row("504 for ever", || plain(Fault::status(504).forever())),
        row("501", || plain(Fault::status(501).forever())),
        row("302 to another host", || plain(Fault::status(302).header("Location", "http://127.0.0.1:9/").forever())),
        row("307 that asks for the body again", || {
            plain(Fault::status(307).header("Location", "http://127.0.0.1:9/").forever())
        }),
        row("204 without a body", || plain(Fault::status(204).forever())),
        row("a reset connection, once", || plain(Fault::reset())),
        row("a reset connection, for ever", || plain(Fault::reset().forever())),
        row("a closed connection, for ever", || plain(Fault::close().forever())),
        row("a reply cut short, once", || plain(Fault::truncate())),
        row("a reply cut short, for ever", || plain(Fault::truncate().forever())),
        row("no reply", || plain(Fault::silent().forever()).set("timeout_ms", 1500)),
        row("a body of one byte a second", || plain(Fault::slow(1000).forever()).set("timeout_ms", 1500)),
        row("headers without end", || plain(Fault::slow_headers(100).forever()).set("timeout_ms", 1500)),
        row("a reply of 1 MiB", || plain(Fault::oversized(1 << 20).forever())),
        row("a page of HTML under 200", || plain(Fault::not_json().forever())),
        row("an error under 200", || plain(Fault::response(json!({"error": "server_error"})).forever())),
        row("a token with a line break", || changed("access_token", json!("a\r\nX-Evil: 1"))),
        row("a token with a space", || changed("access_token", json!("a b"))),
        row("a token of 20 KB", || changed("access_token", json!("t".repeat(20_000)))),
        row("no access_token", || changed("access_token", json!(null))),
        row("no expires_in", || changed("expires_in", json!(null))),
        row("expires_in as text", || changed("expires_in", json!("300"))),
        row("expires_in: -1", || changed("expires_in", json!(-1))),
        row("expires_in: 0", || changed("expires_in", json!(0))),
        row("expires_in: 1e400", || plain(Fault::response("{\"access_token\":\"t\",\"expires_in\":1e400}").forever())),
        row("token_type: mac", || changed("token_type", json!("mac"))),
        row("token_type: BEARER", || changed("token_type", json!("BEARER"))),
        row("garbage instead of HTTP", || reply("SSH-2.0-OpenSSH_9.2\r\n\r\n\r\n")),
        row("HTTP/1.1 200 with an impossible length", || reply("HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{}")),
        row("100 KB of headers", || {
            raw(|stream| {
                head(stream);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
                for _ in 0..1000 {
                    let _ = stream.write_all(format!("X-Filler: {}\r\n", "x".repeat(100)).as_bytes());
                }
                hold(stream);
            })
        }),
        row("interim replies without end", || {
            raw(|stream| {
                head(stream);
                while stream.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n").is_ok() {}
            })
        }),
        row("accepted, and not a byte", || raw(hold).set("timeout_ms", 1500)),
        row("nobody listens", || {
            plain(Fault::status(500)).set("auth_url", format!("http://127.0.0.1:{}", closed_port()))
        }),
        row("a name that does not exist", || {
            // Longer than DNS allows, so that no resolver is asked.
            plain(Fault::status(500)).set("auth_url", format!("https://{}.invalid", "a".repeat(70)))
        }),
        row("HTTPS with a private authority in ca_file", || tls(CertificateKind::Valid)),
        row("an expired certificate", || tls(CertificateKind::Expired)),
        row("a certificate for another host", || tls(CertificateKind::WrongHost)),
        row("a self-signed certificate", || tls(CertificateKind::SelfSigned)),
        row("a certificate of an unknown authority", || tls(CertificateKind::UnknownAuthority)),
        row("a server that wants a client certificate", || {
            let ca = folder().join("mutual.pem");
            let path = ca.clone();
            service(move |builder| builder.tls(true).mutual_tls(true).ca_file(path), vec![])
                .set("ca_file", ca.display())
        }),
        row("HTTPS asked of a port that speaks HTTP", || {
            let row = tls(CertificateKind::Valid);
            let http = reply("HTTP/1.1 400 Bad Request\r\n\r\n");
            let url = http.settings[0].1.replace("http://127.0.0.1", "https://localhost");
            row.set("auth_url", url)
        }),
        row("a silent TLS handshake", || {
            let silent = raw(hold);
            let url = silent.settings[0].1.replace("http://127.0.0.1", "https://localhost");
            tls(CertificateKind::Valid).set("auth_url", url)
        }),
        row("a ca_file that is not there", || tls(CertificateKind::Valid).set("ca_file", "/nonexistent/ca.pem")),
        row("a ca_file without a certificate", || {
            tls(CertificateKind::Valid).set("ca_file", file("empty.pem", "none"))
        }),
        row("a proxy", || proxied(|address| format!("http://{address}"), |_| TUNNEL)),
        row("a proxy that wants a password, and gets it", || {
            proxied(
                |address| format!("http://user:{}@{address}", mark()),
                |asked| {
                    let sent = asked.to_ascii_lowercase().contains("proxy-authorization: basic");
                    if sent { TUNNEL } else { "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n" }
                },
            )
        }),
        row("a proxy that wants another password (407)", || {
            proxied(
                |address| format!("http://user:{}@{address}", mark()),
                |_| "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n",
            )
        }),
        row("a proxy that forbids the host (403)", || {
            proxied(|address| format!("http://{address}"), |_| "HTTP/1.1 403 Forbidden\r\n\r\n")
        }),
        row("a proxy that cannot reach the host (502)", || {
            proxied(|address| format!("http://{address}"), |_| "HTTP/1.1 502 Bad Gateway\r\n\r\n")
        }),
        row("a proxy that does not answer", || {
            let silent = raw(hold);
            tls(CertificateKind::Valid).set("proxy", &silent.settings[0].1)
        }),
        row("a proxy where nobody listens", || {
            tls(CertificateKind::Valid).set("proxy", format!("http://127.0.0.1:{}", closed_port()))
        }),
        row("a proxy that intercepts, with an authority of its own", || {
            let row = tls(CertificateKind::Valid);
            // The tunnel ends at a server of the proxy's, whose authority is not in ca_file.
            let other = tls(CertificateKind::UnknownAuthority);
            let target = other.settings.iter().find(|(name, _)| *name == "auth_url").unwrap().1.clone();
            let port = target.rsplit(':').next().unwrap().to_owned();
            let keep = other.requests;
            let proxy = raw(move |stream| {
                head(stream);
                let _ = stream.write_all(TUNNEL.as_bytes());
                both_ways(stream, &TcpStream::connect(format!("127.0.0.1:{port}")).unwrap());
            });
            let mut row = row.set("proxy", &proxy.settings[0].1);
            let requests = row.requests;
            row.requests = Box::new(move || keep() + requests());
            row
        }),
        row("a SOCKS5 proxy", || socks(0)),
        row("a SOCKS5 proxy that refuses", || socks(2)),
        row("a secret that was rotated in its file", || {
            // The service takes the new secret; the file holds the old one until the service has
            // refused it.
            let row = service(|builder| builder, vec![]);
            let path = file("rotated", &format!("{} old", mark()));
            let requests = row.requests;
            let (changed, seen) = (path.clone(), Mutex::new(()));
            let fake = raw(move |stream| {
                let _one = seen.lock();
                let asked = head(stream);
                let length = asked
                    .lines()
                    .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned))
                    .and_then(|length| length.trim().parse().ok())
                    .unwrap_or(0);
                let mut body = vec![0; length];
                let _ = stream.read_exact(&mut body);
                let answer = if String::from_utf8_lossy(&body).contains("+old") {
                    std::fs::write(&changed, format!("{} new", mark())).unwrap();
                    "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
                } else {
                    "HTTP/1.1 200 OK\r\nContent-Length: 39\r\n\r\n{\"access_token\":\"t\",\"expires_in\": 300 }"
                };
                let _ = stream.write_all(answer.as_bytes());
            });
            let auth_url = fake.settings[0].1.clone();
            Row {
                settings: vec![("auth_url", auth_url), ("client_id", "i".into()), ("client_secret_file", path)],
                requests: Box::new(move || fake.requests.as_ref()() + requests()),
            }
        }),
        row("no credentials", || Row { settings: vec![], requests: Box::new(|| 0) }),
    ]
}

/// The time that a call has in this test, enough for all its retries; and the time in which it must
/// end whatever happens: far more, because the machine may be busy.
const TIMEOUT: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(60);

/// One line of the table, and all the texts that came out on the way.
fn outcome(name: &str, row: &Row) -> (String, Vec<String>) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = lines.clone();
    let mut config = Config::new();
    config.log = Log::new(move |level, line| sink.lock().unwrap().push(format!("{level:?}: {line}")));
    config.set("timeout_ms", Some(&TIMEOUT.as_millis().to_string())).unwrap();
    config.set("connect_timeout_ms", Some("700")).unwrap();
    config.set("proxy", Some("none")).unwrap();
    for (name, value) in &row.settings {
        config.set(name, Some(value)).unwrap();
    }
    let start = Instant::now();
    let result = provider::get_token(&config);
    assert!(start.elapsed() < PATIENCE, "{name}: did not end in time");
    let requests = (row.requests)();
    let mut texts = std::mem::take(&mut *lines.lock().unwrap());
    texts.push(format!("{config:?} {:?}", config.options()));
    let line = match &result {
        Ok(token) => {
            texts.push(format!("{token:?}"));
            format!("| {name} | AMP_OK | | {requests} | |")
        }
        Err(error) => {
            texts.push(format!("{error} {error:?}"));
            let again = if error.is_retryable() { "yes" } else { "no" };
            let status = amp_status(error);
            format!("| {name} | {status} | {again} | {requests} | {} |", general(&error.to_string()))
        }
    };
    (line, texts)
}

/// The C name of the status.
fn amp_status(error: &Error) -> String {
    let mut name = "AMP".to_owned();
    for letter in format!("{:?}", error.kind()).chars() {
        if letter.is_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

/// A message without what differs from run to run: ports, paths and times. Numbers of four digits
/// and more, and those in front of a unit of time, become `N`.
fn general(message: &str) -> String {
    let folder = folder().display().to_string();
    let message = message.replace(&folder, "…").replace('|', "/");
    let (mut text, mut rest) = (String::new(), message.as_str());
    while let Some(start) = rest.find(|letter: char| letter.is_ascii_digit()) {
        let end = rest[start..]
            .find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-'))
            .map_or(rest.len(), |end| start + end);
        let (number, after) = (&rest[start..end], &rest[end..]);
        let is_time = after.starts_with(" s") || after.starts_with(" ms");
        let long = number.bytes().filter(u8::is_ascii_digit).count() >= 4 && !number.starts_with("127.");
        text.push_str(&rest[..start]);
        text.push_str(if is_time || long { "N" } else { number });
        rest = after;
    }
    text + rest
}

#[test]
fn the_fault_table() {
    let rows = rows();
    let (mut table, mut leaks) = (String::new(), Vec::new());
    // The rows are independent of each other, and most of their time is waiting.
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = rows.iter().map(|(name, setup)| scope.spawn(move || outcome(name, &setup()))).collect();
        threads.into_iter().map(|thread| thread.join()).collect()
    });
    for ((name, _), result) in rows.iter().zip(results) {
        let (line, texts) = result.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            (format!("| {name} | PANIC | | | {text} |"), vec![text])
        });
        writeln!(table, "{line}").unwrap();
        leaks.extend(texts.into_iter().filter(|text| text.contains(mark())).map(|text| format!("{name}: {text}")));
    }
    println!("{table}");
    assert!(leaks.is_empty(), "the secret leaked:\n{}", leaks.join("\n"));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/failure-modes.md");
    let head = "# The fault table\n\nWhat goes wrong, and what the library makes of it. Made by tests/network_failures.rs, which sets up each fault on a\nreal socket; ports, times and paths in messages are left out. A call has 10 seconds here (where the server\nis silent, 1.5), one connection 0.7, and there are the usual three retries.\n\n| fault | status | retryable | requests | message |\n| --- | --- | --- | --- | --- |\n";
    let made = format!("{head}{table}");
    if std::env::var_os("AMP_UPDATE_FAULTS").is_some() {
        std::fs::create_dir_all(Path::new(path).parent().unwrap()).unwrap();
        std::fs::write(path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    for (made, kept) in made.lines().zip(kept.lines()) {
        assert_eq!(
            made, kept,
            "docs/failure-modes.md is out of date: AMP_UPDATE_FAULTS=1 cargo test --test network_failures"
        );
    }
    assert_eq!(made.lines().count(), kept.lines().count());
    assert!(rows.len() >= 40);
}

/// The mark would be found if it were there.
#[test]
fn the_mark_is_found_where_it_is() {
    let error = Error::new(Kind::Server, format!("a message with {}", mark()));
    assert!(error.to_string().contains(mark()) && format!("{error:?}").contains(mark()));
}
