//! Whether other users can read a file that holds a secret.
//!
//! A warning is of use only if it is true and can be heeded. Secrets of Kubernetes and Docker are mounted with the
//! modes 0644 and 0444, on file systems that are read-only, and belong to root; a file with such a mode may be in a
//! directory that other users cannot enter. That is worth a line for debugging, not one in every log.

#[cfg(unix)]
use crate::log::Level;
use crate::log::Log;
use std::fs::{File, Metadata};
use std::path::Path;

/// Reports a file that other users can read: as a warning, if this user can change that.
#[cfg(unix)]
pub(super) fn report_if_readable_by_others(opened: &File, about: &Metadata, path: &Path, log: &Log) {
    use crate::sanitize::sanitize;
    use std::os::unix::fs::PermissionsExt;
    if !about.is_file() || about.permissions().mode() & 0o004 == 0 {
        return;
    }
    let level = if others_can_reach(path) && can_change_mode(opened, about) { Level::Warning } else { Level::Debug };
    log.write(level, || {
        let path = sanitize(&path.display().to_string(), &[]);
        format!("{path} contains a secret and is readable by all users; run chmod go= on it")
    });
}

/// Which other users can change the file, as a sentence; `None` if only this user and root can. They can if they own it
/// or may write to it, or if they can put another file in its place.
#[cfg(unix)]
pub(super) fn others_who_can_write(about: &Metadata, path: &Path) -> Option<String> {
    use crate::sanitize::sanitize;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    const STICKY: u32 = 0o1000;
    let user = rustix::process::geteuid().as_raw();
    let problem = |about: &Metadata, path: &Path| {
        let mode = about.permissions().mode();
        let others = if about.uid() != user && about.uid() != 0 {
            "belongs to another user"
        } else if mode & 0o022 != 0 && !(about.is_dir() && mode & STICKY != 0) {
            "can be changed by other users"
        } else {
            return None;
        };
        Some(format!("{} {others}", sanitize(&path.display().to_string(), &[])))
    };
    let directories = || {
        let path = path.canonicalize().ok()?;
        path.ancestors().skip(1).find_map(|above| problem(&above.metadata().ok()?, above))
    };
    problem(about, path).or_else(directories)
}

#[cfg(not(unix))]
pub(super) fn others_who_can_write(_: &Metadata, _: &Path) -> Option<String> {
    None
}

#[cfg(not(unix))]
pub(super) fn report_if_readable_by_others(_: &File, _: &Metadata, _: &Path, _: &Log) {}

/// Whether all directories above the file, and above what a symbolic link leads to, can be entered by all users.
#[cfg(unix)]
fn others_can_reach(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let Ok(path) = path.canonicalize() else { return true };
    let is_open = |above: &Path| above.metadata().map_or(true, |about| about.permissions().mode() & 0o001 != 0);
    path.ancestors().skip(1).all(is_open)
}

/// Whether this user may change the mode of the file.
#[cfg(unix)]
fn can_change_mode(opened: &File, about: &Metadata) -> bool {
    use rustix::fs::{StatVfsMountFlags, fstatvfs};
    use std::os::unix::fs::MetadataExt;
    let user = rustix::process::geteuid();
    let is_read_only = fstatvfs(opened).is_ok_and(|disk| disk.f_flag.contains(StatVfsMountFlags::RDONLY));
    (user.is_root() || about.uid() == user.as_raw()) && !is_read_only
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn only_what_others_can_read_and_this_user_can_change_is_a_warning() {
        let open = std::env::temp_dir().join(format!("amp-access-{}", std::process::id()));
        let closed = open.join("closed");
        fs::create_dir_all(&closed).unwrap();
        fs::set_permissions(&open, Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
        symlink("closed/secret", open.join("link")).unwrap();
        let level = |path: &Path, mode: u32| {
            if path.is_symlink() {
                fs::set_permissions(closed.join("secret"), Permissions::from_mode(mode)).unwrap();
            } else {
                fs::write(path, "a secret").unwrap();
                fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
            }
            let mut log = Log::default();
            log.keep_lines(10);
            let file = File::open(path).unwrap();
            report_if_readable_by_others(&file, &file.metadata().unwrap(), path, &log);
            log.take_line().map(|(level, line)| {
                assert!(line.contains("readable by all users; run chmod go= on it"), "{line}");
                level
            })
        };
        assert_eq!(level(&open.join("secret"), 0o644), Some(Level::Warning));
        assert_eq!(level(&open.join("secret"), 0o604), Some(Level::Warning));
        assert_eq!(level(&open.join("secret"), 0o640), None);
        assert_eq!(level(&closed.join("secret"), 0o644), Some(Level::Debug));
        assert_eq!(level(&open.join("link"), 0o444), Some(Level::Debug));
        fs::remove_dir_all(open).unwrap();
    }

    #[test]
    fn others_who_can_replace_a_file_can_change_it() {
        let directory = std::env::temp_dir().join(format!("amp-writable-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let file = directory.join("file");
        fs::write(&file, "").unwrap();
        symlink("file", directory.join("link")).unwrap();
        let others = |directory_mode: u32, file_mode: u32, path: &str| {
            fs::set_permissions(&file, Permissions::from_mode(file_mode)).unwrap();
            fs::set_permissions(&directory, Permissions::from_mode(directory_mode)).unwrap();
            let path = directory.join(path);
            others_who_can_write(&path.metadata().unwrap(), &path)
        };
        let about = |path: &Path| Some(format!("{} can be changed by other users", path.display()));
        for mode in [0o600, 0o644, 0o444] {
            assert_eq!(others(0o755, mode, "file"), None);
        }
        for mode in [0o620, 0o602, 0o666] {
            assert_eq!(others(0o700, mode, "file"), about(&file));
            assert_eq!(others(0o700, mode, "link"), about(&directory.join("link")));
        }
        for mode in [0o770, 0o777, 0o703] {
            assert_eq!(others(mode, 0o600, "link"), about(&directory.canonicalize().unwrap()));
        }
        assert_eq!(others(0o1777, 0o600, "file"), None, "nobody can replace another user's file");
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_file_of_another_user_cannot_be_changed() {
        let roots = File::open("/etc/passwd").unwrap();
        assert_eq!(can_change_mode(&roots, &roots.metadata().unwrap()), rustix::process::geteuid().is_root());
    }
}
