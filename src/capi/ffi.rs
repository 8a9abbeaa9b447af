//! The boundary between C and Rust: every exported function passes it, and all work with raw
//! pointers is done here.
//!
//! [`fallible`] and [`infallible`] are the two ways through: the first for what can fail, the second for
//! accessors and `_free`. Both stop panics, so that no unwinding ever reaches C. The functions below
//! them turn C's arguments into Rust's and back, each with the check that its type makes possible.

use super::error::{amp_error, amp_status};
use crate::error::{Error, Kind, Result};
use crate::token::Token;
use std::any::Any;
use std::ffi::{CStr, CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

#[cfg(not(panic = "unwind"))]
compile_error!("the C interface needs panic = \"unwind\": with \"abort\" a defect would end the caller's process");

/// The body of a function that can fail: its error, or the panic that ended
/// it, becomes a status and, if the caller wants one, an error object.
pub(super) fn fallible(error: *mut *mut amp_error, body: impl FnOnce() -> Result<()>) -> amp_status {
    // A handle that a panic left behind is as valid as before: the core changes its state in steps
    // that are each complete, and lets nobody wait for a leader that panicked.
    let failure = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => return amp_status::AmpOk,
        Ok(Err(failure)) => failure,
        Err(panic) => Error::new(Kind::Internal, format!("a defect in libamp_token: {}", panic_text(panic.as_ref())))
            .with_hint("please report it"),
    };
    let status = amp_status::from(failure.kind());
    if !error.is_null() {
        let object = Box::into_raw(Box::new(amp_error::new(&failure)));
        // SAFETY: `error` is not NULL, and the header asks for a pointer to a variable of the
        // caller's that this thread alone uses during the call. It is only written to.
        unsafe { error.write(object) };
    }
    status
}

/// The body of a function that cannot fail: `fallback` if it panics.
pub(super) fn infallible<T>(fallback: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(fallback)
}

/// What a panic said; its location is left out, because it is a path of the
/// build machine.
fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    crate::sanitize::sanitize(text.unwrap_or("a panic without a message"), &[])
}

fn null(name: &str) -> Error {
    Error::invalid(format!("{name} is NULL")).with_hint("pass a valid pointer")
}

/// A handle that must be there.
pub(super) fn required<T>(handle: Option<T>, name: &str) -> Result<T> {
    handle.ok_or_else(|| null(name))
}

/// A place of the caller's that takes a pointer.
pub(super) struct Out<T>(*mut *mut T);

/// Checks an output argument and sets it to NULL, which it stays if the call
/// fails.
pub(super) fn out_ptr<T>(place: *mut *mut T, name: &str) -> Result<Out<T>> {
    if place.is_null() {
        return Err(null(name));
    }
    // SAFETY: `location` is not NULL, and the header asks for a pointer to a variable of the caller's
    // that this thread alone uses during the call. It is only written to, never read.
    unsafe { place.write(std::ptr::null_mut()) };
    Ok(Out(place))
}

impl<T> Out<T> {
    /// Hands over a pointer.
    pub(super) fn write_if_set(self, value: *mut T) {
        // SAFETY: as in `out_ptr`, which made `self` in the same call.
        unsafe { self.0.write(value) };
    }
}

/// Writes a number to an output argument that may be NULL.
pub(super) fn write_if_set<T>(place: *mut T, value: T) {
    if !place.is_null() {
        // SAFETY: `location` is not NULL, and the header asks for a pointer to a variable of the
        // caller's that this thread alone uses during the call. It is only written to.
        unsafe { place.write(value) };
    }
}

/// A text argument.
pub(super) fn str_arg<'a>(text: *const c_char, name: &str) -> Result<&'a str> {
    optional_str_arg(text, name)?.ok_or_else(|| null(name))
}

/// A text argument that may be NULL.
pub(super) fn optional_str_arg<'a>(text: *const c_char, name: &str) -> Result<Option<&'a str>> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: `str_arg` is not NULL, and the header asks for a NUL-terminated string that nobody
    // changes during the call. What is borrowed here is copied before the call returns.
    let text = unsafe { CStr::from_ptr(text) };
    let text =
        text.to_str().map_err(|_| Error::invalid(format!("{name} is not UTF-8")).with_hint("encode it as UTF-8"))?;
    Ok(Some(text))
}

/// A block of bytes. NULL is allowed where the length is 0.
pub(super) fn bytes<'a>(data: *const c_void, length: usize, name: &str) -> Result<&'a [u8]> {
    match (data.is_null(), length) {
        (_, 0) => Ok(&[]),
        (true, _) => Err(null(name)),
        // A slice of more is not allowed to exist; nobody can have it either.
        (false, _) if isize::try_from(length).is_err() => {
            Err(Error::invalid(format!("the length of {name} is {length}")).with_hint("pass the number of bytes"))
        }
        // SAFETY: `data` is not NULL, the length fits, and the header asks for that many readable
        // bytes that nobody changes during the call.
        (false, _) => Ok(unsafe { std::slice::from_raw_parts(data.cast(), length) }),
    }
}

