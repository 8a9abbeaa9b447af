//! Exchanges without a network, for tests and the fuzzer: what the peer sends is a text, which arrives in pieces.

use super::proxy::ProxyUrl;
use super::socks::Target;
use super::tcp::{Peer, Stream};
use super::transport::{Request, Response};
use super::tunnel::{Tunnel, open_tunnel};
use super::ureq_adapter::{UreqConnection, exchange, to_http_request};
use crate::error::Result;
use crate::sys::deadline::IoDeadline;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A connection to a peer that sends fixed bytes.
pub(super) struct Script {
    replies: io::Cursor<Vec<u8>>,
    /// The length of the next piece that arrives.
    next_length: Box<dyn FnMut() -> usize + Send + Sync>,
    takes_requests: bool,
    /// What was sent with each write.
    writes: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Script {
    /// A peer whose bytes arrive in pieces of these lengths.
    pub(super) fn new(replies: Vec<u8>, next_length: impl FnMut() -> usize + Send + Sync + 'static) -> Self {
        Script {
            replies: io::Cursor::new(replies),
            next_length: Box::new(next_length),
            takes_requests: true,
            writes: Arc::default(),
        }
    }
}

impl Read for Script {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min((self.next_length)());
        self.replies.read(&mut buffer[..length])
    }
}

impl Write for Script {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner).push(bytes.to_vec());
        match self.takes_requests {
            true => Ok(bytes.len()),
            false => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Script {
    fn set_deadline(&mut self, _: IoDeadline) {}
    fn read_arrived(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read(buffer)
    }
}

/// The next of a sequence of numbers that look random.
pub(super) fn random(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize
}

/// Sends the request, and reads this response in pieces whose sizes depend on `seed`; or the server closes its end
/// before it takes the request. Returns what was sent with each write, and the outcome.
pub fn play_exchange(
    request: &Request,
    response: Vec<u8>,
    seed: u64,
    takes_requests: bool,
) -> (Vec<Vec<u8>>, Result<Response>) {
    let peer = Peer::server(request.url.host(), request.url.port());
    let mut state = seed;
    let script = Script { takes_requests, ..Script::new(response, move || 1 + random(&mut state) % 40) };
    let writes = Arc::clone(&script.writes);
    let connection = UreqConnection::new(Box::new(script), true, &peer, IoDeadline::after(Duration::from_secs(60)));
    let outcome = to_http_request(request, &peer, false)
        .and_then(|message| exchange(message, connection, request.max_response_bytes, None));
    let writes = std::mem::take(&mut *writes.lock().unwrap_or_else(PoisonError::into_inner));
    (writes, outcome)
}

/// What came of a connection through a proxy.
#[derive(Debug)]
pub struct PlayedTunnel {
    /// What was sent to the proxy.
    pub sent: Vec<u8>,
    /// How much was read before the tunnel was open, or could not be opened.
    pub read: usize,
    /// Whether the tunnel was opened; if so, what the first read through it returns.
    pub outcome: Result<io::Result<Vec<u8>>>,
}

/// Has a proxy that sends these bytes, in pieces of this length, connect to `far.example:443`, whose address on this
/// machine may be known.
pub fn play_tunnel(proxy: &ProxyUrl, address: Option<IpAddr>, replies: &[u8], piece: usize) -> PlayedTunnel {
    let mut script = Script::new(replies.to_vec(), move || piece);
    let target = Target { host: "far.example", port: 443, address };
    let deadline = IoDeadline::after(Duration::from_secs(60));
    let opened = open_tunnel(&mut script, proxy, &target, Some("me/1"), deadline);
    let read = usize::try_from(script.replies.position()).unwrap_or(usize::MAX);
    let sent = script.writes.lock().unwrap_or_else(PoisonError::into_inner).concat();
    let outcome = opened.map(|announces_page| {
        let mut buffer = vec![0; replies.len() + 1];
        let count = Tunnel::new(Box::new(script), proxy.clone(), announces_page).read(&mut buffer)?;
        buffer.truncate(count);
        Ok(buffer)
    });
    PlayedTunnel { sent, read, outcome }
}
