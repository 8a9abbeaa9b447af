//! The emulator from the point of view of its clients: over sockets, with raw requests and responses.

mod client;
mod command;
mod faults;
mod service;
mod tls;
