//! Every path on which foreign text reaches a message, a log line, a table or a parser.
//!
//! The invocation of [`paths`] is the list of them. Each path is driven with every one of the [`hostile`]
//! texts, in a thread with a small stack, and all that comes out must be short, fit for a terminal, and
//! without a secret. A new path belongs into the list.
//!
//! The stack is 64 KiB, except where the code on the way needs more without any input ([`Stack`]).

use amp_token::api::{self, ApiRequest};
use amp_token::config::Config;
use amp_token::config::dc_cli::from_dc_cli;
use amp_token::config::settings::SETTINGS;
use amp_token::error::Error;
use amp_token::log::Log;
use amp_token::net::transport::{Request, Response};
use amp_token::net::url::Url;
use amp_token::oauth::client_credentials;
use amp_token::sanitize::{QUOTE_LIMIT, is_unprintable, redact_url, sanitize};
use amp_token::token::cache::TokenCache;
use amp_token::token::provider;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The client secret, the password of proxies and stores, and the personal access token.
const SECRET: &str = "S3cret+that/is&long=enough-7309152846~fbeadc";

/// The access token.
const TOKEN: &str = "t0ken.that_no-log_may.show.2750391846";

/// How much stack a path is given.
#[derive(Clone, Copy)]
enum Stack {
    /// What every call may have.
    Small,
    /// A request over sockets. With optimization it needs no more than 48 KiB, through TLS; without, ureq and rustls
    /// need a little less than 100 KiB, whatever the peer sends.
    Sockets,
}

impl Stack {
    fn size(self) -> usize {
        match self {
            Stack::Sockets if cfg!(debug_assertions) => 112 * 1024,
            _ => 64 * 1024,
        }
    }
}

/// Does it in a thread with so much stack.
fn on<T: Send + 'static>(stack: Stack, work: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::Builder::new().stack_size(stack.size()).spawn(work).unwrap().join().unwrap()
}

