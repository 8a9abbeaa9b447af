//! One token.

use super::config::amp_config;
use super::error::{amp_error, amp_status, fallible};
use super::ffi::{self, Handle};
use crate::sys::clock::Clock;
use crate::token::Token;
use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::sync::Arc;

/// One access token. Immutable, so any number of threads may use it at once. It
/// stays valid when the cache that it came from is freed.
//
// A handle is the counted reference itself, so that returning a token allocates nothing. `cfg_attr` hides the
// representation from cbindgen, which would write a typedef to a C struct for it; C knows an opaque type.
#[cfg_attr(all(), repr(transparent))]
pub struct amp_token(Token);

impl Handle for amp_token {
    type Owner = Arc<Token>;
}

impl amp_token {
    pub(super) fn inner(&self) -> &Token {
        &self.0
    }
}

/// Fetches a token without a cache, for a program that needs a single one. A
/// program that needs more than one, or has threads, uses an amp_token_cache.
///
/// Threads: any, but not while another thread changes `config`.
/// NULL: AMP_INVALID_ARGUMENT for `config` and `token`.
/// Ownership: free `*token` with amp_token_free(); it is NULL on failure.
/// Blocks: for up to timeout_ms.
/// Errors: AMP_CONFIG, AMP_NO_CREDENTIALS: nothing was sent.
///   AMP_CREDENTIALS_REJECTED: the server rejected the credentials.
///   AMP_RESOLVE, AMP_CONNECT, AMP_TLS, AMP_PROXY, AMP_TIMEOUT: the network
///   failed. AMP_RATE_LIMITED, AMP_SERVER, AMP_PROTOCOL: the response was not a
///   token. AMP_IO: a file operation or system call failed.
#[unsafe(no_mangle)]
#[must_use]
pub extern "C" fn amp_token_get(
    config: Option<&amp_config>,
    token: Option<&mut MaybeUninit<*mut amp_token>>,
    error: Option<&mut MaybeUninit<*mut amp_error>>,
) -> amp_status {
    fallible(error, || {
        let token = ffi::out_ptr(token, "token")?;
        let config = ffi::required(config, "config")?;
        token.write(ffi::into_handle(Arc::new(crate::token::provider::get_token(config.inner())?)));
        Ok(())
    })
}

/// Returns the token itself, which consists of visible ASCII characters. It is
/// a secret: do not log it.
///
/// Threads: any.
/// NULL: returned for a NULL `token`.
/// Ownership: borrowed from `token`.
#[unsafe(no_mangle)]
pub extern "C" fn amp_token_value(token: Option<&amp_token>) -> *const c_char {
    ffi::infallible(std::ptr::null(), || {
        token.map_or(std::ptr::null(), |token| token.0.value_with_nul().as_ptr().cast())
    })
}

/// Returns the length of amp_token_value() in bytes, without the NUL.
///
/// Threads: any.
/// NULL: 0 for a NULL `token`.
#[unsafe(no_mangle)]
pub extern "C" fn amp_token_length(token: Option<&amp_token>) -> usize {
    ffi::infallible(0, || token.map_or(0, |token| token.0.value().len()))
}

/// Returns the value of an Authorization header: "Bearer " and the token. It is
/// a secret: do not log it.
///
/// Threads: any.
/// NULL: returned for a NULL `token`.
/// Ownership: borrowed from `token`.
#[unsafe(no_mangle)]
pub extern "C" fn amp_token_authorization(token: Option<&amp_token>) -> *const c_char {
    ffi::infallible(std::ptr::null(), || {
        token.map_or(std::ptr::null(), |token| token.0.authorization_with_nul().as_ptr().cast())
    })
}

/// Returns when the token expires, in seconds since 1970 by this machine's
/// clock; INT64_MAX if it never expires.
///
/// Threads: any.
/// NULL: 0 for a NULL `token`.
#[unsafe(no_mangle)]
pub extern "C" fn amp_token_expires_at(token: Option<&amp_token>) -> i64 {
    ffi::infallible(0, || token.map_or(0, |token| token.0.expires_at()))
}

/// Returns for how many whole seconds the token is still valid, never less than
/// 0; INT64_MAX if it never expires. Uses both the monotonic and the wall
/// clock, so it is never overestimated after a clock change or suspend.
///
/// Threads: any.
/// NULL: 0 for a NULL `token`.
#[unsafe(no_mangle)]
pub extern "C" fn amp_token_expires_in(token: Option<&amp_token>) -> i64 {
    ffi::infallible(0, || token.map_or(0, |token| token.0.expires_in(Clock::System.now())))
}

/// Returns for how many milliseconds the token may be used without asking the
/// cache again: until it is due for refresh. For bindings and programs that
/// keep a copy of the token together with amp_token_cache_epoch(). INT64_MAX if
/// the token never expires; 0 if the cache must be asked now.
///
/// Count this time by a clock that goes on while the machine is suspended
/// (CLOCK_BOOTTIME on Linux), and also compare the wall clock with
/// amp_token_expires_at(): a virtual machine that was paused continues with
/// another clock than a real one. Or call this function again each time.
///
/// Threads: any.
/// NULL: 0 for a NULL `token`.
#[unsafe(no_mangle)]
pub extern "C" fn amp_token_refresh_in_ms(token: Option<&amp_token>) -> i64 {
    ffi::infallible(0, || match token {
        Some(token) if token.0.is_permanent() => i64::MAX,
        Some(token) => {
            i64::try_from(Clock::System.now().remaining_until(token.0.refresh_at()).as_millis()).unwrap_or(i64::MAX)
        }
        None => 0,
    })
}

/// Returns another reference to the same token (one atomic increment).
///
/// Threads: any.
/// NULL: returned for a NULL `token`.
/// Ownership: free it with amp_token_free(), in addition to `token`.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn amp_token_clone(token: *const amp_token) -> *mut amp_token {
    ffi::infallible(std::ptr::null_mut(), || {
        if !token.is_null() {
            // SAFETY: the header asks for a token, whose owner is an `Arc<Token>`, that is not freed before
            // the call returns.
            unsafe { Arc::increment_strong_count(token.cast::<Token>()) };
        }
        token.cast_mut()
    })
}

/// Frees a token. Its memory is wiped when the last reference is freed.
///
/// Threads: any, but not while another thread uses this reference.
/// NULL: a NULL `token` is ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn amp_token_free(token: *mut amp_token) {
    // SAFETY: the header asks for a handle of this type that is not used again.
    unsafe { ffi::free(token) }
}
