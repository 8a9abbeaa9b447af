//! The directory of the store, through one descriptor.
//!
//! A path can lead to another directory at any time if another user may rename a directory in the path. So the path
//! is resolved once: the directory is opened, the open directory is checked, and all files are accessed through its
//! descriptor.

use super::location::{effective_uid, of_another_user};
use crate::sanitize::sanitize;
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, mkdirat, openat, renameat, unlinkat};
use rustix::io::{Errno, retry_on_intr};
use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The error is a message. A file that does not exist is not an error.
pub(super) type Attempt<T> = Result<T, String>;

/// Opens a directory in which others are created. It need not be readable, where the system permits that.
#[cfg(any(target_os = "linux", target_os = "android"))]
const SEARCH: OFlags = OFlags::PATH;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const SEARCH: OFlags = OFlags::RDONLY;

/// The advice for a directory that this library did not create, such as a mounted volume.
const BELOW_IT: &str = "set store_dir to a directory in it that does not exist yet";
/// The room that is prepared for an entry, in bytes: more than most tokens need, and one block of most disks.
const ROOM: usize = 4096;

/// An open directory that belongs to this user and is inaccessible to all others.
pub(super) struct Directory {
    descriptor: File,
    /// The path by which it was opened, for messages.
    path: PathBuf,
}

impl Directory {
    /// Opens the directory, if it exists. Symbolic links are followed on the way, but not at the end.
    pub(super) fn open(path: &Path) -> Attempt<Option<Self>> {
        // With a slash or a dot at the end, the system would follow a symbolic link.
        let path: PathBuf = path.components().collect();
        match open_at(CWD, &path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW) {
            Ok(descriptor) => Self::check(descriptor, path).map(Some),
            Err(Errno::NOENT) => Ok(None),
            // Linux reports ENOTDIR for a symbolic link, other systems ELOOP.
            Err(Errno::NOTDIR | Errno::LOOP) => {
                Err(format!("{} is not a directory, or is a symbolic link to one", display_path(&path)))
            }
            Err(error) => Err(failed("open", &path)(error)),
        }
    }

    /// Opens the directory, and creates what is missing of its path with mode 0700.
    ///
    /// Links in the part of the path that exists are followed. The rest is created below the directory that they
    /// led to, even if the path changes in the meantime. A superuser creates it only if that directory belongs to
    /// the superuser.
    pub(super) fn open_or_create(path: &Path) -> Attempt<Self> {
        if let Some(directory) = Self::open(path)? {
            return Ok(directory);
        }
        let path: PathBuf = path.components().collect();
        let forbidden = |place: &Path| {
            let (path, place) = (display_path(&path), display_path(place));
            format!("cannot create {path}: {place} belongs to another user; create it first, or change store_dir")
        };
        if let Some(place) = of_another_user(&path) {
            return Err(forbidden(place));
        }
        let (mut missing, mut above) = (Vec::new(), path.as_path());
        let mut descriptor = loop {
            let (Some(name), Some(parent)) = (above.file_name(), above.parent()) else {
                return Err(failed("create", &path)(Errno::NOENT));
            };
            missing.push(name);
            above = if parent == Path::new("") { Path::new(".") } else { parent };
            match open_at(CWD, above, SEARCH | OFlags::DIRECTORY) {
                Err(Errno::NOENT) => {}
                opened => break opened.map_err(failed("create", &path))?,
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
                Err(error) => return Err(failed("create", &path)(error)),
            }
            descriptor = open_at(&descriptor, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW)
                .map_err(failed("create", &path))?;
            if owner(&descriptor, &path)? != effective_uid() {
                return Err(format!(
                    "cannot create {}: a directory in this path belongs to another user",
                    display_path(&path)
                ));
            }
        }
        Self::check(descriptor, path)
    }

    fn check(descriptor: File, path: PathBuf) -> Attempt<Self> {
        let about = descriptor.metadata().map_err(failed("examine", &path))?;
        if about.uid() != effective_uid() {
            return Err(format!("{} belongs to another user; {}", display_path(&path), BELOW_IT));
        }
        if about.mode() & 0o077 != 0 {
            let advice = format!("run chmod go= on it, or {BELOW_IT}");
            return Err(format!("{} is accessible to other users; {advice}", display_path(&path)));
        }
        Ok(Directory { descriptor, path })
    }

