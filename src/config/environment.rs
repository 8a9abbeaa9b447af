//! Environment variables. All code of the library reads them here, and only when a configuration is created or loaded:
//! a thread that changes the environment while another one reads it can crash a C program, so a program must know when
//! that is. Everything that is created later uses what was [read](Environment) then.
//!
//! A program with raised privileges (setuid, setgid, file capabilities) is started by a user who has fewer
//! privileges than the program, and who controls its environment. That user could make the program send its
//! secrets to another server, or read files that the user may not read. So the environment of such a program
//! counts as empty, as with `secure_getenv` of the GNU C library.

use super::settings::SETTINGS;
use crate::error::{Error, Kind, Result};
use crate::sys::secret::SecretBytes;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use zeroize::Zeroizing;

/// The variables that are not settings: those of proxies, certificates and directories.
const VARIABLES: &[&str] = &[
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "XDG_RUNTIME_DIR",
    "RUNTIME_DIRECTORY",
    "XDG_CACHE_HOME",
    "CACHE_DIRECTORY",
    "XDG_CONFIG_HOME",
    "CREDENTIALS_DIRECTORY",
    "HOME",
    "LOCALAPPDATA",
    "USERPROFILE",
    "APPDATA",
];

/// The environment, as it was at one moment. Clones share it.
#[derive(Clone, Default)]
pub struct Environment {
    /// The variables that the library itself reads.
    known: Arc<[(&'static str, OsString)]>,
    /// What a program that is started gets: all variables but those of settings that hold a secret.
    inherited: Arc<[(OsString, OsString)]>,
}

impl Environment {
    /// Reads the variables.
    pub fn read() -> Self {
        let known = VARIABLES.iter().filter_map(|name| Some((*name, variable(name)?))).collect();
        if has_raised_privileges() {
            return Environment { known, inherited: Arc::default() };
        }
        let is_secret = |name: &OsString| {
            let secrets = SETTINGS.iter().filter(|setting| setting.value_type.is_secret());
            secrets.flat_map(|setting| setting.environment).any(|variable| name == variable)
        };
        let inherited = std::env::vars_os().filter(|(name, _)| !is_secret(name)).collect();
        Environment { known, inherited }
    }

    /// The environment of a user with this home directory, and no other variables; for tests.
    #[doc(hidden)]
    pub fn of_home(home: &std::path::Path) -> Self {
        let name = if cfg!(windows) { "USERPROFILE" } else { "HOME" };
        Environment { known: [(name, home.into())].into(), inherited: Arc::default() }
    }

    /// The value of a variable, which must be one of those that are read.
    pub fn get(&self, name: &str) -> Option<OsString> {
        debug_assert!(VARIABLES.contains(&name), "{name} is not read");
        self.known.iter().find(|(have, _)| *have == name).map(|(_, value)| value.clone())
    }

    /// The variables of a program that is started.
    pub(crate) fn inherited(&self) -> &[(OsString, OsString)] {
        &self.inherited
    }

    /// The environment for what starts no program, which keeps no copy of all variables.
    pub(super) fn without_inherited(&self) -> Self {
        Environment { known: self.known.clone(), inherited: Arc::default() }
    }

    /// The user's home directory.
    pub(super) fn home(&self) -> Option<PathBuf> {
        self.directory(if cfg!(windows) { "USERPROFILE" } else { "HOME" })
    }

    /// The value of a variable as a directory. An empty variable counts as unset.
    pub(super) fn directory(&self, name: &str) -> Option<PathBuf> {
        self.get(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }
}

impl std::fmt::Debug for Environment {
    /// Shows no values: that of a proxy may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.known.iter().map(|(name, _)| name)).finish()
    }
}

/// The value of a variable. `None` if it is not set, or if this process [has raised
/// privileges](has_raised_privileges).
pub fn variable(name: &str) -> Option<OsString> {
    if has_raised_privileges() { None } else { std::env::var_os(name) }
}

/// Whether the program was started with more privileges than the user has who started it.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub fn has_raised_privileges() -> bool {
    // SAFETY: the function takes a number and reads the auxiliary vector, which the kernel writes before the
    // program starts and which does not change later.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Whether the program was started with more privileges than the user has who started it.
#[cfg(any(
    target_vendor = "apple",
    target_os = "dragonfly",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd"
))]
pub fn has_raised_privileges() -> bool {
    // SAFETY: the function has no arguments and returns a number of the kernel.
    unsafe { libc::issetugid() != 0 }
}

/// Whether the process has other privileges than the user who started it. These systems do not record the
/// privileges that it was started with.
#[cfg(all(
    unix,
    not(any(
        target_os = "linux",
        target_os = "android",
        target_vendor = "apple",
        target_os = "dragonfly",
        target_os = "freebsd",
        target_os = "netbsd",
        target_os = "openbsd"
    ))
))]
pub fn has_raised_privileges() -> bool {
    // SAFETY: these functions have no arguments and cannot fail.
    unsafe { libc::getuid() != libc::geteuid() || libc::getgid() != libc::getegid() }
}

/// Always false: this system has no such programs.
#[cfg(not(unix))]
pub fn has_raised_privileges() -> bool {
    false
}

/// The bytes of the variable `name`, whose value is `value`. On Unix any bytes are allowed. Elsewhere a
/// value that is not Unicode has no bytes that another program would expect, and is an error.
pub fn bytes(name: &str, value: OsString) -> Result<SecretBytes> {
    #[cfg(unix)]
    let bytes = Ok::<_, OsString>(std::os::unix::ffi::OsStringExt::into_vec(value));
    #[cfg(not(unix))]
    let bytes = value.into_string().map(String::into_bytes);
    let bytes = bytes.map_err(|_| {
        Error::new(Kind::Config, format!("{name} is not Unicode"))
            .with_hint("set it to Unicode characters, or unset it")
    })?;
    Ok(SecretBytes::from(Zeroizing::new(bytes).as_slice()))
}
