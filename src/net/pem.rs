//! PEM files of certificates and keys (RFC 7468).
//!
//! The reader of rustls skips whatever it does not recognize: a certificate behind a byte order mark, an indented one,
//! one with another label. What is lost decides whom this library trusts, so here nothing is skipped in silence: a
//! file that cannot be understood as a whole is an error that names the line. The message never quotes the file,
//! which may be a private key. Decoding a key is left to rustls, which does it in constant time.
//!
//! Of a system's [`Bundle`] only the few certificates are decoded that a server's certificate may lead to: to decode and
//! parse all 150 takes half as long as the rest of a first HTTPS request.

use crate::error::{Error, Kind, Result, resource_limit};
use crate::net::x509::{CertificateParts, issuer_length};
use crate::sanitize::sanitize;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io;
use std::path::Path;
use zeroize::Zeroizing;

/// The error for the file of a setting that cannot be used.
pub(super) fn file_error(setting: &str, path: &Path, reason: &str) -> Error {
    let path = sanitize(&path.display().to_string(), &[]);
    Error::new(Kind::Config, format!("cannot use {setting} ({path}): {}", sanitize(reason, &[])))
        .with_hint(format!("set {setting} to a PEM file that this process can read"))
}

/// All certificates of a file, at least one.
pub(super) fn certificates(path: &Path, setting: &str) -> Result<Vec<CertificateDer<'static>>> {
    let file = read(path, setting)?;
    parse_certificates(&file).map_err(|reason| file_error(setting, path, &reason))
}

/// The private key of a file: PKCS #1, PKCS #8 or SEC 1.
pub(super) fn private_key(path: &Path, setting: &str) -> Result<PrivateKeyDer<'static>> {
    let file = read(path, setting)?;
    parse_private_key(&file).map_err(|reason| file_error(setting, path, &reason))
}

/// The certificates of a system in one file, which holds no secret.
pub(super) struct Bundle(Vec<u8>);

impl Bundle {
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        std::fs::read(path).map(Bundle)
    }

    /// All certificates; `None` if the file is not understood as a whole.
    pub(super) fn certificates(&self) -> Option<Vec<CertificateDer<'static>>> {
        parse_certificates(&self.0).ok()
    }

    /// The first certificate.
    pub(super) fn first(&self) -> Option<CertificateDer<'static>> {
        let section = certificate_sections(&self.0).ok()?.next()?.ok()?;
        decode(section.body).map(CertificateDer::from)
    }

    /// The certificates of the CAs with these names, if they are self-issued, as those of root CAs are; `None` if the
    /// file is not understood as a whole. Only the start of the others is decoded.
    pub(super) fn certificates_of(&self, names: &[&[u8]]) -> Option<Vec<CertificateDer<'static>>> {
        let mut found = Vec::new();
        for section in certificate_sections(&self.0).ok()? {
            let section = section.ok()?;
            let start = section.body.get(..START).and_then(decode_regular);
            let length = start.and_then(|start| issuer_length(&start));
            if length.is_some_and(|length| names.iter().all(|name| name.len() != length)) {
                continue;
            }
            let der = decode(section.body)?;
            if CertificateParts::of(&der).is_some_and(|parts| names.contains(&parts.subject)) {
                found.push(CertificateDer::from(der));
            }
        }
        Some(found)
    }
}

/// Whether each self-issued certificate of a file is among those that are found for its CA.
#[cfg(fuzzing)]
pub fn finds_self_issued(file: &[u8]) -> bool {
    let all = parse_certificates(file).unwrap_or_default();
    let bundle = Bundle(file.to_vec());
    all.iter().all(|der| match CertificateParts::of(der) {
        Some(parts) if parts.issuer == parts.subject => {
            bundle.certificates_of(&[parts.subject]).is_some_and(|found| found.contains(der))
        }
        _ => true,
    })
}

/// Two lines of base64: 96 bytes. The length of the issuer is before byte 60, with a serial number of 20 bytes and the
/// longest identifier of an algorithm but those of RSASSA-PSS.
const START: usize = 2 * 65;

