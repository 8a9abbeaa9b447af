//! `amp-token demo` and `amp-token emulator`: a local server that responds as Amplience does.
//!
//! The options of `amp-token emulator` are those of `amp-emulator`, but clap parses them, so that `--help`, the
//! manual page, the completions and the exit statuses are as for all other commands.

use crate::exit::{self, CliError, CliResult, EXIT_IO};
use crate::output;
use amp_emulator::Emulator;
use amp_token::config::Config;
use amp_token::config::settings::SETTINGS;
use amp_token::error::{Error, Kind};
use amp_token::net::http::HttpTransport;
use amp_token::net::transport::{Request, Transport};
use amp_token::sanitize::sanitize;
use amp_token::sys::secret::Secret;
use amp_token::token::cache::TokenCache;
use clap::ArgMatches;
use serde_json::Value;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant, SystemTime};

fn failed(error: &io::Error) -> CliError {
    CliError::new(EXIT_IO, format!("cannot run the emulator: {error}"))
}

/// `amp-token emulator`: serves until a signal, or while a command runs.
pub fn serve(arguments: &ArgMatches) -> CliResult<ExitCode> {
    let text = |name| arguments.get_one::<String>(name);
    let path = |name| arguments.get_one::<PathBuf>(name);
    let mut builder = Emulator::builder().tls(arguments.get_flag("tls")).mutual_tls(arguments.get_flag("mutual-tls"));
    if let Some(port) = arguments.get_one::<u16>("port") {
        builder = builder.port(*port);
    }
    if let Some(seconds) = arguments.get_one::<u64>("expires-in") {
        builder = builder.expires_in(*seconds);
    }
    if let Some(path) = path("ca-file") {
        builder = builder.ca_file(path);
    }
    if let Some(id) = text("client-id") {
        builder = builder.client_id(id);
    }
    if let Some(path) = path("client-secret-file") {
        let secret = std::fs::read_to_string(path).map_err(|error| {
            let path = sanitize(&path.display().to_string(), &[]);
            CliError::new(EXIT_IO, format!("cannot read the client secret from {path}: {error}"))
        })?;
        builder = builder.client_secret(secret.trim());
    }
    let failed = |error: io::Error| match arguments.get_one::<u16>("port") {
        Some(port) if error.kind() == io::ErrorKind::AddrInUse => {
            CliError::new(EXIT_IO, format!("cannot listen on port {port}: {error}; choose another --port"))
        }
        _ => failed(&error),
    };
    let mut command_line = arguments.get_many::<OsString>("command").into_iter().flatten();
    let Some(program) = command_line.next() else {
        output::check()?;
        amp_emulator::serve(builder).map_err(failed)?;
        return Ok(ExitCode::SUCCESS);
    };
    let store = StoreDirectory::create()?;
    let status = amp_emulator::run_command(builder, |emulator| {
        let mut command = Command::new(program);
        command.args(command_line);
        set_variables(&mut command, emulator, store.as_path());
        command
    });
    match status.map_err(failed)? {
        Ok(status) => Ok(exit::code_of(status)),
        Err(error) => Err(exit::cannot_run(program, &error)),
    }
}

/// Sets the variables of a client of the emulator, and removes those that would lead elsewhere.
fn set_variables(command: &mut Command, emulator: &Emulator, store: &Path) {
    let settings = emulator.settings();
    for setting in SETTINGS {
        let value = settings.iter().find(|(name, _)| *name == setting.name).map(|(_, value)| value.as_str());
        let is_of_client = value.is_some() || setting.value_type.is_secret() && setting.name != "store";
        let is_file = ["_file", "_certificate", "_key"].iter().any(|ending| setting.name.ends_with(ending));
        for variable in setting.environment.iter().filter(|_| is_of_client || is_file) {
            command.env_remove(variable);
        }
        if let Some(value) = value {
            command.env(setting.environment[0], value);
        }
    }
    // It is on this machine, whatever proxy the environment names.
    command.env("AMPLIENCE_PROXY", "none");
    if std::env::var_os("AMPLIENCE_STORE_DIR").is_none() {
        command.env("AMPLIENCE_STORE_DIR", store);
    }
    command.env("AMP_EMULATOR_URL", emulator.url());
    command.env("AMP_EMULATOR_HUB_ID", Emulator::hub_id());
    command.env("AMP_EMULATOR_REPOSITORY_ID", Emulator::repository_id());
}

