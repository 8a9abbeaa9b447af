//! No block of memory is freed while it holds a secret.
//!
//! The global allocator of this program looks at each block before it frees it. So the result depends neither
//! on what a later allocation overwrites nor on the length of a token. All of the Rust code uses this allocator:
//! the library and the crates below it. Where those leave a secret, the library relies on its zeroizing allocator,
//! which is then between them and the one that looks.

use crate::peer::{self, OUTCOMES, Outcome, SECRET, letter, text};
use amp_token::api::{self, ApiRequest};
use amp_token::config::Config;
use amp_token::error::Kind;
use amp_token::net::transport::{Request, Response};
use amp_token::sys::allocator::ZeroizingAllocator;
use amp_token::token::cache::TokenCache;
use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::ffi::{CStr, CString, c_char, c_void};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;
use zeroize::Zeroizing;

#[global_allocator]
static ALLOCATOR: Switch = Switch;

/// Wipes blocks, as the shipped library does, or not.
struct Switch;

/// The allocator that looks. Where a block grows or shrinks, `realloc` (the trait's own) frees the old one.
struct Watch;

static ZEROIZING: ZeroizingAllocator<Watch> = ZeroizingAllocator::over(Watch);

/// Whether blocks are wiped.
pub static IS_ZEROIZING: AtomicBool = AtomicBool::new(false);

// SAFETY: both allocators take their blocks from the same one, so that it does not matter by which of them a
// block was allocated.
unsafe impl GlobalAlloc for Switch {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the same contract.
        unsafe { ZEROIZING.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if IS_ZEROIZING.load(Ordering::Relaxed) {
            // SAFETY: the caller keeps the same contract.
            unsafe { ZEROIZING.dealloc(block, layout) }
        } else {
            // SAFETY: as above.
            unsafe { Watch.dealloc(block, layout) }
        }
    }
}

/// The bytes to look for: 16 from the middle of the secret, 16 of the token, and 16 of the secret in base64 as it
/// is in the login of `me` at a proxy. Masked, so that they are not found here.
static NEEDLES: [[AtomicU8; 16]; 3] = [const { [const { AtomicU8::new(0) }; 16] }; 3];
const MASK: u8 = 0xa5;

static IS_WATCHING: AtomicBool = AtomicBool::new(false);
static FOUND: AtomicUsize = AtomicUsize::new(0);

const CHILD: &str = "AMP_TEST_FREED_CHILD";
const PORT: &str = "AMP_TEST_FREED_PORT";
const DIRECTORY: &str = "AMP_TEST_FREED_DIRECTORY";
const TLS_PORT: &str = "AMP_TEST_FREED_TLS_PORT";

/// The row in which there is something to find.
const CONTROL: &str = "the control";

/// If it is set, the first block that is found is reported with a backtrace.
const TRACE: &str = "AMP_TEST_FREED_TRACE";

// SAFETY: everything is done by the system's allocator, with the arguments as they came.
unsafe impl GlobalAlloc for Watch {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block was allocated with this layout and is not freed yet.
        if IS_WATCHING.load(Ordering::Relaxed) && unsafe { holds_needle(block, layout.size()) } {
            FOUND.fetch_add(1, Ordering::Relaxed);
            report(layout.size());
        }
        // SAFETY: the caller keeps the same contract.
        unsafe { System.dealloc(block, layout) }
    }
}

/// Whether one of the needles is in a block.
///
/// # Safety
/// The block has that many bytes, and no thread writes to them meanwhile.
unsafe fn holds_needle(block: *const u8, length: usize) -> bool {
    // SAFETY: `at` is below the length. Volatile, because some bytes may never have been written.
    let byte = |at: usize| unsafe { block.add(at).read_volatile() };
    let first = NEEDLES.each_ref().map(|needle| needle[0].load(Ordering::Relaxed) ^ MASK);
    (0..(length + 1).saturating_sub(16)).any(|at| {
        let here = byte(at);
        (0..first.len()).any(|which| {
            here == first[which]
                && (1..16).all(|offset| byte(at + offset) ^ MASK == NEEDLES[which][offset].load(Ordering::Relaxed))
        })
    })
}

