//! The CA certificates that a server's certificate is verified with, in stages.
//!
//! 1. Those of `ca_file`, one of the system's bundle, and those that another server needed.
//! 2. With them those of the bundle that have the name of an issuer in the server's chain: of 150 certificates, one or
//!    two need to be decoded and parsed.
//! 3. All of the system.
//!
//! The next stage is only reached if a certificate is rejected, in the same handshake. A certificate that some of the CA
//! certificates verify is verified by all of them too, so the same servers are accepted as with all of them at once; and
//! the error for a server that is rejected is the one that all of them give.

use crate::config::NetworkOptions;
use crate::error::{Error, Kind, Phase, Result, resource_limit};
use crate::net::pem::Bundle;
use crate::net::roots::{load_all_roots, load_first_roots, read_bundle};
use crate::net::x509::CertificateParts;
use crate::sys::deadline::IoDeadline;
use crate::sys::threads::HelperThreads;
use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use std::fmt;
use std::io;
use std::sync::Arc;

static LOADERS: HelperThreads = HelperThreads::new("amp-roots");

/// CA certificates, and the verifier that trusts them.
pub(super) struct Anchors {
    pub(super) roots: Arc<RootCertStore>,
    pub(super) verifier: Arc<WebPkiServerVerifier>,
    rest: Rest,
}

/// Which CA certificates the system has besides [`Anchors`].
enum Rest {
    /// None: these are all.
    Nothing,
    /// Others of its bundle, which is kept in memory until it was searched once, and of its directories.
    Files(Option<Arc<Bundle>>),
}

impl Anchors {
    fn new(roots: RootCertStore, rest: Rest, provider: &Arc<CryptoProvider>) -> Result<Self> {
        let roots = Arc::new(roots);
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider));
        let verifier = verifier.build().map_err(|error| {
            Error::new(Kind::Internal, format!("cannot set up TLS: {error}")).with_phase(Phase::TlsHandshake)
        })?;
        Ok(Anchors { roots, verifier, rest })
    }

    fn are_all(&self) -> bool {
        matches!(self.rest, Rest::Nothing)
    }
}

/// What the connections of one [`crate::net::tls::TlsConnector`] trust.
pub(super) struct Trust {
    /// What is loaded. If two threads need more at once, both load it: a lock would stay locked in a child that was
    /// forked meanwhile.
    loaded: ArcSwap<Anchors>,
    options: NetworkOptions,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").finish_non_exhaustive()
    }
}

impl Trust {
    /// Loads the first stage.
    pub(super) fn load(options: &NetworkOptions, provider: &Arc<CryptoProvider>) -> Result<Self> {
        let first = load_first_roots(options)?;
        let rest = first.bundle.map_or(Rest::Nothing, |bundle| Rest::Files(Some(Arc::new(bundle))));
        let loaded = ArcSwap::from_pointee(Anchors::new(first.store, rest, provider)?);
        Ok(Trust { loaded, options: options.clone(), provider: Arc::clone(provider) })
    }

    /// Only this CA certificate, for the fuzzer.
    #[cfg(fuzzing)]
    pub(super) fn only(root: &CertificateDer<'_>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned()).expect("a CA certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let anchors = Anchors::new(roots, Rest::Nothing, &provider).expect("the ciphers are supported");
        Trust { loaded: ArcSwap::from_pointee(anchors), options: NetworkOptions::bare(), provider }
    }

    /// What is loaded.
    pub(super) fn loaded(&self) -> Arc<Anchors> {
        self.loaded.load_full()
    }

