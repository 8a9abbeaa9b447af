//! The request and the response that a transport of the application works with.

use super::ffi::{self, Bool};
use crate::error::{Error, Kind, Phase, Result};
use crate::net::transport::{Request, Response};
use crate::sanitize::sanitize;
use crate::sys::secret::{self, Secret};
use std::ffi::{CString, c_char, c_void};
use std::mem::MaybeUninit;
use std::time::Duration;
use zeroize::{Zeroize, Zeroizing};

/// A request for an amp_transport_fn to send. It and the strings that its
/// functions return are valid until that function returns. It contains a secret
/// or a token: do not log its headers or body.
pub struct amp_http_request {
    method: CString,
    url: CString,
    headers: Vec<(CString, CString)>,
    body: Zeroizing<Vec<u8>>,
    timeout: Duration,
}

impl Drop for amp_http_request {
    fn drop(&mut self) {
        for (_, value) in &mut self.headers {
            std::mem::take(value).into_bytes().zeroize();
        }
    }
}

/// The response that an amp_transport_fn received. Valid until that function
/// returns.
pub struct amp_http_reply {
    response: Response,
    limit: usize,
    failure: Option<Failure>,
}

/// Why there is no response.
enum Failure {
    /// What the application says. Its message may repeat a secret of the request, although it must not.
    Reported(Kind, Zeroizing<String>),
    TooLarge,
}

impl amp_http_request {
    pub(super) fn new(request: &Request, timeout: Duration) -> Self {
        amp_http_request {
            method: ffi::to_c_string(&request.method),
            url: ffi::to_c_string(request.url.as_str()),
            headers: request
                .headers
                .iter()
                .map(|(name, value)| (ffi::to_c_string(name), ffi::to_c_string(value.expose())))
                .collect(),
            body: request.body.clone(),
            timeout,
        }
    }
}

impl amp_http_reply {
    /// A reply that is not there yet, whose body may have `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        // The capacity fits the largest token response from the start: a buffer that grows would copy.
        let capacity = limit.min(crate::oauth::client_credentials::MAX_RESPONSE_BYTES);
        amp_http_reply {
            response: Response { status: 0, headers: Vec::new(), body: Zeroizing::new(Vec::with_capacity(capacity)) },
            limit,
            failure: None,
        }
    }

    /// What the application's transport made of a request; `result` is what it returned.
    pub(super) fn into_response(self, request: &Request, result: i32) -> Result<Response> {
        let host = request.url.host();
        if let Some(failure) = self.failure {
            let error = match failure {
                Failure::Reported(kind, message) => {
                    let secrets = request.secrets();
                    let secrets: Vec<_> = secrets.iter().map(Secret::expose).collect();
                    Error::new(kind, format!("the application's transport failed: {}", sanitize(&message, &secrets)))
                }
                Failure::TooLarge => {
                    let what = format!("the response is larger than {} bytes", self.limit);
                    Error::new(Kind::Protocol, what).with_hint("check the URL")
                }
            };
            return Err(error.with_phase(Phase::Send).with_host(host));
        }
        if result != 0 || self.response.status == 0 {
            let what = format!("no response from {host}: the application's transport returned {result}");
            return Err(Error::new(Kind::Connect, what)
                .with_phase(Phase::Send)
                .with_host(host)
                .with_hint("see the application's own messages, or call amp_http_reply_fail() in the transport"));
        }
        Ok(self.response)
    }
}

/// Returns the method: "POST", "GET" and so on.
///
/// Threads: any, until the transport callback returns.
/// NULL: returned for a NULL `request`.
/// Ownership: borrowed from `request`.
#[unsafe(no_mangle)]
pub extern "C" fn amp_http_request_method(request: Option<&amp_http_request>) -> *const c_char {
    ffi::infallible(std::ptr::null(), || request.map_or(std::ptr::null(), |request| request.method.as_ptr()))
}

