//! Which proxy a request goes through, and how a proxy is asked for a connection.
//!
//! [`select_proxy`] decides as curl does, with two exceptions: plain http goes through no proxy, and a proxy
//! without a port has the default port of its scheme.
//!
//! - Plain http is allowed for this machine only. A proxy, even one that listens on this machine (an SSH
//!   tunnel, a corporate agent), may connect to the loopback address of another machine, and the client
//!   secret would travel there unencrypted. So http requests go through no proxy, whatever is set.
//! - The `proxy` setting comes first; `none` means no proxy, whatever the environment says.
//! - Otherwise `https_proxy` or `HTTPS_PROXY` counts, and failing that `all_proxy` or `ALL_PROXY`. Lower
//!   case wins; an empty variable counts as unset.
//! - `no_proxy` or `NO_PROXY` exempts hosts, also from the `proxy` setting. Entries are divided by
//!   commas or spaces: `*` is every host, `example.com` and `.example.com` are that domain and all
//!   below it, `host:port` is one port, and addresses and networks (`10.0.0.0/8`, `fd00::/8`) fit
//!   hosts that are given as addresses. This machine itself is not exempt unless it is listed.
//!
//! A proxy's user name and password are bytes, in any encoding, as they stand in the URL or as its
//! percent-encoding says. They are sent to the proxy and shown nowhere: not in messages, not in
//! `Debug`. A proxy that is set but cannot be understood is an error, never a direct connection. The server's name is given to the proxy as it is, so that it need not be known here;
//! only `socks4` and `socks5` look it up here, which is what those two names mean.

use crate::error::{Error, Kind, Result, Stage};
use crate::net::tcp::{Moment, Peer};
use crate::net::url::{Url, host_and_port, parse_port, split_authority};
use crate::sys::deadline::IoDeadline;
use crate::sys::secret::SecretBytes;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use zeroize::Zeroizing;

/// Every variable that [`select_proxy`] asks for.
pub const VARIABLES: [&str; 6] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"];

/// How a proxy is talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// The method `CONNECT`.
    Http,
    /// The method `CONNECT`, inside TLS.
    Https,
    /// SOCKS 4, with an address.
    Socks4,
    /// SOCKS 4, with a name.
    Socks4a,
    /// SOCKS 5, with an address.
    Socks5,
    /// SOCKS 5, with a name.
    Socks5h,
}

/// Names and default ports.
const SCHEMES: [(&str, Scheme, u16); 6] = [
    ("http", Scheme::Http, 80),
    ("https", Scheme::Https, 443),
    ("socks4", Scheme::Socks4, 1080),
    ("socks4a", Scheme::Socks4a, 1080),
    ("socks5", Scheme::Socks5, 1080),
    ("socks5h", Scheme::Socks5h, 1080),
];

/// A proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyUrl {
    /// How it is talked to.
    pub scheme: Scheme,
    /// Its host, without brackets around an IPv6 address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The user name and password, decoded.
    pub userinfo: Option<(SecretBytes, SecretBytes)>,
}

impl fmt::Display for ProxyUrl {
    /// `scheme://host:port`, and nothing that was before the host.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = SCHEMES.iter().find(|(_, scheme, _)| *scheme == self.scheme).map_or("", |(name, _, _)| name);
        write!(f, "{name}://{}", host_and_port(&self.host, self.port))
    }
}

