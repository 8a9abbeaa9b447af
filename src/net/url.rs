//! URLs, as far as this library needs them: parts, ports, and form encoding.
//!
//! By hand, because the library reads five fields of a URL, and the `url` crate would bring 33 crates and the
//! tables of Unicode for them. `http::Uri`, which ureq brings, reports bad ports and fragments less precisely.

use crate::sanitize::redact_url;
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use zeroize::Zeroizing;

/// An `http` or `https` URL, parsed once. [`fmt::Display`] shows it without the parts that may contain a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    text: String,
    scheme: &'static str,
    /// Where the host is in `text`, without brackets around an IPv6 address, and without its zone.
    host: Range<usize>,
    /// Where the zone of an IPv6 address is in `text`; empty if there is none.
    zone: Range<usize>,
    port: u16,
    /// Where the path begins in `text`.
    path: usize,
    user_info: bool,
}

impl Url {
    /// Parses a URL; `None` if it is not an `http` or `https` URL with a host.
    pub fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = split_scheme(url)?;
        let default_port = if scheme == "https" { 443 } else { 80 };
        let path = url.len() - rest.len() + rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let authority = &url[url.len() - rest.len()..path];
        let (user_info, authority) = match authority.rsplit_once('@') {
            Some((_, authority)) => (true, authority),
            None => (false, authority),
        };
        let (host, port) = split_authority(authority)?;
        let start = path - authority.len() + usize::from(authority.starts_with('['));
        let end = start + host.len();
        let (host, zone) = split_zone(host);
        let zone = end - zone.map_or(0, str::len)..end;
        let (host, port) = (start..start + host.len(), port.unwrap_or(default_port));
        Some(Url { text: url.to_owned(), scheme, host, zone, port, path, user_info })
    }

    /// The whole URL, as it was parsed.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// `http` or `https`, in lower case.
    pub fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// The host, without brackets around an IPv6 address, and without its zone: a name of this machine, which must not
    /// be sent.
    pub fn host(&self) -> &str {
        &self.text[self.host.clone()]
    }

    /// The host as it is resolved on this machine: with the zone of an IPv6 address, as in `fe80::1%25eth0`.
    pub(crate) fn host_with_zone(&self) -> Cow<'_, str> {
        match &self.text[self.zone.clone()] {
            "" => Cow::Borrowed(self.host()),
            zone => Cow::Owned(format!("{}%25{zone}", self.host())),
        }
    }

    /// The whole URL, without the zone of an IPv6 address.
    pub(crate) fn without_zone(&self) -> Cow<'_, str> {
        match self.zone.is_empty() {
            true => Cow::Borrowed(&self.text),
            false => Cow::Owned([&self.text[..self.host.end], &self.text[self.zone.end..]].concat()),
        }
    }

    /// The port; the default port of the scheme if the URL has none.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Everything after host and port, such as `/path?query`; may be empty.
    pub fn path(&self) -> &str {
        &self.text[self.path..]
    }

    /// This URL with `path` appended, and a slash between the two if `path` does not begin with one. Host and port
    /// stay as they are.
    pub fn append(&self, path: &str) -> Self {
        let slash = if path.starts_with('/') { "" } else { "/" };
        Url { text: format!("{}{slash}{path}", self.text), ..self.clone() }
    }

    /// This URL without slashes at the end of its path.
    pub(crate) fn without_trailing_slashes(mut self) -> Self {
        let kept = self.path().trim_end_matches('/').len();
        self.text.truncate(self.path + kept);
        self
    }

    /// This URL without `suffix` at the end of its path.
    pub(crate) fn without_suffix(mut self, suffix: &str) -> Self {
        if let Some(kept) = self.path().strip_suffix(suffix).map(str::len) {
            self.text.truncate(self.path + kept);
        }
        self
    }

    /// Whether the two have the same scheme, host and port.
    pub fn has_same_origin(&self, other: &Url) -> bool {
        (self.scheme, self.port) == (other.scheme, other.port)
            && self.host_with_zone().eq_ignore_ascii_case(&other.host_with_zone())
    }

    /// Whether the URL has a user name or password.
    pub fn has_user_info(&self) -> bool {
        self.user_info
    }
}

impl fmt::Display for Url {
    /// Shows the scheme, the host and the path. See [`redact_url`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redact_url(&self.text))
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", redact_url(&self.text))
    }
}

