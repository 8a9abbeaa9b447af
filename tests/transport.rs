//! The network transport against real sockets on this machine: servers and proxies that behave, and
//! many that do not.
//!
//! A test of a deadline asserts that the call ended, and how; never how fast, beyond a bound so wide
//! ([`PATIENCE`]) that no loaded machine reaches it.

use amp_token::config::settings::NetworkOptions;
use amp_token::error::{Error, Kind, Stage};
use amp_token::log::Log;
use amp_token::net::http::{ConnectionTrace, HEADER_LIMIT, HttpTransport};
use amp_token::net::transport::{Request, Response, Transport};
use amp_token::sys::secret::Secret;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// What a call that must run into its deadline is given.
const SHORT: Duration = Duration::from_secs(1);

/// What a call that must not run into its deadline is given, and the longest that one may take that must.
const PATIENCE: Duration = Duration::from_secs(30);

/// A host name that no lookup finds, and that none is sent out for: a label has at most 63 letters.
const UNKNOWN_HOST: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.invalid";

// ---- Servers ----------------------------------------------------------------------------------

/// A server on a port of its own that treats each connection as told, in a thread each.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Server {
    fn start(treat: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (count, treat) = (Arc::clone(&connections), Arc::new(treat));
        thread::spawn(move || {
            for stream in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
                let stream = stream.unwrap();
                // What is held back would be lost when the server closes with something unread.
                stream.set_nodelay(true).unwrap();
                // A client without a deadline is to fail its test, not to hang it.
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let treat = Arc::clone(&treat);
                // How the conversation ends is the client's to judge.
                thread::spawn(move || treat(stream));
            }
        });
        Server { address, connections }
    }

    /// A server that reads a request and then sends `parse_token_response`, whatever it is.
    fn replying(reply: impl Into<Vec<u8>>) -> Server {
        let reply = reply.into();
        Server::start(move |mut stream| {
            read_request(&mut stream)?;
            stream.write_all(&reply)
        })
    }

    fn url(&self) -> String {
        format!("http://{}/oauth/token", self.address)
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Reads up to the end of the headers, byte by byte so that nothing behind them is lost.
fn read_head(stream: &mut impl Read) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8(head).unwrap())
}

/// Reads a request with a `Content-Length`, or without a body: its head and its body.
fn read_request(stream: &mut impl Read) -> io::Result<(String, Vec<u8>)> {
    let head = read_head(stream)?;
    let length = head
        .to_ascii_lowercase()
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((head, body))
}

/// Waits until the other side has gone.
fn outlast(stream: &mut impl Read) -> io::Result<()> {
    io::copy(stream, &mut io::sink()).map(|_| ())
}

