//! Always a valid Amplience access token.

pub mod cache;
mod capi;
pub mod clock;
pub mod credentials;
pub mod error;
pub mod fork;
pub mod http;
pub mod log;
pub mod oauth;
pub mod proxy;
pub mod retry;
pub mod secret;
pub mod settings;
pub mod source;
pub mod store;
pub mod sync;
pub mod tls;
pub mod token;
pub mod transport;
mod wire;
