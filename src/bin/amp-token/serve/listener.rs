//! Where clients connect: TCP on the loopback interface, or a Unix socket.
//!
//! - **Nobody else.** Another address than a loopback one needs `--listen-anywhere` and a certificate. A Unix socket has
//!   mode 0600 from its first moment, and the kernel says of which user a client is.
//! - **The socket's file** is replaced only if it is a socket of this user that nobody listens on, as kill -9 leaves it,
//!   and removed at the end only if it is still the same one.
//! - **Limits.** A head of at most 64 KiB that arrives within 10 s, which is also the time that a connection may be idle;
//!   a response whose client reads nothing for 60 s is given up. There are at most [`MAX_CONNECTIONS`]; when they are all
//!   in use, the one that has been idle for longest makes room for the next.

use super::body::InFlight;
use super::{Caller, Server};
use crate::exit::{CliError, CliResult, EXIT_IO};
use amp_token::log::Level;
use amp_token::sanitize::sanitize;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::fs::FlockOperation;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, Semaphore, TryAcquireError, watch};
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The most connections of clients. Each may need another one to the API.
const MAX_CONNECTIONS: usize = 4096;

/// Descriptors for everything but connections.
const OTHER_FILES: u64 = 64;

/// The time for the head of a request, for a TLS handshake, and between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The buffer for the head of a request, which hyper reads into at most twice. A token is up to some kilobytes long.
const HEAD_BUFFER: usize = 32 * 1024;

/// How long a client may read nothing of what is sent to it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long requests in progress are waited for at the end.
pub const DRAIN: Duration = Duration::from_secs(5);

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Address {
    pub fn parse(text: &str) -> CliResult<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err(CliError::usage("--listen unix: needs a path, as in unix:/run/user/1000/amp-token.sock")),
                path => Ok(Address::Unix(path.into())),
            };
        }
        let local = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
        match local.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))).or_else(|| text.parse().ok()) {
            Some(address) => Ok(Address::Tcp(address)),
            None => Err(CliError::usage(format!(
                "--listen {}: use ADDRESS:PORT, such as 127.0.0.1:8080 or [::1]:8080, or unix:PATH",
                sanitize(text, &[])
            ))),
        }
    }
}

/// A socket that listens, before the runtime is there: nothing else runs yet.
pub struct Listening {
    socket: Socket,
    tls: Option<TlsAcceptor>,
}

enum Socket {
    Tcp(std::net::TcpListener, SocketAddr),
    Unix(std::os::unix::net::UnixListener, SocketFile),
}

impl Listening {
    pub fn bind(address: &Address, tls: Option<&TlsAcceptor>) -> CliResult<Self> {
        match address {
            Address::Tcp(address) => {
                let failed = |error: io::Error| {
                    let hint = match error.kind() {
                        io::ErrorKind::AddrInUse => "; choose another port, or 0 for any free one",
                        _ => "",
                    };
                    CliError::new(EXIT_IO, format!("cannot listen on {address}: {error}{hint}"))
                };
                let listener = std::net::TcpListener::bind(address).map_err(failed)?;
                listener.set_nonblocking(true).map_err(failed)?;
                let address = listener.local_addr().map_err(failed)?;
                Ok(Listening { socket: Socket::Tcp(listener, address), tls: tls.cloned() })
            }
            Address::Unix(path) => {
                let (listener, file) = SocketFile::bind(path)?;
                Ok(Listening { socket: Socket::Unix(listener, file), tls: None })
            }
        }
    }

    /// The base URL for clients, or the path of the socket.
    pub fn base(&self) -> Result<String, &Path> {
        match &self.socket {
            Socket::Tcp(_, address) => Ok(format!("{}://{address}", if self.tls.is_some() { "https" } else { "http" })),
            Socket::Unix(_, file) => Err(&file.path),
        }
    }

    /// Whether a request with this `Host` is for this server. Web pages of a foreign name that leads to this machine (DNS
    /// rebinding) have that name in it.
    fn accepts(&self) -> Hosts {
        match &self.socket {
            Socket::Tcp(_, address) => Hosts::Of(*address),
            Socket::Unix(..) => Hosts::Any,
        }
    }

