//! `amp-token serve`: the token for programs that cannot use the library.
//!
//! ```text
//! SDK, dc-cli, Terraform, Go ──POST /oauth/token, ticket──►┌──────────────┐  client id and secret
//! tools without a login ──────/v2/content, /graphql───────►│  amp-token   │─────────────────────────► token service
//! programs that read a file ◄──token file, hook────────────│  serve       │─────────────────────────► API
//! Prometheus, probes ─────────/metrics, /readyz, /healthz─►└──────────────┘  token
//! ```
//!
//! It is the library's cache with an HTTP server before it, in one process that stays in the foreground.
//!
//! Guarantees:
//!
//! - **The secret stays here.** Clients have the ticket, which is worth nothing elsewhere or after the end.
//! - **One trouble stops nothing else.** One thread runs the server and never blocks. Whatever may block, the token
//!   service, a disk, opening a connection, does so on other threads, of which there are few.
//! - **Nobody but local clients**, and no web page: see [`listener`].
//! - **It leaves nothing behind**: the token file and the socket are removed at the end, and after kill -9 by the next
//!   start. Other files are never touched.
//!
//! | module | contents |
//! | --- | --- |
//! | `tokens` | which token is handed out, and when it is renewed |
//! | `ticket` | the secret of clients |
//! | `listener` | sockets, connections and their limits |
//! | `token_endpoint` | `POST /oauth/token` |
//! | `proxy`, `upstream`, `links` | requests to the APIs, the connections for them, and links in the responses |
//! | `token_file`, `hook` | the token in a file, and what happens when it is renewed |
//! | `metrics` | the statistics of `/metrics` |
//! | `answer`, `body` | responses of this server, and bodies |
//! | `exec` | `amp-token exec --serve` |
//!
//! On hyper and tokio, which the command alone links (cargo feature `serve`).

mod answer;
mod body;
pub mod exec;
mod hook;
mod links;
mod listener;
mod metrics;
mod proxy;
mod ticket;
mod token_endpoint;
pub mod token_file;
mod tokens;
mod upstream;

use crate::context::Context;
use crate::exit::{CREDENTIALS, CliError, CliResult, EXIT_IO, USAGE, status_of};
use crate::output;
use amp_token::error::{Error, Kind};
use amp_token::log::{Event, Level, Log};
use amp_token::net::url::Url;
use amp_token::token::cache::TokenCache;
use body::{AnyBody, InFlight};
use clap::ArgMatches;
use hook::Hook;
use hyper::body::Incoming;
use hyper::header::{ALLOW, HOST};
use hyper::{Method, Request, Response, StatusCode, Uri};
use listener::{Address, Connections, DRAIN, Hosts, Listening};
use metrics::Metrics;
use rustix::process::Rlimit;
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;
use ticket::Ticket;
use token_file::TokenFile;
use tokens::Tokens;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use upstream::ApiClient;

/// The client id that is shown to clients. Any other does as well.
pub const CLIENT_ID: &str = "amp-token";

/// The most threads for what blocks: opening connections, renewals, files.
const BLOCKING_THREADS: usize = 64;

/// How often it is looked whether the token in the file has expired, and a write that failed is repeated.
const FILE_TICK: Duration = Duration::from_secs(2);

/// Who a client is, as far as its connection says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// The user of this process, over the Unix socket.
    SameUser,
    Other,
}

/// What all requests share.
pub struct Server {
    ticket: Ticket,
    tokens: Arc<Tokens>,
    metrics: Arc<Metrics>,
    api: ApiClient,
    api_url: Url,
    /// `timeout_ms`
    timeout: Duration,
    rewrite_links: bool,
    is_tls: bool,
    /// Names of this server in addition to `localhost`.
    hosts: Vec<String>,
    log: Log,
}

/// What the options say of a server.
struct ServerOptions {
    ticket: Ticket,
    rewrite_links: bool,
    is_tls: bool,
    hosts: Vec<String>,
}

