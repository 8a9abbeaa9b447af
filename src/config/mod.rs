//! Settings, the configuration made from them, and the credentials they lead to.

pub mod credentials;
pub(crate) mod environment;
pub mod settings;