    /// Opens a file, if it exists. It must be a regular one of this user.
    pub(super) fn open_file(&self, name: &str, flags: OFlags) -> Attempt<Option<File>> {
        // Without O_NONBLOCK, opening a FIFO would wait for its other end.
        let file = match open_at(&self.descriptor, name, flags | OFlags::NOFOLLOW | OFlags::NONBLOCK) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(self.failed("open", name)(error)),
        };
        let about = file.metadata().map_err(self.failed("examine", name))?;
        if !about.is_file() || about.uid() != effective_uid() {
            return Err(format!("{} is not a regular file of this user", display_path(&self.path.join(name))));
        }
        Ok(Some(file))
    }

    /// Reads a file, if it exists: at most one byte more than `limit`.
    pub(super) fn read(&self, name: &str, limit: usize) -> Attempt<Option<Vec<u8>>> {
        let Some(file) = self.open_file(name, OFlags::RDONLY)? else { return Ok(None) };
        // Large enough for most records; otherwise, the first reads are of 32 bytes.
        let mut content = Vec::with_capacity(4096);
        file.take(limit as u64 + 1).read_to_end(&mut content).map_err(self.failed("read", name))?;
        Ok(Some(content))
    }

    /// Writes a file under the name `unfinished`, which must not exist yet, and renames it to `name`.
    pub(super) fn replace(&self, name: &str, unfinished: &str, content: &[u8]) -> Attempt<()> {
        self.create(name, unfinished, name, content)
    }

    /// Creates a file that has room for the content of `name`, and renames it once, so that writing `name` later
    /// does not fail for lack of space or permission.
    pub(super) fn prepare(&self, name: &str, unfinished: &str, renamed: &str) -> Attempt<()> {
        self.create(name, unfinished, renamed, &[0; ROOM])
    }

    /// Writes `content` to a file that was [prepared](Directory::prepare), and renames it to `name`.
    pub(super) fn finish(&self, mut file: &File, name: &str, prepared: &str, content: &[u8]) -> Attempt<()> {
        let written = file
            .rewind()
            .and_then(|()| file.write_all(content))
            .and_then(|()| file.set_len(content.len() as u64))
            .and_then(|()| Ok(renameat(&self.descriptor, prepared, &self.descriptor, name)?));
        written.map_err(|error| {
            let _ = unlinkat(&self.descriptor, prepared, AtFlags::empty());
            self.failed("write", name)(error)
        })
    }

    /// Writes a file under the name `unfinished`, which must not exist yet, and renames it to `renamed`. Errors name
    /// `name`.
    fn create(&self, name: &str, unfinished: &str, renamed: &str, content: &[u8]) -> Attempt<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mut file = open_at(&self.descriptor, unfinished, flags).map_err(self.failed("write", name))?;
        let written = file
            .write_all(content)
            .and_then(|()| Ok(renameat(&self.descriptor, unfinished, &self.descriptor, renamed)?));
        written.map_err(|error| {
            let _ = unlinkat(&self.descriptor, unfinished, AtFlags::empty());
            self.failed("write", name)(error)
        })
    }

    /// Removes a file if it exists, is a regular one of this user and `condition` holds.
    pub(super) fn remove(&self, name: &str, condition: impl FnOnce(&Metadata) -> bool) -> Attempt<()> {
        let Some(file) = self.open_file(name, OFlags::RDONLY)? else { return Ok(()) };
        if condition(&file.metadata().map_err(self.failed("examine", name))?) {
            unlinkat(&self.descriptor, name, AtFlags::empty()).map_err(self.failed("remove", name))?;
        }
        Ok(())
    }

    /// The names of its files that can be read and are UTF-8.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        let entries = Dir::read_from(&self.descriptor).ok().into_iter().flatten();
        entries.map_while(Result::ok).filter_map(|entry| Some(entry.file_name().to_str().ok()?.to_owned()))
    }

    pub(super) fn failed<E: Into<io::Error>>(&self, operation: &str, name: &str) -> impl FnOnce(E) -> String {
        failed(operation, self.path.join(name))
    }
}

fn open_at(directory: impl AsFd, path: impl rustix::path::Arg + Copy, flags: OFlags) -> Result<File, Errno> {
    let mode = Mode::RUSR | Mode::WUSR;
    retry_on_intr(|| openat(&directory, path, flags | OFlags::CLOEXEC, mode)).map(File::from)
}

fn owner(descriptor: &File, path: &Path) -> Attempt<u32> {
    Ok(descriptor.metadata().map_err(failed("examine", path))?.uid())
}

fn failed<E: Into<io::Error>>(operation: &str, path: impl AsRef<Path>) -> impl FnOnce(E) -> String {
    move |error| format!("cannot {operation} {}: {}", display_path(path.as_ref()), error.into())
}

/// A path for a message.
pub(super) fn display_path(path: &Path) -> String {
    sanitize(&path.display().to_string(), &[])
}
