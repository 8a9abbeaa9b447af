//! The table of settings.
//!
//! One row of [`SETTINGS`] is one setting. `amp_config_set`, the environment, the command line's options, Python's
//! keyword arguments and the table in the documentation are generated from it or compared with it by tests, so
//! that no setting exists in one place and is missing in another.

use crate::error::{Error, Result};
use crate::log::Level;
use crate::net::proxy::ProxyUrl;
use crate::net::url::{Url, is_loopback, split_scheme};
use crate::sanitize::{as_word, redact_url, sanitize};
use std::borrow::Cow;

/// What the value of a setting must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    /// Any string.
    Text,
    /// A string that is never shown, and never taken from the command line.
    Secret,
    /// The path of a file or directory.
    Path,
    /// A program and its arguments, as [`parse_command`] reads them. The arguments are not shown.
    Command,
    /// `https://host[:port][/path]`; `http` only for loopback hosts.
    Url,
    /// The URL of a proxy, as [`ProxyUrl`] parses it, or `none`. Secret: it may hold a password.
    Proxy,
    /// Whole milliseconds between the two numbers, inclusive.
    Milliseconds(u64, u64),
    /// A whole number from 0 to this one.
    Count(u64),
    /// `true` or `false` (also `1`, `0`, `yes`, `no`, `on`, `off`).
    Flag,
    /// `none`, `file`, or the URL of a Redis server. Secret: it may hold a password.
    Store,
    /// `off`, `error`, `warning`, `info` or `debug`.
    LogLevel,
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
    /// What the value must be.
    pub value_type: ValueType,
    /// The default as a value that could be set, or empty.
    pub default: &'static str,
    /// A description of the default, where it is not a value that could be set.
    pub default_description: &'static str,
    /// The environment variables that it is read from; the first that is set counts.
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
        "a file that contains the API secret; it is read again when the server rejects the secret"),
setting("personal_access_token", ValueType::Secret, described("none"), &["AMPLIENCE_PERSONAL_ACCESS_TOKEN", "AMPLIENCE_PAT"],
        "a personal access token, instead of an API key and secret"),
setting("personal_access_token_file", ValueType::Path, described("none"), &["AMPLIENCE_PERSONAL_ACCESS_TOKEN_FILE"],
        "a file that contains the personal access token"),
setting("client_id_file", ValueType::Path, described("none"), &["AMPLIENCE_CLIENT_ID_FILE"],
        "a file that contains the API key"),
setting("credential_command", ValueType::Command, described("none"), &["AMPLIENCE_CREDENTIAL_COMMAND"],
        "a program that prints the secret or a JSON object with the credentials: its name, or a JSON array of its name and its arguments"),
setting("credentials_dir", ValueType::Path, described("$CREDENTIALS_DIRECTORY"), &["AMPLIENCE_CREDENTIALS_DIR"],
        "a directory with the files client_id and client_secret, or personal_access_token"),
setting("profile", ValueType::Text, described("the section default of config.toml, if no credentials are set"), &["AMPLIENCE_PROFILE"],
        "the account: the name of a section of config.toml, or the name or ID of a hub of dc-cli"),
setting("config_file", ValueType::Path, described("dc-cli's own files"), &["AMPLIENCE_CONFIG_FILE"],
        "a file in dc-cli's format, which is searched last for credentials"),
setting("auth_url", ValueType::Url, literal("https://auth.amplience.net"), &["AMPLIENCE_AUTH_URL"],
        "the URL of the token service; /oauth/token is appended if it is missing"),
setting("api_url", ValueType::Url, literal("https://api.amplience.net"), &["AMPLIENCE_API_URL"],
        "the URL of the API; a trailing /v2/content is removed"),
setting("timeout_ms", ValueType::Milliseconds(1, DAY), literal("30000"), &["AMPLIENCE_TIMEOUT_MS"],
        "the time limit of a whole call, including retries and waiting"),
