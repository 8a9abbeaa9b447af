//! Where credentials come from, and in which order: the one table of it.
//!
//! Each row of [`SOURCES`] comes before those below it. The documentation, the manual page and `amp-token config` are
//! generated from the table or compared with it by tests.
//!
//! Two sources are never mixed in silence. Credentials are a client id and a secret, or one thing that has both, and
//! these may be of two clients if they are from two sources. So:
//!
//! - The first source with a secret counts, and no secret of a later one is used: [`is_overruled`].
//! - The secret of a source that names a client id is not used for another client id. Where the id and the secret are
//!   of two sources all the same, because one of them has only the one and the other only the other, the log, `status`,
//!   `doctor` and every error name both.
//! - Two secrets in one source are an error: [`conflict`].

use super::config::{Config, Origin};
use crate::error::{Error, Kind};

/// One row of the table.
#[derive(Debug)]
pub struct Source {
    /// A short name.
    pub name: &'static str,
    /// What is read.
    pub description: &'static str,
}

/// The sources of credentials, the first one first.
#[rustfmt::skip]
pub static SOURCES: &[Source] = &[
    Source { name: "settings", description: "what the program sets, or the options of the command: a secret or its file (`client_secret`, `client_secret_file`, `personal_access_token`, `personal_access_token_file`), `credential_command`, `credentials_dir`, or a `profile` that has one of these" },
    Source { name: "environment", description: "the same, as `AMPLIENCE_CLIENT_SECRET` and so on" },
    Source { name: "default profile", description: "the section `[default]` of `config.toml`, whose other settings are used only together with it" },
    Source { name: "$CREDENTIALS_DIRECTORY", description: "the credentials that systemd passes to a service: the files of `credentials_dir`" },
    Source { name: "dc-cli", description: "`config_file`, else `~/.amplience/dc-cli-config.json`, which `dc-cli configure` writes" },
    Source { name: "dc-cli's hubs", description: "`~/.amplience/hubs.json`: the active hub, or the only client" },
];

/// The settings that name a client.
pub(super) const IDS: [&str; 2] = ["client_id", "client_id_file"];

/// The settings with a personal access token.
pub(super) const PERSONAL: [&str; 2] = ["personal_access_token", "personal_access_token_file"];

/// The settings that have a secret, or lead to one. At most one of them is used.
pub(super) const SECRETS: [&str; 6] = [
    "personal_access_token",
    "personal_access_token_file",
    "client_secret",
    "client_secret_file",
    "credential_command",
    "credentials_dir",
];

/// Whether the setting `name` of the environment is not used, because of what is set already.
pub(super) fn is_overruled(name: &str, already: &Config) -> bool {
    let has = |names: &[&str]| names.iter().any(|name| already.text(name).is_some());
    if IDS.contains(&name) {
        return has(&PERSONAL) || has(&IDS);
    }
    SECRETS.contains(&name) && (has(&SECRETS) || (PERSONAL.contains(&name) && has(&IDS)))
}

/// The first of these settings that has a value from this origin, or from any.
pub(super) fn first_of(config: &Config, names: &[&'static str], origin: Option<Origin>) -> Option<&'static str> {
    let is_there =
        |name: &&&'static str| config.origin(name).is_some_and(|have| origin.is_none_or(|origin| have.is_like(origin)));
    names.iter().find(is_there).copied()
}

/// The error for two settings of one source, only one of which can be used.
pub(super) fn conflict(one: &str, other: &str) -> Error {
    Error::new(Kind::Config, format!("{one} and {other} are both set"))
        .with_hint("unset one of them, in the program, in its environment, or in config.toml")
}
