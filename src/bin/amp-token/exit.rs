//! How a run fails: one line on standard error, and an exit status that tells the class.

use crate::output;
use amp_token::error::{Error, Kind};
use std::io::{self, Write};
use std::process::ExitCode;

/// What a command returns.
pub type CliResult<T> = Result<T, CliError>;

/// The exit statuses, and what they mean: for `--help` and the manual.
pub const EXIT_CODES: &[(u8, &str)] = &[
    (0, "success: the result is on standard output"),
    (EXIT_INTERNAL, "an internal error: a bug in amp-token"),
    (USAGE, "invalid arguments or settings"),
    (CREDENTIALS, "no credentials were found, or they were rejected"),
    (NETWORK, "the connection failed: DNS, TCP, TLS, proxy or timeout"),
    (SERVER, "the server returned an error or an unexpected response, or is rate limiting requests"),
    (EXIT_IO, "a local error: a file, the clock, or standard output"),
    (CANNOT_RUN, "exec: the command cannot be run"),
    (NOT_FOUND, "exec: the command was not found"),
    (EXIT_SIGPIPE, "standard output was closed (SIGPIPE)"),
];

pub const EXIT_INTERNAL: u8 = 1;
pub const USAGE: u8 = 2;
pub const CREDENTIALS: u8 = 3;
pub const NETWORK: u8 = 4;
pub const SERVER: u8 = 5;
pub const EXIT_IO: u8 = 6;
pub const CANNOT_RUN: u8 = 126;
pub const NOT_FOUND: u8 = 127;
/// What a shell says of a program that SIGPIPE ended (128 and the signal's number).
const EXIT_SIGPIPE: u8 = 141;

/// The exit status for an error of the library.
pub fn status_of(error: &Error) -> u8 {
    match error.kind() {
        Kind::InvalidArgument | Kind::Config => USAGE,
        Kind::NoCredentials | Kind::CredentialsRejected => CREDENTIALS,
        Kind::Resolve | Kind::Connect | Kind::Tls | Kind::Proxy | Kind::Timeout => NETWORK,
        Kind::RateLimited | Kind::Server | Kind::Protocol => SERVER,
        Kind::Io => EXIT_IO,
        Kind::BufferTooSmall | Kind::Internal => EXIT_INTERNAL,
    }
}

/// Why a run ends early.
#[derive(Debug)]
pub struct CliError {
    status: u8,
    /// What is told; empty for nothing.
    message: String,
}

impl CliError {
    pub fn new(status: u8, message: impl Into<String>) -> Self {
        CliError { status, message: message.into() }
    }

    /// The user asked for something that does not exist.
    pub fn usage(message: impl Into<String>) -> Self {
        CliError::new(USAGE, message)
    }

    /// Standard output did not take the answer.
    pub fn output(error: &io::Error) -> Self {
        match error.kind() {
            // Whoever was reading has seen enough, as in `amp-token status | head -1`.
            io::ErrorKind::BrokenPipe => CliError::new(EXIT_SIGPIPE, ""),
            _ => CliError::new(EXIT_IO, format!("cannot write to standard output: {error}")),
        }
    }

    /// Tells it, and gives the status to exit with.
    pub fn report(&self) -> ExitCode {
        if !self.message.is_empty() {
            eprintln_prefixed(&self.message);
        }
        ExitCode::from(self.status)
    }
}

impl From<Error> for CliError {
    fn from(error: Error) -> Self {
        CliError::new(status_of(&error), error.to_string())
    }
}

/// Writes a line to standard error. If that is closed, there is nobody to tell.
pub fn eprintln_prefixed(line: &str) {
    let _ = writeln!(io::stderr().lock(), "amp-token: {}", output::lines(line.trim_end().as_bytes()).as_str());
}
