//! A URL, as this library and as libcurl read it: where both accept it, they send the same request to the same host.
#![no_main]
use amp_token::net::scripted_exchange::play_exchange;
use amp_token::net::transport::Request;
use amp_token::net::url::Url;
use amp_token_fuzz::{Piece, assemble, curl, difference, on_small_stack};
use libfuzzer_sys::fuzz_target;

#[rustfmt::skip]
const TABLE: [&str; 48] = [
    "https://", "http://", "HTTP://", "https:/", "http:///", "://", "ftp://", "@", ":", "[", "]", "/", "//", "?", "#", "\\",
    "example.com", "a.b", "localhost", "127.0.0.1", "127.1", "0x7f.0.0.1", "2130706433", "0177.1", "1.2.3.4.", "::1",
    "fe80::1", "::ffff:1.2.3.4", "%25eth0", "%eth0", "%41", "%2e", "%00", "%", "443", "80", "0", "65536", "+1", " ", "\t",
    "\r\n", "é", "user", "pass", "..", ".", ";",
];

/// A difference: the URL, and what each has read.
struct Case<'a> {
    text: &'a str,
    ours: Option<&'a Url>,
    theirs: Result<&'a curl::Url, i32>,
}

/// Why only one of them accepts a URL.
#[rustfmt::skip]
const ONE_ACCEPTS: &[(&str, fn(&Case) -> bool)] = &[
    ("this library has two schemes", |case| case.theirs.is_ok_and(|url| !["http", "https"].contains(&&*url.scheme))),
    ("curl accepts one slash or three after the scheme", |case| {
        let after = case.text.split_once(':').map_or("", |(_, after)| after);
        !after.starts_with("//") || after.starts_with("///")
    }),
    ("a port 0 is no port", |case| case.theirs.is_ok_and(|url| url.port == Some(0))),
    ("curl decodes percent codes in a host, and converts international names", |case| {
        case.ours.is_none() && authority(case.text).contains(|c: char| c == '%' || !c.is_ascii())
    }),
    ("a name of a host has letters, digits, hyphens, dots and underscores", |case| {
        case.theirs.is_ok_and(|url| url.host.contains(|c: char| !c.is_ascii_alphanumeric() && !"-._:[]".contains(c)))
    }),
    ("curl sends a path with any character above the space", |case| {
        case.theirs.is_ok_and(|url| url.path.contains(|c: char| !c.is_ascii() || "\"<>\\^`{|}".contains(c)))
    }),
    ("user names are split from the host at the last `@`, may not have all characters, and no setting accepts them", |case| {
        case.ours.is_some_and(|url| url.has_user_info()) || case.theirs.is_ok_and(|url| url.user.is_some())
    }),
    ("a zone of any length is looked up; for curl it has at most 15 characters", |case| {
        case.ours.is_some() && authority(case.text).split_once('%').is_some_and(|(_, zone)| zone.len() > 15)
    }),
    ("a fragment is not sent", |case| case.ours.is_some() && case.text.contains('#')),
];

/// What is between the scheme and the path.
fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap()
}

fuzz_target!(|pieces: Vec<Piece>| {
    let text = assemble(&pieces, &TABLE);
    let theirs = curl::parse_url(&text, curl::PATH_AS_IS);
    let copy = text.clone();
    let ours = on_small_stack(move || {
        let url = Url::parse(&copy)?;
        let sent = sent(&url)?;
        Some((url, sent))
    });
    let case =
        Case { text: &text, ours: ours.as_ref().map(|(url, _)| url), theirs: theirs.as_ref().map_err(|code| *code) };
    match (&ours, &theirs) {
        (None, Err(_)) => {}
        (Some((ours, sent)), Ok(theirs)) => {
            assert_eq!((ours.scheme(), Some(ours.port())), (theirs.scheme.as_str(), theirs.port), "{text:?}");
            assert!(curl::is_same_host(ours.host(), &theirs.host), "{text:?}: {} or {}", ours.host(), theirs.host);
            assert_eq!(ours.has_user_info(), theirs.user.is_some() || theirs.password.is_some(), "{text:?}");
            let path = theirs.path.split('#').next().unwrap();
            assert_eq!(sent, path, "{text:?}");
        }
        _ => difference(ONE_ACCEPTS, &case, || format!("{text:?}: {ours:?} or {theirs:?}")),
    }
});

/// The target in the request line that is sent; `None` if the request cannot be sent.
fn sent(url: &Url) -> Option<String> {
    let request = Request {
        method: "GET".to_owned(),
        url: url.clone(),
        headers: Vec::new(),
        body: Vec::new().into(),
        max_response_bytes: 0,
    };
    let (writes, _) = play_exchange(&request, b"HTTP/1.1 204\r\n\r\n".to_vec(), 0, true);
    let head = String::from_utf8(writes.concat()).unwrap();
    let line = head.lines().next()?;
    Some(line.strip_prefix("GET ").unwrap().strip_suffix(" HTTP/1.1").unwrap().to_owned())
}
