//! The file store, in the simulator: the same promises over a simulated disk, which loses, delays, reorders and corrupts.
//!
//! Records are encrypted and decrypted by the library's own code. The lock belongs to the open file, as that of `flock`
//! does: a forked child shares it, and it ends when the holder unlocks it, or when all processes that have it have ended.

use super::seal::{RecordCipher, Times};
use super::{Codec, Contents, Entry, IO_TIMEOUT, IoBudget, Lock, LockResult, Note, Removal, Store, WarnOnce, jittered};
use crate::config::Options;
use crate::sys::fork;
use crate::sys::simulation::{self, Nanos, ProcessId, TaskId};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// The same as those of the real store.
const LOOK_AFTER: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(4)];
const AT_ONCE: Duration = Duration::from_millis(2);
const OUT_OF_STEP: Duration = Duration::from_millis(20);

/// A disk, or a file server that several machines use.
pub struct Disk {
    /// How long each operation takes.
    pub latency: [Nanos; 2],
    /// Until this world time no operation ends.
    pub hangs_until: Nanos,
    /// Until this world time each operation fails.
    pub fails_until: Nanos,
    /// How far the clock of a file server is off. `None`: the disk of one machine, whose clock counts.
    pub server_clock: Option<Nanos>,
    /// Operations that took too long, and are not finished.
    abandoned: BTreeMap<ProcessId, Nanos>,
    /// The files of each client.
    files: BTreeMap<String, Files>,
    rng: simulation::Rng,
}

/// The files of one client.
#[derive(Default)]
struct Files {
    entry: Option<Vec<u8>>,
    note: Option<Vec<u8>>,
    /// Entries that were replaced or removed.
    former: Vec<Vec<u8>>,
    /// The processes that share the open file that is locked, and which lock it is.
    lock: BTreeSet<ProcessId>,
    lock_number: u64,
    waiting: Vec<TaskId>,
}

thread_local! {
    static DISKS: RefCell<Vec<Disk>> = const { RefCell::new(Vec::new()) };
}

/// Forgets all disks, and makes `count` new ones.
pub fn make_disks(seed: u64, count: usize) {
    let disk = |index| Disk {
        latency: [10_000, 200_000],
        hangs_until: 0,
        fails_until: 0,
        server_clock: None,
        abandoned: BTreeMap::new(),
        files: BTreeMap::new(),
        rng: simulation::Rng::new(seed, 2000 + index as u64),
    };
    DISKS.set((0..count).map(disk).collect());
}

/// Changes a disk.
pub fn with_disk<R>(index: usize, change: impl FnOnce(&mut Disk) -> R) -> R {
    DISKS.with_borrow_mut(|disks| change(&mut disks[index]))
}

/// What can happen to the files.
#[derive(Clone, Copy, Debug)]
pub enum Damage {
    CorruptEntry,
    CorruptNote,
    LoseEntry,
    LoseNote,
    /// An older entry takes the place of the entry: a write that was delayed, or a backup.
    RestoreEntry,
    SwapEntryAndNote,
}

impl Disk {
    /// Damages the files of one client.
    pub fn damage(&mut self, damage: Damage) {
        let rng = &mut self.rng;
        if self.files.is_empty() {
            return;
        }
        let which = rng.within(0..self.files.len() as i64) as usize;
        let Some(files) = self.files.values_mut().nth(which) else { return };
        let mut corrupt = |bytes: &mut Option<Vec<u8>>| {
            let Some(bytes) = bytes.as_mut().filter(|bytes| !bytes.is_empty()) else { return };
            let at = rng.within(0..bytes.len() as i64) as usize;
            match rng.within(0..3) {
                0 => bytes[at] ^= 1 << rng.within(0..8),
                1 => bytes.truncate(at),
                _ => bytes.extend_from_slice(b"more"),
            }
        };
        match damage {
            Damage::CorruptEntry => corrupt(&mut files.entry),
            Damage::CorruptNote => corrupt(&mut files.note),
            Damage::LoseEntry => files.former.extend(files.entry.take()),
            Damage::LoseNote => files.note = None,
            Damage::RestoreEntry => {
                if !files.former.is_empty() {
                    let at = rng.within(0..files.former.len() as i64) as usize;
                    files.entry = Some(files.former[at].clone());
                }
            }
            Damage::SwapEntryAndNote => std::mem::swap(&mut files.entry, &mut files.note),
        }
    }
}

impl Files {
    fn unlock(&mut self) -> Vec<TaskId> {
        self.lock.clear();
        std::mem::take(&mut self.waiting)
    }
}

fn with_files<R>(disk: usize, name: &str, change: impl FnOnce(&mut Files) -> R) -> R {
    with_disk(disk, |disk| {
        if !disk.files.contains_key(name) {
            disk.files.insert(name.to_owned(), Files::default());
        }
        change(disk.files.get_mut(name).expect("it was inserted"))
    })
}

