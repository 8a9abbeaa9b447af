//! The store of one machine: sealed files in a folder that belongs to one user.
//!
//! - **Reading takes no lock.** An entry is written to a file of its own and then renamed, so there
//!   is a whole one or none, whenever and however a writer ends.
//! - **The lock dies with its holder.** It is the operating system's (`fcntl`), on a file next to the
//!   entry. It belongs to a process: neither a forked child nor a descriptor that leaked can keep it
//!   after the process is gone. (Those of `flock` and "open file descriptions" can: a child shares
//!   them, and holds on to them for as long as it lives.)
//! - **Only what belongs to this user is used.** The directory must belong to this user, be closed to all
//!   others and be no symbolic link; a file must be a regular one of this user. What is checked is what is
//!   used: an open [`Directory`], not its path.
//! - **It is not waited for.** A disk may stand still for any time, and a file server for ever, and no
//!   call for a file knows a deadline. So threads of their own touch the files, which see sealed bytes
//!   only; one that takes too long is left behind, and until it is through, the store is left alone.
//!
//! Everything that goes wrong is a log line and an entry that is absent.

mod directory;
mod location;

use super::seal::{self, Seal};
use super::{Entry, Lock, Store, Trouble};
use crate::aside::Places;
use crate::clock::Clock;
use crate::environment;
use crate::fork;
use crate::sanitize::sanitize;
use crate::settings::Options;
use crate::wire::Deadline;
use directory::Directory;
use ring::rand::{SecureRandom, SystemRandom};
use rustix::fs::OFlags;
use std::fs::{File, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// The longest pause between two looks at a lock that somebody else holds.
const LONGEST_PAUSE: Duration = Duration::from_millis(25);

/// The ending of files that are being written.
const UNFINISHED: &str = ".tmp";

/// Unfinished files older than this are removed: their writer must have crashed. If it was only
/// stopped, its rename fails, which is harmless.
const ABANDONED: Duration = Duration::from_secs(60);

/// The longest that a caller waits for the files; and never more than a quarter of `timeout_ms`. It is
/// long for a disk, even a busy one, and what takes longer is paid for once: by the caller who finds out.
const PATIENCE: Duration = Duration::from_secs(2);

static TOUCHES: Places = Places::new("amp-files");

pub(super) struct FileStore {
    seal: Seal,
    files: Arc<Files>,
    patience: Duration,
    clock: Clock,
    trouble: Trouble,
    /// There for as long as the thread is that was left behind last.
    left_behind: Mutex<Weak<()>>,
}

/// What is wrong, in words. What is merely not there is no failure.
type Attempt<T> = Result<T, String>;

impl FileStore {
    /// Chooses the folder; touches nothing. `None`: there is nowhere to put it.
    pub(super) fn open(options: &Options, seal: Seal) -> Option<Self> {
        fork::watch();
        let trouble = Trouble::new(&options.log);
        let Some(folder) = options.store_dir.clone().or_else(|| location::usual_folder(environment::variable)) else {
            trouble.tell(
                "XDG_RUNTIME_DIR, XDG_CACHE_HOME and HOME name no directory that this user may use; set store_dir",
            );
            return None;
        };
        let entry = seal.name();
        Some(FileStore {
            files: Arc::new(Files { directory: folder, lock: format!("{entry}.lock"), entry }),
            seal,
            patience: PATIENCE.min(options.timeout / 4),
            clock: options.clock.clone(),
            trouble,
            left_behind: Mutex::default(),
        })
    }

    /// Does something with the files, as far as patience goes.
    fn with_files<T: Send + 'static>(&self, work: impl FnOnce(&Files) -> Attempt<T> + Send + 'static) -> Attempt<T> {
        let folder = shown(&self.files.directory);
        // The next one would be left behind, too.
        if self.left_behind().strong_count() > 0 {
            return Err(format!("{folder} does not answer yet"));
        }
        let (files, there) = (self.files.clone(), Arc::new(()));
        let left_behind = Arc::downgrade(&there);
        let done = TOUCHES.within(Deadline::after(self.patience), move || {
            let _there = there;
            work(&files)
        });
        done.unwrap_or_else(|error| {
            *self.left_behind() = left_behind;
            Err(match error.kind() {
                ErrorKind::TimedOut => format!("{folder} does not answer within {} ms", self.patience.as_millis()),
                _ => format!("{folder} needs a thread: {error}"),
            })
        })
    }

    fn left_behind(&self) -> MutexGuard<'_, Weak<()>> {
        self.left_behind.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: somebody else has it. Otherwise, it is held until the value is dropped.
    fn try_lock(&self, wait: Duration) -> Attempt<Option<Held>> {
        let end = self.clock.now().after(wait).monotonic;
        let mut pauses = (1..).map(|turn| LONGEST_PAUSE.min(Duration::from_millis(1 << turn.min(8))));
        loop {
            // A thread that is left behind keeps its seat, because it may yet open the file and close it.
            if let Some(seat) = Seat::take(&self.files.directory.join(&self.files.lock))
                && let Some(inside) = self.with_files(|files| Ok(files.lock()?.map(|file| (file, seat))))?
            {
                return Ok(Some(Held { inside: Some(inside), patience: self.patience }));
            }
            let left = Duration::from_nanos(u64::try_from(end - self.clock.now().monotonic).unwrap_or(0));
            if left.is_zero() {
                return Ok(None);
            }
            let pause = Duration::from_millis(1) + self.clock.random_below(pauses.next().unwrap_or(LONGEST_PAUSE));
            self.clock.sleep(pause.min(left));
        }
    }

    fn try_save(&self, entry: &Entry) -> Attempt<()> {
        let mut random = [0; 8];
        let sealed = self.seal.close(entry).filter(|_| SystemRandom::new().fill(&mut random).is_ok());
        let sealed = sealed.ok_or("this machine has no randomness")?;
        self.with_files(move |files| files.write(&sealed, u64::from_ne_bytes(random)))
    }
}