/// The scheme, and what follows `://`; `None` for a scheme other than `http` and `https`.
pub(crate) fn split_scheme(url: &str) -> Option<(&'static str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let known = ["https", "http"].into_iter().find(|known| scheme.eq_ignore_ascii_case(known))?;
    Some((known, rest))
}

/// Splits `host[:port]`, in the syntax of all URL schemes. The brackets around an IPv6 address are removed; nothing else
/// may be in brackets. A host with percent codes is rejected: whether they are decoded decides which host it is.
/// The port is `None` if it is missing or empty: both mean the default port of the scheme (RFC 3986, section
/// 3.2.3).
pub(crate) fn split_authority(authority: &str) -> Option<(&str, Option<u16>)> {
    let is_plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
    let (host, after) = match authority.strip_prefix('[') {
        Some(inside) => {
            let (host, after) = inside.split_once(']')?;
            let (address, zone) = split_zone(host);
            let is_valid = address.parse::<std::net::Ipv6Addr>().is_ok() && zone.is_none_or(is_plain);
            (is_valid.then_some(host)?, after)
        }
        None => {
            let (host, after) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            (is_plain(host).then_some(host)?, after)
        }
    };
    let port = match after {
        "" | ":" => None,
        _ => Some(parse_port(after.strip_prefix(':')?).filter(|port| *port != 0)?),
    };
    (!host.is_empty()).then_some((host, port))
}

/// Splits the zone from an IPv6 address, as in `fe80::1%eth0` or, in a URL (RFC 6874), `fe80::1%25eth0`. Any other
/// host has none.
pub(crate) fn split_zone(host: &str) -> (&str, Option<&str>) {
    match host.split_once('%') {
        Some((address, zone)) if !zone.is_empty() && address.parse::<std::net::Ipv6Addr>().is_ok() => {
            (address, Some(zone.strip_prefix("25").filter(|zone| !zone.is_empty()).unwrap_or(zone)))
        }
        _ => (host, None),
    }
}

/// Parses a port. Only digits are allowed: the standard library would also accept a plus sign.
pub(crate) fn parse_port(digits: &str) -> Option<u16> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Whether a host name or address always means this machine. Such a name is never resolved by DNS.
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    host.eq_ignore_ascii_case("localhost")
        || host.to_ascii_lowercase().ends_with(".localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// `host:port`, with brackets around an IPv6 address.
pub(crate) fn host_and_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Decodes percent-encoding. What is not a valid code, such as `%zz`, is kept as it is. The buffer is allocated
/// once, because growing would leave unwiped copies of a password.
pub fn percent_decode(text: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    bytes.extend(percent_encoding::percent_decode(text));
    bytes
}

/// Decodes a name or a value of a form (`application/x-www-form-urlencoded`), in which `+` is a space.
pub fn form_decode(text: &[u8]) -> Zeroizing<Vec<u8>> {
    let spaces = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte });
    percent_decode(&Zeroizing::new(spaces.collect::<Vec<_>>()))
}

