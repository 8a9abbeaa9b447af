//! THE table of settings, and the configuration that is made from it.
//!
//! One row of [`SETTINGS`] is one setting: `amp_config_set`, the environment, the command line's
//! options, Python's keyword arguments and the README's table are all driven by it or compared with
//! it, so that a setting cannot exist in one place and be missing in another.
//!
//! A [`Config`] is text by name, each value checked when it is set; [`Options`] is what the rest of
//! the library works with, typed and complete.

use crate::config::environment;
use crate::error::{Error, Kind, Result, Stage};
use crate::log::Log;
use crate::net::transport::Transport;
use crate::net::url::{Url, is_loopback};
use crate::sanitize::{as_word, redact_url, sanitize};
use crate::sys::clock::Clock;
use crate::sys::secret::{MaybeSecret, Secret};
use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What a setting's text must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    /// Any text.
    Text,
    /// A text that is never shown and never taken from an argument list.
    Secret,
    /// The path of a file or folder.
    Path,
    /// `https://host[:port][/path]`; `with_http_status` only for loopback hosts.
    Url,
    /// `http://`, `https://`, `socks5://` or `socks5h://` and a host, or `none`. Secret: it may hold a password.
    Proxy,
    /// Whole milliseconds, from the first number to the second.
    Milliseconds(u64, u64),
    /// A whole number, up to this one.
    Count(u64),
    /// `true` or `false` (also `1`, `0`, `yes`, `no`, `on`, `off`).
    Flag,
    /// `none`, `file`, or the URL of a Redis server. Secret: it may hold a password.
    Store,
}

impl ValueType {
    /// Whether values of this type may hold a secret.
    pub fn is_secret(self) -> bool {
        matches!(self, ValueType::Secret | ValueType::Proxy | ValueType::Store)
    }
}

/// One row of the table.
#[derive(Debug)]
pub struct Setting {
    /// The name, as in `amp_config_set`.
    pub name: &'static str,
    /// What the text must be.
    pub value_type: ValueType,
    /// The default as text that could be set, or empty.
    pub default: &'static str,
    /// The default in words, where it is no text that could be set.
    pub default_description: &'static str,
    /// The environment variables it is read from, the first one that is set.
    pub environment: &'static [&'static str],
    /// What it does, in one line.
    pub description: &'static str,
}

const DAY: u64 = 24 * 60 * 60 * 1000;

const fn setting(
    name: &'static str,
    value_type: ValueType,
    (default, default_description): (&'static str, &'static str),
    environment: &'static [&'static str],
    description: &'static str,
) -> Setting {
    Setting { name, value_type, default, default_description, environment, description }
}

/// A default that is a value.
const fn literal(default: &'static str) -> (&'static str, &'static str) {
    (default, "")
}

/// A default that is described.
const fn described(default_description: &'static str) -> (&'static str, &'static str) {
    ("", default_description)
}

