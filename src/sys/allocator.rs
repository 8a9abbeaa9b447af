//! An allocator that wipes each block before it frees it.
//!
//! The library wipes its own buffers, but cannot reach those of the crates that it uses: rustls frees the records
//! that it has encrypted or decrypted, serde_json the strings that it has unescaped, the HTTP layer the headers
//! of a response. All of them use the global allocator.
//!
//! Under the cargo feature `zeroizing-allocator` it is the global allocator. The Makefile sets that feature for
//! the shared library, the static library and the command, in which all Rust code is this library's. A Rust
//! program that uses the crate chooses its global allocator itself, and may choose this one.

use crate::sys::secret::wipe;
use std::alloc::{GlobalAlloc, Layout, System};
use std::mem::MaybeUninit;

/// An allocator that takes blocks from another one, by default the system's, and wipes each block before it
/// returns it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ZeroizingAllocator<A = System>(A);

#[cfg(feature = "zeroizing-allocator")]
#[global_allocator]
static GLOBAL: ZeroizingAllocator = ZeroizingAllocator::over(System);

impl<A> ZeroizingAllocator<A> {
    /// An allocator that takes blocks from `allocator`.
    pub const fn over(allocator: A) -> Self {
        ZeroizingAllocator(allocator)
    }
}

// SAFETY: every block comes from the inner allocator, and is returned to it with the layout that it had.
unsafe impl<A: GlobalAlloc> GlobalAlloc for ZeroizingAllocator<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller upholds the same contract.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller upholds the same contract.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block has that size, and the caller, who frees it, is the only one that uses it. All of it
        // may be written, whether or not it ever was.
        wipe(unsafe { std::slice::from_raw_parts_mut(block.cast::<MaybeUninit<u8>>(), layout.size()) });
        // SAFETY: the caller upholds the same contract.
        unsafe { self.0.dealloc(block, layout) }
    }

    // `realloc` is the trait's default, which allocates, copies, and frees the old block by the function above.
    // That of the inner allocator could move the block and leave the old one unwiped.
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// Counts the blocks that it gets back, which must be wiped.
    struct Below(Cell<usize>);

    // SAFETY: it is the system's allocator.
    unsafe impl GlobalAlloc for Below {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: the caller upholds the same contract.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            // SAFETY: the block has that size, and the tests have written all of it.
            let bytes = unsafe { std::slice::from_raw_parts(block, layout.size()) };
            assert!(bytes.iter().all(|byte| *byte == 0), "{layout:?}");
            self.0.set(self.0.get() + 1);
            // SAFETY: the caller upholds the same contract.
            unsafe { System.dealloc(block, layout) }
        }
    }

    #[test]
    fn blocks_of_every_size_and_alignment_are_wiped() {
        let allocator = ZeroizingAllocator::over(Below(Cell::new(0)));
        let mut freed = 0;
        for align in [1, 2, 4, 8, 16, 64, 4096] {
            for size in (1..70).chain([4095, 4096, 4097, 1 << 20]) {
                let layout = Layout::from_size_align(size, align).unwrap();
                // SAFETY: the layout is not empty; the block has its size, and is freed with it, once.
                unsafe {
                    let block = allocator.alloc(layout);
                    block.write_bytes(7, size);
                    allocator.dealloc(block, layout);
                }
                freed += 1;
            }
        }
        assert_eq!(allocator.0.0.get(), freed);
    }

    #[test]
    fn a_block_that_grows_or_shrinks_keeps_its_bytes_and_leaves_none() {
        let allocator = ZeroizingAllocator::over(Below(Cell::new(0)));
        for (old, new) in [(10, 10_000), (10_000, 10), (1 << 20, 3 << 20), (3 << 20, 1 << 20), (24, 25), (25, 24)] {
            let layout = Layout::from_size_align(old, 1).unwrap();
            allocator.0.0.set(0);
            // SAFETY: the layouts are not empty; the block has the size of each in turn, and is freed once.
            unsafe {
                let block = allocator.alloc(layout);
                block.write_bytes(7, old);
                let block = allocator.realloc(block, layout, new);
                let kept = std::slice::from_raw_parts(block, old.min(new));
                assert!(kept.iter().all(|byte| *byte == 7), "{old} to {new}");
                block.write_bytes(8, new);
                allocator.dealloc(block, Layout::from_size_align(new, 1).unwrap());
            }
            assert_eq!(allocator.0.0.get(), 2, "{old} to {new}: the old block and the new one");
        }
    }
}
