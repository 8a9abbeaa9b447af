//! The pause of a process that finds another one refreshing the token: it must not try in a loop.

use crate::support::{LONG, Settings, is_held, temp_dir};
use amp_emulator::Emulator;
use amp_token::sys::clock::{Clock, ManualClock};
use amp_token::token::cache::TokenCache;
use std::time::{Duration, Instant};

/// Counts attempts, not requests: each attempt ends with a line.
#[test]
fn a_background_thread_pauses_while_another_process_refreshes() {
    let (emulator, directory) = (Emulator::builder().start().unwrap(), temp_dir());
    let settings = Settings::of(&emulator).with_file_store(directory.path()).with("background_refresh", "true");
    let (mut config, lines) = settings.config();
    let clock = ManualClock::new(1);
    config.clock = Clock::Manual(clock.clone());
    let cache = TokenCache::new(&config).unwrap();
    let first = cache.get().unwrap();
    // The other process: it has the lock, and does not come back.
    let (store, _) = settings.store();
    let other = store.lock(Duration::ZERO);
    assert!(is_held(&other));
    clock.advance(Duration::from_secs(250));
    let attempts = || lines.count("another process is refreshing the token");
    let attempts_become = |number: usize| {
        let start = Instant::now();
        while attempts() < number {
            assert!(start.elapsed() < LONG, "{} attempts", attempts());
            assert_eq!(cache.get().unwrap().value(), first.value());
        }
    };
    attempts_become(1);
    for _ in 0..1000 {
        cache.wake();
        cache.get().unwrap();
    }
    assert_eq!(attempts(), 1, "attempts without a pause");
    // The pause is an eighth of what is left, at most 5 seconds here.
    clock.advance(Duration::from_secs(5));
    cache.wake();
    attempts_become(2);
    assert_eq!(emulator.stats().token_requests, 1);
    drop(other);
}
