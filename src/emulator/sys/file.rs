//! Files as the supervisor sees them: openat2(2), statx(2), readlinkat(2), getdents64(2) and relatives.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno as OsErrno;

use super::{OsResult, check, tape};
use crate::emulator::abi::layout::Statfs;

/// Where a relative path starts.
pub type At<'a> = Option<BorrowedFd<'a>>;

fn raw(at: At<'_>) -> i32 {
    at.map_or(libc::AT_FDCWD, |fd| fd.as_raw_fd())
}

fn owned(fd: i64) -> OsResult<OwnedFd> {
    let fd = i32::try_from(fd).map_err(|_| OsErrno::EOVERFLOW)?;
    // SAFETY: called only with a descriptor that the kernel just created for us; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Copies a byte path for the kernel.
///
/// # Errors
/// EINVAL when it holds a NUL.
pub fn c_path(path: &[u8]) -> OsResult<CString> {
    CString::new(path).map_err(|_| OsErrno::EINVAL)
}

/// openat(2), always with O_CLOEXEC.
///
/// # Errors
/// As the man page.
pub fn open(at: At<'_>, path: &CStr, flags: i32) -> OsResult<OwnedFd> {
    let open = || {
        // SAFETY: raw call so that any flag word passes unchanged; the path is a NUL-terminated string.
        let fd = unsafe { libc::openat(raw(at), path.as_ptr(), flags | libc::O_CLOEXEC) };
        owned(check(fd)?.into())
    };
    tape::fd(|| format!("open:{flags:#x} {}", tape::place(at, path.to_bytes())), open)
}

/// close(2), counted as the kernel entry that it is; for the paths whose cost is asserted.
pub fn close(fd: OwnedFd) {
    // Stand-ins of a playing tape cost nothing that anybody would want to know.
    if !tape::is_playing() {
        super::count();
    }
    drop(fd);
}

/// openat2(2), always with O_CLOEXEC.
///
/// # Errors
/// As the man page.
pub fn open2(at: At<'_>, path: &CStr, flags: i32, resolve: u64) -> OsResult<OwnedFd> {
    let open = || {
        // SAFETY: plain old data; zero is a valid open_how.
        let mut how: libc::open_how = unsafe { std::mem::zeroed() };
        how.flags = (flags | libc::O_CLOEXEC) as u64;
        how.resolve = resolve;
        // SAFETY: path and struct outlive the call, which only reads them; the size is that of the struct.
        let fd = unsafe {
            libc::syscall(libc::SYS_openat2, raw(at), path.as_ptr(), &how, size_of::<libc::open_how>())
        };
        owned(check(fd)?)
    };
    tape::fd(|| format!("open:{flags:#x}:{resolve:#x} {}", tape::place(at, path.to_bytes())), open)
}

/// What statx(2) tells, as far as the emulator uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// File type and permission bits.
    pub mode: u32,
    /// Device as (major, minor).
    pub dev: (u32, u32),
    /// Inode number.
    pub ino: u64,
    /// Mount id as in mountinfo; where the kernel does not tell it, [`mount_of_device`].
    pub mount: u64,
    /// All the rest.
    pub raw: libc::statx,
}

impl Stat {
    /// What the kernel's structure says.
    fn of(buf: libc::statx) -> Self {
        Stat {
            mode: buf.stx_mode.into(),
            dev: (buf.stx_dev_major, buf.stx_dev_minor),
            ino: buf.stx_ino,
            mount: match buf.stx_mask & libc::STATX_MNT_ID {
                0 => mount_of_device((buf.stx_dev_major, buf.stx_dev_minor)),
                _ => buf.stx_mnt_id,
            },
            raw: buf,
        }
    }

    /// Whether the mount id is the kernel's own.
    pub fn knows_mount(&self) -> bool {
        self.raw.stx_mask & libc::STATX_MNT_ID != 0
    }

    /// Whether the object is of this S_IF* type.
    pub fn is(&self, kind: u32) -> bool {
        self.mode & libc::S_IFMT == kind
    }
}

/// STATX_MNT_ID_UNIQUE (Linux 6.8): a mount id that is never used again.
pub const STATX_MNT_ID_UNIQUE: u32 = 0x4000;

/// What stands for the mount id of an object where statx(2) does not tell it (gVisor, Linux before 5.8): its device.
/// Two mounts of one file system then count as one.
pub fn mount_of_device((major, minor): (u32, u32)) -> u64 {
    // Real mount ids are small numbers.
    1 << 63 | u64::from(major) << 32 | u64::from(minor)
}

