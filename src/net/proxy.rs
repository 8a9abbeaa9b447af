//! Proxy URLs, and the choice of the proxy for a request.
//!
//! [`select_proxy`] follows the rules of curl, with one exception: plain http never uses a proxy. As in curl, a URL
//! without a scheme is one of an http proxy, `socks` means SOCKS 4, and the default port is 1080, or 443 for https.
//!
//! - Plain http is allowed for this machine only. A proxy, even one that listens on this machine (an SSH
//!   tunnel, a corporate agent), may connect to the loopback address of another machine, and the client
//!   secret would be sent there unencrypted. So http requests never use a proxy, whatever is set.
//! - The `proxy` setting has precedence; `none` means no proxy, whatever the environment contains.
//! - Otherwise the proxy is `https_proxy` or `HTTPS_PROXY`, and if these are unset `all_proxy` or `ALL_PROXY`.
//!   The lower-case name has precedence; an empty variable counts as unset.
//! - `no_proxy` or `NO_PROXY` exempts hosts, also from the `proxy` setting. Entries are separated by commas or
//!   spaces: `*` matches every host, `example.com` and `.example.com` match that domain and its subdomains,
//!   `host:port` matches one port, and addresses and networks (`10.0.0.0/8`, `fd00::/8`) match hosts that are
//!   given as addresses. This machine is not exempt unless it is listed.
//!
//! The user name and password of a proxy are bytes in any encoding, literal or percent-encoded in the URL. They
//! are sent to the proxy, and never appear in `Debug` or in messages: the password not even if the proxy repeats it.
//! A proxy URL that is invalid is an error, never a direct connection. The proxy resolves the server's name; only
//! `socks4` and `socks5` resolve it on this machine, as these schemes require.

use crate::error::{Error, Kind, Result};
use crate::net::tcp::Peer;
use crate::net::url::{Url, host_and_port, parse_port, percent_decode, split_authority};
use crate::sys::secret::SecretBytes;
use std::fmt;
use std::net::IpAddr;

/// The environment variables that [`select_proxy`] reads.
pub const VARIABLES: [&str; 6] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"];

/// The protocol of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// The method `CONNECT`.
    Http,
    /// The method `CONNECT`, inside TLS.
    Https,
    /// SOCKS 4; the name is resolved on this machine.
    Socks4,
    /// SOCKS 4a; the proxy resolves the name.
    Socks4a,
    /// SOCKS 5; the name is resolved on this machine.
    Socks5,
    /// SOCKS 5; the proxy resolves the name.
    Socks5h,
}

/// Names and default ports. A scheme is shown by its first name.
const SCHEMES: [(&str, Scheme, u16); 7] = [
    ("http", Scheme::Http, 1080),
    ("https", Scheme::Https, 443),
    ("socks4", Scheme::Socks4, 1080),
    ("socks", Scheme::Socks4, 1080),
    ("socks4a", Scheme::Socks4a, 1080),
    ("socks5", Scheme::Socks5, 1080),
    ("socks5h", Scheme::Socks5h, 1080),
];

/// A proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyUrl {
    /// The protocol.
    pub scheme: Scheme,
    /// Its host, without brackets around an IPv6 address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The user name and password, decoded.
    pub userinfo: Option<(SecretBytes, SecretBytes)>,
}

impl fmt::Display for ProxyUrl {
    /// `scheme://host:port`, without the user name and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme_name(), host_and_port(&self.host, self.port))
    }
}

impl ProxyUrl {
    /// Parses a proxy URL; `None` if it is invalid.
    pub fn parse(text: impl AsRef<[u8]>) -> Option<Self> {
        let text = text.as_ref().trim_ascii();
        let (scheme, rest) = match text.windows(3).position(|three| three == b"://") {
            Some(at) => (&text[..at], &text[at + 3..]),
            None => (&b"http"[..], text),
        };
        let same = |name: &str| scheme.eq_ignore_ascii_case(name.as_bytes());
        let (_, scheme, default_port) = SCHEMES.into_iter().find(|(name, _, _)| same(name))?;
        // Split at the last `@`: a password may contain one that is not encoded, and a slash.
        let (userinfo, rest) = match rest.iter().rposition(|byte| *byte == b'@') {
            Some(at) => (Some(&rest[..at]), &rest[at + 1..]),
            None => (None, rest),
        };
        let authority = rest.split(|byte| b"/?#".contains(byte)).next()?;
        let (host, port) = split_authority(std::str::from_utf8(authority).ok()?)?;
        let decode = |text: &[u8]| SecretBytes::from(percent_decode(text).as_slice());
        let userinfo = userinfo.map(|userinfo| {
            let colon = userinfo.iter().position(|byte| *byte == b':').unwrap_or(userinfo.len());
            (decode(&userinfo[..colon]), decode(userinfo.get(colon + 1..).unwrap_or_default()))
        });
        // A NUL ends the user name in SOCKS 4: the proxy would read the rest as the server's name.
        let is_socks4 = matches!(scheme, Scheme::Socks4 | Scheme::Socks4a);
        if is_socks4 && userinfo.as_ref().is_some_and(|(user, _)| user.expose().contains(&0)) {
            return None;
        }
        Some(ProxyUrl { scheme, host: host.to_owned(), port: port.unwrap_or(default_port), userinfo })
    }

