//! The emulator as its clients see it: over sockets, with a client that hides nothing.

mod client;
mod command;
mod faults;
mod service;
mod tls;
