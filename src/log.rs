//! Log lines and events, passed to functions of the application. Without such a function, nothing is written.
//!
//! There is no process-wide logger: each configuration has its own, so that two users of the library in one
//! process do not share one. Lines contain no secret; a token appears as its
//! [fingerprint](crate::sys::secret::fingerprint).
//!
//! **A line is never delivered where it is made.** It is kept in a queue, and [`Log::deliver`] passes the queue on:
//! at the end of a call, after the flight of the call has ended, outside of every lock and wait. So a logger that is
//! slow, that waits for a lock, or that asks for a token delays only the call that delivers, and fails none. A host
//! that no foreign thread may call sets no function; it [takes](Log::take_line) the lines when it is ready.

use crate::error::Error;
use crate::sys::callback_scope::{self, ScopeId};
use crate::sys::fork::ForkLocal;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

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

impl Level {
    /// The least severe level of lines that `text` asks for; the inner `None` means no lines. The outer one means
    /// that it is not the name of a level.
    pub fn parse(text: &str) -> Option<Option<Level>> {
        Some(match text.trim().to_ascii_lowercase().as_str() {
            "off" => None,
            "error" => Some(Level::Error),
            "warning" => Some(Level::Warning),
            "info" => Some(Level::Info),
            "debug" => Some(Level::Debug),
            _ => return None,
        })
    }
}

/// What an observer is told.
#[derive(Clone, Debug)]
pub enum Event {
    /// A new token replaced the previous one, or is the first.
    Refreshed,
    /// An attempt to get a token failed.
    RefreshFailed(Error),
    /// A server rejected the current token.
    TokenRejected,
}

type LogSink = dyn Fn(Level, &str) + Send + Sync;
type Observer = dyn Fn(&Event) + Send + Sync;

/// Where log lines and events go. Clones share the queues and the functions.
#[derive(Clone, Default)]
pub struct Log {
    /// Lines above this level are not made; `None`: no lines.
    level: Option<Level>,
    sink: Option<Arc<LogSink>>,
    observer: Option<Arc<Observer>>,
    /// Lines that wait to be delivered or taken; present if somebody wants them.
    lines: Option<Arc<Queue<(Level, String)>>>,
    /// Events that wait for the observer.
    events: Option<Arc<Queue<Event>>>,
    scope: ScopeId,
}

/// What waits, at most `capacity` items; the oldest are dropped. A forked child begins with an empty one.
struct Queue<T> {
    waiting: ForkLocal<Mutex<Waiting<T>>>,
    capacity: usize,
}

struct Waiting<T> {
    items: VecDeque<T>,
    /// How many were dropped since the last one was taken.
    dropped: u64,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Waiting { items: VecDeque::new(), dropped: 0 }
    }
}

/// How many items may wait for a logger or observer. Each call delivers what it finds, so only a logger that
/// does not return lets them accumulate.
const DELIVERY_CAPACITY: usize = 4096;

impl Log {
    /// Passes each line to `sink`. Any thread that uses a handle of the configuration may call it.
    pub fn new(sink: impl Fn(Level, &str) + Send + Sync + 'static) -> Self {
        let mut log = Log::default();
        log.set_sink(Some(Arc::new(sink)));
        log
    }

    /// Sets or removes the function for lines. Lines are then not kept for [`Log::take_line`].
    pub fn set_sink(&mut self, sink: Option<Arc<LogSink>>) {
        self.lines = sink.is_some().then(|| Queue::new(DELIVERY_CAPACITY));
        self.level = self.lines.is_some().then_some(Level::Debug);
        self.sink = sink;
    }

    /// Sets or removes the function for events.
    pub fn set_observer(&mut self, observer: Option<Arc<Observer>>) {
        self.events = observer.is_some().then(|| Queue::new(DELIVERY_CAPACITY));
        self.observer = observer;
    }

    /// Keeps up to `capacity` lines for [`Log::take_line`] instead of calling a function; 0: no longer.
    pub fn keep_lines(&mut self, capacity: usize) {
        self.sink = None;
        self.lines = (capacity > 0).then(|| Queue::new(capacity));
        self.level = self.lines.is_some().then_some(Level::Debug);
    }

    /// The same logger for lines up to `level` only; `None`: for no line.
    #[must_use]
    pub fn with_level(mut self, level: Option<Level>) -> Self {
        self.level = self.level.and(level);
        self
    }

    /// The same logger for the configuration whose callbacks have this scope.
    #[must_use]
    pub fn with_scope(mut self, scope: ScopeId) -> Self {
        self.scope = scope;
        self
    }

