//! Runs a program within a deadline and reads what it prints.
//!
//! The application's process may have many threads, handlers of its own for signals, and no idea that a library starts
//! programs in it. So the program is started with `posix_spawn`, which copies no memory and runs no `pthread_atfork`
//! handlers, and not with [`std::process::Command`]: that passes on the signal mask of the calling thread, which is one
//! of the [helper threads](super::threads) that block signals. The program gets no standard input, default handling of
//! all signals, and a process group of its own.
//!
//! When the program has ended, or the deadline has passed, what is left of its process group is killed. (A program
//! that has made itself a daemon has left that group.) The application may ignore SIGCHLD or wait for every child
//! itself, and then the exit status is lost: [`Ended::Unknown`].

use crate::sys::deadline::IoDeadline;
use crate::sys::threads::HelperThreads;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
#[cfg(unix)]
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;
use zeroize::Zeroizing;

static RUNNERS: HelperThreads = HelperThreads::new("amp-command");

/// The process group of the program that was started last, while it runs; [`NONE`], or [`STARTING`].
#[cfg(unix)]
static RUNNING: AtomicI32 = AtomicI32::new(NONE);
/// No program runs.
#[cfg(unix)]
const NONE: i32 = 0;
/// A program is being started, or runs already and the thread that has started it does not know its number yet: on a
/// machine with much to do, a program may have started others before that thread goes on.
#[cfg(unix)]
const STARTING: i32 = -1;

/// How long [`kill_running`] waits for the number of a program. To start one takes longer only if the file system with it
/// does not respond, and then it does nothing yet.
#[cfg(unix)]
const START_TIME: Duration = Duration::from_secs(1);

/// Kills the program that was started last, if it runs, and its process group. It may be called in the handler of a
/// signal that ends the process, by a thread that starts no program: the program would go on, because it is not in the
/// process group of the terminal.
#[cfg(unix)]
pub fn kill_running() {
    for _ in 0..START_TIME.as_millis() {
        match RUNNING.load(Ordering::Relaxed) {
            // It makes one system call, and may be called in a handler.
            STARTING => std::thread::sleep(Duration::from_millis(1)),
            group => {
                if let Some(group) = rustix::process::Pid::from_raw(group) {
                    let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
                }
                return;
            }
        }
    }
}

/// The time before the deadline of the call in which the program is killed and its end is awaited; at most a tenth of
/// the time that there is.
const KILL_TIME: Duration = Duration::from_millis(100);

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// With this exit status.
    Status(i32),
    /// By this signal.
    #[cfg_attr(not(unix), allow(dead_code, reason = "this system has none"))]
    Signal(i32),
    /// Nobody knows: this process ignores SIGCHLD, or other code of it has waited for the program.
    Unknown,
}

/// What a program has printed.
pub(crate) struct Printed {
    pub(crate) stdout: Zeroizing<Vec<u8>>,
    /// The beginning, if it is longer than the limit.
    pub(crate) stderr: Zeroizing<Vec<u8>>,
}

/// What became of a program.
pub(crate) enum Outcome {
    /// It ended.
    Ended(Ended, Printed),
    /// It was killed at the deadline.
    TimedOut(Printed),
    /// It was killed because it printed more than the limit.
    TooLong(Printed),
}

/// Runs the program with these arguments and environment. Reads at most `limit` bytes of its output. An error says why
/// it was not started; of the kind `TimedOut` if it could not be started within the deadline.
pub(crate) fn run(
    program: &Path,
    arguments: &[String],
    environment: &[(OsString, OsString)],
    limit: usize,
    deadline: IoDeadline,
) -> io::Result<Outcome> {
    let (program, arguments, environment) = (program.to_owned(), arguments.to_vec(), environment.to_vec());
    let left = deadline.remaining()?;
    let kill_at = IoDeadline::after(left - KILL_TIME.min(left / 10));
    RUNNERS.run_with_deadline(deadline, move || imp::run(&program, &arguments, &environment, limit, kill_at))?
}

