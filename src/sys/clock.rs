//! Clocks and randomness behind one type, so that tests can control both.
//!
//! [`Clock::now`] reads two clocks, because neither is enough: the wall clock can be set back, and the
//! monotonic clock stops while the machine is suspended. Both are the kernel's coarse clocks (about 4 ns
//! each; the exact ones take about 23 ns). They lag by up to one tick, 1 to 10 ms, which is far below the
//! safety margin of the [cache](crate::token::cache).

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// One reading of both clocks, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamps {
    /// Time since an arbitrary point in the past. It never goes back, and may stop while the machine is
    /// suspended.
    pub monotonic: i64,
    /// Time since 1970, which the administrator can change.
    pub wall: i64,
}

impl Timestamps {
    /// This reading plus `later`, on both clocks.
    #[must_use]
    pub fn after(self, later: Duration) -> Timestamps {
        let later = i64::try_from(later.as_nanos()).unwrap_or(i64::MAX);
        Timestamps { monotonic: self.monotonic.saturating_add(later), wall: self.wall.saturating_add(later) }
    }

    /// This reading minus `earlier`, on both clocks.
    #[must_use]
    pub fn before(self, earlier: Duration) -> Timestamps {
        let earlier = i64::try_from(earlier.as_nanos()).unwrap_or(i64::MAX);
        Timestamps { monotonic: self.monotonic.saturating_sub(earlier), wall: self.wall.saturating_sub(earlier) }
    }

    /// Whether neither clock has reached `point`.
    #[inline]
    pub fn is_before_both(self, point: Timestamps) -> bool {
        self.monotonic < point.monotonic && self.wall < point.wall
    }

    /// The time until the first of the two clocks reaches `point`; zero if one has reached it.
    pub fn remaining_until(self, point: Timestamps) -> Duration {
        let left = (point.monotonic.saturating_sub(self.monotonic)).min(point.wall.saturating_sub(self.wall));
        Duration::from_nanos(u64::try_from(left).unwrap_or(0))
    }

    /// The latest possible reading, which no clock ever reaches.
    pub const NEVER: Timestamps = Timestamps { monotonic: i64::MAX, wall: i64::MAX };
}

/// Where the time comes from.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The machine's clocks, and its randomness.
    #[default]
    System,
    /// A clock that only moves when a test moves it.
    Manual(Arc<ManualClock>),
    /// The clocks and the randomness of a simulated machine.
    #[cfg(simulator)]
    Simulated(crate::sys::simulation::MachineClock),
}

impl Clock {
    /// Reads both clocks.
    #[inline]
    pub fn now(&self) -> Timestamps {
        match self {
            Clock::System => system_now(),
            Clock::Manual(clock) => clock.now(),
            #[cfg(simulator)]
            Clock::Simulated(clock) => clock.now(),
        }
    }

    /// The time since this machine was booted, in nanoseconds, suspension included. A manual clock's is its
    /// monotonic time.
    pub fn boot_time(&self) -> i64 {
        match self {
            Clock::System => system_boot_time(),
            Clock::Manual(clock) => clock.now().monotonic,
            #[cfg(simulator)]
            Clock::Simulated(clock) => clock.boot_time(),
        }
    }

    /// Sleeps for `duration`; a manual clock is moved instead.
    pub fn sleep(&self, duration: Duration) {
        match self {
            Clock::System => std::thread::sleep(duration),
            Clock::Manual(clock) => clock.advance(duration + clock.oversleep()),
            #[cfg(simulator)]
            Clock::Simulated(_) => crate::sys::simulation::sleep(duration),
        }
    }

    /// A uniformly distributed duration below `limit`. The kernel is asked each time, because a generator
    /// with a state would give a forked child the same numbers as its parent.
    pub fn random_below(&self, limit: Duration) -> Duration {
        let fraction = match self {
            Clock::System => {
                use ring::rand::SecureRandom;
                let mut bytes = [0_u8; 8];
                // Randomness only spreads load here, so without it the middle will do.
                match ring::rand::SystemRandom::new().fill(&mut bytes) {
                    Ok(()) => u64::from_ne_bytes(bytes),
                    Err(_) => u64::MAX / 2,
                }
            }
            Clock::Manual(clock) => clock.random(),
            #[cfg(simulator)]
            Clock::Simulated(clock) => clock.random(),
        };
        // The fraction is below 2⁶⁴ and the result is rounded down, so it is never the limit itself.
        let limit = limit.as_nanos().min(u64::MAX.into());
        Duration::from_nanos(((limit * u128::from(fraction)) >> 64) as u64)
    }
}

/// A clock that only moves when a test moves it, with reproducible random numbers.
#[derive(Debug)]
pub struct ManualClock {
    monotonic: AtomicI64,
    wall: AtomicI64,
    random: AtomicU64,
    late: AtomicI64,
}

