//! The default directory of the store: below the user's local application data, which do not follow the user to other
//! machines.

use super::{display_path, security};
use crate::sys::deadline::IoDeadline;
use crate::sys::threads::HelperThreads;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::windows::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use windows_sys::Win32::Storage::FileSystem::FILE_FLAG_BACKUP_SEMANTICS;

/// The variables that name a directory, in the order in which they are tried, and the path below it. The system sets
/// both for every user and every service.
const CANDIDATES: [(&str, &str); 2] = [("LOCALAPPDATA", "amp-token"), ("USERPROFILE", r"AppData\Local\amp-token")];

/// The longest time that the choice may take: a profile may be on a file server that does not respond.
const TIMEOUT: Duration = Duration::from_secs(2);

static THREADS: HelperThreads = HelperThreads::new("amp-location");

/// The first directory that the environment names and that is not another user's. The error is a message.
pub(in super::super::super) fn default_store_dir(
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<PathBuf, String> {
    let named = CANDIDATES.into_iter().filter_map(|(name, below)| {
        let directory = PathBuf::from(variable(name)?);
        directory.is_absolute().then_some((name, directory, below))
    });
    let named: Vec<_> = named.collect();
    let choose = move || {
        let mut useless = Vec::new();
        for (name, directory, below) in named {
            match problem(&directory) {
                None => return Ok(directory.join(below)),
                Some(problem) => useless.push(format!("{name} ({}) {problem}", display_path(&directory))),
            }
        }
        Err(useless)
    };
    let failed = |reason: &str| format!("there is no directory for it: {reason}; set store_dir");
    match THREADS.run_with_deadline(IoDeadline::after(TIMEOUT), choose) {
        Ok(Ok(chosen)) => Ok(chosen),
        Ok(Err(useless)) if useless.is_empty() => Err(failed("LOCALAPPDATA and USERPROFILE name none")),
        Ok(Err(useless)) => Err(failed(&useless.join(", "))),
        Err(error) => Err(failed(&format!("the directories of this user cannot be examined: {error}"))),
    }
}

/// Why this user cannot have a store there. An administrator may have the environment of another user (`runas /env`),
/// who could neither use nor remove what is created.
fn problem(directory: &Path) -> Option<&'static str> {
    let examine = |path| -> io::Result<_> {
        let file = File::options().access_mode(super::SEARCH).custom_flags(FILE_FLAG_BACKUP_SEMANTICS).open(path)?;
        let is_own = security::Descriptor::of(&file)?.is_owned_by_this_user();
        Ok((file.metadata()?.is_dir(), is_own))
    };
    match directory
        .ancestors()
        .map(examine)
        .find(|found| !found.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound))
    {
        Some(Ok((true, true))) => None,
        Some(Ok((true, false))) => Some("belongs to another user"),
        Some(Ok((false, _))) => Some("is not a directory"),
        Some(Err(_)) | None => Some("cannot be examined"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_is_the_first_that_the_environment_names() {
        let scratch = crate::store::file::tests::scratch("windows-location");
        let file = scratch.join("file");
        std::fs::write(&file, "").unwrap();
        let chosen = |local: &Path, profile: &Path| {
            default_store_dir(|name| match name {
                "LOCALAPPDATA" => Some(local.into()),
                "USERPROFILE" => Some(profile.into()),
                _ => None,
            })
        };
        assert_eq!(chosen(&scratch, &file), Ok(scratch.join("amp-token")));
        // The directory of the application data may not exist yet.
        assert_eq!(chosen(&scratch.join("missing"), &file), Ok(scratch.join(r"missing\amp-token")));
        for useless in ["".as_ref(), "relative".as_ref(), file.as_path()] {
            assert_eq!(chosen(useless, &scratch), Ok(scratch.join(r"AppData\Local\amp-token")));
        }
        let nothing = chosen("".as_ref(), "relative".as_ref()).unwrap_err();
        assert!(nothing.ends_with("name none; set store_dir"), "{nothing}");
        let useless = chosen(&file, "".as_ref()).unwrap_err();
        assert!(useless.contains("LOCALAPPDATA (") && useless.contains(") is not a directory; set"), "{useless}");
        std::fs::remove_dir_all(scratch).unwrap();
    }
}