impl Server {
    fn new(context: &Context, options: ServerOptions) -> CliResult<Arc<Self>> {
        let metrics =
            Metrics::new().map_err(|error| CliError::new(EXIT_IO, format!("cannot set up metrics: {error}")))?;
        let metrics = Arc::new(metrics);
        let mut config = context.config.clone();
        // Renewals are made by one task, earlier than the library's thread would.
        config.set("background_refresh", Some("false"))?;
        let cache_of_observer = Arc::new(OnceLock::<Arc<TokenCache>>::new());
        config.log.set_observer(Some(Arc::new({
            let (metrics, cache) = (Arc::clone(&metrics), Arc::clone(&cache_of_observer));
            move |event: &Event| match event {
                Event::RefreshFailed(error) => metrics.refresh_failed(error),
                Event::Refreshed => cache.get().into_iter().for_each(|cache| metrics.refreshed(cache)),
                Event::TokenRejected => {}
            }
        })));
        let cache = Arc::new(TokenCache::new(&config)?);
        let _ = cache_of_observer.set(Arc::clone(&cache));
        let settings = cache.options();
        let api = upstream::client(&settings.api_url, &settings.network, &settings.user_agent, settings.timeout)?;
        Ok(Arc::new(Server {
            ticket: options.ticket,
            tokens: Arc::new(Tokens::new(Arc::clone(&cache), Arc::clone(&metrics))),
            metrics,
            api,
            api_url: settings.api_url.clone(),
            timeout: settings.timeout,
            rewrite_links: options.rewrite_links,
            is_tls: options.is_tls,
            hosts: options.hosts,
            log: context.log(),
        }))
    }

    /// Writes a line to the log.
    fn report(&self, level: Level, line: &str) {
        self.log.write(level, || line);
        self.log.deliver();
    }

    /// The URL of the API for the target of a request.
    fn api_uri(&self, target: &Uri) -> Option<Uri> {
        self.api_url.append(proxy::checked_path(target)?).as_str().parse().ok()
    }

    /// Answers a request.
    async fn respond(
        &self,
        caller: Caller,
        hosts: Hosts,
        in_flight: InFlight,
        request: Request<Incoming>,
    ) -> Response<AnyBody> {
        let path = request.uri().path().to_owned();
        let (endpoint, response) = match self.base(hosts, &request) {
            Err((status, description)) => ("refused", answer::failure(status, "invalid_request", description)),
            Ok(base) => match path.as_str() {
                "/oauth/token" => ("token", token_endpoint::respond(self, caller, request).await),
                path if proxy::is_proxied(path) => {
                    ("proxy", proxy::respond(self, caller, &base, in_flight, request).await)
                }
                "/healthz" | "/readyz" | "/metrics" if ![Method::GET, Method::HEAD].contains(request.method()) => {
                    let allow = (ALLOW, "GET, HEAD");
                    let status = StatusCode::METHOD_NOT_ALLOWED;
                    ("other", answer::failure_with(allow, status, "invalid_request", "use GET"))
                }
                "/healthz" => ("healthz", answer::response(StatusCode::OK, "text/plain", "ok\n")),
                "/readyz" => ("readyz", self.readiness()),
                "/metrics" => ("metrics", self.statistics()),
                _ => {
                    let description =
                        "there are /oauth/token, /v2/content/..., /graphql, /healthz, /readyz and /metrics";
                    ("other", answer::failure(StatusCode::NOT_FOUND, "not_found", description))
                }
            },
        };
        self.metrics.request(endpoint, response.status().as_u16());
        response
    }

    /// The base URL by which a client calls this server; else the status of the response, and what is wrong.
    fn base(&self, hosts: Hosts, request: &Request<Incoming>) -> Result<String, (StatusCode, &'static str)> {
        let mut sent = request.headers().get_all(HOST).iter();
        let host = match (sent.next().map(|host| host.to_str()), sent.next()) {
            (Some(Ok(host)), None) => host,
            _ => return Err((StatusCode::BAD_REQUEST, "send one header Host")),
        };
        // The authority of a target in absolute form takes precedence over Host.
        let named = request.uri().authority().map_or(host, |authority| authority.as_str());
        if !hosts.contain(self, host) || !hosts.contain(self, named) {
            return Err((StatusCode::MISDIRECTED_REQUEST, "this server does not have the name that Host contains"));
        }
        let scheme = if self.is_tls { "https" } else { "http" };
        Ok(format!("{scheme}://{host}"))
    }

    fn readiness(&self) -> Response<AnyBody> {
        match self.tokens.ready() {
            Ok(_) => answer::response(StatusCode::OK, "text/plain", "ok\n"),
            Err(error) => {
                let mut response = answer::upstream_failure(&error);
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                response
            }
        }
    }

    fn statistics(&self) -> Response<AnyBody> {
        match self.tokens.metrics() {
            Ok(text) => answer::response(StatusCode::OK, metrics::CONTENT_TYPE, text),
            Err(error) => {
                answer::failure(StatusCode::INTERNAL_SERVER_ERROR, "server_error", &format!("metrics failed: {error}"))
            }
        }
    }
}

