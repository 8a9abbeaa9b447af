//! The settings of one run: options, then the environment, then the defaults of the command line.

use crate::arguments;
use crate::failure::{Failure, Outcome, tell};
use amp_token::log::{Level, Log};
use amp_token::settings::{Config, Origin, SETTINGS, Setting, Type};
use clap::ArgMatches;

/// The default of `store` here. A library must not write files unasked; but of a command that is
/// started a thousand times in a build, every call would ask for a token of its own.
pub const STORE: &str = "file";

/// See the module's documentation.
pub struct Session {
    /// The settings.
    pub config: Config,
    store_by_default: bool,
}

impl Session {
    /// Takes the options from before and after the command's name; the latter win.
    pub fn new(before: &ArgMatches, after: &ArgMatches) -> Outcome<Self> {
        let mut config = Config::new();
        config.log = log(after);
        for setting in SETTINGS.iter().filter(|setting| setting.kind != Type::Secret) {
            let value = |matches: &ArgMatches| matches.try_get_one::<String>(setting.name).ok().flatten().cloned();
            let Some(text) = value(after).or_else(|| value(before)) else { continue };
            if setting.kind.is_secret() && text.contains('@') {
                return Err(arguments::shows_secret(setting));
            }
            config.set(setting.name, Some(&text))?;
        }
        if let Some(seconds) = after.try_get_one::<u64>(arguments::MIN_VALIDITY).ok().flatten() {
            config.set("min_validity_ms", Some(&seconds.saturating_mul(1000).to_string()))?;
        }
        config.load()?;
        let store_by_default = config.text("store").is_none();
        if store_by_default {
            config.set("store", Some(STORE))?;
        }
        Ok(Session { config, store_by_default })
    }

    /// Where the value of a setting is from, in words.
    pub fn origin(&self, setting: &Setting) -> String {
        match self.config.origin(setting.name) {
            Some(Origin::Set) if setting.name == "store" && self.store_by_default => "default".to_owned(),
            Some(Origin::Set) => "option".to_owned(),
            Some(Origin::Environment(variable)) => variable.to_owned(),
            None => "default".to_owned(),
        }
    }
}

/// Log lines go to standard error, as many as were asked for. Failures (`Level::Error`) are told
/// by whoever ends the run, so they are not told twice.
fn log(matches: &ArgMatches) -> Log {
    let most = match (matches.get_flag("quiet"), matches.get_count("verbose")) {
        (true, _) => return Log::default(),
        (_, 0) => Level::Warning,
        (_, 1) => Level::Info,
        _ => Level::Debug,
    };
    Log::to(move |level, line| {
        let name = match level {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Info => "info",
            Level::Debug => "debug",
        };
        if level <= most && (level != Level::Error || most > Level::Warning) {
            tell(&format!("{name}: {line}"));
        }
    })
}

/// Says that an option was given to a command that has no use for it.
pub fn takes_no_settings(before: &ArgMatches, command: &str) -> Outcome<()> {
    match SETTINGS.iter().find(|setting| before.try_contains_id(setting.name).unwrap_or(false)) {
        Some(setting) => {
            Err(Failure::usage(format!("{} means nothing to {command}: leave it out", arguments::option(setting))))
        }
        None => Ok(()),
    }
}
