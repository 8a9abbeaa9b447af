//! The version of the library.

use super::error::status_name;
use super::ffi;
use std::ffi::{CStr, c_char};

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => c"",
};

/// The version of the binary interface: the number in the library's SONAME.
const ABI_VERSION: u32 = 0;

/// Returns the version of the loaded library, such as "0.1.0". It may differ
/// from AMP_TOKEN_VERSION, which is the version of the header at compile time.
///
/// Threads: any.
/// NULL: never returned.
/// Ownership: the string is static.
#[unsafe(no_mangle)]
pub extern "C" fn amp_version() -> *const c_char {
    VERSION.as_ptr()
}

/// Returns the version of the binary interface of the loaded library. A program
/// or binding that loads the library at run time compares it with
/// AMP_TOKEN_ABI_VERSION and rejects any other value.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn amp_abi_version() -> u32 {
    ABI_VERSION
}

/// Returns the name of a status, such as "AMP_TIMEOUT", or "AMP_UNKNOWN" for a
/// number that this version does not define.
///
/// Threads: any.
/// NULL: never returned.
/// Ownership: the string is static.
#[unsafe(no_mangle)]
pub extern "C" fn amp_status_name(status: i32) -> *const c_char {
    ffi::infallible(c"AMP_UNKNOWN".as_ptr(), || status_name(status).as_ptr())
}
