//! The store of one machine: encrypted files in a directory that belongs to one user.
//!
//! - **Reading takes no lock.** A record is written to a temporary file, which is then renamed. So there is a
//!   complete record or none, whenever a writer is interrupted.
//! - **The lock ends with its holder.** It is a lock of the operating system (`flock`) on a file next to the
//!   entry, and belongs to the open file: it excludes threads as well as processes. Forked children share the
//!   open file, so the holder unlocks it before closing it. Only if the holder is killed before that, a child
//!   that it forked while it held the lock keeps it locked, until the child ends or executes another program.
//! - **The lock is a promise to share.** It is taken only if the file of an entry could be created, filled and
//!   renamed. So no process waits for one whose token could not be stored.
//! - **Waiting costs nothing.** Those that wait ask the system for a shared lock, which all of them get at the
//!   moment when the holder unlocks. They look at the entry now and then, because a process without the lock may
//!   have stored it.
//! - **Only files of this user are used.** The directory must belong to this user, be inaccessible to all
//!   others and not be a symbolic link; a file must be a regular file of this user. The checks are made on the
//!   open [`Directory`], not on its path.
//! - **File I/O has a time limit.** Helper threads do it, which see only encrypted bytes; see [`gate`]. Only what is in
//!   memory already is read by the caller; see [`at_once`](crate::sys::at_once).
//!
//! An error is logged, and the entry counts as absent.

mod directory;
mod gate;
#[cfg(unix)]
mod location;

use super::seal::{self, RecordCipher, Times};
use super::{
    Codec, Contents, Entry, IO_TIMEOUT, IoBudget, Lock, LockResult, Note, Removal, Store, WarnOnce, jittered,
    unlock_timeout,
};
use crate::config::Options;
use crate::oauth::retry::Deadline;
use crate::sys::boot;
use crate::sys::clock::Clock;
use crate::sys::fork;
use crate::sys::threads::HelperThreads;
#[cfg(windows)]
use directory::default_store_dir;
use directory::{Access, Attempt, Directory, display_path, touch};
use gate::Gate;
#[cfg(unix)]
use location::default_store_dir;
use ring::rand::{SecureRandom, SystemRandom};
use std::fs::{File, Metadata, TryLockError};
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The suffix of files that are being written.
const TEMP_SUFFIX: &str = ".tmp";

/// Unfinished files older than this are removed: their writer must have crashed. If it was only
/// stopped, its rename fails, which is harmless.
const STALE_TEMP_AGE: Duration = Duration::from_secs(60);

/// The shortest and the longest time between two looks at the entry while another process holds the lock. The lock
/// wakes those that wait, so that these looks only find what was stored without it.
const LOOK_AFTER: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(4)];

/// The same, where no thread can wait for the lock.
const POLL_AFTER: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(250)];

/// A shared lock that is granted sooner than this was not waited for: others have it too, and no process
/// holds the exclusive lock. Then the processes that want the lock must get out of step.
const AT_ONCE: Duration = Duration::from_millis(2);

/// The longest time by which they do.
const OUT_OF_STEP: Duration = Duration::from_millis(20);

/// The threads that wait for a lock. A store has one at most.
static LOCK_WAITERS: HelperThreads = HelperThreads::new("amp-lock");

pub(super) struct FileStore {
    codec: Codec,
    files: Arc<Files>,
    gate: Arc<Gate>,
    warnings: WarnOnce,
    /// Where the thread that waits for the lock reports its release, if there is such a thread.
    release: Mutex<Option<Receiver<()>>>,
}

impl FileStore {
    /// Chooses the directory; creates nothing. `None` if there is no directory for the store.
    pub(super) fn open(options: &Options, cipher: RecordCipher) -> Option<Self> {
        fork::install_fork_hook();
        let warnings = WarnOnce::new(&options.log);
        let directory = match options.store_dir.clone() {
            Some(directory) => directory,
            None => match default_store_dir(|name| options.environment.get(name)) {
                Ok(directory) => directory,
                Err(problem) => {
                    warnings.report(&problem);
                    return None;
                }
            },
        };
        Some(FileStore {
            gate: Gate::of(&directory),
            files: Arc::new(Files::new(directory, &cipher.name())),
            codec: Codec::new(cipher, &options.clock),
            warnings,
            release: Mutex::default(),
        })
    }

