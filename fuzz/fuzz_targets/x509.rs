//! A chain of certificates that is rejected: the message is one short line, whatever the certificates are, and the dates
//! that it compares are those that rustls has read. `fuzz/make-x509-seeds.sh` makes the CA certificate and the seeds.
#![no_main]
use amp_token::error::Kind;
use amp_token::net::{certificate_dates, describe_rejection};
use amp_token::sanitize::is_unprintable;
use amp_token_fuzz::on_small_stack;
use libfuzzer_sys::fuzz_target;
use rustls::CertificateError as Reason;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use std::time::Duration;

const ROOT: &[u8] = include_bytes!("x509_root.der");

const HOSTS: [&str; 3] = ["auth.example", "192.0.2.1", "2001:db8::1"];

/// A limit for the size of a chain in a handshake.
const LONGEST: usize = 64 * 1024;

fuzz_target!(|input: &[u8]| {
    let Some((&[choice, ref time @ ..], mut rest)) = input.split_first_chunk::<5>() else { return };
    let now = UnixTime::since_unix_epoch(Duration::from_secs(u32::from_be_bytes(*time).into()));
    let name = ServerName::try_from(HOSTS[usize::from(choice >> 4) % HOSTS.len()]).unwrap();
    rest = &rest[..rest.len().min(LONGEST)];
    let mut chain = Vec::new();
    while !rest.is_empty() {
        let (certificate, behind) = rest.split_at(element_length(rest));
        chain.push(CertificateDer::from(certificate.to_vec()));
        rest = behind;
    }
    let other = other_reason(choice & 15, &chain, &name, now);
    on_small_stack(move || run(&chain, &name, now, other));
});

fn run(chain: &[CertificateDer], name: &ServerName, now: UnixTime, other: Option<Reason>) {
    let is_own = other.is_none();
    let root = CertificateDer::from(ROOT);
    let Some((reason, error)) = describe_rejection(chain, &root, name, now, other) else { return };
    let text = error.to_string();
    assert_eq!(error.kind(), Kind::Tls);
    assert!(text.chars().count() < 1500 && !text.chars().any(is_unprintable), "{text:?}");

    let dates: Vec<_> = chain.iter().filter_map(|certificate| certificate_dates(certificate)).collect();
    let has = |time: UnixTime, date: fn(&(i64, i64)) -> i64| {
        dates.iter().any(|dates| u64::try_from(date(dates)) == Ok(time.as_secs()))
    };
    match reason {
        rustls::Error::InvalidCertificate(Reason::ExpiredContext { not_after, .. }) if is_own => {
            assert!(has(not_after, |dates| dates.1), "{not_after:?} of {dates:?}");
        }
        rustls::Error::InvalidCertificate(Reason::NotValidYetContext { not_before, .. }) if is_own => {
            assert!(has(not_before, |dates| dates.0), "{not_before:?} of {dates:?}");
        }
        _ => {}
    }
}

/// Another reason to describe than the one for which rustls rejects the chain, which for most inputs is that a signature
/// does not match.
fn other_reason(choice: u8, chain: &[CertificateDer], name: &ServerName<'static>, now: UnixTime) -> Option<Reason> {
    let text = |at: usize| chain.get(at).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let (first, second) = (text(0).unwrap_or_default(), text(1).unwrap_or_default());
    let bytes = chain.last().map(|certificate| certificate.to_vec()).unwrap_or_default();
    Some(match choice {
        1 => Reason::BadEncoding,
        2 => Reason::ExpiredContext { time: now, not_after: now },
        3 => Reason::NotValidYetContext { time: now, not_before: now },
        4 => Reason::UnknownIssuer,
        5 => Reason::BadSignature,
        6 => Reason::NotValidForNameContext { expected: name.clone(), presented: Vec::new() },
        7 => Reason::NotValidForNameContext {
            expected: name.clone(),
            presented: vec![format!("DnsName({first:?})"), format!("IpAddress({second})"), first],
        },
        8 => {
            Reason::UnsupportedSignatureAlgorithmContext { signature_algorithm_id: bytes, supported_algorithms: vec![] }
        }
        9 => Reason::InvalidPurpose,
        10 => Reason::Revoked,
        _ => return None,
    })
}

/// The length of the first element of DER; that of the rest, if it is longer than that.
fn element_length(input: &[u8]) -> usize {
    let header = match input {
        [_, short @ ..=0x7f, ..] => 2 + usize::from(*short),
        [_, 0x81, length, ..] => 3 + usize::from(*length),
        [_, 0x82, high, low, ..] => 4 + (usize::from(*high) << 8 | usize::from(*low)),
        _ => input.len(),
    };
    header.min(input.len())
}
