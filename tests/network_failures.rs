//! The failures of networks, servers and proxies, and how the library reports each.
//!
//! Each row sets up one fault on a real socket, requests a token at the most verbose log level, and records
//! the status, whether the error is retryable, and the number of requests that the service received.
//! The table is docs/failure-modes.md; this test compares it, and AMP_UPDATE_FAULTS=1 rewrites it. Every row
//! uses a secret with a random canary in it, and no message, log line or Debug output may contain that canary.

mod support;

use amp_emulator::{CertificateKind, Emulator, Fault};
use amp_token::config::Config;
use amp_token::error::{Error, Kind};
use amp_token::log::Log;
use amp_token::token::provider;
use serde_json::json;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use support::net::{
    ClosedPort, ESTABLISHED, RawServer, connect_proxy, read_head, read_request, read_until_eof, socks5_proxy,
};
use support::normalize;

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

/// The random canary of this run. It does not look like a token, which would be redacted.
fn canary() -> &'static str {
    static CANARY: OnceLock<String> = OnceLock::new();
    CANARY.get_or_init(|| {
        use std::hash::BuildHasher;
        format!("mk{:016x}", std::hash::RandomState::new().hash_one(Instant::now()))
    })
}

/// The secret: the canary, and every kind of character that an encoding could get wrong.
fn secret() -> String {
    format!("{} a+/=&%~é", canary())
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
            let file = directory().join(format!("{number}.pem"));
            path.set(file.clone()).unwrap();
            builder.tls(true).certificate(certificate).ca_file(file)
        },
        vec![],
    );
    row.set("ca_file", path.get().unwrap().display())
}

