//! A file of certificates, as this library and as OpenSSL read it: the same certificates, or an error of ours.
#![no_main]
use amp_token::net::{finds_self_issued, parse_certificates};
use amp_token_fuzz::{difference, on_small_stack, openssl};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Clone, Debug)]
enum Part {
    Section { label: u8, end: u8, data: Data, width: u8, line_end: u8, padding: u8 },
    Line(u8, u8),
    Text(String),
    Bytes(Vec<u8>),
}

#[derive(Arbitrary, Clone, Debug)]
enum Data {
    Bytes(Vec<u8>),
    /// The lengths of its serial number and its algorithm, and the names of its issuer and its subject, if that is another.
    Certificate {
        serial: u8,
        algorithm: u8,
        issuer: Vec<u8>,
        subject: Option<Vec<u8>>,
    },
}

impl Data {
    fn to_bytes(&self) -> Vec<u8> {
        let (serial, algorithm, issuer, subject) = match self {
            Data::Bytes(bytes) => return bytes.clone(),
            Data::Certificate { serial, algorithm, issuer, subject } => (*serial, *algorithm, issuer, subject),
        };
        let wrap = |tag: u8, content: &[u8]| {
            let length = u16::try_from(content.len()).unwrap_or(u16::MAX).to_be_bytes();
            [&[tag, 0x82, length[0], length[1]], content].concat()
        };
        let fields = [
            wrap(2, &vec![1; serial.into()]),
            wrap(0x30, &vec![2; algorithm.into()]),
            wrap(0x30, issuer),
            wrap(0x30, b"validity"),
            wrap(0x30, subject.as_ref().unwrap_or(issuer)),
            wrap(0x30, b"key"),
        ];
        wrap(0x30, &wrap(0x30, &fields.concat()))
    }
}

const LABELS: [&str; 12] = [
    "CERTIFICATE",
    "X509 CERTIFICATE",
    "TRUSTED CERTIFICATE",
    "PRIVATE KEY",
    "RSA PRIVATE KEY",
    "EC PARAMETERS",
    "X509 CRL",
    "PKCS7",
    "certificate",
    "CERTIFICATE REQUEST",
    "PUBLIC KEY",
    "",
];

const LINES: [&str; 16] = [
    "-----BEGIN CERTIFICATE-----",
    "-----END CERTIFICATE-----",
    "-----BEGIN X509 CERTIFICATE-----",
    "-----END X509 CERTIFICATE-----",
    "----BEGIN CERTIFICATE----",
    "-----BEGIN CERTIFICATE",
    " -----BEGIN CERTIFICATE-----",
    "-----begin certificate-----",
    "Bag Attributes",
    "subject=/C=BE/O=x",
    "Proc-Type: 4,ENCRYPTED",
    "# a comment",
    "AAEC",
    "AA==",
    "",
    "-",
];

const LINE_ENDS: [&str; 7] = ["\n", "\r\n", "\r", "", " \n", "\t\r\n", "\n\n"];

fn file(parts: &[Part]) -> Vec<u8> {
    use std::io::Write;
    let mut file = Vec::new();
    for part in parts {
        match part {
            Part::Section { label, end, data, width, line_end, padding } => {
                let line_end = LINE_ENDS[usize::from(*line_end) % LINE_ENDS.len()];
                let label = LABELS[usize::from(*label) % LABELS.len()];
                let end = if *end < 240 { label } else { LABELS[usize::from(*end) % LABELS.len()] };
                let mut base64 = base64(&data.to_bytes());
                if *padding > 200 {
                    base64.truncate(base64.trim_end_matches('=').len());
                }
                let width = if *width < 200 { 64 } else { usize::from(*width) - 199 };
                let lines: String = base64
                    .as_bytes()
                    .chunks(width)
                    .map(|line| format!("{}{line_end}", std::str::from_utf8(line).unwrap()))
                    .collect();
                write!(file, "-----BEGIN {label}-----{line_end}{lines}-----END {end}-----{line_end}").unwrap();
            }
            Part::Line(line, line_end) => {
                let line = LINES[usize::from(*line) % LINES.len()];
                write!(file, "{line}{}", LINE_ENDS[usize::from(*line_end) % LINE_ENDS.len()]).unwrap();
            }
            Part::Text(text) => file.extend_from_slice(text.as_bytes()),
            Part::Bytes(bytes) => file.extend_from_slice(bytes),
        }
    }
    file
}

