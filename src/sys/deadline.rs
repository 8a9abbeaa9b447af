//! The deadline of blocking I/O, on the real clock.
//!
//! A socket does not know the clock of a test. So this deadline is separate from the one of
//! [`crate::oauth::retry`], which is measured on [`crate::sys::clock::Clock`].

use crate::sys::sync::Instant;
use std::fmt;
use std::io;
use std::time::Duration;

/// The time by which an operation must be finished, and the timeout that it was given, for messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IoDeadline {
    at: Instant,
    timeout: Duration,
}

impl IoDeadline {
    /// The deadline that is `timeout` from now.
    pub(crate) fn after(timeout: Duration) -> Self {
        // Adding a huge duration to an `Instant` would panic.
        let timeout = timeout.min(Duration::from_secs(366 * 24 * 60 * 60));
        IoDeadline { at: Instant::now() + timeout, timeout }
    }

    /// The earlier of two deadlines.
    pub(crate) fn min(self, other: IoDeadline) -> IoDeadline {
        if other.at < self.at { other } else { self }
    }

    /// The time that is left; after the deadline an error of the kind `TimedOut`.
    pub(crate) fn remaining(self) -> io::Result<Duration> {
        let left = self.at.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl fmt::Display for IoDeadline {
    /// The timeout, such as `250 ms` or `1.5 s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.timeout < Duration::from_secs(1) {
            write!(f, "{} ms", self.timeout.as_millis())
        } else {
            write!(f, "{:.1} s", self.timeout.as_secs_f64())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earlier_deadline_wins_and_a_huge_one_is_limited() {
        let short = IoDeadline::after(Duration::from_millis(20));
        let long = IoDeadline::after(Duration::from_secs(5));
        assert_eq!(short.min(long).to_string(), "20 ms");
        assert_eq!(long.min(short).to_string(), "20 ms");
        assert_eq!(long.to_string(), "5.0 s");
        assert!(IoDeadline::after(Duration::MAX).remaining().is_ok());
        assert!(IoDeadline::after(Duration::ZERO).remaining().is_err());
    }
}
