//! The stores, with real processes: what processes share, and what happens to the others when one of them is killed,
//! stopped or forked, or when the store is broken.
//!
//! A child process is this test program, and its environment tells it what to do: see `child`. The tests wait for
//! events, not for a time to pass, and assert that operations end, not how fast.

mod child;
mod file;
mod pauses;
mod pipes;
#[cfg(feature = "redis")]
mod redis;
#[cfg(all(feature = "redis", target_os = "linux"))]
mod sharing;
mod support;
