//! A local server that stands in for Amplience, for demos and tests: no account and no network needed.
//!
//! It promises to answer as Amplience is known to answer (tokens, hubs, refusals), to fail as networks
//! and servers fail when it is told to ([`Fault`]), to count what it sees ([`Stats`]), and never to listen
//! beyond the loopback interface. It prints nothing of its own accord.
//!
//! ```
//! use amp_emulator::{Emulator, Fault};
//! let emulator = Emulator::builder().expires_in(300).client("id", "secret").start()?;
//! emulator.fault(Fault::status(503).retry_after(1));
//! println!("the next token request to {} fails", emulator.url());
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! | module | what it holds |
//! | --- | --- |
//! | `http` | requests and replies as bytes |
//! | `server` | connections, and how replies are carried or are not |
//! | `faults` | the table of what is to go wrong |
//! | `shared` | the state: credentials, tokens, counters |
//! | `tokens` | access tokens and personal access tokens |
//! | `oauth`, `api` | the endpoints of Amplience |
//! | `control` | the endpoints of the emulator itself: `/_emulator/…` |
//! | `tls` | the authority and its certificates |
//! | `cli` | the `amp-emulator` command |

mod admin;
mod api;
mod cli;
mod faults;
mod http;
mod oauth;
mod server;
mod state;
mod tls;
mod tokens;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use cli::{run_from_args, serve};
pub use faults::Fault;
pub use http::{Request, http_date};
use server::Server;
use state::Shared;
pub use state::Stats;
use tls::Authority;
pub use tls::CertificateKind;

/// How an emulator is to be: see [`Emulator::builder`].
#[derive(Debug, Clone)]
pub struct Builder {
    port: u16,
    tls: bool,
    mutual_tls: bool,
    certificate: CertificateKind,
    ca_file: Option<PathBuf>,
    expires_in: u64,
    client_id: String,
    client_secret: String,
}

impl Builder {
    /// Listens on this port; else on any that is free.
    #[must_use]
    pub fn port(self, port: u16) -> Builder {
        Builder { port, ..self }
    }

    /// Serves https, with a certificate by an authority of its own: see [`Emulator::ca_file`].
    #[must_use]
    pub fn tls(self, tls: bool) -> Builder {
        Builder { tls, ..self }
    }

    /// Also asks clients for a certificate: see [`Emulator::client_certificate_file`].
    #[must_use]
    pub fn mutual_tls(self, mutual_tls: bool) -> Builder {
        Builder { tls: self.tls || mutual_tls, mutual_tls, ..self }
    }

    /// The certificate to start with; else a valid one.
    #[must_use]
    pub fn certificate(self, certificate: CertificateKind) -> Builder {
        Builder { certificate, ..self }
    }

    /// Where the authority's certificate goes; else into a temporary file. A file at a path of one's own stays.
    #[must_use]
    pub fn ca_file(self, path: impl Into<PathBuf>) -> Builder {
        Builder { ca_file: Some(path.into()), ..self }
    }

    /// The lifetime of access tokens in seconds; else 300.
    #[must_use]
    pub fn expires_in(self, seconds: u64) -> Builder {
        Builder { expires_in: seconds, ..self }
    }

    /// The credentials to accept; else random ones.
    #[must_use]
    pub fn client(self, id: impl Into<String>, secret: impl Into<String>) -> Builder {
        self.client_id(id).client_secret(secret)
    }

    /// The client id to accept; else a random UUID.
    #[must_use]
    pub fn client_id(self, id: impl Into<String>) -> Builder {
        Builder { client_id: id.into(), ..self }
    }

    /// The client secret to accept; else 64 random hex digits.
    #[must_use]
    pub fn client_secret(self, secret: impl Into<String>) -> Builder {
        Builder { client_secret: secret.into(), ..self }
    }

    /// Starts it. When this returns, the emulator accepts connections.
    ///
    /// # Errors
    /// If the port is taken, or a file cannot be written.
    pub fn start(self) -> io::Result<Emulator> {
        tokens::prepare();
        let authority = self.tls.then(|| Authority::new("amp-emulator CA", self.mutual_tls)).transpose()?;
        let files = authority.as_ref().map(|authority| Files::write(authority, &self)).transpose()?;
        let shared = Arc::new(Shared::new(self.client_id, self.client_secret, self.expires_in, authority));
        if self.tls {
            shared.set_certificate(self.certificate)?;
        }
        let server = Server::start(&shared, self.port)?;
        let port = server.address.port();
        Ok(Emulator { shared, port, server: Some(server), files })
    }
}

/// A running emulator. Drop stops it and removes its temporary files.
pub struct Emulator {
    shared: Arc<Shared>,
    port: u16,
    server: Option<Server>,
    files: Option<Files>,
}

/// Where it is and what it accepts.
impl Emulator {
    /// Begins to describe an emulator: without TLS, on any free port, with random credentials and tokens
    /// that live for 300 seconds.
    #[must_use]
    pub fn builder() -> Builder {
        Builder {
            port: 0,
            tls: false,
            mutual_tls: false,
            certificate: CertificateKind::Valid,
            ca_file: None,
            expires_in: 300,
            client_id: tokens::uuid(),
            client_secret: tokens::hex(&tokens::random::<32>()),
        }
    }

    /// The base address of all endpoints: `http://127.0.0.1:PORT`, or `https://localhost:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        let host = if self.files.is_some() { "localhost" } else { "127.0.0.1" };
        format!("{}://{host}:{}", self.shared.scheme(), self.port)
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The client id that it accepts.
    #[must_use]
    pub fn client_id(&self) -> String {
        self.shared.state().client_id.clone()
    }

