//! `amp-token exec --serve`: a server for one command.
//!
//! The command gets the address of the server and a ticket where its settings have a URL and a client secret, and no
//! credentials. So it always has a valid token, however long it runs, and has nothing that is worth stealing when it ends.
//! It is a child of this process, which passes signals on and ends with its exit status.

use super::listener::{self, Address, Connections, Listening};
use super::ticket::Ticket;
use super::{CLIENT_ID, Server, ServerOptions, runtime};
use crate::cli;
use crate::commands::token::secret_variables;
use crate::context::Context;
use crate::exit::{self, CliError, CliResult, EXIT_IO};
use amp_token::log::Level;
use clap::ArgMatches;
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The signals that are passed on, and whether a terminal sends them to the command itself as well.
const SIGNALS: [(Signal, bool); 7] = [
    (Signal::TERM, false),
    (Signal::HUP, false),
    (Signal::USR1, false),
    (Signal::USR2, false),
    (Signal::CONT, false),
    (Signal::INT, true),
    (Signal::QUIT, true),
];

/// Runs the command with a server.
pub fn run(context: &Context, arguments: &ArgMatches) -> CliResult<ExitCode> {
    let mut command_line = arguments.get_many::<OsString>("command").into_iter().flatten();
    let Some(program) = command_line.next() else { return Err(CliError::usage("exec requires a command")) };
    let listening = Listening::bind(&Address::Tcp((Ipv4Addr::LOCALHOST, 0).into()), None)?;
    let base = listening.base().unwrap_or_default();
    let ticket = Ticket::random()?;
    let mut command = Command::new(program);
    command.args(command_line);
    let rewrite_links = arguments.get_flag("rewrite-links");
    set_variables(&mut command, &base, ticket.expose(), rewrite_links);
    crate::startup::keep_ignored_sigpipe(&mut command);
    let options = ServerOptions { ticket, rewrite_links, is_tls: false, hosts: Vec::new() };
    let server = Server::new(context, options)?;
    let runtime = runtime()?;
    let outcome = runtime.block_on(serve(server, listening, command));
    runtime.shutdown_background();
    match outcome? {
        Ok(status) => Ok(exit::code_of(status)),
        Err(error) => Err(exit::cannot_run(program, &error)),
    }
}

/// Sets what tools for Amplience read, and removes the credentials.
fn set_variables(command: &mut Command, base: &str, ticket: &str, with_api: bool) {
    for variable in secret_variables().chain([cli::TOKEN_VARIABLE]) {
        command.env_remove(variable);
    }
    command
        .env("AUTH_URL", base)
        .env("AMPLIENCE_AUTH_URL", format!("{base}/oauth/token"))
        .env("AMPLIENCE_CLIENT_ID", CLIENT_ID)
        .env("AMPLIENCE_CLIENT_SECRET", ticket);
    if with_api {
        let api = format!("{base}/v2/content");
        for variable in ["API_URL", "AMPLIENCE_API_URL", "AMPLIENCE_CONTENT_API_URL"] {
            command.env(variable, &api);
        }
    }
    // Many HTTP clients would ask a proxy for this machine.
    let has_proxy =
        ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"].iter().any(|name| std::env::var_os(name).is_some());
    for variable in ["no_proxy", "NO_PROXY"].into_iter().filter(|_| has_proxy) {
        let mut list = std::env::var_os(variable).unwrap_or_default();
        list.push(if list.is_empty() { "127.0.0.1" } else { ",127.0.0.1" });
        command.env(variable, list);
    }
}

/// Serves until the command has ended. The inner error is that of starting it.
async fn serve(
    server: Arc<Server>,
    listening: Listening,
    command: Command,
) -> CliResult<std::io::Result<std::process::ExitStatus>> {
    let failed = |error: std::io::Error| CliError::new(EXIT_IO, format!("cannot start: {error}"));
    let mut signals = Vec::new();
    for (number, is_of_terminal) in SIGNALS {
        if crate::startup::is_ignored(number.as_raw()) {
            continue;
        }
        signals.push((number, is_of_terminal, signal(SignalKind::from_raw(number.as_raw())).map_err(failed)?));
    }
    server.tokens.attempt().await?;
    let (_end, ends) = watch::channel(false);
    let (limit, _) = listener::connection_limit(false);
    let serving = listening.serve(Arc::clone(&server), Arc::new(Connections::new(limit)), ends);
    tokio::spawn({
        let server = Arc::clone(&server);
        async move {
            if let Err(error) = serving.await {
                server.report(Level::Error, &format!("the socket cannot be used: {error}"));
            }
        }
    });
    tokio::spawn(Arc::clone(&server.tokens).keep_renewed(false));
    let mut child = match tokio::process::Command::from(command).spawn() {
        Ok(child) => child,
        Err(error) => return Ok(Err(error)),
    };
    loop {
        let received = std::future::poll_fn(|context| {
            let ready = signals.iter_mut().find_map(|(number, is_of_terminal, signal)| {
                signal.poll_recv(context).is_ready().then_some((*number, *is_of_terminal))
            });
            ready.map_or(std::task::Poll::Pending, std::task::Poll::Ready)
        });
        tokio::select! {
            status = child.wait() => return Ok(status),
            (number, is_of_terminal) = received => {
                let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
                if let Some(pid) = pid.filter(|_| !(is_of_terminal && is_in_foreground())) {
                    let _ = kill_process(pid, number);
                }
            }
        }
    }
}

/// Whether the terminal sends its signals to this process, and so to the command as well.
fn is_in_foreground() -> bool {
    rustix::termios::tcgetpgrp(std::io::stdin()).is_ok_and(|group| group == rustix::process::getpgrp())
}
