//! TLS: whom to trust, which certificate to show, and what to say when a handshake fails.
//!
//! - Trusted are the certificates of the system (or, without raised privileges, of `SSL_CERT_FILE` and
//!   `SSL_CERT_DIR`) and those of `ca_file`. A machine without any is an error, not a panic, and says
//!   what to do about it.
//! - TLS 1.2 and 1.3; sessions are never resumed, so every connection proves itself anew and a
//!   forked child shares nothing with its parent.
//! - A refused certificate is told with the reason and with its issuer as it was presented: a proxy
//!   that opens TLS, and replaces every certificate by its own, gives itself away there.
//! - The client certificate is shown to the servers of `auth_url` and `api_url` only, not to a proxy and
//!   not to Redis.
//! - Nothing is installed for the whole process: the cryptography is handed over explicitly.

use crate::config::environment;
use crate::config::settings::NetworkOptions;
use crate::error::{Error, Kind, Result, Stage, resource_limit};
use crate::log::Log;
use crate::net::tcp::{Moment, Peer, Stream, is_disconnect};
use crate::sanitize::{QUOTE_LIMIT, sanitize};
use crate::sys::deadline::IoDeadline;
use rustls::client::ResolvesClientCert;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore,
    SignatureScheme,
};
use rustls_native_certs::CertificateResult;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What a server showed of itself in a handshake that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerTlsInfo {
    /// `TLS 1.2` or `TLS 1.3`.
    pub version: &'static str,
    /// Who issued its certificate: organization and common name.
    pub issuer: String,
    /// Whom its certificate is for: organization and common name.
    pub subject: String,
}

/// Whether a peer that asks for a client certificate is shown the one that is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientCertificate {
    /// The servers of `auth_url` and `api_url`, for which it is set.
    Shown,
    /// All other peers: proxies and Redis. The certificate names this client to them, and means nothing there.
    Withheld,
}

/// Everything that TLS connections have in common.
pub(crate) struct TlsConnector {
    config: ClientConfig,
    verifier: Arc<WebPkiServerVerifier>,
    has_client_cert: bool,
}

impl TlsConnector {
    /// Reads the certificates and keys that the settings name, and the system's.
    pub(crate) fn load(options: &NetworkOptions) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let internal = |error: &dyn std::fmt::Display| {
            Error::new(Kind::Internal, format!("TLS could not be set up: {error}")).with_phase(Stage::Tls)
        };
        let roots = Arc::new(load_roots(options.ca_file.as_deref(), &options.log)?);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .build()
            .map_err(|error| internal(&error))?;
        // The verifier is replaced for each connection by one that remembers what it saw.
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

    /// Makes `stream` a TLS connection to `with_host`.
    pub(crate) fn handshake(
        &self,
        stream: Box<dyn Stream>,
        host: &str,
        peer: &Peer,
        certificate: ClientCertificate,
        deadline: IoDeadline,
    ) -> Result<(TlsStream, PeerTlsInfo)> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            peer.error(Kind::Config, Stage::Tls, format!("{} is not a name that a certificate can be for", peer.name))
        })?;
        let witness = Arc::new(RecordingVerifier {
            verifier: Arc::clone(&self.verifier),
            own: match certificate {
                ClientCertificate::Shown => Some(Arc::clone(&self.config.client_auth_cert_resolver)),
                ClientCertificate::Withheld => None,
            },
            has_client_cert: self.has_client_cert,
            rejected_cert_names: Mutex::new(None),
            asked: AtomicBool::new(false),
        });
        let mut config = self.config.clone();
        config.client_auth_cert_resolver = witness.clone();
        config.dangerous().set_certificate_verifier(witness.clone());
        let tls = ClientConnection::new(Arc::new(config), name).map_err(|error| {
            peer.error(
                Kind::Internal,
                Stage::Tls,
                format!("the TLS connection to {} could not be prepared: {error}", peer.name),
            )
        })?;
        let mut session = TlsStream { tls, inner: stream, witness, peer: peer.clone() };
        session.handshake().map_err(|error| peer.io_error(Moment::Handshake, &error, deadline))?;
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

