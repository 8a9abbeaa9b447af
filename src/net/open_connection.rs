//! An open connection to a server for a program that waits for many of them at once.
//!
//! The transport of a call blocks its thread until the response is complete. A proxy has many requests in progress whose
//! bodies it passes on as they come, so it needs connections that never block. [`OpenConnection`] is one: it is opened by
//! the same code as those of all calls, with the same proxies, certificates and limits, and blocks until then. Afterwards
//! it reads and writes what is possible at once, and the program waits until its socket is ready.
//!
//! Only `amp-token serve` uses it (cargo feature `serve`); the library is built without it.

use crate::error::{Error, Result};
use crate::net::http::HttpTransport;
use crate::net::tcp::Stream;
use crate::net::url::Url;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

/// A connection to a server, through TLS and a proxy where that is so. Nothing of it blocks.
pub struct OpenConnection {
    stream: Box<dyn Stream>,
    socket: RawFd,
    transport: Arc<HttpTransport>,
}

impl OpenConnection {
    /// Connects to the origin of `url`, and blocks meanwhile, for at most `timeout`. `user_agent` is shown to a proxy.
    pub fn open(transport: &Arc<HttpTransport>, url: &Url, user_agent: &str, timeout: Duration) -> Result<Self> {
        let stream = transport.open(url, user_agent, timeout)?;
        let socket = stream.socket().map(|socket| socket.as_raw_fd());
        let socket = socket
            .ok_or_else(|| Error::new(crate::error::Kind::Internal, "internal error: a connection has no socket"))?;
        Ok(OpenConnection { stream, socket, transport: Arc::clone(transport) })
    }

    /// Reads what has arrived, at most as much as fits; an error of the kind `WouldBlock` if that is nothing, and 0 at the
    /// end. Then wait until the socket can be read.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let outcome = self.stream.read_arrived(buffer);
        self.noticed(outcome)
    }

    /// Writes what fits; an error of the kind `WouldBlock` if that is nothing. Then wait until the socket can be written.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let outcome = self.stream.write_ready(bytes);
        self.noticed(outcome)
    }

    /// Sends what TLS still holds of what was written; an error of the kind `WouldBlock` while that is not possible.
    pub fn flush(&mut self) -> io::Result<()> {
        let outcome = self.stream.flush_ready();
        self.noticed(outcome)
    }

    /// In TLS 1.3 a server rejects a client certificate only after the handshake.
    fn noticed<T>(&self, outcome: io::Result<T>) -> io::Result<T> {
        outcome.inspect_err(|error| {
            if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
                self.transport.tls_failed(error);
            }
        })
    }
}

impl AsRawFd for OpenConnection {
    fn as_raw_fd(&self) -> RawFd {
        self.socket
    }
}
