//! HTTP/1.1 over a connection that is already open: ureq writes the request and reads the response.
//!
//! ureq is used as a codec. [`SingleConnection`] passes it the one connection, and [`NoopResolver`] resolves
//! nothing. So ureq cannot connect a second time, follow a redirect or keep a connection: one that can be used for
//! another request is handed back. The buffers are [`ZeroizingBuffers`], which are wiped, and errors of the connection
//! pass through ureq unchanged. The head of a response is [normalized](crate::net::response_head) before ureq parses it.
//! That may drop a misspelled header, perhaps one that says where the body ends, so a connection is only used again if
//! nothing was dropped.
//!
//! ureq's own connectors, proxies and resolver are not used, for these reasons (read in its version 3.5): its
//! `NO_PROXY` has no networks, ports or subdomains; the first address that fails in another way than by
//! refusing the connection ends the attempt; names are resolved in detached threads, without a limit on their
//! number; its buffers are not wiped; and its errors do not say whether the proxy or the server failed.

use crate::error::{Error, Kind, Phase, Result};
use crate::net::header_case::HeaderCase;
use crate::net::response_head::{self, Head};
use crate::net::tcp::{ClosedStream, Peer, Stream, is_disconnect};
use crate::net::transport::{BodySink, Request, Response, is_success, sink_error};
use crate::net::url::{Url, host_and_port};
use crate::sanitize::sanitize;
use crate::sys::deadline::IoDeadline;
use crate::sys::secret::{MaybeSecret, Secret, wipe};
use bytes::Bytes;
use std::fmt;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use ureq::config::Config;
use ureq::http::{self, HeaderName, HeaderValue, Method};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport as UreqTransport};
use zeroize::Zeroizing;

/// The maximum size of a response's status line and headers.
pub const HEADER_LIMIT: usize = 64 * 1024;

/// The maximum length of a line in the head of a request, and the size of the pieces of a body that are sent.
const OUTPUT_SIZE: usize = 16 * 1024;

/// How much of a response is read at a time: as much as a record of TLS has. A longer head has a larger buffer.
const INPUT_SIZE: usize = 16 * 1024;

/// The value of a secret header, which ureq's header type shares instead of copying it. So it is wiped when the
/// request is dropped.
struct SecretHeaderBytes(Secret);

impl AsRef<[u8]> for SecretHeaderBytes {
    fn as_ref(&self) -> &[u8] {
        self.0.expose().as_bytes()
    }
}

/// Converts a request to the type that ureq sends. `keep`: the connection may be used for another request. Fails if a
/// part of the request cannot be sent.
pub(super) fn to_http_request<'a>(request: &'a Request, server: &Peer, keep: bool) -> Result<http::Request<&'a [u8]>> {
    let refuse = |what: String| {
        let message = format!("cannot send the request to {}: {what}", server.name);
        Error::invalid(message).with_host(&server.address)
    };
    let method = Method::from_bytes(request.method.as_bytes())
        .map_err(|_| refuse(format!("{:?} is not a valid method", sanitize(&request.method, &[]))))?;
    // The rest of the request line has a space and ` HTTP/1.1`.
    if request.method.len() + request.url.path().len() > OUTPUT_SIZE - 16 {
        return Err(refuse(format!("the path and query of the URL are longer than {OUTPUT_SIZE} bytes"))
            .with_hint("use a shorter path, or send the data in the body of a POST request"));
    }
    let mut message = http::Request::new(request.body.as_slice());
    *message.method_mut() = method;
    *message.uri_mut() =
        request.url.without_zone().parse().map_err(|_| refuse("the URL has invalid characters".to_owned()))?;
    let headers = message.headers_mut();
    // The first header, as RFC 9110 (section 7.2) recommends. ureq adds it as the last one.
    let host = HeaderValue::from_str(&host_header(&request.url))
        .map_err(|_| refuse("the URL has invalid characters".to_owned()))?;
    headers.insert(http::header::HOST, host);
    for (name, value) in &request.headers {
        if value.expose().len() + name.len() > OUTPUT_SIZE - 16 {
            return Err(refuse(format!("the header {name} is longer than {OUTPUT_SIZE} bytes")));
        }
        let text = match value {
            MaybeSecret::Public(text) => Bytes::copy_from_slice(text.as_bytes()),
            MaybeSecret::Secret(secret) => Bytes::from_owner(SecretHeaderBytes(secret.clone())),
        };
        let mut sent = HeaderValue::from_maybe_shared(text)
            .map_err(|_| refuse(format!("the header {name} has invalid characters")))?;
        sent.set_sensitive(matches!(value, MaybeSecret::Secret(_)));
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| refuse(format!("{name:?} is not a valid header name")))?;
        headers.append(name, sent);
    }
    if has_body(&request.method, &request.body) {
        headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from(request.body.len()));
    }
    if !keep {
        headers.insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(message)
}

