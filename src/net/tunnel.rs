//! Opening a connection to the server through a proxy, and the reasons why that failed.
//!
//! The error says whether the proxy or the server caused it, and quotes what the proxy gives as the reason: the
//! title of its page, a redirect to a login page, the authentication that it requires. The password is redacted in it,
//! because a proxy may repeat what it was sent.

use crate::error::{Error, Kind, Phase, Result};
use crate::net::connect_method::{ConnectError, has_page, offered_schemes, request_connection};
use crate::net::proxy::{ProxyUrl, Scheme};
use crate::net::socks::{SocksError, Target, socks4, socks5};
use crate::net::tcp::{Peer, Stream};
use crate::net::transport::{Response, is_success, page_title, retry_after};
use crate::net::url::host_and_port;
use crate::sanitize::{redact_url, sanitize};
use crate::sys::deadline::IoDeadline;
use std::io::{self, Read, Write};
use std::time::{SystemTime, UNIX_EPOCH};
use zeroize::Zeroizing;

/// Has a proxy connect to the server. `stream` is a connection to the proxy, and afterwards leads to the server.
/// Returns whether the proxy announced a page, which is what a web server does that is no proxy.
pub(crate) fn open_tunnel(
    stream: &mut dyn Stream,
    proxy: &ProxyUrl,
    target: &Target<'_>,
    user_agent: Option<&str>,
    deadline: IoDeadline,
) -> Result<bool> {
    let peer = proxy.peer();
    let server = host_and_port(target.host, target.port);
    let outcome = match proxy.scheme {
        Scheme::Http | Scheme::Https => {
            return match request_connection(stream, proxy, &server, user_agent, deadline) {
                Ok(response) => check_response(&response, proxy, &server),
                Err(ConnectError::Io(error)) => Err(peer.io_error(Phase::Tunnel, &error, deadline)),
                Err(ConnectError::Malformed(reason)) => Err(rejected(&peer, &server, reason, false)),
            };
        }
        Scheme::Socks4 | Scheme::Socks4a => socks4(stream, proxy, target),
        Scheme::Socks5 | Scheme::Socks5h => socks5(stream, proxy, target),
    };
    match outcome {
        Ok(()) => Ok(false),
        Err(SocksError::Io(error)) => Err(peer.io_error(Phase::Tunnel, &error, deadline)),
        Err(SocksError::AuthRequired) => Err(credentials_error(proxy)),
        Err(SocksError::OtherAuthRequired) => Err(unsupported_auth_error(&peer, "a method other than a password")),
        Err(SocksError::Rejected(reason, retryable)) => Err(rejected(&peer, &server, reason, retryable)),
    }
}

/// The error for a proxy that gave a reason.
fn rejected(peer: &Peer, server: &str, reason: &str, retryable: bool) -> Error {
    peer.error(Kind::Proxy, Phase::Tunnel, format!("{} could not connect to {server}: {reason}", peer.name))
        .with_retryable(retryable)
        .with_hint("check the proxy, and that it can connect to that host")
}

/// The error for a proxy that requires credentials, or rejected those it received.
fn credentials_error(proxy: &ProxyUrl) -> Error {
    let peer = proxy.peer();
    let example = match proxy.scheme {
        Scheme::Socks4 | Scheme::Socks4a => format!("{}://user@host:port", proxy.scheme_name()),
        _ => format!("{}://user:password@host:port", proxy.scheme_name()),
    };
    let (what, advice) = match proxy.userinfo {
        Some(_) => ("rejected the user name and password", "check them in"),
        None => ("requires a user name and password", "add them to"),
    };
    peer.error(Kind::Proxy, Phase::Tunnel, format!("{} {what}", peer.name))
        .with_hint(format!("{advice} the proxy's URL, as in {example}"))
}

/// The error for a proxy that no user name and password will satisfy.
fn unsupported_auth_error(peer: &Peer, schemes: &str) -> Error {
    let message = format!("{} requires authentication by {schemes}, which this library does not support", peer.name);
    peer.error(Kind::Proxy, Phase::Tunnel, message).with_hint(
        "use a local proxy that adds it, such as px or cntlm, ask the operator for an exemption, \
         or send requests through libcurl (bindings/c/curl_transport.c)",
    )
}