/// Encodes a value for an `application/x-www-form-urlencoded` body.
pub fn form_encode(text: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => encoded.push(byte.into()),
            b' ' => encoded.push('+'),
            _ => encoded.extend(['%', HEX[usize::from(byte >> 4)].into(), HEX[usize::from(byte & 15)].into()]),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let url = Url::parse("https://[::1]:8443/x?y").unwrap();
        assert_eq!((url.scheme(), url.host(), url.port(), url.path()), ("https", "::1", 8443, "/x?y"));
        let url = Url::parse("HTTP://me:S3cret@Host?y").unwrap();
        assert_eq!((url.scheme(), url.host(), url.port(), url.path()), ("http", "Host", 80, "?y"));
        assert!(url.has_user_info());
        assert_eq!(url.as_str(), "HTTP://me:S3cret@Host?y");
        for bad in ["ftp://x", "https://", "https://a b", "https://[::1", "https://[::1]443", "x"] {
            assert_eq!(Url::parse(bad), None, "{bad}");
        }
        // The host is read in one way only.
        for bad in
            ["https://[host.example]", "https://[127.0.0.1]", "https://[]", "https://host%2eexample", "https://[::1%]"]
        {
            assert_eq!(Url::parse(bad), None, "{bad}");
        }
        assert!(is_loopback("localhost") && is_loopback("127.9.9.9") && is_loopback("::1"));
        assert!(!is_loopback("localhost.example") && !is_loopback("10.0.0.1"));
    }

    #[test]
    fn a_zone_is_for_this_machine_only() {
        for (text, host, local, without) in [
            ("https://[fe80::1%25eth0]:8443/x", "fe80::1", "fe80::1%25eth0", "https://[fe80::1]:8443/x"),
            ("https://[fe80::1%eth0]/x?y", "fe80::1", "fe80::1%25eth0", "https://[fe80::1]/x?y"),
            ("https://me@[FE80::1%252]", "FE80::1", "FE80::1%252", "https://me@[FE80::1]"),
            ("https://[fe80::1%25]", "fe80::1", "fe80::1%2525", "https://[fe80::1]"),
            ("https://[fe80::1]", "fe80::1", "fe80::1", "https://[fe80::1]"),
        ] {
            let url = Url::parse(text).unwrap();
            assert_eq!((url.host(), &*url.host_with_zone(), &*url.without_zone()), (host, local, without));
        }
        let url = |text| Url::parse(text).unwrap();
        assert!(url("https://[fe80::1%25a]").has_same_origin(&url("https://[fe80::1%a]")));
        assert!(!url("https://[fe80::1%25a]").has_same_origin(&url("https://[fe80::1%25b]")));
    }

    #[test]
    fn a_path_is_appended_and_the_host_stays() {
        for (base, path, whole) in [
            ("https://host", "/x?y", "https://host/x?y"),
            ("https://[::1]:8443/base", "x", "https://[::1]:8443/base/x"),
            ("https://host", "@elsewhere.example", "https://host/@elsewhere.example"),
        ] {
            let (base, whole) = (Url::parse(base).unwrap(), Url::parse(whole).unwrap());
            assert_eq!(base.append(path), whole);
        }
    }

    #[test]
    fn only_a_path_is_shortened() {
        let url = |text| Url::parse(text).unwrap();
        assert_eq!(url("https://host/x//").without_trailing_slashes(), url("https://host/x"));
        assert_eq!(url("https://host//").without_trailing_slashes(), url("https://host"));
        assert_eq!(url("https://host/a/x").without_suffix("/x"), url("https://host/a"));
        assert_eq!(url("https://x").without_suffix("/x"), url("https://x"));
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let url = |text| Url::parse(text).unwrap();
        let here = url("https://host/x");
        for same in ["https://host", "HTTPS://HOST:443/y?z", "https://host:/"] {
            assert!(here.has_same_origin(&url(same)), "{same}");
        }
        for other in ["http://host/x", "http://host:443/x", "https://host:8443/x", "https://host.example/x"] {
            assert!(!here.has_same_origin(&url(other)), "{other}");
        }
    }

    #[test]
    fn a_url_is_shown_without_secrets() {
        let url = Url::parse("https://me:S3cret@host.example:8443/path?token=S3cret#S3cret").unwrap();
        assert_eq!(url.to_string(), "https://…@host.example:8443/path…");
        assert_eq!(format!("{url:?}"), format!("{:?}", url.to_string()));
    }

    #[test]
    fn a_port_is_digits_or_the_default() {
        for (port, http, https) in [("", 80, 443), (":", 80, 443), (":8443", 8443, 8443), (":0080", 80, 80)] {
            for host in ["host", "[::1]", "127.0.0.1"] {
                assert_eq!(Url::parse(&format!("http://{host}{port}/x")).unwrap().port(), http, "{host}{port}");
                assert_eq!(Url::parse(&format!("https://{host}{port}")).unwrap().port(), https, "{host}{port}");
            }
        }
        for bad in [":0", ":00", ":65536", ":99999999999", ":+443", ":-1", ": 443", ":443 ", ":443:", "::443", ":0x1bb"]
        {
            for host in ["host", "[::1]"] {
                assert_eq!(Url::parse(&format!("https://{host}{bad}/")), None, "{host}{bad}");
            }
        }
    }

    #[test]
    fn percent_decoding_keeps_invalid_codes_and_never_grows() {
        for (text, decoded) in [
            ("", &b""[..]),
            ("a%41%6a%6A", b"aAjj"),
            ("%", b"%"),
            ("%4", b"%4"),
            ("%zz%%41%e9", b"%zz%A\xe9"),
            ("%+1", b"%+1"),
        ] {
            let bytes = percent_decode(text.as_bytes());
            assert_eq!(*bytes, decoded, "{text}");
            assert_eq!(bytes.capacity(), text.len());
        }
    }
}
