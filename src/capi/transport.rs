//! The two objects that an application's own transport works with.

use super::ffi::{self, UserData, amp_transport_fn};
use super::callback_guard::CallbackGuard;
use crate::error::{Error, Kind, Result, Stage};
use crate::sanitize::sanitize;
use crate::sys::secret;
use crate::net::url::Url;
use crate::net::transport::{Request, Response, Transport};
use std::sync::Arc;
use std::ffi::{CString, c_char, c_void};
use std::time::Duration;
use zeroize::{Zeroize, Zeroizing};

/// A request that an amp_transport_fn is to carry. Valid until that function
/// returns; so is every text that its functions return. It holds a secret or a
/// token: do not log its headers or body.
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

/// What an amp_transport_fn got back. Valid until that function returns.
pub struct amp_http_reply {
    response: Response,
    limit: usize,
    failure: Option<Error>,
}

/// A transport that is a function of the application's.
pub(super) struct CallbackTransport {
    pub(super) send: amp_transport_fn,
    pub(super) user_data: UserData,
    pub(super) guard: Arc<CallbackGuard>,
}

impl Transport for CallbackTransport {
    fn send(&self, request: &Request, timeout: Duration) -> Result<Response> {
        let for_c = amp_http_request {
            method: ffi::to_c_string(&request.method),
            url: ffi::to_c_string(&request.url),
            headers: request
                .headers
                .iter()
                .map(|(name, value)| (ffi::to_c_string(name), ffi::to_c_string(value.expose())))
                .collect(),
            body: request.body.clone(),
            timeout,
        };
        let mut reply = amp_http_reply {
            response: Response {
                status: 0,
                headers: Vec::new(),
                // Room for the largest token response from the start.
                body: Zeroizing::new(Vec::with_capacity(request.max_response_bytes.min(crate::oauth::client_credentials::MAX_RESPONSE_BYTES))),
            },
            limit: request.max_response_bytes,
            failure: None,
        };
        let host = Url::parse(&request.url).map_or("the server", |url| url.host);
        let result = self.guard.enter(|| ffi::call_transport(self.send, &for_c, &mut reply, self.user_data)).unwrap_or(-1);
        if let Some(failure) = reply.failure {
            return Err(failure.with_phase(Stage::Send).with_host(host));
        }
        if result != 0 || reply.response.status == 0 {
            let what = format!("the application's transport brought no reply from {host} (it returned {result})");
            return Err(Error::new(Kind::Connect, what)
                .with_phase(Stage::Send)
                .with_host(host)
                .with_hint("see the application's own messages, or have it call amp_http_reply_fail"));
        }
        Ok(reply.response)
    }
}

/// "POST", "GET" and so on. NULL if `with_request_id` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn amp_http_request_method(request: Option<&amp_http_request>) -> *const c_char {
    ffi::infallible(std::ptr::null(), || request.map_or(std::ptr::null(), |request| request.method.as_ptr()))
}

/// The whole URL; it never holds a secret. NULL if `with_request_id` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn amp_http_request_url(request: Option<&amp_http_request>) -> *const c_char {
    ffi::infallible(std::ptr::null(), || request.map_or(std::ptr::null(), |request| request.url.as_ptr()))
}

/// The name of a header, counted from 0. NULL: there are no more, or `with_request_id`
/// is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn amp_http_request_header_name(request: Option<&amp_http_request>, index: usize) -> *const c_char {
    ffi::infallible(std::ptr::null(), || {
        request.and_then(|request| request.headers.get(index)).map_or(std::ptr::null(), |(name, _)| name.as_ptr())
    })
}

/// The value of the header with that name, in any case; it may be a secret.
/// NULL: there is none, or an argument is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn amp_http_request_header(request: Option<&amp_http_request>, name: *const c_char) -> *const c_char {
    ffi::infallible(std::ptr::null(), || {
        let (Some(request), Ok(name)) = (request, ffi::str_arg(name, "name")) else { return std::ptr::null() };
        let has_name = |have: &CString| have.as_bytes().eq_ignore_ascii_case(name.as_bytes());
        request.headers.iter().find(|(have, _)| has_name(have)).map_or(std::ptr::null(), |(_, value)| value.as_ptr())
    })
}