/// Copies `from` into the caller's buffer if it fits.
pub(super) fn copy(from: &[u8], buffer: *mut c_char, capacity: usize) -> bool {
    if from.len() > capacity || buffer.is_null() {
        return false;
    }
    // SAFETY: the header asks for `capacity` writable bytes at `buffer`, `from` is not longer, and
    // memory that the caller writes to cannot overlap with a token, which nobody outside has
    // writable.
    unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), buffer.cast(), from.len()) };
    true
}

/// A string for C. A NUL inside would end it early, so it is replaced.
pub(super) fn to_c_string(text: &str) -> CString {
    const REPLACEMENT: &str = "\u{fffd}";
    let nuls = text.bytes().filter(|byte| *byte == 0).count();
    // With room for the NUL at its end: a buffer that grows for it leaves a copy of a secret behind.
    let mut bytes = Vec::with_capacity(text.len() + nuls * (REPLACEMENT.len() - 1) + 1);
    for (index, part) in text.split('\0').enumerate() {
        if index > 0 {
            bytes.extend_from_slice(REPLACEMENT.as_bytes());
        }
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes.push(0);
    CString::from_vec_with_nul(bytes).unwrap_or_default()
}

/// One access token. Immutable, so any number of threads may use it at once. It
/// stays valid when the cache that it came from is freed.
//
// What is behind the pointer is the counted reference itself, so that handing
// out a token allocates nothing.
pub struct amp_token {
    _private: [u8; 0],
}

impl amp_token {
    /// Gives a reference away; [`amp_token::from_raw`] takes it back.
    pub(super) fn into_raw(token: Arc<Token>) -> *mut amp_token {
        Arc::into_raw(token).cast_mut().cast()
    }

    /// Looks at a token that was given away.
    pub(super) fn as_ref<'a>(token: *const amp_token) -> Option<&'a Token> {
        // SAFETY: NULL or, as the header asks, a pointer that `into_raw` made and that is not released
        // before the call ends; a token is immutable and shared.
        unsafe { token.cast::<Token>().as_ref() }
    }

    /// Gives the same token away once more.
    pub(super) fn clone_raw(token: *const amp_token) -> *mut amp_token {
        if !token.is_null() {
            // SAFETY: not NULL, and as the header asks a pointer that `into_raw` made by
            // `Arc::into_raw` and that is not released before the call ends.
            unsafe { Arc::increment_strong_count(token.cast::<Token>()) };
        }
        token.cast_mut()
    }

    /// Takes a reference back.
    pub(super) fn from_raw(token: *mut amp_token) {
        if !token.is_null() {
            // SAFETY: not NULL, and as the header asks a pointer that `into_raw` or `save` made and
            // that is released only once.
            drop(unsafe { Arc::from_raw(token.cast::<Token>()) });
        }
    }
}

/// The application's own pointer, which its functions get back.
#[derive(Clone, Copy)]
pub(super) struct UserData(pub(super) *mut c_void);

// SAFETY: the library never looks behind the pointer; the header says that the function it belongs
// to is called from any thread, so whoever registers it allows just that.
unsafe impl Send for UserData {}
// SAFETY: as above.
unsafe impl Sync for UserData {}

/// A callback of the application that receives log lines: see
/// amp_config_set_logger().
#[allow(non_camel_case_types)]
pub type amp_log_fn = Option<unsafe extern "C" fn(level: i32, message: *const c_char, user_data: *mut c_void)>;

/// A callback of the application that sends a request: see
/// amp_config_set_transport().
#[allow(non_camel_case_types)]
pub type amp_transport_fn = Option<
    unsafe extern "C" fn(
        request: *const super::transport::amp_http_request,
        reply: *mut super::transport::amp_http_reply,
        user_data: *mut c_void,
    ) -> i32,
>;

/// A callback of the application that receives the body of a download in
/// pieces: see amp_api_download().
#[allow(non_camel_case_types)]
pub type amp_write_fn =
    Option<unsafe extern "C" fn(data: *const c_void, length: usize, user_data: *mut c_void) -> bool>;

/// Hands a piece of a body to the application.
pub(super) fn call_writer(write: amp_write_fn, piece: &[u8], user_data: UserData) -> bool {
    match write {
        // SAFETY: the application gave this function for this purpose, with this user data; the
        // piece lives until it returns, as the header says.
        Some(write) => unsafe { write(piece.as_ptr().cast(), piece.len(), user_data.0) },
        None => false,
    }
}

/// Calls the application's log function.
pub(super) fn call_logger(logger: amp_log_fn, level: i32, message: &str, user_data: UserData) {
    if let Some(logger) = logger {
        let message = to_c_string(message);
        // SAFETY: the application gave this function for this purpose, with this user data; the
        // message lives until it returns, as the header says.
        unsafe { logger(level, message.as_ptr(), user_data.0) };
    }
}

/// Calls the application's transport.
pub(super) fn call_transport(
    send: amp_transport_fn,
    request: &super::transport::amp_http_request,
    reply: &mut super::transport::amp_http_reply,
    user_data: UserData,
) -> i32 {
    match send {
        // SAFETY: the application gave this function for this purpose, with this user data; both
        // objects live until it returns, as the header says.
        Some(send) => unsafe { send(request, reply, user_data.0) },
        None => -1,
    }
}
