//! Errors of the command: a line on standard error, and an exit status for each class of failure.

use crate::terminal;
use crate::worker::{self, Stream};
use amp_token::error::{Error, Kind};
use std::ffi::OsStr;
use std::io::{self, Write};
use std::process::ExitCode;
#[cfg(any(feature = "emulator", feature = "serve"))]
use std::process::ExitStatus;
use zeroize::Zeroizing;

/// What a command returns.
pub type CliResult<T> = Result<T, CliError>;

/// The exit statuses and their meanings, for `--help` and the manual page.
pub const EXIT_CODES: &[(u8, &str)] = &[
    (0, "success: the result is on standard output"),
    (EXIT_INTERNAL, "an internal error: a bug in amp-token"),
    (USAGE, "invalid arguments or settings"),
    (CREDENTIALS, "no credentials were found, or they were rejected"),
    (NETWORK, "the connection failed: DNS, TCP, TLS, proxy or timeout"),
    (SERVER, "the server returned an error or an unexpected response, or is rate limiting requests"),
    (EXIT_IO, "a local error: a file, the clock, or standard output"),
    (GRAPHQL_ERRORS, "graphql: the response contains errors and no data"),
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
pub const GRAPHQL_ERRORS: u8 = 7;
pub const CANNOT_RUN: u8 = 126;
pub const NOT_FOUND: u8 = 127;
/// The status that a shell reports for a program that SIGPIPE has ended: 128 plus the number of the signal.
const EXIT_SIGPIPE: u8 = 141;

/// The exit status for an error of the library.
pub fn status_of(error: &Error) -> u8 {
    match error.kind() {
        Kind::InvalidArgument | Kind::Config => USAGE,
        Kind::NoCredentials | Kind::CredentialsRejected => CREDENTIALS,
        Kind::Resolve | Kind::Connect | Kind::Tls | Kind::Proxy | Kind::Timeout => NETWORK,
        Kind::RateLimited | Kind::Server | Kind::Protocol => SERVER,
        Kind::Io => EXIT_IO,
        Kind::BufferTooSmall | Kind::Pending | Kind::Internal => EXIT_INTERNAL,
    }
}

/// An error that ends the run.
#[derive(Debug)]
pub struct CliError {
    status: u8,
    /// The line for standard error. If it is empty, none is written.
    message: String,
}

impl CliError {
    pub fn new(status: u8, message: impl Into<String>) -> Self {
        CliError { status, message: message.into() }
    }

    /// Invalid arguments.
    pub fn usage(message: impl Into<String>) -> Self {
        CliError::new(USAGE, message)
    }

    /// An error while writing to standard output.
    pub fn output(error: &io::Error) -> Self {
        match error.kind() {
            // The reader has closed the pipe, as in `amp-token status | head -1`. That needs no message.
            io::ErrorKind::BrokenPipe => CliError::new(EXIT_SIGPIPE, ""),
            _ => CliError::new(EXIT_IO, format!("cannot write to standard output: {error}")),
        }
    }

    /// The same error, with another sentence.
    pub fn and(self, sentence: &str) -> Self {
        let message =
            if self.message.is_empty() { sentence.to_owned() } else { format!("{}; {sentence}", self.message) };
        CliError { message, ..self }
    }

    /// Writes the message to standard error and returns the exit status.
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

/// The error for a command that cannot be started, as shells report it.
pub fn cannot_run(program: &OsStr, error: &io::Error) -> CliError {
    let status = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN };
    CliError::new(status, format!("cannot run {}: {error}", program.display()))
}

/// The status of a command that has run, as shells report it: 128 and the number of the signal that ended it.
#[cfg(any(feature = "emulator", feature = "serve"))]
pub fn code_of(status: ExitStatus) -> ExitCode {
    #[cfg(unix)]
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    #[cfg(not(unix))]
    let signal = None::<i32>;
    let code = status.code().or(signal.map(|signal| 128 + signal)).unwrap_or(EXIT_INTERNAL.into());
    ExitCode::from(u8::try_from(code).unwrap_or(EXIT_INTERNAL))
}

/// Writes a line to standard error, at once: several processes may write to the same file or terminal, and the parts
/// of their lines must not mix. An error is ignored: there is no other place to report it.
pub fn eprintln_prefixed(line: &str) {
    let line = Zeroizing::new(format!("amp-token: {}\n", terminal::lines(line.trim_end().as_bytes()).as_str()));
    if worker::send(Stream::Error, line.as_bytes()).is_none() {
        let _ = io::stderr().lock().write_all(line.as_bytes());
    }
}
