//! HTTP over real sockets: connecting, proxies, TLS, and the [`transport::Transport`] interface.

pub mod http;
pub mod proxy;
pub(crate) mod tcp;
pub mod tls;
pub mod transport;
mod tunnel;
mod ureq_adapter;
pub mod url;
mod verifier;
mod x509;
