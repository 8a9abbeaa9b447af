//! What carries one HTTP request: the contract between the protocol and whatever moves its bytes.
//!
//! [`crate::net::http::HttpTransport`] does it over real sockets; an application may supply its own
//! function; tests supply closures. A transport sends one request once, follows no redirect, adds no
//! retry, and is back within the time it is given. A reply of any HTTP status is a success here:
//! only the protocol knows what it means.

use crate::error::{Error, Kind, Phase, Result};
use crate::sys::secret::MaybeSecret;
use std::time::Duration;
use zeroize::Zeroizing;

/// One request.
#[derive(Debug)]
pub struct Request {
    /// `GET`, `POST`, …
    pub method: String,
    /// The whole URL; it never holds a secret.
    pub url: String,
    /// Names and values. One of the values may be `Bearer …`, which is secret.
    pub headers: Vec<(&'static str, MaybeSecret)>,
    /// The body, empty for none. Secret because it may be the token request's.
    pub body: Zeroizing<Vec<u8>>,
    /// The most bytes of a reply's body that may be read; more is [`Kind::Protocol`].
    pub max_response_bytes: usize,
}

/// One reply.
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// Names (any case) and values, in the order they came.
    pub headers: Vec<(String, String)>,
    /// The body, whole. Wiped when dropped, because it may hold a token.
    pub body: Zeroizing<Vec<u8>>,
}

impl Response {
    /// The first header of that name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Response({}, {} bytes)", self.status, self.body.len())
    }
}

/// Takes the body of a reply, piece by piece; `false`: no more of it is wanted.
pub type BodySink<'a> = dyn FnMut(&[u8]) -> bool + 'a;

/// Something that carries requests. It may be called from many threads at once.
pub trait Transport: Send + Sync {
    /// Sends `with_request_id` and returns the reply, or why there is none, within `timeout`.
    fn send(&self, request: &Request, timeout: Duration) -> Result<Response>;

    /// As [`Transport::send`], but the body of a success (2xx) goes to `sink`, of any size, and the
    /// reply that is returned has none. This default takes it into memory first.
    fn send_streaming(&self, request: &Request, timeout: Duration, sink: &mut BodySink) -> Result<Response> {
        let mut response = self.send(request, timeout)?;
        if is_success(response.status) {
            let body = std::mem::take(&mut response.body);
            if !body.is_empty() && !sink(&body) {
                return Err(sink_error());
            }
        }
        Ok(response)
    }
}

/// Whether a status means that the body is what was asked for.
pub fn is_success(status: u16) -> bool {
    (200..300).contains(&status)
}

/// The error for a body that its taker does not want to the end.
pub fn sink_error() -> Error {
    Error::new(Kind::Io, "the application did not take the whole reply")
        .with_phase(Phase::ReceiveBody)
        .with_hint("see the application's own messages: its disk may be full")
}

impl<F: Fn(&Request, Duration) -> Result<Response> + Send + Sync> Transport for F {
    fn send(&self, request: &Request, timeout: Duration) -> Result<Response> {
        self(request, timeout)
    }
}
