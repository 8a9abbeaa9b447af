//! The commands that send requests to the APIs: `request`, `graphql`, `hubs`, `pat`.
//!
//! `request` and `graphql` print the body of every response, whatever its status. A status that is not a
//! success is reported on standard error and determines the exit status.

use super::account;
use super::permissions::Permissions;
use crate::context::Context;
use crate::exit::{CREDENTIALS, CliError, CliResult, EXIT_IO, GRAPHQL_ERRORS, SERVER};
use crate::output;
use amp_token::api::{self, ApiRequest, PERSONAL_TOKEN_CAUSES};
use amp_token::error::{Error, Kind};
use amp_token::net::transport::{Response, is_success};
use amp_token::oauth::client_credentials::is_valid_bearer_token;
use amp_token::sanitize::sanitize;
use amp_token::sys::secret::Secret;
use amp_token::token::cache::TokenCache;
use clap::ArgMatches;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use zeroize::Zeroizing;

/// The most pages of hubs that are listed, because the server decides how many there are. A page has 100.
const MAX_PAGES: usize = 1000;

/// `amp-token request METHOD PATH`
pub fn request(context: &Context, arguments: &ArgMatches) -> CliResult<ExitCode> {
    let body = match arguments.get_one::<OsString>("data") {
        Some(data) => read_arg(data)?,
        None => Zeroizing::default(),
    };
    let method = text(arguments, "method").to_ascii_uppercase();
    let kind = arguments.get_one::<String>("content-type").map_or("application/json", String::as_str);
    let call = ApiRequest {
        method: &method,
        path: text(arguments, "path"),
        content_type: arguments.contains_id("data").then_some(kind),
        body: &body,
    };
    let cache = cache(context)?;
    let response = api::request(&cache, &call)?;
    output::foreign(&response.body)?;
    Ok(match is_success(response.status) {
        true => ExitCode::SUCCESS,
        false => http_error(&cache, &response, call.method, call.path),
    })
}

/// `amp-token graphql QUERY`
pub fn graphql(context: &Context, arguments: &ArgMatches) -> CliResult<ExitCode> {
    let read = |name| arguments.get_one::<OsString>(name).map(|text| read_arg(text).and_then(to_utf8)).transpose();
    let (query, variables) = (read("query")?.unwrap_or_default(), read("variables")?);
    let cache = cache(context)?;
    let response = api::graphql(&cache, &query, variables.as_deref().map(String::as_str))?;
    output::foreign(&response.body)?;
    if !is_success(response.status) {
        return Ok(http_error(&cache, &response, "POST", GRAPHQL));
    }
    let failed = serde_json::from_slice::<GraphqlOutcome>(&response.body)
        .is_ok_and(|outcome| outcome.data.is_none() && !outcome.errors.unwrap_or_default().is_empty());
    if failed {
        return Err(CliError::new(GRAPHQL_ERRORS, "the GraphQL API responded with errors and no data"));
    }
    Ok(ExitCode::SUCCESS)
}

/// What a response is about, whatever the types of its parts.
#[derive(serde::Deserialize)]
struct GraphqlOutcome {
    data: Option<IgnoredAny>,
    errors: Option<Vec<IgnoredAny>>,
}

/// `amp-token hubs`: prints a table, or JSON with `--json`.
pub fn hubs(context: &Context, arguments: &ArgMatches) -> CliResult<ExitCode> {
    let cache = cache(context)?;
    let (mut path, mut hubs) = (Some("/v2/content/hubs?size=100".to_owned()), Vec::new());
    for _ in 0..MAX_PAGES {
        let Some(this) = path else { break };
        let response = api::request(&cache, &ApiRequest { method: "GET", path: &this, content_type: None, body: b"" })?;
        if response.status != 200 {
            return Ok(http_error(&cache, &response, "GET", &this));
        }
        path = api::next_page(&this, &response.body)?;
        let page: Value = serde_json::from_slice(&response.body).map_err(|error| unexpected_body(&error))?;
        hubs.extend(page["_embedded"]["hubs"].as_array().cloned().unwrap_or_default());
    }
    if path.is_some() {
        let message = format!("the API lists more than {MAX_PAGES} pages of hubs");
        return Err(CliError::new(SERVER, message + "; check api_url, or list them with amp-token request"));
    }
    if arguments.get_flag("json") {
        output::answer(&output::json(&Value::from(hubs)))?;
        return Ok(ExitCode::SUCCESS);
    }
    const COLUMNS: [&str; 4] = ["id", "name", "label", "status"];
    let token = cache.get().ok();
    let secrets: Vec<_> = token.iter().map(|token| token.value()).collect();
    // A string from a server may contain control characters, which must not reach a terminal, and the token,
    // which the server knows.
    let cell = |hub: &Value, column: &str| sanitize(hub[column].as_str().unwrap_or("-"), &secrets);
    let rows: Vec<_> = hubs.iter().map(|hub| COLUMNS.map(|column| cell(hub, column))).collect();
    output::answer(&output::table(COLUMNS, &rows))?;
    Ok(ExitCode::SUCCESS)
}

