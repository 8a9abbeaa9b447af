//! Profiles: several accounts of one user, by name.
//!
//! A profile is a section of `config.toml`, which may have any setting, or a hub in dc-cli's `hubs.json`, which has
//! credentials. A name must lead to one of them: where it does not, that is an error and not a choice.

use super::dc_cli::{self, Hub};
use super::environment::Environment;
use super::file_access::{others_who_can_write, report_if_readable_by_others};
use super::settings::{SETTINGS, ValueType, index_of, nearest, validate};
use super::text::trim_text;
use super::toml::{self, Entry, Invalid, Section, Value};
use crate::error::{Error, Kind, Result, resource_limit};
use crate::log::Log;
use crate::sanitize::sanitize;
use crate::sys::deadline::IoDeadline;
use crate::sys::read_file::{FileContent, read_file};
use crate::sys::secret::Secret;
use std::borrow::Cow;
use std::fs::{File, Metadata};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::Zeroizing;

/// The largest `config.toml`, in bytes: some thousand settings.
const CONFIG_LIMIT: usize = 64 * 1024;

/// The largest file of dc-cli, in bytes.
const HUBS_LIMIT: usize = 1024 * 1024;

/// The section that is used if no profile is named.
pub const DEFAULT: &str = "default";

/// Sections and hubs that can be named in one message.
const MOST_NAMED: usize = 10;

/// A profile that was found.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Its name: that of the section, or the name or ID by which the hub was chosen.
    pub name: String,
    /// The file that it is in.
    pub file: PathBuf,
    /// What it has.
    pub(super) content: Content,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    /// Settings, by their rows, and their values.
    Section(Vec<(usize, Secret)>),
    /// The credentials of a hub, which are read when they are needed.
    Hub {
        /// Its ID, or its name if it has none.
        key: String,
    },
}

impl Profile {
    /// Its name and file, for messages.
    pub fn describe(&self) -> String {
        format!("profile {} in {}", sanitize(&self.name, &[]), display(&self.file))
    }

    /// What is different for any two profiles.
    pub(crate) fn identity(&self) -> String {
        match &self.content {
            Content::Section(_) => format!("section {}", self.name),
            Content::Hub { key } => format!("hub {key}"),
        }
    }
}

/// One row of `amp-token profiles`.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The name of the section or hub.
    pub name: String,
    /// The ID of the hub.
    pub hub_id: Option<String>,
    /// The client id, if it is in the file.
    pub client_id: Option<String>,
    /// The file that it is in.
    pub file: PathBuf,
    /// The setting by which it has credentials; none if it has none.
    pub credentials: Option<&'static str>,
}

/// All profiles, those of `config.toml` first.
pub fn list(environment: &Environment, timeout: Duration, log: &Log) -> Result<Vec<Listed>> {
    let files = Files::new(environment);
    let deadline = IoDeadline::after(timeout);
    let mut listed = Vec::new();
    if let Some(file) = &files.config
        && let Some(content) = read(file, deadline)?
    {
        for section in parse(file, &content, log)? {
            let client_id = section.entries.iter().find_map(|entry| match &entry.value {
                Value::Text(text) if entry.name == "client_id" => Some(trim_text(text).to_owned()),
                _ => None,
            });
            listed.push(Listed {
                hub_id: None,
                client_id,
                credentials: super::sources::SECRETS
                    .into_iter()
                    .find(|name| section.entries.iter().any(|entry| entry.name == *name)),
                name: section.name,
                file: file.clone(),
            });
        }
    }
    if let Some(file) = &files.hubs {
        listed.extend(read_hubs(file, deadline, log)?.into_iter().filter(Hub::is_usable).map(|hub| Listed {
            name: hub.name().or(hub.id()).unwrap_or_default().to_owned(),
            hub_id: hub.id().map(str::to_owned),
            client_id: hub.client_id().map(str::to_owned),
            file: file.clone(),
            credentials: Some(if hub.has_personal_access_token() { "personal_access_token" } else { "client_secret" }),
        }));
    }
    Ok(listed)
}