impl ProxyUrl {
    /// Takes a proxy's URL apart; `None` if it cannot be understood.
    pub fn parse(text: impl AsRef<[u8]>) -> Option<Self> {
        let text = text.as_ref().trim_ascii();
        let (scheme, rest) = match text.windows(3).position(|three| three == b"://") {
            Some(at) => (&text[..at], &text[at + 3..]),
            None => (&b"http"[..], text),
        };
        let same = |name: &str| scheme.eq_ignore_ascii_case(name.as_bytes());
        let (_, scheme, default_port) = SCHEMES.into_iter().find(|(name, _, _)| same(name))?;
        // The last `@` divides, so that a password may hold one that was not encoded.
        let (userinfo, rest) = match rest.iter().rposition(|byte| *byte == b'@') {
            Some(at) => (Some(&rest[..at]), &rest[at + 1..]),
            None => (None, rest),
        };
        let authority = rest.split(|byte| b"/?#".contains(byte)).next()?;
        let (host, port) = split_authority(std::str::from_utf8(authority).ok()?)?;
        let userinfo = userinfo.map(|userinfo| {
            let colon = userinfo.iter().position(|byte| *byte == b':').unwrap_or(userinfo.len());
            (percent_decode(&userinfo[..colon]), percent_decode(userinfo.get(colon + 1..).unwrap_or_default()))
        });
        // A NUL ends the user name in SOCKS 4: the proxy would take the rest for the server's name.
        let is_socks4 = matches!(scheme, Scheme::Socks4 | Scheme::Socks4a);
        if is_socks4 && userinfo.as_ref().is_some_and(|(user, _)| user.expose().contains(&0)) {
            return None;
        }
        Some(ProxyUrl { scheme, host: host.to_owned(), port: port.unwrap_or(default_port), userinfo })
    }

    /// Whether the server's name is looked up here and not by the proxy.
    pub fn resolves_locally(&self) -> bool {
        matches!(self.scheme, Scheme::Socks4 | Scheme::Socks5)
    }

    /// The proxy as somebody to talk to.
    pub(crate) fn peer(&self) -> Peer {
        Peer { name: format!("the proxy {self}"), address: host_and_port(&self.host, self.port), is_proxy: true }
    }
}

/// Replaces `%41` by `A`; what is no such code stays as it is.
fn percent_decode(bytes: &[u8]) -> SecretBytes {
    let mut out = Zeroizing::new(Vec::with_capacity(bytes.len()));
    let digit = |at: usize| (*bytes.get(at)? as char).to_digit(16);
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                // Two digits of four bits each fit a byte.
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    SecretBytes::from(out.as_slice())
}

/// Decides which proxy a request for `url` goes through; `None` is none. See the module's
/// documentation for the rules.
pub fn select_proxy<'a>(
    url: &Url<'_>,
    setting: Option<&'a str>,
    environment: impl Fn(&str) -> Option<&'a [u8]>,
) -> Result<Option<ProxyUrl>> {
    if url.scheme != "https" {
        return Ok(None);
    }
    let variable = |names: [&'static str; 2]| {
        names.into_iter().find_map(|name| {
            let value = environment(name).filter(|value| !value.trim_ascii().is_empty())?;
            Some((name, value))
        })
    };
    let (source, text) = match setting {
        Some(text) if text.trim().eq_ignore_ascii_case("none") => return Ok(None),
        Some(text) => ("the proxy setting", text.as_bytes()),
        None => match variable(["https_proxy", "HTTPS_PROXY"]).or_else(|| variable(["all_proxy", "ALL_PROXY"])) {
            Some(found) => found,
            None => return Ok(None),
        },
    };
    if variable(["no_proxy", "NO_PROXY"]).is_some_and(|(_, list)| no_proxy_matches(url.host, url.port, list)) {
        return Ok(None);
    }
    match ProxyUrl::parse(text) {
        Some(proxy) => Ok(Some(proxy)),
        // The value may hold a password, so it is not repeated.
        None => Err(Error::new(Kind::Config, format!("{source} is not a proxy URL that can be understood"))
            .with_hint("use http://host:port, https://host:port or socks5h://host:port")),
    }
}

/// Whether a `NO_PROXY` list names this host.
fn no_proxy_matches(host: &str, port: u16, list: &[u8]) -> bool {
    let host = host.trim_end_matches('.');
    let address = parse_address(host);
    let entries = list.split(|byte| *byte == b',' || byte.is_ascii_whitespace());
    // The hosts of URLs are ASCII: an entry that is not UTF-8 names none of them.
    entries.filter_map(|entry| std::str::from_utf8(entry).ok()).filter(|entry| !entry.is_empty()).any(|entry| {
        match (entry, address) {
            ("*", _) => true,
            (entry, Some(address)) if entry.contains('/') => cidr_contains(address, entry),
            (entry, address) => {
                let (name, only_port) = split_port(entry);
                only_port.is_none_or(|only| only == port)
                    && match address {
                        Some(address) => parse_address(name) == Some(address),
                        None => domain_matches(host, name),
                    }
            }
        }
    })
}