/// Every setting.
#[rustfmt::skip]
pub static SETTINGS: &[Setting] = &[
setting("client_id", ValueType::Text, described("none"), &["AMPLIENCE_CLIENT_ID"],
        "the API key"),
setting("client_secret", ValueType::Secret, described("none"), &["AMPLIENCE_CLIENT_SECRET"],
        "the API secret"),
setting("client_secret_file", ValueType::Path, described("none"), &["AMPLIENCE_CLIENT_SECRET_FILE"],
        "a file that holds the API secret, read again when the secret is refused"),
setting("personal_access_token", ValueType::Secret, described("none"), &["AMPLIENCE_PERSONAL_ACCESS_TOKEN", "AMPLIENCE_PAT"],
        "a personal access token, in place of an API key and secret"),
setting("personal_access_token_file", ValueType::Path, described("none"), &["AMPLIENCE_PERSONAL_ACCESS_TOKEN_FILE"],
        "a file that holds the personal access token"),
setting("config_file", ValueType::Path, described("dc-cli's own"), &["AMPLIENCE_CONFIG_FILE"],
        "a file in dc-cli's format, where credentials are looked for last"),
setting("auth_url", ValueType::Url, literal("https://auth.amplience.net"), &["AMPLIENCE_AUTH_URL"],
        "where tokens come from; /oauth/token is appended unless it is there"),
setting("api_url", ValueType::Url, literal("https://api.amplience.net"), &["AMPLIENCE_API_URL"],
        "where requests with a token go; a trailing /v2/content is understood"),
setting("timeout_ms", ValueType::Milliseconds(1, DAY), literal("30000"), &["AMPLIENCE_TIMEOUT_MS"],
        "the longest a whole call may take, retries and waiting included"),
setting("connect_timeout_ms", ValueType::Milliseconds(1, DAY), literal("5000"), &["AMPLIENCE_CONNECT_TIMEOUT_MS"],
        "the longest one connection may take to be made"),
setting("retries", ValueType::Count(100), literal("3"), &["AMPLIENCE_RETRIES"],
        "how often a request that failed is sent again"),
setting("ca_file", ValueType::Path, described("none"), &["AMPLIENCE_CA_FILE"],
        "certificates (PEM) to trust besides the system's"),
setting("client_certificate", ValueType::Path, described("none"), &["AMPLIENCE_CLIENT_CERTIFICATE"],
        "the certificate (PEM) for a server of auth_url or api_url that asks for one"),
setting("client_key", ValueType::Path, described("none"), &["AMPLIENCE_CLIENT_KEY"],
        "the private key (PEM) of client_certificate"),
setting("proxy", ValueType::Proxy, described("the environment's"), &["AMPLIENCE_PROXY"],
        "the URL of the proxy for https, or none; without it HTTPS_PROXY or ALL_PROXY; not for hosts in NO_PROXY, nor for http"),
setting("min_validity_ms", ValueType::Milliseconds(0, DAY), literal("0"), &["AMPLIENCE_MIN_VALIDITY_MS"],
        "a token must be good for at least this long when it is handed out"),
setting("background_refresh", ValueType::Flag, literal("false"), &["AMPLIENCE_BACKGROUND_REFRESH"],
        "a thread renews the token ahead of time, so that no caller waits"),
setting("max_response_bytes", ValueType::Count(1 << 30), literal("16777216"), &["AMPLIENCE_MAX_RESPONSE_BYTES"],
        "the largest reply to an API request that is taken into memory"),
setting("store", ValueType::Store, literal("none"), &["AMPLIENCE_STORE"],
        "where tokens are shared, sealed: none, file, or redis://… or rediss://…"),
setting("store_dir", ValueType::Path, described("the user's runtime or cache folder"), &["AMPLIENCE_STORE_DIR"],
        "the folder of the file store"),
setting("user_agent", ValueType::Text, described("none"), &["AMPLIENCE_USER_AGENT"],
        "put in front of the library's own User-Agent"),
];

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The program set it.
    Set,
    /// This environment variable.
    Environment(&'static str),
}

/// The settings of one client, and the functions that an application plugs in.
///
/// It has one owner at a time; a cache keeps what it needs of it.
#[derive(Clone)]
pub struct Config {
    values: Vec<Option<(Secret, Origin)>>,
    /// Whether the environment and dc-cli's file have been asked.
    loaded: bool,
    /// Where log lines go.
    pub log: Log,
    /// What carries requests, in place of real sockets.
    pub transport: Option<Arc<dyn Transport>>,
    /// Where the time comes from.
    pub clock: Clock,
}

impl Default for Config {
    fn default() -> Self {
        Config::new()
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut map = f.debug_map();
        for (setting, value) in SETTINGS.iter().zip(&self.values) {
            if let Some((value, _)) = value {
                map.entry(&setting.name, &display_value(setting, value.expose()));
            }
        }
        map.finish()
    }
}

/// A value as it may be shown to a person.
pub fn display_value<'a>(setting: &Setting, value: &'a str) -> Cow<'a, str> {
    let harmless = matches!(value, "none" | "file");
    match setting.value_type {
        kind if kind.is_secret() && !harmless => "[secret]".into(),
        ValueType::Url => redact_url(value).into(),
        _ => value.into(),
    }
}