/// Whether a request is sent with a body, even if it is empty.
fn has_body(method: &str, body: &[u8]) -> bool {
    !body.is_empty() || ["POST", "PUT", "PATCH"].contains(&method)
}

/// The value of `Host`: without the port if it is that of the scheme.
fn host_header(url: &Url) -> String {
    let (host, port) = (url.host(), url.port());
    match (url.scheme(), port) {
        ("http", 80) | ("https", 443) if host.contains(':') => format!("[{host}]"),
        ("http", 80) | ("https", 443) => host.to_owned(),
        _ => host_and_port(host, port),
    }
}

/// Sends the request over the connection and reads the response.
pub(super) fn exchange(
    message: http::Request<&[u8]>,
    connection: UreqConnection,
    limit: usize,
    sink: Option<&mut BodySink>,
) -> Result<Response> {
    let (peer, deadline) = (connection.peer.clone(), connection.deadline);
    run_exchange(message, connection, limit, sink).map_err(|error| from_ureq_error(error, &peer, deadline))?
}

/// [`exchange`]; the outer error is ureq's.
fn run_exchange(
    message: http::Request<&[u8]>,
    connection: UreqConnection,
    limit: usize,
    sink: Option<&mut BodySink>,
) -> std::result::Result<Result<Response>, ureq::Error> {
    let peer = connection.peer.clone();
    let config = Config::builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .user_agent("")
        .accept("")
        .accept_encoding("")
        .max_response_header_size(HEADER_LIMIT)
        .max_idle_connections(0)
        .max_idle_connections_per_host(0)
        .allow_non_standard_methods(true)
        .build();
    let agent = ureq::Agent::with_parts(config, SingleConnection(Mutex::new(Some(connection))), NoopResolver);
    let reply = match has_body(message.method().as_str(), message.body()) {
        true => agent.run(message),
        false => agent.run(message.map(|_| ())),
    };
    let (head, mut body) = reply?.into_parts();
    let announced = body.content_length();
    let body = match sink.filter(|_| is_success(head.status.as_u16())) {
        Some(sink) => match copy_to_sink(&mut body.as_reader(), sink)? {
            true => Some(Zeroizing::default()),
            false => return Ok(Err(sink_error())),
        },
        None => read_body(&mut body.as_reader(), announced, limit)?,
    };
    Ok(match body {
        None => Err(peer
            .error(
                Kind::Protocol,
                Phase::ReceiveBody,
                format!("the response from {} is larger than {limit} bytes", peer.name),
            )
            .with_hint("check the URL; for large responses of the API raise max_response_bytes, or download them")
            .with_http_status(head.status.as_u16())),
        Some(body) => Ok(Response {
            status: head.status.as_u16(),
            headers: head
                .headers
                .iter()
                .map(|(name, value)| {
                    let value = String::from_utf8_lossy(value.as_bytes());
                    (name.as_str().to_owned(), value.into_owned())
                })
                .collect(),
            body,
        }),
    })
}

/// Passes a body to the sink as it arrives; `false` if the sink stopped.
fn copy_to_sink(reader: &mut impl Read, sink: &mut BodySink) -> io::Result<bool> {
    let mut piece = Zeroizing::new(vec![0; 64 * 1024]);
    loop {
        match reader.read(&mut piece)? {
            0 => return Ok(true),
            count if sink(&piece[..count]) => {}
            _ => return Ok(false),
        }
    }
}

