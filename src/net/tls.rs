//! TLS connections: trusted CA certificates, the client certificate, and the handshake.
//!
//! - The trusted certificates are those of the system (or, without raised privileges, of `SSL_CERT_FILE` and
//!   `SSL_CERT_DIR`) and those of `ca_file`. If there are none, that is an error with a hint, not a panic.
//! - TLS 1.2 and 1.3. Sessions are never resumed: each connection is authenticated, and a forked child shares no
//!   session with its parent.
//! - The error for a rejected certificate has the reason and the issuer that the certificate names. This reveals
//!   a proxy that inspects TLS and replaces every certificate by its own.
//! - The client certificate is only sent to the servers of `auth_url` and `api_url`, not to a proxy or to Redis.
//! - Nothing is installed for the whole process: rustls gets its cryptography provider explicitly.

use crate::config::NetworkOptions;
use crate::config::environment;
use crate::error::{Error, Kind, Phase, Result, resource_limit};
use crate::log::Log;
use crate::net::tcp::{Peer, Stream, is_disconnect};
use crate::net::verifier::RecordingVerifier;
use crate::net::x509::CertificateNames;
use crate::sanitize::sanitize;
use crate::sys::deadline::IoDeadline;
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use rustls_native_certs::CertificateResult;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

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
    verifier: Arc<WebPkiServerVerifier>,
    has_client_cert: bool,
}

impl TlsConnector {
    /// Reads the certificates and keys of the settings, and the CA certificates of the system.
    pub(crate) fn load(options: &NetworkOptions) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let internal = |error: &dyn std::fmt::Display| {
            Error::new(Kind::Internal, format!("cannot set up TLS: {error}")).with_phase(Phase::TlsHandshake)
        };
        let roots = Arc::new(load_roots(options.ca_file.as_deref(), &options.log)?);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .build()
            .map_err(|error| internal(&error))?;
        // Each connection replaces the verifier by one that records.
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| internal(&error))?
            .with_webpki_verifier(Arc::clone(&verifier));
        let mut config = match &options.client_certificate {
            Some((certificate, key)) => {
                let chain = certificates(certificate, "client_certificate")?;
                builder
                    .with_client_auth_cert(chain, private_key(key)?)
                    .map_err(|error| client_auth_error(certificate, key, &error))?
            }
            None => builder.with_no_client_auth(),
        };
        config.resumption = rustls::client::Resumption::disabled();
        Ok(TlsConnector { config, verifier, has_client_cert: options.client_certificate.is_some() })
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
        })?;
        let client_cert = match certificate {
            ClientCertificate::Shown => Some(Arc::clone(&self.config.client_auth_cert_resolver)),
            ClientCertificate::Withheld => None,
        };
        let verifier = Arc::new(RecordingVerifier::new(Arc::clone(&self.verifier), client_cert, self.has_client_cert));
        let mut config = self.config.clone();
        config.client_auth_cert_resolver = verifier.clone();
        config.dangerous().set_certificate_verifier(verifier.clone());
        let tls = ClientConnection::new(Arc::new(config), name).map_err(|error| {
            peer.error(
                Kind::Internal,
                Phase::TlsHandshake,
                format!("internal error: cannot start TLS with {}: {error}", peer.name),
            )
        })?;
        let mut session = TlsStream { tls, inner: stream, verifier, peer: peer.clone() };
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

/// The CA certificates to trust.
fn load_roots(ca_file: Option<&Path>, log: &Log) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    let system = system_certificates();
    // An incomplete store would be kept, and would reject servers for the lifetime of the process.
    let lack = system.errors.iter().find_map(|error| match &error.kind {
        rustls_native_certs::ErrorKind::Io { inner, .. } => resource_limit(inner),
        _ => None,
    });
    if let Some((lack, advice)) = lack {
        let message = format!("cannot read the CA certificates of this machine: {lack}");
        return Err(Error::new(Kind::Io, message).with_phase(Phase::TlsHandshake).with_hint(advice));
    }
    let (mut usable, _) = store.add_parsable_certificates(system.certs);
    let problem = system.errors.first().map_or_else(
        || "no CA certificates were found on this machine".to_owned(),
        |error| format!("no CA certificates were found on this machine ({})", sanitize(&error.to_string(), &[])),
    );
    match ca_file {
        Some(path) => {
            if usable == 0 {
                log.warning(|| format!("tls: {problem}; only ca_file is trusted"));
            }
            for (index, certificate) in certificates(path, "ca_file")?.into_iter().enumerate() {
                store.add(certificate).map_err(|error| {
                    let reason = format!("its certificate {} is invalid: {error}", index + 1);
                    file_error("ca_file", path, &reason)
                })?;
                usable += 1;
            }
        }
        None if usable == 0 => {
            return Err(Error::new(Kind::Tls, problem).with_phase(Phase::TlsHandshake).with_hint(
                "install the system's certificates (the package is often called ca-certificates), \
                 or set ca_file or SSL_CERT_FILE",
            ));
        }
        None => {}
    }
    log.debug(|| format!("tls: {usable} CA certificates are trusted"));
    Ok(store)
}

