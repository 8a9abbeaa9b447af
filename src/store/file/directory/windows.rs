//! Directories and files of Windows, by handles.
//!
//! Win32 has no counterpart of `openat`; the system calls below it have, and take a name that is relative to an open
//! directory. So a file is never reached by a path that another user could change in the meantime. A handle to a
//! reparse point (a symbolic link, a junction) is a handle to the link itself, which is refused.
//!
//! Every handle lets other processes read, write, rename and remove the file meanwhile, as on Unix.

mod location;
mod security;

use super::{Access, Attempt, BELOW_IT, display_path, failed};
pub(in super::super) use location::default_store_dir;
use std::fs::{File, Metadata};
use std::io;
use std::mem::offset_of;
use std::os::windows::fs::{MetadataExt, OpenOptionsExt};
use std::os::windows::io::{AsRawHandle, FromRawHandle};
use std::path::Path;
use std::time::Duration;
use windows_sys::Wdk::Foundation::OBJECT_ATTRIBUTES;
use windows_sys::Wdk::Storage::FileSystem::{
    FILE_CREATE, FILE_DIRECTORY_FILE, FILE_DISPOSITION_DELETE, FILE_DISPOSITION_INFORMATION,
    FILE_DISPOSITION_INFORMATION_EX, FILE_DISPOSITION_POSIX_SEMANTICS, FILE_INFORMATION_CLASS, FILE_NON_DIRECTORY_FILE,
    FILE_OPEN, FILE_OPEN_IF, FILE_OPEN_REPARSE_POINT, FILE_RENAME_INFORMATION, FILE_RENAME_INFORMATION_0,
    FILE_RENAME_POSIX_SEMANTICS, FILE_RENAME_REPLACE_IF_EXISTS, FILE_SYNCHRONOUS_IO_NONALERT,
    FileDispositionInformation, FileDispositionInformationEx, FileRenameInformation, FileRenameInformationEx,
    NTCREATEFILE_CREATE_DISPOSITION, NTCREATEFILE_CREATE_OPTIONS, NtCreateFile, NtSetInformationFile,
};
use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION, HANDLE, NTSTATUS, OBJ_CASE_INSENSITIVE, RtlNtStatusToDosError,
    STATUS_DELETE_PENDING, UNICODE_STRING,
};
use windows_sys::Win32::Security::SECURITY_DESCRIPTOR;
use windows_sys::Win32::Storage::FileSystem::{
    DELETE, FILE_ATTRIBUTE_NORMAL, FILE_ATTRIBUTE_REPARSE_POINT, FILE_FLAG_BACKUP_SEMANTICS,
    FILE_FLAG_OPEN_REPARSE_POINT, FILE_GENERIC_READ, FILE_GENERIC_WRITE, FILE_READ_ATTRIBUTES, FILE_SHARE_DELETE,
    FILE_SHARE_READ, FILE_SHARE_WRITE, FILE_TRAVERSE, FILE_TYPE_DISK, GetFileType, READ_CONTROL, SYNCHRONIZE,
};
use windows_sys::Win32::System::IO::IO_STATUS_BLOCK;

const SHARED: u32 = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;

/// Access to the names in a directory, and to its security descriptor.
const SEARCH: u32 = FILE_TRAVERSE | FILE_READ_ATTRIBUTES | READ_CONTROL | SYNCHRONIZE;

/// The pauses before an operation is repeated that failed because another program, such as a virus scanner, has the
/// file open in a way that excludes it. A quarter of a second in all.
const PAUSES: [u64; 8] = [1, 2, 4, 8, 16, 32, 64, 128];

/// Opens the directory, if it exists.
pub(super) fn open(path: &Path) -> Attempt<Option<File>> {
    match open_path(path, FILE_FLAG_OPEN_REPARSE_POINT) {
        Ok(directory) => check(directory, path).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("open", path)(error)),
    }
}

