//! `amp-token`: a valid Amplience access token for the shell, and a look at how it comes about.
//!
//! What it promises:
//!
//! - **Standard output holds the answer and nothing else**, in one piece, or there is an exit status
//!   other than 0. What goes wrong is told on standard error, as `amp-token: what, and what to do`.
//! - **No secret is taken from an argument or shown.** Arguments can be read by every user of the
//!   machine. A token is printed only by the commands that are asked for one, from a buffer that is
//!   wiped.
//! - **The exit status tells the class of a error**: see [`io_error`].
//! - **It starts fast.** Nothing is set up that a command does not need; above all no TLS where the
//!   token is already in the store.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `arguments` | every command, option and text of help |
//! | `session` | the settings of one run |
//! | `tokens` | `get`, `header`, `curl-config`, `exec`, `invalidate` |
//! | `requests` | `with_request_id`, `graphql`, `hubs`, `pat` |
//! | `status`, `settings`, `doctor` | what is, and why |
//! | `emulator` | `demo` and `emulator` (a cargo feature) |
//! | `generate` | the manual, and completions for shells |
//! | `io_error`, `output` | how a run ends, and how its answer leaves |

#![forbid(unsafe_code)]

mod api_commands;
mod cli;
mod context;
mod doctor;
#[cfg(feature = "emulator")]
mod emulator;
mod exit;
mod man;
mod output;
mod settings;
mod status;
mod token_commands;

use clap::error::ErrorKind;
use context::Context;
use exit::{CliError, CliResult};
use std::process::ExitCode;

fn main() -> ExitCode {
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
    let Some((name, arguments)) = matches.subcommand() else { return Err(CliError::usage("a command is required")) };
    let context = || Context::new(&matches, arguments);
    let no_settings = || context::reject_settings(&matches, name);
    match name {
        "get" => token_commands::get(context()?),
        "header" => token_commands::header(context()?),
        "curl-config" => token_commands::curl_config(context()?),
        "exec" => return token_commands::exec(context()?, arguments),
        "invalidate" => token_commands::invalidate(&context()?, arguments),
        "request" => return api_commands::request(&context()?, arguments),
        "graphql" => return api_commands::graphql(&context()?, arguments),
        "hubs" => return api_commands::hubs(&context()?, arguments),
        "pat" => match arguments.subcommand() {
            Some((_, arguments)) => {
                return api_commands::create_personal_access_token(&Context::new(&matches, arguments)?, arguments);
            }
            None => Err(CliError::usage("pat requires a command: create")),
        },
        "status" => status::run(&context()?, arguments),
        "config" => settings::run(&context()?, arguments),
        "doctor" => return doctor::run(&context()?),
        #[cfg(feature = "emulator")]
        "demo" => no_settings().and_then(|()| emulator::demo()),
        #[cfg(feature = "emulator")]
        "emulator" => no_settings().and_then(|()| emulator::serve(arguments)),
        "completions" => no_settings().and_then(|()| man::completions(arguments)),
        "man" => no_settings().and_then(|()| man::page()),
        _ => no_settings().and_then(|()| man::generate(arguments)),
    }?;
    Ok(ExitCode::SUCCESS)
}
