//! Log lines, handed to the application's own function; without one, nothing is written anywhere.
//!
//! There is no process-wide logger: each configuration has its own, so that a library inside a
//! library never takes over another's. Lines hold no secret; a token appears as its
//! [fingerprint](crate::sys::secret::fingerprint).

use std::fmt;
use std::sync::Arc;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// A call failed.
    Error,
    /// Something is wrong, and the library went on without it.
    Warning,
    /// A token was obtained or dropped.
    Info,
    /// Each step on the way.
    Debug,
}

type BodySink = dyn Fn(Level, &str) + Send + Sync;

/// Where log lines go. Cloning it shares the destination.
#[derive(Clone, Default)]
pub struct Log(Option<Arc<BodySink>>);

impl Log {
    /// Sends every line to `sink`, which may be called from any thread, with no lock held.
    pub fn new(sink: impl Fn(Level, &str) + Send + Sync + 'static) -> Self {
        Log(Some(Arc::new(sink)))
    }

    /// Writes one line. `line` is only made when somebody listens.
    pub fn write<T: AsRef<str>>(&self, level: Level, line: impl FnOnce() -> T) {
        if let Some(sink) = &self.0 {
            sink(level, line().as_ref());
        }
    }

    /// Writes a warning.
    pub fn warning<T: AsRef<str>>(&self, line: impl FnOnce() -> T) {
        self.write(Level::Warning, line);
    }

    /// Writes what happened to a token.
    pub fn info<T: AsRef<str>>(&self, line: impl FnOnce() -> T) {
        self.write(Level::Info, line);
    }

    /// Writes one step.
    pub fn debug<T: AsRef<str>>(&self, line: impl FnOnce() -> T) {
        self.write(Level::Debug, line);
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Log(on)" } else { "Log(off)" })
    }
}
