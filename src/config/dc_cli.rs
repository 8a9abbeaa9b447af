//! The configuration files of dc-cli, Amplience's command-line tool.

use super::credentials::Credentials;
use super::settings::describe_json_error;
use super::text::trim_text;
use crate::error::{Error, Kind, Result};
use crate::log::Log;
use crate::sys::secret::Secret;
use serde::Deserialize;
use std::collections::BTreeSet;

/// The file of all hubs, below the home directory.
pub(super) const HUBS: &str = ".amplience/hubs.json";

/// The credentials in a file in dc-cli's format, only those of `client_id` if it is given. `None` if the file has
/// none. Fails if it has those of several clients and none of them is active.
pub fn from_dc_cli(text: &[u8], origin: &str, client_id: Option<&str>, log: &Log) -> Result<Option<Credentials>> {
    match choose(hubs(text, origin)?, client_id) {
        Ok(hub) => hub.map(|hub| hub.credentials(origin, log)).transpose(),
        Err(clients) => {
            let message = format!("{origin} has {clients} clients, and none of them is active");
            let hint = "choose one with profile (AMPLIENCE_PROFILE) or client_id (AMPLIENCE_CLIENT_ID), or make a hub active with dc-cli";
            Err(Error::new(Kind::NoCredentials, message).with_hint(hint))
        }
    }
}

/// The credentials of the hub with this ID, or with this name if it has no ID. `None` if there is no such hub.
pub(super) fn of_hub(text: &[u8], origin: &str, key: &str, log: &Log) -> Result<Option<Credentials>> {
    let hub = hubs(text, origin)?.into_iter().find(|hub| hub.is_usable() && hub.id().or(hub.name()) == Some(key));
    hub.map(|hub| hub.credentials(origin, log)).transpose()
}

/// All hubs in a file in dc-cli's format, which has one hub or a list of hubs.
pub(super) fn hubs(text: &[u8], origin: &str) -> Result<Vec<Hub>> {
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    // Not an untagged enum: serde would recurse over the whole file before it chooses a variant.
    let hubs = match text.trim_ascii_start().first() {
        Some(b'[') => serde_json::from_slice(text),
        _ => serde_json::from_slice(text).map(|hub| vec![hub]),
    };
    hubs.map_err(|error| {
        let problem = describe_json_error(&error);
        Error::new(Kind::Config, format!("{origin} is not a configuration of dc-cli: {problem}")).with_hint(
            "set config_file to a JSON file with clientId and clientSecret, or patToken, or set the credentials directly",
        )
    })
}

/// A hub in a file of dc-cli. Other members are ignored.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Hub {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    hub_id: Option<String>,
    #[serde(default)]
    client_id: Option<String>,
    #[serde(default)]
    client_secret: Option<Secret>,
    #[serde(default)]
    pat_token: Option<Secret>,
    #[serde(default)]
    is_active: Option<bool>,
}

/// The error is the number of clients between which there is no choice.
fn choose(hubs: Vec<Hub>, client_id: Option<&str>) -> std::result::Result<Option<Hub>, usize> {
    let mut fitting: Vec<Hub> = hubs
        .into_iter()
        .filter(|hub| match client_id {
            Some(id) => hub.client_id() == Some(id) && hub.client_secret.is_some(),
            None => hub.is_usable(),
        })
        .collect();
    if let Some(active) = fitting.iter().position(|hub| hub.is_active == Some(true)) {
        return Ok(Some(fitting.swap_remove(active)));
    }
    // Several hubs of one client share its secret. Between several clients, none is chosen.
    let clients: BTreeSet<_> = fitting.iter().map(Hub::client).collect();
    match clients.len() {
        0 | 1 => Ok(fitting.into_iter().next()),
        _ if client_id.is_some() => Ok(fitting.into_iter().next()),
        several => Err(several),
    }
}

impl Hub {
    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref().map(trim_text).filter(|name| !name.is_empty())
    }

    pub(super) fn id(&self) -> Option<&str> {
        self.hub_id.as_deref().map(trim_text).filter(|id| !id.is_empty())
    }

    pub(super) fn client_id(&self) -> Option<&str> {
        self.client_id.as_deref().map(trim_text)
    }

    /// Whether it has credentials.
    pub(super) fn is_usable(&self) -> bool {
        self.has_personal_access_token() || (self.client_id.is_some() && self.client_secret.is_some())
    }

    pub(super) fn has_personal_access_token(&self) -> bool {
        self.pat_token.is_some()
    }

    /// Whether this is its name or ID.
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.name() == Some(name) || self.id() == Some(name)
    }

    /// Whether both are the same hub of the same client.
    pub(super) fn is_same(&self, other: &Hub) -> bool {
        self.id() == other.id() && self.client() == other.client()
    }

    /// What two hubs of one client have in common.
    fn client(&self) -> (Option<&str>, Option<&str>) {
        match &self.pat_token {
            Some(token) => (None, Some(token.expose())),
            None => (self.client_id.as_deref(), self.client_secret.as_ref().map(Secret::expose)),
        }
    }

    /// A personal access token takes precedence over the pair, as in dc-cli.
    fn credentials(self, origin: &str, log: &Log) -> Result<Credentials> {
        match (self.pat_token, self.client_id, self.client_secret) {
            (Some(token), ..) => Credentials::from_personal_access_token(token.expose(), origin, log),
            (None, Some(id), Some(secret)) if !trim_text(&id).is_empty() && !trim_text(secret.expose()).is_empty() => {
                let secret = trim_text(secret.expose()).into();
                Ok(Credentials::Client { id: trim_text(&id).to_owned(), secret })
            }
            _ => Err(Error::new(Kind::NoCredentials, format!("{origin} has an empty clientId or clientSecret"))
                .with_hint("run dc-cli configure again, or set AMPLIENCE_CLIENT_ID and AMPLIENCE_CLIENT_SECRET")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thread may have a small stack, which no file may exhaust.
    #[test]
    fn deep_nesting_needs_no_stack() {
        for open in ["[", "{\"a\":", "{\"clientId\":[", "[{\"clientId\":[", "{\"isActive\":{\"a\":"] {
            let text = open.repeat(64 * 1024 / open.len());
            let small = std::thread::Builder::new().stack_size(64 * 1024);
            let outcome = small.spawn(move || from_dc_cli(text.as_bytes(), "a file", None, &Log::default())).unwrap();
            assert_eq!(outcome.join().unwrap().unwrap_err().kind(), Kind::Config, "{open}");
        }
    }
}
