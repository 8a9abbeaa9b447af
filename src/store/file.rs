//! The store of one machine: encrypted files in a directory that belongs to one user.
//!
//! - **Reading takes no lock.** An entry is written to a temporary file, which is then renamed. So there is a
//!   complete entry or none, whenever a writer is interrupted.
//! - **The lock ends with its holder.** It is a lock of the operating system (`flock`) on a file next to the
//!   entry, and belongs to the open file: it excludes threads as well as processes. Forked children share the
//!   open file, so the holder unlocks it before closing it. Only if the holder is killed before that, a child
//!   that it forked while it held the lock keeps it locked, until the child ends or executes another program.
//! - **Only files of this user are used.** The directory must belong to this user, be inaccessible to all
//!   others and not be a symbolic link; a file must be a regular file of this user. The checks are made on the
//!   open [`Directory`], not on its path.
//! - **File I/O has a time limit.** A disk or file server may not respond for any time, and file I/O has no
//!   timeout. So helper threads do it, which see only encrypted bytes. One that takes too long is abandoned, and
//!   the store is not used until that thread has finished.
//!
//! An error is logged, and the entry counts as absent.

mod directory;
mod location;

use super::seal::{self, EntryCipher};
use super::{Entry, LockResult, Store, WarnOnce};
use crate::config::Options;
use crate::config::environment;
use crate::sys::clock::Clock;
use crate::sys::deadline::IoDeadline;
use crate::sys::fork;
use crate::sys::threads::HelperThreads;
use directory::{Attempt, Directory, display_path};
use ring::rand::{SecureRandom, SystemRandom};
use rustix::fs::OFlags;
use std::fs::{File, Metadata, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// The longest time between two attempts to take a lock that another process or thread holds.
const LOCK_POLL_MAX: Duration = Duration::from_millis(25);

/// The suffix of files that are being written.
const TEMP_SUFFIX: &str = ".tmp";

/// Unfinished files older than this are removed: their writer must have crashed. If it was only
/// stopped, its rename fails, which is harmless.
const STALE_TEMP_AGE: Duration = Duration::from_secs(60);

/// The longest time that a caller waits for file I/O; also never more than a quarter of `timeout_ms`. It is long
/// even for a busy disk. If it is exceeded, only the first caller has to wait.
const IO_TIMEOUT: Duration = Duration::from_secs(2);

static FILE_IO_THREADS: HelperThreads = HelperThreads::new("amp-files");

pub(super) struct FileStore {
    seal: EntryCipher,
    files: Arc<Files>,
    io_timeout: Duration,
    clock: Clock,
    warnings: WarnOnce,
    /// Can be upgraded as long as the thread that was abandoned last is running.
    stuck_io: Mutex<Weak<()>>,
}

impl FileStore {
    /// Chooses the directory; creates nothing. `None` if there is no directory for the store.
    pub(super) fn open(options: &Options, seal: EntryCipher) -> Option<Self> {
        fork::install_fork_hook();
        let warnings = WarnOnce::new(&options.log);
        let directory = match options.store_dir.clone() {
            Some(directory) => directory,
            None => match location::default_store_dir(environment::variable) {
                Ok(directory) => directory,
                Err(problem) => {
                    warnings.report(&problem);
                    return None;
                }
            },
        };
        let entry = seal.name();
        Some(FileStore {
            files: Arc::new(Files { directory, lock: format!("{entry}.lock"), entry }),
            seal,
            io_timeout: IO_TIMEOUT.min(options.timeout / 4),
            clock: options.clock.clone(),
            warnings,
            stuck_io: Mutex::default(),
        })
    }

    /// Runs `work` on a helper thread, and waits for its result until the time limit.
    fn with_files<T: Send + 'static>(&self, work: impl FnOnce(&Files) -> Attempt<T> + Send + 'static) -> Attempt<T> {
        let directory = display_path(&self.files.directory);
        // Another helper thread would be abandoned as well.
        if self.stuck_io().strong_count() > 0 {
            return Err(format!("file I/O in {directory} has timed out and is still not finished"));
        }
        let (files, running) = (self.files.clone(), Arc::new(()));
        let stuck_io = Arc::downgrade(&running);
        let done = FILE_IO_THREADS.run_with_deadline(IoDeadline::after(self.io_timeout), move || {
            let _running = running;
            work(&files)
        });
        done.unwrap_or_else(|error| {
            *self.stuck_io() = stuck_io;
            Err(match error.kind() {
                ErrorKind::TimedOut => {
                    format!("file I/O in {directory} timed out after {} ms", self.io_timeout.as_millis())
                }
                _ => format!("cannot start a thread for file I/O in {directory}: {error}"),
            })
        })
    }

    fn stuck_io(&self) -> MutexGuard<'_, Weak<()>> {
        self.stuck_io.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the lock, which is held until the value is dropped. `None` if another process or thread holds it.
    fn try_lock(&self, wait: Duration) -> Attempt<Option<LockGuard>> {
        let end = self.clock.now().after(wait).monotonic;
        let mut pauses = (1..).map(|turn| LOCK_POLL_MAX.min(Duration::from_millis(1 << turn.min(8))));
        loop {
            if let Some(file) = self.with_files(Files::lock)? {
                return Ok(Some(LockGuard { file: Some(file), io_timeout: self.io_timeout }));
            }
            let left = Duration::from_nanos(u64::try_from(end - self.clock.now().monotonic).unwrap_or(0));
            if left.is_zero() {
                return Ok(None);
            }
            let pause = Duration::from_millis(1) + self.clock.random_below(pauses.next().unwrap_or(LOCK_POLL_MAX));
            self.clock.sleep(pause.min(left));
        }
    }

    fn try_save(&self, entry: &Entry) -> Attempt<()> {
        let mut random = [0; 8];
        let sealed = self.seal.seal(entry).filter(|_| SystemRandom::new().fill(&mut random).is_ok());
        let sealed = sealed.ok_or("the system's random number generator failed")?;
        self.with_files(move |files| files.write(&sealed, u64::from_ne_bytes(random)))
    }
}

