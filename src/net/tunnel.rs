//! The handshakes by which a proxy opens a connection to the server: `CONNECT`, SOCKS 4 and SOCKS 5.
//!
//! - Nothing is sent or read beyond the handshake: afterwards the stream leads to the server.
//! - A proxy's reply is limited in size, and each failure says whether the proxy or the server caused it.
//! - User names and passwords are sent as bytes, and the buffers that held them are wiped.
//!
//! By hand, because ureq's proxies do not percent-decode passwords, keep them in unwiped memory, and do not
//! say which of the two peers failed.

use crate::error::{Kind, Phase, Result};
use crate::net::proxy::{ProxyUrl, Scheme, parse_address};
use crate::net::url::host_and_port;
use crate::sys::deadline::IoDeadline;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use std::io::{self, Read, Write};
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

/// Has a proxy connect to the server. `stream` is a connection to the proxy, and afterwards leads to the server.
pub(crate) fn open_tunnel(
    stream: &mut (impl Read + Write + ?Sized),
    proxy: &ProxyUrl,
    target: &Target<'_>,
    deadline: IoDeadline,
) -> Result<()> {
    let outcome = match proxy.scheme {
        Scheme::Http | Scheme::Https => connect(stream, proxy, target),
        Scheme::Socks4 | Scheme::Socks4a => socks4(stream, proxy, target),
        Scheme::Socks5 | Scheme::Socks5h => socks5(stream, proxy, target),
    };
    let peer = proxy.peer();
    let server = host_and_port(target.host, target.port);
    outcome.map_err(|refusal| match refusal {
        TunnelError::Io(error) => peer.io_error(Phase::Tunnel, &error, deadline),
        TunnelError::AuthRequired(status) => {
            let what = match proxy.userinfo {
                Some(_) => "rejected the user name and password",
                None => "requires a user name and password",
            };
            let error = peer
                .error(Kind::Proxy, Phase::Tunnel, format!("{} {what}", peer.name))
                .with_hint("add them to the proxy's URL, as in http://user:password@host:port");
            match status {
                Some(status) => error.with_http_status(status),
                None => error,
            }
        }
        TunnelError::HttpStatus(status) => peer
            .error(Kind::Proxy, Phase::Tunnel, format!("{} could not connect to {server}", peer.name))
            .with_http_status(status)
            .with_retryable(status >= 500 || status == 429)
            .with_hint("ask its operator to allow that host, or list the host in NO_PROXY"),
        TunnelError::Rejected(reason, retryable) => peer
            .error(Kind::Proxy, Phase::Tunnel, format!("{} could not connect to {server}: {reason}", peer.name))
            .with_retryable(retryable)
            .with_hint("check the proxy, and that it can connect to that host"),
    })
}

