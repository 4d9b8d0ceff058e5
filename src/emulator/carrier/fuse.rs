//! The FUSE carrier: a detached FUSE mount (fuse(4), fsmount(2)) that holds the whole path of each virtual
//! object, served by threads of the supervisor.
//!
//! Attached nowhere, it is in nobody's mountinfo, `..` stays inside, and `/proc/PID/fd` shows the right
//! path. Files are opened for direct I/O: each read(2) asks the server, so offsets behave as the node's type
//! wants and no page cache can be stale. Nothing here looks at a tracee.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use dashmap::DashMap;
use fuser::{
    AccessFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    IoctlFlags, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs,
    ReplyXattr, Request, Session, SessionACL,
};
use nix::errno::Errno as OsErrno;

use super::Carrier;
use crate::emulator::object::{Object, ObjectKind, child_key};
use crate::emulator::resolve::Identify;
use crate::emulator::store::{Store, honours_offset};
use crate::emulator::sys::OsResult;
use crate::emulator::sys::file::{self, Stat};
use crate::emulator::sys::mount::{Access, detached_fuse};
use crate::policy::What;

/// The kernel may believe names and attributes this long; they never change during a run.
const LIFETIME: Duration = Duration::from_secs(86400);

/// A step of the set-up that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Opening `/dev/fuse`.
    Device,
    /// Making the detached mount.
    Mount,
    /// Exchanging versions with the kernel.
    Handshake,
    /// Making a memfd (of the other carrier).
    Memfd,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Device => "open /dev/fuse",
            Step::Mount => "make a detached FUSE mount",
            Step::Handshake => "exchange versions with the kernel's FUSE",
            Step::Memfd => "create a memfd",
        })
    }
}

/// The carrier.
pub struct FuseCarrier {
    store: Arc<Store>,
    root: OwnedFd,
    root_stat: Stat,
    pending: Arc<Pending>,
}

/// Content that a receiver computed for the open(2) it is about to make, by its thread id.
type Pending = DashMap<u32, Bytes>;

thread_local! {
    /// The thread's id, asked for once: the C library makes a system call each time.
    static TID: u32 = nix::unistd::gettid().as_raw().cast_unsigned();
}

impl FuseCarrier {
    /// Makes the mount and starts serving it.
    ///
    /// # Errors
    /// The step that failed, and why.
    pub fn new(store: Arc<Store>) -> Result<Self, (Step, OsErrno)> {
        let device = file::open(None, c"/dev/fuse", libc::O_RDWR).map_err(|errno| (Step::Device, errno))?;
        let is_root = nix::unistd::geteuid().is_root();
        let (access, acl) =
            if is_root { (Access::Everybody, SessionACL::All) } else { (Access::Owner, SessionACL::Owner) };
        let root = detached_fuse(device.as_fd(), c"sysemu", access).map_err(|errno| (Step::Mount, errno))?;
        let pending = Arc::new(Pending::new());
        let server = Server {
            store: store.clone(),
            pending: pending.clone(),
            open: Mutex::default(),
            next: AtomicU64::new(1),
        };
        let mut config = Config::default();
        config.acl = acl;
        config.n_threads = Some(2);
        let failed = |error: std::io::Error| {
            (Step::Handshake, OsErrno::from_raw(error.raw_os_error().unwrap_or(libc::EPROTO)))
        };
        let session = Session::from_fd(server, device, acl, config).map_err(failed)?;
        std::thread::Builder::new()
            .name("fuse".into())
            .spawn(move || {
                if let Err(error) = session.run() {
                    tracing::warn!(%error, "the FUSE server ended");
                }
            })
            .map_err(failed)?;
        let root_stat = file::stat_fd(root.as_fd()).map_err(|errno| (Step::Handshake, errno))?;
        let _ = store.device.set(root_stat.dev);
        Ok(FuseCarrier { store, root, root_stat, pending })
    }

    fn open(&self, object: &Object, flags: i32) -> OsResult<OwnedFd> {
        // The server answers look-ups of names that a `*` row matches only when they are known to exist.
        for (end, _) in object.key.match_indices('/').skip(1) {
            self.store.inodes.number(&object.key[..end]);
        }
        self.store.inodes.number(&object.key);
        let path = object.key.trim_start_matches('/');
        let path = file::c_path(if path.is_empty() { b"." } else { path.as_bytes() })?;
        file::open(Some(self.root.as_fd()), &path, flags)
    }
}

