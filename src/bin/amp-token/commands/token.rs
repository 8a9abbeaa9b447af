//! The commands that print or pass on a token, and the one that removes it from the store.

use crate::cli;
use crate::context::Context;
use crate::exit::{CANNOT_RUN, CliError, CliResult, NOT_FOUND};
use crate::output;
use amp_token::config::settings::{SETTINGS, Setting};
use amp_token::error::{Error, Kind};
use amp_token::token::Token;
use amp_token::token::provider::{self, ProviderConfig, TokenProvider};
use clap::ArgMatches;
use std::ffi::OsString;
use std::io::{self, Read};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use zeroize::Zeroizing;

/// `amp-token get`
pub fn get(context: Context) -> CliResult<()> {
    output::secret(&[get_token(context)?.value(), "\n"])
}

/// `amp-token header`
pub fn header(context: Context) -> CliResult<()> {
    output::secret(&["Authorization: ", get_token(context)?.authorization(), "\n"])
}

/// `amp-token curl-config`
pub fn curl_config(context: Context) -> CliResult<()> {
    let token = get_token(context)?;
    // In a quoted string of curl a backslash starts an escape sequence. A token has no control characters.
    let mut quoted = Zeroizing::new(String::with_capacity(token.authorization().len() * 2));
    for c in token.authorization().chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    output::secret(&["header = \"Authorization: ", &quoted, "\"\n"])
}

/// `amp-token exec`: replaces this process with the command, so that signals reach it and its exit status is seen.
pub fn exec(context: Context, arguments: &ArgMatches) -> CliResult<ExitCode> {
    let mut command_line = arguments.get_many::<OsString>("command").into_iter().flatten();
    let Some(program) = command_line.next() else { return Err(CliError::usage("exec requires a command")) };
    let mut command = Command::new(program);
    command.args(command_line);
    if arguments.get_flag("clean") {
        for variable in secret_variables() {
            command.env_remove(variable);
        }
    }
    command.env(cli::TOKEN_VARIABLE, get_token(context)?.value());
    replace_process(&mut command).map_err(|error| {
        let status = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN };
        CliError::new(status, format!("cannot run {}: {error}", program.display()))
    })
}

#[cfg(unix)]
fn replace_process(command: &mut Command) -> io::Result<ExitCode> {
    use std::os::unix::process::CommandExt;
    Err(command.exec())
}

#[cfg(not(unix))]
fn replace_process(command: &mut Command) -> io::Result<ExitCode> {
    // This system has no exec: the command runs as a child process, and its exit status is passed on.
    let code = command.status()?.code().unwrap_or(crate::exit::EXIT_INTERNAL.into());
    std::process::exit(code)
}

/// The environment variables that hold secrets or may hold one.
pub fn secret_variables() -> impl Iterator<Item = &'static str> {
    let secret = |setting: &&Setting| setting.value_type.is_secret();
    SETTINGS.iter().filter(secret).flat_map(|setting| setting.environment.iter().copied())
}

/// `amp-token invalidate`: removes the stored token; with `--stdin`, only if it is the one on standard input.
pub fn invalidate(context: &Context, arguments: &ArgMatches) -> CliResult<()> {
    let rejected = if arguments.get_flag("stdin") { Some(token_from_stdin()?) } else { None };
    let provider = TokenProvider::new(Arc::new(ProviderConfig::new(&context.config)?))?;
    let result = match provider.load_from_store() {
        None => "no token is stored",
        Some(token) if rejected.is_some_and(|rejected| rejected.trim() != token.value()) => {
            "kept: the stored token is a different one"
        }
        Some(token) => {
            provider.remove_from_store(&token);
            "the stored token is removed"
        }
    };
    output::answer(&format!("{result}\n"))
}

fn token_from_stdin() -> CliResult<Zeroizing<String>> {
    // The longest token that the library accepts, and white space around it.
    const MAX_BYTES: usize = amp_token::oauth::client_credentials::MAX_TOKEN_BYTES + 1024;
    let failed = |what: String| CliError::from(Error::new(Kind::Io, format!("standard input {what}")));
    let mut text = Zeroizing::new(String::with_capacity(MAX_BYTES));
    io::stdin()
        .lock()
        .take(MAX_BYTES as u64)
        .read_to_string(&mut text)
        .map_err(|error| failed(format!("cannot be read as a token: {error}")))?;
    if text.trim().is_empty() { Err(failed("contains no token".to_owned())) } else { Ok(text) }
}

/// Gets a token from the store, otherwise from the server.
fn get_token(mut context: Context) -> CliResult<Token> {
    // The end of this process would interrupt a thread in the middle of its request.
    context.config.set("background_refresh", Some("false"))?;
    Ok(provider::get_token(&context.config)?)
}
