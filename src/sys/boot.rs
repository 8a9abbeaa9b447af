//! Which boot of which machine this process runs on.
//!
//! The time since the boot ([`Clock::boot_time`](crate::sys::clock::Clock::boot_time)) means something only to
//! processes of the same boot. They have the same [`identity`].

#[cfg(not(simulator))]
use once_cell::race::OnceBox;

/// An identity of a boot. Zero: unknown.
pub type BootId = [u8; 16];

/// The identity of a boot that is not known.
pub const UNKNOWN: BootId = [0; 16];

#[cfg(simulator)]
pub use crate::sys::simulation::boot_identity as identity;

/// The identity of this boot, and of the time namespace, in which the time since the boot may be shifted.
#[cfg(not(simulator))]
pub fn identity() -> BootId {
    static IDENTITY: OnceBox<BootId> = OnceBox::new();
    *IDENTITY.get_or_init(|| Box::new(read().unwrap_or(UNKNOWN)))
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn read() -> Option<BootId> {
    let boot = std::fs::read("/proc/sys/kernel/random/boot_id").ok()?;
    // Old kernels have no time namespaces, and so no such link.
    let namespace = std::fs::read_link("/proc/self/ns/time").unwrap_or_default();
    let all = [boot.as_slice(), namespace.as_os_str().as_encoded_bytes()].concat();
    let digest = ring::digest::digest(&ring::digest::SHA256, &all);
    digest.as_ref().first_chunk().copied().filter(|_| !boot.is_empty())
}

/// What macOS creates at each boot. (`kern.boottime` changes when the clock is set.)
#[cfg(target_vendor = "apple")]
fn read() -> Option<BootId> {
    let mut session = [0_u8; 64];
    let mut length = session.len();
    let (name, none) = (c"kern.bootsessionuuid".as_ptr(), std::ptr::null_mut());
    // SAFETY: the name ends with a NUL, the length is that of the array that the call writes to, and nothing is set.
    let failure = unsafe { libc::sysctlbyname(name, session.as_mut_ptr().cast(), &raw mut length, none, 0) };
    // A UUID, and a NUL. A sandbox may forbid to read it.
    let session = session.get(..length).filter(|uuid| failure == 0 && uuid.len() >= 36)?;
    ring::digest::digest(&ring::digest::SHA256, session).as_ref().first_chunk().copied()
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
fn read() -> Option<BootId> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_of_a_boot_does_not_change() {
        assert_eq!(read().unwrap_or(UNKNOWN), identity());
        #[cfg(target_os = "linux")]
        assert_ne!(identity(), UNKNOWN);
    }
}