/// The password as text, to be redacted in what the proxy says.
fn password(proxy: &ProxyUrl) -> Zeroizing<String> {
    let bytes = proxy.userinfo.as_ref().map_or(&[][..], |(_, password)| password.expose());
    // The capacity is the longest result: a string that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(bytes.len() * char::REPLACEMENT_CHARACTER.len_utf8()));
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    text
}

/// Whether the tunnel is open; if so, whether a page was announced all the same.
fn check_response(response: &Response, proxy: &ProxyUrl, server: &str) -> Result<bool> {
    let peer = proxy.peer();
    let announces_page = has_page(response, &response.body);
    if is_success(response.status) {
        return match response.body.is_empty() {
            true => Ok(announces_page),
            false if announces_page => Err(page_error(proxy, &response.body)),
            // A TLS server does not send first, so data that follows did not come from the server.
            false => Err(rejected(&peer, server, "it sent data before the server did", false)),
        };
    }
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    Err(status_error(response, proxy, server)
        .with_http_status(response.status)
        .with_retry_after(retry_after(response, i64::try_from(wall).unwrap_or(i64::MAX))))
}

/// The error for a response to `CONNECT` other than a success.
fn status_error(response: &Response, proxy: &ProxyUrl, server: &str) -> Error {
    const LOG_IN: &str = "log in to this network with a browser, or check that the proxy setting names a proxy";
    let (peer, status) = (proxy.peer(), response.status);
    let name = &peer.name;
    let error = |what: String, advice: &str| peer.error(Kind::Proxy, Phase::Tunnel, what).with_hint(advice);
    let secret = password(proxy);
    let reason = stated_reason(response, &secret).map_or_else(String::new, |reason| format!(": {reason}"));
    match status {
        // Only a server should send 401, but tinyproxy sends it for a wrong password.
        401 | 407 => match offered_schemes(response) {
            offered if offered.is_empty() || offered.iter().any(|scheme| scheme.eq_ignore_ascii_case("basic")) => {
                credentials_error(proxy)
            }
            offered => unsupported_auth_error(&peer, &sanitize(&offered.join(" or "), &[&secret])),
        },
        300..=399 => {
            let target = response.header("location").map_or_else(
                || "an unknown location".to_owned(),
                |location| sanitize(&redact_url(location), &[&secret]),
            );
            error(format!("{name} redirected the request to connect to {server} to {target}"), LOG_IN)
        }
        511 => error(format!("{name} requires a login to the network{reason}"), LOG_IN),
        400 | 404 | 405 | 501 => error(
            format!("{name} did not accept the request to connect to {server}{reason}"),
            "check that the proxy setting names a proxy, and not a web server",
        ),
        500.. => error(
            format!("{name} could not connect to {server}{reason}"),
            "check that the host and port are right, and that the proxy can connect to them",
        )
        .with_retryable(true),
        _ => error(
            format!("{name} could not connect to {server}{reason}"),
            "ask its operator to allow that host, or list the host in NO_PROXY",
        )
        .with_retryable(status == 429),
    }
}

/// What a proxy gives as the reason of a failure: the code of squid, or else the title of its page.
fn stated_reason(response: &Response, secret: &str) -> Option<String> {
    let code = response.header("x-squid-error").and_then(|value| value.split_whitespace().next());
    match code {
        Some(code) => Some(sanitize(code, &[secret])),
        None => page_title(&response.body, &[secret]).map(|title| format!("\"{title}\"")),
    }
}

/// The error for a web server that answers in place of the server.
fn page_error(proxy: &ProxyUrl, page: &[u8]) -> Error {
    let peer = proxy.peer();
    let title = page_title(page, &[&password(proxy)]).map_or_else(String::new, |title| format!(": \"{title}\""));
    peer.error(Kind::Proxy, Phase::Tunnel, format!("{} sent a page instead of opening a connection{title}", peer.name))
        .with_hint("check that the proxy setting names a proxy, and not a web server")
}