/// A private directory for the tokens of one emulator, which are of no use after it. It is removed at the end.
struct StoreDirectory(PathBuf);

impl StoreDirectory {
    fn create() -> CliResult<Self> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let path = std::env::temp_dir().join(format!("amp-token-emulator-{}-{now}", std::process::id()));
        // A name that is taken may be a trap of another user.
        create_private(&path).map_err(|error| {
            let path = sanitize(&path.display().to_string(), &[]);
            CliError::new(EXIT_IO, format!("cannot create {path}: {error}"))
        })?;
        Ok(StoreDirectory(path))
    }

    fn as_path(&self) -> &Path {
        &self.0
    }
}

impl Drop for StoreDirectory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(unix)]
fn create_private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().mode(0o700).create(path)
}

/// The store creates it later, because the standard library cannot create a private directory here. (It refuses that
/// of another user.)
#[cfg(not(unix))]
fn create_private(path: &Path) -> io::Result<()> {
    if path.exists() { Err(io::ErrorKind::AlreadyExists.into()) } else { Ok(()) }
}

/// `amp-token demo`
pub fn demo() -> CliResult<()> {
    let step = |number: u32, start: Instant, text: String| {
        output::answer(&format!("{number}. {text} ({:.1} ms)\n", start.elapsed().as_secs_f64() * 1000.0))
    };
    let start = Instant::now();
    let emulator = Emulator::builder().start().map_err(|error| failed(&error))?;
    step(1, start, format!("An emulator of Amplience listens on {}", emulator.url()))?;

    let start = Instant::now();
    let mut config = Config::new();
    for (name, value) in [
        ("auth_url", emulator.url()),
        ("api_url", emulator.url()),
        ("client_id", emulator.client_id()),
        ("client_secret", emulator.client_secret()),
        ("proxy", "none".to_owned()),
    ] {
        config.set(name, Some(&value))?;
    }
    let cache = TokenCache::new(&config)?;
    let token = cache.get()?;
    let seconds = token.expires_in(cache.options().clock.now());
    let length = token.value().len();
    step(2, start, format!("POST /oauth/token returned a token of {length} bytes, valid for {seconds} s"))?;

    const REPEATS: u32 = 1000;
    let start = Instant::now();
    for _ in 0..REPEATS {
        cache.get()?;
    }
    step(3, start, format!("{REPEATS} more calls got the same token from the cache, without a request"))?;

    let start = Instant::now();
    let names = hubs(&cache, token.authorization())?;
    step(4, start, format!("GET /v2/content/hubs with that token lists {} hubs: {}", names.len(), names.join(", ")))?;

    let stats = emulator.stats();
    output::answer(&format!(
        "The server saw {} token request and {} API request.\n",
        stats.token_requests, stats.api_requests
    ))
}

fn hubs(cache: &TokenCache, authorization: &str) -> CliResult<Vec<String>> {
    let request = Request {
        method: "GET".to_owned(),
        url: cache.options().api_url.append("/v2/content/hubs"),
        headers: vec![("Authorization".into(), Secret::from(authorization).into())],
        body: Vec::new().into(),
        max_response_bytes: 1024 * 1024,
    };
    let response = HttpTransport::new(&cache.options().network)?.send(&request, Duration::from_secs(10))?;
    let hubs = serde_json::from_slice::<Value>(&response.body).ok();
    let hubs = hubs.as_ref().and_then(|body| body.pointer("/_embedded/hubs")).and_then(Value::as_array);
    let hubs =
        hubs.ok_or_else(|| Error::new(Kind::Protocol, "the emulator lists no hubs").with_http_status(response.status))?;
    Ok(hubs.iter().filter_map(|hub| hub.get("label").and_then(Value::as_str)).map(str::to_owned).collect())
}