/// Reads a whole body; `None` if it is larger than `limit`.
fn read_body(reader: &mut impl Read, announced: Option<u64>, limit: usize) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    const FIRST: usize = 16 * 1024;
    let announced = match announced.map(usize::try_from) {
        Some(Ok(length)) if length <= limit => Some(length),
        Some(_) => return Ok(None),
        None => None,
    };
    let mut body = Zeroizing::new(vec![0; announced.unwrap_or(FIRST).min(limit)]);
    let mut filled = 0;
    loop {
        // Reading one byte outside of the buffer shows whether a larger one is needed at all.
        let mut one = [0];
        if filled == body.len() {
            if reader.read(&mut one)? == 0 {
                break;
            }
            if filled == limit {
                return Ok(None);
            }
            // Not `resize`, which would free the old buffer without wiping it.
            let mut larger = Zeroizing::new(vec![0; (filled * 2).max(FIRST).min(limit)]);
            larger[..filled].copy_from_slice(&body);
            larger[filled] = one[0];
            body = larger;
            filled += 1;
        } else {
            match reader.read(&mut body[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
    }
    body.truncate(filled);
    Ok(Some(body))
}

/// Converts an error of ureq. Most are already an [`Error`], from [`UreqConnection`].
fn from_ureq_error(error: ureq::Error, server: &Peer, deadline: IoDeadline) -> Error {
    let name = &server.name;
    let protocol = |what: String| {
        server
            .error(Kind::Protocol, Phase::ReceiveBody, what)
            .with_hint("check the URL, and whether a proxy responds instead of the server")
    };
    match error {
        ureq::Error::Other(inner) => match inner.downcast::<Error>() {
            Ok(own) => *own,
            Err(other) => internal_error(server, &other),
        },
        ureq::Error::Io(error) if is_disconnect(&error) => server.io_error(Phase::ReceiveBody, &error, deadline),
        // ureq wraps its own errors to pass them through a reader.
        ureq::Error::Io(error) => match error.downcast::<ureq::Error>() {
            Ok(inner) => from_ureq_error(inner, server, deadline),
            Err(error) => server.io_error(Phase::ReceiveBody, &error, deadline),
        },
        ureq::Error::LargeResponseHeader(..) => {
            protocol(format!("the headers of the response from {name} are larger than {HEADER_LIMIT} bytes"))
        }
        ureq::Error::Protocol(error) => {
            let reason = error.to_string();
            let reason = reason.strip_prefix("http parse fail: ").unwrap_or(&reason);
            protocol(format!("invalid HTTP response from {name}: {}", sanitize(reason, &[])))
        }
        ureq::Error::BodyStalled => protocol(format!("malformed HTTP response from {name}")),
        other => internal_error(server, &other),
    }
}

fn internal_error(server: &Peer, error: &dyn fmt::Display) -> Error {
    let reason = sanitize(&error.to_string(), &[]);
    let message = format!("internal error while sending the request to {}: {reason}", server.name);
    server.error(Kind::Internal, Phase::ReceiveBody, message)
}

/// An open connection, as ureq sees it.
pub(super) struct UreqConnection {
    stream: Box<dyn Stream>,
    is_tls: bool,
    peer: Peer,
    deadline: IoDeadline,
    buffers: ZeroizingBuffers,
    /// What ureq has written of the request and was not sent yet. So the head and a small body are sent together: a
    /// proxy that follows Nagle's algorithm would hold the second of two packets back until the first is acknowledged.
    unsent: Zeroizing<Vec<u8>>,
    /// Where in the head of the request the next byte belongs.
    case: HeaderCase,
    /// Whether any byte of a response has arrived.
    received: bool,
    /// Whether the head of the response is complete. Until then, ureq gets nothing.
    is_after_head: bool,
    /// Why the request could not be sent whole. The server may have sent a response before.
    send_failure: Option<io::Error>,
    /// Receives the connection if another request can be sent over it.
    kept: Arc<Mutex<Option<Box<dyn Stream>>>>,
}

impl UreqConnection {
    pub(super) fn new(stream: Box<dyn Stream>, is_tls: bool, peer: &Peer, deadline: IoDeadline) -> Self {
        UreqConnection {
            stream,
            is_tls,
            peer: peer.clone(),
            deadline,
            buffers: ZeroizingBuffers::new(),
            unsent: Zeroizing::new(Vec::with_capacity(2 * OUTPUT_SIZE)),
            case: HeaderCase::default(),
            received: false,
            is_after_head: false,
            send_failure: None,
            kept: Arc::default(),
        }
    }

    /// Where the connection is after the exchange, if another request can be sent over it.
    pub(super) fn kept(&self) -> Arc<Mutex<Option<Box<dyn Stream>>>> {
        Arc::clone(&self.kept)
    }

    /// Sends what ureq has written.
    fn send(&mut self) -> std::result::Result<(), ureq::Error> {
        let outcome = match self.unsent.is_empty() || self.send_failure.is_some() {
            true => Ok(()),
            false => self.stream.write_all(&self.unsent).and_then(|()| self.stream.flush()),
        };
        // Wiped as a whole when dropped.
        self.unsent.clear();
        match outcome {
            Ok(()) => Ok(()),
            // A server may respond before it has read the whole request, and close. So the response is read first.
            Err(error) if is_disconnect(&error) => {
                self.send_failure = Some(error);
                Ok(())
            }
            Err(error) => Err(self.failed(Phase::Send, &error)),
        }
    }

    /// A complete [`Error`], in a form that ureq passes on unchanged.
    fn failed(&self, phase: Phase, error: &io::Error) -> ureq::Error {
        let own = self.peer.io_error(phase, error, self.deadline);
        ureq::Error::Other(Box::new(own))
    }

    /// Reads once into the buffer; `false` at the end of the connection.
    fn receive(&mut self) -> std::result::Result<bool, ureq::Error> {
        let room = self.buffers.input_append_buf();
        // With an empty buffer, a read would look like the end of the connection.
        if room.is_empty() {
            return Err(ureq::Error::BodyStalled);
        }
        let outcome = match self.stream.read(room) {
            // The end of the connection may be the end of the body. It is not before any byte of a response, nor
            // after a reset while sending, which a read does not report a second time.
            Ok(0) if !self.received || self.send_failure.is_some() => Err(io::ErrorKind::UnexpectedEof.into()),
            outcome => outcome,
        };
        match outcome {
            Ok(count) => {
                self.received = true;
                self.buffers.input_appended(count);
                Ok(count > 0)
            }
            Err(error) => Err(match &self.send_failure {
                _ if self.received => self.failed(Phase::ReceiveBody, &error),
                Some(earlier) if is_disconnect(&error) => self.failed(Phase::Send, earlier),
                _ => self.failed(Phase::AwaitResponse, &error),
            }),
        }
    }
}

impl fmt::Debug for UreqConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UreqConnection({})", self.peer.address)
    }
}

