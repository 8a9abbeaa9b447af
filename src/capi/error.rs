//! Statuses and error objects.

use super::ffi;
use crate::error::{Error, Kind};
use std::ffi::{CStr, CString, c_char};

/// What a call came to. The tens are families: 10 arguments and configuration,
/// 20 credentials, 30 network, 40 server, 50 reply, 60 this machine. A number
/// never changes its meaning and is never used again; new ones may join a
/// family, so treat an unknown one by its family, and anything but AMP_OK as a
/// failure.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum amp_status {
    /// Success.
    AmpOk = 0,
    /// An argument is NULL, not UTF-8, or not among the values that are
    /// allowed.
    AmpInvalidArgument = 10,
    /// The settings do not fit together, or one of them cannot be used.
    AmpConfig = 11,
    /// No client id and secret, and no personal access token, was found.
    AmpNoCredentials = 20,
    /// The server refused the client id and secret, or the personal access
    /// token.
    AmpCredentialsRejected = 21,
    /// The host name could not be turned into an address.
    AmpResolve = 30,
    /// No connection, or one that broke.
    AmpConnect = 31,
    /// The TLS handshake failed: most often a certificate that is not trusted.
    AmpTls = 32,
    /// The proxy refused, could not be reached, or wanted other credentials.
    AmpProxy = 33,
    /// The time that the call had was over.
    AmpTimeout = 34,
    /// The server asked for fewer requests (HTTP 429).
    AmpRateLimited = 40,
    /// The server failed (HTTP 5xx, 408).
    AmpServer = 41,
    /// The reply is not what the protocol allows.
    AmpProtocol = 50,
    /// A local file or system call failed.
    AmpIo = 60,
    /// The buffer is too small for the token.
    AmpBufferTooSmall = 61,
    /// A defect of the library.
    AmpInternal = 69,
}

/// Every status with its name; `None` is success.
pub(super) static STATUSES: &[(Option<Kind>, &CStr)] = &[
    (None, c"AMP_OK"),
    (Some(Kind::InvalidArgument), c"AMP_INVALID_ARGUMENT"),
    (Some(Kind::Config), c"AMP_CONFIG"),
    (Some(Kind::NoCredentials), c"AMP_NO_CREDENTIALS"),
    (Some(Kind::CredentialsRejected), c"AMP_CREDENTIALS_REJECTED"),
    (Some(Kind::Resolve), c"AMP_RESOLVE"),
    (Some(Kind::Connect), c"AMP_CONNECT"),
    (Some(Kind::Tls), c"AMP_TLS"),
    (Some(Kind::Proxy), c"AMP_PROXY"),
    (Some(Kind::Timeout), c"AMP_TIMEOUT"),
    (Some(Kind::RateLimited), c"AMP_RATE_LIMITED"),
    (Some(Kind::Server), c"AMP_SERVER"),
    (Some(Kind::Protocol), c"AMP_PROTOCOL"),
    (Some(Kind::Io), c"AMP_IO"),
    (Some(Kind::BufferTooSmall), c"AMP_BUFFER_TOO_SMALL"),
    (Some(Kind::Internal), c"AMP_INTERNAL"),
];

impl From<Kind> for amp_status {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::InvalidArgument => amp_status::AmpInvalidArgument,
            Kind::Config => amp_status::AmpConfig,
            Kind::NoCredentials => amp_status::AmpNoCredentials,
            Kind::CredentialsRejected => amp_status::AmpCredentialsRejected,
            Kind::Resolve => amp_status::AmpResolve,
            Kind::Connect => amp_status::AmpConnect,
            Kind::Tls => amp_status::AmpTls,
            Kind::Proxy => amp_status::AmpProxy,
            Kind::Timeout => amp_status::AmpTimeout,
            Kind::RateLimited => amp_status::AmpRateLimited,
            Kind::Server => amp_status::AmpServer,
            Kind::Protocol => amp_status::AmpProtocol,
            Kind::Io => amp_status::AmpIo,
            Kind::BufferTooSmall => amp_status::AmpBufferTooSmall,
            Kind::Internal => amp_status::AmpInternal,
        }
    }
}

