//! HTTP over sockets: the [`Transport`] that the library uses unless the application sets its own.
//!
//! Guarantees:
//!
//! - **One request.** It sends one request and reads one response. It does not retry, follow redirects (a 3xx is a
//!   response like any other) or keep cookies.
//! - **Connections.** Each token request has a connection of its own, which it closes. Idempotent requests with a token
//!   keep theirs for the next one: see [`crate::net::idle`].
//! - **Timeouts.** `timeout` bounds the whole call, whether the server responds slowly, byte by byte, without
//!   end, or not at all. `connect_timeout` bounds connecting and the TLS handshake with one peer. It does not bound
//!   resolving nor the proxy's own connection to the server: they may take long, and a retry would begin them again.
//! - **Limits.** A response has at most [`HEADER_LIMIT`] bytes of headers, and the body size that the request
//!   allows. A larger one is an error, and the rest is not read.
//! - **Encryption.** Only `https`, unless the host is this machine. Such a plain request never uses a proxy,
//!   whatever the settings and the environment contain.
//! - **No added headers** except `Host`, `Content-Length` and, unless it is kept, `Connection: close`.
//! - **Secrets.** Headers, bodies and their buffers are wiped, except those inside rustls, which cannot be
//!   reached. Messages and log lines contain host names, sizes and statuses, but no header values, bodies or
//!   passwords.
//! - **Errors** name the operation, the peer and a hint. A local problem is not reported as one of the server, nor
//!   a network failure as rejected credentials.
//!
//! [`crate::net::proxy`] selects the proxy, from the environment as it was when the transport was created: reading
//! it later would race with a `setenv` in another thread. Certificates and keys are read by the first https request,
//! and again when their files have changed or TLS has failed.
//!
//! The connection is opened here, and [`crate::net::ureq_adapter`] has ureq speak HTTP over it. That module says
//! why ureq's own connectors, proxies and pools are not used.

use crate::config::NetworkOptions;
use crate::config::environment;
use crate::error::{Error, Kind, Phase, Result};
use crate::net::connect::connect;
use crate::net::idle::IdleConnections;
use crate::net::proxy::{self, ProxyUrl, Scheme};
use crate::net::resolve::resolve;
use crate::net::socks::Target;
use crate::net::tcp::{Peer, Stream, TcpConnection};
use crate::net::tls::{ClientCertificate, PeerTlsInfo, TlsConnector};
use crate::net::tls_files::TlsFiles;
use crate::net::transport::{BodySink, Request, Response, Transport};
use crate::net::tunnel::{Tunnel, open_tunnel};
use crate::net::ureq_adapter::{self, UreqConnection};
use crate::net::url::{Url, is_loopback, split_zone};
use crate::sys::deadline::IoDeadline;
use crate::sys::secret::{Secret, SecretBytes};
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

pub use crate::net::ureq_adapter::HEADER_LIMIT;

/// What was seen of a request, up to where it failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionTrace {
    /// The phases that succeeded, in their order, and how long each took. Sending the request and receiving the
    /// whole response is one entry, [`Phase::ReceiveBody`]; so is all that is done with a proxy after
    /// connecting to it, [`Phase::Tunnel`].
    pub phases: Vec<(Phase, Duration)>,
    /// The proxy, as `scheme://host:port`.
    pub proxy: Option<String>,
    /// The addresses that were resolved: the proxy's, if there is one.
    pub found: Vec<SocketAddr>,
    /// The address that was connected to: the proxy's, if there is one.
    pub address: Option<SocketAddr>,
    /// The server's TLS version and certificate.
    pub tls: Option<PeerTlsInfo>,
}

impl ConnectionTrace {
    /// Records that a phase succeeded that began at `start`; returns when the next one begins.
    fn record(&mut self, phase: Phase, start: Instant) -> Instant {
        let now = Instant::now();
        self.phases.push((phase, now - start));
        now
    }
}

/// What a connection is for.
struct Destination<'a> {
    url: &'a Url,
    /// The server of the URL, for messages.
    server: &'a Peer,
    /// What is shown to a proxy.
    user_agent: Option<&'a str>,
}