#[cold]
fn report(length: usize) {
    IS_WATCHING.store(false, Ordering::Relaxed);
    if std::env::var_os(TRACE).is_some() {
        eprintln!("a block of {length} bytes is freed with a secret in it:\n{}", Backtrace::force_capture());
        // One is enough.
        // SAFETY: it ends the process.
        unsafe { libc::_exit(1) };
    }
    IS_WATCHING.store(true, Ordering::Relaxed);
}

/// Watches for the secret and for the token of that length.
fn watch(token: usize) {
    let base64 = |index: usize| {
        let group = [0, 1, 2].map(|byte| u32::from(letter(SECRET, 24 + index / 4 * 3 + byte)));
        let bits = group[0] << 16 | group[1] << 8 | group[2];
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
            [(bits >> (18 - index % 4 * 6)) as usize & 63]
    };
    for offset in 0..16 {
        let bytes = [letter(SECRET, SECRET / 2 + offset), letter(token, token / 2 - 8 + offset), base64(offset)];
        for (needle, byte) in NEEDLES.iter().zip(bytes) {
            needle[offset].store(byte ^ MASK, Ordering::Relaxed);
        }
    }
    FOUND.store(0, Ordering::Relaxed);
    IS_WATCHING.store(true, Ordering::Relaxed);
}

/// The lengths of the tokens: the first six are reused quickly by the C library's allocator; today's real tokens have
/// 1,077 bytes; the last is the longest that is accepted.
const TOKENS: [usize; 8] = [20, 120, 200, 600, 1077, 1201, 4096, 16384];

/// A configuration with the client secret.
fn config(settings: &[(&str, &str)]) -> Config {
    let mut config = Config::new();
    let secret = text("", SECRET, "");
    for (name, value) in [("client_id", "the-id"), ("client_secret", &secret), ("proxy", "none"), ("retries", "0")] {
        config.set(name, Some(value)).unwrap();
    }
    for (name, value) in settings {
        config.set(name, Some(value).filter(|value| !value.is_empty()).copied()).unwrap();
    }
    config
}

/// Gets a token, sends a request with it, invalidates it, and does the same again. Then frees everything.
fn exercise(config: Config) {
    let cache = TokenCache::new(&config).unwrap();
    drop(config);
    for _ in 0..2 {
        let Ok(token) = cache.get() else { continue };
        let call = ApiRequest { method: "POST", path: "/x", content_type: Some("text/plain"), body: b"something" };
        // The longest tokens fit into no header.
        if token.value().len() < 16_000 {
            api::request(&cache, &call).unwrap();
        }
        cache.invalidate(&token);
    }
}

/// Over sockets.
fn by_sockets(port: u16, outcome: Outcome, token: usize) {
    let url = url("http", port, outcome, token);
    exercise(config(&[("auth_url", &url), ("api_url", &url)]));
}

fn url(scheme: &str, port: u16, outcome: Outcome, token: usize) -> String {
    let number = OUTCOMES.iter().position(|other| *other == outcome).unwrap();
    format!("{scheme}://127.0.0.1:{port}/{number}/{token}")
}

/// By a transport of a program in Rust.
fn by_closure(outcome: Outcome, token: usize) {
    let mut config = config(&[]);
    config.transport = Some(Arc::new(move |request: &Request, _: Duration| {
        let mut canned = outcome.response(token);
        if !request.url.as_str().ends_with("/oauth/token") {
            canned = Outcome::RequestId.response(token);
            canned.status = 200;
        }
        let (name, mut value) = canned.header;
        let body = std::mem::take(&mut *canned.body.clone()).into_bytes();
        Ok(Response {
            status: canned.status,
            headers: vec![(name.to_owned(), std::mem::take(&mut *value))],
            body: Zeroizing::new(body),
        })
    }));
    exercise(config);
}