    /// Keeps one line for delivery. `line` is only called if somebody wants it.
    pub fn write<T: AsRef<str>>(&self, level: Level, line: impl FnOnce() -> T) {
        if let Some(lines) = self.lines.as_ref().filter(|_| self.level.is_some_and(|limit| level <= limit)) {
            lines.push((level, line().as_ref().to_owned()));
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

    /// Writes a detail.
    pub fn debug<T: AsRef<str>>(&self, line: impl FnOnce() -> T) {
        self.write(Level::Debug, line);
    }

    /// Keeps an event for the observer.
    pub fn event(&self, event: impl FnOnce() -> Event) {
        if let Some(events) = &self.events {
            events.push(event());
        }
    }

    /// Calls the functions for what waits. Must not be called under a lock, or while other threads wait for this
    /// one. Does nothing in a callback of the same configuration: the call that made the callback continues.
    pub fn deliver(&self) {
        if (self.sink.is_none() && self.observer.is_none()) || self.scope.is_entered() {
            return;
        }
        let _scope = callback_scope::enter(self.scope);
        if let (Some(sink), Some(lines)) = (&self.sink, &self.lines) {
            lines.take_present(|(level, line), dropped| {
                if dropped > 0 {
                    sink(Level::Warning, &dropped_line(dropped));
                }
                sink(level, &line);
            });
        }
        if let (Some(observer), Some(events)) = (&self.observer, &self.events) {
            events.take_present(|event, _| observer(&event));
        }
    }

    /// Delivers when the returned value is dropped.
    #[must_use]
    pub fn deliver_at_end(&self) -> DeliverAtEnd<'_> {
        DeliverAtEnd(self)
    }

    /// Takes the oldest line that waits.
    pub fn take_line(&self) -> Option<(Level, String)> {
        self.lines.as_ref()?.with(|waiting| {
            if waiting.dropped > 0 {
                return Some((Level::Warning, dropped_line(std::mem::take(&mut waiting.dropped))));
            }
            waiting.items.pop_front()
        })
    }
}

impl<T> Queue<T> {
    fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Queue { waiting: ForkLocal::default(), capacity })
    }

    fn with<R>(&self, work: impl FnOnce(&mut Waiting<T>) -> R) -> R {
        self.waiting.with(|waiting| work(&mut waiting.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    fn push(&self, item: T) {
        self.with(|waiting| {
            if waiting.items.len() >= self.capacity {
                waiting.items.pop_front();
                waiting.dropped = waiting.dropped.saturating_add(1);
            }
            waiting.items.push_back(item);
        });
    }

    /// Takes what is present now, one by one. What the functions cause is for the next call: otherwise a logger
    /// whose own calls make lines would never return.
    fn take_present(&self, pass_on: impl Fn(T, u64)) {
        for _ in 0..self.with(|waiting| waiting.items.len()) {
            let taken =
                self.with(|waiting| waiting.items.pop_front().map(|item| (item, std::mem::take(&mut waiting.dropped))));
            let Some((item, dropped)) = taken else { return };
            pass_on(item, dropped);
        }
    }
}

fn dropped_line(dropped: u64) -> String {
    format!("{dropped} older log lines were dropped, because nobody took them")
}

/// See [`Log::deliver_at_end`].
pub struct DeliverAtEnd<'a>(&'a Log);

impl Drop for DeliverAtEnd<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.0.deliver();
        }
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.lines.is_some() { "Log(on)" } else { "Log(off)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A logger with a scope, and the lines that it was passed.
    struct Logger {
        log: Log,
        lines: Arc<Mutex<Vec<String>>>,
        /// The same logger, for what it calls.
        _nested: Arc<Mutex<Log>>,
    }

    fn logger(on_line: impl Fn(&Log) + Send + Sync + 'static) -> Logger {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (seen, nested) = (lines.clone(), Arc::new(Mutex::new(Log::default())));
        let this = Arc::downgrade(&nested);
        let log = Log::new(move |_, line| {
            seen.lock().unwrap().push(line.to_owned());
            let log = this.upgrade().unwrap().lock().unwrap().clone();
            on_line(&log);
        })
        .with_scope(ScopeId::unique());
        *nested.lock().unwrap() = log.clone();
        Logger { log, lines, _nested: nested }
    }

    #[test]
    fn lines_wait_until_they_are_delivered() {
        let Logger { log, lines, _nested } = logger(|_| ());
        log.info(|| "first");
        log.clone().debug(|| "second");
        assert!(lines.lock().unwrap().is_empty());
        log.deliver();
        assert_eq!(*lines.lock().unwrap(), ["first", "second"]);
        log.deliver();
        assert_eq!(lines.lock().unwrap().len(), 2);
    }

    #[test]
    fn a_logger_whose_calls_make_lines_does_not_loop() {
        let Logger { log, lines, _nested } = logger(|log| {
            log.info(|| "nested");
            log.deliver();
        });
        log.info(|| "outer");
        log.deliver();
        assert_eq!(*lines.lock().unwrap(), ["outer"]);
        log.deliver();
        assert_eq!(*lines.lock().unwrap(), ["outer", "nested"]);
    }

    #[test]
    fn a_full_queue_drops_the_oldest_lines_and_says_so() {
        let mut log = Log::default();
        log.keep_lines(2);
        for line in ["a", "b", "c", "d"] {
            log.info(|| line);
        }
        let taken: Vec<_> = std::iter::from_fn(|| log.take_line()).map(|(_, line)| line).collect();
        assert_eq!(taken, [dropped_line(2).as_str(), "c", "d"]);
    }

    #[test]
    fn lines_above_the_level_are_not_made() {
        let mut log = Log::default();
        log.keep_lines(8);
        let log = log.with_level(Some(Level::Info));
        log.debug(|| -> &str { panic!("made") });
        log.info(|| "kept");
        assert_eq!(log.take_line(), Some((Level::Info, "kept".to_owned())));
        assert_eq!(log.take_line(), None);
        assert_eq!(log.clone().with_level(None).level, None);
    }
}