/// The profile of this name, or the section `default` if it exists and there is no name.
pub(super) fn find(
    name: Option<&str>,
    environment: &Environment,
    deadline: IoDeadline,
    log: &Log,
) -> Result<Option<Profile>> {
    let files = Files::new(environment);
    let wanted = name.unwrap_or(DEFAULT);
    let (mut section, mut names) = (None, Vec::new());
    if let Some(file) = &files.config
        && let Some(content) = read(file, deadline)?
    {
        for candidate in parse(file, &content, log)? {
            if candidate.name == wanted {
                section = Some(profile(candidate, file, &content)?);
            } else {
                names.push(candidate.name);
            }
        }
    }
    if name.is_none() {
        return Ok(section);
    }
    let hubs = match &files.hubs {
        Some(file) => match read_hubs(file, deadline, log) {
            Ok(hubs) => hubs.into_iter().filter(Hub::is_usable).collect(),
            Err(error) if section.is_some() => {
                log.warning(|| error.to_string());
                Vec::new()
            }
            Err(error) => return Err(error),
        },
        None => Vec::new(),
    };
    let file = files.hubs.clone().unwrap_or_default();
    let matching: Vec<_> = hubs.iter().filter(|hub| hub.is_called(wanted)).collect();
    let shown = sanitize(wanted, &[]);
    if let (Some(section), Some(_)) = (&section, matching.first()) {
        let message =
            format!("profile {shown} is both a section of {} and a hub in {}", display(&section.file), display(&file));
        return Err(Error::new(Kind::Config, message).with_hint("rename the section, or use the ID of the hub"));
    }
    if let Some(section) = section {
        return Ok(Some(section));
    }
    match matching.as_slice() {
        [] => {
            names.extend(hubs.iter().filter_map(|hub| hub.name().or(hub.id()).map(str::to_owned)));
            Err(unknown(&shown, wanted, &files, &names))
        }
        [first, others @ ..] if others.iter().all(|other| other.is_same(first)) => {
            let key = first.id().or(first.name()).unwrap_or_default().to_owned();
            Ok(Some(Profile { name: wanted.to_owned(), file, content: Content::Hub { key } }))
        }
        several => {
            let ids: Vec<_> = several.iter().filter_map(|hub| hub.id()).map(|id| sanitize(id, &[])).collect();
            let message = format!("profile {shown} is the name or ID of {} hubs in {}", several.len(), display(&file));
            let hint = match several.iter().any(|hub| hub.id() == Some(wanted)) {
                true => "rename one of them, or add the hub again with dc-cli".to_owned(),
                false => format!("use the ID of one of them: {}", ids.join(", ")),
            };
            Err(Error::new(Kind::Config, message).with_hint(hint))
        }
    }
}

/// The error for a name that no profile has.
fn unknown(shown: &str, wanted: &str, files: &Files, names: &[String]) -> Error {
    let looked: Vec<_> = files.config.iter().chain(&files.hubs).map(|file| display(file)).collect();
    if looked.is_empty() {
        let message = format!("profile {shown} cannot be found: the home directory is not known");
        let hint = "set HOME; a program with raised privileges (setuid) has no profiles";
        return Error::new(Kind::Config, message).with_hint(hint);
    }
    let mut listed: Vec<_> = names.iter().take(MOST_NAMED).map(|name| sanitize(name, &[])).collect();
    if names.len() > MOST_NAMED {
        listed.push("…".to_owned());
    }
    let hint = match nearest(wanted, names.iter().map(String::as_str)) {
        Some(meant) => format!("did you mean {}?", sanitize(meant, &[])),
        None if names.is_empty() => "there are no profiles yet".to_owned(),
        None => format!("the profiles are {}", listed.join(", ")),
    };
    Error::new(Kind::Config, format!("there is no profile {shown} in {}", looked.join(" or "))).with_hint(hint)
}

/// The files with profiles.
struct Files {
    config: Option<PathBuf>,
    hubs: Option<PathBuf>,
}

