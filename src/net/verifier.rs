//! Records what a peer does during one TLS handshake, and explains from it why a handshake failed.
//!
//! rustls reports that a certificate was rejected, but not whose it was, nor that the server requested a client
//! certificate. [`RecordingVerifier`] sees both. It decides nothing: the verification is rustls's own.

use crate::error::{Error, Kind, Phase, Result};
use crate::net::certificate_error::{self, Presented, words};
use crate::net::tcp::Peer;
use crate::net::trust::{Anchors, Trust};
use crate::sanitize::sanitize;
use crate::sys::deadline::IoDeadline;
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, DigitallySignedStruct, InvalidMessage, SignatureScheme};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Passes the calls of one connection on to the verifier and to the client certificate, and records them.
#[derive(Debug)]
pub(super) struct RecordingVerifier {
    trust: Arc<Trust>,
    /// `None`: the client certificate is withheld.
    client_cert: Option<Arc<dyn ResolvesClientCert>>,
    /// Whether a client certificate is set.
    has_client_cert: bool,
    /// Until when the handshake must be over.
    deadline: IoDeadline,
    /// Why not all CA certificates could be read, if that is a lack of this process or took too long.
    load_error: Mutex<Option<Error>>,
    /// The certificates that were rejected.
    rejected: Mutex<Presented>,
    /// Whether the server requested a client certificate.
    client_cert_requested: AtomicBool,
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
        let verify = |anchors: &Anchors| {
            anchors.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        };
        let loaded = self.trust.loaded();
        verify(&loaded)
            .or_else(|rejected| {
                let chain: Vec<_> = std::iter::once(end_entity).chain(intermediates).collect();
                self.verify_with_more(&chain, &loaded, rejected, verify)
            })
            .inspect_err(|_| self.reject(end_entity, intermediates, false))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let anchors = self.trust.loaded();
        anchors
            .verifier
            .verify_tls12_signature(message, certificate, signature)
            .inspect_err(|_| self.reject(certificate, &[], true))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let anchors = self.trust.loaded();
        anchors
            .verifier
            .verify_tls13_signature(message, certificate, signature)
            .inspect_err(|_| self.reject(certificate, &[], true))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.loaded().verifier.supported_verify_schemes()
    }
}

impl ResolvesClientCert for RecordingVerifier {
    fn resolve(&self, root_hint_subjects: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.client_cert_requested.store(true, Ordering::Relaxed);
        self.client_cert.as_ref()?.resolve(root_hint_subjects, schemes)
    }

    fn has_certs(&self) -> bool {
        self.client_cert.as_ref().is_some_and(|own| own.has_certs())
    }
}

impl RecordingVerifier {
    /// A recorder for one connection. `client_cert` is `None` if the client certificate is withheld;
    /// `has_client_cert` says whether one is set.
    pub(super) fn new(
        trust: Arc<Trust>,
        client_cert: Option<Arc<dyn ResolvesClientCert>>,
        has_client_cert: bool,
        deadline: IoDeadline,
    ) -> Self {
        RecordingVerifier {
            trust,
            client_cert,
            has_client_cert,
            deadline,
            load_error: Mutex::default(),
            rejected: Mutex::default(),
            client_cert_requested: AtomicBool::new(false),
        }
    }

    /// Verifies a chain with more CA certificates than those that were `tried`, until these are all.
    fn verify_with_more<T>(
        &self,
        chain: &[&CertificateDer<'_>],
        tried: &Anchors,
        mut rejected: rustls::Error,
        verify: impl Fn(&Anchors) -> std::result::Result<T, rustls::Error>,
    ) -> std::result::Result<T, rustls::Error> {
        let issuers = || self.trust.load_issuers(chain, self.deadline);
        let all = || self.trust.load_all(tried, self.deadline);
        for load in [&issuers as &dyn Fn() -> Result<Option<Arc<Anchors>>>, &all] {
            match load() {
                Ok(None) => {}
                Ok(Some(more)) => match verify(&more) {
                    Err(error) => rejected = error,
                    verified => return verified,
                },
                Err(error) => {
                    // Another failure is a change since the first were read, and says less than the rejection.
                    if matches!(error.kind(), Kind::Io | Kind::Timeout) {
                        *self.load_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    }
                    return Err(rejected);
                }
            }
        }
        Err(rejected)
    }

    /// Records the certificates of a server that is rejected.
    fn reject(&self, own: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>], is_handshake: bool) {
        let chain = std::iter::once(own).chain(intermediates).map(|certificate| certificate.to_vec()).collect();
        *self.rejected.lock().unwrap_or_else(PoisonError::into_inner) = Presented { chain, is_handshake };
    }