/// A connection through a proxy. The page of a web server that accepts every request may arrive after the head of
/// its response, where the server's TLS should be.
pub(crate) struct Tunnel {
    stream: Box<dyn Stream>,
    proxy: ProxyUrl,
    announces_page: bool,
    /// Whether data was read. Only the first bytes are looked at.
    is_checked: bool,
}

impl Tunnel {
    /// A tunnel for TLS; `announces_page` is the result of [`open_tunnel`].
    pub(crate) fn new(stream: Box<dyn Stream>, proxy: ProxyUrl, announces_page: bool) -> Self {
        Tunnel { stream, proxy, announces_page, is_checked: false }
    }
}

impl Read for Tunnel {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        const TLS_ALERT: u8 = 21;
        const TLS_HANDSHAKE: u8 = 22;
        let count = self.stream.read(buffer)?;
        if !self.is_checked && count > 0 {
            self.is_checked = true;
            let is_page =
                buffer[0] == b'<' || (self.announces_page && ![TLS_ALERT, TLS_HANDSHAKE].contains(&buffer[0]));
            if is_page {
                return Err(io::Error::other(page_error(&self.proxy, &buffer[..count])));
            }
        }
        Ok(count)
    }
}

impl Write for Tunnel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl Stream for Tunnel {
    fn set_deadline(&mut self, deadline: IoDeadline) {
        self.stream.set_deadline(deadline);
    }

    fn read_arrived(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read_arrived(buffer)
    }

    #[cfg(all(unix, feature = "serve"))]
    fn write_ready(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write_ready(bytes)
    }

    #[cfg(all(unix, feature = "serve"))]
    fn flush_ready(&mut self) -> io::Result<()> {
        self.stream.flush_ready()
    }