fn read(path: &Path, setting: &str) -> Result<Zeroizing<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Zeroizing::new(bytes)),
        Err(error) => Err(read_error(setting, path, &error)),
    }
}

/// The error for a file that cannot be read. Only for some reasons is the setting wrong.
fn read_error(setting: &str, path: &Path, error: &io::Error) -> Error {
    use io::ErrorKind::{InvalidFilename, InvalidInput, IsADirectory, NotADirectory, NotFound, PermissionDenied};
    match error.kind() {
        NotFound | PermissionDenied | IsADirectory | NotADirectory | InvalidInput | InvalidFilename => {
            file_error(setting, path, &error.to_string())
        }
        _ => {
            let advice =
                resource_limit(error).map_or("check the disk or file server that it is on", |(_, advice)| advice);
            let path = sanitize(&path.display().to_string(), &[]);
            Error::new(Kind::Io, format!("cannot read {setting} {path}: {error}")).with_hint(advice)
        }
    }
}

/// A part of a file, from its BEGIN line to its END line.
struct Section<'a> {
    label: &'a str,
    /// Where its BEGIN line starts, in the file.
    start: usize,
    /// The lines between.
    body: &'a [u8],
    /// The whole section.
    text: &'a [u8],
}

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";

/// The sections of a file, up to the first thing that is wrong with it. Text between them is a comment.
struct Sections<'a> {
    file: &'a [u8],
    /// What is before has been read.
    at: usize,
}

impl<'a> Sections<'a> {
    fn of(file: &'a [u8]) -> std::result::Result<Self, String> {
        let not_pem = |what: &str| Err(format!("it is {what}, not PEM"));
        match file {
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return not_pem("in UTF-16"),
            // The DER encoding of a sequence.
            [0x30, 0x80..=0xff, ..] => return not_pem("binary (DER or PKCS #12)"),
            _ => {}
        }
        Ok(Sections { file, at: if file.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 } })
    }

    fn read_next(&mut self) -> std::result::Result<Option<Section<'a>>, String> {
        let file = self.file;
        // The label, and where the BEGIN line and the body start.
        let mut open: Option<(&str, usize, usize)> = None;
        // The bundle of a system has thousands of lines of base64, which has no hyphen: they are skipped. memchr does
        // not look at each byte, unlike `position`.
        while let Some(hyphen) = memchr::memchr(b'-', &file[self.at..]).map(|offset| self.at + offset) {
            let start = file[self.at..hyphen].iter().rposition(is_line_end).map_or(self.at, |end| self.at + end + 1);
            let end = memchr::memchr2(b'\n', b'\r', &file[hyphen..]).map_or(file.len(), |end| hyphen + end + 1);
            self.at = end;
            let text = file[start..end].trim_ascii_end();
            match (boundary(text, BEGIN), boundary(text, END), open) {
                (Some(label), _, None) => open = Some((label, start, end)),
                (_, Some(label), Some((begun, first, body))) if label == begun => {
                    return Ok(Some(Section {
                        label,
                        start: first,
                        body: &file[body..start],
                        text: &file[first..end],
                    }));
                }
                (None, None, _) if !is_like_a_boundary(text) => {}
                _ => return Err(format!("line {} is not a valid BEGIN or END line there", line_number(file, start))),
            }
        }
        self.at = file.len();
        match open {
            Some((label, start, _)) => Err(format!(
                "the section {label} that begins in line {} has no end in well-formed PEM",
                line_number(file, start)
            )),
            None => Ok(None),
        }
    }
}

impl<'a> Iterator for Sections<'a> {
    type Item = std::result::Result<Section<'a>, String>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.read_next();
        if next.is_err() {
            self.at = self.file.len();
        }
        next.transpose()
    }
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Lines end with LF, CR LF, or CR on old systems.
fn is_line_end(byte: &u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

/// The number of the line that starts at `start`.
fn line_number(file: &[u8], start: usize) -> usize {
    let is_end = |at: &usize| file[*at] == b'\n' || file[*at] == b'\r' && file.get(at + 1) != Some(&b'\n');
    1 + (0..start).filter(is_end).count()
}

/// The label of a boundary line.
fn boundary<'a>(line: &'a [u8], prefix: &[u8]) -> Option<&'a str> {
    let label = line.strip_prefix(prefix)?.strip_suffix(b"-----")?;
    let is_label = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b" #.-_/".contains(byte);
    // A label of a standard has at most 25 characters.
    (!label.is_empty() && label.len() <= 40 && label.iter().all(is_label)).then(|| std::str::from_utf8(label).ok())?
}