impl ManualClock {
    /// A clock at a fixed time in 2023; `seed` determines its random numbers.
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(ManualClock {
            monotonic: AtomicI64::new(1_000_000_000_000),
            wall: AtomicI64::new(1_700_000_000_000_000_000),
            random: AtomicU64::new(seed),
            late: AtomicI64::new(0),
        })
    }

    /// Reads both clocks.
    pub fn now(&self) -> Timestamps {
        Timestamps { monotonic: self.monotonic.load(Ordering::SeqCst), wall: self.wall.load(Ordering::SeqCst) }
    }

    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        let by = i64::try_from(by.as_nanos()).unwrap_or(i64::MAX);
        self.monotonic.fetch_add(by, Ordering::SeqCst);
        self.wall.fetch_add(by, Ordering::SeqCst);
    }

    /// Moves the wall clock by `seconds`, forward or back.
    pub fn set_wall_by(&self, seconds: i64) {
        self.wall.fetch_add(seconds * 1_000_000_000, Ordering::SeqCst);
    }

    /// From now on every sleep takes that much longer, as on a busy machine.
    pub fn set_oversleep(&self, by: Duration) {
        self.late.store(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX), Ordering::SeqCst);
    }

    fn oversleep(&self) -> Duration {
        Duration::from_nanos(self.late.load(Ordering::SeqCst).unsigned_abs())
    }

    fn random(&self) -> u64 {
        // SplitMix64: the increment alone makes a full-period sequence, the rest mixes it.
        let mut z = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

// The hot path reads two clocks. An optimization for size would not inline this function.
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
#[inline(always)]
fn read_clock(clock: libc::clockid_t) -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a timespec that the call may write to. All clocks that are read exist since Linux 2.6.39
    // and macOS 10.12, so the call cannot fail.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    #[allow(clippy::useless_conversion, reason = "the fields are 32 bits wide on some targets")]
    i64::from(time.tv_sec).saturating_mul(1_000_000_000).saturating_add(i64::from(time.tv_nsec))
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[inline]
fn system_now() -> Timestamps {
    Timestamps { monotonic: read_clock(libc::CLOCK_MONOTONIC_COARSE), wall: read_clock(libc::CLOCK_REALTIME_COARSE) }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn system_boot_time() -> i64 {
    read_clock(libc::CLOCK_BOOTTIME)
}

// macOS has no coarse wall clock. The monotonic one is `mach_continuous_time`, which goes on while the machine sleeps; that of
// `Instant` stops, and was seen to go back (libuv's issue 2891).
#[cfg(target_vendor = "apple")]
#[inline]
fn system_now() -> Timestamps {
    Timestamps { monotonic: system_boot_time(), wall: read_clock(libc::CLOCK_REALTIME) }
}

#[cfg(target_vendor = "apple")]
fn system_boot_time() -> i64 {
    read_clock(libc::CLOCK_MONOTONIC_RAW)
}

// Not used: the identity of the boot is unknown on other systems.
#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
fn system_boot_time() -> i64 {
    system_now().monotonic
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
fn system_now() -> Timestamps {
    use std::sync::OnceLock;
    use std::time::{Instant, SystemTime, UNIX_EPOCH};
    static START: OnceLock<Instant> = OnceLock::new();
    let nanoseconds = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    Timestamps {
        monotonic: nanoseconds(START.get_or_init(Instant::now).elapsed()),
        wall: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, nanoseconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_reached_when_either_clock_reaches_it() {
        let clock = ManualClock::new(1);
        let point = clock.now().after(Duration::from_secs(10));
        assert!(clock.now().is_before_both(point));
        clock.set_wall_by(11); // the machine was suspended
        assert!(!clock.now().is_before_both(point));
        clock.set_wall_by(-1000); // the clock was set back
        assert!(clock.now().is_before_both(point));
        clock.advance(Duration::from_secs(10));
        assert!(!clock.now().is_before_both(point));
        assert_eq!(clock.now().remaining_until(point), Duration::ZERO);
    }

    #[test]
    fn random_durations_stay_below_their_limit() {
        for clock in [Clock::System, Clock::Manual(ManualClock::new(7))] {
            let draws: Vec<_> = (0..1000).map(|_| clock.random_below(Duration::from_secs(1))).collect();
            assert!(draws.iter().all(|draw| *draw < Duration::from_secs(1)));
            assert!(draws.iter().max() > draws.iter().min());
        }
    }

    #[test]
    fn the_system_clocks_move_forward() {
        let before = Clock::System.now();
        let booted = Clock::System.boot_time();
        std::thread::sleep(Duration::from_millis(20));
        assert!(before.is_before_both(Clock::System.now()));
        assert!(booted < Clock::System.boot_time());
    }
}