    #[cfg(all(unix, feature = "serve"))]
    fn socket(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.stream.socket()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::connect_method::RESPONSE_LIMIT;
    use crate::net::scripted_exchange::{Script, play_tunnel};
    use crate::net::socks::SOCKS5_REPLIES;
    use std::time::Duration;

    fn play(proxy: impl AsRef<[u8]>, address: Option<&str>, replies: &[u8]) -> (Vec<u8>, Result<()>) {
        let address = address.map(|address| address.parse().unwrap());
        let played = play_tunnel(&ProxyUrl::parse(proxy).unwrap(), address, replies, usize::MAX);
        (played.sent, played.outcome.map(|_| ()))
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
        assert_eq!(sent, b"CONNECT far.example:443 HTTP/1.1\r\nHost: far.example:443\r\nUser-Agent: me/1\r\n\r\n");
        let flood = [&b"HTTP/1.1 200 OK\r\nX: "[..], &[b'x'; RESPONSE_LIMIT]].concat();
        for (reply, words, status) in [
            (&b"HTTP/1.1 407 Authenticate\r\n\r\n"[..], "requires a user name and password", Some(407)),
            (b"HTTP/1.1 403 No\r\nContent-Length: 3\r\n\r\nno.", "could not connect to far.example:443", Some(403)),
            (b"HTTP/1.1 200 OK\r\n\r\n\x15", "data before the server", None),
            (b"SSH-2.0-OpenSSH\r\n\r\n", "not HTTP", None),
            (b"HTTP/1.1 200 OK\r\n", "closed the connection", None),
            (&flood, "too large", None),
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

    /// As curl reads them.
    #[test]
    fn heads_are_read_leniently() {
        for reply in [
            &b"HTTP/1.1 200 Verbindung f\xfcr Sie hergestellt\r\n\r\n"[..],
            b"HTTP/1.1 200\r\n\r\n",
            b"HTTP/1.0  200 OK\r\nX-\xff: \xfe\r\n\r\n",
            b"HTTP/1.1 200 OK\nVia: x\n\n",
            b"HTTP/1.1 200 OK\r\nX-A: one\r\n two\r\nX-B : c\r\nno colon\r\n: no name\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\nServer: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n\r\n\rHTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\n",
        ] {
            let (_, outcome) = play("http://h", None, reply);
            assert!(outcome.is_ok(), "{outcome:?} {:?}", String::from_utf8_lossy(reply));
        }
        let reply = b"HTTP/1.1 407 Zugriff verweigert f\xfcr Sie\r\nProxy-Authenticate: Basic realm=\"\xfc\"\r\n\r\n";
        let error = play("http://h", None, reply).1.unwrap_err();
        assert_eq!(error.http_status(), Some(407));
        assert!(error.to_string().contains("requires a user name and password (HTTP 407); add them to"), "{error}");
    }

    #[test]
    fn what_a_proxy_states_decides_the_advice() {
        let refusal = |status: &str, headers: &str, body: &str| format!("HTTP/1.1 {status}\r\n{headers}\r\n{body}");
        for (reply, words, advice, retryable) in [
            (
                refusal("407 x", "Proxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n", ""),
                "requires authentication by Negotiate or NTLM, which this library does not support (HTTP 407)",
                "px or cntlm",
                false,
            ),
            (
                refusal("401 x", "WWW-Authenticate: Digest realm=\"a, b\", nonce=\"c\"\r\n", ""),
                "requires authentication by Digest,",
                "bindings/c/curl_transport.c",
                false,
            ),
            (
                refusal("407 x", "Proxy-Authenticate: NTLM\r\nProxy-Authenticate: basic realm=\"x\"\r\n", ""),
                "rejected the user name and password (HTTP 407)",
                "check them in the proxy's URL, as in http://user:password@host:port",
                false,
            ),
            (
                refusal("302 Found", "Location: http://portal.example/login?token=hush\r\n", ""),
                "redirected the request to connect to far.example:443 to http://portal.example/login…",
                "log in to this network with a browser",
                false,
            ),
            (refusal("511 x", "", ""), "requires a login to the network", "log in to this network", false),
            (
                refusal("405 x", "Content-Type: text/html\r\n", "<title>405 Not\n Allowed</title>"),
                "did not accept the request to connect to far.example:443: \"405 Not Allowed\" (HTTP 405)",
                "not a web server",
                false,
            ),
            (refusal("501 x", "", ""), "did not accept the request", "not a web server", false),
            (refusal("400 x", "", "plain text"), "did not accept the request", "not a web server", false),
            (
                refusal(
                    "503 x",
                    "X-Squid-Error: ERR_DNS_FAIL 0\r\nContent-Type: text/html\r\n",
                    "<title>ERROR</title>",
                ),
                "could not connect to far.example:443: ERR_DNS_FAIL (HTTP 503)",
                "check that the host and port are right",
                true,
            ),
            (
                refusal(
                    "502 x",
                    "Content-Length: 29\r\nContent-Type: text/html\r\n",
                    "<title>Bad Gateway</title>beyond",
                ),
                "could not connect to far.example:443: \"Bad Gateway\" (HTTP 502)",
                "that the proxy can connect",
                true,
            ),
            (refusal("403 x", "", ""), "could not connect to far.example:443 (HTTP 403)", "ask its operator", false),
            (
                refusal("200 OK", "Content-Type: text/html\r\n", "<html><title>It works!</title>"),
                "sent a page instead of opening a connection: \"It works!\"",
                "not a web server",
                false,
            ),
        ] {
            let error = play("http://me:hush@h", None, reply.as_bytes()).1.unwrap_err();
            assert_eq!((error.kind(), error.is_retryable()), (Kind::Proxy, retryable), "{error}");
            let text = error.to_string();
            assert!(text.contains(words) && text.contains(advice) && !text.contains("hush"), "{error}");
        }
    }

    /// In the title of its page, in a redirect, in a code, and behind a tunnel that is none.
    #[test]
    fn a_password_that_a_proxy_repeats_is_redacted() {
        for (url, echo) in [
            ("http://me:hush-hush-9e04@h", "hush-hush-9e04"),
            ("http://me:hush%2dhush-9e04@h", "HUSH-hush-9e04"),
            ("http://me:hush-hush-9e04@h", "bWU6aHVzaC1odXNoLTllMDQ="),
        ] {
            let page = format!("<title>bad: {echo}</title>");
            for replies in [
                format!("HTTP/1.1 403 x\r\n\r\n{page}"),
                format!("HTTP/1.1 200 x\r\n\r\n{page}"),
                format!("HTTP/1.1 503 x\r\nX-Squid-Error: {echo}\r\n\r\n"),
                format!("HTTP/1.1 302 x\r\nLocation: http://x.example/{echo}\r\n\r\n"),
                format!("HTTP/1.1 407 x\r\nProxy-Authenticate: {echo}\r\n\r\n"),
            ] {
                let error = play(url, None, replies.as_bytes()).1.unwrap_err().to_string();
                assert!(!error.contains(echo) && !error.contains("9e04"), "{error}");
            }
            let script = Script::new(page.clone().into_bytes(), || usize::MAX);
            let mut tunnel = Tunnel::new(Box::new(script), ProxyUrl::parse(url).unwrap(), false);
            let error = tunnel.read(&mut [0; 100]).unwrap_err().to_string();
            assert!(error.contains("[redacted]") && !error.contains(echo) && !error.contains("9e04"), "{error}");
        }
        // Latin-1.
        let error = play(b"http://me:p\xe4ssword9@h", None, b"HTTP/1.1 403 x\r\n\r\n<title>p\xe4ssword9</title>");
        assert!(error.1.unwrap_err().to_string().contains("\"[redacted]\""));
    }

    #[test]
    fn the_retry_after_of_a_proxy_is_kept() {
        for (reply, seconds) in [
            ("HTTP/1.1 503 Busy\r\nRetry-After: 7\r\n\r\n", 7),
            (
                "HTTP/1.1 429 x\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nRetry-After: Sun Nov  6 08:49:40 1994\r\n\r\n",
                3,
            ),
        ] {
            let error = play("http://h", None, reply.as_bytes()).1.unwrap_err();
            assert_eq!((error.retry_after(), error.is_retryable()), (Some(Duration::from_secs(seconds)), true));
        }
    }

    #[test]
    fn the_example_of_a_proxy_url_has_its_scheme() {
        let no_method: &[u8] = &[5, 0xff];
        let rejected: &[u8] = &[0, 93, 0, 0, 0, 0, 0, 0];
        for (proxy, reply, example) in [
            ("socks5h://h", no_method, "as in socks5h://user:password@host:port"),
            ("socks5://h", no_method, "as in socks5://user:password@host:port"),
            ("socks4a://h", rejected, "as in socks4a://user@host:port"),
            ("https://h", b"HTTP/1.1 407 x\r\n\r\n", "as in https://user:password@host:port"),
        ] {
            let error = play(proxy, Some("192.0.2.1"), reply).1.unwrap_err();
            assert!(error.to_string().ends_with(example), "{error}");
        }
        // It was offered a password, so that no password helps.
        let error = play("socks5h://me:p@h", None, no_method).1.unwrap_err();
        assert!(error.to_string().contains("requires authentication by a method other than a password"), "{error}");
    }

    #[test]
    fn a_page_in_place_of_the_servers_tls_is_the_proxys() {
        let read = |announces_page, bytes: &[u8]| {
            let script = Script::new(bytes.to_vec(), || usize::MAX);
            let mut tunnel = Tunnel::new(Box::new(script), ProxyUrl::parse("http://h").unwrap(), announces_page);
            tunnel.read(&mut [0; 100]).map_err(|error| error.to_string())
        };
        let page = read(false, b"<html><title>It works!</title>").unwrap_err();
        assert!(page.starts_with("the proxy http://h:1080 sent a page") && page.contains("\"It works!\""), "{page}");
        assert!(read(true, b"hello").is_err());
        // A server without TLS, and one with.
        for (announces_page, bytes) in [
            (false, &b"HTTP/1.1 400 Bad Request"[..]),
            (false, b"SSH-2.0-x"),
            (true, b"\x16\x03\x03"),
            (true, b"\x15\x03"),
        ] {
            assert_eq!(read(announces_page, bytes), Ok(bytes.len()));
        }
    }
}