/// Creates what is missing of the path. Only this user gets access to it.
pub(super) fn create(path: &Path) -> Attempt<File> {
    let (mut missing, mut above) = (Vec::new(), path);
    let mut directory = loop {
        let (Some(name), Some(parent)) = (above.file_name(), above.parent()) else {
            return Err(failed("create", path)(io::Error::from(io::ErrorKind::NotFound)));
        };
        let Some(name) = name.to_str() else {
            return Err(failed("create", path)(io::Error::other("its name is not Unicode")));
        };
        missing.push(name);
        above = if parent == Path::new("") { Path::new(".") } else { parent };
        match open_path(above, 0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => break opened.map_err(failed("create", path))?,
        }
    };
    let descriptor = security::Descriptor::of_this_user_only().map_err(failed("create", path))?;
    for name in missing.into_iter().rev() {
        let options = FILE_DIRECTORY_FILE | FILE_OPEN_REPARSE_POINT;
        // If another process has created it in the meantime, it must be one of this user.
        directory = nt_create_file(&directory, name, SEARCH, FILE_OPEN_IF, options, descriptor.as_ptr())
            .map_err(failed("create", path))?;
        directory = check(directory, path)?;
    }
    Ok(directory)
}

fn open_path(path: &Path, flags: u32) -> io::Result<File> {
    // This flag permits opening a directory.
    let flags = FILE_FLAG_BACKUP_SEMANTICS | flags;
    File::options().access_mode(SEARCH).share_mode(SHARED).custom_flags(flags).open(path)
}

fn check(directory: File, path: &Path) -> Attempt<File> {
    let about = directory.metadata().map_err(failed("examine", path))?;
    if !about.is_dir() || is_reparse_point(&about) {
        return Err(format!("{} is not a directory, or is a symbolic link to one", display_path(path)));
    }
    let security = security::Descriptor::of(&directory).map_err(failed("examine", path))?;
    if !security.is_owned_by_this_user() {
        return Err(format!("{} belongs to another user; {}", display_path(path), BELOW_IT));
    }
    if !security.excludes_others() {
        let path = display_path(path);
        let advice = format!("run icacls \"{path}\" /inheritance:r /grant:r \"%USERNAME%:(OI)(CI)F\", or {BELOW_IT}");
        return Err(format!("{path} is accessible to other users; {advice}"));
    }
    Ok(directory)
}

/// Opens a file without following a link.
pub(super) fn open_file(directory: &File, name: &str, access: Access) -> io::Result<File> {
    let (access, disposition, options) = match access {
        Access::Read => (FILE_GENERIC_READ, FILE_OPEN, 0),
        Access::Remove => (FILE_READ_ATTRIBUTES | READ_CONTROL | SYNCHRONIZE | DELETE, FILE_OPEN, 0),
        Access::Write => (FILE_GENERIC_WRITE | FILE_READ_ATTRIBUTES | DELETE, FILE_OPEN, 0),
        Access::Lock => (FILE_GENERIC_READ | FILE_GENERIC_WRITE, FILE_OPEN, 0),
        Access::CreateLock => (FILE_GENERIC_READ | FILE_GENERIC_WRITE, FILE_OPEN_IF, FILE_NON_DIRECTORY_FILE),
        Access::CreateNew => (FILE_GENERIC_WRITE | DELETE, FILE_CREATE, FILE_NON_DIRECTORY_FILE),
    };
    // The new file inherits the access control list of the directory.
    let descriptor = std::ptr::null();
    patiently(&[ERROR_SHARING_VIOLATION], || {
        nt_create_file(directory, name, access, disposition, options | FILE_OPEN_REPARSE_POINT, descriptor)
    })
}

/// Whether an open file is a regular one of this user.
pub(super) fn is_own_regular_file(file: &File, about: &Metadata) -> io::Result<bool> {
    // SAFETY: the handle is open as long as `file`, and the function only asks for its kind.
    let kind = unsafe { GetFileType(file.as_raw_handle()) };
    let is_regular = kind == FILE_TYPE_DISK && about.is_file() && !is_reparse_point(about);
    Ok(is_regular && security::Descriptor::of(file)?.is_owned_by_this_user())
}

fn is_reparse_point(about: &Metadata) -> bool {
    about.file_attributes() & FILE_ATTRIBUTE_REPARSE_POINT != 0
}

