//! The other end of the connections: a server in the parent process, or the own transport in the child.
//!
//! Secrets and tokens are computed from their length, so that both processes know them and neither has to
//! keep or send one to the other.

use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use zeroize::Zeroizing;

/// The length of the client secret, of passwords and of personal access tokens.
pub const SECRET: usize = 64;

/// One character of the text of that length.
pub fn letter(length: usize, index: usize) -> u8 {
    let mut hash = (length as u64) << 32 | index as u64;
    for _ in 0..3 {
        hash = (hash ^ hash >> 29).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x51_7c_c1_b7_27_22_0a_95);
    }
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"[(hash >> 33) as usize % 62]
}

/// The text of that length, with others around it.
pub fn text(before: &str, length: usize, after: &str) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(before.len() + length + after.len()));
    text.push_str(before);
    text.extend((0..length).map(|index| char::from(letter(length, index))));
    text.push_str(after);
    text
}

/// How a token request ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// A token.
    Token,
    /// A token that has escapes in its JSON.
    Escaped,
    /// 400, with a description that repeats the client secret.
    Echo,
    /// 400, with a description that does not.
    Described,
    /// 400, with a request id and nothing else.
    RequestId,
    /// 401, with an OAuth error.
    Unauthorized,
    /// 500, with a page that repeats the client secret.
    Failure,
    /// 302, to a URL that holds the client secret.
    Redirect,
    /// 200, with a token in what is no JSON object.
    Garbage,
    /// 200, with a token and no lifetime.
    Incomplete,
}

pub const OUTCOMES: [Outcome; 10] = [
    Outcome::Token,
    Outcome::Escaped,
    Outcome::Echo,
    Outcome::Described,
    Outcome::RequestId,
    Outcome::Unauthorized,
    Outcome::Failure,
    Outcome::Redirect,
    Outcome::Garbage,
    Outcome::Incomplete,
];

/// A response.
pub struct Canned {
    pub status: u16,
    pub header: (&'static str, Zeroizing<String>),
    pub body: Zeroizing<String>,
}

impl Outcome {
    /// The response to a token request, with a token of that length.
    pub fn response(self, length: usize) -> Canned {
        let plain = ("Content-Type", text("application/json", 0, ""));
        let (status, header, body) = match self {
            Outcome::Token => (200, plain, text(r#"{"access_token":""#, length, r#"","expires_in":300}"#)),
            Outcome::Escaped => (200, plain, text(r#"{"access_token":"\u0065\/"#, length, r#"","expires_in":300}"#)),
            Outcome::Echo => (
                400,
                plain,
                text(r#"{"error":"invalid_client","error_description":"no such secret: "#, SECRET, r#""}"#),
            ),
            Outcome::Described => {
                (400, plain, text(r#"{"error":"invalid_client","error_description":"try another"}"#, 0, ""))
            }
            Outcome::RequestId => {
                (400, ("X-Request-Id", text("1-67891233-abcdef012345678912345678", 0, "")), text("", 0, ""))
            }
            Outcome::Unauthorized => (401, plain, text(r#"{"error":"invalid_client"}"#, 0, "")),
            Outcome::Failure => (500, plain, text("<html>in=", SECRET, "</html>")),
            Outcome::Redirect => (302, ("Location", text("/login?client_secret=", SECRET, "")), text("", 0, "")),
            Outcome::Garbage => (200, plain, text(r#"["access_token",""#, length, r#""]"#)),
            Outcome::Incomplete => (200, plain, text(r#"{"access_token":""#, length, r#""}"#)),
        };
        Canned { status, header, body }
    }
}

/// Starts the server; returns its port. A path begins with the number of the outcome and the token's length.
pub fn start() -> u16 {
    listen(serve)
}

/// Starts it with TLS; returns its port and its certificate, which is its own authority.
pub fn start_with_tls() -> (u16, String) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let port = listen(move |stream| {
        let session = ServerConnection::new(config.clone()).map_err(std::io::Error::other)?;
        serve(StreamOwned::new(session, stream))
    });
    (port, made.cert.pem())
}

fn listen(serve: impl Fn(TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let serve = serve.clone();
            // A client that goes away early is no failure of the server.
            std::thread::spawn(move || drop(serve(stream.unwrap())));
        }
    });
    port
}

fn serve(stream: impl Read + Write) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    match stream.fill_buf()?.first() {
        Some(4) => return stream.get_mut().write_all(&[0, 91, 0, 0, 0, 0, 0, 0]),
        Some(5) => return refuse_socks5(&mut stream),
        Some(b'*') => return stream.get_mut().write_all(b"-WRONGPASS invalid username-password pair\r\n"),
        _ => {}
    }
    let (mut start, mut length) = (String::new(), 0);
    stream.read_line(&mut start)?;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? < 3 {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    std::io::copy(&mut (&mut stream).take(length), &mut std::io::sink())?;
    let mut words = start.split([' ', '/']).filter(|word| !word.is_empty());
    let canned = match words.next() {
        Some("POST") => {
            let outcome = OUTCOMES[words.next().unwrap().parse::<usize>().unwrap()];
            outcome.response(words.next().unwrap().parse().unwrap())
        }
        Some("CONNECT") => Canned { status: 407, ..Outcome::Unauthorized.response(0) },
        _ => Canned { status: 200, header: ("Content-Type", text("application/json", 0, "")), body: text("{}", 0, "") },
    };
    let Canned { status, header: (name, value), body } = canned;
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{name}: {}\r\n\r\n", body.len(), *value);
    let writer = stream.get_mut();
    writer.write_all(head.as_bytes())?;
    writer.write_all(body.as_bytes())?;
    writer.flush()
}

/// Reads the name and the password, and rejects them.
fn refuse_socks5(stream: &mut BufReader<impl Read + Write>) -> std::io::Result<()> {
    let take = |stream: &mut BufReader<_>, count: u8| {
        let mut bytes = vec![0; count.into()];
        stream.read_exact(&mut bytes).map(|()| bytes[usize::from(count) - 1])
    };
    let methods = take(stream, 2)?;
    take(stream, methods)?;
    stream.get_mut().write_all(&[5, 2])?;
    for skipped in [2, 1] {
        let length = take(stream, skipped)?;
        take(stream, length)?;
    }
    stream.get_mut().write_all(&[1, 1])
}
