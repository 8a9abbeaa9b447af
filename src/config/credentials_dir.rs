//! A directory with one file for each part of the credentials, as systemd, Docker and Kubernetes mount them.
//!
//! Kubernetes replaces all files at once: they are links through `..data`, which is a link to the current directory.
//! The files are read from the directory that `..data` leads to, and again if another has taken its place meanwhile, so
//! that a client id and a secret are of one version.

use std::path::{Path, PathBuf};

/// The link of Kubernetes to the current files.
const DATA: &str = "..data";

/// How often the files are read if they are replaced meanwhile.
const ATTEMPTS: usize = 3;

/// The names of the files.
pub(super) const FILES: [&str; 3] = ["client_id", "client_secret", "personal_access_token"];

/// Reads the files, each with `read`, which takes its path. All are of one version.
pub(super) fn read<T, E>(
    directory: &Path,
    mut read: impl FnMut(&Path) -> Result<Option<T>, E>,
) -> Result<[Option<T>; 3], E> {
    let mut attempt = 1;
    loop {
        let version = version(directory);
        let from = version.as_deref().unwrap_or(directory);
        let [id, secret, token] = FILES.map(|name| from.join(name));
        let result = (|| Ok([read(&id)?, read(&secret)?, read(&token)?]))();
        if attempt == ATTEMPTS || self::version(directory) == version {
            return result;
        }
        attempt += 1;
    }
}

/// The directory of the current version; `None` if there is only one.
fn version(directory: &Path) -> Option<PathBuf> {
    Some(directory.join(directory.join(DATA).read_link().ok()?))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// As the kubelet does it: a new directory, a new link, and the link is renamed.
    fn swap(directory: &Path, version: &str) {
        let data = directory.join(format!("..{version}"));
        std::fs::create_dir(&data).unwrap();
        for name in ["client_id", "client_secret"] {
            std::fs::write(data.join(name), version).unwrap();
        }
        symlink(format!("..{version}"), directory.join("..tmp")).unwrap();
        std::fs::rename(directory.join("..tmp"), directory.join(DATA)).unwrap();
    }

    #[test]
    fn all_files_are_of_one_version() {
        let directory = std::env::temp_dir().join(format!("amp-credentials-dir-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        swap(&directory, "1");
        for name in ["client_id", "client_secret"] {
            symlink(format!("{DATA}/{name}"), directory.join(name)).unwrap();
        }
        let get = |path: &Path| Ok::<_, ()>(std::fs::read_to_string(path).ok());
        let version = |text: &str| Some(text.to_owned());
        assert_eq!(read(&directory, get), Ok([version("1"), version("1"), None]));
        // It is replaced between the two files, and the old one is removed.
        let mut reads = 0;
        let result = read(&directory, |path| {
            reads += 1;
            if reads == 2 {
                swap(&directory, "2");
                std::fs::remove_dir_all(directory.join("..1")).unwrap();
            }
            get(path)
        });
        assert_eq!(result, Ok([version("2"), version("2"), None]));
        // Without end.
        let mut next = 2;
        let result = read(&directory, |path| {
            next += 1;
            swap(&directory, &next.to_string());
            get(path)
        });
        assert!(result.is_ok());
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
