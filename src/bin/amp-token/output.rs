//! Writing to standard output.
//!
//! A result is written at once, and its buffer is wiped if it contains a token. `std::io::Stdout` is not used
//! for that: it has a buffer that is not wiped. The bytes are written to the descriptor itself.

use crate::exit::{CliError, CliResult};
use crate::worker::{self, Stream};
use crate::{stdout, terminal};
use amp_token::sanitize::{is_unprintable, printable};
use std::fs::File;
use std::io::{self, Write};
use std::sync::OnceLock;
use zeroize::Zeroizing;

/// Fails if a result could not be printed. To be called before anything is requested.
pub fn check() -> CliResult<()> {
    stdout::check().map_err(|error| CliError::output(&error))
}

/// Prints a result.
pub fn answer(text: &str) -> CliResult<()> {
    bytes(text.as_bytes())
}

fn bytes(bytes: &[u8]) -> CliResult<()> {
    match worker::send(Stream::Output, bytes) {
        Some(sent) => sent.map_err(|error| CliError::output(&error)),
        None => raw(bytes),
    }
}

/// What the user must know if a result that follows cannot be written after all.
static IF_LOST: OnceLock<String> = OnceLock::new();

/// Says what the user must know if a result that follows cannot be written after all.
pub fn if_lost(sentence: &str) {
    if worker::send(Stream::IfLost, sentence.as_bytes()).is_none() {
        let _ = IF_LOST.set(sentence.to_owned());
    }
}

/// Writes to the standard output of this process.
pub fn raw(bytes: &[u8]) -> CliResult<()> {
    let written = stdout::check().and_then(|()| stdout()?.write_all(bytes));
    written.map_err(|error| match IF_LOST.get() {
        Some(sentence) => CliError::output(&error).and(sentence),
        None => CliError::output(&error),
    })
}

/// Prints what a server sent. On a terminal, control characters are replaced, and the last line is ended.
pub fn foreign(body: &[u8]) -> CliResult<()> {
    if !worker::stdout_is_terminal() {
        return bytes(body);
    }
    let end = if body.is_empty() || body.ends_with(b"\n") { "" } else { "\n" };
    secret(&[&terminal::lines(body), end])
}

/// Prints a result that consists of parts, one of which is a secret.
pub fn secret(parts: &[&str]) -> CliResult<()> {
    // The capacity is exact, because a buffer that grows leaves copies of its contents in memory.
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

/// Whether to print colours: if standard output is a terminal that has them, and NO_COLOR (no-color.org) is not set.
pub fn is_colourful() -> bool {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    worker::stdout_is_terminal()
        && variable("NO_COLOR").is_none()
        && variable("TERM").is_some_and(|term| term != "dumb")
}

/// Formats rows of two columns.
pub fn columns<'a>(rows: impl IntoIterator<Item = (&'a str, String)>) -> String {
    rows.into_iter().map(|(name, value)| format!("{name:<12} {}\n", printable(&value))).collect()
}

/// Formats a table with a line of headings. The cells must be safe to show.
pub fn table<const COLUMNS: usize>(headings: [&str; COLUMNS], rows: &[[String; COLUMNS]]) -> String {
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).chain([headings[at].len()]).max();
    let widths: Vec<_> = (0..COLUMNS).map(|at| width(at).unwrap_or(0)).collect();
    let line = |row: [&str; COLUMNS]| {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    let mut table = line(headings);
    table.extend(rows.iter().map(|row| line(row.each_ref().map(String::as_str))));
    table
}

/// Formats a JSON value, indented. All control characters are escaped: JSON itself requires that only for some.
pub fn json(value: &serde_json::Value) -> String {
    let mut text = String::new();
    for c in format!("{value:#}\n").chars() {
        if c == '\n' || !is_unprintable(c) {
            text.push(c);
        } else {
            text.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    text
}
