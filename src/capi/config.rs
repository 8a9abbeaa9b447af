//! Settings.

use super::error::{amp_error, amp_status};
use super::ffi::{self, UserData, amp_log_fn, amp_transport_fn};
use super::callback_guard::CallbackGuard;
use super::transport::CallbackTransport;
use crate::log::{Level, Log};
use crate::config::settings::Config;
use std::ffi::{c_char, c_void};
use std::sync::Arc;

/// How much a log line matters; the numbers that an amp_log_fn is called with.
/// More may come.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum amp_log_level {
    /// A call failed.
    AmpLogError = 1,
    /// Something is wrong, and the library went on without it.
    AmpLogWarning = 2,
    /// A token was obtained or dropped.
    AmpLogInfo = 3,
    /// Each step on the way.
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

/// Settings, and the functions that an application plugs in. One owner at a
/// time: two threads must not use a config at once.
///
/// Handles that are made from a config keep what they need of it, so it may be
/// changed or freed right after.
pub struct amp_config {
    config: Config,
    guard: Arc<CallbackGuard>,
}

impl amp_config {
    pub(super) fn inner(&self) -> &Config {
        &self.config
    }
}

/// Makes a config with nothing set.
///
/// The caller frees it with amp_config_free(). NULL only if a defect of the
/// library was met; every function takes NULL for a config and then answers
/// AMP_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
#[must_use]
pub extern "C" fn amp_config_new() -> Option<Box<amp_config>> {
    ffi::infallible(None, || Some(Box::new(amp_config { config: Config::new(), guard: Arc::default() })))
}

/// Sets one setting by its name. The table of names, defaults and meanings is
/// in the README and in amp-token(1).
///
/// `name` and `value` are copied. `value` NULL unsets the setting. Does not
/// block.
///
/// AMP_INVALID_ARGUMENT: there is no such setting, or the value is not allowed
/// for it; the message says which are, and the config is as before.
#[unsafe(no_mangle)]
#[must_use]
pub extern "C" fn amp_config_set(
    config: Option<&mut amp_config>,
    name: *const c_char,
    value: *const c_char,
    error: *mut *mut amp_error,
) -> amp_status {
    ffi::fallible(error, || {
        let config = ffi::required(config, "config")?;
        config.config.set(ffi::str_arg(name, "name")?, ffi::optional_str_arg(value, "value")?)
    })
}

/// Fills what is unset from the environment (AMPLIENCE_CLIENT_ID and so on:
/// AMPLIENCE_ and the setting's name in capitals; AMPLIENCE_PAT too), and lets
/// credentials that are still missing be looked for in the files of dc-cli
/// when a token is needed.
///
/// Reads the environment: no other thread may change it meanwhile. Does not
/// block.
///
/// Fails in a program that runs with raised privileges (setuid, setgid, file
/// capabilities): its environment comes from a user with fewer privileges, who
/// must not decide where its secrets go and which files it reads. Nor does any
/// other function read the environment there: not the proxies, NO_PROXY,
/// SSL_CERT_FILE, SSL_CERT_DIR, HOME or XDG_*. Such a program sets what it
/// needs with amp_config_set(), with proxy and store_dir among it.
///
/// AMP_CONFIG: a variable has a value that its setting does not allow; the
/// message names it. Or the program runs with raised privileges.
#[unsafe(no_mangle)]
#[must_use]
pub extern "C" fn amp_config_load(config: Option<&mut amp_config>, error: *mut *mut amp_error) -> amp_status {
    ffi::fallible(error, || ffi::required(config, "config")?.config.load())
}

/// Sends the log lines of all that is made from this config to a function of
/// the application's. Without one, nothing is written anywhere. `logger` NULL
/// switches it off again.
///
/// `logger` may be called from any thread that uses a handle, and from the
/// library's own; several calls may run at once; no lock is held. `message` is
/// one line of UTF-8 without a newline, valid until the function returns; it
/// never holds a secret. `level` is one of amp_log_level. `logger` must return
/// normally (no longjmp, no C++ exception) and must not free the handle it
/// logs for. `logger` and `user_data` must stay valid until the last handle
/// made from the config is freed and, with background_refresh, its last
/// request is over; or until
/// amp_config_stop_callbacks() has returned.
///
/// AMP_INVALID_ARGUMENT: `config` is NULL.
#[unsafe(no_mangle)]
#[must_use]
pub extern "C" fn amp_config_set_logger(
    config: Option<&mut amp_config>,
    logger: amp_log_fn,
    user_data: *mut c_void,
    error: *mut *mut amp_error,
) -> amp_status {
    ffi::fallible(error, || {
        let config = ffi::required(config, "config")?;
        let (user_data, guard) = (UserData(user_data), config.guard.clone());
        config.config.log = match logger {
            Some(_) => Log::new(move |level, message| {
                // The whole wrapper is captured, not the bare pointer in it, which is not `Send`.
                let user_data: UserData = user_data;
                guard.enter(|| ffi::call_logger(logger, amp_log_level::from(level) as i32, message, user_data));
            }),
            None => Log::default(),
        };
        Ok(())
    })
}

/// Has a function of the application's carry the requests, in place of the
/// library's own sockets. Then the settings for TLS and proxies have no
/// meaning. `send_with_retries` NULL switches it off again.
///
/// `send_with_retries` may be called from any thread that uses a handle, and from the
/// library's own, but for each cache only once at a time when it asks for
/// tokens. It carries one request, without following redirects and without
/// repeating it, writes what came back into `parse_token_response` and returns 0; or it calls
/// amp_http_reply_fail() to say why it could not, or returns another number,
/// which counts as AMP_CONNECT. `with_request_id` and `parse_token_response` are valid until it
/// returns. It should be back within amp_http_request_timeout_ms(). It must
/// return normally (no longjmp, no C++ exception) and must not use the handle
/// that it carries requests for. `send_with_retries` and `user_data` must stay valid until
/// the last handle made from the config is freed and, with background_refresh,
/// its last request is over; or until
/// amp_config_stop_callbacks() has returned.
///
/// AMP_INVALID_ARGUMENT: `config` is NULL.
#[unsafe(no_mangle)]
#[must_use]
pub extern "C" fn amp_config_set_transport(
    config: Option<&mut amp_config>,
    send: amp_transport_fn,
    user_data: *mut c_void,
    error: *mut *mut amp_error,
) -> amp_status {
    ffi::fallible(error, || {
        let config = ffi::required(config, "config")?;
        let callback = CallbackTransport { send, user_data: UserData(user_data), guard: config.guard.clone() };
        config.config.transport = send.map(|_| Arc::new(callback) as _);
        Ok(())
    })
}

/// Ends all calls of the logger and the transport, those that were set and
/// those that will be, by the config and by all that was made from it: when
/// this returns, none of them is running, and none will ever run again. For
/// whoever must be sure of that: an interpreter that shuts down, a program that
/// unloads the code that they are in.
///
/// Waits for calls that are running; so it must not be called by one of them,
/// nor with a lock that one of them needs. Requests that need the transport
/// fail with AMP_CONNECT from then on. NULL is allowed. Any thread, but not
/// while another thread changes the config.
#[unsafe(no_mangle)]
pub extern "C" fn amp_config_stop_callbacks(config: Option<&amp_config>) {
    ffi::infallible((), || {
        if let Some(config) = config {
            config.guard.shut_down();
        }
    });
}

/// Frees a config, and wipes its secrets; NULL is allowed. What was made from
/// it stays valid.
#[unsafe(no_mangle)]
pub extern "C" fn amp_config_free(config: Option<Box<amp_config>>) {
    ffi::infallible((), || drop(config));
}
