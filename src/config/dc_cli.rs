//! The configuration files of dc-cli, Amplience's command-line tool.

use super::credentials::Credentials;
use super::text::trim_text;
use crate::error::{Error, Kind, Result};
use crate::log::Log;
use crate::sys::secret::Secret;
use serde::Deserialize;
use std::collections::BTreeSet;

/// The credentials in a file in dc-cli's format, only those of `client_id` if it is given. `None` if the file has
/// none. Fails if it has those of several clients and none of them is active.
pub fn from_dc_cli(text: &[u8], origin: &str, client_id: Option<&str>, log: &Log) -> Result<Option<Credentials>> {
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    // Not an untagged enum: serde would recurse over the whole file before it chooses a variant.
    let content = match text.trim_ascii_start().first() {
        Some(b'[') => serde_json::from_slice(text).map(DcCliFile::Hubs),
        _ => serde_json::from_slice(text).map(|entry| DcCliFile::Hub(Box::new(entry))),
    };
    let content = content.map_err(|_| {
        Error::new(Kind::Config, format!("{origin} is not a configuration of dc-cli")).with_hint(
            "set config_file to a JSON file with clientId and clientSecret, or patToken, or set the credentials directly",
        )
    })?;
    match content.choose(client_id) {
        Ok(entry) => entry.map(|entry| entry.credentials(origin, log)).transpose(),
        Err(clients) => {
            let message = format!("{origin} has {clients} clients, and none of them is active");
            let hint = "choose one with client_id (AMPLIENCE_CLIENT_ID), or make a hub active with dc-cli";
            Err(Error::new(Kind::NoCredentials, message).with_hint(hint))
        }
    }
}

/// A file of dc-cli: one hub, or all hubs. Other members are ignored.
enum DcCliFile {
    Hub(Box<Entry>),
    Hubs(Vec<Entry>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default)]
    client_id: Option<String>,
    #[serde(default)]
    client_secret: Option<Secret>,
    #[serde(default)]
    pat_token: Option<Secret>,
    #[serde(default)]
    is_active: Option<bool>,
}

impl DcCliFile {
    /// The error is the number of clients between which there is no choice.
    fn choose(self, client_id: Option<&str>) -> std::result::Result<Option<Entry>, usize> {
        let entries = match self {
            DcCliFile::Hub(entry) => vec![*entry],
            DcCliFile::Hubs(entries) => entries,
        };
        let mut fitting: Vec<Entry> = entries
            .into_iter()
            .filter(|entry| match client_id {
                Some(id) => entry.client_id.as_deref().map(trim_text) == Some(id) && entry.client_secret.is_some(),
                None => entry.pat_token.is_some() || (entry.client_id.is_some() && entry.client_secret.is_some()),
            })
            .collect();
        if let Some(active) = fitting.iter().position(|entry| entry.is_active == Some(true)) {
            return Ok(Some(fitting.swap_remove(active)));
        }
        // Several hubs of one client share its secret. Between several clients, none is chosen.
        let clients: BTreeSet<_> = fitting.iter().map(Entry::key).collect();
        match clients.len() {
            0 | 1 => Ok(fitting.into_iter().next()),
            _ if client_id.is_some() => Ok(fitting.into_iter().next()),
            several => Err(several),
        }
    }
}

impl Entry {
    /// What two hubs of one client have in common.
    fn key(&self) -> (Option<&str>, Option<&str>) {
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
