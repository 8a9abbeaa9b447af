//! The interface to an HTTP client, [`Transport`], and what all its users read of a response.
//!
//! [`crate::net::http::HttpTransport`] implements it with sockets, an application can set its own function,
//! and tests use closures. A transport sends one request once, does not follow redirects or retry, and returns
//! within the timeout. A response with any HTTP status is a success: the caller interprets the status.

use crate::error::{Error, Kind, Phase, Result};
use crate::net::url::{Url, form_decode};
use crate::sanitize::sanitize;
use crate::sys::secret::{MaybeSecret, Secret};
use std::borrow::Cow;
use std::time::Duration;
use zeroize::Zeroizing;

pub use crate::net::http_date::parse_http_date;

/// One request.
#[derive(Debug)]
pub struct Request {
    /// `GET`, `POST`, …
    pub method: String,
    /// The absolute URL. It never contains a secret.
    pub url: Url,
    /// Names and values. `Authorization` is the only secret value.
    pub headers: Vec<(Cow<'static, str>, MaybeSecret)>,
    /// The body; empty for none. Wiped when dropped, because it may contain the client secret.
    pub body: Zeroizing<Vec<u8>>,
    /// The maximum size of the response body in bytes. A larger one is an error of [`Kind::Protocol`].
    pub max_response_bytes: usize,
}

impl Request {
    /// The secrets that it carries: the token in `Authorization`, and the client secret in the form of a token request.
    pub(crate) fn secrets(&self) -> Vec<Secret> {
        let token = self.headers.iter().filter_map(|(_, value)| match value {
            MaybeSecret::Secret(value) => {
                Some(value.expose().split_once(' ').map_or(value.clone(), |(_, token)| token.into()))
            }
            MaybeSecret::Public(_) => None,
        });
        let in_form = self.body.split(|byte| *byte == b'&').filter_map(|part| part.strip_prefix(b"client_secret="));
        let in_form = in_form.filter_map(|value| std::str::from_utf8(&form_decode(value)).ok().map(Secret::from));
        token.chain(in_form).collect()
    }
}

/// One response.
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// Names (in any case) and values, in the order in which they were received.
    pub headers: Vec<(String, String)>,
    /// The whole body. Wiped when dropped, because it may contain a token.
    pub body: Zeroizing<Vec<u8>>,
}

impl Response {
    /// The value of the first header with this name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// The longest `Retry-After` that is accepted with a status for which it is defined (RFC 9110, section 10.2.3, and
/// RFC 6585, section 4); a longer one counts as this.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest with any other status: as long as the longest backoff. A rejected request must not silence a client
/// for a day.
const MAX_UNDEFINED_RETRY_AFTER: Duration = Duration::from_secs(60);

/// The delay that a response asks for: `Retry-After` as seconds or as a date. A date is compared with the
/// server's own `Date` if there is one, because its clock may differ from the local one; else with `wall`, the
/// local time in Unix seconds.
pub fn retry_after(response: &Response, wall: i64) -> Option<Duration> {
    let text = response.header("retry-after")?.trim();
    let seconds = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number that is too large for the type counts as the longest.
        text.parse().unwrap_or(u64::MAX)
    } else {
        let now = response.header("date").and_then(parse_http_date).unwrap_or(wall);
        u64::try_from(parse_http_date(text)?.checked_sub(now)?).unwrap_or(0)
    };
    let longest = match response.status {
        429 | 503 | 300..=399 => MAX_RETRY_AFTER,
        _ => MAX_UNDEFINED_RETRY_AFTER,
    };
    Some(Duration::from_secs(seconds).min(longest))
}

/// The title of an HTML page, or of the beginning of one: one line that is safe to show, without these secrets. `None`
/// if it has none.
pub fn page_title(page: &[u8], secrets: &[&str]) -> Option<String> {
    let find = |text: &[u8], what: &[u8]| text.windows(what.len()).position(|have| have.eq_ignore_ascii_case(what));
    let open = &page[find(page, b"<title")?..];
    let title = &open[open.iter().position(|byte| *byte == b'>')? + 1..];
    let title = String::from_utf8_lossy(&title[..find(title, b"</title")?]);
    let title = sanitize(&title.split_whitespace().collect::<Vec<_>>().join(" "), secrets);
    (!title.is_empty()).then_some(title)
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Response({}, {} bytes)", self.status, self.body.len())
    }
}

