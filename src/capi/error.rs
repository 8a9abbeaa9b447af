//! Statuses and error objects.

use super::ffi::{self, Bool, Handle, Out};
use crate::error::{Error, Kind, Result};
use crate::sys::panics;
use std::ffi::{CStr, CString, c_char};

/// Status codes, grouped by tens: 10 arguments and configuration, 20
/// credentials, 30 network, 40 server, 50 response, 60 this machine. A code
/// never changes meaning and is never reused. New codes may be added to a
/// group, so handle an unknown code like its group, and anything but AMP_OK as
/// a failure.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum amp_status {
    /// Success.
    AmpOk = 0,
    /// An argument is NULL, not UTF-8, or not an allowed value.
    AmpInvalidArgument = 10,
    /// Conflicting or unusable settings.
    AmpConfig = 11,
    /// No client id and secret, and no personal access token, was found.
    AmpNoCredentials = 20,
    /// The server rejected the client id and secret, or the personal access
    /// token.
    AmpCredentialsRejected = 21,
    /// The host name could not be resolved.
    AmpResolve = 30,
    /// No connection could be made, or the connection broke.
    AmpConnect = 31,
    /// The TLS handshake failed, most often because a certificate is not
    /// trusted.
    AmpTls = 32,
    /// The proxy could not be reached, rejected the connection, or asked for
    /// other credentials.
    AmpProxy = 33,
    /// The call timed out.
    AmpTimeout = 34,
    /// The server is rate limiting requests (HTTP 429).
    AmpRateLimited = 40,
    /// The server failed (HTTP 5xx, 408).
    AmpServer = 41,
    /// The response violates the protocol.
    AmpProtocol = 50,
    /// A local file operation or system call failed.
    AmpIo = 60,
    /// The buffer is too small for the token.
    AmpBufferTooSmall = 61,
    /// No token yet; one is being requested. Only amp_token_cache_try_get()
    /// returns this.
    AmpPending = 62,
    /// Internal error: a bug in the library.
    AmpInternal = 69,
}

/// The one list that ties the statuses of C to the kinds of errors and to their names. A kind or status that
/// is not in it, or two with different numbers, do not compile; a test compares the names.
macro_rules! statuses {
    ($($kind:ident = $status:ident = $name:literal,)*) => {
        impl From<Kind> for amp_status {
            fn from(kind: Kind) -> Self {
                match kind { $(Kind::$kind => amp_status::$status,)* }
            }
        }

        impl amp_status {
            #[cfg(test)]
            const ALL: &[amp_status] = &[amp_status::AmpOk, $(amp_status::$status,)*];

            /// The status with this number, if there is one.
            fn from_number(number: i32) -> Option<Self> {
                $(const { assert!(amp_status::$status as i32 == Kind::$kind as i32) };)*
                match number {
                    0 => Some(amp_status::AmpOk),
                    $(number if number == amp_status::$status as i32 => Some(amp_status::$status),)*
                    _ => None,
                }
            }

            fn name(self) -> &'static CStr {
                match self { amp_status::AmpOk => c"AMP_OK", $(amp_status::$status => $name,)* }
            }
        }
    };
}
statuses! {
    InvalidArgument = AmpInvalidArgument = c"AMP_INVALID_ARGUMENT",
    Config = AmpConfig = c"AMP_CONFIG",
    NoCredentials = AmpNoCredentials = c"AMP_NO_CREDENTIALS",
    CredentialsRejected = AmpCredentialsRejected = c"AMP_CREDENTIALS_REJECTED",
    Resolve = AmpResolve = c"AMP_RESOLVE",
    Connect = AmpConnect = c"AMP_CONNECT",
    Tls = AmpTls = c"AMP_TLS",
    Proxy = AmpProxy = c"AMP_PROXY",
    Timeout = AmpTimeout = c"AMP_TIMEOUT",
    RateLimited = AmpRateLimited = c"AMP_RATE_LIMITED",
    Server = AmpServer = c"AMP_SERVER",
    Protocol = AmpProtocol = c"AMP_PROTOCOL",
    Io = AmpIo = c"AMP_IO",
    BufferTooSmall = AmpBufferTooSmall = c"AMP_BUFFER_TOO_SMALL",
    Pending = AmpPending = c"AMP_PENDING",
    Internal = AmpInternal = c"AMP_INTERNAL",
}

impl Kind {
    /// The name of the status, as the C header spells it: `AMP_TIMEOUT`.
    pub fn name(self) -> &'static str {
        amp_status::from(self).name().to_str().unwrap_or("AMP_UNKNOWN")
    }
}

/// The name of the status with this number, as the header spells it.
pub(super) fn status_name(number: i32) -> &'static CStr {
    amp_status::from_number(number).map_or(c"AMP_UNKNOWN", amp_status::name)
}

/// Runs the body of a function that can fail. An error, or a panic, becomes a status and, if the caller
/// wants one, an error object.
pub(super) fn fallible(error: Out<'_, *mut amp_error>, body: impl FnOnce() -> Result<()>) -> amp_status {
    let _inside = panics::enter();
    fallible_hot(error, body)
}

/// The same for the calls that return a cached token, whose core [enters](panics::enter) the library itself.
pub(super) fn fallible_hot(error: Out<'_, *mut amp_error>, body: impl FnOnce() -> Result<()>) -> amp_status {
    let Err(failure) = ffi::catch(body) else { return amp_status::AmpOk };
    if let Some(place) = error {
        place.write(ffi::into_handle(Box::new(amp_error::new(&failure))));
    }
    amp_status::from(failure.kind())
}

