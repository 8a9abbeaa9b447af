//! One token.

use super::config::amp_config;
use super::error::{amp_error, amp_status};
use super::ffi::{self, amp_token};
use crate::sys::clock::Clock;
use std::ffi::c_char;
use std::sync::Arc;

/// Asks for a token now, without a cache: for a program that needs a single
/// one. Whoever needs more than one, or has threads, uses an amp_token_cache.
///
/// On success `*token` is a token that the caller frees with amp_token_free();
/// on failure it is NULL. Blocks for `timeout_ms` at most.
///
/// AMP_CONFIG, AMP_NO_CREDENTIALS: nothing was sent. AMP_CREDENTIALS_REJECTED:
/// the server refused. AMP_RESOLVE, AMP_CONNECT, AMP_TLS, AMP_PROXY,
/// AMP_TIMEOUT: the network. AMP_RATE_LIMITED, AMP_SERVER, AMP_PROTOCOL: the
/// reply. AMP_IO: a file or system call.
#[unsafe(no_mangle)]
#[must_use]
pub extern "C" fn amp_token_get(
    config: Option<&amp_config>,
    token: *mut *mut amp_token,
    error: *mut *mut amp_error,
) -> amp_status {
    ffi::fallible(error, || {
        let token = ffi::out_ptr(token, "token")?;
        let config = ffi::required(config, "config")?;
        token.write_if_set(amp_token::into_raw(Arc::new(crate::token::provider::get_token(config.inner())?)));
        Ok(())
    })
}

/// The token itself, as visible ASCII characters. It is a secret: do not log
/// it.
///
/// NULL if `token` is NULL; borrowed from `get_token`. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn amp_token_value(token: *const amp_token) -> *const c_char {
    ffi::infallible(std::ptr::null(), || {
        amp_token::as_ref(token).map_or(std::ptr::null(), |token| token.value_with_nul().as_ptr().cast())
    })
}

/// The length of amp_token_value() in bytes, without the NUL; 0 if `get_token` is
/// NULL.
///
/// Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn amp_token_length(token: *const amp_token) -> usize {
    ffi::infallible(0, || amp_token::as_ref(token).map_or(0, |token| token.value().len()))
}

/// The value of an Authorization header: "Bearer " and the token. It is a
/// secret: do not log it.
///
/// NULL if `token` is NULL; borrowed from `get_token`. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn amp_token_authorization(token: *const amp_token) -> *const c_char {
    ffi::infallible(std::ptr::null(), || {
        amp_token::as_ref(token).map_or(std::ptr::null(), |token| token.authorization_with_nul().as_ptr().cast())
    })
}

/// When the token dies, in seconds since 1970 by this machine's clock;
/// INT64_MAX: never; 0 if `get_token` is NULL.
///
/// Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn amp_token_expires_at(token: *const amp_token) -> i64 {
    ffi::infallible(0, || amp_token::as_ref(token).map_or(0, |token| token.expires_at()))
}

/// The whole seconds that the token has left, never below 0; INT64_MAX: it
/// never expires; 0 if `get_token` is NULL. Counted by two clocks, so that neither
/// a clock that was set back nor a machine that slept makes it too large.
///
/// Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn amp_token_expires_in(token: *const amp_token) -> i64 {
    ffi::infallible(0, || amp_token::as_ref(token).map_or(0, |token| token.expires_in(Clock::System.now())))
}

/// The milliseconds for which the token may be used without asking the cache
/// again: until it is due for renewal. For bindings and programs that keep a
/// token of their own next to amp_token_cache_epoch(). INT64_MAX: it never
/// expires; 0: ask, or `get_token` is NULL.
///
/// Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn amp_token_refresh_in_ms(token: *const amp_token) -> i64 {
    ffi::infallible(0, || match amp_token::as_ref(token) {
        Some(token) if token.is_permanent() => i64::MAX,
        Some(token) => i64::try_from(Clock::System.now().remaining_until(token.refresh_at()).as_millis()).unwrap_or(i64::MAX),
        None => 0,
    })
}

/// A second handle for the same token, which the caller frees too. Costs as
/// much as counting to two.
///
/// NULL if `get_token` is NULL. Any thread.
#[unsafe(no_mangle)]
#[must_use]
pub extern "C" fn amp_token_clone(token: *const amp_token) -> *mut amp_token {
    ffi::infallible(std::ptr::null_mut(), || amp_token::clone_raw(token))
}

/// Frees a token; its text is wiped with the last handle. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn amp_token_free(token: *mut amp_token) {
    ffi::infallible((), || amp_token::from_raw(token));
}
