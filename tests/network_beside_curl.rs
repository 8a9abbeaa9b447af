//! This library beside curl: the same servers, in the same run.
//!
//! Each row starts a server with an oddity of real networks, requests a token with both, and records what each says.
//! Users compare the two, so a row in which curl gets a token and this library does not needs a reason in words. The
//! table is docs/beside-curl.md; this test compares it, and AMP_UPDATE_CURL=1 rewrites it. What curl says depends on
//! its version, so that column is only compared if the version is the one of the table.
//!
//! A new row is one line of [`rows`]; a server of another kind is one more variant of [`Server`].
#![cfg(all(unix, feature = "cli"))]

mod support;

use amp_token::config::Config;
use amp_token::token::provider;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;
use support::net::{RawServer, read_head, read_until_eof, relay, socks5_proxy};
use support::{normalize, require, require_tool, run, scratch};

const BODY: &str = r#"{"access_token":"tok","expires_in":300}"#;

/// The time limit of both clients, for rows in which the server waits.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What responds.
enum Server {
    /// Reads a request, sends these bytes and closes the connection.
    Bytes(Vec<u8>),
    /// Sends these bytes as soon as a client has connected, and waits.
    Greeting(&'static str),
    /// `openssl s_server` with these arguments. It responds with a token.
    OpenSsl(&'static str),
    /// The same, and it wants to renegotiate before it responds.
    Renegotiating(&'static str),
}

/// What stands between a client and the server.
enum Proxy {
    /// Sends these bytes for the head of a CONNECT request, and opens the tunnel if they have the status 200. If the
    /// head does not contain this string, it sends a 403.
    Http(Vec<u8>, &'static str),
    /// SOCKS 5.
    Socks,
}

struct Row {
    name: &'static str,
    server: Server,
    /// A proxy, and its URL: `{}` is its host and port.
    proxy: Option<(Proxy, &'static str)>,
    /// The host in the URL.
    host: &'static str,
    /// The name of the file of CA certificates.
    ca: Option<&'static str>,
    /// Further settings of this library, and the arguments that mean the same to curl.
    settings: Vec<(&'static str, &'static str)>,
    curl: Vec<&'static str>,
    /// The environment of both. This library is run as the command then.
    environment: Vec<(&'static str, &'static str)>,
    /// Why this library has no token where curl gets one.
    reason: &'static str,
}

impl Row {
    fn new(name: &'static str, server: Server) -> Self {
        let (settings, curl, environment) = (vec![], vec![], vec![]);
        Row { name, server, proxy: None, host: "localhost", ca: None, settings, curl, environment, reason: "" }
    }

    fn because(self, reason: &'static str) -> Self {
        Row { reason, ..self }
    }

    fn host(self, host: &'static str) -> Self {
        Row { host, ..self }
    }

    fn with(mut self, name: &'static str, value: &'static str, curl: &[&'static str]) -> Self {
        self.settings.push((name, value));
        self.curl.extend(curl);
        self
    }
}

/// A server that sends this head and body.
fn bytes(name: &'static str, response: impl AsRef<[u8]>) -> Row {
    Row::new(name, Server::Bytes(response.as_ref().to_vec()))
}

/// A response that is a token but for its head. `{}` is the length of the body.
fn head(name: &'static str, head: &str) -> Row {
    bytes(name, format!("{}\r\n\r\n{BODY}", head.replace("{}", &BODY.len().to_string())))
}

/// A response with this status line, further headers and body, and the length of the body.
fn response(name: &'static str, status: &str, headers: &str, body: impl AsRef<[u8]>) -> Row {
    let body = body.as_ref();
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    bytes(name, [head.as_bytes(), body].concat())
}

/// A success with this body.
fn body(name: &'static str, body: impl AsRef<[u8]>) -> Row {
    response(name, "200 OK", "", body)
}

/// A server with these arguments, and the file of the CA certificates that the client trusts.
fn tls(name: &'static str, arguments: &'static str, ca: &'static str) -> Row {
    Row { ca: Some(ca), ..Row::new(name, Server::OpenSsl(arguments)) }
}

/// A good server behind a good proxy with a URL of this form.
fn proxied(name: &'static str, proxy: Proxy, url: &'static str) -> Row {
    Row { proxy: Some((proxy, url)), ..tls(name, "-cert leaf.pem -key leaf.key", "root.pem") }
}

/// A good server behind a proxy that sends this for a CONNECT request.
fn connect(name: &'static str, response: impl AsRef<[u8]>) -> Row {
    proxied(name, Proxy::Http(response.as_ref().to_vec(), ""), "http://{}")
}

/// Every row, by subject.
#[rustfmt::skip]
fn rows() -> Vec<(&'static str, Vec<Row>)> {
    let page = |title: &str| format!("<html><head><title>{title}</title></head></html>");
    let many: String = (0..150).map(|number| format!("X-{number}: x\r\n")).collect();
    let long = format!("X-A: {}\r\n", "x".repeat(70_000));
    let gzip = gzip(BODY.as_bytes());
    let gzip_chunk = [format!("{:x}\r\n", gzip.len()).as_bytes(), &gzip, b"\r\n0\r\n\r\n"].concat();
    let chunk = format!("{:x}\r\n{BODY}\r\n0\r\n\r\n", BODY.len());
    vec![
        ("Whose fault a failure is", vec![
            response("temporarily_unavailable under 400", "400 Bad Request", "", r#"{"error":"temporarily_unavailable"}"#),
            response("server_error under 401", "401 Unauthorized", "", r#"{"error":"server_error"}"#),
            response("temporarily_unavailable under 403", "403 Forbidden", "", r#"{"error":"temporarily_unavailable"}"#),
            response("an unknown code under 400", "400 Bad Request", "", r#"{"error":"Unauthorized","status":401}"#),
            response("invalid_client under 401", "401 Unauthorized", "", r#"{"error":"invalid_client"}"#),
            response("an empty 400", "400 Bad Request", "", ""),
            response("nginx: no client certificate", "400 Bad Request", "Server: nginx\r\n", page("400 No required SSL certificate was sent")),
            response("nginx: another client certificate", "400 Bad Request", "Server: nginx\r\n", page("400 The SSL certificate error")),
            response("nginx: http to its https port", "400 Bad Request", "Server: nginx\r\n", page("400 The plain HTTP request was sent to HTTPS port")),
            response("a page of a gateway under 401", "401 Unauthorized", "", page("Sign in")),
            response("a nested error", "400 Bad Request", "", r#"{"error":{"code":"unsupported_grant_type"}}"#),
            response("a description that is a list", "400 Bad Request", "", r#"{"error":"invalid_client","error_description":["x"]}"#),
            response("a description in Latin-1", "400 Bad Request", "", b"{\"error\":\"invalid_client\",\"error_description\":\"ung\xfcltig\"}"),
            response("522 of a content delivery network", "522 Origin Connection Time-out", "", ""),
            response("599", "599 Network Connect Timeout", "", ""),
            response("501", "501 Not Implemented", "", ""),
            response("511: the network wants a login", "511 Network Authentication Required", "", page("Hotel")),
            response("407 without a proxy", "407 Proxy Authentication Required", "", ""),
        ]),
        ("When to try again", vec![
            response("Retry-After in the form of asctime", "503 Busy", "Date: Sun Nov  6 08:49:27 2044\r\nRetry-After: Sun Nov  6 08:49:37 2044\r\n", ""),
            response("Retry-After with a day of one digit", "503 Busy", "Date: Sun, 6 Nov 2044 08:49:27 GMT\r\nRetry-After: Sun,  6 Nov 2044 08:49:37 GMT\r\n", ""),
            response("a day of Retry-After with a 400", "400 Bad Request", "Retry-After: 99999999\r\n", ""),
        ]),
        ("The head of a response", vec![
            head("a folded header", "HTTP/1.1 200 OK\r\nX-A: one\r\n two\r\nContent-Length: {}"),
            head("a space before the colon", "HTTP/1.1 200 OK\r\nX-A : one\r\nContent-Length: {}"),
            head("a line without a colon", "HTTP/1.1 200 OK\r\nnonsense\r\nContent-Length: {}"),
            head("an empty name", "HTTP/1.1 200 OK\r\n: x\r\nContent-Length: {}"),
            head("an odd name", "HTTP/1.1 200 OK\r\nX@A B: x\r\nContent-Length: {}"),
            head("a control character in a value", "HTTP/1.1 200 OK\r\nX-A: a\u{1}b\r\nContent-Length: {}"),
            head("a NUL in a value", "HTTP/1.1 200 OK\r\nX-A: a\0b\r\nContent-Length: {}"),
            bytes("a reason in Latin-1", [b"HTTP/1.1 200 In Ordnung f\xfcr Sie\r\nContent-Length: 39\r\n\r\n", BODY.as_bytes()].concat()),
            head("two blanks before the status", "HTTP/1.1  200 OK\r\nContent-Length: {}"),
            head("no reason", "HTTP/1.1 200\r\nContent-Length: {}"),
            bytes("LF as line breaks", format!("HTTP/1.1 200 OK\nContent-Length: 39\n\n{BODY}")),
            head("100 Continue with headers (IIS)", "HTTP/1.1 100 Continue\r\nServer: Microsoft-IIS/10.0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: {}"),
            head("100, 102 and 199, with headers", "HTTP/1.1 100 A\r\n\r\nHTTP/1.1 102 B\r\nX: y\r\n\r\nHTTP/1.1 199 C\r\nX : y\r\n z\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: {}"),
            head("201 with a token", "HTTP/1.1 201 Created\r\nContent-Length: {}"),
            head("150 headers", &format!("HTTP/1.1 200 OK\r\n{many}Content-Length: {{}}")).because("a response has at most 128 headers"),
            head("70 KB of headers", &format!("HTTP/1.1 200 OK\r\n{long}Content-Length: {{}}")).because("the headers of a response have at most 64 KB"),
            head("HTTP/2 in the status line", "HTTP/2 200\r\nContent-Length: {}"),
            Row::new("the banner of another protocol", Server::Greeting("SSH-2.0-OpenSSH_9.2\r\n")),
        ]),
        ("The length and coding of a body", vec![
            bytes("chunks", format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}")),
            bytes("chunks in HTTP/1.0", format!("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}")),
            bytes("chunks and a length", format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}")),
            bytes("until the end of the connection", format!("HTTP/1.1 200 OK\r\n\r\n{BODY}")),
            head("the same length twice", "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nContent-Length: {}"),
            head("the same length in a list", "HTTP/1.1 200 OK\r\nContent-Length: {}, {}"),
            head("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 30\r\nContent-Length: {}").because("which of the two is right is a guess, and a token that is cut off is worse than none"),
            head("a length with a sign", "HTTP/1.1 200 OK\r\nContent-Length: +{}").because("it is not a length (RFC 9110, 8.6), and no server that sends it is known"),
            bytes("a length that is too long", format!("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{BODY}")),
            response("gzip, not requested", "200 OK", "Content-Encoding: gzip\r\n", gzip),
            bytes("gzip and chunks as transfer codings", [&b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"[..], &gzip_chunk].concat()).because("no server sends this coding without being asked for it (RFC 9112, 7.4); the message names it"),
        ]),
        ("The members of a token", vec![
            body("expires_in: 300.0", r#"{"access_token":"tok","expires_in":300.0}"#),
            body("expires_in: 3e2", r#"{"access_token":"tok","expires_in":3e2}"#),
            body("expires_in: \"300.0\"", r#"{"access_token":"tok","expires_in":"300.0"}"#),
            body("expires_in: 1e400", r#"{"access_token":"tok","expires_in":1e400}"#),
            body("an empty error", r#"{"access_token":"tok","expires_in":300,"error":""}"#),
            body("error: false", r#"{"access_token":"tok","expires_in":300,"error":false}"#),
            body("error: 0, and odd members", r#"{"access_token":"tok","expires_in":300,"error":0,"error_description":[],"token_type":""}"#),
            body("a byte order mark", format!("\u{feff}{BODY}")),
            body("a token that is a number", r#"{"access_token":5,"expires_in":300}"#),
            body("no lifetime", r#"{"access_token":"tok"}"#).because("without expires_in nobody knows when the token expires; curl prints any body"),
            body("half a second", r#"{"access_token":"tok","expires_in":0.5}"#).because("the token would have expired before it is used; curl prints any body"),
            body("an error beside a token", r#"{"access_token":"tok","expires_in":300,"error":"server_error"}"#).because("the server says that it failed; curl prints any body"),
            body("a page", page("Welcome")),
        ]),
        ("Proxies", vec![
            connect("HTTP/1.0", "HTTP/1.0 200 Connection established\r\n\r\n"),
            connect("no reason", "HTTP/1.1 200\r\n\r\n"),
            connect("a reason in Latin-1", b"HTTP/1.1 200 In Ordnung f\xfcr Sie\r\n\r\n"),
            connect("a folded header, and a space before the colon", "HTTP/1.1 200 OK\r\nX-A: one\r\n two\r\nX-B : c\r\n\r\n"),
            connect("an interim response first", "HTTP/1.1 103 A\r\nX: y\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
            connect("a length, which does not count", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
            connect("LF as line breaks", "HTTP/1.1 200 OK\n\n"),
            proxied("only clients with a User-Agent", Proxy::Http(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), "User-Agent: "), "http://{}"),
            connect("407: Negotiate or NTLM", "HTTP/1.1 407 Denied\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n"),
            connect("407: Basic, with a reason in Latin-1", b"HTTP/1.1 407 Verweigert f\xfcr Sie\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n"),
            connect("403", "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"),
            connect("405: not a proxy", "HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n"),
            connect("302: a portal", "HTTP/1.1 302 Found\r\nLocation: http://portal.example/\r\nContent-Length: 0\r\n\r\n"),
            connect("503 with Retry-After", "HTTP/1.1 503 Busy\r\nRetry-After: 10\r\nContent-Length: 0\r\n\r\n"),
            connect("what is not HTTP", "SSH-2.0-OpenSSH_9.2\r\n\r\n"),
            proxied("the scheme in upper case", Proxy::Http(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), ""), "HTTP://{}"),
            proxied("no scheme", Proxy::Http(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), ""), "{}"),
            proxied("SOCKS 5", Proxy::Socks, "socks5://{}"),
            proxied("SOCKS 5 that resolves, in upper case", Proxy::Socks, "SOCKS5H://{}"),
        ]),
        ("Settings", vec![
            head("a line break after the URL", "HTTP/1.1 200 OK\r\nContent-Length: {}").with("suffix", "\n", &[]),
            head("a host name that is not ASCII", "HTTP/1.1 200 OK\r\nContent-Length: {}").host("münchen.localhost").because("converting it takes the tables of Unicode; the message says to write it in punycode"),
            head("a path of 20 KB", "HTTP/1.1 200 OK\r\nContent-Length: {}").with("path", "20000", &[]).because("a path has at most 16 KB, as common servers accept; it is rejected before a connection is made"),
            head("a port with a sign", "HTTP/1.1 200 OK\r\nContent-Length: {}").with("port", "+", &[]),
        ]),
        ("Files of certificates", vec![
            tls("the file of the CA", "-cert leaf.pem -key leaf.key", "root.pem"),
            tls("a byte order mark before it", "-cert leaf.pem -key leaf.key", "bom.pem"),
            tls("two certificates, a byte order mark before them", "-cert leaf.pem -key leaf.key", "bom-two.pem"),
            tls("X509 CERTIFICATE", "-cert leaf.pem -key leaf.key", "x509.pem"),
            tls("TRUSTED CERTIFICATE", "-cert leaf.pem -key leaf.key", "trusted.pem").because("its trust settings would be ignored; the message has the command that converts it"),
            tls("indented", "-cert leaf.pem -key leaf.key", "indented.pem"),
            tls("in lower case", "-cert leaf.pem -key leaf.key", "lower.pem"),
            tls("in UTF-16", "-cert leaf.pem -key leaf.key", "utf16.pem"),
            tls("in DER", "-cert leaf.pem -key leaf.key", "root.der"),
            Row { environment: vec![("SSL_CERT_FILE", "")], ..Row::new("an empty SSL_CERT_FILE", Server::OpenSsl("-cert leaf.pem -key leaf.key")) },
            Row { environment: vec![("SSL_CERT_FILE", "bom.pem")], ..Row::new("a byte order mark in SSL_CERT_FILE", Server::OpenSsl("-cert leaf.pem -key leaf.key")) },
        ]),
        ("Certificates", vec![
            tls("the CA was made anew, same name", "-cert leaf.pem -key leaf.key", "anew.pem"),
            tls("the same, with a key of another type", "-cert leaf.pem -key leaf.key", "anew-rsa.pem"),
            tls("a self-signed certificate that was renewed", "-cert self.pem -key self.key", "self-old.pem"),
            tls("an intermediate that expired", "-cert by-expired.pem -key leaf.key -cert_chain expired.pem", "root.pem"),
            tls("the server's certificate expired", "-cert expired-leaf.pem -key leaf.key", "root.pem"),
            tls("an intermediate is missing", "-cert by-middle.pem -key leaf.key", "root.pem"),
            tls("another intermediate of the same name", "-cert by-middle.pem -key leaf.key -cert_chain other-middle.pem", "root.pem"),
            tls("the CA is not trusted", "-cert leaf.pem -key leaf.key", "other.pem"),
            tls("for another host", "-cert other-host.pem -key leaf.key", "root.pem"),
            tls("120 certificates in the chain", "-cert leaf.pem -key leaf.key -cert_chain chain-120.pem", "root.pem"),
            tls("200 certificates in the chain", "-cert leaf.pem -key leaf.key -cert_chain chain-200.pem", "root.pem").because("the certificates of a server have at most 64 KB; the message says so"),
            tls("only a common name", "-cert cn.pem -key leaf.key", "root.pem").because("a common name does not count (RFC 9110, 4.3.4)"),
            tls("an IP address as a DNS name (squid)", "-cert ip-as-dns.pem -key leaf.key", "root.pem").host("127.0.0.1"),
            tls("the server's certificate in ca_file", "-cert leaf.pem -key leaf.key", "leaf.pem").because("only a CA is trusted; the message says to set that of the CA"),
            tls("a key of 1024 bits", "-cert short.pem -key short.key -cipher DEFAULT@SECLEVEL=0", "short.pem"),
            tls("a key of 1024 bits, from a good CA", "-cert short-leaf.pem -key short.key -cipher DEFAULT@SECLEVEL=0", "root.pem"),
            tls("a CA with a key of 1024 bits", "-cert by-short.pem -key leaf.key -cipher DEFAULT@SECLEVEL=0", "short-ca.pem"),
            tls("ECDSA with SHA-512", "-cert sha512.pem -key leaf.key", "root.pem").because("ring does not support it; the message names it"),
            tls("a CA with a key of P-521", "-cert by-p521.pem -key leaf.key", "p521-ca.pem").because("ring does not support it; the message names it"),
            tls("X.509 version 1", "-cert v1.pem -key leaf.key", "root.pem").because("webpki does not support it; the message names it"),
            tls("a constraint of directory names", "-cert by-constrained.pem -key leaf.key -cert_chain constrained.pem", "root.pem").because("webpki does not support it; the message names it"),
            tls("a host name with a hyphen at the end of a label", "-cert hyphen.pem -key leaf.key", "root.pem").host("foo-.localhost").because("no host has such a name (RFC 1123, 2.1)"),
        ]),
        ("Handshakes", vec![
            tls("RSA key exchange only", "-cert rsa.pem -key rsa.key -tls1_2 -cipher AES128-GCM-SHA256", "rsa.pem").because("no forward secrecy; the message says what is supported"),
            tls("CBC only", "-cert rsa.pem -key rsa.key -tls1_2 -cipher ECDHE-RSA-AES128-SHA", "rsa.pem").because("rustls has no CBC; the message says what is supported"),
            tls("a certificate with a key of P-521", "-cert p521.pem -key p521.key", "p521.pem").because("ring does not support it; the message says what is supported"),
            tls("the group X448 only", "-cert leaf.pem -key leaf.key -groups X448", "root.pem").because("ring does not support it; the message says what is supported"),
            tls("TLS 1.1 only", "-cert leaf.pem -key leaf.key -tls1_1 -cipher DEFAULT@SECLEVEL=0", "root.pem"),
            Row { ca: Some("root.pem"), ..Row::new("renegotiation", Server::Renegotiating("-cert leaf.pem -key leaf.key -tls1_2")) }.because("rustls does not renegotiate; the message says so"),
            tls("a client certificate is required, and none is set", "-cert leaf.pem -key leaf.key -Verify 1", "root.pem"),
            tls("a client certificate is set", "-cert leaf.pem -key leaf.key -Verify 1", "root.pem")
                .with("client_certificate", "leaf.pem", &["--cert", "leaf.pem"]).with("client_key", "leaf.key", &["--key", "leaf.key"]),
            Row { ca: Some("root.pem"), ..Row::new("https to a port that speaks http", Server::Greeting("HTTP/1.1 400 Bad Request\r\n\r\n")) }.with("scheme", "https", &[]),
        ]),
    ]
}

/// A gzip file with one stored block (RFC 1951, 3.2.4, and RFC 1952).
fn gzip(data: &[u8]) -> Vec<u8> {
    let crc = !data.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    });
    let length = u16::try_from(data.len()).unwrap();
    let head = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1];
    let (size, inverse) = (length.to_le_bytes(), (!length).to_le_bytes());
    [&head[..], &size, &inverse, data, &crc.to_le_bytes(), &u32::from(length).to_le_bytes()].concat()
}

/// Makes the certificates and keys that the rows name.
const PKI: &str = r#"
set -eu
printf '[leaf]\nsubjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n[ca]\nbasicConstraints=critical,CA:TRUE\n' > x.cnf
printf '[host]\nsubjectAltName=DNS:a.example\n[cn]\nbasicConstraints=CA:FALSE\n[ip]\nsubjectAltName=DNS:127.0.0.1\n' >> x.cnf
printf '[hyphen]\nsubjectAltName=DNS:foo-.localhost\n' >> x.cnf
printf '[names]\nbasicConstraints=critical,CA:TRUE\nnameConstraints=critical,permitted;dirName:d,permitted;DNS:localhost\n[d]\nO=x\n' >> x.cnf
key() { openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:${2:-P-256} -out $1.key 2>/dev/null || openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:${2:-P-256} -out $1.key; }
rsa() { openssl genrsa -out $1.key $2; }
self() { openssl req -x509 -new -key $1.key -out $1.pem -subj "$2" -days 3000 -addext basicConstraints=critical,CA:$3 -addext subjectAltName=DNS:localhost; }
signed() { name=$1 ca=$2 section=$3; shift 3; openssl x509 -req -in leaf.csr -CA $ca.pem -CAkey $ca.key -CAcreateserial -days 3000 -extfile x.cnf -extensions $section -out $name.pem "$@"; }
for name in root anew other leaf self self-old; do key $name; done
self root /CN=root TRUE; self anew /CN=root TRUE; self other /CN=other TRUE; self self /CN=localhost FALSE; self self-old /CN=localhost FALSE
rsa anew-rsa 2048; self anew-rsa /CN=root TRUE
rsa short 1024; self short /CN=localhost FALSE; rsa short-ca 1024; self short-ca /CN=short TRUE
rsa rsa 2048; self rsa /CN=localhost FALSE
key p521 P-521; self p521 /CN=localhost FALSE; key p521-ca P-521; self p521-ca /CN=p521 TRUE
openssl req -new -key leaf.key -subj /O=x/CN=localhost -out leaf.csr
signed leaf root leaf; signed other-host root host; signed cn root cn; signed ip-as-dns root ip; signed hyphen root hyphen
signed sha512 root leaf -sha512; signed by-p521 p521-ca leaf -sha256; signed by-short short-ca leaf
openssl x509 -req -in leaf.csr -CA root.pem -CAkey root.key -CAcreateserial -days 3000 -out v1.pem
for name in expired constrained; do key $name; openssl req -new -key $name.key -subj /O=x/CN=$name -out $name.csr; done
openssl x509 -req -in expired.csr -CA root.pem -CAkey root.key -days 0 -extfile x.cnf -extensions ca -out expired.pem
openssl x509 -req -in leaf.csr -CA root.pem -CAkey root.key -days 0 -extfile x.cnf -extensions leaf -out expired-leaf.pem
openssl req -new -key short.key -subj /CN=localhost -out short.csr
openssl x509 -req -in short.csr -CA root.pem -CAkey root.key -days 3000 -extfile x.cnf -extensions leaf -out short-leaf.pem
for name in middle other-middle; do
    key $name; openssl req -new -key $name.key -subj /CN=middle -out $name.csr
    openssl x509 -req -in $name.csr -CA root.pem -CAkey root.key -days 3000 -extfile x.cnf -extensions ca -out $name.pem
done
signed by-middle middle leaf
for count in 120 200; do for i in $(seq $count); do cat root.pem; done > chain-$count.pem; done
openssl x509 -req -in constrained.csr -CA root.pem -CAkey root.key -days 3000 -extfile x.cnf -extensions names -out constrained.pem
signed by-expired expired leaf; signed by-constrained constrained leaf
{ printf '\357\273\277'; cat root.pem; } > bom.pem
{ cat bom.pem other.pem; } > bom-two.pem
sed 's/CERTIFICATE/X509 CERTIFICATE/' root.pem > x509.pem
openssl x509 -in root.pem -trustout -out trusted.pem
sed 's/^/  /' root.pem > indented.pem
tr A-Z a-z < root.pem > lower.pem
iconv -f UTF-8 -t UTF-16 root.pem > utf16.pem
openssl x509 -in root.pem -outform DER -out root.der
# The certificate that is valid for no day has expired a second later.
sleep 1.1
"#;

/// `openssl s_server` for one connection.
struct OpenSslServer {
    child: Child,
    port: u16,
}

impl OpenSslServer {
    fn start(directory: &Path, arguments: &str, renegotiates: bool) -> Self {
        let mut child = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-naccept", "1"])
            .args(arguments.split(' '))
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, receiver) = channel();
        thread::spawn(move || {
            let (mut seen, mut piece) = (Vec::new(), [0; 4096]);
            let mut is_told = false;
            while let Ok(count @ 1..) = output.read(&mut piece) {
                seen.extend_from_slice(&piece[..count]);
                let text = String::from_utf8_lossy(&seen);
                let port = text.split_once("ACCEPT 127.0.0.1:").and_then(|(_, rest)| rest.split_once('\n'));
                if let Some((port, _)) = port.filter(|_| !is_told) {
                    is_told = true;
                    let _ = sender.send(port.trim().parse::<u16>().unwrap());
                }
                if text.contains("grant_type=client_credentials") {
                    if renegotiates {
                        // The client ends the connection, or s_server waits for it.
                        let _ = input.write_all(b"r\n");
                        thread::sleep(Duration::from_millis(200));
                    }
                    let _ = write!(input, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{BODY}", BODY.len());
                    return;
                }
            }
        });
        let port = receiver.recv_timeout(TIMEOUT).expect("openssl s_server did not start");
        OpenSslServer { child, port }
    }
}

impl Drop for OpenSslServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a client says to a row.
struct Outcome {
    has_token: bool,
    text: String,
}

/// Runs one client against the server of a row.
fn with_server(row: &Row, directory: &Path, client: impl FnOnce(&str, Option<&str>) -> Outcome) -> Outcome {
    let (_raw, _openssl);
    let has = |name| row.settings.iter().find(|(have, _)| *have == name).map(|(_, value)| *value);
    let (port, mut scheme) = match &row.server {
        Server::Bytes(response) => {
            _raw = RawServer::responding(response.clone());
            (_raw.address.port(), "http")
        }
        Server::Greeting(greeting) => {
            let greeting = *greeting;
            _raw = RawServer::start(move |mut stream| {
                stream.write_all(greeting.as_bytes())?;
                read_until_eof(&mut stream)
            });
            (_raw.address.port(), "http")
        }
        Server::OpenSsl(arguments) => {
            _openssl = OpenSslServer::start(directory, arguments, false);
            (_openssl.port, "https")
        }
        Server::Renegotiating(arguments) => {
            _openssl = OpenSslServer::start(directory, arguments, true);
            (_openssl.port, "https")
        }
    };
    scheme = has("scheme").unwrap_or(scheme);
    let path = "/x".repeat(has("path").map_or(0, |length| length.parse::<usize>().unwrap() / 2));
    let (sign, suffix) = (has("port").unwrap_or_default(), has("suffix").unwrap_or_default());
    let proxy = row.proxy.as_ref().map(|(proxy, url)| {
        let server = SocketAddr::from(([127, 0, 0, 1], port));
        let address = match proxy {
            Proxy::Http(response, wanted) => http_proxy(server, response.clone(), wanted).address,
            Proxy::Socks => socks5_proxy(Some(server), None, 0).address,
        };
        url.replace("{}", &address.to_string())
    });
    let url = format!("{scheme}://{}:{sign}{port}{path}/oauth/token{suffix}", row.host);
    client(&url, proxy.as_deref())
}

fn http_proxy(server: SocketAddr, response: Vec<u8>, wanted: &'static str) -> RawServer {
    RawServer::start(move |mut stream| {
        let head = read_head(&mut stream)?;
        if !head.contains(wanted) {
            return stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
        }
        stream.write_all(&response)?;
        if response.windows(5).any(|part| part == b" 200 " || part == b" 200\r") {
            relay(&stream, &TcpStream::connect(server)?);
        }
        Ok(())
    })
}

const PSEUDO_SETTINGS: [&str; 4] = ["scheme", "path", "port", "suffix"];

fn ours(row: &Row, url: &str, proxy: Option<&str>, directory: &Path) -> Outcome {
    let mut settings = vec![
        ("auth_url", url.to_owned()),
        ("client_id", "id".to_owned()),
        ("client_secret", "hush".to_owned()),
        ("store", "none".to_owned()),
        ("retries", "0".to_owned()),
        ("timeout_ms", TIMEOUT.as_millis().to_string()),
        ("connect_timeout_ms", TIMEOUT.as_millis().to_string()),
    ];
    settings.extend(row.ca.map(|name| ("ca_file", directory.join(name).display().to_string())));
    let own = row.settings.iter().filter(|(name, _)| !PSEUDO_SETTINGS.contains(name));
    settings.extend(own.map(|(name, value)| (*name, directory.join(value).display().to_string())));
    if !row.environment.is_empty() {
        let mut command = Command::new(env!("CARGO_BIN_EXE_amp-token"));
        command
            .arg("get")
            .env_clear()
            .env("HOME", directory)
            .current_dir(directory)
            .envs(row.environment.iter().copied());
        command.envs(settings.iter().map(|(name, value)| (format!("AMPLIENCE_{}", name.to_uppercase()), value)));
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        let text = format!("exit {}: {}", output.status.code().unwrap(), text.trim_end().replace("amp-token: ", ""));
        return Outcome { has_token: output.status.success(), text };
    }
    let mut config = Config::new();
    settings.push(("proxy", proxy.unwrap_or("none").to_owned()));
    let set = settings.iter().try_for_each(|(name, value)| config.set(name, Some(value)));
    match set.and_then(|()| provider::get_token(&config)) {
        Ok(_) => Outcome { has_token: true, text: String::new() },
        Err(error) => {
            let status = format!("{:?}", error.kind()).chars().fold("AMP".to_owned(), |mut name, c| {
                name.extend(c.is_uppercase().then_some('_'));
                name.push(c.to_ascii_uppercase());
                name
            });
            Outcome { has_token: false, text: format!("{status}: {error}") }
        }
    }
}

fn curl(row: &Row, url: &str, proxy: Option<&str>, directory: &Path) -> Outcome {
    let mut command = Command::new("curl");
    command.args(["-q", "-sS", "-m", &TIMEOUT.as_secs().to_string(), "-w", "\n%{http_code}"]);
    command.args(["-d", "client_id=id&client_secret=hush&grant_type=client_credentials"]);
    command.args(row.ca.into_iter().flat_map(|name| ["--cacert", name])).args(&row.curl).arg(url);
    command.args(proxy.into_iter().flat_map(|url| ["--proxy", url]));
    // Where there is no file of that environment, as on the machines of this project.
    let path = std::env::var_os("PATH").unwrap();
    command.env_clear().env("PATH", path).env("HOME", directory).current_dir(directory).env("LC_ALL", "C.UTF-8");
    let output = command.envs(row.environment.iter().copied()).output().unwrap();
    let (body, message) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let (body, status) = body.rsplit_once('\n').unwrap_or_default();
    if output.status.success() {
        let is_success =
            status.starts_with('2') && body.trim_start_matches('\u{feff}').starts_with(r#"{"access_token":"tok""#);
        return Outcome {
            has_token: is_success,
            text: if is_success { String::new() } else { format!("HTTP {status}") },
        };
    }
    Outcome { has_token: false, text: message.lines().next().unwrap_or_default().to_owned() }
}

fn has_openssl() -> bool {
    Command::new("openssl").arg("version").output().is_ok_and(|output| output.status.success())
}

fn curl_version() -> String {
    let output = run(Command::new("curl").arg("--version"));
    String::from_utf8_lossy(&output.stdout).split(' ').nth(1).unwrap_or_default().to_owned()
}

/// The cell of an outcome.
fn cell(outcome: &Outcome, directory: &Path) -> String {
    let text = normalize(&outcome.text.replace(&"/x".repeat(10_000), "/…").replace('\n', " "), directory);
    if outcome.has_token { "a token".to_owned() } else { text }
}

/// The line of the table for one row, or what is wrong with it.
fn line(row: &Row, directory: &Path) -> Result<String, String> {
    let ours = with_server(row, directory, |url, proxy| ours(row, url, proxy, directory));
    let curls = with_server(row, directory, |url, proxy| curl(row, url, proxy, directory));
    let text = &ours.text;
    if text.contains("hush") || text.contains("Context {") || text.contains(": [") {
        return Err(format!("{}: {text}", row.name));
    }
    match (curls.has_token && !ours.has_token, row.reason) {
        (true, "") => Err(format!("{}: curl gets a token, and this library does not: {text}", row.name)),
        (false, reason) if !reason.is_empty() => {
            Err(format!("{}: there is no such difference any more: {reason}; {text} {}", row.name, curls.text))
        }
        (_, reason) => {
            Ok(format!("| {} | {} | {} | {reason} |\n", row.name, cell(&ours, directory), cell(&curls, directory)))
        }
    }
}

/// A line without what curl says.
fn without_curl(line: &str) -> String {
    let mut cells: Vec<_> = line.split(" | ").collect();
    if cells.len() == 4 {
        cells.remove(2);
    }
    cells.join(" | ")
}

#[test]
fn whatever_curl_gets_through_this_library_gets_through() {
    if !require_tool("curl") || !require(has_openssl(), "openssl") {
        return;
    }
    let directory = scratch("beside-curl");
    run(Command::new("sh").args(["-c", PKI]).current_dir(&directory));
    let version = curl_version();
    let (mut made, mut problems) = (HEAD.replace("{version}", &version), Vec::new());
    for (subject, rows) in rows() {
        write!(made, "\n## {subject}\n| case | this library | curl | why they differ |\n| --- | --- | --- | --- |\n")
            .unwrap();
        // Most of the time is waiting for processes.
        let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while let Some((index, row)) = rows.iter().enumerate().nth(next.fetch_add(1, Ordering::SeqCst)) {
                        let line = line(row, &directory);
                        done.lock().unwrap().push((index, line));
                    }
                });
            }
        });
        let mut done = done.into_inner().unwrap();
        done.sort_by_key(|(index, _)| *index);
        for (_, line) in done {
            match line {
                Ok(line) => made.push_str(&line),
                Err(problem) => problems.push(problem),
            }
        }
    }
    println!("{made}");
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    let path = support::root().join("docs/beside-curl.md");
    if std::env::var_os("AMP_UPDATE_CURL").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let same_version = kept.contains(&format!("curl {version},"));
    let compared = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| line.starts_with('|'));
        lines.map(|line| if same_version { line.to_owned() } else { without_curl(line) }).collect()
    };
    for (made, kept) in compared(&made).iter().zip(&compared(&kept)) {
        assert_eq!(
            made, kept,
            "docs/beside-curl.md is out of date: AMP_UPDATE_CURL=1 cargo test --test network_beside_curl"
        );
    }
    assert_eq!(compared(&made).len(), compared(&kept).len());
}

const HEAD: &str = "# Beside curl\n\nWhat this library and curl say to the same servers. Written by tests/network_beside_curl.rs, with curl {version}, in
the same run; ports, times, dates and paths in messages are left out. Where curl gets a token and this library does not, the last column says why.
curl prints any body, so a token is one only if the status is a success.\n";
