//! Reads the files of certificates and keys again when they have changed.
//!
//! A service runs for months, and its certificates are renewed on disk every day (cert-manager, SPIFFE) or its CA file
//! is extended before a rotation. So each new connection compares the files with what was read: device, inode, size and
//! time of change. After a TLS failure everything is read again, which also covers the certificates of the system.
//!
//! Files that are replaced one after the other do not fit together for a moment. If the new ones cannot be used, the
//! earlier ones are, with a warning, until the files change again or TLS fails.

use crate::config::NetworkOptions;
use crate::error::Result;
use crate::net::tls::TlsConnector;
use crate::net::tls_loader::{load_tls, on_thread};
use crate::sys::deadline::IoDeadline;
use arc_swap::ArcSwapOption;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// What tells a file from its successor. `None` if it cannot be read.
type Stamp = Option<(u64, u64, u64, SystemTime)>;

/// The connector that was made last, and the files that it was made from.
struct Loaded {
    connector: Arc<TlsConnector>,
    stamps: [Stamp; 3],
}

/// Makes a [`TlsConnector`] when it is needed first, and again when its files have changed.
///
/// Two threads may both make one, and the later one is kept: a lock instead would stay locked for ever in a child that
/// was forked meanwhile.
#[derive(Default)]
pub(crate) struct TlsFiles(ArcSwapOption<Loaded>);

impl TlsFiles {
    /// The connector for the files as they are now.
    pub(crate) fn connector(&self, options: &NetworkOptions, deadline: IoDeadline) -> Result<Arc<TlsConnector>> {
        // Before the files are read: a change in between is then seen by the next connection.
        let stamps = stamps(options, deadline);
        let earlier = self.0.load_full();
        if let Some(loaded) = earlier.as_ref().filter(|loaded| loaded.stamps == stamps) {
            return Ok(Arc::clone(&loaded.connector));
        }
        let connector = match (load_tls(options, deadline), earlier) {
            (Ok(connector), earlier) => {
                if earlier.is_some() {
                    options.log.info(|| "tls: the files of certificates have changed and were read again".to_owned());
                }
                Arc::new(connector)
            }
            (Err(error), Some(earlier)) => {
                options.log.warning(|| {
                    format!("tls: the files of certificates have changed; the earlier ones are used: {error}")
                });
                Arc::clone(&earlier.connector)
            }
            (Err(error), None) => return Err(error),
        };
        self.0.store(Some(Arc::new(Loaded { connector: Arc::clone(&connector), stamps })));
        Ok(connector)
    }

    /// Has the next connection read all files again.
    pub(crate) fn forget(&self) {
        self.0.store(None);
    }
}

/// What tells the files from their successors. A file server that does not respond has no file.
fn stamps(options: &NetworkOptions, deadline: IoDeadline) -> [Stamp; 3] {
    let (certificate, key) = match &options.client_certificate {
        Some((certificate, key)) => (Some(certificate), Some(key)),
        None => (None, None),
    };
    let files = [options.ca_file.as_ref(), certificate, key].map(Option::<&PathBuf>::cloned);
    if files.iter().all(Option::is_none) {
        return [None; 3];
    }
    on_thread(deadline, move || files.map(|path| stamp(&path?))).unwrap_or([None; 3])
}

fn stamp(path: &Path) -> Stamp {
    let file = std::fs::metadata(path).ok()?;
    #[cfg(unix)]
    let (device, inode) = {
        use std::os::unix::fs::MetadataExt;
        (file.dev(), file.ino())
    };
    #[cfg(not(unix))]
    let (device, inode) = (0, 0);
    Some((device, inode, file.len(), file.modified().ok()?))
}
