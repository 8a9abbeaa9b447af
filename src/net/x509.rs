//! What messages say about an X.509 certificate: its names, its dates and its key.
//!
//! Nothing is verified here: rustls does that. A certificate that was rejected is parsed too, so that a message
//! can name its issuer. So the input may be an attacker's: every function is total, and does not recurse.
//!
//! By hand, because X.509 crates bring 13 or 30 further crates, and this takes about a hundred lines.

use crate::net::http_date::parse_http_date;
use crate::sanitize::{QUOTE_LIMIT, sanitize};
use std::fmt;

/// The parts of a certificate (RFC 5280, section 4.1), as they are encoded, without their own tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CertificateParts<'a> {
    pub(super) issuer: &'a [u8],
    validity: &'a [u8],
    pub(super) subject: &'a [u8],
    pub(super) public_key: &'a [u8],
}

/// The issuer and the subject of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CertificateNames {
    pub(super) issuer: DistinguishedName,
    pub(super) subject: DistinguishedName,
}

/// The readable parts of a name in a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DistinguishedName {
    organization: Option<String>,
    common_name: Option<String>,
}

impl fmt::Display for DistinguishedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.organization, &self.common_name) {
            (Some(organization), Some(name)) => write!(f, "\"{name}\" of \"{organization}\""),
            (Some(one), None) | (None, Some(one)) => write!(f, "\"{one}\""),
            (None, None) => f.write_str("an unnamed entity"),
        }
    }
}

impl<'a> CertificateParts<'a> {
    pub(super) fn of(certificate: &'a [u8]) -> Option<Self> {
        let (certificate, _) = der::expect(der::SEQUENCE, certificate)?;
        let (body, _) = der::expect(der::SEQUENCE, certificate)?;
        let (issuer, after_issuer) = der::expect(der::SEQUENCE, from_issuer(body)?)?;
        let (validity, after_validity) = der::expect(der::SEQUENCE, after_issuer)?;
        let (subject, after_subject) = der::expect(der::SEQUENCE, after_validity)?;
        let (public_key, _) = der::expect(der::SEQUENCE, after_subject)?;
        Some(CertificateParts { issuer, validity, subject, public_key })
    }

    /// The first and the last second of its validity, as Unix seconds.
    pub(super) fn dates(&self) -> Option<(i64, i64)> {
        let (kind, first, rest) = der::element(self.validity)?;
        let (last_kind, last, _) = der::element(rest)?;
        Some((date(kind, first)?, date(last_kind, last)?))
    }
}

/// The length of the issuer in a certificate, of which only the start is here.
pub(super) fn issuer_length(start: &[u8]) -> Option<usize> {
    let (_, _, certificate) = der::header(start)?;
    let (_, _, body) = der::header(certificate)?;
    let (_, length, _) = der::header(from_issuer(body)?)?;
    Some(length)
}

/// The issuer, and what follows it, in the body of a certificate.
fn from_issuer(body: &[u8]) -> Option<&[u8]> {
    // The version is optional, and has a tag of its own.
    let after_version = match der::element(body)? {
        (der::VERSION, _, rest) => rest,
        _ => body,
    };
    let (_, _, after_serial) = der::element(after_version)?;
    let (_, _, after_algorithm) = der::element(after_serial)?;
    Some(after_algorithm)
}

/// The dates of a certificate, for the fuzzer.
#[cfg(fuzzing)]
pub fn certificate_dates(certificate: &[u8]) -> Option<(i64, i64)> {
    CertificateParts::of(certificate)?.dates()
}

/// A UTCTime (`YYMMDDhhmmssZ`) or a GeneralizedTime (`YYYYMMDDhhmmssZ`) as Unix seconds.
fn date(kind: u8, text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.is_ascii())?;
    let (year, rest) = text.split_at_checked(if kind == der::UTC_TIME { 2 } else { 4 })?;
    let year = match year.parse::<u16>().ok()? {
        short @ 0..50 if kind == der::UTC_TIME => short + 2000,
        short if kind == der::UTC_TIME => short + 1900,
        year => year,
    };
    let pair = |at: usize| rest.get(at..at + 2);
    let month = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        .get(pair(0)?.parse::<usize>().ok()?.checked_sub(1)?)?;
    let (day, hours, minutes, seconds) = (pair(2)?, pair(4)?, pair(6)?, pair(8)?);
    parse_http_date(&format!("{day} {month} {year:04} {hours}:{minutes}:{seconds} GMT"))
}

