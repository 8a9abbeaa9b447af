//! Tells a process from the one it was forked from.
//!
//! A child inherits memory, but none of its parent's other threads: a lock that one of them held
//! stays locked for ever, and a socket that one of them used belongs to two processes. Whatever can
//! be in such a state is tagged with the [`generation`] in which it was made and made anew when the
//! generation has changed. (Comparing process ids instead would cost a system call each time.)

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

static GENERATION: AtomicU64 = AtomicU64::new(0);
static WATCHING: AtomicBool = AtomicBool::new(false);

/// The number of forks between the process in which [`install_fork_hook`] was first called and this one.
pub fn generation() -> u64 {
    GENERATION.load(Ordering::Relaxed)
}

/// Starts counting forks. Later calls do nothing.
pub fn install_fork_hook() {
    if WATCHING.swap(true, Ordering::SeqCst) {
        return;
    }
    #[cfg(unix)]
    {
        extern "C" fn in_child() {
            GENERATION.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the handler is a function without captures that lives as long as the library,
        // which is never unloaded (it is linked with -z nodelete), and does nothing but an atomic
        // addition, which is allowed in a child of a process with threads.
        let failure = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        // It can only fail for want of memory, and then the next cache tries again.
        WATCHING.store(failure == 0, Ordering::SeqCst);
    }
    #[cfg(windows)]
    pin_module();
}

/// What `-z nodelete` does elsewhere: threads of ours may still run when the application lets go of the
/// library.
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
    // SAFETY: the address is in this very library (or program), and the handle is written to a variable of
    // ours. A failure changes nothing.
    unsafe { GetModuleHandleExW(PIN | FROM_ADDRESS, pin_module as *const c_void, &raw mut module) };
}
