//! Loads the certificates and keys for TLS, and loads them again when they have changed.
//!
//! **Within the deadline of a call.** They are files, and a file server may not respond, or a path may lead to a pipe
//! that nothing is written to. So a helper thread loads them, and the caller waits until its deadline. What is loaded
//! later serves the next call.
//!
//! **Again.** A service runs for months, and its certificates are renewed on disk every day (cert-manager, SPIFFE) or
//! its CA file is extended before a rotation. So each new connection compares the files with what was read: device,
//! inode, size and time of change. After a TLS failure everything is read again, which also covers the certificates of
//! the system. Files that are replaced one after the other do not fit together for a moment. If the new ones cannot be
//! used, the earlier ones are, with a warning, until the files change again or TLS fails. So are they in a forked child
//! that has given up the right to read them.

use crate::config::NetworkOptions;
use crate::error::Result;
use crate::net::tls::TlsConnector;
use crate::net::trust::not_loaded;
use crate::sanitize::sanitize;
use crate::sys::deadline::IoDeadline;
use crate::sys::threads::HelperThreads;
use arc_swap::ArcSwapOption;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

static LOADERS: HelperThreads = HelperThreads::new("amp-tls");

/// What tells a file from its successor. `None` if it cannot be read, or is no regular file.
type Stamp = Option<(u64, u64, u64, SystemTime)>;

/// The connector that was made last, and the files that it was made from.
struct Loaded {
    connector: Arc<TlsConnector>,
    stamps: [Stamp; 3],
    /// Whether TLS has failed since.
    is_stale: bool,
}

/// Makes a [`TlsConnector`] when it is needed first, and again when its files have changed. Clones share it.
///
/// Two threads may both make one, and the later one is kept: a lock instead would stay locked for ever in a child that
/// was forked meanwhile.
#[derive(Clone, Default)]
pub(crate) struct TlsFiles(Arc<ArcSwapOption<Loaded>>);

impl TlsFiles {
    /// The connector for the files as they are now.
    pub(crate) fn connector(&self, options: &NetworkOptions, deadline: IoDeadline) -> Result<Arc<TlsConnector>> {
        let earlier = self.0.load_full();
        if let Some(loaded) = earlier.as_ref().filter(|loaded| !loaded.is_stale && !has_files(options)) {
            return Ok(Arc::clone(&loaded.connector));
        }
        let (files, of_thread) = (self.clone(), options.clone());
        let loaded = LOADERS.run_with_deadline(deadline, move || files.load(&of_thread));
        match (loaded.unwrap_or_else(|error| Err(not_loaded(&named(options), &error, deadline))), earlier) {
            (Ok(connector), _) => Ok(connector),
            (Err(error), Some(earlier)) => {
                options.log.warning(|| {
                    format!("tls: the files of certificates have changed; the earlier ones are used: {error}")
                });
                Ok(Arc::clone(&earlier.connector))
            }
            (Err(error), None) => Err(error),
        }
    }

    /// Loads the files if they have changed.
    fn load(&self, options: &NetworkOptions) -> Result<Arc<TlsConnector>> {
        // Before the files are read: a change in between is then seen by the next connection.
        let stamps = stamps(options);
        let earlier = self.0.load_full();
        if let Some(loaded) = earlier.as_ref().filter(|loaded| !loaded.is_stale && loaded.stamps == stamps) {
            return Ok(Arc::clone(&loaded.connector));
        }
        let connector = match TlsConnector::load(options) {
            Ok(connector) => Arc::new(connector),
            Err(error) => {
                // The same files are not tried at each connection.
                if let Some(earlier) = earlier {
                    self.keep(Arc::clone(&earlier.connector), stamps, false);
                }
                return Err(error);
            }
        };
        if earlier.is_some_and(|earlier| earlier.stamps != stamps) {
            options.log.info(|| "tls: the files of certificates have changed and were read again");
        }
        self.keep(Arc::clone(&connector), stamps, false);
        Ok(connector)
    }

    fn keep(&self, connector: Arc<TlsConnector>, stamps: [Stamp; 3], is_stale: bool) {
        self.0.store(Some(Arc::new(Loaded { connector, stamps, is_stale })));
    }

    /// Has the next connection read all files again.
    pub(crate) fn mark_stale(&self) {
        if let Some(loaded) = self.0.load_full() {
            self.keep(Arc::clone(&loaded.connector), loaded.stamps, true);
        }
    }
}

fn has_files(options: &NetworkOptions) -> bool {
    options.ca_file.is_some() || options.client_certificate.is_some()
}

fn stamps(options: &NetworkOptions) -> [Stamp; 3] {
    let (certificate, key) = match &options.client_certificate {
        Some((certificate, key)) => (Some(certificate), Some(key)),
        None => (None, None),
    };
    [options.ca_file.as_ref(), certificate, key].map(|path| stamp(path?))
}

fn stamp(path: &Path) -> Stamp {
    let file = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    #[cfg(unix)]
    let (device, inode) = {
        use std::os::unix::fs::MetadataExt;
        (file.dev(), file.ino())
    };
    #[cfg(not(unix))]
    let (device, inode) = (0, 0);
    Some((device, inode, file.len(), file.modified().ok()?))
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