/// The functions of the header.
mod c {
    use super::{c_char, c_void};
    pub type Send = unsafe extern "C" fn(*const c_void, *mut c_void, *mut c_void) -> i32;
    unsafe extern "C" {
        pub fn amp_config_new() -> *mut c_void;
        pub fn amp_config_set(
            config: *mut c_void,
            name: *const c_char,
            value: *const c_char,
            error: *mut c_void,
        ) -> i32;
        pub fn amp_config_set_transport(config: *mut c_void, send: Send, data: *mut c_void, error: *mut c_void) -> i32;
        pub fn amp_config_free(config: *mut c_void);
        pub fn amp_token_cache_new(config: *const c_void, cache: *mut *mut c_void, error: *mut c_void) -> i32;
        pub fn amp_token_cache_get(cache: *const c_void, token: *mut *mut c_void, error: *mut *mut c_void) -> i32;
        pub fn amp_token_cache_free(cache: *mut c_void);
        pub fn amp_token_free(token: *mut c_void);
        pub fn amp_error_free(error: *mut c_void);
        pub fn amp_api_request(
            cache: *const c_void,
            method: *const c_char,
            path: *const c_char,
            content_type: *const c_char,
            body: *const c_void,
            body_length: usize,
            response: *mut *mut c_void,
            error: *mut c_void,
        ) -> i32;
        pub fn amp_response_free(response: *mut c_void);
        pub fn amp_http_request_url(request: *const c_void) -> *const c_char;
        pub fn amp_http_request_header(request: *const c_void, name: *const c_char) -> *const c_char;
        pub fn amp_http_reply_set_status(reply: *mut c_void, status: i32);
        pub fn amp_http_reply_add_header(reply: *mut c_void, name: *const c_char, value: *const c_char);
        pub fn amp_http_reply_append_body(reply: *mut c_void, data: *const c_void, length: usize) -> bool;
    }
}

/// By a transport of a program in C.
fn by_c(outcome: Outcome, token: usize) {
    unsafe extern "C" fn send(request: *const c_void, reply: *mut c_void, data: *mut c_void) -> i32 {
        // SAFETY: `by_c` passes this along with its data, which live until it has freed the cache; the library
        // passes a request and a response that are valid until this returns, and so are their strings.
        unsafe {
            let (outcome, token) = *data.cast::<(Outcome, usize)>();
            let mut canned = outcome.response(token);
            if !CStr::from_ptr(c::amp_http_request_url(request)).to_bytes().ends_with(b"/oauth/token") {
                let authorization = c::amp_http_request_header(request, c"authorization".as_ptr());
                assert!(CStr::from_ptr(authorization).count_bytes() >= "Bearer ".len() + token);
                // Longer than the buffer that the library begins with.
                canned.body = text("", token, &" ".repeat(70_000));
            }
            c::amp_http_reply_set_status(reply, canned.status.into());
            if canned.header.0 != "Content-Type" {
                let value = CString::new(canned.header.1.as_str()).unwrap();
                c::amp_http_reply_add_header(reply, c"X-Request-Id".as_ptr(), value.as_ptr());
            }
            for part in canned.body.as_bytes().chunks(10_000) {
                assert!(c::amp_http_reply_append_body(reply, part.as_ptr().cast(), part.len()));
            }
        }
        0
    }
    use std::ptr::{null, null_mut};
    let mut data = (outcome, token);
    let secret = text("", SECRET, "\0");
    // SAFETY: as the header asks: handles that the functions made, freed once; strings with a NUL.
    unsafe {
        let config = c::amp_config_new();
        for (name, value) in [(c"client_id", "id\0"), (c"client_secret", secret.as_str()), (c"retries", "0\0")] {
            assert_eq!(c::amp_config_set(config, name.as_ptr(), value.as_ptr().cast(), null_mut()), 0);
        }
        assert_eq!(c::amp_config_set_transport(config, send, (&raw mut data).cast(), null_mut()), 0);
        let mut cache = null_mut();
        assert_eq!(c::amp_token_cache_new(config, &raw mut cache, null_mut()), 0);
        c::amp_config_free(config);
        let (mut token, mut error) = (null_mut(), null_mut());
        if c::amp_token_cache_get(cache, &raw mut token, &raw mut error) == 0 {
            let mut response = null_mut();
            let (method, path) = (c"GET".as_ptr(), c"/x".as_ptr());
            let status = c::amp_api_request(cache, method, path, null(), null(), 0, &raw mut response, null_mut());
            assert_eq!(status, 0);
            c::amp_response_free(response);
        }
        c::amp_error_free(error);
        c::amp_token_free(token);
        c::amp_token_cache_free(cache);
    }
}

