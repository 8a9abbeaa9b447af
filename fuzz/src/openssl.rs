//! The sections of a PEM file, as OpenSSL reads them.

use std::ffi::{CStr, c_char, c_int, c_long, c_uchar, c_ulong, c_void};
use std::ptr::null_mut;

#[link(name = "crypto")]
unsafe extern "C" {
    fn BIO_new_mem_buf(data: *const c_void, length: c_int) -> *mut c_void;
    fn BIO_free(bio: *mut c_void) -> c_int;
    fn PEM_read_bio(
        bio: *mut c_void,
        name: *mut *mut c_char,
        header: *mut *mut c_char,
        data: *mut *mut c_uchar,
        length: *mut c_long,
    ) -> c_int;
    fn CRYPTO_free(pointer: *mut c_void, file: *const c_char, line: c_int);
    fn ERR_peek_last_error() -> c_ulong;
    fn ERR_clear_error();
}

/// The reason of OpenSSL's error if no further section begins.
const NO_START_LINE: c_ulong = 108;

/// A section.
#[derive(Debug, PartialEq, Eq)]
pub struct Section {
    /// The name in its BEGIN line.
    pub name: String,
    /// The lines such as `Proc-Type: 4,ENCRYPTED` in it.
    pub header: String,
    /// What its base64 decodes to.
    pub data: Vec<u8>,
}

/// The sections of a file, and whether it was read to its end: OpenSSL stops at what it does not understand.
pub fn read_pem(file: &[u8]) -> (Vec<Section>, bool) {
    let mut sections = Vec::new();
    // SAFETY: the buffer outlives the BIO. Where `PEM_read_bio` returns 1, the three pointers are allocations of
    // OpenSSL that belong to the caller; the name and header are NUL-terminated, and the data has this length.
    unsafe {
        let bio = BIO_new_mem_buf(file.as_ptr().cast(), file.len() as c_int);
        assert!(!bio.is_null());
        let (mut name, mut header, mut data, mut length) = (null_mut(), null_mut(), null_mut(), 0);
        while PEM_read_bio(bio, &mut name, &mut header, &mut data, &mut length) == 1 {
            let text = |pointer: *mut c_char| CStr::from_ptr(pointer).to_string_lossy().into_owned();
            let bytes = match data.is_null() {
                true => Vec::new(),
                false => std::slice::from_raw_parts(data, length as usize).to_vec(),
            };
            sections.push(Section { name: text(name), header: text(header), data: bytes });
            for pointer in [name.cast(), header.cast(), data.cast::<c_void>()] {
                CRYPTO_free(pointer, c"".as_ptr(), 0);
            }
            (name, header, data) = (null_mut(), null_mut(), null_mut());
        }
        let is_whole = ERR_peek_last_error() & 0x007f_ffff == NO_START_LINE;
        ERR_clear_error();
        BIO_free(bio);
        (sections, is_whole)
    }
}