/// Returns the whole URL. It never contains a secret.
///
/// Threads: any, until the transport callback returns.
/// NULL: returned for a NULL `request`.
/// Ownership: borrowed from `request`.
#[unsafe(no_mangle)]
pub extern "C" fn amp_http_request_url(request: Option<&amp_http_request>) -> *const c_char {
    ffi::infallible(std::ptr::null(), || request.map_or(std::ptr::null(), |request| request.url.as_ptr()))
}

/// Returns the name of a header by its index, which starts at 0.
///
/// Threads: any, until the transport callback returns.
/// NULL: returned if there are no more headers, or for a NULL `request`.
/// Ownership: borrowed from `request`.
#[unsafe(no_mangle)]
pub extern "C" fn amp_http_request_header_name(request: Option<&amp_http_request>, index: usize) -> *const c_char {
    ffi::infallible(std::ptr::null(), || {
        request.and_then(|request| request.headers.get(index)).map_or(std::ptr::null(), |(name, _)| name.as_ptr())
    })
}

/// Returns the value of the header with that name, which is compared without
/// regard to case. It may be a secret.
///
/// Threads: any, until the transport callback returns.
/// NULL: returned if there is no such header, or for a NULL `request` or
///   `name`.
/// Ownership: borrowed from `request`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn amp_http_request_header(
    request: Option<&amp_http_request>,
    name: *const c_char,
) -> *const c_char {
    ffi::infallible(std::ptr::null(), || {
        // SAFETY: the header asks for a string that does not change during the call.
        let name = unsafe { ffi::str_arg(name, "name") };
        let (Some(request), Ok(name)) = (request, name) else { return std::ptr::null() };
        let has_name = |have: &CString| have.as_bytes().eq_ignore_ascii_case(name.as_bytes());
        request.headers.iter().find(|(have, _)| has_name(have)).map_or(std::ptr::null(), |(_, value)| value.as_ptr())
    })
}

/// Returns the body and sets `*length` to its size in bytes. It may contain a
/// secret.
///
/// Threads: any, until the transport callback returns.
/// NULL: returned if the body is empty, or for a NULL `request`; `*length` is
///   then 0. `length` may be NULL.
/// Ownership: borrowed from `request`.
#[unsafe(no_mangle)]
pub extern "C" fn amp_http_request_body(
    request: Option<&amp_http_request>,
    length: Option<&mut MaybeUninit<usize>>,
) -> *const c_void {
    ffi::infallible(std::ptr::null(), || {
        let body = request.map_or(&[][..], |request| &request.body);
        ffi::write_if_set(length, body.len());
        if body.is_empty() { std::ptr::null() } else { body.as_ptr().cast() }
    })
}

/// Returns how many milliseconds are left for the request and its response.
///
/// Threads: any, until the transport callback returns.
/// NULL: 0 for a NULL `request`.
#[unsafe(no_mangle)]
pub extern "C" fn amp_http_request_timeout_ms(request: Option<&amp_http_request>) -> i64 {
    ffi::infallible(0, || request.map_or(0, |request| i64::try_from(request.timeout.as_millis()).unwrap_or(i64::MAX)))
}

/// Sets the HTTP status of the response, from 100 to 999. Any other number
/// counts as no response.
///
/// Threads: one at a time, until the transport callback returns.
/// NULL: a NULL `reply` is ignored.
#[unsafe(no_mangle)]
pub extern "C" fn amp_http_reply_set_status(reply: Option<&mut amp_http_reply>, status: i32) {
    ffi::infallible((), || {
        if let Some(reply) = reply {
            reply.response.status =
                u16::try_from(status).ok().filter(|status| (100..1000).contains(status)).unwrap_or(0);
        }
    });
}

