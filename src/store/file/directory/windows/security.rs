//! Who owns a file, and who has access to it: the counterpart of the owner and the mode of Unix.
//!
//! Administrators and the system itself may have access: they can take it anyway, as a superuser can on Unix. What an
//! administrator creates may belong to the group of administrators.

use std::fs::File;
use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::ptr;
use windows_sys::Win32::Foundation::{ERROR_SUCCESS, HANDLE, LocalFree};
use windows_sys::Win32::Security::Authorization::{
    ConvertSidToStringSidW, ConvertStringSecurityDescriptorToSecurityDescriptorW, GetSecurityInfo, SDDL_REVISION_1,
    SE_FILE_OBJECT,
};
use windows_sys::Win32::Security::{
    ACCESS_ALLOWED_ACE, ACE_HEADER, ACL, DACL_SECURITY_INFORMATION, EqualSid, GetAce, GetTokenInformation,
    IsWellKnownSid, OWNER_SECURITY_INFORMATION, PSECURITY_DESCRIPTOR, PSID, SECURITY_DESCRIPTOR, TOKEN_QUERY,
    TOKEN_USER, TokenUser, WELL_KNOWN_SID_TYPE, WinBuiltinAdministratorsSid, WinCreatorOwnerRightsSid,
    WinCreatorOwnerSid, WinLocalSystemSid,
};
use windows_sys::Win32::System::SystemServices::{ACCESS_ALLOWED_ACE_TYPE, ACCESS_DENIED_ACE_TYPE};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, OpenProcessToken};

/// Those who may own a file, apart from the user.
const OWNERS: &[WELL_KNOWN_SID_TYPE] = &[WinLocalSystemSid, WinBuiltinAdministratorsSid];

/// Those who may have access, apart from the user and the owners: names that stand for the owner.
const STAND_FOR_THE_OWNER: &[WELL_KNOWN_SID_TYPE] = &[WinCreatorOwnerSid, WinCreatorOwnerRightsSid];

/// The longest information about the user of a process, in units of 8 bytes: the structure, and an identifier of at
/// most 68 bytes.
const TOKEN_USER_UNITS: usize = 16;

/// A security descriptor, and the user of this process.
pub(super) struct Descriptor {
    descriptor: LocalMemory,
    owner: PSID,
    dacl: *mut ACL,
    user: User,
}

impl Descriptor {
    /// That of an open file or directory.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let (mut owner, mut dacl, mut descriptor) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        // SAFETY: the handle is open as long as `file`. The function writes three pointers, of which the last one is to
        // memory that `LocalFree` frees, and the others are into it.
        let code = unsafe {
            GetSecurityInfo(
                file.as_raw_handle(),
                SE_FILE_OBJECT,
                OWNER_SECURITY_INFORMATION | DACL_SECURITY_INFORMATION,
                &raw mut owner,
                ptr::null_mut(),
                &raw mut dacl,
                ptr::null_mut(),
                &raw mut descriptor,
            )
        };
        if code != ERROR_SUCCESS {
            return Err(io::Error::from_raw_os_error(code as i32));
        }
        Ok(Descriptor { descriptor: LocalMemory(descriptor), owner, dacl, user: User::of_this_process()? })
    }

    /// One for a new directory: it belongs to this user, nobody else has access, and what is created in it inherits
    /// that.
    pub(super) fn of_this_user_only() -> io::Result<Self> {
        let user = User::of_this_process()?;
        let name = user.name()?;
        let text: Vec<u16> = format!("O:{name}D:P(A;OICI;FA;;;{name})\0").encode_utf16().collect();
        let mut descriptor = ptr::null_mut();
        // SAFETY: the text ends with a zero. The function writes a pointer to memory that `LocalFree` frees.
        let is_converted = unsafe {
            ConvertStringSecurityDescriptorToSecurityDescriptorW(
                text.as_ptr(),
                SDDL_REVISION_1,
                &raw mut descriptor,
                ptr::null_mut(),
            )
        };
        check(is_converted)?;
        Ok(Descriptor { descriptor: LocalMemory(descriptor), owner: ptr::null_mut(), dacl: ptr::null_mut(), user })
    }

    pub(super) fn as_ptr(&self) -> *const SECURITY_DESCRIPTOR {
        self.descriptor.0.cast_const().cast()
    }

    /// Whether the file belongs to this user, or to those who have all rights on this machine.
    pub(super) fn is_owned_by_this_user(&self) -> bool {
        !self.owner.is_null() && self.is_trusted(self.owner, &[])
    }

    /// Whether nobody else has any access.
    pub(super) fn excludes_others(&self) -> bool {
        // No list at all: everybody has access.
        if self.dacl.is_null() {
            return false;
        }
        // SAFETY: the list is in the descriptor, which `self` keeps.
        let count = unsafe { (*self.dacl).AceCount };
        (0..u32::from(count)).all(|index| {
            let mut entry = ptr::null_mut();
            // SAFETY: as above; and the function checks the index, and writes a pointer into the list.
            if unsafe { GetAce(self.dacl, index, &raw mut entry) } == 0 {
                return false;
            }
            // SAFETY: each entry begins with this header.
            let kind = u32::from(unsafe { (*entry.cast::<ACE_HEADER>()).AceType });
            match kind {
                ACCESS_DENIED_ACE_TYPE => true,
                ACCESS_ALLOWED_ACE_TYPE => {
                    // SAFETY: an entry of this type is this structure, and the identifier begins in its last field.
                    let who = unsafe { &raw mut (*entry.cast::<ACCESS_ALLOWED_ACE>()).SidStart };
                    self.is_trusted(who.cast(), STAND_FOR_THE_OWNER)
                }
                // Those with conditions, and those for objects that are not files.
                _ => false,
            }
        })
    }

    fn is_trusted(&self, who: PSID, others: &[WELL_KNOWN_SID_TYPE]) -> bool {
        // SAFETY: `who` is an identifier in the descriptor, and both functions only compare.
        unsafe {
            EqualSid(who, self.user.id()) != 0
                || OWNERS.iter().chain(others).any(|known| IsWellKnownSid(who, *known) != 0)
        }
    }
}

