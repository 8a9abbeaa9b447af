//! Memory for memory_hygiene: left out of core dumps, and wiped when it is given back.
//!
//! On Linux it is carved out of pages of its own, which are marked `MADV_DONTDUMP`. Slots of one size
//! share a chunk of pages, so that ten thousand caches do not need ten thousand mappings; chunks are
//! kept for the next secret and never unmapped. There is no lock, because one that another thread
//! holds during a fork would stay locked in the child: a bit that is set claims a slot, and the worst
//! that such a fork can do is to lose a slot in the child.
//!
//! Not locked into memory: `RLIMIT_MEMLOCK` is often 64 KiB for a whole process and belongs to the
//! application, and a promise about swap that holds for some of the memory_hygiene is none. Not wiped on fork
//! either: children go on using the tokens that they inherit.
//!
//! Elsewhere, or when the system has no pages left, the heap has to do. So it does under `--cfg
//! amp_watched`: sanitizers and valgrind know what was freed on the heap, but not in here.

use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use zeroize::Zeroize;

const SMALLEST: usize = 32;
/// One for each power of two from [`SMALLEST`] to 1 MiB. What is larger goes to the heap.
const SIZES: usize = 16;
/// What the first chunk of a size takes from the system; each one after it is twice as large.
const FIRST_CHUNK: usize = 64 * 1024;

/// The chunks of each size, the newest first.
static CHUNKS: [AtomicPtr<Chunk>; SIZES] = [const { AtomicPtr::new(null_mut()) }; SIZES];

/// Bytes in a place of their own.
pub struct Place {
    start: NonNull<u8>,
    length: usize,
    /// `None`: the heap.
    chunk: Option<&'static Chunk>,
}

// SAFETY: a place is owned by one value like a `Box<[u8]>`; what is shared, the chunk, is atomic.
unsafe impl Send for Place {}
// SAFETY: as above; through a shared reference the bytes are only read.
unsafe impl Sync for Place {}

impl Place {
    /// A copy of `bytes`.
    pub fn new(bytes: &[u8]) -> Self {
        let Some((start, chunk)) = claimed(bytes.len()) else {
            let start = NonNull::from(Box::leak(Box::<[u8]>::from(bytes))).cast();
            return Place { start, length: bytes.len(), chunk: None };
        };
        // SAFETY: the slot is at least that long, and its claimed bit makes it ours alone.
        unsafe { start.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
        Place { start, length: bytes.len(), chunk: Some(chunk) }
    }

    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `new` filled that many bytes, and nothing changes them until `drop`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // SAFETY: the bytes are ours alone until the slot or the box is given back, below.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) };
        bytes.zeroize();
        match self.chunk {
            Some(chunk) => chunk.release(self.start),
            // SAFETY: it is the box that `new` leaked, of the same length, and nobody else has it.
            None => drop(unsafe { Box::from_raw(bytes) }),
        }
    }
}

/// Pages that hold slots of one size.
struct Chunk {
    older: Option<&'static Chunk>,
    start: NonNull<u8>,
    slot: usize,
    /// A power of two.
    slots: usize,
    /// A bit for each slot, set while it is in use. In a chunk of few slots some bits have none, and stay set.
    used: Box<[AtomicU64]>,
    /// The word of `used` in which a free slot is likely.
    hint: AtomicUsize,
}

// SAFETY: the pages are touched only through claimed slots; the rest is atomic or never changes.
unsafe impl Send for Chunk {}
// SAFETY: as above.
unsafe impl Sync for Chunk {}

impl Chunk {
    fn new(slot: usize, older: Option<&'static Chunk>) -> Option<Self> {
        let slots = older.map_or((FIRST_CHUNK / slot).max(1), |chunk| chunk.slots * 2);
        let start = pages::map(slots * slot)?;
        let without_slot = if slots < 64 { u64::MAX << slots } else { 0 };
        let used = (0..slots.div_ceil(64)).map(|_| AtomicU64::new(without_slot)).collect();
        Some(Chunk { older, start, slot, slots, used, hint: AtomicUsize::new(0) })
    }

    /// A slot that was free.
    fn claim(&self) -> Option<NonNull<u8>> {
        let likely = self.hint.load(Ordering::Relaxed);
        for at in (likely..self.used.len()).chain(0..likely) {
            let mut word = self.used[at].load(Ordering::Relaxed);
            while word != u64::MAX {
                let bit = word.trailing_ones() as usize;
                // Acquire: whoever wiped the slot and gave it back is done with it.
                match self.used[at].compare_exchange_weak(word, word | 1 << bit, Ordering::Acquire, Ordering::Relaxed) {
                    Ok(_) => {
                        self.hint.store(at, Ordering::Relaxed);
                        // SAFETY: each bit that can be clear stands for a slot within the mapping.
                        return Some(unsafe { self.start.add((at * 64 + bit) * self.slot) });
                    }
                    Err(now) => word = now,
                }
            }
        }
        None
    }

