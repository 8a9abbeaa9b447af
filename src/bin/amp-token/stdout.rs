//! Whether standard output can be written, before there is something to print.
//!
//! A new token costs a request, and a personal access token is shown once and takes one of five places. So standard
//! output is checked before anything is requested: it may have been closed (`>&-`), be a full device or file system,
//! be open for reading only, or be a pipe whose reader has ended.
//!
//! By hand, because no library does it.

#![allow(unsafe_code, reason = "poll")]

#[cfg(unix)]
use crate::startup;
use std::io;

/// Fails if output can already be known not to arrive. Writes nothing.
#[cfg(unix)]
pub fn check() -> io::Result<()> {
    use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat, fstatvfs};
    use std::os::fd::AsFd;
    let stdout = io::stdout();
    let stdout = stdout.as_fd();
    if startup::stdout_was_closed() || fcntl_getfl(stdout).is_ok_and(|flags| flags & OFlags::ACCMODE == OFlags::RDONLY)
    {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    let Ok(about) = fstat(stdout) else { return Ok(()) };
    let is_full = match FileType::from_raw_mode(about.st_mode) {
        FileType::CharacterDevice => is_dev_full(about.st_rdev),
        // Some file systems have no blocks at all and can be written nevertheless.
        FileType::RegularFile => fstatvfs(stdout).is_ok_and(|disk| {
            let free = if rustix::process::geteuid().is_root() { disk.f_bfree } else { disk.f_bavail };
            disk.f_blocks > 0 && free == 0
        }),
        _ => false,
    };
    if is_full {
        return Err(io::Error::from_raw_os_error(libc::ENOSPC));
    }
    let mut pipe = libc::pollfd { fd: libc::STDOUT_FILENO, events: libc::POLLOUT, revents: 0 };
    // SAFETY: the pointer is to one pollfd, as the count says, which lives until the call returns.
    let ready = unsafe { libc::poll(&raw mut pipe, 1, 0) };
    // What poll reports of a pipe without a reader: POLLERR on Linux, POLLHUP on macOS.
    if ready == 1 && pipe.revents & (libc::POLLERR | libc::POLLHUP) != 0 {
        Err(io::ErrorKind::BrokenPipe.into())
    } else {
        Ok(())
    }
}

#[cfg(not(unix))]
pub fn check() -> io::Result<()> {
    Ok(())
}

/// `/dev/full`, by its number.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn is_dev_full(device: u64) -> bool {
    (rustix::fs::major(device), rustix::fs::minor(device)) == (1, 7)
}

#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
fn is_dev_full<T>(_: T) -> bool {
    false
}
