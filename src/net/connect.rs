//! Connecting to one of the addresses of a host, as RFC 8305 ("Happy Eyeballs") recommends.
//!
//! - The families take turns, beginning with that of the first address. The resolver has sorted the addresses.
//! - The next address is tried as soon as one has failed, or after [`ATTEMPT_DELAY`]. Earlier attempts stay open,
//!   and the first connection that is established is used. So neither a slow link nor an address that swallows
//!   packets can prevent a connection that another address would give.
//! - All attempts run in the calling thread, on sockets that do not block, and end by the deadline.
//! - The error has one reason for each address. Its kind is that of an address that could be tried: on a machine
//!   without IPv6, the reason is not the lack of IPv6.
//!
//! By hand, because the crates for it need an asynchronous runtime.

use crate::error::{Error, Kind, Phase, Result, resource_limit};
use crate::net::tcp::{Peer, TcpConnection, describe_io_error, wait_until_ready};
use crate::sys::deadline::IoDeadline;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// How long an address is tried before the next one is tried too (RFC 8305, section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// The largest number of addresses that are tried: a name server may return thousands.
const MAX_ATTEMPTS: usize = 64;

/// The largest number of addresses that an error lists for one reason.
const MAX_LISTED: usize = 3;

/// Connects to one of the addresses.
pub(crate) fn connect(found: &[SocketAddr], peer: &Peer, deadline: IoDeadline) -> Result<(TcpConnection, SocketAddr)> {
    let mut attempts = Attempts::new(found);
    match attempts.run(deadline) {
        Ok((stream, address)) => Ok((TcpConnection::new(stream, deadline), address)),
        Err(error) => Err(attempts.describe(&error, peer, deadline)),
    }
}

/// The attempts to connect to one host.
struct Attempts {
    /// The addresses that were not tried yet.
    queue: std::vec::IntoIter<SocketAddr>,
    pending: Vec<(TcpStream, SocketAddr)>,
    failed: Vec<(SocketAddr, io::Error)>,
}

impl Attempts {
    fn new(found: &[SocketAddr]) -> Self {
        Attempts { queue: in_turns(found).into_iter(), pending: Vec::new(), failed: Vec::new() }
    }

    /// Tries the addresses until one is connected, all have failed, or the deadline has passed.
    fn run(&mut self, deadline: IoDeadline) -> io::Result<(TcpStream, SocketAddr)> {
        let mut next = Instant::now();
        loop {
            let left = deadline.remaining()?;
            let until_next = next.saturating_duration_since(Instant::now());
            if (self.pending.is_empty() || until_next.is_zero())
                && let Some(address) = self.queue.next()
            {
                match start(address) {
                    Ok(stream) => {
                        self.pending.push((stream, address));
                        next = Instant::now() + ATTEMPT_DELAY;
                    }
                    Err(error) => self.failed.push((address, error)),
                }
                continue;
            }
            if self.pending.is_empty() {
                return Err(io::Error::other("no address could be connected to"));
            }
            let wait = if self.queue.as_slice().is_empty() { left } else { left.min(until_next) };
            let ready: Vec<bool> = {
                let mut sockets: Vec<_> =
                    self.pending.iter().map(|(stream, _)| PollFd::new(stream, PollFlags::OUT)).collect();
                wait_until_ready(&mut sockets, wait)?;
                sockets.iter().map(|socket| !socket.revents().is_empty()).collect()
            };
            let mut index = 0;
            for is_ready in ready {
                if !is_ready {
                    index += 1;
                    continue;
                }
                let (stream, address) = self.pending.remove(index);
                match stream.take_error() {
                    Ok(None) => return Ok((stream, address)),
                    Ok(Some(error)) | Err(error) => {
                        self.failed.push((address, error));
                        next = Instant::now();
                    }
                }
            }
        }
    }

    /// The error for attempts of which none succeeded.
    fn describe(&self, error: &io::Error, peer: &Peer, deadline: IoDeadline) -> Error {
        let name = &peer.name;
        if let Some((_, lack)) = self.failed.iter().find(|(_, error)| resource_limit(error).is_some()) {
            return peer.io_error(Phase::Connect, lack, deadline);
        }
        if self.failed.iter().any(|(address, error)| is_out_of_ports(*address, error)) {
            let message = format!("cannot connect to {name}: no free port left on this machine");
            return peer
                .error(Kind::Io, Phase::Connect, message)
                .with_hint("close connections, or widen the range of ports (net.ipv4.ip_local_port_range)");
        }
        let is_late = error.kind() == io::ErrorKind::TimedOut;
        if self.failed.is_empty() || resource_limit(error).is_some() {
            return peer.io_error(Phase::Connect, error, deadline);
        }
        // Addresses that this machine has no route to come last: the others have more to tell.
        let (tried, unreachable): (Vec<_>, Vec<_>) = self.failed.iter().partition(|(_, error)| !is_unreachable(error));
        let mut reasons: Vec<(String, Vec<SocketAddr>)> = Vec::new();
        let failed = |(address, error): &(SocketAddr, io::Error)| (*address, describe_connect_error(error));
        let silent = self.pending.iter().map(|(_, address)| (*address, "no response".to_owned()));
        for (address, reason) in tried.into_iter().map(failed).chain(silent).chain(unreachable.into_iter().map(failed))
        {
            match reasons.iter_mut().find(|(have, _)| *have == reason) {
                Some((_, addresses)) => addresses.push(address),
                None => reasons.push((reason, vec![address])),
            }
        }
        let reasons = match reasons.as_slice() {
            // Then the name of the peer says enough.
            [(reason, _)] => reason.clone(),
            several => {
                several.iter().map(|(reason, at)| format!("{reason} ({})", list(at))).collect::<Vec<_>>().join(", ")
            }
        };
        match is_late {
            true => peer.timeout_error(Phase::Connect, &format!(" within {deadline}: {reasons}")),
            false => peer.network_error(Phase::Connect, format!("cannot connect to {name}: {reasons}")),
        }
    }
}

