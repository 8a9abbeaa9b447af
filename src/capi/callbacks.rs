//! Calls into the application: its log function, its transport, and its receiver of downloads.
//!
//! A [`Callback`] is a function of the application together with its user data. Creating one is `unsafe`,
//! because it relies on what the header asks of the function; calling one is not.

use super::callback_guard::CallbackGuard;
use super::config::amp_event;
use super::error::amp_error;
use super::ffi::{self, CallbackBool};
use super::transport::{amp_http_reply, amp_http_request};
use crate::error::{Error, Result};
use crate::net::transport::{Request, Response, Transport};
use crate::sys::callback_scope::{self, ScopeId};
use std::ffi::{c_char, c_void};
use std::sync::Arc;
use std::time::Duration;

/// A callback of the application that receives log lines: see
/// amp_config_set_logger().
#[allow(non_camel_case_types)]
pub type amp_log_fn = Option<unsafe extern "C" fn(level: i32, message: *const c_char, user_data: *mut c_void)>;

/// A callback of the application that is told what happened to tokens: see
/// amp_config_set_observer().
#[allow(non_camel_case_types)]
pub type amp_observer_fn = Option<unsafe extern "C" fn(event: i32, error: *const amp_error, user_data: *mut c_void)>;

/// A callback of the application that sends a request: see
/// amp_config_set_transport().
#[allow(non_camel_case_types)]
pub type amp_transport_fn = Option<
    unsafe extern "C" fn(request: *const amp_http_request, reply: *mut amp_http_reply, user_data: *mut c_void) -> i32,
>;

/// A callback of the application that receives the body of a download in
/// pieces: see amp_api_download().
#[allow(non_camel_case_types)]
pub type amp_write_fn =
    Option<unsafe extern "C" fn(data: *const c_void, length: usize, user_data: *mut c_void) -> CallbackBool>;

/// A function of the application and the pointer that it gets back.
#[derive(Clone, Copy)]
pub(super) struct Callback<F> {
    function: F,
    user_data: *mut c_void,
}

// SAFETY: the library never dereferences `user_data`, and by the contract of `Callback::new` any thread may
// call the function with it.
unsafe impl<F: Send> Send for Callback<F> {}
// SAFETY: as above.
unsafe impl<F: Sync> Sync for Callback<F> {}

impl<F> Callback<F> {
    /// # Safety
    /// `function` is NULL, or a function that may be called with `user_data` until the callback is dropped or
    /// the guard that it is called through is closed: from any thread and by several at once, if they share
    /// the callback.
    pub(super) unsafe fn new(function: F, user_data: *mut c_void) -> Self {
        Callback { function, user_data }
    }
}

impl Callback<amp_log_fn> {
    /// Logs a line.
    pub(super) fn log(&self, level: i32, message: &str) {
        if let Some(logger) = self.function {
            let message = ffi::to_c_string(message);
            // SAFETY: by the contract of `Callback::new`; the message lives until the function returns.
            unsafe { logger(level, message.as_ptr(), self.user_data) };
        }
    }
}

impl Callback<amp_observer_fn> {
    /// Tells the application of an event.
    pub(super) fn observe(&self, event: amp_event, error: Option<&Error>) {
        if let Some(observer) = self.function {
            let error = error.map(amp_error::new);
            let pointer = error.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
            // SAFETY: by the contract of `Callback::new`; the error lives until the function returns.
            unsafe { observer(event as i32, pointer, self.user_data) };
        }
    }
}

impl Callback<amp_write_fn> {
    /// Passes a piece of a body on. False: the application wants no more.
    pub(super) fn write(&self, piece: &[u8]) -> bool {
        match self.function {
            // SAFETY: by the contract of `Callback::new`; the piece lives until the function returns.
            Some(write) => unsafe { write(piece.as_ptr().cast(), piece.len(), self.user_data) }.into(),
            None => false,
        }
    }
}

/// A transport that is a function of the application.
pub(super) struct CallbackTransport {
    pub(super) callback: Callback<amp_transport_fn>,
    pub(super) guard: Arc<CallbackGuard>,
    pub(super) scope: ScopeId,
}

impl Transport for CallbackTransport {
    fn send(&self, request: &Request, timeout: Duration) -> Result<Response> {
        let for_c = amp_http_request::new(request, timeout);
        let mut reply = amp_http_reply::new(request.max_response_bytes);
        let user_data = self.callback.user_data;
        let call = || match self.callback.function {
            // SAFETY: by the contract of `Callback::new`; both objects live until the function returns.
            Some(send) => unsafe { send(&raw const for_c, &raw mut reply, user_data) },
            None => -1,
        };
        let _scope = callback_scope::enter(self.scope);
        let result = self.guard.enter(call).unwrap_or(-1);
        reply.into_response(request, result)
    }
}