impl Store for FileStore {
    fn place(&self) -> String {
        sanitize(&self.files.directory.display().to_string(), &[])
    }

    fn load(&self) -> Option<Entry> {
        match self.with_files(Files::read) {
            Ok(sealed) => self.trouble.open(&self.seal, &sealed?, self.clock.now()),
            Err(problem) => {
                self.trouble.tell(&problem);
                None
            }
        }
    }

    fn lock(&self, wait: Duration) -> Lock {
        match self.try_lock(wait) {
            Ok(Some(held)) => Lock::Held(Box::new(held)),
            Ok(None) => Lock::Busy,
            Err(problem) => {
                self.trouble.tell(&problem);
                Lock::Unavailable
            }
        }
    }

    fn save(&self, entry: &Entry) {
        if let Err(problem) = self.try_save(entry) {
            self.trouble.tell(&problem);
        }
    }

    fn remove(&self, token: &str) {
        // Under the lock, so that the entry that is removed is the one that was looked at. If another
        // process holds it, that one is about to put another entry in its place.
        let lock = self.lock(Duration::ZERO);
        if !matches!(lock, Lock::Busy) && self.load().is_some_and(|entry| entry.token.reveal() == token) {
            let _ = self.with_files(Files::remove);
        }
    }
}

/// The files themselves. All of this may take any time.
///
/// Each operation opens the directory once, and reaches the files through that descriptor.
struct Files {
    directory: PathBuf,
    /// The name of the entry's file.
    entry: String,
    /// The name of the lock's file.
    lock: String,
}

impl Files {
    fn read(&self) -> Attempt<Option<Vec<u8>>> {
        let Some(directory) = Directory::open(&self.directory)? else { return Ok(None) };
        let Some(file) = directory.open_file(&self.entry, OFlags::RDONLY)? else { return Ok(None) };
        // Room for most at once: without it, the first reads are of 32 bytes.
        let mut sealed = Vec::with_capacity(4096);
        file.take(seal::LARGEST as u64 + 1).read_to_end(&mut sealed).map_err(directory.failed("read", &self.entry))?;
        Ok(Some(sealed))
    }

    /// `None`: another process has it. Otherwise, it is held until the file is closed.
    fn lock(&self) -> Attempt<Option<File>> {
        let directory = Directory::open_or_create(&self.directory)?;
        let there = directory.open_file(&self.lock, OFlags::RDWR)?;
        // Created only if it does not exist: that waits while another process changes the directory, and a
        // busy disk may hold up that process.
        let file =
            if there.is_some() { there } else { directory.open_file(&self.lock, OFlags::RDWR | OFlags::CREATE)? };
        // The directory was removed in the meantime.
        let Some(file) = file else { return Ok(None) };
        let locked = lock_whole(&file).map_err(directory.failed("locked", &self.lock))?;
        Ok(locked.then_some(file))
    }

    fn write(&self, sealed: &[u8], number: u64) -> Attempt<()> {
        let directory = Directory::open_or_create(&self.directory)?;
        self.clean_up(&directory);
        directory.replace(&self.entry, &self.unfinished(number), sealed)
    }

    fn remove(&self) -> Attempt<()> {
        let Some(directory) = Directory::open(&self.directory)? else { return Ok(()) };
        directory.remove(&self.entry, |_| true)
    }