/// The user of this process. (A thread that acts on behalf of another user does no I/O here: the helper threads do it,
/// on behalf of the process.)
///
/// The information refers to itself, so it stays where it is.
struct User(Vec<u64>);

impl User {
    fn of_this_process() -> io::Result<Self> {
        let mut token: HANDLE = ptr::null_mut();
        // SAFETY: the pseudo handle of the process is always valid; the function writes an open handle.
        check(unsafe { OpenProcessToken(GetCurrentProcess(), TOKEN_QUERY, &raw mut token) })?;
        // SAFETY: the function has succeeded, so the handle is open; and nothing else owns it.
        let token = unsafe { OwnedHandle::from_raw_handle(token) };
        let mut information = vec![0_u64; TOKEN_USER_UNITS];
        let mut written = 0;
        // SAFETY: the buffer has the size that is passed, and the alignment of the structure that is written to it.
        check(unsafe {
            GetTokenInformation(
                token.as_raw_handle(),
                TokenUser,
                information.as_mut_ptr().cast(),
                size_of_val(information.as_slice()) as u32,
                &raw mut written,
            )
        })?;
        Ok(User(information))
    }

    fn id(&self) -> PSID {
        // SAFETY: the information begins with this structure, which points to the identifier behind it.
        unsafe { (*self.0.as_ptr().cast::<TOKEN_USER>()).User.Sid }
    }

    /// The identifier as text, such as `S-1-5-21-1-2-3-1001`.
    fn name(&self) -> io::Result<String> {
        let mut text = ptr::null_mut();
        // SAFETY: the function reads the identifier, and writes a pointer to memory that `LocalFree` frees.
        check(unsafe { ConvertSidToStringSidW(self.id(), &raw mut text) })?;
        let memory = LocalMemory(text.cast());
        // SAFETY: the text ends with a zero, and the memory is freed after the units have been copied.
        let units = (0..).map(|index| unsafe { *text.add(index) }).take_while(|unit| *unit != 0).collect::<Vec<u16>>();
        drop(memory);
        String::from_utf16(&units).map_err(io::Error::other)
    }
}

/// Memory of the system that is freed with `LocalFree`.
struct LocalMemory(PSECURITY_DESCRIPTOR);

impl Drop for LocalMemory {
    fn drop(&mut self) {
        // SAFETY: the memory is this value's alone. Freeing a null pointer does nothing.
        unsafe { LocalFree(self.0) };
    }
}

/// The result of a function that returns zero if it fails.
fn check(result: i32) -> io::Result<()> {
    if result == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
