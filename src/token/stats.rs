//! The statistics of a cache.

use std::cell::Cell;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

/// The names of statistics for [`TokenCache::statistic`](super::cache::TokenCache::statistic), and what they count.
pub const STATISTICS: &[(&str, &str)] = &[
    ("hits", "calls that returned a fresh token immediately"),
    ("waits", "calls that waited for the request of another thread"),
    ("refreshes", "tokens that were fetched"),
    ("failures", "failed attempts to fetch a token"),
    ("requests", "token requests that were sent, including retries"),
    ("invalidations", "tokens that were discarded because a server rejected them"),
    ("last_refresh_ms", "how long the last attempt took, in milliseconds; -1: there was none"),
    ("last_status", "the status of the last attempt; -1: there was none"),
    ("age", "seconds since the current token was requested; -1: there is none"),
    ("expires_in", "seconds until the current token expires; -1: there is none"),
];

/// The counters of a cache. The hot path counts hits, in stripes with a cache line each, so that threads that
/// count at the same time rarely slow each other down.
pub(super) struct Stats {
    pub(super) hits: [StripedCounter; STRIPES],
    pub(super) waits: AtomicU64,
    pub(super) refreshes: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) invalidations: AtomicU64,
    pub(super) last_refresh_ms: AtomicI64,
    pub(super) last_status: AtomicI64,
}

/// Up to this many threads count hits without sharing a stripe.
pub(super) const STRIPES: usize = 16;

/// A counter with a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
pub(super) struct StripedCounter(AtomicU64);

impl Default for Stats {
    fn default() -> Self {
        Stats {
            hits: Default::default(),
            waits: AtomicU64::new(0),
            refreshes: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            invalidations: AtomicU64::new(0),
            last_refresh_ms: AtomicI64::new(-1),
            last_status: AtomicI64::new(-1),
        }
    }
}

impl Stats {
    #[inline]
    pub(super) fn record_hit(&self) {
        thread_local! {
            static STRIPE: Cell<usize> = const { Cell::new(usize::MAX) };
        }
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let stripe = STRIPE.with(|stripe| {
            if stripe.get() == usize::MAX {
                stripe.set(NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES);
            }
            stripe.get()
        });
        self.hits[stripe].0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn hits(&self) -> i64 {
        let sum: u64 = self.hits.iter().map(|stripe| stripe.0.load(Ordering::Relaxed)).sum();
        i64::try_from(sum).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_are_counted_by_any_number_of_threads() {
        let stats = Stats::default();
        std::thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| (0..100).for_each(|_| stats.record_hit()));
            }
        });
        assert_eq!(stats.hits(), 4000);
    }
}
