//! Always a valid Amplience access token.
//!
//! This crate is the core of libamp_token, in safe Rust wherever the operating system allows it. Programs in
//! other languages use it through the C interface that `include/amp_token.h` documents.
//!
//! A token takes this path. Each step calls only the steps to its right:
//!
//! ```text
//! token::cache ──cached and fresh────────────────────────────────────────► token
//!   │ none, or due for refresh
//!   └─► token::provider ─► store ──entry of another process, and fresh───► token
//!         │ no such entry
//!         └─► oauth ─► net::transport ─► net::http ─► token service ─────► token, saved in the store
//! ```
//!
//! Credentials and settings come from [`config`]; a request that carries the token is sent by [`api`].
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`config`] | the settings, the configuration made from them, and where credentials come from |
//! | [`token`] | the token, its cache (hot path, single flight, background refresh), and the provider that fetches it |
//! | [`oauth`] | the client credentials grant of RFC 6749 as pure functions, and the retry policy |
//! | [`net`] | the [`net::transport::Transport`] interface, and HTTP, proxies and TLS over sockets |
//! | [`store`] | shares encrypted tokens with other processes (files) and machines (Redis) |
//! | [`api`] | HTTP requests that carry the token |
//! | [`sys`] | clocks, threads, locks, forks, and memory for secrets |
//! | [`error`] | the error type: kind, phase, host, HTTP status, one message with a hint |
//! | [`log`] | log lines, passed to the application's logger |
//! | [`sanitize`] | makes untrusted text safe to print and removes secrets from it |
//! | `capi` | the C interface |

pub mod api;
mod capi;
pub mod config;
pub mod error;
pub mod log;
pub mod net;
pub mod oauth;
pub mod sanitize;
pub mod store;
pub mod sys;
pub mod token;
