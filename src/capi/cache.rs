//! The cached-token handle.

use super::config::amp_config;
use super::error::{amp_error, amp_status};
use super::ffi::{self, amp_token};
use crate::token::cache::TokenCache;
use crate::error::{Error, Kind};
use std::ffi::{CString, c_char};
use std::time::Duration;

/// The current token of one set of credentials, renewed in time and shared by
/// all threads.
///
/// Every function whose first parameter is const may be called from many
/// threads at once. A process that forks may go on using it in parent and
/// child. It must not be freed while another thread uses it; tokens that it
/// handed out stay valid when it is freed.
pub struct amp_token_cache {
    cache: TokenCache,
    api_url: CString,
}

impl amp_token_cache {
    pub(super) fn inner(&self) -> &TokenCache {
        &self.cache
    }
}

/// Makes a cache from a config: looks for credentials, and sends nothing yet.
///
/// On success `*cache` is a cache that the caller frees with
/// amp_token_cache_free(); on failure it is NULL. The config may be freed
/// right after. Does not block, but reads files.
///
/// AMP_CONFIG: settings do not fit together. AMP_NO_CREDENTIALS: none were
/// found; the message says where they were looked for. AMP_IO: a file cannot
/// be read.
#[unsafe(no_mangle)]
#[must_use]
pub extern "C" fn amp_token_cache_new(
    config: Option<&amp_config>,
    cache: *mut *mut amp_token_cache,
    error: *mut *mut amp_error,
) -> amp_status {
    ffi::fallible(error, || {
        let cache = ffi::out_ptr(cache, "cache")?;
        let config = ffi::required(config, "config")?;
        let made = TokenCache::new(config.inner())?;
        let api_url = ffi::to_c_string(&made.options().api_url);
        cache.write_if_set(Box::into_raw(Box::new(amp_token_cache { cache: made, api_url })));
        Ok(())
    })
}

/// A valid token: the cached one if it is good, else a new one.
///
/// On success `*token` is a token that the caller frees with amp_token_free();
/// on failure it is NULL. Returns at once while a token is usable (but for the
/// one caller in a while that renews it, who waits 2 seconds at most);
/// otherwise blocks for `timeout_ms` at most. However many threads ask, one
/// request is sent. Not a cancellation point: threads that may be cancelled
/// disable it around the call.
///
/// Fails as amp_token_get() does. After a failure there is a pause, in which
/// calls fail at once with the same error; amp_error_retry_after_ms() says how
/// long.
#[unsafe(no_mangle)]
#[must_use]
pub extern "C" fn amp_token_cache_get(
    cache: Option<&amp_token_cache>,
    token: *mut *mut amp_token,
    error: *mut *mut amp_error,
) -> amp_status {
    ffi::fallible(error, || {
        let token = ffi::out_ptr(token, "token")?;
        token.write_if_set(amp_token::into_raw(ffi::required(cache, "cache")?.cache.get()?));
        Ok(())
    })
}

/// As amp_token_cache_get(), with a token that is good for at least
/// `min_validity_ms` more, for a request that takes long. The setting of that
/// name counts too: the longer of the two.
///
/// AMP_INVALID_ARGUMENT: `min_validity_ms` is negative, or longer than tokens
/// live.
#[unsafe(no_mangle)]
#[must_use]
pub extern "C" fn amp_token_cache_get_for(
    cache: Option<&amp_token_cache>,
    min_validity_ms: i64,
    token: *mut *mut amp_token,
    error: *mut *mut amp_error,
) -> amp_status {
    ffi::fallible(error, || {
        let token = ffi::out_ptr(token, "token")?;
        let min_validity = u64::try_from(min_validity_ms).map_err(|_| {
            Error::invalid(format!("min_validity_ms is {min_validity_ms}")).with_hint("pass 0 or more milliseconds")
        })?;
        token.write_if_set(amp_token::into_raw(ffi::required(cache, "cache")?.cache.get_for(Duration::from_millis(min_validity))?));
        Ok(())
    })
}

