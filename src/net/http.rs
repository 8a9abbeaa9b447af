//! HTTP over real sockets: the [`Transport`] that the library uses unless it is given another.
//!
//! What it promises:
//!
//! - **One request.** It opens one connection, sends one request on it, reads one reply and closes
//!   it. Nothing is retried, no redirect is followed (a 3xx is a reply like any other), no cookie
//!   is kept. No socket outlives a call, so that none can be shared with a forked child.
//! - **Within the time given.** `timeout` bounds the whole call, whatever the server does: answer
//!   slowly, byte by byte, without end, or not at all. `connect_timeout` bounds the making of the
//!   connection: name lookup, proxy, TCP and TLS handshake together.
//! - **Within bounds.** A reply has at most [`HEADER_LIMIT`] bytes of headers and the body that the
//!   request allows; more is an error and is not read.
//! - **Encrypted.** `https` only, unless the host is this machine itself. Such a plain request goes
//!   through no proxy, whatever the settings and the environment say.
//! - **Nothing added.** Headers are those of the request, and `Host`, `Content-Length` and
//!   `Connection: close`, without which it would not be HTTP.
//! - **No secrets left or shown.** Headers, bodies and the buffers for them are wiped (but for those
//!   inside rustls, which are out of reach). Messages and log lines hold host names, sizes and
//!   statuses, but no header values, bodies or passwords.
//! - **Every failure is named**: what happened, to whom, and what to do next; a local problem never
//!   looks like the server's, nor a network's like bad credentials.
//!
//! Proxies are chosen as [`crate::net::proxy`] says, from an environment that is read once, when the
//! transport is made, because reading it later would race with a `setenv` elsewhere in the process.
//! Certificates are read at the first https request; if that fails, the next request tries again.
//!
//! The connection is made here, in plain blocking code, and handed to ureq, which speaks HTTP over
//! it. ureq's own connectors, timeouts, proxies and pools are not used: they restart the clock for
//! each phase and do not tell a proxy's failure from a server's.

use crate::config::environment;
use crate::config::settings::NetworkOptions;
use crate::error::{Error, Kind, Phase, Result};
use crate::net::proxy::{self, ProxyUrl, Scheme};
use crate::net::tcp::{Peer, Stream, TcpConnection, connect, resolve};
use crate::net::tls::{ClientCertificate, PeerTlsInfo, TlsConnector};
use crate::net::transport::{BodySink, Request, Response, Transport};
use crate::net::tunnel::{self, Target};
use crate::net::ureq_adapter::{self, UreqConnection};
use crate::net::url::{Url, is_loopback};
use crate::sanitize::redact_url;
use crate::sys::deadline::IoDeadline;
use crate::sys::secret::{Secret, SecretBytes};
use once_cell::race::OnceBox;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
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
    /// The addresses that were found: the proxy's, if there is one.
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

/// Carries requests over real sockets. See the module's documentation.
pub struct HttpTransport {
    options: NetworkOptions,
    /// What [`proxy::VARIABLES`] were set to. Secret, because a proxy's URL may hold a password.
    environment: Vec<(&'static str, SecretBytes)>,
    /// Made by the first https request. Two threads may both make one, and one of the two is kept: a lock
    /// instead would stay locked for ever in a child that was forked meanwhile.
    tls: OnceBox<TlsConnector>,
}

impl fmt::Debug for HttpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTransport").field("options", &self.options).finish_non_exhaustive()
    }
}

impl HttpTransport {
    /// A transport with these settings and the process's environment. Opens nothing yet; a `proxy`
    /// setting that cannot be understood is refused.
    pub fn new(options: &NetworkOptions) -> Result<Self> {
        HttpTransport::with_environment(options, environment::variable)
    }

    /// [`HttpTransport::new`], with the environment as a function.
    pub fn with_environment(options: &NetworkOptions, variable: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let value = |name| Some(environment::bytes(name, variable(name)?).map(|bytes| (name, bytes)));
        let transport = HttpTransport {
            options: options.clone(),
            environment: proxy::VARIABLES.into_iter().filter_map(value).collect::<Result<_>>()?,
            tls: OnceBox::new(),
        };
        if let Some(setting) = &options.proxy {
            // Any host would do: this is about the setting alone, not about NO_PROXY.
            if let Some(url) = Url::parse("https://localhost") {
                proxy::select_proxy(&url, Some(setting.expose()), |_| None)?;
            }
        }
        Ok(transport)
    }

