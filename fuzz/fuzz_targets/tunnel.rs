//! The fuzzer is a proxy: a tunnel is open behind the reply that opens it and not a byte later, and no message has the
//! password, whatever the proxy repeats.
#![no_main]
use amp_token::error::{Error, Kind};
use amp_token::net::proxy::{ProxyUrl, Scheme};
use amp_token::net::scripted_exchange::{PlayedTunnel, play_tunnel};
use amp_token::sanitize::is_unprintable;
use amp_token_fuzz::on_small_stack;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[rustfmt::skip]
const PROXIES: [&str; 7] = [
    "http://p.example", "http://me:hush-hush-hush-9e04@p.example", "https://me:hush-hush-hush-9e04@p.example", "socks4://1.2.3.4",
    "socks4a://me@p.example", "socks5://p.example", "socks5h://me:hush-hush-hush-9e04@p.example",
];

const SECRET: &str = "hush-hush-hush-9e04";

/// The maximum of what is read of a response to CONNECT.
const LIMIT: usize = 16 * 1024;

#[rustfmt::skip]
const TEXTS: [&[u8]; 41] = [
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 101 x\r\n", b"HTTP/1.1 302 x\r\n",
    b"HTTP/1.1 401 x\r\n", b"HTTP/1.1 403 x\r\n", b"HTTP/1.1 407 x\r\n", b"HTTP/1.1 429 x\r\n", b"HTTP/1.1 503 x\r\n",
    b"HTTP/1.1 511 x\r\n", b"HTTP/2 200\r\n", b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"Content-Type: text/html\r\n",
    b"Content-Length: 0\r\n", b"Content-Length: 40\r\n", b"Retry-After: 7\r\n", b"Retry-After: ", b"Location: http://x.example/",
    b"Location: ", b"X-Squid-Error: ", b"Proxy-Authenticate: Basic\r\n", b"Proxy-Authenticate: ", b"WWW-Authenticate: ", b"Negotiate, ",
    b"<title>", b"</title>", b"<html>", SECRET.as_bytes(), b"bWU6aHVzaC1odXNoLWh1c2gtOWUwNA==", b"hush%2Dhush&#45;hush-9e04",
    b"\x16\x03\x03", b"\x05\x00", b"\x05\x02", b"\x05\xff", b"\x00\x5a",
];

#[derive(Arbitrary, Debug)]
enum Piece {
    Known(u8),
    Bytes(Vec<u8>),
    Many(u8, u16),
}

#[derive(Arbitrary, Debug)]
struct Input {
    proxy: u8,
    piece: u8,
    address: Option<[u8; 4]>,
    replies: Vec<Piece>,
}

fuzz_target!(|input: Input| on_small_stack(move || run(&input)));

fn run(input: &Input) {
    let url = PROXIES[usize::from(input.proxy) % PROXIES.len()];
    let proxy = ProxyUrl::parse(url).unwrap();
    let mut replies = Vec::new();
    for piece in &input.replies {
        match piece {
            Piece::Known(row) => replies.extend(TEXTS[usize::from(*row) % TEXTS.len()]),
            Piece::Bytes(bytes) => replies.extend(bytes),
            Piece::Many(byte, count) => replies.extend(std::iter::repeat_n(*byte, usize::from(*count))),
        }
    }
    replies.truncate(4 * LIMIT);
    let address = input.address.map(Into::into);
    let single = play_tunnel(&proxy, address, &replies, 1);
    let pieces = play_tunnel(&proxy, address, &replies, 1 + usize::from(input.piece));
    for played in [&single, &pieces] {
        assert!(played.read <= LIMIT);
        match &played.outcome {
            Ok(first) => {
                let (reply, rest) = replies.split_at(played.read);
                assert!(is_whole(reply, &proxy), "{reply:?}");
                match first {
                    Ok(bytes) => assert!(rest.starts_with(bytes) && bytes.is_empty() == rest.is_empty()),
                    Err(error) => check(error.get_ref().and_then(|error| error.downcast_ref::<Error>()).unwrap(), url),
                }
            }
            Err(error) => check(error, url),
        }
    }
    compare(&single, &pieces);
}

/// In whatever pieces a reply arrives, it opens the tunnel or does not. Only with the bytes behind it, which a server of
/// TLS would not have sent yet, it does not.
fn compare(single: &PlayedTunnel, pieces: &PlayedTunnel) {
    assert_eq!(single.sent, pieces.sent);
    match (&single.outcome, &pieces.outcome) {
        (Ok(_), Ok(_)) => assert_eq!(single.read, pieces.read),
        (Ok(_), Err(error)) => assert!(error.kind() == Kind::Proxy && pieces.read > single.read, "{error}"),
        (Err(error), Err(other)) => assert_eq!(error.http_status(), other.http_status(), "{error} or {other}"),
        (Err(error), Ok(_)) => panic!("{error}"),
    }
}

/// Whether these bytes are a whole reply, or the replies of a handshake, and nothing else.
fn is_whole(reply: &[u8], proxy: &ProxyUrl) -> bool {
    match proxy.scheme {
        Scheme::Http | Scheme::Https => reply.ends_with(b"\n\r\n") || reply.ends_with(b"\n\n"),
        Scheme::Socks4 | Scheme::Socks4a => reply.len() == 8,
        Scheme::Socks5 | Scheme::Socks5h => {
            let reply = &reply[if reply[1] == 2 { 4 } else { 2 }..];
            reply.len()
                == 6 + [4, 16, 1 + usize::from(reply[4])][match reply[3] {
                    1 => 0,
                    4 => 1,
                    _ => 2,
                }]
        }
    }
}

fn check(error: &Error, proxy: &str) {
    let text = error.to_string();
    assert_eq!(error.kind(), Kind::Proxy, "{text}");
    assert!(text.chars().count() < 1500 && !text.chars().any(is_unprintable), "{text:?}");
    // Otherwise it is only a text of the proxy's.
    if !proxy.contains(SECRET) {
        return;
    }
    for part in SECRET.as_bytes().windows(8) {
        assert!(!text.contains(str::from_utf8(part).unwrap()), "{text}");
    }
    assert!(!text.contains("aHVzaC1odXNo"), "{text}");
}