/// `amp-token pat create NAME`: prints the new token, which cannot be retrieved again, or writes it to a file.
pub fn create_personal_access_token(context: &Context, arguments: &ArgMatches) -> CliResult<ExitCode> {
    let name = text(arguments, "name");
    let cache = cache(context)?;
    let organization = match arguments.get_one::<String>("organization") {
        Some(organization) => organization.clone(),
        None => match account::only_organization(&cache)? {
            Ok(organization) => organization,
            Err(failed) => return Ok(failed),
        },
    };
    // Before the token exists: if it cannot be written, it is lost.
    let file = arguments.get_one::<PathBuf>("output").map(|path| NewFile::create(path)).transpose()?;
    let response = api::create_personal_access_token(&cache, name, &organization)?;
    if response.status != 200 {
        return Ok(http_error(&cache, &response, "POST", GRAPHQL));
    }
    let data: Option<Data> = graphql_data(&cache, &response, "create a token")?;
    match data.and_then(|data| data.created) {
        // What cannot be sent in a header is no token, and may contain control characters for the terminal.
        Some(created) if is_valid_bearer_token(created.token.expose()) => {
            let id = sanitize(&created.id.unwrap_or_default(), &[created.token.expose()]);
            let lost = format!("the personal access token {id} exists already and cannot be shown again; delete it");
            match file {
                Some(file) => file.write(&created.token).map_err(|error| error.and(&lost))?,
                None => {
                    output::if_lost(&lost);
                    output::secret(&[created.token.expose(), "\n"])?;
                }
            }
            Ok(ExitCode::SUCCESS)
        }
        _ => Err(CliError::new(SERVER, "the response of the API contains no token")),
    }
}

#[derive(serde::Deserialize)]
struct GraphqlResponse<D> {
    data: Option<D>,
    #[serde(default)]
    errors: Vec<GraphqlError>,
}

/// The data of a response. The first error of the API, if there is one, is that it did not do `what`.
pub fn graphql_data<D: DeserializeOwned>(cache: &TokenCache, response: &Response, what: &str) -> CliResult<Option<D>> {
    let body: GraphqlResponse<D> = serde_json::from_slice(&response.body).map_err(|error| unexpected_body(&error))?;
    let Some(problem) = body.errors.first() else { return Ok(body.data) };
    let token = cache.get().ok();
    let secrets: Vec<_> = token.iter().map(|token| token.value()).collect();
    let message = sanitize(&problem.message, &secrets);
    Err(CliError::new(SERVER, format!("the API did not {what}: {message}")))
}

#[derive(serde::Deserialize)]
struct Data {
    #[serde(rename = "createPersonalAccessToken")]
    created: Option<Created>,
}

#[derive(serde::Deserialize)]
struct Created {
    id: Option<String>,
    token: Secret,
}

/// A file that did not exist before and that only this user can read. It is removed, unless it is written.
struct NewFile<'a> {
    path: &'a Path,
    file: File,
    is_complete: bool,
}