    /// Serves connections until the end is announced, and waits for those that are in use.
    pub async fn serve(
        self,
        server: Arc<Server>,
        connections: Arc<Connections>,
        mut end: watch::Receiver<bool>,
    ) -> io::Result<()> {
        let hosts = self.accepts();
        let listener = match self.socket {
            Socket::Tcp(listener, _) => AnyListener::Tcp(tokio::net::TcpListener::from_std(listener)?),
            Socket::Unix(listener, file) => AnyListener::Unix(file, tokio::net::UnixListener::from_std(listener)?),
        };
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = end.changed() => return Ok(()),
            };
            let (stream, caller) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Most often a connection that is gone already. Without descriptors, wait until one is free.
                    server.report(Level::Warning, &format!("cannot accept a connection: {error}"));
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let permit = loop {
                match Arc::clone(&connections.permits).try_acquire_owned() {
                    Ok(permit) => break permit,
                    Err(TryAcquireError::Closed) => return Ok(()),
                    Err(TryAcquireError::NoPermits) => connections.close_oldest(),
                }
                tokio::select! {
                    permit = Arc::clone(&connections.permits).acquire_owned() => match permit {
                        Ok(permit) => break permit,
                        Err(_) => return Ok(()),
                    },
                    // All had a request, and one of them has none any more.
                    () = connections.became_idle.notified() => {}
                    _ = end.changed() => return Ok(()),
                }
            };
            // Now, and not when its task runs: many may be accepted before that.
            let entry = connections.add();
            let (server, connections, tls, end) =
                (Arc::clone(&server), Arc::clone(&connections), self.tls.clone(), end.clone());
            tokio::spawn(async move {
                server.metrics.connections.inc();
                let gauge = server.metrics.connections.clone();
                let close = Arc::clone(&entry.1);
                match tls {
                    None => serve_connection(stream, entry, caller, hosts, server, &connections, end).await,
                    Some(tls) => {
                        let stream = tokio::select! {
                            stream = timeout(HEAD_TIMEOUT, tls.accept(stream)) => stream.ok().and_then(Result::ok),
                            () = close.notified() => None,
                        };
                        match stream {
                            Some(stream) => {
                                serve_connection(stream, entry, caller, hosts, server, &connections, end).await;
                            }
                            None => connections.remove(entry.0),
                        }
                    }
                }
                gauge.dec();
                drop(permit);
            });
        }
    }
}

/// The names by which clients may call this server.
#[derive(Clone, Copy)]
pub enum Hosts {
    Any,
    Of(SocketAddr),
}

impl Hosts {
    pub fn contain(self, server: &Server, host: &str) -> bool {
        let Hosts::Of(address) = self else { return true };
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !name.is_empty() && (!name.contains(':') || name.ends_with(']')) => {
                (name, port.parse().ok())
            }
            _ => (host, Some(if server.is_tls { 443 } else { 80 })),
        };
        if port != Some(address.port()) {
            return false;
        }
        let literal = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
        match literal {
            // No web page has the address of this machine as its own name.
            Some(literal) => literal == address.ip() || literal.is_loopback() || address.ip().is_unspecified(),
            None => {
                name.eq_ignore_ascii_case("localhost")
                    || server.hosts.iter().any(|host| host.eq_ignore_ascii_case(name))
            }
        }
    }
}