    /// The name of the protocol in a URL.
    pub(crate) fn scheme_name(&self) -> &'static str {
        SCHEMES.iter().find(|(_, scheme, _)| *scheme == self.scheme).map_or("", |(name, _, _)| name)
    }

    /// Whether the server's name is resolved on this machine and not by the proxy.
    pub fn resolves_locally(&self) -> bool {
        matches!(self.scheme, Scheme::Socks4 | Scheme::Socks5)
    }

    /// The proxy as the peer of a connection.
    pub(crate) fn peer(&self) -> Peer {
        Peer { name: format!("the proxy {self}"), address: host_and_port(&self.host, self.port), is_proxy: true }
    }
}

/// The proxy for a request to `url`; `None` for a direct connection. The module documentation has the rules.
pub fn select_proxy<'a>(
    url: &Url,
    setting: Option<&'a str>,
    environment: impl Fn(&str) -> Option<&'a [u8]>,
) -> Result<Option<ProxyUrl>> {
    if url.scheme() != "https" {
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
    if variable(["no_proxy", "NO_PROXY"]).is_some_and(|(_, list)| no_proxy_matches(url.host(), url.port(), list)) {
        return Ok(None);
    }
    match ProxyUrl::parse(text) {
        Some(proxy) => Ok(Some(proxy)),
        // The value may contain a password, so the message does not repeat it.
        None => Err(Error::new(Kind::Config, format!("{source} is not a valid proxy URL"))
            .with_hint("use http://host:port, https://host:port or socks5h://host:port")),
    }
}

/// Whether a `NO_PROXY` list matches this host.
fn no_proxy_matches(host: &str, port: u16, list: &[u8]) -> bool {
    let host = host.trim_end_matches('.');
    let address = parse_address(host);
    let entries = list.split(|byte| *byte == b',' || byte.is_ascii_whitespace());
    // The hosts of URLs are ASCII: an entry that is not UTF-8 matches none.
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

/// Parses an address, which may be in brackets. An IPv4 address that is mapped to IPv6 is the IPv4 address.
pub(super) fn parse_address(text: &str) -> Option<IpAddr> {
    let inside = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    inside.unwrap_or(text).parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// Splits `host:port`. The colons of an IPv6 address without brackets belong to the address.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    match entry.rsplit_once(':') {
        Some((name, port)) if name.ends_with(']') || !name.contains(':') => match parse_port(port) {
            Some(port) => (name, Some(port)),
            None => (entry, None),
        },
        _ => (entry, None),
    }
}

/// Whether `host` is the domain `entry` or a subdomain of it.
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

/// Whether a network, written as `address/bits`, contains the address.
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

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(chosen(url, None, &both).unwrap(), "http://lower:1080");
        let empty = [("HTTPS_PROXY", "upper"), ("https_proxy", "")];
        assert_eq!(chosen(url, None, &empty).unwrap(), "http://upper:1080");
        let all = [("https_proxy", " "), ("all_proxy", "all")];
        assert_eq!(chosen(url, None, &all).unwrap(), "http://all:1080");
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
            ("10.1.2.3", 80, "10.1.2.3]", false),
            ("::1", 80, "[::1", false),
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
            ("h", "http://h:1080"),
            ("socks://h/", "socks4://h:1080"),
            ("SOCKS5H://h:1\n", "socks5h://h:1"),
            ("HTTP://h:3128/", "http://h:3128"),
            ("https://h", "https://h:443"),
            ("https://h:80", "https://h:80"),
            ("http://h:", "http://h:1080"),
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
        for bad in
            ["", "ftp://h", "http://", "h:x", "h:0", "h:+3128", "h:99999", "http://a b", "u:p@", "http://[h]", "h%2e"]
        {
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
}
