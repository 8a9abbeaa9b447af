//! TLS connections: trusted CA certificates, the client certificate, and the handshake.
//!
//! - The trusted certificates are those of the system (or, without raised privileges, of `SSL_CERT_FILE` and
//!   `SSL_CERT_DIR`) and those of `ca_file`. If there are none, that is an error with a hint, not a panic.
//! - TLS 1.2 and 1.3. Sessions are never resumed: each connection is authenticated, and a forked child shares no
//!   session with its parent.
//! - The error for a rejected certificate has the reason and the issuer that the certificate names. This reveals
//!   a proxy that inspects TLS and replaces every certificate by its own.
//! - The client certificate is only sent to the servers of `auth_url` and `api_url`, not to a proxy or to Redis.
//! - A connection ends with `close_notify`, so that servers do not log it as one that was cut off.
//! - Nothing is installed for the whole process: rustls gets its cryptography provider explicitly.

use crate::config::NetworkOptions;
use crate::error::{Error, Kind, Phase, Result};
use crate::net::pem;
use crate::net::tcp::{Peer, Stream, is_disconnect};
use crate::net::trust::Trust;
use crate::net::verifier::{Progress, RecordingVerifier};
use crate::net::x509::CertificateNames;
use crate::sys::deadline::IoDeadline;
use crate::sys::fork;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The server's part of a successful handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerTlsInfo {
    /// `TLS 1.2` or `TLS 1.3`.
    pub version: &'static str,
    /// The issuer of its certificate: organization and common name.
    pub issuer: String,
    /// The subject of its certificate: organization and common name.
    pub subject: String,
}

/// Whether the client certificate is sent to a peer that requests one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientCertificate {
    /// The servers of `auth_url` and `api_url`, for which it is set.
    Shown,
    /// All other peers: proxies and Redis. The certificate would disclose the identity of this client to them, and is
    /// not meant for them.
    Withheld,
}

/// The configuration that all TLS connections share.
pub(crate) struct TlsConnector {
    config: ClientConfig,
    trust: Arc<Trust>,
    has_client_cert: bool,
}

impl TlsConnector {
    /// Reads the certificates and keys of the settings, and the CA certificates of the system.
    pub(crate) fn load(options: &NetworkOptions) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let internal = |error: &dyn std::fmt::Display| {
            Error::new(Kind::Internal, format!("cannot set up TLS: {error}")).with_phase(Phase::TlsHandshake)
        };
        let trust = Arc::new(Trust::load(options, &provider)?);
        // Each connection replaces the verifier by one that records.
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| internal(&error))?
            .with_webpki_verifier(Arc::clone(&trust.loaded().verifier));
        let mut config = match &options.client_certificate {
            Some((certificate, key)) => {
                let chain = pem::certificates(certificate, "client_certificate")?;
                builder
                    .with_client_auth_cert(chain, pem::private_key(key, "client_key")?)
                    .map_err(|error| client_auth_error(certificate, key, &error))?
            }
            None => builder.with_no_client_auth(),
        };
        config.resumption = rustls::client::Resumption::disabled();
        config.time_provider = Arc::new(WallClock);
        Ok(TlsConnector { config, trust, has_client_cert: options.client_certificate.is_some() })
    }

    /// Starts TLS with `host` over `stream`.
    pub(crate) fn handshake(
        &self,
        stream: Box<dyn Stream>,
        host: &str,
        peer: &Peer,
        certificate: ClientCertificate,
        deadline: IoDeadline,
    ) -> Result<(TlsStream, PeerTlsInfo)> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            peer.error(
                Kind::Config,
                Phase::TlsHandshake,
                format!("cannot verify the certificate of {}: invalid host name", peer.name),
            )
            .with_hint("the labels of a host name have at most 63 characters, and no hyphen at their start or end")
        })?;
        let client_cert = match certificate {
            ClientCertificate::Shown => Some(Arc::clone(&self.config.client_auth_cert_resolver)),
            ClientCertificate::Withheld => None,
        };
        let trust = Arc::clone(&self.trust);
        let verifier = Arc::new(RecordingVerifier::new(trust, client_cert, self.has_client_cert, deadline));
        let mut config = self.config.clone();
        config.client_auth_cert_resolver = verifier.clone();
        config.dangerous().set_certificate_verifier(verifier.clone());
        let tls = ClientConnection::new(Arc::new(config), name).map_err(|error| {
            let failed = format!("cannot start TLS with {}: {error}", peer.name);
            match error {
                // As in a sandbox that permits neither the system call nor the device.
                rustls::Error::FailedToGetRandomBytes => peer
                    .error(Kind::Io, Phase::TlsHandshake, failed)
                    .with_hint("permit getrandom(2) in the sandbox of this process"),
                _ => peer.error(Kind::Internal, Phase::TlsHandshake, format!("internal error: {failed}")),
            }
        })?;
        let mut session =
            TlsStream { tls, inner: stream, verifier, peer: peer.clone(), generation: fork::generation() };
        session.handshake().map_err(|error| peer.io_error(Phase::TlsHandshake, &error, deadline))?;
        let names = session
            .tls
            .peer_certificates()
            .and_then(|chain| chain.first())
            .and_then(|certificate| CertificateNames::of(certificate))
            .unwrap_or_default();
        let version = match session.tls.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLS 1.2",
            _ => "TLS 1.3",
        };
        Ok((session, PeerTlsInfo { version, issuer: names.issuer.to_string(), subject: names.subject.to_string() }))
    }
}

