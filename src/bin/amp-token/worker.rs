//! The process that does the work, so that this one can end.
//!
//! A thread that waits for a disk that does not respond cannot be ended by anything, and a process is not gone until
//! its last thread is: a shell, `make` or a reader of a pipe that waits for the process would wait for the disk.
//! So the process that the user has started has no other thread. As long as it needs none, because the token is in the
//! environment or in memory, it does the work itself. When the library is about to start the first one, this process forks
//! a worker, which goes on with the work, prints what the worker sends through a pipe, and ends when the worker has sent
//! its exit status.
//!
//! The worker has no other way to the output: its standard output and error are `/dev/null`, and stay open as long as
//! a thread of it hangs. By hand, because a fork, the only way to a second process that need not start from scratch,
//! is unsafe. It is safe here: there is only one thread yet.
//!
//! On macOS, this process does the work itself. The certificates come from frameworks of the system there, which may crash
//! in a forked child that has not executed another program, even if its parent had one thread (fork(2) of macOS).

#![cfg_attr(unix, allow(unsafe_code, reason = "fork"))]

use crate::exit::CliResult;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::OnceLock;

/// How the work ended.
pub enum Outcome {
    /// With an exit status.
    Exit(ExitCode),
    /// With a token for another program, which takes the place of this process.
    #[cfg_attr(not(unix), allow(dead_code, reason = "the work is done in this process"))]
    Exec(zeroize::Zeroizing<String>),
}

/// Where a line or a result is to be written.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stream {
    Output = b'o',
    Error = b'e',
    /// To standard error, if the output cannot be written after all.
    IfLost = b'l',
}

static IS_TERMINAL: OnceLock<bool> = OnceLock::new();

/// Whether the standard output of the process that the user has started is a terminal.
pub fn stdout_is_terminal() -> bool {
    *IS_TERMINAL.get_or_init(|| io::stdout().is_terminal())
}

/// Does the work, and `finish` with its outcome, always in the process that the user has started.
#[cfg(any(not(unix), target_vendor = "apple"))]
pub fn run(
    work: impl FnOnce() -> CliResult<Outcome>,
    finish: impl Fn(Outcome) -> CliResult<ExitCode>,
) -> CliResult<ExitCode> {
    finish(work()?)
}

/// In a worker, sends what is to be written to the process that writes it. Elsewhere returns `None`.
#[cfg(any(not(unix), target_vendor = "apple"))]
pub fn send(_: Stream, _: &[u8]) -> Option<io::Result<()>> {
    None
}

#[cfg(all(unix, not(target_vendor = "apple")))]
pub use with_fork::{run, send};

