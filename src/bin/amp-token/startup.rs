//! How this process was started, in what the standard library changes before `main`: it opens `/dev/null` in place of a
//! closed standard descriptor, and ignores SIGPIPE; and how it ends if memory runs out.
//!
//! By hand, because it must run before the standard library.

#![allow(unsafe_code, reason = "a function that runs before main, and the state of a signal")]

use crate::exit::EXIT_IO;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

static STDOUT_WAS_CLOSED: AtomicBool = AtomicBool::new(false);
static SIGPIPE_WAS_IGNORED: AtomicBool = AtomicBool::new(false);

/// Whether standard output was closed when the program was started.
pub fn stdout_was_closed() -> bool {
    STDOUT_WAS_CLOSED.load(Ordering::Relaxed)
}

/// Whether a signal is ignored, as `nohup` has it for SIGHUP. A handler would end that, also for child processes.
pub fn is_ignored(signal: i32) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action nothing is changed, and the old one is written to memory of its type.
    let asked = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: if the call has succeeded, the action is initialized.
    asked == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

/// Lets a command that takes the place of this process ignore SIGPIPE, if this process was started so. The standard
/// library would have it end the command.
pub fn keep_ignored_sigpipe(command: &mut Command) {
    if !SIGPIPE_WAS_IGNORED.load(Ordering::Relaxed) {
        return;
    }
    let ignore = || {
        // SAFETY: ignoring a signal installs no function.
        match unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) } {
            libc::SIG_ERR => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    // SAFETY: the function makes one system call, and allocates nothing.
    unsafe { command.pre_exec(ignore) };
}

/// What helps if memory runs out.
macro_rules! memory_advice {
    () => {
        "check that there is enough memory, and its limit (ulimit -v)"
    };
}
#[cfg(not(target_vendor = "apple"))]
pub(crate) use memory_advice;

/// Ends this process with an exit status if it aborts, as it does when an allocation fails.
pub fn end_with_status_on_abort() {
    extern "C" fn end(_: libc::c_int) {
        const LINE: &str = concat!("amp-token: aborted; ", memory_advice!(), "\n");
        // SAFETY: both functions may be called in the handler of a signal, and the pointer and the length are those of
        // the line.
        unsafe {
            libc::write(libc::STDERR_FILENO, LINE.as_ptr().cast(), LINE.len());
            libc::_exit(EXIT_IO.into())
        }
    }
    if is_ignored(libc::SIGABRT) {
        return;
    }
    // SAFETY: the handler makes two system calls, which is safe in a handler.
    unsafe { libc::signal(libc::SIGABRT, end as extern "C" fn(libc::c_int) as libc::sighandler_t) };
}

extern "C" fn look() {
    // SAFETY: asking for the flags of a descriptor changes nothing; a closed one is an error.
    let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
    STDOUT_WAS_CLOSED.store(flags == -1, Ordering::Relaxed);
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action nothing is changed, and the old one is written to memory of its type.
    if unsafe { libc::sigaction(libc::SIGPIPE, std::ptr::null(), action.as_mut_ptr()) } == 0 {
        // SAFETY: the call has succeeded, so the action is initialized.
        let ignored = unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN;
        SIGPIPE_WAS_IGNORED.store(ignored, Ordering::Relaxed);
    }
}

/// The system calls the functions in this section before `main`, thus before the standard library changes anything.
/// `look` needs nothing of it: it makes two system calls and stores to statics.
#[used]
// SAFETY: the section is a table of pointers to functions like this one.
#[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".init_array"))]
#[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__mod_init_func"))]
static LOOK: extern "C" fn() = look;