    /// The error that explains a TLS failure, in this state of the connection.
    pub(super) fn describe_error(&self, error: &rustls::Error, progress: Progress, peer: &Peer) -> Error {
        use rustls::Error as E;
        if let Some(error) = self.load_error.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return error;
        }
        let name = &peer.name;
        let presented = std::mem::take(&mut *self.rejected.lock().unwrap_or_else(PoisonError::into_inner));
        let (message, hint) = match error {
            E::InvalidCertificate(reason) => {
                certificate_error::describe(name, reason, &presented, &self.trust.loaded().roots)
            }
            E::AlertReceived(alert) => self.describe_alert(name, *alert, progress),
            E::InvalidMessage(
                InvalidMessage::CertificatePayloadTooLarge | InvalidMessage::HandshakePayloadTooLarge,
            ) => (
                format!("{name} sent more certificates than are accepted (64 KB)"),
                "the server must send only the certificates of its chain",
            ),
            E::InvalidMessage(_) if progress == Progress::Started => {
                (format!("{name} did not respond with TLS"), "check that the port is an https port")
            }
            E::InvalidMessage(reason) => {
                (format!("{name} sent an invalid TLS message ({})", words(&identifier(reason))), UNEXPECTED)
            }
            E::PeerIncompatible(reason) => {
                (format!("{name} {NOTHING_IN_COMMON} ({})", words(&identifier(reason))), SUPPORTED)
            }
            E::PeerMisbehaved(reason) => match identifier(reason).as_str() {
                "TooManyRenegotiationRequests" => renegotiation(name),
                reason => (format!("{name} violated the TLS protocol ({})", words(reason)), UNEXPECTED),
            },
            other => (format!("the TLS connection to {name} failed: {}", sanitize(&other.to_string(), &[])), ""),
        };
        peer.error(Kind::Tls, Phase::TlsHandshake, message).with_hint(hint)
    }

    /// Describes the alert by which the server aborted the handshake.
    fn describe_alert(&self, name: &str, alert: AlertDescription, progress: Progress) -> (String, &'static str) {
        use AlertDescription::{
            HandshakeFailure, InsufficientSecurity, NoRenegotiation, ProtocolVersion, UnrecognisedName,
        };
        let asked = self.client_cert_requested.load(Ordering::Relaxed);
        let shown = alert_name(alert);
        match alert {
            _ if asked && self.client_cert.is_none() => (
                format!(
                    "{name} requires a client certificate, which is only sent to the servers of auth_url and api_url \
                     (alert {shown})"
                ),
                "configure it to accept clients without a certificate; its URL may contain a user name and password",
            ),
            _ if asked && !self.has_client_cert => (
                format!("{name} requires a client certificate, and none is set (alert {shown})"),
                "set client_certificate and client_key",
            ),
            _ if asked => (
                format!("{name} rejected the client certificate (alert {shown})"),
                "check that client_certificate is still valid, and that the server trusts its issuer",
            ),
            ProtocolVersion => {
                (format!("{name} supports neither TLS 1.2 nor TLS 1.3"), "the server must support TLS 1.2 or 1.3")
            }
            HandshakeFailure | InsufficientSecurity if progress != Progress::Finished => {
                (format!("{name} {NOTHING_IN_COMMON} (alert {shown})"), SUPPORTED)
            }
            HandshakeFailure | NoRenegotiation => renegotiation(name),
            UnrecognisedName => (format!("{name} does not recognize the host name"), "check the host name"),
            _ => (format!("{name} aborted the TLS connection (alert {shown})"), UNEXPECTED),
        }
    }
}

/// Verifies this chain of certificates for a server, and describes why it is rejected: for the reason that rustls gives,
/// which is returned too, or as if it were another. `None` if it is accepted.
#[cfg(fuzzing)]
pub fn describe_rejection(
    chain: &[CertificateDer<'_>],
    root: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
    other: Option<rustls::CertificateError>,
) -> Option<(rustls::Error, Error)> {
    use std::time::Duration;
    let deadline = IoDeadline::after(Duration::from_secs(60));
    let verifier = RecordingVerifier::new(Arc::new(Trust::only(root)), None, false, deadline);
    let (end_entity, intermediates) = chain.split_first()?;
    let reason = verifier.verify_server_cert(end_entity, intermediates, name, &[], now).err()?;
    let reason = other.map_or(reason, rustls::Error::InvalidCertificate);
    let error = verifier.describe_error(&reason, Progress::Negotiated, &Peer::server("auth.example", 443));
    Some((reason, error))
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The server has sent nothing yet that is TLS.
    Started,
    /// The handshake is in progress.
    Negotiated,
    /// The handshake is over.
    Finished,
}

const NOTHING_IN_COMMON: &str = "has no TLS version, cipher suite, group or signature in common with this library";
const SUPPORTED: &str = "the server must support TLS 1.3, or TLS 1.2 with ECDHE and AES-GCM or ChaCha20-Poly1305, the \
                         groups X25519, P-256 or P-384, and a certificate of RSA, P-256, P-384 or Ed25519";
const UNEXPECTED: &str = "check the log of the server, and whether a proxy on the way changes the connection";

/// A server that requests a second handshake on a connection of TLS 1.2, as IIS does for the client certificate of a
/// single directory. rustls rejects that.
fn renegotiation(name: &str) -> (String, &'static str) {
    (
        format!("{name} wants to renegotiate TLS, which this library does not support"),
        "configure the server to request a client certificate in the first handshake, or to use TLS 1.3 only",
    )
}

/// The name of an alert in RFC 8446 (section 6), such as `handshake_failure`, or its number.
fn alert_name(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::Unknown(number) => number.to_string(),
        known => words(&identifier(&known)).replace(' ', "_"),
    }
}

/// The identifier of a variant: rustls has no other names for them.
fn identifier(variant: &dyn std::fmt::Debug) -> String {
    let text = format!("{variant:?}");
    text.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default().to_owned()
}
