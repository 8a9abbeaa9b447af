//! The settings as the library uses them: typed and complete.

use super::config::{Config, Origin};
use super::environment::Environment;
use super::profiles::Profile;
use super::settings::{SETTINGS, parse_bool, parse_command};
use super::sources::{IDS, SECRETS};
use crate::error::{Error, Kind, Result};
use crate::log::{Level, Log};
use crate::net::url::{Url, host_and_port};
use crate::sys::callback_scope::ScopeId;
use crate::sys::clock::Clock;
use crate::sys::secret::{MaybeSecret, Secret};
use std::path::PathBuf;
use std::time::Duration;

/// The path of the token endpoint below `auth_url`.
const TOKEN_PATH: &str = "/oauth/token";

/// The settings, typed and complete.
#[derive(Clone, Debug)]
pub struct Options {
    /// The whole URL of the token endpoint.
    pub token_url: Url,
    /// The API's base URL, without a slash at its end.
    pub api_url: Url,
    /// `timeout_ms`.
    pub timeout: Duration,
    /// `retries`.
    pub retries: u32,
    /// `min_validity_ms`.
    pub min_validity: Duration,
    /// `background_refresh`.
    pub background_refresh: bool,
    /// `max_response_bytes`.
    pub max_response_bytes: usize,
    /// `store`.
    pub store: MaybeSecret,
    /// `store_dir`.
    pub store_dir: Option<PathBuf>,
    /// The settings that lead to credentials.
    pub credentials: CredentialOptions,
    /// The settings of the transport.
    pub network: NetworkOptions,
    /// The whole User-Agent.
    pub user_agent: String,
    /// Where log lines go.
    pub log: Log,
    /// The environment, as it was when the configuration was created or loaded.
    pub environment: Environment,
    /// The source of time.
    pub clock: Clock,
    /// What tells the profile that is used from all others; empty if none is. Two profiles share no stored token.
    pub profile: String,
    /// The identity of the application's callbacks, in which a call must not wait for itself.
    pub scope: ScopeId,
}

/// The settings that lead to credentials.
#[derive(Clone, Debug)]
pub struct CredentialOptions {
    /// `client_id`.
    pub client_id: Option<String>,
    /// `client_id_file`.
    pub client_id_file: Option<PathBuf>,
    /// `client_secret`.
    pub client_secret: Option<Secret>,
    /// `client_secret_file`.
    pub client_secret_file: Option<PathBuf>,
    /// `personal_access_token`.
    pub personal_access_token: Option<Secret>,
    /// `personal_access_token_file`.
    pub personal_access_token_file: Option<PathBuf>,
    /// `credential_command`: the program and its arguments.
    pub credential_command: Option<Vec<String>>,
    /// `credentials_dir`.
    pub credentials_dir: Option<PathBuf>,
    /// The directory that systemd names, if the environment was loaded.
    pub default_credentials_dir: Option<PathBuf>,
    /// The hub that `profile` names: the file that it is in, and its ID, or its name if it has none.
    pub hub: Option<(PathBuf, String)>,
    /// `config_file`.
    pub config_file: Option<PathBuf>,
    /// Whether the environment was loaded: only then are dc-cli's own files read.
    pub environment_loaded: bool,
    /// The settings above that have a value: the name, how messages name it, and where it came from.
    pub origins: Vec<(&'static str, String, Origin)>,
    /// The profile whose settings are used, as messages name it.
    pub profile: Option<String>,
    /// What is not used although it is set, and why.
    pub unused: Vec<String>,
}

/// The settings that the network transport needs.
#[derive(Clone, Debug)]
pub struct NetworkOptions {
    /// `connect_timeout_ms`.
    pub connect_timeout: Duration,
    /// `ca_file`.
    pub ca_file: Option<PathBuf>,
    /// `client_certificate` and `client_key`.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// `proxy`; `none` disables proxies, and `None` means that of the environment.
    pub proxy: Option<Secret>,
    /// The environment: proxies, and where certificates are.
    pub environment: Environment,
    /// Where log lines go.
    pub log: Log,
}

#[cfg(any(test, fuzzing))]
impl NetworkOptions {
    /// No files, no proxy and no environment.
    pub(crate) fn bare() -> Self {
        NetworkOptions {
            connect_timeout: Duration::from_secs(30),
            ca_file: None,
            client_certificate: None,
            proxy: None,
            environment: Environment::default(),
            log: Log::default(),
        }
    }
}

impl Config {
    /// The settings, typed and complete, with those of the [profile](Config::with_profile).
    pub fn options(&self) -> Result<Options> {
        self.with_profile()?.own_options()
    }

