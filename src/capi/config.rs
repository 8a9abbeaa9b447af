//! Settings.

use super::callback_guard::CallbackGuard;
use super::callbacks::{Callback, CallbackTransport, amp_log_fn, amp_observer_fn, amp_transport_fn};
use super::error::{amp_error, amp_status, fallible};
use super::ffi::{self, Bool, Handle};
use crate::config::Config;
use crate::error::Error;
use crate::log::{Event, Level};
use crate::sys::panics;
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

/// What an amp_observer_fn is told. More events may be added.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum amp_event {
    /// A new token replaced the previous one, or is the first.
    AmpEventRefreshed = 1,
    /// A token request failed.
    AmpEventRefreshFailed = 2,
    /// A server rejected the current token.
    AmpEventTokenRejected = 3,
}

/// The largest capacity of the queue of log lines.
const MAX_LOG_LINES: usize = 1_000_000;

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

    pub(super) fn guard(&self) -> Arc<CallbackGuard> {
        self.guard.clone()
    }
}

/// Creates a config in which nothing is set.
///
/// Reads the environment variables that are not settings: HTTPS_PROXY,
/// ALL_PROXY, NO_PROXY (also in lower case), SSL_CERT_FILE, SSL_CERT_DIR, HOME
/// and those that name directories; and copies the whole environment, without
/// secrets of the library, for credential_command. Only this function and
/// amp_config_load() read the environment; what is created from the config uses
/// what they read.
///
/// Threads: any, but not while another thread changes the environment.
/// NULL: returned only after an internal error. Every function accepts it and
///   then returns AMP_INVALID_ARGUMENT.
/// Ownership: free it with amp_config_free().
#[unsafe(no_mangle)]
#[must_use]
pub extern "C" fn amp_config_new() -> *mut amp_config {
    ffi::infallible(std::ptr::null_mut(), || {
        panics::install_hook();
        ffi::into_handle(Box::new(amp_config { config: Config::new(), guard: Arc::default() }))
    })
}

/// Sets one setting by name. "Settings" at the top of this file lists the
/// names.
///
/// A program that credential_command names is run by the call that needs its
/// secret, with the environment that amp_config_new() or amp_config_load() has
/// read, and ends with that call. If this process ignores SIGCHLD, or waits for
/// all of its children, the exit status of the program is lost, and only its
/// output counts. A handler for SIGCHLD is called.
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
/// AMPLIENCE_PAT too. Also reads again what amp_config_new() reads. If credentials are still missing when a token is needed,
/// they are read from the section "default" of config.toml, from the directory
/// that systemd names, or from the configuration files of dc-cli.
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
pub extern "C" fn amp_config_load(
    config: Option<&mut amp_config>,
    error: Option<&mut MaybeUninit<*mut amp_error>>,
) -> amp_status {
    fallible(error, || ffi::required(config, "config")?.config.load())
}

/// Sends the log lines of everything that is created from this config to
/// `logger`. Without a logger, nothing is written anywhere. The setting
/// log_level decides which lines are made.
///
/// Lines are kept during a token request and passed to `logger` at the end of
/// the call, so that a slow logger never delays or fails another call. They are
/// passed on by threads that call a function of a handle and, only with
/// background_refresh, by a thread of the library; several calls may run at
/// once. No lock is held during a call. A host that cannot be called in this
/// way fetches the lines: amp_config_queue_log_lines(). `message` is one line
/// of UTF-8 without a newline; it is valid until `logger` returns and never
/// contains a secret. `level` is one of amp_log_level. `logger` may ask the same
/// cache for a token: it gets the one that is cached, and
/// AMP_INVALID_ARGUMENT at once if it would have to wait for one. `logger` must
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
        config.config.log.set_sink(logger.is_some().then(|| {
            Arc::new(move |level, message: &str| {
                guard.enter(|| callback.log(amp_log_level::from(level) as i32, message));
            }) as _
        }));
        Ok(())
    })
}

/// Keeps up to `capacity` log lines for amp_config_next_log_line() instead of
/// calling a logger, for hosts whose code no foreign thread may call. If more
/// lines accumulate, the oldest are dropped, and a line says how many. Replaces
/// a logger that was set. Call it before handles are created from the config.
///
/// Threads: not while another thread uses `config`.
/// NULL: AMP_INVALID_ARGUMENT for `config`. `capacity` 0 disables logging.
/// Errors: AMP_INVALID_ARGUMENT if `config` is NULL or `capacity` is above
///   1,000,000.
#[unsafe(no_mangle)]
#[must_use]
pub extern "C" fn amp_config_queue_log_lines(
    config: Option<&mut amp_config>,
    capacity: usize,
    error: Option<&mut MaybeUninit<*mut amp_error>>,
) -> amp_status {
    fallible(error, || {
        let config = ffi::required(config, "config")?;
        if capacity > MAX_LOG_LINES {
            return Err(Error::invalid(format!("cannot keep {capacity} log lines"))
                .with_hint(format!("use a capacity of at most {MAX_LOG_LINES}")));
        }
        config.config.log.keep_lines(capacity);
        Ok(())
    })
}