/// The file of a program: the path itself if it is one, else the first executable file of that name in `PATH`.
pub(crate) fn find(program: &str, environment: &[(OsString, OsString)]) -> Option<PathBuf> {
    let path = Path::new(program);
    if path.is_absolute() {
        return Some(path.to_owned());
    }
    let is_path = |name: &OsString| name == "PATH" || cfg!(windows) && name.eq_ignore_ascii_case("PATH");
    let (_, directories) = environment.iter().find(|(name, _)| is_path(name))?;
    // An empty or relative entry means the current directory, where anything may be.
    let directories = std::env::split_paths(directories).filter(|directory| directory.is_absolute());
    let endings: &[&str] = if cfg!(windows) { &["", ".exe"] } else { &[""] };
    let mut files = directories
        .flat_map(|directory| endings.iter().map(move |ending| directory.join(format!("{program}{ending}"))));
    files.find(|file| imp::is_executable(file))
}

#[cfg(unix)]
mod imp {
    use super::{Ended, IoDeadline, NONE, Outcome, Printed, RUNNING, STARTING};
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::fs::{Access, OFlags, access, fcntl_setfl};
    use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
    use std::ffi::{CString, OsString};
    use std::fs::File;
    use std::io::{self, Read};
    use std::mem::MaybeUninit;
    use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::Path;
    use std::ptr::null_mut;
    use std::sync::atomic::Ordering;
    use std::time::Duration;
    use zeroize::Zeroizing;

    /// How often a program is looked at that may have ended without closing its output: a process that it has started
    /// may have it, too.
    const TICK: Duration = Duration::from_millis(20);

    pub(super) fn is_executable(file: &Path) -> bool {
        file.is_file() && access(file, Access::EXEC_OK).is_ok()
    }

