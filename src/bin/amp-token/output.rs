//! How an answer leaves: in one piece, and wiped where it holds a token.
//!
//! The standard library's own standard output keeps what it was given in a buffer that nobody
//! wipes, so the descriptor is written to directly.

use crate::exit::{CliError, Outcome};
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use zeroize::Zeroizing;

/// Prints an answer.
pub fn answer(text: &str) -> Outcome<()> {
    bytes(text.as_bytes())
}

/// Prints an answer that may be anything.
pub fn bytes(bytes: &[u8]) -> Outcome<()> {
    stdout().and_then(|mut stdout| stdout.write_all(bytes)).map_err(|error| CliError::output(&error))
}

/// Prints an answer that is put together from parts, one of which is a secret.
pub fn secret(parts: &[&str]) -> Outcome<()> {
    // Filled once, never grown: a buffer that grows leaves copies behind.
    let mut whole = Zeroizing::new(String::with_capacity(parts.iter().map(|part| part.len()).sum()));
    parts.iter().for_each(|part| whole.push_str(part));
    answer(&whole)
}

#[cfg(unix)]
fn stdout() -> io::Result<File> {
    use std::os::fd::AsFd;
    Ok(io::stdout().as_fd().try_clone_to_owned()?.into())
}

#[cfg(windows)]
fn stdout() -> io::Result<File> {
    use std::os::windows::io::AsHandle;
    Ok(io::stdout().as_handle().try_clone_to_owned()?.into())
}

/// Whether standard output may be coloured: it is a terminal, and nobody objects (no-color.org).
pub fn is_colourful() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Puts rows of two columns under each other.
pub fn columns<'a>(rows: impl IntoIterator<Item = (&'a str, String)>) -> String {
    rows.into_iter().map(|(name, value)| format!("{name:<12} {value}\n")).collect()
}

/// A JSON value as it is printed.
pub fn json(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}
