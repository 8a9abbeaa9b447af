//! The proxy: requests to the APIs, with the token added.
//!
//! - **Where a request goes** is decided by `api_url` alone. Of the request's target only path and query count, they must
//!   be those of an API that is proxied, and dots that would lead out of it are refused.
//! - **Who may use it**: a caller with the ticket, with a token that this server handed out (the official SDK sends that),
//!   or of the same user on the Unix socket.
//! - **Bodies are streamed** in both directions. Only a request body that is small is read before it is sent, so that it
//!   can be sent again.
//! - **A rejected token** is replaced and the request repeated, once, by the library's own judgement, if the body was
//!   small. A rejected request was not executed, whatever its method is.
//! - **Headers of one connection** (RFC 9110, 7.6.1) are not passed on, and each message is framed anew, so that two
//!   parsers cannot disagree about where it ends. No redirect is followed. Headers that permit web pages to read a
//!   response are removed: this is no server for browsers.

use super::answer::{failure, failure_with, upstream_failure};
use super::body::{AnyBody, BoxError, InFlight, RequestBodyError, Resumed, Timed, full};
use super::links::Rewriter;
use super::{Caller, Server};
use amp_token::error::{Error, Kind};
use amp_token::token::Token;
use amp_token::token::rejection::is_about_token;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{
    ACCEPT_ENCODING, ALLOW, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST,
    HeaderMap, HeaderName, HeaderValue, LOCATION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, RANGE, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE, VIA, WWW_AUTHENTICATE,
};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Uri};
use std::error::Error as StdError;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::timeout;

/// The path of the Content Management API.
const CONTENT: &str = "/v2/content";

/// The path of the GraphQL API.
const GRAPHQL: &str = "/graphql";

/// A request body up to this size is read before it is sent, and can be sent twice.
const SMALL_BODY: u64 = 64 * 1024;

/// The largest request body. The APIs take JSON, and the largest is one for a bulk operation.
const LARGEST_BODY: usize = 256 * 1024 * 1024;

/// How much of a 403 is read to see what it is about.
const JUDGED: usize = 16 * 1024;

/// How long a body may pause.
const IDLE: Duration = Duration::from_secs(60);

/// The time for sending a body that is streamed and receiving the head of the response. The service itself ends a request
/// after 10 s.
const STREAM_TIMEOUT: Duration = Duration::from_secs(600);