impl Identify for FuseCarrier {
    fn identify(&self, stat: &Stat) -> Option<Arc<str>> {
        if stat.dev != self.root_stat.dev {
            return None;
        }
        self.store.inodes.key(stat.ino)
    }
}

impl Carrier for FuseCarrier {
    fn name(&self) -> &'static str {
        "fuse"
    }

    fn open_file(&self, object: &Object, content: Bytes, flags: i32) -> OsResult<OwnedFd> {
        let tid = TID.with(|tid| *tid);
        self.pending.insert(tid, content);
        // Without O_DIRECT sendfile(2) and splice(2) would go through the page cache, which ends at a size of 0.
        let fd = self.open(object, flags | libc::O_RDONLY | libc::O_DIRECT);
        self.pending.remove(&tid);
        fd
    }

    fn open_dir(&self, object: &Object, flags: i32) -> OsResult<OwnedFd> {
        self.open(object, flags | libc::O_RDONLY | libc::O_DIRECTORY)
    }

    fn open_path(&self, object: &Object) -> OsResult<OwnedFd> {
        self.open(object, libc::O_PATH | libc::O_NOFOLLOW)
    }

    fn identity(&self, _object: &Object) -> Option<((u32, u32), u64)> {
        None
    }

    fn mount(&self) -> Option<u64> {
        Some(self.root_stat.mount)
    }

    fn shows_path(&self) -> bool {
        true
    }
}

/// One open file: what it is and its content as of open(2).
struct Open {
    content: Bytes,
    honours_offset: bool,
}

struct Server {
    store: Arc<Store>,
    pending: Arc<Pending>,
    open: Mutex<HashMap<u64, Arc<Open>>>,
    next: AtomicU64,
}

impl Server {
    fn object(&self, ino: INodeNo) -> Option<Object> {
        let key = self.store.inodes.key(ino.0)?;
        // Directories on the way to a row need no row of their own.
        self.store
            .object(&key)
            .or_else(|| key.is_empty().then(|| Object { key: "".into(), kind: ObjectKind::Dir(None) }))
    }

    fn attr(&self, object: &Object) -> FileAttr {
        let attr = self.store.attr(object);
        let time = |(seconds, nanos): (i64, u32)| -> SystemTime {
            UNIX_EPOCH + Duration::new(seconds.unsigned_abs(), nanos)
        };
        let kind = match object.kind {
            ObjectKind::Dir(_) => FileType::Directory,
            ObjectKind::File(_) => FileType::RegularFile,
            ObjectKind::Link(_) => FileType::Symlink,
        };
        FileAttr {
            ino: INodeNo(attr.ino),
            size: attr.size,
            blocks: attr.blocks,
            atime: time(attr.atime),
            mtime: time(attr.mtime),
            ctime: time(attr.ctime),
            crtime: time(attr.ctime),
            kind,
            perm: (attr.mode & 0o7777) as u16,
            nlink: attr.nlink,
            uid: attr.uid,
            gid: attr.gid,
            rdev: 0,
            blksize: attr.blksize,
            flags: 0,
        }
    }

    /// sysctl_perm() of the kernel, as far as a request tells: no capability helps.
    fn allows(&self, object: &Object, req: &Request, want: u32) -> bool {
        let mode = self.store.attr(object).mode;
        let class = match (req.uid(), req.gid()) {
            (0, _) => mode >> 6,
            (_, 0) => mode >> 3,
            _ => mode,
        };
        class & want == want
    }
}

