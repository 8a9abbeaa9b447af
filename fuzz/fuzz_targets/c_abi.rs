//! Random programs that use the C interface: calls in any order, with any argument, with handles shared by threads, and
//! with callbacks that call the library again, as far as the header allows it.
#![no_main]
// Links the crate for its C functions; no Rust item of it is used.
use amp_token as _;
use amp_token_fuzz::on_small_stack;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::{null, null_mut};

/// Like the one of the standard library, and ends the process at once: a callback must not unwind, and the library hides
/// the message of a panic in a call.
macro_rules! assert {
    ($condition:expr $(, $($message:tt)+)?) => {
        if !$condition {
            eprintln!("{}:{}: {}", file!(), line!(), stringify!($condition));
            $(eprintln!($($message)+);)?
            std::process::abort();
        }
    };
}

// The declarations of the header, with every handle as a plain pointer.
type Handle = *mut c_void;
unsafe extern "C" {
    fn amp_version() -> *const c_char;
    fn amp_abi_version() -> u32;
    fn amp_status_name(status: i32) -> *const c_char;
    fn amp_config_new() -> Handle;
    fn amp_config_load(config: Handle, error: *mut Handle) -> i32;
    fn amp_config_set_logger(
        config: Handle,
        log: Option<extern "C" fn(i32, *const c_char, *mut c_void)>,
        data: *mut c_void,
        error: *mut Handle,
    ) -> i32;
    fn amp_config_queue_log_lines(config: Handle, capacity: usize, error: *mut Handle) -> i32;
    fn amp_config_next_log_line(config: Handle, level: *mut i32, buffer: *mut c_char, size: usize) -> bool;
    fn amp_config_set_observer(
        config: Handle,
        observer: Option<extern "C" fn(i32, Handle, *mut c_void)>,
        data: *mut c_void,
        error: *mut Handle,
    ) -> i32;
    fn amp_config_stop_callbacks(config: Handle);
    fn amp_config_set(config: Handle, name: *const c_char, value: *const c_char, error: *mut Handle) -> i32;
    fn amp_config_set_transport(
        config: Handle,
        send: Option<extern "C" fn(Handle, Handle, *mut c_void) -> i32>,
        data: *mut c_void,
        error: *mut Handle,
    ) -> i32;
    fn amp_config_free(config: Handle);
    fn amp_token_get(config: Handle, token: *mut Handle, error: *mut Handle) -> i32;
    fn amp_token_value(token: Handle) -> *const c_char;
    fn amp_token_length(token: Handle) -> usize;
    fn amp_token_authorization(token: Handle) -> *const c_char;
    fn amp_token_expires_at(token: Handle) -> i64;
    fn amp_token_expires_in(token: Handle) -> i64;
    fn amp_token_refresh_in_ms(token: Handle) -> i64;
    fn amp_token_clone(token: Handle) -> Handle;
    fn amp_token_free(token: Handle);
    fn amp_token_cache_new(config: Handle, cache: *mut Handle, error: *mut Handle) -> i32;
    fn amp_token_cache_get(cache: Handle, token: *mut Handle, error: *mut Handle) -> i32;
    fn amp_token_cache_try_get(cache: Handle, token: *mut Handle, error: *mut Handle) -> i32;
    fn amp_token_cache_report(cache: Handle, token: Handle, status: i32, body: *const c_void, length: usize) -> bool;
    fn amp_token_cache_get_for(cache: Handle, ms: i64, token: *mut Handle, error: *mut Handle) -> i32;
    fn amp_token_cache_copy(
        cache: Handle,
        buffer: *mut c_char,
        size: usize,
        length: *mut usize,
        error: *mut Handle,
    ) -> i32;
    fn amp_token_cache_invalidate(cache: Handle, token: Handle);
    fn amp_token_cache_stat(cache: Handle, name: *const c_char) -> i64;
    fn amp_token_cache_epoch(cache: Handle) -> *const u64;
    fn amp_token_cache_api_url(cache: Handle) -> *const c_char;
    fn amp_token_cache_free(cache: Handle);
    fn amp_api_request(
        cache: Handle,
        method: *const c_char,
        path: *const c_char,
        kind: *const c_char,
        body: *const c_void,
        length: usize,
        response: *mut Handle,
        error: *mut Handle,
    ) -> i32;
    fn amp_api_send(
        cache: Handle,
        method: *const c_char,
        path: *const c_char,
        headers: *const *const c_char,
        body: *const c_void,
        length: usize,
        timeout_ms: i64,
        response: *mut Handle,
        error: *mut Handle,
    ) -> i32;
    fn amp_api_download(
        cache: Handle,
        path: *const c_char,
        write: Option<extern "C" fn(*const c_void, usize, *mut c_void) -> bool>,
        data: *mut c_void,
        response: *mut Handle,
        error: *mut Handle,
    ) -> i32;
    fn amp_api_graphql(
        cache: Handle,
        query: *const c_char,
        variables: *const c_char,
        response: *mut Handle,
        error: *mut Handle,
    ) -> i32;
    fn amp_pat_create(
        cache: Handle,
        name: *const c_char,
        organization: *const c_char,
        response: *mut Handle,
        error: *mut Handle,
    ) -> i32;
    fn amp_response_status(response: Handle) -> i32;
    fn amp_response_next_page(response: Handle) -> *const c_char;
    fn amp_response_body(response: Handle, length: *mut usize) -> *const c_void;
    fn amp_response_header(response: Handle, name: *const c_char) -> *const c_char;
    fn amp_response_free(response: Handle);
    fn amp_http_request_method(request: Handle) -> *const c_char;
    fn amp_http_request_url(request: Handle) -> *const c_char;
    fn amp_http_request_header_name(request: Handle, index: usize) -> *const c_char;
    fn amp_http_request_header(request: Handle, name: *const c_char) -> *const c_char;
    fn amp_http_request_body(request: Handle, length: *mut usize) -> *const c_void;
    fn amp_http_request_timeout_ms(request: Handle) -> i64;
    fn amp_http_reply_add_header(reply: Handle, name: *const c_char, value: *const c_char);
    fn amp_http_reply_set_status(reply: Handle, status: i32);
    fn amp_http_reply_append_body(reply: Handle, data: *const c_void, length: usize) -> bool;
    fn amp_http_reply_fail(reply: Handle, status: i32, message: *const c_char);
    fn amp_error_status(error: Handle) -> i32;
    fn amp_error_message(error: Handle) -> *const c_char;
    fn amp_error_http_status(error: Handle) -> i32;
    fn amp_error_oauth_code(error: Handle) -> *const c_char;
    fn amp_error_is_retryable(error: Handle) -> bool;
    fn amp_error_retry_after_ms(error: Handle) -> i64;
    fn amp_error_attempts(error: Handle) -> u32;
    fn amp_error_free(error: Handle);
}