/// What keeps statx(2) from mounting anything; 0 once the kernel has refused it. gVisor of 2022 fails with EINVAL on
/// every path then, and has no automounts to keep from.
static NO_AUTOMOUNT: AtomicI32 = AtomicI32::new(libc::AT_NO_AUTOMOUNT);

/// Whether the kernel is known to refuse AT_NO_AUTOMOUNT.
pub fn refuses_no_automount() -> bool {
    NO_AUTOMOUNT.load(Ordering::Relaxed) == 0
}

/// statx(2) with the basic fields and the mount id, without automounts and without asking a server.
///
/// `flags` may hold AT_SYMLINK_NOFOLLOW and AT_EMPTY_PATH.
///
/// # Errors
/// As the man page.
pub fn stat(at: At<'_>, path: &CStr, flags: i32) -> OsResult<Stat> {
    tape::os(
        || format!("stat:{flags:#x} {}", tape::place(at, path.to_bytes())),
        || stat_now(at, path, flags).map(Told),
    )
    .map(|told| told.0)
}

fn stat_now(at: At<'_>, path: &CStr, flags: i32) -> OsResult<Stat> {
    let no_automount = NO_AUTOMOUNT.load(Ordering::Relaxed);
    let flags = flags | libc::AT_STATX_DONT_SYNC;
    let buf = match statx(at, path, flags | no_automount) {
        Err(OsErrno::EINVAL) if no_automount != 0 => {
            let buf = statx(at, path, flags)?;
            NO_AUTOMOUNT.store(0, Ordering::Relaxed);
            buf
        }
        result => result?,
    };
    Ok(Stat::of(buf))
}

fn statx(at: At<'_>, path: &CStr, flags: i32) -> OsResult<libc::statx> {
    // SAFETY: plain old data.
    let mut buf: libc::statx = unsafe { std::mem::zeroed() };
    let mask = libc::STATX_BASIC_STATS | libc::STATX_MNT_ID;
    // SAFETY: the path is NUL-terminated and the buffer a live, exclusively borrowed statx struct.
    check(unsafe { libc::statx(raw(at), path.as_ptr(), flags, mask, &mut buf) })?;
    Ok(buf)
}

/// statx(2) of an open descriptor.
///
/// # Errors
/// As the man page.
pub fn stat_fd(fd: BorrowedFd<'_>) -> OsResult<Stat> {
    stat(Some(fd), c"", libc::AT_EMPTY_PATH)
}

/// readlinkat(2); an empty path reads the link that an O_PATH descriptor refers to.
///
/// # Errors
/// As the man page.
pub fn readlink(at: At<'_>, path: &CStr) -> OsResult<Vec<u8>> {
    let read = || {
        let mut buf = vec![0u8; libc::PATH_MAX as usize];
        // SAFETY: the buffer is live and of the length passed.
        let len = unsafe { libc::readlinkat(raw(at), path.as_ptr(), buf.as_mut_ptr().cast(), buf.len()) };
        let len = check(len as i64)?;
        buf.truncate(usize::try_from(len).map_err(|_| OsErrno::EOVERFLOW)?);
        Ok(buf)
    };
    tape::bytes(|| format!("readlink {}", tape::place(at, path.to_bytes())), read)
}

/// faccessat2(2).
///
/// # Errors
/// As the man page.
pub fn access(at: At<'_>, path: &CStr, mode: i32, flags: i32) -> OsResult<()> {
    let look = || {
        // SAFETY: raw call because glibc emulates the flags; the path is NUL-terminated.
        check(unsafe { libc::syscall(libc::SYS_faccessat2, raw(at), path.as_ptr(), mode, flags) }).map(drop)
    };
    tape::os(|| format!("access:{mode:#x}:{flags:#x} {}", tape::place(at, path.to_bytes())), look)
}

/// fstatfs(2).
///
/// # Errors
/// As the man page.
pub fn statfs_fd(fd: BorrowedFd<'_>) -> OsResult<Statfs> {
    // Fifteen words on 64-bit targets; libc's own struct hides the two halves of the file system id.
    let ask = || {
        let mut raw = [0u64; 15];
        // SAFETY: the buffer is live and as large as `struct statfs`, which a test asserts.
        check(unsafe { libc::syscall(libc::SYS_fstatfs, fd.as_raw_fd(), raw.as_mut_ptr()) })?;
        Ok(raw)
    };
    let raw: [u64; 15] = tape::os(|| format!("statfs {}", tape::place(Some(fd), b"")), ask)?;
    let [f_type, bsize, blocks, bfree, bavail, files, ffree, fsid, namelen, frsize, flags, ..] = raw;
    let fsid = fsid.to_ne_bytes();
    let half = |at: usize| u32::from_ne_bytes([fsid[at], fsid[at + 1], fsid[at + 2], fsid[at + 3]]);
    let fsid = [half(0), half(4)];
    Ok(Statfs { f_type, bsize, blocks, bfree, bavail, files, ffree, fsid, namelen, frsize, flags })
}