/// A process has ended: its open files are closed.
pub(super) fn process_end(process: ProcessId) {
    let waiting = DISKS.with_borrow_mut(|disks| {
        let mut waiting = Vec::new();
        for files in disks.iter_mut().flat_map(|disk| disk.files.values_mut()) {
            if files.lock.remove(&process) && files.lock.is_empty() {
                waiting.extend(files.unlock());
            }
        }
        waiting
    });
    waiting.into_iter().for_each(simulation::unpark);
}

/// A process was forked: the child shares its open files.
pub(super) fn process_fork(parent: ProcessId, child: ProcessId) {
    DISKS.with_borrow_mut(|disks| {
        let files = disks.iter_mut().flat_map(|disk| disk.files.values_mut());
        for files in files.filter(|files| files.lock.contains(&parent)) {
            files.lock.insert(child);
        }
    });
}

pub(super) struct FileStore {
    codec: Codec,
    disk: usize,
    name: String,
    warnings: Arc<WarnOnce>,
}

/// Why an operation failed.
type Attempt<T> = Result<T, String>;

impl FileStore {
    /// The number of the disk is the name of the directory.
    pub(super) fn open(options: &Options, cipher: RecordCipher) -> Option<Self> {
        fork::install_fork_hook();
        let disk = options.store_dir.as_ref()?.to_str()?.trim_start_matches('/').parse().ok()?;
        Some(FileStore {
            name: cipher.name(),
            codec: Codec::new(cipher, &options.clock),
            disk,
            warnings: Arc::new(WarnOnce::new(&options.log)),
        })
    }

    /// An operation on the files, which takes effect in the middle of its time.
    fn with_files<T>(&self, budget: &IoBudget, longest: Duration, work: impl FnOnce(&mut Files) -> T) -> Attempt<T> {
        budget.spend(longest, |limit| self.io(limit, work))
    }

    fn io<T>(&self, limit: Duration, work: impl FnOnce(&mut Files) -> T) -> Attempt<T> {
        if limit.is_zero() || simulation::is_ending() {
            return Err("no time is left for file I/O".to_owned());
        }
        let (now, process) = (simulation::now(), simulation::process());
        let begun = with_disk(self.disk, |disk| {
            if disk.abandoned.get(&process).is_some_and(|until| now < *until) {
                return Err("file I/O has timed out and is still not finished");
            }
            if now < disk.fails_until {
                return Err("input/output error");
            }
            let takes = disk.rng.within(disk.latency[0]..disk.latency[1].max(disk.latency[0] + 1));
            Ok(takes.max(disk.hangs_until - now))
        });
        let takes = Duration::from_nanos(begun?.unsigned_abs());
        if takes >= limit {
            simulation::sleep(limit);
            with_disk(self.disk, |disk| disk.abandoned.insert(process, now + simulation::nanos(takes)));
            return Err("file I/O timed out".to_owned());
        }
        simulation::sleep(takes / 2);
        let result = with_files(self.disk, &self.name, work);
        simulation::sleep(takes - takes / 2);
        Ok(result)
    }

    fn report<T>(&self, result: Attempt<T>) -> Option<T> {
        result.map_err(|problem| self.warnings.report(&problem)).ok()
    }

    /// The time now, also by the clock of the file server if the record was made in another boot.
    fn now(&self, made: &Times) -> Times {
        let now = self.codec.now(None);
        if now.is_same_boot(made) || made.store.is_none() {
            return now;
        }
        self.codec.now(self.server_time())
    }

    fn server_time(&self) -> Option<i64> {
        let off = with_disk(self.disk, |disk| disk.server_clock);
        Some(match off {
            Some(off) => simulation::EPOCH + simulation::now() + off,
            None => self.codec.clock.now().wall,
        })
    }
}

impl Store for FileStore {
    fn location(&self) -> String {
        format!("/{}", self.disk)
    }

    fn read(&self, budget: &IoBudget) -> Contents {
        let read = self.with_files(budget, IO_TIMEOUT, |files| (files.entry.clone(), files.note.clone()));
        let Some((entry, note)) = self.report(read) else { return Contents::default() };
        simulation::trace(|| {
            let what = |is: bool, what: &'static str| if is { what } else { "" };
            format!("the store has{}{}", what(entry.is_some(), " an entry"), what(note.is_some(), " a note"))
        });
        Contents {
            entry: entry.and_then(|sealed| self.warnings.open(&self.codec, &sealed, |record| self.now(&record.made))),
            note: note.and_then(|sealed| self.codec.open_note(&sealed, |record| self.now(&record.made))),
            is_locked: false,
        }
    }

