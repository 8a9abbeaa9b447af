//! The commands that print or pass on a token, and the one that removes it from the store.

use super::format;
use crate::cli;
use crate::context::Context;
use crate::exit::{self, CliError, CliResult};
use crate::output;
use crate::worker::Outcome;
use amp_token::config::Options;
use amp_token::config::settings::{SETTINGS, Setting};
use amp_token::error::{Error, Kind};
use amp_token::oauth::client_credentials::is_valid_bearer_token;
use amp_token::oauth::retry::Deadline;
use amp_token::token::Token;
use amp_token::token::provider::{self, ProviderConfig, TokenProvider};
use clap::ArgMatches;
use std::ffi::OsString;
use std::io::{self, Read};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// The pause between two attempts to remove a token whose lock another process holds.
const LOCK_POLL: Duration = Duration::from_millis(25);

/// `amp-token get`
pub fn get(context: Context, arguments: &ArgMatches) -> CliResult<()> {
    let format = arguments.get_one::<String>("format").map_or("plain", String::as_str);
    output::secret(&[&format::token(format, &get_token(context)?)?, "\n"])
}

/// `amp-token header`
pub fn header(context: Context) -> CliResult<()> {
    output::secret(&["Authorization: ", get_token(context)?.authorization(), "\n"])
}

/// `amp-token curl-config`
pub fn curl_config(context: Context) -> CliResult<()> {
    output::secret(&[&format::token("curl", &get_token(context)?)?, "\n"])
}

/// `amp-token exec`: gets a token for the command.
pub fn exec(context: Context) -> CliResult<Outcome> {
    Ok(Outcome::Exec(Zeroizing::new(get_token(context)?.value().to_owned())))
}

/// Replaces this process with the command, so that signals reach it and its exit status is seen.
pub fn exec_with(token: &str, arguments: &ArgMatches) -> CliResult<ExitCode> {
    let mut command_line = arguments.get_many::<OsString>("command").into_iter().flatten();
    let Some(program) = command_line.next() else { return Err(CliError::usage("exec requires a command")) };
    let mut command = Command::new(program);
    command.args(command_line);
    if arguments.get_flag("clean") {
        for variable in secret_variables() {
            command.env_remove(variable);
        }
    }
    command.env(cli::TOKEN_VARIABLE, token);
    replace_process(&mut command).map_err(|error| exit::cannot_run(program, &error))
}

#[cfg(unix)]
fn replace_process(command: &mut Command) -> io::Result<ExitCode> {
    use std::os::unix::process::CommandExt;
    crate::startup::keep_ignored_sigpipe(command);
    Err(command.exec())
}

#[cfg(not(unix))]
fn replace_process(command: &mut Command) -> io::Result<ExitCode> {
    // This system has no exec: the command runs as a child process, and its exit status is passed on.
    let code = command.status()?.code().unwrap_or(crate::exit::EXIT_INTERNAL.into());
    std::process::exit(code)
}

/// The settings that lead to credentials.
const CREDENTIAL_FILES: [&str; 7] = [
    "client_secret_file",
    "personal_access_token_file",
    "credential_command",
    "credentials_dir",
    "profile",
    "config_file",
    "client_key",
];

/// The environment variables that hold secrets, may hold one, or lead to one.
pub fn secret_variables() -> impl Iterator<Item = &'static str> {
    // A path of a secret leads to it.
    let secret = |setting: &&Setting| setting.value_type.is_secret() || CREDENTIAL_FILES.contains(&setting.name);
    SETTINGS.iter().filter(secret).flat_map(|setting| setting.environment.iter().copied())
}

/// `amp-token invalidate`: removes the stored token; with `--stdin`, only if it is the one on standard input.
///
/// The store reports no result of a removal, so the entry is read again afterwards. While another process holds the
/// lock, that process is about to replace the token, and this one waits for it until `timeout_ms`.
pub fn invalidate(context: &Context, arguments: &ArgMatches) -> CliResult<()> {
    let rejected = if arguments.get_flag("stdin") { Some(token_from_stdin()?) } else { None };
    let (config, problems) = context.with_store_problems()?;
    let provider = TokenProvider::new(Arc::new(ProviderConfig::new(&config)?))?;
    // The entry is found by the secret.
    provider.find_credentials()?;
    let Some(place) = provider.store_location() else {
        problems.first().iter().for_each(|problem| context.log().warning(|| format!("store: {problem}")));
        return output::answer("no token is stored\n");
    };
    let Options { clock, timeout, .. } = config.options()?;
    let failed = |cause: &str| {
        let message = format!("cannot remove the stored token from {place}: {cause}");
        Err(CliError::from(Error::new(Kind::Io, message).with_hint("the next command may use it again")))
    };
    let Some(token) = provider.load_from_store() else {
        return problems.first().map_or_else(|| output::answer("no token is stored\n"), failed);
    };
    if rejected.is_some_and(|rejected| *rejected != *token.value()) {
        return output::answer("kept: the stored token is a different one\n");
    }
    let deadline = Deadline::after(&clock, timeout);
    loop {
        provider.remove_from_store(&token);
        let is_there = provider.load_from_store().is_some_and(|stored| stored.value() == token.value());
        match problems.first() {
            Some(problem) => return failed(problem),
            None if !is_there => return output::answer("the stored token is removed\n"),
            None if deadline.remaining(&clock).is_zero() => return failed("another process holds its lock"),
            None => clock.sleep(LOCK_POLL.min(deadline.remaining(&clock))),
        }
    }
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
    // The output of `amp-token header` contains the token, too.
    let scheme = |text: &str| Some(text.len() - text.trim_start().strip_prefix("Bearer ")?.len());
    let header = text.trim_start().strip_prefix("Authorization:").unwrap_or(&text);
    let token = &header[scheme(header).unwrap_or(0)..];
    match token.trim() {
        "" => Err(failed("contains no token".to_owned())),
        token if is_valid_bearer_token(token) => Ok(Zeroizing::new(token.to_owned())),
        _ => Err(failed("contains no token, but another text".to_owned())),
    }
}

/// Gets a token from the store, otherwise from the server.
fn get_token(mut context: Context) -> CliResult<Token> {
    // The end of this process would interrupt a thread in the middle of its request.
    context.config.set("background_refresh", Some("false"))?;
    let clock = context.config.clock.clone();
    let start = clock.now();
    let token = provider::get_token(&context.config)?;
    context.log().info(|| match token.expires_in(clock.now()) {
        _ if token.is_permanent() => "it is a personal access token, which does not expire".to_owned(),
        left if token.issued().wall < start.wall => format!("the token is from the store, and valid for {left} s"),
        left => format!("the token was requested just now, and is valid for {left} s"),
    });
    Ok(token)
}
