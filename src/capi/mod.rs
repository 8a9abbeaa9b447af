//! The C interface: what `include/amp_token.h` declares, and nothing else is exported.
//!
//! One file per handle, in the order of the header, which is generated from them; their comments are the
//! manual for C programmers. A signature is safe Rust wherever C's pointers allow it: `Option<&T>` is a
//! handle that may be NULL, `Option<&mut MaybeUninit<T>>` an output argument. Functions that take strings,
//! buffers, callbacks or a handle to free are `unsafe`; their contract is the header's, and [`ffi`] has the
//! conversions. Imports go one way: the handles' files use `callbacks`, `error` and `ffi`; `callbacks` uses
//! `transport` and `ffi`; `error` and `transport` use `ffi`, which uses none of them.

#![allow(non_camel_case_types, reason = "the names are C's")]
#![allow(clippy::enum_variant_names, reason = "C has no namespaces")]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

// This order is the header's; the blank lines keep rustfmt from sorting them.
mod version;

mod error;

mod config;

mod token;

mod cache;

mod api;

mod transport;

mod callback_guard;
mod callbacks;
mod ffi;
