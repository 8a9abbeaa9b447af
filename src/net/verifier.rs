//! Records what a peer does during one TLS handshake, and explains from it why a handshake failed.
//!
//! rustls reports that a certificate was rejected, but not whose it was, nor that the server requested a client
//! certificate. [`RecordingVerifier`] sees both. It decides nothing: the verification is rustls's own.

use crate::error::{Error, Kind, Phase};
use crate::net::tcp::Peer;
use crate::net::x509::CertificateNames;
use crate::sanitize::{QUOTE_LIMIT, sanitize};
use rustls::client::ResolvesClientCert;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, CertificateError, DigitallySignedStruct, SignatureScheme};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

/// Passes the calls of one connection on to the verifier and to the client certificate, and records them.
#[derive(Debug)]
pub(super) struct RecordingVerifier {
    verifier: Arc<WebPkiServerVerifier>,
    /// `None`: the client certificate is withheld.
    client_cert: Option<Arc<dyn ResolvesClientCert>>,
    /// Whether a client certificate is set.
    has_client_cert: bool,
    /// The names in a certificate that was rejected.
    rejected_cert_names: Mutex<Option<CertificateNames>>,
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
        verifier: Arc<WebPkiServerVerifier>,
        client_cert: Option<Arc<dyn ResolvesClientCert>>,
        has_client_cert: bool,
    ) -> Self {
        RecordingVerifier {
            verifier,
            client_cert,
            has_client_cert,
            rejected_cert_names: Mutex::new(None),
            client_cert_requested: AtomicBool::new(false),
        }
    }

    /// The error that explains a TLS failure.
    pub(super) fn describe_error(&self, error: &rustls::Error, peer: &Peer) -> Error {
        let name = &peer.name;
        let presented = self.rejected_cert_names.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (message, advice) = match error {
            rustls::Error::InvalidCertificate(reason) => {
                describe_certificate_error(name, reason, &presented.unwrap_or_default())
            }
            rustls::Error::AlertReceived(alert) => self.describe_alert(name, *alert),
            rustls::Error::InvalidMessage(_) => {
                (format!("{name} did not respond with TLS"), "check that the port is an https port")
            }
            rustls::Error::PeerIncompatible(_) => (
                format!("{name} has no TLS version or cipher suite in common with this library"),
                "the server must support TLS 1.2 or 1.3",
            ),
            other => (format!("the TLS connection to {name} failed: {}", sanitize(&other.to_string(), &[])), ""),
        };
        peer.error(Kind::Tls, Phase::TlsHandshake, message).with_hint(advice)
    }

    /// Describes the alert by which the server aborted the handshake.
    fn describe_alert(&self, name: &str, alert: AlertDescription) -> (String, &'static str) {
        use AlertDescription::{CertificateRequired, ProtocolVersion, UnrecognisedName};
        let asked = self.client_cert_requested.load(Ordering::Relaxed);
        match alert {
            _ if asked && self.client_cert.is_none() => (
                format!(
                    "{name} requires a client certificate, which is only sent to the servers of auth_url and api_url \
                     ({alert:?})"
                ),
                "configure it to accept clients without a certificate; its URL may contain a user name and password",
            ),
            CertificateRequired | _ if asked && !self.has_client_cert => (
                format!("{name} requires a client certificate, and none is set ({alert:?})"),
                "set client_certificate and client_key",
            ),
            _ if asked => (
                format!("{name} rejected the client certificate ({alert:?})"),
                "check that client_certificate is still valid, and that the server trusts its issuer",
            ),
            ProtocolVersion => {
                (format!("{name} supports neither TLS 1.2 nor TLS 1.3"), "the server must support TLS 1.2 or 1.3")
            }
            UnrecognisedName => (format!("{name} does not recognize the host name"), "check the host name"),
            _ => (format!("{name} aborted the TLS handshake ({alert:?})"), ""),
        }
    }
}

/// Why a certificate was rejected, and a hint.
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
                "is not valid before {}, and this machine's clock says {}",
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
            "check the host name, and whether a proxy responds instead of the server",
        ),
        E::UnknownIssuer if names.is_self_signed() => {
            ("is self-signed".to_owned(), "if you trust that server, set ca_file to its certificate")
        }
        E::UnknownIssuer => (
            "is not from a trusted CA".to_owned(),
            "if that is your own CA, or a proxy of your network that inspects TLS, set ca_file to its certificate",
        ),
        E::Revoked => ("has been revoked".to_owned(), "the server needs a new certificate"),
        E::BadSignature => ("has a bad signature".to_owned(), "somebody may have tampered with the connection"),
        E::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => (
            "is a CA certificate, which cannot be used as a server certificate".to_owned(),
            "the server needs a certificate with CA:FALSE, issued by that CA",
        ),
        other => (format!("is invalid: {}", sanitize(&other.to_string(), &[])), "the server needs another certificate"),
    };
    (format!("the certificate of {name} {what} (issued by {issuer})"), advice)
}

/// The host names of a certificate, which rustls reports as `DnsName("a.example")`.
fn format_sans(presented: &[String]) -> String {
    let bare = |name: &String| match name.split_once("(\"") {
        Some((_, rest)) => rest.trim_end_matches("\")").to_owned(),
        None => name.clone(),
    };
    // A certificate may be for thousands of names, of which few are shown.
    sanitize(&presented.iter().take(QUOTE_LIMIT).map(bare).collect::<Vec<_>>().join(", "), &[])
}

/// A date such as `31 Jan 2026`.
fn format_date(time: UnixTime) -> String {
    // httpdate cannot format a year after 9999.
    let seconds = time.as_secs().min(MAX_DATE);
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
    // `Sat, 31 Jan 2026 23:59:59 GMT`.
    date.get(5..16).unwrap_or_default().to_owned()
}

/// The last second of the year 9999.
const MAX_DATE: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "01 Jan 1970"),
            (951_782_400, "29 Feb 2000"),
            (951_868_800, "01 Mar 2000"),
            (1_767_225_599, "31 Dec 2025"),
            (MAX_DATE, "31 Dec 9999"),
            (u64::MAX, "31 Dec 9999"),
        ] {
            assert_eq!(format_date(UnixTime::since_unix_epoch(Duration::from_secs(seconds))), expected);
        }
    }

    #[test]
    fn host_names_are_listed_without_rustls_syntax() {
        let presented = ["DnsName(\"a.example\")".to_owned(), "other".to_owned()];
        assert_eq!(format_sans(&presented), "a.example, other");
    }
}
