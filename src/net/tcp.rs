//! A TCP connection with a deadline, and the description of its failures.
//!
//! All network I/O of a call goes through a [`Stream`]. It checks the deadline before each system call, so a
//! peer that sends or reads one byte at a time cannot delay a call beyond its timeout. A failure becomes an
//! [`Error`] where it happens, because only there the peer and the phase are known.
//!
//! The sockets do not block, and `poll` waits for them, because its timeouts are exact: Linux rounds those of
//! socket options (`SO_RCVTIMEO`) up by as much as an eighth.
//!
//! A broken connection must not raise SIGPIPE in the application. The standard library sends with
//! `MSG_NOSIGNAL`, but only in `write`: its `write_vectored` is a bare `writev`. So [`TcpConnection`] keeps
//! the default `write_vectored`, which calls `write`.

use crate::error::{Error, Kind, Phase, resource_limit};
use crate::net::url::host_and_port;
use crate::sys::deadline::IoDeadline;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A connection, with or without TLS. All its operations end by its deadline.
pub(crate) trait Stream: Read + Write + Send + Sync {
    /// Replaces the deadline.
    fn set_deadline(&mut self, deadline: IoDeadline);

    /// Reads what has arrived; an error of the kind `WouldBlock` if that is nothing. Does not look at the deadline.
    fn read_arrived(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes what fits without waiting; an error of the kind `WouldBlock` if that is nothing. Does not look at the
    /// deadline.
    #[cfg(all(unix, feature = "serve"))]
    fn write_ready(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Like [`Stream::write_ready`], for what the layers of the connection still hold.
    #[cfg(all(unix, feature = "serve"))]
    fn flush_ready(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// The socket, for programs that wait for many connections at once.
    #[cfg(all(unix, feature = "serve"))]
    fn socket(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        None
    }

    /// Whether the peer has neither closed the connection nor sent anything, so that another request can be sent.
    fn is_idle(&mut self) -> bool {
        self.read_arrived(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// A TCP connection, on a socket that does not block.
pub(crate) struct TcpConnection {
    stream: TcpStream,
    deadline: IoDeadline,
}

impl TcpConnection {
    /// A connection over a socket that is connected and does not block.
    pub(super) fn new(stream: TcpStream, deadline: IoDeadline) -> Self {
        // A request is small and waits for its response: Nagle's algorithm would only delay it.
        let _ = stream.set_nodelay(true);
        TcpConnection { stream, deadline }
    }

    /// Runs one operation, and repeats it when the socket is ready, until it completes.
    fn run<T>(
        &mut self,
        readiness: PollFlags,
        mut operation: impl FnMut(&mut TcpStream) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            let left = self.deadline.remaining()?;
            match operation(&mut self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wait_until_ready(&mut [PollFd::new(&self.stream, readiness)], left)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

/// Waits until one of the sockets is ready, for at most this time. May return early, such as after a signal.
pub(super) fn wait_until_ready(sockets: &mut [PollFd<'_>], timeout: Duration) -> io::Result<()> {
    let timeout = Timespec::try_from(timeout).map_err(|_| io::ErrorKind::InvalidInput)?;
    match poll(sockets, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl Read for TcpConnection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.run(PollFlags::IN, |stream| stream.read(buffer))
    }
}

impl Write for TcpConnection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.run(PollFlags::OUT, |stream| stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for TcpConnection {
    fn set_deadline(&mut self, deadline: IoDeadline) {
        self.deadline = deadline;
    }

    fn read_arrived(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }

    #[cfg(all(unix, feature = "serve"))]
    fn write_ready(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    #[cfg(all(unix, feature = "serve"))]
    fn socket(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        Some(std::os::fd::AsFd::as_fd(&self.stream))
    }
}

impl Stream for Box<dyn Stream> {
    fn set_deadline(&mut self, deadline: IoDeadline) {
        (**self).set_deadline(deadline);
    }

    fn read_arrived(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (**self).read_arrived(buffer)
    }

    #[cfg(all(unix, feature = "serve"))]
    fn write_ready(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (**self).write_ready(bytes)
    }

    #[cfg(all(unix, feature = "serve"))]
    fn flush_ready(&mut self) -> io::Result<()> {
        (**self).flush_ready()
    }

    #[cfg(all(unix, feature = "serve"))]
    fn socket(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        (**self).socket()
    }

    fn is_idle(&mut self) -> bool {
        (**self).is_idle()
    }
}

/// A connection that is closed.
pub(super) struct ClosedStream;

impl Read for ClosedStream {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::NotConnected.into())
    }
}

impl Write for ClosedStream {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::NotConnected.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::NotConnected.into())
    }
}

impl Stream for ClosedStream {
    fn set_deadline(&mut self, _: IoDeadline) {}

    fn read_arrived(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::NotConnected.into())
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
            return self.timeout_error(phase, &format!(" within {deadline}"));
        }
        let message = match (phase, describe_io_error(error)) {
            (Phase::Resolve | Phase::Connect, reason) => {
                format!("{failed}: {reason}")
            }
            (_, _) if is_disconnect(error) => {
                format!("{name} closed the connection {}", text.closed)
            }
            (_, reason) => format!("{failed}: {reason}"),
        };
        self.network_error(phase, message)
    }

    /// The error for a deadline that passed in this phase; `limit` ends the message.
    pub(super) fn timeout_error(&self, phase: Phase, limit: &str) -> Error {
        let (before, after) = phase_text(phase).late;
        self.error(Kind::Timeout, phase, format!("{before}{}{after}{limit}", self.name))
            .with_hint("check the network, or increase timeout_ms and connect_timeout_ms")
    }

    /// The error for a network that did not do what it should.
    pub(super) fn network_error(&self, phase: Phase, message: String) -> Error {
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
pub(super) fn describe_io_error(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => {
            "no route to the host".to_owned()
        }
        io::ErrorKind::PermissionDenied => "this machine does not permit the connection".to_owned(),
        _ => crate::sanitize::sanitize(&error.to_string(), &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::connect::connect;
    use std::net::TcpListener;

    fn soon() -> IoDeadline {
        IoDeadline::after(Duration::from_secs(5))
    }

    /// Linux rounds the timeouts of socket options up, by as much as an eighth.
    #[test]
    fn a_connection_waits_by_poll_and_not_by_socket_options() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let found = [listener.local_addr().unwrap()];
        let (peer, deadline) =
            (Peer::server("127.0.0.1", found[0].port()), IoDeadline::after(Duration::from_millis(20)));
        let (mut connection, _) = connect(&found, &peer, soon()).unwrap();
        connection.set_deadline(deadline);
        assert_eq!(connection.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::TimedOut);
        let full = loop {
            if let Err(error) = connection.write(&[0; 1 << 16]) {
                break error;
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::TimedOut);
        let mut stream = connection.stream;
        assert_eq!((stream.read_timeout().unwrap(), stream.write_timeout().unwrap()), (None, None));
        assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
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

    /// EAGAIN is the error of pthread_create, but also that of other calls.
    #[test]
    #[cfg(unix)]
    fn only_the_error_of_a_thread_is_about_threads() {
        let peer = Peer::server("auth.example", 443);
        for phase in [Phase::Resolve, Phase::Connect, Phase::AwaitResponse] {
            let error = peer.io_error(phase, &io::Error::from_raw_os_error(libc::EAGAIN), soon());
            assert!(!error.to_string().contains("thread"), "{error}");
            assert_ne!(error.kind(), Kind::Io);
        }
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