/// An address; one of IPv4 that is written as IPv6 is the same one.
fn parse_address(text: &str) -> Option<IpAddr> {
    text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// Divides `host:port`. The colons of an IPv6 address without brackets belong to the address.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    match entry.rsplit_once(':') {
        Some((name, port)) if name.ends_with(']') || !name.contains(':') => match parse_port(port) {
            Some(port) => (name, Some(port)),
            None => (entry, None),
        },
        _ => (entry, None),
    }
}

/// Whether `with_host` is the domain `entry` or lies below it.
fn domain_matches(host: &str, entry: &str) -> bool {
    let domain = entry.trim_end_matches('.');
    let domain = domain.strip_prefix('*').unwrap_or(domain);
    let domain = domain.trim_start_matches('.').to_ascii_lowercase();
    let host = host.to_ascii_lowercase();
    match host.strip_suffix(&domain) {
        Some(above) => !domain.is_empty() && (above.is_empty() || above.ends_with('.')),
        None => false,
    }
}

/// Whether `address` lies in `network`, written as `address/bits`.
fn cidr_contains(address: IpAddr, network: &str) -> bool {
    let Some((base, bits)) = network.split_once('/') else {
        return false;
    };
    let (Some(base), Ok(bits)) = (parse_address(base), bits.parse::<u32>()) else {
        return false;
    };
    let differ = match (address, base) {
        // Shifted up, so that the same count of bits is compared for both families.
        (IpAddr::V4(a), IpAddr::V4(b)) if bits <= 32 => u128::from(a.to_bits() ^ b.to_bits()) << 96,
        (IpAddr::V6(a), IpAddr::V6(b)) if bits <= 128 => a.to_bits() ^ b.to_bits(),
        _ => return false,
    };
    differ.leading_zeros() >= bits
}

/// Where a proxy is asked to connect to.
pub(crate) struct Target<'a> {
    /// The server's host.
    pub(crate) host: &'a str,
    /// The server's port.
    pub(crate) port: u16,
    /// Its address, if [`ProxyUrl::resolves_locally`].
    pub(crate) address: Option<IpAddr>,
}

/// Asks a proxy, over a connection to it, for a connection to the server. After that the stream
/// leads to the server.
pub(crate) fn tunnel(
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
        TunnelError::Io(error) => peer.io_error(Moment::Tunnel, &error, deadline),
        TunnelError::AuthRequired(status) => {
            let what = match proxy.userinfo {
                Some(_) => "refused the user name and password",
                None => "asks for a user name and password",
            };
            let error = peer
                .error(Kind::Proxy, Stage::Connect, format!("{} {what}", peer.name))
                .with_hint("put them into the proxy's URL: http://user:password@host:port");
            match status {
                Some(status) => error.with_http_status(status),
                None => error,
            }
        }
        TunnelError::HttpStatus(status) => peer
            .error(Kind::Proxy, Stage::Connect, format!("{} refused to connect to {server}", peer.name))
            .with_http_status(status)
            .with_retryable(status >= 500 || status == 429)
            .with_hint("ask its operator to allow that host, or list the host in NO_PROXY"),
        TunnelError::Rejected(reason, retryable) => peer
            .error(Kind::Proxy, Stage::Connect, format!("{} made no connection to {server}: {reason}", peer.name))
            .with_retryable(retryable)
            .with_hint("check the proxy, and that it may reach that host"),
    })
}