impl<'a> NewFile<'a> {
    fn create(path: &'a Path) -> CliResult<Self> {
        let mut options = File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path).map_err(|error| Self::failed(path, "create", &error))?;
        let mut new = NewFile { path, file, is_complete: false };
        // Takes the space that the token needs, so that a full disk is noticed now.
        let reserved = new.file.write_all(&[b' '; 1024]).and_then(|()| new.file.sync_all());
        reserved.map_err(|error| Self::failed(path, "write", &error))?;
        Ok(new)
    }

    fn write(mut self, token: &Secret) -> CliResult<()> {
        let text = Zeroizing::new([token.expose(), "\n"].concat());
        let mut write = || {
            self.file.rewind()?;
            self.file.write_all(text.as_bytes())?;
            self.file.set_len(text.len() as u64)?;
            self.file.sync_all()
        };
        write().map_err(|error| Self::failed(self.path, "write", &error))?;
        self.is_complete = true;
        Ok(())
    }

    fn failed(path: &Path, operation: &str, error: &io::Error) -> CliError {
        let path = sanitize(&path.display().to_string(), &[]);
        CliError::new(EXIT_IO, format!("cannot {operation} {path}: {error}"))
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        if !self.is_complete {
            let _ = std::fs::remove_file(self.path);
        }
    }
}

#[derive(serde::Deserialize)]
struct GraphqlError {
    message: String,
}

pub fn cache(context: &Context) -> CliResult<TokenCache> {
    Ok(TokenCache::new(&context.config)?)
}

fn text<'a>(arguments: &'a ArgMatches, name: &str) -> &'a str {
    arguments.get_one::<String>(name).map_or("", String::as_str)
}

/// Reads an argument: the string itself, or the contents of the file for `@FILE`, or standard input for `@-`.
fn read_arg(argument: &OsStr) -> CliResult<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    match file_name(argument) {
        None => bytes.extend_from_slice(argument.as_encoded_bytes()),
        Some(path) if path == "-" => {
            io::stdin().lock().read_to_end(&mut bytes).map_err(|error| read_error("standard input", &error))?;
        }
        Some(path) => {
            let read = File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes));
            read.map_err(|error| read_error(&sanitize(&path.to_string_lossy(), &[]), &error))?;
        }
    }
    Ok(bytes)
}

/// What follows `@`. The name of a file need not be UTF-8.
fn file_name(argument: &OsStr) -> Option<OsString> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        Some(OsStr::from_bytes(argument.as_bytes().strip_prefix(b"@")?).to_owned())
    }
    #[cfg(not(unix))]
    Some(argument.to_str()?.strip_prefix('@')?.into())
}

fn read_error(what: &str, error: &io::Error) -> CliError {
    Error::new(Kind::Io, format!("cannot read {what}: {error}")).into()
}

fn to_utf8(bytes: Zeroizing<Vec<u8>>) -> CliResult<Zeroizing<String>> {
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(CliError::usage("the query and its variables must be UTF-8")),
    }
}

/// The error for a response of an unexpected form. It does not contain the text of `error`, which may quote the
/// response: that may contain a new token.
fn unexpected_body(error: &serde_json::Error) -> CliError {
    let problem = if error.is_data() { "a member has another type" } else { "it is not JSON" };
    let (line, column) = (error.line(), error.column());
    CliError::new(SERVER, format!("unexpected response from the API: {problem} (line {line}, column {column})"))
}

/// The path of the GraphQL API.
pub const GRAPHQL: &str = "/graphql";

/// Reports a status that is not a success.
pub fn http_error(cache: &TokenCache, response: &Response, method: &str, path: &str) -> ExitCode {
    let (status, hint) = match response.status {
        401 | 403 => (CREDENTIALS, format!("; {}", explain_rejection(cache, method, path))),
        300..=399 => (
            SERVER,
            "; redirects are not followed because the request carries a token; set api_url to the URL of the API"
                .into(),
        ),
        _ => (SERVER, String::new()),
    };
    CliError::new(status, format!("the API responded with HTTP {}{hint}", response.status)).report()
}

/// Why a request may have been rejected.
fn explain_rejection(cache: &TokenCache, method: &str, path: &str) -> String {
    const CAUSES: &str = "the API key lacks the permission, or the hub belongs to another account";
    let Ok(token) = cache.try_get() else { return CAUSES.to_owned() };
    if token.is_permanent() {
        return format!(
            "if it is not about a permission of the user, the personal access token was rejected: {PERSONAL_TOKEN_CAUSES}"
        );
    }
    match Permissions::of_token(token.value()).ok().and_then(|permissions| permissions.explain(method, path)) {
        Some(explained) => format!("{CAUSES}; {explained}"),
        None => CAUSES.to_owned(),
    }
}
