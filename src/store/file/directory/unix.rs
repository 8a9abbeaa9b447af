//! Directories and files of Unix, by descriptors.

use super::super::location::{effective_uid, of_another_user};
use super::{Access, Attempt, BELOW_IT, display_path, failed};
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, mkdirat, openat, renameat, unlinkat};
use rustix::io::{Errno, retry_on_intr};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Opens a directory in which others are created. It need not be readable, where the system permits that.
#[cfg(any(target_os = "linux", target_os = "android"))]
const SEARCH: OFlags = OFlags::PATH;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const SEARCH: OFlags = OFlags::RDONLY;

/// Opens the directory, if it exists.
pub(super) fn open(path: &Path) -> Attempt<Option<File>> {
    match open_at(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW) {
        Ok(descriptor) => check(&descriptor, path).map(|()| Some(descriptor)),
        Err(Errno::NOENT) => Ok(None),
        // Linux reports ENOTDIR for a symbolic link, other systems ELOOP.
        Err(Errno::NOTDIR | Errno::LOOP) => {
            Err(format!("{} is not a directory, or is a symbolic link to one", display_path(path)))
        }
        Err(error) => Err(failed("open", path)(error)),
    }
}

/// Creates what is missing of the path with mode 0700. A superuser creates it only if the directory in which it is
/// created belongs to the superuser.
pub(super) fn create(path: &Path) -> Attempt<File> {
    let forbidden = |place: &Path| {
        let (path, place) = (display_path(path), display_path(place));
        format!("cannot create {path}: {place} belongs to another user; create it first, or change store_dir")
    };
    if let Some(place) = of_another_user(path) {
        return Err(forbidden(place));
    }
    let (mut missing, mut above) = (Vec::new(), path);
    let mut descriptor = loop {
        let (Some(name), Some(parent)) = (above.file_name(), above.parent()) else {
            return Err(failed("create", path)(Errno::NOENT));
        };
        missing.push(name);
        above = if parent == Path::new("") { Path::new(".") } else { parent };
        match open_at(CWD, above, SEARCH | OFlags::DIRECTORY) {
            Err(Errno::NOENT) => {}
            opened => break opened.map_err(failed("create", path))?,
        }
    };
    // Checked again on the open directory, because the path may have changed.
    if effective_uid() == 0 && owner(&descriptor, above)? != 0 {
        return Err(forbidden(above));
    }
    for name in missing.into_iter().rev() {
        match mkdirat(&descriptor, name, Mode::RWXU) {
            // If another process has created it in the meantime, it must be one of this user.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(failed("create", path)(error)),
        }
        descriptor = open_at(&descriptor, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW)
            .map_err(failed("create", path))?;
        if owner(&descriptor, path)? != effective_uid() {
            return Err(format!(
                "cannot create {}: a directory in this path belongs to another user",
                display_path(path)
            ));
        }
    }
    check(&descriptor, path)?;
    Ok(descriptor)
}

/// Whether an open directory belongs to this user and is inaccessible to all others; the error says what is wrong.
pub(super) fn check(descriptor: &File, path: &Path) -> Attempt<()> {
    let about = descriptor.metadata().map_err(failed("examine", path))?;
    if about.uid() != effective_uid() {
        return Err(format!("{} belongs to another user; {}", display_path(path), BELOW_IT));
    }
    if about.mode() & 0o077 != 0 {
        let advice = format!("run chmod go= on it, or {BELOW_IT}");
        return Err(format!("{} is accessible to other users; {advice}", display_path(path)));
    }
    Ok(())
}

/// Opens a file without following a symbolic link.
pub(super) fn open_file(directory: &File, name: &str, access: Access) -> io::Result<File> {
    // Without O_NONBLOCK, opening a FIFO would wait for its other end.
    let flags = match access {
        Access::Read | Access::Remove => OFlags::RDONLY | OFlags::NONBLOCK,
        Access::Write => OFlags::WRONLY | OFlags::NONBLOCK,
        Access::Lock => OFlags::RDWR | OFlags::NONBLOCK,
        Access::CreateLock => OFlags::RDWR | OFlags::CREATE | OFlags::NONBLOCK,
        Access::CreateNew => OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL,
    };
    Ok(open_at(directory, name, flags | OFlags::NOFOLLOW)?)
}

/// Whether an open file is a regular one of this user.
pub(super) fn is_own_regular_file(_: &File, about: &Metadata) -> io::Result<bool> {
    Ok(about.is_file() && about.uid() == effective_uid())
}

/// Renames a file, and replaces the one that has the new name.
pub(super) fn rename(directory: &File, _: &File, from: &str, to: &str) -> io::Result<()> {
    Ok(renameat(directory, from, directory, to)?)
}

/// Removes a file.
pub(super) fn remove(directory: &File, _: &File, name: &str) -> io::Result<()> {
    Ok(unlinkat(directory, name, AtFlags::empty())?)
}

/// The names of the files that can be read and are UTF-8.
pub(super) fn names(directory: &File, _: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = Dir::read_from(directory).ok().into_iter().flatten();
    entries.map_while(Result::ok).filter_map(|entry| Some(entry.file_name().to_str().ok()?.to_owned()))
}

/// Sets the time of the last change of a file to now, by the clock of its server, and returns it.
pub(super) fn touch(file: &File) -> Option<i64> {
    use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, futimens};
    let only = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
    let now = Timestamps { last_access: only(UTIME_OMIT), last_modification: only(UTIME_NOW) };
    futimens(file, &now).ok()?;
    let about = file.metadata().ok()?;
    about.mtime().checked_mul(1_000_000_000)?.checked_add(about.mtime_nsec())
}

fn open_at(directory: impl AsFd, path: impl rustix::path::Arg + Copy, flags: OFlags) -> Result<File, Errno> {
    let mode = Mode::RUSR | Mode::WUSR;
    retry_on_intr(|| openat(&directory, path, flags | OFlags::CLOEXEC, mode)).map(File::from)
}

fn owner(descriptor: &File, path: &Path) -> Attempt<u32> {
    Ok(descriptor.metadata().map_err(failed("examine", path))?.uid())
}
