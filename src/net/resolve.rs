//! Resolving host names, within a deadline.

use crate::error::{Phase, Result, resource_limit};
use crate::net::tcp::Peer;
use crate::net::url::is_loopback;
use crate::sys::deadline::IoDeadline;
use crate::sys::threads::HelperThreads;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};

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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

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
}
