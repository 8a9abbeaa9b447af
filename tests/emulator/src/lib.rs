//! A local server that stands in for Amplience, for demos and tests: no account and no network needed.
//!
//! It sends the responses that Amplience is known to send (tokens, hubs, errors), injects the failures of
//! networks and servers on request ([`Fault`]), counts requests ([`Stats`]), and listens only on the loopback
//! interface. The library prints nothing.
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
//! | `http` | parsing requests, formatting responses |
//! | `server` | connections, and how responses are sent |
//! | `faults` | the faults to inject |
//! | `state` | the shared state: credentials, tokens, statistics |
//! | `tokens` | access tokens and personal access tokens |
//! | `oauth`, `api` | the endpoints of Amplience |
//! | `admin` | the admin API: `/_emulator/…` |
//! | `tls` | the certificate authority and its certificates |
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

pub use cli::{run_command, run_from_args, serve};
pub use faults::Fault;
pub use http::{Request, http_date};
use server::Server;
pub use state::Stats;
use state::{Initial, Shared};
use tls::Ca;
pub use tls::CertificateKind;

/// The configuration of an emulator: see [`Emulator::builder`].
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
    /// The port to listen on. Default: any free port.
    #[must_use]
    pub fn port(self, port: u16) -> Builder {
        Builder { port, ..self }
    }

    /// Serves https, with a certificate signed by the emulator's own CA: see [`Emulator::ca_file`].
    #[must_use]
    pub fn tls(self, tls: bool) -> Builder {
        Builder { tls, ..self }
    }

    /// Serves https and requires a client certificate: see [`Emulator::client_certificate_file`].
    #[must_use]
    pub fn mutual_tls(self, mutual_tls: bool) -> Builder {
        Builder { tls: self.tls || mutual_tls, mutual_tls, ..self }
    }

    /// The first certificate. Default: a valid one.
    #[must_use]
    pub fn certificate(self, certificate: CertificateKind) -> Builder {
        Builder { certificate, ..self }
    }

    /// Where to write the CA certificate. Default: a temporary file. A file at a given path is not removed.
    #[must_use]
    pub fn ca_file(self, path: impl Into<PathBuf>) -> Builder {
        Builder { ca_file: Some(path.into()), ..self }
    }

    /// The lifetime of access tokens in seconds. Default: 300.
    #[must_use]
    pub fn expires_in(self, seconds: u64) -> Builder {
        Builder { expires_in: seconds, ..self }
    }

    /// The credentials to accept. Default: random ones.
    #[must_use]
    pub fn client(self, id: impl Into<String>, secret: impl Into<String>) -> Builder {
        self.client_id(id).client_secret(secret)
    }

    /// The client ID to accept. Default: a random UUID.
    #[must_use]
    pub fn client_id(self, id: impl Into<String>) -> Builder {
        Builder { client_id: id.into(), ..self }
    }

    /// The client secret to accept. Default: 64 random hex digits.
    #[must_use]
    pub fn client_secret(self, secret: impl Into<String>) -> Builder {
        Builder { client_secret: secret.into(), ..self }
    }

    /// Starts the emulator. When this returns, it accepts connections.
    ///
    /// # Errors
    /// If the port is in use or a file cannot be written.
    pub fn start(self) -> io::Result<Emulator> {
        tokens::prepare();
        let ca = self.tls.then(|| Ca::new("amp-emulator CA", self.mutual_tls)).transpose()?;
        let files = ca.as_ref().map(|ca| Files::write(ca, &self)).transpose()?;
        let initial = Initial {
            client_id: self.client_id,
            client_secret: self.client_secret,
            expires_in: self.expires_in,
            certificate: self.certificate,
        };
        let shared = Arc::new(Shared::new(initial, ca));
        shared.reset()?;
        let server = Server::start(&shared, self.port)?;
        let port = server.address.port();
        Ok(Emulator { shared, port, server: Some(server), files })
    }
}

/// A running emulator. Dropping it stops the server and removes its temporary files.
pub struct Emulator {
    shared: Arc<Shared>,
    port: u16,
    server: Option<Server>,
    files: Option<Files>,
}

/// Construction, URL and credentials.
impl Emulator {
    /// Returns the default configuration: no TLS, any free port, random credentials, and tokens that are valid
    /// for 300 seconds.
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

    /// The base URL of all endpoints: `http://127.0.0.1:PORT`, or `https://localhost:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        let host = if self.files.is_some() { "localhost" } else { "127.0.0.1" };
        format!("{}://{host}:{}", self.shared.scheme(), self.port)
    }

    /// The port on which it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The client ID that it accepts.
    #[must_use]
    pub fn client_id(&self) -> String {
        self.shared.state().client_id.clone()
    }

    /// The client secret that it accepts.
    #[must_use]
    pub fn client_secret(&self) -> String {
        self.shared.state().client_secret.clone()
    }

    /// The settings of a client: `auth_url`, `api_url`, `client_id`, `client_secret`; with TLS also `ca_file`, and with
    /// mutual TLS also `client_certificate` and `client_key`.
    #[must_use]
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let text = |path: &Path| path.display().to_string();
        let mut settings = vec![
            ("auth_url", self.url()),
            ("api_url", self.url()),
            ("client_id", self.client_id()),
            ("client_secret", self.client_secret()),
        ];
        let files = [
            ("ca_file", self.ca_file_if_any()),
            ("client_certificate", self.client_certificate_file()),
            ("client_key", self.client_key_file()),
        ];
        settings.extend(files.into_iter().filter_map(|(name, path)| Some((name, text(path?)))));
        settings
    }

    /// The ID of the first hub.
    #[must_use]
    pub fn hub_id() -> String {
        api::hub_id(0)
    }

    /// The ID of the first content repository of that hub.
    #[must_use]
    pub fn repository_id() -> String {
        api::repository_id(0, 0)
    }

    /// The PEM file with the certificate of the CA that clients must trust.
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

    /// The certificate of the CA that clients must trust, as PEM; empty without TLS.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        self.shared.ca.as_ref().map_or("", |ca| &ca.pem)
    }

    /// The PEM file with a client certificate, with mutual TLS.
    #[must_use]
    pub fn client_certificate_file(&self) -> Option<&Path> {
        Some(&self.files.as_ref()?.client.as_ref()?.0)
    }

    /// The PEM file with the key of the client certificate, with mutual TLS.
    #[must_use]
    pub fn client_key_file(&self) -> Option<&Path> {
        Some(&self.files.as_ref()?.client.as_ref()?.1)
    }
}