async fn serve_connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    (number, close): (u64, Arc<Notify>),
    caller: Caller,
    hosts: Hosts,
    server: Arc<Server>,
    connections: &Arc<Connections>,
    mut end: watch::Receiver<bool>,
) {
    let service = service_fn({
        let (server, connections, close) = (Arc::clone(&server), Arc::clone(connections), Arc::clone(&close));
        move |request| {
            let busy = connections.busy(number, &close);
            let in_flight = InFlight::begin(&server.metrics.in_flight, busy);
            let server = Arc::clone(&server);
            async move { Ok::<_, std::convert::Infallible>(server.respond(caller, hosts, in_flight, request).await) }
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BUFFER)
        .serve_connection(TokioIo::new(Impatient { stream, sleep: None }), service);
    {
        let mut connection = pin!(connection);
        loop {
            tokio::select! {
                // What a client did wrong was its response, if it could have one.
                _ = connection.as_mut() => break,
                () = close.notified() => break,
                changed = end.changed() => {
                    connection.as_mut().graceful_shutdown();
                    if changed.is_err() {
                        break;
                    }
                }
            }
        }
    }
    // After what is left of its request, which would count it as idle.
    connections.remove(number);
}

/// The connections of clients.
pub struct Connections {
    permits: Arc<Semaphore>,
    limit: usize,
    /// A connection has no request any more.
    became_idle: Notify,
    /// Those without a request, from the one that has been idle for longest.
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    next: u64,
    /// By the order in which they became idle.
    waiting: BTreeMap<u64, (u64, Arc<Notify>)>,
}

impl Connections {
    pub fn new(limit: usize) -> Self {
        Connections {
            permits: Arc::new(Semaphore::new(limit)),
            limit,
            became_idle: Notify::new(),
            idle: Mutex::default(),
        }
    }

    /// Waits until all connections are closed.
    pub async fn closed(&self) {
        let _ = self.permits.acquire_many(u32::try_from(self.limit).unwrap_or(u32::MAX)).await;
    }

    fn with<T>(&self, change: impl FnOnce(&mut Idle) -> T) -> T {
        change(&mut self.idle.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self) -> (u64, Arc<Notify>) {
        let close = Arc::new(Notify::new());
        let number = self.with(|idle| {
            idle.next += 1;
            let number = idle.next;
            idle.waiting.insert(number, (number, Arc::clone(&close)));
            number
        });
        (number, close)
    }

    fn remove(&self, number: u64) {
        self.with(|idle| idle.waiting.retain(|_, (have, _)| *have != number));
    }

    fn close_oldest(&self) {
        if let Some((_, (_, close))) = self.with(|idle| idle.waiting.pop_first()) {
            close.notify_one();
        }
    }

    /// A connection has a request until the returned value is dropped.
    fn busy(self: &Arc<Self>, number: u64, close: &Arc<Notify>) -> Busy {
        self.remove(number);
        Busy { connections: Arc::clone(self), number, close: Arc::clone(close) }
    }
}

/// A connection that has a request.
pub struct Busy {
    connections: Arc<Connections>,
    number: u64,
    close: Arc<Notify>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.connections.with(|idle| {
            idle.next += 1;
            idle.waiting.insert(idle.next, (self.number, Arc::clone(&self.close)));
        });
        self.connections.became_idle.notify_one();
    }
}

/// How many connections there may be, and the limit of descriptors that child processes get back. The limit of this
/// process is raised as far as it may be: the usual one, 1024, is for programs that use `select`.
pub fn connection_limit(raise: bool) -> (usize, Option<Rlimit>) {
    let before = getrlimit(Resource::Nofile);
    let wanted = 2 * MAX_CONNECTIONS as u64 + OTHER_FILES;
    let mut limit = before.current.unwrap_or(wanted);
    let mut changed = None;
    if raise && limit < wanted {
        let current = wanted.min(before.maximum.unwrap_or(wanted));
        if setrlimit(Resource::Nofile, Rlimit { current: Some(current), ..before }).is_ok() {
            (limit, changed) = (current, Some(before));
        }
    }
    let connections = usize::try_from(limit.saturating_sub(OTHER_FILES) / 2).unwrap_or(MAX_CONNECTIONS);
    (connections.clamp(8, MAX_CONNECTIONS), changed)
}

enum AnyListener {
    Tcp(tokio::net::TcpListener),
    /// With its file, which is removed before it is closed: as long as it is open, no other file has the same inode.
    Unix(#[expect(dead_code, reason = "removes the file when it is dropped")] SocketFile, tokio::net::UnixListener),
}

impl AnyListener {
    async fn accept(&self) -> io::Result<(AnyStream, Caller)> {
        match self {
            AnyListener::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                let _ = stream.set_nodelay(true);
                Ok((AnyStream::Tcp(stream), Caller::Other))
            }
            AnyListener::Unix(_, listener) => {
                let (stream, _) = listener.accept().await?;
                let user = stream.peer_cred()?.uid();
                let is_same = user == rustix::process::geteuid().as_raw();
                Ok((AnyStream::Unix(stream), if is_same { Caller::SameUser } else { Caller::Other }))
            }
        }
    }
}

enum AnyStream {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

macro_rules! delegate {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            AnyStream::Tcp($stream) => $call,
            AnyStream::Unix($stream) => $call,
        }
    };
}

impl AsyncRead for AnyStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_read(context, buffer))
    }
}

impl AsyncWrite for AnyStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        delegate!(self, stream => Pin::new(stream).poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_shutdown(context))
    }
}

