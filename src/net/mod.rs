//! The HTTP client: the [`transport::Transport`] interface, and its implementation over sockets, proxies and TLS.

mod certificate_error;
pub(crate) mod connect;
mod connect_method;
mod header_case;
#[cfg_attr(simulator, path = "../../tests/simulator/library/http.rs")]
pub mod http;
mod http_date;
mod idle;
#[cfg(all(unix, feature = "serve"))]
pub mod open_connection;
mod pem;
pub mod proxy;
pub(crate) mod resolve;
mod response_head;
mod roots;
#[cfg(any(test, fuzzing))]
pub mod scripted_exchange;
mod socks;
pub(crate) mod tcp;
pub mod tls;
pub(crate) mod tls_files;
pub mod transport;
mod trust;
mod tunnel;
mod ureq_adapter;
pub mod url;
mod verifier;
mod x509;

#[cfg(fuzzing)]
pub use pem::{finds_self_issued, parse_certificates};
#[cfg(fuzzing)]
pub use verifier::describe_rejection;
#[cfg(fuzzing)]
pub use x509::certificate_dates;