/// Copies a valid token and a NUL into `buffer`: as amp_token_cache_get(),
/// without a handle to free, and the fastest way for many threads. A token is
/// about 1,100 bytes long and may grow; 4096 is a good capacity.
///
/// `*length` (may be NULL) is set to the token's length without the NUL, also
/// when the buffer is too small. On failure `buffer` is unchanged, and the
/// length is 0 unless the buffer is too small.
///
/// AMP_BUFFER_TOO_SMALL: `capacity` is not above the length.
/// AMP_INVALID_ARGUMENT: `buffer` is NULL and `capacity` is not 0. Else as
/// amp_token_cache_get().
#[unsafe(no_mangle)]
#[must_use]
pub extern "C" fn amp_token_cache_copy(
    cache: Option<&amp_token_cache>,
    buffer: *mut c_char,
    capacity: usize,
    length: *mut usize,
    error: *mut *mut amp_error,
) -> amp_status {
    ffi::fallible(error, || {
        ffi::write_if_set(length, 0);
        let cache = ffi::required(cache, "cache")?;
        if buffer.is_null() && capacity > 0 {
            return Err(Error::invalid("buffer is NULL").with_hint("pass a buffer, or 0 as its capacity"));
        }
        let (needed, fits) = cache.cache.with_token(|token| {
            let text = token.value_with_nul();
            (text.len(), ffi::copy(text, buffer, capacity))
        })?;
        ffi::write_if_set(length, needed - 1);
        if fits {
            return Ok(());
        }
        Err(Error::new(
            Kind::BufferTooSmall,
            format!("the token and its NUL need {needed} bytes, and the buffer has {capacity}"),
        )
        .with_hint("call again with a larger buffer"))
    })
}

/// Says that a server refused `get_token` (HTTP 401, or the 403 that Amplience
/// answers to an expired one): if it is the current token, the next call gets
/// another. If it is not, nothing happens, so that many threads may report the
/// same token. NULL for either argument does nothing.
///
/// Does not block, but for an entry of a shared store.
#[unsafe(no_mangle)]
pub extern "C" fn amp_token_cache_invalidate(cache: Option<&amp_token_cache>, token: *const amp_token) {
    ffi::infallible((), || {
        if let (Some(cache), Some(token)) = (cache, amp_token::as_ref(token)) {
            cache.cache.invalidate(token);
        }
    });
}

/// A counter that changes whenever the current token does: a program or
/// binding that keeps a copy of the token may use it, within
/// amp_token_refresh_in_ms(), for as long as the counter reads the same. Read
/// it before the token that goes with it, as one aligned 64-bit load.
///
/// NULL if `cache` is NULL; valid until the cache is freed. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn amp_token_cache_epoch(cache: Option<&amp_token_cache>) -> *const u64 {
    ffi::infallible(std::ptr::null(), || cache.map_or(std::ptr::null(), |cache| cache.cache.epoch().as_ptr().cast_const()))
}

/// Where requests with a token go: the setting `api_url` as it is in force,
/// from wherever it came, without a slash or "/v2/content" at its end. A
/// program that sends its own requests puts paths such as "/v2/content/hubs"
/// behind it, and sends the token nowhere else.
///
/// NULL if `cache` is NULL; borrowed from `cache`. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn amp_token_cache_api_url(cache: Option<&amp_token_cache>) -> *const c_char {
    ffi::infallible(std::ptr::null(), || cache.map_or(std::ptr::null(), |cache| cache.api_url.as_ptr()))
}

/// A figure about the cache, by name: "hits", "waits", "refreshes",
/// "failures", "requests", "invalidations" (counts), "last_refresh_ms",
/// "last_status", "age", "expires_in" (seconds).
///
/// -1: there is no such figure, or no token, or `cache` or `name` is NULL. Any
/// thread.
#[unsafe(no_mangle)]
pub extern "C" fn amp_token_cache_stat(cache: Option<&amp_token_cache>, name: *const c_char) -> i64 {
    ffi::infallible(-1, || {
        let (Some(cache), Ok(name)) = (cache, ffi::str_arg(name, "name")) else { return -1 };
        cache.cache.statistic(name).unwrap_or(-1)
    })
}

/// Frees a cache, and wipes its secrets; NULL is allowed. Ends its background
/// thread; if that is in a request, it ends by itself when the request is
/// over, and this does not wait for it.
#[unsafe(no_mangle)]
pub extern "C" fn amp_token_cache_free(cache: Option<Box<amp_token_cache>>) {
    ffi::infallible((), || drop(cache));
}
