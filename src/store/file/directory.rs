//! The directory of the store, through one descriptor.
//!
//! A path can lead to another directory at any time if another user may rename a directory in the path. So the path
//! is resolved once: the directory is opened, the open directory is checked, and all files are accessed through its
//! descriptor (on Windows, its handle). What differs between the systems is in `unix.rs` and `windows.rs`, which have
//! the same functions.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

use crate::sanitize::sanitize;
#[cfg(unix)]
use crate::sys::at_once::{Follow, LocalDirectory};
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};
#[cfg(unix)]
use unix as system;
#[cfg(windows)]
use windows as system;

#[cfg(windows)]
pub(super) use windows::default_store_dir;

/// The error is a message. A file that does not exist is not an error.
pub(super) type Attempt<T> = Result<T, String>;

/// The advice for a directory that this library did not create, such as a mounted volume.
const BELOW_IT: &str = "set store_dir to a directory in it that does not exist yet";
/// The room that is prepared for an entry, in bytes: more than most tokens need, and one block of most disks.
const ROOM: usize = 4096;

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// To read it.
    Read,
    /// To overwrite and rename it.
    Write,
    /// To lock and touch it.
    Lock,
    /// The same; it is created if it does not exist.
    CreateLock,
    /// To write a file that must not exist yet, and rename it.
    CreateNew,
    /// To remove it.
    Remove,
}

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
        Ok(system::open(&path)?.map(|descriptor| Directory { descriptor, path }))
    }

    /// Opens the directory, and creates what is missing of its path, for this user only.
    ///
    /// Links in the part of the path that exists are followed. The rest is created below the directory that they
    /// led to, even if the path changes in the meantime.
    pub(super) fn open_or_create(path: &Path) -> Attempt<Self> {
        if let Some(directory) = Self::open(path)? {
            return Ok(directory);
        }
        let path: PathBuf = path.components().collect();
        Ok(Directory { descriptor: system::create(&path)?, path })
    }

    /// Opens a file, if it exists. It must be a regular one of this user.
    pub(super) fn open_file(&self, name: &str, access: Access) -> Attempt<Option<File>> {
        let file = match system::open_file(&self.descriptor, name, access) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed("open", name)(error)),
        };
        let about = file.metadata().map_err(self.failed("examine", name))?;
        if !system::is_own_regular_file(&file, &about).map_err(self.failed("examine", name))? {
            return Err(format!("{} is not a regular file of this user", display_path(&self.path.join(name))));
        }
        Ok(Some(file))
    }

    /// Reads a file, if it exists: at most one byte more than `limit`.
    pub(super) fn read(&self, name: &str, limit: usize) -> Attempt<Option<Vec<u8>>> {
        let Some(file) = self.open_file(name, Access::Read)? else { return Ok(None) };
        // Large enough for most records; otherwise, the first reads are of 32 bytes.
        let mut content = Vec::with_capacity(4096);
        file.take(limit as u64 + 1).read_to_end(&mut content).map_err(self.failed("read", name))?;
        Ok(Some(content))
    }

    /// Reads files of a directory as [`open`](Directory::open) and [`read`](Directory::read) do, but only if nothing has
    /// to be waited for, and nothing is wrong; otherwise `None`.
    #[cfg(unix)]
    pub(super) fn read_at_once<const FILES: usize>(
        path: &Path,
        names: [&str; FILES],
        limit: usize,
    ) -> Option<[Option<Vec<u8>>; FILES]> {
        let path: PathBuf = path.components().collect();
        let directory = LocalDirectory::open(&path, Follow::No)?.ok()?;
        system::check(directory.descriptor(), &path).ok()?;
        let mut contents = [const { None }; FILES];
        for (name, content) in names.into_iter().zip(&mut contents) {
            let Ok(mut file) = directory.read_file(name.as_ref(), Follow::No, limit)? else { continue };
            if !system::is_own_regular_file(&file.opened, &file.about).ok()? {
                return None;
            }
            *content = Some(std::mem::take(&mut *file.bytes));
        }
        Some(contents)
    }

    /// Nothing is known about how long a system call takes.
    #[cfg(not(unix))]
    pub(super) fn read_at_once<const FILES: usize>(
        _: &Path,
        _: [&str; FILES],
        _: usize,
    ) -> Option<[Option<Vec<u8>>; FILES]> {
        None
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
    pub(super) fn finish(&self, file: &File, name: &str, prepared: &str, content: &[u8]) -> Attempt<()> {
        let mut writer = file;
        let written = writer
            .rewind()
            .and_then(|()| writer.write_all(content))
            .and_then(|()| file.set_len(content.len() as u64))
            .and_then(|()| system::rename(&self.descriptor, file, prepared, name));
        written.map_err(|error| {
            let _ = system::remove(&self.descriptor, file, prepared);
            self.failed("write", name)(error)
        })
    }

    /// Writes a file under the name `unfinished`, which must not exist yet, and renames it to `renamed`. Errors name
    /// `name`.
    fn create(&self, name: &str, unfinished: &str, renamed: &str, content: &[u8]) -> Attempt<()> {
        let mut file =
            system::open_file(&self.descriptor, unfinished, Access::CreateNew).map_err(self.failed("write", name))?;
        let written =
            file.write_all(content).and_then(|()| system::rename(&self.descriptor, &file, unfinished, renamed));
        written.map_err(|error| {
            let _ = system::remove(&self.descriptor, &file, unfinished);
            self.failed("write", name)(error)
        })
    }

    /// Removes a file if it exists, is a regular one of this user and `condition` holds.
    pub(super) fn remove(&self, name: &str, condition: impl FnOnce(&Metadata) -> bool) -> Attempt<()> {
        let Some(file) = self.open_file(name, Access::Remove)? else { return Ok(()) };
        if condition(&file.metadata().map_err(self.failed("examine", name))?) {
            system::remove(&self.descriptor, &file, name).map_err(self.failed("remove", name))?;
        }
        Ok(())
    }

    /// The names of its files that can be read and are UTF-8.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        system::names(&self.descriptor, &self.path)
    }

    pub(super) fn failed<E: Into<io::Error>>(&self, operation: &str, name: &str) -> impl FnOnce(E) -> String {
        failed(operation, self.path.join(name))
    }
}

/// Sets the time of the last change of a file to now, by the clock of its server, and returns it. `None` if that clock
/// cannot be read.
pub(super) fn touch(file: &File) -> Option<i64> {
    system::touch(file)
}

fn failed<E: Into<io::Error>>(operation: &str, path: impl AsRef<Path>) -> impl FnOnce(E) -> String {
    move |error| format!("cannot {operation} {}: {}", display_path(path.as_ref()), error.into())
}

/// A path for a message.
pub(super) fn display_path(path: &Path) -> String {
    sanitize(&path.display().to_string(), &[])
}