/// getdents64(2) into `buf`; gives the number of bytes, 0 at the end.
///
/// # Errors
/// As the man page.
pub fn getdents(fd: BorrowedFd<'_>, buf: &mut [u8]) -> OsResult<usize> {
    if !tape::is_on() {
        return getdents_now(fd, buf);
    }
    let list = || format!("getdents {}", tape::place(Some(fd), b""));
    let records = tape::bytes(list, || getdents_now(fd, buf).map(|len| buf[..len].to_vec()))?;
    let len = records.len().min(buf.len());
    buf[..len].copy_from_slice(&records[..len]);
    Ok(len)
}

fn getdents_now(fd: BorrowedFd<'_>, buf: &mut [u8]) -> OsResult<usize> {
    // SAFETY: no safe wrapper gives the raw records; the buffer is live and of the length passed.
    let len = unsafe { libc::syscall(libc::SYS_getdents64, fd.as_raw_fd(), buf.as_mut_ptr(), buf.len()) };
    usize::try_from(check(len)?).map_err(|_| OsErrno::EOVERFLOW)
}

/// The names in a directory that is open for reading.
///
/// # Errors
/// As getdents(2).
pub fn list(directory: BorrowedFd<'_>) -> OsResult<Vec<String>> {
    let copy = directory
        .try_clone_to_owned()
        .map_err(|error| error.raw_os_error().map_or(OsErrno::EIO, OsErrno::from_raw))?;
    let mut all = nix::dir::Dir::from_fd(copy)?;
    let mut names = Vec::new();
    for entry in all.iter() {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

/// Reads a text file to its end; bytes that are not UTF-8 are replaced.
///
/// # Errors
/// As read(2).
pub fn read_all(fd: BorrowedFd<'_>) -> OsResult<String> {
    Ok(String::from_utf8_lossy(&read_bytes(fd)?).into_owned())
}

/// Reads a file to its end.
///
/// # Errors
/// As read(2).
pub fn read_bytes(fd: BorrowedFd<'_>) -> OsResult<Vec<u8>> {
    tape::bytes(|| format!("read {}", tape::place(Some(fd), b"")), || read_now(fd))
}

fn read_now(fd: BorrowedFd<'_>) -> OsResult<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut len = 0;
    loop {
        bytes.resize(len + 4096.max(len), 0);
        super::count();
        match nix::unistd::read(fd, &mut bytes[len..])? {
            0 => break,
            got => len += got,
        }
    }
    bytes.truncate(len);
    Ok(bytes)
}

/// lseek(2).
///
/// # Errors
/// As the man page.
pub fn seek(fd: BorrowedFd<'_>, offset: i64, whence: i32) -> OsResult<i64> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::lseek(fd.as_raw_fd(), offset, whence) })
}

/// inotify_add_watch(2) on somebody's inotify descriptor; gives the watch descriptor.
///
/// # Errors
/// As the man page.
pub fn inotify_add_watch(inotify: BorrowedFd<'_>, path: &CStr, mask: u32) -> OsResult<i32> {
    // SAFETY: the path is NUL-terminated.
    check(unsafe { libc::inotify_add_watch(inotify.as_raw_fd(), path.as_ptr(), mask) })
}

/// fcntl(2) F_SETLEASE. Whoever breaks the lease sends SIGURG, which by default is ignored (SIGIO would kill).
///
/// # Errors
/// EAGAIN: others have the file open. EINVAL: no leases there.
pub fn set_lease(fd: BorrowedFd<'_>, kind: i32) -> OsResult<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), F_SETSIG, libc::SIGURG) })?;
    // SAFETY: no memory is passed.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETLEASE, kind) }).map(drop)
}

/// Not in the libc crate for this target.
const F_SETSIG: i32 = 10;

/// The bytes of a file handle (name_to_handle_at(2)) of what a path leads to, a final link followed.
///
/// # Errors
/// EOPNOTSUPP: the file system has none. EOVERFLOW: it is longer than any that is asked for here.
pub fn handle(at: At<'_>, path: &CStr) -> OsResult<Vec<u8>> {
    tape::bytes(|| format!("handle {}", tape::place(at, path.to_bytes())), || handle_now(at, path))
}

fn handle_now(at: At<'_>, path: &CStr) -> OsResult<Vec<u8>> {
    const BYTES: usize = 64;
    #[repr(C)]
    struct Handle {
        head: libc::file_handle,
        bytes: [u8; BYTES],
    }
    // SAFETY: plain old data; zero is a valid handle.
    let mut handle: Handle = unsafe { std::mem::zeroed() };
    handle.head.handle_bytes = BYTES as u32;
    let mut mount = 0;
    let head = (&raw mut handle).cast::<libc::file_handle>();
    // SAFETY: the path is NUL-terminated; the handle is live and has room for as many bytes as it says, right behind
    // its head.
    let got =
        unsafe { libc::name_to_handle_at(raw(at), path.as_ptr(), head, &mut mount, libc::AT_SYMLINK_FOLLOW) };
    check(got)?;
    Ok(handle.bytes[..(handle.head.handle_bytes as usize).min(BYTES)].to_vec())
}

/// memfd_create(2) with MFD_CLOEXEC and MFD_ALLOW_SEALING.
///
/// # Errors
/// As the man page.
pub fn memfd(name: &CStr) -> OsResult<OwnedFd> {
    // SAFETY: the name is NUL-terminated.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    owned(check(fd)?.into())
}

/// The text by which this process can name one of its own descriptors.
pub fn self_fd_path(fd: BorrowedFd<'_>) -> CString {
    CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd())).expect("digits hold no NUL")
}

