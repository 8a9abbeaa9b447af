//! The token cache.

use super::callback_guard::CallbackGuard;
use super::config::amp_config;
use super::error::{amp_error, amp_status, fallible, fallible_hot};
use super::ffi::{self, Bool, Handle};
use super::token::amp_token;
use crate::error::{Error, Kind, Result};
use crate::token::Token;
use crate::token::cache::TokenCache;
use std::ffi::{CString, c_char, c_void};
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::Duration;

/// The current token of one set of credentials, refreshed before it expires and
/// shared by all threads.
///
/// Any number of threads may call the functions whose first parameter is const
/// at once. After a fork, both the parent and the child may use it. It must not
/// be freed while another thread uses it; tokens that were returned by it stay
/// valid.
pub struct amp_token_cache {
    cache: TokenCache,
    api_url: CString,
    guard: Arc<CallbackGuard>,
}

impl Handle for amp_token_cache {
    type Owner = Box<Self>;
}

impl amp_token_cache {
    pub(super) fn inner(&self) -> &TokenCache {
        &self.cache
    }

    /// What ends the callbacks of the config that the cache was created from.
    pub(super) fn guard(&self) -> &CallbackGuard {
        &self.guard
    }
}

/// Creates a cache from a config: finds the credentials, and sends nothing yet.
///
/// Threads: any, but not while another thread changes `config`.
/// NULL: AMP_INVALID_ARGUMENT for `config` and `cache`.
/// Ownership: free `*cache` with amp_token_cache_free(); it is NULL on failure.
///   `config` may be freed right after.
/// Blocks: not on the network, but it reads files.
/// Errors: AMP_CONFIG if settings conflict. AMP_NO_CREDENTIALS if none were
///   found; the message lists where they were searched for. AMP_IO if a file
///   cannot be read.
#[unsafe(no_mangle)]
#[must_use]
pub extern "C" fn amp_token_cache_new(
    config: Option<&amp_config>,
    cache: Option<&mut MaybeUninit<*mut amp_token_cache>>,
    error: Option<&mut MaybeUninit<*mut amp_error>>,
) -> amp_status {
    fallible(error, || {
        let cache = ffi::out_ptr(cache, "cache")?;
        let config = ffi::required(config, "config")?;
        let made = TokenCache::new(config.inner())?;
        let api_url = ffi::to_c_string(made.options().api_url.as_str());
        cache.write(ffi::into_handle(Box::new(amp_token_cache { cache: made, api_url, guard: config.guard() })));
        Ok(())
    })
}

/// Runs the body of a function that returns a token.
fn token_with(
    cache: Option<&amp_token_cache>,
    token: Option<&mut MaybeUninit<*mut amp_token>>,
    error: Option<&mut MaybeUninit<*mut amp_error>>,
    body: impl FnOnce(&TokenCache) -> Result<Arc<Token>>,
) -> amp_status {
    fallible_hot(error, || {
        let place = ffi::out_ptr(token, "token")?;
        place.write(ffi::into_handle(body(ffi::required(cache, "cache")?.inner())?));
        Ok(())
    })
}

/// Returns a valid token: the cached one while it is valid, otherwise a new
/// one.
///
/// Returns immediately while the cached token is valid. When it is due for
/// refresh, one caller performs the refresh and may block for up to 2 seconds.
/// However many threads call it, one request is sent. It is not a cancellation
/// point: threads that may be cancelled disable cancellation around the call.
///
/// After a failure there is a backoff, during which calls fail immediately with
/// the same error; amp_error_retry_after_ms() says for how long.
///
/// Threads: any.
/// NULL: AMP_INVALID_ARGUMENT for `cache` and `token`.
/// Ownership: free `*token` with amp_token_free(); it is NULL on failure.
/// Blocks: for up to timeout_ms if no valid token is cached.
/// Errors: those of amp_token_get().
#[unsafe(no_mangle)]
#[must_use]
pub extern "C" fn amp_token_cache_get(
    cache: Option<&amp_token_cache>,
    token: Option<&mut MaybeUninit<*mut amp_token>>,
    error: Option<&mut MaybeUninit<*mut amp_error>>,
) -> amp_status {
    token_with(cache, token, error, TokenCache::get)
}

/// Like amp_token_cache_get(), but returns a token that is valid for at least
/// `min_validity_ms` more, for a request that takes long. If the setting
/// min_validity_ms is larger, that one applies.
///
/// Threads: any.
/// NULL: AMP_INVALID_ARGUMENT for `cache` and `token`.
/// Ownership: free `*token` with amp_token_free(); it is NULL on failure.
/// Blocks: for up to timeout_ms if no such token is cached.
/// Errors: AMP_INVALID_ARGUMENT if `min_validity_ms` is negative, or longer
///   than the lifetime of tokens. Otherwise those of amp_token_cache_get().
#[unsafe(no_mangle)]
#[must_use]
pub extern "C" fn amp_token_cache_get_for(
    cache: Option<&amp_token_cache>,
    min_validity_ms: i64,
    token: Option<&mut MaybeUninit<*mut amp_token>>,
    error: Option<&mut MaybeUninit<*mut amp_error>>,
) -> amp_status {
    token_with(cache, token, error, |cache| {
        let min_validity = u64::try_from(min_validity_ms).map_err(|_| {
            Error::invalid(format!("min_validity_ms is {min_validity_ms}")).with_hint("pass 0 or more milliseconds")
        })?;
        cache.get_for(Duration::from_millis(min_validity))
    })
}

