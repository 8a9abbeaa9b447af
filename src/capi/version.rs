//! Which library is this?

use super::ffi;
use crate::error::Kind;
use std::ffi::{CStr, c_char};

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => c"",
};

/// The version of the binary interface: the number in the library's SONAME.
const ABI_VERSION: u32 = 0;

/// The version of the library that is loaded, such as "0.1.0". It may differ
/// from AMP_TOKEN_VERSION, which is that of the header at compile time.
///
/// Never NULL; static. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn amp_version() -> *const c_char {
    VERSION.as_ptr()
}

/// The version of the binary interface of the library that is loaded. A
/// program or binding that loads it at run time compares it with
/// AMP_TOKEN_ABI_VERSION and refuses another.
///
/// Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn amp_abi_version() -> u32 {
    ABI_VERSION
}

/// The name of a status, such as "AMP_TIMEOUT"; "AMP_UNKNOWN" for a number
/// that this version does not know.
///
/// Never NULL; static. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn amp_status_name(status: i32) -> *const c_char {
    ffi::infallible(c"AMP_UNKNOWN".as_ptr(), || {
        let names = super::error::STATUSES;
        let known = names.iter().find(|(kind, _)| kind.map_or(0, Kind::number) == status);
        known.map_or(c"AMP_UNKNOWN", |(_, name)| *name).as_ptr()
    })
}