/// The client secret. No message and no log line may have it; requests with it are answered with responses that do.
const SECRET: &str = "hush-hush-hush-9e04";

/// What a callback may use: the handles with which this thread is inside the library. The library's own threads have
/// none. Freed handles are taken out before they are freed.
#[derive(Clone, Copy)]
struct Current {
    config: Handle,
    cache: Handle,
    token: Handle,
}

thread_local! {
    static CURRENT: Cell<Current> = const { Cell::new(Current { config: null_mut(), cache: null_mut(), token: null_mut() }) };
    /// What the next callbacks of this thread do, the last first.
    static REACTIONS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// How many callbacks this thread is in.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Calls the library from a callback. A callback must not free what it was called for, or stop callbacks.
fn react() {
    let Some(reaction) = REACTIONS.with_borrow_mut(Vec::pop) else { return };
    // A callback in a callback in a callback must fit on the stack.
    if DEPTH.get() == 2 {
        return;
    }
    DEPTH.set(DEPTH.get() + 1);
    let Current { config, cache, token: current } = CURRENT.get();
    let (mut token, mut response, mut error) = (null_mut(), null_mut(), null_mut());
    unsafe {
        let status = match reaction % 12 {
            0 => amp_token_cache_get(cache, &mut token, &mut error),
            1 => amp_token_cache_try_get(cache, &mut token, &mut error),
            2 => amp_token_cache_get_for(cache, i64::from(reaction) % 3, &mut token, &mut error),
            3 => {
                let mut buffer = [0 as c_char; 64];
                amp_token_cache_copy(cache, buffer.as_mut_ptr(), buffer.len(), null_mut(), &mut error)
            }
            4 => {
                amp_token_cache_invalidate(cache, current);
                0
            }
            5 => {
                amp_token_cache_report(cache, current, 401, null(), 0);
                0
            }
            6 => {
                let (method, path) = (c"GET".as_ptr(), c"/x".as_ptr());
                amp_api_request(cache, method, path, null(), null(), 0, &mut response, &mut error)
            }
            7 => amp_token_get(config, &mut token, &mut error),
            8 => {
                let (mut line, mut level) = ([0 as c_char; 64], 0);
                amp_config_next_log_line(config, &mut level, line.as_mut_ptr(), line.len());
                amp_token_cache_stat(cache, c"hits".as_ptr());
                assert!(amp_token_cache_api_url(cache).is_null() == cache.is_null());
                0
            }
            9 => {
                // What a callback has created, it may free.
                let (other, mut own) = (new_config(), null_mut());
                let mut status = amp_token_cache_new(other, &mut own, &mut error);
                if status == 0 {
                    status = amp_token_cache_get(own, &mut token, &mut error);
                }
                amp_token_cache_free(own);
                amp_config_free(other);
                status
            }
            10 => amp_api_download(cache, c"/x".as_ptr(), Some(write), null_mut(), &mut response, &mut error),
            _ => {
                token = amp_token_clone(current);
                0
            }
        };
        check(status, error);
        amp_token_free(token);
        amp_response_free(response);
    }
    DEPTH.set(DEPTH.get() - 1);
}

/// Text that the library shows: it has no secret.
unsafe fn shown(text: *const c_char) -> String {
    let text = unsafe { CStr::from_ptr(text) }.to_str().unwrap();
    assert!(!text.contains(SECRET) && !text.contains("canary-token") && !text.contains('\n'), "{text}");
    text.to_owned()
}

/// The outcome of a call: there is an error object if and only if the call failed. No failure is a bug of the library.
fn check(status: i32, error: Handle) {
    assert!((status != 0) == !error.is_null());
    if error.is_null() {
        return;
    }
    unsafe {
        let message = shown(amp_error_message(error));
        assert!(!message.is_empty() && status != INTERNAL, "{message}");
        assert!(CStr::from_ptr(amp_status_name(status)).to_str().unwrap().starts_with("AMP_"));
        assert!(amp_error_status(error) == status);
        assert!(amp_error_http_status(error) >= 0);
        let code = amp_error_oauth_code(error);
        assert!(code.is_null() || !shown(code).is_empty());
        amp_error_is_retryable(error);
        assert!(amp_error_retry_after_ms(error) >= -1 && amp_error_attempts(error) < 100);
        amp_error_free(error);
    }
}

const INTERNAL: i32 = 69;

/// A configuration whose requests are fast, and do not leave this process.
fn new_config() -> Handle {
    unsafe {
        let config = amp_config_new();
        for (name, value) in [("client_id", "i"), ("client_secret", SECRET), ("retries", "0"), ("timeout_ms", "50")] {
            amp_config_set(config, text(name).as_ptr(), text(value).as_ptr(), null_mut());
        }
        amp_config_set_transport(config, Some(send), null_mut(), null_mut());
        config
    }
}

extern "C" fn log(level: i32, message: *const c_char, _: *mut c_void) {
    assert!((1..=4).contains(&level) && !unsafe { shown(message) }.is_empty());
    react();
}

extern "C" fn observe(event: i32, error: Handle, _: *mut c_void) {
    assert!((1..=3).contains(&event) && error.is_null() == (event != 2));
    if !error.is_null() {
        unsafe { shown(amp_error_message(error)) };
    }
    react();
}

/// Accepts small pieces only.
extern "C" fn write(_: *const c_void, length: usize, _: *mut c_void) -> bool {
    react();
    length < 60
}

/// A service that cycles through different responses.
extern "C" fn send(request: Handle, reply: Handle, data: *mut c_void) -> i32 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    react();
    let body = format!(r#"{{"access_token":"canary-token-{number}","expires_in":{}}}"#, 1 + number % 400);
    unsafe {
        assert!(!amp_http_request_method(request).is_null() && !amp_http_request_url(request).is_null());
        assert!(amp_http_request_timeout_ms(request) >= 0);
        for index in 0.. {
            let name = amp_http_request_header_name(request, index);
            if name.is_null() {
                break;
            }
            assert!(!amp_http_request_header(request, name).is_null());
        }
        let mut length = 1;
        let sent = amp_http_request_body(request, &mut length);
        assert!(sent.is_null() == (length == 0));
        let sent = if length > 0 { std::slice::from_raw_parts(sent.cast::<u8>(), length) } else { &[] };
        let has_secret = sent.windows(SECRET.len()).any(|part| part == SECRET.as_bytes());
        amp_http_reply_add_header(reply, c"Retry-After".as_ptr(), c"1".as_ptr());
        match number % 9 {
            0 => amp_http_reply_fail(reply, 31, null()),
            1 => amp_http_reply_set_status(reply, 503),
            2 => return data as i32,
            // They repeat the secret that they were sent.
            3 if has_secret => amp_http_reply_fail(reply, 32, text(&format!("no {SECRET}")).as_ptr()),
            4 if has_secret => {
                amp_http_reply_set_status(reply, 400);
                let body = format!(r#"{{"error":"invalid_request","error_description":"bad {SECRET}"}}"#);
                amp_http_reply_append_body(reply, body.as_ptr().cast(), body.len());
            }
            _ => {
                amp_http_reply_set_status(reply, 200);
                amp_http_reply_append_body(reply, body.as_ptr().cast(), body.len());
            }
        }
    }
    0
}

#[derive(Arbitrary, Debug)]
enum Step {
    Config,
    Set(u8, String, Option<String>),
    Transport(bool),
    Load,
    Logger(bool),
    Observer(bool),
    QueueLines(u16),
    NextLine(u8),
    TryGet,
    Report(i32, Vec<u8>),
    StopCallbacks,
    FreeConfig,
    Get,
    Cache,
    CacheGet,
    CacheGetFor(i64),
    CacheCopy(u16),
    Invalidate(bool),
    Stat(String),
    FreeCache,
    Clone,
    Look,
    FreeToken,
    Request(String, String, Option<String>, Vec<u8>),
    Send(Vec<String>, i64, Vec<u8>),
    Download(String),
    Graphql(String, Option<String>),
    CreatePat(String, String),
    FreeResponse,
    Threads,
    /// What the next callbacks do.
    React(Vec<u8>),
    /// Goes on with another configuration and cache.
    Switch,
}

const NAMES: [&str; 8] = [
    "client_id",
    "client_secret",
    "retries",
    "min_validity_ms",
    "background_refresh",
    "timeout_ms",
    "user_agent",
    "api_url",
];

fn text(text: &str) -> CString {
    CString::new(text.replace('\0', "")).unwrap()
}

/// Handles that several threads use at once.
struct Shared {
    config: Handle,
    cache: Handle,
    token: Handle,
}
unsafe impl Sync for Shared {}

/// Everything that a thread may do with handles that other threads use. Each thread starts with another step.
fn use_together(shared: &Shared, start: usize) {
    CURRENT.set(Current { config: shared.config, cache: shared.cache, token: shared.token });
    REACTIONS.with_borrow_mut(|reactions| reactions.extend((0..12).map(|number| number * 5 + start as u8)));
    for step in start..start + 10 {
        let (mut token, mut other, mut response) = (null_mut(), null_mut(), null_mut());
        unsafe {
            match step % 10 {
                0 => drop(amp_token_cache_get(shared.cache, &mut token, null_mut())),
                1 => drop(amp_token_cache_get_for(shared.cache, 0, &mut token, null_mut())),
                2 => amp_token_cache_invalidate(shared.cache, shared.token),
                3 => {
                    let mut buffer = [0 as c_char; 64];
                    amp_token_cache_copy(shared.cache, buffer.as_mut_ptr(), buffer.len(), null_mut(), null_mut());
                }
                4 => token = amp_token_clone(shared.token),
                5 => drop(amp_token_get(shared.config, &mut token, null_mut())),
                6 => {
                    let (method, path) = (c"GET".as_ptr(), c"/x".as_ptr());
                    amp_api_request(shared.cache, method, path, null(), null(), 0, &mut response, null_mut());
                }
                7 => drop(amp_token_cache_try_get(shared.cache, &mut token, null_mut())),
                8 => drop(amp_token_cache_report(shared.cache, shared.token, 401, null(), 0)),
                _ => drop(amp_token_cache_new(shared.config, &mut other, null_mut())),
            }
            let epoch = amp_token_cache_epoch(shared.cache);
            assert!(epoch.is_null() == shared.cache.is_null());
            assert!(amp_token_cache_api_url(shared.cache).is_null() == shared.cache.is_null());
            amp_token_cache_stat(shared.cache, c"hits".as_ptr());
            amp_token_cache_invalidate(shared.cache, token);
            amp_token_free(token);
            amp_response_free(response);
            amp_token_cache_free(other);
        }
    }
}

fn look_at_response(response: Handle) {
    unsafe {
        assert!(response.is_null() == (amp_response_status(response) == 0));
        amp_response_header(response, c"retry-after".as_ptr());
        amp_response_body(response, null_mut());
        amp_response_next_page(response);
    }
}

fuzz_target!(|steps: Vec<Step>| on_small_stack(move || unsafe {
    amp_abi_version();
    assert!(!amp_version().is_null() && !amp_status_name(steps.len() as i32).is_null());
    let (mut config, mut cache, mut response) = (null_mut(), null_mut(), null_mut());
    let mut tokens: Vec<Handle> = Vec::new();
    let (mut other_config, mut other_cache) = (null_mut(), null_mut());
    REACTIONS.with_borrow_mut(Vec::clear);
    for step in steps.iter().take(64) {
        let (mut error, mut token) = (null_mut(), null_mut());
        let current = Current { config, cache, token: tokens.last().copied().unwrap_or(null_mut()) };
        // What is changed or freed must not be used meanwhile.
        CURRENT.set(match step {
            Step::Config | Step::FreeConfig | Step::Set(..) | Step::Load => Current { config: null_mut(), ..current },
            Step::Transport(_) | Step::Logger(_) | Step::Observer(_) | Step::QueueLines(_) => {
                Current { config: null_mut(), ..current }
            }
            Step::Cache | Step::FreeCache => Current { cache: null_mut(), ..current },
            Step::FreeToken => Current { token: null_mut(), ..current },
            _ => current,
        });
        match step {
            Step::Config => {
                amp_config_free(config);
                config = new_config();
            }
            Step::Set(name, other, value) => {
                let name = NAMES.get(usize::from(*name) % 12).copied().unwrap_or(other);
                let value = value.as_deref().map(text);
                let pointer = value.as_ref().map_or(null(), |value| value.as_ptr());
                let status = amp_config_set(config, text(name).as_ptr(), pointer, &mut error);
                check(status, error);
            }
            Step::Transport(fails) => {
                let data = if *fails { 1 as *mut c_void } else { null_mut() };
                check(amp_config_set_transport(config, Some(send), data, &mut error), error);
            }
            // Load sets only unset settings, so requests stay within this process.
            Step::Load => check(amp_config_load(config, &mut error), error),
            Step::Logger(on) => check(amp_config_set_logger(config, on.then_some(log), null_mut(), &mut error), error),
            Step::Observer(on) => {
                check(amp_config_set_observer(config, on.then_some(observe), null_mut(), &mut error), error);
            }
            Step::QueueLines(capacity) => {
                check(amp_config_queue_log_lines(config, usize::from(*capacity), &mut error), error);
            }
            Step::NextLine(size) => {
                let mut buffer = vec![0x55 as c_char; usize::from(*size)];
                let mut level = 0;
                if amp_config_next_log_line(config, &mut level, buffer.as_mut_ptr(), buffer.len()) {
                    assert!((1..=4).contains(&level) && libc::strlen(buffer.as_ptr()) < buffer.len());
                    // A line that is cut may end in the middle of a character.
                    let line = CStr::from_ptr(buffer.as_ptr()).to_string_lossy();
                    assert!(!line.contains(SECRET) && !line.contains("canary-token"), "{line}");
                }
            }
            Step::TryGet => {
                check(amp_token_cache_try_get(cache, &mut token, &mut error), error);
                tokens.push(token);
            }
            Step::Report(status, body) => {
                let token = tokens.last().copied().unwrap_or(null_mut());
                amp_token_cache_report(cache, token, *status, body.as_ptr().cast(), body.len());
            }
            Step::StopCallbacks => amp_config_stop_callbacks(config),
            Step::FreeConfig => {
                amp_config_free(config);
                config = null_mut();
            }
            Step::Get => {
                check(amp_token_get(config, &mut token, &mut error), error);
                tokens.push(token);
            }
            Step::Cache => {
                amp_token_cache_free(cache);
                check(amp_token_cache_new(config, &mut cache, &mut error), error);
            }
            Step::CacheGet => {
                check(amp_token_cache_get(cache, &mut token, &mut error), error);
                tokens.push(token);
            }
            Step::CacheGetFor(ms) => {
                check(amp_token_cache_get_for(cache, *ms, &mut token, &mut error), error);
                tokens.push(token);
            }
            Step::CacheCopy(size) => {
                let mut buffer = vec![0x55 as c_char; usize::from(*size)];
                let mut length = 0;
                let status = amp_token_cache_copy(cache, buffer.as_mut_ptr(), buffer.len(), &mut length, &mut error);
                if status == 0 {
                    assert!(length < buffer.len() && buffer[length] == 0);
                } else {
                    assert!(buffer.iter().all(|byte| *byte == 0x55));
                }
                check(status, error);
            }
            Step::Invalidate(any) => {
                amp_token_cache_invalidate(
                    cache,
                    if *any { tokens.last().copied().unwrap_or(null_mut()) } else { null_mut() },
                );
            }
            Step::Stat(name) => {
                amp_token_cache_stat(cache, text(name).as_ptr());
            }
            Step::FreeCache => {
                amp_token_cache_free(cache);
                cache = null_mut();
            }
            Step::Clone => {
                if let Some(token) = tokens.last().copied() {
                    tokens.push(amp_token_clone(token));
                }
            }
            Step::Look => {
                for token in tokens.iter().copied().filter(|token| !token.is_null()) {
                    assert_eq!(libc::strlen(amp_token_value(token)), amp_token_length(token));
                    assert_eq!(libc::strlen(amp_token_authorization(token)), amp_token_length(token) + 7);
                    assert!(amp_token_expires_in(token) >= 0 && amp_token_expires_at(token) > 0);
                    assert!(amp_token_refresh_in_ms(token) >= 0);
                }
            }
            Step::FreeToken => amp_token_free(tokens.pop().unwrap_or(null_mut())),
            Step::Send(headers, timeout, body) => {
                amp_response_free(response);
                let headers: Vec<_> = headers.iter().map(|header| text(header)).collect();
                let headers: Vec<_> = headers.iter().map(|header| header.as_ptr()).chain([null()]).collect();
                let (method, path) = (c"PUT".as_ptr(), c"/x".as_ptr());
                let (list, body, length) = (headers.as_ptr(), body.as_ptr().cast(), body.len());
                let status = amp_api_send(cache, method, path, list, body, length, *timeout, &mut response, &mut error);
                check(status, error);
                look_at_response(response);
            }
            Step::Request(method, path, kind, body) => {
                amp_response_free(response);
                let kind = kind.as_deref().map(text);
                let kind = kind.as_ref().map_or(null(), |kind| kind.as_ptr());
                let (method, path) = (text(method), text(path));
                let (body, length) = (body.as_ptr().cast(), body.len());
                let status = amp_api_request(
                    cache,
                    method.as_ptr(),
                    path.as_ptr(),
                    kind,
                    body,
                    length,
                    &mut response,
                    &mut error,
                );
                check(status, error);
                look_at_response(response);
            }
            Step::Download(path) => {
                amp_response_free(response);
                let path = text(path);
                let status = amp_api_download(cache, path.as_ptr(), Some(write), null_mut(), &mut response, &mut error);
                check(status, error);
                look_at_response(response);
            }
            Step::Graphql(query, variables) => {
                amp_response_free(response);
                let (query, variables) = (text(query), variables.as_deref().map(text));
                let variables = variables.as_ref().map_or(null(), |text| text.as_ptr());
                check(amp_api_graphql(cache, query.as_ptr(), variables, &mut response, &mut error), error);
                look_at_response(response);
            }
            Step::CreatePat(name, organization) => {
                amp_response_free(response);
                let (name, organization) = (text(name), text(organization));
                check(amp_pat_create(cache, name.as_ptr(), organization.as_ptr(), &mut response, &mut error), error);
                look_at_response(response);
            }
            Step::FreeResponse => {
                amp_response_free(response);
                response = null_mut();
            }
            Step::Threads => {
                let shared = Shared { config, cache, token: tokens.last().copied().unwrap_or(null_mut()) };
                std::thread::scope(|scope| {
                    let shared = &shared;
                    let threads = [0, 2, 4, 6].map(|start| scope.spawn(move || use_together(shared, start)));
                    // The scope does not wait until a thread has fully ended, which looks like a leak.
                    threads.into_iter().for_each(|thread| thread.join().unwrap());
                });
            }
            Step::React(reactions) => REACTIONS.with_borrow_mut(|all| {
                all.clear();
                all.extend(reactions.iter().take(32));
            }),
            Step::Switch => {
                std::mem::swap(&mut config, &mut other_config);
                std::mem::swap(&mut cache, &mut other_cache);
            }
        }
    }
    CURRENT.set(Current { config: null_mut(), cache: null_mut(), token: null_mut() });
    for token in tokens {
        amp_token_free(token);
    }
    amp_response_free(response);
    for cache in [cache, other_cache] {
        amp_token_cache_free(cache);
    }
    for config in [config, other_config] {
        amp_config_free(config);
    }
}));
