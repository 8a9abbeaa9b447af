//! A TCP connection with a deadline: resolving, connecting, and describing failures.
//!
//! All network I/O of a call goes through a [`Stream`]. It checks the deadline before each system call, so a
//! peer that sends or reads one byte at a time cannot delay a call beyond its timeout. A failure becomes an
//! [`Error`] where it happens, because only there the peer and the phase are known.
//!
//! A broken connection must not raise SIGPIPE in the application. The standard library sends with
//! `MSG_NOSIGNAL`, but only in `write`: its `write_vectored` is a bare `writev`. So [`TcpConnection`] keeps
//! the default `write_vectored`, which calls `write`.

use crate::error::{Error, Kind, Phase, Result, resource_limit};
use crate::net::url::{host_and_port, is_loopback};
use crate::sys::deadline::IoDeadline;
use crate::sys::threads::HelperThreads;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::Duration;

/// A connection, with or without TLS. All its operations end by its deadline.
pub(crate) trait Stream: Read + Write + Send + Sync {
    /// Replaces the deadline.
    fn set_deadline(&mut self, deadline: IoDeadline);
}

/// A TCP connection.
pub(crate) struct TcpConnection {
    stream: TcpStream,
    deadline: IoDeadline,
}

impl TcpConnection {
    /// Runs one operation until it completes, and repeats it after a signal or an early wake-up.
    fn run<T>(
        &mut self,
        limit: fn(&TcpStream, Option<Duration>) -> io::Result<()>,
        mut operation: impl FnMut(&mut TcpStream) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            limit(&self.stream, Some(self.deadline.remaining()?))?;
            match operation(&mut self.stream) {
                Err(error)
                    if matches!(
                        error.kind(),
                        // The timeout that `limit` has set is over. The next iteration checks whether that
                        // was the deadline.
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut && cfg!(windows) => {}
                result => return result,
            }
        }
    }
}

impl Read for TcpConnection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.run(TcpStream::set_read_timeout, |stream| stream.read(buffer))
    }
}

impl Write for TcpConnection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.run(TcpStream::set_write_timeout, |stream| stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for TcpConnection {
    fn set_deadline(&mut self, deadline: IoDeadline) {
        self.deadline = deadline;
    }
}

impl Stream for Box<dyn Stream> {
    fn set_deadline(&mut self, deadline: IoDeadline) {
        (**self).set_deadline(deadline);
    }
}

/// The other end of a connection: the server or a proxy.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Its name in messages: `auth.example:443`, or `the proxy http://proxy.example:3128`.
    pub(crate) name: String,
    /// Host and port.
    pub(crate) address: String,
    /// Whether it is a proxy.
    pub(crate) is_proxy: bool,
}

impl Peer {
    /// The server itself.
    pub(crate) fn server(host: &str, port: u16) -> Self {
        let address = host_and_port(host, port);
        Peer { name: address.clone(), address, is_proxy: false }
    }

    /// An error about this peer.
    pub(crate) fn error(&self, kind: Kind, phase: Phase, message: impl Into<String>) -> Error {
        Error::new(kind, message).with_phase(phase).with_host(&self.address)
    }