impl Store for FileStore {
    fn location(&self) -> String {
        display_path(&self.files.directory)
    }

    fn load(&self) -> Option<Entry> {
        match self.with_files(Files::read) {
            Ok(sealed) => self.warnings.open(&self.seal, &sealed?, self.clock.now()),
            Err(problem) => {
                self.warnings.report(&problem);
                None
            }
        }
    }

    fn lock(&self, wait: Duration) -> LockResult {
        match self.try_lock(wait) {
            Ok(Some(held)) => LockResult::Held(Box::new(held)),
            Ok(None) => LockResult::Busy,
            Err(problem) => {
                self.warnings.report(&problem);
                LockResult::Unavailable
            }
        }
    }

    fn save(&self, entry: &Entry) {
        if let Err(problem) = self.try_save(entry) {
            self.warnings.report(&problem);
        }
    }

    fn remove(&self, token: &str) {
        // Under the lock, so that the removed entry is the one that was read. If another process holds the lock,
        // it is about to replace the entry.
        let lock = self.lock(Duration::ZERO);
        if !matches!(lock, LockResult::Busy)
            && self.load().is_some_and(|entry| entry.token.expose() == token)
            && let Err(problem) = self.with_files(Files::remove)
        {
            self.warnings.report(&problem);
        }
    }
}

/// The files. Each operation may take any time.
///
/// Each operation opens the directory once, and reaches the files through that descriptor.
struct Files {
    directory: PathBuf,
    /// The file name of the entry.
    entry: String,
    /// The file name of the lock.
    lock: String,
}

impl Files {
    fn read(&self) -> Attempt<Option<Vec<u8>>> {
        let Some(directory) = Directory::open(&self.directory)? else { return Ok(None) };
        let Some(file) = directory.open_file(&self.entry, OFlags::RDONLY)? else { return Ok(None) };
        // Large enough for most entries; otherwise, the first reads are of 32 bytes.
        let mut sealed = Vec::with_capacity(4096);
        file.take(seal::MAX_ENTRY_BYTES as u64 + 1)
            .read_to_end(&mut sealed)
            .map_err(directory.failed("read", &self.entry))?;
        Ok(Some(sealed))
    }

    /// `None` if another process or thread holds the lock.
    fn lock(&self) -> Attempt<Option<LockedFile>> {
        let directory = Directory::open_or_create(&self.directory)?;
        let existing = directory.open_file(&self.lock, OFlags::RDWR)?;
        // Created only if it does not exist: creating a file waits while another process changes the directory,
        // and a busy disk may delay that process.
        let file = if existing.is_some() {
            existing
        } else {
            directory.open_file(&self.lock, OFlags::RDWR | OFlags::CREATE)?
        };
        // Absent only if the directory was removed in the meantime.
        let Some(file) = file else { return Ok(None) };
        LockedFile::new(file).map_err(directory.failed("lock", &self.lock))
    }

    fn write(&self, sealed: &[u8], number: u64) -> Attempt<()> {
        let directory = Directory::open_or_create(&self.directory)?;
        self.remove_stale_temp_files(&directory);
        directory.replace(&self.entry, &self.unfinished(number), sealed)
    }

    fn remove(&self) -> Attempt<()> {
        let Some(directory) = Directory::open(&self.directory)? else { return Ok(()) };
        directory.remove(&self.entry, |_| true)
    }

    /// Removes the unfinished files of this entry whose writers were killed, and nothing else: the
    /// directory may hold files of other programs.
    fn remove_stale_temp_files(&self, directory: &Directory) {
        let age = |about: &Metadata| about.modified().ok()?.elapsed().ok();
        for name in directory.names().filter(|name| self.is_unfinished(name)) {
            let _ = directory.remove(&name, |about| age(about).is_some_and(|age| age > STALE_TEMP_AGE));
        }
    }