    fn release(&self, place: NonNull<u8>) {
        let index = (place.addr().get() - self.start.addr().get()) / self.slot;
        self.used[index / 64].fetch_and(!(1 << (index % 64)), Ordering::Release);
        self.hint.store(index / 64, Ordering::Relaxed);
    }
}

/// A free slot for that many bytes, if there are pages for it.
fn claimed(length: usize) -> Option<(NonNull<u8>, &'static Chunk)> {
    if cfg!(amp_watched) {
        return None;
    }
    let slot = length.max(SMALLEST).checked_next_power_of_two()?;
    let newest = CHUNKS.get((slot / SMALLEST).ilog2() as usize)?;
    loop {
        // SAFETY: what is in `CHUNKS` was leaked, below.
        let first: Option<&'static Chunk> = unsafe { newest.load(Ordering::Acquire).as_ref() };
        let mut chunks = std::iter::successors(first, |chunk| chunk.older);
        if let Some(found) = chunks.find_map(|chunk| Some((chunk.claim()?, chunk))) {
            return Some(found);
        }
        let larger = Box::into_raw(Box::new(Chunk::new(slot, first)?));
        let before = first.map_or(null_mut(), |chunk| std::ptr::from_ref(chunk).cast_mut());
        if newest.compare_exchange(before, larger, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            // Another thread was faster, so that there is room now.
            // SAFETY: nobody else has seen this one.
            let unneeded = unsafe { Box::from_raw(larger) };
            pages::unmap(unneeded.start, unneeded.slots * slot);
        }
    }
}

#[cfg(target_os = "linux")]
mod pages {
    use std::ptr::{NonNull, null_mut};

    pub fn map(length: usize) -> Option<NonNull<u8>> {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping, wherever there is room, changes nothing that exists.
        let start = unsafe { libc::mmap(null_mut(), length, access, kind, -1, 0) };
        if start == libc::MAP_FAILED {
            return None;
        }
        // SAFETY: the whole of the mapping just made. A kernel that refuses leaves ordinary memory, which has to do.
        unsafe { libc::madvise(start, length, libc::MADV_DONTDUMP) };
        NonNull::new(start.cast())
    }

    pub fn unmap(start: NonNull<u8>, length: usize) {
        // SAFETY: `map` made it, of that length, and no slot of it was ever claimed.
        unsafe { libc::munmap(start.as_ptr().cast(), length) };
    }
}

#[cfg(not(target_os = "linux"))]
mod pages {
    use std::ptr::NonNull;

    pub fn map(_: usize) -> Option<NonNull<u8>> {
        None
    }

    pub fn unmap(_: NonNull<u8>, _: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_keeps_its_bytes() {
        let lengths = (0..200).chain([4095, 4096, 4097, 1 << 20, (1 << 20) + 1]);
        let places: Vec<_> = lengths.map(|length| Place::new(&vec![length as u8; length])).collect();
        for place in &places {
            assert!(place.bytes().iter().all(|byte| *byte == place.length as u8));
        }
        assert!(places.last().unwrap().chunk.is_none(), "the largest is on the heap");
    }

    #[cfg(all(target_os = "linux", not(amp_watched)))]
    #[test]
    fn a_slot_is_wiped_and_used_again() {
        // A size that no other test has, so that the slot cannot be claimed in between.
        let place = Place::new(&[7; 300_000]);
        let (start, chunk) = (place.start, place.chunk.unwrap());
        drop(place);
        // SAFETY: a chunk stays mapped, and nobody writes to this slot.
        assert!(unsafe { std::slice::from_raw_parts(start.as_ptr(), 300_000) }.iter().all(|byte| *byte == 0));
        let second = Place::new(&[8; 300_000]);
        assert!(second.start == start && std::ptr::eq(second.chunk.unwrap(), chunk));
    }

    #[cfg(all(target_os = "linux", not(amp_watched)))]
    #[test]
    fn many_secrets_share_few_pages() {
        let places: Vec<_> = (0..10_000).map(|_| Place::new(&[1; 3000])).collect();
        let chunks: std::collections::HashSet<_> =
            places.iter().map(|place| std::ptr::from_ref(place.chunk.unwrap())).collect();
        assert!(chunks.len() < 12, "{}", chunks.len());
    }

    #[test]
    fn threads_do_not_get_in_each_others_way() {
        std::thread::scope(|scope| {
            for own in 0..8_u8 {
                scope.spawn(move || {
                    for round in 0..2000 {
                        let places: Vec<_> = (0..round % 90).map(|_| Place::new(&[own; 40])).collect();
                        assert!(places.iter().all(|place| place.bytes() == [own; 40]));
                    }
                });
            }
        });
    }
}