/// The addresses with their families in turn, beginning with that of the first one.
fn in_turns(found: &[SocketAddr]) -> Vec<SocketAddr> {
    let first_is_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (mut first, mut second) = (
        found.iter().filter(|address| address.is_ipv6() == first_is_v6),
        found.iter().filter(|address| address.is_ipv6() != first_is_v6),
    );
    let turns = std::iter::repeat_with(|| [first.next(), second.next()]);
    turns.take(found.len()).flatten().flatten().take(MAX_ATTEMPTS).copied().collect()
}

/// Begins to connect to an address.
fn start(address: SocketAddr) -> io::Result<TcpStream> {
    #[cfg(unix)]
    const IN_PROGRESS: Errno = Errno::INPROGRESS;
    #[cfg(not(unix))]
    const IN_PROGRESS: Errno = Errno::WOULDBLOCK;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    loop {
        match socket.connect(&address.into()) {
            Ok(()) => return Ok(socket.into()),
            Err(error) => match Errno::from_io_error(&error) {
                // A signal came. The connection may be under way after all, which the next call reports.
                Some(Errno::INTR) => {}
                Some(IN_PROGRESS | Errno::ALREADY | Errno::ISCONN) => return Ok(socket.into()),
                _ => return Err(error),
            },
        }
    }
}

/// Whether this machine has no way to the address, so that nothing was sent to it.
fn is_unreachable(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NETUNREACH | Errno::NETDOWN | Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT)
    )
}

/// Whether all ports for connections to the address are in use. The system has the same error for an address for
/// which it has no address of its own, but then a UDP socket cannot be connected either.
fn is_out_of_ports(address: SocketAddr, error: &io::Error) -> bool {
    // What connect(2) says of EAGAIN. Elsewhere the code is that of a connection that is under way.
    #[cfg(unix)]
    if Errno::from_io_error(error) == Some(Errno::AGAIN) {
        return true;
    }
    Errno::from_io_error(error) == Some(Errno::ADDRNOTAVAIL)
        && Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))
            .is_ok_and(|socket| UdpSocket::from(socket).connect(address).is_ok())
}

fn describe_connect_error(error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT) => "this machine has no address of that family".to_owned(),
        _ => describe_io_error(error),
    }
}