fn index_of(name: &str) -> Result<usize> {
    SETTINGS.iter().position(|setting| setting.name == name).ok_or_else(|| {
        let mut names: Vec<_> = SETTINGS.iter().map(|setting| setting.name).collect();
        let hint = match nearest(name, names.iter().copied()) {
            Some(meant) => {
                names.retain(|name| *name != meant);
                format!("did you mean {meant}? The others are {}", names.join(", "))
            }
            None => format!("use one of {}", names.join(", ")),
        };
        let message = match as_word(name) {
            Some(name) => format!("there is no setting named {name:?}"),
            None => "there is no setting of that name".to_owned(),
        };
        Error::invalid(message).with_hint(hint)
    })
}

/// The candidate that a mistyped name probably stands for, if one is similar enough.
///
/// Upper and lower case and the characters between words make no difference. A candidate is similar if all words of
/// one name are in the other, as in `timeout` and `timeout_ms`, if words are abbreviated, as in `client_cert`, or if at
/// most a third of the characters differ. clap brings strsim for the last of these, but only into the command.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Much longer than any candidate. The time that edit_distance() takes grows with the length.
    const LONGEST: usize = 64;
    if name.len() > LONGEST {
        return None;
    }
    let words = |name: &str| -> Vec<String> {
        let words = name.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
        words.map(str::to_lowercase).collect()
    };
    let typed = words(name);
    if typed.is_empty() {
        return None;
    }
    let similar = candidates.into_iter().filter_map(|candidate| {
        let meant = words(candidate);
        let same_words = if typed.len() == meant.len() {
            typed.iter().zip(&meant).all(|(one, other)| one.starts_with(other) || other.starts_with(one))
        } else {
            let (fewer, more) = if typed.len() < meant.len() { (&typed, &meant) } else { (&meant, &typed) };
            fewer.iter().all(|word| more.contains(word))
        };
        let (one, other) = (typed.concat(), meant.concat());
        let distance = edit_distance(&one, &other);
        let few_typos = distance * 3 <= one.len().max(other.len());
        (same_words || few_typos).then_some((!same_words, distance, candidate))
    });
    similar.min().map(|(_, _, candidate)| candidate)
}

/// How many characters must be inserted, removed or replaced to turn one text into the other (Levenshtein distance).
pub fn edit_distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    // The distances from the part of `probe` that was read to each beginning of `other`.
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (read, a) in one.chars().enumerate() {
        let mut replaced = read;
        row[0] = read + 1;
        for (at, b) in other.iter().enumerate() {
            let best = (replaced + usize::from(a != *b)).min(row[at] + 1).min(row[at + 1] + 1);
            replaced = row[at + 1];
            row[at + 1] = best;
        }
    }
    row[other.len()]
}

impl Config {
    /// Nothing set.
    pub fn new() -> Self {
        Config {
            values: vec![None; SETTINGS.len()],
            loaded: false,
            log: Log::default(),
            transport: None,
            clock: Clock::System,
        }
    }

    /// Sets one value; `None` unsets it. A name or value that is not allowed changes nothing.
    pub fn set(&mut self, name: &str, value: Option<&str>) -> Result<()> {
        let row = index_of(name)?;
        self.values[row] = match value {
            Some(value) => {
                validate(&SETTINGS[row], value).map_err(|problem| problem_with(SETTINGS[row].name, problem))?;
                Some((Secret::from(value), Origin::Set))
            }
            None => None,
        };
        Ok(())
    }

    /// Fills what is unset from the environment. Credentials of another kind than those that are
    /// already set are passed over, and so is the file of a secret that is set. An empty variable
    /// counts as unset. dc-cli's file is asked when credentials are still missing later on.
    ///
    /// Fails in a process with raised privileges: to read nothing and report success would mislead.
    pub fn load(&mut self) -> Result<()> {
        if environment::has_raised_privileges() {
            let message = "the environment is not read, because this program runs with raised privileges \
                           (setuid, setgid or file capabilities)";
            return Err(Error::new(Kind::Config, message).with_hint("set the values with amp_config_set"));
        }
        self.load_from(environment::variable)
    }