/// Adds a header to the response. A header that is not UTF-8 is ignored.
///
/// Threads: one at a time, until the transport callback returns.
/// NULL: the call is ignored if `reply`, `name` or `value` is NULL.
/// Ownership: the strings are copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn amp_http_reply_add_header(
    reply: Option<&mut amp_http_reply>,
    name: *const c_char,
    value: *const c_char,
) {
    ffi::infallible((), || {
        // SAFETY: the header asks for strings that do not change during the call.
        let (name, value) = unsafe { (ffi::str_arg(name, "name"), ffi::str_arg(value, "value")) };
        if let (Some(reply), Ok(name), Ok(value)) = (reply, name, value) {
            reply.response.headers.push((name.to_owned(), value.to_owned()));
        }
    });
}

/// Appends `length` bytes to the body of the response. Returns false if the
/// response is larger than the library accepts (the callback may stop reading;
/// the call fails with AMP_PROTOCOL), or if an argument is NULL.
///
/// Threads: one at a time, until the transport callback returns.
/// NULL: false for a NULL `reply`, and for a NULL `data` unless `length` is 0.
/// Ownership: the bytes are copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn amp_http_reply_append_body(
    reply: Option<&mut amp_http_reply>,
    data: *const c_void,
    length: usize,
) -> Bool {
    ffi::infallible(Bool::FALSE, || {
        // SAFETY: the header asks for `length` bytes at `data` that do not change during the call.
        let data = unsafe { ffi::bytes(data, length, "data") };
        let (Some(reply), Ok(data)) = (reply, data) else { return Bool::FALSE };
        let body = &mut reply.response.body;
        if data.len() > reply.limit - body.len() {
            reply.failure = Some(Failure::TooLarge);
            return Bool::FALSE;
        }
        secret::append(body, data);
        Bool::TRUE
    })
}

/// Says why there is no response: by a status such as AMP_RESOLVE, AMP_CONNECT,
/// AMP_TLS, AMP_PROXY or AMP_TIMEOUT (any status but these, AMP_PROTOCOL and
/// AMP_IO counts as AMP_CONNECT), and a message for people, which is truncated
/// if it is very long. It must not contain a secret.
///
/// Threads: one at a time, until the transport callback returns.
/// NULL: a NULL `reply` is ignored. `message` may be NULL.
/// Ownership: the message is copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn amp_http_reply_fail(reply: Option<&mut amp_http_reply>, status: i32, message: *const c_char) {
    ffi::infallible((), || {
        let Some(reply) = reply else { return };
        let kinds = [Kind::Resolve, Kind::Connect, Kind::Tls, Kind::Proxy, Kind::Timeout, Kind::Protocol, Kind::Io];
        let kind = kinds.into_iter().find(|kind| kind.number() == status).unwrap_or(Kind::Connect);
        // SAFETY: the header asks for a string that does not change during the call.
        let message = unsafe { ffi::str_arg(message, "message") }.unwrap_or("no reason given");
        reply.failure = Some(Failure::Reported(kind, Zeroizing::new(message.to_owned())));
    });
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by it")]
mod tests {
    use super::*;
    use crate::net::url::Url;
    use crate::oauth::client_credentials::token_request;

    #[test]
    fn a_message_of_the_application_is_shown_without_the_secrets_of_its_request() {
        let url = Url::parse("https://auth.example/oauth/token").unwrap();
        let secret = Secret::from("hush hush/hush-9e04");
        let mut request = token_request(&url, "id", &secret, "agent");
        request.headers.push(("Authorization".into(), Secret::from("Bearer canary-token-1").into()));
        for (message, shown) in [
            ("cannot send client_secret=hush+hush%2Fhush-9e04&x", "cannot send client_secret=[redacted]&x"),
            ("hush hush/hush-9e04", "[redacted]"),
            ("Authorization: Bearer canary-token-1", "Authorization: Bearer [redacted]"),
            ("no route", "no route"),
        ] {
            let mut reply = amp_http_reply::new(10);
            reply.failure = Some(Failure::Reported(Kind::Connect, Zeroizing::new(message.to_owned())));
            let error = reply.into_response(&request, 0).unwrap_err();
            assert_eq!(error.message(), format!("the application's transport failed: {shown}"));
        }
    }
}