/// One test for each path: what the text is, where it shows up, and which secrets its author may know. The function
/// of that name drives the path with a text, and returns all that shows up.
macro_rules! paths {
    ($($(#[$attribute:meta])* $drive:ident: $what:literal => $place:literal, $secrets:expr;)*) => {
        /// The paths, as tests.
        mod path {
            $(
                #[test]
                $(#[$attribute])*
                fn $drive() {
                    super::check(concat!($what, " => ", $place), $secrets, super::$drive);
                }
            )*
            use super::{SECRET, TOKEN};
        }
    };
}

#[rustfmt::skip]
paths! {
    directly: "any" => "sanitize, redact_url", &[SECRET, TOKEN];
    token_error: "token response: error, error_description" => "error, log", &[SECRET];
    token_members: "token response: the members of a success" => "error, log; parser", &[SECRET];
    token_body: "token response: the whole body" => "parser", &[SECRET];
    token_page: "token response: the title of a page, the codings of a body" => "error, log; parser", &[SECRET];
    token_headers: "token response: Location, request ids, Retry-After, Date" => "error, log; parser", &[SECRET];
    http_framing: "HTTP: status line, headers, chunks" => "error, log; parser", &[SECRET];
    connect_response: "CONNECT: the proxy's response" => "error; parser", &[SECRET];
    socks_response: "SOCKS 4 and 5: the proxy's response" => "error; parser", &[SECRET];
    certificate_names: "certificate: names of issuer, subject and hosts" => "error, log; parser", &[];
    no_tls: "TLS: what is no TLS" => "error; parser", &[SECRET];
    redis_responses: "Redis: responses to AUTH, SELECT, GET, PTTL, SET" => "log; parser", &[SECRET];
    file_store: "file store: the entry" => "log; parser", &[SECRET];
    api_rejections: "API: the body of a 401, 403 or 404" => "log; parser", &[TOKEN];
    api_pages: "API: a page of a collection" => "parser", &[TOKEN];
    api_arguments: "API: path, method, content type, GraphQL query and variables" => "error; parser", &[TOKEN];
    own_transport: "application's transport: reason, headers, body" => "error, log; parser", &[SECRET];
    secret_files: "secret files" => "error, log; parser", &[SECRET];
    dc_cli_files: "dc-cli's files" => "error, log; parser", &[SECRET];
    pem_files: "PEM files" => "error, log; parser", &[SECRET];
    file_names: "file names, the store's included" => "error, log", &[];
    settings: "settings and environment: names and values" => "error, log, debug output; parser", &[SECRET];
    #[cfg(all(feature = "cli", unix))]
    command_hubs: "hub names" => "`amp-token hubs`, as a table and as JSON", &[TOKEN];
    #[cfg(all(feature = "cli", unix))]
    command_personal_access_token: "GraphQL response" => "`amp-token pat create`", &[TOKEN];
    #[cfg(all(feature = "cli", unix))]
    command_doctor: "token and API responses" => "`amp-token get`, `amp-token doctor`", &[SECRET];
    #[cfg(all(feature = "cli", unix))]
    command_request: "API response" => "`amp-token request`, on a terminal", &[TOKEN];
    #[cfg(all(feature = "cli", unix))]
    command_environment: "environment, arguments" => "`amp-token config`, `status`, standard error", &[SECRET];
}

/// Texts that a hostile or broken peer may send.
fn hostile() -> Vec<String> {
    const LENGTH: usize = 60 * 1024;
    let long = |piece: &str| piece.repeat(LENGTH / piece.len());
    let between = |text: &str, c: char| text.chars().flat_map(|letter| [letter, c]).collect::<String>();
    let each = |text: &str, spell: fn(char) -> String| text.chars().map(spell).collect::<String>();
    vec![
        String::new(),
        long("eyJaaaaaaaaaaaaaa!"),
        long("["),
        long("{\"a\":"),
        long("x"),
        long("%25"),
        long("&#x26;#38;"),
        long("\u{200b}"),
        format!(
            "\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}31m \u{202e}abc\u{2066}\u{ad}\u{feff}\0\r\nSet-Cookie: a=b\r\n\r\n{SECRET}"
        ),
        format!("{SECRET} {TOKEN}"),
        format!("{} {}", between(SECRET, '\u{200b}'), between(TOKEN, '\u{1b}')),
        format!("{} {}", &SECRET[9..17], &TOKEN[20..28]),
        format!("{} {}", amp_token::net::url::form_encode(SECRET).to_lowercase(), TOKEN.to_uppercase()),
        format!(
            "{} {}",
            each(SECRET, |c| format!("%{:02x}", u32::from(c))),
            each(TOKEN, |c| format!("&#{};", u32::from(c)))
        ),
        format!(
            "{} {}",
            each(SECRET, |c| format!("\\u{:04x}", u32::from(c))),
            each(SECRET, |c| format!("{:02x}", u32::from(c)))
        ),
    ]
}

fn check(path: &str, secrets: &[&str], drive: fn(&str) -> Vec<String>) {
    for text in hostile() {
        // Printed last before a crash.
        let driven = format!("{path}, driven with {:?}", text.chars().take(80).collect::<String>());
        println!("{driven}");
        for shown in drive(&text) {
            assert_harmless(&shown, secrets, &driven);
        }
    }
}

/// Asserts that a message is short, fit for a terminal and without a secret.
#[track_caller]
fn assert_harmless(shown: &str, secrets: &[&str], path: &str) {
    // A message quotes a few pieces of foreign text, and has words of its own.
    let length = shown.chars().count();
    assert!(length <= 8 * QUOTE_LIMIT, "{path}: {length} characters: {}…", shown.chars().take(200).collect::<String>());
    let control = shown.chars().find(|c| is_unprintable(*c));
    assert_eq!(control, None, "{path}: {shown:?}");
    secrets.iter().for_each(|secret| assert_no_secret(shown, secret, path));
}

/// Asserts that no run of 8 characters of a secret is there, in a spelling of the hostile texts.
#[track_caller]
fn assert_no_secret(shown: &str, secret: &str, path: &str) {
    let squeezed = shown.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_lowercase();
    let spellings: [fn(char) -> String; 5] = [
        |c| c.into(),
        |c| if c.is_alphanumeric() { c.into() } else { format!("%{:02x}", u32::from(c)) },
        |c| format!("%{:02x}", u32::from(c)),
        |c| format!("&#{};", u32::from(c)),
        |c| format!("\\u{:04x}", u32::from(c)),
    ];
    for start in 0..=secret.len() - 8 {
        for spell in spellings {
            let piece: String = secret[start..start + 8].chars().map(spell).collect();
            assert!(!squeezed.contains(&piece.to_lowercase()), "{path}: {piece} is in {shown}");
        }
    }
}

/// What is freed while a text is sanitized, and whether a secret was in it.
mod freed {
    use super::{SECRET, TOKEN};
    use std::alloc::{GlobalAlloc, Layout, System};
    use std::cell::Cell;

    thread_local! {
        static IS_WATCHED: Cell<bool> = const { Cell::new(false) };
        static HAD_SECRET: Cell<bool> = const { Cell::new(false) };
    }

    struct Watch;

    #[global_allocator]
    static WATCH: Watch = Watch;

    // SAFETY: the system's allocator does all the work. (`realloc` is not overridden: so a block that grows is
    // freed here, too.)
    unsafe impl GlobalAlloc for Watch {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: as the caller's. With zeros, so that every byte can be read when it is freed.
            unsafe { System.alloc_zeroed(layout) }
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            if IS_WATCHED.get() {
                // SAFETY: the block is still the caller's, has that size, and was filled when it was made.
                let bytes = unsafe { std::slice::from_raw_parts(block, layout.size()) };
                HAD_SECRET.set(HAD_SECRET.get() || has_secret(bytes));
            }
            // SAFETY: as the caller's.
            unsafe { System.dealloc(block, layout) }
        }
    }

    /// Whether 8 characters of a secret are there, next to each other or each in a structure of its own.
    fn has_secret(bytes: &[u8]) -> bool {
        const STRIDES: [usize; 9] = [1, 2, 4, 8, 12, 16, 24, 32, 40];
        let starts = |piece: &[u8]| {
            let first = piece[0];
            bytes.iter().enumerate().filter(move |(_, byte)| **byte == first).map(|(at, _)| at)
        };
        let is_at = |at: usize, stride: usize, piece: &[u8]| {
            piece.iter().enumerate().all(|(i, byte)| bytes.get(at + i * stride) == Some(byte))
        };
        let mut pieces = [SECRET, TOKEN].into_iter().flat_map(|secret| secret.as_bytes().windows(8));
        pieces.any(|piece| starts(piece).any(|at| STRIDES.iter().any(|stride| is_at(at, *stride, piece))))
    }

    /// Whether this frees memory with a secret inside.
    pub fn leaves_secret(work: impl FnOnce()) -> bool {
        HAD_SECRET.set(false);
        IS_WATCHED.set(true);
        work();
        IS_WATCHED.set(false);
        HAD_SECRET.get()
    }
}

#[test]
fn no_secret_is_left_in_freed_memory() {
    assert!(freed::leaves_secret(|| drop(SECRET.to_owned())), "the test itself finds nothing");
    for text in hostile().into_iter().filter(|text| text.len() < 1000) {
        assert!(!freed::leaves_secret(|| drop(sanitize(&text, &[SECRET, TOKEN]))), "{text}");
    }
}

// ---- What the paths have in common ------------------------------------------------------------

/// A configuration that logs everything, and the lines.
fn config(settings: &[(&str, &str)]) -> (Config, Arc<Mutex<Vec<String>>>) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let mut config = Config::new();
    let sink = lines.clone();
    config.log = Log::new(move |_, line| sink.lock().unwrap().push(line.to_owned()));
    let usual = [("client_id", "the-id"), ("client_secret", SECRET), ("retries", "0"), ("proxy", "none")];
    for (name, value) in usual.iter().chain(settings) {
        config.set(name, Some(value)).unwrap();
    }
    (config, lines)
}

fn texts_of(error: &Error) -> Vec<String> {
    let parts = [error.oauth_code(), error.oauth_description(), error.request_id(), error.host()];
    let parts = parts.into_iter().flatten().map(str::to_owned);
    parts.chain([error.to_string(), format!("{error:?}").replace('\n', " ")]).collect()
}

/// Asks for a token; returns all that shows up.
fn ask(stack: Stack, (config, lines): (Config, Arc<Mutex<Vec<String>>>)) -> Vec<String> {
    let error = on(stack, move || provider::get_token(&config).err());
    let lines = std::mem::take(&mut *lines.lock().unwrap());
    error.iter().flat_map(texts_of).chain(lines).collect()
}

/// A server on a port of its own, until it is dropped.
struct Server {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    /// Treats each connection like this, one after the other.
    fn start(treat: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let noticed = is_over.clone();
        let thread = std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten().take_while(|_| !noticed.load(Ordering::SeqCst)) {
                stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                treat(&mut stream);
            }
        });
        Server { address, is_over, thread: Some(thread) }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// By name, as a certificate names it.
    fn tls_url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // So that it notices.
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// Reads a request: its head, in which the body's length stands.
fn request(stream: &mut impl Read) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let _ = stream.read_exact(&mut vec![0; length]);
    head
}