/// The certificates to trust.
fn load_roots(ca_file: Option<&Path>, log: &Log) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    let system = system_certificates();
    // Half a store would be kept, and distrust servers for as long as this process runs.
    let lack = system.errors.iter().find_map(|error| match &error.kind {
        rustls_native_certs::ErrorKind::Io { inner, .. } => resource_limit(inner),
        _ => None,
    });
    if let Some((lack, advice)) = lack {
        let message = format!("the CA certificates of this machine could not be read: {lack}");
        return Err(Error::new(Kind::Io, message).with_phase(Stage::Tls).with_hint(advice));
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
                    let reason = format!("its certificate {} cannot be used: {error}", index + 1);
                    file_error("ca_file", path, &reason)
                })?;
                usable += 1;
            }
        }
        None if usable == 0 => {
            return Err(Error::new(Kind::Tls, problem).with_phase(Stage::Tls).with_hint(
                "install the system's certificates (the package is often called ca-certificates), \
                 or set ca_file or SSL_CERT_FILE",
            ));
        }
        None => {}
    }
    log.debug(|| format!("tls: {usable} CA certificates are trusted"));
    Ok(store)
}

/// The certificates of the system, or those that the environment names in their place, if it can be trusted.
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

/// Where they keep them in one file each.
const SYSTEM_CA_DIRECTORIES: &[&str] = &["/etc/ssl/certs", "/etc/pki/tls/certs", "/etc/openssl/certs", "/etc/certs/CA"];

/// Says which setting's file cannot be used, and why.
fn file_error(setting: &str, path: &Path, reason: &str) -> Error {
    let path = sanitize(&path.display().to_string(), &[]);
    Error::new(Kind::Config, format!("{setting} ({path}) cannot be used: {}", sanitize(reason, &[])))
        .with_hint(format!("set {setting} to a PEM file that this process may read"))
}

/// Every certificate of a PEM file, at least one.
fn certificates(path: &Path, setting: &str) -> Result<Vec<CertificateDer<'static>>> {
    let found: std::result::Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| file_error(setting, path, &pem_problem(&error, "certificate")));
    match found {
        Ok(found) if found.is_empty() => Err(file_error(setting, path, "it holds no certificate in PEM form")),
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
        pem::Error::NoItemsFound => format!("it holds no {wanted} in PEM form"),
        pem::Error::Io(error) => error.to_string(),
        // The parser's own words may quote a line of the file. A PKCS #1 or SEC 1 key with a password comes
        // here, for the lines in front of it that say so.
        _ => format!("it holds no {wanted} in well-formed PEM"),
    }
}

/// Says which of the two files of a client certificate cannot be used.
fn client_auth_error(certificate: &Path, key: &Path, error: &rustls::Error) -> Error {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            let reason = format!("it is not the key of client_certificate ({})", certificate.display());
            file_error("client_key", key, &reason)
        }
        rustls::Error::InvalidCertificate(_) => file_error("client_certificate", certificate, &error.to_string()),
        _ => file_error("client_key", key, &error.to_string()),
    }
}

/// A TLS connection.
///
/// rustls has a stream of its own, which does not read while something waits to be sent. This one
/// does: a server that closes early has often said why, and that can still be read when sending has
/// already failed.
pub(crate) struct TlsStream {
    tls: ClientConnection,
    inner: Box<dyn Stream>,
    witness: Arc<RecordingVerifier>,
    peer: Peer,
}

impl TlsStream {
    fn handshake(&mut self) -> io::Result<()> {
        while self.tls.is_handshaking() {
            if let Err(error) = self.tls.complete_io(&mut self.inner) {
                // It may have said why before it hung up.
                if is_disconnect(&error) {
                    self.drain()?;
                }
                return Err(self.attach_description(error));
            }
        }
        Ok(())
    }

    /// Reads what had come before the connection broke; an error if that tells of one.
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

