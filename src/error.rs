//! The error type of the library, with one [`Kind`] per `AMP_*` status of the C interface.
//!
//! - A message names the operation, the object and the cause, and gives a hint what to do.
//! - An error carries what a program needs to decide: whether a retry may succeed, when, what the server
//!   answered, and how many requests were sent.
//! - It never contains a secret: all text from a server is [sanitized](crate::sanitize::sanitize).
//! - It is immutable and cheap to clone, because every thread that waited for a request gets its error.

use crate::sys::threads::CannotStartThread;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// The kinds of failure. Each is a status of the C interface, with the same number.
///
/// The tens are groups: arguments and configuration, credentials, network, server, response, local.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum Kind {
    /// A required argument is NULL, is not UTF-8, or is not one of the allowed values.
    InvalidArgument = 10,
    /// Settings conflict, or one of them cannot be used.
    Config = 11,
    /// Neither a client id and secret nor a personal access token was found.
    NoCredentials = 20,
    /// The server rejected the client id and secret, or the personal access token.
    CredentialsRejected = 21,
    /// The host name could not be resolved.
    Resolve = 30,
    /// The connection could not be opened, or it broke.
    Connect = 31,
    /// The TLS handshake failed, most often because a certificate is not trusted.
    Tls = 32,
    /// The proxy rejected the request, or its credentials.
    Proxy = 33,
    /// The call timed out.
    Timeout = 34,
    /// The server is rate limiting requests (HTTP 429).
    RateLimited = 40,
    /// The server returned an error (HTTP 5xx, 408).
    Server = 41,
    /// The response violates the protocol.
    Protocol = 50,
    /// A local file or system call failed.
    Io = 60,
    /// The caller's buffer is too small for the token.
    BufferTooSmall = 61,
    /// No token is available yet, and one is being requested. Only calls that never block fail with it.
    Pending = 62,
    /// A bug in this library.
    Internal = 69,
}

impl Kind {
    /// The number of the status.
    pub fn number(self) -> i32 {
        self as i32
    }
}

/// A part of a call, in the order in which a call passes through them. An error names the one that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Reading settings and credentials.
    Setup,
    /// Choosing a proxy, or none.
    Route,
    /// Resolving a host name.
    Resolve,
    /// Connecting to the server or its proxy.
    Connect,
    /// Having the proxy open a connection to the server.
    Tunnel,
    /// The TLS handshake.
    TlsHandshake,
    /// Sending the request. Before this phase, the server has seen nothing of the request.
    Send,
    /// Waiting for the first byte of the response.
    AwaitResponse,
    /// Reading the rest of the response.
    ReceiveBody,
    /// Interpreting the response.
    Parse,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Setup => "setup",
            Phase::Route => "choosing a proxy",
            Phase::Resolve => "resolving the host name",
            Phase::Connect => "connecting",
            Phase::Tunnel => "opening a connection through the proxy",
            Phase::TlsHandshake => "the TLS handshake",
            Phase::Send => "sending the request",
            Phase::AwaitResponse => "waiting for the response",
            Phase::ReceiveBody => "receiving the response",
            Phase::Parse => "parsing the response",
        })
    }
}

/// What went wrong. See the module's documentation.
#[derive(Clone)]
pub struct Error(Arc<Details>);