/// Addresses, without their port, and the number of those that do not fit.
fn list(addresses: &[SocketAddr]) -> String {
    let mut shown: Vec<_> = addresses.iter().take(MAX_LISTED).map(|address| address.ip().to_string()).collect();
    if addresses.len() > MAX_LISTED {
        shown.push(format!("{} more", addresses.len() - MAX_LISTED));
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(unix)]
    use std::net::TcpListener;

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn the_families_take_turns() {
        for (found, order) in [
            (&["1.1.1.1:1", "1.1.1.2:1", "[::1]:1"][..], &["1.1.1.1:1", "[::1]:1", "1.1.1.2:1"][..]),
            (&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"], &["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"]),
            (&["1.1.1.1:1"], &["1.1.1.1:1"]),
            (&[], &[]),
        ] {
            assert_eq!(in_turns(&addresses(found)), addresses(order));
        }
        assert_eq!(in_turns(&addresses(&["1.1.1.1:1"; 5000])).len(), MAX_ATTEMPTS);
    }

    #[cfg(unix)]
    fn failures(errors: &[(&str, i32)], pending: &[&str]) -> Attempts {
        let failed =
            errors.iter().map(|(address, code)| (address.parse().unwrap(), io::Error::from_raw_os_error(*code)));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = || TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        Attempts {
            queue: Vec::new().into_iter(),
            pending: addresses(pending).into_iter().map(|address| (stream(), address)).collect(),
            failed: failed.collect(),
        }
    }

    #[test]
    #[cfg(unix)]
    fn a_lack_of_ports_is_no_network_error() {
        let (peer, deadline) = (Peer::server("auth.example", 443), IoDeadline::after(Duration::from_secs(5)));
        let error = failures(&[("192.0.2.1:443", libc::EAGAIN)], &[]).describe(&io::Error::other("x"), &peer, deadline);
        assert_eq!(error.kind(), Kind::Io);
        let message = "cannot connect to auth.example:443: no free port left on this machine; ";
        assert!(error.to_string().starts_with(message), "{error}");
    }

    /// An address without a route is not the reason why a host cannot be connected to.
    #[test]
    #[cfg(unix)]
    fn each_address_has_its_reason_and_one_that_was_tried_comes_first() {
        let (peer, deadline) = (Peer::server("auth.example", 443), IoDeadline::after(Duration::from_secs(5)));
        let (v4, v6) = ("192.0.2.1:443", "[2001:db8::1]:443");
        let (late, failed) = (io::Error::from(io::ErrorKind::TimedOut), io::Error::other("x"));
        for (errors, pending, error, kind, words) in [
            (
                &[(v4, libc::ECONNREFUSED), (v6, libc::EAFNOSUPPORT)][..],
                &[][..],
                &failed,
                Kind::Connect,
                "cannot connect to auth.example:443: connection refused (192.0.2.1), \
                 this machine has no address of that family (2001:db8::1); ",
            ),
            (
                &[(v6, libc::ENETUNREACH), (v4, libc::ECONNREFUSED)],
                &[],
                &failed,
                Kind::Connect,
                "cannot connect to auth.example:443: connection refused (192.0.2.1), no route to the host (2001:db8::1); ",
            ),
            (
                &[(v6, libc::ENETUNREACH)],
                &[v4],
                &late,
                Kind::Timeout,
                "cannot connect to auth.example:443 within 5.0 s: no response (192.0.2.1), \
                 no route to the host (2001:db8::1); ",
            ),
            (&[], &[v4, v6], &late, Kind::Timeout, "cannot connect to auth.example:443 within 5.0 s; "),
            (
                &[(v4, libc::ECONNREFUSED), (v6, libc::ECONNREFUSED)],
                &[],
                &failed,
                Kind::Connect,
                "cannot connect to auth.example:443: connection refused; ",
            ),
            (
                &[(v4, libc::ECONNREFUSED), (v6, libc::EMFILE)],
                &[],
                &failed,
                Kind::Io,
                "cannot connect to auth.example:443: too many open files in this process; ",
            ),
        ] {
            let error = failures(errors, pending).describe(error, &peer, deadline);
            assert_eq!((error.kind(), error.phase()), (kind, Phase::Connect), "{error}");
            assert!(error.to_string().starts_with(words), "{error}");
        }
        let many: Vec<_> = (0..40).map(|_| (v4, libc::ECONNREFUSED)).chain([(v6, libc::ENETUNREACH)]).collect();
        let error = failures(&many, &[]).describe(&failed, &peer, deadline).to_string();
        assert!(error.contains("(192.0.2.1, 192.0.2.1, 192.0.2.1, 37 more)"), "{error}");
    }

    /// A listener that leaves every further attempt to connect unanswered, until one of the connections that fill its
    /// queue is accepted.
    #[cfg(target_os = "linux")]
    fn full_listener() -> (TcpListener, Vec<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(500)) {
            waiting.push(stream);
        }
        (listener, waiting)
    }

    /// Whether this process has a connection to the address that was not answered yet.
    #[cfg(target_os = "linux")]
    fn is_being_tried(address: SocketAddr) -> bool {
        let port = format!(":{:04X} 02 ", address.port());
        std::fs::read_to_string("/proc/net/tcp").unwrap().lines().any(|line| line.contains(&port))
    }

    /// Where each address only has a share of the time, a slow one is dropped before it answers: the system repeats
    /// its packet after a second.
    #[test]
    #[cfg(target_os = "linux")]
    fn an_address_stays_open_while_others_are_tried() {
        let (slow, waiting) = full_listener();
        let address = slow.local_addr().unwrap();
        // Nothing listens on the local port of a connection.
        let found = [&[address][..], &[waiting[0].local_addr().unwrap(); 19]].concat();
        let (peer, deadline) = (Peer::server("slow.example", 443), IoDeadline::after(Duration::from_secs(15)));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_being_tried(address) {
                    std::thread::yield_now();
                }
                for _ in &waiting {
                    slow.accept().unwrap();
                }
            });
            let connected = connect(&found, &peer, deadline).map(|(_, address)| address);
            assert_eq!(connected.unwrap(), address);
        });
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn an_address_that_does_not_answer_does_not_stop_the_others() {
        let (silent, _waiting) = full_listener();
        let good = TcpListener::bind("127.0.0.1:0").unwrap();
        let found = [silent.local_addr().unwrap(), good.local_addr().unwrap()];
        let (peer, deadline) = (Peer::server("dual.example", 443), IoDeadline::after(Duration::from_secs(15)));
        let mut attempts = Attempts::new(&found);
        let (_, address) = attempts.run(deadline).map_err(|error| attempts.describe(&error, &peer, deadline)).unwrap();
        assert_eq!(address, found[1]);
        assert_eq!(attempts.pending.iter().map(|(_, address)| *address).collect::<Vec<_>>(), found[..1]);
    }
}
