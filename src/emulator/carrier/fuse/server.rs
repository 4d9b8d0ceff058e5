//! The FUSE server: what the kernel asks about the detached mount.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    AccessFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    IoctlFlags, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, WriteFlags,
};

use super::Pending;
use super::handle::Open;
use crate::emulator::carrier::Opening;
use crate::emulator::context::Who;
use crate::emulator::failure::Failure;
use crate::emulator::object::{Object, ObjectKind, child_key};
use crate::emulator::scope;
use crate::emulator::store::Store;
use crate::emulator::write;
use crate::policy::What;

/// The kernel may believe names and attributes this long; they never change during a run.
const LIFETIME: Duration = Duration::from_secs(86400);

pub(super) struct Server {
    store: Arc<Store>,
    pending: Arc<Pending>,
    open: Mutex<HashMap<u64, Arc<Open>>>,
    next: AtomicU64,
    waiting: Arc<Waiting>,
}

/// Who waits for a change, by the file's key and the open file.
type Waiting = Mutex<HashMap<Arc<str>, HashMap<u64, PollNotifier>>>;

impl Server {
    pub fn new(store: Arc<Store>, pending: Arc<Pending>) -> Self {
        let waiting = Arc::new(Waiting::default());
        let woken = waiting.clone();
        store.values.listen(Box::new(move |key| {
            let notifiers = woken.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
            for notifier in notifiers.unwrap_or_default().into_values() {
                // Whoever waited may be gone.
                let _ = notifier.notify();
            }
        }));
        Server { store, pending, open: Mutex::default(), next: AtomicU64::new(1), waiting }
    }

    fn handle(&self, fh: FileHandle) -> Option<Arc<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).get(&fh.0).cloned()
    }

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

    /// Whether the caller may still do what its file was opened for. Linux: proc_sys_call_handler() looks at each
    /// read(2) and write(2), because rights can be given up and descriptors passed on; other files are not looked at.
    fn still_allows(&self, object: &Object, req: &Request, want: u32) -> bool {
        !object.key.starts_with("/proc/sys/") || self.allows(object, req, want)
    }

    /// Whether the caller may do this, with the rights that it has now.
    fn allows(&self, object: &Object, req: &Request, want: u32) -> bool {
        if req.pid() != 0 {
            match scope::permit(&self.store.views, req.pid(), object, want, Who::Effective) {
                Ok(()) => return true,
                Err(Failure::Guest(_)) => return false,
                Err(Failure::Gone | Failure::Fault(..)) => {}
            }
        }
        // A task of a pid namespace that the supervisor cannot see.
        let mode = object.mode();
        let class = match (req.uid(), req.gid()) {
            (0, _) => mode >> 6,
            (_, 0) => mode >> 3,
            _ => mode,
        };
        class & want == want
    }
}

impl Server {
    /// What an open(2) by somebody else than the supervisor needs.
    fn opening(&self, object: &Object, req: &Request, flags: i32) -> Result<Opening, Errno> {
        let want = match flags & libc::O_ACCMODE {
            libc::O_RDONLY => 4,
            libc::O_WRONLY => 2,
            _ => 6,
        };
        if !self.allows(object, req, want) {
            return Err(Errno::EACCES);
        }
        if want & 2 != 0 && !write::is_writable(object) {
            return Err(Errno::EROFS);
        }
        let bound = self.store.bound_scope(object, req.pid());
        let content = self.store.content_in(object, req.pid(), bound);
        let content = content.map_err(|errno| Errno::from_i32(errno.raw()))?;
        Ok(Opening { content, tid: req.pid(), bound })
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

    /// Linux: proc_sys_setattr() refuses mode and owner; a new size is accepted without effect.
    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
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
        let Some(object) = self.object(ino) else {
            return reply.error(Errno::ENOENT);
        };
        if !write::is_writable(&object) {
            return reply.error(Errno::EROFS);
        }
        if mode.is_some() || uid.is_some() || gid.is_some() {
            return reply.error(Errno::EPERM);
        }
        let permitted = if size.is_some() { self.allows(&object, req, 2) } else { req.uid() == 0 };
        match permitted {
            true => reply.attr(&LIFETIME, &self.attr(&object)),
            false => reply.error(Errno::EACCES),
        }
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
        let handed_over = self.pending.remove(&req.pid()).map(|(_, opening)| opening);
        let opening = match handed_over {
            Some(opening) => opening,
            // A tracee opens its descriptor anew, through /proc/self/fd.
            None => match self.opening(&object, req, flags.0) {
                Ok(opening) => opening,
                Err(errno) => return reply.error(errno),
            },
        };
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        let event = self.store.values.event(&object.key);
        let open = Open::new(object, opening, event);
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(handle, Arc::new(open));
        reply.opened(FileHandle(handle), FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH);
    }

    fn read(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some(open) = self.handle(fh) else {
            return reply.error(Errno::EBADF);
        };
        if !self.still_allows(&open.object, req, 4) {
            return reply.error(Errno::EPERM);
        }
        match open.read(&self.store, req.pid(), offset, size as usize) {
            Ok(bytes) => reply.data(&bytes),
            Err(errno) => reply.error(Errno::from_i32(errno.raw())),
        }
    }

    fn write(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let Some(open) = self.handle(fh) else {
            return reply.error(Errno::EBADF);
        };
        if !self.still_allows(&open.object, req, 2) {
            return reply.error(Errno::EPERM);
        }
        let appends = flags.0 & libc::O_APPEND != 0;
        match open.write(&self.store, req.pid(), offset, data, appends) {
            Ok(count) => reply.written(u32::try_from(count).unwrap_or(u32::MAX)),
            Err(errno) => reply.error(Errno::from_i32(errno.raw())),
        }
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
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&fh.0);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = open.and_then(|open| waiting.get_mut(&open.object.key)) {
            waiting.remove(&fh.0);
        }
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
            Some(object) if mask.contains(AccessFlags::W_OK) && !write::is_writable(&object) => {
                reply.error(Errno::EROFS);
            }
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

    /// Linux: proc_sys_poll(). Always ready; a change since the last look shows once.
    fn poll(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        notifier: PollNotifier,
        _events: PollEvents,
        flags: PollFlags,
        reply: ReplyPoll,
    ) {
        let Some(open) = self.handle(fh) else {
            return reply.error(Errno::EBADF);
        };
        let usual =
            PollEvents::POLLIN | PollEvents::POLLOUT | PollEvents::POLLRDNORM | PollEvents::POLLWRNORM;
        if !open.can_be_polled() {
            return reply.poll(usual);
        }
        if flags.contains(PollFlags::FUSE_POLL_SCHEDULE_NOTIFY) {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            // One for each open file is enough, and keeps a busy poller from growing the list.
            waiting.entry(open.object.key.clone()).or_default().insert(fh.0, notifier);
        }
        let changed = PollEvents::POLLIN | PollEvents::POLLRDNORM | PollEvents::POLLERR | PollEvents::POLLPRI;
        // After the notifier is in place, or a change between would be missed.
        let event = self.store.values.event(&open.object.key);
        reply.poll(if open.sees(event) { changed } else { usual });
    }

    /// There are none.
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
