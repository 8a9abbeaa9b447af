//! The settings of one run, from the options, then the environment, then the defaults of the command.

use crate::cli;
use crate::exit::{CliError, CliResult, eprintln_prefixed};
use amp_token::config::profiles::Profile;
use amp_token::config::settings::{SETTINGS, Setting, ValueType, edit_distance, nearest};
use amp_token::config::{Config, Origin};
use amp_token::log::{Level, Log};
use amp_token::sanitize::sanitize;
use clap::ArgMatches;
use std::borrow::Cow;
use std::cell::OnceCell;
use std::ffi::OsString;

/// The settings of one run, and which of them are defaults of the command.
pub struct Context {
    /// The settings.
    pub config: Config,
    /// The settings that the command sets by default.
    defaults: Vec<&'static str>,
}

impl Context {
    /// Reads the options before and after the name of the command. The latter take precedence.
    pub fn new(before: &ArgMatches, after: &ArgMatches) -> CliResult<Self> {
        Context::with(before, after, |config| Ok(config.with_profile()?.into_owned()))
    }

    /// The same, for a command that works without the profile, or reports itself what is wrong with it.
    pub fn with_any_profile(before: &ArgMatches, after: &ArgMatches) -> CliResult<Self> {
        Context::with(before, after, |config| {
            Ok(config.with_profile().map_or_else(|_| config.clone(), Cow::into_owned))
        })
    }

    fn with(
        before: &ArgMatches,
        after: &ArgMatches,
        apply_profile: fn(&Config) -> CliResult<Config>,
    ) -> CliResult<Self> {
        let mut config = Config::new();
        let level = log_level(after);
        config.log = log().with_level(level.map_or(Some(Level::Warning), |level| Level::parse(level).flatten()));
        for setting in SETTINGS.iter().filter(|setting| setting.value_type != ValueType::Secret) {
            if setting.value_type == ValueType::Path {
                let path = |matches: &ArgMatches| matches.try_get_one::<OsString>(setting.name).ok().flatten().cloned();
                if let Some(path) = path(after).or_else(|| path(before)) {
                    config.set_path(setting.name, &path)?;
                }
                continue;
            }
            let value = |matches: &ArgMatches| matches.try_get_one::<String>(setting.name).ok().flatten().cloned();
            let Some(text) = value(after).or_else(|| value(before)) else { continue };
            if setting.value_type.is_secret() && text.contains('@') {
                return Err(cli::secret_in_argv(setting));
            }
            config.set(setting.name, Some(&text))?;
        }
        if let Some(seconds) = after.try_get_one::<u64>(cli::MIN_VALIDITY).ok().flatten() {
            config.set("min_validity_ms", Some(&seconds.saturating_mul(1000).to_string()))?;
        }
        config.load()?;
        config.prefer_config_file()?;
        let mut config = apply_profile(&config)?;
        if let Some(level) = level {
            config.set("log_level", Some(level))?;
        }
        let mut defaults = Vec::new();
        for (name, value) in [("store", cli::DEFAULT_STORE), ("log_level", cli::DEFAULT_LOG_LEVEL)] {
            if config.text(name).is_none() {
                config.set(name, Some(value))?;
                defaults.push(name);
            }
        }
        Ok(Context { config, defaults })
    }

    /// The log for the lines of a command, up to the level that is set.
    pub fn log(&self) -> Log {
        let level = self.config.text("log_level").and_then(Level::parse).unwrap_or_default();
        self.config.log.clone().with_level(level)
    }

    /// The settings for a command that reports itself what is wrong with the store, and the problems.
    pub fn with_store_problems(&self) -> CliResult<(Config, StoreProblems)> {
        /// More lines than a command makes.
        const LINES: usize = 4096;
        let (mut config, others) = (self.config.clone(), self.log());
        config.log = Log::default();
        config.log.keep_lines(LINES);
        if matches!(config.text("log_level").map(Level::parse), Some(Some(None | Some(Level::Error)))) {
            config.set("log_level", Some(cli::DEFAULT_LOG_LEVEL))?;
        }
        let problems = StoreProblems { lines: config.log.clone(), others, first: OnceCell::new() };
        Ok((config, problems))
    }