/// A server that sends these bytes in response to each request.
fn responding(response: impl Into<Vec<u8>>) -> Server {
    let response = response.into();
    Server::start(move |stream| {
        request(stream);
        let _ = stream.write_all(&response);
    })
}

fn http(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

/// Asks a token server that responds like this.
fn ask_http(response: impl Into<Vec<u8>>) -> Vec<String> {
    ask(Stack::Sockets, config(&[("auth_url", &responding(response).url())]))
}

/// A response of a token server as if it had come.
fn respond(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Vec<String> {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let response = Response { status, headers, body: body.to_vec().into() };
    on(Stack::Small, move || {
        let reply = client_credentials::parse_token_response(
            &response,
            &Url::parse("https://auth.example/oauth/token").unwrap(),
            &[SECRET],
            1_700_000_000,
        );
        reply.err().iter().flat_map(texts_of).collect()
    })
}

fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The text as a header's value, without what HTTP does not allow there.
fn header(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_control()).collect()
}

// ---- The paths --------------------------------------------------------------------------------

fn directly(text: &str) -> Vec<String> {
    let text = text.to_owned();
    on(Stack::Small, move || {
        vec![sanitize(&text, &[SECRET, TOKEN]), redact_url(&format!("https://me:{text}@host/?{text}"))]
    })
}

fn token_error(text: &str) -> Vec<String> {
    let body = format!(r#"{{"error":{0},"error_description":{0}}}"#, json(text));
    let mut shown = ask_http(http("400 Bad Request", "", body.as_bytes()));
    for status in [200, 400, 403, 503] {
        shown.extend(respond(status, &[], body.as_bytes()));
    }
    shown
}

fn token_members(text: &str) -> Vec<String> {
    let mut shown = Vec::new();
    for member in ["access_token", "token_type", "expires_in", "error", "error_description", "other"] {
        for value in [json(text), text.to_owned(), format!("[{}]", json(text))] {
            let rest = r#""expires_in":300,"access_token":"t","other":0"#;
            for body in [format!(r#"{{"{member}":{value}}}"#), format!(r#"{{{rest},"{member}":{value}}}"#)] {
                shown.extend(respond(200, &[], body.as_bytes()));
            }
        }
    }
    shown
}

fn token_page(text: &str) -> Vec<String> {
    let mut shown = Vec::new();
    for status in [200, 400, 403] {
        for body in [format!("<html><title>{text}</title>"), format!("<title {text}>{text}"), format!("<title>{text}")]
        {
            shown.extend(respond(status, &[], body.as_bytes()));
        }
        for name in ["Content-Encoding", "Transfer-Encoding"] {
            shown.extend(respond(status, &[(name, &header(text))], b"x"));
        }
    }
    shown
}

fn token_body(text: &str) -> Vec<String> {
    let mut shown = ask_http(http("200 OK", "", text.as_bytes()));
    for (status, prefix) in [(200, ""), (200, "\u{feff} "), (400, "{"), (500, "{\"error\":")] {
        shown.extend(respond(status, &[], format!("{prefix}{text}").as_bytes()));
    }
    shown
}

fn token_headers(text: &str) -> Vec<String> {
    let value = header(text);
    let names = ["X-Request-Id", "X-Amzn-RequestId", "X-Correlation-Id", "CF-Ray", "Retry-After", "Date"];
    let mut shown = ask_http(http("302 Found", &format!("Location: {value}\r\n"), b""));
    for name in names {
        shown.extend(ask_http(http("503 Busy", &format!("{name}: {value}\r\n"), b"")));
        // An application's transport may hand over what HTTP does not allow.
        shown.extend(respond(503, &[(name, text)], b""));
    }
    shown.extend(respond(302, &[("Location", text)], b""));
    shown
}

fn http_framing(text: &str) -> Vec<String> {
    [
        text.to_owned(),
        format!("HTTP/1.1 {text}\r\n\r\n"),
        format!("HTTP/1.1 200 {text}\r\nContent-Length: 0\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\n{text}: x\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\nX: {text}\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\nContent-Length: {text}\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: {text}\r\n\r\n{text}"),
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{text}\r\n"),
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n{text}: {text}\r\n\r\n"),
    ]
    .into_iter()
    .flat_map(ask_http)
    .collect()
}

fn connect_response(text: &str) -> Vec<String> {
    let mut shown = Vec::new();
    for response in [
        text.to_owned(),
        format!("HTTP/1.1 407 {text}\r\nProxy-Authenticate: {text}\r\n\r\n{text}"),
        format!("HTTP/1.1 403 {text}\r\nX: {text}\r\n\r\n{text}"),
        format!("HTTP/1.1 200 {text}\r\n\r\n{text}"),
        format!("HTTP/1.1 {text}\r\n\r\n"),
    ] {
        let proxy = responding(response);
        for login in ["", "me:S3cret%2Bthat%2Fis%26long%3Denough-7309152846~fbeadc@"] {
            let url = format!("http://{login}{}", proxy.address);
            shown.extend(ask(Stack::Sockets, config(&[("proxy", &url), ("auth_url", "https://auth.example")])));
        }
    }
    shown
}

fn socks_response(text: &str) -> Vec<String> {
    let mut shown = Vec::new();
    for start in
        [&b""[..], b"\x05", b"\x05\x00", b"\x05\x00\x05", b"\x05\x02", b"\x05\x02\x01\x00\x05\x00\x00\x03", b"\x00"]
    {
        let response = [start, text.as_bytes()].concat();
        let proxy = Server::start(move |stream| {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(&response);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        });
        for scheme in ["socks4a", "socks5h"] {
            let url = format!("{scheme}://me:S3cret%2Bthat%2Fis%26long%3Denough-7309152846~fbeadc@{}", proxy.address);
            shown.extend(ask(Stack::Sockets, config(&[("proxy", &url), ("auth_url", "https://auth.example")])));
        }
    }
    shown
}

/// A directory that is removed in the end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("amp-foreign-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        #[cfg(unix)]
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        Directory(path)
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn certificate_names(text: &str) -> Vec<String> {
    // A handshake message has 64 KiB at most, and the text is in it several times.
    let text = &text[..text.char_indices().map(|(at, _)| at).take_while(|at| *at < 8000).last().unwrap_or(0)];
    let named = |hosts: Vec<SanType>| {
        let mut params = CertificateParams::default();
        params.subject_alt_names = hosts;
        for kind in [DnType::CommonName, DnType::OrganizationName] {
            params.distinguished_name.push(kind, text);
        }
        params
    };
    let mut authority = named(Vec::new());
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let directory = Directory::new();
    let trusted = directory.file("ca.pem", authority.pem());
    let other = CertifiedIssuer::self_signed(named(Vec::new()), KeyPair::generate().unwrap()).unwrap();
    let other = directory.file("other.pem", other.pem());
    let host = |name: &str| name.to_owned().try_into().ok().map(SanType::DnsName);
    let mut shown = Vec::new();
    for (names, ca) in [
        (vec![host("localhost")], &trusted),
        (vec![host("localhost")], &other),
        (vec![host(text)], &trusted),
        (vec![host(&header(text))], &trusted),
        (vec![host("a.example"); 300], &trusted),
    ] {
        let key = KeyPair::generate().unwrap();
        let certificate = named(names.into_iter().flatten().collect()).signed_by(&key, &authority).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key);
        let tls = Arc::new(tls.unwrap());
        let server = Server::start(move |stream| {
            let connection = rustls::ServerConnection::new(tls.clone()).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, stream);
            if !request(&mut stream).is_empty() {
                let _ = stream.write_all(&http("400 No", "", b"{}"));
            }
        });
        let url = server.tls_url();
        shown.extend(ask(Stack::Sockets, config(&[("auth_url", &url), ("ca_file", ca)])));
    }
    shown
}

fn no_tls(text: &str) -> Vec<String> {
    let mut shown = Vec::new();
    for start in [&b""[..], b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc", b"\x15\x03\x03\x00\x02\x02"] {
        let response = [start, text.as_bytes()].concat();
        let server = Server::start(move |stream| {
            let _ = stream.write_all(&response);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        });
        shown.extend(ask(Stack::Sockets, config(&[("auth_url", &server.tls_url())])));
    }
    shown
}

/// What carries requests in place of sockets, and always gets this response to one that is not for a token.
fn transport(
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
) -> Arc<dyn amp_token::net::transport::Transport> {
    Arc::new(move |request: &Request, _: Duration| {
        Ok(if request.url.as_str().ends_with("/oauth/token") {
            let body = format!(r#"{{"access_token":"{TOKEN}","expires_in":300}}"#);
            Response { status: 200, headers: Vec::new(), body: body.into_bytes().into() }
        } else {
            Response { status, headers: headers.clone(), body: body.clone().into() }
        })
    })
}

#[cfg(feature = "redis")]
fn redis_responses(text: &str) -> Vec<String> {
    let mut shown = Vec::new();
    let short = &text[..text.char_indices().map(|(at, _)| at).take_while(|at| *at < 900).last().unwrap_or(0)];
    let line = short.replace(['\r', '\n'], "");
    for response in [
        text.to_owned(),
        format!("-{text}\r\n"),
        format!("-{line}\r\n"),
        format!("-ERR {line}\r\n"),
        format!("+{line}\r\n"),
        format!(":{line}\r\n"),
        format!("*1\r\n{line}\r\n"),
        format!("${}\r\n{short}\r\n", short.len()),
        format!("${line}\r\n{short}\r\n"),
    ] {
        // So many commands succeed: AUTH, SELECT, then those of the first exchange.
        for good in 0..4 {
            let response = response.clone();
            let server = Server::start(move |stream| {
                let mut seen = 0;
                let mut commands = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut commands) {
                    for _ in 0..commands[..count].iter().filter(|byte| **byte == b'*').count() {
                        let response = if seen < good { "+OK\r\n" } else { &response };
                        let _ = stream.write_all(response.as_bytes());
                        seen += 1;
                    }
                }
            });
            let store = format!("redis://:S3cret%2Bthat%2Fis%26long%3Denough-7309152846~fbeadc@{}/1", server.address);
            let (mut config, lines) = config(&[("store", &store), ("timeout_ms", "300")]);
            config.transport = Some(transport(200, Vec::new(), Vec::new()));
            shown.extend(ask(Stack::Small, (config, lines)));
        }
    }
    shown
}

#[cfg(not(feature = "redis"))]
fn redis_responses(_: &str) -> Vec<String> {
    Vec::new()
}

/// Asks for a token that is shared in a directory.
fn ask_shared(directory: &str) -> Vec<String> {
    let (mut config, lines) = config(&[("store", "file"), ("store_dir", directory)]);
    config.transport = Some(transport(200, Vec::new(), Vec::new()));
    ask(Stack::Small, (config, lines))
}

fn file_store(text: &str) -> Vec<String> {
    let directory = Directory::new();
    let path = directory.0.to_str().unwrap();
    let mut shown = ask_shared(path);
    for entry in std::fs::read_dir(&directory.0).unwrap().flatten() {
        std::fs::write(entry.path(), text).unwrap();
    }
    shown.extend(ask_shared(path));
    shown
}

fn api_rejections(text: &str) -> Vec<String> {
    let error = format!(r#"{{"errors":[{{"code":{0},"message":{0}}}]}}"#, json(text));
    let mut shown = Vec::new();
    for status in [401, 403, 404, 302, 429, 503] {
        for body in [text.to_owned(), error.clone(), format!("{{\"errors\":{text}")] {
            for name in ["Retry-After", "Location"] {
                let (mut config, lines) = config(&[]);
                let headers = vec![(name.to_owned(), text.to_owned())];
                config.transport = Some(transport(status, headers, body.clone().into_bytes()));
                let outcome = on(Stack::Small, move || {
                    let cache = TokenCache::new(&config).unwrap();
                    api::request(&cache, &ApiRequest { method: "GET", path: "/v2", content_type: None, body: b"" })
                });
                shown.extend(outcome.err().iter().flat_map(texts_of));
                shown.append(&mut lines.lock().unwrap());
            }
        }
    }
    shown
}

fn api_pages(text: &str) -> Vec<String> {
    let bodies = [
        text.to_owned(),
        format!("{{\"page\":{text}"),
        format!("{{\"_embedded\":{text}"),
        format!(r#"{{"_embedded":{},"page":{{"number":0,"totalPages":2}}}}"#, json(text)),
    ];
    let path = text.to_owned();
    on(Stack::Small, move || {
        for body in &bodies {
            let _ = api::next_page("/v2/content/hubs?page=0", body.as_bytes());
            let _ = api::next_page(&path, body.as_bytes());
        }
    });
    Vec::new()
}

fn api_arguments(text: &str) -> Vec<String> {
    let (mut config, lines) = config(&[]);
    config.transport = Some(transport(200, Vec::new(), Vec::new()));
    let text = text.to_owned();
    let mut shown: Vec<_> = on(Stack::Small, move || {
        let cache = TokenCache::new(&config).unwrap();
        let usual = ApiRequest { method: "GET", path: "/v2", content_type: Some("text/plain"), body: b"" };
        // Only what a path leads to that is refused.
        let path = format!("https://me:{text}@elsewhere.example/?{text}");
        let calls = [
            ApiRequest { path: &path, ..usual },
            ApiRequest { path: &format!("/{text}\u{1b}"), ..usual },
            ApiRequest { method: &text, ..usual },
            ApiRequest { content_type: Some(&text), ..usual },
        ];
        let errors = calls.iter().filter_map(|call| api::request(&cache, call).err());
        let errors = errors.chain(api::graphql(&cache, &text, Some(&text)).err());
        let errors = errors.chain(api::graphql(&cache, "{ a }", Some(&format!("{{\"a\":{text}"))).err());
        errors.flat_map(|error| texts_of(&error)).collect()
    });
    shown.append(&mut lines.lock().unwrap());
    shown
}

/// The C interface, by which an application says why its transport failed.
mod c {
    use std::ffi::{c_char, c_void};

    pub type Handle = *mut c_void;
    unsafe extern "C" {
        pub fn amp_config_new() -> Handle;
        pub fn amp_config_set(config: Handle, name: *const c_char, value: *const c_char, error: *mut Handle) -> i32;
        pub fn amp_config_set_transport(
            config: Handle,
            send: Option<unsafe extern "C" fn(Handle, Handle, *mut c_void) -> i32>,
            data: *mut c_void,
            error: *mut Handle,
        ) -> i32;
        pub fn amp_config_free(config: Handle);
        pub fn amp_token_get(config: Handle, token: *mut Handle, error: *mut Handle) -> i32;
        pub fn amp_http_reply_fail(reply: Handle, status: i32, message: *const c_char);
        pub fn amp_error_message(error: Handle) -> *const c_char;
        pub fn amp_error_free(error: Handle);
    }

    /// Fails for the reason that `reason` is.
    pub unsafe extern "C" fn fail(_: Handle, reply: Handle, reason: *mut c_void) -> i32 {
        // SAFETY: the library passes its own reply and the pointer that was registered, a C string.
        unsafe { amp_http_reply_fail(reply, 31, reason.cast()) };
        -1
    }
}

fn own_transport(text: &str) -> Vec<String> {
    use std::ffi::{CStr, CString};
    let (mut config, lines) = config(&[]);
    let (headers, body) = (vec![("X-Request-Id".to_owned(), text.to_owned())], text.as_bytes().to_vec());
    config.transport = Some(Arc::new(move |_: &Request, _: Duration| {
        Ok(Response { status: 500, headers: headers.clone(), body: body.clone().into() })
    }));
    let mut shown = ask(Stack::Small, (config, lines));
    // The header forbids a secret in the reason.
    if text.len() > 1000 || text.contains("title") {
        let reason = CString::new(text.replace(SECRET, "").replace('\0', "")).unwrap();
        shown.push(on(Stack::Small, move || {
            // SAFETY: the C interface as a C program uses it: handles that it made, strings that outlive the
            // call, and every handle freed once.
            unsafe {
                let config = c::amp_config_new();
                for (name, value) in [(c"client_id", c"the-id"), (c"client_secret", c"a secret"), (c"retries", c"0")] {
                    assert_eq!(c::amp_config_set(config, name.as_ptr(), value.as_ptr(), std::ptr::null_mut()), 0);
                }
                let data = reason.as_ptr().cast_mut().cast();
                c::amp_config_set_transport(config, Some(c::fail), data, std::ptr::null_mut());
                let (mut token, mut error) = (std::ptr::null_mut(), std::ptr::null_mut());
                assert_ne!(c::amp_token_get(config, &mut token, &mut error), 0);
                let message = CStr::from_ptr(c::amp_error_message(error)).to_str().unwrap().to_owned();
                c::amp_error_free(error);
                c::amp_config_free(config);
                message
            }
        }));
    }
    shown
}

/// Asks for a token with these settings alone, and without a network.
fn ask_without_network(settings: &[(&str, &str)]) -> Vec<String> {
    let (mut config, lines) = config(settings);
    config.transport = Some(transport(500, Vec::new(), Vec::new()));
    config.set("client_secret", None).unwrap();
    if !settings.iter().any(|(name, _)| *name == "client_secret_file") {
        config.set("client_id", None).unwrap();
    }
    ask(Stack::Small, (config, lines))
}

fn secret_files(text: &str) -> Vec<String> {
    let directory = Directory::new();
    let mut shown = Vec::new();
    for content in [text.as_bytes().to_vec(), [text.as_bytes(), b"\xff\n\n"].concat()] {
        let file = directory.file("file", content);
        for name in ["client_secret_file", "personal_access_token_file"] {
            shown.extend(ask_without_network(&[(name, &file)]));
        }
    }
    shown
}

fn dc_cli_files(text: &str) -> Vec<String> {
    let directory = Directory::new();
    let mut shown = Vec::new();
    for content in [
        text.to_owned(),
        format!("{{\"clientId\":{0},\"clientSecret\":{0}}}", json(text)),
        format!("{{\"patToken\":{}}}", json(text)),
        format!("[{{\"clientId\":{text}"),
        format!("{{\"isActive\":{text}"),
        format!("{{\"clientId\":{},\"clientSecret\":\"\"}}", json(text)),
    ] {
        let file = directory.file("file", &content);
        shown.extend(ask_without_network(&[("config_file", &file)]));
        let outcome = on(Stack::Small, move || from_dc_cli(content.as_bytes(), "a file", Some("x"), &Log::default()));
        shown.extend(outcome.err().iter().flat_map(texts_of));
    }
    shown
}

fn pem_files(text: &str) -> Vec<String> {
    let directory = Directory::new();
    let server = Server::start(|stream| drop(stream.read(&mut [0; 16])));
    let url = server.tls_url();
    let mut shown = Vec::new();
    for (kind, names) in [("CERTIFICATE", &["ca_file"][..]), ("PRIVATE KEY", &["client_certificate", "client_key"])] {
        for content in [
            text.to_owned(),
            format!("-----BEGIN {kind}-----\n{text}\n-----END {kind}-----\n"),
            format!("-----BEGIN {kind}-----\nAAAA\n{text}"),
            format!("-----BEGIN {text}-----\n"),
        ] {
            let file = directory.file("file", &content);
            let files = names.iter().map(|name| (*name, file.as_str()));
            let settings: Vec<_> = files.chain([("auth_url", url.as_str())]).collect();
            shown.extend(ask(Stack::Sockets, config(&settings)));
        }
    }
    shown
}

fn file_names(text: &str) -> Vec<String> {
    let name = text.replace('\0', "");
    let path = format!("/proc/nowhere/{name}");
    let server = Server::start(|stream| drop(stream.read(&mut [0; 16])));
    let url = server.tls_url();
    let mut shown = ask_shared(&path);
    for name in ["client_secret_file", "personal_access_token_file", "config_file"] {
        shown.extend(ask_without_network(&[(name, &path)]));
    }
    for settings in [&[("ca_file", path.as_str())][..], &[("client_certificate", &path), ("client_key", &path)]] {
        let settings: Vec<_> = settings.iter().copied().chain([("auth_url", url.as_str())]).collect();
        shown.extend(ask(Stack::Sockets, config(&settings)));
    }
    shown
}

fn settings(text: &str) -> Vec<String> {
    let mut shown = Vec::new();
    let values = [
        text.to_owned(),
        format!("https://me:{text}@host"),
        format!("https://host/?{text}"),
        format!("https://{text}"),
    ];
    for value in values {
        shown.extend(on(Stack::Small, move || {
            let mut shown = Vec::new();
            for setting in SETTINGS {
                shown.extend(Config::new().set(setting.name, Some(&value)).err().iter().flat_map(texts_of));
                let environment = |name: &str| setting.environment.contains(&name).then(|| value.as_str().into());
                shown.extend(Config::new().load_from(environment).err().iter().flat_map(texts_of));
            }
            shown.extend(Config::new().set(&value, Some("x")).err().iter().flat_map(texts_of));
            shown
        }));
    }
    shown
}

// ---- The command ------------------------------------------------------------------------------

#[cfg(all(feature = "cli", unix))]
use command::{
    doctor as command_doctor, environment as command_environment, hubs as command_hubs,
    personal_access_token as command_personal_access_token, request as command_request,
};

/// The command as a process; the main thread of one has megabytes of stack.
#[cfg(all(feature = "cli", unix))]
mod command {
    use super::{
        Directory, SECRET, Server, TOKEN, assert_no_secret, header, http, is_unprintable, json, request as read,
    };
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::FromRawFd;
    use std::process::{Command, Output, Stdio};

    /// A server for tokens and everything else: what it sends in response to a request that is not for a token.
    fn service(response: Vec<u8>) -> Server {
        Server::start(move |stream| {
            let token = format!(r#"{{"access_token":"{TOKEN}","expires_in":300}}"#);
            let is_token = read(stream).starts_with("post /oauth/token ");
            let _ = stream.write_all(&if is_token { http("200 OK", "", token.as_bytes()) } else { response.clone() });
        })
    }

    fn command(url: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_amp-token"));
        command
            .env_clear()
            .env("AMPLIENCE_CLIENT_ID", "the-id")
            .env("AMPLIENCE_CLIENT_SECRET", SECRET)
            .env("AMPLIENCE_AUTH_URL", url)
            .env("AMPLIENCE_API_URL", url)
            .env("AMPLIENCE_RETRIES", "0")
            .env("AMPLIENCE_STORE", "none")
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// The lines of both outputs.
    fn lines(Output { stdout, stderr, .. }: Output) -> Vec<String> {
        let text = [stdout, stderr].concat();
        String::from_utf8(text).unwrap().split(['\n', '\t']).map(str::to_owned).collect()
    }

    fn run(url: &str, arguments: &[&str]) -> Vec<String> {
        lines(command(url, arguments).output().unwrap())
    }

    pub fn hubs(text: &str) -> Vec<String> {
        let hub = format!(r#"{{"id":{0},"name":{0},"label":{0},"status":{0}}}"#, json(text));
        let page = format!(r#"{{"_embedded":{{"hubs":[{hub}]}},"page":{{"number":0,"totalPages":1}}}}"#);
        let mut shown = Vec::new();
        for body in [text.to_owned(), page.clone(), format!("{{\"_embedded\":{text}")] {
            shown.extend(run(&service(http("200 OK", "", body.as_bytes())).url(), &["hubs"]));
        }
        // What is for programs is whole, and still fit for a terminal.
        let service = service(http("200 OK", "", page.as_bytes()));
        let output = command(&service.url(), &["hubs", "--json"]).output().unwrap();
        let whole = String::from_utf8(output.stdout).unwrap();
        assert!(!whole.chars().any(|c| c != '\n' && is_unprintable(c)), "{whole:?}");
        let hubs: serde_json::Value = serde_json::from_str(&whole).unwrap();
        assert_eq!(hubs[0]["name"], text);
        shown
    }

    pub fn personal_access_token(text: &str) -> Vec<String> {
        let mut shown = Vec::new();
        for body in [
            text.to_owned(),
            format!(r#"{{"errors":[{{"message":{}}}]}}"#, json(text)),
            format!(r#"{{"errors":{}}}"#, json(text)),
            format!(r#"{{"data":{}}}"#, json(text)),
            format!(r#"{{"data":{{"createPersonalAccessToken":{{"token":[{}]}}}}}}"#, json(text)),
            format!(r#"{{"data":{{"createPersonalAccessToken":{{"token":{}}}}}}}"#, json(text)),
        ] {
            let service = service(http("200 OK", "", body.as_bytes()));
            shown.extend(run(&service.url(), &["pat", "create", "name", "--organization", "id"]));
        }
        shown
    }

    pub fn doctor(text: &str) -> Vec<String> {
        let location = format!("Location: {}\r\n", header(text));
        let error = format!(r#"{{"error":{0},"error_description":{0}}}"#, json(text));
        let mut shown = run(&service(http("302 Found", &location, b"")).url(), &["doctor"]);
        shown.extend(run(&service(http("200 OK", "", text.as_bytes())).url(), &["doctor"]));
        // The API knows the token as well.
        shown.iter().for_each(|line| assert_no_secret(line, TOKEN, "doctor"));
        for response in [http("400 Bad", "", error.as_bytes()), http("302 Found", &location, b"")] {
            let server = super::responding(response);
            shown.extend(run(&server.url(), &["doctor"]));
            shown.extend(run(&server.url(), &["-v", "-v", "get"]));
        }
        shown
    }

    pub fn request(text: &str) -> Vec<String> {
        let service = service(http("404 Gone", "", text.as_bytes()));
        let url = service.url();
        let whole = command(&url, &["request", "GET", "/v2"]).output().unwrap().stdout;
        assert_eq!(whole, text.as_bytes(), "a program gets it as it is");
        let (mut terminal, mut end) = (0, 0);
        // SAFETY: it writes two descriptors, and takes NULL for a name and for settings.
        let made =
            unsafe { libc::openpty(&mut terminal, &mut end, std::ptr::null_mut(), std::ptr::null(), std::ptr::null()) };
        assert_eq!(made, 0);
        // SAFETY: both were just made, and belong to no other object.
        let (mut terminal, end) = unsafe { (File::from_raw_fd(terminal), File::from_raw_fd(end)) };
        let reader = std::thread::spawn(move || {
            let mut seen = Vec::new();
            // Once no process has the other end, reading fails.
            let _ = terminal.read_to_end(&mut seen);
            String::from_utf8(seen).unwrap()
        });
        let mut asked = command(&url, &["request", "GET", "/v2"]);
        let output = asked.stdout(end).output().unwrap();
        drop(asked);
        let seen = reader.join().unwrap().replace("\r\n", "\n");
        assert!(!seen.chars().any(|c| !matches!(c, '\n' | '\t') && is_unprintable(c)), "{seen:?}");
        // The command ends the last line of a terminal.
        let text = text.replace("\r\n", "\n");
        assert_eq!(seen.chars().count(), text.chars().count() + usize::from(!text.is_empty() && !text.ends_with('\n')));
        lines(Output { stdout: Vec::new(), ..output })
    }

    pub fn environment(text: &str) -> Vec<String> {
        let (directory, url) = (Directory::new(), "http://127.0.0.1:9");
        let file = directory.file("file", "[");
        // What is passed to a program ends at a NUL. One long text is enough here.
        let text = text.replace('\0', "");
        if text.len() > 1000 && !text.starts_with("eyJ") {
            return Vec::new();
        }
        for (variable, is_shown) in [
            ("CLIENT_ID", true),
            ("USER_AGENT", true),
            ("STORE_DIR", true),
            ("CA_FILE", true),
            ("AUTH_URL", false),
            ("API_URL", false),
            ("RETRIES", false),
            ("STORE", false),
            ("PROXY", false),
        ] {
            for arguments in [&["config"][..], &["config", "--json"], &["status"], &["status", "--json"], &["doctor"]] {
                let mut command = command(url, arguments);
                let output = command.env(format!("AMPLIENCE_{variable}"), &text).output().unwrap();
                // A value that is in force is shown whole, whatever its length.
                for line in lines(output) {
                    assert!(!line.chars().any(is_unprintable), "{variable} {arguments:?}: {line:?}");
                    if !is_shown {
                        assert_no_secret(&line, SECRET, variable);
                    }
                }
            }
        }
        for arguments in [
            vec!["request", "GET", "/v2", "-d", &format!("@/nonexistent/{text}")],
            vec!["--config-file", &file, "get"],
            vec!["get", &format!("--{text}")],
            vec!["get", "--retries", &text],
        ] {
            for line in lines(command(url, &arguments).output().unwrap()) {
                assert!(!line.chars().any(is_unprintable), "{arguments:?}: {line:?}");
            }
        }
        Vec::new()
    }
}