/// `amp-token serve`
pub fn run(context: &Context, arguments: &ArgMatches) -> CliResult<ExitCode> {
    let path = |name| arguments.get_one::<PathBuf>(name);
    let text = |name| arguments.get_one::<String>(name);
    let file = path("token-file")
        .map(|path| {
            let format = text("token-file-format").map_or("plain", String::as_str);
            TokenFile::new(path, format, arguments.get_one("mode").copied().unwrap_or(0o600))
        })
        .transpose()?;
    let (limit, files) = listener::connection_limit(true);
    let hook = hook(arguments, files)?;
    if arguments.get_flag("once") {
        return once(context, file, hook);
    }
    let tls = match (path("tls-certificate"), path("tls-key")) {
        (Some(certificate), Some(key)) => Some(listener::tls(certificate, key)?),
        _ => None,
    };
    let ticket = path("ticket-file").map_or_else(Ticket::random, |path| Ticket::from_file(path))?;
    let addresses: Vec<Address> = match arguments.get_many::<String>("listen") {
        Some(listed) => listed.map(|address| Address::parse(address)).collect::<CliResult<_>>()?,
        None => vec![Address::Tcp((Ipv4Addr::LOCALHOST, 0).into())],
    };
    for address in &addresses {
        if let Address::Tcp(address) = address
            && !address.ip().is_loopback()
            && (!arguments.get_flag("listen-anywhere") || tls.is_none())
        {
            return Err(CliError::usage(format!(
                "--listen {address} is not an address of the loopback interface: other machines could connect; \
                 that needs --listen-anywhere, --tls-certificate and --tls-key"
            )));
        }
    }
    let listening =
        addresses.iter().map(|address| Listening::bind(address, tls.as_ref())).collect::<CliResult<Vec<_>>>()?;
    let shown_ticket = path("ticket-file").map_or_else(
        || format!("client_secret={}\n", ticket.expose()),
        |path| format!("client_secret_file={}\n", path.display()),
    );
    let server = Server::new(
        context,
        ServerOptions {
            ticket,
            rewrite_links: arguments.get_flag("rewrite-links"),
            is_tls: tls.is_some(),
            hosts: arguments.get_many::<String>("allow-host").into_iter().flatten().cloned().collect(),
        },
    )?;
    let lines: String = listening.iter().map(describe).collect();
    let lines = format!("{lines}client_id={CLIENT_ID}\n{shown_ticket}");
    let runtime = runtime()?;
    let outcome = runtime.block_on(serve(server, listening, limit, file, hook, &lines));
    // A thread that hangs is not waited for.
    runtime.shutdown_background();
    outcome.map(|()| ExitCode::SUCCESS)
}

/// What clients need to know of a socket.
fn describe(listening: &Listening) -> String {
    match listening.base() {
        Ok(base) => format!("auth_url={base}\ntoken_url={base}/oauth/token\napi_url={base}/v2/content\n"),
        Err(path) => format!("socket={}\n", path.display()),
    }
}

fn hook(arguments: &ArgMatches, files: Option<Rlimit>) -> CliResult<Option<Hook>> {
    if let Some(command) = arguments.get_one::<OsString>("on-renewal") {
        return Ok(Some(Hook::Run { command: command.clone(), files }));
    }
    let (Some(name), Some(pid)) = (arguments.get_one::<String>("signal"), arguments.get_one::<i32>("pid")) else {
        return Ok(None);
    };
    Ok(Some(Hook::Send(hook::Target::new(*pid)?, hook::signal(name)?)))
}

fn runtime() -> CliResult<Runtime> {
    let built = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("amp-serve")
        .build();
    built.map_err(|error| CliError::new(EXIT_IO, format!("cannot start: {error}")))
}

