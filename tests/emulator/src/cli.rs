//! The command line of `amp-emulator`.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus};

use lexopt::{Arg, Parser, ValueExt as _};

use crate::{Builder, Emulator};

const HELP: &str = "\
A local server that stands in for Amplience, for demos and tests.

Usage: amp-emulator [options]

  --port N                   listen on this port of the loopback interface (default 0: any free port)
  --tls                      serve https, with a certificate signed by the emulator's own CA
  --mutual-tls               serve https and require a client certificate signed by the same CA
  --ca-file PATH             write the CA certificate to PATH (default: a temporary file)
  --expires-in SECONDS       lifetime of access tokens (default 300)
  --client-id ID             client ID to accept (default: random)
  --client-secret-file PATH  file that holds the client secret to accept (default: random)
  --help                     print this

It first prints the settings of a client, one NAME=VALUE per line: url, auth_url, api_url, client_id,
client_secret; with --tls also ca_file, with --mutual-tls also client_certificate and client_key; then the
hub_id and repository_id of a hub and of a content repository in it.
It serves until it receives SIGTERM or SIGINT.
";

/// Runs the `amp-emulator` command with the arguments of this process, until it receives SIGTERM or SIGINT.
#[must_use]
pub fn run_from_args() -> ExitCode {
    run(std::env::args_os()).map_or_else(
        |error| {
            eprintln!("amp-emulator: {error}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<(), Box<dyn std::error::Error>> {
    let Some(builder) = parse(Parser::from_iter(arguments))? else {
        print!("{HELP}");
        return Ok(());
    };
    serve(builder).map_err(Into::into)
}

/// Starts an emulator, prints the settings of a client (`name=value`, one per line), and serves until the
/// process receives SIGTERM or SIGINT.
///
/// # Errors
/// If the emulator cannot start or standard output cannot be written.
pub fn serve(builder: Builder) -> io::Result<()> {
    // Before anything is printed: a program that has read the lines may send the signal immediately.
    let wait_for_signal = end_signal()?;
    let emulator = builder.start()?;
    print_settings(&emulator)?;
    wait_for_signal();
    Ok(())
}

/// Starts an emulator, and runs a command while it serves. `prepare` adds the settings of a client to the command.
/// Signals that ask this process to end are passed on, so that the command decides. Returns the status of the command.
///
/// # Errors
/// The outer one, if the emulator cannot start; the inner one, if the command cannot.
pub fn run_command(builder: Builder, prepare: impl FnOnce(&Emulator) -> Command) -> io::Result<io::Result<ExitStatus>> {
    let emulator = builder.start()?;
    let mut command = prepare(&emulator);
    #[cfg(unix)]
    let mut signals = signals::Forwarded::new()?;
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Ok(Err(error)),
    };
    #[cfg(unix)]
    signals.forward_to(&child);
    Ok(child.wait())
}

/// Returns `None` for `--help`.
fn parse(mut parser: Parser) -> Result<Option<Builder>, Box<dyn std::error::Error>> {
    let mut builder = Emulator::builder();
    let (mut client_id, mut client_secret) = (None, None);
    while let Some(argument) = parser.next()? {
        builder = match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            Arg::Long("port") => builder.port(parser.value()?.parse()?),
            Arg::Long("tls") => builder.tls(true),
            Arg::Long("mutual-tls") => builder.mutual_tls(true),
            Arg::Long("ca-file") => builder.ca_file(PathBuf::from(parser.value()?)),
            Arg::Long("expires-in") => builder.expires_in(parser.value()?.parse()?),
            Arg::Long("client-id") => {
                client_id = Some(parser.value()?.string()?);
                builder
            }
            Arg::Long("client-secret-file") => {
                let path = PathBuf::from(parser.value()?);
                let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
                client_secret = Some(text.trim_end_matches(['\r', '\n']).to_owned());
                builder
            }
            other => return Err(other.unexpected().into()),
        };
    }
    builder = client_id.into_iter().fold(builder, Builder::client_id);
    Ok(Some(client_secret.into_iter().fold(builder, Builder::client_secret)))
}

fn print_settings(emulator: &Emulator) -> io::Result<()> {
    let mut lines = format!("url={}\n", emulator.url());
    for (name, value) in emulator.settings() {
        lines += &format!("{name}={value}\n");
    }
    lines += &format!("hub_id={}\nrepository_id={}\n", Emulator::hub_id(), Emulator::repository_id());
    // In one write: a program that reads only the lines that it needs may close its end of the pipe after that.
    let mut output = io::stdout().lock();
    output.write_all(lines.as_bytes())?;
    output.flush()
}

/// Installs the handlers of SIGTERM and SIGINT, and returns a function that waits for either.
#[cfg(unix)]
fn end_signal() -> io::Result<impl FnOnce()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    Ok(move || {
        signals.forever().next();
    })
}

#[cfg(not(unix))]
fn end_signal() -> io::Result<impl FnOnce()> {
    Ok(|| {
        loop {
            std::thread::park();
        }
    })
}

/// Signals for a child process.
#[cfg(unix)]
mod signals {
    use rustix::process::{Pid, Signal, kill_process};
    use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
    use signal_hook::iterator::{Handle, Signals};
    use std::io;
    use std::process::Child;
    use std::thread::JoinHandle;

    /// Signals that this process has received for its child. They are kept until there is one.
    pub struct Forwarded {
        signals: Option<Signals>,
        handle: Handle,
        thread: Option<JoinHandle<()>>,
    }

    impl Forwarded {
        pub fn new() -> io::Result<Self> {
            let signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM])?;
            Ok(Forwarded { handle: signals.handle(), signals: Some(signals), thread: None })
        }

        pub fn forward_to(&mut self, child: &Child) {
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            let (Some(mut signals), Some(pid)) = (self.signals.take(), pid) else { return };
            self.thread = Some(std::thread::spawn(move || {
                for number in signals.forever() {
                    // A terminal sends these two to the child, too, which is in the same group of processes.
                    let signal = match number {
                        SIGHUP => Signal::HUP,
                        SIGTERM => Signal::TERM,
                        _ => continue,
                    };
                    let _ = kill_process(pid, signal);
                }
            }));
        }
    }

    impl Drop for Forwarded {
        fn drop(&mut self) {
            self.handle.close();
            self.thread.take().map(JoinHandle::join);
        }
    }
}