/// Headers that are about one connection.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Whether this path is one of an API.
pub fn is_proxied(path: &str) -> bool {
    path == GRAPHQL || path.strip_prefix(CONTENT).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Passes a request on and returns the response.
pub async fn respond(
    server: &Server,
    caller: Caller,
    base: &str,
    in_flight: InFlight,
    request: Request<Incoming>,
) -> Response<AnyBody> {
    let (mut parts, body) = request.into_parts();
    if let Some(refused) = refuse(server, caller, &parts) {
        return refused;
    }
    let Some(uri) = server.api_uri(&parts.uri) else {
        return failure(StatusCode::BAD_REQUEST, "invalid_request", "the path cannot be sent to the API");
    };
    let length = parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > LARGEST_BODY as u64) {
        return too_large();
    }
    let limited = Timed::new(Limited::new(body, LARGEST_BODY), IDLE, None);
    let is_small = limited.is_end_stream() || length.is_some_and(|length| length <= SMALL_BODY);
    let mut body = if is_small {
        match timeout(server.timeout, limited.collect()).await {
            Ok(Ok(body)) => ToSend::Small(body.to_bytes()),
            Ok(Err(_)) => return failure(StatusCode::BAD_REQUEST, "invalid_request", "the body is not complete"),
            Err(_) => return failure(StatusCode::REQUEST_TIMEOUT, "invalid_request", "the body did not arrive"),
        }
    } else {
        ToSend::Stream(Some(limited.map_err(|error| RequestBodyError(error).into()).boxed_unsync()))
    };
    strip(&mut parts.headers);
    for name in [HOST, CONTENT_LENGTH, EXPECT] {
        parts.headers.remove(name);
    }
    if server.rewrite_links {
        // What is compressed or a part cannot be rewritten.
        parts.headers.remove(RANGE);
        parts.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    parts.headers.append(VIA, HeaderValue::from_static("1.1 amp-token"));
    let mut token = match server.tokens.get().await {
        Ok(token) => token,
        Err(error) => return upstream_failure(&error),
    };
    let mut is_first = true;
    loop {
        let response = match send(server, &parts, &uri, &token, &mut body).await {
            Ok(response) => response,
            Err(refused) => return refused,
        };
        let (head, start, rest) = judge(response).await;
        if is_first && body.is_repeatable() && is_about_token(head.status.as_u16(), &start) && !token.is_permanent() {
            let status = head.status.as_u16();
            if let Some(other) = server.tokens.replace(Arc::clone(&token), status, start.to_vec()).await {
                server.metrics.repeated.inc();
                (token, is_first) = (other, false);
                continue;
            }
        }
        let start = (!start.is_empty()).then_some(start);
        return pass_on(server, &parts.method, base, head, Resumed { start, rest }, in_flight);
    }
}

/// The response to a request that is not passed on.
fn refuse(server: &Server, caller: Caller, parts: &Parts) -> Option<Response<AnyBody>> {
    if parts.method == Method::CONNECT || parts.method == Method::TRACE {
        // A TRACE would show the token that was added.
        return Some(failure(StatusCode::METHOD_NOT_ALLOWED, "invalid_request", "this method is not passed on"));
    }
    if parts.uri.path() == GRAPHQL && parts.method != Method::POST {
        let allow = (ALLOW, "POST");
        return Some(failure_with(allow, StatusCode::METHOD_NOT_ALLOWED, "invalid_request", "use POST"));
    }
    let mut sent = parts.headers.get_all(AUTHORIZATION).iter();
    let is_known = match (sent.next(), sent.next()) {
        (None, _) => caller == Caller::SameUser,
        (Some(value), None) => {
            bearer(value.as_bytes()).is_some_and(|sent| server.ticket.is(sent) || server.tokens.was_handed_out(sent))
        }
        // Two of them are one too many.
        (Some(_), Some(_)) => false,
    };
    if !is_known {
        let description = "send the ticket of this amp-token serve, or a token that it has handed out, \
                           as Authorization: Bearer ...";
        let challenge = (WWW_AUTHENTICATE, "Bearer");
        return Some(failure_with(challenge, StatusCode::UNAUTHORIZED, "invalid_client", description));
    }
    None
}

fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

fn too_large() -> Response<AnyBody> {
    failure(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request", "the body has more than 256 MiB")
}

/// The path and query of a request, if they lead to where they seem to.
pub fn checked_path(uri: &Uri) -> Option<&str> {
    let target = uri.path_and_query()?.as_str();
    // The server, or a proxy before it, may decode a path before it removes dots, and take a backslash for a slash.
    let path = uri.path().replace("%2e", ".").replace("%2E", ".").replace('\\', "/").replace("%5c", "/");
    let path = path.replace("%5C", "/").replace("%2f", "/").replace("%2F", "/");
    (!path.split('/').any(|segment| segment == "." || segment == "..")).then_some(target)
}

/// The body of a request.
enum ToSend {
    Small(Bytes),
    /// `None` when it was sent.
    Stream(Option<AnyBody>),
}

impl ToSend {
    fn is_repeatable(&self) -> bool {
        matches!(self, ToSend::Small(_))
    }
}

/// Sends a request with this token; the error is a response too.
async fn send(
    server: &Server,
    parts: &Parts,
    uri: &Uri,
    token: &Token,
    body: &mut ToSend,
) -> Result<Response<Incoming>, Response<AnyBody>> {
    let Ok(mut authorization) = HeaderValue::from_str(token.authorization()) else {
        let error = Error::new(Kind::Protocol, "the token cannot be sent in a header");
        return Err(upstream_failure(&error));
    };
    authorization.set_sensitive(true);
    let limit = if body.is_repeatable() { server.timeout } else { STREAM_TIMEOUT };
    let host = server.api_url.host();
    let mut is_first = true;
    loop {
        let next = match body {
            ToSend::Small(bytes) => full(bytes.clone()),
            ToSend::Stream(stream) => stream.take().unwrap_or_else(|| full(Bytes::new())),
        };
        let mut request = Request::new(next);
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = parts.headers.clone();
        request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        match timeout(limit, server.api.request(request)).await {
            Ok(Ok(response)) => {
                server.metrics.proxied(Some(response.status().as_u16()));
                return Ok(response);
            }
            // The API has closed a connection that was kept, and the request crossed that.
            Ok(Err(error))
                if is_first && body.is_repeatable() && is_idempotent(&parts.method) && is_disconnect(&error) =>
            {
                is_first = false;
            }
            Ok(Err(error)) => {
                server.metrics.proxied(None);
                return Err(failed_request(&error, host));
            }
            Err(_) => {
                server.metrics.proxied(None);
                let message = format!("{host} sent no response within {} s", limit.as_secs_f32());
                let error = Error::new(Kind::Timeout, message).with_hint("try again later, or raise timeout_ms");
                return Err(upstream_failure(&error));
            }
        }
    }
}

/// RFC 9110, 9.2.2.
fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE].contains(method)
}

fn is_disconnect(error: &hyper_util::client::legacy::Error) -> bool {
    let is_reset = |error: &std::io::Error| {
        matches!(error.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe)
    };
    !error.is_connect()
        && (find::<hyper::Error>(error).is_some_and(hyper::Error::is_incomplete_message)
            || find::<std::io::Error>(error).is_some_and(is_reset))
}