/// Renames an open file, and replaces the one that has the new name.
pub(super) fn rename(directory: &File, file: &File, _: &str, to: &str) -> io::Result<()> {
    let name = utf16(to)?;
    let bytes = offset_of!(FILE_RENAME_INFORMATION, FileName) + size_of_val(name.as_slice());
    // The name follows the structure, which must be aligned.
    let mut buffer = vec![FILE_RENAME_INFORMATION::default(); bytes.div_ceil(size_of::<FILE_RENAME_INFORMATION>()) + 1];
    let information = buffer.as_mut_ptr();
    let rename = |class, how| {
        // SAFETY: the buffer has room for the structure and the name behind it, is aligned for it, and nothing else
        // refers to it. The name has UTF-16 units, for which its field is aligned.
        unsafe {
            (*information).Anonymous = how;
            (*information).RootDirectory = directory.as_raw_handle();
            (*information).FileNameLength = size_of_val(name.as_slice()) as u32;
            (&raw mut (*information).FileName).cast::<u16>().copy_from_nonoverlapping(name.as_ptr(), name.len());
        }
        set_information(file, information, bytes, class)
    };
    patiently(&[ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION], || {
        // Since Windows 10, a file can be replaced while others have it open.
        let flags = FILE_RENAME_REPLACE_IF_EXISTS | FILE_RENAME_POSIX_SEMANTICS;
        rename(FileRenameInformationEx, FILE_RENAME_INFORMATION_0 { Flags: flags })
            .or_else(|_| rename(FileRenameInformation, FILE_RENAME_INFORMATION_0 { ReplaceIfExists: true }))
    })
}

/// Removes an open file.
pub(super) fn remove(_: &File, file: &File, _: &str) -> io::Result<()> {
    let flags = FILE_DISPOSITION_DELETE | FILE_DISPOSITION_POSIX_SEMANTICS;
    let now = FILE_DISPOSITION_INFORMATION_EX { Flags: flags };
    // Before Windows 10, and on other file systems, it is removed when the last handle is closed.
    let when_closed = FILE_DISPOSITION_INFORMATION { DeleteFile: true };
    set_information(file, &raw const now, size_of_val(&now), FileDispositionInformationEx).or_else(|_| {
        set_information(file, &raw const when_closed, size_of_val(&when_closed), FileDispositionInformation)
    })
}

/// The names of the files that can be read and are Unicode. They come from the path, which may lead elsewhere by now:
/// they are only looked for in the open directory.
pub(super) fn names(_: &File, path: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = std::fs::read_dir(path).ok().into_iter().flatten();
    entries.map_while(Result::ok).filter_map(|entry| entry.file_name().into_string().ok())
}

/// `None`: a program can set the time of a file only to that of its own clock.
pub(super) fn touch(_: &File) -> Option<i64> {
    None
}

/// Opens or creates what has this name in a directory.
fn nt_create_file(
    directory: &File,
    name: &str,
    access: u32,
    disposition: NTCREATEFILE_CREATE_DISPOSITION,
    options: NTCREATEFILE_CREATE_OPTIONS,
    security: *const SECURITY_DESCRIPTOR,
) -> io::Result<File> {
    let mut name = utf16(name)?;
    let length = size_of_val(name.as_slice()) as u16;
    let name = UNICODE_STRING { Length: length, MaximumLength: length, Buffer: name.as_mut_ptr() };
    let attributes = OBJECT_ATTRIBUTES {
        Length: size_of::<OBJECT_ATTRIBUTES>() as u32,
        RootDirectory: directory.as_raw_handle(),
        ObjectName: &raw const name,
        Attributes: OBJ_CASE_INSENSITIVE,
        SecurityDescriptor: security,
        SecurityQualityOfService: std::ptr::null(),
    };
    let mut handle: HANDLE = std::ptr::null_mut();
    let mut status_block = IO_STATUS_BLOCK::default();
    // SAFETY: the attributes, the name in them and the security descriptor live until the call returns, which only
    // reads them. It writes the handle and the status to the local variables.
    let status = unsafe {
        NtCreateFile(
            &raw mut handle,
            access,
            &raw const attributes,
            &raw mut status_block,
            std::ptr::null(),
            FILE_ATTRIBUTE_NORMAL,
            SHARED,
            disposition,
            options | FILE_SYNCHRONOUS_IO_NONALERT,
            std::ptr::null(),
            0,
        )
    };
    // It is about to disappear.
    if status == STATUS_DELETE_PENDING {
        return Err(io::ErrorKind::NotFound.into());
    }
    result_of(status)?;
    // SAFETY: the call has succeeded, so that the handle is open; and nothing else owns it.
    Ok(unsafe { File::from_raw_handle(handle) })
}