    /// Puts the story behind a TLS failure into the error, for [`Peer::io_error`] to find. In TLS
    /// 1.3 a server refuses a client certificate only after the handshake, so it may be any read.
    fn attach_description(&self, error: io::Error) -> io::Error {
        match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(tls) => io::Error::other(self.witness.describe_error(tls, &self.peer)),
            None => error,
        }
    }
}

impl Read for TlsStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.tls.reader().read(buffer) {
                // Nothing is there yet.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return outcome,
            }
            // An answer of the protocol itself, such as to a change of keys. If it cannot be sent,
            // reading will show why.
            let _ = self.flush_tls();
            // At the end of the connection, the reader says whether it was a proper one.
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

/// Stands in for the verifier and the client certificate of one connection, does what they do, and
/// remembers what it saw.
#[derive(Debug)]
struct RecordingVerifier {
    verifier: Arc<WebPkiServerVerifier>,
    /// `None`: the client certificate is withheld.
    own: Option<Arc<dyn ResolvesClientCert>>,
    /// Whether a client certificate is set.
    has_client_cert: bool,
    /// The names in a certificate that was refused.
    rejected_cert_names: Mutex<Option<CertificateNames>>,
    /// Whether the server asked for a client certificate.
    asked: AtomicBool,
}

impl ServerCertVerifier for RecordingVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now).inspect_err(|_| {
            *self.rejected_cert_names.lock().unwrap_or_else(PoisonError::into_inner) = CertificateNames::of(end_entity);
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

impl ResolvesClientCert for RecordingVerifier {
    fn resolve(&self, root_hint_subjects: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        self.own.as_ref()?.resolve(root_hint_subjects, schemes)
    }

    fn has_certs(&self) -> bool {
        self.own.as_ref().is_some_and(|own| own.has_certs())
    }
}

impl RecordingVerifier {
    /// What a TLS failure means.
    fn describe_error(&self, error: &rustls::Error, peer: &Peer) -> Error {
        let name = &peer.name;
        let presented = self.rejected_cert_names.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (message, advice) = match error {
            rustls::Error::InvalidCertificate(reason) => {
                describe_certificate_error(name, reason, &presented.unwrap_or_default())
            }
            rustls::Error::AlertReceived(alert) => self.describe_alert(name, *alert),
            rustls::Error::InvalidMessage(_) => {
                (format!("{name} does not answer with TLS"), "check that the port speaks https")
            }
            rustls::Error::PeerIncompatible(_) => (
                format!("{name} has no TLS version or cipher in common with this library"),
                "the server has to offer TLS 1.2 or 1.3",
            ),
            other => (format!("the TLS connection to {name} failed: {}", sanitize(&other.to_string(), &[])), ""),
        };
        peer.error(Kind::Tls, Stage::Tls, message).with_hint(advice)
    }

    /// What it means that the server ended the handshake.
    fn describe_alert(&self, name: &str, alert: AlertDescription) -> (String, &'static str) {
        use AlertDescription::{CertificateRequired, ProtocolVersion, UnrecognisedName};
        let asked = self.asked.load(Ordering::Relaxed);
        match alert {
            _ if asked && self.own.is_none() => (
                format!(
                    "{name} asks for a client certificate; that is only shown to the servers of auth_url and api_url \
                     ({alert:?})"
                ),
                "configure it to accept clients without a certificate; its URL may hold a user name and password",
            ),
            CertificateRequired | _ if asked && !self.has_client_cert => (
                format!("{name} asks for a client certificate, and none is set ({alert:?})"),
                "set client_certificate and client_key",
            ),
            _ if asked => (
                format!("{name} refused the client certificate ({alert:?})"),
                "check client_certificate: whether it is still valid, and issued by whom the server trusts",
            ),
            ProtocolVersion => {
                (format!("{name} speaks neither TLS 1.2 nor TLS 1.3"), "the server has to offer TLS 1.2 or 1.3")
            }
            UnrecognisedName => (format!("{name} knows no host of that name"), "check the host name"),
            _ => (format!("{name} ended the TLS handshake ({alert:?})"), ""),
        }
    }
}

/// Why a certificate is not trusted, and what can be done about it.
fn describe_certificate_error(
    name: &str,
    reason: &CertificateError,
    names: &CertificateNames,
) -> (String, &'static str) {
    use CertificateError as E;
    const CLOCK: &str = "check this machine's clock; if it is right, the server needs a new certificate";
    let issuer = &names.issuer;
    let (what, advice) = match reason {
        E::Expired => ("has expired".to_owned(), CLOCK),
        E::ExpiredContext { not_after, .. } => (format!("expired on {}", format_date(*not_after)), CLOCK),
        E::NotValidYet => ("is not valid yet".to_owned(), CLOCK),
        E::NotValidYetContext { time, not_before } => (
            format!(
                "is only valid from {} on, and this machine's clock says {}",
                format_date(*not_before),
                format_date(*time)
            ),
            "check this machine's clock",
        ),
        E::NotValidForName => ("is for another host".to_owned(), "check the host name"),
        E::NotValidForNameContext { presented, .. } => (
            match presented.as_slice() {
                [] => "is for no host at all".to_owned(),
                some => format!("is for other hosts ({})", format_sans(some)),
            },
            "check the host name, and whether a proxy answers in the server's place",
        ),
        E::UnknownIssuer if names.is_self_signed() => {
            ("is signed by itself".to_owned(), "if you trust that server, set ca_file to its certificate")
        }
        E::UnknownIssuer => (
            "comes from an issuer that is not trusted".to_owned(),
            "if that is your own CA, or a proxy of your network that inspects TLS, set ca_file to its certificate",
        ),
        E::Revoked => ("has been revoked".to_owned(), "the server needs a new certificate"),
        E::BadSignature => ("has a bad signature".to_owned(), "somebody may have tampered with the connection"),
        E::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => (
            "is marked as a CA's own, which no server may show".to_owned(),
            "the server needs a certificate with CA:FALSE, issued by that CA",
        ),
        other => {
            (format!("is not valid: {}", sanitize(&other.to_string(), &[])), "the server needs another certificate")
        }
    };
    (format!("the certificate of {name} {what}; it was issued by {issuer}"), advice)
}

/// The names of a certificate, of which rustls tells as `DnsName("a.example")`.
fn format_sans(presented: &[String]) -> String {
    let bare = |name: &String| match name.split_once("(\"") {
        Some((_, rest)) => rest.trim_end_matches("\")").to_owned(),
        None => name.clone(),
    };
    // A certificate may be for thousands, of which few are shown.
    sanitize(&presented.iter().take(QUOTE_LIMIT).map(bare).collect::<Vec<_>>().join(", "), &[])
}

/// A moment as a date, such as `2026-01-31`.
fn format_date(time: UnixTime) -> String {
    // Counted in eras of 400 years that begin in March, where the leap day comes last.
    let days = time.as_secs() / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Whom a certificate is from and for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct CertificateNames {
    issuer: DistinguishedName,
    subject: DistinguishedName,
}

/// The readable parts of a name in a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct DistinguishedName {
    organization: Option<String>,
    common_name: Option<String>,
}

impl std::fmt::Display for DistinguishedName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.organization, &self.common_name) {
            (Some(organization), Some(name)) => write!(f, "\"{name}\" of \"{organization}\""),
            (Some(one), None) | (None, Some(one)) => write!(f, "\"{one}\""),
            (None, None) => f.write_str("somebody without a name"),
        }
    }
}

