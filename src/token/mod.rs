//! One access token: its secret string and its points in time. Immutable.
//!
//! The points in time are fractions of the lifetime, so that tokens that are valid for 2 seconds and for a day are
//! treated alike:
//!
//! ```text
//! issued             due (80 %, jittered earlier)      margin: min(10 s, 10 %)   expires
//!   ├── fresh: returned ────────┼── due: returned, refreshed ──┼── not returned ────┤
//! ```

pub mod cache;
mod cell;
mod flight;
pub mod provider;
mod refresher;
pub mod rejection;
mod state;
mod stats;

use crate::sys::clock::{Clock, Timestamps};
use crate::sys::secret::{Secret, SecretText};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use zeroize::Zeroizing;

/// What precedes a token in an `Authorization` header.
pub const PREFIX: &str = "Bearer ";

/// The longest time before its expiry in which a token is no longer returned: a request that carries the token
/// takes some time to arrive.
const MAX_MARGIN: Duration = Duration::from_secs(10);

/// An access token.
pub struct Token {
    /// `Bearer `, the token, NUL. The C interface returns the header and the value as strings, which end with a
    /// NUL; one buffer serves all of these forms, so that none of them has to be copied.
    text: SecretText,
    issued: Timestamps,
    expires: Timestamps,
    due: Timestamps,
    used: AtomicBool,
}

impl Token {
    /// A token that was requested at `issued` and is valid for `lifetime`. It is due for refresh early enough to
    /// guarantee `min_validity`, and at random a little earlier.
    pub fn new(value: &Secret, issued: Timestamps, lifetime: Duration, min_validity: Duration, clock: &Clock) -> Self {
        let usable = lifetime.saturating_sub(margin(lifetime).max(min_validity));
        let due = (lifetime * 4 / 5).min(usable * 8 / 9);
        let jitter = clock.random_below((usable - due) / 5);
        Token::build(value.expose(), issued, issued.after(lifetime), issued.after(due.saturating_sub(jitter)))
    }

    /// A token that never expires: a personal access token.
    pub fn permanent(value: &Secret, issued: Timestamps) -> Self {
        Token::build(value.expose(), issued, Timestamps::NEVER, Timestamps::NEVER)
    }

    /// The same token, due for refresh at another time between `now` and the end of the time in which it is valid for
    /// `min_validity`: a forked child must not refresh it at the same time as its parent and its siblings.
    #[must_use]
    pub fn with_new_refresh_time(&self, now: Timestamps, min_validity: Duration, clock: &Clock) -> Self {
        let due = now.after(clock.random_below(now.remaining_until(self.usable_until(min_validity)) / 2));
        Token::build(self.value(), self.issued, self.expires, due)
    }

    /// The same token, due for refresh at `due`.
    #[must_use]
    pub fn with_refresh_at(&self, due: Timestamps) -> Self {
        let token = Token::build(self.value(), self.issued, self.expires, due);
        token.used.store(self.was_used(), Ordering::Relaxed);
        token
    }

    fn build(value: &str, issued: Timestamps, expires: Timestamps, due: Timestamps) -> Self {
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + value.len() + 1));
        for part in [PREFIX, value, "\0"] {
            text.push_str(part);
        }
        Token { text: SecretText::new(&text), issued, expires, due, used: AtomicBool::new(false) }
    }

    /// The token itself.
    pub fn value(&self) -> &str {
        &self.authorization()[PREFIX.len()..]
    }

    /// `Bearer ` and the token: the value of an `Authorization` header.
    pub fn authorization(&self) -> &str {
        let text = self.text.expose();
        &text[..text.len() - 1]
    }

    /// The token, and a NUL.
    #[inline]
    pub fn value_with_nul(&self) -> &[u8] {
        &self.text.expose().as_bytes()[PREFIX.len()..]
    }

    /// `Bearer `, the token, and a NUL.
    pub fn authorization_with_nul(&self) -> &[u8] {
        self.text.expose().as_bytes()
    }

    /// Whether the token is not due for refresh yet.
    #[inline]
    pub fn is_fresh(&self, now: Timestamps) -> bool {
        now.is_before_both(self.due)
    }

    /// Whether the token may be returned to a caller that needs it for `min_validity`.
    #[inline]
    pub fn is_usable(&self, now: Timestamps, min_validity: Duration) -> bool {
        now.is_before_both(self.usable_until(min_validity))
    }

    /// Whether a token of this lifetime can be returned to a caller that needs it for `min_validity`, if it is new.
    pub fn can_last(&self, min_validity: Duration) -> bool {
        self.issued.is_before_both(self.usable_until(min_validity))
    }

    /// The end of the time in which the token may be returned.
    pub fn usable_until(&self, min_validity: Duration) -> Timestamps {
        if self.is_permanent() {
            return Timestamps::NEVER;
        }
        let margin = margin(self.lifetime()).max(min_validity);
        let margin = i64::try_from(margin.as_nanos()).unwrap_or(i64::MAX);
        Timestamps {
            monotonic: self.expires.monotonic.saturating_sub(margin),
            wall: self.expires.wall.saturating_sub(margin),
        }
    }

    /// When the token was requested.
    pub fn issued(&self) -> Timestamps {
        self.issued
    }

    /// When the token expires.
    pub fn expires(&self) -> Timestamps {
        self.expires
    }

    /// When the token is due for refresh.
    pub fn refresh_at(&self) -> Timestamps {
        self.due
    }

    /// How long the token is valid, counted from when it was requested.
    pub fn lifetime(&self) -> Duration {
        self.issued.remaining_until(self.expires)
    }

    /// Whether the token never expires.
    pub fn is_permanent(&self) -> bool {
        self.expires == Timestamps::NEVER
    }

    /// When the token expires, in Unix seconds; `i64::MAX` if never.
    pub fn expires_at(&self) -> i64 {
        if self.is_permanent() { i64::MAX } else { self.expires.wall.div_euclid(1_000_000_000) }
    }

    /// The whole seconds until the token expires, never below zero; `i64::MAX` if it never expires.
    pub fn expires_in(&self, now: Timestamps) -> i64 {
        if self.is_permanent() {
            return i64::MAX;
        }
        i64::try_from(now.remaining_until(self.expires).as_secs()).unwrap_or(i64::MAX)
    }

    /// Records that the token was returned to a caller. Only the first call writes, so that callers do not contend.
    #[inline]
    pub fn mark_used(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the token was returned to a caller.
    pub fn was_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// A short name for logs, from which the token cannot be recovered.
    pub fn fingerprint(&self) -> String {
        crate::sys::secret::fingerprint(self.value())
    }
}