/// Takes the oldest log line of the config and everything that was created from
/// it: copies it into `buffer`, with a NUL, and sets `*level` to one of
/// amp_log_level. A line that does not fit is cut; 1024 is a good capacity. The
/// queue needs amp_config_queue_log_lines(), and lives as long as the config.
/// A forked child begins with an empty one.
///
/// Returns false if no line is left.
///
/// Threads: any, but not while another thread changes or frees `config`.
/// NULL: false for a NULL `config`, and for a NULL `buffer` or a `capacity` of
///   0; then no line is taken. `level` may be NULL.
/// Ownership: `buffer` belongs to the caller.
/// Blocks: never.
/// Example: print the lines that a call left, with a buffer for one of them.
///     void print_log(const amp_config *config, char *line, size_t size) {
///         int32_t level;
///         while (amp_config_next_log_line(config, &level, line, size))
///             fprintf(stderr, "%s%s\n",
///                     level <= AMP_LOG_WARNING ? "warning: " : "", line);
///     }
#[unsafe(no_mangle)]
pub unsafe extern "C" fn amp_config_next_log_line(
    config: Option<&amp_config>,
    level: Option<&mut MaybeUninit<i32>>,
    buffer: *mut c_char,
    capacity: usize,
) -> Bool {
    ffi::infallible(Bool::FALSE, || {
        let Some(config) = config.filter(|_| !buffer.is_null() && capacity > 0) else { return Bool::FALSE };
        let Some((severity, line)) = config.config.log.take_line() else { return Bool::FALSE };
        ffi::write_if_set(level, amp_log_level::from(severity) as i32);
        let mut text = ffi::to_c_string(&line).into_bytes();
        let mut end = text.len().min(capacity - 1);
        // Not in the middle of a character.
        while end < text.len() && text[end] & 0xc0 == 0x80 {
            end -= 1;
        }
        text.truncate(end);
        text.push(0);
        // SAFETY: the header asks for `capacity` writable bytes, and the text is not longer.
        unsafe { ffi::copy(&text, buffer, capacity) };
        Bool::TRUE
    })
}

/// Calls `observer` after each token request and rejection of everything that is
/// created from this config: `event` is one of amp_event. `error` is the failure
/// for AMP_EVENT_REFRESH_FAILED, else NULL; it is valid until `observer`
/// returns. The rules for loggers apply: see amp_config_set_logger().
///
/// Threads: not while another thread uses `config`.
/// NULL: AMP_INVALID_ARGUMENT for `config`. A NULL `observer` removes it again.
///   `user_data` may be NULL.
/// Ownership: as for amp_config_set_logger().
/// Errors: AMP_INVALID_ARGUMENT if `config` is NULL.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn amp_config_set_observer(
    config: Option<&mut amp_config>,
    observer: amp_observer_fn,
    user_data: *mut c_void,
    error: Option<&mut MaybeUninit<*mut amp_error>>,
) -> amp_status {
    fallible(error, || {
        let config = ffi::required(config, "config")?;
        let guard = config.guard.clone();
        // SAFETY: the header asks for a function that any thread may call with `user_data` as long as the
        // handles of this config exist, or until the guard is closed.
        let callback = unsafe { Callback::new(observer, user_data) };
        config.config.log.set_observer(observer.is_some().then(|| {
            Arc::new(move |event: &Event| {
                guard.enter(|| match event {
                    Event::Refreshed => callback.observe(amp_event::AmpEventRefreshed, None),
                    Event::RefreshFailed(error) => callback.observe(amp_event::AmpEventRefreshFailed, Some(error)),
                    Event::TokenRejected => callback.observe(amp_event::AmpEventTokenRejected, None),
                });
            }) as _
        }));
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
/// longjmp, no C++ exception). If it asks the same cache for a token, it gets
/// the one that is cached, and AMP_INVALID_ARGUMENT at once if there is none.
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
        let transport = CallbackTransport { callback, guard: config.guard.clone(), scope: config.config.scope };
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