/// Whether a line was meant to be a boundary: indented, in lower case, or with the file's line breaks as `\n`.
fn is_like_a_boundary(line: &[u8]) -> bool {
    let starts = |prefix: &[u8]| line.windows(prefix.len()).any(|part| part.eq_ignore_ascii_case(prefix));
    starts(BEGIN) || starts(END)
}

/// The certificates of a file, or what is wrong with it.
pub fn parse_certificates(file: &[u8]) -> std::result::Result<Vec<CertificateDer<'static>>, String> {
    let mut found = Vec::new();
    for section in certificate_sections(file)? {
        let section = section?;
        let der = decode(section.body).ok_or_else(|| {
            format!("the certificate that begins in line {} is not valid base64", line_number(file, section.start))
        })?;
        found.push(CertificateDer::from(der));
    }
    if found.is_empty() { Err("it contains no certificate in PEM format".to_owned()) } else { Ok(found) }
}

/// The sections of a file that are certificates. One of another kind is an error, unless it is one of a key.
fn certificate_sections(
    file: &[u8],
) -> std::result::Result<impl Iterator<Item = std::result::Result<Section<'_>, String>>, String> {
    let sections = Sections::of(file)?;
    Ok(sections.filter_map(|section| {
        let section = match section {
            Ok(section) => section,
            Err(reason) => return Some(Err(reason)),
        };
        match section.label {
            // The second is what OpenSSL called it long ago.
            "CERTIFICATE" | "X509 CERTIFICATE" => Some(Ok(section)),
            "TRUSTED CERTIFICATE" => Some(Err(format!(
                "line {} begins a TRUSTED CERTIFICATE, a form of OpenSSL's own; convert it with openssl x509 -in OLD -out NEW",
                line_number(file, section.start)
            ))),
            // They may stand beside a certificate, and name nobody who is trusted.
            "PUBLIC KEY" | "EC PARAMETERS" | "DH PARAMETERS" | "DSA PARAMETERS" => None,
            label if label.ends_with("PRIVATE KEY") => None,
            label => Some(Err(format!(
                "line {} begins a {label}, which is not a certificate",
                line_number(file, section.start)
            ))),
        }
    }))
}

/// Decodes lines of base64.
fn decode(body: &[u8]) -> Option<Vec<u8>> {
    decode_regular(body).or_else(|| {
        let digits: Vec<u8> = body.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
        STANDARD.decode(digits).ok()
    })
}

/// Decodes lines of 64 digits that end with LF, and a last one, if these are all: the form of RFC 7468. A system has
/// thousands of these lines, which each process that uses TLS reads. By hand, because the base64 crate, given the lines
/// joined, takes 1.3 million instructions more for 150 certificates, at its best level of optimization; all of a
/// request, with them, is to take at most 7 million.
fn decode_regular(body: &[u8]) -> Option<Vec<u8>> {
    let (lines, last) = body.split_at(body.len().saturating_sub(1) / 65 * 65);
    let lines = lines.as_chunks::<65>().0;
    let mut der = vec![0; (lines.len() + 1) * 48];
    let mut seen = 0;
    for (line, decoded) in lines.iter().zip(der.as_chunks_mut::<48>().0) {
        for (digits, bytes) in line.as_chunks::<8>().0.iter().zip(decoded.as_chunks_mut::<6>().0) {
            let [a, b, c, d, e, f, g, h] = *digits;
            let first = VALUES[0][usize::from(a)]
                | VALUES[1][usize::from(b)]
                | VALUES[2][usize::from(c)]
                | VALUES[3][usize::from(d)];
            let second = VALUES[0][usize::from(e)]
                | VALUES[1][usize::from(f)]
                | VALUES[2][usize::from(g)]
                | VALUES[3][usize::from(h)];
            seen |= first | second;
            let [_, _, six @ ..] = (u64::from(first) << 24 | u64::from(second & 0xff_ffff)).to_be_bytes();
            *bytes = six;
        }
        seen |= if line[64] == b'\n' { 0 } else { NO_DIGIT };
    }
    let length = STANDARD.decode_slice(last.trim_ascii_end(), &mut der[lines.len() * 48..]).ok()?;
    der.truncate(lines.len() * 48 + length);
    (seen & NO_DIGIT == 0).then_some(der)
}

