//! The settings of one client, as strings by name.

use super::environment::{self, Environment};
use super::profiles::{self, Content, Profile};
use super::settings::{SETTINGS, Setting, ValueType, display_value, index_of, problem_with, validate};
use super::sources::{IDS, PERSONAL, SECRETS, conflict, first_of, is_overruled};
use super::text::{BYTE_ORDER_MARK, trim_text};
use crate::error::{Error, Kind, Phase, Result};
use crate::log::Log;
use crate::net::transport::Transport;
use crate::sys::callback_scope::ScopeId;
use crate::sys::clock::Clock;
use crate::sys::deadline::IoDeadline;
use crate::sys::secret::Secret;
use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The program set it.
    Set,
    /// It was read from this environment variable.
    Environment(&'static str),
    /// It is in the profile that is used.
    Profile,
}

impl Origin {
    /// Whether both are of one source.
    pub(super) fn is_like(self, other: Origin) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }
}

/// The settings of one client, and the functions that an application provides.
///
/// It has one owner at a time; a cache copies what it needs.
#[derive(Clone)]
pub struct Config {
    values: Vec<Option<(Secret, Origin)>>,
    /// The paths among them that are not UTF-8. Their values are for messages only.
    raw_paths: Vec<Option<OsString>>,
    /// Whether the environment was loaded.
    loaded: bool,
    /// The profile whose settings are among the values.
    profile: Option<Arc<Profile>>,
    /// Whether the credentials of that profile, a hub, are used.
    uses_hub: bool,
    /// What is not used although it is set, and why: a sentence for the log for each.
    unused: Vec<String>,
    /// Where log lines go.
    pub log: Log,
    /// Sends requests instead of the built-in HTTP client.
    pub transport: Option<Arc<dyn Transport>>,
    /// The source of time.
    pub clock: Clock,
    /// The environment, as it was when the configuration was created or loaded.
    pub environment: Environment,
    /// The identity of the callbacks of this configuration.
    pub scope: ScopeId,
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

impl Config {
    /// A configuration without any value.
    pub fn new() -> Self {
        Config {
            values: vec![None; SETTINGS.len()],
            raw_paths: vec![None; SETTINGS.len()],
            loaded: false,
            profile: None,
            uses_hub: false,
            unused: Vec::new(),
            log: Log::default(),
            transport: None,
            clock: Clock::System,
            environment: Environment::read(),
            scope: ScopeId::unique(),
        }
    }

    /// Sets one value; `None` unsets it. An error changes nothing.
    pub fn set(&mut self, name: &str, value: Option<&str>) -> Result<()> {
        let row = index_of(name)?;
        let checked = match value {
            Some(value) => {
                let value = trimmed(&SETTINGS[row], value);
                validate(&SETTINGS[row], value).map_err(|problem| problem_with(SETTINGS[row].name, problem))?;
                Some((Secret::from(value), Origin::Set))
            }
            None => None,
        };
        self.values[row] = checked;
        self.raw_paths[row] = None;
        Ok(())
    }

    /// Sets the path of a file or directory, which need not be UTF-8.
    pub fn set_path(&mut self, name: &str, value: &OsStr) -> Result<()> {
        if let Some(text) = value.to_str() {
            return self.set(name, Some(text));
        }
        let row = index_of(name)?;
        if SETTINGS[row].value_type != ValueType::Path {
            return Err(Error::invalid(format!("{name} is not UTF-8")).with_hint("use UTF-8"));
        }
        self.set_raw_path(row, value.to_owned(), Origin::Set);
        Ok(())
    }

    fn set_raw_path(&mut self, row: usize, path: OsString, origin: Origin) {
        self.values[row] = Some((Secret::from(path.to_string_lossy().as_ref()), origin));
        self.raw_paths[row] = Some(path);
    }

