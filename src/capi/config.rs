//! Settings.

use super::error::{amp_error, amp_status, fallible};
use super::callback_guard::CallbackGuard;
use super::callbacks::{Callback, CallbackTransport, amp_log_fn, amp_transport_fn};
use super::ffi::{self, Handle};
use crate::log::{Level, Log};
use crate::config::Config;
use std::ffi::{c_char, c_void};
use std::mem::MaybeUninit;
use std::sync::Arc;

/// Severity of a log line: the `level` argument of an amp_log_fn. More levels
/// may be added.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum amp_log_level {
    /// A call failed.
    AmpLogError = 1,
    /// Something is wrong, and the library continued without it.
    AmpLogWarning = 2,
    /// A token was fetched or discarded.
    AmpLogInfo = 3,
    /// Each step of a call.
    AmpLogDebug = 4,
}

impl From<Level> for amp_log_level {
    fn from(level: Level) -> Self {
        match level {
            Level::Error => amp_log_level::AmpLogError,
            Level::Warning => amp_log_level::AmpLogWarning,
            Level::Info => amp_log_level::AmpLogInfo,
            Level::Debug => amp_log_level::AmpLogDebug,
        }
    }
}

/// Settings, and the callbacks of the application. Only one thread at a time
/// may use a config.
///
/// Objects that are created from a config copy what they need, so the config
/// may be changed or freed right after.
pub struct amp_config {
    config: Config,
    guard: Arc<CallbackGuard>,
}

impl Handle for amp_config {
    type Owner = Box<Self>;
}

impl amp_config {
    pub(super) fn inner(&self) -> &Config {
        &self.config
    }
}

/// Creates a config in which nothing is set.
///
/// Threads: any.
/// NULL: returned only after an internal error. Every function accepts it and
///   then returns AMP_INVALID_ARGUMENT.
/// Ownership: free it with amp_config_free().
#[unsafe(no_mangle)]
#[must_use]
pub extern "C" fn amp_config_new() -> *mut amp_config {
    ffi::infallible(std::ptr::null_mut(), || {
        ffi::into_handle(Box::new(amp_config { config: Config::new(), guard: Arc::default() }))
    })
}

/// Sets one setting by name. "Settings" at the top of this file lists the
/// names.
///
/// Threads: not while another thread uses `config`.
/// NULL: AMP_INVALID_ARGUMENT for `config` and `name`. A NULL `value` unsets
///   the setting.
/// Ownership: the strings are copied.
/// Errors: AMP_INVALID_ARGUMENT if there is no such setting, or the value is
///   not allowed for it. The message lists what is allowed, and the config is
///   unchanged.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn amp_config_set(
    config: Option<&mut amp_config>,
    name: *const c_char,
    value: *const c_char,
    error: Option<&mut MaybeUninit<*mut amp_error>>,
) -> amp_status {
    fallible(error, || {
        let config = ffi::required(config, "config")?;
        // SAFETY: the header asks for strings that do not change during the call.
        let (name, value) = unsafe { (ffi::str_arg(name, "name"), ffi::optional_str_arg(value, "value")) };
        config.config.set(name?, value?)
    })
}

/// Sets every unset setting from the environment: from AMPLIENCE_ and its name
/// in capitals, such as AMPLIENCE_CLIENT_ID, and personal_access_token from
/// AMPLIENCE_PAT too. If credentials are still missing when a token is needed,
/// they are read from the configuration files of dc-cli.
///
/// Fails in a program that runs with raised privileges (setuid, setgid, file
/// capabilities): its environment comes from a user with fewer privileges, who
/// must not decide where the program sends its secrets and which files it
/// reads. No other function reads the environment in such a program either: not
/// the proxy variables, NO_PROXY, SSL_CERT_FILE, SSL_CERT_DIR, HOME or XDG_*.
/// Such a program sets what it needs with amp_config_set(), including proxy and
/// store_dir.
///
/// Threads: not while another thread uses `config` or changes the environment.
/// NULL: AMP_INVALID_ARGUMENT for `config`.
/// Errors: AMP_CONFIG if a variable has a value that its setting does not allow
///   (the message names it), or if the program runs with raised privileges.
#[unsafe(no_mangle)]
#[must_use]
pub extern "C" fn amp_config_load(config: Option<&mut amp_config>, error: Option<&mut MaybeUninit<*mut amp_error>>) -> amp_status {
    fallible(error, || ffi::required(config, "config")?.config.load())
}