/// Sends requests over sockets. See the module documentation.
pub struct HttpTransport {
    options: NetworkOptions,
    /// The values of [`proxy::VARIABLES`]. Secret, because a proxy URL may contain a password.
    environment: Vec<(&'static str, SecretBytes)>,
    /// Read by the first https request, and again when the files have changed.
    tls: TlsFiles,
    idle: IdleConnections,
}

impl fmt::Debug for HttpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTransport").field("options", &self.options).finish_non_exhaustive()
    }
}

impl HttpTransport {
    /// A transport with these settings and their environment. Opens nothing yet. Fails if the
    /// `proxy` setting is invalid.
    pub fn new(options: &NetworkOptions) -> Result<Self> {
        HttpTransport::with_environment(options, |name| options.environment.get(name))
    }

    /// Like [`HttpTransport::new`], with a function for the environment.
    pub fn with_environment(options: &NetworkOptions, variable: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let value = |name| Some(environment::bytes(name, variable(name)?).map(|bytes| (name, bytes)));
        let transport = HttpTransport {
            options: options.clone(),
            environment: proxy::VARIABLES.into_iter().filter_map(value).collect::<Result<_>>()?,
            tls: TlsFiles::default(),
            idle: IdleConnections::new(),
        };
        if let Some(setting) = &options.proxy {
            // Any host will do: this checks the setting, not NO_PROXY.
            if let Some(url) = Url::parse("https://localhost") {
                proxy::select_proxy(&url, Some(setting.expose()), |_| None)?;
            }
        }
        Ok(transport)
    }

    /// Like [`Transport::send`], and records what it sees, also when it fails.
    pub fn send_traced(
        &self,
        request: &Request,
        timeout: Duration,
        observed: &mut ConnectionTrace,
    ) -> Result<Response> {
        self.send_inner(request, timeout, observed, None)
    }

    fn send_inner(
        &self,
        request: &Request,
        timeout: Duration,
        observed: &mut ConnectionTrace,
        sink: Option<&mut BodySink>,
    ) -> Result<Response> {
        // In TLS 1.3 a server rejects a client certificate only after the handshake.
        self.send_once(request, timeout, observed, sink).inspect_err(|error| self.tls_failed(error))
    }

