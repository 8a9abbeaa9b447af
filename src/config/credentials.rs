//! The two kinds of credentials.

use super::text::trim_text;
use crate::error::{Error, Kind, Result};
use crate::log::Log;
use crate::oauth::client_credentials;
use crate::sys::secret::Secret;

/// What authenticates a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// An API key and secret, which are exchanged for tokens.
    Client {
        /// The API key.
        id: String,
        /// The API secret.
        secret: Secret,
    },
    /// A personal access token, which is used as an access token.
    PersonalAccessToken(Secret),
}

impl Credentials {
    /// The secret part, which must never be shown.
    pub fn secret(&self) -> &Secret {
        match self {
            Credentials::Client { secret, .. } | Credentials::PersonalAccessToken(secret) => secret,
        }
    }

    /// Checks a personal access token. `origin` describes where it came from.
    pub(super) fn from_personal_access_token(text: &str, origin: &str, log: &Log) -> Result<Credentials> {
        let token = trim_text(text);
        if !client_credentials::is_valid_bearer_token(token) {
            return Err(Error::new(
                Kind::Config,
                format!("the personal access token from {origin} cannot be sent in a header"),
            )
            .with_hint("copy it again, complete and without spaces"));
        }
        if !token.starts_with("amp_pat_") {
            log.warning(|| {
                format!(
                    "the personal access token from {origin} does not begin with amp_pat_, as those of Amplience do"
                )
            });
        }
        Ok(Credentials::PersonalAccessToken(Secret::from(token)))
    }
}