/// Copies a valid token and a NUL into `buffer`. Like amp_token_cache_get(),
/// but without a handle to free; it is the fastest way for many threads. A
/// token is about 1,100 bytes long, and may become longer; 4096 is a good
/// capacity.
///
/// `*length` is set to the token's length without the NUL, even if the buffer
/// is too small. On failure `buffer` is unchanged, and `*length` is 0 unless
/// the buffer is too small.
///
/// Threads: any.
/// NULL: AMP_INVALID_ARGUMENT for `cache`, and for `buffer` unless `capacity`
///   is 0. `length` may be NULL.
/// Ownership: `buffer` belongs to the caller. It contains a secret: wipe it
///   after use.
/// Blocks: for up to timeout_ms if no valid token is cached.
/// Errors: AMP_BUFFER_TOO_SMALL if `capacity` is not greater than the length.
///   Otherwise those of amp_token_cache_get().
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn amp_token_cache_copy(
    cache: Option<&amp_token_cache>,
    buffer: *mut c_char,
    capacity: usize,
    length: Option<&mut MaybeUninit<usize>>,
    error: Option<&mut MaybeUninit<*mut amp_error>>,
) -> amp_status {
    fallible_hot(error, || {
        let mut length = length;
        ffi::write_if_set(length.as_deref_mut(), 0);
        let cache = ffi::required(cache, "cache")?;
        if buffer.is_null() && capacity > 0 {
            return Err(Error::invalid("buffer is NULL").with_hint("pass a buffer, or 0 as its capacity"));
        }
        let (needed, fits) = cache.cache.with_token(|token| {
            let text = token.value_with_nul();
            // SAFETY: the header asks for `capacity` writable bytes. The caller has no writable pointer to
            // the token's memory, so they do not overlap.
            (text.len(), unsafe { ffi::copy(text, buffer, capacity) })
        })?;
        ffi::write_if_set(length, needed - 1);
        if fits {
            return Ok(());
        }
        Err(Error::new(
            Kind::BufferTooSmall,
            format!("cannot copy the token: it needs {needed} bytes including its NUL, and the buffer has {capacity}"),
        )
        .with_hint("call again with a larger buffer"))
    })
}

/// Like amp_token_cache_get(), but never waits: for event loops, and hosts whose
/// threads must not block. If no valid token is cached, a thread of the library
/// requests one, and the call fails with AMP_PENDING until it is there;
/// amp_error_retry_after_ms() says when to ask again. A token that is due for
/// refresh is returned while a thread of the library refreshes it. If
/// amp_config_set_transport() was called, that thread calls the transport.
///
/// Threads: any.
/// NULL: AMP_INVALID_ARGUMENT for `cache` and `token`.
/// Ownership: free `*token` with amp_token_free(); it is NULL on failure.
/// Blocks: never.
/// Errors: AMP_PENDING while a token is being requested. After a failure, that
///   failure, during the backoff. Otherwise those of amp_token_get().
/// Example: ask from a timer of an event loop.
///     // Returns how many milliseconds to wait before the next call, or -1.
///     int64_t poll_token(const amp_token_cache *cache, amp_token **token) {
///         amp_error *error = NULL;
///         int64_t wait = -1;
///         if (amp_token_cache_try_get(cache, token, &error) != AMP_OK)
///             wait = amp_error_retry_after_ms(error);
///         amp_error_free(error);
///         return wait;
///     }
#[unsafe(no_mangle)]
#[must_use]
pub extern "C" fn amp_token_cache_try_get(
    cache: Option<&amp_token_cache>,
    token: Option<&mut MaybeUninit<*mut amp_token>>,
    error: Option<&mut MaybeUninit<*mut amp_error>>,
) -> amp_status {
    token_with(cache, token, error, TokenCache::try_get)
}