/// The number of bits of the modulus, if a public key is one of RSA.
pub(super) fn rsa_bits(public_key: &[u8]) -> Option<usize> {
    let (algorithm, rest) = der::expect(der::SEQUENCE, public_key)?;
    if algorithm_name(algorithm) != Some("RSA") {
        return None;
    }
    let (bits, _) = der::expect(der::BIT_STRING, rest)?;
    // The first byte is the number of unused bits: none.
    let (key, _) = der::expect(der::SEQUENCE, bits.get(1..)?)?;
    let (modulus, _) = der::expect(der::INTEGER, key)?;
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let modulus = &modulus[zeros..];
    Some(modulus.len() * 8 - modulus.first()?.leading_zeros() as usize)
}

/// The name of the algorithm of a public key.
pub(super) fn key_algorithm(public_key: &[u8]) -> Option<&'static str> {
    let (algorithm, _) = der::expect(der::SEQUENCE, public_key)?;
    algorithm_name(algorithm)
}

/// The name of an algorithm identifier, without its own tag; that of the curve for a key on a curve. `None` if it is
/// not in the table.
pub(super) fn algorithm_name(identifier: &[u8]) -> Option<&'static str> {
    let (algorithm, parameters) = der::expect(der::OBJECT_IDENTIFIER, identifier)?;
    // ecPublicKey
    let named = match algorithm {
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1] => der::expect(der::OBJECT_IDENTIFIER, parameters)?.0,
        other => other,
    };
    ALGORITHMS.iter().find(|(identifier, _)| *identifier == named).map(|(_, name)| *name)
}

/// The object identifiers of keys, curves and signatures that occur in certificates.
#[rustfmt::skip]
const ALGORITHMS: &[(&[u8], &str)] = &[
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1], "RSA"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4], "RSA with MD5"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5], "RSA with SHA-1"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10], "RSA-PSS"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11], "RSA with SHA-256"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 12], "RSA with SHA-384"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 13], "RSA with SHA-512"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 14], "RSA with SHA-224"),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1], "ECDSA with SHA-1"),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 1], "ECDSA with SHA-224"),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2], "ECDSA with SHA-256"),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3], "ECDSA with SHA-384"),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4], "ECDSA with SHA-512"),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7], "P-256"),
    (&[0x2b, 0x81, 4, 0, 34], "P-384"),
    (&[0x2b, 0x81, 4, 0, 35], "P-521"),
    (&[0x2b, 0x81, 4, 0, 10], "secp256k1"),
    (&[0x2b, 0x24, 3, 3, 2, 8, 1, 1, 7], "brainpoolP256r1"),
    (&[0x2b, 0x24, 3, 3, 2, 8, 1, 1, 11], "brainpoolP384r1"),
    (&[0x2b, 0x24, 3, 3, 2, 8, 1, 1, 13], "brainpoolP512r1"),
    (&[0x2b, 0x65, 112], "Ed25519"),
    (&[0x2b, 0x65, 113], "Ed448"),
    (&[0x2a, 0x86, 0x48, 0xce, 0x38, 4, 1], "DSA"),
    (&[0x2a, 0x86, 0x48, 0xce, 0x38, 4, 3], "DSA with SHA-1"),
    (&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 3, 2], "DSA with SHA-256"),
    (&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 3, 17], "ML-DSA-44"),
    (&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 3, 18], "ML-DSA-65"),
    (&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 3, 19], "ML-DSA-87"),
];

impl CertificateNames {
    /// Reads the issuer and the subject from a certificate.
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let parts = CertificateParts::of(certificate)?;
        let (issuer, subject) = (DistinguishedName::of(parts.issuer)?, DistinguishedName::of(parts.subject)?);
        Some(CertificateNames { issuer, subject })
    }

    /// Whether the issuer and the subject have the same name.
    pub(super) fn is_self_signed(&self) -> bool {
        self.issuer == self.subject
    }
}

impl DistinguishedName {
    /// Whether there is a common name.
    pub(super) fn has_common_name(&self) -> bool {
        self.common_name.is_some()
    }

    /// Reads a name: a sequence of sets of pairs, each of the type and the value of an attribute.
    pub(super) fn of(mut list: &[u8]) -> Option<Self> {
        let mut name = DistinguishedName::default();
        while !list.is_empty() {
            let (mut set, rest) = der::expect(der::SET, list)?;
            list = rest;
            while !set.is_empty() {
                let (pair, rest) = der::expect(der::SEQUENCE, set)?;
                set = rest;
                let (kind, value) = der::expect(der::OBJECT_IDENTIFIER, pair)?;
                let place = match kind {
                    [0x55, 4, 3] => &mut name.common_name,
                    [0x55, 4, 10] => &mut name.organization,
                    _ => continue,
                };
                *place = der::text(value);
            }
        }
        Some(name)
    }
}