/// A service on a raw socket, which may violate HTTP. It reports the number of connections.
fn raw(handle: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Row {
    let server = RawServer::start(handle);
    Row {
        settings: vec![
            ("auth_url", format!("http://{}", server.address)),
            ("client_id", "fault-table".into()),
            ("client_secret", secret()),
        ],
        requests: Box::new(move || server.connections() as u64),
    }
}

/// A service that sends these bytes after the headers of a request.
fn response(bytes: &'static str) -> Row {
    raw(move |mut stream| {
        read_head(&mut stream)?;
        stream.write_all(bytes.as_bytes())
    })
}

/// A server that accepts connections and sends nothing.
fn silent() -> RawServer {
    RawServer::start(|mut stream| read_until_eof(&mut stream))
}

/// A healthy HTTPS service behind an HTTP proxy that sends what `respond` returns for the head of a CONNECT request.
fn proxied(url: impl Fn(&str) -> String, respond: impl Fn(&str) -> &'static str + Send + Sync + 'static) -> Row {
    let proxy = connect_proxy(TcpListener::bind("127.0.0.1:0").unwrap(), None, respond);
    tls(CertificateKind::Valid).set("proxy", url(&proxy.address.to_string()))
}

/// A healthy HTTPS service behind a SOCKS 5 proxy that responds with this code; 0 opens the tunnel.
fn socks(code: u8) -> Row {
    let proxy = socks5_proxy(None, None, code);
    tls(CertificateKind::Valid).set("proxy", format!("socks5h://{}", proxy.address))
}

/// The directory for the files of all rows.
fn directory() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// The address of a port that rejects connections until this process ends.
fn closed_port() -> SocketAddr {
    static PORT: OnceLock<ClosedPort> = OnceLock::new();
    PORT.get_or_init(ClosedPort::new).address()
}

/// A file with this content.
fn file(name: &str, content: &str) -> String {
    let path = directory().join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

type Setup = Box<dyn Fn() -> Row + Send + Sync>;

fn row(name: &'static str, setup: impl Fn() -> Row + Send + Sync + 'static) -> (&'static str, Setup) {
    (name, Box::new(setup))
}

/// A successful response with one member changed.
fn changed(name: &'static str, value: serde_json::Value) -> Row {
    let mut body = json!({"access_token": "{access_token}", "session_expires_in": 0, "expires_in": 300});
    body[name] = value;
    plain(Fault::response(body).forever())
}

fn rows() -> Vec<(&'static str, Setup)> {
    let rejected = || json!({"error": "invalid_client", "error_description": "no such client"});
    vec![
        row("a healthy service", || service(|builder| builder, vec![])),
        row("a late response", || plain(Fault::latency_ms(50))),
        row("a wrong secret (400)", || service(|b| b, vec![]).set("client_secret", format!("{} wrong", canary()))),
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
        row("307, which would repeat the body", || {
            plain(Fault::status(307).header("Location", "http://127.0.0.1:9/").forever())
        }),
        row("204 without a body", || plain(Fault::status(204).forever())),
        row("a reset connection, once", || plain(Fault::reset())),
        row("a reset connection, for ever", || plain(Fault::reset().forever())),
        row("a closed connection, for ever", || plain(Fault::close().forever())),
        row("a truncated response, once", || plain(Fault::truncate())),
        row("a truncated response, for ever", || plain(Fault::truncate().forever())),
        row("no response", || plain(Fault::silent().forever()).set("timeout_ms", 1500)),
        row("a body of one byte a second", || plain(Fault::slow(1000).forever()).set("timeout_ms", 1500)),
        row("headers without end", || plain(Fault::slow_headers(100).forever()).set("timeout_ms", 1500)),
        row("a response of 1 MiB", || plain(Fault::oversized(1 << 20).forever())),
        row("a page of HTML under 200", || plain(Fault::not_json().forever())),
        row("an error under 200", || plain(Fault::response(json!({"error": "server_error"})).forever())),
        row("a token with a line break", || changed("access_token", json!("a\r\nX-Evil: 1"))),
        row("a token with a space", || changed("access_token", json!("a b"))),
        row("a token of 20 KB", || changed("access_token", json!("t".repeat(20_000)))),
        row("no access_token", || changed("access_token", json!(null))),
        row("no expires_in", || changed("expires_in", json!(null))),
        row("expires_in as a string", || changed("expires_in", json!("300"))),
        row("expires_in: -1", || changed("expires_in", json!(-1))),
        row("expires_in: 0", || changed("expires_in", json!(0))),
        row("expires_in: 1e400", || plain(Fault::response("{\"access_token\":\"t\",\"expires_in\":1e400}").forever())),
        row("token_type: mac", || changed("token_type", json!("mac"))),
        row("token_type: BEARER", || changed("token_type", json!("BEARER"))),
        row("garbage instead of HTTP", || response("SSH-2.0-OpenSSH_9.2\r\n\r\n\r\n")),
        row("HTTP/1.1 200 with an impossible length", || response("HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{}")),
        row("100 KB of headers", || {
            raw(|mut stream| {
                read_head(&mut stream)?;
                stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
                for _ in 0..1000 {
                    stream.write_all(format!("X-Filler: {}\r\n", "x".repeat(100)).as_bytes())?;
                }
                read_until_eof(&mut stream)
            })
        }),
        row("interim responses without end", || {
            raw(|mut stream| {
                read_head(&mut stream)?;
                loop {
                    stream.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n")?;
                }
            })
        }),
        row("a connection on which nothing is sent", || {
            raw(|mut stream| read_until_eof(&mut stream)).set("timeout_ms", 1500)
        }),
        row("a port without a listener", || {
            plain(Fault::status(500)).set("auth_url", format!("http://{}", closed_port()))
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
            let ca = directory().join("mutual.pem");
            let path = ca.clone();
            service(move |builder| builder.tls(true).mutual_tls(true).ca_file(path), vec![])
                .set("ca_file", ca.display())
        }),
        row("HTTPS to a port that speaks HTTP", || {
            // As servers do that receive a ClientHello where a request is expected.
            let http = RawServer::start(|mut stream| {
                let _ = stream.read(&mut [0; 4096])?;
                stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")?;
                read_until_eof(&mut stream)
            });
            tls(CertificateKind::Valid).set("auth_url", format!("https://localhost:{}", http.address.port()))
        }),
        row("a silent TLS handshake", || {
            let url = format!("https://localhost:{}", silent().address.port());
            tls(CertificateKind::Valid).set("auth_url", url).set("connect_timeout_ms", 700)
        }),
        row("a ca_file that is not there", || tls(CertificateKind::Valid).set("ca_file", "/nonexistent/ca.pem")),
        row("a ca_file without a certificate", || {
            tls(CertificateKind::Valid).set("ca_file", file("empty.pem", "none"))
        }),
        row("a proxy", || proxied(|address| format!("http://{address}"), |_| ESTABLISHED)),
        row("a proxy that wants a password, and gets it", || {
            proxied(
                |address| format!("http://user:{}@{address}", canary()),
                |asked| {
                    let sent = asked.to_ascii_lowercase().contains("proxy-authorization: basic");
                    if sent { ESTABLISHED } else { "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n" }
                },
            )
        }),
        row("a proxy that wants another password (407)", || {
            proxied(
                |address| format!("http://user:{}@{address}", canary()),
                |_| "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n",
            )
        }),
        row("a proxy that forbids the host (403)", || {
            proxied(|address| format!("http://{address}"), |_| "HTTP/1.1 403 Forbidden\r\n\r\n")
        }),
        row("a proxy that cannot reach the host (502)", || {
            proxied(|address| format!("http://{address}"), |_| "HTTP/1.1 502 Bad Gateway\r\n\r\n")
        }),
        row("a proxy that does not respond", || {
            let proxy = format!("http://{}", silent().address);
            tls(CertificateKind::Valid).set("proxy", proxy).set("timeout_ms", 1500)
        }),
        row("a proxy's port without a listener", || {
            tls(CertificateKind::Valid).set("proxy", format!("http://{}", closed_port()))
        }),
        row("a proxy that intercepts, with an authority of its own", || {
            let row = tls(CertificateKind::Valid);
            // The tunnel ends at a server of the proxy's, whose authority is not in ca_file.
            let other = tls(CertificateKind::UnknownAuthority);
            let target = other.settings.iter().find(|(name, _)| *name == "auth_url").unwrap().1.clone();
            let port: u16 = target.rsplit(':').next().unwrap().parse().unwrap();
            let keep = other.requests;
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let proxy = connect_proxy(listener, Some(([127, 0, 0, 1], port).into()), |_| ESTABLISHED);
            let mut row = row.set("proxy", format!("http://{}", proxy.address));
            let requests = row.requests;
            row.requests = Box::new(move || keep() + requests());
            row
        }),
        row("a SOCKS5 proxy", || socks(0)),
        row("a SOCKS5 proxy that rejects the request", || socks(2)),
        row("a secret that was rotated in its file", || {
            // The service accepts the new secret; the file holds the old one until the service has
            // rejected it.
            let row = service(|builder| builder, vec![]);
            let path = file("rotated", &format!("{} old", canary()));
            let requests = row.requests;
            let (changed, seen) = (path.clone(), Mutex::new(()));
            let fake = raw(move |mut stream| {
                let _one = seen.lock();
                let (_, body) = read_request(&mut stream)?;
                let response = if String::from_utf8_lossy(&body).contains("+old") {
                    std::fs::write(&changed, format!("{} new", canary())).unwrap();
                    "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
                } else {
                    "HTTP/1.1 200 OK\r\nContent-Length: 39\r\n\r\n{\"access_token\":\"t\",\"expires_in\": 300 }"
                };
                stream.write_all(response.as_bytes())
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

/// The timeout of a call in this test, enough for all its retries on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The time in which a call must end, whatever happens.
const PATIENCE: Duration = Duration::from_secs(300);

/// One line of the table, and all messages, log lines and Debug output.
fn outcome(name: &str, row: &Row) -> (String, Vec<String>) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = lines.clone();
    let mut config = Config::new();
    config.log = Log::new(move |level, line| sink.lock().unwrap().push(format!("{level:?}: {line}")));
    config.set("timeout_ms", Some(&TIMEOUT.as_millis().to_string())).unwrap();
    // A handshake takes long when all rows run at once on a busy machine, and must not fail for that: a row that
    // is about the time for connecting sets less.
    config.set("connect_timeout_ms", Some(&TIMEOUT.as_millis().to_string())).unwrap();
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
            format!("| {name} | {status} | {again} | {requests} | {} |", normalize(&error.to_string(), directory()))
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
        leaks.extend(texts.into_iter().filter(|text| text.contains(canary())).map(|text| format!("{name}: {text}")));
    }
    println!("{table}");
    assert!(leaks.is_empty(), "the secret leaked:\n{}", leaks.join("\n"));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/failure-modes.md");
    let head = "# The fault table\n\nFailures of networks, servers and proxies, and how the library reports each. Written by\ntests/network_failures.rs, which sets up each fault on a real socket; ports, times and paths in messages are left out. A call has 60 seconds here (where the server\nsends nothing, 1.5), a connection has as long (where it fails for lack of time, 0.7), and there are three retries,\nas by default.\n\n| fault | status | retryable | requests | message |\n| --- | --- | --- | --- | --- |\n";
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

/// The canary would be found if it leaked.
#[test]
fn the_canary_is_found_where_it_is() {
    let error = Error::new(Kind::Server, format!("a message with {}", canary()));
    assert!(error.to_string().contains(canary()) && format!("{error:?}").contains(canary()));
}