/// The response for a request that could not be sent, or has no response.
fn failed_request(error: &(dyn StdError + 'static), host: &str) -> Response<AnyBody> {
    if find::<LengthLimitError>(error).is_some() {
        return too_large();
    }
    if let Some(error) = find::<RequestBodyError>(error) {
        return failure(StatusCode::BAD_REQUEST, "invalid_request", &error.to_string());
    }
    // An error of the library says which part of the way failed, and what to do.
    match find::<Error>(error) {
        Some(error) => upstream_failure(error),
        None => {
            let message = format!("the request to {host} failed: {}", innermost(error));
            upstream_failure(&Error::new(Kind::Connect, message))
        }
    }
}

/// An error of this type among the causes of another.
fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        // The library passes its own errors through those of the system.
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let found = error.downcast_ref().or_else(|| inner?.downcast_ref());
        if found.is_some() {
            return found;
        }
        next = error.source();
    }
    None
}

fn innermost(mut error: &(dyn StdError + 'static)) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Reads as much of a response as it takes to see whether it is about the token.
async fn judge(response: Response<Incoming>) -> (hyper::http::response::Parts, Bytes, Incoming) {
    let (head, mut body) = response.into_parts();
    let mut start = Vec::new();
    let length = body.size_hint().exact();
    if head.status == StatusCode::FORBIDDEN && length.is_none_or(|length| length <= JUDGED as u64) {
        while start.len() < JUDGED
            && let Ok(Some(Ok(frame))) = timeout(IDLE, body.frame()).await
            && let Ok(data) = frame.into_data()
        {
            start.extend_from_slice(&data);
        }
    }
    (head, start.into(), body)
}

/// Turns a response of the API into one of this server.
fn pass_on(
    server: &Server,
    method: &Method,
    base: &str,
    mut head: hyper::http::response::Parts,
    body: Resumed<Incoming>,
    in_flight: InFlight,
) -> Response<AnyBody> {
    strip(&mut head.headers);
    let foreign: Vec<_> =
        head.headers.keys().filter(|name| name.as_str().starts_with("access-control-")).cloned().collect();
    foreign.iter().for_each(|name| drop(head.headers.remove(name)));
    head.headers.append(VIA, HeaderValue::from_static("1.1 amp-token"));
    head.version = hyper::Version::HTTP_11;
    let body = Timed::new(body, IDLE, Some(in_flight));
    if !server.rewrite_links {
        return Response::from_parts(head, body.boxed_unsync());
    }
    let from = server.api_url.as_str();
    let moved = head.headers.get(LOCATION).and_then(|location| location.to_str().ok()?.strip_prefix(from));
    if let Some(rest) = moved.filter(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']))
        && let Ok(location) = HeaderValue::from_str(&format!("{base}{rest}"))
    {
        head.headers.insert(LOCATION, location);
    }
    let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_whole = head.status != StatusCode::PARTIAL_CONTENT && method != Method::HEAD;
    if !is_whole
        || head.headers.contains_key(CONTENT_ENCODING)
        || !(kind == "application/json" || kind.ends_with("+json"))
    {
        return Response::from_parts(head, body.boxed_unsync());
    }
    for name in [CONTENT_LENGTH, HeaderName::from_static("content-digest"), HeaderName::from_static("content-md5")] {
        head.headers.remove(name);
    }
    let body = Rewritten { body, rewriter: Rewriter::new(from, base), has_ended: false };
    Response::from_parts(head, body.boxed_unsync())
}

/// Removes what is about one connection.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// A body with other links.
struct Rewritten<B> {
    body: B,
    rewriter: Rewriter,
    has_ended: bool,
}

impl<B: Body<Data = Bytes, Error = BoxError> + Unpin> Body for Rewritten<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            if self.has_ended {
                return Poll::Ready(None);
            }
            let mut output = Vec::new();
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        output.reserve(data.len());
                        self.rewriter.write(&data, &mut output);
                    }
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    self.has_ended = true;
                    self.rewriter.finish(&mut output);
                }
            }
            if !output.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(output.into()))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_apis_are_proxied() {
        for (path, proxied) in [
            ("/v2/content/hubs", true),
            ("/v2/content", true),
            ("/graphql", true),
            ("/v2/contents", false),
            ("/graphql/", false),
            ("/v2/", false),
            ("/", false),
        ] {
            assert_eq!(is_proxied(path), proxied, "{path}");
        }
    }

    #[test]
    fn a_path_does_not_lead_out_of_its_api() {
        for (uri, is_kept) in [
            ("/v2/content/hubs?a=../b", true),
            ("/v2/content/a..b/.c/d.", true),
            ("/v2/content//x", true),
            ("/v2/content/../../graphql", false),
            ("/v2/content/%2e%2E/x", false),
            ("/v2/content/.%2e", false),
            ("/v2/content/x%2f..%2fy", false),
            ("/v2/content/..%5cx", false),
            ("/v2/content/./x", false),
        ] {
            assert_eq!(checked_path(&uri.parse().unwrap()).is_some(), is_kept, "{uri}");
        }
    }

    #[test]
    fn headers_of_a_connection_are_removed() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Private"),
            ("connection", "te"),
            ("x-private", "1"),
            ("te", "trailers"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("upgrade", "h2c"),
            ("x-kept", "1"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-kept"]);
    }
}
