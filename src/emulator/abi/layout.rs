//! Structures as the tracee's ABI lays them out, written field by field into zeroed bytes, so that no
//! padding of ours reaches the tracee.

use super::Layout;
use crate::emulator::errno::Errno;

/// Which of the structures called "stat" a call fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatShape {
    /// `struct __old_kernel_stat` of the i386 calls oldstat, oldlstat.
    Oldest,
    /// `struct stat` of stat(2), lstat(2), newfstatat(2).
    Stat,
    /// `struct stat64` of the i386 calls stat64, lstat64, fstatat64.
    Stat64,
    /// `struct statx` of statx(2), the same everywhere.
    Statx,
}

/// Metadata of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of inode(7)")]
pub struct Attr {
    /// S_IFMT type and permission bits.
    pub mode: u32,
    pub ino: u64,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub blksize: u32,
    pub blocks: u64,
    /// (major, minor).
    pub dev: (u32, u32),
    /// (major, minor).
    pub rdev: (u32, u32),
    /// Seconds and nanoseconds since the epoch.
    pub atime: (i64, u32),
    pub mtime: (i64, u32),
    pub ctime: (i64, u32),
    /// Mount id for statx(2), when known.
    pub mount: Option<u64>,
}

impl Attr {
    /// From what the supervisor's own statx(2) told.
    pub fn of(stat: &libc::statx) -> Self {
        let time = |t: &libc::statx_timestamp| (t.tv_sec, t.tv_nsec);
        Attr {
            mode: stat.stx_mode.into(),
            ino: stat.stx_ino,
            nlink: stat.stx_nlink,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            size: stat.stx_size,
            blksize: stat.stx_blksize,
            blocks: stat.stx_blocks,
            dev: (stat.stx_dev_major, stat.stx_dev_minor),
            rdev: (stat.stx_rdev_major, stat.stx_rdev_minor),
            atime: time(&stat.stx_atime),
            mtime: time(&stat.stx_mtime),
            ctime: time(&stat.stx_ctime),
            mount: (stat.stx_mask & libc::STATX_MNT_ID != 0).then_some(stat.stx_mnt_id),
        }
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn new(len: usize) -> Self {
        Writer(vec![0; len])
    }
    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }
    fn u16(&mut self, at: usize, value: u16) {
        self.put(at, &value.to_ne_bytes());
    }
    fn u32(&mut self, at: usize, value: u32) {
        self.put(at, &value.to_ne_bytes());
    }
    fn u64(&mut self, at: usize, value: u64) {
        self.put(at, &value.to_ne_bytes());
    }
    fn time64(&mut self, at: usize, (seconds, nanos): (i64, u32)) {
        self.put(at, &seconds.to_ne_bytes());
        self.u32(at + 8, nanos);
    }
    fn time32(&mut self, at: usize, (seconds, nanos): (i64, u32)) {
        // i386 programs see the low 32 bits, as from the kernel.
        self.u32(at, seconds as u32);
        self.u32(at + 4, nanos);
    }
}

/// The kernel's `new_encode_dev`.
fn encode_dev((major, minor): (u32, u32)) -> u64 {
    u64::from((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12))
}

fn small<T: TryFrom<u64>>(value: u64) -> Result<T, Errno> {
    T::try_from(value).map_err(|_| Errno::EOVERFLOW)
}

/// The bytes that a stat call stores.
///
/// # Errors
/// EOVERFLOW when a field does not fit the layout (the two older structures of i386).
pub fn stat(layout: Layout, shape: StatShape, attr: &Attr) -> Result<Vec<u8>, Errno> {
    match (shape, layout) {
        (StatShape::Statx, _) => Ok(statx(attr)),
        (StatShape::Oldest, _) => stat_oldest(attr),
        (StatShape::Stat, Layout::X86_64) | (StatShape::Stat64, Layout::X86_64) => Ok(stat_x86_64(attr)),
        (StatShape::Stat, Layout::I386) => stat_i386(attr),
        (StatShape::Stat64, Layout::I386) => Ok(stat64_i386(attr)),
    }
}