/// The error for the file of a client certificate, or of its key, that cannot be used.
fn client_auth_error(certificate: &Path, key: &Path, error: &rustls::Error) -> Error {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            let reason = format!("it does not match client_certificate ({})", certificate.display());
            pem::file_error("client_key", key, &reason)
        }
        rustls::Error::InvalidCertificate(_) => {
            let reason = "its first certificate is not a valid X.509 certificate";
            pem::file_error("client_certificate", certificate, reason)
        }
        _ => {
            let reason = "its private key is of a kind that is not supported, or not valid";
            pem::file_error("client_key", key, reason)
                .with_hint("use a key of RSA with at least 2048 bits, ECDSA with P-256 or P-384, or Ed25519")
        }
    }
}

/// The time that certificates are compared with. rustls's own provider panics if the clock is before 1970.
#[derive(Debug)]
struct WallClock;

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time(SystemTime::now()))
    }
}

/// Before 1970 it is zero: no certificate is valid then, and the error says what the clock says.
fn unix_time(now: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// A TLS connection.
///
/// rustls has a stream too, but it does not read while data waits to be sent. This one does: a server that closes
/// early has often sent an alert with the reason, which can still be read when sending has failed.
pub(crate) struct TlsStream {
    tls: ClientConnection,
    inner: Box<dyn Stream>,
    verifier: Arc<RecordingVerifier>,
    peer: Peer,
    /// The fork generation of the process that opened it.
    generation: u64,
}

/// How long the end of a connection may take. It is one small packet, which is only held up if nothing is received.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(1);

impl Drop for TlsStream {
    /// Tells the peer that this is the end, and not a connection that was cut off. A forked child does not: it would
    /// end the connection that its parent uses.
    fn drop(&mut self) {
        if !self.tls.is_handshaking() && self.generation == fork::generation() {
            self.inner.set_deadline(IoDeadline::after(CLOSE_TIMEOUT));
            self.tls.send_close_notify();
            let _ = self.flush_tls();
        }
    }
}

impl TlsStream {
    fn handshake(&mut self) -> io::Result<()> {
        while self.tls.is_handshaking() {
            if let Err(error) = self.tls.complete_io(&mut self.inner) {
                // The server may have sent the reason before it closed the connection.
                if is_disconnect(&error) {
                    self.drain()?;
                }
                return Err(self.attach_description(error));
            }
        }
        Ok(())
    }

    /// Reads what arrived before the connection broke; an error if it contains an alert.
    fn drain(&mut self) -> io::Result<()> {
        while self.tls.read_tls(&mut self.inner).is_ok_and(|count| count > 0) {
            self.process_packets()?;
        }
        Ok(())
    }

    fn process_packets(&mut self) -> io::Result<()> {
        match self.tls.process_new_packets() {
            Ok(_) => Ok(()),
            Err(error) => Err(self.attach_description(io::Error::other(error))),
        }
    }

    fn flush_tls(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            if self.tls.write_tls(&mut self.inner)? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }

    /// Puts the description of a TLS failure into the error, for [`Peer::io_error`]. In TLS 1.3 a server rejects
    /// a client certificate only after the handshake, so any read may fail with it.
    fn attach_description(&self, error: io::Error) -> io::Error {
        let progress = match self.tls.protocol_version() {
            _ if !self.tls.is_handshaking() => Progress::Finished,
            Some(_) => Progress::Negotiated,
            None => Progress::Started,
        };
        match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(tls) => io::Error::other(self.verifier.describe_error(tls, progress, &self.peer)),
            None => error,
        }
    }
}