/// The last part of a lifetime, in which a token is not returned.
fn margin(lifetime: Duration) -> Duration {
    MAX_MARGIN.min(lifetime / 10)
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({}, expires at {})", self.fingerprint(), self.expires_at())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock::ManualClock;

    fn windows(lifetime: Duration, min_validity: Duration) -> (f64, f64) {
        let clock = Clock::Manual(ManualClock::new(5));
        let token = Token::new(&"t".into(), clock.now(), lifetime, min_validity, &clock);
        let part = |point: Timestamps| token.issued().remaining_until(point).as_secs_f64() / lifetime.as_secs_f64();
        (part(token.refresh_at()), part(token.usable_until(min_validity)))
    }

    #[test]
    fn windows_are_fractions_of_any_lifetime() {
        for seconds in [1, 2, 60, 300, 3600, 86_400] {
            let (due, end) = windows(Duration::from_secs(seconds), Duration::ZERO);
            assert!((0.75..=0.8).contains(&due), "{seconds}: due at {due}");
            let margin = 10_f64.min(seconds as f64 / 10.0) / seconds as f64;
            assert!((end - (1.0 - margin)).abs() < 1e-9, "{seconds}: usable until {end}");
        }
    }

    #[test]
    fn min_validity_moves_the_windows() {
        let (due, end) = windows(Duration::from_secs(300), Duration::from_secs(150));
        assert!((end - 0.5).abs() < 1e-9 && due < end && due > 0.4, "{due} {end}");
        let (due, end) = windows(Duration::from_secs(300), Duration::from_secs(400));
        assert_eq!((due, end), (0.0, 0.0));
    }

    #[test]
    fn one_buffer_serves_all_forms() {
        let token = Token::permanent(&"abc".into(), Clock::System.now());
        assert_eq!(token.value(), "abc");
        assert_eq!(token.authorization(), "Bearer abc");
        assert_eq!(token.value_with_nul(), b"abc\0");
        assert_eq!(token.authorization_with_nul(), b"Bearer abc\0");
        assert_eq!((token.expires_at(), token.expires_in(Clock::System.now())), (i64::MAX, i64::MAX));
        assert!(!format!("{token:?}").contains("abc"));
    }

    #[test]
    fn a_child_refreshes_at_its_own_time() {
        let clock = Clock::Manual(ManualClock::new(5));
        let token = Token::new(&"t".into(), clock.now(), Duration::from_secs(300), Duration::ZERO, &clock);
        clock.sleep(Duration::from_secs(250));
        let children: Vec<_> = (0..10)
            .map(|_| token.with_new_refresh_time(clock.now(), Duration::ZERO, &clock).refresh_at().wall)
            .collect();
        assert!(children.iter().max() > children.iter().min());
        assert!(children.iter().all(|due| *due < token.usable_until(Duration::ZERO).wall));
    }

    #[test]
    fn a_child_keeps_to_min_validity() {
        let clock = Clock::Manual(ManualClock::new(5));
        let min_validity = Duration::from_secs(30);
        let token = Token::new(&"t".into(), clock.now(), Duration::from_secs(300), min_validity, &clock);
        for passed in [200, 60, 20] {
            clock.sleep(Duration::from_secs(passed));
            let now = clock.now();
            for _ in 0..20 {
                // The fast path asks only whether the token is fresh.
                let child = token.with_new_refresh_time(now, min_validity, &clock);
                let last = child.refresh_at().before(Duration::from_nanos(1));
                assert!(!child.is_fresh(now) || child.is_usable(last, min_validity));
            }
        }
    }
}