const NO_DIGIT: u32 = 1 << 31;

/// What each byte stands for as the first, second, third and fourth of four digits.
static VALUES: [[u32; 256]; 4] = {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut values = [[NO_DIGIT; 256]; 4];
    let mut index = 0;
    while index < 4 * digits.len() {
        let (place, value) = (index / digits.len(), index % digits.len());
        values[place][digits[value] as usize] = (value as u32) << (18 - 6 * place);
        index += 1;
    }
    values
};

fn parse_private_key(file: &[u8]) -> std::result::Result<PrivateKeyDer<'static>, String> {
    let sections = Sections::of(file)?.collect::<std::result::Result<Vec<_>, _>>()?;
    let Some(section) = sections.iter().find(|section| section.label.ends_with("PRIVATE KEY")) else {
        return Err("it contains no private key in PEM format".to_owned());
    };
    let encrypted = b"Proc-Type:";
    match section.label {
        "ENCRYPTED PRIVATE KEY" => {
            Err("its private key has a password; remove it with openssl pkey -in OLD -out NEW".to_owned())
        }
        _ if section.body.windows(encrypted.len()).any(|part| part == encrypted) => {
            Err("its private key has a password; remove it with openssl pkey -in OLD -out NEW".to_owned())
        }
        "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" => PrivateKeyDer::from_pem_slice(section.text)
            // The parser's message may quote a line of the file.
            .map_err(|_| {
                format!("the private key that begins in line {} is not valid base64", line_number(file, section.start))
            }),
        label => Err(format!("line {} begins a {label}, which is not supported", line_number(file, section.start))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::x509::tests::wrap;

    const ONE: &str = "-----BEGIN CERTIFICATE-----\nAAEC\n-----END CERTIFICATE-----\n";

    fn read(file: impl AsRef<[u8]>) -> std::result::Result<Vec<Vec<u8>>, String> {
        parse_certificates(file.as_ref()).map(|found| found.iter().map(|der| der.to_vec()).collect())
    }

    /// What is changed in a regular section is decoded as any decoder does, or left to that.
    #[test]
    fn regular_lines_are_decoded_as_base64() {
        let wrap = |text: &str| text.as_bytes().chunks(64).flat_map(|line| [line, b"\n"].concat()).collect::<Vec<u8>>();
        for length in 0..400 {
            let bytes: Vec<u8> = (0..length).map(|at: usize| (at * at * 7 + at * 113 + length) as u8).collect();
            let body = wrap(&STANDARD.encode(&bytes));
            assert_eq!(decode_regular(&body), Some(bytes.clone()));
            assert_eq!(decode(&body), Some(bytes.clone()));
            assert_eq!(decode(&body.escape_ascii().to_string().replace("\\n", "\r\n").into_bytes()), Some(bytes));
        }
        let body = wrap(&STANDARD.encode((0..=255).collect::<Vec<u8>>()));
        for (at, byte) in (0..body.len()).flat_map(|at| b"\n\r =-A/\0\x80\xff".map(|byte| (at, byte))) {
            let mut changed = body.clone();
            changed[at] = byte;
            let digits: Vec<u8> = changed.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
            let expected = STANDARD.decode(digits).ok();
            assert!(decode_regular(&changed).is_none_or(|der| Some(der) == expected), "{at} {byte}");
            assert_eq!(decode(&changed), expected, "{at} {byte}");
        }
    }

    /// A disk that fails is not a wrong setting.
    #[cfg(target_os = "linux")]
    #[test]
    fn only_a_wrong_path_is_a_wrong_setting() {
        // The first page of a process is not mapped: the system answers with EIO.
        for (path, kind) in [("/nonexistent", Kind::Config), ("/", Kind::Config), ("/proc/self/mem", Kind::Io)] {
            let error = certificates(path.as_ref(), "ca_file").unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(path), "{error}");
        }
    }

    #[test]
    fn every_certificate_of_a_file_is_read() {
        let two = Ok(vec![vec![0, 1, 2], vec![0, 1, 2]]);
        let crlf = ONE.replace('\n', "\r\n");
        for file in [
            format!("{ONE}{ONE}"),
            format!("\u{feff}{ONE}{ONE}"),
            format!("{crlf}\r\n# a comment: é\r\n{crlf}"),
            format!("{ONE}{ONE}").replace('\n', "\r"),
            format!("{ONE}{}", ONE.trim_end()),
            format!("{ONE}-----BEGIN X509 CERTIFICATE----- \nAA\n  EC\n-----END X509 CERTIFICATE-----"),
            format!("{ONE}{}", ONE.replace("AAEC", "A\tA\r\r E C ")),
            format!("{ONE}{}", ONE.replace("AAEC", "\nAA\nE\nC")),
            format!("{ONE}-----BEGIN EC PRIVATE KEY-----\nAA==\n-----END EC PRIVATE KEY-----\n{ONE}"),
        ] {
            assert_eq!(read(&file), two, "{file:?}");
        }
    }

    #[test]
    fn what_is_not_understood_is_an_error_with_its_line() {
        let section = |label: &str| format!("-----BEGIN {label}-----\nAAEC\n-----END {label}-----\n");
        for (file, says) in [
            (String::new(), "no certificate in PEM format"),
            ("nothing".to_owned(), "no certificate in PEM format"),
            (section("PRIVATE KEY"), "no certificate in PEM format"),
            (format!("{ONE}{}", section("TRUSTED CERTIFICATE")), "line 4 begins a TRUSTED CERTIFICATE"),
            (format!("{ONE}{}", section("X509 CRL")), "line 4 begins a X509 CRL"),
            (section("PKCS7"), "line 1 begins a PKCS7"),
            (section("CERTIFICATE REQUEST"), "which is not a certificate"),
            (format!("{ONE} {ONE}"), "line 4 is not a valid BEGIN or END line"),
            (format!("{ONE}{}", ONE.to_lowercase()), "line 4 is not"),
            (ONE.replace('\n', "\\n"), "line 1 is not"),
            (format!("{}{ONE}", "-----BEGIN CERTIFICATE-----\nAAEC\n"), "line 3 is not"),
            (format!("{ONE}{}", "-----END CERTIFICATE-----\n").replace('\n', "\r\n"), "line 4 is not"),
            (ONE.replace("END CERTIFICATE", "END X509 CRL"), "line 3 is not"),
            (ONE.replace("BEGIN CERTIFICATE-----", "BEGIN CERTIFICATE----"), "line 1 is not"),
            (ONE.replace("-----END CERTIFICATE-----\n", ""), "begins in line 1 has no end"),
            (ONE.replace("AAEC", "AAE"), "line 1 is not valid base64"),
            (ONE.replace("AAEC", "Key: value\n\nAAEC"), "line 1 is not valid base64"),
        ] {
            let error = read(&file).unwrap_err();
            assert!(error.contains(says), "{error}: {file:?}");
            assert!(!error.contains("AAE"), "{error}");
        }
        let utf16: Vec<u8> = format!("\u{feff}{ONE}").encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(read(utf16).unwrap_err(), "it is in UTF-16, not PEM");
        assert_eq!(read(b"\x30\x82\x01\x00").unwrap_err(), "it is binary (DER or PKCS #12), not PEM");
    }

    /// Serial numbers, algorithms and names of any length: what cannot be seen from the start is decoded.
    #[test]
    fn the_certificates_of_a_ca_are_found() {
        let certificate = |serial: usize, algorithm: usize, issuer: &[u8], subject: &[u8]| {
            let fields = [
                wrap(2, &vec![1; serial]),
                wrap(0x30, &vec![2; algorithm]),
                wrap(0x30, issuer),
                wrap(0x30, b"validity"),
                wrap(0x30, subject),
                wrap(0x30, &[3; 300]),
            ];
            wrap(0x30, &wrap(0x30, &fields.concat()))
        };
        let names = [
            &b"a name"[..],
            b"a longer name",
            b"another name with more bytes than there are in both lines of base64, which are only 96",
        ];
        for line_end in ["\n", "\r\n", " \n\t"] {
            for name in names {
                let mut ders = Vec::new();
                let mut file = String::new();
                let lengths = (1..40).flat_map(|serial| [2, 13, 50, 100].map(|algorithm| (serial, algorithm)));
                for (at, (serial, algorithm)) in lengths.enumerate() {
                    let issuer = names[at % 3];
                    ders.push(certificate(serial, algorithm, issuer, issuer));
                    let text = STANDARD.encode(ders.last().unwrap()).into_bytes();
                    let lines: Vec<_> = text.chunks(64).map(|line| String::from_utf8(line.to_vec()).unwrap()).collect();
                    file +=
                        &format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join(line_end));
                }
                let bundle = Bundle(file.into_bytes());
                let found = |names: &[&[u8]]| -> Vec<Vec<u8>> {
                    bundle.certificates_of(names).unwrap().iter().map(|der| der.to_vec()).collect()
                };
                let expected: Vec<_> =
                    ders.iter().filter(|der| der.windows(name.len()).any(|part| part == name)).cloned().collect();
                assert_eq!(found(&[name]), expected);
                assert_eq!(found(&[b"a namf", name]), expected);
                assert_eq!(found(&names), ders);
                assert!(found(&[b"a namf"]).is_empty() && found(&[b""]).is_empty() && found(&[]).is_empty());
                assert_eq!(bundle.first().unwrap().as_ref(), ders[0]);
            }
        }
    }

    #[test]
    fn a_bundle_that_is_not_understood_is_not_searched() {
        for text in ["AA=C", "AAEC\n-----BEGIN CERTIFICATE-----"] {
            let bundle = Bundle(format!("{ONE}{}", ONE.replace("AAEC", text)).into_bytes());
            assert_eq!(bundle.certificates(), None, "{text}");
            assert_eq!(bundle.certificates_of(&[b"a name"]), None, "{text}");
            assert!(bundle.first().is_some());
        }
        let odd = Bundle(format!("{ONE}-----BEGIN PKCS7-----\nAA==\n-----END PKCS7-----\n").into_bytes());
        assert_eq!(odd.certificates_of(&[b"a name"]), None);
        assert_eq!(Bundle(Vec::new()).first(), None);
    }

    #[test]
    fn a_private_key_is_named_if_it_cannot_be_used() {
        let section =
            |label: &str, body: &str| format!("{ONE}-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
        for label in ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"] {
            let parameters = section("EC PARAMETERS", "AA==");
            let file = format!("\u{feff}{parameters}{}", section(label, "AAEC"));
            assert_eq!(parse_private_key(file.as_bytes()).unwrap().secret_der(), [0, 1, 2]);
        }
        for (file, says) in [
            (ONE.to_owned(), "no private key in PEM format"),
            (section("ENCRYPTED PRIVATE KEY", "AAEC"), "has a password"),
            (section("RSA PRIVATE KEY", "Proc-Type: 4,ENCRYPTED\nDEK-Info: x\n\nAAEC"), "has a password"),
            (section("OPENSSH PRIVATE KEY", "AAEC"), "line 4 begins a OPENSSH PRIVATE KEY"),
            (section("PRIVATE KEY", "A!EC"), "line 4 is not valid base64"),
        ] {
            let error = parse_private_key(file.as_bytes()).unwrap_err();
            assert!(error.contains(says) && !error.contains("!EC"), "{error}");
        }
    }
}
