//! The CA certificates that a server's certificate is verified with, in two stages.
//!
//! First those of the system's bundle and of `ca_file`. Only if they do not verify a certificate are all of the system
//! read, and it is verified again, in the same handshake. A certificate that some of the CA certificates verify is
//! verified by all of them too, so both stages accept the same servers as all of them at once; and the error for a
//! server that is rejected is the one that all of them give.

use crate::config::NetworkOptions;
use crate::error::{Error, Kind, Phase, Result, resource_limit};
use crate::net::roots::{Scope, load_roots};
use crate::sys::deadline::IoDeadline;
use crate::sys::threads::HelperThreads;
use once_cell::race::OnceBox;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use std::fmt;
use std::io;
use std::sync::Arc;

static LOADERS: HelperThreads = HelperThreads::new("amp-roots");

/// CA certificates, and the verifier that trusts them.
#[derive(Clone)]
pub(super) struct Anchors {
    pub(super) roots: Arc<RootCertStore>,
    pub(super) verifier: Arc<WebPkiServerVerifier>,
}

/// What the connections of one [`crate::net::tls::TlsConnector`] trust.
pub(super) struct Trust {
    first: Anchors,
    /// All CA certificates, once they were needed. Loaded twice if two threads need them at once: a lock would stay
    /// locked in a child that was forked meanwhile.
    all: OnceBox<Anchors>,
    /// What is needed to load them; `None` if the first are all.
    rest: Option<(NetworkOptions, Arc<CryptoProvider>)>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").finish_non_exhaustive()
    }
}

impl Trust {
    /// Loads the first stage.
    pub(super) fn load(options: &NetworkOptions, provider: &Arc<CryptoProvider>) -> Result<Self> {
        let (first, is_complete) = load_anchors(options, provider, Scope::Bundle)?;
        let rest = (!is_complete).then(|| (options.clone(), Arc::clone(provider)));
        Ok(Trust { first, all: OnceBox::new(), rest })
    }

    /// Only this CA certificate, for the fuzzer.
    #[cfg(fuzzing)]
    pub(super) fn only(root: &rustls::pki_types::CertificateDer<'_>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned()).expect("a CA certificate");
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), provider);
        let verifier = verifier.build().expect("the ciphers are supported");
        Trust { first: Anchors { roots, verifier }, all: OnceBox::new(), rest: None }
    }

    /// What is loaded.
    pub(super) fn loaded(&self) -> &Anchors {
        self.all.get().unwrap_or(&self.first)
    }

    /// All CA certificates, loaded if they were not. They are read by a helper thread, because a file system may not
    /// respond.
    pub(super) fn load_all(&self, deadline: IoDeadline) -> Result<&Anchors> {
        let Some((options, provider)) = self.rest.as_ref().filter(|_| self.all.get().is_none()) else {
            return Ok(self.loaded());
        };
        let (of_thread, provider) = (options.clone(), Arc::clone(provider));
        let loaded = LOADERS.run_with_deadline(deadline, move || load_anchors(&of_thread, &provider, Scope::All));
        let (anchors, _) = loaded.unwrap_or_else(|error| Err(not_loaded("", &error, deadline)))?;
        Ok(self.all.get_or_init(|| Box::new(anchors)))
    }
}

fn load_anchors(options: &NetworkOptions, provider: &Arc<CryptoProvider>, scope: Scope) -> Result<(Anchors, bool)> {
    let loaded = load_roots(options, scope)?;
    let roots = Arc::new(loaded.store);
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider)).build().map_err(
            |error| Error::new(Kind::Internal, format!("cannot set up TLS: {error}")).with_phase(Phase::TlsHandshake),
        )?;
    Ok((Anchors { roots, verifier }, loaded.is_complete))
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