fn stat_x86_64(attr: &Attr) -> Vec<u8> {
    let mut w = Writer::new(144);
    w.u64(0, encode_dev(attr.dev));
    w.u64(8, attr.ino);
    w.u64(16, attr.nlink.into());
    w.u32(24, attr.mode);
    w.u32(28, attr.uid);
    w.u32(32, attr.gid);
    w.u64(40, encode_dev(attr.rdev));
    w.u64(48, attr.size);
    w.u64(56, attr.blksize.into());
    w.u64(64, attr.blocks);
    w.time64(72, attr.atime);
    w.time64(88, attr.mtime);
    w.time64(104, attr.ctime);
    w.0
}

/// `struct __old_kernel_stat`. Linux: fs/stat.c, cp_old_stat(), which i386 programs reach without a
/// translation: what does not fit 16 bits is refused for inodes and links only.
fn stat_oldest(attr: &Attr) -> Result<Vec<u8>, Errno> {
    let old_dev = |(major, minor): (u32, u32)| ((major << 8) | (minor & 0xff)) as u16;
    let mut w = Writer::new(32);
    w.u16(0, old_dev(attr.dev));
    w.u16(2, small(attr.ino)?);
    w.u16(4, attr.mode as u16);
    w.u16(6, small(attr.nlink.into())?);
    w.u16(8, u16::try_from(attr.uid).unwrap_or(65534));
    w.u16(10, u16::try_from(attr.gid).unwrap_or(65534));
    w.u16(12, old_dev(attr.rdev));
    w.u32(16, attr.size as u32);
    w.u32(20, attr.atime.0 as u32);
    w.u32(24, attr.mtime.0 as u32);
    w.u32(28, attr.ctime.0 as u32);
    Ok(w.0)
}

/// `struct compat_stat`. Linux: fs/stat.c, cp_compat_stat().
fn stat_i386(attr: &Attr) -> Result<Vec<u8>, Errno> {
    let old_dev = |(major, minor): (u32, u32)| match (major, minor) {
        (0..=255, 0..=255) => Ok((major << 8) | minor),
        _ => Err(Errno::EOVERFLOW),
    };
    if attr.size > 0x7fff_ffff {
        return Err(Errno::EOVERFLOW);
    }
    let mut w = Writer::new(64);
    w.u32(0, old_dev(attr.dev)?);
    w.u32(4, small(attr.ino)?);
    w.u16(8, attr.mode as u16);
    w.u16(10, small(attr.nlink.into())?);
    w.u16(12, u16::try_from(attr.uid).unwrap_or(65534));
    w.u16(14, u16::try_from(attr.gid).unwrap_or(65534));
    w.u32(16, old_dev(attr.rdev)?);
    w.u32(20, small(attr.size)?);
    w.u32(24, attr.blksize);
    w.u32(28, attr.blocks as u32);
    w.time32(32, attr.atime);
    w.time32(40, attr.mtime);
    w.time32(48, attr.ctime);
    Ok(w.0)
}

fn stat64_i386(attr: &Attr) -> Vec<u8> {
    let mut w = Writer::new(96);
    w.u64(0, encode_dev(attr.dev));
    w.u32(12, attr.ino as u32);
    w.u32(16, attr.mode);
    w.u32(20, attr.nlink);
    w.u32(24, attr.uid);
    w.u32(28, attr.gid);
    w.u64(32, encode_dev(attr.rdev));
    w.u64(44, attr.size);
    w.u32(52, attr.blksize);
    w.u64(56, attr.blocks);
    w.time32(64, attr.atime);
    w.time32(72, attr.mtime);
    w.time32(80, attr.ctime);
    w.u64(88, attr.ino);
    w.0
}

/// The attributes that the kernel knows for files of procfs, none of which is set: STATX_ATTR_AUTOMOUNT, MOUNT_ROOT, DAX.
const ATTRIBUTES_KNOWN: u64 = 0x1000 | 0x2000 | 0x20_0000;

fn statx(attr: &Attr) -> Vec<u8> {
    let mut w = Writer::new(256);
    let mask = libc::STATX_BASIC_STATS | if attr.mount.is_some() { libc::STATX_MNT_ID } else { 0 };
    w.u32(0, mask);
    w.u32(4, attr.blksize);
    w.u32(16, attr.nlink);
    w.u32(20, attr.uid);
    w.u32(24, attr.gid);
    w.u16(28, attr.mode as u16);
    w.u64(32, attr.ino);
    w.u64(40, attr.size);
    w.u64(48, attr.blocks);
    w.u64(56, ATTRIBUTES_KNOWN);
    w.time64(64, attr.atime);
    w.time64(96, attr.ctime);
    w.time64(112, attr.mtime);
    w.u32(128, attr.rdev.0);
    w.u32(132, attr.rdev.1);
    w.u32(136, attr.dev.0);
    w.u32(140, attr.dev.1);
    w.u64(144, attr.mount.unwrap_or(0));
    w.0
}

