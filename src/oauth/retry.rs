//! What is sent again, and when.
//!
//! A request is repeated when the failure may pass (no connection, 408, 429, 500, 502, 503, 504),
//! after a pause that doubles with each failure and is drawn at random between nothing and that
//! limit ("full jitter"), so that clients that failed together do not come back together. A
//! `Retry-After` is obeyed. Nothing outlasts the caller's deadline: when the next attempt could only
//! come after it, the failure is returned at once, with the time to wait.

use crate::error::{Error, Result};
use crate::net::transport::Response;
use crate::sys::clock::Clock;
use std::time::Duration;

/// The limit of the first pause; each further one is twice as long.
const BACKOFF_BASE: Duration = Duration::from_millis(250);

/// The longest pause between two attempts of one call.
const BACKOFF_CAP: Duration = Duration::from_secs(8);

/// The longest `Retry-After` that is believed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// A moment on the monotonic clock by which a call must be over.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(i64);

impl Deadline {
    /// The moment `timeout` from now.
    pub fn after(clock: &Clock, timeout: Duration) -> Self {
        Deadline(clock.now().after(timeout).monotonic)
    }

    /// The earlier of two moments.
    #[must_use]
    pub fn min(self, other: Deadline) -> Self {
        Deadline(self.0.min(other.0))
    }

    /// The time left; zero when it is over.
    pub fn remaining(self, clock: &Clock) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(clock.now().monotonic)).unwrap_or(0))
    }
}

/// A random pause before attempt `failures + 1`: below `first` doubled for every failure after the
/// first, and below `longest`.
pub fn backoff(clock: &Clock, failures: u32, first: Duration, longest: Duration) -> Duration {
    let doubled = first.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
    clock.random_below(doubled.min(longest))
}

/// Calls `attempt` with the time left, until it succeeds, fails for good, or the deadline or the
/// number of `retries` forbids another one. The error tells how many attempts there were.
pub fn with_retries<T>(
    clock: &Clock,
    deadline: Deadline,
    retries: u32,
    mut attempt: impl FnMut(Duration) -> Result<T>,
) -> Result<T> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let error = match attempt(deadline.remaining(clock)) {
            Ok(value) => return Ok(value),
            Err(error) => error.with_attempts(attempts),
        };
        if !error.is_retryable() || attempts > retries {
            return Err(error);
        }
        let pause = backoff(clock, attempts, BACKOFF_BASE, BACKOFF_CAP);
        let asked = error.retry_after().unwrap_or_default();
        let left = deadline.remaining(clock);
        if asked > left {
            return Err(retry_after_exceeds_deadline(error, left));
        }
        if asked + pause >= left {
            return Err(error);
        }
        clock.sleep(asked + pause);
        // A busy machine wakes us up too late for another one.
        if deadline.remaining(clock).is_zero() {
            return Err(error);
        }
    }
}

/// The error for a server that wants a longer pause than the caller has.
fn retry_after_exceeds_deadline(error: Error, left: Duration) -> Error {
    let left = left.as_millis().div_ceil(1000);
    error.with_hint(format!(
        "the server asks for a longer pause than the {left} s that timeout_ms leaves; try again then"
    ))
}

/// The pause that a reply asks for: `Retry-After` as seconds or as a date. A date is compared with
/// the server's own `Date` if it sent one, because the two clocks may differ; else with `wall`, the
/// local time in Unix seconds.
pub fn retry_after(response: &Response, wall: i64) -> Option<Duration> {
    let text = response.header("retry-after")?.trim();
    let seconds = match text.parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => {
            let now = response.header("date").and_then(parse_http_date).unwrap_or(wall);
            u64::try_from(parse_http_date(text)?.checked_sub(now)?).unwrap_or(0)
        }
    };
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