    fn send_once(
        &self,
        request: &Request,
        timeout: Duration,
        observed: &mut ConnectionTrace,
        mut sink: Option<&mut BodySink>,
    ) -> Result<Response> {
        let log = &self.options.log;
        let deadline = IoDeadline::after(timeout);
        let url = &request.url;
        check_url(url)?;
        let server = Peer::server(&url.host_with_zone(), url.port());
        let keep = may_keep(request);
        if let Some(stream) = keep.then(|| self.idle.take(url)).flatten() {
            log.debug(|| format!("http: {} is still connected", server.name));
            match self.exchange(request, stream, deadline, sink.as_deref_mut()) {
                // The server closed the connection when it was idle for too long, and the request crossed that.
                Err(error) if error.kind() == Kind::Connect && error.phase() < Phase::ReceiveBody => {
                    log.debug(|| format!("http: connecting again: {error}"));
                }
                outcome => return outcome,
            }
        }
        // What cannot be sent must not cost a connection.
        ureq_adapter::to_http_request(request, &server, keep)?;
        let user_agent = request.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("user-agent"));
        let user_agent = user_agent.map(|(_, value)| value.expose());
        let stream = self.connect(&Destination { url, server: &server, user_agent }, deadline, observed)?;
        let connected = Instant::now();
        let response = self.exchange(request, stream, deadline, sink)?;
        observed.record(Phase::ReceiveBody, connected);
        Ok(response)
    }

    /// Sends the request over a connection, which is kept for another request if that is possible.
    fn exchange(
        &self,
        request: &Request,
        mut stream: Box<dyn Stream>,
        deadline: IoDeadline,
        sink: Option<&mut BodySink>,
    ) -> Result<Response> {
        let (url, keep) = (&request.url, may_keep(request));
        let server = Peer::server(&url.host_with_zone(), url.port());
        let message = ureq_adapter::to_http_request(request, &server, keep)?;
        stream.set_deadline(deadline);
        let connection = UreqConnection::new(stream, url.scheme() == "https", &server, deadline);
        let kept = connection.kept();
        let response = ureq_adapter::exchange(message, connection, request.max_response_bytes, sink)?;
        let stream = kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(stream) = stream.filter(|_| keep) {
            self.idle.put(url, stream);
        }
        self.options.log.debug(|| {
            format!("http: {} responded with status {} and {} bytes", server.name, response.status, response.body.len())
        });
        Ok(response)
    }

    /// Opens a connection for requests.
    fn connect(
        &self,
        destination: &Destination<'_>,
        deadline: IoDeadline,
        observed: &mut ConnectionTrace,
    ) -> Result<Box<dyn Stream>> {
        let Destination { url, server, .. } = *destination;
        let log = &self.options.log;
        let start = Instant::now();
        let proxy = self.proxy_for(url)?;
        observed.record(Phase::Route, start);
        log.debug(|| match &proxy {
            Some(proxy) => format!("http: connecting to {} through the proxy {proxy}", server.name),
            None => format!("http: connecting to {} directly", server.name),
        });
        observed.proxy = proxy.as_ref().map(ToString::to_string);
        // Before anything is connected: reading files has all the time of the call, and no server waits meanwhile.
        let needs_tls = url.scheme() == "https" || proxy.as_ref().is_some_and(|proxy| proxy.scheme == Scheme::Https);
        let tls = if needs_tls { Some(self.tls.connector(&self.options, deadline)?) } else { None };
        let (mut stream, deadline): (Box<dyn Stream>, _) = match &proxy {
            None => {
                let (stream, limit) =
                    self.connect_tcp(&url.host_with_zone(), url.port(), server, deadline, observed)?;
                (Box::new(stream), limit)
            }
            Some(proxy) => {
                let mut stream = self.connect_to_proxy(proxy, destination, tls.as_deref(), deadline, observed)?;
                let limit = self.limit_connecting(deadline);
                stream.set_deadline(limit);
                (stream, limit)
            }
        };
        if let Some(tls) = tls.filter(|_| url.scheme() == "https") {
            let start = Instant::now();
            let (session, identity) = tls.handshake(stream, url.host(), server, ClientCertificate::Shown, deadline)?;
            log.debug(|| {
                format!(
                    "tls: {} uses {}; its certificate is for {}, issued by {}",
                    server.name, identity.version, identity.subject, identity.issuer
                )
            });
            observed.record(Phase::TlsHandshake, start);
            observed.tls = Some(identity);
            stream = Box::new(session);
        }
        Ok(stream)
    }

    fn connect_to_proxy(
        &self,
        proxy: &ProxyUrl,
        destination: &Destination<'_>,
        tls: Option<&TlsConnector>,
        deadline: IoDeadline,
        observed: &mut ConnectionTrace,
    ) -> Result<Box<dyn Stream>> {
        let Destination { url, server, user_agent } = *destination;
        let address = if proxy.resolves_locally() {
            let found = resolve(&url.host_with_zone(), url.port(), server, deadline)?;
            let fits = |address: &&SocketAddr| proxy.scheme != Scheme::Socks4 || address.is_ipv4();
            found.iter().find(fits).or(found.first()).map(SocketAddr::ip)
        } else {
            None
        };
        let peer = proxy.peer();
        let (stream, limit) = self.connect_tcp(&proxy.host, proxy.port, &peer, deadline, observed)?;
        let mut stream: Box<dyn Stream> = Box::new(stream);
        let start = Instant::now();
        if let Some(tls) = tls.filter(|_| proxy.scheme == Scheme::Https) {
            let (host, _) = split_zone(&proxy.host);
            let (session, _) = tls.handshake(stream, host, &peer, ClientCertificate::Withheld, limit)?;
            stream = Box::new(session);
        }
        stream.set_deadline(deadline);
        let target = Target { host: url.host(), port: url.port(), address };
        let announces_page = open_tunnel(&mut *stream, proxy, &target, user_agent, deadline)?;
        observed.record(Phase::Tunnel, start);
        Ok(Box::new(Tunnel::new(stream, proxy.clone(), announces_page)))
    }

    /// The deadline of connecting to a peer and of the TLS handshake with it, which begin now.
    fn limit_connecting(&self, deadline: IoDeadline) -> IoDeadline {
        deadline.min(IoDeadline::after(self.options.connect_timeout))
    }

    /// Resolves and connects to the server or its proxy. Also returns the deadline of the TLS handshake.
    fn connect_tcp(
        &self,
        host: &str,
        port: u16,
        peer: &Peer,
        deadline: IoDeadline,
        observed: &mut ConnectionTrace,
    ) -> Result<(TcpConnection, IoDeadline)> {
        let start = Instant::now();
        observed.found = resolve(host, port, peer, deadline)?;
        let start = observed.record(Phase::Resolve, start);
        let limit = self.limit_connecting(deadline);
        let (connection, address) = connect(&observed.found, peer, limit)?;
        observed.record(Phase::Connect, start);
        observed.address = Some(address);
        self.options.log.debug(|| format!("http: connected to {} at {address}", peer.name));
        Ok((connection, limit))
    }

    /// Opens a connection for requests to the origin of `url`, by the rules of all others: the same check of the URL, the
    /// same proxy, certificates and limits.
    #[cfg(all(unix, feature = "serve"))]
    pub(crate) fn open(&self, url: &Url, user_agent: &str, timeout: Duration) -> Result<Box<dyn Stream>> {
        check_url(url)?;
        let server = &Peer::server(&url.host_with_zone(), url.port());
        let destination = Destination { url, server, user_agent: Some(user_agent) };
        self.connect(&destination, IoDeadline::after(timeout), &mut ConnectionTrace::default())
            .inspect_err(|error| self.tls_failed(error))
    }

    /// Has the next connection read the certificates again, if this failure is one of TLS.
    pub(crate) fn tls_failed(&self, error: &Error) {
        if error.kind() == Kind::Tls {
            self.tls.mark_stale();
        }
    }

    fn proxy_for(&self, url: &Url) -> Result<Option<ProxyUrl>> {
        let setting = self.options.proxy.as_ref().map(Secret::expose);
        proxy::select_proxy(url, setting, |name| {
            let (_, value) = self.environment.iter().find(|(have, _)| *have == name)?;
            Some(value.expose())
        })
    }
}

