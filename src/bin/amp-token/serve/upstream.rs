//! The connections of the proxy to the API.
//!
//! They are opened by the library's own code, on a blocking thread, so that the proxy trusts the same certificates and
//! goes through the same proxies as every other request. Then hyper speaks HTTP over them, and keeps them for the next
//! request.

use super::body::{AnyBody, BoxError};
use amp_token::config::NetworkOptions;
use amp_token::error::Result;
use amp_token::net::http::HttpTransport;
use amp_token::net::open_connection::OpenConnection;
use amp_token::net::url::Url;
use hyper::Uri;
use hyper::rt::ReadBufCursor;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::Ready;
use tokio::io::unix::{AsyncFd, AsyncFdReadyMutGuard};
use tokio::sync::Semaphore;
use tower_service::Service;

/// How many connections are opened at once. Each takes a thread until it is open, and one that cannot be opened takes it
/// until `connect_timeout_ms`.
const CONNECTING: usize = 32;

/// How long a connection is kept for another request; see `net::idle` of the library.
const IDLE: Duration = Duration::from_secs(30);

/// How many are kept.
const MAX_IDLE: usize = 32;

/// The size of the buffer between a connection and hyper.
const BUFFER: usize = 16 * 1024;

/// An HTTP client for the origin of the API.
pub type ApiClient = Client<Connector, AnyBody>;

/// A client that connects to the origin of `api_url`.
pub fn client(api_url: &Url, network: &NetworkOptions, user_agent: &str, connect_limit: Duration) -> Result<ApiClient> {
    let connector = Connector {
        transport: Arc::new(HttpTransport::new(network)?),
        url: Arc::new(api_url.clone()),
        user_agent: user_agent.into(),
        limit: connect_limit,
        permits: Arc::new(Semaphore::new(CONNECTING)),
    };
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(MAX_IDLE)
        .build(connector))
}

/// Opens connections to the API, whatever the URI of a request is.
#[derive(Clone)]
pub struct Connector {
    transport: Arc<HttpTransport>,
    url: Arc<Url>,
    user_agent: Arc<str>,
    limit: Duration,
    permits: Arc<Semaphore>,
}

impl Service<Uri> for Connector {
    type Response = Upstream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = std::result::Result<Upstream, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Connector { transport, url, user_agent, limit, permits } = self.clone();
        Box::pin(async move {
            let permit = permits.acquire_owned().await?;
            let work = move || {
                let _permit = permit;
                OpenConnection::open(&transport, &url, &user_agent, limit)
            };
            let connection = tokio::task::spawn_blocking(work).await??;
            Ok(Upstream(register(connection)?))
        })
    }
}

#[allow(unsafe_code, reason = "the runtime watches the socket")]
fn register(connection: OpenConnection) -> io::Result<AsyncFd<OpenConnection>> {
    // SAFETY: the connection owns its socket, which it closes only when it is dropped, and always returns the same one.
    unsafe { AsyncFd::register(connection) }.map_err(Into::into)
}

/// A connection that hyper reads and writes.
pub struct Upstream(AsyncFd<OpenConnection>);

impl Connection for Upstream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Upstream {
    /// Tries an operation, and again whenever the socket is ready, until it does not block.
    ///
    /// The first try needs no readiness: TLS may hold what arrived earlier.
    fn poll<T>(
        &mut self,
        context: &mut Context<'_>,
        wait: impl for<'a> Fn(
            &'a mut AsyncFd<OpenConnection>,
            &mut Context<'_>,
        ) -> Poll<io::Result<AsyncFdReadyMutGuard<'a, OpenConnection>>>,
        mut operation: impl FnMut(&mut OpenConnection) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        let is_blocked = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        match operation(self.0.get_mut()) {
            Err(error) if is_blocked(&error) || error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return Poll::Ready(outcome),
        }
        loop {
            let mut guard = ready!(wait(&mut self.0, context))?;
            match operation(guard.get_inner_mut()) {
                Err(error) if is_blocked(&error) => guard.clear_ready_matching(Ready::ALL),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => return Poll::Ready(outcome),
            }
        }
    }
}

impl hyper::rt::Read for Upstream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut bytes = [0; BUFFER];
        let size = buffer.remaining().min(BUFFER);
        let read = self.poll(context, AsyncFd::poll_read_ready_mut, |connection| connection.read(&mut bytes[..size]));
        Poll::Ready(ready!(read).map(|count| buffer.put_slice(&bytes[..count])))
    }
}

impl hyper::rt::Write for Upstream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(context, AsyncFd::poll_write_ready_mut, |connection| connection.write(bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(context, AsyncFd::poll_write_ready_mut, OpenConnection::flush)
    }

    /// Dropping it closes it, with the end of TLS.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(context)
    }
}