    /// Runs `work` on a helper thread, and waits for its result until the time limit.
    fn with_files<T: Send + 'static>(
        &self,
        budget: &IoBudget,
        work: impl FnOnce(&Files) -> Attempt<T> + Send + 'static,
    ) -> Attempt<T> {
        let files = self.files.clone();
        budget.spend(IO_TIMEOUT, |limit| self.gate.run(limit, move || work(&files)))
    }

    /// The time now, also by the clock of the file server if the record was made in another boot.
    fn now(&self, made: &Times, budget: &IoBudget) -> Times {
        let now = self.codec.now(None);
        if now.is_same_boot(made) || made.store.is_none() {
            return now;
        }
        let store = self.with_files(budget, Files::time).unwrap_or_else(|problem| {
            self.warnings.report(&problem);
            None
        });
        self.codec.now(store)
    }

    /// Sealed bytes, and a random number for the name of their unfinished file.
    fn sealed(&self, seal: impl FnOnce() -> Option<Vec<u8>>) -> Attempt<(Vec<u8>, u64)> {
        let failed = || "the system's random number generator failed".to_owned();
        Ok((seal().ok_or_else(failed)?, random_number().ok_or_else(failed)?))
    }

    fn try_save(&self, entry: &Entry, lock: Option<Lock>, budget: &IoBudget) -> Attempt<()> {
        let lock = lock.and_then(|lock| lock.downcast::<LockGuard>().ok()).and_then(|mut guard| guard.file.take());
        let store_time = lock.as_ref().and_then(|lock| lock.time_now(&self.codec.clock));
        let (sealed, number) = self.sealed(|| self.codec.seal_entry(entry, store_time))?;
        let files = self.files.clone();
        let save = move || files.save(&sealed, number, lock);
        // What is not finished in time is finished by the thread. The caller needs the token while it is young.
        budget.spend(IO_TIMEOUT.min(entry.lifetime / 10), |limit| self.gate.run_or_leave(limit, save)).map(|_| ())
    }
}

impl Store for FileStore {
    fn location(&self) -> String {
        display_path(&self.files.directory)
    }

    fn read(&self, budget: &IoBudget) -> Contents {
        let at_once = self.files.read_at_once();
        let [entry, note] = match at_once.map_or_else(|| self.with_files(budget, Files::read), Ok) {
            Ok(both) => both,
            Err(problem) => {
                self.warnings.report(&problem);
                return Contents::default();
            }
        };
        Contents {
            entry: entry
                .and_then(|sealed| self.warnings.open(&self.codec, &sealed, |record| self.now(&record.made, budget))),
            note: note.and_then(|sealed| self.codec.open_note(&sealed, |record| self.now(&record.made, budget))),
            // To ask for the lock costs no more than to take it.
            is_locked: false,
        }
    }

    fn try_lock(&self, budget: &IoBudget) -> LockResult {
        let numbers = random_number().zip(random_number());
        let Some(numbers) = numbers else { return LockResult::Unavailable };
        match self.with_files(budget, move |files| files.lock(numbers)) {
            Ok(Some(mut lock)) => {
                lock.taken = self.codec.clock.boot_time();
                LockResult::Held(Box::new(LockGuard { file: Some(lock), deadline: budget.deadline.clone() }))
            }
            Ok(None) => LockResult::Busy,
            Err(problem) => {
                self.warnings.report(&problem);
                LockResult::Unavailable
            }
        }
    }

    fn wait(&self, waited: Duration, limit: Duration) -> bool {
        let clock = &self.codec.clock;
        let between = |[least, most]: [Duration; 2]| jittered(waited.clamp(least, most), clock).min(limit);
        let slot = || self.release.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = slot().take();
        let files = self.files.clone();
        let release = match clock {
            // Virtual time passes only while a caller sleeps.
            Clock::Manual(_) => None,
            Clock::System => kept.or_else(|| LOCK_WAITERS.try_start(move || files.wait_for_release())),
        };
        let Some(release) = release else {
            clock.sleep(between(POLL_AFTER));
            return true;
        };
        let start = Instant::now();
        if release.recv_timeout(between(LOOK_AFTER)) == Err(RecvTimeoutError::Timeout) {
            *slot() = Some(release);
            return false;
        }
        if start.elapsed() < AT_ONCE {
            clock.sleep(clock.random_below(OUT_OF_STEP).min(limit));
        }
        true
    }

    fn save(&self, entry: &Entry, lock: Option<Lock>, budget: &IoBudget) {
        if let Err(problem) = self.try_save(entry, lock, budget) {
            self.warnings.report(&problem);
        }
    }

    fn leave_note(&self, note: &Note, left: Duration, budget: &IoBudget) {
        let written = self
            .sealed(|| self.codec.seal_note(note, left, None))
            .and_then(|(sealed, number)| self.with_files(budget, move |files| files.write_note(&sealed, number)));
        if let Err(problem) = written {
            self.warnings.report(&problem);
        }
    }