/// Sends `piece` again and again, one byte at a time, until the other side has gone.
fn drip(stream: &mut impl Write, piece: &[u8]) -> io::Result<()> {
    let started = Instant::now();
    for byte in piece.iter().cycle() {
        if started.elapsed() > PATIENCE {
            break;
        }
        stream.write_all(&[*byte])?;
        stream.flush()?;
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

// ---- Clients ----------------------------------------------------------------------------------

fn network() -> NetworkOptions {
    NetworkOptions {
        connect_timeout: PATIENCE,
        ca_file: None,
        client_certificate: None,
        proxy: None,
        log: Log::default(),
    }
}

/// A transport that sees no environment but this.
fn transport_in(network: &NetworkOptions, environment: &[(&str, &str)]) -> HttpTransport {
    HttpTransport::with_environment(network, |name| {
        let (_, value) = environment.iter().find(|(have, _)| *have == name)?;
        Some(value.into())
    })
    .unwrap()
}

fn get(url: &str) -> Request {
    Request {
        method: "GET".to_owned(),
        url: url.to_owned(),
        headers: Vec::new(),
        body: Zeroizing::default(),
        max_response_bytes: 1 << 20,
    }
}

fn post(url: &str, body: &[u8]) -> Request {
    Request { method: "POST".to_owned(), body: Zeroizing::new(body.to_vec()), ..get(url) }
}

fn send(request: &Request) -> Result<Response, Error> {
    transport_in(&network(), &[]).send(request, PATIENCE)
}

/// The error of a call that must fail, and must not take for ever.
fn failure(transport: &HttpTransport, request: &Request, timeout: Duration) -> Error {
    let started = Instant::now();
    let error = transport.send(request, timeout).unwrap_err();
    assert!(started.elapsed() < PATIENCE, "{error}");
    error
}

/// Runs cases that mostly wait at the same time.
fn together<T: Send, const N: usize>(cases: [T; N], run: impl Fn(T) + Sync) {
    thread::scope(|scope| {
        for case in cases {
            let run = &run;
            scope.spawn(move || run(case));
        }
    });
}

#[track_caller]
fn assert_error(error: &Error, kind: Kind, stage: Stage, words: &str) {
    assert_eq!((error.kind(), error.stage()), (kind, stage), "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

// ---- What is sent, and what comes back ---------------------------------------------------------

#[test]
fn a_request_carries_what_it_was_given_and_no_more() {
    let seen = Arc::new(Mutex::new(None));
    let kept = Arc::clone(&seen);
    let server = Server::start(move |mut stream| {
        *kept.lock().unwrap() = Some(read_request(&mut stream)?);
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nX-Request-Id: 7\r\ncontent-length: 3\r\n\r\nno!")
    });
    let mut request = post(&server.url(), b"client_secret=hush");
    request.headers = vec![("User-Agent", "tests/1".into()), ("Authorization", Secret::from("Bearer token").into())];
    let response = send(&request).unwrap();
    assert_eq!(response.status, 400);
    assert_eq!(response.header("x-request-id"), Some("7"));
    assert_eq!(response.body.as_slice(), b"no!");

    let (head, body) = seen.lock().unwrap().take().unwrap();
    assert_eq!(body, b"client_secret=hush");
    let mut lines: Vec<_> = head.trim_end().split("\r\n").collect();
    assert_eq!(lines.remove(0), "POST /oauth/token HTTP/1.1");
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "authorization: Bearer token",
            "connection: close",
            "content-length: 18",
            &format!("host: {}", server.address),
            "user-agent: tests/1",
        ]
    );
}

#[test]
fn replies_of_every_framing_are_read() {
    for (reply, body) in [
        (OK, "hi"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n3;x=y\r\n yo\r\n0\r\nA: b\r\n\r\n", "hi yo"),
        ("HTTP/1.1 200 OK\r\n\r\nuntil the end", "until the end"),
        ("HTTP/1.0 200 OK\r\n\r\nold", "old"),
        ("HTTP/1.1 204 No Content\r\n\r\n", ""),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", ""),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
            "hi",
        ),
    ] {
        let response = send(&get(&Server::replying(reply).url())).unwrap();
        assert_eq!(response.body.as_slice(), body.as_bytes(), "{reply}");
    }
    let server = Server::replying(OK);
    let loud = format!("HTTP://{}?x=y#z", server.address);
    assert_eq!(send(&get(&loud)).unwrap().status, 200);
    let mut request = get(&Server::replying("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n").url());
    request.method = "HEAD".to_owned();
    assert!(send(&request).unwrap().body.is_empty());
}

#[test]
fn a_body_of_any_size_comes_whole() {
    for size in [0, 1, 16 * 1024 - 1, 16 * 1024, 16 * 1024 + 1, 300_000] {
        let expected: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        for head in ["".to_owned(), format!("Content-Length: {size}\r\n")] {
            let reply = [format!("HTTP/1.1 200 OK\r\n{head}\r\n").as_bytes(), &expected].concat();
            let response = send(&get(&Server::replying(reply).url())).unwrap();
            assert_eq!(response.body.as_slice(), expected, "{size} {head}");
        }
    }
    let large = vec![b'x'; 1 << 20];
    let server = Server::start(|mut stream| {
        let (_, body) = read_request(&mut stream)?;
        write!(stream, "HTTP/1.1 200 OK\r\n\r\n{}", body.len())
    });
    let response = send(&post(&server.url(), &large)).unwrap();
    assert_eq!(response.body.as_slice(), b"1048576");
}

#[test]
fn a_redirect_is_a_reply_like_any_other() {
    let elsewhere = Server::replying(OK);
    for (status, tail) in [(302, "Content-Length: 0\r\n\r\n"), (301, "\r\nmoved"), (307, "Content-Length: 1\r\n\r\nx")]
    {
        let reply = format!("HTTP/1.1 {status} Moved\r\nLocation: {}\r\n{tail}", elsewhere.url());
        let server = Server::replying(reply);
        let response = send(&post(&server.url(), b"client_secret=hush")).unwrap();
        assert_eq!(response.status, status);
        assert_eq!(server.connections(), 1);
    }
    let response = send(&get(&Server::replying("HTTP/1.1 302 No Location\r\nContent-Length: 0\r\n\r\n").url()));
    assert_eq!(response.unwrap().status, 302);
    assert_eq!(elsewhere.connections(), 0);
}

#[test]
fn an_answer_that_comes_before_the_request_is_through_is_heard() {
    let server = Server::start(|mut stream| {
        read_head(&mut stream)?;
        stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        // Closing with the body unread resets the connection.
    });
    let large = vec![b'x'; 8 << 20];
    let response = send(&post(&server.url(), &large)).unwrap();
    assert_eq!(response.status, 413);

    let (folder, ca) = (Folder::new(), authority("Root"));
    let paper = paper(&["localhost"], Some(&ca), |_| {});
    let server = tls_server(server_config(&paper, BOTH), |stream| {
        read_head(stream)?;
        stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")?;
        stream.flush()
    });
    let request = post(&secure(&server, "localhost").url, &large);
    let response = transport_in(&trusting(&folder, &ca), &[]).send(&request, PATIENCE);
    assert_eq!(response.unwrap().status, 413);
}

// ---- What is refused ---------------------------------------------------------------------------

#[test]
fn secrets_only_travel_encrypted_or_not_at_all() {
    for (url, words) in [
        ("http://auth.example/oauth/token", "not encrypted"),
        ("http://127.0.0.1.example/", "not encrypted"),
        ("http://127.0.0.1@auth.example/", "user name or password"),
        ("https://me:hush@auth.example/", "user name or password"),
        ("ftp://auth.example/", "not a URL"),
        ("", "not a URL"),
    ] {
        let error = send(&get(url)).unwrap_err();
        assert_error(&error, Kind::Config, Stage::Setup, words);
        assert!(!error.to_string().contains("hush"), "{error}");
    }
}

#[test]
fn what_cannot_be_sent_costs_no_connection() {
    let server = Server::replying(OK);
    let with = |name, value: &str| {
        let mut request = get(&server.url());
        request.headers.push((name, Secret::from(value).into()));
        request
    };
    let mut strange = get(&server.url());
    strange.method = "GET /".to_owned();
    for request in [
        with("Authorization", "Bearer hush\r\nX: y"),
        with("Bad Name", "hush"),
        with("Authorization", &format!("Bearer {}", "hush".repeat(5000))),
        get(&format!("{}/a b", server.url())),
        strange,
    ] {
        let error = send(&request).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument, "{error}");
        assert!(!error.to_string().contains("hush"), "{error}");
    }
    assert_eq!(server.connections(), 0);
    let long = "x".repeat(15_000);
    assert_eq!(send(&with("Authorization", &long)).unwrap().status, 200);
}

#[test]
fn a_reply_may_be_as_large_as_allowed_and_not_larger() {
    let replies = |size: usize| {
        let body = "x".repeat(size);
        [
            format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n{body}"),
            format!("HTTP/1.1 200 OK\r\n\r\n{body}"),
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{size:x}\r\n{body}\r\n0\r\n\r\n"),
        ]
    };
    for limit in [10, 40_000] {
        for (size, fits) in [(limit, true), (limit + 1, false)] {
            for reply in replies(size) {
                let mut request = get(&Server::replying(reply).url());
                request.max_response_bytes = limit;
                match send(&request) {
                    Ok(response) => assert!(fits && response.body.len() == size),
                    Err(error) => {
                        assert!(!fits, "{error}");
                        let words = format!("larger than {limit} bytes");
                        assert_error(&error, Kind::Protocol, Stage::Receive, &words);
                    }
                }
            }
        }
    }
}

#[test]
fn an_announced_size_is_believed_no_further_than_the_limit() {
    let server = Server::replying("HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n");
    let error = send(&get(&server.url())).unwrap_err();
    assert_error(&error, Kind::Protocol, Stage::Receive, "larger than");
}

#[test]
fn headers_have_a_limit() {
    let reply = |size| format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: {}\r\n\r\n", "x".repeat(size));
    let response = send(&get(&Server::replying(reply(HEADER_LIMIT - 100)).url())).unwrap();
    assert_eq!(response.header("x").unwrap().len(), HEADER_LIMIT - 100);
    for size in [HEADER_LIMIT, 4 * HEADER_LIMIT] {
        let error = send(&get(&Server::replying(reply(size)).url())).unwrap_err();
        assert_error(&error, Kind::Protocol, Stage::Receive, "headers");
    }
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(5000));
    let error = send(&get(&Server::replying(many).url())).unwrap_err();
    assert_eq!(error.kind(), Kind::Protocol, "{error}");
}

#[test]
fn what_is_not_http_is_a_protocol_error() {
    for reply in [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 abc\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhi",
    ] {
        let error = send(&get(&Server::replying(reply).url())).unwrap_err();
        assert_error(&error, Kind::Protocol, Stage::Receive, "not the HTTP it should be");
    }
}

// ---- Connections that break --------------------------------------------------------------------

#[test]
fn a_refused_connection_says_so() {
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let error = send(&get(&format!("http://{address}/"))).unwrap_err();
    assert_error(&error, Kind::Connect, Stage::Connect, "refused the connection");
    assert_eq!(error.host(), Some(address.to_string().as_str()));
    assert!(error.is_retryable());
}

#[test]
fn an_unknown_host_is_a_matter_of_lookup() {
    let error = send(&get(&format!("https://{UNKNOWN_HOST}/"))).unwrap_err();
    assert_error(&error, Kind::Resolve, Stage::Resolve, UNKNOWN_HOST);
    assert!(error.is_retryable());
}

