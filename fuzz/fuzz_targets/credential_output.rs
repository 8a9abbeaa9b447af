//! What a credential command prints: credentials that are somewhere in it, or an error that shows no part of them.
#![no_main]
use amp_token::config::parse_output;
use amp_token_fuzz::{Piece, assemble, on_small_stack};
use libfuzzer_sys::fuzz_target;

const SECRET: &str = "hush-hush-hush-9e04";

#[rustfmt::skip]
const TABLE: [&str; 26] = [
    "hush-hush-hush-9e04", "\n", "\r\n", "\r", " ", "{", "}", "\"", ":", ",", "client_id", "client_secret", "personal_access_token",
    "AccessKeyId", "SecretAccessKey", "Version", "1", "null", "[", "]", "\\u0068", "\\n", "\u{feff}", "\t", "{\"client_secret\":\"", "\"}",
];

fuzz_target!(|input: (Vec<Piece>, Vec<Piece>, Vec<u8>)| on_small_stack(move || run(input)));

fn run((stdout, stderr, bytes): (Vec<Piece>, Vec<Piece>, Vec<u8>)) {
    let (stdout, stderr) = (assemble(&stdout, &TABLE), assemble(&stderr, &TABLE));
    let with_bytes = [stderr.as_bytes(), &bytes].concat();
    match parse_output(stdout.as_bytes(), &with_bytes) {
        Ok(secrets) => {
            assert!(secrets.iter().all(|secret| !secret.is_empty() && secret.expose() == secret.expose().trim()));
            // Only an escape of JSON stands for something else than itself.
            let is_in = |secret: &str| stdout.contains(secret) || stdout.contains('\\');
            assert!(secrets.iter().all(|secret| is_in(secret.expose())), "{stdout:?}");
        }
        Err(error) => {
            assert!(!error.contains(['\n', '\r', '\u{1b}']) && error.len() < 4096, "{error:?}");
            // A line that was printed as a secret is not shown, wherever it is.
            let is_line = stdout.lines().any(|line| line.trim() == SECRET);
            assert!(!is_line || !error.contains(SECRET), "{error:?}");
        }
    }
    let _ = parse_output(&bytes, stdout.as_bytes());
}