/// What statx(2) told, as it is recorded: numbers in the order of the fields.
#[derive(Clone)]
struct Told(Stat);

impl serde::Serialize for Told {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw = &self.0.raw;
        let time = |at: &libc::statx_timestamp| [at.tv_sec.cast_unsigned(), at.tv_nsec.into()];
        let [atime, mtime, ctime] = [&raw.stx_atime, &raw.stx_mtime, &raw.stx_ctime].map(time);
        let numbers: [u64; 20] = [
            raw.stx_mask.into(),
            raw.stx_blksize.into(),
            raw.stx_nlink.into(),
            raw.stx_uid.into(),
            raw.stx_gid.into(),
            raw.stx_mode.into(),
            raw.stx_ino,
            raw.stx_size,
            raw.stx_blocks,
            atime[0],
            atime[1],
            mtime[0],
            mtime[1],
            ctime[0],
            ctime[1],
            raw.stx_rdev_major.into(),
            raw.stx_rdev_minor.into(),
            raw.stx_dev_major.into(),
            raw.stx_dev_minor.into(),
            raw.stx_mnt_id,
        ];
        numbers.serialize(serializer)
    }
}

impl<'de> serde::Deserialize<'de> for Told {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let n = <[u64; 20]>::deserialize(deserializer)?;
        // SAFETY: plain old data.
        let mut raw: libc::statx = unsafe { std::mem::zeroed() };
        raw.stx_mask = n[0] as u32;
        raw.stx_blksize = n[1] as u32;
        raw.stx_nlink = n[2] as u32;
        raw.stx_uid = n[3] as u32;
        raw.stx_gid = n[4] as u32;
        raw.stx_mode = n[5] as u16;
        raw.stx_ino = n[6];
        raw.stx_size = n[7];
        raw.stx_blocks = n[8];
        let times = [(&mut raw.stx_atime, n[9], n[10]), (&mut raw.stx_mtime, n[11], n[12])];
        for (time, seconds, nanoseconds) in times.into_iter().chain([(&mut raw.stx_ctime, n[13], n[14])]) {
            (time.tv_sec, time.tv_nsec) = (seconds.cast_signed(), nanoseconds as u32);
        }
        raw.stx_rdev_major = n[15] as u32;
        raw.stx_rdev_minor = n[16] as u32;
        raw.stx_dev_major = n[17] as u32;
        raw.stx_dev_minor = n[18] as u32;
        raw.stx_mnt_id = n[19];
        Ok(Told(Stat::of(raw)))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn statfs_has_the_size_of_the_kernel_structure() {
        assert_eq!(size_of::<libc::statfs>(), 15 * 8);
        let proc = open(None, c"/proc", libc::O_PATH).expect("open");
        assert_eq!(statfs_fd(proc.as_fd()).expect("statfs").f_type, 0x9fa0);
    }

    #[test]
    fn stat_tells_the_mount() {
        let a = stat(None, c"/proc/self/status", 0).expect("stat");
        let b = stat(None, c"/proc", 0).expect("stat");
        assert_eq!(a.mount, b.mount);
        assert!(a.is(libc::S_IFREG) && b.is(libc::S_IFDIR));
    }
}