impl Files {
    fn new(environment: &Environment) -> Self {
        let home = environment.home();
        let directory = if cfg!(windows) {
            environment.directory("APPDATA")
        } else {
            // The specification of the variable: relative paths are to be ignored.
            let set = environment.directory("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
            set.or_else(|| Some(home.as_ref()?.join(".config")))
        };
        Files {
            config: directory.map(|directory| directory.join("amp-token").join("config.toml")),
            hubs: home.map(|home| home.join(dc_cli::HUBS)),
        }
    }
}

/// The content of `config.toml`, and who else can change it.
struct ConfigText {
    text: Zeroizing<String>,
    opened: File,
    about: Metadata,
    /// Why its commands are not run.
    writable: Option<String>,
}

/// Reads `config.toml`; `None` if it does not exist.
fn read(file: &Path, deadline: IoDeadline) -> Result<Option<ConfigText>> {
    let Some(FileContent { bytes, about, opened }) = read_existing(file, CONFIG_LIMIT, deadline)? else {
        return Ok(None);
    };
    let Ok(text) = std::str::from_utf8(&bytes) else {
        return Err(Error::new(Kind::Config, format!("{} is not UTF-8", display(file)))
            .with_hint("save it in UTF-8 with a text editor"));
    };
    let text = Zeroizing::new(text.strip_prefix('\u{feff}').unwrap_or(text).to_owned());
    Ok(Some(ConfigText { text, writable: others_who_can_write(&about, file), opened, about }))
}

fn read_hubs(file: &Path, deadline: IoDeadline, log: &Log) -> Result<Vec<Hub>> {
    let Some(FileContent { bytes, about, opened }) = read_existing(file, HUBS_LIMIT, deadline)? else {
        return Ok(Vec::new());
    };
    report_if_readable_by_others(&opened, &about, file, log);
    dc_cli::hubs(&bytes, &display(file))
}

fn read_existing(file: &Path, limit: usize, deadline: IoDeadline) -> Result<Option<FileContent>> {
    match read_file(file, limit, deadline) {
        Ok(content) if content.bytes.len() > limit => {
            Err(Error::new(Kind::Config, format!("{} is larger than {limit} bytes", display(file)))
                .with_hint("check the path"))
        }
        Ok(content) => Ok(Some(content)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) if error.kind() == ErrorKind::TimedOut => {
            let message = format!("reading {} timed out after {deadline}", display(file));
            Err(Error::new(Kind::Timeout, message)
                .with_hint("check the file server that it is on; or raise timeout_ms"))
        }
        Err(error) => {
            let advice = resource_limit(&error).map_or("check the path and its permissions", |(_, advice)| advice);
            Err(Error::new(Kind::Io, format!("cannot read {}: {error}", display(file))).with_hint(advice))
        }
    }
}

/// The sections of the file.
fn parse(file: &Path, content: &ConfigText, log: &Log) -> Result<Vec<Section>> {
    let sections = toml::parse(&content.text).map_err(|Invalid { problem, line, column }| {
        let message = format!("{} cannot be used: {problem} (line {line}, column {column})", display(file));
        Error::new(Kind::Config, message).with_hint(
            "it has a section for each profile, such as [production], and below it lines such as client_id = \"…\"",
        )
    })?;
    let mut entries = sections.iter().flat_map(|section| &section.entries);
    if entries.any(|entry| ["client_secret", "personal_access_token"].contains(&entry.name.as_str())) {
        report_if_readable_by_others(&content.opened, &content.about, file, log);
    }
    Ok(sections)
}

/// The profile in a section, whose settings are checked.
fn profile(section: Section, file: &Path, content: &ConfigText) -> Result<Profile> {
    let invalid = |line: usize, problem: &str, hint: &str| {
        let message = format!("{problem} ({}, line {line})", display(file));
        Error::new(Kind::Config, message).with_hint(hint)
    };
    let mut values = Vec::new();
    for Entry { name, line, value } in &section.entries {
        let row = index_of(name).map_err(|error| {
            let text = error.to_string();
            let (problem, hint) = text.split_once("; ").unwrap_or((&text, ""));
            invalid(*line, problem, hint)
        })?;
        let setting = &SETTINGS[row];
        if setting.name == "profile" {
            return Err(invalid(*line, "a profile cannot name another one", "remove it"));
        }
        let text = match (value, setting.value_type) {
            (Value::Text(text), _) => text.clone(),
            // As it is set elsewhere. Strings can always be written as JSON.
            (Value::Strings(parts), ValueType::Command) => {
                Zeroizing::new(serde_json::to_string(&**parts).unwrap_or_default())
            }
            (_, value_type) => {
                let expected = match value_type {
                    ValueType::Command => "a string or an array of strings",
                    ValueType::Milliseconds(..) | ValueType::Count(_) => "a whole number",
                    ValueType::Flag => "true or false",
                    _ => "a string",
                };
                let problem = format!("{} has a value of another type than expected", setting.name);
                return Err(invalid(*line, &problem, &format!("use {expected}")));
            }
        };
        if let (ValueType::Command, Some(writable)) = (setting.value_type, &content.writable) {
            let problem = format!("{} is not used: {writable}", setting.name);
            let hint = "run chmod go-w on it, so that nobody else chooses what you run";
            return Err(invalid(*line, &problem, hint));
        }
        // The path of a file is relative to this one.
        let text: Cow<str> = match setting.value_type {
            ValueType::Path if Path::new(text.as_str()).is_relative() && !text.starts_with('~') => {
                let whole = file.parent().map(|directory| directory.join(text.as_str()));
                whole.and_then(|path| path.to_str().map(str::to_owned)).unwrap_or_default().into()
            }
            ValueType::Path => text.as_str().into(),
            _ => trim_text(&text).into(),
        };
        validate(setting, &text)
            .map_err(|(problem, hint)| invalid(*line, &format!("{} {problem}", setting.name), &hint))?;
        values.push((row, Secret::from(&*text)));
    }
    Ok(Profile { name: section.name, file: file.to_owned(), content: Content::Section(values) })
}

/// The profiles in a text, with their settings; for the fuzzer.
#[cfg(fuzzing)]
pub fn parse_profiles(text: &str) -> Result<Vec<(String, Vec<(&'static str, Secret)>)>> {
    let file = Path::new("/home/me/config.toml");
    // Any file will do: who can read it is not what is tested.
    let opened = File::open("/dev/null").map_err(|error| Error::new(Kind::Io, error.to_string()))?;
    let about = opened.metadata().map_err(|error| Error::new(Kind::Io, error.to_string()))?;
    let content = ConfigText { text: Zeroizing::new(text.to_owned()), opened, about, writable: None };
    let mut found = Vec::new();
    for section in parse(file, &content, &Log::default())? {
        let Profile { name, content: Content::Section(values), .. } = profile(section, file, &content)? else {
            continue;
        };
        found.push((name, values.into_iter().map(|(row, value)| (SETTINGS[row].name, value)).collect()));
    }
    Ok(found)
}

fn display(file: &Path) -> String {
    sanitize(&file.display().to_string(), &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_amp_config_set() {
        let text = "[p]\ntimeout_ms = 5_000\nbackground_refresh = true\nclient_id = ' i '\nretries = \"2\"\n\
                    credential_command = [\"a b\", 'c\"d']\nclient_secret_file = 'keys/s'\nca_file = '/etc/ca'\n";
        let program = std::env::current_exe().unwrap();
        let (opened, about) = (File::open(&program).unwrap(), program.metadata().unwrap());
        let content = ConfigText { text: Zeroizing::new(text.to_owned()), opened, about, writable: None };
        let file = Path::new("/home/me/config.toml");
        let section = parse(file, &content, &Log::default()).unwrap().remove(0);
        let Content::Section(values) = profile(section, file, &content).unwrap().content else { panic!() };
        let values: Vec<_> = values.iter().map(|(row, value)| (SETTINGS[*row].name, value.expose())).collect();
        // On Windows, it is joined by a backslash.
        let secret_file = Path::new("/home/me").join("keys/s");
        let expected = [
            ("timeout_ms", "5000"),
            ("background_refresh", "true"),
            ("client_id", "i"),
            ("retries", "2"),
            ("credential_command", r#"["a b","c\"d"]"#),
            ("client_secret_file", secret_file.to_str().unwrap()),
            ("ca_file", "/etc/ca"),
        ];
        assert_eq!(values, expected);
    }
}