fn base64(data: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in data.chunks(3) {
        let bits = three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for at in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * at)) as usize & 63];
            text.push(if at <= three.len() { digit.into() } else { '=' });
        }
    }
    text
}

struct Case<'a> {
    file: &'a [u8],
    ours: Result<&'a [Vec<u8>], &'a str>,
    theirs: &'a [openssl::Section],
    is_whole: bool,
}

/// Why they do not read the same certificates. This library reads all of a file or nothing: what is skipped decides whom
/// it trusts.
#[rustfmt::skip]
const REASONS: &[(&str, fn(&Case) -> bool)] = &[
    ("a file that begins as one in UTF-16 or DER is an error", |case| says(case, ", not PEM")),
    ("a boundary that is in the wrong place is an error", |case| says(case, "is not a valid BEGIN or END line there")),
    ("a section without an end is an error", |case| says(case, "has no end in well-formed PEM")),
    ("a section of another kind is an error", |case| says(case, "which is not a certificate")),
    ("a form of OpenSSL's own is an error", |case| says(case, "TRUSTED CERTIFICATE")),
    ("an empty section is rejected as a certificate later", |case| {
        case.ours.is_ok_and(|found| found.iter().any(Vec::is_empty))
    }),
    ("sections that are no certificates are not decoded", |case| {
        let is_certificate = |section: &&openssl::Section| section.name.ends_with("CERTIFICATE");
        let theirs = case.theirs.iter().filter(is_certificate).map(|section| &section.data);
        let has_others = case.file.windows(4).any(|four| four == b" KEY" || four == b"AMET");
        has_others && !case.is_whole && case.ours.is_ok_and(|ours| theirs.zip(ours).all(|(theirs, ours)| theirs == ours))
    }),
    ("a section may have empty lines", |case| {
        case.ours.is_ok() && !case.is_whole && case.file.split(|byte| *byte == b'\n').any(|line| line.trim_ascii().is_empty())
    }),
    ("lines of old systems end with CR, which OpenSSL does not know", |case| {
        case.file.windows(2).any(|two| two[0] == b'\r' && two[1] != b'\n') || case.file.ends_with(b"\r")
    }),
];

fn says(case: &Case, part: &str) -> bool {
    case.ours.is_err_and(|error| error.contains(part))
}

fuzz_target!(|parts: Vec<Part>| {
    let file = file(&parts);
    let (sections, is_whole) = openssl::read_pem(&file);
    let is_certificate = |section: &&openssl::Section| ["CERTIFICATE", "X509 CERTIFICATE"].contains(&&*section.name);
    let theirs: Vec<_> = sections.iter().filter(is_certificate).map(|section| section.data.clone()).collect();
    let copy = file.clone();
    let ours = on_small_stack(move || {
        parse_certificates(&copy).map(|found| found.iter().map(|der| der.to_vec()).collect::<Vec<_>>())
    });
    assert!(finds_self_issued(&file), "{:?}", String::from_utf8_lossy(&file));
    let case = Case { file: &file, ours: ours.as_deref().map_err(String::as_str), theirs: &sections, is_whole };
    let is_same = match &ours {
        Ok(ours) => is_whole && *ours == theirs,
        Err(_) => !is_whole || theirs.is_empty(),
    };
    if !is_same {
        difference(REASONS, &case, || {
            format!(
                "{:?}
{ours:?}
{sections:?} {is_whole}",
                String::from_utf8_lossy(&file)
            )
        });
    }
});