/// A stream that fails if its peer reads nothing for some time: hyper has no timeout for that.
struct Impatient<S> {
    stream: S,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(context, bytes) {
            Poll::Pending => {
                let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep(WRITE_TIMEOUT)));
                sleep.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
            }
            written => {
                self.sleep = None;
                written
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The file of a Unix socket that this process has made. Removed when it is dropped.
struct SocketFile {
    path: PathBuf,
    /// Its device and inode: a file that has taken its place is somebody else's.
    identity: (u64, u64),
}

impl SocketFile {
    fn bind(path: &Path) -> CliResult<(std::os::unix::net::UnixListener, Self)> {
        let shown = sanitize(&path.display().to_string(), &[]);
        let failed = |error: io::Error| CliError::new(EXIT_IO, format!("cannot listen on {shown}: {error}"));
        let directory = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        // Two servers that start at once must not both find the socket of an earlier one, and remove each other's.
        let directory = File::open(directory).map_err(failed)?;
        for _ in 0..200 {
            match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
                Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(Duration::from_millis(10)),
                // Without a lock if the file system has none, or somebody keeps it.
                _ => break,
            }
        }
        if let Ok(about) = std::fs::symlink_metadata(path) {
            let is_own = about.file_type().is_socket() && about.uid() == rustix::process::geteuid().as_raw();
            if !is_own {
                let message = format!(
                    "cannot listen on {shown}: it exists and is not a socket of this user; choose another path"
                );
                return Err(CliError::new(EXIT_IO, message));
            }
            match std::os::unix::net::UnixStream::connect(path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path).map_err(failed)?;
                }
                Err(error) => return Err(failed(error)),
                Ok(_) => {
                    let message =
                        format!("cannot listen on {shown}: another process listens on it; choose another path");
                    return Err(CliError::new(EXIT_IO, message));
                }
            }
        }
        // Nobody else may connect, not even before the mode is set. There is no other thread yet that makes files.
        let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
        let listener = std::os::unix::net::UnixListener::bind(path);
        rustix::process::umask(before);
        let listener = listener.map_err(failed)?;
        let about = std::fs::symlink_metadata(path).map_err(failed)?;
        let file = SocketFile { path: path.to_owned(), identity: (about.dev(), about.ino()) };
        if about.permissions().mode() & 0o177 != 0 {
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).map_err(failed)?;
        }
        listener.set_nonblocking(true).map_err(failed)?;
        Ok((listener, file))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|about| (about.dev(), about.ino()) == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// TLS with this certificate and key.
pub fn tls(certificate: &Path, key: &Path) -> CliResult<TlsAcceptor> {
    let failed = |what: &str, path: &Path, error: &dyn std::fmt::Display| {
        CliError::new(
            EXIT_IO,
            format!("cannot use the {what} in {}: {error}", sanitize(&path.display().to_string(), &[])),
        )
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| failed("certificate", certificate, &error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| failed("key", key, &error))?;
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_no_client_auth())
        .and_then(|builder| builder.with_single_cert(chain, private))
        .map_err(|error| failed("certificate", certificate, &error))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_of_this_machine_or_a_path() {
        for (text, parsed) in [
            ("127.0.0.1:80", Some(Address::Tcp(([127, 0, 0, 1], 80).into()))),
            ("localhost:0", Some(Address::Tcp(([127, 0, 0, 1], 0).into()))),
            ("[::1]:1", Some(Address::Tcp((std::net::Ipv6Addr::LOCALHOST, 1).into()))),
            ("unix:/a", Some(Address::Unix("/a".into()))),
            ("unix:", None),
            ("127.0.0.1", None),
            ("8080", None),
            ("host:80", None),
        ] {
            assert_eq!(Address::parse(text).ok(), parsed, "{text}");
        }
    }

    #[test]
    fn the_connection_that_was_idle_for_longest_makes_room() {
        let connections = Arc::new(Connections::new(8));
        let (first, first_close) = connections.add();
        let (_, second_close) = connections.add();
        drop(connections.busy(first, &first_close));
        connections.close_oldest();
        let is_told = |close: &Arc<Notify>| {
            let mut told = pin!(close.notified());
            told.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
        };
        assert!(is_told(&second_close) && !is_told(&first_close));
        let busy = connections.busy(first, &first_close);
        connections.close_oldest();
        assert!(!is_told(&first_close));
        drop(busy);
        connections.remove(first);
        connections.close_oldest();
        assert!(!is_told(&first_close));
    }
}