    /// [`Config::load`], with the environment as a function.
    pub fn load_from(&mut self, environment: impl Fn(&str) -> Option<std::ffi::OsString>) -> Result<()> {
        let already = self.clone();
        let has = |name: &str| already.text(name).is_some();
        let pair = has("client_id") || has("client_secret") || has("client_secret_file");
        let pat = has("personal_access_token") || has("personal_access_token_file");
        for (row, setting) in SETTINGS.iter().enumerate() {
            let overruled = match setting.name {
                "client_id" => pat,
                "client_secret" | "client_secret_file" => pat || has("client_secret") || has("client_secret_file"),
                "personal_access_token" | "personal_access_token_file" => pair || pat,
                _ => false,
            };
            if overruled || self.values[row].is_some() {
                continue;
            }
            for &variable in setting.environment {
                let Some(value) = environment(variable).filter(|value| !value.is_empty()) else {
                    continue;
                };
                let value = value.into_string().map_err(|_| {
                    let advice = match setting.value_type {
                        ValueType::Proxy => "percent-encode the other bytes (%E9), or unset it",
                        _ => "set it to text, or unset it",
                    };
                    Error::new(Kind::Config, format!("{variable} is not UTF-8")).with_hint(advice)
                })?;
                let value = zeroize::Zeroizing::new(value);
                validate(setting, &value).map_err(|problem| problem_with(variable, problem).into_config())?;
                self.values[row] = Some((Secret::from(value.as_str()), Origin::Environment(variable)));
                break;
            }
        }
        self.loaded = true;
        Ok(())
    }

    /// Whether [`Config::load`] was called: only then are files looked at that nobody named.
    pub fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// The text of a setting that was set or loaded, without its default.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.entry(name).map(|(value, _)| value.expose())
    }

    /// The same, as a secret that shares its memory with the setting.
    pub fn secret(&self, name: &str) -> Option<Secret> {
        self.entry(name).map(|(value, _)| value.clone())
    }

    /// Where a setting's value came from; `None`: it is the default.
    pub fn origin(&self, name: &str) -> Option<Origin> {
        self.entry(name).map(|(_, origin)| *origin)
    }

    fn entry(&self, name: &str) -> Option<&(Secret, Origin)> {
        let row = SETTINGS.iter().position(|setting| setting.name == name)?;
        self.values[row].as_ref()
    }

    /// The text of a setting, or its default; empty if it has none.
    fn effective(&self, name: &str) -> &str {
        self.text(name)
            .unwrap_or_else(|| SETTINGS.iter().find(|setting| setting.name == name).map_or("", |row| row.default))
    }

    fn number(&self, name: &str) -> u64 {
        // Values were checked when they were set, and a test checks the defaults.
        self.effective(name).trim().parse().unwrap_or(0)
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.text(name).map(PathBuf::from)
    }

    /// The settings as the rest of the library uses them.
    pub fn options(&self) -> Result<Options> {
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
        Ok(Options {
            token_url: join_path(self.effective("auth_url"), "/oauth/token"),
            api_url: {
                let url = self.effective("api_url").trim_end_matches('/');
                url.strip_suffix("/v2/content").unwrap_or(url).to_owned()
            },
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
            network: NetworkOptions {
                connect_timeout: milliseconds("connect_timeout_ms"),
                ca_file: self.path("ca_file"),
                client_certificate: certificate.zip(key),
                proxy: self.secret("proxy"),
                log: self.log.clone(),
            },
            user_agent: {
                let own = concat!("libamp_token/", env!("CARGO_PKG_VERSION"));
                match self.text("user_agent").filter(|text| !text.trim().is_empty()) {
                    Some(text) => format!("{} {own}", text.trim()),
                    None => own.to_owned(),
                }
            },
            log: self.log.clone(),
            clock: self.clock.clone(),
        })
    }
}