    /// Where the value of a setting comes from, for `config`.
    pub fn origin(&self, setting: &Setting) -> String {
        match self.config.origin(setting.name) {
            Some(Origin::Set) if self.defaults.contains(&setting.name) => "default".to_owned(),
            Some(Origin::Set) => "option".to_owned(),
            Some(Origin::Environment(variable)) => variable.to_owned(),
            Some(Origin::Profile) => self.config.profile().map_or_else(String::new, Profile::describe),
            None => "default".to_owned(),
        }
    }
}

/// The warnings of a store, by which it reports why it cannot be used.
pub struct StoreProblems {
    /// Keeps all lines of the store's configuration.
    lines: Log,
    /// The log for all other lines.
    others: Log,
    first: OnceCell<String>,
}

impl StoreProblems {
    /// The first of them, without what it means for a caller that can do without a store. What is wrong with an entry
    /// is no problem of the store: the entry counts as absent.
    pub fn first(&self) -> Option<&str> {
        while let Some((level, line)) = self.lines.take_line() {
            match line.strip_prefix("store: ") {
                Some(problem) if level == Level::Warning && !problem.starts_with("an entry ") => {
                    let problem = problem.split_once("; continuing").map_or(problem, |(problem, _)| problem);
                    self.first.get_or_init(|| problem.to_owned());
                }
                _ => self.others.write(level, || line),
            }
        }
        self.first.get().map(String::as_str)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        self.config.log.deliver();
    }
}

/// The level that `--verbose` or `--quiet` asks for.
fn log_level(matches: &ArgMatches) -> Option<&'static str> {
    match (matches.get_flag("quiet"), matches.get_count("verbose")) {
        (true, _) => Some("off"),
        (_, 0) => None,
        (_, 1) => Some("info"),
        _ => Some("debug"),
    }
}

/// The log, which writes lines to standard error.
fn log() -> Log {
    Log::new(|level, line| {
        let name = match level {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Info => "info",
            Level::Debug => "debug",
        };
        eprintln_prefixed(&format!("{name}: {line}"));
    })
}

/// The prefix of the environment variables of settings.
const PREFIX: &str = "AMPLIENCE";

/// A warning for each environment variable that resembles one of a setting, but is none.
pub fn misspelled_variables() -> Vec<String> {
    let set = std::env::vars_os().filter(|(_, value)| !value.is_empty());
    let mut lines: Vec<_> = set.filter_map(|(name, _)| misspelled(&name.to_string_lossy())).collect();
    lines.sort();
    lines
}

/// The warning for this variable, if there is one.
fn misspelled(name: &str) -> Option<String> {
    let known = || SETTINGS.iter().flat_map(|setting| setting.environment).copied().chain([cli::TOKEN_VARIABLE]);
    // On Windows the names of variables are not case-sensitive.
    if known().any(|known| name == known || cfg!(windows) && name.eq_ignore_ascii_case(known)) {
        return None;
    }
    let meant = match name.get(..PREFIX.len()) {
        Some(prefix) if prefix.eq_ignore_ascii_case(PREFIX) => {
            let rest = |known: &'static str| known.trim_start_matches(PREFIX);
            let meant = nearest(&name[PREFIX.len()..], known().map(rest));
            Some(meant.and_then(|meant| known().find(|known| rest(known) == meant)))
        }
        // The prefix itself may be misspelled. All other names are of no interest.
        _ => {
            let typo = |known: &&str| name.len().abs_diff(known.len()) <= 2 && edit_distance(name, known) <= 2;
            known().find(typo).map(Some)
        }
    }?;
    let hint = match meant {
        Some(meant) => format!("; did you mean {meant}?"),
        None => "; \"amp-token config --markdown\" lists the variables of all settings".to_owned(),
    };
    Some(format!("{} is not a setting{hint}", sanitize(name, &[])))
}

