//! Memory for secrets: left out of core dumps, and wiped when it is freed.
//!
//! On Linux each secret has pages of its own, which are marked `MADV_DONTDUMP` and unmapped when the secret is
//! dropped, so that any later use of them faults. A process has few secrets; where it has thousands, the kernel
//! merges adjacent mappings.
//!
//! The pages are not locked into memory: `RLIMIT_MEMLOCK` is often 64 KiB for a whole process and belongs to the
//! application, and a promise about swap that holds for some of the secrets is none. They are not wiped on fork
//! either: children go on using the tokens that they inherit.
//!
//! Elsewhere, or when the system grants no mapping, a secret is on the heap.

use std::ptr::NonNull;
use zeroize::Zeroize;

/// Secret bytes, which do not change.
pub struct SecretBuf {
    start: NonNull<u8>,
    length: usize,
    /// Whether the bytes are in pages of their own, and not on the heap.
    is_mapped: bool,
}

// SAFETY: the value owns its bytes, as a `Box<[u8]>` does.
unsafe impl Send for SecretBuf {}
// SAFETY: through a shared reference the bytes are only read.
unsafe impl Sync for SecretBuf {}

impl SecretBuf {
    /// A copy of `bytes`.
    pub fn new(bytes: &[u8]) -> Self {
        let Some(start) = pages::map(bytes.len()) else {
            let start = NonNull::from(Box::leak(Box::<[u8]>::from(bytes))).cast();
            return SecretBuf { start, length: bytes.len(), is_mapped: false };
        };
        // SAFETY: the mapping is new, at least that long, and writable.
        unsafe { start.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
        SecretBuf { start, length: bytes.len(), is_mapped: true }
    }

    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `new` filled that many bytes, and nothing changes them until `drop`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl Drop for SecretBuf {
    fn drop(&mut self) {
        // SAFETY: the bytes belong to this value alone until they are freed, below.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) };
        bytes.zeroize();
        if self.is_mapped {
            pages::unmap(self.start, self.length);
        } else {
            // SAFETY: it is the box that `new` leaked, of the same length, and it is freed once.
            drop(unsafe { Box::from_raw(bytes) });
        }
    }
}

#[cfg(target_os = "linux")]
mod pages {
    use std::ptr::{NonNull, null_mut};

    /// Maps whole pages with room for `length` bytes. `None` if the system grants none, or if the length is 0.
    pub fn map(length: usize) -> Option<NonNull<u8>> {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping, at an address that the kernel chooses, changes no existing one.
        let start = unsafe { libc::mmap(null_mut(), length, access, kind, -1, 0) };
        if start == libc::MAP_FAILED {
            return None;
        }
        // SAFETY: the range is the mapping just made. A kernel without MADV_DONTDUMP changes nothing.
        unsafe { libc::madvise(start, length, libc::MADV_DONTDUMP) };
        NonNull::new(start.cast())
    }

    /// Unmaps what [`map`] returned for this length.
    pub fn unmap(start: NonNull<u8>, length: usize) {
        // SAFETY: `map` made the mapping, of that length, and its owner is being dropped. If the call fails,
        // because it would split a mapping and the process has too many, the pages stay, wiped.
        unsafe { libc::munmap(start.as_ptr().cast(), length) };
    }
}

#[cfg(not(target_os = "linux"))]
mod pages {
    use std::ptr::NonNull;

    pub fn map(_: usize) -> Option<NonNull<u8>> {
        None
    }

    pub fn unmap(_: NonNull<u8>, _: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_keeps_its_bytes() {
        let lengths = (0..200).chain([4095, 4096, 4097, 1 << 20, (1 << 20) + 1]);
        let secrets: Vec<_> = lengths.map(|length| SecretBuf::new(&vec![length as u8; length])).collect();
        for secret in &secrets {
            assert!(secret.bytes().iter().all(|byte| *byte == secret.length as u8));
            assert_eq!(secret.is_mapped, cfg!(target_os = "linux") && secret.length > 0, "{}", secret.length);
        }
    }

    /// In a process of its own, because in this one another test could map the same address again.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_secret_that_is_dropped_is_unmapped() {
        let secret = SecretBuf::new(b"a secret");
        let is_unmapped = |start: *mut u8| {
            let mut state = 0;
            // SAFETY: it is asked about one page, and writes one byte.
            let failure = unsafe { libc::mincore(start.cast(), 1, &raw mut state) };
            failure != 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::ENOMEM)
        };
        // SAFETY: the child touches its own memory only, and takes no lock.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let start = secret.start.as_ptr();
            let before = is_unmapped(start);
            drop(secret);
            // SAFETY: it ends the process.
            unsafe { libc::_exit(if !before && is_unmapped(start) { 0 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: the status is a variable of this function's.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0);
    }
}
