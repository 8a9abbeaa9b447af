//! Environment variables.

use crate::error::{Error, Kind, Result};
use crate::secret::SecretBytes;
use std::ffi::OsString;
use zeroize::Zeroizing;

/// The bytes of the variable `name`, whose value is `value`. On Unix any bytes are allowed. Elsewhere a
/// value that is not Unicode has no bytes that another program would expect, and is an error.
pub fn bytes(name: &str, value: OsString) -> Result<SecretBytes> {
    #[cfg(unix)]
    let bytes = Ok::<_, OsString>(std::os::unix::ffi::OsStringExt::into_vec(value));
    #[cfg(not(unix))]
    let bytes = value.into_string().map(String::into_bytes);
    let bytes = bytes.map_err(|_| {
        Error::new(Kind::Config, format!("{name} is not Unicode")).advice("set it to Unicode characters, or unset it")
    })?;
    Ok(SecretBytes::from(Zeroizing::new(bytes).as_slice()))
}
