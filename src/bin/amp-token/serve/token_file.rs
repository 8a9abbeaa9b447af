//! The token in a file, for programs that read one.
//!
//! - **Whole or not at all.** It is written beside the file and renamed to it, so a reader never sees half of one,
//!   whatever kills this process. A symbolic link of that name is not followed.
//! - **Valid or not there.** A file whose token has expired is removed, and so is it at the end; a renewal that fails
//!   leaves the token that is still valid.
//! - **Nothing else is touched.** Only a file that this process wrote is removed, one that is there at the start is
//!   replaced only if it looks like an earlier token of the same user, and of unfinished files only those of this name.
//!
//! The directory is opened once: a path may lead elsewhere later.

use crate::commands::format;
use crate::exit::{CliError, CliResult, EXIT_IO};
use amp_token::sanitize::sanitize;
use amp_token::token::Token;
use ring::rand::{SecureRandom, SystemRandom};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, RawMode, fchmod, fstat, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The forms of the file, and what each is for.
pub const FORMATS: [(&str, &str); 4] = [
    ("plain", "the token alone"),
    ("header", "the header Authorization, for curl -H @FILE"),
    ("curl", "a configuration of curl, for curl -K FILE"),
    ("json", "an object, with the time at which it expires"),
];

/// The largest file that may be an earlier token.
const LARGEST: u64 = 128 * 1024;

/// The age at which an unfinished file has no writer any more, in seconds.
const ABANDONED: i64 = 60;

/// The file, and what is in it.
pub struct TokenFile {
    directory: OwnedFd,
    name: OsString,
    path: PathBuf,
    format: String,
    mode: Mode,
    /// The file that this process wrote last. While it is open, no other file has the same inode.
    written: Option<File>,
}

impl TokenFile {
    /// Checks that the file can be written, before anything is requested.
    pub fn new(path: &Path, format: &str, mode: RawMode) -> CliResult<Self> {
        let shown = sanitize(&path.display().to_string(), &[]);
        let failed = |cause: &dyn std::fmt::Display| {
            CliError::new(EXIT_IO, format!("cannot write the token to {shown}: {cause}"))
        };
        let Some(name) = path.file_name() else { return Err(failed(&"the path names no file")) };
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let directory = openat(CWD, parent, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| failed(&error))?;
        let file = TokenFile {
            directory,
            name: name.to_owned(),
            path: path.to_owned(),
            format: format.to_owned(),
            mode: Mode::from_raw_mode(mode),
            written: None,
        };
        file.may_replace().map_err(|cause| failed(&cause))?;
        file.remove_abandoned();
        let (unfinished, _) = file.create().map_err(|error| failed(&error))?;
        unlinkat(&file.directory, &unfinished, AtFlags::empty()).map_err(|error| failed(&error))?;
        Ok(file)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether what is there now is an earlier token, or nothing.
    fn may_replace(&self) -> Result<(), String> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.directory, &self.name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(()),
            Err(Errno::LOOP) => return Err("it is a symbolic link; name the file itself".to_owned()),
            Err(error) => return Err(error.to_string()),
        };
        let about = fstat(&file).map_err(|error| error.to_string())?;
        if FileType::from_raw_mode(about.st_mode) != FileType::RegularFile {
            return Err("it is not a regular file; choose another name".to_owned());
        }
        if about.st_uid != rustix::process::geteuid().as_raw() {
            return Err("it belongs to another user; remove it, or choose another name".to_owned());
        }
        let mut text = zeroize::Zeroizing::new(Vec::new());
        let read = File::from(file).take(LARGEST + 1).read_to_end(&mut text);
        let is_one_line = |text: &[u8]| text.iter().all(|byte| (b' '..=b'~').contains(byte));
        match read {
            Ok(size) if size as u64 <= LARGEST && is_one_line(text.strip_suffix(b"\n").unwrap_or(&text)) => Ok(()),
            Ok(_) => Err("it exists and is not a token; remove it, or choose another name".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Replaces the file.
    pub fn write(&mut self, token: &Token) -> io::Result<()> {
        let text = format::token(&self.format, token).map_err(|_| io::Error::other("the token has no such form"))?;
        let text = zeroize::Zeroizing::new([text.as_bytes(), b"\n"].concat());
        let (unfinished, mut file) = self.create()?;
        let renamed = |()| renameat(&self.directory, &unfinished, &self.directory, &self.name).map_err(Into::into);
        match file.write_all(&text).and_then(renamed) {
            Ok(()) => {
                self.written = Some(file);
                Ok(())
            }
            Err(error) => {
                let _ = unlinkat(&self.directory, &unfinished, AtFlags::empty());
                Err(error)
            }
        }
    }

    /// Leaves the file where it is.
    pub fn keep(mut self) {
        self.written = None;
    }

    /// Removes the file, if it is the one that this process wrote.
    pub fn remove(&mut self) {
        let Some(written) = self.written.take() else { return };
        let there = statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW);
        if let (Ok(there), Ok(written)) = (there, fstat(&written))
            && (there.st_dev, there.st_ino) == (written.st_dev, written.st_ino)
        {
            let _ = unlinkat(&self.directory, &self.name, AtFlags::empty());
        }
    }

    /// An empty file of another name.
    fn create(&self) -> io::Result<(OsString, File)> {
        let mut random = [0; 8];
        SystemRandom::new().fill(&mut random).map_err(|_| io::Error::other("no random numbers"))?;
        let name = self.unfinished(&format!("{:016x}", u64::from_ne_bytes(random)));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.directory, &name, flags, Mode::RUSR | Mode::WUSR)?;
        // Not subject to the umask.
        fchmod(&file, self.mode)?;
        Ok((name, file.into()))
    }