/// Rejects the options for settings, which can stand before every command, for a command without settings.
pub fn reject_settings(before: &ArgMatches, command: &str) -> CliResult<()> {
    match SETTINGS.iter().find(|setting| before.try_contains_id(setting.name).unwrap_or(false)) {
        Some(setting) => Err(CliError::usage(format!("{} cannot be used with {command}", cli::option(setting)))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_variable_is_reported_with_the_one_that_was_meant() {
        for (name, meant) in [
            ("AMPLIENCE_CLIENTID", "AMPLIENCE_CLIENT_ID"),
            ("AMPLIENCE_CLIENT_IDS", "AMPLIENCE_CLIENT_ID"),
            ("AMPLIENCE_CLEINT_SECRET", "AMPLIENCE_CLIENT_SECRET"),
            ("AMPLIENCE_SECRET", "AMPLIENCE_CLIENT_SECRET"),
            ("AMPLIENCE_TIMEOUT", "AMPLIENCE_TIMEOUT_MS"),
            ("AMPLIENCE_PATS", "AMPLIENCE_PAT"),
            ("AMPLIENCE-CLIENT-ID", "AMPLIENCE_CLIENT_ID"),
            ("AMPLIENCECLIENT_ID", "AMPLIENCE_CLIENT_ID"),
            ("AMPLIANCE_CLIENT_ID", "AMPLIENCE_CLIENT_ID"),
            ("AMPLIENC_STORE", "AMPLIENCE_STORE"),
        ] {
            assert_eq!(misspelled(name), Some(format!("{name} is not a setting; did you mean {meant}?")));
        }
        let lower = misspelled("amplience_client_id");
        assert_eq!(lower.is_some(), cfg!(unix), "{lower:?}");
        let unlike = misspelled("AMPLIENCE_HUB_ID").unwrap();
        assert!(unlike.starts_with("AMPLIENCE_HUB_ID is not a setting; "), "{unlike}");
    }

    #[test]
    fn credentials_of_options_and_of_the_environment_are_not_mixed() {
        const ENVIRONMENT: [(&str, &str); 2] = [("AMPLIENCE_CLIENT_ID", "its"), ("AMPLIENCE_CLIENT_SECRET", "its")];
        let run = |options: &[(&str, &str)], variables: &[(&str, &str)]| {
            let variable = |name: &str| variables.iter().find(|(have, _)| *have == name).map(|(_, value)| value.into());
            let mut config = Config::new();
            options.iter().for_each(|(name, value)| config.set(name, Some(value)).unwrap());
            config.load_from(variable).unwrap();
            config.prefer_config_file().unwrap();
            let text = |name: &str| config.text(name).unwrap_or("-").to_owned();
            let warned = !config.unused().is_empty();
            (text("client_id"), text("client_secret"), text("personal_access_token"), warned)
        };
        let result =
            |id: &str, secret: &str, pat: &str, warned| (id.to_owned(), secret.to_owned(), pat.to_owned(), warned);
        let (file, other) = (("config_file", "f"), ("client_id", "other"));
        assert_eq!(run(&[], &ENVIRONMENT), result("its", "its", "-", false));
        assert_eq!(run(&[file], &ENVIRONMENT), result("-", "-", "-", false));
        assert_eq!(run(&[file, other], &ENVIRONMENT), result("other", "-", "-", false));
        assert_eq!(run(&[file], &[("AMPLIENCE_PAT", "p")]), result("-", "-", "-", false));
        assert_eq!(run(&[other], &ENVIRONMENT), result("other", "-", "-", true));
        assert_eq!(run(&[("client_id", "its")], &ENVIRONMENT), result("its", "its", "-", false));
        // A secret without an id is the option's.
        assert_eq!(run(&[other], &ENVIRONMENT[1..]), result("other", "its", "-", false));
    }

    #[test]
    fn other_variables_are_not_reported() {
        let known = SETTINGS.iter().flat_map(|setting| setting.environment).copied();
        let long = "A".repeat(100_000);
        for name in
            known.chain([cli::TOKEN_VARIABLE, "", "PATH", "CLIENT_ID", "AMPLIFY_CLIENT_ID", "APPLIANCE_ID", "é", &long])
        {
            assert_eq!(misspelled(name), None);
        }
    }
}
