//! Memory for secrets: left out of core dumps, and wiped when it is freed.
//!
//! On Linux secrets are in pages that hold nothing else and are marked `MADV_DONTDUMP`. Secrets of up to a page share
//! pages: an account has a client secret of 64 bytes and a token of some 1,100, and a process may have accounts by
//! the thousand. A page is divided into 64 slots, and a secret has as many adjacent ones as it needs. A page without
//! secrets is given back to the system. A longer secret has pages of its own, which are unmapped when it is dropped.
//!
//! **What sharing costs.** A write beyond the end of a secret could change its neighbour, and a read beyond the end or
//! after the secret was freed could find another one, as on the heap. No guard page and no fault prevents that; what
//! does is that secrets are slices, which Rust checks, and never change. (A C program that uses the string of a token
//! that it has freed reads zeros, or another secret.)
//!
//! **Fork.** There is no lock, which a forked child could inherit locked. A page has one atomic number with a bit for
//! each slot, so that a child can go on whenever it was forked. It never gets back a slot that another thread was
//! claiming, nor a page that one was giving back.
//!
//! The pages are not locked into memory: `RLIMIT_MEMLOCK` is often 64 KiB for a whole process and belongs to the
//! application, and a promise about swap that holds for some of the secrets is none. They are not wiped on fork
//! either: children go on using the tokens that they inherit.
//!
//! Elsewhere, or when the system grants no mapping, a secret is on the heap.

use std::ptr::NonNull;
use zeroize::Zeroize;

/// Secret bytes, which do not change.
pub struct SecretBuf {
    start: NonNull<u8>,
    length: usize,
    /// `None`: the bytes are on the heap.
    place: Option<pages::Place>,
}

// SAFETY: the value owns its bytes, as a `Box<[u8]>` does.
unsafe impl Send for SecretBuf {}
// SAFETY: through a shared reference the bytes are only read.
unsafe impl Sync for SecretBuf {}

