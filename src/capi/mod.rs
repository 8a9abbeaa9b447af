//! The C interface: what `include/amp_token.h` declares, and nothing else is exported.
//!
//! One file per handle, in the order of the header, which is generated from them; the comments here
//! are the manual that a C programmer reads. Signatures are safe Rust wherever C's pointers allow it
//! (`Option<&T>` is a pointer that may be NULL); [`ffi`] is the only file with `unsafe` in it.

#![allow(non_camel_case_types, reason = "the names are C's")]
#![allow(clippy::not_unsafe_ptr_arg_deref, reason = "the contract is in the header, for callers in C")]
#![allow(clippy::enum_variant_names, reason = "C has no namespaces")]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

// This order is the header's.
#[rustfmt::skip]
mod version;
#[rustfmt::skip]
mod error;
#[rustfmt::skip]
mod config;
#[rustfmt::skip]
mod token;
#[rustfmt::skip]
mod cache;
#[rustfmt::skip]
mod api;
#[rustfmt::skip]
mod transport;

mod callback_guard;
mod ffi;
