//! Detects that the process is a forked child.
//!
//! A child inherits its parent's memory, but not the parent's other threads: a lock that one of them held
//! stays locked, and a socket that one of them used is shared with the parent. So such objects record the
//! [`generation`] in which they were created, and are created again when the generation has changed.
//! (Comparing process IDs would cost a system call each time.)

use arc_swap::ArcSwapOption;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

static GENERATION: AtomicU64 = AtomicU64::new(0);
static INSTALLED: AtomicBool = AtomicBool::new(false);
#[cfg(unix)]
static CONTINUES: AtomicBool = AtomicBool::new(false);

/// The number of forks between the process in which [`install_fork_hook`] was first called and this one.
#[cfg(not(simulator))]
pub fn generation() -> u64 {
    GENERATION.load(Ordering::Relaxed)
}

/// In the simulator, a number that each process has.
#[cfg(simulator)]
pub use crate::sys::simulation::process as generation;

/// Starts counting forks. Further calls have no effect.
pub fn install_fork_hook() {
    if INSTALLED.swap(true, Ordering::SeqCst) {
        return;
    }
    #[cfg(unix)]
    {
        extern "C" fn in_child() {
            if !CONTINUES.load(Ordering::Relaxed) {
                GENERATION.fetch_add(1, Ordering::Relaxed);
            }
        }
        // SAFETY: the handler exists as long as the library, which is never unloaded: it is linked with
        // -z nodelete, and macOS unloads no library that has thread-local variables, as this one has. The handler
        // only does atomic operations, which are async-signal-safe, as POSIX requires in the child of a process
        // with threads.
        let failure = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        // The call fails only with ENOMEM; the next cache tries again.
        INSTALLED.store(failure == 0, Ordering::SeqCst);
    }
    #[cfg(windows)]
    pin_module();
}

/// Forks a child that continues what this process has begun: it keeps the generation. Returns what `fork` does.
///
/// # Safety
///
/// This process has one thread. The parent must not use the library any more: all of it belongs to the child.
#[cfg(unix)]
pub unsafe fn fork_to_continue() -> libc::pid_t {
    CONTINUES.store(true, Ordering::Relaxed);
    // SAFETY: the caller promises that there is one thread, so the child has all that its code may wait for.
    let child = unsafe { libc::fork() };
    CONTINUES.store(false, Ordering::Relaxed);
    child
}

/// A number that is zero in each forked child: of threads or calls, which only the parent has. It is not behind a lock,
/// which a forked child could inherit locked.
#[derive(Debug, Default)]
pub struct ForkCounter(AtomicU64);

/// The lower bits of a [`ForkCounter`] are the number; the upper ones are the fork generation to which it belongs.
const NUMBER_BITS: u32 = 32;

impl ForkCounter {
    /// Zero.
    pub const fn new() -> Self {
        ForkCounter(AtomicU64::new(0))
    }

    /// The number.
    pub fn get(&self) -> u64 {
        ForkCounter::of_this_process(self.0.load(Ordering::SeqCst))
    }

    /// Adds one, unless the number has reached `limit`. Returns whether it was added.
    pub fn add(&self, limit: u64) -> bool {
        self.change(|number| (number < limit).then_some(number + 1))
    }

    /// Subtracts one. Does nothing in a forked child, for what was added in its parent.
    pub fn remove(&self) {
        self.change(|number| number.checked_sub(1));
    }

    fn change(&self, change: impl Fn(u64) -> Option<u64>) -> bool {
        install_fork_hook();
        let next = |value| Some(generation() << NUMBER_BITS | change(ForkCounter::of_this_process(value))?);
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next).is_ok()
    }

    fn of_this_process(value: u64) -> u64 {
        if value >> NUMBER_BITS == generation() { value & ((1 << NUMBER_BITS) - 1) } else { 0 }
    }
}

/// A value that is created when it is needed first, and again by a forked child, because another thread of its parent
/// may have been changing it, or may have held its lock, at the time of the fork.
pub struct ForkLocal<T>(ArcSwapOption<(u64, T)>);

impl<T> Default for ForkLocal<T> {
    fn default() -> Self {
        ForkLocal::new()
    }
}

impl<T> ForkLocal<T> {
    /// Without a value yet.
    pub const fn new() -> Self {
        ForkLocal(ArcSwapOption::const_empty())
    }
}

impl<T: Default> ForkLocal<T> {
    /// Runs `work` on the value of this process.
    pub fn with<R>(&self, work: impl FnOnce(&T) -> R) -> R {
        install_fork_hook();
        loop {
            let current = self.0.load_full();
            match &current {
                Some(value) if value.0 == generation() => return work(&value.1),
                // The parent's value is leaked, because it may be in the middle of a change.
                Some(inherited) => std::mem::forget(Arc::clone(inherited)),
                None => {}
            }
            self.0.compare_and_swap(&current, Some(Arc::new((generation(), T::default()))));
        }
    }
}

/// Keeps the library loaded, as `-z nodelete` does on other systems: the library's threads may still run
/// when the application unloads it.
#[cfg(windows)]
fn pin_module() {
    use std::ffi::c_void;
    #[link(name = "kernel32")]
    unsafe extern "system" {
        fn GetModuleHandleExW(flags: u32, address: *const c_void, module: *mut *mut c_void) -> i32;
    }
    const PIN: u32 = 1;
    const FROM_ADDRESS: u32 = 4;
    let mut module = std::ptr::null_mut();
    // SAFETY: the address is in this library (or program), and the handle is written to the local variable.
    // A failure changes nothing.
    unsafe { GetModuleHandleExW(PIN | FROM_ADDRESS, pin_module as *const c_void, &raw mut module) };
}