impl UreqTransport for UreqConnection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> std::result::Result<(), ureq::Error> {
        // A buffer that grows would leave copies of the secret behind.
        if self.unsent.len() + amount > self.unsent.capacity() {
            self.send()?;
        }
        let start = self.unsent.len();
        self.unsent.extend_from_slice(self.buffers.output.get(..amount).unwrap_or_default());
        self.case.apply(&mut self.unsent[start..]);
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> std::result::Result<bool, ureq::Error> {
        self.send()?;
        loop {
            let has_more = self.receive()?;
            self.is_after_head = self.is_after_head || self.buffers.normalize_head()?;
            if self.is_after_head || !has_more {
                return Ok(has_more);
            }
        }
    }

    fn is_open(&mut self) -> bool {
        // ureq calls this when the whole response was read and the server does not close the connection. It would keep
        // the connection in a pool whose lock a forked child could inherit locked: so it is taken from ureq here.
        if !self.buffers.is_strict || !self.buffers.input().is_empty() {
            return false; // the next response may begin elsewhere
        }
        let stream = std::mem::replace(&mut self.stream, Box::new(ClosedStream));
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
        false
    }

    fn is_tls(&self) -> bool {
        self.is_tls
    }
}

/// Buffers that are wiped when dropped.
struct ZeroizingBuffers {
    input: Vec<u8>,
    /// `input[consumed..filled]` is not read yet.
    consumed: usize,
    filled: usize,
    /// How many bytes of interim responses have been removed.
    removed: usize,
    /// Whether nothing was dropped from the head: see [`response_head::is_strict`].
    is_strict: bool,
    /// Whether the last attempt consumed input. If not, more has to arrive first.
    progress: bool,
    output: Vec<u8>,
}

