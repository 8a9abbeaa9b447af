//! Requests to the API with the cached token, and GraphQL requests.
//!
//! - **The token is only sent to the origin of `api_url`.** A path is relative to `api_url`. An absolute URL, such
//!   as a `_links.href`, is accepted if its scheme, host and port are those of `api_url`. Redirects are not
//!   followed.
//! - **A response with any HTTP status is a success**: only the caller knows what a 404 means.
//! - **A rejected token is replaced once.** After a 401, or the 403 by which Amplience reports an expired token,
//!   the request is retried with another token, if there may be one: both statuses have other meanings too (a
//!   missing permission, another account's hub), so [replacements are paced](crate::token::rejection).
//! - **Each attempt has a valid token.** A token may expire during the delay between two attempts, so each attempt
//!   gets the token from the cache.
//! - **Requests are not duplicated.** A failed request is only retried if it cannot have reached the server, or if
//!   its method is idempotent (RFC 9110, 9.2.2). With these methods, a 429 or 503 with a `Retry-After` is
//!   retried after that time, within `timeout_ms`.

use crate::config::Options;
use crate::error::{Error, Kind, Phase, Result};
use crate::net::transport::{BodySink, Request, Response, retry_after};
use crate::net::url::Url;
use crate::oauth::retry::{self, Deadline};
use crate::sanitize::{as_word, redact_url};
use crate::sys::secret::{MaybeSecret, Secret};
use crate::token::Token;
use crate::token::cache::TokenCache;
use crate::token::rejection::is_about_token;
use serde::Deserialize;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// A request to the API.
#[derive(Clone, Copy, Debug)]
pub struct ApiRequest<'a> {
    /// `GET`, `POST`, …
    pub method: &'a str,
    /// A path relative to `api_url`, with its query, or an absolute URL of the same origin.
    pub path: &'a str,
    /// The media type of the body; required if there is one.
    pub content_type: Option<&'a str>,
    /// The body, empty for none.
    pub body: &'a [u8],
}

/// What a request may have in addition.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestOptions<'a> {
    /// Names and values of headers. They take precedence over those that the library adds by default. The values are
    /// not treated as secrets.
    pub headers: &'a [(&'a str, &'a str)],
    /// The time limit of the call, in place of `timeout_ms`.
    pub timeout: Option<Duration>,
}