impl Read for TlsStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.tls.reader().read(buffer) {
                // No plaintext is available yet.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return outcome,
            }
            // The response of TLS itself to a message, such as to a key update. If it cannot be sent, the read
            // reports why.
            let _ = self.flush_tls();
            // At the end of the connection, the reader reports whether the peer closed TLS properly.
            self.tls.read_tls(&mut self.inner)?;
            self.process_packets()?;
        }
    }
}

impl Write for TlsStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.tls.writer().write(bytes)?;
        self.flush_tls()?;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flush_tls()
    }
}

impl Stream for TlsStream {
    fn set_deadline(&mut self, deadline: IoDeadline) {
        self.inner.set_deadline(deadline);
    }

    /// Messages of TLS itself, such as session tickets, are no data.
    fn read_arrived(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.tls.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return outcome,
            }
            self.tls.read_tls(&mut Arrived(&mut self.inner))?;
            self.process_packets()?;
        }
    }

    /// What rustls has taken counts as written, and [`Stream::flush_ready`] sends what is left of it.
    #[cfg(all(unix, feature = "serve"))]
    fn write_ready(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.flush_ready()?;
        let taken = self.tls.writer().write(bytes)?;
        match self.flush_ready() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    #[cfg(all(unix, feature = "serve"))]
    fn flush_ready(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            if self.tls.write_tls(&mut Ready(&mut self.inner))? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        self.inner.flush_ready()
    }

    #[cfg(all(unix, feature = "serve"))]
    fn socket(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.inner.socket()
    }
}

/// Reads from a stream what has arrived.
struct Arrived<'a>(&'a mut Box<dyn Stream>);

impl Read for Arrived<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_arrived(buffer)
    }
}

/// Writes to a stream what fits.
#[cfg(all(unix, feature = "serve"))]
struct Ready<'a>(&'a mut Box<dyn Stream>);

#[cfg(all(unix, feature = "serve"))]
impl Write for Ready<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_ready(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::connect::connect;
    use rustls::pki_types::PrivatePkcs8KeyDer;
    use rustls::{ServerConfig, ServerConnection, StreamOwned};
    use std::net::TcpListener;

    #[test]
    fn a_clock_before_1970_is_no_panic() {
        for (seconds, expected) in [(0, 0), (1_000_000_000, 1_000_000_000)] {
            assert_eq!(unix_time(UNIX_EPOCH + Duration::from_secs(seconds)).as_secs(), expected);
        }
        assert_eq!(unix_time(UNIX_EPOCH - Duration::from_secs(315_532_800)).as_secs(), 0);
    }

    /// Without `close_notify`, the server's read fails.
    #[test]
    fn a_connection_is_ended_properly_but_not_by_a_forked_child() {
        let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let ca_file = directory.path().join("ca.pem");
        std::fs::write(&ca_file, issued.cert.pem()).unwrap();
        let options = NetworkOptions { ca_file: Some(ca_file), ..NetworkOptions::bare() };
        let key = PrivatePkcs8KeyDer::from(issued.signing_key.serialize_der());
        let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![issued.cert.der().clone()], key.into())
            .unwrap();
        // A slow server would send them when the client has already closed, and fail for that.
        config.send_tls13_tickets = 0;
        let config = Arc::new(config);
        for is_inherited in [false, true] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let server = std::thread::spawn(move || {
                let mut stream = StreamOwned::new(connection, listener.accept().unwrap().0);
                stream.read(&mut [0]).is_ok()
            });
            let (peer, deadline) =
                (Peer::server("localhost", address.port()), IoDeadline::after(Duration::from_secs(30)));
            let (stream, _) = connect(&[address], &peer, deadline).unwrap();
            let connector = TlsConnector::load(&options).unwrap();
            let (mut session, _) = connector
                .handshake(Box::new(stream), "localhost", &peer, ClientCertificate::Withheld, deadline)
                .unwrap();
            session.generation += u64::from(is_inherited);
            drop(session);
            assert_eq!(server.join().unwrap(), !is_inherited);
        }
    }
}
