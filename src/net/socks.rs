//! The handshakes of SOCKS 4, 4a and 5 (RFC 1928, 1929).
//!
//! - Nothing is sent or read beyond the handshake: afterwards the stream leads to the server.
//! - User names and passwords are sent as bytes, and the buffers that held them are wiped.
//!
//! By hand, because ureq's SOCKS keeps passwords in unwiped memory, and does not say which of the two peers failed.

use crate::net::proxy::{ProxyUrl, parse_address};
use crate::net::tcp::Stream;
use std::io;
use std::net::IpAddr;
use zeroize::Zeroizing;

/// The server that a proxy connects to.
pub(crate) struct Target<'a> {
    /// The server's host.
    pub(crate) host: &'a str,
    /// The server's port.
    pub(crate) port: u16,
    /// Its address, if [`ProxyUrl::resolves_locally`].
    pub(crate) address: Option<IpAddr>,
}

/// Why a proxy did not connect to the server.
pub(super) enum SocksError {
    /// The connection to the proxy failed.
    Io(io::Error),
    /// It requires credentials, or rejected those it received.
    AuthRequired,
    /// It supports neither user name and password nor no authentication.
    OtherAuthRequired,
    /// The reason, and whether a retry may succeed.
    Rejected(&'static str, bool),
}

impl From<io::Error> for SocksError {
    fn from(error: io::Error) -> Self {
        SocksError::Io(error)
    }
}

/// SOCKS 4 and 4a.
pub(super) fn socks4(stream: &mut dyn Stream, proxy: &ProxyUrl, target: &Target<'_>) -> Result<(), SocksError> {
    let address = target.address.or_else(|| parse_address(target.host));
    let mut request = Zeroizing::new(Vec::with_capacity(1024));
    request.extend_from_slice(&[4, 1]);
    request.extend_from_slice(&target.port.to_be_bytes());
    match address {
        Some(IpAddr::V4(address)) => request.extend_from_slice(&address.octets()),
        Some(IpAddr::V6(_)) => {
            return Err(SocksError::Rejected("SOCKS 4 does not support IPv6", false));
        }
        // An invalid address announces that a name follows.
        None => request.extend_from_slice(&[0, 0, 0, 1]),
    }
    if let Some((user, _)) = &proxy.userinfo {
        request.extend_from_slice(user.expose());
    }
    request.push(0);
    if address.is_none() {
        request.extend_from_slice(target.host.as_bytes());
        request.push(0);
    }
    stream.write_all(&request)?;
    let mut reply = [0; 8];
    stream.read_exact(&mut reply)?;
    match reply {
        [0, 90, ..] => Ok(()),
        [0, 91, ..] => Err(SocksError::Rejected("request rejected or failed", true)),
        [0, 92 | 93, ..] => Err(SocksError::AuthRequired),
        _ => Err(SocksError::Rejected("its response is not SOCKS 4", false)),
    }
}

/// The codes of RFC 1928, section 6, in its words, and whether a retry may succeed.
pub(super) const SOCKS5_REPLIES: [(u8, &str, bool); 8] = [
    (1, "general SOCKS server failure", true),
    (2, "connection not allowed by ruleset", false),
    (3, "network unreachable", true),
    (4, "host unreachable", true),
    (5, "connection refused", true),
    (6, "TTL expired", true),
    (7, "command not supported", false),
    (8, "address type not supported", false),
];

/// SOCKS 5 (RFC 1928), with a name and password (RFC 1929) if there are any.
pub(super) fn socks5(stream: &mut dyn Stream, proxy: &ProxyUrl, target: &Target<'_>) -> Result<(), SocksError> {
    const NOT_SOCKS: SocksError = SocksError::Rejected("its response is not SOCKS 5", false);
    // The length of a name or password is one byte.
    let short = |name: &[u8]| {
        u8::try_from(name.len())
            .map_err(|_| SocksError::Rejected("SOCKS 5 allows at most 255 bytes for a name or password", false))
    };
    let offer: &[u8] = if proxy.userinfo.is_some() { &[5, 2, 0, 2] } else { &[5, 1, 0] };
    stream.write_all(offer)?;
    let mut reply = [0; 2];
    stream.read_exact(&mut reply)?;
    match (reply, &proxy.userinfo) {
        ([5, 0], _) => {}
        ([5, 2], Some((user, password))) => {
            let (user, password) = (user.expose(), password.expose());
            let mut userinfo = Zeroizing::new(Vec::with_capacity(3 + 2 * 255));
            userinfo.extend_from_slice(&[1, short(user)?]);
            userinfo.extend_from_slice(user);
            userinfo.push(short(password)?);
            userinfo.extend_from_slice(password);
            stream.write_all(&userinfo)?;
            stream.read_exact(&mut reply)?;
            if reply[1] != 0 {
                return Err(SocksError::AuthRequired);
            }
        }
        ([5, 0xff], Some(_)) => return Err(SocksError::OtherAuthRequired),
        ([5, _], _) => return Err(SocksError::AuthRequired),
        _ => return Err(NOT_SOCKS),
    }

    let mut request = vec![5, 1, 0];
    match target.address.or_else(|| parse_address(target.host)) {
        Some(IpAddr::V4(address)) => {
            request.push(1);
            request.extend_from_slice(&address.octets());
        }
        Some(IpAddr::V6(address)) => {
            request.push(4);
            request.extend_from_slice(&address.octets());
        }
        None => {
            request.extend_from_slice(&[3, short(target.host.as_bytes())?]);
            request.extend_from_slice(target.host.as_bytes());
        }
    }
    request.extend_from_slice(&target.port.to_be_bytes());
    stream.write_all(&request)?;

    let mut reply = [0; 4];
    stream.read_exact(&mut reply[..2])?;
    match reply {
        [5, 0, ..] => {}
        [5, code, ..] => {
            let row = SOCKS5_REPLIES.iter().find(|(have, _, _)| *have == code);
            let (reason, retryable) = row.map_or(("unknown SOCKS 5 error", false), |row| (row.1, row.2));
            return Err(SocksError::Rejected(reason, retryable));
        }
        _ => return Err(NOT_SOCKS),
    }
    // The address that the proxy connects from is of no use, but has to be read.
    stream.read_exact(&mut reply[2..])?;
    let length = match reply[3] {
        1 => 4,
        4 => 16,
        3 => {
            let mut length = [0];
            stream.read_exact(&mut length)?;
            usize::from(length[0])
        }
        _ => return Err(NOT_SOCKS),
    };
    let mut bound = [0; 255 + 2];
    stream.read_exact(&mut bound[..length + 2])?;
    Ok(())
}