    fn own_options(&self) -> Result<Options> {
        let (certificate, key) = (self.path("client_certificate"), self.path("client_key"));
        if certificate.is_some() != key.is_some() {
            let (have, lack) = if certificate.is_some() {
                ("client_certificate", "client_key")
            } else {
                ("client_key", "client_certificate")
            };
            return Err(
                Error::new(Kind::Config, format!("{have} is set, but {lack} is not")).with_hint("set both, or neither")
            );
        }
        let milliseconds = |name| Duration::from_millis(self.number(name));
        let level = Level::parse(self.effective("log_level")).flatten();
        let log = self.log.clone().with_level(level).with_scope(self.scope);
        Ok(Options {
            token_url: {
                let url = self.url("auth_url")?;
                if url.path().ends_with(TOKEN_PATH) { url } else { url.append(TOKEN_PATH) }
            },
            api_url: self.url("api_url")?.without_suffix("/v2/content"),
            timeout: milliseconds("timeout_ms"),
            retries: u32::try_from(self.number("retries")).unwrap_or(u32::MAX),
            min_validity: milliseconds("min_validity_ms"),
            background_refresh: parse_bool(self.effective("background_refresh")).unwrap_or(false),
            max_response_bytes: usize::try_from(self.number("max_response_bytes")).unwrap_or(usize::MAX),
            store: match self.effective("store") {
                "none" => "none".into(),
                "file" => "file".into(),
                // The URL of a server may hold a password.
                _ => self.secret("store").map_or_else(|| "none".into(), MaybeSecret::from),
            },
            store_dir: self.path("store_dir"),
            credentials: CredentialOptions {
                client_id: self.text("client_id").map(str::to_owned),
                client_secret: self.secret("client_secret"),
                client_secret_file: self.path("client_secret_file"),
                personal_access_token: self.secret("personal_access_token"),
                personal_access_token_file: self.path("personal_access_token_file"),
                client_id_file: self.path("client_id_file"),
                // It was validated when it was set.
                credential_command: self.text("credential_command").and_then(|text| parse_command(text).ok()),
                credentials_dir: self.path("credentials_dir"),
                default_credentials_dir: self
                    .is_loaded()
                    .then(|| self.environment.directory("CREDENTIALS_DIRECTORY"))
                    .flatten(),
                hub: self.hub(),
                config_file: self.path("config_file"),
                environment_loaded: self.is_loaded(),
                origins: SECRETS
                    .into_iter()
                    .chain(IDS)
                    .filter_map(|name| Some((name, self.describe_setting(name), self.origin(name)?)))
                    .collect(),
                profile: self.profile().map(Profile::describe),
                unused: self.unused().to_vec(),
            },
            profile: self.profile().map(Profile::identity).unwrap_or_default(),
            network: NetworkOptions {
                connect_timeout: milliseconds("connect_timeout_ms"),
                ca_file: self.path("ca_file"),
                client_certificate: certificate.zip(key),
                proxy: self.secret("proxy"),
                environment: self.environment.without_inherited(),
                log: log.clone(),
            },
            user_agent: {
                let own = concat!("libamp_token/", env!("CARGO_PKG_VERSION"));
                match self.text("user_agent").filter(|text| !text.trim().is_empty()) {
                    Some(text) => format!("{} {own}", text.trim()),
                    None => own.to_owned(),
                }
            },
            log,
            environment: if self.text("credential_command").is_some() {
                self.environment.clone()
            } else {
                self.environment.without_inherited()
            },
            clock: self.clock.clone(),
            scope: self.scope,
        })
    }

