//! The method `CONNECT`: the request to a proxy, and its response.
//!
//! - Nothing is read beyond the head of a successful response: afterwards the stream leads to the server.
//! - The head is read as leniently as curl does: it may have any bytes, folded lines and interim responses.
//! - A response is limited in size. Of a failure, as much of the page is read as it takes to find its title.
//! - The buffers that held user names and passwords are wiped.
//!
//! By hand, because ureq's proxies do not percent-decode passwords, keep them in unwiped memory, and do not
//! say which of the two peers failed. The head is parsed by httparse.

use crate::net::proxy::ProxyUrl;
use crate::net::tcp::Stream;
use crate::net::transport::{Response, is_success, page_title};
use crate::sys::deadline::IoDeadline;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use std::io;
use std::time::Duration;
use zeroize::Zeroizing;

/// The maximum size of the head of a response, and of what is read of its page.
pub(super) const RESPONSE_LIMIT: usize = 16 * 1024;

/// The maximum number of headers in a response.
const MAX_HEADERS: usize = 1000;

/// How long the rest of a page is waited for: the response has already failed the call.
const PAGE_TIMEOUT: Duration = Duration::from_millis(500);

/// Why there is no response.
pub(super) enum ConnectError {
    /// The connection to the proxy failed.
    Io(io::Error),
    /// The response violates the protocol.
    Malformed(&'static str),
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        ConnectError::Io(error)
    }
}

/// Requests a connection to `server`, in the form `host:port`, and reads the response. Its body is what arrived with
/// the head of a success, or the beginning of the page that explains a failure.
pub(super) fn request_connection(
    stream: &mut dyn Stream,
    proxy: &ProxyUrl,
    server: &str,
    user_agent: Option<&str>,
    deadline: IoDeadline,
) -> Result<Response, ConnectError> {
    let credentials = match &proxy.userinfo {
        Some((user, password)) => basic_credentials(user.expose(), password.expose()),
        None => Zeroizing::default(),
    };
    let (before, after) = match credentials.is_empty() {
        true => ("", ""),
        false => ("Proxy-Authorization: Basic ", "\r\n"),
    };
    let start = format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n");
    let agent = user_agent.map_or_else(String::new, |agent| format!("User-Agent: {agent}\r\n"));
    // Joined at once: a buffer that grows leaves copies of the password behind.
    let request = [start.as_bytes(), before.as_bytes(), &credentials, after.as_bytes(), agent.as_bytes(), b"\r\n"];
    stream.write_all(&Zeroizing::new(request.concat()))?;
    stream.flush()?;

    let mut buffer = vec![0; RESPONSE_LIMIT];
    let (mut start, mut filled) = (0, 0);
    let mut response = 'head: loop {
        if filled == buffer.len() {
            return Err(ConnectError::Malformed("its response to CONNECT is too large"));
        }
        let count = read_some(stream, &mut buffer, &mut filled)?;
        if count == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        // Empty lines before a response do not count.
        let skip =
            |start| start + buffer[start..filled].iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        start = skip(start);
        if !is_worth_parsing(&buffer[start..filled], count) {
            continue;
        }
        while let Some((length, response)) = parse_head(&buffer[start..filled])? {
            start += length;
            let is_interim = (100..200).contains(&response.status) && response.status != 101;
            if !is_interim {
                break 'head response;
            }
            start = skip(start);
        }
    };
    if !is_success(response.status) && has_page(&response, &buffer[start..filled]) {
        stream.set_deadline(deadline.min(IoDeadline::after(PAGE_TIMEOUT)));
        let announced = response.header("content-length").and_then(|length| length.trim().parse::<usize>().ok());
        let end = announced.map_or(buffer.len(), |length| buffer.len().min(start.saturating_add(length)));
        let mut count = filled - start;
        while filled < end && !ends_title(&buffer[start..filled], count) {
            // The page only adds to the message.
            match read_some(stream, &mut buffer[..end], &mut filled) {
                Ok(more) if more > 0 => count = more,
                _ => break,
            }
        }
    }
    response.body = buffer[start..filled].to_vec().into();
    Ok(response)
}

fn read_some(stream: &mut dyn Stream, buffer: &mut [u8], filled: &mut usize) -> io::Result<usize> {
    let count = stream.read(&mut buffer[*filled..])?;
    *filled += count;
    Ok(count)
}

/// Whether the head of a response may be complete, or can be seen not to be one, with the last `count` bytes: they end its
/// first line or an empty one, or it has just begun. Parsing more often would take quadratic time for one that arrives
/// byte by byte.
fn is_worth_parsing(head: &[u8], count: usize) -> bool {
    const BEGINNING: usize = 16;
    let arrived = head.len().saturating_sub(count)..head.len();
    (1..=BEGINNING).contains(&head.len())
        || arrived.filter(|at| head[*at] == b'\n').any(|at| {
            let line = head[..at].rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
            line.len() == at || line.iter().all(|byte| *byte == b'\r')
        })
}

/// Whether a page has a title that ends in the last `count` bytes.
fn ends_title(page: &[u8], count: usize) -> bool {
    const END: &[u8] = b"</title";
    let last = &page[page.len().saturating_sub(count + END.len() - 1)..];
    last.windows(END.len()).any(|part| part.eq_ignore_ascii_case(END)) && page_title(page, &[]).is_some()
}