/// Which of the structures called "statfs" a call fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatfsShape {
    /// `struct statfs` of statfs(2), fstatfs(2).
    Statfs,
    /// `struct statfs64` of the i386 calls statfs64, fstatfs64.
    Statfs64,
}

impl StatfsShape {
    /// The size that statfs64 callers must pass.
    pub const STATFS64_SIZE: u64 = 84;
}

/// What statfs(2) tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of statfs(2)")]
pub struct Statfs {
    pub f_type: u64,
    pub bsize: u64,
    pub blocks: u64,
    pub bfree: u64,
    pub bavail: u64,
    pub files: u64,
    pub ffree: u64,
    pub fsid: [u32; 2],
    pub namelen: u64,
    pub frsize: u64,
    pub flags: u64,
}

/// The bytes that a statfs call stores.
///
/// # Errors
/// EOVERFLOW when a count does not fit the layout.
pub fn statfs(layout: Layout, shape: StatfsShape, fs: &Statfs) -> Result<Vec<u8>, Errno> {
    let counts = [fs.blocks, fs.bfree, fs.bavail, fs.files, fs.ffree];
    match (shape, layout) {
        (_, Layout::X86_64) => {
            let mut w = Writer::new(120);
            w.u64(0, fs.f_type);
            w.u64(8, fs.bsize);
            for (index, value) in counts.into_iter().enumerate() {
                w.u64(16 + 8 * index, value);
            }
            w.u32(56, fs.fsid[0]);
            w.u32(60, fs.fsid[1]);
            w.u64(64, fs.namelen);
            w.u64(72, fs.frsize);
            w.u64(80, fs.flags);
            Ok(w.0)
        }
        (StatfsShape::Statfs, Layout::I386) => {
            let mut w = Writer::new(64);
            w.u32(0, fs.f_type as u32);
            w.u32(4, small(fs.bsize)?);
            for (index, value) in counts.into_iter().enumerate() {
                // The kernel lets an all-ones file count ("unknown") pass.
                let unknown = index >= 3 && value == u64::MAX;
                w.u32(8 + 4 * index, if unknown { u32::MAX } else { small(value)? });
            }
            w.u32(28, fs.fsid[0]);
            w.u32(32, fs.fsid[1]);
            w.u32(36, small(fs.namelen)?);
            w.u32(40, small(fs.frsize)?);
            w.u32(44, fs.flags as u32);
            Ok(w.0)
        }
        (StatfsShape::Statfs64, Layout::I386) => {
            let mut w = Writer::new(84);
            w.u32(0, fs.f_type as u32);
            w.u32(4, small(fs.bsize)?);
            for (index, value) in counts.into_iter().enumerate() {
                w.u64(8 + 8 * index, value);
            }
            w.u32(48, fs.fsid[0]);
            w.u32(52, fs.fsid[1]);
            w.u32(56, small(fs.namelen)?);
            w.u32(60, small(fs.frsize)?);
            w.u32(64, fs.flags as u32);
            Ok(w.0)
        }
    }
}

/// What sysinfo(2) tells, memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of sysinfo(2)")]
pub struct Sysinfo {
    pub uptime: i64,
    pub loads: [u64; 3],
    pub totalram: u64,
    pub freeram: u64,
    pub sharedram: u64,
    pub bufferram: u64,
    pub totalswap: u64,
    pub freeswap: u64,
    pub procs: u16,
}

