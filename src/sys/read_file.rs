//! Reads a small file within a deadline.
//!
//! A file of the settings may be on a file server that does not respond, or be a pipe that nothing is written to. So a
//! helper thread opens and reads it, and the caller waits until its deadline; only what is in memory already is read
//! without a thread. The file must be a regular one or a pipe; it is opened without waiting for the other end of a pipe.
//! The content may be a secret, and is wiped.

use crate::sys::at_once::{Follow, LocalDirectory};
use crate::sys::deadline::IoDeadline;
use crate::sys::threads::HelperThreads;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::Path;
#[cfg(unix)]
use std::time::Duration;
use zeroize::Zeroizing;

static READERS: HelperThreads = HelperThreads::new("amp-files");

/// A file that was read.
pub(crate) struct FileContent {
    /// The content; longer than the limit by one byte if the file is longer.
    pub(crate) bytes: Zeroizing<Vec<u8>>,
    /// What the system knows about the file.
    pub(crate) about: Metadata,
    /// The file.
    pub(crate) opened: File,
}

/// Reads a file of at most `limit` bytes. After the deadline an error of the kind `TimedOut`.
pub(crate) fn read_file(path: &Path, limit: usize, deadline: IoDeadline) -> io::Result<FileContent> {
    deadline.remaining()?;
    if let Some(at_once) = read_at_once(path, limit) {
        return at_once;
    }
    let path = path.to_owned();
    READERS.run_with_deadline(deadline, move || {
        let file = open(&path)?;
        let about = file.metadata()?;
        if about.is_file() {
            // Large enough for all of it from the start, because a buffer that grows leaves copies that are not wiped.
            let size = usize::try_from(about.len()).unwrap_or(limit).min(limit);
            let mut bytes = Zeroizing::new(Vec::with_capacity(size + 4096));
            (&file).take(limit as u64 + 1).read_to_end(&mut bytes)?;
            return Ok(FileContent { bytes, about, opened: file });
        }
        if !is_pipe(&about) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is neither a regular file nor a pipe"));
        }
        Ok(FileContent { bytes: read_pipe(&file, limit, deadline)?, about, opened: file })
    })?
}

/// The same for a file whose content or absence is known without waiting. `None` for all others.
fn read_at_once(path: &Path, limit: usize) -> Option<io::Result<FileContent>> {
    let (parent, name) = (path.parent()?, path.file_name()?);
    // Not `file/`, which only a directory can be.
    if parent.join(name).as_os_str() != path.as_os_str() {
        return None;
    }
    let directory = match LocalDirectory::open(parent, Follow::Yes)? {
        Ok(directory) => directory,
        Err(error) => return Some(Err(error)),
    };
    directory.read_file(name.as_ref(), Follow::Yes, limit)
}

#[cfg(unix)]
fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

#[cfg(not(unix))]
fn open(path: &Path) -> io::Result<File> {
    File::open(path)
}

#[cfg(unix)]
fn is_pipe(about: &Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_fifo(&about.file_type())
}

#[cfg(not(unix))]
fn is_pipe(_: &Metadata) -> bool {
    true
}

#[cfg(not(unix))]
fn read_pipe(file: &File, limit: usize, _: IoDeadline) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit + 1));
    file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a pipe until its writers have closed it.