/// Why a proxy did not connect to the server.
enum TunnelError {
    /// The connection to the proxy failed.
    Io(io::Error),
    /// It requires credentials, or rejected those it received; with the HTTP status if there is one.
    AuthRequired(Option<u16>),
    /// It responded to `CONNECT` with this status.
    HttpStatus(u16),
    /// The reason, and whether a retry may succeed.
    Rejected(&'static str, bool),
}

impl From<io::Error> for TunnelError {
    fn from(error: io::Error) -> Self {
        TunnelError::Io(error)
    }
}

/// The maximum size of the head of a response to `CONNECT`.
const HEAD_LIMIT: usize = 16 * 1024;

fn connect(
    stream: &mut (impl Read + Write + ?Sized),
    proxy: &ProxyUrl,
    target: &Target<'_>,
) -> std::result::Result<(), TunnelError> {
    let server = host_and_port(target.host, target.port);
    let credentials = match &proxy.userinfo {
        Some((user, password)) => basic_credentials(user.expose(), password.expose()),
        None => Zeroizing::default(),
    };
    let (before, after) = match credentials.is_empty() {
        true => ("", ""),
        false => ("Proxy-Authorization: Basic ", "\r\n"),
    };
    let start = format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n");
    // Joined at once: a buffer that grows leaves copies of the password behind.
    let request = [start.as_bytes(), before.as_bytes(), &credentials, after.as_bytes(), b"\r\n"].concat();
    stream.write_all(&Zeroizing::new(request))?;

    let mut head = vec![0; HEAD_LIMIT];
    let mut filled = 0;
    let end = loop {
        if let Some(end) = head[..filled].windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if filled == head.len() {
            return Err(TunnelError::Rejected("its response to CONNECT is too large", false));
        }
        match stream.read(&mut head[filled..])? {
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            count => filled += count,
        }
    };
    let status = std::str::from_utf8(&head[..end])
        .ok()
        .and_then(|head| head.strip_prefix("HTTP/1."))
        .and_then(|rest| rest.split_whitespace().nth(1))
        .and_then(|status| status.parse::<u16>().ok());
    match status {
        // A TLS server does not send first, so data that follows did not come from the server.
        Some(200..=299) if end < filled => Err(TunnelError::Rejected("it sent data before the server did", false)),
        Some(200..=299) => Ok(()),
        // Only a server should send 401, but tinyproxy sends it for a wrong password.
        Some(status @ (401 | 407)) => Err(TunnelError::AuthRequired(Some(status))),
        Some(status) => Err(TunnelError::HttpStatus(status)),
        None => Err(TunnelError::Rejected("its response is not HTTP", false)),
    }
}

/// SOCKS 4 and 4a.
fn socks4(
    stream: &mut (impl Read + Write + ?Sized),
    proxy: &ProxyUrl,
    target: &Target<'_>,
) -> std::result::Result<(), TunnelError> {
    let address = target.address.or_else(|| parse_address(target.host));
    let mut request = Zeroizing::new(Vec::with_capacity(1024));
    request.extend_from_slice(&[4, 1]);
    request.extend_from_slice(&target.port.to_be_bytes());
    match address {
        Some(IpAddr::V4(address)) => request.extend_from_slice(&address.octets()),
        Some(IpAddr::V6(_)) => {
            return Err(TunnelError::Rejected("SOCKS 4 does not support IPv6", false));
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
        [0, 91, ..] => Err(TunnelError::Rejected("request rejected or failed", true)),
        [0, 92 | 93, ..] => Err(TunnelError::AuthRequired(None)),
        _ => Err(TunnelError::Rejected("its response is not SOCKS 4", false)),
    }
}

/// The codes of RFC 1928, section 6, in its words, and whether a retry may succeed.
const SOCKS5_REPLIES: [(u8, &str, bool); 8] = [
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
fn socks5(
    stream: &mut (impl Read + Write + ?Sized),
    proxy: &ProxyUrl,
    target: &Target<'_>,
) -> std::result::Result<(), TunnelError> {
    const NOT_SOCKS: TunnelError = TunnelError::Rejected("its response is not SOCKS 5", false);
    // The length of a name or password is one byte.
    let short = |name: &[u8]| {
        u8::try_from(name.len())
            .map_err(|_| TunnelError::Rejected("SOCKS 5 allows at most 255 bytes for a name or password", false))
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
                return Err(TunnelError::AuthRequired(None));
            }
        }
        ([5, _], _) => return Err(TunnelError::AuthRequired(None)),
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
            return Err(TunnelError::Rejected(reason, retryable));
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

/// The value of `Basic` authentication (RFC 7617). Both buffers are allocated once and wiped.
fn basic_credentials(user: &[u8], password: &[u8]) -> Zeroizing<Vec<u8>> {
    let plain = Zeroizing::new([user, b":", password].concat());
    let mut encoded = Zeroizing::new(vec![0; plain.len().div_ceil(3) * 4]);
    // The buffer has the exact length, so that encoding cannot fail.
    let length = BASE64_STANDARD.encode_slice(&*plain, &mut encoded).unwrap_or_default();
    encoded.truncate(length);
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn basic_credentials_are_padded() {
        for (user, password, encoded) in
            [("", "", "Og=="), ("f", "", "Zjo="), ("f", "o", "Zjpv"), ("\u{ff}?", "~", "w78/On4=")]
        {
            assert_eq!(*basic_credentials(user.as_bytes(), password.as_bytes()), encoded.as_bytes());
        }
    }

    /// A proxy that sends fixed replies and records what it receives.
    struct Script {
        replies: io::Cursor<Vec<u8>>,
        sent: Vec<u8>,
    }

    impl Read for Script {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.replies.read(buffer)
        }
    }

    impl Write for Script {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.sent.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn play(proxy: impl AsRef<[u8]>, address: Option<&str>, replies: &[u8]) -> (Vec<u8>, Result<()>) {
        let mut script = Script { replies: io::Cursor::new(replies.to_vec()), sent: Vec::new() };
        let target =
            Target { host: "far.example", port: 443, address: address.map(|address| address.parse().unwrap()) };
        let deadline = IoDeadline::after(Duration::from_secs(5));
        let outcome = open_tunnel(&mut script, &ProxyUrl::parse(proxy).unwrap(), &target, deadline);
        (script.sent, outcome)
    }

    #[test]
    fn socks4_with_name_and_with_address() {
        let granted = [0, 90, 0, 0, 0, 0, 0, 0];
        let (sent, outcome) = play("socks4a://u:p@h", None, &granted);
        outcome.unwrap();
        assert_eq!(sent, b"\x04\x01\x01\xbb\x00\x00\x00\x01u\x00far.example\x00");
        let (sent, outcome) = play("socks4://h", Some("1.2.3.4"), &granted);
        outcome.unwrap();
        assert_eq!(sent, b"\x04\x01\x01\xbb\x01\x02\x03\x04\x00");
        let (_, outcome) = play("socks4://h", Some("::1"), &granted);
        assert_eq!(outcome.unwrap_err().kind(), Kind::Proxy);
        let (_, outcome) = play("socks4://h", Some("1.2.3.4"), &[0, 91, 0, 0, 0, 0, 0, 0]);
        assert_eq!(outcome.unwrap_err().kind(), Kind::Proxy);
    }

    /// Latin-1, which is not UTF-8, as it stands in the URL and percent-encoded.
    #[test]
    fn user_names_and_passwords_are_sent_as_bytes() {
        let established = b"HTTP/1.1 200 OK\r\n\r\n";
        for userinfo in [&b"m\xe9:p\xff"[..], b"m%E9:p%FF", b"m%e9:p\xff"] {
            let url = |scheme: &str| [scheme.as_bytes(), b"://", userinfo, b"@h"].concat();
            let (sent, outcome) = play(url("http"), None, established);
            outcome.unwrap();
            let expected = "\r\nProxy-Authorization: Basic bek6cP8=\r\n";
            assert!(String::from_utf8(sent).unwrap().contains(expected));
            let (sent, outcome) = play(url("socks5h"), None, &[5, 2, 1, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
            outcome.unwrap();
            assert!(sent.starts_with(b"\x05\x02\x00\x02\x01\x02m\xe9\x02p\xff\x05\x01\x00"), "{sent:?}");
            let (sent, outcome) = play(url("socks4a"), None, &[0, 90, 0, 0, 0, 0, 0, 0]);
            outcome.unwrap();
            assert_eq!(sent, b"\x04\x01\x01\xbb\x00\x00\x00\x01m\xe9\x00far.example\x00");
        }
    }

    #[test]
    fn socks5_failures_are_described() {
        let open = [5, 0];
        for (code, reason, retryable) in SOCKS5_REPLIES {
            let (_, outcome) = play("socks5h://h", None, &[&open[..], &[5, code]].concat());
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), Kind::Proxy);
            assert!(error.to_string().contains(reason), "{error}");
            assert_eq!(error.is_retryable(), retryable);
        }
        for replies in [&[5_u8, 0xff][..], &[5, 2], &[5, 2, 1, 1]] {
            let userinfo = if replies.len() > 2 { "u:p@" } else { "" };
            let (_, outcome) = play(format!("socks5h://{userinfo}h"), None, replies);
            assert!(outcome.unwrap_err().to_string().contains("user name and password"));
        }
        let (_, outcome) = play("socks5h://h", None, b"HTTP/1.1 400 Bad Request\r\n\r\n");
        assert!(outcome.unwrap_err().to_string().contains("not SOCKS 5"));
        let (_, outcome) = play("socks5h://h", None, &[5]);
        assert!(outcome.unwrap_err().to_string().contains("closed the connection"));
        let long = format!("socks5h://u:{}@h", "x".repeat(256));
        let (sent, outcome) = play(&long, None, &[5, 2]);
        assert_eq!(outcome.unwrap_err().kind(), Kind::Proxy);
        assert_eq!(sent, [5, 2, 0, 2]);
    }

    #[test]
    fn each_form_of_bound_address_is_skipped() {
        for bound in [
            &[1, 0, 0, 0, 0, 0, 0][..],
            &[3, 1, b'x', 0, 0],
            &[4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ] {
            let (_, outcome) = play("socks5h://h", None, &[&[5, 0, 5, 0, 0], bound].concat());
            outcome.unwrap();
        }
    }

    #[test]
    fn responses_to_connect() {
        let (sent, outcome) = play("http://h", None, b"HTTP/1.0 200 Connection established\r\nX: y\r\n\r\n");
        outcome.unwrap();
        assert_eq!(sent, b"CONNECT far.example:443 HTTP/1.1\r\nHost: far.example:443\r\n\r\n");
        for (reply, words, status) in [
            (&b"HTTP/1.1 407 Authenticate\r\n\r\n"[..], "requires a user name and password", Some(407)),
            (b"HTTP/1.1 403 No\r\nContent-Length: 3\r\n\r\nno.", "could not connect to far.example:443", Some(403)),
            (b"HTTP/1.1 200 OK\r\n\r\n\x15", "data before the server", None),
            (b"SSH-2.0-OpenSSH\r\n\r\n", "not HTTP", None),
            (b"HTTP/1.1 200 OK\r\n", "closed the connection", None),
            (&[b'x'; HEAD_LIMIT], "too large", None),
        ] {
            let (_, outcome) = play("http://h", None, reply);
            let error = outcome.unwrap_err();
            assert_eq!((error.kind(), error.http_status()), (Kind::Proxy, status));
            assert!(error.to_string().contains(words), "{error}");
        }
        let (_, outcome) = play("http://u:p@h", None, b"HTTP/1.1 401 Unauthorized\r\n\r\n");
        let error = outcome.unwrap_err();
        assert!(error.to_string().contains("rejected the user name and password (HTTP 401)"), "{error}");
        let (_, outcome) = play("http://h", None, b"HTTP/1.1 502 Bad\r\n\r\n");
        assert!(outcome.unwrap_err().is_retryable());
    }
}
