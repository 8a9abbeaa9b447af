//! What happens after each renewal: a command runs, or a process gets a signal.
//!
//! The command does not get the token, neither as an argument nor in its environment, where other processes could read
//! it; it reads the token file. It runs in `sh`, without the credentials of this process. One runs at a time: if a token
//! is renewed meanwhile, it runs once more afterwards.

use crate::commands::token::secret_variables;
use crate::exit::{CliError, CliResult, EXIT_IO};
use rustix::process::{Pid, Rlimit, Signal};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::time::timeout;

/// How long a command may run. A token lives for five minutes.
const LIMIT: Duration = Duration::from_secs(60);

/// The signals that can be sent. They are those that a program may use as a request to read something again.
const SIGNALS: [(&str, Signal); 4] =
    [("HUP", Signal::HUP), ("USR1", Signal::USR1), ("USR2", Signal::USR2), ("CONT", Signal::CONT)];

/// What happens after a renewal.
pub enum Hook {
    Run { command: OsString, files: Option<Rlimit> },
    Send(Target, Signal),
}

/// The process that gets a signal.
pub struct Target {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    process: std::os::fd::OwnedFd,
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    process: Pid,
}

impl Target {
    /// A process that runs now. Where the system has such descriptors, a later process with the same number is another
    /// one.
    pub fn new(pid: i32) -> CliResult<Self> {
        let failed =
            |error: rustix::io::Errno| CliError::new(EXIT_IO, format!("cannot send signals to process {pid}: {error}"));
        let number = Pid::from_raw(pid).filter(|_| pid > 0);
        let number = number.ok_or_else(|| CliError::usage("--pid needs the number of a process"))?;
        rustix::process::test_kill_process(number).map_err(failed)?;
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let process = rustix::process::pidfd_open(number, rustix::process::PidfdFlags::empty()).map_err(failed)?;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let process = number;
        Ok(Target { process })
    }

    fn send(&self, signal: Signal) -> io::Result<()> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        rustix::process::pidfd_send_signal(&self.process, signal)?;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        rustix::process::kill_process(self.process, signal)?;
        Ok(())
    }
}

/// A signal by its name.
pub fn signal(name: &str) -> CliResult<Signal> {
    let upper = name.to_ascii_uppercase();
    let found = SIGNALS.iter().find(|(known, _)| *known == upper.strip_prefix("SIG").unwrap_or(&upper));
    let names = || SIGNALS.map(|(name, _)| name).join(", ");
    found.map(|(_, signal)| *signal).ok_or_else(|| CliError::usage(format!("--signal takes one of {}", names())))
}

impl Hook {
    /// Runs it; the error is a message.
    pub async fn run(&self) -> Result<(), String> {
        match self {
            Hook::Send(target, signal) => {
                target.send(*signal).map_err(|error| format!("the signal was not sent: {error}"))
            }
            Hook::Run { command, files } => {
                let mut child = shell(command, files.as_ref())
                    .and_then(|command| tokio::process::Command::from(command).kill_on_drop(true).spawn())
                    .map_err(|error| format!("the command of --on-renewal cannot be run: {error}"))?;
                match timeout(LIMIT, child.wait()).await {
                    Ok(Ok(status)) if status.success() => Ok(()),
                    Ok(Ok(status)) => Err(format!("the command of --on-renewal failed: {status}")),
                    Ok(Err(error)) => Err(format!("the command of --on-renewal was lost: {error}")),
                    Err(_) => Err(format!(
                        "the command of --on-renewal was ended: it ran for more than {} s",
                        LIMIT.as_secs()
                    )),
                }
            }
        }
    }
}

fn shell(line: &OsStr, files: Option<&Rlimit>) -> io::Result<Command> {
    let mut command = Command::new("sh");
    command.arg("-c").arg(line).stdin(Stdio::null());
    // The standard output of this process is what clients read.
    command.stdout(io::stderr().as_fd().try_clone_to_owned()?);
    for variable in secret_variables() {
        command.env_remove(variable);
    }
    if let Some(files) = files {
        restore_limit(&mut command, *files);
    }
    Ok(command)
}

/// Gives a child the limit of descriptors that this process had: a program that uses `select` relies on it.
#[allow(unsafe_code, reason = "a function that runs between fork and exec")]
fn restore_limit(command: &mut Command, files: Rlimit) {
    use std::os::unix::process::CommandExt;
    let restore = move || Ok(rustix::process::setrlimit(rustix::process::Resource::Nofile, files)?);
    // SAFETY: the function makes one system call, and allocates nothing.
    unsafe { command.pre_exec(restore) };
}
