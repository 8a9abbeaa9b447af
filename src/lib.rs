//! Always a valid Amplience access token.

pub mod clock;
pub mod error;
pub mod http;
pub mod log;
pub mod oauth;
pub mod proxy;
pub mod secret;
pub mod settings;
pub mod tls;
pub mod transport;
mod wire;
