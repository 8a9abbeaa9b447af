//! Responses of this server itself.
//!
//! A failure is a JSON object as RFC 6749 (5.2) has it, `error` and `error_description`, at all endpoints. Its status is
//! that of the service where the service sent one, so that a client that handles a 400 or 429 of Amplience handles this.

use super::body::{AnyBody, full};
use amp_token::error::{Error, Kind};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde_json::json;

pub const JSON: &str = "application/json";

/// A response with a body that must not be kept by anybody.
pub fn response(status: StatusCode, kind: &'static str, body: impl Into<hyper::body::Bytes>) -> Response<AnyBody> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A failure that is the client's.
pub fn failure(status: StatusCode, code: &str, description: &str) -> Response<AnyBody> {
    let body = json!({ "error": code, "error_description": description });
    response(status, JSON, body.to_string())
}

/// The same, with one more header.
pub fn failure_with(
    (name, value): (HeaderName, &'static str),
    status: StatusCode,
    code: &str,
    description: &str,
) -> Response<AnyBody> {
    let mut response = failure(status, code, description);
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}

/// A failure of the service, or on the way to it.
pub fn upstream_failure(error: &Error) -> Response<AnyBody> {
    let (status, code) = status_of(error);
    let mut response = failure(status, error.oauth_code().unwrap_or(code), &error.to_string());
    if let Some(wait) = error.retry_after() {
        // Rounded up: a client that comes too early would only be told to wait.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// The status for an error, and the code if the service has sent none.
fn status_of(error: &Error) -> (StatusCode, &'static str) {
    // A status that is not an error is one whose body was no token response.
    let sent = error.http_status().filter(|status| *status >= 400);
    if let Some(status) = sent.and_then(|status| StatusCode::from_u16(status).ok())
        // That of a proxy, which is not the client's business.
        && error.kind() != Kind::Proxy
    {
        let code = match error.kind() {
            Kind::CredentialsRejected => "invalid_client",
            _ => "temporarily_unavailable",
        };
        return (status, code);
    }
    match error.kind() {
        Kind::CredentialsRejected => (StatusCode::BAD_REQUEST, "invalid_client"),
        Kind::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "temporarily_unavailable"),
        Kind::Timeout => (StatusCode::GATEWAY_TIMEOUT, "temporarily_unavailable"),
        Kind::Resolve | Kind::Connect | Kind::Tls | Kind::Proxy | Kind::Server | Kind::Protocol => {
            (StatusCode::BAD_GATEWAY, "temporarily_unavailable")
        }
        Kind::Pending => (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable"),
        Kind::InvalidArgument
        | Kind::Config
        | Kind::NoCredentials
        | Kind::Io
        | Kind::BufferTooSmall
        | Kind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "server_error"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_that_of_the_service() {
        let error = |kind, status: Option<u16>| {
            let error = Error::new(kind, "x");
            status_of(&status.map_or(error.clone(), |status| error.with_http_status(status))).0.as_u16()
        };
        for (kind, sent, status) in [
            (Kind::CredentialsRejected, Some(400), 400),
            (Kind::CredentialsRejected, Some(401), 401),
            (Kind::CredentialsRejected, None, 400),
            (Kind::RateLimited, Some(429), 429),
            (Kind::Server, Some(503), 503),
            (Kind::Protocol, Some(200), 502),
            (Kind::Proxy, Some(407), 502),
            (Kind::Connect, None, 502),
            (Kind::Timeout, None, 504),
            (Kind::Pending, None, 503),
            (Kind::Io, None, 500),
        ] {
            assert_eq!(error(kind, sent), status, "{kind:?} {sent:?}");
        }
    }
}