#[test]
fn a_reply_that_ends_early_is_an_error_and_is_not_asked_for_again() {
    for (reply, words) in [
        ("", "without a reply"),
        ("HTTP/1.1 200 OK\r\nContent-", "in the middle of its reply"),
        ("HTTP/1.1 100 Continue\r\n\r\n", "in the middle of its reply"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "in the middle of its reply"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf", "in the middle of its reply"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "in the middle of its reply"),
    ] {
        let server = Server::replying(reply);
        let error = send(&post(&server.url(), b"x")).unwrap_err();
        assert_error(&error, Kind::Connect, Stage::Receive, words);
        assert!(error.is_retryable());
        assert_eq!(server.connections(), 1, "{reply:?}");
    }
}

/// The end of such a body is the end of the connection: a reset must not pass for it.
#[test]
fn a_reset_does_not_complete_a_body_without_a_length() {
    let server = Server::start(|mut stream| {
        read_head(&mut stream)?;
        // Where one byte of the body is, there is the rest, which fits one packet.
        stream.read_exact(&mut [0])?;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhalf of it")?;
        // Closing with the request's body unread resets the connection.
        Ok(())
    });
    let error = send(&post(&server.url(), &vec![b'x'; 1000])).unwrap_err();
    assert_error(&error, Kind::Connect, Stage::Receive, "in the middle of its reply");
}

// ---- Deadlines ---------------------------------------------------------------------------------

#[test]
fn no_server_can_make_a_call_outlast_its_deadline() {
    type Treatment = fn(TcpStream) -> io::Result<()>;
    #[rustfmt::skip]
    let cases: [(&str, Treatment, Stage); 6] = [
        ("silent", |mut stream| outlast(&mut stream), Stage::Receive),
        ("headers byte by byte", |mut stream| drip(&mut stream, b"HTTP/1.1 200 OK\r\nX: yyyyyyyyyyyyyyyyyyyyyyyy"), Stage::Receive),
        ("headers without end", |mut stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
            drip(&mut stream, b"X: y\r\n")
        }, Stage::Receive),
        ("a body byte by byte", |mut stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")?;
            drip(&mut stream, b"x")
        }, Stage::Receive),
        ("chunks byte by byte", |mut stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            drip(&mut stream, b"1\r\nx\r\n")
        }, Stage::Receive),
        ("interim replies without end", |mut stream| drip(&mut stream, b"HTTP/1.1 100 Continue\r\n\r\n"), Stage::Receive),
    ];
    let transport = transport_in(&network(), &[]);
    together(cases, |(name, treat, stage)| {
        let server = Server::start(treat);
        let error = failure(&transport, &get(&server.url()), SHORT);
        println!("{name}: {error}");
        assert_error(&error, Kind::Timeout, stage, "within 1.0 s");
        assert!(error.is_retryable());
        assert_eq!(server.connections(), 1);
    });
}

/// So many that they fill the buffer for headers; which of the two limits is met first is chance.
#[test]
fn a_flood_of_interim_replies_is_cut_off() {
    let server = Server::start(|mut stream| {
        loop {
            stream.write_all(&b"HTTP/1.1 100 Continue\r\n\r\n".repeat(100))?;
        }
    });
    let error = failure(&transport_in(&network(), &[]), &get(&server.url()), SHORT);
    assert!(matches!(error.kind(), Kind::Protocol | Kind::Timeout), "{error}");
}

#[test]
fn a_server_that_does_not_read_cannot_hold_up_a_call() {
    let transport = transport_in(&network(), &[]);
    together([false, true], |reads_a_little| {
        let server = Server::start(move |mut stream| {
            let started = Instant::now();
            while started.elapsed() < PATIENCE {
                // A bit at a time: each makes room for a bit more to be sent.
                if reads_a_little && stream.read(&mut [0; 4096])? == 0 {
                    break;
                }
                thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        });
        let request = post(&server.url(), &vec![b'x'; 32 << 20]);
        let error = failure(&transport, &request, SHORT);
        assert_error(&error, Kind::Timeout, Stage::Send, "did not take the whole request");
    });
}

#[test]
fn a_server_that_accepts_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Fill the queue of connections that wait to be accepted, until one finds no place.
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, SHORT) {
        waiting.push(stream);
    }
    let url = format!("http://{address}/");
    let error = failure(&transport_in(&network(), &[]), &get(&url), SHORT);
    assert_error(&error, Kind::Timeout, Stage::Connect, "no connection to");
    let hasty = NetworkOptions { connect_timeout: SHORT, ..network() };
    let error = failure(&transport_in(&hasty, &[]), &get(&url), PATIENCE);
    assert_error(&error, Kind::Timeout, Stage::Connect, "within 1.0 s");
}

#[test]
fn the_time_for_a_connection_does_not_limit_the_reply() {
    let server = Server::start(|mut stream| {
        read_head(&mut stream)?;
        thread::sleep(SHORT + SHORT / 4);
        stream.write_all(OK.as_bytes())
    });
    let hasty = NetworkOptions { connect_timeout: SHORT, ..network() };
    let response = transport_in(&hasty, &[]).send(&get(&server.url()), PATIENCE);
    assert_eq!(response.unwrap().status, 200);
}

#[test]
fn no_time_is_no_call() {
    let server = Server::replying(OK);
    let error = failure(&transport_in(&network(), &[]), &get(&server.url()), Duration::ZERO);
    assert_eq!(error.kind(), Kind::Timeout);
    assert_eq!(server.connections(), 0);
}

// ---- TLS ---------------------------------------------------------------------------------------