/// Why a proxy made no connection.
enum TunnelError {
    /// The connection to the proxy failed.
    Io(io::Error),
    /// It wants credentials, or others than it got; with the HTTP status if it speaks HTTP.
    AuthRequired(Option<u16>),
    /// It answered `CONNECT` with this status.
    HttpStatus(u16),
    /// In words, and whether trying again may help.
    Rejected(&'static str, bool),
}

impl From<io::Error> for TunnelError {
    fn from(error: io::Error) -> Self {
        TunnelError::Io(error)
    }
}

/// The largest head of a reply to `CONNECT` that is read.
const HEAD_LIMIT: usize = 16 * 1024;

fn connect(
    stream: &mut (impl Read + Write + ?Sized),
    proxy: &ProxyUrl,
    target: &Target<'_>,
) -> std::result::Result<(), TunnelError> {
    let server = host_and_port(target.host, target.port);
    let userinfo = match &proxy.userinfo {
        Some((user, password)) => {
            let plain = Zeroizing::new([user.expose(), b":", password.expose()].concat());
            Zeroizing::new(base64(&plain))
        }
        None => Zeroizing::default(),
    };
    // Joined in one go: a buffer that grows leaves copies of the password behind.
    let (before, after) = match userinfo.is_empty() {
        true => ("", ""),
        false => ("Proxy-Authorization: Basic ", "\r\n"),
    };
    let start = format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n");
    let request = Zeroizing::new([&start, before, &userinfo, after, "\r\n"].concat());
    stream.write_all(request.as_bytes())?;

    let mut head = vec![0; HEAD_LIMIT];
    let mut filled = 0;
    let end = loop {
        if let Some(end) = head[..filled].windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if filled == head.len() {
            return Err(TunnelError::Rejected("its reply has no end", false));
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
        // Nobody at the other end speaks first, so whatever follows did not come from the server.
        Some(200..=299) if end < filled => Err(TunnelError::Rejected("it sent data of its own", false)),
        Some(200..=299) => Ok(()),
        // 401 would be the server's to say; tinyproxy says it of a wrong password.
        Some(status @ (401 | 407)) => Err(TunnelError::AuthRequired(Some(status))),
        Some(status) => Err(TunnelError::HttpStatus(status)),
        None => Err(TunnelError::Rejected("its reply is not HTTP", false)),
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
            return Err(TunnelError::Rejected("SOCKS 4 cannot carry an IPv6 address", false));
        }
        // An address that cannot exist says that a name follows.
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
        [0, 91, ..] => Err(TunnelError::Rejected("it was rejected or failed", true)),
        [0, 92 | 93, ..] => Err(TunnelError::AuthRequired(None)),
        _ => Err(TunnelError::Rejected("its reply is not SOCKS 4", false)),
    }
}

/// What the codes of RFC 1928, section 6, mean, and whether trying again may help.
const SOCKS5_REPLIES: [(u8, &str, bool); 8] = [
    (1, "it failed", true),
    (2, "its rules forbid it", false),
    (3, "the network is unreachable", true),
    (4, "the host is unreachable", true),
    (5, "the host refused the connection", true),
    (6, "the host did not answer in time", true),
    (7, "it knows no such command", false),
    (8, "it knows no such kind of address", false),
];

/// SOCKS 5 (RFC 1928), with a name and password (RFC 1929) if there are any.
fn socks5(
    stream: &mut (impl Read + Write + ?Sized),
    proxy: &ProxyUrl,
    target: &Target<'_>,
) -> std::result::Result<(), TunnelError> {
    const NOT_SOCKS: TunnelError = TunnelError::Rejected("its reply is not SOCKS 5", false);
    // One byte tells the length of a name or password.
    let short = |name: &[u8]| {
        u8::try_from(name.len())
            .map_err(|_| TunnelError::Rejected("SOCKS 5 carries no more than 255 bytes of a name", false))
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
            let (reason, retryable) = row.map_or(("it gave an unknown reason", false), |row| (row.1, row.2));
            return Err(TunnelError::Rejected(reason, retryable));
        }
        _ => return Err(NOT_SOCKS),
    }
    // The address that the proxy connects from tells nothing, but has to be read.
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

/// Base64 with padding (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let at = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for index in 0..4 {
            // A group of n bytes makes n + 1 letters.
            out.push(if index <= group.len() {
                ALPHABET[(bits >> (18 - 6 * index)) as usize & 63] as char
            } else {
                '='
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// What [`select_proxy`] decides, as shown text.
    fn chosen(url: &str, setting: Option<&str>, environment: &[(&str, &str)]) -> Option<String> {
        select_proxy(&Url::parse(url).unwrap(), setting, |name| {
            let (_, value) = environment.iter().find(|(have, _)| *have == name)?;
            Some(value.as_bytes())
        })
        .unwrap()
        .map(|proxy| proxy.to_string())
    }

    #[test]
    fn https_has_a_variable_of_its_own() {
        let all = [("https_proxy", "s:1"), ("http_proxy", "p:2"), ("ALL_PROXY", "socks5h://a")];
        let url = "https://auth.example/x";
        assert_eq!(chosen(url, None, &all).unwrap(), "http://s:1");
        assert_eq!(chosen(url, None, &all[1..]).unwrap(), "socks5h://a:1080");
        assert_eq!(chosen(url, None, &all[1..2]), None);
        assert_eq!(chosen(url, None, &[]), None);
    }

    #[test]
    fn plain_http_goes_through_no_proxy() {
        let names = ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
        for url in ["http://127.0.0.1:99/oauth/token", "HTTP://localhost", "http://[::1]"] {
            for proxy in ["127.0.0.1:1", "http://localhost:1", "https://h", "socks5h://[::1]", "not a proxy"] {
                assert_eq!(chosen(url, Some(proxy), &[]), None, "{url} {proxy}");
                for name in names {
                    assert_eq!(chosen(url, None, &[(name, proxy)]), None, "{url} {name} {proxy}");
                }
            }
        }
    }

    #[test]
    fn lower_case_wins_and_empty_is_unset() {
        let url = "https://auth.example";
        let both = [("HTTPS_PROXY", "upper"), ("https_proxy", "lower")];
        assert_eq!(chosen(url, None, &both).unwrap(), "http://lower:80");
        let empty = [("HTTPS_PROXY", "upper"), ("https_proxy", "")];
        assert_eq!(chosen(url, None, &empty).unwrap(), "http://upper:80");
        let all = [("https_proxy", " "), ("all_proxy", "all")];
        assert_eq!(chosen(url, None, &all).unwrap(), "http://all:80");
    }

    #[test]
    fn the_setting_comes_first_but_obeys_no_proxy() {
        let url = "https://auth.example";
        let environment = [("https_proxy", "e:1"), ("no_proxy", "localhost")];
        assert_eq!(chosen(url, Some("https://s"), &environment).unwrap(), "https://s:443");
        assert_eq!(chosen(url, Some("none"), &environment), None);
        assert_eq!(chosen(url, Some("s:1"), &[("NO_PROXY", "auth.example")]), None);
    }

    #[test]
    fn no_proxy_entries() {
        #[rustfmt::skip]
        let cases = [
            ("auth.example", 443, "auth.example", true),
            ("auth.example", 443, "AUTH.Example.", true),
            ("auth.example.", 443, "auth.example", true),
            ("a.auth.example", 443, "auth.example", true),
            ("a.auth.example", 443, ".auth.example", true),
            ("auth.example", 443, ".auth.example", true),
            ("a.auth.example", 443, "*.auth.example", true),
            ("myauth.example", 443, "auth.example", false),
            ("auth.example.evil", 443, "auth.example", false),
            ("auth.example", 443, "example2", false),
            ("auth.example", 443, "a, b ,auth.example", true),
            ("auth.example", 443, "a b auth.example", true),
            ("auth.example", 443, "*", true),
            ("auth.example", 443, "x,*", true),
            ("auth.example", 443, ",, ,", false),
            ("auth.example", 443, ".", false),
            ("auth.example", 443, "*.", false),
            ("auth.example", 443, "auth.example:443", true),
            ("auth.example", 8443, "auth.example:443", false),
            ("a.auth.example", 443, ".auth.example:443", true),
            ("auth.example", 443, "auth.example:x", false),
            ("auth.example", 443, "auth.example:+443", false),
            ("127.0.0.1", 80, "localhost", false),
            ("127.0.0.1", 80, "127.0.0.1", true),
            ("127.0.0.1", 80, "127.0.0.1:80", true),
            ("127.0.0.1", 81, "127.0.0.1:80", false),
            ("10.1.2.3", 80, "10.0.0.0/8", true),
            ("11.1.2.3", 80, "10.0.0.0/8", false),
            ("10.1.2.3", 80, "0.0.0.0/0", true),
            ("10.1.2.3", 80, "10.1.2.3/32", true),
            ("10.1.2.2", 80, "10.1.2.3/32", false),
            ("10.1.2.3", 80, "10.0.0.0/33", false),
            ("10.1.2.3", 80, "10.0.0.0/", false),
            ("10.1.2.3", 80, "2.3", false),
            ("auth.example", 80, "10.0.0.0/8", false),
            ("::1", 80, "::1", true),
            ("::1", 80, "[::1]", true),
            ("::1", 80, "[::1]:80", true),
            ("::1", 81, "[::1]:80", false),
            ("0:0::1", 80, "::1", true),
            ("fd12::1", 80, "fd00::/8", true),
            ("fe12::1", 80, "fd00::/8", false),
            ("fd12::1", 80, "::/0", true),
            ("::ffff:10.0.0.1", 80, "10.0.0.1", true),
            ("::1", 80, "10.0.0.0/8", false),
        ];
        for (host, port, list, expected) in cases {
            assert_eq!(no_proxy_matches(host, port, list.as_bytes()), expected, "{host}:{port} {list:?}");
        }
    }

    #[test]
    fn a_no_proxy_list_that_is_not_utf8_counts() {
        let url = Url::parse("https://auth.example").unwrap();
        let chosen = |lists: &[(&str, &'static [u8])]| {
            let environment = |name: &str| match name {
                "HTTPS_PROXY" => Some(&b"h:1"[..]),
                _ => Some(lists.iter().find(|(have, _)| *have == name)?.1),
            };
            select_proxy(&url, None, environment).unwrap().map(|proxy| proxy.to_string())
        };
        assert_eq!(chosen(&[("NO_PROXY", b"\xe9,auth.example")]), None);
        assert_eq!(chosen(&[("no_proxy", b"auth.example \xff.example")]), None);
        assert_eq!(chosen(&[("NO_PROXY", b"auth\xe9.example,\xe9auth.example")]).unwrap(), "http://h:1");
        // It is set, so the other one does not count.
        assert_eq!(chosen(&[("no_proxy", b"\xe9"), ("NO_PROXY", b"*")]).unwrap(), "http://h:1");
    }

    #[test]
    fn a_proxy_that_cannot_be_understood_is_an_error() {
        let url = Url::parse("https://auth.example").unwrap();
        for name in ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
            for value in [
                &b"http://h\xe9:3128"[..],
                b"http://me:hush@h\xe9",
                b"http://me:hush@h:31\xe9",
                b"\xe9",
                b"ht\xe9tp://me:hush@h",
                b"socks4://m%00e:hush@h",
                b"socks4a://%00@h",
            ] {
                let error = select_proxy(&url, None, |asked| (asked == name).then_some(value)).unwrap_err();
                assert_eq!(error.kind(), Kind::Config);
                assert!(error.to_string().starts_with(&format!("{name} is not")), "{error}");
                assert!(!error.to_string().contains("hush"), "{error}");
            }
        }
    }

    #[test]
    fn proxy_urls_are_taken_apart() {
        let userinfo = |text: &[u8]| {
            let (user, password) = ProxyUrl::parse(text).unwrap().userinfo.unwrap();
            (user.expose().to_owned(), password.expose().to_owned())
        };
        assert_eq!(userinfo(b"http://us%65r:p%40ss%3A%25@h:3128"), (b"user".to_vec(), b"p@ss:%".to_vec()));
        assert_eq!(userinfo(b"u:p@ss/w%zz@h:1"), (b"u".to_vec(), b"p@ss/w%zz".to_vec()));
        assert_eq!(userinfo(b"u@h"), (b"u".to_vec(), Vec::new()));
        assert_eq!(userinfo(b":p@h"), (Vec::new(), b"p".to_vec()));
        assert_eq!(userinfo(b"http://m\xe9:%E9%ff%00@h"), (b"m\xe9".to_vec(), b"\xe9\xff\x00".to_vec()));
        assert_eq!(userinfo("u:ü@h".as_bytes()), (b"u".to_vec(), "ü".as_bytes().to_vec()));
        #[rustfmt::skip]
        let cases = [
            ("h", "http://h:80"),
            ("HTTP://h:3128/", "http://h:3128"),
            ("https://h", "https://h:443"),
            ("https://h:80", "https://h:80"),
            ("http://h:", "http://h:80"),
            ("https://h:/", "https://h:443"),
            ("socks5h://[::1]:", "socks5h://[::1]:1080"),
            ("http://h:03128", "http://h:3128"),
            (" socks5://[::1] ", "socks5://[::1]:1080"),
            ("socks4a://[::1]:9", "socks4a://[::1]:9"),
            ("socks5h://u:p@h", "socks5h://h:1080"),
        ];
        for (text, shown) in cases {
            assert_eq!(ProxyUrl::parse(text).unwrap().to_string(), shown, "{text}");
        }
        for bad in ["", "ftp://h", "http://", "h:x", "h:0", "h:+3128", "h:99999", "http://a b", "u:p@"] {
            assert_eq!(ProxyUrl::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn nothing_shows_the_password() {
        let url = Url::parse("https://auth.example").unwrap();
        let error =
            select_proxy(&url, None, |name| (name == "HTTPS_PROXY").then_some(&b"ftp://me:hush@h"[..])).unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        assert!(error.to_string().starts_with("HTTPS_PROXY is not"), "{error}");
        assert!(!error.to_string().contains("hush"), "{error}");
        let proxy = ProxyUrl::parse("http://me:hush@h").unwrap();
        assert!(!format!("{proxy:?} {proxy}").contains("hush"));
        assert!(!proxy.peer().name.contains("me"));
    }

    #[test]
    fn base64_is_padded() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("\u{ff}?~", "w78/fg==")] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    /// A proxy that says what it was told to say, and keeps what it was sent.
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
        let outcome = tunnel(&mut script, &ProxyUrl::parse(proxy).unwrap(), &target, deadline);
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
            let expected = format!("\r\nProxy-Authorization: Basic {}\r\n", base64(b"m\xe9:p\xff"));
            assert!(String::from_utf8(sent).unwrap().contains(&expected));
            let (sent, outcome) = play(url("socks5h"), None, &[5, 2, 1, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
            outcome.unwrap();
            assert!(sent.starts_with(b"\x05\x02\x00\x02\x01\x02m\xe9\x02p\xff\x05\x01\x00"), "{sent:?}");
            let (sent, outcome) = play(url("socks4a"), None, &[0, 90, 0, 0, 0, 0, 0, 0]);
            outcome.unwrap();
            assert_eq!(sent, b"\x04\x01\x01\xbb\x00\x00\x00\x01m\xe9\x00far.example\x00");
        }
    }

    #[test]
    fn socks5_refusals_are_told() {
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
    fn every_form_of_bound_address_is_read_past() {
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
    fn replies_to_connect() {
        let (sent, outcome) = play("http://h", None, b"HTTP/1.0 200 Connection established\r\nX: y\r\n\r\n");
        outcome.unwrap();
        assert_eq!(sent, b"CONNECT far.example:443 HTTP/1.1\r\nHost: far.example:443\r\n\r\n");
        for (reply, words, status) in [
            (&b"HTTP/1.1 407 Authenticate\r\n\r\n"[..], "asks for a user name and password", Some(407)),
            (b"HTTP/1.1 403 No\r\nContent-Length: 3\r\n\r\nno.", "refused to connect", Some(403)),
            (b"HTTP/1.1 200 OK\r\n\r\n\x15", "data of its own", None),
            (b"SSH-2.0-OpenSSH\r\n\r\n", "not HTTP", None),
            (b"HTTP/1.1 200 OK\r\n", "closed the connection", None),
            (&[b'x'; HEAD_LIMIT], "no end", None),
        ] {
            let (_, outcome) = play("http://h", None, reply);
            let error = outcome.unwrap_err();
            assert_eq!((error.kind(), error.http_status()), (Kind::Proxy, status));
            assert!(error.to_string().contains(words), "{error}");
        }
        let (_, outcome) = play("http://u:p@h", None, b"HTTP/1.1 401 Unauthorized\r\n\r\n");
        let error = outcome.unwrap_err();
        assert!(error.to_string().contains("refused the user name and password (HTTP 401)"), "{error}");
        let (_, outcome) = play("http://h", None, b"HTTP/1.1 502 Bad\r\n\r\n");
        assert!(outcome.unwrap_err().is_retryable());
    }
}