/// Reads an HTTP date (`Sun, 06 Nov 1994 08:49:37 GMT`, the form that RFC 9110 has servers send).
pub fn parse_http_date(date: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = date.trim().split_once(", ")?.1.split(' ');
    let number = |digits: &str, most: i64| {
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<i64>().ok().filter(|number| plain && *number <= most)
    };
    let day = number(words.next()?, 31)?;
    let month = words.next()?;
    let month = 1 + MONTHS.iter().position(|name| *name == month)? as i64;
    let year = number(words.next()?, 9999)?;
    let mut time = words.next()?.split(':');
    let (hour, minute, second) = (number(time.next()?, 23)?, number(time.next()?, 59)?, number(time.next()?, 60)?);
    if words.next() != Some("GMT") || words.next().is_some() || time.next().is_some() || year < 1970 || day == 0 {
        return None;
    }
    // Days since 1970, with years that begin in March so that the leap day is the last one.
    let (march_year, march_month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        365 * march_year + march_year / 4 - march_year / 100 + march_year / 400 + (153 * march_month + 2) / 5 + day
            - 1
            - 719_468;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::sys::clock::ManualClock;

    fn response(headers: &[(&str, &str)]) -> Response {
        Response {
            status: 503,
            headers: headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            body: Vec::new().into(),
        }
    }

    #[test]
    fn http_dates_are_read() {
        for (date, seconds) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Thu, 29 Feb 2024 23:59:59 GMT", Some(1_709_251_199)),
            ("Fri, 01 Mar 2024 00:00:00 GMT", Some(1_709_251_200)),
            ("Sun, 06 Nov 1994 08:49:37 CET", None),
            ("Sun, 06 Nov 1994 08:49 GMT", None),
            ("Sun, 06 Nov 1994 8:61:37 GMT", None),
            ("Sun, 00 Nov 1994 08:49:37 GMT", None),
            ("Sun, +6 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 99999999999 08:49:37 GMT", None),
            ("", None),
        ] {
            assert_eq!(parse_http_date(date), seconds, "{date}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let at = 784_111_777;
        for (headers, seconds) in [
            (&[("Retry-After", "7")][..], Some(7)),
            (&[("retry-after", " 0 ")], Some(0)),
            (&[("Retry-After", "Sun, 06 Nov 1994 08:49:47 GMT")], Some(10)),
            (&[("Retry-After", "Sun, 06 Nov 1994 08:49:27 GMT")], Some(0)),
            (&[("Retry-After", "Sun, 06 Nov 1994 08:49:47 GMT"), ("Date", "Sun, 06 Nov 1994 08:49:45 GMT")], Some(2)),
            (&[("Retry-After", "99999999999")], Some(86_400)),
            (&[("Retry-After", "-1")], None),
            (&[("Retry-After", "soon")], None),
            (&[], None),
        ] {
            assert_eq!(retry_after(&response(headers), at), seconds.map(Duration::from_secs), "{headers:?}");
        }
    }

    /// Runs with a failure that repeats, in virtual time: attempts made, and the time it took.
    fn run_with(error: &Error, retries: u32, timeout: Duration) -> (Error, u32, Duration) {
        let clock = Clock::Manual(ManualClock::new(3));
        let start = clock.now();
        let mut calls = 0;
        let failure = with_retries(&clock, Deadline::after(&clock, timeout), retries, |_| {
            calls += 1;
            Err::<(), _>(error.clone())
        })
        .unwrap_err();
        (failure, calls, start.remaining_until(clock.now()))
    }

    #[test]
    fn what_may_pass_is_tried_again_and_what_may_not_is_not() {
        let passing = Error::new(Kind::Server, "x");
        let (error, calls, took) = run_with(&passing, 3, Duration::from_secs(30));
        assert_eq!((calls, error.attempts()), (4, 4));
        assert!(took > Duration::ZERO && took < BACKOFF_BASE * 7);
        assert_eq!(run_with(&passing, 0, Duration::from_secs(30)).1, 1);
        assert_eq!(run_with(&Error::new(Kind::CredentialsRejected, "x"), 3, Duration::from_secs(30)).1, 1);
    }

    #[test]
    fn a_retry_after_is_waited_for_or_fails_at_once() {
        let asking = Error::new(Kind::RateLimited, "x").with_retry_after(Some(Duration::from_secs(10)));
        let (_, calls, took) = run_with(&asking, 1, Duration::from_secs(30));
        assert_eq!(calls, 2);
        assert!(took >= Duration::from_secs(10));
        let (error, calls, took) = run_with(&asking, 3, Duration::from_secs(5));
        assert_eq!((calls, took), (1, Duration::ZERO));
        assert_eq!(error.retry_after(), Some(Duration::from_secs(10)));
        assert!(error.to_string().contains("longer pause than the 5 s"), "{error}");
    }

    #[test]
    fn nothing_outlasts_the_deadline() {
        let (error, calls, took) = run_with(&Error::new(Kind::Connect, "x"), 100, Duration::from_secs(20));
        assert!(calls > 3 && took < Duration::from_secs(20), "{calls} {took:?}");
        assert_eq!(error.kind(), Kind::Connect);
    }

    #[test]
    fn nothing_is_tried_when_the_time_was_slept_away() {
        let manual = ManualClock::new(3);
        let clock = Clock::Manual(manual.clone());
        manual.set_oversleep(Duration::from_secs(40));
        let mut given = Vec::new();
        let error = with_retries(&clock, Deadline::after(&clock, Duration::from_secs(30)), 3, |left| {
            given.push(left);
            Err::<(), _>(Error::new(Kind::Connect, "x"))
        })
        .unwrap_err();
        assert_eq!((given, error.attempts()), (vec![Duration::from_secs(30)], 1));
    }

    #[test]
    fn pauses_double_up_to_their_limit() {
        let clock = Clock::Manual(ManualClock::new(9));
        let longest = |failures| (0..2000).map(|_| backoff(&clock, failures, BACKOFF_BASE, BACKOFF_CAP)).max().unwrap();
        assert!(longest(1) < BACKOFF_BASE);
        assert!(longest(3) > BACKOFF_BASE * 3 && longest(3) < BACKOFF_BASE * 4);
        assert!(longest(99) > BACKOFF_CAP / 2 && longest(99) < BACKOFF_CAP);
    }
}