    /// The name of a file that is renamed to the entry when it is complete.
    fn unfinished(&self, number: u64) -> String {
        format!("{}.{number:016x}{TEMP_SUFFIX}", self.entry)
    }

    /// Whether [`unfinished`](Files::unfinished) can have made this name.
    fn is_unfinished(&self, name: &str) -> bool {
        let number = name.strip_prefix(&self.entry).and_then(|rest| rest.strip_prefix('.'));
        let number = number.and_then(|rest| rest.strip_suffix(TEMP_SUFFIX));
        number.is_some_and(|digits| {
            digits.len() == 16 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
        })
    }
}

/// The lock, while it is held.
struct LockGuard {
    file: Option<LockedFile>,
    io_timeout: Duration,
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        let file = self.file.take();
        // Unlocking may need a file server. (If no thread can be started, the file is unlocked here.)
        let _ = FILE_IO_THREADS.run_with_deadline(IoDeadline::after(self.io_timeout), move || drop(file));
    }
}

/// A file that this process has locked. It is unlocked when this value is dropped.
struct LockedFile {
    file: File,
    generation: u64,
}

impl LockedFile {
    /// `None` if another process or thread holds the lock.
    fn new(file: File) -> io::Result<Option<Self>> {
        let generation = fork::generation();
        match file.try_lock() {
            Ok(()) => Ok(Some(LockedFile { file, generation })),
            Err(TryLockError::WouldBlock) => Ok(None),
            // A signal interrupted the request to a file server.
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Interrupted => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        // If a child was forked in the meantime, closing the file would leave it locked. In that child, the lock
        // belongs to the parent and is kept.
        if self.generation == fork::generation() {
            let _ = self.file.unlock();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::fs::{self, DirBuilder};
    use std::os::unix::fs::DirBuilderExt;
    use std::path::Path;
    use std::time::SystemTime;

    /// An empty directory for one test, with the mode that a store needs.
    pub(super) fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("amp-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        DirBuilder::new().mode(0o700).create(&path).unwrap();
        path
    }

    /// The names and contents of the files in a directory.
    fn content(directory: &Path) -> BTreeMap<String, String> {
        let files = fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        files.map(|path| (name(&path), fs::read_to_string(&path).unwrap())).collect()
    }

    #[test]
    fn a_directory_that_takes_the_place_of_the_open_one_is_left_alone() {
        for by_a_link in [false, true] {
            let scratch = scratch("swapped");
            let (store, moved, victim) = (scratch.join("store"), scratch.join("moved"), scratch.join("victim"));
            let files = Files { directory: store.clone(), entry: "e".repeat(32), lock: "lock".to_owned() };
            // Each has a stale file, of different names, so that reading the wrong directory shows.
            for (directory, number) in [(&store, 1), (&victim, 2)] {
                DirBuilder::new().mode(0o700).create(directory).unwrap();
                let stale = directory.join(files.unfinished(number));
                fs::write(&stale, "stale").unwrap();
                let old = SystemTime::now() - 2 * STALE_TEMP_AGE;
                File::options().write(true).open(&stale).unwrap().set_modified(old).unwrap();
            }
            fs::write(victim.join(&files.entry), "victim").unwrap();
            let before = content(&victim);
            let directory = Directory::open(&store).unwrap().unwrap();
            fs::rename(&store, &moved).unwrap();
            if by_a_link {
                std::os::unix::fs::symlink(&victim, &store).unwrap();
            } else {
                fs::rename(&victim, &store).unwrap();
            }

            assert!(directory.open_file(&files.entry, OFlags::RDONLY).unwrap().is_none());
            assert!(directory.open_file(&files.lock, OFlags::RDWR | OFlags::CREATE).unwrap().is_some());
            files.remove_stale_temp_files(&directory);
            directory.replace(&files.entry, &files.unfinished(3), b"new").unwrap();
            let file = |name: &str, content: &str| (name.to_owned(), content.to_owned());
            assert_eq!(content(&moved), BTreeMap::from([file(&files.entry, "new"), file(&files.lock, "")]));
            directory.remove(&files.entry, |_| true).unwrap();
            assert_eq!(content(&moved), BTreeMap::from([file(&files.lock, "")]));
            assert_eq!(content(&store), before);
            fs::remove_dir_all(scratch).unwrap();
        }
    }

    #[test]
    fn a_failed_write_removes_its_own_unfinished_file_only() {
        let scratch = scratch("unfinished");
        let directory = Directory::open(&scratch).unwrap().unwrap();
        fs::write(scratch.join("other"), "of another writer").unwrap();
        fs::create_dir(scratch.join("entry")).unwrap();
        assert!(directory.replace("entry", "other", b"new").is_err());
        assert!(directory.replace("entry", "own", b"new").is_err(), "a directory is not replaced by a file");
        assert!(scratch.join("other").exists() && !scratch.join("own").exists());
        fs::remove_dir_all(scratch).unwrap();
    }
}
