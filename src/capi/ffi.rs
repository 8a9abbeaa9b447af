//! The boundary between C and Rust: converts C's arguments into Rust's and back, and stops panics.
//!
//! Guarantees: no panic reaches C; each argument that can be checked is checked; a handle is created and
//! freed by one type only, its [`Handle::Owner`]. Functions that rely on what the caller promises are
//! `unsafe`, and their contracts are those of the header.

use crate::error::{Error, Kind, Result};
use std::any::Any;
use std::ffi::{CStr, CString, c_char, c_void};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

#[cfg(not(panic = "unwind"))]
compile_error!("the C interface needs panic = \"unwind\": with \"abort\" a bug would end the caller's process");

/// A `bool` of the header that a function returns. It fills the register, because some foreign function interfaces
/// (JNA, P/Invoke) read 32 bits; a C program reads the lowest byte, which is the same.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bool(i32);

impl Bool {
    pub(super) const FALSE: Bool = Bool(0);
    pub(super) const TRUE: Bool = Bool(1);
}

impl From<bool> for Bool {
    fn from(value: bool) -> Self {
        Bool(value.into())
    }
}

/// A `bool` of the header that a callback returns. It is not a Rust `bool`, for which any byte but 0 and 1 is
/// undefined behavior.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct CallbackBool(u8);

impl From<CallbackBool> for bool {
    fn from(value: CallbackBool) -> Self {
        value.0 != 0
    }
}

/// Runs the body of a function that can fail. A panic becomes an error.
pub(super) fn catch(body: impl FnOnce() -> Result<()>) -> Result<()> {
    // A panic leaves handles valid: the core changes its state in steps that are each complete, and a
    // leader that panics wakes the callers that wait for it.
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        Err(Error::new(Kind::Internal, format!("internal error in libamp_token: {}", panic_message(panic.as_ref())))
            .with_hint("please report it"))
    })
}

/// Runs the body of a function that cannot fail. The result is `fallback` if it panics.
pub(super) fn infallible<T>(fallback: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(fallback)
}

/// The message of a panic, without its location, which is a path of the build machine.
fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    crate::sanitize::sanitize(text.unwrap_or("a panic without a message"), &[])
}

fn null(name: &str) -> Error {
    Error::invalid(format!("{name} is NULL")).with_hint("pass a valid pointer")
}

/// A required argument.
pub(super) fn required<T>(argument: Option<T>, name: &str) -> Result<T> {
    argument.ok_or_else(|| null(name))
}

/// An output argument: a variable of the caller, which need not be initialized.
pub(super) type Out<'a, T> = Option<&'a mut MaybeUninit<T>>;

/// A required output argument for a handle. It is set to NULL, and stays NULL if the call fails.
pub(super) fn out_ptr<'a, T>(place: Out<'a, *mut T>, name: &str) -> Result<&'a mut MaybeUninit<*mut T>> {
    let place = required(place, name)?;
    place.write(std::ptr::null_mut());
    Ok(place)
}

/// Sets an output argument that may be NULL.
pub(super) fn write_if_set<T>(place: Out<'_, T>, value: T) {
    if let Some(place) = place {
        place.write(value);
    }
}

/// A type that C knows as an opaque pointer.
///
/// The type fixes what owns the memory behind the pointer. So a handle that is an `Arc` cannot be freed as
/// a `Box`, or as another type.
pub(super) trait Handle: Sized {
    type Owner: Owner;
}

/// A smart pointer whose memory C can own.
pub(super) trait Owner {
    fn into_raw(self) -> *mut c_void;

    /// # Safety
    /// `raw` comes from `into_raw` of the same type, and is passed to `from_raw` once.
    unsafe fn from_raw(raw: *mut c_void) -> Self;
}

impl<T> Owner for Box<T> {
    fn into_raw(self) -> *mut c_void {
        Box::into_raw(self).cast()
    }

    unsafe fn from_raw(raw: *mut c_void) -> Self {
        // SAFETY: the caller's contract is that of `Box::from_raw`.
        unsafe { Box::from_raw(raw.cast()) }
    }
}

impl<T> Owner for Arc<T> {
    fn into_raw(self) -> *mut c_void {
        Arc::into_raw(self).cast_mut().cast()
    }

    unsafe fn from_raw(raw: *mut c_void) -> Self {
        // SAFETY: the caller's contract is that of `Arc::from_raw`.
        unsafe { Arc::from_raw(raw.cast()) }
    }
}

/// Passes ownership to C.
pub(super) fn into_handle<T: Handle>(owner: T::Owner) -> *mut T {
    owner.into_raw().cast()
}