/// The settings, typed and complete.
#[derive(Clone, Debug)]
pub struct Options {
    /// The whole URL of the token endpoint.
    pub token_url: String,
    /// The API's base URL, without a slash at its end.
    pub api_url: String,
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
    /// What the transport needs.
    pub network: NetworkOptions,
    /// The whole User-Agent.
    pub user_agent: String,
    /// Where log lines go.
    pub log: Log,
    /// Where the time comes from.
    pub clock: Clock,
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
    /// `proxy`; `none` switches proxies off, `None` means the environment's.
    pub proxy: Option<Secret>,
    /// Where log lines go.
    pub log: Log,
}

/// A base URL with `path` at its end, once.
fn join_path(base: &str, path: &str) -> String {
    let base = base.trim_end_matches('/');
    if base.ends_with(path) { base.to_owned() } else { format!("{base}{path}") }
}

/// Says that `name` (a setting or an environment variable) has a value that is not allowed.
fn problem_with(name: &str, (problem, advice): InvalidValue) -> Error {
    Error::invalid(format!("{name} {problem}")).with_hint(advice)
}

impl Error {
    /// The same error as a matter of configuration: nobody passed a wrong argument.
    fn into_config(self) -> Error {
        Error::new(Kind::Config, self.to_string()).with_phase(Stage::Setup)
    }
}

type InvalidValue = (String, String);

/// The longest text that is quoted where a number or a word is expected, in bytes. What is longer may be
/// the value of another setting, and that may be a secret.
const LONGEST_WORD: usize = 16;

/// Checks a value: what is wrong with it, and what would be right.
fn validate(setting: &Setting, value: &str) -> std::result::Result<(), InvalidValue> {
    let wrong = |what: String, right: &str| Err((what, right.to_owned()));
    if value.contains('\0') {
        return wrong("contains a NUL character".to_owned(), "remove it");
    }
    if value.trim().is_empty() {
        let right = match setting.name {
            "client_secret" => "set AMPLIENCE_CLIENT_SECRET or client_secret_file, or pass the API secret",
            "client_id" => "set AMPLIENCE_CLIENT_ID, or pass the API key",
            _ => "give it a value, or unset it by passing NULL",
        };
        return wrong("is empty".to_owned(), right);
    }
    // A value may be rejected because a secret is in it, whatever its setting is for.
    let bad = || match setting.value_type {
        kind if kind.is_secret() => "is not a value that is allowed".to_owned(),
        ValueType::Url if Url::scheme(value).is_none() => "is not an http or https URL".to_owned(),
        ValueType::Url => format!("is {:?}", redact_url(value)),
        ValueType::Text => "has characters that are not allowed".to_owned(),
        _ if value.len() > LONGEST_WORD => format!("has a value of {} bytes, which is not allowed", value.len()),
        _ => format!("is {:?}", sanitize(value, &[])),
    };
    match setting.value_type {
        ValueType::Text if setting.name == "user_agent" && !value.chars().all(|c| (' '..='~').contains(&c)) => {
            wrong(bad(), "use visible ASCII characters")
        }
        ValueType::Text | ValueType::Secret | ValueType::Path => Ok(()),
        ValueType::Flag => match parse_bool(value) {
            Some(_) => Ok(()),
            None => wrong(bad(), "use true or false"),
        },
        ValueType::Count(most) => match value.trim().parse::<u64>() {
            Ok(count) if count <= most => Ok(()),
            _ => wrong(bad(), &format!("use a whole number from 0 to {most}")),
        },
        ValueType::Milliseconds(least, most) => match value.trim().parse::<u64>() {
            Ok(time) if (least..=most).contains(&time) => Ok(()),
            _ => wrong(bad(), &format!("use whole milliseconds from {least} to {most}")),
        },
        ValueType::Url => check_url(value).map_err(|right| (bad(), right)),
        ValueType::Proxy => {
            let schemes = ["http://", "https://", "socks5://", "socks5h://", "socks4://", "socks4a://"];
            let host = match value.split_once("://") {
                Some((scheme, rest)) if schemes.contains(&format!("{scheme}://").as_str()) => rest,
                Some(_) => "",
                None => value,
            };
            if host.is_empty() || host.contains(char::is_whitespace) {
                wrong(bad(), "use none, http://host:port, https://host:port or socks5h://host:port")
            } else {
                Ok(())
            }
        }
        ValueType::Store => {
            let redis = ["redis://", "rediss://"].iter().any(|scheme| value.starts_with(scheme));
            if value == "none" || value == "file" || redis {
                Ok(())
            } else {
                wrong(bad(), "use none, file, redis://host:port or rediss://host:port")
            }
        }
    }
}

