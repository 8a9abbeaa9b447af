//! HTTP/1.1 for a server: parses requests and formats the heads of responses.
//!
//! The emulator has its own HTTP code, over blocking sockets, because many faults violate HTTP on purpose:
//! resets, half bodies, endless headers. With blocking sockets each fault is a few writes; server libraries do
//! not allow them.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::time::SystemTime;

use serde::Serialize;
use time::OffsetDateTime;

const MAX_HEAD: usize = 64 << 10;
const MAX_HEADERS: usize = 100;
const MAX_BODY: usize = 16 << 20;

/// One request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The method, such as `POST`.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The part after `?`, not decoded; empty if there is none.
    pub query: String,
    /// The header lines in order; names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, after removal of any chunked encoding.
    pub body: Vec<u8>,
    pub(crate) keep_alive: bool,
}

impl Request {
    /// Returns the value of the first header with this name; case does not matter.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find(|(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Returns the decoded value of a query parameter.
    pub(crate) fn query_parameter(&self, name: &str) -> Option<String> {
        let mut pairs = form_urlencoded::parse(self.query.as_bytes());
        pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }
}

/// A response before it is sent.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn empty(status: u16) -> Response {
        Response { status, headers: Vec::new(), body: Vec::new() }
    }

    pub fn json(status: u16, body: &impl Serialize) -> Response {
        let body = serde_json::to_vec(body).expect("responses are plain JSON values");
        Response { body, ..Response::empty(status) }.with("Content-Type", "application/json")
    }

    pub fn with(mut self, name: &str, value: &str) -> Response {
        self.headers.retain(|(header, _)| !header.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Formats the status line and the headers, including the empty line.
    pub fn head(&self, date: SystemTime, keep_alive: bool) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason_phrase(self.status));
        let length = self.body.len();
        let connection = if keep_alive { "keep-alive" } else { "close" };
        for (name, value) in &self.headers {
            write!(head, "{name}: {value}\r\n").expect("writing to a String cannot fail");
        }
        let date = http_date(date);
        write!(head, "Date: {date}\r\nContent-Length: {length}\r\nConnection: {connection}\r\n\r\n")
            .expect("writing to a String cannot fail");
        head.into_bytes()
    }
}

fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        302 => "Found",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Other",
    }
}

/// Formats a time for a `Date` or `Retry-After` header: `Thu, 01 Jan 1970 00:00:00 GMT`.
#[must_use]
pub fn http_date(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    let (weekday, month) = (time.weekday().to_string(), time.month().to_string());
    let (hour, minute, second) = time.to_hms();
    let (day, year) = (time.day(), time.year());
    format!("{}, {day:02} {} {year:04} {hour:02}:{minute:02}:{second:02} GMT", &weekday[..3], &month[..3])
}

/// Reads the next request. Returns `None` if the client closed the connection instead of sending one.
///
/// `buffer` keeps the bytes after the request for the next call. A malformed request is an error of kind
/// `InvalidData`.
pub(crate) fn read_request(stream: &mut (impl Read + Write), buffer: &mut Vec<u8>) -> io::Result<Option<Request>> {
    let mut request = loop {
        if let Some(request) = parse_head(buffer)? {
            break request;
        }
        if buffer.len() > MAX_HEAD {
            return Err(invalid("the head of the request is too long"));
        }
        match fill_buffer(stream, buffer) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && buffer.is_empty() => return Ok(None),
            filled => filled?,
        }
    };
    if request.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        stream.flush()?;
    }
    request.body = if request.header("transfer-encoding").is_some() {
        read_chunked_body(stream, buffer)?
    } else {
        let length = request.header("content-length").unwrap_or("0");
        let length = length.parse().map_err(|_| invalid("Content-Length is not a number"))?;
        read_bytes(stream, buffer, length)?
    };
    Ok(Some(request))
}