/// Reports the response to a request that a program sent with `token`, and
/// returns whether to send it again with the token that amp_token_cache_get()
/// then returns. Call it for a 401 or 403; any other status returns false.
///
/// The function decides by the status and the body whether the server rejected
/// the token: a 401 does, and the 403 that Amplience returns for an expired
/// token. It then requests another token, or waits for the request that is in
/// progress, and returns true if there is one. A rejection may also mean that a
/// permission is missing. So the token stays in use for others until it is
/// replaced, and replacements are requested at most once a second, later once a
/// minute; in between the function returns false, and the response is the
/// result of the request. Call it once for each request: if the second response
/// is a rejection too, that is the result.
///
/// Threads: any.
/// NULL: false for a NULL `cache` or `token`. `body` may be NULL if
///   `body_length` is 0.
/// Ownership: `body` is used only during the call. The first 64 KiB of a long
///   body are enough.
/// Blocks: for up to timeout_ms, while another token is requested.
/// Example: decide after each response.
///     bool send_again(const amp_token_cache *cache, const amp_token *token,
///                     int32_t status, const char *body, size_t length,
///                     int attempts) {
///         return attempts == 1 && amp_token_cache_report(cache, token, status,
///                                                        body, length);
///     }
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn amp_token_cache_report(
    cache: Option<&amp_token_cache>,
    token: Option<&amp_token>,
    http_status: i32,
    body: *const c_void,
    body_length: usize,
) -> Bool {
    ffi::infallible(Bool::FALSE, || {
        // SAFETY: the header asks for `body_length` bytes at `body` that do not change during the call.
        let body = unsafe { ffi::bytes(body, body_length, "body") };
        let (Some(cache), Some(token), Ok(body)) = (cache, token, body) else { return Bool::FALSE };
        let Ok(status) = u16::try_from(http_status) else { return Bool::FALSE };
        cache.cache.report(token.inner(), status, body).into()
    })
}

/// Reports that a server rejected `token`. If it is still current, the next call
/// of this thread requests another one; other threads use it until it is
/// replaced. Otherwise this is a no-op, so several threads can report the same
/// token. Replacements are paced as amp_token_cache_report() describes: within
/// the pause the token stays in use.
///
/// A 403 also means that a permission is missing: amp_token_cache_report() tells
/// the two apart.
///
/// Threads: any.
/// NULL: a NULL `cache` or `token` is ignored.
/// Blocks: only to remove the token from a shared store.
#[unsafe(no_mangle)]
pub extern "C" fn amp_token_cache_invalidate(cache: Option<&amp_token_cache>, token: Option<&amp_token>) {
    ffi::infallible((), || {
        if let (Some(cache), Some(token)) = (cache, token) {
            cache.cache.invalidate(token.inner());
        }
    });
}

/// Returns a counter that changes whenever the current token does. A program or
/// binding that keeps a copy of the token may use it, within
/// amp_token_refresh_in_ms(), as long as the counter is unchanged. Read the
/// counter before the token that belongs to it, as one aligned 64-bit load.
///
/// Threads: any.
/// NULL: returned for a NULL `cache`.
/// Ownership: borrowed from `cache`.
#[unsafe(no_mangle)]
pub extern "C" fn amp_token_cache_epoch(cache: Option<&amp_token_cache>) -> *const u64 {
    ffi::infallible(std::ptr::null(), || {
        cache.map_or(std::ptr::null(), |cache| cache.cache.epoch().as_ptr().cast_const())
    })
}

/// Returns the base URL for requests with a token: the effective value of
/// api_url, wherever it was set, without "/" or "/v2/content" at its end. A
/// program that sends its own requests appends paths such as "/v2/content/hubs"
/// to it, and sends the token nowhere else.
///
/// Threads: any.
/// NULL: returned for a NULL `cache`.
/// Ownership: borrowed from `cache`.
#[unsafe(no_mangle)]
pub extern "C" fn amp_token_cache_api_url(cache: Option<&amp_token_cache>) -> *const c_char {
    ffi::infallible(std::ptr::null(), || cache.map_or(std::ptr::null(), |cache| cache.api_url.as_ptr()))
}

/// Returns a statistic by name: "hits", "waits", "refreshes", "failures",
/// "requests", "invalidations" (counts), "last_refresh_ms", "last_status",
/// "age", "expires_in" (seconds). -1 if there is no such statistic, or no
/// token.
///
/// Threads: any.
/// NULL: -1 for a NULL `cache` or `name`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn amp_token_cache_stat(cache: Option<&amp_token_cache>, name: *const c_char) -> i64 {
    ffi::infallible(-1, || {
        // SAFETY: the header asks for a string that does not change during the call.
        let name = unsafe { ffi::str_arg(name, "name") };
        let (Some(cache), Ok(name)) = (cache, name) else { return -1 };
        cache.cache.statistic(name).unwrap_or(-1)
    })
}

/// Frees a cache and wipes its secrets. Stops its background thread. A thread of
/// the library that is sending a request, or is in a callback, ends by itself
/// after that; this function does not wait for it.
///
/// Threads: any, but not while another thread uses `cache`.
/// NULL: a NULL `cache` is ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn amp_token_cache_free(cache: *mut amp_token_cache) {
    // SAFETY: the header asks for a handle of this type that is not used again.
    unsafe { ffi::free(cache) }
}
