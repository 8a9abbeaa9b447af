//! Reads small files that are in memory already, without a helper thread.
//!
//! File I/O has no timeout, so a helper thread does it (see [`threads`](super::threads)). To start one takes longer than
//! to read a token from memory, and a program that lives for a millisecond notices that. So callers try this first.
//!
//! **No function here waits for a disk or a server.** Each returns `None` if it might, and then the caller uses a thread:
//!
//! - A path is followed only through names that the kernel has in memory (`RESOLVE_CACHED`, Linux 5.12).
//! - Opening a file asks the server on some file systems, so it must be on a known one. Its type is that of the mount in
//!   `/proc/self/mountinfo`, because `statfs` would ask the server, too.
//! - Only pages in memory are read (`RWF_NOWAIT`), and the time of access is not written (`O_NOATIME`).
//!
//! (A program that examines each file before it is opened, such as an antivirus program, is asked all the same. While it
//! does not respond, no program can be started either.)
//!
//! Other systems have no such calls, and a container's own file system (overlayfs) not the last one: `None`.

#![cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "other systems have no such calls"))]

use crate::sys::read_file::FileContent;
use std::fs::File;
use std::io;
use std::path::Path;
use zeroize::Zeroizing;

/// A directory on a file system of this machine.
pub(crate) struct LocalDirectory(imp::Directory);

impl LocalDirectory {
    /// Opens a directory to access what is in it.
    pub(crate) fn open(path: &Path, follow: Follow) -> Option<io::Result<Self>> {
        let path = if path == Path::new("") { Path::new(".") } else { path };
        Some(imp::open_directory(path, follow)?.map(LocalDirectory))
    }

    /// Its descriptor, for system calls that read attributes.
    pub(crate) fn descriptor(&self) -> &File {
        self.0.descriptor()
    }

    /// Reads a regular file in it, of at most `limit` bytes. `None` for other files, too: to open a pipe and to close it
    /// again is seen by who writes to it.
    pub(crate) fn read_file(&self, name: &Path, follow: Follow, limit: usize) -> Option<io::Result<FileContent>> {
        let opened = match imp::open_file(&self.0, name, follow)? {
            Ok(file) => file,
            Err(error) => return Some(Err(error)),
        };
        let about = opened.metadata().ok()?;
        let whole = usize::try_from(about.len()).unwrap_or(usize::MAX).min(limit + 1);
        // One byte more, with which a file that grows is seen.
        let mut bytes = Zeroizing::new(vec![0; (whole + 1).min(limit + 1)]);
        let mut length = 0;
        while length < bytes.len() {
            match imp::read(&self.0, &opened, &mut bytes[length..], length as u64)? {
                0 => break,
                count => length += count,
            }
        }
        // It changes, or the kernel took the end of what is in memory for that of the file.
        if length != whole {
            return None;
        }
        bytes.truncate(length);
        Some(Ok(FileContent { bytes, about, opened }))
    }
}

/// Whether directories exist, and examining them waits for nothing. Meant for those above a file, which are mostly on one
/// file system.
pub(crate) fn are_local<'a>(mut paths: impl Iterator<Item = &'a Path>) -> bool {
    let mut known = None;
    paths.all(|path| imp::is_local(path, &mut known))
}

/// Whether a symbolic link at the end of a path is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Follow {
    Yes,
    No,
}