    /// The error for an operation that failed in this phase, under this deadline.
    pub(crate) fn io_error(&self, phase: Phase, error: &io::Error, deadline: IoDeadline) -> Error {
        // Layers above the socket pass a complete `Error` through `io::Error`.
        if let Some(own) = error.get_ref().and_then(|inner| inner.downcast_ref()) {
            return Error::clone(own);
        }
        let name = &self.name;
        let text = phase_text(phase);
        let failed = match phase {
            Phase::Resolve => format!("cannot resolve {name}"),
            Phase::Setup | Phase::Route | Phase::Connect => format!("cannot connect to {name}"),
            _ => format!("the connection to {name} failed"),
        };
        if let Some((problem, advice)) = resource_limit(error) {
            return self.error(Kind::Io, phase, format!("{failed}: {problem}")).with_hint(advice);
        }
        // Only our own deadline has no errno. The system's ETIMEDOUT is a lost connection.
        if error.kind() == io::ErrorKind::TimedOut && error.raw_os_error().is_none() {
            let (before, after) = text.late;
            return self
                .error(Kind::Timeout, phase, format!("{before}{name}{after} within {deadline}"))
                .with_hint("check the network, or increase timeout_ms and connect_timeout_ms");
        }
        let kind = match phase {
            _ if self.is_proxy => Kind::Proxy,
            Phase::Resolve => Kind::Resolve,
            _ => Kind::Connect,
        };
        let advice = match (self.is_proxy, phase) {
            (true, _) => "check the proxy setting, or HTTPS_PROXY and NO_PROXY in the environment",
            (false, Phase::Resolve) => "check the host name, and the DNS settings of this machine",
            (false, _) => "check the host and port, and that no firewall blocks them",
        };
        let message = match (phase, describe_io_error(error)) {
            (Phase::Resolve | Phase::Connect, reason) => {
                format!("{failed}: {reason}")
            }
            (_, _) if is_disconnect(error) => {
                format!("{name} closed the connection {}", text.closed)
            }
            (_, reason) => format!("{failed}: {reason}"),
        };
        self.error(kind, phase, message).with_hint(advice).with_retryable(true)
    }
}

/// How a failure in one phase is worded.
struct PhaseText {
    /// What stands before and after the name of the peer when the deadline is over.
    late: (&'static str, &'static str),
    /// What follows "closed the connection".
    closed: &'static str,
}

#[rustfmt::skip]
fn phase_text(phase: Phase) -> PhaseText {
    let (late, closed) = match phase {
        Phase::Resolve => (("cannot resolve ", ""), ""),
        Phase::Setup | Phase::Route | Phase::Connect => (("cannot connect to ", ""), ""),
        Phase::Tunnel => (("", " accepted the connection but did not connect to the server"),
            "instead of connecting to the server"),
        Phase::TlsHandshake => (("", " accepted the connection but did not finish the TLS handshake"),
            "during the TLS handshake"),
        Phase::Send => (("", " accepted the connection but did not read the whole request"),
            "before it had read the whole request"),
        Phase::AwaitResponse => (("", " accepted the connection but sent no response"), "without a response"),
        Phase::ReceiveBody | Phase::Parse => (("", " did not finish its response"), "in the middle of its response"),
    };
    PhaseText { late, closed }
}

/// Whether the peer ended the connection, by a close or by a reset.
pub(crate) fn is_disconnect(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe)
}

/// Describes an I/O error.
fn describe_io_error(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => {
            "no route to the host".to_owned()
        }
        io::ErrorKind::PermissionDenied => "this machine does not permit the connection".to_owned(),
        _ => crate::sanitize::sanitize(&error.to_string(), &[]),
    }
}

/// Resolves a host name, within the deadline.
pub(crate) fn resolve(host: &str, port: u16, peer: &Peer, deadline: IoDeadline) -> Result<Vec<SocketAddr>> {
    match resolve_host(host, port, deadline) {
        Ok(found) if found.is_empty() => {
            let none = io::Error::other("the name has no addresses");
            Err(peer.io_error(Phase::Resolve, &none, deadline))
        }
        Ok(found) => Ok(found),
        Err(error) => Err(peer.io_error(Phase::Resolve, &error, deadline)),
    }
}

fn resolve_host(host: &str, port: u16, deadline: IoDeadline) -> io::Result<Vec<SocketAddr>> {
    let at = |address: IpAddr| SocketAddr::new(address, port);
    if let Ok(address) = host.parse() {
        return Ok(vec![at(address)]);
    }
    // Plain http is allowed to these names because they mean this machine. A DNS server must not be able to
    // change that.
    if is_loopback(host) {
        return Ok(vec![at(Ipv4Addr::LOCALHOST.into()), at(Ipv6Addr::LOCALHOST.into())]);
    }
    // `getaddrinfo` has no timeout.
    let name = (host.to_owned(), port);
    RESOLVER_THREADS.run_with_deadline(deadline, move || {
        let found = name.to_socket_addrs().map(Iterator::collect);
        // A resolver that cannot open its files or a socket reports that the name does not exist.
        found.map_err(|error| socket_limit_error().unwrap_or(error))
    })?
}