/// A folder of its own for the files of one test, removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        loop {
            let count = COUNT.fetch_add(1, Ordering::SeqCst);
            let name = format!("amp-transport-{}-{count}", std::process::id());
            let path = std::env::temp_dir().join(name);
            match std::fs::create_dir(&path) {
                Ok(()) => return Folder(path),
                // Left by a process of the same number that was killed.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn named(organization: &str, name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::OrganizationName, organization);
    names.push(DnType::CommonName, name);
    names
}

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name = named("Test & Co", name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate and its key.
struct Paper {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

/// A certificate for `format_sans`, changed by `change`, issued by `issuer` or else by itself.
fn paper(hosts: &[&str], issuer: Option<&Authority>, change: impl FnOnce(&mut CertificateParams)) -> Paper {
    let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).unwrap();
    params.distinguished_name = named("Shop", "leaf");
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = match issuer {
        Some(issuer) => params.signed_by(&key, issuer),
        None => params.self_signed(&key),
    };
    Paper { certificate: certificate.unwrap(), key }
}

type ServerTls = StreamOwned<ServerConnection, TcpStream>;

fn server_config(paper: &Paper, versions: &[&'static SupportedProtocolVersion]) -> ServerConfig {
    server_builder(versions)
        .with_no_client_auth()
        .with_single_cert(
            vec![paper.certificate.der().clone()],
            PrivateKeyDer::try_from(paper.key.serialize_der()).unwrap(),
        )
        .unwrap()
}

fn server_builder(
    versions: &[&'static SupportedProtocolVersion],
) -> rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier> {
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
}

/// A server that treats what it hears inside TLS as told.
fn tls_server(
    config: ServerConfig,
    treat: impl Fn(&mut ServerTls) -> io::Result<()> + Send + Sync + 'static,
) -> Server {
    let config = Arc::new(config);
    Server::start(move |stream| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        treat(&mut StreamOwned::new(connection, stream))
    })
}

fn answer_inside(stream: &mut ServerTls) -> io::Result<()> {
    read_request(stream)?;
    stream.write_all(OK.as_bytes())?;
    stream.flush()
}

const BOTH: &[&SupportedProtocolVersion] = rustls::ALL_VERSIONS;
const ONLY_1_2: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
const ONLY_1_3: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// Settings that trust this authority besides the system's.
fn trusting(folder: &Folder, authority: &Authority) -> NetworkOptions {
    NetworkOptions { ca_file: Some(folder.file("ca.pem", &authority.pem())), ..network() }
}

fn secure(server: &Server, host: &str) -> Request {
    get(&format!("https://{host}:{}/", server.address.port()))
}

#[test]
fn a_trusted_server_is_reached_and_observed() {
    let (folder, ca) = (Folder::new(), authority("Root"));
    let paper = paper(&["localhost", "127.0.0.1"], Some(&ca), |_| {});
    let lines = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&lines);
    let options = NetworkOptions {
        log: Log::new(move |_, line| kept.lock().unwrap().push(line.to_owned())),
        ..trusting(&folder, &ca)
    };
    let transport = transport_in(&options, &[]);
    for (versions, version) in [(BOTH, "TLS 1.3"), (ONLY_1_3, "TLS 1.3"), (ONLY_1_2, "TLS 1.2")] {
        let server = tls_server(server_config(&paper, versions), answer_inside);
        for host in ["localhost", "127.0.0.1"] {
            let mut observed = ConnectionTrace::default();
            let mut request = secure(&server, host);
            request.headers.push(("Authorization", Secret::from("Bearer hush").into()));
            let response = transport.send_traced(&request, PATIENCE, &mut observed).unwrap();
            assert_eq!(response.body.as_slice(), b"hi");
            assert_eq!(observed.address, Some(server.address));
            assert_eq!(observed.proxy, None);
            let identity = observed.tls.unwrap();
            assert_eq!(identity.version, version);
            assert_eq!(identity.issuer, "\"Root\" of \"Test & Co\"");
            assert_eq!(identity.subject, "\"leaf\" of \"Shop\"");
        }
    }
    let lines = lines.lock().unwrap().join("\n");
    for words in
        ["is reached directly", "connected to localhost", "TLS 1.2", "issued by \"Root\"", "replied 200 with 2 bytes"]
    {
        assert!(lines.contains(words), "{words} in {lines}");
    }
    assert!(!lines.contains("hush"), "{lines}");
}

#[test]
fn a_certificate_that_is_not_trusted_is_told_with_its_reason_and_issuer() {
    let (folder, ca, stranger) = (Folder::new(), authority("Root"), authority("Inspector"));
    let transport = transport_in(&trusting(&folder, &ca), &[]);
    let local = &["localhost"][..];
    let cases = [
        (
            paper(local, Some(&ca), |params| params.not_after = date_time_ymd(2020, 2, 29)),
            "expired on 2020-02-29; it was issued by \"Root\" of \"Test & Co\"",
            "clock",
        ),
        (
            paper(local, Some(&ca), |params| params.not_before = date_time_ymd(4000, 1, 2)),
            "only valid from 4000-01-02 on",
            "clock",
        ),
        (
            paper(&["other.example", "www.example"], Some(&ca), |_| {}),
            "for other hosts (other.example, www.example)",
            "host name",
        ),
        (
            paper(local, Some(&stranger), |_| {}),
            "issuer that is not trusted; it was issued by \"Inspector\" of \"Test & Co\"",
            "ca_file",
        ),
        (paper(local, None, |_| {}), "signed by itself", "ca_file"),
        (paper(local, None, |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)), "", ""),
    ];
    for versions in [ONLY_1_2, ONLY_1_3] {
        for (paper, words, advice) in &cases {
            let server = tls_server(server_config(paper, versions), answer_inside);
            let error = failure(&transport, &secure(&server, "localhost"), PATIENCE);
            println!("{error}");
            assert_error(&error, Kind::Tls, Stage::Tls, words);
            assert!(error.to_string().contains("localhost:"), "{error}");
            assert!(error.to_string().contains(advice), "{error}");
            assert!(!error.is_retryable());
        }
    }
}

#[test]
fn a_self_signed_certificate_works_once_it_is_in_ca_file() {
    let folder = Folder::new();
    let paper = paper(&["localhost"], None, |_| {});
    let options = NetworkOptions { ca_file: Some(folder.file("ca.pem", &paper.certificate.pem())), ..network() };
    let server = tls_server(server_config(&paper, BOTH), answer_inside);
    let transport = transport_in(&options, &[]);
    assert!(transport.send(&secure(&server, "localhost"), PATIENCE).is_ok());
}

#[test]
fn a_client_certificate_is_shown_to_who_asks() {
    let (folder, ca, stranger) = (Folder::new(), authority("Root"), authority("Stranger"));
    let server_paper = paper(&["localhost"], Some(&ca), |_| {});
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let with = |name: &str, paper: &Paper| NetworkOptions {
        client_certificate: Some((
            folder.file(&format!("{name}.pem"), &paper.certificate.pem()),
            folder.file(&format!("{name}.key"), &paper.key.serialize_pem()),
        )),
        ..trusting(&folder, &ca)
    };
    let client = paper(&["client"], Some(&ca), |_| {});
    let unknown = paper(&["client"], Some(&stranger), |_| {});
    for versions in [ONLY_1_2, ONLY_1_3] {
        let config = server_builder(versions)
            .with_client_cert_verifier(verifier.clone())
            .with_single_cert(
                vec![server_paper.certificate.der().clone()],
                PrivateKeyDer::try_from(server_paper.key.serialize_der()).unwrap(),
            )
            .unwrap();
        let server = tls_server(config, answer_inside);
        // A large body: the refusal then arrives while the request is still being sent.
        let request = Request { url: secure(&server, "localhost").url, ..post("", &vec![b'x'; 4 << 20]) };
        let response = transport_in(&with("good", &client), &[]).send(&request, PATIENCE);
        assert_eq!(response.unwrap().status, 200);
        let error = failure(&transport_in(&trusting(&folder, &ca), &[]), &request, PATIENCE);
        assert_error(&error, Kind::Tls, Stage::Tls, "asks for a client certificate");
        assert!(error.to_string().contains("set client_certificate and client_key"), "{error}");
        let error = failure(&transport_in(&with("unknown", &unknown), &[]), &request, PATIENCE);
        assert_error(&error, Kind::Tls, Stage::Tls, "refused the client certificate");
    }

    // Files that do not fit, or are none.
    let server = tls_server(server_config(&server_paper, BOTH), answer_inside);
    let pem = folder.file("c.pem", &client.certificate.pem());
    let key = folder.file("c.key", &client.key.serialize_pem());
    let other_key = folder.file("o.key", &unknown.key.serialize_pem());
    let missing = folder.0.join("missing");
    for (certificate, key, words) in [
        (&pem, &other_key, "client_key"),
        (&pem, &missing, "client_key"),
        (&pem, &pem, "client_key"),
        (&missing, &key, "client_certificate"),
        (&key, &key, "client_certificate"),
    ] {
        let options =
            NetworkOptions { client_certificate: Some((certificate.clone(), key.clone())), ..trusting(&folder, &ca) };
        let error = failure(&transport_in(&options, &[]), &secure(&server, "localhost"), PATIENCE);
        println!("{error}");
        assert_error(&error, Kind::Config, Stage::Setup, &format!("{words} ("));
    }
}

