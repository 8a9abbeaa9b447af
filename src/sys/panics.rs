//! Panics that become errors print nothing: standard error belongs to the application.
//!
//! The standard library prints a panic before anything can catch it. So a hook, which the C interface
//! [installs](install_hook), is silent in threads that are inside the library. A Rust program that uses the crate
//! keeps its own hook.
//!
//! The calls that return a cached token do not pay for this: they have nothing that panics, and enter the library in
//! this sense only when they take the slow path.

use std::cell::Cell;
use std::panic;
use std::sync::Once;

thread_local! {
    /// Whether this thread is inside the library, which catches its panics.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Makes panics silent in threads that are [inside](enter) the library. Further calls have no effect.
pub fn install_hook() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !INSIDE.try_with(Cell::get).unwrap_or(false) {
                previous(info);
            }
        }));
    });
}

/// Until the returned value is dropped, the current thread is inside the library.
#[must_use]
pub fn enter() -> Inside {
    Inside { before: INSIDE.try_with(|inside| inside.replace(true)).unwrap_or(false) }
}

/// See [`enter`].
pub struct Inside {
    before: bool,
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = INSIDE.try_with(|inside| inside.set(self.before));
    }
}