/// Frees a handle. NULL is ignored.
///
/// # Safety
/// `handle` is NULL or comes from [`into_handle`], and is not used again.
pub(super) unsafe fn free<T: Handle>(handle: *mut T) {
    infallible((), || {
        if !handle.is_null() {
            // SAFETY: `into_handle` made the pointer from the same `T::Owner`, and by the caller's
            // contract this is the last use of it.
            drop(unsafe { T::Owner::from_raw(handle.cast()) });
        }
    });
}

/// A required string argument.
///
/// # Safety
/// As for [`optional_str_arg`].
pub(super) unsafe fn str_arg<'a>(text: *const c_char, name: &str) -> Result<&'a str> {
    // SAFETY: the same contract.
    unsafe { optional_str_arg(text, name) }?.ok_or_else(|| null(name))
}

/// A string argument that may be NULL.
///
/// # Safety
/// `text` is NULL or a NUL-terminated string that does not change during `'a`, which must end with the call.
pub(super) unsafe fn optional_str_arg<'a>(text: *const c_char, name: &str) -> Result<Option<&'a str>> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: not NULL, and the rest is the caller's contract.
    let text = unsafe { CStr::from_ptr(text) };
    let text =
        text.to_str().map_err(|_| Error::invalid(format!("{name} is not UTF-8")).with_hint("encode it as UTF-8"))?;
    Ok(Some(text))
}

/// Strings in pairs, ended by NULL. NULL instead of the array means none.
///
/// # Safety
/// `list` is NULL or an array that ends with NULL, whose other elements are as for [`optional_str_arg`]; it does not
/// change during `'a`, which must end with the call.
pub(super) unsafe fn str_pairs<'a>(
    list: *const *const c_char,
    limit: usize,
    name: &str,
) -> Result<Vec<(&'a str, &'a str)>> {
    let mut pairs = Vec::new();
    if list.is_null() {
        return Ok(pairs);
    }
    for index in 0..=limit {
        // SAFETY: no NULL came before this pair, so its first element is in the array, by the caller's contract.
        let Some(first) = (unsafe { optional_str_arg(*list.add(2 * index), name) })? else { return Ok(pairs) };
        // SAFETY: the element before is not NULL, so this one is in the array, too.
        let Some(second) = (unsafe { optional_str_arg(*list.add(2 * index + 1), name) })? else {
            return Err(Error::invalid(format!("{name} ends after a name")).with_hint("pass names and values in turn"));
        };
        pairs.push((first, second));
    }
    Err(Error::invalid(format!("{name} has more than {limit} pairs")).with_hint("pass fewer, and NULL at the end"))
}

/// A block of bytes. NULL is allowed if the length is 0.
///
/// # Safety
/// If `length` is not 0, `data` is NULL or points to that many bytes, which do not change during `'a`, which
/// must end with the call.
pub(super) unsafe fn bytes<'a>(data: *const c_void, length: usize, name: &str) -> Result<&'a [u8]> {
    match (data.is_null(), length) {
        (_, 0) => Ok(&[]),
        (true, _) => Err(null(name)),
        // Rust does not allow a larger slice, and no allocation is larger.
        (false, _) if isize::try_from(length).is_err() => {
            Err(Error::invalid(format!("the length of {name} is not possible: {length} bytes"))
                .with_hint("pass the number of bytes"))
        }
        // SAFETY: not NULL, the length fits, and the rest is the caller's contract.
        (false, _) => Ok(unsafe { std::slice::from_raw_parts(data.cast(), length) }),
    }
}

/// Copies `from` into a buffer if it fits.
///
/// # Safety
/// `buffer` is NULL or points to `capacity` writable bytes, which do not overlap with `from`.
pub(super) unsafe fn copy(from: &[u8], buffer: *mut c_char, capacity: usize) -> bool {
    if from.len() > capacity || buffer.is_null() {
        return false;
    }
    // SAFETY: `from` is not longer than the capacity, and the rest is the caller's contract.
    unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), buffer.cast(), from.len()) };
    true
}

/// A string for C. A NUL in it would end it early, so each is replaced.
pub(super) fn to_c_string(text: &str) -> CString {
    const REPLACEMENT: &str = "\u{fffd}";
    let nuls = text.bytes().filter(|byte| *byte == 0).count();
    // The capacity includes the final NUL: a buffer that grows leaves a copy of a secret behind.
    let mut bytes = Vec::with_capacity(text.len() + nuls * (REPLACEMENT.len() - 1) + 1);
    for (index, part) in text.split('\0').enumerate() {
        if index > 0 {
            bytes.extend_from_slice(REPLACEMENT.as_bytes());
        }
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes.push(0);
    CString::from_vec_with_nul(bytes).unwrap_or_default()
}