setting("connect_timeout_ms", ValueType::Milliseconds(1, DAY), literal("5000"), &["AMPLIENCE_CONNECT_TIMEOUT_MS"],
        "the time limit for establishing one connection"),
setting("retries", ValueType::Count(100), literal("3"), &["AMPLIENCE_RETRIES"],
        "how many times a failed request is sent again"),
setting("ca_file", ValueType::Path, described("none"), &["AMPLIENCE_CA_FILE"],
        "CA certificates (PEM) to trust in addition to the system's"),
setting("client_certificate", ValueType::Path, described("none"), &["AMPLIENCE_CLIENT_CERTIFICATE"],
        "the certificate (PEM) to present if the server of auth_url or api_url requests one"),
setting("client_key", ValueType::Path, described("none"), &["AMPLIENCE_CLIENT_KEY"],
        "the private key (PEM) of client_certificate"),
setting("proxy", ValueType::Proxy, described("from the environment"), &["AMPLIENCE_PROXY"],
        "the URL of the proxy for https, or none; default: HTTPS_PROXY or ALL_PROXY; not used for hosts in NO_PROXY, nor for http"),
setting("min_validity_ms", ValueType::Milliseconds(0, DAY), literal("0"), &["AMPLIENCE_MIN_VALIDITY_MS"],
        "how long a token must still be valid when it is returned"),
setting("background_refresh", ValueType::Flag, literal("false"), &["AMPLIENCE_BACKGROUND_REFRESH"],
        "refresh the token on a background thread, so that no caller waits"),
setting("max_response_bytes", ValueType::Count(1 << 30), literal("16777216"), &["AMPLIENCE_MAX_RESPONSE_BYTES"],
        "the largest response of the API that is read into memory"),
setting("store", ValueType::Store, literal("none"), &["AMPLIENCE_STORE"],
        "where encrypted tokens are shared: none, file, redis://… or rediss://…"),
setting("store_dir", ValueType::Path, described("in the user's runtime or cache directory"), &["AMPLIENCE_STORE_DIR"],
        "the directory of the file store"),
setting("user_agent", ValueType::Text, described("none"), &["AMPLIENCE_USER_AGENT"],
        "prepended to the library's own User-Agent"),
setting("log_level", ValueType::LogLevel, literal("info"), &["AMPLIENCE_LOG_LEVEL"],
        "the least severe log lines that are made: off, error, warning, info or debug"),
];

/// A value as it may be shown: without secrets.
pub fn display_value<'a>(setting: &Setting, value: &'a str) -> Cow<'a, str> {
    let harmless = matches!(value, "none" | "file");
    match setting.value_type {
        kind if kind.is_secret() && !harmless => "[secret]".into(),
        ValueType::Url => redact_url(value).into(),
        ValueType::Command => match parse_command(value) {
            Ok(command) if command.len() > 1 => format!("[{:?}, …]", command[0]).into(),
            Ok(_) => value.into(),
            Err(_) => "…".into(),
        },
        _ => value.into(),
    }
}

