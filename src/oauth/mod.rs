//! The OAuth 2.0 client-credentials grant (RFC 6749, 4.4) and its retry policy.

pub mod client_credentials;
mod failure;
pub mod retry;
mod token_body;