/// Receives the body of a response in pieces; returns `false` to stop.
pub type BodySink<'a> = dyn FnMut(&[u8]) -> bool + 'a;

/// An HTTP client. Several threads may call it at once.
pub trait Transport: Send + Sync {
    /// Sends the request and returns the response, or an error, within `timeout`.
    fn send(&self, request: &Request, timeout: Duration) -> Result<Response>;

    /// Like [`Transport::send`], but passes the body of a success (2xx), of any size, to `sink`, and returns a
    /// response without a body. This default implementation reads the whole body into memory first.
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

/// Whether a status is 2xx.
pub fn is_success(status: u16) -> bool {
    (200..300).contains(&status)
}

/// The error for a sink that returned `false`.
pub fn sink_error() -> Error {
    Error::new(Kind::Io, "the application did not accept the whole response")
        .with_phase(Phase::ReceiveBody)
        .with_hint("see the application's own messages; its disk may be full")
}

impl<F: Fn(&Request, Duration) -> Result<Response> + Send + Sync> Transport for F {
    fn send(&self, request: &Request, timeout: Duration) -> Result<Response> {
        self(request, timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(headers: &[(&str, &str)]) -> Response {
        Response {
            status: 503,
            headers: headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            body: Vec::new().into(),
        }
    }

    #[test]
    fn the_title_of_a_page_is_one_line() {
        for (page, title) in [
            (&b"<html><head><title>ERROR</title>"[..], Some("ERROR")),
            (b"<TITLE lang=\"en\">\r\n  Not \t allowed\n</Title>", Some("Not allowed")),
            (b"<title>Zugriff verweigert f\xfcr Sie</title>", Some("Zugriff verweigert f\u{fffd}r Sie")),
            (b"<title>half", None),
            (b"<title>", None),
            (b"<title", None),
            (b"<title> </title>", None),
            (b"", None),
        ] {
            assert_eq!(page_title(page, &[]).as_deref(), title);
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let at = 784_111_777;
        for (headers, seconds) in [
            (&[("Retry-After", "7")][..], Some(7)),
            (&[("retry-after", " 0 ")], Some(0)),
            (&[("Retry-After", "\t7 ")], Some(7)),
            (&[("Retry-After", "99999999999999999999999999")], Some(86_400)),
            (&[("Retry-After", "+7")], None),
            (&[("Retry-After", "")], None),
            (&[("Retry-After", "Sunday,  06-Nov-94  08:49:47  GMT")], Some(10)),
            (&[("Retry-After", "Sun Nov  6 08:49:47 1994"), ("Date", "Sun Nov  6 08:49:45 1994")], Some(2)),
            (&[("Retry-After", "Sun, 06 Nov 1994 08:49:47 GMT")], Some(10)),
            (&[("Retry-After", "Sunday, 06-Nov-94 08:49:47 GMT")], Some(10)),
            (&[("Retry-After", "Sun Nov  6 08:49:47 1994")], Some(10)),
            (&[("Retry-After", "Sun, 06 Nov 1994 08:49:27 GMT")], Some(0)),
            (&[("Retry-After", "Sun, 06 Nov 1994 08:49:47 GMT"), ("Date", "Sun, 06 Nov 1994 08:49:45 GMT")], Some(2)),
            (&[("Retry-After", "99999999999")], Some(86_400)),
            (&[("Retry-After", "-1")], None),
            (&[("Retry-After", "soon")], None),
            (&[], None),
        ] {
            assert_eq!(retry_after(&response(headers), at), seconds.map(Duration::from_secs), "{headers:?}");
        }
    }

    #[test]
    fn a_long_retry_after_counts_only_where_it_is_defined() {
        for headers in [[("Retry-After", "3600")], [("Retry-After", "Thu, 01 Jan 1970 01:00:00 GMT")]] {
            for (status, seconds) in [(429, 3600), (503, 3600), (301, 3600), (400, 60), (403, 60), (500, 60), (200, 60)]
            {
                let response = Response { status, ..response(&headers) };
                assert_eq!(retry_after(&response, 0), Some(Duration::from_secs(seconds)), "{status}");
            }
        }
    }
}