/// Changes what the system knows about an open file.
fn set_information<T>(
    file: &File,
    information: *const T,
    bytes: usize,
    class: FILE_INFORMATION_CLASS,
) -> io::Result<()> {
    let mut status_block = IO_STATUS_BLOCK::default();
    // SAFETY: the handle is open as long as `file`. The callers pass a pointer to that many bytes, of the structure
    // that belongs to the class. The handle was opened for synchronous I/O, so that nothing is used after the return.
    let status = unsafe {
        NtSetInformationFile(file.as_raw_handle(), &raw mut status_block, information.cast(), bytes as u32, class)
    };
    result_of(status)
}

fn result_of(status: NTSTATUS) -> io::Result<()> {
    if status >= 0 {
        return Ok(());
    }
    // SAFETY: the function converts a number.
    let code = unsafe { RtlNtStatusToDosError(status) };
    Err(io::Error::from_raw_os_error(code as i32))
}

/// A name in UTF-16. One with a separator would be a path.
fn utf16(name: &str) -> io::Result<Vec<u16>> {
    if name.is_empty() || name.len() > 255 || name.contains(['\\', '/', ':', '\0']) {
        return Err(io::ErrorKind::InvalidFilename.into());
    }
    Ok(name.encode_utf16().collect())
}

/// Repeats an operation for a while if it fails with one of these errors.
fn patiently<T>(errors: &[u32], mut operation: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let is_one = |error: &io::Error| error.raw_os_error().is_some_and(|code| errors.contains(&(code as u32)));
    for pause in PAUSES {
        match operation() {
            Err(error) if is_one(&error) => std::thread::sleep(Duration::from_millis(pause)),
            result => return result,
        }
    }
    operation()
}

#[cfg(test)]
mod tests {
    use super::super::Directory;
    use super::*;
    use crate::store::file::tests::scratch;
    use std::fs;
    use std::io::Read;
    use std::os::windows::fs::{symlink_dir, symlink_file};