impl CertificateNames {
    /// Reads the issuer and the subject from a certificate (RFC 5280, section 4.1).
    fn of(certificate: &[u8]) -> Option<Self> {
        let (certificate, _) = der::expect(der::SEQUENCE, certificate)?;
        let (body, _) = der::expect(der::SEQUENCE, certificate)?;
        // The version is optional and stands in a wrapper of its own.
        let after_version = match der::element(body)? {
            (der::VERSION, _, rest) => rest,
            _ => body,
        };
        let (_, _, after_serial) = der::element(after_version)?;
        let (_, _, after_algorithm) = der::element(after_serial)?;
        let (issuer, after_issuer) = der::expect(der::SEQUENCE, after_algorithm)?;
        let (_, _, after_validity) = der::element(after_issuer)?;
        let (subject, _) = der::expect(der::SEQUENCE, after_validity)?;
        Some(CertificateNames { issuer: DistinguishedName::of(issuer)?, subject: DistinguishedName::of(subject)? })
    }

    fn is_self_signed(&self) -> bool {
        self.issuer == self.subject
    }
}

impl DistinguishedName {
    /// Reads a name: a list of sets of pairs, each of an attribute's type and its value.
    fn of(mut list: &[u8]) -> Option<Self> {
        let mut name = DistinguishedName::default();
        while !list.is_empty() {
            let (mut set, rest) = der::expect(der::SET, list)?;
            list = rest;
            while !set.is_empty() {
                let (pair, rest) = der::expect(der::SEQUENCE, set)?;
                set = rest;
                let (kind, value) = der::expect(der::OBJECT_IDENTIFIER, pair)?;
                let place = match kind {
                    [0x55, 4, 3] => &mut name.common_name,
                    [0x55, 4, 10] => &mut name.organization,
                    _ => continue,
                };
                *place = der::text(value);
            }
        }
        Some(name)
    }
}

