//! The C interface as a random program uses it: any order, any argument, handles shared by threads.
#![no_main]
// Nothing of the crate is named: its C functions are what is linked.
use amp_token as _;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use std::ffi::{CString, c_char, c_void};
use std::ptr::{null, null_mut};

// What the header declares, with every handle a plain pointer.
type Handle = *mut c_void;
unsafe extern "C" {
    fn amp_config_new() -> Handle;
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
    fn amp_token_expires_in(token: Handle) -> i64;
    fn amp_token_clone(token: Handle) -> Handle;
    fn amp_token_free(token: Handle);
    fn amp_token_cache_new(config: Handle, cache: *mut Handle, error: *mut Handle) -> i32;
    fn amp_token_cache_get(cache: Handle, token: *mut Handle, error: *mut Handle) -> i32;
    fn amp_token_cache_get_for(cache: Handle, ms: i64, token: *mut Handle, error: *mut Handle) -> i32;
    fn amp_token_cache_copy(cache: Handle, buffer: *mut c_char, size: usize, length: *mut usize, error: *mut Handle) -> i32;
    fn amp_token_cache_invalidate(cache: Handle, token: Handle);
    fn amp_token_cache_stat(cache: Handle, name: *const c_char) -> i64;
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
    fn amp_response_body(response: Handle, length: *mut usize) -> *const c_void;
    fn amp_response_header(response: Handle, name: *const c_char) -> *const c_char;
    fn amp_response_free(response: Handle);
    fn amp_http_reply_set_status(reply: Handle, status: i32);
    fn amp_http_reply_append_body(reply: Handle, data: *const c_void, length: usize) -> bool;
    fn amp_http_reply_fail(reply: Handle, status: i32, message: *const c_char);
    fn amp_error_message(error: Handle) -> *const c_char;
    fn amp_error_free(error: Handle);
}

/// A service whose answers go round.
extern "C" fn send(_: Handle, reply: Handle, data: *mut c_void) -> i32 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let body = format!(r#"{{"access_token":"t{number}","expires_in":{}}}"#, 1 + number % 400);
    unsafe {
        match number % 7 {
            0 => amp_http_reply_fail(reply, 31, null()),
            1 => amp_http_reply_set_status(reply, 503),
            2 => return data as i32,
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
    FreeResponse,
    Threads,
}

const NAMES: [&str; 8] =
    ["client_id", "client_secret", "retries", "min_validity_ms", "background_refresh", "timeout_ms", "user_agent", "api_url"];

fn text(text: &str) -> CString {
    CString::new(text.replace('\0', "")).unwrap()
}

struct Shared(Handle);
unsafe impl Sync for Shared {}

fuzz_target!(|steps: Vec<Step>| unsafe {
    let (mut config, mut cache, mut response) = (null_mut(), null_mut(), null_mut());
    let mut tokens: Vec<Handle> = Vec::new();
    let check = |status: i32, error: Handle| {
        // An error object comes with a failure, and only with one.
        assert_eq!(status != 0, !error.is_null());
        if !error.is_null() {
            assert!(*amp_error_message(error) != 0);
            amp_error_free(error);
        }
    };
    for step in steps.iter().take(64) {
        let (mut error, mut token) = (null_mut(), null_mut());
        match step {
            Step::Config => {
                amp_config_free(config);
                config = amp_config_new();
                // Requests must not take their time, and must not leave this process.
                for (name, value) in [("client_id", "i"), ("client_secret", "s"), ("retries", "0"), ("timeout_ms", "50")] {
                    amp_config_set(config, text(name).as_ptr(), text(value).as_ptr(), null_mut());
                }
                amp_config_set_transport(config, Some(send), null_mut(), null_mut());
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
                amp_token_cache_invalidate(cache, if *any { tokens.last().copied().unwrap_or(null_mut()) } else { null_mut() });
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
                    assert!(amp_token_expires_in(token) >= 0);
                }
            }
            Step::FreeToken => amp_token_free(tokens.pop().unwrap_or(null_mut())),
            Step::Request(method, path, kind, body) => {
                amp_response_free(response);
                let kind = kind.as_deref().map(text);
                let kind = kind.as_ref().map_or(null(), |kind| kind.as_ptr());
                let (method, path) = (text(method), text(path));
                let (body, length) = (body.as_ptr().cast(), body.len());
                let status =
                    amp_api_request(cache, method.as_ptr(), path.as_ptr(), kind, body, length, &mut response, &mut error);
                check(status, error);
                amp_response_header(response, c"x".as_ptr());
                amp_response_body(response, null_mut());
            }
            Step::FreeResponse => {
                amp_response_free(response);
                response = null_mut();
            }
            Step::Threads => {
                let shared = Shared(cache);
                std::thread::scope(|scope| {
                    for _ in 0..3 {
                        let shared = &shared;
                        scope.spawn(move || {
                            let mut token = null_mut();
                            amp_token_cache_get(shared.0, &mut token, null_mut());
                            amp_token_cache_invalidate(shared.0, token);
                            amp_token_free(token);
                        });
                    }
                });
            }
        }
    }
    for token in tokens {
        amp_token_free(token);
    }
    amp_response_free(response);
    amp_token_cache_free(cache);
    amp_config_free(config);
});