/// What is done while the allocator watches: its name, the length of the token, and how.
type Row<'a> = (String, usize, Box<dyn Fn() + 'a>);

/// Requests that bring a token, and files and stores that hold a secret or a token.
fn successes(port: u16, directory: &Path) -> Vec<Row<'_>> {
    let mut rows: Vec<Row> = Vec::new();
    for token in TOKENS {
        rows.push((format!("sockets, {token}"), token, Box::new(move || by_sockets(port, Outcome::Token, token))));
        rows.push((format!("closure, {token}"), token, Box::new(move || by_closure(Outcome::Token, token))));
    }
    // One length in sixteen fills the last byte of a block of the C library's allocator.
    for token in TOKENS.into_iter().chain(1202..1217) {
        rows.push((format!("C, {token}"), token, Box::new(move || by_c(Outcome::Token, token))));
    }
    let url = url("http", port, Outcome::Token, 1077);
    let row = |name, settings: &[(&'static str, String)]| with_settings(name, &url, settings);
    let path = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let no_secret = ("client_secret", String::new());
    let no_id = ("client_id", String::new());
    let store = [("store", "file".to_owned()), ("store_dir", path("store"))];
    rows.push(row("a file store, empty", &store));
    rows.push(row("a file store, filled", &store));
    rows.push(row("a secret file", &[no_secret.clone(), ("client_secret_file", path("secret"))]));
    rows.push(row("dc-cli's file", &[no_secret.clone(), ("config_file", path("dc-cli.json"))]));
    rows.push(row("a token file", &[no_secret, no_id, ("personal_access_token_file", path("secret"))]));
    rows
}

/// With these settings in addition, at a server that hands out tokens of 1,077 bytes.
fn with_settings(name: &str, url: &str, settings: &[(&'static str, String)]) -> Row<'static> {
    let (url, settings) = (url.to_owned(), settings.to_vec());
    let run = move || {
        let mut all = vec![("auth_url", url.as_str()), ("api_url", url.as_str())];
        all.extend(settings.iter().map(|(name, value)| (*name, value.as_str())));
        exercise(config(&all));
    };
    (name.to_owned(), 1077, Box::new(run))
}

/// Logins at proxies that all reject them.
fn logins(port: u16) -> Vec<Row<'static>> {
    let row = |scheme: &'static str| -> Row<'static> {
        let refused = move || {
            let url = "https://nobody.invalid";
            let proxy = text(&format!("{scheme}://me:"), SECRET, &format!("@127.0.0.1:{port}"));
            let cache = TokenCache::new(&config(&[("auth_url", url), ("proxy", &proxy)])).unwrap();
            assert_eq!(cache.get().unwrap_err().kind(), Kind::Proxy);
        };
        (format!("a login, {scheme}"), 600, Box::new(refused))
    };
    ["http", "socks4a", "socks5h"].map(row).into()
}

/// One outcome, by sockets and by both kinds of own transports.
fn by_all(port: u16, outcome: Outcome) -> [Row<'static>; 3] {
    [
        (format!("sockets, {outcome:?}"), 600, Box::new(move || by_sockets(port, outcome, 600))),
        (format!("closure, {outcome:?}"), 600, Box::new(move || by_closure(outcome, 600))),
        (format!("C, {outcome:?}"), 600, Box::new(move || by_c(outcome, 600))),
    ]
}

/// Whether serde_json or the HTTP layer copies the secret or the token into memory of its own, which only the
/// zeroizing allocator wipes.
fn is_copied(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Escaped | Outcome::Redirect)
}

/// Requests that bring no token.
fn failures(port: u16) -> Vec<Row<'static>> {
    let mut rows: Vec<Row> = Vec::new();
    for outcome in OUTCOMES.into_iter().filter(|outcome| *outcome != Outcome::Token && !is_copied(*outcome)) {
        rows.extend(by_all(port, outcome));
    }
    if cfg!(feature = "redis") {
        let refused = move || {
            let store = text("redis://:", SECRET, &format!("@127.0.0.1:{port}"));
            let url = url("http", port, Outcome::Token, 600);
            exercise(config(&[("auth_url", &url), ("api_url", &url), ("store", &store)]));
        };
        rows.push(("a login at Redis".to_owned(), 600, Box::new(refused)));
    }
    rows
}

/// What leaves secrets in the memory of other crates: TLS, escapes in JSON, headers of a response.
fn others(port: u16, tls: u16, directory: &Path) -> Vec<Row<'static>> {
    let copied = OUTCOMES.into_iter().filter(|outcome| is_copied(*outcome));
    let mut rows: Vec<Row> = copied.flat_map(|outcome| by_all(port, outcome)).collect();
    let file = directory.join("dc-cli-escaped.json").to_str().unwrap().to_owned();
    let escaped = [("client_secret", String::new()), ("config_file", file)];
    rows.push(with_settings("dc-cli's file, escaped", &url("http", port, Outcome::Token, 1077), &escaped));
    let ca_file = ("ca_file", directory.join("ca.pem").to_str().unwrap().to_owned());
    let tls = url("https", tls, Outcome::Token, 1077);
    rows.push(with_settings("TLS", &tls, &[ca_file]));
    rows
}

