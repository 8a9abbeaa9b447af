//! The report of `amp-token doctor`: about this machine, and a line for each step.
//!
//! The lines are printed as they are known, because a step may take long. With `--json` all of it is one object,
//! which is printed at the end.

use crate::exit::{CliError, CliResult, status_of};
use crate::output;
use amp_token::error::{Error, Result};
use amp_token::net::proxy::{self, ProxyUrl};
use amp_token::sanitize::sanitize;
use serde_json::{Value, json};
use std::env::consts::{ARCH, OS};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

/// The variables whose values decide where the certificates to trust are.
const CERTIFICATES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Why no further step is checked.
pub enum Abort {
    /// A step has failed, and its line is printed.
    Failed,
    /// Nothing more can be printed.
    Output(CliError),
}

/// The result of a step.
pub type CheckResult<T> = std::result::Result<T, Abort>;

/// Prints a line for each step, and keeps the exit status of the first failure.
pub struct Report {
    colour: bool,
    status: u8,
    /// The steps, if they are printed as JSON.
    steps: Option<Vec<Value>>,
    about: About,
}

impl Report {
    /// Prints the line about this machine, which a reader elsewhere needs.
    pub fn start(as_json: bool) -> CliResult<Self> {
        let about = About::this_process();
        if !as_json {
            output::answer(&about.to_line())?;
        }
        Ok(Report { colour: output::is_colourful(), status: 0, steps: as_json.then(Vec::new), about })
    }

    /// Ends the report. `end` is how the last step ended.
    pub fn finish(self, end: CheckResult<()>) -> CliResult<ExitCode> {
        if let Err(Abort::Output(error)) = end {
            return Err(error);
        }
        if let Some(steps) = self.steps {
            let report = json!({ "about": self.about.to_json(), "steps": steps, "status": self.status });
            output::answer(&output::json(&report))?;
        }
        Ok(ExitCode::from(self.status))
    }

    fn line(&mut self, (mark, code): (&str, &str), name: &str, took: Option<Duration>, text: &str) -> CheckResult<()> {
        let milliseconds = took.map(|took| (took.as_secs_f64() * 10_000.0).round() / 10.0);
        if let Some(steps) = &mut self.steps {
            let result = if mark == "-" { "skipped".to_owned() } else { mark.to_lowercase() };
            steps.push(json!({ "step": name, "result": result, "milliseconds": milliseconds, "text": text }));
            return Ok(());
        }
        let mark = format!("{mark:<7}");
        let mark = if self.colour { format!("\x1b[{code}m{mark}\x1b[0m") } else { mark };
        let took = milliseconds.map_or_else(String::new, |took| format!("{took:.1} ms"));
        output::answer(&format!("{mark} {name:<12} {took:>10}  {text}\n")).map_err(Abort::Output)
    }

    pub fn pass(&mut self, name: &str, took: Option<Duration>, text: &str) -> CheckResult<()> {
        self.line(("ok", "32"), name, took, text)
    }

    pub fn warn(&mut self, name: &str, text: &str) -> CheckResult<()> {
        self.line(("warning", "33"), name, None, text)
    }

    pub fn skip(&mut self, name: &str, text: &str) -> CheckResult<()> {
        self.line(("-", "2"), name, None, text)
    }

    /// Reports a failure after which the next steps can be checked nevertheless.
    pub fn fail_and_continue(&mut self, name: &str, took: Option<Duration>, error: &Error) -> CheckResult<()> {
        if self.status == 0 {
            self.status = status_of(error);
        }
        self.line(("FAILED", "31"), name, took, &error.to_string())
    }

    pub fn fail<T>(&mut self, name: &str, took: Option<Duration>, error: &Error) -> CheckResult<T> {
        self.fail_and_continue(name, took, error)?;
        Err(Abort::Failed)
    }

    pub fn or_fail<T>(&mut self, name: &str, took: Option<Duration>, result: Result<T>) -> CheckResult<T> {
        result.or_else(|error| self.fail(name, took, &error))
    }

    pub fn check<T>(
        &mut self,
        name: &str,
        took: Option<Duration>,
        result: Result<T>,
        text: impl FnOnce(&T) -> String,
    ) -> CheckResult<T> {
        let value = self.or_fail(name, took, result)?;
        self.pass(name, took, &text(&value))?;
        Ok(value)
    }
}

/// The version, the system, the time and the environment.
struct About {
    system: String,
    time: String,
    environment: Vec<(&'static str, String)>,
}

impl About {
    fn this_process() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let kernel = read("/proc/sys/kernel/osrelease");
        let release = read("/etc/os-release");
        let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or_default();
        let parts = [OS, kernel.trim(), ARCH].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>();
        let mut system = parts.join(" ");
        if !name.is_empty() {
            system = format!("{system} ({})", name.trim_matches('"'));
        }
        let shown = |name: &'static str| {
            let value = std::env::var_os(name).filter(|value| !value.is_empty())?;
            let value = value.to_string_lossy();
            // A proxy's URL may hold a password; so may what is none.
            let is_list = name.eq_ignore_ascii_case("no_proxy") || CERTIFICATES.contains(&name);
            let value = match ProxyUrl::parse(value.as_bytes()) {
                _ if is_list || value == "none" => value.into_owned(),
                Some(proxy) => proxy.to_string(),
                None => "[not a proxy]".to_owned(),
            };
            Some((name, sanitize(&value, &[])))
        };
        let names = ["AMPLIENCE_PROXY"].into_iter().chain(proxy::VARIABLES).chain(CERTIFICATES);
        About {
            system: sanitize(&system, &[]),
            time: httpdate::fmt_http_date(SystemTime::now()),
            environment: names.filter_map(shown).collect(),
        }
    }

    fn to_line(&self) -> String {
        let environment: String = self.environment.iter().map(|(name, value)| format!("; {name}={value}")).collect();
        format!("amp-token {}; {}; {}{environment}\n", env!("CARGO_PKG_VERSION"), self.system, self.time)
    }

    fn to_json(&self) -> Value {
        let environment: serde_json::Map<_, _> =
            self.environment.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let version = env!("CARGO_PKG_VERSION");
        json!({ "version": version, "system": self.system, "time": self.time, "environment": environment })
    }
}