/// Parses the head of a response; `None` if it is not complete yet.
fn parse_head(bytes: &[u8]) -> Result<Option<(usize, Response)>, ConnectError> {
    let mut parser = httparse::ParserConfig::default();
    parser
        .allow_spaces_after_header_name_in_responses(true)
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_multiple_spaces_in_response_status_delimiters(true)
        .ignore_invalid_headers_in_responses(true);
    let mut headers = vec![httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    match parser.parse_response(&mut head, bytes) {
        Ok(httparse::Status::Partial) => Ok(None),
        Ok(httparse::Status::Complete(length)) => {
            let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
            let headers = head.headers.iter().map(|header| (header.name.to_owned(), text(header.value))).collect();
            let status = head.code.unwrap_or_default();
            Ok(Some((length, Response { status, headers, body: Zeroizing::default() })))
        }
        Err(_) => Err(ConnectError::Malformed("its response is not HTTP")),
    }
}

/// Whether a response comes with a page. A tunnel has no body (RFC 9110, section 9.3.6), whatever the head says, but
/// a web server that does not know what it was asked for sends one.
pub(super) fn has_page(response: &Response, beginning: &[u8]) -> bool {
    let says = |name, what: &str| response.header(name).is_some_and(|value| value.to_ascii_lowercase().contains(what));
    let is_empty = response.header("content-length").is_some_and(|length| length.trim() == "0");
    beginning.trim_ascii_start().starts_with(b"<") || (says("content-type", "html") && !is_empty)
}

/// The authentication schemes that a response offers, as they are spelled there.
pub(super) fn offered_schemes(response: &Response) -> Vec<String> {
    let names: &[&str] = match response.status {
        401 => &["proxy-authenticate", "www-authenticate"],
        _ => &["proxy-authenticate"],
    };
    let is_offer = |name: &str| names.iter().any(|have| name.eq_ignore_ascii_case(have));
    let mut schemes: Vec<String> = Vec::new();
    for (_, value) in response.headers.iter().filter(|(name, _)| is_offer(name)) {
        // A value may have several challenges, each with parameters: `Basic realm="x", Digest realm="y", nonce="z"`.
        for part in value.split(',') {
            let name = part.split_whitespace().next().unwrap_or_default();
            let is_scheme = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            if is_scheme && name.len() <= 20 && !schemes.iter().any(|have| have.eq_ignore_ascii_case(name)) {
                schemes.push(name.to_owned());
            }
        }
    }
    schemes
}

/// The value of `Basic` authentication (RFC 7617). Both buffers are allocated once and wiped.
fn basic_credentials(user: &[u8], password: &[u8]) -> Zeroizing<Vec<u8>> {
    let plain = Zeroizing::new([user, b":", password].concat());
    let mut encoded = Zeroizing::new(vec![0; plain.len().div_ceil(3) * 4]);
    // The buffer has the exact length, so that encoding cannot fail.
    let length = BASE64_STANDARD.encode_slice(&*plain, &mut encoded).unwrap_or_default();
    encoded.truncate(length);
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_credentials_are_padded() {
        for (user, password, encoded) in
            [("", "", "Og=="), ("f", "", "Zjo="), ("f", "o", "Zjpv"), ("\u{ff}?", "~", "w78/On4=")]
        {
            assert_eq!(*basic_credentials(user.as_bytes(), password.as_bytes()), encoded.as_bytes());
        }
    }

    /// The lengths at which a text that arrives byte by byte is parsed.
    fn parsed(text: &str) -> Vec<usize> {
        (17..=text.len()).filter(|end| is_worth_parsing(&text.as_bytes()[..*end], 1)).collect()
    }

    #[test]
    fn a_response_that_arrives_byte_by_byte_is_parsed_a_few_times() {
        let head = "HTTP/1.1 200 OK x\r\nA: b\r\nC: d\r\r\n\r\r\n";
        assert_eq!(parsed(head), [19, head.len()]);
        assert_eq!(parsed("HTTP/1.1 200 OK x\nA: b\n\n"), [18, 24]);
        assert_eq!(parsed(&"a\n".repeat(5000)), [0; 0]);
        assert!(is_worth_parsing(head.as_bytes(), head.len()) && is_worth_parsing(b"\x15\x03\x01", 1));

        let page = "<title>x</TITLE></title";
        let ends: Vec<_> = (1..=page.len()).filter(|end| ends_title(&page.as_bytes()[..*end], 1)).collect();
        assert_eq!(ends, [15, page.len()]);
        assert!(ends_title(page.as_bytes(), page.len()) && !ends_title(b"</title></title", 15));
    }

    #[test]
    fn schemes_are_found_in_one_header_or_several() {
        for (values, schemes) in [
            (&["Negotiate", "NTLM"][..], &["Negotiate", "NTLM"][..]),
            (&["Digest realm=\"a b\", nonce=\"c\", qop=\"auth\""], &["Digest"]),
            (&["negotiate, Basic realm=\"x\", NTLM TlRM="], &["negotiate", "Basic", "NTLM"]),
            (&["Basic realm=x", "basic realm=y"], &["Basic"]),
            (&["", ",", "\u{fffd}", "a=b"], &[]),
        ] {
            let headers = values.iter().map(|value| ("Proxy-Authenticate".to_owned(), (*value).to_owned())).collect();
            let response = Response { status: 407, headers, body: Zeroizing::default() };
            assert_eq!(offered_schemes(&response), schemes);
        }
    }
}