impl Drop for ZeroizingBuffers {
    fn drop(&mut self) {
        // `Zeroizing` would wipe them byte by byte.
        wipe(&mut self.input);
        wipe(&mut self.output);
    }
}

impl ZeroizingBuffers {
    fn new() -> Self {
        ZeroizingBuffers {
            input: vec![0; INPUT_SIZE],
            consumed: 0,
            filled: 0,
            removed: 0,
            is_strict: false,
            progress: false,
            output: vec![0; OUTPUT_SIZE],
        }
    }

    /// Normalizes the head that the buffer begins with. `false`: more has to arrive first. The interim responses that
    /// are removed count as headers, so that their number is limited.
    fn normalize_head(&mut self) -> std::result::Result<bool, ureq::Error> {
        self.close_gap();
        // ureq rejects a head that is too large.
        let is_full = self.filled > HEADER_LIMIT;
        self.is_strict = response_head::is_strict(&self.input[..self.filled]);
        let (is_complete, length) = match response_head::normalize(&mut self.input[..self.filled]) {
            Head::Complete(length) => (true, length),
            Head::Incomplete(length) => (is_full && length == self.filled, length),
        };
        if !is_complete {
            self.removed += self.filled - length;
        }
        self.filled = length;
        match self.removed > HEADER_LIMIT {
            true => Err(ureq::Error::LargeResponseHeader(self.removed, HEADER_LIMIT)),
            false => Ok(is_complete),
        }
    }

    fn close_gap(&mut self) {
        self.input.copy_within(self.consumed..self.filled, 0);
        self.filled -= self.consumed;
        self.consumed = 0;
    }

    /// Makes room for the longest head that is allowed, and one byte more, so that ureq detects one that is longer.
    fn grow(&mut self) {
        let mut larger = vec![0; HEADER_LIMIT + 1];
        larger[..self.filled].copy_from_slice(&self.input[..self.filled]);
        wipe(&mut self.input);
        self.input = larger;
    }
}

impl Buffers for ZeroizingBuffers {
    fn output(&mut self) -> &mut [u8] {
        &mut self.output
    }

    fn input(&self) -> &[u8] {
        &self.input[self.consumed..self.filled]
    }

    fn input_append_buf(&mut self) -> &mut [u8] {
        self.close_gap();
        if self.filled == self.input.len() && self.filled <= HEADER_LIMIT {
            self.grow();
        }
        &mut self.input[self.filled..]
    }

    fn input_appended(&mut self, amount: usize) {
        self.filled = (self.filled + amount).min(self.input.len());
    }

    fn input_consume(&mut self, amount: usize) {
        self.progress = amount > 0;
        self.consumed = (self.consumed + amount).min(self.filled);
    }

    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        self.close_gap();
        (&mut self.input[self.filled..], &mut self.output)
    }

    fn can_use_input(&self) -> bool {
        self.consumed < self.filled && self.progress
    }
}

/// Passes the one open connection to ureq. There is no second one, so ureq cannot connect again.
#[derive(Debug)]
struct SingleConnection(Mutex<Option<UreqConnection>>);

impl Connector for SingleConnection {
    type Out = UreqConnection;

    fn connect(
        &self,
        _: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> std::result::Result<Option<UreqConnection>, ureq::Error> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).take())
    }
}

/// Resolves nothing: the connection is already open.
#[derive(Debug)]
struct NoopResolver;