#[cfg(target_os = "linux")]
mod imp {
    use super::Follow;
    use once_cell::race::OnceBool;
    use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags, openat2, statx};
    use rustix::io::{Errno, ReadWriteFlags, preadv2};
    use rustix::system::uname;
    use std::fs::{File, Metadata};
    use std::io::{self, IoSliceMut, Read};
    use std::os::fd::AsFd;
    use std::path::Path;

    /// Where the content of a file is.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Kind {
        /// Nowhere else than in memory.
        Memory,
        /// On a disk, and in memory as long as there is room.
        Disk,
        /// On another file system, and there is no way to read only what is in memory.
        Elsewhere,
    }

    /// The file systems that ask no server.
    const LOCAL: [(&str, Kind); 10] = [
        ("tmpfs", Kind::Memory),
        ("ramfs", Kind::Memory),
        ("ext4", Kind::Disk),
        ("ext3", Kind::Disk),
        ("ext2", Kind::Disk),
        ("xfs", Kind::Disk),
        ("btrfs", Kind::Disk),
        ("f2fs", Kind::Disk),
        ("devtmpfs", Kind::Elsewhere),
        ("overlay", Kind::Elsewhere),
    ];

    /// AT_STATX_DONT_SYNC of Linux, which `libc` has with glibc only.
    const DONT_SYNC: AtFlags = AtFlags::from_bits_retain(0x4000);

    /// What is read of the table of mounts at most, in bytes: some hundred mounts. To read more would take longer than a
    /// thread.
    const MOUNTS_LIMIT: u64 = 64 * 1024;

    pub(super) struct Directory {
        descriptor: File,
        kind: Kind,
    }

    impl Directory {
        pub(super) fn descriptor(&self) -> &File {
            &self.descriptor
        }
    }

    pub(super) fn open_directory(path: &Path, follow: Follow) -> Option<io::Result<Directory>> {
        // O_PATH: the file system does not learn of it.
        let flags = OFlags::PATH | OFlags::DIRECTORY | no_follow(follow);
        match open(CWD, path, flags, ResolveFlags::CACHED)? {
            Ok(descriptor) => Some(Ok(Directory { kind: kind(mount(&descriptor)?)?, descriptor })),
            Err(error) => Some(Err(error)),
        }
    }

    /// `known` is the mount of the path before.
    pub(super) fn is_local(path: &Path, known: &mut Option<u64>) -> bool {
        let opened = open(CWD, path, OFlags::PATH | OFlags::DIRECTORY, ResolveFlags::CACHED);
        let Some(mount) = opened.and_then(|opened| mount(&opened.ok()?)) else { return false };
        if *known != Some(mount) && kind(mount).is_none() {
            return false;
        }
        *known = Some(mount);
        true
    }

    pub(super) fn open_file(directory: &Directory, name: &Path, follow: Follow) -> Option<io::Result<File>> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | no_follow(follow);
        // Another file system may be mounted on the file.
        let (flags, resolve) = match directory.kind {
            // Such a file system forgets the names of missing files, so that they would never be found in memory.
            Kind::Memory => (flags, ResolveFlags::NO_XDEV),
            Kind::Disk => (flags | OFlags::NOATIME, ResolveFlags::NO_XDEV | ResolveFlags::CACHED),
            Kind::Elsewhere => return None,
        };
        let seen = match open(&directory.descriptor, name, OFlags::PATH | no_follow(follow), resolve)? {
            Ok(seen) => seen,
            Err(error) => return Some(Err(error)),
        };
        seen.metadata().ok().filter(Metadata::is_file)?;
        open(&directory.descriptor, name, flags, resolve)
    }

    pub(super) fn read(directory: &Directory, file: &File, buffer: &mut [u8], offset: u64) -> Option<usize> {
        let flags = match directory.kind {
            Kind::Memory => ReadWriteFlags::empty(),
            Kind::Disk => ReadWriteFlags::NOWAIT,
            Kind::Elsewhere => return None,
        };
        preadv2(file, &mut [IoSliceMut::new(buffer)], offset, flags).ok()
    }

    /// Whether a release of Linux is 5.12 or newer. Not found out by trying: the sandbox of a service (SystemCallFilter= of
    /// systemd) ends a process that makes a system call that is newer than the sandbox.
    pub(super) fn has_cached_lookup(release: &[u8]) -> bool {
        let mut numbers =
            release.split(|byte| !byte.is_ascii_digit()).map(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        let mut next = || numbers.next().flatten().unwrap_or(0u32);
        (next(), next()) >= (5, 12)
    }

    fn no_follow(follow: Follow) -> OFlags {
        if follow == Follow::No { OFlags::NOFOLLOW } else { OFlags::empty() }
    }

    /// The only error that is certain without asking is that something does not exist.
    fn open(directory: impl AsFd, path: &Path, flags: OFlags, resolve: ResolveFlags) -> Option<io::Result<File>> {
        static IS_SUPPORTED: OnceBool = OnceBool::new();
        if !IS_SUPPORTED.get_or_init(|| has_cached_lookup(uname().release().to_bytes())) {
            return None;
        }
        match openat2(directory, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Ok(descriptor) => Some(Ok(descriptor.into())),
            Err(Errno::NOENT) => Some(Err(Errno::NOENT.into())),
            Err(_) => None,
        }
    }

    /// The number of the mount that an open directory is in.
    fn mount(directory: &File) -> Option<u64> {
        let flags = AtFlags::EMPTY_PATH | DONT_SYNC;
        let about = statx(directory, "", flags, StatxFlags::MNT_ID).ok()?;
        (about.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(about.stx_mnt_id)
    }

    /// What the file system of a mount is; `None` if it is none of [`LOCAL`].
    fn kind(mount: u64) -> Option<Kind> {
        let mut mounts = Vec::with_capacity(4096);
        File::open("/proc/self/mountinfo").ok()?.take(MOUNTS_LIMIT).read_to_end(&mut mounts).ok()?;
        let name = file_system(&mounts, mount)?;
        LOCAL.iter().find(|(known, _)| known.as_bytes() == name).map(|(_, kind)| *kind)
    }

    /// The type of the file system of a mount: proc_pid_mountinfo(5). Its lines begin with the number of the mount, and the
    /// type follows a single hyphen; spaces inside a field are escaped.
    fn file_system(mounts: &[u8], mount: u64) -> Option<&[u8]> {
        let mount = mount.to_string();
        let fields = |line| <[u8]>::split(line, |byte| *byte == b' ');
        let line = mounts.split(|byte| *byte == b'\n').find(|line| fields(line).next() == Some(mount.as_bytes()))?;
        fields(line).skip_while(|field| *field != b"-").nth(1)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn linux_has_it_since_5_12() {
            for new in ["5.12.0", "5.12-rc1", "5.14.0-427.13.1.el9_4.x86_64", "6.1", "6.18.44-fc", "10.0.1"] {
                assert!(has_cached_lookup(new.as_bytes()), "{new}");
            }
            for old in ["5.11.99", "5.4.0-150-generic", "4.18.0-513.el8", "4.20", "5", "", "linux", "x5.15"] {
                assert!(!has_cached_lookup(old.as_bytes()), "{old}");
            }
        }

        #[test]
        fn the_type_follows_the_hyphen() {
            let mounts = b"22 27 0:21 / /sys rw,nosuid - sysfs sysfs rw\n\
                27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
                227 27 0:50 / /a\\040-\\040nfs rw shared:1 master:2 - fuse.sshfs host:/ rw\n\
                28 27 0:51 / /cut rw";
            assert_eq!(file_system(mounts, 27), Some(b"ext4".as_slice()));
            assert_eq!(file_system(mounts, 227), Some(b"fuse.sshfs".as_slice()));
            assert_eq!(file_system(mounts, 28), None);
            assert_eq!(file_system(mounts, 2), None);
            assert_eq!(file_system(b"", 27), None);
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    use super::Follow;
    use std::convert::Infallible;
    use std::fs::File;
    use std::io;
    use std::path::Path;

    pub(super) struct Directory(Infallible);

    impl Directory {
        pub(super) fn descriptor(&self) -> &File {
            match self.0 {}
        }
    }

    pub(super) fn open_directory(_: &Path, _: Follow) -> Option<io::Result<Directory>> {
        None
    }

    pub(super) fn is_local(_: &Path, _: &mut Option<u64>) -> bool {
        false
    }

    pub(super) fn open_file(directory: &Directory, _: &Path, _: Follow) -> Option<io::Result<File>> {
        match directory.0 {}
    }

    pub(super) fn read(directory: &Directory, _: &File, _: &mut [u8], _: u64) -> Option<usize> {
        match directory.0 {}
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::fs;

    /// Reads a file at once, after it was read in the usual way, which brings it into memory. `None` if it never works.
    fn read(path: &Path, follow: Follow) -> Option<io::Result<Vec<u8>>> {
        (0..1000).find_map(|_| {
            let _ = path.metadata().and_then(|_| fs::read(path));
            let directory = match LocalDirectory::open(path.parent().unwrap(), follow)? {
                Ok(directory) => directory,
                Err(error) => return Some(Err(error)),
            };
            let content = directory.read_file(path.file_name().unwrap().as_ref(), follow, 10_000)?;
            Some(content.map(|content| content.bytes.to_vec()))
        })
    }

    #[test]
    fn what_is_read_at_once_is_what_the_file_has() {
        let scratch = tempfile::tempdir().unwrap();
        let memory = tempfile::tempdir_in("/dev/shm").ok();
        for directory in [Some(scratch.path()), memory.as_ref().map(|memory| memory.path())].into_iter().flatten() {
            let path = |name: &str| directory.join(name);
            for length in [0, 1, 4096, 9_999, 10_000, 10_001, 20_000] {
                let content: Vec<_> = (0..length).map(|at| at as u8).collect();
                fs::write(path("file"), &content).unwrap();
                if let Some(found) = read(&path("file"), Follow::No) {
                    assert_eq!(found.unwrap(), content[..length.min(10_001)]);
                }
            }
            std::os::unix::fs::symlink("file", path("link")).unwrap();
            std::os::unix::fs::symlink("/proc/self/stat", path("elsewhere")).unwrap();
            std::os::unix::fs::symlink(".", path("here")).unwrap();
            assert!(read(&path("link"), Follow::Yes).is_none_or(|found| found.unwrap().len() == 10_001));
            assert!(read(&path("here/file"), Follow::Yes).is_none_or(|found| found.unwrap().len() == 10_001));
            for never in ["link", "here/file", "elsewhere", "here", "file/below"] {
                assert!(read(&path(never), Follow::No).is_none(), "{never}");
            }
            assert!(read(&path("elsewhere"), Follow::Yes).is_none());
            for missing in ["missing", "missing/below"] {
                let found = read(&path(missing), Follow::Yes);
                assert!(found.is_none_or(|found| found.unwrap_err().kind() == io::ErrorKind::NotFound), "{missing}");
            }
        }
        for of_another_kind in ["/proc/self/stat", "/proc/version", "/dev/null", "/sys/kernel/uevent_seqnum"] {
            assert!(read(Path::new(of_another_kind), Follow::Yes).is_none(), "{of_another_kind}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_in_memory_is_read_at_once() {
        use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2, statfs};
        const TMPFS_MAGIC: u64 = 0x0102_1994;
        // Neither an older kernel nor qemu has the call, and a container may forbid it.
        let has_calls = openat2(CWD, "/", OFlags::PATH, Mode::empty(), ResolveFlags::CACHED).is_ok();
        if !has_calls || !statfs("/dev/shm").is_ok_and(|about| about.f_type as u64 == TMPFS_MAGIC) {
            return;
        }
        let memory = tempfile::tempdir_in("/dev/shm").unwrap();
        fs::write(memory.path().join("file"), "content").unwrap();
        let found = read(&memory.path().join("file"), Follow::No);
        assert_eq!(found.expect("it never was in memory").unwrap(), b"content");
        let missing = read(&memory.path().join("missing"), Follow::No);
        assert_eq!(missing.expect("it never was in memory").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