/// The certificates of the system, or those that the environment names instead, if it can be trusted.
fn system_certificates() -> CertificateResult {
    // These replace the system's in rustls-native-certs, and in openssl-probe below it.
    let replaced = ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().any(|name| std::env::var_os(name).is_some());
    if !(replaced && environment::has_raised_privileges()) {
        return rustls_native_certs::load_native_certs();
    }
    // The directories hold the same certificates as the files, one in each file.
    let first = |paths: &'static [&str]| paths.iter().map(Path::new).find(|path| path.exists());
    match first(SYSTEM_CA_FILES) {
        Some(file) => rustls_native_certs::load_certs_from_paths(Some(file), None),
        None => rustls_native_certs::load_certs_from_paths(None, first(SYSTEM_CA_DIRECTORIES)),
    }
}

/// Where systems keep the certificates of their CAs in one file.
const SYSTEM_CA_FILES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",     // Debian, Arch, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",       // Fedora, Red Hat
    "/etc/ssl/ca-bundle.pem",                 // SUSE
    "/etc/ssl/cert.pem",                      // Alpine, OpenBSD, macOS
    "/usr/local/etc/ssl/cert.pem",            // FreeBSD
    "/etc/openssl/certs/ca-certificates.crt", // NetBSD
];

/// Where systems keep them in one file each.
const SYSTEM_CA_DIRECTORIES: &[&str] = &["/etc/ssl/certs", "/etc/pki/tls/certs", "/etc/openssl/certs", "/etc/certs/CA"];

/// The error for the file of a setting that cannot be used.
fn file_error(setting: &str, path: &Path, reason: &str) -> Error {
    let path = sanitize(&path.display().to_string(), &[]);
    Error::new(Kind::Config, format!("cannot use {setting} ({path}): {}", sanitize(reason, &[])))
        .with_hint(format!("set {setting} to a PEM file that this process can read"))
}

/// All certificates of a PEM file, at least one.
fn certificates(path: &Path, setting: &str) -> Result<Vec<CertificateDer<'static>>> {
    let found: std::result::Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| file_error(setting, path, &pem_problem(&error, "certificate")));
    match found {
        Ok(found) if found.is_empty() => Err(file_error(setting, path, "it contains no certificate in PEM format")),
        found => found,
    }
}

/// The private key of a PEM file: PKCS #1, PKCS #8 or SEC 1.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| {
        let wanted = "private key without a password";
        file_error("client_key", path, &pem_problem(&error, wanted))
    })
}

fn pem_problem(error: &pem::Error, wanted: &str) -> String {
    match error {
        pem::Error::NoItemsFound => format!("it contains no {wanted} in PEM format"),
        pem::Error::Io(error) => error.to_string(),
        // The parser's message may quote a line of the file. A PKCS #1 or SEC 1 key with a password is such an
        // error, because of the header lines in front of it.
        _ => format!("it contains no {wanted} in well-formed PEM"),
    }
}

/// The error for the file of a client certificate, or of its key, that cannot be used.
fn client_auth_error(certificate: &Path, key: &Path, error: &rustls::Error) -> Error {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            let reason = format!("it does not match client_certificate ({})", certificate.display());
            file_error("client_key", key, &reason)
        }
        rustls::Error::InvalidCertificate(_) => file_error("client_certificate", certificate, &error.to_string()),
        _ => file_error("client_key", key, &error.to_string()),
    }
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
        match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(tls) => io::Error::other(self.verifier.describe_error(tls, &self.peer)),
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
}
