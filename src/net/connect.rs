//! Connecting to one of the addresses of a host.

use crate::error::{Phase, Result, resource_limit};
use crate::net::tcp::{Peer, TcpConnection};
use crate::sys::deadline::IoDeadline;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Connects to one of the addresses, in their order. Each gets an equal share of the time that is left, so
/// that an address that does not answer leaves time for the others.
pub(crate) fn connect(found: &[SocketAddr], peer: &Peer, deadline: IoDeadline) -> Result<(TcpConnection, SocketAddr)> {
    let mut failure = io::Error::from(io::ErrorKind::TimedOut);
    for (tried, address) in found.iter().enumerate() {
        let remaining = u32::try_from(found.len() - tried).unwrap_or(u32::MAX);
        let Ok(left) = deadline.remaining() else { break };
        // A timeout of zero is an invalid argument.
        let share = (left / remaining).max(Duration::from_millis(1));
        match TcpStream::connect_timeout(address, share).and_then(|stream| {
            stream.set_nonblocking(true)?;
            Ok(stream)
        }) {
            Ok(stream) => return Ok((TcpConnection::new(stream, deadline), *address)),
            Err(error) if resource_limit(&error).is_some() => {
                failure = error;
                break;
            }
            Err(error) => failure = error,
        }
    }
    Err(peer.io_error(Phase::Connect, &failure, deadline))
}
