//! Faults that are planted in what surrounds the library, one for each promise or more, to show that each is found. They
//! do to the cache, or to its callers, what a fault in the cache would.

/// A fault: its name, the promise that it breaks, and what it does.
pub struct Fault {
    pub name: &'static str,
    pub promise: &'static str,
    pub what: &'static str,
}

pub const LIFETIME_TOO_LONG: &str = "lifetime-too-long";
pub const CACHE_FOR_EACH_CALL: &str = "cache-for-each-call";
pub const CALLERS_IN_TURN: &str = "callers-in-turn";
pub const REJECTION_FOR_ALL: &str = "rejection-for-all";
pub const FIXED_WINDOW: &str = "fixed-window";
pub const NO_RETRY_AFTER: &str = "no-retry-after";
pub const NO_PAUSE: &str = "no-pause";
pub const NO_TIME_LIMIT: &str = "no-time-limit";

/// All of them. Those without a constant are in `library/`.
#[rustfmt::skip]
pub const FAULTS: &[Fault] = &[
    Fault { name: LIFETIME_TOO_LONG, promise: "never an expired token", what: "a token counts as valid for a quarter longer than it is" },
    Fault { name: "one-boot-for-all", promise: "never an expired token", what: "the time since the boot of one machine is compared with that of another" },
    Fault { name: CACHE_FOR_EACH_CALL, promise: "one request", what: "callers of a cold cache do not share a request" },
    Fault { name: "lock-for-all", promise: "one request", what: "the lock of a store excludes nobody" },
    Fault { name: CALLERS_IN_TURN, promise: "nobody waits while a token is valid", what: "callers wait for each other" },
    Fault { name: REJECTION_FOR_ALL, promise: "one caller's trouble is its own", what: "a rejected token is taken from all callers" },
    Fault { name: FIXED_WINDOW, promise: "windows scale with the lifetime", what: "a token is refreshed 60 s before its end, however long it is valid" },
    Fault { name: NO_RETRY_AFTER, promise: "backoff", what: "Retry-After is ignored" },
    Fault { name: NO_PAUSE, promise: "backoff", what: "there is no pause after a failure" },
    Fault { name: "forgetful-child", promise: "backoff", what: "a forked child does not know of the pauses of its parent" },
    Fault { name: NO_TIME_LIMIT, promise: "every call ends by its deadline", what: "a request takes as long as the server wants" },
    Fault { name: "late-timeout", promise: "every call ends by its deadline", what: "a wait for another thread takes half as long again" },
    Fault { name: "fork-not-noticed", promise: "it survives fork", what: "a forked child uses the locks and flights of its parent" },
    Fault { name: "monotonic-clock-only", promise: "it survives suspend", what: "the wall clock does not count" },
    Fault { name: "wall-clock-only", promise: "it survives clock changes", what: "the monotonic clock does not count" },
];
