//! Threads of ours in somebody else's process.
//!
//! - **What knows no deadline gets a thread that may be left behind**: a look-up of a name, a file on a
//!   disk that stands still. Its caller goes on when his time is over ([`HelperThreads::run_with_deadline`]).
//! - **Those left behind are few.** Where every call would leave another one, there are so many places,
//!   and who finds them taken waits until one is free.
//! - **They handle no signals.** Those are the application's, which may have decided which of its
//!   threads is to have them. (Those that say that a thread itself has failed stay as they are.)

use crate::sys::deadline::IoDeadline;
use crate::sys::fork;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// Starts a thread.
pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let _deaf = BlockSignals::new();
    // Without a size, the standard library would take it from RUST_MIN_STACK, an environment variable.
    Builder::new().name(name.to_owned()).stack_size(2 * 1024 * 1024).spawn(work)
}

/// Room for so many threads of one kind.
pub(crate) struct HelperThreads {
    /// What the threads are called.
    name: &'static str,
    /// The fork generation, and below it (32 bits) how many places it has taken. There is no lock around
    /// them, because a forked child could inherit it locked.
    taken: AtomicU64,
}

/// The most threads of one kind at once.
const MAX_THREADS: u64 = 64;

impl HelperThreads {
    pub(crate) const fn new(name: &'static str) -> Self {
        HelperThreads { name, taken: AtomicU64::new(0) }
    }

    /// Has a thread do this and waits for it until the deadline. Then the thread is on its own, and what
    /// it brings is dropped.
    pub(crate) fn run_with_deadline<T: Send + 'static>(
        &'static self,
        deadline: IoDeadline,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let place = loop {
            match self.acquire() {
                Some(place) => break place,
                None => std::thread::sleep(deadline.remaining()?.min(Duration::from_millis(5))),
            }
        };
        let (sender, receiver) = sync_channel(1);
        let thread = spawn(self.name, move || {
            let _place = place;
            // Nobody listens any more when the deadline has passed.
            let _ = sender.send(work());
        })?;
        match receiver.recv_timeout(deadline.remaining()?) {
            Err(RecvTimeoutError::Timeout) => Err(io::ErrorKind::TimedOut.into()),
            result => {
                // It is as good as over. Who forks next does so without it.
                let _ = thread.join();
                result.map_err(|_| io::Error::other("its thread failed"))
            }
        }
    }

    fn acquire(&'static self) -> Option<Permit> {
        fork::install_fork_hook();
        let generation = fork::generation();
        let taken = self.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |before| {
            // The threads of the process that this one was forked from are not in this one.
            let others = if before >> 32 == generation { before & u64::from(u32::MAX) } else { 0 };
            (others < MAX_THREADS).then_some(generation << 32 | (others + 1))
        });
        taken.ok().map(|_| Permit(self))
    }
}

/// One of the places, taken.
struct Permit(&'static HelperThreads);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::SeqCst);
    }
}

/// While it is there, threads that this one starts are born with their signals blocked.
#[cfg(unix)]
struct BlockSignals(Option<libc::sigset_t>);

#[cfg(unix)]
impl BlockSignals {
    fn new() -> Self {
        use std::mem::MaybeUninit;
        let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: sigfillset makes a whole set of `all`, from which sigdelset takes signals that exist.
        // pthread_sigmask reads that one and writes the other, both ours, and if it returns 0 the other one
        // is whole, too. It changes what the calling thread alone blocks, until the drop below.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            // What a thread does to itself, and what asks each thread what it is doing.
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
            // SAFETY: the set is whole, and is only read; no old one is asked for.
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
