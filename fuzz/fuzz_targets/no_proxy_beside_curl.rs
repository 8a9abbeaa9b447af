//! A `NO_PROXY` list, as this library and as libcurl read it: both use the proxy, or both do not.
//!
//! A list matches if one of its entries does. So they are compared for each entry, where a difference has one reason.
#![no_main]
use amp_token::net::proxy;
use amp_token::net::url::Url;
use amp_token_fuzz::{Piece, assemble, curl, difference, on_small_stack};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[rustfmt::skip]
const HOSTS: [&str; 16] = [
    "auth.example", "a.auth.example", "AUTH.example.", "myauth.example", "localhost", "10.1.2.3", "127.0.0.1", "192.168.255.1",
    "[::1]", "[fd12::1]", "[FD12:0::1]", "[::ffff:10.1.2.3]", "[fe80::1%25eth0]", "1.2.3", "example", "x",
];

#[rustfmt::skip]
const ENTRIES: [&str; 40] = [
    "auth.example", "a.auth.example", "AUTH.example", "example", "localhost", "10.1.2.3", "127.0.0.1", "10.0.0.0", "192.168.0.0",
    "::1", "fd12::1", "fd00::", "[::1]", "[fd12::1]", "::ffff:10.1.2.3", "fe80::1", "%eth0", ".", "..", "*", "*.", "/", "/8",
    "/16", "/32", "/33", "/0", "/128", "/7", "/ 8", "/+8", "/08", ":", ":443", ":8443", "0x7f.1", "127.1", "é", "[", "]",
];

#[derive(Arbitrary, Debug)]
struct Input {
    host: u8,
    port: Option<u16>,
    entries: Vec<(Vec<Piece>, bool)>,
}

struct Case<'a> {
    host: &'a str,
    entry: &'a str,
    ours: bool,
}

/// Why only one of them matches.
#[rustfmt::skip]
const REASONS: &[(&str, fn(&Case) -> bool)] = &[
    ("an address may be in brackets, as in a URL", |case| case.ours && case.entry.starts_with('[')),
    ("an entry may have a port", |case| case.ours && port_of(case.entry).is_some()),
    ("`*.example.com` and `*example.com` are the domain", |case| case.ours && case.entry.starts_with('*')),
    ("any number of dots may be around a domain", |case| {
        case.ours && (case.entry.starts_with("..") || case.entry.ends_with('.') || case.host.ends_with('.'))
    }),
    ("an IPv4 address that is mapped to IPv6 is the IPv4 address", |case| {
        case.ours && (case.entry.contains("::ffff:") || case.host.contains("::ffff:"))
    }),
    ("for curl, an address with a zone is a name", |case| case.host.contains('%')),
    ("curl 7.88 matches no network of IPv6", |case| case.ours && case.host.contains(':') && case.entry.contains('/')),
    ("for curl, the end of an IPv6 address with dots is a domain", |case| case.host.contains("::ffff:")),
    ("for curl, an address may have a dot around it", |case| {
        let inside = case.entry.trim_matches('.');
        !case.ours && inside != case.entry && inside.parse::<std::net::IpAddr>().is_ok()
    }),
    ("curl ignores what follows the bits of a network", |case| {
        !case.ours && case.entry.split_once('/').is_some_and(|(_, bits)| bits.parse::<u32>().is_err())
    }),
    ("a network of 0 bits is every address; for curl it is one", |case| case.ours && case.entry.ends_with("/0")),
];

fuzz_target!(|input: Input| {
    let host = HOSTS[usize::from(input.host) % HOSTS.len()];
    let port = input.port.filter(|port| *port != 0).map(|port| format!(":{port}")).unwrap_or_default();
    let url = format!("https://{host}{port}/");
    let mut list = String::new();
    let mut is_exempt = false;
    for (pieces, comma) in &input.entries {
        let entry = assemble(pieces, &ENTRIES).replace(|c: char| c == ',' || c.is_ascii_whitespace(), "");
        let ours = exempts(&url, &entry);
        let theirs = !curl::uses_proxy(&url, &entry).unwrap();
        let case = Case { host, entry: &entry, ours };
        if ours != theirs {
            difference(REASONS, &case, || format!("{url} {entry:?}: exempt for us: {ours}, for curl: {theirs}"));
        }
        is_exempt |= ours;
        list = format!("{list}{entry}{}", if *comma { ", " } else { " " });
    }
    assert_eq!(exempts(&url, &list), is_exempt, "{url} {list:?}");
});

/// The port at the end of an entry.
fn port_of(entry: &str) -> Option<u16> {
    entry.rsplit_once(':')?.1.parse().ok()
}

/// Whether this library uses no proxy for the URL.
fn exempts(url: &str, list: &str) -> bool {
    let (url, list) = (Url::parse(url).unwrap(), list.to_owned());
    on_small_stack(move || {
        let environment = |name: &str| (name == "no_proxy").then_some(list.as_bytes());
        proxy::select_proxy(&url, Some("http://127.0.0.1:9"), environment).unwrap().is_none()
    })
}