/// The child process: does the rows of a group, and reports how many blocks were freed with a secret in them.
#[test]
#[ignore = "run by the tests below"]
fn child() {
    let variable = |name| std::env::var(name).unwrap();
    let (group, port, directory) = (variable(CHILD), variable(PORT), variable(DIRECTORY));
    let (port, directory) = (port.parse().unwrap(), Path::new(&directory));
    let mut rows = match group.as_str() {
        "successes" => successes(port, directory),
        "logins" => logins(port),
        "failures" => failures(port),
        _ => {
            let tls = variable(TLS_PORT).parse().unwrap();
            let groups = [successes(port, directory), logins(port), failures(port), others(port, tls, directory)];
            groups.into_iter().flatten().collect()
        }
    };
    // The control is not wiped.
    let is_zeroizing = group == "zeroizing";
    rows.push((CONTROL.to_owned(), 600, Box::new(|| drop(text("", 600, "").as_str().to_owned()))));
    for (name, token, run) in rows {
        watch(token);
        IS_ZEROIZING.store(is_zeroizing && name != CONTROL, Ordering::Relaxed);
        run();
        IS_WATCHING.store(false, Ordering::Relaxed);
        println!("FREED {name}: {} blocks", FOUND.load(Ordering::Relaxed));
    }
}

/// Runs a group in a child, with a server in this process.
fn assert_none_holds_a_secret(group: &str) {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path();
    let secret = text("", SECRET, "");
    std::fs::write(directory.join("secret"), secret.as_bytes()).unwrap();
    for (name, escape) in [("dc-cli.json", ""), ("dc-cli-escaped.json", "\\/")] {
        let file = format!(r#"{{"clientId":"the-id","clientSecret":"{}{escape}"}}"#, *secret);
        std::fs::write(directory.join(name), file).unwrap();
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "freed::child", "--ignored", "--nocapture", "--test-threads=1"]);
    let (tls_port, certificate) = peer::start_with_tls();
    std::fs::write(directory.join("ca.pem"), certificate).unwrap();
    command.env(CHILD, group).env(DIRECTORY, directory);
    command.env(PORT, peer::start().to_string()).env(TLS_PORT, tls_port.to_string());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let all = format!("{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{all}");
    let (control, rows): (Vec<_>, Vec<_>) = text
        .lines()
        .filter_map(|line| line.split_once("FREED "))
        .map(|(_, row)| row)
        .partition(|row| row.starts_with(CONTROL));
    assert_eq!(control, [format!("{CONTROL}: 1 blocks")], "the search finds nothing at all: {all}");
    let found: Vec<_> = rows.iter().filter(|row| !row.ends_with(": 0 blocks")).collect();
    assert!(!rows.is_empty() && found.is_empty(), "{found:#?}");
}

#[test]
fn a_successful_request_frees_no_secret() {
    assert_none_holds_a_secret("successes");
}

#[test]
fn a_failed_request_frees_no_secret() {
    assert_none_holds_a_secret("failures");
}

#[test]
fn a_rejected_login_at_a_proxy_frees_no_secret() {
    assert_none_holds_a_secret("logins");
}

#[test]
fn the_zeroizing_allocator_frees_no_secret_of_any_crate() {
    assert_none_holds_a_secret("zeroizing");
}
