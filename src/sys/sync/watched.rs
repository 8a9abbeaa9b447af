//! The standard library's locks, with helgrind told of what they put in order: by itself it knows the
//! locks of pthreads and no other. See scripts/valgrind-c.sh.

use std::ops::{Deref, DerefMut};
use std::sync::{LockResult, PoisonError, WaitTimeoutResult};
use std::time::Duration;

/// Says that what this thread did so far comes before whatever a thread does that is told to come
/// [`after`] the same thing.
pub fn before<T>(thing: &T) {
    tell(289, thing); // _VG_USERREQ__HG_USERSO_SEND_PRE
}

/// Says that what this thread does from now on comes after what was told to come [`before`].
pub fn after<T>(thing: &T) {
    tell(290, thing); // _VG_USERREQ__HG_USERSO_RECV_POST
}

/// A client request of valgrind's: an instruction sequence that changes nothing, except in valgrind,
/// which looks out for it.
fn tell<T>(request: usize, thing: &T) {
    let request = (usize::from(b'H') << 24 | usize::from(b'G') << 16) + request;
    let arguments = [request, std::ptr::from_ref(thing).addr(), 0, 0, 0, 0];
    // SAFETY: the register is turned by 128 bits in all, and exchanged with itself; valgrind reads the
    // six words and puts its answer into rdx.
    unsafe {
        std::arch::asm!(
            "rol rdi, 3", "rol rdi, 13", "rol rdi, 61", "rol rdi, 51", "xchg rbx, rbx",
            in("rax") arguments.as_ptr(), inout("rdx") 0_usize => _, options(nostack)
        );
    }
}

/// As the standard library's, never poisoned.
#[derive(Default)]
pub struct Mutex<T>(std::sync::Mutex<T>);

/// As the standard library's.
pub struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    /// `None` only while a condition variable has it.
    guard: Option<std::sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    /// Unlocked.
    pub fn new(value: T) -> Self {
        Mutex(std::sync::Mutex::new(value))
    }

    /// Waits for it.
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        after(self);
        Ok(MutexGuard { mutex: self, guard: Some(guard) })
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        before(self.mutex);
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.guard.as_ref().unwrap()
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.guard.as_mut().unwrap()
    }
}

/// As the standard library's. What it wakes has the lock, which is what orders it.
#[derive(Default)]
pub struct Condvar(std::sync::Condvar);

impl Condvar {
    /// Nobody waits.
    pub fn new() -> Self {
        Condvar::default()
    }

    /// Wakes all who wait.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }

    /// Waits to be woken.
    pub fn wait<'a, T>(&self, mut guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        before(guard.mutex);
        guard.guard = guard.guard.take().map(|held| self.0.wait(held).unwrap_or_else(PoisonError::into_inner));
        after(guard.mutex);
        Ok(guard)
    }

    /// Waits to be woken, or until the time is over.
    pub fn wait_timeout<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        limit: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        before(guard.mutex);
        let held = guard.guard.take().unwrap();
        let (held, timed_out) = self.0.wait_timeout(held, limit).unwrap_or_else(PoisonError::into_inner);
        guard.guard = Some(held);
        after(guard.mutex);
        Ok((guard, timed_out))
    }
}