static RESOLVER_THREADS: HelperThreads = HelperThreads::new("amp-lookup");

/// The reason why this process cannot open a socket at present, if it cannot.
fn socket_limit_error() -> Option<io::Error> {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).err().filter(|error| resource_limit(error).is_some())
}

/// Connects to one of the addresses, in their order. Each gets an equal share of the time that is left, so
/// that an address that does not answer leaves time for the others.
pub(crate) fn connect(found: &[SocketAddr], peer: &Peer, deadline: IoDeadline) -> Result<(TcpConnection, SocketAddr)> {
    let mut failure = io::Error::from(io::ErrorKind::TimedOut);
    for (tried, address) in found.iter().enumerate() {
        let remaining = u32::try_from(found.len() - tried).unwrap_or(u32::MAX);
        let Ok(left) = deadline.remaining() else { break };
        // A timeout of zero is an invalid argument.
        let share = (left / remaining).max(Duration::from_millis(1));
        match TcpStream::connect_timeout(address, share) {
            Ok(stream) => {
                // A request is small and waits for its response: Nagle's algorithm would only delay it.
                let _ = stream.set_nodelay(true);
                return Ok((TcpConnection { stream, deadline }, *address));
            }
            Err(error) if resource_limit(&error).is_some() => {
                failure = error;
                break;
            }
            Err(error) => failure = error,
        }
    }
    Err(peer.io_error(Phase::Connect, &failure, deadline))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> IoDeadline {
        IoDeadline::after(Duration::from_secs(5))
    }

    #[test]
    fn names_of_this_machine_are_not_resolved_by_dns() {
        for host in ["localhost", "LOCALHOST.", "any.localhost"] {
            let found = resolve_host(host, 7, soon()).unwrap();
            assert!(found.iter().all(|address| address.ip().is_loopback()));
        }
        assert_eq!(resolve_host("::1", 7, soon()).unwrap(), ["[::1]:7".parse().unwrap()]);
    }

    #[test]
    fn a_lack_of_file_descriptors_is_no_network_error() {
        let peer = Peer::server("auth.example", 443);
        #[cfg(unix)]
        let code = libc::EMFILE;
        #[cfg(not(unix))]
        let code = 10024;
        let error = peer.io_error(Phase::Connect, &io::Error::from_raw_os_error(code), soon());
        assert_eq!(error.kind(), Kind::Io);
        assert!(error.to_string().contains("too many open"), "{error}");
    }

    #[test]
    fn the_deadline_and_a_lost_connection_are_told_apart() {
        let peer = Peer::server("auth.example", 443);
        let over = io::Error::from(io::ErrorKind::TimedOut);
        let error = peer.io_error(Phase::AwaitResponse, &over, soon());
        assert_eq!((error.kind(), error.phase()), (Kind::Timeout, Phase::AwaitResponse));
        assert!(
            error.to_string().starts_with("auth.example:443 accepted the connection but sent no response within 5.0 s"),
            "{error}"
        );
        #[cfg(unix)]
        {
            let lost = io::Error::from_raw_os_error(libc::ETIMEDOUT);
            assert_eq!(lost.kind(), io::ErrorKind::TimedOut);
            let error = peer.io_error(Phase::AwaitResponse, &lost, soon());
            assert_eq!(error.kind(), Kind::Connect);
        }
    }

    #[test]
    fn failures_name_the_peer_and_the_cause() {
        let peer = Peer::server("::1", 443);
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let error = peer.io_error(Phase::Connect, &refused, soon());
        assert_eq!(
            error.to_string(),
            "cannot connect to [::1]:443: connection refused; \
             check the host and port, and that no firewall blocks them"
        );
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        let error = peer.io_error(Phase::ReceiveBody, &reset, soon());
        assert_eq!((error.kind(), error.phase()), (Kind::Connect, Phase::ReceiveBody));
        assert!(error.is_retryable());
        assert!(error.to_string().contains("in the middle of its response"), "{error}");
    }
}
