//! Always a valid Amplience access token.
//!
//! This is the safe core of libamp_token; programs in other languages use it through the C interface
//! that `include/amp_token.h` documents. One direction, and no layer calls back up:
//!
//! ```text
//! settings ─► credentials ─► cache ──fresh─────────────────────────────► token
//!                              │ due, or none
//!                              └─► source ─► store ──fresh─────────────► token
//!                                    └─► retry ─► oauth ─► transport ─► token ─► store
//! ```
//!
//! | module | what it is |
//! | --- | --- |
//! | [`settings`] | THE table of settings, and the configuration made from it |
//! | [`credentials`] | where credentials come from |
//! | [`cache`] | the cached-token handle: hot path, single flight, refresh |
//! | [`source`] | where the cache gets a token: store, else service |
//! | [`with_oauth_error`] | the wire protocol, as pure functions |
//! | [`with_retryable`] | what is sent again, and when |
//! | [`transport`] | the contract of whatever carries a request |
//! | [`with_http_status`], [`proxy`], [`tls`], `wire` | the transport over real sockets |
//! | [`store`] | sharing tokens with other processes, sealed |
//! | [`api`] | requests that carry the token |
//! | [`get_token`], [`secret`], [`error`], [`log`] | what the others work with |
//! | [`sanitize`] | foreign text, made fit to be shown |
//! | `environment` | reading environment variables, unless they are not to be trusted |
//! | `vault`, [`allocator`] | where secrets are in memory, and what is left there |
//! | [`clock`], [`fork`], [`sync`], `aside` | time and chance; processes; locks; threads of ours |
//! | `capi` | the C interface |
//!

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