fn parse_head(buffer: &mut Vec<u8>) -> io::Result<Option<Request>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(length) = parsed.parse(buffer).map_err(invalid)? else {
        return Ok(None);
    };
    let target = parsed.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let header = |header: &httparse::Header| {
        (header.name.to_ascii_lowercase(), String::from_utf8_lossy(header.value).into_owned())
    };
    let mut request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers: parsed.headers.iter().map(header).collect(),
        body: Vec::new(),
        keep_alive: parsed.version == Some(1),
    };
    if let Some(connection) = request.header("connection").map(str::to_ascii_lowercase) {
        request.keep_alive = connection != "close" && (request.keep_alive || connection == "keep-alive");
    }
    buffer.drain(..length);
    Ok(Some(request))
}

fn read_chunked_body(stream: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let parsed = httparse::parse_chunk_size(buffer).map_err(|_| invalid("invalid chunk size"))?;
        let httparse::Status::Complete((start, size)) = parsed else {
            fill_buffer(stream, buffer)?;
            continue;
        };
        buffer.drain(..start);
        if size == 0 {
            break;
        }
        let size = usize::try_from(size).map_err(invalid)?;
        if body.len().saturating_add(size) > MAX_BODY {
            return Err(invalid("the body is too long"));
        }
        body.extend(read_bytes(stream, buffer, size)?);
        read_bytes(stream, buffer, 2)?;
    }
    // Trailers, if any, end with an empty line, as a head does.
    while read_bytes(stream, buffer, 2)? != b"\r\n" {
        while !read_bytes(stream, buffer, 1)?.ends_with(b"\n") {}
    }
    Ok(body)
}

fn read_bytes(stream: &mut impl Read, buffer: &mut Vec<u8>, length: usize) -> io::Result<Vec<u8>> {
    if length > MAX_BODY {
        return Err(invalid("the body is too long"));
    }
    while buffer.len() < length {
        fill_buffer(stream, buffer)?;
    }
    Ok(buffer.drain(..length).collect())
}

fn fill_buffer(stream: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<()> {
    let mut bytes = [0; 8 << 10];
    let length = stream.read(&mut bytes)?;
    if length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    buffer.extend_from_slice(&bytes[..length]);
    Ok(())
}

fn invalid(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    /// A client that sends `input` one byte at a time and records what it receives.
    struct Trickle {
        input: Vec<u8>,
        output: Vec<u8>,
    }

    impl Read for Trickle {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.input.is_empty() {
                return Ok(0);
            }
            buffer[0] = self.input.remove(0);
            Ok(1)
        }
    }

    impl Write for Trickle {
        fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
            self.output.write(buffer)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn read(input: &str) -> (io::Result<Option<Request>>, Vec<u8>) {
        let mut client = Trickle { input: input.into(), output: Vec::new() };
        (read_request(&mut client, &mut Vec::new()), client.output)
    }

    #[test]
    fn a_request_is_read_one_byte_at_a_time() {
        let (request, _) = read("POST /a?b=c%20d HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
        let request = request.unwrap().unwrap();
        assert_eq!(
            (request.method.as_str(), request.path.as_str(), request.body.as_slice()),
            ("POST", "/a", &b"abc"[..])
        );
        assert_eq!(request.query_parameter("b").as_deref(), Some("c d"));
        assert!(request.keep_alive);
    }

    #[test]
    fn chunks_and_trailers_are_read_and_100_continue_is_sent() {
        let (request, output) = read(
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n\
             3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: 1\r\n\r\n",
        );
        let request = request.unwrap().unwrap();
        assert_eq!(request.body, b"abcde");
        assert!(!request.keep_alive);
        assert_eq!(output, b"HTTP/1.1 100 Continue\r\n\r\n");
    }

    #[test]
    fn the_end_of_the_stream_differs_from_a_broken_request() {
        assert!(read("").0.unwrap().is_none());
        assert_eq!(read("GET / HT").0.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(read("GET\x01 / HTTP/1.1\r\n\r\n").0.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn dates_have_the_format_of_http() {
        assert_eq!(http_date(UNIX_EPOCH), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(http_date(UNIX_EPOCH + Duration::from_secs(784_111_777)), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