/// The most headers that a request may add, and the most bytes of their names and values.
pub(crate) const MAX_HEADERS: usize = 64;
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// Headers that the library decides: they frame the request (RFC 9112), belong to one connection (RFC 9110, section
/// 7.6.1), or decide where it goes and as whom.
const RESERVED_HEADERS: &[&str] = &[
    "authorization",
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Sends a request with the cached token and returns the response, with any status.
pub fn request(cache: &TokenCache, call: &ApiRequest) -> Result<Response> {
    request_with(cache, call, &RequestOptions::default())
}

/// Like [`request`], with headers and a time limit of its own.
pub fn request_with(cache: &TokenCache, call: &ApiRequest, options: &RequestOptions) -> Result<Response> {
    send_with_token(cache, call, options, None)
}

/// Downloads a resource of any size and passes it to `sink` in pieces. The returned response has a body only if
/// its status is not 2xx. An interrupted download is not restarted.
pub fn download(cache: &TokenCache, path: &str, sink: &mut BodySink) -> Result<Response> {
    let call = ApiRequest { method: "GET", path, content_type: None, body: b"" };
    send_with_token(cache, &call, &RequestOptions::default(), Some(sink))
}

fn send_with_token(
    cache: &TokenCache,
    call: &ApiRequest,
    options: &RequestOptions,
    mut sink: Option<&mut BodySink>,
) -> Result<Response> {
    let Options { api_url, clock, timeout, log, .. } = cache.options();
    let _deliver = log.deliver_at_end();
    let url = resolve(api_url, call.path)?;
    validate(call)?;
    validate_headers(options.headers)?;
    let deadline = Deadline::after(clock, options.timeout.unwrap_or(*timeout));
    let mut rejected: Option<Response> = None;
    loop {
        let (token, response) =
            match send_with_retries(cache, call, options.headers, &url, deadline, sink.as_deref_mut())? {
                Ok(answered) => answered,
                // If no other token is available, the rejection is the response.
                Err(no_token) => return rejected.ok_or(no_token),
            };
        if !is_about_token(response.status, &response.body) {
            return Ok(response);
        }
        if token.is_permanent() {
            log.warning(|| {
                format!(
                    "the API rejected the personal access token (HTTP {}); {PERSONAL_TOKEN_CAUSES}, or it has no permission for this request",
                    response.status
                )
            });
            return Ok(response);
        }
        if rejected.is_some() || cache.replace(&token, deadline).is_none() {
            return Ok(response);
        }
        rejected = Some(response);
    }
}

/// Why a server rejects a personal access token, as the documentation of Amplience has it.
pub const PERSONAL_TOKEN_CAUSES: &str =
    "it was deleted, its user was removed from the organization, or an administrator has not approved it yet";

/// Sends a GraphQL request. `variables` is a JSON object, or `None`.
pub fn graphql(cache: &TokenCache, query: &str, variables: Option<&str>) -> Result<Response> {
    let variables = variables.unwrap_or("{}");
    // They are only checked and sent unchanged: parsing them into a `Value` is recursive, and limits their depth.
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(variables) {
        return Err(Error::invalid(format!("the GraphQL variables are not valid JSON: {error}"))
            .with_hint("pass a JSON object, or NULL"));
    }
    if !variables.trim_ascii_start().starts_with('{') {
        return Err(
            Error::invalid("the GraphQL variables are not a JSON object").with_hint("pass a JSON object, or NULL")
        );
    }
    let query = serde_json::Value::from(query);
    let body = format!("{{\"query\":{query},\"variables\":{variables}}}");
    let content_type = Some("application/json");
    request(cache, &ApiRequest { method: "POST", path: "/graphql", content_type, body: body.as_bytes() })
}

/// Creates a personal access token for the user of the credentials. It is only returned once, in
/// `data.createPersonalAccessToken.token` of the response.
pub fn create_personal_access_token(cache: &TokenCache, name: &str, organization: &str) -> Result<Response> {
    // The type of the input is not documented, so the values are inlined, as in the documented example. GraphQL
    // strings have the syntax of JSON strings.
    let text = |value: &str| serde_json::Value::from(value).to_string();
    let query = format!(
        "mutation {{ createPersonalAccessToken(input: {{name: {}, organizationId: {}}}) {{ id name token createdDate lastUsedDate }} }}",
        text(name),
        text(organization)
    );
    graphql(cache, &query, None)
}

/// The path of the next page of a HAL collection, from the path and the body of this one. `None` if this is the
/// last page, or not a collection.
///
/// Fails if this is another page than the requested one. So a caller that follows these paths never gets the same page
/// twice, even from a server that ignores the number.
pub fn next_page(path: &str, body: &[u8]) -> Result<Option<String>> {
    #[derive(Deserialize)]
    struct Collection {
        page: Page,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Page {
        number: u64,
        total_pages: u64,
    }
    let Ok(Collection { page }) = serde_json::from_slice(body) else { return Ok(None) };
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let (requested, kept): (Vec<_>, Vec<_>) =
        query.split('&').filter(|part| !part.is_empty()).partition(|part| part.starts_with("page="));
    let requested: Vec<u64> = requested.iter().filter_map(|part| part["page=".len()..].parse().ok()).collect();
    if let [requested] = requested[..]
        && requested != page.number
    {
        let message = format!("the API returned page {} of a collection, not page {requested}", page.number);
        return Err(Error::new(Kind::Protocol, message)
            .with_phase(Phase::Parse)
            .with_hint("check api_url, and that no cache or proxy ignores the query of a URL"));
    }
    let Some(next) = page.number.checked_add(1).filter(|next| *next < page.total_pages) else { return Ok(None) };
    let query: Vec<_> = kept.into_iter().map(str::to_owned).chain([format!("page={next}")]).collect();
    Ok(Some(format!("{path}?{}", query.join("&"))))
}

/// The absolute URL of a path. Fails if the token must not be sent there.
fn resolve(api_url: &Url, path: &str) -> Result<Url> {
    if path.is_empty() || !path.bytes().all(|byte| (b'!'..=b'~').contains(&byte) && byte != b'#') {
        return Err(Error::invalid(format!("invalid path {:?}", redact_url(path)))
            .with_hint("pass a path such as /v2/content/hubs, and percent-encode everything except visible ASCII"));
    }
    if !path.contains("://") || path.starts_with('/') {
        return Ok(api_url.append(path));
    }
    if let Some(url) = Url::parse(path).filter(|url| url.has_same_origin(api_url) && !url.has_user_info()) {
        return Ok(url);
    }
    let there = redact_url(path);
    Err(Error::invalid(format!("cannot send a request to {there}: the token is only sent to {api_url}"))
        .with_hint("pass a path, or set api_url to the URL of the API"))
}

fn validate(call: &ApiRequest) -> Result<()> {
    if call.method.is_empty() || !call.method.bytes().all(|byte| byte.is_ascii_uppercase()) {
        let message = match as_word(call.method) {
            Some(method) => format!("invalid method {method:?}"),
            None => "invalid method".to_owned(),
        };
        return Err(Error::invalid(message).with_hint("use GET, POST, …"));
    }
    match call.content_type {
        None if !call.body.is_empty() => Err(Error::invalid("the request has a body but no content_type")
            .with_hint("set content_type, or the header Content-Type")),
        Some(kind) if !kind.bytes().all(|byte| (b' '..=b'~').contains(&byte)) => {
            Err(Error::invalid("invalid content_type: it cannot be sent in a header").with_hint("use visible ASCII"))
        }
        _ => Ok(()),
    }
}

fn validate_headers(headers: &[(&str, &str)]) -> Result<()> {
    let size: usize = headers.iter().map(|(name, value)| name.len().saturating_add(value.len())).sum();
    if headers.len() > MAX_HEADERS || size > MAX_HEADER_BYTES {
        let message =
            format!("the request has more than {MAX_HEADERS} headers, or more than {MAX_HEADER_BYTES} bytes of them");
        return Err(Error::invalid(message).with_hint("send fewer headers"));
    }
    for (name, value) in headers {
        // A token of RFC 9110, section 5.6.2.
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_name) {
            return Err(Error::invalid("invalid name of a header")
                .with_hint("use letters, digits and hyphens, without a colon"));
        }
        // The name consists of visible ASCII characters, but may be long.
        let shown = as_word(name).unwrap_or("the header");
        if RESERVED_HEADERS.iter().any(|reserved| name.eq_ignore_ascii_case(reserved)) {
            return Err(Error::invalid(format!("{shown} cannot be set: the library sends this header itself"))
                .with_hint("leave it out"));
        }
        if !value.bytes().all(|byte| (b' '..=b'~').contains(&byte) || byte == b'\t') {
            return Err(Error::invalid(format!("invalid value of {shown}: it cannot be sent in a header"))
                .with_hint("use visible ASCII"));
        }
    }
    Ok(())
}

/// Sends the request, with retries. Also returns the token of the response. The inner error is that of the cache,
/// if there is no token.
fn send_with_retries(
    cache: &TokenCache,
    call: &ApiRequest,
    own_headers: &[(&str, &str)],
    url: &Url,
    deadline: Deadline,
    mut sink: Option<&mut BodySink>,
) -> Result<Result<(Arc<Token>, Response)>> {
    let Options { clock, retries, max_response_bytes, user_agent, .. } = cache.options();
    let idempotent = matches!(call.method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE");
    let mut headers: Vec<(Cow<'static, str>, MaybeSecret)> = vec![
        ("Accept".into(), "application/json, application/hal+json;q=0.9, */*;q=0.1".into()),
        ("User-Agent".into(), MaybeSecret::Public(user_agent.clone().into())),
    ];
    headers.extend(call.content_type.map(|kind| ("Content-Type".into(), MaybeSecret::Public(kind.to_owned().into()))));
    headers.retain(|(default, _)| !own_headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(default)));
    let public = |text: &str| MaybeSecret::Public(text.to_owned().into());
    headers.extend(own_headers.iter().map(|(name, value)| ((*name).to_owned().into(), public(value))));
    let mut request = Request {
        method: call.method.to_owned(),
        url: url.clone(),
        headers,
        body: Zeroizing::new(call.body.to_vec()),
        max_response_bytes: *max_response_bytes,
    };
    let others = request.headers.len();
    let transport = cache.transport()?;
    // The last response with a `Retry-After`, which is returned if there is no time left, or no token.
    let mut throttled = None;
    // Whether a part of a body was passed to the sink, which cannot be undone.
    let mut body_started = false;
    let result = retry::with_retries(clock, deadline, *retries, |_| {
        let token = match cache.get_before(deadline) {
            Ok(token) => token,
            Err(no_token) => return Ok(Err(no_token)),
        };
        request.headers.truncate(others);
        request.headers.push(("Authorization".into(), Secret::from(token.authorization()).into()));
        // Getting the token may have taken time.
        let left = deadline.remaining(clock);
        throttled = None;
        let reply = match &mut sink {
            None => transport.send(&request, left),
            Some(sink) => transport.send_streaming(&request, left, &mut |piece| {
                body_started = true;
                sink(piece)
            }),
        };
        let response = reply.map_err(|error| {
            let unsent = error.phase() < Phase::Send;
            let again = error.is_retryable() && (unsent || idempotent) && !body_started;
            error.with_retryable(again)
        })?;
        let wait = retry_after(&response, clock.now().wall / 1_000_000_000);
        if idempotent && matches!(response.status, 429 | 503) && wait.is_some() {
            throttled = Some((token, response));
            return Err(Error::new(Kind::RateLimited, "the API is rate limiting requests").with_retry_after(wait));
        }
        Ok(Ok((token, response)))
    });
    match (result, throttled) {
        (Err(_) | Ok(Err(_)), Some(throttled)) => Ok(Ok(throttled)),
        (result, _) => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_to_one_origin() {
        let api = Url::parse("https://api.example").unwrap();
        for (path, url) in [
            ("/v2/content/hubs?page=1", "https://api.example/v2/content/hubs?page=1"),
            ("v2/content/hubs", "https://api.example/v2/content/hubs"),
            ("https://api.example/v2", "https://api.example/v2"),
            ("https://API.example:443/v2", "https://API.example:443/v2"),
            ("//elsewhere.example/x", "https://api.example//elsewhere.example/x"),
            ("/x?next=https://elsewhere.example", "https://api.example/x?next=https://elsewhere.example"),
            ("@elsewhere.example/x", "https://api.example/@elsewhere.example/x"),
        ] {
            assert_eq!(resolve(&api, path).unwrap().as_str(), url);
        }
        for path in [
            "",
            "https://elsewhere.example/v2",
            "http://api.example/v2",
            "https://api.example:8443/v2",
            "https://api.example@elsewhere.example/v2",
            "https://user@api.example/v2",
            "https://api.example.elsewhere.example/",
            "ftp://api.example/",
            "/a b",
            "/a\r\nX: y",
            "/é",
            "/a#b",
        ] {
            assert_eq!(resolve(&api, path).unwrap_err().kind(), Kind::InvalidArgument, "{path}");
        }
    }

    #[test]
    fn a_rejected_path_shows_no_query() {
        let api = Url::parse("https://api.example").unwrap();
        for path in [
            "https://me:S3cret@elsewhere.example/v2?access_token=S3cret",
            "https://elsewhere.example/v2?access_token=S3cret",
            "https://api.example/v2?access_token=S3cret#x",
            "/v2?access_token=S3cret x",
            "/v2#S3cret",
        ] {
            let error = resolve(&api, path).unwrap_err().to_string();
            assert!(error.contains("/v2…") && !error.contains("S3cret"), "{error}");
        }
    }

    #[test]
    fn pages_are_walked_to_the_end() {
        let body = |number: u64, total: u64| {
            format!(
                r#"{{"_embedded":{{}},"page":{{"size":20,"totalElements":41,"totalPages":{total},"number":{number}}}}}"#
            )
        };
        let next = |path, number, total| next_page(path, body(number, total).as_bytes()).unwrap();
        assert_eq!(next("/hubs", 0, 3).unwrap(), "/hubs?page=1");
        assert_eq!(next("/hubs?size=20&page=1&sort=name", 1, 3).unwrap(), "/hubs?size=20&sort=name&page=2");
        assert_eq!(next("/hubs?page=2", 2, 3), None);
        assert_eq!(next("/hubs", 0, 0), None);
        assert_eq!(next("/hubs", u64::MAX, u64::MAX), None);
        assert_eq!(next("/hubs?page=x", 1, 3).unwrap(), "/hubs?page=2");
        assert_eq!(next_page("/hubs", b"{}").unwrap(), None);
        assert_eq!(next_page("/hubs", b"<html>").unwrap(), None);
        for (path, number, total) in [("/hubs?page=1", 0, 2), ("/hubs?size=1&page=1", 2, 2), ("/hubs?page=2", 1, 99)] {
            let error = next_page(path, body(number, total).as_bytes()).unwrap_err();
            assert_eq!(error.kind(), Kind::Protocol);
            assert!(error.to_string().contains(&format!("returned page {number} of")), "{error}");
        }
    }
}