    /// Reads the settings that are not set from environment variables, but no credentials where those that are set
    /// [come first](super::sources). An empty variable counts as unset. Profiles and files are read later.
    ///
    /// Fails in a process with raised privileges, because to read nothing and report success would mislead.
    pub fn load(&mut self) -> Result<()> {
        if environment::has_raised_privileges() {
            let message = "the environment is not read, because this program runs with raised privileges \
                           (setuid, setgid or file capabilities)";
            return Err(Error::new(Kind::Config, message).with_hint("set the values with amp_config_set"));
        }
        self.environment = Environment::read();
        self.load_from(environment::variable)
    }

    /// [`Config::load`], with the environment as a function.
    pub fn load_from(&mut self, environment: impl Fn(&str) -> Option<OsString>) -> Result<()> {
        let already = self.clone();
        let set_id = first_of(&already, &IDS, None).map(|name| already.text(name).unwrap_or_default());
        // The client to which the secrets of the environment belong.
        let owner = ["AMPLIENCE_CLIENT_ID", "AMPLIENCE_CLIENT_ID_FILE"].into_iter().find_map(|variable| {
            let value = environment(variable).filter(|value| !value.is_empty())?;
            Some((variable, trim_text(&value.to_string_lossy()).to_owned()))
        });
        let other_owner = owner.filter(|(_, owner)| set_id.is_some_and(|id| id != owner));
        for (row, setting) in SETTINGS.iter().enumerate() {
            let overruled = is_overruled(setting.name, &already);
            if let (false, Some((owner, _)), true) = (overruled, &other_owner, SECRETS.contains(&setting.name)) {
                let is_set = |variable: &&&str| environment(variable).is_some_and(|value| !value.is_empty());
                if let Some(variable) = setting.environment.iter().find(is_set) {
                    self.unused.push(format!(
                        "{variable} is not used: it belongs to {owner}, and client_id names another client"
                    ));
                }
                continue;
            }
            if overruled || self.values[row].is_some() {
                continue;
            }
            for &variable in setting.environment {
                let Some(value) = environment(variable).filter(|value| !value.is_empty()) else {
                    continue;
                };
                let value = match (value.into_string(), setting.value_type) {
                    (Ok(value), _) => value,
                    (Err(path), ValueType::Path) => {
                        self.set_raw_path(row, path, Origin::Environment(variable));
                        break;
                    }
                    (Err(_), kind) => {
                        let advice = match kind {
                            ValueType::Proxy => "percent-encode the other bytes (%E9), or unset it",
                            _ => "set it to UTF-8, or unset it",
                        };
                        return Err(Error::new(Kind::Config, format!("{variable} is not UTF-8")).with_hint(advice));
                    }
                };
                let value = zeroize::Zeroizing::new(value);
                let value = trimmed(setting, &value);
                validate(setting, value).map_err(|problem| as_config_error(&problem_with(variable, problem)))?;
                self.values[row] = Some((Secret::from(value), Origin::Environment(variable)));
                break;
            }
        }
        self.loaded = true;
        Ok(())
    }

    /// The same settings with those of the profile that is chosen: a section of `config.toml`, or a hub of dc-cli.
    /// Without `profile`, the section `default` is used if no credentials are set. Reads files, for `timeout_ms` at most.
    ///
    /// Credentials of the profile come before those of the environment if the program has set `profile`, and are an
    /// error beside them if the environment has set it.
    pub fn with_profile(&self) -> Result<Cow<'_, Config>> {
        let name = self.text("profile");
        // The section of those who name none is read only if it is needed, as dc-cli's files are.
        let needs_default = self.loaded && first_of(self, &SECRETS, None).is_none();
        if self.profile.is_some() || (name.is_none() && !needs_default) {
            return Ok(Cow::Borrowed(self));
        }
        let deadline = IoDeadline::after(Duration::from_millis(self.number("timeout_ms")));
        let Some(profile) = profiles::find(name, &self.environment, deadline, &self.log)? else {
            return Ok(Cow::Borrowed(self));
        };
        let mut config = self.clone();
        Ok(if config.apply(profile)? { Cow::Owned(config) } else { Cow::Borrowed(self) })
    }