impl SecretBuf {
    /// A copy of `bytes`.
    pub fn new(bytes: &[u8]) -> Self {
        let Some((start, place)) = pages::claim(bytes.len()) else {
            let start = NonNull::from(Box::leak(Box::<[u8]>::from(bytes))).cast();
            return SecretBuf { start, length: bytes.len(), place: None };
        };
        // SAFETY: what was claimed is at least that long, writable, and this value's alone.
        unsafe { start.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
        SecretBuf { start, length: bytes.len(), place: Some(place) }
    }

    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `new` filled that many bytes, and nothing changes them until `drop`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl Drop for SecretBuf {
    fn drop(&mut self) {
        // SAFETY: the bytes belong to this value alone until they are freed, below.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) };
        bytes.zeroize();
        match self.place.take() {
            // SAFETY: it is the box that `new` leaked, of the same length, and it is freed once.
            None => drop(unsafe { Box::from_raw(bytes) }),
            // SAFETY: `new` claimed it with this length, and it is freed once.
            Some(place) => unsafe { pages::free(self.start, self.length, place) },
        }
    }
}

#[cfg(target_os = "linux")]
mod pages {
    use std::iter::successors;
    use std::ptr::{NonNull, null_mut};
    use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

    /// The slots of a page: the bits of its number.
    const SLOTS: usize = 64;
    /// How many pages are mapped at a time. They take no memory before they are used, but count towards limits.
    pub const GROUP: usize = 8;

    static SHARED: SharedPages = SharedPages::new();

    /// Where the bytes of a secret are.
    pub enum Place {
        /// In pages of its own.
        Own,
        /// In a page of this group.
        Shared(&'static Group),
    }

    /// Memory for that many bytes, and where it is. `None` if the system grants none, or if the length is 0.
    pub fn claim(length: usize) -> Option<(NonNull<u8>, Place)> {
        match SHARED.claim(length, page_size()) {
            Some((start, group)) => Some((start, Place::Shared(group))),
            None => Some((map(length)?, Place::Own)),
        }
    }

    /// Frees what [`claim`] returned for this length.
    ///
    /// # Safety
    /// It was not freed yet, is not used any more, and its bytes are zero.
    pub unsafe fn free(start: NonNull<u8>, length: usize, place: Place) {
        match place {
            // SAFETY: the caller upholds the same contract.
            Place::Own => unsafe { unmap(start, length) },
            // SAFETY: as above.
            Place::Shared(group) => unsafe { group.free(start, length) },
        }
    }

    /// The size of a page in this system: 4, 16 or 64 KiB.
    pub fn page_size() -> usize {
        // SAFETY: it has no preconditions. It cannot fail; without a page of that size, no secrets would share one.
        usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or_default()
    }

    /// Pages that secrets share.
    pub struct SharedPages {
        /// The newest group of pages. Groups are never removed.
        newest: AtomicPtr<Group>,
    }

    /// Pages that were mapped together.
    pub struct Group {
        older: Option<&'static Group>,
        start: NonNull<u8>,
        /// The size of a page.
        page: usize,
        /// For each page a bit for each slot, which is set while the slot is in use.
        used: [AtomicU64; GROUP],
    }

    // SAFETY: the address does not change, and what is there belongs to the threads that have claimed it.
    unsafe impl Sync for Group {}

    impl SharedPages {
        pub const fn new() -> Self {
            SharedPages { newest: AtomicPtr::new(null_mut()) }
        }

        /// Adjacent slots with room for that many bytes, which are zero. `None` if the system grants no page, if the
        /// length is 0, or if it is more than a page. All calls have the same size of a page.
        pub fn claim(&self, length: usize, page: usize) -> Option<(NonNull<u8>, &'static Group)> {
            if length == 0 || length > page {
                return None;
            }
            loop {
                let newest = self.newest.load(Ordering::Acquire);
                // SAFETY: it is null or a group that was leaked, below.
                let group: Option<&'static Group> = unsafe { newest.as_ref() };
                let found =
                    successors(group, |group| group.older).find_map(|group| Some((group.claim(length)?, group)));
                if found.is_some() {
                    return found;
                }
                let group = Group { older: group, start: map(GROUP * page)?, page, used: Default::default() };
                let group = Box::into_raw(Box::new(group));
                if self.newest.compare_exchange(newest, group, Ordering::Release, Ordering::Relaxed).is_err() {
                    // Another thread has added one.
                    // SAFETY: no other thread has seen this one, and its pages were not used.
                    unsafe { unmap(Box::from_raw(group).start, GROUP * page) };
                }
            }
        }
    }

    impl Group {
        fn claim(&self, length: usize) -> Option<NonNull<u8>> {
            let slot = self.page / SLOTS;
            let claim = |used| claim_slots(used, length.div_ceil(slot));
            let (index, first) = self.used.iter().enumerate().find_map(|(index, used)| Some((index, claim(used)?)))?;
            // SAFETY: the mapping has that page, and the page that slot.
            Some(unsafe { self.start.add(index * self.page + first * slot) })
        }

        /// Frees the slots that [`SharedPages::claim`] returned for this length. If no others of the page are in use, it
        /// is given back to the system. Meanwhile all of it counts as in use.
        ///
        /// # Safety
        /// They were not freed yet, are not used any more, and their bytes are zero.
        pub unsafe fn free(&self, start: NonNull<u8>, length: usize) {
            let (slot, offset) = (self.page / SLOTS, start.addr().get() - self.start.addr().get());
            let (index, first) = (offset / self.page, offset % self.page / slot);
            let (used, own) = (&self.used[index], bits(first, length.div_ceil(slot)));
            let others = |before| Some(if before == own { u64::MAX } else { before & !own });
            // Release: the bytes were wiped before. Acquire: also those that other threads have freed.
            if used.fetch_update(Ordering::AcqRel, Ordering::Relaxed, others) != Ok(own) {
                return;
            }
            // SAFETY: it is one of the mapped pages, which are aligned. No slot of it is in use: this thread has claimed all.
            // If the call fails, as for locked memory, the page stays, wiped.
            unsafe { libc::madvise(self.start.add(index * self.page).as_ptr().cast(), self.page, libc::MADV_DONTNEED) };
            used.store(0, Ordering::Release);
        }
    }

    /// Claims that many adjacent slots, and returns the number of the first one.
    fn claim_slots(used: &AtomicU64, count: usize) -> Option<usize> {
        let first_free = |before: u64| {
            // The bits from which on so many are clear.
            let (mut starts, mut width) = (!before, 1);
            while width < count {
                let more = width.min(count - width);
                (starts, width) = (starts & starts >> more, width + more);
            }
            (starts != 0).then(|| starts.trailing_zeros() as usize)
        };
        // Acquire: the thread that freed the slots has wiped them before.
        let claim = |before| Some(before | bits(first_free(before)?, count));
        used.fetch_update(Ordering::Acquire, Ordering::Relaxed, claim).ok().and_then(first_free)
    }

    /// The bits of that many slots.
    fn bits(first: usize, count: usize) -> u64 {
        u64::MAX >> (SLOTS - count) << first
    }

    /// Maps whole pages with room for `length` bytes. `None` if the system grants none, or if the length is 0.
    fn map(length: usize) -> Option<NonNull<u8>> {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping, at an address that the kernel chooses, changes no existing one.
        let start = unsafe { libc::mmap(null_mut(), length, access, kind, -1, 0) };
        if start == libc::MAP_FAILED {
            return None;
        }
        // SAFETY: the range is the mapping just made. A kernel without MADV_DONTDUMP changes nothing.
        unsafe { libc::madvise(start, length, libc::MADV_DONTDUMP) };
        NonNull::new(start.cast())
    }

    /// Unmaps what [`map`] returned for this length.
    ///
    /// # Safety
    /// It was not unmapped yet, and is not used any more.
    unsafe fn unmap(start: NonNull<u8>, length: usize) {
        // SAFETY: the caller upholds that the mapping is its own. If the call fails, because it would split a mapping and
        // the process has too many, the pages stay, wiped.
        unsafe { libc::munmap(start.as_ptr().cast(), length) };
    }
}

#[cfg(not(target_os = "linux"))]
mod pages {
    use std::ptr::NonNull;

    pub enum Place {}

    pub fn claim(_: usize) -> Option<(NonNull<u8>, Place)> {
        None
    }

    pub unsafe fn free(_: NonNull<u8>, _: usize, place: Place) {
        match place {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTHS: [usize; 12] = [0, 1, 63, 64, 65, 1077, 4095, 4096, 4097, 16 << 10, 1 << 20, (1 << 20) + 1];

    #[test]
    fn every_length_keeps_its_bytes() {
        let secrets: Vec<_> =
            (0..200).chain(LENGTHS).map(|length| SecretBuf::new(&vec![length as u8; length])).collect();
        for secret in &secrets {
            assert!(secret.bytes().iter().all(|byte| *byte == secret.length as u8), "{}", secret.length);
            assert_eq!(secret.place.is_some(), cfg!(target_os = "linux") && secret.length > 0, "{}", secret.length);
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod linux_tests {
    use super::pages::{GROUP, Group, Place, SharedPages, page_size};
    use super::*;
    use std::collections::HashSet;
    use std::io::Error;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicBool, Ordering};

    /// The largest page that systems have.
    const PAGE: usize = 64 << 10;

    /// Slots of a [`SharedPages`] of the test's own, filled with a byte.
    struct Filled(NonNull<u8>, usize, &'static Group, u8);

    impl Filled {
        fn new(shared: &SharedPages, length: usize, page: usize, byte: u8) -> Self {
            let (start, group) = shared.claim(length, page).unwrap();
            let filled = Filled(start, length, group, byte);
            assert!(filled.bytes().iter().all(|byte| *byte == 0), "{length} bytes that were not wiped");
            // SAFETY: the slots have room for that, and belong to this value.
            unsafe { start.write_bytes(byte, length) };
            filled
        }

        fn bytes(&self) -> &[u8] {
            // SAFETY: that many bytes were claimed, and they are zero at first.
            unsafe { std::slice::from_raw_parts(self.0.as_ptr(), self.1) }
        }

        fn is_intact(&self) -> bool {
            self.bytes().iter().all(|byte| *byte == self.3)
        }
    }

    impl Drop for Filled {
        fn drop(&mut self) {
            // SAFETY: it belongs to this value, which is dropped, and is wiped before it is freed.
            unsafe {
                self.0.write_bytes(0, self.1);
                self.2.free(self.0, self.1);
            }
        }
    }

    /// Whether the page at an address has memory. `None` if nothing is mapped there.
    fn has_memory(address: *const u8) -> Option<bool> {
        let mut state = 0;
        // SAFETY: it is asked about one page, and writes one byte.
        match unsafe { libc::mincore(address.cast_mut().cast(), 1, &raw mut state) } {
            0 => Some(state & 1 == 1),
            _ => {
                assert_eq!(Error::last_os_error().raw_os_error(), Some(libc::ENOMEM));
                None
            }
        }
    }

    /// Whether `work` returns true in a forked child. One that hangs is ended.
    fn in_child(work: impl FnOnce() -> bool) -> bool {
        // SAFETY: the child uses its own memory, and the allocator, which the C library keeps usable.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: they have no preconditions; the second one ends the process.
            unsafe {
                libc::alarm(60);
                libc::_exit(if catch_unwind(AssertUnwindSafe(work)).unwrap_or(false) { 0 } else { 1 });
            }
        }
        let mut status = 0;
        // SAFETY: the status is a variable of this function's.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        status == 0
    }

    /// In a process of its own, because in this one another test could map the same address again.
    #[test]
    fn a_long_secret_that_is_dropped_is_unmapped() {
        let secret = SecretBuf::new(&[7; 1 << 20]);
        assert!(matches!(secret.place, Some(Place::Own)));
        assert!(in_child(|| {
            let start = secret.start.as_ptr();
            let before = has_memory(start);
            drop(secret);
            before == Some(true) && has_memory(start).is_none()
        }));
    }

    /// In a process of its own, because in this one another test could claim the same slots.
    #[test]
    fn a_short_secret_that_is_dropped_is_wiped_and_its_slots_are_used_again() {
        assert!(in_child(|| {
            let mut secrets: Vec<_> = (0..100).map(|_| SecretBuf::new(&[7; 64])).collect();
            // One that has a neighbour: the page is not given back, which would wipe it too.
            let page = |secret: &SecretBuf| secret.start.addr().get() / page_size();
            let index = (0..99).find(|index| page(&secrets[*index]) == page(&secrets[index + 1])).unwrap();
            let start = secrets.remove(index).start;
            // SAFETY: the page is still mapped, because its neighbour is in it, and no other thread writes there.
            let is_wiped = unsafe { std::slice::from_raw_parts(start.as_ptr(), 64) } == [0; 64];
            let is_intact = secrets.iter().all(|secret| secret.bytes() == [7; 64]);
            is_wiped && is_intact && SecretBuf::new(&[8; 64]).start == start
        }));
    }

    #[test]
    fn a_page_is_given_back_when_its_last_secret_is_freed() {
        static SHARED: SharedPages = SharedPages::new();
        let secrets: Vec<_> = (0..64).map(|number| Filled::new(&SHARED, PAGE / 64, PAGE, number + 1)).collect();
        let start = secrets[0].0.as_ptr();
        let pages: HashSet<_> = secrets.iter().map(|secret| (secret.0.addr().get() - start.addr()) / PAGE).collect();
        assert_eq!(pages.len(), 1);
        let neighbour = Filled::new(&SHARED, PAGE, PAGE, 65);
        let mut secrets = secrets.into_iter();
        let last = secrets.next_back().unwrap();
        drop(secrets);
        assert_eq!((has_memory(start), last.is_intact()), (Some(true), true));
        drop(last);
        assert_eq!((has_memory(start), neighbour.is_intact()), (Some(false), true));
        assert_eq!(Filled::new(&SHARED, PAGE, PAGE, 66).0.as_ptr(), start);
    }

    /// For this size of a page and larger ones that other systems have, which are several pages here.
    #[test]
    fn secrets_of_every_length_keep_apart() {
        static SHARED: [SharedPages; 3] = [const { SharedPages::new() }; 3];
        for (shared, page) in SHARED.iter().zip([page_size(), 16 << 10, PAGE]) {
            let mut secrets = Vec::new();
            // A number from 1 to `most` for each round, which looks random.
            let choose = |round: usize, most: usize| (round * 7919 + round * round * 31) % most + 1;
            for round in 0..600 {
                let most = [page / 64, page / 4, page][round % 3];
                secrets.push(Filled::new(shared, choose(round, most), page, choose(round, 255) as u8));
                if round % 3 > 0 {
                    let removed = secrets.swap_remove(choose(round, secrets.len()) - 1);
                    assert!(removed.is_intact(), "{page}");
                }
            }
            assert!(secrets.iter().all(Filled::is_intact), "{page}");
        }
    }

    /// As reported of others, whose pages of their own exhaust the limits of the process.
    #[test]
    fn many_secrets_share_few_pages() {
        static SHARED: SharedPages = SharedPages::new();
        let page = page_size();
        // 1 and 17 slots of 64, as a client secret and a token have in pages of 4 KiB.
        let lengths = (0..3000).flat_map(|_| [page / 64, page * 17 / 64]);
        let secrets: Vec<_> = lengths.map(|length| Filled::new(&SHARED, length, page, 1)).collect();
        let pages: HashSet<_> = secrets.iter().map(|secret| secret.0.addr().get() / page).collect();
        assert!(pages.len() <= 3000 / 3 + 1, "{} pages", pages.len());
    }

    #[test]
    fn threads_share_no_slot() {
        static SHARED: SharedPages = SharedPages::new();
        let page = page_size();
        std::thread::scope(|scope| {
            for own in 1..=4_u8 {
                scope.spawn(move || {
                    for round in 0..1000 {
                        let lengths = (0..round % 30).map(|number| [1, 65, page / 4, page][(round + number) % 4]);
                        let secrets: Vec<_> = lengths.map(|length| Filled::new(&SHARED, length, page, own)).collect();
                        assert!(secrets.iter().all(Filled::is_intact));
                    }
                });
            }
        });
    }

    #[test]
    fn a_child_that_is_forked_amid_threads_uses_and_frees_secrets() {
        static SHARED: SharedPages = SharedPages::new();
        let page = page_size();
        let is_over = AtomicBool::new(false);
        let inherited = [64, page / 4, page].map(|length| Filled::new(&SHARED, length, page, 9));
        std::thread::scope(|scope| {
            for own in 1..=2_u8 {
                let is_over = &is_over;
                scope.spawn(move || {
                    while !is_over.load(Ordering::Relaxed) {
                        let secrets = [64, page / 4, 64, page].map(|length| Filled::new(&SHARED, length, page, own));
                        assert!(secrets.iter().all(Filled::is_intact));
                    }
                });
            }
            let succeeds = |_| {
                in_child(|| {
                    // SAFETY: this process's copy of them is not used otherwise.
                    let own = unsafe { std::ptr::read(&raw const inherited) };
                    let new = [64, page / 4, page, 64, page / 4].map(|length| Filled::new(&SHARED, length, page, 8));
                    own.iter().chain(&new).all(Filled::is_intact)
                })
            };
            let all_succeed = (0..50).all(succeeds);
            is_over.store(true, Ordering::Relaxed);
            assert!(all_succeed);
        });
        assert!(inherited.iter().all(Filled::is_intact));
    }

    #[test]
    fn where_the_system_grants_no_page_nothing_is_claimed() {
        // A group of these is nearly the whole address space.
        let page = (usize::MAX / GROUP) & !4095;
        assert!(SharedPages::new().claim(64, page).is_none());
    }
}
