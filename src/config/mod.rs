//! Configuration: the settings, the [`Config`] that holds their values, and the credentials that they lead to.
//!
//! A [`Config`] holds strings by name, each validated when it is set. [`Options`] has the same settings typed and
//! complete, for the rest of the library.

#[allow(clippy::module_inception, reason = "the type is Config, and this module re-exports it")]
mod config;
mod credential_command;
pub mod credentials;
mod credentials_dir;
pub mod credentials_provider;
pub mod dc_cli;
pub(crate) mod environment;
mod file_access;
mod options;
pub mod profiles;
pub mod settings;
pub mod sources;
mod text;
mod toml;

pub use config::{Config, Origin};
#[cfg(fuzzing)]
pub use credential_command::parse_output;
pub use environment::Environment;
pub use options::{CredentialOptions, NetworkOptions, Options};