#[test]
fn a_ca_file_that_cannot_be_used_is_named() {
    let (folder, ca) = (Folder::new(), authority("Root"));
    let paper = paper(&["localhost"], Some(&ca), |_| {});
    let server = tls_server(server_config(&paper, BOTH), answer_inside);
    let plain = Server::replying(OK);
    for (path, words) in [
        (folder.0.join("missing.pem"), "missing.pem"),
        (folder.file("empty.pem", ""), "no certificate"),
        (folder.file("key.pem", &paper.key.serialize_pem()), "no certificate"),
        (folder.file("cut.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n"), "PEM"),
        (folder.file("odd.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "certificate 1"),
    ] {
        let options = NetworkOptions { ca_file: Some(path.clone()), ..network() };
        let transport = transport_in(&options, &[]);
        let error = failure(&transport, &secure(&server, "localhost"), PATIENCE);
        println!("{error}");
        assert_error(&error, Kind::Config, Stage::Setup, words);
        // Where no TLS is needed, none is set up.
        assert!(transport.send(&get(&plain.url()), PATIENCE).is_ok());
        // The next request tries again.
        std::fs::write(&path, ca.pem()).unwrap();
        assert!(transport.send(&secure(&server, "localhost"), PATIENCE).is_ok());
    }
}

#[test]
fn a_port_without_tls_and_a_broken_handshake_are_told_apart() {
    let transport = transport_in(&network(), &[]);
    let server = Server::start(|mut stream| {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")?;
        outlast(&mut stream)
    });
    let error = failure(&transport, &secure(&server, "localhost"), PATIENCE);
    assert_error(&error, Kind::Tls, Stage::Tls, "does not answer with TLS");
    let server = Server::start(|mut stream| stream.read_exact(&mut [0; 16]));
    let error = failure(&transport, &secure(&server, "localhost"), PATIENCE);
    assert_error(&error, Kind::Connect, Stage::Tls, "during the TLS handshake");
    assert!(error.is_retryable());
}

#[test]
fn a_handshake_without_end_is_given_up_after_the_time_for_a_connection() {
    let server = Server::start(|mut stream| outlast(&mut stream));
    let hasty = NetworkOptions { connect_timeout: SHORT, ..network() };
    let error = failure(&transport_in(&hasty, &[]), &secure(&server, "localhost"), PATIENCE);
    assert_error(&error, Kind::Timeout, Stage::Tls, "did not finish the TLS handshake within 1.0 s");
    // A record that never ends, byte by byte.
    let server = Server::start(|mut stream| {
        stream.write_all(&[0x16, 3, 3, 0x3f, 0xff])?;
        drip(&mut stream, &[0])
    });
    let error = failure(&transport_in(&hasty, &[]), &secure(&server, "localhost"), PATIENCE);
    assert_eq!(error.stage(), Stage::Tls, "{error}");
    assert!(matches!(error.kind(), Kind::Timeout | Kind::Tls), "{error}");
}

/// Without the farewell of TLS, somebody on the way may have cut the reply short.
#[test]
fn a_body_without_a_length_needs_the_farewell_of_tls() {
    let (folder, ca) = (Folder::new(), authority("Root"));
    let paper = paper(&["localhost"], Some(&ca), |_| {});
    let transport = transport_in(&trusting(&folder, &ca), &[]);
    for polite in [true, false] {
        let server = tls_server(server_config(&paper, BOTH), move |stream| {
            read_request(stream)?;
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhalf?")?;
            if polite {
                stream.conn.send_close_notify();
            }
            stream.flush()
        });
        match transport.send(&secure(&server, "localhost"), PATIENCE) {
            Ok(response) => assert!(polite && response.body.as_slice() == b"half?"),
            Err(error) => {
                assert!(!polite, "{error}");
                assert_error(&error, Kind::Connect, Stage::Receive, "in the middle of its reply");
            }
        }
    }
}

// ---- Proxies -----------------------------------------------------------------------------------

/// What a proxy was asked.
type Asked = Arc<Mutex<Vec<String>>>;

/// Carries bytes both ways until one side ends.
fn splice(client: TcpStream, server: SocketAddr) -> io::Result<()> {
    let server = TcpStream::connect(server)?;
    let (mut from_client, mut to_client) = (client.try_clone()?, client);
    let (mut from_server, mut to_server) = (server.try_clone()?, server);
    let back = thread::spawn(move || {
        let _ = io::copy(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(std::net::Shutdown::Both);
    });
    let _ = io::copy(&mut from_client, &mut to_server);
    let _ = to_server.shutdown(std::net::Shutdown::Both);
    let _ = back.join();
    Ok(())
}

/// A proxy that answers `CONNECT` with `parse_token_response`, and leads to `server` whatever it was asked for.
fn connect_proxy(server: SocketAddr, reply: &'static str) -> (Server, Asked) {
    let asked = Asked::default();
    let kept = Arc::clone(&asked);
    let proxy = Server::start(move |mut stream| {
        kept.lock().unwrap().push(read_head(&mut stream)?);
        stream.write_all(reply.as_bytes())?;
        if reply.starts_with("HTTP/1.1 200") {
            splice(stream, server)?;
        }
        Ok(())
    });
    (proxy, asked)
}

const ESTABLISHED: &str = "HTTP/1.1 200 Connection established\r\n\r\n";

#[test]
fn a_proxy_is_given_the_name_and_the_password() {
    let (folder, ca) = (Folder::new(), authority("Root"));
    let paper = paper(&["far.invalid"], Some(&ca), |_| {});
    let server = tls_server(server_config(&paper, BOTH), answer_inside);
    let (proxy, asked) = connect_proxy(server.address, ESTABLISHED);
    let url = format!("http://me:p%40ss@{}", proxy.address);
    let transport = transport_in(&trusting(&folder, &ca), &[("HTTPS_PROXY", &url)]);
    let mut observed = ConnectionTrace::default();
    let request = get("https://far.invalid/oauth/token");
    let response = transport.send_traced(&request, PATIENCE, &mut observed).unwrap();
    assert_eq!(response.body.as_slice(), b"hi");
    assert_eq!(observed.proxy, Some(format!("http://{}", proxy.address)));
    assert_eq!(observed.address, Some(proxy.address));
    assert_eq!(
        asked.lock().unwrap().as_slice(),
        [
            "CONNECT far.invalid:443 HTTP/1.1\r\nHost: far.invalid:443\r\nProxy-Authorization: Basic bWU6cEBzcw==\r\n\r\n"
        ]
    );
    // The setting beats the environment.
    let options = NetworkOptions { proxy: Some(Secret::from(url.as_str())), ..trusting(&folder, &ca) };
    let transport = transport_in(&options, &[("HTTPS_PROXY", "http://127.0.0.1:1")]);
    assert!(transport.send(&request, PATIENCE).is_ok());
}

#[test]
fn a_proxy_that_refuses_is_told_apart_from_the_server() {
    let server = Server::replying(OK);
    for (reply, words, status, retryable) in [
        (
            "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 4\r\n\r\nhush",
            "refused the user name and password",
            Some(407),
            false,
        ),
        ("HTTP/1.1 403 Forbidden\r\n\r\n", "refused to connect to far.invalid:443", Some(403), false),
        ("HTTP/1.1 502 Bad Gateway\r\n\r\n", "refused to connect", Some(502), true),
        ("", "closed the connection", None, true),
        ("nonsense\r\n\r\n", "not HTTP", None, false),
    ] {
        let (proxy, _) = connect_proxy(server.address, reply);
        let url = format!("http://me:hush@{}", proxy.address);
        let transport = transport_in(&network(), &[("https_proxy", &url)]);
        let error = failure(&transport, &get("https://far.invalid/"), PATIENCE);
        println!("{error}");
        assert_error(&error, Kind::Proxy, Stage::Connect, words);
        assert!(error.to_string().contains(&format!("the proxy http://{}", proxy.address)));
        assert_eq!(error.http_status(), status);
        assert_eq!(error.is_retryable(), retryable, "{error}");
        assert!(!format!("{error:?}").contains("hush"), "{error}");
    }
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_proxy_that_cannot_be_reached_is_the_proxys_fault() {
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    for scheme in ["http", "https", "socks4a", "socks5h"] {
        for (host, stage) in [(closed.as_str(), Stage::Connect), (UNKNOWN_HOST, Stage::Resolve)] {
            let url = format!("{scheme}://me:hush@{host}");
            let transport = transport_in(&network(), &[("ALL_PROXY", &url)]);
            let error = failure(&transport, &get("https://far.invalid/"), PATIENCE);
            assert_error(&error, Kind::Proxy, stage, &format!("the proxy {scheme}://"));
            assert!(error.to_string().contains("could not be reached"), "{error}");
            assert!(error.is_retryable());
            assert!(!error.to_string().contains("hush"), "{error}");
        }
    }
}

#[test]
fn a_proxy_cannot_make_a_call_outlast_its_deadline() {
    let hasty = NetworkOptions { connect_timeout: SHORT, ..network() };
    let silent = Server::start(|mut stream| outlast(&mut stream));
    let slow = Server::start(|mut stream| drip(&mut stream, b"HTTP/1.1 200 OK\r\nX: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"));
    let slow_socks = Server::start(|mut stream| {
        stream.write_all(&[5, 0, 5, 0, 0, 3, 255])?;
        drip(&mut stream, b"x")
    });
    let cases = [
        ("http", &silent, Stage::Connect, "accepted the connection"),
        ("socks5h", &silent, Stage::Connect, "accepted the connection"),
        ("socks4a", &silent, Stage::Connect, "accepted the connection"),
        ("https", &silent, Stage::Tls, "the TLS handshake"),
        ("http", &slow, Stage::Connect, "accepted the connection"),
        ("socks5h", &slow_socks, Stage::Connect, "accepted the connection"),
    ];
    together(cases, |(scheme, proxy, stage, words)| {
        let url = format!("{scheme}://{}", proxy.address);
        let transport = transport_in(&hasty, &[("https_proxy", &url)]);
        let error = failure(&transport, &get("https://far.invalid/"), PATIENCE);
        assert_error(&error, Kind::Timeout, stage, words);
        let name = format!("the proxy {url} ");
        assert!(error.to_string().starts_with(&name), "{error}");
    });
}

#[test]
fn an_inspecting_proxy_gives_itself_away_and_works_once_trusted() {
    let (folder, inspector, other) = (Folder::new(), authority("Inspector"), authority("Root"));
    let forged = paper(&["far.invalid"], Some(&inspector), |_| {});
    let inside = tls_server(server_config(&forged, BOTH), answer_inside);
    let (proxy, _) = connect_proxy(inside.address, ESTABLISHED);
    let url = format!("http://{}", proxy.address);
    let environment = [("https_proxy", url.as_str())];
    let request = get("https://far.invalid/");
    let error = failure(&transport_in(&trusting(&folder, &other), &environment), &request, PATIENCE);
    assert_error(&error, Kind::Tls, Stage::Tls, "issued by \"Inspector\" of \"Test & Co\"");
    assert!(error.to_string().contains("inspects TLS, set ca_file"), "{error}");
    let transport = transport_in(&trusting(&folder, &inspector), &environment);
    assert!(transport.send(&request, PATIENCE).is_ok());
}

#[test]
fn a_proxy_inside_tls_leads_to_a_server_inside_tls() {
    let (folder, ca) = (Folder::new(), authority("Root"));
    let server_paper = paper(&["far.invalid"], Some(&ca), |_| {});
    let server = tls_server(server_config(&server_paper, BOTH), answer_inside);
    let (inner, asked) = connect_proxy(server.address, ESTABLISHED);
    let inner_address = inner.address;
    let proxy_paper = paper(&["localhost"], Some(&ca), |_| {});
    // The outer layer only opens the TLS, for a client that waits for each answer in turn.
    let proxy = tls_server(server_config(&proxy_paper, BOTH), move |outside| {
        let mut inside = TcpStream::connect(inner_address)?;
        inside.set_read_timeout(Some(Duration::from_millis(100)))?;
        outside.conn.complete_io(&mut outside.sock)?;
        outside.sock.set_read_timeout(Some(Duration::from_millis(100)))?;
        let mut buffer = [0; 4096];
        loop {
            for outward in [false, true] {
                let count = match if outward { inside.read(&mut buffer) } else { outside.read(&mut buffer) } {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    other => other?,
                };
                if count == 0 {
                    return Ok(());
                }
                if outward {
                    outside.write_all(&buffer[..count])?;
                    outside.flush()?;
                } else {
                    inside.write_all(&buffer[..count])?;
                }
            }
        }
    });
    let url = format!("https://me:pass@localhost:{}", proxy.address.port());
    let transport = transport_in(&trusting(&folder, &ca), &[("https_proxy", &url)]);
    let response = transport.send(&get("https://far.invalid/"), PATIENCE).unwrap();
    assert_eq!(response.body.as_slice(), b"hi");
    assert!(asked.lock().unwrap()[0].contains("Proxy-Authorization: Basic bWU6cGFzcw=="));
    // A proxy that is not trusted gets no password.
    let transport = transport_in(&network(), &[("https_proxy", &url)]);
    let error = failure(&transport, &get("https://far.invalid/"), PATIENCE);
    assert_error(&error, Kind::Tls, Stage::Tls, "the certificate of the proxy https://localhost");
    assert_eq!(asked.lock().unwrap().len(), 1);
}

/// A proxy that asks for a client certificate, and whether each client showed it one. `insists`: without one
/// there is no connection.
fn asking_proxy(
    paper: &Paper,
    versions: &[&'static SupportedProtocolVersion],
    ca: &Authority,
    insists: bool,
) -> (Server, mpsc::Receiver<bool>) {
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let verifier = if insists { verifier } else { verifier.allow_unauthenticated() }.build().unwrap();
    let config = server_builder(versions)
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![paper.certificate.der().clone()],
            PrivateKeyDer::try_from(paper.key.serialize_der()).unwrap(),
        )
        .unwrap();
    let (shown, seen) = mpsc::channel();
    let proxy = tls_server(config, move |stream| {
        let outcome = stream.conn.complete_io(&mut stream.sock);
        shown.send(stream.conn.peer_certificates().is_some()).unwrap();
        outcome?;
        read_head(stream)?;
        stream.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n")?;
        stream.flush()
    });
    (proxy, seen)
}

#[test]
fn a_client_certificate_is_not_shown_to_a_proxy() {
    let (folder, ca) = (Folder::new(), authority("Root"));
    let (proxy_paper, client) = (paper(&["localhost"], Some(&ca), |_| {}), paper(&["client"], Some(&ca), |_| {}));
    let set = NetworkOptions {
        client_certificate: Some((
            folder.file("client.pem", &client.certificate.pem()),
            folder.file("client.key", &client.key.serialize_pem()),
        )),
        ..trusting(&folder, &ca)
    };
    for versions in [ONLY_1_2, ONLY_1_3] {
        for (insists, options) in [(false, &set), (true, &set), (true, &trusting(&folder, &ca))] {
            let (proxy, seen) = asking_proxy(&proxy_paper, versions, &ca, insists);
            let url = format!("https://localhost:{}", proxy.address.port());
            let error =
                failure(&transport_in(options, &[("https_proxy", &url)]), &get("https://far.invalid/"), PATIENCE);
            if insists {
                let words = format!("the proxy {url} asks for a client certificate; that is only shown to the servers");
                assert_error(&error, Kind::Tls, Stage::Tls, &words);
                // It would not help.
                assert!(!error.to_string().contains("set client_certificate"), "{error}");
            } else {
                assert_error(&error, Kind::Proxy, Stage::Connect, "refused to connect to far.invalid:443");
            }
            assert_eq!(seen.recv_timeout(PATIENCE), Ok(false));
        }
    }
}

/// A SOCKS 5 proxy that wants a password if there is one, and answers with `code`.
fn socks_proxy(server: SocketAddr, password: Option<&'static str>, code: u8) -> (Server, Asked) {
    let asked = Asked::default();
    let kept = Arc::clone(&asked);
    let proxy = Server::start(move |mut stream| {
        let field = |stream: &mut TcpStream| {
            let mut length = [0];
            stream.read_exact(&mut length)?;
            let mut text = vec![0; length[0].into()];
            stream.read_exact(&mut text)?;
            io::Result::Ok(text)
        };
        let mut version = [0];
        stream.read_exact(&mut version)?;
        field(&mut stream)?;
        match password {
            None => stream.write_all(&[5, 0])?,
            Some(password) => {
                stream.write_all(&[5, 2])?;
                stream.read_exact(&mut version)?;
                let user = field(&mut stream)?;
                let fits = field(&mut stream)? == password.as_bytes() && user == b"me";
                stream.write_all(&[1, u8::from(!fits)])?;
            }
        }
        let mut request = [0; 4];
        stream.read_exact(&mut request)?;
        let host = match request[3] {
            3 => String::from_utf8(field(&mut stream)?).unwrap(),
            _ => {
                let mut address = [0; 4];
                stream.read_exact(&mut address)?;
                std::net::Ipv4Addr::from(address).to_string()
            }
        };
        let mut port = [0; 2];
        stream.read_exact(&mut port)?;
        kept.lock().unwrap().push(format!("{host}:{}", u16::from_be_bytes(port)));
        stream.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0])?;
        if code == 0 {
            splice(stream, server)?;
        }
        Ok(())
    });
    (proxy, asked)
}

#[test]
fn socks_proxies_work_and_are_told_apart_when_they_refuse() {
    let (folder, ca) = (Folder::new(), authority("Root"));
    let paper = paper(&["far.invalid", "localhost"], Some(&ca), |_| {});
    let server = tls_server(server_config(&paper, BOTH), answer_inside);
    let options = trusting(&folder, &ca);

    // The name goes to the proxy as it is.
    let (proxy, asked) = socks_proxy(server.address, Some("pass"), 0);
    let url = format!("socks5h://me:pass@{}", proxy.address);
    let transport = transport_in(&options, &[("ALL_PROXY", &url)]);
    let response = transport.send(&get("https://far.invalid/"), PATIENCE).unwrap();
    assert_eq!(response.body.as_slice(), b"hi");
    // Or, as the scheme says, its address does.
    let url = format!("socks5://me:pass@{}", proxy.address);
    let transport = transport_in(&options, &[("ALL_PROXY", &url)]);
    assert!(transport.send(&get("https://localhost/"), PATIENCE).is_ok());
    assert_eq!(asked.lock().unwrap().as_slice(), ["far.invalid:443", "127.0.0.1:443"]);
    let error = failure(&transport, &get(&format!("https://{UNKNOWN_HOST}/")), PATIENCE);
    assert_eq!(error.kind(), Kind::Resolve, "{error}");

    for (login, code, words) in [
        ("me:wrong@", 0, "refused the user name and password"),
        ("", 0, "asks for a user name and password"),
        ("me:pass@", 5, "refused the connection"),
    ] {
        let (proxy, _) = socks_proxy(server.address, Some("pass"), code);
        let url = format!("socks5h://{login}{}", proxy.address);
        let transport = transport_in(&options, &[("ALL_PROXY", &url)]);
        let error = failure(&transport, &get("https://far.invalid/"), PATIENCE);
        assert_error(&error, Kind::Proxy, Stage::Connect, words);
    }
}

/// A proxy on this machine, such as an SSH tunnel, may lead to the loopback address of another one.
#[test]
fn plain_http_goes_through_no_proxy() {
    let server = Server::replying(OK);
    let (proxy, asked) = connect_proxy(server.address, ESTABLISHED);
    let direct = |options: &NetworkOptions, environment: &[(&str, &str)]| {
        let mut observed = ConnectionTrace::default();
        let transport = transport_in(options, environment);
        assert!(transport.send_traced(&get(&server.url()), PATIENCE, &mut observed).is_ok());
        assert_eq!(observed.proxy, None);
    };
    for scheme in ["http", "socks5h"] {
        let url = format!("{scheme}://{}", proxy.address);
        for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
            direct(&network(), &[(name, &url)]);
        }
        direct(&NetworkOptions { proxy: Some(Secret::from(url.as_str())), ..network() }, &[]);
    }
    assert_eq!(asked.lock().unwrap().len(), 0);
}

#[test]
fn a_proxy_setting_that_makes_no_sense_is_refused_at_once() {
    let options = NetworkOptions { proxy: Some(Secret::from("gopher://me:hush@h")), ..network() };
    let error = HttpTransport::with_environment(&options, |_| None).unwrap_err();
    assert_eq!(error.kind(), Kind::Config);
    assert!(!error.to_string().contains("hush"), "{error}");
    let transport = transport_in(&network(), &[("https_proxy", "gopher://me:hush@h")]);
    assert!(!format!("{transport:?}").contains("hush"));
    let error = failure(&transport, &get("https://far.invalid/"), PATIENCE);
    assert_error(&error, Kind::Config, Stage::Setup, "https_proxy is not");
}

// ---- What only a process of its own can show -----------------------------------------------------

/// Runs one of the `#[ignore]`d tests below in a process of its own.
fn alone(test: &str, change: impl FnOnce(&mut Command)) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]);
    change(&mut command);
    let output = command.output().unwrap();
    assert!(
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed"),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn the_systems_certificates_are_those_of_the_environment() {
    let (folder, ca) = (Folder::new(), authority("Root"));
    let paper = paper(&["localhost"], Some(&ca), |_| {});
    let server = tls_server(server_config(&paper, BOTH), answer_inside);
    let port = server.address.port().to_string();
    for (file, expected) in [
        (folder.file("ca.pem", &ca.pem()), "200"),
        (folder.0.join("missing.pem"), "no CA certificates were found on this machine"),
        (folder.file("empty.pem", ""), "no CA certificates were found on this machine"),
    ] {
        alone("with_the_certificates_of_the_environment", |command| {
            command
                .env("SSL_CERT_FILE", file)
                .env_remove("SSL_CERT_DIR")
                .env("TEST_PORT", &port)
                .env("TEST_EXPECTED", expected)
                .env("TEST_CA", folder.0.join("ca.pem"));
        });
    }
}