/// Sends the log lines of everything that is created from this config to
/// `logger`. Without a logger, nothing is written anywhere.
///
/// Any thread that uses a handle may call `logger`, the library's own threads
/// too; several calls may run at once. No lock is held during a call. `message`
/// is one line of UTF-8 without a newline; it is valid until `logger` returns
/// and never contains a secret. `level` is one of amp_log_level. `logger` must
/// return normally (no longjmp, no C++ exception) and must not free the handle
/// that it logs for.
///
/// Threads: not while another thread uses `config`.
/// NULL: AMP_INVALID_ARGUMENT for `config`. A NULL `logger` disables logging
///   again. `user_data` may be NULL.
/// Ownership: `logger` and `user_data` must stay valid until the last handle
///   that was created from the config is freed and, with background_refresh,
///   its last request is over; or until amp_config_stop_callbacks() has
///   returned.
/// Errors: AMP_INVALID_ARGUMENT if `config` is NULL.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn amp_config_set_logger(
    config: Option<&mut amp_config>,
    logger: amp_log_fn,
    user_data: *mut c_void,
    error: Option<&mut MaybeUninit<*mut amp_error>>,
) -> amp_status {
    fallible(error, || {
        let config = ffi::required(config, "config")?;
        let guard = config.guard.clone();
        // SAFETY: the header asks for a function that any thread may call with `user_data` as long as the
        // handles of this config exist, or until the guard is closed.
        let callback = unsafe { Callback::new(logger, user_data) };
        config.config.log = match logger {
            Some(_) => Log::new(move |level, message| {
                guard.enter(|| callback.log(amp_log_level::from(level) as i32, message));
            }),
            None => Log::default(),
        };
        Ok(())
    })
}

/// Sends requests through `send` instead of the built-in HTTP client. The
/// settings for TLS and proxies are then ignored.
///
/// Any thread that uses a handle may call `send`, the library's own threads
/// too; for token requests, each cache makes only one call at a time. `send`
/// sends one request without following redirects and without retrying, stores
/// the response in `reply`, and returns 0. If there is no response, it calls
/// amp_http_reply_fail() to say why, or returns another number, which counts as
/// AMP_CONNECT. `request` and `reply` are valid until it returns. It should
/// return within amp_http_request_timeout_ms(). It must return normally (no
/// longjmp, no C++ exception) and must not use the handle for which it sends
/// requests.
///
/// Threads: not while another thread uses `config`.
/// NULL: AMP_INVALID_ARGUMENT for `config`. A NULL `send` restores the built-in
///   client. `user_data` may be NULL.
/// Ownership: `send` and `user_data` must stay valid until the last handle that
///   was created from the config is freed and, with background_refresh, its
///   last request is over; or until amp_config_stop_callbacks() has returned.
/// Errors: AMP_INVALID_ARGUMENT if `config` is NULL.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn amp_config_set_transport(
    config: Option<&mut amp_config>,
    send: amp_transport_fn,
    user_data: *mut c_void,
    error: Option<&mut MaybeUninit<*mut amp_error>>,
) -> amp_status {
    fallible(error, || {
        let config = ffi::required(config, "config")?;
        // SAFETY: the header asks for a function that any thread may call with `user_data` as long as the
        // handles of this config exist, or until the guard is closed.
        let callback = unsafe { Callback::new(send, user_data) };
        let transport = CallbackTransport { callback, guard: config.guard.clone() };
        config.config.transport = send.map(|_| Arc::new(transport) as _);
        Ok(())
    })
}

/// Permanently disables the logger and transport callbacks of this config and
/// of everything created from it, those that are set later too. When it
/// returns, none of them is running, and none is called afterwards. Use it
/// before an interpreter shuts down or the code of the callbacks is unloaded.
/// Requests that need the transport fail with AMP_CONNECT from then on.
///
/// A callback must not call it. The caller must not hold a lock that a callback
/// needs.
///
/// Threads: any, but not while another thread changes or frees `config`.
/// NULL: a NULL `config` is ignored.
/// Blocks: until running callbacks have returned.
#[unsafe(no_mangle)]
pub extern "C" fn amp_config_stop_callbacks(config: Option<&amp_config>) {
    ffi::infallible((), || {
        if let Some(config) = config {
            config.guard.shut_down();
        }
    });
}

/// Frees a config and wipes its secrets. What was created from it stays valid.
///
/// Threads: any, but not while another thread uses `config`.
/// NULL: a NULL `config` is ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn amp_config_free(config: *mut amp_config) {
    // SAFETY: the header asks for a handle of this type that is not used again.
    unsafe { ffi::free(config) }
}
