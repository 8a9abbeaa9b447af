//! The network transport against real sockets on this machine: servers and proxies that behave, and
//! many that do not.
//!
//! A test of a deadline asserts that the call ended, and how; never how fast, beyond a bound so wide
//! ([`support::PATIENCE`]) that no loaded machine reaches it.

mod certificates;
mod connect;
mod deadlines;
mod framing;
mod limits;
mod process;
mod proxy;
mod reuse;
mod support;
mod tls;