    pub(super) fn run(
        program: &Path,
        arguments: &[String],
        environment: &[(OsString, OsString)],
        limit: usize,
        deadline: IoDeadline,
    ) -> io::Result<Outcome> {
        let (stdout, out) = pipe()?;
        let (stderr, err) = pipe()?;
        let (mut stdout, mut stderr) = (Capture::new(stdout, limit)?, Capture::new(stderr, limit)?);
        RUNNING.store(STARTING, Ordering::Relaxed);
        let started = spawn(program, arguments, environment, [out, err]);
        RUNNING.store(started.as_ref().map_or(NONE, |pid| pid.as_raw_nonzero().get()), Ordering::Relaxed);
        let pid = started?;
        let mut ended = None;
        let mut is_late = false;
        while ended.is_none() && !is_late && !stdout.is_too_long {
            match deadline.remaining() {
                Ok(left) => wait(&mut stdout, &mut stderr, left.min(TICK)),
                Err(_) => is_late = true,
            }
            ended = status(pid);
        }
        // What it printed last.
        wait(&mut stdout, &mut stderr, Duration::ZERO);
        // As long as its end is not collected, or a process of its group exists, its number is not given to another
        // process. If its end was collected by other code, an open pipe shows that there is such a process.
        let is_there = ended != Some(Ended::Unknown) || stdout.is_open() || stderr.is_open();
        if is_there {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let _ = RUNNING.compare_exchange(pid.as_raw_nonzero().get(), NONE, Ordering::Relaxed, Ordering::Relaxed);
        let printed = Printed { stdout: stdout.take(), stderr: stderr.take() };
        // Closed by the last process of the group, unless one has left it.
        let end = IoDeadline::after(super::KILL_TIME / 2);
        while let (true, Ok(left)) = (stdout.is_open() || stderr.is_open(), end.remaining()) {
            wait(&mut stdout, &mut stderr, left);
        }
        while matches!(waitid(WaitId::Pid(pid), WaitIdOptions::EXITED), Err(rustix::io::Errno::INTR)) {}
        Ok(match ended {
            _ if stdout.is_too_long => Outcome::TooLong(printed),
            Some(ended) => Outcome::Ended(ended, printed),
            None => Outcome::TimedOut(printed),
        })
    }

    /// How the program ended, if it has. It is left to be waited for, so that its number stays its own.
    fn status(pid: Pid) -> Option<Ended> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match waitid(WaitId::Pid(pid), options) {
            Ok(None) | Err(rustix::io::Errno::INTR) => None,
            Ok(Some(status)) => Some(match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Ended::Status(code),
                (None, Some(signal)) => Ended::Signal(signal),
                (None, None) => Ended::Unknown,
            }),
            Err(_) => Some(Ended::Unknown),
        }
    }

    /// Waits until there is something to read, and reads it. Never fails: the program is to be killed in any case.
    fn wait(stdout: &mut Capture, stderr: &mut Capture, timeout: Duration) {
        let limit = Timespec { tv_sec: timeout.as_secs() as _, tv_nsec: timeout.subsec_nanos() as _ };
        let mut open: Vec<_> = [&*stdout, &*stderr]
            .into_iter()
            .filter_map(|capture| Some(PollFd::from_borrowed_fd(capture.pipe.as_ref()?.as_fd(), PollFlags::IN)))
            .collect();
        if matches!(poll(&mut open, Some(&limit)), Err(error) if error != rustix::io::Errno::INTR) {
            std::thread::sleep(timeout);
        }
        drop(open);
        stdout.read();
        stderr.read();
    }

    /// One of the program's outputs.
    struct Capture {
        /// `None` if all processes that had it have closed it.
        pipe: Option<File>,
        bytes: Zeroizing<Vec<u8>>,
        length: usize,
        is_too_long: bool,
    }

    impl Capture {
        fn new(pipe: OwnedFd, limit: usize) -> io::Result<Self> {
            fcntl_setfl(&pipe, OFlags::NONBLOCK)?;
            // Of this size from the start, because a buffer that grows leaves copies that are not wiped.
            let bytes = Zeroizing::new(vec![0; limit]);
            Ok(Capture { pipe: Some(pipe.into()), bytes, length: 0, is_too_long: false })
        }

        fn is_open(&self) -> bool {
            self.pipe.is_some()
        }

        /// What was read; what is read later is dropped.
        fn take(&mut self) -> Zeroizing<Vec<u8>> {
            let mut bytes = std::mem::take(&mut self.bytes);
            bytes.truncate(self.length);
            self.length = 0;
            bytes
        }

        /// Reads as much as the pipe has, and keeps as much as there is room for.
        fn read(&mut self) {
            let mut rest = Zeroizing::new([0; 4096]);
            while let Some(pipe) = &mut self.pipe {
                let free = &mut self.bytes[self.length..];
                let is_full = free.is_empty();
                match pipe.read(if is_full { rest.as_mut_slice() } else { free }) {
                    Ok(0) => self.pipe = None,
                    Ok(_) if is_full => {
                        self.is_too_long = true;
                        // A program that never ends may print without end.
                        return;
                    }
                    Ok(count) => self.length += count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => self.pipe = None,
                }
            }
        }
    }

    /// A pipe, neither end of which is one of the standard descriptors: the application may have closed those.
    fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
        let (reader, writer) = io::pipe()?;
        let above = |end: OwnedFd| rustix::io::fcntl_dupfd_cloexec(end, 3);
        Ok((above(reader.into())?, above(writer.into())?))
    }

    /// The lists that `posix_spawn` reads, freed when they are dropped.
    struct Actions(libc::posix_spawn_file_actions_t);

    impl Drop for Actions {
        fn drop(&mut self) {
            // SAFETY: it was initialized, and is not used any more.
            unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.0) };
        }
    }

    struct Attributes(libc::posix_spawnattr_t);

    impl Drop for Attributes {
        fn drop(&mut self) {
            // SAFETY: it was initialized, and is not used any more.
            unsafe { libc::posix_spawnattr_destroy(&raw mut self.0) };
        }
    }

    /// The functions of `posix_spawn` return the number of an error.
    fn check(error: libc::c_int) -> io::Result<()> {
        if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
    }

    /// Starts the program, whose output goes to the two pipes.
    fn spawn(
        program: &Path,
        arguments: &[String],
        environment: &[(OsString, OsString)],
        [stdout, stderr]: [OwnedFd; 2],
    ) -> io::Result<Pid> {
        let file = CString::new(program.as_os_str().as_bytes())?;
        let arguments = arguments.iter().map(|argument| CString::new(argument.as_str()));
        let arguments = arguments.collect::<Result<Vec<_>, _>>()?;
        let variable = |(name, value): &(OsString, OsString)| {
            CString::new([name.clone().into_vec(), b"=".to_vec(), value.clone().into_vec()].concat())
        };
        let environment = environment.iter().map(variable).collect::<Result<Vec<_>, _>>()?;
        let pointers = |strings: &[CString]| -> Vec<*mut libc::c_char> {
            strings.iter().map(|string| string.as_ptr().cast_mut()).chain([null_mut()]).collect()
        };
        let (argv, envp) = (pointers(&arguments), pointers(&environment));
        let attributes = attributes()?;
        let actions = actions([stdout.as_raw_fd(), stderr.as_raw_fd()])?;
        let mut pid = 0;
        // SAFETY: all pointers are to objects that live until the call returns. `argv` and `envp` are arrays of
        // strings that end with a null pointer, and are not changed by the call, whatever their C type says.
        check(unsafe {
            libc::posix_spawn(
                &raw mut pid,
                file.as_ptr(),
                &raw const actions.0,
                &raw const attributes.0,
                argv.as_ptr(),
                envp.as_ptr(),
            )
        })?;
        Pid::from_raw(pid).ok_or_else(|| io::Error::other("posix_spawn returned no process"))
    }

    /// A process group of its own, no blocked signals, and the default handling of all signals.
    fn attributes() -> io::Result<Attributes> {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: the call initializes the object that the pointer is to.
        check(unsafe { libc::posix_spawnattr_init(attributes.as_mut_ptr()) })?;
        // SAFETY: it is initialized now.
        let mut attributes = Attributes(unsafe { attributes.assume_init() });
        let (mut none, mut all) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: both calls initialize the set that the pointer is to, and cannot fail.
        let (none, mut all): (libc::sigset_t, libc::sigset_t) = unsafe {
            libc::sigemptyset(none.as_mut_ptr());
            libc::sigfillset(all.as_mut_ptr());
            (none.assume_init(), all.assume_init())
        };
        let flags = libc::POSIX_SPAWN_SETPGROUP | libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF;
        let pointer = &raw mut attributes.0;
        // SAFETY: the pointers are to initialized objects, which the calls read, and to the attributes, which they
        // change. The handling of SIGKILL and SIGSTOP cannot be set, so they are removed from the set.
        unsafe {
            libc::sigdelset(&raw mut all, libc::SIGKILL);
            libc::sigdelset(&raw mut all, libc::SIGSTOP);
            check(libc::posix_spawnattr_setpgroup(pointer, 0))?;
            check(libc::posix_spawnattr_setsigmask(pointer, &raw const none))?;
            check(libc::posix_spawnattr_setsigdefault(pointer, &raw const all))?;
            // `c_short` in C; the constants are `c_int` on some systems.
            check(libc::posix_spawnattr_setflags(pointer, flags as libc::c_short))?;
        }
        Ok(attributes)
    }

    /// What happens to the standard descriptors: no input, and the output into these pipes.
    fn actions(outputs: [RawFd; 2]) -> io::Result<Actions> {
        let mut actions = MaybeUninit::uninit();
        // SAFETY: the call initializes the object that the pointer is to.
        check(unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) })?;
        // SAFETY: it is initialized now.
        let mut actions = Actions(unsafe { actions.assume_init() });
        let pointer = &raw mut actions.0;
        // SAFETY: the pointer is to initialized actions, and the string ends with a NUL; the call copies it.
        unsafe {
            check(libc::posix_spawn_file_actions_addopen(pointer, 0, c"/dev/null".as_ptr(), libc::O_RDONLY, 0))?;
            for (output, descriptor) in outputs.into_iter().zip([libc::STDOUT_FILENO, libc::STDERR_FILENO]) {
                check(libc::posix_spawn_file_actions_adddup2(pointer, output, descriptor))?;
            }
        }
        Ok(actions)
    }
}