    /// The client secret that it accepts.
    #[must_use]
    pub fn client_secret(&self) -> String {
        self.shared.state().client_secret.clone()
    }

    /// The PEM file with the certificate of the authority to trust.
    ///
    /// # Panics
    /// Without TLS.
    #[must_use]
    pub fn ca_file(&self) -> &Path {
        self.ca_file_if_any().expect("an emulator with TLS")
    }

    pub(crate) fn ca_file_if_any(&self) -> Option<&Path> {
        self.files.as_ref().map(|files| files.ca.as_path())
    }

    /// The certificate of the authority to trust, as PEM; empty without TLS.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        self.shared.authority.as_ref().map_or("", |authority| &authority.pem)
    }

    /// The PEM file with a client's certificate, with mutual TLS.
    #[must_use]
    pub fn client_certificate_file(&self) -> Option<&Path> {
        Some(&self.files.as_ref()?.client.as_ref()?.0)
    }

    /// The PEM file with the key of the client's certificate, with mutual TLS.
    #[must_use]
    pub fn client_key_file(&self) -> Option<&Path> {
        Some(&self.files.as_ref()?.client.as_ref()?.1)
    }
}

/// What it has seen.
impl Emulator {
    /// The counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.state().stats.clone()
    }

    /// The latest requests (1000 at most) but for those to `/_emulator/`, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.shared.state().requests.iter().cloned().collect()
    }

    /// Zeroes the counters, and forgets the faults and the requests.
    pub fn reset(&self) {
        self.shared.reset();
    }

    /// Waits until so many token requests have arrived since the start or the last reset, answered or not.
    /// False if they have not in time.
    #[must_use]
    pub fn wait_for_token_requests(&self, count: u64, timeout: Duration) -> bool {
        self.shared.wait_until(timeout, |state| state.stats.token_requests >= count)
    }
}

/// What it is to do from now on.
impl Emulator {
    /// Adds a fault after those that are waiting.
    pub fn fault(&self, fault: Fault) {
        self.shared.state().faults.push(fault);
    }

    /// Replaces all faults.
    pub fn faults(&self, faults: impl IntoIterator<Item = Fault>) {
        self.shared.state().faults = faults.into_iter().collect();
    }

    /// Forgets all faults.
    pub fn clear_faults(&self) {
        self.faults([]);
    }

    /// Has token requests counted, but not answered, until the guard is dropped.
    #[must_use]
    pub fn hold(&self) -> PausedRequests {
        self.shared.state().holds += 1;
        PausedRequests(self.shared.clone())
    }

    /// Honours this token no more.
    pub fn revoke(&self, token: &str) {
        self.shared.state().tokens.revoke(token);
    }

    /// Honours no token any more that exists now.
    pub fn revoke_all(&self) {
        self.shared.state().tokens.revoke_all();
    }

    /// Accepts these credentials, and no longer the ones before. Tokens stay good.
    pub fn set_credentials(&self, id: impl Into<String>, secret: impl Into<String>) {
        self.shared.set_credentials(id.into(), secret.into());
    }

    /// Sets the lifetime of tokens that are issued from now on, in seconds.
    pub fn set_expires_in(&self, seconds: u64) {
        self.shared.state().expires_in = seconds;
    }

    /// Sets the emulator's clock forward: a test need not wait for a token to expire. Whole seconds count.
    pub fn advance(&self, duration: Duration) {
        self.shared.advance(duration.as_secs());
    }

    /// Shows this certificate to all connections from now on.
    ///
    /// # Errors
    /// Without TLS.
    pub fn set_certificate(&self, kind: CertificateKind) -> io::Result<()> {
        self.shared.set_certificate(kind)
    }

    /// Stops listening and breaks all connections off. All else is kept, for [`Emulator::restart`].
    pub fn stop(&mut self) {
        self.server = None;
    }

    /// Listens again on the same port, as the same server: tokens, counters and faults are what they were.
    ///
    /// # Errors
    /// If the port was taken meanwhile.
    pub fn restart(&mut self) -> io::Result<()> {
        self.stop();
        self.server = Some(Server::start(&self.shared, self.port)?);
        Ok(())
    }
}

/// Holds token requests back while it exists: see [`Emulator::hold`].
pub struct PausedRequests(Arc<Shared>);

impl PausedRequests {
    /// Lets the requests go, as dropping does.
    pub fn release(self) {}
}

impl Drop for PausedRequests {
    fn drop(&mut self) {
        self.0.change(|state| state.holds -= 1);
    }
}

/// The PEM files for clients, in a temporary folder that goes when this is dropped.
struct Files {
    folder: PathBuf,
    ca: PathBuf,
    client: Option<(PathBuf, PathBuf)>,
}

impl Files {
    fn write(authority: &Authority, builder: &Builder) -> io::Result<Files> {
        let folder = std::env::temp_dir().join(format!("amp-emulator-{}", tokens::uuid()));
        create_private_folder(&folder)?;
        // From here on the folder is removed even if a file cannot be written.
        let mut files = Files { ca: folder.join("ca.pem"), folder, client: None };
        if let Some(path) = &builder.ca_file {
            files.ca.clone_from(path);
        }
        fs::write(&files.ca, &authority.pem)?;
        if builder.mutual_tls {
            let (certificate, key) = authority.client_certificate()?;
            let paths = (files.folder.join("client.pem"), files.folder.join("client-key.pem"));
            fs::write(&paths.0, certificate)?;
            fs::write(&paths.1, key)?;
            files.client = Some(paths);
        }
        Ok(files)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn create_private_folder(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::DirBuilderExt::mode(&mut fs::DirBuilder::new(), 0o700).create(path);
    #[cfg(not(unix))]
    fs::create_dir(path)
}