/// The part of DER (X.690) that is needed to find the names in a certificate. An element that is truncated, or
/// longer than the one around it, is `None`.
mod der {
    use super::{QUOTE_LIMIT, sanitize};

    pub(super) const INTEGER: u8 = 0x02;
    pub(super) const BIT_STRING: u8 = 0x03;
    pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
    pub(super) const UTC_TIME: u8 = 0x17;
    pub(super) const SEQUENCE: u8 = 0x30;
    pub(super) const SET: u8 = 0x31;
    pub(super) const VERSION: u8 = 0xa0;

    /// The first element: its tag, its content, and what follows it.
    pub(super) fn element(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
        let (tag, length, rest) = header(input)?;
        let (content, rest) = rest.split_at_checked(length)?;
        Some((tag, content, rest))
    }

    /// The tag of the first element, the length of its content, and what follows these two.
    pub(super) fn header(input: &[u8]) -> Option<(u8, usize, &[u8])> {
        let (&tag, rest) = input.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // The lower bits are the number of bytes of the length. No certificate needs more than four.
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                let length = digits.iter().fold(0_u64, |length, &digit| length << 8 | u64::from(digit));
                (usize::try_from(length).ok()?, rest)
            }
            _ => return None,
        };
        Some((tag, length, rest))
    }

    /// The content of the first element, which must have this tag, and what follows it.
    pub(super) fn expect(tag: u8, input: &[u8]) -> Option<(&[u8], &[u8])> {
        match element(input)? {
            (have, content, rest) if have == tag => Some((content, rest)),
            _ => None,
        }
    }

    /// A string of one of the types that names use, [sanitized](sanitize).
    pub(super) fn text(input: &[u8]) -> Option<String> {
        let (tag, content, _) = element(input)?;
        // The rest of a longer name is not shown.
        let content = &content[..content.len().min(8 * QUOTE_LIMIT)];
        let text = match tag {
            // UTF8String, NumericString, PrintableString, IA5String.
            0x0c | 0x12 | 0x13 | 0x16 => String::from_utf8_lossy(content).into_owned(),
            // TeletexString, in practice Latin-1.
            0x14 => content.iter().map(|&byte| char::from(byte)).collect(),
            // BMPString: UTF-16.
            0x1e => {
                let units = content.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
                char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
            }
            _ => return None,
        };
        Some(sanitize(&text, &[])).filter(|text| !text.is_empty())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Encodes an element.
    pub(in crate::net) fn wrap(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = content.len();
        let mut out = vec![tag];
        match u8::try_from(length) {
            Ok(short) if short < 0x80 => out.push(short),
            _ => {
                out.push(0x82);
                out.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
            }
        }
        out.extend_from_slice(content);
        out
    }

    fn name(parts: &[(u8, u8, &[u8])]) -> Vec<u8> {
        let sets = parts.iter().flat_map(|(attribute, tag, text)| {
            let kind = wrap(der::OBJECT_IDENTIFIER, &[0x55, 4, *attribute]);
            let pair = wrap(der::SEQUENCE, &[kind, wrap(*tag, text)].concat());
            wrap(der::SET, &pair)
        });
        wrap(der::SEQUENCE, &sets.collect::<Vec<_>>())
    }

    fn certificate(issuer: &[u8], subject: &[u8]) -> Vec<u8> {
        let body = [
            &wrap(der::VERSION, &[2, 1, 2])[..],
            &wrap(2, &[7; 20]),
            &wrap(der::SEQUENCE, &[6, 1, 42]),
            issuer,
            &wrap(der::SEQUENCE, &[0x17, 0, 0x17, 0]),
            subject,
            &wrap(der::SEQUENCE, &[0; 200]),
        ];
        let body = wrap(der::SEQUENCE, &body.concat());
        wrap(der::SEQUENCE, &[&body[..], &[0x30, 0, 3, 1, 0]].concat())
    }

    #[test]
    fn names_are_found() {
        let issuer = name(&[(6, 0x13, b"DE"), (10, 0x0c, "Prüfer".as_bytes()), (3, 0x13, b"Root 1")]);
        let subject = name(&[(3, 0x1e, &[0, b'h', 0x20, 0x2e, 0, b'x'])]);
        let names = CertificateNames::of(&certificate(&issuer, &subject)).unwrap();
        assert_eq!(names.issuer.to_string(), "\"Root 1\" of \"Prüfer\"");
        // U+202E reverses text on a terminal.
        assert_eq!(names.subject.to_string(), "\"hx\"");
        assert!(!names.is_self_signed());
        let names = CertificateNames::of(&certificate(&issuer, &issuer)).unwrap();
        assert!(names.is_self_signed());
        let nobody = name(&[]);
        let names = CertificateNames::of(&certificate(&nobody, &nobody)).unwrap();
        assert_eq!(names.issuer.to_string(), "an unnamed entity");
    }

    #[test]
    fn dates_are_read_in_both_forms() {
        for (kind, text, seconds) in [
            (der::UTC_TIME, "941106084937Z", Some(784_111_777)),
            (der::UTC_TIME, "491231235959Z", Some(2_524_607_999)),
            (0x18, "19941106084937Z", Some(784_111_777)),
            (0x18, "99991231235959Z", Some(253_402_300_799)),
            (der::UTC_TIME, "500101000000Z", None),
            (der::UTC_TIME, "941306084937Z", None),
            (der::UTC_TIME, "94110608493", None),
            (0x18, "", None),
            (0x18, "\u{e9}9941106084937Z", None),
        ] {
            assert_eq!(date(kind, text.as_bytes()), seconds, "{text}");
        }
    }

    #[test]
    fn keys_are_named() {
        let key = |algorithm: &[u8], bits: &[u8]| {
            [wrap(der::SEQUENCE, algorithm), wrap(der::BIT_STRING, &[&[0], bits].concat())].concat()
        };
        let rsa = wrap(der::OBJECT_IDENTIFIER, ALGORITHMS[0].0);
        for (modulus, bits) in
            [(vec![0x80; 128], 1024), (vec![1; 256], 2041), ([&[0][..], &[0xff; 256]].concat(), 2048)]
        {
            let numbers = [wrap(der::INTEGER, &modulus), wrap(der::INTEGER, &[1, 0, 1])].concat();
            let key = key(&rsa, &wrap(der::SEQUENCE, &numbers));
            assert_eq!((rsa_bits(&key), key_algorithm(&key)), (Some(bits), Some("RSA")));
        }
        assert_eq!(rsa_bits(&key(&rsa, &wrap(der::SEQUENCE, &wrap(der::INTEGER, &[0])))), None);
        let curve = wrap(der::OBJECT_IDENTIFIER, &[0x2b, 0x81, 4, 0, 35]);
        let ec = [wrap(der::OBJECT_IDENTIFIER, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1]), curve].concat();
        assert_eq!((rsa_bits(&key(&ec, &[4])), key_algorithm(&key(&ec, &[4]))), (None, Some("P-521")));
        assert_eq!(algorithm_name(&wrap(der::OBJECT_IDENTIFIER, &[1, 2])), None);
    }

    #[test]
    fn truncated_and_changed_certificates_do_not_panic() {
        let issuer = name(&[(10, 0x14, &[0xe9, b'x']), (3, 0x13, b"Root")]);
        let whole = certificate(&issuer, &issuer);
        for end in 0..whole.len() {
            assert_eq!(CertificateNames::of(&whole[..end]), None, "cut at {end}");
        }
        // Every byte is changed to every value. Any result will do, as long as nothing panics.
        let mut changed = whole.clone();
        for at in 0..changed.len() {
            for value in 0..=255 {
                changed[at] = value;
                let _ = CertificateNames::of(&changed);
                let parts = CertificateParts::of(&changed);
                let _ = parts.map(|parts| (parts.dates(), rsa_bits(parts.public_key), key_algorithm(parts.public_key)));
            }
            changed[at] = whole[at];
        }
        // Random bytes.
        let mut state = 1_u64;
        for _ in 0..20_000 {
            let noise: Vec<u8> = (0..40)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    // Mostly tags and lengths that occur, so that parsing gets past the first element.
                    [0x30, 0x31, 0xa0, 0x06, 0x02, 0x03, 0x55, (state >> 40) as u8][(state >> 33) as usize % 8]
                })
                .collect();
            let _ = CertificateNames::of(&noise);
        }
    }

    #[test]
    fn lengths_that_overflow_are_rejected() {
        for bad in [
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0][..],
            &[0x30, 0x85, 0, 0, 0, 0, 1, 0],
            &[0x30, 0x80, 0, 0],
            &[0x30, 0x82, 1],
            &[0x30],
            &[],
        ] {
            assert_eq!(der::element(bad), None);
        }
        assert_eq!(der::element(&[4, 0x81, 1, 9, 8]), Some((4, &[9][..], &[8][..])));
    }
}