    /// [`Transport::send`], and what was seen on the way; also when it fails.
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
        let log = &self.options.log;
        let deadline = IoDeadline::after(timeout);
        let url = check_url(&request.url)?;
        let server = Peer::server(url.host, url.port);
        let message = ureq_adapter::to_http_request(request, &server)?;
        let connecting = deadline.min(IoDeadline::after(self.options.connect_timeout));
        let mut stream = self.connect(&url, &server, connecting, observed)?;
        stream.set_deadline(deadline);
        let connected = Instant::now();
        let connection = UreqConnection::new(stream, url.scheme == "https", &server, deadline);
        let response = ureq_adapter::exchange(message, connection, request.max_response_bytes, sink)?;
        observed.record(Phase::ReceiveBody, connected);
        log.debug(|| format!("http: {} replied {} with {} bytes", server.name, response.status, response.body.len()));
        Ok(response)
    }

    /// Opens the connection on which the request is sent.
    fn connect(
        &self,
        url: &Url<'_>,
        server: &Peer,
        deadline: IoDeadline,
        observed: &mut ConnectionTrace,
    ) -> Result<Box<dyn Stream>> {
        let log = &self.options.log;
        let start = Instant::now();
        let proxy = self.proxy_for(url)?;
        observed.record(Phase::Route, start);
        log.debug(|| match &proxy {
            Some(proxy) => format!("http: {} is reached through the proxy {proxy}", server.name),
            None => format!("http: {} is reached directly", server.name),
        });
        observed.proxy = proxy.as_ref().map(ToString::to_string);
        let mut stream: Box<dyn Stream> = match &proxy {
            None => Box::new(self.connect_tcp(url.host, url.port, server, deadline, observed)?),
            Some(proxy) => self.connect_to_proxy(proxy, url, server, deadline, observed)?,
        };
        if url.scheme == "https" {
            let start = Instant::now();
            let (session, identity) =
                self.tls_connector()?.handshake(stream, url.host, server, ClientCertificate::Shown, deadline)?;
            log.debug(|| {
                format!(
                    "tls: {} speaks {}; its certificate is for {}, issued by {}",
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
        url: &Url<'_>,
        server: &Peer,
        deadline: IoDeadline,
        observed: &mut ConnectionTrace,
    ) -> Result<Box<dyn Stream>> {
        let address = if proxy.resolves_locally() {
            let found = resolve(url.host, url.port, server, deadline)?;
            let fits = |address: &&SocketAddr| proxy.scheme != Scheme::Socks4 || address.is_ipv4();
            found.iter().find(fits).or(found.first()).map(SocketAddr::ip)
        } else {
            None
        };
        let peer = proxy.peer();
        let mut stream: Box<dyn Stream> =
            Box::new(self.connect_tcp(&proxy.host, proxy.port, &peer, deadline, observed)?);
        let start = Instant::now();
        if proxy.scheme == Scheme::Https {
            let (session, _) =
                self.tls_connector()?.handshake(stream, &proxy.host, &peer, ClientCertificate::Withheld, deadline)?;
            stream = Box::new(session);
        }
        let target = Target { host: url.host, port: url.port, address };
        tunnel::open_tunnel(&mut stream, proxy, &target, deadline)?;
        observed.record(Phase::Tunnel, start);
        Ok(stream)
    }

    /// Finds and connects to the server or its proxy.
    fn connect_tcp(
        &self,
        host: &str,
        port: u16,
        peer: &Peer,
        deadline: IoDeadline,
        observed: &mut ConnectionTrace,
    ) -> Result<TcpConnection> {
        let start = Instant::now();
        observed.found = resolve(host, port, peer, deadline)?;
        let start = observed.record(Phase::Resolve, start);
        let (wire, address) = connect(&observed.found, peer, deadline)?;
        observed.record(Phase::Connect, start);
        observed.address = Some(address);
        self.options.log.debug(|| format!("http: connected to {} at {address}", peer.name));
        Ok(wire)
    }

    fn proxy_for(&self, url: &Url<'_>) -> Result<Option<ProxyUrl>> {
        let setting = self.options.proxy.as_ref().map(Secret::expose);
        proxy::select_proxy(url, setting, |name| {
            let (_, value) = self.environment.iter().find(|(have, _)| *have == name)?;
            Some(value.expose())
        })
    }

    fn tls_connector(&self) -> Result<&TlsConnector> {
        self.tls.get_or_try_init(|| TlsConnector::load(&self.options).map(Box::new))
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

/// Takes a URL apart that a secret or a token may be sent to.
fn check_url(text: &str) -> Result<Url<'_>> {
    let refuse = |message: String, advice: &str| Err(Error::new(Kind::Config, message).with_hint(advice));
    let shown = redact_url(text);
    let Some(url) = Url::parse(text) else {
        return refuse(format!("{shown:?} is not a valid http or https URL"), "use https://host/path");
    };
    if url.user_info {
        return refuse(
            format!("the URL of {} contains a user name or password", url.host),
            "leave it out; credentials have their own settings",
        );
    }
    if url.scheme == "http" && !is_loopback(url.host) {
        return refuse(
            format!("{shown:?} is not encrypted"),
            "use https; http is only allowed for this machine (localhost, 127.0.0.1, [::1])",
        );
    }
    Ok(url)
}