/// The bytes that sysinfo(2) stores. Sizes that do not fit 32 bits are scaled by `mem_unit`, as the kernel
/// does for i386 programs.
pub fn sysinfo(layout: Layout, info: &Sysinfo) -> Vec<u8> {
    let sizes = [info.totalram, info.freeram, info.sharedram, info.bufferram, info.totalswap, info.freeswap];
    match layout {
        Layout::X86_64 => {
            let mut w = Writer::new(112);
            w.put(0, &info.uptime.to_ne_bytes());
            for (index, load) in info.loads.into_iter().enumerate() {
                w.u64(8 + 8 * index, load);
            }
            for (index, size) in sizes.into_iter().enumerate() {
                w.u64(32 + 8 * index, size);
            }
            w.u16(80, info.procs);
            w.u32(104, 1);
            w.0
        }
        Layout::I386 => {
            let mut unit = 1u64;
            if sizes.iter().any(|size| *size > u64::from(u32::MAX)) {
                // The kernel stops at the page size.
                while unit < 4096 {
                    unit <<= 1;
                }
            }
            let mut w = Writer::new(64);
            w.u32(0, info.uptime as u32);
            for (index, load) in info.loads.into_iter().enumerate() {
                w.u32(4 + 4 * index, load as u32);
            }
            for (index, size) in sizes.into_iter().enumerate() {
                w.u32(16 + 4 * index, (size / unit) as u32);
            }
            w.u16(40, info.procs);
            w.u32(52, unit as u32);
            w.0
        }
    }
}

/// Bytes of one field of `struct utsname`, NUL included.
pub const UTSNAME_FIELD: usize = 65;

/// A utsname structure: fields of `width` bytes each, cut so that a NUL remains.
pub fn utsname(fields: &[&str], width: usize) -> Vec<u8> {
    let mut w = Writer::new(fields.len() * width);
    for (index, field) in fields.iter().enumerate() {
        w.put(index * width, &field.as_bytes()[..field.len().min(width - 1)]);
    }
    w.0
}

/// Which directory record a call fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirentShape {
    /// `struct linux_dirent` of getdents(2): word-sized fields, type in the last byte.
    Dirent,
    /// `struct linux_dirent64` of getdents64(2).
    Dirent64,
}