    /// Removes the unfinished files of this entry whose writers were killed, and nothing else: the
    /// directory may hold files of other programs.
    fn clean_up(&self, directory: &Directory) {
        let age = |about: &Metadata| about.modified().ok()?.elapsed().ok();
        for name in directory.names().filter(|name| self.is_unfinished(name)) {
            let _ = directory.remove(&name, |about| age(about).is_some_and(|age| age > ABANDONED));
        }
    }

    /// The name of a file that is renamed to the entry when it is complete.
    fn unfinished(&self, number: u64) -> String {
        format!("{}.{number:016x}{UNFINISHED}", self.entry)
    }

    /// Whether [`unfinished`](Files::unfinished) can have made this name.
    fn is_unfinished(&self, name: &str) -> bool {
        let number = name.strip_prefix(&self.entry).and_then(|rest| rest.strip_prefix('.'));
        let number = number.and_then(|rest| rest.strip_suffix(UNFINISHED));
        number.is_some_and(|digits| {
            digits.len() == 16 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
        })
    }
}

/// The lock, while it is held.
struct Held {
    /// The file is closed first, which ends the lock, and then the next thread of this process may open it.
    inside: Option<(File, Seat)>,
    patience: Duration,
}

impl Drop for Held {
    fn drop(&mut self) {
        let inside = self.inside.take();
        // A file server is told that the lock has ended, and waited for. (Without a thread, it is dropped here.)
        let _ = TOUCHES.within(Deadline::after(self.patience), move || drop(inside));
    }
}

/// The right of one thread of this process to have a lock file open.
///
/// The operating system's lock keeps processes apart, not threads; and it ends when its process
/// closes *any* descriptor of the file. So no two threads may have the same one open. There is no
/// mutex around the seats, because a forked child could find it locked by a thread that it does not
/// have; and seats that were taken before a [fork](crate::fork::watch) count as free.
struct Seat {
    place: &'static AtomicU64,
    /// The fork generation (16 bits) and a hash of the file's path (48 bits). Two paths of one hash
    /// only wait for each other.
    taken_by: u64,
}

static SEATS: [AtomicU64; 64] = [const { AtomicU64::new(0) }; 64];

impl Seat {
    fn take(path: &Path) -> Option<Self> {
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        let generation = fork::generation() << 48;
        let taken_by = generation | hasher.finish() >> 16 | 1;
        let sitting = || SEATS.iter().filter(|seat| seat.load(Ordering::SeqCst) == taken_by).count();
        if sitting() > 0 {
            return None;
        }
        let place = SEATS.iter().find(|seat| {
            let before = seat.load(Ordering::SeqCst);
            let free = before == 0 || before >> 48 != generation >> 48;
            free && seat.compare_exchange(before, taken_by, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        })?;
        let seat = Seat { place, taken_by };
        // Two threads that sat down at the same time see each other now, and both get up again.
        if sitting() == 1 { Some(seat) } else { None }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // In a forked child, it may be another thread's by now.
        let _ = self.place.compare_exchange(self.taken_by, 0, Ordering::SeqCst, Ordering::SeqCst);
    }
}

/// Locks a file for this process; `false`: another one has it.
fn lock_whole(file: &File) -> io::Result<bool> {
    // SAFETY: `flock` is plain data, for which all zeros is a value: from the file's beginning, to
    // its end, whatever its length.
    let mut request: libc::flock = unsafe { std::mem::zeroed() };
    request.l_type = libc::F_WRLCK as _;
    request.l_whence = libc::SEEK_SET as _;
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and F_SETLK does nothing
    // with `request` but read it during the call.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw const request) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EAGAIN | libc::EINTR) => Ok(false),
        _ => Err(error),
    }
}

/// The user on whose behalf this process acts.
fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn shown(path: &Path) -> String {
    sanitize(&path.display().to_string(), &[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::fs::{self, DirBuilder};
    use std::os::unix::fs::DirBuilderExt;
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
                let old = SystemTime::now() - 2 * ABANDONED;
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
            files.clean_up(&directory);
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

    #[test]
    fn one_thread_at_a_time_has_a_seat() {
        let (path, other) = (Path::new("one thread"), Path::new("another"));
        let seat = Seat::take(path).unwrap();
        assert!(Seat::take(path).is_none());
        assert!(Seat::take(path).is_none(), "asking does not free it");
        assert!(Seat::take(other).is_some());
        drop(seat);
        assert!(Seat::take(path).is_some());
    }

    #[test]
    fn many_threads_never_share_a_seat() {
        let inside = std::sync::atomic::AtomicU32::new(0);
        let had = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    // Until each had it often enough on average, whoever it was.
                    while had.load(Ordering::SeqCst) < 200 {
                        let Some(seat) = Seat::take(Path::new("many threads")) else { continue };
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        had.fetch_add(1, Ordering::SeqCst);
                        drop(seat);
                    }
                });
            }
        });
    }
}
