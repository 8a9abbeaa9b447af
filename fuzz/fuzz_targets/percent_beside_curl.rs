//! Percent-encoding and the URLs of proxies, as this library and as libcurl read them.
#![no_main]
use amp_token::net::proxy::ProxyUrl;
use amp_token::net::url::{form_encode, percent_decode};
use amp_token_fuzz::{Piece, assemble, curl, difference, on_small_stack};
use libfuzzer_sys::fuzz_target;

#[rustfmt::skip]
const TABLE: [&str; 36] = [
    "http://", "https://", "socks4://", "socks4a://", "socks5://", "socks5h://", "SOCKS5H://", "socks://", "ftp://", "://", "@", ":",
    "/", "?", "#", "%", "%4", "%41", "%40", "%3a", "%zz", "%00", "%c3%a9", "é", "+", " ", "user", "pass", "proxy.example",
    "[::1]", "127.0.0.1", ":3128", ":0", ":65536", ";", "\\",
];

struct Case<'a> {
    text: &'a str,
    ours: Option<&'a ProxyUrl>,
    theirs: Result<&'a curl::Url, i32>,
}

/// Why only one of them accepts the URL of a proxy.
#[rustfmt::skip]
const ONE_ACCEPTS: &[(&str, fn(&Case) -> bool)] = &[
    ("curl rejects a scheme that is none of a proxy later", |case| {
        let schemes = ["http", "https", "socks", "socks4", "socks4a", "socks5", "socks5h"];
        case.theirs.is_ok_and(|url| !schemes.contains(&&*url.scheme))
    }),
    ("a port 0 is no port", |case| case.theirs.is_ok_and(|url| url.port == Some(0))),
    ("curl decodes percent codes in a host", |case| case.ours.is_none() && case.text.contains('%')),
    ("a name of a host has letters, digits, hyphens, dots and underscores", |case| {
        case.theirs.is_ok_and(|url| url.host.contains(|c: char| !c.is_ascii_alphanumeric() && !"-._:[]".contains(c)))
    }),
    ("what is before `://` is the scheme", |case| {
        case.theirs.is_ok() && case.text.split_once("://").is_some_and(|(scheme, _)| scheme.contains(['/', '?', '#', '@', ':']))
    }),
    ("curl accepts one slash or three after the scheme", |case| {
        case.theirs.is_ok() && (case.text.contains(":///") || !case.text.contains("://"))
    }),
    ("a password may have any character that is not encoded", |case| case.ours.is_some_and(|url| url.userinfo.is_some())),
    ("an `@` is in front of the host, also after a slash", |case| case.theirs.is_ok() && has_at_after_host(case.text)),
    ("white space around the URL does not count", |case| case.ours.is_some() && case.text.trim_ascii() != case.text),
    ("an empty port is the default, also without a scheme", |case| {
        case.ours.is_some() && case.text.split(['/', '?', '#']).next().is_some_and(|authority| authority.ends_with(':'))
    }),
    ("what follows the host does not count", |case| case.ours.is_some() && case.text.contains(['/', '?', '#'])),
];

/// Why both accept the URL of a proxy, and read it differently.
#[rustfmt::skip]
const READ_DIFFERENTLY: &[(&str, fn(&Case) -> bool)] = &[
    ("an `@` is in front of the host, also after a slash: a password may have a slash that is not encoded", |case| {
        has_at_after_host(case.text)
    }),
    ("for curl one slash or three follow a scheme, too: `host:/path` has the scheme `host`", |case| {
        case.text.match_indices(":/").any(|(at, _)| slashes(&case.text[at + 1..]) != 2)
    }),
];

/// Not seen in curl's path, from which it removes `..`.
fn has_at_after_host(text: &str) -> bool {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    rest.find(['/', '?', '#']).is_some_and(|slash| rest[slash..].contains('@'))
}

fuzz_target!(|pieces: Vec<Piece>| {
    let text = assemble(&pieces, &TABLE);
    let copy = text.clone();
    let (decoded, encoded, ours) =
        on_small_stack(move || (percent_decode(copy.as_bytes()), form_encode(&copy), ProxyUrl::parse(&copy)));
    assert_eq!(*decoded, curl::unescape(text.as_bytes()), "{text:?}");
    // The form encoding has a plus sign for a space, which curl's function does not decode.
    assert_eq!(curl::unescape(encoded.replace('+', " ").as_bytes()), text.as_bytes(), "{text:?}");

    // The flags are those with which libcurl reads the URL of a proxy.
    let theirs = curl::parse_url(&text, curl::NON_SUPPORT_SCHEME | curl::GUESS_SCHEME);
    let case = Case { text: &text, ours: ours.as_ref(), theirs: theirs.as_ref().map_err(|code| *code) };
    match (&ours, &theirs) {
        (None, Err(_)) => {}
        (Some(ours), Ok(theirs)) => {
            if !is_same(ours, theirs) {
                difference(READ_DIFFERENTLY, &case, || format!("{text:?}: {ours:?} or {theirs:?}"));
            }
        }
        _ => difference(ONE_ACCEPTS, &case, || format!("{text:?}: {ours:?} or {theirs:?}")),
    }
});

/// Whether both have read the same host, user name and password.
fn is_same(ours: &ProxyUrl, theirs: &curl::Url) -> bool {
    let ours_userinfo = ours.userinfo.as_ref().map(|(user, password)| (user.expose(), password.expose()));
    let theirs_userinfo = (theirs.user.is_some() || theirs.password.is_some())
        .then(|| (theirs.user.as_deref().unwrap_or_default(), theirs.password.as_deref().unwrap_or_default()));
    ours_userinfo == theirs_userinfo && curl::is_same_host(&ours.host, &theirs.host)
}

/// The number of slashes at the start.
fn slashes(text: &str) -> usize {
    text.len() - text.trim_start_matches('/').len()
}