    /// Returns false for the section `default` if it is of another client than the one that is set.
    fn apply(&mut self, profile: Profile) -> Result<bool> {
        let chosen_by = self.origin("profile");
        let values: &[(usize, Secret)] = match &profile.content {
            Content::Section(values) => values,
            Content::Hub { .. } => &[],
        };
        let value = |name: &str| values.iter().find(|(row, _)| SETTINGS[*row].name == name).map(|(_, value)| value);
        let own_secret = SECRETS.into_iter().find(|name| value(name).is_some());
        let has_secret = own_secret.is_some() || matches!(profile.content, Content::Hub { .. });
        let mut uses_credentials = true;
        if has_secret {
            if chosen_by == Some(Origin::Set) {
                let names = SECRETS.into_iter().chain(IDS).filter(|name| self.is_of_environment(name));
                for name in names.collect::<Vec<_>>() {
                    self.unused.push(format!(
                        "{} is not used: the program has chosen {}",
                        self.describe_setting(name),
                        profile.describe()
                    ));
                    self.set(name, None)?;
                }
            }
            match (first_of(self, &SECRETS, None), chosen_by) {
                (Some(name), Some(by)) if self.origin(name).is_some_and(|origin| origin.is_like(by)) => {
                    let mut whole = profile.describe();
                    if let Some(own) = own_secret {
                        whole = format!("{own} of {whole}");
                    }
                    return Err(conflict(&self.describe_setting(name), &whole));
                }
                (Some(_), _) => uses_credentials = false,
                (None, Some(Origin::Set)) if self.origin("config_file") == Some(Origin::Set) => {
                    return Err(conflict("config_file", &profile.describe()));
                }
                (None, _) => {}
            }
            // An id that is set alone chooses the secret of this client, and of no other.
            let other = |id: &'static str| {
                let set = self.text(id)?;
                let is_other = IDS.iter().any(|name| value(name).is_some_and(|own| *name != id || own.expose() != set));
                is_other.then(|| self.describe_setting(id))
            };
            match IDS.into_iter().find_map(other).filter(|_| uses_credentials) {
                Some(id) if chosen_by.is_some() => {
                    let message = format!("{id} names another client than {}", profile.describe());
                    return Err(
                        Error::new(Kind::Config, message).with_hint("unset it, or choose the profile of that client")
                    );
                }
                Some(_) => return Ok(false),
                None => {}
            }
        }
        for (row, value) in values {
            let name = SETTINGS[*row].name;
            let is_skipped = (SECRETS.contains(&name) || IDS.contains(&name)) && !uses_credentials;
            let is_overruled = IDS.contains(&name) && first_of(self, &PERSONAL, None).is_some();
            if self.values[*row].is_none() && !is_skipped && !is_overruled {
                self.values[*row] = Some((value.clone(), Origin::Profile));
            }
        }
        self.uses_hub = matches!(profile.content, Content::Hub { .. }) && uses_credentials;
        self.profile = Some(Arc::new(profile));
        Ok(true)
    }

    /// The profile whose settings are used, after [`Config::with_profile`].
    pub fn profile(&self) -> Option<&Profile> {
        self.profile.as_deref()
    }

    /// The key of the hub whose credentials are used, and the file that it is in.
    pub(super) fn hub(&self) -> Option<(PathBuf, String)> {
        match self.profile.as_deref() {
            Some(Profile { file, content: Content::Hub { key }, .. }) if self.uses_hub => {
                Some((file.clone(), key.clone()))
            }
            _ => None,
        }
    }

    /// What is not used although it is set, and why.
    pub fn unused(&self) -> &[String] {
        &self.unused
    }

    /// The name of a setting as the user has written it: that of the variable, if it is from the environment.
    pub(super) fn describe_setting(&self, name: &str) -> String {
        match (self.origin(name), self.profile.as_deref()) {
            (Some(Origin::Environment(variable)), _) => variable.to_owned(),
            (Some(Origin::Profile), Some(profile)) => format!("{name} of {}", profile.describe()),
            _ => name.to_owned(),
        }
    }

    /// Removes the credentials that are from the environment, if `config_file` was set and no other source of
    /// credentials: for the command, whose options come before the environment.
    pub fn prefer_config_file(&mut self) -> Result<()> {
        if self.origin("config_file") != Some(Origin::Set) || first_of(self, &SECRETS, Some(Origin::Set)).is_some() {
            return Ok(());
        }
        self.unused.clear();
        for name in SECRETS.into_iter().chain(IDS).filter(|name| self.is_of_environment(name)).collect::<Vec<_>>() {
            self.set(name, None)?;
        }
        Ok(())
    }

    fn is_of_environment(&self, name: &str) -> bool {
        matches!(self.origin(name), Some(Origin::Environment(_)))
    }

    /// Whether [`Config::load`] was called: only then are files read that no setting names.
    pub fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// The value of a setting that was set or loaded; not its default.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.entry(name).map(|(value, _)| value.expose())
    }

    /// The value of a setting as a path.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        let row = SETTINGS.iter().position(|setting| setting.name == name)?;
        match &self.raw_paths[row] {
            Some(path) => Some(path.into()),
            None => self.text(name).map(PathBuf::from),
        }
    }

    /// The same, as a secret that shares its memory with the setting.
    pub fn secret(&self, name: &str) -> Option<Secret> {
        self.entry(name).map(|(value, _)| value.clone())
    }

    /// Where the value of a setting came from; `None` for the default.
    pub fn origin(&self, name: &str) -> Option<Origin> {
        self.entry(name).map(|(_, origin)| *origin)
    }

    fn entry(&self, name: &str) -> Option<&(Secret, Origin)> {
        let row = SETTINGS.iter().position(|setting| setting.name == name)?;
        self.values[row].as_ref()
    }
}

