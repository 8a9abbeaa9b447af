//! Log lines, passed to a function of the application. Without one, nothing is written.
//!
//! There is no process-wide logger: each configuration has its own, so that two users of the library in one
//! process do not share one. Lines contain no secret; a token appears as its
//! [fingerprint](crate::sys::secret::fingerprint).

use std::fmt;
use std::sync::Arc;

/// The severity of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// A call failed.
    Error,
    /// A problem that the call did not fail for.
    Warning,
    /// A token was fetched or discarded.
    Info,
    /// Details of each step.
    Debug,
}

type LogSink = dyn Fn(Level, &str) + Send + Sync;

/// A logger. Clones share its function.
#[derive(Clone, Default)]
pub struct Log(Option<Arc<LogSink>>);

impl Log {
    /// Passes each line to `sink`. Any thread may call it, and no lock is held then.
    pub fn new(sink: impl Fn(Level, &str) + Send + Sync + 'static) -> Self {
        Log(Some(Arc::new(sink)))
    }

    /// Writes one line. `line` is only called if there is a function for it.
    pub fn write<T: AsRef<str>>(&self, level: Level, line: impl FnOnce() -> T) {
        if let Some(sink) = &self.0 {
            sink(level, line().as_ref());
        }
    }

    /// Writes a warning.
    pub fn warning<T: AsRef<str>>(&self, line: impl FnOnce() -> T) {
        self.write(Level::Warning, line);
    }

    /// Writes an event of a token.
    pub fn info<T: AsRef<str>>(&self, line: impl FnOnce() -> T) {
        self.write(Level::Info, line);
    }

    /// Writes a detail.
    pub fn debug<T: AsRef<str>>(&self, line: impl FnOnce() -> T) {
        self.write(Level::Debug, line);
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Log(on)" } else { "Log(off)" })
    }
}