/// Without process groups: at the deadline only the program itself is ended.
#[cfg(not(unix))]
mod imp {
    use super::{Ended, IoDeadline, Outcome, Printed};
    use std::ffi::OsString;
    use std::io::{self, Read};
    use std::path::Path;
    use std::process::{Command, Stdio};
    use std::sync::mpsc::{Receiver, sync_channel};
    use std::time::Duration;
    use zeroize::Zeroizing;

    const TICK: Duration = Duration::from_millis(5);

    pub(super) fn is_executable(file: &Path) -> bool {
        file.is_file()
    }

    pub(super) fn run(
        program: &Path,
        arguments: &[String],
        environment: &[(OsString, OsString)],
        limit: usize,
        deadline: IoDeadline,
    ) -> io::Result<Outcome> {
        let mut command = Command::new(program);
        command.args(arguments.get(1..).unwrap_or_default()).env_clear().envs(environment.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        #[cfg(windows)]
        {
            // No window of a console.
            const CREATE_NO_WINDOW: u32 = 0x0800_0000;
            std::os::windows::process::CommandExt::creation_flags(&mut command, CREATE_NO_WINDOW);
        }
        let mut child = command.spawn()?;
        let (stdout, stderr) = (read(child.stdout.take(), limit)?, read(child.stderr.take(), limit)?);
        let status = loop {
            match (child.try_wait()?, deadline.remaining()) {
                (Some(status), _) => break Some(status),
                (None, Ok(left)) => std::thread::sleep(left.min(TICK)),
                (None, Err(_)) => break None,
            }
        };
        if status.is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let printed = |pipe: Receiver<Zeroizing<Vec<u8>>>| pipe.recv_timeout(super::KILL_TIME / 2).unwrap_or_default();
        let mut printed = Printed { stdout: printed(stdout), stderr: printed(stderr) };
        let is_too_long = printed.stdout.len() > limit;
        printed.stdout.truncate(limit);
        Ok(match status {
            _ if is_too_long => Outcome::TooLong(printed),
            Some(status) => Outcome::Ended(status.code().map_or(Ended::Unknown, Ended::Status), printed),
            None => Outcome::TimedOut(printed),
        })
    }

    /// Reads a pipe on a thread of its own, until it is closed.
    fn read(pipe: Option<impl Read + Send + 'static>, limit: usize) -> io::Result<Receiver<Zeroizing<Vec<u8>>>> {
        let (sender, receiver) = sync_channel(1);
        crate::sys::threads::spawn("amp-command", move || {
            let mut bytes = Zeroizing::new(Vec::with_capacity(limit + 1));
            if let Some(pipe) = pipe {
                let _ = pipe.take(limit as u64 + 1).read_to_end(&mut bytes);
            }
            let _ = sender.send(bytes);
        })?;
        Ok(receiver)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn sh(script: &str, timeout: Duration) -> Outcome {
        try_sh(script, timeout).unwrap()
    }

    fn try_sh(script: &str, timeout: Duration) -> io::Result<Outcome> {
        let environment: Vec<_> = std::env::vars_os().collect();
        let arguments = ["sh", "-c", script].map(str::to_owned);
        let program = find("sh", &environment).unwrap();
        run(&program, &arguments, &environment, 64 * 1024, IoDeadline::after(timeout))
    }

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_output_and_the_end_are_returned() {
        for (script, expected, out, err) in [
            ("echo out; echo err >&2", Ended::Status(0), "out\n", "err\n"),
            ("printf 1; exit 7", Ended::Status(7), "1", ""),
            ("kill -9 $$", Ended::Signal(9), "", ""),
            ("exec >&- 2>&-; exit 3", Ended::Status(3), "", ""),
            ("cat; readlink /proc/self/fd/0", Ended::Status(0), "/dev/null\n", ""),
        ] {
            let Outcome::Ended(ended, printed) = sh(script, LONG) else { panic!("{script}") };
            assert_eq!((ended, text(&printed.stdout), text(&printed.stderr)), (expected, out, err), "{script}");
        }
    }

    /// This thread blocks signals, and the test harness ignores SIGPIPE.
    #[cfg(target_os = "linux")]
    #[test]
    fn signals_have_their_default_handling() {
        let Outcome::Ended(_, printed) = sh("exec grep -E '^Sig(Blk|Ign)' /proc/self/status", LONG) else { panic!() };
        for line in text(&printed.stdout).lines() {
            let signals = u64::from_str_radix(line.split_whitespace().last().unwrap(), 16).unwrap();
            // The C library keeps signals 32 and 33 for itself.
            assert_eq!(signals & !(0b11 << 31), 0, "{line}");
        }
        assert_eq!(text(&printed.stdout).lines().count(), 2);
    }

    #[test]
    fn a_long_output_ends_the_program_and_a_long_error_output_is_cut() {
        assert!(matches!(sh("exec cat /dev/zero", LONG), Outcome::TooLong(_)));
        let script = "head -c 65536 /dev/zero; head -c 200000 /dev/zero >&2";
        let Outcome::Ended(Ended::Status(0), printed) = sh(script, LONG) else { panic!() };
        assert_eq!((printed.stdout.len(), printed.stderr.len()), (65536, 65536));
    }

    /// Processes that it leaves behind have its output, and would keep a reader waiting.
    #[test]
    fn what_is_left_of_the_process_group_is_killed() {
        let Outcome::Ended(Ended::Status(0), at_its_end) = sh("echo $$; sleep 1000 & sleep 1000 & exit 0", LONG) else {
            panic!()
        };
        // A slow machine needs longer to start it and to end it.
        let mut timeouts = (0..8).map(|doublings| Duration::from_millis(300 << doublings));
        let late = timeouts.find_map(|timeout| match try_sh("echo $$; sleep 1000 & sleep 1000", timeout) {
            Ok(Outcome::TimedOut(printed)) => Some(printed).filter(|printed| !printed.stdout.is_empty()),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => None,
            _ => panic!(),
        });
        for printed in [at_its_end, late.unwrap()] {
            let group: i32 = text(&printed.stdout).trim().parse().unwrap();
            let group = rustix::process::Pid::from_raw(group).unwrap();
            // The pipes are closed, so all of them have ended; init may not have collected them yet.
            let is_gone = || rustix::process::test_kill_process_group(group) == Err(rustix::io::Errno::SRCH);
            let patience = IoDeadline::after(LONG);
            while !is_gone() {
                assert!(patience.remaining().is_ok(), "{group:?}");
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn a_program_is_found_in_absolute_directories_only() {
        let directory = std::env::temp_dir().join(format!("amp-program-{}", std::process::id()));
        std::fs::create_dir_all(directory.join("subdirectory")).unwrap();
        std::fs::write(directory.join("data"), "").unwrap();
        let path = |text: &str| vec![(OsString::from("PATH"), OsString::from(text))];
        let with = |first: &str| path(&format!("{first}:{}:/bin", directory.display()));
        assert_eq!(find("sh", &with("")), Some("/bin/sh".into()));
        assert_eq!(find("data", &with("")), None, "it is not executable");
        assert_eq!(find("subdirectory", &with("")), None, "it is a directory");
        assert_eq!(find("sh", &path("bin:.:")), None);
        assert_eq!(find("sh", &[]), None);
        assert_eq!(find("/nowhere/x", &[]), Some("/nowhere/x".into()));
        std::fs::remove_dir_all(directory).unwrap();
    }
}