impl Filesystem for Server {
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let parent = self.store.inodes.key(parent.0);
        let (Some(parent), Some(name)) = (parent, name.to_str()) else {
            return reply.error(Errno::ENOENT);
        };
        let key = child_key(&parent, name);
        let exact = !self.store.tree.at(&key).is_wild_only();
        if !exact && self.store.inodes.known(&key).is_none() {
            return reply.error(Errno::ENOENT);
        }
        match self.store.object(&key) {
            Some(object) => reply.entry(&LIFETIME, &self.attr(&object), Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.object(ino) {
            Some(object) => reply.attr(&LIFETIME, &self.attr(&object)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn setattr(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        _size: Option<u64>,
        _atime: Option<fuser::TimeOrNow>,
        _mtime: Option<fuser::TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.error(Errno::EROFS);
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        match self.object(ino).map(|object| object.kind) {
            Some(ObjectKind::Link(row)) => match &row.what {
                What::Link { target } => reply.data(target.as_bytes()),
                _ => reply.error(Errno::EINVAL),
            },
            _ => reply.error(Errno::EINVAL),
        }
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let Some(object) = self.object(ino) else {
            return reply.error(Errno::ENOENT);
        };
        let handed_over = self.pending.remove(&req.pid()).map(|(_, content)| content);
        if flags.0 & libc::O_ACCMODE != libc::O_RDONLY {
            let errno = if self.allows(&object, req, 2) { Errno::EROFS } else { Errno::EACCES };
            return reply.error(errno);
        }
        let content = match handed_over {
            Some(content) => content,
            // A tracee opens its descriptor anew, through /proc/self/fd.
            None if !self.allows(&object, req, 4) => return reply.error(Errno::EACCES),
            None => match self.store.content(&object, req.pid()) {
                Ok(content) => content,
                Err(errno) => return reply.error(Errno::from_i32(errno.raw())),
            },
        };
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        let open = Open { content, honours_offset: honours_offset(&object) };
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(handle, Arc::new(open));
        reply.opened(FileHandle(handle), FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH);
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).get(&fh.0).cloned();
        let Some(open) = open else {
            return reply.error(Errno::EBADF);
        };
        let start = match usize::try_from(offset) {
            Ok(offset) if offset == 0 || open.honours_offset => offset.min(open.content.len()),
            _ => open.content.len(),
        };
        let end = open.content.len().min(start + size as usize);
        reply.data(&open.content[start..end]);
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&fh.0);
        reply.ok();
    }

    fn fsync(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply.error(Errno::EINVAL);
    }

    fn readdir(&self, req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let Some(key) = self.store.inodes.key(ino.0) else {
            return reply.error(Errno::ENOENT);
        };
        let parent = key.rsplit_once('/').map_or("", |(parent, _)| parent);
        let dots = [(ino.0, "."), (self.store.inodes.number(parent), "..")];
        let dots = dots.into_iter().map(|(ino, name)| (ino, FileType::Directory, name.to_owned()));
        let children = self.store.children(&key, req.pid()).into_iter().map(|(name, object)| {
            let kind = match object.kind {
                ObjectKind::Dir(_) => FileType::Directory,
                ObjectKind::File(_) => FileType::RegularFile,
                ObjectKind::Link(_) => FileType::Symlink,
            };
            (self.store.inodes.number(&object.key), kind, name)
        });
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        for (index, (ino, kind, name)) in dots.chain(children).enumerate().skip(skip) {
            if reply.add(INodeNo(ino), index as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        reply.statfs(0, 0, 0, 0, 0, 4096, 255, 4096);
    }

    fn listxattr(&self, _req: &Request, _ino: INodeNo, size: u32, reply: ReplyXattr) {
        if size == 0 { reply.size(0) } else { reply.data(&[]) }
    }

    fn access(&self, req: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        match self.object(ino) {
            None => reply.error(Errno::ENOENT),
            Some(object) if !self.allows(&object, req, mask.bits().cast_unsigned() & 7) => {
                reply.error(Errno::EACCES);
            }
            Some(_) if mask.contains(AccessFlags::W_OK) => reply.error(Errno::EROFS),
            Some(_) => reply.ok(),
        }
    }

    fn ioctl(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    /// ENOSYS makes the kernel answer for ever: always ready, as for a file of procfs.
    fn poll(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _ph: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(Errno::ENOSYS);
    }

    /// As for poll: there are none.
    fn getxattr(&self, _req: &Request, _ino: INodeNo, _name: &OsStr, _size: u32, reply: ReplyXattr) {
        reply.error(Errno::EOPNOTSUPP);
    }

    fn setxattr(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _name: &OsStr,
        _value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }

    fn removexattr(&self, _req: &Request, _ino: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn mknod(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EROFS);
    }

    fn mkdir(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EROFS);
    }

    fn unlink(&self, _req: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn rmdir(&self, _req: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn symlink(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _link_name: &OsStr,
        _target: &std::path::Path,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EROFS);
    }

    fn rename(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _newparent: INodeNo,
        _newname: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }

    fn link(&self, _req: &Request, _ino: INodeNo, _newparent: INodeNo, _newname: &OsStr, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn lseek(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _offset: i64,
        _whence: i32,
        reply: ReplyLseek,
    ) {
        reply.error(Errno::ENXIO);
    }
}