#[derive(Clone)]
struct Details {
    kind: Kind,
    message: String,
    hint: String,
    phase: Phase,
    host: Option<String>,
    http_status: Option<u16>,
    oauth_code: Option<String>,
    oauth_description: Option<String>,
    request_id: Option<String>,
    attempts: u32,
    retryable: bool,
    retry_after: Option<Duration>,
}

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with a message: operation, object and cause. It is retryable if a retry may succeed for this
    /// kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        let retryable = matches!(
            kind,
            Kind::Resolve | Kind::Connect | Kind::Timeout | Kind::RateLimited | Kind::Server | Kind::Pending
        );
        Error(Arc::new(Details {
            kind,
            message: message.into(),
            hint: String::new(),
            phase: Phase::Setup,
            host: None,
            http_status: None,
            oauth_code: None,
            oauth_description: None,
            request_id: None,
            attempts: 0,
            retryable,
            retry_after: None,
        }))
    }

    /// An error about an argument or a setting.
    pub fn invalid(message: impl Into<String>) -> Self {
        Error::new(Kind::InvalidArgument, message)
    }

    fn with(mut self, change: impl FnOnce(&mut Details)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// Adds what to do next. It follows the message after a semicolon.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        self.with(|details| details.hint = hint.into())
    }

    /// Adds the phase of the call that failed.
    #[must_use]
    pub fn with_phase(self, phase: Phase) -> Self {
        self.with(|details| details.phase = phase)
    }

    /// Adds the host and port of the peer.
    #[must_use]
    pub fn with_host(self, host: impl Into<String>) -> Self {
        self.with(|details| details.host = Some(host.into()))
    }

    /// Adds the HTTP status of the response.
    #[must_use]
    pub fn with_http_status(self, status: u16) -> Self {
        self.with(|details| details.http_status = Some(status))
    }

    /// Adds the server's `error` and `error_description` (RFC 6749, 5.2), already
    /// [sanitized](crate::sanitize::sanitize).
    #[must_use]
    pub fn with_oauth_error(self, code: Option<String>, description: Option<String>) -> Self {
        self.with(|details| {
            details.oauth_code = code;
            details.oauth_description = description;
        })
    }

    /// Adds the server's id of the request, already [sanitized](crate::sanitize::sanitize).
    #[must_use]
    pub fn with_request_id(self, id: Option<String>) -> Self {
        self.with(|details| details.request_id = id)
    }

    /// Adds the number of requests that were sent or attempted.
    #[must_use]
    pub fn with_attempts(self, attempts: u32) -> Self {
        self.with(|details| details.attempts = attempts)
    }

    /// Sets whether a retry may succeed.
    #[must_use]
    pub fn with_retryable(self, retryable: bool) -> Self {
        self.with(|details| details.retryable = retryable)
    }

    /// Adds how long to wait before a retry.
    #[must_use]
    pub fn with_retry_after(self, retry_after: Option<Duration>) -> Self {
        self.with(|details| details.retry_after = retry_after)
    }

    /// The operation, object and cause, without facts and hint.
    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    /// What to do next, if there is something.
    pub(crate) fn hint(&self) -> Option<&str> {
        Some(self.0.hint.as_str()).filter(|hint| !hint.is_empty())
    }

    /// The kind of failure.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The phase of the call that failed.
    pub fn phase(&self) -> Phase {
        self.0.phase
    }

    /// The host and port of the peer, if there was one.
    pub fn host(&self) -> Option<&str> {
        self.0.host.as_deref()
    }

    /// The HTTP status of the last response, if there was one.
    pub fn http_status(&self) -> Option<u16> {
        self.0.http_status
    }

    /// The server's `error`, such as `invalid_client`.
    pub fn oauth_code(&self) -> Option<&str> {
        self.0.oauth_code.as_deref()
    }

    /// The server's `error_description`.
    pub fn oauth_description(&self) -> Option<&str> {
        self.0.oauth_description.as_deref()
    }

    /// The server's id of the request, for its support.
    pub fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }

    /// The number of requests that were sent or attempted.
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// Whether the same call may succeed later although nothing else has changed.
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }

    /// How long to wait before the next call, if that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }
}

impl fmt::Display for Error {
    /// `message (facts); hint`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let details = &*self.0;
        f.write_str(&details.message)?;
        let mut facts = Vec::new();
        if let Some(status) = details.http_status {
            facts.push(format!("HTTP {status}"));
        }
        if let Some(code) = &details.oauth_code {
            facts.push(match &details.oauth_description {
                Some(description) => format!("{code}: {description}"),
                None => code.clone(),
            });
        }
        if details.attempts > 1 {
            facts.push(format!("{} attempts", details.attempts));
        }
        if let Some(id) = &details.request_id {
            facts.push(format!("request id {id}"));
        }
        if let Some(wait) = details.retry_after {
            facts.push(format!("next attempt in {} s", wait.as_millis().div_ceil(1000)));
        }
        if !facts.is_empty() {
            write!(f, " ({})", facts.join(", "))?;
        }
        if !details.hint.is_empty() {
            write!(f, "; {}", details.hint)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let details = &*self.0;
        f.debug_struct("Error")
            .field("kind", &details.kind)
            .field("phase", &details.phase)
            .field("host", &details.host)
            .field("retryable", &details.retryable)
            .field("message", &format_args!("{self}"))
            .finish()
    }
}

impl std::error::Error for Error {}

/// If the error is that a local resource is exhausted: which one, and a hint.
pub(crate) fn resource_limit(error: &io::Error) -> Option<(&'static str, &'static str)> {
    type Row = (i32, &'static str, &'static str);
    const CLOSE_FILES: &str = "raise the limit (ulimit -n) or close unused descriptors";
    const FREE_MEMORY: &str = "end programs that are not needed, and try again";
    #[cfg(unix)]
    const TABLE: [Row; 4] = [
        (libc::EMFILE, "too many open files in this process", CLOSE_FILES),
        (libc::ENFILE, "too many open files on this machine", CLOSE_FILES),
        (libc::ENOBUFS, "no buffer space left on this machine", FREE_MEMORY),
        (libc::ENOMEM, "no memory left on this machine", FREE_MEMORY),
    ];
    // Winsock's WSAEMFILE and WSAENOBUFS.
    #[cfg(not(unix))]
    const TABLE: [Row; 2] = [
        (10024, "too many open sockets in this process", CLOSE_FILES),
        (10055, "no buffer space left on this machine", FREE_MEMORY),
    ];
    if CannotStartThread::is_cause_of(error) {
        return Some((
            "cannot start another thread in this process",
            "raise the limits of threads and memory (ulimit -u, ulimit -v) or end unused threads",
        ));
    }
    let code = error.raw_os_error()?;
    TABLE.iter().find(|(have, ..)| *have == code).map(|(_, lack, advice)| (*lack, *advice))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_message_facts_and_hint() {
        let error = Error::new(Kind::Server, "auth.example returned a server error")
            .with_http_status(503)
            .with_attempts(4)
            .with_retry_after(Some(Duration::from_millis(1500)))
            .with_hint("try again later");
        assert_eq!(
            error.to_string(),
            "auth.example returned a server error (HTTP 503, 4 attempts, next attempt in 2 s); try again later"
        );
    }
}