#[test]
#[ignore = "run by the_systems_certificates_are_those_of_the_environment"]
fn with_the_certificates_of_the_environment() {
    let variable = |name| std::env::var(name).unwrap();
    let request = get(&format!("https://localhost:{}/", variable("TEST_PORT")));
    let outcome = match transport_in(&network(), &[]).send(&request, PATIENCE) {
        Ok(response) => response.status.to_string(),
        Err(error) => {
            assert_eq!((error.kind(), error.stage()), (Kind::Tls, Stage::Tls));
            assert!(error.to_string().contains("SSL_CERT_FILE"), "{error}");
            error.to_string()
        }
    };
    assert!(outcome.starts_with(&variable("TEST_EXPECTED")), "{outcome}");
    // With a ca_file the lack of others is only worth a warning.
    let options = NetworkOptions { ca_file: Some(variable("TEST_CA").into()), ..network() };
    assert!(transport_in(&options, &[]).send(&request, PATIENCE).is_ok());
}

/// A variable that is not UTF-8 is not an unset one: that would be a direct connection.
#[test]
#[cfg(unix)]
fn the_proxies_of_the_environment_may_have_any_bytes_in_their_passwords() {
    use std::os::unix::ffi::OsStringExt;
    let (proxy, asked) = connect_proxy(SocketAddr::from(([127, 0, 0, 1], 1)), "HTTP/1.1 403 Forbidden\r\n\r\n");
    let names = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
    for name in names {
        alone("with_the_proxy_of_the_environment", |command| {
            for other in names.into_iter().chain(["no_proxy", "NO_PROXY"]) {
                command.env_remove(other);
            }
            let value = [b"http://m\xe9:%ff@", proxy.address.to_string().as_bytes()].concat();
            command.env(name, std::ffi::OsString::from_vec(value));
        });
        // "m\xe9:\xff" in base64.
        assert!(asked.lock().unwrap().pop().unwrap().contains("\r\nProxy-Authorization: Basic bek6/w==\r\n"));
    }
}

