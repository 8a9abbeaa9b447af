//! The default directory of the store, and the directories that a superuser does not use.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The variables that name a directory, in the order in which they are tried, and the path below it.
const CANDIDATES: [(&str, &str); 3] =
    [(RUNTIME, "amp-token"), ("XDG_CACHE_HOME", "amp-token"), ("HOME", ".cache/amp-token")];

/// The variable for the directory of files that are not needed after the session.
const RUNTIME: &str = "XDG_RUNTIME_DIR";

/// The first directory that the environment names and this user may create. As the XDG Base Directory
/// Specification says, a path counts only if it is absolute.
pub(super) fn default_store_dir(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    CANDIDATES.into_iter().find_map(|(name, below)| {
        let named = variable(name).map(PathBuf::from).filter(|path| path.is_absolute())?;
        // Unlike a cache, a runtime directory is created by the system only.
        if name == RUNTIME && !named.is_dir() {
            return None;
        }
        let path = named.join(below);
        let forbidden = of_another_user(&named).or_else(|| of_another_user(&path));
        forbidden.is_none().then_some(path)
    })
}

/// The part of a path that belongs to another user, so that a superuser creates nothing there: a symbolic link, or
/// else the nearest directory that exists. A superuser may have the environment of that user (`sudo`), who could
/// neither use nor remove what is created.
///
/// `None` for all users but the superuser: the system checks their permissions.
pub(super) fn of_another_user(path: &Path) -> Option<&Path> {
    if effective_uid() != 0 {
        return None;
    }
    let is_foreign_link = |path: &&Path| fs::symlink_metadata(path).is_ok_and(|it| it.is_symlink() && it.uid() != 0);
    let nearest = || path.ancestors().find_map(|path| Some((path, fs::metadata(path).ok()?.uid())));
    path.ancestors().find(is_foreign_link).or_else(|| nearest().filter(|(_, owner)| *owner != 0).map(|(path, _)| path))
}

/// The user on whose behalf this process acts.
pub(super) fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::super::tests::scratch;
    use super::*;
    use std::os::unix::fs::{chown, lchown, symlink};

    #[test]
    fn the_directory_is_the_first_that_the_environment_names() {
        let scratch = scratch("usual");
        let path = |name: &str| scratch.join(name);
        fs::create_dir(path("runtime")).unwrap();
        let chosen = |set: &[(&str, PathBuf)]| {
            default_store_dir(|name| set.iter().find(|(have, _)| *have == name).map(|(_, value)| value.into()))
        };
        let all = [("HOME", path("home")), ("XDG_CACHE_HOME", path("cache")), (RUNTIME, path("runtime"))];
        assert_eq!(chosen(&all), Some(path("runtime/amp-token")));
        assert_eq!(chosen(&all[..2]), Some(path("cache/amp-token")));
        assert_eq!(chosen(&all[..1]), Some(path("home/.cache/amp-token")));
        for useless in ["relative".into(), "".into(), path("missing")] {
            assert_eq!(chosen(&[(RUNTIME, useless), ("HOME", path("home"))]), Some(path("home/.cache/amp-token")));
        }
        assert_eq!(chosen(&[(RUNTIME, "".into()), ("HOME", "".into())]), None);
        fs::remove_dir_all(scratch).unwrap();
    }

    #[test]
    fn a_superuser_uses_no_directory_of_another_user() {
        if effective_uid() != 0 {
            return;
        }
        let scratch = scratch("superuser");
        let path = |name: &str| scratch.join(name);
        for directory in ["own/.cache", "own/theirs/own", "shared/.cache", "theirs/.cache/amp-token", "theirs/own"] {
            fs::create_dir_all(path(directory)).unwrap();
        }
        for theirs in ["own/theirs", "shared/.cache", "theirs", "theirs/.cache"] {
            chown(path(theirs), Some(65534), None).unwrap();
        }
        for (link, target) in [("own/to-theirs", "../theirs"), ("own/to-own", "."), ("own/dangling", "missing")] {
            symlink(target, path(link)).unwrap();
        }
        for (link, target) in [("theirs/to-own", "../own"), ("theirs/dangling", "../own/missing")] {
            symlink(target, path(link)).unwrap();
            lchown(path(link), Some(65534), None).unwrap();
        }
        let home = |home: &str| default_store_dir(|name| (name == "HOME").then(|| path(home).into()));
        for own in ["own", "own/missing/deeper", "own/to-own", "missing", "theirs/own", "own/theirs/own"] {
            assert_eq!(home(own), Some(path(own).join(".cache/amp-token")));
        }
        for theirs in [
            "own/theirs",
            "own/theirs/missing",
            "own/theirs/missing/deeper",
            "own/to-theirs",
            "own/to-theirs/missing",
            "own/to-theirs/to-own/missing",
            "shared",
            "theirs",
            "theirs/./missing",
            "theirs/dangling",
            "theirs/dangling/deeper",
            "theirs/to-own",
            "theirs/to-own/.cache",
        ] {
            assert_eq!(home(theirs), None, "{theirs}");
            // The next variable counts.
            for first in [RUNTIME, "XDG_CACHE_HOME"] {
                let two = [(first, path(theirs).join(".cache")), ("HOME", path("own"))];
                let variable = |name: &str| two.iter().find(|(have, _)| *have == name).map(|(_, path)| path.into());
                assert_eq!(default_store_dir(variable), Some(path("own/.cache/amp-token")), "{theirs}");
            }
        }
        fs::remove_dir_all(scratch).unwrap();
    }
}