fn parse_bool(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// Checks a base URL, or says what would be right. A secret or a token may only travel encrypted,
/// unless it does not leave the machine.
fn check_url(url: &str) -> std::result::Result<(), String> {
    let right = match Url::parse(url) {
        Some(Url { user_info: true, .. }) => {
            "leave out the user name and password: credentials have settings of their own"
        }
        // A password with reserved characters is mistaken for other parts.
        None if url.contains('@') => "leave out the user name and password: credentials have settings of their own",
        _ if url.contains('?') => "leave out the query, from ? on: credentials have settings of their own",
        _ if url.contains('#') => "leave out the fragment, from # on",
        Some(Url { scheme: "http", host, .. }) if !is_loopback(host) => {
            "use https: http is only allowed for this machine itself (localhost, 127.0.0.1, [::1])"
        }
        Some(_) if url.chars().all(|c| ('!'..='~').contains(&c)) => return Ok(()),
        _ => "use a URL such as https://auth.amplience.net",
    };
    Err(right.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    #[test]
    fn every_row_is_complete_and_its_default_allowed() {
        for setting in SETTINGS {
            let variable = format!("AMPLIENCE_{}", setting.name.to_ascii_uppercase());
            assert_eq!(setting.environment[0], variable);
            assert!(!setting.description.is_empty());
            assert!(setting.default.is_empty() != setting.default_description.is_empty(), "{}", setting.name);
            if !setting.default.is_empty() {
                validate(setting, setting.default).unwrap();
            }
        }
        Config::new().options().unwrap();
    }

    #[test]
    fn a_refused_value_names_what_is_allowed_and_changes_nothing() {
        let mut config = Config::new();
        config.set("retries", Some("5")).unwrap();
        for (name, value, says) in [
            ("retries", "many", "retries is \"many\": use a whole number from 0 to 100"),
            ("retries", "-1", "use a whole number"),
            ("timeout_ms", "0", "timeout_ms is \"0\": use whole milliseconds from 1 to 86400000"),
            ("background_refresh", "maybe", "use true or false"),
            ("auth_url", "http://auth.example", "use https"),
            ("auth_url", "auth.example", "auth_url is not an http or https URL: use a URL such as"),
            ("auth_url", "https://u:p@auth.example", "leave out the user name"),
            ("auth_url", "https://auth.example/?a=b", "leave out the query, from ? on"),
            ("auth_url", "https://auth.example/#a", "leave out the fragment, from # on"),
            ("client_secret", "", "client_secret is empty: set AMPLIENCE_CLIENT_SECRET"),
            ("client_id", " ", "client_id is empty"),
            ("store", "memcached://x", "use none, file, redis://"),
            ("proxy", "gopher://x", "use none, http://host:port"),
            ("user_agent", "a\nb", "use visible ASCII"),
            ("nonsense", "1", "there is no setting named \"nonsense\": use one of client_id, client_secret"),
        ] {
            let error = config.set(name, Some(value)).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidArgument);
            assert!(error.to_string().contains(says), "{error}");
        }
        assert_eq!(config.text("retries"), Some("5"));
        assert_eq!(config.text("client_secret"), None);
    }

    #[test]
    fn a_mistyped_name_brings_the_one_that_was_meant() {
        for (typed, meant) in [
            ("timeout", "timeout_ms"),
            ("connect_timeout", "connect_timeout_ms"),
            ("clientid", "client_id"),
            ("clientId", "client_id"),
            ("client-id", "client_id"),
            ("CLIENT_ID", "client_id"),
            ("cleint_id", "client_id"),
            ("AMPLIENCE_CLIENT_ID", "client_id"),
            ("secret", "client_secret"),
            ("client_secrets", "client_secret"),
            ("secret_file", "client_secret_file"),
            ("access_token", "personal_access_token"),
            ("proxy_url", "proxy"),
            ("retry_s", "retries"),
            ("store_directory", "store_dir"),
            ("client_cert", "client_certificate"),
            ("userAgent", "user_agent"),
        ] {
            let error = Config::new().set(typed, Some("1")).unwrap_err();
            let text = error.to_string();
            let says = format!("there is no setting named {typed:?}: did you mean {meant}? The others are ");
            assert!(text.starts_with(&says), "{text}");
            // All others are listed, and this one is not repeated.
            let listed: Vec<_> = text.rsplit_once("are ").unwrap().1.split(", ").collect();
            assert_eq!(listed.len(), SETTINGS.len() - 1, "{text}");
            assert!(!listed.contains(&meant), "{text}");
        }
        for typed in [
            "",
            "_",
            "x",
            "hub_id",
            "password",
            "dispatch",
            "restored",
            "client_of_mine",
            "é",
            &"client_id".repeat(1000),
        ] {
            let text = Config::new().set(typed, Some("1")).unwrap_err().to_string();
            assert!(!text.contains("did you mean") && text.contains("use one of client_id, "), "{text}");
        }
    }

    #[test]
    fn an_edit_distance_counts_changes() {
        for (one, other, distance) in
            [("", "", 0), ("abc", "abc", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("é", "e", 1)]
        {
            assert_eq!(edit_distance(one, other), distance, "{one} {other}");
            assert_eq!(edit_distance(other, one), distance, "{one} {other}");
        }
    }

    #[test]
    fn a_rejected_value_shows_no_secret() {
        for (value, shown) in [
            ("https://auth.test/oauth/token?client_secret=S3cret", "\"https://auth.test/oauth/token…\""),
            ("https://me:S3cret@auth.test/x", "\"https://…@auth.test/x\""),
            ("https://me:S3c?ret@auth.test", "\"https://…\""),
            ("https://me:S3c/ret@auth.test", "\"https://…@auth.test\""),
            ("https://me:S3cret", "\"https://…\""),
            ("https://auth.test#S3cret", "\"https://auth.test…\""),
            ("http://auth.test/S3c=ret", "\"http://auth.test/S3c…\""),
            ("me:S3cret@auth.test", "not an http or https URL"),
            ("S3cret://auth.test", "not an http or https URL"),
            ("S3cret", "not an http or https URL"),
        ] {
            for name in ["auth_url", "api_url"] {
                let error = Config::new().set(name, Some(value)).unwrap_err().to_string();
                assert!(error.contains(shown) && !error.contains("S3cret") && !error.contains("ret@"), "{error}");
                assert!(!error.contains("S3c?") && !error.contains("S3c="), "{error}");
            }
        }
        let error = Config::new().set("S3cret-that-is-long-enough-0123456789", Some("client_secret")).unwrap_err();
        assert!(error.to_string().starts_with("there is no setting of that name: use one of"), "{error}");
        for name in ["timeout_ms", "retries", "background_refresh", "store"] {
            let error = Config::new().set(name, Some("S3cret-that-is-long-enough-0123456789")).unwrap_err().to_string();
            assert!(!error.contains("S3cret"), "{error}");
        }
    }

    /// A path may be anything, so a URL that is in force is shown in part, too.
    #[test]
    fn a_value_in_force_shows_no_secret() {
        let mut config = Config::new();
        config.set("auth_url", Some("https://auth.test/oauth/token&client_secret=S3cret")).unwrap();
        assert!(!format!("{config:?}").contains("S3cret"), "{config:?}");
    }

    #[test]
    fn a_secret_value_is_never_repeated() {
        let mut config = Config::new();
        let error = config.set("proxy", Some("gopher://user:hush@x")).unwrap_err();
        assert!(!error.to_string().contains("hush"));
        config.set("client_secret", Some("hush")).unwrap();
        config.set("proxy", Some("http://user:hush@proxy:3128")).unwrap();
        assert!(!format!("{config:?} {:?}", config.options().unwrap()).contains("hush"));
    }

    fn loaded(set: &[(&str, &str)], environment: &[(&str, &str)]) -> Config {
        let mut config = Config::new();
        for (name, value) in set {
            config.set(name, Some(value)).unwrap();
        }
        config
            .load_from(|name| {
                environment.iter().find(|(have, _)| *have == name).map(|(_, value)| OsString::from(value))
            })
            .unwrap();
        config
    }

    #[test]
    fn the_environment_fills_what_is_unset() {
        let config = loaded(
            &[("retries", "1")],
            &[("AMPLIENCE_RETRIES", "9"), ("AMPLIENCE_TIMEOUT_MS", "50"), ("AMPLIENCE_CLIENT_ID", "")],
        );
        assert_eq!(config.text("retries"), Some("1"));
        assert_eq!(config.text("timeout_ms"), Some("50"));
        assert_eq!(config.origin("timeout_ms"), Some(Origin::Environment("AMPLIENCE_TIMEOUT_MS")));
        assert_eq!(config.text("client_id"), None);
    }

    #[test]
    fn credentials_that_are_set_keep_the_other_kind_out() {
        let environment = &[
            ("AMPLIENCE_PAT", "pat"),
            ("AMPLIENCE_CLIENT_ID", "id"),
            ("AMPLIENCE_CLIENT_SECRET", "secret"),
            ("AMPLIENCE_CLIENT_SECRET_FILE", "/f"),
        ];
        let config = loaded(&[("client_id", "mine")], environment);
        assert_eq!(config.text("client_id"), Some("mine"));
        assert_eq!(config.text("client_secret"), Some("secret"));
        assert_eq!(config.text("personal_access_token"), None);
        let config = loaded(&[("personal_access_token", "mine")], environment);
        assert_eq!(config.text("client_id"), None);
        assert_eq!(config.text("client_secret"), None);
        let config = loaded(&[("client_id", "mine"), ("client_secret", "mine")], environment);
        assert_eq!(config.text("client_secret_file"), None);
    }

    #[test]
    fn a_bad_variable_is_named() {
        let error = Config::new().load_from(|name| (name == "AMPLIENCE_RETRIES").then(|| "x".into())).unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        assert!(error.to_string().starts_with("AMPLIENCE_RETRIES is \"x\""), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_variable_that_is_not_utf8_is_an_error() {
        use std::os::unix::ffi::OsStringExt;
        for &variable in SETTINGS.iter().flat_map(|setting| setting.environment) {
            let value = |name: &str| (name == variable).then(|| OsString::from_vec(b"http://m\xe9:hush@h".to_vec()));
            let error = Config::new().load_from(value).unwrap_err();
            assert_eq!(error.kind(), Kind::Config);
            let error = error.to_string();
            assert!(error.starts_with(&format!("{variable} is not UTF-8")) && !error.contains("hush"), "{error}");
            assert_eq!(error.contains("percent-encode"), variable == "AMPLIENCE_PROXY", "{error}");
        }
    }

    #[test]
    fn urls_are_understood_whole_or_as_origins() {
        for (set, token_url) in [
            ("https://a.example", "https://a.example/oauth/token"),
            ("https://a.example/", "https://a.example/oauth/token"),
            ("https://a.example/oauth/token", "https://a.example/oauth/token"),
            ("http://127.0.0.1:99/x", "http://127.0.0.1:99/x/oauth/token"),
        ] {
            let config = loaded(&[("auth_url", set)], &[]);
            assert_eq!(config.options().unwrap().token_url, token_url);
        }
        let config = loaded(&[("api_url", "https://a.example/v2/content/")], &[]);
        assert_eq!(config.options().unwrap().api_url, "https://a.example");
    }

    #[test]
    fn half_a_client_certificate_is_refused() {
        let error = loaded(&[("client_key", "k")], &[]).options().unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        assert!(error.to_string().contains("client_certificate is not"), "{error}");
    }
}