/// Statistics and recorded requests.
impl Emulator {
    /// The statistics.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.state().stats.clone()
    }

    /// The latest requests (at most 1000), except those to `/_emulator/`, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.shared.state().requests.iter().cloned().collect()
    }

    /// Restores the state after the start: credentials, lifetime of tokens, clock and certificate. Forgets all tokens,
    /// content items, statistics, faults and recorded requests.
    pub fn reset(&self) {
        // The certificate was made once already, at the start.
        let _ = self.shared.reset();
    }

    /// Resets the statistics, and removes the faults and the recorded requests. Tokens and content items stay.
    pub fn reset_statistics(&self) {
        self.shared.reset_statistics();
    }

    /// Waits until `count` token requests have arrived since the start or the last reset, with or without a
    /// response. Returns false on timeout.
    #[must_use]
    pub fn wait_for_token_requests(&self, count: u64, timeout: Duration) -> bool {
        self.shared.wait_until(timeout, |state| state.stats.token_requests >= count)
    }
}

/// Control: faults, tokens, credentials, clock, certificate, stop and restart.
impl Emulator {
    /// Adds a fault after the pending ones.
    pub fn fault(&self, fault: Fault) {
        self.shared.state().faults.push(fault);
    }

    /// Replaces all faults.
    pub fn faults(&self, faults: impl IntoIterator<Item = Fault>) {
        self.shared.state().faults = faults.into_iter().collect();
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.faults([]);
    }

    /// Counts token requests, but sends no response to them until the guard is dropped.
    #[must_use]
    pub fn pause_token_requests(&self) -> PausedRequests {
        self.shared.state().pauses += 1;
        PausedRequests(self.shared.clone())
    }

    /// Revokes a token.
    pub fn revoke(&self, token: &str) {
        self.shared.state().tokens.revoke(token);
    }

    /// Revokes all tokens.
    pub fn revoke_all(&self) {
        self.shared.state().tokens.revoke_all();
    }

    /// Accepts only these credentials from now on. Issued tokens stay valid.
    pub fn set_credentials(&self, id: impl Into<String>, secret: impl Into<String>) {
        self.shared.set_credentials(id.into(), secret.into());
    }

    /// Sets the lifetime in seconds of tokens that are issued from now on.
    pub fn set_expires_in(&self, seconds: u64) {
        self.shared.state().expires_in = seconds;
    }

    /// Moves the emulator's clock forward, so that a test need not wait until a token expires. Fractions of a
    /// second are ignored.
    pub fn advance(&self, duration: Duration) {
        self.shared.advance(duration.as_secs());
    }

    /// Presents this certificate to new connections.
    ///
    /// # Errors
    /// Without TLS.
    pub fn set_certificate(&self, kind: CertificateKind) -> io::Result<()> {
        self.shared.set_certificate(kind)
    }

    /// Stops listening and closes all connections. The state is kept for [`Emulator::restart`].
    pub fn stop(&mut self) {
        self.server = None;
    }

    /// Listens again on the same port, with the same tokens, statistics and faults.
    ///
    /// # Errors
    /// If the port is in use by another program.
    pub fn restart(&mut self) -> io::Result<()> {
        self.stop();
        self.server = Some(Server::start(&self.shared, self.port)?);
        Ok(())
    }
}

/// Delays the responses to token requests while it exists: see [`Emulator::pause_token_requests`].
pub struct PausedRequests(Arc<Shared>);

impl PausedRequests {
    /// Resumes the requests, as dropping does.
    pub fn release(self) {}
}

impl Drop for PausedRequests {
    fn drop(&mut self) {
        self.0.change(|state| state.pauses -= 1);
    }
}

/// The PEM files for clients, in a temporary directory that is removed on drop.
struct Files {
    dir: PathBuf,
    ca: PathBuf,
    client: Option<(PathBuf, PathBuf)>,
}

impl Files {
    fn write(ca: &Ca, builder: &Builder) -> io::Result<Files> {
        let dir = std::env::temp_dir().join(format!("amp-emulator-{}", tokens::uuid()));
        create_private_dir(&dir)?;
        // From here on the directory is removed even if a file cannot be written.
        let mut files = Files { ca: dir.join("ca.pem"), dir, client: None };
        if let Some(path) = &builder.ca_file {
            files.ca.clone_from(path);
        }
        fs::write(&files.ca, &ca.pem)?;
        if builder.mutual_tls {
            let (certificate, key) = ca.client_certificate()?;
            let paths = (files.dir.join("client.pem"), files.dir.join("client-key.pem"));
            fs::write(&paths.0, certificate)?;
            fs::write(&paths.1, key)?;
            files.client = Some(paths);
        }
        Ok(files)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn create_private_dir(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::DirBuilderExt::mode(&mut fs::DirBuilder::new(), 0o700).create(path);
    #[cfg(not(unix))]
    fs::create_dir(path)
}
