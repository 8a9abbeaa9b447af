//! `amp-token`: Amplience access tokens for the shell.
//!
//! Guarantees:
//!
//! - **Standard output contains the result and nothing else**, written at once. If it is incomplete, the exit
//!   status is not 0. Errors and warnings go to standard error, as `amp-token: operation, object, cause; hint`.
//! - **No secret is taken from an argument or shown.** All users of the machine can read arguments. Only the
//!   commands whose purpose that is print a token, from a buffer that is wiped afterwards.
//! - **The exit status is that of the class of failure**: see [`exit`].
//! - **It starts fast.** A command sets up only what it needs. In particular, it sets up no TLS if the store
//!   has a valid token.
//!
//! | module | contents |
//! | --- | --- |
//! | `cli` | all commands and options, and their help |
//! | `context` | the settings of one run |
//! | `commands::token` | `get`, `header`, `curl-config`, `exec`, `invalidate` |
//! | `commands::api` | `request`, `graphql`, `hubs`, `pat` |
//! | `commands::account` | `organizations`, `permissions` |
//! | `commands::{profiles, status, config, doctor}` | the commands of these names |
//! | `commands::format` | the forms in which `get` prints a token |
//! | `commands::report` | the lines of `doctor` |
//! | `commands::emulator` | `demo` and `emulator` (a cargo feature) |
//! | `commands::man` | `man` and `completions` |
//! | `serve` | `serve` and `exec --serve` (a cargo feature) |
//! | `exit`, `output` | errors and exit statuses; writing to standard output |
//! | `startup` | how this process was started, before the standard library changes it |
//! | `stdout` | whether standard output can be written, before anything is requested |
//! | `worker` | the process that does the work, so that this one can end |
//! | `terminal` | text without control characters |

#![deny(unsafe_code)]

mod cli;
mod commands;
mod context;
mod exit;
mod output;
#[cfg(all(unix, feature = "serve"))]
mod serve;
#[cfg(unix)]
mod startup;
mod stdout;
mod terminal;
mod worker;

use clap::ArgMatches;
use clap::error::ErrorKind;
use commands::{account, api, config, doctor, man, profiles, status, token};
use context::Context;
use exit::{CliError, CliResult};
use std::process::ExitCode;
use worker::Outcome;

fn main() -> ExitCode {
    #[cfg(unix)]
    startup::end_with_status_on_abort();
    run().unwrap_or_else(|error| error.report())
}

fn run() -> CliResult<ExitCode> {
    let first = std::env::args_os().nth(1);
    let matches = match cli::command_for(first.as_deref()).try_get_matches() {
        Ok(matches) => matches,
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                output::answer(&error.render().to_string())?;
                return Ok(ExitCode::SUCCESS);
            }
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                let _ = error.print();
                return Ok(ExitCode::from(exit::USAGE));
            }
            _ => return Err(cli::usage_error(&error)),
        },
    };
    // Until the process ends, whichever it is.
    let matches: &'static ArgMatches = Box::leak(Box::new(matches));
    let Some((name, arguments)) = matches.subcommand() else { return Err(CliError::usage("a command is required")) };
    // The output of these two is that of another program.
    if !["exec", "emulator"].contains(&name) {
        output::check()?;
    }
    let no_settings = || context::reject_settings(matches, name);
    match name {
        #[cfg(feature = "emulator")]
        "demo" => no_settings().and_then(|()| commands::emulator::demo()),
        #[cfg(feature = "emulator")]
        "emulator" => return no_settings().and_then(|()| commands::emulator::serve(arguments)),
        "completions" => no_settings().and_then(|()| man::completions(arguments)),
        "man" => no_settings().and_then(|()| man::page()),
        "generate" => no_settings().and_then(|()| man::generate(arguments)),
        // Servers: they stay, and signals are for them.
        #[cfg(all(unix, feature = "serve"))]
        "serve" => return serve::run(&Context::new(matches, arguments)?, arguments),
        #[cfg(all(unix, feature = "serve"))]
        "exec" if arguments.get_flag("serve") => {
            return serve::exec::run(&Context::new(matches, arguments)?, arguments);
        }
        // All others read files, which may be on a disk that does not respond.
        _ => {
            return worker::run(
                || run_with_settings(name, matches, arguments),
                move |outcome| match outcome {
                    Outcome::Exit(code) => Ok(code),
                    Outcome::Exec(token) => token::exec_with(&token, arguments),
                },
            );
        }
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Runs a command that has settings.
fn run_with_settings(name: &str, matches: &ArgMatches, arguments: &ArgMatches) -> CliResult<Outcome> {
    let context = || Context::new(matches, arguments);
    let code = match name {
        "exec" => return token::exec(context()?),
        "get" => token::get(context()?, arguments).map(|()| ExitCode::SUCCESS),
        "header" => token::header(context()?).map(|()| ExitCode::SUCCESS),
        "curl-config" => token::curl_config(context()?).map(|()| ExitCode::SUCCESS),
        "invalidate" => token::invalidate(&context()?, arguments).map(|()| ExitCode::SUCCESS),
        "status" => status::run(&context()?, arguments).map(|()| ExitCode::SUCCESS),
        "config" => config::run(&context()?, arguments).map(|()| ExitCode::SUCCESS),
        "request" => api::request(&context()?, arguments),
        "graphql" => api::graphql(&context()?, arguments),
        "hubs" => api::hubs(&context()?, arguments),
        "organizations" => account::organizations(&context()?, arguments),
        "permissions" => account::permissions(&context()?, arguments),
        "profiles" => {
            profiles::run(&Context::with_any_profile(matches, arguments)?, arguments).map(|()| ExitCode::SUCCESS)
        }
        "doctor" => doctor::run(&Context::with_any_profile(matches, arguments)?, arguments),
        _ => match arguments.subcommand() {
            Some((_, arguments)) => api::create_personal_access_token(&Context::new(matches, arguments)?, arguments),
            None => Err(CliError::usage("pat requires a command: create")),
        },
    }?;
    Ok(Outcome::Exit(code))
}
