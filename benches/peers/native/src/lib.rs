//! The common part of the peers written in Rust; `peer.h` describes the modes.

use std::env;
use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The largest token that is copied.
pub const CAPACITY: usize = 4096;

const BATCH: u64 = 1000;

/// A setting of the service, from the environment.
pub fn setting(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set"))
}

/// Runs the mode on the command line. `get` is measured; `text` returns a token to print.
pub fn run<C: Sync>(cache: C, get: impl Fn(&C, &mut [u8]) + Sync, text: impl Fn(&C) -> String) {
    let arguments: Vec<String> = env::args().collect();
    let mode = arguments.get(1).map_or("token", String::as_str);
    let number = arguments.get(2).map_or(1, |text| text.parse().expect("a number"));
    let mut buffer = [0; CAPACITY];
    match mode {
        "token" => println!("{}", text(&cache)),
        "series" => (0..number).for_each(|_| get(&cache, &mut buffer)),
        "herd" => {
            gets(&cache, &get, number, None);
        }
        "gets" => {
            let seconds = arguments.get(3).map_or(0.2, |text| text.parse().expect("a number of seconds"));
            get(&cache, &mut buffer);
            println!("{:.1}", gets(&cache, &get, number, Some(Duration::from_secs_f64(seconds))));
        }
        other => panic!("unknown mode: {other}"),
    }
}

/// Returns how many gets per second `count` threads make; each makes one if there is no `time`.
fn gets<C: Sync>(cache: &C, get: &(impl Fn(&C, &mut [u8]) + Sync), count: usize, time: Option<Duration>) -> f64 {
    let (start, stop) = (Barrier::new(count + 1), AtomicBool::new(false));
    let body = || {
        let mut buffer = [0; CAPACITY];
        start.wait();
        if time.is_none() {
            get(cache, &mut buffer);
            return 1;
        }
        let mut made = 0;
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..BATCH {
                get(cache, black_box(&mut buffer));
            }
            made += BATCH;
        }
        made
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(body)).collect();
        start.wait();
        let begin = Instant::now();
        if let Some(time) = time {
            thread::sleep(time);
            stop.store(true, Ordering::Relaxed);
        }
        let made: u64 = threads.into_iter().map(|thread| thread.join().expect("no panic")).sum();
        made as f64 / begin.elapsed().as_secs_f64()
    })
}
