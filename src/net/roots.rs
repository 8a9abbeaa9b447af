//! The CA certificates that are trusted: those of the system, and those of `ca_file`.
//!
//! A system keeps its certificates twice: in one bundle, and in a directory of one file each. Reading hundreds of files
//! is most of what a first HTTPS request costs, and the directory seldom holds one that the bundle lacks. So they are
//! read in two stages: see [`crate::net::trust`].

use crate::config::NetworkOptions;
use crate::config::environment::Environment;
use crate::error::{Error, Kind, Phase, Result, resource_limit};
use crate::log::Log;
use crate::net::pem;
use crate::sanitize::sanitize;
use crate::sys::fork;
use rustls::RootCertStore;
use rustls_native_certs::{CertificateResult, ErrorKind};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Which of the system's certificates to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Its bundle only, if there is one that can be read.
    Bundle,
    /// All of them.
    All,
}

/// CA certificates to trust.
pub(super) struct Roots {
    pub(super) store: RootCertStore,
    /// Whether these are all, whatever the scope was.
    pub(super) is_complete: bool,
}

/// The CA certificates to trust: the system's in this scope, and all of `ca_file`. They are trusted as they are: neither
/// their dates nor their constraints count (RFC 5280, section 6.1).
pub(super) fn load_roots(options: &NetworkOptions, scope: Scope) -> Result<Roots> {
    let (ca_file, log) = (options.ca_file.as_deref(), &options.log);
    let mut store = RootCertStore::empty();
    let (system, is_complete) = system_certificates(&options.environment, log, scope);
    // An incomplete store would be kept, and would reject servers for the lifetime of the process.
    let lack = system.errors.iter().find_map(|error| match &error.kind {
        ErrorKind::Io { inner, .. } => resource_limit(inner),
        _ => None,
    });
    if let Some((lack, advice)) = lack {
        let message = format!("cannot read the CA certificates of this machine: {lack}");
        return Err(Error::new(Kind::Io, message).with_phase(Phase::TlsHandshake).with_hint(advice));
    }
    let (mut usable, _) = store.add_parsable_certificates(system.certs);
    let problem = system.errors.first().map_or_else(
        || "no CA certificates were found on this machine".to_owned(),
        |error| format!("no CA certificates were found on this machine ({})", describe(error)),
    );
    match ca_file {
        Some(path) => {
            if usable == 0 {
                log.warning(|| format!("tls: {problem}; only ca_file is trusted"));
            }
            for (index, certificate) in pem::certificates(path, "ca_file")?.into_iter().enumerate() {
                store.add(certificate).map_err(|_| {
                    let reason = format!("its certificate {} is not a valid X.509 certificate", index + 1);
                    pem::file_error("ca_file", path, &reason)
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
    let more = if is_complete { "" } else { "; the system's directories are read if these are not enough" };
    log.debug(|| format!("tls: {usable} CA certificates are trusted{more}"));
    Ok(Roots { store, is_complete })
}

/// Describes a file that cannot be read, without quoting it.
fn describe(error: &rustls_native_certs::Error) -> String {
    let reason = match &error.kind {
        ErrorKind::Io { inner, path } => format!("{}: {inner}", path.display()),
        ErrorKind::Os(error) => error.to_string(),
        _ => "a file is not well-formed PEM".to_owned(),
    };
    sanitize(&reason, &[])
}

/// The certificates of the system, or those that the environment names instead, if it can be trusted; and whether they
/// are all. An empty variable counts as unset.
fn system_certificates(environment: &Environment, log: &Log, scope: Scope) -> (CertificateResult, bool) {
    let variable = |name| environment.get(name).filter(|value: &OsString| !value.is_empty());
    let (file, directories) = (variable("SSL_CERT_FILE").map(PathBuf::from), variable("SSL_CERT_DIR"));
    if file.is_some() || directories.is_some() {
        return (named_certificates(file.as_deref(), directories, log), true);
    }
    // The frameworks of macOS may crash in a forked child, which uses the bundle that the system has for LibreSSL.
    if cfg!(windows) || (cfg!(target_vendor = "apple") && fork::generation() == 0) {
        return (rustls_native_certs::load_native_certs(), true);
    }
    // Where there are only files, rustls-native-certs would read the environment to find them: see
    // [`crate::config::environment`].
    let file = SYSTEM_CA_FILES.iter().map(Path::new).find(|path| path.exists());
    let mut found = CertificateResult::default();
    if let Some(path) = file {
        match pem::system_certificates(path) {
            Some(certificates) => found.certs = certificates,
            None => found = rustls_native_certs::load_certs_from_paths(Some(path), None),
        }
    }
    if scope == Scope::Bundle && !found.certs.is_empty() && found.errors.is_empty() {
        return (found, false);
    }
    // Usually they hold the same certificates, one in each file, but an administrator may have added one there only.
    for directory in SYSTEM_CA_DIRECTORIES.iter().map(Path::new).filter(|path| path.exists()) {
        let more = rustls_native_certs::load_certs_from_paths(None, Some(directory));
        found.certs.extend(more.certs);
        found.errors.extend(more.errors);
    }
    found.certs.sort_unstable_by(|one, other| one.as_ref().cmp(other.as_ref()));
    found.certs.dedup();
    (found, true)
}

/// The certificates of this file and these directories.
fn named_certificates(file: Option<&Path>, directories: Option<OsString>, log: &Log) -> CertificateResult {
    let mut all = CertificateResult::default();
    let mut rest = Vec::new();
    if let Some(path) = file {
        match pem::certificates(path, "SSL_CERT_FILE") {
            Ok(certificates) => all.certs = certificates,
            // The file is not this library's own, and the rest of it may be usable.
            Err(error) => {
                log.warning(|| format!("tls: {error}; the certificates that can be read are used"));
                rest.push(rustls_native_certs::load_certs_from_paths(Some(path), None));
            }
        }
    }
    let directories = directories.iter().flat_map(std::env::split_paths).filter(|path| !path.as_os_str().is_empty());
    rest.extend(directories.map(|path| rustls_native_certs::load_certs_from_paths(None, Some(&path))));
    for found in rest {
        all.certs.extend(found.certs);
        all.errors.extend(found.errors);
    }
    all
}

/// Where systems keep the certificates of their CAs in one file.
const SYSTEM_CA_FILES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",                // Debian, Arch, Alpine, Gentoo
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // Red Hat 7 and later
    "/etc/pki/tls/certs/ca-bundle.crt",                  // Fedora, Red Hat 6
    "/etc/ssl/ca-bundle.pem",                            // SUSE
    "/etc/ssl/cert.pem",                                 // Alpine, OpenBSD, macOS
    "/usr/local/etc/ssl/cert.pem",                       // FreeBSD
    "/etc/openssl/certs/ca-certificates.crt",            // NetBSD
    "/usr/local/share/certs/ca-root-nss.crt",            // DragonFly
    "/etc/certs/ca-certificates.crt",                    // Solaris, OpenIndiana
    "/etc/ssl/cacert.pem",                               // OmniOS
    "/etc/pki/tls/cacert.pem",                           // OpenELEC
    "/opt/etc/ssl/certs/ca-certificates.crt",            // Entware
];

/// Where systems keep them in one file each.
const SYSTEM_CA_DIRECTORIES: &[&str] = &[
    "/etc/ssl/certs",
    "/etc/pki/tls/certs",
    "/etc/openssl/certs",
    "/usr/local/share/certs",
    "/etc/certs/CA",
    "/var/ssl/certs",
];