    fn try_lock(&self, budget: &IoBudget) -> LockResult {
        let process = simulation::process();
        let taken = self.with_files(budget, IO_TIMEOUT, |files| {
            if !files.lock.is_empty() && !simulation::planted("lock-for-all") {
                return None;
            }
            files.lock_number += 1;
            files.lock = BTreeSet::from([process]);
            Some(files.lock_number)
        });
        simulation::trace(|| format!("lock: {}", if matches!(taken, Ok(Some(_))) { "taken" } else { "not free" }));
        match self.report(taken) {
            Some(Some(number)) => LockResult::Held(Box::new(LockGuard {
                disk: self.disk,
                name: self.name.clone(),
                number,
                generation: fork::generation(),
            })),
            Some(None) => LockResult::Busy,
            None => LockResult::Unavailable,
        }
    }

    fn wait(&self, waited: Duration, limit: Duration) -> bool {
        let [least, most] = LOOK_AFTER;
        let wait = jittered(waited.clamp(least, most), &self.codec.clock).min(limit);
        let (me, start) = (simulation::current(), simulation::now());
        let until = simulation::monotonic_of(simulation::machine()) + simulation::nanos(wait);
        let is_free = with_files(self.disk, &self.name, |files| {
            if !files.lock.is_empty() {
                files.waiting.push(me);
            }
            files.lock.is_empty()
        });
        if !is_free {
            simulation::park(Some(until));
            with_files(self.disk, &self.name, |files| files.waiting.retain(|task| *task != me));
        }
        let is_free = with_files(self.disk, &self.name, |files| files.lock.is_empty());
        if is_free && simulation::now() - start < simulation::nanos(AT_ONCE) {
            simulation::sleep(self.codec.clock.random_below(OUT_OF_STEP).min(limit));
        }
        is_free
    }

    fn save(&self, entry: &Entry, lock: Option<Lock>, budget: &IoBudget) {
        let store_time = self.server_time();
        let Some(sealed) = self.codec.seal_entry(entry, store_time) else { return };
        let token = entry.token.clone();
        let write = move |files: &mut Files| {
            simulation::trace(|| format!("saved {}", token.expose()));
            let former = files.entry.replace(sealed);
            files.former.extend(former);
            files.note = None;
        };
        let longest = IO_TIMEOUT.min(entry.lifetime / 10);
        let late = {
            let now = simulation::now();
            with_disk(self.disk, |disk| now < disk.hangs_until || disk.latency[0] > simulation::nanos(longest))
        };
        if !late {
            self.report(self.with_files(budget, longest, write));
            return drop(lock);
        }
        // What is not finished in time is finished by a thread, perhaps after the next entry was written.
        budget.spend(longest, simulation::sleep);
        let (disk, name) = (self.disk, self.name.clone());
        let finish = move || {
            let left = with_disk(disk, |disk| disk.hangs_until.max(simulation::now() + disk.latency[0]));
            simulation::sleep(Duration::from_nanos((left - simulation::now()).unsigned_abs()));
            with_files(disk, &name, write);
            drop(lock);
        };
        let _ = simulation::spawn_thread("amp-files", finish);
    }

    fn leave_note(&self, note: &Note, left: Duration, budget: &IoBudget) {
        let Some(sealed) = self.codec.seal_note(note, left, None) else { return };
        self.report(self.with_files(budget, IO_TIMEOUT, |files| files.note = Some(sealed)));
    }

    fn remove(&self, token: &str, budget: &IoBudget) -> Removal {
        let failed = || Removal::Failed("the disk failed".to_owned());
        let Some(sealed) = self.report(self.with_files(budget, IO_TIMEOUT, |files| files.entry.clone())) else {
            return failed();
        };
        let Some(sealed) = sealed else { return Removal::NotStored };
        let entry = self.codec.open_entry(&sealed, |record| self.now(&record.made));
        if !entry.is_ok_and(|entry| entry.token.expose() == token) {
            return Removal::NotStored;
        }
        let removed = self.with_files(budget, IO_TIMEOUT, |files| {
            if !files.lock.is_empty() {
                return Removal::Busy;
            }
            if files.entry.as_ref() != Some(&sealed) {
                return Removal::NotStored;
            }
            files.former.extend(files.entry.take());
            Removal::Removed
        });
        self.report(removed).unwrap_or_else(failed)
    }

    fn for_child(&self) -> Arc<dyn Store> {
        Arc::new(FileStore {
            codec: self.codec.for_child(),
            disk: self.disk,
            name: self.name.clone(),
            warnings: self.warnings.clone(),
        })
    }
}

struct LockGuard {
    disk: usize,
    name: String,
    number: u64,
    generation: u64,
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        if self.generation != fork::generation() {
            return;
        }
        let waiting = with_files(self.disk, &self.name, |files| {
            // Otherwise the file was closed with the process that had it, and is locked again.
            if files.lock_number == self.number { files.unlock() } else { Vec::new() }
        });
        waiting.into_iter().for_each(simulation::unpark);
    }
}