impl Transport for HttpTransport {
    fn send(&self, request: &Request, timeout: Duration) -> Result<Response> {
        self.send_traced(request, timeout, &mut ConnectionTrace::default())
    }

    fn send_streaming(&self, request: &Request, timeout: Duration, sink: &mut BodySink) -> Result<Response> {
        self.send_inner(request, timeout, &mut ConnectionTrace::default(), Some(sink))
    }
}

/// Whether the connection may be kept after the request, and a kept one be used for it. Not for a token request, which
/// contains the client secret, nor for a request that must not be repeated if the server closes the connection in the
/// moment in which it is sent.
fn may_keep(request: &Request) -> bool {
    let has_token = request.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization"));
    has_token && ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"].contains(&request.method.as_str())
}

/// Fails if no secret and no token may be sent to this URL.
fn check_url(url: &Url) -> Result<()> {
    let refuse = |message: String, advice: &str| Err(Error::new(Kind::Config, message).with_hint(advice));
    if url.has_user_info() {
        return refuse(
            format!("the URL of {} contains a user name or password", url.host()),
            "leave it out; credentials have their own settings",
        );
    }
    if url.scheme() == "http" && !is_loopback(url.host()) {
        return refuse(
            format!("{:?} is not encrypted", url.to_string()),
            "use https; http is only allowed for this machine (localhost, 127.0.0.1, [::1])",
        );
    }
    Ok(())
}