#[cfg(all(unix, not(target_vendor = "apple")))]
mod with_fork {
    use super::{CliResult, Outcome, Stream, stdout_is_terminal};
    use crate::exit::{CliError, EXIT_INTERNAL, EXIT_IO, eprintln_prefixed};
    use crate::output;
    use crate::startup::{is_ignored, memory_advice};
    use amp_token::sys::fork::fork_to_continue;
    use amp_token::sys::threads::call_before_threads;
    use std::fs::File;
    use std::io::{self, PipeReader, PipeWriter, Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{ExitCode, ExitStatus};
    use std::sync::{Mutex, OnceLock, PoisonError};
    use std::time::Duration;
    use zeroize::Zeroizing;

    /// The last frames of a worker: its exit status, or the token for a program.
    const EXIT: u8 = b'x';
    const EXEC: u8 = b't';

    /// The largest part of a frame. A longer output is sent in several.
    const LONGEST: usize = 64 * 1024;

    /// How long this process waits for a worker that has sent its exit status, so that it does not become a zombie. One
    /// that takes longer hangs.
    const GRACE: Duration = Duration::from_millis(100);

    /// The pipe to the process that prints; set in a worker.
    static PARENT: OnceLock<Mutex<PipeWriter>> = OnceLock::new();

    /// What is done with the outcome.
    type Finish = dyn Fn(Outcome) -> CliResult<ExitCode> + Send + Sync;

    static FINISH: OnceLock<Box<Finish>> = OnceLock::new();

    /// Does the work, and `finish` with its outcome, always in the process that the user has started.
    pub fn run(
        work: impl FnOnce() -> CliResult<Outcome>,
        finish: impl Fn(Outcome) -> CliResult<ExitCode> + Send + Sync + 'static,
    ) -> CliResult<ExitCode> {
        stdout_is_terminal();
        let finish = FINISH.get_or_init(|| Box::new(finish));
        call_before_threads(fork_worker);
        std::panic::set_hook(Box::new(|panic| eprintln_prefixed(&panic.to_string())));
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            work().unwrap_or_else(|error| Outcome::Exit(error.report()))
        }));
        let outcome = outcome.unwrap_or(Outcome::Exit(ExitCode::from(EXIT_INTERNAL)));
        match PARENT.get() {
            None => finish(outcome),
            Some(parent) => end_worker(parent, outcome),
        }
    }

    /// Forks a worker, in which this function returns. The other process prints what the worker sends, and ends.
    fn fork_worker() {
        if PARENT.get().is_some() {
            return;
        }
        let parent = std::process::id();
        let failed = |error: io::Error| CliError::new(EXIT_IO, format!("cannot start a process: {error}"));
        let forked = io::pipe().map_err(failed).and_then(|(reader, writer)| {
            // SAFETY: this process has no other thread, because this function is called before the first one starts. The
            // parent only prints.
            match unsafe { fork_to_continue() } {
                -1 => Err(failed(io::Error::last_os_error())),
                0 => {
                    drop(reader);
                    PARENT.get_or_init(|| Mutex::new(writer));
                    Ok(None)
                }
                pid => {
                    drop(writer);
                    print(reader, pid).map(Some)
                }
            }
        });
        let finished = match forked {
            Ok(None) => {
                detach(parent);
                end_with_programs();
                return;
            }
            Ok(Some(outcome)) => FINISH.get().map_or(Ok(ExitCode::from(EXIT_INTERNAL)), |finish| finish(outcome)),
            Err(error) => Err(error),
        };
        std::process::exit(number_of(finished.unwrap_or_else(|error| error.report())).into())
    }

    /// Sends the outcome, and ends the worker.
    fn end_worker(parent: &Mutex<PipeWriter>, outcome: Outcome) -> ! {
        let (kind, content) = match outcome {
            Outcome::Exit(code) => (EXIT, Zeroizing::new(vec![number_of(code)])),
            Outcome::Exec(token) => (EXEC, Zeroizing::new(token.as_bytes().to_vec())),
        };
        // What this process cannot send, its exit status tells.
        let status = if frame(parent, kind, &content).is_ok() { 0 } else { EXIT_IO };
        std::process::exit(status.into())
    }

    /// Gives up what must not stay open if this process hangs, and ends with the process that prints, its `parent`.
    #[cfg_attr(
        not(any(target_os = "linux", target_os = "android")),
        allow(unused_variables, reason = "no such signal")
    )]
    fn detach(parent: u32) {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
            // There is no signal if it has ended before.
            if std::os::unix::process::parent_id() != parent {
                std::process::exit(EXIT_IO.into());
            }
        }
        let Ok(null) = File::options().read(true).write(true).open("/dev/null") else { return };
        for descriptor in [libc::STDOUT_FILENO, libc::STDERR_FILENO] {
            // SAFETY: both are descriptors, and nothing of this process owns the standard ones.
            unsafe { libc::dup2(null.as_raw_fd(), descriptor) };
        }
    }

    /// Ends the program that prints the credentials, if it runs, when this process is ended from outside: at a terminal,
    /// or because the process that prints has ended.
    fn end_with_programs() {
        extern "C" fn end(signal: libc::c_int) {
            amp_token::sys::program::kill_running();
            // SAFETY: the function ends the process, and may be called in the handler of a signal.
            unsafe { libc::_exit(128 + signal) };
        }
        if !is_ignored(libc::SIGABRT) {
            // SAFETY: this restores what the system does. The process that prints reports how this one has ended.
            unsafe { libc::signal(libc::SIGABRT, libc::SIG_DFL) };
        }
        let handler = end as extern "C" fn(libc::c_int);
        // A signal that is ignored, as nohup does it, stays ignored.
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP].into_iter().filter(|signal| !is_ignored(*signal)) {
            // SAFETY: the handler only makes system calls, which is safe in a handler.
            unsafe { libc::signal(signal, handler as libc::sighandler_t) };
        }
    }

    /// `ExitCode` does not tell its number.
    fn number_of(code: ExitCode) -> u8 {
        (0..=u8::MAX).find(|number| ExitCode::from(*number) == code).unwrap_or(EXIT_INTERNAL)
    }

    /// In a worker, sends what is to be written to the process that writes it. Elsewhere returns `None`.
    pub fn send(stream: Stream, bytes: &[u8]) -> Option<io::Result<()>> {
        let parent = PARENT.get()?;
        Some(bytes.chunks(LONGEST).try_for_each(|part| frame(parent, stream as u8, part)))
    }

    /// Sends a byte for the kind, four for the length, and the content.
    fn frame(pipe: &Mutex<PipeWriter>, kind: u8, content: &[u8]) -> io::Result<()> {
        let mut frame = Zeroizing::new(Vec::with_capacity(5 + content.len()));
        frame.push(kind);
        frame.extend_from_slice(&u32::try_from(content.len()).unwrap_or(u32::MAX).to_be_bytes());
        frame.extend_from_slice(content);
        pipe.lock().unwrap_or_else(PoisonError::into_inner).write_all(&frame)
    }

    /// Prints what the worker sends, until it has sent how it ended.
    fn print(mut worker: PipeReader, pid: libc::pid_t) -> CliResult<Outcome> {
        loop {
            let mut head = [0; 5];
            let content = worker.read_exact(&mut head).and_then(|()| {
                let [_, length @ ..] = head;
                let mut content = Zeroizing::new(vec![0; u32::from_be_bytes(length) as usize]);
                worker.read_exact(&mut content).map(|()| content)
            });
            let outcome = match (head[0], content) {
                (b'o', Ok(content)) => {
                    output::raw(&content)?;
                    continue;
                }
                (b'l', Ok(content)) => {
                    output::if_lost(&String::from_utf8_lossy(&content));
                    continue;
                }
                (b'e', Ok(content)) => {
                    let _ = io::stderr().lock().write_all(&content);
                    continue;
                }
                (EXIT, Ok(content)) => {
                    Ok(Outcome::Exit(ExitCode::from(content.first().copied().unwrap_or(EXIT_INTERNAL))))
                }
                (EXEC, Ok(content)) => {
                    let token = std::str::from_utf8(&content).unwrap_or_default();
                    Ok(Outcome::Exec(Zeroizing::new(token.to_owned())))
                }
                (_, Ok(_)) => Err(CliError::new(EXIT_INTERNAL, "the process that does the work has sent nonsense")),
                (_, Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(lost(reap(&worker, pid)));
                }
                (_, Err(error)) => {
                    Err(CliError::new(EXIT_IO, format!("cannot read from the process that does the work: {error}")))
                }
            };
            reap(&worker, pid);
            return outcome;
        }
    }

    /// The error for a worker that has ended without a result.
    fn lost(status: Option<ExitStatus>) -> CliError {
        let ended = |how: &str| format!("the process that does the work {how}");
        let by_signal = |signal| ended(&format!("was ended by signal {signal}"));
        match status.map(|status| (status.signal(), status.code())) {
            // An allocation that fails ends with SIGABRT. Linux ends a process with SIGKILL if memory runs out.
            Some((Some(signal @ (libc::SIGABRT | libc::SIGKILL)), _)) => {
                CliError::new(EXIT_IO, format!("{}; {}", by_signal(signal), memory_advice!()))
            }
            Some((Some(signal), _)) => CliError::new(EXIT_INTERNAL, by_signal(signal)),
            Some((_, Some(code))) if code == i32::from(EXIT_IO) => {
                CliError::new(EXIT_IO, ended("could not send its result"))
            }
            _ => CliError::new(EXIT_INTERNAL, ended("has ended without a result")),
        }
    }

    /// Waits for the end of the worker, unless it hangs. Returns its status.
    fn reap(worker: &PipeReader, pid: libc::pid_t) -> Option<ExitStatus> {
        let mut end = libc::pollfd { fd: worker.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let grace = i32::try_from(GRACE.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the pointer is to one pollfd, as the count says, which lives until the call returns.
        if unsafe { libc::poll(&raw mut end, 1, grace) } != 1 {
            return None;
        }
        let mut status = 0;
        // The pipe is closed, so the process is about to end.
        // SAFETY: the process is a child of this one, and the pointer is to an integer that lives until the call returns.
        let reaped = unsafe { libc::waitpid(pid, &raw mut status, 0) };
        (reaped == pid).then(|| ExitStatus::from_raw(status))
    }
}