/// A value without what nobody sees and nobody means: white space and a byte order mark around it. Editors, `echo`,
/// `cat` and the variables of build servers add them. A path may begin or end with a space.
fn trimmed<'a>(setting: &Setting, value: &'a str) -> &'a str {
    match setting.value_type {
        ValueType::Path => value.trim_start_matches(BYTE_ORDER_MARK).trim_end_matches(['\r', '\n']),
        _ => trim_text(value),
    }
}

/// The same error as one of the configuration: no caller passed a wrong argument.
fn as_config_error(error: &Error) -> Error {
    Error::new(Kind::Config, error.to_string()).with_phase(Phase::Setup)
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn the_environment_supplies_what_is_not_set() {
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
    fn credentials_that_are_set_exclude_the_other_kind() {
        let environment = &[
            ("AMPLIENCE_PAT", "pat"),
            ("AMPLIENCE_CLIENT_ID", "id"),
            ("AMPLIENCE_CLIENT_SECRET", "secret"),
            ("AMPLIENCE_CLIENT_SECRET_FILE", "/f"),
        ];
        let config = loaded(&[("client_id", "id")], environment);
        assert_eq!(config.text("client_secret"), Some("secret"));
        assert_eq!(config.text("personal_access_token"), None);
        let config = loaded(&[("personal_access_token", "mine")], environment);
        assert_eq!(config.text("client_id"), None);
        assert_eq!(config.text("client_secret"), None);
        let config = loaded(&[("client_id", "mine"), ("client_secret", "mine")], environment);
        assert_eq!(config.text("client_secret_file"), None);
    }

    #[test]
    fn a_secret_of_the_environment_is_used_for_no_other_client() {
        let secret = ("AMPLIENCE_CLIENT_SECRET", "secret");
        for (set, environment, used, warned) in [
            (("client_id", "mine"), vec![secret], true, None),
            (("client_id", "mine"), vec![secret, ("AMPLIENCE_CLIENT_ID", "mine\n")], true, None),
            (("client_id", "mine"), vec![secret, ("AMPLIENCE_CLIENT_ID", "other")], false, Some("AMPLIENCE_CLIENT_ID")),
            (
                ("client_id", "mine"),
                vec![secret, ("AMPLIENCE_CLIENT_ID_FILE", "f")],
                false,
                Some("AMPLIENCE_CLIENT_ID_FILE"),
            ),
            (
                ("client_id_file", "f"),
                vec![secret, ("AMPLIENCE_CLIENT_ID", "other")],
                false,
                Some("AMPLIENCE_CLIENT_ID"),
            ),
            (("client_secret", "mine"), vec![secret, ("AMPLIENCE_CLIENT_ID", "other")], true, None),
        ] {
            let config = loaded(&[set], &environment);
            assert_eq!(config.text("client_secret").is_some(), used, "{set:?} {environment:?}");
            let warning = warned.map(|owner| {
                format!(
                    "AMPLIENCE_CLIENT_SECRET is not used: it belongs to {owner}, and client_id names another client"
                )
            });
            assert_eq!(config.unused(), warning.as_slice());
        }
    }

    #[test]
    fn what_nobody_sees_around_a_value_is_removed() {
        for around in [" ", "\n", "\r\n", "\t", "\u{feff}", "\u{feff} \r\n", "\u{a0}"] {
            for (before, after) in [("", around), (around, ""), (around, around)] {
                let value = |text: &str| format!("{before}{text}{after}");
                let (id, secret, url) = (value("i d"), value("se cret"), value("http://127.0.0.1:1"));
                let environment =
                    [("AMPLIENCE_CLIENT_ID", id), ("AMPLIENCE_CLIENT_SECRET", secret), ("AMPLIENCE_AUTH_URL", url)];
                let variables: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
                let config = loaded(&[], &variables);
                let mut set = Config::new();
                for (variable, value) in &variables {
                    set.set(&variable["AMPLIENCE_".len()..].to_lowercase(), Some(value)).unwrap();
                }
                for config in [config, set] {
                    assert_eq!(config.text("client_id"), Some("i d"), "{around:?}");
                    assert_eq!(config.text("client_secret"), Some("se cret"), "{around:?}");
                    assert_eq!(config.text("auth_url"), Some("http://127.0.0.1:1"), "{around:?}");
                }
            }
        }
        let config = loaded(&[("ca_file", " a \r\n")], &[("AMPLIENCE_STORE_DIR", "\u{feff}/b\n")]);
        assert_eq!((config.text("ca_file"), config.text("store_dir")), (Some(" a "), Some("/b")));
        let empty = Config::new().load_from(|name| (name == "AMPLIENCE_CLIENT_ID").then(|| "\u{feff}\n".into()));
        assert!(empty.unwrap_err().to_string().starts_with("AMPLIENCE_CLIENT_ID is empty"));
    }

    #[test]
    fn a_bad_variable_is_named() {
        let error = Config::new().load_from(|name| (name == "AMPLIENCE_RETRIES").then(|| "x".into())).unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        assert!(error.to_string().starts_with("AMPLIENCE_RETRIES is \"x\""), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_variable_that_is_not_utf8_is_an_error_unless_it_is_a_path() {
        use std::os::unix::ffi::OsStringExt;
        let rows =
            SETTINGS.iter().flat_map(|setting| setting.environment.iter().map(move |variable| (setting, *variable)));
        for (setting, variable) in rows {
            if setting.value_type == ValueType::Path {
                let path = OsString::from_vec(b"/caf\xe9".to_vec());
                let mut config = Config::new();
                config.load_from(|name| (name == variable).then(|| path.clone())).unwrap();
                assert_eq!(config.path(setting.name), Some(PathBuf::from(&path)));
                assert_eq!(config.text(setting.name), Some("/caf\u{fffd}"));
                config.set_path(setting.name, OsStr::new("/x")).unwrap();
                assert_eq!(config.path(setting.name), Some("/x".into()));
                config.set_path(setting.name, &path).unwrap();
                assert_eq!(config.path(setting.name), Some(path.into()));
                config.set(setting.name, None).unwrap();
                assert_eq!(config.path(setting.name), None);
                continue;
            }
            let value = |name: &str| (name == variable).then(|| OsString::from_vec(b"http://m\xe9:hush@h".to_vec()));
            let error = Config::new().load_from(value).unwrap_err();
            assert_eq!(error.kind(), Kind::Config);
            let error = error.to_string();
            assert!(error.starts_with(&format!("{variable} is not UTF-8")) && !error.contains("hush"), "{error}");
            assert_eq!(error.contains("percent-encode"), variable == "AMPLIENCE_PROXY", "{error}");
        }
    }
}