/// The body, and its number of bytes in `length` (which may be NULL); it may
/// hold a secret. NULL and 0 if it is empty or `with_request_id` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn amp_http_request_body(request: Option<&amp_http_request>, length: *mut usize) -> *const c_void {
    ffi::infallible(std::ptr::null(), || {
        let body = request.map_or(&[][..], |request| &request.body);
        ffi::write_if_set(length, body.len());
        if body.is_empty() { std::ptr::null() } else { body.as_ptr().cast() }
    })
}

/// How many milliseconds are left for the whole exchange; 0 if `with_request_id` is
/// NULL.
#[unsafe(no_mangle)]
pub extern "C" fn amp_http_request_timeout_ms(request: Option<&amp_http_request>) -> i64 {
    ffi::infallible(0, || request.map_or(0, |request| i64::try_from(request.timeout.as_millis()).unwrap_or(i64::MAX)))
}

/// Sets the HTTP status of the reply, 100 to 999; another number counts as no
/// reply.
#[unsafe(no_mangle)]
pub extern "C" fn amp_http_reply_set_status(reply: Option<&mut amp_http_reply>, status: i32) {
    ffi::infallible((), || {
        if let Some(reply) = reply {
            reply.response.status =
                u16::try_from(status).ok().filter(|status| (100..1000).contains(status)).unwrap_or(0);
        }
    });
}

/// Adds a header of the reply; both texts are copied. What is not UTF-8 is
/// left out.
#[unsafe(no_mangle)]
pub extern "C" fn amp_http_reply_add_header(
    reply: Option<&mut amp_http_reply>,
    name: *const c_char,
    value: *const c_char,
) {
    ffi::infallible((), || {
        if let (Some(reply), Ok(name), Ok(value)) = (reply, ffi::str_arg(name, "name"), ffi::str_arg(value, "value")) {
            reply.response.headers.push((name.to_owned(), value.to_owned()));
        }
    });
}

/// Adds `length` bytes, which are copied, to the body of the reply. false: the
/// reply is larger than the library wants (the function may stop reading; the
/// call fails with AMP_PROTOCOL), or an argument is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn amp_http_reply_append_body(
    reply: Option<&mut amp_http_reply>,
    data: *const c_void,
    length: usize,
) -> bool {
    ffi::infallible(false, || {
        let (Some(reply), Ok(data)) = (reply, ffi::bytes(data, length, "data")) else { return false };
        let body = &mut reply.response.body;
        if data.len() > reply.limit - body.len() {
            let what = format!("the reply is larger than {} bytes", reply.limit);
            reply.failure = Some(Error::new(Kind::Protocol, what).with_hint("check that the URL is the right one"));
            return false;
        }
        secret::append(body, data);
        true
    })
}

/// Says why no reply came: a status such as AMP_RESOLVE, AMP_CONNECT, AMP_TLS,
/// AMP_PROXY or AMP_TIMEOUT (another counts as AMP_CONNECT) and a text for
/// people, which is copied, cut to a sane length, and may be NULL. It must not
/// hold a secret.
#[unsafe(no_mangle)]
pub extern "C" fn amp_http_reply_fail(reply: Option<&mut amp_http_reply>, status: i32, message: *const c_char) {
    ffi::infallible((), || {
        let Some(reply) = reply else { return };
        let kinds = [Kind::Resolve, Kind::Connect, Kind::Tls, Kind::Proxy, Kind::Timeout, Kind::Protocol, Kind::Io];
        let kind = kinds.into_iter().find(|kind| kind.number() == status).unwrap_or(Kind::Connect);
        let message = ffi::str_arg(message, "message").unwrap_or("no reason given");
        reply.failure = Some(Error::new(kind, format!("the application's transport failed: {}", sanitize(message, &[]))));
    });
}