    /// What is loaded, and those certificates of the system's bundle that may have issued one of this chain. `None` if
    /// the bundle is not understood, or all were loaded meanwhile, perhaps by another thread.
    pub(super) fn load_issuers(
        &self,
        chain: &[&CertificateDer<'_>],
        deadline: IoDeadline,
    ) -> Result<Option<Arc<Anchors>>> {
        let loaded = self.loaded();
        let bundle = match &loaded.rest {
            Rest::Nothing => return Ok(None),
            Rest::Files(Some(bundle)) => Some(Arc::clone(bundle)),
            Rest::Files(None) => read(deadline, || Ok(read_bundle()))?.map(Arc::new),
        };
        let mut issuers: Vec<_> = chain
            .iter()
            .take(LONGEST_CHAIN)
            .filter_map(|certificate| CertificateParts::of(certificate).map(|parts| parts.issuer))
            .collect();
        issuers.dedup();
        let Some(found) = bundle.and_then(|bundle| bundle.certificates_of(&issuers)) else { return Ok(None) };
        let mut roots = RootCertStore::clone(&loaded.roots);
        roots.add_parsable_certificates(found);
        let more = Arc::new(Anchors::new(roots, Rest::Files(None), &self.provider)?);
        // Unless another thread has loaded all meanwhile.
        self.loaded.compare_and_swap(&loaded, Arc::clone(&more));
        Ok(Some(more))
    }

    /// All CA certificates; `None` if those that were `tried` are all.
    pub(super) fn load_all(&self, tried: &Anchors, deadline: IoDeadline) -> Result<Option<Arc<Anchors>>> {
        if tried.are_all() {
            return Ok(None);
        }
        let loaded = self.loaded();
        if loaded.are_all() {
            return Ok(Some(loaded));
        }
        let options = self.options.clone();
        let roots = read(deadline, move || load_all_roots(&options))?;
        let all = Arc::new(Anchors::new(roots, Rest::Nothing, &self.provider)?);
        self.loaded.store(Arc::clone(&all));
        Ok(Some(all))
    }
}

/// How many certificates of a server's chain are looked at. webpki accepts fewer.
const LONGEST_CHAIN: usize = 16;

/// Reads files by a helper thread, because a file system may not respond.
fn read<T: Send + 'static>(deadline: IoDeadline, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    LOADERS.run_with_deadline(deadline, work).unwrap_or_else(|error| Err(not_loaded("", &error, deadline)))
}

/// The error of a helper thread that could not be started, or did not end by the deadline. `files` names the files of
/// the settings, for the message.
pub(super) fn not_loaded(files: &str, error: &io::Error, deadline: IoDeadline) -> Error {
    let error = match (error.kind(), resource_limit(error)) {
        (io::ErrorKind::TimedOut, _) => {
            let message = format!("reading the certificates for TLS timed out after {deadline}{files}");
            Error::new(Kind::Timeout, message)
                .with_hint("check the files and the file server that they are on, or raise timeout_ms")
        }
        (_, Some((lack, advice))) => {
            Error::new(Kind::Io, format!("cannot read the certificates for TLS: {lack}")).with_hint(advice)
        }
        (_, None) => Error::new(Kind::Io, format!("cannot read the certificates for TLS: {error}")),
    };
    error.with_phase(Phase::TlsHandshake)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// A thread that has tried fewer must not take its rejection for that of all.
    #[test]
    fn what_another_thread_has_loaded_is_tried() {
        let scratch = tempfile::tempdir().unwrap();
        let ca_file = scratch.path().join("ca.pem");
        let certificate = rcgen::generate_simple_self_signed(["ca.example".to_owned()]).unwrap().cert;
        std::fs::write(&ca_file, certificate.pem()).unwrap();
        let options = NetworkOptions { ca_file: Some(ca_file), ..NetworkOptions::bare() };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let first = Anchors::new(roots, Rest::Files(None), &provider).unwrap();
        let trust = Trust { loaded: ArcSwap::from_pointee(first), options, provider };
        let deadline = IoDeadline::after(Duration::from_secs(60));
        let tried = trust.loaded();
        let all = trust.load_all(&tried, deadline).unwrap().unwrap();
        assert!(Arc::ptr_eq(&trust.loaded(), &all) && !Arc::ptr_eq(&tried, &all));
        assert!(trust.load_issuers(&[certificate.der()], deadline).unwrap().is_none());
        assert!(Arc::ptr_eq(&trust.load_all(&tried, deadline).unwrap().unwrap(), &all));
        assert!(trust.load_all(&all, deadline).unwrap().is_none());
    }
}
