//! TLS: the emulator's own certificate authority (CA), and the valid and invalid certificates that it signs.

use std::io;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use serde::Deserialize;
use time::{Duration, OffsetDateTime};

/// The certificate that the server presents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateKind {
    /// A valid one, for `localhost`, `127.0.0.1` and `::1`, signed by the CA in the CA file.
    #[default]
    Valid,
    /// Valid, except that it expired yesterday.
    Expired,
    /// Valid, except that it is for another host.
    WrongHost,
    /// Self-signed.
    SelfSigned,
    /// Signed by another CA, which is in no file.
    UnknownAuthority,
}

/// The CA that clients must trust.
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pub pem: String,
    mutual: bool,
}

impl Ca {
    /// Generates a CA. With `mutual`, servers require client certificates that it signed.
    pub fn new(name: &str, mutual: bool) -> io::Result<Ca> {
        let mut params = params(name, &[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let certificate = params.self_signed(&key).map_err(io::Error::other)?;
        let (pem, certificate) = (certificate.pem(), certificate.der().clone());
        Ok(Ca { issuer: Issuer::new(params, key), certificate, pem, mutual })
    }

    /// Returns the configuration of a server with a certificate of this kind.
    pub fn server_config(&self, kind: CertificateKind) -> io::Result<Arc<ServerConfig>> {
        let names: &[&str] = match kind {
            CertificateKind::WrongHost => &["elsewhere.invalid"],
            _ => &["localhost", "127.0.0.1", "::1"],
        };
        let mut params = params("amp-emulator", names)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        if kind == CertificateKind::Expired {
            params.not_after = OffsetDateTime::now_utc() - Duration::DAY;
        }
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let certificate = match kind {
            CertificateKind::SelfSigned => params.self_signed(&key),
            CertificateKind::UnknownAuthority => {
                params.signed_by(&key, &Ca::new("amp-emulator unknown CA", false)?.issuer)
            }
            _ => params.signed_by(&key, &self.issuer),
        }
        .map_err(io::Error::other)?;

        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone());
        let builder = builder.with_safe_default_protocol_versions().map_err(io::Error::other)?;
        let builder = if self.mutual {
            let mut roots = RootCertStore::empty();
            roots.add(self.certificate.clone()).map_err(io::Error::other)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().map_err(io::Error::other)?)
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(io::Error::other)?;
        let config = builder.with_single_cert(vec![certificate.der().clone()], key).map_err(io::Error::other)?;
        Ok(Arc::new(config))
    }

    /// Returns a client certificate and its key, both as PEM.
    pub fn client_certificate(&self) -> io::Result<(String, String)> {
        let mut params = params("amp-emulator client", &[])?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(io::Error::other)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

fn params(common_name: &str, names: &[&str]) -> io::Result<CertificateParams> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).map_err(io::Error::other)?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.use_authority_key_identifier_extension = true;
    params.not_before = OffsetDateTime::now_utc() - Duration::days(30);
    params.not_after = OffsetDateTime::now_utc() + Duration::days(30);
    Ok(params)
}