/// Why a call failed. Immutable: any number of threads may look at it at once.
///
/// A call that fails makes one if it is given a place for it, and the caller
/// frees it with amp_error_free(). Texts that its functions return are
/// borrowed from it. None of them ever holds a secret or a token, so all may
/// be logged.
pub struct amp_error {
    error: Error,
    message: CString,
    oauth_code: Option<CString>,
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

/// The status that the failed call returned; AMP_INVALID_ARGUMENT if `error`
/// is NULL.
///
/// Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn amp_error_status(error: Option<&amp_error>) -> amp_status {
    ffi::infallible(amp_status::AmpInternal, || error.map_or(amp_status::AmpInvalidArgument, |error| error.error.kind().into()))
}

/// One line that says what happened, to what, and what to do next: for people
/// and logs. Its words may change; programs decide by the status.
///
/// Never NULL (NULL has the message "no error"); borrowed from `error`. Any
/// thread.
#[unsafe(no_mangle)]
pub extern "C" fn amp_error_message(error: Option<&amp_error>) -> *const c_char {
    ffi::infallible(c"".as_ptr(), || error.map_or(c"no error", |error| error.message.as_c_str()).as_ptr())
}

/// The HTTP status of the last reply; 0: none came, or `error` is NULL.
///
/// Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn amp_error_http_status(error: Option<&amp_error>) -> i32 {
    ffi::infallible(0, || error.and_then(|error| error.error.http_status()).map_or(0, i32::from))
}

/// The error code that the server sent, such as "invalid_client" (RFC 6749,
/// 5.2).
///
/// NULL: it sent none, or `error` is NULL; borrowed from `error`. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn amp_error_oauth_code(error: Option<&amp_error>) -> *const c_char {
    ffi::infallible(std::ptr::null(), || {
        error.and_then(|error| error.oauth_code.as_deref()).map_or(std::ptr::null(), CStr::as_ptr)
    })
}

/// Whether the same call may succeed later without anything else having
/// changed.
///
/// false if `error` is NULL. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn amp_error_is_retryable(error: Option<&amp_error>) -> bool {
    ffi::infallible(false, || error.is_some_and(|error| error.error.is_retryable()))
}

/// How many milliseconds to wait before the next call, counted from the moment
/// of the failure: what the server asked for, or the rest of the pause that
/// the cache makes. A call before that fails at once.
///
/// -1: not known, or `error` is NULL. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn amp_error_retry_after_ms(error: Option<&amp_error>) -> i64 {
    ffi::infallible(-1, || {
        let wait = error.and_then(|error| error.error.retry_after());
        // Rounded up: whoever waits exactly that long must not come too early.
        wait.map_or(-1, |wait| i64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX))
    })
}

/// How many requests the failed call sent, or tried to send; 0 if it failed
/// before the first, or `error` is NULL.
///
/// Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn amp_error_attempts(error: Option<&amp_error>) -> u32 {
    ffi::infallible(0, || error.map_or(0, |error| error.error.attempts()))
}

/// Frees an error; NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn amp_error_free(error: Option<Box<amp_error>>) {
    ffi::infallible((), || drop(error));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn statuses_have_the_numbers_of_their_kinds_and_names_of_their_own() {
        for (kind, name) in STATUSES {
            let status = kind.map_or(amp_status::AmpOk, amp_status::from);
            assert_eq!(status as i32, kind.map_or(0, Kind::number));
            let camel: String = name
                .to_str()
                .unwrap()
                .split('_')
                .map(|word| word[..1].to_owned() + &word[1..].to_lowercase())
                .collect();
            assert_eq!(format!("{status:?}"), camel);
        }
    }
}