impl Resolver for NoopResolver {
    fn resolve(
        &self,
        _: &http::Uri,
        _: &Config,
        _: NextTimeout,
    ) -> std::result::Result<ResolvedSocketAddrs, ureq::Error> {
        Ok(self.empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::scripted_exchange::{play_exchange, random};

    fn play(reply: Vec<u8>, state: u64, takes_requests: bool) -> Result<Response> {
        play_request("https://auth.example/oauth/token", b"x=y", reply, state, takes_requests).1
    }

    fn play_request(
        url: &str,
        body: &[u8],
        reply: Vec<u8>,
        state: u64,
        takes_requests: bool,
    ) -> (Vec<Vec<u8>>, Result<Response>) {
        let request = Request {
            method: "POST".to_owned(),
            url: Url::parse(url).unwrap(),
            headers: vec![("accept".into(), "*/*".into())],
            body: Zeroizing::new(body.to_vec()),
            max_response_bytes: 1000,
        };
        play_exchange(&request, reply, state, takes_requests)
    }

    /// With two packets, a proxy that follows Nagle's algorithm would wait for an acknowledgement in between.
    #[test]
    fn a_small_request_is_sent_at_once_and_in_conventional_form() {
        let ok = || b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec();
        for (url, host) in [
            ("https://auth.example/x", "auth.example"),
            ("https://auth.example:443/x", "auth.example"),
            ("https://auth.example:80/x", "auth.example:80"),
            ("http://[::1]/x", "[::1]"),
            ("https://[fe80::1%25eth0]:8443/x", "[fe80::1]:8443"),
        ] {
            let (writes, outcome) = play_request(url, b"x-y=z", ok(), 1, true);
            outcome.unwrap();
            let expected = format!(
                "POST /x HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\nContent-Length: 5\r\nConnection: close\r\n\r\nx-y=z"
            );
            assert_eq!(writes, [expected.into_bytes()]);
        }
        let (writes, outcome) = play_request("https://auth.example/", &[b'x'; 100_000], ok(), 1, true);
        outcome.unwrap();
        assert!(writes.iter().all(|write| write.len() <= 2 * OUTPUT_SIZE));
        assert!(writes.concat().ends_with(&[b'x'; 100_000]));
        let (writes, _) = play_request("https://auth.example/", &[b'x'; 100_000], ok(), 1, false);
        assert_eq!(writes.len(), 1);
    }

    /// After a reset while sending, a read reports the end of the connection, not the reset.
    #[test]
    fn after_a_failed_send_only_a_framed_response_is_complete() {
        let framed = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno";
        assert_eq!(play(framed.to_vec(), 1, false).unwrap().status, 413);
        for (reply, stage) in [(&b"HTTP/1.1 200 OK\r\n\r\nhalf"[..], Phase::ReceiveBody), (b"", Phase::Send)] {
            let error = play(reply.to_vec(), 1, false).unwrap_err();
            assert_eq!((error.kind(), error.phase()), (Kind::Connect, stage));
        }
    }

    #[test]
    fn no_malformed_response_is_an_internal_error() {
        let replies = [
            "HTTP/1.1 200 OK\r\nContent-Length: 12\r\nA: b\r\n\r\n{\"a\": \"bcd\"}",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\na;x\r\n0123456789\r\n0\r\nT: u\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.0 302 Found\r\nLocation: /\r\n\r\nelsewhere",
            "HTTP/1.1 100 Continue\r\nA : b\r\n\r\nHTTP/1.0 200 OK\r\nTransfer-Encoding:\r\n chunked\r\n: x\r\n\r\n1\r\nx\r\n0\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        ];
        let mut state = 1;
        for reply in replies {
            play(reply.into(), state, true).unwrap();
            for _ in 0..1500 {
                let mut changed = reply.as_bytes().to_vec();
                for _ in 0..=random(&mut state) % 4 {
                    let at = random(&mut state) % changed.len();
                    match random(&mut state) % 4 {
                        0 => changed[at] = random(&mut state) as u8,
                        1 => changed.truncate(at.max(1)),
                        2 => changed.insert(at, b"\r\n0: "[random(&mut state) % 5]),
                        _ => {
                            let again = changed[at..].to_vec();
                            changed.extend(again);
                        }
                    }
                }
                if let Err(error) = play(changed.clone(), state, true) {
                    assert!(
                        matches!(error.kind(), Kind::Protocol | Kind::Connect),
                        "{error:?} after {:?}",
                        String::from_utf8_lossy(&changed)
                    );
                }
            }
        }
    }
}
