//! The default directory of the store, and the directories that a superuser does not use.
//!
//! A build runs in places where the variables of the environment name directories that it cannot use: another user's
//! home (`sudo`, the jobs of GitHub in a container), one on a read-only file system, or none at all (a service of
//! systemd). So each candidate is checked, and the next one is used if it is of no use. What is chosen is checked
//! again, on the open directory, whenever it is used.

use super::directory::display_path;
use crate::sys::at_once;
use crate::sys::deadline::IoDeadline;
use crate::sys::threads::HelperThreads;
use rustix::fs::{Access, AtFlags, CWD, accessat};
use std::ffi::{CStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The variables that name a directory, in the order in which they are tried, and the path below it. Those without
/// `XDG_` are set by systemd for a service.
const CANDIDATES: [(&str, &str); 5] = [
    (XDG_RUNTIME, "amp-token"),
    (SYSTEMD_RUNTIME, "amp-token"),
    ("XDG_CACHE_HOME", "amp-token"),
    ("CACHE_DIRECTORY", "amp-token"),
    (HOME, HOME_CACHE),
];

/// The variables for directories of files that are not needed after the session or the service.
const XDG_RUNTIME: &str = "XDG_RUNTIME_DIR";
const SYSTEMD_RUNTIME: &str = "RUNTIME_DIRECTORY";

const HOME: &str = "HOME";
/// On macOS, the directory for what can be deleted, which backups leave out.
const HOME_CACHE: &str = if cfg!(target_vendor = "apple") { "Library/Caches/amp-token" } else { ".cache/amp-token" };

/// The longest time that the choice may take. A home directory may be on a file server that does not respond, and
/// so may be what knows the users.
const TIMEOUT: Duration = Duration::from_secs(2);

static THREADS: HelperThreads = HelperThreads::new("amp-location");

/// The first directory that the environment or the user database names and this user may create. The error is a
/// message.
///
/// As the XDG Base Directory Specification says, a path counts only if it is absolute.
pub(super) fn default_store_dir(variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, String> {
    first_usable(variable, database_home)
}

fn first_usable(
    variable: impl Fn(&str) -> Option<OsString>,
    database_home: impl FnOnce() -> Option<PathBuf> + Send + 'static,
) -> Result<PathBuf, String> {
    let named = CANDIDATES.into_iter().flat_map(|(name, below)| {
        let value = variable(name).filter(|value| !value.is_empty());
        // systemd separates several directories by colons.
        let is_list = !name.starts_with("XDG_") && name != HOME;
        let paths = value.map_or_else(Vec::new, |value| if is_list { split_at_colons(value) } else { vec![value] });
        paths.into_iter().map(move |path| Candidate { name, directory: path.into(), below })
    });
    let named: Vec<_> = named.filter(|candidate| candidate.directory.is_absolute()).collect();
    // Without a thread, if the store exists, and to examine it and the directories above it waits for nothing.
    let first = named.first().filter(|first| first.answers_at_once() && first.problem().is_none());
    if let Some(first) = first {
        return Ok(first.path());
    }
    let choose = move || {
        let (mut useless, mut candidates) = (Vec::new(), named.into_iter());
        // The user database is only asked if it must be.
        let from_database = std::iter::once_with(database_home).flatten();
        let from_database = from_database.map(|directory| Candidate {
            name: "the user's home directory",
            directory,
            below: HOME_CACHE,
        });
        let chosen = candidates.by_ref().chain(from_database).find_map(|candidate| match candidate.problem() {
            None => Some(candidate.path()),
            Some(problem) => {
                let directory = display_path(&candidate.directory);
                useless.push(format!("{} ({directory}) {problem}", candidate.name));
                None
            }
        });
        chosen.ok_or(useless)
    };
    let failed = |reason: &str| format!("there is no directory for it: {reason}; set store_dir");
    match THREADS.run_with_deadline(IoDeadline::after(TIMEOUT), choose) {
        Ok(Ok(chosen)) => Ok(chosen),
        Ok(Err(useless)) if useless.is_empty() => {
            Err(failed("XDG_RUNTIME_DIR, XDG_CACHE_HOME, HOME and the user database name none"))
        }
        Ok(Err(useless)) => Err(failed(&useless.join(", "))),
        Err(error) => Err(failed(&format!("the directories of this user cannot be examined: {error}"))),
    }
}

/// A directory that may be used, and the path of the store below it.
struct Candidate {
    /// The variable that names it.
    name: &'static str,
    directory: PathBuf,
    below: &'static str,
}

impl Candidate {
    fn path(&self) -> PathBuf {
        self.directory.join(self.below)
    }

    /// Whether all directories of the path exist and are in memory.
    fn answers_at_once(&self) -> bool {
        at_once::are_local(self.path().ancestors())
    }

    /// Why this user cannot have a store there.
    fn problem(&self) -> Option<&'static str> {
        const FOREIGN: &str = "belongs to another user";
        let path = self.path();
        if of_another_user(&self.directory).or_else(|| of_another_user(&path)).is_some() {
            return Some(FOREIGN);
        }
        // Unlike a cache, a runtime directory is created by the system only.
        if [XDG_RUNTIME, SYSTEMD_RUNTIME].contains(&self.name) {
            match fs::metadata(&self.directory) {
                Ok(about) if !about.is_dir() => return Some("is not a directory"),
                // As the specification says, it must be this user's.
                Ok(about) if self.name == XDG_RUNTIME && about.uid() != effective_uid() => return Some(FOREIGN),
                Ok(_) => {}
                Err(_) => return Some("does not exist"),
            }
        }
        let nearest = path.ancestors().find_map(|path| Some((path, fs::metadata(path).ok()?)));
        let Some((nearest, about)) = nearest else { return Some("cannot be examined") };
        match accessat(CWD, nearest, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS) {
            _ if !about.is_dir() => Some("is not a directory"),
            // An existing directory of the store must be this user's.
            _ if nearest == path && about.uid() != effective_uid() => Some(FOREIGN),
            Ok(()) => None,
            Err(_) => Some("cannot be written"),
        }
    }
}

fn split_at_colons(list: OsString) -> Vec<OsString> {
    let list = list.into_vec();
    let paths = list.split(|byte| *byte == b':').filter(|path| !path.is_empty());
    paths.map(|path| OsString::from_vec(path.to_vec())).collect()
}

/// The home directory of the user on whose behalf this process acts, from the user database. (`std::env::home_dir`
/// returns HOME, where it is set.)
fn database_home() -> Option<PathBuf> {
    // As large as the longest record that the usual implementations have.
    let mut buffer = vec![0; 16 * 1024];
    let mut record = std::mem::MaybeUninit::<libc::passwd>::uninit();
    let mut found = std::ptr::null_mut();
    // SAFETY: all pointers are to live memory of the types that the function expects, and the length is the buffer's.
    let failed = unsafe {
        libc::getpwuid_r(effective_uid(), record.as_mut_ptr(), buffer.as_mut_ptr().cast(), buffer.len(), &raw mut found)
    };
    if failed != 0 || found.is_null() {
        return None;
    }
    // SAFETY: the function has found the user, so `found` points to the record, which it has initialized.
    let home = unsafe { (*found).pw_dir };
    if home.is_null() {
        return None;
    }
    // SAFETY: `pw_dir` points to a string with a NUL at its end, in the buffer, which is still there.
    let home = unsafe { CStr::from_ptr(home) }.to_bytes();
    Some(PathBuf::from(OsString::from_vec(home.to_vec()))).filter(|home| home.is_absolute())
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
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{chown, lchown, symlink};

    #[test]
    fn the_directory_is_the_first_that_the_environment_names() {
        let scratch = scratch("usual");
        let path = |name: &str| scratch.join(name);
        fs::create_dir(path("runtime")).unwrap();
        fs::create_dir(path("service")).unwrap();
        let chosen = |set: &[(&str, PathBuf)]| {
            let variable = |name: &str| set.iter().find(|(have, _)| *have == name).map(|(_, value)| value.into());
            first_usable(variable, || None)
        };
        let in_home = format!("home/{HOME_CACHE}");
        let all = [
            (HOME, path("home"), in_home.as_str()),
            ("CACHE_DIRECTORY", path("service-cache"), "service-cache/amp-token"),
            ("XDG_CACHE_HOME", path("cache"), "cache/amp-token"),
            (SYSTEMD_RUNTIME, path("service"), "service/amp-token"),
            (XDG_RUNTIME, path("runtime"), "runtime/amp-token"),
        ];
        for (last, (_, _, expected)) in all.iter().enumerate() {
            let set: Vec<_> = all[..=last].iter().map(|(name, value, _)| (*name, value.clone())).collect();
            assert_eq!(chosen(&set), Ok(path(expected)));
        }
        let home = (HOME, path("home"));
        for useless in ["relative".into(), "".into(), path("missing")] {
            for runtime in [XDG_RUNTIME, SYSTEMD_RUNTIME] {
                assert_eq!(chosen(&[(runtime, useless.clone()), home.clone()]), Ok(path(&in_home)));
            }
        }
        // systemd lists all directories of a service.
        let list = OsString::from_vec([b"/missing:".as_slice(), path("service").as_os_str().as_bytes()].concat());
        assert_eq!(chosen(&[(SYSTEMD_RUNTIME, list.into()), home]), Ok(path("service/amp-token")));
        let nothing = chosen(&[(XDG_RUNTIME, "".into()), (HOME, "".into())]).unwrap_err();
        assert!(nothing.ends_with("and the user database name none; set store_dir"), "{nothing}");
        fs::remove_dir_all(scratch).unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_used_gives_way_to_the_next() {
        let scratch = scratch("next");
        let path = |name: &str| scratch.join(name);
        fs::create_dir(path("home")).unwrap();
        fs::write(path("file"), "").unwrap();
        let problem = "is not a directory";
        for (name, useless) in
            [("XDG_CACHE_HOME", path("file")), ("CACHE_DIRECTORY", path("file/below")), (XDG_RUNTIME, path("file"))]
        {
            let variable = |set: &str| match set {
                HOME => Some(path("home").into()),
                _ => (set == name).then(|| useless.clone().into_os_string()),
            };
            assert_eq!(first_usable(variable, || None), Ok(path(&format!("home/{HOME_CACHE}"))), "{name}");
            let only = first_usable(|set| (set == name).then(|| useless.clone().into()), || None).unwrap_err();
            assert!(only.contains(&format!("{name} ({}) {problem}; set store_dir", useless.display())), "{only}");
        }
        // The user database is asked last.
        let (home, file) = (path("home"), path("file"));
        let useless = |name: &str| (name == HOME).then(|| file.clone().into());
        assert_eq!(first_usable(useless, move || Some(home)), Ok(path(&format!("home/{HOME_CACHE}"))));
        // It knows the superuser on every system.
        assert!(effective_uid() != 0 || database_home().is_some());
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
        let home = |home: &str| first_usable(|name| (name == HOME).then(|| path(home).into()), || None);
        for own in ["own", "own/missing/deeper", "own/to-own", "missing", "theirs/own", "own/theirs/own"] {
            assert_eq!(home(own), Ok(path(own).join(".cache/amp-token")));
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
            let problem = home(theirs).unwrap_err();
            assert!(problem.contains("HOME (") && problem.contains(") belongs to another user; set"), "{problem}");
            // The next variable counts.
            for first in [XDG_RUNTIME, "XDG_CACHE_HOME"] {
                let two = [(first, path(theirs).join(".cache")), ("HOME", path("own"))];
                let variable = |name: &str| two.iter().find(|(have, _)| *have == name).map(|(_, path)| path.into());
                assert_eq!(first_usable(variable, || None), Ok(path("own/.cache/amp-token")), "{theirs}");
            }
        }
        fs::remove_dir_all(scratch).unwrap();
    }
}
