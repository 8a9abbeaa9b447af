//! The stores, with real processes: what they share, and what happens to those who share when one of
//! them is killed, stopped or forked, or when the store is broken.
//!
//! Another process is this test program once more, told by its environment to play a role: see
//! `roles`. Nothing here waits for a time to pass, but for something to happen; and no test expects
//! anything to be quick, only to end.

mod child;
mod file;
#[cfg(feature = "redis")]
mod redis;
mod support;