#[test]
#[cfg(unix)]
#[ignore = "run by the_proxies_of_the_environment_may_have_any_bytes_in_their_passwords"]
fn with_the_proxy_of_the_environment() {
    let error = failure(&HttpTransport::new(&network()).unwrap(), &get("https://far.invalid/"), PATIENCE);
    assert_error(&error, Kind::Proxy, Stage::Connect, "refused to connect to far.invalid:443");
}

#[test]
#[cfg(unix)]
fn a_lack_of_file_descriptors_is_a_local_problem() {
    alone("without_file_descriptors", |_| {});
}

#[test]
#[cfg(unix)]
#[ignore = "run by a_lack_of_file_descriptors_is_a_local_problem"]
fn without_file_descriptors() {
    let server = Server::replying(OK);
    let (folder, ca) = (Folder::new(), authority("Root"));
    let paper = paper(&["localhost"], Some(&ca), |_| {});
    let secure_server = tls_server(server_config(&paper, BOTH), answer_inside);
    let request = secure(&secure_server, "localhost");
    let transport = transport_in(&trusting(&folder, &ca), &[]);
    let unattended = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut open = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        open.push(file);
    }
    let error = failure(&transport, &get(&server.url()), PATIENCE);
    assert_error(&error, Kind::Io, Stage::Connect, "too many open files");
    assert!(error.to_string().contains("ulimit -n"), "{error}");
    // Enough for the connection, which nobody has to accept, but not for reading certificates.
    open.pop();
    let nobody = format!("https://{}/", unattended.local_addr().unwrap());
    let error = failure(&transport, &get(&nobody), PATIENCE);
    assert_error(&error, Kind::Io, Stage::Tls, "too many open files");
    drop(open);
    assert!(transport.send(&get(&server.url()), PATIENCE).is_ok());
    assert!(transport.send(&request, PATIENCE).is_ok());
}