/// `--once`: writes the file, runs the hook, and ends.
fn once(context: &Context, file: Option<TokenFile>, hook: Option<Hook>) -> CliResult<ExitCode> {
    let Some(mut file) = file else { return Err(CliError::usage("--once needs --token-file")) };
    let mut config = context.config.clone();
    config.set("background_refresh", Some("false"))?;
    let token = amp_token::token::provider::get_token(&config)?;
    file.write(&token).map_err(|error| file_error(&file, &error))?;
    file.keep();
    if let Some(hook) = hook {
        let runtime = runtime()?;
        let ran = runtime.block_on(hook.run());
        runtime.shutdown_background();
        ran.map_err(|message| CliError::new(EXIT_IO, message))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn file_error(file: &TokenFile, error: &std::io::Error) -> CliError {
    let path = amp_token::sanitize::sanitize(&file.path().display().to_string(), &[]);
    CliError::new(EXIT_IO, format!("cannot write the token to {path}: {error}"))
}

/// Whether a failure at the start will still be one later, so that there is nothing to serve.
fn is_final(error: &Error) -> bool {
    [USAGE, CREDENTIALS].contains(&status_of(error)) || matches!(error.kind(), Kind::Internal)
}

/// Serves until a signal.
async fn serve(
    server: Arc<Server>,
    listening: Vec<Listening>,
    limit: usize,
    file: Option<TokenFile>,
    hook: Option<Hook>,
    lines: &str,
) -> CliResult<()> {
    let failed = |error: std::io::Error| CliError::new(EXIT_IO, format!("cannot start: {error}"));
    let mut signals = Vec::new();
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()] {
        if !crate::startup::is_ignored(kind.as_raw_value()) {
            signals.push(signal(kind).map_err(failed)?);
        }
    }
    let (end, ends) = watch::channel(false);
    let connections = Arc::new(Connections::new(limit));
    for listening in listening {
        let serving = listening.serve(Arc::clone(&server), Arc::clone(&connections), ends.clone());
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            if let Err(error) = serving.await {
                server.report(Level::Error, &format!("a socket cannot be used: {error}"));
            }
        });
    }
    let mut signalled = std::pin::pin!(std::future::poll_fn(|context| {
        match signals.iter_mut().any(|signal| signal.poll_recv(context).is_ready()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }));
    let first = tokio::select! {
        first = server.tokens.attempt() => Some(first),
        () = &mut signalled => None,
    };
    let Some(first) = first else { return Ok(()) };
    if let Err(error) = first {
        if is_final(&error) {
            return Err(error.into());
        }
        server.report(Level::Warning, &format!("no token yet; trying again: {error}"));
    }
    let always = file.is_some() || hook.is_some();
    let renewed = Arc::new(Notify::new());
    let mut output = tokio::spawn(keep_file(Arc::clone(&server), file, Arc::clone(&renewed), ends.clone()));
    if let Some(hook) = hook {
        tokio::spawn(run_hook(Arc::clone(&server), hook, renewed));
    }
    tokio::spawn(Arc::clone(&server.tokens).keep_renewed(always));
    output::answer(lines)?;
    notify_ready();
    signalled.await;
    let _ = end.send(true);
    let _ = timeout(DRAIN, async {
        connections.closed().await;
        let _ = (&mut output).await;
    })
    .await;
    if !output.is_finished() {
        let _ = timeout(FILE_TICK, output).await;
    }
    Ok(())
}

/// Tells systemd that clients can connect (sd_notify(3)), if it has started this process.
#[cfg(not(target_os = "linux"))]
fn notify_ready() {}

/// Tells systemd that clients can connect (sd_notify(3)), if it has started this process.
#[cfg(target_os = "linux")]
fn notify_ready() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    if let (Ok(socket), Ok(address)) = (UnixDatagram::unbound(), address) {
        let _ = socket.send_to_addr(b"READY=1", &address);
    }
}

/// Keeps the file up to date, and removes it at the end.
async fn keep_file(
    server: Arc<Server>,
    mut file: Option<TokenFile>,
    renewed: Arc<Notify>,
    mut end: watch::Receiver<bool>,
) {
    let mut tokens = server.tokens.follow();
    let mut is_written = true;
    tokens.mark_changed();
    loop {
        if tokens.has_changed().unwrap_or(false) || !is_written {
            let token = tokens.borrow_and_update().clone();
            if let (Some(token), Some(mut own)) = (token.clone(), file.take()) {
                // A disk may not respond, which is not the server's trouble.
                let written = tokio::task::spawn_blocking(move || {
                    let written = own.write(&token);
                    (own, written)
                });
                let Ok((own, written)) = written.await else { return };
                if let Err(error) = &written
                    && is_written
                {
                    server.report(
                        Level::Warning,
                        &format!("cannot write the token to {}: {error}", own.path().display()),
                    );
                }
                is_written = written.is_ok();
                file = Some(own);
            }
            if token.is_some() && is_written {
                renewed.notify_one();
            }
        }
        tokio::select! {
            _ = tokens.changed() => tokens.mark_changed(),
            _ = end.changed() => return,
            () = sleep(FILE_TICK) => {
                let token = tokens.borrow().clone();
                let has_expired = token.is_some_and(|token| !token.is_permanent() && server.tokens.left(&token).is_zero());
                if let Some(file) = file.as_mut().filter(|_| has_expired) {
                    file.remove();
                }
            }
        }
    }
}

async fn run_hook(server: Arc<Server>, hook: Hook, renewed: Arc<Notify>) {
    loop {
        renewed.notified().await;
        if let Err(message) = hook.run().await {
            server.report(Level::Warning, &message);
        }
    }
}