#[cfg(unix)]
fn read_pipe(mut file: &File, limit: usize, deadline: IoDeadline) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(vec![0; limit + 1]);
    let mut length = 0;
    while length < bytes.len() {
        match file.read(&mut bytes[length..]) {
            // Nothing was written yet, because no writer has opened the pipe. Without a name, none ever will.
            Ok(0) if length == 0 && !is_anonymous(file) => {
                if !wait_for_input(file, deadline)? {
                    break;
                }
            }
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait_for_input(file, deadline)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// Whether a pipe has no name, such as that of `<(command)` in a shell.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn is_anonymous(file: &File) -> bool {
    const PIPEFS_MAGIC: u64 = 0x5049_5045;
    rustix::fs::fstatfs(file).is_ok_and(|about| about.f_type as u64 == PIPEFS_MAGIC)
}

#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
fn is_anonymous(file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    file.metadata().is_ok_and(|about| about.nlink() == 0)
}

/// Waits until there is something to read, or the last writer has closed the pipe. Returns whether there is something.
#[cfg(unix)]
fn wait_for_input(file: &File, deadline: IoDeadline) -> io::Result<bool> {
    use std::os::fd::AsRawFd;
    loop {
        // Ends before the caller does, so that this thread does not take what is written for the next one.
        let left = deadline.remaining()?.as_millis().min(60_000);
        if left == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut input = libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: `input` is one pollfd, which the call reads and writes, and its descriptor is open as long as `file`.
        match unsafe { libc::poll(&raw mut input, 1, left as libc::c_int) } {
            0 => {}
            // macOS reports the lack of a writer at once, and does not tell whether there was one.
            count if count > 0 && cfg!(target_vendor = "apple") && input.revents & libc::POLLHUP != 0 => {
                std::thread::sleep(Duration::from_millis(left.min(10) as u64));
                return Ok(true);
            }
            count if count > 0 => return Ok(input.revents & libc::POLLIN != 0),
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::io::Write;
    use std::path::PathBuf;

    const LONG: Duration = Duration::from_secs(60);

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("amp-read-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        path
    }

    fn read(path: &Path, timeout: Duration) -> Result<Vec<u8>, io::ErrorKind> {
        let content = read_file(path, 5000, IoDeadline::after(timeout)).map_err(|error| error.kind())?;
        Ok(content.bytes.to_vec())
    }

    #[test]
    fn regular_files_are_read_up_to_the_limit() {
        let directory = scratch("regular");
        let file = directory.join("file");
        for (length, expected) in [(0, 0), (4999, 4999), (5000, 5000), (5001, 5001), (9000, 5001)] {
            std::fs::write(&file, vec![7; length]).unwrap();
            assert_eq!(read(&file, LONG).unwrap(), vec![7; expected]);
        }
        assert_eq!(read(&directory.join("missing"), LONG), Err(io::ErrorKind::NotFound));
        for other in [directory.as_path(), Path::new("/dev/zero")] {
            assert!(read(other, LONG).is_err(), "{}", other.display());
        }
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_pipe_is_read_if_it_answers() {
        let directory = scratch("pipe");
        // Each of its own: a reader that was abandoned may still be about to end.
        let new_pipe = |name: &str| {
            let pipe = directory.join(name);
            assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
            pipe
        };
        // Nothing is written to it, whether it is open for writing or not.
        assert_eq!(read(&new_pipe("unopened"), Duration::from_millis(50)), Err(io::ErrorKind::TimedOut));
        let pipe = new_pipe("silent");
        let silent = File::options().read(true).write(true).open(&pipe).unwrap();
        assert_eq!(read(&pipe, Duration::from_millis(50)), Err(io::ErrorKind::TimedOut));
        drop(silent);
        // A writer that comes later, and writes piece by piece.
        for pieces in [vec![], vec!["one"], vec!["one", "two", "three"]] {
            let pipe = new_pipe(&format!("written-{}", pieces.len()));
            let writer = std::thread::spawn({
                let (pipe, pieces) = (pipe.clone(), pieces.clone());
                move || {
                    let mut pipe = File::options().write(true).open(pipe).unwrap();
                    pieces.iter().for_each(|piece| pipe.write_all(piece.as_bytes()).unwrap());
                }
            });
            assert_eq!(read(&pipe, LONG).unwrap(), pieces.concat().as_bytes());
            writer.join().unwrap();
        }
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_pipe_without_a_name_is_empty_when_it_was_read() {
        use std::os::fd::AsRawFd;
        let (reader, mut writer) = io::pipe().unwrap();
        let path = PathBuf::from(format!("/proc/self/fd/{}", reader.as_raw_fd()));
        writer.write_all(b"secret").unwrap();
        drop(writer);
        assert_eq!(read(&path, LONG).unwrap(), b"secret");
        assert_eq!(read(&path, LONG).unwrap(), b"");
    }
}
