//! The library's threads in the application's process.
//!
//! - **Helper threads run blocking calls that have no timeout**: `getaddrinfo`, file I/O. The caller waits
//!   until its deadline and then abandons the thread ([`HelperThreads::run_with_deadline`]).
//! - **Their number is limited.** At most `MAX_THREADS` of each kind exist at a time; further callers wait
//!   for a permit.
//! - **A program can act before they are started**: [`call_before_threads`].
//! - **They block signals**, because the application may have chosen the threads that handle its signals.
//!   (Signals that report a fault of the thread itself are not blocked.)

use crate::sys::deadline::IoDeadline;
use crate::sys::fork::ForkCounter;
use crate::sys::sync::JoinHandle;
use crate::sys::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::fmt;
use std::io;
use std::sync::OnceLock;
#[cfg(not(simulator))]
use std::thread::Builder;
use std::time::Duration;

#[cfg(simulator)]
pub(crate) use crate::sys::simulation::spawn_thread as spawn;

static BEFORE_THREADS: OnceLock<fn()> = OnceLock::new();

/// Sets what is called whenever the library is about to start a thread, by the thread that needs it. For a program that
/// forks before it has threads: only a process with one thread may fork and go on as before.
pub fn call_before_threads(call: fn()) {
    let _ = BEFORE_THREADS.set(call);
}

/// Starts a thread.
#[cfg(not(simulator))]
pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    if let Some(call) = BEFORE_THREADS.get() {
        call();
    }
    let _signals = BlockSignals::new();
    // Without this, the standard library reads the size from the environment variable RUST_MIN_STACK.
    let started = Builder::new().name(name.to_owned()).stack_size(2 * 1024 * 1024).spawn(work);
    started.map_err(|error| io::Error::new(error.kind(), CannotStartThread(error)))
}

/// The error of [`spawn`]. A type of its own, because other system calls fail with EAGAIN for other reasons.
#[derive(Debug)]
pub(crate) struct CannotStartThread(io::Error);

impl CannotStartThread {
    /// Whether it is the cause of this error.
    pub(crate) fn is_cause_of(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<CannotStartThread>())
    }
}

impl fmt::Display for CannotStartThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for CannotStartThread {}

/// A limited number of threads of one kind.
pub(crate) struct HelperThreads {
    /// The name of the threads.
    name: &'static str,
    /// The number of permits.
    taken: ForkCounter,
}

/// The largest number of threads of one kind at a time.
const MAX_THREADS: u64 = 64;

impl HelperThreads {
    pub(crate) const fn new(name: &'static str) -> Self {
        HelperThreads { name, taken: ForkCounter::new() }
    }

    /// Runs `work` on a thread and waits for its result until the deadline. After that the thread is
    /// abandoned, and its result is dropped.
    pub(crate) fn run_with_deadline<T: Send + 'static>(
        &'static self,
        deadline: IoDeadline,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let permit = loop {
            match self.acquire() {
                Some(permit) => break permit,
                None => std::thread::sleep(deadline.remaining()?.min(Duration::from_millis(5))),
            }
        };
        let (receiver, thread) = self.start_with(permit, work)?;
        match receiver.recv_timeout(deadline.remaining()?) {
            Err(RecvTimeoutError::Timeout) => Err(io::ErrorKind::TimedOut.into()),
            result => {
                // The thread is about to end. Waiting for it keeps it out of a fork that follows.
                let _ = thread.join();
                result.map_err(|_| io::Error::other("the helper thread panicked"))
            }
        }
    }

    /// Runs `work` on a thread; `None` if there are too many threads of this kind.
    pub(crate) fn start(&'static self, work: impl FnOnce() + Send + 'static) -> io::Result<Option<JoinHandle<()>>> {
        let Some(permit) = self.acquire() else { return Ok(None) };
        let thread = spawn(self.name, move || {
            let _permit = permit;
            work();
        });
        thread.map(Some)
    }

    /// Runs `work` on a thread, and returns where its result arrives. `None` if there is no permit, or no thread can
    /// be started.
    pub(crate) fn try_start<T: Send + 'static>(
        &'static self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<Receiver<T>> {
        let (receiver, _) = self.start_with(self.acquire()?, work).ok()?;
        Some(receiver)
    }

    fn start_with<T: Send + 'static>(
        &self,
        permit: Permit,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<(Receiver<T>, JoinHandle<()>)> {
        let (sender, receiver) = sync_channel(1);
        let thread = spawn(self.name, move || {
            let _permit = permit;
            // Sending fails if the deadline has passed and the caller is gone.
            let _ = sender.send(work());
        })?;
        Ok((receiver, thread))
    }

    fn acquire(&'static self) -> Option<Permit> {
        self.taken.add(MAX_THREADS).then_some(Permit(self))
    }
}

/// The right to run one thread; returned when it is dropped.
struct Permit(&'static HelperThreads);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.taken.remove();
    }
}

/// While this value exists, threads that the current thread starts have signals blocked.
#[cfg(unix)]
struct BlockSignals(Option<libc::sigset_t>);

#[cfg(unix)]
impl BlockSignals {
    fn new() -> Self {
        use std::mem::MaybeUninit;
        let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: sigfillset initializes `all`, and sigdelset removes signals that exist. pthread_sigmask reads
        // `all` and writes `before`, which is initialized if it returns 0. It changes the mask of the calling
        // thread only, until the drop below.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            // Faults of the thread itself, and the signal of profilers, which every thread must handle.
            for signal in [
                libc::SIGABRT,
                libc::SIGBUS,
                libc::SIGFPE,
                libc::SIGILL,
                libc::SIGPROF,
                libc::SIGSEGV,
                libc::SIGSYS,
                libc::SIGTRAP,
            ] {
                libc::sigdelset(all.as_mut_ptr(), signal);
            }
            let failure = libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            BlockSignals((failure == 0).then(|| before.assume_init()))
        }
    }
}

#[cfg(unix)]
impl Drop for BlockSignals {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // SAFETY: the set is initialized and only read; no former mask is requested.
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before, std::ptr::null_mut()) };
        }
    }
}

#[cfg(not(unix))]
struct BlockSignals;

#[cfg(not(unix))]
impl BlockSignals {
    fn new() -> Self {
        BlockSignals
    }
}