    /// `.NAME.MIDDLE.tmp`
    fn unfinished(&self, middle: &str) -> OsString {
        OsString::from_vec([b".", self.name.as_bytes(), b".", middle.as_bytes(), b".tmp"].concat())
    }

    /// Removes what a killed process has left behind.
    fn remove_abandoned(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let Ok(entries) = Dir::read_from(&self.directory) else { return };
        for entry in entries.map_while(Result::ok) {
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            let middle = name.as_bytes().len().checked_sub(20).and_then(|start| name.as_bytes().get(start..start + 16));
            let middle = middle.and_then(|middle| std::str::from_utf8(middle).ok());
            let is_ours = middle.is_some_and(|middle| {
                middle.bytes().all(|byte| b"0123456789abcdef".contains(&byte)) && self.unfinished(middle) == name
            });
            let Some(about) = is_ours.then(|| statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW).ok()).flatten()
            else {
                continue;
            };
            #[allow(clippy::unnecessary_cast, reason = "its type differs from system to system")]
            let age = i64::try_from(now).unwrap_or(i64::MAX).saturating_sub(about.st_mtime as i64);
            let is_file = FileType::from_raw_mode(about.st_mode) == FileType::RegularFile;
            if is_file && about.st_uid == rustix::process::geteuid().as_raw() && age > ABANDONED {
                let _ = unlinkat(&self.directory, name, AtFlags::empty());
            }
        }
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        self.remove();
    }
}

/// The permissions of a file: three or four octal digits. Nobody but its owner may change it.
pub fn parse_mode(text: &str) -> Result<RawMode, String> {
    match RawMode::from_str_radix(text, 8) {
        Ok(mode)
            if (3..=4).contains(&text.len()) && !text.starts_with('+') && mode & !0o644 == 0 && mode & 0o400 != 0 =>
        {
            Ok(mode)
        }
        _ => Err("use 0600, 0640, 0644 or less".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use amp_token::sys::clock::Clock;
    use std::os::unix::fs::PermissionsExt;

    fn token(value: &str) -> Token {
        Token::permanent(&value.into(), Clock::System.now())
    }

    #[test]
    fn a_file_is_replaced_whole_and_removed_by_its_writer() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let old = directory.path().join(".token.0123456789abcdef.tmp");
        let others = [".token.0123456789abcdeg.tmp", ".other.0123456789abcdef.tmp", "x.tmp"]
            .map(|name| directory.path().join(name));
        for file in others.iter().chain([&old]) {
            std::fs::write(file, "x").unwrap();
            File::options().write(true).open(file).unwrap().set_modified(UNIX_EPOCH).unwrap();
        }
        let mut file = TokenFile::new(&path, "curl", 0o640).unwrap();
        assert!(!old.exists() && others.iter().all(|other| other.exists()));
        file.write(&token("a\"b")).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "header = \"Authorization: Bearer a\\\"b\"\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        let first = File::open(&path).unwrap();
        file.write(&token("c")).unwrap();
        assert!(io::read_to_string(first).unwrap().contains("a\\\"b"), "a reader keeps what it has opened");
        drop(file);
        assert!(!path.exists());
        let mut file = TokenFile::new(&path, "plain", 0o600).unwrap();
        file.write(&token("c")).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "somebody else's").unwrap();
        drop(file);
        assert!(path.exists());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 4);
    }

    #[test]
    fn what_is_no_token_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("key"), "-----BEGIN\nx\n").unwrap();
        std::os::unix::fs::symlink(path("key"), path("link")).unwrap();
        std::os::unix::fs::symlink(path("nothing"), path("dangling")).unwrap();
        std::fs::create_dir(path("directory")).unwrap();
        std::fs::write(path("token"), "eyJ\n").unwrap();
        for (name, is_replaced) in
            [("key", false), ("link", false), ("dangling", false), ("directory", false), ("token", true), ("", false)]
        {
            assert_eq!(TokenFile::new(&path(name), "plain", 0o600).is_ok(), is_replaced, "{name}");
        }
        assert_eq!(std::fs::read_to_string(path("token")).unwrap(), "eyJ\n");
    }

    #[test]
    fn nobody_but_the_owner_may_write() {
        for (text, mode) in [("0600", Some(0o600)), ("640", Some(0o640)), ("0644", Some(0o644)), ("0400", Some(0o400))]
        {
            assert_eq!(parse_mode(text).ok(), mode);
        }
        for text in ["", "0660", "0666", "0700", "4600", "600x", "44", "0000", "+600"] {
            assert!(parse_mode(text).is_err(), "{text}");
        }
    }
}
