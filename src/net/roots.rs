//! The CA certificates that are trusted: those of the system, and those of `ca_file`.
//!
//! A system keeps its certificates twice: in one bundle, and in a directory of one file each. Reading hundreds of files
//! would be most of what a first HTTPS request costs, and the directory seldom holds one that the bundle lacks. Of the
//! bundle's 150 certificates a server needs one. So they are read in stages: see [`crate::net::trust`].

use crate::config::NetworkOptions;
use crate::config::environment::Environment;
use crate::error::{Error, Kind, Phase, Result, resource_limit};
use crate::log::Log;
use crate::net::pem::{self, Bundle};
use crate::sanitize::sanitize;
use crate::sys::fork;
use rustls::RootCertStore;
use rustls_native_certs::{CertificateResult, ErrorKind};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The CA certificates to begin with.
pub(super) struct FirstRoots {
    pub(super) store: RootCertStore,
    /// The system's bundle, if the store has only one certificate of it. `None`: the store has all that there are.
    pub(super) bundle: Option<Bundle>,
}

/// The certificates of `ca_file`, and the first one of the system's bundle; or all, if that cannot be used. They are
/// trusted as they are: neither their dates nor their constraints count (RFC 5280, section 6.1).
pub(super) fn load_first_roots(options: &NetworkOptions) -> Result<FirstRoots> {
    let Some((path, bundle, mut store)) = has_files(&options.environment).then(first_of_bundle).flatten() else {
        return Ok(FirstRoots { store: load_all_roots(options)?, bundle: None });
    };
    let own = match add_ca_file(&mut store, options)? {
        0 => String::new(),
        count => format!(" and {count} of ca_file"),
    };
    options.log.debug(|| {
        let path = path.display();
        format!(
            "tls: the CA certificates of {path}{own} are trusted; the system's directories are read if these are not \
             enough"
        )
    });
    Ok(FirstRoots { store, bundle: Some(bundle) })
}

/// All CA certificates: the system's, and those of `ca_file`.
pub(super) fn load_all_roots(options: &NetworkOptions) -> Result<RootCertStore> {
    let log = &options.log;
    let mut store = RootCertStore::empty();
    let system = system_certificates(&options.environment, log);
    // An incomplete store would be kept, and would reject servers for the lifetime of the process.
    let lack = system.errors.iter().find_map(|error| match &error.kind {
        ErrorKind::Io { inner, .. } => resource_limit(inner),
        _ => None,
    });
    if let Some((lack, advice)) = lack {
        let message = format!("cannot read the CA certificates of this machine: {lack}");
        return Err(Error::new(Kind::Io, message).with_phase(Phase::TlsHandshake).with_hint(advice));
    }
    let (usable, _) = store.add_parsable_certificates(system.certs);
    let problem = system.errors.first().map_or_else(
        || "no CA certificates were found on this machine".to_owned(),
        |error| format!("no CA certificates were found on this machine ({})", describe(error)),
    );
    if usable == 0 {
        if options.ca_file.is_none() {
            return Err(Error::new(Kind::Tls, problem).with_phase(Phase::TlsHandshake).with_hint(
                "install the system's certificates (the package is often called ca-certificates), \
                 or set ca_file or SSL_CERT_FILE",
            ));
        }
        log.warning(|| format!("tls: {problem}; only ca_file is trusted"));
    }
    add_ca_file(&mut store, options)?;
    log.debug(|| format!("tls: {} CA certificates are trusted", store.len()));
    Ok(store)
}

/// Adds the certificates of `ca_file`, and returns how many there are.
fn add_ca_file(store: &mut RootCertStore, options: &NetworkOptions) -> Result<usize> {
    let Some(path) = &options.ca_file else { return Ok(0) };
    let certificates = pem::certificates(path, "ca_file")?;
    let count = certificates.len();
    for (index, certificate) in certificates.into_iter().enumerate() {
        store.add(certificate).map_err(|_| {
            let reason = format!("its certificate {} is not a valid X.509 certificate", index + 1);
            pem::file_error("ca_file", path, &reason)
        })?;
    }
    Ok(count)
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

/// The file and the directories that the environment names instead of the system's. An empty variable counts as unset.
fn named_by(environment: &Environment) -> (Option<PathBuf>, Option<OsString>) {
    let variable = |name| environment.get(name).filter(|value: &OsString| !value.is_empty());
    (variable("SSL_CERT_FILE").map(PathBuf::from), variable("SSL_CERT_DIR"))
}

/// Whether the certificates are those that the system has in files.
fn has_files(environment: &Environment) -> bool {
    named_by(environment) == (None, None) && !is_asked()
}

/// Whether the system is asked for its certificates. The frameworks of macOS may crash in a forked child, which uses the
/// bundle that the system has for LibreSSL.
fn is_asked() -> bool {
    cfg!(windows) || (cfg!(target_vendor = "apple") && fork::generation() == 0)
}

/// The system's bundle.
fn bundle_path() -> Option<&'static Path> {
    SYSTEM_CA_FILES.iter().map(Path::new).find(|path| path.exists())
}

/// The system's bundle, and its first certificate.
fn first_of_bundle() -> Option<(&'static Path, Bundle, RootCertStore)> {
    let path = bundle_path()?;
    let bundle = Bundle::read(path).ok()?;
    let mut store = RootCertStore::empty();
    store.add(bundle.first()?).ok()?;
    Some((path, bundle, store))
}

/// The system's bundle, once more.
pub(super) fn read_bundle() -> Option<Bundle> {
    Bundle::read(bundle_path()?).ok()
}

/// All certificates of the system, or those that the environment names instead, if it can be trusted.
fn system_certificates(environment: &Environment, log: &Log) -> CertificateResult {
    let (file, directories) = named_by(environment);
    if file.is_some() || directories.is_some() {
        return named_certificates(file.as_deref(), directories, log);
    }
    if is_asked() {
        return rustls_native_certs::load_native_certs();
    }
    // Where there are only files, rustls-native-certs would read the environment to find them: see
    // [`crate::config::environment`].
    let mut found = CertificateResult::default();
    if let Some(path) = bundle_path() {
        match Bundle::read(path).ok().and_then(|bundle| bundle.certificates()) {
            Some(certificates) => found.certs = certificates,
            None => found = rustls_native_certs::load_certs_from_paths(Some(path), None),
        }
    }
    // Usually they hold the same certificates, one in each file, but an administrator may have added one there only.
    for directory in SYSTEM_CA_DIRECTORIES.iter().map(Path::new).filter(|path| path.exists()) {
        let more = rustls_native_certs::load_certs_from_paths(None, Some(directory));
        found.certs.extend(more.certs);
        found.errors.extend(more.errors);
    }
    found.certs.sort_unstable_by(|one, other| one.as_ref().cmp(other.as_ref()));
    found.certs.dedup();
    found
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