    fn remove(&self, token: &str, budget: &IoBudget) -> Removal {
        let removed = self.with_files(budget, Files::read_entry).and_then(|sealed| {
            let Some(sealed) = sealed else { return Ok(Removal::NotStored) };
            let entry = self.codec.open_entry(&sealed, |record| self.now(&record.made, budget));
            if !entry.is_ok_and(|entry| entry.token.expose() == token) {
                return Ok(Removal::NotStored);
            }
            self.with_files(budget, move |files| files.remove(&sealed))
        });
        removed.unwrap_or_else(|problem| {
            self.warnings.report(&problem);
            Removal::Failed(problem)
        })
    }

    fn for_child(&self) -> Arc<dyn Store> {
        Arc::new(FileStore {
            codec: self.codec.for_child(),
            files: self.files.clone(),
            gate: self.gate.clone(),
            warnings: WarnOnce::new(&self.warnings.log),
            release: Mutex::default(),
        })
    }
}

fn random_number() -> Option<u64> {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(u64::from_ne_bytes(bytes))
}

/// The files. Each operation may take any time.
///
/// Each operation opens the directory once, and reaches the files through that descriptor.
struct Files {
    directory: PathBuf,
    /// The file name of the entry.
    entry: String,
    /// The file name of the note.
    note: String,
    /// The file name of the lock.
    lock: String,
}

impl Files {
    fn new(directory: PathBuf, name: &str) -> Self {
        Files { directory, entry: name.to_owned(), note: format!("{name}.note"), lock: format!("{name}.lock") }
    }

    /// The entry and the note. A note that cannot be read counts as absent.
    fn read(&self) -> Attempt<[Option<Vec<u8>>; 2]> {
        let Some(directory) = Directory::open(&self.directory)? else { return Ok([None, None]) };
        let entry = directory.read(&self.entry, seal::MAX_RECORD_BYTES)?;
        Ok([entry, directory.read(&self.note, seal::MAX_RECORD_BYTES).unwrap_or(None)])
    }

    /// The same, if both are in memory already: without a thread. Problems are left to [`read`](Files::read).
    fn read_at_once(&self) -> Option<[Option<Vec<u8>>; 2]> {
        Directory::read_at_once(&self.directory, [&self.entry, &self.note], seal::MAX_RECORD_BYTES)
    }

    fn read_entry(&self) -> Attempt<Option<Vec<u8>>> {
        let Some(directory) = Directory::open(&self.directory)? else { return Ok(None) };
        directory.read(&self.entry, seal::MAX_RECORD_BYTES)
    }

    /// The clock of the file server: the time that it sets on a file that is touched. `None` if it has none.
    fn time(&self) -> Attempt<Option<i64>> {
        let directory = Directory::open_or_create(&self.directory)?;
        Ok(self.open_lock(&directory)?.and_then(|file| touch(&file)))
    }

    fn open_lock(&self, directory: &Directory) -> Attempt<Option<File>> {
        let existing = directory.open_file(&self.lock, Access::Lock)?;
        // Created only if it does not exist: creating a file waits while another process changes the directory,
        // and a busy disk may delay that process.
        if existing.is_some() {
            return Ok(existing);
        }
        // Absent only if the directory was removed in the meantime.
        directory.open_file(&self.lock, Access::CreateLock)
    }

    /// Takes the lock, and makes sure that an entry can be written. `None` if another process or thread holds it.
    fn lock(&self, numbers: (u64, u64)) -> Attempt<Option<LockedFile>> {
        let directory = Directory::open_or_create(&self.directory)?;
        let Some(file) = self.open_lock(&directory)? else { return Ok(None) };
        let locked = LockedFile::new(file).map_err(directory.failed("lock", &self.lock))?;
        let Some(mut locked) = locked else { return Ok(None) };
        locked.time = touch(&locked.file);
        let (first, name) = (self.unfinished(numbers.0), self.unfinished(numbers.1));
        directory.prepare(&self.entry, &first, &name)?;
        // Its descriptors are closed: the token request may need the last ones of this process.
        locked.prepared = Some(Prepared { directory: self.directory.clone(), name });
        Ok(Some(locked))
    }

    /// Waits until no process holds the lock any more.
    fn wait_for_release(&self) {
        let Ok(Some(directory)) = Directory::open(&self.directory) else { return };
        let Ok(Some(file)) = directory.open_file(&self.lock, Access::Lock) else { return };
        while file.lock_shared().is_err_and(|error| error.kind() == ErrorKind::Interrupted) {}
        let _ = file.unlock();
    }

    /// Writes the entry, removes the note, and then releases the lock.
    fn save(&self, sealed: &[u8], number: u64, mut lock: Option<LockedFile>) -> Attempt<()> {
        let directory = Directory::open_or_create(&self.directory)?;
        let prepared = lock.as_mut().and_then(|lock| lock.prepared.take()).map(|prepared| prepared.name);
        let room = prepared.as_ref().map(|name| directory.open_file(name, Access::Write)).transpose()?.flatten();
        match room.zip(prepared) {
            Some((file, name)) => directory.finish(&file, &self.entry, &name, sealed)?,
            None => directory.replace(&self.entry, &self.unfinished(number), sealed)?,
        }
        let _ = directory.remove(&self.note, |_| true);
        // The others need not wait for the rest.
        drop(lock);
        self.remove_stale_temp_files(&directory);
        Ok(())
    }