/// The standard library's `write_vectored` raises it, and TLS would use that if it could.
#[test]
#[cfg(unix)]
fn a_broken_connection_raises_no_signal() {
    alone("with_sigpipe_as_in_a_c_program", |_| {});
}

#[test]
#[cfg(unix)]
#[ignore = "run by a_broken_connection_raises_no_signal"]
fn with_sigpipe_as_in_a_c_program() {
    // SAFETY: sets the signal to its default, which every program but those of Rust starts with.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let (folder, ca) = (Folder::new(), authority("Root"));
    let paper = paper(&["localhost"], Some(&ca), |_| {});
    let secure_server = tls_server(server_config(&paper, BOTH), |stream| read_head(stream).map(|_| ()));
    let plain_server = Server::start(|mut stream| read_head(&mut stream).map(|_| ()));
    let transport = transport_in(&trusting(&folder, &ca), &[]);
    for url in [plain_server.url(), secure(&secure_server, "localhost").url] {
        let error = failure(&transport, &post(&url, &vec![b'x'; 8 << 20]), PATIENCE);
        assert_error(&error, Kind::Connect, Stage::Send, "before it had the whole request");
    }
}

#[test]
#[cfg(unix)]
fn a_forked_child_can_make_requests_of_its_own() {
    alone("while_forking", |_| {});
}

#[test]
#[cfg(unix)]
#[ignore = "run by a_forked_child_can_make_requests_of_its_own"]
fn while_forking() {
    let (folder, ca) = (Folder::new(), authority("Root"));
    let paper = paper(&["localhost"], Some(&ca), |_| {});
    let server = tls_server(server_config(&paper, BOTH), answer_inside);
    let options = trusting(&folder, &ca);
    let shared = Arc::new(transport_in(&options, &[]));
    let request = Arc::new(secure(&server, "localhost"));
    let busy = Arc::new(AtomicUsize::new(1));
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let (shared, request, busy) = (Arc::clone(&shared), Arc::clone(&request), Arc::clone(&busy));
            thread::spawn(move || {
                while busy.load(Ordering::SeqCst) == 1 {
                    assert_eq!(shared.send(&request, PATIENCE).unwrap().body.as_slice(), b"hi");
                }
            })
        })
        .collect();
    for _ in 0..20 {
        // SAFETY: the child only makes a request, and leaves by `_exit` without unwinding into the
        // test harness. The C library makes its allocator and lookups usable after a fork.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        if child == 0 {
            let fresh = transport_in(&options, &[]).send(&request, PATIENCE);
            let inherited = shared.send(&request, PATIENCE);
            let good = [fresh, inherited]
                .iter()
                .all(|outcome| outcome.as_ref().is_ok_and(|response| response.body.as_slice() == b"hi"));
            // SAFETY: ends the child at once; nothing of its parent's is flushed or dropped twice.
            unsafe { libc::_exit(if good { 0 } else { 1 }) };
        }
        let mut status = -1;
        // SAFETY: `child` is a child of this process and `status` a place for its outcome.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0);
    }
    busy.store(0, Ordering::SeqCst);
    for thread in threads {
        thread.join().unwrap();
    }
}