/// Describes why a call failed. Immutable, so any number of threads may use it
/// at once.
///
/// A call that fails creates one if its `error` argument is not NULL; the
/// caller frees it with amp_error_free(). No string of an error contains a
/// secret or a token, so all of them may be logged.
pub struct amp_error {
    error: Error,
    message: CString,
    oauth_code: Option<CString>,
}

impl Handle for amp_error {
    type Owner = Box<Self>;
}

impl amp_error {
    pub(super) fn new(error: &Error) -> Self {
        amp_error {
            error: error.clone(),
            message: ffi::to_c_string(&error.to_string()),
            oauth_code: error.oauth_code().map(ffi::to_c_string),
        }
    }
}

/// Returns the status that the failed call returned, or AMP_INVALID_ARGUMENT
/// for NULL.
///
/// Threads: any.
/// NULL: `error` may be NULL.
#[unsafe(no_mangle)]
pub extern "C" fn amp_error_status(error: Option<&amp_error>) -> amp_status {
    ffi::infallible(amp_status::AmpInternal, || {
        error.map_or(amp_status::AmpInvalidArgument, |error| error.error.kind().into())
    })
}

/// Returns one line that says what failed, why, and what to do about it. It is
/// meant for people and logs: its text may change in any version. Programs
/// decide by the status.
///
/// Threads: any.
/// NULL: never returned; the message for a NULL `error` is "no error".
/// Ownership: borrowed from `error`.
#[unsafe(no_mangle)]
pub extern "C" fn amp_error_message(error: Option<&amp_error>) -> *const c_char {
    ffi::infallible(c"".as_ptr(), || error.map_or(c"no error", |error| error.message.as_c_str()).as_ptr())
}

/// Returns the HTTP status of the last response, or 0 if there was none.
///
/// Threads: any.
/// NULL: 0 for a NULL `error`.
#[unsafe(no_mangle)]
pub extern "C" fn amp_error_http_status(error: Option<&amp_error>) -> i32 {
    ffi::infallible(0, || error.and_then(|error| error.error.http_status()).map_or(0, i32::from))
}

/// Returns the error code that the server sent, such as "invalid_client" (RFC
/// 6749, section 5.2).
///
/// Threads: any.
/// NULL: returned if the server sent no code, or `error` is NULL.
/// Ownership: borrowed from `error`.
#[unsafe(no_mangle)]
pub extern "C" fn amp_error_oauth_code(error: Option<&amp_error>) -> *const c_char {
    ffi::infallible(std::ptr::null(), || {
        error.and_then(|error| error.oauth_code.as_deref()).map_or(std::ptr::null(), CStr::as_ptr)
    })
}

/// Returns whether the same call may succeed later although nothing else has
/// changed.
///
/// Threads: any.
/// NULL: false for a NULL `error`.
#[unsafe(no_mangle)]
pub extern "C" fn amp_error_is_retryable(error: Option<&amp_error>) -> Bool {
    ffi::infallible(Bool::FALSE, || error.is_some_and(|error| error.error.is_retryable()).into())
}

/// Returns how many milliseconds to wait before the next call, counted from the
/// time of the failure: the time that the server asked for, or the rest of the
/// cache's backoff. An earlier call fails immediately. -1 means not known.
///
/// Threads: any.
/// NULL: -1 for a NULL `error`.
#[unsafe(no_mangle)]
pub extern "C" fn amp_error_retry_after_ms(error: Option<&amp_error>) -> i64 {
    ffi::infallible(-1, || {
        let wait = error.and_then(|error| error.error.retry_after());
        // Rounded up: a caller that waits exactly that long must not be early.
        wait.map_or(-1, |wait| i64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX))
    })
}

/// Returns how many requests the failed call sent or tried to send; 0 if it
/// failed before the first one.
///
/// Threads: any.
/// NULL: 0 for a NULL `error`.
#[unsafe(no_mangle)]
pub extern "C" fn amp_error_attempts(error: Option<&amp_error>) -> u32 {
    ffi::infallible(0, || error.map_or(0, |error| error.error.attempts()))
}

/// Frees an error.
///
/// Threads: any, but not while another thread uses `error`.
/// NULL: a NULL `error` is ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn amp_error_free(error: *mut amp_error) {
    // SAFETY: the header asks for a handle of this type that is not used again.
    unsafe { ffi::free(error) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::mem::MaybeUninit;

    #[test]
    fn a_status_has_the_name_that_the_header_generates_for_it() {
        for status in amp_status::ALL {
            let name = status_name(*status as i32).to_str().unwrap();
            let camel: String = name.split('_').map(|word| word[..1].to_owned() + &word[1..].to_lowercase()).collect();
            assert_eq!(format!("{status:?}"), camel);
        }
        assert_eq!(status_name(12), c"AMP_UNKNOWN");
    }

    #[test]
    #[allow(clippy::panic)]
    fn a_panic_becomes_an_internal_error() {
        let mut place = MaybeUninit::uninit();
        assert_eq!(fallible(Some(&mut place), || panic!("out of \u{1b}[1mluck")), amp_status::AmpInternal);
        // SAFETY: a call that fails writes a new error object, which is freed below.
        let error = unsafe { place.assume_init() };
        // SAFETY: the same object; messages are NUL-terminated.
        let message = unsafe { CStr::from_ptr(amp_error_message(error.as_ref())) }.to_str().unwrap().to_owned();
        // SAFETY: the last use of the object.
        unsafe { amp_error_free(error) };
        assert!(message.starts_with("internal error in libamp_token: out of "), "{message}");
        assert!(message.ends_with("please report it"), "{message}");
        assert!(!message.contains('\u{1b}') && !message.contains("error.rs"), "{message}");
    }
}