/// The program and the arguments in a value: a JSON array of strings, or the name of a program without arguments. There
/// is no shell, and so nothing that splits words, expands variables or removes quotation marks. The program has no
/// path, or a whole one: what a relative path names depends on where the process was started.
pub(super) fn parse_command(value: &str) -> std::result::Result<Vec<String>, InvalidValue> {
    const EXAMPLE: &str = "use a JSON array such as [\"pass\", \"show\", \"amplience\"]";
    let wrong = |problem: String, right: &str| Err((problem, right.to_owned()));
    let command = if value.starts_with('[') {
        match serde_json::from_str::<Vec<String>>(value) {
            Ok(command) => command,
            Err(error) => {
                return wrong(format!("is not an array of strings: {}", describe_json_error(&error)), EXAMPLE);
            }
        }
    } else if value.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '\'')) {
        let problem = "has spaces or quotation marks, and no shell splits it into words";
        return wrong(problem.to_owned(), EXAMPLE);
    } else {
        vec![value.to_owned()]
    };
    match command.first() {
        None => wrong("names no program".to_owned(), EXAMPLE),
        Some(program) if program.trim().is_empty() => wrong("names no program".to_owned(), EXAMPLE),
        Some(_) if command.iter().any(|part| part.contains('\0')) => {
            wrong("contains a NUL character".to_owned(), "remove it")
        }
        Some(program) if program.starts_with("~/") => {
            wrong("begins with ~, which only a shell expands".to_owned(), "use the whole path")
        }
        Some(program) if program.contains(std::path::is_separator) && !std::path::Path::new(program).is_absolute() => {
            wrong("has a relative path".to_owned(), "use the whole path, or a name that is looked for in PATH")
        }
        Some(_) => Ok(command),
    }
}

/// Where a JSON text is wrong, and what was expected. Nothing of the text is repeated: it may be a secret.
pub(crate) fn describe_json_error(error: &serde_json::Error) -> String {
    use serde_json::error::Category;
    let place = format!("line {}, column {}", error.line(), error.column());
    match error.classify() {
        // The text of other errors may quote a value.
        Category::Data => format!("a value has another type than expected ({place})"),
        Category::Eof => format!("it ends too early ({place})"),
        Category::Syntax | Category::Io => {
            let text = error.to_string();
            let what = text.split_once(" at line ").map_or(text.as_str(), |(what, _)| what);
            format!("{what} ({place})")
        }
    }
}