    /// The value of a setting, or its default; empty if it has none.
    fn effective(&self, name: &str) -> &str {
        self.text(name)
            .unwrap_or_else(|| SETTINGS.iter().find(|setting| setting.name == name).map_or("", |row| row.default))
    }

    pub(super) fn number(&self, name: &str) -> u64 {
        // Values were validated when they were set, and a test validates the defaults.
        self.effective(name).trim().parse().unwrap_or(0)
    }

    /// A base URL, without slashes at its end.
    fn url(&self, name: &str) -> Result<Url> {
        match Url::parse(self.effective(name)) {
            Some(url) => Ok(canonical(url).without_trailing_slashes()),
            // Unreachable, because the value was validated when it was set.
            None => Err(Error::new(Kind::Config, format!("{name} is not a valid http or https URL"))
                .with_hint("use https://host/path")),
        }
    }
}

/// The same URL, with its scheme and host in lower case and without the default port. The URL of the token service is
/// part of the name of an entry in the store, and a service that is spelt in two ways must have one entry.
fn canonical(url: Url) -> Url {
    // The zone of a link-local address is the name of an interface, which has upper and lower case.
    let host = url.host_with_zone();
    let (host, zone) = host.split_at(host.find('%').unwrap_or(host.len()));
    let host = host.to_ascii_lowercase() + zone;
    let default_port = if url.scheme() == "https" { 443 } else { 80 };
    let authority = host_and_port(&host, url.port());
    let authority = authority.strip_suffix(&format!(":{default_port}")).unwrap_or(&authority);
    let text = format!("{}://{authority}{}", url.scheme(), url.path());
    Url::parse(&text).filter(|_| !url.has_user_info()).unwrap_or(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(setting: &str, value: &str) -> Config {
        let mut config = Config::new();
        config.set(setting, Some(value)).unwrap();
        config
    }

    #[test]
    fn urls_are_complete_or_are_completed() {
        for (set, token_url) in [
            ("https://a.example", "https://a.example/oauth/token"),
            ("https://a.example/", "https://a.example/oauth/token"),
            ("https://a.example/oauth/token", "https://a.example/oauth/token"),
            ("https://oauth/token", "https://oauth/token/oauth/token"),
            ("HTTPS://A.Example:443/Path/", "https://a.example/Path/oauth/token"),
            ("https://a.example:", "https://a.example/oauth/token"),
            ("https://a.example:4430", "https://a.example:4430/oauth/token"),
            ("Http://LocalHost:80", "http://localhost/oauth/token"),
            ("http://[::1]:80", "http://[::1]/oauth/token"),
            ("https://[FE80::1%25Eth0]:8443", "https://[fe80::1%25Eth0]:8443/oauth/token"),
            ("http://127.0.0.1:99/x", "http://127.0.0.1:99/x/oauth/token"),
        ] {
            let config = config("auth_url", set);
            assert_eq!(config.options().unwrap().token_url.as_str(), token_url);
        }
        for (set, api_url) in [
            ("https://a.example/v2/content/", "https://a.example"),
            ("https://a.example/x//", "https://a.example/x"),
            ("https://v2/content", "https://v2/content"),
        ] {
            let config = config("api_url", set);
            assert_eq!(config.options().unwrap().api_url.as_str(), api_url);
        }
    }

    #[test]
    fn half_a_client_certificate_is_rejected() {
        let error = config("client_key", "k").options().unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        assert!(error.to_string().contains("client_certificate is not"), "{error}");
    }
}