    #[test]
    fn a_directory_to_which_others_have_access_is_refused() {
        let scratch = scratch("others");
        let security = security::Descriptor::of(&open_path(&scratch, 0).unwrap()).unwrap();
        assert!(security.is_owned_by_this_user() && security.excludes_others());
        // The root directory of the system's disk: all users have access to it.
        let shared = open(r"C:\".as_ref()).unwrap_err();
        assert!(shared.contains("is accessible to other users") || shared.contains("another user"), "{shared}");
        // A new one in it.
        let open_to_all = Path::new(r"C:\amp-token-test-others");
        fs::create_dir(open_to_all).unwrap();
        let refused = Directory::open_or_create(open_to_all).map(|_| ()).unwrap_err();
        assert!(refused.contains("is accessible to other users; run icacls"), "{refused}");
        fs::remove_dir(open_to_all).unwrap();
        fs::remove_dir_all(scratch).unwrap();
    }

    #[test]
    fn what_is_missing_of_the_path_is_created_for_this_user_only() {
        let scratch = scratch("missing");
        let path = scratch.join(r"one\two\");
        assert!(Directory::open(&path).unwrap().is_none());
        Directory::open_or_create(&path).unwrap();
        for created in [scratch.join("one"), path] {
            let security = security::Descriptor::of(&open_path(&created, 0).unwrap()).unwrap();
            assert!(security.is_owned_by_this_user() && security.excludes_others());
        }
        fs::write(scratch.join("file"), "").unwrap();
        for not_a_directory in ["file", r"file\below"] {
            assert!(Directory::open_or_create(&scratch.join(not_a_directory)).is_err());
        }
        fs::remove_dir_all(scratch).unwrap();
    }

    #[test]
    fn links_and_directories_are_not_files() {
        let scratch = scratch("links");
        let directory = Directory::open(&scratch).unwrap().unwrap();
        fs::create_dir(scratch.join("directory")).unwrap();
        fs::write(scratch.join("file"), "content").unwrap();
        for access in [Access::Read, Access::Write, Access::Lock, Access::Remove] {
            let refused = directory.open_file("directory", access).unwrap_err();
            assert!(refused.ends_with("is not a regular file of this user"), "{refused}");
        }
        assert!(directory.open_file("directory", Access::CreateLock).is_err());
        // Wine, and users without this privilege, create none.
        let is_link = |name: &str| fs::symlink_metadata(scratch.join(name)).is_ok_and(|about| about.is_symlink());
        if symlink_file(scratch.join("file"), scratch.join("link")).is_ok() && is_link("link") {
            assert!(directory.open_file("link", Access::Read).is_err());
        }
        if symlink_dir(&scratch, scratch.join("to-itself")).is_ok() && is_link("to-itself") {
            assert!(Directory::open(&scratch.join("to-itself")).is_err());
        }
        for path in [r"..\file", r"directory\file", "file:stream", ""] {
            assert!(directory.open_file(path, Access::Read).is_err(), "{path}");
        }
        fs::remove_dir_all(scratch).unwrap();
    }

    #[test]
    fn a_file_is_locked_replaced_and_removed() {
        let scratch = scratch("files");
        let directory = Directory::open(&scratch).unwrap().unwrap();
        assert!(directory.open_file("lock", Access::Lock).unwrap().is_none());
        let [first, second] = [(); 2].map(|()| directory.open_file("lock", Access::CreateLock).unwrap().unwrap());
        first.try_lock().unwrap();
        assert!(second.try_lock().is_err());
        // Wine unlocks it and reports an error.
        let _ = first.unlock();
        second.try_lock().unwrap();

        directory.replace("entry", "first", b"first").unwrap();
        // A reader that is slow keeps what it has opened, as on Unix; or the writer waits for it.
        let (opened, thread) = (directory.open_file("entry", Access::Read).unwrap().unwrap(), scratch.clone());
        let replaced = std::thread::spawn(move || {
            Directory::open(&thread).unwrap().unwrap().replace("entry", "second", b"second")
        });
        let mut content = String::new();
        (&opened).read_to_string(&mut content).unwrap();
        assert_eq!(content, "first");
        drop(opened);
        replaced.join().unwrap().unwrap();
        assert_eq!(directory.read("entry", 9).unwrap(), Some(b"second".to_vec()));
        directory.prepare("entry", "third", "prepared").unwrap();
        let room = directory.open_file("prepared", Access::Write).unwrap().unwrap();
        directory.finish(&room, "entry", "prepared", b"third").unwrap();
        drop(room);
        assert_eq!(directory.read("entry", 9).unwrap(), Some(b"third".to_vec()));
        directory.remove("entry", |_| false).unwrap();
        assert!(directory.read("entry", 9).unwrap().is_some());
        directory.remove("entry", |_| true).unwrap();
        assert_eq!(directory.read("entry", 9).unwrap(), None);
        directory.remove("entry", |_| true).unwrap();
        assert_eq!(directory.names().filter(|name| !name.starts_with('.')).collect::<Vec<_>>(), ["lock"]);
        drop((first, second));
        fs::remove_dir_all(scratch).unwrap();
    }

    #[test]
    fn a_directory_that_takes_the_place_of_the_open_one_is_left_alone() {
        let scratch = scratch("replaced");
        let (path, moved) = (scratch.join("store"), scratch.join("moved"));
        let opened = create(&path).unwrap();
        fs::rename(&path, &moved).unwrap();
        create(&path).unwrap();
        // (Wine could not examine the file, because it looks for it at the old path. So `Directory` is not used.)
        drop(open_file(&opened, "new", Access::CreateNew).unwrap());
        assert!(moved.join("new").exists() && !path.join("new").exists());
        drop(opened);
        fs::remove_dir_all(scratch).unwrap();
    }

    #[test]
    fn a_file_that_another_program_has_open_for_itself_is_waited_for() {
        let scratch = scratch("scanner");
        let directory = Directory::open(&scratch).unwrap().unwrap();
        directory.replace("entry", "first", b"first").unwrap();
        let exclusive = || File::options().read(true).share_mode(0).open(scratch.join("entry")).unwrap();
        let scanner = exclusive();
        let refused = directory.read("entry", 9).unwrap_err();
        assert!(refused.contains("os error 32"), "{refused}");
        assert!(directory.replace("entry", "second", b"second").is_err());
        assert!(!scratch.join("second").exists());
        drop(scanner);
        let (mut pauses, mut scanner) = (0, Some(exclusive()));
        let read = patiently(&[ERROR_SHARING_VIOLATION], || {
            pauses += 1;
            if pauses == 3 {
                scanner = None;
            }
            File::open(scratch.join("entry"))
        });
        assert!(read.is_ok() && pauses == 3);
        drop((read, scanner));
        fs::remove_dir_all(scratch).unwrap();
    }
}