    fn write_note(&self, sealed: &[u8], number: u64) -> Attempt<()> {
        Directory::open_or_create(&self.directory)?.replace(&self.note, &self.unfinished(number), sealed)
    }

    /// Removes the entry if it still is this one. Under the lock: another process that holds it is about to replace
    /// the entry.
    fn remove(&self, sealed: &[u8]) -> Attempt<Removal> {
        let Some(directory) = Directory::open(&self.directory)? else { return Ok(Removal::NotStored) };
        let file = self.open_lock(&directory)?;
        let locked = file.map(LockedFile::new).transpose().map_err(directory.failed("lock", &self.lock))?;
        if locked.as_ref().is_some_and(Option::is_none) {
            return Ok(Removal::Busy);
        }
        if directory.read(&self.entry, seal::MAX_RECORD_BYTES)?.as_deref() != Some(sealed) {
            return Ok(Removal::NotStored);
        }
        directory.remove(&self.entry, |_| true)?;
        Ok(Removal::Removed)
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
    /// The deadline of the call that took it.
    deadline: Option<(Clock, Deadline)>,
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        let Some(file) = self.file.take() else { return };
        // Unlocking may need a file server. (If no thread can be started, the file is unlocked here.)
        if let Some(done) = LOCK_WAITERS.try_start(move || drop(file)) {
            let _ = done.recv_timeout(unlock_timeout(self.deadline.as_ref()));
        }
    }
}

/// A file that this process has locked. It is unlocked when this value is dropped.
struct LockedFile {
    file: File,
    generation: u64,
    /// The file for the next entry, if it is not written yet.
    prepared: Option<Prepared>,
    /// The time of the file server when the lock was taken.
    time: Option<i64>,
    /// The time since the boot at which the lock was taken.
    taken: i64,
}

/// A file that has room for an entry.
struct Prepared {
    directory: PathBuf,
    name: String,
}

impl LockedFile {
    /// `None` if another process or thread holds the lock.
    fn new(file: File) -> io::Result<Option<Self>> {
        let generation = fork::generation();
        match file.try_lock() {
            Ok(()) => Ok(Some(LockedFile { file, generation, prepared: None, time: None, taken: 0 })),
            Err(TryLockError::WouldBlock) => Ok(None),
            // A signal interrupted the request to a file server.
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Interrupted => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// The time of the file server now.
    fn time_now(&self, clock: &Clock) -> Option<i64> {
        if boot::identity() == boot::UNKNOWN {
            return None;
        }
        Some(self.time?.saturating_add(clock.boot_time().saturating_sub(self.taken)))
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        // If a child was forked in the meantime, closing the file would leave it locked. In that child, the lock
        // belongs to the parent and is kept, and so is the parent's file.
        if self.generation == fork::generation() {
            if let Some(Prepared { directory, name }) = self.prepared.take()
                && let Ok(Some(directory)) = Directory::open(&directory)
            {
                let _ = directory.remove(&name, |_| true);
            }
            let _ = self.file.unlock();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(unix)]
    use std::collections::BTreeMap;
    use std::fs;
    #[cfg(unix)]
    use std::{path::Path, time::SystemTime};

    /// An empty directory for one test, which a store accepts.
    pub(super) fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("amp-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Directory::open_or_create(&path).unwrap();
        path
    }

    /// The names and contents of the files in a directory.
    #[cfg(unix)]
    fn content(directory: &Path) -> BTreeMap<String, String> {
        let files = fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        files.map(|path| (name(&path), fs::read_to_string(&path).unwrap())).collect()
    }

    // Of Windows, `directory/windows.rs` has a simpler one.
    #[cfg(unix)]
    #[test]
    fn a_directory_that_takes_the_place_of_the_open_one_is_left_alone() {
        for by_a_link in [false, true] {
            let scratch = scratch("swapped");
            let (store, moved, victim) = (scratch.join("store"), scratch.join("moved"), scratch.join("victim"));
            let files = Files { lock: "lock".to_owned(), ..Files::new(store.clone(), &"e".repeat(32)) };
            // Each has a stale file, of different names, so that reading the wrong directory shows.
            for (directory, number) in [(&store, 1), (&victim, 2)] {
                Directory::open_or_create(directory).unwrap();
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

            assert!(directory.open_file(&files.entry, Access::Read).unwrap().is_none());
            assert!(directory.open_file(&files.lock, Access::CreateLock).unwrap().is_some());
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
