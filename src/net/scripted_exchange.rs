//! An exchange without a network, for tests and the fuzzer: the response is a text, which arrives in pieces.

use super::tcp::{Peer, Stream};
use super::transport::{Request, Response};
use super::ureq_adapter::{UreqConnection, exchange, to_http_request};
use crate::error::Result;
use crate::sys::deadline::IoDeadline;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A connection on which a response arrives in pieces of many sizes.
struct Script {
    response: io::Cursor<Vec<u8>>,
    state: u64,
    takes_requests: bool,
    /// What was sent with each write.
    writes: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Read for Script {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = 1 + random(&mut self.state) % 40;
        let length = buffer.len().min(most);
        self.response.read(&mut buffer[..length])
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
    let writes = Arc::new(Mutex::default());
    let response = io::Cursor::new(response);
    let stream = Box::new(Script { response, state: seed, takes_requests, writes: Arc::clone(&writes) });
    let connection = UreqConnection::new(stream, true, &peer, IoDeadline::after(Duration::from_secs(60)));
    let outcome = to_http_request(request, &peer, false)
        .and_then(|message| exchange(message, connection, request.max_response_bytes, None));
    let writes = std::mem::take(&mut *writes.lock().unwrap_or_else(PoisonError::into_inner));
    (writes, outcome)
}
