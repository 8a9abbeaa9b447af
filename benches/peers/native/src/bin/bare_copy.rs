//! Not a cache, only the basic operations of one: load an atomically swapped pointer, read two coarse
//! clocks, copy 1 KB.

use amp_bench_native::run;
use arc_swap::ArcSwap;

fn clock(id: libc::clockid_t) -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writes, and nothing else is accessed.
    unsafe { libc::clock_gettime(id, &raw mut time) };
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

fn main() {
    let end = i64::MAX - 1;
    let token = "t".repeat(1024);
    run(
        ArcSwap::from_pointee((token, end)),
        |cache, buffer| {
            let token = cache.load();
            assert!(clock(libc::CLOCK_MONOTONIC_COARSE) < token.1 && clock(libc::CLOCK_REALTIME_COARSE) < token.1);
            buffer[..token.0.len()].copy_from_slice(token.0.as_bytes());
        },
        |cache| cache.load().0.clone(),
    );
}
