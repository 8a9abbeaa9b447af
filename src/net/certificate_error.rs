//! Why a server's certificate was rejected, in words that say what to renew or to set.
//!
//! rustls reports the last error of building a path to a trusted CA, in its own words. That error may be about another
//! certificate of the chain, or about a CA that only has the same name. So the certificates that the server sent are
//! compared with the error and with the trusted CAs.

use crate::net::x509::{
    CertificateNames, CertificateParts, DistinguishedName, algorithm_name, key_algorithm, rsa_bits,
};
use crate::sanitize::{QUOTE_LIMIT, sanitize};
use rustls::pki_types::{ServerName, UnixTime};
use rustls::{CertificateError, RootCertStore};
use std::net::IpAddr;
use std::time::{Duration, UNIX_EPOCH};

/// What a server sent, if it was rejected.
#[derive(Debug, Default)]
pub(super) struct Presented {
    /// Its certificate, and the others of the chain.
    pub(super) chain: Vec<Vec<u8>>,
    /// The certificate was valid, and the signature of the handshake was not.
    pub(super) is_handshake: bool,
}

/// What is wrong, and a hint.
type Reason = (String, &'static str);

const CLOCK: &str = "check this machine's clock; if it is right, the server needs a new certificate";
const NEW_CHAIN: &str = "the server must send a newer intermediate certificate";
const SUPPORTED: &str = "the server needs a certificate that is signed with RSA, with ECDSA on P-256 or P-384 with \
                         SHA-256 or SHA-384, or with Ed25519";
const SHORT_KEY: &str = "the server needs a certificate with a key of RSA with 2048 to 8192 bits, of P-256, P-384 or \
                         Ed25519";
const REISSUED: &str = "update ca_file, or the certificates of this machine: the CA may have been made anew";

const REISSUED_OR_MIXED: &str = "update ca_file, or the certificates of this machine: the CA may have been made anew; \
                                 or the server sends another intermediate certificate than the one that issued its own";

/// Describes why the certificate of `name` was rejected.
pub(super) fn describe(
    name: &str,
    reason: &CertificateError,
    presented: &Presented,
    roots: &RootCertStore,
) -> (String, &'static str) {
    let names = presented.chain.first().and_then(|leaf| CertificateNames::of(leaf)).unwrap_or_default();
    let (what, hint) = find_reason(reason, presented, &names, roots);
    (format!("the certificate of {name} {what} (issued by {})", names.issuer), hint)
}

fn find_reason(
    reason: &CertificateError,
    presented: &Presented,
    names: &CertificateNames,
    roots: &RootCertStore,
) -> Reason {
    use CertificateError as E;
    match reason {
        E::Expired => ("has expired".to_owned(), CLOCK),
        E::ExpiredContext { not_after, .. } => {
            let date = format_date(*not_after);
            match other_certificate(presented, |(_, last)| last == seconds(*not_after)) {
                Some(subject) => {
                    (format!("has a certificate in its chain, {subject}, that expired on {date}"), NEW_CHAIN)
                }
                None => (format!("expired on {date}"), CLOCK),
            }
        }
        E::NotValidYet => ("is not valid yet".to_owned(), CLOCK),
        E::NotValidYetContext { time, not_before } => {
            let (date, now) = (format_date(*not_before), format_date(*time));
            let when = format!("not valid before {date}, and this machine's clock says {now}");
            match other_certificate(presented, |(first, _)| first == seconds(*not_before)) {
                Some(subject) => {
                    (format!("has a certificate in its chain, {subject}, that is {when}"), "check this machine's clock")
                }
                None => (format!("is {when}"), "check this machine's clock"),
            }
        }
        E::NotValidForName => ("is for another host".to_owned(), "check the host name"),
        E::NotValidForNameContext { expected, presented } => wrong_name(expected, presented, names),
        E::UnknownIssuer => unknown_issuer(presented, names, roots),
        E::Revoked => ("has been revoked".to_owned(), "the server needs a new certificate"),
        E::BadSignature | E::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => bad_signature(presented, roots),
        E::UnsupportedSignatureAlgorithmContext { signature_algorithm_id, .. } => {
            let algorithm = algorithm_name(signature_algorithm_id).unwrap_or("one that this library does not know");
            (format!("or its chain has a signature of a kind that is not supported ({algorithm})"), SUPPORTED)
        }
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => (
            "is not for use by servers (its extended key usage lacks server authentication)".to_owned(),
            "the server needs another certificate",
        ),
        E::BadEncoding => ("is malformed".to_owned(), "the server needs another certificate"),
        // webpki's own errors, which rustls passes on by their names.
        other => {
            let text = match other {
                E::Other(inner) => format!("{:?}", inner.0),
                other => format!("{other:?}"),
            };
            let identifier = text.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
            match OTHERS.iter().find(|(have, ..)| *have == identifier) {
                Some((_, what, hint)) => ((*what).to_owned(), hint),
                None => (format!("is not valid: {}", words(identifier)), "the server needs another certificate"),
            }
        }
    }
}

/// The names of further errors, what is wrong, and a hint.
const OTHERS: &[(&str, &str, &str)] = &[
    (
        "CaUsedAsEndEntity",
        "is a CA certificate, which cannot be used as a server certificate",
        "the server needs a certificate with CA:FALSE, issued by that CA",
    ),
    (
        "EndEntityUsedAsCa",
        "is issued by a certificate that is not one of a CA",
        "the server needs a certificate that is issued by a CA",
    ),
    (
        "UnsupportedCertVersion",
        "is of an X.509 version that is not supported; only version 3 is",
        "the server needs a certificate of version 3, with a subject alternative name",
    ),
    (
        "NameConstraintViolation",
        "violates the name constraints of its CA, or these constrain a kind of name that is not supported, such as \
         directory names",
        "the server needs a certificate of a CA that only constrains DNS names and IP addresses",
    ),
    (
        "PathLenConstraintViolated",
        "has a longer chain than its CA permits",
        "the server needs a certificate with a shorter chain",
    ),
    (
        "MaximumSignatureChecksExceeded",
        "takes too many steps to verify: about 100 trusted CAs or intermediate certificates have the same name",
        "remove outdated certificates from ca_file",
    ),
    (
        "MaximumPathBuildCallsExceeded",
        "takes too many steps to verify: many intermediate certificates have the same name",
        "the server must send only the certificates of its chain",
    ),
    (
        "MaximumPathDepthExceeded",
        "has a chain of too many certificates",
        "the server must send only the certificates of its chain",
    ),
    (
        "UnsupportedCriticalExtension",
        "or its chain has a critical extension that is not supported",
        "the server needs another certificate",
    ),
];

/// An identifier such as `InvalidSerialNumber` or `UnknownCA` in words.
pub(super) fn words(identifier: &str) -> String {
    let mut words = String::with_capacity(identifier.len() + 8);
    let mut follows_small = false;
    let mut rest = identifier.chars().peekable();
    while let Some(c) = rest.next() {
        // The last capital of an abbreviation begins the next word.
        let begins_small = rest.peek().is_some_and(char::is_ascii_lowercase);
        if c.is_ascii_uppercase() && !words.is_empty() && (follows_small || begins_small) {
            words.push(' ');
        }
        follows_small = !c.is_ascii_uppercase();
        words.push(c.to_ascii_lowercase());
    }
    words
}

fn seconds(time: UnixTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

/// The subject of the certificate behind the first one to which this applies, if it does not apply to the first.
fn other_certificate(presented: &Presented, applies: impl Fn((i64, i64)) -> bool) -> Option<DistinguishedName> {
    let applies = |parts: &CertificateParts| parts.dates().is_some_and(&applies);
    let mut chain = presented.chain.iter().filter_map(|certificate| CertificateParts::of(certificate));
    if chain.next().is_none_or(|leaf| applies(&leaf)) {
        return None;
    }
    DistinguishedName::of(chain.find(applies)?.subject)
}

fn wrong_name(expected: &ServerName<'_>, presented: &[String], names: &CertificateNames) -> Reason {
    let address = match expected {
        ServerName::IpAddress(address) => Some(IpAddr::from(*address)),
        _ => None,
    };
    let is_as_text = |name: &String| name.starts_with("DnsName(") && plain_name(name).parse().ok() == address;
    match presented {
        [] if names.subject.has_common_name() => (
            format!("has no subject alternative name, only the common name {}, which does not count", names.subject),
            "the server needs a certificate with its host name as a subject alternative name",
        ),
        [] => ("is for no host at all".to_owned(), "the server needs a certificate with its host name"),
        some if address.is_some() && some.iter().any(is_as_text) => (
            "has the IP address as a DNS name, which does not count".to_owned(),
            "the server needs a certificate with the IP address as such, or a URL with its host name",
        ),
        some => (
            format!("is for other hosts ({})", format_sans(some)),
            "check the host name, and whether a proxy responds instead of the server",
        ),
    }
}

fn unknown_issuer(presented: &Presented, names: &CertificateNames, roots: &RootCertStore) -> Reason {
    let is_trusted = presented.chain.first().and_then(|leaf| CertificateParts::of(leaf)).is_some_and(|leaf| {
        roots.roots.iter().any(|anchor| {
            anchor.subject.as_ref() == leaf.subject && anchor.subject_public_key_info.as_ref() == leaf.public_key
        })
    });
    if names.is_self_signed() {
        ("is self-signed".to_owned(), "if you trust that server, set ca_file to its certificate")
    } else if is_trusted {
        (
            "is itself in ca_file, which must have the certificate of its CA instead".to_owned(),
            "set ca_file to the certificate of the CA",
        )
    } else {
        (
            "is not from a trusted CA".to_owned(),
            "if that is your own CA, or a proxy of your network that inspects TLS, set ca_file to its certificate",
        )
    }
}

/// A signature that no key fits. Most often a CA has been made anew, with the same name and another key.
fn bad_signature(presented: &Presented, roots: &RootCertStore) -> Reason {
    let chain: Vec<_> = presented.chain.iter().filter_map(|certificate| CertificateParts::of(certificate)).collect();
    // Each certificate with the keys of those that have the name of its issuer.
    let keys = |issuer: &[u8]| -> Vec<&[u8]> {
        let anchors = roots.roots.iter().filter(|anchor| anchor.subject.as_ref() == issuer);
        let others = chain.iter().filter(|other| other.subject == issuer);
        let anchors = anchors.map(|anchor| anchor.subject_public_key_info.as_ref());
        anchors.chain(others.map(|other| other.public_key)).collect()
    };
    if let Some(key) = chain.first().and_then(|leaf| unsuitable_key(leaf.public_key)) {
        return (format!("has {key}"), SHORT_KEY);
    }
    if presented.is_handshake {
        return (
            "does not match the signature of the handshake".to_owned(),
            "somebody may have tampered with the connection",
        );
    }
    if let Some(key) = chain.iter().flat_map(|certificate| keys(certificate.issuer)).find_map(unsuitable_key) {
        return (format!("or its chain is issued by a CA with {key}"), SHORT_KEY);
    }
    let is_anchor = |issuer: &[u8]| roots.roots.iter().any(|anchor| anchor.subject.as_ref() == issuer);
    match chain.iter().position(|certificate| is_anchor(certificate.issuer)) {
        Some(index) => {
            let issuer = DistinguishedName::of(chain[index].issuer).unwrap_or_default();
            let hint = if index == 0 { REISSUED } else { REISSUED_OR_MIXED };
            (format!("is not from a trusted CA: another one with the name {issuer} is trusted"), hint)
        }
        None => (
            "has a certificate in its chain with the name of its issuer, but another key".to_owned(),
            "the server must send the intermediate certificate that its certificate was issued by; if it does, somebody \
             may have tampered with the connection",
        ),
    }
}

/// Describes a key that rustls does not accept.
fn unsuitable_key(public_key: &[u8]) -> Option<String> {
    match (rsa_bits(public_key), key_algorithm(public_key)) {
        (Some(bits @ ..2048), _) => Some(format!("a key that is too short (RSA with {bits} bits)")),
        (Some(bits @ 8193..), _) => Some(format!("a key that is too long (RSA with {bits} bits)")),
        (_, Some("RSA" | "P-256" | "P-384" | "Ed25519")) => None,
        (_, Some(other)) => Some(format!("a key of a kind that is not supported ({other})")),
        (_, None) => None,
    }
}

/// A name of a certificate, which rustls reports as `DnsName("a.example")` or `IpAddress(127.0.0.1)`.
fn plain_name(name: &str) -> &str {
    let inner = name.split_once('(').map_or(name, |(_, rest)| rest.strip_suffix(')').unwrap_or(rest));
    inner.trim_matches('"')
}

/// The host names and addresses of a certificate.
fn format_sans(presented: &[String]) -> String {
    let shown = |name: &String| match plain_name(name).parse::<IpAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => plain_name(name).to_owned(),
    };
    // A certificate may be for thousands of names, of which few are shown.
    sanitize(&presented.iter().take(QUOTE_LIMIT).map(shown).collect::<Vec<_>>().join(", "), &[])
}

/// A date such as `31 Jan 2026`.
fn format_date(time: UnixTime) -> String {
    // httpdate cannot format a year after 9999.
    let seconds = time.as_secs().min(MAX_DATE);
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
    // `Sat, 31 Jan 2026 23:59:59 GMT`.
    date.get(5..16).unwrap_or_default().to_owned()
}

/// The last second of the year 9999.
const MAX_DATE: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_put_into_words() {
        for (identifier, expected) in [
            ("InvalidSerialNumber", "invalid serial number"),
            ("UnknownCA", "unknown ca"),
            ("UnknownPSKIdentity", "unknown psk identity"),
            ("Expired", "expired"),
            ("", ""),
        ] {
            assert_eq!(words(identifier), expected);
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "01 Jan 1970"),
            (951_782_400, "29 Feb 2000"),
            (951_868_800, "01 Mar 2000"),
            (1_767_225_599, "31 Dec 2025"),
            (MAX_DATE, "31 Dec 9999"),
            (u64::MAX, "31 Dec 9999"),
        ] {
            assert_eq!(format_date(UnixTime::since_unix_epoch(Duration::from_secs(seconds))), expected);
        }
    }

    #[test]
    fn names_are_listed_without_the_syntax_of_rustls() {
        let presented = ["DnsName(\"a.example\")", "other", "IpAddress(127.0.0.1)", "IpAddress(0::1)", "DirectoryName"];
        let presented = presented.map(str::to_owned);
        assert_eq!(format_sans(&presented), "a.example, other, 127.0.0.1, ::1, DirectoryName");
    }

    #[test]
    fn no_error_is_shown_in_the_syntax_of_rust() {
        let presented = Presented::default();
        let (roots, time) = (RootCertStore::empty(), UnixTime::since_unix_epoch(Duration::ZERO));
        let identifier = vec![6, 8, 42, 134, 72, 206, 61, 4, 3, 4];
        for (reason, says) in [
            (CertificateError::UnhandledCriticalExtension, "is not valid: unhandled critical extension"),
            (
                CertificateError::ExpiredRevocationListContext { time, next_update: time },
                "expired revocation list context",
            ),
            (
                CertificateError::UnsupportedSignatureAlgorithmContext {
                    signature_algorithm_id: identifier.clone(),
                    supported_algorithms: vec![],
                },
                "a signature of a kind that is not supported (ECDSA with SHA-512)",
            ),
            (
                CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext {
                    signature_algorithm_id: identifier.clone(),
                    public_key_algorithm_id: identifier,
                },
                "another key",
            ),
            (CertificateError::BadEncoding, "is malformed"),
        ] {
            let (message, _) = describe("host", &reason, &presented, &roots);
            assert!(message.contains(says) && !message.contains(['[', '{', '_']), "{message}");
        }
    }
}