/// Just enough of DER (X.690) to find the names in a certificate. Whatever is cut short or too long
/// for its surroundings is `None`.
mod der {
    use super::{QUOTE_LIMIT, sanitize};

    pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
    pub(super) const SEQUENCE: u8 = 0x30;
    pub(super) const SET: u8 = 0x31;
    pub(super) const VERSION: u8 = 0xa0;

    /// The first element: its tag, its content, and what follows it.
    pub(super) fn element(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
        let (&tag, rest) = input.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // The lower bits count the bytes of the length; no certificate needs more than four.
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                let length = digits.iter().fold(0_u64, |length, &digit| length << 8 | u64::from(digit));
                (usize::try_from(length).ok()?, rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        Some((tag, content, rest))
    }

    /// The content of the first element, which has to have that tag, and what follows it.
    pub(super) fn expect(tag: u8, input: &[u8]) -> Option<(&[u8], &[u8])> {
        match element(input)? {
            (have, content, rest) if have == tag => Some((content, rest)),
            _ => None,
        }
    }

    /// A string of any of the types that names are written in, fit to be shown.
    pub(super) fn text(input: &[u8]) -> Option<String> {
        let (tag, content, _) = element(input)?;
        // Of what is longer, the rest is not shown.
        let content = &content[..content.len().min(8 * QUOTE_LIMIT)];
        let text = match tag {
            // UTF8String, NumericString, PrintableString, IA5String.
            0x0c | 0x12 | 0x13 | 0x16 => String::from_utf8_lossy(content).into_owned(),
            // TeletexString, in practice Latin-1.
            0x14 => content.iter().map(|&byte| char::from(byte)).collect(),
            // BMPString: UTF-16.
            0x1e => {
                let units = content.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
                char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
            }
            _ => return None,
        };
        Some(sanitize(&text, &[])).filter(|text| !text.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wraps `content` into an element.
    fn wrap(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = content.len();
        let mut out = vec![tag];
        match u8::try_from(length) {
            Ok(short) if short < 0x80 => out.push(short),
            _ => {
                out.push(0x82);
                out.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
            }
        }
        out.extend_from_slice(content);
        out
    }

    fn name(parts: &[(u8, u8, &[u8])]) -> Vec<u8> {
        let sets = parts.iter().flat_map(|(attribute, tag, text)| {
            let kind = wrap(der::OBJECT_IDENTIFIER, &[0x55, 4, *attribute]);
            let pair = wrap(der::SEQUENCE, &[kind, wrap(*tag, text)].concat());
            wrap(der::SET, &pair)
        });
        wrap(der::SEQUENCE, &sets.collect::<Vec<_>>())
    }

    fn certificate(issuer: &[u8], subject: &[u8]) -> Vec<u8> {
        let body = [
            &wrap(der::VERSION, &[2, 1, 2])[..],
            &wrap(2, &[7; 20]),
            &wrap(der::SEQUENCE, &[6, 1, 42]),
            issuer,
            &wrap(der::SEQUENCE, &[0x17, 0, 0x17, 0]),
            subject,
            &wrap(der::SEQUENCE, &[0; 200]),
        ];
        let body = wrap(der::SEQUENCE, &body.concat());
        wrap(der::SEQUENCE, &[&body[..], &[0x30, 0, 3, 1, 0]].concat())
    }

    #[test]
    fn names_are_found() {
        let issuer = name(&[(6, 0x13, b"DE"), (10, 0x0c, "Prüfer".as_bytes()), (3, 0x13, b"Root 1")]);
        let subject = name(&[(3, 0x1e, &[0, b'h', 0x20, 0x2e, 0, b'x'])]);
        let names = CertificateNames::of(&certificate(&issuer, &subject)).unwrap();
        assert_eq!(names.issuer.to_string(), "\"Root 1\" of \"Prüfer\"");
        // U+202E turns text around on a terminal.
        assert_eq!(names.subject.to_string(), "\"hx\"");
        assert!(!names.is_self_signed());
        let names = CertificateNames::of(&certificate(&issuer, &issuer)).unwrap();
        assert!(names.is_self_signed());
        let nobody = name(&[]);
        let names = CertificateNames::of(&certificate(&nobody, &nobody)).unwrap();
        assert_eq!(names.issuer.to_string(), "somebody without a name");
    }

    #[test]
    fn whatever_is_cut_or_changed_is_survived() {
        let issuer = name(&[(10, 0x14, &[0xe9, b'x']), (3, 0x13, b"Root")]);
        let whole = certificate(&issuer, &issuer);
        for end in 0..whole.len() {
            assert_eq!(CertificateNames::of(&whole[..end]), None, "cut at {end}");
        }
        // Every byte changed to every value; the outcome does not matter, only that there is one.
        let mut changed = whole.clone();
        for at in 0..changed.len() {
            for value in 0..=255 {
                changed[at] = value;
                let _ = CertificateNames::of(&changed);
            }
            changed[at] = whole[at];
        }
        // And bytes of no sense at all.
        let mut state = 1_u64;
        for _ in 0..20_000 {
            let noise: Vec<u8> = (0..40)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    // Mostly tags and lengths that occur, so that it gets past the first of them.
                    [0x30, 0x31, 0xa0, 0x06, 0x02, 0x03, 0x55, (state >> 40) as u8][(state >> 33) as usize % 8]
                })
                .collect();
            let _ = CertificateNames::of(&noise);
        }
    }

    #[test]
    fn lengths_that_overflow_are_refused() {
        for bad in [
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0][..],
            &[0x30, 0x85, 0, 0, 0, 0, 1, 0],
            &[0x30, 0x80, 0, 0],
            &[0x30, 0x82, 1],
            &[0x30],
            &[],
        ] {
            assert_eq!(der::element(bad), None);
        }
        assert_eq!(der::element(&[4, 0x81, 1, 9, 8]), Some((4, &[9][..], &[8][..])));
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01"),
            (951_782_399, "2000-02-28"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_767_225_599, "2025-12-31"),
            (4_107_542_400, "2100-03-01"),
        ] {
            let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
            assert_eq!(format_date(time), expected);
        }
    }

    #[test]
    fn hosts_are_listed_without_their_wrapping() {
        let presented = ["DnsName(\"a.example\")".to_owned(), "other".to_owned()];
        assert_eq!(format_sans(&presented), "a.example, other");
    }
}
