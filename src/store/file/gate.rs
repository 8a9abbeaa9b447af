//! Limits what one directory may cost: the threads that are busy with it, and the callers that wait for it.
//!
//! A disk or file server may not respond for any time, and file I/O has no timeout. So helper threads do it. One that
//! takes too long is abandoned, and no other operation begins in that directory until it has finished. A directory
//! has a few of the threads at most, so that one that does not respond leaves the others theirs. All stores of a
//! process that use a directory share its gate. A forked child has none of its parent's threads, and counts from zero.

use super::directory::{Attempt, display_path};
use crate::sys::deadline::IoDeadline;
use crate::sys::fork::ForkCounter;
use crate::sys::threads::HelperThreads;
use arc_swap::ArcSwapOption;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// The threads for the I/O of all directories.
static FILE_IO_THREADS: HelperThreads = HelperThreads::new("amp-files");

/// The largest number of these threads that are busy with one directory.
const MAX_PER_DIRECTORY: u64 = 16;

/// The gates of all directories in use. Not behind a lock, which a forked child could inherit locked.
static GATES: ArcSwapOption<Vec<Weak<Gate>>> = ArcSwapOption::const_empty();

/// What is going on in one directory.
pub(super) struct Gate {
    path: PathBuf,
    running: ForkCounter,
    abandoned: ForkCounter,
}

impl Gate {
    /// The gate of a directory, by its path. (To ask for its inode might take any time.)
    pub(super) fn of(path: &Path) -> Arc<Gate> {
        let new = Arc::new(Gate { path: path.to_owned(), running: ForkCounter::new(), abandoned: ForkCounter::new() });
        let mut found = new.clone();
        GATES.rcu(|gates| {
            let mut living: Vec<_> = gates.iter().flat_map(|gates| gates.iter()).filter_map(Weak::upgrade).collect();
            found = match living.iter().find(|gate| gate.path == path) {
                Some(gate) => gate.clone(),
                None => {
                    living.push(new.clone());
                    new.clone()
                }
            };
            Some(Arc::new(living.iter().map(Arc::downgrade).collect()))
        });
        found
    }

    /// Runs `work` on a helper thread, and waits for its result for at most `limit`. `None`: the work takes longer,
    /// and goes on in the background.
    pub(super) fn run_or_leave<T: Send + 'static>(
        self: &Arc<Self>,
        limit: Duration,
        work: impl FnOnce() -> Attempt<T> + Send + 'static,
    ) -> Attempt<Option<T>> {
        let directory = || display_path(&self.path);
        if self.abandoned.get() > 0 {
            return Err(format!("file I/O in {} has timed out and is still not finished", directory()));
        }
        let deadline = IoDeadline::after(limit);
        while !self.running.add(MAX_PER_DIRECTORY) {
            let Ok(left) = deadline.remaining() else {
                return Err(format!("too much file I/O in {} is under way", directory()));
            };
            std::thread::sleep(left.min(Duration::from_millis(1)));
        }
        let job = Arc::new(Job { gate: self.clone(), is_abandoned: AtomicBool::new(false) });
        let running = Running(job.clone());
        let done = FILE_IO_THREADS.run_with_deadline(deadline, move || {
            let _running = running;
            work()
        });
        match done {
            Ok(result) => result.map(Some),
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                job.abandon();
                Ok(None)
            }
            Err(error) => Err(format!("cannot start a thread for file I/O in {}: {error}", directory())),
        }
    }

    /// The same, for work whose result is needed.
    pub(super) fn run<T: Send + 'static>(
        self: &Arc<Self>,
        limit: Duration,
        work: impl FnOnce() -> Attempt<T> + Send + 'static,
    ) -> Attempt<T> {
        let directory = || display_path(&self.path);
        if limit.is_zero() {
            return Err(format!("no time is left for file I/O in {}", directory()));
        }
        let done = self.run_or_leave(limit, work)?;
        done.ok_or_else(|| format!("file I/O in {} timed out after {} ms", directory(), limit.as_millis()))
    }
}

/// One operation.
struct Job {
    gate: Arc<Gate>,
    is_abandoned: AtomicBool,
}

impl Job {
    /// Counts the operation as abandoned until it ends.
    fn abandon(self: &Arc<Self>) {
        self.gate.abandoned.add(u64::MAX);
        // If it has ended in the meantime, nothing refers to it but the caller.
        if self.is_abandoned.swap(true, Ordering::SeqCst) {
            self.gate.abandoned.remove();
        }
    }
}

/// Exists as long as the operation runs.
struct Running(Arc<Job>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.gate.running.remove();
        // The first of the two, this and `abandon`, leaves the mark; the second one acts.
        if self.0.is_abandoned.swap(true, Ordering::SeqCst) {
            self.0.gate.abandoned.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_directory_that_does_not_respond_is_left_alone_until_it_does() {
        let (one, same, other) = (Gate::of("/a".as_ref()), Gate::of("/a".as_ref()), Gate::of("/b".as_ref()));
        assert!(Arc::ptr_eq(&one, &same) && !Arc::ptr_eq(&one, &other));
        let (respond, response) = channel::<()>();
        let stuck = one.run(SHORT, move || {
            let _ = response.recv();
            Ok(())
        });
        assert_eq!(stuck, Err("file I/O in /a timed out after 50 ms".to_owned()));
        let unfinished = "file I/O in /a has timed out and is still not finished".to_owned();
        assert_eq!(same.run(LONG, || Ok(1)), Err(unfinished));
        assert_eq!(other.run(LONG, || Ok(2)), Ok(2));
        drop(respond);
        while one.abandoned.get() > 0 {
            std::thread::yield_now();
        }
        assert_eq!(one.run(LONG, || Ok(3)), Ok(3));
        assert_eq!(one.running.get(), 0);
    }

    #[test]
    fn work_that_takes_too_long_is_finished_in_the_background() {
        let gate = Gate::of("/f".as_ref());
        let (respond, response) = channel::<()>();
        let (finish, finished) = channel();
        let work = move || {
            let _ = response.recv();
            finish.send("finished").map_err(|error| error.to_string())
        };
        assert_eq!(gate.run_or_leave(Duration::ZERO, work), Ok(None));
        drop(respond);
        assert_eq!(finished.recv(), Ok("finished"));
    }

    #[test]
    fn a_directory_cannot_take_all_threads() {
        let gate = Gate::of("/c".as_ref());
        let (respond, response) = channel::<()>();
        let response = Arc::new(std::sync::Mutex::new(response));
        std::thread::scope(|scope| {
            let calls: Vec<_> = (0..80)
                .map(|_| {
                    let response = response.clone();
                    let work = move || {
                        let _ = response.lock().unwrap().recv();
                        Ok(())
                    };
                    scope.spawn(|| gate.run(Duration::from_millis(500), work))
                })
                .collect();
            assert!(calls.into_iter().all(|call| call.join().unwrap().is_err()));
        });
        assert_eq!(gate.running.get(), 16);
        assert_eq!(Gate::of("/d".as_ref()).run(LONG, || Ok(4)), Ok(4));
        drop(respond);
    }

    #[test]
    fn the_gate_of_a_directory_that_is_not_used_is_forgotten() {
        let first = Arc::downgrade(&Gate::of("/e".as_ref()));
        assert!(first.upgrade().is_none());
    }
}