/// Appends one directory record; `false` when it does not fit in `capacity`.
pub fn push_dirent(
    buf: &mut Vec<u8>,
    capacity: usize,
    (layout, shape): (Layout, DirentShape),
    (ino, next, kind): (u64, i64, u8),
    name: &[u8],
) -> bool {
    let (word, name_at) = match (shape, layout) {
        (DirentShape::Dirent64, _) => (8, 19),
        (DirentShape::Dirent, Layout::X86_64) => (8, 18),
        (DirentShape::Dirent, Layout::I386) => (4, 10),
    };
    // getdents keeps room for the type byte behind the name's NUL.
    let tail = if shape == DirentShape::Dirent { 2 } else { 1 };
    let len = (name_at + name.len() + tail).next_multiple_of(word);
    if buf.len() + len > capacity {
        return false;
    }
    let start = buf.len();
    buf.resize(start + len, 0);
    let mut w = Writer(std::mem::take(buf));
    let reclen_at = match (shape, layout) {
        (DirentShape::Dirent, Layout::I386) => {
            w.u32(start, ino as u32);
            w.u32(start + 4, next as u32);
            start + 8
        }
        _ => {
            w.u64(start, ino);
            w.put(start + 8, &next.to_ne_bytes());
            start + 16
        }
    };
    w.u16(reclen_at, len as u16);
    match shape {
        DirentShape::Dirent64 => w.put(start + 18, &[kind]),
        DirentShape::Dirent => w.put(start + len - 1, &[kind]),
    }
    w.put(start + name_at, name);
    *buf = w.0;
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATTR: Attr = Attr {
        mode: 0o100644,
        ino: 77,
        nlink: 1,
        uid: 3,
        gid: 4,
        size: 5,
        blksize: 1024,
        blocks: 6,
        dev: (8, 300),
        rdev: (1, 3),
        atime: (10, 11),
        mtime: (12, 13),
        ctime: (14, 15),
        mount: Some(99),
    };

    fn u64_at(bytes: &[u8], at: usize) -> u64 {
        u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
    }

    #[test]
    fn stat_matches_libc_layout() {
        let bytes = stat(Layout::X86_64, StatShape::Stat, &ATTR).expect("fits");
        assert_eq!(bytes.len(), size_of::<libc::stat>());
        assert_eq!(u64_at(&bytes, std::mem::offset_of!(libc::stat, st_ino)), 77);
        assert_eq!(u64_at(&bytes, std::mem::offset_of!(libc::stat, st_dev)), libc::makedev(8, 300));
        assert_eq!(u64_at(&bytes, std::mem::offset_of!(libc::stat, st_size)), 5);
        assert_eq!(u64_at(&bytes, std::mem::offset_of!(libc::stat, st_rdev)), libc::makedev(1, 3));
        assert_eq!(u64_at(&bytes, std::mem::offset_of!(libc::stat, st_mtime)), 12);
        assert_eq!(u64_at(&bytes, std::mem::offset_of!(libc::stat, st_ctime_nsec)), 15);
    }

    #[test]
    fn statx_matches_libc_layout() {
        let bytes = stat(Layout::I386, StatShape::Statx, &ATTR).expect("fits");
        assert_eq!(bytes.len(), size_of::<libc::statx>());
        assert_eq!(u64_at(&bytes, std::mem::offset_of!(libc::statx, stx_ino)), 77);
        assert_eq!(u64_at(&bytes, std::mem::offset_of!(libc::statx, stx_mnt_id)), 99);
        assert_eq!(bytes[std::mem::offset_of!(libc::statx, stx_dev_major)], 8);
        assert_eq!(u64_at(&bytes, std::mem::offset_of!(libc::statx, stx_mtime)), 12);
    }

    #[test]
    fn statfs_and_sysinfo_match_libc_layout() {
        let fs = Statfs {
            f_type: 0x9fa0,
            bsize: 4096,
            blocks: 1,
            bfree: 2,
            bavail: 3,
            files: 4,
            ffree: 5,
            fsid: [6, 7],
            namelen: 255,
            frsize: 4096,
            flags: 1,
        };
        let bytes = statfs(Layout::X86_64, StatfsShape::Statfs, &fs).expect("fits");
        assert_eq!(bytes.len(), size_of::<libc::statfs>());
        assert_eq!(u64_at(&bytes, std::mem::offset_of!(libc::statfs, f_ffree)), 5);
        assert_eq!(u64_at(&bytes, std::mem::offset_of!(libc::statfs, f_namelen)), 255);
        assert_eq!(statfs(Layout::I386, StatfsShape::Statfs64, &fs).expect("fits").len(), 84);
        let info = Sysinfo {
            uptime: 1,
            loads: [2, 3, 4],
            totalram: 6 << 30,
            freeram: 1 << 30,
            sharedram: 0,
            bufferram: 0,
            totalswap: 0,
            freeswap: 0,
            procs: 9,
        };
        assert_eq!(sysinfo(Layout::X86_64, &info).len(), size_of::<libc::sysinfo>());
        let small = sysinfo(Layout::I386, &info);
        assert_eq!(small.len(), 64);
        assert_eq!(u32::from_ne_bytes(small[16..20].try_into().expect("four")), (6u64 << 30 >> 12) as u32);
        assert_eq!(u32::from_ne_bytes(small[52..56].try_into().expect("four")), 4096);
    }

    #[test]
    fn oldest_stat_has_thirty_two_bytes_and_sixteen_bit_inodes() {
        let fits = Attr { ino: 65535, nlink: 1, ..ATTR };
        let bytes = stat(Layout::I386, StatShape::Oldest, &fits).expect("fits");
        assert_eq!((bytes.len(), &bytes[2..4]), (32, &[255, 255][..]));
        let large = Attr { ino: 65536, ..fits };
        assert_eq!(stat(Layout::I386, StatShape::Oldest, &large), Err(Errno::EOVERFLOW));
    }

    #[test]
    fn old_stat_refuses_what_does_not_fit() {
        assert_eq!(stat(Layout::I386, StatShape::Stat, &ATTR), Err(Errno::EOVERFLOW));
        let fits = Attr { dev: (8, 30), ..ATTR };
        assert_eq!(stat(Layout::I386, StatShape::Stat, &fits).map(|bytes| bytes.len()), Ok(64));
    }

    #[test]
    fn dirent_stops_at_the_capacity() {
        let mut buf = Vec::new();
        let shape = (Layout::X86_64, DirentShape::Dirent64);
        assert!(push_dirent(&mut buf, 48, shape, (1, 1, 4), b"abc"));
        assert_eq!(buf.len(), 24);
        assert!(push_dirent(&mut buf, 48, shape, (1, 2, 8), b"abcd"));
        assert!(!push_dirent(&mut buf, 48, shape, (1, 3, 8), b"x"));
        assert_eq!(&buf[19..22], b"abc");
    }
}