/// The row of the setting with this name.
pub(super) fn index_of(name: &str) -> Result<usize> {
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

/// The candidate that a mistyped name was probably meant to be, if one is similar enough.
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

/// The Levenshtein distance: how many characters must be inserted, removed or replaced to turn one string into
/// the other.
pub fn edit_distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    // The distances from the part of `one` that was read to each prefix of `other`.
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

/// The error for a value of `name`, a setting or an environment variable, that is not allowed.
pub(super) fn problem_with(name: &str, (problem, advice): InvalidValue) -> Error {
    Error::invalid(format!("{name} {problem}")).with_hint(advice)
}

/// What is wrong with a value, and a hint.
pub(super) type InvalidValue = (String, String);

/// The longest value that is quoted where a number or a word is expected, in bytes. A longer value may be meant
/// for another setting, which may be secret.
const LONGEST_WORD: usize = 16;

/// Validates a value.
pub(super) fn validate(setting: &Setting, value: &str) -> std::result::Result<(), InvalidValue> {
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
    // A value of any setting may be rejected because it contains a secret.
    let bad = || match setting.value_type {
        kind if kind.is_secret() => "is not a value that is allowed".to_owned(),
        ValueType::Url if split_scheme(value).is_none() => "is not an http or https URL".to_owned(),
        ValueType::Url => format!("is {:?}", redact_url(value)),
        ValueType::Text => "has characters that are not allowed".to_owned(),
        _ if value.len() > LONGEST_WORD => format!("has a value of {} bytes, which is not allowed", value.len()),
        _ => format!("is {:?}", sanitize(value, &[])),
    };
    match setting.value_type {
        ValueType::Text if setting.name == "user_agent" && !value.chars().all(|c| (' '..='~').contains(&c)) => {
            wrong(bad(), "use visible ASCII characters")
        }
        ValueType::Path if value == "~" || value.starts_with("~/") => {
            wrong("begins with ~, which only a shell expands".to_owned(), "use the whole path, or ./~ for that name")
        }
        ValueType::Text | ValueType::Secret | ValueType::Path => Ok(()),
        ValueType::Command => parse_command(value).map(|_| ()),
        ValueType::Flag => match parse_bool(value) {
            Some(_) => Ok(()),
            None => wrong(bad(), "use true or false"),
        },
        ValueType::LogLevel => match Level::parse(value) {
            Some(_) => Ok(()),
            None => wrong(bad(), "use off, error, warning, info or debug"),
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
        ValueType::Proxy | ValueType::Store if !host_of(value).is_ascii() => wrong(bad(), PUNYCODE),
        ValueType::Proxy => match ProxyUrl::parse(value) {
            Some(_) => Ok(()),
            None => wrong(bad(), "use none, http://host:port, https://host:port or socks5h://host:port"),
        },
        ValueType::Store => {
            let redis = ["redis://", "rediss://"].iter().any(|scheme| value.starts_with(scheme));
            if value == "none" || value == "file" || redis {
                Ok(())
            } else if value.split_once(':').is_some_and(|(scheme, _)| scheme.contains("unix")) {
                wrong(bad(), "Redis is not reached through Unix sockets; use redis://host:port or rediss://host:port")
            } else if value.split_once(':').is_some_and(|(scheme, _)| scheme.contains("sentinel")) {
                wrong(
                    bad(),
                    "Redis Sentinel is not asked for the server; use redis://host:port of a name or proxy that follows it",
                )
            } else {
                wrong(bad(), "use none, file, redis://host:port or rediss://host:port")
            }
        }
    }
}

pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// The hint for a host name that is not ASCII. Converting it would take the tables of Unicode (RFC 5891).
const PUNYCODE: &str = "write the host name in ASCII (punycode), such as xn--mnchen-3ya.example for münchen.example";

/// The host and port of a URL, whether or not they are valid.
fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default()
}

/// Checks a base URL; the error is a hint. Secrets and tokens are only sent encrypted, unless they do not leave
/// the machine.
fn check_url(url: &str) -> std::result::Result<(), String> {
    let right = match Url::parse(url) {
        Some(parsed) if parsed.has_user_info() => {
            "leave out the user name and password: credentials have settings of their own"
        }
        // Reserved characters in a password end the authority, so the parser does not see a password.
        None if url.contains('@') => "leave out the user name and password: credentials have settings of their own",
        _ if url.contains('?') => "leave out the query, from ? on: credentials have settings of their own",
        _ if url.contains('#') => "leave out the fragment, from # on",
        Some(parsed) if parsed.scheme() == "http" && !is_loopback(parsed.host()) => {
            "use https: http is only allowed for the local machine (localhost, 127.0.0.1, [::1])"
        }
        Some(_) if url.chars().all(|c| ('!'..='~').contains(&c)) => return Ok(()),
        Some(_) => "percent-encode everything in the path except visible ASCII",
        None if !host_of(url).is_ascii() => PUNYCODE,
        None if host_of(url).contains(char::is_whitespace) => "remove the blanks from the host name",
        None => "use a URL such as https://auth.amplience.net",
    };
    Err(right.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;
    use crate::error::Kind;

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
    fn a_rejected_value_names_what_is_allowed_and_changes_nothing() {
        let mut config = Config::new();
        config.set("retries", Some("5")).unwrap();
        for (name, value, says) in [
            ("retries", "many", "retries is \"many\"; use a whole number from 0 to 100"),
            ("retries", "-1", "use a whole number"),
            ("timeout_ms", "0", "timeout_ms is \"0\"; use whole milliseconds from 1 to 86400000"),
            ("background_refresh", "maybe", "use true or false"),
            ("auth_url", "http://auth.example", "use https"),
            ("auth_url", "auth.example", "auth_url is not an http or https URL; use a URL such as"),
            ("auth_url", "https://u:p@auth.example", "leave out the user name"),
            ("auth_url", "https://münchen.example/x", "xn--mnchen-3ya.example for münchen.example"),
            ("api_url", "https://münchen.example:8443", "(punycode)"),
            ("proxy", "http://münchen.example:3128", "(punycode)"),
            ("proxy", "münchen.example:3128", "(punycode)"),
            ("store", "rediss://münchen.example", "(punycode)"),
            ("auth_url", "https://auth.example/ü", "percent-encode"),
            ("auth_url", "https://auth.example /x", "remove the blanks from the host name"),
            ("auth_url", "https://auth.example:+443", "use a URL such as"),
            ("auth_url", "https://auth.example:443 :443", "remove the blanks"),
            ("auth_url", "https://auth.example/?a=b", "leave out the query, from ? on"),
            ("auth_url", "https://auth.example/#a", "leave out the fragment, from # on"),
            ("client_secret", "", "client_secret is empty; set AMPLIENCE_CLIENT_SECRET"),
            ("client_id", " ", "client_id is empty"),
            ("store_dir", "~/cache", "store_dir begins with ~, which only a shell expands; use the whole path"),
            ("ca_file", "~", "ca_file begins with ~"),
            ("store", "memcached://x", "use none, file, redis://"),
            ("store", "unix:///run/redis.sock", "Unix sockets"),
            ("store", "redis+unix:///run/redis.sock", "Unix sockets"),
            ("store", "redis-sentinel://h:26379/name", "Sentinel"),
            ("proxy", "gopher://x", "use none, http://host:port"),
            ("user_agent", "a\nb", "use visible ASCII"),
            (
                "credential_command",
                "pass show x",
                "credential_command has spaces or quotation marks, and no shell splits it into words; use a JSON array such as [\"pass\", \"show\", \"amplience\"]",
            ),
            (
                "credential_command",
                "[\"pass\",",
                "credential_command is not an array of strings: it ends too early (line 1, column 8); use a JSON array",
            ),
            (
                "credential_command",
                "[\"pass\" \"hush\"]",
                "credential_command is not an array of strings: expected `,` or `]` (line 1, column 9); use",
            ),
            ("credential_command", "[\"pass\", 1]", "a value has another type than expected (line 1, column 10)"),
            ("credential_command", "[]", "credential_command names no program"),
            ("credential_command", "[\" \"]", "credential_command names no program"),
            ("credential_command", "[\"a\\u0000\"]", "credential_command contains a NUL character"),
            (
                "credential_command",
                "~/bin/secret",
                "credential_command begins with ~, which only a shell expands; use the whole path",
            ),
            (
                "credential_command",
                "./secret",
                "credential_command has a relative path; use the whole path, or a name that is looked for in PATH",
            ),
            ("nonsense", "1", "there is no setting named \"nonsense\"; use one of client_id, client_secret"),
        ] {
            let error = config.set(name, Some(value)).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidArgument);
            assert!(error.to_string().contains(says), "{error}");
        }
        assert_eq!(config.text("retries"), Some("5"));
        assert_eq!(config.text("client_secret"), None);
    }

    #[test]
    fn a_mistyped_name_is_reported_with_the_one_that_was_meant() {
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
            let says = format!("there is no setting named {typed:?}; did you mean {meant}? The others are ");
            assert!(text.starts_with(&says), "{text}");
            // All others are listed; this one is not repeated.
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
            "tenant_of_mine",
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
        assert!(error.to_string().starts_with("there is no setting of that name; use one of"), "{error}");
        for name in ["timeout_ms", "retries", "background_refresh", "store"] {
            let error = Config::new().set(name, Some("S3cret-that-is-long-enough-0123456789")).unwrap_err().to_string();
            assert!(!error.contains("S3cret"), "{error}");
        }
    }

    /// A path may hold anything, so a valid URL is redacted as well.
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
        for spelling in ["SOCKS5H://h:1", "socks://h", "HTTP://h\n", " h:1 ", "NONE"] {
            config.set("proxy", Some(spelling)).unwrap();
        }
        config.set("proxy", Some("http://user:hush@proxy:3128")).unwrap();
        assert!(!format!("{config:?} {:?}", config.options().unwrap()).contains("hush"));
    }
}
