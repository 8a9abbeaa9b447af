//! The commands, one module for each group of them. They print their results with [`output`](crate::output).

pub mod account;
pub mod api;
pub mod config;
pub mod doctor;
#[cfg(feature = "emulator")]
pub mod emulator;
pub mod format;
pub mod man;
pub mod permissions;
pub mod profiles;
pub mod report;
pub mod status;
pub mod token;
