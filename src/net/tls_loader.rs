//! Loads the certificates and keys for TLS within the deadline of a call.
//!
//! They are files, and a file server may not respond, or a path may lead to a pipe that nothing is written to. So a
//! helper thread loads them, and the caller waits until its deadline.

use crate::config::NetworkOptions;
use crate::error::{Error, Kind, Phase, Result, resource_limit};
use crate::net::tls::TlsConnector;
use crate::sanitize::sanitize;
use crate::sys::deadline::IoDeadline;
use crate::sys::threads::HelperThreads;
use std::io::{self, ErrorKind};

static LOADERS: HelperThreads = HelperThreads::new("amp-tls");

/// Reads the certificates and keys of the settings, and the CA certificates of the system.
pub(crate) fn load_tls(options: &NetworkOptions, deadline: IoDeadline) -> Result<TlsConnector> {
    let of_thread = options.clone();
    let loaded = on_thread(deadline, move || TlsConnector::load(&of_thread));
    loaded.unwrap_or_else(|error| {
        let error = match (error.kind(), resource_limit(&error)) {
            (ErrorKind::TimedOut, _) => {
                let message = format!("reading the certificates for TLS timed out after {deadline}{}", named(options));
                Error::new(Kind::Timeout, message)
                    .with_hint("check the files and the file server that they are on, or raise timeout_ms")
            }
            (_, Some((lack, advice))) => {
                Error::new(Kind::Io, format!("cannot read the certificates for TLS: {lack}")).with_hint(advice)
            }
            (_, None) => Error::new(Kind::Io, format!("cannot read the certificates for TLS: {error}")),
        };
        Err(error.with_phase(Phase::TlsHandshake))
    })
}

/// Runs work on such files on a helper thread.
pub(crate) fn on_thread<T: Send + 'static>(
    deadline: IoDeadline,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    LOADERS.run_with_deadline(deadline, work)
}

/// The files of the settings, for a message.
fn named(options: &NetworkOptions) -> String {
    let pair = options.client_certificate.as_ref();
    let files = [
        ("ca_file", options.ca_file.as_ref()),
        ("client_certificate", pair.map(|(certificate, _)| certificate)),
        ("client_key", pair.map(|(_, key)| key)),
    ];
    let names = files.iter().filter_map(|(setting, file)| Some(format!("{setting} {}", (*file)?.display())));
    let names: Vec<_> = names.map(|name| sanitize(&name, &[])).collect();
    if names.is_empty() { String::new() } else { format!(" (those of the system, {})", names.join(", ")) }
}
